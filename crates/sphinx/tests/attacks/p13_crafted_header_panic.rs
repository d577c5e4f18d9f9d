//! p13: whoever knows a public key can make a header with a valid MAC and any content; an
//! assertion on that content is a way to stop the node. No content panics (PKT-9).

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand_core::Rng;
use sphinx::{PublicKey, Routing, SecretKey, Surb, SurbSecret};

use crate::support::{DELAY_MAX_NS, bytes, forge, route, seeded, their_key, their_packet};

#[test]
fn attack_p13_crafted_header_panic() {
    let mut rng = seeded(13);
    let (keys, route) = route(&mut rng, 1);
    let mut packet = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"crafted");
    let mut verdicts = std::collections::BTreeMap::new();
    for case in 0..10_000u32 {
        forge(&keys[0], &mut packet[..], |beta| {
            rng.fill_bytes(beta);
            // Get past one check more in each class of cases.
            if case % 5 != 0 {
                beta[1..4].copy_from_slice(&[0, 1, 4]);
                beta[0] = (case % 4) as u8;
            }
            if case % 3 == 0 {
                beta[36..44]
                    .copy_from_slice(&(rng.next_u64() >> (rng.next_u32() % 64)).to_be_bytes());
            }
        });
        let verdict = sphinx::open_one(&keys[0], DELAY_MAX_NS, &packet).map(|opened| {
            let is_final = matches!(opened.routing(), Routing::Final { .. });
            sphinx::finish(opened, &mut packet);
            let _ = sphinx::unpad(sphinx::payload(&packet));
            is_final
        });
        *verdicts.entry(verdict).or_insert(0u32) += 1;
    }
    // Version, flag and delay were reached, and both kinds of hop.
    assert_eq!(verdicts.len(), 5, "{verdicts:?}");
    assert!(verdicts.values().all(|count| *count > 100), "{verdicts:?}");
}

/// Control: the crate, in a build with assertions, panics on the third version byte.
#[test]
fn control_p13_the_crate_panics() {
    let mut rng = seeded(1313);
    let (keys, route) = route(&mut rng, 1);
    let mut packet = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"crafted");
    forge(&keys[0], &mut packet[..], |beta| beta[1] = 1);
    assert!(sphinx::open_one(&keys[0], DELAY_MAX_NS, &packet).is_err());
    let theirs = their_packet(&packet);
    let key = their_key(&keys[0]);
    let outcome = catch_unwind(AssertUnwindSafe(|| theirs.process(&key).is_ok()));
    assert_eq!(outcome.is_err(), cfg!(debug_assertions));
}

/// Nothing else that a peer sends panics: α, whole packets, keys, SURBs, payloads.
#[test]
fn attack_p13_arbitrary_bytes() {
    let mut rng = seeded(131);
    let key = SecretKey::generate(&mut rng);
    for _ in 0..1000 {
        let packet = Box::new(bytes(&mut rng));
        assert!(sphinx::open_one(&key, u64::MAX, &packet).is_err());
        let _ = PublicKey::parse(bytes(&mut rng));
        let surb = Surb::parse(&bytes(&mut rng));
        let reply = surb.use_with(b"into the void");
        assert!(sphinx::open_one(&key, u64::MAX, &reply).is_err());
        let mut payload = bytes(&mut rng);
        SurbSecret::from_bytes(&bytes(&mut rng)).recover(&mut payload);
        assert!(sphinx::unpad(&payload).is_err());
    }
    let mut payload = [0; 2048];
    SurbSecret::from_bytes(&[0; 96]).recover(&mut payload);
    assert!(sphinx::unpad(&payload).is_err());
}
