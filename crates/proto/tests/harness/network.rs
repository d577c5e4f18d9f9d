//! A whole network in memory, the same at every run: keys, descriptors, a signed consensus.

use ed25519_dalek::SigningKey;
use proto::{
    NetworkId, NodeId,
    directory::{
        Ballot, Consensus, Descriptor, LinkCertificate, Network, Params, Role, SelfCheck,
        SignedConsensus, SignedDescriptor, Terms,
    },
};
use sphinx::SecretKey;

/// When every test network's document starts to hold, in UTC seconds.
pub(crate) const VALID_FROM_S: u64 = 1_800_000_000;

/// Everything of a network, secrets too.
#[derive(Clone)]
pub(crate) struct TestNetwork {
    pub(crate) network: Network,
    pub(crate) terms: Terms,
    /// In the order of their keys.
    pub(crate) authorities: Vec<SigningKey>,
    /// Mixes first, then gateways.
    pub(crate) nodes: Vec<TestNode>,
}

/// A node and its secrets.
#[derive(Clone)]
pub(crate) struct TestNode {
    pub(crate) id: NodeId,
    pub(crate) identity: SigningKey,
    pub(crate) packet_keys: Vec<SecretKey>,
    pub(crate) descriptor: SignedDescriptor,
}

/// Parameters with two epochs a period, so that documents are small and quick to check.
pub(crate) fn params() -> Params {
    Params {
        epochs: 2,
        ..Params::default()
    }
}

impl TestNetwork {
    /// Four authorities; nodes of a family each; period 7.
    pub(crate) fn new(layers: usize, mixes: u8, gateways: u8) -> Self {
        let mut authorities: Vec<_> = (0..4).map(|i| SigningKey::from_bytes(&[i; 32])).collect();
        authorities.sort_by_key(|key| key.verifying_key().to_bytes());
        let terms = Terms {
            network: NetworkId([0xaa; 32]),
            period: 7,
            previous: [0; 32],
            layers,
            params: params(),
        };
        let node = |i| TestNode::new(&terms, i, if i < mixes { Role::Mix } else { Role::Gateway });
        let nodes: Vec<_> = (0..mixes + gateways).map(node).collect();
        let bootstrap = nodes.last().map(|node| (node.id, "127.0.0.1:1".into()));
        let key = |key: &SigningKey| key.verifying_key().to_bytes();
        Self {
            network: Network {
                id: terms.network,
                authorities: authorities.iter().map(key).collect(),
                authority_addresses: Vec::new(),
                minimum_period: 0,
                bootstrap: bootstrap.into_iter().collect(),
            },
            terms,
            authorities,
            nodes,
        }
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = SignedDescriptor> {
        self.nodes.iter().map(|node| node.descriptor.clone())
    }

    pub(crate) fn consensus(&self) -> Consensus {
        Consensus::build(&self.terms, VALID_FROM_S, self.descriptors()).expect("sound nodes")
    }

    /// The consensus with the votes of `voters` in `round`.
    pub(crate) fn signed(&self, round: u32, voters: &[u8]) -> SignedConsensus {
        let body = self.consensus().body();
        let hash = Consensus::hash_of(&body);
        let vote = |authority: &u8| {
            let key = &self.authorities[usize::from(*authority)];
            Ballot::sign(
                &self.network.id,
                key,
                *authority,
                self.terms.period,
                round,
                hash,
            )
            .vote
        };
        SignedConsensus {
            votes: voters.iter().map(vote).collect(),
            body,
        }
    }
}

impl TestNode {
    /// Node number `i`, the same for equal arguments.
    pub(crate) fn new(terms: &Terms, i: u8, role: Role) -> Self {
        let identity = SigningKey::from_bytes(&[i ^ 0x80; 32]);
        let link_key = SigningKey::from_bytes(&[i ^ 0x40; 32]);
        let validity = VALID_FROM_S - 86_400..VALID_FROM_S + 30 * 86_400;
        let link = LinkCertificate::sign(
            &terms.network,
            &identity,
            link_key.verifying_key().to_bytes(),
            validity,
        );
        let packet_keys: Vec<_> = (0..2 * terms.params.epochs)
            .map(|epoch| {
                let [high, low] = epoch.to_be_bytes();
                let mut seed = [i; 32];
                (seed[0], seed[1]) = (high, low);
                SecretKey::from_bytes(seed)
            })
            .collect();
        let descriptor = Descriptor {
            role,
            id: link.id,
            address: format!("127.0.0.1:{}", 9000 + u16::from(i)),
            link,
            family: format!("family-{i}"),
            period: terms.period,
            packet_keys: packet_keys.iter().map(SecretKey::public).collect(),
            check: SelfCheck::new(sphinx::Path::Portable, 1, 1),
        };
        Self {
            id: link.id,
            descriptor: SignedDescriptor::sign(&terms.network, &identity, &descriptor)
                .expect("a sound descriptor"),
            identity,
            packet_keys,
        }
    }
}
