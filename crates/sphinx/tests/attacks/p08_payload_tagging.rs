//! p08: a hop marks a payload to recognise it later. Hops see nothing of it, since headers and
//! payloads are separate; the recipient finds garbage and treats it as loss (PKT-12, PKT-17).

use sphinx::{BadPayload, PAYLOAD_LEN, SurbSecret};

use crate::support::{DELAY_MAX_NS, peel, route, seeded};

/// Flips of the payload, all over it.
fn marks() -> impl Iterator<Item = usize> {
    (0..PAYLOAD_LEN * 8).step_by(8 * 61 + 1)
}

#[test]
fn attack_p08_payload_tagging() {
    let mut rng = seeded(8);
    let (keys, route) = route(&mut rng, 5);
    for bit in marks() {
        let mut honest = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"message");
        let mut marked = honest.clone();
        marked[sphinx::HEADER_LEN + bit / 8] ^= 1 << (bit % 8);
        for key in &keys {
            assert_eq!(peel(key, &mut marked), peel(key, &mut honest));
            assert_eq!(marked[..sphinx::HEADER_LEN], honest[..sphinx::HEADER_LEN]);
        }
        assert_eq!(sphinx::unpad(sphinx::payload(&honest)), Ok(&b"message"[..]));
        assert_eq!(sphinx::unpad(sphinx::payload(&marked)), Err(BadPayload));
    }
}

/// The same for a reply, whose payload the creator recovers.
#[test]
fn attack_p08_reply_tagging() {
    let mut rng = seeded(88);
    let (keys, route) = route(&mut rng, 5);
    for (bit, marked_at) in marks().zip((0..5).cycle()) {
        let (surb, secret) = sphinx::surb(&mut rng, &route, [1; 32]);
        let mut packet = surb.use_with(b"reply");
        for (i, key) in keys.iter().enumerate() {
            if i == marked_at {
                packet[sphinx::HEADER_LEN + bit / 8] ^= 1 << (bit % 8);
            }
            assert!(sphinx::open_one(key, DELAY_MAX_NS, &packet).is_ok());
            peel(key, &mut packet);
        }
        assert_eq!(read(&secret, &packet), Err(BadPayload));
    }
}

/// Control: the same reader reads an untouched reply; and without the check of the zeros, that
/// is with the mark alone, one garbled payload in 256 would be taken for a message.
#[test]
fn control_p08() {
    let mut rng = seeded(888);
    let (keys, route) = route(&mut rng, 5);
    let (surb, secret) = sphinx::surb(&mut rng, &route, [1; 32]);
    let mut packet = surb.use_with(b"reply");
    for key in &keys {
        peel(key, &mut packet);
    }
    assert_eq!(read(&secret, &packet), Ok(b"reply".to_vec()));

    let (keys, route) = crate::support::route(&mut rng, 1);
    let taken = (0..2048)
        .filter(|bit| {
            let mut packet = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"message");
            packet[sphinx::HEADER_LEN + bit / 8] ^= 1 << (bit % 8);
            peel(&keys[0], &mut packet);
            let last = packet.iter().rfind(|byte| **byte != 0);
            assert!(sphinx::unpad(sphinx::payload(&packet)).is_err());
            last == Some(&1)
        })
        .count();
    assert!(taken > 0, "the zeros carry the check");
}

fn read(secret: &SurbSecret, packet: &sphinx::Packet) -> Result<Vec<u8>, BadPayload> {
    let mut bare = *sphinx::payload(packet);
    secret.recover(&mut bare);
    sphinx::unpad(&bare).map(<[u8]>::to_vec)
}
