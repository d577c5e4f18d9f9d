//! Figures of people instead of packets: users over several messages, pairs of correspondents,
//! two senders.

use super::{Estimate, Expected, Reader, Section, Target, mean};
use crate::flow::games::GAMES;

impl Reader<'_> {
    /// Quantiles over messages of one of their metrics, in bits.
    pub(super) fn quantiles(&mut self, name: &str, label: &str, metric: fn(&Target) -> f64) {
        for (q, quantile_name, which) in [
            (0.01, "p01", "at most this for the worst 1 %"),
            (0.05, "p05", "at most this for the worst 5 %"),
            (0.5, "p50", "median"),
        ] {
            let (name, label) = (
                format!("{name}_{quantile_name}_bits"),
                format!("{label}, {which}"),
            );
            let of = |section: &Section| section.column(metric);
            self.push_quantile((&name, &label), q, of);
        }
    }

    /// Quantiles over users. A user's messages here are those of one pass, close together: they
    /// learn from much the same traffic, so users differ more than over a whole day.
    pub(super) fn people(&mut self) {
        let n = self.all.users.len() as u64;
        if n == 0 {
            return;
        }
        for (q, name, label) in [
            (
                0.01,
                "p01",
                "Mean entropy over packets of a user's 8 messages, at most this for the worst 1 %",
            ),
            (
                0.05,
                "p05",
                "Mean entropy over packets of a user's 8 messages, at most this for the worst 5 %",
            ),
            (
                0.5,
                "p50",
                "Mean entropy over packets of a user's 8 messages, median",
            ),
        ] {
            let name = format!("pass_entropy_{name}_bits");
            let of = |section: &Section| section.users.iter().map(|user| user.0).collect();
            self.push_quantile((&name, label), q, of);
        }
        let least = self.estimate(n, |section| {
            mean(&section.users.iter().map(|user| user.1).collect::<Vec<_>>())
        });
        let label = "Least entropy over packets of a user's 8 messages, mean";
        self.push("pass_entropy_least_mean_bits", label, least, None);
    }

    /// What an adversary knows of the receiver who knows the sender's contacts.
    pub(super) fn contacts(&mut self) {
        let over = self.of_targets(|target| target.contact_entropy);
        let label = "Shannon entropy over the sender's contacts, known, mean";
        self.push("contact_entropy_mean_bits", label, over, None);
        let label = "Shannon entropy over the sender's contacts";
        self.quantiles("contact_entropy", label, |target| target.contact_entropy);
        let gap = self.gap(
            |target| target.contact_log_loss - target.contact_entropy,
            |target| target.contact_varentropy,
        );
        let label = "Calibration over the sender's contacts";
        let expected = Some(Expected::Equals(0.0));
        self.push("contact_calibration_gap_bits", label, gap, expected);
    }

    /// Unlinkability of two pairs, and ε of Loopix.
    #[expect(clippy::cast_precision_loss, reason = "counts fit in memory")]
    pub(super) fn games(&mut self) {
        let n = self.all.advantages.len() as u64;
        if n > 0 {
            // In one layer, messages in one mix are alike and others are not.
            let single = self.setup.layers == 1 && self.setup.corrupt == 0;
            let width = self.setup.width as f64;
            let expected = single.then_some(Expected::Equals(1.0 - 1.0 / width));
            let advantage = self.estimate(n, |section| mean(&section.advantages));
            let label = "Who of two wrote to whom: advantage of guessing, mean";
            self.push("unlinkability_advantage_mean", label, advantage, expected);
        }
        if self.all.labels > 0 {
            let epsilon = self.estimate(self.all.epsilons.len() as u64, |section| {
                mean(&section.epsilons)
            });
            let label = "ε of Loopix: |ln| of how much likelier one of two senders is, mean";
            self.push("loopix_epsilon_mean", label, epsilon, None);
            let impossible =
                |section: &Section| 1.0 - section.epsilons.len() as f64 / section.labels as f64;
            let mut delta = self.estimate(self.all.labels, impossible);
            if delta.standard_error == 0.0 {
                // None or all. The packets of one game are not independent: as many trials as games.
                let games = self.all.labels.div_ceil(GAMES);
                delta = Estimate::share(if delta.value > 0.0 { games } else { 0 }, games);
            }
            let label = "δ of Loopix: one of two senders is impossible";
            self.push("loopix_delta", label, delta, None);
        }
    }
}
