//! The flow engine against closed forms and against simulations published elsewhere.
//!
//! Seeds are fixed by the caller, so a check either always passes or always fails. Each study
//! gets a seed of its own, so that no two share their luck.

use super::{Check, Error, Level, beyond, loopix, told};
use crate::{
    closed,
    flow::{Links, Pool, Route, Sabotage, Section, Setup, ratio, study, variance},
    stats::{Estimate, mean},
};

/// One simulation and the checks made of it.
pub(super) struct Study {
    pub(super) setup: Setup,
    pub(super) targets: u64,
    pub(super) judge: Box<Judge>,
}

pub(super) type Judge = dyn Fn(&Setup, &Sections) -> Vec<Check> + Sync;

/// Sections with their sum.
pub(super) struct Sections {
    pub(super) parts: Vec<Section>,
    pub(super) all: Section,
}

impl Sections {
    pub(super) fn estimate(&self, estimator: impl Fn(&Section) -> f64) -> Estimate {
        let parts: Vec<f64> = self.parts.iter().map(&estimator).collect();
        Estimate::from_sections(estimator(&self.all), 0, &parts)
    }

    fn estimate_sums<const N: usize>(
        &self,
        sums: impl Fn(&Section) -> [f64; N],
        of: impl Fn([f64; N]) -> f64,
    ) -> Estimate {
        Section::estimate_sums(&self.parts, 0, sums, of)
    }
}

pub(super) fn check(section: &'static str, name: String, value: Estimate, expected: f64) -> Check {
    Check {
        section,
        name,
        value: value.value,
        expected,
        error: Error::Standard(value.standard_error),
        at_most: false,
    }
}

pub(super) fn checks(
    level: Level,
    seed: u64,
    sabotage: Sabotage,
    progress: &(dyn Fn(f64) + Sync),
) -> Vec<Check> {
    let mut studies = single_mixes(level);
    studies.extend(networks(level));
    studies.extend(pools(level));
    studies.extend(beyond::studies(level));
    studies.extend(loopix::studies(level));
    studies.extend(told::studies(level));
    studies.extend(meeting_batches(level));
    #[expect(clippy::cast_precision_loss, reason = "a progress bar")]
    let weights: Vec<f64> = studies
        .iter()
        .map(|study| (study.setup.rate * study.setup.layers as f64 + 10.0) * study.targets as f64)
        .collect();
    let whole: f64 = weights.iter().sum();
    let mut done = 0.0;
    let mut checks = Vec::new();
    for ((number, one), weight) in (0..).zip(&studies).zip(weights) {
        let setup = Setup {
            sabotage,
            ..one.setup.clone()
        };
        let replications = Setup::replications(one.targets);
        let seed = seed.wrapping_mul(1000).wrapping_add(number);
        let parts = study(&setup, seed, replications, &|part| {
            progress((done + part * weight) / whole);
        });
        done += weight;
        let all = Section::sum(&parts);
        checks.extend((one.judge)(&setup, &Sections { parts, all }));
    }
    checks
}

/// One mix at several loads: 3.1, 3.3, 3.4 and calibration.
fn single_mixes(level: Level) -> Vec<Study> {
    let loads: &[(f64, u64)] = match level {
        Level::Quick => &[(1.0, 100_000), (10.0, 20_000), (100.0, 1_000)],
        Level::Full => &[
            (0.5, 100_000),
            (1.0, 200_000),
            (2.0, 100_000),
            (10.0 / 3.0, 100_000),
            (10.0, 50_000),
            (50.0, 10_000),
            (100.0, 6_000),
            (400.0 / 3.0, 4_000),
            (1000.0, 1_000),
        ],
    };
    let mut studies: Vec<Study> = loads
        .iter()
        .map(|(rho, targets)| Study {
            setup: Setup {
                rate: *rho,
                window: 40.0,
                ..Setup::default()
            },
            targets: *targets,
            judge: Box::new(judge_single_mix),
        })
        .collect();
    // Burke: long windows, few targets.
    studies.push(Study {
        setup: Setup {
            rate: 25.0,
            window: match level {
                Level::Quick => 500.0,
                Level::Full => 4000.0,
            },
            ..Setup::default()
        },
        targets: 512,
        judge: Box::new(|_, sections| {
            let variation = sections.estimate(|section| section.gaps.variation());
            let lag = sections.estimate(|section| section.gaps.lag1());
            vec![
                check("3.3", "gaps between departures, CV".into(), variation, 1.0),
                check(
                    "3.3",
                    "gaps between departures, lag-1 correlation".into(),
                    lag,
                    0.0,
                ),
            ]
        }),
    });
    studies
}

fn judge_single_mix(setup: &Setup, sections: &Sections) -> Vec<Check> {
    let rho = setup.rate;
    let exact = closed::single_poisson_mix(rho);
    let mut checks = vec![
        check(
            "3.1",
            format!("simulated pool, mean, ρ = {rho:.3}"),
            sections.estimate_sums(Section::occupancy_sums, |[n, sum, _]| ratio([n, sum])),
            rho,
        ),
        check(
            "3.1",
            format!("simulated pool, variance, ρ = {rho:.3}"),
            sections.estimate_sums(Section::occupancy_sums, variance),
            rho,
        ),
        check(
            "3.4",
            format!("simulated E[H], ρ = {rho:.3}"),
            sections.estimate(|section| mean(&section.column(|target| target.entropy))),
            exact.entropy,
        ),
        check(
            "3.4",
            format!("simulated E[−log2 max p], ρ = {rho:.3}"),
            sections.estimate(|section| mean(&section.column(|target| target.min_entropy))),
            exact.min_entropy,
        ),
        check(
            "3.4",
            format!("simulated sd of H, ρ = {rho:.3}"),
            sections.estimate(|section| {
                let entropy = section.column(|target| target.entropy);
                let square: Vec<f64> = entropy.iter().map(|h| h * h).collect();
                (mean(&square) - mean(&entropy).powi(2)).sqrt()
            }),
            exact.entropy_sd,
        ),
        calibration("3.4", &format!("one mix, ρ = {rho:.3}"), sections),
    ];
    // In small pools two quantiles may be one number.
    let mut quantiles = [0.05, 0.5, 0.95, 0.99]
        .map(|q| closed::poisson_quantile(rho, q))
        .to_vec();
    quantiles.dedup();
    for held in quantiles {
        let index = usize::try_from(held).expect("a pool fits in memory");
        checks.push(check(
            "3.1",
            format!("simulated Pr[pool ≤ {held}], ρ = {rho:.3}"),
            sections.estimate_sums(|section| section.occupancy_below(index), ratio),
            closed::poisson_cdf(rho, held),
        ));
    }
    checks
}

pub(super) fn calibration(section: &'static str, name: &str, sections: &Sections) -> Check {
    check(
        section,
        format!("simulated log-loss less entropy, {name}"),
        sections.estimate(|part| mean(&part.column(|target| target.log_loss - target.entropy))),
        0.0,
    )
}

/// Entropy of a finite network from elsewhere.
struct Oracle {
    per_s: f64,
    layers: usize,
    width: usize,
    mean_s: f64,
    corrupt: usize,
    entropy: f64,
    error: f64,
    targets: u64,
}

fn oracle(
    (per_s, layers, width, mean_s, corrupt): (f64, usize, usize, f64, usize),
    (entropy, error): (f64, f64),
    targets: u64,
) -> Oracle {
    Oracle {
        per_s,
        layers,
        width,
        mean_s,
        corrupt,
        entropy,
        error,
        targets,
    }
}

/// Networks of finite size: 3.5, and latency over 1, 3 and 5 hops: 3.2.
fn networks(level: Level) -> Vec<Study> {
    let third = 0.8 / 3.0;
    let oracles = match level {
        Level::Quick => vec![
            oracle((100.0, 3, 1, 0.1, 0), (5.9644, 0.0014), 4_000),
            oracle((100.0, 3, 3, 0.1, 0), (5.7722, 0.0023), 4_000),
            oracle((1000.0, 3, 10, 0.1, 0), (9.2173, 0.0016), 512),
            oracle((5000.0, 3, 10, third, 1), (12.827, 0.014), 128),
            oracle((100.0, 5, 1, 0.05, 1), (0.0, 0.0), 128),
        ],
        Level::Full => vec![
            oracle((100.0, 3, 1, 0.1, 0), (5.9644, 0.0014), 40_000),
            oracle((100.0, 3, 3, 0.1, 0), (5.7722, 0.0023), 40_000),
            oracle((200.0, 3, 3, 0.1, 0), (6.9055, 0.0018), 20_000),
            oracle((1000.0, 3, 10, 0.1, 0), (9.2173, 0.0016), 6_000),
            oracle((5000.0, 3, 10, third, 0), (13.0446, 0.0013), 512),
            oracle((5000.0, 3, 20, third, 0), (13.0362, 0.0019), 512),
            oracle((5000.0, 3, 50, third, 0), (12.9845, 0.0030), 512),
            oracle((5000.0, 3, 100, third, 0), (12.7190, 0.0042), 512),
            oracle((5000.0, 2, 10, 0.425, 0), (13.2943, 0.0020), 512),
            oracle((5000.0, 5, 10, 0.14, 0), (12.5552, 0.0016), 512),
            oracle((1e5, 3, 30, 0.1, 0), (15.9532, 0.0032), 64),
            oracle((5000.0, 3, 10, third, 1), (12.827, 0.014), 4_000),
            oracle((5000.0, 3, 50, third, 5), (12.445, 0.028), 4_000),
            // A corrupt cascade hides nothing.
            oracle((100.0, 5, 1, 0.05, 1), (0.0, 0.0), 2_000),
        ],
    };
    let mut studies: Vec<Study> = oracles
        .into_iter()
        .map(|oracle| Study {
            setup: Setup {
                layers: oracle.layers,
                width: oracle.width,
                corrupt: oracle.corrupt,
                rate: oracle.per_s * oracle.mean_s,
                window: 2.0,
                ..Setup::default()
            },
            targets: oracle.targets,
            judge: Box::new(move |_, sections| judge_network(&oracle, sections)),
        })
        .collect();
    studies.push(cascades(level));
    for layers in [1, 3, 5] {
        studies.push(Study {
            setup: Setup {
                layers,
                width: 2,
                rate: 50.0,
                window: match level {
                    Level::Quick => 100.0,
                    Level::Full => 1500.0,
                },
                ..Setup::default()
            },
            targets: 512,
            judge: Box::new(judge_latency),
        });
    }
    studies
}

/// Three cascades of three mixes at 300 per s: each is the one cascade at 100 per s.
fn cascades(level: Level) -> Study {
    Study {
        setup: Setup {
            route: Route::Cascade,
            layers: 3,
            width: 3,
            rate: 30.0,
            window: 2.0,
            ..Setup::default()
        },
        targets: match level {
            Level::Quick => 4_000,
            Level::Full => 40_000,
        },
        judge: Box::new(|_, sections| {
            let name = "three cascades of three, 300 per s";
            let value = sections.estimate(|part| mean(&part.column(|target| target.entropy)));
            let entropy = Check {
                section: "3.5",
                name: format!("simulated E[H], {name}"),
                value: value.value,
                expected: 5.9644,
                error: Error::Standard(value.standard_error.hypot(0.0014)),
                at_most: false,
            };
            vec![entropy, calibration("3.5", name, sections)]
        }),
    }
}

fn judge_network(oracle: &Oracle, sections: &Sections) -> Vec<Check> {
    let name = format!(
        "{} per s, {} × {} mixes, {} corrupt",
        oracle.per_s, oracle.layers, oracle.width, oracle.corrupt
    );
    let value = sections.estimate(|section| mean(&section.column(|target| target.entropy)));
    let entropy = Check {
        section: "3.5",
        name: format!("simulated E[H], {name}"),
        value: value.value,
        expected: oracle.entropy,
        error: Error::Standard(value.standard_error.hypot(oracle.error)),
        at_most: false,
    };
    let limit = Check {
        name: format!("at most the limit, {name}"),
        expected: closed::network_limit_bits(oracle.per_s, oracle.layers, oracle.mean_s),
        error: Error::Standard(value.standard_error),
        at_most: true,
        ..entropy.clone()
    };
    vec![entropy, limit, calibration("3.5", &name, sections)]
}

fn judge_latency(setup: &Setup, sections: &Sections) -> Vec<Check> {
    #[expect(clippy::cast_precision_loss, reason = "layers are few")]
    let hops = setup.layers as f64;
    let mean_s = 0.05;
    let mut checks = vec![check(
        "3.2",
        format!("simulated latency, mean, {hops} × {mean_s} s"),
        sections.estimate(|section| section.latency_mean() * mean_s),
        hops * mean_s,
    )];
    for q in [0.5, 0.9, 0.95, 0.99, 0.999] {
        checks.push(check(
            "3.2",
            format!("simulated latency, quantile {q}, {hops} × {mean_s} s"),
            sections.estimate(|section| section.latency_quantile(q) * mean_s),
            closed::erlang_quantile(setup.layers, mean_s, q),
        ));
    }
    checks
}

/// Pool mixes: 3.6.
fn pools(level: Level) -> Vec<Study> {
    let mut studies = threshold_pools(level);
    let targets = match level {
        Level::Quick => 2_000,
        Level::Full => 20_000,
    };
    for (rate, kept, entropy, error) in [
        (100.0, 10, 7.1349, 0.0011),
        (100.0, 100, 8.6474, 0.0003),
        (20.0, 50, 7.3531, 0.0002),
    ] {
        studies.push(Study {
            setup: Setup {
                rate,
                pool: Some(Pool {
                    kept,
                    ..Pool::default()
                }),
                ..Setup::default()
            },
            targets,
            judge: Box::new(move |_, sections| {
                let name = format!("timed pool, {rate} per interval, {kept} kept");
                let value =
                    sections.estimate(|section| mean(&section.column(|target| target.entropy)));
                let entropy = Check {
                    section: "3.6",
                    name: format!("simulated E[H], {name}"),
                    value: value.value,
                    expected: entropy,
                    error: Error::Standard(value.standard_error.hypot(error)),
                    at_most: false,
                };
                let kept: f64 = u32::try_from(kept).expect("few").into();
                vec![
                    entropy,
                    calibration("3.6", &name, sections),
                    delay(
                        &name,
                        sections,
                        closed::pool_delay_batches(rate, kept, true),
                    ),
                ]
            }),
        });
    }
    studies
}

/// Threshold mixes behind each other whose batches do not coincide: what leaves together is cut by
/// the next batch, so that its order must tell nothing. Entropies are those of a simulation of its
/// own (Python, mass by mass, 60 000 messages).
fn meeting_batches(level: Level) -> Vec<Study> {
    let targets = match level {
        Level::Quick => 8_000,
        Level::Full => 40_000,
    };
    let lossy = Links {
        loss: 0.2,
        ..Links::default()
    };
    [
        ("3 × 2 mixes of 10", 2, None, (5.2215, 0.0010)),
        (
            "cascade of 3 mixes of 10, a fifth of packets lost on each link",
            1,
            Some(lossy),
            (3.8954, 0.0016),
        ),
    ]
    .into_iter()
    .map(|(name, width, links, (entropy, error))| Study {
        setup: Setup {
            layers: 3,
            width,
            rate: 10.0,
            pool: Some(Pool {
                batch: Some(10),
                ..Pool::default()
            }),
            links,
            ..Setup::default()
        },
        targets,
        judge: Box::new(move |_, sections| {
            let found = sections.estimate(|section| mean(&section.column(|target| target.entropy)));
            let entropy = Check {
                section: "3.6",
                name: format!("simulated E[H], {name}"),
                value: found.value,
                expected: entropy,
                error: Error::Standard(found.standard_error.hypot(error)),
                at_most: false,
            };
            vec![entropy, calibration("3.6", name, sections)]
        }),
    })
    .collect()
}

/// Mean time in a pool mix.
fn delay(name: &str, sections: &Sections, expected: f64) -> Check {
    let found = sections.estimate(Section::latency_mean);
    check(
        "3.6",
        format!("simulated delay in batches, {name}"),
        found,
        expected,
    )
}

/// Threshold pools, whose posteriors do not depend on chance.
fn threshold_pools(level: Level) -> Vec<Study> {
    let targets = match level {
        Level::Quick => 128,
        Level::Full => 1024,
    };
    [
        (1, 100, 10),
        (1, 100, 100),
        (1, 50, 50),
        (1, 20, 80),
        (1, 10, 90),
        (4, 64, 0),
    ]
    .into_iter()
    .map(|(layers, batch, kept)| {
        #[expect(clippy::cast_precision_loss, reason = "batches are small")]
        let (size, stays) = (batch as f64, kept as f64);
        Study {
            setup: Setup {
                layers,
                rate: size,
                pool: Some(Pool {
                    batch: Some(batch),
                    kept,
                    ..Pool::default()
                }),
                ..Setup::default()
            },
            targets,
            judge: Box::new(move |_, sections| {
                let entropy = |section: &Section| mean(&section.column(|target| target.entropy));
                let name = format!("{layers} × ({batch} in, {kept} kept)");
                // Deeper mixes of a cascade without `kept` send at once.
                let expected = closed::pool_delay_batches(size, stays, false);
                vec![
                    Check {
                        section: "3.6",
                        name: format!("simulated pool, {name}"),
                        value: entropy(&sections.all),
                        expected: closed::threshold_pool_bits(size, stays),
                        // What the residual mass can still add.
                        error: Error::Rounding(1e-7),
                        at_most: false,
                    },
                    delay(&name, sections, expected),
                ]
            }),
        }
    })
    .collect()
}
