//! `bench mailbox`: how fast each engine of mailboxes makes packets durable.
//!
//! | quantity    | what                                                                            |
//! |-------------|---------------------------------------------------------------------------------|
//! | waiting     | putters, each of which puts its next packet when its last is durable             |
//! | puts/s      | packets answered while the run lasted                                            |
//! | p50, p99    | ms from the call to the answer                                                   |
//! | one fsync   | ms, median of `FSYNCS` of one small write in the same folder: what no engine   |
//! |             | can go below                                                                     |
//!
//! The engines are the gateway's, with their day keys, group commit and `fsync`. PostgreSQL is
//! started for the run as it ships; two front ends are two engines on one server, as two processes
//! would have them. What is measured shares the machine with what measures.

use core::{fmt, time::Duration};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use hdrhistogram::Histogram;
use proto::MailboxId;
use serde::Serialize;
use shell::{
    clock::Clock,
    entropy::seed,
    store::{
        MailboxStore, Mailboxes,
        postgres::{self, Server},
        redb,
        throwaway::PostgreSql,
    },
};
use tokio::task::JoinSet;

use crate::progress::Progress;

const WAITING: [u16; 3] = [1, 64, 1024];
const MAILBOXES: u16 = 256;
const FSYNCS: usize = 101;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Median time of one `fsync` of a small write, in ms.
    pub fsync_ms: f64,
    /// Each run, in order.
    pub runs: Vec<Run>,
    /// Why PostgreSQL was not measured, if it was not.
    pub without_postgresql: Option<String>,
}

/// One engine under one load.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// `redb` or `postgresql`.
    pub engine: &'static str,
    /// How many processes' worth of engines share the store.
    pub front_ends: usize,
    /// Packets that are waited for at any time.
    pub waiting: u16,
    /// Packets made durable per second.
    pub puts_per_s: f64,
    /// Median, in ms.
    pub p50_ms: f64,
    /// 99 % quantile, in ms.
    pub p99_ms: f64,
}

/// Runs it in the empty folder `root`, each run `seconds` long.
///
/// # Errors
///
/// What failed.
pub async fn run(root: &Path, seconds: f64, progress: &Progress) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let mut report = Report {
        fsync_ms: fsync(&root.join("fsync"), clock)?,
        runs: Vec::new(),
        without_postgresql: None,
    };
    let span = Duration::from_secs_f64(seconds);
    for waiting in WAITING {
        progress.step(&format!("redb, {waiting} waiting"));
        let folder = root.join(format!("redb-{waiting}"));
        fs::create_dir(&folder)?;
        let store = redb::open(&folder.join("mailboxes"), &folder.join("keys"), u64::MAX)?;
        let found = load(vec![store], waiting, span, clock).await?;
        report.runs.push(found.named("redb", waiting));
    }
    for (front_ends, waiting) in WAITING
        .map(|waiting| (1, waiting))
        .into_iter()
        .chain([(2, 1024)])
    {
        progress.step(&format!(
            "PostgreSQL, {front_ends} front ends, {waiting} waiting"
        ));
        // A new one each time: an old one cleans up after the run before.
        let server = match PostgreSql::start() {
            Ok(server) => server,
            Err(error) => {
                report.without_postgresql = Some(error.to_string());
                break;
            }
        };
        let at = Server::parse(&server.address("postgres"))?;
        let keys = root.join(format!("keys-{front_ends}-{waiting}"));
        let open = |_| postgres::open(&at, &keys, u64::MAX, true);
        let stores = (0..front_ends).map(open).collect::<Result<_, _>>()?;
        let found = load(stores, waiting, span, clock).await?;
        report.runs.push(found.named("postgresql", waiting));
    }
    Ok(report)
}

/// How long one packet's worth of durability takes.
fn fsync(path: &Path, clock: Clock) -> anyhow::Result<f64> {
    let mut file = File::create(path).context("a file in the bench's folder")?;
    let mut took = Vec::new();
    for _ in 0..FSYNCS {
        let start = clock.now();
        file.write_all(&[1; 512])?;
        file.sync_data()?;
        took.push(clock.now().since(start));
    }
    took.sort_unstable();
    Ok(took[FSYNCS / 2].as_secs_f64() * 1e3)
}

struct Found {
    front_ends: usize,
    seconds: f64,
    took_us: Histogram<u64>,
}

impl Found {
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    fn named(self, engine: &'static str, waiting: u16) -> Run {
        let ms = |quantile| self.took_us.value_at_quantile(quantile) as f64 / 1e3;
        Run {
            engine,
            front_ends: self.front_ends,
            waiting,
            puts_per_s: self.took_us.len() as f64 / self.seconds,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
        }
    }
}

/// Puts packets into `stores`, `waiting` at a time, for `span`.
async fn load(
    stores: Vec<Mailboxes>,
    waiting: u16,
    span: Duration,
    clock: Clock,
) -> anyhow::Result<Found> {
    let mailbox = |i: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&(i % MAILBOXES).to_be_bytes());
        MailboxId(id)
    };
    let stores: Vec<_> = stores.into_iter().map(Arc::new).collect();
    for i in 0..MAILBOXES {
        stores[0].register(mailbox(i)).await?;
    }
    let mut packet = Box::new([0; sphinx::PACKET_LEN]);
    packet.chunks_mut(32).for_each(|part| {
        let random = seed();
        part.copy_from_slice(&random[..part.len()]);
    });
    let start = clock.now();
    let mut putters = JoinSet::new();
    for i in 0..waiting {
        let store = Arc::clone(&stores[usize::from(i) % stores.len()]);
        let packet = packet.clone();
        putters.spawn(async move {
            let mut took_us = Vec::new();
            loop {
                let from = clock.now();
                if from.since(start) >= span {
                    return anyhow::Ok(took_us);
                }
                let at_s = clock.utc().as_secs();
                store.put(mailbox(i), at_s, packet.clone()).await?;
                took_us.push(clock.now().since(from).as_micros());
            }
        });
    }
    let mut took_us = Histogram::new(3)?;
    while let Some(putter) = putters.join_next().await {
        for us in putter?? {
            took_us.record(u64::try_from(us)?)?;
        }
    }
    // Answers that came after the end belong to the time that they took.
    let seconds = clock.now().since(start).as_secs_f64();
    let front_ends = stores.len();
    // An engine ends by waiting for its thread.
    tokio::task::spawn_blocking(move || drop(stores)).await?;
    Ok(Found {
        front_ends,
        seconds,
        took_us,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Puts of one packet each, durable before they are answered"
        )?;
        writeln!(f, "\none fsync of a small write  {:.3} ms\n", self.fsync_ms)?;
        let [engine, ends, waiting] = ["engine", "front ends", "waiting"];
        writeln!(
            f,
            "{engine:<12}{ends:>11}{waiting:>9}{:>11}{:>12}{:>12}",
            "puts/s", "p50", "p99"
        )?;
        for run in &self.runs {
            writeln!(
                f,
                "{:<12}{:>11}{:>9}{:>11.0}{:>9.2} ms{:>9.2} ms",
                run.engine, run.front_ends, run.waiting, run.puts_per_s, run.p50_ms, run.p99_ms
            )?;
        }
        match &self.without_postgresql {
            Some(why) => write!(f, "PostgreSQL was not measured: {why}"),
            None => Ok(()),
        }
    }
}
