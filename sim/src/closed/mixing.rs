//! Entropy of mixes: one Poisson mix exactly, networks in the limit, batches and pools.

use super::laws::{ln_factorial, poisson_end, poisson_pmf};
use crate::metrics::{coin_bits, shannon_bits};

/// What is known exactly of a message through one Poisson mix with `rho` packets on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SingleMix {
    /// `E[H]`, bits.
    pub entropy: f64,
    /// Standard deviation of H over messages.
    pub entropy_sd: f64,
    /// E[−log₂ max p], bits.
    pub min_entropy: f64,
    /// Its standard deviation.
    pub min_entropy_sd: f64,
}

/// Solves `x_n = (rho x_{n+1} + n (c_n + a_n x_{n-1})) / (rho + n)` for n = 1..=N with
/// `x_{N+1} = x_N`, by forward elimination and back substitution; index 0 is n = 1.
fn tridiagonal(
    rho: f64,
    size: usize,
    c: impl Fn(usize) -> f64,
    a: impl Fn(usize) -> f64,
) -> Vec<f64> {
    let mut upper = vec![0.0; size];
    let mut right = vec![0.0; size];
    for index in 0..size {
        #[expect(clippy::cast_precision_loss, reason = "pools fit in memory")]
        let n = (index + 1) as f64;
        let (up, down) = (rho / (rho + n), n / (rho + n));
        let (mut diagonal, mut value) = (1.0, down * c(index + 1));
        if index > 0 {
            let lower = down * a(index + 1);
            diagonal -= lower * upper[index - 1];
            value += lower * right[index - 1];
        }
        if index + 1 == size {
            diagonal -= up;
        } else {
            upper[index] = up / diagonal;
        }
        right[index] = value / diagonal;
    }
    for index in (0..size - 1).rev() {
        right[index] += upper[index] * right[index + 1];
    }
    right
}

/// One Poisson mix, exactly, for any `rho` > 0.
///
/// With n packets held and the target's mass spread evenly over them, the next event is an
/// arrival with probability ρ/(ρ+n), else a departure that takes 1/n of the mass. Chain rule:
/// `h_n = [ρ h_{n+1} + n (H_b(1/n) + (1 − 1/n) h_{n−1})] / (ρ + n)`, and a target finds
/// Poisson(ρ) packets before it (PASTA). Second moments follow the same way; the largest share
/// is that of the first departure, since arrivals only dilute.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "pools fit in memory")]
pub fn single_poisson_mix(rho: f64) -> SingleMix {
    let size = usize::try_from(poisson_end(rho)).expect("pools fit in memory") + 60;

    let bits = |n: usize| coin_bits(1.0 / n as f64);
    let rest = |n: usize| 1.0 - 1.0 / n as f64;
    let log = |n: usize| (n as f64).log2();
    let h = tridiagonal(rho, size, bits, rest);
    let before = |n: usize| if n > 1 { h[n - 2] } else { 0.0 };
    let h2 = tridiagonal(
        rho,
        size,
        |n| bits(n) * bits(n) + 2.0 * bits(n) * rest(n) * before(n),
        |n| rest(n) * rest(n),
    );
    let m = tridiagonal(rho, size, log, |_| 0.0);
    let m2 = tridiagonal(rho, size, |n| log(n) * log(n), |_| 0.0);
    let expect = |x: &[f64]| -> f64 {
        let terms = x.iter().zip(0..);
        terms.map(|(x, n)| poisson_pmf(rho, n) * x).sum()
    };
    let (entropy, min_entropy) = (expect(&h), expect(&m));
    SingleMix {
        entropy,
        entropy_sd: (expect(&h2) - entropy * entropy).sqrt(),
        min_entropy,
        min_entropy_sd: (expect(&m2) - min_entropy * min_entropy).sqrt(),
    }
}

/// `E[H]` when the target is the first arrival after a fixed time, in one Poisson mix: the
/// biased choice that MiXiM makes, for the positive control.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "pools fit in memory")]
pub fn single_poisson_mix_biased(rho: f64) -> f64 {
    let size = usize::try_from(poisson_end(rho)).expect("pools fit in memory") + 60;
    let h = tridiagonal(
        rho,
        size,
        |n| coin_bits(1.0 / n as f64),
        |n| 1.0 - 1.0 / n as f64,
    );
    // From the stationary law, departures alone until the next arrival.
    let mut reach: Vec<f64> = (0..size as u64).map(|n| poisson_pmf(rho, n)).collect();
    let mut entropy = 0.0;
    for n in (0..size).rev() {
        let stop = rho / (rho + n as f64);
        entropy += reach[n] * stop * h[n];
        if n > 0 {
            reach[n - 1] += reach[n] * (1.0 - stop);
        }
    }
    entropy
}

/// log₂(e ρ): the limit of one Poisson mix for large pools (Danezis 2004).
#[must_use]
pub fn danezis_limit_bits(rho: f64) -> f64 {
    (core::f64::consts::E * rho).log2()
}

/// Packets that must enter in a mean delay for [`network_limit_bits`] to bound entropy. With fewer,
/// simulated networks exceed it: one mix has 1.511 bits at 1 packet, and the limit is 1.443.
pub const LIMIT_FROM: f64 = 2.0;

/// Entropy of the sum of `hops` exponential times of mean `mean_s` each, plus log₂ of the rate
/// `per_s`: what a network approaches from below as its pools grow.
/// `[k + ln m + ln Γ(k) + (1−k) ψ(k)] / ln 2 + log₂ λ`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "hops are few")]
pub fn network_limit_bits(per_s: f64, hops: usize, mean_s: f64) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    let k = hops as f64;
    let digamma = (1..hops).map(|i| 1.0 / i as f64).sum::<f64>() - EULER;
    let nats = k + mean_s.ln() + ln_factorial(hops as u64 - 1) + (1.0 - k) * digamma;
    per_s.log2() + nats / core::f64::consts::LN_2
}

/// A threshold pool mix, `input` in, `kept` stay (Serjantov and Danezis 2002):
/// `(1 + n/N) log₂(N + n) − (n/N) log₂ n`.
#[must_use]
pub fn threshold_pool_bits(input: f64, kept: f64) -> f64 {
    let ratio = kept / input;
    let stays = if kept > 0.0 { ratio * kept.log2() } else { 0.0 };
    (1.0 + ratio) * (input + kept).log2() - stays
}

/// Mean time in a pool mix in units from batch to batch, by Little's law: besides the `kept` a
/// threshold mix holds 0 to `input` − 1 packets for equally long, a timed one as many as came since
/// its last batch.
#[must_use]
pub fn pool_delay_batches(input: f64, kept: f64, timed: bool) -> f64 {
    let gathering = if timed { input } else { input - 1.0 };
    (kept + gathering / 2.0) / input
}

/// Threshold mixes in layers of `width`, batches of `batch` split evenly over the next layer:
/// the posterior spreads over one batch, then over all of them.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "batches fit in memory")]
pub fn threshold_stratified_bits(width: usize, batch: usize, layers: usize) -> f64 {
    let reached = if layers > 1 { width * batch } else { batch };
    (reached as f64).log2()
}

/// How the mixes of [`synchronous_posterior`] are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batching {
    /// `width` disjoint chains.
    Cascade,
    /// Each mix splits its batch evenly over the next layer.
    Stratified,
}

/// Posterior of one of `messages` in synchronous batching through `layers` of `width` mixes,
/// each corrupt with probability `corrupt`, averaged over who is corrupt (Dingledine,
/// Shmatikov and Syverson 2004). `messages` and the batch `messages / width` must be multiples
/// of `width`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "batches fit in memory")]
pub fn synchronous_posterior(
    batching: Batching,
    width: usize,
    layers: usize,
    messages: usize,
    corrupt: f64,
) -> Vec<f64> {
    let batch = messages / width;
    let mix = |shares: &mut [f64]| {
        let even = (1.0 - corrupt) * shares.iter().sum::<f64>() / batch as f64;
        for share in shares {
            *share = *share * corrupt + even;
        }
    };
    let mut shares = vec![vec![0.0; batch]; width];
    shares[0][0] = 1.0;
    for layer in 0..layers {
        shares.iter_mut().for_each(|mixed| mix(mixed));
        if batching == Batching::Stratified && layer + 1 < layers {
            let part = batch / width;
            shares = (0..width)
                .map(|to| {
                    let parts = shares.iter().map(|from| &from[to * part..(to + 1) * part]);
                    parts.flatten().copied().collect()
                })
                .collect();
        }
    }
    shares.concat()
}

/// Shannon entropy of [`synchronous_posterior`].
#[must_use]
pub fn synchronous_bits(
    batching: Batching,
    width: usize,
    layers: usize,
    messages: usize,
    corrupt: f64,
) -> f64 {
    shannon_bits(&synchronous_posterior(
        batching, width, layers, messages, corrupt,
    ))
}
