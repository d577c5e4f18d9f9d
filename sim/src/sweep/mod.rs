//! Many runs of one scenario: planned once, run in shards anywhere, merged to the same bytes.
//!
//! | step    | in                    | out                                                    |
//! |---------|-----------------------|--------------------------------------------------------|
//! | plan    | a grid file           | a [`Plan`]: every run with its scenario and seed        |
//! | shard   | plan, index, count    | one result file for each run `i` with `i % count = index` |
//! | merge   | plan, result files    | one table; one page of the figures that can be drawn    |
//!
//! A grid file is TOML:
//!
//! ```toml
//! version = 1
//! title = "Entropy over width"
//! base = "../scenarios/mixim-fig8.toml"   # relative to the grid file
//! seeds = [1, 2]                          # each point is run from each
//! x = "network.mixes_per_layer"           # what the pictures' x axis shows
//! figures = ["entropy_mean_bits"]         # what they show
//! [grid]                                  # every combination of these values …
//! "network.mixes_per_layer" = [10, 20]
//! [[point]]                               # … with each of these sets, if there are any
//! "network.layers" = 2
//! "mix.delay_mean_ms" = 425.0
//! ```
//!
//! No two runs of a plan are the same: they would be joined as independent.
//!
//! Invariants: a plan is a function of grid and base; a run is a function of its scenario and seed,
//! so who runs it, how often, and in which order does not matter. Files are the program's.

mod figures;
mod grid;
mod merge;

pub use grid::GridError;
pub use merge::{Merged, merge};
use serde::{Deserialize, Serialize};

/// Most runs of a plan.
pub const RUNS_MAX: usize = 1_000_000;

/// Everything that is to be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Of the program that made it; another may not run or merge it.
    pub program_version: String,
    /// Heading.
    pub title: String,
    /// Key that the x axis shows.
    pub x: String,
    /// Figures to draw.
    pub figures: Vec<String>,
    /// Keys that vary, in the order of the table of keys.
    pub varied: Vec<String>,
    /// The runs.
    pub runs: Vec<Run>,
}

/// One run of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The scenario, defaults included.
    pub scenario: String,
    /// Its hash.
    pub scenario_sha256: String,
    /// Its seed.
    pub seed: u64,
    /// Values of the varied keys, as text, in their order.
    pub values: Vec<String>,
}

impl Plan {
    /// Plans the sweep of the grid file `text`; `base` reads the scenario that it names.
    ///
    /// # Errors
    ///
    /// The first fault, with the line, the key, the value and what is allowed.
    pub fn new(
        text: &str,
        base: impl FnOnce(&str) -> Result<String, String>,
    ) -> Result<Self, GridError> {
        grid::plan(text, base)
    }

    /// The runs of shard `index` of `count`, with their numbers.
    pub fn shard(&self, index: usize, count: usize) -> impl Iterator<Item = (usize, &Run)> {
        let mine = move |(number, _): &(usize, &Run)| number % count == index;
        self.runs.iter().enumerate().filter(mine)
    }

    /// Name of the result file of run `number`.
    #[must_use]
    pub fn file(number: usize) -> String {
        format!("{number:06}.json")
    }
}

impl Run {
    /// Whether `summary` is this run's result, made by `version` of the program.
    #[must_use]
    pub fn is_result(&self, summary: &serde_json::Value, version: &str) -> bool {
        summary["scenario_sha256"] == self.scenario_sha256.as_str()
            && summary["seed"] == self.seed
            && summary["program_version"] == version
            && summary["figures"].is_object()
    }
}
