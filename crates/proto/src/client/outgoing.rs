//! A message as its owner gave it, and its record.
//!
//! Spec: docs/spec/message.md, rules MSG-9 and MSG-10; docs/spec/client.md, rule CLI-26.
//!
//! | offset | bytes    | part                                                              |
//! |--------|----------|-------------------------------------------------------------------|
//! | 0      | 8        | ticket                                                            |
//! | 8      | 8        | epoch in which it was made                                        |
//! | 16     | 8        | UTC s after which it is given up                                  |
//! | 24     | 2        | slot of the address that its return parts name, if they name one  |
//! | 26     | 1 + n    | target: 1 and an address, or 2 and a reply token                  |
//! |        | 4        | count of return parts, >= 1                                       |
//! |        | 4 + n    | each return part, its length first                                |
//! |        | the rest | body                                                              |
//!
//! Cut into blocks here; how far they have come is the outbox's.

use super::{
    came::Came,
    content::part,
    fountain,
    types::{MessageId, ReplyToken, Target},
};
use crate::{
    address::{ADDRESS_LEN, Address},
    calendar::Epoch,
};

/// A message as its owner gave it, with the return part of each of its blocks.
pub(crate) struct Outgoing {
    pub(crate) ticket: u64,
    pub(crate) to: Target,
    /// When it was made: no fragment of it is taken later than expiry + 1 epoch (MSG-4).
    pub(crate) epoch: Epoch,
    /// UTC seconds after which it is given up.
    pub(crate) expires_s: u64,
    /// The address that its return parts name, if they name one.
    pub(crate) slot: u16,
    /// Written return parts: one for each block, or one for all.
    pub(crate) returns: Vec<Vec<u8>>,
    pub(crate) body: Vec<u8>,
}

pub(super) fn write_target(to: &Target, bytes: &mut Vec<u8>) {
    match to {
        Target::Address(address) => {
            bytes.push(1);
            bytes.extend(address.to_bytes());
        }
        Target::Reply(token) => {
            bytes.push(2);
            bytes.extend(token.to_bytes());
        }
    }
}

/// A target, and what follows it.
pub(super) fn parse_target(bytes: &[u8]) -> Option<(Target, &[u8])> {
    match bytes.split_first()? {
        (1, rest) => {
            let (address, rest) = rest.split_first_chunk::<ADDRESS_LEN>()?;
            Some((Target::Address(Address::from_bytes(address).ok()?), rest))
        }
        (2, rest) => {
            let (token, rest) = rest.split_first_chunk()?;
            Some((Target::Reply(ReplyToken::from_bytes(*token)), rest))
        }
        _ => None,
    }
}

impl Outgoing {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.body.len() + 1024);
        bytes.extend(self.ticket.to_be_bytes());
        bytes.extend(self.epoch.0.to_be_bytes());
        bytes.extend(self.expires_s.to_be_bytes());
        bytes.extend(self.slot.to_be_bytes());
        write_target(&self.to, &mut bytes);
        let count = u32::try_from(self.returns.len()).expect("one a block");
        bytes.extend(count.to_be_bytes());
        for part in &self.returns {
            let len = u32::try_from(part.len()).expect("at most RETURN_MAX");
            bytes.extend(len.to_be_bytes());
            bytes.extend(part);
        }
        bytes.extend(&self.body);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (ticket, rest) = bytes.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (expires_s, rest) = rest.split_first_chunk()?;
        let (slot, rest) = rest.split_first_chunk()?;
        let (to, rest) = parse_target(rest)?;
        let (count, mut rest) = rest.split_first_chunk()?;
        let mut returns = Vec::new();
        for _ in 0..u32::from_be_bytes(*count) {
            let (len, more) = rest.split_first_chunk()?;
            let (part, more) = more.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            returns.push(part.to_vec());
            rest = more;
        }
        (!returns.is_empty()).then(|| Self {
            ticket: u64::from_be_bytes(*ticket),
            to,
            epoch: Epoch(u64::from_be_bytes(*epoch)),
            expires_s: u64::from_be_bytes(*expires_s),
            slot: u16::from_be_bytes(*slot),
            returns,
            body: rest.to_vec(),
        })
    }

    /// The return part of a block.
    pub(super) fn part(&self, block: u32) -> &[u8] {
        self.returns.get(block as usize).unwrap_or(&self.returns[0])
    }

    fn returns_by(&self) -> u8 {
        self.returns[0].first().copied().unwrap_or(part::NONE)
    }

    /// Whether its blocks can be acknowledged, so that it is repaired until they are.
    pub(super) fn acks(&self) -> bool {
        self.returns_by() != part::NONE
    }

    /// Whether it brings reply blocks: its sender stays unknown.
    pub(super) fn is_anonymous(&self) -> bool {
        self.returns_by() == part::SURBS
    }

    /// The address of the sender's that it names for the way back, if it names one.
    pub(super) fn line(&self) -> Option<u16> {
        (self.returns_by() == part::ADDRESS).then_some(self.slot)
    }

    /// Whether it names this one.
    pub(super) fn names(&self, slot: u16) -> bool {
        self.line() == Some(slot)
    }

    /// Whether what came so came by the way back that this message, `id`, named (MSG-19).
    pub(super) fn is_answered(&self, id: MessageId, came: Came) -> bool {
        match came.by {
            None => self.names(came.slot),
            Some(by) => self.is_anonymous() && by == id,
        }
    }

    /// A block's share of the body.
    pub(super) fn share(&self, block: u32) -> &[u8] {
        let start = block as usize * fountain::SHARE_LEN;
        &self.body[start..start + fountain::share(self.body.len() as u64, block)]
    }

    /// Symbols of a block.
    pub(crate) fn symbols(&self, block: u32) -> u32 {
        fountain::symbols(self.part(block).len() + self.share(block).len())
    }

    /// Symbols of all its blocks.
    pub(crate) fn needs(&self) -> u32 {
        (0..self.blocks()).map(|block| self.symbols(block)).sum()
    }

    /// How many blocks it has.
    pub(crate) fn blocks(&self) -> u32 {
        fountain::blocks(self.body.len() as u64)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn outgoing(len: usize, part: Vec<u8>) -> Outgoing {
        let token = ReplyToken::from_bytes([3; 16]);
        Outgoing {
            ticket: 1,
            to: Target::Reply(token),
            epoch: Epoch(2),
            expires_s: 1000,
            slot: 4,
            returns: vec![part],
            body: (0..=250).cycle().take(len).collect(),
        }
    }

    /// CLI-26
    #[test]
    fn records_of_messages_read_back() {
        let out = outgoing(3000, vec![2, 1]);
        let again = Outgoing::parse(&out.to_bytes()).expect("its own bytes");
        assert_eq!(again.to_bytes(), out.to_bytes());
        assert_eq!(
            (again.epoch, again.expires_s, again.slot),
            (Epoch(2), 1000, 4)
        );
        for len in 0..60 {
            assert!(Outgoing::parse(&out.to_bytes()[..len]).is_none() || len >= 41);
        }
    }
}
