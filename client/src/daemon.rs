//! The daemon: one client machine, its two links, its records, and what others may ask of it.
//!
//! ```text
//!  follow ── consensus ─┐                       ┌─ entry link   (links.rs)
//!  calendar ────────────┤                       ├─ mailbox link (links.rs)
//!  mailbox frames ──────┼─▶ proto::client ──────┼─ records ── stored ─┐
//!  Handle::send ────────┤   (shell::drive)      ├─ inbox, outbox      │
//!  stored, taken ───────┘◀──────────────────────┴────────────────────┘
//! ```
//!
//! | state           | means                                                              |
//! |-----------------|--------------------------------------------------------------------|
//! | `off`           | stopped, or the consensus is past its last epoch                    |
//! | `bootstrapping` | no valid consensus yet, or one of the links is down                 |
//! | `ready`         | both links are up                                                  |
//!
//! Invariants: what the machine puts out is carried out without waiting; a full or missing link
//! drops and counts; a record that can't be stored ends the daemon (nothing may be confirmed that
//! could be forgotten). Fails closed: without links and epoch nothing leaves, and nothing is sent
//! by another way.

use core::{future::Future, time::Duration};
use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicU64};

use anyhow::Context;
use proto::{
    Machine, NodeId, Time,
    address::Address,
    client::{Client, ClientEvent, Delivery, Held, Identity, Input, Limits, Output},
    directory::Consensus,
    wire::Purpose,
};
use shell::{
    clock::Clock,
    drive::{drive, feed_calendar},
    entropy,
    follow::{self, Follow, Follower},
    link::{Dialler, NotSent},
    store::{
        Reply,
        kv::{Record, Records},
    },
};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    handle::Handle,
    inbox::Inbox,
    links::{Destination, Port, silence},
    outbox::Outbox,
    settings::Config,
    state_dir::StateDir,
    status::Counts,
};

/// Inputs that wait for the machine; links and senders wait for room.
const INBOX: usize = 256;

/// Starts daemons.
#[derive(Debug)]
pub struct Daemon;

/// What the tasks of one daemon share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) inbox: Arc<Inbox<Delivery>>,
    pub(crate) outbox: Outbox,
    pub(crate) counts: Mutex<Counts>,
    pub(crate) entry: Port,
    pub(crate) mailbox: Port,
    /// The gateway that the machine enters by.
    pub(crate) entered: watch::Sender<Option<NodeId>>,
    pub(crate) view: Mutex<View>,
    pub(crate) directory: watch::Receiver<follow::State>,
    pub(crate) address: watch::Sender<Option<Address>>,
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
    pub async fn start(config: Config) -> anyhow::Result<Handle> {
        let folder = StateDir::open(&config)?;
        let network = shell::network::read(&config.network)?;
        let (records, found) = Records::open(&folder.path("client.redb"))?;
        let identity = folder.identity()?;
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
            counts: Mutex::default(),
            entry: Port::new(Purpose::Entry),
            mailbox: Port::new(Purpose::Mailbox),
            entered: watch::Sender::new(None),
            view: Mutex::default(),
            directory: directory.state,
            address: watch::Sender::new(identity.as_ref().map(Identity::address)),
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
        let run = Arc::clone(&shared).run(start);
        let ending = Arc::clone(&shared);
        shared.tasks.spawn(async move {
            if let Err(error) = run.await {
                ending.fail(Ended::Running(format!("{error:#}")));
            }
            ending.stop.cancel();
            ending.outbox.close();
        });
        Ok(Handle { shared })
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

/// What the machine holds, as its status shows it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    pub(crate) held: Held,
    /// Loss of the path, as its loops measured it.
    pub(crate) loss: f64,
}

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

    async fn run(self: Arc<Self>, start: Start) -> anyhow::Result<()> {
        let identity = match start.identity {
            Some(identity) => identity,
            None => {
                let Some(gateway) = self.draw_mailbox().await? else {
                    return Ok(()); // told to stop
                };
                start.folder.choose(gateway)?
            }
        };
        self.address.send_replace(Some(identity.address()));
        let gateway = identity.gateway();
        let config = proto::client::Config {
            network: start.dialler.network,
            entry: self.config.entry()?,
            profile: self.config.profile.clone(),
            acks: self.config.acks,
            limits: Limits::default(),
        };
        let client = Client::new(config, entropy::seed(), identity, start.found)?;
        let shared = Arc::clone(&self);
        let machine = Observed { client, shared };

        let input = self.input.clone();
        self.spawn(feed_calendar(self.clock, input.clone(), Input::Calendar));
        self.spawn(Arc::clone(&self).feed_consensus(input));
        let [entry, mailbox] = [(); 2].map(|()| watch::Sender::new(None));
        for (to, is_entry) in [(&entry, true), (&mailbox, false)] {
            let (shared, dialler, to) = (Arc::clone(&self), start.dialler.clone(), to.subscribe());
            self.spawn(async move {
                let port = if is_entry {
                    &shared.entry
                } else {
                    &shared.mailbox
                };
                let patience = Duration::from_secs(shared.config.connect_timeout_s);
                port.keep(dialler, patience, to, shared.input.clone()).await;
            });
        }
        self.spawn(Arc::clone(&self).aim(gateway, entry, mailbox));

        let (stores, replies) = mpsc::unbounded_channel();
        self.spawn(Arc::clone(&self).report_stored(replies));
        let effect = {
            let shared = Arc::clone(&self);
            move |output| shared.carry_out(output, &start.records, &stores)
        };
        drive(machine, self.clock, start.inputs, effect, self.stop.clone()).await?;
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
        let gateways: Vec<NodeId> = known.gateways().map(|node| node.id).collect();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below the number of gateways"
        )]
        let at = (entropy::uniform() * gateways.len() as f64) as usize;
        let gateway = gateways.get(at).context("the consensus has no gateway")?;
        Ok(Some(*gateway))
    }

    /// Tells the machine every document.
    async fn feed_consensus(self: Arc<Self>, input: mpsc::Sender<Input>) {
        let mut directory = self.directory.clone();
        loop {
            let known = directory.borrow_and_update().consensus().cloned();
            if let Some(known) = known {
                let (given, profiles) = (&self.config.profile, &known.params.profiles);
                if known.params.profile(given).is_none() {
                    let names: Vec<_> = profiles.iter().map(|profile| &*profile.name).collect();
                    let names = names.join(", ");
                    let why =
                        format!("profile must be one of the network's ({names}), not `{given}`");
                    return self.fail(Ended::Settings(why));
                }
                if input.send(Input::Consensus(known)).await.is_err() {
                    return;
                }
            }
            if directory.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells the two links where to go, by the consensus and the machine's choice.
    async fn aim(
        self: Arc<Self>,
        gateway: NodeId,
        entry: watch::Sender<Option<Destination>>,
        mailbox: watch::Sender<Option<Destination>>,
    ) {
        let (mut directory, mut entered) = (self.directory.clone(), self.entered.subscribe());
        loop {
            let known = directory.borrow_and_update().consensus().cloned();
            let chosen = *entered.borrow_and_update();
            for (to, node) in [(&entry, chosen), (&mailbox, Some(gateway))] {
                let aimed = known.as_deref().zip(node);
                let aimed = aimed.and_then(|(known, node)| self.destination(known, node));
                to.send_if_modified(|to| {
                    let changed = *to != aimed;
                    *to = aimed;
                    changed
                });
            }
            let changed = tokio::select! {
                changed = directory.changed() => changed,
                changed = entered.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn destination(&self, consensus: &Consensus, node: NodeId) -> Option<Destination> {
        let (index, profile) = consensus.params.profile(&self.config.profile)?;
        Some(Destination {
            target: consensus.node(&node)?.into(),
            profile: index,
            silence: silence(profile),
        })
    }

    /// Tells the machine, in order, which of its transactions are durable. One that is not ends
    /// the daemon.
    async fn report_stored(self: Arc<Self>, mut stores: mpsc::UnboundedReceiver<(u64, Reply<()>)>) {
        while let Some((txn, reply)) = stores.recv().await {
            if let Err(error) = reply.await {
                let why = format!("the client's records can't be written: {error}");
                self.fail(Ended::Running(why));
                return;
            }
            if self.input.send(Input::Stored { txn }).await.is_err() {
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

    /// Carries out one output of the machine; never waits.
    fn carry_out(
        &self,
        output: Output,
        records: &Records,
        stores: &mpsc::UnboundedSender<(u64, Reply<()>)>,
    ) {
        match output {
            Output::Entry(frame) => self.count_unsent("entry", self.entry.send(frame)),
            Output::Mailbox(frame) => self.count_unsent("mailbox", self.mailbox.send(frame)),
            Output::Store { txn, ops } => {
                let _stopping = stores.send((txn, records.apply(ops)));
            }
            Output::Deliver(delivery) => self.inbox.offer(delivery.message.0, delivery),
            Output::Progress(progress) => self.outbox.note(progress),
            Output::Event(event) => self.count(&name(event)),
        }
    }

    fn count_unsent(&self, link: &str, sent: Result<(), NotSent>) {
        if let Err(why) = sent {
            self.count(&format!("unsent_{link}_{}", why.reason()));
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
        ClientEvent::DummyReceived => "dummy_received",
        ClientEvent::FragmentReceived => "fragment_received",
        ClientEvent::SpareReceived => "spare_received",
        ClientEvent::AckReceived => "ack_received",
        ClientEvent::ProbeReceived => "probe_received",
        ClientEvent::Dropped(why) => return format!("dropped_{why:?}").to_lowercase(),
    }
    .to_owned()
}

/// The client machine, and a window on what its driver and its status must know of it.
struct Observed {
    client: Client,
    shared: Arc<Shared>,
}

impl Observed {
    fn show(&self) {
        let chosen = self.client.entry();
        self.shared.entered.send_if_modified(|entered| {
            let changed = *entered != chosen;
            *entered = chosen;
            changed
        });
        if self.client.is_deaf() {
            self.shared.mailbox.close(); // CLI-15: the mailbox is opened anew
        }
        *self
            .shared
            .view
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = View {
            held: self.client.held(),
            loss: self.client.loss(),
        };
    }
}

impl Machine for Observed {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        self.client.handle(now, input);
    }

    fn wake(&mut self, now: Time) {
        self.client.wake(now);
    }

    fn poll(&mut self) -> Option<Output> {
        let output = self.client.poll();
        if output.is_none() {
            self.show();
        }
        output
    }

    fn next_wake(&self) -> Option<Time> {
        self.client.next_wake()
    }
}
