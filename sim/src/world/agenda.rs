//! What happens when: events in order of time, then of being scheduled.

use core::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use proto::{LinkId, Time, client::Op, wire::Frame};
use sphinx::Packet;

use super::store::Request;

/// Something that will happen. Nodes and clients are named by their number.
pub(super) enum Event {
    /// A machine asked to be woken.
    Wake(usize),
    /// A node link delivers a packet.
    Packet { to: usize, packet: Box<Packet> },
    /// An adversary sends a node a packet that it has admitted before.
    Replay { to: usize, packet: Box<Packet> },
    /// A client link delivers a frame to its gateway.
    Upstream { link: LinkId, frame: Frame },
    /// A client link delivers a frame to its client.
    Downstream { link: LinkId, frame: Frame },
    /// A client's hello reaches its gateway.
    Linked(LinkId),
    /// The gateway's answer reaches the client.
    Up(LinkId),
    /// The gateway learns that a link is gone.
    Unlinked(LinkId),
    /// The client learns that a link is gone.
    Down(LinkId),
    /// A client dials what it has no link to.
    Connect(usize),
    /// A gateway's store has carried out a request, unless the gateway crashed since `start`.
    Served {
        node: usize,
        start: u64,
        request: Request,
    },
    /// A client's transaction is on its disk, unless the client crashed since `start`.
    Written {
        client: usize,
        start: u64,
        txn: u64,
        ops: Vec<Op>,
    },
    /// What a mistaken disk of a client answered for is on it at last, unless it crashed since `start`.
    Flushed {
        client: usize,
        start: u64,
        ops: Vec<Op>,
    },
    /// A partition starts.
    Part,
    /// A client's application says its message of this number.
    Say { client: usize, message: usize },
    /// A client of a script says its next batch.
    Batch(usize),
    /// A client of a script goes away; its disk stays.
    Away(usize),
    /// A node or client is killed.
    Crash(usize),
    /// It starts again.
    Start(usize),
    /// Other documents count for it than before.
    Steer(usize),
    /// Somebody looks at the pools.
    Sample,
}

struct Entry {
    at: Time,
    /// Unique, so that the order is total and events are never compared.
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The events to come.
#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    scheduled: u64,
}

impl Agenda {
    /// Puts an event in.
    pub(super) fn put(&mut self, at: Time, event: Event) {
        let number = self.scheduled;
        self.scheduled += 1;
        self.heap.push(Reverse(Entry { at, number, event }));
    }

    /// Takes the next one out.
    pub(super) fn next(&mut self) -> Option<(Time, Event)> {
        let Reverse(entry) = self.heap.pop()?;
        Some((entry.at, entry.event))
    }
}
