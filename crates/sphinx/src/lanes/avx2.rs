//! X25519 of four scalars and four points at a time (RFC 7748), by AVX2: one multiplication per lane.
//!
//! Spec: docs/spec/packet.md, PKT-6, PKT-12, PKT-22.
//!
//! Arguments and results are those of [`super::x25519`], whose ladder this is, with numbers of another
//! form ([`field`]). Up to eight groups of four share one inversion.
//!
//! Constant time: no branch and no address depends on a scalar, a point or what comes of them. The
//! ladder, its products and their inverses live in registers and on the stack, and are not erased there
//! (PKT-5 says so).

mod field;

use core::arch::x86_64::*;

use self::field::Tight;
use super::division::{Arithmetic, GROUPS_MAX};

/// Multiplications of a pass.
pub(super) const FOUR: usize = 4;
/// Multiplications of one call of [`multiply`] at most.
pub(super) const BATCH: usize = GROUPS_MAX * FOUR;

/// `products[i]` = `scalars[i]`, clamped, times `points[i]`; 1 to [`BATCH`] of them.
///
/// # Panics
/// If there are none, more than [`BATCH`], or not as many of each: our own bug.
#[target_feature(enable = "avx2")]
pub(super) fn multiply(scalars: &[&[u8; 32]], points: &[&[u8; 32]], products: &mut [[u8; 32]]) {
    let count = products.len();
    assert!(
        (1..=BATCH).contains(&count) && scalars.len() == count && points.len() == count,
        "a scalar and a point a product"
    );
    let groups = count.div_ceil(FOUR);
    let mut ratios = [(Tight::small(0), Tight::small(1)); GROUPS_MAX];
    for (group, ratio) in ratios[..groups].iter_mut().enumerate() {
        // Lanes without work repeat the last.
        let of = core::array::from_fn::<_, FOUR, _>(|lane| (group * FOUR + lane).min(count - 1));
        *ratio = ladder(of.map(|i| scalars[i]), of.map(|i| points[i]));
    }
    let arithmetic = Arithmetic {
        by: |a: &Tight, b: &Tight| a.wide().mul(&b.wide()),
        invert: |a: &Tight| a.invert(),
        to_bytes: |a: &Tight| a.to_bytes(),
        from_bytes: |bytes: [&[u8; 32]; FOUR]| Tight::from_bytes(bytes),
    };
    arithmetic.divide(&mut ratios[..groups], products);
}

/// Numerator and denominator of each product.
#[target_feature(enable = "avx2")]
fn ladder(scalars: [&[u8; 32]; FOUR], points: [&[u8; 32]; FOUR]) -> (Tight, Tight) {
    let bits = words(scalars);
    let u = Tight::from_bytes(points);
    let (mut x2, mut z2) = (Tight::small(1), Tight::small(0));
    let (mut x3, mut z3) = (u, Tight::small(1));
    let mut swapped = _mm256_setzero_si256();

    // A clamped scalar has bit 254 and neither bit 255 nor the lowest three.
    for at in (0..255).rev() {
        let bit = match at {
            254 => _mm256_set1_epi64x(-1),
            0..3 => _mm256_setzero_si256(),
            _ => {
                let place = _mm256_set1_epi64x(1 << (at % 64));
                _mm256_cmpeq_epi64(_mm256_and_si256(bits[at / 64], place), place)
            }
        };
        let other = _mm256_xor_si256(swapped, bit);
        swapped = bit;

        // The points need not be exchanged, as `x25519` says.
        let (a, b) = (x2.add(&z2), x2.sub(&z2));
        let (c, d) = (x3.add(&z3), x3.sub(&z3));
        let (aa, bb) = (a.or(other, &c).square(), b.or(other, &d).square());
        let (da, cb) = (d.mul(&a), c.mul(&b));
        let e = aa.sub(&bb);
        let k = aa.add_a24_times(&e);
        z2 = e.mul(&k.wide());
        x2 = aa.wide().mul(&bb.wide());
        z3 = da.sub(&cb).square().wide().mul(&u.wide());
        x3 = da.add(&cb).square();
    }
    // The lowest bit is zero, so nothing is left to swap back.
    (x2, z2)
}

/// The 64-bit little-endian words of four inputs: word i of every lane in vector i.
#[inline]
#[target_feature(enable = "avx2")]
fn words(bytes: [&[u8; 32]; FOUR]) -> [__m256i; 4] {
    let mut vectors = [_mm256_setzero_si256(); 4];
    for (i, vector) in vectors.iter_mut().enumerate() {
        let word = |lane: usize| {
            let word: &[u8; 8] = crate::layout::array(bytes[lane], 8 * i);
            i64::from_le_bytes(*word)
        };
        *vector = _mm256_set_epi64x(word(3), word(2), word(1), word(0));
    }
    vectors
}
