//! p12: if a second version or flag value is accepted, packets that carry it stand out from all
//! others. One version, three bytes of it checked, and two flags (PKT-9).

use sphinx::{Reject, Routing};

use crate::support::{DELAY_MAX_NS, forge, route, seeded, their_key, their_packet};

#[test]
fn attack_p12_version_partition() {
    let mut rng = seeded(12);
    let (keys, route) = route(&mut rng, 2);
    let forward = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"same");
    let last = sphinx::build(&mut rng, &route[..1], [1; 32], [0; 16], b"same");

    let mut versions: Vec<[u8; 3]> = [0u16, 1, 255, 256, 257, 258, 259, 261, 1024, 65535]
        .map(|version| [0, version.to_be_bytes()[0], version.to_be_bytes()[1]])
        .to_vec();
    versions.extend([[1, 1, 4], [128, 1, 4], [255, 255, 255], [4, 1, 0]]);
    for packet in [&forward, &last] {
        for version in &versions {
            let mut forged = packet.clone();
            forge(&keys[0], &mut forged[..], |beta| {
                beta[1..4].copy_from_slice(version)
            });
            let verdict = sphinx::open_one(&keys[0], DELAY_MAX_NS, &forged).map(|_| ());
            assert_eq!(verdict, Err(Reject::Version), "{version:?}");
            // Control: the crate takes any version of two bytes. (The third is p13's.)
            if version[0] == 0 {
                assert!(their_packet(&forged).process(&their_key(&keys[0])).is_ok());
            }
        }
    }
    // The forger makes valid headers: 260 passes.
    let mut same = forward.clone();
    forge(&keys[0], &mut same[..], |beta| {
        beta[1..4].copy_from_slice(&[0, 1, 4])
    });
    assert!(same == forward);
}

#[test]
fn attack_p12_flags() {
    let mut rng = seeded(1212);
    let (keys, route) = route(&mut rng, 1);
    let packet = sphinx::build(&mut rng, &route, [1; 32], [0; 16], b"same");
    for flag in 0..=255 {
        let mut forged = packet.clone();
        forge(&keys[0], &mut forged[..], |beta| beta[0] = flag);
        let verdict = sphinx::open_one(&keys[0], u64::MAX, &forged).map(|opened| *opened.routing());
        match flag {
            1 => assert!(matches!(verdict, Ok(Routing::Forward { .. }))),
            2 => assert!(matches!(verdict, Ok(Routing::Final { .. }))),
            _ => assert_eq!(verdict, Err(Reject::Flag)),
        }
    }
}
