//! p06: for an α of low order the shared secret is zero whatever the key, so anyone can make one
//! header that is valid at every node. Refused before anything else (PKT-6); as a key, refused
//! when parsed (PKT-4).

use sphinx::{KeyError, Packet, Path, PublicKey, Reject, SecretKey, Verdicts};

use crate::support::{DELAY_MAX_NS, Keys, route, seeded, their_key, their_packet};

/// The u-coordinates of low order on the curve and its twist, and those of their other spellings
/// that fit 255 bits. Little-endian.
fn low_order() -> Vec<[u8; 32]> {
    let small = |n: u8| {
        let mut bytes = [0; 32];
        bytes[0] = n;
        bytes
    };
    // p − 1, p and p + 1.
    let near_prime = |last: u8| {
        let mut bytes = [0xff; 32];
        bytes[0] = last;
        bytes[31] = 0x7f;
        bytes
    };
    let order_8 = [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ];
    let hex = |text: &str| {
        core::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
    };
    let mut all = vec![
        small(0),
        small(1),
        near_prime(0xec),
        near_prime(0xed),
        near_prime(0xee),
    ];
    all.extend(order_8.map(hex));
    let with_top: Vec<[u8; 32]> = all
        .iter()
        .map(|bytes| {
            let mut bytes = *bytes;
            bytes[31] |= 0x80;
            bytes
        })
        .collect();
    all.extend(with_top);
    all
}

/// A final-hop header that is valid for the zero shared secret.
fn universal_packet(alpha: [u8; 32]) -> Box<Packet> {
    let mut packet = Box::new([0; sphinx::PACKET_LEN]);
    packet[..32].copy_from_slice(&alpha);
    packet[48..52].copy_from_slice(&[2, 0, 1, 4]);
    let keys = Keys::of(&[7; 32], &packet[..]);
    keys.apply_stream(&mut packet[..]);
    keys.repair_mac(&mut packet[..]);
    packet
}

#[test]
fn attack_p06_low_order_alpha() {
    let mut rng = seeded(6);
    let keys: Vec<SecretKey> = (0..3).map(|_| SecretKey::generate(&mut rng)).collect();
    let encodings = low_order();
    assert_eq!(encodings.len(), 14);
    for alpha in encodings {
        let packet = universal_packet(alpha);
        for key in &keys {
            let verdict = sphinx::open_one(key, DELAY_MAX_NS, &packet).map(|_| ());
            assert_eq!(verdict, Err(Reject::LowOrder), "{alpha:02x?}");
            // Control: the crate opens the same header with every key.
            assert!(their_packet(&packet).process(&their_key(key)).is_ok());
        }
    }
}

/// The same among honest packets, at every place of batches that lanes fill, overfill and do not fill.
#[test]
fn attack_p06_low_order_alpha_in_batches() {
    let mut rng = seeded(60);
    let (keys, hops) = route(&mut rng, 2);
    let honest = sphinx::build(&mut rng, &hops, [1; 32], [0; 16], b"");
    let universal: Vec<_> = low_order().into_iter().map(universal_packet).collect();
    for path in Path::present() {
        let key = keys[0].clone().on(path).expect("present");
        for (len, at) in [1, 2, 8, 9, 33]
            .map(|len| (0..len).map(move |at| (len, at)))
            .into_iter()
            .flatten()
        {
            let mut batch = vec![*honest; len];
            batch[at] = *universal[at % universal.len()];
            let mut verdicts = Verdicts::new();
            sphinx::open(&key, DELAY_MAX_NS, &batch, &mut verdicts);
            for (i, verdict) in verdicts.iter().enumerate() {
                let expected = if i == at {
                    Err(Reject::LowOrder)
                } else {
                    Ok(())
                };
                assert_eq!(verdict.as_ref().map(|_| ()).map_err(|why| *why), expected);
            }
        }
        let all: Vec<Packet> = universal.iter().map(|packet| **packet).collect();
        let mut verdicts = Verdicts::new();
        sphinx::open(&key, DELAY_MAX_NS, &all, &mut verdicts);
        assert!(
            verdicts
                .iter()
                .all(|verdict| matches!(verdict, Err(Reject::LowOrder)))
        );
    }
}

#[test]
fn attack_p06_low_order_key() {
    // Canonical are 0, 1, p − 1 and the two of order 8; p, p + 1 and a set bit 255 are not.
    let canonical = [0, 1, 2, 5, 6];
    for (i, bytes) in low_order().into_iter().enumerate() {
        let expected = if canonical.contains(&i) {
            KeyError::LowOrder
        } else {
            KeyError::NotCanonical
        };
        assert_eq!(PublicKey::parse(bytes), Err(expected), "{bytes:02x?}");
        // Control: unchecked, the secret shared with such a key is known to all.
        assert_eq!(x25519_dalek::x25519([9; 32], bytes), [0; 32]);
    }
}
