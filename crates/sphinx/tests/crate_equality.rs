//! Differential tests against `sphinx-packet` 0.8.0: each opens what the other builds, hop by
//! hop, with every byte, tag, routing field and verdict equal (PKT-22).

mod support;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sphinx::{MESSAGE_LEN, Routing, Surb, SurbSecret, build, payload, surb, unpad};
use sphinx_packet::packet::builder::SphinxPacketBuilder;
use sphinx_packet::version::SINGLE_SEED_SURB_VERSION;
use sphinx_packet::{SURB, SURBMaterial, SurbReplyRecovery};
use support::{
    bytes, our_packet, peel_as_both, route, seeded, their_destination, their_packet, their_route,
};

fn message(seed: u64, len: usize) -> Vec<u8> {
    use rand_core::Rng;
    let mut message = vec![0; len];
    seeded(!seed).fill_bytes(&mut message);
    message
}

/// The same cases every time.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 64,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x5f1c),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn pkt_22_forward(seed: u64, hops in 1usize..=5, len in 0..=MESSAGE_LEN, ours: bool) {
        let mut rng = seeded(seed);
        let (keys, route) = route(&mut rng, hops);
        let (destination, surb_id) = (bytes(&mut rng), bytes(&mut rng));
        let message = message(seed, len);
        let mut packet = if ours {
            build(&mut rng, &route, destination, surb_id, &message)
        } else {
            let (nodes, delays) = their_route(&route);
            let built = SphinxPacketBuilder::new()
                .with_payload_size(2048)
                .build_packet(&message, &nodes, &their_destination(destination, surb_id), &delays)
                .unwrap();
            our_packet(&built)
        };
        for (i, key) in keys.iter().enumerate() {
            let expected = match route.get(i + 1) {
                Some(next) => Routing::Forward { next: next.address, delay_ns: route[i].delay_ns },
                None => Routing::Final { destination, surb_id },
            };
            prop_assert_eq!(peel_as_both(key, &mut packet), expected);
        }
        prop_assert_eq!(unpad(payload(&packet)), Ok(&message[..]));
    }

    #[test]
    fn pkt_22_reply(seed: u64, hops in 1usize..=5, len in 0..=MESSAGE_LEN, ours: bool, used_by_us: bool) {
        let mut rng = seeded(seed);
        let (keys, route) = route(&mut rng, hops);
        let destination = bytes(&mut rng);
        let message = message(seed, len);
        // Who makes the SURB and who uses it are independent: the written form is common.
        let (written, kept, id) = if ours {
            let (surb, secret) = surb(&mut rng, &route, destination);
            (surb.to_bytes(), *secret.to_bytes(), secret.id())
        } else {
            let (nodes, delays) = their_route(&route);
            let id = bytes(&mut rng);
            let (surb, recovery) = SURBMaterial::new(
                nodes, delays, their_destination(destination, id), SINGLE_SEED_SURB_VERSION,
            ).construct_recoverable_SURB().unwrap();
            let mut kept = [0; 96];
            kept[..16 + 16 * hops].copy_from_slice(&recovery.to_bytes());
            (surb.to_bytes().try_into().unwrap(), kept, id)
        };
        prop_assert_eq!(Surb::parse(&written).first_hop(), route[0].address);
        let mut packet = if used_by_us {
            Surb::parse(&written).use_with(&message)
        } else {
            let (packet, first) = SURB::from_bytes(&written).unwrap().use_surb(&message, 2048).unwrap();
            prop_assert_eq!(first.to_bytes(), route[0].address);
            our_packet(&packet)
        };
        let mut last = None;
        for key in &keys {
            last = Some(peel_as_both(key, &mut packet));
        }
        prop_assert_eq!(last, Some(Routing::Final { destination, surb_id: id }));

        let theirs = SurbReplyRecovery::from_bytes(&kept[..16 + 16 * hops]).unwrap();
        let plain = theirs.recover_plaintext(their_packet(&packet).payload).unwrap();
        prop_assert_eq!(&plain, &message);
        let mut bare = *payload(&packet);
        SurbSecret::from_bytes(&kept).recover(&mut bare);
        prop_assert_eq!(unpad(&bare), Ok(&message[..]));
    }
}
