//! Division modulo p = 2²⁵⁵ − 19, whatever form the lanes' numbers have.
//!
//! Constant time: no branch and no address depends on a number. What is computed on the way lives in
//! registers and on the stack, and is not erased there (PKT-5 says so).

use subtle::{ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroize;

/// Vectors that share an inversion, at most.
pub(super) const GROUPS_MAX: usize = 8;

/// One over `number`, or zero if it is zero: the power of p − 2, by products (`by`) and by squares of
/// squares, so many times (`squares`).
pub(super) fn inverse<F>(
    number: &F,
    by: impl Fn(&F, &F) -> F,
    squares: impl Fn(&F, usize) -> F,
) -> F {
    let e2 = squares(number, 1);
    let e9 = by(&squares(&e2, 2), number);
    let e11 = by(&e9, &e2);
    // 2⁵ − 1 ones, and so on.
    let ones_5 = by(&squares(&e11, 1), &e9);
    let ones_10 = by(&squares(&ones_5, 5), &ones_5);
    let ones_20 = by(&squares(&ones_10, 10), &ones_10);
    let ones_40 = by(&squares(&ones_20, 20), &ones_20);
    let ones_50 = by(&squares(&ones_40, 10), &ones_10);
    let ones_100 = by(&squares(&ones_50, 50), &ones_50);
    let ones_200 = by(&squares(&ones_100, 100), &ones_100);
    let ones_250 = by(&squares(&ones_200, 50), &ones_50);
    by(&squares(&ones_250, 5), &e11)
}

/// The arithmetic of vectors `F` of `N` numbers.
pub(super) struct Arithmetic<By, Invert, To, From> {
    /// Products, lane by lane.
    pub(super) by: By,
    /// One over each lane, or zero where it is zero.
    pub(super) invert: Invert,
    /// 32 bytes of each lane, little-endian, canonical.
    pub(super) to_bytes: To,
    /// What has these bytes.
    pub(super) from_bytes: From,
}

impl<By, Invert, To, From> Arithmetic<By, Invert, To, From> {
    /// `quotients[i]` = lane i mod `N` of the first numbers of `ratios[i / N]` over that of the second,
    /// canonical; zero if the second is zero. One inversion for all (Montgomery's trick).
    ///
    /// # Panics
    /// If there are no ratios, more than [`GROUPS_MAX`], or fewer lanes than quotients: our own bug.
    pub(super) fn divide<F: Copy, const N: usize>(
        &self,
        ratios: &mut [(F, F)],
        quotients: &mut [[u8; 32]],
    ) where
        By: Fn(&F, &F) -> F,
        Invert: Fn(&F) -> F,
        To: Fn(&F) -> [[u8; 32]; N],
        From: Fn([&[u8; 32]; N]) -> F,
    {
        assert!(ratios.len() <= GROUPS_MAX && quotients.len() <= N * ratios.len());
        // A lane whose denominator is zero is divided by one instead, and its quotient erased by a mask.
        let mut vanish = [[0u8; N]; GROUPS_MAX];
        for ((_, below), vanish) in ratios.iter_mut().zip(&mut vanish) {
            *below = self.without_zeros(below, vanish);
        }
        // Products of all denominators up to each, then one inversion, then back.
        let mut up_to = [ratios[0].1; GROUPS_MAX];
        for group in 1..ratios.len() {
            up_to[group] = (self.by)(&up_to[group - 1], &ratios[group].1);
        }
        let mut inverse = (self.invert)(&up_to[ratios.len() - 1]);
        for (group, (above, below)) in ratios.iter().enumerate().rev() {
            let own = match group {
                0 => inverse,
                _ => (self.by)(&inverse, &up_to[group - 1]),
            };
            inverse = (self.by)(&inverse, below);
            let mut bytes = (self.to_bytes)(&(self.by)(above, &own));
            let to_group = quotients.iter_mut().skip(group * N);
            for (to, (from, vanish)) in to_group.zip(bytes.iter().zip(vanish[group])) {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = from & !vanish;
                }
            }
            bytes.zeroize();
        }
    }

    /// `numbers` with ones in place of zeros, and which lanes were zero, as bytes of ones.
    fn without_zeros<F, const N: usize>(&self, numbers: &F, zero: &mut [u8; N]) -> F
    where
        To: Fn(&F) -> [[u8; 32]; N],
        From: Fn([&[u8; 32]; N]) -> F,
    {
        let mut bytes = (self.to_bytes)(numbers);
        for (bytes, zero) in bytes.iter_mut().zip(zero) {
            let is_zero = bytes.ct_eq(&[0; 32]);
            bytes[0].conditional_assign(&1, is_zero);
            zero.conditional_assign(&0xff, is_zero);
        }
        let numbers = (self.from_bytes)(bytes.each_ref());
        bytes.zeroize();
        numbers
    }
}
