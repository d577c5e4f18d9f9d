//! What a client or node starts from.
//!
//! Spec: docs/spec/directory.md, rule DIR-10.

use crate::{NetworkId, NodeId};

/// The contents of a `network.toml`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Which network.
    pub id: NetworkId,
    /// The authorities' Ed25519 keys, sorted, each once; at least four.
    pub authorities: Vec<[u8; 32]>,
    /// Where the authorities listen, in the order of their keys; only nodes need it.
    pub authority_addresses: Vec<String>,
    /// No document of an earlier period is believed.
    pub minimum_period: u64,
    /// Gateways to ask for the first document: identity and address.
    pub bootstrap: Vec<(NodeId, String)>,
}

impl Network {
    /// How many precommits make a document valid: ⌊2n/3⌋ + 1.
    #[must_use]
    pub fn threshold(&self) -> usize {
        self.authorities.len() * 2 / 3 + 1
    }
}
