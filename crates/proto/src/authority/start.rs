//! What an authority starts from: its configuration, and the record of an earlier run.
//!
//! Spec: docs/spec/directory.md, rules DIR-8, DIR-12.

use core::time::Duration;

use minicbor::{Decode, Encode};

use crate::directory::{
    DocumentError, Network, NetworkError, ParamsError, Terms, ask, cbor,
    consensus::{BODY_LEN_MAX, LAYERS_MAX},
};

/// Shortest round: round numbers must fit 32 bits.
const ROUND_MIN: Duration = Duration::from_secs(1);

/// What an authority is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The network and its authorities.
    pub network: Network,
    /// What the document must say; the same at each authority.
    pub terms: Terms,
    /// Fewest mixes in a document.
    pub mixes_min: usize,
    /// Fewest gateways in a document.
    pub gateways_min: usize,
    /// Most nodes that are taken, at most [`ask::DESCRIPTORS_MAX`].
    pub nodes_max: usize,
    /// How long no new node has come before this authority proposes.
    pub settle: Duration,
    /// How long a proposer has its turn, at least one second.
    pub round: Duration,
}

/// The document that this authority votes for, as its disk remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    /// The period.
    #[n(0)]
    pub period: u64,
    /// The document, canonical CBOR.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub body: Vec<u8>,
}

impl Record {
    /// What the disk keeps.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads [`Record::to_bytes`].
    ///
    /// # Errors
    ///
    /// [`DocumentError`], if these bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        cbor::decode(bytes, BODY_LEN_MAX + 64)
    }
}

/// Why an authority cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The network breaks a rule.
    Network(NetworkError),
    /// The parameters break a rule.
    Params(ParamsError),
    /// The terms are for another network.
    Terms,
    /// Clients build packets for [`LAYERS_MAX`] layers, neither more nor fewer.
    Layers,
    /// The key is none of the network's authorities'.
    Key,
    /// The round is shorter than a second.
    Round,
    /// Fewer nodes can be taken than the document needs, or more than an answer holds.
    Nodes,
    /// The record is for another period, or no document of these terms.
    Record,
}

impl Config {
    /// Whether an authority can run on it.
    pub(super) fn check(&self) -> Result<(), StartError> {
        self.network.check().map_err(StartError::Network)?;
        self.terms.params.check().map_err(StartError::Params)?;
        if self.terms.network != self.network.id {
            return Err(StartError::Terms);
        }
        if self.terms.layers != LAYERS_MAX {
            return Err(StartError::Layers);
        }
        if self.round < ROUND_MIN {
            return Err(StartError::Round);
        }
        let nodes_min = self.mixes_min.saturating_add(self.gateways_min);
        let nodes = nodes_min..=ask::DESCRIPTORS_MAX;
        nodes
            .contains(&self.nodes_max)
            .then_some(())
            .ok_or(StartError::Nodes)
    }
}
