//! What the commands share: how they fail, threads, the progress bar, reading a scenario.
//!
//! One module per command; each has an `Arguments` for clap and a `run`. A new command is a
//! module here and a line of [`Command`](crate::Command).

pub(crate) mod attack;
pub(crate) mod bench;
pub(crate) mod capacity;
pub(crate) mod compare;
pub(crate) mod keys;
pub(crate) mod messages;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod swarm;
pub(crate) mod sweep;
pub(crate) mod validate;
pub(crate) mod write;

use std::path::Path;

use anyhow::Context;
use clap::{ArgAction, ArgMatches, Command, CommandFactory};
use indicatif::{ProgressBar, ProgressStyle};
use sim::{
    outcome::RunError,
    scenario::{Scenario, keys::Value},
};

/// What went wrong, by exit code.
pub(crate) enum Failure {
    /// Scenario or usage: 2.
    Usage(anyhow::Error),
    /// Anything while running: 1.
    Running(anyhow::Error),
}

pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Usage(error.into())
}

pub(crate) fn running(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Running(error.into())
}

/// What an engine or a study refuses or fails at.
pub(crate) fn failure(error: RunError) -> Failure {
    match error {
        RunError::Usage(_) => usage(error),
        RunError::Failed(_) => running(error),
    }
}

pub(crate) fn with_threads(
    threads: usize,
    work: impl FnOnce() -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().map_err(running)?.install(work)
}

/// Flags that change where results go, not what they are; and the seed, which stands by itself.
const APART: [&str; 6] = ["json", "out", "quiet", "seed", "threads", "help"];

/// The command that this process was given, with its defaults: whoever runs it gets the same results.
pub(crate) fn command(seed: u64) -> String {
    let command = crate::Arguments::command();
    let matches = command.clone().get_matches();
    let mut text = command.get_name().to_owned();
    put_flags(&mut text, &command, &matches);
    text + &format!(" --seed {seed}")
}

fn put_flags(text: &mut String, command: &Command, matches: &ArgMatches) {
    for flag in command.get_arguments() {
        let id = flag.get_id().as_str();
        let Some(name) = flag.get_long().filter(|_| !APART.contains(&id)) else {
            continue;
        };
        if matches!(flag.get_action(), ArgAction::SetTrue) {
            if matches.get_flag(id) {
                *text += &format!(" --{name}");
            }
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            *text += &format!(" --{name} {}", value.to_string_lossy());
        }
    }
    if let Some((name, matches)) = matches.subcommand() {
        *text += &format!(" {name}");
        if let Some(command) = command.find_subcommand(name) {
            put_flags(text, command, matches);
        }
    }
}

/// A progress bar on standard error, drawn only if that is a terminal.
pub(crate) fn bar(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("[{bar:40}] {percent:>3} %, {eta} left");
    let style = style.expect("the template is constant");
    ProgressBar::new(1000).with_style(style.progress_chars("=> "))
}

/// The same for work of which nobody knows the share that is done: that it goes on, and for how long.
pub(crate) fn clock(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {elapsed}");
    let clock = ProgressBar::new_spinner().with_style(style.expect("the template is constant"));
    clock.enable_steady_tick(std::time::Duration::from_millis(200));
    clock
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of 1000"
)]
pub(crate) fn advance(bar: &ProgressBar, done: f64) {
    bar.set_position((done * 1000.0) as u64);
}

/// Reads the scenario at `path`, one key replaced if `with` says so.
pub(crate) fn read(
    path: &Path,
    with: impl IntoIterator<Item = (&'static str, Value)>,
) -> Result<Scenario, Failure> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading {name}"))
        .map_err(usage)?;
    Scenario::parse_with(&text, with)
        .context(name)
        .map_err(usage)
}
