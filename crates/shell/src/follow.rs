//! Gets the consensus, believes it or not, keeps it, and says which one holds now.
//!
//! Spec: docs/spec/directory.md, rules DIR-5, DIR-9, DIR-10, DIR-11; docs/spec/epochs.md, EPO-4.
//!
//! | who    | asks whom                                  | when, once it has a document            |
//! |--------|--------------------------------------------|-----------------------------------------|
//! | node   | the authorities, and submits its descriptor| from a uniform instant in the first half|
//! |        |                                            | of the last epoch of the period         |
//! | client | gateways of the last document, or those of | from a uniform instant in that epoch    |
//! |        | `network.toml`                             |                                         |
//!
//! Each attempt asks one source, drawn anew, on a link of its own. Without a document that holds,
//! attempts follow each other after [`FIRST_WAIT`], doubling to [`LONGEST_WAIT`]; with one, after
//! a 32nd to an 8th of an epoch. So retries go on for ever and their rate is bounded.
//!
//! | file                | what                                                             |
//! |---------------------|------------------------------------------------------------------|
//! | `consensus`         | the newest document believed; nothing older is, ever again       |
//! | `consensus.previous`| the one before, which holds until the newest begins              |
//! | `consensus.split`   | if there is one: proof that authorities signed two (DIR-9);      |
//! |                     | until someone removes it, every later start stays `Off`          |
//!
//! Invariants: a document is on disk before anyone hears of it; the state is `Ready` only with a
//! document that holds at this moment; after a proof of a split it is `Off` for good.

mod shelf;

use core::{fmt, time::Duration};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{
    NodeId,
    calendar::Utc,
    directory::{
        Consensus, Network, Params, SignedConsensus, SignedDescriptor,
        ask::{Answer, Question, Refusal},
        consensus::ConsensusError,
    },
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use self::shelf::InUse;
use self::shelf::{Document, Shelf, edge_ends};
use crate::{
    ask::ask,
    entropy::{Backoff, uniform},
    keys::KeysError,
    link::{Dialler, LinkError, Target},
    state::{self, StateError},
};

/// First wait between attempts without a document.
pub const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest wait of a client between attempts without a document.
pub const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The same for a node: all nodes of a new network should know it at about the same time.
pub const LONGEST_NODE_WAIT: Duration = Duration::from_secs(2);
/// Longest wait between two introductions to one authority.
const INTRODUCE_WAIT: Duration = Duration::from_secs(10);
/// The calendar may be set: no sleep is longer than this.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What is known of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Stopped, or stopped closed after a proof of a split.
    #[default]
    Off,
    /// No document holds now; it is being asked for.
    Bootstrapping,
    /// This document holds now.
    Ready(Arc<Consensus>),
}

impl State {
    /// `off`, `bootstrapping` or `ready`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Bootstrapping => "bootstrapping",
            Self::Ready(_) => "ready",
        }
    }

    /// The document that holds now.
    #[must_use]
    pub fn consensus(&self) -> Option<&Arc<Consensus>> {
        match self {
            Self::Ready(consensus) => Some(consensus),
            Self::Off | Self::Bootstrapping => None,
        }
    }
}

/// Makes this node's descriptor for a period.
pub type Describe = Arc<dyn Fn(u64, &Params) -> Result<SignedDescriptor, KeysError> + Send + Sync>;

/// Who follows.
#[derive(Clone)]
pub enum Follower {
    /// A client: asks gateways.
    Client,
    /// A node: asks authorities, and introduces itself to them.
    Node(Describe),
}

/// Why the consensus can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// `network.toml` names no authority's address.
    #[error("network.toml gives no addresses of authorities; a node needs them")]
    NoAuthorities,
    /// What is on disk is not believed.
    #[error(
        "{file} is not believed ({why}); remove it to start anew, if the network was made anew"
    )]
    Kept {
        /// The file.
        file: String,
        /// Which rule it breaks.
        why: String,
    },
    /// The disk.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why one attempt brought no document. Logged, then tried again.
#[derive(Debug, thiserror::Error)]
enum Attempt {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("there is none yet")]
    NotYet,
    #[error("not believed: {0:?}")]
    NotBelieved(ConsensusError),
    #[error("refused: {0:?}")]
    Refused(Refusal),
    #[error("the peer answered another question")]
    OtherAnswer,
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl Attempt {
    /// What it means to be told `answer` where something else was hoped for.
    fn of(answer: &Answer) -> Self {
        match answer {
            Answer::NotYet => Self::NotYet,
            Answer::Refused(why) => Self::Refused(*why),
            Answer::Consensus(_)
            | Answer::Accepted
            | Answer::Descriptors(_)
            | Answer::Gathering { .. } => Self::OtherAnswer,
        }
    }
}

/// What a program sees of the directory. Clones see the same.
#[derive(Clone, Debug)]
pub struct Directory {
    /// The state, as it changes.
    pub state: watch::Receiver<State>,
    /// The documents whose layers count, as they change.
    pub in_use: watch::Receiver<InUse>,
    shelf: Shelf,
    dialler: Dialler,
}

impl Directory {
    /// A gateway's answer to a question (DIR-11).
    #[must_use]
    pub fn answer(&self, question: &Question) -> Answer {
        let Question::Consensus { period } = question else {
            return Answer::Refused(Refusal::NotServed);
        };
        let found = match period {
            None => self.shelf.current(self.dialler.clock.utc()),
            Some(period) => {
                let mut documents = self.shelf.documents().into_iter();
                documents.find(|document| document.consensus.period == *period)
            }
        };
        found.map_or(Answer::NotYet, |document| {
            Answer::Consensus(document.signed)
        })
    }

    /// Waits for a document that holds, unless the directory stops.
    pub async fn ready(&mut self) -> Option<Arc<Consensus>> {
        let ready = self
            .state
            .wait_for(|state| state.consensus().is_some())
            .await;
        ready.ok()?.consensus().cloned()
    }
}

/// Follows the consensus.
pub struct Follow {
    /// What one starts from.
    pub network: Arc<Network>,
    /// Dials sources; its clock says what time it is.
    pub dialler: Dialler,
    /// The file `consensus` in the state directory.
    pub file: PathBuf,
    /// Who follows.
    pub follower: Follower,
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Follow({:?})", self.network.id)
    }
}

impl Follow {
    /// Reads what is on disk and starts a task that follows until `stop`.
    ///
    /// # Errors
    ///
    /// [`FollowError`].
    pub fn start(
        self,
        stop: CancellationToken,
    ) -> Result<(Directory, JoinHandle<()>), FollowError> {
        let node = matches!(self.follower, Follower::Node(_));
        if node && self.network.authority_addresses.is_empty() {
            return Err(FollowError::NoAuthorities);
        }
        let shelf = Shelf::default();
        for document in kept(&self.network, &self.file)? {
            shelf.put(document);
        }
        let (sender, state) = watch::channel(State::Bootstrapping);
        let (using, in_use) = watch::channel(InUse::new());
        let directory = Directory {
            state,
            in_use,
            shelf: shelf.clone(),
            dialler: self.dialler.clone(),
        };
        let task = Task {
            follow: Arc::new(self),
            shelf,
            state: sender,
            in_use: using,
            wanting: watch::Sender::new(false),
            draw: uniform(),
        };
        let running = tokio::spawn(async move {
            stop.run_until_cancelled(task.run()).await;
        });
        Ok((directory, running))
    }

    /// Whom to ask for a document: the authorities, or any gateway that one has heard of.
    fn sources(&self, newest: Option<&Document>) -> Vec<Target> {
        if matches!(self.follower, Follower::Node(_)) {
            return self.authorities();
        }
        let known = newest.map(|document| Arc::clone(&document.consensus));
        let known = known.iter().flat_map(|consensus| {
            consensus
                .gateways()
                .map(|node| (node.id, node.address.clone()))
                .collect::<Vec<_>>()
        });
        // A document that is over may name link keys that are over too: the certificate decides.
        let all = known.chain(self.network.bootstrap.iter().cloned());
        all.map(|(id, address)| Target {
            id,
            address,
            link_key: None,
        })
        .collect()
    }

    fn authorities(&self) -> Vec<Target> {
        let addressed = self
            .network
            .authorities
            .iter()
            .zip(&self.network.authority_addresses);
        addressed
            .map(|(key, address)| Target {
                id: NodeId(*key),
                address: address.clone(),
                link_key: None,
            })
            .collect()
    }

    /// Asks one source, drawn anew, for a document.
    async fn fetch(
        &self,
        newest: Option<&Document>,
        period: Option<u64>,
    ) -> Result<SignedConsensus, Attempt> {
        let sources = self.sources(newest);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a short list"
        )]
        let drawn = (uniform() * sources.len() as f64) as usize;
        let question = Question::Consensus { period };
        let answer = ask(&self.dialler, &sources[drawn], &question).await?;
        if let Answer::Consensus(signed) = answer {
            return Ok(signed);
        }
        Err(Attempt::of(&answer))
    }

    /// Believes a document (DIR-5, DIR-9), and has it on disk when it returns.
    fn judge(
        &self,
        signed: SignedConsensus,
        newest: Option<&Document>,
    ) -> Result<Document, Attempt> {
        let consensus = signed
            .verify(&self.network, None)
            .map_err(Attempt::NotBelieved)?;
        match consensus.check_time(self.dialler.clock.utc()) {
            Ok(()) | Err(ConsensusError::NotYet) => {}
            Err(why) => return Err(Attempt::NotBelieved(why)),
        }
        if let Some(newest) = newest {
            let (period, hash) = (newest.consensus.period, newest.consensus.hash());
            match consensus.follows(period, &hash) {
                Ok(()) if consensus.period == period => return Err(Attempt::NotYet),
                Ok(()) => state::write(&previous(&self.file), &newest.signed.to_bytes())?,
                Err(ConsensusError::Split) => {
                    state::write(&split(&self.file), &signed.to_bytes())?;
                    return Err(Attempt::NotBelieved(ConsensusError::Split));
                }
                Err(why) => return Err(Attempt::NotBelieved(why)),
            }
        }
        state::write(&self.file, &signed.to_bytes())?;
        let consensus = Arc::new(consensus);
        Ok(Document { signed, consensus })
    }

    /// Tells an authority about this node, if it gathers descriptors.
    async fn introduce(&self, authority: &Target, describe: &Describe) -> Result<(), Attempt> {
        let answer = ask(&self.dialler, authority, &Question::Gathering).await?;
        let Answer::Gathering { period, params } = answer else {
            return Err(Attempt::of(&answer));
        };
        let describe = Arc::clone(describe);
        let making = tokio::task::spawn_blocking(move || describe(period, &params));
        let descriptor = making.await.expect("making keys does not panic")?;
        let answer = ask(&self.dialler, authority, &Question::Submit(descriptor)).await?;
        let done = matches!(answer, Answer::Accepted | Answer::Refused(Refusal::Closed));
        done.then_some(()).ok_or_else(|| Attempt::of(&answer))
    }
}

/// Whether the documents on disk, the newest in `file`, are believed: what a program asks before it starts
/// anything, since that is for a person to mend.
///
/// # Errors
///
/// [`FollowError::Kept`].
pub fn check(network: &Network, file: &Path) -> Result<(), FollowError> {
    kept(network, file).map(drop)
}

/// The documents on disk, oldest first.
fn kept(network: &Network, file: &Path) -> Result<Vec<Document>, FollowError> {
    let files = [previous(file), file.to_owned()];
    let loaded = files.iter().map(|file| load(network, file));
    loaded.filter_map(Result::transpose).collect()
}

fn load(network: &Network, file: &Path) -> Result<Option<Document>, FollowError> {
    let not_believed = |why: String| FollowError::Kept {
        file: file.display().to_string(),
        why,
    };
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(not_believed(error.to_string())),
    };
    let signed = SignedConsensus::parse(&bytes).map_err(|why| not_believed(format!("{why:?}")))?;
    let believed = signed.verify(network, None);
    let consensus = Arc::new(believed.map_err(|why| not_believed(format!("{why:?}")))?);
    Ok(Some(Document { signed, consensus }))
}

fn previous(file: &Path) -> PathBuf {
    file.with_added_extension("previous")
}

fn split(file: &Path) -> PathBuf {
    file.with_added_extension("split")
}

struct Task {
    follow: Arc<Follow>,
    shelf: Shelf,
    state: watch::Sender<State>,
    in_use: watch::Sender<InUse>,
    /// Whether this node wants to stand in a document that is being made.
    wanting: watch::Sender<bool>,
    /// Where in its window this process asks for the next document, in [0, 1).
    draw: f64,
}

impl Task {
    async fn run(self) {
        let proof = split(&self.follow.file);
        // One that can't be looked for may be there.
        if proof.try_exists().unwrap_or(true) {
            return self.stay_off(&proof).await;
        }
        self.introduce_everywhere();
        let longest = match self.follow.follower {
            Follower::Client => LONGEST_WAIT,
            Follower::Node(_) => LONGEST_NODE_WAIT,
        };
        let mut backoff = Backoff::new(FIRST_WAIT, longest);
        loop {
            let now = self.follow.dialler.clock.utc();
            let current = self.shelf.current(now);
            self.publish(now, current.as_ref());
            let wait = match self.due(current.as_ref()) {
                Some(due) if due <= now => {
                    self.wanting.send_replace(true);
                    match self.attempt(current.as_ref()).await {
                        Ok(()) => {
                            backoff.reset();
                            continue;
                        }
                        Err(Attempt::NotBelieved(ConsensusError::Split)) => {
                            return self.stay_off(&proof).await;
                        }
                        Err(error) => tracing::debug!(%error, "no new consensus"),
                    }
                    match &current {
                        None => backoff.wait(),
                        Some(document) => {
                            let epoch = document.consensus.schedule().length;
                            epoch.mul_f64((1.0 + 3.0 * uniform()) / 32.0)
                        }
                    }
                }
                due => {
                    self.wanting.send_replace(false);
                    self.sleep(now, due)
                }
            };
            tokio::time::sleep(wait.min(LONGEST_SLEEP)).await;
        }
    }

    /// Stops closed, after a proof that authorities cheat (DIR-9).
    async fn stay_off(&self, proof: &Path) {
        tracing::error!(
            file = %proof.display(),
            "authorities signed two documents of one period, and this file proves it: nothing \
             runs until the network is made anew. Show the file to its operators; then remove it \
             with the other files `consensus`"
        );
        self.wanting.send_replace(false);
        self.in_use.send_replace(InUse::new());
        self.state.send_replace(State::Off);
        core::future::pending().await
    }

    /// Until something is due: the next question, or a document that begins or ends.
    fn sleep(&self, now: Utc, due: Option<Utc>) -> Duration {
        let documents = self.shelf.documents();
        let edges = documents.iter().flat_map(|document| {
            let schedule = document.consensus.schedule();
            [
                schedule.valid_from.before(schedule.skew()),
                edge_ends(&document.consensus),
                document.consensus.ends(),
            ]
        });
        let next = edges.chain(due).filter(|edge| *edge > now).min();
        next.map_or(LONGEST_SLEEP, |next| {
            Duration::from_nanos(next.0 - now.0 + 1)
        })
    }

    /// When to ask for the next document; never, if it is here already.
    fn due(&self, current: Option<&Document>) -> Option<Utc> {
        let (Some(current), Some(newest)) = (current, self.shelf.newest()) else {
            return Some(Utc::default());
        };
        if newest.consensus.period > current.consensus.period {
            return None;
        }
        let schedule = current.consensus.schedule();
        let last = schedule.count / 2 - 1;
        let start = schedule.start(proto::calendar::Epoch(schedule.first.0 + last));
        let window = match self.follow.follower {
            Follower::Client => schedule.length,
            Follower::Node(_) => schedule.length / 2,
        };
        Some(start.after(window.mul_f64(self.draw)))
    }

    async fn attempt(&self, current: Option<&Document>) -> Result<(), Attempt> {
        let newest = self.shelf.newest();
        let period = current.map(|current| current.consensus.period + 1);
        let signed = self.follow.fetch(newest.as_ref(), period).await?;
        let follow = Arc::clone(&self.follow);
        let judging = tokio::task::spawn_blocking(move || follow.judge(signed, newest.as_ref()));
        let document = judging.await.expect("judging does not panic")?;
        tracing::info!(period = document.consensus.period, "consensus");
        self.shelf.put(document);
        Ok(())
    }

    /// What is in use first: whoever hears of a document finds its layers.
    fn publish(&self, now: Utc, current: Option<&Document>) {
        let using = self.shelf.in_use(now);
        let periods = |using: &InUse| using.iter().map(|known| known.period).collect::<Vec<_>>();
        self.in_use.send_if_modified(|known| {
            let changed = periods(known) != periods(&using);
            if changed {
                *known = using;
            }
            changed
        });
        let next = match current {
            Some(document) => State::Ready(Arc::clone(&document.consensus)),
            None => State::Bootstrapping,
        };
        self.state.send_if_modified(|state| {
            let period = |state: &State| state.consensus().map(|consensus| consensus.period);
            let changed = (state.name(), period(state)) != (next.name(), period(&next));
            if changed {
                *state = next;
            }
            changed
        });
    }

    /// One task for each authority, so that a dead one holds up no other. They end with `self`.
    fn introduce_everywhere(&self) {
        let Follower::Node(describe) = &self.follow.follower else {
            return;
        };
        for authority in self.follow.authorities() {
            let (follow, describe) = (Arc::clone(&self.follow), Arc::clone(describe));
            let mut wanting = self.wanting.subscribe();
            tokio::spawn(async move {
                let mut backoff = Backoff::new(FIRST_WAIT, INTRODUCE_WAIT);
                while wanting.wait_for(|wanting| *wanting).await.is_ok() {
                    match follow.introduce(&authority, &describe).await {
                        Err(error @ (Attempt::Refused(_) | Attempt::Keys(_))) => {
                            tracing::warn!(%error, "an authority does not take this node");
                        }
                        Err(error) => tracing::debug!(%error, "no authority"),
                        Ok(()) => {}
                    }
                    tokio::select! {
                        () = tokio::time::sleep(backoff.wait()) => {}
                        gone = wanting.wait_for(|wanting| !*wanting) => {
                            if gone.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    }
}
