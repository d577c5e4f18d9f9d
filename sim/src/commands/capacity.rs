//! `lacuna-sim capacity`: what a network for so many users takes.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use proto::directory::Params;
use sim::{
    capacity::{self, Capacity, Documents, Given},
    outcome::RunError,
};

use super::{Failure, advance, bar, running, usage, with_threads, write};

/// What `capacity` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Users online; several for several columns
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000, 100_000_000, 1_000_000_000],
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    users: Vec<u64>,
    /// Profile of all users, of the network's defaults
    #[arg(long, default_value = "messaging")]
    profile: String,
    /// Share of mixes that are corrupt, from 0 to 0.9
    #[arg(long, default_value_t = 0.2, value_parser = super::plan::share)]
    corrupt: f64,
    /// What all six links of a way take together
    #[arg(long, default_value = "240ms", value_parser = super::plan::seconds_or_none)]
    links: f64,
    /// Packets per second planned for one processor of a mix
    #[arg(long, default_value_t = 10_000.0, value_parser = positive)]
    mix_per_s: f64,
    /// Downstream frames per second planned for one processor of a gateway
    #[arg(long, default_value_t = 4_000.0, value_parser = positive)]
    gateway_per_s: f64,
    /// Price of one processor for a month
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    processor_month: f64,
    /// Price of 10¹² bytes sent
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    terabyte: f64,
    /// Measure entropy with the flow engine where it can follow the network
    #[arg(long)]
    measure: bool,
    /// Seed of every random number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File for the table
    #[arg(long)]
    out: Option<PathBuf>,
    /// Threads; 0 for one per core. The results do not depend on it
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok();
    value
        .filter(|value| value.is_finite() && *value > 0.0)
        .ok_or_else(|| "must be a number above 0".to_owned())
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let params = Params::default();
    let Some((_, profile)) = params.profile(&arguments.profile) else {
        let names: Vec<&str> = params
            .profiles
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        return Err(usage(anyhow!(
            "--profile {}: must be one of {}",
            arguments.profile,
            names.join(", ")
        )));
    };
    let given = Given {
        profile: profile.clone(),
        params,
        corrupt: arguments.corrupt,
        links_s: arguments.links,
        mix_per_s: arguments.mix_per_s,
        gateway_per_s: arguments.gateway_per_s,
        processor_month: arguments.processor_month,
        terabyte: arguments.terabyte,
    };
    with_threads(arguments.threads, || found(arguments, &given))
}

#[expect(clippy::print_stdout, reason = "the results of this command")]
fn found(arguments: &Arguments, given: &Given) -> Result<(), Failure> {
    let told = |why: RunError| match why {
        RunError::Usage(_) => usage(why),
        RunError::Failed(_) => running(why),
    };
    let documents = Documents::measure().map_err(told)?;
    let mut all: Vec<Capacity> = Vec::new();
    for &users in &arguments.users {
        all.push(capacity::capacity(given, &documents, users).map_err(told)?);
    }
    if arguments.measure {
        let bar = bar(arguments.quiet);
        for one in &mut all {
            capacity::measure(given, one, arguments.seed, &|done| advance(&bar, done))
                .map_err(told)?;
        }
        bar.finish_and_clear();
    }
    let table = capacity::markdown(given, &all);
    if let Some(out) = &arguments.out {
        write::whole(out, table.as_bytes())
            .with_context(|| format!("writing {}", out.display()))
            .map_err(running)?;
    }
    print!("{table}");
    Ok(())
}
