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

use std::collections::BTreeSet;

pub use grid::GridError;
pub use merge::{Merged, merge};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::scenario::hexadecimal;

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

    /// SHA-256 of the scenario and seed of each run, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut all = Sha256::new();
        for run in &self.runs {
            all.update(format!("{} {}\n", run.scenario_sha256, run.seed));
        }
        hexadecimal(&all.finalize())
    }

    /// The lines that the scenarios of all runs have in common.
    #[must_use]
    pub fn common(&self) -> String {
        let Some(first) = self.runs.first() else {
            return String::new();
        };
        // Canonical: the same keys in the same order.
        let mut lines: Vec<Option<&str>> = first.scenario.lines().map(Some).collect();
        for run in &self.runs {
            for (line, other) in lines.iter_mut().zip(run.scenario.lines()) {
                *line = line.filter(|line| *line == other);
            }
        }
        let same = lines.into_iter().flatten();
        same.map(|line| format!("{line}\n")).collect()
    }

    /// What varies, and its values in order of appearance: the keys of the grid and the seeds.
    pub fn told(&self) -> impl Iterator<Item = (&str, String)> {
        let keys = self.varied.iter().enumerate().map(|(at, key)| {
            let values = self.runs.iter().map(move |run| run.values[at].clone());
            (key.as_str(), distinct(values))
        });
        let seeds = self.runs.iter().map(|run| run.seed.to_string());
        keys.chain([("seeds", distinct(seeds))])
    }

    /// Name of the result file of run `number`.
    #[must_use]
    pub fn file(number: usize) -> String {
        format!("{number:06}.json")
    }
}

/// `values`, each once, in order of appearance.
fn distinct(values: impl Iterator<Item = String>) -> String {
    let mut seen = BTreeSet::new();
    let first: Vec<String> = values.filter(|value| seen.insert(value.clone())).collect();
    first.join(", ")
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
