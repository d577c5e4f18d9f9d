//! The ways back that others' messages brought: an address, or reply blocks.
//!
//! Spec: docs/spec/client.md, rules CLI-20 to CLI-22; docs/spec/message.md, MSG-8, MSG-21.
//!
//! | quantity | type     | unit, range                                                          |
//! |----------|----------|----------------------------------------------------------------------|
//! | way      | per message | what its blocks and probes brought, until `until`                 |
//! | line     | `u16`    | the own address that the message came to, if to one (MSG-24)        |
//! | batch    | number   | the block that brought it, or 2³¹ + 31 bits of its tag for a probe   |
//! | held     | count    | reply blocks of others, <= `held_surbs_max`                          |
//! | reserve  | count    | of each message [`RESERVE`] that no answer uses, for acks and asking |
//!
//! A reply block is used only while forward packets use the same epoch's keys: it is held until
//! the client's own switch to that epoch, and discarded at the next (MSG-8).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sphinx::{Surb, Tag};

use super::{
    content::ReturnPart,
    journal::{Journal, key, kind},
    types::{MessageId, Target},
};
use crate::{address::Address, calendar::Epoch};

/// Reply blocks of a message that answers leave for acks, and for asking for more (MSG-21).
pub const RESERVE: usize = 3;

/// Stands in a record where the message came by a reply block; no address has this number.
const NO_LINE: u16 = u16::MAX;
/// The first of the names of batches that probes bring.
const PROBE_BATCH: u32 = 1 << 31;

/// What can be done for a message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Send to this address.
    Address(Address),
    /// This many reply blocks can be used now, and this many after the next switch.
    Surbs { now: usize, later: usize },
}

impl Way {
    /// Whether it can be used only after the next switch.
    pub(crate) fn is_later(self) -> bool {
        matches!(self, Self::Surbs { now: 0, .. })
    }

    /// Whether a packet of an answer can go by it now: the reserve is not an answer's (MSG-21).
    pub(crate) fn answers(self) -> bool {
        match self {
            Self::Address(_) => true,
            Self::Surbs { now, .. } => now > RESERVE,
        }
    }

    /// Whether answers wait for more reply blocks, and there is one to ask by.
    pub(crate) fn is_low(self) -> bool {
        matches!(self, Self::Surbs { now, later: 0 } if (1..=RESERVE).contains(&now))
    }
}

struct Batch {
    epoch: Epoch,
    used: u16,
    left: VecDeque<Surb>,
}

struct Return {
    until_s: u64,
    line: Option<u16>,
    address: Option<Address>,
    batches: BTreeMap<u32, Batch>,
}

#[derive(Default)]
pub(crate) struct Returns {
    ways: BTreeMap<MessageId, Return>,
    by_until: BTreeSet<(u64, MessageId)>,
    held: usize,
    /// Reply blocks of epochs before this one are gone.
    cleared: Epoch,
}

fn record(kind: u8, message: MessageId, batch: u32) -> Vec<u8> {
    key(kind, &[&message.0, &batch.to_be_bytes()])
}

/// What the value of a return part's record brings: the first byte of the part, after its time.
pub(crate) fn brings(value: &[u8]) -> Option<u8> {
    let (_until_s_and_line, part) = value.split_first_chunk::<10>()?;
    part.first().copied()
}

/// The batch that the probe in the packet of this tag brings.
pub(crate) fn probe_batch([a, b, c, d, ..]: &Tag) -> u32 {
    PROBE_BATCH | u32::from_be_bytes([*a, *b, *c, *d])
}

impl Returns {
    /// Reads a record of a return part back; `false` if it is none.
    pub(crate) fn restore(&mut self, message: MessageId, batch: u32, value: &[u8]) -> bool {
        let Some((until_s, rest)) = value.split_first_chunk() else {
            return false;
        };
        let Some((line, part)) = rest.split_first_chunk() else {
            return false;
        };
        let line = Some(u16::from_be_bytes(*line)).filter(|line| *line != NO_LINE);
        let part = ReturnPart::parse(part);
        let known = part.is_some();
        if let Some(part) = part {
            let until_s = u64::from_be_bytes(*until_s);
            self.insert(message, line, batch, part, until_s);
        }
        known
    }

    /// Reads back how many reply blocks of a batch were used; `false` if it is no such record.
    /// Call it after all [`Returns::restore`].
    pub(crate) fn restore_used(&mut self, message: MessageId, batch: u32, value: &[u8]) -> bool {
        let Ok(used) = <[u8; 2]>::try_from(value).map(u16::from_be_bytes) else {
            return false;
        };
        let way = self.ways.get_mut(&message);
        if let Some(batch) = way.and_then(|way| way.batches.get_mut(&batch)) {
            let gone = usize::from(used).min(batch.left.len());
            batch.left.drain(..gone);
            batch.used = used;
            self.held -= gone;
        }
        true
    }

    fn insert(
        &mut self,
        message: MessageId,
        line: Option<u16>,
        batch: u32,
        part: ReturnPart,
        until_s: u64,
    ) {
        let way = self.ways.entry(message).or_insert(Return {
            until_s,
            line,
            address: None,
            batches: BTreeMap::new(),
        });
        self.by_until.remove(&(way.until_s, message));
        way.until_s = until_s.max(way.until_s);
        self.by_until.insert((way.until_s, message));
        match part {
            ReturnPart::None => {}
            ReturnPart::Address(address) => way.address = Some(address),
            ReturnPart::Surbs { epoch, surbs } => {
                self.held += surbs.len();
                let left = surbs.into();
                let used = 0;
                way.batches.insert(batch, Batch { epoch, used, left });
            }
        }
    }

    /// Keeps what a finished block or a probe brought. An address is kept once for a message;
    /// reply blocks above `held_max` are not kept, and neither is a batch that was brought before.
    /// Of more than `ways_max` messages the oldest is forgotten.
    pub(crate) fn keep(
        &mut self,
        (message, line): (MessageId, Option<u16>),
        batch: u32,
        part: ReturnPart,
        until_s: u64,
        (ways_max, held_max): (usize, usize),
        journal: &mut Journal,
    ) {
        let batch = match part {
            ReturnPart::Address(_) => 0, // one record, whichever block brought it
            ReturnPart::None | ReturnPart::Surbs { .. } => batch,
        };
        let way = self.ways.get(&message);
        let news = match &part {
            ReturnPart::None => false,
            ReturnPart::Address(_) => way.is_none_or(|way| way.address.is_none()),
            ReturnPart::Surbs { surbs, .. } => {
                self.held + surbs.len() <= held_max
                    && way.is_none_or(|way| !way.batches.contains_key(&batch))
            }
        };
        if news {
            let value = [
                until_s.to_be_bytes().as_slice(),
                &line.unwrap_or(NO_LINE).to_be_bytes(),
                &part.to_bytes(),
            ]
            .concat();
            journal.put(record(kind::RETURN, message, batch), value);
            self.insert(message, line, batch, part, until_s);
        }
        while self.ways.len() > ways_max
            && let Some((_, oldest)) = self.by_until.first().copied()
        {
            self.remove(oldest, journal);
        }
    }

    /// The way back of a message, if it has one.
    pub(crate) fn way(&self, message: MessageId, epoch: Epoch) -> Option<Way> {
        let way = self.ways.get(&message)?;
        if let Some(address) = way.address {
            return Some(Way::Address(address));
        }
        let count = |good: &dyn Fn(Epoch) -> bool| -> usize {
            let good = way.batches.values().filter(|batch| good(batch.epoch));
            good.map(|batch| batch.left.len()).sum()
        };
        let now = count(&|of| of == epoch);
        let later = count(&|of| of > epoch);
        (!way.batches.is_empty()).then_some(Way::Surbs { now, later })
    }

    /// Whether the epochs of all reply blocks of a message are over: more would have to be brought.
    pub(crate) fn is_over(&self, message: MessageId, epoch: Epoch) -> bool {
        let way = self.ways.get(&message);
        way.is_none_or(|way| {
            let mut batches = way.batches.values();
            way.address.is_none() && batches.all(|batch| batch.epoch < epoch)
        })
    }

    /// How many packets of an answer can go to a target with what is held, in `epoch` and later.
    pub(crate) fn most(&self, to: &Target, epoch: Epoch) -> u32 {
        let way = match to {
            Target::Reply(token) => self.way(token.0, epoch),
            Target::Address(_) => None,
        };
        match way {
            Some(Way::Surbs { now, later }) => {
                let most = (now + later).saturating_sub(RESERVE);
                u32::try_from(most).unwrap_or(u32::MAX)
            }
            Some(Way::Address(_)) | None => u32::MAX,
        }
    }

    /// The address that a message brought.
    pub(crate) fn address(&self, message: MessageId) -> Option<Address> {
        self.ways.get(&message)?.address
    }

    /// Whether a message brought any way back.
    pub(crate) fn has(&self, message: MessageId) -> bool {
        self.ways.contains_key(&message)
    }

    /// Answers and acks go where `to` says that the correspondent of an own address is now (MSG-24).
    pub(crate) fn redirect(&mut self, to: impl Fn(u16, &Address) -> Address) {
        for way in self.ways.values_mut() {
            if let (Some(line), Some(address)) = (way.line, &mut way.address) {
                *address = to(line, address);
            }
        }
    }

    /// Takes one reply block of a message out, for good.
    pub(crate) fn take(
        &mut self,
        message: MessageId,
        epoch: Epoch,
        journal: &mut Journal,
    ) -> Option<Surb> {
        let way = self.ways.get_mut(&message)?;
        let live = |(_, batch): &(&u32, &mut Batch)| batch.epoch == epoch && !batch.left.is_empty();
        let (number, batch) = way.batches.iter_mut().find(live)?;
        let number = *number;
        let surb = batch.left.pop_front()?;
        batch.used += 1;
        self.held -= 1;
        if batch.left.is_empty() && number >= PROBE_BATCH {
            // It can't be brought again: the tag of its packet is remembered (MSG-15).
            way.batches.remove(&number);
            forget(message, number, journal);
        } else {
            let used = batch.used.to_be_bytes().to_vec();
            journal.put(record(kind::USED, message, number), used);
        }
        Some(surb)
    }

    /// Forgets ways whose time is over, and reply blocks of epochs before `epoch`.
    pub(crate) fn expire(&mut self, now_s: u64, epoch: Option<Epoch>, journal: &mut Journal) {
        while let Some((until_s, message)) = self.by_until.first().copied()
            && until_s <= now_s
        {
            self.remove(message, journal);
        }
        let Some(epoch) = epoch.filter(|epoch| *epoch > self.cleared) else {
            return;
        };
        self.cleared = epoch;
        for (message, way) in &mut self.ways {
            way.batches.retain(|number, batch| {
                if batch.epoch < epoch && !batch.left.is_empty() {
                    self.held -= batch.left.len();
                    batch.left.clear();
                    forget(*message, *number, journal);
                }
                // A block can be brought again, so its name stays.
                batch.epoch >= epoch || *number < PROBE_BATCH
            });
        }
    }

    fn remove(&mut self, message: MessageId, journal: &mut Journal) {
        let Some(way) = self.ways.remove(&message) else {
            return;
        };
        self.by_until.remove(&(way.until_s, message));
        if way.address.is_some() {
            journal.delete(record(kind::RETURN, message, 0));
        }
        for (number, batch) in way.batches {
            self.held -= batch.left.len();
            forget(message, number, journal);
        }
    }

    /// Reply blocks held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Messages with a way back.
    pub(crate) fn len(&self) -> usize {
        self.ways.len()
    }
}

fn forget(message: MessageId, batch: u32, journal: &mut Journal) {
    journal.delete(record(kind::RETURN, message, batch));
    journal.delete(record(kind::USED, message, batch));
}

#[cfg(test)]
mod tests {
    use sphinx::SURB_LEN;

    use super::*;

    const MAX: (usize, usize) = (3, 8);

    fn id(byte: u8) -> MessageId {
        MessageId([byte; 16])
    }

    fn surbs(epoch: u64, bytes: &[u8]) -> ReturnPart {
        let surbs = bytes.iter().map(|byte| Surb::parse(&[*byte; SURB_LEN]));
        ReturnPart::Surbs {
            epoch: Epoch(epoch),
            surbs: surbs.collect(),
        }
    }

    fn take(returns: &mut Returns, message: MessageId, epoch: u64) -> Option<u8> {
        let surb = returns.take(message, Epoch(epoch), &mut Journal::default());
        surb.map(|surb| surb.to_bytes()[0])
    }

    /// MSG-8: held until the epoch, used in it, discarded after it.
    #[test]
    fn reply_blocks_are_used_in_their_epoch_only() {
        let (mut returns, mut journal) = (Returns::default(), Journal::default());
        returns.keep((id(1), None), 0, surbs(5, &[1, 2]), 100, MAX, &mut journal);
        returns.keep((id(1), None), 1, surbs(6, &[3]), 100, MAX, &mut journal);
        let way = |returns: &Returns, epoch| returns.way(id(1), Epoch(epoch));
        assert_eq!(way(&returns, 4), Some(Way::Surbs { now: 0, later: 3 }));
        assert_eq!(take(&mut returns, id(1), 4), None);
        assert_eq!(way(&returns, 5), Some(Way::Surbs { now: 2, later: 1 }));
        assert_eq!(take(&mut returns, id(1), 5), Some(1));
        assert_eq!(way(&returns, 6), Some(Way::Surbs { now: 1, later: 0 }));
        returns.expire(50, Some(Epoch(6)), &mut journal);
        assert_eq!(returns.held(), 1);
        assert_eq!(take(&mut returns, id(1), 5), None);
        assert_eq!(take(&mut returns, id(1), 6), Some(3));
        assert_eq!(way(&returns, 6), Some(Way::Surbs { now: 0, later: 0 }));
    }

    /// CLI-22: each batch once, at most so many blocks, at most so many messages.
    #[test]
    fn ways_back_are_bounded_and_kept_once() {
        let (mut returns, mut journal) = (Returns::default(), Journal::default());
        for _ in 0..2 {
            returns.keep((id(1), None), 0, surbs(5, &[1, 2]), 100, MAX, &mut journal);
        }
        assert_eq!(returns.held(), 2);
        assert_eq!(take(&mut returns, id(1), 5), Some(1));
        returns.keep((id(1), None), 0, surbs(5, &[1, 2]), 100, MAX, &mut journal);
        assert_eq!(returns.held(), 1, "a used batch does not come back");
        returns.keep((id(2), None), 0, surbs(5, &[3; 8]), 101, MAX, &mut journal);
        assert!(!returns.has(id(2)), "nine would be held");
        for message in 2..=5 {
            let until_s = 100 + u64::from(message);
            returns.keep(
                (id(message), None),
                0,
                surbs(5, &[9]),
                until_s,
                MAX,
                &mut journal,
            );
            assert!(returns.len() <= 3 && returns.held() <= 8);
        }
        assert!(
            !returns.has(id(1)) && !returns.has(id(2)),
            "the oldest went"
        );
        returns.expire(104, None, &mut journal);
        assert_eq!((returns.len(), returns.held()), (1, 1));
    }

    /// MSG-21: answers leave the reserve; batches of probes add up within an epoch, and go when they
    /// are used up or over, their records too.
    #[test]
    fn answers_leave_a_reserve_and_probes_fill_it_up() {
        let (mut returns, mut journal) = (Returns::default(), Journal::default());
        let max = (3, 100);
        returns.keep(
            (id(1), None),
            0,
            surbs(5, &[1, 2, 3, 4]),
            100,
            max,
            &mut journal,
        );
        let to = Target::Reply(crate::client::ReplyToken(id(1)));
        let way = |returns: &Returns, epoch| returns.way(id(1), Epoch(epoch)).expect("it has one");
        assert!(way(&returns, 5).answers() && !way(&returns, 5).is_low());
        assert!(!way(&returns, 4).answers() && !way(&returns, 4).is_low());
        assert_eq!(returns.most(&to, Epoch(5)), 1);
        assert_eq!(take(&mut returns, id(1), 5), Some(1));
        for left in [3, 2, 1] {
            assert!(
                !way(&returns, 5).answers() && way(&returns, 5).is_low(),
                "{left}"
            );
            assert!(take(&mut returns, id(1), 5).is_some());
        }
        assert!(!way(&returns, 5).is_low() && !returns.is_over(id(1), Epoch(5)));
        assert!(returns.is_over(id(1), Epoch(6)));
        for (tag, epoch) in [([7; 32], 5), ([8; 32], 5), ([9; 32], 6)] {
            let batch = probe_batch(&tag);
            returns.keep(
                (id(1), None),
                batch,
                surbs(epoch, &[9; 2]),
                100,
                max,
                &mut journal,
            );
        }
        assert_eq!(way(&returns, 5), Way::Surbs { now: 4, later: 2 });
        for _ in 0..4 {
            assert!(take(&mut returns, id(1), 5).is_some());
        }
        let batches = |returns: &Returns| returns.ways[&id(1)].batches.len();
        assert_eq!(batches(&returns), 2);
        returns.expire(50, Some(Epoch(7)), &mut journal);
        assert_eq!((batches(&returns), returns.held()), (1, 0));
    }

    /// CLI-26
    #[test]
    fn what_was_used_stays_used() {
        let mut returns = Returns::default();
        let part = surbs(5, &[1, 2, 3]).to_bytes();
        let line = NO_LINE.to_be_bytes();
        let value = [100u64.to_be_bytes().as_slice(), &line, &part].concat();
        assert!(returns.restore(id(1), 4, &value));
        assert!(returns.restore_used(id(1), 4, &[0, 2]));
        assert_eq!(returns.held(), 1);
        assert_eq!(take(&mut returns, id(1), 5), Some(3));
        assert!(!returns.restore(id(1), 5, &value[..value.len() - 1]));
        assert!(!returns.restore_used(id(1), 5, &[0]));
    }
}
