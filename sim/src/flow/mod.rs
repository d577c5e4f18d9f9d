//! The flow engine: packets of a few bytes, exact posteriors, millions of users.
//!
//! A [`Setup`] is a scenario without units: time is counted in mean delays (Poisson mixes) or
//! in the time from batch to batch (pools), so that one check covers every scenario of the same
//! shape. [`study`] runs independent replications on all threads of rayon's current pool;
//! [`run`] turns a scenario into an [`Outcome`].
//!
//! | module      | what it holds                                              |
//! |-------------|------------------------------------------------------------|
//! | `poisson`   | networks of Poisson mixes                                  |
//! | `agenda`    | their calendar queue                                       |
//! | `pool`      | networks of threshold and pool mixes                       |
//! | `posterior` | what exits tell of the targets                             |
//! | `section`   | raw observations                                           |
//! | `figures`   | from observations to figures and plots                     |
//!
//! Invariant: sections are a function of (setup, seed, replications); threads only decide
//! when each is computed.

mod agenda;
mod figures;
mod poisson;
mod pool;
mod posterior;
mod section;

use std::sync::atomic::{AtomicU64, Ordering};

use poisson::PoissonNetwork;
pub use poisson::Sabotage;
use pool::PoolNetwork;
pub use posterior::Target;
use posterior::{LANES, RESIDUAL};
use rayon::prelude::*;
pub use section::{Gaps, LATENCY_STEPS, Section};

use crate::{
    outcome::{Outcome, RunError},
    random::Stream,
    scenario::{Scenario, Strategy, Topology, Trigger},
};

/// Most sections in a run: enough for a good standard error, few enough to stay cheap.
const SECTIONS: u64 = 64;

/// A network without units, and what to measure in it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Which mix may follow which.
    pub topology: Topology,
    /// Layers, ≥ 1.
    pub layers: usize,
    /// Mixes per layer, ≥ 1.
    pub width: usize,
    /// Corrupt mixes per layer, ≤ width.
    pub corrupt: usize,
    /// Packets that enter per unit of time, > 0.
    pub rate: f64,
    /// How pools work; `None` for Poisson mixes.
    pub pool: Option<Pool>,
    /// Length of the stationary window, in units of time.
    pub window: f64,
    /// Receivers over which exits are aggregated; 0 for none.
    pub receivers: usize,
    /// Whether to measure guesswork.
    pub guesswork: bool,
    /// Mass that may be left when a target counts as finished.
    pub residual: f64,
    /// A deliberate mistake, for positive controls.
    pub sabotage: Sabotage,
}

/// A mix that sends in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Packets that leave together as soon as there are this many above those kept; `None`:
    /// once per unit of time, all above those kept.
    pub batch: Option<usize>,
    /// Packets that stay, chosen at random.
    pub kept: usize,
}

impl Default for Setup {
    /// One honest Poisson mix with one packet per mean delay.
    fn default() -> Self {
        Self {
            topology: Topology::Stratified,
            layers: 1,
            width: 1,
            corrupt: 0,
            rate: 1.0,
            pool: None,
            window: 8.0,
            receivers: 0,
            guesswork: false,
            residual: RESIDUAL,
            sabotage: Sabotage::None,
        }
    }
}

impl Setup {
    /// The network of `scenario`, and its unit of time in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "layers and batches are small")]
    pub fn of(scenario: &Scenario) -> (Self, f64) {
        let per_s = scenario.traffic.total_per_s();
        let (width, layers) = (scenario.network.mixes_per_layer, scenario.network.layers);
        let (unit_s, pool) = match scenario.strategy {
            Strategy::Poisson { delay_mean_s } => (delay_mean_s, None),
            Strategy::Pool { trigger, kept } => {
                let (unit_s, batch) = match trigger {
                    Trigger::Full { batch } => (batch as f64 * width as f64 / per_s, Some(batch)),
                    Trigger::Every { interval_s } => (interval_s, None),
                };
                (unit_s, Some(Pool { batch, kept }))
            }
        };
        let setup = Self {
            topology: scenario.network.topology,
            layers,
            width,
            corrupt: scenario.corrupt_mixes_per_layer,
            rate: per_s * unit_s,
            pool,
            window: scenario.flow.window_means * layers as f64,
            receivers: scenario.flow.receivers,
            guesswork: scenario.flow.guesswork,
            ..Self::default()
        };
        (setup, unit_s)
    }

    /// The mix after `mix`, which is not of the last layer. In a cascade nothing is drawn.
    #[inline]
    pub(crate) fn next(&self, mix: usize, route: &mut Stream) -> usize {
        match self.topology {
            Topology::Stratified => mix - mix % self.width + self.width + route.index(self.width),
            Topology::Cascade => mix + self.width,
        }
    }

    /// Mean number of packets in a Poisson mix, ρ.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "widths are small")]
    pub fn occupancy(&self) -> f64 {
        self.rate / self.width as f64
    }

    /// Replications that measure at least `targets` messages, in equal sections.
    #[must_use]
    pub fn replications(targets: u64) -> u64 {
        let passes = targets.div_ceil(LANES as u64).max(2);
        passes.next_multiple_of(passes.min(SECTIONS))
    }
}

/// Runs `replications` of `setup` and returns its sections, the same for any number of
/// threads. `progress` is told the fraction done, from 0 to 1, from any thread.
pub fn study(
    setup: &Setup,
    seed: u64,
    replications: u64,
    progress: &(dyn Fn(f64) + Sync),
) -> Vec<Section> {
    let sections = replications.min(SECTIONS);
    let share = replications / sections;
    let done = AtomicU64::new(0);
    #[expect(clippy::cast_precision_loss, reason = "a progress bar")]
    let tell = || {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        progress(done as f64 / (share * sections) as f64);
    };
    (0..sections)
        .into_par_iter()
        .map(|number| {
            let mut section = Section::default();
            let mine = number * share..(number + 1) * share;
            match setup.pool {
                None => {
                    let mut network = PoissonNetwork::new(setup);
                    for replication in mine {
                        network.replicate(seed, replication, &mut section);
                        tell();
                    }
                }
                Some(pool) => {
                    let mut network = PoolNetwork::new(setup, pool);
                    for replication in mine {
                        network.replicate(seed, replication, &mut section);
                        tell();
                    }
                }
            }
            section
        })
        .collect()
}

/// Runs `scenario` from `seed`; `progress` is told the fraction done, from 0 to 1.
///
/// # Errors
///
/// None today: a checked scenario can be run.
pub fn run(
    scenario: &Scenario,
    seed: u64,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<Outcome, RunError> {
    run_with(scenario, seed, Sabotage::None, progress)
}

/// As [`run`], measuring wrongly on purpose if `sabotage` says so.
///
/// # Errors
///
/// None today: a checked scenario can be run.
pub fn run_with(
    scenario: &Scenario,
    seed: u64,
    sabotage: Sabotage,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<Outcome, RunError> {
    let (setup, unit_s) = Setup::of(scenario);
    let setup = Setup { sabotage, ..setup };
    let replications = Setup::replications(scenario.flow.targets);
    let sections = study(&setup, seed, replications, progress);
    let outcome = figures::outcome(scenario, &setup, unit_s, &sections);
    Ok(Outcome {
        messages: sections.into_iter().flat_map(|one| one.targets).collect(),
        ..outcome
    })
}
