//! A client's own addresses: one for each correspondent, if its owner likes, and each revocable.
//!
//! Spec: docs/spec/client.md, rules CLI-31 to CLI-33.
//!
//! | quantity | type       | unit, range                                                         |
//! |----------|------------|---------------------------------------------------------------------|
//! | slot     | `u16`      | names an address here and on the mailbox link; never used twice     |
//! | label    | text       | the owner's name for it, 1 to [`LABEL_MAX`] bytes, each once         |
//! | all      | addresses  | 1 to [`ADDRESSES_MAX`], those revoked since the link came up with it |
//!
//! Slot 0 is the identity that the client was made with, and a record like the others. Each address
//! has secrets drawn for it alone, so that no two can be told to be of one client by what they say. (The gateway that
//! keeps their mailboxes on one link can; see docs/THREAT_MODEL.md.)
//!
//! Not done here: who was given which address.

use std::collections::BTreeMap;

use rand_core::CryptoRng;

use super::{
    Client, IDENTITY_LEN, Identity, Output,
    came::OwnSecret,
    journal::{Effect, Journal, key, kind},
};
use crate::{address::Address, wire::CURSORS_MAX};

/// Addresses of one client: as many as a mailbox link has slots (GW-6).
pub const ADDRESSES_MAX: usize = CURSORS_MAX;
/// Bytes of a label.
pub const LABEL_MAX: usize = 64;
/// Label of the address that the client was made with.
pub const FIRST_LABEL: &str = "main";

/// One of a client's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// Its number.
    pub slot: u16,
    /// Its owner's name for it.
    pub label: String,
    /// What others send to.
    pub address: Address,
}

/// Why an address was not made or not revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// A label has 1 to 64 bytes, none of them a control character.
    Label,
    /// There is an address of that label.
    Taken,
    /// No address has that label.
    Unknown,
    /// There are as many as a mailbox link carries, those revoked since it came up with them.
    TooMany,
    /// It is the only one: make another first.
    Last,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not durable yet: nobody may hear of it, nor its gateway.
    Made,
    Live,
    Revoked,
}

struct Slot {
    identity: Identity,
    label: String,
    state: State,
}

#[derive(Default)]
pub(crate) struct Addresses {
    slots: BTreeMap<u16, Slot>,
    next: u16,
    /// Grows with every change.
    version: u64,
}

fn record(slot: u16) -> Vec<u8> {
    key(kind::ADDRESS, &[&slot.to_be_bytes()])
}

fn to_record(slot: u16, identity: &Identity, label: &str) -> (Vec<u8>, Vec<u8>) {
    let value = [&*identity.to_bytes(), label.as_bytes()].concat();
    (record(slot), value)
}

fn parse(value: &[u8]) -> Option<(Identity, String)> {
    let (identity, label) = value.split_first_chunk::<IDENTITY_LEN>()?;
    let label = core::str::from_utf8(label).ok()?.to_owned();
    Some((Identity::from_bytes(identity)?, label))
}

/// The records of a client that is made with this identity: its first address, and its secret.
#[must_use]
pub fn founding(identity: &Identity) -> [(Vec<u8>, Vec<u8>); 2] {
    let secret = OwnSecret::of(identity).to_bytes().to_vec();
    [
        to_record(0, identity, FIRST_LABEL),
        (key(kind::SECRET, &[]), secret),
    ]
}

/// The addresses that a client of these records has, the oldest first; `None` if they tell of no
/// address, not even a revoked one: the client's identity stands elsewhere.
#[must_use]
pub fn addresses_of(records: &[(Vec<u8>, Vec<u8>)]) -> Option<Vec<OwnAddress>> {
    let mut all = Addresses::default();
    for (key, value) in records {
        if let Some((&kind::ADDRESS, slot)) = key.split_first()
            && let Ok(slot) = slot.try_into()
        {
            all.restore(u16::from_be_bytes(slot), value);
        }
    }
    (all.next > 0).then(|| all.list())
}

impl Addresses {
    /// Reads a record back: empty for one that was revoked; `false` if it is none.
    pub(crate) fn restore(&mut self, slot: u16, value: &[u8]) -> bool {
        self.next = self.next.max(slot.saturating_add(1));
        if value.is_empty() {
            self.slots.remove(&slot);
            return true;
        }
        let Some((identity, label)) = parse(value) else {
            return false;
        };
        let known = Slot {
            identity,
            label,
            state: State::Live,
        };
        self.slots.insert(slot, known);
        true
    }

    /// Whether there is a live one.
    pub(crate) fn is_some(&self) -> bool {
        self.live().next().is_some()
    }

    fn those(&self, state: State) -> impl Iterator<Item = (u16, &Slot)> {
        let those = self.slots.iter().filter(move |(_, of)| of.state == state);
        those.map(|(number, slot)| (*number, slot))
    }

    fn live(&self) -> impl Iterator<Item = (u16, &Slot)> {
        self.those(State::Live)
    }

    /// The number of the address that loops and reply blocks come to: the oldest that is live.
    pub(crate) fn home(&self) -> (u16, &Identity) {
        let (number, slot) = self.live().next().expect("the last one is never revoked");
        (number, &slot.identity)
    }

    /// The secrets of a slot whose packets are read.
    pub(crate) fn of(&self, slot: u16) -> Option<&Identity> {
        let slot = self.slots.get(&slot)?;
        (slot.state == State::Live).then_some(&slot.identity)
    }

    /// Whether this slot may still be open on the mailbox link, though it was revoked.
    pub(crate) fn was(&self, slot: u16) -> bool {
        self.those(State::Revoked).any(|(was, _)| was == slot)
    }

    /// Numbers of those to open on a new link, on which none of the revoked ones is.
    pub(crate) fn reopen(&mut self) -> Vec<u16> {
        self.slots.retain(|_, slot| slot.state != State::Revoked);
        self.live().map(|(slot, _)| slot).collect()
    }

    pub(crate) fn list(&self) -> Vec<OwnAddress> {
        let own = |(slot, known): (u16, &Slot)| OwnAddress {
            slot,
            label: known.label.clone(),
            address: known.identity.address(),
        };
        self.live().map(own).collect()
    }

    fn named(&self, label: &str) -> Option<u16> {
        let (slot, _) = self.live().find(|(_, slot)| slot.label == label)?;
        Some(slot)
    }

    /// Draws a new one (CLI-31).
    fn make(
        &mut self,
        rng: &mut impl CryptoRng,
        label: String,
        journal: &mut Journal,
    ) -> Result<u16, AddressError> {
        let good = (1..=LABEL_MAX).contains(&label.len()) && !label.contains(char::is_control);
        if !good {
            return Err(AddressError::Label);
        }
        let mut others = self.slots.values().filter(|of| of.state != State::Revoked);
        if others.any(|of| of.label == label) {
            return Err(AddressError::Taken);
        }
        let slot = self.next;
        if self.slots.len() >= ADDRESSES_MAX || slot == u16::MAX {
            return Err(AddressError::TooMany);
        }
        let identity = Identity::generate(rng, self.home().1.gateway());
        let (key, value) = to_record(slot, &identity, &label);
        journal.put(key, value);
        self.next += 1;
        let made = Slot {
            identity,
            label,
            state: State::Made,
        };
        self.slots.insert(slot, made);
        Ok(slot)
    }

    /// What was made or revoked is durable; whether an address came to life by that.
    fn durable(&mut self, slot: u16) -> bool {
        let made = self.slots.get_mut(&slot);
        let made = made.filter(|slot| slot.state == State::Made);
        let lives = made.map(|slot| slot.state = State::Live).is_some();
        self.version += u64::from(lives);
        lives
    }

    /// Forgets the secrets of one, for good (CLI-32).
    fn revoke(&mut self, label: &str, journal: &mut Journal) -> Result<u16, AddressError> {
        let slot = self.named(label).ok_or(AddressError::Unknown)?;
        if self.live().nth(1).is_none() {
            return Err(AddressError::Last);
        }
        journal.put(record(slot), Vec::new());
        journal.forget_cursor(slot);
        journal.erase();
        if let Some(known) = self.slots.get_mut(&slot) {
            known.state = State::Revoked;
        }
        self.version += 1;
        Ok(slot)
    }
}

impl Client {
    /// Its addresses, the first one first, and a number that grows with every change of them.
    #[must_use]
    pub fn addresses(&self) -> (u64, Vec<OwnAddress>) {
        (self.addresses.version, self.addresses.list())
    }

    /// The number by which a change of them is noticed.
    #[must_use]
    pub fn addresses_version(&self) -> u64 {
        self.addresses.version
    }

    /// The owner wants another address.
    pub(super) fn new_address(&mut self, ticket: u64, label: String) {
        let made = self.addresses.make(&mut self.rng, label, &mut self.journal);
        self.addressed(ticket, made);
    }

    /// The owner wants one gone.
    pub(super) fn revoke(&mut self, ticket: u64, label: &str) {
        let home = self.addresses.home().0;
        let revoked = self.addresses.revoke(label, &mut self.journal);
        if revoked == Ok(home) {
            self.loops.forget(); // they come to another one from now on
        }
        if let Ok(slot) = revoked {
            self.acks.forget(slot);
            self.inbox.forget(slot, &mut self.journal);
            self.outbox.revoked(slot, &mut self.journal);
        }
        self.addressed(ticket, revoked);
    }

    /// An order for an address is carried out, durably: it may be told now, and opened.
    pub(super) fn address_durable(&mut self, ticket: u64, slot: u16) {
        if self.addresses.durable(slot) {
            self.mailbox.open(slot);
        }
        self.out.push_back(Output::Addressed {
            ticket,
            outcome: Ok(slot),
        });
    }

    /// The owner hears of it once it is durable (CLI-16); of a refusal at once.
    fn addressed(&mut self, ticket: u64, outcome: Result<u16, AddressError>) {
        match outcome {
            Ok(slot) => self.journal.then(Effect::Addressed { ticket, slot }),
            Err(why) => self.out.push_back(Output::Addressed {
                ticket,
                outcome: Err(why),
            }),
        }
    }
}
