//! The owner's move to another gateway, and who is told of it.
//!
//! Spec: docs/spec/client.md, rules CLI-40 to CLI-44; docs/spec/message.md, MSG-24 and MSG-25.
//!
//! | quantity | unit, range                                                                       |
//! |----------|-----------------------------------------------------------------------------------|
//! | notice   | one for each correspondent that knows a former mailbox and none that followed it;  |
//! |          | those first that the owner wrote to, then those that have waited longest          |
//! | id       | 128 bits that only the correspondent learns: its ack is no one else's             |
//! | wait     | doubles with each notice from the base of MSG-13 to [`WAIT_MAX`], jittered        |
//! | proof    | what the client sends to a new mailbox; nobody is told before something came by it |
//!
//! Which notices are due follows from addresses and contacts; of its own it keeps nothing that must
//! survive a restart.
//!
//! Not done here: how an address moves (`addresses`), who is a contact (`contacts`).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::{
    AddressError, Client, ClientDrop, ClientEvent, MessageId, Output, Relocated,
    came::{Came, Received},
    contacts::{self, Meeting, Whose},
    content::{Content, ReturnPart},
    cover::uniform,
    entry::draw,
    journal::Effect,
    relocation::Relocation,
    route::{Map, destinations},
    send::{Ready, is_gateway},
};
use crate::{NodeId, Time, address::Address, directory::Consensus};

/// Longest wait between two notices to one correspondent: some 25 in 14 days.
const WAIT_MAX: Duration = Duration::from_secs(86_400);
const DAY_S: u64 = 86_400;

struct Notice {
    id: MessageId,
    /// The mailbox that they know, and the one to tell them of.
    from: u16,
    to: u16,
    /// The owner wrote to them.
    ours: bool,
    next: Repeated,
}

/// When something is sent again, and how often it was.
#[derive(Clone, Copy)]
struct Repeated {
    due: Time,
    round: u32,
}

#[derive(Default)]
pub(crate) struct Notices {
    all: BTreeMap<Whose, Notice>,
    /// For whom the one of this id is.
    ids: BTreeMap<MessageId, Whose>,
    /// Proofs that were sent, by slot, since a link came up.
    proofs: BTreeMap<u16, Repeated>,
    /// The last packet that was real was a notice: a fragment's turn.
    last: bool,
}

/// How far a move has come, for status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moving {
    /// Gateways where mailboxes from before a move are read, and until when, in UTC seconds.
    pub former: Vec<(NodeId, u64)>,
    /// Correspondents that have not acknowledged to know.
    pub untold: usize,
    /// New mailboxes that are not known to be open: nobody is told of them yet.
    pub unopened: usize,
    /// Why the owner's next move would be refused if he named no gateway; none: it would not.
    pub refused: Option<AddressError>,
}

impl Notices {
    /// A link is up, on which mailboxes are opened again.
    pub(super) fn link_up(&mut self) {
        self.proofs.clear();
    }

    fn insert(&mut self, whose: Whose, notice: Notice) {
        self.ids.insert(notice.id, whose);
        self.all.insert(whose, notice);
    }

    fn remove(&mut self, whose: &Whose) -> Option<Notice> {
        let notice = self.all.remove(whose)?;
        self.ids.remove(&notice.id);
        Some(notice)
    }
}

impl Client {
    /// How far a move has come.
    #[must_use]
    pub fn moving(&self) -> Moving {
        let gateways = self.addresses.gateways().into_iter();
        Moving {
            former: gateways
                .filter_map(|(gateway, until_s)| Some((gateway, until_s?)))
                .collect(),
            untold: self.notices.all.len(),
            unopened: self.addresses.unopened().count(),
            refused: self.can_move().err(),
        }
    }

    /// Whether a move to a gateway that is drawn would be begun now.
    fn can_move(&self) -> Result<(), AddressError> {
        let consensus = self.consensus.as_ref().ok_or(AddressError::NotReady)?;
        let utc = self.utc(self.now).ok_or(AddressError::NotReady)?;
        self.addresses.may_move(utc.as_secs())?;
        let homes = self.mailbox_gateways();
        let mut all = consensus.gateways();
        let any = all.any(|node| !homes.contains(&node.id) && self.entry.trusts(&node.id));
        any.then_some(()).ok_or(AddressError::NoOther)
    }

    /// A gateway for the mailboxes (CLI-40).
    fn draw_home(&mut self, consensus: &Consensus) -> Option<NodeId> {
        let (homes, entry) = (self.mailbox_gateways(), self.entry());
        let may = |id: &NodeId| !homes.contains(id) && self.entry.trusts(id);
        let good = destinations(consensus, &homes, entry.as_ref(), may);
        draw(&mut self.rng, &good)
    }

    /// Correspondents that have moved: which own address heard of it, from where, to where.
    #[must_use]
    pub fn relocated(&self) -> Vec<Relocated> {
        let all = self.contacts.relocated();
        all.map(|(slot, from, to)| Relocated { slot, from, to })
            .collect()
    }

    /// A number that grows with each.
    #[must_use]
    pub fn relocated_version(&self) -> u64 {
        self.contacts.version()
    }

    /// The owner wants its mailboxes elsewhere (CLI-40).
    pub(super) fn order_move(&mut self, ticket: u64, to: Option<NodeId>) {
        let moved = self.try_move(to);
        match moved {
            Ok(()) => self.journal.then(Effect::Moved { ticket }),
            Err(why) => self.out.push_back(Output::Addressed {
                ticket,
                outcome: Err(why),
            }),
        }
    }

    fn try_move(&mut self, to: Option<NodeId>) -> Result<(), AddressError> {
        let consensus = self.consensus.clone().ok_or(AddressError::NotReady)?;
        let utc = self.utc(self.now).ok_or(AddressError::NotReady)?;
        let now_s = utc.as_secs();
        self.close_former(now_s); // so that it is possible when the refusal said
        self.addresses.may_move(now_s)?;
        let to = match to {
            Some(to) => to,
            None => self.draw_home(&consensus).ok_or(AddressError::NoOther)?,
        };
        if to == self.mailbox_gateway() || !is_gateway(&consensus, &to) {
            return Err(AddressError::NoGateway);
        }
        let times = (now_s, now_s + self.expiry_s());
        self.addresses
            .move_to(&mut self.rng, &self.secret, to, times, &mut self.journal)
    }

    /// For how long a mailbox keeps a packet, and is read after it was left; zero before there is a
    /// consensus.
    fn expiry_s(&self) -> u64 {
        let consensus = self.consensus.as_ref();
        consensus.map_or(0, |consensus| consensus.params.expiry_s.into())
    }

    /// The client has moved, durably: loops come to the new home, which is not open yet.
    pub(super) fn move_durable(&mut self, ticket: u64) {
        let slots = self.addresses.moved();
        let home = self.mailbox_gateway();
        for slot in slots {
            self.mailbox.open(home, slot); // if the link is up: it was there before
        }
        self.loops.moved();
        self.unopened = true;
        if let Some(consensus) = self.consensus.clone() {
            self.choose_entry(&consensus);
        }
        self.plan_notices();
        self.out.push_back(Output::Addressed {
            ticket,
            outcome: Ok(self.addresses.home_line()),
        });
    }

    /// Closes former mailboxes whose time is over (CLI-43).
    pub(super) fn close_former(&mut self, now_s: u64) {
        let closed = self.addresses.close(now_s, &mut self.journal);
        for slot in &closed {
            self.contacts.closed(*slot, &mut self.journal);
        }
        if !closed.is_empty() {
            self.plan_notices();
        }
    }

    /// A message showed an own address to a correspondent, or theirs to it (CLI-41).
    pub(super) fn meet(&mut self, line: u16, who: Address, mailbox: u16, ours: bool) {
        let Some(utc) = self.utc(self.now) else {
            return;
        };
        let met = Meeting {
            line,
            who,
            mailbox,
            ours,
            day: u32::try_from(utc.as_secs() / DAY_S).unwrap_or(u32::MAX),
        };
        let contacts_max = self.config.limits.contacts_max;
        let forgotten = self.contacts.met(&met, contacts_max, &mut self.journal);
        let now_at = self.contacts.now_at(line, &who);
        for whose in forgotten.into_iter().chain([(line, now_at)]) {
            self.plan_notice(whose);
        }
    }

    /// A message is whole: who sent it, if he named himself, knows the address that it came to. Not by
    /// one of its blocks: one packet would do, and the application would see nothing of it.
    pub(super) fn meet_sender(&mut self, message: Received) {
        let Came { slot, mailbox, by } = message.came;
        if let (None, Some(who)) = (by, self.returns.address(message.here)) {
            self.meet(slot, who, mailbox, false);
        }
    }

    /// Who is to be told, of all.
    pub(super) fn plan_notices(&mut self) {
        let those = self.contacts.present();
        let those: BTreeSet<Whose> = those.chain(self.notices.all.keys().copied()).collect();
        for whose in those {
            self.plan_notice(whose);
        }
    }

    /// Whether this one is to be told: if he knows a former mailbox which is still open, so that it can
    /// sign.
    fn plan_notice(&mut self, whose: Whose) {
        let before = self.notices.remove(&whose);
        let (line, who) = whose;
        let current = self.addresses.mailbox_of(line);
        let (Some((from, ours)), Some((to, _))) = (self.contacts.known_to(&whose), current) else {
            return;
        };
        if from == to || self.addresses.of(from).is_none() {
            return;
        }
        let id = self.secret.notice(from, to, &who);
        let begun = before.filter(|of| of.id == id).map(|of| of.next);
        let next = begun.unwrap_or(Repeated {
            due: self.now,
            round: 0,
        });
        let notice = Notice {
            id,
            from,
            to,
            ours,
            next,
        };
        self.notices.insert(whose, notice);
    }

    /// The next notice that is due, or a proof, in a slot that would have sent a drop; never two in a
    /// row while there is a fragment.
    pub(super) fn next_notice(&mut self, map: Map<'_>) -> Option<Ready> {
        self.tell(map).or_else(|| self.prove(map))
    }

    /// Nobody is told of a mailbox that nothing has come by; and nobody before those that have waited
    /// longer, so that made-up correspondents keep none waiting (MSG-25).
    fn tell(&mut self, map: Map<'_>) -> Option<Ready> {
        let unopened: Vec<u16> = self.addresses.unopened().collect();
        let due = self.notices.all.iter();
        let due = due.filter(|(_, of)| of.next.due <= self.now);
        let can = due.filter(|((_, who), of)| {
            !unopened.contains(&of.to) && is_gateway(map.consensus, &who.gateway)
        });
        let first = can.min_by_key(|(_, of)| (!of.ours, of.next.due, of.id));
        let (whose, notice) = first?;
        let (whose, id, round) = (*whose, notice.id, notice.next.round);
        let order = self.addresses.order(notice.to);
        let [old, new] = [notice.from, notice.to].map(|slot| self.addresses.of(slot));
        let network = &self.config.network;
        let relocation = Relocation::sign(network, (id, map.epoch), order, old?, new?);
        let content = Content::Move(Box::new(relocation)).to_bytes();
        let (ready, _) = self.packet_to(map, &whose.1, &content).ok()?;
        let next = self.after(round);
        self.notices.all.get_mut(&whose)?.next = next;
        Some(ready)
    }

    /// A packet to a new mailbox, once it was asked to be opened.
    fn prove(&mut self, map: Map<'_>) -> Option<Ready> {
        let (home, proofs) = (self.mailbox_gateway(), &self.notices.proofs);
        let is_due = |slot: &u16| proofs.get(slot).is_none_or(|of| of.due <= self.now);
        let can = |slot: &u16| self.mailbox.has_asked(home, *slot) && is_due(slot);
        let slot = self.addresses.unopened().find(can)?;
        let round = proofs.get(&slot).map_or(0, |of| of.round);
        let to = self.addresses.of(slot)?.address();
        let content = Content::Loop(self.secret.proof(slot)).to_bytes();
        let (ready, _) = self.packet_to(map, &to, &content).ok()?;
        let next = self.after(round);
        self.notices.proofs.insert(slot, next);
        Some(ready)
    }

    /// When what was sent so often before is sent again.
    fn after(&mut self, round: u32) -> Repeated {
        let base = self.backoff_base();
        let wait = base.saturating_mul(1 << round.min(20)).min(WAIT_MAX);
        let wait = wait.mul_f64(0.5 + uniform(&mut self.rng));
        Repeated {
            due: self.now.after(wait),
            round: round + 1,
        }
    }

    /// A payload slot sends a notice before a fragment, unless the last one did.
    pub(super) fn notices_turn(&mut self) -> bool {
        self.notices.last = !self.notices.last;
        self.notices.last
    }

    /// An ack of a notice: the correspondent knows (MSG-25).
    pub(super) fn notice_acked(&mut self, id: MessageId, came: Came) {
        let whose = self.notices.ids.get(&id).copied();
        let whose = whose.filter(|(line, _)| came.by.is_none() && *line == came.slot);
        if let Some((line, who)) = whose
            && let Some(notice) = self.notices.remove(&(line, who))
        {
            let journal = &mut self.journal;
            self.contacts.told(line, who, notice.to, journal);
        }
    }

    /// A correspondent says that it has moved (MSG-24).
    pub(super) fn relocation(
        &mut self,
        tag: &sphinx::Tag,
        came: Came,
        news: &Relocation,
    ) -> Result<ClientEvent, ClientDrop> {
        if came.by.is_some() {
            return Err(ClientDrop::Way);
        }
        let (line, old, new) = (came.slot, news.old, news.new);
        if !self.contacts.knows(line, &old) {
            return Err(ClientDrop::Stranger);
        }
        if !news.is_proven(&self.config.network) {
            return Err(ClientDrop::Forged);
        }
        let until_s = self.taken_until(news.epoch)?;
        let tags_max = self.config.limits.tags_max;
        if self.inbox.seen(tag, until_s, tags_max, &mut self.journal) {
            return Err(ClientDrop::Replay);
        }
        let news_of = contacts::Move {
            from: old,
            to: new,
            order: news.order,
            now_s: self.utc(self.now).map_or(0, |utc| utc.as_secs()),
            keeps_s: self.expiry_s(),
        };
        let before = [old, new].map(|who| (line, self.contacts.now_at(line, &who)));
        if self.contacts.moved(line, &news_of, &mut self.journal) {
            self.follow();
            let now_at = self.contacts.now_at(line, &old);
            for whose in before.into_iter().chain([(line, now_at)]) {
                self.plan_notice(whose);
            }
            let (slot, from, to) = (line, old, self.contacts.now_at(line, &old));
            let relocated = Relocated { slot, from, to };
            self.journal.then(Effect::Relocated(relocated));
        }
        if self.contacts.is_past(line, &news_of) && self.inbox.remembers(until_s, tags_max) {
            let message = self.secret.received(came, news.id);
            let now_at = self.contacts.now_at(line, &old);
            self.keep_return(message, 0, ReturnPart::Address(now_at), until_s);
            self.ack(message, 0);
        }
        Ok(ClientEvent::RelocationReceived)
    }

    /// Whatever is under way to correspondents that have moved goes to where they are now.
    pub(super) fn follow(&mut self) {
        let contacts = &self.contacts;
        let now_at = |line, who: &Address| contacts.now_at(line, who);
        self.outbox.redirect(now_at);
        self.returns.redirect(now_at);
        self.strand();
    }

    /// Where an answer or ack goes that a message asks for which came so.
    pub(super) fn followed(&self, message: Received, part: ReturnPart) -> ReturnPart {
        match part {
            ReturnPart::Address(who) if message.came.by.is_none() => {
                ReturnPart::Address(self.contacts.now_at(message.came.slot, &who))
            }
            part @ (ReturnPart::None | ReturnPart::Address(_) | ReturnPart::Surbs { .. }) => part,
        }
    }
}

impl super::came::OwnSecret {
    /// What the client sends itself to see whether a mailbox is open.
    pub(super) fn proof(&self, slot: u16) -> [u8; 16] {
        let seed = self.seed(b"lacuna proof v1", slot.into());
        core::array::from_fn(|i| seed[i])
    }

    fn notice(&self, from: u16, to: u16, who: &Address) -> MessageId {
        let which = (u64::from(from) << 16) | u64::from(to);
        let key = self.seed(b"lacuna notice v1", which);
        let name = super::came::hash(&[&key, &who.to_bytes()]);
        MessageId(core::array::from_fn(|i| name[i]))
    }
}
