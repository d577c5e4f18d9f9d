//! A client's own addresses: one for each correspondent, if its owner likes, and each revocable.
//!
//! Spec: docs/spec/client.md, rules CLI-31 to CLI-33, CLI-40 and CLI-43.
//!
//! | quantity | type       | unit, range                                                         |
//! |----------|------------|---------------------------------------------------------------------|
//! | slot     | `u16`      | names a mailbox here and on its link; never used twice              |
//! | line     | `u16`      | names an address, also after a move: the slot of its first mailbox  |
//! | label    | text       | the owner's name for it, 1 to [`LABEL_MAX`] bytes, each once         |
//! | all      | addresses  | 1 to [`ADDRESSES_MAX`], those revoked since the link came up with it |
//!
//! An address that moves gets another mailbox, with other secrets, at another gateway; the former one
//! is read on until its time is over. What came to an address is known by its line, whichever of its
//! mailboxes it came to.
//!
//! Slot 0 is the identity that the client was made with, and a record like the others. Each address
//! has secrets drawn for it alone, so that no two can be told to be of one client by what they say. (The gateway that
//! keeps their mailboxes on one link can; see docs/THREAT_MODEL.md.)
//!
//! Not done here: how they move (`moves`), who was given which address.

mod moves;

use std::collections::BTreeMap;

pub use moves::{MAILBOX_GATEWAYS_MAX, MOVES_MAX};
use moves::{Move, move_record};
use rand::seq::SliceRandom as _;
use rand_core::CryptoRng;

use super::{
    Client, IDENTITY_LEN, Identity, Output,
    came::OwnSecret,
    journal::{Effect, Journal, key, kind},
};
use crate::{NodeId, address::Address, wire::CURSORS_MAX};

/// Addresses of one client: as many as a mailbox link has slots (GW-6).
pub const ADDRESSES_MAX: usize = CURSORS_MAX;
/// Bytes of a label.
pub const LABEL_MAX: usize = 64;
/// Label of the address that the client was made with.
pub const FIRST_LABEL: &str = "main";

/// One of a client's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// Its number, which it keeps when it moves.
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
    /// There is no consensus, no calendar or no epoch yet.
    NotReady,
    /// To move to: it is no gateway of the network, or the one where the mailbox is.
    NoGateway,
    /// To move to, if none is named: mailboxes are or were at each one that is not down, withdrawn, or
    /// left as an entry (CLI-40).
    NoOther,
    /// A move is being written.
    Moving,
    /// There were [`MOVES_MAX`] moves within the time that a mailbox keeps a packet.
    TooSoon {
        /// Seconds until the next one is possible.
        wait_s: u64,
    },
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
    line: u16,
    came: Option<Move>,
    /// It has moved on, and is read until then.
    until_s: Option<u64>,
    /// Something came by it since the start: its gateway keeps it.
    open: bool,
}

#[derive(Default)]
pub(crate) struct Addresses {
    slots: BTreeMap<u16, Slot>,
    next: u16,
    /// Grows with every change.
    version: u64,
    /// A move is not durable yet.
    moving: bool,
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
    for wanted in [kind::ADDRESS, kind::MOVE] {
        for (key, value) in records {
            if let Some((kind, slot)) = key.split_first()
                && *kind == wanted
                && let Ok(slot) = slot.try_into().map(u16::from_be_bytes)
            {
                let _known = match wanted {
                    kind::ADDRESS => all.restore(slot, value),
                    _ => all.restore_move(slot, value),
                };
            }
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
            line: slot,
            came: None,
            until_s: None,
            open: false,
        };
        self.slots.insert(slot, known);
        true
    }

    /// Whether there is a live one.
    pub(crate) fn is_some(&self) -> bool {
        self.current().next().is_some()
    }

    fn those(&self, state: State) -> impl Iterator<Item = (u16, &Slot)> {
        let those = self.slots.iter().filter(move |(_, of)| of.state == state);
        those.map(|(number, slot)| (*number, slot))
    }

    fn live(&self) -> impl Iterator<Item = (u16, &Slot)> {
        self.those(State::Live)
    }

    /// Those whose addresses the owner gives out.
    fn current(&self) -> impl Iterator<Item = (u16, &Slot)> {
        self.live().filter(|(_, of)| of.until_s.is_none())
    }

    fn oldest(&self) -> (u16, &Slot) {
        let oldest = self.current().min_by_key(|(_, of)| of.line);
        oldest.expect("the last one is never revoked")
    }

    /// The mailbox that loops and reply blocks come to: that of the oldest address that is live.
    pub(crate) fn home(&self) -> (u16, &Identity) {
        let (number, slot) = self.oldest();
        (number, &slot.identity)
    }

    /// That address.
    pub(crate) fn home_line(&self) -> u16 {
        self.oldest().1.line
    }

    /// The mailbox of an address, and its secrets.
    pub(crate) fn mailbox_of(&self, line: u16) -> Option<(u16, &Identity)> {
        let mut current = self.current();
        let (number, slot) = current.find(|(_, of)| of.line == line)?;
        Some((number, &slot.identity))
    }

    /// The address that a mailbox is, or was, of.
    pub(crate) fn line_of(&self, slot: u16) -> Option<u16> {
        self.slots.get(&slot).map(|of| of.line)
    }

    /// Where a mailbox is, though it be revoked.
    pub(crate) fn at(&self, slot: u16) -> Option<NodeId> {
        self.slots.get(&slot).map(|of| of.identity.gateway())
    }

    /// The gateways where mailboxes of the client's are read, that of the home first, and until when
    /// the others are.
    pub(crate) fn gateways(&self) -> Vec<(NodeId, Option<u64>)> {
        let mut all = vec![(self.home().1.gateway(), None)];
        for (_, of) in self.live() {
            let gateway = of.identity.gateway();
            match all.iter_mut().find(|(known, _)| *known == gateway) {
                Some((_, until_s)) => *until_s = until_s.and(of.until_s.max(*until_s)),
                None => all.push((gateway, of.until_s)),
            }
        }
        all
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

    /// Numbers of those to open on a new link to `gateway`, the home first and the others in an order of this
    /// link's own (CLI-31); none of the revoked ones is on it.
    pub(crate) fn reopen(&mut self, gateway: NodeId, rng: &mut impl CryptoRng) -> Vec<u16> {
        let here = |of: &Slot| of.identity.gateway() == gateway;
        self.slots
            .retain(|_, slot| slot.state != State::Revoked || !here(slot));
        let live = self.live().filter(|(_, of)| here(of));
        let mut live: Vec<u16> = live.map(|(slot, _)| slot).collect();
        live.shuffle(rng);
        let home = self.home().0;
        if let Some(first) = live.iter().position(|slot| *slot == home) {
            live.swap(0, first);
        }
        live
    }

    pub(crate) fn list(&self) -> Vec<OwnAddress> {
        let own = |(_, known): (u16, &Slot)| OwnAddress {
            slot: known.line,
            label: known.label.clone(),
            address: known.identity.address(),
        };
        let mut list: Vec<OwnAddress> = self.current().map(own).collect();
        list.sort_by_key(|own| own.slot);
        list
    }

    fn named(&self, label: &str) -> Option<u16> {
        let (_, of) = self.current().find(|(_, of)| of.label == label)?;
        Some(of.line)
    }

    /// Whether `more` mailboxes can be opened at `gateway`, too.
    fn has_room(&self, gateway: NodeId, more: usize) -> bool {
        let here = self.slots.values().map(|of| of.identity.gateway());
        here.filter(|at| *at == gateway).count() + more <= ADDRESSES_MAX
            && usize::from(self.next) + more <= usize::from(u16::MAX)
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
        if self.moving {
            return Err(AddressError::Moving);
        }
        let mut others = self.slots.values().filter(|of| of.state != State::Revoked);
        if others.any(|of| of.label == label) {
            return Err(AddressError::Taken);
        }
        let (slot, gateway) = (self.next, self.home().1.gateway());
        if !self.has_room(gateway, 1) {
            return Err(AddressError::TooMany);
        }
        let identity = Identity::generate(rng, gateway);
        let (key, value) = to_record(slot, &identity, &label);
        journal.put(key, value);
        self.next += 1;
        let made = Slot {
            identity,
            label,
            state: State::Made,
            line: slot,
            came: None,
            until_s: None,
            open: false,
        };
        self.slots.insert(slot, made);
        Ok(slot)
    }

    /// What was made or revoked is durable; where an address came to life by that.
    fn durable(&mut self, slot: u16) -> Option<NodeId> {
        let made = self.slots.get_mut(&slot);
        let made = made.filter(|slot| slot.state == State::Made)?;
        made.state = State::Live;
        self.version += 1;
        Some(made.identity.gateway())
    }

    fn erase(&self, slot: u16, journal: &mut Journal) {
        journal.put(record(slot), Vec::new());
        journal.delete(move_record(slot));
        journal.forget_cursor(slot);
    }

    /// Forgets the secrets of one, for good, those of its former mailboxes too (CLI-32).
    fn revoke(&mut self, label: &str, journal: &mut Journal) -> Result<u16, AddressError> {
        if self.moving {
            return Err(AddressError::Moving);
        }
        let line = self.named(label).ok_or(AddressError::Unknown)?;
        if self.current().nth(1).is_none() {
            return Err(AddressError::Last);
        }
        let its = self.live().filter(|(_, of)| of.line == line);
        let its: Vec<u16> = its.map(|(slot, _)| slot).collect();
        for slot in its {
            self.erase(slot, journal);
            if let Some(known) = self.slots.get_mut(&slot) {
                (known.state, known.until_s) = (State::Revoked, None);
            }
        }
        journal.erase();
        self.version += 1;
        Ok(line)
    }
}

impl Client {
    /// Its addresses, the first one first, and a number that grows with every change of them.
    #[must_use]
    pub fn addresses(&self) -> (u64, Vec<OwnAddress>) {
        (self.addresses.version, self.addresses.list())
    }

    /// Those that were not asked to be opened on the present link to their gateway, by number: what comes there
    /// waits.
    #[must_use]
    pub fn unopened_addresses(&self) -> Vec<u16> {
        let is_asked = |own: &OwnAddress| {
            let mailbox = self.addresses.mailbox_of(own.slot);
            mailbox.is_some_and(|(slot, of)| self.mailbox.has_asked(of.gateway(), slot))
        };
        let all = self.addresses.list().into_iter();
        all.filter(|own| !is_asked(own))
            .map(|own| own.slot)
            .collect()
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
        let home = self.addresses.home_line();
        let revoked = self.addresses.revoke(label, &mut self.journal);
        if revoked == Ok(home) {
            self.loops.forget(); // they come to another one from now on
        }
        if let Ok(slot) = revoked {
            self.acks.forget(slot);
            self.inbox.forget(slot, &mut self.journal);
            self.outbox.revoked(slot, &mut self.journal);
            self.contacts.revoked(slot, &mut self.journal);
            self.plan_notices();
        }
        self.addressed(ticket, revoked);
    }

    /// An order for an address is carried out, durably: it may be told now, and opened.
    pub(super) fn address_durable(&mut self, ticket: u64, slot: u16) {
        if let Some(gateway) = self.addresses.durable(slot) {
            self.mailbox.open(gateway, slot);
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
