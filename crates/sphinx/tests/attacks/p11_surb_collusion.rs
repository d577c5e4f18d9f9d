//! p11: SURBs of version 259 carry the payload seed of every hop; their user, together with the
//! last hop, then knows every form the payload takes under way. Ours carry the creator's own
//! seed alone (PKT-18), and 259 is refused (PKT-9).

use sphinx::{Reject, SURB_LEN};
use sphinx_packet::version::PAYLOAD_KEYS_SEEDS_VERSION;
use sphinx_packet::{SURB, SURBMaterial};

use crate::support::{
    DELAY_MAX_NS, our_packet, peel, route, seeded, their_destination, their_key, their_packet,
    their_route,
};

fn holds(written: &[u8], seed: &[u8]) -> bool {
    written.windows(16).any(|window| window == seed)
}

#[test]
fn attack_p11_surb_holds_one_seed() {
    let mut rng = seeded(11);
    let (_, route) = route(&mut rng, 5);
    let (surb, secret) = sphinx::surb(&mut rng, &route, [1; 32]);
    let written = surb.to_bytes();
    assert_eq!(written.len(), 396);
    let kept = secret.to_bytes();
    let held: Vec<bool> = kept[16..]
        .chunks(16)
        .map(|seed| holds(&written, seed))
        .collect();
    assert_eq!(held, [false, false, false, false, true]);
    assert!(
        !holds(&written, &secret.id()),
        "the id is for the creator's eyes"
    );
    assert!(written.ends_with(&kept[80..]));
}

#[test]
fn attack_p11_version_259_refused() {
    let mut rng = seeded(1111);
    let (keys, route) = route(&mut rng, 5);
    let (nodes, delays) = their_route(&route);
    let surb = SURBMaterial::new(
        nodes,
        delays,
        their_destination([1; 32], [2; 16]),
        PAYLOAD_KEYS_SEEDS_VERSION,
    )
    .construct_SURB()
    .unwrap();
    let written = surb.to_bytes();
    assert_ne!(written.len(), SURB_LEN, "not even the length of ours");

    // Control: 259 does carry the seed of each hop.
    let (used, _) = SURB::from_bytes(&written)
        .unwrap()
        .use_surb(b"reply", 2048)
        .unwrap();
    let secret = used
        .header
        .compute_expanded_shared_secret(&their_key(&keys[0]));
    assert_eq!(&written[380..396], secret.payload_key_seed());
    let packet = our_packet(&used);
    let verdict = sphinx::open_one(&keys[0], DELAY_MAX_NS, &packet).map(|_| ());
    assert_eq!(verdict, Err(Reject::Version));
    // Control: the crate passes it on.
    assert!(their_packet(&packet).process(&their_key(&keys[0])).is_ok());
}

/// What the seeds are good for: with all of them the user foretells the payload at each hop;
/// with the one that ours carry, from none on.
#[test]
fn attack_p11_user_cannot_recognise_the_packet() {
    let mut rng = seeded(111);
    let (keys, route) = route(&mut rng, 5);
    let (surb, secret) = sphinx::surb(&mut rng, &route, [1; 32]);
    let kept = secret.to_bytes();
    let seeds: Vec<[u8; 16]> = kept[16..]
        .chunks(16)
        .map(|seed| seed.try_into().expect("16 bytes"))
        .collect();
    let mut packet = surb.use_with(b"reply");
    let mut with_own_seed = *sphinx::payload(&packet);
    let mut with_all_seeds = with_own_seed;
    for (i, key) in keys.iter().enumerate() {
        peel(key, &mut packet);
        unwrap(&seeds[4], &mut with_own_seed);
        unwrap(&seeds[i], &mut with_all_seeds);
        assert!(*sphinx::payload(&packet) != with_own_seed, "hop {i}");
        // Control.
        assert!(*sphinx::payload(&packet) == with_all_seeds, "hop {i}");
    }
}

fn unwrap(seed: &[u8; 16], payload: &mut [u8; 2048]) {
    let key = sphinx_packet::payload::key::derive_payload_key(seed);
    let bare = sphinx_packet::payload::Payload::from_bytes(payload)
        .and_then(|payload| payload.unwrap(key))
        .expect("long enough");
    payload.copy_from_slice(bare.as_bytes());
}
