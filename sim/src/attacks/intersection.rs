//! Intersection: whoever was offline when the target's message came is not the target.
//!
//! The others are online in sessions: a two-state chain with stationary probability `online` and a
//! mean session of `session` rounds; 1/(1 − online) of them is no memory at all, the case of the closed
//! form. With *habits* each is online for one stretch of every day, a share `online` of it, which begins at a
//! time of its own, give or take `LATE` of a day; messages come at a uniform time of the target's stretch. Those
//! who keep the same hours as the target stay candidates for long. With mailboxes that keep messages for those who are offline, delivery does not depend on
//! presence and no round excludes anyone: the set stays whole.

use super::{each, estimate, figure, line, median, plot, reference, replicate, until};
use crate::{
    closed,
    outcome::Outcome,
    random::Stream,
    stats::{Estimate, mean},
};

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Intersection {
    /// Users, the target among them, ≥ 2.
    pub users: usize,
    /// Share of time that each other user is online, 0 to 1.
    pub online: f64,
    /// Mean length of a session in rounds, ≥ 1; 0 for no memory between rounds.
    pub session: f64,
    /// Whether the others are online at the same hours every day; then `session` is not used.
    pub habits: bool,
    /// Whether mailboxes keep messages for users who are offline.
    pub mailboxes: bool,
    /// Rounds after which the attacker gives up.
    pub rounds: u32,
    /// Independent attacks.
    pub replications: u64,
}

impl Intersection {
    fn has_memory(&self) -> bool {
        self.session > 0.0
    }
}

/// How much earlier or later than usual somebody comes online at most, in days.
const LATE: f64 = 0.05;

/// The same where everyone has habits.
fn attack_habits(settings: &Intersection, stream: &mut Stream) -> Vec<usize> {
    let online = settings.online;
    let mut begins: Vec<f64> = (1..settings.users).map(|_| stream.uniform()).collect();
    let mut left = vec![settings.users];
    for _ in 0..settings.rounds {
        let at = online * stream.uniform();
        if !settings.mailboxes {
            begins.retain(|begin| {
                let late = LATE * (2.0 * stream.uniform() - 1.0);
                (at - begin - late).rem_euclid(1.0) < online
            });
        }
        left.push(begins.len() + 1);
        if begins.is_empty() {
            break;
        }
    }
    left
}

/// Candidates left after each round, until the target is alone; the first entry is all.
fn attack(settings: &Intersection, stream: &mut Stream) -> Vec<usize> {
    if settings.habits {
        return attack_habits(settings, stream);
    }
    let p = settings.online;
    let (stay, back) = if settings.has_memory() {
        let leave = 1.0 / settings.session;
        (1.0 - leave, (leave * p / (1.0 - p)).min(1.0))
    } else {
        (p, p)
    };
    let mut others: Vec<bool> = (1..settings.users).map(|_| stream.coin(p)).collect();
    let mut left = vec![settings.users];
    for _ in 0..settings.rounds {
        if !settings.mailboxes {
            others.retain(|online| *online);
        }
        left.push(others.len() + 1);
        if others.is_empty() {
            break;
        }
        for online in &mut others {
            *online = stream.coin(if *online { stay } else { back });
        }
    }
    left
}

fn study(settings: &Intersection, seed: u64) -> Vec<Vec<Vec<usize>>> {
    replicate(seed, settings.replications, |stream| {
        attack(settings, stream)
    })
}

#[expect(clippy::cast_precision_loss, reason = "rounds in memory")]
fn rounds_until_alone(left: &[usize]) -> f64 {
    match left.last() {
        Some(1) => (left.len() - 1) as f64,
        _ => f64::INFINITY,
    }
}

/// Mean rounds until the target is alone; infinite if an attack gave up.
#[must_use]
pub fn rounds(settings: &Intersection, seed: u64) -> Estimate {
    let found = study(settings, seed);
    estimate(&each(&found, |left| rounds_until_alone(left)), mean)
}

/// The whole study.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "sizes in memory")]
pub fn run(settings: &Intersection, seed: u64) -> Outcome {
    let found = study(settings, seed);
    let independent = !settings.has_memory() && !settings.habits;
    let expected = (independent && !settings.mailboxes)
        .then(|| closed::intersection_rounds(settings.users as f64, settings.online));
    let rounds = each(&found, |left| rounds_until_alone(left));
    let most = f64::from(settings.rounds);
    let [mean_rounds, gave_up] = until(&rounds, most, mean);
    let [median, _] = until(&rounds, most, median);
    let longest = found.iter().flatten().map(Vec::len).max().unwrap_or(1);
    let all: Vec<&Vec<usize>> = found.iter().flatten().collect();
    let size = |round: usize| {
        let sizes: Vec<f64> = all
            .iter()
            .map(|left| *left.get(round).or(left.last()).unwrap_or(&1) as f64)
            .collect();
        mean(&sizes)
    };
    let shown: Vec<usize> = (0..longest).step_by(longest.div_ceil(60)).collect();
    let mut series = vec![line(
        "candidates",
        shown
            .iter()
            .map(|round| (*round as f64, size(*round)))
            .collect(),
    )];
    if expected.is_some() {
        let law = |round: usize| {
            let others = settings.users as f64 - 1.0;
            1.0 + others * (round as f64 * settings.online.ln()).exp()
        };
        let points = shown.iter().map(|round| (*round as f64, law(*round)));
        series.push(reference("1 + (N − 1) pʳ", points.collect()));
    }
    Outcome {
        figures: vec![
            figure(
                "rounds_mean",
                "rounds until alone, mean",
                mean_rounds,
                expected,
            ),
            figure("rounds_median", "rounds until alone, median", median, None),
            figure("gave_up", "attacks that gave up", gave_up, None),
        ],
        plots: vec![plot(
            "Candidates left",
            "Mean number of users who were online in every round so far, the target included.",
            ["round", "users"],
            series,
        )],
        ..Outcome::default()
    }
}
