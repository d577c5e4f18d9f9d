//! What the gateway's tests share, fuzzing included: documents, mailbox owners, a store in memory.

use std::{collections::BTreeMap, sync::Arc};

use ed25519_dalek::{Signer, SigningKey};
use proto::{
    LinkId, MailboxId, NetworkId, NodeId, Time,
    calendar::{Calendar, Epoch, Utc},
    directory::{Consensus, Params, Profile},
    gateway::{Change, Input, Kept, Limits, Output},
    peel::Peeled,
    wire::{Confirmation, FIELD_LEN, Frame, Kind, Open, Purpose, open_statement},
};
use sphinx::{PACKET_LEN, Packet};

pub(crate) const NETWORK: NetworkId = NetworkId([9; 32]);
pub(crate) const SEED: [u8; 32] = [1; 32];
pub(crate) const DAY_S: u64 = 86_400;
/// When the first period starts, UTC seconds.
pub(crate) const START_S: u64 = 1_000_000;
/// Periods follow each other after two days; each carries keys for four.
pub(crate) const PERIOD_S: u64 = 2 * DAY_S;
pub(crate) const EXPIRY_S: u32 = 7_200;

pub(crate) fn limits() -> Limits {
    Limits {
        mailboxes_max: 100,
        links_max: 100,
        read_ahead: 16,
        quota: 10_000,
    }
}

pub(crate) fn node(i: u8) -> NodeId {
    NodeId([i; 32])
}

/// A document whose first layer is `first`.
pub(crate) fn consensus(period: u64, first: &[u8], profiles: Vec<Profile>) -> Arc<Consensus> {
    let params = Params {
        epoch_s: u32::try_from(DAY_S).unwrap(),
        epochs: 2,
        expiry_s: EXPIRY_S,
        profiles,
        ..Params::default()
    };
    Arc::new(Consensus {
        network: NETWORK,
        period,
        valid_from_s: START_S + (period - 1) * PERIOD_S,
        previous: [0; 32],
        params,
        descriptors: Vec::new(),
        nodes: Vec::new(),
        layers: vec![first.iter().copied().map(node).collect()],
    })
}

/// An hour into the first period, at the time zero of the driver.
pub(crate) fn calendar() -> Input {
    calendar_at(Time::ZERO, START_S + 3_600)
}

pub(crate) fn calendar_at(at: Time, utc_s: u64) -> Input {
    let utc = Utc::from_secs(utc_s);
    Input::Calendar(Calendar { at, utc })
}

/// The TLS exporter of a link.
pub(crate) fn exporter(link: LinkId) -> [u8; 32] {
    let mut exporter = [0xee; 32];
    exporter[..8].copy_from_slice(&link.0.to_be_bytes());
    exporter
}

pub(crate) fn linked(link: LinkId, purpose: Purpose, profile: u8) -> Input {
    Input::Linked {
        link,
        purpose,
        profile,
        exporter: exporter(link),
    }
}

/// Whoever holds the key of a mailbox.
pub(crate) struct Owner(SigningKey);

impl Owner {
    pub(crate) fn new(i: u8) -> Self {
        Self(SigningKey::from_bytes(&[i; 32]))
    }

    pub(crate) fn mailbox(&self) -> MailboxId {
        MailboxId::of(self.0.verifying_key().as_bytes())
    }

    /// An opening for a link whose exporter is `exporter`.
    pub(crate) fn open(&self, slot: u16, exporter: &[u8; 32]) -> Open {
        self.open_of(&self.mailbox(), slot, exporter)
    }

    /// The same, with a signature over another mailbox's statement.
    pub(crate) fn open_of(&self, mailbox: &MailboxId, slot: u16, exporter: &[u8; 32]) -> Open {
        let statement = open_statement(&NETWORK, mailbox, exporter);
        Open {
            slot,
            key: self.0.verifying_key().to_bytes(),
            signature: self.0.sign(&statement).to_bytes(),
        }
    }
}

pub(crate) fn confirm(
    link: LinkId,
    cursors: Vec<(u16, u64)>,
    opens: impl IntoIterator<Item = Open>,
) -> Input {
    let opens = opens.into_iter().collect();
    let frame = Confirmation { cursors, opens }.to_frame();
    Input::Frame { link, frame }
}

/// A packet that no other of a test equals.
/// A notice as a driver brings it: verified before.
pub(crate) fn notice(name: u8) -> Input {
    Input::Notice(Frame::with_body(Kind::Notice, [0; FIELD_LEN], &[name; 112]))
}

pub(crate) fn packet(name: u64) -> Box<Packet> {
    let mut packet = Box::new([0; PACKET_LEN]);
    packet[..8].copy_from_slice(&name.to_be_bytes());
    packet
}

pub(crate) fn relayed(link: LinkId, first: NodeId, name: u64) -> Input {
    let frame = Frame::packet(0, first.0, &packet(name));
    Input::Frame { link, frame }
}

pub(crate) fn peeled(received: Time, to: MailboxId, name: u64) -> Peeled {
    Peeled {
        received,
        next: to.0,
        epoch: Epoch(0),
        delay: core::time::Duration::ZERO,
        packet: packet(name),
    }
}

/// The store, as simple as can be: answers one request at a time.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) boxes: BTreeMap<MailboxId, Vec<Kept>>,
    openings: BTreeMap<MailboxId, u64>,
    last: u64,
}

impl Store {
    pub(crate) fn put(&mut self, mailbox: MailboxId, stored_at_s: u64, packet: Box<Packet>) -> u64 {
        self.last += 1;
        let kept = Kept {
            seq: self.last,
            stored_at_s,
            packet,
        };
        let held = self.boxes.get_mut(&mailbox);
        held.expect("GW-8: registered before").push(kept);
        self.last
    }

    /// Counts an opening, at whichever gateway, and says how many there were.
    pub(crate) fn open(&mut self, mailbox: MailboxId) -> u64 {
        let openings = self.openings.entry(mailbox).or_default();
        *openings += 1;
        *openings
    }

    /// What the gateways that share it are told of a mailbox.
    pub(crate) fn change(&self, mailbox: MailboxId) -> Change {
        let held = self.boxes.get(&mailbox).map_or(&[][..], Vec::as_slice);
        Change {
            mailbox,
            packets: held.len() as u64,
            highest: held.last().map_or(0, |kept| kept.seq),
            openings: self.openings.get(&mailbox).copied().unwrap_or(0),
        }
    }

    /// Does what `output` asks of a store, if anything, and says what comes of it.
    pub(crate) fn answer(&mut self, output: Output) -> Vec<Input> {
        match output {
            Output::Register { mailbox } => {
                self.boxes.entry(mailbox).or_default();
                Vec::new()
            }
            Output::Open { mailbox } => {
                let openings = self.open(mailbox);
                vec![Input::Opened { mailbox, openings }]
            }
            Output::Store {
                mailbox,
                stored_at_s,
                packet,
            } => {
                let seq = self.put(mailbox, stored_at_s, packet);
                vec![Input::Stored { mailbox, seq }]
            }
            Output::Peek {
                mailbox,
                after,
                limit,
            } => {
                let held = self.boxes[&mailbox].iter();
                let later = held.filter(|kept| kept.seq > after);
                let packets = later.take(limit).cloned().collect();
                vec![Input::Peeked { mailbox, packets }]
            }
            Output::Confirm { mailbox, upto } => {
                vec![self.remove(mailbox, |kept| kept.seq <= upto)]
            }
            Output::Expire { before_s } => {
                let all: Vec<MailboxId> = self.boxes.keys().copied().collect();
                let old = |kept: &Kept| kept.stored_at_s < before_s;
                all.into_iter().map(|id| self.remove(id, old)).collect()
            }
            Output::Relay { .. }
            | Output::Frame { .. }
            | Output::Close { .. }
            | Output::Dropped(_)
            | Output::Event(_) => Vec::new(),
        }
    }

    fn remove(&mut self, mailbox: MailboxId, gone: impl Fn(&Kept) -> bool) -> Input {
        let held = self.boxes.get_mut(&mailbox).expect("registered before");
        let before = held.len();
        held.retain(|kept| !gone(kept));
        let packets = u64::try_from(before - held.len()).unwrap();
        Input::Removed { mailbox, packets }
    }
}
