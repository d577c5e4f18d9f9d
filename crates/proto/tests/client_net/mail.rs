//! Mailboxes, and the links on which clients read them.

use core::time::Duration;
use std::collections::BTreeMap;

use ed25519_dalek::{Signature, VerifyingKey};
use proto::{
    MailboxId, NodeId,
    client::Input,
    gateway::Numbers,
    wire::{Confirmation, Frame, Kind, field_of, open_statement},
};
use rand::RngExt as _;
use sphinx::Packet;

use super::{Event, NETWORK, Net, PROFILE, START_S};

/// A packet in a mailbox.
pub(super) struct Kept {
    stored_at_s: u64,
    packet: Box<Packet>,
}

#[derive(Default)]
pub(super) struct Mailbox {
    pub(super) packets: BTreeMap<u64, Kept>,
    last: u64,
    /// Highest sequence sent on the link that is open now.
    sent: u64,
}

/// A client's link to one mailbox gateway.
pub(super) struct Mail {
    link: u64,
    exporter: [u8; 32],
    /// Mailboxes that are open on it, by slot, and whose turn it was.
    pub(super) open: BTreeMap<u16, MailboxId>,
    turn: u16,
}

impl Net {
    /// Makes and ends mailbox links, as a client wants them.
    pub(super) fn dial_mailboxes(&mut self, client: usize) {
        let machine = self.peers[client].client.as_ref().expect("it runs");
        let wanted = machine.mailbox_gateways();
        let dead = &self.dead;
        let ends = |at: &NodeId| !wanted.contains(at) || dead.contains(at);
        let mail = self.peers[client].mail.keys();
        let ending: Vec<NodeId> = mail.copied().filter(ends).collect();
        for gateway in ending {
            self.peers[client].mail.remove(&gateway);
            self.input(client, Input::MailboxDown { gateway });
        }
        for gateway in wanted {
            let peer = &mut self.peers[client];
            if peer.mail.contains_key(&gateway) || self.dead.contains(&gateway) {
                continue;
            }
            peer.link += 1;
            let (link, exporter) = (peer.link, self.rng.random());
            let mail = Mail {
                link,
                exporter,
                open: BTreeMap::new(),
                turn: 0,
            };
            peer.mail.insert(gateway, mail);
            self.input(client, Input::MailboxUp { gateway, exporter });
            let tick = Event::Downstream {
                client,
                gateway,
                link,
            };
            self.schedule(Duration::ZERO, tick);
        }
    }

    /// A frame from the gateway of a client's mailbox.
    pub(crate) fn frame(&mut self, client: usize, frame: Frame) {
        let gateway = self.client(client).mailbox_gateway();
        self.input(client, Input::Frame { gateway, frame });
    }

    pub(super) fn store(&mut self, mailbox: MailboxId, packet: Box<Packet>) {
        if let Some(tap) = &mut self.tap {
            tap.push((mailbox, packet.clone()));
        }
        let stored_at_s = START_S + self.now.as_nanos() / 1_000_000_000;
        let Some(of) = self.mailboxes.get_mut(&mailbox) else {
            self.nobodys += 1;
            return;
        };
        let twice = 1 + usize::from(self.rng.random_bool(self.duplicates));
        for _ in 0..twice {
            if of.packets.len() >= self.quota {
                self.refused += 1;
                continue;
            }
            let seq = self.numbers.next(of.last, stored_at_s);
            let packet = packet.clone();
            let kept = Kept {
                stored_at_s,
                packet,
            };
            of.packets.insert(seq, kept);
            let full = of.packets.len() >= self.quota;
            of.last = Numbers::highest(seq, full && self.shows_full);
        }
    }

    /// Every gateway stops, loses its store, and comes back.
    pub(crate) fn lose_mailboxes(&mut self) {
        (0..self.peers.len()).for_each(|client| self.links(client, false));
        self.mailboxes.clear();
        self.numbers = Numbers::default();
        (0..self.peers.len()).for_each(|client| self.links(client, true));
    }

    /// Puts a packet straight into a client's mailbox.
    pub(crate) fn inject(&mut self, client: usize, packet: Box<Packet>) {
        let mailbox = self.peers[client].identity.mailbox();
        self.store(mailbox, packet);
    }

    /// Puts a packet straight into a mailbox.
    pub(crate) fn inject_at(&mut self, mailbox: MailboxId, packet: Box<Packet>) {
        self.store(mailbox, packet);
    }

    pub(super) fn downstream(&mut self, client: usize, gateway: NodeId, link: u64) {
        let mail = self.peers[client].mail.get(&gateway);
        let Some(mail) = mail.filter(|mail| mail.link == link) else {
            return;
        };
        // Mailboxes take turns.
        let (later, sooner) = (
            mail.open.range(mail.turn + 1..),
            mail.open.range(..=mail.turn),
        );
        let next = later.chain(sooner).find_map(|(slot, id)| {
            let mailbox = &self.mailboxes[id];
            let (seq, kept) = mailbox.packets.range(mailbox.sent + 1..).next()?;
            let field = field_of(*seq, kept.stored_at_s);
            Some((*slot, *id, *seq, Frame::packet(*slot, field, &kept.packet)))
        });
        let frame = if let Some((slot, id, seq, frame)) = next {
            let peer = &mut self.peers[client];
            peer.mail.get_mut(&gateway).expect("it is up").turn = slot;
            self.mailboxes.get_mut(&id).expect("open").sent = seq;
            peer.read.push(self.now);
            frame
        } else {
            Frame::new(Kind::Dummy, 0, [0; 32])
        };
        if !self.frozen.contains(&gateway) {
            self.input(client, Input::Frame { gateway, frame });
        }
        let (_, profile) = self
            .consensus
            .params
            .profile(PROFILE)
            .expect("the only one");
        let gap = Duration::from_secs_f64(1e6 / profile.downstream_uhz as f64);
        let tick = Event::Downstream {
            client,
            gateway,
            link,
        };
        self.schedule(gap, tick);
    }

    pub(super) fn confirm(&mut self, client: usize, gateway: NodeId, frame: &Frame) {
        let mail = self.peers[client].mail.get_mut(&gateway);
        let mail = mail.expect("nothing is written to a link that is down");
        let confirmation = Confirmation::parse(frame).expect("a confirmation");
        for (slot, upto) in confirmation.cursors {
            let of = mail.open.get(&slot);
            if let Some(mailbox) = of.and_then(|id| self.mailboxes.get_mut(id)) {
                mailbox.packets = mailbox.packets.split_off(&(upto + 1));
            }
        }
        for open in confirmation.opens {
            let id = MailboxId::of(&open.key);
            let statement = open_statement(&NETWORK, &id, &mail.exporter);
            let key = VerifyingKey::from_bytes(&open.key).expect("a key");
            let signature = Signature::from_bytes(&open.signature);
            key.verify_strict(&statement, &signature)
                .expect("its signature");
            if self.full.contains(&gateway) && !self.mailboxes.contains_key(&id) {
                continue;
            }
            assert!(
                mail.open.insert(open.slot, id).is_none(),
                "a slot is opened once"
            );
            self.mailboxes.entry(id).or_default().sent = 0;
        }
    }
}
