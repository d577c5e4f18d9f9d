//! A client: cover traffic, messages, a mailbox.
//!
//! Spec: docs/spec/client.md, rules CLI-1 to CLI-34, CLI-40 to CLI-44; docs/spec/message.md, rules
//! MSG-1 to MSG-22, MSG-24, MSG-25.
//!
//! ```text
//! Send ─ journal ─ outbox ─┐                              ┌─ inbox ─ journal ─ Deliver
//!                   acks ──┼─ payload slot ─▷ entry link  │     └─ journal ─ acks
//!                  probes ─┤   (cover)                    ├─ acks: outbox
//!            nothing: drop ┘                   mailbox ▷──┼─ loops
//! loops ──────────── loop slot ─▷ entry link     link     └─ probes: acks
//! confirmations ── constant ticks ─▷ mailbox link
//! ```
//!
//! | part        | what it decides                                                             |
//! |-------------|-----------------------------------------------------------------------------|
//! | `addresses` | the owner's addresses, each with secrets of its own                         |
//! | `cover`     | when something is sent; nothing else has a say in it                        |
//! | `entry`     | which gateway it enters by, and whether that one is dead                    |
//! | `route`     | which way, how long at each mix, under which epoch's keys                   |
//! | `outbox`    | which fragment is next; `fountain` codes it, `content` writes it            |
//! | `inbox`     | what a fragment completes                                                   |
//! | `came`      | how a packet came, and what its message is called here                      |
//! | `acks`      | which ack is next; `returns` knows the way back                             |
//! | `surbs`     | own reply blocks, under way                                                 |
//! | `alarm`     | whether too many loops are lost, and what to do about it                    |
//! | `loops`     | which loops came back; the loss of the path                                 |
//! | `mailbox`   | opening, cursors, confirmations                                             |
//! | `moving`    | to another gateway, and who is told so, by a `relocation`                   |
//! | `contacts`  | who knows which address, and where they are now                             |
//! | `journal`   | what must be durable before anything of it shows                            |
//!
//! Invariants: the times at which the entry link is written depend on seed and rates alone; real
//! packets take the place of drops. Nothing is sent without a valid epoch (CLI-5). Nothing is
//! confirmed, acked, delivered or reported before it is durable (CLI-16).
//!
//! Not done here: links, storage, sealing of bodies (they come sealed by their application).
//! The seed must be fresh for each start: packets of equal seeds are equal.

mod acks;
mod addresses;
mod alarm;
mod came;
mod contacts;
pub mod content;
mod cover;
mod entry;
pub mod fountain;
mod identity;
mod inbox;
mod journal;
mod loops;
mod mailbox;
mod moving;
mod notices;
mod outbox;
mod outgoing;
mod receive;
mod relocation;
mod restore;
mod returns;
mod route;
mod send;
mod surbs;
mod types;

use core::time::Duration;
use std::{collections::VecDeque, sync::Arc};

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng as _;

pub use acks::REST;
pub use addresses::{
    ADDRESSES_MAX, AddressError, FIRST_LABEL, LABEL_MAX, MAILBOX_GATEWAYS_MAX, MOVES_MAX,
    OwnAddress, addresses_of, founding,
};
pub use alarm::{Stage, Watching};
pub use cover::LATE_MAX;
pub(crate) use cover::exponential;
pub use entry::{Entrance, HELD};
pub use identity::{IDENTITY_LEN, Identity};
pub use loops::{LOSS_PRIOR, PATIENCE};
pub use moving::Moving;
pub use outbox::BACKOFF_MAX;
pub use relocation::{RELOCATION_LEN, Relocation};
pub use restore::{RestoreError, backup};
pub use returns::RESERVE;
pub use types::{
    ClientDrop, ClientEvent, Concerns, Config, Delivery, Failure, Input, Limits, MessageId, Op,
    Output, Progress, Relocated, ReplyToken, Return, State, Target,
};

use crate::{
    Machine, NodeId, Time,
    address::Address,
    calendar::{Calendar, Epoch, Utc},
    directory::{Consensus, Profile},
    notice::Heard,
};

/// Time between two looks for what has expired.
const SWEEP: Duration = Duration::from_secs(60);

/// The state machine. Drive it as [`Machine`] describes.
pub struct Client {
    config: Config,
    secret: came::OwnSecret,
    addresses: addresses::Addresses,
    now: Time,
    rng: ChaCha20Rng,
    calendar: Option<Calendar>,
    consensus: Option<Arc<Consensus>>,
    /// The next document, until its first epoch starts.
    coming: Option<Arc<Consensus>>,
    /// The traffic profile, and its index in the consensus.
    profile: Option<(u8, Profile)>,
    entry: entry::Entry,
    payload: cover::Poisson,
    looping: cover::Poisson,
    sweep_at: Option<Time>,
    outbox: outbox::Outbox,
    probes: VecDeque<(MessageId, content::ReturnPart)>,
    inbox: inbox::Inbox,
    acks: acks::Acks,
    returns: returns::Returns,
    surbs: surbs::Surbs,
    loops: loops::Loops,
    alarms: alarm::Alarms,
    heard: Heard,
    mailbox: mailbox::Mailbox,
    contacts: contacts::Contacts,
    notices: moving::Notices,
    /// The home was not asked to be opened since it moved there.
    unopened: bool,
    journal: journal::Journal,
    out: VecDeque<Output>,
}

/// How much of everything a client holds, for status and for tests of its bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Messages on their way out, and bytes of their bodies.
    pub outgoing: (usize, usize),
    /// Those of them to a gateway that the document does not have.
    pub stranded: usize,
    /// Messages being put together.
    pub incoming: usize,
    /// Bytes of them, and of bodies not yet taken.
    pub incoming_bytes: usize,
    /// Acks that wait for a slot.
    pub acks: usize,
    /// Packets remembered.
    pub tags: usize,
    /// Finished messages remembered.
    pub finished: usize,
    /// Messages with a way back, and reply blocks of others among those.
    pub returns: (usize, usize),
    /// Secrets of own reply blocks.
    pub surbs: usize,
    /// Correspondents that know an address of the client's.
    pub contacts: usize,
    /// Loops under way.
    pub loops: usize,
    /// Frames read whose effects are not durable yet.
    pub unstored: usize,
}

impl Client {
    /// Seeds of the parts, which must not draw from one stream: what is sent may not move when.
    const PAYLOAD_STREAM: u64 = 1;
    const LOOP_STREAM: u64 = 2;
    const ALARM_STREAM: u64 = 3;
    const ENTRY_STREAM: u64 = 4;

    fn empty(config: Config, seed: [u8; 32]) -> Self {
        Self {
            config,
            secret: came::OwnSecret::from_bytes([0; 32]),
            addresses: addresses::Addresses::default(),
            now: Time::ZERO,
            rng: ChaCha20Rng::from_seed(seed),
            calendar: None,
            consensus: None,
            coming: None,
            profile: None,
            entry: entry::Entry::new(seed, Self::ENTRY_STREAM),
            payload: cover::Poisson::new(seed, Self::PAYLOAD_STREAM),
            looping: cover::Poisson::new(seed, Self::LOOP_STREAM),
            sweep_at: None,
            outbox: outbox::Outbox::default(),
            probes: VecDeque::new(),
            inbox: inbox::Inbox::default(),
            acks: acks::Acks::default(),
            returns: returns::Returns::default(),
            surbs: surbs::Surbs::default(),
            loops: loops::Loops::default(),
            alarms: alarm::Alarms::new(seed, Self::ALARM_STREAM),
            heard: Heard::default(),
            mailbox: mailbox::Mailbox::default(),
            contacts: contacts::Contacts::default(),
            notices: moving::Notices::default(),
            unopened: false,
            journal: journal::Journal::default(),
            out: VecDeque::new(),
        }
    }

    /// Where others reach this client: the oldest of its addresses.
    #[must_use]
    pub fn address(&self) -> Address {
        self.addresses.home().1.address()
    }

    /// The gateway to hold the entry link to, once there is a consensus.
    #[must_use]
    pub fn entry(&self) -> Option<NodeId> {
        self.entry.gateway()
    }

    /// How it stands with that gateway.
    #[must_use]
    pub fn entrance(&self) -> Entrance {
        self.entry.view()
    }

    /// The gateway where the client's addresses have their mailboxes.
    #[must_use]
    pub fn mailbox_gateway(&self) -> NodeId {
        self.addresses.home().1.gateway()
    }

    /// The gateways to hold a mailbox link to: that one, and those where mailboxes from before a move
    /// are still read (CLI-42).
    #[must_use]
    pub fn mailbox_gateways(&self) -> Vec<NodeId> {
        let all = self.addresses.gateways().into_iter();
        all.map(|(gateway, _)| gateway).collect()
    }

    /// The consensus in force.
    #[must_use]
    pub fn consensus(&self) -> Option<&Arc<Consensus>> {
        self.consensus.as_ref()
    }

    /// The traffic profile, and its index in the consensus.
    #[must_use]
    pub fn profile(&self) -> Option<(u8, &Profile)> {
        let (index, profile) = self.profile.as_ref()?;
        Some((*index, profile))
    }

    /// The epoch whose keys this client uses at `now`, for forward packets and reply blocks
    /// alike; none without calendar or consensus, or outside its epochs (CLI-5, CLI-12).
    #[must_use]
    pub fn epoch(&self, now: Time) -> Option<Epoch> {
        let utc = self.utc(now)?;
        let schedule = self.consensus.as_ref()?.schedule();
        let epoch = schedule.at(utc)?;
        // The same draw after a restart: a client that went back would use both epochs' keys.
        let seed = self.secret.seed(b"lacuna epoch switch v1", epoch.0);
        let uniform = cover::uniform(&mut ChaCha20Rng::from_seed(seed));
        let before = epoch > schedule.first && utc < schedule.switch(epoch, uniform);
        Some(if before { Epoch(epoch.0 - 1) } else { epoch })
    }

    /// UTC at `now`, once the calendar is known.
    #[must_use]
    pub fn utc(&self, now: Time) -> Option<Utc> {
        self.calendar.map(|calendar| calendar.utc(now))
    }

    /// How much of everything is held.
    #[must_use]
    pub fn held(&self) -> Held {
        let [incoming, incoming_bytes, tags, finished] = self.inbox.held();
        Held {
            outgoing: (self.outbox.len(), self.outbox.bytes()),
            stranded: self.outbox.stranded(),
            incoming,
            incoming_bytes,
            acks: self.acks.len(),
            tags,
            finished,
            returns: (self.returns.len(), self.returns.held()),
            surbs: self.surbs.len(),
            contacts: self.contacts.len(),
            loops: self.loops.under_way(),
            unstored: self.journal.unstored(),
        }
    }

    /// Loops sent, and returned, since the start.
    #[must_use]
    pub fn loops(&self) -> (u64, u64) {
        (self.loops.sent, self.loops.returned)
    }

    /// The path's loss, as first bursts are sized for: the 95 % upper bound of what loops
    /// measured, or the prior.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loops.loss()
    }

    /// How its loops are watched, and what came of it (LOOP-4).
    #[must_use]
    pub fn watching(&self) -> Watching {
        self.alarms.watching()
    }

    /// Whether both links are up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.entry.is_up() && self.mailbox.is_up(self.mailbox_gateway())
    }

    /// Whether frames from the link to this mailbox gateway are being refused until it is opened
    /// again: the driver should close and reopen it (CLI-15).
    #[must_use]
    pub fn is_deaf(&self, gateway: NodeId) -> bool {
        self.mailbox.is_up(gateway) && !self.mailbox.hears(gateway)
    }

    fn event(&mut self, event: ClientEvent) {
        self.out.push_back(Output::Event(event));
    }

    /// Takes a document, for now or for when its first epoch starts. One of an earlier period is
    /// old news.
    fn document(&mut self, document: Arc<Consensus>) {
        let period = self.consensus.as_ref().map(|current| current.period);
        if period.is_some_and(|period| document.period < period) {
            return;
        }
        let starts = document.schedule().valid_from;
        let early = self.utc(self.now).is_some_and(|utc| utc < starts);
        if early && period.is_some_and(|period| document.period > period) {
            self.coming = Some(document);
        } else {
            self.adopt(document);
        }
    }

    fn adopt(&mut self, document: Arc<Consensus>) {
        self.choose_entry(&document);
        let profile = document.profile(&self.config.profile);
        self.profile = profile.map(|(index, profile)| (index, profile.into_owned()));
        self.consensus = Some(document);
        self.strand();
        self.set_rates();
        self.tune();
    }

    /// Sends at the profile's rates; a node after an alarm loops faster (LOOP-5).
    fn set_rates(&mut self) {
        let rates = self.profile();
        let rates = rates.map(|(_, profile)| (profile.payload_uhz, profile.loops_uhz));
        let (payload, looping) = rates.unwrap_or_default();
        self.payload.set_rate(self.now, payload);
        self.looping
            .set_rate(self.now, looping * self.loops_raised());
    }

    /// When the next document takes over.
    fn adopts_at(&self) -> Option<Time> {
        let coming = self.coming.as_ref()?;
        Some(self.calendar?.time(coming.schedule().valid_from))
    }

    fn confirm_interval(&self) -> Option<Duration> {
        let (_, profile) = self.profile()?;
        Some(Duration::from_millis(profile.confirm_ms.into()))
    }

    /// Does what has fallen due by `now`.
    fn due(&mut self) {
        let now = self.now;
        if self.adopts_at().is_some_and(|at| at <= now)
            && let Some(document) = self.coming.take()
        {
            self.adopt(document);
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep_at = Some(now.after(SWEEP));
            self.sweep();
        }
        self.alarms_due();
        self.entry_due();
        match self.looping.take(now) {
            Some(cover::Tick::Due) => self.loop_slot(),
            Some(cover::Tick::Skipped) => self.event(ClientEvent::TickSkipped),
            None => {}
        }
        match self.payload.take(now) {
            Some(cover::Tick::Due) => self.payload_slot(),
            Some(cover::Tick::Skipped) => self.event(ClientEvent::TickSkipped),
            None => {}
        }
        if let Some(interval) = self.confirm_interval() {
            while let Some((gateway, tick)) = self.mailbox.take(now, interval) {
                match tick {
                    cover::Tick::Due => self.confirm(gateway),
                    cover::Tick::Skipped => self.event(ClientEvent::TickSkipped),
                }
            }
        }
        self.journal.flush(false, &mut self.out);
    }

    /// A confirmation tick (CLI-13). It is sent only in a valid epoch, like everything else.
    fn confirm(&mut self, gateway: NodeId) {
        self.journal.flush(true, &mut self.out);
        if self.epoch(self.now).is_some()
            && let Some(frame) =
                self.mailbox
                    .confirmation(gateway, &self.addresses, &self.config.network)
        {
            self.out.push_back(Output::Mailbox { gateway, frame });
            self.home_asked(gateway);
        }
    }

    /// Once a home that is new was asked to be opened, loops come to it: those from before came to a
    /// mailbox that was not there.
    fn home_asked(&mut self, gateway: NodeId) {
        let (slot, home) = self.addresses.home();
        if self.unopened && home.gateway() == gateway && self.mailbox.has_asked(gateway, slot) {
            self.unopened = false;
            self.loops.forget();
            self.home_hears();
        }
    }

    fn home_hears(&mut self) {
        self.home_up();
        self.alarms.warm_up(self.now);
    }

    /// Forgets what has expired, and asks again for acks that have no way back any more.
    fn sweep(&mut self) {
        let Some(utc) = self.utc(self.now) else {
            return;
        };
        let (now_s, epoch) = (utc.as_secs(), self.epoch(self.now));
        self.inbox.expire(now_s, &mut self.journal);
        self.surbs.expire(now_s, &mut self.journal);
        self.returns.expire(now_s, epoch, &mut self.journal);
        self.outbox.expire(now_s, &mut self.journal);
        self.entry.expire(now_s, &mut self.journal);
        self.close_former(now_s);
        if let Some(epoch) = epoch {
            self.fail_replies(epoch);
            self.ask(epoch);
        }
    }

    /// A transaction is durable: what waited for it happens.
    fn stored(&mut self, txn: u64) {
        use journal::Effect;
        for effect in self.journal.stored(txn) {
            match effect {
                Effect::Confirm { slot, seq } => self.mailbox.stored(slot, seq),
                Effect::Ack { message, block } => self.queue_ack(message, block),
                Effect::Send(id) => self.start(id),
                Effect::Probe(id, part) => self.probes.push_back((id, part)),
                Effect::Deliver(delivery) => self.out.push_back(Output::Deliver(delivery)),
                Effect::Progress(progress) => self.out.push_back(Output::Progress(progress)),
                Effect::Addressed { ticket, slot } => self.address_durable(ticket, slot),
                Effect::Moved { ticket } => self.move_durable(ticket),
                Effect::Relocated(news) => self.out.push_back(Output::Relocated(news)),
            }
        }
    }

    /// The link to a mailbox gateway is up, unless it is of no use any more.
    fn mailbox_up(&mut self, gateway: NodeId, exporter: [u8; 32]) {
        if !self.mailbox_gateways().contains(&gateway) {
            return;
        }
        let (now, addresses) = (self.now, &mut self.addresses);
        let rng = &mut self.rng;
        self.mailbox.up(now, gateway, exporter, addresses, rng);
        self.notices.link_up();
        self.entry.is_back(&gateway);
        if gateway == self.mailbox_gateway() && !self.unopened {
            self.home_hears();
        }
    }

    fn advance(&mut self, now: Time) {
        assert!(now >= self.now, "driver broke law 1: time went backwards");
        self.now = now;
    }
}

impl Machine for Client {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            Input::Consensus(document) => self.document(document),
            Input::Calendar(calendar) => {
                let known = self.calendar.replace(calendar).is_some();
                if let Some(document) = self.consensus.clone().filter(|_| !known) {
                    self.choose_entry(&document);
                }
                self.sweep_at.get_or_insert(now.after(SWEEP));
            }
            Input::EntryUp { gateway } => self.entry.up(now, gateway),
            Input::EntryDown { gateway } => {
                self.entry.down(now, gateway);
                self.entry_down();
            }
            Input::Full { entry, mailboxes } => {
                self.entry.fill(entry);
                self.mailbox.fill(mailboxes);
            }
            Input::MailboxUp { gateway, exporter } => self.mailbox_up(gateway, exporter),
            Input::MailboxDown { gateway } => {
                self.mailbox.down(gateway);
                if gateway == self.mailbox_gateway() {
                    self.home_down();
                }
            }
            Input::Frame { gateway, frame } => self.frame(gateway, &frame),
            Input::Send {
                ticket,
                to,
                body,
                reply,
            } => self.send(ticket, to, body, reply),
            Input::NewAddress { ticket, label } => self.new_address(ticket, label),
            Input::Revoke { ticket, label } => self.revoke(ticket, &label),
            Input::Move { ticket, to } => self.order_move(ticket, to),
            Input::Taken { message } => self.inbox.taken(message, &mut self.journal),
            Input::Stored { txn } => self.stored(txn),
        }
        // On every call, so that a flood of frames can't starve a tick.
        self.due();
    }

    fn wake(&mut self, now: Time) {
        self.advance(now);
        self.due();
    }

    fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn next_wake(&self) -> Option<Time> {
        let confirm = self.confirm_interval().and(self.mailbox.next());
        [
            self.payload.next(),
            self.looping.next(),
            confirm,
            self.sweep_at,
            self.adopts_at(),
            self.alarms.next(),
            self.entry.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl core::fmt::Debug for Client {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.held().fmt(f)
    }
}
