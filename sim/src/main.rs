//! `lacuna-sim`: run a scenario, validate the engines, list the language, measure speed.
//!
//! Exit codes: 0 done, 1 failed while running (or a check failed), 2 scenario or usage. Only
//! `bench` reads a clock. Progress goes to standard error, results to standard output or files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use sim::{
    flow::{self, Sabotage, Setup},
    outcome::RunError,
    report,
    scenario::{
        Scenario,
        keys::{KEYS, Value},
    },
    validate::{self, Check, Level},
};

#[derive(Parser)]
#[command(
    name = "lacuna-sim",
    version,
    about = "Simulate mixnets: how anonymous, how slow, how costly, is the code right"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one scenario; write summary.json and report.html
    Run {
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
    },
    /// Check the closed forms and the engines against published numbers
    Validate {
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
    },
    /// List the keys of a scenario with their ranges and defaults
    Keys,
    /// Measure the flow engine: events and packets per second
    Bench {
        /// Threads; 0 for one per core
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Packets in flight, for one size in place of the usual five
        #[arg(long)]
        in_flight: Option<u32>,
    },
}

/// What went wrong, by exit code.
enum Failure {
    Usage(anyhow::Error),
    Running(anyhow::Error),
}

fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Usage(error.into())
}

fn running(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Running(error.into())
}

#[expect(clippy::print_stderr, reason = "the last words of the process")]
fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run {
            scenario,
            seed,
            out,
            engine,
            threads,
            quiet,
        } => run(&scenario, seed, &out, engine, threads, quiet),
        Command::Validate {
            quick,
            seed,
            threads,
            json,
            html,
            quiet,
            sabotage,
        } => {
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
        Command::Keys => {
            keys();
            Ok(())
        }
        Command::Bench { threads, in_flight } => with_threads(threads, || {
            bench(in_flight);
            Ok(())
        }),
    };
    let (error, code) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Running(error)) => (error, 1),
        Err(Failure::Usage(error)) => (error, 2),
    };
    eprintln!("lacuna-sim: {error:#}");
    ExitCode::from(code)
}

fn with_threads(
    threads: usize,
    work: impl FnOnce() -> Result<(), Failure> + Send,
) -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().map_err(running)?.install(work)
}

/// A progress bar on standard error, drawn only if that is a terminal.
fn bar(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("[{bar:40}] {percent:>3} %, {eta} left");
    let style = style.expect("the template is constant");
    ProgressBar::new(1000).with_style(style.progress_chars("=> "))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of 1000"
)]
fn advance(bar: &ProgressBar, done: f64) {
    bar.set_position((done * 1000.0) as u64);
}

fn run(
    path: &Path,
    seed: u64,
    out: &Path,
    engine: Option<String>,
    threads: usize,
    quiet: bool,
) -> Result<(), Failure> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path)
        .with_context(|| format!("reading {name}"))
        .map_err(usage)?;
    let engine = engine.map(|engine| ("engine", Value::Text(engine.into())));
    let scenario = Scenario::parse_with(&text, engine)
        .with_context(|| name.clone())
        .map_err(usage)?;
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
        fs::create_dir_all(out)
            .and_then(|()| fs::write(out.join("summary.json"), summary))
            .and_then(|()| fs::write(out.join("report.html"), page))
            .with_context(|| format!("writing to {}", out.display()))
            .map_err(running)?;
        if !quiet {
            show_outcome(&outcome, out);
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

#[expect(clippy::print_stdout, reason = "the results of this command")]
fn keys() {
    for key in KEYS {
        let default = match &key.default {
            Some(default) => format!("default {default}"),
            None => "required".to_owned(),
        };
        println!(
            "{}\n    {}\n    {}; {default}",
            key.name, key.meaning, key.kind
        );
    }
}

#[expect(clippy::print_stdout, reason = "the results of this command")]
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark is the one thing here that needs a clock"
)]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes and counts below 2^53"
)]
fn bench(only: Option<u32>) {
    println!(
        "{:>10} {:>9} {:>8} {:>12} {:>12} {:>10}",
        "in flight", "layers", "width", "events/s", "packets/s", "targets/s"
    );
    let sizes = only.map_or(vec![10, 300, 9_000, 100_000, 1_000_000], |only| vec![only]);
    for in_flight in sizes.into_iter().map(f64::from) {
        let setup = Setup {
            layers: 3,
            // Some 1000 packets in a mix, as in a busy network.
            width: [3, 10, 30, 100][(in_flight / 1000.0).log10().clamp(0.0, 3.0) as usize],
            rate: in_flight / 3.0,
            ..Setup::default()
        };
        let targets = (8e6 / in_flight).clamp(16.0, 40_000.0) as u64;
        let start = std::time::Instant::now();
        let sections = flow::study(&setup, 1, Setup::replications(targets), &|_| ());
        let seconds = start.elapsed().as_secs_f64();
        let sum = |pick: fn(&flow::Section) -> u64| sections.iter().map(pick).sum::<u64>() as f64;
        println!(
            "{in_flight:>10} {:>9} {:>8} {:>12.0} {:>12.0} {:>10.1}",
            setup.layers,
            setup.width,
            sum(|section| section.events) / seconds,
            sum(|section| section.packets) / seconds,
            sum(|section| section.targets.len() as u64) / seconds,
        );
    }
}
