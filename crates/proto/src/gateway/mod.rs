//! A gateway: the entry of some clients, the mailboxes of others.
//!
//! Spec: docs/spec/gateway.md, rules GW-1 to GW-19, GW-28, GW-29, GW-32.
//!
//! | part        | what                                                                     |
//! |-------------|--------------------------------------------------------------------------|
//! | [`Gateway`] | this file: links, expiry, when everything stops                           |
//! | `io`        | inputs and outputs                                                        |
//! | `relay`     | entry links: who may come first, and how fast a client may send           |
//! | `mailbox`   | mailboxes: opening, storing, reading ahead, downstream ticks, cursors      |
//! | `numbers`   | which numbers a store gives                                               |
//!
//! | quantity    | type            | unit, range                                             |
//! |-------------|-----------------|---------------------------------------------------------|
//! | sequence    | `u64`           | given by the store, >= 1, rising within a mailbox       |
//! | stored at   | `u64`           | UTC seconds                                             |
//! | rates       | microhertz      | from the profiles of the consensus                      |
//! | links       | map             | <= [`Limits::links_max`]                                |
//! | mailboxes   | map             | <= [`Limits::mailboxes_max`]                            |
//! | read ahead  | queue a mailbox | packets, <= [`Limits::read_ahead`]                      |
//!
//! The gateway sees packets already peeled: it holds no key and does no cryptography but one
//! Ed25519 verification when a mailbox is opened. What is stored is still wrapped for the
//! recipient, so nothing here tells message, reply, ack and loop apart.

mod io;
mod mailbox;
mod numbers;
mod relay;

use core::time::Duration;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

pub use self::{
    io::{Change, GatewayDrop, GatewayEvent, Input, Kept, Output},
    numbers::Numbers,
};
use self::{
    mailbox::Mailboxes,
    relay::{Bucket, Topology, downstream_gap},
};
use crate::{
    LinkId, Machine, MailboxId, NetworkId, NodeId, Time,
    calendar::Calendar,
    calendar::Utc,
    directory::Consensus,
    peel::Peeled,
    wire::Kind,
    wire::{Frame, Purpose},
};

/// The limits of one gateway, from its own settings (GW-19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most mailboxes registered here.
    pub mailboxes_max: usize,
    /// Most client links at once.
    pub links_max: usize,
    /// Most packets of one open mailbox held in memory; at least 1.
    pub read_ahead: usize,
    /// Most packets stored for one mailbox.
    pub quota: u64,
}

/// Time between two [`Output::Expire`].
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);

/// A client's link.
struct Link {
    purpose: Purpose,
    /// Name of its profile: indices may change with the consensus.
    profile: String,
    bucket: Bucket,
}

/// The state machine. Drive it as [`Machine`] describes.
pub struct Gateway {
    limits: Limits,
    now: Time,
    topology: Option<Topology>,
    calendar: Option<Calendar>,
    failed: bool,
    links: BTreeMap<LinkId, Link>,
    mailboxes: Mailboxes,
    expire_at: Time,
    out: VecDeque<Output>,
}

impl Gateway {
    /// A gateway without consensus, links or mailboxes. `seed` draws the ticks' phases.
    ///
    /// # Panics
    ///
    /// If [`Limits::read_ahead`] is zero: nothing could ever be sent.
    #[must_use]
    pub fn new(limits: Limits, network: NetworkId, seed: [u8; 32]) -> Self {
        assert!(limits.read_ahead > 0, "a gateway must read ahead");
        Self {
            limits,
            now: Time::ZERO,
            topology: None,
            calendar: None,
            failed: false,
            links: BTreeMap::new(),
            mailboxes: Mailboxes::new(limits, network, seed),
            expire_at: Time::ZERO,
            out: VecDeque::new(),
        }
    }

    /// Client links that are up.
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Mailboxes registered here.
    #[must_use]
    pub fn mailboxes(&self) -> usize {
        self.mailboxes.len()
    }

    /// Packets held in memory.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.mailboxes.loaded()
    }

    /// UTC, while there is an epoch and the store works; else everything stops (GW-17, GW-18).
    fn live(&self) -> Option<Utc> {
        let utc = self.calendar?.utc(self.now);
        let open = self.topology.as_ref()?.in_epoch(utc) && !self.failed;
        open.then_some(utc)
    }

    fn advance(&mut self, now: Time) {
        assert!(now >= self.now, "driver broke law 1: time went backwards");
        self.now = now;
    }

    /// Does what is due. On every call, so that a flood of inputs cannot starve a tick.
    fn due(&mut self) {
        let live = self.live();
        if self.expires_at().is_some_and(|at| at <= self.now) {
            self.expire_at = self.now.after(EXPIRE_EVERY);
            // Not outside of all epochs: a clock gone wrong must not empty the mailboxes (GW-14).
            if let (Some(utc), Some(topology)) = (live, &self.topology) {
                let kept_s = topology.current().params.expiry_s.into();
                let before_s = utc.as_secs().saturating_sub(kept_s);
                self.out.push_back(Output::Expire { before_s });
                self.mailboxes.expire(before_s, &mut self.out);
            }
        }
        self.mailboxes.tick(self.now, live.is_some(), &mut self.out);
    }

    fn expires_at(&self) -> Option<Time> {
        let known = self.topology.is_some() && self.calendar.is_some();
        known.then_some(self.expire_at)
    }

    fn renew(&mut self, consensus: Arc<Consensus>) {
        match &mut self.topology {
            Some(topology) => topology.renew(consensus),
            None => self.topology = Some(Topology::new(consensus)),
        }
        let Some(topology) = &self.topology else {
            return;
        };
        let current = topology.current();
        let mut gone = Vec::new();
        for (id, link) in &mut self.links {
            if let Some((_, profile)) = current.profile(&link.profile) {
                link.bucket.pace(link.purpose, &profile);
                self.mailboxes.pace(self.now, *id, downstream_gap(&profile));
            } else {
                gone.push(*id);
            }
        }
        for link in gone {
            self.refuse(link); // GW-4
        }
    }

    fn refuse(&mut self, link: LinkId) {
        self.unlink(link);
        self.out.push_back(Output::Close { link });
        self.out.push_back(Output::Event(GatewayEvent::LinkRefused));
    }

    fn link(&mut self, link: LinkId, purpose: Purpose, profile: u8, exporter: [u8; 32]) {
        self.unlink(link);
        let client = matches!(purpose, Purpose::Entry | Purpose::Mailbox);
        let room = self.links.len() < self.limits.links_max;
        let known = self.topology.as_ref().and_then(|topology| {
            let known = topology.current().profile_at(profile)?;
            Some(known.into_owned())
        });
        let Some(profile) = known.filter(|_| client && room && !self.failed) else {
            return self.refuse(link); // GW-4
        };
        if purpose == Purpose::Mailbox {
            let period = downstream_gap(&profile);
            self.mailboxes.link(self.now, link, exporter, period);
        }
        let state = Link {
            purpose,
            bucket: Bucket::new(purpose, &profile),
            profile: profile.name,
        };
        self.links.insert(link, state);
    }

    fn unlink(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.mailboxes.unlink(link);
    }

    /// A frame from a client: a packet to relay, or a confirmation.
    fn frame(&mut self, id: LinkId, frame: &Frame) -> Result<(), GatewayDrop> {
        let link = self.links.get_mut(&id).ok_or(GatewayDrop::NoLink)?;
        let carried = if link.purpose == Purpose::Entry {
            Kind::Packet
        } else {
            Kind::Confirm
        };
        if frame.kind() != Some(carried) {
            return Err(GatewayDrop::Kind); // GW-1
        }
        if !link.bucket.take(self.now) {
            return Err(GatewayDrop::Rate); // GW-3
        }
        if carried == Kind::Confirm {
            if self.failed {
                return Err(GatewayDrop::Closed); // GW-18
            }
            self.mailboxes.confirm(id, frame, &mut self.out);
            return Ok(());
        }
        let utc = self.live().ok_or(GatewayDrop::Closed)?; // GW-17
        let to = NodeId(frame.field());
        let topology = self.topology.as_ref().ok_or(GatewayDrop::Closed)?;
        if !topology.is_first(&to, utc) {
            return Err(GatewayDrop::WrongFirst); // GW-2
        }
        let packet = frame.to_packet();
        self.out.push_back(Output::Relay { to, packet });
        Ok(())
    }

    /// A packet that came from the last layer.
    fn peeled(&mut self, peeled: Peeled) -> Result<(), GatewayDrop> {
        let utc = self.live().ok_or(GatewayDrop::Closed)?; // GW-17
        if !peeled.delay.is_zero() {
            return Err(GatewayDrop::DelayNotZero); // GW-9
        }
        let mailbox = MailboxId(peeled.next);
        let store = self
            .mailboxes
            .accept(mailbox, utc.as_secs(), peeled.packet)?;
        self.out.push_back(store);
        Ok(())
    }

    /// The store failed: no mailbox is open any more, and none will be (GW-18).
    fn fail(&mut self) {
        if !self.failed {
            self.failed = true;
            self.mailboxes.close_all();
            self.out.push_back(Output::Event(GatewayEvent::StoreFailed));
        }
    }

    fn count(&mut self, taken: Result<(), GatewayDrop>) {
        self.out.extend(taken.err().map(Output::Dropped));
    }
}

impl Machine for Gateway {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            Input::Consensus(consensus) => self.renew(consensus),
            Input::Calendar(calendar) => self.calendar = Some(calendar),
            Input::Linked {
                link,
                purpose,
                profile,
                exporter,
            } => self.link(link, purpose, profile, exporter),
            Input::Unlinked { link } => self.unlink(link),
            Input::Frame { link, frame } => {
                let taken = self.frame(link, &frame);
                self.count(taken);
            }
            Input::Peeled(peeled) => {
                let taken = self.peeled(peeled);
                self.count(taken);
            }
            Input::Registered(held) => self.mailboxes.restore(held, &mut self.out),
            Input::Stored { mailbox, seq } => self.mailboxes.stored(mailbox, seq, &mut self.out),
            Input::Refused { mailbox } => {
                self.mailboxes.removed(mailbox, 1);
                self.count(Err(GatewayDrop::StoreRefused)); // GW-10
            }
            Input::Peeked { mailbox, packets } => {
                self.mailboxes.peeked(mailbox, packets, &mut self.out);
            }
            Input::Removed { mailbox, packets } => self.mailboxes.removed(mailbox, packets),
            Input::Opened { mailbox, openings } => self.mailboxes.opened(mailbox, openings),
            Input::Changed(changes) => self.mailboxes.changed(changes, &mut self.out),
            Input::StoreFailed => self.fail(),
            Input::Notice(frame) => self.mailboxes.notice(frame),
        }
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
        let expires_at = self.expires_at();
        self.mailboxes
            .next_tick()
            .into_iter()
            .chain(expires_at)
            .min()
    }
}

impl core::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (links, mailboxes) = (self.links(), self.mailboxes());
        write!(f, "Gateway({links} links, {mailboxes} mailboxes)")
    }
}
