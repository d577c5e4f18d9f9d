//! Who leaves next: a calendar queue of waiting packets.
//!
//! Time is cut into buckets of a width that holds about [`PER_BUCKET`] departures. Only the
//! bucket of the present is sorted; the rest are unsorted lists of chunks of [`CHUNK`] packets,
//! which come from one store and go back to it. Push and pop cost about the same at any number
//! of packets in flight, where a binary heap slows down with its depth and its cache misses.
//! There are at most [`BUCKETS`] buckets, so that the chunks that are written to stay in the
//! cache: with many packets in flight, buckets hold more. The ring covers some eight mean
//! delays; what is due later waits in the bucket of its year and is passed over until then.
//!
//! | quantity    | unit                                                               |
//! |-------------|--------------------------------------------------------------------|
//! | time        | `u64` ticks, [`TICKS`] per unit of time (a mean delay), from [`ORIGIN`] |
//! | bucket width| a power of two of ticks                                            |
//!
//! Invariants: `due` is sorted descending and holds every packet of the present bucket; packets
//! with equal times leave in the order of the rest of their fields, so a run depends on nothing
//! but its input.

/// Ticks in one unit of time.
pub(crate) const TICKS: f64 = 1_099_511_627_776.0; // 2^40

/// The time at which runs start, so that births before it stay positive.
pub(crate) const ORIGIN: u64 = 1 << 50;

/// Ticks of a time in units.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is beyond 2^24 units is the end of time, which no run reaches"
)]
#[inline]
pub(crate) fn ticks(units: f64) -> u64 {
    (units * TICKS + 0.5) as u64
}

/// The time `units` after `at`; the end of time if that lies beyond it.
#[inline]
pub(crate) fn after(at: u64, units: f64) -> u64 {
    at.saturating_add(ticks(units))
}

/// Units of a time in ticks.
#[expect(clippy::cast_precision_loss, reason = "far below a tick in a unit")]
#[inline]
pub(crate) fn units(ticks: u64) -> f64 {
    ticks as f64 / TICKS
}

const PER_BUCKET: f64 = 24.0;
const BUCKETS: f64 = 4096.0;
const YEAR_UNITS: f64 = 8.0;
const CHUNK: usize = 32;

/// The end of a list of chunks.
const NO_CHUNK: u32 = u32::MAX;

/// A packet in a mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Waiting {
    /// When it leaves, in ticks.
    pub(crate) at: u64,
    /// When it entered the network, in ticks.
    pub(crate) born: u64,
    /// The mix that holds it and the target it is: see [`Waiting::mix`], [`Waiting::target`].
    place: u32,
    /// Its own posterior, if it has one: a slot of the arena.
    pub(crate) slot: u32,
}

/// Mixes that a place can name.
const PLACE_MIXES: u32 = 1 << 24;

impl Waiting {
    /// A packet in `mix` (below 2²⁴) that is target number `target` (below 255), if any.
    #[inline]
    pub(crate) fn new(at: u64, born: u64, mix: usize, target: Option<usize>, slot: u32) -> Self {
        let mix = u32::try_from(mix).expect("the scenario bounds the mixes");
        let target = target.map_or(0, |target| 1 + u32::try_from(target).expect("few lanes"));
        debug_assert!(mix < PLACE_MIXES && target < 256, "a place has 32 bits");
        let place = target * PLACE_MIXES + mix;
        Self {
            at,
            born,
            place,
            slot,
        }
    }

    /// The mix that holds it.
    #[inline]
    pub(crate) fn mix(&self) -> usize {
        (self.place % PLACE_MIXES) as usize
    }

    /// The target it is, if it is one.
    #[inline]
    pub(crate) fn target(&self) -> Option<usize> {
        ((self.place / PLACE_MIXES) as usize).checked_sub(1)
    }
}

/// Packets of one bucket: its newest chunk, and how many packets that one holds.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    newest: u32,
    fill: u32,
}

const EMPTY: Bucket = Bucket {
    newest: NO_CHUNK,
    fill: 0,
};

/// The queue.
#[derive(Debug)]
pub(crate) struct Agenda {
    shift: u32,
    ring: Vec<Bucket>,
    /// The store of chunks, [`CHUNK`] packets each.
    packets: Vec<Waiting>,
    /// The chunk that each chunk follows.
    older: Vec<u32>,
    vacant: Vec<u32>,
    /// Number of the present bucket, counted from time zero.
    present: u64,
    due: Vec<Waiting>,
    waiting: usize,
}

impl Agenda {
    /// A queue that starts at [`ORIGIN`] and expects `in_flight` packets, each of which waits
    /// one unit of time on average.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a logarithm, and a size bounded by the packets in memory"
    )]
    pub(crate) fn new(in_flight: f64) -> Self {
        let width = PER_BUCKET / in_flight.max(PER_BUCKET);
        let width = width.max(YEAR_UNITS / BUCKETS).log2().floor();
        let shift = (40.0 + width) as u32;
        let buckets = (YEAR_UNITS * (-width).exp2()) as usize;
        Self {
            shift,
            ring: vec![EMPTY; buckets.next_power_of_two()],
            packets: Vec::new(),
            older: Vec::new(),
            vacant: Vec::new(),
            present: ORIGIN >> shift,
            due: Vec::new(),
            waiting: 0,
        }
    }

    /// Forgets everything and goes back to [`ORIGIN`].
    pub(crate) fn clear(&mut self) {
        self.ring.fill(EMPTY);
        self.packets.clear();
        self.older.clear();
        self.vacant.clear();
        self.due.clear();
        self.present = ORIGIN >> self.shift;
        self.waiting = 0;
    }

    #[inline]
    fn bucket(&mut self, number: u64) -> &mut Bucket {
        let mask = self.ring.len() as u64 - 1;
        let index = usize::try_from(number & mask).expect("below the ring's length");
        &mut self.ring[index]
    }

    #[inline]
    fn store(&mut self, number: u64, packet: Waiting) {
        let mut bucket = *self.bucket(number);
        if bucket.newest == NO_CHUNK || bucket.fill as usize == CHUNK {
            let chunk = self.vacant.pop().unwrap_or_else(|| {
                self.packets.resize(self.packets.len() + CHUNK, packet);
                self.older.push(NO_CHUNK);
                u32::try_from(self.older.len() - 1).expect("packets fit in memory")
            });
            self.older[chunk as usize] = bucket.newest;
            bucket = Bucket {
                newest: chunk,
                fill: 0,
            };
        }
        self.packets[bucket.newest as usize * CHUNK + bucket.fill as usize] = packet;
        bucket.fill += 1;
        *self.bucket(number) = bucket;
    }

    /// Adds a packet, due now or later.
    #[inline]
    pub(crate) fn push(&mut self, packet: Waiting) {
        self.waiting += 1;
        let number = packet.at >> self.shift;
        if number > self.present {
            self.store(number, packet);
        } else {
            let place = self.due.partition_point(|other| *other > packet);
            self.due.insert(place, packet);
        }
    }

    /// The time of the next departure; the end of time if nothing waits.
    #[inline]
    pub(crate) fn next_at(&mut self) -> u64 {
        if self.due.is_empty() {
            if self.waiting == 0 {
                return u64::MAX;
            }
            self.turn();
        }
        self.due.last().map_or(u64::MAX, |packet| packet.at)
    }

    /// Takes the packet of [`next_at`](Self::next_at), which must have been asked since the
    /// last change.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let packet = self.due.pop()?;
        self.waiting -= 1;
        Some(packet)
    }

    /// Goes to the next bucket with something due in it.
    fn turn(&mut self) {
        while self.due.is_empty() {
            self.present += 1;
            let (present, shift) = (self.present, self.shift);
            let bucket = core::mem::replace(self.bucket(present), EMPTY);
            let (mut chunk, mut fill) = (bucket.newest, bucket.fill as usize);
            while chunk != NO_CHUNK {
                let first = chunk as usize * CHUNK;
                self.due
                    .extend_from_slice(&self.packets[first..first + fill]);
                self.vacant.push(chunk);
                (chunk, fill) = (self.older[chunk as usize], CHUNK);
            }
            // Seldom: packets of a later year go back.
            let later = |packet: &Waiting| packet.at >> shift > present;
            if self.due.iter().any(later) {
                let back: Vec<Waiting> = self.due.extract_if(.., |packet| later(packet)).collect();
                for packet in back {
                    self.store(packet.at >> shift, packet);
                }
            }
            self.due.sort_unstable_by(|a, b| b.cmp(a));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Beside a sorted list: delays from nothing to many years, any expected load.
        #[test]
        fn packets_leave_in_order(
            in_flight in 0.1..5000.0_f64,
            steps in prop::collection::vec((any::<bool>(), 0_u64..1 << 47), 1..200),
        ) {
            let mut agenda = Agenda::new(in_flight);
            let mut model: Vec<Waiting> = Vec::new();
            let mut now = ORIGIN;
            for (number, (leave, delay)) in steps.into_iter().enumerate() {
                // Half of the delays are far below a bucket.
                let delay = if number % 2 == 0 { delay } else { delay >> 20 };
                if leave {
                    model.sort_unstable_by(|a, b| b.cmp(a));
                    let expected = model.pop();
                    prop_assert_eq!(agenda.next_at(), expected.map_or(u64::MAX, |packet| packet.at));
                    prop_assert_eq!(agenda.pop(), expected);
                    now = expected.map_or(now, |packet| packet.at);
                } else {
                    let packet = Waiting::new(now + delay, now, number, Some(number), 0);
                    prop_assert_eq!((packet.mix(), packet.target()), (number, Some(number)));
                    model.push(packet);
                    agenda.push(packet);
                }
            }
        }
    }

    #[test]
    fn a_packet_in_flight_takes_24_bytes() {
        assert_eq!(size_of::<Waiting>(), 24);
    }
}
