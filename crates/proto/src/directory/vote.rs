//! What authorities say to each other about a document: proposals and precommits.
//!
//! Spec: docs/spec/directory.md, rules DIR-7, DIR-8.
//!
//! | document      | CBOR array of                                     | signed over            |
//! |---------------|---------------------------------------------------|------------------------|
//! | [`Vote`]      | authority, round, signature                       | period, round, hash    |
//! | [`Ballot`]    | period, hash, vote                                |                        |
//! | [`Proposal`]  | period, round, authority, body, signature         | period, round, hash    |
//!
//! Everything is signed over the network as well, under a domain of its own (DIR-3). A [`Vote`]
//! stands in a certificate, where period and hash are those of the document; a [`Ballot`] carries
//! them along.

use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};

use crate::{
    NetworkId,
    directory::{Consensus, sign},
};

/// One authority's precommit for one document (DIR-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Vote {
    /// Which authority: its index in the sorted list of keys.
    #[n(0)]
    pub authority: u8,
    /// The round.
    #[n(1)]
    pub round: u32,
    /// By the authority, over network, period, round and the document's hash.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// A precommit on its way between authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ballot {
    /// The document's period.
    #[n(0)]
    pub period: u64,
    /// The document's hash.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// The precommit.
    #[n(2)]
    pub vote: Vote,
}

/// A document that an authority would have the others sign.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// The document's period.
    #[n(0)]
    pub period: u64,
    /// The round.
    #[n(1)]
    pub round: u32,
    /// Who proposes: the authority whose turn that round is.
    #[n(2)]
    pub authority: u8,
    /// The document, canonical CBOR.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// By the authority, over network, period, round and the document's hash.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

fn statement(
    domain: &str,
    network: &NetworkId,
    period: u64,
    round: u32,
    hash: &[u8; 32],
) -> Vec<u8> {
    [
        domain.as_bytes(),
        &network.0,
        &period.to_be_bytes(),
        &round.to_be_bytes(),
        hash,
    ]
    .concat()
}

const PRECOMMIT: &str = "lacuna precommit v1";
const PROPOSAL: &str = "lacuna proposal v1";

impl Ballot {
    /// Authority number `authority`, whose key is `key`, votes. The caller keeps DIR-8.
    #[must_use]
    pub fn sign(
        network: &NetworkId,
        key: &SigningKey,
        authority: u8,
        period: u64,
        round: u32,
        hash: [u8; 32],
    ) -> Self {
        let signature = sign::sign(key, &statement(PRECOMMIT, network, period, round, &hash));
        let vote = Vote {
            authority,
            round,
            signature,
        };
        Self { period, hash, vote }
    }

    /// Whether the vote is by `key`.
    #[must_use]
    pub fn holds(&self, network: &NetworkId, key: &[u8; 32]) -> bool {
        let statement = statement(PRECOMMIT, network, self.period, self.vote.round, &self.hash);
        sign::holds(key, &statement, &self.vote.signature)
    }
}

impl Proposal {
    /// Authority number `authority`, whose key is `key`, proposes `body`.
    #[must_use]
    pub fn sign(
        network: &NetworkId,
        key: &SigningKey,
        authority: u8,
        period: u64,
        round: u32,
        body: Vec<u8>,
    ) -> Self {
        let hash = Consensus::hash_of(&body);
        let signature = sign::sign(key, &statement(PROPOSAL, network, period, round, &hash));
        Self {
            period,
            round,
            authority,
            body,
            signature,
        }
    }

    /// Whether the proposal is by `key`.
    #[must_use]
    pub fn holds(&self, network: &NetworkId, key: &[u8; 32]) -> bool {
        let hash = Consensus::hash_of(&self.body);
        let statement = statement(PROPOSAL, network, self.period, self.round, &hash);
        sign::holds(key, &statement, &self.signature)
    }
}
