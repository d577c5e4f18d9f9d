//! Scalar multiplication on Curve25519: where most of a packet's time goes.
//!
//! Spec: docs/spec/packet.md, PKT-6, PKT-12, PKT-14.
//!
//! | path                 | code                                        | where                      |
//! |----------------------|---------------------------------------------|----------------------------|
//! | [`Path::Assembly`]   | aws-lc's X25519: formally verified assembly  | x86-64 and aarch64          |
//! | [`Path::Portable`]   | `x25519-dalek`, pure Rust                    | everywhere; alone in miri   |
//! | [`Path::Avx2`]       | four at a time (`lanes/avx2.rs`), else as    | x86-64 with AVX2            |
//! |                      | `Assembly`                                  |                             |
//! | [`Path::Lanes`]      | eight at a time (`lanes/x25519.rs`), one or  | x86-64 with AVX-512 IFMA    |
//! |                      | two left over each across four lanes         |                             |
//! |                      | (`lanes/single.rs`); of the base point one   |                             |
//! |                      | at a time as `Assembly`, which has a table   |                             |
//!
//! All are constant time by construction and give the same bytes for every input, those of
//! RFC 7748: the top bit of a point is ignored, points are reduced, scalars are clamped. The
//! portable path is always compiled: it is the other's twin in the tests.
//!
//! **Builders** have a scalar k modulo the group order ℓ where X25519 wants a clamped one.
//! [`multiply`] finds it: a clamped integer is 8m with 2²⁵¹ ≤ m < 2²⁵². Points free of torsion do not
//! tell k from 8m if m = k/8 mod ℓ, and X25519 does not tell a point from its negative, so ℓ − m
//! does as well as m; one of the two lies in the range, except with probability 2⁻¹²⁵ (ℓ is that
//! close to 2²⁵²).
//!
//! `unsafe`: two calls into aws-lc. Each reads and writes exactly the 32 bytes that the types of
//! its arguments hold, keeps no pointer, and has no other requirement (`curve25519.h`).

#![expect(
    unsafe_code,
    reason = "raw calls into aws-lc, which the file header justifies"
)]

use curve25519_dalek::scalar::Scalar;
use subtle::{Choice, ConditionallySelectable};
use zeroize::{Zeroize, Zeroizing};

use crate::lanes::{Avx2, FOUR, LANES, Lanes};

/// 32 bytes of a point's u coordinate, little-endian.
pub(crate) type Point = [u8; 32];

/// How packets are computed; the bytes are the same on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Pure Rust.
    Portable,
    /// aws-lc's assembly.
    Assembly,
    /// AVX2: the multiplications of four packets at a time, all else as on [`Path::Assembly`].
    Avx2,
    /// AVX-512 IFMA: eight packets at a time, or four lanes for a packet by itself.
    Lanes,
}

/// A path that this processor does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathAbsent(pub Path);

impl core::fmt::Display for PathAbsent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "this processor has no path \"{}\"; the fastest that it has is \"{}\"",
            self.0.name(),
            Path::best().name()
        )
    }
}

impl core::error::Error for PathAbsent {}

impl Path {
    /// Every path, slowest first.
    pub const ALL: [Path; 4] = [Path::Portable, Path::Assembly, Path::Avx2, Path::Lanes];

    /// The paths of this processor, slowest first.
    pub fn present() -> impl Iterator<Item = Path> {
        Path::ALL.into_iter().filter(|path| path.require().is_ok())
    }

    /// The fastest path of this processor.
    #[must_use]
    pub fn best() -> Path {
        Path::present().last().expect("one is everywhere")
    }

    /// This path, if the processor has it.
    ///
    /// # Errors
    /// [`PathAbsent`] if not.
    pub fn require(self) -> Result<Path, PathAbsent> {
        let present = match self {
            Path::Portable => true,
            // miri runs Rust alone.
            Path::Assembly => !cfg!(miri),
            Path::Avx2 => Avx2::detect().is_some(),
            Path::Lanes => Lanes::detect().is_some(),
        };
        present.then_some(self).ok_or(PathAbsent(self))
    }

    /// `portable`, `assembly`, `avx2` or `lanes`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Path::Portable => "portable",
            Path::Assembly => "assembly",
            Path::Avx2 => "avx2",
            Path::Lanes => "lanes",
        }
    }

    /// The lanes, if this path and the processor have them.
    pub(crate) fn lanes(self) -> Option<Lanes> {
        match self {
            Path::Lanes => Lanes::detect(),
            Path::Portable | Path::Assembly | Path::Avx2 => None,
        }
    }

    fn avx2(self) -> Option<Avx2> {
        match self {
            Path::Avx2 => Avx2::detect(),
            Path::Portable | Path::Assembly | Path::Lanes => None,
        }
    }

    /// How many packets' multiplications are computed together, if as many are there: 1, 4 or 8.
    #[must_use]
    pub const fn together(self) -> usize {
        match self {
            Path::Portable | Path::Assembly => 1,
            Path::Avx2 => FOUR,
            Path::Lanes => LANES,
        }
    }

    /// [`Path::x25519`] of each scalar and point.
    ///
    /// # Panics
    /// If there are not as many of each: our own bug.
    pub(crate) fn x25519_batch(
        self,
        scalars: &[&[u8; 32]],
        points: &[&Point],
        products: &mut [Point],
    ) {
        assert!(scalars.len() == products.len() && points.len() == products.len());
        // A pass takes the same time whatever its fill: longer than two by themselves, not than three.
        let rest = products.len() % self.together();
        let passes = products.len() - if rest <= 2 { rest } else { 0 };
        let (together, alone) = products.split_at_mut(passes);
        if let Some(lanes) = self.lanes() {
            lanes.x25519_batch(&scalars[..passes], &points[..passes], together);
        } else if let Some(avx2) = self.avx2() {
            avx2.x25519_batch(&scalars[..passes], &points[..passes], together);
        } else {
            self.x25519_each(&scalars[..passes], &points[..passes], together);
        }
        self.x25519_each(&scalars[passes..], &points[passes..], alone);
    }

    /// [`Path::x25519`] of each by itself.
    fn x25519_each(self, scalars: &[&[u8; 32]], points: &[&Point], products: &mut [Point]) {
        for ((product, scalar), point) in products.iter_mut().zip(scalars).zip(points) {
            *product = *self.x25519(scalar, point);
        }
    }

    /// X25519 of RFC 7748: `scalar`, clamped, times `point`. All zero if the point is of low order.
    pub(crate) fn x25519(self, scalar: &[u8; 32], point: &Point) -> Zeroizing<Point> {
        if let Some(lanes) = self.lanes() {
            return lanes.x25519(scalar, point);
        }
        match self {
            Path::Portable => {
                let scalar = x25519_dalek::StaticSecret::from(*scalar);
                let shared = scalar.diffie_hellman(&x25519_dalek::PublicKey::from(*point));
                Zeroizing::new(shared.to_bytes())
            }
            Path::Assembly | Path::Avx2 | Path::Lanes => {
                let mut out = Zeroizing::new([0; 32]);
                // SAFETY: three pointers to 32 bytes each, the first of them writable and apart
                // from the others.
                let _contributory = unsafe {
                    aws_lc_sys::X25519(out.as_mut_ptr(), scalar.as_ptr(), point.as_ptr())
                };
                out
            }
        }
    }

    /// `scalar`, clamped, times the base point.
    pub(crate) fn public(self, scalar: &[u8; 32]) -> Point {
        match self {
            Path::Portable => {
                curve25519_dalek::MontgomeryPoint::mul_base_clamped(*scalar).to_bytes()
            }
            Path::Assembly | Path::Avx2 | Path::Lanes => {
                let mut out = [0; 32];
                // SAFETY: two pointers to 32 bytes each, the first of them writable and apart
                // from the other.
                unsafe {
                    aws_lc_sys::X25519_public_from_private(out.as_mut_ptr(), scalar.as_ptr());
                }
                out
            }
        }
    }
}

/// 1/8 modulo ℓ, little-endian.
const EIGHTH: [u8; 32] = [
    0x79, 0x2f, 0xdc, 0xe2, 0x29, 0xe5, 0x06, 0x61, 0xd0, 0xda, 0x1c, 0x7d, 0xb3, 0x9d, 0xd3, 0x07,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x06,
];

/// `k` times `point`, which must be free of torsion.
pub(crate) fn multiply(path: Path, k: &Scalar, point: &Point) -> Zeroizing<Point> {
    let scalar = clamped(k);
    path.x25519(&scalar, point)
}

/// [`multiply`] of each scalar and point.
///
/// # Panics
/// If there are not as many of each: our own bug.
pub(crate) fn multiply_batch(path: Path, ks: &[Scalar], points: &[&Point], products: &mut [Point]) {
    let scalars: Vec<_> = ks.iter().map(clamped).collect();
    let scalars: Vec<&[u8; 32]> = scalars.iter().map(|scalar| &**scalar).collect();
    path.x25519_batch(&scalars, points, products);
}

/// A clamped integer that takes every torsion-free point where ±k does.
fn clamped(k: &Scalar) -> Zeroizing<[u8; 32]> {
    let mut m = k * Scalar::from_bytes_mod_order(EIGHTH);
    // 2²⁵¹ ≤ m: bit 251 is bit 3 of the last byte; m < ℓ < 2²⁵³, and m ≥ 2²⁵² is the case that
    // does not happen.
    let fits = Choice::from((m.as_bytes()[31] >> 3) & 1);
    let mut negative = -m;
    let mut chosen = Scalar::conditional_select(&negative, &m, fits);
    let mut bytes = Zeroizing::new([0; 32]);
    // Times eight, as an integer.
    let mut carry = 0;
    for (to, from) in bytes.iter_mut().zip(chosen.as_bytes()) {
        *to = (from << 3) | carry;
        carry = from >> 5;
    }
    m.zeroize();
    negative.zeroize();
    chosen.zeroize();
    bytes
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::{constants::EIGHT_TORSION, montgomery::MontgomeryPoint};

    use super::*;

    /// Bytes that depend on `i` alone.
    fn sample(i: u64) -> [u8; 32] {
        use sha2::Digest;
        sha2::Sha256::digest(i.to_be_bytes()).into()
    }

    fn unhex(text: &str) -> [u8; 32] {
        let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap();
        core::array::from_fn(byte)
    }

    /// RFC 7748, 5.2: both single vectors, and 1000 iterations.
    #[test]
    fn pkt_6_rfc_7748() {
        let single = [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ),
        ];
        for path in Path::present() {
            println!("path {}", path.name());
            for (scalar, point, result) in single {
                assert_eq!(*path.x25519(&unhex(scalar), &unhex(point)), unhex(result));
            }
            let (mut k, mut u) = ([0; 32], [0; 32]);
            (k[0], u[0]) = (9, 9);
            for i in 0..1000 {
                (k, u) = (*path.x25519(&k, &u), k);
                if i == 0 {
                    let once = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
                    assert_eq!(k, unhex(once));
                }
            }
            let thousand = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
            assert_eq!(k, unhex(thousand));
        }
    }

    /// Random points, and those at every edge.
    fn points() -> Vec<Point> {
        let mut points: Vec<Point> = (0..512).map(sample).collect();
        let mut prime = [0xff; 32];
        prime[31] = 0x7f;
        for low in [0xec, 0xed, 0xee] {
            prime[0] = low;
            points.push(prime);
        }
        points.extend([[0; 32], [0xff; 32], sample(1).map(|byte| byte | 0x80)]);
        points.push(core::array::from_fn(|i| u8::from(i == 0)));
        points.extend(EIGHT_TORSION.map(|point| point.to_montgomery().to_bytes()));
        points
    }

    /// PKT-22: one at a time.
    #[test]
    fn pkt_22_paths_agree() {
        let points = points();
        for (i, point) in (1000..).zip(&points) {
            for scalar in [sample(i), [0; 32], [0xff; 32]] {
                let product = Path::Portable.x25519(&scalar, point);
                let public = Path::Portable.public(&scalar);
                for path in Path::present() {
                    assert_eq!(*path.x25519(&scalar, point), *product, "{point:02x?}");
                    assert_eq!(path.public(&scalar), public);
                }
            }
        }
        // The positive control: another scalar gives another point.
        let [a, b] = [1, 2].map(|i| Path::best().x25519(&sample(i), &points[0]));
        assert_ne!(*a, *b);
    }

    /// PKT-22: batches of every length, the edges in every lane; and of many, with one scalar for all.
    #[test]
    fn pkt_22_batches_agree() {
        let edges = points().split_off(500);
        for path in Path::present() {
            println!("path {}", path.name());
            for len in 0..=70 {
                let points: Vec<Point> = (0..len)
                    .map(|i| match i % 3 {
                        0 => sample(i + 100 * len),
                        _ => edges[usize::try_from(i + len).unwrap() % edges.len()],
                    })
                    .collect();
                let mut scalars: Vec<[u8; 32]> = (0..len).map(|i| sample(i + 9000 * len)).collect();
                if len % 4 == 0 {
                    scalars.fill([0xff; 32]);
                }
                let twins: Vec<Point> = scalars
                    .iter()
                    .zip(&points)
                    .map(|(scalar, point)| *Path::Portable.x25519(scalar, point))
                    .collect();
                let mut products = vec![[7; 32]; points.len()];
                path.x25519_batch(
                    &scalars.iter().collect::<Vec<_>>(),
                    &points.iter().collect::<Vec<_>>(),
                    &mut products,
                );
                assert_eq!(products, twins, "{len}");
            }
        }
    }

    /// RFC 7748, 5.2: 1000 iterations, in all lanes at once.
    #[test]
    fn pkt_6_rfc_7748_in_batches() {
        for path in Path::present() {
            println!("path {}", path.name());
            let mut k = [[0; 32]; 8];
            k.iter_mut().for_each(|k| k[0] = 9);
            let mut u = k;
            for _ in 0..1000 {
                let mut next = [[0; 32]; 8];
                path.x25519_batch(&k.each_ref(), &u.each_ref(), &mut next);
                (k, u) = (next, k);
            }
            let thousand = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
            assert_eq!(k, [unhex(thousand); 8]);
        }
    }

    /// More than a million lanes of each path that has any, and as many of multiplications by themselves,
    /// random and at the edges. Run with
    /// `cargo test --release -p sphinx -- --ignored a_million_lanes`.
    #[test]
    #[ignore = "a minute in release; its command stands above and in docs/PERFORMANCE.md"]
    fn pkt_22_a_million_lanes_agree() {
        let paths: Vec<_> = Path::present().filter(|path| path.together() > 1).collect();
        if paths.is_empty() {
            return println!("not tested: this processor has no lanes");
        }
        println!("paths {paths:?}");
        let edges = points().split_off(500);
        for round in 0..(1 << 15) {
            let scalars: [[u8; 32]; 32] = core::array::from_fn(|i| sample(round * 64 + i as u64));
            let points: [Point; 32] =
                core::array::from_fn(|i| match (i + usize::try_from(round).unwrap()) % 8 {
                    0 => edges[(usize::try_from(round).unwrap() + i) % edges.len()],
                    _ => sample(round * 64 + 32 + i as u64),
                });
            let twins: [Point; 32] =
                core::array::from_fn(|i| *Path::Assembly.x25519(&scalars[i], &points[i]));
            for path in &paths {
                let mut products = [[0; 32]; 32];
                path.x25519_batch(&scalars.each_ref(), &points.each_ref(), &mut products);
                assert_eq!(products, twins, "{}", path.name());
            }
            // Four lanes for each, where there are eight.
            for i in (0..32).step_by(4) {
                if let Some(lanes) = Path::best().lanes() {
                    let single = lanes.x25519(&scalars[i], &points[i]);
                    assert_eq!(*single, twins[i]);
                }
            }
        }
    }

    /// PKT-14
    #[test]
    fn pkt_14_scalars_modulo_the_order_are_taken_as_they_are() {
        for i in 0..512 {
            let k = Scalar::from_bytes_mod_order(sample(i));
            let point = Path::Portable.public(&sample(i + 1000));
            let expected = (k * MontgomeryPoint(point)).to_bytes();
            for path in Path::present() {
                assert_eq!(*multiply(path, &k, &point), expected);
            }
            assert_eq!(
                Scalar::from(8u8) * Scalar::from_bytes_mod_order(EIGHTH),
                Scalar::ONE
            );
            let bytes = clamped(&k);
            assert_eq!(bytes[0] & 7, 0);
            assert_eq!(bytes[31] >> 6, 1);
        }
    }
}
