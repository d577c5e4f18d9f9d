//! A network from a scenario and a seed: keys, descriptors, the consensus, the clients' messages.
//!
//! | entity          | number                          |
//! |-----------------|---------------------------------|
//! | mixes           | 0 to `layers × width - 1`       |
//! | gateways        | the next `gateways`             |
//! | clients         | the next `users`                |
//! | loops of nodes  | as many as nodes, in their order |
//!
//! Every random byte comes from a stream keyed by (seed, entity, purpose), so that a change in one
//! place leaves every other draw as it was.

use std::sync::Arc;

use chacha20::ChaCha12Rng;
use ed25519_dalek::SigningKey;
use proto::{
    NetworkId, NodeId,
    client::Identity,
    directory::{
        Consensus, Descriptor, LinkCertificate, Params, Profile, Role, SelfCheck, SignedDescriptor,
        Terms, params,
    },
};
use rand_core::{Rng, SeedableRng};
use sphinx::SecretKey;

use super::DRAIN;
use crate::{
    outcome::RunError,
    scenario::{Scenario, Strategy},
};

/// When the network's document starts to hold, in UTC seconds: a day in 2027.
const VALID_FROM_S: u64 = 1_800_000_000;
/// Mixes of a deployed client's route.
pub const LAYERS: usize = 3;
/// Epochs of a document: at least, and at most.
const EPOCHS: (f64, f64) = (8.0, *params::EPOCHS.end() as f64);
/// The client's profile in the simulated consensus.
pub(super) const PROFILE: &str = "simulated";

/// What a stream is drawn for. Numbers are fixed: changing one changes every golden result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Identity, link and packet keys.
    Keys = 1,
    /// A machine's own randomness; one for each of its starts.
    Machine = 2,
    /// Which packets the network loses on links out of the entity.
    Loss = 3,
    /// When and to whom the entity sends messages.
    Messages = 4,
    /// Who crashes when.
    Crash = 5,
    /// How much longer packets out of the entity take.
    Jitter = 6,
    /// Who is cut off from whom, when.
    Partition = 7,
    /// Whose packets are all lost, when.
    Burst = 8,
    /// How far the entity's clock is off.
    Skew = 9,
    /// How much later the entity's disk answers.
    Lag = 10,
    /// Delays that held packets leave with.
    Hold = 11,
}

/// A 32-byte seed of its own for (seed, entity, purpose, number).
pub(super) fn seed_of(seed: u64, entity: usize, purpose: Purpose, number: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_be_bytes());
    key[8..16].copy_from_slice(&(entity as u64).to_be_bytes());
    key[16..24].copy_from_slice(&number.to_be_bytes());
    key[24] = purpose as u8;
    key[25..].copy_from_slice(b"lcnwrld"); // apart from the flow engine's
    key
}

/// The stream of [`seed_of`], number 0.
pub(super) fn stream(seed: u64, entity: usize, purpose: Purpose) -> ChaCha12Rng {
    ChaCha12Rng::from_seed(seed_of(seed, entity, purpose, 0))
}

/// One node and its secrets.
pub(super) struct NodePlan {
    pub(super) id: NodeId,
    pub(super) packet_keys: Vec<SecretKey>,
}

/// Everything a run starts from.
pub(super) struct Plan {
    /// Of consecutive periods; at least one.
    pub(super) documents: Vec<Arc<Consensus>>,
    /// Mixes, then gateways.
    pub(super) nodes: Vec<NodePlan>,
    pub(super) clients: Vec<Identity>,
    /// The addresses of the nodes' own loops, in the order of the nodes; none if they have none.
    pub(super) loops: Vec<Identity>,
}

/// Draws the network of `scenario`.
///
/// # Errors
///
/// If the scenario's numbers make no network that a document can describe.
pub(super) fn plan(scenario: &Scenario, seed: u64) -> Result<Plan, RunError> {
    let network = &scenario.network;
    let mixes = network.layers * network.mixes_per_layer;
    let terms = Terms {
        network: NetworkId([0x51; 32]),
        period: 1,
        previous: [0; 32],
        layers: network.layers,
        params: params(scenario),
    };
    let mut nodes = Vec::new();
    let mut descriptors = Vec::new();
    for entity in 0..mixes + network.gateways {
        let role = if entity < mixes {
            Role::Mix
        } else {
            Role::Gateway
        };
        let (node, descriptor) = node(&terms, seed, entity, role)?;
        nodes.push(node);
        descriptors.push(descriptor);
    }
    let consensus = Consensus::build(&terms, VALID_FROM_S, descriptors)
        .map_err(|why| RunError::Failed(format!("no document describes this network: {why:?}")))?;
    let users = usize::try_from(scenario.traffic.users).expect("the scenario's check bounds it");
    // Spread evenly, so that no gateway is every client's.
    let identity = |number: usize, home: usize| {
        let mut rng = stream(seed, mixes + network.gateways + number, Purpose::Keys);
        Identity::generate(&mut rng, nodes[mixes + home % network.gateways].id)
    };
    let clients = (0..users).map(|client| identity(client, client)).collect();
    let looping = if scenario.packet.node_loops {
        nodes.len()
    } else {
        0
    };
    // A gateway's own are at itself.
    let home = |node: usize| node.checked_sub(mixes).unwrap_or(node);
    let loops = (0..looping)
        .map(|node| identity(users + node, home(node)))
        .collect();
    Ok(Plan {
        documents: vec![Arc::new(consensus)],
        nodes,
        clients,
        loops,
    })
}

/// Length of the document, without votes, of a network of so many nodes.
///
/// # Errors
///
/// If no document describes it.
pub fn document_bytes(mixes_per_layer: usize, gateways: usize) -> Result<usize, RunError> {
    let text = format!(
        "version = 1\nengine = \"packet\"\n[network]\nmixes_per_layer = {mixes_per_layer}\n\
         gateways = {gateways}\n[traffic]\nusers = 2\n"
    );
    let scenario = Scenario::parse(&text).map_err(|why| RunError::Usage(why.to_string()))?;
    Ok(plan(&scenario, 1)?.documents[0].body().len())
}

/// The network's parameters: the scenario's rates, the default lengths.
fn params(scenario: &Scenario) -> Params {
    let traffic = &scenario.traffic;
    let [payload, loops] = [traffic.payload_per_user_per_s, traffic.loop_per_user_per_s];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and bounded by the scenario's ranges"
    )]
    let uhz = |hz: f64| (hz * 1e6).round() as u64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and bounded by the scenario's ranges"
    )]
    let delay_mean_ms = match scenario.strategy {
        Strategy::Poisson { delay_mean_s } => (delay_mean_s * 1e3).round() as u32, // whole but for the division
        Strategy::Pool { .. } => unreachable!("the scenario's check refuses it"),
    };
    let profile = Profile {
        name: PROFILE.to_owned(),
        payload_uhz: uhz(payload),
        loops_uhz: uhz(loops),
        // Every slot of another client may be for this one: twice the sum keeps queues short.
        downstream_uhz: uhz(2.0 * (payload + loops)).max(1),
        confirm_ms: 1_000,
    };
    let epoch_s = scenario.packet.epoch_s;
    let wanted = run_s(scenario) + f64::from(epoch_s);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to what the parameters allow"
    )]
    let epochs = (wanted / f64::from(epoch_s) / 2.0)
        .ceil()
        .clamp(EPOCHS.0, EPOCHS.1) as u16;
    Params {
        epoch_s,
        epochs,
        delay_mean_ms,
        profiles: vec![profile],
        ..Params::default()
    }
}

/// The longest that a run of `scenario` takes: the epochs of two documents must outlast it.
fn run_s(scenario: &Scenario) -> f64 {
    scenario.packet.duration_s + DRAIN.as_secs_f64()
}

/// The shortest epoch with which `scenario` makes a network: a packet's transit is below an eighth of it (DIR-2),
/// and the epochs of two documents, less the one that has begun, outlast the run.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and bounded by the scenario's ranges"
)]
pub fn epoch_least_s(scenario: &Scenario) -> u32 {
    let transit_s = params(scenario).transit().as_secs_f64();
    let switching = (8.0 * transit_s).floor() as u32 + 1;
    let lasting = (run_s(scenario) / (2.0 * EPOCHS.1 - 1.0)).ceil() as u32;
    switching.max(lasting)
}

fn node(
    terms: &Terms,
    seed: u64,
    entity: usize,
    role: Role,
) -> Result<(NodePlan, SignedDescriptor), RunError> {
    let mut rng = stream(seed, entity, Purpose::Keys);
    let mut key = || {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        SigningKey::from_bytes(&secret)
    };
    let (identity, link_key) = (key(), key());
    let validity = VALID_FROM_S - 86_400..VALID_FROM_S + 30 * 86_400;
    let link_key = link_key.verifying_key().to_bytes();
    let link = LinkCertificate::sign(&terms.network, &identity, link_key, validity);
    let packet_keys: Vec<_> = (0..2 * terms.params.epochs)
        .map(|_| SecretKey::generate(&mut rng))
        .collect();
    let descriptor = Descriptor {
        role,
        id: link.id,
        address: "127.0.0.1:1".to_owned(), // a simulated link has no address
        link,
        family: format!("family-{entity}"),
        period: terms.period,
        packet_keys: packet_keys.iter().map(SecretKey::public).collect(),
        check: SelfCheck::new(sphinx::Path::Portable, 1, 1),
    };
    let signed = SignedDescriptor::sign(&terms.network, &identity, &descriptor)
        .map_err(|why| RunError::Failed(format!("a simulated descriptor is unsound: {why:?}")))?;
    let node = NodePlan {
        id: link.id,
        packet_keys,
    };
    Ok((node, signed))
}
