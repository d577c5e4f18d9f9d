//! How anonymous a posterior is.
//!
//! A posterior `p` gives, for each candidate, the probability that it is the target given all
//! that the adversary saw. Functions take probabilities that sum to 1 (zeros allowed) and
//! return bits unless they say otherwise.
//!
//! | metric                | formula                     | source                                   |
//! |-----------------------|-----------------------------|------------------------------------------|
//! | Shannon entropy       | −Σ p log₂ p                 | Serjantov, Danezis 2002; Diaz et al. 2002 |
//! | varentropy            | Σ p (log₂ p)² − H², bits²   | Kontoyiannis, Verdú 2014                 |
//! | effective set         | 2^H, in candidates          | Serjantov, Danezis 2002                  |
//! | degree                | H / log₂ N, no unit         | Diaz et al. 2002                         |
//! | min-entropy           | −log₂ max p                 | Rényi 1961, order ∞; Smith 2009          |
//! | Rényi-2               | −log₂ Σ p²                  | Rényi 1961, order 2                      |
//! | guesswork             | Σ i p₍ᵢ₎, in guesses        | Massey 1994                              |
//! | Bayes vulnerability   | max p, a probability        | Smith 2009                               |
//!
//! The flow engine accumulates the same sums while packets leave (`flow::posterior`); a test
//! there holds both together.

/// −Σ p log₂ p.
#[must_use]
pub fn shannon_bits(p: &[f64]) -> f64 {
    p.iter().map(|&p| surprise(p)).sum()
}

/// −p log₂ p, and 0 at 0.
#[inline]
#[must_use]
pub fn surprise(p: f64) -> f64 {
    if p > 0.0 { -p * p.log2() } else { 0.0 }
}

/// Variance of −log₂ p of the one that it is.
#[must_use]
pub fn varentropy_bits2(p: &[f64]) -> f64 {
    let candidates = p.iter().filter(|&&p| p > 0.0);
    let square: f64 = candidates.map(|&p| p * p.log2().powi(2)).sum();
    // Rounding may leave less than nothing.
    (square - shannon_bits(p).powi(2)).max(0.0)
}

/// Entropy of a coin that falls heads with probability `p`.
#[must_use]
pub fn coin_bits(p: f64) -> f64 {
    surprise(p) + surprise(1.0 - p)
}

/// 2^H: uniform candidates that would be as uncertain.
#[must_use]
pub fn effective_set(p: &[f64]) -> f64 {
    shannon_bits(p).exp2()
}

/// H / log₂ N for N candidates, between 0 and 1; NaN for N = 1.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "candidates fit in memory")]
pub fn degree(p: &[f64]) -> f64 {
    shannon_bits(p) / (p.len() as f64).log2()
}

/// −log₂ max p.
#[must_use]
pub fn min_entropy_bits(p: &[f64]) -> f64 {
    -bayes_vulnerability(p).log2()
}

/// max p: how often one guess is right.
#[must_use]
pub fn bayes_vulnerability(p: &[f64]) -> f64 {
    p.iter().copied().fold(0.0, f64::max)
}

/// −log₂ Σ p².
#[must_use]
pub fn renyi2_bits(p: &[f64]) -> f64 {
    -p.iter().map(|p| p * p).sum::<f64>().log2()
}

/// 1 / Σ p²: the inverse-Simpson set.
#[must_use]
pub fn inverse_simpson(p: &[f64]) -> f64 {
    renyi2_bits(p).exp2()
}

/// Expected guesses when the likeliest candidates are tried first. Sorts `p`, descending.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "candidates fit in memory")]
pub fn guesswork(p: &mut [f64]) -> f64 {
    p.sort_unstable_by(|a, b| b.total_cmp(a));
    let ranked = p.iter().enumerate();
    ranked.map(|(rank, p)| (rank + 1) as f64 * p).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SIMULATOR 3.16.
    #[test]
    fn a_small_posterior_has_the_published_metrics() {
        let mut p = [1.0 / 16.0, 0.5, 0.25, 1.0 / 16.0, 0.125];
        for (value, expected) in [
            (shannon_bits(&p), 1.875),
            (min_entropy_bits(&p), 1.0),
            (renyi2_bits(&p), 1.573_735),
            (varentropy_bits2(&p), 1.109_375),
            (effective_set(&p), 3.668_016),
            (inverse_simpson(&p), 2.976_744),
            (degree(&p), 0.807_519),
            (bayes_vulnerability(&p), 0.5),
            (guesswork(&mut p), 1.9375),
        ] {
            assert!((value - expected).abs() < 5e-7, "{value} for {expected}");
        }
    }

    #[test]
    fn certainty_and_uniformity_are_the_ends_of_the_scale() {
        let mut certain = [0.0, 1.0, 0.0];
        assert!(shannon_bits(&certain).abs() < 1e-12);
        assert!((guesswork(&mut certain) - 1.0).abs() < 1e-12);
        let mut uniform = [0.125; 8];
        for bits in [
            shannon_bits(&uniform),
            min_entropy_bits(&uniform),
            renyi2_bits(&uniform),
        ] {
            assert!((bits - 3.0).abs() < 1e-12);
        }
        assert!((degree(&uniform) - 1.0).abs() < 1e-12);
        assert!((guesswork(&mut uniform) - 4.5).abs() < 1e-12);
    }
}
