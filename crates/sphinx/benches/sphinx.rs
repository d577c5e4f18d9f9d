//! `cargo bench -p sphinx`: our packets and those of `sphinx-packet` 0.8.0, side by side; and one hop
//! of `nym-outfox`, another format: one multiplication a hop, four hops, no blinding.
//!
//! Everything is measured in one process, interleaved: one short window of each in turn, many
//! rounds, and of each the fastest window counts. So whatever else the machine does, it does to
//! all of them. The last lines are `ratio NAME VALUE`: the crate's time over ours, except
//! `replay_share`, the replay set's time over that of a whole unwrap.
//!
//! Batched figures are of 32 packets at a time; what that gains over one at a time depends on the
//! paths that the processor offers, which the first line names. Packets are built for known nodes,
//! with tables of their keys, unless a line says otherwise.
//!
//! `-- --path NAME` measures another path of the processor than the best: `portable`, `assembly`,
//! `avx2`.
//!
//! `cargo bench -p sphinx --bench sphinx -- --guard` is a short run that fails if a ratio of the
//! lanes is below its floor.

#![expect(clippy::print_stdout, reason = "what a benchmark is for")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use chacha20::ChaCha20Rng;
use nym_outfox::packet::OutfoxPacket;
use rand_core::{Rng, SeedableRng};
use sphinx::{Builder, Draft, HEADER_LEN, Hop, Path, SecretKey, Verdicts, any_size};
use sphinx_packet::{
    SURBMaterial, SphinxPacket,
    header::delays::Delay,
    packet::builder::SphinxPacketBuilder,
    route::{Destination, DestinationAddressBytes, Node, NodeAddressBytes},
};

/// Length of a window, and how many of each there are; of a guard's run.
const WINDOW: Duration = Duration::from_millis(12);
const ROUNDS: usize = 40;
const GUARD_ROUNDS: usize = 12;
/// What a guard's run wants of the lanes at least, on a processor of Intel's and on another: 12 and
/// 7 % below what they reach (docs/PERFORMANCE.md), more than an interleaved minimum moves. By maker,
/// since where scalar code is faster the same lanes are a smaller multiple of it.
const FLOORS: [(&str, f64, f64); 6] = [
    ("unwrap_single_2k", 1.9, 3.1),
    ("unwrap_batched_1k", 7.2, 8.0),
    ("unwrap_batched_2k", 6.7, 7.6),
    ("reject_batched", 7.4, 8.4),
    ("build_5_hops_batched", 12.8, 15.2),
    ("surb_create_batched", 16.5, 19.0),
];
const BATCH: usize = 32;
const CAP: u64 = 1 << 40;

/// One thing to measure: does its work once and says how many packets that was.
type Work<'a> = Box<dyn FnMut() -> usize + 'a>;

#[expect(clippy::disallowed_methods, reason = "a benchmark needs a clock")]
fn now() -> Instant {
    Instant::now()
}

/// µs per packet of each work: the fastest of its windows.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn measure(works: &mut [(&'static str, Work<'_>)], rounds: usize) -> Vec<f64> {
    let mut fastest = vec![f64::INFINITY; works.len()];
    for _ in 0..rounds {
        for ((_, work), fastest) in works.iter_mut().zip(&mut fastest) {
            let (start, mut done) = (now(), 0);
            while start.elapsed() < WINDOW {
                done += work();
            }
            *fastest = fastest.min(start.elapsed().as_secs_f64() * 1e6 / done as f64);
        }
    }
    fastest
}

struct Set {
    key: SecretKey,
    theirs: x25519_dalek::StaticSecret,
    /// Packets of one payload size, all for `key`.
    packets: Vec<Vec<u8>>,
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn bytes<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn route(rng: &mut ChaCha20Rng, hops: usize) -> (Vec<SecretKey>, Vec<Hop>) {
    let hop = |_| {
        let key = SecretKey::generate(rng);
        let hop = Hop {
            address: bytes(rng),
            key: key.public(),
            delay_ns: 50_000_000,
        };
        (key, hop)
    };
    (0..hops).map(hop).unzip()
}

fn their_route(route: &[Hop]) -> (Vec<Node>, Vec<Delay>) {
    let both = |hop: &Hop| {
        let address = NodeAddressBytes::from_bytes(hop.address);
        let key = x25519_dalek::PublicKey::from(*hop.key.as_bytes());
        (Node::new(address, key), Delay::new_from_nanos(hop.delay_ns))
    };
    route.iter().map(both).unzip()
}

/// Without tables, and with those of all nodes of the route.
fn builders(path: Path, route: &[Hop]) -> [Builder; 2] {
    let unknown = Builder::default().on(path).expect("present");
    let known = unknown.clone();
    [unknown, known.knowing(route.iter().map(|hop| &hop.key))]
}

fn destination() -> Destination {
    Destination::new(DestinationAddressBytes::from_bytes([7; 32]), [9; 16])
}

impl Set {
    fn new(path: Path, payload: usize) -> Self {
        let mut rng = rng(1);
        let (keys, route) = route(&mut rng, 5);
        let (nodes, delays) = their_route(&route);
        let packets = (0..BATCH)
            .map(|_| {
                SphinxPacketBuilder::new()
                    .with_payload_size(payload)
                    .build_packet(b"", &nodes, &destination(), &delays)
                    .expect("five hops")
                    .to_bytes()
            })
            .collect();
        let key = keys[0].clone().on(path).expect("present");
        Self {
            theirs: x25519_dalek::StaticSecret::from(*key.to_bytes()),
            key,
            packets,
        }
    }

    /// One packet at a time, in place.
    fn single(&self, path: Path) -> Work<'_> {
        let key = self.key.clone().on(path).expect("present");
        let mut buffers = self.packets.clone();
        Box::new(move || {
            for (buffer, packet) in buffers.iter_mut().zip(&self.packets) {
                buffer.copy_from_slice(packet);
                let (header, payload) = buffer.split_at_mut(HEADER_LEN);
                let header: &mut [u8; HEADER_LEN] = header.try_into().expect("a header");
                let opened = any_size::open_header(&key, CAP, header).expect("honest");
                any_size::finish_parts(opened, header, payload);
            }
            black_box(&buffers);
            BATCH
        })
    }

    fn theirs(&self) -> Work<'_> {
        Box::new(|| {
            for packet in &self.packets {
                let packet = SphinxPacket::from_bytes(packet).expect("long enough");
                black_box(packet.process(&self.theirs).expect("honest"));
            }
            BATCH
        })
    }

    /// One hop of an Outfox packet of as long a payload.
    fn outfox(payload: usize) -> Work<'static> {
        use outfox_sphinx_packet::crypto::{PrivateKey, PublicKey};
        use outfox_sphinx_packet::route::{
            Destination, DestinationAddressBytes, Node, NodeAddressBytes,
        };
        let keys = [1, 2, 3, 4].map(|seed| PrivateKey::from([seed; 32]));
        let nodes = keys.each_ref().map(|key| {
            let address = NodeAddressBytes::from_bytes([1; 32]);
            Node::new(address, PublicKey::from(key))
        });
        let destination = Destination::new(DestinationAddressBytes::from_bytes([7; 32]), [9; 16]);
        let packet = OutfoxPacket::build(b"", &nodes, &destination, Some(payload));
        let packet = packet.and_then(|packet| packet.to_bytes()).expect("built");
        Box::new(move || {
            for _ in 0..BATCH {
                let mut packet = OutfoxPacket::try_from(&packet[..]).expect("long enough");
                packet.decode_next_layer(&keys[0]).expect("honest");
                black_box(packet);
            }
            BATCH
        })
    }

    fn garbage(&self) -> Self {
        let mut packets = self.packets.clone();
        packets.iter_mut().for_each(|packet| packet[100] ^= 1);
        Self {
            packets,
            key: self.key.clone(),
            theirs: self.theirs.clone(),
        }
    }

    fn reject(&self) -> Work<'_> {
        Box::new(|| {
            for packet in &self.packets {
                let header = packet.first_chunk().expect("a header");
                assert!(black_box(any_size::open_header(&self.key, CAP, header)).is_err());
            }
            BATCH
        })
    }

    fn reject_theirs(&self) -> Work<'_> {
        Box::new(|| {
            for packet in &self.packets {
                let packet = SphinxPacket::from_bytes(packet).expect("long enough");
                assert!(black_box(packet.process(&self.theirs)).is_err());
            }
            BATCH
        })
    }

    /// Batches through [`sphinx::open`] and [`sphinx::finish_batch`], in place.
    fn batched(&self) -> Work<'_> {
        let mut buffers = self.packets.clone();
        let mut verdicts = Verdicts::with_capacity(BATCH);
        Box::new(move || {
            for (buffer, packet) in buffers.iter_mut().zip(&self.packets) {
                buffer.copy_from_slice(packet);
            }
            let headers = buffers.iter().map(|b| b.first_chunk().expect("a header"));
            any_size::open_headers(&self.key, CAP, headers, &mut verdicts);
            let opened = verdicts
                .iter()
                .map(|verdict| verdict.as_ref().expect("honest"));
            let parts = opened.zip(&mut buffers).map(|(opened, buffer)| {
                let (header, payload) = buffer.split_first_chunk_mut().expect("a header");
                (opened, header, payload)
            });
            any_size::finish_batch_parts(parts);
            verdicts.clear();
            black_box(&buffers);
            BATCH
        })
    }

    fn reject_batched(&self) -> Work<'_> {
        let mut verdicts = Verdicts::with_capacity(BATCH);
        Box::new(move || {
            let headers = self
                .packets
                .iter()
                .map(|p| p.first_chunk().expect("a header"));
            any_size::open_headers(&self.key, CAP, headers, &mut verdicts);
            assert!(verdicts.drain().all(|verdict| verdict.is_err()));
            BATCH
        })
    }
}

fn print(works: &[(&'static str, Work<'_>)], times: &[f64]) {
    for ((name, _), time) in works.iter().zip(times) {
        println!("{name:<44} {time:>9.2} µs");
    }
}

/// The one that the arguments name, or the best.
fn path() -> Path {
    let name = std::env::args().skip_while(|arg| arg != "--path").nth(1);
    let Some(name) = name else {
        return Path::best();
    };
    let named = Path::present().find(|path| path.name() == name);
    named.unwrap_or_else(|| panic!("this processor has no path {name:?}"))
}

fn main() {
    let guard = std::env::args().any(|arg| arg == "--guard");
    let path = path();
    if guard && path != Path::Lanes {
        println!("guard of the lanes: skipped, {} has none", path.name());
        return;
    }
    let rounds = if guard { GUARD_ROUNDS } else { ROUNDS };
    println!("best path: {}", Path::best().name());
    if path != Path::best() {
        println!("measured: {}", path.name());
    }
    let mut ratios: Vec<(&str, f64)> = Vec::new();

    let [one, two, thirty_two] = [1024, 2048, 32 * 1024].map(|payload| Set::new(path, payload));
    let mut works = vec![
        ("unwrap 2 KiB, sphinx-packet", two.theirs()),
        ("unwrap 2 KiB, one at a time", two.single(path)),
        (
            "unwrap 2 KiB, one at a time, portable",
            two.single(Path::Portable),
        ),
        ("unwrap 2 KiB, batched", two.batched()),
        ("unwrap 1 KiB, sphinx-packet", one.theirs()),
        ("unwrap 1 KiB, batched", one.batched()),
        ("unwrap 32 KiB, sphinx-packet", thirty_two.theirs()),
        ("unwrap 32 KiB, batched", thirty_two.batched()),
        ("unwrap 2 KiB, nym-outfox", Set::outfox(2048)),
    ];
    let times = measure(&mut works, rounds);
    print(&works, &times);
    ratios.push(("unwrap_batched_1k", times[4] / times[5]));
    ratios.push(("unwrap_batched_2k", times[0] / times[3]));
    ratios.push(("unwrap_batched_32k", times[6] / times[7]));
    ratios.push(("unwrap_single_2k", times[0] / times[1]));
    let unwrap = times[3];

    let garbage = two.garbage();
    let mut works = vec![
        ("reject a bad MAC, sphinx-packet", garbage.reject_theirs()),
        ("reject a bad MAC, one at a time", garbage.reject()),
        ("reject a bad MAC, batched", garbage.reject_batched()),
    ];
    let times = measure(&mut works, rounds);
    print(&works, &times);
    ratios.push(("reject_batched", times[0] / times[2]));
    ratios.push(("reject_single", times[0] / times[1]));

    for (hops, names, ratio, ratio_batched) in [
        (
            3,
            [
                "build 3 hops, sphinx-packet",
                "build 3 hops, unknown nodes",
                "build 3 hops",
                "build 3 hops, batched",
            ],
            "build_3_hops",
            "build_3_hops_batched",
        ),
        (
            5,
            [
                "build 5 hops, sphinx-packet",
                "build 5 hops, unknown nodes",
                "build 5 hops",
                "build 5 hops, batched",
            ],
            "build_5_hops",
            "build_5_hops_batched",
        ),
    ] {
        let (_, route) = route(&mut rng(2), hops);
        let (nodes, delays) = their_route(&route);
        let [unknown, known] = builders(path, &route);
        let packets = |builder, count| -> Work<'_> {
            let (route, mut random) = (&route, rng(2));
            Box::new(move || {
                let draft = |_| (Draft::new(&mut random, route, [7; 32], [0; 16]), b"");
                let drafts: Vec<_> = (0..count).map(draft).collect();
                black_box(Builder::packets(builder, &drafts));
                count
            })
        };
        let theirs: Work<'_> = Box::new(|| {
            let builder = SphinxPacketBuilder::new().with_payload_size(2048);
            let built = builder.build_packet(b"", &nodes, &destination(), &delays);
            black_box(built.expect("a route"));
            1
        });
        let ours = [
            packets(&unknown, 1),
            packets(&known, 1),
            packets(&known, BATCH),
        ];
        let works = core::iter::once(theirs).chain(ours);
        let mut works: Vec<_> = names.into_iter().zip(works).collect();
        let times = measure(&mut works, rounds);
        print(&works, &times);
        ratios.push((ratio, times[0] / times[2]));
        ratios.push((ratio_batched, times[0] / times[3]));
    }

    let version = sphinx_packet::version::SINGLE_SEED_SURB_VERSION;
    let (_, route) = route(&mut rng(3), 5);
    let (nodes, delays) = their_route(&route);
    let [unknown, known] = builders(path, &route);
    let surbs = |builder, count| -> Work<'_> {
        let (route, mut random) = (&route, rng(3));
        Box::new(move || {
            let draft = |_| Draft::reply(&mut random, route, [7; 32]);
            let drafts: Vec<_> = (0..count).map(draft).collect();
            black_box(Builder::surbs(builder, &drafts));
            count
        })
    };
    let mut works: Vec<(&str, Work<'_>)> = vec![
        (
            "SURB of 5 hops, sphinx-packet",
            Box::new(|| {
                let material =
                    SURBMaterial::new(nodes.clone(), delays.clone(), destination(), version);
                black_box(material.construct_recoverable_SURB().expect("a route"));
                1
            }),
        ),
        ("SURB of 5 hops, unknown nodes", surbs(&unknown, 1)),
        ("SURB of 5 hops", surbs(&known, 1)),
        ("SURB of 5 hops, batched", surbs(&known, BATCH)),
    ];
    let times = measure(&mut works, rounds);
    print(&works, &times);
    ratios.push(("surb_create", times[0] / times[2]));
    ratios.push(("surb_create_batched", times[0] / times[3]));

    // The set's part of the work: fingerprint, look up, insert.
    let mut set = proto::replay::ReplaySet::new(&two.key, 1 << 22);
    let mut number = 0u64;
    let mut works: Vec<(&str, Work<'_>)> = vec![(
        "replay set: check and insert",
        Box::new(|| {
            if set.held() + BATCH > set.capacity() {
                set = proto::replay::ReplaySet::new(&two.key, 1 << 22);
            }
            let fingerprints: [_; BATCH] = core::array::from_fn(|_| {
                number += 1;
                let mut tag = [0; 32];
                tag[..8].copy_from_slice(&number.to_be_bytes());
                set.fingerprint(&tag)
            });
            set.admit_batch(&fingerprints, |_, admitted| admitted.expect("new"));
            BATCH
        }),
    )];
    let times = measure(&mut works, rounds);
    print(&works, &times);
    ratios.push(("replay_share", times[0] / unwrap));

    println!();
    for (name, ratio) in &ratios {
        println!("ratio {name} {ratio:.3}");
    }
    if guard {
        let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let intel = processor.contains("GenuineIntel");
        let floors = FLOORS
            .map(|(name, on_intel, otherwise)| (name, if intel { on_intel } else { otherwise }));
        let below = floors.into_iter().filter(|(name, floor)| {
            let reached = ratios.iter().find(|(of, _)| of == name);
            reached.expect("every floor has its ratio").1 < *floor
        });
        let below: Vec<_> = below.collect();
        assert!(below.is_empty(), "slower than the floors {below:?}");
        println!("guard of the lanes: at or above {floors:?}");
    }
}
