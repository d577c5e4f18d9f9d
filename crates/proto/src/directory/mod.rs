//! The signed documents that a network agrees on.
//!
//! Spec: docs/spec/directory.md, rules DIR-1 to DIR-12.
//!
//! | module         | what                                                                 |
//! |----------------|----------------------------------------------------------------------|
//! | [`params`]     | what belongs to the network: epochs, delays, profiles, limits         |
//! | [`descriptor`] | what a node says of itself, signed by its identity key                |
//! | [`consensus`]  | the one document of a period, and the certificate that makes it valid |
//! | [`vote`]       | what authorities say to each other about a document                   |
//! | [`network`]    | what one starts from: authorities, threshold, bootstrap gateways      |
//! | [`ask`]        | questions to the directory, and answers                               |
//! | [`cbor`]       | the canonical encoding                                                |
//! | [`sign`]       | Ed25519 keys and signatures, strictly                                 |
//!
//! Encoding is canonical CBOR: a parser verifies signatures over the bytes it received, decodes
//! strictly, re-encodes, and refuses the document if the bytes differ (DIR-1).

pub mod ask;
pub mod cbor;
pub mod consensus;
pub mod descriptor;
pub mod network;
pub mod params;
pub mod sign;
pub mod vote;

pub use ask::{Answer, Question, Refusal};
pub use cbor::DocumentError;
pub use consensus::{Consensus, ConsensusError, SignedConsensus, Terms};
pub use descriptor::{
    CertificateError, Descriptor, DescriptorError, LinkCertificate, Role, SelfCheck,
    SignedDescriptor,
};
pub use network::{Network, NetworkError};
pub use params::{Params, ParamsError, Profile};
pub use vote::{Ballot, Proposal, Vote};
