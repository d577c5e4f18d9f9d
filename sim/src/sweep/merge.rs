//! Joins the results of a plan to one table and its pictures.
//!
//! | column of the table            | what                                          |
//! |--------------------------------|-----------------------------------------------|
//! | `run`, `seed`                  | number in the plan, seed                      |
//! | each varied key, `_` for `.`   | its value, as text                            |
//! | `figure`                       | name of the figure                            |
//! | `value`, `standard_error`, `low`, `high`, `n` | as in a run's summary          |
//!
//! One row for each figure of each run. In the pictures runs of equal settings are joined: the mean over seeds with
//! the error of the mean, from the runs' own errors. A point that lacks the figure in some of its runs is not drawn, but
//! named: those that have it are no fair choice of the seeds. Whiskers are the runs' own 95 % intervals (Student's t or
//! Wilson's), joined below and above the mean: √Σ(value − low)² / runs (MOVER, Zou and Donner 2008); of one run they are
//! the table's `low` and `high`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Plan;
use crate::{
    outcome::{Mark, Plot, Series},
    report::short,
    table::{Cells, Table},
};

/// What a sweep found.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// All figures of all runs.
    pub table: Table,
    /// The figures that the grid names, over its x axis.
    pub plots: Vec<Plot>,
    /// What of them is not drawn, and why.
    pub undrawn: Vec<String>,
}

/// Of many complaints so many are told.
const TOLD: usize = 5;

/// Joins `results`, one summary for each run of `plan` in its order.
///
/// # Errors
///
/// Which runs failed, and why.
pub fn merge(plan: &Plan, results: &[Value]) -> Result<Merged, String> {
    let failed: Vec<String> = results
        .iter()
        .enumerate()
        .filter_map(|(number, result)| Some((number, result["failures"].as_array()?.first()?)))
        .map(|(number, why)| format!("{number} ({})", why.as_str().unwrap_or("no reason")))
        .collect();
    if !failed.is_empty() {
        return Err(format!("runs that failed: {}", first(&failed)));
    }
    let mut rows = Vec::new();
    for (number, (run, result)) in plan.runs.iter().zip(results).enumerate() {
        let figures = result["figures"]
            .as_object()
            .ok_or("a result has no figures")?;
        for (name, figure) in figures {
            rows.push(Row {
                run: number as u64,
                seed: run.seed,
                values: &run.values,
                name,
                figure,
            });
        }
    }
    let (mut plots, mut undrawn) = (Vec::new(), Vec::new());
    for name in &plan.figures {
        match plot(plan, name, &rows) {
            Ok((plot, lacking)) => {
                plots.push(plot);
                undrawn.extend(lacking);
            }
            Err(why) => undrawn.push(why),
        }
    }
    Ok(Merged {
        table: table(plan, &rows),
        plots,
        undrawn,
    })
}

/// The first of `all`, and how many more there are.
fn first(all: &[String]) -> String {
    let some = all[..all.len().min(TOLD)].join("; ");
    match all.len().saturating_sub(TOLD) {
        0 => some,
        more => format!("{some}; and {more} more"),
    }
}

struct Row<'a> {
    run: u64,
    seed: u64,
    values: &'a [String],
    name: &'a str,
    figure: &'a Value,
}

impl Row<'_> {
    fn real(&self, key: &str) -> f64 {
        self.figure[key].as_f64().unwrap_or(f64::NAN)
    }

    fn bound(&self, which: usize) -> f64 {
        self.figure["interval_95"][which]
            .as_f64()
            .unwrap_or(f64::NAN)
    }
}

fn table(plan: &Plan, rows: &[Row<'_>]) -> Table {
    let real = |pick: &dyn Fn(&Row<'_>) -> f64| Cells::Real(rows.iter().map(pick).collect());
    let mut table = Table::default()
        .with(
            "run",
            Cells::Count(rows.iter().map(|row| row.run).collect()),
        )
        .with(
            "seed",
            Cells::Count(rows.iter().map(|row| row.seed).collect()),
        );
    for (place, key) in plan.varied.iter().enumerate() {
        let values = rows.iter().map(|row| row.values[place].clone());
        // In Parquet a dot is a path to many a reader; the CSV file has the same names.
        table = table.with(key.replace('.', "_"), Cells::Text(values.collect()));
    }
    let names = rows.iter().map(|row| row.name.to_owned());
    let counts = rows.iter().map(|row| row.figure["n"].as_u64().unwrap_or(0));
    table
        .with("figure", Cells::Text(names.collect()))
        .with("value", real(&|row| row.real("value")))
        .with("standard_error", real(&|row| row.real("standard_error")))
        .with("low", real(&|row| row.bound(0)))
        .with("high", real(&|row| row.bound(1)))
        .with("n", Cells::Count(counts.collect()))
}

/// Sums of one point of one line.
#[derive(Default)]
struct Point {
    x: f64,
    values: f64,
    squared_errors: f64,
    /// Of the distances from the values down and up to the ends of their intervals.
    squared_ends: [f64; 2],
    /// Runs that have the figure.
    had: u32,
    /// All of them.
    runs: u32,
}

impl Point {
    fn add(&mut self, row: &Row<'_>) {
        self.values += row.real("value");
        self.squared_errors += row.real("standard_error").powi(2);
        for (end, sum) in self.squared_ends.iter_mut().enumerate() {
            *sum += (row.bound(end) - row.real("value")).powi(2);
        }
        self.had += 1;
    }
}

/// The picture of one figure, and which of its points are not drawn.
fn plot(plan: &Plan, name: &str, rows: &[Row<'_>]) -> Result<(Plot, Option<String>), String> {
    let place = plan
        .varied
        .iter()
        .position(|key| *key == plan.x)
        .unwrap_or(0);
    // Keys that tell lines apart: whose value changes from run to run at one x. What the x axis decides does not.
    let decided = |at: usize| {
        let mut found = BTreeMap::new();
        plan.runs.iter().all(|run| {
            let value = &run.values[at];
            found.entry(&run.values[place]).or_insert(value) == &value
        })
    };
    let told: Vec<usize> = (0..plan.varied.len())
        .filter(|at| *at != place && !decided(*at))
        .collect();
    let having: BTreeMap<u64, &Row<'_>> = rows
        .iter()
        .filter(|row| row.name == name)
        .map(|row| (row.run, row))
        .collect();
    let label = having
        .values()
        .next()
        .map_or(name, |row| row.figure["label"].as_str().unwrap_or(name));
    // A line for each setting of these keys, a point for each x; both in order of appearance.
    let mut lines: Vec<(String, Vec<Point>)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for (number, run) in (0..).zip(&plan.runs) {
        let others: Vec<String> = told
            .iter()
            .map(|at| (&plan.varied[*at], &run.values[*at]))
            .map(|(key, value)| format!("{} {value}", key.rsplit('.').next().unwrap_or(key)))
            .collect();
        let x: f64 = run.values[place]
            .parse()
            .map_err(|_| format!("x = {:?}: {:?} is no number", plan.x, run.values[place]))?;
        let line = others.join(", ");
        let at = *known.entry(line.clone()).or_insert(lines.len());
        if at == lines.len() {
            lines.push((line, Vec::new()));
        }
        let points = &mut lines[at].1;
        let at = points
            .iter()
            .position(|point| point.x.total_cmp(&x).is_eq());
        let at = at.unwrap_or_else(|| {
            points.push(Point {
                x,
                ..Point::default()
            });
            points.len() - 1
        });
        points[at].runs += 1;
        if let Some(row) = having.get(&number) {
            points[at].add(row);
        }
    }
    if having.is_empty() {
        return Err(format!("figures: no run has a figure {name}"));
    }
    let (mut series, mut intervals, mut table_rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut lacking = Vec::new();
    for (line, mut points) in lines {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let mut drawn = Vec::new();
        for point in points {
            let seeds = format!("{} of {}", point.had, point.runs);
            if point.had < point.runs {
                let at = format!("{} = {}", plan.x, short(point.x));
                let at = [at, line.clone()].join(", ");
                lacking.push(format!("{} ({seeds} runs)", at.trim_end_matches(", ")));
                let mut row = vec![line.clone(), short(point.x)];
                row.resize(6, "not drawn".to_owned());
                table_rows.push([row, vec![seeds]].concat());
                continue;
            }
            let runs = f64::from(point.runs);
            let (value, error) = (point.values / runs, point.squared_errors.sqrt() / runs);
            drawn.push((point.x, value));
            let [below, above] = point.squared_ends.map(|sum| sum.sqrt() / runs);
            let (low, high) = (value - below, value + above);
            if low.is_finite() && high.is_finite() {
                intervals.extend([(point.x, low), (point.x, high)]);
            }
            let row = [point.x, value, error, low, high].map(short);
            table_rows.push([vec![line.clone()], row.to_vec(), vec![seeds]].concat());
        }
        if drawn.is_empty() {
            continue;
        }
        let name = if line.is_empty() {
            label.to_owned()
        } else {
            line
        };
        series.push(Series {
            name,
            mark: if drawn.len() > 1 {
                Mark::Line
            } else {
                Mark::Dots
            },
            points: drawn,
        });
    }
    series.push(Series {
        name: "95 %".to_owned(),
        mark: Mark::Intervals,
        points: intervals,
    });
    let told = (!lacking.is_empty()).then(|| {
        let some = first(&lacking);
        format!("figures: {name}: points that not all of their runs have, not drawn: {some}")
    });
    let caption = "Mean over seeds; whiskers are 95 % intervals, joined from those of the runs.";
    let undrawn = match lacking.len() {
        0 => String::new(),
        points => {
            format!(" Not drawn: {points} points that lack the figure in some of their runs.")
        }
    };
    let plot = Plot {
        title: label.to_owned(),
        caption: caption.to_owned() + &undrawn,
        x_label: plan.x.clone(),
        y_label: name.to_owned(),
        series,
        table_head: [
            "line",
            &plan.x,
            "value",
            "standard error",
            "low",
            "high",
            "runs",
        ]
        .map(str::to_owned)
        .to_vec(),
        table_rows,
    };
    Ok((plot, told))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GRID: &str = "version = 1\nbase = \"b\"\nseeds = [1, 2]\nfigures = [\"entropy_mean_bits\"]\n\
                        [grid]\n\"network.layers\" = [2, 3]";

    fn plan(grid: &str) -> Plan {
        Plan::new(grid, |_| Ok("version = 1".to_owned())).unwrap()
    }

    fn result(value: f64, [low, high]: [f64; 2]) -> Value {
        let figure = json!({"value": value, "standard_error": 1.0, "interval_95": [low, high], "n": 9, "label": "H"});
        json!({"figures": {"entropy_mean_bits": figure}, "failures": []})
    }

    /// Of one run they are its own interval, whatever its standard error would make of it; of two, whose distances
    /// are 3 and 4 below and 6 and 8 above, half of 5 and 10.
    #[test]
    fn whiskers_are_the_intervals_of_the_table() {
        let whiskers = |plan: &Plan, results: &[Value]| {
            let merged = merge(plan, results).unwrap();
            merged.plots[0].series.last().unwrap().points.clone()
        };
        let single = plan(&GRID.replace("[1, 2]", "[1]"));
        let alone = [result(10.0, [7.0, 16.0]), result(20.0, [16.0, 28.0])];
        assert_eq!(
            whiskers(&single, &alone),
            [(2.0, 7.0), (2.0, 16.0), (3.0, 16.0), (3.0, 28.0)]
        );
        let [a, b] = alone;
        let joined = whiskers(&plan(GRID), &[a.clone(), b.clone(), a, b]);
        assert_eq!(joined, [(2.0, 12.5), (2.0, 20.0), (3.0, 12.5), (3.0, 20.0)]);
    }

    /// Points whose other keys go with x are one line; whose other keys vary at one x are not.
    #[test]
    fn keys_that_x_decides_name_no_line() {
        let points = |delays: [&str; 3]| {
            let point = |(layers, delay): (u32, &str)| {
                format!(
                    "[[point]]\n\"network.layers\" = {layers}\n\"mix.delay_mean_ms\" = {delay}\n"
                )
            };
            let points: String = [2, 3, 3].into_iter().zip(delays).map(point).collect();
            let head = "version = 1\nbase = \"b\"\nseeds = [1]\nx = \"network.layers\"\n\
                        figures = [\"entropy_mean_bits\"]\n";
            plan(&format!("{head}{points}"))
        };
        let lines = |plan: &Plan| {
            let results = vec![result(1.0, [0.0, 2.0]); plan.runs.len()];
            merge(plan, &results).unwrap().plots[0].series.len() - 1
        };
        assert_eq!(lines(&points(["30.0", "20.0", "10.0"])), 3);
        let mut two = points(["30.0", "20.0", "10.0"]);
        two.runs.pop();
        assert_eq!(lines(&two), 1);
    }

    #[test]
    fn runs_that_failed_are_told_with_their_reason() {
        let good = result(1.0, [0.0, 2.0]);
        let mut bad = good.clone();
        bad["failures"] = json!(["calibration failed: by 3 bits", "and more"]);
        let error = merge(&plan(GRID), &[good.clone(), bad, good.clone(), good]).unwrap_err();
        assert_eq!(error, "runs that failed: 1 (calibration failed: by 3 bits)");
    }

    /// The seeds that have a figure are no fair choice of them.
    #[test]
    fn a_point_that_lacks_runs_is_named_and_not_drawn() {
        let good = result(1.0, [0.0, 2.0]);
        let mut lacks = good.clone();
        lacks["figures"] = json!({"other": good["figures"]["entropy_mean_bits"]});
        let merged = merge(&plan(GRID), &[good.clone(), lacks, good.clone(), good]).unwrap();
        assert_eq!(merged.plots[0].series[0].points, [(3.0, 1.0)]);
        assert_eq!(
            merged.undrawn,
            [
                "figures: entropy_mean_bits: points that not all of their runs have, not drawn: \
                 network.layers = 2 (1 of 2 runs)"
            ]
        );
        let rows = &merged.plots[0].table_rows;
        assert_eq!(rows[0][1..3], ["2", "not drawn"]);
        assert_eq!(
            (rows[0][6].as_str(), rows[1][6].as_str()),
            ("1 of 2", "2 of 2")
        );
    }

    #[test]
    fn a_figure_that_no_run_has_leaves_the_table_whole() {
        let results = vec![result(1.0, [0.0, 2.0]); 4];
        let two = GRID.replace("[\"entropy", "[\"latency_p999_ms\", \"entropy");
        let merged = merge(&plan(&two), &results).unwrap();
        assert_eq!((merged.table.rows(), merged.plots.len()), (4, 1));
        assert_eq!(
            merged.undrawn,
            ["figures: no run has a figure latency_p999_ms"]
        );
    }
}
