//! Which of the packets that wait are opened next, and which are dropped.
//!
//! | state    | next batch | dropped and counted                 | begins when                               |
//! |----------|------------|-------------------------------------|-------------------------------------------|
//! | calm     | the oldest | none                                | the queue has long been short             |
//! | overload | the newest | passed over, and no longer `fresh`  | one is older than `patience`, or some     |
//! |          |            |                                     | have lately too long not been `fresh`     |
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
//! A queue just at capacity grows so slowly that its age tells little: it may stand for seconds at half
//! of what a burst needs, and all that time every packet is late. What tells it from a burst is that it
//! stays (as in `CoDel`, RFC 8289). So the time is counted in which the oldest is not fresh, and the
//! count falls half as fast as it rises: also bursts that follow each other are overload if packets
//! wait in more than a third of the time.
//!
//! `dwell` holds this in virtual time.

use core::time::Duration;
use std::collections::VecDeque;

use proto::{Time, peel::Arrival};
use sphinx::Path;

use super::{BATCH_MAX, LANES, PATIENCE_MIN, TURN};

/// How long packets may wait that are not fresh, in patiences: after a stall of 16 ms a processor at 80 %
/// load needs half of it. And overload ends when none has for twice as long: seldom while there is any.
const LATE_MAX: u32 = 8;
/// How much faster that time is counted than forgotten.
const FORGOTTEN: u32 = 2;
/// How much more it counts in overload, where packets are dropped before they wait for long. It ends in
/// spite of the hiccups of a machine, if they take less than one part in seventeen of the time.
const RELAPSE: u32 = 8;

/// What a processor's speed makes of the limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Most packets opened at once.
    pub(super) batch_max: usize,
    /// How old a packet is at most that waits for its turn alone.
    pub(super) fresh: Duration,
    /// How old one may become in a burst.
    pub(super) patience: Duration,
}

impl Pace {
    /// Of a processor that opens `rate` packets per second on `path`. A batch is what fits a [`TURN`],
    /// in whole lanes, if it is more than that, and where a part of them costs as much. Fresh is what has
    /// waited while a batch was computed and links were read and written, and what a few packets take.
    /// Patience is for a stall, and for what [`BATCH_MAX`] packets take: the queue of a processor that
    /// keeps up is hardly ever as long.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "positive, and cut to a few"
    )]
    pub(super) fn of(path: Path, rate: f64) -> Self {
        let fits = (rate * TURN.as_secs_f64()) as usize;
        let pass = path.together();
        let batch_max = match fits {
            0..LANES => (fits - fits % pass).max(pass),
            _ => (fits - fits % LANES).min(BATCH_MAX),
        };
        let take = |packets: usize| Duration::from_secs_f64(packets as f64 / rate.max(1.0));
        Self {
            batch_max,
            fresh: TURN * 2 + take(LANES),
            patience: PATIENCE_MIN + take(BATCH_MAX),
        }
    }
}

/// Packets that wait to be opened, the oldest first.
pub(super) struct Backlog {
    pace: Pace,
    waiting: VecDeque<Arrival>,
    overload: bool,
    /// For how long lately some were not fresh, <= [`LATE_MAX`] patiences.
    late: Duration,
    judged: Time,
}

impl Backlog {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            waiting: VecDeque::new(),
            overload: false,
            late: Duration::ZERO,
            judged: Time::ZERO,
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
        let waits = self.waiting.len();
        let over = waits.saturating_sub(self.pace.batch_max);
        let oldest = self.waiting.front().filter(|_| over > 0);
        let age = oldest.map_or(Duration::ZERO, |oldest| now.since(oldest.received));
        self.judge(now, age);
        if !self.overload {
            return (self.waiting.drain(..waits - over).collect(), 0);
        }
        let batch = self.waiting.split_off(over).into();
        let old = |arrival: &&Arrival| now.since(arrival.received) > self.pace.fresh;
        let dropped = self.waiting.iter().take_while(old).count();
        self.waiting.drain(..dropped);
        (batch, dropped)
    }

    /// Whether there is overload `now`, when the oldest of more than a batch has this `age`.
    fn judge(&mut self, now: Time, age: Duration) {
        let most = self.pace.patience * LATE_MAX;
        let passed = now.since(self.judged);
        self.judged = now;
        self.late = if age <= self.pace.fresh {
            self.late.saturating_sub(passed / FORGOTTEN)
        } else if age > self.pace.patience {
            most
        } else {
            let counts = if self.overload { RELAPSE } else { 1 };
            most.min(self.late + passed.min(age) * counts)
        };
        self.overload = self.late == most || self.overload && !self.late.is_zero();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(100);
    const PACE: Pace = Pace {
        batch_max: BATCH_MAX,
        fresh: Duration::from_millis(5),
        patience: PATIENCE_MIN,
    };

    fn at(step: usize) -> Time {
        Time::ZERO.after(STEP * u32::try_from(step).expect("few"))
    }

    /// Packets that were received in these steps.
    fn packets(steps: impl IntoIterator<Item = usize>) -> impl Iterator<Item = Arrival> {
        steps.into_iter().map(|step| Arrival {
            received: at(step),
            packet: Box::new([0; sphinx::PACKET_LEN]),
        })
    }

    fn backlog(steps: impl IntoIterator<Item = usize>) -> Backlog {
        let mut backlog = Backlog::new(PACE);
        backlog.extend(packets(steps));
        backlog
    }

    fn received(batch: &[Arrival]) -> Vec<Time> {
        batch.iter().map(|arrival| arrival.received).collect()
    }

    /// What fits a batch is opened however old it is, and a burst in order.
    #[test]
    fn below_capacity_the_oldest_go_first_and_none_is_dropped() {
        let late = Time::ZERO.after(Duration::from_secs(1));
        let (batch, dropped) = backlog(0..BATCH_MAX).take(late);
        assert_eq!((batch.len(), dropped), (BATCH_MAX, 0));

        let mut waiting = backlog(0..BATCH_MAX + 10);
        let (batch, dropped) = waiting.take(Time::ZERO.after(PATIENCE_MIN));
        let oldest: Vec<Time> = (0..BATCH_MAX).map(at).collect();
        assert_eq!((received(&batch), dropped), (oldest, 0));
        assert_eq!(waiting.waiting.len(), 10);
    }

    /// ATTACKS t06: beyond capacity those that pass are fresh.
    #[test]
    fn in_overload_the_newest_go_first_and_those_passed_over_are_dropped_when_old() {
        let now = at(410 + BATCH_MAX);
        let mut waiting = backlog((0..100).chain(400..410 + BATCH_MAX));
        let (batch, dropped) = waiting.take(now);
        let newest: Vec<Time> = (410..410 + BATCH_MAX).map(at).collect();
        assert_eq!((received(&batch), dropped), (newest, 100));
        let (batch, dropped) = waiting.take(now);
        let others: Vec<Time> = (400..410).map(at).collect();
        assert_eq!((received(&batch), dropped), (others, 0));
    }

    /// Whether it is overload after more than a batch waited at these steps, the oldest of these ages.
    fn judged(backlog: &mut Backlog, ages: impl IntoIterator<Item = (usize, Duration)>) -> bool {
        for (step, age) in ages {
            backlog.judge(at(step), age);
        }
        backlog.overload
    }

    #[test]
    fn a_queue_that_stays_is_overload_and_a_burst_is_not() {
        let (fresh, old) = (PACE.fresh, PACE.fresh + STEP);
        let most = (PACE.patience * LATE_MAX).as_micros() / STEP.as_micros();
        let most = usize::try_from(most).unwrap();
        let all = |steps: core::ops::Range<usize>, age| steps.map(move |step| (step, age));

        let mut stays = backlog([]);
        assert!(!judged(&mut stays, all(0..most, old)));
        assert!(judged(&mut stays, [(most, old)]));
        // It ends when none has been old for twice as long, but for one that is late in it.
        let end = most * 3;
        assert!(judged(&mut stays, all(most + 1..end, fresh)));
        assert!(judged(&mut stays, [(end, old), (end + 16, fresh)]));
        assert!(!judged(&mut stays, [(end + 17, fresh)]));

        // Of the time, old in a third and in half.
        for (period, overload) in [(4, false), (3, false), (2, true)] {
            let bursts = (0..most * 8).map(|step| {
                let age = if step % period == 0 { old } else { fresh };
                (step, age)
            });
            assert_eq!(judged(&mut backlog([]), bursts), overload, "{period}");
        }

        // A packet that comes after a long silence, and waits a little, is no queue that stayed.
        assert!(!judged(&mut backlog([]), [(most * 9, old)]));
        // One that has waited too long is enough.
        assert!(judged(&mut backlog([]), [(1000, PACE.patience + STEP)]));
    }

    #[test]
    fn a_batch_fits_a_turn_and_patience_many() {
        let rates = [100.0, 2_000.0, 9_000.0, 19_000.0, 66_000.0, 1e9];
        let of = |path| rates.map(|rate| Pace::of(path, rate).batch_max);
        assert_eq!(of(Path::Assembly), [1, 2, 8, 16, 32, 32]);
        assert_eq!(of(Path::Avx2), [4, 4, 8, 16, 32, 32]);
        assert_eq!(Pace::of(Path::Avx2, 7_000.0).batch_max, 4);
        assert_eq!(of(Path::Lanes), [8, 8, 8, 16, 32, 32]);
        let patience_ms = rates.map(|rate| Pace::of(Path::Portable, rate).patience.as_millis());
        assert_eq!(patience_ms, [340, 36, 23, 21, 20, 20]);
        let fresh_ms = rates.map(|rate| Pace::of(Path::Portable, rate).fresh.as_millis());
        assert_eq!(fresh_ms, [82, 6, 2, 2, 2, 2]);
    }
}
