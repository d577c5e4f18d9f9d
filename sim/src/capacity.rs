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
//! | latency             | [`crate::plan::latency`], and what links take                         |
//! | pool ρ              | Λ m / W                                                                |
//! | bound               | least of [`network_limit_bits`], L log₂(e ρ) (each mix adds at most its own entropy) and, for users in place of packets, log₂ users |
//! | corrupt paths       | f^L                                                                    |
//! | servers send        | L + 1 times each packet, and once each downstream frame                |
//! | cost                | processors × price + bytes servers send × price, 30 days, per user     |
//!
//! Taken for granted: a node of n processors does n times the work of one (only one was
//! measured); users spread evenly over gateways; frames without TLS, TCP and IP; all users online
//! and of one profile. Deliberately no disk space of mailboxes, no staff.

use proto::directory::{Params, Profile, consensus::BODY_LEN_MAX};

use crate::{
    closed::{danezis_limit_bits, network_limit_bits},
    flow,
    outcome::RunError,
    plan::{
        DEPLOYED, FRAME_BYTES, WIDTH_MIN,
        latency::{Mailbox, Way},
    },
    report::short,
    scenario::Scenario,
    stats::Estimate,
    world,
};

/// Most processors of a node.
const PROCESSORS_MAX: u32 = 64;
/// Highest load of a mailbox whose latency is computed.
const LOAD_MAX: f64 = 0.9;
/// Seconds of a month.
const MONTH_S: f64 = 30.0 * 86_400.0;
/// Most packets in flight that are measured.
const IN_FLIGHT_MAX: f64 = 1.5e6;
/// Messages measured.
const TARGETS: u32 = 128;

/// What is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The network's parameters: delay, epochs.
    pub params: Params,
    /// What all users send.
    pub profile: Profile,
    /// Share of mixes that are corrupt.
    pub corrupt: f64,
    /// What all links of a way take together, in seconds.
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
    /// Bits per second that each gateway sends of it, on the mean of a period.
    pub document_bits_per_s: f64,
    /// Length of a period, in seconds.
    pub period_s: f64,
    /// Median and 95 % quantile of the latency of a one-packet message; none if the mailbox is
    /// loaded above 0.9.
    pub latency_s: Option<[f64; 2]>,
    /// Packets that a mix holds, on the mean.
    pub pool: f64,
    /// Bound on entropy, over packets, in bits.
    pub bound_bits: f64,
    /// Cost of one user for a month.
    pub cost: f64,
    /// Part of it that is for bytes.
    pub cost_of_bytes: f64,
    /// Mean and p05 entropy with corrupt mixes, as measured.
    pub measured: Option<[Estimate; 2]>,
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

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of nodes, bounded by 1e9 users times 1e4 packets"
)]
fn count(x: f64) -> u32 {
    x.ceil().min(f64::from(u32::MAX)) as u32
}

#[expect(clippy::cast_precision_loss, reason = "rates below 2^53")]
fn hz(uhz: u64) -> f64 {
    uhz as f64 / 1e6
}

/// Mixes of a layer, gateways, and a node's loops per second, with `n` processors a node.
fn nodes(given: &Given, packets_per_s: f64, down_per_s: f64, n: u32) -> (u32, u32, f64) {
    let n = f64::from(n);
    let (mut width, mut gateways, mut loops) = (WIDTH_MIN, WIDTH_MIN, 0.0);
    // The nodes' loops depend on the nodes, weakly: a few rounds settle them.
    for _ in 0..8 {
        let mixes = DEPLOYED * width;
        let profile =
            given
                .params
                .node_profile(DEPLOYED as usize, mixes as usize, gateways as usize);
        loops = hz(profile.loops_uhz);
        let all = f64::from(mixes + gateways);
        width = count((packets_per_s + all * loops) / (n * given.mix_per_s)).max(WIDTH_MIN);
        let down = down_per_s + all * hz(profile.downstream_uhz);
        gateways = count(down / (n * given.gateway_per_s)).max(WIDTH_MIN);
    }
    (width, gateways, loops)
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
    let length = |width: u32, gateways: u32| {
        documents.fixed + documents.each * f64::from(DEPLOYED * width + gateways)
    };
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
                DEPLOYED * found.0 + found.1,
                short(length(found.0, found.1) / 1e6),
                short(BODY_LEN_MAX as f64 / 1e6)
            )));
        }
        processors *= 2;
    };
    let layers = f64::from(DEPLOYED);
    let all = layers * f64::from(width) + f64::from(gateways);
    let node_loops = all * node_loops_per_s;
    let mix_per_s = (packets_per_s + node_loops) / f64::from(width);
    let delay_mean_s = f64::from(given.params.delay_mean_ms) / 1e3;
    let frame_bits = 8.0 * f64::from(FRAME_BYTES);
    let confirms = 1e3 / f64::from(profile.confirm_ms);
    let downstream = down_per_s + 5.0 * node_loops;
    let per_gateway = |per_s: f64| per_s * frame_bits / f64::from(gateways);
    let user_frames = payload + looping + down + confirms;
    let document_bytes = length(width, gateways);
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
    let pool = packets_per_s * delay_mean_s / f64::from(width);
    let sent = (layers + 1.0) * (packets_per_s + node_loops) + downstream;
    let terabytes = sent * f64::from(FRAME_BYTES) * MONTH_S / 1e12;
    let cost_of_bytes = terabytes * given.terabyte / people;
    let cost_of_nodes = all * f64::from(processors) * given.processor_month / people;
    Ok(Capacity {
        users,
        packets_per_s,
        processors,
        width,
        gateways,
        node_loops_per_s,
        mix_per_s,
        mix_bits_per_s: mix_per_s * frame_bits,
        gateway_bits_per_s: per_gateway(packets_per_s + node_loops + downstream),
        journal_bytes: 8.0 * mix_per_s * f64::from(given.params.epoch_s),
        user_bytes_per_day: 86_400.0 * f64::from(FRAME_BYTES) * user_frames,
        document_bytes,
        document_bits_per_s: 8.0 * document_bytes * people / f64::from(gateways) / period_s,
        period_s,
        latency_s,
        pool,
        bound_bits: network_limit_bits(packets_per_s, DEPLOYED as usize, delay_mean_s)
            .min(layers * danezis_limit_bits(pool)),
        cost: cost_of_nodes + cost_of_bytes,
        cost_of_bytes,
        measured: None,
    })
}

/// Measures entropy with `given.corrupt` of the mixes corrupt; leaves a network too large to be
/// followed (1.5 million packets in flight) as it is.
///
/// # Errors
///
/// Those of the flow engine.
pub fn measure(
    given: &Given,
    capacity: &mut Capacity,
    seed: u64,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<(), RunError> {
    let layers = f64::from(DEPLOYED);
    if capacity.pool * f64::from(capacity.width) * layers > IN_FLIGHT_MAX {
        return Ok(());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a layer"
    )]
    let bad = (f64::from(capacity.width) * given.corrupt).round() as u32;
    let text = format!(
        "version = 1\n[network]\nlayers = {DEPLOYED}\nmixes_per_layer = {}\n\
         [mix]\ndelay_mean_ms = {}.0\n\
         [traffic]\nusers = {}\npayload_per_user_per_s = {:.6}\nloop_per_user_per_s = {:.6}\n\
         [adversary]\ncorrupt_mixes_per_layer = {bad}\n\
         [flow]\ntargets = {TARGETS}\nwindow_means = 0.0\n",
        capacity.width,
        given.params.delay_mean_ms,
        capacity.users,
        hz(given.profile.payload_uhz),
        hz(given.profile.loops_uhz),
    );
    let scenario = Scenario::parse(&text).map_err(|why| RunError::Usage(why.to_string()))?;
    let outcome = flow::run(&scenario, seed, progress)?;
    if let Some(why) = outcome.failures.first() {
        return Err(RunError::Failed(why.clone()));
    }
    capacity.measured = Some(["entropy_mean_bits", "entropy_p05_bits"].map(|name| {
        let figure = outcome.figure(name);
        figure.expect("measured in every run").estimate
    }));
    Ok(())
}

/// Names of the quantities and what they are, in the order of the table.
#[expect(clippy::cast_precision_loss, reason = "at most 1e9 users")]
fn column(given: &Given, one: &Capacity) -> Vec<(&'static str, String)> {
    let mega = |x: f64| short(x / 1e6);
    let seconds = |at: usize| one.latency_s.map_or("–".to_owned(), |s| short(s[at]));
    let measured = |at: usize| {
        one.measured.map_or("–".to_owned(), |both| {
            format!("{:.2} ± {:.2}", both[at].value, both[at].standard_error)
        })
    };
    let document_a_day = one.document_bytes * 86_400.0 / one.period_s;
    vec![
        ("users", one.users.to_string()),
        ("packets/s of all users", short(one.packets_per_s)),
        ("processors of a node", one.processors.to_string()),
        ("mixes in each of 3 layers", one.width.to_string()),
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
            "entropy over packets, bits, at most",
            format!("{:.2}", one.bound_bits),
        ),
        ("log₂ users", format!("{:.2}", (one.users as f64).log2())),
        ("entropy measured, mean", measured(0)),
        ("entropy measured, p05", measured(1)),
        (
            "paths corrupt throughout, %",
            short(100.0 * given.corrupt.powi(3)),
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
        if !measured && name.starts_with("entropy measured") {
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
