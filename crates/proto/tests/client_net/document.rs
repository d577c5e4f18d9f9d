//! The documents of test networks: three layers, some gateways, one profile, short epochs.

use std::collections::BTreeMap;

use chacha20::ChaCha12Rng;
use proto::{
    NodeId,
    directory::{Consensus, Descriptor, LinkCertificate, Params, Profile, Role, SelfCheck},
};
use rand::SeedableRng as _;
use sphinx::SecretKey;

use super::{NETWORK, PROFILE, START_S};

pub(crate) fn rates(payload_hz: f64, loops_hz: f64, downstream_hz: f64) -> Profile {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small positive constants of tests"
    )]
    let uhz = |hz: f64| (hz * 1e6) as u64;
    Profile {
        name: PROFILE.to_owned(),
        payload_uhz: uhz(payload_hz),
        loops_uhz: uhz(loops_hz),
        downstream_uhz: uhz(downstream_hz),
        confirm_ms: 1000,
    }
}

/// Parameters with one profile and short epochs.
pub(crate) fn params(profile: Profile, epoch_s: u32) -> Params {
    Params {
        epoch_s,
        epochs: 8,
        delay_mean_ms: 50,
        expiry_s: 4 * epoch_s,
        profiles: vec![profile],
    }
}

pub(crate) fn mix_id(layer: u8, index: u8) -> NodeId {
    NodeId([0x10 + 0x10 * layer + index; 32])
}

pub(crate) fn gateway_id(index: u8) -> NodeId {
    NodeId([0xe0 + index; 32])
}

fn node(id: NodeId, role: Role, family: String, keys: &[SecretKey]) -> Descriptor {
    Descriptor {
        role,
        id,
        address: "127.0.0.1:1".to_owned(),
        link: LinkCertificate {
            id,
            link_key: [0; 32],
            not_before_s: 0,
            not_after_s: 0,
            signature: [0; 64],
        },
        family,
        period: 0,
        packet_keys: keys.iter().map(SecretKey::public).collect(),
        check: SelfCheck::new(sphinx::Path::Portable, 1, 1),
    }
}

/// The document of `layers` × `width` mixes and some gateways, and the nodes' secrets. `family`
/// names who runs a node.
pub(crate) fn consensus(
    params: Params,
    width: u8,
    gateways: u8,
    family: impl Fn(NodeId) -> String,
) -> (Consensus, BTreeMap<NodeId, Vec<SecretKey>>) {
    let mut rng = ChaCha12Rng::from_seed([3; 32]);
    let mut keys = || -> Vec<SecretKey> {
        let count = usize::from(params.epochs) * 2;
        (0..count).map(|_| SecretKey::generate(&mut rng)).collect()
    };
    let (mut nodes, mut secrets) = (Vec::new(), BTreeMap::new());
    let layers: Vec<Vec<NodeId>> = (0..3)
        .map(|layer| (0..width).map(|i| mix_id(layer, i)).collect())
        .collect();
    let mixes = layers.iter().flatten().map(|id| (*id, Role::Mix));
    let all = mixes.chain((0..gateways).map(|i| (gateway_id(i), Role::Gateway)));
    for (id, role) in all {
        let own = keys();
        nodes.push(node(id, role, family(id), &own));
        secrets.insert(id, own);
    }
    nodes.sort_by_key(|node| node.id);
    let consensus = Consensus {
        network: NETWORK,
        period: 0,
        valid_from_s: START_S,
        previous: [0; 32],
        params,
        descriptors: Vec::new(),
        nodes,
        layers,
    };
    (consensus, secrets)
}

/// A family for each node.
pub(crate) fn own_family(id: NodeId) -> String {
    format!("{id}")
}
