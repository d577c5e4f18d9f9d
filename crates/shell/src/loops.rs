//! The loops of a node: the deployed client machine, inside every mix and gateway.
//!
//! Spec: docs/spec/loops.md, rules LOOP-1 to LOOP-5, LOOP-12.
//!
//! | node    | enters at                           | mailbox at              | routes           |
//! |---------|-------------------------------------|-------------------------|------------------|
//! | mix     | a gateway, other than its mailbox's | a gateway, drawn once   | through itself   |
//! | gateway | another gateway                     | itself                  | any              |
//!
//! | file    | bytes | what                                                                      |
//! |---------|-------|---------------------------------------------------------------------------|
//! | `loops` | 97    | the identity of the mailbox (CLI-1); drawn anew if its gateway is gone    |
//!
//! | metric                        | what                                                     |
//! |-------------------------------|----------------------------------------------------------|
//! | `lacuna_loops_total`          | sent, returned, lost; unjudged, which say nothing        |
//! |                               | (LOOP-12); frames not sent; ticks skipped                |
//! | `lacuna_loop_links`           | of its two links, how many are up                        |
//! | `lacuna_loop_blind`           | 1 while for minutes no loop has said anything (LOOP-12), |
//! |                               | or something has ended them                              |
//! | `lacuna_loop_alarms_total`    | times that too many were lost                            |
//! | `lacuna_loop_watch`           | the test: step, threshold; loops between false alarms,   |
//! |                               | and until an attack is noticed, on the mean              |
//!
//! To everyone but its entry gateway a node's loops are packets like any other's: it dials with no
//! key, like a client (LNK-7). Nothing but the identity outlives the process: what was read and
//! not confirmed comes again and is no loop under way any more.

use core::time::Duration;
use std::sync::Arc;

use chacha20::ChaCha20Rng;
use proto::{
    NodeId, Time,
    client::{ClientEvent, Config, Identity, Limits, founding},
    directory::{Consensus, Role, params::NODE_PROFILE},
    watch::Detector,
};
use rand_core::SeedableRng as _;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{self, ClientError, INBOX, Known, Links, Said, Setup, any_gateway},
    entropy,
    follow::State,
    keys::Keys,
    link::Dialler,
    metrics::Metrics,
    state::StateError,
};

const FILE: &str = "loops";
const TOTAL: &str = "lacuna_loops_total";
const OF_LOOPS: [&str; 4] = ["sent", "returned", "lost", "unjudged"];
const LINKS: &str = "lacuna_loop_links";
const BLIND: &str = "lacuna_loop_blind";
const ALARMS: &str = "lacuna_loop_alarms_total";
const WATCH: &str = "lacuna_loop_watch";
const STEP: &str = "step";
const THRESHOLD: &str = "threshold";
const FALSE: &str = "loops_between_false_alarms";
const NOTICED: &str = "loops_until_noticed";
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked whether the node is blind.
const LOOK: Duration = Duration::from_secs(5);
/// When loops that something has ended are tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// A node neither sends messages nor gets any: what strangers send to its mailbox is not kept.
const LIMITS: Limits = Limits {
    outgoing_max: 0,
    outgoing_bytes_max: 0,
    incoming_max: 0,
    incoming_bytes_max: 0,
    acks_max: 0,
    tags_max: 64,
    finished_max: 0,
    surbs_max: 0,
    loops_max: 1 << 14,
    held_surbs_max: 0,
    contacts_max: 0,
    unstored_max: 1 << 10,
};

/// The loops of one node.
pub(crate) struct Loops {
    pub(crate) keys: Arc<Keys>,
    pub(crate) role: Role,
    /// Without a key (LOOP-3).
    pub(crate) dialler: Dialler,
    pub(crate) directory: watch::Receiver<State>,
    pub(crate) metrics: Metrics,
    /// Told of each alarm; must not wait.
    pub(crate) alarmed: Arc<dyn Fn() + Send + Sync>,
}

/// Why a node does not loop.
#[derive(Debug, thiserror::Error)]
enum LoopsError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Loops {
    /// Loops while the consensus names this node, until `stop`. The node goes on without what ends them
    /// otherwise: that is logged, the node is blind (LOOP-12), and they are tried again.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let looping = async {
            while let Err(error) = self.forever(&stop).await {
                tracing::error!(%error, "this node's loops have ended, so that it would not notice an \
                    attack; mend that: they are tried again");
                self.show_none(true);
                tokio::time::sleep(AGAIN).await;
            }
        };
        stop.run_until_cancelled(looping).await;
    }

    async fn forever(&self, stop: &CancellationToken) -> Result<(), LoopsError> {
        let mut directory = self.directory.clone();
        loop {
            self.show_none(false);
            let named = |state: &State| state.consensus().is_some_and(|known| self.names(known));
            let Ok(known) = directory
                .wait_for(named)
                .await
                .map(|state| state.consensus().cloned())
            else {
                return Ok(()); // nobody follows any more
            };
            let Some(known) = known else { continue };
            let identity = self.identity(&known)?;
            let home = identity.gateway();
            // Another mailbox is wanted when its gateway is gone.
            let gone = |state: &State| {
                let known = state.consensus();
                known.is_some_and(|known| !self.names(known) || !stands(known, &home))
            };
            let ending = stop.child_token();
            let _ended = ending.clone().drop_guard();
            tokio::select! {
                ended = self.client(identity, ending) => return Ok(ended?),
                Ok(_) = directory.wait_for(gone) => {}
            }
        }
    }

    /// One client, with one mailbox.
    async fn client(&self, identity: Identity, stop: CancellationToken) -> Result<(), ClientError> {
        let (links, metrics) = (Arc::new(Links::default()), &self.metrics);
        let setup = Setup {
            config: Config {
                network: self.dialler.network,
                entry: None,
                profile: NODE_PROFILE.to_owned(),
                via: (self.role == Role::Mix).then(|| self.keys.id()),
                acks: false,
                limits: LIMITS,
            },
            records: None,
            found: founding(&identity).into(),
            dialler: self.dialler.clone(),
            patience: PATIENCE,
            directory: self.directory.clone(),
            links: Arc::clone(&links),
            inbox: mpsc::channel(INBOX),
        };
        let [sent, returned, lost, unjudged] = OF_LOOPS.map(|reason| metrics.cell(TOTAL, reason));
        let count = |reason| metrics.count(TOTAL, reason);
        let (alarmed, alarms) = (Arc::clone(&self.alarmed), metrics.cell(ALARMS, ""));
        let mut shown = Shown::new(Arc::clone(&links), metrics);
        let said = move |said| match said {
            Said::Event(ClientEvent::LoopSent) => {
                sent.add(1);
                shown.renew();
            }
            Said::Event(ClientEvent::LoopAlarm) => {
                tracing::warn!(
                    "this node's loops are being lost: it may be under attack, or cut off"
                );
                alarms.add(1);
                alarmed();
            }
            Said::Event(ClientEvent::LoopReturned { .. }) => returned.add(1),
            Said::Event(ClientEvent::LoopLost) => lost.add(1),
            Said::Event(ClientEvent::LoopUnjudged) => unjudged.add(1),
            Said::Event(ClientEvent::NoRoute) => count("no_route"),
            Said::Event(ClientEvent::TickSkipped) => count("tick_skipped"),
            Said::Event(ClientEvent::Dropped(_)) => count("dropped"),
            Said::Unsent(_, why) => count(why.reason()),
            // Neither has a node anything to say, nor does it listen.
            Said::Event(_)
            | Said::Deliver(_)
            | Said::Progress(_)
            | Said::Addressed(..)
            | Said::Relocated(_) => {}
        };
        tokio::select! {
            ended = client::run(setup, said, stop) => ended,
            () = self.show(&links, self.dialler.clock.now()) => Ok(()),
        }
    }

    /// Shows how many of the two links are up, and whether a node that has looped since `began` is
    /// blind, as that changes; says so, too.
    async fn show(&self, links: &Links, began: Time) {
        let (mut entry, mut mailbox) = (links.entry.watch(), links.home().watch());
        let mut was_blind = false;
        loop {
            let known = [&mut entry, &mut mailbox].map(|link| link.borrow_and_update().clone());
            let up = known.iter().filter(|link| link.up).count();
            self.metrics.gauge(LINKS, up as u64);
            let is_blind = self.is_blind(links, began);
            self.metrics.gauge(BLIND, is_blind.into());
            match (was_blind, is_blind) {
                (false, true) => tracing::warn!(
                    "this node's loops tell nothing, so that it would not notice an attack: {}",
                    why_blind(&known)
                ),
                (true, false) => tracing::info!("this node's loops tell something again"),
                _ => {}
            }
            was_blind = is_blind;
            let changed = tokio::select! {
                changed = entry.changed() => changed,
                changed = mailbox.changed() => changed,
                () = tokio::time::sleep(LOOK) => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Shows that it does not loop, and whether it should.
    fn show_none(&self, is_blind: bool) {
        self.metrics.gauge(LINKS, 0);
        self.metrics.gauge(BLIND, is_blind.into());
    }

    fn is_blind(&self, links: &Links, began: Time) -> bool {
        let known = self.directory.borrow().consensus().cloned();
        let profile = known
            .as_deref()
            .and_then(|known| known.profile(NODE_PROFILE));
        profile.is_some_and(|(_, profile)| {
            let watching = links.view().watching;
            watching.is_blind(&profile, began, self.dialler.clock.now())
        })
    }

    /// Whether the node has a place in this document, and so its loops have a route.
    fn names(&self, consensus: &Consensus) -> bool {
        let id = self.keys.id();
        match self.role {
            Role::Mix => consensus.layer(&id).is_some(),
            Role::Gateway => stands(consensus, &id),
        }
    }

    /// Whose mailbox it is; drawn anew if it is nobody's yet, or its gateway is gone (LOOP-3).
    fn identity(&self, consensus: &Consensus) -> Result<Identity, StateError> {
        let state = self.keys.state();
        let kept = state.read(FILE)?;
        let kept = kept.and_then(|bytes| Identity::from_bytes(bytes.as_slice().try_into().ok()?));
        if let Some(kept) = kept.filter(|kept| stands(consensus, &kept.gateway())) {
            return Ok(kept);
        }
        let own = self.keys.id();
        let gateway = match self.role {
            Role::Gateway => own,
            Role::Mix => any_gateway(consensus, Some(&own)).unwrap_or(own),
        };
        let identity = Identity::generate(&mut ChaCha20Rng::from_seed(entropy::seed()), gateway);
        state.write(FILE, &*identity.to_bytes())?;
        Ok(identity)
    }
}

fn stands(consensus: &Consensus, gateway: &NodeId) -> bool {
    let node = consensus.node(gateway);
    node.is_some_and(|node| node.role == Role::Gateway)
}

/// What `/status` says of a node's own loops.
#[must_use]
pub fn status(metrics: &Metrics) -> Value {
    let [sent, returned, lost, unjudged] =
        OF_LOOPS.map(|reason| metrics.cell(TOTAL, reason).value());
    let watch = |reason| metrics.cell(WATCH, reason).value();
    json!({
        "links_up": metrics.sum(LINKS),
        "blind": metrics.sum(BLIND) > 0,
        "sent": sent,
        "returned": returned,
        "lost": lost,
        "unjudged": unjudged,
        "alarms": metrics.sum(ALARMS),
        "step": watch(STEP),
        "threshold": watch(THRESHOLD),
        "loops_between_false_alarms": watch(FALSE),
        "loops_until_noticed": watch(NOTICED),
    })
}

/// How the loops are watched, as metrics.
struct Shown {
    links: Arc<Links>,
    metrics: Metrics,
    last: Option<Detector>,
}

impl Shown {
    fn new(links: Arc<Links>, metrics: &Metrics) -> Self {
        Self {
            links,
            metrics: metrics.clone(),
            last: None,
        }
    }

    fn renew(&mut self) {
        let watching = self.links.view().watching;
        if watching.detector == self.last {
            return;
        }
        self.last = watching.detector;
        let (step, threshold) = watching
            .detector
            .map_or((0, 0), |detector| (detector.step, detector.alarm));
        let (between, until) = watching.run_lengths().unwrap_or_default();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and shown as whole loops"
        )]
        let [between, until] = [between, until].map(|loops| loops.round() as u64);
        for (reason, value) in [
            (STEP, step.into()),
            (THRESHOLD, threshold.into()),
            (FALSE, between),
            (NOTICED, until),
        ] {
            self.metrics.cell(WATCH, reason).set(value);
        }
    }
}

/// What keeps the loops from telling anything, and what mends it; of the entry link, then of the
/// mailbox link.
fn why_blind([entry, mailbox]: &[Known; 2]) -> String {
    let down = |of: &str, link: &Known| {
        let trouble = match link.trouble.as_str() {
            "" => "no attempt has ended yet",
            trouble => trouble,
        };
        format!(
            "the link to the gateway {of} is down ({trouble}); see that this machine reaches the \
             gateways of the network, and whether that one runs"
        )
    };
    match (entry.up, mailbox.up) {
        (_, false) => down("of its mailbox", mailbox),
        (false, true) => down("that it enters by", entry),
        (true, true) => "both its links are up, so a hold or outage elsewhere keeps them away, or \
                         they break again and again (lacuna_loops_total); if that does not pass, \
                         ask those who run the neighbours"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proto::{
        NetworkId,
        client::Watching,
        directory::{Params, Terms},
    };

    use super::*;
    use crate::{
        client::tests::{consensus, consensus_in},
        clock::Clock,
        keys::About,
        state::StateDir,
    };

    const NETWORK: NetworkId = NetworkId([7; 32]);
    const START_S: u64 = 1_000_000;

    /// Those of a node of `role` in `folder`, which knows this document.
    fn loops(folder: &Path, role: Role, known: &Arc<Consensus>, metrics: &Metrics) -> Loops {
        Loops {
            keys: Arc::new(Keys::open(StateDir::open(folder).unwrap()).unwrap()),
            role,
            dialler: Dialler {
                network: NETWORK,
                key: None,
                clock: Clock::started(Duration::from_secs(600)),
            },
            directory: watch::channel(State::Ready(Arc::clone(known))).1,
            metrics: metrics.clone(),
            alarmed: Arc::new(|| ()),
        }
    }

    /// LOOP-12: what ended the loops of a node has made it blind. Its status does not stay as it was.
    #[tokio::test]
    async fn a_node_whose_loops_have_ended_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let (known, node) = (
            Arc::new(consensus_in(folder.path())),
            folder.path().join("0"),
        );
        let mut loops = loops(&node, Role::Mix, &known, &metrics);
        let (document, directory) = watch::channel(State::Bootstrapping);
        loops.directory = directory;
        metrics.gauge(LINKS, 2);
        std::fs::create_dir(node.join(FILE)).unwrap(); // no file can be read there, nor written
        let mut running = core::pin::pin!(loops.run(CancellationToken::new()));
        let mut look = async |shown: Value| {
            tokio::select! {
                biased;
                () = &mut running => unreachable!("it is tried again"),
                () = tokio::task::yield_now() => {}
            }
            let status = status(&metrics);
            assert_eq!(json!([status["links_up"], status["blind"]]), shown);
        };
        look(json!([0, false])).await; // no document names it
        document.send_replace(State::Ready(known));
        look(json!([0, true])).await;
    }

    /// LOOP-12: a node whose loops tell nothing for two minutes is not calm. Its status shows it, and its
    /// log which link is down.
    #[tokio::test]
    async fn a_node_that_is_cut_off_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (known, metrics) = (Arc::new(consensus()), Metrics::default());
        let loops = loops(&folder.path().join("mix"), Role::Mix, &known, &metrics);
        let links = Links::default();
        let now = loops.dialler.clock.now();
        for (began, is_blind) in [(now, false), (Time::ZERO, true)] {
            tokio::select! {
                biased;
                () = loops.show(&links, began) => unreachable!("it goes on"),
                () = tokio::task::yield_now() => {} // it has looked once
            }
            assert_eq!(status(&metrics)["blind"], is_blind);
        }

        let (_, profile) = known.profile(NODE_PROFILE).unwrap();
        let at = |seconds| Time::ZERO.after(Duration::from_secs(seconds));
        let watching = Watching {
            judged: Some(at(100)),
            ..Watching::default()
        };
        assert!(!watching.is_blind(&profile, Time::ZERO, at(220)));
        assert!(watching.is_blind(&profile, Time::ZERO, at(221)));
        assert!(!watching.is_blind(&profile, at(200), at(320)), "it is new");

        let link = |up, trouble: &str| Known {
            up,
            trouble: trouble.to_owned(),
            ..Known::default()
        };
        let cut = why_blind(&[link(true, ""), link(false, "refused")]);
        assert!(cut.contains("of its mailbox is down (refused)"), "{cut}");
        let cut = why_blind(&[link(false, ""), link(true, "")]);
        assert!(cut.contains("that it enters by is down"), "{cut}");
        let both = why_blind(&[link(true, ""), link(true, "")]);
        assert!(both.contains("both its links are up"), "{both}");
    }

    /// LOOP-2, LOOP-3: a gateway's mailbox is at itself; a mix's is at one not of its family, the
    /// same after a restart, and another one only when that gateway is gone.
    #[test]
    fn a_mailbox_stays_while_its_gateway_does() {
        let folder = tempfile::tempdir().unwrap();
        let open = |i: u8| {
            let path = folder.path().join(i.to_string());
            Keys::open(StateDir::open(&path).unwrap()).unwrap()
        };
        let params = Params::default();
        // Three mixes, four gateways; the first mix and the first gateway are of one family.
        let said: Vec<_> = (0..7u8)
            .map(|i| {
                let about = About {
                    role: if i < 3 { Role::Mix } else { Role::Gateway },
                    address: "127.0.0.1:9000".to_owned(),
                    family: if i % 3 == 0 { "a" } else { "b" }.to_owned(),
                    check: proto::directory::SelfCheck::new(sphinx::Path::Portable, 1, 1),
                };
                let said = open(i).descriptor(&NETWORK, &about, 0, &params, START_S);
                said.unwrap()
            })
            .collect();
        let document = |gateways: &[usize]| {
            let terms = Terms {
                network: NETWORK,
                period: 0,
                previous: [0; 32],
                layers: 3,
                params: params.clone(),
            };
            let of = [0, 1, 2].iter().chain(gateways).map(|i| said[*i].clone());
            Consensus::build(&terms, START_S, of).unwrap()
        };
        let home = |i: u8, role, document: &Consensus| {
            let loops = Loops {
                keys: Arc::new(open(i)),
                role,
                dialler: Dialler {
                    network: NETWORK,
                    key: None,
                    clock: Clock::start(),
                },
                directory: watch::channel(State::Bootstrapping).1,
                metrics: Metrics::default(),
                alarmed: Arc::new(|| ()),
            };
            assert!(loops.names(document));
            let identity = loops.identity(document).unwrap();
            (identity.gateway(), identity.mailbox())
        };
        let all = document(&[3, 4, 5, 6]);
        let id = |i: u8| open(i).id();
        assert_eq!(home(4, Role::Gateway, &all).0, id(4));
        let first = home(0, Role::Mix, &all);
        assert!([id(4), id(5)].contains(&first.0), "of another family");
        assert_eq!(home(0, Role::Mix, &all), first);
        let without = document(if first.0 == id(4) { &[3, 5] } else { &[3, 4] });
        let second = home(0, Role::Mix, &without);
        assert!(second.0 != first.0 && second.0 != id(3));
        assert_eq!(home(0, Role::Mix, &all), second, "nor does it go back");
        assert_eq!(home(0, Role::Mix, &document(&[3])).0, id(3), "if need be");
    }
}
