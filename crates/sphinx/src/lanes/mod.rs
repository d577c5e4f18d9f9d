//! Packets in vector lanes, for processors with AVX-512 F, BW, DQ, VL and IFMA; multiplications, for those
//! with AVX2.
//!
//! Spec: docs/spec/packet.md, PKT-7, PKT-8, PKT-12, PKT-22.
//!
//! | part                         | lanes                                    | module          |
//! |------------------------------|------------------------------------------|-----------------|
//! | HKDF and HMAC with SHA-256   | 8 packets of 32 bits                     | [`sha256`]      |
//! | BLAKE2b, keyed               | 8 packets of 64 bits                     | [`blake2b`]     |
//! | ChaCha20                     | 16 blocks of one packet, of 32 bits      | [`chacha20`]    |
//! | wide block                   | of these two                             | [`wide`]        |
//! | X25519                       | 8 multiplications of 64 bits             | [`x25519`]      |
//! | X25519 of one                | 4 products of 64 bits                    | [`single`]      |
//! | X25519, by AVX2              | 4 multiplications of 32 bits             | [`avx2`]        |
//! | inverses and quotients       | of any                                   | [`division`]    |
//!
//! A [`Lanes`] is the proof that the processor has the instructions, so its methods are safe; an [`Avx2`]
//! likewise. A pass
//! takes the same time whatever its fill. What the lanes compute is what the scalar crates do, byte
//! for byte; the tests below hold them together.
//!
//! `unsafe`: calls of functions that need instructions which [`Lanes::detect`] or [`Avx2::detect`] found.

#![expect(
    unsafe_code,
    reason = "calls of functions that need certain instructions, which the file header justifies"
)]

mod avx2;
mod blake2b;
mod chacha20;
mod division;
mod field;
mod sha256;
mod single;
mod vector;
mod wide;
mod x25519;

use sphinx_packet::constants::PAYLOAD_KEY_SIZE;
use zeroize::Zeroizing;

use crate::layout::{BETA_LEN, GAMMA_LEN, SEED_LEN};
use crate::secrets::Secrets;

/// How many packets a pass takes.
pub(crate) const LANES: usize = 8;
/// So many packets are hashed faster by themselves than in a pass.
pub(crate) const FEW: usize = 3;

/// Keys of eight wide blocks, erased when dropped.
pub(crate) type PayloadKeys = Zeroizing<[[u8; PAYLOAD_KEY_SIZE]; LANES]>;

/// Stands for: this processor has AVX-512 F, BW, DQ, VL and IFMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lanes(());

impl Lanes {
    /// Something if the processor has the instructions and the system saves their registers.
    pub(crate) fn detect() -> Option<Lanes> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma");
        found.then_some(Lanes(()))
    }

    /// X25519 of one scalar and point.
    pub(crate) fn x25519(self, scalar: &[u8; 32], point: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut product = Zeroizing::new([0; 32]);
        // SAFETY: `self` proves the instructions.
        unsafe { single::multiply(scalar, point, &mut product) };
        product
    }

    /// X25519 of each scalar and point, any number of them.
    ///
    /// # Panics
    /// If there are not as many of each: our own bug.
    pub(crate) fn x25519_batch(
        self,
        scalars: &[&[u8; 32]],
        points: &[&[u8; 32]],
        products: &mut [[u8; 32]],
    ) {
        let chunks = scalars
            .chunks(x25519::BATCH)
            .zip(points.chunks(x25519::BATCH));
        for ((scalars, points), products) in chunks.zip(products.chunks_mut(x25519::BATCH)) {
            // SAFETY: `self` proves the instructions.
            unsafe { x25519::multiply(scalars, points, products) };
        }
    }

    /// [`Secrets::expand`] of eight shared secrets.
    pub(crate) fn expand(self, shared_secrets: [&[u8; 32]; LANES]) -> [Secrets; LANES] {
        let mut secrets = core::array::from_fn(|_| Secrets::zero());
        // SAFETY: `self` proves the instructions.
        unsafe { sha256::expand(shared_secrets, secrets.each_mut().map(Secrets::bytes_mut)) };
        secrets
    }

    /// [`Secrets::mac`] of eight packets.
    pub(crate) fn mac(
        self,
        secrets: [&Secrets; LANES],
        betas: [&[u8; BETA_LEN]; LANES],
    ) -> [[u8; GAMMA_LEN]; LANES] {
        // SAFETY: `self` proves the instructions.
        unsafe { sha256::mac(secrets.map(Secrets::mac_key), betas) }
    }

    /// The keys of eight wide blocks.
    pub(crate) fn payload_keys(self, seeds: [&[u8; SEED_LEN]; LANES]) -> PayloadKeys {
        let mut keys = Zeroizing::new([[0; PAYLOAD_KEY_SIZE]; LANES]);
        // SAFETY: `self` proves the instructions.
        unsafe { sha256::payload_key(seeds, &mut keys) };
        keys
    }

    /// [`crate::wide::remove_layer`] of 1 to 8 equally long payloads.
    ///
    /// # Panics
    /// If there are none or more than eight, or they differ in length: our own bug.
    pub(crate) fn remove_layers(self, seeds: &[&[u8; SEED_LEN]], payloads: &mut [&mut [u8]]) {
        // SAFETY: `self` proves the instructions.
        unsafe { wide::remove_layers(seeds, payloads) }
    }

    /// Adds a layer to each of 1 to 8 equally long payloads, as [`crate::wide::add_layers`] does.
    ///
    /// # Panics
    /// If there are none or more than eight, or they differ in length: our own bug.
    pub(crate) fn add_layers(self, seeds: &[&[u8; SEED_LEN]], payloads: &mut [&mut [u8]]) {
        // SAFETY: `self` proves the instructions.
        unsafe { wide::add_layers(seeds, payloads) }
    }

    /// Adds the key stream of ChaCha20, nonce and counter zero, to `bytes`.
    pub(crate) fn chacha20(self, key: &[u8; 32], bytes: &mut [u8]) {
        // SAFETY: `self` proves the instructions.
        unsafe { chacha20::xor(key, bytes) }
    }
}

/// How many multiplications a pass by AVX2 takes.
pub(crate) const FOUR: usize = avx2::FOUR;

/// Stands for: this processor has AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Something if the processor has the instructions and the system saves their registers.
    pub(crate) fn detect() -> Option<Avx2> {
        (!cfg!(miri) && is_x86_feature_detected!("avx2")).then_some(Avx2(()))
    }

    /// X25519 of each scalar and point, any number of them.
    ///
    /// # Panics
    /// If there are not as many of each: our own bug.
    pub(crate) fn x25519_batch(
        self,
        scalars: &[&[u8; 32]],
        points: &[&[u8; 32]],
        products: &mut [[u8; 32]],
    ) {
        let chunks = scalars.chunks(avx2::BATCH).zip(points.chunks(avx2::BATCH));
        for ((scalars, points), products) in chunks.zip(products.chunks_mut(avx2::BATCH)) {
            // SAFETY: `self` proves the instructions.
            unsafe { avx2::multiply(scalars, points, products) };
        }
    }
}

#[cfg(test)]
mod tests {
    use ::chacha20::ChaCha20Rng;
    use ::chacha20::cipher::{KeyIvInit, StreamCipher};
    use rand_core::{Rng, SeedableRng};

    use super::*;

    /// The lanes, if this processor has any; says so if not.
    fn lanes() -> Option<Lanes> {
        let lanes = Lanes::detect();
        println!(
            "lanes: {}",
            if lanes.is_some() {
                "avx512"
            } else {
                "none, not tested"
            }
        );
        lanes
    }

    fn bytes<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
        let mut bytes = [0; N];
        rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Eight different random inputs, and once all zeros and all ones among them.
    fn inputs<const N: usize>(rng: &mut ChaCha20Rng, round: u64) -> [[u8; N]; LANES] {
        let mut inputs = core::array::from_fn(|_| bytes(rng));
        if round == 0 {
            (inputs[2], inputs[5]) = ([0; N], [0xff; N]);
        }
        inputs
    }

    /// PKT-22
    #[test]
    fn pkt_22_lanes_expand_and_mac_as_scalars_do() {
        let Some(lanes) = lanes() else { return };
        for round in 0..64 {
            let mut rng = ChaCha20Rng::seed_from_u64(round);
            let shared = inputs::<32>(&mut rng, round);
            let betas = inputs::<BETA_LEN>(&mut rng, round);
            let secrets = lanes.expand(shared.each_ref());
            let macs = lanes.mac(secrets.each_ref(), betas.each_ref());
            for lane in 0..LANES {
                let mut twin = Secrets::expand(&shared[lane]);
                let mut secrets = secrets[lane].clone();
                assert_eq!(*secrets.bytes_mut(), *twin.bytes_mut(), "lane {lane}");
                assert_eq!(macs[lane], twin.mac(&betas[lane]), "lane {lane}");
            }
            // The positive control: lanes differ from each other.
            assert_ne!(macs[0], macs[1]);
        }
    }

    /// PKT-22: payloads of every length up to some blocks, and of those that occur.
    #[test]
    fn pkt_22_lanes_take_layers_off_as_scalars_do_and_put_them_back() {
        let Some(lanes) = lanes() else { return };
        let lengths = (33..420).chain([1023, 1024, 1025, 2047, 2048, 2049, 32 * 1024, 33_333]);
        for (round, len) in (0..).zip(lengths) {
            let mut rng = ChaCha20Rng::seed_from_u64(round);
            let fill = 1 + len % LANES;
            let seeds = inputs::<SEED_LEN>(&mut rng, round);
            let mut payloads = vec![vec![0; len]; fill];
            payloads
                .iter_mut()
                .for_each(|payload| rng.fill_bytes(payload));
            let bare = payloads.clone();
            let mut twins = payloads.clone();
            let seeds = seeds[..fill].iter().collect::<Vec<_>>();
            let mut in_place: Vec<&mut [u8]> = payloads.iter_mut().map(Vec::as_mut_slice).collect();
            lanes.remove_layers(&seeds, &mut in_place);
            for (twin, seed) in twins.iter_mut().zip(&seeds) {
                crate::wide::remove_layer(crate::Path::Portable, seed, twin);
            }
            assert!(payloads == twins, "{len} bytes in {fill} lanes");
            let mut in_place: Vec<&mut [u8]> = payloads.iter_mut().map(Vec::as_mut_slice).collect();
            lanes.add_layers(&seeds, &mut in_place);
            assert!(payloads == bare, "{len} bytes in {fill} lanes");
        }
    }

    /// PKT-22
    #[test]
    fn pkt_22_sixteen_blocks_are_chacha20() {
        let Some(lanes) = lanes() else { return };
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        for len in (0..2100).chain([32 * 1024 - 32, 70_001]) {
            let key: [u8; 32] = bytes(&mut rng);
            let mut ours = vec![0; len];
            rng.fill_bytes(&mut ours);
            let mut theirs = ours.clone();
            lanes.chacha20(&key, &mut ours);
            ::chacha20::ChaCha20::new(&key.into(), &[0; 12].into()).apply_keystream(&mut theirs);
            assert!(ours == theirs, "{len} bytes");
        }
    }
}
