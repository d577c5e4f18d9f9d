//! What the processes of a network have counted, as anyone on this machine reads it.

use core::time::Duration;
use std::collections::BTreeMap;

use anyhow::Context;

use super::Network;
use crate::{
    metrics::{dropped, page},
    process::{Process, READY},
};

/// How often a count is read that is waited for.
const ASK_EVERY: Duration = Duration::from_millis(50);

impl Network {
    /// A count of gateway `at`, from its metrics page; 0 if it was not counted yet.
    ///
    /// # Errors
    ///
    /// If the page can't be had.
    pub async fn metric(&self, at: usize, name: &str) -> anyhow::Result<u64> {
        let gateway = self.gateways[at]
            .as_ref()
            .context("that gateway does not run")?;
        let page = page(gateway.metrics, "/metrics").await?;
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        Ok(page.lines().find_map(value).unwrap_or(0))
    }

    /// Packets that mixes and gateways have dropped, by reason, those that none has apart.
    ///
    /// # Errors
    ///
    /// If a page can't be had.
    pub async fn dropped(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let gateways = self.gateways.iter().flatten();
        let all = gateways.map(|gateway| gateway.metrics);
        let mut sum = BTreeMap::new();
        for at in all.chain(self.mix_metrics.iter().copied()) {
            for (reason, count) in dropped(&page(at, "/metrics").await?) {
                *sum.entry(reason).or_default() += count;
            }
        }
        Ok(sum)
    }

    /// Both pages of every gateway and mix, each with its path.
    ///
    /// # Errors
    ///
    /// If a page can't be had.
    pub async fn pages(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let gateways = self.gateways.iter().flatten();
        let all = gateways.map(|gateway| gateway.metrics);
        let mut pages = Vec::new();
        for at in all.chain(self.mix_metrics.iter().copied()) {
            for path in ["/metrics", "/status"] {
                pages.push((path, page(at, path).await?));
            }
        }
        Ok(pages)
    }

    /// Reads a count of gateway `at` until it is at least `least`.
    ///
    /// # Errors
    ///
    /// If that takes too long.
    pub async fn until_metric(&self, at: usize, name: &str, least: u64) -> anyhow::Result<()> {
        // A count is no event, and only the page has it: asked for at a bounded rate.
        let mut ask = tokio::time::interval(ASK_EVERY);
        let reached = async {
            while self.metric(at, name).await? < least {
                ask.tick().await;
            }
            anyhow::Ok(())
        };
        let reached = tokio::time::timeout(READY, reached).await;
        reached.with_context(|| format!("{name} of gateway {at} stays below {least}"))?
    }

    /// CPU time that client `who` has used.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn client_cpu(&self, who: usize) -> anyhow::Result<Duration> {
        self.clients[who]
            .as_ref()
            .context("that client does not run")?
            .cpu()
    }

    /// CPU time that a mix has used, on the mean.
    ///
    /// # Errors
    ///
    /// If one does not run.
    pub fn mix_cpu(&self) -> anyhow::Result<Duration> {
        let all = self.mixes.iter().map(Process::cpu);
        let sum: Duration = all.sum::<anyhow::Result<Duration>>()?;
        Ok(sum / u32::try_from(self.mixes.len())?)
    }
}
