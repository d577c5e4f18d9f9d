//! p07: any bit of the header flipped is found by the MAC (PKT-8), but for bit 255 of α, which
//! X25519 ignores: that is the same packet with the same tag (p05).

use sphinx::Reject;

use crate::support::{DELAY_MAX_NS, Keys, route, seeded};

#[test]
fn attack_p07_header_bit_flips() {
    let mut rng = seeded(7);
    let (keys, route) = route(&mut rng, 5);
    let packet = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"whole");
    let tag = *sphinx::open_one(&keys[0], DELAY_MAX_NS, &packet)
        .expect("honest")
        .tag();
    for bit in 0..sphinx::HEADER_LEN * 8 {
        let mut flipped = packet.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match sphinx::open_one(&keys[0], DELAY_MAX_NS, &flipped) {
            Ok(opened) => assert_eq!((bit, opened.tag()), (255, &tag)),
            Err(reject) => assert_eq!(reject, Reject::Mac, "bit {bit}"),
        }
    }

    // Control: with the MAC repaired, flips behind the first block pass unseen.
    let hop_keys = Keys::of(&keys[0].to_bytes(), &packet[..]);
    for byte in 48 + 60..sphinx::HEADER_LEN {
        let mut flipped = packet.clone();
        flipped[byte] ^= 1;
        hop_keys.repair_mac(&mut flipped[..]);
        assert!(sphinx::open_one(&keys[0], DELAY_MAX_NS, &flipped).is_ok());
    }
}

/// A changed header is found at the hop it reaches, wherever on the route it was changed.
#[test]
fn attack_p07_at_every_hop() {
    let mut rng = seeded(77);
    let (keys, route) = route(&mut rng, 5);
    let mut packet = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"whole");
    for key in &keys {
        for byte in 0..sphinx::HEADER_LEN {
            let mut flipped = packet.clone();
            flipped[byte] ^= 1;
            let verdict = sphinx::open_one(key, DELAY_MAX_NS, &flipped).map(|_| ());
            assert_eq!(verdict, Err(Reject::Mac), "byte {byte}");
        }
        crate::support::peel(key, &mut packet);
    }
}
