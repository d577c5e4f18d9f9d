//! Acks that wait for a payload slot: one for each finished block.
//!
//! Spec: docs/spec/message.md, rules MSG-5, MSG-6, MSG-21; docs/spec/client.md, rule CLI-21.
//!
//! | quantity  | unit, range                                                                    |
//! |-----------|--------------------------------------------------------------------------------|
//! | waiting   | acks, each block once, <= `acks_max`                                           |
//! | [`REST`]  | time in which a block's ack is queued at most once                             |
//! | low       | messages whose answers wait for more reply blocks                              |
//!
//! A packet that goes by a reply block says how many are left of its message; one that says nothing
//! else asks for more.
//!
//!
//! Acks that go the same way, of messages that came the same way, share a packet. Acks are not
//! acked, and are queued by nothing but a fragment or a probe that passed every check: garbage has
//! no answer.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sphinx::Surb;

use super::{
    came::Received,
    content::{ACKS_IN_PACKET, Content},
    journal::Journal,
    returns::{Returns, Way},
    types::MessageId,
};
use crate::{Time, address::Address, calendar::Epoch};

/// A block's ack is queued at most once in this time (MSG-6).
pub const REST: Duration = Duration::from_secs(10);

type Key = (MessageId, u32);

/// Longest time between two questions for more reply blocks.
const ASK_MAX: Duration = Duration::from_secs(3600);

/// How a packet travels.
pub(crate) enum Carrier {
    /// On a route of its own to this address.
    Address(Address),
    /// On this reply block.
    Surb(Box<Surb>),
}

/// A block that is to be acknowledged.
struct Ack {
    message: Received,
    block: u32,
}

impl Ack {
    fn key(&self) -> Key {
        (self.message.here, self.block)
    }
}

#[derive(Default)]
pub(crate) struct Acks {
    queue: VecDeque<Ack>,
    waiting: BTreeSet<Key>,
    recent: VecDeque<(Time, Key)>,
    resting: BTreeSet<Key>,
    /// When to ask for more next, and how long to wait after that.
    low: BTreeMap<MessageId, (Time, Duration)>,
}

impl Acks {
    /// These messages' answers wait for more reply blocks, and no others do. `base` is the first of
    /// the waits between two questions, which double.
    pub(crate) fn ask(&mut self, now: Time, low: &[MessageId], base: Duration) {
        self.low.retain(|message, _| low.contains(message));
        for message in low {
            self.low.entry(*message).or_insert((now, base));
        }
    }

    /// Queues an ack, unless it waits already or was queued a moment ago. When `acks_max` wait, one
    /// that is `stuck` (its reply blocks are for a later epoch) gives way; if none is, it is not
    /// queued, and a repair symbol asks again.
    pub(crate) fn queue(
        &mut self,
        now: Time,
        (message, block): (Received, u32),
        acks_max: usize,
        stuck: impl Fn(MessageId) -> bool,
    ) {
        while let Some((queued, key)) = self.recent.front().copied()
            && (now.since(queued) >= REST || self.recent.len() >= acks_max)
        {
            self.recent.pop_front();
            self.resting.remove(&key);
        }
        let ack = Ack { message, block };
        let key = ack.key();
        if self.waiting.contains(&key) || self.resting.contains(&key) {
            return;
        }
        if self.queue.len() >= acks_max
            && let Some(at) = self.queue.iter().position(|ack| stuck(ack.message.here))
            && let Some(out) = self.queue.remove(at)
        {
            self.waiting.remove(&out.key());
        }
        if self.queue.len() < acks_max {
            self.resting.insert(key);
            self.recent.push_back((now, key));
            self.waiting.insert(key);
            self.queue.push_back(ack);
        }
    }

    /// Forgets those of messages that came to an address (CLI-32).
    pub(crate) fn forget(&mut self, slot: u16) {
        let waiting = &mut self.waiting;
        self.queue.retain(|ack| {
            let goes = ack.message.came.slot == slot;
            if goes {
                waiting.remove(&ack.key());
            }
            !goes
        });
    }

    /// The next packet of acks and its way, if any can be sent now, else a question for more reply
    /// blocks that is due. `known` says whether packets can be sent to an address.
    pub(crate) fn next(
        &mut self,
        now: Time,
        returns: &mut Returns,
        epoch: Epoch,
        known: impl Fn(&Address) -> bool,
        journal: &mut Journal,
    ) -> Option<(Carrier, Content)> {
        let waiting = &mut self.waiting;
        let way = |message| returns.way(message, epoch);
        // What can't be sent, now or later, is forgotten: a repair symbol or a probe asks again.
        self.queue.retain(|ack| {
            let hope = match way(ack.message.here) {
                Some(Way::Address(address)) => known(&address),
                Some(Way::Surbs { now, later }) => now + later > 0,
                None => false,
            };
            hope || !waiting.remove(&ack.key())
        });
        let usable = |ack: &&Ack| way(ack.message.here).is_some_and(|way| !way.is_later());
        let Some(first) = self.queue.iter().find(usable).map(|ack| ack.message) else {
            let due = self.low.iter().find(|(_, (at, _))| *at <= now);
            let message = due.map(|(message, _)| *message)?;
            return self.by_surb(now, message, Vec::new(), returns, epoch, journal);
        };
        let way = returns.way(first.here, epoch)?;
        // One that shares a packet with another shows that both came to one client.
        let same = |ack: &&Ack| match way {
            Way::Address(_) => {
                ack.message.came == first.came && returns.way(ack.message.here, epoch) == Some(way)
            }
            Way::Surbs { .. } => ack.message.here == first.here,
        };
        let together = self.queue.iter().filter(same).take(ACKS_IN_PACKET);
        let (keys, acks): (Vec<Key>, Vec<Key>) = together
            .map(|ack| (ack.key(), (ack.message.wire, ack.block)))
            .unzip();
        let next = match way {
            Way::Address(address) => {
                let content = Content::Acks {
                    left: 0,
                    blocks: acks,
                };
                Some((Carrier::Address(address), content))
            }
            Way::Surbs { .. } => self.by_surb(now, first.here, acks, returns, epoch, journal),
        };
        keys.iter().for_each(|key| {
            self.waiting.remove(key);
        });
        self.queue.retain(|ack| self.waiting.contains(&ack.key()));
        next
    }

    /// A packet that goes by a reply block of `message`, and says how many are left after it.
    fn by_surb(
        &mut self,
        now: Time,
        message: MessageId,
        blocks: Vec<Key>,
        returns: &mut Returns,
        epoch: Epoch,
        journal: &mut Journal,
    ) -> Option<(Carrier, Content)> {
        let surb = returns.take(message, epoch, journal)?;
        let left = match returns.way(message, epoch) {
            Some(Way::Surbs { now, .. }) => u16::try_from(now).unwrap_or(u16::MAX),
            Some(Way::Address(_)) | None => 0,
        };
        if let Some((at, wait)) = self.low.get_mut(&message) {
            *at = now.after(*wait);
            *wait = (*wait * 2).min(ASK_MAX);
        }
        Some((
            Carrier::Surb(Box::new(surb)),
            Content::Acks { left, blocks },
        ))
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        MailboxId, NodeId,
        client::{came::Came, content::ReturnPart},
    };

    fn received(byte: u8) -> Received {
        Received {
            came: Came {
                slot: 0,
                mailbox: 0,
                by: None,
            },
            wire: MessageId([99; 16]),
            here: MessageId([byte; 16]),
        }
    }

    fn queued(acks: &Acks) -> Vec<u8> {
        acks.queue.iter().map(|ack| ack.message.here.0[0]).collect()
    }

    /// MSG-6, CLI-21: each block once in a while, so many at most; what is stuck gives way, what
    /// can be sent does not.
    #[test]
    fn the_queue_is_bounded_and_what_is_stuck_gives_way() {
        let mut acks = Acks::default();
        let now = Time::ZERO;
        for byte in [0, 1, 1, 2, 0] {
            acks.queue(now, (received(byte), 0), 3, |_| false);
        }
        assert_eq!(queued(&acks), [0, 1, 2]);
        acks.queue(now, (received(3), 0), 3, |_| false);
        assert_eq!(queued(&acks), [0, 1, 2]);
        acks.queue(now, (received(4), 0), 3, |message| message.0 == [1; 16]);
        assert_eq!(queued(&acks), [0, 2, 4]);
        assert_eq!(acks.waiting, acks.queue.iter().map(Ack::key).collect());
    }

    /// MSG-6
    #[test]
    fn an_ack_rests_before_it_is_queued_again() {
        let mut acks = Acks::default();
        for (at, queued) in [(0, 1), (9_999, 0), (10_000, 1), (10_001, 0), (20_000, 1)] {
            let now = Time::ZERO.after(Duration::from_millis(at));
            acks.queue(now, (received(1), 0), 3, |_| false);
            assert_eq!(acks.len(), queued, "at {at} ms");
            acks.queue.clear(); // it was sent
            acks.waiting.clear();
        }
    }

    /// MSG-5: acks that go to one address share a packet only if their messages came the same way.
    #[test]
    fn no_packet_of_acks_mixes_addresses() {
        let (mut acks, mut journal) = (Acks::default(), Journal::default());
        let mut returns = Returns::default();
        let address = Address {
            gateway: NodeId([1; 32]),
            mailbox: MailboxId([2; 32]),
            key: sphinx::SecretKey::from_bytes([9; 32]).public(),
        };
        let came = |slot, by: Option<u8>| Came {
            slot,
            mailbox: slot,
            by: by.map(|by| MessageId([by; 16])),
        };
        let ways = [
            came(0, None),
            came(1, None),
            came(0, Some(7)),
            came(0, Some(8)),
        ];
        for byte in 0..8u8 {
            let message = Received {
                came: ways[usize::from(byte % 4)],
                ..received(byte)
            };
            let part = ReturnPart::Address(address);
            returns.keep((message.here, None), 0, part, 100, (9, 9), &mut journal);
            acks.queue(Time::ZERO, (message, byte.into()), 9, |_| false);
        }
        let mut packets = Vec::new();
        let now = Time::ZERO;
        while let Some((_, Content::Acks { blocks, .. })) =
            acks.next(now, &mut returns, Epoch(0), |_| true, &mut journal)
        {
            assert!(blocks.iter().all(|(wire, _)| *wire == MessageId([99; 16])));
            packets.push(blocks.iter().map(|(_, block)| *block).collect::<Vec<_>>());
        }
        assert_eq!(packets, [[0, 4], [1, 5], [2, 6], [3, 7]]);
    }

    /// MSG-21: each packet by a reply block says how many are left; a question waits twice as long as
    /// the one before it, and is not asked when no answer waits.
    #[test]
    fn questions_for_more_reply_blocks_say_what_is_left() {
        let (mut acks, mut journal) = (Acks::default(), Journal::default());
        let mut returns = Returns::default();
        let part = ReturnPart::Surbs {
            epoch: Epoch(0),
            surbs: vec![Surb::parse(&[1; sphinx::SURB_LEN]); 5],
        };
        let message = received(1);
        returns.keep((message.here, None), 0, part, 100, (9, 9), &mut journal);
        acks.queue(Time::ZERO, (message, 0), 9, |_| false);
        let mut next = |acks: &mut Acks, at_s| {
            let now = Time::ZERO.after(Duration::from_secs(at_s));
            let next = acks.next(now, &mut returns, Epoch(0), |_| true, &mut journal);
            let (_, content) = next?;
            let Content::Acks { left, blocks } = content else {
                return None;
            };
            Some((left, blocks.len()))
        };
        assert_eq!(next(&mut acks, 0), Some((4, 1)));
        assert_eq!(next(&mut acks, 0), None, "no answer waits");
        let base = Duration::from_secs(10);
        for (at_s, expected) in [(1, Some((3, 0))), (10, None), (11, Some((2, 0)))] {
            let now = Time::ZERO.after(Duration::from_secs(at_s));
            acks.ask(now, &[message.here], base);
            assert_eq!(next(&mut acks, at_s), expected, "at {at_s}");
        }
        assert_eq!(next(&mut acks, 30), None);
        assert_eq!(next(&mut acks, 31), Some((1, 0)));
        acks.ask(Time::ZERO, &[], base);
        assert_eq!(next(&mut acks, 1000), None);
    }

    /// CLI-32
    #[test]
    fn acks_of_a_revoked_address_are_forgotten() {
        let mut acks = Acks::default();
        for slot in [0, 1, 0] {
            let mut message = received(u8::try_from(acks.len()).expect("few"));
            message.came.slot = slot;
            acks.queue(Time::ZERO, (message, 0), 9, |_| false);
        }
        acks.forget(0);
        assert_eq!(queued(&acks), [1]);
        assert_eq!(acks.waiting.len(), 1);
    }
}
