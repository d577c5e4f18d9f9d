//! PKT-22: a batch gets the verdicts and bytes that its packets get one at a time, on every path,
//! whatever stands beside them and however many they are.

mod support;

use rand_core::Rng;
use sphinx::{Packet, Path, Reject, Routing, open_one};
use support::{DELAY_MAX_NS, route, seeded};

/// A packet as it came, and what becomes of it.
type Outcome = (Result<(Routing, [u8; 32]), Reject>, Packet);

/// The reference: one at a time, in pure Rust.
fn alone(key: &sphinx::SecretKey, packet: &Packet) -> Outcome {
    let key = key.clone().on(Path::Portable).expect("everywhere");
    let mut packet = *packet;
    let verdict = open_one(&key, DELAY_MAX_NS, &packet).map(|opened| {
        let seen = (*opened.routing(), *opened.tag());
        sphinx::finish(opened, &mut packet);
        seen
    });
    (verdict, packet)
}

fn together(key: &sphinx::SecretKey, path: Path, packets: &[Packet]) -> Vec<Outcome> {
    let key = key.clone().on(path).expect("present");
    let mut verdicts = Vec::new();
    sphinx::open(&key, DELAY_MAX_NS, packets, &mut verdicts);
    let mut packets = packets.to_vec();
    let seen = verdicts
        .iter()
        .map(|verdict| match verdict {
            Ok(opened) => Ok((*opened.routing(), *opened.tag())),
            Err(why) => Err(*why),
        })
        .collect::<Vec<_>>();
    let passed = verdicts.into_iter().zip(&mut packets);
    sphinx::finish_batch(passed.filter_map(|(verdict, packet)| Some((verdict.ok()?, packet))));
    seen.into_iter().zip(packets).collect()
}

#[test]
fn pkt_22_batches_are_their_packets() {
    let mut rng = seeded(22);
    let (keys, mut hops) = route(&mut rng, 5);
    let mut counts = std::collections::BTreeMap::new();
    let paths: Vec<Path> = Path::present().collect();
    println!("paths {paths:?}");
    for len in 0..=33 {
        let packets: Vec<Packet> = (0..len)
            .map(|_| {
                let kind = rng.next_u32() % 8;
                hops[0].delay_ns = if kind == 0 { DELAY_MAX_NS + 1 } else { 7 };
                // The last hop of a route of one is where packets end.
                let part = if kind == 1 { &hops[..1] } else { &hops[..] };
                let mut packet = *sphinx::build(&mut rng, part, [1; 32], [2; 16], b"message");
                match kind {
                    2 => packet[rng.next_u32() as usize % 348] ^= 4,
                    3 => packet[..32].fill(0),
                    4 => rng.fill_bytes(&mut packet),
                    _ => {}
                }
                packet
            })
            .collect();
        let expected: Vec<Outcome> = packets.iter().map(|p| alone(&keys[0], p)).collect();
        for (verdict, _) in &expected {
            let kind = match verdict {
                Ok((Routing::Final { .. }, _)) => "final".to_owned(),
                Ok(_) => "forward".to_owned(),
                Err(why) => format!("{why:?}"),
            };
            *counts.entry(kind).or_insert(0) += 1;
        }
        for path in &paths {
            let ours = together(&keys[0], *path, &packets);
            assert!(ours == expected, "{path:?}, {len} packets");
        }
    }
    // The positive control: every kind was among them.
    for kind in ["final", "forward", "LowOrder", "Mac", "DelayTooLong"] {
        assert!(
            counts.get(kind).is_some_and(|n| *n > 10),
            "{kind}: {counts:?}"
        );
    }
}

#[test]
fn a_path_that_is_absent_is_refused_by_name() {
    for path in Path::ALL {
        match path.require() {
            Ok(same) => assert_eq!(same, path),
            Err(absent) => {
                assert_ne!(path, Path::best());
                assert!(absent.to_string().contains(path.name()));
            }
        }
    }
    assert!(Path::best().require().is_ok());
}
