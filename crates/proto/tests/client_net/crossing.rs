//! What a test may look at: hops' views of packets with the truth that hops do not have, what each packet was; what lies
//! in mailboxes and records.

use core::time::Duration;
use std::collections::BTreeMap;

use proto::{
    MailboxId, NodeId, Time,
    calendar::Epoch,
    wire::{FRAME_LEN, Frame},
};
use sphinx::{HEADER_LEN, PACKET_LEN, Packet, Routing, SecretKey, SurbId};

use super::{Net, utc_at};

/// What a packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Data,
    Ack,
    /// On a reply block: an answer, or an ack of an anonymous message.
    Reply,
    Loop,
    Drop,
    Probe,
}

/// One hop's view.
pub(crate) struct Hop {
    /// The header as it came, and bytes from both ends of the payload.
    pub(crate) bytes: Vec<u8>,
    pub(crate) next: NodeId,
    pub(crate) delay: Duration,
    /// Which of the hop's keys opened it.
    pub(crate) key: usize,
}

impl Hop {
    pub(crate) fn new(packet: &Packet, next: NodeId, delay_ns: u64, key: usize) -> Self {
        Self {
            bytes: view(packet),
            next,
            delay: Duration::from_nanos(delay_ns),
            key,
        }
    }
}

/// One packet, from the entry link to the mailbox.
pub(crate) struct Crossing {
    /// Who sent it.
    pub(crate) client: usize,
    pub(crate) class: Class,
    pub(crate) at: Time,
    /// When the same client's last frame left.
    pub(crate) last: Time,
    /// The frame's own bytes, before the packet.
    pub(crate) frame: Vec<u8>,
    /// Three mixes and the mailbox gateway.
    pub(crate) hops: Vec<Hop>,
    /// What the mailbox keeps.
    pub(crate) kept: Vec<u8>,
}

/// The first `wanted` packets of each class.
pub(crate) struct Crossings {
    pub(crate) wanted: usize,
    pub(crate) seen: BTreeMap<Class, Vec<Crossing>>,
}

impl Crossings {
    pub(crate) fn new(wanted: usize) -> Self {
        Self {
            wanted,
            seen: BTreeMap::new(),
        }
    }

    pub(crate) fn count(&self, class: Class) -> usize {
        self.seen.get(&class).map_or(0, Vec::len)
    }

    pub(crate) fn push(&mut self, crossing: Crossing) {
        let of = self.seen.entry(crossing.class).or_default();
        if of.len() < self.wanted {
            of.push(crossing);
        }
    }
}

/// A hop's view of the bytes of a packet.
fn view(packet: &Packet) -> Vec<u8> {
    const ENDS: usize = 32;
    let payload = HEADER_LEN..HEADER_LEN + ENDS;
    let last = PACKET_LEN - ENDS..PACKET_LEN;
    [&packet[..HEADER_LEN], &packet[payload], &packet[last]].concat()
}

impl Net {
    /// Keeps what hops saw of a packet, if its class is still wanted.
    pub(super) fn cross(
        &mut self,
        client: usize,
        frame: &Frame,
        mailbox: MailboxId,
        packet: &Packet,
    ) {
        if self.crossings.is_none() {
            return;
        }
        // This frame is the last that was written.
        let mut before = self.peers[client].written.iter().rev().skip(1);
        let last = before.next().copied().unwrap_or(Time::ZERO);
        let crossing = Crossing {
            client,
            class: self.class(mailbox, packet),
            at: self.now,
            last,
            frame: frame.as_bytes()[..FRAME_LEN - PACKET_LEN].to_vec(),
            hops: core::mem::take(&mut self.hops),
            kept: view(packet),
        };
        if let Some(crossings) = &mut self.crossings {
            crossings.push(crossing);
        }
    }

    /// What a packet in a mailbox is, read with its owner's key; a drop's mailbox is nobody's.
    fn class(&self, mailbox: MailboxId, packet: &Packet) -> Class {
        let owner = self
            .peers
            .iter()
            .find(|peer| peer.identity.mailbox() == mailbox);
        let Some(owner) = owner else {
            return Class::Drop;
        };
        let bytes = owner.identity.to_bytes();
        let secret: [u8; 32] = bytes[33..65].try_into().expect("CLI-1");
        let key = SecretKey::from_bytes(secret);
        let mut packet = *packet;
        let opened = sphinx::open_one(&key, 0, &packet).expect("an honest packet");
        let Routing::Final { surb_id, .. } = *opened.routing() else {
            panic!("a fifth layer is the last");
        };
        if surb_id != SurbId::default() {
            return Class::Reply;
        }
        sphinx::finish(opened, &mut packet);
        let content = sphinx::unpad(sphinx::payload(&packet)).expect("an honest payload");
        match content[0] {
            1 => Class::Data,
            2 => Class::Ack,
            3 => Class::Loop,
            _ => Class::Probe,
        }
    }

    /// What mixes and gateway make of a packet: where it is stored, and when.
    pub(super) fn peel(
        &mut self,
        mut at: NodeId,
        mut packet: Box<Packet>,
    ) -> Option<(MailboxId, Box<Packet>, Duration)> {
        assert!(self.consensus.layers[0].contains(&at), "a first mix");
        let cap = u64::try_from(self.consensus.params.delay_cap().as_nanos()).expect("small");
        let (mut delay, mut route) = (Duration::ZERO, Vec::new());
        let schedule = self.consensus.schedule();
        self.hops.clear();
        for hop in 0..4 {
            route.push(at);
            if self.blocked.contains(&at) {
                return None;
            }
            let keys = self.secrets.get(&at)?;
            // EPO-2, by clocks that are right.
            let utc = utc_at(self.now.after(delay));
            let open = |i: usize| schedule.opens(Epoch(i as u64)).contains(&utc);
            let mut tried = keys.iter().enumerate().filter(|(i, _)| open(*i));
            let found =
                tried.find_map(|(i, key)| Some((i, sphinx::open_one(key, cap, &packet).ok()?)));
            let Some((key, opened)) = found else {
                self.unopened += 1;
                return None;
            };
            let Routing::Forward { next, delay_ns } = *opened.routing() else {
                return None;
            };
            if self.crossings.is_some() {
                self.hops
                    .push(Hop::new(&packet, NodeId(next), delay_ns, key));
            }
            sphinx::finish(opened, &mut packet);
            let held = Duration::from_nanos(delay_ns);
            delay += held;
            if hop < 3 {
                self.delays.push(held);
            } else {
                assert_eq!(delay_ns, 0, "a gateway holds nothing");
                if self.dead.contains(&at) {
                    return None;
                }
                *self.routes.entry(route).or_default() += 1;
                return Some((MailboxId(next), packet, delay));
            }
            at = NodeId(next);
        }
        None
    }
}
