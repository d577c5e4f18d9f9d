//! A client from its records, and which of them a backup may hold.
//!
//! Spec: docs/spec/client.md, rules CLI-16, CLI-26 and CLI-34; the records are listed in `journal`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Client, Config, Identity, MessageId, Output, Target,
    addresses::founding,
    came::OwnSecret,
    content::part,
    journal::{key, kind},
    outgoing::Outgoing,
    returns,
};
use crate::{NodeId, calendar::Epoch};

/// A record is not one that this client wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreError {
    /// The first byte of its key; zero if the key is empty.
    pub kind: u8,
}

impl core::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let kind = char::from(self.kind);
        write!(
            f,
            "the client's store holds a record (kind {kind:?}) that this version can't read"
        )
    }
}

impl core::error::Error for RestoreError {}

/// Kind of a record, and the message that it is of, where it is of one.
fn kind_of(key: &[u8]) -> Option<(u8, Option<&[u8]>)> {
    let (kind, rest) = key.split_first()?;
    Some((*kind, rest.get(..16)))
}

/// Those of a client's records that can be restored later, and more than once, without using
/// anything twice (CLI-34): addresses, the entry and those that were left, what is known of messages
/// that came, whole or in part, and the addresses that they brought, and messages on their way to an
/// address. Not reply blocks, neither its own nor those of others, nor what needs them; not cursors,
/// which only the mailbox knows anew.
#[must_use]
pub fn backup(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let named = |value: &[u8]| {
        let out = Outgoing::parse(value)?;
        (!out.is_anonymous() && matches!(out.to, Target::Address(_))).then_some(())
    };
    let going: BTreeSet<Option<&[u8]>> = records
        .iter()
        .filter_map(|(key, value)| match kind_of(key)? {
            (kind::OUTGOING, message) => named(value).map(|()| message),
            _ => None,
        })
        .collect();
    let stays = |(key, value): &&(Vec<u8>, Vec<u8>)| match kind_of(key) {
        Some((kind::RETURN, _)) => returns::brings(value) == Some(part::ADDRESS),
        Some((
            kind::ADDRESS
            | kind::MOVE
            | kind::CONTACT
            | kind::SECRET
            | kind::ENTRY
            | kind::LEFT
            | kind::TAG
            | kind::FRAGMENT
            | kind::BLOCK
            | kind::FLOOR
            | kind::FINISHED
            | kind::DELIVERY,
            _,
        )) => true,
        Some((kind::OUTGOING | kind::SENT | kind::ACKED, message)) => going.contains(&message),
        _ => false,
    };
    records.iter().filter(stays).cloned().collect()
}

impl Client {
    /// A client with what its records say. `identity` is what it was made with, which a driver that
    /// keeps the [`founding`] records has no need of: they stand where no other record of the first
    /// address does. `seed` must be fresh for each start. Messages that were delivered but not taken come first out of [`poll`](crate::Machine::poll).
    ///
    /// # Errors
    ///
    /// [`RestoreError`] if a record is not one that a client wrote, or there is no address.
    pub fn new(
        config: Config,
        seed: [u8; 32],
        identity: impl Into<Option<Identity>>,
        records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, RestoreError> {
        let mut client = Self::empty(config, seed);
        let identity = identity.into();
        let founding = identity.iter().flat_map(founding);
        // Sorted, and by what depends on what: a message before what became of it.
        let records: BTreeMap<Vec<u8>, Vec<u8>> = founding.chain(records).collect();
        if !records.contains_key(&key(kind::SECRET, &[])) {
            return Err(RestoreError { kind: kind::SECRET });
        }
        let late = [kind::MOVE, kind::SENT, kind::ACKED, kind::USED];
        let is_late = |key: &[u8]| key.first().is_some_and(|kind| late.contains(kind));
        for pass in [false, true] {
            for (key, value) in records.iter().filter(|(key, _)| is_late(key) == pass) {
                let kind = key.first().copied().unwrap_or(0);
                let error = RestoreError { kind };
                client.record(key, value).ok_or(error)?;
            }
        }
        if !client.addresses.is_some() {
            return Err(RestoreError {
                kind: kind::ADDRESS,
            });
        }
        client.follow();
        client.plan_notices();
        let loss = client.loops.loss();
        let returns = &client.returns;
        let most = |to: &Target| returns.most(to, Epoch(0));
        client.outbox.start_restored(loss, most);
        Ok(client)
    }

    /// Reads one record back.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (kind, rest) = key.split_first()?;
        let known = match *kind {
            kind::CURSOR => {
                let slot = u16::from_be_bytes(rest.try_into().ok()?);
                let seq = u64::from_be_bytes(value.try_into().ok()?);
                self.mailbox.restore(slot, seq);
                true
            }
            kind::SECRET => {
                self.secret = OwnSecret::from_bytes(value.try_into().ok()?);
                rest.is_empty()
            }
            kind::ADDRESS => {
                let slot = u16::from_be_bytes(rest.try_into().ok()?);
                self.addresses.restore(slot, value)
            }
            kind::MOVE => {
                let slot = u16::from_be_bytes(rest.try_into().ok()?);
                self.addresses.restore_move(slot, value)
            }
            kind::CONTACT => self.contacts.restore(rest, value),
            kind::ENTRY => {
                self.entry.restore(NodeId(value.try_into().ok()?));
                rest.is_empty()
            }
            kind::LEFT => {
                let at_s = u64::from_be_bytes(value.try_into().ok()?);
                self.entry.restore_left(NodeId(rest.try_into().ok()?), at_s);
                true
            }
            kind::TAG => {
                let until_s = u64::from_be_bytes(value.try_into().ok()?);
                self.inbox.restore_tag(rest.try_into().ok()?, until_s);
                true
            }
            kind::FLOOR => {
                let until_s = u64::from_be_bytes(value.try_into().ok()?);
                self.inbox.restore_floor(until_s);
                rest.is_empty()
            }
            kind::SURB => self.surbs.restore(rest, value),
            _ => {
                let (message, rest) = rest.split_first_chunk()?;
                self.message_record(*kind, MessageId(*message), rest, value)?
            }
        };
        known.then_some(())
    }

    /// Reads a record back whose key begins with a message.
    fn message_record(
        &mut self,
        kind: u8,
        message: MessageId,
        rest: &[u8],
        value: &[u8],
    ) -> Option<bool> {
        let number = || rest.try_into().ok().map(u32::from_be_bytes);
        Some(match kind {
            kind::FRAGMENT => {
                let (block, esi) = rest.split_first_chunk()?;
                let block = u32::from_be_bytes(*block);
                let esi = u32::from_be_bytes(esi.try_into().ok()?);
                self.inbox.restore_fragment(message, block, esi, value)
            }
            kind::BLOCK => self.inbox.restore_block(message, number()?, value),
            kind::DELIVERY => {
                let delivery = self.inbox.restore_delivery(message, value)?;
                self.out.push_back(Output::Deliver(delivery));
                true
            }
            kind::FINISHED => {
                let (until_s, blocks) = value.split_first_chunk()?;
                let until_s = u64::from_be_bytes(*until_s);
                let blocks = u32::from_be_bytes(blocks.try_into().ok()?);
                self.inbox.restore_finished(message, until_s, blocks);
                true
            }
            kind::RETURN => self.returns.restore(message, number()?, value),
            kind::USED => self.returns.restore_used(message, number()?, value),
            kind::OUTGOING => {
                let out = Outgoing::parse(value)?;
                self.outbox.restore(message, out, &mut self.rng);
                true
            }
            kind::LOAN => self.surbs.restore_loan(message, value),
            kind::SENT => self.outbox.restore_sent(message, value),
            kind::ACKED => self.outbox.restore_acked(message, number()?),
            _ => false,
        })
    }
}
