//! What stands in a packet's payload: one of five contents, told apart only by the recipient.
//!
//! Spec: docs/spec/message.md, rules MSG-1 to MSG-8.
//!
//! | content  | kind | bytes                                                                 |
//! |----------|------|-----------------------------------------------------------------------|
//! | fragment | 1    | id 16, object length u64, block u32, symbol number u32, epoch u64,    |
//! |          |      | return length u16, symbol 1984                                        |
//! | ack      | 2    | left u16, count u8 (0 to 101), then count × (id 16, block u32)        |
//! | loop     | 3    | id 16                                                                 |
//! | probe    | 4    | id 16, then a return part of reply blocks                             |
//! | move     | 5    | see `relocation`                                                      |
//!
//! | return part (start of a block) | bytes                                                     |
//! |--------------------------------|-----------------------------------------------------------|
//! | none                           | 0                                                         |
//! | address                        | 1, address 96                                             |
//! | reply blocks                   | 2, count u8 (1 to 100), epoch u64, count × 396            |
//!
//! Numbers are big-endian. Parsers take bytes from strangers: they check the exact length, and
//! allocate nothing that the bytes do not fill.

use sphinx::{MESSAGE_LEN, SURB_LEN, Surb};

use super::{
    fountain::{self, SYMBOL_LEN},
    relocation::Relocation,
    types::MessageId,
};
use crate::{
    address::{ADDRESS_LEN, Address},
    calendar::Epoch,
};

const FRAGMENT: u8 = 1;
const ACK: u8 = 2;
const LOOP: u8 = 3;
const PROBE: u8 = 4;
const MOVE: u8 = 5;

/// Bytes of a fragment before its symbol.
const FRAGMENT_HEADER_LEN: usize = 1 + 16 + 8 + 4 + 4 + 8 + 2;
/// Bytes of a fragment.
pub const FRAGMENT_LEN: usize = FRAGMENT_HEADER_LEN + SYMBOL_LEN;
const _: () = assert!(FRAGMENT_LEN <= MESSAGE_LEN);

/// Longest body of a message (MSG-2).
pub const BODY_MAX: u64 = 128 << 20;
/// Symbol numbers are below this: RaptorQ's are 24 bits (MSG-2).
pub const ESI_END: u32 = 1 << 24;

const ACK_ENTRY_LEN: usize = 16 + 4;
/// Most acks in one packet (MSG-5).
pub const ACKS_IN_PACKET: usize = (MESSAGE_LEN - 4) / ACK_ENTRY_LEN;

/// First byte of a return part: what it brings (MSG-3).
pub(crate) mod part {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const ADDRESS: u8 = 1;
    pub(crate) const SURBS: u8 = 2;
}

/// Most reply blocks in one return part (MSG-3).
pub const SURBS_IN_RETURN: usize = 100;
const SURBS_HEADER_LEN: usize = 1 + 1 + 8;
/// Reply blocks in a probe: as many as fit (MSG-7).
pub const SURBS_IN_PROBE: usize = (MESSAGE_LEN - 17 - SURBS_HEADER_LEN) / SURB_LEN;
/// Longest return part.
pub const RETURN_MAX: usize = SURBS_HEADER_LEN + SURBS_IN_RETURN * SURB_LEN;

/// One symbol of one block, with all that is needed to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Its message.
    pub message: MessageId,
    /// Bytes of the message's body, at most [`BODY_MAX`].
    pub length: u64,
    /// Index of the block in the message.
    pub block: u32,
    /// Number of the symbol in the block; source symbols first. Below 2²⁴.
    pub esi: u32,
    /// When its message was made: the recipient takes no fragment later than expiry + 1 epoch.
    pub epoch: Epoch,
    /// Bytes of the block's return part.
    pub return_len: u16,
    /// Exactly [`SYMBOL_LEN`] bytes.
    pub symbol: Vec<u8>,
}

impl Fragment {
    /// Bytes of the block that this fragment is of: return part and share of the body (MSG-3).
    #[must_use]
    pub fn block_len(&self) -> usize {
        usize::from(self.return_len) + fountain::share(self.length, self.block)
    }
}

impl core::fmt::Debug for Fragment {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Fragment(block {}, symbol {})", self.block, self.esi)
    }
}

/// The way back that a block or a probe brings.
#[derive(Clone)]
pub enum ReturnPart {
    /// There is none.
    None,
    /// The sender's address.
    Address(Address),
    /// Reply blocks, and the epoch whose keys they use.
    Surbs {
        /// They are used while forward packets use the same epoch's keys (MSG-8).
        epoch: Epoch,
        /// 1 to [`SURBS_IN_RETURN`] of them.
        surbs: Vec<Surb>,
    },
}

impl PartialEq for ReturnPart {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for ReturnPart {}

impl core::fmt::Debug for ReturnPart {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ReturnPart(..)")
    }
}

impl ReturnPart {
    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::None => vec![part::NONE],
            Self::Address(address) => [&[part::ADDRESS], address.to_bytes().as_slice()].concat(),
            Self::Surbs { epoch, surbs } => {
                let count = u8::try_from(surbs.len()).expect("at most 100");
                let mut bytes = vec![part::SURBS, count];
                bytes.extend(epoch.0.to_be_bytes());
                surbs.iter().for_each(|surb| bytes.extend(surb.to_bytes()));
                bytes
            }
        }
    }

    /// Reads one that is exactly `bytes`, or `None` if they are none (MSG-3).
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            part::NONE => rest.is_empty().then_some(Self::None),
            part::ADDRESS => {
                let address: &[u8; ADDRESS_LEN] = rest.try_into().ok()?;
                Address::from_bytes(address).ok().map(Self::Address)
            }
            part::SURBS => {
                let (count, rest) = rest.split_first()?;
                let (epoch, rest) = rest.split_first_chunk()?;
                let (surbs, odd) = rest.as_chunks::<SURB_LEN>();
                let count = usize::from(*count);
                let fits = (1..=SURBS_IN_RETURN).contains(&count) && surbs.len() == count;
                (fits && odd.is_empty()).then(|| Self::Surbs {
                    epoch: Epoch(u64::from_be_bytes(*epoch)),
                    surbs: surbs.iter().map(Surb::parse).collect(),
                })
            }
            _ => None,
        }
    }

    /// Whether some return part has this length: a fragment that says another is refused before
    /// anything is kept (MSG-3).
    #[must_use]
    pub fn is_len(len: usize) -> bool {
        let surbs = len.checked_sub(SURBS_HEADER_LEN);
        let whole = |bytes| bytes % SURB_LEN == 0 && bytes / SURB_LEN <= SURBS_IN_RETURN;
        len == 1 || len == 1 + ADDRESS_LEN || surbs.is_some_and(|bytes| bytes > 0 && whole(bytes))
    }
}

/// What a payload carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A part of a message.
    Fragment(Fragment),
    /// What a recipient says of messages that it got.
    Acks {
        /// Reply blocks left, of the message whose reply block carries this (MSG-21).
        left: u16,
        /// These blocks are finished.
        blocks: Vec<(MessageId, u32)>,
    },
    /// The client's own loop.
    Loop([u8; 16]),
    /// An anonymous sender asks again for the acks of this message, and brings reply blocks.
    Probe {
        /// Which message.
        message: MessageId,
        /// Always reply blocks.
        reply: ReturnPart,
    },
    /// A correspondent has moved.
    Move(Box<Relocation>),
}

impl Content {
    /// Writes it: at most [`MESSAGE_LEN`] bytes.
    ///
    /// # Panics
    ///
    /// With more acks or reply blocks than fit, or a symbol of another length: our own bug.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MESSAGE_LEN);
        match self {
            Self::Fragment(fragment) => {
                bytes.push(FRAGMENT);
                bytes.extend(fragment.message.0);
                bytes.extend(fragment.length.to_be_bytes());
                bytes.extend(fragment.block.to_be_bytes());
                bytes.extend(fragment.esi.to_be_bytes());
                bytes.extend(fragment.epoch.0.to_be_bytes());
                bytes.extend(fragment.return_len.to_be_bytes());
                bytes.extend(&fragment.symbol);
                assert!(bytes.len() == FRAGMENT_LEN, "a symbol has one length");
            }
            Self::Acks { left, blocks } => {
                assert!(blocks.len() <= ACKS_IN_PACKET, "acks fit one packet");
                bytes.push(ACK);
                bytes.extend(left.to_be_bytes());
                bytes.push(u8::try_from(blocks.len()).expect("at most 101"));
                for (message, block) in blocks {
                    bytes.extend(message.0);
                    bytes.extend(block.to_be_bytes());
                }
            }
            Self::Loop(id) => {
                bytes.push(LOOP);
                bytes.extend(id);
            }
            Self::Probe { message, reply } => {
                bytes.push(PROBE);
                bytes.extend(message.0);
                bytes.extend(reply.to_bytes());
            }
            Self::Move(relocation) => {
                bytes.push(MOVE);
                relocation.write(&mut bytes);
            }
        }
        assert!(bytes.len() <= MESSAGE_LEN, "a content fits one packet");
        bytes
    }

    /// Reads one, or `None` if the bytes are of no known kind or shape (MSG-1).
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            FRAGMENT => parse_fragment(rest).map(Self::Fragment),
            ACK => {
                let (left, rest) = rest.split_first_chunk()?;
                let (count, rest) = rest.split_first()?;
                let (entries, odd) = rest.as_chunks::<ACK_ENTRY_LEN>();
                let count = usize::from(*count);
                let fits = count <= ACKS_IN_PACKET && entries.len() == count;
                (fits && odd.is_empty()).then(|| Self::Acks {
                    left: u16::from_be_bytes(*left),
                    blocks: entries.iter().map(ack).collect(),
                })
            }
            LOOP => rest.try_into().ok().map(Self::Loop),
            PROBE => {
                let (message, rest) = rest.split_first_chunk()?;
                let message = MessageId(*message);
                let reply = ReturnPart::parse(rest)?;
                matches!(reply, ReturnPart::Surbs { .. }).then_some(Self::Probe { message, reply })
            }
            MOVE => Relocation::parse(rest).map(|of| Self::Move(Box::new(of))),
            _ => None,
        }
    }
}

fn ack(entry: &[u8; ACK_ENTRY_LEN]) -> (MessageId, u32) {
    let id = core::array::from_fn(|i| entry[i]);
    let block = core::array::from_fn(|i| entry[16 + i]);
    (MessageId(id), u32::from_be_bytes(block))
}

/// Reads what follows the kind, and refuses what no sender makes (MSG-2).
fn parse_fragment(rest: &[u8]) -> Option<Fragment> {
    let (message, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (block, rest) = rest.split_first_chunk()?;
    let (esi, rest) = rest.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (return_len, symbol) = rest.split_first_chunk()?;
    let fragment = Fragment {
        message: MessageId(*message),
        length: u64::from_be_bytes(*length),
        block: u32::from_be_bytes(*block),
        esi: u32::from_be_bytes(*esi),
        epoch: Epoch(u64::from_be_bytes(*epoch)),
        return_len: u16::from_be_bytes(*return_len),
        symbol: symbol.to_vec(),
    };
    let sound = fragment.length <= BODY_MAX
        && fragment.block < fountain::blocks(fragment.length)
        && fragment.esi < ESI_END
        && ReturnPart::is_len(fragment.return_len.into())
        && symbol.len() == SYMBOL_LEN;
    sound.then_some(fragment)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fragment() -> impl Strategy<Value = Fragment> {
        let body = (0..=BODY_MAX, any::<u32>(), 0..ESI_END);
        (any::<[u8; 16]>(), body, any::<u64>(), 0u16..3, any::<u8>()).prop_map(
            |(id, (length, block, esi), epoch, surbs, byte)| Fragment {
                message: MessageId(id),
                length,
                block: block % fountain::blocks(length),
                esi,
                epoch: Epoch(epoch),
                return_len: [1, 97, 406][usize::from(surbs)],
                symbol: vec![byte; SYMBOL_LEN],
            },
        )
    }

    fn surbs(count: usize) -> ReturnPart {
        ReturnPart::Surbs {
            epoch: Epoch(7),
            surbs: vec![Surb::parse(&[5; SURB_LEN]); count],
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// MSG-1, MSG-2
        #[test]
        fn fragments_read_back_and_break_when_out_of_range(fragment in fragment()) {
            let parse = |fragment: &Fragment| {
                Content::parse(&Content::Fragment(fragment.clone()).to_bytes())
            };
            prop_assert_eq!(parse(&fragment), Some(Content::Fragment(fragment.clone())));
            let blocks = fountain::blocks(fragment.length);
            for wrong in [
                Fragment { length: BODY_MAX + 1, ..fragment.clone() },
                Fragment { block: blocks, ..fragment.clone() },
                Fragment { esi: ESI_END, ..fragment.clone() },
                Fragment { return_len: 0, ..fragment.clone() },
                Fragment { return_len: 96, ..fragment },
            ] {
                prop_assert_eq!(parse(&wrong), None);
            }
        }

        /// MSG-5
        #[test]
        fn acks_read_back(
            left in any::<u16>(),
            acks in prop::collection::vec(any::<([u8; 16], u32)>(), 0..=ACKS_IN_PACKET),
        ) {
            let blocks = acks.into_iter().map(|(id, block)| (MessageId(id), block)).collect();
            let content = Content::Acks { left, blocks };
            prop_assert_eq!(Content::parse(&content.to_bytes()), Some(content));
        }

        /// MSG-1
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..MESSAGE_LEN), kind in 0u8..6) {
            let _ = Content::parse(&[&[kind], bytes.as_slice()].concat());
            let _ = ReturnPart::parse(&[&[kind % 4], bytes.as_slice()].concat());
        }
    }

    /// MSG-3, MSG-7
    #[test]
    fn return_parts_read_back_at_exactly_their_lengths() {
        let key = sphinx::SecretKey::from_bytes([9; 32]).public();
        let address = Address {
            gateway: crate::NodeId([1; 32]),
            mailbox: crate::MailboxId([2; 32]),
            key,
        };
        let all = [
            ReturnPart::None,
            ReturnPart::Address(address),
            surbs(1),
            surbs(SURBS_IN_RETURN),
        ];
        for part in all {
            let bytes = part.to_bytes();
            assert!(ReturnPart::is_len(bytes.len()));
            assert_eq!(ReturnPart::parse(&bytes), Some(part));
            for wrong in [
                &bytes[..bytes.len() - 1],
                &[bytes.as_slice(), &[0]].concat(),
            ] {
                assert_eq!(ReturnPart::parse(wrong), None);
                assert!(!ReturnPart::is_len(wrong.len()));
            }
        }
        assert_eq!(ReturnPart::parse(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(surbs(SURBS_IN_RETURN).to_bytes().len(), RETURN_MAX);
        let probe = |reply| Content::Probe {
            message: MessageId([3; 16]),
            reply,
        };
        let whole = probe(surbs(SURBS_IN_PROBE));
        assert_eq!(Content::parse(&whole.to_bytes()), Some(whole));
        assert_eq!(Content::parse(&probe(ReturnPart::None).to_bytes()), None);
    }

    /// MSG-1, MSG-5
    #[test]
    fn unknown_kinds_and_odd_lengths_are_refused() {
        for bytes in [
            &[][..],
            &[0],
            &[5; 17],
            &[5; 320],
            &[6; 17],
            &[LOOP; 16],
            &[LOOP; 18],
            &[ACK, 0, 0],
            &[ACK, 0, 0, 2, 0],
            &[ACK, 0, 0, 0, 0],
        ] {
            assert_eq!(Content::parse(bytes), None, "{bytes:?}");
        }
        assert!(matches!(
            Content::parse(&[LOOP; 17]),
            Some(Content::Loop(_))
        ));
    }
}
