//! `lacuna-sim run`: one scenario, its summary and its report.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use sim::{
    flow::Target,
    outcome::{Outcome, RunError},
    report,
    scenario::{
        Engine, FlowSettings,
        keys::{self, Value},
        regions_fault, trace_fault,
    },
    table::{Cells, Table},
};

use super::{Failure, advance, bar, read, running, usage, with_threads, write};

/// Formats of the file of messages.
const MESSAGES: [&str; 2] = ["csv", "parquet"];

/// What a trace takes the place of.
const USERS: [&str; 4] = [
    "traffic.payload_per_user_per_s",
    "traffic.loop_per_user_per_s",
    "traffic.online_s",
    "traffic.offline_s",
];

/// What `run` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Scenario file (TOML); `lacuna-sim keys` lists its language
    scenario: PathBuf,
    /// Seed of every random number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the results; made if absent
    #[arg(long, required_unless_present = "json")]
    out: Option<PathBuf>,
    /// Engine, in place of the scenario's
    #[arg(long, value_parser = ["flow", "packet"])]
    engine: Option<String>,
    /// File with the times of all packets, in place of the scenario's users: as traffic.trace_s
    #[arg(long)]
    trace: Option<PathBuf>,
    /// File with the delays between regions (CSV), in place of the scenario's: as links.regions_ms
    #[arg(long)]
    regions: Option<PathBuf>,
    /// Threads; 0 for one per core. The results do not depend on it
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Also write each measured message: messages.csv, messages.parquet
    #[arg(long, value_delimiter = ',', value_parser = MESSAGES, requires = "out")]
    messages: Vec<String>,
    /// Print summary.json in place of the table
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// No progress bar and no table
    #[arg(long)]
    quiet: bool,
}

/// Runs it.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        scenario: path,
        seed,
        out,
        engine,
        trace,
        regions,
        threads,
        messages,
        json,
        quiet,
    } = arguments;
    let mut with = Vec::new();
    if let Some(engine) = engine {
        if engine == "flow" {
            leave_out(&mut with, &["network.gateways"]);
        }
        with.push(("engine", Value::Text(engine.into())));
    }
    if let Some(trace) = trace {
        leave_out(&mut with, &USERS);
        with.push(("traffic.pattern", Value::Text("trace".into())));
        with.push(("traffic.trace_s", text(&trace, trace_fault)?));
    }
    if let Some(regions) = regions {
        leave_out(&mut with, &["links.delay_ms"]);
        with.push(("links.regions_ms", text(&regions, regions_fault)?));
    }
    let scenario = read(&path, with)?;
    if scenario.engine == Engine::Packet && !messages.is_empty() {
        let why = "--messages: the packet engine measures no single message; must be left out";
        return Err(usage(anyhow::anyhow!(why)));
    }
    if let Some(out) = &out {
        write::folder(out).map_err(running)?;
    }
    let name = path.display().to_string();
    with_threads(threads, || {
        let bar = bar(quiet);
        let outcome = sim::run(&scenario, seed, &|done| advance(&bar, done));
        bar.finish_and_clear();
        let outcome = outcome.map_err(|error| match error {
            RunError::Usage(_) => usage(anyhow::Error::new(error).context(name.clone())),
            RunError::Failed(_) => running(error),
        })?;
        let summary = report::summary(&scenario, seed, &outcome);
        let summary = serde_json::to_string_pretty(&summary).map_err(running)? + "\n";
        if let Some(out) = &out {
            let page = report::page(&scenario, seed, &outcome);
            let all = || {
                // Those of another run would pass for this one's; its summary comes last.
                for format in MESSAGES {
                    write::remove(&out.join(format!("messages.{format}")))?;
                }
                write_messages(&scenario.flow, &outcome, &messages, out)?;
                write::whole(&out.join("report.html"), page.as_bytes())?;
                write::whole(&out.join("summary.json"), summary.as_bytes())
            };
            all().map_err(running)?;
        }
        show(&outcome, &summary, out.as_deref().filter(|_| !quiet), json);
        all_well(&outcome)
    })
}

/// Puts the defaults in place of what the file says under `names`, which a flag makes idle.
fn leave_out(with: &mut Vec<(&'static str, Value)>, names: &[&str]) {
    let keys = names.iter().filter_map(|name| keys::find(name));
    with.extend(keys.filter_map(|key| Some((key.name, key.default.clone()?))));
}

/// The summary if that is wanted, else the table and where the page is.
#[expect(clippy::print_stdout, reason = "the results of this command")]
fn show(outcome: &Outcome, summary: &str, out: Option<&Path>, json: bool) {
    if json {
        print!("{summary}");
    } else if let Some(out) = out {
        show_figures(outcome);
        println!("\n{}", out.join("report.html").display());
    }
}

/// Fails if `outcome` has failures: says the first, and how many more there are.
pub(crate) fn all_well(outcome: &Outcome) -> Result<(), Failure> {
    match outcome.failures.as_slice() {
        [] => Ok(()),
        [only] => Err(running(anyhow::anyhow!("{only}"))),
        [first, rest @ ..] => {
            let more = rest.len();
            Err(running(anyhow::anyhow!("{first}, and {more} more")))
        }
    }
}

/// A file as the value of a key; what `fault` says of it names the file.
fn text(path: &Path, fault: fn(&str) -> Option<String>) -> Result<Value, Failure> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("reading {}", path.display()))
        .map_err(usage)?;
    match fault(&text) {
        Some(why) => Err(usage(anyhow::anyhow!("{}: {why}", path.display()))),
        None => Ok(Value::Text(text.into())),
    }
}

/// One row for each message that was measured, one column for each figure that the scenario measures.
fn write_messages(
    settings: &FlowSettings,
    outcome: &Outcome,
    formats: &[String],
    out: &Path,
) -> anyhow::Result<()> {
    let real = |pick: fn(&Target) -> f64| Cells::Real(outcome.messages.iter().map(pick).collect());
    let mut table = Table::default()
        .with(
            "message",
            Cells::Count((0..outcome.messages.len() as u64).collect()),
        )
        .with("entropy_bits", real(|one| one.entropy))
        .with("min_entropy_bits", real(|one| one.min_entropy))
        .with("renyi2_bits", real(|one| one.renyi2))
        .with("log_loss_bits", real(|one| one.log_loss));
    if settings.receivers > 0 {
        table = table.with("receiver_entropy_bits", real(|one| one.receiver_entropy));
    }
    if settings.contacts > 0 {
        table = table.with("contact_entropy_bits", real(|one| one.contact_entropy));
    }
    if settings.guesswork {
        table = table.with("guesswork_packets", real(|one| one.guesswork));
    }
    for format in formats {
        let bytes = match format.as_str() {
            "csv" => write::csv(&table)?,
            _ => write::parquet(&table)?,
        };
        write::whole(&out.join(format!("messages.{format}")), &bytes)?;
    }
    Ok(())
}

/// Prints each figure with its error.
#[expect(clippy::print_stdout, reason = "the results of this command")]
pub(crate) fn show_figures(outcome: &Outcome) {
    for figure in &outcome.figures {
        let z = figure.z().filter(|z| z.is_finite());
        let z = z.map_or(String::new(), |z| format!("  z {z:+.2}"));
        let value = report::show_value(&figure.estimate);
        let error = report::short(figure.estimate.standard_error);
        if figure.estimate.trials || figure.estimate.ends.is_some() {
            let (low, high) = figure.interval();
            let [low, high] = [low, high].map(report::short);
            println!("{:<32} {value:>12}, 95 %: {low} to {high}{z}", figure.name);
            continue;
        }
        let error = if figure.estimate.n == 0 || figure.estimate.more {
            String::new() // computed, or unknown
        } else {
            format!("± {error}")
        };
        println!("{:<32} {value:>12} {error:<12}{z}", figure.name);
    }
    // Whether the deployed code did what it is for; the other counts stand in page and summary.
    let messages = outcome.counts.iter();
    for (name, count) in messages.filter(|(name, _)| name.starts_with("messages_")) {
        println!("{name:<32} {count:>12}");
    }
}
