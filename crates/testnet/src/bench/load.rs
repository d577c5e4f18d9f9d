//! The other process of `bench node`: plays both neighbours of the mix under test.
//!
//! Told its orders in one JSON line, it answers one JSON line for each phase ([`Phase`]).
//! Packets are built before a phase begins, sent at the instants of a Poisson process (whatever
//! became of those before: open loop), and received at the next hop. One in `TRACKED` is also
//! peeled here beforehand, which tells how it will look after the mix, and so when it came.
//!
//! | quantity       | unit                                                                     |
//! |----------------|--------------------------------------------------------------------------|
//! | held           | ns from just before the write to just after the read that completed it   |
//! | added          | ns, held − the delay that the packet asks for; all of links, TLS, queues |
//! | KS distance    | of held from the exponential law with the network's mean                 |
//! | CPU            | of the node's process, user and system, from `/proc` (ticks of 10 ms)     |

use core::time::Duration;
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use chacha20::ChaCha20Rng;
use proto::{
    Time,
    wire::{FIELD_LEN, Frame, Hello, Purpose, WIRE_VERSION},
};
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use shell::{
    accept::{Door, Incoming, Limits, accept},
    clock::Clock,
    entropy::seed,
    link::{Dialler, Target, Writer, certificate_frame},
    metrics::Metrics,
    role::announce,
    timer::Timer,
};
use sphinx::{Builder, Draft, Hop, Packet, PublicKey, SecretKey};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    phase::{Phase, TRIES, capacity, distance_from_exponential, median, quantile},
    stage::Stage,
};

/// One packet in so many is followed by itself.
const TRACKED: usize = 8;
/// A phase ends when nothing has come for this long: more than the longest delay.
const SILENCE: Duration = Duration::from_secs(2);
/// Frames written at a time.
const BURST: usize = 6;
/// How much more is offered from one try for the capacity to the next.
const STEP: f64 = 1.5;
/// Packets built together.
const BUILT_AT_ONCE: usize = 32;
/// Packets that fit the load process' memory, some 2.5 KB each.
const PACKETS_MAX: usize = 2_000_000;

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The folder of the [`Stage`].
    pub root: PathBuf,
    /// Process of the node.
    pub pid: u32,
    /// Length of each phase, in seconds.
    pub seconds: f64,
    /// Loads to measure, as shares of the capacity found.
    pub loads: Vec<f64>,
}

/// A packet to send.
struct Shot {
    at: Duration,
    frame: Frame,
    /// How it will look after the mix, and its delay.
    mark: Option<(Mark, Duration)>,
}

/// First bytes of a packet: enough to tell it from all others.
pub type Mark = [u8; 16];

/// The mark of a packet.
///
/// # Panics
///
/// Never: packets are longer.
#[must_use]
pub fn mark(packet: &Packet) -> Mark {
    *packet.first_chunk().expect("a packet is longer")
}

/// What has come at the next hop.
#[derive(Debug, Default)]
pub struct Came {
    /// Packets.
    pub count: u64,
    /// The mark of each, and when its last byte was read.
    pub marks: Vec<(Mark, Time)>,
}

/// Carries out the orders on standard input.
///
/// # Errors
///
/// What failed.
pub async fn run() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let orders: Orders = serde_json::from_str(&line).context("orders")?;
    let clock = Clock::start();
    let mut bench = Bench::start(orders, clock).await?;

    let warm = bench.phase("warm-up", 0.0, 2_000.0, 1.0).await?;
    // What idle CPU promises is too little: more load is cheaper a packet. So offer more, until the
    // node falls behind.
    let mut rate = 1e6 / warm.cpu_us.max(1.0);
    let capacity = loop {
        rate *= STEP;
        let seconds = bench.orders.seconds;
        let mut tries = vec![bench.phase("capacity", 0.0, rate, seconds).await?];
        while !tries[0].keeps_up() && tries.len() < TRIES {
            tries.push(bench.phase("capacity", 0.0, rate, seconds).await?);
        }
        if median(&tries).is_some_and(|phase| !phase.keeps_up()) {
            break capacity(&tries);
        }
    };
    for load in bench.orders.loads.clone() {
        let seconds = bench.orders.seconds;
        bench.phase("load", load, load * capacity, seconds).await?;
    }
    Ok(())
}

struct Bench {
    orders: Orders,
    clock: Clock,
    rng: ChaCha20Rng,
    /// Of the mix under test, which the stage lets us know.
    secret: SecretKey,
    /// Its address and key, then the next hop's.
    hops: [(NodeAddress, PublicKey); 2],
    /// It knows both keys.
    builder: Builder,
    delay_mean: Duration,
    delay_cap: Duration,
    writers: Vec<Option<Writer>>,
    came: Arc<Mutex<Came>>,
    news: watch::Receiver<u64>,
    _stop: tokio_util::sync::DropGuard,
}

type NodeAddress = [u8; 32];

impl Bench {
    async fn start(orders: Orders, clock: Clock) -> anyhow::Result<Self> {
        let stage = Stage::open(&orders.root)?;
        let consensus = &stage.consensus;
        let epoch = consensus
            .schedule()
            .at(clock.utc())
            .context("no epoch is open now")?;
        let secret_file = orders.root.join("tested-secret");
        let secret = fs::read(&secret_file).context("reading the tested key")?;
        let secret = SecretKey::from_bytes(secret.as_slice().try_into()?);
        let stop = CancellationToken::new();
        let (came, news) = receive(&stage, clock, stop.clone()).await?;
        let writers = dial(&stage, clock).await?;
        let hop = |id| {
            let node = consensus.node(&id).context("no such node")?;
            let key = consensus.packet_key(node, epoch).context("no key")?;
            anyhow::Ok((id.0, key))
        };
        let hops = [hop(stage.tested())?, hop(stage.next())?];
        Ok(Self {
            hops,
            builder: Builder::default().knowing(hops.iter().map(|(_, key)| key)),
            delay_mean: consensus.params.delay_mean(),
            delay_cap: consensus.params.delay_cap(),
            orders,
            clock,
            rng: ChaCha20Rng::from_seed(seed()),
            secret,
            writers: writers.into_iter().map(Some).collect(),
            came,
            news,
            _stop: stop.drop_guard(),
        })
    }

    /// Exponential with mean 1.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.rng.random::<f64>()).ln()
    }

    /// Packets for `seconds` at `rate` per second, one list for each link. They are built many at
    /// a time.
    fn build(&mut self, rate: f64, seconds: f64) -> anyhow::Result<Vec<Vec<Shot>>> {
        let mut planned = Vec::new();
        let mut at = self.exponential() / rate;
        while at < seconds {
            ensure!(
                planned.len() < PACKETS_MAX,
                "more packets than memory; ask for fewer --seconds"
            );
            let delay = loop {
                let delay = self.delay_mean.mul_f64(self.exponential());
                if delay <= self.delay_cap {
                    break delay;
                }
            };
            planned.push((Duration::from_secs_f64(at), delay));
            at += self.exponential() / rate;
        }
        let links = self.writers.len();
        let mut lists: Vec<Vec<Shot>> = (0..links).map(|_| Vec::new()).collect();
        for (chunk, planned) in (0..).zip(planned.chunks(BUILT_AT_ONCE)) {
            let mut drafts = Vec::with_capacity(BUILT_AT_ONCE);
            for (_, delay) in planned {
                let delay_ns = u64::try_from(delay.as_nanos())?;
                let route = self.hops.map(|(address, key)| Hop {
                    address,
                    key,
                    delay_ns,
                });
                let draft = Draft::new(&mut self.rng, &route, [0; 32], [0; 16]);
                drafts.push((draft, b""));
            }
            let packets = self.builder.packets(&drafts);
            for (i, (mut packet, (at, delay))) in packets.into_iter().zip(planned).enumerate() {
                let number = chunk * BUILT_AT_ONCE + i;
                let frame = Frame::packet(0, [0; FIELD_LEN], &packet);
                let mark = if number.is_multiple_of(TRACKED) {
                    let cap = u64::try_from(self.delay_cap.as_nanos())?;
                    let opened = sphinx::open_one(&self.secret, cap, &packet)
                        .map_err(|why| anyhow::anyhow!("our own packet: {why:?}"))?;
                    sphinx::finish(opened, &mut packet);
                    Some((mark(&packet), *delay))
                } else {
                    None
                };
                let at = *at;
                lists[number % links].push(Shot { at, frame, mark });
            }
        }
        Ok(lists)
    }

    /// Offers `rate` packets per second for `seconds`, waits until the node is empty, and says
    /// what came of it.
    async fn phase(
        &mut self,
        name: &str,
        load: f64,
        rate: f64,
        seconds: f64,
    ) -> anyhow::Result<Phase> {
        let lists = self.build(rate, seconds)?;
        let offered: usize = lists.iter().map(Vec::len).sum();
        *self.came.lock().unwrap_or_else(PoisonError::into_inner) = Came::default();
        let cpu_before = cpu(self.orders.pid)?;
        let start = self.clock.now().after(Duration::from_millis(5));
        let mut sending = Vec::new();
        for (slot, list) in lists.into_iter().enumerate() {
            let writer = self.writers[slot].take().context("a link is gone")?;
            sending.push(tokio::spawn(send(writer, list, start, self.clock)));
        }
        let mut sent = BTreeMap::new();
        let mut late = Vec::new();
        for (slot, sending) in sending.into_iter().enumerate() {
            let (writer, marks, lateness) = sending.await??;
            self.writers[slot] = Some(writer);
            sent.extend(marks);
            late.extend(lateness);
        }
        let during = self.count();
        let elapsed = self.clock.now().since(start).as_secs_f64();
        while tokio::time::timeout(SILENCE, self.news.changed())
            .await
            .is_ok()
        {}
        let cpu_s = cpu(self.orders.pid)? - cpu_before;

        let came = core::mem::take(&mut *self.came.lock().unwrap_or_else(PoisonError::into_inner));
        let mut held = Vec::new();
        let mut added = Vec::new();
        for (mark, at) in &came.marks {
            if let Some((from, delay)) = sent.get(mark) {
                let span = at.since(*from);
                held.push(span.as_secs_f64() / self.delay_mean.as_secs_f64());
                added.push((span.as_secs_f64() - delay.as_secs_f64()) * 1e3);
            }
        }
        let tracked = held.len() as u64;
        let phase = Phase {
            name: name.to_owned(),
            load,
            offered_per_s: per_second(offered as u64, seconds),
            forwarded_per_s: per_second(during, elapsed),
            offered: offered as u64,
            forwarded: came.count,
            cpu_us: cpu_s * 1e6 / per_second(came.count.max(1), 1.0),
            added_p50_ms: quantile(&mut added, 0.5),
            added_p99_ms: quantile(&mut added, 0.99),
            ks_distance: distance_from_exponential(&mut held),
            tracked,
            late_p99_ms: quantile(&mut late, 0.99),
        };
        announce(&phase);
        Ok(phase)
    }

    fn count(&self) -> u64 {
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        came.count
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// A link as each gateway to the mix under test.
///
/// # Errors
///
/// If the stage is not whole, or the mix does not take the link.
pub async fn dial(stage: &Stage, clock: Clock) -> anyhow::Result<Vec<Writer>> {
    let consensus = &stage.consensus;
    let tested = consensus.node(&stage.tested()).context("no such node")?;
    let mut writers = Vec::new();
    for gateway in consensus.gateways() {
        let dialler = Dialler {
            network: consensus.network,
            key: Some(stage.keys(gateway.id)?.link().clone()),
            clock,
        };
        let hello = Hello {
            version: WIRE_VERSION,
            purpose: Purpose::Node,
            profile: 0,
        };
        let link = dialler.dial(&Target::from(tested), hello).await?;
        writers.push(link.writer);
    }
    Ok(writers)
}

/// Listens as the mix after the one under test, and collects what comes, until `stop`; each read is
/// told too.
///
/// # Errors
///
/// If the stage is not whole, or the address is in use.
pub async fn receive(
    stage: &Stage,
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<(Arc<Mutex<Came>>, watch::Receiver<u64>)> {
    let keys = stage.keys(stage.next())?;
    let consensus = &stage.consensus;
    let tested = consensus.node(&stage.tested()).context("no such node")?;
    let (tested, tested_key) = (tested.id, tested.link.link_key);
    let now_s = clock.utc().as_secs();
    let certificate =
        certificate_frame(&keys.certificate(&consensus.network, now_s - 60..now_s + 86_400));
    let door = Door {
        key: keys.link().clone(),
        certificate: Arc::new(move || certificate.clone()),
        purposes: &[Purpose::Node],
        admit: Arc::new(move |key| (*key == tested_key).then_some(tested)),
        limits: Limits::default(),
        clock,
        metrics: Metrics::default(),
    };
    let listener = TcpListener::bind(stage.address(stage.next())?).await?;
    let came = Arc::new(Mutex::new(Came::default()));
    let (tell, news) = watch::channel(0);
    let tell = Arc::new(tell);
    let collected = Arc::clone(&came);
    let collect = move |incoming: Incoming| {
        let (came, tell) = (Arc::clone(&collected), Arc::clone(&tell));
        async move {
            let mut reader = incoming.link.reader;
            let mut frames = Vec::new();
            while reader.frames(&mut frames).await.is_ok() {
                let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
                came.count += frames.len() as u64;
                let marks = frames.drain(..).map(|(at, frame)| (mark(frame.body()), at));
                came.marks.extend(marks);
                drop(came);
                tell.send_modify(|count| *count += 1);
            }
        }
    };
    tokio::spawn(accept(listener, door, collect, stop));
    Ok((came, news))
}

type Sent = (Writer, Vec<(Mark, (Time, Duration))>, Vec<f64>);

/// Writes each packet at its time after `start`.
async fn send(
    mut writer: Writer,
    shots: Vec<Shot>,
    start: Time,
    clock: Clock,
) -> anyhow::Result<Sent> {
    let mut timer = Timer::new(clock)?;
    let (mut marks, mut late) = (Vec::new(), Vec::new());
    let mut shots = shots.into_iter().peekable();
    let mut burst = Vec::with_capacity(BURST);
    while let Some(next) = shots.peek() {
        timer.until(Some(start.after(next.at))).await?;
        let now = clock.now();
        while burst.len() < BURST
            && let Some(shot) = shots.next_if(|shot| start.after(shot.at) <= now)
        {
            late.push(now.since(start.after(shot.at)).as_secs_f64() * 1e3);
            marks.extend(shot.mark.map(|(mark, delay)| (mark, (now, delay))));
            burst.push(shot.frame);
        }
        writer.write(&burst).await?;
        burst.clear();
    }
    Ok((writer, marks, late))
}

/// CPU that process `pid` has used, in seconds.
fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the node is gone")?;
    // The name in brackets may hold anything; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').context("/proc/…/stat")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(per_second(
        ticks,
        per_second(rustix::param::clock_ticks_per_second(), 1.0),
    ))
}
