//! What the packet engine can run: the deployed machines have parameters of their own, and every client and
//! message is held in memory.

use proto::directory::params::{DELAY_MEAN_MS_MAX, RATE_MAX_HZ};

use super::{
    Scenario, ScenarioError, Values,
    keys::{self, Value},
};
use crate::world;

/// Keys outside `flow.` that the packet engine can't do: they must hold their defaults there.
const FLOW_ALONE: &[&str] = &[
    "network.topology",
    "mix.strategy",
    "mix.packets_per_s",
    "links.jitter_ms",
    "links.loss_ppm",
    "links.regions_ms",
    "traffic.loop_per_mix_per_s",
    "traffic.dummy_per_user_per_s",
    "traffic.dummy_per_mix_per_s",
    "traffic.pattern",
    "traffic.frame_bytes",
    "adversary.corrupt_mixes_per_layer",
    "adversary.placement",
    "adversary.drop_ppm",
    "adversary.delay_ms",
    "adversary.flood_per_s",
    "adversary.unwatched_mixes_per_layer",
    "adversary.unwatched_layers",
];

/// Mixes and gateways: with the keys of all epochs their document stays within its limit of 16 MiB.
const NODES_MAX: u64 = 1_000;

/// Clients, each a machine of its own.
const USERS_MAX: u64 = 100_000;

/// Messages of all clients together.
const MESSAGES_MAX: u64 = 1_000_000;

/// Bytes of all messages together, which wait in outboxes at once if links are slow: 1 GB.
const MESSAGE_BYTES_MAX: u64 = 1_000_000_000;

impl Scenario {
    pub(super) fn check_packet(&self, v: &Values) -> Result<(), ScenarioError> {
        for name in FLOW_ALONE {
            let key = keys::find(name).expect("the table names it");
            let default = key.default.as_ref().expect("none of these is required");
            if !v.holds(name, default) {
                let must = if *default == Value::Text("".into()) {
                    "be absent".to_owned()
                } else {
                    format!("be {default}")
                };
                return Err(v.refuse(name, &format!("{must} for engine = \"packet\"")));
            }
        }
        if self.network.layers != world::LAYERS {
            let must = format!(
                "be {} for engine = \"packet\": the mixes of a deployed client's route",
                world::LAYERS
            );
            return Err(v.refuse("network.layers", &must));
        }
        self.check_parameters(v)?;
        self.check_size(v)
    }

    /// What the network's document can say (DIR-2).
    fn check_parameters(&self, v: &Values) -> Result<(), ScenarioError> {
        let delay_ms = v.real("mix.delay_mean_ms");
        if delay_ms.fract() != 0.0 || !(1.0..=f64::from(DELAY_MEAN_MS_MAX)).contains(&delay_ms) {
            let must = format!(
                "be a whole number from 1 to {DELAY_MEAN_MS_MAX} for engine = \"packet\": the network's document has no \
                 fractions"
            );
            return Err(v.refuse("mix.delay_mean_ms", &must));
        }
        let [payload, loops] =
            ["payload", "loop"].map(|one| format!("traffic.{one}_per_user_per_s"));
        let sum = v.real(&payload) + v.real(&loops);
        // Its downstream has twice the rate.
        let most = RATE_MAX_HZ / 2;
        if sum > f64::from(most) {
            let name = if v.real(&loops) > v.real(&payload) {
                &loops
            } else {
                &payload
            };
            let must = format!(
                "keep payload and loops of a user at most {most} per second together for engine = \"packet\", here {sum}"
            );
            return Err(v.refuse(name, &must));
        }
        let least = world::epoch_least_s(self);
        if self.packet.epoch_s < least {
            let must = format!(
                "be at least {least} for this mix.delay_mean_ms and packet.duration_s: packets must be through before \
                 keys change, and the keys of two documents outlast the run"
            );
            return Err(v.refuse("packet.epoch_s", &must));
        }
        let most = f64::from(self.packet.epoch_s) * 1e3 / 16.0;
        if self.packet.clock_skew_ms > most {
            let allowed = format!("be at most a sixteenth of packet.epoch_s, {most}");
            return Err(v.refuse("packet.clock_skew_ms", &allowed));
        }
        Ok(())
    }

    /// What fits into memory.
    fn check_size(&self, v: &Values) -> Result<(), ScenarioError> {
        let network = &self.network;
        let nodes = (network.layers * network.mixes_per_layer + network.gateways) as u64;
        let messages = self
            .traffic
            .users
            .saturating_mul(self.packet.messages_per_user);
        let bytes = messages.saturating_mul(self.packet.message_bytes as u64);
        for (name, what, most, here) in [
            (
                "network.mixes_per_layer",
                "mixes and gateways",
                NODES_MAX,
                nodes,
            ),
            ("traffic.users", "users", USERS_MAX, self.traffic.users),
            (
                "packet.messages_per_user",
                "messages of all users",
                MESSAGES_MAX,
                messages,
            ),
            (
                "packet.message_bytes",
                "bytes in all messages",
                MESSAGE_BYTES_MAX,
                bytes,
            ),
        ] {
            if here > most {
                let must =
                    format!("keep at most {most} {what} for engine = \"packet\", here {here}");
                return Err(v.refuse(name, &must));
            }
        }
        Ok(())
    }
}
