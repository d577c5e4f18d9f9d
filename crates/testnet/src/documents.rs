//! Documents of two periods, signed by the network's authorities before they are needed.
//!
//! The authorities of this version make one document and no second one (docs/THREAT_MODEL.md). So that the
//! edge of a period can be crossed by real processes, both are made here, with the keys that the
//! authorities' `init` has made, and put where nodes keep what they have believed; no authority runs.
//!
//! | document | begins                  | layers                                    |
//! |----------|-------------------------|-------------------------------------------|
//! | first    | a period before the edge | as the descriptors say (DIR-6)           |
//! | second   | at the edge             | every mix one layer further up, or first |
//!
//! Clients get both as ever, from gateways.

use std::path::Path;

use anyhow::Context;
use ed25519_dalek::SigningKey;
use proto::{
    calendar::Utc,
    directory::{
        Ballot, Consensus, Params, Role, SelfCheck, SignedConsensus, SignedDescriptor, Terms,
    },
};
use shell::{
    keys::{About, Keys},
    state::StateDir,
};

/// A node of the network: its name, which is its family, its role, where it is reached.
pub(crate) type Node = (String, Role, String);

/// Makes both documents and puts them into the folders of all nodes in `root`. The second begins at
/// `edge`, rounded down to a second.
///
/// # Errors
///
/// If keys can't be read, or nodes and parameters make no document.
pub(crate) fn make(
    root: &Path,
    authorities: &[String],
    nodes: &[Node],
    params: &Params,
    edge: Utc,
) -> anyhow::Result<()> {
    let network = shell::network::read(&root.join("network.toml"))?;
    let mut signers = authorities
        .iter()
        .map(|name| Ok(open(root, name)?.identity().clone()))
        .collect::<anyhow::Result<Vec<SigningKey>>>()?;
    signers.sort_by_key(|key| key.verifying_key().to_bytes());
    let keys = nodes
        .iter()
        .map(|(name, role, address)| {
            let about = About {
                role: *role,
                address: address.clone(),
                family: name.clone(),
                check: SelfCheck::new(sphinx::Path::best(), 1, 1),
            };
            Ok((open(root, name)?, about))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let period_s = u64::from(params.epoch_s) * u64::from(params.epochs);
    let build = |period: u64, previous: [u8; 32]| -> anyhow::Result<Consensus> {
        let valid_from_s = (edge.as_secs() + period * period_s).saturating_sub(period_s);
        let said = keys.iter().map(|(keys, about)| {
            Ok(keys.descriptor(&network.id, about, period, params, valid_from_s)?)
        });
        let said = said.collect::<anyhow::Result<Vec<SignedDescriptor>>>()?;
        let terms = Terms {
            network: network.id,
            period,
            previous,
            layers: crate::network::LAYERS,
            params: params.clone(),
        };
        let built = Consensus::build(&terms, valid_from_s, said);
        built.map_err(|why| anyhow::anyhow!("no document of these nodes: {why:?}"))
    };
    let first = build(0, [0; 32])?;
    let mut second = build(1, first.hash())?;
    second.layers.clone_from(&first.layers);
    second.layers.rotate_right(1);
    for (document, file) in [(&first, "consensus.previous"), (&second, "consensus")] {
        let (body, hash) = (document.body(), document.hash());
        let votes = (0..).zip(&signers).map(|(place, key)| {
            Ballot::sign(&network.id, key, place, document.period, 0, hash).vote
        });
        let signed = SignedConsensus {
            votes: votes.collect(),
            body,
        };
        for (keys, _) in &keys {
            keys.state().write(file, &signed.to_bytes())?;
        }
    }
    Ok(())
}

fn open(root: &Path, name: &str) -> anyhow::Result<Keys> {
    let state = StateDir::open_patiently(&root.join(name).join("state"))?;
    Keys::open(state).with_context(|| format!("the keys of {name}"))
}
