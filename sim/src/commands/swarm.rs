//! `lacuna-sim swarm`: many random networks on the packet engine.

use anyhow::anyhow;
use serde_json::{Value, json};
use sim::swarm::{self, Fate};

use super::{Failure, bar, running, usage, with_threads};

/// What `swarm` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Threads; 0 for one per core. The results do not depend on it
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print JSON in place of lines
    #[arg(long)]
    json: bool,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

/// Runs it.
#[expect(clippy::print_stdout, reason = "the results of this command")]
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments {
        seeds,
        first,
        threads,
        json,
        quiet,
    } = *arguments;
    let end = first
        .checked_add(seeds)
        .ok_or_else(|| usage(anyhow!("--first {first}: too large for --seeds {seeds}")))?;
    with_threads(threads, || {
        let bar = bar(quiet);
        bar.set_length(seeds);
        let fates = swarm::runs(first..end, &|_| bar.inc(1)).map_err(running)?;
        bar.finish_and_clear();
        if json {
            let rows: Vec<Value> = fates.iter().map(row).collect();
            println!("{}", serde_json::to_string_pretty(&rows).map_err(running)?);
        }
        let failed: Vec<&Fate> = fates
            .iter()
            .filter(|fate| !fate.failures.is_empty())
            .collect();
        if !json {
            for fate in &failed {
                println!(
                    "seed {} FAILED: {}\n    trace {}\n    again: lacuna-sim swarm --first {} --seeds 1",
                    fate.seed, fate.failures[0], fate.trace, fate.seed
                );
            }
            if let [only] = fates.as_slice() {
                println!("seed {} trace {}", only.seed, only.trace);
            }
            let sum = |pick: fn(&Fate) -> u64| fates.iter().map(pick).sum::<u64>();
            let silent = fates.iter().filter(|fate| fate.messages == 0).count();
            let silent = match silent {
                0 => String::new(),
                silent => format!(" ({silent} without messages: safety alone)"),
            };
            println!(
                "{} seeds{silent}, {} messages, {} faults, {} failed",
                fates.len(),
                sum(|fate| fate.messages),
                sum(|fate| fate.faults),
                failed.len()
            );
        }
        match failed.len() {
            0 => Ok(()),
            failed => Err(running(anyhow!("{failed} of {seeds} seeds failed"))),
        }
    })
}

fn row(fate: &Fate) -> Value {
    json!({"seed": fate.seed, "trace": fate.trace, "failures": fate.failures,
           "messages": fate.messages, "faults": fate.faults})
}
