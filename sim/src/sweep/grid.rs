//! Reads a grid file and multiplies it out.
//!
//! Unknown keys are refused, of the grid and of scenarios alike; values are checked by the
//! scenario language itself, so that a plan holds runnable scenarios only, and each only once.

use std::{collections::BTreeMap, ops::Range};

use serde::Deserialize;
use toml::Spanned;

use super::{Plan, RUNS_MAX, Run, figures};
use crate::scenario::{
    Scenario,
    keys::{KEYS, Key, Kind, Value, find},
};

/// What is wrong with a grid file: names the line, the key, the value and what is allowed.
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
    version: Spanned<u64>,
    #[serde(default)]
    title: String,
    base: Spanned<String>,
    seeds: Option<Spanned<Vec<u64>>>,
    x: Option<Spanned<String>>,
    #[serde(default)]
    figures: Vec<Spanned<String>>,
    #[serde(default)]
    grid: BTreeMap<String, Spanned<Vec<Spanned<toml::Value>>>>,
    #[serde(default, rename = "point")]
    points: Vec<BTreeMap<String, Spanned<toml::Value>>>,
}

/// One value of a run, and its line in the grid file.
#[derive(Clone)]
struct Set {
    key: &'static str,
    value: Value,
    line: usize,
}

type Choice = Vec<Set>;

/// The text of a grid file, to say where something stands.
#[derive(Clone, Copy)]
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn of(self, span: &Range<usize>) -> usize {
        1 + self.0[..span.start].matches('\n').count()
    }

    fn fault(self, span: &Range<usize>, message: &str) -> GridError {
        GridError(format!("line {}: {message}", self.of(span)))
    }
}

fn fault(message: impl Into<String>) -> GridError {
    GridError(message.into())
}

pub(super) fn plan(
    text: &str,
    base: impl FnOnce(&str) -> Result<String, String>,
) -> Result<Plan, GridError> {
    let lines = Lines(text);
    let grid: Grid = toml::from_str(text).map_err(|error| {
        let message = error.message().replace('\n', "; ");
        match error.span() {
            Some(span) => lines.fault(&span, &message),
            None => fault(message),
        }
    })?;
    let (version, span) = (grid.version.get_ref(), grid.version.span());
    if *version != 1 {
        return Err(lines.fault(&span, &format!("version = {version}: must be 1")));
    }
    let seeds = seeds(lines, grid.seeds.as_ref())?;
    for figure in &grid.figures {
        figures::known(figure.get_ref()).map_err(|why| lines.fault(&figure.span(), &why))?;
    }
    let name = grid.base.get_ref();
    let scenario = base(name)
        .map_err(|why| lines.fault(&grid.base.span(), &format!("base = {name:?}: {why}")))?;
    let choices = choices(lines, &grid)?;
    let count = choices.len().saturating_mul(seeds.len());
    if count > RUNS_MAX {
        return Err(fault(format!(
            "grid: {count} runs; a sweep has at most {RUNS_MAX}: take fewer values or seeds"
        )));
    }
    let varied = varied(&grid);
    let x = x_axis(lines, &grid, &varied)?;
    let mut scenarios: Vec<Scenario> = Vec::with_capacity(choices.len());
    let mut first: BTreeMap<String, &Choice> = BTreeMap::new();
    for choice in &choices {
        let values = choice.iter().map(|set| (set.key, set.value.clone()));
        let parsed = Scenario::parse_with(&scenario, values).map_err(|error| {
            let place = if error.line.is_some() {
                format!("{name}: ")
            } else {
                String::new()
            };
            fault(format!("{}: {place}{error}", show(choice)))
        })?;
        if let Some(other) = first.insert(parsed.hash(), choice) {
            return Err(fault(format!(
                "{} and {} are one scenario: leave one out, or its runs would be counted twice",
                show(other),
                show(choice)
            )));
        }
        scenarios.push(parsed);
    }
    for figure in &grid.figures {
        figures::measured(figure.get_ref(), &scenarios)
            .map_err(|why| lines.fault(&figure.span(), &why))?;
    }
    let run = |parsed: &Scenario, seed: u64| Run {
        scenario_sha256: parsed.hash(),
        scenario: parsed.canonical.clone(),
        seed,
        values: varied
            .iter()
            .map(|key| value_of(&parsed.canonical, key.name))
            .collect(),
    };
    let runs = scenarios
        .iter()
        .flat_map(|parsed| seeds.iter().map(|seed| run(parsed, *seed)))
        .collect();
    Ok(Plan {
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        title: grid.title,
        x,
        figures: grid.figures.into_iter().map(Spanned::into_inner).collect(),
        varied: varied.iter().map(|key| key.name.to_owned()).collect(),
        runs,
    })
}

fn seeds(lines: Lines<'_>, seeds: Option<&Spanned<Vec<u64>>>) -> Result<Vec<u64>, GridError> {
    let Some(named) = seeds else {
        return Ok(vec![1]);
    };
    let (seeds, span) = (named.get_ref(), named.span());
    if seeds.is_empty() {
        return Err(lines.fault(&span, "seeds = []: must name at least one seed"));
    }
    for (at, seed) in seeds.iter().enumerate() {
        if seeds[..at].contains(seed) {
            let why = "must be different seeds, or a run would be counted twice";
            return Err(lines.fault(&span, &format!("seeds: {seed} is there twice: {why}")));
        }
    }
    Ok(seeds.clone())
}

/// The keys that vary, in the order of the table.
fn varied(grid: &Grid) -> Vec<&'static Key> {
    let named = |name: &str| {
        grid.grid.contains_key(name) || grid.points.iter().any(|point| point.contains_key(name))
    };
    KEYS.iter().filter(|key| named(key.name)).collect()
}

fn is_number(key: &Key) -> bool {
    matches!(key.kind, Kind::Count { .. } | Kind::Real { .. })
}

/// The key of the x axis: the one named, or the first that varies. Only numbers can be drawn.
fn x_axis(lines: Lines<'_>, grid: &Grid, varied: &[&Key]) -> Result<String, GridError> {
    if varied.is_empty() {
        return Err(fault("grid: no key varies; name at least one"));
    }
    let mut fit = varied
        .iter()
        .filter(|key| grid.figures.is_empty() || is_number(key))
        .map(|key| key.name);
    let known = fit.clone().collect::<Vec<_>>().join(", ");
    match &grid.x {
        Some(x) if fit.any(|name| name == x.get_ref()) => Ok(x.get_ref().clone()),
        Some(x) => {
            let what = if known.is_empty() {
                "a number that varies, and none does".to_owned()
            } else {
                format!("one of the keys that vary and hold a number: {known}")
            };
            Err(lines.fault(&x.span(), &format!("x = {:?}: must be {what}", x.get_ref())))
        }
        None => fit.next().map(str::to_owned).ok_or_else(|| {
            fault("grid: no key that varies holds a number, to draw figures over: leave figures out, or vary one")
        }),
    }
}

/// Every combination: the grid's values, then the points, the last key fastest.
fn choices(lines: Lines<'_>, grid: &Grid) -> Result<Vec<Choice>, GridError> {
    let mut choices: Vec<Choice> = vec![Vec::new()];
    for (name, named) in &grid.grid {
        let (values, span) = (named.get_ref(), named.span());
        if values.is_empty() {
            return Err(lines.fault(
                &span,
                &format!("grid.{name} = []: must name at least one value"),
            ));
        }
        let values: Vec<Set> = values
            .iter()
            .map(|value| read(lines, name, value))
            .collect::<Result<_, _>>()?;
        for (at, set) in values.iter().enumerate() {
            if values[..at].iter().any(|before| before.value == set.value) {
                let why = format!(
                    "grid.{name}: {} is there twice: must be different values",
                    set.value
                );
                return Err(lines.fault(&span, &why));
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
    let mut points: Vec<Choice> = Vec::new();
    for point in &grid.points {
        for (name, value) in point {
            if let Some(also) = grid.grid.get(name) {
                let line = lines.of(&also.span());
                let why =
                    format!("{name}: must be in [grid] (line {line}) or in [[point]], not in both");
                return Err(lines.fault(&value.span(), &why));
            }
        }
        let point = point.iter().map(|(name, value)| read(lines, name, value));
        points.push(point.collect::<Result<_, _>>()?);
    }
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
fn read(lines: Lines<'_>, name: &str, value: &Spanned<toml::Value>) -> Result<Set, GridError> {
    let (value, span) = (value.get_ref(), value.span());
    let key = find(name).ok_or_else(|| {
        let nearest = KEYS
            .iter()
            .min_by_key(|key| strsim::osa_distance(key.name, name));
        let nearest = nearest.map_or("", |key| key.name);
        lines.fault(
            &span,
            &format!("unknown key {name}; did you mean {nearest}?"),
        )
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
    let read = read.filter(|value| key.kind.allows(value));
    let read =
        read.ok_or_else(|| lines.fault(&span, &format!("{name} = {value}: must be {}", key.kind)))?;
    Ok(Set {
        key: key.name,
        value: read,
        line: lines.of(&span),
    })
}

/// What a choice sets, and where.
fn show(choice: &Choice) -> String {
    let all: Vec<String> = choice
        .iter()
        .map(|set| format!("{} = {} (line {})", set.key, set.value, set.line))
        .collect();
    if all.is_empty() {
        "a [[point]] that sets nothing".to_owned()
    } else {
        all.join(", ")
    }
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
            ("version = 2\nbase = \"base.toml\"".to_owned(), "line 1: version = 2: must be 1"),
            ("version = 1\nbase = \"x\"".to_owned(), "line 2: base = \"x\": no such file"),
            ("version = 1\nbase = \"base.toml\"".to_owned(), "no key varies"),
            ("version = 1\nbass = \"x\"".to_owned(), "line 2: unknown field `bass`"),
            (format!("{grid}\"network.layer\" = [1]"), "did you mean network.layers?"),
            (
                format!("{grid}\"network.layers\" = [0]"),
                "line 4: network.layers = 0: must be a whole number from 1 to 32",
            ),
            (
                format!("{grid}\"network.layers\" = [\"a\"]"),
                "line 4: network.layers = \"a\": must be a whole number",
            ),
            (format!("{grid}\"network.layers\" = []"), "at least one value"),
            (
                "version = 1\nbase = \"base.toml\"\nseeds = []".to_owned(),
                "line 3: seeds = []: must name at least one",
            ),
            (
                "version = 1\nbase = \"base.toml\"\nseeds = [1, 2, 1]".to_owned(),
                "line 3: seeds: 1 is there twice: must be different seeds",
            ),
            (
                format!("{grid}\"network.layers\" = [2, 3, 2]"),
                "line 4: grid.network.layers: 2 is there twice: must be different values",
            ),
            (
                format!("{grid}\"mix.delay_mean_ms\" = [20, 20.0]"),
                "is there twice",
            ),
            (
                "version = 1\nbase = \"base.toml\"\nfigures = [\"entropy_mean_bit\"]".to_owned(),
                "line 3: figures: no run has a figure entropy_mean_bit; did you mean entropy_mean_bits?",
            ),
            (
                "version = 1\nbase = \"base.toml\"\nx = \"mix.kept\"\n[grid]\n\"network.layers\" = [1]"
                    .to_owned(),
                "x = \"mix.kept\": must be one of the keys that vary and hold a number: network.layers",
            ),
            // What would be counted twice, with both places.
            (
                format!("{grid}[[point]]\n\"mix.queue\" = 2\n[[point]]\n\"mix.queue\" = 2"),
                "mix.queue = 2 (line 5) and mix.queue = 2 (line 7) are one scenario",
            ),
            (
                format!("{grid}[[point]]\n[[point]]\n\"network.layers\" = 3"),
                "a [[point]] that sets nothing and network.layers = 3 (line 6) are one scenario",
            ),
            (
                format!("{grid}\"network.layers\" = [1, 2]\n[[point]]\n\"network.layers\" = 2"),
                "line 6: network.layers: must be in [grid] (line 4) or in [[point]], not in both",
            ),
            // What would not merge.
            (
                "version = 1\nbase = \"base.toml\"\nx = \"mix.strategy\"\nfigures = [\"entropy_mean_bits\"]\n[grid]\n\
                 \"mix.strategy\" = [\"poisson\", \"timed\"]\n\"network.layers\" = [1, 2]"
                    .to_owned(),
                "line 3: x = \"mix.strategy\": must be one of the keys that vary and hold a number: network.layers",
            ),
            (
                "version = 1\nbase = \"base.toml\"\nfigures = [\"entropy_mean_bits\"]\n[grid]\n\
                 \"mix.strategy\" = [\"poisson\", \"timed\"]"
                    .to_owned(),
                "no key that varies holds a number",
            ),
            (
                "version = 1\nbase = \"base.toml\"\nfigures = [\n\"guesswork_mean_packets\"]\n[grid]\n\
                 \"network.layers\" = [1, 2]"
                    .to_owned(),
                "line 4: figures: no run has guesswork_mean_packets: it needs flow.guesswork = true",
            ),
            (
                "version = 1\nbase = \"base.toml\"\nfigures = [\"loop_latency_p50_ms\"]\n[grid]\n\
                 \"network.layers\" = [1, 2]"
                    .to_owned(),
                "line 3: figures: no run has loop_latency_p50_ms: it needs engine = \"packet\"",
            ),
            // Faults that two values have together.
            (
                format!("{grid}\"network.mixes_per_layer\" = [2]\n\"adversary.corrupt_mixes_per_layer\" = [3]"),
                "adversary.corrupt_mixes_per_layer = 3 (line 5), network.mixes_per_layer = 2 (line 4): \
                 adversary.corrupt_mixes_per_layer = 3: must be at most network.mixes_per_layer = 2",
            ),
        ] {
            let error = plan_of(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{error} lacks {says}");
        }
    }
}
