//! Secrets of which each follows from the one before, and never back: erasing one erases all before it.
//!
//! HKDF-SHA256 (RFC 5869) with the secret as the pseudorandom key, 32 bytes at a time.

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

/// A link of a chain, or what is derived from one.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// What follows from `secret` for one purpose.
pub(crate) fn derive(secret: &[u8; 32], what: &[u8]) -> Secret {
    let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, secret);
    let mut derived = Zeroizing::new([0; 32]);
    let info = [what];
    let expanded = secret.expand(&info, hkdf::HKDF_SHA256);
    let filled = expanded.and_then(|expanded| expanded.fill(&mut *derived));
    filled.expect("32 bytes are what one block gives");
    derived
}

/// The secret that comes `steps` after `secret`; `next` is the purpose that leads from one to the next.
pub(crate) fn run(secret: &Secret, steps: u64, next: &[u8]) -> Secret {
    (0..steps).fold(secret.clone(), |secret, _| derive(&secret, next))
}
