//! The wide block of eight payloads at once, in place.
//!
//! Spec: docs/spec/packet.md, PKT-7 and PKT-12.
//!
//! The order of its four steps is that of [`crate::wide`], which is the scalar twin. Hashing takes a
//! payload a lane; the stream takes sixteen blocks of one payload, one payload after the other.

use sphinx_packet::constants::PAYLOAD_KEY_SIZE;
use zeroize::Zeroizing;

use super::{LANES, blake2b, chacha20, sha256};
use crate::layout::{SEED_LEN, array};
use crate::wide::{HASH_KEYS, LEFT_LEN, STREAM_KEYS};

/// Takes a layer off each payload; 1 to 8 of them, equally long.
///
/// # Panics
/// If there are none or more than eight, or they differ in length: our own bug.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn remove_layers(seeds: &[&[u8; SEED_LEN]], payloads: &mut [&mut [u8]]) {
    assert!(
        !payloads.is_empty() && seeds.len() == payloads.len(),
        "a seed a payload"
    );
    let mut keys = Zeroizing::new([[0; PAYLOAD_KEY_SIZE]; LANES]);
    // Lanes without a payload repeat the last one.
    let of_lane = core::array::from_fn::<_, LANES, _>(|lane| lane.min(seeds.len() - 1));
    sha256::payload_key(of_lane.map(|i| seeds[i]), &mut keys);

    for round in (0..2).rev() {
        let hash_keys = keys.each_ref().map(|key| array(key, HASH_KEYS[round]));
        let rights = of_lane.map(|i| &payloads[i][LEFT_LEN..]);
        let hashes = blake2b::keyed_hash(hash_keys, rights);
        for ((payload, hash), key) in payloads.iter_mut().zip(hashes).zip(&*keys) {
            let (left, right) = payload
                .split_first_chunk_mut::<LEFT_LEN>()
                .expect("a payload is longer than 32 bytes");
            let mut stream_key = Zeroizing::new(*array::<LEFT_LEN>(key, STREAM_KEYS[round]));
            for ((byte, hash), key) in left.iter_mut().zip(hash).zip(stream_key.iter_mut()) {
                *byte ^= hash;
                *key ^= *byte;
            }
            chacha20::xor(&stream_key, right);
        }
    }
}
