//! Lengths and offsets of a packet, in one place.
//!
//! Spec: docs/spec/packet.md, PKT-1 to PKT-3.
//!
//! | part          | bytes | content                                                           |
//! |---------------|-------|-------------------------------------------------------------------|
//! | α             | 32    | group element (u-coordinate of Curve25519)                        |
//! | γ             | 16    | MAC of β                                                          |
//! | β             | 300   | five routing blocks of 60, encrypted                              |
//! | payload       | 2048  | 16 zero bytes, message, 0x01, zero bytes; one layer a hop         |
//!
//! | routing block | bytes | forward: flag 1                 | final: flag 2                   |
//! |---------------|-------|---------------------------------|---------------------------------|
//! | flag          | 1     | 1                               | 2                               |
//! | version       | 3     | 260, big-endian                 | 260, big-endian                 |
//! | address       | 32    | next hop                        | destination                     |
//! | field         | 8/16  | delay, ns, big-endian           | SURB id                         |
//! | rest          | 16    | γ of the next hop               | (8 bytes of random padding)     |
//!
//! Invariant: the constants here equal those of `sphinx-packet`; the build fails otherwise.

use core::ops::Range;

use sphinx_packet::{constants as theirs, header as their_header, version};

/// Length of α, in bytes.
pub(crate) const ALPHA_LEN: usize = 32;
/// Length of γ, the header's MAC, in bytes.
pub(crate) const GAMMA_LEN: usize = 16;
/// Length of β, the encrypted routing blocks, in bytes.
pub(crate) const BETA_LEN: usize = ROUTE_LEN_MAX * BLOCK_LEN;
/// Length of one hop's routing block, in bytes.
pub(crate) const BLOCK_LEN: usize = 60;
/// Length of the key stream over β and the zero block that a hop appends to it, in bytes.
pub(crate) const STREAM_LEN: usize = BETA_LEN + BLOCK_LEN;
/// Length of the part of the last hop's block that carries information, in bytes.
pub(crate) const FINAL_LEN: usize = 52;
/// Length of a seed of a payload key, in bytes.
pub(crate) const SEED_LEN: usize = 16;
/// Leading zero bytes of a payload, by which its recipient knows that it is whole.
pub(crate) const ZEROS_LEN: usize = 16;

/// Length of a header, in bytes (PKT-1).
pub const HEADER_LEN: usize = ALPHA_LEN + GAMMA_LEN + BETA_LEN;
/// Length of a payload, in bytes (PKT-1).
pub const PAYLOAD_LEN: usize = 2048;
/// Length of every packet, in bytes (PKT-1).
pub const PACKET_LEN: usize = HEADER_LEN + PAYLOAD_LEN;
/// Longest message that fits one payload, in bytes.
pub const MESSAGE_LEN: usize = PAYLOAD_LEN - ZEROS_LEN - 1;
/// Most hops of a route; the least is 1.
pub const ROUTE_LEN_MAX: usize = 5;
/// Length of a written [`Surb`](crate::Surb), in bytes: header, first hop, one seed (PKT-18).
pub const SURB_LEN: usize = HEADER_LEN + 32 + SEED_LEN;
/// Length of a written [`SurbSecret`](crate::SurbSecret), in bytes: id, five seeds.
pub const SURB_SECRET_LEN: usize = 16 + ROUTE_LEN_MAX * SEED_LEN;

/// A packet as every link carries it.
pub type Packet = [u8; PACKET_LEN];
/// What a hop reads as "next", or the last hop as "destination": a node id or a mailbox id.
pub type Address = [u8; 32];
/// Replay tag: equal for all packets that share a secret with one key, whatever their bytes.
pub type Tag = [u8; 32];
/// Names a reply to the creator of its SURB; all zeros in a forward packet.
pub type SurbId = [u8; 16];

/// Flag of a block that names a next hop.
pub(crate) const FORWARD: u8 = their_header::routing::FORWARD_HOP;
/// Flag of the last hop's block.
pub(crate) const FINAL: u8 = their_header::routing::FINAL_HOP;
/// Version 260, the only one (PKT-9).
pub(crate) const VERSION: [u8; 3] = {
    let [high, low] = version::SINGLE_SEED_SURB_VERSION.0.to_be_bytes();
    [0, high, low]
};

/// Places within a decrypted routing block (PKT-3).
pub(crate) const BLOCK_VERSION: Range<usize> = 1..4;
pub(crate) const BLOCK_ADDRESS: Range<usize> = 4..36;
pub(crate) const BLOCK_DELAY: Range<usize> = 36..44;
pub(crate) const BLOCK_GAMMA: Range<usize> = 44..60;
pub(crate) const BLOCK_SURB_ID: Range<usize> = 36..52;

const _: () = {
    assert!(PACKET_LEN == 2396 && HEADER_LEN == 348 && MESSAGE_LEN == 2031);
    assert!(SURB_LEN == 396 && SURB_SECRET_LEN == 96);
    assert!(HEADER_LEN == their_header::HEADER_SIZE);
    assert!(BETA_LEN == their_header::routing::ENCRYPTED_ROUTING_INFO_SIZE);
    assert!(BLOCK_LEN == theirs::NODE_META_INFO_SIZE + theirs::HEADER_INTEGRITY_MAC_SIZE);
    assert!(FINAL_LEN == theirs::FINAL_NODE_META_INFO_LENGTH);
    assert!(STREAM_LEN == theirs::STREAM_CIPHER_OUTPUT_LENGTH);
    assert!(ROUTE_LEN_MAX == theirs::MAX_PATH_LENGTH);
    assert!(SEED_LEN == theirs::PAYLOAD_KEY_SEED_SIZE);
    assert!(ZEROS_LEN == theirs::SECURITY_PARAMETER);
    assert!(version::SINGLE_SEED_SURB_VERSION.0 == 260);
};

/// The array of `N` bytes that begins at `at`.
///
/// # Panics
/// If `bytes` is shorter than that: a wrong constant, never an input.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..]
        .first_chunk()
        .expect("offsets and lengths are constants of this file")
}

/// α, γ and β of a header (PKT-2).
pub(crate) fn split_header(
    header: &[u8; HEADER_LEN],
) -> (&[u8; ALPHA_LEN], &[u8; GAMMA_LEN], &[u8; BETA_LEN]) {
    (
        array(header, 0),
        array(header, ALPHA_LEN),
        array(header, ALPHA_LEN + GAMMA_LEN),
    )
}

/// Header and payload of a packet.
pub(crate) fn split_packet(packet: &mut Packet) -> (&mut [u8; HEADER_LEN], &mut [u8; PAYLOAD_LEN]) {
    let (header, payload) = packet
        .split_first_chunk_mut()
        .expect("a packet is longer than its header");
    let payload = payload
        .first_chunk_mut()
        .expect("a packet is a header and a payload");
    (header, payload)
}
