//! Arithmetic modulo 2²⁵⁵ − 19 in eight lanes, by the 52-bit multiply-add of AVX-512 IFMA.
//!
//! A number is five limbs of 51 bits, limb i of all lanes in vector i. Three kinds are told apart,
//! since carries are lazy:
//!
//! | kind        | limbs          | made by                         | taken by                        |
//! |-------------|----------------|---------------------------------|---------------------------------|
//! | [`Tight`]   | < 2⁵¹ + 2¹⁸    | a carry                         | products, which read 52 bits    |
//! | [`Loose`]   | < 2⁵⁸          | products                        | added to, subtracted from a `Raised` |
//! | [`Raised`]  | < 2⁵⁹ + 2⁵⁸    | products, 2⁸ p above            | sums and differences            |
//!
//! What passes the fifth limb comes back 19 times as large. So the limbs of a factor that it is made of
//! are taken 19 times beforehand, and carried, by which a limb gets at most 19 more than a tight one
//! has: five sums instead of ten. A product's high halves stand at twice the weight of the next limb's
//! low halves: they are summed first, doubled, and the low ones added to them; those of the fifth limb
//! come back to the first, 38 times.
//!
//! Largest limb of a product, at weight 0: five low halves below 2⁵², and 38 times five high halves
//! below 2⁵⁰ + 2¹⁹, together below 52.6 · 2⁵², so below 2⁵⁸. (Of a square likewise; where a factor has all of
//! 52 bits, at weights 2 and 4, it is 8 · 2⁵².) The limbs of 2⁸ p lie between 2⁵⁸ and 2⁵⁹, so that nothing that is
//! subtracted goes below zero; they are what the sums of a `Raised` start from, which costs nothing. So
//! what is carried lies below 2⁶⁰, the carries below 2⁹, and 19 times the last one below 2¹⁴.
//!
//! Constant time: no branch and no address depends on a limb.

use core::arch::x86_64::*;

use zeroize::Zeroize;

use super::LANES;
use super::division::inverse;
use super::vector::store64;

pub(super) const LIMB_BITS: u32 = 51;
pub(super) const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;
pub(super) const LIMBS: usize = 5;

/// (486662 − 2) / 4 of the curve, as RFC 7748 has it.
pub(super) const A24: u64 = 121_665;

/// Reduced far enough to be multiplied.
#[derive(Clone, Copy)]
pub(super) struct Tight([__m512i; LIMBS]);

/// A product, not yet carried.
#[derive(Clone, Copy)]
pub(super) struct Loose([__m512i; LIMBS]);

/// A product plus 2⁸ p, not yet carried: what can be subtracted from.
#[derive(Clone, Copy)]
pub(super) struct Raised([__m512i; LIMBS]);

/// 2⁸ p is as much as a [`Raised`] lies above its product.
const RAISED_BITS: u32 = 8;

/// Limb `i` of 2^`bits` p.
pub(super) const fn prime(i: usize, bits: u32) -> u64 {
    (if i == 0 { LIMB_MASK - 18 } else { LIMB_MASK }) << bits
}

#[inline]
#[target_feature(enable = "avx512f")]
fn all(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

impl Loose {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn small(number: u64) -> Loose {
        let zero = _mm512_setzero_si512();
        Loose([all(number), zero, zero, zero, zero])
    }

    /// The lanes' bytes, little-endian; the top bit of each is ignored (RFC 7748).
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn from_bytes(bytes: [&[u8; 32]; LANES]) -> Loose {
        let [a, b, c, d] = words(bytes);
        let mask = all(LIMB_MASK);
        let or = |x, y| _mm512_and_si512(_mm512_or_si512(x, y), mask);
        Loose([
            _mm512_and_si512(a, mask),
            or(_mm512_srli_epi64::<51>(a), _mm512_slli_epi64::<13>(b)),
            or(_mm512_srli_epi64::<38>(b), _mm512_slli_epi64::<26>(c)),
            or(_mm512_srli_epi64::<25>(c), _mm512_slli_epi64::<39>(d)),
            _mm512_and_si512(_mm512_srli_epi64::<12>(d), mask),
        ])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn raise(&self) -> Raised {
        let mut raised = self.0;
        for (i, limb) in raised.iter_mut().enumerate() {
            *limb = _mm512_add_epi64(*limb, all(prime(i, RAISED_BITS)));
        }
        Raised(raised)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn carry(&self) -> Tight {
        carry(self.0)
    }
}

impl Raised {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn add(&self, other: &Loose) -> Tight {
        let mut sum = self.0;
        for (a, b) in sum.iter_mut().zip(other.0) {
            *a = _mm512_add_epi64(*a, b);
        }
        carry(sum)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn sub(&self, other: &Loose) -> Tight {
        let mut difference = self.0;
        for (a, b) in difference.iter_mut().zip(other.0) {
            *a = _mm512_sub_epi64(*a, b);
        }
        carry(difference)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn carry(&self) -> Tight {
        carry(self.0)
    }
}

impl Tight {
    /// In the lanes of `mask` `other`, else `self`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn or(&self, mask: __mmask8, other: &Tight) -> Tight {
        let mut either = self.0;
        for (a, b) in either.iter_mut().zip(other.0) {
            *a = _mm512_mask_blend_epi64(mask, *a, b);
        }
        Tight(either)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn mul(&self, other: &Tight) -> Loose {
        Loose(self.product::<false>(other))
    }

    /// [`Self::mul`], to be subtracted from.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn mul_raised(&self, other: &Tight) -> Raised {
        Raised(self.product::<true>(other))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn square(&self) -> Loose {
        Loose(self.with_itself::<false>())
    }

    /// [`Self::square`], to be subtracted from.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn square_raised(&self) -> Raised {
        Raised(self.with_itself::<true>())
    }

    /// Row i is limb i of `self` times `first` (which nothing is carried to), then `next` up to limb 0 of
    /// `other` (and what is carried to it), then `other`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn product<const RAISED: bool>(&self, other: &Tight) -> [__m512i; LIMBS] {
        let (b, zero) = (other.0, _mm512_setzero_si512());
        let (mut first, mut next) = ([zero; LIMBS], [zero; LIMBS + 1]);
        for j in 1..LIMBS {
            let low = _mm512_madd52lo_epu64(zero, b[j], all(19));
            first[j] = _mm512_and_si512(low, all(LIMB_MASK));
        }
        for j in 2..=LIMBS {
            let low = if j < LIMBS { first[j] } else { b[0] };
            next[j] = _mm512_madd52hi_epu64(low, b[j - 1], all(2 * 19));
        }
        let factor = |i: usize, k: usize| match (i, k) {
            (0, _) => b[k],
            (_, 0) => first[LIMBS - i],
            _ if k > i => b[k - i],
            _ => next[LIMBS + k - i],
        };
        let mut sums = start::<RAISED>([0, 1, 1, 1, 1]);
        for (i, limb) in self.0.into_iter().enumerate() {
            for k in 0..LIMBS {
                sums[k + 1] = _mm512_madd52hi_epu64(sums[k + 1], limb, factor(i, k));
            }
        }
        double(&mut sums[1..LIMBS]);
        for (i, limb) in self.0.into_iter().enumerate() {
            for (k, sum) in sums[..LIMBS].iter_mut().enumerate() {
                *sum = _mm512_madd52lo_epu64(*sum, limb, factor(i, k));
            }
        }
        fold(sums)
    }

    /// Products of two different limbs come twice: they are summed first, and doubled. Of limbs 3 and 4
    /// taken 19 times, `first` and `next` are as in a product. Not so where they meet themselves, which
    /// comes once: there `low` has a bit more, and half the carry is added to what comes twice.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn with_itself<const RAISED: bool>(&self) -> [__m512i; LIMBS] {
        let [a0, a1, a2, a3, a4] = self.0;
        let low = |limb| _mm512_madd52lo_epu64(_mm512_setzero_si512(), limb, all(19));
        let (low_3, low_4) = (low(a3), low(a4));
        let first = |low| _mm512_and_si512(low, all(LIMB_MASK));
        let (first_3, first_4) = (first(low_3), first(low_4));
        let next = |limb, before| _mm512_madd52hi_epu64(limb, before, all(2 * 19));
        let (next_4, next_0) = (next(first_4, a3), next(a0, a4));
        let half = |limb, before| _mm512_madd52hi_epu64(limb, before, all(19));
        let (half_4, half_0) = (half(first_4, a3), half(a0, a4));
        let twice = [
            [(a1, first_4), (a2, first_3)],
            [(a1, next_0), (a2, next_4)],
            [(a2, next_0), (a3, half_4)],
            [(a3, next_0), (a1, a2)],
            [(a4, half_0), (a1, a3)],
        ];
        let once = [(a0, a0), (a3, low_3), (a1, a1), (a4, low_4), (a2, a2)];

        let mut sums = start::<RAISED>([1, 2, 2, 2, 2]);
        for (k, pairs) in twice.iter().enumerate() {
            for &(a, b) in pairs {
                sums[k + 1] = _mm512_madd52hi_epu64(sums[k + 1], a, b);
            }
        }
        double(&mut sums[1..]);
        for (k, &(a, b)) in once.iter().enumerate() {
            sums[k + 1] = _mm512_madd52hi_epu64(sums[k + 1], a, b);
        }
        for (k, pairs) in twice.iter().enumerate() {
            for &(a, b) in pairs {
                sums[k] = _mm512_madd52lo_epu64(sums[k], a, b);
            }
        }
        double(&mut sums[..LIMBS]);
        for (k, &(a, b)) in once.iter().enumerate() {
            sums[k] = _mm512_madd52lo_epu64(sums[k], a, b);
        }
        fold(sums)
    }

    /// Squared `times` times.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn squares(&self, times: usize) -> Tight {
        let mut square = *self;
        for _ in 0..times {
            square = square.square().carry();
        }
        square
    }

    /// `self` + `other` · `factor`, for factors below 2¹⁷.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn add_multiple(&self, other: &Tight, factor: u64) -> Tight {
        let (factor, zero) = (all(factor), _mm512_setzero_si512());
        let mut sum = self.0;
        for (i, limb) in other.0.into_iter().enumerate() {
            let high = _mm512_madd52hi_epu64(zero, limb, factor);
            sum[i] = _mm512_madd52lo_epu64(sum[i], limb, factor);
            let (to, times) = if i + 1 < LIMBS {
                (i + 1, 2)
            } else {
                (0, 2 * 19)
            };
            sum[to] = _mm512_madd52lo_epu64(sum[to], high, all(times));
        }
        carry(sum)
    }

    /// One over each lane, or zero where the lane is zero.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn invert(&self) -> Tight {
        inverse(self, |a, b| a.mul(b).carry(), |a, times| a.squares(times))
    }

    /// Each lane as 32 bytes, canonical. The copies that it makes are erased.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn to_bytes(self) -> [[u8; 32]; LANES] {
        let mut stored = [[0; 64]; LIMBS];
        for (to, limb) in stored.iter_mut().zip(self.0) {
            store64(to, limb);
        }
        let mut bytes = [[0; 32]; LANES];
        for (lane, bytes) in bytes.iter_mut().enumerate() {
            let mut limbs = stored.each_ref().map(|limb| {
                let word: &[u8; 8] = crate::layout::array(limb, 8 * lane);
                u64::from_le_bytes(*word)
            });
            *bytes = canonical(&mut limbs);
        }
        stored.zeroize();
        bytes
    }
}

/// The limbs of 32 bytes, little-endian; the top bit is ignored (RFC 7748).
pub(super) fn split(bytes: &[u8; 32]) -> [u64; LIMBS] {
    let [a, b, c, d]: [u64; 4] = core::array::from_fn(|i| {
        let word: &[u8; 8] = crate::layout::array(bytes, 8 * i);
        u64::from_le_bytes(*word)
    });
    let limbs = [
        a,
        a >> 51 | b << 13,
        b >> 38 | c << 26,
        c >> 25 | d << 39,
        d >> 12,
    ];
    limbs.map(|limb| limb & LIMB_MASK)
}

/// The one number below p of these limbs as 32 bytes, in constant time. Erases the limbs.
pub(super) fn canonical(limbs: &mut [u64; LIMBS]) -> [u8; 32] {
    let ripple = |limbs: &mut [u64; LIMBS], mut carry: u64| {
        for limb in limbs.iter_mut() {
            *limb = limb.wrapping_add(carry); // never wraps; a check would be a branch
            carry = *limb >> LIMB_BITS;
            *limb &= LIMB_MASK;
        }
        carry
    };
    let over = ripple(limbs, 0);
    let over = ripple(limbs, 19 * over);
    limbs[0] = limbs[0].wrapping_add(19 * over);
    // Now below 2²⁵⁵ + a little; plus 19 it passes 2²⁵⁵ just if it is at least p.
    let mut plus = *limbs;
    let over = ripple(&mut plus, 19);
    ripple(limbs, 19 * over);
    plus.zeroize();

    let [a, b, c, d, e] = *limbs;
    limbs.zeroize();
    let words = [
        a | b << 51,
        b >> 13 | c << 38,
        c >> 26 | d << 25,
        d >> 39 | e << 12,
    ];
    let mut bytes = [0; 32];
    for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
    bytes
}

/// Carries once, all limbs at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn carry(limbs: [__m512i; LIMBS]) -> Tight {
    let mask = all(LIMB_MASK);
    let mut carried = limbs;
    for i in 0..LIMBS {
        let over = _mm512_srli_epi64::<LIMB_BITS>(limbs[(i + LIMBS - 1) % LIMBS]);
        let kept = _mm512_and_si512(limbs[i], mask);
        carried[i] = match i {
            0 => _mm512_madd52lo_epu64(kept, over, all(19)),
            _ => _mm512_add_epi64(kept, over),
        };
    }
    Tight(carried)
}

/// What the sums of a product start from: nothing, or what makes 2⁸ p of them when each has been
/// doubled so often.
#[inline]
#[target_feature(enable = "avx512f")]
fn start<const RAISED: bool>(doublings: [u32; LIMBS]) -> [__m512i; LIMBS + 1] {
    let mut sums = [_mm512_setzero_si512(); LIMBS + 1];
    if RAISED {
        for (i, doublings) in doublings.into_iter().enumerate() {
            sums[i] = all(prime(i, RAISED_BITS - doublings));
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
fn double(sums: &mut [__m512i]) {
    for sum in sums {
        *sum = _mm512_add_epi64(*sum, *sum);
    }
}

/// Six sums modulo p. The last is of high halves only, not doubled yet. It is late, so nothing but this
/// waits for it.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn fold(sums: [__m512i; LIMBS + 1]) -> [__m512i; LIMBS] {
    let [a, b, c, d, e, top] = sums;
    let a = _mm512_add_epi64(a, _mm512_mullo_epi64(top, all(2 * 19)));
    [a, b, c, d, e]
}

/// The 64-bit little-endian words of eight inputs: word i of every lane in vector i.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn words(bytes: [&[u8; 32]; LANES]) -> [__m512i; 4] {
    let mut vectors = [_mm512_setzero_si512(); 4];
    for (i, vector) in vectors.iter_mut().enumerate() {
        let word = |lane: usize| {
            let word: &[u8; 8] = crate::layout::array(bytes[lane], 8 * i);
            i64::from_le_bytes(*word)
        };
        *vector = _mm512_set_epi64(
            word(7),
            word(6),
            word(5),
            word(4),
            word(3),
            word(2),
            word(1),
            word(0),
        );
    }
    vectors
}

#[cfg(test)]
pub(super) mod tests;
