//! An entry gateway that is dead is left, and whoever blocks gateways gains little by it.
//!
//! | test                      | rule, attack                                                     |
//! |---------------------------|------------------------------------------------------------------|
//! | left after two failures   | CLI-29                                                           |
//! | own connection            | CLI-29: without a frame of the mailbox link nothing is left      |
//! | back in time              | CLI-29: a gateway that is up again is kept                       |
//! | four a day                | CLI-30, across restarts                                          |
//! | nor by documents          | CLI-30: documents that drop gateways, also before the calendar   |
//! | steering                  | CLI-30, t11: control: a client that forgets whom it left         |
//! | moves                     | CLI-40: not to a dead gateway; control: the same client forgets   |
//! | nowhere to move           | CLI-40, CLI-44: costs no move, and is seen before                |

mod client_net;

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chacha20::ChaCha12Rng;
use client_net::{START_S, config, consensus, gateway_id, own_family, params, rates};
use proto::{
    Machine, NodeId, Time,
    calendar::{Calendar, Utc},
    client::{AddressError, Client, ClientEvent, Identity, Input, Op, Output},
    directory::Consensus,
    wire::{Frame, Kind},
};
use rand::SeedableRng as _;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// Longest from the verdict until the gateway is left.
const JITTER: Duration = Duration::from_secs(5);

/// A client whose gateways a test plays, and its store.
struct Alone {
    client: Client,
    consensus: Arc<Consensus>,
    now: Time,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    replaced: Vec<Time>,
    /// What came of orders to move.
    moved: Vec<Result<(), AddressError>>,
    written: Vec<Time>,
    /// Every gateway that it ever entered by.
    entered: BTreeSet<NodeId>,
}

fn identity() -> Identity {
    Identity::generate(&mut ChaCha12Rng::from_seed([9; 32]), gateway_id(0))
}

fn document(gateways: u8, payload_hz: f64) -> Arc<Consensus> {
    let params = params(rates(payload_hz, 0.001, 1.0), 86_400);
    Arc::new(consensus(params, 3, gateways, own_family).0)
}

impl Alone {
    fn new(seed: u8, gateways: u8, payload_hz: f64) -> Self {
        Self::over(document(gateways, payload_hz), seed)
    }

    fn over(consensus: Arc<Consensus>, seed: u8) -> Self {
        let client = Client::new(config(), [seed; 32], identity(), []).expect("a new one");
        let mut alone = Self {
            client,
            consensus,
            now: Time::ZERO,
            records: BTreeMap::new(),
            replaced: Vec::new(),
            moved: Vec::new(),
            written: Vec::new(),
            entered: BTreeSet::new(),
        };
        alone.begin();
        alone
    }

    fn begin(&mut self) {
        self.input(Input::Calendar(Calendar {
            at: Time::ZERO,
            utc: Utc::from_secs(START_S + 60),
        }));
        self.input(Input::Consensus(self.consensus.clone()));
        let (gateway, exporter) = (self.client.mailbox_gateway(), [7; 32]);
        self.input(Input::MailboxUp { gateway, exporter });
    }

    /// Another process, with what was stored.
    fn restart(&mut self, seed: u8) {
        let records = self.records.clone();
        self.client = Client::new(config(), [seed; 32], identity(), records).expect("its own");
        self.begin();
    }

    fn entry(&self) -> NodeId {
        self.client.entry().expect("there are gateways")
    }

    fn input(&mut self, input: Input) {
        self.client.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll() {
            match output {
                Output::Store { txn, ops } => {
                    for op in ops {
                        match op {
                            Op::Put { key, value } => drop(self.records.insert(key, value)),
                            Op::Delete { key } => drop(self.records.remove(&key)),
                            Op::Erase => {}
                        }
                    }
                    self.client.handle(self.now, Input::Stored { txn });
                }
                Output::Event(ClientEvent::EntryReplaced) => self.replaced.push(self.now),
                Output::Entry(_) => self.written.push(self.now),
                Output::Addressed { outcome, .. } => self.moved.push(outcome.map(drop)),
                Output::Mailbox { .. }
                | Output::Relocated(_)
                | Output::Deliver(_)
                | Output::Progress(_)
                | Output::Event(_) => {}
            }
        }
        self.entered.extend(self.client.entry());
    }

    fn up(&mut self) {
        let gateway = self.entry();
        self.input(Input::EntryUp { gateway });
    }

    fn fails(&mut self) {
        let gateway = self.entry();
        self.input(Input::EntryDown { gateway });
    }

    fn hears(&mut self) {
        let gateway = self.client.mailbox_gateway();
        let frame = Frame::new(Kind::Dummy, 0, [0; 32]);
        self.input(Input::Frame { gateway, frame });
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now.after(span);
        while let Some(at) = self.client.next_wake().filter(|at| *at <= until) {
            self.now = at;
            self.client.wake(at);
            self.drain();
        }
        self.now = until;
    }

    /// The entry gateway dies, and another one is entered by.
    fn entry_dies(&mut self) -> NodeId {
        let dead = self.entry();
        self.fails();
        self.hears();
        self.fails();
        self.pass(JITTER);
        assert_ne!(self.entry(), dead);
        dead
    }

    /// The owner moves, and where to.
    fn moves(&mut self, to: Option<NodeId>) -> Result<NodeId, AddressError> {
        let seen = self.client.moving().refused;
        self.input(Input::Move { ticket: 1, to });
        let moved = self.moved.pop().expect("it is answered at once");
        if to.is_none() {
            assert_eq!(moved.err(), seen, "status says so before");
        }
        moved.map(|()| self.client.mailbox_gateway())
    }

    /// For so long nothing but `works` lets a link up, and dials come every ten seconds.
    fn blocked(&mut self, span: Duration, works: NodeId) {
        let until = self.now.after(span);
        while self.now < until && self.entry() != works {
            self.fails();
            self.hears();
            self.pass(Duration::from_secs(10));
        }
    }
}

/// CLI-29, CLI-2: the end of a link is one failure, a dial that fails the next; after that another
/// gateway is entered by within seconds, and what is sent keeps its times.
#[test]
fn a_dead_gateway_is_left_after_two_failures() {
    let mut alone = Alone::new(1, 9, 4.0);
    let mut undisturbed = Alone::new(1, 9, 4.0);
    for client in [&mut alone, &mut undisturbed] {
        client.up();
        client.pass(MINUTE);
    }
    let first = alone.entry();
    alone.fails();
    alone.hears();
    alone.pass(Duration::from_secs(1));
    assert_eq!(
        alone.client.entrance().failing,
        Some(Time::ZERO.after(MINUTE))
    );
    assert!(alone.client.entrance().dead && !alone.client.entrance().leaving);
    alone.pass(MINUTE);
    assert_eq!(
        (alone.entry(), alone.replaced.len()),
        (first, 0),
        "one failure"
    );
    alone.fails();
    let condemned = alone.now;
    assert!(alone.client.entrance().leaving);
    alone.pass(JITTER);
    assert_eq!(alone.replaced.len(), 1);
    assert!(alone.replaced[0] > condemned);
    assert!(![first, gateway_id(0)].contains(&alone.entry()));
    assert_eq!(alone.client.entrance().failing, None);
    // The end of the link that was left is no failure of the new one.
    alone.input(Input::EntryDown { gateway: first });
    assert_eq!(alone.client.entrance().failing, None);
    alone.up();
    alone.input(Input::EntryUp { gateway: first });
    let back = alone.now;
    alone.pass(MINUTE);
    undisturbed.pass(alone.now.since(undisturbed.now));
    let since =
        |all: &[Time]| -> Vec<Time> { all.iter().filter(|at| **at > back).copied().collect() };
    assert!(since(&alone.written).len() > 100);
    assert_eq!(since(&alone.written), since(&undisturbed.written));
    let again = alone.entry();
    alone.restart(2);
    assert_eq!(alone.entry(), again, "a restart draws nothing");
    assert_eq!(alone.client.entrance().left, 1);
}

/// CLI-29: where nothing comes from the mailbox gateway either, it is the client's own connection.
#[test]
fn a_client_that_is_cut_off_leaves_nobody() {
    let mut alone = Alone::new(3, 9, 0.01);
    alone.up();
    alone.hears();
    alone.pass(MINUTE);
    let first = alone.entry();
    for _ in 0..50 {
        alone.fails();
        alone.pass(MINUTE);
    }
    assert_eq!((alone.entry(), alone.replaced.len()), (first, 0));
    assert!(!alone.client.entrance().dead);
    // The control: one frame, and the next failure counts.
    alone.hears();
    alone.fails();
    alone.pass(JITTER);
    assert_ne!(alone.entry(), first);
}

/// CLI-29: a link that came and went is a failure, one that held is not; a gateway that is back
/// before it was left is kept if its link holds.
#[test]
fn a_gateway_that_is_back_in_time_is_kept() {
    let mut alone = Alone::new(4, 9, 0.01);
    let first = alone.entry();
    for _ in 0..5 {
        alone.up();
        alone.pass(Duration::from_secs(11));
        alone.fails();
        alone.hears();
        alone.pass(MINUTE);
    }
    assert_eq!(alone.entry(), first, "each link had held");
    alone.fails();
    assert!(alone.client.entrance().leaving);
    alone.up();
    alone.pass(MINUTE);
    assert_eq!(
        (alone.entry(), alone.client.entrance().leaving),
        (first, false)
    );
    alone.fails();
    alone.hears();
    // It lets links up and ends them: it refuses.
    for _ in 0..3 {
        alone.up();
        alone.pass(Duration::from_secs(2));
        alone.fails();
    }
    alone.pass(Duration::from_secs(12));
    assert_ne!(alone.entry(), first);
}

/// CLI-30: four gateways a day, however many are blocked and however often the client restarts;
/// then those of the day in turn; and with the next day new ones.
#[test]
fn a_client_enters_by_four_gateways_a_day() {
    let mut alone = Alone::new(5, 20, 0.001);
    let nobody = NodeId([0; 32]);
    for hour in 0..23 {
        alone.restart(hour);
        alone.blocked(MINUTE * 60, nobody);
    }
    assert_eq!(alone.entered.len(), 4);
    let turns = alone.replaced.len();
    assert!(
        (12..=4 * 23 * 6).contains(&turns),
        "they take turns: {turns}"
    );
    assert!(alone.client.entrance().dead && alone.client.entrance().left == 3);
    // Two others come up again for two days: what is left of that day is forgotten.
    alone.up();
    alone.pass(DAY * 2);
    assert_eq!(alone.client.entrance().left, 0);
    alone.blocked(MINUTE * 60, nobody);
    assert_eq!(alone.entered.len(), 7);
    let left = alone.records.keys().filter(|key| key[0] == b'l').count();
    assert_eq!(left, 3);
}

/// CLI-30: a document without the gateway in use leads to one of the day's four, and to another one
/// only when it has none of them; also when it is there before the calendar, and whatever the owner
/// prefers. The control: on another day there are four others.
#[test]
fn documents_give_no_fifth_gateway() {
    let mut alone = Alone::new(6, 20, 0.001);
    let all = alone.consensus.clone();
    let without = |gone: &[NodeId]| {
        let mut document = (*all).clone();
        document.nodes.retain(|node| !gone.contains(&node.id));
        Arc::new(document)
    };
    for round in 0..12u8 {
        let gone = alone.entry();
        alone.consensus = without(&[gone]);
        if round % 2 == 0 {
            alone.input(Input::Consensus(alone.consensus.clone()));
        } else {
            // A start at which the document is there before the calendar.
            let records = alone.records.clone();
            let mut config = config();
            config.entry = Some(gateway_id(9));
            let client = Client::new(config, [round; 32], identity(), records);
            alone.client = client.expect("its own");
            alone.input(Input::Consensus(alone.consensus.clone()));
            alone.begin();
        }
        assert_ne!(alone.entry(), gone);
        alone.pass(MINUTE);
    }
    assert_eq!(alone.entered.len(), 4);
    // A network that has none of the four leaves no choice.
    let four: Vec<NodeId> = alone.entered.iter().copied().collect();
    alone.input(Input::Consensus(without(&four)));
    assert!(!four.contains(&alone.entry()));
    // One without any gateway is entered by nobody, and that is no new day.
    let gateways: Vec<NodeId> = all.gateways().map(|node| node.id).collect();
    alone.input(Input::Consensus(without(&gateways)));
    assert_eq!(alone.client.entry(), None);
    alone.input(Input::Consensus(all.clone()));
    assert!(alone.entered.contains(&alone.entry()) && alone.entered.len() == 5);
    alone.pass(DAY * 2);
    let gone = alone.entry();
    alone.input(Input::Consensus(without(&[gone])));
    assert_eq!(alone.entered.len(), 6);
}

/// t11: who lets a client through to his own gateway alone, one of ten, gets it with the share of
/// three draws among nine, not at will.
#[test]
fn t11_blocking_gateways_steers_a_client_by_three_draws_a_day() {
    let his = gateway_id(1);
    let caught = |forgets: bool| {
        let consensus = document(11, 0.001);
        let clients = (0..100).map(|seed| Alone::over(consensus.clone(), seed));
        let mut caught = [0.0, 0.0];
        for mut alone in clients.filter(|alone| alone.entry() != his) {
            for hour in 0..12 {
                alone.blocked(MINUTE * 30, his);
                if forgets {
                    alone.records.retain(|key, _| key[0] != b'l');
                    alone.restart(hour);
                }
                alone.pass(MINUTE * 30);
            }
            caught[0] += f64::from(u8::from(alone.entry() == his));
            caught[1] += 1.0;
        }
        caught[0] / caught[1]
    };
    // 3 of 9: 0.333; four standard errors of 90 clients are 0.2.
    let share = caught(false);
    assert!((0.13..0.54).contains(&share), "{share}");
    let control = caught(true);
    assert!(control > 0.95, "without the memory of the day: {control}");
}

/// CLI-40: of four gateways the client left one as dead; its mailboxes move to the one that it knows
/// nothing of, then to the live entry. The control: a client that forgets whom it left moves there.
#[test]
fn a_move_leads_to_no_gateway_that_was_left_as_dead() {
    let mut forgetful = BTreeSet::new();
    for seed in 0..16 {
        let mut alone = Alone::new(seed, 4, 0.001);
        alone.up();
        let dead = alone.entry_dies();
        alone.up();
        let entry = alone.entry();
        let records = alone.records.clone();
        let first = alone.moves(None).expect("there is one more");
        assert!(![gateway_id(0), dead, entry].contains(&first));
        assert_eq!(alone.moves(None), Ok(entry), "before none");

        alone.records = records;
        alone.records.retain(|key, _| key[0] != b'l');
        alone.restart(seed);
        alone.up();
        let to = alone.moves(None).expect("two are not known to be dead");
        forgetful.insert(to == dead);
    }
    assert!(forgetful.contains(&true));
}

/// CLI-40, CLI-44: where only gateways are left that are dead, down or had the mailboxes before, a move
/// is refused, and is none of the three; what the owner names is his to know. The controls: the entry
/// whose link is up is taken; and a day later the dead one may live again.
#[test]
fn a_move_to_nowhere_is_refused_and_costs_nothing() {
    let mut alone = Alone::new(2, 4, 0.001);
    alone.up();
    let dead = alone.entry_dies();
    let entry = alone.entry();
    alone.moves(None).expect("there is one more");
    for _ in 0..4 {
        assert_eq!(alone.moves(None), Err(AddressError::NoOther), "it is down");
    }
    alone.up();
    assert_eq!(alone.moves(None), Ok(entry));
    assert_eq!(alone.moves(None), Err(AddressError::NoOther));
    let back = alone.moves(Some(gateway_id(0)));
    assert_eq!(back, Ok(gateway_id(0)), "named, and the third move");
    for to in [None, Some(dead)] {
        let why = alone.moves(to);
        assert!(matches!(why, Err(AddressError::TooSoon { .. })), "{why:?}");
    }

    let mut alone = Alone::new(2, 3, 0.001);
    alone.up();
    let dead = alone.entry_dies();
    assert_eq!(alone.moves(None), Err(AddressError::NoOther));
    alone.pass(DAY + MINUTE);
    assert_eq!(alone.moves(None), Ok(dead));
}
