//! p09: a mark that leaves part of the payload as it was can be found again. The payload is one
//! wide block (PKT-7, PKT-12): one flipped bit changes every 32-byte block, at every hop, by a
//! quarter of its bits or more (128 of 256 expected, ± 8; the bound is 8 deviations away).

use aes::cipher::{KeyIvInit, StreamCipher};
use sphinx::PAYLOAD_LEN;

use crate::statistics::bits_apart;
use crate::support::{peel, route, seeded};

/// Bits that differ in the 32-byte block that differs least.
fn least_change(a: &[u8; PAYLOAD_LEN], b: &[u8; PAYLOAD_LEN]) -> u32 {
    a.chunks(32)
        .zip(b.chunks(32))
        .map(|(a, b)| bits_apart(a, b))
        .min()
        .expect("64 blocks")
}

#[test]
fn attack_p09_partial_avalanche() {
    let mut rng = seeded(9);
    let (keys, route) = route(&mut rng, 5);
    for bit in (0..PAYLOAD_LEN * 8).step_by(8 * 31 + 3) {
        let mut honest = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"message");
        let mut marked = honest.clone();
        marked[sphinx::HEADER_LEN + bit / 8] ^= 1 << (bit % 8);
        for (hop, key) in keys.iter().enumerate() {
            peel(key, &mut honest);
            peel(key, &mut marked);
            let least = least_change(sphinx::payload(&honest), sphinx::payload(&marked));
            assert!(least >= 64, "bit {bit}, hop {hop}: {least} of 256 bits");
        }
    }
}

/// Control: under a stream cipher the mark stays where it was put.
#[test]
fn control_p09_stream_cipher() {
    let mut honest = [0; PAYLOAD_LEN];
    let mut marked = honest;
    marked[1000] ^= 4;
    for payload in [&mut honest, &mut marked] {
        ctr::Ctr64BE::<aes::Aes128>::new(&[3; 16].into(), &[0; 16].into()).apply_keystream(payload);
    }
    assert_eq!(bits_apart(&honest, &marked), 1);
    assert!(least_change(&honest, &marked) < 64);
}
