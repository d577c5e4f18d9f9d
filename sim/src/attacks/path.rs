//! Path compromise: a packet whose mixes are all corrupt shows who writes to whom. How many users
//! ever send one, as they send more? (Rahimi, NDSS 2026: with fresh routes, in the end everyone.)
//!
//! | strategy | route of a packet                                                    | at least one bad path |
//! |----------|----------------------------------------------------------------------|-----------------------|
//! | fresh    | a new one for each packet                                             | 1 − (1 − fᴸ)ᵏ          |
//! | session  | one for each session of `session` packets                             | 1 − (1 − fᴸ)^⌈k/session⌉ |
//! | guard    | one first mix for ever, the rest fresh                                | f (1 − (1 − fᴸ⁻¹)ᵏ)    |
//! | fixed    | one route for ever                                                    | fᴸ                    |
//!
//! f is the share of corrupt mixes in each layer. If layers are drawn anew every `period` packets, a
//! guard's luck is drawn anew too: each period is a trial of its own. Packets are all that a user sends,
//! cover and acks too: each is a chance.

use super::{figure, line, plot, reference, replicate, share_of};
use crate::{outcome::Outcome, random::Stream, stats::Estimate};

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Layers.
    pub layers: u32,
    /// Mixes of each layer.
    pub width: usize,
    /// Corrupt mixes of each layer, ≤ width.
    pub corrupt: usize,
    /// Packets of one route in strategy `session`.
    pub session: u64,
    /// Packets between two drawings of the layers; 0 for never.
    pub period: u64,
    /// Packets that each user sends.
    pub packets: u64,
    /// Users.
    pub replications: u64,
}

/// How routes are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Anew for each packet.
    Fresh,
    /// Anew for each session.
    Session,
    /// With one first mix for ever.
    Guard,
    /// Once.
    Fixed,
}

impl Strategy {
    /// All, in the order of the table.
    pub const ALL: [(&'static str, Strategy); 4] = [
        ("fresh", Strategy::Fresh),
        ("session", Strategy::Session),
        ("guard", Strategy::Guard),
        ("fixed", Strategy::Fixed),
    ];
}

impl Path {
    #[expect(clippy::cast_precision_loss, reason = "widths are small")]
    fn share(&self) -> f64 {
        self.corrupt as f64 / self.width as f64
    }

    /// Packets up to the user's first bad path, or none among `packets`.
    fn first_bad(&self, strategy: Strategy, stream: &mut Stream) -> Option<u64> {
        let bad = |stream: &mut Stream| stream.index(self.width) < self.corrupt;
        let route = |layers: u32, stream: &mut Stream| (0..layers).all(|_| bad(stream));
        let (mut guard, mut current) = (bad(stream), route(self.layers, stream));
        for packet in 0..self.packets {
            if self.period > 0 && packet > 0 && packet % self.period == 0 {
                (guard, current) = (bad(stream), route(self.layers, stream));
            }
            let hit = match strategy {
                Strategy::Fresh => route(self.layers, stream),
                Strategy::Session => {
                    if packet > 0 && packet % self.session == 0 {
                        current = route(self.layers, stream);
                    }
                    current
                }
                Strategy::Guard => guard && route(self.layers - 1, stream),
                Strategy::Fixed => current,
            };
            if hit {
                return Some(packet + 1);
            }
        }
        None
    }

    /// The closed form where layers stay: share of users with a bad path after `packets`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "packets below 2^53")]
    pub fn law(&self, strategy: Strategy, packets: u64) -> f64 {
        let f = self.share();
        let layers = self.layers.cast_signed();
        let ever = |each: f64, trials: u64| 1.0 - (1.0 - each).powf(trials as f64);
        match strategy {
            Strategy::Fresh => ever(f.powi(layers), packets),
            Strategy::Session => ever(f.powi(layers), packets.div_ceil(self.session)),
            Strategy::Guard => f * ever(f.powi(layers - 1), packets),
            Strategy::Fixed => f.powi(layers),
        }
    }

    /// Share of users with a bad path after all their packets, simulated.
    #[must_use]
    pub fn compromised(&self, strategy: Strategy, seed: u64) -> Estimate {
        share_of(&replicate(seed, self.replications, |stream| {
            self.first_bad(strategy, stream).is_some()
        }))
    }
}

/// The whole study.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "packets below 2^53")]
pub fn run(settings: &Path, seed: u64) -> Outcome {
    let looks: Vec<u64> = (0..=24)
        .map(|i| (settings.packets * i).div_ceil(24))
        .collect();
    let (mut figures, mut series) = (Vec::new(), Vec::new());
    for (name, strategy) in Strategy::ALL {
        let first = replicate(seed, settings.replications, |stream| {
            settings.first_bad(strategy, stream)
        });
        let until = |look: u64| {
            let hit = |first: &Option<u64>| first.is_some_and(|at| at <= look);
            let sections: Vec<Vec<bool>> = first
                .iter()
                .map(|section| section.iter().map(hit).collect())
                .collect();
            share_of(&sections)
        };
        let law = (settings.period == 0).then(|| settings.law(strategy, settings.packets));
        let label = format!("users with a path of corrupt mixes alone, routes: {name}");
        figures.push(figure(
            &format!("compromised_{name}"),
            &label,
            until(settings.packets),
            law,
        ));
        let points = looks.iter().map(|look| (*look as f64, until(*look).value));
        series.push(line(name, points.collect()));
    }
    if settings.period == 0 {
        let points = looks
            .iter()
            .map(|look| (*look as f64, settings.law(Strategy::Fresh, *look)));
        series.push(reference("fresh, computed", points.collect()));
    }
    Outcome {
        figures,
        plots: vec![plot(
            "Users with at least one bad path",
            "Share of users of whom at least one packet has met corrupt mixes alone.",
            ["packets sent", "share of users"],
            series,
        )],
        ..Outcome::default()
    }
}
