//! The threads of a node's packets: they read node links, open packets, journal their tags, finish
//! them, run the mix and write to the next hops.
//!
//! Rules RPL-4, EPO-2 and GW-30; the pure half of opening is [`proto::peel`].
//!
//! ```text
//! one turn:  links that have bytes ─▶ waiting ─▶ one batch ─▶ machine ─▶ links with packets queued
//! ```
//!
//! | quantity | unit, range                                                                    |
//! |----------|--------------------------------------------------------------------------------|
//! | threads  | 1 or more; each reads its share of the links and opens what they bring          |
//! | waiting  | packets that links have read, <= [`WAITING_MAX`] a thread; more are dropped and  |
//! |          | counted                                                                        |
//! | batch    | whatever waits, <= what fits a turn: one journal write                          |
//! | turn     | a batch takes some [`TURN`], and as much goes to reading and writing            |
//! | age      | beyond capacity packets that wait are dropped and counted (`backlog`)           |
//! | tend     | every [`TEND_EVERY`], beside the turns: keys come and go with their windows     |
//! | sync     | every [`SYNC_EVERY`], beside both: a disk that lost records burns their key   |
//! | asked    | at a front end, batches that wait for the store, <= [`ASKED_MAX`]; above, dropped |
//!
//! A packet stays on the thread that read it until it is opened, because packets that change threads
//! cost more than they gain: two threads on one processor share it by halves, whatever each has to
//! do, and wake each other for every packet. Each thread has a runtime of its own. In turns, what
//! came while a batch was computed is read with a few calls and written with a few, so that the
//! dearer the moment, the cheaper a packet. By a turn may a packet be stamped, or leave, late; by more
//! only while the disk or the kernel holds the thread. The first thread also runs the mix and the links
//! to the next hops ([`Peeler::runtime`]).
//! What the threads share (`desk`) is locked once for a batch, never for a packet.
//!
//! Beyond capacity packets are dropped, and counted (`backlog`). No link ever waits: each turn reads
//! them all (docs/ARCHITECTURE.md says why).
//!
//! At a front end of a gateway, which is no mix, a batch that is journaled waits for the store to say
//! what no other front end has had; the thread goes on meanwhile.
//!
//! Fail closed: an epoch whose journal can't be written has no key until it ends, one whose journal can't
//! be opened none until it can.

mod backlog;
mod desk;
#[cfg(test)]
mod dwell;

use core::{num::NonZeroUsize, time::Duration};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use proto::{
    directory::Consensus,
    peel::{Arrival, PeelDrop, Peeled, Pending},
    replay::Refused,
};
use sphinx::Path;
use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot, watch},
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    backlog::{Backlog, Pace},
    desk::Desk,
};
use crate::{
    clock::Clock,
    journal::Journals,
    keys::Keys,
    store::{Reply, Tags},
};

/// Most packets of one thread that its links have read and that wait to be opened, whatever number of
/// reads brought them: what 80 000 packets/s bring in a tenth of a second. A bound of memory; that more
/// come than can be opened shows by their age, long before.
pub const WAITING_MAX: usize = 8192;
/// Most packets opened at once: four times eight lanes share one inversion, and more gain nothing.
pub const BATCH_MAX: usize = 4 * LANES;
const LANES: usize = 8;
/// What a batch may take, since neither is a link read meanwhile nor a packet let go.
pub const TURN: Duration = Duration::from_millis(1);
/// How old a packet that waits may be, at least, before it alone is taken for overload: what came while the
/// system had the processor elsewhere, often some 16 ms, is opened within it. On a slow processor longer by
/// as much as [`BATCH_MAX`] packets take there.
pub const PATIENCE_MIN: Duration = Duration::from_millis(20);
/// Most batches of one thread that wait for the store.
pub const ASKED_MAX: usize = 256;
/// Keys are looked after at least this often, traffic or none.
pub const TEND_EVERY: Duration = Duration::from_millis(500);
/// How long after the disk took all that was journaled it is asked again.
pub const SYNC_EVERY: Duration = Duration::from_secs(5);

/// What the peeler counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// A packet was opened and passed on.
    Peeled,
    /// A packet was dropped by the stage.
    Dropped(PeelDrop),
    /// A packet was dropped because its tag could not be journaled.
    Unjournaled,
    /// A packet was dropped because the store did not say, or was not asked, whether another front end
    /// has had it.
    Unshared,
    /// A packet was dropped because more come than can be opened.
    Overload,
}

/// What a peeler starts from.
pub struct Setup {
    /// The node's clock.
    pub clock: Clock,
    /// Its keys on disk.
    pub keys: Arc<Keys>,
    /// Its replay journals.
    pub journals: Journals,
    /// On which path packets are computed, one of this processor's.
    pub path: Path,
    /// How many packets per second this processor opens on it.
    pub rate_per_s: f64,
    /// Most packets opened under one key.
    pub replay_max: usize,
    /// Threads that read links and open packets.
    pub threads: NonZeroUsize,
    /// What it shares with the other front ends of one gateway, if it is one.
    pub tags: Option<Arc<dyn Tags>>,
}

#[derive(Debug)]
enum Work {
    Packets(Vec<Arrival>),
    Stop,
}

/// A consensus, and who waits until its keys are open.
type News = (Arc<Consensus>, oneshot::Sender<()>);

/// Where one thread takes its work. Whoever holds one of [`Peeler::feed`] counts as a link there.
#[derive(Clone, Debug)]
pub struct Feed {
    work: mpsc::UnboundedSender<Work>,
    /// How many packets wait, <= [`WAITING_MAX`].
    waiting: Arc<AtomicUsize>,
    runtime: Handle,
    held: Arc<()>,
}

impl Feed {
    /// The thread's runtime: what is spawned there takes turns with the opening of packets, must
    /// never block, and ends with the thread at the latest.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Hands over what one read of a link brought; says whether there was room for it.
    #[must_use]
    pub fn arrived(&self, arrivals: Vec<Arrival>) -> bool {
        let count = arrivals.len();
        let before = self.waiting.fetch_add(count, Ordering::Relaxed);
        let taken =
            before + count <= WAITING_MAX && self.work.send(Work::Packets(arrivals)).is_ok();
        if !taken {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
        }
        taken
    }
}

/// The thread's end of a [`Feed`].
struct Intake {
    work: mpsc::UnboundedReceiver<Work>,
    waiting: Arc<AtomicUsize>,
}

/// The threads' near end. Clones share them.
#[derive(Clone, Debug)]
pub struct Peeler {
    /// One or more; the first also runs the machine.
    feeds: Arc<[Feed]>,
    news: mpsc::Sender<News>,
    key_open: watch::Receiver<bool>,
    fed: Arc<AtomicUsize>,
}

impl Peeler {
    /// Starts the threads. Each finished packet goes to `machine` as what `passed` makes of it, and
    /// waits there for room; `counted` hears what became of every packet. The token is
    /// cancelled when all threads have ended and the journals are closed: as [`Peeler::stop`] asked,
    /// or because one of them panicked, or what looks after the keys.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn start<I: Send + 'static>(
        setup: Setup,
        machine: mpsc::Sender<I>,
        passed: impl Fn(Peeled) -> I + Send + Sync + 'static,
        counted: impl Fn(Verdict) + Send + Sync + 'static,
    ) -> io::Result<(Self, CancellationToken)> {
        let threads = setup.threads.get();
        let pace = Pace::of(setup.path, setup.rate_per_s);
        let tags = setup.tags.clone();
        let desk = Arc::new(Desk::new(setup));
        let key_open = desk.key_open();
        let way = Arc::new(Way {
            machine,
            passed,
            counted,
        });
        let bench = || Bench {
            desk: Arc::clone(&desk),
            pace,
            tags: tags.clone(),
            way: Arc::clone(&way),
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (first, intake) = Feed::to(runtime.handle());
        let (mut feeds, mut others) = (Vec::new(), Vec::new());
        for _ in 1..threads {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (feed, intake) = Feed::to(runtime.handle());
            let (bench, all) = (bench(), StopAll(first.work.clone()));
            let run = move || {
                let _all = all;
                runtime.block_on(bench.run(intake));
            };
            feeds.push(feed);
            others.push(named().spawn(run)?);
        }
        let stops: Vec<_> = feeds.iter().map(|feed| feed.work.clone()).collect();
        feeds.insert(0, first);

        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        let (news, to_heed) = mpsc::channel(1);
        let tended = runtime.spawn(look_after(Arc::clone(&desk), to_heed));
        let bench = bench();
        named().spawn(move || {
            let _end = end;
            runtime.block_on(async {
                tokio::select! {
                    () = bench.run(intake) => {}
                    // Keys that nobody looks after would stay open past their windows.
                    ended = tended => ended.expect("a panic there is one of this thread"),
                }
            });
            // A machine ends with it, so that none of the others waits for room there. A name that
            // is being looked up is not waited for.
            runtime.shutdown_background();
            for (other, thread) in stops.into_iter().zip(others) {
                let _ended = other.send(Work::Stop);
                let _panicked = thread.join();
            }
            desk.close();
        })?;
        let peeler = Self {
            feeds: feeds.into(),
            news,
            key_open,
            fed: Arc::default(),
        };
        Ok((peeler, ended))
    }

    /// The runtime of the first thread: the place for a machine that does nothing but mix, and for
    /// the links to its next hops.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        self.first().runtime()
    }

    fn first(&self) -> &Feed {
        self.feeds.first().expect("one thread or more")
    }

    /// The thread for one more link: one of those with the fewest, in turn.
    #[must_use]
    pub fn feed(&self) -> Feed {
        let turn = self.fed.fetch_add(1, Ordering::Relaxed) % self.feeds.len();
        let (before, from) = self.feeds.split_at(turn);
        let fewest = from
            .iter()
            .chain(before)
            .min_by_key(|feed| Arc::strong_count(&feed.held));
        fewest.unwrap_or_else(|| self.first()).clone()
    }

    /// Hands over the newest consensus, and waits until the keys are open that should be by now.
    pub async fn renew(&self, consensus: Arc<Consensus>) {
        let (opened, open) = oneshot::channel();
        let _ended = self.news.send((consensus, opened)).await;
        let _ended = open.await;
    }

    /// Whether the key of the epoch that holds now is open, as of at most [`TEND_EVERY`] ago.
    #[must_use]
    pub fn key_open(&self) -> watch::Receiver<bool> {
        self.key_open.clone()
    }

    /// Asks the threads to end, after what waits, and to close the journals.
    pub fn stop(&self) {
        let _ended = self.first().work.send(Work::Stop);
    }
}

impl Feed {
    fn to(runtime: &Handle) -> (Self, Intake) {
        let (sender, work) = mpsc::unbounded_channel();
        let feed = Self {
            work: sender,
            waiting: Arc::default(),
            runtime: runtime.clone(),
            held: Arc::new(()),
        };
        let waiting = Arc::clone(&feed.waiting);
        (feed, Intake { work, waiting })
    }
}

fn named() -> thread::Builder {
    thread::Builder::new().name("packets".to_owned())
}

/// Whichever thread ends, and be it by a panic, all end: links must not go on to one that is gone.
struct StopAll(mpsc::UnboundedSender<Work>);

impl Drop for StopAll {
    fn drop(&mut self) {
        let _ended = self.0.send(Work::Stop);
    }
}

/// Lets keys come and go, and asks the disk for their journals, beside the packets.
async fn look_after(desk: Arc<Desk>, news: mpsc::Receiver<News>) {
    let sync = async {
        loop {
            sleep(SYNC_EVERY).await;
            desk.sync().await;
        }
    };
    tokio::select! {
        () = tend(Arc::clone(&desk), news) => {}
        () = sync => {}
    }
}

async fn tend(desk: Arc<Desk>, mut news: mpsc::Receiver<News>) {
    loop {
        match timeout(TEND_EVERY, news.recv()).await {
            Ok(Some((consensus, opened))) => {
                desk.tend(Some(consensus)).await;
                let _nobody_waits = opened.send(());
            }
            Ok(None) => return,
            Err(_nothing_new) => desk.tend(None).await,
        }
    }
}

/// Where finished packets go.
struct Way<I, P, C> {
    machine: mpsc::Sender<I>,
    passed: P,
    counted: C,
}

impl<I, P: Fn(Peeled) -> I, C: Fn(Verdict)> Way<I, P, C> {
    async fn pass(&self, pending: Pending) {
        for peeled in pending.finish() {
            // Fails only while the machine's driver stops.
            let _stopping = self.machine.send((self.passed)(peeled)).await;
            (self.counted)(Verdict::Peeled);
        }
    }

    /// Passes on what is new to the store, once it has said so (GW-30).
    async fn pass_new(&self, mut pending: Pending, answer: Reply<Vec<bool>>) {
        let Ok(new) = answer.await else {
            return self.count(pending.len(), Verdict::Unshared);
        };
        let seen = Verdict::Dropped(PeelDrop::Replay(Refused::Seen));
        self.count(pending.keep(&new), seen);
        self.pass(pending).await;
    }

    fn count(&self, packets: usize, why: Verdict) {
        (0..packets).for_each(|_| (self.counted)(why));
    }
}

/// What one thread works with.
struct Bench<I, P, C> {
    desk: Arc<Desk>,
    pace: Pace,
    tags: Option<Arc<dyn Tags>>,
    way: Arc<Way<I, P, C>>,
}

impl<I, P, C> Bench<I, P, C>
where
    I: Send + 'static,
    P: Fn(Peeled) -> I + Send + Sync + 'static,
    C: Fn(Verdict) + Send + Sync + 'static,
{
    async fn run(self, intake: Intake) {
        let mut asked = JoinSet::new();
        self.take_turns(intake, &mut asked).await;
        while let Some(passed) = asked.join_next().await {
            passed.expect("it does not panic, and nobody cancels it");
        }
    }

    /// Passes one batch on, or leaves that to a task among `asked`.
    async fn pass(&self, pending: Pending, asked: &mut JoinSet<()>) {
        let Some(tags) = &self.tags else {
            return self.way.pass(pending).await;
        };
        while let Some(passed) = asked.try_join_next() {
            passed.expect("it does not panic, and nobody cancels it");
        }
        if asked.len() >= ASKED_MAX {
            self.way.count(pending.len(), Verdict::Unshared);
        } else if !pending.is_empty() {
            let answer = tags.admit(pending.journal.clone());
            let way = Arc::clone(&self.way);
            asked.spawn(async move { way.pass_new(pending, answer).await });
        }
    }

    async fn take_turns(&self, mut intake: Intake, asked: &mut JoinSet<()>) {
        let clock = self.desk.clock();
        let mut backlog = Backlog::new(self.pace);
        let mut works = Vec::new();
        loop {
            if backlog.is_empty() {
                if intake.work.recv_many(&mut works, WAITING_MAX).await == 0 {
                    return;
                }
            } else {
                // The first lets tasks run that are ready and asks the kernel what is new, after
                // which this one goes first again; the second lets run what that woke.
                yield_now().await;
                yield_now().await;
                works.extend(core::iter::from_fn(|| intake.work.try_recv().ok()));
            }
            let mut stop = false;
            for work in works.drain(..) {
                match work {
                    Work::Packets(arrivals) => backlog.extend(arrivals),
                    Work::Stop => stop = true,
                }
            }
            while !backlog.is_empty() {
                let (batch, overload) = backlog.take(clock.now());
                let gone = batch.len() + overload;
                intake.waiting.fetch_sub(gone, Ordering::Relaxed);
                self.way.count(overload, Verdict::Overload);
                let pending = self.desk.admit(batch, &self.way.counted);
                self.pass(pending, asked).await;
                if !stop {
                    break; // first see whether newer ones have come
                }
            }
            if stop {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many links brought them: after a stall there is one read for each.
    #[tokio::test]
    async fn what_waits_is_bounded_in_packets() {
        let (feed, mut intake) = Feed::to(&Handle::current());
        let read = |packets: usize| -> Vec<Arrival> {
            let arrival = || Arrival {
                received: proto::Time::ZERO,
                packet: Box::new([0; sphinx::PACKET_LEN]),
            };
            (0..packets).map(|_| arrival()).collect()
        };
        for _ in 0..WAITING_MAX - 2 {
            assert!(feed.arrived(read(1)));
        }
        for (packets, fits) in [(3, false), (2, true), (1, false)] {
            assert_eq!(feed.arrived(read(packets)), fits, "{packets}");
        }
        let works = core::iter::from_fn(|| intake.work.try_recv().ok());
        assert_eq!(works.count(), WAITING_MAX - 1);
    }

    /// Links that come again and again on one thread's turn do not pile up there.
    #[tokio::test]
    async fn a_link_goes_to_a_thread_with_the_fewest() {
        let here = Handle::current();
        let peeler = Peeler {
            feeds: [(); 3].map(|()| Feed::to(&here).0).into(),
            news: mpsc::channel(1).0,
            key_open: watch::channel(true).1,
            fed: Arc::default(),
        };
        let of = |feed: &Feed| {
            let same = |one: &Feed| one.work.same_channel(&feed.work);
            peeler.feeds.iter().position(same).unwrap()
        };
        let [first, second, third] = [(); 3].map(|()| peeler.feed());
        assert_eq!([&first, &second, &third].map(of), [0, 1, 2]);
        drop(second);
        let mut second = peeler.feed();
        for _redial in 0..4 {
            assert_eq!(of(&second), 1);
            drop(second);
            second = peeler.feed();
        }
        let more = [(); 3].map(|()| peeler.feed());
        let mut more = more.each_ref().map(of);
        more.sort_unstable();
        assert_eq!(more, [0, 1, 2]);
    }
}
