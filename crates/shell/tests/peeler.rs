//! The peeler with real keys, packets and journals: each packet once, also across a restart, and
//! no key longer than its window. Two threads take the packets in turn, so that what one admits the
//! other has to know.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::{num::NonZeroUsize, path::Path, sync::Arc};

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
    keys::{About, Keys},
    peeler::{Peeler, Setup, Verdict},
    state::StateDir,
};
use sphinx::{Hop, Packet, SecretKey};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const NETWORK: NetworkId = NetworkId([7; 32]);

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
    start_with(keys, consensus, |peeled| peeled)
}

fn start_with(
    keys: &Arc<Keys>,
    consensus: &Arc<Consensus>,
    passes: impl Fn(Peeled) -> Peeled + Clone + Send + 'static,
) -> Running {
    let (pass, passed) = mpsc::channel(100);
    let (count, counted) = std::sync::mpsc::channel();
    let setup = Setup {
        path: sphinx::Path::best(),
        clock: Clock::start(),
        keys: Arc::clone(keys),
        journals: keys.state().folder("replay").unwrap(),
        rate_per_s: 10_000.0,
        replay_max: 100,
        threads: NonZeroUsize::new(2).unwrap(),
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
        wait(self.peeler.stop());
        wait(self.end.cancelled());
    }
}

/// Once a consensus is taken its keys are open, on every thread: a node says only then that it is
/// ready.
#[test]
fn a_consensus_is_taken_when_its_keys_are_open() {
    let folder = tempfile::tempdir().unwrap();
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
    let folder = tempfile::tempdir().unwrap();
    let [mix, gateway] = ["mix", "gateway"].map(|name| keys(&folder.path().join(name)));
    let consensus = consensus(&mix, &gateway, -60);
    for thread in 0..2 {
        let running = start_with(&mix, &consensus, |_| panic!("on purpose"));
        let feeds = [running.peeler.feed(), running.peeler.feed()];
        let packet = packet(thread, &consensus, mix.id(), 0);
        let received = Clock::start().now();
        let arrivals = vec![Arrival { received, packet }];
        assert!(feeds[usize::from(thread)].arrived(arrivals));
        wait(running.end.cancelled());
    }
}

/// RPL-1: of two threads that open one packet at once, one admits it.
#[test]
fn two_threads_admit_a_packet_once() {
    let folder = tempfile::tempdir().unwrap();
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
    let folder = tempfile::tempdir().unwrap();
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

/// EPO-2, EPO-5
#[test]
fn a_key_opens_in_its_window_alone_and_is_erased_after_it() {
    let folder = tempfile::tempdir().unwrap();
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
    let folder = tempfile::tempdir().unwrap();
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
