//! What is simulated: one file that both engines read.
//!
//! A scenario is TOML, versioned, with the unit of each number in its key; see
//! [`keys::KEYS`] for the language and [`ScenarioError`] for how faults are reported.
//! Its [`hash`](Scenario::hash) is SHA-256 of the canonical form: comments, order and
//! defaults written out do not change it.

pub mod keys;
mod read;

use keys::Value;
pub use read::{ScenarioError, Values};
use sha2::{Digest, Sha256};

/// Which engine runs the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Simple packets, exact posterior tracking: how anonymous, how slow, how costly.
    Flow,
    /// The deployed state machines with real packets: is the code right.
    Packet,
}

/// How a mix decides when packets leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// Each packet waits an exponential time.
    Poisson {
        /// Its mean, in seconds.
        delay_mean_s: f64,
    },
    /// Packets leave in batches, and some stay behind.
    Pool {
        /// When.
        trigger: Trigger,
        /// Packets that stay, chosen at random; 0 for none.
        kept: usize,
    },
}

/// When a pool sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trigger {
    /// When it holds `batch + kept` packets; with `kept = 0` a threshold mix.
    Full {
        /// Packets that leave together, ≥ 1.
        batch: usize,
    },
    /// At fixed times, whatever it holds above `kept`.
    Every {
        /// Time between them, in seconds.
        interval_s: f64,
    },
}

/// Which mix may follow which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// Any mix of the next layer, uniformly.
    #[default]
    Stratified,
    /// The mix of the next layer in the same chain: as many separate cascades as a layer is wide.
    Cascade,
}

/// Layers and widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Which mix may follow which.
    pub topology: Topology,
    /// Mixes that a packet passes, 1 to 32.
    pub layers: usize,
    /// Mixes in each layer, 1 to 10 000.
    pub mixes_per_layer: usize,
    /// Gateways; the flow engine has none.
    pub gateways: usize,
}

/// What users send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Clients.
    pub users: u64,
    /// Payload slots per user and second (a message or a drop).
    pub payload_per_user_per_s: f64,
    /// Loops per user and second.
    pub loop_per_user_per_s: f64,
    /// Bytes of a frame on a link.
    pub frame_bytes: u64,
}

impl Traffic {
    /// Packets that all users together send, per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "at most 1e9 users")]
    pub fn total_per_s(&self) -> f64 {
        self.users as f64 * (self.payload_per_user_per_s + self.loop_per_user_per_s)
    }
}

/// Settings of the flow engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowSettings {
    /// Messages to measure.
    pub targets: u64,
    /// Length of the stationary window of each replication, in mean passes of the network.
    pub window_means: f64,
    /// Receivers over which exits are aggregated; 0 for none.
    pub receivers: usize,
    /// Whether posteriors are kept whole and sorted.
    pub guesswork: bool,
}

/// Settings of the packet engine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacketSettings {
    /// Virtual seconds during which messages are sent.
    pub duration_s: f64,
    /// Messages that each client sends.
    pub messages_per_user: u64,
    /// Bytes of each message.
    pub message_bytes: usize,
    /// Frames lost by links, in parts per million.
    pub loss_ppm: u32,
    /// Restarts of random nodes and clients.
    pub restarts: u32,
    /// Packets that were captured on a link and are sent again, to the same node, later.
    pub replays: u32,
    /// Whether nodes send loops of their own.
    pub node_loops: bool,
    /// Most that a packet between nodes takes longer, in milliseconds.
    pub jitter_ms: f64,
    /// Most that two clocks differ, in milliseconds.
    pub clock_skew_ms: f64,
    /// Partitions that heal.
    pub partitions: u32,
    /// Stretches in which one entity's packets are all lost.
    pub loss_bursts: u32,
    /// Most that a disk answers later, in milliseconds.
    pub store_lag_ms: f64,
    /// Length of a key epoch, in seconds.
    pub epoch_s: u32,
}

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
    /// One-way delay of every link, in seconds.
    pub link_delay_s: f64,
    /// What users send.
    pub traffic: Traffic,
    /// Corrupt mixes in each layer, at most its width.
    pub corrupt_mixes_per_layer: usize,
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
        let scenario = Self {
            title: v.text("title").to_owned(),
            engine: match v.text("engine") {
                "packet" => Engine::Packet,
                _ => Engine::Flow,
            },
            network: Network {
                topology: match v.text("network.topology") {
                    "cascade" => Topology::Cascade,
                    _ => Topology::Stratified,
                },
                layers: size("network.layers"),
                mixes_per_layer: size("network.mixes_per_layer"),
                gateways: size("network.gateways"),
            },
            strategy: match v.text("mix.strategy") {
                "pool" => Strategy::Pool {
                    trigger: Trigger::Full {
                        batch: size("mix.batch"),
                    },
                    kept: size("mix.kept"),
                },
                "timed" => Strategy::Pool {
                    trigger: Trigger::Every {
                        interval_s: v.real("mix.interval_ms") / 1e3,
                    },
                    kept: size("mix.kept"),
                },
                _ => Strategy::Poisson {
                    delay_mean_s: v.real("mix.delay_mean_ms") / 1e3,
                },
            },
            link_delay_s: v.real("links.delay_ms") / 1e3,
            traffic: Traffic {
                users: v.count("traffic.users"),
                payload_per_user_per_s: v.real("traffic.payload_per_user_per_s"),
                loop_per_user_per_s: v.real("traffic.loop_per_user_per_s"),
                frame_bytes: v.count("traffic.frame_bytes"),
            },
            corrupt_mixes_per_layer: size("adversary.corrupt_mixes_per_layer"),
            flow: FlowSettings {
                targets: v.count("flow.targets"),
                window_means: v.real("flow.window_means"),
                receivers: size("flow.receivers"),
                guesswork: v.flag("flow.guesswork"),
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

    /// What no single key can show.
    fn check(&self, v: &Values) -> Result<(), ScenarioError> {
        let width = self.network.mixes_per_layer;
        if self.corrupt_mixes_per_layer > width {
            return Err(v.refuse(
                "adversary.corrupt_mixes_per_layer",
                &format!("be at most network.mixes_per_layer = {width}"),
            ));
        }
        let alone = self.engine == Engine::Packet && self.packet.node_loops;
        if self.traffic.users == 0 && !alone {
            return Err(v.refuse(
                "traffic.users",
                "be above 0, but for engine = \"packet\" with packet.node_loops",
            ));
        }
        if self.traffic.users > 0 && self.traffic.total_per_s() <= 0.0 {
            return Err(v.refuse(
                "traffic.payload_per_user_per_s",
                "be above 0 unless traffic.loop_per_user_per_s is",
            ));
        }
        if self.engine == Engine::Packet && self.network.topology == Topology::Cascade {
            return Err(v.refuse(
                "network.topology",
                "be \"stratified\" for engine = \"packet\"",
            ));
        }
        match (self.engine, self.strategy) {
            (Engine::Flow, Strategy::Poisson { delay_mean_s }) => {
                self.check_in_flight(v, delay_mean_s)
            }
            (Engine::Flow, Strategy::Pool { trigger, kept }) => self.check_pools(v, trigger, kept),
            (Engine::Packet, Strategy::Poisson { .. }) => {
                let most = f64::from(self.packet.epoch_s) * 1e3 / 16.0;
                if self.packet.clock_skew_ms > most {
                    let allowed = format!("be at most a sixteenth of packet.epoch_s, {most}");
                    return Err(v.refuse("packet.clock_skew_ms", &allowed));
                }
                Ok(())
            }
            (Engine::Packet, Strategy::Pool { .. }) => {
                Err(v.refuse("mix.strategy", "be \"poisson\" for engine = \"packet\""))
            }
        }
    }

    /// What the clock and the memory of the flow engine can hold, Poisson mixes.
    fn check_in_flight(&self, v: &Values, delay_mean_s: f64) -> Result<(), ScenarioError> {
        #[expect(clippy::cast_precision_loss, reason = "at most 32 layers")]
        let in_flight = self.traffic.total_per_s() * delay_mean_s * self.network.layers as f64;
        let most = if self.flow.guesswork {
            IN_FLIGHT_MAX_SORTED
        } else {
            IN_FLIGHT_MAX
        };
        if (IN_FLIGHT_MIN..=most).contains(&in_flight) {
            return Ok(());
        }
        let sorted = if self.flow.guesswork {
            " with flow.guesswork"
        } else {
            ""
        };
        Err(v.refuse(
            "traffic.users",
            &format!(
                "keep users × packets per second × layers × delay (here {in_flight} packets in \
                 flight) from {IN_FLIGHT_MIN} to {most}{sorted}"
            ),
        ))
    }

    /// What the memory and the patience for pool mixes allow.
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
    fn check_pools(&self, v: &Values, trigger: Trigger, kept: usize) -> Result<(), ScenarioError> {
        let width = self.network.mixes_per_layer as f64;
        let (name, batch) = match trigger {
            Trigger::Full { batch } => ("mix.batch", batch as f64),
            Trigger::Every { interval_s } => {
                let batch = self.traffic.total_per_s() * interval_s / width;
                ("mix.interval_ms", batch)
            }
        };
        let held = self.network.layers as f64 * width * (batch + kept as f64);
        if !(POOLED_MIN..=POOLED_MAX).contains(&held) {
            return Err(v.refuse(
                name,
                &format!(
                    "keep layers × mixes × (packets of a batch + kept), here {held}, from \
                     {POOLED_MIN} to {POOLED_MAX}"
                ),
            ));
        }
        if kept as f64 > batch * KEPT_PER_BATCH_MAX {
            return Err(v.refuse(
                "mix.kept",
                &format!("be at most {KEPT_PER_BATCH_MAX} × the packets of a batch, {batch}"),
            ));
        }
        Ok(())
    }

    /// SHA-256 of the canonical form, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        Sha256::digest(self.canonical.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Packets in flight that the flow engine accepts at most: about 4 GB.
const IN_FLIGHT_MAX: f64 = 1e8;

/// The same when posteriors are kept whole, 8 targets at a time: about 3 GB.
const IN_FLIGHT_MAX_SORTED: f64 = 1e6;

/// And at least: with fewer, the time between packets outgrows the clock.
const IN_FLIGHT_MIN: f64 = 1e-3;

/// Packets in all pools together: about 1 GB.
const POOLED_MAX: f64 = 1e7;

/// And at least, for a timed pool to see packets.
const POOLED_MIN: f64 = 0.01;

/// With more, a target's mass takes thousands of batches to leave.
const KEPT_PER_BATCH_MAX: f64 = 100.0;
