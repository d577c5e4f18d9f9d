//! Settings of one gateway: `example.toml` names, explains and defaults them; [`Config`] is
//! their shape. Merging is [`shell::settings`]'s, the command line is here.

use core::{net::SocketAddr, time::Duration};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use proto::directory::descriptor::{FAMILY_LEN_MAX, is_address};
use serde::{Deserialize, Serialize};
use shell::{
    budget::{LINKS_MAX, PACKETS_MAX, REPLAY_MAX_MAX, THREADS_MAX},
    log, selfcheck,
    settings::{Flag, Settings, within},
    store::postgres::{Server, ServerError},
};

/// Every setting with its default and its help.
pub const EXAMPLE: &str = include_str!("../example.toml");
const ENV_PREFIX: &str = "LACUNA_GATEWAY_";

/// The settings in force; `example.toml` says what each means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address to accept links on.
    pub listen: SocketAddr,
    /// `host:port` at which others reach this gateway; empty: `listen`.
    pub advertise: String,
    /// Address of `/metrics` and `/status`.
    pub metrics_listen: SocketAddr,
    /// Directory of everything that outlives the process.
    pub state_dir: PathBuf,
    /// The `network.toml`.
    pub network: PathBuf,
    /// Who runs this gateway.
    pub family: String,
    /// Which path computes packets: `best`, or one that is forced.
    pub crypto_path: String,
    /// Threads that read node links and open packets; 0: one for each processor.
    pub threads: usize,
    /// Most packets opened under one key.
    pub replay_max: usize,
    /// Most links accepted at once.
    pub links_max: usize,
    /// Most frames that wait for one link to a next hop.
    pub link_queue_max: usize,
    /// Most mailboxes.
    pub mailboxes_max: usize,
    /// Most packets that one mailbox keeps.
    pub mailbox_packets_max: u64,
    /// Connection string of the PostgreSQL server that keeps mailboxes; empty: a file does.
    pub postgres: String,
    /// Whether other processes of this gateway share that server.
    pub front_ends: bool,
    /// Packets of one open mailbox in memory.
    pub read_ahead: usize,
    /// Grace of a stopping gateway, in seconds.
    pub stop_grace_s: u64,
    /// What to log.
    pub log: String,
}

/// The command line: a flag for each setting.
#[must_use]
pub fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("TOML file of settings");
    let print = Arg::new("print-config")
        .long("print-config")
        .action(ArgAction::SetTrue)
        .help("Print the settings in force as TOML, then exit");
    let settings = |command: Command| {
        let flags = known().flags().into_iter().map(flag);
        command.args([config.clone(), print.clone()]).args(flags)
    };
    Command::new("lacuna-gateway")
        .about("Run one gateway of Lacuna")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(settings(
            Command::new("init").about("Make this gateway's identity and state directory"),
        ))
        .subcommand(settings(
            Command::new("run").about("Run the gateway until it is told to stop"),
        ))
}

fn flag(Flag { key, help, default }: Flag) -> Arg {
    Arg::new(key.clone())
        .long(key.replace('_', "-"))
        .value_name("VALUE")
        .help(format!("{help} [default: {default}]"))
}

fn known() -> Settings {
    Settings::new(EXAMPLE, ENV_PREFIX)
}

impl Config {
    /// The settings in force, from the file that a flag names, the environment, and the flags.
    ///
    /// # Errors
    ///
    /// In one line what is wrong, where, and what would be right.
    pub fn load(
        environment: impl Iterator<Item = (OsString, OsString)>,
        flags: &ArgMatches,
    ) -> anyhow::Result<Self> {
        let known = known();
        let given: BTreeMap<String, String> = known
            .flags()
            .into_iter()
            .filter_map(|Flag { key, .. }| {
                let text = flags.get_one::<String>(&key)?.clone();
                Some((key, text))
            })
            .collect();
        let file = flags.get_one::<PathBuf>("config").map(PathBuf::as_path);
        let config: Self = known.load(file, environment, &given)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        within(&[
            ("replay_max", self.replay_max, 0..=REPLAY_MAX_MAX),
            ("threads", self.threads, 0..=THREADS_MAX),
            ("link_queue_max", self.link_queue_max, 1..=PACKETS_MAX),
            ("read_ahead", self.read_ahead, 1..=PACKETS_MAX),
            ("links_max", self.links_max, 1..=LINKS_MAX),
        ])
        .map_err(anyhow::Error::msg)?;
        let family = self.family.len() <= FAMILY_LEN_MAX
            && self.family.bytes().all(|c| c.is_ascii_graphic());
        ensure!(
            family,
            "settings: family must be at most 64 printable ASCII characters, no space"
        );
        let advertise = self.advertise.is_empty() || is_address(&self.advertise);
        ensure!(advertise, "settings: advertise must be host:port");
        let server = self.server().context("settings: postgres")?;
        ensure!(
            server.is_some() || !self.front_ends,
            "settings: front ends share a PostgreSQL server; set `postgres`, or front_ends = false"
        );
        ensure!(
            !self.advertise.is_empty() || !self.front_ends,
            "settings: front ends are reached at one address; set `advertise` to it at each of them"
        );
        selfcheck::path(&self.crypto_path).context("settings")?;
        log::filter(&self.log).context("settings: log")?;
        Ok(())
    }

    /// Whether others could reach what this gateway would tell them.
    ///
    /// # Errors
    ///
    /// If it listens on all addresses and does not say which one others should dial.
    pub fn check_reachable(&self) -> anyhow::Result<()> {
        let told = !self.advertise.is_empty() || !self.listen.ip().is_unspecified();
        ensure!(
            told,
            "settings: set `advertise` to the host:port at which others reach this gateway: nobody \
             can dial {}",
            self.listen
        );
        Ok(())
    }

    /// The PostgreSQL server that keeps mailboxes, if one does.
    pub(crate) fn server(&self) -> Result<Option<Server>, ServerError> {
        let given = Some(self.postgres.as_str()).filter(|text| !text.is_empty());
        given.map(Server::parse).transpose()
    }

    /// Writes the settings in force to standard output, as TOML.
    ///
    /// # Errors
    ///
    /// If nobody takes them.
    pub fn print(&self) -> anyhow::Result<()> {
        let text = toml::to_string(self)?;
        io::stdout()
            .write_all(text.as_bytes())
            .context("writing to standard output")
    }

    /// How long a stopping gateway waits for its tasks.
    #[must_use]
    pub fn stop_grace(&self) -> Duration {
        Duration::from_secs(self.stop_grace_s)
    }
}
