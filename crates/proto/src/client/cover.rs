//! When a client sends: two independent Poisson processes that nothing else moves.
//!
//! Spec: docs/spec/client.md, rules CLI-2 to CLI-5.
//!
//! | quantity     | type         | unit, range                                                  |
//! |--------------|--------------|--------------------------------------------------------------|
//! | rate         | `u64`        | microhertz, from the profile; zero: never                    |
//! | gap          | `Duration`   | exponential of mean 1 / rate                                 |
//! | lateness     | `Duration`   | of a wake after its tick; above [`LATE_MAX`] the tick is     |
//! |              |              | skipped                                                      |
//!
//! Invariant: the times of ticks are a function of the seed, the rates, and when the client was
//! woken. What is sent, and whether anything can be, has no part in them: no link, no message
//! and no epoch starts, stops or shifts the process (CLI-2).

use core::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::Time;

/// A tick later than this is skipped, never made up (CLI-4). It is the default mean delay of one
/// mix: a packet displaced by less drowns in what the first mix adds, and a scheduler that is
/// later than this was stopped, not busy.
pub const LATE_MAX: Duration = Duration::from_millis(50);

/// A uniform number of [0, 1), a multiple of 2⁻⁵³.
pub(crate) fn uniform(rng: &mut impl Rng) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
    let bits = (rng.next_u64() >> 11) as f64;
    bits * f64::EPSILON / 2.0
}

/// An exponential number of mean 1, by inverting its distribution.
pub(crate) fn exponential(rng: &mut impl Rng) -> f64 {
    -(-uniform(rng)).ln_1p()
}

/// What a call found due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    /// In time: send one packet.
    Due,
    /// Too late: send nothing.
    Skipped,
}

/// One Poisson process.
pub(crate) struct Poisson {
    rng: ChaCha20Rng,
    rate_uhz: u64,
    next: Option<Time>,
}

impl Poisson {
    /// A process that never ticks until it is given a rate. `stream` tells those of one seed
    /// apart.
    pub(crate) fn new(seed: [u8; 32], stream: u64) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        rng.set_stream(stream);
        Self {
            rng,
            rate_uhz: 0,
            next: None,
        }
    }

    /// Sets the rate. An unchanged one changes nothing; else the next gap is drawn anew, which a
    /// process without memory can't tell from having waited.
    pub(crate) fn set_rate(&mut self, now: Time, rate_uhz: u64) {
        if rate_uhz != self.rate_uhz {
            self.rate_uhz = rate_uhz;
            self.next = (rate_uhz > 0).then(|| self.tick_after(now));
        }
    }

    /// The next tick.
    pub(crate) fn next(&self) -> Option<Time> {
        self.next
    }

    /// Whether a tick has fallen due: at most one a call, however long it has been (CLI-4).
    pub(crate) fn take(&mut self, now: Time) -> Option<Tick> {
        let due = self.next.filter(|due| *due <= now)?;
        if now.since(due) > LATE_MAX {
            self.next = Some(self.tick_after(now));
            return Some(Tick::Skipped);
        }
        // The process goes on from the tick, not from the wake, else lateness would lower the
        // rate; ticks that the wake missed as well are left out.
        let mut next = self.tick_after(due);
        while next <= now {
            next = self.tick_after(next);
        }
        self.next = Some(next);
        Some(Tick::Due)
    }

    fn tick_after(&mut self, from: Time) -> Time {
        #[expect(clippy::cast_precision_loss, reason = "rates are far below 2⁵³ µHz")]
        let mean_s = 1e6 / self.rate_uhz as f64;
        let gap = Duration::try_from_secs_f64(exponential(&mut self.rng) * mean_s);
        // At least a nanosecond, so that a wake always makes progress (law 3).
        from.after(gap.unwrap_or(Duration::MAX).max(Duration::from_nanos(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(rate_uhz: u64) -> Poisson {
        let mut process = Poisson::new([1; 32], 0);
        process.set_rate(Time::ZERO, rate_uhz);
        process
    }

    /// CLI-2, CLI-3: gaps of a process that is woken in time are exponential.
    #[test]
    fn gaps_are_exponential() {
        let mut process = process(2_000_000);
        let mut last = Time::ZERO;
        let mut gaps: Vec<f64> = (0..20_000)
            .map(|_| {
                let now = process.next().expect("it never ends");
                assert_eq!(process.take(now), Some(Tick::Due));
                let gap = now.since(last).as_secs_f64();
                last = now;
                gap
            })
            .collect();
        gaps.sort_by(f64::total_cmp);
        let n = gaps.len() as f64;
        let distance = gaps.iter().enumerate().map(|(i, gap)| {
            let law = 1.0 - (-2.0 * gap).exp();
            (law - i as f64 / n)
                .abs()
                .max((law - (i + 1) as f64 / n).abs())
        });
        // Kolmogorov–Smirnov: 0.0115 is the 1 % bound for 20 000 gaps.
        assert!(distance.fold(0.0, f64::max) < 0.0115);
    }

    /// CLI-4: after a stop there is no burst, and the tick that was missed is not made up.
    #[test]
    fn an_overdue_tick_is_skipped() {
        let mut process = process(200_000_000);
        let stopped = Time::ZERO.after(Duration::from_secs(10));
        assert_eq!(process.take(stopped), Some(Tick::Skipped));
        assert_eq!(process.take(stopped), None);
        assert!(process.next().is_some_and(|next| next > stopped));
    }

    /// CLI-4: a wake that is a little late sends one packet, not one for each missed tick.
    #[test]
    fn a_late_wake_sends_one() {
        let mut process = process(200_000_000);
        let first = process.next().expect("it never ends");
        let late = first.after(LATE_MAX); // ten ticks
        assert_eq!(process.take(late), Some(Tick::Due));
        assert_eq!(process.take(late), None);
        let next = process.next().expect("it never ends");
        assert_eq!(
            process.take(next.after(LATE_MAX + Duration::from_nanos(1))),
            Some(Tick::Skipped)
        );
    }

    /// CLI-4: after a late wake the next tick is as far away as after any: no hurry.
    #[test]
    fn a_late_wake_hurries_nothing() {
        let mut process = process(200_000_000);
        let mut sum = Duration::ZERO;
        for _ in 0..4000 {
            let late = process
                .next()
                .expect("it never ends")
                .after(LATE_MAX * 4 / 5);
            assert_eq!(process.take(late), Some(Tick::Due));
            sum += process.next().expect("it never ends").since(late);
        }
        let mean_ms = sum.as_secs_f64() / 4.0;
        assert!((4.7..5.3).contains(&mean_ms), "{mean_ms} ms for 5 ms");
    }

    /// CLI-2: a rate that is set again moves nothing; zero stops.
    #[test]
    fn the_same_rate_moves_nothing() {
        let mut process = process(5_000_000);
        let next = process.next();
        process.set_rate(Time::ZERO.after(Duration::from_millis(1)), 5_000_000);
        assert_eq!(process.next(), next);
        process.set_rate(Time::ZERO, 0);
        assert_eq!(process.next(), None);
    }
}
