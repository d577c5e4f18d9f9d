//! Which of the packets that wait are opened next, and which are dropped.
//!
//! | state    | next batch  | dropped and counted                    | until                            |
//! |----------|-------------|----------------------------------------|----------------------------------|
//! | calm     | the oldest  | none                                   | one is older than `patience`     |
//! | overload | the newest  | passed over, and older than `patience` | none is for [`CALM`] as long     |
//!
//! How many wait says nothing: after a stall a burst is as long as the stall, and opened soon. Their number is
//! bounded where they come in ([`super::WAITING_MAX`]).
//!
//! Bursts are taken in order: below capacity each packet's turn comes while it is young, and none is
//! lost. Beyond capacity some packets have to go. In order of arrival every packet would wait as long as
//! the queue is, and the holding times of all would be late by it (ATTACKS t05, t06); newest first,
//! those that pass are as fresh as ever and their law stays exponential, and the rest is dropped. The
//! order in which packets are opened shows nowhere: the mix sorts them by due time (MIX-2).
//!
//! `dwell` holds this in virtual time.

use core::time::Duration;
use std::collections::VecDeque;

use proto::{Time, peel::Arrival};
use sphinx::Path;

use super::{BATCH_MAX, LANES, PATIENCE_MIN, TURN};

/// How many times as long as it is patient a processor goes on as in overload: seldom long enough for
/// one that still is.
const CALM: u32 = 8;

/// What a processor's speed makes of the limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Most packets opened at once.
    pub(super) batch_max: usize,
    /// How old a packet may be that waits.
    pub(super) patience: Duration,
}

impl Pace {
    /// Of a processor that opens `rate` packets per second on `path`. A batch is what fits a [`TURN`],
    /// in whole lanes, if it is more than that, and where a part of them costs as much. Patience is for
    /// a stall, and for what [`BATCH_MAX`] packets take: the queue of a processor that keeps up is hardly
    /// ever as long.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "positive, and cut to a few"
    )]
    pub(super) fn of(path: Path, rate: f64) -> Self {
        let fits = (rate * TURN.as_secs_f64()) as usize;
        let batch_max = match fits {
            0..LANES if path == Path::Lanes => LANES,
            0..LANES => fits.max(1),
            _ => (fits - fits % LANES).min(BATCH_MAX),
        };
        let queue = Duration::from_secs_f64(BATCH_MAX as f64 / rate.max(1.0));
        Self {
            batch_max,
            patience: PATIENCE_MIN + queue,
        }
    }
}

/// Packets that wait to be opened, the oldest first.
pub(super) struct Backlog {
    pace: Pace,
    waiting: VecDeque<Arrival>,
    calm_from: Time,
}

impl Backlog {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            waiting: VecDeque::new(),
            calm_from: Time::ZERO,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn extend(&mut self, arrivals: impl IntoIterator<Item = Arrival>) {
        self.waiting.extend(arrivals);
    }

    /// The next batch, and how many packets are dropped for their age.
    pub(super) fn take(&mut self, now: Time) -> (Vec<Arrival>, usize) {
        let Pace {
            batch_max,
            patience,
        } = self.pace;
        let waits = self.waiting.len();
        let over = waits.saturating_sub(batch_max);
        let old = |arrival: &&Arrival| now.since(arrival.received) > patience;
        let dropped = self.waiting.iter().take(over).take_while(old).count();
        if dropped > 0 {
            self.calm_from = now.after(patience * CALM);
        }
        if now >= self.calm_from {
            return (self.waiting.drain(..waits.min(batch_max)).collect(), 0);
        }
        let batch = self.waiting.split_off(over).into();
        self.waiting.drain(..dropped);
        (batch, dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(100);
    const PACE: Pace = Pace {
        batch_max: BATCH_MAX,
        patience: PATIENCE_MIN,
    };

    fn at(step: usize) -> Time {
        Time::ZERO.after(STEP * u32::try_from(step).expect("few"))
    }

    /// Packets that were received in these steps, whose first byte they are.
    fn packets(steps: core::ops::Range<usize>) -> impl Iterator<Item = Arrival> {
        steps.map(|step| Arrival {
            received: at(step),
            packet: Box::new([u8::try_from(step % 256).expect("small"); sphinx::PACKET_LEN]),
        })
    }

    fn backlog(packets: impl Iterator<Item = Arrival>) -> Backlog {
        let mut backlog = Backlog::new(PACE);
        backlog.extend(packets);
        backlog
    }

    fn received(batch: &[Arrival]) -> Vec<Time> {
        batch.iter().map(|arrival| arrival.received).collect()
    }

    /// What fits a batch is opened however old it is, and a burst in order.
    #[test]
    fn below_capacity_the_oldest_go_first_and_none_is_dropped() {
        let late = Time::ZERO.after(Duration::from_secs(1));
        let (batch, dropped) = backlog(packets(0..BATCH_MAX)).take(late);
        assert_eq!((batch.len(), dropped), (BATCH_MAX, 0));

        let mut waiting = backlog(packets(0..BATCH_MAX + 10));
        let (batch, dropped) = waiting.take(Time::ZERO.after(PATIENCE_MIN));
        let oldest: Vec<Time> = (0..BATCH_MAX).map(at).collect();
        assert_eq!((received(&batch), dropped), (oldest, 0));
        assert_eq!(waiting.waiting.len(), 10);
    }

    /// ATTACKS t06: beyond capacity those that pass are fresh, and for some time after.
    #[test]
    fn in_overload_the_newest_go_first_and_those_passed_over_age() {
        let overload = at(80).after(PATIENCE_MIN);
        let mut waiting = backlog(packets(0..BATCH_MAX + 100));
        let (batch, dropped) = waiting.take(overload);
        let newest: Vec<Time> = (100..BATCH_MAX + 100).map(at).collect();
        assert_eq!((received(&batch), dropped), (newest, 80));
        assert_eq!(waiting.waiting.len(), 20);

        let calm = overload.after(PATIENCE_MIN * CALM);
        for (now, first) in [(overload, 210u8), (calm, 200)] {
            let mut waiting = Backlog {
                calm_from: waiting.calm_from,
                ..backlog(packets(200..210 + BATCH_MAX).map(|arrival| Arrival {
                    received: now,
                    ..arrival
                }))
            };
            let (batch, dropped) = waiting.take(now);
            assert_eq!((batch[0].packet[0], dropped), (first, 0));
        }
    }

    #[test]
    fn a_batch_fits_a_turn_and_patience_many() {
        let rates = [100.0, 2_000.0, 9_000.0, 19_000.0, 66_000.0, 1e9];
        let of = |path| rates.map(|rate| Pace::of(path, rate).batch_max);
        assert_eq!(of(Path::Assembly), [1, 2, 8, 16, 32, 32]);
        assert_eq!(of(Path::Lanes), [8, 8, 8, 16, 32, 32]);
        let patience_ms = rates.map(|rate| Pace::of(Path::Portable, rate).patience.as_millis());
        assert_eq!(patience_ms, [340, 36, 23, 21, 20, 20]);
    }
}
