//! What is simulated: one file that both engines read.
//!
//! A scenario is TOML, versioned, with the unit of each number in its key; see
//! [`keys::KEYS`] for the language and [`ScenarioError`] for how faults are reported.
//! Its [`hash`](Scenario::hash) is SHA-256 of the canonical form: comments, order and
//! defaults written out do not change it.

mod check;
mod idle;
pub mod keys;
mod packet;
mod parts;
mod read;

pub use check::{IN_FLIGHT_MIN, regions_fault, trace_fault};
use keys::Value;
pub use parts::{
    Adversary, Capacity, Engine, FlowSettings, Links, Network, PacketSettings, Pattern, Placement,
    Strategy, Topology, Traffic, Trigger,
};
pub use read::{ScenarioError, Values};
use sha2::{Digest, Sha256};

/// One scenario, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Heading of the report; may be empty.
    pub title: String,
    /// Which engine runs it.
    pub engine: Engine,
    /// Layers and widths.
    pub network: Network,
    /// How a mix decides when packets leave.
    pub strategy: Strategy,
    /// What a mix can process; `None` without limit.
    pub capacity: Option<Capacity>,
    /// How long links take and what they lose.
    pub links: Links,
    /// What users send.
    pub traffic: Traffic,
    /// What the adversary does besides watching every link.
    pub adversary: Adversary,
    /// Settings of the flow engine.
    pub flow: FlowSettings,
    /// Settings of the packet engine.
    pub packet: PacketSettings,
    /// Every key and value, defaults included: what is hashed.
    pub canonical: String,
}

impl Scenario {
    /// Reads a scenario file's text.
    ///
    /// # Errors
    ///
    /// The first fault by line: syntax, an unknown key, a value of the wrong kind or out of
    /// range, a missing version, or values that do not go together.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        Self::from_values(&Values::read(text)?)
    }

    /// As [`parse`](Self::parse), with values from outside that win over the file's.
    ///
    /// # Errors
    ///
    /// As `parse`.
    pub fn parse_with(
        text: &str,
        overrides: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Self, ScenarioError> {
        let mut values = Values::read(text)?;
        for (name, value) in overrides {
            values.set(name, value)?;
        }
        Self::from_values(&values)
    }

    fn from_values(v: &Values) -> Result<Self, ScenarioError> {
        let size = |name| usize::try_from(v.count(name)).expect("the table bounds it");
        let small = |name| u32::try_from(v.count(name)).expect("the table bounds it");
        let seconds = |name| v.real(name) / 1e3;
        let share = |name| f64::from(small(name)) / 1e6;
        let scenario = Self {
            title: v.text("title").to_owned(),
            engine: match v.text("engine") {
                "packet" => Engine::Packet,
                _ => Engine::Flow,
            },
            network: Network {
                topology: match v.text("network.topology") {
                    "cascade" => Topology::Cascade,
                    "free" => Topology::Free,
                    "p2p" => Topology::PeerToPeer,
                    _ => Topology::Stratified,
                },
                layers: size("network.layers"),
                mixes_per_layer: size("network.mixes_per_layer"),
                gateways: size("network.gateways"),
            },
            strategy: strategy(v),
            capacity: (v.real("mix.packets_per_s") > 0.0).then(|| Capacity {
                packets_per_s: v.real("mix.packets_per_s"),
                queue: size("mix.queue"),
            }),
            links: Links {
                delay_s: seconds("links.delay_ms"),
                jitter_s: seconds("links.jitter_ms"),
                loss: share("links.loss_ppm"),
                regions_s: check::regions_s(v)?,
            },
            traffic: Traffic {
                users: v.count("traffic.users"),
                payload_per_user_per_s: v.real("traffic.payload_per_user_per_s"),
                loop_per_user_per_s: v.real("traffic.loop_per_user_per_s"),
                pattern: match v.text("traffic.pattern") {
                    "on-off" => Pattern::OnOff {
                        online_s: v.real("traffic.online_s"),
                        offline_s: v.real("traffic.offline_s"),
                    },
                    "sessions" => Pattern::Sessions {
                        online_s: v.real("traffic.online_s"),
                    },
                    "trace" => Pattern::Trace(check::trace_s(v)?),
                    _ => Pattern::Steady,
                },
                loop_per_mix_per_s: v.real("traffic.loop_per_mix_per_s"),
                dummy_per_user_per_s: v.real("traffic.dummy_per_user_per_s"),
                dummy_per_mix_per_s: v.real("traffic.dummy_per_mix_per_s"),
                frame_bytes: v.count("traffic.frame_bytes"),
            },
            adversary: Adversary {
                corrupt_mixes_per_layer: size("adversary.corrupt_mixes_per_layer"),
                placement: match v.text("adversary.placement") {
                    "balanced" => Placement::Balanced,
                    "random" => Placement::Random,
                    _ => Placement::Greedy,
                },
                drop: share("adversary.drop_ppm"),
                delay_s: seconds("adversary.delay_ms"),
                flood_per_s: v.real("adversary.flood_per_s"),
                unwatched_mixes_per_layer: size("adversary.unwatched_mixes_per_layer"),
                unwatched_layers: check::layers(v, "adversary.unwatched_layers")?,
            },
            flow: FlowSettings {
                targets: v.count("flow.targets"),
                window_means: v.real("flow.window_means"),
                receivers: size("flow.receivers"),
                contacts: size("flow.contacts_per_user"),
                popularity: v.real("flow.popularity_exponent"),
                guesswork: v.flag("flow.guesswork"),
                games: v.count("flow.games"),
            },
            packet: PacketSettings {
                duration_s: v.real("packet.duration_s"),
                messages_per_user: v.count("packet.messages_per_user"),
                message_bytes: size("packet.message_bytes"),
                loss_ppm: small("packet.loss_ppm"),
                restarts: small("packet.restarts"),
                replays: small("packet.replays"),
                node_loops: v.flag("packet.node_loops"),
                jitter_ms: v.real("packet.jitter_ms"),
                clock_skew_ms: v.real("packet.clock_skew_ms"),
                partitions: small("packet.partitions"),
                loss_bursts: small("packet.loss_bursts"),
                store_lag_ms: v.real("packet.store_lag_ms"),
                epoch_s: small("packet.epoch_s"),
            },
            canonical: v.canonical(),
        };
        scenario.check(v)?;
        Ok(scenario)
    }

    /// SHA-256 of the canonical form, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        hexadecimal(&Sha256::digest(self.canonical.as_bytes()))
    }
}

/// A hash as people read it.
pub(crate) fn hexadecimal(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn strategy(v: &Values) -> Strategy {
    let kept = usize::try_from(v.count("mix.kept")).expect("the table bounds it");
    let trigger = match v.text("mix.strategy") {
        "pool" => Trigger::Full {
            batch: usize::try_from(v.count("mix.batch")).expect("the table bounds it"),
        },
        word @ ("timed" | "dynamic") => Trigger::Every {
            interval_s: v.real("mix.interval_ms") / 1e3,
            fraction: if word == "dynamic" {
                v.real("mix.fraction")
            } else {
                1.0
            },
        },
        _ => {
            return Strategy::Poisson {
                delay_mean_s: v.real("mix.delay_mean_ms") / 1e3,
            };
        }
    };
    Strategy::Pool { trigger, kept }
}
