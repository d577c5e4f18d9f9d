//! What a frame from the mailbox does: peel the fifth layer, then act on the content.
//!
//! Spec: docs/spec/client.md, rules CLI-15, CLI-19, CLI-27; docs/spec/message.md, MSG-4, MSG-15,
//! MSG-19, MSG-20, MSG-24.
//!
//! Everything that can be wrong is a count. Whatever a packet is, its sequence counts as read,
//! nothing is sent for it but what its right content asks for, and that in slots that would have
//! sent a drop: from outside, garbage and messages look alike (CLI-27).

use sphinx::{PAYLOAD_LEN, Packet, Routing, SurbId, Tag, open_one};

use super::{
    Client, ClientDrop, ClientEvent,
    came::{Came, Received},
    content::{Content, Fragment, ReturnPart},
    inbox::Finished,
    journal::Effect,
    loops::PATIENCE,
    returns::{self, Way},
};
use crate::{
    NodeId,
    calendar::{Epoch, Schedule, Utc},
    wire::{Frame, Kind},
};

/// What was under the fifth layer.
struct Peeled {
    tag: Tag,
    came: Came,
    content: Content,
}

impl Client {
    /// A frame from the link to a mailbox gateway.
    pub(super) fn frame(&mut self, gateway: NodeId, frame: &Frame) {
        self.entry.heard();
        if gateway == self.mailbox_gateway() {
            self.home_heard();
        }
        let event = match frame.kind() {
            Some(Kind::Dummy) => {
                self.nothing_waits(gateway);
                Ok(ClientEvent::DummyReceived)
            }
            // A packet may wait behind it (LOOP-9).
            Some(Kind::Notice) => self.notice(frame),
            Some(Kind::Packet) => self.packet(gateway, frame),
            Some(Kind::Confirm | Kind::Hello | Kind::Certificate | Kind::Blob) | None => {
                Err(ClientDrop::Frame)
            }
        };
        self.event(event.unwrap_or_else(ClientEvent::Dropped));
    }

    /// The gateway had nothing for the home: loops due well before are lost, if it is theirs (CLI-6).
    /// What was refused may have been one.
    fn nothing_waits(&mut self, gateway: NodeId) {
        if gateway == self.mailbox_gateway()
            && self.mailbox.hears(gateway)
            && self.loops.hears(self.now)
            && let Some(utc) = self.utc(self.now)
        {
            let lost = self.loops.read(utc);
            self.lost(lost);
        }
    }

    fn lost(&mut self, loops: u64) {
        for _ in 0..loops {
            self.event(ClientEvent::LoopLost);
            self.judged(true);
        }
    }

    fn packet(&mut self, gateway: NodeId, frame: &Frame) -> Result<ClientEvent, ClientDrop> {
        let slot = frame.slot();
        // No gateway moves a cursor of another's mailbox.
        if self.addresses.at(slot) != Some(gateway) {
            return Err(ClientDrop::Slot);
        }
        // A backlog of another address leaves no room for dummies.
        let home = self.addresses.home().0;
        if self.mailbox.passes_over(gateway, slot, home) {
            self.nothing_waits(gateway);
        }
        if self.addresses.was(slot) {
            // Deleted at the gateway and not looked at (CLI-32).
            let (seq, _) = frame.numbers();
            self.mailbox.stored(slot, seq);
            return Err(ClientDrop::Revoked);
        }
        if self.addresses.of(slot).is_none() {
            return Err(ClientDrop::Slot);
        }
        // CLI-15: what can't be judged or kept now is left to the gateway.
        let full = self.journal.unstored_from(gateway) >= self.config.limits.unstored_max;
        if !self.mailbox.hears(gateway) || full || self.epoch(self.now).is_none() {
            self.mailbox.deafen(gateway);
            return Err(ClientDrop::Deaf);
        }
        let (seq, stored_s) = frame.numbers();
        let follows = self.mailbox.read(slot, seq).ok_or(ClientDrop::Sequence)?;
        let stored = Utc::from_secs(stored_s);
        if slot == home && !follows {
            // Loops may be among what was refused or lost before it (CLI-6, GW-32).
            self.excuse_due_until(stored.after(PATIENCE));
        }
        let peeled = self.peel(slot, frame.to_packet());
        if peeled.is_ok() {
            self.addresses.opened(slot);
        }
        // A packet read in order of storage from the mailbox that loops come to: loops due well
        // before it are lost (CLI-6), this one apart.
        let event = peeled.and_then(|peeled| self.content(peeled));
        if slot == home {
            let lost = self.loops.read(stored);
            self.lost(lost);
        }
        self.journal.cursor(gateway, slot, seq);
        event
    }

    /// Takes the fifth layer off, and those of the client's own reply block.
    fn peel(&mut self, slot: u16, mut packet: Box<Packet>) -> Result<Peeled, ClientDrop> {
        let key = self.addresses.of(slot).ok_or(ClientDrop::Slot)?.recipient();
        // A last hop reads no delay.
        let opened = open_one(key, 0, &packet).map_err(ClientDrop::Rejected)?;
        let Routing::Final { surb_id, .. } = *opened.routing() else {
            return Err(ClientDrop::Forward);
        };
        let tag = *opened.tag();
        sphinx::finish(opened, &mut packet);
        let mut payload: [u8; PAYLOAD_LEN] = *sphinx::payload(&packet);
        let mut came = Came {
            slot: self.addresses.line_of(slot).ok_or(ClientDrop::Slot)?,
            mailbox: slot,
            by: None,
        };
        if surb_id != SurbId::default() {
            let lent = self.surbs.take(&surb_id, &mut self.journal);
            let (of, secret) = lent.ok_or(ClientDrop::Surb)?; // CLI-19
            secret.recover(&mut payload);
            came.by = Some(of);
        }
        let message = sphinx::unpad(&payload).map_err(|_| ClientDrop::Payload)?;
        let content = Content::parse(message).ok_or(ClientDrop::Content)?;
        Ok(Peeled { tag, came, content })
    }

    fn content(&mut self, peeled: Peeled) -> Result<ClientEvent, ClientDrop> {
        let Peeled { tag, came, content } = peeled;
        match content {
            Content::Fragment(fragment) => self.fragment(came, &tag, fragment),
            Content::Acks { left, blocks } => {
                // Else the recipient of an anonymous message could try its ack on an address.
                if !blocks.iter().all(|(id, _)| self.outbox.hears(*id, came)) {
                    return Err(ClientDrop::Way); // MSG-19
                }
                for (message, block) in blocks {
                    self.outbox.acked(message, block, &mut self.journal);
                    self.notice_acked(message, came);
                }
                if let Some(of) = came.by {
                    self.bring_more(of, left);
                }
                Ok(ClientEvent::AckReceived)
            }
            Content::Loop(id) if id == self.secret.proof(came.mailbox) => {
                Ok(ClientEvent::ProofReturned)
            }
            Content::Loop(id) => {
                let returned = self.loops.returned(&id, self.now);
                let (latency, is_judged) = returned.ok_or(ClientDrop::Loop)?;
                if is_judged {
                    self.judged(false);
                }
                Ok(ClientEvent::LoopReturned { latency })
            }
            Content::Probe { message, reply } => {
                let message = self.secret.received(came, message);
                self.probe(&tag, message, reply)
            }
            Content::Move(news) => self.relocation(&tag, came, &news),
        }
    }

    fn fragment(
        &mut self,
        came: Came,
        tag: &Tag,
        fragment: Fragment,
    ) -> Result<ClientEvent, ClientDrop> {
        let until_s = self.taken_until(fragment.epoch)?;
        let limits = self.config.limits;
        if self
            .inbox
            .seen(tag, until_s, limits.tags_max, &mut self.journal)
        {
            return Err(ClientDrop::Replay); // MSG-15
        }
        let message = self.secret.received(came, fragment.message);
        let block = fragment.block;
        let taken = self
            .inbox
            .fragment(message, fragment, until_s, &limits, &mut self.journal);
        let (event, finished) = taken?;
        if let Some(finished) = finished {
            self.finished(finished);
        } else if event == ClientEvent::SpareReceived
            && self.inbox.remembers(until_s, limits.tags_max)
            && self.inbox.finished_blocks(message.here).contains(&block)
        {
            self.ack(message, block); // MSG-6
        }
        Ok(event)
    }

    /// A block is rebuilt: keep its way back, queue its ack, deliver the message if it is whole.
    fn finished(&mut self, finished: Finished) {
        let Finished {
            message,
            block,
            part,
            until_s,
        } = finished;
        self.keep_return(message, block, part, until_s);
        self.ack(message, block);
        let finished_max = self.config.limits.finished_max;
        let (returns, journal) = (&self.returns, &mut self.journal);
        if self
            .inbox
            .deliver(message.here, returns, finished_max, journal)
        {
            self.meet_sender(message);
        }
    }

    pub(super) fn keep_return(
        &mut self,
        message: Received,
        batch: u32,
        part: ReturnPart,
        until_s: u64,
    ) {
        let part = self.followed(message, part);
        if let ReturnPart::Surbs { epoch, .. } = part
            && self.taken_until(epoch).is_err()
        {
            return; // of a time that no sender's clock shows
        }
        let limits = self.config.limits;
        let ways_max = limits.finished_max.saturating_add(limits.incoming_max);
        let max = (ways_max, limits.held_surbs_max);
        let line = message.came.by.is_none().then_some(message.came.slot);
        let (whose, journal) = ((message.here, line), &mut self.journal);
        self.returns.keep(whose, batch, part, until_s, max, journal);
    }

    /// Queues a block's ack, once what it confirms is durable (CLI-16).
    pub(super) fn ack(&mut self, message: Received, block: u32) {
        if self.config.acks && self.returns.has(message.here) {
            self.journal.then(Effect::Ack { message, block });
        }
    }

    pub(super) fn queue_ack(&mut self, message: Received, block: u32) {
        if self.addresses.mailbox_of(message.came.slot).is_none() {
            return; // revoked meanwhile (CLI-32)
        }
        let acks_max = self.config.limits.acks_max;
        let (returns, epoch) = (&self.returns, self.epoch(self.now));
        let stuck = |message| {
            let way = epoch.and_then(|epoch| returns.way(message, epoch));
            way.is_some_and(Way::is_later)
        };
        if self.acks.queue(self.now, (message, block), acks_max, stuck) {
            self.event(ClientEvent::AckForgotten);
        }
    }

    /// An anonymous sender asks again for the acks of a message (MSG-7).
    fn probe(
        &mut self,
        tag: &Tag,
        message: Received,
        reply: ReturnPart,
    ) -> Result<ClientEvent, ClientDrop> {
        let ReturnPart::Surbs { epoch, .. } = reply else {
            return Err(ClientDrop::Content);
        };
        let until_s = self.taken_until(epoch)?;
        let tags_max = self.config.limits.tags_max;
        let is_seen = self.inbox.seen(tag, until_s, tags_max, &mut self.journal);
        if is_seen || !self.inbox.remembers(until_s, tags_max) {
            return Err(ClientDrop::Replay); // nothing but acks would come of it
        }
        let blocks = self.inbox.finished_blocks(message.here);
        if !blocks.is_empty() {
            self.keep_return(message, returns::probe_batch(tag), reply, until_s);
            blocks
                .into_iter()
                .for_each(|block| self.ack(message, block));
        }
        Ok(ClientEvent::ProbeReceived)
    }

    /// UTC seconds until which what was made in `epoch` is taken, if it still is (MSG-4): for the
    /// expiry, in whole epochs, and one epoch more.
    pub(super) fn taken_until(&self, epoch: Epoch) -> Result<u64, ClientDrop> {
        let (consensus, utc) = self
            .consensus
            .as_ref()
            .zip(self.utc(self.now))
            .ok_or(ClientDrop::Epoch)?;
        let schedule = consensus.schedule();
        let until_s = until_s(&schedule, consensus.params.expiry_s, epoch);
        let current = schedule.at(utc).ok_or(ClientDrop::Epoch)?;
        // A sender's clock may be ahead by less than an epoch.
        let future = epoch.0 > current.0.saturating_add(1);
        if future || until_s <= utc.as_secs() {
            return Err(ClientDrop::Epoch);
        }
        Ok(until_s)
    }
}

/// When epoch + expiry (in whole epochs) + 1 is over, in UTC seconds.
fn until_s(schedule: &Schedule, expiry_s: u32, epoch: Epoch) -> u64 {
    let length_s = schedule.length.as_secs().max(1);
    let epochs = u64::from(expiry_s).div_ceil(length_s) + 2;
    let end = epoch.0.saturating_add(epochs);
    let from_s = schedule.valid_from.as_secs();
    if end >= schedule.first.0 {
        from_s.saturating_add((end - schedule.first.0).saturating_mul(length_s))
    } else {
        from_s.saturating_sub((schedule.first.0 - end).saturating_mul(length_s))
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::calendar::Utc;

    /// MSG-4
    #[test]
    fn what_was_made_in_an_epoch_is_taken_for_expiry_and_one_more() {
        let schedule = Schedule {
            valid_from: Utc::from_secs(1_000_000),
            length: Duration::from_secs(100),
            first: Epoch(80),
            count: 16,
            transit: Duration::from_secs(1),
        };
        // Expiry of 250 s is three epochs: made in 80, taken in 80, 81, …, 84.
        for (epoch, until) in [
            (80, 1_000_500),
            (82, 1_000_700),
            (75, 1_000_000),
            (70, 999_500),
        ] {
            assert_eq!(until_s(&schedule, 250, Epoch(epoch)), until, "{epoch}");
        }
        assert_eq!(until_s(&schedule, 250, Epoch(u64::MAX)), u64::MAX);
    }
}
