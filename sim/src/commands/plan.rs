//! `lacuna-sim plan`: the most anonymous parameters within budgets.

use std::path::PathBuf;

use proto::directory::Params;
use serde_json::json;
use sim::{
    outcome::RunError,
    plan::{self, Budgets, Given, HEAD, defaults},
    report,
};

use super::{Failure, advance, bar, running, usage, with_threads, write};

/// What `plan` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// 95 % of one-packet messages take at most so long: 500ms, 2s, 1min
    #[arg(long, value_parser = seconds, allow_hyphen_values = true, required_unless_present = "defaults")]
    latency_p95: Option<f64>,
    /// Bytes of one user's links in a day, both directions: 500kB, 200MB, 1.5GB
    #[arg(long, value_parser = bytes, allow_hyphen_values = true, required_unless_present = "defaults")]
    bytes_per_day: Option<f64>,
    /// Users online, at least 2: one has nobody to be taken for
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=1_000_000_000))]
    users: u64,
    /// In place of a plan: how far the network's default profiles are from the front
    #[arg(long, conflicts_with_all = ["latency_p95", "bytes_per_day", "corrupt", "links", "delay", "loops", "inbound"])]
    defaults: bool,
    /// Share of mixes that are corrupt, from 0 to 0.9
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    corrupt: f64,
    /// What all links of a way take together, added to the latency: 120ms
    #[arg(long, value_parser = seconds_or_none, allow_hyphen_values = true)]
    links: Option<f64>,
    /// Mean delay of each mix, not to be searched: a network has one for all profiles. 50ms
    #[arg(long, value_parser = milliseconds)]
    delay: Option<u32>,
    /// Loops per second of a user, not to be searched
    #[arg(long, value_parser = rate)]
    loops: Option<f64>,
    /// Packets that a user is sent for each payload slot that it has, from 0 to 10
    #[arg(long, default_value_t = Given::NOTHING.inbound, value_parser = inbound)]
    inbound: f64,
    /// Seed of every random number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for params.toml, summary.json and report.html (or defaults.json); made if absent
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print JSON in place of the table
    #[arg(long)]
    json: bool,
    /// Threads; 0 for one per core. The results do not depend on it
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// No progress bar and no table
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
}

/// A number with one of `units`, in the unit of factor 1: above 0, or 0 if that `may_be_0`.
fn with_unit(
    text: &str,
    units: &[(&str, f64)],
    may_be_0: bool,
    example: &str,
) -> Result<f64, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(at.unwrap_or(text.len()));
    let factor = units.iter().find(|(name, _)| *name == unit);
    let number = number.trim().parse::<f64>().ok();
    let value = factor
        .zip(number)
        .map(|((_, factor), number)| number * factor);
    value
        .filter(|value| value.is_finite() && (*value > 0.0 || may_be_0 && *value == 0.0))
        .ok_or_else(|| {
            let least = if may_be_0 { "from 0" } else { "above 0" };
            let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
            format!(
                "must be a number {least} with a unit ({}), as in {example}",
                names.join(", ")
            )
        })
}

const SECONDS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0)];

fn seconds(text: &str) -> Result<f64, String> {
    with_unit(text, &SECONDS, false, "2s")
}

/// What links take may be nothing.
pub(crate) fn seconds_or_none(text: &str) -> Result<f64, String> {
    with_unit(text, &SECONDS, true, "120ms")
}

fn milliseconds(text: &str) -> Result<u32, String> {
    let ms = seconds(text)? * 1e3;
    let whole = (1..=plan::DELAY_MAX_MS).find(|whole| (f64::from(*whole) - ms).abs() < 1e-6);
    let most = plan::DELAY_MAX_MS;
    whole.ok_or_else(|| format!("must be whole milliseconds, 1ms to {most}ms, as in 50ms"))
}

/// A number from `least` to `most`.
fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let value = text.parse::<f64>().ok();
    let value = value.filter(|value| (least..=most).contains(value));
    value.ok_or_else(|| format!("must be a number from {least} to {most}"))
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 1e-6, 1000.0)
}

fn inbound(text: &str) -> Result<f64, String> {
    number(text, 0.0, 10.0)
}

fn bytes(text: &str) -> Result<f64, String> {
    let units = [("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)];
    with_unit(text, &units, false, "200MB")
}

pub(crate) fn share(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok();
    value
        .filter(|share| (0.0..=0.9).contains(share))
        .ok_or_else(|| "must be from 0 to 0.9, as in 0.2".to_owned())
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(out) = &arguments.out {
        write::folder(out).map_err(running)?;
    }
    let (Some(latency_p95_s), Some(bytes_per_day)) =
        (arguments.latency_p95, arguments.bytes_per_day)
    else {
        return stand(arguments);
    };
    let budgets = Budgets {
        latency_p95_s,
        bytes_per_day,
        users: arguments.users,
        corrupt: arguments.corrupt,
        links_s: arguments.links.unwrap_or(0.0),
        given: Given {
            delay_mean_ms: arguments.delay,
            loops_per_s: arguments.loops,
            inbound: arguments.inbound,
        },
    };
    with_threads(arguments.threads, || found(arguments, &budgets))
}

/// Where the default profiles stand: all computed, so that nothing but a table is written.
#[expect(clippy::print_stdout, reason = "the results of this command")]
fn stand(arguments: &Arguments) -> Result<(), Failure> {
    let rows = defaults::rows(&defaults::standings(&Params::default(), arguments.users));
    let mut found = report::provenance();
    found["settings"] = json!(format!(
        "lacuna-sim plan --defaults --users {}",
        arguments.users
    ));
    found["head"] = json!(defaults::HEAD);
    found["rows"] = json!(rows);
    let found = serde_json::to_string_pretty(&found).map_err(running)? + "\n";
    if let Some(out) = &arguments.out {
        write::whole(&out.join("defaults.json"), found.as_bytes()).map_err(running)?;
    }
    if arguments.json {
        print!("{found}");
    } else if !arguments.quiet {
        println!(
            "{}",
            defaults::HEAD.map(|head| format!("{head:>20}")).concat()
        );
        for row in rows {
            let cells: String = row.iter().map(|cell| format!("{cell:>20}")).collect();
            println!("{cells}");
        }
    }
    Ok(())
}

/// What who takes the file as it is would not notice.
const PLANNED_ALONE: &str = "\
This file has one profile, `planned`: put in force as it is, it drops all others of the network, and
delay_mean_ms is that of all profiles. To add it to the network's own:
lacuna-authority params > params.toml, and append the [[profiles]] below.";

#[expect(clippy::print_stdout, reason = "the results of this command")]
fn found(arguments: &Arguments, budgets: &Budgets) -> Result<(), Failure> {
    let seed = arguments.seed;
    let bar = bar(arguments.quiet);
    let plan = plan::plan(budgets, seed, &|done| advance(&bar, done));
    bar.finish_and_clear();
    let plan = plan.map_err(|why| match why {
        RunError::Usage(_) => usage(why),
        RunError::Failed(_) => running(why),
    })?;
    let settings = budgets.command(seed);
    let (outcome, rows) = (plan.outcome(), plan.rows());
    let (claim, layers) = (plan.claim_note(), plan.layers_note());
    let title = "Plan";
    let mut summary = report::study_summary(title, &settings, seed, &outcome);
    summary["front"] = json!({ "head": HEAD, "rows": rows, "chosen": plan.chosen, "claim": claim, "layers": layers });
    let summary = serde_json::to_string_pretty(&summary).map_err(running)? + "\n";
    let params = plan.finalists[plan.chosen].point.candidate.params();
    let notes = format!("From: {settings}\n{claim}\n{PLANNED_ALONE}");
    let params = plan::params_toml(&params, &notes).map_err(running)?;
    if let Some(out) = &arguments.out {
        let page = report::study_page(title, &settings, seed, &outcome);
        for (name, text) in [
            ("params.toml", &params),
            ("summary.json", &summary),
            ("report.html", &page),
        ] {
            write::whole(&out.join(name), text.as_bytes()).map_err(running)?;
        }
    }
    if arguments.json {
        print!("{summary}");
    } else if !arguments.quiet {
        let head = HEAD.map(str::to_owned).to_vec();
        let of = |column: usize| {
            rows.iter()
                .chain([&head])
                .map(move |row| row[column].chars().count())
        };
        let widths: Vec<usize> = (0..HEAD.len())
            .map(|at| of(at).max().unwrap_or(0))
            .collect();
        let line = |row: &Vec<String>| -> String {
            let cells = row.iter().zip(&widths);
            cells
                .map(|(cell, width)| format!("{cell:>width$}   "))
                .collect()
        };
        println!("{}", line(&head).trim_end());
        for (at, row) in rows.iter().enumerate() {
            let mark = if at == plan.chosen { "chosen" } else { "" };
            println!("{}", format!("{}{mark}", line(row)).trim_end());
        }
        println!("\nchosen: {claim}\n{layers}\n\n{params}");
    }
    Ok(())
}
