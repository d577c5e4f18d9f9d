//! `lacuna-sim compare`: two runs, figure by figure.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use sim::{
    compare::{Difference, compare, identity, warnings},
    report::{short, show_z},
};

use super::{Failure, running, usage};

/// What `compare` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of a run, or its summary.json
    a: PathBuf,
    /// The same of another
    b: PathBuf,
    /// Print JSON in place of the table
    #[arg(long)]
    json: bool,
    /// Exit with 1 if a figure differs by more than so many standard errors
    #[arg(long, value_name = "Z")]
    fail_above: Option<f64>,
}

pub(crate) fn read(path: &Path) -> Result<Value, Failure> {
    let file = if path.is_dir() {
        path.join("summary.json")
    } else {
        path.to_owned()
    };
    let read = || -> anyhow::Result<Value> { Ok(serde_json::from_slice(&fs::read(&file)?)?) };
    read()
        .with_context(|| format!("reading {}; name the folder of a run", file.display()))
        .map_err(usage)
}

/// Runs it.
#[expect(clippy::print_stdout, reason = "the results of this command")]
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (a, b) = (read(&arguments.a)?, read(&arguments.b)?);
    let found = compare(&a, &b).map_err(|why| usage(anyhow!(why)))?;
    if arguments.json {
        let rows: Vec<Value> = found
            .iter()
            .map(|one| {
                json!({"figure": one.name, "a": one.a, "b": one.b, "difference": one.difference(),
                       "standard_error": one.standard_error, "z": one.z()})
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows).map_err(running)?);
    } else {
        println!("a: {}\nb: {}", identity(&a), identity(&b));
        for warning in warnings(&a, &b) {
            println!("warning: {warning}");
        }
        println!(
            "{:<32} {:>12} {:>12} {:>12} {:>10} {:>7}",
            "figure", "a", "b", "difference", "std. error", "z"
        );
        let show = |x: Option<f64>| x.map_or("–".to_owned(), short);
        for one in &found {
            println!(
                "{:<32} {:>12} {:>12} {:>12} {:>10} {:>7}",
                one.name,
                show(one.a),
                show(one.b),
                show(one.difference()),
                short(one.standard_error),
                show_z(one.z())
            );
        }
    }
    let Some(most) = arguments.fail_above else {
        return Ok(());
    };
    let apart: Vec<&Difference> = found.iter().filter(|one| !one.agrees(most)).collect();
    match apart.first() {
        None => Ok(()),
        Some(first) => Err(running(anyhow!(
            "{} of {} figures differ by more than {most} standard errors, {} first",
            apart.len(),
            found.len(),
            first.name
        ))),
    }
}
