//! Who knows which of the client's addresses, and where they have moved to.
//!
//! Spec: docs/spec/client.md, rule CLI-41; docs/spec/message.md, MSG-24 and MSG-25.
//!
//! | record field | bytes   | what                                                                |
//! |--------------|---------|---------------------------------------------------------------------|
//! | day          | 4       | of the last message with a return, UTC days                         |
//! | knows        | 2       | slot of the mailbox to which they write, as far as is proven;       |
//! |              |         | [`NONE`]: of none that is read                                      |
//! | newest       | 2       | that of the newest one that a message of theirs came to, or that    |
//! |              |         | they were given: who names himself proves nothing                   |
//! | ours         | 1       | 1: the owner wrote there                                            |
//! | order        | 8       | of the last move that was taken; 0: none was                        |
//! | moved_s      | 8       | when it was taken, UTC seconds                                      |
//! | was          | n × 96  | addresses that led here, the last one last, 0 to [`WAS_MAX`]        |
//!
//! A contact is a pair of an own address and a correspondent's, the one where they are now: whoever
//! moves, however often, takes one place. Nothing that came to one of the own addresses changes what
//! is sent in another's name: else whoever moved could see that two are one client's (CLI-33).
//! Bounded: of the own address that has the most, those that never heard from the owner are forgotten
//! first.
//!
//! Not done here: telling them (`moving`).

use std::collections::BTreeMap;

use super::journal::{Journal, key, kind};
use crate::address::{ADDRESS_LEN, Address};

/// Former addresses of a correspondent that lead to where they are now.
const WAS_MAX: usize = 8;
/// Seconds between two moves of one correspondent, that nobody floods the application with them.
/// Owners move three times in 14 days; a notice that comes too early is not acknowledged, so it comes
/// again.
const REST_S: u64 = 3600;

/// A slot that no mailbox has.
const NONE: u16 = u16::MAX;

#[derive(Clone, Default, PartialEq, Eq)]
struct Contact {
    day: u32,
    knows: u16,
    newest: u16,
    ours: bool,
    order: u64,
    moved_s: u64,
    was: Vec<Address>,
}

/// An own address, and whom it has to do with.
pub(crate) type Whose = (u16, Address);

/// That of these addresses the owner is at the second one now, as is proven.
pub(crate) struct Move {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) order: u64,
    /// When it came.
    pub(crate) now_s: u64,
    /// For how long a mailbox that is left keeps packets, and can say where to.
    pub(crate) keeps_s: u64,
}

#[derive(Default)]
pub(crate) struct Contacts {
    all: BTreeMap<Whose, Contact>,
    /// Where those are that were elsewhere.
    now_at: BTreeMap<Whose, Address>,
    /// Grows whenever a correspondent moves.
    version: u64,
}

fn record(line: u16, who: &Address) -> Vec<u8> {
    key(kind::CONTACT, &[&line.to_be_bytes(), &who.to_bytes()])
}

impl Contact {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.day.to_be_bytes().to_vec();
        bytes.extend(self.knows.to_be_bytes());
        bytes.extend(self.newest.to_be_bytes());
        bytes.push(self.ours.into());
        bytes.extend(self.order.to_be_bytes());
        bytes.extend(self.moved_s.to_be_bytes());
        let was = self.was.iter().flat_map(Address::to_bytes);
        bytes.extend(was);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (day, rest) = bytes.split_first_chunk()?;
        let (knows, rest) = rest.split_first_chunk()?;
        let (newest, rest) = rest.split_first_chunk()?;
        let (ours, rest) = rest.split_first()?;
        let (order, rest) = rest.split_first_chunk()?;
        let (moved_s, rest) = rest.split_first_chunk()?;
        let (was, odd) = rest.as_chunks::<ADDRESS_LEN>();
        let was: Result<Vec<Address>, _> = was.iter().map(Address::from_bytes).collect();
        odd.is_empty().then_some(Self {
            day: u32::from_be_bytes(*day),
            knows: u16::from_be_bytes(*knows),
            newest: u16::from_be_bytes(*newest),
            ours: *ours == 1,
            order: u64::from_be_bytes(*order),
            moved_s: u64::from_be_bytes(*moved_s),
            was: was.ok().filter(|was| was.len() <= WAS_MAX)?,
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
        self.version += u64::from(!of.was.is_empty());
        self.insert(whose, of);
        true
    }

    fn insert(&mut self, whose: Whose, of: Contact) {
        let (line, who) = whose;
        self.now_at
            .extend(of.was.iter().map(|was| ((line, *was), who)));
        self.all.insert(whose, of);
    }

    fn set(&mut self, line: u16, who: Address, to: Contact, journal: &mut Journal) {
        journal.put(record(line, &who), to.to_bytes());
        self.insert((line, who), to);
    }

    /// Remembers a correspondent (CLI-41), and says who was forgotten for it. One who writes to a
    /// mailbox that has moved since is told again, whatever we thought that he knows.
    pub(crate) fn met(
        &mut self,
        met: &Meeting,
        contacts_max: usize,
        journal: &mut Journal,
    ) -> Vec<Whose> {
        let who = self.now_at(met.line, &met.who);
        let known = self.all.get(&(met.line, who)).cloned();
        let mut now = known.clone().unwrap_or(Contact {
            day: met.day,
            knows: met.mailbox,
            newest: met.mailbox,
            ours: met.ours,
            ..Contact::default()
        });
        now.day = met.day.max(now.day);
        now.newest = met.mailbox.max(now.newest);
        now.ours |= met.ours;
        if !met.ours || now.knows == NONE {
            now.knows = met.mailbox.min(now.knows);
        }
        if known.as_ref() != Some(&now) {
            self.set(met.line, who, now, journal);
        }
        self.bound(contacts_max, journal)
    }

    /// Forgets the oldest of the own address that has the most, those first that never heard from the
    /// owner: whoever fills one address sees nothing of it at another that has fewer.
    fn bound(&mut self, contacts_max: usize, journal: &mut Journal) -> Vec<Whose> {
        let mut forgotten = Vec::new();
        while self.all.len() > contacts_max {
            let mut counts = BTreeMap::<u16, usize>::new();
            for (line, _) in self.all.keys() {
                *counts.entry(*line).or_default() += 1;
            }
            let most = counts.into_iter().max_by_key(|(_, count)| *count);
            let its = self.all.iter();
            let its = its.filter(|((line, _), _)| most.is_some_and(|(most, _)| most == *line));
            let first = its.min_by_key(|(whose, of)| (of.ours, of.day, **whose));
            let Some(whose) = first.map(|(whose, _)| *whose) else {
                break;
            };
            self.take(whose.0, whose.1, journal);
            forgotten.push(whose);
        }
        forgotten
    }

    fn take(&mut self, line: u16, who: Address, journal: &mut Journal) -> Option<Contact> {
        let of = self.all.remove(&(line, who))?;
        for was in &of.was {
            self.now_at.remove(&(line, *was));
        }
        journal.delete(record(line, &who));
        Some(of)
    }

    fn forget_those(&mut self, goes: impl Fn(u16, &Contact) -> bool, journal: &mut Journal) {
        let those = self.all.iter().filter(|((line, _), of)| goes(*line, of));
        let those: Vec<_> = those.map(|(whose, _)| *whose).collect();
        for (line, who) in those {
            self.take(line, who, journal);
        }
    }

    /// An own address is revoked.
    pub(crate) fn revoked(&mut self, line: u16, journal: &mut Journal) {
        self.forget_those(|of, _| of == line, journal);
    }

    /// A mailbox is closed for good, and can tell nobody of its next any more: who seems to know a newer
    /// one is taken to, whether he acknowledged it or not; who does not is lost.
    pub(crate) fn closed(&mut self, mailbox: u16, journal: &mut Journal) {
        let goes = |of: &Contact| of.knows == mailbox && of.newest <= mailbox && of.was.is_empty();
        self.forget_those(|_, of| goes(of), journal);
        let stay = self.all.iter_mut();
        let stay = stay.filter(|(_, of)| of.knows == mailbox);
        for ((line, who), of) in stay {
            let knows_newer = of.newest > mailbox;
            of.knows = if knows_newer { of.newest } else { NONE };
            journal.put(record(*line, who), of.to_bytes());
        }
    }

    /// Whether an own address has to do with this correspondent.
    pub(crate) fn knows(&self, line: u16, who: &Address) -> bool {
        self.all.contains_key(&(line, self.now_at(line, who)))
    }

    /// A correspondent of an own address has moved, as is proven: the new address takes the place of
    /// the old one. Whether that is news: the higher order holds, the next one can wait, and where they
    /// no longer are has no say once its mailbox must be closed: old backups have its key.
    pub(crate) fn moved(&mut self, line: u16, news: &Move, journal: &mut Journal) -> bool {
        let before = self.now_at(line, &news.from);
        let Some(known) = self.all.get(&(line, before)) else {
            return false;
        };
        let rested = known.order == 0 || known.moved_s.saturating_add(REST_S) <= news.now_s;
        let says_s = known.moved_s.saturating_add(news.keeps_s + REST_S);
        let may_say = before == news.from || news.now_s < says_s;
        if news.order <= known.order || !rested || !may_say {
            return false;
        }
        let there = self.now_at(line, &news.to);
        let mut next = self.take(line, before, journal).unwrap_or_default();
        next.was.push(before);
        (next.order, next.moved_s) = (news.order, news.now_s);
        let mut now_at = news.to;
        // Who wrote from there before this came is known by that, too.
        if let Some(met) = self.take(line, there, journal) {
            next.day = met.day.max(next.day);
            next.knows = met.knows;
            next.newest = met.newest.max(next.newest);
            next.ours |= met.ours;
            next.was.extend(met.was);
            next.was.push(there);
            if met.order > news.order {
                (next.order, now_at) = (met.order, there);
            }
        }
        next.was.retain(|of| *of != now_at);
        next.was.drain(..next.was.len().saturating_sub(WAS_MAX));
        self.set(line, now_at, next, journal);
        self.version += 1;
        true
    }

    /// Whether this move of an own address' correspondent, or a later one, is in force.
    pub(crate) fn is_past(&self, line: u16, news: &Move) -> bool {
        let at = self.now_at(line, &news.from);
        let of = self.all.get(&(line, at));
        of.is_some_and(|of| of.order > news.order || of.order == news.order && at == news.to)
    }

    /// Where what an own address sends to `who` goes now.
    pub(crate) fn now_at(&self, line: u16, who: &Address) -> Address {
        *self.now_at.get(&(line, *who)).unwrap_or(who)
    }

    /// All that have moved: of which own address, whence and where to.
    pub(crate) fn relocated(&self) -> impl Iterator<Item = (u16, Address, Address)> {
        let all = self.now_at.iter();
        all.map(|((line, old), now)| (*line, *old, *now))
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// All where they are now.
    pub(crate) fn present(&self) -> impl Iterator<Item = Whose> {
        self.all.keys().copied()
    }

    /// Which mailbox of an own address one who is there now knows, and whether the owner wrote to them.
    pub(crate) fn known_to(&self, whose: &Whose) -> Option<(u16, bool)> {
        self.all.get(whose).map(|of| (of.knows, of.ours))
    }

    /// A correspondent has acknowledged to know this mailbox.
    pub(crate) fn told(&mut self, line: u16, who: Address, mailbox: u16, journal: &mut Journal) {
        let who = self.now_at(line, &who);
        if let Some(mut of) = self.all.get(&(line, who)).cloned() {
            of.knows = mailbox;
            of.newest = mailbox.max(of.newest);
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
        all.map(|(_, who)| who.mailbox.0[0]).collect()
    }

    /// Which mailbox of the first own address one knows.
    fn knows(contacts: &Contacts, who: u8) -> Option<u16> {
        let of = contacts.known_to(&(0, address(who)));
        of.map(|(mailbox, _)| mailbox)
    }

    /// CLI-41: whom the owner never wrote to is forgotten first, then the oldest; one who writes to a
    /// former mailbox is to be told again.
    #[test]
    fn contacts_are_bounded_and_told_again() {
        let (mut contacts, mut journal) = (Contacts::default(), Journal::default());
        for (who, ours, day) in [(1, true, 1), (2, true, 2), (3, false, 9), (4, false, 8)] {
            contacts.met(&met(who, 5, ours, day), 3, &mut journal);
        }
        assert_eq!(known(&contacts), [1, 2, 3]);
        let forgotten = contacts.met(&met(5, 5, true, 9), 3, &mut journal);
        assert!(forgotten == [(0, address(3))]);
        contacts.met(&met(6, 5, true, 9), 3, &mut journal);
        assert_eq!(known(&contacts), [2, 5, 6]);
        contacts.told(0, address(6), 7, &mut journal);
        contacts.met(&met(6, 7, true, 9), 3, &mut journal);
        assert_eq!(knows(&contacts, 6), Some(7));
        contacts.met(&met(6, 5, false, 9), 3, &mut journal);
        assert_eq!(knows(&contacts, 6), Some(5));
        contacts.closed(5, &mut journal);
        assert_eq!(known(&contacts), [6]);
    }

    /// CLI-41: whoever fills one address drives nobody out at another that has fewer.
    #[test]
    fn an_address_that_is_filled_shows_nothing_at_another() {
        let (mut contacts, mut journal) = (Contacts::default(), Journal::default());
        let at = |line, met| Meeting { line, ..met };
        for who in 1..=3 {
            contacts.met(&at(7, met(who, 7, false, 1)), 8, &mut journal);
        }
        for who in 1..=100 {
            contacts.met(&met(who, 0, true, 1000), 8, &mut journal);
        }
        let at = |line| contacts.present().filter(|(of, _)| *of == line).count();
        assert_eq!((at(0), at(7)), (5, 3));
    }

    /// CLI-43: one who never acknowledges, but writes to the next mailbox, is still told of that one, and
    /// after the closing of the one after. The control: one who does not write there is forgotten.
    #[test]
    fn one_without_acks_is_known_by_what_they_wrote_to() {
        let (mut contacts, mut journal) = (Contacts::default(), Journal::default());
        for (who, mailbox) in [(1, 0), (2, 0), (1, 3)] {
            contacts.met(&met(who, mailbox, false, 1), 9, &mut journal);
        }
        assert_eq!(
            knows(&contacts, 1),
            Some(0),
            "whoever writes may not be who he says"
        );
        reads_back(&contacts);
        contacts.closed(0, &mut journal);
        assert_eq!((known(&contacts), knows(&contacts, 1)), (vec![1], Some(3)));
        contacts.closed(3, &mut journal);
        assert_eq!(known(&contacts), []);
        // One who has moved stays, for his former addresses lead to him; and counts again once met.
        for ours in [false, true] {
            contacts.met(&met(5, 3, false, 1), 9, &mut journal);
            assert!(contacts.moved(0, &step(5, 6, 1, 0), &mut journal));
            contacts.closed(3, &mut journal);
            assert_eq!(knows(&contacts, 6), Some(NONE));
            contacts.met(&met(6, 4, ours, 1), 9, &mut journal);
            assert_eq!(knows(&contacts, 6), Some(4));
            reads_back(&contacts);
            contacts.revoked(0, &mut journal);
        }
    }

    const KEEPS_S: u64 = 14 * 86_400;

    fn step(from: u8, to: u8, order: u64, now_s: u64) -> Move {
        let (from, to) = (address(from), address(to));
        Move {
            from,
            to,
            order,
            now_s,
            keeps_s: KEEPS_S,
        }
    }

    fn reads_back(contacts: &Contacts) {
        let mut again = Contacts::default();
        for ((line, who), contact) in &contacts.all {
            let key = record(*line, who);
            assert!(again.restore(&key[1..], &contact.to_bytes()));
            assert!(!again.restore(&key, &contact.to_bytes()));
        }
        assert!(again.all == contacts.all && again.now_at == contacts.now_at);
    }

    /// MSG-24: the higher order holds; moves in a row are followed, whichever comes first, and of one
    /// own address only.
    #[test]
    fn moves_are_followed_in_their_order() {
        let (mut contacts, mut journal) = (Contacts::default(), Journal::default());
        contacts.met(&met(1, 0, true, 1), 9, &mut journal);
        let mut moved = |contacts: &mut Contacts, from, to, order| {
            let news = step(from, to, order, order * REST_S);
            let is_news = contacts.moved(0, &news, &mut journal);
            reads_back(contacts);
            (is_news, contacts.is_past(0, &news))
        };
        assert_eq!(moved(&mut contacts, 7, 8, 1), (false, false), "a stranger");
        assert_eq!(moved(&mut contacts, 1, 2, 5), (true, true));
        assert_eq!(moved(&mut contacts, 2, 3, 6), (true, true));
        assert_eq!(moved(&mut contacts, 1, 9, 6), (false, false), "another");
        assert_eq!(moved(&mut contacts, 1, 9, 5), (false, true));
        assert_eq!(moved(&mut contacts, 2, 3, 6), (false, true));
        for old in [1, 2, 3] {
            assert_eq!(contacts.now_at(0, &address(old)), address(3));
        }
        assert_eq!(contacts.now_at(1, &address(1)), address(1));
        // In a circle, and with one whom he was thought not to be.
        assert_eq!(moved(&mut contacts, 3, 1, 8), (true, true));
        assert_eq!(known(&contacts), [1]);
        let mut journal = Journal::default();
        contacts.met(&met(6, 0, true, 1), 9, &mut journal);
        assert!(contacts.moved(0, &step(6, 7, 30, 30 * REST_S), &mut journal));
        assert!(contacts.moved(0, &step(1, 6, 20, 20 * REST_S), &mut journal));
        assert_eq!(known(&contacts), [7], "the later one holds");
        assert_eq!(contacts.now_at(0, &address(3)), address(7));
        reads_back(&contacts);
    }

    /// MSG-24: the key of an address that was left commands for as long as its mailbox may still be
    /// read, and an hour, which is how long the next move may have to wait; then never again, whatever
    /// its order. The key of the present address does.
    #[test]
    fn a_former_key_commands_no_longer_than_its_mailbox_is_read() {
        let from_s = 1_000_000;
        for (late, last_s) in [(false, KEEPS_S + REST_S - 1), (true, KEEPS_S + REST_S)] {
            let (mut contacts, mut journal) = (Contacts::default(), Journal::default());
            contacts.met(&met(1, 0, true, 1), 9, &mut journal);
            assert!(contacts.moved(0, &step(1, 2, 5, from_s), &mut journal));
            let thief = step(1, 9, u64::MAX, from_s + last_s);
            assert_eq!(contacts.moved(0, &thief, &mut journal), !late);
            assert_eq!(
                contacts.is_past(0, &thief),
                !late,
                "else it is not acknowledged"
            );
            assert_eq!(known(&contacts), [if late { 2 } else { 9 }]);
            if late {
                let owner = step(2, 3, 6, from_s + 2 * last_s);
                assert!(contacts.moved(0, &owner, &mut journal));
            }
        }
    }

    /// MSG-24, CLI-41: whoever moves, however often, takes one place and drives out nobody, and not
    /// more often than once an hour. The control: as many who write drive others out.
    #[test]
    fn one_who_moves_and_moves_drives_out_nobody() {
        let (mut contacts, mut journal) = (Contacts::default(), Journal::default());
        for who in 1..=8 {
            contacts.met(&met(who, 0, true, u32::from(who)), 8, &mut journal);
        }
        for to in 8..=100 {
            let (order, day_s) = (u64::from(to), 86_400);
            let news = step(to, to + 1, order, order * day_s);
            assert!(contacts.moved(0, &news, &mut journal));
            let again = step(to + 1, to + 2, order + 1, order * day_s + REST_S - 1);
            assert!(!contacts.moved(0, &again, &mut journal) && !contacts.is_past(0, &again));
            contacts.met(&met(to + 1, 0, true, 1000), 8, &mut journal);
        }
        assert_eq!(known(&contacts), [1, 2, 3, 4, 5, 6, 7, 101]);
        assert_eq!(contacts.relocated().count(), WAS_MAX);
        reads_back(&contacts);
        contacts.met(&met(200, 0, true, 1000), 8, &mut journal);
        assert_eq!(known(&contacts), [2, 3, 4, 5, 6, 7, 101, 200]);
    }
}
