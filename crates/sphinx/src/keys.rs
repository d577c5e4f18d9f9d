//! X25519 keys of hops and recipients, checked when they are parsed.
//!
//! Spec: docs/spec/packet.md, PKT-4 and PKT-5.
//!
//! | quantity      | type          | unit, range                                              |
//! |---------------|---------------|----------------------------------------------------------|
//! | secret key    | [`SecretKey`] | 32 bytes, clamped when used                              |
//! | public key    | [`PublicKey`] | 32 bytes, u < 2²⁵⁵ − 19, a point of the prime-order group |
//!
//! Invariant: a [`PublicKey`] is free of torsion. Builders rest on that: they multiply scalars
//! modulo the group order, which is right for such points only; and no reader of a packet can
//! have been handed a key that everyone can compute with.

use core::fmt;

use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::traits::IsIdentity;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::curve::{Path, PathAbsent};
use crate::open::BATCH;

/// A private X25519 key. Erased when dropped; its `Debug` shows nothing (PKT-5).
#[derive(Clone, ZeroizeOnDrop)]
pub struct SecretKey {
    bytes: [u8; 32],
    #[zeroize(skip)]
    path: Path,
}

impl SecretKey {
    /// A new key from 32 bytes of `rng`.
    pub fn generate(rng: &mut impl CryptoRng) -> SecretKey {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        SecretKey::from_bytes(*bytes)
    }

    /// The key of these 32 bytes; any bytes are a key.
    pub fn from_bytes(bytes: [u8; 32]) -> SecretKey {
        SecretKey {
            bytes,
            path: Path::best(),
        }
    }

    /// The same key, used on `path`.
    ///
    /// # Errors
    /// [`PathAbsent`] if the processor lacks the path.
    pub fn on(mut self, path: Path) -> Result<SecretKey, PathAbsent> {
        self.path = path.require()?;
        Ok(self)
    }

    /// Which path it is used on.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// The key's 32 bytes, for storage.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.bytes)
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.path.public(&self.bytes))
    }

    /// [`SecretKey::shared_secret`] of each α, except that a secret of low order is left zero.
    pub(crate) fn shared_secrets(&self, alphas: &[&[u8; 32]], secrets: &mut [[u8; 32]]) {
        let scalars = [&self.bytes; BATCH];
        self.path
            .x25519_batch(&scalars[..alphas.len()], alphas, secrets);
    }

    /// The secret shared with the owner of `alpha`, or nothing if `alpha` is of low order (PKT-6).
    pub(crate) fn shared_secret(&self, alpha: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let secret = self.path.x25519(&self.bytes, alpha);
        // Whether it is zero leaks nothing: that depends on α alone.
        let contributory = !bool::from(secret.ct_eq(&[0; 32]));
        contributory.then_some(secret)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SecretKey(..)")
    }
}

/// A public X25519 key: canonical, and a point of the prime-order group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// Why 32 bytes are no [`PublicKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyError {
    /// The number is not below 2²⁵⁵ − 19: another spelling of some other key.
    NotCanonical,
    /// Of order 8 or less, on the curve or its twist: the shared secret would be zero for all.
    LowOrder,
    /// Not in the prime-order group: a point of it plus one of low order, or on the twist.
    Torsion,
}

impl PublicKey {
    /// Checks and takes a key (PKT-4).
    ///
    /// # Errors
    /// The first of [`KeyError`]'s reasons that holds.
    pub fn parse(bytes: [u8; 32]) -> Result<PublicKey, KeyError> {
        if !is_canonical(&bytes) {
            return Err(KeyError::NotCanonical);
        }
        let point = MontgomeryPoint(bytes);
        // Clamped zero is 2²⁵⁴: it takes low order to the identity, and nothing else.
        if point.mul_clamped([0; 32]).is_identity() {
            return Err(KeyError::LowOrder);
        }
        // The sign is free: a point and its negative have the same order.
        match point.to_edwards(0) {
            Some(point) if point.is_torsion_free() => Ok(PublicKey(bytes)),
            _ => Err(KeyError::Torsion),
        }
    }

    /// The key's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Whether the little-endian number is below 2²⁵⁵ − 19.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let prime_from_top = core::iter::once(0x7f)
        .chain([0xff; 30])
        .chain(core::iter::once(0xed));
    bytes.iter().rev().copied().lt(prime_from_top)
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;

    use super::*;

    fn public(seed: u8) -> [u8; 32] {
        *SecretKey::from_bytes([seed; 32]).public().as_bytes()
    }

    #[test]
    fn pkt_4_honest_keys_parse() {
        // An interpreter takes seconds for each.
        for seed in 0..=if cfg!(miri) { 3 } else { 255 } {
            let bytes = public(seed);
            assert_eq!(
                PublicKey::parse(bytes).map(|key| *key.as_bytes()),
                Ok(bytes)
            );
        }
    }

    #[test]
    fn pkt_4_other_spellings_and_torsion_are_refused() {
        for seed in 0..if cfg!(miri) { 1 } else { 32 } {
            let honest = public(seed);
            let mut top_set = honest;
            top_set[31] |= 0x80;
            assert_eq!(PublicKey::parse(top_set), Err(KeyError::NotCanonical));

            let point = MontgomeryPoint(honest).to_edwards(0).unwrap();
            for low in &EIGHT_TORSION[1..] {
                let mixed = (point + low).to_montgomery().to_bytes();
                assert_eq!(PublicKey::parse(mixed), Err(KeyError::Torsion));
            }
        }
        // u = 2 lies on the twist.
        let mut twist = [0; 32];
        twist[0] = 2;
        assert_eq!(MontgomeryPoint(twist).to_edwards(0), None);
        assert_eq!(PublicKey::parse(twist), Err(KeyError::Torsion));
    }

    #[test]
    fn pkt_4_canonical_is_below_the_prime() {
        let mut bytes = [0xff; 32];
        bytes[31] = 0x7f;
        for (last, canonical) in [(0xec, true), (0xed, false), (0xee, false), (0xff, false)] {
            bytes[0] = last;
            assert_eq!(is_canonical(&bytes), canonical, "{last:02x}");
        }
        bytes[1] = 0xfe;
        assert!(is_canonical(&bytes));
        assert!(is_canonical(&[0; 32]));
        assert!(!is_canonical(&[0x80; 32]));
    }

    /// PKT-5
    #[test]
    fn pkt_5_secrets_print_as_nothing_and_are_erased() {
        fn erased<T: ZeroizeOnDrop>() {}
        erased::<SecretKey>();
        erased::<crate::Opened>();
        erased::<crate::Surb>();
        erased::<crate::SurbSecret>();
        erased::<crate::secrets::Secrets>();

        let key = SecretKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "SecretKey(..)");
        assert_eq!(
            *SecretKey::from_bytes(*key.to_bytes()).to_bytes(),
            [0xab; 32]
        );
    }
}
