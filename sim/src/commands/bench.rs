//! `lacuna-sim bench`: events and packets per second of the flow engine, and what more threads give.

use sim::flow::{self, Section, Setup};

use super::{Failure, running, with_threads};

/// What `bench` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Threads; 0 for one per core
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Packets in flight, for one size in place of the usual five
    #[arg(long)]
    in_flight: Option<u32>,
    /// The same runs on 1, 2, 4 … threads, up to one per core: speed-up, and whether what they
    /// observed is the same to the last bit (exit code 1 if not)
    #[arg(long, conflicts_with = "threads")]
    scaling: bool,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.scaling {
        let sizes = arguments.in_flight;
        return scaling(&sizes.map_or(vec![300, 9_000, 100_000], |only| vec![only]));
    }
    with_threads(arguments.threads, || {
        bench(arguments.in_flight);
        Ok(())
    })
}

/// A network with so many packets in flight, and replications that take some seconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are small and positive"
)]
fn load(in_flight: u32) -> (Setup, u64) {
    let in_flight = f64::from(in_flight);
    let setup = Setup {
        layers: 3,
        // Some 1000 packets in a mix, as in a busy network.
        width: [3, 10, 30, 100][(in_flight / 1000.0).log10().clamp(0.0, 3.0) as usize],
        rate: in_flight / 3.0,
        ..Setup::default()
    };
    let targets = (8e6 / in_flight).clamp(16.0, 40_000.0) as u64;
    (setup, Setup::replications(targets))
}

/// What a study observes, and the seconds it takes.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark is the one thing here that needs a clock"
)]
fn timed(setup: &Setup, replications: u64) -> (Vec<Section>, f64) {
    let start = std::time::Instant::now();
    let sections = flow::study(setup, 1, replications, &|_| ());
    (sections, start.elapsed().as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn sum(sections: &[Section], pick: fn(&Section) -> u64) -> f64 {
    sections.iter().map(pick).sum::<u64>() as f64
}

/// Replications are spread over threads; sections do not depend on which thread made them.
#[expect(clippy::print_stdout, reason = "the results of this command")]
#[expect(clippy::cast_precision_loss, reason = "threads are few")]
fn scaling(sizes: &[u32]) -> Result<(), Failure> {
    println!(
        "{:>10} {:>12} {:>8} {:>9} {:>12} {:>9} {:>10} {:>6}",
        "in flight",
        "replications",
        "threads",
        "seconds",
        "events/s",
        "speed-up",
        "of linear",
        "same"
    );
    let cores = rayon::current_num_threads();
    for &in_flight in sizes {
        let (setup, replications) = load(in_flight);
        let mut alone: Option<(Vec<Section>, f64)> = None;
        let threads = std::iter::successors(Some(1), |threads| Some(threads * 2));
        for threads in threads.take_while(|threads| *threads <= cores) {
            let mut found = None;
            with_threads(threads, || {
                found = Some(timed(&setup, replications));
                Ok(())
            })?;
            let (sections, seconds) = found.expect("the pool has run it");
            let (first, once) = alone.get_or_insert_with(|| (sections.clone(), seconds));
            let (same, speedup) = (*first == sections, *once / seconds);
            println!(
                "{in_flight:>10} {replications:>12} {threads:>8} {seconds:>9.2} {:>12.0} \
                 {speedup:>9.2} {:>8.0} % {:>6}",
                sum(&sections, |section| section.events) / seconds,
                100.0 * speedup / threads as f64,
                if same { "yes" } else { "NO" },
            );
            if !same {
                return Err(running(anyhow::anyhow!(
                    "{threads} threads observed something else than one"
                )));
            }
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the results of this command")]
fn bench(only: Option<u32>) {
    println!(
        "{:>10} {:>9} {:>8} {:>12} {:>12} {:>10}",
        "in flight", "layers", "width", "events/s", "packets/s", "targets/s"
    );
    let sizes = only.map_or(vec![10, 300, 9_000, 100_000, 1_000_000], |only| vec![only]);
    for in_flight in sizes {
        let (setup, replications) = load(in_flight);
        let (sections, seconds) = timed(&setup, replications);
        println!(
            "{in_flight:>10} {:>9} {:>8} {:>12.0} {:>12.0} {:>10.1}",
            setup.layers,
            setup.width,
            sum(&sections, |section| section.events) / seconds,
            sum(&sections, |section| section.packets) / seconds,
            sum(&sections, |section| section.targets.len() as u64) / seconds,
        );
    }
}
