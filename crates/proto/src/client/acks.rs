//! Acks that wait for a payload slot: one for each finished block.
//!
//! Spec: docs/spec/message.md, rules MSG-5, MSG-6, MSG-21; docs/spec/client.md, rule CLI-21.
//!
//! | quantity  | unit, range                                                                    |
//! |-----------|--------------------------------------------------------------------------------|
//! | line      | own address that a message came to; each has a queue, and they take turns      |
//! | waiting   | acks of a line, each block once, <= `acks_max`                                 |
//! | [`REST`]  | time in which a block's ack is queued at most once                             |
//! | low       | messages whose answers wait for more reply blocks                              |
//!
//! A packet that goes by a reply block says how many are left of its message; one that says nothing
//! else asks for more. Whoever floods one address delays the acks of that one alone.
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

/// What is owed to those who wrote to one address.
#[derive(Default)]
struct Line {
    queue: VecDeque<Ack>,
    waiting: BTreeSet<Key>,
    recent: VecDeque<(Time, Key)>,
    resting: BTreeSet<Key>,
}

impl Line {
    fn queue(
        &mut self,
        now: Time,
        ack: Ack,
        acks_max: usize,
        stuck: impl Fn(MessageId) -> bool,
    ) -> bool {
        while let Some((queued, key)) = self.recent.front().copied()
            && (now.since(queued) >= REST || self.recent.len() >= acks_max)
        {
            self.recent.pop_front();
            self.resting.remove(&key);
        }
        let key = ack.key();
        if self.waiting.contains(&key) || self.resting.contains(&key) {
            return false;
        }
        let full = self.queue.len() >= acks_max;
        if full
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
        full
    }

    /// Takes out the first ack that can be sent now, with those that may share its packet: the
    /// message, and what the packet says.
    fn take(
        &mut self,
        way: impl Fn(MessageId) -> Option<Way>,
        known: impl Fn(&Address) -> bool,
    ) -> Option<(MessageId, Vec<Key>)> {
        let waiting = &mut self.waiting;
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
        let first = self.queue.iter().find(usable)?.message;
        // One that shares a packet with another shows that both came to one client.
        let same = |ack: &&Ack| match way(first.here) {
            Some(Way::Surbs { .. }) | None => ack.message.here == first.here,
            by => ack.message.came == first.came && way(ack.message.here) == by,
        };
        let together = self.queue.iter().filter(same).take(ACKS_IN_PACKET);
        let (keys, acks): (Vec<Key>, Vec<Key>) = together
            .map(|ack| (ack.key(), (ack.message.wire, ack.block)))
            .unzip();
        keys.iter().for_each(|key| {
            self.waiting.remove(key);
        });
        self.queue.retain(|ack| self.waiting.contains(&ack.key()));
        Some((first.here, acks))
    }
}

#[derive(Default)]
pub(crate) struct Acks {
    lines: BTreeMap<u16, Line>,
    /// When to ask for more next, and how long to wait after that.
    low: BTreeMap<MessageId, (Time, Duration)>,
    /// Whose turn it was; none: that of the questions for more.
    turn: Option<u16>,
    /// The last real packet was an ack: the turn of what else waits (CLI-9).
    pub(crate) went_last: bool,
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

    /// Queues an ack, unless it waits already or was queued a moment ago. When `acks_max` of its
    /// address wait, one is forgotten, and it says so: one that is `stuck` (its reply blocks are for
    /// a later epoch), or if none is, this one; a repair symbol asks again.
    pub(crate) fn queue(
        &mut self,
        now: Time,
        (message, block): (Received, u32),
        acks_max: usize,
        stuck: impl Fn(MessageId) -> bool,
    ) -> bool {
        let line = self.lines.entry(message.came.slot).or_default();
        line.queue(now, Ack { message, block }, acks_max, stuck)
    }

    /// Forgets those of messages that came to an address (CLI-32).
    pub(crate) fn forget(&mut self, slot: u16) {
        self.lines.remove(&slot);
    }

    /// The next packet of acks and its way, if any can be sent now, or a question for more reply
    /// blocks that is due. Addresses take turns, a packet each, and the questions like one (CLI-21).
    /// `known` says whether packets can be sent to an address.
    pub(crate) fn next(
        &mut self,
        now: Time,
        returns: &mut Returns,
        epoch: Epoch,
        known: impl Fn(&Address) -> bool,
        journal: &mut Journal,
    ) -> Option<(Carrier, Content)> {
        let lines = self.lines.keys().copied().map(Some);
        let turns = core::iter::once(None).chain(lines);
        let (had, next): (Vec<_>, Vec<_>) = turns.partition(|turn| *turn <= self.turn);
        let mut turns = next.into_iter().chain(had);
        let (turn, message, blocks) = turns.find_map(|turn| {
            let (message, blocks) = match turn {
                Some(line) => {
                    let way = |message| returns.way(message, epoch);
                    self.lines.get_mut(&line)?.take(way, &known)?
                }
                None => (self.question(now)?, Vec::new()),
            };
            Some((turn, message, blocks))
        })?;
        self.turn = turn;
        match returns.way(message, epoch)? {
            Way::Address(address) => {
                let content = Content::Acks { left: 0, blocks };
                Some((Carrier::Address(address), content))
            }
            Way::Surbs { .. } => self.by_surb(now, message, blocks, returns, epoch, journal),
        }
    }

    /// The message for whose answer a question is due.
    fn question(&self, now: Time) -> Option<MessageId> {
        let due = self.low.iter().find(|(_, (at, _))| *at <= now);
        due.map(|(message, _)| *message)
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
        self.lines.values().map(|line| line.queue.len()).sum()
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
        let lines = acks.lines.values();
        let queued = lines.flat_map(|line| &line.queue);
        queued.map(|ack| ack.message.here.0[0]).collect()
    }

    /// MSG-6, CLI-21: each block once in a while, so many at most; what is stuck gives way, what
    /// can be sent does not.
    #[test]
    fn the_queue_is_bounded_and_what_is_stuck_gives_way() {
        let mut acks = Acks::default();
        let now = Time::ZERO;
        for byte in [0, 1, 1, 2, 0] {
            assert!(!acks.queue(now, (received(byte), 0), 3, |_| false));
        }
        assert_eq!(queued(&acks), [0, 1, 2]);
        assert!(acks.queue(now, (received(3), 0), 3, |_| false));
        assert_eq!(queued(&acks), [0, 1, 2]);
        assert!(acks.queue(now, (received(4), 0), 3, |message| message.0 == [1; 16]));
        assert_eq!(queued(&acks), [0, 2, 4]);
        let line = &acks.lines[&0];
        assert_eq!(line.waiting, line.queue.iter().map(Ack::key).collect());
        // Another address has room of its own.
        let mut other = received(5);
        other.came.slot = 1;
        assert!(!acks.queue(now, (other, 0), 3, |_| false));
        assert_eq!(queued(&acks), [0, 2, 4, 5]);
    }

    /// MSG-6
    #[test]
    fn an_ack_rests_before_it_is_queued_again() {
        let mut acks = Acks::default();
        for (at, queued) in [(0, 1), (9_999, 0), (10_000, 1), (10_001, 0), (20_000, 1)] {
            let now = Time::ZERO.after(Duration::from_millis(at));
            acks.queue(now, (received(1), 0), 3, |_| false);
            assert_eq!(acks.len(), queued, "at {at} ms");
            let line = acks.lines.get_mut(&0).expect("it was used");
            line.queue.clear(); // it was sent
            line.waiting.clear();
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

    /// CLI-21: addresses take turns, however many acks one of them is owed, and so do questions.
    #[test]
    fn addresses_and_questions_take_turns() {
        let (mut acks, mut journal) = (Acks::default(), Journal::default());
        let mut returns = Returns::default();
        let mut owe = |acks: &mut Acks, slot, byte: u8| {
            let mut message = received(byte);
            message.came.slot = slot;
            let part = ReturnPart::Address(Address {
                gateway: NodeId([1; 32]),
                mailbox: MailboxId([byte; 32]), // no two share a packet
                key: sphinx::SecretKey::from_bytes([9; 32]).public(),
            });
            returns.keep((message.here, None), 0, part, 100, (99, 9), &mut journal);
            acks.queue(Time::ZERO, (message, byte.into()), 99, |_| false);
        };
        for byte in 0..6 {
            owe(&mut acks, 3, byte);
        }
        for (slot, byte) in [(1, 10), (1, 11), (7, 20)] {
            owe(&mut acks, slot, byte);
        }
        let asking = received(30).here;
        let part = ReturnPart::Surbs {
            epoch: Epoch(0),
            surbs: vec![Surb::parse(&[1; sphinx::SURB_LEN]); 3],
        };
        returns.keep((asking, None), 0, part, 100, (99, 9), &mut journal);
        acks.ask(Time::ZERO, &[asking], Duration::from_secs(10));
        let mut sent = Vec::new();
        while let Some((_, Content::Acks { blocks, .. })) =
            acks.next(Time::ZERO, &mut returns, Epoch(0), |_| true, &mut journal)
        {
            sent.push(blocks.first().map(|(_, block)| *block));
        }
        let order = [10, 0, 20, 99, 11, 1, 2, 3, 4, 5];
        assert_eq!(sent, order.map(|block| Some(block).filter(|of| *of != 99)));
        assert_eq!(acks.len(), 0);
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
    }
}
