//! What attacks achieve, where a formula says so.

use super::laws::{poisson_end, poisson_pmf, poisson_tail};

/// Probability that all mixes of a path are corrupt when each is, independently, with
/// probability `share`.
#[must_use]
pub fn path_compromise(share: f64, layers: u32) -> f64 {
    share.powi(layers.cast_signed())
}

/// The same when `corrupt` of `nodes` are drawn without replacement and every node is used.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "nodes fit in memory")]
pub fn path_compromise_drawn(nodes: u64, layers: u64, corrupt: u64) -> f64 {
    (0..layers)
        .map(|i| corrupt.saturating_sub(i) as f64 / (nodes - i) as f64)
        .product()
}

/// Probability that at least one of `messages` meets something of probability `each`.
#[must_use]
pub fn ever(each: f64, messages: f64) -> f64 {
    -(messages * (-each).ln_1p()).exp_m1()
}

/// Probability that an attacker who blocks a share `blocked` for `window_s` loses at least one
/// of the loops sent at `per_s`.
#[must_use]
pub fn loop_detection(per_s: f64, window_s: f64, blocked: f64) -> f64 {
    -(-per_s * window_s * blocked).exp_m1()
}

/// False and true positive rate of an alarm on more than `threshold` missing loops, when links
/// lose a share `loss` and the attacker blocks a share `blocked` of the rest.
#[must_use]
pub fn loop_alarm(loops: f64, loss: f64, blocked: f64, threshold: u64) -> (f64, f64) {
    let attacked = loss + (1.0 - loss) * blocked;
    (
        poisson_tail(loops * loss, threshold),
        poisson_tail(loops * attacked, threshold),
    )
}

/// Probability that at least `missing` of `loops` are lost when each is with probability `p`.
#[must_use]
pub fn binomial_at_least(loops: u32, p: f64, missing: u32) -> f64 {
    let mut term = (1.0 - p).powi(loops.cast_signed());
    let mut below = 0.0;
    for k in 0..missing {
        below += term;
        term *= f64::from(loops - k) / f64::from(k + 1) * p / (1.0 - p);
    }
    1.0 - below
}

/// Success of an (n−1) attack on a Loopix mix: `s μ / (s λ_M + λ_R)` (Piotrowska et al. 2017).
#[must_use]
pub fn loopix_blending(s: f64, mu: f64, mix_loops: f64, rest: f64) -> f64 {
    s * mu / (s * mix_loops + rest)
}

/// Loopix theorems 1 and 2 for the observation (n, k, l): the probability that the next packet
/// to leave is (one given packet of the n that came first, one given of the l, a mix loop).
/// Theorem 1 is `mix_loops = 0`.
#[must_use]
pub fn loopix_theorem(n: f64, k: f64, l: f64, mu: f64, mix_loops: f64) -> (f64, f64, f64) {
    let all = (k + l) * mu + mix_loops;
    (k / n * mu / all, mu / all, mix_loops / all)
}

/// Rounds of statistical disclosure (Danezis 2003) against `friends` of one sender among
/// `users`, `batch` messages a round, at `l` standard deviations.
#[must_use]
pub fn disclosure_rounds(friends: f64, batch: f64, users: f64, l: f64) -> f64 {
    let background = (users - 1.0) / (users * users) * (batch - 1.0);
    let signal = (friends - 1.0) / (friends * friends);
    (friends * l * (background.sqrt() + (background + signal).sqrt())).powi(2)
}

/// Mean squared error per user of least-squares disclosure (after Pérez-González and Troncoso),
/// `senders` equal senders, each with `friends` equal friends, `batch` messages a round.
#[must_use]
pub fn least_squares_error(senders: f64, friends: f64, batch: f64, rounds: f64) -> f64 {
    let spread = 1.0 - 1.0 / friends;
    (senders - 1.0 + 1.0 / batch) * spread / rounds
}

/// Expected rounds until an intersection attack leaves the target alone among `users`, each
/// other online with probability `online` in each round: Σ 1 − (1 − p^r)^(N−1).
#[must_use]
pub fn intersection_rounds(users: f64, online: f64) -> f64 {
    let mut power: f64 = 1.0;
    let mut rounds = 0.0;
    loop {
        let others = if power == 1.0 {
            1.0
        } else {
            -((users - 1.0) * (-power).ln_1p()).exp_m1()
        };
        rounds += others;
        if others < 1e-13 {
            return rounds;
        }
        power *= online;
    }
}

/// Rounds after which the target is alone with probability at least one half.
#[must_use]
pub fn intersection_median(users: f64, online: f64) -> u32 {
    let mut rounds = 1;
    while (1.0 - online.powi(rounds)).powf(users - 1.0) < 0.5 {
        rounds += 1;
    }
    rounds.cast_unsigned()
}

/// δ(ε) of hiding one message in a Poisson count of cover with this mean, both directions.
#[must_use]
pub fn cover_delta(mean: f64, epsilon: f64) -> f64 {
    let grow = epsilon.exp();
    let (mut more, mut less) = (0.0, 0.0);
    let mut before = 0.0;
    for n in 0..poisson_end(mean) {
        let here = poisson_pmf(mean, n);
        more += (before - grow * here).max(0.0);
        less += (here - grow * before).max(0.0);
        before = here;
    }
    more.max(less)
}

/// The anonymity trilemma (Das et al. 2018), synchronised users: δ ≥ 1 − f(l),
/// f(l) = min(1, (l + β N l) / (N − 1)).
#[must_use]
pub fn trilemma_synchronised(users: f64, rounds: f64, cover: f64) -> f64 {
    1.0 - spread(users, rounds, cover)
}

fn spread(users: f64, rounds: f64, cover: f64) -> f64 {
    ((rounds + cover * users * rounds) / (users - 1.0)).min(1.0)
}

/// The same for unsynchronised users who send with probability `p` per round.
#[must_use]
pub fn trilemma_unsynchronised(p: f64, rounds: i32) -> f64 {
    0.5 - (1.0 - (1.0 - p).powi(rounds)).min(0.5)
}

/// The same with `corrupt` of `parties` compromised, `rounds` latency, synchronised.
#[must_use]
pub fn trilemma_compromised(
    users: f64,
    rounds: u32,
    cover: f64,
    corrupt: u32,
    parties: u32,
) -> f64 {
    let f = |rounds: u32| spread(users, f64::from(rounds), cover);
    if corrupt >= rounds {
        1.0 - (1.0 - choose(corrupt, rounds) / choose(parties, rounds)) * f(rounds)
    } else {
        1.0 - (1.0 - 1.0 / choose(parties, corrupt)) * f(corrupt) - f(rounds - corrupt)
    }
}

fn choose(n: u32, k: u32) -> f64 {
    (0..k)
        .map(|i| f64::from(n - i) / f64::from(i + 1))
        .product()
}
