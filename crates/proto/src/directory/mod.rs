//! The signed documents that a network agrees on.
//!
//! Spec: docs/spec/directory.md, rules DIR-1 to DIR-12.
//!
//! | module         | what                                                                 |
//! |----------------|----------------------------------------------------------------------|
//! | [`params`]     | what belongs to the network: epochs, delays, profiles, limits         |
//! | [`descriptor`] | what a node says of itself, signed by its identity key                |
//! | [`consensus`]  | the one document of a period, and the votes that make it valid        |
//! | [`network`]    | what one starts from: authorities, threshold, bootstrap gateways      |
//!
//! Encoding is canonical CBOR: a parser verifies signatures over the bytes it received, decodes
//! strictly, re-encodes, and refuses the document if the bytes differ (DIR-1).

pub mod consensus;
pub mod descriptor;
pub mod network;
pub mod params;

pub use consensus::{Consensus, SignedConsensus, Vote};
pub use descriptor::{Descriptor, LinkCertificate, Role, SignedDescriptor};
pub use network::Network;
pub use params::{Params, Profile};
