//! PAUSE as an oracle: throttle one client, and see whose traffic stops.
//!
//! Of `candidates` mailboxes, all alike from outside, the victim writes to one. The attacker drops a share
//! of what the victim sends, counts what each mailbox gets in steps of [`STEP_S`], and names the one
//! whose counts fit best. It knows the client's policy, and scores by the likelihood ratio averaged over
//! [`PATHS`] courses that the policy may take: the best test of these counts, up to that average.
//!
//! | policy     | when loops are lost                                                              |
//! |------------|----------------------------------------------------------------------------------|
//! | `never`    | nothing: what throttling alone tells                                              |
//! | `naive`    | at once nothing real is sent for `pause_s`; again at the next alarm              |
//! | `deployed` | first alarm: another entry gateway, after a jittered wait; second: a warning; third: |
//! |            | PAUSE, begun after a jitter of up to `jitter_s`, lasting ½ to 1 `pause_s`, one per `apart_s`; |
//! |            | only if a node of the network says meanwhile that its loops are lost too         |
//!
//! Loops that were sent within `SETTLE_S` of an alarm don't count towards the next. (If they do,
//! one short throttling raises all three alarms before the change is through, and PAUSE tells what
//! throttling alone would not: in the first version of this study it named 27 % for 19 %.)
//!
//! An attacker *at the entry gateway* loses the victim with it; one on the victim's *access line* does not. Neither
//! makes a node lose loops; one who also has a node that says so, or who blocks one (`node_cries`), gets PAUSE.
//! The rules are those of docs/spec/loops.md, LOOP-6, LOOP-7 and LOOP-11, with the scenario's numbers. Alarms are the sequential test's
//! of [`blending`](super::blending); a loop's loss is known [`VERDICT_S`] after it was sent.

use super::{
    WORK_MAX,
    blending::{Detector, detector, tuned},
    bound, estimate, figure, line, mean_of, plot, reference, replicate,
};
use crate::{
    outcome::{Outcome, RunError},
    random::Stream,
    stats::Estimate,
};

/// Length of the attacker's counting steps, in seconds.
pub const STEP_S: f64 = 5.0;
/// Courses of the policy that the attacker averages over.
pub const PATHS: usize = 200;
/// From a loop's sending until it counts as lost, in seconds.
pub const VERDICT_S: f64 = 6.0;
/// Longest wait between an alarm and the change of the entry gateway, in seconds (LOOP-6).
const CHANGE_S: f64 = 30.0;
/// After an alarm no loop counts that was sent within so many seconds (LOOP-6).
const SETTLE_S: f64 = 45.0;

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// Mailboxes, ≥ 2.
    pub candidates: usize,
    /// Loops of the victim per second.
    pub loops_per_s: f64,
    /// What the victim sends to its correspondent, per second.
    pub real_per_s: f64,
    /// What each mailbox gets from others, per second; the others' gets `real_per_s` more from somebody else.
    pub background_per_s: f64,
    /// Share of loops that links lose, above 0.
    pub loss: f64,
    /// Share of what the victim sends that the attacker drops.
    pub throttled: f64,
    /// How long, in seconds.
    pub throttle_s: f64,
    /// How long the attacker counts, in seconds.
    pub watch_s: f64,
    /// Longest PAUSE, in seconds.
    pub pause_s: f64,
    /// Largest wait before it, in seconds.
    pub jitter_s: f64,
    /// Least time between two, in seconds.
    pub apart_s: f64,
    /// Whether the attacker is on the victim's access line, not at its entry gateway.
    pub on_access_line: bool,
    /// Whether a node says all the while that its loops are lost: one of the attacker's, or one that it blocks.
    pub node_cries: bool,
    /// Independent attacks.
    pub replications: u64,
}

/// What a client does about lost loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    Never,
    /// Stops at once.
    Naive,
    /// Changes its entry gateway, warns, pauses if nodes lose loops too: bounded, jittered, rate-limited.
    Deployed,
}

impl Policy {
    /// All, in the order of the table.
    pub const ALL: [(&'static str, Policy); 3] = [
        ("never", Policy::Never),
        ("naive", Policy::Naive),
        ("deployed", Policy::Deployed),
    ];
}

/// Days between two false alarms for which clients are tuned.
const DAYS: f64 = 30.0;

/// Shares dropped that the picture shows.
const THROTTLED: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 1.0];

/// Steps of all courses together, at most: some hundred megabytes.
const HELD_MAX: f64 = 1e7;

impl Pause {
    fn detector(&self) -> Detector {
        detector(self.loss, self.loops_between())
    }

    /// Loops between two false alarms, on the mean.
    fn loops_between(&self) -> f64 {
        DAYS * 86_400.0 * self.loops_per_s
    }

    /// Whether there is such a detector, and the study fits into memory and patience.
    #[expect(clippy::cast_precision_loss, reason = "settings are bounded")]
    fn check(&self) -> Result<(), RunError> {
        tuned(self.loss, self.loops_between())?;
        let steps = self.watch_s / STEP_S;
        let held = PATHS as f64 * steps;
        bound("steps of all courses", held, HELD_MAX, "--watch-s")?;
        // Each candidate's counts are held against each course; a course goes loop by loop.
        let scores = self.candidates as f64 * steps * (PATHS as f64 + 1.0);
        let attack = scores + self.watch_s * self.loops_per_s;
        let attacks = self.replications as f64 * (Policy::ALL.len() * (THROTTLED.len() + 1)) as f64;
        let lower = "--watch-s, --candidates, --loops-per-s or --replications";
        bound("steps", attack * attacks, WORK_MAX, lower)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds of a study"
    )]
    fn steps(&self) -> usize {
        (self.watch_s / STEP_S).ceil() as usize
    }

    /// The share of the victim's real packets that arrives, in each step: one course of events. And the share
    /// of time that it pauses.
    #[expect(clippy::cast_precision_loss, reason = "steps in memory")]
    fn course(&self, policy: Policy, detector: Detector, stream: &mut Stream) -> (Vec<f64>, f64) {
        let end = self.steps() as f64 * STEP_S;
        let mut throttle_until = self.throttle_s;
        let mut pauses: Vec<(f64, f64)> = Vec::new();
        let (mut sum, mut alarms) = (0, 0);
        // Loops sent before say nothing of the entry gateway that is used from then on.
        let mut counted_from = 0.0;
        let mut at = 0.0;
        loop {
            at += stream.exponential() / self.loops_per_s;
            let known = at + VERDICT_S;
            if known >= end {
                break;
            }
            let blocked = at < throttle_until && stream.coin(self.throttled);
            let lost = blocked || stream.coin(self.loss);
            if at < counted_from {
                continue;
            }
            sum = detector.next(sum, lost);
            if sum < detector.alarm {
                continue;
            }
            sum = 0;
            alarms += 1;
            if policy == Policy::Deployed {
                counted_from = known + SETTLE_S;
            }
            let free = pauses.last().map_or(0.0, |(_, until)| *until);
            match policy {
                Policy::Never => {}
                Policy::Naive if known >= free => pauses.push((known, known + self.pause_s)),
                Policy::Deployed if alarms == 1 => {
                    let change = known + CHANGE_S * stream.uniform();
                    if !self.on_access_line {
                        throttle_until = throttle_until.min(change);
                    }
                }
                Policy::Deployed if alarms >= 3 && self.node_cries => {
                    let from = known + self.jitter_s * stream.uniform();
                    let lasts = self.pause_s * (0.5 + stream.uniform() / 2.0);
                    let before = pauses.last().map(|(from, _)| from + self.apart_s);
                    if before.is_none_or(|before| known >= before) {
                        pauses.push((from, from + lasts));
                    }
                }
                Policy::Naive | Policy::Deployed => {}
            }
        }
        let overlap = |a: (f64, f64), b: (f64, f64)| (a.1.min(b.1) - a.0.max(b.0)).max(0.0);
        let step = |i: usize| {
            let step = (i as f64 * STEP_S, (i + 1) as f64 * STEP_S);
            let paused: f64 = pauses.iter().map(|pause| overlap(step, *pause)).sum();
            let throttled = overlap(step, (0.0, throttle_until)) / STEP_S * self.throttled;
            (1.0 - paused / STEP_S) * (1.0 - throttled)
        };
        let shares = (0..self.steps()).map(step).collect();
        let paused: f64 = pauses.iter().map(|pause| overlap((0.0, end), *pause)).sum();
        (shares, paused / end)
    }

    /// For each course of the policy, ln of the factor by which one arrival in a step speaks for it, and what
    /// speaks against it in all.
    fn weights(&self, policy: Policy, seed: u64) -> Vec<(Vec<f64>, f64)> {
        let detector = self.detector();
        let usual = self.background_per_s + self.real_per_s;
        // Apart from the attacks' own streams: replications beyond any.
        let stream = |path| Stream::new(seed, u64::MAX - path, 0, crate::random::Purpose::Attack);
        let paths = (0..PATHS as u64).map(|path| {
            let (shares, _) = self.course(policy, detector, &mut stream(path));
            let rate = |share: &f64| self.background_per_s + self.real_per_s * share;
            let logs = shares
                .iter()
                .map(|share| (rate(share) / usual).max(1e-9).ln());
            let missing = shares
                .iter()
                .map(|share| (1.0 - share) * self.real_per_s * STEP_S);
            (logs.collect(), missing.sum())
        });
        paths.collect()
    }

    fn names_it(&self, policy: Policy, weights: &[(Vec<f64>, f64)], stream: &mut Stream) -> f64 {
        let (shares, _) = self.course(policy, self.detector(), stream);
        let score = |shares: Option<&Vec<f64>>, stream: &mut Stream| {
            let count = |step: usize, stream: &mut Stream| {
                let share = shares.map_or(1.0, |shares| shares[step]);
                let rate = self.background_per_s + self.real_per_s * share;
                #[expect(clippy::cast_precision_loss, reason = "packets of a step")]
                let count = stream.poisson(rate * STEP_S) as f64;
                count
            };
            let counts: Vec<f64> = (0..self.steps()).map(|step| count(step, stream)).collect();
            let terms: Vec<f64> = weights
                .iter()
                .map(|(logs, missing)| {
                    missing + counts.iter().zip(logs).map(|(n, log)| n * log).sum::<f64>()
                })
                .collect();
            let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            most + terms
                .iter()
                .map(|term| (term - most).exp())
                .sum::<f64>()
                .ln()
        };
        let own = score(Some(&shares), stream);
        let mut ties = 1.0;
        for _ in 1..self.candidates {
            let other = score(None, stream);
            if other > own {
                return 0.0;
            }
            if other.total_cmp(&own).is_eq() {
                ties += 1.0;
            }
        }
        1.0 / ties
    }

    /// How often the correspondent is named; by chance, in one of `candidates` attacks.
    #[must_use]
    pub fn named(&self, policy: Policy, seed: u64) -> Estimate {
        let weights = self.weights(policy, seed);
        mean_of(&replicate(seed, self.replications, |stream| {
            self.names_it(policy, &weights, stream)
        }))
    }

    /// Share of the time that the victim pauses: what the attack denies it.
    #[must_use]
    pub fn paused(&self, policy: Policy, seed: u64) -> Estimate {
        let detector = self.detector();
        let shares = replicate(seed, self.replications, |stream| {
            self.course(policy, detector, stream).1
        });
        estimate(&shares, crate::stats::mean)
    }
}

/// The whole study.
///
/// # Errors
///
/// [`RunError::Usage`] if false alarms can't be as rare as that, or it would take too much memory or time.
#[expect(clippy::cast_precision_loss, reason = "a few thousand candidates")]
pub fn run(settings: &Pause, seed: u64) -> Result<Outcome, RunError> {
    settings.check()?;
    let (mut figures, mut series) = (Vec::new(), Vec::new());
    for (name, policy) in Policy::ALL {
        let label = format!("correspondent named, policy: {name}");
        let named = settings.named(policy, seed);
        figures.push(figure(&format!("named_{name}"), &label, named, None));
        let label = format!("time in PAUSE, policy: {name}");
        let paused = settings.paused(policy, seed);
        figures.push(figure(&format!("paused_{name}"), &label, paused, None));
        let points = THROTTLED.map(|throttled| {
            let one = Pause {
                throttled,
                ..*settings
            };
            (throttled, one.named(policy, seed).value)
        });
        series.push(line(&format!("policy: {name}"), points.to_vec()));
    }
    let chance = 1.0 / settings.candidates as f64;
    let label = "correspondent named, by chance";
    figures.push(figure("chance", label, Estimate::exact(chance), None));
    series.push(reference("chance", vec![(0.1, chance), (1.0, chance)]));
    Ok(Outcome {
        figures,
        plots: vec![plot(
            "Correspondent named",
            "Share of attacks that name the victim's correspondent, over the share of the victim's packets that is dropped.",
            ["share dropped", "share of attacks"],
            series,
        )],
        ..Outcome::default()
    })
}
