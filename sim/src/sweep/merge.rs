//! Joins the results of a plan to one table and its pictures.
//!
//! | column of the table            | what                                          |
//! |--------------------------------|-----------------------------------------------|
//! | `run`, `seed`                  | number in the plan, seed                      |
//! | each varied key                | its value, as text                            |
//! | `figure`                       | name of the figure                            |
//! | `value`, `standard_error`, `low`, `high`, `n` | as in a run's summary          |
//!
//! One row for each figure of each run. In the pictures runs of equal settings are joined: the
//! mean over seeds with the error of the mean, from the runs' own errors.

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
}

/// Joins `results`, one summary for each run of `plan` in its order.
///
/// # Errors
///
/// Which runs failed, or that a figure to draw is in no result.
pub fn merge(plan: &Plan, results: &[Value]) -> Result<Merged, String> {
    let failed: Vec<String> = results
        .iter()
        .enumerate()
        .filter(|(_, result)| {
            result["failures"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        })
        .map(|(number, _)| number.to_string())
        .collect();
    if !failed.is_empty() {
        return Err(format!("runs that failed: {}", failed.join(", ")));
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
    let plots = plan
        .figures
        .iter()
        .map(|name| plot(plan, name, &rows))
        .collect::<Result<_, _>>()?;
    Ok(Merged {
        table: table(plan, &rows),
        plots,
    })
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
        table = table.with(key.clone(), Cells::Text(values.collect()));
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
    runs: f64,
}

fn plot(plan: &Plan, name: &str, rows: &[Row<'_>]) -> Result<Plot, String> {
    let place = plan
        .varied
        .iter()
        .position(|key| *key == plan.x)
        .unwrap_or(0);
    // Keys whose value does change from run to run, but for that of the x axis.
    let told: Vec<usize> = (0..plan.varied.len())
        .filter(|at| {
            *at != place
                && rows
                    .iter()
                    .any(|row| row.values[*at] != rows[0].values[*at])
        })
        .collect();
    // A line for each setting of these keys, a point for each x; both in order of appearance.
    let mut lines: Vec<(String, Vec<Point>)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut label = name.to_owned();
    for row in rows.iter().filter(|row| row.name == name) {
        let others: Vec<String> = told
            .iter()
            .map(|at| (&plan.varied[*at], &row.values[*at]))
            .map(|(key, value)| format!("{} {value}", key.rsplit('.').next().unwrap_or(key)))
            .collect();
        let x: f64 = row.values[place]
            .parse()
            .map_err(|_| format!("x = {:?}: {:?} is no number", plan.x, row.values[place]))?;
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
        points[at].values += row.real("value");
        points[at].squared_errors += row.real("standard_error").powi(2);
        points[at].runs += 1.0;
        row.figure["label"]
            .as_str()
            .unwrap_or(name)
            .clone_into(&mut label);
    }
    if lines.is_empty() {
        return Err(format!("figures: no run has a figure {name}"));
    }
    let (mut series, mut intervals, mut table_rows) = (Vec::new(), Vec::new(), Vec::new());
    for (line, mut points) in lines {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let mut drawn = Vec::new();
        for point in points {
            let (value, error) = (
                point.values / point.runs,
                point.squared_errors.sqrt() / point.runs,
            );
            drawn.push((point.x, value));
            intervals.push((point.x, value - 1.96 * error));
            intervals.push((point.x, value + 1.96 * error));
            table_rows.push(vec![
                line.clone(),
                short(point.x),
                short(value),
                short(error),
            ]);
        }
        let name = if line.is_empty() { label.clone() } else { line };
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
    Ok(Plot {
        title: label,
        caption: "Mean over seeds; whiskers are 95 % intervals from the runs' standard errors."
            .to_owned(),
        x_label: plan.x.clone(),
        y_label: name.to_owned(),
        series,
        table_head: ["line", &plan.x, "value", "standard error"]
            .map(str::to_owned)
            .to_vec(),
        table_rows,
    })
}
