//! The wide block of eight payloads at once, in place.
//!
//! Spec: docs/spec/packet.md, PKT-7 and PKT-12.
//!
//! The order of its four steps is that of [`crate::wide`], which is the scalar twin. Hashing takes a
//! payload a lane; the stream takes sixteen blocks of one payload, one payload after the other.

use sphinx_packet::constants::PAYLOAD_KEY_SIZE;
use zeroize::Zeroizing;

use super::{LANES, PayloadKeys, blake2b, chacha20, sha256};
use crate::layout::{SEED_LEN, array};
use crate::wide::{HASH_KEYS, LEFT_LEN, STREAM_KEYS, split};

/// Takes a layer off each payload; 1 to 8 of them, equally long.
///
/// # Panics
/// If there are none or more than eight, or they differ in length: our own bug.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn remove_layers(seeds: &[&[u8; SEED_LEN]], payloads: &mut [&mut [u8]]) {
    let keys = keys(seeds, payloads.len());
    for round in (0..2).rev() {
        hash_step(&keys, round, payloads);
        stream_step(&keys, round, payloads);
    }
}

/// Adds a layer to each payload; 1 to 8 of them, equally long.
///
/// # Panics
/// If there are none or more than eight, or they differ in length: our own bug.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn add_layers(seeds: &[&[u8; SEED_LEN]], payloads: &mut [&mut [u8]]) {
    let keys = keys(seeds, payloads.len());
    for round in 0..2 {
        stream_step(&keys, round, payloads);
        hash_step(&keys, round, payloads);
    }
}

/// The keys of up to eight seeds; lanes without one repeat the last.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn keys(seeds: &[&[u8; SEED_LEN]], payloads: usize) -> PayloadKeys {
    assert!(
        (1..=LANES).contains(&payloads) && seeds.len() == payloads,
        "a seed a payload"
    );
    let mut keys = Zeroizing::new([[0; PAYLOAD_KEY_SIZE]; LANES]);
    let seeds = core::array::from_fn(|lane| seeds[lane.min(payloads - 1)]);
    sha256::payload_key(seeds, &mut keys);
    keys
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn hash_step(keys: &PayloadKeys, round: usize, payloads: &mut [&mut [u8]]) {
    let last = payloads.len() - 1;
    let hash_keys = keys.each_ref().map(|key| array(key, HASH_KEYS[round]));
    let rights = core::array::from_fn(|lane| &payloads[lane.min(last)][LEFT_LEN..]);
    let hashes = blake2b::keyed_hash(hash_keys, rights);
    for (payload, hash) in payloads.iter_mut().zip(hashes) {
        for (byte, hash) in split(payload).0.iter_mut().zip(hash) {
            *byte ^= hash;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn stream_step(keys: &PayloadKeys, round: usize, payloads: &mut [&mut [u8]]) {
    for (payload, key) in payloads.iter_mut().zip(&**keys) {
        let (left, right) = split(payload);
        let mut key = Zeroizing::new(*array::<LEFT_LEN>(key, STREAM_KEYS[round]));
        for (byte, left) in key.iter_mut().zip(left) {
            *byte ^= *left;
        }
        chacha20::xor(&key, right);
    }
}
