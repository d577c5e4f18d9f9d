//! `lacuna-sim bench`: events and packets per second of the flow engine.

use sim::flow::{self, Setup};

use super::{Failure, with_threads};

/// What `bench` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Threads; 0 for one per core
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Packets in flight, for one size in place of the usual five
    #[arg(long)]
    in_flight: Option<u32>,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    with_threads(arguments.threads, || {
        bench(arguments.in_flight);
        Ok(())
    })
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
