//! One directory authority of Lacuna: gathers what nodes say of themselves, and signs with the
//! other authorities the one document of a period.
//!
//! | part         | what                                                                      |
//! |--------------|---------------------------------------------------------------------------|
//! | [`settings`] | what may differ between two honest authorities, and the command line      |
//! | [`params`]   | what belongs to the network, as a file                                    |
//! | `founding`   | the `network.toml` of a new network                                       |
//! | [`Node`]     | settings, keys and network, checked: what is left can only fail running   |
//! | `run`        | the ceremony machine ([`proto::authority`]) over directory links          |
//! | `desk`       | questions and answers beside that machine                                 |
//! | `disk`       | its vote and the finished document, which outlive the process             |
//!
//! A library, so that a test network can run an authority by re-executing its own program.

mod desk;
mod disk;
mod founding;
pub mod params;
mod run;
pub mod settings;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use proto::{authority::Authority, directory::Network};
use shell::{
    keys::Keys,
    log,
    network::{self, hex},
    role::{self, USAGE},
};
use tokio_util::sync::CancellationToken;

pub use settings::{Config, command};

/// Of the program.
pub const NAME: &str = "lacuna-authority";

/// Does what a command line asks for; `args` starts with the program's name.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(told) => {
            let _nobody_listens = told.print();
            return ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(USAGE));
        }
    };
    let done = match matches.subcommand().expect("clap asks for one") {
        ("network", flags) => founding::print(flags),
        ("params", _) => print(params::EXAMPLE),
        (verb, flags) => match Config::load(std::env::vars_os(), flags) {
            Ok(config) if flags.get_flag("print-config") => config.print(),
            Ok(config) if verb == "init" => init(&config),
            Ok(config) => match Node::new(config) {
                Ok(node) => {
                    let grace = node.config.stop_grace();
                    return role::daemon(NAME, grace, |stop| node.run(stop));
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => role::fail(NAME, &error, USAGE),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("writing to standard output")
}

/// Makes an authority's state directory and key, and says what to do next.
///
/// # Errors
///
/// If there is a key already, or the directory can't be made.
pub fn init(config: &Config) -> anyhow::Result<()> {
    let keys = role::make_keys(&config.state_dir)?;
    let (id, state) = (keys.id(), config.state_dir.display());
    print(&format!(
        "identity {id}\n\
         \n\
         Its keys are in {state}: back up the file `identity` there, offline.\n\
         Next: give this identity and the address of this authority to the others. When all are \n\
         known, one of you runs `{NAME} network --help`; put the network.toml that it prints at \n\
         every authority, node and client, and run\n\
         \n\
         \u{20}   {NAME} run --state-dir {state} --network network.toml\n"
    ))
}

/// Runs an authority until `stop`.
///
/// # Errors
///
/// What is wrong with the settings, or what failed while running.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    Node::new(config)?.run(stop).await
}

/// An authority whose settings, keys and network have been checked.
pub struct Node {
    config: Config,
    network: Network,
    keys: Keys,
    machine: Authority,
}

impl Node {
    /// Reads all that an authority needs to start, and locks its state directory.
    ///
    /// # Errors
    ///
    /// In one line, what is missing or wrong and what to do about it.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        log::start(&config.log).context("settings: log")?;
        let params = params::load(&config.params)?;
        let keys = role::open_keys(NAME, &config.state_dir)?;
        let network = network::read(&config.network)?;
        let file = config.network.display();
        ensure!(
            network.authority(&keys.id().0).is_some(),
            "{file}: {} is none of its authorities; add it, or choose the state_dir of one that is",
            hex(&keys.id().0)
        );
        ensure!(
            !network.authority_addresses.is_empty(),
            "{file}: authorities need each other's addresses; give an `address` for each"
        );
        let machine = disk::machine(&config, params, &network, &keys)?;
        Ok(Self {
            config,
            network,
            keys,
            machine,
        })
    }
}
