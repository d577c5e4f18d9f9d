//! Building forward packets.
//!
//! Spec: docs/spec/packet.md, PKT-14 to PKT-17.
//!
//! | quantity      | type          | unit, range                                              |
//! |---------------|---------------|----------------------------------------------------------|
//! | route         | `&[Hop]`      | 1 to 5 hops, the last one the recipient                  |
//! | delay         | `u64`         | nanoseconds, at the hop itself; of the last hop unused   |
//! | message       | `&[u8]`       | 0 to [`MESSAGE_LEN`](crate::MESSAGE_LEN) bytes           |
//!
//! Invariant: a pure function of its arguments and of the bytes drawn from `rng`.

use rand_core::CryptoRng;

use crate::curve::Path;
use crate::header::build_header;
use crate::keys::PublicKey;
use crate::layout::{Address, HEADER_LEN, PACKET_LEN, Packet, SEED_LEN, SurbId, split_packet};
use crate::payload::pad;
use crate::wide::add_layers;

/// One stage of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// What the hop before reads as "next".
    pub address: Address,
    /// The hop's packet key.
    pub key: PublicKey,
    /// How long this hop is to hold the packet, in nanoseconds. The last hop reads no delay.
    pub delay_ns: u64,
}

/// Builds a packet that travels along `route` and carries `message` to its last hop, which also
/// reads `destination` and `surb_id`. Every random byte is drawn from `rng`.
///
/// # Panics
/// If the route is empty or longer than 5, or the message longer than
/// [`MESSAGE_LEN`](crate::MESSAGE_LEN): our own bug.
pub fn build(
    rng: &mut impl CryptoRng,
    route: &[Hop],
    destination: Address,
    surb_id: SurbId,
    message: &[u8],
) -> Box<Packet> {
    let built = build_header(rng, route, &destination, &surb_id);
    let seeds = built.secrets.iter().rev().map(|hop| hop.payload_seed());
    assemble(&built.header, message, seeds)
}

/// A packet of this header, its message under the layers of `seeds`, the innermost first.
pub(crate) fn assemble<'a>(
    header: &[u8; HEADER_LEN],
    message: &[u8],
    seeds: impl IntoIterator<Item = &'a [u8; SEED_LEN]>,
) -> Box<Packet> {
    let mut packet = Box::new([0; PACKET_LEN]);
    let (to_header, payload) = split_packet(&mut packet);
    to_header.copy_from_slice(header);
    pad(message, payload);
    add_layers(Path::best(), seeds, payload);
    packet
}
