//! How far two samples are apart, for attack tests: here, and on captures of real links (`crates/testnet/tests/rhythm_edges.rs`).

/// Kolmogorov's distance of two samples.
pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    let sorted = |sample: &[f64]| {
        let mut sample = sample.to_vec();
        sample.sort_by(f64::total_cmp);
        sample
    };
    let (a, b) = (sorted(a), sorted(b));
    let share = |of: &[f64], at: f64| of.partition_point(|x| *x <= at) as f64 / of.len() as f64;
    let apart = |at: &f64| (share(&a, *at) - share(&b, *at)).abs();
    a.iter().chain(&b).map(apart).fold(0.0, f64::max)
}

/// A distance that one pair of samples of the same law in a thousand passes.
pub(crate) fn bound(a: usize, b: usize) -> f64 {
    1.95 * (1.0 / a as f64 + 1.0 / b as f64).sqrt()
}
