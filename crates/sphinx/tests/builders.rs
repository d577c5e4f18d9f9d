//! PKT-14, PKT-16, PKT-22: packets and reply blocks built together are, byte for byte, those built
//! one at a time, on every path, with tables of the nodes' keys and without.
//!
//! The reference is one draft at a time in pure Rust without tables, which the frozen vectors
//! (`vectors.rs`) and `sphinx-packet` (`crate_equality.rs`) hold.

mod support;

use rand_core::Rng;
use sphinx::{Builder, Draft, Hop, MESSAGE_LEN, Packet, Path, PublicKey};
use support::{DELAY_MAX_NS, bytes, route, seeded};

/// Twelve nodes, from which routes are drawn.
fn nodes() -> Vec<Hop> {
    route(&mut seeded(1), 12).1
}

/// `count` drafts with messages; every third is of a route of its own length.
fn drafts(seed: u64, nodes: &[Hop], count: usize, reply: bool) -> Vec<(Draft, Vec<u8>)> {
    let mut rng = seeded(seed);
    let each = (0..count).map(|i| {
        let hops = if i % 3 == 2 { 1 + i / 3 % 5 } else { 5 };
        let mut route: Vec<Hop> = (0..hops)
            .map(|_| nodes[rng.next_u32() as usize % nodes.len()])
            .collect();
        for hop in &mut route {
            hop.delay_ns = rng.next_u64() % DELAY_MAX_NS;
        }
        let mut message = vec![0; rng.next_u32() as usize % (MESSAGE_LEN + 1)];
        rng.fill_bytes(&mut message);
        let destination = bytes(&mut rng);
        let draft = if reply {
            Draft::reply(&mut rng, &route, destination)
        } else {
            let surb_id = bytes(&mut rng);
            Draft::new(&mut rng, &route, destination, surb_id)
        };
        (draft, message)
    });
    each.collect()
}

/// Every path, with tables of none, some and all of the nodes.
fn builders(nodes: &[Hop]) -> Vec<Builder> {
    let mut builders = Vec::new();
    for path in Path::present() {
        for known in [0, 5, nodes.len()] {
            let builder = Builder::default().on(path).expect("present");
            builders.push(builder.knowing(nodes[..known].iter().map(|hop| &hop.key)));
        }
    }
    builders
}

fn reference() -> Builder {
    Builder::default().on(Path::Portable).expect("everywhere")
}

/// Some lengths around those of a pass (8) and of a batch (32).
const LENGTHS: [usize; 12] = [0, 1, 2, 3, 4, 5, 8, 9, 31, 32, 33, 41];

#[test]
fn pkt_22_packets_built_together_are_those_built_alone() {
    let nodes = nodes();
    let builders = builders(&nodes);
    println!("{builders:?}");
    for (seed, count) in (0..).zip(LENGTHS) {
        let alone: Vec<Box<Packet>> = drafts(seed, &nodes, count, false)
            .into_iter()
            .flat_map(|draft| reference().packets(&[draft]))
            .collect();
        assert_eq!(alone.len(), count);
        for builder in &builders {
            let together = builder.packets(&drafts(seed, &nodes, count, false));
            assert!(together == alone, "{count} packets, {builder:?}");
            let single = drafts(seed, &nodes, count, false)
                .into_iter()
                .flat_map(|draft| builder.packets(&[draft]));
            assert!(single.eq(alone.iter().cloned()), "one by one, {builder:?}");
        }
        // The positive control: another seed gives other packets.
        let other = reference().packets(&drafts(seed + 100, &nodes, count, false));
        assert!(count == 0 || other != alone);
    }
}

#[test]
fn pkt_22_surbs_made_together_are_those_made_alone() {
    let nodes = nodes();
    let only = |drafts: Vec<(Draft, Vec<u8>)>| drafts.into_iter().map(|both| both.0);
    for (seed, count) in (0..).zip(LENGTHS) {
        let written = |builder: &Builder, drafts: &[Draft]| {
            let made = builder.surbs(drafts).into_iter();
            made.map(|(surb, secret)| (surb.to_bytes(), *secret.to_bytes()))
                .collect::<Vec<_>>()
        };
        let alone: Vec<_> = only(drafts(seed, &nodes, count, true))
            .flat_map(|draft| written(&reference(), &[draft]))
            .collect();
        assert_eq!(alone.len(), count);
        for builder in builders(&nodes) {
            let drafts: Vec<Draft> = only(drafts(seed, &nodes, count, true)).collect();
            assert!(
                written(&builder, &drafts) == alone,
                "{count} SURBs, {builder:?}"
            );
        }
    }
}

/// PKT-16: a batch draws what its packets draw one after the other, and nothing more.
#[test]
fn pkt_16_a_draft_draws_what_a_packet_takes() {
    let nodes = nodes();
    for hops in 1..=5 {
        let (mut one, mut other) = (seeded(7), seeded(7));
        let route = &nodes[..hops];
        let packet = sphinx::build(&mut one, route, [1; 32], [2; 16], b"message");
        let draft = Draft::new(&mut other, route, [1; 32], [2; 16]);
        assert!(Builder::default().packets(&[(draft, b"message")]) == [packet]);
        // Both generators stand behind 32 bytes for x and the padding.
        let mut behind = seeded(7);
        behind.fill_bytes(&mut vec![0; 32 + 300 - 60 * (hops - 1) - 52]);
        let next = behind.next_u64();
        assert_eq!((one.next_u64(), other.next_u64()), (next, next));
    }
}

/// A table is of the key itself, whatever sign its point has.
#[test]
fn pkt_14_tables_are_of_every_key() {
    let (_, hops) = route(&mut seeded(3), 64);
    let keys: Vec<PublicKey> = hops.iter().map(|hop| hop.key).collect();
    let knowing = Builder::default().knowing(&keys);
    for (seed, hop) in (0..).zip(&hops) {
        let draft = || Draft::new(&mut seeded(seed), &[*hop], [0; 32], [0; 16]);
        let plain = Builder::default().packets(&[(draft(), b"")]);
        assert!(knowing.packets(&[(draft(), b"")]) == plain);
    }
}

#[test]
#[should_panic(expected = "zero is of forward packets")]
fn pkt_20_a_forward_draft_makes_no_surb() {
    let draft = Draft::new(&mut seeded(1), &nodes()[..1], [0; 32], [0; 16]);
    Builder::default().surbs(&[draft]);
}
