//! The client's side of its mailbox link: opening, reading in order, confirming at a constant rate.
//!
//! Spec: docs/spec/client.md, rules CLI-13 to CLI-15.
//!
//! | quantity  | type   | unit, range                                                         |
//! |-----------|--------|---------------------------------------------------------------------|
//! | read      | `u64`  | highest sequence taken from the link, of each slot                  |
//! | stored    | `u64`  | highest sequence whose effects are durable: what is confirmed       |
//! | interval  | ms     | between two ticks, from the profile                                 |
//!
//! Ticks are constant: they tell neither what came nor how much (CLI-13). One that is late is
//! left out like any other.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::{
    addresses::Addresses,
    cover::{LATE_MAX, Tick},
};
use crate::{
    NetworkId, Time,
    wire::{CURSORS_MAX, Confirmation, Frame},
};

#[derive(Default)]
pub(crate) struct Mailbox {
    link: Option<Link>,
    read: BTreeMap<u16, u64>,
    stored: BTreeMap<u16, u64>,
}

struct Link {
    exporter: [u8; 32],
    next: Time,
    /// Slots to open, one with each tick.
    opening: VecDeque<u16>,
    /// No tick was sent yet.
    is_new: bool,
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
    pub(crate) fn up(&mut self, now: Time, exporter: [u8; 32], slots: Vec<u16>) {
        self.read.retain(|slot, _| slots.contains(slot));
        self.stored.retain(|slot, _| slots.contains(slot));
        self.link = Some(Link {
            exporter,
            next: now,
            opening: slots.into(),
            is_new: true,
            deaf: false,
        });
        // The gateway resends from what was confirmed; what was read but is not yet stored is
        // known by its tags and ids, and by this cursor.
    }

    /// A slot is to be opened on this link, too.
    pub(crate) fn open(&mut self, slot: u16) {
        if let Some(link) = &mut self.link {
            link.opening.push_back(slot);
        }
    }

    pub(crate) fn down(&mut self) {
        self.link = None;
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.is_some()
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.link.as_ref().map(|link| link.next)
    }

    /// Whether a tick has fallen due; the next one comes an interval later.
    pub(crate) fn take(&mut self, now: Time, interval: Duration) -> Option<Tick> {
        let link = self.link.as_mut().filter(|link| link.next <= now)?;
        let interval = interval.max(Duration::from_millis(1));
        let late = now.since(link.next);
        let next = link.next.after(interval);
        link.next = if next > now {
            next
        } else {
            now.after(interval)
        };
        // Nothing was promised before the first tick, so that one can't be late (CLI-14).
        let skip = late > LATE_MAX && !link.is_new;
        link.is_new = false;
        Some(if skip { Tick::Skipped } else { Tick::Due })
    }

    /// What rides on this tick.
    pub(crate) fn confirmation(
        &mut self,
        addresses: &Addresses,
        network: &NetworkId,
    ) -> Option<Frame> {
        let link = self.link.as_mut()?;
        let mut open = None;
        while open.is_none()
            && let Some(slot) = link.opening.pop_front()
        {
            // One that was revoked meanwhile is left out.
            let identity = addresses.of(slot);
            open = identity.map(|identity| identity.open(slot, network, &link.exporter));
        }
        let cursors = self.stored.iter().map(|(slot, seq)| (*slot, *seq));
        let cursors = cursors.take(CURSORS_MAX).collect();
        Some(Confirmation { cursors, open }.to_frame())
    }

    /// Whether this sequence is news; if so it counts as read.
    pub(crate) fn read(&mut self, slot: u16, seq: u64) -> bool {
        let news = self.read.get(&slot).is_none_or(|read| seq > *read);
        if news {
            self.read.insert(slot, seq);
        }
        news
    }

    /// Whether frames can be taken.
    pub(crate) fn hears(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !link.deaf)
    }

    /// Takes no more frames until the link is opened again.
    pub(crate) fn deafen(&mut self) {
        if let Some(link) = &mut self.link {
            link.deaf = true;
        }
    }

    /// Everything up to `seq` is durable.
    pub(crate) fn stored(&mut self, slot: u16, seq: u64) {
        let stored = self.stored.entry(slot).or_default();
        *stored = seq.max(*stored);
    }
}
