//! The wide block: LIONESS over ChaCha20 and keyed BLAKE2b-256, of one payload or some, in place.
//!
//! Spec: docs/spec/packet.md, PKT-7, PKT-12, PKT-19.
//!
//! | step (encrypting) |                                           | bytes of the key             |
//! |-------------------|-------------------------------------------|------------------------------|
//! | 1                 | right ^= ChaCha20(left ^ k₁)              | 0..32                        |
//! | 2                 | left ^= BLAKE2b(k₂, right)                | 32..96                       |
//! | 3                 | right ^= ChaCha20(left ^ k₃)              | 96..128                      |
//! | 4                 | left ^= BLAKE2b(k₄, right)                | 128..192                     |
//!
//! *Left* is a payload's first 32 bytes, *right* the rest; nonce and counter are zero. Decrypting
//! takes the steps in the opposite order. The bytes are those of `sphinx-packet`'s `NymLioness`.
//!
//! ChaCha20 runs in lanes where the processor has them, else in aws-lc's assembly, on the portable
//! path in pure Rust; BLAKE2b is `blake2b_simd`'s. Nothing is allocated. Our copies of keys are erased; those that `blake2b_simd` and
//! aws-lc make on the stack while they work are not (neither offers it).
//!
//! `unsafe`: one call into aws-lc, which reads 32 bytes of key and 12 of nonce and changes the bytes
//! of one slice in place, as `chacha.h` allows.

#![expect(
    unsafe_code,
    reason = "a raw call into aws-lc, which the file header justifies"
)]

use ::chacha20::cipher::{KeyIvInit, StreamCipher};
use blake2b_simd::many::{HashManyJob, hash_many};
use sphinx_packet::constants::PAYLOAD_KEY_SIZE;
use sphinx_packet::payload::key::derive_payload_key;
use zeroize::Zeroizing;

use crate::curve::Path;
use crate::lanes::LANES;
use crate::layout::{SEED_LEN, array};

/// Length of the left part, in bytes: a key of ChaCha20, a hash of BLAKE2b.
pub(crate) const LEFT_LEN: usize = 32;
/// Where k₁ and k₃ begin in the key.
pub(crate) const STREAM_KEYS: [usize; 2] = [0, 96];
/// Where k₂ and k₄ begin in the key.
pub(crate) const HASH_KEYS: [usize; 2] = [32, 128];
const HASH_KEY_LEN: usize = 64;
const _: () = assert!(HASH_KEYS[1] + HASH_KEY_LEN == PAYLOAD_KEY_SIZE);

type Key = Zeroizing<[u8; PAYLOAD_KEY_SIZE]>;

/// Adds the layers of hops, in this order, to a payload of more than 32 bytes.
pub(crate) fn add_layers<'a>(
    path: Path,
    seeds: impl IntoIterator<Item = &'a [u8; SEED_LEN]>,
    payload: &mut [u8],
) {
    let mut seeds = seeds.into_iter().peekable();
    while let Some(&last) = seeds.peek() {
        let mut eight = [last; LANES];
        let count = eight
            .iter_mut()
            .zip(&mut seeds)
            .map(|(to, seed)| *to = seed)
            .count();
        match path.lanes() {
            Some(lanes) if count > 2 => {
                let keys = lanes.payload_keys(eight);
                keys[..count]
                    .iter()
                    .for_each(|key| encrypt(path, key, payload));
            }
            _ => eight[..count]
                .iter()
                .for_each(|seed| add_layer(path, seed, payload)),
        }
    }
}

/// Adds a hop's layer to a payload of more than 32 bytes.
fn add_layer(path: Path, seed: &[u8; SEED_LEN], payload: &mut [u8]) {
    encrypt(path, &Key::new(derive_payload_key(seed)), payload);
}

fn encrypt(path: Path, key: &[u8; PAYLOAD_KEY_SIZE], payload: &mut [u8]) {
    for round in 0..2 {
        stream_step(path, key, round, payload);
        hash_step(key, round, payload);
    }
}

/// Takes a hop's layer off a payload of more than 32 bytes.
pub(crate) fn remove_layer(path: Path, seed: &[u8; SEED_LEN], payload: &mut [u8]) {
    let key = Key::new(derive_payload_key(seed));
    for round in (0..2).rev() {
        hash_step(&key, round, payload);
        stream_step(path, &key, round, payload);
    }
}

/// [`remove_layer`] of each of up to [`LANES`] payloads, of any lengths; several are hashed together.
///
/// # Panics
/// If there are more, or not as many seeds: our own bug.
pub(crate) fn remove_layers(path: Path, seeds: &[&[u8; SEED_LEN]], payloads: &mut [&mut [u8]]) {
    if let ([seed], [payload]) = (seeds, &mut *payloads) {
        return remove_layer(path, seed, payload);
    }
    let mut keys = Zeroizing::new([[0; PAYLOAD_KEY_SIZE]; LANES]);
    let keys = &mut keys[..payloads.len()];
    assert_eq!(seeds.len(), keys.len(), "a seed a payload");
    for (key, seed) in keys.iter_mut().zip(seeds) {
        *key = derive_payload_key(seed);
    }
    for round in (0..2).rev() {
        hash_steps(keys, round, payloads);
        for (key, payload) in keys.iter().zip(payloads.iter_mut()) {
            stream_step(path, key, round, payload);
        }
    }
}

/// Left and right.
pub(crate) fn split(payload: &mut [u8]) -> (&mut [u8; LEFT_LEN], &mut [u8]) {
    payload
        .split_first_chunk_mut()
        .expect("a payload is longer than 32 bytes")
}

fn stream_step(path: Path, key: &[u8; PAYLOAD_KEY_SIZE], round: usize, payload: &mut [u8]) {
    let (left, right) = split(payload);
    let mut key: Zeroizing<[u8; LEFT_LEN]> = Zeroizing::new(*array(key, STREAM_KEYS[round]));
    for (byte, left) in key.iter_mut().zip(left) {
        *byte ^= *left;
    }
    chacha20(path, &key, right);
}

/// BLAKE2b under a key of 64 bytes.
fn keyed(key: &[u8; PAYLOAD_KEY_SIZE], round: usize) -> blake2b_simd::Params {
    let key: &[u8; HASH_KEY_LEN] = array(key, HASH_KEYS[round]);
    let mut params = blake2b_simd::Params::new();
    params.hash_length(LEFT_LEN).key(key);
    params
}

fn hash_step(key: &[u8; PAYLOAD_KEY_SIZE], round: usize, payload: &mut [u8]) {
    let (left, right) = split(payload);
    let hash = keyed(key, round).hash(right);
    for (byte, hash) in left.iter_mut().zip(hash.as_bytes()) {
        *byte ^= hash;
    }
}

/// [`hash_step`] of each of up to [`LANES`] payloads: the same, in fewer passes.
fn hash_steps(keys: &[[u8; PAYLOAD_KEY_SIZE]], round: usize, payloads: &mut [&mut [u8]]) {
    let mut jobs: [_; LANES] = core::array::from_fn(|i| {
        let payload = payloads.get(i)?;
        Some(HashManyJob::new(
            &keyed(&keys[i], round),
            &payload[LEFT_LEN..],
        ))
    });
    hash_many(jobs.iter_mut().flatten());
    let hashes = jobs.map(|job| job.map(|job| job.to_hash()));
    for (payload, hash) in payloads.iter_mut().zip(hashes.iter().flatten()) {
        for (byte, hash) in split(payload).0.iter_mut().zip(hash.as_bytes()) {
            *byte ^= hash;
        }
    }
}

fn chacha20(path: Path, key: &[u8; LEFT_LEN], bytes: &mut [u8]) {
    if let Some(lanes) = path.lanes() {
        return lanes.chacha20(key, bytes);
    }
    let nonce = [0u8; 12];
    if path == Path::Portable {
        return ::chacha20::ChaCha20::new(key.into(), &nonce.into()).apply_keystream(bytes);
    }
    let at = bytes.as_mut_ptr();
    // SAFETY: input and output are the same bytes of one slice; key and nonce have the lengths
    // that the function reads.
    unsafe {
        aws_lc_sys::CRYPTO_chacha_20(at, at, bytes.len(), key.as_ptr(), nonce.as_ptr(), 0);
    }
}

#[cfg(test)]
mod tests {
    use ::chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};
    use sphinx_packet::payload::NymLioness;

    use super::*;
    use aes::cipher::KeyInit;

    /// PKT-22: payloads of different lengths, any number of them.
    #[test]
    fn pkt_22_several_payloads_are_as_each_by_itself() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        for count in 0..=LANES {
            let mut seeds = [[0; SEED_LEN]; LANES];
            seeds.iter_mut().for_each(|seed| rng.fill_bytes(seed));
            let mut ours: Vec<Vec<u8>> = (0..count).map(|i| vec![7; 33 + 301 * i]).collect();
            ours.iter_mut().for_each(|payload| rng.fill_bytes(payload));
            let mut each = ours.clone();
            for path in Path::present() {
                let seeds: Vec<_> = seeds[..count].iter().collect();
                for (seed, payload) in seeds.iter().zip(&mut each) {
                    remove_layer(path, seed, payload);
                }
                let mut together: Vec<&mut [u8]> = ours.iter_mut().map(Vec::as_mut_slice).collect();
                remove_layers(path, &seeds, &mut together);
                assert!(ours == each, "{count}");
            }
        }
    }

    /// PKT-22: both directions are the crate's, for every length up to some blocks.
    #[test]
    fn pkt_22_wide_block_is_the_crates() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let lengths = (33..700).chain([1024, 2047, 2048, 2049, 32 * 1024, 33_333]);
        for (len, path) in lengths.flat_map(|len| Path::present().map(move |path| (len, path))) {
            let mut seed = [0; SEED_LEN];
            rng.fill_bytes(&mut seed);
            let mut ours = vec![0; len];
            rng.fill_bytes(&mut ours);
            let (plain, mut theirs) = (ours.clone(), ours.clone());
            let cipher = NymLioness::new((&derive_payload_key(&seed)).into());

            add_layers(path, [&seed], &mut ours);
            cipher.encrypt_block(&mut theirs).unwrap();
            assert!(ours == theirs && ours != plain, "{len} bytes");
            remove_layer(path, &seed, &mut ours);
            assert!(ours == plain, "{len} bytes");
            remove_layer(path, &seed, &mut ours);
            cipher.decrypt_block(&mut theirs).unwrap();
            cipher.decrypt_block(&mut theirs).unwrap();
            assert!(ours == theirs, "{len} bytes");
            for _ in 0..12 {
                cipher.encrypt_block(&mut theirs).unwrap();
            }
            add_layers(path, [&seed; 12], &mut ours);
            assert!(ours == theirs, "{len} bytes");
        }
    }
}
