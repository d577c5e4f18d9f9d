//! Sphinx packets of one size: build, open, finish, reply blocks.
//!
//! Spec: docs/spec/packet.md, rules PKT-1 to PKT-22.
//!
//! | quantity      | type               | unit, range                                          |
//! |---------------|--------------------|------------------------------------------------------|
//! | packet        | [`Packet`]         | bytes, exactly [`PACKET_LEN`] = header + payload     |
//! | header        | in the packet      | bytes, [`HEADER_LEN`]: α 32, γ 16, β 300             |
//! | payload       | in the packet      | bytes, [`PAYLOAD_LEN`], of which [`MESSAGE_LEN`] free |
//! | address       | [`Address`]        | 32 bytes: a node id or a mailbox id                  |
//! | tag           | [`Tag`]            | 32 bytes, a function of the shared secret alone      |
//! | delay         | `u64`              | nanoseconds, 0 to the consensus' cap                 |
//! | reply block   | [`Surb`]           | bytes, exactly [`SURB_LEN`] when written             |
//!
//! The bytes are those of `sphinx-packet` 0.8.0, version 260. Peeling is two pure steps, [`open`]
//! (everything that can refuse a packet) and [`finish`] (everything that changes it), so that the
//! replay set is asked in between.
//!
//! Peeling is our own code over the primitives rather than the crate's `process`, because it is
//! the leaner of the two: the crate keeps its keys private, parses the routing block before its
//! version can be checked, and allocates nine times a packet. What we take from the crate is its
//! constants and its payload key derivation; the tests hold every byte and verdict against it, in
//! both directions (PKT-22).
//!
//! Invariants: no clock, no thread, no randomness but the `rng` passed in; the same arguments give
//! the same bytes; no input from a peer reaches a panic; a refused packet is left as it was.
//!
//! Not done here: remembering tags, choosing routes, drawing delays, fragmenting messages.

mod build;
mod curve;
mod erasing;
mod header;
mod keys;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_lanes.rs")]
mod lanes;
mod layout;
mod open;
mod payload;
mod secrets;
mod surb;
mod wide;

pub use build::{Builder, Hop, build};
pub use curve::{Path, PathAbsent};
pub use erasing::Erasing;
pub use header::Draft;
pub use keys::{KeyError, PublicKey, SecretKey};
pub use layout::{
    Address, HEADER_LEN, MESSAGE_LEN, PACKET_LEN, PAYLOAD_LEN, Packet, ROUTE_LEN_MAX, SURB_LEN,
    SURB_SECRET_LEN, SurbId, Tag,
};
pub use open::{Opened, Reject, Routing, Verdicts, finish, finish_batch, open, open_one};
pub use payload::{BadPayload, payload, unpad};
pub use surb::{Surb, SurbSecret, surb};

/// The two steps over a payload of any length above 32 bytes: for vectors from outside, whose
/// payload is not [`PAYLOAD_LEN`].
#[doc(hidden)]
pub mod any_size {
    pub use crate::open::{finish_batch_parts, finish_parts, open_header, open_headers};
    pub use crate::surb::recover_parts;
}
