//! A client's own addresses: one for each correspondent, if its owner likes, and each revocable.
//!
//! Spec: docs/spec/client.md, rules CLI-31 to CLI-33.
//!
//! | quantity | type       | unit, range                                                         |
//! |----------|------------|---------------------------------------------------------------------|
//! | slot     | `u16`      | names an address here and on the mailbox link; never used twice     |
//! | label    | text       | the owner's name for it, 1 to [`LABEL_MAX`] bytes, each once         |
//! | live     | addresses  | 1 to [`ADDRESSES_MAX`], those revoked since the link came up with it |
//!
//! Slot 0 is the identity that the client was made with. Every other address has secrets drawn for
//! it alone, so that no two can be told to be of one client by what they say. (The gateway that
//! keeps their mailboxes on one link can; see docs/THREAT_MODEL.md.)
//!
//! Not done here: who was given which address.

use std::collections::BTreeMap;

use rand_core::CryptoRng;

use super::{
    Client, IDENTITY_LEN, Identity, Output,
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

struct Slot {
    identity: Identity,
    label: String,
    revoked: bool,
}

pub(crate) struct Addresses {
    slots: BTreeMap<u16, Slot>,
    next: u16,
    /// Grows with every change.
    version: u64,
}

fn record(slot: u16) -> Vec<u8> {
    key(kind::ADDRESS, &[&slot.to_be_bytes()])
}

impl Addresses {
    pub(crate) fn new(first: Identity) -> Self {
        let first = Slot {
            identity: first,
            label: FIRST_LABEL.to_owned(),
            revoked: false,
        };
        Self {
            slots: [(0, first)].into(),
            next: 1,
            version: 0,
        }
    }

    /// Reads a record back: empty for one that was revoked; `false` if it is none.
    pub(crate) fn restore(&mut self, slot: u16, value: &[u8]) -> bool {
        self.next = self.next.max(slot.saturating_add(1));
        if value.is_empty() {
            self.slots.remove(&slot);
            return true;
        }
        let Some((identity, label)) = value.split_first_chunk::<IDENTITY_LEN>() else {
            return false;
        };
        let (Some(identity), Ok(label)) = (
            Identity::from_bytes(identity),
            core::str::from_utf8(label).map(str::to_owned),
        ) else {
            return false;
        };
        self.keep(slot, identity, label);
        true
    }

    /// Holds a live address.
    fn keep(&mut self, slot: u16, identity: Identity, label: String) {
        let revoked = false;
        self.slots.insert(
            slot,
            Slot {
                identity,
                label,
                revoked,
            },
        );
    }

    /// Whether there is a live one.
    pub(crate) fn is_some(&self) -> bool {
        self.live().next().is_some()
    }

    fn live(&self) -> impl Iterator<Item = (u16, &Slot)> {
        let live = self.slots.iter().filter(|(_, slot)| !slot.revoked);
        live.map(|(number, slot)| (*number, slot))
    }

    /// The number of the address that loops and reply blocks come to: the oldest that is live.
    pub(crate) fn home(&self) -> (u16, &Identity) {
        let (number, slot) = self.live().next().expect("the last one is never revoked");
        (number, &slot.identity)
    }

    /// The secrets of a slot whose packets are read.
    pub(crate) fn of(&self, slot: u16) -> Option<&Identity> {
        let slot = self.slots.get(&slot).filter(|slot| !slot.revoked)?;
        Some(&slot.identity)
    }

    /// Whether this slot may still be open on the mailbox link, though it was revoked.
    pub(crate) fn was(&self, slot: u16) -> bool {
        self.slots.get(&slot).is_some_and(|slot| slot.revoked)
    }

    /// Numbers of those to open on a new link, on which none of the revoked ones is.
    pub(crate) fn reopen(&mut self) -> Vec<u16> {
        self.slots.retain(|_, slot| !slot.revoked);
        self.slots.keys().copied().collect()
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
        if self.named(&label).is_some() {
            return Err(AddressError::Taken);
        }
        let slot = self.next;
        if self.slots.len() >= ADDRESSES_MAX || slot == u16::MAX {
            return Err(AddressError::TooMany);
        }
        let identity = Identity::generate(rng, self.home().1.gateway());
        let value = [&*identity.to_bytes(), label.as_bytes()].concat();
        journal.put(record(slot), value);
        self.next += 1;
        self.version += 1;
        self.keep(slot, identity, label);
        Ok(slot)
    }

    /// Forgets the secrets of one, for good (CLI-32).
    fn revoke(&mut self, label: &str, journal: &mut Journal) -> Result<u16, AddressError> {
        let slot = self.named(label).ok_or(AddressError::Unknown)?;
        if self.live().nth(1).is_none() {
            return Err(AddressError::Last);
        }
        journal.put(record(slot), Vec::new());
        journal.forget_cursor(slot);
        if let Some(known) = self.slots.get_mut(&slot) {
            known.revoked = true;
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
        if let Ok(slot) = made {
            self.mailbox.open(slot);
        }
        self.addressed(ticket, made);
    }

    /// The owner wants one gone.
    pub(super) fn revoke(&mut self, ticket: u64, label: &str) {
        let home = self.addresses.home().0;
        let revoked = self.addresses.revoke(label, &mut self.journal);
        if revoked == Ok(home) {
            self.loops.forget(); // they come to another one from now on
        }
        self.addressed(ticket, revoked);
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
