//! Who knows which of the client's addresses, and where they have moved to.
//!
//! Spec: docs/spec/client.md, rule CLI-41; docs/spec/message.md, MSG-24 and MSG-25.
//!
//! | record field | bytes   | what                                                                |
//! |--------------|---------|---------------------------------------------------------------------|
//! | day          | 4       | of the last message with a return, UTC days                         |
//! | knows        | 2       | slot of the mailbox to which they write, as far as we know          |
//! | ours         | 1       | 1: the owner wrote there                                            |
//! | moved        | 0 or 104| order u64 and the address that they have moved to                   |
//!
//! A contact is a pair of an own address and a correspondent's. Nothing that came to one of the own
//! addresses changes what is sent in another's name: else whoever moved could see that two are one
//! client's (CLI-33). Bounded: those that never heard from the owner are forgotten first.
//!
//! Not done here: telling them (`moving`).

use std::collections::BTreeMap;

use super::journal::{Journal, key, kind};
use crate::address::{ADDRESS_LEN, Address};

/// Moves in a row that a message follows.
const HOPS_MAX: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Contact {
    day: u32,
    knows: u16,
    ours: bool,
    moved: Option<(u64, Address)>,
}

#[derive(Default)]
pub(crate) struct Contacts {
    all: BTreeMap<(u16, Address), Contact>,
    /// Grows whenever a correspondent moves.
    version: u64,
}

fn record(line: u16, who: &Address) -> Vec<u8> {
    key(kind::CONTACT, &[&line.to_be_bytes(), &who.to_bytes()])
}

impl Contact {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.day.to_be_bytes().to_vec();
        bytes.extend(self.knows.to_be_bytes());
        bytes.push(self.ours.into());
        if let Some((order, to)) = self.moved {
            bytes.extend(order.to_be_bytes());
            bytes.extend(to.to_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (day, rest) = bytes.split_first_chunk()?;
        let (knows, rest) = rest.split_first_chunk()?;
        let (ours, rest) = rest.split_first()?;
        let moved = if rest.is_empty() {
            None
        } else {
            let (order, to) = rest.split_first_chunk()?;
            let to = Address::from_bytes(to.try_into().ok()?).ok()?;
            Some((u64::from_be_bytes(*order), to))
        };
        Some(Self {
            day: u32::from_be_bytes(*day),
            knows: u16::from_be_bytes(*knows),
            ours: *ours == 1,
            moved,
        })
    }
}

/// One exchange that showed an own address to a correspondent.
pub(crate) struct Meeting {
    pub(crate) line: u16,
    pub(crate) who: Address,
    /// The slot of the mailbox that they wrote to, or were given.
    pub(crate) mailbox: u16,
    /// Whether the owner wrote.
    pub(crate) ours: bool,
    pub(crate) day: u32,
}

impl Contacts {
    /// Reads a record back; `false` if it is none.
    pub(crate) fn restore(&mut self, rest: &[u8], value: &[u8]) -> bool {
        let parse = || {
            let (line, who) = rest.split_first_chunk()?;
            let who: &[u8; ADDRESS_LEN] = who.try_into().ok()?;
            let who = Address::from_bytes(who).ok()?;
            Some(((u16::from_be_bytes(*line), who), Contact::parse(value)?))
        };
        let Some((whose, of)) = parse() else {
            return false;
        };
        self.version += u64::from(of.moved.is_some());
        self.all.insert(whose, of);
        true
    }

    fn set(&mut self, line: u16, who: Address, to: Contact, journal: &mut Journal) {
        journal.put(record(line, &who), to.to_bytes());
        self.all.insert((line, who), to);
    }

    /// Remembers a correspondent (CLI-41). One who writes to a mailbox that has moved since is told
    /// again, whatever we thought that he knows.
    pub(crate) fn met(&mut self, met: Meeting, contacts_max: usize, journal: &mut Journal) {
        let known = self.all.get(&(met.line, met.who)).copied();
        let mut now = known.unwrap_or(Contact {
            day: met.day,
            knows: met.mailbox,
            ours: met.ours,
            moved: None,
        });
        now.day = met.day.max(now.day);
        now.ours |= met.ours;
        if !met.ours {
            now.knows = met.mailbox.min(now.knows);
        }
        if known != Some(now) {
            self.set(met.line, met.who, now, journal);
        }
        self.bound(contacts_max, journal);
    }

    /// Forgets the oldest, those first that never heard from the owner.
    fn bound(&mut self, contacts_max: usize, journal: &mut Journal) {
        while self.all.len() > contacts_max {
            let first = self.all.iter();
            let first = first.min_by_key(|(whose, of)| (of.ours, of.day, **whose));
            let Some(whose) = first.map(|(whose, _)| *whose) else {
                return;
            };
            self.forget(whose, journal);
        }
    }

    fn forget(&mut self, whose: (u16, Address), journal: &mut Journal) {
        self.all.remove(&whose);
        journal.delete(record(whose.0, &whose.1));
    }

    fn forget_those(&mut self, goes: impl Fn(u16, &Contact) -> bool, journal: &mut Journal) {
        let those = self.all.iter().filter(|((line, _), of)| goes(*line, of));
        let those: Vec<_> = those.map(|(whose, _)| *whose).collect();
        those
            .into_iter()
            .for_each(|whose| self.forget(whose, journal));
    }

    /// An own address is revoked.
    pub(crate) fn revoked(&mut self, line: u16, journal: &mut Journal) {
        self.forget_those(|of, _| of == line, journal);
    }

    /// A mailbox is closed for good: who knows nothing newer can't be told any more.
    pub(crate) fn closed(&mut self, mailbox: u16, journal: &mut Journal) {
        let goes = |of: &Contact| of.knows == mailbox && of.moved.is_none();
        self.forget_those(|_, of| goes(of), journal);
    }

    /// Whether an own address has to do with this correspondent.
    pub(crate) fn knows(&self, line: u16, who: &Address) -> bool {
        self.all.contains_key(&(line, *who))
    }

    /// A correspondent of an own address has moved, as is proven; whether that is news.
    pub(crate) fn moved(
        &mut self,
        line: u16,
        (old, new): (Address, Address),
        order: u64,
        contacts_max: usize,
        journal: &mut Journal,
    ) -> bool {
        let known = self.all.get(&(line, old)).copied();
        let older = |of: &Contact| of.moved.is_none_or(|(before, _)| before < order);
        let Some(mut contact) = known.filter(older) else {
            return false;
        };
        if !self.knows(line, &new) {
            let next = Contact {
                moved: None,
                ..contact
            };
            self.set(line, new, next, journal);
        }
        contact.moved = Some((order, new));
        self.set(line, old, contact, journal);
        self.bound(contacts_max, journal);
        self.version += 1;
        true
    }

    /// Where what an own address sends to `who` goes now.
    pub(crate) fn now_at(&self, line: u16, who: &Address) -> Address {
        let mut at = *who;
        for _ in 0..HOPS_MAX {
            match self.all.get(&(line, at)).and_then(|of| of.moved) {
                Some((_, next)) => at = next,
                None => break,
            }
        }
        at
    }

    /// Whether any own address heard that this one has moved.
    pub(crate) fn has_moved(&self, who: &Address) -> bool {
        let mut all = self.all.iter();
        all.any(|((_, of), contact)| of == who && contact.moved.is_some())
    }

    /// All that have moved: of which own address, whence and where to.
    pub(crate) fn relocated(&self) -> impl Iterator<Item = (u16, Address, Address)> {
        let all = self.all.iter();
        all.filter_map(|((line, old), of)| Some((*line, *old, of.moved?.1)))
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Those that have not moved: own address, whose, and which mailbox of it they know.
    pub(crate) fn present(&self) -> impl Iterator<Item = (u16, Address, u16)> {
        let present = self.all.iter().filter(|(_, of)| of.moved.is_none());
        present.map(|((line, who), of)| (*line, *who, of.knows))
    }

    /// A correspondent has acknowledged to know this mailbox.
    pub(crate) fn told(&mut self, line: u16, who: Address, mailbox: u16, journal: &mut Journal) {
        if let Some(mut of) = self.all.get(&(line, who)).copied() {
            of.knows = mailbox;
            self.set(line, who, of, journal);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MailboxId, NodeId};

    fn address(byte: u8) -> Address {
        Address {
            gateway: NodeId([byte; 32]),
            mailbox: MailboxId([byte; 32]),
            key: sphinx::SecretKey::from_bytes([9; 32]).public(),
        }
    }

    fn met(who: u8, mailbox: u16, ours: bool, day: u32) -> Meeting {
        let (line, who) = (0, address(who));
        Meeting {
            line,
            who,
            mailbox,
            ours,
            day,
        }
    }

    fn known(contacts: &Contacts) -> Vec<u8> {
        let all = contacts.present();
        all.map(|(_, who, _)| who.mailbox.0[0]).collect()
    }

    /// CLI-41: whom the owner never wrote to is forgotten first, then the oldest; one who writes to a
    /// former mailbox is to be told again.
    #[test]
    fn contacts_are_bounded_and_told_again() {
        let (mut contacts, mut journal) = (Contacts::default(), Journal::default());
        for (who, ours, day) in [(1, true, 1), (2, true, 2), (3, false, 9), (4, false, 8)] {
            contacts.met(met(who, 5, ours, day), 3, &mut journal);
        }
        assert_eq!(known(&contacts), [1, 2, 3]);
        contacts.met(met(5, 5, true, 9), 3, &mut journal);
        contacts.met(met(6, 5, true, 9), 3, &mut journal);
        assert_eq!(known(&contacts), [2, 5, 6]);
        let knows = |contacts: &Contacts| {
            let mut present = contacts.present();
            present
                .find(|(_, who, _)| *who == address(6))
                .map(|of| of.2)
        };
        contacts.told(0, address(6), 7, &mut journal);
        contacts.met(met(6, 7, true, 9), 3, &mut journal);
        assert_eq!(knows(&contacts), Some(7));
        contacts.met(met(6, 5, false, 9), 3, &mut journal);
        assert_eq!(knows(&contacts), Some(5));
        contacts.closed(5, &mut journal);
        assert_eq!(known(&contacts), []);
    }

    /// MSG-24: the higher order holds; moves in a row are followed, in a circle not for ever, and of
    /// one own address only.
    #[test]
    fn moves_are_followed_in_their_order() {
        let (mut contacts, mut journal) = (Contacts::default(), Journal::default());
        contacts.met(met(1, 0, true, 1), 9, &mut journal);
        let mut moved = |contacts: &mut Contacts, from, to, order| {
            let addresses = (address(from), address(to));
            contacts.moved(0, addresses, order, 9, &mut journal)
        };
        assert!(!moved(&mut contacts, 7, 8, 1), "a stranger");
        assert!(moved(&mut contacts, 1, 2, 5) && moved(&mut contacts, 2, 3, 6));
        assert!(!moved(&mut contacts, 1, 9, 5) && !moved(&mut contacts, 1, 9, 4));
        assert_eq!(contacts.now_at(0, &address(1)), address(3));
        assert_eq!(contacts.now_at(1, &address(1)), address(1));
        assert!(contacts.has_moved(&address(2)) && !contacts.has_moved(&address(3)));
        assert!(moved(&mut contacts, 3, 1, 7));
        let _ends = contacts.now_at(0, &address(1));
        for ((line, who), contact) in &contacts.all {
            let mut again = Contacts::default();
            let key = record(*line, who);
            assert!(again.restore(&key[1..], &contact.to_bytes()));
            assert!(again.all == [((*line, *who), *contact)].into());
            assert!(!again.restore(&key, &contact.to_bytes()));
        }
    }
}
