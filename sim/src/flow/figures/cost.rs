//! What links carry: computed, not simulated.

use super::Reader;
use crate::stats::Estimate;

impl Reader<'_> {
    /// What needs no simulation, for the reader's convenience.
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
    pub(super) fn cost(&mut self) {
        let traffic = &self.scenario.traffic;
        let upstream = traffic.per_user_per_s() + traffic.dummy_per_user_per_s;
        let bytes = upstream * traffic.frame_bytes as f64;
        // Dummies on single links come to a mix and go no further; those on last links come to none.
        let (mixes, layers) = (self.setup.mixes() as f64, self.setup.layers as f64);
        let dummies = traffic.users as f64 * traffic.dummy_per_user_per_s / mixes
            + traffic.dummy_per_mix_per_s * (layers - 1.0) / layers;
        // As if a loop came to every layer, as those of deployed nodes do: too much for the engine's, which start
        // in their own layer.
        let loops = traffic.loop_per_mix_per_s * self.setup.layers as f64;
        let mix = self.scenario.through_mix_per_s() + loops;
        for (name, label, value) in [
            (
                "user_upstream_bytes_per_s",
                "Upstream of each user, computed",
                bytes,
            ),
            (
                "mix_packets_per_s",
                "Packets through each mix, computed",
                mix,
            ),
            (
                "mix_bytes_per_s",
                "Bytes into each mix, computed",
                (mix + dummies) * traffic.frame_bytes as f64,
            ),
        ] {
            self.push(name, label, Estimate::exact(value), None);
        }
    }
}
