//! Figures that are bounds, since the adversary is told more than it sees.

use super::{Reader, Route, Side};

impl Reader<'_> {
    /// Whether the adversary is told more than it sees: hops, loops, dummies, times in crowds.
    pub(super) fn is_helped(&self) -> bool {
        self.is_told() || self.setup.route == Route::Free || self.setup.loops > 0.0
    }

    /// Which bound the figure `name` is where the adversary is helped. Only of what is concave in the posterior, on
    /// average: of quantiles, minima and other entropies a helped adversary may have more.
    pub(super) fn bound(&self, name: &str) -> Option<Side> {
        let side = match name {
            "entropy_mean_bits"
            | "guesswork_mean_packets"
            | "receiver_entropy_mean_bits"
            | "receiver_degree_mean"
            | "contact_entropy_mean_bits"
            | "log_loss_mean_bits" => Side::AtLeast,
            "bayes_vulnerability_mean" => Side::AtMost,
            _ => return None,
        };
        self.is_helped().then_some(side)
    }
}
