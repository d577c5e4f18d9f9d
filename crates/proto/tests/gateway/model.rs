//! The gateway as lists and counters: says of each call what must come out.
//!
//! It cannot know the phase of a link's ticks, which the machine draws; its user finds that out
//! once for each link and tells it. Everything else it says by itself.

use std::{collections::BTreeMap, sync::Arc};

use ed25519_dalek::{Signature, VerifyingKey};
use proto::{
    LinkId, MailboxId, NodeId, Time,
    calendar::Calendar,
    directory::{Consensus, Profile},
    gateway::{Change, GatewayDrop, GatewayEvent, Input, Kept, Limits, Output},
    wire::{Confirmation, FIELD_LEN, Frame, Kind, Open, Purpose, field_of, open_statement},
};

use super::fixture::{DAY_S, NETWORK};

const BURST: u64 = 64;
const SLOTS_MAX: usize = 64;
const NOTICES_MAX: usize = 8;
const NOTICE_EVERY_NS: u64 = 60_000_000_000;
const HOUR_NS: u64 = 3_600_000_000_000;

struct Link {
    purpose: Purpose,
    exporter: [u8; 32],
    profile: Profile,
    /// Nanoseconds until its bucket is full, at `owed_at`.
    owed: u64,
    owed_at: Time,
    slots: BTreeMap<u16, MailboxId>,
    served: Option<u16>,
    due: Option<u64>,
    notices: Vec<Frame>,
    /// When the last notice went.
    noticed: Option<u64>,
}

impl Link {
    fn upstream_gap(&self) -> Option<u64> {
        if self.purpose == Purpose::Mailbox {
            return Some((u64::from(self.profile.confirm_ms) * 800_000).max(1));
        }
        let rate = self.profile.upstream_uhz();
        (rate > 0).then(|| 4_000_000_000_000_000 / (5 * rate))
    }

    fn period(&self) -> Option<u64> {
        let rate = self.profile.downstream_uhz;
        (self.purpose == Purpose::Mailbox && rate > 0).then(|| 1_000_000_000_000_000 / rate)
    }

    fn takes(&mut self, now: Time) -> bool {
        let waited = now.as_nanos() - self.owed_at.as_nanos();
        (self.owed, self.owed_at) = (self.owed.saturating_sub(waited), now);
        let Some(gap) = self.upstream_gap() else {
            return false;
        };
        let takes = self.owed + gap <= BURST * gap;
        self.owed += if takes { gap } else { 0 };
        takes
    }
}

#[derive(Default)]
struct Mailbox {
    held: u64,
    on: Option<LinkId>,
    confirmed: u64,
    sent: u64,
    window: Vec<Kept>,
    upto: u64,
    more: bool,
    asked: Option<usize>,
    stale: bool,
    openings: u64,
    uncounted: u64,
}

impl Mailbox {
    fn reset(&mut self, on: Option<LinkId>) {
        self.on = on;
        self.window.clear();
        (self.upto, self.more) = (self.confirmed, true);
        self.stale |= self.asked.is_some();
    }
}

pub(crate) struct Model {
    limits: Limits,
    now: Time,
    documents: Vec<Arc<Consensus>>,
    calendar: Option<Calendar>,
    failed: bool,
    links: BTreeMap<LinkId, Link>,
    boxes: BTreeMap<MailboxId, Mailbox>,
    expiry_due: u64,
    expired_before_s: u64,
    out: Vec<Output>,
}

impl Model {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            now: Time::ZERO,
            documents: Vec::new(),
            calendar: None,
            failed: false,
            links: BTreeMap::new(),
            boxes: BTreeMap::new(),
            expiry_due: 0,
            expired_before_s: 0,
            out: Vec::new(),
        }
    }

    /// Links that tick, but from when on is not known yet; and their periods.
    pub(crate) fn unknown_phases(&self) -> Vec<(LinkId, u64)> {
        let unknown = self.links.iter().filter(|(_, link)| link.due.is_none());
        unknown
            .filter_map(|(id, link)| Some((*id, link.period()?)))
            .collect()
    }

    pub(crate) fn set_phase(&mut self, link: LinkId, due: Time) {
        self.links.get_mut(&link).unwrap().due = Some(due.as_nanos());
    }

    pub(crate) fn next_wake(&self) -> Option<Time> {
        let knows = !self.documents.is_empty() && self.calendar.is_some();
        let expiry = knows.then_some(self.expiry_due);
        let ticks = self.links.values().filter_map(|link| link.due);
        ticks.chain(expiry).min().map(Time::from_nanos)
    }

    pub(crate) fn call(&mut self, now: Time, input: Option<Input>) -> Vec<Output> {
        self.now = now;
        if let Some(input) = input {
            self.input(input);
        }
        self.expire();
        self.tick();
        core::mem::take(&mut self.out)
    }

    fn drop(&mut self, why: GatewayDrop) {
        self.out.push(Output::Dropped(why));
    }

    fn event(&mut self, what: GatewayEvent) {
        self.out.push(Output::Event(what));
    }

    /// The documents in force at `utc_ns`: the newest, and up to the edge the one before.
    fn in_force(&self, utc_ns: u64) -> Vec<&Arc<Consensus>> {
        let Some(newest) = self.documents.last() else {
            return Vec::new();
        };
        let edge_s = newest.valid_from_s + DAY_S / 4 + 300;
        let before = self.documents.iter().rev().nth(1);
        let before = before.filter(|_| utc_ns < edge_s * 1_000_000_000);
        [newest].into_iter().chain(before).collect()
    }

    /// UTC in nanoseconds, while everything works.
    fn live(&self) -> Option<u64> {
        let utc_ns = self.calendar?.utc(self.now).0;
        let utc_s = utc_ns / 1_000_000_000;
        let covers =
            |c: &&Arc<Consensus>| (c.valid_from_s..c.valid_from_s + 4 * DAY_S).contains(&utc_s);
        let any = self.in_force(utc_ns).iter().any(covers);
        (any && !self.failed).then_some(utc_ns)
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Consensus(document) => self.document(document),
            Input::Calendar(calendar) => self.calendar = Some(calendar),
            Input::Registered(held) => {
                let mut over = 0;
                for (id, packets) in held {
                    if self.boxes.contains_key(&id) || self.boxes.len() < self.limits.mailboxes_max
                    {
                        self.boxes.entry(id).or_default().held = packets;
                    } else {
                        over += 1;
                    }
                }
                if over > 0 {
                    self.event(GatewayEvent::MailboxesUnserved(over));
                }
            }
            Input::Linked {
                link,
                purpose,
                profile,
                exporter,
            } => {
                let newest = self.documents.last();
                let profile = newest.and_then(|document| document.profile_at(profile));
                match profile.map(|profile| profile.into_owned()) {
                    Some(profile)
                        if self.links.len() < self.limits.links_max
                            && !self.failed
                            && [Purpose::Entry, Purpose::Mailbox].contains(&purpose) =>
                    {
                        let state = Link {
                            purpose,
                            exporter,
                            profile,
                            owed: 0,
                            owed_at: self.now,
                            slots: BTreeMap::new(),
                            served: None,
                            due: None,
                            notices: Vec::new(),
                            noticed: None,
                        };
                        self.links.insert(link, state);
                    }
                    _ => self.refuse(link),
                }
            }
            Input::Unlinked { link } => self.unlink(link),
            Input::Frame { link, frame } => self.frame(link, &frame),
            Input::Peeled(peeled) => {
                let live = self.live();
                let quota = self.limits.quota;
                let id = MailboxId(peeled.next);
                match (live, self.boxes.get_mut(&id)) {
                    (None, _) => self.drop(GatewayDrop::Closed),
                    _ if !peeled.delay.is_zero() => self.drop(GatewayDrop::DelayNotZero),
                    (_, None) => self.drop(GatewayDrop::NoMailbox),
                    (_, Some(mailbox)) if mailbox.held >= quota => self.drop(GatewayDrop::Quota),
                    (Some(utc_ns), Some(mailbox)) => {
                        mailbox.held += 1;
                        self.out.push(Output::Store {
                            mailbox: id,
                            stored_at_s: utc_ns / 1_000_000_000,
                            packet: peeled.packet,
                        });
                    }
                }
            }
            Input::Stored { mailbox, seq } => {
                if let Some(state) = self.boxes.get_mut(&mailbox) {
                    state.more |= seq > state.upto;
                }
                self.refill(mailbox);
            }
            Input::Refused { mailbox } => {
                if let Some(state) = self.boxes.get_mut(&mailbox) {
                    state.held = state.held.saturating_sub(1);
                }
                self.drop(GatewayDrop::StoreRefused);
            }
            Input::Peeked { mailbox, packets } => {
                if let Some(state) = self.boxes.get_mut(&mailbox) {
                    let stale = core::mem::take(&mut state.stale);
                    match state.asked.take() {
                        Some(limit) if !stale => {
                            state.more |= packets.len() >= limit;
                            for kept in packets.into_iter().take(limit) {
                                if kept.seq > state.upto {
                                    state.upto = kept.seq;
                                    if kept.stored_at_s >= self.expired_before_s {
                                        state.window.push(kept);
                                    }
                                }
                            }
                        }
                        _ => {}
                    }
                }
                self.refill(mailbox);
            }
            Input::Removed { mailbox, packets } => {
                if let Some(state) = self.boxes.get_mut(&mailbox) {
                    state.held = state.held.saturating_sub(packets);
                }
            }
            Input::Opened { mailbox, openings } => {
                if let Some(state) = self.boxes.get_mut(&mailbox) {
                    state.uncounted = state.uncounted.saturating_sub(1);
                    state.openings = openings;
                }
            }
            Input::Changed(changes) => changes.into_iter().for_each(|change| self.changed(change)),
            Input::Notice(frame) => {
                let links = self.links.values_mut();
                for link in links.filter(|link| link.purpose == Purpose::Mailbox) {
                    link.notices.push(frame.clone());
                    let over = link.notices.len().saturating_sub(NOTICES_MAX);
                    link.notices.drain(..over);
                }
            }
            Input::StoreFailed => {
                if !self.failed {
                    self.failed = true;
                    self.links.values_mut().for_each(|link| link.slots.clear());
                    self.boxes.values_mut().for_each(|state| state.reset(None));
                    self.event(GatewayEvent::StoreFailed);
                }
            }
        }
    }

    fn changed(&mut self, change: Change) {
        let id = change.mailbox;
        if !self.boxes.contains_key(&id) && self.boxes.len() == self.limits.mailboxes_max {
            return;
        }
        let state = self.boxes.entry(id).or_default();
        state.held = change.packets;
        let newer = state.uncounted == 0 && state.openings < change.openings;
        if newer && state.on.is_some() {
            state.reset(None);
            self.displace(id);
        } else {
            state.more |= change.highest > state.upto;
            self.refill(id);
        }
    }

    fn displace(&mut self, mailbox: MailboxId) {
        for link in self.links.values_mut() {
            let had = link.slots.len();
            link.slots.retain(|_, theirs| *theirs != mailbox);
            if link.slots.len() < had {
                self.out.push(Output::Event(GatewayEvent::Displaced));
            }
        }
    }

    fn document(&mut self, document: Arc<Consensus>) {
        match self.documents.last_mut() {
            Some(newest) if newest.period > document.period => {}
            Some(newest) if newest.period == document.period => *newest = document,
            _ => self.documents.push(document),
        }
        let newest = self.documents.last().unwrap().clone();
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            let link = self.links.get_mut(&id).unwrap();
            match newest.profile(&link.profile.name) {
                Some((_, profile)) => {
                    link.profile = profile.into_owned();
                    link.due = link.due.filter(|_| link.period().is_some());
                }
                None => self.refuse(id),
            }
        }
    }

    fn refuse(&mut self, link: LinkId) {
        self.unlink(link);
        self.out.push(Output::Close { link });
        self.event(GatewayEvent::LinkRefused);
    }

    fn unlink(&mut self, id: LinkId) {
        self.links.remove(&id);
        for state in self.boxes.values_mut() {
            if state.on == Some(id) {
                state.reset(None);
            }
        }
    }

    fn frame(&mut self, id: LinkId, frame: &Frame) {
        let (now, live) = (self.now, self.live());
        let Some(link) = self.links.get_mut(&id) else {
            return self.drop(GatewayDrop::NoLink);
        };
        let entry = link.purpose == Purpose::Entry;
        if frame.kind() != Some(if entry { Kind::Packet } else { Kind::Confirm }) {
            return self.drop(GatewayDrop::Kind);
        }
        if !link.takes(now) {
            return self.drop(GatewayDrop::Rate);
        }
        if !entry {
            return match Confirmation::parse(frame) {
                _ if self.failed => self.drop(GatewayDrop::Closed),
                None => self.drop(GatewayDrop::Malformed),
                Some(confirmation) => self.confirmation(id, confirmation),
            };
        }
        let Some(utc_ns) = live else {
            return self.drop(GatewayDrop::Closed);
        };
        let to = NodeId(frame.field());
        let documents = self.in_force(utc_ns);
        if documents.iter().any(|c| c.layers[0].contains(&to)) {
            let packet = frame.to_packet();
            self.out.push(Output::Relay { to, packet });
        } else {
            self.drop(GatewayDrop::WrongFirst);
        }
    }

    fn confirmation(&mut self, id: LinkId, confirmation: Confirmation) {
        for open in confirmation.opens {
            let opened = self.open(id, &open);
            if let Err(why) = opened {
                self.drop(why);
            }
            if opened == Err(GatewayDrop::BadOpen) {
                break;
            }
        }
        for (slot, upto) in confirmation.cursors {
            let mailbox = self.links[&id].slots.get(&slot).copied();
            let state = mailbox.and_then(|mailbox| self.boxes.get_mut(&mailbox));
            match (mailbox, state) {
                (Some(mailbox), Some(state)) if upto <= state.sent => {
                    if upto > state.confirmed {
                        state.confirmed = upto;
                        state.upto = state.upto.max(upto);
                        state.window.retain(|kept| kept.seq > upto);
                        self.out.push(Output::Confirm { mailbox, upto });
                    }
                }
                _ => self.drop(GatewayDrop::Cursor),
            }
        }
        let open: Vec<MailboxId> = self.links[&id].slots.values().copied().collect();
        open.into_iter().for_each(|mailbox| self.refill(mailbox));
    }

    fn open(&mut self, id: LinkId, open: &Open) -> Result<(), GatewayDrop> {
        let mailbox = MailboxId::of(&open.key);
        let link = &self.links[&id];
        if link.slots.get(&open.slot) == Some(&mailbox) {
            return Ok(());
        }
        let twice = link.slots.values().any(|other| *other == mailbox);
        if twice || link.slots.contains_key(&open.slot) || link.slots.len() == SLOTS_MAX {
            return Err(GatewayDrop::SlotTaken);
        }
        let statement = open_statement(&NETWORK, &mailbox, &link.exporter);
        let signature = Signature::from_bytes(&open.signature);
        let key = VerifyingKey::from_bytes(&open.key).map_err(|_| GatewayDrop::BadOpen)?;
        key.verify_strict(&statement, &signature)
            .map_err(|_| GatewayDrop::BadOpen)?;
        if !self.boxes.contains_key(&mailbox) {
            if self.boxes.len() >= self.limits.mailboxes_max {
                return Err(GatewayDrop::MailboxesFull);
            }
            self.out.push(Output::Register { mailbox });
        }
        self.displace(mailbox);
        let state = self.boxes.entry(mailbox).or_default();
        state.reset(Some(id));
        state.uncounted += 1;
        self.out.push(Output::Open { mailbox });
        self.links
            .get_mut(&id)
            .unwrap()
            .slots
            .insert(open.slot, mailbox);
        self.event(GatewayEvent::Opened);
        Ok(())
    }

    fn refill(&mut self, mailbox: MailboxId) {
        let Some(state) = self.boxes.get_mut(&mailbox) else {
            return;
        };
        let room = self.limits.read_ahead - state.window.len();
        let half_empty = room >= state.window.len();
        if state.on.is_some() && state.more && state.asked.is_none() && half_empty {
            (state.asked, state.more) = (Some(room), false);
            let after = state.upto;
            self.out.push(Output::Peek {
                mailbox,
                after,
                limit: room,
            });
        }
    }

    fn expire(&mut self) {
        let knows = !self.documents.is_empty() && self.calendar.is_some();
        if !knows || self.now.as_nanos() < self.expiry_due {
            return;
        }
        self.expiry_due = self.now.as_nanos() + HOUR_NS;
        let Some(utc_ns) = self.live() else {
            return;
        };
        let expiry_s = self.documents.last().unwrap().params.expiry_s;
        let before_s = utc_ns / 1_000_000_000 - u64::from(expiry_s);
        self.out.push(Output::Expire { before_s });
        self.expired_before_s = self.expired_before_s.max(before_s);
        let all: Vec<MailboxId> = self.boxes.keys().copied().collect();
        for mailbox in all {
            let window = &mut self.boxes.get_mut(&mailbox).unwrap().window;
            window.retain(|kept| kept.stored_at_s >= before_s);
            self.refill(mailbox);
        }
    }

    fn tick(&mut self) {
        let now = self.now.as_nanos();
        let due = |(id, link): (&LinkId, &Link)| Some((link.due.filter(|due| *due <= now)?, *id));
        let mut overdue: Vec<(u64, LinkId)> = self.links.iter().filter_map(due).collect();
        overdue.sort_unstable();
        let live = self.live().is_some();
        for (due, id) in overdue {
            let link = self.links.get_mut(&id).unwrap();
            let period = link.period().unwrap();
            let skipped = (now - due) / period;
            link.due = Some(due + (skipped + 1) * period);
            // Slots in turn: those after the one served last, then from the first again.
            let mut turns: Vec<(u16, MailboxId)> = link.slots.clone().into_iter().collect();
            turns.sort_by_key(|(slot, _)| (Some(*slot) <= link.served, *slot));
            let loaded = |(_, id): &&(u16, MailboxId)| !self.boxes[id].window.is_empty();
            let waiting = turns.iter().find(loaded);
            let first = link.noticed.is_none_or(|at| now - at >= NOTICE_EVERY_NS);
            let notice = live && !link.notices.is_empty() && (first || waiting.is_none());
            let frame = match waiting.filter(|_| live) {
                _ if notice => {
                    link.noticed = Some(now);
                    link.notices.pop().unwrap()
                }
                None => Frame::new(Kind::Dummy, 0, [0; FIELD_LEN]),
                Some((slot, mailbox)) => {
                    link.served = Some(*slot);
                    let state = self.boxes.get_mut(mailbox).unwrap();
                    let kept = state.window.remove(0);
                    state.sent = state.sent.max(kept.seq);
                    self.refill(*mailbox);
                    Frame::packet(*slot, field_of(kept.seq, kept.stored_at_s), &kept.packet)
                }
            };
            self.out.push(Output::Frame { link: id, frame });
            if skipped > 0 {
                self.event(GatewayEvent::TicksSkipped(skipped));
            }
        }
    }
}
