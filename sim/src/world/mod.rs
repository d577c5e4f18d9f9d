//! The packet engine: the deployed machines with real Sphinx packets, in virtual time.
//!
//! Counterpart of the shell: it does for the machines of `proto` what the shell does, with a heap in
//! place of sockets, clocks and disks. One seed, one result: the trace's hash covers every byte
//! on every link and of every delivery, and when.
//!
//! | part     | what                                                                       |
//! |----------|----------------------------------------------------------------------------|
//! | `setup`  | keys, documents and messages from a seed                                    |
//! | `agenda` | what happens when                                                           |
//! | `effects`| what machines ask for is carried out                                         |
//! | `node`   | mixes and gateways with their peel stage, journal and mailboxes              |
//! | `store`  | disks: what was answered stays, what was not may be lost                    |
//! | `links`  | client links: dialled, lost, dialled again                                  |
//! | `periods` | one document takes over from another                                    |
//! | `faults` | loss, bursts, partitions, jitter, slow disks, clocks that are off           |
//! | `watch`  | what someone who watches every link sees                                    |
//! | `tally`  | what the run is judged by                                                   |
//! | `script` | who says what when, in place of the scenario's messages            |
//! | `sabotage` | mistakes and attacks, for positive controls                              |
//! | `report` | figures and pictures                                                        |
//!
//! Faults: packets are lost on links between nodes and on entry links (a mailbox link is a TCP
//! stream whose gateway closes it rather than leave a frame out); nodes and clients crash, lose
//! everything that is not on their disks, and start again [`DOWN`] later. After
//! `packet.duration_s` faults stop, and what is then not complete within [`DRAIN`] is a failure.

mod agenda;
mod effects;
mod faults;
mod links;
mod node;
mod periods;
mod report;
mod sabotage;
mod script;
mod setup;
mod store;
mod tally;
mod watch;

use core::time::Duration;
use std::{collections::BTreeMap, sync::Arc};

use proto::{
    Machine, NodeId, Time,
    calendar::{Calendar, Utc},
    client::{self, Client, Config, Identity, Limits},
    directory::{
        Consensus,
        params::{NODE_PROFILE, NODE_PROFILE_INDEX},
    },
    gateway, mix,
    peel::Peeled,
};
use sphinx::Packet;

pub use self::periods::{Edge, cross};
pub use self::sabotage::{BLOCKED_AT, Sabotage, TARGET_AT};
pub use self::script::{Absence, Played, Script, Stay, play};
pub use self::setup::{LAYERS, document_bytes, epoch_least_s};
pub use self::watch::{Place, Sighting};
use self::{
    agenda::{Agenda, Event},
    faults::Faults,
    links::Links,
    node::{Node, Role},
    script::Play,
    setup::{PROFILE, Plan, Purpose, seed_of},
    store::{Records, Request},
    tally::Tally,
    watch::Watch,
};
use crate::{
    outcome::{Outcome, RunError},
    scenario::Scenario,
};

/// How long a crashed node or client is down.
pub const DOWN: Duration = Duration::from_secs(3);
/// How long after the faults stop everything must be delivered and acknowledged.
pub const DRAIN: Duration = Duration::from_secs(3600);
/// How long a disk that answers early takes to write.
const FLUSH: Duration = Duration::from_secs(10);
/// Between two looks at the pools.
const LOOK: Duration = Duration::from_millis(500);

/// Runs `scenario` from `seed`; `progress` is told the fraction done, from 0 to 1.
///
/// # Errors
///
/// [`RunError::Usage`] if the scenario's numbers make no network.
pub fn run(scenario: &Scenario, seed: u64, progress: &dyn Fn(f64)) -> Result<Outcome, RunError> {
    run_with(scenario, seed, Sabotage::None, progress)
}

/// [`run`] with a mistake.
///
/// # Errors
///
/// As [`run`].
pub fn run_with(
    scenario: &Scenario,
    seed: u64,
    sabotage: Sabotage,
    progress: &dyn Fn(f64),
) -> Result<Outcome, RunError> {
    let mut world = World::new(scenario, seed, setup::plan(scenario, seed)?).with_messages();
    world.sabotage = sabotage;
    world.run(progress);
    Ok(report::outcome(scenario, &world))
}

/// [`run`], and every frame that someone who watches all links sees, in order of time.
///
/// # Errors
///
/// As [`run`].
pub fn watch(scenario: &Scenario, seed: u64) -> Result<(Outcome, Vec<Sighting>), RunError> {
    let mut world = World::new(scenario, seed, setup::plan(scenario, seed)?).with_messages();
    world.watch = Watch(Some(Vec::new()));
    world.run(&|_| ());
    let outcome = report::outcome(scenario, &world);
    Ok((outcome, world.watch.0.unwrap_or_default()))
}

/// Packets that an adversary keeps, to send them again.
struct Captured {
    wanted: u32,
    seen: u64,
}

impl Captured {
    /// Of so many admitted packets one is captured.
    const EVERY: u64 = 20;

    fn new(wanted: u32) -> Self {
        Self { wanted, seen: 0 }
    }

    fn wants(&mut self) -> bool {
        self.seen += 1;
        self.wanted > 0 && self.seen.is_multiple_of(Self::EVERY)
    }

    /// Counts one captured at `now`, and says when to send it: spread over what is left.
    fn take(&mut self, now: Time, quiet: Time) -> Time {
        self.wanted -= 1;
        now.after(quiet.since(now).mul_f64(f64::from(self.wanted % 8) / 8.0))
    }
}

/// A client as the world sees it. Without a machine it is down.
struct Seat {
    identity: Identity,
    client: Option<Client>,
    records: Records,
    crashes: Vec<Time>,
    /// The node whose loops these are, and its name if it is a mix; none: a user.
    looping: Option<(usize, Option<NodeId>)>,
}

struct World<'s> {
    scenario: &'s Scenario,
    seed: u64,
    sabotage: Sabotage,
    /// The first document.
    consensus: Arc<Consensus>,
    documents: Vec<Arc<Consensus>>,
    edge: Edge,
    calendar: Calendar,
    now: Time,
    /// When messages and faults end.
    quiet: Time,
    nodes: Vec<Node>,
    /// Users, then the loops of nodes.
    seats: Vec<Seat>,
    users: usize,
    by_id: BTreeMap<NodeId, usize>,
    /// How often each entity has started, and its earliest wake on the agenda.
    starts: Vec<u64>,
    armed: Vec<Option<Time>>,
    links: Links,
    faults: Faults,
    watch: Watch,
    /// What an adversary captured at each admission, evenly thinned, and will send again.
    captured: Captured,
    agenda: Agenda,
    tally: Tally,
    /// None: the scenario's own messages.
    play: Option<Play>,
}

impl<'s> World<'s> {
    fn new(scenario: &'s Scenario, seed: u64, plan: Plan) -> Self {
        let documents = plan.documents;
        let consensus = Arc::clone(&documents[0]);
        let nodes: Vec<Node> = plan
            .nodes
            .into_iter()
            .map(|node| Node::new(node, &consensus))
            .collect();
        let users = plan.clients.len();
        let looping = nodes.iter().enumerate().map(|(at, node)| {
            let mix = consensus.layer(&node.id).map(|_| node.id);
            Some((at, mix))
        });
        let identities = plan.clients.into_iter().chain(plan.loops);
        let seats: Vec<Seat> = identities
            .zip(core::iter::repeat_n(None, users).chain(looping))
            .map(|(identity, looping)| Seat {
                identity,
                client: None,
                records: Records::default(),
                crashes: Vec::new(),
                looping,
            })
            .collect();
        let entities = nodes.len() + seats.len();
        let span = Duration::from_secs_f64(scenario.packet.duration_s);
        let quiet = Time::ZERO.after(span);
        // Well inside the first epoch, so that a run of minutes meets no edge by accident; with short
        // epochs the first edge falls into the middle of it.
        let schedule = consensus.schedule();
        let into = schedule.length.saturating_sub(span / 2);
        let started = match documents.get(1) {
            None => schedule
                .valid_from
                .after(into.min(Duration::from_secs(1800))),
            Some(next) => next.schedule().valid_from.before(span / 2),
        };
        let mut world = Self {
            scenario,
            seed,
            sabotage: Sabotage::None,
            calendar: Calendar {
                at: Time::ZERO,
                utc: Utc(started.0),
            },
            now: Time::ZERO,
            quiet,
            by_id: (0..).zip(&nodes).map(|(i, node)| (node.id, i)).collect(),
            nodes,
            seats,
            users,
            starts: vec![0; entities],
            armed: vec![None; entities],
            links: Links::default(),
            faults: Faults::draw(&scenario.packet, seed, entities, quiet),
            watch: Watch::default(),
            captured: Captured::new(scenario.packet.replays),
            agenda: Agenda::default(),
            tally: Tally::default(),
            play: None,
            consensus,
            documents,
            edge: Edge::default(),
        };
        for entity in 0..world.nodes.len() + users {
            world.agenda.put(Time::ZERO, Event::Start(entity));
        }
        for entity in 0..entities {
            world.edges(entity);
        }
        for at in world.faults.partition_starts() {
            world.agenda.put(at, Event::Part);
        }
        world
    }

    /// Runs until everything is delivered and acknowledged, or [`DRAIN`] is over.
    fn run(&mut self, progress: &dyn Fn(f64)) {
        let end = self.quiet.after(DRAIN);
        let span = self.scenario.packet.duration_s;
        let mut told = 0.0;
        while let Some((at, event)) = self.agenda.next() {
            let done = match &self.play {
                None => at > self.quiet && self.tally.is_complete(),
                Some(play) => play.is_over(at, &self.tally),
            };
            if done || at > end {
                break;
            }
            self.now = at;
            let fraction = match &self.play {
                None => (at.since(Time::ZERO).as_secs_f64() / span).min(1.0),
                Some(_) => self.tally.share(),
            };
            if fraction >= told + 0.01 {
                told = fraction;
                progress(fraction);
            }
            self.happen(event);
        }
        progress(1.0);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(entity) => self.wake(entity),
            Event::Packet { to, packet } => self.arrive(to, packet),
            Event::Replay { to, packet } => self.replay(to, packet),
            Event::Upstream { link, frame } => self.upstream(link, frame),
            Event::Downstream { link, frame } => self.downstream(link, frame),
            Event::Linked(link) => self.linked(link),
            Event::Up(link) => self.up(link),
            Event::Unlinked(link) => self.unlinked(link),
            Event::Down(link) => self.down(link),
            Event::Connect(client) => self.connect(client),
            Event::Served {
                node,
                start,
                request,
            } => self.served(node, start, request),
            Event::Written {
                client,
                start,
                txn,
                ops,
            } => {
                if self.starts[self.nodes.len() + client] == start {
                    if self.sabotage == Sabotage::AnswerEarly {
                        let at = self.now.after(FLUSH);
                        self.agenda.put(at, Event::Flushed { client, start, ops });
                    } else {
                        self.seats[client].records.apply(ops);
                    }
                    self.tell(client, client::Input::Stored { txn });
                }
            }
            Event::Flushed { client, start, ops } => {
                if self.starts[self.nodes.len() + client] == start {
                    self.seats[client].records.apply(ops);
                }
            }
            Event::Part => self.part(),
            Event::Say { client, message } => self.say(client, message),
            Event::Batch(client) => self.say_batch(client),
            Event::Away(client) => self.go_away(client),
            Event::Crash(entity) => self.crash(entity),
            Event::Start(entity) => self.start(entity),
            Event::Steer(entity) => self.steer(entity),
            Event::Sample => {
                self.tally
                    .held
                    .push(self.nodes.iter().filter_map(Node::held).collect());
                if self.now < self.quiet {
                    self.agenda.put(self.now.after(LOOK), Event::Sample);
                }
            }
        }
    }

    fn link_delay(&self) -> Duration {
        Duration::from_secs_f64(self.scenario.links.delay_s)
    }

    /// A node sends a packet to another.
    fn transmit(&mut self, from: usize, to: NodeId, packet: Box<Packet>) {
        let to = self.by_id[&to]; // machines send to nodes of the consensus only
        self.tally
            .note(self.now, b'P', from as u64, to as u64, packet.as_slice());
        self.see_packet(from, to);
        if from == 0 && self.tally.target.is_some() {
            self.tally.after_target.push((from, self.now));
        }
        if !self.admits(from, to) {
            return self.tally.count_named("NotAdmitted");
        }
        if !self.loses(from) && !self.is_cut(from, to) {
            let at = self.arrival(from);
            self.agenda.put(at, Event::Packet { to, packet });
        }
    }

    fn arrive(&mut self, to: usize, packet: Box<Packet>) {
        if self.sabotage.takes(self.now, to, &mut self.tally.target) {
            return self.tally.count_named("Blocked");
        }
        let sample = self.captured.wants().then(|| packet.clone());
        let Some(peeled) = self.peel(to, packet) else {
            return;
        };
        if let Some(packet) = sample {
            let again = self.captured.take(self.now, self.quiet);
            self.agenda.put(again, Event::Replay { to, packet });
        }
        let now = self.now;
        match &mut self.nodes[to].role {
            Some(Role::Mix(mix)) => mix.handle(now, mix::Input::Peeled(peeled)),
            Some(Role::Gateway(gateway)) => gateway.handle(now, gateway::Input::Peeled(peeled)),
            None => {}
        }
        self.settle(to);
    }

    /// A packet that was admitted once is sent to the same node again.
    fn replay(&mut self, to: usize, packet: Box<Packet>) {
        self.tally.count_named("ReplaySent");
        if self.peel(to, packet).is_some() {
            let violation = format!("node {to} forwards a replay");
            self.tally.violations.push(violation);
        }
    }

    fn peel(&mut self, to: usize, packet: Box<Packet>) -> Option<Peeled> {
        let calendar = self.calendar_of(to);
        let current = Arc::clone(self.current(to));
        let tally = &mut self.tally;
        let node = &mut self.nodes[to];
        if node.role.is_none() {
            tally.count_named("LostAtCrashedNode");
            return None;
        }
        let drop = |why| tally.count(why);
        let peeled = node.peel(&current, calendar, self.now, packet, drop)?;
        if self.documents.len() > 1 {
            let period = peeled.epoch.0 / u64::from(current.params.epochs);
            tally.count_named(&format!("OpenedInPeriod{period}"));
        }
        Some(peeled)
    }

    /// A mix's own loops are being lost (MIX-6).
    fn hold(&mut self, node: usize) {
        let number = self.tally.holds.len() as u64;
        let seed = seed_of(self.seed, node, Purpose::Hold, number);
        let delay_mean = self.consensus.params.delay_mean();
        if let Some(Role::Mix(mix)) = &mut self.nodes[node].role
            && self.sabotage != Sabotage::BlockUnheeded
        {
            mix.handle(self.now, mix::Input::Hold { delay_mean, seed });
            self.settle(node);
        }
    }

    fn wake(&mut self, entity: usize) {
        let now = self.now;
        self.armed[entity].take_if(|armed| *armed == now);
        match entity.checked_sub(self.nodes.len()) {
            Some(client) => {
                if let Some(client) = &mut self.seats[client].client {
                    client.wake(now);
                }
            }
            None => match &mut self.nodes[entity].role {
                Some(Role::Mix(mix)) => mix.wake(now),
                Some(Role::Gateway(gateway)) => gateway.wake(now),
                None => {}
            },
        }
        self.settle(entity);
    }

    fn served(&mut self, node: usize, start: u64, request: Request) {
        if self.starts[node] != start {
            return;
        }
        let answers = self.nodes[node].mailboxes.carry_out(request);
        for answer in answers {
            self.ask_gateway(node, answer);
        }
    }

    fn ask_gateway(&mut self, node: usize, input: gateway::Input) {
        if let Some(Role::Gateway(gateway)) = &mut self.nodes[node].role {
            gateway.handle(self.now, input);
            self.settle(node);
        }
    }

    /// The index of a client's profile in the document.
    fn profile(&self, client: usize) -> u8 {
        self.seats[client].looping.map_or(0, |_| NODE_PROFILE_INDEX)
    }

    /// Gives a client an input, if it is up.
    fn tell(&mut self, client: usize, input: client::Input) {
        if let Some(machine) = &mut self.seats[client].client {
            machine.handle(self.now, input);
            self.settle(self.nodes.len() + client);
        }
    }

    /// The client inside a node.
    fn inside(&self, node: usize) -> Option<usize> {
        let within = |seat: &Seat| seat.looping.is_some_and(|(of, _)| of == node);
        self.seats.iter().position(within)
    }

    fn crash(&mut self, entity: usize) {
        match entity.checked_sub(self.nodes.len()) {
            Some(client) if self.seats[client].client.is_some() => {
                self.stop_client(client);
            }
            None if self.nodes[entity].role.is_some() => {
                self.nodes[entity].crash(self.sabotage);
                for link in self.links.of_gateway(entity) {
                    let at = self.now.after(self.link_delay());
                    self.agenda.put(at, Event::Down(link));
                }
                if let Some(inside) = self.inside(entity) {
                    self.stop_client(inside);
                }
            }
            Some(_) | None => return, // down already
        }
        self.tally.count_named("Crash");
        self.starts[entity] += 1; // nothing under way to its disk arrives
        self.agenda.put(self.now.after(DOWN), Event::Start(entity));
    }

    fn stop_client(&mut self, client: usize) {
        self.seats[client].client = None;
        self.seats[client].crashes.push(self.now);
        if self.sabotage == Sabotage::EmptyDisk {
            self.seats[client].records = Records::default();
        }
        for link in self.links.of_client(client) {
            let at = self.now.after(self.link_delay());
            self.agenda.put(at, Event::Unlinked(link));
        }
        self.links.drop_client(client);
    }

    fn start(&mut self, entity: usize) {
        self.starts[entity] += 1;
        let seed = seed_of(self.seed, entity, Purpose::Machine, self.starts[entity]);
        let now = self.now;
        match entity.checked_sub(self.nodes.len()) {
            None => {
                let network = self.consensus.network;
                let (calendar, says) = (self.calendar_of(entity), self.says(entity));
                self.nodes[entity].start(now, network, seed, &says, calendar);
                self.settle(entity);
                if let Some(inside) = self.inside(entity) {
                    self.start(self.nodes.len() + inside);
                }
            }
            Some(client) => self.start_client(client, seed),
        }
    }

    fn start_client(&mut self, client: usize, seed: [u8; 32]) {
        let looping = self.seats[client].looping;
        let config = Config {
            network: self.consensus.network,
            entry: None,
            profile: looping.map_or(PROFILE, |_| NODE_PROFILE).to_owned(),
            via: looping.and_then(|(_, mix)| mix),
            acks: true,
            limits: Limits::default(),
        };
        let seat = &mut self.seats[client];
        let records = seat.records.0.clone();
        let machine = Client::new(config, seed, seat.identity.clone(), records);
        seat.client = Some(machine.expect("it reads what it wrote"));
        let calendar = self.calendar_of(self.nodes.len() + client);
        self.tell(client, client::Input::Calendar(calendar));
        self.steer(self.nodes.len() + client);
        self.agenda.put(self.now, Event::Connect(client));
        if looping.is_some() || self.play.is_some() {
            return;
        }
        // What was said but had not reached the disk is said again.
        for message in 0..self.scenario.packet.messages_per_user {
            let message = usize::try_from(message).expect("bounded by the scenario");
            let fate = &self.tally.fates[&self.name(client, message)];
            if fate.said.is_some() && !fate.queued {
                self.agenda.put(self.now, Event::Say { client, message });
            }
        }
    }
}
