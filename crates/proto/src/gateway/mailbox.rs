//! The mailbox half of a gateway: opening, storing, reading ahead, sending, cursors.
//!
//! Spec: docs/spec/gateway.md, rules GW-5 to GW-16, GW-28, GW-29.
//!
//! | quantity    | type                | unit, range                                          |
//! |-------------|---------------------|------------------------------------------------------|
//! | slots       | map a link          | <= [`SLOTS_MAX`]                                     |
//! | held        | `u64` a mailbox     | packets stored or being stored, <= `quota`           |
//! | loaded      | queue a mailbox     | packets, <= `read_ahead`; empty unless open          |
//! | tick        | [`Time`] a link     | `first + n × period`, `first` drawn within a period  |
//!
//! A downstream frame goes out at each tick of its link and at no other time: what arrives, what
//! is loaded and what is confirmed never move a tick. A tick takes a notice, what lies in memory, or a
//! dummy, so the store's speed cannot show on a link.
//!
//! Invariants: a mailbox is open on at most one link; at most one peek of a mailbox is unanswered;
//! `confirmed <= sent`; what is loaded is numbered above `confirmed`, rising.
//!
//! Not done here: forgetting mailboxes, and telling mailboxes' owners anything but their packets.

use core::{
    num::NonZeroU64,
    ops::Bound::{Excluded, Unbounded},
    time::Duration,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    sync::Arc,
};

use chacha20::ChaCha20Rng;
use ed25519_dalek::{Signature, VerifyingKey};
use rand::RngExt;
use rand_core::SeedableRng;
use sphinx::Packet;

use super::{Change, GatewayDrop, GatewayEvent, Kept, Limits, Output};
use crate::{
    LinkId, MailboxId, NetworkId, Time,
    wire::{CURSORS_MAX, Confirmation, FIELD_LEN, Frame, Kind, Open, field_of, open_statement},
};

/// Most mailboxes open on one link: one confirmation has a cursor for each.
pub(super) const SLOTS_MAX: usize = CURSORS_MAX;

/// Most notices that wait for one link.
const NOTICES_MAX: usize = 8;
/// Least time between two notices that go before packets (LOOP-9).
const NOTICE_EVERY: Duration = Duration::from_secs(60);

/// What is under way between a mailbox and the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Peek {
    /// Nothing.
    #[default]
    Idle,
    /// A peek for so many packets.
    Asked(usize),
    /// A peek for a link that no longer has the mailbox: its answer counts for nothing.
    Stale,
}

#[derive(Default)]
struct Mailbox {
    held: u64,
    /// The link that has it open.
    on: Option<LinkId>,
    confirmed: u64,
    /// Highest number sent on any link since the gateway started.
    sent: u64,
    loaded: VecDeque<Kept>,
    /// Highest number loaded for the present link.
    loaded_upto: u64,
    /// Whether the store may hold packets after `loaded_upto`.
    more: bool,
    peek: Peek,
    /// How often it had been opened, at whichever gateway of this store, when it was last opened here.
    openings: u64,
    /// Openings here of which the store has not said that yet.
    unanswered: u64,
}

impl Mailbox {
    /// Starts over for `link`, or for none: from the last confirmation (GW-16).
    fn put_on(&mut self, link: Option<LinkId>) {
        self.on = link;
        self.loaded.clear();
        self.loaded_upto = self.confirmed;
        self.more = true;
        if self.peek != Peek::Idle {
            self.peek = Peek::Stale;
        }
    }

    /// Asks the store for more once the window is half empty: not for every packet (GW-11).
    fn refill(&mut self, mailbox: MailboxId, read_ahead: usize, out: &mut VecDeque<Output>) {
        let half_empty = self.loaded.len() * 2 <= read_ahead;
        if self.on.is_some() && self.more && self.peek == Peek::Idle && half_empty {
            let limit = read_ahead - self.loaded.len();
            self.peek = Peek::Asked(limit);
            self.more = false;
            out.push_back(Output::Peek {
                mailbox,
                after: self.loaded_upto,
                limit,
            });
        }
    }

    /// The client has stored everything up to `upto`; whether that is news (GW-15).
    fn confirm(&mut self, upto: u64) -> Result<bool, GatewayDrop> {
        if upto > self.sent {
            return Err(GatewayDrop::Cursor);
        }
        let news = upto > self.confirmed;
        if news {
            self.confirmed = upto;
            self.loaded_upto = self.loaded_upto.max(upto);
            let done = self.loaded.partition_point(|kept| kept.seq <= upto);
            self.loaded.drain(..done);
        }
        Ok(news)
    }
}

/// One mailbox link.
struct Session {
    exporter: [u8; 32],
    slots: BTreeMap<u16, MailboxId>,
    /// The slot served last.
    turn: u16,
    period: Option<NonZeroU64>,
    tick: Option<Time>,
    /// What nodes say of themselves, the newest last; <= [`NOTICES_MAX`].
    notices: VecDeque<Arc<Frame>>,
    /// From when on one goes before a packet.
    notice_at: Time,
}

/// All mailboxes and mailbox links of a gateway.
pub(super) struct Mailboxes {
    limits: Limits,
    network: NetworkId,
    rng: ChaCha20Rng,
    mailboxes: BTreeMap<MailboxId, Mailbox>,
    sessions: BTreeMap<LinkId, Session>,
    /// Each session's tick.
    agenda: BTreeSet<(Time, LinkId)>,
    expired_before_s: u64,
}

impl Mailboxes {
    pub(super) fn new(limits: Limits, network: NetworkId, seed: [u8; 32]) -> Self {
        Self {
            limits,
            network,
            rng: ChaCha20Rng::from_seed(seed),
            mailboxes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            agenda: BTreeSet::new(),
            expired_before_s: 0,
        }
    }

    /// Takes in what the store holds, as far as there is room (GW-8).
    pub(super) fn restore(&mut self, held: Vec<(MailboxId, u64)>, out: &mut VecDeque<Output>) {
        let mut unserved = 0;
        for (id, packets) in held {
            match self.known(id) {
                Some(mailbox) => mailbox.held = packets,
                None => unserved += 1,
            }
        }
        if unserved > 0 {
            let event = GatewayEvent::MailboxesUnserved(unserved);
            out.push_back(Output::Event(event));
        }
    }

    /// The mailbox `id`, made if there is room for it (GW-8).
    fn known(&mut self, id: MailboxId) -> Option<&mut Mailbox> {
        let room = self.mailboxes.len() < self.limits.mailboxes_max;
        match self.mailboxes.entry(id) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(new) => room.then(|| new.insert(Mailbox::default())),
        }
    }

    /// The store counted an opening of `id` (GW-28).
    pub(super) fn opened(&mut self, id: MailboxId, openings: u64) {
        if let Some(mailbox) = self.mailboxes.get_mut(&id) {
            mailbox.unanswered = mailbox.unanswered.saturating_sub(1);
            mailbox.openings = openings;
        }
    }

    /// Mailboxes were changed in the store, here or at another gateway (GW-28, GW-29).
    pub(super) fn changed(&mut self, changes: Vec<Change>, out: &mut VecDeque<Output>) {
        for change in changes {
            let (id, read_ahead) = (change.mailbox, self.limits.read_ahead);
            let Some(mailbox) = self.known(id) else {
                continue; // GW-8
            };
            mailbox.held = change.packets;
            // While an opening here is not counted yet, it may be the newer.
            let elsewhere = mailbox.unanswered == 0 && change.openings > mailbox.openings;
            if let Some(loser) = mailbox.on.filter(|_| elsewhere) {
                mailbox.put_on(None);
                self.displace(loser, id, out);
                continue;
            }
            mailbox.more |= change.highest > mailbox.loaded_upto;
            mailbox.refill(id, read_ahead, out);
        }
    }

    /// Takes `id` from a link that has it open; it is told nothing (GW-7).
    fn displace(&mut self, loser: LinkId, id: MailboxId, out: &mut VecDeque<Output>) {
        if let Some(loser) = self.sessions.get_mut(&loser) {
            loser.slots.retain(|_, mailbox| *mailbox != id);
            out.push_back(Output::Event(GatewayEvent::Displaced));
        }
    }

    /// A mailbox link is up. Its first tick falls uniformly within one period (GW-12).
    pub(super) fn link(
        &mut self,
        now: Time,
        link: LinkId,
        exporter: [u8; 32],
        period: Option<NonZeroU64>,
    ) {
        let session = Session {
            exporter,
            slots: BTreeMap::new(),
            turn: u16::MAX,
            period: None,
            tick: None,
            notices: VecDeque::new(),
            notice_at: Time::ZERO,
        };
        self.sessions.insert(link, session);
        self.pace(now, link, period);
    }

    /// Ticks `link` with `period` from its next tick on.
    pub(super) fn pace(&mut self, now: Time, link: LinkId, period: Option<NonZeroU64>) {
        let Some(session) = self.sessions.get_mut(&link) else {
            return;
        };
        session.period = period;
        let tick = period.map(|period| {
            session.tick.unwrap_or_else(|| {
                let phase = self.rng.random_range(1..=period.get());
                now.after(Duration::from_nanos(phase))
            })
        });
        self.set_tick(link, tick);
    }

    fn set_tick(&mut self, link: LinkId, tick: Option<Time>) {
        let Some(session) = self.sessions.get_mut(&link) else {
            return;
        };
        if let Some(old) = core::mem::replace(&mut session.tick, tick) {
            self.agenda.remove(&(old, link));
        }
        self.agenda.extend(tick.map(|tick| (tick, link)));
    }

    /// A mailbox link is gone.
    pub(super) fn unlink(&mut self, link: LinkId) {
        self.close(link);
        self.set_tick(link, None);
        self.sessions.remove(&link);
    }

    /// Closes every mailbox; the links go on with dummies.
    pub(super) fn close_all(&mut self) {
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        links.into_iter().for_each(|link| self.close(link));
    }

    fn close(&mut self, link: LinkId) {
        let slots = self
            .sessions
            .get_mut(&link)
            .map(|session| &mut session.slots);
        for id in slots.map(core::mem::take).unwrap_or_default().values() {
            if let Some(mailbox) = self.mailboxes.get_mut(id) {
                mailbox.put_on(None);
            }
        }
    }

    /// A confirmation came on a mailbox link: first what it opens, then its cursors.
    pub(super) fn confirm(&mut self, link: LinkId, frame: &Frame, out: &mut VecDeque<Output>) {
        let Some(confirmation) = Confirmation::parse(frame) else {
            out.push_back(Output::Dropped(GatewayDrop::Malformed));
            return;
        };
        for open in &confirmation.opens {
            if let Err(why) = self.open(link, open, out) {
                out.push_back(Output::Dropped(why));
                if why == GatewayDrop::BadOpen {
                    break; // GW-5: one frame costs one signature that does not hold
                }
            }
        }
        for (slot, upto) in confirmation.cursors {
            match self.cursor(link, slot, upto) {
                Ok(Some(mailbox)) => out.push_back(Output::Confirm { mailbox, upto }),
                Ok(None) => {}
                Err(why) => out.push_back(Output::Dropped(why)),
            }
        }
        let slots = self.sessions.get(&link).map(|session| &session.slots);
        for id in slots.into_iter().flat_map(BTreeMap::values) {
            if let Some(mailbox) = self.mailboxes.get_mut(id) {
                mailbox.refill(*id, self.limits.read_ahead, out);
            }
        }
    }

    fn open(
        &mut self,
        link: LinkId,
        open: &Open,
        out: &mut VecDeque<Output>,
    ) -> Result<(), GatewayDrop> {
        let id = MailboxId::of(&open.key);
        let session = self.sessions.get(&link).ok_or(GatewayDrop::NoLink)?;
        if session.slots.get(&open.slot) == Some(&id) {
            return Ok(()); // Said twice: no reason to send anything twice (GW-6, GW-16).
        }
        let on = self.mailboxes.get(&id).and_then(|mailbox| mailbox.on);
        let taken = session.slots.contains_key(&open.slot) || on == Some(link);
        if taken || session.slots.len() >= SLOTS_MAX {
            return Err(GatewayDrop::SlotTaken); // GW-6
        }
        // GW-5: the exporter ties the signature to this link.
        let statement = open_statement(&self.network, &id, &session.exporter);
        VerifyingKey::from_bytes(&open.key)
            .and_then(|key| key.verify_strict(&statement, &Signature::from_bytes(&open.signature)))
            .map_err(|_| GatewayDrop::BadOpen)?;
        if !self.mailboxes.contains_key(&id) {
            if self.mailboxes.len() >= self.limits.mailboxes_max {
                return Err(GatewayDrop::MailboxesFull); // GW-8
            }
            out.push_back(Output::Register { mailbox: id }); // GW-8
        }
        if let Some(loser) = on {
            self.displace(loser, id, out); // GW-7
        }
        let mailbox = self.mailboxes.entry(id).or_default();
        mailbox.put_on(Some(link));
        mailbox.unanswered = mailbox.unanswered.saturating_add(1);
        out.push_back(Output::Open { mailbox: id }); // GW-28
        if let Some(session) = self.sessions.get_mut(&link) {
            session.slots.insert(open.slot, id);
        }
        out.push_back(Output::Event(GatewayEvent::Opened));
        Ok(())
    }

    fn cursor(
        &mut self,
        link: LinkId,
        slot: u16,
        upto: u64,
    ) -> Result<Option<MailboxId>, GatewayDrop> {
        let session = self.sessions.get(&link).ok_or(GatewayDrop::NoLink)?;
        let id = session.slots.get(&slot).ok_or(GatewayDrop::Cursor)?;
        let mailbox = self.mailboxes.get_mut(id).ok_or(GatewayDrop::Cursor)?;
        Ok(mailbox.confirm(upto)?.then_some(*id))
    }

    /// A packet came for `id`: what the store is to do.
    pub(super) fn accept(
        &mut self,
        id: MailboxId,
        stored_at_s: u64,
        packet: Box<Packet>,
    ) -> Result<Output, GatewayDrop> {
        let mailbox = self.mailboxes.get_mut(&id).ok_or(GatewayDrop::NoMailbox)?; // GW-9
        if mailbox.held >= self.limits.quota {
            return Err(GatewayDrop::Quota); // GW-10
        }
        mailbox.held += 1;
        Ok(Output::Store {
            mailbox: id,
            stored_at_s,
            packet,
        })
    }

    /// A packet of `id` is durable.
    pub(super) fn stored(&mut self, id: MailboxId, seq: u64, out: &mut VecDeque<Output>) {
        if let Some(mailbox) = self.mailboxes.get_mut(&id) {
            mailbox.more |= seq > mailbox.loaded_upto;
            mailbox.refill(id, self.limits.read_ahead, out);
        }
    }

    /// The store holds so many packets of `id` fewer than was counted.
    pub(super) fn removed(&mut self, id: MailboxId, packets: u64) {
        if let Some(mailbox) = self.mailboxes.get_mut(&id) {
            mailbox.held = mailbox.held.saturating_sub(packets);
        }
    }

    /// The store answered a peek (GW-11).
    pub(super) fn peeked(&mut self, id: MailboxId, packets: Vec<Kept>, out: &mut VecDeque<Output>) {
        let Some(mailbox) = self.mailboxes.get_mut(&id) else {
            return;
        };
        if let Peek::Asked(limit) = core::mem::take(&mut mailbox.peek) {
            mailbox.more |= packets.len() >= limit;
            for kept in packets.into_iter().take(limit) {
                if kept.seq > mailbox.loaded_upto {
                    mailbox.loaded_upto = kept.seq;
                    let fresh = kept.stored_at_s >= self.expired_before_s; // GW-14
                    mailbox.loaded.extend(fresh.then_some(kept));
                }
            }
        }
        mailbox.refill(id, self.limits.read_ahead, out);
    }

    /// Forgets what was loaded and is too old (GW-14).
    pub(super) fn expire(&mut self, before_s: u64, out: &mut VecDeque<Output>) {
        self.expired_before_s = self.expired_before_s.max(before_s);
        for (id, mailbox) in &mut self.mailboxes {
            mailbox.loaded.retain(|kept| kept.stored_at_s >= before_s);
            mailbox.refill(*id, self.limits.read_ahead, out);
        }
    }

    /// When a frame is due next.
    pub(super) fn next_tick(&self) -> Option<Time> {
        self.agenda.first().map(|(tick, _)| *tick)
    }

    /// One frame for each link whose tick has come; `live` says whether it may be a packet.
    ///
    /// Ticks stay on the grid of the first: whatever the gateway's own lateness, the rate is the
    /// profile's. Of several overdue ticks the last one counts and the others are skipped, so any
    /// time `t` sees at most ⌈`t` / period⌉ + 1 frames (GW-12).
    pub(super) fn tick(&mut self, now: Time, live: bool, out: &mut VecDeque<Output>) {
        while let Some((tick, link)) = self.agenda.first().copied().filter(|next| next.0 <= now) {
            let Some(period) = self.sessions.get(&link).and_then(|session| session.period) else {
                self.set_tick(link, None);
                continue;
            };
            let late = now.as_nanos() - tick.as_nanos();
            let skipped = late / period;
            let since_grid = Duration::from_nanos(late % period);
            let left = Duration::from_nanos(period.get()) - since_grid;
            self.set_tick(link, Some(now.after(left)).filter(|next| *next > now));
            let frame = live.then(|| self.next_frame(now, link, out)).flatten();
            let frame = frame.unwrap_or_else(|| Frame::new(Kind::Dummy, 0, [0; FIELD_LEN]));
            out.push_back(Output::Frame { link, frame });
            if skipped > 0 {
                out.push_back(Output::Event(GatewayEvent::TicksSkipped(skipped)));
            }
        }
    }

    /// The next packet for `link`, from its mailboxes in turn (GW-13).
    fn serve(&mut self, link: LinkId, out: &mut VecDeque<Output>) -> Option<Frame> {
        let session = self.sessions.get_mut(&link)?;
        let after = session.slots.range((Excluded(session.turn), Unbounded));
        let mut in_turn = after.chain(session.slots.range(..=session.turn));
        let (slot, kept) = in_turn.find_map(|(slot, id)| {
            let mailbox = self.mailboxes.get_mut(id)?;
            let kept = mailbox.loaded.pop_front()?;
            mailbox.sent = mailbox.sent.max(kept.seq);
            mailbox.refill(*id, self.limits.read_ahead, out);
            Some((*slot, kept))
        })?;
        session.turn = slot;
        let field = field_of(kept.seq, kept.stored_at_s);
        Some(Frame::packet(slot, field, &kept.packet))
    }

    /// A packet, or the newest notice: in place of a dummy, and once in a while in that of a packet, which
    /// then waits for the next tick: else a backlog would keep a client from hearing any (LOOP-9).
    fn next_frame(&mut self, now: Time, link: LinkId, out: &mut VecDeque<Output>) -> Option<Frame> {
        let session = self.sessions.get(&link)?;
        let served = if session.notice_at <= now && !session.notices.is_empty() {
            None
        } else {
            self.serve(link, out)
        };
        served.or_else(|| {
            let session = self.sessions.get_mut(&link)?;
            let notice = session.notices.pop_back()?;
            session.notice_at = now.after(NOTICE_EVERY);
            Some(Frame::clone(&notice))
        })
    }

    /// Keeps a notice for every link that is up; a later one is worth more than the oldest.
    pub(super) fn notice(&mut self, frame: Frame) {
        let frame = Arc::new(frame);
        for session in self.sessions.values_mut() {
            if session.notices.len() >= NOTICES_MAX {
                session.notices.pop_front();
            }
            session.notices.push_back(Arc::clone(&frame));
        }
    }

    /// Mailboxes registered here.
    pub(super) fn len(&self) -> usize {
        self.mailboxes.len()
    }

    /// Packets held in memory.
    pub(super) fn loaded(&self) -> usize {
        let loaded = self.mailboxes.values().map(|mailbox| mailbox.loaded.len());
        loaded.sum()
    }
}
