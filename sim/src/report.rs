//! What a person and a program read of a run: one HTML page, one JSON summary.
//!
//! The page is self-contained: no script, no link, no font; every picture is followed by its
//! exact figures. The summary holds the same numbers under stable names.
//!
//! | key of a figure  | meaning                                            |
//! |------------------|----------------------------------------------------|
//! | `value`          | from all observations                              |
//! | `standard_error` | 0 for what is computed, null where it is unknown    |
//! | `interval_95`    | Student's t; of a share of trials Wilson's; of a quantile by order statistics. Within what the figure can be, null where nothing bounds it |
//! | `n`              | observations                                       |
//! | `expected`       | `{"equals": x}` or `{"at_most": x}`, if theory says |
//! | `lower_bound`, `upper_bound` | true if the adversary is told more than it sees: the figure is at least, or at most, the value |
//! | `z`              | standard errors from `equals`                      |
//! | `more_than`      | in place of value and errors, which are null: some attacks gave up; the estimate if they had ended then |
//!
//! Both are functions of scenario, seed and outcome: no date, no host, no duration.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::{
    outcome::{Expected, Figure, Outcome, Plot},
    plot::{escape, svg},
    scenario::{Engine, Scenario},
    stats::{Estimate, Side},
    sweep::{Merged, Plan},
    table::Cells,
    validate::{Check, Error},
};

/// Commit that this program was built from, "with changes" if that is not all; "unknown" outside a repository.
pub const COMMIT: &str = env!("LACUNA_COMMIT");

/// What made a result: every summary begins with it.
#[must_use]
pub fn provenance() -> Value {
    json!({
        "program": "lacuna-sim",
        "program_version": env!("CARGO_PKG_VERSION"),
        "commit": COMMIT,
    })
}

/// The same in words, for pages.
fn made_by() -> String {
    format!("lacuna-sim {}, commit {COMMIT}", env!("CARGO_PKG_VERSION"))
}

/// `what` after what made it.
fn with_provenance(mut what: Value) -> Value {
    let mut all = provenance();
    if let (Some(all), Some(what)) = (all.as_object_mut(), what.as_object_mut()) {
        all.append(what);
    }
    all
}

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0 .8rem; } .quiet { color: #555; }
figure { margin: 0; } svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: #333; }
svg text.label { font-size: 13px; }
svg .grid { stroke: #e3e3e3; } svg .axis, svg .tick { stroke: #444; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: .5rem 0 1rem; }
th { text-align: left; border-bottom: 2px solid #444; padding: .25rem .6rem; }
td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; }
th + th, td + td { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.many { font-size: .8rem; } .many th, .many td { padding: .25rem .35rem; }
.bad { background: #fde8df; font-weight: 600; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .85rem; }
code { overflow-wrap: anywhere; }
";

/// The summary of a run.
#[must_use]
pub fn summary(scenario: &Scenario, seed: u64, outcome: &Outcome) -> Value {
    with_provenance(json!({
        "engine": engine(scenario),
        "title": scenario.title,
        "scenario_sha256": scenario.hash(),
        "seed": seed,
        "figures": figures_json(outcome),
        "counts": outcome.counts,
        "failures": outcome.failures,
        "trace": outcome.trace,
    }))
}

fn engine(scenario: &Scenario) -> &'static str {
    match scenario.engine {
        Engine::Flow => "flow",
        Engine::Packet => "packet",
    }
}

fn figure_json(figure: &Figure) -> Value {
    let (low, high) = figure.interval();
    let mut value = json!({
        "label": figure.label,
        "value": figure.estimate.value,
        "standard_error": figure.estimate.standard_error,
        "interval_95": [low, high],
        "n": figure.estimate.n,
    });
    match figure.expected {
        Some(Expected::Equals(x)) => value["expected"] = json!({ "equals": x }),
        Some(Expected::AtMost(x)) => value["expected"] = json!({ "at_most": x }),
        None => {}
    }
    if figure.estimate.more {
        value["more_than"] = value["value"].take();
        value["standard_error"] = Value::Null;
        value["interval_95"] = json!([null, null]);
    }
    match figure.estimate.bound {
        Some(Side::AtLeast) => value["lower_bound"] = json!(true),
        Some(Side::AtMost) => value["upper_bound"] = json!(true),
        None => {}
    }
    if let Some(z) = figure.z() {
        value["z"] = json!(z);
    }
    value
}

/// The page of a run.
#[must_use]
pub fn page(scenario: &Scenario, seed: u64, outcome: &Outcome) -> String {
    let title = if scenario.title.is_empty() {
        "Simulation"
    } else {
        &scenario.title
    };
    let of = format!(
        "{} engine, seed {seed}, scenario <code>{}</code>",
        engine(scenario),
        &scenario.hash()[..16],
    );
    let mut body = String::new();
    for failure in &outcome.failures {
        let _ = writeln!(body, "<p class=\"bad\">FAILED: {}</p>", escape(failure));
    }
    for plot in &outcome.plots {
        body.push_str(&picture(plot));
    }
    body.push_str("<h2>All figures</h2>\n");
    body.push_str(&figure_table(outcome));
    body.push_str("<h2>Counts</h2>\n");
    let rows = outcome.counts.iter();
    let rows = rows.map(|(name, n)| vec![name.clone(), n.to_string()]);
    body.push_str(&table(&["count", "value"], rows.map(|row| (row, false))));
    if let Some(trace) = &outcome.trace {
        let _ = writeln!(body, "<p>Trace <code>{}</code></p>", escape(trace));
    }
    let _ = write!(
        body,
        "<h2>Scenario</h2>\n<p class=\"quiet\">Defaults included; SHA-256 of these lines is \
         <code>{}</code>.</p>\n<pre>{}</pre>\n\
         <p class=\"quiet\">Each value is estimated from all replications and its standard error \
         from the spread between equal sections of them. Entropies are those of an adversary who \
         sees every link and knows the corrupt mixes; no attack over many rounds is in them.</p>\n",
        scenario.hash(),
        escape(&scenario.canonical)
    );
    html(title, &of, &body)
}

/// The summary of a study that has no scenario file: `settings` says what it was of.
#[must_use]
pub fn study_summary(title: &str, settings: &str, seed: u64, outcome: &Outcome) -> Value {
    with_provenance(json!({
        "title": title,
        "settings": settings,
        "seed": seed,
        "figures": figures_json(outcome),
    }))
}

/// Its page.
#[must_use]
pub fn study_page(title: &str, settings: &str, seed: u64, outcome: &Outcome) -> String {
    let mut body = String::new();
    for plot in &outcome.plots {
        body.push_str(&picture(plot));
    }
    body.push_str("<h2>All figures</h2>\n");
    body.push_str(&figure_table(outcome));
    let _ = writeln!(body, "<h2>Settings</h2>\n<pre>{}</pre>", escape(settings));
    html(title, &format!("seed {seed}"), &body)
}

fn figures_json(outcome: &Outcome) -> Map<String, Value> {
    let one = |figure: &Figure| (figure.name.clone(), figure_json(figure));
    outcome.figures.iter().map(one).collect()
}

fn figure_table(outcome: &Outcome) -> String {
    let head = [
        "figure",
        "value",
        "standard error",
        "95 % interval",
        "n",
        "theory",
        "z",
    ];
    let rows = outcome.figures.iter().map(figure_row);
    table(&head, rows.map(|row| (row.to_vec(), false)))
}

/// The page of a sweep.
#[must_use]
pub fn sweep_page(plan: &Plan, merged: &Merged) -> String {
    let title = if plan.title.is_empty() {
        "Sweep"
    } else {
        &plan.title
    };
    let hash = plan.hash();
    let of = format!(
        "{} runs, plan <code>{}</code>",
        plan.runs.len(),
        &hash[..16]
    );
    let mut body = String::new();
    for plot in &merged.plots {
        body.push_str(&picture(plot));
    }
    let columns = merged.table.columns();
    let head: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let rows = (0..merged.table.rows()).map(|row| {
        let cell = |(_, cells): &(String, Cells)| match cells {
            Cells::Real(cells) => short(cells[row]),
            Cells::Count(_) | Cells::Text(_) => cells.show(row),
        };
        (columns.iter().map(cell).collect(), false)
    });
    let _ = writeln!(
        body,
        "<details><summary>All figures of all runs</summary>{}</details>",
        table(&head, rows)
    );
    let varied: Vec<String> = plan
        .told()
        .map(|(key, told)| format!("{key}: {told}\n"))
        .collect();
    let _ = write!(
        body,
        "<h2>Scenario</h2>\n<p class=\"quiet\">What all runs have in common, defaults included, and what varies. \
         SHA-256 of the scenario and seed of each run is <code>{hash}</code>.</p>\n<pre>{}</pre>\n<pre>{}</pre>\n",
        escape(&plan.common()),
        escape(&varied.concat()),
    );
    html(title, &of, &body)
}

/// The page of a validation.
#[must_use]
pub fn validation_page(checks: &[Check], seed: u64) -> String {
    let failed = checks.iter().filter(|check| !check.passes()).count();
    let mut body = format!(
        "<p class=\"{}\">{} of {} checks pass.</p>\n\
         <p>Computed numbers must agree to every published digit. Simulated ones must lie within \
         4 standard errors. Sections are those of docs/SIMULATOR.md.</p>\n",
        if failed == 0 { "" } else { "bad" },
        checks.len() - failed,
        checks.len(),
    );
    let head = [
        "check",
        "§",
        "value",
        "expected",
        "standard error",
        "z",
        "verdict",
    ];
    let rows = checks.iter().map(|check| {
        let mut row = check_row(check).to_vec();
        row.swap(0, 1);
        (row, !check.passes())
    });
    body.push_str(&table(&head, rows));
    html("Validation", &format!("seed {seed}"), &body)
}

/// One check as text: section, name, value, expected, standard error, z, verdict.
#[must_use]
pub fn check_row(check: &Check) -> [String; 7] {
    let (error, z) = match check.error {
        Error::Rounding(_) => ("computed".to_owned(), "–".to_owned()),
        Error::Standard(error) => (short(error), format!("{:+.2}", check.z())),
    };
    let bound = if check.at_most { "≤ " } else { "" };
    [
        check.section.to_owned(),
        check.name.clone(),
        short(check.value),
        format!("{bound}{}", short(check.expected)),
        error,
        z,
        if check.passes() { "ok" } else { "FAILED" }.to_owned(),
    ]
}

/// The checks as JSON.
#[must_use]
pub fn validation_json(checks: &[Check], seed: u64) -> Value {
    let rows: Vec<Value> = checks
        .iter()
        .map(|check| {
            let (kind, error) = match check.error {
                Error::Rounding(unit) => ("computed", unit),
                Error::Standard(error) => ("simulated", error),
            };
            json!({
                "section": check.section,
                "check": check.name,
                "kind": kind,
                "value": check.value,
                "expected": check.expected,
                "at_most": check.at_most,
                "standard_error": error,
                "z": check.z(),
                "passes": check.passes(),
            })
        })
        .collect();
    with_provenance(json!({
        "seed": seed,
        "passes": checks.iter().all(Check::passes),
        "checks": rows,
    }))
}

/// Six digits, and an exponent only where it helps.
#[must_use]
pub fn short(x: f64) -> String {
    let size = x.abs();
    if !x.is_finite() {
        "unknown".to_owned()
    } else if size == 0.0 {
        "0".to_owned()
    } else if (1e-4..1e6).contains(&size) {
        let decimals = match size {
            _ if size >= 1e4 => 1,
            _ if size >= 100.0 => 3,
            _ if size >= 1.0 => 5,
            _ => 6,
        };
        let digits = format!("{x:.decimals$}");
        digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    } else {
        format!("{x:.4e}")
    }
}

/// The value, or that it is more than this.
#[must_use]
pub fn show_value(estimate: &Estimate) -> String {
    let more = if estimate.more { "more than " } else { "" };
    format!("{more}{}", short(estimate.value))
}

fn figure_row(figure: &Figure) -> [String; 7] {
    let estimate = &figure.estimate;
    let computed = estimate.sections == 0;
    let (low, high) = figure.interval();
    let unless_computed = |text: String| if computed { "–".to_owned() } else { text };
    let unless_more = |text: String| {
        if estimate.more {
            "–".to_owned()
        } else {
            unless_computed(text)
        }
    };
    [
        with_unit(figure),
        show_value(estimate),
        unless_more(short(estimate.standard_error)),
        unless_more(format!("{} to {}", short(low), short(high))),
        unless_computed(estimate.n.to_string()),
        match figure.expected {
            Some(Expected::Equals(x)) => short(x),
            Some(Expected::AtMost(x)) => format!("≤ {}", short(x)),
            None => "–".to_owned(),
        },
        show_z(figure.z()),
    ]
}

/// A figure's label, with the unit that ends its name.
fn with_unit(figure: &Figure) -> String {
    const UNITS: [(&str, &str); 10] = [
        ("_bytes_per_s", "B/s"),
        ("_packets_per_s", "packets/s"),
        ("_per_s", "1/s"),
        ("_packets2", "packets²"),
        ("_packets", "packets"),
        ("_bytes", "B"),
        ("_bits", "bits"),
        ("_ms", "ms"),
        ("_s", "s"),
        ("_ppm", "ppm"),
    ];
    let label = &figure.label;
    match UNITS
        .iter()
        .find(|(suffix, _)| figure.name.ends_with(suffix))
    {
        Some((_, unit)) if !label.contains(&format!("({unit})")) => format!("{label} ({unit})"),
        _ => label.clone(),
    }
}

/// Standard errors from theory, or a dash where there is none or no error is known.
#[must_use]
pub fn show_z(z: Option<f64>) -> String {
    match z {
        Some(z) if z.is_finite() => format!("{z:+.2}"),
        _ => "–".to_owned(),
    }
}

pub(crate) fn picture(plot: &Plot) -> String {
    let head: Vec<&str> = plot.table_head.iter().map(String::as_str).collect();
    let rows = plot.table_rows.iter().map(|row| (row.clone(), false));
    let figures = if head.is_empty() {
        String::new()
    } else {
        table(&head, rows)
    };
    format!(
        "<h2>{}</h2>\n<p>{}</p>\n<figure>{}</figure>\n{figures}",
        escape(&plot.title),
        escape(&plot.caption),
        svg(plot)
    )
}

/// Columns that a page has room for at full size.
const COLUMNS: usize = 8;

/// A table; rows come with whether they are bad news.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = (Vec<String>, bool)>) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| -> String {
        cells
            .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)))
            .collect()
    };
    let mut out = format!(
        "<div class=\"wide\"><table{}><thead><tr>{}</tr></thead><tbody>\n",
        if head.len() > COLUMNS {
            " class=\"many\""
        } else {
            ""
        },
        cells("th", &mut head.iter().copied())
    );
    for (row, bad) in rows {
        let bad = if bad { " class=\"bad\"" } else { "" };
        let row = cells("td", &mut row.iter().map(String::as_str));
        let _ = writeln!(out, "<tr{bad}>{row}</tr>");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// A page: its title, what made it and what it is `of` (HTML), and the rest (HTML).
pub(crate) fn html(title: &str, of: &str, body: &str) -> String {
    let (title, made_by) = (escape(title), escape(&made_by()));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n\
         <p class=\"quiet\">{made_by}; {of}</p>\n{body}</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_lie_about_their_size() {
        for (x, shown) in [
            (0.0, "0"),
            (13.044_612, "13.04461"),
            (0.035_674, "0.035674"),
            (144.0, "144"),
            (8.738e-9, "8.7380e-9"),
            (123_456_789.0, "1.2346e8"),
            (-0.5, "-0.5"),
            (f64::NAN, "unknown"),
        ] {
            assert_eq!(short(x), shown);
        }
    }

    #[test]
    fn a_rate_is_shown_per_second() {
        for (name, shown) in [
            ("payload_per_s", "λ (1/s)"),
            ("cost_bytes_per_s", "λ (B/s)"),
            ("wait_s", "λ (s)"),
            ("share", "λ"),
        ] {
            let figure = Figure {
                name: name.to_owned(),
                label: "λ".to_owned(),
                estimate: Estimate::exact(1.0),
                expected: None,
            };
            assert_eq!(with_unit(&figure), shown);
        }
    }
}
