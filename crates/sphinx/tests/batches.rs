//! PKT-22: a batch gets the verdicts and bytes that its packets get one at a time, on every path,
//! whatever stands beside them and however many they are.

mod support;

use rand_core::Rng;
use sphinx::{Packet, Path, Reject, Routing, Verdicts, open_one};
use support::{DELAY_MAX_NS, forge, route, seeded};

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
    let mut verdicts = Verdicts::new();
    sphinx::open(&key, DELAY_MAX_NS, packets, &mut verdicts);
    let mut packets = packets.to_vec();
    let seen = verdicts
        .iter()
        .map(|verdict| match verdict {
            Ok(opened) => Ok((*opened.routing(), *opened.tag())),
            Err(why) => Err(*why),
        })
        .collect::<Vec<_>>();
    // By reference, as nodes do; `peel` of the tests' support gives them away.
    let passed = verdicts.iter().zip(&mut packets);
    let passed = passed.filter_map(|(verdict, packet)| Some((verdict.as_ref().ok()?, packet)));
    sphinx::finish_batch(passed);
    seen.into_iter().zip(packets).collect()
}

/// Versions 0, 259, 65535, and 260 with something in the byte before it (PKT-9).
const FORGED_VERSIONS: [[u8; 3]; 5] = [
    [0, 0, 0],
    [0, 1, 3],
    [0, 0xff, 0xff],
    [1, 1, 4],
    [0x80, 1, 4],
];

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
                let kind = rng.next_u32() % 12;
                hops[0].delay_ns = if kind == 0 { DELAY_MAX_NS + 1 } else { 7 };
                // The last hop of a route of one is where packets end.
                let part = if kind == 1 { &hops[..1] } else { &hops[..] };
                let mut packet = *sphinx::build(&mut rng, part, [1; 32], [2; 16], b"message");
                match kind {
                    2 => packet[rng.next_u32() as usize % 348] ^= 4,
                    3 => packet[..32].fill(0),
                    4 => rng.fill_bytes(&mut packet),
                    // What someone who knows the key of the node can make: a valid MAC over anything.
                    5 => {
                        let version = FORGED_VERSIONS[rng.next_u32() as usize % 5];
                        forge(&keys[0], &mut packet[..], |beta| {
                            beta[1..4].copy_from_slice(&version);
                        });
                    }
                    6 => {
                        let flag = [0, 3, 0x81, 0xff][rng.next_u32() as usize % 4];
                        forge(&keys[0], &mut packet[..], |beta| beta[0] = flag);
                    }
                    7 => forge(&keys[0], &mut packet[..], |beta| beta[1..44].fill(0xff)),
                    // Forged, and yet a packet: another address and a final hop's flag.
                    8 => forge(&keys[0], &mut packet[..], |beta| {
                        beta[0] = 2;
                        beta[4..36].fill(7);
                    }),
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

        // Opened on any path, finished together.
        let on = |i: usize| keys[0].clone().on(paths[i % paths.len()]).expect("present");
        let opened = packets.iter().enumerate();
        let opened: Vec<_> = opened
            .map(|(i, packet)| open_one(&on(i), DELAY_MAX_NS, packet))
            .collect();
        let mut finished = packets.clone();
        let passed = opened.iter().zip(&mut finished);
        sphinx::finish_batch(
            passed.filter_map(|(opened, packet)| Some((opened.as_ref().ok()?, packet))),
        );
        assert!(
            finished
                .iter()
                .eq(expected.iter().map(|(_, packet)| packet))
        );
    }
    // The positive control: every kind was among them.
    for kind in [
        "final",
        "forward",
        "LowOrder",
        "Mac",
        "Version",
        "Flag",
        "DelayTooLong",
    ] {
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
