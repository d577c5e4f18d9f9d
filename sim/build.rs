//! Tells the program which commit it was built from.
//!
//! `LACUNA_COMMIT` in the environment wins (for builds from an archive); else `git` is asked; else
//! it is "unknown". Results name it, so that a figure can be traced to its code; "with changes" follows where what the
//! program is made of was not what is committed. The same sources and commit give the same program.

use std::process::Command;

/// What the program is made of.
const SOURCES: [&str; 9] = [
    "src",
    "build.rs",
    "Cargo.toml",
    "../Cargo.toml",
    "../Cargo.lock",
    "../crates/proto/src",
    "../crates/proto/Cargo.toml",
    "../crates/sphinx/src",
    "../crates/sphinx/Cargo.toml",
];

fn main() {
    println!("cargo::rerun-if-env-changed=LACUNA_COMMIT");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
    };
    // The log of HEAD changes with every commit, checkout and reset.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let checkout = || {
        let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
        let status = ["--no-optional-locks", "status", "--porcelain", "--"];
        let changes = git(&[&status[..], &SOURCES].concat());
        Some(commit + changes.map_or("", |_| " with changes"))
    };
    let commit = std::env::var("LACUNA_COMMIT").ok().or_else(checkout);
    let commit = commit.unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=LACUNA_COMMIT={commit}");
}
