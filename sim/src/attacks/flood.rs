//! A flooded mailbox: loops come back late, and a client that counts them by the clock takes that for an
//! attack. Counted by storage order it is none.
//!
//! | counting | a loop is lost                                                                  |
//! |----------|----------------------------------------------------------------------------------|
//! | `clock`  | `patience_s` after it was due and not yet read                                   |
//! | `order`  | once a packet that was stored `patience_s` after it was due has been read         |
//! | `gaps`   | the same, but none that was due around packets that were refused (CLI-6)          |
//!
//! Loops, what others send and the flood are Poisson and stand in one queue, which the downstream
//! empties at its constant rate. Verdicts go to the sequential test of [`blending`](super::blending).
//! *Blocked*: besides, the attacker blocks a share of what is stored from `flood_s` on: counting by order must
//! still notice. A full mailbox refuses packets, loops among them; the next one that it takes shows by its number that
//! some were.

use std::collections::VecDeque;

use super::{
    WORK_MAX,
    blending::{Detector, detector, tuned},
    bound, estimate, figure, line, median, plot, replicate, until,
};
use crate::{
    outcome::{Outcome, RunError},
    random::Stream,
    stats::Estimate,
};

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Loops per second.
    pub loops_per_s: f64,
    /// What others send, per second.
    pub inbound_per_s: f64,
    /// Downstream frames per second.
    pub downstream_per_s: f64,
    /// Packets of the flood per second.
    pub flood_per_s: f64,
    /// Length of the flood, in seconds.
    pub flood_s: f64,
    /// Packets that the mailbox holds.
    pub quota: usize,
    /// How much later than due, in seconds.
    pub patience_s: f64,
    /// Share of loops that links lose, above 0.
    pub loss: f64,
    /// Share of what would be stored that the attacker blocks from the end of the flood on.
    pub blocked: f64,
    /// Least mean time between false alarms, in days.
    pub days_between_false_alarms: f64,
    /// Length of the run, in seconds.
    pub seconds: f64,
    /// Independent runs.
    pub replications: u64,
}

/// How lost loops are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// By the clock.
    Clock,
    /// By the order in which the mailbox stored.
    Order,
    /// By that order and by the numbers that are left out: what a client does.
    Gaps,
}

impl Counting {
    /// All, in the order of the table.
    pub const ALL: [(&'static str, Counting); 3] = [
        ("clock", Counting::Clock),
        ("order", Counting::Order),
        ("gaps", Counting::Gaps),
    ];
}

/// Packets that the mailbox holds, at most: some hundred megabytes for each thread.
const HELD_MAX: f64 = 1e7;

/// Something stored: when, which loop it is, and whether packets were refused before it.
type Stored = (f64, Option<usize>, bool);

impl Flood {
    /// When the first alarm is raised, in seconds, if one is.
    fn alarm(&self, counting: Counting, detector: Detector, stream: &mut Stream) -> Option<f64> {
        let total = self.loops_per_s + self.inbound_per_s + self.flood_per_s;
        let quiet = self.loops_per_s + self.inbound_per_s;
        let mut queue: VecDeque<Stored> = VecDeque::new();
        // Loops under way in the order in which they are due; read or judged ones are `None`.
        let mut due: VecDeque<Option<f64>> = VecDeque::new();
        let mut judged = 0;
        let mut sum = 0;
        let mut refused = false;
        let (mut arrival, mut tick) = (0.0, stream.uniform() / self.downstream_per_s);
        let rate = |at: f64| if at < self.flood_s { total } else { quiet };
        loop {
            let now = tick.min(arrival);
            if now >= self.seconds {
                return None;
            }
            let mut lost = 0;
            let mut returned = false;
            if arrival <= tick {
                let kind = stream.uniform() * rate(arrival);
                let is_loop = kind < self.loops_per_s;
                let number = is_loop.then(|| judged + due.len());
                if is_loop {
                    due.push_back(Some(arrival));
                }
                let kept = 1.0
                    - if arrival >= self.flood_s {
                        self.blocked
                    } else {
                        0.0
                    };
                let gone = is_loop && stream.coin(self.loss);
                if !gone && stream.coin(kept) {
                    if queue.len() < self.quota {
                        queue.push_back((arrival, number, core::mem::take(&mut refused)));
                    } else {
                        refused = true;
                    }
                }
                arrival += stream.exponential() / rate(arrival);
            } else {
                if let Some((stored, number, gap)) = queue.pop_front() {
                    if gap && counting == Counting::Gaps {
                        // No verdict for those, should they still come.
                        self.judge(&mut due, &mut judged, stored + 2.0 * self.patience_s);
                    }
                    if let Some(slot) = number
                        .and_then(|n| n.checked_sub(judged))
                        .and_then(|at| due.get_mut(at))
                    {
                        returned = slot.take().is_some();
                    }
                    if counting != Counting::Clock {
                        lost += self.judge(&mut due, &mut judged, stored);
                    }
                }
                tick += 1.0 / self.downstream_per_s;
            }
            if counting == Counting::Clock {
                lost += self.judge(&mut due, &mut judged, now);
            }
            if returned {
                sum = detector.next(sum, false);
            }
            for _ in 0..lost {
                sum = detector.next(sum, true);
                if sum >= detector.alarm {
                    return Some(now);
                }
            }
        }
    }

    /// Drops loops that were due `patience_s` before `reached`; how many had not been read.
    fn judge(&self, due: &mut VecDeque<Option<f64>>, judged: &mut usize, reached: f64) -> usize {
        let mut lost = 0;
        while let Some(first) = due.front()
            && first.is_none_or(|at| at + self.patience_s <= reached)
        {
            lost += usize::from(first.is_some());
            due.pop_front();
            *judged += 1;
        }
        lost
    }

    fn detector(&self) -> Detector {
        detector(self.loss, self.loops_between())
    }

    /// Loops between two false alarms, on the mean.
    fn loops_between(&self) -> f64 {
        self.days_between_false_alarms * 86_400.0 * self.loops_per_s
    }

    /// Whether it fits into memory and patience.
    #[expect(clippy::cast_precision_loss, reason = "settings are bounded")]
    fn check(&self) -> Result<(), RunError> {
        let flood = self.flood_per_s * self.flood_s.min(self.seconds);
        let stored = flood + (self.loops_per_s + self.inbound_per_s) * self.seconds;
        let lower = "--flood-per-s, --flood-s, --inbound-per-s, --seconds or --quota";
        bound(
            "packets in the mailbox",
            stored.min(self.quota as f64),
            HELD_MAX,
            lower,
        )?;
        let run = stored + self.downstream_per_s * self.seconds;
        let runs = self.replications as f64 * Counting::ALL.len() as f64;
        let lower =
            "--flood-per-s, --inbound-per-s, --downstream-per-s, --seconds or --replications";
        bound("steps", run * runs, WORK_MAX, lower)
    }

    fn alarms(&self, counting: Counting, seed: u64) -> Vec<Vec<f64>> {
        let detector = self.detector();
        replicate(seed, self.replications, |stream| {
            let alarm = self.alarm(counting, detector, stream);
            alarm.unwrap_or(f64::INFINITY)
        })
    }

    /// Share of runs with an alarm.
    #[must_use]
    pub fn alarmed(&self, counting: Counting, seed: u64) -> Estimate {
        estimate(&self.alarms(counting, seed), share_of_alarms)
    }
}

#[expect(clippy::cast_precision_loss, reason = "runs in memory")]
fn share_of_alarms(alarms: &[f64]) -> f64 {
    alarms.iter().filter(|at| at.is_finite()).count() as f64 / alarms.len() as f64
}

/// The whole study.
///
/// # Errors
///
/// [`RunError::Usage`] if false alarms can't be as rare as that, or it would take too much memory or time.
pub fn run(settings: &Flood, seed: u64) -> Result<Outcome, RunError> {
    tuned(settings.loss, settings.loops_between())?;
    settings.check()?;
    let (mut figures, mut series) = (Vec::new(), Vec::new());
    for (name, counting) in Counting::ALL {
        let alarms = settings.alarms(counting, seed);
        let label = format!("runs with an alarm, loops counted by {name}");
        let share = estimate(&alarms, share_of_alarms);
        figures.push(figure(&format!("alarmed_{name}"), &label, share, None));
        let label = format!("first alarm, median (s), loops counted by {name}");
        let [median, _] = until(&alarms, settings.seconds, median);
        figures.push(figure(&format!("alarm_{name}_s"), &label, median, None));
        let all = alarms.concat();
        let grid = (0..=40).map(|i| settings.seconds * f64::from(i) / 40.0);
        let by = |t: f64| {
            let until: Vec<f64> = all
                .iter()
                .map(|at| if *at <= t { *at } else { f64::INFINITY })
                .collect();
            share_of_alarms(&until)
        };
        series.push(line(
            &format!("by {name}"),
            grid.map(|t| (t, by(t))).collect(),
        ));
    }
    Ok(Outcome {
        figures,
        plots: vec![plot(
            "Alarms",
            "Share of runs with an alarm so far; the flood starts at 0.",
            ["seconds", "share of runs"],
            series,
        )],
        ..Outcome::default()
    })
}
