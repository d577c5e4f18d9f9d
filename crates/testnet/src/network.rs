//! A whole network of real processes on 127.0.0.1, in one folder.
//!
//! | folder               | what                                                              |
//! |----------------------|-------------------------------------------------------------------|
//! | `network.toml`       | what everyone starts from                                         |
//! | `params.toml`        | the network's parameters, if they are not the defaults            |
//! | `authority-0` …      | `settings.toml`, `state/`, `log` of one role                      |
//! | `mix-0` …, `gateway-0` … |                                                               |
//! | `alice`, `bob`       | the clients; applications log to `alice-app`, `bob-app`           |
//!
//! Every role has its own keys, settings and state folder, and is this executable re-executed.
//! Each gateway and each mix stands behind a [`Tap`], which is the address that it advertises; a
//! gateway that is started again listens somewhere else, and the tap is aimed anew. Authorities need addresses
//! before they run, so their ports are reserved by binding and released just before the start.
//!
//! What its processes have counted is read in `counts`; `keep` is for a network that people use. Deliberately not here: what is sent over the network.

mod counts;
mod keep;

use core::{future::Future, net::SocketAddr, time::Duration};
use std::{
    ffi::OsString,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use proto::{
    calendar::Utc,
    directory::{Params, Role},
};
use shell::{clock::Clock, journal::Throwaway};
use tokio::task::JoinSet;

use crate::{
    documents,
    layout::Layout,
    process::{Line, Process, READY, STOP, Starter},
    progress::Progress,
    proxy::{Seen, Tap},
};

/// Names of the clients.
pub const CLIENTS: [&str; 2] = ["alice", "bob"];
/// Layers of mixes.
pub const LAYERS: usize = 3;

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The executable that re-executes itself as the roles.
    pub executable: PathBuf,
    /// Folder of everything.
    pub root: PathBuf,
    /// Authorities, at least 4.
    pub authorities: usize,
    /// Mixes of each of the three layers.
    pub mixes_per_layer: usize,
    /// Gateways.
    pub gateways: usize,
    /// How long after its start a period ends and another one begins, in which every mix stands in
    /// another layer; no authority runs then, and the parameters have to leave time for it. None: a
    /// network as authorities make it.
    pub edge: Option<Duration>,
    /// Traffic profile of the clients.
    pub profile: String,
    /// The network's parameters as TOML; empty for the defaults.
    pub params: String,
    /// Whether to start an application beside each client.
    pub applications: bool,
    /// What every role logs; empty for its default.
    pub log: String,
}

impl Plan {
    /// The network of the demo, in `root`.
    ///
    /// # Errors
    ///
    /// If this executable has no path.
    pub fn demo(root: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            executable: std::env::current_exe().context("finding this executable")?,
            root: root.to_owned(),
            authorities: 4,
            mixes_per_layer: 3,
            gateways: 2,
            edge: None,
            profile: "interactive".to_owned(),
            params: String::new(),
            applications: true,
            log: String::new(),
        })
    }
}

/// The running network.
#[derive(Debug)]
pub struct Network {
    plan: Plan,
    starter: Starter,
    authorities: Vec<Process>,
    mixes: Vec<Process>,
    /// Where each mix serves its metrics.
    mix_metrics: Vec<SocketAddr>,
    gateways: Vec<Option<Gateway>>,
    /// Of the gateways, then of the mixes.
    taps: Vec<Tap>,
    clients: Vec<Option<Process>>,
    apps: Vec<Process>,
    _marks: Throwaway,
}

/// A running gateway.
#[derive(Debug)]
struct Gateway {
    process: Process,
    /// Where it serves its metrics.
    metrics: SocketAddr,
}

impl Network {
    /// Starts everything and waits until the clients are ready.
    ///
    /// # Errors
    ///
    /// If a folder can't be written, or a role ends or is not ready in time: with its last words.
    pub async fn start(plan: Plan, clock: Clock, progress: &Progress) -> anyhow::Result<Self> {
        progress.step("making keys");
        let executable = plan.executable.clone();
        let mut network = Self {
            starter: Starter { executable, clock },
            authorities: Vec::new(),
            mixes: Vec::new(),
            mix_metrics: Vec::new(),
            gateways: Vec::new(),
            taps: Vec::new(),
            clients: Vec::new(),
            apps: Vec::new(),
            _marks: Throwaway(plan.root.clone()),
            plan,
        };
        let reserved = network.make().await?;
        progress.step("starting authorities, gateways and mixes");
        drop(reserved); // now, as the authorities take over
        if let Some(after) = network.plan.edge {
            network.sign_documents(clock.utc().after(after))?;
        }
        network.start_nodes().await?;
        progress.step("waiting for the first consensus");
        network.nodes_ready().await?;
        progress.step("starting clients");
        for name in CLIENTS {
            network.init(name, "client").await?;
            let client = network.run(name, "client")?;
            network.clients.push(Some(client));
        }
        for client in network.clients.iter_mut().flatten() {
            client.until("ready client", READY, is_ready).await?;
        }
        if network.plan.applications {
            for name in CLIENTS {
                let socket = network.socket(name).into();
                let folder = network.folder(&format!("{name}-app"));
                let app = network.starter.start(
                    &format!("{name}'s application"),
                    &folder,
                    "app",
                    [socket],
                )?;
                network.apps.push(app);
            }
        }
        Ok(network)
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.plan.root
    }

    /// The folder of one role.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.plan.root.join(name)
    }

    /// The socket of a client's local API.
    #[must_use]
    pub fn socket(&self, client: &str) -> PathBuf {
        self.folder(client).join("state").join("lacuna.sock")
    }

    /// The application of client `who`.
    pub fn app(&mut self, who: usize) -> &mut Process {
        &mut self.apps[who]
    }

    /// Mix `at`.
    #[must_use]
    pub fn mix(&self, at: usize) -> &Process {
        &self.mixes[at]
    }

    /// Where the taps listen: every link to a gateway or a mix leads there first.
    #[must_use]
    pub fn tap_ports(&self) -> Vec<u16> {
        self.taps.iter().map(|tap| tap.address().port()).collect()
    }

    /// Cuts every link to gateway `at`; who dialled will dial again.
    pub fn cut(&self, at: usize) {
        self.taps[at].cut();
    }

    /// Cuts mix `at` off: its links to other nodes stay, but nobody reaches it any more.
    pub fn shut_mix(&self, at: usize) {
        self.taps[self.plan.gateways + at].shut();
    }

    /// Kills mix `at` with SIGKILL, starts it again and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it ends or is not ready in time.
    pub async fn restart_mix(&mut self, at: usize) -> anyhow::Result<()> {
        self.mixes.remove(at).kill().await?;
        let mut mix = self.run(&format!("mix-{at}"), "mix-node")?;
        self.mix_metrics[at] = listens(&mut mix, &self.taps[self.plan.gateways + at]).await?;
        mix.until("readiness", READY, is_ready).await?;
        self.mixes.insert(at, mix);
        Ok(())
    }

    /// What all taps have seen.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let mut all = Seen::default();
        self.taps.iter().for_each(|tap| all.add(&tap.seen()));
        all
    }

    /// The next line of any application, and whose it is.
    ///
    /// # Errors
    ///
    /// If an application ended.
    pub async fn line(&mut self) -> anyhow::Result<(usize, Line)> {
        first(
            self.apps
                .iter_mut()
                .enumerate()
                .map(|(who, app)| async move {
                    let line = app.line().await?;
                    Ok((who, line))
                }),
        )
        .await
    }

    /// Stops client `who`, as a person would.
    ///
    /// # Errors
    ///
    /// If it does not stop cleanly.
    pub async fn stop_client(&mut self, who: usize) -> anyhow::Result<()> {
        match self.clients[who].take() {
            Some(client) => client.stop(STOP).await,
            None => bail!("{} does not run", CLIENTS[who]),
        }
    }

    /// Kills client `who` with SIGKILL.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub async fn kill_client(&mut self, who: usize) -> anyhow::Result<()> {
        let client = self.clients[who].take();
        client.context("that client does not run")?.kill().await
    }

    /// Starts client `who` again, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// If it ends or is not ready in time.
    pub async fn start_client(&mut self, who: usize) -> anyhow::Result<()> {
        let mut client = self.run(CLIENTS[who], "client")?;
        client.until("ready client", READY, is_ready).await?;
        self.clients[who] = Some(client);
        Ok(())
    }

    /// Kills gateway `at` with SIGKILL.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub async fn kill_gateway(&mut self, at: usize) -> anyhow::Result<()> {
        let gateway = self.gateways[at].take();
        gateway
            .context("that gateway does not run")?
            .process
            .kill()
            .await
    }

    /// Stops gateway `at`, as its operator would.
    ///
    /// # Errors
    ///
    /// If it does not run, or does not stop cleanly.
    pub async fn stop_gateway(&mut self, at: usize) -> anyhow::Result<()> {
        let gateway = self.gateways[at].take();
        let gateway = gateway.context("that gateway does not run")?;
        gateway.process.stop(STOP).await
    }

    /// Starts gateway `at` again; its tap leads to it.
    ///
    /// # Errors
    ///
    /// If it ends or is not ready in time.
    pub async fn start_gateway(&mut self, at: usize) -> anyhow::Result<()> {
        let process = self.run(&format!("gateway-{at}"), "gateway")?;
        let mut gateway = Gateway::up(process, &self.taps[at]).await?;
        gateway.process.until("readiness", READY, is_ready).await?;
        self.gateways[at] = Some(gateway);
        Ok(())
    }

    /// Which gateway has this identity, in hex.
    ///
    /// # Errors
    ///
    /// If none has.
    pub fn gateway_called(&self, id: Option<&str>) -> anyhow::Result<usize> {
        let network = shell::network::read(&self.plan.root.join("network.toml"))?;
        let named = |(gateway, _): &(proto::NodeId, _)| Some(&*gateway.to_string()) == id;
        let at = network.bootstrap.iter().position(named);
        at.context("no gateway has that identity")
    }

    /// Starts a process of `role` that is no part of the network, in the folder called `name`.
    ///
    /// # Errors
    ///
    /// If it can't be started.
    pub fn start_by_hand(
        &self,
        name: &str,
        role: &str,
        args: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<Process> {
        self.starter.start(name, &self.folder(name), role, args)
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// If it ends or is not ready in time.
    pub async fn until_ready(&self, process: &mut Process) -> anyhow::Result<()> {
        process.until("readiness", READY, is_ready).await
    }

    /// Stops every process, applications and clients first.
    ///
    /// # Errors
    ///
    /// The first that did not stop cleanly; all are gone either way.
    pub async fn stop(self) -> anyhow::Result<()> {
        let mut stopped = Ok(());
        for app in self.apps {
            app.kill().await?; // they keep nothing
        }
        let clients = self.clients.into_iter().flatten().collect();
        let gateways = self
            .gateways
            .into_iter()
            .flatten()
            .map(|gateway| gateway.process);
        let nodes = self.mixes.into_iter().chain(gateways);
        for batch in [clients, nodes.chain(self.authorities).collect::<Vec<_>>()] {
            let mut stopping = JoinSet::new();
            for process in batch {
                stopping.spawn(process.stop(STOP));
            }
            while let Some(end) = stopping.join_next().await {
                stopped = stopped.and(end.map_err(Into::into).flatten());
            }
        }
        stopped
    }

    /// Makes folders, settings and keys of authorities and nodes, and `network.toml`; gives the
    /// authorities' ports, reserved until they are dropped.
    async fn make(&mut self) -> anyhow::Result<Vec<TcpListener>> {
        let root = &self.plan.root;
        fs::create_dir_all(root).with_context(|| format!("creating {}", root.display()))?;
        let layout = Layout::of(&self.plan)?;
        let mut reserved = Vec::new();
        let mut authorities = Vec::new();
        for name in names("authority", self.plan.authorities) {
            let port = TcpListener::bind(("127.0.0.1", 0))?;
            let address = port.local_addr()?.to_string();
            reserved.push(port);
            layout.authority(&name, &address)?;
            authorities.push((name, address));
        }
        let mut gateways = Vec::new();
        for name in names("gateway", self.plan.gateways) {
            let tap = Tap::open().await?;
            let address = tap.address().to_string();
            self.taps.push(tap);
            layout.node(&name, &address)?;
            gateways.push((name, address));
        }
        let mixes: Vec<_> = names("mix", self.plan.mixes_per_layer * LAYERS).collect();
        for name in &mixes {
            let tap = Tap::open().await?;
            layout.node(name, &tap.address().to_string())?;
            self.taps.push(tap);
        }
        for (role, named) in [
            (
                "authority",
                authorities.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ),
            ("gateway", gateways.iter().map(|(name, _)| name).collect()),
            ("mix-node", mixes.iter().collect()),
        ] {
            for name in named {
                self.init(name, role).await?;
            }
        }
        layout.network(&authorities, &gateways)?;
        for (name, (gateway, _)) in CLIENTS.iter().zip(gateways.iter().cycle()) {
            layout.client(name, gateway)?;
        }
        Ok(reserved)
    }

    /// Makes the documents of the periods before and after `edge` in place of the authorities.
    fn sign_documents(&self, edge: Utc) -> anyhow::Result<()> {
        let params = self.plan.root.join("params.toml");
        let params = if self.plan.params.is_empty() {
            Params::default()
        } else {
            authority::params::load(&params)?
        };
        let authorities: Vec<_> = names("authority", self.plan.authorities).collect();
        let gateways = names("gateway", self.plan.gateways).map(|name| (name, Role::Gateway));
        let mixes = names("mix", self.plan.mixes_per_layer * LAYERS);
        let all = gateways.chain(mixes.map(|name| (name, Role::Mix)));
        let reached =
            |((name, role), tap): ((String, Role), &Tap)| (name, role, tap.address().to_string());
        let nodes: Vec<_> = all.zip(&self.taps).map(reached).collect();
        documents::make(&self.plan.root, &authorities, &nodes, &params, edge)
    }

    /// Starts authorities, gateways and mixes, and aims the taps.
    async fn start_nodes(&mut self) -> anyhow::Result<()> {
        let authorities = if self.plan.edge.is_some() {
            0
        } else {
            self.plan.authorities
        };
        for name in names("authority", authorities) {
            let authority = self.run(&name, "authority")?;
            self.authorities.push(authority);
        }
        let mut gateways = Vec::new();
        for name in names("gateway", self.plan.gateways) {
            gateways.push(self.run(&name, "gateway")?);
        }
        for name in names("mix", self.plan.mixes_per_layer * LAYERS) {
            let mix = self.run(&name, "mix-node")?;
            self.mixes.push(mix);
        }
        let (of_gateways, of_mixes) = self.taps.split_at(gateways.len());
        for (gateway, tap) in gateways.into_iter().zip(of_gateways) {
            self.gateways.push(Some(Gateway::up(gateway, tap).await?));
        }
        for (mix, tap) in self.mixes.iter_mut().zip(of_mixes) {
            self.mix_metrics.push(listens(mix, tap).await?);
        }
        Ok(())
    }

    async fn nodes_ready(&mut self) -> anyhow::Result<()> {
        let gateways = self.gateways.iter_mut().flatten();
        let nodes = gateways
            .map(|gateway| &mut gateway.process)
            .chain(&mut self.mixes);
        for node in nodes.chain(&mut self.authorities) {
            node.until("readiness", READY, is_ready).await?;
        }
        Ok(())
    }

    /// Runs `init` of one role to its end.
    async fn init(&self, name: &str, role: &str) -> anyhow::Result<()> {
        self.begin(name, role, "init")?.ended().await
    }

    /// Starts one role.
    fn run(&self, name: &str, role: &str) -> anyhow::Result<Process> {
        self.begin(name, role, "run")
    }

    fn begin(&self, name: &str, role: &str, verb: &str) -> anyhow::Result<Process> {
        let folder = self.folder(name);
        let settings = folder.join("settings.toml").into_os_string();
        let args = [verb.into(), "--config".into(), settings];
        self.starter.start(name, &folder, role, args)
    }
}

/// The result of whichever ends first; the others are dropped, which none of ours minds.
async fn first<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> T {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    core::future::poll_fn(|cx| {
        let mut polled = all.iter_mut().map(|one| one.as_mut().poll(cx));
        polled
            .find(core::task::Poll::is_ready)
            .unwrap_or(core::task::Poll::Pending)
    })
    .await
}

fn names(role: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |at| format!("{role}-{at}"))
}

fn is_ready(line: &Line) -> Option<()> {
    (line.value.get("state")? == "ready").then_some(())
}

impl Gateway {
    async fn up(mut process: Process, tap: &Tap) -> anyhow::Result<Self> {
        let metrics = listens(&mut process, tap).await?;
        Ok(Self { process, metrics })
    }
}

/// Waits until `node` listens, and leads `tap` to it; where it serves its metrics.
async fn listens(node: &mut Process, tap: &Tap) -> anyhow::Result<SocketAddr> {
    let address = |line: &Line, key| line.value.get(key)?.as_str()?.parse().ok();
    let both = |line: &Line| Some((address(line, "listening")?, address(line, "metrics")?));
    let (listening, metrics) = node.until("addresses", READY, both).await?;
    tap.aim(listening);
    Ok(metrics)
}
