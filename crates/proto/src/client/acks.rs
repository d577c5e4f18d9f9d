//! Acks that wait for a payload slot: one for each finished block.
//!
//! Spec: docs/spec/message.md, rules MSG-5, MSG-6; docs/spec/client.md, rule CLI-21.
//!
//! | quantity  | unit, range                                                                    |
//! |-----------|--------------------------------------------------------------------------------|
//! | waiting   | acks, each block once, <= `acks_max`                                           |
//! | [`REST`]  | time in which a block's ack is queued at most once                             |
//!
//! Acks that go the same way share a packet. Acks are not acked, and are queued by nothing but a
//! fragment or a probe that passed every check: garbage has no answer.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use sphinx::Surb;

use super::{
    content::{ACKS_IN_PACKET, Content},
    journal::Journal,
    returns::{Returns, Way},
    types::MessageId,
};
use crate::{Time, address::Address, calendar::Epoch};

/// A block's ack is queued at most once in this time (MSG-6).
pub const REST: Duration = Duration::from_secs(10);

type Key = (MessageId, u32);

/// How a packet travels.
pub(crate) enum Carrier {
    /// On a route of its own to this address.
    Address(Address),
    /// On this reply block.
    Surb(Box<Surb>),
}

#[derive(Default)]
pub(crate) struct Acks {
    queue: VecDeque<Key>,
    waiting: BTreeSet<Key>,
    recent: VecDeque<(Time, Key)>,
    resting: BTreeSet<Key>,
}

impl Acks {
    /// Queues an ack, unless it waits already or was queued a moment ago. When `acks_max` wait, one
    /// that is `stuck` (its reply blocks are for a later epoch) gives way; if none is, it is not
    /// queued, and a repair symbol asks again.
    pub(crate) fn queue(
        &mut self,
        now: Time,
        (message, block): (MessageId, u32),
        acks_max: usize,
        stuck: impl Fn(MessageId) -> bool,
    ) {
        while let Some((queued, key)) = self.recent.front().copied()
            && (now.since(queued) >= REST || self.recent.len() >= acks_max)
        {
            self.recent.pop_front();
            self.resting.remove(&key);
        }
        let key = (message, block);
        if self.waiting.contains(&key) || self.resting.contains(&key) {
            return;
        }
        if self.queue.len() >= acks_max
            && let Some(at) = self.queue.iter().position(|key| stuck(key.0))
            && let Some(out) = self.queue.remove(at)
        {
            self.waiting.remove(&out);
        }
        if self.queue.len() < acks_max {
            self.resting.insert(key);
            self.recent.push_back((now, key));
            self.waiting.insert(key);
            self.queue.push_back(key);
        }
    }

    /// The next packet of acks and its way, if any can be sent now. `known` says whether packets
    /// can be sent to an address.
    pub(crate) fn next(
        &mut self,
        returns: &mut Returns,
        epoch: Epoch,
        known: impl Fn(&Address) -> bool,
        journal: &mut Journal,
    ) -> Option<(Carrier, Content)> {
        let waiting = &mut self.waiting;
        let way = |message| returns.way(message, epoch);
        // What can't be sent, now or later, is forgotten: a repair symbol or a probe asks again.
        self.queue.retain(|key| {
            let hope = match way(key.0) {
                Some(Way::Address(address)) => known(&address),
                Some(Way::Surbs { now, later }) => now + later > 0,
                None => false,
            };
            hope || !waiting.remove(key)
        });
        let usable = |key: &&Key| way(key.0).is_some_and(|way| !way.is_later());
        let first = self.queue.iter().find(usable).copied()?;
        let way = returns.way(first.0, epoch)?;
        let same = |key: &&Key| match way {
            Way::Address(_) => returns.way(key.0, epoch) == Some(way),
            Way::Surbs { .. } => key.0 == first.0,
        };
        let acks: Vec<Key> = self
            .queue
            .iter()
            .filter(same)
            .take(ACKS_IN_PACKET)
            .copied()
            .collect();
        let way = match way {
            Way::Address(address) => Carrier::Address(address),
            Way::Surbs { .. } => {
                let surb = returns.take(first.0, epoch, journal)?;
                Carrier::Surb(Box::new(surb))
            }
        };
        acks.iter().for_each(|key| {
            self.waiting.remove(key);
        });
        self.queue.retain(|key| self.waiting.contains(key));
        Some((way, Content::Acks(acks)))
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        (MessageId([byte; 16]), 0)
    }

    /// MSG-6, CLI-21: each block once in a while, so many at most; what is stuck gives way, what
    /// can be sent does not.
    #[test]
    fn the_queue_is_bounded_and_what_is_stuck_gives_way() {
        let mut acks = Acks::default();
        let now = Time::ZERO;
        for byte in [0, 1, 1, 2, 0] {
            acks.queue(now, key(byte), 3, |_| false);
        }
        assert_eq!(acks.queue, [key(0), key(1), key(2)]);
        acks.queue(now, key(3), 3, |_| false);
        assert_eq!(acks.queue, [key(0), key(1), key(2)]);
        acks.queue(now, key(4), 3, |message| message == key(1).0);
        assert_eq!(acks.queue, [key(0), key(2), key(4)]);
        assert_eq!(acks.waiting, acks.queue.iter().copied().collect());
    }

    /// MSG-6
    #[test]
    fn an_ack_rests_before_it_is_queued_again() {
        let mut acks = Acks::default();
        for (at, queued) in [(0, 1), (9_999, 0), (10_000, 1), (10_001, 0), (20_000, 1)] {
            let now = Time::ZERO.after(Duration::from_millis(at));
            acks.queue(now, key(1), 3, |_| false);
            assert_eq!(acks.len(), queued, "at {at} ms");
            acks.queue.clear(); // it was sent
            acks.waiting.clear();
        }
    }
}
