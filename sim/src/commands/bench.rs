//! `lacuna-sim bench`: events and packets per second of the flow engine, and what more threads give.
//!
//! Networks of Poisson mixes with nothing else have a core of their own, all others the general one
//! ([`Setup::is_plain`]); each row says which it ran on. The first general row is the first network
//! again, so that the cores can be compared.

use sim::{
    flow::{self, Capacity, Links, Pool, Route, Section, Setup, Users},
    scenario::Placement,
};

use super::{Failure, running, usage, with_threads};

/// What `bench` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Threads; 0 for one per core
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Packets in flight, for one size in place of the usual five
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    in_flight: Option<u32>,
    /// Only networks whose name begins so
    #[arg(long, conflicts_with = "scaling")]
    network: Option<String>,
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
        bench(
            arguments.in_flight,
            arguments.network.as_deref().unwrap_or(""),
        )
    })
}

/// Layers of Poisson mixes with so many packets in flight.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are small and positive"
)]
fn layers(in_flight: f64) -> Setup {
    Setup {
        layers: 3,
        // Some 1000 packets in a mix, as in a busy network.
        width: [3, 10, 30, 100][(in_flight / 1000.0).log10().clamp(0.0, 3.0) as usize],
        rate: in_flight / 3.0,
        ..Setup::default()
    }
}

/// One network of each kind, with so many packets in its mixes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "sizes are small and positive"
)]
fn networks(in_flight: f64) -> Vec<(&'static str, Setup)> {
    let plain = layers(in_flight);
    let (width, rate) = (plain.width, plain.rate);
    let each = rate / width as f64;
    let pool = |batch: Option<usize>, fraction| {
        let kept = (each / 10.0) as usize;
        Some(Pool {
            batch,
            kept,
            fraction,
        })
    };
    let with = |change: &dyn Fn(&mut Setup)| {
        let mut setup = plain.clone();
        change(&mut setup);
        setup
    };
    vec![
        ("layers", plain.clone()),
        ("cascades", with(&|s| s.route = Route::Cascade)),
        (
            "layers, general core",
            // Without corrupt mixes it does not matter where they would stand.
            with(&|s| s.placement = Placement::Balanced),
        ),
        (
            "free routes",
            with(&|s| (s.route, s.width) = (Route::Free, 3 * width)),
        ),
        (
            "peer to peer",
            with(&|s| (s.route, s.width) = (Route::Free, in_flight.clamp(3.0, 1e5) as usize)),
        ),
        (
            "three regions, jitter",
            with(&|s| {
                s.links = Some(Links {
                    regions: vec![vec![0.2; 3]; 3],
                    jitter: 0.2,
                    loss: 0.01,
                });
            }),
        ),
        (
            "lines",
            with(&|s| {
                let service = 0.5 / each;
                s.capacity = Some(Capacity {
                    service,
                    queue: 1000,
                });
            }),
        ),
        (
            "threshold pools",
            with(&|s| {
                let batch = each.round().max(1.0);
                s.rate = batch * width as f64;
                s.pool = pool(Some(batch as usize), 1.0);
            }),
        ),
        ("timed pools", with(&|s| s.pool = pool(None, 1.0))),
        ("dynamic pools", with(&|s| s.pool = pool(None, 0.6))),
        (
            "users come and go",
            with(&|s| {
                s.users = Users::OnOff {
                    users: in_flight as u64,
                    online: 100.0,
                    offline: 100.0,
                };
            }),
        ),
        ("loops of mixes", with(&|s| s.loops = 0.1 * each)),
        (
            "dummies on links",
            with(&|s| (s.user_dummies, s.mix_dummies) = (0.5 * rate, 0.5 * each)),
        ),
        ("half watched", with(&|s| s.unwatched = width / 2)),
        (
            "drop, hold, flood",
            with(&|s| {
                (s.corrupt, s.drop, s.hold) = (width.div_ceil(5), 0.01, 1.0);
                s.flood = 0.1 * rate;
            }),
        ),
    ]
}

/// Replications of a network with so many packets in flight that take some seconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are small and positive"
)]
fn replications(setup: &Setup, in_flight: f64) -> u64 {
    if setup.is_plain() {
        Setup::replications((8e6 / in_flight).clamp(16.0, 40_000.0) as u64)
    } else {
        // Each warms up first.
        1 + (1e5 / in_flight) as u64
    }
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
        let setup = layers(f64::from(in_flight));
        let replications = replications(&setup, f64::from(in_flight));
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
fn bench(only: Option<u32>, beginning: &str) -> Result<(), Failure> {
    let sizes = only.map_or(vec![10, 300, 9_000, 100_000, 1_000_000], |only| vec![only]);
    let names = networks(10.0).into_iter().map(|(name, _)| name);
    let names: Vec<&str> = names.filter(|name| name.starts_with(beginning)).collect();
    if names.is_empty() {
        let known = networks(10.0).into_iter().map(|(name, _)| name);
        let known = known.collect::<Vec<_>>().join("; ");
        return Err(usage(anyhow::anyhow!(
            "--network {beginning}: must begin a name of: {known}"
        )));
    }
    println!(
        "{:<22} {:>8} {:>10} {:>7} {:>12} {:>12} {:>10}",
        "network", "core", "in flight", "width", "events/s", "packets/s", "targets/s"
    );
    for in_flight in sizes {
        let all = networks(f64::from(in_flight)).into_iter();
        for (name, setup) in all.filter(|(name, _)| names.contains(name)) {
            let (sections, seconds) = timed(&setup, replications(&setup, in_flight.into()));
            println!(
                "{name:<22} {:>8} {in_flight:>10} {:>7} {:>12.0} {:>12.0} {:>10.1}",
                if setup.is_plain() { "fast" } else { "general" },
                setup.width,
                sum(&sections, |section| section.events) / seconds,
                sum(&sections, |section| section.packets) / seconds,
                sum(&sections, |section| section.targets.len() as u64) / seconds,
            );
        }
    }
    Ok(())
}
