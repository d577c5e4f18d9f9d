//! Stands in for the vector lanes on processors that can't have them: types without values.
//!
//! Same interface as `lanes/mod.rs`, so that callers need no conditions.

use sphinx_packet::constants::PAYLOAD_KEY_SIZE;
use zeroize::Zeroizing;

use crate::layout::{BETA_LEN, GAMMA_LEN, SEED_LEN};
use crate::secrets::Secrets;

/// How many packets a pass would take.
pub(crate) const LANES: usize = 8;
/// So many packets would be hashed faster by themselves.
pub(crate) const FEW: usize = 3;

/// How many multiplications a pass by AVX2 would take.
pub(crate) const FOUR: usize = 4;

/// Keys of eight wide blocks, erased when dropped.
pub(crate) type PayloadKeys = Zeroizing<[[u8; PAYLOAD_KEY_SIZE]; LANES]>;

/// Never there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lanes {}

impl Lanes {
    pub(crate) fn detect() -> Option<Lanes> {
        None
    }

    pub(crate) fn x25519(self, _: &[u8; 32], _: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        match self {}
    }

    pub(crate) fn x25519_batch(self, _: &[&[u8; 32]], _: &[&[u8; 32]], _: &mut [[u8; 32]]) {
        match self {}
    }

    pub(crate) fn expand(self, _: [&[u8; 32]; LANES]) -> [Secrets; LANES] {
        match self {}
    }

    pub(crate) fn mac(
        self,
        _: [&Secrets; LANES],
        _: [&[u8; BETA_LEN]; LANES],
    ) -> [[u8; GAMMA_LEN]; LANES] {
        match self {}
    }

    pub(crate) fn payload_keys(self, _: [&[u8; SEED_LEN]; LANES]) -> PayloadKeys {
        match self {}
    }

    pub(crate) fn remove_layers(self, _: &[&[u8; SEED_LEN]], _: &mut [&mut [u8]]) {
        match self {}
    }

    pub(crate) fn add_layers(self, _: &[&[u8; SEED_LEN]], _: &mut [&mut [u8]]) {
        match self {}
    }

    pub(crate) fn chacha20(self, _: &[u8; 32], _: &mut [u8]) {
        match self {}
    }
}

/// Never there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Avx2 {}

impl Avx2 {
    pub(crate) fn detect() -> Option<Avx2> {
        None
    }

    pub(crate) fn x25519_batch(self, _: &[&[u8; 32]], _: &[&[u8; 32]], _: &mut [[u8; 32]]) {
        match self {}
    }
}
