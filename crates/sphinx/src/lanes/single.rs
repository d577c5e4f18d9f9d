//! X25519 of one scalar and one point (RFC 7748): its ladder across four lanes.
//!
//! Spec: docs/spec/packet.md, PKT-6, PKT-12, PKT-22.
//!
//! A multiplication by itself has no others to fill lanes with, but a step of its ladder has products
//! that don't wait for each other. The state is A = x₂ + z₂, B = x₂ − z₂, C = x₃ + z₃, D = x₃ − z₃;
//! with the point u and a24 = (486662 − 2) / 4 a step is
//!
//! |          | lane 0           | lane 1                      | lane 2           | lane 3           |
//! |----------|------------------|-----------------------------|------------------|------------------|
//! | products | A · A = AA       | B · B = BB                  | C · B = CB       | D · A = DA       |
//! | squares  | AA²              | (AA − BB)² = E²             | (CB + DA)² = x₃  | (CB − DA)²       |
//! | products | AA · E           | E² · a24                    |                  | (CB − DA)² · u = z₃ |
//! | sums     | AA² + a24 E² = A | AA² − 2 AA · E − a24 E² = B | x₃ + z₃ = C      | x₃ − z₃ = D      |
//!
//! It is RFC 7748's, whose x₂ = AA · BB is AA² − AA · E and whose z₂ is E · (AA + a24 E).
//!
//! What counts is how long one waits for another, where eight ladders at once (`x25519.rs`) count
//! instructions. Hence vectors of four lanes, for which processors have more ports than for eight; sums
//! apart from each other that are added at the end; and lanes that only their neighbours are added to,
//! except once a step, when halves change places. Numbers are those of `field.rs`, with its bounds:
//! five limbs of 51 bits, *tight* if a product may take them, and what stands below 2⁶² is carried.
//!
//! Constant time: no branch and no address depends on a scalar, a point or what comes of them; which
//! half is doubled is told by the order in which a vector is permuted. Copies on the stack are not
//! erased (PKT-5 says so).

use core::arch::x86_64::*;

use super::division::inverse;
use super::field::{A24, LIMB_BITS, LIMB_MASK, LIMBS, canonical, prime, split};

/// Five limbs of four numbers, limb i of all in vector i.
type Four = [__m256i; LIMBS];

// Lanes, as masks.
const LANE_0: __mmask8 = 0b0001;
const LANE_1: __mmask8 = 0b0010;
const LANE_2: __mmask8 = 0b0100;
const ODD: __mmask8 = 0b1010;

/// `scalar`, clamped, times `point`; zero if the point is of low order.
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
pub(super) fn multiply(scalar: &[u8; 32], point: &[u8; 32], product: &mut [u8; 32]) {
    let state = ladder(scalar, split(point));
    // 2 x₂ = A + B and 2 z₂ = A − B. The inverse of zero is zero.
    let [mut x, mut z] = [state; 2];
    for (i, limb) in state.into_iter().enumerate() {
        let (a, b) = (limb, _mm256_unpackhi_epi64(limb, limb));
        x[i] = _mm256_add_epi64(a, b);
        z[i] = _mm256_add_epi64(_mm256_sub_epi64(a, b), all(prime(i, 1)));
    }
    let quotient = carry(multiply_four(&carry(x), &invert(&carry(z))));
    to_bytes(&quotient, product);
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn all(word: u64) -> __m256i {
    _mm256_set1_epi64x(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn lanes(words: [u64; 4]) -> __m256i {
    let [a, b, c, d] = words.map(u64::cast_signed);
    _mm256_set_epi64x(d, c, b, a)
}

/// A, B, C, D behind the last step.
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
fn ladder(scalar: &[u8; 32], u: [u64; LIMBS]) -> Four {
    let mut state = [_mm256_setzero_si256(); LIMBS];
    let mut last = state;
    for i in 0..LIMBS {
        let (one, a24) = if i == 0 { (1, A24) } else { (0, 0) };
        // Bit 254 is set: the first step doubles the point, and (1 : 0) stands behind it.
        state[i] = lanes([u[i] + one, u[i] + prime(i, 1) - one, one, one]);
        last[i] = lanes([0, a24, 0, u[i]]);
    }
    let (straight, crossed) = (lanes([0, 1, 2, 3]), lanes([2, 3, 0, 1]));
    let (partners, crossed_partners) = (lanes([0, 1, 1, 0]), lanes([2, 3, 3, 2]));
    let mut state = carry(state);
    let mut partner = permute(&state, partners);
    let mut swapped = 1;
    for at in (0..255).rev() {
        let products = multiply_four(&state, &partner);
        let mut sums = products;
        for (i, sum) in sums.iter_mut().enumerate() {
            let even = _mm256_unpacklo_epi64(*sum, *sum);
            let odd = _mm256_unpackhi_epi64(*sum, *sum);
            let raised = _mm256_add_epi64(even, all(prime(i, 9)));
            *sum = _mm256_mask_add_epi64(raised, LANE_2, even, odd);
            *sum = _mm256_mask_sub_epi64(*sum, ODD, raised, odd);
        }
        let sums = carry(sums);
        let squares = square_four(&sums);

        let (mut left, mut right) = (carry(squares), last);
        for i in 0..LIMBS {
            left[i] = _mm256_mask_mov_epi64(left[i], LANE_0, sums[i]);
            right[i] = _mm256_mask_unpackhi_epi64(right[i], LANE_0, sums[i], sums[i]);
        }
        let products = multiply_four(&left, &right);
        let mut next = squares;
        for (i, to) in next.iter_mut().enumerate() {
            let square = _mm256_unpacklo_epi64(*to, *to);
            let raised = _mm256_add_epi64(square, all(prime(i, 9)));
            let odd = _mm256_unpackhi_epi64(products[i], products[i]);
            let even = _mm256_maskz_unpacklo_epi64(LANE_1, products[i], products[i]);
            let (a, b) = (_mm256_sub_epi64(raised, even), _mm256_add_epi64(odd, even));
            *to = _mm256_mask_sub_epi64(_mm256_add_epi64(a, b), ODD, a, b);
        }
        let next = carry(next);

        // Of the next step. A clamped scalar's lowest three bits are zero, and so is what follows.
        let bit = match at {
            0..=3 => 0,
            _ => scalar[(at - 1) / 8] >> ((at - 1) % 8) & 1,
        };
        let other = 0u8.wrapping_sub(swapped ^ bit);
        swapped = bit;
        state = permute(&next, _mm256_mask_mov_epi64(straight, other, crossed));
        partner = permute(
            &next,
            _mm256_mask_mov_epi64(partners, other, crossed_partners),
        );
    }
    state
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn permute(numbers: &Four, order: __m256i) -> Four {
    let mut permuted = *numbers;
    for limb in &mut permuted {
        *limb = _mm256_permutexvar_epi64(order, *limb);
    }
    permuted
}

/// Tight, of limbs below 2⁶².
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
fn carry(limbs: Four) -> Four {
    let mut carried = limbs;
    for (i, to) in carried.iter_mut().enumerate() {
        let over = _mm256_srli_epi64::<{ LIMB_BITS.cast_signed() }>(limbs[(i + LIMBS - 1) % LIMBS]);
        let kept = _mm256_and_si256(limbs[i], all(LIMB_MASK));
        *to = match i {
            0 => _mm256_madd52lo_epu64(kept, over, all(19)),
            _ => _mm256_add_epi64(kept, over),
        };
    }
    carried
}

/// `sum` + 19 · `limb`, for limbs below 2⁶⁰.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn add_19(sum: __m256i, limb: __m256i) -> __m256i {
    // Turned, not shifted: of shifts a compiler makes a multiplication, which takes four times as long.
    let by_16 = _mm256_rol_epi64::<4>(limb);
    let by_2 = _mm256_add_epi64(limb, limb);
    _mm256_add_epi64(_mm256_add_epi64(sum, limb), _mm256_add_epi64(by_16, by_2))
}

/// The product of tight numbers, its limbs below 2⁵⁸.
///
/// What passes the fifth limb comes back 19 times as large. So the limbs of `b` that it is made of are
/// taken 19 times beforehand, and carried: row i of the product is limb i of `a` times `first` (which
/// nothing is carried to), then `next` up to limb 0 of `b` (and what is carried to it), then `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
fn multiply_four(a: &Four, b: &Four) -> Four {
    let zero = _mm256_setzero_si256();
    let mut first = [zero; LIMBS];
    let mut next = [zero; LIMBS + 1];
    for j in 1..LIMBS {
        let low = _mm256_madd52lo_epu64(zero, b[j], all(19));
        first[j] = _mm256_and_si256(low, all(LIMB_MASK));
    }
    for j in 2..=LIMBS {
        let low = if j < LIMBS { first[j] } else { b[0] };
        next[j] = _mm256_madd52hi_epu64(low, b[j - 1], all(2 * 19));
    }
    let factor = |i: usize, k: usize| match (i, k) {
        (0, _) => b[k],
        (_, 0) => first[LIMBS - i],
        _ if k > i => b[k - i],
        _ => next[LIMBS + k - i],
    };
    let (mut low, mut high) = ([zero; LIMBS], [zero; LIMBS]);
    for (i, limb) in a.iter().enumerate() {
        for k in 0..LIMBS {
            low[k] = _mm256_madd52lo_epu64(low[k], *limb, factor(i, k));
            high[k] = _mm256_madd52hi_epu64(high[k], *limb, factor(i, k));
        }
    }
    let mut product = low;
    for k in 0..LIMBS {
        let twice = _mm256_add_epi64(high[k], high[k]);
        let to = &mut product[(k + 1) % LIMBS];
        *to = if k + 1 < LIMBS {
            _mm256_add_epi64(*to, twice)
        } else {
            add_19(*to, twice)
        };
    }
    product
}

/// The square of tight numbers, its limbs below 2⁵⁹.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
fn square_four(a: &Four) -> Four {
    let zero = _mm256_setzero_si256();
    // At the weight of limb k: once, twice and four times.
    let (mut once, mut twice, mut four) = ([zero; 10], [zero; 10], [zero; 10]);
    for i in 0..LIMBS {
        once[2 * i] = _mm256_madd52lo_epu64(zero, a[i], a[i]);
        for j in i + 1..LIMBS {
            twice[i + j] = _mm256_madd52lo_epu64(twice[i + j], a[i], a[j]);
            four[i + j + 1] = _mm256_madd52hi_epu64(four[i + j + 1], a[i], a[j]);
        }
        twice[2 * i + 1] = _mm256_madd52hi_epu64(twice[2 * i + 1], a[i], a[i]);
    }
    let mut sums = once;
    for k in 0..10 {
        let two = _mm256_add_epi64(twice[k], _mm256_add_epi64(four[k], four[k]));
        sums[k] = _mm256_add_epi64(once[k], _mm256_add_epi64(two, two));
    }
    let mut square = [zero; LIMBS];
    for k in 0..LIMBS {
        square[k] = add_19(sums[k], sums[k + LIMBS]);
    }
    square
}

/// One over each number, or zero.
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
fn invert(z: &Four) -> Four {
    inverse(
        z,
        |a, b| carry(multiply_four(a, b)),
        |a, times| squares(a, times),
    )
}

#[inline(never)]
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
fn squares(number: &Four, times: usize) -> Four {
    let mut square = *number;
    for _ in 0..times {
        square = carry(square_four(&square));
    }
    square
}

/// The number in lane 0, canonical.
#[target_feature(enable = "avx512f,avx512vl")]
fn to_bytes(numbers: &Four, bytes: &mut [u8; 32]) {
    let mut limbs = [0; LIMBS];
    for (to, limb) in limbs.iter_mut().zip(numbers) {
        *to = _mm_cvtsi128_si64(_mm256_castsi256_si128(*limb)).cast_unsigned();
    }
    *bytes = canonical(&mut limbs);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::Lanes;
    use crate::lanes::field::tests::{Limbs, TIGHT, bytes_of, draws, product, reduce};
    use crate::lanes::vector::store32;

    #[target_feature(enable = "avx512f,avx512vl")]
    fn load(numbers: [Limbs; 4]) -> Four {
        let mut vectors = [_mm256_setzero_si256(); LIMBS];
        for (i, vector) in vectors.iter_mut().enumerate() {
            *vector = lanes(numbers.map(|number| number[i]));
        }
        vectors
    }

    #[target_feature(enable = "avx512f,avx512vl")]
    fn unload(vectors: Four) -> [Limbs; 4] {
        let mut numbers = [[0; LIMBS]; 4];
        for (i, vector) in vectors.into_iter().enumerate() {
            let mut row = [0; 32];
            store32(&mut row, vector);
            for (number, word) in numbers.iter_mut().zip(row.as_chunks().0) {
                number[i] = u64::from_le_bytes(*word);
            }
        }
        numbers
    }

    /// PKT-22: every operation at the largest and smallest limbs that it may be given, against plain
    /// arithmetic.
    #[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
    fn hold_at_the_bounds() {
        let mut draw = draws();
        let wide = |limbs: Limbs| limbs.map(u128::from);
        for round in 0..20_000 {
            let mut four = |max| match round {
                0 => [[max; LIMBS]; 4],
                _ => core::array::from_fn(|_| draw(max)),
            };
            let (a, b, c) = (four(TIGHT), four(TIGHT), four((1 << 62) - 1));
            for (ours, other, max) in [
                (multiply_four(&load(a), &load(b)), b, 1 << 58),
                (square_four(&load(a)), a, 1 << 59),
            ] {
                for (lane, ours) in unload(ours).into_iter().enumerate() {
                    assert!(ours.iter().all(|limb| *limb < max));
                    assert_eq!(reduce(wide(ours)), product(a[lane], other[lane]));
                }
            }
            let carried = carry(load(c));
            for (lane, carried) in unload(carried).into_iter().enumerate() {
                assert!(carried.iter().all(|limb| *limb <= TIGHT));
                assert_eq!(reduce(wide(carried)), reduce(wide(c[lane])));
            }
            let mut bytes = [0; 32];
            to_bytes(&carried, &mut bytes);
            assert_eq!(bytes, bytes_of(reduce(wide(c[0]))));
        }
    }

    #[test]
    #[expect(unsafe_code, reason = "a function for processors with lanes")]
    fn pkt_22_four_lanes_compute_at_the_bounds_of_their_limbs() {
        if Lanes::detect().is_none() {
            return println!("not tested: this processor has no lanes");
        }
        // SAFETY: the processor has been asked.
        unsafe { hold_at_the_bounds() }
    }
}
