//! The owner's move to another gateway, and who is told of it.
//!
//! Spec: docs/spec/client.md, rules CLI-40 to CLI-44; docs/spec/message.md, MSG-24 and MSG-25.
//!
//! | quantity | unit, range                                                                       |
//! |----------|-----------------------------------------------------------------------------------|
//! | notice   | one for each correspondent that knows a former mailbox and none that followed it   |
//! | id       | 128 bits that only the correspondent learns: its ack is no one else's             |
//! | wait     | doubles with each notice from the base of MSG-13 to [`WAIT_MAX`], jittered        |
//!
//! Which notices are due follows from addresses and contacts; of its own it keeps nothing that must
//! survive a restart.
//!
//! Not done here: how an address moves (`addresses`), who is a contact (`contacts`).

use core::time::Duration;
use std::collections::BTreeMap;

use super::{
    AddressError, Client, ClientDrop, ClientEvent, MessageId, Output, Relocated,
    came::{Came, Received},
    contacts::Meeting,
    content::{Content, ReturnPart},
    cover::uniform,
    entry::draw,
    journal::Effect,
    relocation::Relocation,
    route::{Map, entries},
    send::{Ready, is_gateway},
};
use crate::{NodeId, Time, address::Address};

/// Longest wait between two notices to one correspondent: some 25 in 14 days.
const WAIT_MAX: Duration = Duration::from_secs(86_400);
const DAY_S: u64 = 86_400;

struct Notice {
    line: u16,
    who: Address,
    /// The mailbox that they know, and the one to tell them of.
    from: u16,
    to: u16,
    due: Time,
    round: u32,
}

#[derive(Default)]
pub(crate) struct Notices {
    all: BTreeMap<MessageId, Notice>,
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
        }
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
        let home = self.mailbox_gateway();
        let to = match to {
            Some(to) => to,
            None => {
                // As an entry is: not where the mailboxes are, nor their families, as far as there
                // are others; and not where the client enters.
                let mut others: Vec<NodeId> = self.mailbox_gateways();
                others.extend(self.entry());
                let good = entries(&consensus, &others, None);
                draw(&mut self.rng, &good).ok_or(AddressError::NoGateway)?
            }
        };
        if to == home || !is_gateway(&consensus, &to) {
            return Err(AddressError::NoGateway);
        }
        let now_s = utc.as_secs();
        let times = (now_s, now_s + u64::from(consensus.params.expiry_s));
        self.addresses
            .move_to(&mut self.rng, to, times, &mut self.journal)
    }

    /// The client has moved, durably: loops come to the new home, which is not open yet.
    pub(super) fn move_durable(&mut self, ticket: u64) {
        self.addresses.moved();
        self.loops.forget();
        self.loops.hears_from = None;
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
        self.contacts.met(met, contacts_max, &mut self.journal);
        if self.addresses.gateways().len() > 1 {
            self.plan_notices();
        }
    }

    /// Who is to be told: those that know a former mailbox which is still open, so that it can sign,
    /// and are where we can tell them.
    pub(super) fn plan_notices(&mut self) {
        let mut before = core::mem::take(&mut self.notices.all);
        for (line, who, from) in self.contacts.present() {
            let current = self.addresses.mailbox_of(line);
            let Some((to, _)) = current.filter(|(to, _)| *to != from) else {
                continue;
            };
            if self.addresses.of(from).is_none() {
                continue;
            }
            let id = self.secret.notice(from, to, &who);
            let notice = before.remove(&id).unwrap_or(Notice {
                line,
                who,
                from,
                to,
                due: self.now,
                round: 0,
            });
            self.notices.all.insert(id, notice);
        }
    }

    /// The next notice that is due, in a slot that would have sent a drop; never two in a row while
    /// there is a fragment. Nobody is told of a mailbox that is not open (MSG-25).
    pub(super) fn next_notice(&mut self, map: Map<'_>) -> Option<Ready> {
        if !self.mailbox.is_up(self.mailbox_gateway()) {
            return None;
        }
        let (now, base) = (self.now, self.backoff_base());
        let mut all = self.notices.all.iter_mut();
        let known = |of: &Address| is_gateway(map.consensus, &of.gateway);
        let (id, notice) = all.find(|(_, of)| of.due <= now && known(&of.who))?;
        let wait = base.saturating_mul(1 << notice.round.min(20)).min(WAIT_MAX);
        notice.due = now.after(wait.mul_f64(0.5 + uniform(&mut self.rng)));
        notice.round += 1;
        let (id, who) = ((*id, map.epoch), notice.who);
        let old = self.addresses.of(notice.from)?;
        let (_, new) = self.addresses.mailbox_of(notice.line)?;
        let order = self.addresses.order(notice.to);
        let network = &self.config.network;
        let relocation = Relocation::sign(network, id, order, old, new.address());
        let content = Content::Move(Box::new(relocation)).to_bytes();
        let built = self.packet_to(map, &who, &content);
        built.ok().map(|(ready, _)| ready)
    }

    /// A payload slot sends a notice before a fragment, unless the last one did.
    pub(super) fn notices_turn(&mut self) -> bool {
        self.notices.last = !self.notices.last;
        self.notices.last
    }

    /// An ack of a notice: the correspondent knows (MSG-25).
    pub(super) fn notice_acked(&mut self, id: MessageId, came: Came) {
        let notice = self.notices.all.get(&id);
        let notice = notice.filter(|of| came.by.is_none() && of.line == came.slot);
        if let Some(Notice { line, who, to, .. }) = notice {
            self.contacts.told(*line, *who, *to, &mut self.journal);
            self.notices.all.remove(&id);
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
        let (addresses, order) = ((old, new), news.order);
        let contacts_max = self.config.limits.contacts_max;
        let (contacts, journal) = (&mut self.contacts, &mut self.journal);
        if contacts.moved(line, addresses, order, contacts_max, journal) {
            self.follow();
            self.plan_notices();
            let slot = line;
            let (from, to) = addresses;
            let relocated = Relocated { slot, from, to };
            self.journal.then(Effect::Relocated(relocated));
        }
        let message = self.secret.received(came, news.id);
        self.keep_return(message, 0, ReturnPart::Address(new), until_s);
        self.ack(message, 0);
        Ok(ClientEvent::RelocationReceived)
    }

    /// Whatever is under way to correspondents that have moved goes to where they are now.
    pub(super) fn follow(&mut self) {
        let contacts = &self.contacts;
        let now_at = |line, who: &Address| contacts.now_at(line, who);
        self.outbox.redirect(now_at);
        self.returns.redirect(now_at);
    }

    /// Where an answer or ack goes that a message asks for which came so.
    pub(super) fn followed(&mut self, message: Received, part: ReturnPart) -> ReturnPart {
        match part {
            ReturnPart::Address(who) if message.came.by.is_none() => {
                let Came { slot, mailbox, .. } = message.came;
                self.meet(slot, who, mailbox, false);
                ReturnPart::Address(self.contacts.now_at(slot, &who))
            }
            part @ (ReturnPart::None | ReturnPart::Address(_) | ReturnPart::Surbs { .. }) => part,
        }
    }
}

impl super::came::OwnSecret {
    fn notice(&self, from: u16, to: u16, who: &Address) -> MessageId {
        let which = (u64::from(from) << 16) | u64::from(to);
        let key = self.seed(b"lacuna notice v1", which);
        let name = super::came::hash(&[&key, &who.to_bytes()]);
        MessageId(core::array::from_fn(|i| name[i]))
    }
}
