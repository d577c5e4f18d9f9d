//! The arithmetic of four lanes at the bounds of its limbs, against plain arithmetic.

use super::*;
use crate::lanes::Avx2;
use crate::lanes::field::prime;
use crate::lanes::field::tests::{bytes_of, product, random, reduce};
use crate::lanes::vector::load32;

type Limbs = [u64; LIMBS];

/// The largest limbs, even and odd, of each kind.
const TIGHT: [u64; 2] = [(1 << 26) - 1, (1 << 25) + (1 << 13) - 1];
const WIDE: [u64; 2] = [3 * (1 << 26) - 1, 3 * (1 << 25) + (1 << 13) - 1];

/// Two limbs as one of 51 bits and more.
fn pairs(limbs: Limbs) -> [u64; LIMBS / 2] {
    core::array::from_fn(|i| limbs[2 * i] + (limbs[2 * i + 1] << 26))
}

#[target_feature(enable = "avx2")]
fn load(lanes: [Limbs; FOUR]) -> [__m256i; LIMBS] {
    let mut vectors = [_mm256_setzero_si256(); LIMBS];
    for (i, vector) in vectors.iter_mut().enumerate() {
        let mut row = [0; 32];
        for (to, lane) in row.chunks_mut(8).zip(lanes) {
            to.copy_from_slice(&lane[i].to_le_bytes());
        }
        *vector = load32(&row);
    }
    vectors
}

#[target_feature(enable = "avx2")]
fn unload(vectors: [__m256i; LIMBS]) -> [Limbs; FOUR] {
    let mut lanes = [[0; LIMBS]; FOUR];
    for (i, vector) in vectors.into_iter().enumerate() {
        let mut row = [0; 32];
        store32(&mut row, vector);
        for (lane, from) in lanes.iter_mut().zip(row.as_chunks().0) {
            lane[i] = u64::from_le_bytes(*from);
        }
    }
    lanes
}

/// Lanes whose limbs are at the edges up to the largest ones, and between them.
fn draw(random: &mut impl FnMut() -> u64, max: [u64; 2]) -> [Limbs; FOUR] {
    let mut limb = |i: usize| {
        let (mask, max) = (mask(i), max[i % 2]);
        match random() % 16 {
            j @ 0..4 => [0, 1, 18, 19][usize::try_from(j).expect("few")],
            j @ 4..9 => mask - [38, 19, 18, 2, 0][usize::try_from(j - 4).expect("few")],
            9 => mask + 1,
            10..13 => max,
            _ => random() % (max + 1),
        }
        .min(max)
    };
    core::array::from_fn(|_| core::array::from_fn(&mut limb))
}

/// PKT-22: every operation at the largest and smallest limbs that its kind may have, and at those
/// around p, against plain arithmetic.
#[target_feature(enable = "avx2")]
fn hold_at_the_bounds() {
    let mut random = random();
    let within =
        |limbs: Limbs, max: [u64; 2]| (0..LIMBS).for_each(|i| assert!(limbs[i] <= max[i % 2]));
    let reduced = |limbs: Limbs| reduce(pairs(limbs).map(u128::from));
    for round in 0..20_000 {
        let mut lanes = |max: [u64; 2]| match round {
            0 => [core::array::from_fn(|i| max[i % 2]); FOUR],
            // p − 1, p, p + 1 and 2²⁵⁵ − 1; zero.
            1 => [19, 18, 17, 0].map(|less| {
                core::array::from_fn(|i| if i == 0 { mask(0) - less } else { mask(i) })
            }),
            2 => [[0; LIMBS]; FOUR],
            _ => draw(&mut random, max),
        };
        let (a, b, c, d) = (lanes(TIGHT), lanes(TIGHT), lanes(WIDE), lanes(WIDE));
        let (x, y) = (Tight(load(a)), Tight(load(b)));
        let (u, v) = (Wide(load(c)), Wide(load(d)));

        let (product_of, square) = (unload(u.mul(&v).0), unload(u.square().0));
        let multiple = unload(x.add_a24_times(&v).0);
        let (sum, difference) = (unload(x.add(&y).0), unload(x.sub(&y).0));
        let (bytes, again) = (
            x.to_bytes(),
            unload(Tight::from_bytes(x.to_bytes().each_ref()).0),
        );
        let ones = _mm256_set_epi64x(0, -1, 0, -1);
        let either = unload(u.or(ones, &v).0);
        for lane in 0..FOUR {
            for tight in [product_of[lane], square[lane], multiple[lane], again[lane]] {
                within(tight, TIGHT);
            }
            for wide in [sum[lane], difference[lane]] {
                within(wide, WIDE);
            }
            let [a, b] = [a[lane], b[lane]];
            assert_eq!(
                reduced(product_of[lane]),
                product(pairs(c[lane]), pairs(d[lane]))
            );
            assert_eq!(
                reduced(square[lane]),
                product(pairs(c[lane]), pairs(c[lane]))
            );
            let plain = |f: &dyn Fn(usize) -> u128| reduce(core::array::from_fn(f));
            let [pa, pb, pd] = [a, b, d[lane]].map(|limbs| pairs(limbs).map(u128::from));
            assert_eq!(
                reduced(multiple[lane]),
                plain(&|i| pa[i] + u128::from(A24) * pd[i])
            );
            assert_eq!(reduced(sum[lane]), plain(&|i| pa[i] + pb[i]));
            let twice_prime = |i| u128::from(prime(i, 1));
            assert_eq!(
                reduced(difference[lane]),
                plain(&|i| pa[i] + twice_prime(i) - pb[i])
            );
            assert_eq!(bytes[lane], bytes_of(reduced(a)));
            assert_eq!(reduced(again[lane]), reduced(a));
            assert_eq!(either[lane], if lane % 2 == 0 { d[lane] } else { c[lane] });
        }
    }
}

#[test]
#[expect(unsafe_code, reason = "a function for processors with AVX2")]
fn pkt_22_avx2_computes_at_the_bounds_of_its_limbs() {
    if Avx2::detect().is_none() {
        return println!("not tested: this processor has no AVX2");
    }
    // SAFETY: the processor has been asked.
    unsafe { hold_at_the_bounds() }
}
