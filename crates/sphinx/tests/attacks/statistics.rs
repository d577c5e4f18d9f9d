//! Effect sizes, free of p-values.

/// Cohen's w of byte counts against the uniform law: √(χ²/N). For uniform bytes it is about
/// √(255/N).
pub(crate) fn uniform_effect(bytes: impl IntoIterator<Item = u8>) -> f64 {
    let mut counts = [0f64; 256];
    for byte in bytes {
        counts[usize::from(byte)] += 1.0;
    }
    let total: f64 = counts.iter().sum();
    let expected = total / 256.0;
    let chi_square: f64 = counts
        .iter()
        .map(|n| (n - expected).powi(2) / expected)
        .sum();
    (chi_square / total).sqrt()
}

/// Bits in which two blocks differ.
pub(crate) fn bits_apart(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}
