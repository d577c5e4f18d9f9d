//! What a mix and a gateway have in common, wired: everything around their machine.
//!
//! ```text
//!  node links ─ accept ─▶ peeler (read, open, journal, finish) ─── peeled ─▶ the role's machine
//!                 │                                                              │
//!  client links ──┴─▶ the role                     next hops ◀─ Node::outgoing ◀─┘
//!  authorities ◀─ follow ─▶ consensus ─▶ who may dial, whom to dial, keys, the role
//! ```
//!
//! Spec: docs/spec/link.md, LNK-7, LNK-8; docs/spec/epochs.md, EPO-2, EPO-4.
//!
//! | who            | takes links for                                | hands to the role            |
//! |----------------|------------------------------------------------|------------------------------|
//! | mix            | `Node`                                         | peeled packets               |
//! | gateway        | `Node`, `Directory` (answered here)            | peeled packets, client links |
//!
//! When the consensus changes, so do the neighbours on both sides, and a link from a node that
//! may no longer dial this one ends; from when the next document is known until the last key of the
//! period before has closed, those of both are neighbours. Without a consensus, or in one that does not name this node,
//! there are no neighbours: everything stops closed.
//!
//! Not done here: the machine, its driver, and what its outputs mean.

use core::{fmt, future::Future, net::SocketAddr, num::NonZeroUsize, time::Duration};
use std::{collections::BTreeMap, io, sync::Arc};

use proto::{
    NodeId,
    directory::{Network, Role, ask::GATEWAY_QUESTION_LEN_MAX},
    notice::{NoticeDrop, What},
    peel::{PeelDrop, Peeled},
    replay::Refused,
    wire::{Frame, Kind, Purpose},
};
use sphinx::Reject;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    accept::{Door, Incoming, Limits, accept},
    ask,
    budget::Budget,
    clock::Clock,
    describe::Describer,
    dial::Outgoing,
    follow::{Directory, Follow, FollowError, Follower, State},
    journal::Journals,
    keys::{About, Keys},
    link::{Dialler, LinkError, certificate_frame},
    loops::Loops,
    metrics::Metrics,
    neighbours::Admitted,
    notices::{self, Notices, Tell},
    peeler::{self, Feed, Peeler, Verdict},
    selfcheck::Measured,
    state::StateError,
    store::Tags,
    watching::{Standing, Watching},
};

/// Inputs that wait for a role's machine, which takes microseconds for each.
pub const INBOX: usize = 1024;
const DAY_S: u64 = 86_400;
const DROPPED: &str = "lacuna_packets_dropped_total";
/// What the opening of packets drops them for.
const DROPS: [PeelDrop; 9] = [
    PeelDrop::Final,
    PeelDrop::NoKey,
    PeelDrop::Replay(Refused::Seen),
    PeelDrop::Replay(Refused::Full),
    PeelDrop::Rejected(Reject::LowOrder),
    PeelDrop::Rejected(Reject::Mac),
    PeelDrop::Rejected(Reject::Version),
    PeelDrop::Rejected(Reject::Flag),
    PeelDrop::Rejected(Reject::DelayTooLong),
];
/// A packet at a whole node takes so many times its cryptography alone: 1.4 to 1.7 when it is busy
/// (docs/PERFORMANCE.md).
const NODE_OVER_CRYPTO: f64 = 1.6;
/// Longest that a withdrawal holds up the stop.
const LEAVING: Duration = Duration::from_millis(500);
const MIX: &[Purpose] = &[Purpose::Node];
const GATEWAY: &[Purpose] = &[
    Purpose::Node,
    Purpose::Entry,
    Purpose::Mailbox,
    Purpose::Directory,
];

/// What a node starts from.
pub struct Setup {
    /// Its keys; their state directory also gets journals and the consensus.
    pub keys: Arc<Keys>,
    /// What one starts from.
    pub network: Arc<Network>,
    /// Mix or gateway.
    pub role: Role,
    /// Who runs it; empty: its own name, so that no two nodes pass for one family by chance.
    pub family: String,
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `host:port` at which others reach it; empty: the address listened on.
    pub advertise: String,
    /// On which path packets are computed, one of this processor's.
    pub path: sphinx::Path,
    /// Threads that read node links and open packets.
    pub threads: NonZeroUsize,
    /// Most packets opened under one key.
    pub replay_max: usize,
    /// If it is one of several front ends of a gateway, the replay set that they share.
    pub tags: Option<Arc<dyn Tags>>,
    /// Most packets that its machine holds in memory; a gateway's holds none.
    pub pool_max: usize,
    /// Most bytes that it holds for clients; a mix has none.
    pub clients: usize,
    /// Most frames that wait for one link to a next hop.
    pub link_queue_max: usize,
    /// Hears of each new notice besides the next hops (LOOP-9).
    pub tell: Tell,
    /// How many links it takes.
    pub limits: Limits,
    /// Its clock.
    pub clock: Clock,
    /// Its counters.
    pub metrics: Metrics,
}

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Its address.
    #[error("can't listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        why: io::Error,
    },
    /// The thread that opens packets.
    #[error("can't start the thread that opens packets: {0}")]
    Peeler(io::Error),
    /// One of them has ended unasked.
    #[error(
        "a thread that opens packets has ended, which is a bug: please report what stands above"
    )]
    PacketsEnded,
    /// The directory.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// Its state directory.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A node that runs. Dropping it stops nothing; its token does.
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// The address it listens on.
    pub listening: SocketAddr,
    /// What its processor can do.
    pub crypto: Measured,
    /// What it knows of the network.
    pub directory: Directory,
    /// What of that is in force here: neighbours set, keys opened that could be.
    pub in_force: watch::Receiver<State>,
    /// How it stands.
    pub standing: watch::Receiver<Standing>,
    /// Links to its next hops.
    pub outgoing: Outgoing,
    peeler: Peeler,
    /// Cancelled when the threads of packets have ended.
    pub packets_ended: CancellationToken,
    following: JoinHandle<()>,
    loops: Option<Loops>,
    notices: Notices,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({:?})", self.id)
    }
}

impl Node {
    /// Starts everything around the machine, whose inbox gets each opened packet as what `peeled`
    /// makes of it. `clients` runs for each entry and mailbox link, which only a gateway has; it
    /// owns the link and returns when the link ends or `Incoming::ended` is cancelled.
    ///
    /// # Errors
    ///
    /// [`NodeError`].
    pub async fn start<I, F>(
        setup: Setup,
        machine: mpsc::Sender<I>,
        peeled: impl Fn(Peeled) -> I + Send + Sync + 'static,
        clients: impl Fn(Incoming) -> F + Clone + Send + Sync + 'static,
        stop: CancellationToken,
    ) -> Result<Self, NodeError>
    where
        I: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let budget = Budget::now(&setup);
        let Setup {
            keys,
            network,
            clock,
            metrics,
            ..
        } = setup;
        let address = setup.listen;
        let listening = |why| NodeError::Listen { address, why };
        let listener = TcpListener::bind(address).await.map_err(listening)?;
        let listening = listener.local_addr().map_err(listening)?;

        let crypto = Measured::now(setup.path);
        let about = About {
            role: setup.role,
            address: or(setup.advertise, || listening.to_string()),
            family: or(setup.family, || keys.id().to_string()),
            check: crypto.said(setup.threads),
        };
        let dialler = |key| Dialler {
            network: network.id,
            key,
            clock,
        };
        let describer = Describer::new(Arc::clone(&keys), network.id, about);
        let follow = Follow {
            network: Arc::clone(&network),
            dialler: dialler(None),
            file: keys.state().path("consensus"),
            follower: Follower::Node(Arc::new(move |period, params| {
                describer.describe(period, params, clock.utc().as_secs())
            })),
        };
        let (directory, following) = follow.start(stop.clone())?;

        let counting = metrics.clone();
        // Packets are counted without a lock.
        let opened = metrics.cell("lacuna_packets_peeled_total", "");
        let overload = metrics.cell(DROPPED, "overload");
        let unjournaled = metrics.cell(DROPPED, "unjournaled");
        let unshared = metrics.cell(DROPPED, "unshared");
        let drops = DROPS.map(|why| (why, metrics.cell(DROPPED, reason(why))));
        let drops = Arc::new(BTreeMap::from(drops));
        crypto.show(&metrics);
        tracing::info!(
            path = crypto.path.name(),
            rate_per_s = crypto.rate_per_s,
            node_about_per_s = (crypto.rate_per_s / NODE_OVER_CRYPTO).round(),
            "packets that one processor opens, and about what a node carries with it"
        );
        let peeling = peeler::Setup {
            clock,
            keys: Arc::clone(&keys),
            journals: Journals::at(&keys.state().folder("replay")?).map_err(NodeError::Peeler)?,
            path: setup.path,
            rate_per_s: crypto.rate_per_s,
            replay_max: setup.replay_max,
            threads: setup.threads,
            tags: setup.tags,
        };
        tracing::info!(%budget, "memory");
        budget.warn_beyond_memory();
        let counted = move |verdict| match verdict {
            Verdict::Peeled => opened.add(1),
            Verdict::Overload => overload.add(1),
            Verdict::Unjournaled => unjournaled.add(1),
            Verdict::Unshared => unshared.add(1),
            Verdict::Dropped(why) => match drops.get(&why) {
                Some(cell) => cell.add(1),
                None => counting.count(DROPPED, reason(why)),
            },
        };
        let peeling = Peeler::start(peeling, machine, peeled, counted);
        let (peeler, packets_ended) = peeling.map_err(NodeError::Peeler)?;

        let link_key = Some(keys.link().clone());
        let outgoing = Outgoing::new(
            dialler(link_key),
            setup.link_queue_max,
            &metrics,
            peeler.runtime().clone(),
            stop.clone(),
        );
        let admitted = Admitted::default();
        let tasks = TaskTracker::new();
        let (in_force, heeded) = watch::channel(State::Bootstrapping);
        let (standing, stands) = watch::channel(Standing::Bootstrapping);
        let watching = Watching {
            id: keys.id(),
            directory: directory.clone(),
            in_force,
            standing,
            admitted: admitted.clone(),
            outgoing: outgoing.clone(),
            peeler: peeler.clone(),
            replay_max: setup.replay_max,
            crypto,
            metrics: metrics.clone(),
        };
        let watched = stop.clone();
        tasks.spawn(async move { watched.run_until_cancelled(watching.run()).await });

        let notices = Notices::new(notices::Setup {
            network: network.id,
            keys: Arc::clone(&keys),
            clock,
            directory: directory.state.clone(),
            outgoing: outgoing.clone(),
            tell: setup.tell,
            metrics: metrics.clone(),
        });
        let inside = Inside {
            directory: directory.clone(),
            notices: notices.clone(),
            admitted: admitted.watch(),
            peeler: peeler.clone(),
            metrics: metrics.clone(),
        };
        let handle = move |incoming: Incoming| {
            let (inside, clients) = (inside.clone(), clients.clone());
            async move {
                match incoming.hello.purpose {
                    Purpose::Node => inside.node(incoming).await,
                    Purpose::Directory => inside.directory(incoming).await,
                    Purpose::Entry | Purpose::Mailbox => clients(incoming).await,
                }
            }
        };
        let id = keys.id();
        let loops = Loops {
            keys: Arc::clone(&keys),
            role: setup.role,
            dialler: dialler(None),
            directory: directory.state.clone(),
            metrics: metrics.clone(),
            alarmed: Arc::new(|| ()),
        };
        let door = Door {
            key: keys.link().clone(),
            certificate: Arc::new(move || {
                let now_s = clock.utc().as_secs();
                let validity = now_s.saturating_sub(DAY_S)..now_s + DAY_S;
                certificate_frame(&keys.certificate(&network.id, validity))
            }),
            purposes: match setup.role {
                Role::Mix => MIX,
                Role::Gateway => GATEWAY,
            },
            admit: admitted.admit(),
            limits: setup.limits,
            clock,
            metrics,
        };
        tasks.spawn(accept(listener, door, handle, stop.clone()));
        tasks.close();
        Ok(Self {
            id,
            listening,
            crypto,
            directory,
            in_force: heeded,
            standing: stands,
            outgoing,
            peeler,
            packets_ended,
            following,
            loops: Some(loops),
            notices,
            tasks,
            stop,
        })
    }

    /// Where packets are read, opened and written: the place for the machine of a role that does
    /// nothing else.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        self.peeler.runtime()
    }

    /// Starts the node's own loops (LOOP-1), once. `alarmed` is told when too many are lost, and
    /// must not wait.
    pub fn start_loops(&mut self, alarmed: impl Fn() + Send + Sync + 'static) {
        if let Some(mut loops) = self.loops.take() {
            let notices = self.notices.clone();
            loops.alarmed = Arc::new(move || {
                let _frame = notices.say(What::Alarm);
                alarmed();
            });
            self.tasks.spawn(loops.run(self.stop.clone()));
        }
    }

    /// Says that this node is leaving, and waits until that is on its way, but not for long.
    pub fn withdraw(&self) -> impl Future<Output = ()> + use<> {
        let (notices, outgoing) = (self.notices.clone(), self.outgoing.clone());
        async move {
            let frame = notices.say(What::Withdrawal);
            // A queue is empty when its last frame is taken, not when it is written; but a link
            // takes the next one, which says it again, only after it wrote the last.
            let said = async {
                outgoing.flushed().await;
                outgoing.broadcast(&frame);
                outgoing.flushed().await;
            };
            let _some_are_down = tokio::time::timeout(LEAVING, said).await;
        }
    }

    /// Stops everything and waits until it has stopped: links closed, journals on the disk.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        let _ = self.following.await;
        self.peeler.stop();
        self.packets_ended.cancelled().await;
    }
}

fn or(text: String, default: impl FnOnce() -> String) -> String {
    if text.is_empty() { default() } else { text }
}

/// What the handlers of links share.
#[derive(Clone)]
struct Inside {
    directory: Directory,
    notices: Notices,
    admitted: watch::Receiver<BTreeMap<[u8; 32], NodeId>>,
    peeler: Peeler,
    metrics: Metrics,
}

impl Inside {
    /// Reads packets from a node link until it ends or the node may no longer be here.
    async fn node(self, incoming: Incoming) {
        let node = incoming.node;
        let feed = self.peeler.feed();
        let reading = feed.runtime().clone().spawn(self.read(incoming, feed));
        // The handler's end is the link's end, wherever it lives.
        let ended = AbortOnDropHandle::new(reading).await;
        if let Ok(error) = ended {
            tracing::debug!(?node, %error, "a node link has ended");
        }
    }

    /// On the runtime of one of the peeler's threads, to which the link moves.
    async fn read(mut self, incoming: Incoming, feed: Feed) -> LinkError {
        let received = self.metrics.cell("lacuna_packets_received_total", "");
        let full = self.metrics.cell(DROPPED, "peel_queue_full");
        let mut link = match incoming.link.rehome() {
            Ok(link) => link,
            Err(error) => return error.into(),
        };
        let (mut others, mut changes) = (Vec::new(), true);
        loop {
            let mut arrivals = Vec::new();
            tokio::select! {
                read = link.reader.packets(&mut arrivals, &mut others) => if let Err(error) = read { return error },
                changed = self.admitted.changed(), if changes => {
                    changes = changed.is_ok();
                    let admitted = self.admitted.borrow_and_update();
                    if !link.peer.link_key.is_some_and(|key| admitted.contains_key(&key)) {
                        return LinkError::Closed; // LNK-8
                    }
                    continue;
                }
            }
            if !arrivals.is_empty() {
                let count = arrivals.len() as u64;
                received.add(count);
                if !feed.arrived(arrivals) {
                    full.add(count);
                }
            }
            let mut others = others.drain(..);
            if !others.all(|frame| self.heard(&frame)) {
                return LinkError::PeerMisbehaved("node links carry packets and true notices");
            }
        }
    }

    /// Whether a frame that is no packet is as it should be.
    fn heard(&self, frame: &Frame) -> bool {
        frame.kind() == Some(Kind::Notice) && self.notices.hear(frame) != Err(NoticeDrop::Forged)
    }

    /// Answers questions to the directory (DIR-11).
    async fn directory(self, incoming: Incoming) {
        let answers = |question| core::future::ready(self.directory.answer(&question));
        let _counted = ask::answer(incoming.link, GATEWAY_QUESTION_LEN_MAX, answers).await;
    }
}

/// Why a packet was dropped, as the label of a metric.
fn reason(why: PeelDrop) -> &'static str {
    match why {
        PeelDrop::Final => "final",
        PeelDrop::NoKey => "no_key",
        PeelDrop::Replay(Refused::Seen) => "replay",
        PeelDrop::Replay(Refused::Full) => "replay_set_full",
        PeelDrop::Rejected(Reject::LowOrder) => "low_order",
        PeelDrop::Rejected(Reject::Mac) => "mac",
        PeelDrop::Rejected(Reject::Version) => "version",
        PeelDrop::Rejected(Reject::Flag) => "flag",
        PeelDrop::Rejected(Reject::DelayTooLong) => "delay_too_long",
    }
}
