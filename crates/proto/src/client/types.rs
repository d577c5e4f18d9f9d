//! What a client's owner says to it and hears from it.
//!
//! Spec: docs/spec/client.md.
//!
//! | type             | direction      | what                                                   |
//! |------------------|----------------|--------------------------------------------------------|
//! | [`Input`]        | driver → client| documents, time, links, frames, commands               |
//! | [`Output`]       | client → driver| frames to write, transactions, deliveries, events      |
//! | [`Progress`]     | client → owner | how far one message has come                           |
//! | [`ClientEvent`]  | client → counts| what happened, without saying to whom                  |
//!
//! Message ids and bodies never print: they belong to a correspondence (OPS-1).

use core::{fmt, time::Duration};
use std::sync::Arc;

use sphinx::Reject;
use zeroize::Zeroize;

use super::{addresses::AddressError, alarm::Stage};
use crate::{
    NetworkId, NodeId,
    address::Address,
    calendar::Calendar,
    directory::Consensus,
    notice::{NoticeDrop, What},
    wire::Frame,
};

/// Names a message: 128 random bits that its sender draws; at its recipient, bits of a hash of
/// them and of the way it came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub [u8; 16]);

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageId(..)")
    }
}

/// Lets the application answer a message without knowing who sent it. It holds while the
/// message's return does: an address until expiry, SURBs for their epoch (CLI-18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(pub(crate) MessageId);

impl ReplyToken {
    /// Its bytes, for a program that keeps it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.0
    }

    /// Reads [`ReplyToken::to_bytes`]. Any bytes are a token; a wrong one names no message.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(MessageId(bytes))
    }
}

/// Where a message is to go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To an address.
    Address(Address),
    /// Back to whoever sent the message of this token.
    Reply(ReplyToken),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address(_) => "Address(..)",
            Self::Reply(_) => "Reply(..)",
        })
    }
}

/// What a message brings for the way back: its acks and the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Nothing: no ack, no repair, no answer.
    None,
    /// The sender's own address, the oldest it has.
    Address,
    /// Its address of this slot.
    At(u16),
    /// This many reply blocks for the answer, at most 96, and a few more for acks: the sender
    /// stays unknown.
    Surbs(u8),
}

/// A client's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The network, for what the client signs.
    pub network: NetworkId,
    /// The entry gateway that the owner prefers, if it may be one.
    pub entry: Option<NodeId>,
    /// Name of the traffic profile.
    pub profile: String,
    /// A mix that every route passes: the one that this client is the loops of (LOOP-2).
    pub via: Option<NodeId>,
    /// Whether finished blocks are acknowledged, and reply blocks brought on a question: both tell a
    /// correspondent that one is online.
    pub acks: bool,
    /// Bounds on what the client keeps.
    pub limits: Limits,
}

/// Bounds on every queue of a client (CLI-28, law 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages on their way out.
    pub outgoing_max: usize,
    /// Bytes of their bodies.
    pub outgoing_bytes_max: usize,
    /// Messages being put together.
    pub incoming_max: usize,
    /// Bytes of fragments and blocks being put together, and of messages not yet taken.
    pub incoming_bytes_max: usize,
    /// Acks that wait for a slot, of messages to one address; beyond, one is forgotten until a repair
    /// asks again.
    pub acks_max: usize,
    /// Packets remembered while one could be taken again; beyond, the oldest is forgotten, and one that
    /// is as old is acknowledged by nothing but what it completes (MSG-15).
    pub tags_max: usize,
    /// Finished messages remembered likewise; beyond, the oldest is forgotten, and no message that
    /// is as old is begun any more.
    pub finished_max: usize,
    /// Secrets of own SURBs not yet used or expired.
    pub surbs_max: usize,
    /// Loops under way.
    pub loops_max: usize,
    /// Reply blocks of others, held to answer them.
    pub held_surbs_max: usize,
    /// Correspondents that know an address of the client's by a message; beyond, the oldest is
    /// forgotten, and not told of a move.
    pub contacts_max: usize,
    /// Frames read whose effects are not durable yet; beyond, the mailbox is not read (CLI-15).
    pub unstored_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outgoing_max: 4096,
            outgoing_bytes_max: 256 << 20,
            incoming_max: 4096,
            incoming_bytes_max: 384 << 20,
            acks_max: 1024,
            tags_max: 1 << 20,
            finished_max: 1 << 20,
            surbs_max: 1 << 16,
            loops_max: 1 << 14,
            held_surbs_max: 1 << 16,
            contacts_max: 4096,
            unstored_max: 1 << 13,
        }
    }
}

/// What a driver brings.
#[derive(Clone, Debug)]
pub enum Input {
    /// A document, verified.
    Consensus(Arc<Consensus>),
    /// What UTC was at a time of the driver's.
    Calendar(Calendar),
    /// The link to this entry gateway can be written.
    EntryUp {
        /// Which: [`Client::entry`](super::Client::entry), or one that was meanwhile left.
        gateway: NodeId,
    },
    /// The link to this entry gateway is lost, or an attempt to make it failed.
    EntryDown {
        /// Which.
        gateway: NodeId,
    },
    /// Of all links, those that do not take what a call may write: a loop and a payload, or a
    /// confirmation. Until told, none.
    Full {
        /// Whether the entry link is one.
        entry: bool,
        /// The gateways of mailbox links that are.
        mailboxes: Vec<NodeId>,
    },
    /// The link to a mailbox gateway can be written; the exporter of its TLS session.
    MailboxUp {
        /// Which: one of [`Client::mailbox_gateways`](super::Client::mailbox_gateways).
        gateway: NodeId,
        /// 32 bytes that only the two ends of this link know.
        exporter: [u8; 32],
    },
    /// It is lost.
    MailboxDown {
        /// Which.
        gateway: NodeId,
    },
    /// A frame from a mailbox link.
    Frame {
        /// Whose.
        gateway: NodeId,
        /// What it sent.
        frame: Frame,
    },
    /// The owner has something to say.
    Send {
        /// The owner's number for it; comes back in [`Progress`].
        ticket: u64,
        /// Where to.
        to: Target,
        /// What, 0 to 128 MiB.
        body: Vec<u8>,
        /// What it brings for the way back.
        reply: Return,
    },
    /// The owner wants another address (CLI-31).
    NewAddress {
        /// The owner's number for it; comes back in [`Output::Addressed`].
        ticket: u64,
        /// The owner's name for it.
        label: String,
    },
    /// The owner wants an address gone, for good (CLI-32).
    Revoke {
        /// The owner's number for it.
        ticket: u64,
        /// Which.
        label: String,
    },
    /// The owner wants all mailboxes at another gateway (CLI-40).
    Move {
        /// The owner's number for it; comes back in [`Output::Addressed`].
        ticket: u64,
        /// Which; none: one is drawn.
        to: Option<NodeId>,
    },
    /// The application has this message; its body can be forgotten.
    Taken {
        /// Which.
        message: MessageId,
    },
    /// That transaction is durable.
    Stored {
        /// Its number.
        txn: u64,
    },
}

/// One change of a record. Keys and values are opaque to the driver.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Set a record.
    Put {
        /// Its key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Remove a record; there may be none.
    Delete {
        /// Its key.
        key: Vec<u8>,
    },
    /// Erase from the disk what this and earlier transactions replaced or removed: nobody can read
    /// it there once the transaction is durable.
    Erase,
}

impl Zeroize for Op {
    fn zeroize(&mut self) {
        if let Self::Put { value, .. } = self {
            value.zeroize();
        }
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { value, .. } => write!(f, "Put({} B)", value.len()),
            Self::Delete { .. } => f.write_str("Delete"),
            Self::Erase => f.write_str("Erase"),
        }
    }
}

/// A message for the application.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What it is called here; not the id that its sender gave it.
    pub message: MessageId,
    /// Its body.
    pub body: Vec<u8>,
    /// How to answer it, if it brought a return.
    pub reply: Option<ReplyToken>,
    /// Which of the client's addresses it came to.
    pub slot: u16,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delivery({} B)", self.body.len())
    }
}

/// A correspondent that has moved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relocated {
    /// Which of the client's addresses was told so.
    pub slot: u16,
    /// Where the correspondent was.
    pub from: Address,
    /// Where it is now.
    pub to: Address,
}

impl fmt::Debug for Relocated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relocated(..)")
    }
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is stored, and survives a restart.
    Queued,
    /// The first burst of all its blocks has left: the sender may go offline.
    Sent,
    /// The recipient has all of it.
    Acked,
    /// It was not acknowledged in time.
    Expired,
    /// It can't be sent.
    Failed(Failure),
}

/// Why a message can't be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no consensus, no calendar, or no epoch yet.
    NotReady,
    /// It is longer than 128 MiB.
    TooLong,
    /// Too many messages, or too many bytes, are on their way out.
    OutboxFull,
    /// No message of this token is remembered, or it brought no return.
    NothingToReplyTo,
    /// No reply block of the message is left, not even one to ask for more by.
    TooFewSurbs,
    /// The reply blocks' epoch is over.
    SurbsExpired,
    /// More than 96 reply blocks were asked for, or too many are under way.
    TooManySurbs,
    /// The network has no route for reply blocks now.
    NoRoute,
    /// The sender has no address of that slot.
    NoAddress,
    /// The address that its acks would come to was revoked.
    Revoked,
}

/// News of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The owner's number.
    pub ticket: u64,
    /// The message.
    pub message: MessageId,
    /// How far it is.
    pub state: State,
}

/// An effect of the client.
#[derive(Clone, PartialEq, Eq)]
pub enum Output {
    /// Write this to the entry link.
    Entry(Frame),
    /// Write this to a mailbox link.
    Mailbox {
        /// Whose.
        gateway: NodeId,
        /// What.
        frame: Frame,
    },
    /// Make all of this durable at once, then say [`Input::Stored`]. Transactions come in order,
    /// one at a time.
    Store {
        /// Its number, ascending.
        txn: u64,
        /// The changes, in order.
        ops: Vec<Op>,
    },
    /// A message for the application: again after each restart until it is taken.
    Deliver(Delivery),
    /// News of an outgoing message.
    Progress(Progress),
    /// A correspondent has moved.
    Relocated(Relocated),
    /// An address was made or revoked, or all have moved, durably; or not.
    Addressed {
        /// The owner's number.
        ticket: u64,
        /// Its slot, or why not.
        outcome: Result<u16, AddressError>,
    },
    /// Something to count.
    Event(ClientEvent),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(frame) => write!(f, "Entry({frame:?})"),
            Self::Mailbox { frame, .. } => write!(f, "Mailbox({frame:?})"),
            Self::Store { txn, ops } => write!(f, "Store({txn}, {ops:?})"),
            Self::Deliver(delivery) => delivery.fmt(f),
            Self::Progress(progress) => progress.fmt(f),
            Self::Addressed { .. } => f.write_str("Addressed(..)"),
            Self::Relocated(_) => f.write_str("Relocated(..)"),
            Self::Event(event) => event.fmt(f),
        }
    }
}

/// Something that happened, to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientEvent {
    /// A payload slot sent a fragment, an ack, a probe or a notice of a move.
    PayloadSent,
    /// A payload slot had nothing to say and sent a drop.
    DropSent,
    /// A loop left.
    LoopSent,
    /// A tick came too late, or found no room on the entry link, and was left out.
    TickSkipped,
    /// A tick found no route through the layers that keeps the families apart.
    NoRoute,
    /// A loop came back.
    LoopReturned {
        /// From its slot until it was read.
        latency: Duration,
    },
    /// A loop did not come back: a packet stored well after it has been read.
    LoopLost,
    /// A loop says nothing, whether it comes back or not: around its time the mailbox was full, or an
    /// outage or a hold may have kept it away (CLI-6, LOOP-12).
    LoopUnjudged,
    /// Too many loops were lost (LOOP-4).
    LoopAlarm,
    /// An alarm has brought the client to this stage (LOOP-6).
    Alarmed(Stage),
    /// The entry gateway was dead or withdrew, and another one is entered by (CLI-29).
    EntryReplaced,
    /// A node said something of itself, for the first time (LOOP-10).
    Noticed(What, Concerns),
    /// The gateway sent nothing.
    DummyReceived,
    /// A fragment of an unfinished block.
    FragmentReceived,
    /// A fragment of a block or message that is finished already.
    SpareReceived,
    /// An ack.
    AckReceived,
    /// An ack to others had no room to wait for a slot: their repair asks again.
    AckForgotten,
    /// A probe of an anonymous sender.
    ProbeReceived,
    /// A correspondent says that it has moved.
    RelocationReceived,
    /// What the client sent itself came by a mailbox that it has moved to.
    ProofReturned,
    /// A frame or packet from the mailbox that had no effect.
    Dropped(ClientDrop),
}

/// Why something from the mailbox had no effect. Counted, never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientDrop {
    /// A kind of frame that no gateway sends here.
    Frame,
    /// A mailbox that this client has not.
    Slot,
    /// An address that was revoked.
    Revoked,
    /// A sequence number that was read before.
    Sequence,
    /// Not read for now: no valid epoch, or too much waits for the store.
    Deaf,
    /// Not a packet for this address.
    Rejected(Reject),
    /// It asks the client to pass it on.
    Forward,
    /// The payload was changed on its way.
    Payload,
    /// A reply to no SURB, or to a used or expired one.
    Surb,
    /// The content is of no known kind or shape.
    Content,
    /// An ack by another way than its message named.
    Way,
    /// A correspondent's move that its old address' owner does not prove.
    Forged,
    /// A move of somebody with whom this address has nothing to do.
    Stranger,
    /// The packet was seen before.
    Replay,
    /// The fragment was made too long ago, or in the future.
    Epoch,
    /// The fragment contradicts others of its message.
    Mismatch,
    /// There is no room to put another message together.
    Full,
    /// A loop that is not under way.
    Loop,
    /// What a node says of itself, as far as it is not heard (LOOP-8).
    Notice(NoticeDrop),
}

/// Whom of a client's a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concerns {
    /// The gateway by which it entered.
    Entry,
    /// The gateway that holds its mailbox.
    Mailbox,
    /// Another node.
    Other,
}
