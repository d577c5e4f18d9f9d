//! When real clients write to their links, on a capture of the loopback.
//!
//! `LACUNA_SYSTEM=1` runs it, with `tcpdump` and the right to capture. Which links are a client's is read
//! from the process, which an observer knows by its address.

mod busy;
mod edges;
#[path = "../../../proto/tests/kolmogorov/mod.rs"]
mod kolmogorov;
mod own;
#[path = "../wire/mod.rs"]
mod wire;

use std::path::PathBuf;

use shell::clock::Clock;
use testnet::{
    network::{Network, Plan},
    progress::Progress,
};
use tokio::sync::{Mutex, MutexGuard};
use wire::{Capture, Link};

/// Payload slots and loops of the profile `interactive`, per second.
const RATE: f64 = 22.0;
const GATEWAYS: usize = 2;

/// The tests take turns: one would be late by another's work.
static TURN: Mutex<()> = Mutex::const_new(());

/// A network without clients, and a capture.
struct Stage {
    network: Network,
    capture: Capture,
    _folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let turn = TURN.lock().await;
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
            _turn: turn,
        })
    }

    /// Stops the network; the links that were seen.
    async fn strike(self) -> anyhow::Result<Vec<Link>> {
        let ports = self.network.tap_ports();
        self.network.stop().await?;
        self.capture.end(&ports).await
    }
}
