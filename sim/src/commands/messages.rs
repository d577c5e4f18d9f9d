//! `lacuna-sim messages`: many messages on the deployed machines, and how many arrive.

use core::time::Duration;

use clap::ValueEnum;
use serde_json::json;
use sim::{
    messages::{self, Messages},
    report,
    world::{Sabotage, Stay},
};

use super::{Failure, bar, failure, running, usage, with_threads};

/// What `messages` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many messages, in all networks together; rounded up, so that all senders of all networks have as many
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    messages: u64,
    /// Bytes of each
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=134_217_728))]
    bytes: u64,
    /// Whether senders stay, or are gone for good after the first bursts
    #[arg(long, value_enum, default_value_t = Sender::Gone)]
    sender: Sender,
    /// Loss of each link, in parts per million
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=500_000))]
    loss_ppm: u32,
    /// Payload slots of each client per second; loops are a tenth
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    payload_per_s: f64,
    /// Recipients are away for so long, from just before the first word
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_209_600))]
    offline_s: u64,
    /// Each recipient is killed so often amid the traffic, for 20 s
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    absences: u32,
    /// Time before the first word, in which loops measure the loss
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    warm_up_s: u64,
    /// Independent networks, in which the messages are shared out
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    replications: u64,
    /// Seed of every random number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; 0 for one per core. The results do not depend on it
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print JSON in place of the table
    #[arg(long)]
    json: bool,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sender {
    /// To the end: repair, acks.
    Stays,
    /// After the first bursts, with its disk.
    Gone,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|x| (0.01..=1000.0).contains(x));
    rate.ok_or_else(|| "must be a number from 0.01 to 1000".to_owned())
}

/// Runs it.
#[expect(clippy::print_stdout, reason = "the results of this command")]
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let settings = Messages {
        messages: arguments.messages,
        bytes: usize::try_from(arguments.bytes).map_err(usage)?,
        stay: match arguments.sender {
            Sender::Stays => Stay::Always,
            Sender::Gone => Stay::UntilSent,
        },
        loss_ppm: arguments.loss_ppm,
        payload_per_s: arguments.payload_per_s,
        loops_per_s: arguments.payload_per_s / 10.0,
        offline: Duration::from_secs(arguments.offline_s),
        absences: arguments.absences,
        warm_up: Duration::from_secs(arguments.warm_up_s),
        clients: (20, 10),
        replications: arguments.replications.min(arguments.messages),
    };
    let seed = arguments.seed;
    with_threads(arguments.threads, || {
        let bar = bar(arguments.quiet);
        let done = std::sync::Mutex::new(0.0);
        let progress = |share: f64| {
            if let Ok(mut done) = done.lock() {
                *done += share;
                super::advance(&bar, *done);
            }
        };
        let outcome = messages::run(&settings, seed, Sabotage::None, &progress);
        bar.finish_and_clear();
        let outcome = outcome.map_err(failure)?;
        if arguments.json {
            let title = "How surely messages arrive";
            let mut summary = report::study_summary(title, &super::command(seed), seed, &outcome);
            summary["counts"] = json!(outcome.counts);
            summary["failures"] = json!(outcome.failures);
            println!(
                "{}",
                serde_json::to_string_pretty(&summary).map_err(running)?
            );
        } else {
            super::run::show_figures(&outcome);
            for (name, count) in &outcome.counts {
                println!("{name:<32} {count:>12}");
            }
        }
        super::run::all_well(&outcome)
    })
}
