//! The flow engine: the same bytes for any number of threads, right by an independent
//! simulation, and checks that fail when it is made to measure wrongly.

use std::{collections::BTreeMap, fs, path::Path};

use sim::{
    closed,
    flow::{self, Sabotage, Section, Setup, Target, study},
    random::{Purpose, SOURCE, Stream},
    report,
    scenario::{Scenario, keys::Value},
    stats::{Estimate, mean},
    validate::{self, Level},
};

fn in_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().expect("threads").install(work)
}

fn estimate(sections: &[Section], metric: fn(&Target) -> f64) -> Estimate {
    let of = |section: &Section| mean(&section.column(metric));
    let parts: Vec<f64> = sections.iter().map(of).collect();
    Estimate::from_sections(of(&Section::sum(sections)), 0, &parts)
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
        let biased = estimate(&study(&setup, 2, 2048, &|_| ()), |target| target.entropy);
        let z = biased.z(closed::single_poisson_mix_biased(rho));
        assert!(z.abs() < 4.0, "{biased:?}");
    }
}

/// One target in a network without times: each event is an arrival with probability
/// λ / (λ + N), else one of the N packets in flight, uniformly, moves on (all that exponential
/// times say about order). Every packet carries its share; a mix's posterior is recomputed
/// from the packets it holds. Nothing here is shared with the engine but the random streams.
fn naive_entropy(setup: &Setup, seed: u64) -> f64 {
    let mut random = Stream::new(seed, 0, SOURCE, Purpose::Pool);
    // Packets as (mix, share); mixes are numbered layer by layer.
    let mut flying: Vec<(usize, f64)> = Vec::new();
    for mix in 0..setup.layers * setup.width {
        for _ in 0..random.poisson(setup.occupancy()) {
            flying.push((mix, 0.0));
        }
    }
    flying.push((random.index(setup.width), 1.0));
    let (mut entropy, mut left) = (0.0, 1.0);
    while left > 1e-9 {
        #[expect(clippy::cast_precision_loss, reason = "few packets")]
        let arrival = setup.rate / (setup.rate + flying.len() as f64);
        if random.coin(arrival) {
            flying.push((random.index(setup.width), 0.0));
            continue;
        }
        let chosen = random.index(flying.len());
        let (mix, own) = flying.swap_remove(chosen);
        let mut share = own;
        if mix % setup.width >= setup.corrupt {
            let mut mates: Vec<_> = flying.iter_mut().filter(|other| other.0 == mix).collect();
            let mass = own + mates.iter().map(|other| other.1).sum::<f64>();
            #[expect(clippy::cast_precision_loss, reason = "few packets")]
            let even = mass / (mates.len() + 1) as f64;
            share = even;
            for mate in &mut mates {
                mate.1 = even;
            }
        }
        let layer = mix / setup.width;
        if layer + 1 < setup.layers {
            flying.push(((layer + 1) * setup.width + random.index(setup.width), share));
        } else if share > 0.0 {
            entropy -= share * share.log2();
            left -= share;
        }
    }
    entropy
}

#[test]
fn an_independent_simulation_without_times_agrees() {
    for (layers, width, corrupt, rate) in [(1, 1, 0, 3.0), (2, 2, 0, 8.0), (3, 2, 1, 10.0)] {
        let setup = Setup {
            layers,
            width,
            corrupt,
            rate,
            ..Setup::default()
        };
        let naive: Vec<f64> = (0..4000).map(|seed| naive_entropy(&setup, seed)).collect();
        let naive = Estimate::from_sections(mean(&naive), 4000, &naive);
        let engine = estimate(&study(&setup, 3, 1024, &|_| ()), |target| target.entropy);
        let error = naive.standard_error.hypot(engine.standard_error);
        let z = (naive.value - engine.value) / error;
        assert!(z.abs() < 4.0, "{naive:?} {engine:?}");
    }
}

/// A run whose posteriors are wrong fails, and a right one does not, however few its sections.
#[test]
fn a_run_with_wrong_posteriors_fails_its_calibration() {
    for targets in [16, 512] {
        let outcome = sim::run(&example("small-network", targets), 1, &|_| ()).expect("it runs");
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
        table += &format!("{name}\n");
        for figure in &outcome.figures {
            // Nine digits: what libm may round differently elsewhere is beyond them.
            table += &format!("  {} {:.8e}\n", figure.name, figure.estimate.value);
        }
        let counts: BTreeMap<_, _> = outcome.counts;
        table += &format!("  {counts:?}\n");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/flow.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &table).expect("writable");
    }
    let golden = fs::read_to_string(&path).expect("BLESS=1 writes it");
    for (line, golden) in table.lines().zip(golden.lines()) {
        assert_eq!(line, golden, "run with BLESS=1 if the change is meant");
    }
    assert_eq!(table.lines().count(), golden.lines().count());
}
