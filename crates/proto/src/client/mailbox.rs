//! The client's side of its mailbox links: opening, reading in order, confirming at a constant rate.
//!
//! Spec: docs/spec/client.md, rules CLI-13 to CLI-15, CLI-42.
//!
//! | quantity  | type   | unit, range                                                         |
//! |-----------|--------|---------------------------------------------------------------------|
//! | read      | `u64`  | highest sequence taken from the link, of each slot                  |
//! | stored    | `u64`  | highest sequence whose effects are durable: what is confirmed       |
//! | interval  | ms     | between two ticks, from the profile                                 |
//!
//! Ticks are constant: they tell neither what came nor how much (CLI-13). One that is late, or finds
//! a frame waiting for its link, is left out; what it would have carried rides on the next. There is one link to each gateway that holds a mailbox of the client's:
//! one, but for some days after a move.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use rand_core::CryptoRng;

use super::{
    addresses::Addresses,
    cover::{LATE_MAX, Tick},
};
use crate::{
    NetworkId, NodeId, Time,
    wire::{CURSORS_MAX, Confirmation, Frame, OPENS_MAX},
};

#[derive(Default)]
pub(crate) struct Mailbox {
    links: BTreeMap<NodeId, Link>,
    /// Gateways whose links take no frame now.
    full: Vec<NodeId>,
    read: BTreeMap<u16, u64>,
    stored: BTreeMap<u16, u64>,
}

struct Link {
    exporter: [u8; 32],
    next: Time,
    /// Slots to open, [`OPENS_MAX`] with each tick.
    opening: VecDeque<u16>,
    /// No tick was sent yet.
    is_new: bool,
    /// The slot that the gateway served last.
    served: Option<u16>,
    /// A frame was refused: what follows it must not be confirmed, so nothing more is read until
    /// the link is opened again and the gateway resends (CLI-15).
    deaf: bool,
}

impl Mailbox {
    /// What the records say was stored.
    pub(crate) fn restore(&mut self, slot: u16, seq: u64) {
        self.read.insert(slot, seq);
        self.stored.insert(slot, seq);
    }

    /// The link is up: the first tick comes at once, and opens (CLI-14).
    pub(crate) fn up(
        &mut self,
        now: Time,
        gateway: NodeId,
        exporter: [u8; 32],
        addresses: &mut Addresses,
        rng: &mut impl CryptoRng,
    ) {
        let opening = addresses.reopen(gateway, rng).into();
        self.read.retain(|slot, _| addresses.at(*slot).is_some());
        self.stored.retain(|slot, _| addresses.at(*slot).is_some());
        let link = Link {
            exporter,
            next: now,
            opening,
            is_new: true,
            served: None,
            deaf: false,
        };
        self.links.insert(gateway, link);
        // The gateway resends from what was confirmed; what was read but is not yet stored is
        // known by its tags and ids, and by this cursor.
    }

    /// A slot is to be opened on the link to its gateway, too.
    pub(crate) fn open(&mut self, gateway: NodeId, slot: u16) {
        if let Some(link) = self.links.get_mut(&gateway) {
            link.opening.push_back(slot);
        }
    }

    /// Whether that slot was asked to be opened on the link that is up.
    pub(crate) fn has_asked(&self, gateway: NodeId, slot: u16) -> bool {
        let link = self.links.get(&gateway);
        link.is_some_and(|link| !link.opening.contains(&slot))
    }

    pub(crate) fn down(&mut self, gateway: NodeId) {
        self.links.remove(&gateway);
    }

    /// Of all links, those to these gateways take no frame.
    pub(crate) fn fill(&mut self, full: Vec<NodeId>) {
        self.full = full;
    }

    pub(crate) fn is_up(&self, gateway: NodeId) -> bool {
        self.links.contains_key(&gateway)
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.links.values().map(|link| link.next).min()
    }

    /// Whether a tick has fallen due, and on which link; the next one comes an interval later.
    pub(crate) fn take(&mut self, now: Time, interval: Duration) -> Option<(NodeId, Tick)> {
        let (gateway, link) = self.links.iter_mut().find(|(_, link)| link.next <= now)?;
        let interval = interval.max(Duration::from_millis(1));
        let late = now.since(link.next);
        let next = link.next.after(interval);
        link.next = if next > now {
            next
        } else {
            now.after(interval)
        };
        // Nothing was promised before the first tick, so that one can't be late (CLI-14).
        let skip = self.full.contains(gateway) || late > LATE_MAX && !link.is_new;
        link.is_new = false;
        Some((*gateway, if skip { Tick::Skipped } else { Tick::Due }))
    }

    /// What rides on this tick of the link to `gateway`.
    pub(crate) fn confirmation(
        &mut self,
        gateway: NodeId,
        addresses: &Addresses,
        network: &NetworkId,
    ) -> Option<Frame> {
        let link = self.links.get_mut(&gateway)?;
        let mut opens = Vec::new();
        while opens.len() < OPENS_MAX
            && let Some(slot) = link.opening.pop_front()
        {
            // One that was revoked meanwhile is left out.
            let identity = addresses.of(slot);
            opens.extend(identity.map(|identity| identity.open(slot, network, &link.exporter)));
        }
        let here = |(slot, _): &(&u16, &u64)| addresses.at(**slot) == Some(gateway);
        let cursors = self.stored.iter().filter(here);
        let cursors = cursors.map(|(slot, seq)| (*slot, *seq));
        let cursors = cursors.take(CURSORS_MAX).collect();
        Some(Confirmation { cursors, opens }.to_frame())
    }

    /// A packet of `slot` came on the link to `gateway`: whether its turn passed over `home`, which has
    /// it only if nothing was loaded there (GW-13, CLI-6).
    pub(crate) fn passes_over(&mut self, gateway: NodeId, slot: u16, home: u16) -> bool {
        let link = self.links.get_mut(&gateway);
        let before = link.and_then(|link| link.served.replace(slot));
        before.is_some_and(|before| lies_between(before, home, slot))
    }

    /// If this sequence is news it counts as read: whether it is the next one.
    pub(crate) fn read(&mut self, slot: u16, seq: u64) -> Option<bool> {
        let read = self.read.get(&slot).copied();
        let news = read.is_none_or(|read| seq > read);
        news.then(|| {
            self.read.insert(slot, seq);
            read.is_none_or(|read| seq == read + 1)
        })
    }

    /// Whether frames can be taken from the link to `gateway`.
    pub(crate) fn hears(&self, gateway: NodeId) -> bool {
        self.links.get(&gateway).is_some_and(|link| !link.deaf)
    }

    /// Takes no more frames from that link until it is opened again.
    pub(crate) fn deafen(&mut self, gateway: NodeId) {
        if let Some(link) = self.links.get_mut(&gateway) {
            link.deaf = true;
        }
    }

    /// Everything up to `seq` is durable.
    pub(crate) fn stored(&mut self, slot: u16, seq: u64) {
        let stored = self.stored.entry(slot).or_default();
        *stored = seq.max(*stored);
    }
}

/// Whether turns that go from slot `before` to slot `next`, round by their numbers, pass `slot` in
/// between; from a slot to itself they pass all others.
fn lies_between(before: u16, slot: u16, next: u16) -> bool {
    let steps = |to: u16| to.wrapping_sub(before).wrapping_sub(1);
    steps(slot) < steps(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CLI-6, GW-13
    #[test]
    fn turns_pass_what_lies_between_two_slots() {
        for (before, slot, next, passes) in [
            (1, 0, 1, true),  // all the way round
            (2, 0, 1, true),  // round the end
            (1, 0, 2, false), // home is due after the last
            (0, 0, 1, false), // it was served just now
            (1, 0, 0, false), // it is served now
            (0, 0, 0, false),
            (1, 5, 7, true),
            (7, 5, 1, false),
            (5, 5, u16::MAX, false),
            (u16::MAX, 5, 7, true),
        ] {
            assert_eq!(
                lies_between(before, slot, next),
                passes,
                "{before} {slot} {next}"
            );
        }
    }
}
