//! The (n−1) attack against a mix's own loops, watched by a sequential test (CUSUM).
//!
//! The test is the one that clients and nodes run ([`proto::watch`]), with its formulas; here it is played.

pub use proto::watch::Detector;

use super::{
    WORK_MAX, bound, chance_from, figure, line, mean_of, plot, reference, replicate, roc_from,
    share_of,
};
use crate::{
    outcome::{Mark, Outcome, RunError, Series},
    random::Stream,
    report::short,
    stats::Estimate,
};

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

/// Loss that the detector is tuned for: half of what is sent.
const TUNED_FOR: f64 = 0.5;

/// The deployed test, tuned for half of what is sent, with `loops` loops between false alarms on
/// the mean at natural loss `loss`.
///
/// # Panics
///
/// If `loss` is not above 0 and well below that half.
#[must_use]
pub fn detector(loss: f64, loops: f64) -> Detector {
    Detector::new(loss, TUNED_FOR, loops).expect("natural loss is above 0 and well below a half")
}

/// As [`detector`], where somebody chose the numbers.
///
/// # Errors
///
/// [`RunError::Usage`] if no threshold makes false alarms so rare.
pub(super) fn tuned(loss: f64, loops: f64) -> Result<Detector, RunError> {
    Detector::new(loss, TUNED_FOR, loops).ok_or_else(|| {
        let loops = short(loops);
        RunError::Usage(format!(
            "no threshold of the detector leaves {loops} loops between two false alarms where links lose {loss}: lower \
             --loops-per-s or --days-between-false-alarms"
        ))
    })
}

/// The test, played.
pub trait Played {
    /// Whether there is an alarm within `loops` loops, simulated.
    #[must_use]
    fn simulate_within(self, loss: f64, loops: u32, replications: u64, seed: u64) -> Estimate;

    /// Mean loops until an alarm, simulated.
    #[must_use]
    fn simulate(self, loss: f64, replications: u64, seed: u64) -> Estimate;
}

/// Loops until an alarm, once.
fn run_once(detector: Detector, loss: f64, stream: &mut Stream) -> f64 {
    let (mut sum, mut loops) = (0u32, 0.0);
    while sum < detector.alarm {
        loops += 1.0;
        sum = detector.next(sum, stream.coin(loss));
    }
    loops
}

impl Played for Detector {
    fn simulate_within(self, loss: f64, loops: u32, replications: u64, seed: u64) -> Estimate {
        share_of(&replicate(seed, replications, |stream| {
            let mut sum = 0;
            (0..loops).any(|_| {
                sum = self.next(sum, stream.coin(loss));
                sum >= self.alarm
            })
        }))
    }

    fn simulate(self, loss: f64, replications: u64, seed: u64) -> Estimate {
        mean_of(&replicate(seed, replications, |stream| {
            run_once(self, loss, stream)
        }))
    }
}

/// Seconds in which the curve of alarms wants one.
const WINDOW_S: f64 = 10.0;

/// Least share of false alarms that the picture shows: in 10 s, one in three years.
const ROC_FROM: f64 = 1e-7;

/// Loops in it at most: every threshold of the curve goes through them.
const WINDOW_MAX: f64 = 1e5;

/// The whole study.
///
/// # Errors
///
/// [`RunError::Usage`] if false alarms can't be as rare as that, or the study would take too long.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "loops of ten seconds"
)]
pub fn run(settings: &Blending, seed: u64) -> Result<Outcome, RunError> {
    let Blending {
        loops_per_s,
        loss,
        blocked,
        replications,
        ..
    } = *settings;
    let wanted = settings.days_between_false_alarms * 86_400.0 * loops_per_s;
    let attacked = |loss: f64, blocked: f64| loss + (1.0 - loss) * blocked;
    bound(
        "loops in 10 s",
        loops_per_s * WINDOW_S,
        WINDOW_MAX,
        "--loops-per-s",
    )?;
    let detector = tuned(loss, wanted)?;
    let each = detector.run_length(attacked(loss, blocked)) + loops_per_s * WINDOW_S;
    let lower = "--replications or --loops-per-s, or block more";
    bound("loops to play", each * replications as f64, WORK_MAX, lower)?;
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
        let seconds = tuned(natural, wanted)?.run_length(attacked(natural, blocked));
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
        roc_from(ROC_FROM, rates)
    };
    let mut curves: Vec<_> = [0.2, 0.5, 0.9]
        .map(|blocked| line(&format!("{:.0} % blocked", blocked * 100.0), curve(blocked)))
        .into();
    curves.push(chance_from(ROC_FROM));
    Ok(Outcome {
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
                    Series {
                        name: "simulated".to_owned(),
                        mark: Mark::Dots,
                        points: vec![(blocked, seconds.value)],
                    },
                ],
            ),
            plot(
                "Alarms within 10 s",
                "Share of attacks noticed within 10 s of their start, over the share of quiet 10 s with an alarm, as the threshold falls; computed. The left end has all that is noticed with fewer.",
                ["false alarms", "attacks noticed"],
                curves,
            ),
        ],
        ..Outcome::default()
    })
}
