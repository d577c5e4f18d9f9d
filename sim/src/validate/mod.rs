//! Holds the closed forms against published numbers and the engines against the closed forms.
//!
//! A check of a *computed* number passes when it equals the published one to all its digits. A
//! check of a *simulated* number passes when it is within [`Z_MAX`] standard errors of what is
//! expected, the errors of both sides combined. The numbers are those of
//! `docs/SIMULATOR.md`, whose section each check names.
//!
//! A check that cannot fail proves nothing: [`Sabotage`] makes the engine measure wrongly in the
//! two ways of the public simulators, and a test demands that validation then fails.

mod attacks;
mod beyond;
mod exact;
mod loopix;
mod simulated;
mod told;

use crate::flow::Sabotage;

/// Standard errors beyond which a check fails.
pub const Z_MAX: f64 = 4.0;

/// How much to simulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Seconds: the cheapest scenario of each kind, for tests.
    Quick,
    /// A minute or two: every published number.
    Full,
}

/// How far a value may be from what is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Error {
    /// The published number was rounded by at most this.
    Rounding(f64),
    /// Standard error of the difference.
    Standard(f64),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Section of `docs/SIMULATOR.md`, like "3.4".
    pub section: &'static str,
    /// What is compared.
    pub name: String,
    /// What we get.
    pub value: f64,
    /// What it should be.
    pub expected: f64,
    /// How far off it may be.
    pub error: Error,
    /// Whether `expected` bounds the value from above only.
    pub at_most: bool,
}

impl Check {
    /// Difference in standard errors (0 below an upper bound); for computed numbers, in units
    /// of the rounding.
    #[must_use]
    pub fn z(&self) -> f64 {
        let (Error::Rounding(unit) | Error::Standard(unit)) = self.error;
        let difference = self.value - self.expected;
        if difference == 0.0 || (self.at_most && difference < 0.0) {
            0.0
        } else {
            difference / unit
        }
    }

    /// Whether the value is what it should be. Not-a-number never is.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self.error {
            Error::Rounding(_) => self.z().abs() <= 1.0,
            Error::Standard(_) => self.z().abs() <= Z_MAX,
        }
    }
}

/// Every check of `level`, from `seed`, on the threads of rayon's current pool; `progress` is
/// told the fraction done, 0 to 1.
#[must_use]
pub fn run(
    level: Level,
    seed: u64,
    sabotage: Sabotage,
    progress: &(dyn Fn(f64) + Sync),
) -> Vec<Check> {
    let mut checks = exact::checks();
    checks.extend(attacks::checks(level, seed));
    checks.extend(simulated::checks(level, seed, sabotage, progress));
    checks.sort_by_key(|check| {
        let (_, number) = check.section.split_once('.')?;
        number.parse::<u32>().ok()
    });
    checks
}
