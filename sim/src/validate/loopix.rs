//! Loopix's ε (SIMULATOR.md 3.17): the engine's chain against a simulation of its own by others,
//! whose published means these are.
//!
//! 100 senders of 2 slots per unit, 3 mixes in each layer, two of the senders with a message at
//! the start of each unit, which waits for a slot; ε of packets that leave honest mixes. Either side
//! has a standard error; z is taken with both.

use super::{
    Check, Error, Level,
    simulated::{Sections, Study},
};
use crate::{
    flow::{Section, Setup},
    stats::mean,
};

/// Layers, 1 / mean delay, corrupt mixes in each layer; ε and its standard error.
type Published = (usize, f64, usize, f64, f64);

const PUBLISHED: [Published; 12] = [
    (3, 1.0, 0, 0.1862, 0.0033),
    (3, 2.0, 0, 0.4228, 0.0080),
    (2, 1.0, 0, 0.2895, 0.0053),
    (3, 1.0, 1, 0.3862, 0.0063),
    (3, 0.2, 0, 0.025, 0.002),
    (3, 0.4, 0, 0.062, 0.004),
    (3, 0.6, 0, 0.103, 0.006),
    (1, 1.0, 0, 2.58, 0.16),
    (4, 1.0, 0, 0.137, 0.008),
    (5, 1.0, 0, 0.118, 0.007),
    (7, 1.0, 0, 0.096, 0.006),
    (10, 1.0, 0, 0.074, 0.005),
];

pub(super) fn studies(level: Level) -> Vec<Study> {
    let (first, games) = match level {
        Level::Quick => (4, 1024),
        Level::Full => (PUBLISHED.len(), 4096),
    };
    PUBLISHED[..first]
        .iter()
        .map(|&(layers, mu, corrupt, expected, published)| Study {
            setup: Setup {
                layers,
                width: 3,
                corrupt,
                rate: 200.0 / mu,
                sender_rate: 2.0 / mu,
                games,
                window: 0.0,
                ..Setup::default()
            },
            targets: 16,
            judge: Box::new(move |_, sections: &Sections| {
                let value = sections.estimate(|section: &Section| mean(&section.epsilons));
                vec![Check {
                    section: "3.17",
                    name: format!(
                        "simulated ε, {layers} layers, μ {mu}, {corrupt} corrupt in each"
                    ),
                    value: value.value,
                    expected,
                    error: Error::Standard(value.standard_error.hypot(published)),
                    at_most: false,
                }]
            }),
        })
        .collect()
}
