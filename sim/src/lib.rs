//! Lacuna's simulator: virtual time, no clock, no randomness but from a seed.
//!
//! Two engines behind one scenario file. The *flow engine* ([`flow`]) moves packets of a few
//! bytes and tracks exactly what an adversary who watches every link can infer: how anonymous,
//! how slow, how costly. The *packet engine* ([`world`]) runs the deployed state machines with
//! real packets: is the code right. Both take a [`Scenario`] and a seed and give an
//! [`Outcome`]; the same bytes for any number of threads.
//!
//! | module      | what it holds                                        |
//! |-------------|------------------------------------------------------|
//! | [`scenario`] | the scenario language                               |
//! | [`outcome`] | figures, plots, failures: what a run found           |
//! | [`flow`]    | the flow engine                                      |
//! | [`world`]   | the packet engine                                    |
//! | [`attacks`] | attacks over many rounds                             |
//! | [`closed`]  | closed forms that the engines are held against       |
//! | [`messages`] | how surely messages arrive, and at what cost         |
//! | [`metrics`] | how anonymous a posterior is                         |
//! | [`stats`]   | estimates with their errors                          |
//! | [`overview`] | several runs on one page                            |
//! | [`compare`] | two runs side by side                                |
//! | [`swarm`]   | random networks under random faults                  |
//! | [`sweep`]   | many runs: planned, sharded, merged                  |
//! | [`plan`]    | the most anonymous parameters within budgets         |
//! | [`capacity`] | what a network for so many users takes              |
//! | [`table`]   | tables of results                                    |
//! | [`random`]  | one random stream per (seed, replication, entity, purpose) |

pub mod attacks;
pub mod capacity;
pub mod closed;
pub mod compare;
pub mod flow;
pub mod messages;
pub mod metrics;
pub mod outcome;
pub mod overview;
pub mod plan;
pub mod plot;
pub mod random;
pub mod report;
pub mod scenario;
pub mod stats;
pub mod swarm;
pub mod sweep;
pub mod table;
pub mod validate;
pub mod world;

use outcome::{Outcome, RunError};
use scenario::{Engine, Scenario};

/// Runs `scenario` from `seed` on its engine; `progress` is told the fraction done, 0 to 1.
///
/// # Errors
///
/// What the engine refuses or fails at.
pub fn run(
    scenario: &Scenario,
    seed: u64,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<Outcome, RunError> {
    match scenario.engine {
        Engine::Flow => flow::run(scenario, seed, progress),
        Engine::Packet => world::run(scenario, seed, progress),
    }
}
