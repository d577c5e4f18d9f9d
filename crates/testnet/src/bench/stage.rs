//! The stage of `bench node`: one real mix, and neighbours that the load process plays.
//!
//! ```text
//! load: gateway 0, gateway 1 … ─▶ the mix under test (layer 1) ─▶ load: the mix of layer 2
//! ```
//!
//! | file in the folder  | what                                                          |
//! |---------------------|---------------------------------------------------------------|
//! | `network.toml`      | four authorities at an address where nobody listens           |
//! | a node's id         | its state folder: two mixes, two gateways                     |
//! | `consensus`         | the signed document; a copy stands in each state folder       |
//!
//! The document is complete and its signatures are real, so that the node under test starts as it
//! would after a restart while all authorities are down.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use ed25519_dalek::SigningKey;
use proto::{
    NetworkId, NodeId,
    directory::{Ballot, Consensus, Network, Params, Role, SelfCheck, SignedConsensus, Terms},
};
use shell::{
    clock::Clock,
    entropy::seed,
    keys::{About, Keys},
    network,
    state::StateDir,
};

const MIXES: usize = 2;
const AUTHORITIES: usize = 4;
/// How long before now the document begins, in seconds: well within its first epoch.
const BEGAN_S: u64 = 600;

/// Who plays what.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Folder of everything.
    pub root: PathBuf,
    /// The document.
    pub consensus: Consensus,
}

/// Where node `i` is made, before it has a name.
fn made(root: &Path, i: usize) -> PathBuf {
    root.join(format!("node-{i}"))
}

impl Stage {
    /// Makes keys, a document of two mixes and so many gateways, and `network.toml` in the empty
    /// folder `root`.
    ///
    /// # Errors
    ///
    /// If the folder can't be written.
    pub fn make(root: &Path, clock: Clock, gateways: usize) -> anyhow::Result<Self> {
        let now_s = clock.utc().as_secs();
        let mut authorities: Vec<_> = (0..AUTHORITIES)
            .map(|_| SigningKey::from_bytes(&seed()))
            .collect();
        authorities.sort_by_key(|key| key.verifying_key().to_bytes());
        let params = Params::default();
        let network = NetworkId(seed());
        let mut nodes = Vec::new();
        for i in 0..MIXES + gateways {
            let keys = Keys::open(StateDir::open(&made(root, i))?)?;
            if i >= MIXES {
                keys.follow_a_chain()?; // a gateway may be several front ends
            }
            let about = About {
                role: if i < MIXES { Role::Mix } else { Role::Gateway },
                address: free_address()?.to_string(),
                family: format!("family-{i}"),
                check: SelfCheck::new(sphinx::Path::best(), 1, 1),
            };
            nodes.push((keys.descriptor(&network, &about, 0, &params, now_s)?, keys));
        }
        let terms = Terms {
            network,
            period: 0,
            previous: [0; 32],
            layers: MIXES,
            params,
        };
        let said = nodes.iter().map(|(said, _)| said.clone());
        let consensus = Consensus::build(&terms, now_s - BEGAN_S, said)
            .map_err(|error| anyhow::anyhow!("no document of these nodes: {error:?}"))?;
        let body = consensus.body();
        let hash = Consensus::hash_of(&body);
        let votes = (0..)
            .zip(&authorities)
            .map(|(place, key)| Ballot::sign(&network, key, place, terms.period, 0, hash).vote);
        let signed = SignedConsensus {
            votes: votes.collect(),
            body,
        };
        for (i, (_, keys)) in nodes.into_iter().enumerate() {
            keys.state().write("consensus", &signed.to_bytes())?;
            fs::rename(made(root, i), root.join(keys.id().to_string()))?;
        }
        fs::write(root.join("consensus"), signed.to_bytes())?;

        let nobody = free_address()?.to_string();
        let start = Network {
            id: network,
            authorities: authorities
                .iter()
                .map(|key| key.verifying_key().to_bytes())
                .collect(),
            authority_addresses: vec![nobody; AUTHORITIES],
            minimum_period: 0,
            bootstrap: consensus
                .gateways()
                .map(|node| (node.id, node.address.clone()))
                .collect(),
        };
        fs::write(root.join("network.toml"), network::format(&start))?;
        Ok(Self {
            root: root.to_owned(),
            consensus,
        })
    }

    /// Reads what [`Stage::make`] left in `root`.
    ///
    /// # Errors
    ///
    /// If it is not there, or not whole.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(root.join("consensus")).context("the stage has no consensus")?;
        let network = network::read(&root.join("network.toml"))?;
        let signed = SignedConsensus::parse(&bytes)
            .map_err(|error| anyhow::anyhow!("the stage's consensus: {error:?}"))?;
        let consensus = signed
            .verify(&network, None)
            .map_err(|error| anyhow::anyhow!("the stage's consensus: {error:?}"))?;
        Ok(Self {
            root: root.to_owned(),
            consensus,
        })
    }

    /// The mix under test.
    #[must_use]
    pub fn tested(&self) -> NodeId {
        self.consensus.layers[0][0]
    }

    /// The mix after it, which the load process plays.
    #[must_use]
    pub fn next(&self) -> NodeId {
        self.consensus.layers[1][0]
    }

    /// The state folder of `id`.
    #[must_use]
    pub fn folder(&self, id: NodeId) -> PathBuf {
        self.root.join(id.to_string())
    }

    /// The keys of `id`; its folder is locked as long as they live.
    ///
    /// # Errors
    ///
    /// If it is no node of the stage, or another process holds its folder.
    pub fn keys(&self, id: NodeId) -> anyhow::Result<Keys> {
        Ok(Keys::open(StateDir::open(&self.folder(id))?)?)
    }

    /// What the mix under test is started with.
    ///
    /// # Errors
    ///
    /// If the document does not name it.
    pub fn arguments(&self) -> anyhow::Result<Vec<OsString>> {
        let address = self.address(self.tested())?.to_string();
        Ok(vec![
            "run".into(),
            "--state-dir".into(),
            self.folder(self.tested()).into(),
            "--network".into(),
            self.root.join("network.toml").into(),
            "--listen".into(),
            address.into(),
            "--metrics-listen".into(),
            "127.0.0.1:0".into(),
            "--log".into(),
            "warn".into(),
        ])
    }

    /// Where `id` listens.
    ///
    /// # Errors
    ///
    /// If the document does not name it.
    pub fn address(&self, id: NodeId) -> anyhow::Result<SocketAddr> {
        let node = self.consensus.node(&id).context("no such node")?;
        Ok(node.address.parse()?)
    }
}

/// An address of this machine at which nobody listens now.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    ensure!(address.port() != 0, "the system gives no port");
    Ok(address)
}
