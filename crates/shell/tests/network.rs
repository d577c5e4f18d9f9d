//! A directory, three mixes, a gateway and a client over 127.0.0.1: from nothing to a packet that
//! crosses all three layers, each node around its real machine.
//! The authorities are one stand-in that signs as soon as it knows four nodes; their machine has
//! tests of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use chacha20::ChaCha12Rng;
use ed25519_dalek::SigningKey;
use proto::{
    MailboxId, NetworkId, NodeId,
    directory::{
        Ballot, Consensus, Network, Params, Role, SignedConsensus, SignedDescriptor, Terms,
        ask::{Answer, QUESTION_LEN_MAX, Question},
    },
    mix::{self, Mix},
    peel::Peeled,
    wire::{Frame, Hello, Kind, Purpose, WIRE_VERSION},
};
use rand_core::SeedableRng;
use shell::{
    accept::{Door, Incoming, Limits, accept},
    ask::{answer, ask},
    clock::Clock,
    drive::drive,
    follow::{Directory, Follow, FollowError, Follower, State},
    keys::Keys,
    link::{Dialler, Link, LinkError, Target, certificate_frame},
    metrics::Metrics,
    node::{Node, Setup},
    state::StateDir,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

const NETWORK: NetworkId = NetworkId([7; 32]);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn params() -> Params {
    Params {
        delay_mean_ms: 1,
        ..Params::default()
    }
}

/// What the authorities hold.
#[derive(Default)]
struct Desk {
    descriptors: BTreeMap<NodeId, SignedDescriptor>,
    document: Option<SignedConsensus>,
}

/// Four authorities behind four ports, who hold the same.
struct Authorities {
    keys: Vec<SigningKey>,
    network: Network,
    desk: Arc<Mutex<Desk>>,
    clock: Clock,
}

impl Authorities {
    async fn open(stop: &CancellationToken) -> Self {
        let mut keys: Vec<_> = (1..=4).map(key).collect();
        keys.sort_by_key(|key| key.verifying_key().to_bytes());
        let mut listeners = Vec::new();
        for _ in &keys {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap().to_string());
        let network = Network {
            id: NETWORK,
            authorities: keys
                .iter()
                .map(|key| key.verifying_key().to_bytes())
                .collect(),
            authority_addresses: addresses.collect(),
            minimum_period: 0,
            bootstrap: vec![(
                NodeId(key(99).verifying_key().to_bytes()),
                "127.0.0.1:1".to_owned(),
            )],
        };
        let this = Self {
            keys,
            network,
            desk: Arc::default(),
            clock: Clock::start(),
        };
        for (key, listener) in this.keys.clone().into_iter().zip(listeners) {
            this.serve(key, listener, stop.clone());
        }
        this
    }

    fn serve(&self, identity: SigningKey, listener: TcpListener, stop: CancellationToken) {
        let (clock, link_key) = (self.clock, key(100));
        let public = link_key.verifying_key().to_bytes();
        let door = Door {
            key: link_key,
            certificate: Arc::new(move || {
                let now_s = clock.utc().as_secs();
                let validity = now_s - 60..now_s + 60;
                certificate_frame(&proto::directory::LinkCertificate::sign(
                    &NETWORK, &identity, public, validity,
                ))
            }),
            purposes: &[Purpose::Directory],
            admit: Arc::new(|_| None),
            limits: Limits::default(),
            clock,
            metrics: Metrics::default(),
        };
        let (desk, keys) = (Arc::clone(&self.desk), self.keys.clone());
        let handle = move |incoming: Incoming| {
            let (desk, keys) = (Arc::clone(&desk), keys.clone());
            async move {
                let answers = |question| core::future::ready(reply(&desk, &keys, clock, question));
                let _ = answer(incoming.link, QUESTION_LEN_MAX, answers).await;
            }
        };
        tokio::spawn(accept(listener, door, handle, stop));
    }

    fn dialler(&self) -> Dialler {
        Dialler {
            network: NETWORK,
            key: None,
            clock: self.clock,
        }
    }
}

fn sign(
    keys: &[SigningKey],
    period: u64,
    valid_from_s: u64,
    previous: [u8; 32],
    descriptors: impl IntoIterator<Item = SignedDescriptor>,
) -> SignedConsensus {
    let terms = Terms {
        network: NETWORK,
        period,
        previous,
        layers: 3,
        params: params(),
    };
    let consensus = Consensus::build(&terms, valid_from_s, descriptors).unwrap();
    let votes = (0u8..).zip(keys).map(|(authority, key)| {
        Ballot::sign(&NETWORK, key, authority, period, 0, consensus.hash()).vote
    });
    SignedConsensus {
        body: consensus.body(),
        votes: votes.collect(),
    }
}

fn reply(desk: &Mutex<Desk>, keys: &[SigningKey], clock: Clock, question: Question) -> Answer {
    let mut desk = desk.lock().unwrap();
    let document = desk.document.clone();
    match question {
        Question::Gathering if desk.document.is_none() => Answer::Gathering {
            period: 0,
            params: params(),
        },
        Question::Submit(signed) => {
            let id = signed.verify(&NETWORK).unwrap().id;
            desk.descriptors.insert(id, signed);
            if desk.descriptors.len() == 4 && desk.document.is_none() {
                let descriptors = desk.descriptors.clone().into_values();
                let now_s = clock.utc().as_secs();
                desk.document = Some(sign(keys, 0, now_s, [0; 32], descriptors));
            }
            Answer::Accepted
        }
        Question::Consensus {
            period: None | Some(0),
        } => document.map_or(Answer::NotYet, Answer::Consensus),
        Question::Consensus { .. }
        | Question::Gathering
        | Question::Descriptors
        | Question::Propose(_)
        | Question::Vote(_) => Answer::NotYet,
    }
}

/// Starts a node whose peeled packets come out of the receiver.
async fn node(
    root: &Path,
    authorities: &Authorities,
    role: Role,
    links: Option<mpsc::UnboundedSender<Incoming>>,
    stop: &CancellationToken,
) -> (Node, mpsc::Receiver<Peeled>, Metrics) {
    let keys = Keys::open(StateDir::open(root).unwrap()).unwrap();
    let metrics = Metrics::default();
    let setup = Setup {
        tell: Arc::new(|_| ()),
        path: sphinx::Path::best(),
        keys: Arc::new(keys),
        network: Arc::new(authorities.network.clone()),
        role,
        family: String::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: String::new(),
        threads: NonZeroUsize::new(2).unwrap(),
        replay_max: 1000,
        tags: None,
        pool_max: 100,
        clients: 1 << 20,
        link_queue_max: 100,
        limits: Limits::default(),
        clock: authorities.clock,
        metrics: metrics.clone(),
    };
    let (inbox, peeled) = mpsc::channel(100);
    let clients = move |incoming: Incoming| {
        let links = links.clone();
        async move {
            let ended = incoming.ended.clone();
            let handed = links.expect("gateways alone").send(incoming);
            handed.expect("the test listens");
            ended.cancelled().await;
        }
    };
    let node = Node::start(setup, inbox, |peeled| peeled, clients, stop.clone());
    (node.await.unwrap(), peeled, metrics)
}

/// A mix: the node and its machine.
async fn mix(
    root: PathBuf,
    authorities: &Authorities,
    stop: &CancellationToken,
) -> (Node, Metrics) {
    let (mut node, mut peeled, metrics) = node(&root, authorities, Role::Mix, None, stop).await;
    let (inbox, inputs) = mpsc::channel(100);
    let mut outgoing = node.outgoing.sender();
    let effect = move |output| match output {
        mix::Output::Send { to, packet } => {
            outgoing.send(&to, packet).expect("a queue for 100");
        }
        mix::Output::Dropped(why) => panic!("{why:?}"),
        mix::Output::Holding { .. } => unreachable!("nobody asked"),
    };
    let (mix, clock) = (Mix::new(100), authorities.clock);
    tokio::spawn(drive(mix, clock, inputs, effect, stop.clone()));
    let (id, mut directory) = (node.id, node.directory.clone());
    tokio::spawn(async move {
        let consensus = directory.ready().await.unwrap();
        let next = shell::neighbours::next_of(&[consensus], &id);
        inbox.send(mix::Input::Next(next)).await.unwrap();
        while let Some(peeled) = peeled.recv().await {
            if inbox.send(mix::Input::Peeled(peeled)).await.is_err() {
                return;
            }
        }
    });
    node.directory.state.mark_unchanged();
    (node, metrics)
}

async fn dial(
    authorities: &Authorities,
    gateway: &Node,
    purpose: Purpose,
) -> Result<Link, LinkError> {
    let target = Target {
        id: gateway.id,
        address: gateway.listening.to_string(),
        link_key: None,
    };
    let hello = Hello {
        version: WIRE_VERSION,
        purpose,
        profile: 0,
    };
    authorities.dialler().dial(&target, hello).await
}

fn client(authorities: &Authorities, network: Network, file: PathBuf) -> Follow {
    Follow {
        network: Arc::new(network),
        dialler: authorities.dialler(),
        file,
        follower: Follower::Client,
    }
}

/// LNK-7, LNK-8, DIR-11, MIX-1, RPL-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_crosses_three_mixes_once() {
    let (root, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let authorities = Authorities::open(&stop).await;
    let mut mixes = Vec::new();
    for name in ["mix-0", "mix-1", "mix-2"] {
        mixes.push(mix(root.path().join(name), &authorities, &stop).await);
    }
    let (links, mut linked) = mpsc::unbounded_channel();
    let path = root.path().join("gateway");
    let (mut gateway, mut peeled, gateway_metrics) =
        node(&path, &authorities, Role::Gateway, Some(links), &stop).await;
    let consensus = gateway.directory.ready().await.unwrap();
    assert_eq!(
        consensus.layers.iter().map(Vec::len).collect::<Vec<_>>(),
        [1, 1, 1]
    );
    for (mix, _) in &mixes {
        mix.outgoing.up().wait_for(|up| *up == 1).await.unwrap();
    }
    gateway.outgoing.up().wait_for(|up| *up == 1).await.unwrap();

    // A client's link reaches the gateway's own code.
    let _entry = dial(&authorities, &gateway, Purpose::Entry).await.unwrap();
    assert_eq!(linked.recv().await.unwrap().hello.purpose, Purpose::Entry);

    // LNK-2: what is neither packet nor notice ends a node link; it is dialled again.
    let layer_1 = consensus.layers[0][0];
    let mut up = gateway.outgoing.up();
    gateway
        .outgoing
        .broadcast(&Frame::new(Kind::Dummy, 0, [0; 32]));
    up.wait_for(|up| *up == 0).await.unwrap();
    up.wait_for(|up| *up == 1).await.unwrap();

    // A packet, sent twice: it comes out once.
    let mailbox = MailboxId([5; 32]);
    let recipient = sphinx::SecretKey::from_bytes([8; 32]);
    // DIR-4: each says what it measured of itself.
    for node in &consensus.nodes {
        assert_eq!(node.check.path, sphinx::Path::best().name());
        assert!(node.check.rate_per_s > 10 && node.check.threads > 0);
    }
    let epoch = consensus.schedule().at(authorities.clock.utc()).unwrap();
    let route = consensus
        .layers
        .iter()
        .map(|layer| layer[0])
        .chain([gateway.id]);
    let mut hops: Vec<_> = route
        .map(|id| {
            let node = consensus.node(&id).unwrap();
            let key = consensus.packet_key(node, epoch).unwrap();
            let delay_ns = if id == gateway.id { 0 } else { 1_000_000 };
            sphinx::Hop {
                address: id.0,
                key,
                delay_ns,
            }
        })
        .collect();
    let key = recipient.public();
    hops.push(sphinx::Hop {
        address: mailbox.0,
        key,
        delay_ns: 0,
    });
    let mut rng = ChaCha12Rng::from_seed([1; 32]);
    let mut build = |text: &[u8]| sphinx::build(&mut rng, &hops, [0; 32], [0; 16], text);
    let (first, second) = (build(b"first"), build(b"second"));
    let mut sending = gateway.outgoing.sender();
    for packet in [&first, &first, &second] {
        sending.send(&layer_1, packet.clone()).unwrap();
    }
    for _ in 0..2 {
        let arrived = peeled.recv().await.unwrap();
        assert_eq!((arrived.next, arrived.delay.as_nanos()), (mailbox.0, 0));
    }
    while gateway_metrics.sum("lacuna_packets_peeled_total") < 2 {
        tokio::task::yield_now().await; // counted just after it is handed over
    }
    let entered = mixes.iter().find(|(mix, _)| mix.id == layer_1).unwrap();
    assert_eq!(
        entered.1.sum("lacuna_packets_dropped_total"),
        1,
        "the replay"
    );

    // A gateway serves the document to a client that knows nothing but the gateway.
    let network = Network {
        bootstrap: vec![(gateway.id, gateway.listening.to_string())],
        authority_addresses: Vec::new(),
        ..authorities.network.clone()
    };
    let file = root.path().join("client-consensus");
    let quit = CancellationToken::new();
    let (mut known, task) = client(&authorities, network.clone(), file.clone())
        .start(quit.clone())
        .unwrap();
    assert_eq!(known.ready().await.unwrap().hash(), consensus.hash());
    quit.cancel();
    task.await.unwrap();

    // What the gateway knows and a client asks for otherwise is refused.
    let target = Target {
        id: gateway.id,
        address: gateway.listening.to_string(),
        link_key: None,
    };
    let refused = ask(&authorities.dialler(), &target, &Question::Gathering)
        .await
        .unwrap();
    assert!(matches!(refused, Answer::Refused(_)));

    // All nodes gone: the document on disk still holds.
    stop.cancel();
    gateway.stop().await;
    for (mix, _) in mixes {
        mix.stop().await;
    }
    let (mut kept, _task) = client(&authorities, network.clone(), file.clone())
        .start(CancellationToken::new())
        .unwrap();
    assert_eq!(kept.ready().await.unwrap().hash(), consensus.hash());

    // The same file in another network, or damaged, is not believed: one line with the remedy.
    let other = Network {
        minimum_period: 1,
        ..network.clone()
    };
    let refused = client(&authorities, other, file.clone()).start(CancellationToken::new());
    assert!(matches!(refused, Err(FollowError::Kept { .. })));
    std::fs::write(&file, b"damaged").unwrap();
    let refused = client(&authorities, network, file).start(CancellationToken::new());
    assert!(refused.unwrap_err().to_string().contains("remove it"));
}

/// Four nodes that say who they are, for one period, without running.
fn enrolled(authorities: &Authorities, root: &Path, period: u64) -> Vec<SignedDescriptor> {
    let enrol = |i: i32| {
        let keys = Keys::open(StateDir::open(&root.join(format!("node-{i}"))).unwrap()).unwrap();
        let about = shell::keys::About {
            role: if i < 3 { Role::Mix } else { Role::Gateway },
            address: "127.0.0.1:1".to_owned(),
            family: "x".to_owned(),
            check: proto::directory::SelfCheck::new(sphinx::Path::Portable, 1, 1),
        };
        // As if said before the documents that are over.
        let said_s = authorities.clock.utc().as_secs() - 3 * 86_400;
        keys.descriptor(&NETWORK, &about, period, &params(), said_s)
            .unwrap()
    };
    (0..4).map(enrol).collect()
}

/// What a stand-in for a gateway answers, and how often it was asked.
struct Script {
    answer: Mutex<Answer>,
    asked: watch::Sender<u32>,
}

impl Script {
    fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
        self.asked.send_replace(0);
    }

    fn reply(&self) -> Answer {
        self.asked.send_modify(|asked| *asked += 1);
        self.answer.lock().unwrap().clone()
    }

    /// Waits until the same answer was given twice: the first has been judged by then.
    async fn judged(&self) {
        self.asked
            .subscribe()
            .wait_for(|asked| *asked >= 2)
            .await
            .unwrap();
    }
}

/// A network whose bootstrap gateway is a stand-in.
async fn with_gateway(
    authorities: &Authorities,
    script: Arc<Script>,
    stop: &CancellationToken,
) -> Network {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (clock, identity, link_key) = (authorities.clock, key(50), key(51));
    let id = NodeId(identity.verifying_key().to_bytes());
    let public = link_key.verifying_key().to_bytes();
    let door = Door {
        key: link_key,
        certificate: Arc::new(move || {
            let now_s = clock.utc().as_secs();
            let validity = now_s - 60..now_s + 60;
            certificate_frame(&proto::directory::LinkCertificate::sign(
                &NETWORK, &identity, public, validity,
            ))
        }),
        purposes: &[Purpose::Directory],
        admit: Arc::new(|_| None),
        limits: Limits::default(),
        clock,
        metrics: Metrics::default(),
    };
    let handle = move |incoming: Incoming| {
        let script = Arc::clone(&script);
        async move {
            let answers = |_| core::future::ready(script.reply());
            let _ = answer(incoming.link, QUESTION_LEN_MAX, answers).await;
        }
    };
    tokio::spawn(accept(listener, door, handle, stop.clone()));
    Network {
        bootstrap: vec![(id, address)],
        ..authorities.network.clone()
    }
}

/// DIR-9, ATTACKS d03: nothing older than what was believed; a split stops a client for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_refuses_rollback_and_stops_at_a_split() {
    let (root, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let authorities = Authorities::open(&stop).await;
    let now_s = authorities.clock.utc().as_secs();
    let signed = |period, valid_from_s, previous| {
        let nodes = enrolled(&authorities, root.path(), period);
        sign(&authorities.keys, period, valid_from_s, previous, nodes)
    };
    let start = |network: &Network, name: &str| -> Directory {
        let follow = client(&authorities, network.clone(), root.path().join(name));
        follow.start(stop.clone()).unwrap().0
    };

    let script = Arc::new(Script {
        answer: Mutex::new(Answer::NotYet),
        asked: watch::Sender::new(0),
    });
    let network = with_gateway(&authorities, Arc::clone(&script), &stop).await;

    // "Not yet", or a document with a vote too few, leave a client bootstrapping; then the good
    // one makes it ready.
    let good = signed(0, now_s, [0; 32]);
    let mut doubtful = good.clone();
    doubtful.votes.truncate(2);
    for bad in [Answer::NotYet, Answer::Consensus(doubtful)] {
        script.says(bad);
        let mut known = start(&network, "consensus");
        script.judged().await;
        assert_eq!(*known.state.borrow(), State::Bootstrapping);
        script.says(Answer::Consensus(good.clone()));
        assert_eq!(known.ready().await.unwrap().period, 0);
        std::fs::remove_file(root.path().join("consensus")).unwrap();
    }

    // One that has believed period 1 refuses period 0; the positive control is above.
    let length_s = 2 * u64::from(params().epoch_s) * u64::from(params().epochs);
    let later = signed(1, now_s - length_s, [1; 32]);
    std::fs::write(root.path().join("later"), later.to_bytes()).unwrap();
    script.asked.send_replace(0);
    let known = start(&network, "later");
    script.judged().await;
    assert_eq!(*known.state.borrow(), State::Bootstrapping);

    // Whoever believed a document that is over asks at once, and is told another of its period:
    // proof of a split.
    let over = signed(0, now_s - length_s, [0; 32]);
    std::fs::write(root.path().join("over"), over.to_bytes()).unwrap();
    let mut split = start(&network, "over");
    split
        .state
        .wait_for(|state| *state == State::Bootstrapping)
        .await
        .unwrap();
    split
        .state
        .wait_for(|state| *state == State::Off)
        .await
        .unwrap();
    assert!(root.path().join("over.split").exists());
    // The proof outlives a restart.
    let mut again = start(&network, "over");
    again.state.changed().await.unwrap();
    assert_eq!(*again.state.borrow(), State::Off);
    stop.cancel();
}
