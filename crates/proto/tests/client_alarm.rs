//! What a client does whose loops are lost: in steps, bounded, and never by when it sends.

mod client_net;

use core::time::Duration;
use std::{collections::BTreeSet, sync::Arc};

use chacha20::ChaCha12Rng;
use client_net::{
    NETWORK, Net, START_S, config, consensus, gateway_id, own_family, params, rates, secs,
};
use ed25519_dalek::SigningKey;
use proto::{
    Machine, NodeId, Time,
    calendar::{Calendar, Utc},
    client::{
        Client, ClientDrop, ClientEvent, Config, Identity, Input, Output, Return, Stage, Target,
        content::Content, founding,
    },
    directory::{Consensus, Role, params::NODE_PROFILE},
    notice::{Notice, What},
    wire::{Frame, Kind, field_of},
};
use rand::SeedableRng as _;
use sphinx::Hop;

fn crier() -> SigningKey {
    SigningKey::from_bytes(&[4; 32])
}

/// One client on links that a test plays, with a gateway that has nothing for it.
struct Alone {
    client: Client,
    consensus: Arc<Consensus>,
    now: Time,
    events: Vec<(Time, ClientEvent)>,
    /// When packets left.
    sent: Vec<Time>,
    rate: usize,
}

impl Alone {
    fn new(gateways: u8, profile: &str, loops_hz: f64) -> Self {
        Self::beside(Role::Mix, gateways, profile, loops_hz)
    }

    /// With one more node, which stands in no layer and can cry.
    fn beside(role: Role, gateways: u8, profile: &str, loops_hz: f64) -> Self {
        let mut rng = ChaCha12Rng::from_seed([9; 32]);
        let identity = Identity::generate(&mut rng, gateway_id(0));
        let params = params(rates(4.0, loops_hz, 20.0), 86_400);
        let mut consensus = consensus(params, 3, gateways, own_family).0;
        let id = NodeId(crier().verifying_key().to_bytes());
        let mut one_more = consensus.nodes[0].clone();
        (one_more.id, one_more.role, one_more.family) = (id, role, own_family(id));
        consensus.nodes.push(one_more);
        consensus.nodes.sort_by_key(|node| node.id);
        let consensus = Arc::new(consensus);
        let mut config = config();
        if profile == NODE_PROFILE {
            config = Config {
                profile: profile.to_owned(),
                via: Some(consensus.layers[1][0]),
                ..config
            };
        }
        let mut alone = Self {
            client: Client::new(config, [5; 32], identity, []).expect("a new one"),
            consensus: consensus.clone(),
            now: Time::ZERO,
            events: Vec::new(),
            sent: Vec::new(),
            rate: 0,
        };
        alone.input(Input::Calendar(Calendar {
            at: Time::ZERO,
            utc: Utc::from_secs(START_S + 60),
        }));
        alone.input(Input::Consensus(consensus));
        alone.enter();
        alone.mailbox_up([7; 32]);
        alone
    }

    fn mailbox_up(&mut self, exporter: [u8; 32]) {
        let gateway = self.client.mailbox_gateway();
        self.input(Input::MailboxUp { gateway, exporter });
    }

    fn mailbox_down(&mut self) {
        let gateway = self.client.mailbox_gateway();
        self.input(Input::MailboxDown { gateway });
    }

    /// The entry link comes up.
    fn enter(&mut self) {
        let gateway = self.client.entry().expect("there is a consensus");
        self.input(Input::EntryUp { gateway });
    }

    fn input(&mut self, input: Input) {
        self.client.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll() {
            match output {
                Output::Event(event) => self.events.push((self.now, event)),
                Output::Entry(_) => self.sent.push(self.now),
                Output::Store { txn, .. } => self.client.handle(self.now, Input::Stored { txn }),
                Output::Mailbox { .. }
                | Output::Relocated(_)
                | Output::Deliver(_)
                | Output::Progress(_)
                | Output::Addressed { .. } => {}
            }
        }
    }

    /// Lets time pass; every tenth of a second the gateway sends `frame`.
    fn run(&mut self, span_s: f64, mut frame: impl FnMut(u64) -> Frame) {
        let end = self.now.after(Duration::from_secs_f64(span_s));
        let mut tick = self.now;
        while self.now < end {
            let entry = self.client.entry();
            tick = tick.after(Duration::from_millis(100));
            while let Some(at) = self.client.next_wake().filter(|at| *at <= tick) {
                self.now = at;
                self.client.wake(at);
                self.drain();
            }
            self.now = tick;
            self.rate += 1;
            let number = self.rate as u64;
            let (gateway, frame) = (self.client.mailbox_gateway(), frame(number));
            self.input(Input::Frame { gateway, frame });
            if self.client.entry() != entry {
                self.enter(); // the driver has dialled the other one
            }
        }
    }

    /// That node says that its loops are lost.
    fn cry(&mut self) {
        let id = NodeId(crier().verifying_key().to_bytes());
        let utc = self.client.utc(self.now).expect("it has a calendar");
        let frame = Notice::new(What::Alarm, id, utc).sign(&NETWORK, &crier());
        let gateway = self.client.mailbox_gateway();
        self.input(Input::Frame { gateway, frame });
        let heard = |(_, event): &(Time, ClientEvent)| matches!(event, ClientEvent::Noticed(..));
        assert!(self.events.last().is_some_and(heard));
    }

    fn silent(&mut self, span_s: f64) {
        self.run(span_s, |_| Frame::new(Kind::Dummy, 0, [0; 32]));
    }

    fn first(&self, wanted: impl Fn(&ClientEvent) -> bool) -> Option<Time> {
        let found = self.events.iter().find(|(_, event)| wanted(event));
        found.map(|(at, _)| *at)
    }

    fn count(&self, wanted: ClientEvent, from: Time, to: Time) -> usize {
        let within =
            |(at, event): &&(Time, ClientEvent)| *at >= from && *at < to && *event == wanted;
        self.events.iter().filter(within).count()
    }

    fn reached(&self, stage: Stage) -> Option<Time> {
        self.first(|event| *event == ClientEvent::Alarmed(stage))
    }
}

/// LOOP-4, LOOP-6, LOOP-7, LOOP-11, CLI-2: with every loop lost the client alarms within the
/// computed time, then enters elsewhere, then warns; and as soon as a node says that it loses loops
/// too, pauses: one step at a time, the pause for one to two minutes and ten minutes apart, and none
/// of it moves what is sent.
#[test]
fn a_client_goes_one_step_at_a_time() {
    let mut alone = Alone::new(3, "test", 2.0);
    let first_entry = alone.client.entry();
    let watching = alone.client.watching();
    let detector = watching.detector.expect("two loops a second are enough");
    let (rare, soon) = watching.run_lengths().unwrap();
    assert!(
        rare >= 30.0 * 86_400.0 * 2.0 && soon < 120.0,
        "{rare} {soon}"
    );
    assert_eq!(watching.stage, Stage::Calm);
    let home = alone.client.address();
    while alone.client.watching().alarms < 6 {
        alone.silent(1.0);
    }
    // Nobody else loses loops: it may be this client's line.
    assert_eq!(alone.client.watching().stage, Stage::Warned);
    alone.cry();
    while alone.reached(Stage::Paused).is_none() {
        alone.silent(1.0);
    }
    alone.input(Input::Send {
        ticket: 1,
        to: Target::Address(home),
        body: vec![1; 200_000],
        reply: Return::Address,
    });
    alone.silent(500.0);
    alone.cry();
    alone.silent(500.0);

    let alarm = alone
        .first(|event| *event == ClientEvent::LoopAlarm)
        .unwrap();
    // All are lost: as many as it takes, at two a second, once it has warmed up.
    let expected_s = f64::from(detector.alarm.div_ceil(detector.step)) / 2.0 + 30.0;
    let took_s = alarm.since(Time::ZERO).as_secs_f64();
    assert!(
        (30.0..expected_s * 1.5).contains(&took_s),
        "{took_s} {expected_s}"
    );

    let [moved, warned, paused] =
        [Stage::Moved, Stage::Warned, Stage::Paused].map(|stage| alone.reached(stage).unwrap());
    assert!(moved >= alarm && moved.since(alarm).as_secs_f64() <= 30.1);
    assert!(moved < warned && warned < paused);
    assert!(alone.client.entry() != first_entry && alone.client.entry() != Some(gateway_id(0)));
    assert_eq!(
        alone.count(ClientEvent::Alarmed(Stage::Moved), Time::ZERO, alone.now),
        1
    );

    // A pause: drops alone, at the same rate; after it the message goes.
    let during = |from: f64, to: f64| {
        (
            paused.after(Duration::from_secs_f64(from)),
            paused.after(Duration::from_secs_f64(to)),
        )
    };
    let (from, to) = during(1.0, 60.0);
    assert_eq!(alone.count(ClientEvent::PayloadSent, from, to), 0);
    assert!(alone.count(ClientEvent::DropSent, from, to).abs_diff(236) < 77);
    let (from, to) = during(120.0, 200.0);
    assert!(alone.count(ClientEvent::PayloadSent, from, to) > 0);
    let pauses: Vec<Time> = alone
        .events
        .iter()
        .filter(|(_, event)| *event == ClientEvent::Alarmed(Stage::Paused))
        .map(|(at, _)| *at)
        .collect();
    assert!(pauses.len() >= 2);
    for two in pauses.windows(2) {
        assert!(two[1].since(two[0]) >= Duration::from_secs(600));
    }

    // The control, and CLI-2: one whose loops nobody judges does none of it, and sends at the very
    // same instants, but for those at which a link was being changed.
    let mut calm = Alone::new(3, "test", 2.0);
    calm.run(alone.now.since(Time::ZERO).as_secs_f64(), |number| {
        Frame::packet(0, field_of(number, START_S), &[7; sphinx::PACKET_LEN])
    });
    assert_eq!(calm.client.watching().alarms, 0);
    let [alone_at, calm_at] =
        [&alone, &calm].map(|one| BTreeSet::from_iter(one.sent.iter().copied()));
    let missed = calm_at.difference(&alone_at).count();
    assert!(missed <= 4, "{missed}");
    assert_eq!(alone_at.difference(&calm_at).count(), 0);
}

/// LOOP-11: a client does not pause though all its loops are lost, if no node loses any, or only the
/// gateway that it enters by says so, or one said so long ago.
#[test]
fn a_client_whose_line_is_cut_does_not_pause() {
    let mut line = Alone::new(3, "test", 2.0);
    line.cry();
    line.silent(600.0 - 1.0);
    assert!(line.reached(Stage::Paused).is_some(), "the control");
    let mut long_ago = Alone::new(3, "test", 2.0);
    long_ago.cry();
    long_ago.run(600.0, |number| {
        Frame::packet(0, field_of(number, START_S), &[7; sphinx::PACKET_LEN])
    });
    let mut own_entry = Alone::beside(Role::Gateway, 1, "test", 2.0);
    own_entry.cry();
    for mut alone in [Alone::new(3, "test", 2.0), long_ago, own_entry] {
        alone.silent(1200.0);
        assert!(alone.client.watching().alarms > 10);
        assert_eq!(alone.reached(Stage::Paused), None);
        assert_eq!(alone.client.watching().stage, Stage::Warned);
    }
}

/// LOOP-6: where there is no other gateway, it warns at once; and an hour without alarms forgets.
#[test]
fn without_another_gateway_it_warns_and_after_an_hour_forgets() {
    let mut alone = Alone::new(2, "test", 2.0);
    alone.silent(120.0);
    assert!(alone.reached(Stage::Moved).is_none());
    assert!(alone.reached(Stage::Warned).is_some());
    alone.mailbox_down(); // nothing is judged any more
    alone.silent(3600.0);
    assert_eq!(alone.client.watching().stage, Stage::Calm);
}

/// LOOP-4, CLI-6 (t11): a flood that keeps the mailbox full makes no loop look lost, nor does a
/// link that came up just now and has not yet been given what waits.
#[test]
fn a_flood_raises_no_alarm() {
    let mut alone = Alone::new(3, "test", 2.0);
    alone.run(600.0, |number| {
        Frame::packet(0, field_of(number, START_S + 60), &[7; sphinx::PACKET_LEN])
    });
    assert_eq!(alone.count(ClientEvent::LoopLost, Time::ZERO, alone.now), 0);
    alone.mailbox_down();
    alone.mailbox_up([8; 32]);
    alone.silent(4.0);
    assert_eq!(alone.count(ClientEvent::LoopLost, Time::ZERO, alone.now), 0);
    alone.silent(4.0);
    assert!(
        alone.count(ClientEvent::LoopLost, Time::ZERO, alone.now) > 0,
        "the control"
    );
}

/// LOOP-4: too few loops say nothing in time.
#[test]
fn a_client_with_few_loops_claims_no_alarm() {
    let mut alone = Alone::new(3, "test", 0.01);
    assert_eq!(alone.client.watching().detector, None);
    alone.silent(3600.0);
    let watching = alone.client.watching();
    assert_eq!((watching.alarms, watching.stage), (0, Stage::Calm));
}

/// LOOP-5: a node loops four times as fast after an alarm, for ten minutes, and takes no steps.
#[test]
fn a_node_loops_faster_after_an_alarm() {
    let mut alone = Alone::new(3, NODE_PROFILE, 2.0);
    let (_, profile) = alone.consensus.profile(NODE_PROFILE).unwrap();
    let hz = profile.loops_uhz as f64 / 1e6;
    alone.silent(60.0);
    let alarm = alone
        .first(|event| *event == ClientEvent::LoopAlarm)
        .unwrap();
    assert!(alarm > secs(30.0) && alarm < secs(36.0), "{alarm:?}");
    alone.mailbox_down(); // no second alarm
    alone.silent(700.0);
    let rate = |from_s: u64, to_s: u64| {
        let [from, to] = [from_s, to_s].map(|s| alarm.after(Duration::from_secs(s)));
        alone.count(ClientEvent::LoopSent, from, to) as f64 / (to_s - from_s) as f64
    };
    assert!(
        (rate(1, 500) / hz / 4.0 - 1.0).abs() < 0.05,
        "{}",
        rate(1, 500)
    );
    assert!(
        (rate(601, 690) / hz - 1.0).abs() < 0.2,
        "{}",
        rate(601, 690)
    );
    assert_eq!(alone.client.watching().stage, Stage::Calm);
}

/// A client of two addresses whose loops, from 40 s on, are blocked or not while its second address is
/// sent more than its link carries or not: when it alarmed, within a minute, and how many loops
/// it had lost.
fn watched(blocked: bool, flooded: bool) -> (Option<Duration>, u64) {
    let params = params(rates(1.0, 2.0, 6.0), 86_400);
    let (consensus, secrets) = consensus(params, 3, 3, own_family);
    let mut net = Net::with(7, consensus, secrets, 1);
    let records = founding(&net.peers[0].identity);
    net.peers[0].records.extend(records);
    net.run(secs(1.0), |_| false);
    let label = "two".to_owned();
    net.input(0, Input::NewAddress { ticket: 1, label });
    net.run(secs(30.0), |_| false);
    let two = net.client(0).addresses().1[1].address;
    let hop = Hop {
        address: two.mailbox.0,
        key: two.key,
        delay_ns: 0,
    };
    let content = Content::Loop([1; 16]).to_bytes();
    let packet = sphinx::build(&mut net.rng, &[hop], [0; 32], [0; 16], &content);
    if flooded {
        (0..600).for_each(|_| net.inject_at(two.mailbox, packet.clone()));
    }
    net.run(secs(40.0), |_| false);
    net.loss = f64::from(u8::from(blocked));
    let from = net.now;
    let alarmed = net.run(secs(100.0), |net| net.client(0).watching().alarms > 0);
    let took = net.now.since(from);
    assert_eq!(
        flooded,
        net.count(0, ClientEvent::Dropped(ClientDrop::Loop)) > 0
    );
    (alarmed.then_some(took), net.count(0, ClientEvent::LoopLost))
}

/// CLI-6, LOOP-4 (t01): a backlog at a second address, which keeps the link from ever carrying a dummy,
/// does not hide that loops are lost, and by itself loses none.
#[test]
fn a_backlog_at_another_address_does_not_blind_the_watch() {
    assert_eq!(watched(false, true), (None, 0));
    let plain = watched(true, false).0.expect("the control");
    let flooded = watched(true, true).0.expect("an alarm");
    assert!(
        flooded.abs_diff(plain) < Duration::from_secs(1),
        "{flooded:?} {plain:?}"
    );
}

/// A client whose mailbox holds 60 packets and sends 6 a second, while it is sent 20 a second for two minutes.
fn filled(shows_full: bool) -> Net {
    let params = params(rates(1.0, 2.0, 6.0), 86_400);
    let (consensus, secrets) = consensus(params, 3, 3, own_family);
    let mut net = Net::with(8, consensus, secrets, 1);
    (net.quota, net.shows_full) = (60, shows_full);
    net.run(secs(40.0), |_| false);
    let home = net.peers[0].identity.address();
    let hop = Hop {
        address: home.mailbox.0,
        key: home.key,
        delay_ns: 0,
    };
    let content = Content::Loop([1; 16]).to_bytes();
    let packet = sphinx::build(&mut net.rng, &[hop], [0; 32], [0; 16], &content);
    for tick in 1..=1200 {
        net.inject(0, packet.clone());
        net.inject(0, packet.clone());
        net.run(secs(40.0 + f64::from(tick) / 10.0), |_| false);
    }
    net
}

/// CLI-6, GW-32 (t11): a flood that fills the mailbox, so that loops are refused, loses none, as long as numbers show
/// it (else it alarms: the control); once it is over, lost loops are noticed again.
#[test]
fn a_flood_that_fills_the_mailbox_raises_no_alarm() {
    let (mut net, control) = (filled(true), filled(false));
    assert!(net.refused > 1000 && control.refused > 1000);
    let seen = |net: &Net| {
        let alarms = net.client(0).watching().alarms;
        let counts = [ClientEvent::LoopLost, ClientEvent::LoopUnjudged];
        (alarms, counts.map(|event| net.count(0, event)))
    };
    let (alarms, [lost, unjudged]) = seen(&net);
    assert_eq!((alarms, lost), (0, 0));
    assert!(unjudged > 150, "{unjudged}");
    let (alarms, [lost, unjudged]) = seen(&control);
    assert!(alarms > 0 && lost > 20, "{alarms} {lost}");
    assert_eq!(unjudged, 0);

    net.run(net.now.after(Duration::from_secs(30)), |_| false);
    net.loss = 1.0;
    let soon = net.now.after(Duration::from_secs(60));
    assert!(net.run(soon, |net| net.client(0).watching().alarms > 0));
}
