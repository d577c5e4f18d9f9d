//! What a mix and a gateway have in common, wired: everything around their machine.
//!
//! ```text
//!  node links ─ accept ─▶ peeler (thread: open, journal, finish) ─ peeled ─▶ the role's machine
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
//! may no longer dial this one ends. Without a consensus, or in one that does not name this node,
//! there are no neighbours: everything stops closed.
//!
//! Not done here: the machine, its driver, and what its outputs mean.

use core::{fmt, future::Future, net::SocketAddr, time::Duration};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use proto::{
    NetworkId, NodeId, Time,
    directory::{Network, Params, Role, SignedDescriptor, ask::GATEWAY_QUESTION_LEN_MAX},
    notice::{NoticeDrop, What},
    peel::{Arrival, PeelDrop, Peeled},
    replay::Refused,
    wire::{Frame, Kind, Purpose},
};
use sphinx::Reject;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accept::{AdmitNode, Door, Incoming, Limits, accept},
    ask,
    clock::Clock,
    dial::Outgoing,
    follow::{Directory, Follow, FollowError, Follower, State},
    keys::{About, Keys, KeysError},
    link::{Dialler, LinkError, certificate_frame},
    loops::Loops,
    metrics::Metrics,
    neighbours::{Admitted, Neighbours},
    notices::{Notices, Tell},
    peeler::{self, Peeler, Verdict},
    selfcheck,
    state::StateError,
};

const DAY_S: u64 = 86_400;
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
    /// Most packets opened under one key.
    pub replay_max: usize,
    /// Most frames that wait for one link.
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
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The thread that opens packets.
    #[error("can't start the thread that opens packets: {0}")]
    Peeler(io::Error),
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
    /// What it knows of the network.
    pub directory: Directory,
    /// Links to its next hops.
    pub outgoing: Outgoing,
    peeler: Peeler,
    peeler_ended: oneshot::Receiver<()>,
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
    /// Starts everything around the machine. `peeled` takes each opened packet, on the peeler's
    /// thread; it may wait for room. `clients` runs for each entry and mailbox link, which only a
    /// gateway has; it owns the link and returns when the link ends or `Incoming::ended` is
    /// cancelled.
    ///
    /// # Errors
    ///
    /// [`NodeError`].
    pub async fn start<F>(
        setup: Setup,
        peeled: impl FnMut(Peeled) + Send + 'static,
        clients: impl Fn(Incoming) -> F + Clone + Send + Sync + 'static,
        stop: CancellationToken,
    ) -> Result<Self, NodeError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Setup {
            keys,
            network,
            clock,
            metrics,
            ..
        } = setup;
        let address = setup.listen;
        let listening = |source| NodeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listening)?;
        let listening = listener.local_addr().map_err(listening)?;

        let about = About {
            role: setup.role,
            address: or(setup.advertise, || listening.to_string()),
            family: or(setup.family, || keys.id().to_string()),
        };
        let dialler = |key| Dialler {
            network: network.id,
            key,
            clock,
        };
        let describer = Describer {
            keys: Arc::clone(&keys),
            network: network.id,
            about,
            made: Mutex::new(None),
        };
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
        // What nearly every packet comes to is counted without a lock.
        let opened = metrics.cell("lacuna_packets_peeled_total", "");
        let overload = metrics.cell("lacuna_packets_dropped_total", "overload");
        let peeling = peeler::Setup {
            clock,
            keys: Arc::clone(&keys),
            journals: keys.state().folder("replay")?,
            path: setup.path,
            replay_max: setup.replay_max,
        };
        tracing::info!(
            path = setup.path.name(),
            rate_per_s = selfcheck::rate(setup.path, clock).round(),
            "packets that one processor opens"
        );
        let (peeler, peeler_ended) = Peeler::start(peeling, peeled, move |verdict| match verdict {
            Verdict::Peeled => opened.add(1),
            Verdict::Overload => overload.add(1),
            Verdict::Unjournaled => count(&counting, "unjournaled"),
            Verdict::Dropped(why) => count(&counting, reason(why)),
        })
        .map_err(NodeError::Peeler)?;

        let link_key = Some(keys.link().clone());
        let outgoing = Outgoing::new(
            dialler(link_key),
            setup.link_queue_max,
            &metrics,
            stop.clone(),
        );
        let admitted = Admitted::default();
        let tasks = TaskTracker::new();
        let watching = Watching {
            id: keys.id(),
            directory: directory.clone(),
            admitted: admitted.clone(),
            outgoing: outgoing.clone(),
            peeler: peeler.clone(),
        };
        let watched = stop.clone();
        tasks.spawn(async move { watched.run_until_cancelled(watching.run()).await });

        let notices = Notices::new(
            network.id,
            Arc::clone(&keys),
            clock,
            directory.state.clone(),
            outgoing.clone(),
            setup.tell,
            metrics.clone(),
        );
        let inside = Inside {
            directory: directory.clone(),
            notices: notices.clone(),
            admit: admitted.admit(),
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
            directory,
            outgoing,
            peeler,
            peeler_ended,
            following,
            loops: Some(loops),
            notices,
            tasks,
            stop,
        })
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
        let peeler = self.peeler;
        let asked = tokio::task::spawn_blocking(move || peeler.stop());
        let _ = asked.await;
        let _ = self.peeler_ended.await;
    }
}

fn or(text: String, default: impl FnOnce() -> String) -> String {
    if text.is_empty() { default() } else { text }
}

/// What this node says of itself: made once for a period, then said again word for word, so that
/// all authorities hold the same, whoever asks first and however often.
struct Describer {
    keys: Arc<Keys>,
    network: NetworkId,
    about: About,
    made: Mutex<Option<Made>>,
}

/// A descriptor, and what it was made for.
struct Made {
    period: u64,
    params: Params,
    made_s: u64,
    said: SignedDescriptor,
}

impl Describer {
    fn describe(
        &self,
        period: u64,
        params: &Params,
        now_s: u64,
    ) -> Result<SignedDescriptor, KeysError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |made: &&Made| {
            // Its link certificate is renewed daily while no document comes.
            let fresh = now_s.abs_diff(made.made_s) < DAY_S;
            made.period == period && made.params == *params && fresh
        };
        if let Some(made) = made.as_ref().filter(fits) {
            return Ok(made.said.clone());
        }
        let described = self
            .keys
            .descriptor(&self.network, &self.about, period, params, now_s);
        let said = described?;
        *made = Some(Made {
            period,
            params: params.clone(),
            made_s: now_s,
            said: said.clone(),
        });
        Ok(said)
    }
}

/// Follows the consensus with everything that depends on it.
struct Watching {
    id: NodeId,
    directory: Directory,
    admitted: Admitted,
    outgoing: Outgoing,
    peeler: Peeler,
}

impl Watching {
    async fn run(mut self) {
        loop {
            let state = self.directory.state.borrow_and_update().clone();
            self.heed(&state).await;
            if self.directory.state.changed().await.is_err() {
                return self.heed(&State::Off).await;
            }
        }
    }

    async fn heed(&self, state: &State) {
        let found = state
            .consensus()
            .map(|consensus| Neighbours::of(consensus, &self.id));
        match found {
            Some(None) => tracing::warn!("the consensus does not name this node; it stays closed"),
            Some(Some(_)) => tracing::info!("in the consensus"),
            None => {}
        }
        // EPO-4: without a document, nobody.
        let (before, after) = found.flatten().map_or_else(Default::default, |neighbours| {
            (neighbours.before, neighbours.after)
        });
        self.admitted.set(before);
        self.outgoing.set(after);
        if let Some(consensus) = state.consensus() {
            let (peeler, consensus) = (self.peeler.clone(), Arc::clone(consensus));
            let renewing = tokio::task::spawn_blocking(move || peeler.renew(consensus));
            let _ = renewing.await;
        }
    }
}

/// What the handlers of links share.
#[derive(Clone)]
struct Inside {
    directory: Directory,
    notices: Notices,
    admit: AdmitNode,
    peeler: Peeler,
    metrics: Metrics,
}

impl Inside {
    /// Reads packets from a node link until it ends or the node may no longer be here.
    async fn node(mut self, incoming: Incoming) {
        let received = self.metrics.cell("lacuna_packets_received_total", "");
        let full = self
            .metrics
            .cell("lacuna_packets_dropped_total", "peel_queue_full");
        let mut reader = incoming.link.reader;
        let (mut frames, mut changes) = (Vec::new(), true);
        let ended = loop {
            tokio::select! {
                read = reader.frames(&mut frames) => if let Err(error) = read { break error },
                changed = self.directory.state.changed(), if changes => {
                    changes = changed.is_ok();
                    let key = incoming.link.peer.link_key;
                    if key.and_then(|key| (self.admit)(&key)).is_none() {
                        break LinkError::Closed; // LNK-8
                    }
                }
            }
            if !self.heard(&mut frames) {
                break LinkError::PeerMisbehaved("node links carry packets and true notices");
            }
            received.add(frames.len() as u64);
            let arrival = |(received, frame): (_, Frame)| Arrival {
                received,
                packet: frame.to_packet(),
            };
            let arrivals: Vec<Arrival> = frames.drain(..).map(arrival).collect();
            let count = arrivals.len() as u64;
            if !self.peeler.arrived(arrivals) {
                full.add(count);
            }
        };
        tracing::debug!(node = ?incoming.node, error = %ended, "a node link has ended");
    }

    /// Takes notices out of what a link read, rare as they are; whether all is as it should be.
    fn heard(&self, frames: &mut Vec<(Time, Frame)>) -> bool {
        let mut sound = true;
        frames.retain(|(_, frame)| match frame.kind() {
            Some(Kind::Packet) => true,
            Some(Kind::Notice) => {
                sound &= self.notices.hear(frame) != Err(NoticeDrop::Forged);
                false
            }
            _ => {
                sound = false;
                false
            }
        });
        sound
    }

    /// Answers questions to the directory (DIR-11).
    async fn directory(self, incoming: Incoming) {
        let answers = |question| core::future::ready(self.directory.answer(&question));
        let _counted = ask::answer(incoming.link, GATEWAY_QUESTION_LEN_MAX, answers).await;
    }
}

fn count(metrics: &Metrics, reason: &'static str) {
    metrics.count("lacuna_packets_dropped_total", reason);
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::state::StateDir;

    /// DIR-4: authorities that ask at once hear the same, and its keys are those on the disk.
    #[test]
    fn a_node_says_one_thing_to_all() {
        let root = tempfile::tempdir().unwrap();
        let keys = Keys::open(StateDir::open(&root.path().join("state")).unwrap()).unwrap();
        let describer = Describer {
            keys: Arc::new(keys),
            network: NetworkId([1; 32]),
            about: About {
                role: Role::Mix,
                address: "127.0.0.1:9000".to_owned(),
                family: "nobody".to_owned(),
            },
            made: Mutex::new(None),
        };
        let params = Params::default();
        let now_s = 100 * DAY_S;
        let say = |now_s| describer.describe(0, &params, now_s).unwrap();
        let all: Vec<_> = thread::scope(|scope| {
            let asked: Vec<_> = (0..4)
                .map(|i| scope.spawn(move || say(now_s + i)))
                .collect();
            asked.into_iter().map(|said| said.join().unwrap()).collect()
        });
        assert!(all.iter().all(|said| *said == all[0]));
        let said = all[0].verify(&NetworkId([1; 32])).unwrap();
        for (epoch, key) in (0..).map(proto::calendar::Epoch).zip(&said.packet_keys) {
            let secret = describer.keys.packet_secret(epoch).unwrap().unwrap();
            assert_eq!(secret.public(), *key);
        }
        // A day later with a new certificate, and still with the same keys.
        let later = say(now_s + 2 * DAY_S).verify(&NetworkId([1; 32])).unwrap();
        assert_ne!(later.link, said.link);
        assert_eq!(later.packet_keys, said.packet_keys);
    }
}
