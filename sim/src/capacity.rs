//! What a network for so many users takes: nodes, bandwidth, money, the document, latency,
//! anonymity. Every figure is a formula of what is given, except the length of the document, which
//! is that of two real ones, and entropy where it is measured.
//!
//! | quantity            | formula                                                                |
//! |---------------------|------------------------------------------------------------------------|
//! | traffic Λ           | users × (λP + λL): constant, whatever they do                          |
//! | nodes' loops        | N λM, LOOP-1; each has a mailbox of 5 λM                               |
//! | mixes of a layer W  | (Λ + N λM) / (n × packets/s of a processor), at least 5                |
//! | gateways            | (users × μD + 5 N λM) / (n × frames/s of a processor), at least 5      |
//! | processors a node n | least power of two, up to 64, whose document is not too long (DIR-5)   |
//! | document            | a + b N, by the length of two that are built and encoded, without votes |
//! | download            | the frames that carry it (DIR-11), once a period to each user and node |
//! | latency             | [`crate::plan::latency`], and what links take                         |
//! | pool ρ              | Λ m / W                                                                |
//! | bound               | L times the entropy of one mix, nodes' loops with it (each mix adds its own at most), and the limit for large pools ([`network_limit_bits`]) where it holds; for users in place of packets, log₂ users |
//! | corrupt mixes       | f W of each layer, to the nearest whole number, at least one: c        |
//! | corrupt paths       | (c / W)^L                                                              |
//! | servers send        | L + 1 times each packet, once each downstream frame, and downloads     |
//! | cost                | processors × price + bytes servers send × price, 30 days, per user     |
//!
//! Taken for granted: a node of n processors does n times the work of one (only one was
//! measured); users spread evenly over gateways; frames without TLS, TCP and IP; all users online
//! and of one profile. Deliberately no disk space of mailboxes, no staff.

use proto::directory::{Params, Profile, ask::frames_of, consensus::BODY_LEN_MAX};

use crate::{
    closed::{LIMIT_FROM, danezis_limit_bits, network_limit_bits, single_poisson_mix},
    outcome::RunError,
    plan::{
        DEPLOYED, FRAME_BYTES, WIDTH_MIN,
        latency::{LOAD_MAX, Mailbox, Way},
        measured::{Layered, Measured, corrupt_of},
    },
    report::short,
    stats::Estimate,
    world,
};

/// Most processors of a node.
const PROCESSORS_MAX: u32 = 64;
/// Seconds of a month.
const MONTH_S: f64 = 30.0 * 86_400.0;
/// Most packets in flight that are measured.
const IN_FLIGHT_MAX: f64 = 1.5e6;
/// Messages measured.
const MESSAGES: u32 = 128;

/// What is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The network's parameters: delay, epochs.
    pub params: Params,
    /// What all users send.
    pub profile: Profile,
    /// Share of mixes that are corrupt.
    pub corrupt: f64,
    /// What all links of a way take together, in seconds, ≥ 0.
    pub links_s: f64,
    /// Packets per second planned for one processor of a mix.
    pub mix_per_s: f64,
    /// Downstream frames per second planned for one processor of a gateway.
    pub gateway_per_s: f64,
    /// Price of one processor for a month.
    pub processor_month: f64,
    /// Price of 10¹² bytes sent.
    pub terabyte: f64,
}

/// What it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// Users online.
    pub users: u64,
    /// Packets per second of all users.
    pub packets_per_s: f64,
    /// Processors of a node.
    pub processors: u32,
    /// Mixes of each layer.
    pub width: u32,
    /// Corrupt ones of each layer.
    pub corrupt: u32,
    /// Gateways.
    pub gateways: u32,
    /// Loops of each node per second.
    pub node_loops_per_s: f64,
    /// Packets per second through each mix.
    pub mix_per_s: f64,
    /// Bits per second into each mix, and as many out.
    pub mix_bits_per_s: f64,
    /// Bits per second that each gateway sends.
    pub gateway_bits_per_s: f64,
    /// Bytes of each mix's replay journal in an epoch.
    pub journal_bytes: f64,
    /// Bytes of a user's links in a day, both directions.
    pub user_bytes_per_day: f64,
    /// Length of the document, in bytes.
    pub document_bytes: f64,
    /// Bytes of the frames that carry it.
    pub download_bytes: f64,
    /// Bits per second that each gateway sends of it, on the mean of a period.
    pub document_bits_per_s: f64,
    /// Length of a period, in seconds.
    pub period_s: f64,
    /// Median and 95 % quantile of the latency of a one-packet message; none if the mailbox is
    /// loaded above 0.9.
    pub latency_s: Option<[f64; 2]>,
    /// Packets that a mix holds, on the mean.
    pub pool: f64,
    /// Bound on entropy, over packets, in bits, ≥ 0.
    pub bound_bits: f64,
    /// Cost of one user for a month.
    pub cost: f64,
    /// Part of it that is for bytes.
    pub cost_of_bytes: f64,
    /// Entropies with corrupt mixes, as measured.
    pub measured: Option<Measured>,
}

/// Lengths of documents: for none, and for each node more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Documents {
    /// Bytes without nodes.
    pub fixed: f64,
    /// Bytes for each node.
    pub each: f64,
}

impl Documents {
    /// From two documents that are built and encoded.
    ///
    /// # Errors
    ///
    /// None today: both scenarios are sound.
    #[expect(clippy::cast_precision_loss, reason = "kilobytes")]
    pub fn measure() -> Result<Self, RunError> {
        let [few, many] = [world::document_bytes(3, 2)?, world::document_bytes(6, 4)?];
        let (few, many) = (few as f64, many as f64);
        let each = (many - few) / 11.0; // 22 nodes and 11
        Ok(Self {
            fixed: few - 11.0 * each,
            each,
        })
    }
}

/// A count of nodes, up to 10⁹: more than any document holds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cut at 1e9"
)]
fn count(x: f64) -> u32 {
    x.min(1e9) as u32
}

#[expect(clippy::cast_precision_loss, reason = "rates below 2^53")]
fn hz(uhz: u64) -> f64 {
    uhz as f64 / 1e6
}

/// Mixes of a layer, gateways, and a node's loops per second, with `n` processors a node: however
/// many, also more than can be.
fn nodes(given: &Given, packets_per_s: f64, down_per_s: f64, n: u32) -> (f64, f64, f64) {
    let (n, least, layers) = (f64::from(n), f64::from(WIDTH_MIN), f64::from(DEPLOYED));
    let (mut width, mut gateways, mut loops) = (least, least, 0.0);
    // The nodes' loops depend on the nodes, weakly: a few rounds settle them.
    for _ in 0..8 {
        let mixes = layers * width;
        let [counted, doors] = [mixes, gateways].map(|nodes| count(nodes) as usize);
        let profile = given.params.node_profile(DEPLOYED as usize, counted, doors);
        loops = hz(profile.loops_uhz);
        let all = mixes + gateways;
        width = (packets_per_s + all * loops) / (n * given.mix_per_s);
        width = width.ceil().max(least);
        let down = down_per_s + all * hz(profile.downstream_uhz);
        gateways = (down / (n * given.gateway_per_s)).ceil().max(least);
    }
    (width, gateways, loops)
}

/// What entropy over packets does not exceed: see the header. `pool` packets are in a mix.
fn bound_bits(per_s: f64, delay_mean_s: f64, pool: f64) -> f64 {
    // The closed form of large pools exceeds the exact one by less than 10⁻⁴ bits there.
    let single = if pool > 100.0 {
        danezis_limit_bits(pool)
    } else {
        single_poisson_mix(pool).entropy
    };
    let mixes = f64::from(DEPLOYED) * single;
    if per_s * delay_mean_s < LIMIT_FROM {
        return mixes;
    }
    mixes.min(network_limit_bits(per_s, DEPLOYED as usize, delay_mean_s))
}

/// What a network for `users` takes.
///
/// # Errors
///
/// More nodes than a document holds, even with 64 processors each.
#[expect(clippy::cast_precision_loss, reason = "at most 1e9 users, 16 MiB")]
pub fn capacity(given: &Given, documents: &Documents, users: u64) -> Result<Capacity, RunError> {
    let profile = &given.profile;
    let [payload, looping] = [profile.payload_uhz, profile.loops_uhz].map(hz);
    let down = hz(profile.downstream_uhz);
    let people = users as f64;
    let packets_per_s = people * (payload + looping);
    let down_per_s = people * down;
    let layers = f64::from(DEPLOYED);
    let length =
        |width: f64, gateways: f64| documents.fixed + documents.each * (layers * width + gateways);
    let mut processors = 1;
    let (width, gateways, node_loops_per_s) = loop {
        let found = nodes(given, packets_per_s, down_per_s, processors);
        if length(found.0, found.1) <= BODY_LEN_MAX as f64 {
            break found;
        }
        if processors == PROCESSORS_MAX {
            return Err(RunError::Failed(format!(
                "{users} users need {} nodes of {processors} processors, and a document of {} MB \
                 is above the {} MB allowed: several networks, or a thriftier profile",
                short(layers * found.0 + found.1),
                short(length(found.0, found.1) / 1e6),
                short(BODY_LEN_MAX as f64 / 1e6)
            )));
        }
        processors *= 2;
    };
    let all = layers * width + gateways;
    let node_loops = all * node_loops_per_s;
    let mix_per_s = (packets_per_s + node_loops) / width;
    let delay_mean_s = f64::from(given.params.delay_mean_ms) / 1e3;
    let frame_bits = 8.0 * f64::from(FRAME_BYTES);
    let confirms = 1e3 / f64::from(profile.confirm_ms);
    let downstream = down_per_s + 5.0 * node_loops;
    let per_gateway = |per_s: f64| per_s * frame_bits / gateways;
    let user_frames = payload + looping + down + confirms;
    let document_bytes = length(width, gateways);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 16 MiB"
    )]
    let frames = frames_of(document_bytes.ceil() as usize);
    let download_bytes = frames as f64 * f64::from(FRAME_BYTES);
    let period_s = f64::from(given.params.epoch_s) * f64::from(given.params.epochs);
    let load = (payload + looping) / down;
    let latency_s = (load <= LOAD_MAX).then(|| {
        let mailbox = Mailbox::new(load);
        let way = Way {
            payload_per_s: payload,
            layers: DEPLOYED,
            delay_mean_s,
            downstream_per_s: down,
        };
        [0.5, 0.95].map(|q| way.quantile(&mailbox, q) + given.links_s)
    });
    let pool = packets_per_s * delay_mean_s / width;
    let sent = (layers + 1.0) * (packets_per_s + node_loops) + downstream;
    let downloads = download_bytes * (people + all) / period_s;
    let terabytes = (sent * f64::from(FRAME_BYTES) + downloads) * MONTH_S / 1e12;
    let cost_of_bytes = terabytes * given.terabyte / people;
    let cost_of_nodes = all * f64::from(processors) * given.processor_month / people;
    Ok(Capacity {
        users,
        packets_per_s,
        processors,
        width: count(width),
        corrupt: corrupt_of(count(width), given.corrupt),
        gateways: count(gateways),
        node_loops_per_s,
        mix_per_s,
        mix_bits_per_s: mix_per_s * frame_bits,
        gateway_bits_per_s: per_gateway(packets_per_s + node_loops + downstream),
        journal_bytes: 8.0 * mix_per_s * f64::from(given.params.epoch_s),
        user_bytes_per_day: 86_400.0 * f64::from(FRAME_BYTES) * user_frames,
        document_bytes,
        download_bytes,
        document_bits_per_s: 8.0 * download_bytes * people / gateways / period_s,
        period_s,
        latency_s,
        pool,
        bound_bits: bound_bits(
            packets_per_s + node_loops,
            delay_mean_s,
            mix_per_s * delay_mean_s,
        ),
        cost: cost_of_nodes + cost_of_bytes,
        cost_of_bytes,
        measured: None,
    })
}

fn layered(given: &Given, capacity: &Capacity) -> Layered {
    Layered {
        layers: DEPLOYED,
        width: capacity.width,
        corrupt: capacity.corrupt,
        delay_mean_ms: given.params.delay_mean_ms,
        users: capacity.users,
        payload_uhz: given.profile.payload_uhz,
        loops_uhz: given.profile.loops_uhz,
    }
}

/// Measures entropy with the corrupt mixes; leaves a network too large to be followed (1.5 million
/// packets in flight) as it is.
///
/// # Errors
///
/// Too few packets in flight; those of the flow engine.
pub fn measure(
    given: &Given,
    capacity: &mut Capacity,
    seed: u64,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<(), RunError> {
    let network = layered(given, capacity);
    if network.in_flight() <= IN_FLIGHT_MAX {
        capacity.measured = Some(network.measure(MESSAGES, seed, progress)?);
    }
    Ok(())
}

/// Names of the quantities and what they are, in the order of the table.
#[expect(clippy::cast_precision_loss, reason = "at most 1e9 users")]
fn column(given: &Given, one: &Capacity) -> Vec<(&'static str, String)> {
    let mega = |x: f64| short(x / 1e6);
    let seconds = |at: usize| one.latency_s.map_or("–".to_owned(), |s| short(s[at]));
    let measured = |of: fn(&Measured) -> Option<Estimate>| {
        let bits = one.measured.as_ref().and_then(of);
        bits.map_or("–".to_owned(), |bits| match bits.ends {
            None => format!("{:.2} ± {:.2}", bits.value, bits.standard_error),
            Some((low, high)) => format!("{:.2} ({:.2} to {high:.2})", bits.value, low.max(0.0)),
        })
    };
    let document_a_day = one.download_bytes * 86_400.0 / one.period_s;
    vec![
        ("users", one.users.to_string()),
        ("packets/s of all users", short(one.packets_per_s)),
        ("processors of a node", one.processors.to_string()),
        ("mixes in each of 3 layers", one.width.to_string()),
        ("corrupt of them, in each layer", one.corrupt.to_string()),
        ("gateways", one.gateways.to_string()),
        ("packets/s through a mix", short(one.mix_per_s)),
        ("Mbit/s into a mix, and out of it", mega(one.mix_bits_per_s)),
        ("Mbit/s out of a gateway", mega(one.gateway_bits_per_s)),
        (
            "replay journal of a mix, MB an epoch",
            mega(one.journal_bytes),
        ),
        ("loops of a node, 1/s", short(one.node_loops_per_s)),
        ("a user's links, MB a day", mega(one.user_bytes_per_day)),
        ("consensus, MB a period", mega(one.document_bytes)),
        (
            "of a user's bytes, %",
            short(100.0 * document_a_day / one.user_bytes_per_day),
        ),
        (
            "consensus out of a gateway, Mbit/s",
            mega(one.document_bits_per_s),
        ),
        ("latency p50, s", seconds(0)),
        ("latency p95, s", seconds(1)),
        ("packets in a mix ρ", short(one.pool)),
        (
            "entropy over packets, bits, at most (limit for large pools)",
            format!("{:.2}", one.bound_bits),
        ),
        ("log₂ users", format!("{:.2}", (one.users as f64).log2())),
        (
            "measured: entropy over users, mean",
            measured(|one| one.over_users),
        ),
        (
            "measured: entropy over packets, mean",
            measured(|one| Some(one.mean)),
        ),
        (
            "measured: entropy over packets, p05",
            measured(|one| one.p05),
        ),
        (
            "paths corrupt throughout, %",
            short(100.0 * layered(given, one).corrupt_paths()),
        ),
        ("cost of a user, a month", short(one.cost)),
        ("of that for bytes", short(one.cost_of_bytes)),
    ]
}

/// A Markdown table: one row for each quantity, one column for each of `all`. Rows of measured
/// entropy only if anything was measured.
#[must_use]
pub fn markdown(given: &Given, all: &[Capacity]) -> String {
    let columns: Vec<_> = all.iter().map(|one| column(given, one)).collect();
    let measured = all.iter().any(|one| one.measured.is_some());
    let mut text = String::new();
    for (at, (name, _)) in columns.first().into_iter().flatten().enumerate() {
        if !measured && name.starts_with("measured: ") {
            continue;
        }
        let cells: Vec<&str> = columns.iter().map(|column| column[at].1.as_str()).collect();
        text += &format!("| {name} | {} |\n", cells.join(" | "));
        if at == 0 {
            text += &format!("|---|{}\n", "--:|".repeat(all.len()));
        }
    }
    text
}
