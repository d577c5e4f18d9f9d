//! Runs a client machine: its links, its records, consensus and calendar.
//!
//! ```text
//!  follow ── consensus ─┐                       ┌─ entry link   (links)
//!  calendar ────────────┤                       ├─ mailbox links (links)
//!  mailbox frames ──────┼─▶ proto::client ──────┼─ records ── stored ─┐
//!  the owner's inputs ──┤      (drive)          ├─ the owner          │
//!  stored ──────────────┘◀──────────────────────┴────────────────────┘
//! ```
//!
//! The client's daemon and the loops of nodes ([`crate::loops`]) are the two owners.
//!
//! Invariants: what the machine puts out is carried out without waiting; it knows whether a link has
//! room before it builds a frame; a record that can't be stored ends the run (nothing may be confirmed
//! that could be forgotten). Fails closed: without links and epoch nothing leaves.
//!
//! Not done here: what messages, progress and events are good for.

mod links;
#[cfg(test)]
pub(crate) mod tests;

use core::time::Duration;
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use links::{Destination, silence};
pub use links::{Known, Port};
use proto::{
    Machine, NodeId, Time,
    client::{
        AddressError, Client, ClientEvent, Config, Delivery, Entrance, Held, Input,
        MAILBOX_GATEWAYS_MAX, Moving, Output, OwnAddress, Progress, Relocated, RestoreError,
        Watching,
    },
    directory::Consensus,
    wire::Purpose,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    drive::{drive, feed_calendar},
    entropy,
    follow::State,
    link::{Dialler, NotSent},
    store::{
        Reply, StoreError,
        kv::{Record, Records},
    },
};

/// Inputs that wait for the machine; links and senders wait for room.
pub const INBOX: usize = 256;

/// What a client says to whoever runs it.
#[derive(Debug)]
pub enum Said {
    /// A message for the application.
    Deliver(Delivery),
    /// News of an outgoing message.
    Progress(Progress),
    /// What came of an order for an address: the owner's number, and its slot or why not.
    Addressed(u64, Result<u16, AddressError>),
    /// A correspondent has moved.
    Relocated(Relocated),
    /// Something to count.
    Event(ClientEvent),
    /// A frame for this link was not sent.
    Unsent(Purpose, NotSent),
}

/// What the machine holds, as its owner may show it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// How much of everything.
    pub held: Held,
    /// Loss of the path, as its loops measured it.
    pub loss: f64,
    /// How its loops are watched.
    pub watching: Watching,
    /// How it stands with its entry gateway.
    pub entrance: Entrance,
    /// How far a move has come.
    pub moving: Moving,
    /// Addresses that are not open yet, by number: what comes there waits.
    pub unopened: Vec<u16>,
}

/// Which gateway each link goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    entry: Option<NodeId>,
    mailboxes: [Option<NodeId>; MAILBOX_GATEWAYS_MAX],
    /// Which of the mailbox links is that of the client's addresses.
    home: usize,
}

impl Places {
    /// Mailbox links to these gateways, the home first. A link that is wanted stays where it is.
    fn aim(&mut self, entry: Option<NodeId>, mailboxes: &[NodeId]) {
        self.entry = entry;
        for place in &mut self.mailboxes {
            *place = place.filter(|gateway| mailboxes.contains(gateway));
        }
        for gateway in mailboxes {
            let free = self.mailboxes.iter().position(Option::is_none);
            if let (false, Some(free)) = (self.mailboxes.contains(&Some(*gateway)), free) {
                self.mailboxes[free] = Some(*gateway);
            }
        }
        let home = mailboxes.first().and_then(|home| self.at(*home));
        self.home = home.unwrap_or(self.home);
    }

    fn at(&self, gateway: NodeId) -> Option<usize> {
        self.mailboxes.iter().position(|at| *at == Some(gateway))
    }
}

/// A client's links and what is to be seen of its machine.
#[derive(Debug)]
pub struct Links {
    /// The link on which it writes packets.
    pub entry: Port,
    /// Those on which it reads them: one, but for some time after a move.
    mailboxes: [Port; MAILBOX_GATEWAYS_MAX],
    places: watch::Sender<Places>,
    view: Mutex<View>,
    /// The client's addresses, and the machine's number of their last change.
    addresses: Mutex<(u64, Vec<OwnAddress>)>,
    /// Correspondents that have moved, and the machine's number of the last one.
    relocated: watch::Sender<(u64, Arc<[Relocated]>)>,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            entry: Port::new(Purpose::Entry),
            mailboxes: [(); MAILBOX_GATEWAYS_MAX].map(|()| Port::new(Purpose::Mailbox)),
            places: watch::Sender::default(),
            view: Mutex::default(),
            addresses: Mutex::default(),
            relocated: watch::Sender::new((0, Arc::new([]))),
        }
    }
}

impl Links {
    /// The gateway that the client enters by, once there is one.
    #[must_use]
    pub fn entered(&self) -> Option<NodeId> {
        self.places.borrow().entry
    }

    /// The link to the gateway where the client's addresses have their mailboxes. After a move it is
    /// another one.
    #[must_use]
    pub fn home(&self) -> &Port {
        let home = self.places.borrow().home;
        &self.mailboxes[home]
    }

    /// The links to gateways where mailboxes from before a move are read.
    pub fn former(&self) -> impl Iterator<Item = (NodeId, &Port)> {
        let places = *self.places.borrow();
        let all = places.mailboxes.into_iter().zip(&self.mailboxes);
        let former = all.enumerate().filter(move |(at, _)| *at != places.home);
        former.filter_map(|(_, (gateway, port))| Some((gateway?, port)))
    }

    /// Frames written, and read, since the start, on all links.
    #[must_use]
    pub fn frames(&self) -> [u64; 2] {
        let all = self.mailboxes.iter().chain([&self.entry]);
        all.map(Port::frames)
            .fold([0; 2], |sum, [up, down]| [sum[0] + up, sum[1] + down])
    }

    /// When a link is aimed at another gateway.
    #[must_use]
    pub fn aims(&self) -> watch::Receiver<Places> {
        self.places.subscribe()
    }

    /// The correspondents that have moved, and when there is another.
    #[must_use]
    pub fn relocated(&self) -> watch::Receiver<(u64, Arc<[Relocated]>)> {
        self.relocated.subscribe()
    }

    /// Whether the entry link takes no frame, and the gateways of the mailbox links that take none.
    fn full(&self) -> (bool, Vec<NodeId>) {
        let places = *self.places.borrow();
        let mailboxes = places.mailboxes.into_iter().zip(&self.mailboxes);
        let full = mailboxes.filter(|(_, port)| !port.has_room());
        let full = full.filter_map(|(gateway, _)| gateway);
        (!self.entry.has_room(), full.collect())
    }

    fn to_mailbox(&self, gateway: NodeId) -> Option<&Port> {
        let at = self.places.borrow().at(gateway)?;
        Some(&self.mailboxes[at])
    }

    /// What the machine holds.
    #[must_use]
    pub fn view(&self) -> View {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.clone()
    }

    /// The client's addresses, the oldest first; none before it runs.
    #[must_use]
    pub fn addresses(&self) -> Vec<OwnAddress> {
        self.known_addresses().1.clone()
    }

    fn known_addresses(&self) -> MutexGuard<'_, (u64, Vec<OwnAddress>)> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, client: &Client) {
        let mut addresses = self.known_addresses();
        if addresses.1.is_empty() || addresses.0 != client.addresses_version() {
            *addresses = client.addresses();
        }
        drop(addresses);
        let gateways = client.mailbox_gateways();
        self.places.send_if_modified(|places| {
            let before = *places;
            places.aim(client.entry(), &gateways);
            *places != before
        });
        for gateway in gateways.into_iter().filter(|at| client.is_deaf(*at)) {
            if let Some(port) = self.to_mailbox(gateway) {
                port.close(); // CLI-15: the mailbox is opened anew
            }
        }
        self.relocated.send_if_modified(|relocated| {
            let version = client.relocated_version();
            let news = relocated.0 != version;
            if news {
                *relocated = (version, client.relocated().into());
            }
            news
        });
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = View {
            held: client.held(),
            loss: client.loss(),
            watching: client.watching(),
            entrance: client.entrance(),
            moving: client.moving(),
            unopened: client.unopened_addresses(),
        };
    }
}

/// What a client starts from.
pub struct Setup {
    /// The machine's settings.
    pub config: Config,
    /// Where its records are kept; none: no longer than this run.
    pub records: Option<Records>,
    /// What stood in them: at least what a client is founded on
    /// ([`founding`](proto::client::founding)).
    pub found: Vec<Record>,
    /// How it dials.
    pub dialler: Dialler,
    /// Longest that a dialling may take.
    pub patience: Duration,
    /// The consensus as it changes.
    pub directory: watch::Receiver<State>,
    /// Its links.
    pub links: Arc<Links>,
    /// Both ends of the machine's inbox; others may have senders too.
    pub inbox: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
}

/// Why a client ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Its records are none that a client wrote.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The system has no timer.
    #[error("the machine's timer: {0}")]
    Timer(io::Error),
    /// Its records can't be written.
    #[error("the client's records can't be written: {0}")]
    Records(StoreError),
}

/// Runs a client until `stop`. `said` carries out what the machine says to its owner, and must not
/// wait.
///
/// # Errors
///
/// [`ClientError`]: what ended it before.
pub async fn run(
    setup: Setup,
    mut said: impl FnMut(Said) + Send,
    stop: CancellationToken,
) -> Result<(), ClientError> {
    let profile = setup.config.profile.clone();
    let client = Client::new(setup.config, entropy::seed(), None, setup.found)?;
    let (input, inputs) = setup.inbox;
    let (links, clock) = (setup.links, setup.dialler.clock);
    links.show(&client);
    let machine = Observed::new(client, Arc::clone(&links));

    let mut tasks = JoinSet::new(); // they end with this future
    tasks.spawn(feed_calendar(clock, input.clone(), Input::Calendar));
    tasks.spawn(feed_consensus(setup.directory.clone(), input.clone()));
    // The mailbox links, then the entry.
    let to = [(); MAILBOX_GATEWAYS_MAX + 1].map(|()| watch::Sender::new(None));
    for (at, to) in to.iter().enumerate() {
        let (links, dialler, to) = (Arc::clone(&links), setup.dialler.clone(), to.subscribe());
        let (inbox, patience) = (input.clone(), setup.patience);
        tasks.spawn(async move {
            let port = links.mailboxes.get(at).unwrap_or(&links.entry);
            port.keep(dialler, patience, to, inbox).await;
        });
    }
    let aim = Aim {
        directory: setup.directory,
        profile,
        places: links.places.subscribe(),
        to,
    };
    tasks.spawn(aim.run());

    let (stores, replies) = mpsc::unbounded_channel();
    let storing = report_stored(replies, input);
    let effect = move |output| match output {
        Output::Entry(frame) => {
            if let Err(why) = links.entry.send(frame) {
                said(Said::Unsent(Purpose::Entry, why));
            }
        }
        Output::Mailbox { gateway, frame } => {
            let port = links.to_mailbox(gateway).ok_or(NotSent::Down);
            if let Err(why) = port.and_then(|port| port.send(frame)) {
                said(Said::Unsent(Purpose::Mailbox, why));
            }
        }
        Output::Store { txn, ops } => {
            let reply = setup.records.as_ref().map(|records| records.apply(ops));
            let _stopping = stores.send((txn, reply));
        }
        Output::Deliver(delivery) => said(Said::Deliver(delivery)),
        Output::Progress(progress) => said(Said::Progress(progress)),
        Output::Addressed { ticket, outcome } => said(Said::Addressed(ticket, outcome)),
        Output::Relocated(news) => said(Said::Relocated(news)),
        Output::Event(event) => said(Said::Event(event)),
    };
    tokio::select! {
        ended = drive(machine, clock, inputs, effect, stop) => {
            ended.map(drop).map_err(ClientError::Timer)
        }
        Err(error) = storing => Err(ClientError::Records(error)),
    }
}

/// A gateway drawn uniformly: from those not of `mix`'s family, as far as there are such, since no
/// route leads through two nodes of one family (CLI-8).
#[must_use]
pub fn any_gateway(consensus: &Consensus, mix: Option<&NodeId>) -> Option<NodeId> {
    let family = mix
        .and_then(|mix| consensus.node(mix))
        .map(|mix| &mix.family);
    let all: Vec<_> = consensus.gateways().collect();
    let mut good: Vec<_> = all
        .iter()
        .filter(|node| Some(&node.family) != family)
        .collect();
    if good.is_empty() {
        good.extend(&all);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index below the number of gateways"
    )]
    let at = (entropy::uniform() * good.len() as f64) as usize;
    good.get(at).map(|node| node.id)
}

/// Tells the machine every document.
async fn feed_consensus(mut directory: watch::Receiver<State>, input: mpsc::Sender<Input>) {
    loop {
        let known = directory.borrow_and_update().consensus().cloned();
        if let Some(known) = known
            && input.send(Input::Consensus(known)).await.is_err()
        {
            return;
        }
        if directory.changed().await.is_err() {
            return;
        }
    }
}

/// Tells the links where to go, by the consensus and the machine's choice.
struct Aim {
    directory: watch::Receiver<State>,
    profile: String,
    places: watch::Receiver<Places>,
    /// The mailbox links, and the entry.
    to: [watch::Sender<Option<Destination>>; MAILBOX_GATEWAYS_MAX + 1],
}

impl Aim {
    async fn run(mut self) {
        loop {
            let known = self.directory.borrow_and_update().consensus().cloned();
            let places = *self.places.borrow_and_update();
            let wanted = places.mailboxes.into_iter().chain([places.entry]);
            for (to, node) in self.to.iter().zip(wanted) {
                let aimed = known.as_deref().zip(node);
                let aimed = aimed.and_then(|(known, node)| self.destination(known, node));
                to.send_if_modified(|to| {
                    let changed = *to != aimed;
                    *to = aimed;
                    changed
                });
            }
            let changed = tokio::select! {
                changed = self.directory.changed() => changed,
                changed = self.places.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn destination(&self, consensus: &Consensus, node: NodeId) -> Option<Destination> {
        let (index, profile) = consensus.profile(&self.profile)?;
        Some(Destination {
            target: consensus.node(&node)?.into(),
            profile: index,
            silence: silence(&profile),
        })
    }
}

/// Tells the machine, in order, which of its transactions are durable; those without a reply are
/// kept nowhere. One that fails ends the client.
async fn report_stored(
    mut stores: mpsc::UnboundedReceiver<(u64, Option<Reply<()>>)>,
    input: mpsc::Sender<Input>,
) -> Result<(), StoreError> {
    while let Some((txn, reply)) = stores.recv().await {
        if let Some(reply) = reply {
            reply.await?;
        }
        if input.send(Input::Stored { txn }).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The client machine, with a window on what its links and its status must know of it, and on what
/// it must know of its links.
struct Observed {
    client: Client,
    links: Arc<Links>,
    /// What the client was last told: whether its entry link is full, and which mailbox links are.
    full: (bool, Vec<NodeId>),
}

impl Observed {
    fn new(client: Client, links: Arc<Links>) -> Self {
        Self {
            client,
            links,
            full: (false, Vec::new()),
        }
    }

    /// Tells the client which of its links take frames, before it could build one that can't leave
    /// (CLI-4, CLI-13).
    fn tell_room(&mut self, now: Time) {
        let full = self.links.full();
        if full != self.full {
            self.full.clone_from(&full);
            let (entry, mailboxes) = full;
            self.client.handle(now, Input::Full { entry, mailboxes });
        }
    }
}

impl Machine for Observed {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        self.tell_room(now);
        self.client.handle(now, input);
    }

    fn wake(&mut self, now: Time) {
        self.tell_room(now);
        self.client.wake(now);
    }

    fn poll(&mut self) -> Option<Output> {
        let output = self.client.poll();
        // Also before an owner hears that its addresses are others.
        if matches!(output, None | Some(Output::Addressed { .. })) {
            self.links.show(&self.client);
        }
        output
    }

    fn next_wake(&self) -> Option<Time> {
        self.client.next_wake()
    }
}
