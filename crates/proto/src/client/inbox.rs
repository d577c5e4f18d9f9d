//! Messages on their way in: fragments kept, blocks rebuilt, bodies delivered once.
//!
//! Spec: docs/spec/message.md, rules MSG-4, MSG-6, MSG-15 to MSG-18.
//!
//! | quantity  | unit, range                                                                      |
//! |-----------|----------------------------------------------------------------------------------|
//! | incoming  | messages being put together, <= `incoming_max`                                   |
//! | bytes     | of their symbols and blocks, and of bodies not yet taken, <= `incoming_bytes_max` |
//! | tags      | packets remembered, <= `tags_max`                                                |
//! | finished  | messages remembered, <= `finished_max`                                           |
//! | until     | UTC s: when a packet made now is too old to be taken, whoever keeps it           |
//! | message   | as it is called here, by the way it came (MSG-20)                                |
//!
//! Memory grows only by bytes that came. When it is full, the message that has waited longest
//! for a fragment gives way: among those of which a block was acked if they are more than half,
//! else among the others (MSG-16). A block that `k` + [`SPARE_MAX`] symbols don't rebuild was
//! never one.

use std::collections::{BTreeMap, BTreeSet};

use sphinx::Tag;

use super::{
    came::Received,
    content::{Fragment, ReturnPart},
    fountain,
    journal::{Effect, Journal, key, kind},
    returns::Returns,
    types::{ClientDrop, ClientEvent, Delivery, Limits, MessageId, ReplyToken},
};

/// Symbols of a block kept beyond `k`: with this many it decodes but for 10⁻²⁰.
pub(crate) const SPARE_MAX: usize = 10;

enum Block {
    /// Its symbols so far, each of the same block length.
    Open {
        return_len: u16,
        held: BTreeMap<u32, Vec<u8>>,
    },
    /// Its share of the body.
    Done(Vec<u8>),
}

struct Incoming {
    slot: u16,
    until_s: u64,
    length: u64,
    blocks: BTreeMap<u32, Block>,
    /// Ascending with each fragment: the smallest has waited longest.
    touched: u64,
}

impl Incoming {
    fn bytes(&self) -> usize {
        let blocks = self.blocks.values();
        let bytes = blocks.map(|block| match block {
            Block::Open { held, .. } => held.len() * fountain::SYMBOL_LEN,
            Block::Done(share) => share.len(),
        });
        bytes.sum()
    }

    fn confirmed(&self) -> bool {
        let mut blocks = self.blocks.values();
        blocks.any(|block| matches!(block, Block::Done(_)))
    }
}

/// What a fragment finished.
pub(crate) struct Finished {
    pub(crate) message: Received,
    pub(crate) block: u32,
    pub(crate) part: ReturnPart,
    pub(crate) until_s: u64,
}

#[derive(Default)]
pub(crate) struct Inbox {
    incoming: BTreeMap<MessageId, Incoming>,
    bytes: usize,
    touches: u64,
    finished: BTreeMap<MessageId, (u64, u32)>,
    finished_by_until: BTreeSet<(u64, MessageId)>,
    /// A finished message was forgotten before its time: new ones that are as old can't be told
    /// from it, and are refused (MSG-18).
    floor_s: u64,
    tags: BTreeMap<Tag, u64>,
    tags_by_until: BTreeSet<(u64, Tag)>,
    /// Bodies that were not taken, and their bytes.
    untaken: BTreeMap<MessageId, usize>,
    untaken_bytes: usize,
}

fn block_key(kind: u8, message: MessageId, block: u32) -> Vec<u8> {
    key(kind, &[&message.0, &block.to_be_bytes()])
}

fn fragment_key(message: MessageId, block: u32, esi: u32) -> Vec<u8> {
    key(
        kind::FRAGMENT,
        &[&message.0, &block.to_be_bytes(), &esi.to_be_bytes()],
    )
}

impl Inbox {
    /// Whether this packet was seen before; if not it is remembered (MSG-15).
    pub(crate) fn seen(
        &mut self,
        tag: &Tag,
        until_s: u64,
        tags_max: usize,
        journal: &mut Journal,
    ) -> bool {
        if self.tags.contains_key(tag) {
            return true;
        }
        self.restore_tag(*tag, until_s);
        journal.put(key(kind::TAG, &[tag]), until_s.to_be_bytes().to_vec());
        while self.tags.len() > tags_max {
            self.forget_tag(journal);
        }
        false
    }

    /// Whether every packet that is as old is remembered: if not, one that was not seen may be one that
    /// was forgotten, and of what is finished it brings no ack (MSG-15). What was forgotten is no younger
    /// than the oldest that is left, and leaves the tags full until it is too old to be taken.
    pub(crate) fn remembers(&self, until_s: u64, tags_max: usize) -> bool {
        let oldest = self.tags_by_until.first();
        self.tags.len() < tags_max || oldest.is_some_and(|(oldest, _)| until_s > *oldest)
    }

    pub(crate) fn restore_tag(&mut self, tag: Tag, until_s: u64) {
        self.tags.insert(tag, until_s);
        self.tags_by_until.insert((until_s, tag));
    }

    fn forget_tag(&mut self, journal: &mut Journal) {
        if let Some((_, tag)) = self.tags_by_until.pop_first() {
            self.tags.remove(&tag);
            journal.delete(key(kind::TAG, &[&tag]));
        }
    }

    pub(crate) fn restore_finished(&mut self, message: MessageId, until_s: u64, blocks: u32) {
        self.finished.insert(message, (until_s, blocks));
        self.finished_by_until.insert((until_s, message));
    }

    /// Forgets the oldest finished message; its time.
    fn forget_finished(&mut self, journal: &mut Journal) -> Option<u64> {
        let (until_s, message) = self.finished_by_until.pop_first()?;
        self.finished.remove(&message);
        journal.delete(key(kind::FINISHED, &[&message.0]));
        Some(until_s)
    }

    pub(crate) fn restore_floor(&mut self, until_s: u64) {
        self.floor_s = until_s;
    }

    /// Blocks of a message that are finished: what a probe asks for.
    pub(crate) fn finished_blocks(&self, message: MessageId) -> Vec<u32> {
        if let Some((_, blocks)) = self.finished.get(&message) {
            return (0..*blocks).collect();
        }
        let Some(incoming) = self.incoming.get(&message) else {
            return Vec::new();
        };
        let blocks = incoming.blocks.iter();
        let done = blocks.filter(|(_, block)| matches!(block, Block::Done(_)));
        done.map(|(number, _)| *number).collect()
    }

    /// Takes a fragment. `Ok(Some)` if it finished a block; then its return part is to be kept and
    /// its ack queued.
    pub(crate) fn fragment(
        &mut self,
        received: Received,
        fragment: Fragment,
        until_s: u64,
        limits: &Limits,
        journal: &mut Journal,
    ) -> Result<(ClientEvent, Option<Finished>), ClientDrop> {
        let (message, slot, number) = (received.here, received.came.slot, fragment.block);
        if self.finished.contains_key(&message) {
            return Ok((ClientEvent::SpareReceived, None));
        }
        match self.incoming.get(&message) {
            Some(incoming) if incoming.length != fragment.length => {
                return Err(ClientDrop::Mismatch);
            }
            Some(_) => {}
            None if until_s <= self.floor_s => return Err(ClientDrop::Full),
            None => {
                let others = limits.incoming_max.saturating_sub(1);
                self.make_room(message, others, usize::MAX, journal)?;
            }
        }
        let more = fountain::SYMBOL_LEN;
        let rest = limits.incoming_bytes_max.saturating_sub(more);
        self.make_room(message, usize::MAX, rest, journal)?;

        self.touches += 1;
        let incoming = self.incoming.entry(message).or_insert_with(|| Incoming {
            slot,
            until_s,
            length: fragment.length,
            blocks: BTreeMap::new(),
            touched: 0,
        });
        incoming.touched = self.touches;
        incoming.until_s = until_s.max(incoming.until_s);
        let return_len = fragment.return_len;
        let block = incoming
            .blocks
            .entry(number)
            .or_insert_with(|| Block::Open {
                return_len,
                held: BTreeMap::new(),
            });
        let Block::Open {
            return_len: of,
            held,
        } = block
        else {
            return Ok((ClientEvent::SpareReceived, None));
        };
        if *of != return_len {
            return Err(ClientDrop::Mismatch);
        }
        if held.contains_key(&fragment.esi) {
            return Ok((ClientEvent::SpareReceived, None));
        }
        let len = fragment.block_len();
        let header = [
            slot.to_be_bytes().as_slice(),
            &incoming.until_s.to_be_bytes(),
            &fragment.length.to_be_bytes(),
            &return_len.to_be_bytes(),
        ]
        .concat();
        held.insert(fragment.esi, fragment.symbol);
        self.bytes += more;
        let decoded = fountain::decode(len, held);
        let k = fountain::symbols(len) as usize;
        let Some(whole) = decoded else {
            if held.len() > k + SPARE_MAX {
                self.drop_incoming(message, journal);
                return Err(ClientDrop::Mismatch);
            }
            let symbol = &held[&fragment.esi];
            let value = [header.as_slice(), symbol].concat();
            journal.put(fragment_key(message, number, fragment.esi), value);
            return Ok((ClientEvent::FragmentReceived, None));
        };
        let (part, share) = whole.split_at(return_len.into());
        let Some(part) = ReturnPart::parse(part) else {
            self.drop_incoming(message, journal);
            return Err(ClientDrop::Mismatch);
        };
        self.bytes -= held.len() * more;
        self.bytes += share.len();
        for esi in held.keys().filter(|esi| **esi != fragment.esi) {
            journal.delete(fragment_key(message, number, *esi));
        }
        let until_s = incoming.until_s;
        let head = [
            slot.to_be_bytes().as_slice(),
            &until_s.to_be_bytes(),
            &fragment.length.to_be_bytes(),
        ]
        .concat();
        let record = [head.as_slice(), share].concat();
        journal.put(block_key(kind::BLOCK, message, number), record);
        *block = Block::Done(share.to_vec());
        let finished = Finished {
            message: received,
            block: number,
            part,
            until_s,
        };
        Ok((ClientEvent::FragmentReceived, Some(finished)))
    }

    /// Delivers a message all of whose blocks are there (MSG-17); whether they are. Call it when the
    /// return part of the last one is kept.
    pub(crate) fn deliver(
        &mut self,
        message: MessageId,
        returns: &Returns,
        finished_max: usize,
        journal: &mut Journal,
    ) -> bool {
        let count = |incoming: &Incoming| fountain::blocks(incoming.length);
        let whole = self.incoming.get(&message).is_some_and(|incoming| {
            let mut blocks = incoming.blocks.values();
            incoming.blocks.len() == count(incoming) as usize
                && blocks.all(|block| matches!(block, Block::Done(_)))
        });
        if !whole {
            return false;
        }
        let Some(incoming) = self.incoming.remove(&message) else {
            return false;
        };
        self.bytes -= incoming.bytes();
        let blocks = count(&incoming);
        let mut body = Vec::with_capacity(usize::try_from(incoming.length).unwrap_or(0));
        for (number, block) in incoming.blocks {
            if let Block::Done(share) = block {
                body.extend(share);
            }
            journal.delete(block_key(kind::BLOCK, message, number));
        }
        let until_s = incoming.until_s;
        let value = [until_s.to_be_bytes().as_slice(), &blocks.to_be_bytes()].concat();
        journal.put(key(kind::FINISHED, &[&message.0]), value);
        self.restore_finished(message, until_s, blocks);
        while self.finished.len() > finished_max {
            self.floor_s = self.forget_finished(journal).unwrap_or(0);
            let floor = self.floor_s.to_be_bytes().to_vec();
            journal.put(key(kind::FLOOR, &[]), floor);
        }
        let slot = incoming.slot;
        let reply = returns.has(message).then_some(ReplyToken(message));
        let flag = [u8::from(reply.is_some())];
        let value = [slot.to_be_bytes().as_slice(), &flag, &body].concat();
        journal.put(key(kind::DELIVERY, &[&message.0]), value);
        self.untaken(message, body.len());
        journal.then(Effect::Deliver(Delivery {
            message,
            body,
            reply,
            slot,
        }));
        true
    }

    fn untaken(&mut self, message: MessageId, len: usize) {
        self.untaken.insert(message, len);
        self.untaken_bytes += len;
    }

    /// The application has this message.
    pub(crate) fn taken(&mut self, message: MessageId, journal: &mut Journal) {
        if let Some(len) = self.untaken.remove(&message) {
            self.untaken_bytes -= len;
            journal.delete(key(kind::DELIVERY, &[&message.0]));
        }
    }

    /// Lets messages other than `keep` give way until at most so many, and so many bytes, are
    /// left.
    fn make_room(
        &mut self,
        keep: MessageId,
        messages: usize,
        bytes: usize,
        journal: &mut Journal,
    ) -> Result<(), ClientDrop> {
        while self.incoming.len() > messages || self.bytes + self.untaken_bytes > bytes {
            let out = self.gives_way(keep).ok_or(ClientDrop::Full)?;
            self.drop_incoming(out, journal);
        }
        Ok(())
    }

    /// Which message other than `keep` gives way (MSG-16). Neither kind can crowd out the other:
    /// an ack is cheap to earn, by a last block of one symbol.
    fn gives_way(&self, keep: MessageId) -> Option<MessageId> {
        let confirmed = self.incoming.values().filter(|of| of.confirmed()).count();
        let most_are = confirmed * 2 > self.incoming.len();
        let others = self.incoming.iter().filter(|(id, _)| **id != keep);
        let first = others.min_by_key(|(_, of)| (of.confirmed() != most_are, of.touched));
        first.map(|(id, _)| *id)
    }

    fn drop_incoming(&mut self, message: MessageId, journal: &mut Journal) {
        let Some(incoming) = self.incoming.remove(&message) else {
            return;
        };
        self.bytes -= incoming.bytes();
        for (number, block) in incoming.blocks {
            match block {
                Block::Open { held, .. } => held
                    .keys()
                    .for_each(|esi| journal.delete(fragment_key(message, number, *esi))),
                Block::Done(_) => journal.delete(block_key(kind::BLOCK, message, number)),
            }
        }
    }

    /// Forgets what is being put together of what came to an address (CLI-32).
    pub(crate) fn forget(&mut self, slot: u16, journal: &mut Journal) {
        self.drop_those(|of| of.slot == slot, journal);
    }

    fn drop_those(&mut self, goes: impl Fn(&Incoming) -> bool, journal: &mut Journal) {
        let those = self.incoming.iter().filter(|(_, of)| goes(of));
        let those: Vec<MessageId> = those.map(|(id, _)| *id).collect();
        those
            .into_iter()
            .for_each(|id| self.drop_incoming(id, journal));
    }

    /// Forgets what no packet that is still taken can belong to.
    pub(crate) fn expire(&mut self, now_s: u64, journal: &mut Journal) {
        while self
            .tags_by_until
            .first()
            .is_some_and(|(until, _)| *until <= now_s)
        {
            self.forget_tag(journal);
        }
        while self
            .finished_by_until
            .first()
            .is_some_and(|(until, _)| *until <= now_s)
        {
            self.forget_finished(journal);
        }
        self.drop_those(|of| of.until_s <= now_s, journal);
    }

    /// Messages being put together; bytes of them and of bodies not taken; packets and finished
    /// messages remembered.
    pub(crate) fn held(&self) -> [usize; 4] {
        [
            self.incoming.len(),
            self.bytes + self.untaken_bytes,
            self.tags.len(),
            self.finished.len(),
        ]
    }

    /// Reads a fragment's record back; `false` if it is none.
    pub(crate) fn restore_fragment(
        &mut self,
        message: MessageId,
        number: u32,
        esi: u32,
        value: &[u8],
    ) -> bool {
        let Some((head, rest)) = Head::parse(value) else {
            return false;
        };
        let Some((return_len, symbol)) = rest.split_first_chunk() else {
            return false;
        };
        let return_len = u16::from_be_bytes(*return_len);
        if symbol.len() != fountain::SYMBOL_LEN {
            return false;
        }
        let incoming = self.restore_incoming(message, head);
        let block = incoming
            .blocks
            .entry(number)
            .or_insert_with(|| Block::Open {
                return_len,
                held: BTreeMap::new(),
            });
        if let Block::Open { held, .. } = block {
            held.insert(esi, symbol.to_vec());
            self.bytes += symbol.len();
        }
        true
    }

    /// Reads a block's record back; `false` if it is none. A block takes the place of its
    /// fragments.
    pub(crate) fn restore_block(&mut self, message: MessageId, number: u32, value: &[u8]) -> bool {
        let Some((head, share)) = Head::parse(value) else {
            return false;
        };
        let incoming = self.restore_incoming(message, head);
        incoming.blocks.insert(number, Block::Done(share.to_vec()));
        self.bytes += share.len();
        true
    }

    fn restore_incoming(&mut self, message: MessageId, head: Head) -> &mut Incoming {
        let incoming = self.incoming.entry(message).or_insert_with(|| Incoming {
            slot: head.slot,
            until_s: head.until_s,
            length: head.length,
            blocks: BTreeMap::new(),
            touched: 0,
        });
        incoming.until_s = head.until_s.max(incoming.until_s);
        incoming
    }

    /// Reads a delivery's record back: what is to be delivered again.
    pub(crate) fn restore_delivery(
        &mut self,
        message: MessageId,
        value: &[u8],
    ) -> Option<Delivery> {
        let (slot, rest) = value.split_first_chunk()?;
        let (flag, body) = rest.split_first()?;
        self.untaken(message, body.len());
        Some(Delivery {
            message,
            body: body.to_vec(),
            reply: (*flag == 1).then_some(ReplyToken(message)),
            slot: u16::from_be_bytes(*slot),
        })
    }
}

/// What the records of fragments and blocks start with.
struct Head {
    slot: u16,
    until_s: u64,
    length: u64,
}

impl Head {
    fn parse(value: &[u8]) -> Option<(Self, &[u8])> {
        let (slot, rest) = value.split_first_chunk()?;
        let (until_s, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let head = Self {
            slot: u16::from_be_bytes(*slot),
            until_s: u64::from_be_bytes(*until_s),
            length: u64::from_be_bytes(*length),
        };
        Some((head, rest))
    }
}
