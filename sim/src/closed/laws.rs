//! The two laws of a network of Poisson mixes: Poisson pools and Erlang latencies.
//!
//! All functions are exact to about 1e-12 relative for means up to 1e8 and up to 32 stages.

/// ln n!, by summation below 32 and Stirling's series above.
#[must_use]
pub fn ln_factorial(n: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    let x = n as f64;
    if n < 32 {
        return (2..=n)
            .map(|k| f64::from(u32::try_from(k).expect("small")).ln())
            .sum();
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    (x + 0.5) * x.ln() - x
        + 0.5 * (2.0 * core::f64::consts::PI).ln()
        + inverse
            * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)))
}

/// Pr[N = n] for N ~ Poisson(`mean`).
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
pub fn poisson_pmf(mean: f64, n: u64) -> f64 {
    if mean == 0.0 {
        return if n == 0 { 1.0 } else { 0.0 };
    }
    (n as f64 * mean.ln() - mean - ln_factorial(n)).exp()
}

/// Pr[N ≤ n].
#[must_use]
pub fn poisson_cdf(mean: f64, n: u64) -> f64 {
    (0..=n).map(|k| poisson_pmf(mean, k)).sum::<f64>().min(1.0)
}

/// `Pr[N > n]`, without cancellation.
#[must_use]
pub fn poisson_tail(mean: f64, n: u64) -> f64 {
    (n + 1..poisson_end(mean).max(n + 64))
        .map(|k| poisson_pmf(mean, k))
        .sum()
}

/// The least n with Pr[N ≤ n] ≥ `q`.
#[must_use]
pub fn poisson_quantile(mean: f64, q: f64) -> u64 {
    let mut sum = 0.0;
    let mut n = 0;
    loop {
        sum += poisson_pmf(mean, n);
        if sum >= q || n > poisson_end(mean) {
            return n;
        }
        n += 1;
    }
}

/// A count that Poisson(`mean`) exceeds with probability below 1e-15.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count near the mean"
)]
pub fn poisson_end(mean: f64) -> u64 {
    (mean + 12.0 * mean.sqrt() + 60.0) as u64
}

/// Pr[T ≤ t] for T the sum of `stages` exponential times of mean `mean` each.
#[must_use]
pub fn erlang_cdf(stages: usize, mean: f64, t: f64) -> f64 {
    if t <= 0.0 {
        return 0.0;
    }
    // At least `stages` points of a Poisson process within t.
    let x = t / mean;
    let stages = stages as u64;
    #[expect(clippy::cast_precision_loss, reason = "stages are few")]
    if x < stages as f64 {
        return poisson_tail(x, stages - 1);
    }
    1.0 - (0..stages).map(|n| poisson_pmf(x, n)).sum::<f64>()
}

/// The time that a share `q` (in 0..1) of such sums does not exceed, by bisection.
#[must_use]
pub fn erlang_quantile(stages: usize, mean: f64, q: f64) -> f64 {
    let (mut low, mut high) = (0.0, mean);
    while erlang_cdf(stages, mean, high) < q {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if erlang_cdf(stages, mean, middle) < q {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factorials_join_smoothly() {
        let direct: f64 = (2..=40).map(|k| f64::from(k).ln()).sum();
        assert!((ln_factorial(40) - direct).abs() < 1e-12);
        assert!((ln_factorial(0)).abs() < 1e-15);
    }

    #[test]
    fn probabilities_sum_to_one() {
        for mean in [0.5, 10.0, 133.0, 5000.0] {
            let end = poisson_end(mean);
            assert!((poisson_cdf(mean, end) - 1.0).abs() < 1e-11);
            let split = poisson_quantile(mean, 0.5);
            assert!((poisson_cdf(mean, split) + poisson_tail(mean, split) - 1.0).abs() < 1e-11);
        }
    }

    #[test]
    fn an_erlang_quantile_inverts_its_distribution() {
        for stages in [1, 3, 32] {
            for q in [1e-9, 0.05, 0.5, 0.999] {
                let t = erlang_quantile(stages, 0.05, q);
                assert!(
                    (erlang_cdf(stages, 0.05, t) / q - 1.0).abs() < 1e-6,
                    "{stages} {q}"
                );
            }
        }
    }
}
