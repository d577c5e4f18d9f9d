//! The command `lacuna-testnet`.
//!
//! | subcommand | what                                                                          |
//! |------------|-------------------------------------------------------------------------------|
//! | `demo`     | a network, real messages, a table; then everything is gone                     |
//! | `up`       | a network that runs until Ctrl-C, and how to use it                            |
//! | `bench`    | one node under load, measured                                                 |
//! | `role`     | hidden: this executable as one role; how the two above make their processes    |
//!
//! | exit code | meaning                                                                        |
//! |-----------|--------------------------------------------------------------------------------|
//! | 0         | `demo`: all was delivered once, in frames of one size; `up`: stopped as asked  |
//! | 1         | anything else                                                                  |
//! | 2         | usage, or a folder that can't be used                                          |

use core::time::Duration;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use shell::{
    clock::Clock,
    entropy,
    role::{self, FAILED, USAGE, fail},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app, bench, demo,
    network::{CLIENTS, Network, Plan},
    process::die_with_parent,
    progress::Progress,
};

const NAME: &str = "lacuna-testnet";
/// Longest that stopping may take.
const GRACE: Duration = Duration::from_secs(20);

/// A whole Lacuna network on this machine.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send real messages through a whole network, and say what became of them.
    Demo {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
        /// Folder for everything, kept afterwards (default: a temporary one).
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Keep a network running until Ctrl-C, and print how to use it.
    Up {
        /// Folder for everything: new or empty.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Gateways; with three or more a mailbox can move while its gateway is gone.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=20))]
        gateways: u8,
    },
    /// Measure what one node carries on this machine, and how long messages take.
    Bench {
        #[command(subcommand)]
        what: What,
    },
    /// Be one role: mix-node, gateway, authority, client, app, bench-load.
    #[command(hide = true, disable_help_flag = true)]
    Role {
        role: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
enum What {
    /// One mix over real links: packets per second and processor, delay that it adds.
    Node {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
        /// Length of each phase in which the load is held, in seconds, at most 7: a longer run would fill the
        /// node's replay set.
        #[arg(long, default_value_t = 5.0, value_parser = few_seconds)]
        seconds: f64,
        /// Gateways that send to it, over one link each.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=100))]
        gateways: u8,
    },
    /// Each engine of mailboxes: packets per second made durable, and how long one waits.
    Mailbox {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
        /// Length of each of the seven measured runs, in seconds.
        #[arg(long, default_value_t = 5.0, value_parser = seconds)]
        seconds: f64,
    },
    /// A whole network for each of two profiles, Nym's parameters and our defaults: how long messages take.
    Messages {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
        /// Short messages of each profile.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        messages: u64,
    },
    /// The replay set and its journal: time and memory for each tag, and a restart.
    Replay {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
        /// Tags; each takes 10.7 bytes of memory and 8 of the temporary folder.
        #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000_000..=1_000_000_000))]
        tags: u64,
    },
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.5..=60.0).contains(s));
    seconds.ok_or_else(|| "must be a number of seconds from 0.5 to 60".to_owned())
}

fn few_seconds(text: &str) -> Result<f64, String> {
    match seconds(text) {
        Ok(seconds) if seconds <= 7.0 => Ok(seconds),
        _ => Err("must be a number of seconds from 0.5 to 7".to_owned()),
    }
}

/// Runs the command line `args`, whose first is the program's name.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _nobody_listens = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    match cli.command {
        Command::Demo { json, dir } => {
            in_folder(dir.as_deref().map_or_else(temporary, fresh), |root| {
                role::daemon(NAME, GRACE, |stop| {
                    until(stop, demo_in(root, dir.is_some(), json))
                })
            })
        }
        Command::Up { dir, gateways } => in_folder(fresh(&dir), |root| {
            role::daemon(NAME, GRACE, |stop| up(root, gateways.into(), stop))
        }),
        Command::Bench { what } => in_folder(temporary(), |root| {
            role::daemon(NAME, GRACE, |stop| until(stop, bench_in(root, what)))
        }),
        Command::Role { role, args } => match die_with_parent() {
            Ok(()) => play(&role, args),
            Err(error) => fail(NAME, &error, FAILED),
        },
    }
}

/// A folder that can't be used is the command line's fault.
fn in_folder(root: anyhow::Result<PathBuf>, work: impl FnOnce(PathBuf) -> ExitCode) -> ExitCode {
    match root {
        Ok(root) => work(root),
        Err(error) => fail(NAME, &format!("{error:#}"), USAGE),
    }
}

/// Re-executed: be `role`.
fn play(role: &str, args: Vec<OsString>) -> ExitCode {
    let command = |name: &str| core::iter::once(OsString::from(name)).chain(args.clone());
    match role {
        "authority" => authority::main_with(command("lacuna-authority")),
        "gateway" => gateway::main_with(command("lacuna-gateway")),
        "mix-node" => mix_node::main_with(command("lacuna-mix-node")),
        "client" => client::main_with(command("lacuna")),
        "app" => {
            let socket = args.into_iter().next().map(PathBuf::from);
            role::daemon("app", GRACE, |stop| async move {
                until(stop, app::run(socket.context("app: name a socket")?)).await
            })
        }
        "bench-load" => role::daemon("bench-load", GRACE, |stop| until(stop, bench::load::run())),
        other => {
            let roles = "authority, gateway, mix-node, client, app, bench-load";
            fail(NAME, &format!("role: `{other}` is none of {roles}"), USAGE)
        }
    }
}

/// Runs `work` unless a signal comes first; dropping it ends every process that it started.
async fn until(
    stop: CancellationToken,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => bail!("interrupted; every process that was started is ended"),
        done = work => done,
    }
}

async fn demo_in(root: PathBuf, keep: bool, json: bool) -> anyhow::Result<()> {
    let progress = Progress::new();
    let done = demo::run(Plan::demo(&root)?, &progress).await;
    drop(progress);
    let kept = format!("everything is kept in {}", root.display());
    let report = done.with_context(|| kept.clone())?;
    let text = if json {
        serde_json::to_string(&report)?
    } else {
        report.to_string()
    };
    print(&text);
    ensure!(
        report.is_good(),
        "not everything was delivered once, in frames of one size; {kept}"
    );
    if !keep {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    Ok(())
}

async fn bench_in(root: PathBuf, what: What) -> anyhow::Result<()> {
    let progress = Progress::new();
    let text = match what {
        What::Node {
            json,
            seconds,
            gateways,
        } => {
            let done = bench::node::run(&root, seconds, gateways.into(), &progress).await;
            done.and_then(|report| text(&report, json))
        }
        What::Mailbox { json, seconds } => {
            let done = bench::mailbox::run(&root, seconds, &progress).await;
            done.and_then(|report| text(&report, json))
        }
        What::Messages { json, messages } => {
            let done = bench::messages::run(&root, messages, &progress).await;
            done.and_then(|report| text(&report, json))
        }
        What::Replay { json, tags } => {
            let (folder, tags) = (root.clone(), usize::try_from(tags)?);
            let work = move || bench::replay::run(&folder, tags, &Progress::new());
            let done = tokio::task::spawn_blocking(work).await?;
            done.and_then(|report| text(&report, json))
        }
    };
    drop(progress);
    print(&text.with_context(|| format!("everything is kept in {}", root.display()))?);
    fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))
}

async fn up(root: PathBuf, gateways: usize, stop: CancellationToken) -> anyhow::Result<()> {
    let progress = Progress::new();
    let plan = Plan {
        applications: false,
        gateways,
        ..Plan::demo(&root)?
    };
    let started = Network::start(plan, Clock::start(), &progress);
    let network = tokio::select! {
        started = started => started?,
        () = stop.cancelled() => bail!("interrupted; every process that was started is ended"),
    };
    drop(progress);
    print(&how_to_use(network.root())?);
    let tell = |end: &anyhow::Error| Progress::new().note(&format!("{end:#}; the rest goes on"));
    network.keep(stop.cancelled(), tell).await
}

fn how_to_use(root: &Path) -> anyhow::Result<String> {
    let [alice, bob] = CLIENTS.map(|name| root.join(name).join("state").display().to_string());
    let program = std::env::current_exe()?;
    Ok(format!(
        "A network runs in {root}; Ctrl-C ends it. Two clients are up. In other terminals:\n\
         \n  alias lacuna='{program} role client'   # where `lacuna` itself is not installed\n\
         \n  lacuna status  --state-dir {alice}\
         \n  lacuna receive --state-dir {bob} --follow --json\
         \n  echo hello | lacuna send --state-dir {alice} --reply address --wait acked \\\
         \n      \"$(lacuna address --state-dir {bob})\"\n\
         \nA client of your own:\n\
         \n  lacuna init --network {root}/network.toml --state-dir {root}/carol --profile interactive\
         \n  lacuna run  --state-dir {root}/carol\n\
         \nProcesses may be killed: the network goes on without them. Logs are in {root}/*/log.",
        root = root.display(),
        program = program.display(),
    ))
}

/// A report for people, or for programs.
fn text(report: &(impl ToString + serde::Serialize), json: bool) -> anyhow::Result<String> {
    Ok(if json {
        serde_json::to_string(report)?
    } else {
        report.to_string()
    })
}

/// A new or empty folder.
fn fresh(dir: &Path) -> anyhow::Result<PathBuf> {
    let unusable = || format!("--dir {}: choose a new folder", dir.display());
    fs::create_dir_all(dir).with_context(unusable)?;
    let mut entries = fs::read_dir(dir).with_context(unusable)?;
    ensure!(
        entries.next().is_none(),
        "--dir {}: it is not empty; choose a new folder",
        dir.display()
    );
    dir.canonicalize().with_context(unusable)
}

/// A new folder in the system's temporary one.
fn temporary() -> anyhow::Result<PathBuf> {
    let random = shell::network::hex(&entropy::seed()[..6]);
    fresh(&std::env::temp_dir().join(format!("lacuna-{random}")))
}

fn print(text: &str) {
    use std::io::Write;
    let _nobody_listens = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_folder_must_be_new_or_empty() {
        let folder = tempfile::tempdir().unwrap();
        assert!(fresh(&folder.path().join("new")).is_ok());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for unusable in [folder.path(), &file, &file.join("below")] {
            let dir = unusable.as_os_str().to_owned();
            for command in ["demo", "up"] {
                let args = [NAME.into(), command.into(), "--dir".into(), dir.clone()];
                assert_eq!(main_with(args), ExitCode::from(USAGE), "{unusable:?}");
            }
            let error = format!("{:#}", fresh(unusable).unwrap_err());
            let one_line = !error.contains('\n');
            assert!(one_line && error.contains("choose a new folder"), "{error}");
        }
    }
}
