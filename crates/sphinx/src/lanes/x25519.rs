//! X25519 of eight scalars and eight points at a time (RFC 7748): one multiplication per lane.
//!
//! Spec: docs/spec/packet.md, PKT-6, PKT-12, PKT-22.
//!
//! | argument   | of each lane                                                               |
//! |------------|----------------------------------------------------------------------------|
//! | scalar     | 32 bytes, clamped here                                                     |
//! | point      | 32 bytes, a u coordinate; the top bit is ignored, the number reduced       |
//! | product    | 32 bytes, canonical; zero if the point is of low order                     |
//!
//! The Montgomery ladder takes the same steps for every scalar; which of its two points a lane doubles
//! is told by a mask register. Up to four groups of eight share one inversion.
//!
//! Constant time: no branch and no address depends on a scalar, a point or what comes of them. The
//! ladder, its products and their inverses live in registers and on the stack, and are not erased there
//! (PKT-5 says so).

use core::arch::x86_64::*;

use super::LANES;
use super::division::Arithmetic;
use super::field::{A24, Loose, Tight, words};

/// Groups that share an inversion.
const GROUPS: usize = 4;
/// Multiplications of one call of [`multiply`] at most.
pub(super) const BATCH: usize = GROUPS * LANES;

/// `products[i]` = `scalars[i]`, clamped, times `points[i]`; 1 to [`BATCH`] of them.
///
/// # Panics
/// If there are none, more than [`BATCH`], or not as many of each: our own bug.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn multiply(scalars: &[&[u8; 32]], points: &[&[u8; 32]], products: &mut [[u8; 32]]) {
    let count = products.len();
    assert!(
        (1..=BATCH).contains(&count) && scalars.len() == count && points.len() == count,
        "a scalar and a point a product"
    );
    let groups = count.div_ceil(LANES);
    let one = Loose::small(1).carry();
    let mut ratios = [(one, one); GROUPS];
    for (group, ratio) in ratios[..groups].iter_mut().enumerate() {
        // Lanes without work repeat the last.
        let of = core::array::from_fn::<_, LANES, _>(|lane| (group * LANES + lane).min(count - 1));
        *ratio = ladder(of.map(|i| scalars[i]), of.map(|i| points[i]));
    }
    let arithmetic = Arithmetic {
        by: |a: &Tight, b: &Tight| a.mul(b).carry(),
        invert: |a: &Tight| a.invert(),
        to_bytes: |a: &Tight| a.to_bytes(),
        from_bytes: |bytes: [&[u8; 32]; LANES]| Loose::from_bytes(bytes).carry(),
    };
    arithmetic.divide(&mut ratios[..groups], products);
}

/// Numerator and denominator of each product.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn ladder(scalars: [&[u8; 32]; LANES], points: [&[u8; 32]; LANES]) -> (Tight, Tight) {
    let bits = words(scalars);
    let start = Loose::from_bytes(points);
    let u = start.carry();
    let (mut x2, mut z2) = (Loose::small(1).raise(), Loose::small(0));
    let (mut x3, mut z3) = (start.raise(), Loose::small(1));
    let mut swapped: __mmask8 = 0;

    // A clamped scalar has bit 254 and neither bit 255 nor the lowest three.
    for at in (0..255).rev() {
        let bit = match at {
            254 => 0xff,
            0..3 => 0,
            _ => {
                let place = _mm512_set1_epi64(1 << (at % 64));
                _mm512_test_epi64_mask(bits[at / 64], place)
            }
        };
        let other = swapped ^ bit;
        swapped = bit;

        // The points need not be exchanged: that would turn da and cb into each other, whose sum and
        // difference are squared. Only which of the two is doubled depends on the bit.
        let (a, b) = (x2.add(&z2), x2.sub(&z2));
        let (c, d) = (x3.add(&z3), x3.sub(&z3));
        let (aa, bb) = (a.or(other, &c).square_raised(), b.or(other, &d).square());
        let (da, cb) = (d.mul_raised(&a), c.mul(&b));
        let e = aa.sub(&bb);
        let aa = aa.carry();
        // The multipliers are what is short: what the next step waits for longest is begun first, and
        // two products stand together that don't wait for each other.
        let k = aa.add_multiple(&e, A24);
        let difference = da.sub(&cb).square().carry();
        z2 = e.mul(&k);
        x2 = aa.mul_raised(&bb.carry());
        z3 = difference.mul(&u);
        x3 = da.add(&cb).square_raised();
    }
    // The lowest bit is zero, so nothing is left to swap back.
    (x2.carry(), z2.carry())
}
