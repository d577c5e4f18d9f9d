//! One gateway of Lacuna: passes its clients' packets to the first layer, and keeps what comes
//! from the last one in mailboxes.
//!
//! | part         | what                                                                      |
//! |--------------|---------------------------------------------------------------------------|
//! | [`settings`] | what may differ between two honest gateways, and the command line         |
//! | [`Node`]     | settings, keys and network, checked: what is left can only fail running   |
//! | `run`        | the machine ([`proto::gateway`]) and everything around it                 |
//! | `clients`    | links of clients: frames in, frames out                                   |
//! | `mailboxes`  | the machine's storage outputs, carried out and answered in order          |
//!
//! A library, so that a test network can run a gateway by re-executing its own program.

mod clients;
mod mailboxes;
mod run;
pub mod settings;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use proto::directory::Network;
use shell::{
    follow,
    keys::Keys,
    log, network,
    role::{self, USAGE},
};
use tokio_util::sync::CancellationToken;

pub use settings::{Config, command};

/// Of the program.
pub const NAME: &str = "lacuna-gateway";

/// Does what a command line asks for; `args` starts with the program's name.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(told) => {
            let _nobody_listens = told.print();
            return ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(USAGE));
        }
    };
    let (verb, flags) = matches.subcommand().expect("clap asks for one");
    let config = match Config::load(std::env::vars_os(), flags) {
        Ok(config) => config,
        Err(error) => return role::fail(NAME, &error, USAGE),
    };
    let done = match verb {
        _ if flags.get_flag("print-config") => config.print(),
        "init" => init(&config),
        _ => {
            return match Node::new(config) {
                Ok(node) => role::daemon(NAME, node.config.stop_grace(), |stop| node.run(stop)),
                Err(error) => role::fail(NAME, &error, USAGE),
            };
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => role::fail(NAME, &error, USAGE),
    }
}

/// Makes a gateway's state directory and identity, and says what to do next.
///
/// # Errors
///
/// If there is an identity already, or the directory can't be made.
pub fn init(config: &Config) -> anyhow::Result<()> {
    let keys = role::make_keys(&config.state_dir)?;
    let (id, state) = (keys.id(), config.state_dir.display());
    writeln!(
        io::stdout(),
        "identity {id}\n\
         \n\
         Its keys are in {state}: back up the file `identity` there, and nothing else.\n\
         Next: get the network.toml of your network, set `listen`, `advertise` and `family`, and run\n\
         \n\
         \u{20}   {NAME} run --state-dir {state} --network network.toml"
    )
    .context("writing to standard output")
}

/// Runs a gateway until `stop`.
///
/// # Errors
///
/// What is wrong with the settings, or what failed while running.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    Node::new(config)?.run(stop).await
}

/// A gateway whose settings, keys and network have been checked.
pub struct Node {
    config: Config,
    network: Network,
    keys: Keys,
}

impl Node {
    /// Reads all that a gateway needs to start, and locks its state directory.
    ///
    /// # Errors
    ///
    /// In one line, what is missing or wrong and what to do about it.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        config.check_reachable()?;
        log::start(&config.log).context("settings: log")?;
        let keys = role::open_keys(NAME, &config.state_dir)?;
        let network = network::read(&config.network)?;
        ensure!(
            !network.authority_addresses.is_empty(),
            "{}: nodes need the authorities' addresses; get the network.toml for nodes",
            config.network.display()
        );
        follow::check(&network, &keys.state().path("consensus"))?;
        Ok(Self {
            config,
            network,
            keys,
        })
    }
}
