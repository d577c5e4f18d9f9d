//! Cover on single links, and an adversary who watches some links only: the ends at which the answer
//! is known, the way between them, and what a run says of it.

use sim::{
    closed,
    flow::{Section, Setup, study},
    scenario::Scenario,
    stats::{Estimate, mean},
};

fn bits(setup: &Setup, targets: u64) -> Estimate {
    let sections = study(setup, 4, Setup::replications(targets), &|_| ());
    let of = |metric: &dyn Fn(&Section) -> f64| {
        let parts: Vec<f64> = sections.iter().map(metric).collect();
        Estimate::from_sections(metric(&Section::sum(&sections)), 0, &parts)
    };
    let gap = of(&|section| mean(&section.column(|target| target.log_loss - target.entropy)));
    assert!(
        gap.z(0.0).abs() < 4.0,
        "not calibrated: {gap:?} of {setup:?}"
    );
    of(&|section| mean(&section.column(|target| target.entropy)))
}

fn layers() -> Setup {
    Setup {
        layers: 3,
        width: 4,
        rate: 12.0,
        window: 0.0,
        ..Setup::default()
    }
}

fn apart(a: Estimate, b: Estimate) -> f64 {
    (a.value - b.value) / a.standard_error.hypot(b.standard_error)
}

/// All watched: the global passive adversary, as the other core measures it. None watched: one
/// mix for each layer. Between them anonymity grows with every mix that is not watched, and it stays
/// below what is left without any link.
#[test]
fn the_fewer_links_are_watched_the_less_is_known() {
    let watching = |unwatched, dark| Setup {
        unwatched,
        dark,
        // The general core, whatever is watched.
        placement: sim::scenario::Placement::Balanced,
        ..layers()
    };
    let all = bits(&watching(0, 0), 4096);
    assert!(apart(all, bits(&layers(), 4096)).abs() < 4.0);
    let none = bits(&watching(4, 0), 4096);
    let merged = Setup {
        width: 1,
        ..layers()
    };
    assert!(apart(none, bits(&merged, 4096)).abs() < 4.0);
    let some = [watching(2, 0), watching(3, 0)].map(|setup| bits(&setup, 4096));
    let middle = bits(&watching(0, 0b010), 4096);
    for (less, more) in [
        (all, some[0]),
        (some[0], some[1]),
        (some[1], none),
        (all, middle),
        (middle, none),
    ] {
        assert!(apart(more, less) > 4.0, "{less:?} {more:?}");
    }
    assert!(none.value < closed::unwatched_bits(12.0, 3));
    // A crowd of one is a mix.
    assert!(apart(all, bits(&watching(1, 0), 4096)).abs() < 4.0);
}

/// Free routes and cascades have crowds too, and the watched ones among corrupt mixes.
#[test]
fn crowds_are_exact_on_every_route() {
    use sim::flow::Route;
    for route in [Route::Cascade, Route::Free] {
        let setup = Setup {
            route,
            unwatched: 3,
            ..layers()
        };
        let watched = Setup {
            unwatched: 0,
            ..setup.clone()
        };
        let (some, all) = (bits(&setup, 4096), bits(&watched, 4096));
        assert!(apart(some, all) > 4.0, "{route:?} {some:?} {all:?}");
    }
    let corrupt = Setup {
        corrupt: 1,
        unwatched: 3,
        dark: 0b100,
        ..layers()
    };
    bits(&corrupt, 4096);
}

/// Dummies that end inside hide less than dummies that leave, and a message less than if all
/// links were hidden.
#[test]
fn dummies_hide_what_they_are_told_to() {
    let sparse = Setup {
        layers: 2,
        width: 2,
        rate: 2.0,
        window: 0.0,
        ..Setup::default()
    };
    let alone = bits(&sparse, 16_384);
    let users = bits(
        &Setup {
            user_dummies: 6.0,
            ..sparse.clone()
        },
        16_384,
    );
    let mixes = bits(
        &Setup {
            mix_dummies: 3.0,
            ..sparse.clone()
        },
        16_384,
    );
    assert!(apart(users, alone) > 4.0, "{users:?} {alone:?}");
    assert!(apart(mixes, users) > 4.0, "{mixes:?} {users:?}");
    assert!(users.value < closed::unwatched_bits(2.0, 2));
    assert!(mixes.value < closed::unwatched_bits(2.0 + 6.0, 2));
}

/// A run says both ends, and is paid for in bytes.
#[test]
fn a_run_shows_what_dummies_cost_and_give() {
    let run = |dummies: &str| {
        let text = format!(
            "version = 1\n[traffic]\nusers = 60\n{dummies}\n[flow]\ntargets = 256\nwindow_means = 2.0\n"
        );
        let scenario = Scenario::parse(&text).expect("a good scenario");
        sim::run(&scenario, 1, &|_| ()).expect("it runs")
    };
    let value = |outcome: &sim::outcome::Outcome, name: &str| {
        outcome.figure(name).map(|figure| figure.estimate.value)
    };
    let plain = run("");
    let padded = run("dummy_per_user_per_s = 2.0\ndummy_per_mix_per_s = 30.0");
    assert_eq!(value(&plain, "entropy_unwatched_bits"), None);
    // 3 mixes in the last layer, 50 ms each.
    let bound = closed::unwatched_bits((60.0 + 90.0) * 0.05, 3);
    assert_eq!(value(&padded, "entropy_unwatched_bits"), Some(bound));
    let upstream = |outcome| value(outcome, "user_upstream_bytes_per_s");
    assert_eq!(upstream(&plain), Some(2432.0));
    assert_eq!(upstream(&padded), Some(3.0 * 2432.0));
    // Two of three layers get 30 packets more for each mix, the first 120 / 3.
    let into = |outcome| value(outcome, "mix_bytes_per_s").expect("computed") / 2432.0;
    let more = (120.0 + 3.0 * 30.0 * 2.0) / 9.0;
    assert!((into(&padded) - into(&plain) - more).abs() < 1e-9);
}
