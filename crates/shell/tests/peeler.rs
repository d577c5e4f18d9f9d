//! The peeler with real keys, packets and journals: each packet once, also across a restart, and
//! no key longer than its window. Two threads take the packets in turn, so that what one admits the
//! other has to know.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use chacha20::ChaCha20Rng;
use proto::{
    NetworkId, NodeId,
    calendar::Epoch,
    directory::{Consensus, Params, Role, Terms},
    peel::{Arrival, PeelDrop, Peeled},
    replay::Refused,
};
use rand_core::SeedableRng;
use shell::{
    clock::Clock,
    journal::{Journals, Throwaway},
    keys::{About, Keys},
    peeler::{Peeler, Setup, Verdict},
    state::StateDir,
    store::{Mark, Reply, StoreError, Tags},
};
use sphinx::{Hop, Packet, SecretKey};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

const NETWORK: NetworkId = NetworkId([7; 32]);

/// A folder, and what its nodes leave in the kernel's memory.
struct Folder {
    _marks: Throwaway,
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            _marks: Throwaway(folder.path().to_owned()),
            folder,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn keys(path: &Path) -> Arc<Keys> {
    Arc::new(Keys::open(StateDir::open(path).unwrap()).unwrap())
}

/// A network of `mix` and a gateway, whose document starts so many seconds from now.
fn consensus(mix: &Keys, gateway: &Keys, from_now_s: i64) -> Arc<Consensus> {
    let params = Params::default();
    let now_s = Clock::start().utc().as_secs();
    let descriptors = [(mix, Role::Mix), (gateway, Role::Gateway)].map(|(keys, role)| {
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
    let valid_from_s = now_s.saturating_add_signed(from_now_s);
    Arc::new(Consensus::build(&terms, valid_from_s, descriptors).unwrap())
}

/// A packet for `mix`, and then for a gateway.
fn packet(seed: u8, consensus: &Consensus, mix: NodeId, epoch: u64) -> Box<Packet> {
    let node = consensus.node(&mix).unwrap();
    let key = consensus.packet_key(node, Epoch(epoch)).unwrap();
    let last = SecretKey::from_bytes([9; 32]).public();
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let route = [
        Hop {
            address: mix.0,
            key,
            delay_ns: 5,
        },
        Hop {
            address: [3; 32],
            key: last,
            delay_ns: 0,
        },
    ];
    sphinx::build(&mut rng, &route, [0; 32], [0; 16], b"hello")
}

struct Running {
    peeler: Peeler,
    end: CancellationToken,
    passed: mpsc::Receiver<Peeled>,
    counted: std::sync::mpsc::Receiver<Verdict>,
}

fn wait<T>(done: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(done)
}

fn start(keys: &Arc<Keys>, consensus: &Arc<Consensus>) -> Running {
    start_with(keys, consensus, None, |peeled| peeled)
}

/// One of the front ends that share `tags`.
fn start_front_end(keys: &Arc<Keys>, consensus: &Arc<Consensus>, tags: impl Tags) -> Running {
    start_with(keys, consensus, Some(Arc::new(tags)), |peeled| peeled)
}

fn start_with(
    keys: &Arc<Keys>,
    consensus: &Arc<Consensus>,
    tags: Option<Arc<dyn Tags>>,
    passes: impl Fn(Peeled) -> Peeled + Send + Sync + 'static,
) -> Running {
    let (pass, passed) = mpsc::channel(100);
    let (count, counted) = std::sync::mpsc::channel();
    let setup = Setup {
        path: sphinx::Path::best(),
        clock: Clock::start(),
        keys: Arc::clone(keys),
        journals: Journals::at(&keys.state().folder("replay").unwrap()).unwrap(),
        rate_per_s: 10_000.0,
        replay_max: 100,
        threads: NonZeroUsize::new(2).unwrap(),
        tags,
    };
    let (peeler, end) = Peeler::start(setup, pass, passes, move |verdict| {
        count.send(verdict).unwrap()
    })
    .unwrap();
    wait(peeler.renew(Arc::clone(consensus)));
    Running {
        peeler,
        end,
        passed,
        counted,
    }
}

impl Running {
    fn try_packet(&self, packet: &Packet) -> Verdict {
        let received = Clock::start().now();
        let packet = Box::new(*packet);
        assert!(
            self.peeler
                .feed()
                .arrived(vec![Arrival { received, packet }])
        );
        self.counted.recv().unwrap()
    }

    fn stop(self) {
        self.peeler.stop();
        wait(self.end.cancelled());
    }
}

/// Once a consensus is taken its keys are open, on every thread: a node says only then that it is
/// ready.
#[test]
fn a_consensus_is_taken_when_its_keys_are_open() {
    let folder = Folder::new();
    let [mix, gateway] = ["mix", "gateway"].map(|name| keys(&folder.path().join(name)));
    let consensus = consensus(&mix, &gateway, -60);
    let running = start(&mix, &consensus);
    let _first_thread = running.peeler.feed();
    let packet = packet(1, &consensus, mix.id(), 0);
    assert_eq!(running.try_packet(&packet), Verdict::Peeled);
    running.stop();
}

/// A thread that panics takes the others with it: a node must not go on with links that lead nowhere.
#[test]
fn all_threads_end_with_one_that_panics() {
    let folder = Folder::new();
    let [mix, gateway] = ["mix", "gateway"].map(|name| keys(&folder.path().join(name)));
    let consensus = consensus(&mix, &gateway, -60);
    for thread in 0..2 {
        let running = start_with(&mix, &consensus, None, |_| panic!("on purpose"));
        let feeds = [running.peeler.feed(), running.peeler.feed()];
        let packet = packet(thread, &consensus, mix.id(), 0);
        let received = Clock::start().now();
        let arrivals = vec![Arrival { received, packet }];
        assert!(feeds[usize::from(thread)].arrived(arrivals));
        wait(running.end.cancelled());
    }
}

/// A store that panics where keys are looked after.
struct Broken;

impl Tags for Broken {
    fn admit(&self, _: Vec<Mark>) -> Reply<Vec<bool>> {
        Reply::busy()
    }

    fn forget(&self, _: Epoch) -> Reply<u64> {
        panic!("on purpose")
    }
}

/// Keys that nobody looks after any more would stay open past their windows: all ends.
#[test]
fn all_threads_end_with_what_looks_after_the_keys() {
    let folder = Folder::new();
    let [mix, gateway] = ["mix", "gateway"].map(|name| keys(&folder.path().join(name)));
    let running = start_front_end(&mix, &consensus(&mix, &gateway, -60), Broken);
    wait(running.end.cancelled());
}

/// RPL-1: of two threads that open one packet at once, one admits it.
#[test]
fn two_threads_admit_a_packet_once() {
    let folder = Folder::new();
    let [mix, gateway] = ["mix", "gateway"].map(|name| keys(&folder.path().join(name)));
    let consensus = consensus(&mix, &gateway, -60);
    let running = start(&mix, &consensus);
    for seed in 0..60 {
        let packet = packet(seed, &consensus, mix.id(), 0);
        for _both in 0..2 {
            let (received, packet) = (Clock::start().now(), packet.clone());
            let arrivals = vec![Arrival { received, packet }];
            assert!(running.peeler.feed().arrived(arrivals));
        }
        let mut verdicts = [(); 2].map(|()| running.counted.recv().unwrap());
        verdicts.sort_unstable();
        let seen = Verdict::Dropped(PeelDrop::Replay(Refused::Seen));
        assert_eq!(verdicts, [Verdict::Peeled, seen]);
    }
    running.stop();
}

/// RPL-1, RPL-4
#[test]
fn a_packet_passes_once_also_across_a_restart() {
    let folder = Folder::new();
    let [mix, gateway] = ["mix", "gateway"].map(|name| keys(&folder.path().join(name)));
    let consensus = consensus(&mix, &gateway, -60);
    let first = packet(1, &consensus, mix.id(), 0);
    let again = Verdict::Dropped(PeelDrop::Replay(Refused::Seen));

    let mut running = start(&mix, &consensus);
    assert_eq!(running.try_packet(&first), Verdict::Peeled);
    let peeled = running.passed.blocking_recv().unwrap();
    assert_eq!((peeled.next, peeled.delay.as_nanos()), ([3; 32], 5));
    assert_eq!(running.try_packet(&first), again);
    running.stop();

    let running = start(&mix, &consensus);
    assert_eq!(running.try_packet(&first), again);
    assert_eq!(
        running.try_packet(&packet(2, &consensus, mix.id(), 0)),
        Verdict::Peeled
    );
    running.stop();
}

/// A second folder of the keys of `keys`, as a second front end has one.
fn twin(keys: &Keys, path: &Path) -> Arc<Keys> {
    std::fs::create_dir(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let copied = ["identity", "link", "packet-keys"].map(|name| keys.state().path(name));
    let done = Command::new("cp")
        .arg("-rp")
        .args(copied)
        .arg(path)
        .status();
    assert!(done.unwrap().success());
    self::keys(path)
}

/// A store in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeSet<Mark>>>);

impl Tags for Memory {
    fn admit(&self, marks: Vec<Mark>) -> Reply<Vec<bool>> {
        let (answer, reply) = Reply::awaited();
        let mut held = self.0.lock().unwrap();
        let new = marks.into_iter().map(|mark| held.insert(mark));
        answer.send(Ok(new.collect())).unwrap();
        reply
    }

    fn forget(&self, _: Epoch) -> Reply<u64> {
        Reply::busy()
    }
}

/// GW-30: a packet that is sent to two front ends passes one of them, and a restart changes nothing.
#[test]
fn front_ends_that_share_their_tags_pass_a_packet_once() {
    let folder = Folder::new();
    let [one, other] = ["one", "other"].map(|name| keys(&folder.path().join(name)));
    let consensus = consensus(&one, &other, -60);
    let two = twin(&one, &folder.path().join("two"));
    let seen = Verdict::Dropped(PeelDrop::Replay(Refused::Seen));
    let both = |tags: [&Memory; 2], seed| {
        let [first, second] = [(&one, tags[0]), (&two, tags[1])]
            .map(|(keys, tags)| start_front_end(keys, &consensus, tags.clone()));
        let packet = packet(seed, &consensus, one.id(), 0);
        let verdicts = [&first, &second, &first, &second].map(|at| at.try_packet(&packet));
        first.stop();
        second.stop();
        verdicts
    };
    let (store, apart) = (Memory::default(), Memory::default());
    for seed in 0..3 {
        let verdicts = both([&store, &store], seed);
        assert_eq!(verdicts, [Verdict::Peeled, seen, seen, seen]);
    }
    // Positive control: stores of their own.
    let verdicts = both([&store, &apart], 3);
    assert_eq!(verdicts, [Verdict::Peeled, Verdict::Peeled, seen, seen]);
    // One that has lost its own journal and set still knows by the store.
    let packet = packet(0, &consensus, one.id(), 0);
    let three = twin(&one, &folder.path().join("three"));
    let running = start_front_end(&three, &consensus, store);
    assert_eq!(running.try_packet(&packet), seen);
    running.stop();
}

/// A store that answers when the test does.
struct Slow(std::sync::mpsc::Sender<Asked>);

type Asked = (Vec<Mark>, oneshot::Sender<Result<Vec<bool>, StoreError>>);

impl Tags for Slow {
    fn admit(&self, marks: Vec<Mark>) -> Reply<Vec<bool>> {
        let (answer, reply) = Reply::awaited();
        self.0.send((marks, answer)).unwrap();
        reply
    }

    fn forget(&self, _: Epoch) -> Reply<u64> {
        Reply::busy()
    }
}

/// GW-30: a packet waits for the store's word without holding up its thread, and goes no further if
/// that word is no, or does not come, or too many wait.
#[test]
fn a_packet_goes_on_only_when_the_store_says_that_it_is_new() {
    let folder = Folder::new();
    let [gateway, other] = ["one", "other"].map(|name| keys(&folder.path().join(name)));
    let consensus = consensus(&gateway, &other, -60);
    let (ask, asked) = std::sync::mpsc::channel();
    let mut running = start_front_end(&gateway, &consensus, Slow(ask));
    let garbage = [0xa5; sphinx::PACKET_LEN];
    let feed = running.peeler.feed();
    let send = |seed| {
        let (received, packet) = (
            Clock::start().now(),
            packet(seed, &consensus, gateway.id(), 0),
        );
        assert!(feed.arrived(vec![Arrival { received, packet }]));
        asked.recv().unwrap()
    };
    let seen = Verdict::Dropped(PeelDrop::Replay(Refused::Seen));
    let mac = Verdict::Dropped(PeelDrop::Rejected(sphinx::Reject::Mac));
    let answers = [
        (Some(Ok(vec![true])), Verdict::Peeled),
        (Some(Ok(vec![false])), seen),
        (Some(Ok(vec![])), seen),
        (Some(Err(StoreError::Failed)), Verdict::Unshared),
        (None, Verdict::Unshared),
    ];
    for (seed, (said, verdict)) in (0..).zip(answers) {
        let (marks, answer) = send(seed);
        assert_eq!((marks.len(), marks[0].0), (1, Epoch(0)));
        assert_eq!(running.try_packet(&garbage), mac, "while the other waits");
        assert!(running.passed.try_recv().is_err());
        match said {
            Some(said) => drop(answer.send(said)),
            None => drop(answer),
        }
        assert_eq!(running.counted.recv().unwrap(), verdict);
        assert_eq!(
            running.passed.try_recv().is_ok(),
            verdict == Verdict::Peeled
        );
    }
    // What waits at a stop is waited for.
    let (_, answer) = send(9);
    running.peeler.stop();
    answer.send(Ok(vec![true])).unwrap();
    wait(running.end.cancelled());
    assert_eq!(running.counted.recv().unwrap(), Verdict::Peeled);
}

/// EPO-2, EPO-5
#[test]
fn a_key_opens_in_its_window_alone_and_is_erased_after_it() {
    let folder = Folder::new();
    let [mix, gateway] = ["mix", "gateway"].map(|name| keys(&folder.path().join(name)));
    // 2.5 epochs in: 0 is over, 1 has had its grace, 2 is current, 3 has not begun.
    let epoch_s = i64::from(Params::default().epoch_s);
    let consensus = consensus(&mix, &gateway, -epoch_s * 5 / 2);
    let running = start(&mix, &consensus);
    for (epoch, opens) in [(0, false), (1, false), (2, true), (3, false)] {
        let verdict = running.try_packet(&packet(3, &consensus, mix.id(), epoch));
        assert_eq!(
            verdict == Verdict::Peeled,
            opens,
            "epoch {epoch}: {verdict:?}"
        );
    }
    let expected: Vec<_> = (2..16).map(Epoch).collect();
    assert_eq!(mix.epochs().unwrap(), expected);
    running.stop();
}

/// RPL-4: a key whose journal went back never opens another packet.
#[test]
fn a_journal_that_went_back_burns_its_key() {
    let folder = Folder::new();
    let [mix, gateway] = ["mix", "gateway"].map(|name| keys(&folder.path().join(name)));
    let consensus = consensus(&mix, &gateway, -60);
    let running = start(&mix, &consensus);
    assert_eq!(
        running.try_packet(&packet(1, &consensus, mix.id(), 0)),
        Verdict::Peeled
    );
    running.stop();
    let journal = folder.path().join("mix/replay/epoch-0.replay");
    std::fs::remove_file(journal).unwrap();
    for _ in 0..2 {
        let running = start(&mix, &consensus);
        let verdict = running.try_packet(&packet(2, &consensus, mix.id(), 0));
        assert_eq!(verdict, Verdict::Dropped(PeelDrop::NoKey));
        running.stop();
    }
    assert!(mix.packet_secret(Epoch(0)).unwrap().is_none());
}
