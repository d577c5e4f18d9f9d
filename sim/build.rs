//! Tells the program which commit it was built from.
//!
//! `LACUNA_COMMIT` in the environment wins (for builds from an archive); else `git` is asked; else
//! it is "unknown". Results name it, so that a figure can be traced to its code.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=LACUNA_COMMIT");
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
    };
    // The log of HEAD changes with every commit, checkout and reset.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let commit = std::env::var("LACUNA_COMMIT")
        .ok()
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=LACUNA_COMMIT={commit}");
}
