//! What goes into a gateway and comes out of it. Numbers, mailboxes and packets name clients, so nothing
//! here prints them (OPS-1).

use std::sync::Arc;

use sphinx::Packet;

use crate::{
    LinkId, MailboxId, NodeId,
    calendar::Calendar,
    directory::Consensus,
    peel::Peeled,
    wire::{Frame, Purpose},
};

/// A packet as the store keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its number: rising within a mailbox, never reused, at least 1.
    pub seq: u64,
    /// When it was stored, UTC seconds.
    pub stored_at_s: u64,
    /// The packet, wrapped for its recipient.
    pub packet: Box<Packet>,
}

/// How a mailbox stands in a store that several gateways share, after one of them changed it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub mailbox: MailboxId,
    /// How many packets it holds.
    pub packets: u64,
    /// Highest number ever given or left out in it, 0 for none.
    pub highest: u64,
    /// How often it has been opened, at whichever of them.
    pub openings: u64,
}

/// What a driver brings.
#[derive(Clone)]
pub enum Input {
    /// The newest consensus: first layer, profiles, expiry.
    Consensus(Arc<Consensus>),
    /// What UTC was at one time of the driver's.
    Calendar(Calendar),
    /// What the store holds, at start: each mailbox and its number of packets.
    Registered(Vec<(MailboxId, u64)>),
    /// A client's link is up.
    Linked {
        /// Its number, never given before.
        link: LinkId,
        /// [`Purpose::Entry`] or [`Purpose::Mailbox`].
        purpose: Purpose,
        /// Index of the client's profile in the consensus.
        profile: u8,
        /// The link's TLS exporter.
        exporter: [u8; 32],
    },
    /// A client's link is gone.
    Unlinked {
        /// Which.
        link: LinkId,
    },
    /// A client's link read a frame.
    Frame {
        /// Which link.
        link: LinkId,
        /// What it read.
        frame: Frame,
    },
    /// A packet that was opened, admitted and journaled.
    Peeled(Peeled),
    /// The packet of one [`Output::Store`] is durable.
    Stored {
        /// Whose.
        mailbox: MailboxId,
        /// The number that the store gave it.
        seq: u64,
    },
    /// The store would not take the packet of one [`Output::Store`] (its own limits, its queue).
    Refused {
        /// Whose.
        mailbox: MailboxId,
    },
    /// The one answer to an [`Output::Peek`].
    Peeked {
        /// Whose.
        mailbox: MailboxId,
        /// Packets after the number asked for, rising, at most as many as asked for; fewer
        /// only if the store holds no more.
        packets: Vec<Kept>,
    },
    /// The store has deleted packets, as [`Output::Confirm`] or [`Output::Expire`] asked.
    Removed {
        /// Whose.
        mailbox: MailboxId,
        /// How many.
        packets: u64,
    },
    /// The answer to an [`Output::Open`], from a store that others share.
    Opened {
        /// Whose.
        mailbox: MailboxId,
        /// How often it has been opened, at whichever gateway, this time included.
        openings: u64,
    },
    /// What has changed in a store that others share, whoever changed it. It is read in the order in
    /// which the store is asked for anything else.
    Changed(Vec<Change>),
    /// The store failed. The gateway stops closed, for good (GW-18).
    StoreFailed,
    /// A notice of a node, heard for the first time: for all who hold a mailbox link (LOOP-9).
    Notice(Frame),
}

/// An effect of the gateway. The store's are carried out in the order in which they come.
#[derive(Clone, PartialEq, Eq)]
pub enum Output {
    /// Write `packet` to the node link towards `to`.
    Relay {
        /// A mix of the first layer.
        to: NodeId,
        /// Exactly one packet.
        packet: Box<Packet>,
    },
    /// Write `frame` to a client's link. A driver that can't closes the link: a frame left out
    /// would be confirmed by the next one (GW-13).
    Frame {
        /// Which link.
        link: LinkId,
        /// Exactly one frame.
        frame: Frame,
    },
    /// Close a client's link. The gateway has forgotten it.
    Close {
        /// Which.
        link: LinkId,
    },
    /// Keep this mailbox, durably, before anything that follows.
    Register {
        /// Which.
        mailbox: MailboxId,
    },
    /// A link has opened this mailbox, and no other is to have it (GW-28). Only a store that others
    /// share has to know; it answers with [`Input::Opened`].
    Open {
        /// Which.
        mailbox: MailboxId,
    },
    /// Store a packet; answered by [`Input::Stored`] or [`Input::Refused`].
    Store {
        /// Whose.
        mailbox: MailboxId,
        /// UTC seconds.
        stored_at_s: u64,
        /// The packet.
        packet: Box<Packet>,
    },
    /// Read packets; answered by exactly one [`Input::Peeked`].
    Peek {
        /// Whose.
        mailbox: MailboxId,
        /// Only those numbered higher than this.
        after: u64,
        /// At most so many, at least 1.
        limit: usize,
    },
    /// Delete what the recipient has stored; answered by [`Input::Removed`].
    Confirm {
        /// Whose.
        mailbox: MailboxId,
        /// This number and all lower ones.
        upto: u64,
    },
    /// Delete what is too old; answered by one [`Input::Removed`] for each mailbox concerned.
    Expire {
        /// All that was stored before this, UTC seconds.
        before_s: u64,
    },
    /// Something was dropped; the driver counts these.
    Dropped(GatewayDrop),
    /// Something happened that the driver counts.
    Event(GatewayEvent),
}

/// Why a packet or frame was dropped. Counted, never answered and never logged one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayDrop {
    /// There is no epoch now, or the store failed (GW-17, GW-18).
    Closed,
    /// The link is unknown.
    NoLink,
    /// A frame of a kind that this link does not carry (GW-1).
    Kind,
    /// The client sends faster than its profile allows (GW-3).
    Rate,
    /// The first mix that the frame names is not in the first layer (GW-2).
    WrongFirst,
    /// A packet that asks a gateway for a delay (GW-9).
    DelayNotZero,
    /// A packet for no mailbox of this gateway: drop cover (GW-9).
    NoMailbox,
    /// The mailbox holds its quota (GW-10).
    Quota,
    /// The store would not take the packet (GW-10).
    StoreRefused,
    /// A confirmation that does not parse.
    Malformed,
    /// An opening whose key or signature is wrong (GW-5).
    BadOpen,
    /// An opening of a slot that is in use, of a mailbox that has another slot on this link, or
    /// of one slot too many (GW-6).
    SlotTaken,
    /// An opening of a new mailbox, and no room for one (GW-8).
    MailboxesFull,
    /// A cursor for a slot that is not open, or beyond what was sent (GW-15).
    Cursor,
}

/// What a gateway tells its operator, as counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayEvent {
    /// A link was closed: too many, no consensus, or no such profile (GW-4).
    LinkRefused,
    /// A mailbox was opened on a link.
    Opened,
    /// A mailbox was opened on a newer link than the one it was open on (GW-7, GW-28).
    Displaced,
    /// Downstream ticks of one link that were overdue and are skipped (GW-12).
    TicksSkipped(u64),
    /// The store holds more mailboxes than [`Limits::mailboxes_max`](super::Limits::mailboxes_max): so many are not served.
    MailboxesUnserved(u64),
    /// The store failed; everything stopped (GW-18).
    StoreFailed,
}

impl core::fmt::Debug for Kept {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Kept(..)")
    }
}

impl core::fmt::Debug for Change {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Change(..)")
    }
}

impl core::fmt::Debug for Input {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Consensus(_) => "Consensus(..)",
            Self::Calendar(_) => "Calendar(..)",
            Self::Registered(_) => "Registered(..)",
            Self::Linked { .. } => "Linked(..)",
            Self::Unlinked { .. } => "Unlinked(..)",
            Self::Frame { .. } => "Frame(..)",
            Self::Peeled(_) => "Peeled(..)",
            Self::Stored { .. } => "Stored(..)",
            Self::Refused { .. } => "Refused(..)",
            Self::Peeked { .. } => "Peeked(..)",
            Self::Removed { .. } => "Removed(..)",
            Self::Opened { .. } => "Opened(..)",
            Self::Changed(_) => "Changed(..)",
            Self::StoreFailed => "StoreFailed",
            Self::Notice(_) => "Notice(..)",
        })
    }
}

impl core::fmt::Debug for Output {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Relay { to, .. } => write!(f, "Relay({to:?})"),
            Self::Frame { frame, .. } => write!(f, "{frame:?}"),
            Self::Close { .. } => f.write_str("Close(..)"),
            Self::Register { .. } => f.write_str("Register(..)"),
            Self::Open { .. } => f.write_str("Open(..)"),
            Self::Store { .. } => f.write_str("Store(..)"),
            Self::Peek { limit, .. } => write!(f, "Peek({limit})"),
            Self::Confirm { .. } => f.write_str("Confirm(..)"),
            Self::Expire { before_s } => write!(f, "Expire({before_s})"),
            Self::Dropped(why) => write!(f, "Dropped({why:?})"),
            Self::Event(what) => write!(f, "Event({what:?})"),
        }
    }
}
