//! Adversaries who are told what they don't see: dummies on single links, and mixes whose links
//! are not watched, each where a closed form says what must come out.
//!
//! | what                            | closed form                                             |
//! |---------------------------------|---------------------------------------------------------|
//! | dummies of mixes on last links  | one mix at ρ + δ                                        |
//! | dummies of users, large pools   | log₂(e ρ): what ends inside hides nothing that leaves   |
//! | no mix watched, one layer       | one mix at all packets of the layer                     |
//! | half of the mixes watched       | half of the messages pass one mix, half the crowd       |
//! | no mix watched, three layers    | three mixes in a row, by an oracle (3.5); at most what  |
//! |                                 | [`closed::unwatched_bits`] leaves                       |
//!
//! Each with calibration, which holds only if posteriors are exact.

use super::{
    Check, Level,
    simulated::{Sections, Study, calibration, check},
};
use crate::{
    closed,
    flow::{Section, Setup},
    stats::{Estimate, mean},
};

const SECTION: &str = "3.19";

fn entropy(section: &Section) -> f64 {
    mean(&section.column(|target| target.entropy))
}

fn study(name: &'static str, (setup, targets): (Setup, u64), expected: Estimate) -> Study {
    Study {
        setup,
        targets,
        judge: Box::new(move |setup: &Setup, sections: &Sections| {
            let value = sections.estimate(entropy);
            let error = value.standard_error.hypot(expected.standard_error);
            let both = Estimate {
                standard_error: error,
                ..value
            };
            let leaving = setup.rate + setup.last_dummies();
            let bound = closed::unwatched_bits(leaving, setup.layers);
            vec![
                check(
                    SECTION,
                    format!("simulated E[H], {name}"),
                    both,
                    expected.value,
                ),
                Check {
                    at_most: true,
                    ..check(
                        SECTION,
                        format!("at most without links, {name}"),
                        value,
                        bound,
                    )
                },
                calibration(SECTION, name, sections),
            ]
        }),
    }
}

pub(super) fn studies(level: Level) -> Vec<Study> {
    let targets = |quick, full| match level {
        Level::Quick => quick,
        Level::Full => full,
    };
    let bits = |rho| closed::single_poisson_mix(rho).entropy;
    let layer = |unwatched| Setup {
        width: 4,
        rate: 20.0,
        unwatched,
        ..Setup::default()
    };
    let published = Estimate {
        standard_error: 0.0014,
        ..Estimate::exact(5.9644)
    };
    vec![
        study(
            "ρ = 2, 3 dummies on the mix's links",
            (
                Setup {
                    rate: 2.0,
                    mix_dummies: 3.0,
                    ..Setup::default()
                },
                targets(8_000, 50_000),
            ),
            Estimate::exact(bits(5.0)),
        ),
        study(
            "ρ = 50, 50 dummies on users' links",
            (
                Setup {
                    rate: 50.0,
                    user_dummies: 50.0,
                    ..Setup::default()
                },
                targets(1_000, 10_000),
            ),
            Estimate::exact(closed::danezis_limit_bits(50.0)),
        ),
        study(
            "none of 4 mixes watched, ρ = 5",
            (layer(4), targets(2_000, 20_000)),
            Estimate::exact(bits(20.0)),
        ),
        study(
            "2 of 4 mixes watched, ρ = 5",
            (layer(2), targets(4_000, 40_000)),
            Estimate::exact(f64::midpoint(bits(5.0), bits(10.0))),
        ),
        study(
            "none of 3 × 3 mixes watched, 100 per s, 100 ms",
            (
                Setup {
                    layers: 3,
                    width: 3,
                    rate: 10.0,
                    dark: 0b111,
                    ..Setup::default()
                },
                targets(2_000, 40_000),
            ),
            published,
        ),
    ]
}
