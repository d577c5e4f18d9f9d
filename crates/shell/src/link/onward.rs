//! What waits for a link between nodes, and the count of what becomes of each packet.
//!
//! Spec: docs/spec/link.md, rule LNK-10.
//!
//! | metric                         | a packet counts                                              |
//! |--------------------------------|--------------------------------------------------------------|
//! | `lacuna_packets_queued`        | as long as it waits, and while it is written                 |
//! | `lacuna_packets_sent_total`    | once the system has taken it for the link's connection       |
//! | `lacuna_packets_dropped_total` | `link_slow`: it waited longer than [`WAIT_MAX`]              |
//! |                                | `link_full`: the queue had no room                           |
//! |                                | `link_down`: `to` is no next hop, or is one no longer; or    |
//! |                                | the link broke while the packet was written                  |
//!
//! Invariant: each packet is counted as sent or dropped exactly once, wherever it is given up.

use core::{fmt, time::Duration};
use std::sync::Arc;

use proto::{Time, wire::Frame};
use sphinx::Packet;

use super::NotSent;
use crate::{
    clock::Clock,
    metrics::{Cell, Metrics},
};

/// Longest that a packet waits for its link (LNK-10).
pub const WAIT_MAX: Duration = Duration::from_secs(1);

/// What goes from node to node: packets, copied into a frame as they are written, and now and then
/// a notice.
pub(crate) enum Onward {
    /// A packet.
    Packet(Waiting),
    /// A frame of its own.
    Notice(Frame),
}

/// Counters of packets on their way to next hops.
#[derive(Debug)]
pub(crate) struct Counts {
    clock: Clock,
    queued: Cell,
    sent: Cell,
    full: Cell,
    down: Cell,
    slow: Cell,
}

impl Counts {
    pub(crate) fn of(metrics: &Metrics, clock: Clock) -> Self {
        let dropped = |reason| metrics.cell("lacuna_packets_dropped_total", reason);
        Self {
            clock,
            queued: metrics.cell("lacuna_packets_queued", ""),
            sent: metrics.cell("lacuna_packets_sent_total", ""),
            full: dropped(NotSent::Full.reason()),
            down: dropped(NotSent::Down.reason()),
            slow: dropped("link_slow"),
        }
    }

    /// Counts a packet that no queue took.
    pub(crate) fn refused(&self, why: NotSent) {
        let count = match why {
            NotSent::Full => &self.full,
            NotSent::Down => &self.down,
        };
        count.add(1);
    }
}

/// A packet in the queue of its link or on its way out of it. What became of it is counted when it is
/// dropped, so that it need not be known who gives it up.
pub(crate) struct Waiting {
    packet: Box<Packet>,
    since: Time,
    became: Became,
    counts: Arc<Counts>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Became {
    /// Given up with its link or its next hop.
    Lost,
    Late,
    Sent,
}

impl Waiting {
    /// From now on.
    pub(crate) fn new(packet: Box<Packet>, counts: &Arc<Counts>) -> Self {
        counts.queued.add(1);
        Self {
            packet,
            since: counts.clock.now(),
            became: Became::Lost,
            counts: Arc::clone(counts),
        }
    }

    pub(crate) fn packet(&self) -> &Packet {
        &self.packet
    }

    /// Whether it has waited too long, and is to be dropped for that (LNK-10).
    pub(crate) fn is_late(&mut self) -> bool {
        let late = self.counts.clock.now().since(self.since) > WAIT_MAX;
        if late {
            self.became = Became::Late;
        }
        late
    }

    /// The system has it.
    pub(crate) fn sent(mut self) {
        self.became = Became::Sent;
    }

    /// As if it had waited since `since`.
    #[cfg(test)]
    pub(crate) fn since(mut self, since: Time) -> Self {
        self.since = since;
        self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let count = match self.became {
            Became::Lost => &self.counts.down,
            Became::Late => &self.counts.slow,
            Became::Sent => &self.counts.sent,
        };
        count.add(1);
        self.counts.queued.sub(1);
    }
}

impl fmt::Debug for Onward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Onward(..)")
    }
}
