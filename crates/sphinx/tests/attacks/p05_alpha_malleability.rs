//! p05: other spellings of α give the same shared secret and pass the MAC, so a packet could be
//! replayed under a new α. The tag is keyed on the shared secret (PKT-11): all are replays.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::Scalar;
use sphinx::Packet;

use crate::support::{DELAY_MAX_NS, Script, bytes, route, seeded};

/// p, little-endian.
const PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

fn with_alpha(packet: &Packet, alpha: [u8; 32]) -> Box<Packet> {
    let mut packet = Box::new(*packet);
    packet[..32].copy_from_slice(&alpha);
    packet
}

/// Every packet of the same shared secret: α plus each point of low order, with bit 255 clear
/// and set, and plus p where that fits.
#[expect(clippy::vec_box, reason = "a batch is of boxed packets")]
fn variants(packet: &Packet) -> Vec<Box<Packet>> {
    let alpha: [u8; 32] = packet[..32].try_into().expect("32 bytes");
    let point = MontgomeryPoint(alpha).to_edwards(0).expect("on the curve");
    let mut alphas: Vec<[u8; 32]> = EIGHT_TORSION
        .iter()
        .map(|low| (point + low).to_montgomery().to_bytes())
        .collect();
    if alpha[1..] == [0; 31] && alpha[0] < 19 {
        let mut plus_prime = PRIME;
        plus_prime[0] += alpha[0];
        alphas.push(plus_prime);
    }
    let top_set: Vec<[u8; 32]> = alphas
        .iter()
        .map(|alpha| {
            let mut alpha = *alpha;
            alpha[31] |= 0x80;
            alpha
        })
        .collect();
    alphas.extend(top_set);
    alphas.sort_unstable();
    alphas.dedup();
    assert!(alphas.contains(&alpha));
    alphas
        .into_iter()
        .map(|alpha| with_alpha(packet, alpha))
        .collect()
}

/// A secret x whose α is 9, the one small number that is an honest α: 5ℓ − 1 is already clamped,
/// and takes the base point to its negative, which has the same u.
fn secret_of_nine() -> [u8; 32] {
    let minus_one = (-Scalar::ONE).to_bytes();
    let mut secret = [0; 32];
    let mut carry = 0u16;
    // ℓ − 1 five times, plus 4.
    for (at, byte) in minus_one.iter().enumerate() {
        carry += u16::from(*byte) * 5 + if at == 0 { 4 } else { 0 };
        secret[at] = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    assert_eq!(carry, 0);
    secret
}

#[test]
fn attack_p05_alpha_malleability() {
    let mut rng = seeded(5);
    let (keys, route) = route(&mut rng, 5);
    let honest = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"once");
    let random = [&secret_of_nine()[..], &bytes::<8>(&mut rng)].concat();
    let nine = sphinx::build(&mut Script(&random), &route, [1; 32], [0; 16], b"once");
    assert_eq!(nine[0], 9);
    assert_eq!(nine[1..32], [0; 31]);

    for (packet, count) in [(honest, 16), (nine, 18)] {
        let batch = variants(&packet);
        assert_eq!(batch.len(), count);
        let expected = sphinx::open_one(&keys[0], DELAY_MAX_NS, &packet).expect("honest");
        let mut verdicts = sphinx::Verdicts::new();
        let packets = batch.iter().map(|packet| &**packet);
        sphinx::open(&keys[0], DELAY_MAX_NS, packets, &mut verdicts);
        assert_eq!(verdicts.len(), count);
        for verdict in &verdicts {
            let opened = verdict
                .as_ref()
                .expect("same shared secret, so the same MAC");
            assert_eq!(opened.tag(), expected.tag());
        }
        // Control: a set keyed on α admits every variant.
        let by_alpha: std::collections::BTreeSet<_> =
            batch.iter().map(|packet| &packet[..32]).collect();
        assert_eq!(by_alpha.len(), count);
    }
}
