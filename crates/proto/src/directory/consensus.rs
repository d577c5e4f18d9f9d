//! The one document of a period, and the votes that make it valid.
//!
//! Spec: docs/spec/directory.md, rules DIR-5 to DIR-9.
//!
//! | field of the body | CBOR               | rule                                            |
//! |-------------------|--------------------|-------------------------------------------------|
//! | network           | 32 bytes           | that of whoever reads                           |
//! | period            | u64                | < 2³²; descriptors are for the same             |
//! | valid from        | u64                | UTC s, < 2³⁴                                    |
//! | previous          | 32 bytes           | hash of the document before; zeros for the first |
//! | params            | [`Params`]         | in their ranges (DIR-2)                         |
//! | descriptors       | signed descriptors | sorted by identity, each once, each verified    |
//! | layers            | ids of mixes       | 1 to 3, each mix in exactly one, sorted         |
//!
//! Invariant: a [`Consensus`] that came out of [`SignedConsensus::verify`] carries more than two
//! thirds of the authorities' precommits of one (network, period, round, hash), and all that
//! stands in it holds: code that has one checks nothing again.
//!
//! Not done here: agreement ([`crate::authority`]), and remembering the last document, which is
//! the caller's disk ([`Consensus::follows`] judges by what it kept).

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use core::time::Duration;

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::{
    NetworkId, NodeId,
    calendar::{Epoch, Schedule, Utc},
    directory::{
        Ballot, Descriptor, DescriptorError, DocumentError, Network, Params, ParamsError, Profile,
        Role, SignedDescriptor, Vote, cbor,
        params::{NODE_PROFILE, NODE_PROFILE_INDEX},
    },
};

/// Longest encoding of a document's body: about ten thousand nodes.
pub const BODY_LEN_MAX: usize = 16 << 20;
/// Longest encoding of a document with its certificate.
pub const CONSENSUS_LEN_MAX: usize = BODY_LEN_MAX + (16 << 10);
/// Most layers: a packet has five hops, the last two being the gateway and the recipient.
pub const LAYERS_MAX: usize = sphinx::ROUTE_LEN_MAX - 2;

const PERIOD_END: u64 = 1 << 32;
const VALID_FROM_END_S: u64 = 1 << 34;

/// What every authority knows before a document is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Which network.
    pub network: NetworkId,
    /// Which period, below 2³².
    pub period: u64,
    /// Hash of the document before; zeros for the first.
    pub previous: [u8; 32],
    /// How many layers of mixes, 1 to [`LAYERS_MAX`].
    pub layers: usize,
    /// The network's parameters.
    pub params: Params,
}

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

/// The document as it is encoded, before anything in it is believed.
#[derive(Clone, Encode, Decode)]
struct Body {
    #[n(0)]
    network: NetworkId,
    #[n(1)]
    period: u64,
    #[n(2)]
    valid_from_s: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    previous: [u8; 32],
    #[n(4)]
    params: Params,
    #[n(5)]
    descriptors: Vec<SignedDescriptor>,
    #[n(6)]
    layers: Vec<Vec<NodeId>>,
}

/// A document with its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedConsensus {
    /// Canonical CBOR of the document, as it was signed.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// Votes of one round, sorted by authority.
    #[n(1)]
    pub votes: Vec<Vote>,
}

/// Why a document is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsensusError {
    /// Its bytes are none.
    Document(DocumentError),
    /// It is for another network.
    Network,
    /// Its period or its time is out of range.
    Range,
    /// Its parameters break a rule.
    Params(ParamsError),
    /// A descriptor in it is not believed.
    Descriptor(DescriptorError),
    /// A descriptor is for another period, or has not one packet key for each epoch.
    PacketKeys,
    /// A link certificate does not cover the document's epochs.
    Certificate,
    /// The descriptors are not sorted, or a node stands twice.
    Order,
    /// The layers are not 1 to 3, or one is empty, or a mix is not in exactly one, or a layer
    /// names no mix or is not sorted.
    Layers,
    /// There is no gateway.
    Gateways,
    /// There are fewer votes than the threshold.
    Votes,
    /// The votes are not of one round, not sorted, or one is of no authority.
    VoteOrder,
    /// The signature of a vote does not hold.
    Signature,
    /// The period is before the network's first.
    MinimumPeriod,
    /// A later document has been seen.
    Rollback,
    /// Another document of the same period has been seen: proof of a split (DIR-9).
    Split,
    /// It does not continue the document before.
    Chain,
    /// Its first epoch has not begun.
    NotYet,
    /// Its last epoch is over.
    Expired,
}

impl Consensus {
    /// Makes the document that `terms` and the nodes' descriptors call for. The last descriptor
    /// of a node counts; layers are assigned as DIR-6 says.
    ///
    /// # Errors
    ///
    /// The first rule of DIR-5 that these nodes cannot meet.
    pub fn build(
        terms: &Terms,
        valid_from_s: u64,
        descriptors: impl IntoIterator<Item = SignedDescriptor>,
    ) -> Result<Self, ConsensusError> {
        let mut by_id = BTreeMap::new();
        for descriptor in descriptors {
            let said = descriptor.verify(&terms.network);
            let said = said.map_err(ConsensusError::Descriptor)?;
            by_id.insert(said.id, (said.role, descriptor));
        }
        let mixes = by_id.iter().filter(|(_, (role, _))| *role == Role::Mix);
        let mixes = mixes.map(|(id, _)| *id).collect();
        let descriptors: Vec<_> = by_id.into_values().map(|(_, signed)| signed).collect();
        let layers = assign(terms, &descriptors, mixes);
        Self::check(Body {
            network: terms.network,
            period: terms.period,
            valid_from_s,
            previous: terms.previous,
            params: terms.params.clone(),
            descriptors,
            layers,
        })
    }

    /// Whether this is the document that `terms` and its own nodes call for (DIR-6).
    #[must_use]
    pub fn is_of(&self, terms: &Terms) -> bool {
        let mixes = self.nodes.iter().filter(|node| node.role == Role::Mix);
        let mixes = mixes.map(|node| node.id).collect();
        self.network == terms.network
            && self.period == terms.period
            && self.previous == terms.previous
            && self.params == terms.params
            && self.layers == assign(terms, &self.descriptors, mixes)
    }

    /// Reads a document that is not signed yet.
    ///
    /// # Errors
    ///
    /// The first rule of DIR-5 that it breaks.
    pub fn parse_body(bytes: &[u8]) -> Result<Self, ConsensusError> {
        Self::check(Body::parse(bytes)?)
    }

    /// Checks all that a document says (DIR-5).
    fn check(body: Body) -> Result<Self, ConsensusError> {
        if body.period >= PERIOD_END || body.valid_from_s >= VALID_FROM_END_S {
            return Err(ConsensusError::Range);
        }
        body.params.check().map_err(ConsensusError::Params)?;
        let verify = |signed: &SignedDescriptor| signed.verify(&body.network);
        let nodes: Result<Vec<_>, _> = body.descriptors.iter().map(verify).collect();
        let consensus = Self {
            network: body.network,
            period: body.period,
            valid_from_s: body.valid_from_s,
            previous: body.previous,
            params: body.params,
            nodes: nodes.map_err(ConsensusError::Descriptor)?,
            descriptors: body.descriptors,
            layers: body.layers,
        };
        consensus.check_nodes()?;
        consensus.check_layers()?;
        Ok(consensus)
    }

    fn check_nodes(&self) -> Result<(), ConsensusError> {
        if !self.nodes.is_sorted_by(|a, b| a.id < b.id) {
            return Err(ConsensusError::Order);
        }
        let keys = self.params.packet_keys(); // EPO-6
        let ends_s = self.ends().as_secs();
        for node in &self.nodes {
            if node.period != self.period || node.packet_keys.len() != keys {
                return Err(ConsensusError::PacketKeys);
            }
            if !node.link.covers(&(self.valid_from_s..ends_s)) {
                return Err(ConsensusError::Certificate);
            }
        }
        let any = self.gateways().next().map(|_| ());
        any.ok_or(ConsensusError::Gateways)
    }

    fn check_layers(&self) -> Result<(), ConsensusError> {
        let sorted = |layer: &Vec<NodeId>| !layer.is_empty() && layer.is_sorted_by(|a, b| a < b);
        let sound = (1..=LAYERS_MAX).contains(&self.layers.len()) && self.layers.iter().all(sorted);
        let placed: BTreeSet<NodeId> = self.layers.iter().flatten().copied().collect();
        let mixes = self.nodes.iter().filter(|node| node.role == Role::Mix);
        let mixes: BTreeSet<NodeId> = mixes.map(|node| node.id).collect();
        let once = self.layers.iter().map(Vec::len).sum::<usize>() == placed.len();
        let holds = sound && once && placed == mixes;
        holds.then_some(()).ok_or(ConsensusError::Layers)
    }

    /// Its canonical encoding: what authorities sign the hash of.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        cbor::encode(&Body {
            network: self.network,
            period: self.period,
            valid_from_s: self.valid_from_s,
            previous: self.previous,
            params: self.params.clone(),
            descriptors: self.descriptors.clone(),
            layers: self.layers.clone(),
        })
    }

    /// What names it among all documents.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Self::hash_of(&self.body())
    }

    /// What names the document of these bytes.
    #[must_use]
    pub fn hash_of(body: &[u8]) -> [u8; 32] {
        let hash = Sha256::new()
            .chain_update(b"lacuna consensus hash v1")
            .chain_update(body)
            .finalize();
        hash.into()
    }

    /// Whether one that last believed the document `(period, hash)` may believe this one (DIR-9).
    ///
    /// # Errors
    ///
    /// [`ConsensusError::Rollback`], [`ConsensusError::Split`] or [`ConsensusError::Chain`].
    pub fn follows(&self, period: u64, hash: &[u8; 32]) -> Result<(), ConsensusError> {
        if self.period < period {
            Err(ConsensusError::Rollback)
        } else if self.period == period && self.hash() != *hash {
            Err(ConsensusError::Split)
        } else if self.period == period + 1 && self.previous != *hash {
            Err(ConsensusError::Chain)
        } else {
            Ok(())
        }
    }

    /// Whether it holds at `now`, by a clock that may be wrong by the skew (EPO-1, EPO-4).
    ///
    /// # Errors
    ///
    /// [`ConsensusError::NotYet`] or [`ConsensusError::Expired`].
    pub fn check_time(&self, now: Utc) -> Result<(), ConsensusError> {
        let schedule = self.schedule();
        if now < schedule.valid_from.before(schedule.skew()) {
            Err(ConsensusError::NotYet)
        } else if now >= self.ends() {
            Err(ConsensusError::Expired)
        } else {
            Ok(())
        }
    }

    /// When its last epoch ends, and with it everything.
    #[must_use]
    pub fn ends(&self) -> Utc {
        let schedule = self.schedule();
        schedule.start(Epoch(schedule.first.0 + schedule.count))
    }

    /// The node called `id`.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Descriptor> {
        let at = self.nodes.binary_search_by(|node| node.id.cmp(id)).ok()?;
        self.nodes.get(at)
    }

    /// The index of the layer that the mix `id` stands in.
    #[must_use]
    pub fn layer(&self, id: &NodeId) -> Option<usize> {
        let holds = |layer: &Vec<NodeId>| layer.binary_search(id).is_ok();
        self.layers.iter().position(holds)
    }

    /// Its gateways, sorted by identity.
    pub fn gateways(&self) -> impl Iterator<Item = &Descriptor> {
        self.nodes.iter().filter(|node| node.role == Role::Gateway)
    }

    /// The profile called `name` and its index: one of the network's, or that of nodes (LOOP-1).
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<(u8, Cow<'_, Profile>)> {
        if name == NODE_PROFILE {
            return Some((NODE_PROFILE_INDEX, Cow::Owned(self.node_profile())));
        }
        let (index, profile) = self.params.profile(name)?;
        Some((index, Cow::Borrowed(profile)))
    }

    /// The profile of that index, as a hello names it.
    #[must_use]
    pub fn profile_at(&self, index: u8) -> Option<Cow<'_, Profile>> {
        if index == NODE_PROFILE_INDEX {
            return Some(Cow::Owned(self.node_profile()));
        }
        let profile = self.params.profiles.get(usize::from(index))?;
        Some(Cow::Borrowed(profile))
    }

    fn node_profile(&self) -> Profile {
        let mixes = self.layers.iter().map(Vec::len).sum();
        let gateways = self.gateways().count();
        self.params.node_profile(self.layers.len(), mixes, gateways)
    }

    /// Its epochs.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        let epochs = u64::from(self.params.epochs);
        Schedule {
            valid_from: Utc::from_secs(self.valid_from_s),
            length: Duration::from_secs(self.params.epoch_s.into()),
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

impl Body {
    fn parse(bytes: &[u8]) -> Result<Self, ConsensusError> {
        cbor::decode(bytes, BODY_LEN_MAX).map_err(ConsensusError::Document)
    }
}

/// Deals mixes to layers in an order that the whole document decides (DIR-6). It stands in for
/// commit-and-reveal: whoever gives the last descriptor can try many, and so choose a layer.
fn assign(
    terms: &Terms,
    descriptors: &[SignedDescriptor],
    mut mixes: Vec<NodeId>,
) -> Vec<Vec<NodeId>> {
    let mut seed = Sha256::new()
        .chain_update(b"lacuna layers v1")
        .chain_update(terms.network.0)
        .chain_update(terms.period.to_be_bytes());
    for descriptor in descriptors {
        seed.update(descriptor.hash());
    }
    let seed = seed.finalize();
    mixes.sort_by_cached_key(|mix| {
        <[u8; 32]>::from(Sha256::new_with_prefix(seed).chain_update(mix.0).finalize())
    });
    let mut layers = vec![Vec::new(); terms.layers.clamp(1, LAYERS_MAX + 1)];
    let count = layers.len();
    for (i, mix) in mixes.into_iter().enumerate() {
        layers[i % count].push(mix);
    }
    layers.iter_mut().for_each(|layer| layer.sort_unstable());
    layers
}

impl SignedConsensus {
    /// The document, if it is one that `network`'s authorities signed (DIR-5, DIR-7), and holds
    /// at `now` where a time is given (EPO-4).
    ///
    /// # Errors
    ///
    /// The first of [`ConsensusError`]'s reasons that holds. Whether it may follow the last
    /// document that was believed, [`Consensus::follows`] says.
    pub fn verify(&self, network: &Network, now: Option<Utc>) -> Result<Consensus, ConsensusError> {
        let body = Body::parse(&self.body)?;
        if body.network != network.id {
            return Err(ConsensusError::Network);
        }
        if body.period < network.minimum_period {
            return Err(ConsensusError::MinimumPeriod);
        }
        // The authorities' word first: it is cheaper to check than what they say.
        self.verify_votes(network, body.period)?;
        let consensus = Consensus::check(body)?;
        now.map_or(Ok(()), |now| consensus.check_time(now))?;
        Ok(consensus)
    }

    fn verify_votes(&self, network: &Network, period: u64) -> Result<(), ConsensusError> {
        if self.votes.len() < network.threshold() {
            return Err(ConsensusError::Votes);
        }
        let one_round = self
            .votes
            .windows(2)
            .all(|two| two[0].round == two[1].round);
        let sorted = self.votes.is_sorted_by(|a, b| a.authority < b.authority);
        if !one_round || !sorted {
            return Err(ConsensusError::VoteOrder);
        }
        let hash = Consensus::hash_of(&self.body);
        for vote in self.votes.iter().copied() {
            let key = network.authorities.get(usize::from(vote.authority));
            let key = key.ok_or(ConsensusError::VoteOrder)?;
            if !(Ballot { period, hash, vote }).holds(&network.id, key) {
                return Err(ConsensusError::Signature);
            }
        }
        Ok(())
    }

    /// Its canonical encoding, for links and disks.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads [`SignedConsensus::to_bytes`]; believes nothing yet.
    ///
    /// # Errors
    ///
    /// [`DocumentError`], if these bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        cbor::decode(bytes, CONSENSUS_LEN_MAX)
    }
}
