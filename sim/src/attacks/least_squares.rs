//! Least-squares disclosure (Pérez-González and Troncoso 2012): who are everyone's friends, at once?
//!
//! The attacker counts what each sender sends (U, rounds × senders) and what each receiver gets
//! (Y, rounds × receivers), and solves P̂ = (UᵀU)⁻¹ UᵀY. A sender's row of P̂ estimates with what
//! probability each of its messages goes to each receiver; the largest entries are taken for its friends.
//!
//! | cover  | U                                          | Y                              |
//! |--------|--------------------------------------------|--------------------------------|
//! | none   | messages sent in the round                 | messages got in the round      |
//! | sender | payload slots, whether or not they carry one | the same                     |
//! | both   | payload slots                              | the same, a gateway's users together |
//!
//! With `batch` messages a round by uniform senders and `friends` equal friends each, the expected error
//! per user, summed over receivers, is that of [`closed::least_squares_error`] times
//! ρ/(ρ − senders − 1), the mean of an inverse Wishart matrix: exact for normal counts, here an
//! approximation below the errors of any run made. With cover a message waits in its sender's
//! queue for a slot of a Poisson process. Approximation: a round holds the whole delay of its packets.

use std::collections::BTreeSet;

use super::{
    disclosure::{Defence, found_figures, looks, rounds_needed},
    each, estimate, figure, line, mean_of, median, plot, replicate,
};
use crate::{
    closed,
    outcome::Outcome,
    random::Stream,
    stats::{Estimate, mean},
};

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct LeastSquares {
    /// Users that send, ≥ 2.
    pub senders: usize,
    /// Users that receive.
    pub receivers: usize,
    /// Friends of each sender, ≤ receivers.
    pub friends: usize,
    /// Messages of a round, all senders together.
    pub batch: usize,
    /// Payload slots of each sender per round, where there is cover; above batch / senders.
    pub slots: f64,
    /// Gateways at which receivers have their mailboxes.
    pub gateways: usize,
    /// Rounds after which the attacker gives up, above senders + 1.
    pub rounds: usize,
    /// Independent attacks.
    pub replications: u64,
}

/// What the attacker has counted.
struct Seen {
    senders: usize,
    receivers: usize,
    /// UᵀU, row by row.
    squares: Vec<f64>,
    /// UᵀY, row by row.
    products: Vec<f64>,
}

impl Seen {
    fn new(settings: &LeastSquares) -> Self {
        let LeastSquares {
            senders, receivers, ..
        } = *settings;
        Self {
            senders,
            receivers,
            squares: vec![0.0; senders * senders],
            products: vec![0.0; senders * receivers],
        }
    }

    fn round(&mut self, sent: &[(usize, f64)], got: &[usize]) {
        for (i, u) in sent {
            for (j, v) in sent {
                self.squares[i * self.senders + j] += u * v;
            }
            for to in got {
                self.products[i * self.receivers + to] += u;
            }
        }
    }

    /// The lower triangle of the Cholesky factor; what no round has told yet is held near 0.
    fn factor(&self) -> Vec<f64> {
        let n = self.senders;
        let trace: f64 = (0..n).map(|i| self.squares[i * n + i]).sum();
        let mut l = self.squares.clone();
        for j in 0..n {
            for i in j..n {
                let known: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
                let rest = l[i * n + j] - known;
                l[i * n + j] = if i == j {
                    rest.max(1e-9 * trace + 1e-300).sqrt()
                } else {
                    rest / l[j * n + j]
                };
            }
        }
        l
    }

    /// Row `of` of P̂.
    fn profile(&self, factor: &[f64], of: usize) -> Vec<f64> {
        let n = self.senders;
        let mut w = vec![0.0; n];
        w[of] = 1.0;
        for i in 0..n {
            let known: f64 = (0..i).map(|k| factor[i * n + k] * w[k]).sum();
            w[i] = (w[i] - known) / factor[i * n + i];
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|k| factor[k * n + i] * w[k]).sum();
            w[i] = (w[i] - known) / factor[i * n + i];
        }
        let mut row = vec![0.0; self.receivers];
        for (weight, products) in w.iter().zip(self.products.chunks(self.receivers)) {
            for (entry, product) in row.iter_mut().zip(products) {
                *entry += weight * product;
            }
        }
        row
    }
}

/// One attack: the share of the first sender's friends found at each look, and the error at the end.
struct Attacked {
    found: Vec<f64>,
    error: f64,
}

#[expect(clippy::cast_precision_loss, reason = "counts in memory")]
fn attack(
    settings: &LeastSquares,
    defence: Defence,
    looks: &[usize],
    stream: &mut Stream,
) -> Attacked {
    let LeastSquares {
        senders,
        receivers,
        friends,
        batch,
        slots,
        gateways,
        ..
    } = *settings;
    let circles: Vec<Vec<usize>> = (0..senders)
        .map(|_| {
            let mut circle = BTreeSet::new();
            while circle.len() < friends {
                circle.insert(stream.index(receivers));
            }
            circle.into_iter().collect()
        })
        .collect();
    let order: Vec<f64> = (0..receivers).map(|_| stream.uniform()).collect();
    let mut waiting = vec![0usize; senders];
    let mut seen = Seen::new(settings);
    let mut found = Vec::with_capacity(looks.len());
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    let mut round = 0;
    for look in looks {
        while round < *look {
            round += 1;
            for _ in 0..batch {
                waiting[stream.index(senders)] += 1;
            }
            sent.clear();
            got.clear();
            for (i, queue) in waiting.iter_mut().enumerate() {
                let seen = match defence {
                    Defence::None => *queue,
                    Defence::Sender | Defence::Both => stream.poisson(slots),
                };
                let real = seen.min(*queue);
                *queue -= real;
                if seen > 0 {
                    sent.push((i, seen as f64));
                }
                got.extend((0..real).map(|_| circles[i][stream.index(friends)]));
            }
            seen.round(&sent, &got);
        }
        let factor = seen.factor();
        let row = seen.profile(&factor, 0);
        let score: Vec<f64> = match defence {
            Defence::None | Defence::Sender => row,
            Defence::Both => {
                let mut by_gateway = vec![0.0; gateways];
                (0..receivers).for_each(|to| by_gateway[to % gateways] += row[to]);
                (0..receivers).map(|to| by_gateway[to % gateways]).collect()
            }
        };
        let mut guesses: Vec<usize> = (0..receivers).collect();
        guesses.sort_by(|a, b| {
            score[*b]
                .total_cmp(&score[*a])
                .then(order[*a].total_cmp(&order[*b]))
        });
        let right = guesses[..friends]
            .iter()
            .filter(|to| circles[0].contains(to))
            .count();
        found.push(right as f64 / friends as f64);
    }
    let factor = seen.factor();
    let error = |of: usize| -> f64 {
        let row = seen.profile(&factor, of);
        let truth = |to| {
            if circles[of].contains(&to) {
                1.0 / friends as f64
            } else {
                0.0
            }
        };
        let squares = row.iter().enumerate();
        squares.map(|(to, p)| (p - truth(to)).powi(2)).sum()
    };
    let errors: Vec<f64> = (0..senders).map(error).collect();
    Attacked {
        found,
        error: mean(&errors),
    }
}

/// What theory says of the error per user without cover.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts in memory")]
pub fn expected_error(settings: &LeastSquares) -> f64 {
    let [senders, friends, batch, rounds] = [
        settings.senders,
        settings.friends,
        settings.batch,
        settings.rounds,
    ]
    .map(|n| n as f64);
    closed::least_squares_error(senders, friends, batch, rounds) * rounds / (rounds - senders - 1.0)
}

/// Squared error per user after all rounds, without cover, summed over receivers.
#[must_use]
pub fn error(settings: &LeastSquares, seed: u64) -> Estimate {
    let looks = [settings.rounds];
    mean_of(&replicate(seed, settings.replications, |stream| {
        attack(settings, Defence::None, &looks, stream).error
    }))
}

/// Median rounds to 80 % of the first sender's friends; infinite where most attacks give up.
#[must_use]
pub fn rounds(settings: &LeastSquares, defence: Defence, seed: u64) -> Estimate {
    let looks = looks(settings.rounds);
    let found = replicate(seed, settings.replications, |stream| {
        attack(settings, defence, &looks, stream).found
    });
    estimate(&rounds_needed(&found, &looks), median)
}

/// The whole study.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "sizes in memory")]
pub fn run(settings: &LeastSquares, seed: u64) -> Outcome {
    let looks = looks(settings.rounds);
    let (mut figures, mut series) = (Vec::new(), Vec::new());
    for (name, defence) in Defence::ALL {
        let attacks = replicate(seed, settings.replications, |stream| {
            let attacked = attack(settings, defence, &looks, stream);
            (attacked.found, attacked.error)
        });
        let found = each(&attacks, |(found, _)| found.clone());
        figures.extend(found_figures(name, &found, &looks));
        if defence == Defence::None {
            let error = estimate(&attacks, |all| {
                mean(&all.iter().map(|(_, error)| *error).collect::<Vec<_>>())
            });
            figures.push(figure(
                "squared_error",
                "squared error per user, cover: none",
                error,
                Some(expected_error(settings)),
            ));
        }
        let mean_at = |at: usize| {
            let all: Vec<f64> = found.iter().flatten().map(|found| found[at]).collect();
            mean(&all)
        };
        let points = looks
            .iter()
            .enumerate()
            .map(|(at, look)| (*look as f64, mean_at(at)));
        series.push(line(&format!("cover: {name}"), points.collect()));
    }
    Outcome {
        figures,
        plots: vec![plot(
            "Friends found",
            "Mean share of one sender's friends among the attacker's first guesses.",
            ["rounds", "share of friends"],
            series,
        )],
        ..Outcome::default()
    }
}
