//! One real mix process over real links: what an adversary captured is sent again, and a next hop goes away
//! under load.
//!
//! | attack | what is done                                                                        |
//! |--------|-------------------------------------------------------------------------------------|
//! | p01    | one packet a thousand times over eight links at once                                |
//! | p02    | captured packets again after `kill -9`, after a restart, after a loss of power      |
//! | p03    | more packets than the replay set has room for                                       |
//!
//! The mix' own counts say of each packet once what became of it, also when its link breaks (LNK-10).
//!
//! Departures are counted at the next hop, which the test plays, as it plays the gateways before the
//! mix. Each attack has its control: the same done where the defence can't help, so that the count
//! is seen to rise. Waits are for counts to be reached, each within a limit.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use core::time::Duration;
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::OpenOptions,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::{Context, bail, ensure};
use chacha20::ChaCha20Rng;
use proto::{
    calendar::Epoch,
    wire::{FIELD_LEN, Frame},
};
use rand::SeedableRng;
use shell::{
    clock::Clock,
    journal::{Journals, Throwaway},
    link::Writer,
};
use sphinx::{Hop, Packet, PublicKey};
use testnet::{
    bench::{
        load::{Came, dial, receive},
        stage::Stage,
    },
    metrics::page,
    process::{Line, Process, Starter},
};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

const LIMIT: Duration = Duration::from_secs(60);
/// How often the page of metrics is read while a count is waited for.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Packets sent at once where none may be dropped because they are too many.
const TOGETHER: usize = 16;
/// What counts every packet that the mix has dealt with.
const DEALT_WITH: [&str; 2] = [
    "lacuna_packets_peeled_total ",
    "lacuna_packets_dropped_total{",
];
/// What a mix says of packets that it has opened and not sent: those that it holds, those that wait for
/// their link.
const INSIDE: &[&str] = &["lacuna_packets_held ", "lacuna_packets_queued "];
const RECEIVED: &[&str] = &["lacuna_packets_received_total "];
/// What becomes of each that it receives, but for some milliseconds before it is opened.
const BECAME: &[&str] = &[
    "lacuna_packets_sent_total ",
    "lacuna_packets_dropped_total{",
    INSIDE[0],
    INSIDE[1],
];
/// Frames written at a time.
const BURST: usize = 6;

/// A mix, the gateways before it and the mix after it.
struct Bed {
    stage: Stage,
    starter: Starter,
    rng: ChaCha20Rng,
    hops: [([u8; 32], PublicKey); 2],
    came: Arc<Mutex<Came>>,
    news: watch::Receiver<u64>,
    mix: Option<Mix>,
    /// Ends the next hop.
    next: DropGuard,
    _marks: Throwaway,
}

/// The mix while it runs.
struct Mix {
    process: Process,
    metrics: SocketAddr,
    links: Vec<Writer>,
}

impl Bed {
    async fn make(root: &Path, gateways: usize) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let stage = Stage::make(root, clock, gateways)?;
        let stop = CancellationToken::new();
        let (came, news) = receive(&stage, clock, stop.clone()).await?;
        let consensus = &stage.consensus;
        let epoch = consensus.schedule().at(clock.utc()).context("an epoch")?;
        let hop = |id| {
            let node = consensus.node(&id).context("no such node")?;
            let key = consensus.packet_key(node, epoch).context("no key")?;
            anyhow::Ok((id.0, key))
        };
        let hops = [hop(stage.tested())?, hop(stage.next())?];
        Ok(Self {
            hops,
            stage,
            starter: Starter {
                executable: PathBuf::from(env!("CARGO_BIN_EXE_lacuna-testnet")),
                clock,
            },
            rng: ChaCha20Rng::from_seed([1; 32]),
            came,
            news,
            mix: None,
            next: stop.drop_guard(),
            _marks: Throwaway(root.to_owned()),
        })
    }

    /// Starts the mix with these settings added, and dials it as every gateway. `closed` is what one
    /// whose key is burned says, else `ready`.
    async fn start(&mut self, more: &[&str]) -> anyhow::Result<String> {
        let mut args = self.stage.arguments()?;
        args.extend(more.iter().map(OsString::from));
        let folder = self.stage.folder(self.stage.tested());
        let mut process = self.starter.start("the mix", &folder, "mix-node", args)?;
        let address = |line: &Line| line.value.get("metrics")?.as_str()?.parse().ok();
        let metrics = process.until("addresses", LIMIT, address).await?;
        let settled = |line: &Line| {
            let state = line.value.get("state")?.as_str()?;
            ["ready", "closed"]
                .contains(&state)
                .then(|| state.to_owned())
        };
        let state = process.until("readiness", LIMIT, settled).await?;
        let links = dial(&self.stage, self.starter.clock).await?;
        self.mix = Some(Mix {
            process,
            metrics,
            links,
        });
        Ok(state)
    }

    /// [`Bed::start`] of one that opens packets.
    async fn start_open(&mut self, more: &[&str]) -> anyhow::Result<()> {
        let state = self.start(more).await?;
        ensure!(state == "ready", "its key does not open: {state}");
        Ok(())
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        self.mix.take().context("it runs")?.process.kill().await
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.mix
            .take()
            .context("it runs")?
            .process
            .stop(LIMIT)
            .await
    }

    /// Ends the next hop.
    fn cut(&mut self) {
        let over = core::mem::replace(&mut self.next, CancellationToken::new().drop_guard());
        drop(over);
    }

    /// The next hop comes back, and its count goes on.
    async fn mend(&mut self) -> anyhow::Result<()> {
        let stop = CancellationToken::new();
        let (came, news) = receive(&self.stage, self.starter.clock, stop.clone()).await?;
        let before = core::mem::take(&mut *self.came.lock().unwrap());
        let mut now = came.lock().unwrap();
        now.count += before.count;
        now.marks.extend(before.marks);
        drop(now);
        (self.came, self.news, self.next) = (came, news, stop.drop_guard());
        Ok(())
    }

    /// New packets that the mix is to hold for a millisecond.
    fn packets(&mut self, count: usize) -> Vec<Packet> {
        let route = self.hops.map(|(address, key)| Hop {
            address,
            key,
            delay_ns: 1_000_000,
        });
        let mut build = || *sphinx::build(&mut self.rng, &route, [0; 32], [0; 16], b"");
        (0..count).map(|_| build()).collect()
    }

    /// Sends `packets`, no more at once than the mix opens in a batch, and waits until it has dealt
    /// with them.
    async fn send(&mut self, packets: &[Packet]) -> anyhow::Result<()> {
        for some in packets.chunks(TOGETHER) {
            let before = self.count(&DEALT_WITH).await?;
            self.flood(some).await?;
            let all = before + some.len() as u64;
            self.until_counted(&DEALT_WITH, all).await?;
        }
        Ok(())
    }

    /// Sends `packets` over all links at once.
    async fn flood(&mut self, packets: &[Packet]) -> anyhow::Result<()> {
        let mix = self.mix.as_mut().context("it runs")?;
        let share = packets.len().div_ceil(mix.links.len());
        let mut sending = Vec::new();
        let links = core::mem::take(&mut mix.links);
        for (slot, mut link) in links.into_iter().enumerate() {
            let frame = |packet: &Packet| Frame::packet(0, [0; FIELD_LEN], packet);
            let mine = packets.iter().skip(slot * share).take(share);
            let frames: Vec<Frame> = mine.map(frame).collect();
            sending.push(tokio::spawn(async move {
                for burst in frames.chunks(BURST) {
                    link.write(burst).await?;
                }
                anyhow::Ok(link)
            }));
        }
        for sending in sending {
            mix.links.push(sending.await??);
        }
        Ok(())
    }

    /// Packets that have left the mix, and how many of them differ.
    fn departed(&self) -> (u64, usize) {
        let came = self.came.lock().unwrap();
        let marks: BTreeSet<_> = came.marks.iter().map(|(mark, _)| mark).collect();
        (came.count, marks.len())
    }

    async fn until_departed(&mut self, count: u64) -> anyhow::Result<()> {
        let came = Arc::clone(&self.came);
        let enough = self.news.wait_for(|_| came.lock().unwrap().count >= count);
        let waited = tokio::time::timeout(LIMIT, enough).await.map(drop);
        waited.with_context(|| format!("{count} departures: {:?}", self.departed()))
    }

    /// Counts of the mix whose line begins with one of `names`, added up.
    async fn count(&self, names: &[&str]) -> anyhow::Result<u64> {
        Ok(sum(&self.page().await?, names))
    }

    async fn page(&self) -> anyhow::Result<String> {
        let mix = self.mix.as_ref().context("it runs")?;
        page(mix.metrics, "/metrics").await
    }

    async fn until_counted(&self, names: &[&str], least: u64) -> anyhow::Result<()> {
        let mut ask = tokio::time::interval(ASK_EVERY);
        let reached = async {
            while self.count(names).await? < least {
                ask.tick().await;
            }
            anyhow::Ok(())
        };
        let reached = tokio::time::timeout(LIMIT, reached).await;
        reached.with_context(|| format!("{names:?} stay below {least}"))?
    }

    /// Waits until the mix has received so many packets and none is among `inside`; says how many are
    /// accounted for.
    async fn until_settled(&self, inside: &[&str], received: u64) -> anyhow::Result<u64> {
        let mut ask = tokio::time::interval(ASK_EVERY);
        let settled = async {
            loop {
                let page = self.page().await?;
                let (all, became) = (sum(&page, RECEIVED), sum(&page, BECAME));
                if all == received && became >= all && sum(&page, inside) == 0 {
                    return anyhow::Ok(became);
                }
                ask.tick().await;
            }
        };
        let settled = tokio::time::timeout(LIMIT, settled).await;
        settled.with_context(|| format!("{received} packets"))?
    }

    async fn until_dropped(&self, reason: &str, least: u64) -> anyhow::Result<()> {
        let name = format!("lacuna_packets_dropped_total{{reason=\"{reason}\"}} ");
        self.until_counted(&[&name], least).await
    }

    /// New packets pass: all of them, and nothing that was sent before comes with them.
    async fn until_new_ones_pass(&mut self, count: usize) -> anyhow::Result<Vec<Packet>> {
        let (before, _) = self.departed();
        let packets = self.packets(count);
        self.send(&packets).await?;
        self.until_departed(before + count as u64).await?;
        let (after, different) = self.departed();
        if after != before + count as u64 || different as u64 != after {
            bail!("{before} before, {after} after {count} new ones, {different} different");
        }
        Ok(packets)
    }

    fn journal(&self, ending: &str) -> PathBuf {
        let folder = self.stage.folder(self.stage.tested()).join("replay");
        folder.join(format!("epoch-0.{ending}"))
    }

    /// What the kernel's memory knows of the journal.
    fn mark(&self) -> anyhow::Result<PathBuf> {
        let folder = self.stage.folder(self.stage.tested()).join("replay");
        Ok(Journals::at(&folder)?.mark(Epoch(0)))
    }

    /// What a volume holds of the journal, to be put back.
    fn snapshot(&self) -> anyhow::Result<[Vec<u8>; 2]> {
        let [journal, opened] = ["replay", "opened"].map(|end| std::fs::read(self.journal(end)));
        Ok([journal?, opened?])
    }

    fn put_back(&self, snapshot: &[Vec<u8>; 2]) -> anyhow::Result<()> {
        for (ending, bytes) in ["replay", "opened"].into_iter().zip(snapshot) {
            std::fs::write(self.journal(ending), bytes)?;
        }
        Ok(())
    }

    /// Takes away all that is known of the packets that were opened, and keeps the key.
    fn forget(&self) -> anyhow::Result<()> {
        for file in [self.journal("replay"), self.journal("opened"), self.mark()?] {
            std::fs::remove_file(file)?;
        }
        Ok(())
    }

    async fn until_logged(&self, words: &str) -> anyhow::Result<()> {
        let mut ask = tokio::time::interval(ASK_EVERY);
        let logged = async {
            while !self.log().contains(words) {
                ask.tick().await;
            }
        };
        let logged = tokio::time::timeout(LIMIT, logged).await;
        logged.with_context(|| format!("no word of `{words}` in {}", self.log()))
    }

    fn log(&self) -> String {
        let folder = self.stage.folder(self.stage.tested());
        std::fs::read_to_string(folder.join("log")).unwrap()
    }
}

fn sum(page: &str, names: &[&str]) -> u64 {
    let value = |line: &str| line.rsplit_once(' ')?.1.parse::<u64>().ok();
    let ours = |line: &&str| names.iter().any(|name| line.starts_with(name));
    page.lines().filter(ours).filter_map(value).sum()
}

/// RPL-1
#[tokio::test]
async fn attack_p01_one_packet_a_thousand_times_over_eight_links() -> anyhow::Result<()> {
    const TIMES: usize = 1000;
    let folder = tempfile::tempdir()?;
    let mut bed = Bed::make(folder.path(), 8).await?;
    bed.start_open(&[]).await?;
    assert_eq!(bed.mix.as_ref().unwrap().links.len(), 8);
    let one = bed.packets(1)[0];
    let before = bed.count(&DEALT_WITH).await?;
    bed.flood(&vec![one; TIMES]).await?;
    bed.until_departed(1).await?;
    // Some may be dropped because they are too many at once; the mix has dealt with all of them.
    bed.until_counted(&DEALT_WITH, before + TIMES as u64)
        .await?;
    let replays = ["lacuna_packets_dropped_total{reason=\"replay\"} "];
    assert!(bed.count(&replays).await? > TIMES as u64 / 20);
    // What the mix still held for its millisecond would come before what it opens now.
    bed.until_new_ones_pass(10).await?;
    assert_eq!(bed.departed(), (11, 11));

    // The control: each of them again, to a mix that has forgotten the one before.
    for times in 1..=5 {
        bed.kill().await?;
        bed.forget()?;
        bed.start_open(&[]).await?;
        bed.send(&[one]).await?;
        bed.until_departed(11 + times).await?;
        assert_eq!(bed.departed(), (11 + times, 11));
    }
    bed.stop().await
}

/// RPL-4
#[tokio::test]
async fn attack_p02_captured_packets_after_restarts() -> anyhow::Result<()> {
    const CAPTURED: usize = 60;
    let folder = tempfile::tempdir()?;
    let mut bed = Bed::make(folder.path(), 2).await?;
    bed.start_open(&[]).await?;
    let mut captured = bed.until_new_ones_pass(CAPTURED).await?;

    for orderly in [false, true] {
        if orderly {
            bed.stop().await?;
        } else {
            bed.kill().await?;
        }
        bed.start_open(&[]).await?;
        bed.send(&captured).await?;
        bed.until_dropped("replay", captured.len() as u64).await?;
        // The key lives: it was not by opening nothing that nothing was let through.
        captured.extend(bed.until_new_ones_pass(CAPTURED).await?);
    }
    let departed = captured.len() as u64;
    assert_eq!(bed.departed(), (departed, captured.len()));

    // The control: a machine that forgets the journal and what stands beside it, and keeps the key.
    bed.kill().await?;
    let kept = bed.snapshot()?;
    bed.forget()?;
    bed.start_open(&[]).await?;
    bed.send(&captured).await?;
    bed.until_departed(2 * departed).await?;
    assert_eq!(bed.departed(), (2 * departed, captured.len()), "replays");
    bed.kill().await?;
    bed.put_back(&kept)?;

    // Loss of power: another kernel has booted since, and the last records were never written.
    let file = OpenOptions::new().write(true).open(bed.journal("replay"))?;
    file.write_all_at(&[b'0'; 36], 16)?;
    file.write_all_at(&[0; 80], 96 + 8 * (departed - 10))?;
    assert_eq!(bed.start(&[]).await?, "closed");
    bed.send(&captured).await?;
    bed.until_dropped("no_key", departed).await?;
    assert_eq!(bed.departed().0, 2 * departed, "none is let through");
    assert!(bed.log().contains("its key is burned"));
    // Nor later: the key is gone from the disk.
    bed.kill().await?;
    assert_eq!(bed.start(&[]).await?, "closed");
    bed.send(&captured).await?;
    bed.until_dropped("no_key", departed).await?;
    assert_eq!(bed.departed().0, 2 * departed);
    bed.stop().await
}

/// RPL-4: the volume goes back to what it was before some packets, and nothing boots.
#[tokio::test]
async fn attack_p02_captured_packets_after_a_volume_went_back() -> anyhow::Result<()> {
    const CAPTURED: usize = 20;
    let folder = tempfile::tempdir()?;
    let mut bed = Bed::make(folder.path(), 2).await?;
    bed.start_open(&[]).await?;
    bed.until_new_ones_pass(CAPTURED).await?;
    let before = bed.snapshot()?;
    let captured = bed.until_new_ones_pass(CAPTURED).await?;
    bed.kill().await?;
    bed.put_back(&before)?;

    // The control: without what the kernel's memory knows, they pass again.
    std::fs::remove_file(bed.mark()?)?;
    bed.start_open(&[]).await?;
    bed.send(&captured).await?;
    let departed = 3 * CAPTURED as u64;
    bed.until_departed(departed).await?;
    bed.kill().await?;
    bed.put_back(&before)?;

    assert_eq!(bed.start(&[]).await?, "closed");
    bed.send(&captured).await?;
    bed.until_dropped("no_key", captured.len() as u64).await?;
    assert_eq!(bed.departed(), (departed, 2 * CAPTURED));
    assert!(bed.log().contains("its key is burned"));
    bed.stop().await
}

/// RPL-3
#[tokio::test]
async fn attack_p03_overflow_of_the_set() -> anyhow::Result<()> {
    const ROOM: usize = 64;
    const MORE: usize = 36;
    let folder = tempfile::tempdir()?;
    let mut bed = Bed::make(folder.path(), 2).await?;
    let small = ["--replay-max", &ROOM.to_string()];
    bed.start_open(&small).await?;
    let first = bed.until_new_ones_pass(ROOM).await?;
    let over = bed.packets(MORE);
    bed.send(&over).await?;
    bed.until_dropped("replay_set_full", MORE as u64).await?;
    // Nothing was forgotten to make room, and nothing is let through after a restart.
    bed.send(&first).await?;
    bed.until_dropped("replay", ROOM as u64).await?;
    bed.kill().await?;
    bed.start_open(&small).await?;
    bed.send(&over).await?;
    bed.until_dropped("replay_set_full", MORE as u64).await?;
    bed.send(&first).await?;
    bed.until_dropped("replay", ROOM as u64).await?;
    assert_eq!(bed.departed(), (ROOM as u64, ROOM));
    // The alarm, with its remedy; and no panic.
    bed.until_logged("the replay set is full").await?;
    bed.stop().await?;
    assert!(bed.log().contains("raise replay_max"));
    assert!(!bed.log().contains("panicked"));

    // The control, and the remedy: with room the same packets pass.
    bed.start_open(&["--replay-max", "1000"]).await?;
    bed.send(&over).await?;
    bed.until_departed((ROOM + MORE) as u64).await?;
    bed.send(&first).await?;
    bed.until_dropped("replay", ROOM as u64).await?;
    assert_eq!(bed.departed(), ((ROOM + MORE) as u64, ROOM + MORE));
    bed.stop().await
}

/// LNK-10: whatever became of a packet is counted, and counted once, with a next hop that goes away, comes back,
/// and goes away under load.
#[tokio::test]
async fn every_packet_is_accounted_for_when_a_link_breaks() -> anyhow::Result<()> {
    const PACKETS: usize = 2000;
    const QUEUE: usize = 100;
    let folder = tempfile::tempdir()?;
    let mut bed = Bed::make(folder.path(), 2).await?;
    let queue = QUEUE.to_string();
    bed.start_open(&["--link-queue-max", &queue]).await?;
    bed.until_new_ones_pass(10).await?;
    let mut all = bed.count(RECEIVED).await?;
    assert_eq!(bed.until_settled(INSIDE, all).await?, all);

    // What waits for a link that is down has not been sent.
    let failed = ["lacuna_dials_failed_total "];
    let before = bed.count(&failed).await?;
    bed.cut();
    bed.until_counted(&failed, before + 1).await?;
    let packets = bed.packets(2 * QUEUE);
    bed.send(&packets).await?;
    all += packets.len() as u64;
    assert_eq!(bed.until_settled(&INSIDE[..1], all).await?, all);
    assert_eq!(bed.count(&INSIDE[1..]).await?, QUEUE as u64);
    assert_eq!(bed.count(&BECAME[..1]).await?, bed.departed().0);

    for _again in 0..2 {
        bed.mend().await?;
        bed.until_settled(INSIDE, all).await?;
        let packets = bed.packets(PACKETS);
        let some = bed.departed().0 + 10;
        bed.flood(&packets).await?;
        bed.until_departed(some).await?;
        bed.cut();
        all += PACKETS as u64;
        bed.until_settled(&INSIDE[..1], all).await?;
    }
    bed.mend().await?;
    assert_eq!(bed.until_settled(INSIDE, all).await?, all);
    assert!(bed.count(&BECAME[..1]).await? >= bed.departed().0);
    bed.stop().await
}
