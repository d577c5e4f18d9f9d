//! What a mailbox gateway sees of receiving: how many packets come for a mailbox.
//!
//! A client that is online sends itself loops at a constant rate, so packets arrive whether or not it is
//! written to; `packets` more in a window are a message. The gateway counts and compares with a threshold,
//! which is the best test of Poisson counts. A client that is offline sends no loops: every packet in its
//! mailbox is somebody's. No defence is claimed (docs/THREAT_MODEL.md); the curves say how much it learns.
//!
//! With N ~ Poisson(λ_L T), the false positive rate is P(N > c), the true one P(N + packets > c).

use super::{bound, chance_from, figure, line, mean_of, plot, replicate, roc_from};
use crate::{
    closed::poisson_tail,
    outcome::{Outcome, RunError},
    stats::Estimate,
};

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Receiving {
    /// Loops of the client per second.
    pub loops_per_s: f64,
    /// Packets of the message.
    pub packets: u64,
    /// Length of the window, in seconds.
    pub window_s: f64,
    /// Independent windows of each kind.
    pub replications: u64,
}

impl Receiving {
    /// False and true positive rate for an alarm on more than `threshold` packets.
    #[must_use]
    pub fn rates(&self, threshold: u64) -> (f64, f64) {
        let mean = self.loops_per_s * self.window_s;
        let found = threshold
            .checked_sub(self.packets)
            .map_or(1.0, |threshold| poisson_tail(mean, threshold));
        (poisson_tail(mean, threshold), found)
    }

    /// The curve, from nothing found to everything: rates for each threshold, falling.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "packets of a window"
    )]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let mean = self.loops_per_s * self.window_s;
        let most = (mean + 12.0 * mean.sqrt()).ceil() as u64 + self.packets + 20;
        let inner = (0..=most).rev().map(|threshold| self.rates(threshold));
        core::iter::once((0.0, 0.0))
            .chain(inner)
            .chain([(1.0, 1.0)])
            .collect()
    }

    /// Area under it, ties half.
    #[must_use]
    pub fn area(&self) -> f64 {
        let curve = self.curve();
        let slice = |pair: &[(f64, f64)]| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0;
        curve.windows(2).map(slice).sum()
    }

    /// The same, simulated.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "packets of a window")]
    pub fn simulated_area(&self, seed: u64) -> Estimate {
        let mean = self.loops_per_s * self.window_s;
        let wins = replicate(seed, self.replications, |stream| {
            let own = stream.poisson(mean) as f64 + self.packets as f64;
            let other = stream.poisson(mean) as f64;
            match own.total_cmp(&other) {
                core::cmp::Ordering::Greater => 1.0,
                core::cmp::Ordering::Equal => 0.5,
                core::cmp::Ordering::Less => 0.0,
            }
        });
        mean_of(&wins)
    }
}

/// Least false positive rate that the picture shows.
const ROC_FROM: f64 = 1e-4;

/// Found at a false positive rate of at most `rate`.
fn found_at(curve: &[(f64, f64)], rate: f64) -> f64 {
    let allowed = curve.iter().filter(|(f, _)| *f <= rate);
    allowed.map(|(_, t)| *t).fold(0.0, f64::max)
}

/// Loops in a window at most: the curve has a point for each number of packets, each a sum over all above.
const LOOPS_MAX: f64 = 1e4;

/// The whole study.
///
/// # Errors
///
/// [`RunError::Usage`] if it would take too long.
pub fn run(settings: &Receiving, seed: u64) -> Result<Outcome, RunError> {
    let loops = settings.loops_per_s * settings.window_s;
    let lower = "--loops-per-s or --window-s";
    bound("loops in a window", loops, LOOPS_MAX, lower)?;
    let offline = Receiving {
        loops_per_s: 0.0,
        ..*settings
    };
    let curve = settings.curve();
    Ok(Outcome {
        figures: vec![
            figure(
                "auc_online",
                "area under the ROC curve, client online",
                settings.simulated_area(seed),
                Some(settings.area()),
            ),
            figure(
                "tpr_at_1e-2_online",
                "found at 1 % false, client online, computed",
                Estimate::exact(found_at(&curve, 0.01)),
                None,
            ),
            figure(
                "auc_offline",
                "area under the ROC curve, client offline",
                offline.simulated_area(seed),
                Some(offline.area()),
            ),
        ],
        plots: vec![plot(
            "Is this mailbox written to?",
            "Share of windows with a message that the gateway finds, over the share of others that it takes for one; \
             computed. The left end has all that is found at less.",
            ["false positive rate", "true positive rate"],
            vec![
                line("online", roc_from(ROC_FROM, curve)),
                line("offline", roc_from(ROC_FROM, offline.curve())),
                chance_from(ROC_FROM),
            ],
        )],
        ..Outcome::default()
    })
}
