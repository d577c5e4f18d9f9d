//! What someone who watches every link sees: when a frame leaves, from whom, to whom, how long it is.
//!
//! Nothing of its content is kept: attacks that are tested on a [`Sighting`] can't cheat. Control frames of
//! a link (hello, close) are not in it; TCP's and TLS's own traffic has no counterpart in the packet engine.

use proto::{Time, wire::FRAME_LEN};

use super::World;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A mix or gateway: mixes come first, by layer.
    Node(usize),
    /// A client: users first, then the loops of nodes.
    Client(usize),
}

/// One frame on one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// When it left.
    pub at: Time,
    /// From where.
    pub from: Place,
    /// To where. A client's entry gateway is never its mailbox gateway, so ends tell links apart.
    pub to: Place,
    /// Its length, in bytes.
    pub bytes: usize,
}

/// The observer's book; without one nothing is kept.
#[derive(Default)]
pub(super) struct Watch(pub(super) Option<Vec<Sighting>>);

impl World<'_> {
    fn see(&mut self, from: Place, to: Place, bytes: usize) {
        if let Some(seen) = &mut self.watch.0 {
            let at = self.now;
            seen.push(Sighting {
                at,
                from,
                to,
                bytes,
            });
        }
    }

    /// A packet between nodes.
    pub(super) fn see_packet(&mut self, from: usize, to: usize) {
        self.see(Place::Node(from), Place::Node(to), FRAME_LEN);
    }

    /// A frame to a gateway.
    pub(super) fn see_upstream(&mut self, client: usize, gateway: usize) {
        self.see(Place::Client(client), Place::Node(gateway), FRAME_LEN);
    }

    /// A frame to a client.
    pub(super) fn see_downstream(&mut self, gateway: usize, client: usize) {
        self.see(Place::Node(gateway), Place::Client(client), FRAME_LEN);
    }
}
