//! Storage in virtual time: what is asked becomes durable a moment later, or never.
//!
//! Requests are carried out in order, [`LATENCY`] after they were made; a crash loses those that
//! have not been carried out. Nothing that was answered is ever lost.

use core::time::Duration;
use std::collections::BTreeMap;

use proto::{
    MailboxId,
    client::Op,
    gateway::{Input, Kept, Numbers, Output},
};
use sphinx::Packet;

/// How long a store takes for one request.
pub(super) const LATENCY: Duration = Duration::from_millis(2);

/// A request to a gateway's store.
pub(super) enum Request {
    Register(MailboxId),
    Put(MailboxId, u64, Box<Packet>),
    Peek(MailboxId, u64, usize),
    Confirm(MailboxId, u64),
    Expire(u64),
}

impl Request {
    /// The request that an output is, or the output back.
    pub(super) fn from(output: Output) -> Result<Self, Output> {
        Ok(match output {
            Output::Register { mailbox } => Self::Register(mailbox),
            Output::Store {
                mailbox,
                stored_at_s,
                packet,
            } => Self::Put(mailbox, stored_at_s, packet),
            Output::Peek {
                mailbox,
                after,
                limit,
            } => Self::Peek(mailbox, after, limit),
            Output::Confirm { mailbox, upto } => Self::Confirm(mailbox, upto),
            Output::Expire { before_s } => Self::Expire(before_s),
            other @ (Output::Open { .. }
            | Output::Relay { .. }
            | Output::Frame { .. }
            | Output::Close { .. }
            | Output::Dropped(_)
            | Output::Event(_)) => return Err(other),
        })
    }
}

#[derive(Default)]
struct Mailbox {
    highest: u64,
    packets: BTreeMap<u64, Kept>,
}

/// What a gateway's disk holds.
#[derive(Default)]
pub(super) struct Mailboxes {
    mailboxes: BTreeMap<MailboxId, Mailbox>,
    numbers: Numbers,
}

impl Mailboxes {
    /// Carries out one request; what the gateway is told of it.
    pub(super) fn carry_out(&mut self, request: Request) -> Vec<Input> {
        match request {
            Request::Register(mailbox) => {
                self.mailboxes.entry(mailbox).or_default();
                Vec::new()
            }
            Request::Put(mailbox, stored_at_s, packet) => match self.mailboxes.get_mut(&mailbox) {
                None => vec![Input::Refused { mailbox }],
                Some(held) => {
                    let seq = self.numbers.next(held.highest, stored_at_s);
                    held.highest = seq;
                    let kept = Kept {
                        seq,
                        stored_at_s,
                        packet,
                    };
                    held.packets.insert(seq, kept);
                    vec![Input::Stored { mailbox, seq }]
                }
            },
            Request::Peek(mailbox, after, limit) => {
                let held = self.mailboxes.get(&mailbox);
                let above = held
                    .into_iter()
                    .flat_map(|held| held.packets.range(after.saturating_add(1)..));
                let packets = above.take(limit).map(|(_, kept)| kept.clone()).collect();
                vec![Input::Peeked { mailbox, packets }]
            }
            Request::Confirm(mailbox, upto) => {
                let gone = self.mailboxes.get_mut(&mailbox).map_or(0, |held| {
                    let kept = held.packets.split_off(&upto.saturating_add(1));
                    core::mem::replace(&mut held.packets, kept).len()
                });
                removed(mailbox, gone)
            }
            Request::Expire(before_s) => self
                .mailboxes
                .iter_mut()
                .flat_map(|(mailbox, held)| {
                    let before = held.packets.len();
                    held.packets.retain(|_, kept| kept.stored_at_s >= before_s);
                    removed(*mailbox, before - held.packets.len())
                })
                .collect(),
        }
    }

    /// Every mailbox and how many packets it holds, as a gateway is told at its start.
    pub(super) fn usage(&self) -> Vec<(MailboxId, u64)> {
        let usage = |(mailbox, held): (&MailboxId, &Mailbox)| (*mailbox, held.packets.len() as u64);
        self.mailboxes.iter().map(usage).collect()
    }
}

fn removed(mailbox: MailboxId, packets: usize) -> Vec<Input> {
    let packets = packets as u64;
    let said = (packets > 0).then_some(Input::Removed { mailbox, packets });
    said.into_iter().collect()
}

/// What a client's disk holds.
#[derive(Clone, Default)]
pub(super) struct Records(pub(super) BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    /// Applies one transaction.
    pub(super) fn apply(&mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Put { key, value } => self.0.insert(key, value),
                Op::Delete { key } => self.0.remove(&key),
                Op::Erase => None, // nothing of what was replaced is kept here
            };
        }
    }
}
