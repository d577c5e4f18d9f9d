//! The parts of a scenario, each a section of its file.
//!
//! | section     | type                                   |
//! |-------------|----------------------------------------|
//! | `network`   | [`Network`], [`Topology`]              |
//! | `mix`       | [`Strategy`], [`Trigger`], [`Capacity`] |
//! | `links`     | [`Links`]                              |
//! | `traffic`   | [`Traffic`], [`Pattern`]               |
//! | `adversary` | [`Adversary`], [`Placement`]           |
//! | `flow`, `packet` | [`FlowSettings`], [`PacketSettings`] |
//!
//! Times are in seconds, rates per second, unless a name says otherwise.

use std::sync::Arc;

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
    /// At fixed times: a share of what it holds, but only what is above `kept`.
    Every {
        /// Time between them, in seconds.
        interval_s: f64,
        /// The share, above 0; 1 for a timed pool, less for a timed dynamic one.
        fraction: f64,
    },
}

/// What a mix can process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// Packets per second, > 0.
    pub packets_per_s: f64,
    /// Packets that wait in line at most.
    pub queue: usize,
}

/// Which mix may follow which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// Any mix of the next layer, uniformly.
    #[default]
    Stratified,
    /// The mix of the next layer in the same chain: as many separate cascades as a layer is wide.
    Cascade,
    /// Any other mix of all, `layers` times.
    Free,
    /// The same, and every user is a mix.
    PeerToPeer,
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

/// How long links take and what they lose.
#[derive(Clone, Debug, PartialEq)]
pub struct Links {
    /// One-way delay of every link, where there are no regions.
    pub delay_s: f64,
    /// How much longer a link takes at most, uniform, for each packet anew.
    pub jitter_s: f64,
    /// Share of packets that each link loses.
    pub loss: f64,
    /// One-way delays from each region to each; empty without regions.
    pub regions_s: Arc<[Vec<f64>]>,
}

/// When users send.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// Always.
    Steady,
    /// Each user goes online and offline, for exponential times.
    OnOff {
        /// Mean time online.
        online_s: f64,
        /// Mean time between.
        offline_s: f64,
    },
    /// Users come for an exponential time and never again; new ones come as often.
    Sessions {
        /// Its mean.
        online_s: f64,
    },
    /// Packets at given times in seconds, ascending, over and over: the last ends the round.
    Trace(Arc<[f64]>),
}

/// What users send.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Clients.
    pub users: u64,
    /// Payload slots per user and second (a message or a drop).
    pub payload_per_user_per_s: f64,
    /// Loops per user and second.
    pub loop_per_user_per_s: f64,
    /// When.
    pub pattern: Pattern,
    /// Loops of each mix per second, through its own pool and the layers after it.
    pub loop_per_mix_per_s: f64,
    /// Dummies of each user per second: each ends at its first mix.
    pub dummy_per_user_per_s: f64,
    /// Dummies of each mix per second, over all its links: each ends at the link's other end.
    pub dummy_per_mix_per_s: f64,
    /// Bytes of a frame on a link.
    pub frame_bytes: u64,
}

impl Traffic {
    /// Packets that all users together send, per second, on average.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "at most 1e9 users")]
    pub fn total_per_s(&self) -> f64 {
        match &self.pattern {
            Pattern::Trace(times) => match times.last() {
                Some(end) => times.len() as f64 / end,
                None => 0.0,
            },
            Pattern::Steady | Pattern::OnOff { .. } | Pattern::Sessions { .. } => {
                self.users as f64 * self.per_user_per_s()
            }
        }
    }

    /// Packets of one user per second, on average over its times online and offline; for a
    /// trace, an equal share for each user.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "at most 1e9 users")]
    pub fn per_user_per_s(&self) -> f64 {
        let online = match &self.pattern {
            Pattern::Steady | Pattern::Sessions { .. } => 1.0,
            Pattern::OnOff {
                online_s,
                offline_s,
            } => online_s / (online_s + offline_s),
            Pattern::Trace(_) => return self.total_per_s() / self.users as f64,
        };
        online * (self.payload_per_user_per_s + self.loop_per_user_per_s)
    }
}

/// Where corrupt mixes stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Where most routes meet no honest mix: as many in each layer, in the same cascades.
    #[default]
    Greedy,
    /// As many in each layer, at random.
    Balanced,
    /// Anywhere, at random.
    Random,
}

/// What the adversary sees, and does besides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adversary {
    /// Corrupt mixes in each layer, at most its width (free routes: their total by layers).
    pub corrupt_mixes_per_layer: usize,
    /// Where they stand.
    pub placement: Placement,
    /// Share of packets that a corrupt mix drops.
    pub drop: f64,
    /// How much longer a corrupt mix holds packets.
    pub delay_s: f64,
    /// Packets of its own that it sends through the network.
    pub flood_per_s: f64,
    /// Mixes in each layer whose links it does not watch (free routes: their total by layers).
    pub unwatched_mixes_per_layer: usize,
    /// Layers in which it watches none, the first in the lowest bit.
    pub unwatched_layers: u32,
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
    /// Contacts of each user among them; 0 for none.
    pub contacts: usize,
    /// How unequal receivers are: the r-th has weight `r^-popularity`.
    pub popularity: f64,
    /// Whether posteriors are kept whole and sorted.
    pub guesswork: bool,
    /// Games of unlinkability and of Loopix's ε to play.
    pub games: u64,
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
