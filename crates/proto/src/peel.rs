//! Everything of a node that holds a packet key: open, ask the replay set, finish.
//!
//! Spec: docs/spec/mix.md, rules MIX-1, RPL-1, RPL-4; docs/spec/epochs.md, EPO-2.
//!
//! ```text
//! arrivals ─ open (MAC, tag, delay cap) ─ admit tags ─┬─ journal write returns ─ finish ─ Peeled
//!            drops counted by reason                  └─ Pending::journal
//! ```
//!
//! Pure, so that the simulator runs it inline and injects faults between the two halves; the
//! shell runs it on worker threads, each with a [`Ring`] of the same keys. Nothing reaches a machine
//! before the journal's write has returned (RPL-4): only [`Pending::finish`] gives packets, and its
//! caller journals first.
//!
//! No epoch stands on the wire: the current key is tried first, then its neighbours while their
//! windows overlap (EPO-2). A packet that none of them opens is counted once, as its first
//! verdict.

use core::time::Duration;
use std::{collections::BTreeMap, sync::Arc};

use sphinx::{Address, Opened, Packet, Reject, Routing, SecretKey, Verdicts};

use crate::{
    Time,
    calendar::{Epoch, Schedule, Utc},
    replay::{Fingerprint, OldTable, Refused, ReplaySet},
};

/// A packet as a link read it.
#[derive(Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When its last byte was read (MIX-1).
    pub received: Time,
    /// The packet.
    pub packet: Box<Packet>,
}

/// A packet with its outer layer removed, and where it goes next.
#[derive(Clone, PartialEq, Eq)]
pub struct Peeled {
    /// When the link read the packet, before any queue and before peeling.
    pub received: Time,
    /// The next hop: a node's id, or a mailbox at a gateway.
    pub next: Address,
    /// Whose key opened it, and so which period's layers its route has (EPO-6).
    pub epoch: Epoch,
    /// How long the builder asked this node to hold the packet; at most the consensus' cap.
    pub delay: Duration,
    /// The packet as the next hop will see it.
    pub packet: Box<Packet>,
}

impl core::fmt::Debug for Peeled {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Peeled(..)")
    }
}

impl core::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Arrival(..)")
    }
}

/// Why a packet was dropped before it reached a machine. Counted, never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeelDrop {
    /// It was not a packet for any key that is open now.
    Rejected(Reject),
    /// It names this node as its last hop, which no node is.
    Final,
    /// The replay set refused it.
    Replay(Refused),
    /// No key is open now: before the consensus, after its last epoch, or burned.
    NoKey,
}

/// The keys alone: opens packets, on as many threads as there are clones.
#[derive(Clone, Default)]
pub struct Ring(BTreeMap<Epoch, Arc<SecretKey>>);

/// What a [`Ring`] opened, before the replay sets are asked.
#[derive(Default)]
pub struct Batch(Vec<ByKey>);

/// What one key opened. The packets' own keys stay in `verdicts` from opening to finishing, and are
/// erased there: a move would leave a copy (PKT-5).
struct ByKey {
    epoch: Epoch,
    verdicts: Verdicts,
    open: Vec<Open>,
}

struct Open {
    arrival: Arrival,
    next: Address,
    delay_ns: u64,
    /// Its place in the verdicts.
    at: usize,
}

/// What the verdict at `at` opened.
fn opened(verdicts: &Verdicts, at: usize) -> &Opened {
    let verdict = verdicts[at].as_ref();
    verdict.expect("only what was opened is asked for")
}

impl Ring {
    /// Opens a batch that came at about `now`. `dropped` counts what no key opens.
    #[must_use]
    pub fn open(
        &self,
        schedule: &Schedule,
        now: Utc,
        delay_max: Duration,
        batch: Vec<Arrival>,
        mut dropped: impl FnMut(PeelDrop),
    ) -> Batch {
        let cap = u64::try_from(delay_max.as_nanos()).unwrap_or(u64::MAX);
        // The current epoch's key opens nearly everything; neighbours follow.
        let current = schedule.at(now).unwrap_or(schedule.first);
        let open_now = |epoch: &Epoch| schedule.opens(*epoch).contains(&now);
        let mut keys: Vec<_> = self.0.iter().filter(|(epoch, _)| open_now(epoch)).collect();
        keys.sort_by_key(|(epoch, _)| (**epoch != current, **epoch));

        let mut rest: Vec<(Arrival, PeelDrop)> = batch
            .into_iter()
            .map(|arrival| (arrival, PeelDrop::NoKey))
            .collect();
        let mut opened_by = Batch::default();
        for (epoch, secret) in keys {
            if rest.is_empty() {
                break;
            }
            let mut verdicts = Verdicts::with_capacity(rest.len());
            let packets = rest.iter().map(|(arrival, _)| &*arrival.packet);
            sphinx::open(secret, cap, packets, &mut verdicts);
            let tried = core::mem::take(&mut rest);
            let mut open = Vec::with_capacity(tried.len());
            for (at, (arrival, first)) in tried.into_iter().enumerate() {
                match (&verdicts[at], first) {
                    (Ok(opened), _) => match *opened.routing() {
                        Routing::Forward { next, delay_ns } => open.push(Open {
                            arrival,
                            next,
                            delay_ns,
                            at,
                        }),
                        Routing::Final { .. } => dropped(PeelDrop::Final),
                    },
                    // Only a wrong MAC may mean another epoch's key.
                    (Err(Reject::Mac), PeelDrop::NoKey) => {
                        rest.push((arrival, PeelDrop::Rejected(Reject::Mac)));
                    }
                    (Err(Reject::Mac), first) => rest.push((arrival, first)),
                    (Err(why), _) => dropped(PeelDrop::Rejected(*why)),
                }
            }
            opened_by.0.push(ByKey {
                epoch: *epoch,
                verdicts,
                open,
            });
        }
        rest.into_iter().for_each(|(_, why)| dropped(why));
        opened_by
    }
}

/// The keys that a node holds, each with its replay set.
#[derive(Default)]
pub struct Stage {
    ring: Ring,
    sets: BTreeMap<Epoch, ReplaySet>,
}

impl Stage {
    /// Puts the key of `epoch` in, with what its journal remembers.
    pub fn install(&mut self, epoch: Epoch, secret: SecretKey, seen: ReplaySet) {
        self.ring.0.insert(epoch, Arc::new(secret));
        self.sets.insert(epoch, seen);
    }

    /// Forgets every key whose window has ended, and says which (EPO-5). Clones of its ring have
    /// to be replaced. The sets are to be dropped where no packet waits: that takes milliseconds.
    #[must_use]
    pub fn retire(&mut self, schedule: &Schedule, now: Utc) -> BTreeMap<Epoch, ReplaySet> {
        let ended = |epoch: &Epoch| schedule.opens(*epoch).end <= now;
        let gone: Vec<Epoch> = self.sets.keys().copied().filter(ended).collect();
        let gone = gone.into_iter();
        gone.filter_map(|epoch| Some((epoch, self.burn(epoch)?)))
            .collect()
    }

    /// Forgets the key of `epoch`: its journal can no longer be trusted (RPL-4, fail closed). What a
    /// clone of its ring still opens is not admitted. Its set is to be dropped as by [`Stage::retire`].
    #[must_use]
    pub fn burn(&mut self, epoch: Epoch) -> Option<ReplaySet> {
        self.ring.0.remove(&epoch);
        self.sets.remove(&epoch)
    }

    /// The tables that sets have grown out of, to be dropped likewise.
    #[must_use]
    pub fn take_old(&mut self) -> Vec<OldTable> {
        let sets = self.sets.values_mut();
        sets.filter_map(ReplaySet::take_old).collect()
    }

    /// Whether the key of `epoch` is in.
    #[must_use]
    pub fn holds(&self, epoch: Epoch) -> bool {
        self.sets.contains_key(&epoch)
    }

    /// The replay set of each key that is in.
    pub fn sets(&self) -> impl Iterator<Item = (Epoch, &ReplaySet)> {
        self.sets.iter().map(|(epoch, seen)| (*epoch, seen))
    }

    /// The keys that are in now.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Opens a batch that came at about `now` and admits its tags. `dropped` counts the rest.
    pub fn open(
        &mut self,
        schedule: &Schedule,
        now: Utc,
        delay_max: Duration,
        batch: Vec<Arrival>,
        mut dropped: impl FnMut(PeelDrop),
    ) -> Pending {
        let opened = self
            .ring
            .open(schedule, now, delay_max, batch, &mut dropped);
        self.admit(opened, dropped)
    }

    /// Asks the replay sets. `dropped` counts what they refuse.
    pub fn admit(&mut self, batch: Batch, mut dropped: impl FnMut(PeelDrop)) -> Pending {
        let mut pending = Pending::default();
        for by in batch.0 {
            let ByKey {
                epoch,
                verdicts,
                open,
            } = by;
            let Some(seen) = self.sets.get_mut(&epoch) else {
                open.iter().for_each(|_| dropped(PeelDrop::NoKey));
                continue;
            };
            let fingerprint = |open: &Open| seen.fingerprint(opened(&verdicts, open.at).tag());
            let fingerprints: Vec<Fingerprint> = open.iter().map(fingerprint).collect();
            let mut open = open.into_iter();
            seen.admit_batch(&fingerprints, |fingerprint, admitted| {
                let Some(open) = open.next() else { return };
                match admitted {
                    Ok(()) => {
                        pending.journal.push((epoch, fingerprint));
                        pending.places.push((pending.verdicts.len(), open.at));
                        pending.admitted.push(Peeled {
                            received: open.arrival.received,
                            next: open.next,
                            epoch,
                            delay: Duration::from_nanos(open.delay_ns),
                            packet: open.arrival.packet,
                        });
                    }
                    Err(why) => dropped(PeelDrop::Replay(why)),
                }
            });
            pending.verdicts.push(verdicts);
        }
        pending
    }
}

impl core::fmt::Debug for Stage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.sets.keys()).finish()
    }
}

/// Packets that are admitted and wait for their tags to be in the journal (and, at a front end, in the
/// set that it shares).
#[derive(Default)]
pub struct Pending {
    /// What must be in the journal, of which epoch, before [`Pending::finish`] (RPL-4).
    pub journal: Vec<(Epoch, Fingerprint)>,
    /// What each key opened, with what a packet still needs to be finished.
    verdicts: Vec<Verdicts>,
    /// Of each of `admitted`, where its verdict stands.
    places: Vec<(usize, usize)>,
    admitted: Vec<Peeled>,
}

impl Pending {
    /// The packets, each as the next hop will read it. Call it when the journal's write has
    /// returned; if the write failed, drop `self`.
    pub fn finish(self) -> impl Iterator<Item = Peeled> {
        let Self {
            verdicts,
            places,
            mut admitted,
            ..
        } = self;
        let opened = places.iter().map(|(key, at)| opened(&verdicts[*key], *at));
        let packets = admitted.iter_mut().map(|peeled| &mut *peeled.packet);
        sphinx::finish_batch(opened.zip(packets));
        admitted.into_iter()
    }

    /// Keeps the packets whose place in `new` says so, and says how many it drops: another front end
    /// of this gateway admitted those (GW-30).
    pub fn keep(&mut self, new: &[bool]) -> usize {
        fn keep<T>(all: &mut Vec<T>, new: &[bool]) {
            let mut new = new.iter();
            all.retain(|_| new.next() == Some(&true));
        }
        let were = self.len();
        keep(&mut self.journal, new);
        keep(&mut self.places, new);
        keep(&mut self.admitted, new);
        were - self.len()
    }

    /// How many packets wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.admitted.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.admitted.is_empty()
    }
}
