//! The (n−1) attack against a mix's own loops, watched by a sequential test (CUSUM).
//!
//! The detector adds [`Detector::step`] for a loop that is lost and takes 1 off for one that comes back,
//! never below 0, and raises an alarm at [`Detector::alarm`]. With natural loss p₀ and the loss p₁ that it is
//! tuned for, the step is ln(p₁/p₀) / ln((1 − p₀)/(1 − p₁)), rounded up (Page 1954). The mean run between
//! false alarms is that of a Markov chain over 0 … alarm, solved exactly: with h(s) loops to go from s,
//! h(s) = 1 + p h(s + step) + (1 − p) h(s − 1).

use super::{figure, line, mean_of, plot, reference, replicate};
use crate::{outcome::Outcome, random::Stream, stats::Estimate};

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Blending {
    /// Loops of the mix per second.
    pub loops_per_s: f64,
    /// Share of loops that links lose, above 0.
    pub loss: f64,
    /// Share of the rest that the attacker blocks.
    pub blocked: f64,
    /// Least mean time between false alarms, in days.
    pub days_between_false_alarms: f64,
    /// Independent attacks.
    pub replications: u64,
}

/// A sequential test for lost loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detector {
    /// Added for a loop that is lost.
    pub step: u32,
    /// Where it raises an alarm.
    pub alarm: u32,
}

/// Loss that the detector is tuned for: half of what is sent.
const TUNED_FOR: f64 = 0.5;

impl Detector {
    /// The least threshold that gives `loops` loops between false alarms on the mean at natural
    /// loss `loss`, which is above 0 and well below the half that the test is tuned for.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few dozens"
    )]
    pub fn new(loss: f64, loops: f64) -> Self {
        let step = (TUNED_FOR / loss).ln() / ((1.0 - loss) / (1.0 - TUNED_FOR)).ln();
        let step = (step.ceil() as u32).max(1);
        let alarm = (1..).find(|alarm| {
            Self {
                step,
                alarm: *alarm,
            }
            .run_length(loss)
                >= loops
        });
        Self {
            step,
            alarm: alarm.unwrap_or(u32::MAX),
        }
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
        for s in (1..alarm).rev() {
            // h(s + step) in terms of h(s), by the chain of what is known above.
            let (mut constant, mut factor) = (0.0, 1.0);
            if s + step >= alarm {
                factor = 0.0;
            } else {
                for above in (s + 1..=s + step).rev() {
                    constant += factor * c[above];
                    factor *= d[above];
                }
            }
            let own = 1.0 - loss * factor;
            c[s] = (1.0 + loss * constant) / own;
            d[s] = (1.0 - loss) / own;
        }
        let (mut constant, mut factor) = (0.0, 1.0);
        if step >= alarm {
            factor = 0.0;
        } else {
            for above in (1..=step).rev() {
                constant += factor * c[above];
                factor *= d[above];
            }
        }
        // From 0 a loop that comes back leaves it at 0.
        (1.0 + loss * constant) / (loss * (1.0 - factor))
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

    /// Loops until an alarm, once.
    fn run(self, loss: f64, stream: &mut Stream) -> f64 {
        let (mut sum, mut loops) = (0u32, 0.0);
        while sum < self.alarm {
            loops += 1.0;
            sum = self.next(sum, stream.coin(loss));
        }
        loops
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

    /// The same, simulated.
    #[must_use]
    pub fn simulate_within(self, loss: f64, loops: u32, replications: u64, seed: u64) -> Estimate {
        mean_of(&replicate(seed, replications, |stream| {
            let mut sum = 0;
            let alarmed = (0..loops).any(|_| {
                sum = self.next(sum, stream.coin(loss));
                sum >= self.alarm
            });
            f64::from(u8::from(alarmed))
        }))
    }

    /// Mean loops until an alarm, simulated.
    #[must_use]
    pub fn simulate(self, loss: f64, replications: u64, seed: u64) -> Estimate {
        mean_of(&replicate(seed, replications, |stream| {
            self.run(loss, stream)
        }))
    }
}

/// Seconds in which the curve of alarms wants one.
const WINDOW_S: f64 = 10.0;

/// The whole study.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "loops of ten seconds"
)]
pub fn run(settings: &Blending, seed: u64) -> Outcome {
    let Blending {
        loops_per_s,
        loss,
        blocked,
        replications,
        ..
    } = *settings;
    let wanted = settings.days_between_false_alarms * 86_400.0 * loops_per_s;
    let attacked = |loss: f64, blocked: f64| loss + (1.0 - loss) * blocked;
    let detector = Detector::new(loss, wanted);
    let found = detector.simulate(attacked(loss, blocked), replications, seed);
    let seconds = Estimate {
        value: found.value / loops_per_s,
        standard_error: found.standard_error / loops_per_s,
        ..found
    };
    let exact = |blocked| detector.run_length(attacked(loss, blocked)) / loops_per_s;
    let window = (loops_per_s * WINDOW_S).round().max(1.0) as u32;
    let alarmed = detector.simulate_within(attacked(loss, blocked), window, replications, seed);
    let computed =
        |name: &str, label: &str, value: f64| figure(name, label, Estimate::exact(value), None);
    let mut figures = vec![
        computed("step", "step of the detector", detector.step.into()),
        computed("alarm", "threshold of the detector", detector.alarm.into()),
        computed(
            "false_alarm_days",
            "days between false alarms",
            detector.run_length(loss) / loops_per_s / 86_400.0,
        ),
        figure(
            "detection_mean_s",
            "time until the attack is noticed, mean",
            seconds,
            Some(exact(blocked)),
        ),
        figure(
            "detected_within_10_s",
            "attacks noticed within 10 s",
            alarmed,
            Some(detector.within(attacked(loss, blocked), window)),
        ),
    ];
    for percent in 1..=5u32 {
        let natural = f64::from(percent) / 100.0;
        let seconds = Detector::new(natural, wanted).run_length(attacked(natural, blocked));
        let name = format!("detection_at_loss_{percent}_s");
        let label = format!("time until it is noticed where links lose {percent} %, computed");
        figures.push(computed(&name, &label, seconds / loops_per_s));
    }
    let shares = (4..=20).map(|i| f64::from(i) / 20.0);
    let curve = |blocked: f64| {
        let thresholds = (1..=20 * detector.step).rev();
        let rates = thresholds.map(|alarm| {
            let one = Detector { alarm, ..detector };
            let within = |blocked| one.within(attacked(loss, blocked), window);
            (within(0.0), within(blocked))
        });
        let mut rates: Vec<(f64, f64)> = rates.collect();
        rates.dedup();
        rates
    };
    let mut curves: Vec<_> = [0.2, 0.5, 0.9]
        .map(|blocked| line(&format!("{:.0} % blocked", blocked * 100.0), curve(blocked)))
        .into();
    curves.push(reference("chance", vec![(0.0, 0.0), (1.0, 1.0)]));
    Outcome {
        figures,
        plots: vec![
            plot(
                "Time until noticed",
                "Mean seconds from the start of the attack to the alarm, computed; the dot is simulated.",
                ["share of packets blocked", "seconds"],
                vec![
                    reference(
                        "computed",
                        shares.map(|blocked| (blocked, exact(blocked))).collect(),
                    ),
                    line("simulated", vec![(blocked, seconds.value)]),
                ],
            ),
            plot(
                "Alarms within 10 s",
                "Share of attacks noticed within 10 s of their start, over the share of quiet 10 s with an alarm, as the threshold falls; computed.",
                ["false alarms", "attacks noticed"],
                curves,
            ),
        ],
        ..Outcome::default()
    }
}
