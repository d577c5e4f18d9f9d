//! `lacuna-sim validate`: closed forms and engines against published numbers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use sim::{
    flow::Sabotage,
    report,
    validate::{self, Check, Level},
};

use super::{Failure, advance, bar, running, with_threads};

/// What `validate` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The short form, in seconds
    #[arg(long)]
    quick: bool,
    /// Seed of every random number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; 0 for one per core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print JSON in place of the table
    #[arg(long)]
    json: bool,
    /// Also write a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
    /// Measure wrongly on purpose, to see the checks fail
    #[arg(long, value_parser = ["early-readout", "first-after-fixed-time"])]
    sabotage: Option<String>,
}

/// Runs it.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        quick,
        seed,
        threads,
        json,
        html,
        quiet,
        sabotage,
    } = arguments;
    let level = if quick { Level::Quick } else { Level::Full };
    let sabotage = match sabotage.as_deref() {
        Some("early-readout") => Sabotage::EarlyReadout,
        Some(_) => Sabotage::FirstAfterFixedTime,
        None => Sabotage::None,
    };
    with_threads(threads, || {
        let bar = bar(quiet);
        let checks = validate::run(level, seed, sabotage, &|done| advance(&bar, done));
        bar.finish_and_clear();
        show_validation(&checks, seed, json, html.as_deref())
    })
}

#[expect(clippy::print_stdout, reason = "the results of this command")]
fn show_validation(
    checks: &[Check],
    seed: u64,
    json: bool,
    html: Option<&Path>,
) -> Result<(), Failure> {
    if let Some(path) = html {
        fs::write(path, report::validation_page(checks, seed))
            .with_context(|| format!("writing {}", path.display()))
            .map_err(running)?;
    }
    let failed = checks.iter().filter(|check| !check.passes()).count();
    if json {
        let json = report::validation_json(checks, seed);
        println!("{}", serde_json::to_string_pretty(&json).map_err(running)?);
    } else {
        println!(
            "{:<5} {:<60} {:>12} {:>12} {:>12} {:>7}",
            "§", "check", "value", "expected", "std. error", "z"
        );
        for check in checks {
            let [section, name, value, expected, error, z, verdict] = report::check_row(check);
            println!(
                "{section:<5} {name:<60} {value:>12} {expected:>12} {error:>12} {z:>7} {verdict}"
            );
        }
        println!("\n{} checks, {failed} failed", checks.len());
    }
    if failed > 0 {
        return Err(running(anyhow::anyhow!("{failed} checks failed")));
    }
    Ok(())
}
