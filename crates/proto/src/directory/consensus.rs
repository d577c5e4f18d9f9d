//! The one document of a period, and the votes that make it valid.
//!
//! Spec: docs/spec/directory.md, rules DIR-5 to DIR-9.

use crate::{
    NetworkId, NodeId,
    calendar::{Epoch, Schedule, Utc},
    directory::{Descriptor, Params, SignedDescriptor},
};

/// The document, parsed and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consensus {
    /// Which network.
    pub network: NetworkId,
    /// Which period.
    pub period: u64,
    /// When its first epoch starts, UTC seconds.
    pub valid_from_s: u64,
    /// Hash of the document before; zeros for the first.
    pub previous: [u8; 32],
    /// The network's parameters.
    pub params: Params,
    /// The nodes' own words, sorted by identity.
    pub descriptors: Vec<SignedDescriptor>,
    /// The same, parsed: `nodes[i]` is what `descriptors[i]` says.
    pub nodes: Vec<Descriptor>,
    /// The mixes of each layer, by identity, sorted.
    pub layers: Vec<Vec<NodeId>>,
}

/// One authority's precommit for one document (DIR-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Which authority: its index in the sorted list of keys.
    pub authority: u8,
    /// The round.
    pub round: u32,
    /// By the authority, over network, period, round and the document's hash.
    pub signature: [u8; 64],
}

/// A document with its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedConsensus {
    /// Canonical CBOR of the document, as it was signed.
    pub body: Vec<u8>,
    /// Votes of one round, sorted by authority.
    pub votes: Vec<Vote>,
}

impl Consensus {
    /// The node called `id`.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Descriptor> {
        let at = self.nodes.binary_search_by(|node| node.id.cmp(id)).ok()?;
        self.nodes.get(at)
    }

    /// Its gateways, sorted by identity.
    pub fn gateways(&self) -> impl Iterator<Item = &Descriptor> {
        self.nodes
            .iter()
            .filter(|node| node.role == crate::directory::Role::Gateway)
    }

    /// Its epochs.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        let epochs = u64::from(self.params.epochs);
        Schedule {
            valid_from: Utc::from_secs(self.valid_from_s),
            length: core::time::Duration::from_secs(self.params.epoch_s.into()),
            first: Epoch(self.period * epochs),
            count: epochs * 2,
            transit: self.params.transit(),
        }
    }

    /// The packet key of `node` in `epoch`.
    #[must_use]
    pub fn packet_key(&self, node: &Descriptor, epoch: Epoch) -> Option<sphinx::PublicKey> {
        let index = epoch.0.checked_sub(self.schedule().first.0)?;
        node.packet_keys.get(usize::try_from(index).ok()?).copied()
    }
}
