//! The benches run, and say what they should. Their figures are for `.ci/long`.
//!
//! `LACUNA_SYSTEM=1` runs that of a node too, which takes some seconds of two processors.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::process::Command;

use serde_json::Value;

fn bench(args: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lacuna-testnet"));
    let done = command.arg("bench").args(args).arg("--json").output();
    let done = done.unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn the_replay_set() {
    let report = bench(&["replay", "--tags", "1000000"]);
    assert_eq!(report["tags"], 1_000_000);
    assert!(report["journal_ns"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_node() {
    if std::env::var_os("LACUNA_SYSTEM").is_none() {
        println!("skipped: LACUNA_SYSTEM=1 runs it");
        return;
    }
    let report = bench(&["node", "--seconds", "0.5", "--gateways", "3"]);
    assert_eq!(report["gateways"], 3);
    assert!(report["capacity_per_s"].as_f64().unwrap() > 0.0);
    let phases = report["phases"].as_array().unwrap();
    let loads: Vec<_> = phases
        .iter()
        .filter_map(|phase| phase["load"].as_f64())
        .collect();
    for load in [0.5, 0.8, 1.2] {
        assert!(loads.contains(&load), "{loads:?}");
    }
}
