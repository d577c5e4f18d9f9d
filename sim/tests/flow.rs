//! The flow engine: the same bytes for any number of threads, limits that hold, and checks that fail
//! when it is made to measure wrongly.

mod golden;

use std::fs;

use sim::{
    closed,
    flow::{self, Sabotage, Section, Setup, study},
    report,
    scenario::{Scenario, keys::Value},
    validate::{self, Level},
};

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().expect("threads").install(work)
}

fn example(name: &str, targets: u64) -> Scenario {
    let path = format!("{}/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).expect("an example");
    let small = [
        ("flow.targets", Value::Count(targets)),
        ("flow.window_means", Value::Real(2.0)),
    ];
    Scenario::parse_with(&text, small).expect("a good example")
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let scenario = example("small-network", 512);
    let bytes = |seed, threads| {
        in_pool(threads, || {
            let outcome = sim::run(&scenario, seed, &|_| ()).expect("it runs");
            let summary = report::summary(&scenario, seed, &outcome).to_string();
            (summary, report::page(&scenario, seed, &outcome))
        })
    };
    let one = bytes(5, 1);
    for threads in [2, 3, 8] {
        assert_eq!(bytes(5, threads), one);
    }
    assert_ne!(bytes(6, 1).0, one.0);
}

/// An adversary who is told more than it sees gives bounds, and the summary and the page say so.
#[test]
fn bounds_are_told_for_bounds() {
    for (name, helped) in [
        ("free-routes", true),
        ("some-watched", true),
        ("cascade", false),
    ] {
        let scenario = example(name, 32);
        let outcome = sim::run(&scenario, 1, &|_| ()).expect("it runs");
        let summary = report::summary(&scenario, 1, &outcome);
        let told = |figure: &str, bound: &str| summary["figures"][figure][bound] == true;
        assert_eq!(told("entropy_mean_bits", "lower_bound"), helped, "{name}");
        assert_eq!(
            told("bayes_vulnerability_mean", "upper_bound"),
            helped,
            "{name}"
        );
        assert!(!told("latency_mean_ms", "lower_bound"));
        let page = report::page(&scenario, 1, &outcome);
        assert_eq!(page.contains("told more than it sees"), helped, "{name}");
        assert_eq!(
            page.contains("Shannon entropy over packets, mean, at least"),
            helped,
            "{name}"
        );
    }
}

/// Common random numbers: what did not change draws what it drew before. A wider layer changes
/// routes, not the times at which packets are sent.
#[test]
fn another_mix_shifts_nobody_elses_draws() {
    let packets = |width| {
        let setup = Setup {
            width,
            rate: 20.0,
            window: 50.0,
            ..Setup::default()
        };
        let sections = study(&setup, 9, 2, &|_| ());
        sections
            .iter()
            .map(|section| section.arrivals)
            .collect::<Vec<_>>()
    };
    assert_eq!(packets(1), packets(7));
}

#[test]
fn validation_passes_in_its_short_form() {
    let checks = validate::run(Level::Quick, 1, Sabotage::None, &|_| ());
    let failed: Vec<_> = checks.iter().filter(|check| !check.passes()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for section in ["3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.16", "3.18"] {
        let of_section = checks.iter().filter(|check| check.section == section);
        assert!(of_section.count() >= 2, "no checks of {section}");
    }
}

/// Positive control: the two mistakes of the public simulators are caught, by the checks of
/// entropy; and the second gives just the wrong number that theory predicts for it.
#[test]
fn a_wrong_engine_is_caught() {
    for (sabotage, loads) in [
        (Sabotage::EarlyReadout, ["10", "100"]),
        (Sabotage::FirstAfterFixedTime, ["1", "10"]),
    ] {
        let checks = validate::run(Level::Quick, 1, sabotage, &|_| ());
        for load in loads {
            let name = format!("simulated E[H], ρ = {load}.000");
            let check = checks.iter().find(|check| check.name == name);
            assert!(!check.expect(&name).passes(), "{sabotage:?} passes {name}");
        }
    }
    for rho in [1.0, 10.0] {
        let setup = Setup {
            rate: rho,
            sabotage: Sabotage::FirstAfterFixedTime,
            ..Setup::default()
        };
        let sections = study(&setup, 2, 2048, &|_| ());
        let biased = Section::estimate(&sections, |part| part.mean(|target| target.entropy));
        let z = biased.z(closed::single_poisson_mix_biased(rho));
        assert!(z.abs() < 4.0, "{biased:?}");
    }
}

/// The limit for large pools bounds networks from two packets in a mean delay on, and a run claims
/// it from there only. The control: with fewer it does not.
#[test]
fn the_network_limit_bounds_from_two_packets_on() {
    let simulated = |layers, rate| {
        let setup = Setup {
            layers,
            rate,
            ..Setup::default()
        };
        let sections = study(&setup, 1, 4096, &|_| ());
        let found = Section::estimate(&sections, |part| part.mean(|target| target.entropy));
        let limit = closed::network_limit_bits(rate, layers, 1.0);
        (found.value - limit) / found.standard_error
    };
    for layers in 1..=5 {
        let z = simulated(layers, closed::LIMIT_FROM);
        assert!(z < -2.0, "{layers}: {z}");
    }
    for layers in 1..=2 {
        let z = simulated(layers, 0.3);
        assert!(z > 4.0, "{layers}: {z}");
    }
    for (users, claims) in [(39, false), (40, true)] {
        let values = [("traffic.users", Value::Count(users))];
        let scenario = Scenario::parse_with("version = 1\n", values).expect("good");
        let outcome = sim::run(&scenario, 1, &|_| ()).expect("it runs");
        let entropy = outcome.figure("entropy_mean_bits").expect("always there");
        assert_eq!(entropy.expected.is_some(), claims, "{users}");
    }
}

/// A run whose posteriors are wrong fails, and a right one does not, however few its sections.
#[test]
fn a_run_with_wrong_posteriors_fails_its_calibration() {
    for (name, targets) in [
        ("small-network", 16),
        ("small-network", 512),
        ("threshold-layers", 4096),
    ] {
        let outcome = sim::run(&example(name, targets), 1, &|_| ()).expect("it runs");
        assert_eq!(outcome.failures, Vec::<String>::new());
    }
    let (scenario, wrong) = (example("small-network", 4096), Sabotage::QuarterShare);
    let outcome = flow::run_with(&scenario, 1, wrong, &|_| ()).expect("it runs");
    assert!(
        matches!(&outcome.failures[..], [failure] if failure.starts_with("calibration failed")),
        "{:?}",
        outcome.failures
    );
}

/// Few messages through small pools: the outcome that would make up for the likely ones is seen in
/// no section, so that the spread between them is too small an error for the calibration.
#[test]
fn a_rare_outcome_that_did_not_happen_fails_no_run() {
    let text = "version = 1\n[network]\ntopology = \"cascade\"\nlayers = 2\nmixes_per_layer = 5\n\
                [mix]\nstrategy = \"timed\"\ninterval_ms = 2000.0\nkept = 1\n\
                [traffic]\nusers = 300\n[flow]\ntargets = 64\n";
    let scenario = Scenario::parse(text).expect("good");
    for seed in 1..=40 {
        let outcome = sim::run(&scenario, seed, &|_| ()).expect("it runs");
        assert_eq!(outcome.failures, Vec::<String>::new(), "{seed}");
    }
}

/// Exact tables of small runs. After a change that is meant: `BLESS=1 cargo test -p sim`.
#[test]
fn results_are_those_of_the_golden_table() {
    let mut table = String::new();
    for name in [
        "small-network",
        "cascade",
        "corrupt-mixes",
        "threshold-pool",
    ] {
        let scenario = example(name, 64);
        let outcome = sim::run(&scenario, 1, &|_| ()).expect("it runs");
        table += &golden::of(name, &outcome);
    }
    golden::hold("flow", &table);
}
