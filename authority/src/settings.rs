//! Settings of one directory authority: `example.toml` names, explains and defaults them; [`Config`] is
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
use proto::directory::consensus::LAYERS_MAX;
use serde::{Deserialize, Serialize};
use shell::{
    log,
    settings::{Flag, Settings},
};

/// Every setting with its default and its help.
pub const EXAMPLE: &str = include_str!("../example.toml");
const ENV_PREFIX: &str = "LACUNA_AUTHORITY_";

/// The settings in force; `example.toml` says what each means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address to accept links on.
    pub listen: SocketAddr,
    /// Address of `/metrics` and `/status`.
    pub metrics_listen: SocketAddr,
    /// Directory of everything that outlives the process.
    pub state_dir: PathBuf,
    /// The `network.toml`.
    pub network: PathBuf,
    /// A file of the network's parameters; empty: the defaults.
    pub params: PathBuf,
    /// The period to make a document for, at least the network's first.
    pub period: u64,
    /// Layers of mixes.
    pub layers: usize,
    /// Descriptors of mixes to wait for.
    pub mixes_min: usize,
    /// Descriptors of gateways to wait for.
    pub gateways_min: usize,
    /// How long descriptors must have been unchanged, in milliseconds.
    pub settle_ms: u64,
    /// Turn of each proposer, in seconds.
    pub round_s: u64,
    /// Most descriptors held.
    pub nodes_max: usize,
    /// Most links accepted at once.
    pub links_max: usize,
    /// Grace of a stopping authority, in seconds.
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
    Command::new("lacuna-authority")
        .about("Run one directory authority of Lacuna")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(crate::founding::command())
        .subcommand(Command::new("params").about("Print the network's default parameters as TOML"))
        .subcommand(settings(
            Command::new("init").about("Make this authority's identity and state directory"),
        ))
        .subcommand(settings(
            Command::new("run").about("Run the authority until it is told to stop"),
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
        ensure!(self.links_max > 0, "settings: links_max must be above 0");
        ensure!(self.round_s > 0, "settings: round_s must be above 0");
        ensure!(
            self.layers == LAYERS_MAX,
            "settings: layers must be {LAYERS_MAX}: clients build packets for no other number"
        );
        log::filter(&self.log).context("settings: log")?;
        Ok(())
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

    /// How long a stopping authority waits for its tasks.
    #[must_use]
    pub fn stop_grace(&self) -> Duration {
        Duration::from_secs(self.stop_grace_s)
    }
}
