//! The arithmetic of the lanes at the bounds of its limbs, against plain arithmetic.

use super::*;
use crate::lanes::{Lanes, vector::load64};

pub(in crate::lanes) type Limbs = [u64; LIMBS];

/// Limbs of any size in plain arithmetic, as the one number below p.
pub(in crate::lanes) fn reduce(limbs: [u128; LIMBS]) -> Limbs {
    let ripple = |mut limbs: [u128; LIMBS], mut carry: u128| {
        for limb in &mut limbs {
            *limb += carry;
            carry = *limb >> LIMB_BITS;
            *limb &= u128::from(LIMB_MASK);
        }
        (limbs, carry)
    };
    let (mut limbs, mut carry) = ripple(limbs, 0);
    while carry > 0 {
        (limbs, carry) = ripple(limbs, 19 * carry);
    }
    let (plus, over) = ripple(limbs, 19);
    let below = if over > 0 { plus } else { limbs };
    below.map(|limb| u64::try_from(limb).expect("51 bits"))
}

pub(in crate::lanes) fn product(a: Limbs, b: Limbs) -> Limbs {
    let mut sums = [0; LIMBS];
    for (i, a) in a.into_iter().enumerate() {
        for (j, b) in b.into_iter().enumerate() {
            let fold = if i + j < LIMBS { 1 } else { 19 };
            sums[(i + j) % LIMBS] += fold * u128::from(a) * u128::from(b);
        }
    }
    reduce(sums)
}

pub(in crate::lanes) fn bytes_of(limbs: Limbs) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (bit, byte) in (0..).step_by(8).zip(&mut bytes) {
        let (at, shift) = (bit / 51, bit % 51);
        let next = limbs.get(at + 1).map_or(0, |next| u128::from(*next) << 51);
        let [low, ..] = ((u128::from(limbs[at]) | next) >> shift).to_le_bytes();
        *byte = low;
    }
    bytes
}

#[target_feature(enable = "avx512f")]
fn load(lanes: [Limbs; LANES]) -> [__m512i; LIMBS] {
    let mut vectors = [_mm512_setzero_si512(); LIMBS];
    for (i, vector) in vectors.iter_mut().enumerate() {
        let mut row = [0; 64];
        for (to, lane) in row.chunks_mut(8).zip(lanes) {
            to.copy_from_slice(&lane[i].to_le_bytes());
        }
        *vector = load64(&row);
    }
    vectors
}

#[target_feature(enable = "avx512f")]
fn unload(vectors: [__m512i; LIMBS]) -> [Limbs; LANES] {
    let mut lanes = [[0; LIMBS]; LANES];
    for (i, vector) in vectors.into_iter().enumerate() {
        let mut row = [0; 64];
        store64(&mut row, vector);
        for (lane, from) in lanes.iter_mut().zip(row.chunks(8)) {
            lane[i] = u64::from_le_bytes(from.try_into().expect("eight bytes"));
        }
    }
    lanes
}

/// The largest limb that may be multiplied.
pub(in crate::lanes) const TIGHT: u64 = (1 << 51) + (1 << 18) - 1;

/// Any words.
pub(in crate::lanes) fn random() -> impl FnMut() -> u64 {
    let mut state = 88_172_645_463_325_252_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Draws numbers whose limbs are at the edges up to a largest one, and between them.
pub(in crate::lanes) fn draws() -> impl FnMut(u64) -> Limbs {
    let around = [
        0,
        1,
        18,
        19,
        (1 << 51) - 38,
        (1 << 51) - 20,
        (1 << 51) - 19,
        LIMB_MASK,
    ];
    let mut draw = random();
    move |max| {
        core::array::from_fn(|_| match draw() % 16 {
            i @ 0..8 => around[usize::try_from(i).expect("few")],
            8..10 => 1 << 51,
            10..13 => max,
            _ => draw() % (max + 1),
        })
    }
}

/// PKT-22: every operation at the largest and smallest limbs that its kind may have, and at those
/// around p and 2⁵¹, against plain arithmetic. Random numbers reach some of the carries once in
/// 2⁴³.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn hold_at_the_bounds() {
    const LOOSE: u64 = (1 << 58) - 1;
    const RAISED: u64 = LOOSE + (1 << 59);
    let mut draw = draws();
    let mut lanes = |max: u64| -> [Limbs; LANES] { core::array::from_fn(|_| draw(max)) };
    let wide = |limbs: Limbs| limbs.map(u128::from);
    for round in 0..20_000 {
        let (a, b) = if round == 0 {
            ([[TIGHT; LIMBS]; LANES], [[TIGHT; LIMBS]; LANES])
        } else {
            (lanes(TIGHT), lanes(TIGHT))
        };
        let (c, d) = match round {
            0 => ([[LOOSE; LIMBS]; LANES], [[LOOSE; LIMBS]; LANES]),
            1 => ([[0; LIMBS]; LANES], [[LOOSE; LIMBS]; LANES]),
            _ => (lanes(LOOSE), lanes(LOOSE)),
        };
        let (x, y) = (Tight(load(a)), Tight(load(b)));
        let (u, v) = (Loose(load(c)).raise(), Loose(load(d)));
        for (ours, other, max) in [
            (x.mul(&y).0, b, LOOSE),
            (x.square().0, a, LOOSE),
            (x.mul_raised(&y).0, b, RAISED),
            (x.square_raised().0, a, RAISED),
        ] {
            let is_raised = max == RAISED;
            for (lane, ours) in unload(ours).into_iter().enumerate() {
                assert!(ours.iter().all(|limb| *limb <= max));
                let least = |i| if is_raised { prime(i, RAISED_BITS) } else { 0 };
                assert!((0..LIMBS).all(|i| ours[i] >= least(i)));
                assert_eq!(reduce(wide(ours)), product(a[lane], other[lane]));
            }
        }
        let each = |f: &dyn Fn(usize, usize) -> u128| -> [Limbs; LANES] {
            core::array::from_fn(|lane| reduce(core::array::from_fn(|i| f(lane, i))))
        };
        let (w, k) = (u128::from, 121_665);
        for (ours, plain) in [
            (x, a.map(|lane| reduce(wide(lane)))),
            (u.carry(), c.map(|lane| reduce(wide(lane)))),
            (u.add(&v), each(&|lane, i| w(c[lane][i]) + w(d[lane][i]))),
            (
                u.sub(&v),
                each(&|lane, i| w(c[lane][i]) + w(prime(i, RAISED_BITS)) - w(d[lane][i])),
            ),
            (
                x.add_multiple(&y, k),
                each(&|lane, i| w(a[lane][i]) + w(b[lane][i]) * w(k)),
            ),
        ] {
            for lane in unload(ours.0) {
                assert!(lane.iter().all(|limb| *limb <= TIGHT));
            }
            assert_eq!(ours.to_bytes(), plain.map(bytes_of));
        }
    }
}

#[test]
#[expect(unsafe_code, reason = "a function for processors with lanes")]
fn pkt_22_lanes_compute_at_the_bounds_of_their_limbs() {
    if Lanes::detect().is_none() {
        return println!("not tested: this processor has no lanes");
    }
    // SAFETY: the processor has been asked.
    unsafe { hold_at_the_bounds() }
}
