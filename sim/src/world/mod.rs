//! The packet engine: the deployed machines with real Sphinx packets, in virtual time.
//!
//! Not in this build yet: a scenario with `engine = "packet"` is refused as a usage error.

use crate::{
    outcome::{Outcome, RunError},
    scenario::Scenario,
};

/// Runs `scenario` from `seed`; `progress` is told the fraction done, from 0 to 1.
///
/// # Errors
///
/// Always [`RunError::Usage`]: this build has no packet engine.
pub fn run(_scenario: &Scenario, _seed: u64, _progress: &dyn Fn(f64)) -> Result<Outcome, RunError> {
    Err(RunError::Usage(
        "engine = \"packet\" is not in this build; write engine = \"flow\"".to_owned(),
    ))
}
