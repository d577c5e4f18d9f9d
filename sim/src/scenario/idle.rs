//! Keys that the chosen engine, topology, strategy or pattern does not read: who sets one expects an effect.
//!
//! A key may hold its default anywhere, and one that only counts or scales what there is none of (`mix.queue` without a
//! limit, `adversary.drop_ppm` without corrupt mixes) may hold anything: a sweep starts at 0. Keys of `flow.` and
//! `packet.` are each engine's own, and no fault in a file for the other.

use super::{Engine, Pattern, Scenario, ScenarioError, Strategy, Topology, Trigger, Values, keys};

impl Scenario {
    /// Refuses the first key, in the order of the table, that holds something and has no effect.
    pub(super) fn check_idle(&self, v: &Values) -> Result<(), ScenarioError> {
        let poisson = matches!(self.strategy, Strategy::Poisson { .. });
        let (full, every, share) = match self.strategy {
            Strategy::Poisson { .. } => (false, false, false),
            Strategy::Pool { trigger, .. } => match trigger {
                Trigger::Full { .. } => (true, false, false),
                Trigger::Every { .. } => (false, true, v.text("mix.strategy") == "dynamic"),
            },
        };
        let pattern = &self.traffic.pattern;
        let on_off = matches!(pattern, Pattern::OnOff { .. });
        let sessions = matches!(pattern, Pattern::Sessions { .. });
        let trace = matches!(pattern, Pattern::Trace(_));
        let p2p = self.network.topology == Topology::PeerToPeer;
        let regions = !self.links.regions_s.is_empty();
        for (name, read, why) in [
            (
                "network.mixes_per_layer",
                !p2p,
                "with network.topology = \"p2p\" the mixes are the users",
            ),
            (
                "network.gateways",
                self.engine == Engine::Packet,
                "engine = \"flow\" has no gateways",
            ),
            (
                "mix.delay_mean_ms",
                poisson,
                "mix.strategy is not \"poisson\"",
            ),
            ("mix.batch", full, "mix.strategy is not \"pool\""),
            (
                "mix.interval_ms",
                every,
                "mix.strategy is not \"timed\" or \"dynamic\"",
            ),
            (
                "mix.kept",
                !poisson,
                "mix.strategy is \"poisson\", which keeps no packets back",
            ),
            ("mix.fraction", share, "mix.strategy is not \"dynamic\""),
            (
                "links.delay_ms",
                !regions,
                "links.regions_ms has the delays",
            ),
            (
                "traffic.payload_per_user_per_s",
                !trace,
                "with traffic.pattern = \"trace\" packets are at the times of traffic.trace_s",
            ),
            (
                "traffic.loop_per_user_per_s",
                !trace,
                "with traffic.pattern = \"trace\" packets are at the times of traffic.trace_s",
            ),
            (
                "traffic.online_s",
                on_off || sessions,
                "traffic.pattern is not \"on-off\" or \"sessions\"",
            ),
            (
                "traffic.offline_s",
                on_off,
                "traffic.pattern is not \"on-off\"",
            ),
            ("traffic.trace_s", trace, "traffic.pattern is not \"trace\""),
            (
                "flow.popularity_exponent",
                self.flow.receivers > 0,
                "flow.receivers is 0",
            ),
        ] {
            let default = keys::find(name).and_then(|key| key.default.as_ref());
            if !read && default.is_some_and(|default| !v.holds(name, default)) {
                return Err(v.refuse(name, &format!("be left out, for it has no effect: {why}")));
            }
        }
        Ok(())
    }
}
