//! A network and a capture of the loopback, for tests of when real clients write to their links.
//!
//! `LACUNA_SYSTEM=1` runs it, with `tcpdump` and the right to capture. Which links are a client's is read
//! from the process, which an observer knows by its address. Each test is a program of its own, so that
//! none is late by another's work.

#![allow(dead_code, reason = "each test binary uses some of it")]

pub(crate) mod own;
#[path = "../wire/mod.rs"]
pub(crate) mod wire;

use std::path::PathBuf;

use shell::clock::Clock;
use testnet::{
    network::{Network, Plan},
    progress::Progress,
};
use wire::{Capture, Link};

/// Payload slots and loops of the profile `interactive`, per second.
pub(crate) const RATE: f64 = 22.0;
pub(crate) const GATEWAYS: usize = 2;

/// A network without clients, and a capture.
pub(crate) struct Stage {
    pub(crate) network: Network,
    capture: Capture,
    _folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn set() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let capture = Capture::begin(folder.path()).await?;
        let plan = Plan {
            executable: PathBuf::from(env!("CARGO_BIN_EXE_lacuna-testnet")),
            mixes_per_layer: 1,
            gateways: GATEWAYS,
            params: "delay_mean_ms = 50\n".to_owned(),
            applications: false,
            ..Plan::demo(&folder.path().join("network"))?
        };
        Ok(Self {
            network: Network::start(plan, Clock::start(), &Progress::new()).await?,
            capture,
            _folder: folder,
        })
    }

    /// Stops the network; the links that were seen.
    pub(crate) async fn strike(self) -> anyhow::Result<Vec<Link>> {
        let ports = self.network.tap_ports();
        self.network.stop().await?;
        self.capture.end(&ports).await
    }
}
