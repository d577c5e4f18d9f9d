//! The scenario language: every key with its kind, range, default and meaning.
//!
//! One table is the reference: the reader, the error messages, the canonical form that is
//! hashed, `lacuna-sim keys` and the table in `docs/SIMULATOR.md` all come from it. A new
//! setting is a line here and a field of [`Scenario`](super::Scenario).
//!
//! Keys under `flow.` are read by the flow engine alone, keys under `packet.` by the packet
//! engine alone, so that one file can serve both; all others mean the same to both, and what an engine can't do or
//! does not read is refused.

use proto::directory::params::EPOCH_S;

/// What a key may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number in `min..=max`.
    Count {
        /// Least value allowed.
        min: u64,
        /// Greatest value allowed.
        max: u64,
    },
    /// A finite number in `min..=max`.
    Real {
        /// Least value allowed.
        min: f64,
        /// Greatest value allowed.
        max: f64,
    },
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Any string.
    Text,
    /// `true` or `false`.
    Flag,
}

/// A value, from a file or as a default.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// For [`Kind::Count`].
    Count(u64),
    /// For [`Kind::Real`].
    Real(f64),
    /// For [`Kind::Text`] and [`Kind::Choice`].
    Text(std::borrow::Cow<'static, str>),
    /// For [`Kind::Flag`].
    Flag(bool),
}

/// One key of a scenario file.
#[derive(Clone, Debug)]
pub struct Key {
    /// Dotted name, the unit last: `mix.delay_mean_ms`.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What it holds when absent; `None` if it must be given.
    pub default: Option<Value>,
    /// What it means, in one line.
    pub meaning: &'static str,
}

impl Kind {
    /// Whether a key of this kind may hold `value`.
    #[must_use]
    pub fn allows(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Count { min, max }, Value::Count(n)) => (min..=max).contains(n),
            (Self::Real { min, max }, Value::Real(x)) => (min..=max).contains(x),
            (Self::Choice(words), Value::Text(word)) => words.contains(&word.as_ref()),
            (Self::Text, Value::Text(_)) | (Self::Flag, Value::Flag(_)) => true,
            _ => false,
        }
    }
}

impl core::fmt::Display for Kind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Count { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Real { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Choice(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                write!(f, "one of {}", words.join(", "))
            }
            Self::Text => f.write_str("a string"),
            Self::Flag => f.write_str("true or false"),
        }
    }
}

impl core::fmt::Display for Value {
    /// As TOML would write it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Real(x) => write!(f, "{x:?}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

const fn count(
    name: &'static str,
    (min, max): (u64, u64),
    default: u64,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        kind: Kind::Count { min, max },
        default: Some(Value::Count(default)),
        meaning,
    }
}

const fn real(
    name: &'static str,
    (min, max): (f64, f64),
    default: f64,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        kind: Kind::Real { min, max },
        default: Some(Value::Real(default)),
        meaning,
    }
}

const fn word(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        kind,
        default: Some(Value::Text(std::borrow::Cow::Borrowed(default))),
        meaning,
    }
}

const fn flag(name: &'static str, default: bool, meaning: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Flag,
        default: Some(Value::Flag(default)),
        meaning,
    }
}

/// Every key, in the order of the canonical form. Changing a name, default or the order
/// changes every scenario hash.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    Key {
        name: "version",
        kind: Kind::Count { min: 1, max: 1 },
        default: None,
        meaning: "version of this language; this program reads 1",
    },
    word("title", Kind::Text, "", "heading of the report"),
    word("engine", Kind::Choice(&["flow", "packet"]), "flow",
        "flow: exact anonymity of simple packets; packet: the deployed machines"),

    word("network.topology", Kind::Choice(&["stratified", "cascade", "free", "p2p"]), "stratified",
        "stratified: any mix of the next layer comes next; cascade: mixes_per_layer separate chains; \
         free: any other of all layers × mixes_per_layer mixes; p2p: the same, and each user is a mix"),
    count("network.layers", (1, 32), 3, "mixes that a packet passes, one per layer"),
    count("network.mixes_per_layer", (1, 10_000), 3, "width of each layer, or number of cascades"),
    count("network.gateways", (2, 1_000), 2, "gateways, where clients enter and have mailboxes (packet engine)"),

    word("mix.strategy", Kind::Choice(&["poisson", "pool", "timed", "dynamic"]), "poisson",
        "poisson: each packet waits an exponential time; pool: a batch leaves when full; timed: at each interval; \
         dynamic: at each interval a share of the pool"),
    real("mix.delay_mean_ms", (0.001, 600_000.0), 50.0, "mean wait per mix (poisson)"),
    count("mix.batch", (1, 1_000_000), 100, "packets that leave together (pool)"),
    real("mix.interval_ms", (0.001, 86_400_000.0), 1000.0, "time between batches (timed, dynamic)"),
    count("mix.kept", (0, 1_000_000), 0, "packets that stay behind at least, chosen at random (pool, timed, dynamic)"),
    real("mix.fraction", (0.01, 1.0), 0.6,
        "share of the packets held that leaves at an interval, rounded down; never more than those above mix.kept (dynamic)"),
    real("mix.packets_per_s", (0.0, 1e9), 0.0,
        "packets that a mix can process, at constant pace; others wait in line; 0 for no limit"),
    count("mix.queue", (0, 1_000_000), 1000, "packets that wait in line at most, if mix.packets_per_s is set; more are lost"),

    real("links.delay_ms", (0.0, 10_000.0), 0.0, "one-way delay of every link"),
    real("links.jitter_ms", (0.0, 10_000.0), 0.0,
        "how much longer a link takes at most, uniform, for each packet anew: packets overtake each other"),
    count("links.loss_ppm", (0, 200_000), 0, "packets that each link loses, in parts per million"),
    word("links.regions_ms", Kind::Text, "",
        "in place of links.delay_ms: one line for each region with the delays from it to each, separated by commas; \
         mixes are in the regions by turns, users at random"),

    count("traffic.users", (0, 1_000_000_000), 100,
        "users (clients); none is for packet.node_loops alone"),
    real("traffic.payload_per_user_per_s", (0.0, 1e6), 1.0,
        "payload slots of each user, a Poisson process; an idle slot sends a drop"),
    real("traffic.loop_per_user_per_s", (0.0, 1e6), 0.0, "loops of each user, a Poisson process"),
    real("traffic.loop_per_mix_per_s", (0.0, 1e6), 0.0,
        "loops of each mix, a Poisson process, through its own pool and the layers after it"),
    real("traffic.dummy_per_user_per_s", (0.0, 1e6), 0.0,
        "link dummies of each user, a Poisson process: they end at their first mix"),
    real("traffic.dummy_per_mix_per_s", (0.0, 1e6), 0.0,
        "link dummies of each mix, a Poisson process over all its links: they end at the link's other end"),
    word("traffic.pattern", Kind::Choice(&["steady", "on-off", "sessions", "trace"]), "steady",
        "steady: users always send; on-off: while online, each coming and going; sessions: new users for those who \
         leave, traffic.users at a time on average; trace: packets at the times of traffic.trace_s"),
    real("traffic.online_s", (0.001, 1e7), 600.0, "mean time online, exponential (on-off, sessions)"),
    real("traffic.offline_s", (0.001, 1e7), 600.0, "mean time between, exponential (on-off)"),
    word("traffic.trace_s", Kind::Text, "",
        "times of all packets in seconds, ascending, separated by commas or line ends; begins anew after the last (trace)"),
    count("traffic.frame_bytes", (1, 1_000_000), 2432, "size of everything on a link"),

    count("adversary.corrupt_mixes_per_layer", (0, 10_000), 0,
        "mixes of each layer that tell the adversary which packet went where; layers times as many of all with free routes"),
    word("adversary.placement", Kind::Choice(&["greedy", "balanced", "random"]), "greedy",
        "greedy: where most routes are corrupt, whole cascades; balanced: as many in each layer, at random; random: anywhere"),
    count("adversary.drop_ppm", (0, 1_000_000), 0, "packets that a corrupt mix drops, in parts per million"),
    real("adversary.delay_ms", (0.0, 600_000.0), 0.0, "how much longer a corrupt mix holds each packet"),
    real("adversary.flood_per_s", (0.0, 1e9), 0.0,
        "packets of its own that the adversary sends through the network, a Poisson process; it knows them everywhere"),
    count("adversary.unwatched_mixes_per_layer", (0, 10_000), 0,
        "mixes of each layer whose links the adversary does not watch, at random; layers times as many of all with free \
         routes, whole cascades"),
    word("adversary.unwatched_layers", Kind::Text, "",
        "layers in which it watches no mix, separated by commas, as in \"1, 3\" (stratified)"),

    count("flow.targets", (16, 10_000_000), 512, "messages whose anonymity is measured"),
    real("flow.window_means", (0.0, 10_000.0), 8.0,
        "time measured for latency and occupancy in each replication, in units of one pass of the network"),
    count("flow.receivers", (0, 1_000_000), 0,
        "receivers over which exits are aggregated; 0 leaves this out"),
    count("flow.contacts_per_user", (0, 10_000), 0,
        "contacts of each user, among the receivers, which the adversary knows of the measured sender; 0 for none"),
    real("flow.popularity_exponent", (0.0, 3.0), 0.0,
        "how unequal receivers are: the r-th is drawn with weight r to the minus this"),
    flag("flow.guesswork", false, "sort every posterior to measure guesswork"),
    count("flow.games", (0, 1_000_000), 0,
        "pairs of messages, and messages of two known senders, to measure unlinkability and Loopix's ε with, rounded up to 8 for each of the run's sections (up to 64: 512 unless flow.targets is below 512); 0 leaves both out"),

    real("packet.duration_s", (0.1, 86_400.0), 60.0, "virtual time during which messages are sent"),
    count("packet.messages_per_user", (0, 100_000), 3, "messages that each client sends"),
    count("packet.message_bytes", (1, 10_000_000), 1000, "size of each message"),
    count("packet.loss_ppm", (0, 500_000), 0, "frames that links lose, in parts per million"),
    count("packet.restarts", (0, 10_000), 0, "restarts of random nodes and clients"),
    count("packet.replays", (0, 10_000), 0, "captured packets that are sent again later"),
    flag("packet.node_loops", false, "whether nodes send loops of their own, as deployed ones do"),
    real("packet.jitter_ms", (0.0, 10_000.0), 0.0,
        "how much longer a packet between nodes takes at most, uniform: packets overtake each other"),
    real("packet.clock_skew_ms", (0.0, 300_000.0), 0.0,
        "how far two clocks differ at most; up to a sixteenth of packet.epoch_s"),
    count("packet.partitions", (0, 1_000), 0,
        "times that half of all nodes and clients can't reach the rest, for 1 to 8 s"),
    count("packet.loss_bursts", (0, 1_000), 0,
        "times that all packets out of one node or client are lost, for 0.5 to 3 s"),
    real("packet.store_lag_ms", (0.0, 60_000.0), 0.0, "how much later disks answer at most, uniform, in order"),
    count("packet.epoch_s", (*EPOCH_S.start() as u64, *EPOCH_S.end() as u64), 10_800,
        "length of a key epoch; if short, the first edge falls into the middle of the run"),
];

/// The table's line for `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
