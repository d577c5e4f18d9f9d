//! Statistical disclosure (Danezis 2003): sums what receivers get in the rounds in which the target
//! sends, and takes those with most.
//!
//! | defence  | the attacker sees                                                              |
//! |----------|--------------------------------------------------------------------------------|
//! | none     | in which rounds the target sends, and who receives how much                      |
//! | sender   | the target send in every round: idle payload slots carry drops                   |
//! | both     | besides, of receivers only their gateway: downstream links run at constant rate   |
//!
//! A round holds `batch` messages. With probability `active` one of them is the target's, to a friend;
//! the others go to uniform receivers. Approximation: rounds are independent, and a round
//! holds the whole delay of its messages.

use super::{each, estimate, figure, line, median, plot, replicate, until};
use crate::{
    closed,
    outcome::{Figure, Outcome},
    random::Stream,
    stats::Estimate,
};

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Disclosure {
    /// Users that may receive.
    pub users: usize,
    /// Friends of the target, ≤ users.
    pub friends: usize,
    /// Messages of a round, all senders together.
    pub batch: usize,
    /// Share of rounds in which the target really sends, 0 to 1.
    pub active: f64,
    /// Gateways at which receivers have their mailboxes.
    pub gateways: usize,
    /// Rounds after which the attacker gives up.
    pub rounds: usize,
    /// Independent attacks.
    pub replications: u64,
}

/// What is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defence {
    /// Nothing.
    None,
    /// When the target sends.
    Sender,
    /// That, and what each receiver gets.
    Both,
}

impl Defence {
    /// All, in the order of the table.
    pub const ALL: [(&'static str, Defence); 3] = [
        ("none", Defence::None),
        ("sender", Defence::Sender),
        ("both", Defence::Both),
    ];
}

/// Share of the friends that counts as success.
const FOUND: f64 = 0.8;

/// Rounds at which the attacker looks: a tenth more each time.
pub(super) fn looks(most: usize) -> Vec<usize> {
    let mut looks = vec![10.min(most)];
    while let Some(last) = looks.last().copied().filter(|last| *last < most) {
        looks.push((last + last.div_ceil(10)).min(most));
    }
    looks
}

/// Share of friends among the first guesses, at each look.
fn attack(
    settings: &Disclosure,
    defence: Defence,
    looks: &[usize],
    stream: &mut Stream,
) -> Vec<f64> {
    let Disclosure {
        users,
        friends,
        batch,
        active,
        gateways,
        ..
    } = *settings;
    let mut seen = vec![0i64; users];
    let mut found = Vec::with_capacity(looks.len());
    let mut round = 0;
    // By index, the first are the friends; guesses among equals are drawn by an order of their own.
    let order: Vec<f64> = (0..users).map(|_| stream.uniform()).collect();
    for look in looks {
        while round < *look {
            round += 1;
            let sends = stream.coin(active);
            if sends {
                seen[stream.index(friends)] += 1;
            }
            // Without cover only rounds with a message count; the others are the background, which
            // is uniform and says nothing.
            let others = batch - usize::from(sends);
            for _ in 0..others {
                let to = stream.index(users);
                if sends || defence != Defence::None {
                    seen[to] += 1;
                }
            }
        }
        let score: Vec<i64> = match defence {
            Defence::Both => {
                let mut by_gateway = vec![0; gateways];
                (0..users).for_each(|user| by_gateway[user % gateways] += seen[user]);
                (0..users).map(|user| by_gateway[user % gateways]).collect()
            }
            Defence::None | Defence::Sender => seen.clone(),
        };
        let mut guesses: Vec<usize> = (0..users).collect();
        guesses.sort_by(|a, b| {
            score[*b]
                .cmp(&score[*a])
                .then(order[*a].total_cmp(&order[*b]))
        });
        let right = guesses[..friends]
            .iter()
            .filter(|user| **user < friends)
            .count();
        found.push(share(right, friends));
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "counts in memory")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// Median rounds to 80 % of the friends under `defence`; infinite where most attacks give up.
#[must_use]
pub fn rounds(settings: &Disclosure, defence: Defence, seed: u64) -> Estimate {
    let looks = looks(settings.rounds);
    let found = replicate(seed, settings.replications, |stream| {
        attack(settings, defence, &looks, stream)
    });
    estimate(&rounds_needed(&found, &looks), median)
}

/// Rounds to 80 % of the friends; infinite for those that gave up.
#[expect(clippy::cast_precision_loss, reason = "rounds in memory")]
pub(super) fn rounds_needed(found: &[Vec<Vec<f64>>], looks: &[usize]) -> Vec<Vec<f64>> {
    each(found, |found| {
        let at = found.iter().position(|share| *share >= FOUND);
        at.map_or(f64::INFINITY, |at| looks[at] as f64)
    })
}

/// What attacks against one defence found, after so many rounds at most.
#[expect(clippy::cast_precision_loss, reason = "rounds in memory")]
pub(super) fn found_figures(name: &str, found: &[Vec<Vec<f64>>], looks: &[usize]) -> [Figure; 3] {
    let most = looks.last().map_or(0.0, |most| *most as f64);
    let [rounds, gave_up] = until(&rounds_needed(found, looks), most, median);
    let last = estimate(found, |all| {
        all.iter().filter_map(|found| found.last()).sum::<f64>() / all.len() as f64
    });
    [
        ("rounds", "rounds to 80 % of the friends", rounds),
        ("gave_up", "attacks that gave up", gave_up),
        ("found", "friends found at the end", last),
    ]
    .map(|(figure_name, label, estimate)| {
        let (name, label) = (
            format!("{figure_name}_cover_{name}"),
            format!("{label}, cover: {name}"),
        );
        figure(&name, &label, estimate, None)
    })
}

/// The whole study: rounds to success and the friends found over rounds, per defence.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "sizes in memory")]
pub fn run(settings: &Disclosure, seed: u64) -> Outcome {
    let looks = looks(settings.rounds);
    let (mut figures, mut series) = (Vec::new(), Vec::new());
    for (name, defence) in Defence::ALL {
        let found = replicate(seed, settings.replications, |stream| {
            attack(settings, defence, &looks, stream)
        });
        figures.extend(found_figures(name, &found, &looks));
        let mean_at = |at: usize| {
            let all: Vec<f64> = found.iter().flatten().map(|found| found[at]).collect();
            crate::stats::mean(&all)
        };
        let points = looks
            .iter()
            .enumerate()
            .map(|(at, look)| (*look as f64, mean_at(at)));
        series.push(line(&format!("cover: {name}"), points.collect()));
    }
    let formula = closed::disclosure_rounds(
        settings.friends as f64,
        settings.batch as f64,
        settings.users as f64,
        2.0,
    );
    let label = "Danezis' rounds without cover, 95 % a receiver";
    figures.push(figure(
        "rounds_formula",
        label,
        Estimate::exact(formula / settings.active),
        None,
    ));
    Outcome {
        figures,
        plots: vec![plot(
            "Friends found",
            "Mean share of the target's friends among the attacker's first guesses.",
            ["rounds", "share of friends"],
            series,
        )],
        ..Outcome::default()
    }
}
