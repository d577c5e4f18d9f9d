//! The one frame that every link carries, and what stands in its body when it is no packet.
//!
//! Spec: docs/spec/link.md, rules LNK-1 to LNK-4.
//!
//! | offset | bytes | field                                                              |
//! |--------|-------|--------------------------------------------------------------------|
//! | 0      | 1     | kind ([`Kind`])                                                    |
//! | 1      | 1     | zero                                                               |
//! | 2      | 2     | mailbox slot, big-endian; zero where there is none                 |
//! | 4      | 32    | field: see [`Kind`]                                                |
//! | 36     | 2396  | body: a Sphinx packet, or what [`Kind`] says, then zeros           |
//!
//! Every frame has [`FRAME_LEN`] bytes, control frames too (LNK-1). The length is checked once,
//! by the type; accessors cannot fail. What a peer sent is judged by the machine that takes it.

use sphinx::{PACKET_LEN, Packet};

/// Bytes of every frame on every link (LNK-1).
pub const FRAME_LEN: usize = 2432;
/// Bytes of a frame's field.
pub const FIELD_LEN: usize = 32;
/// Bytes of a frame's body.
pub const BODY_LEN: usize = PACKET_LEN;
/// The wire version that this code speaks.
pub const WIRE_VERSION: u16 = 1;

const KIND: usize = 0;
const ZERO: usize = 1;
const SLOT: usize = 2;
const FIELD: usize = 4;
const BODY: usize = FIELD + FIELD_LEN;
const _: () = assert!(BODY + BODY_LEN == FRAME_LEN);

/// What a frame is. Numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A Sphinx packet. Field: client to gateway, the first mix; gateway to client, sequence
    /// (u64), stored-at (u64, UTC seconds), zeros; between nodes, zeros.
    Packet = 1,
    /// Gateway to client: nothing. Field and body zero.
    Dummy = 2,
    /// Client to mailbox gateway, one each tick: [`Confirmation`] in the body.
    Confirm = 3,
    /// First frame from whoever dialled: [`Hello`] in the body.
    Hello = 4,
    /// First frame from whoever was dialled: its link certificate in the body.
    Certificate = 5,
    /// Directory links only: a part of a longer answer or question. Field: total length (u64),
    /// offset of this part (u64), zeros. Body: the part.
    Blob = 6,
    /// Between nodes, and gateway to client in place of a dummy: what a node says of itself
    /// ([`crate::notice`]) in the body. Field zero.
    Notice = 7,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Packet,
        Self::Dummy,
        Self::Confirm,
        Self::Hello,
        Self::Certificate,
        Self::Blob,
        Self::Notice,
    ];
}

/// One frame, [`FRAME_LEN`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Box<[u8; FRAME_LEN]>);

impl Frame {
    /// A frame with a body of zeros.
    #[must_use]
    pub fn new(kind: Kind, slot: u16, field: [u8; FIELD_LEN]) -> Self {
        let mut bytes = Box::new([0; FRAME_LEN]);
        bytes[KIND] = kind as u8;
        bytes[SLOT..FIELD].copy_from_slice(&slot.to_be_bytes());
        bytes[FIELD..BODY].copy_from_slice(&field);
        Self(bytes)
    }

    /// A frame that carries `packet`.
    #[must_use]
    pub fn packet(slot: u16, field: [u8; FIELD_LEN], packet: &Packet) -> Self {
        let mut frame = Self::new(Kind::Packet, slot, field);
        frame.0[BODY..].copy_from_slice(packet);
        frame
    }

    /// A frame of `kind` whose body starts with `start`.
    ///
    /// # Panics
    ///
    /// If `start` is longer than a body.
    #[must_use]
    pub fn with_body(kind: Kind, field: [u8; FIELD_LEN], start: &[u8]) -> Self {
        let mut frame = Self::new(kind, 0, field);
        frame.0[BODY..BODY + start.len()].copy_from_slice(start);
        frame
    }

    /// Takes what a link read. Anything of the right length is a frame (LNK-2).
    #[must_use]
    pub fn from_bytes(bytes: Box<[u8; FRAME_LEN]>) -> Self {
        Self(bytes)
    }

    /// What a link writes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; FRAME_LEN] {
        &self.0
    }

    /// Its kind, or `None` if the kind is unknown or the second byte is not zero (LNK-2).
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        let known = Kind::ALL
            .into_iter()
            .find(|kind| *kind as u8 == self.0[KIND]);
        known.filter(|_| self.0[ZERO] == 0)
    }

    /// Its mailbox slot.
    #[must_use]
    pub fn slot(&self) -> u16 {
        u16::from_be_bytes(array(&self.0[SLOT..FIELD]))
    }

    /// Its field.
    #[must_use]
    pub fn field(&self) -> [u8; FIELD_LEN] {
        array(&self.0[FIELD..BODY])
    }

    /// The two numbers at the start of its field.
    #[must_use]
    pub fn numbers(&self) -> (u64, u64) {
        let field = &self.0[FIELD..];
        (
            u64::from_be_bytes(array(&field[..8])),
            u64::from_be_bytes(array(&field[8..16])),
        )
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &Packet {
        self.0[BODY..].first_chunk().expect("a const assertion")
    }

    /// Its body, on the heap.
    #[must_use]
    pub fn to_packet(&self) -> Box<Packet> {
        Box::new(*self.body())
    }
}

/// Neither packets nor fields are printed: they name clients (OPS-1).
impl core::fmt::Debug for Frame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Frame({:?})", self.kind())
    }
}

/// What stands before the packet in a frame between nodes: the kind, then zeros.
pub const PACKET_HEADER: [u8; BODY] = {
    let mut header = [0; BODY];
    header[KIND] = Kind::Packet as u8;
    header
};

/// The packet that a frame carries, read in place; none if it is of another kind (LNK-2).
#[must_use]
pub fn packet_in(frame: &[u8; FRAME_LEN]) -> Option<&Packet> {
    let packet = frame[KIND] == Kind::Packet as u8 && frame[ZERO] == 0;
    packet.then_some(&frame[BODY..])?.first_chunk()
}

/// A field of two numbers and zeros.
#[must_use]
pub fn field_of(first: u64, second: u64) -> [u8; FIELD_LEN] {
    let mut field = [0; FIELD_LEN];
    field[..8].copy_from_slice(&first.to_be_bytes());
    field[8..16].copy_from_slice(&second.to_be_bytes());
    field
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("callers slice at least N")
}

/// What a link is for, as its dialler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// Packets from the node before, whose link key the consensus names.
    Node = 1,
    /// Packets from a client, towards the first layer.
    Entry = 2,
    /// A client's mailboxes.
    Mailbox = 3,
    /// Questions to the directory.
    Directory = 4,
}

/// First frame from whoever dialled (LNK-3).
///
/// | offset | bytes | field                                                  |
/// |--------|-------|--------------------------------------------------------|
/// | 0      | 2     | wire version                                           |
/// | 2      | 1     | purpose                                                |
/// | 3      | 1     | index of the profile in the consensus; zero for others |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The dialler's wire version.
    pub version: u16,
    /// What the link is for.
    pub purpose: Purpose,
    /// Index of the client's profile in the consensus.
    pub profile: u8,
}

impl Hello {
    /// The frame that says it.
    #[must_use]
    pub fn to_frame(self) -> Frame {
        let [high, low] = self.version.to_be_bytes();
        let body = [high, low, self.purpose as u8, self.profile];
        Frame::with_body(Kind::Hello, [0; FIELD_LEN], &body)
    }

    /// Reads it, or `None` if it is none or of another version (LNK-3).
    #[must_use]
    pub fn parse(frame: &Frame) -> Option<Self> {
        let [high, low, purpose, profile, ..] = *frame.body();
        let purpose = match purpose {
            1 => Purpose::Node,
            2 => Purpose::Entry,
            3 => Purpose::Mailbox,
            4 => Purpose::Directory,
            _ => return None,
        };
        let version = u16::from_be_bytes([high, low]);
        let known = frame.kind() == Some(Kind::Hello) && version == WIRE_VERSION;
        known.then_some(Self {
            version,
            purpose,
            profile,
        })
    }
}

/// Most cursors that one confirmation carries: one for each mailbox of a link.
pub const CURSORS_MAX: usize = 64;

/// What rides on a client's confirmation tick (LNK-4).
///
/// | offset | bytes  | field                                                          |
/// |--------|--------|----------------------------------------------------------------|
/// | 0      | 2      | number of cursors, `n` <= 64                                   |
/// | 2      | 1      | number of openings, `m` <= 17                                  |
/// | 3      | 1      | zero                                                           |
/// | 4      | 10 × n | slot (u16), highest sequence the client has stored (u64)       |
/// | 644    | 98 × m | each opening: slot (u16), its mailbox key (Ed25519, 32 bytes), signature over [`open_statement`] (64 bytes) |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirmation {
    /// For each slot: the highest sequence that the client has stored.
    pub cursors: Vec<(u16, u64)>,
    /// Mailboxes to open on this link.
    pub opens: Vec<Open>,
}

/// A client's proof that a mailbox is its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// The slot by which this link will name the mailbox.
    pub slot: u16,
    /// The mailbox key.
    pub key: [u8; 32],
    /// Ed25519 signature over [`open_statement`].
    pub signature: [u8; 64],
}

impl core::fmt::Debug for Open {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Open({})", self.slot)
    }
}

const OPENS: usize = 4 + 10 * CURSORS_MAX;
const OPEN_LEN: usize = 2 + 32 + 64;
/// Most openings that one confirmation carries: what its body leaves.
pub const OPENS_MAX: usize = (BODY_LEN - OPENS) / OPEN_LEN;

/// What a mailbox key signs to open its mailbox: bound to one network and, by the TLS exporter
/// of the link, to one link, so that it can't be used again.
#[must_use]
pub fn open_statement(
    network: &crate::NetworkId,
    mailbox: &crate::MailboxId,
    exporter: &[u8; 32],
) -> Vec<u8> {
    [
        b"lacuna mailbox open v1".as_slice(),
        &network.0,
        &mailbox.0,
        exporter,
    ]
    .concat()
}

impl Confirmation {
    /// The frame that carries it.
    ///
    /// # Panics
    ///
    /// With more than [`CURSORS_MAX`] cursors or [`OPENS_MAX`] openings.
    #[must_use]
    pub fn to_frame(&self) -> Frame {
        assert!(self.cursors.len() <= CURSORS_MAX && self.opens.len() <= OPENS_MAX);
        let mut body = [0; BODY_LEN];
        body[1] = u8::try_from(self.cursors.len()).expect("at most 64"); // low byte of a u16
        body[2] = u8::try_from(self.opens.len()).expect("at most 17");
        for (entry, (slot, upto)) in body[4..].chunks_exact_mut(10).zip(&self.cursors) {
            entry[..2].copy_from_slice(&slot.to_be_bytes());
            entry[2..].copy_from_slice(&upto.to_be_bytes());
        }
        for (entry, open) in body[OPENS..].chunks_exact_mut(OPEN_LEN).zip(&self.opens) {
            entry[..2].copy_from_slice(&open.slot.to_be_bytes());
            entry[2..34].copy_from_slice(&open.key);
            entry[34..].copy_from_slice(&open.signature);
        }
        Frame::with_body(Kind::Confirm, [0; FIELD_LEN], &body)
    }

    /// Reads it, or `None` if it is none.
    #[must_use]
    pub fn parse(frame: &Frame) -> Option<Self> {
        let body = frame.body();
        let count = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let opens = usize::from(body[2]);
        if frame.kind() != Some(Kind::Confirm) || count > CURSORS_MAX || opens > OPENS_MAX {
            return None;
        }
        let cursors = body[4..].chunks_exact(10).take(count).map(|entry| {
            let slot = u16::from_be_bytes(array(entry));
            (slot, u64::from_be_bytes(array(&entry[2..])))
        });
        let opens = body[OPENS..].chunks_exact(OPEN_LEN).take(opens);
        let opens = opens.map(|entry| Open {
            slot: u16::from_be_bytes(array(entry)),
            key: array(&entry[2..]),
            signature: array(&entry[34..]),
        });
        Some(Self {
            cursors: cursors.collect(),
            opens: opens.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// LNK-1
    #[test]
    fn every_kind_of_frame_has_one_length_and_reads_back() {
        for kind in Kind::ALL {
            let frame = Frame::new(kind, 513, field_of(7, 9));
            assert_eq!(frame.as_bytes().len(), FRAME_LEN);
            assert_eq!(frame.kind(), Some(kind));
            assert_eq!(frame.slot(), 513);
            assert_eq!(frame.numbers(), (7, 9));
        }
        let packet = [3; PACKET_LEN];
        assert_eq!(*Frame::packet(0, [0; 32], &packet).to_packet(), packet);
    }

    /// LNK-2
    #[test]
    fn unknown_kinds_and_a_second_byte_are_refused() {
        for (first, second) in [(0, 0), (8, 0), (255, 0), (1, 1)] {
            let mut bytes = Box::new([0; FRAME_LEN]);
            (bytes[0], bytes[1]) = (first, second);
            assert_eq!(Frame::from_bytes(bytes).kind(), None);
        }
    }

    /// LNK-3
    #[test]
    fn a_hello_of_another_version_or_purpose_is_refused() {
        let hello = Hello {
            version: WIRE_VERSION,
            purpose: Purpose::Mailbox,
            profile: 3,
        };
        assert_eq!(Hello::parse(&hello.to_frame()), Some(hello));
        let version = WIRE_VERSION + 1;
        assert_eq!(Hello::parse(&Hello { version, ..hello }.to_frame()), None);
        let odd = Frame::with_body(Kind::Hello, [0; 32], &[0, 1, 9, 0]);
        assert_eq!(Hello::parse(&odd), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// LNK-4
        #[test]
        fn confirmations_read_back(
            cursors in prop::collection::vec(any::<(u16, u64)>(), 0..=CURSORS_MAX),
            opens in prop::collection::vec(any::<(u16, [u8; 32], u8)>(), 0..=OPENS_MAX),
        ) {
            let open = |(slot, key, byte)| Open { slot, key, signature: [byte; 64] };
            let opens = opens.into_iter().map(open).collect();
            let confirmation = Confirmation { cursors, opens };
            prop_assert_eq!(Confirmation::parse(&confirmation.to_frame()), Some(confirmation));
        }

        #[test]
        fn no_body_makes_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..=BODY_LEN)) {
            for kind in Kind::ALL {
                let frame = Frame::with_body(kind, [0; 32], &bytes);
                let _ = (Hello::parse(&frame), Confirmation::parse(&frame));
            }
        }
    }
}
