//! A whole network in one struct: real packets, virtual time, and a driver for client machines.
//!
//! Mixes and gateways are peeled inline with their secret keys; what remains of them here is that
//! a packet arrives when its delays are over, or not at all. Mailboxes keep packets in order,
//! send one (or a dummy) at a constant rate, and resend from the last confirmation when they are
//! opened again. Stores take their time, and a crash loses what was not durable.

#![allow(dead_code, unused_imports, reason = "each test binary uses some of it")]

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chacha20::ChaCha12Rng;
use ed25519_dalek::{Signature, VerifyingKey};
use proto::{
    Machine, MailboxId, NetworkId, NodeId, Time,
    calendar::{Calendar, Utc},
    client::{
        AddressError, Client, ClientEvent, Config, Delivery, Identity, Input, Limits, MessageId,
        Op, Output, Progress, Relocated, Return, State, Target,
    },
    directory::{Consensus, Params},
    gateway::Numbers,
    wire::{Confirmation, Frame, Kind, field_of, open_statement},
};
use rand::{RngExt as _, SeedableRng as _};
use sphinx::{Packet, SecretKey};

mod crossing;
mod document;
mod look;
mod mail;

pub(crate) use crossing::{Class, Crossing, Crossings, Hop};
pub(crate) use document::{consensus, gateway_id, mix_id, own_family, params, rates};
use mail::{Mail, Mailbox};

pub(crate) const NETWORK: NetworkId = NetworkId([77; 32]);
/// When the first epoch starts, in UTC seconds.
pub(crate) const START_S: u64 = 1_800_000_000;
/// Name of the profile that tests use.
pub(crate) const PROFILE: &str = "test";

/// `len` bytes that tell messages apart by their salt.
pub(crate) fn body(len: usize, salt: u8) -> Vec<u8> {
    let byte = |i: usize| u8::try_from(i * 31 % 251).expect("below 251");
    (0..len).map(|i| byte(i) ^ salt).collect()
}

pub(crate) fn secs(secs: f64) -> Time {
    Time::ZERO.after(Duration::from_secs_f64(secs))
}

/// What UTC is at a time.
pub(crate) fn utc_at(time: Time) -> Utc {
    Utc::from_secs(START_S).after(time.since(Time::ZERO))
}

pub(crate) fn config() -> Config {
    Config {
        network: NETWORK,
        entry: None,
        profile: PROFILE.to_owned(),
        via: None,
        acks: true,
        limits: Limits::default(),
    }
}

enum Event {
    /// A packet comes out of the last mix.
    Arrive(MailboxId, Box<Packet>),
    /// A client's downstream tick.
    Downstream {
        client: usize,
        gateway: NodeId,
        link: u64,
    },
    /// A client's store has written.
    Written {
        client: usize,
        life: u64,
        txn: u64,
        ops: Vec<Op>,
    },
    /// A client's process starts.
    Start { client: usize, life: u64 },
}

/// One client with what outlives it.
pub(crate) struct Peer {
    pub(crate) client: Option<Client>,
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the application took: each message once.
    pub(crate) taken: BTreeMap<MessageId, Delivery>,
    /// Deliveries that were not taken yet: they may come again.
    pub(crate) offered: BTreeMap<MessageId, Delivery>,
    pub(crate) progress: Vec<Progress>,
    pub(crate) events: BTreeMap<ClientEvent, u64>,
    /// When the entry link was written.
    pub(crate) written: Vec<Time>,
    /// When a packet was read.
    pub(crate) read: Vec<Time>,
    life: u64,
    link: u64,
    mail: BTreeMap<NodeId, Mail>,
    /// What came of addresses asked for, and of moves.
    pub(crate) addressed: Vec<(u64, Result<u16, AddressError>)>,
    /// Correspondents that moved.
    pub(crate) relocated: Vec<Relocated>,
    /// Transactions that were written.
    pub(crate) writes: u64,
    /// The gateway that its entry link goes to.
    entered: Option<NodeId>,
    /// Whether the application takes what it is offered.
    pub(crate) takes: bool,
    /// Whether the links come up after a start.
    pub(crate) online: bool,
    /// How far its clock is ahead.
    pub(crate) ahead: Duration,
    /// What its machine was last told: later than the net's time after [`Net::hurry`].
    told: Time,
}

pub(crate) struct Net {
    pub(crate) now: Time,
    pub(crate) rng: ChaCha12Rng,
    pub(crate) consensus: Arc<Consensus>,
    secrets: BTreeMap<NodeId, Vec<SecretKey>>,
    mailboxes: BTreeMap<MailboxId, Mailbox>,
    numbers: Numbers,
    /// Packets that a mailbox holds, whether its numbers show that it was full, and what was refused.
    pub(crate) quota: usize,
    pub(crate) shows_full: bool,
    pub(crate) refused: u64,
    queue: BTreeMap<(Time, u64), Event>,
    next: u64,
    pub(crate) peers: Vec<Peer>,
    /// Probability that a packet is lost on the way.
    pub(crate) loss: f64,
    /// Mixes that let nothing through.
    pub(crate) blocked: BTreeSet<NodeId>,
    /// Gateways that are gone: no links, and what comes there is lost.
    pub(crate) dead: BTreeSet<NodeId>,
    /// Gateways that stand still: their links are up, and they send nothing.
    pub(crate) frozen: BTreeSet<NodeId>,
    /// Gateways that open no mailbox which they do not have (GW-8).
    pub(crate) full: BTreeSet<NodeId>,
    /// Whether an adversary garbles, or takes, what client 0 sends to others.
    pub(crate) garbled: bool,
    pub(crate) taken: bool,
    /// Probability that a packet is stored twice.
    pub(crate) duplicates: f64,
    /// Longest time that a store takes, in seconds.
    pub(crate) store_s: f64,
    /// Packets that reached no mailbox of a client: drops.
    pub(crate) nobodys: u64,
    /// Packets that some hop had no open key for.
    pub(crate) unopened: u64,
    /// How often each route was taken: three mixes and a gateway.
    pub(crate) routes: BTreeMap<Vec<NodeId>, u64>,
    /// What mixes were asked to hold packets for.
    pub(crate) delays: Vec<Duration>,
    /// Every packet as a mailbox got it, where a test asks for them.
    pub(crate) tap: Option<Vec<(MailboxId, Box<Packet>)>>,
    /// What each hop sees of packets, where a test asks for it.
    pub(crate) crossings: Option<Crossings>,
    hops: Vec<Hop>,
}

impl Net {
    pub(crate) fn new(seed: u8, params: Params, clients: u8) -> Self {
        let (consensus, secrets) = consensus(params, 3, 3, own_family);
        Self::with(seed, consensus, secrets, clients)
    }

    pub(crate) fn with(
        seed: u8,
        consensus: Consensus,
        secrets: BTreeMap<NodeId, Vec<SecretKey>>,
        clients: u8,
    ) -> Self {
        let mut rng = ChaCha12Rng::from_seed([seed; 32]);
        let gateways: Vec<NodeId> = consensus.gateways().map(|node| node.id).collect();
        let peers = (0..clients).map(|i| {
            let gateway = gateways[usize::from(i) % gateways.len()];
            let identity = Identity::generate(&mut rng, gateway);
            Peer {
                client: None,
                config: config(),
                identity,
                records: BTreeMap::new(),
                taken: BTreeMap::new(),
                offered: BTreeMap::new(),
                progress: Vec::new(),
                events: BTreeMap::new(),
                written: Vec::new(),
                read: Vec::new(),
                life: 0,
                link: 0,
                mail: BTreeMap::new(),
                addressed: Vec::new(),
                relocated: Vec::new(),
                writes: 0,
                entered: None,
                takes: true,
                online: true,
                ahead: Duration::ZERO,
                told: Time::ZERO,
            }
        });
        let peers: Vec<Peer> = peers.collect();
        let mut net = Self {
            now: Time::ZERO,
            rng,
            consensus: Arc::new(consensus),
            secrets,
            mailboxes: BTreeMap::new(),
            numbers: Numbers::default(),
            quota: usize::MAX,
            shows_full: true,
            refused: 0,
            queue: BTreeMap::new(),
            next: 0,
            peers,
            loss: 0.0,
            blocked: BTreeSet::new(),
            dead: BTreeSet::new(),
            frozen: BTreeSet::new(),
            full: BTreeSet::new(),
            garbled: false,
            taken: false,
            duplicates: 0.0,
            store_s: 0.01,
            nobodys: 0,
            unopened: 0,
            routes: BTreeMap::new(),
            delays: Vec::new(),
            tap: None,
            crossings: None,
            hops: Vec::new(),
        };
        for client in 0..net.peers.len() {
            let mailbox = net.peers[client].identity.mailbox();
            net.mailboxes.insert(mailbox, Mailbox::default());
            net.schedule(Duration::ZERO, Event::Start { client, life: 0 });
        }
        net
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.next += 1;
        self.queue.insert((self.now.after(after), self.next), event);
    }

    pub(crate) fn send(
        &mut self,
        from: usize,
        ticket: u64,
        to: usize,
        body: Vec<u8>,
        reply: Return,
    ) {
        let to = self.peers[to].identity.address();
        self.send_to(from, ticket, to, body, reply);
    }

    pub(crate) fn send_to(
        &mut self,
        from: usize,
        ticket: u64,
        to: proto::address::Address,
        body: Vec<u8>,
        reply: Return,
    ) {
        let to = Target::Address(to);
        self.input(
            from,
            Input::Send {
                ticket,
                to,
                body,
                reply,
            },
        );
    }

    pub(crate) fn input(&mut self, client: usize, input: Input) {
        let peer = &mut self.peers[client];
        peer.told = peer.told.max(self.now);
        if let Some(machine) = &mut peer.client {
            machine.handle(peer.told, input);
        }
        self.drain(client);
    }

    /// A driver that does not wait: it wakes a client for its next slots at once, until `done`, and lets it rest
    /// when their time comes. So controls take a rhythm out of the deployed machine.
    pub(crate) fn hurry(&mut self, client: usize, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let peer = &mut self.peers[client];
            let machine = peer.client.as_mut().expect("it runs");
            peer.told = machine.next_wake().expect("it never stops");
            machine.wake(peer.told);
            self.drain(client);
        }
    }

    /// Ends a client's process: what was not written is gone.
    pub(crate) fn crash(&mut self, client: usize, down: Duration) {
        let peer = &mut self.peers[client];
        peer.client = None;
        peer.entered = None;
        peer.life += 1;
        peer.mail.clear();
        let life = peer.life;
        self.schedule(down, Event::Start { client, life });
    }

    /// Cuts or restores a client's links.
    pub(crate) fn links(&mut self, client: usize, up: bool) {
        self.peers[client].online = up;
        if up {
            self.connect(client);
        } else {
            self.peers[client].entered = None;
            let mail = core::mem::take(&mut self.peers[client].mail);
            if let Some(gateway) = self.entry(client) {
                self.input(client, Input::EntryDown { gateway });
            }
            for gateway in mail.into_keys() {
                self.input(client, Input::MailboxDown { gateway });
            }
        }
    }

    fn entry(&self, client: usize) -> Option<NodeId> {
        self.peers[client].client.as_ref()?.entry()
    }

    /// Dials the gateway that a client chose, if it has no link to that one.
    fn dial(&mut self, client: usize) {
        let (entry, peer) = (self.entry(client), &mut self.peers[client]);
        if let Some(gateway) = entry.filter(|entry| peer.entered != Some(*entry)) {
            peer.entered = entry;
            self.input(client, Input::EntryUp { gateway });
        }
    }

    fn connect(&mut self, client: usize) {
        self.peers[client].entered = None;
        self.peers[client].mail.clear();
        self.dial(client);
        self.dial_mailboxes(client);
    }

    fn start(&mut self, client: usize) {
        let seed = self.rng.random();
        let calendar = Calendar {
            at: Time::ZERO,
            utc: utc_at(Time::ZERO).after(self.peers[client].ahead),
        };
        let peer = &mut self.peers[client];
        let records = peer.records.clone();
        let mut machine = Client::new(peer.config.clone(), seed, peer.identity.clone(), records)
            .expect("its own records");
        assert!(
            machine.next_wake().is_none_or(|at| at > self.now) || machine.next_wake().is_none()
        );
        machine.handle(self.now, Input::Calendar(calendar));
        peer.told = self.now;
        peer.client = Some(machine);
        let consensus = self.consensus.clone();
        self.input(client, Input::Consensus(consensus));
        if self.peers[client].online {
            self.connect(client);
        }
    }

    /// Runs until `done`, or until `until`.
    pub(crate) fn run(&mut self, until: Time, mut done: impl FnMut(&Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let wakes = (0..self.peers.len()).filter_map(|i| {
                let machine = self.peers[i].client.as_ref()?;
                Some((machine.next_wake()?, i))
            });
            let wake = wakes.min();
            let event = self.queue.keys().next().copied();
            let next = match (wake, event) {
                (Some((at, _)), Some((event, _))) => at.min(event),
                (Some((at, _)), None) => at,
                (None, Some((event, _))) => event,
                (None, None) => return false,
            };
            if next > until {
                self.now = until;
                return false;
            }
            assert!(next >= self.now);
            self.now = next;
            if let Some((at, client)) = wake
                && at == next
            {
                let peer = &mut self.peers[client];
                peer.told = next;
                peer.client.as_mut().expect("it wakes").wake(next);
                self.drain(client);
            } else if let Some(event) = self.queue.pop_first() {
                self.event(event.1);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Start { client, life } => {
                if self.peers[client].life == life {
                    self.start(client);
                }
            }
            Event::Arrive(mailbox, packet) => self.store(mailbox, packet),
            Event::Written {
                client,
                life,
                txn,
                ops,
            } => {
                if self.peers[client].life == life {
                    self.peers[client].writes += 1;
                    for op in ops {
                        match op {
                            Op::Put { key, value } => self.peers[client].records.insert(key, value),
                            Op::Delete { key } => self.peers[client].records.remove(&key),
                            Op::Erase => None,
                        };
                    }
                    self.input(client, Input::Stored { txn });
                }
            }
            Event::Downstream {
                client,
                gateway,
                link,
            } => self.downstream(client, gateway, link),
        }
    }

    /// Carries a machine's effects out.
    fn drain(&mut self, client: usize) {
        while let Some(output) = self.peers[client].client.as_mut().and_then(Machine::poll) {
            match output {
                Output::Entry(frame) => self.enter(client, &frame),
                Output::Mailbox { gateway, frame } => self.confirm(client, gateway, &frame),
                Output::Relocated(news) => self.peers[client].relocated.push(news),
                Output::Store { txn, ops } => {
                    let lag = Duration::from_secs_f64(self.rng.random::<f64>() * self.store_s);
                    let life = self.peers[client].life;
                    self.schedule(
                        lag,
                        Event::Written {
                            client,
                            life,
                            txn,
                            ops,
                        },
                    );
                }
                Output::Deliver(delivery) => self.deliver(client, delivery),
                Output::Progress(progress) => self.peers[client].progress.push(progress),
                Output::Addressed { ticket, outcome } => {
                    self.peers[client].addressed.push((ticket, outcome));
                }
                Output::Event(event) => {
                    let event = if matches!(event, ClientEvent::LoopReturned { .. }) {
                        let latency = Duration::ZERO;
                        ClientEvent::LoopReturned { latency }
                    } else {
                        event
                    };
                    *self.peers[client].events.entry(event).or_default() += 1;
                }
            }
        }
        if let Some(machine) = &self.peers[client].client {
            assert!(machine.next_wake().is_none_or(|at| at > self.now), "law 3");
        }
        if self.peers[client].entered.is_some() {
            self.dial(client);
            self.dial_mailboxes(client);
        }
    }

    fn deliver(&mut self, client: usize, delivery: Delivery) {
        let peer = &mut self.peers[client];
        let message = delivery.message;
        // A crash may come before "taken" is durable; an application knows messages by their ids.
        let untaken = peer.records.contains_key(&[b"d", &message.0[..]].concat());
        if let Some(before) = peer.taken.get(&message) {
            assert!(untaken, "delivered again after it was taken");
            assert!(*before == delivery, "delivered again, and differently");
        }
        if let Some(before) = peer.offered.insert(message, delivery.clone()) {
            assert!(before == delivery, "delivered again, and differently");
        }
        if peer.takes {
            peer.offered.remove(&message);
            peer.taken.insert(message, delivery);
            self.input(client, Input::Taken { message });
        }
    }

    fn enter(&mut self, client: usize, frame: &Frame) {
        assert_eq!(frame.kind(), Some(Kind::Packet));
        let now = self.now;
        let peer = &mut self.peers[client];
        peer.written.push(now);
        assert!(peer.online, "nothing is written to a link that is down");
        let Some((mailbox, mut packet, delay)) =
            self.peel(NodeId(frame.field()), frame.to_packet())
        else {
            return;
        };
        self.cross(client, frame, mailbox, &packet);
        if client == 0 && mailbox != self.peers[0].identity.mailbox() {
            packet[sphinx::PACKET_LEN - 1] ^= u8::from(self.garbled);
            if self.taken {
                return;
            }
        }
        if !self.rng.random_bool(self.loss) {
            self.schedule(delay, Event::Arrive(mailbox, packet));
        }
    }
}
