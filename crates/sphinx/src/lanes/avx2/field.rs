//! Arithmetic modulo 2²⁵⁵ − 19 in four lanes, by the 32-bit multiplication of AVX2.
//!
//! A number is ten limbs of 26 and 25 bits in turn, limb i of all lanes in vector i, at weight
//! 2^⌈25.5 i⌉. Two kinds are told apart, since sums and differences are not carried:
//!
//! | kind       | even limbs  | odd limbs      | made by                                              |
//! |------------|-------------|----------------|------------------------------------------------------|
//! | [`Tight`]  | < 2²⁶       | < 2²⁵ + 2¹³    | bytes and products                                   |
//! | [`Wide`]   | < 3 · 2²⁶   | < 3 · 2²⁵ + 2¹³ | one, the sum or the difference of two tight ones    |
//!
//! (A difference is taken from 2 p, whose limbs lie 38 and 2 below 2²⁷ and 2²⁶; as no limb of a tight
//! number is above its limb of 2 p, nothing goes below zero.)
//!
//! What passes the tenth limb comes back 19 times as large. So a factor's limbs are taken 19 times
//! beforehand, which 32 bits hold: 57 · 2²⁶. Two odd limbs meet half a bit above each of their weights,
//! so their product counts twice.
//!
//! Largest sum of a product, at weight 0, of two wide numbers, A = 3 · 2²⁶: A² once, four even products A²
//! each 19 times, five odd ones A²/4 each 38 times: 124.5 A² < 2⁶³. (A square likewise.) The last limb's sum is ten
//! times A²/2 and a carry, below 2⁵⁸, so what it carries is below 2³³, and below 2³⁸ when it comes back.
//!
//! The compiler knows that [`_mm256_mul_epu32`] multiplies 64-bit words that have been cut to 32, finds cuts that it
//! can do without, and makes two instructions of one. It also adds up in an order of its own, for which the registers
//! do not suffice. [`opaque`] hides from it where a vector comes from, and costs nothing.
//!
//! Constant time: no branch and no address depends on a limb.
//!
//! `unsafe`: one `asm!` without instructions.

#![expect(
    unsafe_code,
    reason = "an asm! without instructions, which the file header justifies"
)]

use core::arch::{asm, x86_64::*};

use zeroize::Zeroize;

use super::FOUR;
use crate::lanes::division::inverse;
use crate::lanes::field::{A24, canonical, split};
use crate::lanes::vector::store32;

const LIMBS: usize = 10;

/// Bits of even limbs, and of odd ones.
const BITS: [u32; 2] = [26, 25];

const fn mask(i: usize) -> u64 {
    (1 << BITS[i % 2]) - 1
}

/// Limb `i` of 2 p.
const fn twice_prime(i: usize) -> u64 {
    2 * if i == 0 { mask(0) - 18 } else { mask(i) }
}

/// Carried.
#[derive(Clone, Copy)]
pub(super) struct Tight([__m256i; LIMBS]);

/// A sum or a difference, not carried: what is multiplied.
#[derive(Clone, Copy)]
pub(super) struct Wide([__m256i; LIMBS]);

#[inline]
#[target_feature(enable = "avx2")]
fn all(word: u64) -> __m256i {
    _mm256_set1_epi64x(word.cast_signed())
}

impl Tight {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn small(number: u64) -> Tight {
        let mut limbs = [_mm256_setzero_si256(); LIMBS];
        limbs[0] = all(number);
        Tight(limbs)
    }

    /// The lanes' bytes, little-endian; the top bit of each is ignored (RFC 7748).
    #[target_feature(enable = "avx2")]
    pub(super) fn from_bytes(bytes: [&[u8; 32]; FOUR]) -> Tight {
        // Limbs of 51 bits, each of which is two here.
        let mut lanes = bytes.map(split);
        let mut limbs = [_mm256_setzero_si256(); LIMBS];
        for (i, limb) in limbs.iter_mut().enumerate() {
            let half = |lane: usize| {
                let shift = if i % 2 == 0 { 0 } else { BITS[0] };
                ((lanes[lane][i / 2] >> shift) & mask(i)).cast_signed()
            };
            *limb = _mm256_set_epi64x(half(3), half(2), half(1), half(0));
        }
        lanes.zeroize();
        Tight(limbs)
    }

    /// Each lane as 32 bytes, canonical. The copies that it makes are erased.
    #[target_feature(enable = "avx2")]
    pub(super) fn to_bytes(self) -> [[u8; 32]; FOUR] {
        let mut stored = [[0; 32]; LIMBS];
        for (to, limb) in stored.iter_mut().zip(self.0) {
            store32(to, limb);
        }
        let limb = |i: usize, lane: usize| {
            let word: &[u8; 8] = crate::layout::array(&stored[i], 8 * lane);
            u64::from_le_bytes(*word)
        };
        let bytes = core::array::from_fn(|lane| {
            let both = |i: usize| limb(2 * i, lane) | limb(2 * i + 1, lane) << BITS[0];
            canonical(&mut core::array::from_fn(both))
        });
        stored.zeroize();
        bytes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn wide(&self) -> Wide {
        Wide(self.0)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn add(&self, other: &Tight) -> Wide {
        let mut sum = self.0;
        for (a, b) in sum.iter_mut().zip(other.0) {
            *a = _mm256_add_epi64(*a, b);
        }
        Wide(sum)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn sub(&self, other: &Tight) -> Wide {
        let mut difference = self.0;
        for (i, (a, b)) in difference.iter_mut().zip(other.0).enumerate() {
            *a = _mm256_add_epi64(*a, _mm256_sub_epi64(all(twice_prime(i)), b));
        }
        Wide(difference)
    }

    /// `self` + a24 · `other`.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn add_a24_times(&self, other: &Wide) -> Tight {
        let mut sums = self.0;
        for (a, b) in sums.iter_mut().zip(other.0) {
            *a = _mm256_add_epi64(*a, _mm256_mul_epu32(b, all(A24)));
        }
        carry(sums)
    }

    /// Squared `times` times.
    #[target_feature(enable = "avx2")]
    fn squares(&self, times: usize) -> Tight {
        let mut square = *self;
        for _ in 0..times {
            square = square.wide().square();
        }
        square
    }

    /// One over each lane, or zero where the lane is zero.
    #[target_feature(enable = "avx2")]
    pub(super) fn invert(&self) -> Tight {
        inverse(
            self,
            |a, b| a.wide().mul(&b.wide()),
            |a, times| a.squares(times),
        )
    }
}

impl Wide {
    /// In the lanes of `mask`, which are of ones there and else of zeros, `other`, else `self`.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn or(&self, mask: __m256i, other: &Wide) -> Wide {
        let mut either = self.0;
        for (a, b) in either.iter_mut().zip(other.0) {
            *a = _mm256_blendv_epi8(*a, b, mask);
        }
        Wide(either)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn mul(&self, other: &Wide) -> Tight {
        let (a, b) = (self.0, other.0);
        // Limbs 1 to 9 taken 19 times, then all of them: what limb i is multiplied by for the sum at weight k
        // stands at 9 + k − i.
        let mut factors = [_mm256_setzero_si256(); 2 * LIMBS - 1];
        for i in 1..LIMBS {
            factors[i - 1] = times_19(b[i]);
        }
        factors[LIMBS - 1..].copy_from_slice(&b);
        let of = |even: usize| -> &[__m256i; LIMBS + 1] {
            let from = &factors[LIMBS - 2 - even..];
            from.first_chunk().expect("as many as two limbs have")
        };
        // Written out, so that the sums stay in registers.
        let sums = [_mm256_setzero_si256(); LIMBS];
        let sums = add_products(sums, a[0], a[1], of(0));
        let sums = add_products(sums, a[2], a[3], of(2));
        let sums = add_products(sums, a[4], a[5], of(4));
        let sums = add_products(sums, a[6], a[7], of(6));
        let sums = add_products(sums, a[8], a[9], of(8));
        carry(sums)
    }

    /// Products of two different limbs come twice, of two odd ones twice more: the letters are a limb,
    /// `d`ouble and `q`uadruple, `n`ineteen times and that twice (`m`).
    #[inline]
    #[target_feature(enable = "avx2")]
    #[rustfmt::skip] // a line for each limb of the square
    pub(super) fn square(&self) -> Tight {
        let [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9] = self.0;
        let double = |a| _mm256_add_epi64(a, a);
        let [d0, d1, d2, d3, d4, d5, d6, d7, d8] = [a0, a1, a2, a3, a4, a5, a6, a7, a8].map(double);
        let [q1, q3, q5, q7] = [d1, d3, d5, d7].map(double);
        let [n5, n6, n7, n8, n9] = [times_19(a5), times_19(a6), times_19(a7), times_19(a8), times_19(a9)];
        let [m5, m7, m9] = [n5, n7, n9].map(double);
        carry([
            sum([(a0, a0), (q1, n9), (d2, n8), (q3, n7), (d4, n6), (a5, m5)]),
            sum([(d0, a1), (d2, n9), (d3, n8), (d4, n7), (d5, n6)]),
            sum([(d0, a2), (d1, a1), (q3, n9), (d4, n8), (q5, n7), (a6, n6)]),
            sum([(d0, a3), (d1, a2), (d4, n9), (d5, n8), (d6, n7)]),
            sum([(d0, a4), (q1, a3), (a2, a2), (q5, n9), (d6, n8), (a7, m7)]),
            sum([(d0, a5), (d1, a4), (d2, a3), (d6, n9), (d7, n8)]),
            sum([(d0, a6), (q1, a5), (d2, a4), (d3, a3), (q7, n9), (a8, n8)]),
            sum([(d0, a7), (d1, a6), (d2, a5), (d3, a4), (d8, n9)]),
            sum([(d0, a8), (q1, a7), (d2, a6), (q3, a5), (a4, a4), (a9, m9)]),
            sum([(d0, a9), (d1, a8), (d2, a7), (d3, a6), (d4, a5)]),
        ])
    }
}

/// The sum of products of the lanes' low halves.
#[inline]
#[target_feature(enable = "avx2")]
fn sum<const N: usize>(factors: [(__m256i, __m256i); N]) -> __m256i {
    let mut sum = _mm256_setzero_si256();
    for (a, b) in factors {
        sum = _mm256_add_epi64(sum, _mm256_mul_epu32(a, b));
    }
    sum
}

#[inline]
#[target_feature(enable = "avx2")]
fn times_19(limb: __m256i) -> __m256i {
    opaque(_mm256_mul_epu32(limb, all(19)))
}

/// The same, but the compiler knows nothing about it.
#[inline]
#[target_feature(enable = "avx2")]
fn opaque(mut vector: __m256i) -> __m256i {
    // SAFETY: no instruction.
    unsafe {
        asm!("/* {0} */", inout(ymm_reg) vector, options(pure, nomem, nostack, preserves_flags));
    }
    vector
}

/// Adds an even limb, times the factors from the second one on, and the odd limb above it, times those
/// from the first on. Written out, so that the sums stay in registers.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products(
    sums: [__m256i; LIMBS],
    even: __m256i,
    odd: __m256i,
    factors: &[__m256i; LIMBS + 1],
) -> [__m256i; LIMBS] {
    let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9] = sums;
    let [f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10] = *factors;
    let twice = _mm256_add_epi64(odd, odd);
    let add = |sum, odd, of_odd, of_even| {
        let sum = _mm256_add_epi64(sum, _mm256_mul_epu32(odd, of_odd));
        opaque(_mm256_add_epi64(sum, _mm256_mul_epu32(even, of_even)))
    };
    [
        add(s0, twice, f0, f1),
        add(s1, odd, f1, f2),
        add(s2, twice, f2, f3),
        add(s3, odd, f3, f4),
        add(s4, twice, f4, f5),
        add(s5, odd, f5, f6),
        add(s6, twice, f6, f7),
        add(s7, odd, f7, f8),
        add(s8, twice, f8, f9),
        add(s9, odd, f9, f10),
    ]
}

/// Carries in two chains side by side, from limbs 0 and 4; then the last limb's comes back to the first.
#[inline]
#[target_feature(enable = "avx2")]
fn carry(sums: [__m256i; LIMBS]) -> Tight {
    let [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9] = sums;
    let (a0, a1) = carry_even(a0, a1);
    let (a4, a5) = carry_even(a4, a5);
    let (a1, a2) = carry_odd(a1, a2);
    let (a5, a6) = carry_odd(a5, a6);
    let (a2, a3) = carry_even(a2, a3);
    let (a6, a7) = carry_even(a6, a7);
    let (a3, a4) = carry_odd(a3, a4);
    let (a7, a8) = carry_odd(a7, a8);
    let (a4, a5) = carry_even(a4, a5);
    let (a8, a9) = carry_even(a8, a9);
    let (a9, over) = carry_odd(a9, _mm256_setzero_si256());
    // It may have more than 32 bits: 19 = 16 + 2 + 1.
    let twice_and_once = _mm256_add_epi64(over, _mm256_add_epi64(over, over));
    let a0 = _mm256_add_epi64(
        _mm256_add_epi64(a0, _mm256_slli_epi64::<4>(over)),
        twice_and_once,
    );
    let (a0, a1) = carry_even(a0, a1);
    Tight([a0, a1, a2, a3, a4, a5, a6, a7, a8, a9])
}

/// An even limb and the next one, when it is carried.
#[inline]
#[target_feature(enable = "avx2")]
fn carry_even(limb: __m256i, next: __m256i) -> (__m256i, __m256i) {
    let over = _mm256_srli_epi64::<26>(limb);
    (
        _mm256_and_si256(limb, all(mask(0))),
        _mm256_add_epi64(next, over),
    )
}

/// An odd limb and the next one, when it is carried.
#[inline]
#[target_feature(enable = "avx2")]
fn carry_odd(limb: __m256i, next: __m256i) -> (__m256i, __m256i) {
    let over = _mm256_srli_epi64::<25>(limb);
    (
        _mm256_and_si256(limb, all(mask(1))),
        _mm256_add_epi64(next, over),
    )
}

#[cfg(test)]
mod tests;
