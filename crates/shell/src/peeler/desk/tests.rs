//! What happens to a key when its journal, or the disk, fails.

use core::{num::NonZeroUsize, time::Duration};
use std::{cell::RefCell, fs, sync::atomic::Ordering, thread};

use chacha20::ChaCha20Rng;
use proto::{
    NetworkId, Time,
    directory::{Params, Role, Terms},
    peel::Peeled,
};
use rand_core::SeedableRng;
use sphinx::{Hop, Packet};
use tokio::{runtime::Builder, sync::mpsc};

use super::*;
use crate::{
    journal::Journals,
    keys::{About, Keys},
    peeler::{Bench, Feed, Way, Work, backlog::Pace},
    state::StateDir,
};

const NETWORK: NetworkId = NetworkId([7; 32]);
const NOW: Epoch = Epoch(0);

/// How long the clock has run when a test begins.
const BEFORE: Duration = Duration::from_secs(120);

struct Fixture {
    desk: Arc<Desk>,
    consensus: Arc<Consensus>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// A desk with the key of the epoch that has just begun.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let state = StateDir::open(&folder.path().join(name)).unwrap();
            Arc::new(Keys::open(state).unwrap())
        };
        let (mix, gateway) = (open("mix"), open("gateway"));
        let (params, clock) = (Params::default(), Clock::started(BEFORE));
        let now_s = clock.utc().as_secs();
        let said = [(&mix, Role::Mix), (&gateway, Role::Gateway)].map(|(keys, role)| {
            let about = About {
                role,
                address: "127.0.0.1:9".to_owned(),
                family: "x".to_owned(),
                check: proto::directory::SelfCheck::new(sphinx::Path::Portable, 1, 1),
            };
            keys.descriptor(&NETWORK, &about, 0, &params, now_s)
                .unwrap()
        });
        let terms = Terms {
            network: NETWORK,
            period: 0,
            previous: [0; 32],
            layers: 1,
            params,
        };
        let consensus = Arc::new(Consensus::build(&terms, now_s - 60, said).unwrap());
        let setup = Setup {
            path: sphinx::Path::best(),
            clock,
            journals: Journals::at(&mix.state().folder("replay").unwrap()).unwrap(),
            keys: mix,
            rate_per_s: 10_000.0,
            replay_max: 100,
            threads: NonZeroUsize::new(1).unwrap(),
            tags: None,
        };
        let desk = Arc::new(Desk::new(setup));
        desk.tend(Some(Arc::clone(&consensus))).await;
        Self {
            desk,
            consensus,
            _folder: folder,
        }
    }

    /// As after a kill: nothing was closed.
    async fn restart(&mut self) {
        self.desk = Arc::new(Desk {
            setup: Arc::clone(&self.desk.setup),
            keys: RwLock::default(),
            books: Mutex::default(),
            key_open: watch::Sender::new(false),
        });
        self.desk.tend(Some(Arc::clone(&self.consensus))).await;
    }

    fn packet(&self, seed: u8) -> Box<Packet> {
        let own = self.consensus.node(&self.desk.setup.keys.id()).unwrap();
        let hop = |address, key| Hop {
            address,
            key,
            delay_ns: 0,
        };
        let route = [
            hop(own.id.0, self.consensus.packet_key(own, NOW).unwrap()),
            hop([3; 32], SecretKey::from_bytes([9; 32]).public()),
        ];
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        sphinx::build(&mut rng, &route, [0; 32], [0; 16], b"hello")
    }

    /// What becomes of one packet, and whether it goes on.
    fn peel(&self, packet: &Packet) -> (Vec<Verdict>, usize) {
        let verdicts = RefCell::new(Vec::new());
        let arrival = Arrival {
            received: self.desk.clock().now(),
            packet: Box::new(*packet),
        };
        let counted = |verdict| RefCell::borrow_mut(&verdicts).push(verdict);
        let peeled = self.desk.admit(vec![arrival], &counted).finish().count();
        (verdicts.into_inner(), peeled)
    }

    fn has_key(&self) -> bool {
        self.desk.setup.keys.epochs().unwrap().contains(&NOW)
    }

    fn has_journal(&self) -> bool {
        let kept = self.desk.setup.journals.epochs().unwrap();
        kept.contains(&NOW)
    }
}

impl Drop for Fixture {
    /// Its mark in the kernel's memory would outlive it.
    fn drop(&mut self) {
        let _none = self.desk.setup.journals.erase(NOW);
    }
}

/// RPL-4: what can't be journaled does not go on, and the key opens nothing more, not by a newer
/// document either.
#[tokio::test]
async fn without_a_journal_nothing_goes_on() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.peel(&fixture.packet(1)), (vec![], 1));
    let key_open = fixture.desk.key_open();
    assert!(*key_open.borrow());
    fixture.desk.books().journals.remove(&NOW);
    let unjournaled = (vec![Verdict::Unjournaled], 0);
    assert_eq!(fixture.peel(&fixture.packet(2)), unjournaled);
    let no_key = (vec![Verdict::Dropped(PeelDrop::NoKey)], 0);
    for _ in 0..2 {
        assert_eq!(fixture.peel(&fixture.packet(3)), no_key);
        let news = Arc::clone(&fixture.consensus);
        fixture.desk.tend(Some(news)).await;
        assert!(!*key_open.borrow());
    }
    // Nothing was written, so nothing is lost: the disk keeps both.
    assert!(fixture.has_key() && fixture.has_journal());
}

/// RPL-4: a key whose journal could not be opened, though nothing is lost, is tried again.
#[tokio::test]
async fn a_key_that_could_not_be_opened_is_tried_again() {
    let mut fixture = Fixture::new().await;
    assert_eq!(fixture.peel(&fixture.packet(1)), (vec![], 1));
    let journal = fixture
        .desk
        .setup
        .keys
        .state()
        .path("replay/epoch-0.replay");
    let kept = journal.with_extension("kept");
    fs::rename(&journal, &kept).unwrap();
    fs::create_dir(&journal).unwrap(); // no file opens here
    fixture.restart().await;
    let no_key = (vec![Verdict::Dropped(PeelDrop::NoKey)], 0);
    assert_eq!(fixture.peel(&fixture.packet(2)), no_key);
    fs::remove_dir(&journal).unwrap();
    fs::rename(&kept, &journal).unwrap();
    for due in [false, true] {
        let failed = fixture.desk.clock().now();
        let failed = if due { Time::ZERO } else { failed };
        let closed = Closed::Failed(failed);
        let before = fixture.desk.books().closed.insert(NOW, closed);
        assert!(matches!(before, Some(Closed::Failed(_))));
        fixture.desk.tend(None).await;
        assert_eq!(fixture.desk.books().stage.holds(NOW), due);
    }
    let seen = Verdict::Dropped(PeelDrop::Replay(proto::replay::Refused::Seen));
    assert_eq!(fixture.peel(&fixture.packet(1)), (vec![seen], 0));
    assert_eq!(fixture.peel(&fixture.packet(2)), (vec![], 1));
    assert!(fixture.desk.books().closed.is_empty());
}

/// RPL-4: a key that was burned while it was being opened stays shut.
#[tokio::test]
async fn what_burned_meanwhile_stays_shut() {
    for burned in [false, true] {
        let fixture = Fixture::new().await;
        let why = burned.then_some(JournalError::Burned(NOW.0));
        fixture
            .desk
            .close_key(&mut fixture.desk.books(), NOW, why.as_ref());
        fixture.desk.open_key(&fixture.consensus, NOW).await;
        assert_eq!(fixture.desk.books().stage.holds(NOW), !burned);
    }
}

/// RPL-4, EPO-5: a burned key is erased, and its journal only when the key is gone.
#[tokio::test]
async fn a_burned_key_goes_before_its_journal() {
    let fixture = Fixture::new().await;
    let key = fixture.desk.setup.keys.state().path("packet-keys/0");
    let kept = fs::read(&key).unwrap();
    // A key that can't be erased: what is there is a folder.
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    fixture.desk.books().closed.insert(NOW, Closed::Burned);
    fixture.desk.tend(None).await;
    assert!(fixture.has_key() && fixture.has_journal());

    fs::remove_dir(&key).unwrap();
    fs::write(&key, kept).unwrap();
    fixture.desk.tend(None).await;
    assert!(!fixture.has_key() && !fixture.has_journal());
}

/// RPL-4: a key whose journal could not be written stays shut when the node is killed before it has
/// erased it. The control: after no more than a kill the key lives, and knows what it has opened.
#[tokio::test]
async fn a_disk_that_failed_is_remembered_across_a_kill() {
    for fails in [false, true] {
        let mut fixture = Fixture::new().await;
        assert_eq!(fixture.peel(&fixture.packet(1)), (vec![], 1));
        if fails {
            fixture.desk.books().journals.get_mut(&NOW).unwrap().fail();
            let unjournaled = (vec![Verdict::Unjournaled], 0);
            assert_eq!(fixture.peel(&fixture.packet(2)), unjournaled);
        }
        fixture.restart().await;
        assert_eq!(fixture.has_key(), !fails);
        let why = if fails {
            PeelDrop::NoKey
        } else {
            PeelDrop::Replay(proto::replay::Refused::Seen)
        };
        let dropped = (vec![Verdict::Dropped(why)], 0);
        assert_eq!(fixture.peel(&fixture.packet(1)), dropped);
    }
}

/// RPL-4: while the disk stalls nothing passes. What has waited too long behind it is then dropped and
/// counted, and what passes is remembered. The control: without a stall all pass.
#[tokio::test]
async fn a_disk_that_stalls_lets_nothing_through() {
    let pace = Pace {
        batch_max: 8,
        fresh: BEFORE / 2,
        patience: BEFORE / 2,
    };
    for stalls in [false, true] {
        let mut fixture = Fixture::new().await;
        let (machine, mut passed) = mpsc::channel(100);
        let (count, counted) = std::sync::mpsc::channel();
        let bench = Bench {
            desk: Arc::clone(&fixture.desk),
            pace,
            tags: None,
            way: Arc::new(Way {
                machine,
                passed: |peeled: Peeled| peeled,
                counted: move |verdict| count.send(verdict).unwrap(),
            }),
        };
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (feed, intake) = Feed::to(runtime.handle());
        let received = if stalls {
            Time::ZERO
        } else {
            fixture.desk.clock().now()
        };
        let thread = {
            // A batch is journaled under this lock: its write takes as long as this is held.
            let _stall = stalls.then(|| fixture.desk.books());
            let thread = thread::spawn(move || runtime.block_on(bench.run(intake)));
            for seeds in [0..1, 1..41] {
                let arrivals = seeds.map(|seed| Arrival {
                    received,
                    packet: fixture.packet(seed),
                });
                assert!(feed.arrived(arrivals.collect()));
            }
            while feed.waiting.load(Ordering::Relaxed) > 40 {
                thread::yield_now(); // until it has taken the first
            }
            assert!(!stalls || passed.try_recv().is_err());
            thread
        };
        feed.work.send(Work::Stop).unwrap();
        thread.join().unwrap();
        let went_on = core::iter::from_fn(|| passed.try_recv().ok()).count();
        let dropped = counted
            .iter()
            .filter(|verdict| *verdict == Verdict::Overload)
            .count();
        println!("stalls: {stalls}; {went_on} went on, {dropped} were dropped");
        assert_eq!(went_on + dropped, 41);
        assert_eq!(dropped >= 32, stalls);
        assert!(stalls || dropped == 0);
        fixture.restart().await;
        let seen = Verdict::Dropped(PeelDrop::Replay(proto::replay::Refused::Seen));
        let packets = (0..=40).map(|seed| fixture.peel(&fixture.packet(seed)));
        let remembered = packets.filter(|(verdicts, _)| *verdicts == [seen]);
        assert_eq!(remembered.count(), went_on);
    }
}

/// RPL-4: so it is when the kernel says only later that the disk did not take a record.
#[tokio::test]
async fn a_disk_that_fails_later_burns_the_key() {
    let fixture = Fixture::new().await;
    fixture.desk.sync().await;
    assert_eq!(fixture.peel(&fixture.packet(1)), (vec![], 1));
    fixture.desk.books().journals.get_mut(&NOW).unwrap().fail();
    fixture.desk.sync().await;
    let no_key = (vec![Verdict::Dropped(PeelDrop::NoKey)], 0);
    assert_eq!(fixture.peel(&fixture.packet(2)), no_key);
    fixture.desk.tend(None).await;
    assert!(!fixture.has_key() && !fixture.has_journal());
}

/// A key that a document does not name may be named by the next one.
#[tokio::test]
async fn the_next_document_may_name_a_key() {
    let fixture = Fixture::new().await;
    let mut before = (*fixture.consensus).clone();
    before
        .nodes
        .retain(|node| node.id != fixture.desk.setup.keys.id());
    {
        let mut books = fixture.desk.books();
        drop(books.stage.burn(NOW));
        books.journals.clear();
    }
    fixture.desk.tend(Some(Arc::new(before))).await;
    let closed = fixture.desk.books().closed.get(&NOW).copied();
    assert_eq!(closed, Some(Closed::Absent));
    let no_key = (vec![Verdict::Dropped(PeelDrop::NoKey)], 0);
    assert_eq!(fixture.peel(&fixture.packet(1)), no_key);
    fixture
        .desk
        .tend(Some(Arc::clone(&fixture.consensus)))
        .await;
    assert_eq!(fixture.peel(&fixture.packet(1)), (vec![], 1));
}

/// What a set has grown out of, and the set of a key that was closed, wait to be dropped beside the packets.
#[tokio::test]
async fn old_memory_is_dropped_by_who_tends() {
    let fixture = Fixture::new().await;
    let capacity = 5 << 20;
    let tags: Vec<_> = (1..(2 << 20))
        .map(|i: u64| Fingerprint::from_bytes(i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()))
        .collect();
    let secret = || SecretKey::from_bytes([5; 32]);
    let mut seen = ReplaySet::new(&secret(), capacity);
    seen.admit_batch(&tags, |_, _| ());
    let grown = seen.memory();
    fixture.desk.books().stage.install(NOW, secret(), seen);
    fixture.desk.tend(None).await;
    let memory = || -> usize {
        let books = fixture.desk.books();
        let closed = books.over.iter().map(ReplaySet::memory).sum::<usize>();
        closed
            + books
                .stage
                .sets()
                .map(|(_, set)| set.memory())
                .sum::<usize>()
    };
    let alone = memory();
    assert!(alone < grown && alone > 0);
    fixture.desk.close_key(&mut fixture.desk.books(), NOW, None);
    assert_eq!(memory(), alone, "not by the thread of packets");
    fixture.desk.tend(None).await;
    assert_eq!(memory(), 0);
}
