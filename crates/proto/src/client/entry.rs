//! Which gateway a client enters by: chosen once, kept, and left when it is dead.
//!
//! Spec: docs/spec/client.md, rules CLI-11, CLI-29 and CLI-30.
//!
//! | quantity  | type             | unit, range                                                   |
//! |-----------|------------------|---------------------------------------------------------------|
//! | failing   | [`Time`]         | of the first of the failures in a row                         |
//! | heard     | `bool`           | whether the mailbox link brought a frame since then           |
//! | left      | UTC s            | of each gateway that was left in the last [`REMEMBERED`]      |
//! | withdrawn | UTC s            | of each that said in that time that it withdraws              |
//! | entered   | gateways         | those, and the one in use: at most [`ENTRIES_MAX`] a day      |
//!
//! Two failures in a row condemn a gateway only if the mailbox link brought a frame after the
//! first: then the client's own connection works, and it is the gateway (CLI-29). Whoever can
//! block gateways can make a client leave them; what he gains is bounded by how few it ever enters
//! by (CLI-30).
//!
//! Not done here: dialling, and when. The driver tells of each attempt that failed.

use core::time::Duration;
use std::collections::BTreeMap;

use chacha20::ChaCha20Rng;
use rand::RngExt as _;
use rand_core::SeedableRng as _;

use super::{
    Client, ClientEvent, cover,
    journal::{Journal, key, kind},
    route,
};
use crate::{NodeId, Time, directory::Consensus};

/// A link that ends earlier never was one: it may have been refused.
pub const HELD: Duration = Duration::from_secs(10);
/// Longest from the verdict on a gateway until another one is entered by.
const JITTER: Duration = Duration::from_secs(5);
/// Gateways that a client enters by in a day.
const ENTRIES_MAX: usize = 4;
/// How long a gateway that was left counts among those of the day.
const REMEMBERED: u64 = 86_400;
/// Seconds until one that was left is tried again.
const REST_S: u64 = 600;

/// How a client stands with its entry gateway, for its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entrance {
    /// Since when attempts have failed, while they do.
    pub failing: Option<Time>,
    /// Whether the mailbox link brought a frame since then: the gateway is dead, and not the
    /// client's own connection.
    pub dead: bool,
    /// Whether it said that it withdraws.
    pub withdrew: bool,
    /// Whether another gateway is about to be entered by.
    pub leaving: bool,
    /// How often one was left because it was dead or withdrew, since the start.
    pub replaced: u64,
    /// Gateways that were left in the last day, for whatever reason.
    pub left: usize,
}

pub(crate) struct Entry {
    rng: ChaCha20Rng,
    gateway: Option<NodeId>,
    /// Since when the link is up.
    up: Option<Time>,
    full: bool,
    failing: Option<Time>,
    heard: bool,
    leaves_at: Option<Time>,
    left: BTreeMap<NodeId, u64>,
    withdrawn: BTreeMap<NodeId, u64>,
    replaced: u64,
}

impl Entry {
    pub(crate) fn new(seed: [u8; 32], stream: u64) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        rng.set_stream(stream);
        Self {
            rng,
            gateway: None,
            up: None,
            full: false,
            failing: None,
            heard: false,
            leaves_at: None,
            left: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
            replaced: 0,
        }
    }

    pub(crate) fn restore(&mut self, gateway: NodeId) {
        self.gateway = Some(gateway);
    }

    pub(crate) fn restore_left(&mut self, gateway: NodeId, at_s: u64) {
        self.left.insert(gateway, at_s);
    }

    pub(crate) fn gateway(&self) -> Option<NodeId> {
        self.gateway
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// Whether the link, while it is up, takes what a call may write.
    pub(crate) fn has_room(&self) -> bool {
        !self.full
    }

    pub(crate) fn fill(&mut self, full: bool) {
        self.full = full;
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.leaves_at
    }

    pub(crate) fn view(&self) -> Entrance {
        let failing = self.failing.filter(|_| !self.is_up());
        Entrance {
            failing,
            dead: failing.is_some() && self.heard,
            withdrew: self
                .gateway
                .is_some_and(|id| self.withdrawn.contains_key(&id)),
            leaving: self.leaves_at.is_some(),
            replaced: self.replaced,
            left: self.left.len(),
        }
    }

    /// Whether nothing speaks against mailboxes at this gateway (CLI-40): it was not left in the last
    /// day, says nothing of withdrawing, and if it is the entry, its link is up.
    pub(crate) fn trusts(&self, gateway: &NodeId) -> bool {
        let knows_bad = self.left.contains_key(gateway) || self.withdrawn.contains_key(gateway);
        !knows_bad && (self.gateway != Some(*gateway) || self.is_up())
    }

    /// A gateway said that it withdraws.
    pub(super) fn withdraws(&mut self, gateway: NodeId, now_s: u64) {
        self.withdrawn.insert(gateway, now_s);
    }

    /// A link to this gateway is new: it is back, if it was gone.
    pub(crate) fn is_back(&mut self, gateway: &NodeId) {
        self.withdrawn.remove(gateway);
    }

    /// The link to `gateway` is up. If it holds, nothing was wrong.
    pub(crate) fn up(&mut self, now: Time, gateway: NodeId) {
        if self.gateway == Some(gateway) {
            self.is_back(&gateway);
            self.up = Some(now);
            self.leaves_at = self.leaves_at.map(|_| now.after(HELD));
        }
    }

    /// The link to `gateway` is lost, or was not to be had (CLI-29).
    pub(crate) fn down(&mut self, now: Time, gateway: NodeId) {
        if self.gateway != Some(gateway) {
            return; // it was left already
        }
        let held = self.up.take().is_some_and(|up| now.since(up) >= HELD);
        match self.failing {
            Some(_) if !held => {
                if self.heard && self.leaves_at.is_none() {
                    let wait = JITTER.mul_f64(cover::uniform(&mut self.rng));
                    self.leaves_at = Some(now.after(wait.max(Duration::from_nanos(1))));
                }
            }
            _ => (self.failing, self.heard) = (Some(now), false),
        }
    }

    /// The mailbox link brought a frame: the client's own connection works.
    pub(crate) fn heard(&mut self) {
        self.heard = true;
    }

    /// Whether the gateway in use is to be left now. One that is up again is not.
    pub(crate) fn is_dead(&mut self, now: Time) -> bool {
        let due = self.leaves_at.take_if(|at| *at <= now).is_some();
        if due && self.is_up() {
            self.failing = None;
        }
        due && !self.is_up()
    }

    /// Enters by none from now on; the one before is among those of the day.
    fn leave(&mut self, now_s: u64, journal: &mut Journal) {
        if let Some(before) = self.gateway.take() {
            self.left.insert(before, now_s);
            journal.put(key(kind::LEFT, &[&before.0]), now_s.to_be_bytes().to_vec());
            journal.delete(key(kind::ENTRY, &[]));
        }
        (self.up, self.failing, self.leaves_at) = (None, None, None);
    }

    /// Enters by that gateway from now on.
    fn enter(&mut self, gateway: NodeId, now_s: u64, journal: &mut Journal) {
        self.leave(now_s, journal);
        if self.left.remove(&gateway).is_some() {
            journal.delete(key(kind::LEFT, &[&gateway.0]));
        }
        self.gateway = Some(gateway);
        journal.put(key(kind::ENTRY, &[]), gateway.0.to_vec());
    }

    /// Forgets what was left more than a day ago.
    pub(crate) fn expire(&mut self, now_s: u64, journal: &mut Journal) {
        let is_recent = |at_s: u64| now_s < at_s.saturating_add(REMEMBERED);
        self.withdrawn.retain(|_, at_s| is_recent(*at_s));
        self.left.retain(|gateway, at_s| {
            let keep = is_recent(*at_s);
            if !keep {
                journal.delete(key(kind::LEFT, &[&gateway.0]));
            }
            keep
        });
    }

    /// Those of `good` that may still be entered by for the first time today: others than the one
    /// in use and those of the day, while these are fewer than [`ENTRIES_MAX`] (CLI-30).
    fn fresh(&self, good: &[NodeId]) -> Vec<NodeId> {
        if self.left.len() + usize::from(self.gateway.is_some()) >= ENTRIES_MAX {
            return Vec::new();
        }
        let fresh = |id: &&NodeId| Some(**id) != self.gateway && !self.left.contains_key(*id);
        good.iter().filter(fresh).copied().collect()
    }

    /// The one of those of the day that was left longest ago, and when.
    fn oldest(&self, good: &[NodeId]) -> Option<(NodeId, u64)> {
        let of_day = self.left.iter().filter(|(id, _)| good.contains(id));
        let (id, at_s) = of_day.min_by_key(|(id, at_s)| (**at_s, **id))?;
        Some((*id, *at_s))
    }

    /// The same, once it has rested (CLI-30).
    fn rested(&self, good: &[NodeId], now_s: u64) -> Option<NodeId> {
        let (id, at_s) = self.oldest(good)?;
        (at_s.saturating_add(REST_S) <= now_s).then_some(id)
    }
}

/// One of `from`, uniformly.
pub(super) fn draw(rng: &mut ChaCha20Rng, from: &[NodeId]) -> Option<NodeId> {
    let at = (!from.is_empty()).then(|| rng.random_range(0..from.len()))?;
    Some(from[at])
}

impl Client {
    fn good_entries(&self, consensus: &Consensus) -> Vec<NodeId> {
        let homes = self.mailbox_gateways();
        route::entries(consensus, &homes, self.config.via.as_ref())
    }

    fn now_s(&self) -> Option<u64> {
        Some(self.utc(self.now)?.as_secs())
    }

    /// The entry stays while the document has it (CLI-11). Else another one is entered by, among the
    /// four of a day as far as the document has one of them (CLI-30). Without a calendar there is no
    /// day to judge by, and nothing could be sent either.
    pub(super) fn choose_entry(&mut self, document: &Consensus) {
        let good = self.good_entries(document);
        let is_good = |id: &NodeId| good.contains(id);
        let stays = self.entry.gateway.as_ref().is_some_and(is_good);
        let Some(now_s) = self.now_s().filter(|_| !stays) else {
            return;
        };
        self.entry.expire(now_s, &mut self.journal);
        let fresh = self.entry.fresh(&good);
        let preferred = self.config.entry.filter(|id| fresh.contains(id));
        let entry = preferred
            .or_else(|| draw(&mut self.rng, &fresh))
            .or_else(|| self.entry.oldest(&good).map(|(id, _)| id))
            .or_else(|| draw(&mut self.rng, &good));
        match entry {
            Some(entry) => self.entry.enter(entry, now_s, &mut self.journal),
            None => self.entry.leave(now_s, &mut self.journal),
        }
    }

    /// Enters by another gateway, one of those that were not left today (CLI-30).
    pub(super) fn enter_elsewhere(&mut self) -> bool {
        let Some((consensus, now_s)) = self.consensus.clone().zip(self.now_s()) else {
            return false;
        };
        let fresh = self.entry.fresh(&self.good_entries(&consensus));
        let other = draw(&mut self.entry.rng, &fresh);
        if let Some(other) = other {
            self.entry.enter(other, now_s, &mut self.journal);
        }
        other.is_some()
    }

    pub(super) fn entry_replaced(&mut self) {
        self.entry.replaced += 1;
        self.event(ClientEvent::EntryReplaced);
    }

    /// Leaves an entry gateway that is dead (CLI-29).
    pub(super) fn entry_due(&mut self) {
        if !self.entry.is_dead(self.now) {
            return;
        }
        let Some((consensus, now_s)) = self.consensus.clone().zip(self.now_s()) else {
            return;
        };
        self.entry.expire(now_s, &mut self.journal);
        let good = self.good_entries(&consensus);
        let fresh = self.entry.fresh(&good);
        let other = draw(&mut self.entry.rng, &fresh);
        if let Some(other) = other.or_else(|| self.entry.rested(&good, now_s)) {
            self.entry.enter(other, now_s, &mut self.journal);
            self.entry_replaced();
        }
    }
}
