//! Reads a grid file and multiplies it out.
//!
//! Unknown keys are refused, of the grid and of scenarios alike; values are checked by the
//! scenario language itself, so that a plan holds runnable scenarios only.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Plan, RUNS_MAX, Run};
use crate::outcome::FIGURES;
use crate::scenario::{
    Scenario,
    keys::{KEYS, Kind, Value, find},
};

/// What is wrong with a grid file: names the key, the value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridError(pub String);

impl core::fmt::Display for GridError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for GridError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grid {
    version: u64,
    #[serde(default)]
    title: String,
    base: String,
    #[serde(default = "one_seed")]
    seeds: Vec<u64>,
    x: Option<String>,
    #[serde(default)]
    figures: Vec<String>,
    #[serde(default)]
    grid: BTreeMap<String, Vec<toml::Value>>,
    #[serde(default, rename = "point")]
    points: Vec<BTreeMap<String, toml::Value>>,
}

fn one_seed() -> Vec<u64> {
    vec![1]
}

type Choice = Vec<(&'static str, Value)>;

fn fault(message: impl Into<String>) -> GridError {
    GridError(message.into())
}

pub(super) fn plan(
    text: &str,
    base: impl FnOnce(&str) -> Result<String, String>,
) -> Result<Plan, GridError> {
    let grid: Grid = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(String::new(), |span| {
            format!("line {}: ", 1 + text[..span.start].matches('\n').count())
        });
        fault(format!("{line}{}", error.message().replace('\n', "; ")))
    })?;
    if grid.version != 1 {
        return Err(fault(format!("version = {}: must be 1", grid.version)));
    }
    if grid.seeds.is_empty() {
        return Err(fault("seeds = []: must name at least one seed"));
    }
    for (at, seed) in grid.seeds.iter().enumerate() {
        if grid.seeds[..at].contains(seed) {
            return Err(fault(format!(
                "seeds: {seed} is there twice: must be different seeds, or a run would be counted twice"
            )));
        }
    }
    for figure in &grid.figures {
        if !FIGURES.contains(&figure.as_str()) {
            let distance = |known: &&&str| strsim::osa_distance(known, figure);
            let nearest = FIGURES.iter().min_by_key(distance).unwrap_or(&"");
            return Err(fault(format!(
                "figures: no run has a figure {figure}; did you mean {nearest}?"
            )));
        }
    }
    let scenario =
        base(&grid.base).map_err(|why| fault(format!("base = {:?}: {why}", grid.base)))?;
    let choices = choices(&grid)?;
    let count = choices.len().saturating_mul(grid.seeds.len());
    if count > RUNS_MAX {
        return Err(fault(format!(
            "grid: {count} runs; a sweep has at most {RUNS_MAX}: take fewer values or seeds"
        )));
    }
    let varied = varied(&grid);
    let x = match grid.x {
        Some(x) if varied.contains(&x) => x,
        Some(x) => {
            let known = varied.join(", ");
            return Err(fault(format!(
                "x = {x:?}: must be one of the keys that vary: {known}"
            )));
        }
        None => varied
            .first()
            .cloned()
            .ok_or_else(|| fault("grid: no key varies; name at least one"))?,
    };
    let mut runs = Vec::with_capacity(count);
    for choice in &choices {
        let parsed = Scenario::parse_with(&scenario, choice.iter().cloned())
            .map_err(|error| fault(format!("{}: {error}", show(choice))))?;
        let values: Vec<String> = varied
            .iter()
            .map(|key| value_of(&parsed.canonical, key))
            .collect();
        for seed in &grid.seeds {
            runs.push(Run {
                scenario_sha256: parsed.hash(),
                scenario: parsed.canonical.clone(),
                seed: *seed,
                values: values.clone(),
            });
        }
    }
    Ok(Plan {
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        title: grid.title,
        x,
        figures: grid.figures,
        varied,
        runs,
    })
}

/// The keys that vary, in the order of the table.
fn varied(grid: &Grid) -> Vec<String> {
    let named = |name: &str| {
        grid.grid.contains_key(name) || grid.points.iter().any(|point| point.contains_key(name))
    };
    let names = KEYS.iter().map(|key| key.name).filter(|name| named(name));
    names.map(str::to_owned).collect()
}

/// Every combination: the grid's values, then the points, the last key fastest.
fn choices(grid: &Grid) -> Result<Vec<Choice>, GridError> {
    let mut choices: Vec<Choice> = vec![Vec::new()];
    for (name, values) in &grid.grid {
        if values.is_empty() {
            return Err(fault(format!(
                "grid.{name} = []: must name at least one value"
            )));
        }
        let values: Vec<_> = values
            .iter()
            .map(|value| read(name, value))
            .collect::<Result<_, _>>()?;
        for (at, value) in values.iter().enumerate() {
            if values[..at].contains(value) {
                return Err(fault(format!(
                    "grid.{name}: {} is there twice: must be different values",
                    value.1
                )));
            }
        }
        choices = multiply(
            &choices,
            &values.into_iter().map(|one| vec![one]).collect::<Vec<_>>(),
        );
        if choices.len() > RUNS_MAX {
            return Err(fault(format!(
                "grid: more than {RUNS_MAX} runs; take fewer values"
            )));
        }
    }
    if grid.points.is_empty() {
        return Ok(choices);
    }
    let points: Vec<Choice> = grid
        .points
        .iter()
        .map(|point| {
            point
                .iter()
                .map(|(name, value)| read(name, value))
                .collect()
        })
        .collect::<Result<_, _>>()?;
    Ok(multiply(&choices, &points))
}

fn multiply(choices: &[Choice], more: &[Choice]) -> Vec<Choice> {
    choices
        .iter()
        .flat_map(|choice| {
            more.iter()
                .map(|one| [choice.clone(), one.clone()].concat())
        })
        .collect()
}

/// A value as the table of keys wants it.
fn read(name: &str, value: &toml::Value) -> Result<(&'static str, Value), GridError> {
    let key = find(name).ok_or_else(|| {
        let nearest = KEYS
            .iter()
            .min_by_key(|key| strsim::osa_distance(key.name, name));
        let nearest = nearest.map_or("", |key| key.name);
        fault(format!("unknown key {name}; did you mean {nearest}?"))
    })?;
    let read = match (key.kind, value) {
        (Kind::Count { .. }, toml::Value::Integer(n)) => u64::try_from(*n).ok().map(Value::Count),
        (Kind::Real { .. }, toml::Value::Float(x)) => Some(Value::Real(*x)),
        #[expect(clippy::cast_precision_loss, reason = "as TOML's own numbers")]
        (Kind::Real { .. }, toml::Value::Integer(n)) => Some(Value::Real(*n as f64)),
        (Kind::Flag, toml::Value::Boolean(flag)) => Some(Value::Flag(*flag)),
        (Kind::Choice(_) | Kind::Text, toml::Value::String(text)) => {
            Some(Value::Text(text.clone().into()))
        }
        _ => None,
    };
    let read = read.ok_or_else(|| fault(format!("{name} = {value}: must be {}", key.kind)))?;
    Ok((key.name, read))
}

fn show(choice: &Choice) -> String {
    let all: Vec<String> = choice
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    all.join(", ")
}

/// The text of `key` in a canonical scenario.
fn value_of(canonical: &str, key: &str) -> String {
    let line = canonical
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "version = 1\n";

    fn plan_of(text: &str) -> Result<Plan, GridError> {
        plan(text, |name| match name {
            "base.toml" => Ok(BASE.to_owned()),
            _ => Err("no such file".to_owned()),
        })
    }

    #[test]
    fn a_grid_is_multiplied_out() {
        let plan = plan_of(
            "version = 1\nbase = \"base.toml\"\nseeds = [1, 2, 3]\n\
             [grid]\n\"mix.delay_mean_ms\" = [10, 20.5]\n\
             [[point]]\n\"network.layers\" = 2\n[[point]]\n\"network.layers\" = 4",
        )
        .unwrap();
        assert_eq!(plan.runs.len(), 2 * 2 * 3);
        assert_eq!(plan.varied, ["network.layers", "mix.delay_mean_ms"]);
        assert_eq!(plan.x, "network.layers");
        assert_eq!(plan.runs[11].values, ["4", "20.5"]);
        assert_eq!(plan.runs[11].seed, 3);
        let all: Vec<usize> = (0..5)
            .flat_map(|index| plan.shard(index, 5).map(|(number, _)| number))
            .collect();
        assert_eq!(all.len(), 12);
        assert!((0..12).all(|number| all.contains(&number)));
        for run in &plan.runs {
            assert_eq!(
                Scenario::parse(&run.scenario).unwrap().hash(),
                run.scenario_sha256
            );
        }
    }

    #[test]
    fn faults_name_the_key_the_value_and_what_is_allowed() {
        let grid = "version = 1\nbase = \"base.toml\"\n[grid]\n";
        for (text, says) in [
            ("version = 2\nbase = \"base.toml\"".to_owned(), "version = 2: must be 1"),
            ("version = 1\nbase = \"x\"".to_owned(), "base = \"x\": no such file"),
            ("version = 1\nbase = \"base.toml\"".to_owned(), "no key varies"),
            ("version = 1\nbass = \"x\"".to_owned(), "line 2: unknown field `bass`"),
            (format!("{grid}\"network.layer\" = [1]"), "did you mean network.layers?"),
            (
                format!("{grid}\"network.layers\" = [0]"),
                "network.layers = 0: must be a whole number from 1 to 32",
            ),
            (
                format!("{grid}\"network.layers\" = [\"a\"]"),
                "network.layers = \"a\": must be a whole number",
            ),
            (format!("{grid}\"network.layers\" = []"), "at least one value"),
            (
                "version = 1\nbase = \"base.toml\"\nseeds = []".to_owned(),
                "seeds = []: must name at least one",
            ),
            (
                "version = 1\nbase = \"base.toml\"\nseeds = [1, 2, 1]".to_owned(),
                "seeds: 1 is there twice: must be different seeds",
            ),
            (
                format!("{grid}\"network.layers\" = [2, 3, 2]"),
                "grid.network.layers: 2 is there twice: must be different values",
            ),
            (
                format!("{grid}\"mix.delay_mean_ms\" = [20, 20.0]"),
                "is there twice",
            ),
            (
                "version = 1\nbase = \"base.toml\"\nfigures = [\"entropy_mean_bit\"]".to_owned(),
                "figures: no run has a figure entropy_mean_bit; did you mean entropy_mean_bits?",
            ),
            (
                "version = 1\nbase = \"base.toml\"\nx = \"mix.kept\"\n[grid]\n\"network.layers\" = [1]"
                    .to_owned(),
                "x = \"mix.kept\": must be one of the keys that vary: network.layers",
            ),
        ] {
            let error = plan_of(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{error} lacks {says}");
        }
    }
}
