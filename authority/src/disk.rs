//! What an authority must not forget: its vote, and the finished document.
//!
//! Spec: docs/spec/directory.md, rule DIR-8.
//!
//! | file                | what                                           | written                     |
//! |---------------------|------------------------------------------------|-----------------------------|
//! | `record-PERIOD`     | the one document that this authority votes for | before its first vote goes  |
//! | `consensus-PERIOD`  | the document with its certificate              | when it is made             |
//!
//! One run makes one document. For the next period operators raise the setting `period`; the
//! new document then names the one before it, if this authority holds that.

use core::time::Duration;

use anyhow::anyhow;
use proto::{
    authority::{self, Authority, Record, StartError},
    directory::{
        Consensus, Network, Params, SignedConsensus, Terms, ask::DESCRIPTORS_MAX,
        consensus::LAYERS_MAX,
    },
};
use shell::keys::Keys;

use crate::Config;

/// The period to make a document for.
pub(crate) fn period(config: &Config, network: &Network) -> u64 {
    config.period.max(network.minimum_period)
}

/// The machine, as its settings and its disk would have it.
pub(crate) fn machine(
    config: &Config,
    params: Params,
    network: &Network,
    keys: &Keys,
) -> anyhow::Result<Authority> {
    let period = period(config, network);
    let terms = Terms {
        network: network.id,
        period,
        previous: previous(keys, period)?,
        layers: config.layers,
        params,
    };
    let config = authority::Config {
        network: network.clone(),
        terms,
        mixes_min: config.mixes_min,
        gateways_min: config.gateways_min,
        settle: Duration::from_millis(config.settle_ms),
        round: Duration::from_secs(config.round_s),
        nodes_max: config.nodes_max,
    };
    let record = read(keys, &record_of(period), Record::parse)?;
    Authority::new(config, keys.identity().clone(), record).map_err(refused)
}

/// The finished document of `period`, if this authority holds it.
pub(crate) fn finished(keys: &Keys, period: u64) -> anyhow::Result<Option<SignedConsensus>> {
    read(keys, &consensus_of(period), SignedConsensus::parse)
}

pub(crate) fn record_of(period: u64) -> String {
    format!("record-{period}")
}

pub(crate) fn consensus_of(period: u64) -> String {
    format!("consensus-{period}")
}

fn read<T, E>(
    keys: &Keys,
    name: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> anyhow::Result<Option<T>> {
    let Some(bytes) = keys.state().read(name)? else {
        return Ok(None);
    };
    let path = keys.state().path(name);
    let parsed = parse(&bytes);
    let parsed = parsed.map_err(|_| anyhow!("{} is damaged; restore it", path.display()))?;
    Ok(Some(parsed))
}

/// Hash of the document of the period before, if this authority holds one.
fn previous(keys: &Keys, period: u64) -> anyhow::Result<[u8; 32]> {
    let Some(before) = period.checked_sub(1) else {
        return Ok([0; 32]);
    };
    let held = finished(keys, before)?;
    Ok(held.map_or([0; 32], |held| Consensus::hash_of(&held.body)))
}

fn refused(why: StartError) -> anyhow::Error {
    match why {
        StartError::Record => anyhow!(
            "this authority has voted in this period for a document of other terms; give it the \
             params and layers of then, or start over with the next period"
        ),
        StartError::Params(rule) => anyhow!("params: {rule}"),
        StartError::Network(rule) => anyhow!("network: {rule}"),
        StartError::Layers => anyhow!("settings: layers must be {LAYERS_MAX}"),
        StartError::Nodes => anyhow!(
            "settings: nodes_max must be at least mixes_min + gateways_min, and at most \
             {DESCRIPTORS_MAX}"
        ),
        why @ (StartError::Terms | StartError::Key | StartError::Round) => {
            anyhow!("the authority can't start: {why:?}; see its settings")
        }
    }
}
