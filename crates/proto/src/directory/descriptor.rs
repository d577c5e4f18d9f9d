//! What a node says of itself, signed by its identity key.
//!
//! Spec: docs/spec/directory.md, rules DIR-3, DIR-4.

use sphinx::PublicKey;

use crate::NodeId;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A mix.
    Mix,
    /// A gateway.
    Gateway,
}

/// An identity key's word for the key that a node's links present (DIR-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkCertificate {
    /// The identity.
    pub id: NodeId,
    /// The Ed25519 key that TLS presents.
    pub link_key: [u8; 32],
    /// First second of its validity, UTC.
    pub not_before_s: u64,
    /// First second after its validity, UTC.
    pub not_after_s: u64,
    /// By the identity key, over all of the above.
    pub signature: [u8; 64],
}

/// A node's own description (DIR-4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Mix or gateway.
    pub role: Role,
    /// Its identity.
    pub id: NodeId,
    /// Where its links are accepted, `host:port`; at most 255 characters.
    pub address: String,
    /// Its link key.
    pub link: LinkCertificate,
    /// Who runs it; no two nodes of one family stand in one route. At most 64 characters.
    pub family: String,
    /// The period that its packet keys are for.
    pub period: u64,
    /// Its packet keys, one for each epoch of that period and of the one after.
    pub packet_keys: Vec<PublicKey>,
}

/// A descriptor as its node signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDescriptor {
    /// Canonical CBOR of the descriptor.
    pub body: Vec<u8>,
    /// By the identity key.
    pub signature: [u8; 64],
}
