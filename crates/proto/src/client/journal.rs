//! What must survive a restart, and what may happen only once it does.
//!
//! Spec: docs/spec/client.md, rules CLI-16 and CLI-17.
//!
//! | record            | key after its first byte       | value                                      |
//! |-------------------|--------------------------------|--------------------------------------------|
//! | `a` address       | slot u16                       | identity 97, label; empty: revoked         |
//! | `m` move          | slot u16 of the new mailbox    | address u16, former slot u16, until u64,   |
//! |                   |                                | order u64                                  |
//! | `h` contact       | address u16, whose 96          | see `contacts`                             |
//! | `i` own secret    |                                | 32 bytes                                   |
//! | `c` cursor        | slot u16                       | sequence u64                               |
//! | `e` entry         |                                | node id 32                                 |
//! | `l` left entry    | node id 32                     | when, u64                                  |
//! | `t` tag           | tag 32                         | until u64                                  |
//! | `f` fragment      | id 16, block u32, symbol u32   | slot u16, until u64, length u64,           |
//! |                   |                                | return length u16, symbol                  |
//! | `b` block         | id 16, block u32               | slot u16, until u64, length u64, share     |
//! | `d` delivery      | id 16                          | slot u16, answerable u8, body              |
//! | `s` finished      | id 16                          | until u64, blocks u32                      |
//! | `g` floor         |                                | until u64                                  |
//! | `p` return        | id 16, batch u32               | until u64, address u16, return part        |
//! | `u` used          | id 16, batch u32               | reply blocks of the batch used, u16        |
//! | `r` SURB secret   | SURB id 16                     | until u64, own message 16, secret 96       |
//! | `w` loan          | id 16                          | until u64, reply blocks u8, target         |
//! | `o` outgoing      | id 16                          | see `outbox`                               |
//! | `n` sent          | id 16                          | epoch of the last probe u64                |
//! | `k` acked block   | id 16, block u32               |                                            |
//!
//! "until" and "when" are UTC seconds. Messages that came are named as they are here (MSG-20). One transaction is under way at a time; what is asked for meanwhile is
//! gathered into the next, so a slow disk makes transactions larger, not more.
//!
//! Invariant: an effect leaves the journal only after the transaction that holds everything asked
//! for before it is durable (CLI-16).

use std::collections::{BTreeMap, VecDeque};

use super::came::Received;
use super::content::ReturnPart;
use super::types::{Delivery, MessageId, Op, Output, Progress, Relocated};
use crate::NodeId;

/// First byte of a record's key.
pub(crate) mod kind {
    macro_rules! kinds {
        ($($name:ident = $byte:literal),* $(,)?) => {
            $(pub(crate) const $name: u8 = $byte;)*
            const _: () = {
                let all = [$($byte),*];
                let mut i = 0;
                while i < all.len() {
                    let mut j = 0;
                    while j < i {
                        assert!(all[i] != all[j], "two kinds of records have one byte");
                        j += 1;
                    }
                    i += 1;
                }
            };
        };
    }
    kinds! {
        ADDRESS = b'a',
        MOVE = b'm',
        CONTACT = b'h',
        SECRET = b'i',
        CURSOR = b'c',
        ENTRY = b'e',
        LEFT = b'l',
        TAG = b't',
        FRAGMENT = b'f',
        BLOCK = b'b',
        DELIVERY = b'd',
        FINISHED = b's',
        FLOOR = b'g',
        RETURN = b'p',
        USED = b'u',
        SURB = b'r',
        LOAN = b'w',
        OUTGOING = b'o',
        SENT = b'n',
        ACKED = b'k',
    }
}

/// A key: its kind, then its parts.
pub(crate) fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// What may happen once everything asked for before it is durable.
#[derive(Debug)]
pub(crate) enum Effect {
    /// This sequence may be confirmed.
    Confirm { slot: u16, seq: u64 },
    /// This block may be acknowledged.
    Ack { message: Received, block: u32 },
    /// This message may be sent.
    Send(MessageId),
    /// This probe may be sent.
    Probe(MessageId, ReturnPart),
    /// The application may have this.
    Deliver(Delivery),
    /// The owner may hear this.
    Progress(Progress),
    /// The owner may hear that this address was made or revoked.
    Addressed { ticket: u64, slot: u16 },
    /// The client has moved, and its owner may hear so.
    Moved { ticket: u64 },
    /// The owner may hear that a correspondent moved.
    Relocated(Relocated),
}

/// How many were read, from each mailbox gateway.
type Frames = BTreeMap<NodeId, usize>;

#[derive(Default)]
pub(crate) struct Journal {
    last_txn: u64,
    under_way: Option<(u64, Frames, Vec<Effect>)>,
    ops: Vec<Op>,
    frames: Frames,
    effects: Vec<Effect>,
    /// Only the highest sequence of a slot is worth writing.
    cursors: BTreeMap<u16, u64>,
    /// Something waits that should not wait for the next tick.
    urgent: bool,
}

impl Journal {
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.ops.push(Op::Put { key, value });
        self.urgent = true;
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.ops.push(Op::Delete { key });
        self.urgent = true;
    }

    /// What was deleted or replaced, and is now, is to be erased from the disk.
    pub(crate) fn erase(&mut self) {
        self.ops.push(Op::Erase);
        self.urgent = true;
    }

    /// Once all this is durable, `effect` happens.
    pub(crate) fn then(&mut self, effect: Effect) {
        self.effects.push(effect);
        self.urgent = true;
    }

    /// A frame was read and all it does is written above. Alone it can wait for a confirmation
    /// tick, which is when it is of use (CLI-17).
    pub(crate) fn cursor(&mut self, gateway: NodeId, slot: u16, seq: u64) {
        self.cursors.insert(slot, seq);
        *self.frames.entry(gateway).or_default() += 1;
    }

    /// The cursor of a slot is of no use any more.
    pub(crate) fn forget_cursor(&mut self, slot: u16) {
        self.cursors.remove(&slot);
        self.delete(key(kind::CURSOR, &[&slot.to_be_bytes()]));
    }

    fn frames(&self) -> impl Iterator<Item = (&NodeId, &usize)> {
        let under_way = self.under_way.iter().flat_map(|(_, frames, _)| frames);
        self.frames.iter().chain(under_way)
    }

    /// Frames whose effects are not durable yet.
    pub(crate) fn unstored(&self) -> usize {
        self.frames().map(|(_, frames)| frames).sum()
    }

    /// Those from one gateway: none can use up what is another's (CLI-15).
    pub(crate) fn unstored_from(&self, gateway: NodeId) -> usize {
        let its = self.frames().filter(|(from, _)| **from == gateway);
        its.map(|(_, frames)| frames).sum()
    }

    /// Starts a transaction, if none is under way and something is worth it: anything at a
    /// confirmation tick, else what is urgent.
    pub(crate) fn flush(&mut self, at_tick: bool, out: &mut VecDeque<Output>) {
        let something = self.urgent || (at_tick && !self.cursors.is_empty());
        if self.under_way.is_some() || !something {
            return;
        }
        let mut ops = core::mem::take(&mut self.ops);
        let mut effects = core::mem::take(&mut self.effects);
        for (slot, seq) in core::mem::take(&mut self.cursors) {
            let key = key(kind::CURSOR, &[&slot.to_be_bytes()]);
            let value = seq.to_be_bytes().to_vec();
            ops.push(Op::Put { key, value });
            effects.push(Effect::Confirm { slot, seq });
        }
        self.last_txn += 1;
        let txn = self.last_txn;
        self.under_way = Some((txn, core::mem::take(&mut self.frames), effects));
        self.urgent = false;
        out.push_back(Output::Store { txn, ops });
    }

    /// That transaction is durable: what may happen now.
    pub(crate) fn stored(&mut self, txn: u64) -> Vec<Effect> {
        match self.under_way.take() {
            Some((number, _, effects)) if number == txn => effects,
            other => {
                self.under_way = other;
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: NodeId = NodeId([1; 32]);

    fn flush(journal: &mut Journal, at_tick: bool) -> Option<(u64, usize)> {
        let mut out = VecDeque::new();
        journal.flush(at_tick, &mut out);
        match out.pop_front() {
            Some(Output::Store { txn, ops }) => Some((txn, ops.len())),
            _ => None,
        }
    }

    /// CLI-16
    #[test]
    fn one_transaction_at_a_time_and_effects_after_it() {
        let mut journal = Journal::default();
        journal.put(vec![1], vec![2]);
        journal.cursor(GATEWAY, 0, 1);
        journal.then(Effect::Send(MessageId([1; 16])));
        assert_eq!(flush(&mut journal, false), Some((1, 2)));
        journal.put(vec![3], vec![4]);
        journal.delete(vec![1]);
        journal.then(Effect::Send(MessageId([2; 16])));
        assert_eq!(flush(&mut journal, true), None, "one is under way");
        journal.cursor(GATEWAY, 0, 2);
        assert_eq!(journal.unstored(), 2);
        assert_eq!(journal.unstored_from(GATEWAY), 2);
        assert_eq!(journal.unstored_from(NodeId([2; 32])), 0);
        assert!(journal.stored(7).is_empty(), "of another number");
        assert!(matches!(
            journal.stored(1)[..],
            [Effect::Send(MessageId(id)), Effect::Confirm { slot: 0, seq: 1 }] if id == [1; 16]
        ));
        assert_eq!(flush(&mut journal, false), Some((2, 3)));
        assert_eq!(journal.stored(2).len(), 2);
        assert_eq!((journal.unstored(), flush(&mut journal, true)), (0, None));
    }

    /// CLI-17
    #[test]
    fn a_cursor_alone_waits_for_a_tick() {
        let mut journal = Journal::default();
        journal.cursor(GATEWAY, 0, 5);
        journal.cursor(GATEWAY, 0, 6);
        assert_eq!(flush(&mut journal, false), None);
        assert_eq!(flush(&mut journal, true), Some((1, 1)));
        assert!(matches!(
            journal.stored(1)[..],
            [Effect::Confirm { slot: 0, seq: 6 }]
        ));
    }
}
