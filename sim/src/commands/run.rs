//! `lacuna-sim run`: one scenario, its summary and its report.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use sim::{outcome::RunError, report, scenario::keys::Value};

use super::{Failure, advance, bar, read, running, usage, with_threads};

/// What `run` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Scenario file (TOML); `lacuna-sim keys` lists its language
    scenario: PathBuf,
    /// Seed of every random number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the results; made if absent
    #[arg(long)]
    out: PathBuf,
    /// Engine, in place of the scenario's
    #[arg(long, value_parser = ["flow", "packet"])]
    engine: Option<String>,
    /// Threads; 0 for one per core. The results do not depend on it
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// No progress bar and no table
    #[arg(long)]
    quiet: bool,
}

/// Runs it.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        scenario: path,
        seed,
        out,
        engine,
        threads,
        quiet,
    } = arguments;
    let engine = engine.map(|engine| ("engine", Value::Text(engine.into())));
    let scenario = read(&path, engine)?;
    let name = path.display().to_string();
    with_threads(threads, || {
        let bar = bar(quiet);
        let outcome = sim::run(&scenario, seed, &|done| advance(&bar, done));
        bar.finish_and_clear();
        let outcome = outcome.map_err(|error| match error {
            RunError::Usage(_) => usage(anyhow::Error::new(error).context(name.clone())),
            RunError::Failed(_) => running(error),
        })?;
        let summary = report::summary(&scenario, seed, &outcome);
        let summary = serde_json::to_string_pretty(&summary).map_err(running)? + "\n";
        let page = report::page(&scenario, seed, &outcome);
        fs::create_dir_all(&out)
            .and_then(|()| fs::write(out.join("summary.json"), summary))
            .and_then(|()| fs::write(out.join("report.html"), page))
            .with_context(|| format!("writing to {}", out.display()))
            .map_err(running)?;
        if !quiet {
            show_outcome(&outcome, &out);
        }
        match outcome.failures.as_slice() {
            [] => Ok(()),
            [first, rest @ ..] => Err(running(anyhow::anyhow!(
                "{first} (and {} more failures)",
                rest.len()
            ))),
        }
    })
}

#[expect(clippy::print_stdout, reason = "the results of this command")]
fn show_outcome(outcome: &sim::outcome::Outcome, out: &Path) {
    for figure in &outcome.figures {
        let (value, error) = (figure.estimate.value, figure.estimate.standard_error);
        let z = figure.z().map_or(String::new(), |z| format!("  z {z:+.2}"));
        let (value, error) = (report::short(value), report::short(error));
        println!("{:<32} {value:>12} ± {error:<10}{z}", figure.name);
    }
    println!("\n{}", out.join("report.html").display());
}
