//! What fills a slot: an ack, a fragment, a probe; a drop when there is nothing to say; a loop.
//!
//! Spec: docs/spec/client.md, rules CLI-4, CLI-5, CLI-9, CLI-18, CLI-20, CLI-23 to CLI-25.
//!
//! A slot decides nothing about time: it is called when its tick has come, and sends one packet
//! or, without a link that takes it, a valid epoch or a route, none.

use core::time::Duration;

use rand_core::Rng as _;
use sphinx::{Packet, build};

use super::{
    Client, ClientEvent, Failure, MessageId, Output, Progress, Return, State, Target,
    acks::Carrier,
    content::{BODY_MAX, Content, ReturnPart, SURBS_IN_PROBE, SURBS_IN_RETURN},
    journal::Effect,
    loops::Course,
    outgoing::Outgoing,
    returns::{Returns, Way},
    route::{Map, NoRoute, Route},
    surbs::batch,
};
use crate::{
    NodeId,
    address::Address,
    calendar::Epoch,
    directory::{Consensus, Role},
    wire::Frame,
};

/// Reply blocks for acks, beside those for the answer: a first one, and some for repair.
const SURBS_FOR_ACKS: usize = 4;
/// Least time to wait for an ack before the first repair.
const BACKOFF_MIN: Duration = Duration::from_secs(10);

/// A packet and the mix that it enters by.
pub(super) type Ready = (NodeId, Box<Packet>);

impl Client {
    /// Calls `f` with the map of routes, if packets can be sent now (CLI-5).
    fn with_map<T>(&mut self, f: impl FnOnce(&mut Self, Map<'_>) -> T) -> Option<T> {
        let epoch = self.epoch(self.now)?;
        self.entry.gateway()?;
        let consensus = self.consensus.clone()?;
        let map = Map {
            consensus: &consensus,
            epoch,
            via: self.config.via,
        };
        Some(f(self, map))
    }

    /// Builds a packet to an address; also the route that it takes.
    pub(super) fn packet_to(
        &mut self,
        map: Map<'_>,
        to: &Address,
        content: &[u8],
    ) -> Result<(Ready, Route), NoRoute> {
        let route = map.route(&mut self.rng, to)?;
        let packet = build(&mut self.rng, &route.hops, [0; 32], [0; 16], content);
        Ok(((NodeId(route.hops[0].address), packet), route))
    }

    fn write(&mut self, (first, packet): Ready, event: ClientEvent) {
        let frame = Frame::packet(0, first.0, &packet);
        self.out.push_back(Output::Entry(frame));
        self.event(event);
    }

    /// Whether the entry link takes a packet. Without room the tick is skipped before there is one
    /// (CLI-4): what is never built never counts as sent, nor as a loop that was lost.
    fn can_enter(&mut self) -> bool {
        let (is_up, has_room) = (self.entry.is_up(), self.entry.has_room());
        if is_up && !has_room {
            self.event(ClientEvent::TickSkipped);
        }
        is_up && has_room
    }

    /// A loop's tick has come: loops run always (CLI-3).
    pub(super) fn loop_slot(&mut self) {
        if !self.can_enter() {
            return;
        }
        self.with_map(|client, map| {
            let mut id = [0; 16];
            client.rng.fill_bytes(&mut id);
            let (home, content) = (client.address(), Content::Loop(id).to_bytes());
            let Ok((ready, route)) = client.packet_to(map, &home, &content) else {
                return client.event(ClientEvent::NoRoute);
            };
            if let Some(utc) = client.utc(client.now) {
                let course = Course {
                    mixes: route.mixes(),
                    delay: route.delay,
                    due: utc.after(route.delay),
                };
                let loops_max = client.config.limits.loops_max;
                if !client.loops.sent(id, client.now, course, loops_max) {
                    client.event(ClientEvent::LoopUnjudged);
                }
            }
            client.write(ready, ClientEvent::LoopSent);
        });
    }

    /// A payload slot's tick has come: real traffic takes the place of a drop (CLI-9).
    pub(super) fn payload_slot(&mut self) {
        if !self.can_enter() {
            return;
        }
        self.with_map(|client, map| {
            if !client.is_paused()
                && let Some(ready) = client.real(map)
            {
                return client.write(ready, ClientEvent::PayloadSent);
            }
            let drop = map.nobody(&mut client.rng).and_then(|nobody| {
                let (ready, _) = client.packet_to(map, &nobody, &[])?;
                Ok(ready)
            });
            match drop {
                Ok(ready) => client.write(ready, ClientEvent::DropSent),
                Err(NoRoute) => client.event(ClientEvent::NoRoute),
            }
        });
    }

    /// The next real packet: an ack, unless the last one was an ack and something else waits.
    fn real(&mut self, map: Map<'_>) -> Option<Ready> {
        self.ask_for_more(map.epoch);
        let mut turns: [fn(&mut Self, Map<'_>) -> Option<Ready>; 2] =
            [Self::next_ack, Self::next_own];
        if core::mem::take(&mut self.acks.went_last) {
            turns.reverse();
        }
        turns.into_iter().find_map(|next| next(self, map))
    }

    fn next_ack(&mut self, map: Map<'_>) -> Option<Ready> {
        let known = |address: &Address| is_gateway(map.consensus, &address.gateway);
        let (returns, journal) = (&mut self.returns, &mut self.journal);
        let next = self.acks.next(self.now, returns, map.epoch, known, journal);
        let (carrier, content) = next?;
        let ready = self.carry(map, carrier, &content);
        self.acks.went_last = ready.is_some();
        ready
    }

    /// What the client has to say of its own: a probe, then a notice of a move and whose turn it is
    /// among the messages, one after the other.
    fn next_own(&mut self, map: Map<'_>) -> Option<Ready> {
        if let Some((id, reply)) = self.probes.pop_front()
            && let Some(to) = self.outbox.target(id).or_else(|| self.surbs.target(id))
            && let Some(carrier) = self.carrier(map, &to)
        {
            let content = Content::Probe { message: id, reply };
            let ready = self.carry(map, carrier, &content);
            if ready.is_some() {
                return ready;
            }
        }
        if self.notices_turn()
            && let Some(ready) = self.next_notice(map)
        {
            return Some(ready);
        }
        self.fragment_turn(map).or_else(|| self.next_notice(map))
    }

    /// The next fragment.
    fn fragment_turn(&mut self, map: Map<'_>) -> Option<Ready> {
        let known = |address: &Address| is_gateway(map.consensus, &address.gateway);
        let returns = &self.returns;
        let can = |to: &Target| match to {
            Target::Address(address) => known(address),
            Target::Reply(token) => match returns.way(token.0, map.epoch) {
                Some(Way::Address(address)) => known(&address),
                Some(way @ Way::Surbs { .. }) => way.answers(),
                None => false,
            },
        };
        let (id, to) = self.outbox.turn(self.now, can)?;
        let base = self.backoff_base();
        let fragment =
            self.outbox
                .fragment(self.now, id, base, &mut self.rng, &mut self.journal)?;
        let carrier = self.carrier(map, &to)?;
        self.carry(map, carrier, &Content::Fragment(fragment))
    }

    fn carrier(&mut self, map: Map<'_>, to: &Target) -> Option<Carrier> {
        let token = match to {
            Target::Address(address) => return Some(Carrier::Address(*address)),
            Target::Reply(token) => token,
        };
        match self.returns.way(token.0, map.epoch)? {
            Way::Address(address) => Some(Carrier::Address(address)),
            Way::Surbs { .. } => {
                let surb = self.returns.take(token.0, map.epoch, &mut self.journal)?;
                Some(Carrier::Surb(Box::new(surb)))
            }
        }
    }

    /// Builds the packet. A reply block whose first hop is no mix of the first layer would show
    /// the entry gateway who answers it, so it is not used (CLI-20).
    fn carry(&mut self, map: Map<'_>, carrier: Carrier, content: &Content) -> Option<Ready> {
        let bytes = content.to_bytes();
        match carrier {
            Carrier::Address(address) => {
                let built = self.packet_to(map, &address, &bytes);
                built.ok().map(|(ready, _)| ready)
            }
            Carrier::Surb(surb) => {
                let first = NodeId(surb.first_hop());
                let layer = map.consensus.layers.first()?;
                layer
                    .binary_search(&first)
                    .ok()
                    .map(|_| (first, surb.use_with(&bytes)))
            }
        }
    }

    /// A cautious guess of the time from a fragment to its ack: both ends' slots and mailboxes.
    pub(super) fn backoff_base(&self) -> Duration {
        let Some((consensus, (_, profile))) = self.consensus.as_ref().zip(self.profile()) else {
            return BACKOFF_MIN;
        };
        let gap = |uhz: u64| {
            Duration::from_secs(1_000_000) / u32::try_from(uhz.max(1)).unwrap_or(u32::MAX)
        };
        let slots = (gap(profile.payload_uhz) + gap(profile.downstream_uhz)) * 8;
        BACKOFF_MIN + consensus.params.delay_mean() * 12 + slots
    }

    /// The owner has a message.
    pub(super) fn send(&mut self, ticket: u64, to: Target, body: Vec<u8>, reply: Return) {
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        let id = MessageId(id);
        match self.prepare(id, ticket, to, body, reply) {
            Ok(out) => {
                self.show(&out);
                self.outbox.queue(id, out, &mut self.journal);
            }
            Err(why) => self.out.push_back(Output::Progress(Progress {
                ticket,
                message: id,
                state: State::Failed(why),
            })),
        }
    }

    /// Whom a message is for knows the address that it names (CLI-41).
    fn show(&mut self, out: &Outgoing) {
        let to = match out.to {
            Target::Address(to) => Some(to),
            Target::Reply(token) => self.returns.address(token.0),
        };
        if let (Some(line), Some(to)) = (out.line(), to)
            && let Some((mailbox, _)) = self.addresses.shown(line)
        {
            self.meet(line, to, mailbox, true);
        }
    }

    fn prepare(
        &mut self,
        id: MessageId,
        ticket: u64,
        to: Target,
        body: Vec<u8>,
        reply: Return,
    ) -> Result<Outgoing, Failure> {
        let limits = self.config.limits;
        if body.len() as u64 > BODY_MAX {
            return Err(Failure::TooLong);
        }
        let (messages_max, bytes_max) = (limits.outgoing_max, limits.outgoing_bytes_max);
        if !self.outbox.has_room(body.len(), messages_max, bytes_max) {
            return Err(Failure::OutboxFull);
        }
        let epoch = self.epoch(self.now).ok_or(Failure::NotReady)?;
        let utc = self.utc(self.now).ok_or(Failure::NotReady)?;
        let consensus = self.consensus.clone().ok_or(Failure::NotReady)?;
        let mut out = Outgoing {
            ticket,
            to,
            epoch,
            expires_s: utc.as_secs() + u64::from(consensus.params.expiry_s),
            slot: 0,
            returns: vec![ReturnPart::None.to_bytes()],
            body,
        };
        let named = match reply {
            Return::None | Return::Surbs(_) => None,
            Return::Address => Some(self.addresses.home_line()),
            Return::At(slot) => Some(slot),
        };
        if let Some(slot) = named {
            let (_, own) = self.addresses.shown(slot).ok_or(Failure::NoAddress)?;
            out.returns = vec![ReturnPart::Address(own).to_bytes()];
            out.slot = slot;
            if let Target::Address(to) = &mut out.to {
                *to = self.contacts.now_at(slot, to); // MSG-25: in this name alone
            }
        }
        if let Target::Reply(token) = to {
            match self.returns.way(token.0, epoch) {
                None => return Err(Failure::NothingToReplyTo),
                Some(Way::Surbs { now: 0, later: 0 }) => {
                    let over = self.returns.is_over(token.0, epoch);
                    let why = [Failure::TooFewSurbs, Failure::SurbsExpired];
                    return Err(why[usize::from(over)]); // CLI-25
                }
                Some(Way::Address(_) | Way::Surbs { .. }) => {}
            }
        }
        if let Return::Surbs(count) = reply {
            self.add_surbs(id, &mut out, count)?;
        }
        Ok(out)
    }

    /// Gives each block of a message its reply blocks: those for the answer are in the first.
    fn add_surbs(&mut self, id: MessageId, out: &mut Outgoing, count: u8) -> Result<(), Failure> {
        let answer = usize::from(count);
        let blocks = out.blocks() as usize;
        let total = answer + blocks * SURBS_FOR_ACKS;
        let surbs_max = self.config.limits.surbs_max;
        let room = self.surbs.len() + total <= surbs_max && self.surbs.loans() < surbs_max;
        if answer + SURBS_FOR_ACKS > SURBS_IN_RETURN || !room {
            return Err(Failure::TooManySurbs);
        }
        let until_s = out.expires_s + self.mailbox_keeps_s();
        let made = self.with_map(|client, map| {
            let home = client.address();
            let made = batch(&mut client.rng, map, &home, total)?;
            let mut surbs = made.surbs.into_iter();
            let mut part = |block| {
                let count = SURBS_FOR_ACKS + if block == 0 { answer } else { 0 };
                let part = ReturnPart::Surbs {
                    epoch: map.epoch,
                    surbs: surbs.by_ref().take(count).collect(),
                };
                part.to_bytes()
            };
            let parts = (0..blocks).map(&mut part).collect();
            Ok::<_, NoRoute>((parts, made.secrets))
        });
        let (parts, secrets) = made
            .ok_or(Failure::NotReady)?
            .map_err(|NoRoute| Failure::NoRoute)?;
        out.returns = parts;
        self.surbs.keep(id, secrets, until_s, &mut self.journal);
        if count > 0 {
            let (to, until_s) = (out.to, out.expires_s);
            self.surbs.lend(id, to, count, until_s, &mut self.journal);
        }
        Ok(())
    }

    /// How long a reply may wait after the last use of its reply block: until the epoch is over.
    fn mailbox_keeps_s(&self) -> u64 {
        let consensus = self.consensus.as_ref();
        consensus.map_or(0, |consensus| u64::from(consensus.params.epoch_s))
    }

    /// A message is durable: its first burst begins.
    pub(super) fn start(&mut self, id: MessageId) {
        let epoch = self.epoch(self.now).unwrap_or_default();
        let to = self.outbox.target(id);
        let most = to.map_or(u32::MAX, |to| self.returns.most(&to, epoch));
        let loss = self.loops.loss();
        self.outbox.start(id, loss, most);
        // This one alone: of thousands that became durable at once each would look at all.
        let consensus = self.consensus.as_deref();
        if to.is_some_and(|to| is_stranded(consensus, &self.returns, &to)) {
            self.outbox.strand(id);
        }
    }

    /// Counts the messages to a gateway that the document does not have: another network's, or one that
    /// has left. They wait until it has, or they expire, and their owner should know why (CLI-23).
    pub(super) fn strand(&mut self) {
        let (consensus, returns) = (self.consensus.as_deref(), &self.returns);
        let lost = |to: &Target| is_stranded(consensus, returns, to);
        self.outbox.strand_all(lost);
    }

    /// Gives up replies whose reply blocks are gone (CLI-25).
    pub(super) fn fail_replies(&mut self, epoch: Epoch) {
        for (id, token) in self.outbox.replies() {
            let why = match self.returns.way(token.0, epoch) {
                None => Failure::NothingToReplyTo,
                Some(_) if self.returns.is_over(token.0, epoch) => Failure::SurbsExpired,
                Some(Way::Surbs { .. } | Way::Address(_)) => continue,
            };
            self.outbox.fail(id, why, &mut self.journal);
        }
    }

    /// Asks again for acks of anonymous messages, with fresh reply blocks (MSG-7).
    pub(super) fn ask(&mut self, epoch: Epoch) {
        for id in self.outbox.ask(epoch, &mut self.journal) {
            self.probe_with(id, SURBS_IN_PROBE);
        }
    }

    /// Sends so many fresh reply blocks after a message, at most as many as a probe holds, once their
    /// secrets are durable.
    fn probe_with(&mut self, id: MessageId, count: usize) {
        if self.surbs.len() + count > self.config.limits.surbs_max {
            return;
        }
        let home = self.address();
        let made = self.with_map(|client, map| {
            let made = batch(&mut client.rng, map, &home, count)?;
            let (epoch, surbs) = (map.epoch, made.surbs);
            Ok::<_, NoRoute>((ReturnPart::Surbs { epoch, surbs }, made.secrets))
        });
        let (Some(Ok((part, secrets))), Some(utc)) = (made, self.utc(self.now)) else {
            return;
        };
        let expiry_s = self.consensus.as_ref().map_or(0, |c| c.params.expiry_s);
        let until_s = utc.as_secs() + u64::from(expiry_s) + self.mailbox_keeps_s();
        self.surbs.keep(id, secrets, until_s, &mut self.journal);
        self.journal.then(Effect::Probe(id, part));
    }

    /// The recipient of a message has only `left` of its reply blocks: brings more, as far as the
    /// owner lent them (MSG-22).
    pub(super) fn bring_more(&mut self, of: MessageId, left: u16) {
        let owed = self.surbs.owed(of, left, self.now);
        // It tells that one is online, as acks do.
        let Some(mut count) = owed.filter(|_| self.config.acks) else {
            return;
        };
        let rests_until = self.now.after(self.backoff_base());
        self.surbs.bring(of, rests_until);
        while count > 0 {
            let some = count.min(SURBS_IN_PROBE);
            self.probe_with(of, some);
            count -= some;
        }
    }

    /// Answers that have come down to the reserve of reply blocks ask for more (MSG-21).
    fn ask_for_more(&mut self, epoch: Epoch) {
        let low = self.outbox.answering();
        let low = low.filter(|of| self.returns.way(*of, epoch).is_some_and(Way::is_low));
        let low: Vec<MessageId> = low.collect();
        self.acks.ask(self.now, &low, self.backoff_base());
    }
}

/// Whether what goes there can't be sent, since the document does not have the gateway.
fn is_stranded(consensus: Option<&Consensus>, returns: &Returns, to: &Target) -> bool {
    let to = match to {
        Target::Address(to) => Some(*to),
        Target::Reply(token) => returns.address(token.0),
    };
    let lost = |consensus: &Consensus, to: Address| !is_gateway(consensus, &to.gateway);
    consensus
        .zip(to)
        .is_some_and(|(consensus, to)| lost(consensus, to))
}

pub(super) fn is_gateway(consensus: &Consensus, id: &NodeId) -> bool {
    consensus
        .node(id)
        .is_some_and(|node| node.role == Role::Gateway)
}
