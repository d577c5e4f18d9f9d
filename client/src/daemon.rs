//! The daemon: one client machine, its links, its records, and what others may ask of it.
//!
//! [`shell::client`] runs the machine and its links; what it says comes here: deliveries go to the
//! inbox, progress to the outbox, events are counted.
//!
//! | state           | means                                                              |
//! |-----------------|--------------------------------------------------------------------|
//! | `off`           | stopped, also after a proof of a split                             |
//! | `bootstrapping` | no valid consensus yet, or one of the links is down                |
//! | `ready`         | both links are up                                                  |
//!
//! The machine and its links have a thread of their own.
//!
//! Invariants: nothing that hears the machine waits; a record that can't be stored ends the daemon.
//! Nothing is sent by any other way than the machine's links.

use core::{future::Future, time::Duration};
use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicU64};

use anyhow::Context;
use proto::{
    NodeId,
    address::Address,
    client::{
        ClientEvent, Concerns, Delivery, Identity, Input, Limits, Op, Stage, addresses_of, founding,
    },
    notice::What,
    wire::Purpose,
};
use shell::{
    apart::apart,
    client::{self, INBOX, Links, Said, Setup, any_gateway},
    clock::Clock,
    entropy,
    follow::{self, Follow, Follower},
    link::Dialler,
    store::kv::{Record, Records},
};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    addresses::Orders,
    handle::Handle,
    inbox::Inbox,
    outbox::Outbox,
    settings::Config,
    state_dir::{StateDir, chosen},
    status::{Counts, way_out},
};

/// Starts daemons.
#[derive(Debug)]
pub struct Daemon;

/// What the tasks of one daemon share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) inbox: Arc<Inbox<Delivery>>,
    pub(crate) outbox: Outbox,
    pub(crate) orders: Orders,
    pub(crate) counts: Mutex<Counts>,
    pub(crate) links: Arc<Links>,
    pub(crate) directory: watch::Receiver<follow::State>,
    /// The address to name before the machine has named its own.
    pub(crate) address: Option<Address>,
    pub(crate) input: mpsc::Sender<Input>,
    pub(crate) next_ticket: AtomicU64,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// What ended the daemon, if it was not told to stop.
    pub(crate) failure: Mutex<Option<Ended>>,
}

impl Daemon {
    /// Starts a daemon on the folder that `lacuna init` has made. It bootstraps by itself; wait
    /// for [`Handle::ready`] or go on at once.
    ///
    /// # Errors
    ///
    /// If the folder, its network or its records can't be used: one line with the remedy.
    pub async fn start(mut config: Config) -> anyhow::Result<Handle> {
        let of = config.clone();
        // Waits a moment if it is locked.
        let folder = tokio::task::spawn_blocking(move || StateDir::open(&of)).await??;
        config.profile = folder.profile(&config.profile)?;
        let network = shell::network::read(&config.network)?;
        let (records, found) = folder.records()?;
        let identity = folder.identity(&found)?;
        let own = addresses_of(&found).unwrap_or_default();
        let chosen = identity.as_ref().and_then(chosen).map(Identity::address);
        let clock = Clock::start();
        let (input, inputs) = mpsc::channel(INBOX);
        let stop = CancellationToken::new();
        let dialler = Dialler {
            network: network.id,
            key: None,
            clock,
        };
        let follow = Follow {
            network: Arc::new(network),
            dialler: dialler.clone(),
            file: folder.path("consensus"),
            follower: Follower::Client,
        };
        let (directory, following) = follow.start(stop.clone())?;
        let [a, b, c, d, e, f, g, h, ..] = entropy::seed();
        let shared = Arc::new(Shared {
            clock,
            inbox: Arc::default(),
            outbox: Outbox::default(),
            orders: Orders::default(),
            counts: Mutex::default(),
            links: Arc::default(),
            directory: directory.state,
            address: own.first().map(|own| own.address).or(chosen),
            input,
            // Tickets of another run must not be mistaken for ours.
            next_ticket: AtomicU64::new(u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1),
            stop,
            tasks: TaskTracker::new(),
            failure: Mutex::default(),
            config,
        });
        shared.tasks.spawn(async move {
            let _stopped = following.await;
        });
        let start = Start {
            dialler,
            folder,
            records,
            found,
            identity,
            inputs,
        };
        let ends = Ends(Arc::clone(&shared));
        let run = Arc::clone(&shared).run(start);
        shared.tasks.spawn(async move {
            if let Err(error) = run.await {
                ends.0.fail(Ended::Running(format!("{error:#}")));
            }
            drop(ends);
        });
        Ok(Handle { shared })
    }
}

/// Dropped, it ends what the daemon runs and whoever waits for it: also when it is dropped with the
/// runtime, by a program that does not stop the daemon.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.stop.cancel();
        self.0.outbox.close();
        self.0.orders.close();
    }
}

/// Why a daemon ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A setting turned out to be wrong: one line with the remedy.
    Settings(String),
    /// Something failed.
    Running(String),
}

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Settings(why) => write!(f, "settings: {why}"),
            Self::Running(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for Ended {}

/// What a daemon starts from, besides its settings.
struct Start {
    dialler: Dialler,
    folder: StateDir,
    records: Records,
    found: Vec<Record>,
    identity: Option<Identity>,
    inputs: mpsc::Receiver<Input>,
}

impl Shared {
    /// What ended the daemon, if it was not told to stop.
    pub(crate) fn failure(&self) -> Option<Ended> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone()
    }

    async fn run(self: Arc<Self>, mut start: Start) -> anyhow::Result<()> {
        if let Some(mut identity) = start.identity {
            if chosen(&identity).is_none() {
                let Some(gateway) = self.draw_mailbox().await? else {
                    return Ok(()); // told to stop
                };
                identity = identity.at(gateway);
            }
            let founding = founding(&identity);
            let put = |(key, value)| Op::Put { key, value };
            let ops = founding.clone().map(put).into();
            start.records.apply(ops).await?;
            start.folder.blank()?;
            start.found.extend(founding);
        }
        let setup = Setup {
            config: proto::client::Config {
                network: start.dialler.network,
                entry: self.config.entry()?,
                profile: self.config.profile.clone(),
                via: None,
                acks: self.config.acks,
                limits: Limits::default(),
            },
            records: Some(start.records),
            found: start.found,
            dialler: start.dialler,
            patience: Duration::from_secs(self.config.connect_timeout_s),
            directory: self.directory.clone(),
            links: Arc::clone(&self.links),
            inbox: (self.input.clone(), start.inputs),
        };
        let (hearing, stop) = (Arc::clone(&self), self.stop.clone());
        self.spawn(Arc::clone(&self).check_profile());
        // A program hands over a body of 100 MB, or takes one: seconds of work, in which the rhythm
        // goes on (CLI-2).
        let rhythm = move || async move {
            let _until_it_ended = start.folder;
            client::run(setup, move |said| hearing.hear(said), stop).await
        };
        apart("rhythm", rhythm).await??;
        Ok(())
    }

    /// Runs `task` until it ends or the daemon is told to stop.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Waits for a consensus and draws a mailbox gateway from it, uniformly.
    async fn draw_mailbox(&self) -> anyhow::Result<Option<NodeId>> {
        let mut directory = self.directory.clone();
        let ready = directory.wait_for(|state| state.consensus().is_some());
        let known = tokio::select! {
            ready = ready => ready.ok().and_then(|state| state.consensus().cloned()),
            () = self.stop.cancelled() => None,
        };
        let Some(known) = known else {
            return Ok(None);
        };
        let gateway = any_gateway(&known, None).context("the consensus has no gateway")?;
        Ok(Some(gateway))
    }

    /// Ends the daemon when a document does not have its profile.
    async fn check_profile(self: Arc<Self>) {
        let mut directory = self.directory.clone();
        loop {
            let known = directory.borrow_and_update().consensus().cloned();
            let given = &self.config.profile;
            if let Some(params) = known.map(|known| known.params.clone())
                && params.profile(given).is_none()
            {
                let names = params.profiles.iter().map(|profile| &*profile.name);
                let names = names.collect::<Vec<_>>().join(", ");
                let why = format!(
                    "profile must be one of the network's ({names}), not `{given}`: make another client with one of these, or restore a backup of this one with `lacuna restore --profile`"
                );
                return self.fail(Ended::Settings(why));
            }
            if directory.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends the daemon.
    fn fail(&self, why: Ended) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(why);
        self.stop.cancel();
    }

    /// Hears what the machine says; never waits.
    fn hear(&self, said: Said) {
        match said {
            Said::Deliver(delivery) => self.inbox.offer(delivery.message.0, delivery),
            Said::Progress(progress) => self.outbox.note(progress),
            Said::Addressed(ticket, outcome) => self.orders.note(ticket, outcome),
            Said::Relocated(_) => self.count("correspondent_moved"),
            Said::Event(event) => {
                if event == ClientEvent::EntryReplaced {
                    tracing::warn!(
                        "the entry gateway is dead or withdraws; another one is entered by"
                    );
                }
                if let ClientEvent::Alarmed(stage) = event {
                    tracing::warn!(
                        ?stage,
                        "many own loops are lost: somebody may hold packets back"
                    );
                }
                if event == ClientEvent::Noticed(What::Withdrawal, Concerns::Mailbox) {
                    tracing::warn!(
                        "the gateway of the mailbox stops; what comes waits for its return. {}",
                        way_out(self.links.view().moving.refused)
                    );
                }
                self.count(&name(event));
            }
            Said::Unsent(Purpose::Entry, why) => {
                self.count(&format!("unsent_entry_{}", why.reason()));
            }
            Said::Unsent(_, why) => self.count(&format!("unsent_mailbox_{}", why.reason())),
        }
    }

    fn count(&self, name: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.add(name);
    }
}

/// Name of an event in the counts.
fn name(event: ClientEvent) -> String {
    match event {
        ClientEvent::PayloadSent => "payload_sent",
        ClientEvent::DropSent => "drop_sent",
        ClientEvent::LoopSent => "loop_sent",
        ClientEvent::TickSkipped => "tick_skipped",
        ClientEvent::NoRoute => "no_route",
        ClientEvent::LoopReturned { .. } => "loop_returned",
        ClientEvent::LoopLost => "loop_lost",
        ClientEvent::LoopUnjudged => "loop_unjudged",
        ClientEvent::LoopAlarm => "loop_alarm",
        ClientEvent::Alarmed(Stage::Calm) => "alarm_calm",
        ClientEvent::Alarmed(Stage::Moved) => "alarm_moved",
        ClientEvent::Alarmed(Stage::Warned) => "alarm_warned",
        ClientEvent::Alarmed(Stage::Paused) => "alarm_paused",
        ClientEvent::EntryReplaced => "entry_replaced",
        ClientEvent::Noticed(What::Alarm, _) => "notice_alarm",
        ClientEvent::Noticed(What::Withdrawal, Concerns::Entry) => "notice_entry_leaves",
        ClientEvent::Noticed(What::Withdrawal, Concerns::Mailbox) => "notice_mailbox_leaves",
        ClientEvent::Noticed(What::Withdrawal, Concerns::Other) => "notice_withdrawal",
        ClientEvent::DummyReceived => "dummy_received",
        ClientEvent::FragmentReceived => "fragment_received",
        ClientEvent::SpareReceived => "spare_received",
        ClientEvent::AckReceived => "ack_received",
        ClientEvent::AckForgotten => "ack_forgotten",
        ClientEvent::ProbeReceived => "probe_received",
        ClientEvent::RelocationReceived => "relocation_received",
        ClientEvent::ProofReturned => "proof_returned",
        ClientEvent::Dropped(why) => return format!("dropped_{why:?}").to_lowercase(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::Wait,
        outbox::{SendError, Sending},
        state_dir,
    };

    /// Nobody waits for ever for a daemon whose runtime is gone, also while no gateway is chosen yet.
    #[test]
    fn who_waits_is_told_when_the_runtime_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let config = state_dir::tests::config(folder.path());
        drop(StateDir::create(&config).unwrap());
        let runtime = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap()
        };
        let first = runtime();
        let handle = first.block_on(Daemon::start(config)).unwrap();
        let under_way = handle.shared.outbox.open(1, true);
        drop(first);
        runtime().block_on(async {
            let told = async {
                let told = Sending::new(under_way, true).reached(Wait::Sent).await;
                assert!(matches!(told, Err(SendError::Stopped)), "{told:?}");
                assert!(handle.receive().await.is_err());
            };
            tokio::time::timeout(Duration::from_secs(20), told)
                .await
                .expect("it is told");
        });
    }
}
