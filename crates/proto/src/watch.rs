//! A sequential test (CUSUM) for loops that are lost: how an (n−1) attack is noticed.
//!
//! Spec: docs/spec/loops.md, rules LOOP-4 and LOOP-5.
//!
//! | quantity     | unit, range                                                              |
//! |--------------|--------------------------------------------------------------------------|
//! | step         | added for a loop that is lost, at least 1                                |
//! | alarm        | the sum at which it alarms, 1 to [`ALARM_MAX`]                           |
//! | run length   | loops until an alarm, on the mean                                        |
//! | loss         | probability, above 0 and below 1                                         |
//!
//! The test adds the step for a loop that is lost and takes 1 off for one that comes back, never
//! below 0. With natural loss p₀ and the loss p₁ that it is tuned for, the step is
//! ln(p₁/p₀) / ln((1 − p₀)/(1 − p₁)), rounded up (Page 1954). The mean run between false alarms is
//! that of a Markov chain over 0 … alarm, solved exactly: with h(s) loops to go from s,
//! h(s) = 1 + p h(s + step) + (1 − p) h(s − 1).
//!
//! Not done here: which loops are lost ([`crate::client`]), and what an alarm brings about.

/// Highest threshold: a test that needs more is too slow to be of use.
pub const ALARM_MAX: u32 = 4096;

/// A sequential test for lost loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detector {
    /// Added for a loop that is lost.
    pub step: u32,
    /// Where it raises an alarm.
    pub alarm: u32,
}

impl Detector {
    /// The least threshold that gives `loops` loops between false alarms on the mean at natural
    /// loss `natural`, tuned for a loss of `attacked`. None if no threshold up to [`ALARM_MAX`]
    /// does: the two are too close, or the wrong way round.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few dozens"
    )]
    pub fn new(natural: f64, attacked: f64, loops: f64) -> Option<Self> {
        if !(0.0 < natural && natural < attacked && attacked < 1.0) {
            return None;
        }
        let step = (attacked / natural).ln() / ((1.0 - natural) / (1.0 - attacked)).ln();
        let step = (step.ceil() as u32).max(1);
        let long = |alarm: u32| Self { step, alarm }.run_length(natural) >= loops;
        // Run lengths rise with the threshold: halve the range that holds the least long one.
        let (mut short, mut alarm) = (0, ALARM_MAX);
        if !long(alarm) {
            return None;
        }
        while alarm - short > 1 {
            let middle = short.midpoint(alarm);
            if long(middle) {
                alarm = middle;
            } else {
                short = middle;
            }
        }
        Some(Self { step, alarm })
    }

    /// Mean loops until an alarm, from 0, when each is lost with probability `loss`; exact.
    ///
    /// Shooting: h(s) = a(s) + b(s) h(0) from s = 0 upwards is unstable, so states are eliminated
    /// from the top: each h(s) depends on states above, known, and on h(s − 1).
    #[must_use]
    pub fn run_length(self, loss: f64) -> f64 {
        // h(s) = c[s] + d[s] h(s − 1), for s from alarm − 1 down to 1.
        let (alarm, step) = (self.alarm as usize, self.step as usize);
        let (mut c, mut d) = (vec![0.0; alarm + 1], vec![0.0; alarm + 1]);
        // h(s + step) in terms of h(s), by the chain of what is known above s.
        let above = |c: &[f64], d: &[f64], s: usize| {
            let (mut constant, mut factor) = (0.0, 1.0);
            if s + step >= alarm {
                return (0.0, 0.0);
            }
            for at in (s + 1..=s + step).rev() {
                constant += factor * c[at];
                factor *= d[at];
            }
            (constant, factor)
        };
        for s in (1..alarm).rev() {
            let (constant, factor) = above(&c, &d, s);
            let own = 1.0 - loss * factor;
            c[s] = (1.0 + loss * constant) / own;
            d[s] = (1.0 - loss) / own;
        }
        let (constant, factor) = above(&c, &d, 0);
        // From 0 a loop that comes back leaves it at 0.
        (1.0 + loss * constant) / (loss * (1.0 - factor))
    }

    /// Probability of an alarm within `loops` loops, from 0, when each is lost with probability
    /// `loss`; exact.
    #[must_use]
    pub fn within(self, loss: f64, loops: u32) -> f64 {
        let alarm = self.alarm as usize;
        let mut at = vec![0.0; alarm + 1];
        at[0] = 1.0;
        for _ in 0..loops {
            let mut next = vec![0.0; alarm + 1];
            next[alarm] = at[alarm]; // an alarm stays one
            for (sum, p) in (0u32..).zip(&at[..alarm]) {
                let up = self.next(sum, true).min(self.alarm);
                next[up as usize] += loss * p;
                next[self.next(sum, false) as usize] += (1.0 - loss) * p;
            }
            at = next;
        }
        at[alarm]
    }

    /// The sum after one more loop.
    #[must_use]
    pub fn next(self, sum: u32, lost: bool) -> u32 {
        if lost {
            sum.saturating_add(self.step)
        } else {
            sum.saturating_sub(1)
        }
    }
}

/// The test as it runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    detector: Option<Detector>,
    sum: u32,
}

impl Watch {
    /// Watches with `detector` from now on; an equal one changes nothing.
    pub fn tune(&mut self, detector: Option<Detector>) {
        if self.detector != detector {
            *self = Self { detector, sum: 0 };
        }
    }

    /// How it is tuned; none: it doesn't watch.
    #[must_use]
    pub fn detector(&self) -> Option<Detector> {
        self.detector
    }

    /// One loop's verdict; whether that is an alarm, after which it starts over.
    pub fn verdict(&mut self, lost: bool) -> bool {
        let Some(detector) = self.detector else {
            return false;
        };
        self.sum = detector.next(self.sum, lost);
        let alarm = self.sum >= detector.alarm;
        if alarm {
            self.sum = 0;
        }
        alarm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LOOP-4: the least threshold that is long enough, or none.
    #[test]
    fn the_threshold_is_the_least_that_is_rare_enough() {
        for (natural, attacked, loops) in
            [(0.01, 0.5, 2000.0), (0.049, 0.366, 5e6), (0.366, 0.95, 3e7)]
        {
            let found = Detector::new(natural, attacked, loops).unwrap();
            assert!(found.run_length(natural) >= loops);
            let less = Detector {
                alarm: found.alarm - 1,
                ..found
            };
            assert!(less.run_length(natural) < loops);
            assert!(found.run_length(attacked) < 100.0, "{found:?}");
        }
        for (natural, attacked) in [(0.5, 0.5), (0.6, 0.5), (0.0, 0.5), (0.1, 1.0), (0.7, 0.9)] {
            assert_eq!(Detector::new(natural, attacked, 1e6), None);
        }
    }

    /// LOOP-4
    #[test]
    fn an_alarm_starts_over() {
        let mut watch = Watch::default();
        assert!(!watch.verdict(true), "it does not watch");
        let detector = Detector { step: 2, alarm: 5 };
        watch.tune(Some(detector));
        let alarms = [true, false, true, true, true, true, true].map(|lost| watch.verdict(lost));
        assert_eq!(alarms, [false, false, false, true, false, false, true]);
        assert!(!watch.verdict(true));
        watch.tune(Some(detector));
        assert!(!watch.verdict(true));
        assert!(watch.verdict(true), "an equal one changes nothing");
    }
}
