//! Several runs on one page: a picture and the exact figures of each.
//!
//! Reads summaries (`summary.json`), so that runs of other machines and versions can stand side by
//! side. Pictures show values with their 95 % intervals; runs that lack a figure are
//! left out of its picture and have a dash in the table. Deliberately no test of differences:
//! [`crate::compare`] does that.

use serde_json::Value;

use crate::{
    outcome::{Mark, Plot, Series},
    report::{html, picture, short, table},
};

/// Figures that get a picture, if any run has them: name, heading, axis.
const SHOWN: [(&str, &str, &str); 5] = [
    ("entropy_mean_bits", "Anonymity, mean", "entropy (bits)"),
    (
        "entropy_p05_bits",
        "Anonymity of the worst twentieth",
        "entropy (bits)",
    ),
    (
        "receiver_entropy_mean_bits",
        "Anonymity over receivers",
        "entropy (bits)",
    ),
    ("latency_p95_ms", "Latency, 95 % within", "latency (ms)"),
    (
        "user_upstream_bytes_per_s",
        "Bytes of a user, upstream",
        "bytes per second",
    ),
];

fn number(figure: &Value, key: &str) -> Option<f64> {
    figure[key].as_f64()
}

/// The page of `runs`: each a name and its summary.
///
/// # Errors
///
/// If one is no summary, by its name.
pub fn page(runs: &[(String, Value)]) -> Result<String, String> {
    let mut names: Vec<&String> = Vec::new();
    for (name, run) in runs {
        let figures = run["figures"].as_object();
        let figures = figures.ok_or_else(|| format!("{name} is no summary of a run"))?;
        names.extend(figures.keys());
    }
    names.sort();
    names.dedup();
    let title = |(name, run): &(String, Value)| {
        let title = run["title"].as_str().filter(|title| !title.is_empty());
        title.unwrap_or(name).to_owned()
    };
    let titles: Vec<String> = runs.iter().map(title).collect();

    let mut body = String::new();
    let head = [
        "run",
        "number",
        "seed",
        "version",
        "commit",
        "scenario",
        "read from",
    ];
    let rows = runs
        .iter()
        .zip(&titles)
        .zip(1_u32..)
        .map(|((run, title), at)| {
            let (name, run) = run;
            let text = |key: &str| run[key].as_str().unwrap_or("–").to_owned();
            let seed = run["seed"]
                .as_u64()
                .map_or("–".to_owned(), |n| n.to_string());
            let row = vec![
                title.clone(),
                at.to_string(),
                seed,
                text("program_version"),
                text("commit"),
                // A study has no scenario file: its settings are all there is.
                run["scenario_sha256"].as_str().map_or_else(
                    || text("settings"),
                    |hash| hash[..hash.len().min(16)].to_owned(),
                ),
                name.clone(),
            ];
            (row, false)
        });
    body.push_str(&table(&head, rows));
    for (figure, heading, axis) in SHOWN {
        if let Some(plot) = plot(runs, &titles, figure, heading, axis) {
            body.push_str(&picture(&plot));
        }
    }
    body.push_str(
        "<h2>All figures</h2>\n<p>Value ± standard error, by the number of the run.</p>\n",
    );
    let numbers: Vec<String> = (1..=runs.len()).map(|at| at.to_string()).collect();
    let head: Vec<&str> = std::iter::once("figure")
        .chain(numbers.iter().map(String::as_str))
        .collect();
    let rows = names.iter().map(|name| {
        let cell = |(_, run): &(String, Value)| {
            let figure = &run["figures"][name.as_str()];
            match (number(figure, "value"), number(figure, "standard_error")) {
                (Some(value), Some(error)) if error > 0.0 => {
                    format!("{} ± {}", short(value), short(error))
                }
                (Some(value), _) => short(value),
                (None, _) => "–".to_owned(),
            }
        };
        let cells = runs.iter().map(cell);
        (
            std::iter::once((*name).clone()).chain(cells).collect(),
            false,
        )
    });
    body.push_str(&table(&head, rows));
    let of = format!("{} runs", runs.len());
    Ok(html("Runs side by side", &of, &body))
}

/// One dot for each run that has `figure`, with its interval.
fn plot(
    runs: &[(String, Value)],
    titles: &[String],
    figure: &str,
    heading: &str,
    axis: &str,
) -> Option<Plot> {
    let (mut series, mut intervals, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (((_, run), title), at) in runs.iter().zip(titles).zip(1_u32..) {
        let found = &run["figures"][figure];
        let Some(value) = number(found, "value") else {
            continue;
        };
        let x = f64::from(at);
        let [low, high] = [0, 1].map(|end| found["interval_95"][end].as_f64().unwrap_or(value));
        intervals.extend([(x, low), (x, high)]);
        series.push(Series {
            name: format!("{at} {title}"),
            mark: Mark::Dots,
            points: vec![(x, value)],
        });
        let interval = format!("{} to {}", short(low), short(high));
        rows.push(vec![format!("{at} {title}"), short(value), interval]);
    }
    if series.is_empty() {
        return None;
    }
    series.push(Series {
        name: "95 %".to_owned(),
        mark: Mark::Intervals,
        points: intervals,
    });
    Some(Plot {
        title: heading.to_owned(),
        caption: format!("{figure} of each run."),
        x_label: "number of the run".to_owned(),
        y_label: axis.to_owned(),
        series,
        table_head: ["run", "value", "95 % interval"]
            .map(str::to_owned)
            .to_vec(),
        table_rows: rows,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn runs_stand_side_by_side_with_their_figures() {
        let run = |title: &str, value: f64| {
            let figure = json!({"value": value, "standard_error": 0.25,
                                "interval_95": [value - 0.5, value + 0.5]});
            json!({"title": title, "seed": 7, "commit": "abc",
                   "figures": {"entropy_mean_bits": figure}})
        };
        let other =
            json!({"title": "", "figures": {"other": {"value": 3.0, "standard_error": 0.0}}});
        let page = page(&[
            ("a".to_owned(), run("A < B", 9.5)),
            ("b".to_owned(), run("B", 12.75)),
            ("c".to_owned(), other),
        ])
        .unwrap();
        assert_eq!(page.matches("<svg").count(), 1);
        assert!(page.contains("A &lt; B") && !page.contains("A < B"));
        for exact in [
            "9.5 ± 0.25",
            "12.75 ± 0.25",
            "9 to 10",
            "<td>3</td>",
            "<td>–</td>",
        ] {
            assert!(page.contains(exact), "{exact}");
        }
        for outside in ["<script", "http://", "https://"] {
            assert!(!page.contains(outside));
        }
        assert_eq!(
            super::page(&[("x".to_owned(), json!({}))]).unwrap_err(),
            "x is no summary of a run"
        );
    }
}
