//! What the tests of this crate share: seeded routes, both implementations hop by hop, and a
//! forger that makes headers with a valid MAC and any content.
//!
//! The forger derives its keys from the primitives directly, not through the crate under test.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of this module"
)]

use aes::cipher::{KeyIvInit, StreamCipher};
use chacha20::ChaCha20Rng;
use hmac::{KeyInit, Mac};
use rand_core::{Rng, SeedableRng};
use sphinx::{HEADER_LEN, Hop, Opened, PACKET_LEN, Packet, Path, Routing, SecretKey, Verdicts};
use sphinx_packet::header::delays::Delay;
use sphinx_packet::route::{Destination, DestinationAddressBytes, Node, NodeAddressBytes};
use sphinx_packet::{ProcessedPacketData, SphinxPacket};
use x25519_dalek::StaticSecret;

/// Longest delay in the tests: one hour, in nanoseconds.
pub const DELAY_MAX_NS: u64 = 3_600_000_000_000;

/// The generator of everything random in a test.
pub fn seeded(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// `N` bytes of `rng`.
pub fn bytes<const N: usize>(rng: &mut impl Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// A random route and its private keys.
pub fn route(rng: &mut ChaCha20Rng, hops: usize) -> (Vec<SecretKey>, Vec<Hop>) {
    (0..hops)
        .map(|_| {
            let key = SecretKey::generate(rng);
            let hop = Hop {
                address: bytes(rng),
                key: key.public(),
                delay_ns: rng.next_u64() % (DELAY_MAX_NS + 1),
            };
            (key, hop)
        })
        .unzip()
}

/// The same route in the crate's types.
pub fn their_route(route: &[Hop]) -> (Vec<Node>, Vec<Delay>) {
    route
        .iter()
        .map(|hop| {
            let node = Node::new(
                NodeAddressBytes::from_bytes(hop.address),
                x25519_dalek::PublicKey::from(*hop.key.as_bytes()),
            );
            (node, Delay::new_from_nanos(hop.delay_ns))
        })
        .unzip()
}

/// A destination in the crate's types.
pub fn their_destination(address: [u8; 32], surb_id: [u8; 16]) -> Destination {
    Destination::new(DestinationAddressBytes::from_bytes(address), surb_id)
}

/// The crate's packet as ours.
pub fn our_packet(theirs: &SphinxPacket) -> Box<Packet> {
    let bytes: [u8; PACKET_LEN] = theirs.to_bytes().try_into().expect("one size");
    Box::new(bytes)
}

/// Our packet as the crate's.
pub fn their_packet(ours: &Packet) -> SphinxPacket {
    SphinxPacket::from_bytes(ours).expect("long enough")
}

/// Our private key as the crate's.
pub fn their_key(key: &SecretKey) -> StaticSecret {
    StaticSecret::from(*key.to_bytes())
}

/// One hop of ours, in place: opens and finishes on every path, by itself and in batches, which
/// agree.
pub fn peel(key: &SecretKey, packet: &mut Packet) -> (Routing, [u8; 32]) {
    let mut results = Vec::new();
    for path in Path::present() {
        let key = key.clone().on(path).expect("present");
        let mut one = *packet;
        let opened: Opened = sphinx::open_one(&key, DELAY_MAX_NS, &one).expect("an honest packet");
        let seen = (*opened.routing(), *opened.tag());
        sphinx::finish(opened, &mut one);
        results.push((seen, one));
        let mut batch = [*packet; 3];
        let mut verdicts = Verdicts::new();
        sphinx::open(&key, DELAY_MAX_NS, &batch, &mut verdicts);
        let opened: Vec<Opened> = verdicts
            .drain()
            .map(|verdict| verdict.expect("an honest packet"))
            .collect();
        let seen = opened.iter().map(|o| (*o.routing(), *o.tag()));
        let seen: Vec<_> = seen.collect();
        sphinx::finish_batch(opened.into_iter().zip(&mut batch));
        results.extend(seen.into_iter().zip(batch));
    }
    assert!(
        results.iter().all(|result| *result == results[0]),
        "the paths agree"
    );
    let (seen, peeled) = results[0];
    *packet = peeled;
    seen
}

/// One hop of both implementations; asserts that tag, routing and every byte agree.
pub fn peel_as_both(key: &SecretKey, packet: &mut Packet) -> Routing {
    let theirs = their_packet(packet);
    let secret = theirs
        .header
        .compute_expanded_shared_secret(&their_key(key));
    let processed = theirs
        .process_with_expanded_secret(&secret)
        .expect("the crate opens an honest packet");

    let header: [u8; HEADER_LEN] = packet[..HEADER_LEN].try_into().expect("a header");
    let (routing, tag) = peel(key, packet);
    assert_eq!(tag, *secret.replay_tag(), "tag");
    assert_eq!(processed.version.0, 260);
    match processed.data {
        ProcessedPacketData::ForwardHop {
            next_hop_packet,
            next_hop_address,
            delay,
        } => {
            let expected = Routing::Forward {
                next: next_hop_address.to_bytes(),
                delay_ns: delay.to_nanos(),
            };
            assert_eq!(routing, expected);
            assert!(next_hop_packet.to_bytes() == packet[..], "next packet");
        }
        ProcessedPacketData::FinalHop {
            destination,
            identifier,
            payload,
        } => {
            let expected = Routing::Final {
                destination: destination.as_bytes(),
                surb_id: identifier,
            };
            assert_eq!(routing, expected);
            assert!(payload.as_bytes() == sphinx::payload(packet), "payload");
            // PKT-13
            assert_eq!(packet[..HEADER_LEN], header);
        }
    }
    routing
}

/// The keys that a header is made with.
pub struct Keys {
    stream: [u8; 16],
    mac: [u8; 16],
}

impl Keys {
    /// Those that the owner of `secret` derives from the header's α.
    pub fn of(secret: &[u8; 32], header: &[u8]) -> Keys {
        let alpha: [u8; 32] = header[..32].try_into().expect("32 bytes");
        let shared = x25519_dalek::x25519(*secret, alpha);
        let mut expanded = [0; 288];
        hkdf::Hkdf::<sha2::Sha256>::new(Some(b""), &shared)
            .expand(
                b"Dwste mou enan moxlo arketa makru kai ena upomoxlio gia na ton topothetisw kai tha kinisw thn gh.",
                &mut expanded,
            )
            .expect("288 bytes");
        Keys {
            stream: expanded[..16].try_into().expect("16 bytes"),
            mac: expanded[16..32].try_into().expect("16 bytes"),
        }
    }

    /// Writes γ for the header's β as it stands.
    pub fn repair_mac(&self, header: &mut [u8]) {
        let mut mac =
            hmac::Hmac::<sha2::Sha256>::new_from_slice(&self.mac).expect("any key length");
        mac.update(&header[48..348]);
        header[32..48].copy_from_slice(&mac.finalize().into_bytes()[..16]);
    }

    /// Encrypts or decrypts the header's β in place.
    pub fn apply_stream(&self, header: &mut [u8]) {
        ctr::Ctr64BE::<aes::Aes128>::new(&self.stream.into(), &[0; 16].into())
            .apply_keystream(&mut header[48..348]);
    }
}

/// Changes the decrypted β of `header`, whose hop owns `secret`, and leaves a valid MAC.
pub fn forge(secret: &SecretKey, header: &mut [u8], change: impl FnOnce(&mut [u8])) {
    let keys = Keys::of(&secret.to_bytes(), header);
    keys.apply_stream(header);
    change(&mut header[48..348]);
    keys.apply_stream(header);
    keys.repair_mac(header);
}

/// A generator that hands out fixed bytes, so that a vector holds all the randomness it needs.
pub struct Script<'a>(pub &'a [u8]);

impl rand_core::TryRng for Script<'_> {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
        let (now, later) = self.0.split_at(to.len());
        to.copy_from_slice(now);
        self.0 = later;
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Script<'_> {}
