//! Many small networks with random options and faults: what one scenario would never meet.
//!
//! Each seed draws a network, its traffic and its faults ([`scenario`]), and runs it on the packet
//! engine. Safety holds always: nothing delivered that nobody sent, nothing changed, nothing twice,
//! no captured packet forwarded again. Progress is demanded once faults have stopped: every
//! message delivered and acknowledged. A seed that fails is one line, and runs again by its number.
//!
//! | option               | drawn from                                     |
//! |----------------------|------------------------------------------------|
//! | mixes per layer      | 1 to 4 (three layers, as deployed)              |
//! | gateways, clients    | 2 to 4, 2 to 12                                 |
//! | delay per mix, links | 1 to 200 ms, 0 to 100 ms                        |
//! | slots, loops         | 0.5 to 4 and 0.05 to 1 a second                 |
//! | messages             | 0 to 4 a client, of 1 to 20 000 bytes           |
//! | loss                 | none, or up to 8 %                              |
//! | restarts, replays    | none, or up to 12 and 200                       |
//! | jitter, slow disks   | none, or up to 500 ms each                      |
//! | clocks               | right, or apart by up to the skew allowed        |
//! | partitions, bursts   | none, or up to 3 and 6                          |
//! | epochs               | three hours, or short with an edge in the run    |
//!
//! Swarm testing (Groce et al. 2012): leaving whole kinds of fault out finds what their presence hides.

use rayon::prelude::*;

use crate::{
    outcome::RunError,
    random::{Purpose, Stream},
    scenario::{Scenario, ScenarioError, keys::Value},
    world::{self, Sabotage},
};

/// What became of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The seed.
    pub seed: u64,
    /// Hash of everything that happened.
    pub trace: String,
    /// What went wrong; empty when all is well.
    pub failures: Vec<String>,
    /// Messages that were to be delivered.
    pub messages: u64,
    /// Packets that crossed links between nodes, and were lost, replayed.
    pub faults: u64,
}

/// The network of `seed`.
///
/// # Errors
///
/// None: whatever is drawn is allowed. (A scenario that is refused would be our own bug.)
pub fn scenario(seed: u64) -> Result<Scenario, ScenarioError> {
    let mut draw = Stream::new(seed, 0, 0, Purpose::Swarm);
    let mut count = |low: u64, high: u64| {
        let span = usize::try_from(high - low + 1).expect("small spans");
        low + draw.index(span) as u64
    };
    let network = [
        ("network.mixes_per_layer", count(1, 4)),
        ("network.gateways", count(2, 4)),
        ("traffic.users", count(2, 12)),
        ("packet.messages_per_user", count(0, 4)),
        ("packet.message_bytes", count(1, 20_000)),
        ("packet.loss_ppm", count(0, 1) * count(0, 80_000)),
        ("packet.restarts", count(0, 1) * count(1, 12)),
        ("packet.replays", count(0, 1) * count(1, 200)),
    ];
    let mut real = |low: f64, high: f64| low + (high - low) * draw.uniform();
    let delay_mean_ms = real(1.0, 200.0);
    let rates = [
        ("mix.delay_mean_ms", delay_mean_ms.round()), // documents know whole ones
        ("links.delay_ms", real(0.0, 100.0)),
        ("traffic.payload_per_user_per_s", real(0.5, 4.0)),
        ("traffic.loop_per_user_per_s", real(0.05, 1.0)),
        ("packet.duration_s", real(5.0, 40.0)),
    ];
    // The shortest epoch that leaves room for a switch of keys (DIR-2), and up to a minute more.
    let mut some = |low: f64, high: f64| {
        f64::from(u8::from(draw.coin(0.5))) * (low + (high - low) * draw.uniform())
    };
    let shortest = (8.0 * (0.0829 * delay_mean_ms + 5.0)).ceil().max(90.0) + 1.0;
    let short = some(shortest, shortest + 60.0).floor();
    let epoch_s = if short > 0.0 { short } else { 10_800.0 };
    let more = [
        ("packet.jitter_ms", some(1.0, 500.0)),
        ("packet.store_lag_ms", some(1.0, 500.0)),
        (
            "packet.clock_skew_ms",
            some(0.2, 1.0) * (epoch_s / 16.0).min(300.0) * 1e3,
        ),
    ];
    let [partitions, bursts] = [some(1.0, 4.0), some(1.0, 7.0)];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and positive"
    )]
    let counts = [
        ("packet.partitions", partitions as u64),
        ("packet.loss_bursts", bursts as u64),
        ("packet.epoch_s", epoch_s as u64),
    ];
    let network = network.into_iter().chain(counts);
    let network = network.map(|(key, n)| (key, Value::Count(n)));
    let rates = rates.into_iter().chain(more);
    let rates = rates.map(|(key, x)| (key, Value::Real(x)));
    let packet = ("engine", Value::Text("packet".into()));
    Scenario::parse_with(
        "version = 1\n",
        core::iter::once(packet).chain(network).chain(rates),
    )
}

/// Runs `seed`.
///
/// # Errors
///
/// As [`world::run`].
pub fn run(seed: u64, sabotage: Sabotage) -> Result<Fate, RunError> {
    let scenario = scenario(seed).map_err(|error| RunError::Failed(error.to_string()))?;
    let outcome = world::run_with(&scenario, seed, sabotage, &|_| ())?;
    let count = |name: &str| outcome.counts.get(name).copied().unwrap_or(0);
    Ok(Fate {
        seed,
        trace: outcome.trace.clone().unwrap_or_default(),
        messages: count("messages_said"),
        faults: [
            "Crash",
            "LostOnLink",
            "LostInBurst",
            "LostToPartition",
            "ReplaySent",
        ]
        .map(count)
        .iter()
        .sum(),
        failures: outcome.failures,
    })
}

/// Runs `seeds` on the threads of rayon's current pool; `told` hears of each as it ends. Results are
/// in the order of the seeds.
///
/// # Errors
///
/// The first in that order.
pub fn runs(
    seeds: core::ops::Range<u64>,
    told: &(dyn Fn(&Fate) + Sync),
) -> Result<Vec<Fate>, RunError> {
    seeds
        .into_par_iter()
        .map(|seed| {
            let fate = run(seed, Sabotage::None)?;
            told(&fate);
            Ok(fate)
        })
        .collect()
}
