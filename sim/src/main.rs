//! `lacuna-sim`: run a scenario, validate the engines, list the language, measure speed.
//!
//! Exit codes: 0 done, 1 failed while running (or a check failed), 2 scenario or usage, 141 (as from
//! SIGPIPE) if who reads standard output left before the end. Only `bench` reads a clock. Progress goes to standard error, results to standard output or files.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use commands::{
    Failure, attack, bench, capacity, compare, keys, messages, plan, report, run, swarm, sweep,
    validate,
};

#[derive(Parser)]
#[command(
    name = "lacuna-sim",
    version,
    about = "Simulate mixnets: how anonymous, how slow, how costly, is the code right"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one scenario; write summary.json and report.html
    Run(run::Arguments),
    /// Attacks over many rounds: disclosure, intersection, correlation, blocking, corrupt paths
    Attack(attack::Arguments),
    /// Random networks under random faults, on the deployed machines
    Swarm(swarm::Arguments),
    /// How surely messages arrive when links lose packets, senders leave or recipients are away
    Messages(messages::Arguments),
    /// Many runs: plan them, run them in shards on any machines, merge them
    Sweep(sweep::Arguments),
    /// The most anonymous parameters within budgets of latency and bytes
    Plan(plan::Arguments),
    /// What a network for so many users takes: nodes, bytes, money, latency, anonymity
    Capacity(capacity::Arguments),
    /// Several runs on one page
    Report(report::Arguments),
    /// Two runs side by side, in standard errors
    Compare(compare::Arguments),
    /// Check the closed forms and the engines against published numbers
    Validate(validate::Arguments),
    /// List the keys of a scenario with their ranges and defaults
    Keys,
    /// Measure the flow engine: events and packets per second
    Bench(bench::Arguments),
}

/// What a shell reports of a program that SIGPIPE ended: 128 + 13.
const READER_LEFT: i32 = 141;

/// Ends the process in silence when its reader has had enough, as in `lacuna-sim compare a b | head`;
/// `println!` panics then. Not with 0: whatever was still to be done or checked was not. Every other
/// panic is told as usual.
fn leave_with_the_reader() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let why = panic.payload_as_str().unwrap_or_default();
        if why.starts_with("failed printing to stdout: Broken pipe") {
            std::process::exit(READER_LEFT);
        }
        told(panic);
    }));
}

#[expect(clippy::print_stderr, reason = "the last words of the process")]
fn main() -> ExitCode {
    leave_with_the_reader();
    let done = match Arguments::parse().command {
        Command::Run(arguments) => run::run(arguments),
        Command::Attack(arguments) => attack::run(&arguments),
        Command::Swarm(arguments) => swarm::run(&arguments),
        Command::Messages(arguments) => messages::run(&arguments),
        Command::Sweep(arguments) => sweep::run(arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Capacity(arguments) => capacity::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Validate(arguments) => validate::run(arguments),
        Command::Keys => {
            keys::run();
            Ok(())
        }
        Command::Bench(arguments) => bench::run(&arguments),
    };
    let (error, code) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Running(error)) => (error, 1),
        Err(Failure::Usage(error)) => (error, 2),
    };
    eprintln!("lacuna-sim: {error:#}");
    ExitCode::from(code)
}
