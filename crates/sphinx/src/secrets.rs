//! What a hop derives from the secret it shares with the builder.
//!
//! Spec: docs/spec/packet.md, PKT-5, PKT-7 and PKT-8.
//!
//! | key           | bytes of the expansion | use                                        |
//! |---------------|------------------------|--------------------------------------------|
//! | stream key    | 0..16                  | AES-128-CTR over β                         |
//! | MAC key       | 16..32                 | HMAC-SHA256 over β, first 16 bytes         |
//! | payload seed  | 32..48                 | HKDF-SHA256 → 192 bytes → LIONESS          |
//! | blinding      | 224..256               | clamped scalar that turns α into the next  |
//! | tag           | 256..288               | replay tag                                 |
//!
//! Bytes 48..224 belong to older versions and are used by nothing.
//!
//! Invariant: all of it is erased when dropped. (Not erased: working copies on the stack, of vector
//! lanes and of moves.)

use aes::cipher::{KeyInit, KeyIvInit, StreamCipher};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use sphinx_packet::constants::{
    EXPANDED_SHARED_SECRET_HKDF_INFO, EXPANDED_SHARED_SECRET_HKDF_SALT,
    EXPANDED_SHARED_SECRET_LENGTH,
};
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use crate::erasing::erase;
use crate::layout::{BETA_LEN, GAMMA_LEN, SEED_LEN, STREAM_LEN, Tag, array};

const STREAM_KEY: usize = 0;
const MAC_KEY: usize = 16;
const PAYLOAD_SEED: usize = 32;
const BLINDING: usize = 224;
const TAG: usize = 256;

/// The keys of one hop for one packet, erased when dropped (PKT-5).
#[derive(Clone)]
pub(crate) struct Secrets([u8; EXPANDED_SHARED_SECRET_LENGTH]);

impl Drop for Secrets {
    fn drop(&mut self) {
        erase(&mut self.0);
    }
}

impl ZeroizeOnDrop for Secrets {}

impl Secrets {
    /// Expands a shared secret (PKT-7).
    pub(crate) fn expand(shared_secret: &[u8; 32]) -> Secrets {
        let mut expanded = [0; EXPANDED_SHARED_SECRET_LENGTH];
        Hkdf::<Sha256>::new(Some(EXPANDED_SHARED_SECRET_HKDF_SALT), shared_secret)
            .expand(EXPANDED_SHARED_SECRET_HKDF_INFO, &mut expanded)
            .expect("288 bytes are within the limit of HKDF-SHA256");
        Secrets(expanded)
    }

    /// Nobody's keys, to be overwritten by the lanes' expansion.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn zero() -> Secrets {
        Secrets([0; EXPANDED_SHARED_SECRET_LENGTH])
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; EXPANDED_SHARED_SECRET_LENGTH] {
        &mut self.0
    }

    pub(crate) fn mac_key(&self) -> &[u8; 16] {
        array(&self.0, MAC_KEY)
    }

    pub(crate) fn tag(&self) -> &Tag {
        array(&self.0, TAG)
    }

    pub(crate) fn payload_seed(&self) -> &[u8; SEED_LEN] {
        array(&self.0, PAYLOAD_SEED)
    }

    /// The bytes of the blinding factor, not yet clamped.
    pub(crate) fn blinding(&self) -> &[u8; 32] {
        array(&self.0, BLINDING)
    }

    /// Adds (or takes off) the first bytes of this hop's key stream.
    pub(crate) fn apply_stream(&self, bytes: &mut [u8]) {
        debug_assert!(bytes.len() <= STREAM_LEN);
        let key: &[u8; 16] = array(&self.0, STREAM_KEY);
        ctr::Ctr64BE::<aes::Aes128>::new(key.into(), &Default::default()).apply_keystream(bytes);
    }

    /// γ of a β.
    pub(crate) fn mac(&self, beta: &[u8; BETA_LEN]) -> [u8; GAMMA_LEN] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.mac_key()).expect("HMAC takes a key of any length");
        mac.update(beta);
        *array(&mac.finalize().into_bytes(), 0)
    }

    /// Whether γ belongs to β, in constant time (PKT-8).
    pub(crate) fn verify(&self, beta: &[u8; BETA_LEN], gamma: &[u8; GAMMA_LEN]) -> bool {
        self.mac(beta).ct_eq(gamma).into()
    }
}
