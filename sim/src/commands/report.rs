//! `lacuna-sim report`: several runs on one page.

use std::path::PathBuf;

use anyhow::anyhow;
use sim::overview;

use super::{Failure, compare::read, running, usage, write};

/// What `report` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folders of runs, or their summary.json, of run, plan or attack
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// File for the page
    #[arg(long, default_value = "runs.html")]
    out: PathBuf,
}

/// Runs it.
#[expect(clippy::print_stdout, reason = "the results of this command")]
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut runs = Vec::new();
    for path in &arguments.runs {
        runs.push((path.display().to_string(), read(path)?));
    }
    let page = overview::page(&runs).map_err(|why| usage(anyhow!(why)))?;
    write::whole(&arguments.out, page.as_bytes()).map_err(running)?;
    println!("{} runs; {}", runs.len(), arguments.out.display());
    Ok(())
}
