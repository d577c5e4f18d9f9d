//! Networks beyond layers of Poisson mixes: loops of mixes, free routes, links, lines and an
//! adversary that acts, each where a closed form says what must come out. (What has none is
//! held against simulations of its own in `tests/network.rs`.)
//!
//! | what                         | closed form                                               |
//! |------------------------------|-----------------------------------------------------------|
//! | loops of mixes               | one mix at ρ + λ_M                                         |
//! | jitter                       | a displaced Poisson process is one: one mix at ρ           |
//! | one free hop over W mixes    | one mix at ρ / W                                           |
//! | flood into a threshold mix   | E log₂(1 + Bin(b − 1, share of users' packets))            |
//! | a corrupt mix that drops     | fewer of its messages arrive to be measured                |
//! | placement                    | share of routes without an honest mix                      |
//! | a line                       | M/D/1: mean wait λ D² / 2 (1 − λ D) (Pollaczek, Khinchine) |
//! | regions, holding, loss       | sums and products                                          |

use super::{
    Level,
    simulated::{Study, calibration, check},
};
use crate::{
    closed,
    flow::{Capacity, Links, Pool, Route, Section, Setup},
    scenario::Placement,
    stats::mean,
};

const SECTION: &str = "3.18";

/// A study of one number, with calibration.
fn study(
    name: impl Into<String>,
    (setup, targets): (Setup, u64),
    estimator: impl Fn(&Section) -> f64 + Copy + Sync + 'static,
    expected: f64,
) -> Study {
    let name = name.into();
    Study {
        setup,
        targets,
        judge: Box::new(move |_, sections| {
            let value = sections.estimate(estimator);
            let mut checks = vec![check(SECTION, format!("simulated {name}"), value, expected)];
            // Posteriors that are all uniform differ by rounding alone, in which there is no chance.
            let spread = calibration(SECTION, &name, sections);
            if spread.value.abs() > 1e-6 {
                checks.push(spread);
            }
            checks
        }),
    }
}

fn entropy(section: &Section) -> f64 {
    mean(&section.column(|target| target.entropy))
}

/// Share of messages that every mix on their way gave away.
fn seen_through(section: &Section) -> f64 {
    mean(&section.column(|target| f64::from(u8::from(target.entropy < 1e-6))))
}

/// Bits of a threshold mix of `batch`, when each other packet is a user's with probability
/// `share`.
fn flooded_bits(batch: u32, share: f64) -> f64 {
    let mut ways = 1.0;
    let mut bits = 0.0;
    for users in 0..batch {
        let others = f64::from(batch - 1 - users);
        let chance = ways * share.powi(users.cast_signed()) * (1.0 - share).powf(others);
        bits += chance * f64::from(1 + users).log2();
        ways *= others / f64::from(users + 1);
    }
    bits
}

pub(super) fn studies(level: Level) -> Vec<Study> {
    let targets = |quick, full| match level {
        Level::Quick => quick,
        Level::Full => full,
    };
    let bits = |rho| closed::single_poisson_mix(rho).entropy;
    let jitter = |jitter| {
        Some(Links {
            jitter,
            ..Links::default()
        })
    };
    let base = Setup::default;
    let mut studies = vec![
        study(
            "E[H], ρ = 2, 3 loops of the mix per mean delay",
            (
                Setup {
                    rate: 2.0,
                    loops: 3.0,
                    ..base()
                },
                targets(8_000, 50_000),
            ),
            entropy,
            bits(5.0),
        ),
        study(
            "E[H], ρ = 5, links that vary by 3 mean delays",
            (
                Setup {
                    rate: 5.0,
                    links: jitter(3.0),
                    ..base()
                },
                targets(8_000, 50_000),
            ),
            entropy,
            bits(5.0),
        ),
        study(
            "E[H], one hop to any of 4 mixes, ρ = 5",
            (
                Setup {
                    route: Route::Free,
                    width: 4,
                    rate: 20.0,
                    ..base()
                },
                targets(4_000, 50_000),
            ),
            entropy,
            bits(5.0),
        ),
        study(
            "E[H], threshold mix of 20, three fifths flooded",
            (
                Setup {
                    rate: 8.0,
                    flood: 12.0,
                    pool: Some(Pool {
                        batch: Some(20),
                        ..Pool::default()
                    }),
                    ..base()
                },
                targets(4_000, 40_000),
            ),
            entropy,
            flooded_bits(20, 0.4),
        ),
        study(
            "E[H], ρ = 3, one of two mixes corrupt, which drops half",
            (
                Setup {
                    width: 2,
                    corrupt: 1,
                    rate: 6.0,
                    drop: 0.5,
                    ..base()
                },
                targets(8_000, 50_000),
            ),
            entropy,
            bits(3.0) / 1.5,
        ),
    ];
    studies.extend(placements(targets(2_000, 20_000)));
    studies.extend(times(level));
    studies
}

/// Two of four mixes corrupt in each of two layers: 16 packets in each mix.
fn placements(targets: u64) -> Vec<Study> {
    [
        ("greedy, layers", Route::Stratified, Placement::Greedy, 0.25),
        ("greedy, cascades", Route::Cascade, Placement::Greedy, 0.5),
        (
            "balanced, cascades",
            Route::Cascade,
            Placement::Balanced,
            0.25,
        ),
        // 4 of 8: 4/8 × 3/7.
        (
            "random, layers",
            Route::Stratified,
            Placement::Random,
            3.0 / 14.0,
        ),
        // 4 of 8 mixes, both hops: never the same mix twice.
        (
            "random, free routes",
            Route::Free,
            Placement::Random,
            3.0 / 14.0,
        ),
    ]
    .map(|(name, route, placement, expected)| {
        let free = route == Route::Free;
        let setup = Setup {
            route,
            placement,
            layers: 2,
            width: if free { 8 } else { 4 },
            corrupt: if free { 4 } else { 2 },
            rate: 64.0,
            window: 0.0,
            ..Setup::default()
        };
        let name = format!("routes without an honest mix, {name}");
        study(name, (setup, targets), seen_through, expected)
    })
    .into()
}

/// How long packets take, and how many arrive.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn times(level: Level) -> Vec<Study> {
    let window = match level {
        Level::Quick => 200.0,
        Level::Full => 4000.0,
    };
    let base = || Setup {
        rate: 5.0,
        window,
        ..Setup::default()
    };
    let (service, load) = (0.12, 0.6);
    let links = Some(Links {
        regions: vec![vec![0.0, 10.0], vec![20.0, 0.0]],
        jitter: 1.0,
        loss: 0.0,
    });
    let lossy = Some(Links {
        loss: 0.1,
        ..Links::default()
    });
    vec![
        study(
            "latency behind a line, load 0.6",
            (
                Setup {
                    capacity: Some(Capacity {
                        service,
                        queue: 1_000_000,
                    }),
                    ..base()
                },
                512,
            ),
            Section::latency_mean,
            1.0 + service + load * service / (2.0 * (1.0 - load)),
        ),
        study(
            "latency, two regions",
            (
                Setup {
                    width: 2,
                    links,
                    ..base()
                },
                512,
            ),
            Section::latency_mean,
            1.0 + 2.0 * (30.0 / 4.0 + 0.5),
        ),
        study(
            "latency, one of two mixes holds packets",
            (
                Setup {
                    width: 2,
                    corrupt: 1,
                    hold: 4.0,
                    ..base()
                },
                512,
            ),
            Section::latency_mean,
            1.0 + 4.0 / 2.0,
        ),
        study(
            "packets that arrive over three links that lose a tenth",
            (
                Setup {
                    layers: 2,
                    links: lossy,
                    ..base()
                },
                512,
            ),
            |section| section.exits as f64 / section.arrivals as f64,
            0.9_f64.powi(3),
        ),
    ]
}
