//! Which gateway a client enters by: chosen once, kept, and left when it is dead.
//!
//! Spec: docs/spec/client.md, rules CLI-11, CLI-29 and CLI-30.
//!
//! | quantity  | type             | unit, range                                                   |
//! |-----------|------------------|---------------------------------------------------------------|
//! | failing   | [`Time`]         | of the first of the failures in a row                         |
//! | heard     | `bool`           | whether the mailbox link brought a frame since then           |
//! | left      | UTC s            | of each gateway that was left in the last [`REMEMBERED`]      |
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

/// A link that ends earlier never was one.
const HELD: Duration = Duration::from_secs(10);
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
    /// Whether another gateway is about to be entered by.
    pub leaving: bool,
    /// How often one was left because it was dead, since the start.
    pub replaced: u64,
    /// Gateways that were left in the last day, for whatever reason.
    pub left: usize,
}

pub(crate) struct Entry {
    rng: ChaCha20Rng,
    gateway: Option<NodeId>,
    /// Since when the link is up.
    up: Option<Time>,
    failing: Option<Time>,
    heard: bool,
    leaves_at: Option<Time>,
    left: BTreeMap<NodeId, u64>,
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
            failing: None,
            heard: false,
            leaves_at: None,
            left: BTreeMap::new(),
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

    pub(crate) fn next(&self) -> Option<Time> {
        self.leaves_at
    }

    pub(crate) fn view(&self) -> Entrance {
        let failing = self.failing.filter(|_| !self.is_up());
        Entrance {
            failing,
            dead: failing.is_some() && self.heard,
            leaving: self.leaves_at.is_some(),
            replaced: self.replaced,
            left: self.left.len(),
        }
    }

    /// The link to `gateway` is up. If it holds, nothing was wrong.
    pub(crate) fn up(&mut self, now: Time, gateway: NodeId) {
        if self.gateway == Some(gateway) {
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

    /// Enters by that gateway from now on; the one before it is among those of the day.
    fn enter(&mut self, gateway: NodeId, now_s: Option<u64>, journal: &mut Journal) {
        if self.gateway == Some(gateway) {
            return;
        }
        if self.left.remove(&gateway).is_some() {
            journal.delete(key(kind::LEFT, &[&gateway.0]));
        }
        if let Some((before, now_s)) = self.gateway.zip(now_s) {
            self.left.insert(before, now_s);
            journal.put(key(kind::LEFT, &[&before.0]), now_s.to_be_bytes().to_vec());
        }
        self.gateway = Some(gateway);
        (self.up, self.failing, self.leaves_at) = (None, None, None);
        journal.put(key(kind::ENTRY, &[]), gateway.0.to_vec());
    }

    /// Forgets what was left more than a day ago.
    pub(crate) fn expire(&mut self, now_s: u64, journal: &mut Journal) {
        self.left.retain(|gateway, at_s| {
            let keep = now_s < at_s.saturating_add(REMEMBERED);
            if !keep {
                journal.delete(key(kind::LEFT, &[&gateway.0]));
            }
            keep
        });
    }

    /// Another of `good` than the one in use and those of the day, uniformly, while there are fewer
    /// than [`ENTRIES_MAX`] of a day (CLI-30).
    fn fresh(&mut self, good: &[NodeId]) -> Option<NodeId> {
        if self.left.len() + 1 >= ENTRIES_MAX {
            return None;
        }
        let fresh = |id: &&NodeId| Some(**id) != self.gateway && !self.left.contains_key(*id);
        let fresh: Vec<&NodeId> = good.iter().filter(fresh).collect();
        let at = (!fresh.is_empty()).then(|| self.rng.random_range(0..fresh.len()))?;
        Some(*fresh[at])
    }

    /// The one of those of the day that was left longest ago, once it has rested (CLI-30).
    fn rested(&self, good: &[NodeId], now_s: u64) -> Option<NodeId> {
        let of_day = self.left.iter().filter(|(id, _)| good.contains(id));
        let (id, at_s) = of_day.min_by_key(|(id, at_s)| (**at_s, **id))?;
        (at_s.saturating_add(REST_S) <= now_s).then_some(*id)
    }
}

impl Client {
    fn good_entries(&self, consensus: &Consensus) -> Vec<NodeId> {
        route::entries(consensus, &self.mailbox_gateway(), self.config.via.as_ref())
    }

    fn now_s(&self) -> Option<u64> {
        Some(self.utc(self.now)?.as_secs())
    }

    pub(super) fn enter(&mut self, gateway: NodeId) {
        let now_s = self.now_s();
        self.entry.enter(gateway, now_s, &mut self.journal);
    }

    /// A document is taken: the entry stays if it is still good (CLI-11).
    pub(super) fn choose_entry(&mut self, document: &Consensus) {
        let good = self.good_entries(document);
        let is_good = |id: &NodeId| good.contains(id);
        if self.entry.gateway.as_ref().is_some_and(is_good) {
            return;
        }
        let preferred = self.config.entry.filter(is_good);
        let rng = &mut self.rng;
        let drawn = || (!good.is_empty()).then(|| good[rng.random_range(0..good.len())]);
        match preferred.or_else(drawn) {
            Some(entry) => self.enter(entry),
            None => (self.entry.gateway, self.entry.up) = (None, None),
        }
    }

    /// Enters by another gateway, one of those that were not left today (CLI-30).
    pub(super) fn enter_elsewhere(&mut self) -> bool {
        let Some(consensus) = self.consensus.clone() else {
            return false;
        };
        let good = self.good_entries(&consensus);
        let other = self.entry.fresh(&good);
        if let Some(other) = other {
            self.enter(other);
        }
        other.is_some()
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
        let other = self.entry.fresh(&good);
        if let Some(other) = other.or_else(|| self.entry.rested(&good, now_s)) {
            self.enter(other);
            self.entry.replaced += 1;
            self.event(ClientEvent::EntryReplaced);
        }
    }
}
