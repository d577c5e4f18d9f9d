//! A continuous-time mix: holds each packet for the delay its builder chose.
//!
//! Spec: docs/spec/mix.md, rules MIX-1 to MIX-6.
//!
//! | quantity       | type          | unit, range                                   |
//! |----------------|---------------|-----------------------------------------------|
//! | packet         | `Box<Packet>` | bytes, exactly [`sphinx::PACKET_LEN`]         |
//! | received       | [`Time`]      | when the link read the packet, <= `now`       |
//! | delay          | `Duration`    | drawn by the builder, <= the consensus' cap   |
//! | due            | [`Time`]      | `received + delay`                            |
//! | pool           | heap          | packets, <= `pool_max`, of [`HELD_LEN`] bytes |
//!
//! The mix sees packets already peeled and admitted: it holds no key, no replay set, and does no
//! cryptography ([`crate::peel`] does). Holding starts when the packet was received: the time it
//! spends in queues and in peeling is part of the delay its builder chose, not on top (MIX-1).
//!
//! Invariant: a packet leaves at the first `wake` at or after its due time, and packets
//! due at the same call leave in order of due time, never in order of arrival (MIX-2).

use core::{cmp::Reverse, time::Duration};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng as _;
use sphinx::Packet;

use crate::{Machine, NodeId, Time, calendar::Epoch, client::exponential, peel::Peeled};

/// Most bytes of memory that a packet takes in the pool: itself with its allocation, and its place
/// in the heap twice, since that grows by doubling.
pub const HELD_LEN: usize = sphinx::PACKET_LEN + 24 + 2 * size_of::<Held>();
/// How long output is held back after an alarm (MIX-6).
pub const HOLD: Duration = Duration::from_secs(30);
/// Least time between the beginnings of two holds.
pub const HOLDS: Duration = Duration::from_secs(600);

/// What a driver brings.
#[derive(Clone, Debug)]
pub enum Input {
    /// A packet that was opened, admitted and journaled.
    Peeled(Peeled),
    /// The nodes that may come next, in place of those of before.
    Next(Next),
    /// The node's own loops are being lost: let nothing out for [`HOLD`], unless the last hold
    /// began less than [`HOLDS`] ago (MIX-6).
    Hold {
        /// Mean of the exponential delays that held packets leave with.
        delay_mean: Duration,
        /// For drawing them; fresh each time.
        seed: [u8; 32],
    },
}

/// The nodes that may come next, the next layer or the gateways, by the first epoch of the document
/// that says so: which one counts depends on the key that opened a packet (EPO-6).
pub type Next = BTreeMap<Epoch, BTreeSet<NodeId>>;

/// The same nodes in all epochs.
pub fn always(nodes: impl IntoIterator<Item = NodeId>) -> Next {
    [(Epoch(0), nodes.into_iter().collect())].into()
}

/// Why a packet was dropped. Counted, never answered and never logged per packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MixDrop {
    /// The pool holds `pool_max` packets already (MIX-3).
    PoolFull,
    /// The next hop is not in the layer after this one (MIX-4).
    WrongNext,
}

/// An effect of the mix.
#[derive(Clone, PartialEq, Eq)]
pub enum Output {
    /// Write `packet` to the link towards `to`.
    Send {
        /// The next hop.
        to: NodeId,
        /// Exactly one packet.
        packet: Box<Packet>,
    },
    /// A packet was dropped; the driver counts these.
    Dropped(MixDrop),
    /// A hold began; it ends then.
    Holding {
        /// When.
        until: Time,
    },
}

impl core::fmt::Debug for Output {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Send { to, .. } => write!(f, "Send({to:?})"),
            Self::Dropped(why) => write!(f, "Dropped({why:?})"),
            Self::Holding { until } => write!(f, "Holding({until:?})"),
        }
    }
}

/// Due time, number, next hop, packet; the earliest on top of the heap.
type Held = Reverse<(Time, u64, NodeId, Box<Packet>)>;

/// The state machine. Drive it as [`Machine`] describes.
pub struct Mix {
    /// Most packets held at once: this node's memory, from its own settings.
    pool_max: usize,
    next: Next,
    now: Time,
    /// Breaks ties between equal due times, so that the heap's order is total.
    admitted: u64,
    pool: BinaryHeap<Held>,
    hold: Option<Hold>,
    /// When the next hold may begin.
    next_hold: Time,
    out: VecDeque<Output>,
}

/// Output is held back (MIX-6).
struct Hold {
    until: Time,
    delay_mean: Duration,
    seed: [u8; 32],
}

impl Mix {
    /// An empty mix that holds at most `pool_max` packets and knows no next hop yet.
    #[must_use]
    pub fn new(pool_max: usize) -> Self {
        Self {
            pool_max,
            next: Next::new(),
            now: Time::ZERO,
            admitted: 0,
            pool: BinaryHeap::new(),
            hold: None,
            next_hold: Time::ZERO,
            out: VecDeque::new(),
        }
    }

    /// Packets being held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.pool.len()
    }

    /// Checks one packet against the rules and holds it, or says why not.
    fn admit(&mut self, peeled: Peeled) -> Result<(), MixDrop> {
        assert!(
            peeled.received <= self.now,
            "driver stamped a packet with a time to come"
        );
        let to = NodeId(peeled.next);
        let period = self.next.range(..=peeled.epoch).next_back();
        if !period.is_some_and(|(_, nodes)| nodes.contains(&to)) {
            return Err(MixDrop::WrongNext); // MIX-4
        }
        if self.pool.len() >= self.pool_max {
            return Err(MixDrop::PoolFull); // MIX-3
        }
        let due = peeled.received.after(peeled.delay); // MIX-1
        self.pool
            .push(Reverse((due, self.admitted, to, peeled.packet)));
        self.admitted += 1;
        Ok(())
    }

    fn advance(&mut self, now: Time) {
        assert!(now >= self.now, "driver broke law 1: time went backwards");
        self.now = now;
        if let Some(hold) = self.hold.take_if(|hold| hold.until <= now) {
            self.redraw(hold);
        }
    }

    /// Holds output back, unless it did so a short while ago (MIX-6).
    fn hold(&mut self, delay_mean: Duration, seed: [u8; 32]) {
        if self.now < self.next_hold {
            return;
        }
        let until = self.now.after(HOLD);
        self.next_hold = self.now.after(HOLDS);
        self.hold = Some(Hold {
            until,
            delay_mean,
            seed,
        });
        self.out.push_back(Output::Holding { until });
    }

    /// What a hold kept back gets a fresh delay from its end on: else all of it would leave at
    /// once, in the order of delays that no longer hide anything (MIX-6).
    fn redraw(&mut self, hold: Hold) {
        let mut rng = ChaCha20Rng::from_seed(hold.seed);
        let mut late = Vec::new();
        while let Some(Reverse((due, ..))) = self.pool.peek()
            && *due <= hold.until
        {
            late.extend(self.pool.pop());
        }
        for Reverse((_, number, to, packet)) in late {
            let due = hold
                .until
                .after(hold.delay_mean.mul_f64(exponential(&mut rng)));
            self.pool.push(Reverse((due, number, to, packet)));
        }
    }

    /// Lets go of what is due, in order of due time (MIX-2).
    fn release(&mut self) {
        if self.hold.is_some() {
            return;
        }
        while self
            .pool
            .peek()
            .is_some_and(|Reverse(held)| held.0 <= self.now)
        {
            if let Some(Reverse((_, _, to, packet))) = self.pool.pop() {
                self.out.push_back(Output::Send { to, packet });
            }
        }
    }
}

impl Machine for Mix {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            Input::Peeled(peeled) => {
                if let Err(why) = self.admit(peeled) {
                    self.out.push_back(Output::Dropped(why));
                }
            }
            // Packets already held keep the hop that was right when they came (MIX-5).
            Input::Next(next) => self.next = next,
            Input::Hold { delay_mean, seed } => self.hold(delay_mean, seed),
        }
        // Release on every call, so a flood of arrivals cannot starve the timer.
        self.release();
    }

    fn wake(&mut self, now: Time) {
        self.advance(now);
        self.release();
    }

    fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn next_wake(&self) -> Option<Time> {
        let first = || self.pool.peek().map(|Reverse(held)| held.0);
        let held = self.hold.as_ref().map(|hold| hold.until);
        held.or_else(first)
    }
}

impl core::fmt::Debug for Mix {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Mix({} of {} held)", self.pool.len(), self.pool_max)
    }
}
