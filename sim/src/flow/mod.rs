//! The flow engine: packets of a few bytes, exact posteriors, millions of users.
//!
//! A [`Setup`] is a scenario without units: time is counted in mean delays (Poisson mixes) or
//! in the time from batch to batch (pools), so that one check covers every scenario of the same
//! shape. [`study`] runs independent replications on all threads of rayon's current pool;
//! [`run`] turns a scenario into an [`Outcome`].
//!
//! | module      | what it holds                                              |
//! |-------------|------------------------------------------------------------|
//! | `setup`     | the network, without units                                 |
//! | `needs`     | what it needs of time to settle and of room                |
//! | `poisson`   | networks of Poisson mixes with nothing else: the fast case |
//! | `agenda`    | their calendar queue                                       |
//! | `network`   | everything else                                            |
//! | `pool`      | its mixes                                                  |
//! | `source`    | when packets enter                                         |
//! | `contacts`  | whom packets are for                                       |
//! | `games`     | unlinkability of two pairs, ε of Loopix                    |
//! | `posterior` | what exits tell of the targets                             |
//! | `section`   | raw observations                                           |
//! | `figures`   | from observations to figures and plots                     |
//!
//! Invariant: sections are a function of (setup, seed, replications); threads only decide
//! when each is computed.

mod agenda;
mod contacts;
mod figures;
mod games;
mod needs;
mod network;
mod poisson;
mod pool;
mod posterior;
mod section;
mod setup;
mod source;

use std::sync::atomic::{AtomicU64, Ordering};

pub use needs::{Away, InFlight, LOAD_MAX};
use network::Network;
use poisson::PoissonNetwork;
pub use poisson::Sabotage;
pub use posterior::Target;
use rayon::prelude::*;
pub use section::{Gaps, LATENCY_STEPS, Section};
pub(crate) use section::{ratio, variance};
pub use setup::{Capacity, Links, Pool, Route, Setup, Users};

use crate::{
    outcome::{Outcome, RunError},
    scenario::Scenario,
};

/// Most sections in a run: enough for a good standard error, few enough to stay cheap.
const SECTIONS: u64 = 64;

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
            if setup.is_plain() {
                let mut network = PoissonNetwork::new(setup);
                for replication in mine {
                    network.replicate(seed, replication, &mut section);
                    tell();
                }
            } else {
                let mut network = Network::new(setup);
                for replication in mine {
                    network.replicate(seed, replication, &mut section);
                    tell();
                }
            }
            let games = setup.games.div_ceil(games::GAMES).div_ceil(sections);
            if games::playable(setup) {
                for game in number * games..(number + 1) * games {
                    games::replicate(setup, seed, game, &mut section);
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
