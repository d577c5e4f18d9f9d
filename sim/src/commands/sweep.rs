//! `lacuna-sim sweep`: plan, shard, merge.
//!
//! | file in the folder  | written by | what                                             |
//! |---------------------|------------|--------------------------------------------------|
//! | `plan.json`         | plan       | every run                                        |
//! | `runs/000000.json`  | shard      | the summary of one run, whole or absent          |
//! | `sweep.csv`, `.parquet`, `.html` | merge | all figures; the pictures                   |

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use clap::Subcommand;
use serde_json::Value;
use sim::{
    outcome::RunError,
    report,
    scenario::Scenario,
    sweep::{self, Plan},
};

use super::{Failure, advance, bar, running, usage, with_threads, write};

/// What `merge` writes.
const MERGED: [&str; 3] = ["sweep.csv", "sweep.parquet", "sweep.html"];

/// What `sweep` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    step: Step,
}

#[derive(Subcommand)]
enum Step {
    /// Write the plan of a grid file: every run with its scenario and seed
    Plan {
        /// Grid file (TOML): base scenario, values, seeds
        grid: PathBuf,
        /// Folder of the sweep; made if absent
        #[arg(long)]
        out: PathBuf,
    },
    /// Run one share of a plan; results that are there are kept, so it can be repeated
    Shard {
        /// Folder of the sweep
        folder: PathBuf,
        /// Which share, from 0
        #[arg(long, default_value_t = 0)]
        index: usize,
        /// How many shares there are
        #[arg(long, default_value_t = 1)]
        count: usize,
        /// Threads; 0 for one per core. The results do not depend on it
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// No progress bar
        #[arg(long)]
        quiet: bool,
    },
    /// Join all results: sweep.csv, sweep.parquet, sweep.html
    Merge {
        /// Folder of the sweep
        folder: PathBuf,
        /// No summary line
        #[arg(long)]
        quiet: bool,
    },
}

/// Runs it.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.step {
        Step::Plan { grid, out } => plan(&grid, &out),
        Step::Shard {
            folder,
            index,
            count,
            threads,
            quiet,
        } => {
            if index >= count {
                return Err(usage(anyhow!(
                    "--index {index}: must be below --count {count}"
                )));
            }
            let plan = read_plan(&folder)?;
            with_threads(threads, || shard(&folder, &plan, index, count, quiet))
        }
        Step::Merge { folder, quiet } => merge(&folder, quiet),
    }
}

#[expect(clippy::print_stdout, reason = "the results of this command")]
fn plan(grid: &Path, out: &Path) -> Result<(), Failure> {
    let name = grid.display().to_string();
    let text = fs::read_to_string(grid)
        .with_context(|| format!("reading {name}"))
        .map_err(usage)?;
    let beside = grid.parent().unwrap_or(Path::new("."));
    let plan = Plan::new(&text, |base| {
        let base = beside.join(base);
        fs::read_to_string(&base).map_err(|error| format!("{}: {error}", base.display()))
    });
    let plan = plan.context(name).map_err(usage)?;
    fs::create_dir_all(out.join("runs"))
        .with_context(|| format!("making {}", out.display()))
        .map_err(usage)?;
    // What was merged from another plan would pass for this one's.
    for name in MERGED {
        write::remove(&out.join(name)).map_err(running)?;
    }
    let bytes = serde_json::to_vec_pretty(&plan).map_err(running)?;
    write::whole(&out.join("plan.json"), &bytes).map_err(running)?;
    println!(
        "{} runs; next: lacuna-sim sweep shard {}",
        plan.runs.len(),
        out.display()
    );
    Ok(())
}

fn read_plan(folder: &Path) -> Result<Plan, Failure> {
    let file = folder.join("plan.json");
    let read = || -> anyhow::Result<Plan> { Ok(serde_json::from_slice(&fs::read(&file)?)?) };
    let plan = read()
        .with_context(|| {
            format!(
                "reading {}; make it with: lacuna-sim sweep plan",
                file.display()
            )
        })
        .map_err(usage)?;
    let ours = env!("CARGO_PKG_VERSION");
    if plan.program_version != ours {
        return Err(usage(anyhow!(
            "{}: made by lacuna-sim {}, this is {ours}: plan again",
            file.display(),
            plan.program_version
        )));
    }
    Ok(plan)
}

/// The result of run `number`, if it is there and is that run's.
fn result(folder: &Path, plan: &Plan, number: usize) -> Option<Value> {
    let bytes = fs::read(folder.join("runs").join(Plan::file(number))).ok()?;
    let summary: Value = serde_json::from_slice(&bytes).ok()?;
    let run = plan.runs.get(number)?;
    let same_code = summary["commit"] == report::COMMIT;
    (same_code && run.is_result(&summary, &plan.program_version)).then_some(summary)
}

#[expect(clippy::cast_precision_loss, reason = "a progress bar")]
fn shard(
    folder: &Path,
    plan: &Plan,
    index: usize,
    count: usize,
    quiet: bool,
) -> Result<(), Failure> {
    let mine: Vec<_> = plan
        .shard(index, count)
        .filter(|(number, _)| result(folder, plan, *number).is_none())
        .collect();
    fs::create_dir_all(folder.join("runs")).map_err(running)?;
    let bar = bar(quiet);
    for (done, (number, run)) in mine.iter().enumerate() {
        let scenario = Scenario::parse(&run.scenario)
            .with_context(|| format!("run {number} of the plan"))
            .map_err(usage)?;
        let share = |part: f64| advance(&bar, (done as f64 + part) / mine.len() as f64);
        let outcome = sim::run(&scenario, run.seed, &share).map_err(|error| match error {
            RunError::Usage(_) => usage(anyhow::Error::new(error).context(format!("run {number}"))),
            RunError::Failed(_) => running(error),
        })?;
        let summary = report::summary(&scenario, run.seed, &outcome);
        let bytes = serde_json::to_vec_pretty(&summary).map_err(running)?;
        let file = folder.join("runs").join(Plan::file(*number));
        write::whole(&file, &bytes).map_err(running)?;
    }
    bar.finish_and_clear();
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the results of this command")]
fn merge(folder: &Path, quiet: bool) -> Result<(), Failure> {
    let plan = read_plan(folder)?;
    let (mut results, mut missing) = (Vec::new(), Vec::new());
    for number in 0..plan.runs.len() {
        match result(folder, &plan, number) {
            Some(summary) => results.push(summary),
            None => missing.push(number.to_string()),
        }
    }
    if !missing.is_empty() {
        let shown = missing
            .iter()
            .take(20)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let more = if missing.len() > 20 { ", …" } else { "" };
        return Err(running(anyhow!(
            "{} of {} runs have no result of this program: {shown}{more}; run the shards again",
            missing.len(),
            plan.runs.len()
        )));
    }
    let merged = sweep::merge(&plan, &results).map_err(|why| running(anyhow!(why)))?;
    let write = |name: &str, bytes: &[u8]| write::whole(&folder.join(name), bytes);
    let all = || -> anyhow::Result<()> {
        let [csv, parquet, page] = MERGED;
        write(csv, &write::csv(&merged.table)?)?;
        write(parquet, &write::parquet(&merged.table)?)?;
        write(page, report::sweep_page(&plan, &merged).as_bytes())
    };
    all().map_err(running)?;
    if !merged.undrawn.is_empty() {
        let why = merged.undrawn.join("\n");
        return Err(running(anyhow!(
            "{why}; {} has all that was measured",
            folder.join(MERGED[0]).display()
        )));
    }
    if !quiet {
        println!(
            "{} runs; {}",
            plan.runs.len(),
            folder.join("sweep.html").display()
        );
    }
    Ok(())
}
