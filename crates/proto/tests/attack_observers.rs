//! What those who see a client's links learn of what it does: ATTACKS t08, t09, g01, g04.
//!
//! | attack | observer                                  | asks                                                  |
//! |--------|-------------------------------------------|-------------------------------------------------------|
//! | t08    | whoever sees the sender's uplink and blocks gateways | is the recipient at one that I block? |
//! | t09    | whoever sees the recipient's uplink        | was what it was just sent whole, garbled, taken?       |
//! | g04    | a correspondent who garbles or drops its own packets, or waits for acks | the same               |
//! | g01    | entry gateway: times and frames            | does this client send something in this second?        |
//! | g01    | mailbox gateway: times and confirmations    | the same                                              |
//!
//! What a mailbox gateway sees of *receiving* is published, not denied (`lacuna-sim attack receiving`); an ack that
//! comes back is received.
//!
//! The controls are the same machine under drivers that the tests make: one that does not wait for slots while there is
//! something to send, and one that has links only then.

mod classifier;
mod client_net;
mod kolmogorov;

use std::sync::Arc;

use classifier::{Sample, at_once, told_apart};
use client_net::{Net, START_S, config, consensus, gateway_id, own_family, params, rates, secs};
use kolmogorov::{bound, distance};
use proto::{
    Machine, Time,
    calendar::{Calendar, Utc},
    client::{
        Client, ClientDrop, ClientEvent, Identity, Input, Output, Progress, Return, State, Target,
    },
};
use rand::SeedableRng as _;

/// What becomes of the packets of client 0 to client 1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Whole,
    Garbled,
    Taken,
    /// Whole, and the recipient acknowledges nothing.
    Unanswered,
}

/// What became of client 1.
struct Recipient {
    /// When its packets were read.
    read: Vec<Time>,
    /// When it wrote to its entry link.
    written: Vec<Time>,
    /// Packets that it read and that were garbled.
    garbled: u64,
    /// Messages that client 0 knows to have arrived.
    acked: usize,
}

/// Tenths of a second.
const WATCHED: u32 = 2_500;
/// Of the control.
const CONTROL_WATCHED: u32 = 1_000;

/// `waits`: acks for their slots, as the deployed driver has it; else the next slots come at once while there are any.
fn recipient(fate: Fate, waits: bool) -> Recipient {
    let mut net = Net::new(9, params(rates(20.0, 1.0, 60.0), 3600), 2);
    net.garbled = fate == Fate::Garbled;
    net.taken = fate == Fate::Taken;
    net.peers[1].config.acks = fate != Fate::Unanswered;
    let mut ticket = 0;
    let owes = |net: &Net| net.client(1).held().acks > 0;
    for tenth in 0..if waits { WATCHED } else { CONTROL_WATCHED } {
        let until = secs(f64::from(tenth) / 10.0);
        while net.run(until, |net| {
            !waits && net.peers[1].client.is_some() && owes(net)
        }) {
            net.hurry(1, |net| !owes(net));
        }
        if tenth.is_multiple_of(3) {
            ticket += 1;
            net.send(0, ticket, 1, vec![7; 100], Return::Address);
        }
    }
    let acked = |p: &&Progress| p.state == State::Acked;
    Recipient {
        read: net.peers[1].read.clone(),
        written: net.peers[1].written.clone(),
        garbled: net.count(1, ClientEvent::Dropped(ClientDrop::Payload)),
        acked: net.peers[0].progress.iter().filter(acked).count(),
    }
}

/// Of each time, how long until the next of the others.
fn waits(of: &[Time], others: &[Time]) -> Vec<f64> {
    let wait = |at: &Time| {
        let next = others.partition_point(|other| other <= at);
        Some(others.get(next)?.since(*at).as_secs_f64())
    };
    of.iter().filter_map(wait).collect()
}

/// ATTACKS t09, g04: whether what came was whole, was garbled on its way, was taken, or is not acknowledged, the times of
/// the recipient's frames are the same to the nanosecond; so is the law of the wait from a packet to the next frame.
/// The control: acks for which the next slot comes at once.
#[test]
fn attack_t09_g04_acks_and_garbage_look_alike() {
    let fates = [Fate::Whole, Fate::Garbled, Fate::Taken, Fate::Unanswered];
    let runs = fates.map(|fate| (fate, true)).into_iter();
    let hasty = [Fate::Whole, Fate::Garbled].map(|fate| (fate, false));
    let mut all = at_once(runs.chain(hasty), |(fate, waits)| recipient(fate, waits));
    let hasty = all.split_off(fates.len());
    let others = all.split_off(1);
    let Recipient {
        read,
        written,
        acked,
        ..
    } = &all[0];
    assert!(*acked > 500, "{acked} acks");
    assert!(
        written.len() > 4_000 && read.len() > 2_000,
        "{} {}",
        written.len(),
        read.len()
    );
    let whole = waits(read, written);
    for (fate, other) in fates[1..].iter().zip(&others) {
        let garbled = other.garbled;
        assert_eq!(garbled > 2_000, *fate == Fate::Garbled, "{garbled}");
        assert_eq!(other.acked, 0, "{fate:?}");
        assert_eq!(other.written, *written, "{fate:?}: no frame moves");
        let waits = waits(&other.read, &other.written);
        let apart = distance(&whole, &waits);
        println!(
            "{fate:?}: {apart:.4} of {:.4}",
            bound(whole.len(), waits.len())
        );
        assert!(apart < bound(whole.len(), waits.len()), "{fate:?}: {apart}");
    }
    let [whole, garbled] = [&hasty[0], &hasty[1]].map(|one| waits(&one.read, &one.written));
    assert!(hasty[0].acked > 200 && hasty[1].garbled > 700);
    let apart = distance(&whole, &garbled);
    let most = bound(whole.len(), garbled.len());
    println!("control: {apart:.4}, at least {:.4}", apart - most);
    assert!(apart - most > most, "control: {apart}");
}

/// Seconds from one message to the next, and until the control takes its ack for overdue.
const MESSAGES_S: u32 = 30;
const OVERDUE_S: u32 = 5;

/// A sender whose recipient's mailbox is at the second of four gateways, of which the attacker blocks some.
struct Sender {
    written: Vec<Time>,
    payloads: u64,
    acked: usize,
}

/// `waits`: repairs for their slots, as the deployed driver has it; else the next slots come at once until one has left.
fn sender(blocked: &[u8], waits: bool, messages: u32) -> Sender {
    let (document, secrets) = consensus(params(rates(4.0, 0.5, 16.0), 3600), 3, 4, own_family);
    let mut net = Net::with(8, document, secrets, 2);
    net.blocked = blocked.iter().map(|i| gateway_id(*i)).collect();
    let acked = |net: &Net| {
        let acked = |progress: &&Progress| progress.state == State::Acked;
        net.peers[0].progress.iter().filter(acked).count()
    };
    for i in 0..messages {
        let said = 1 + i * MESSAGES_S;
        net.run(secs(f64::from(said)), |_| false);
        net.send(0, u64::from(i), 1, vec![7; 3000], Return::Address);
        net.run(secs(f64::from(said + OVERDUE_S)), |_| false);
        if !waits && acked(&net) <= i as usize {
            let before = net.count(0, ClientEvent::PayloadSent);
            net.hurry(0, |net| net.count(0, ClientEvent::PayloadSent) > before);
        }
    }
    net.run(secs(f64::from(1 + messages * MESSAGES_S)), |_| false);
    Sender {
        acked: acked(&net),
        payloads: net.count(0, ClientEvent::PayloadSent),
        written: net.peers[0].written.clone(),
    }
}

/// ATTACKS t08: whether the half of the gateways that is blocked is that of the recipient's, the other one or none, the times
/// of the sender's frames are the same to the nanosecond, though it repairs what is lost. The control: a repair for which
/// the next slots come at once. (A half with the sender's own mailbox loses its loops: t11.)
#[test]
fn attack_t08_repair_does_not_show() {
    const MESSAGES: u32 = 40;
    const CONTROL: u32 = 12;
    let (its, other): (&[u8], &[u8]) = (&[1, 2], &[2, 3]);
    let deployed = [its, other, &[]].map(|blocked| (blocked, true, MESSAGES));
    let hasty = [its, other].map(|blocked| (blocked, false, CONTROL));
    let runs = deployed.into_iter().chain(hasty);
    let all = at_once(runs, |(blocked, waits, messages)| {
        sender(blocked, waits, messages)
    });
    let [blocked, free, none, hasty, waiting] = &all[..] else {
        unreachable!("five runs");
    };
    assert_eq!([blocked.acked, free.acked, none.acked], [0, 40, 40]);
    let (repaired, sent) = (blocked.payloads, none.payloads);
    assert!(
        repaired > sent * 3 / 2,
        "{repaired} packets, {sent} without repair"
    );
    assert!(none.written.len() > 4_000);
    for one in [blocked, free] {
        assert_eq!(one.written, none.written, "no frame moves");
    }
    let gaps = |of: &Sender| -> Vec<f64> {
        let gap = |pair: &[Time]| pair[1].since(pair[0]).as_secs_f64();
        of.written.windows(2).map(gap).collect()
    };
    let (hasty, waiting) = (gaps(hasty), gaps(waiting));
    let apart = distance(&hasty, &waiting);
    let most = bound(hasty.len(), waiting.len());
    println!("control: {apart:.4}, at least {:.4}", apart - most);
    assert!(apart - most > most, "control: {apart}");
}

/// Windows that an observer has, of each kind; of each control.
const WINDOWS: usize = 12_000;
const CONTROL: usize = 600;
/// Above this it has learned something.
const AUC_MAX: f64 = 0.52;
const PAYLOAD_HZ: f64 = 6.0;

/// Seconds of a stretch in which a client has something to say; then its queue empties; then as many in which it has not.
const STRETCH: u32 = 40;
const DRAINING: u32 = 8;

/// Who drives the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Driver {
    /// As the deployed one does.
    Deployed,
    /// While there is something to send it does not wait for slots.
    Hasty,
    /// It has links only while there is something to send.
    Dialling,
}

/// One second of a client: times of its frames within it, and what the frames show.
struct Window {
    entry: Vec<(f64, u8)>,
    mailbox: Vec<f64>,
    /// Whether it has something to say. (Whether a packet with content leaves depends on whether there are slots, so it is
    /// no label.)
    sending: bool,
}

/// A client and what drives it.
struct Driven {
    client: Client,
    driver: Driver,
    /// What the machine was last told.
    told: Time,
    up: bool,
}

impl Driven {
    fn new(driver: Driver, seed: u8) -> (Self, Target) {
        let (document, _) = consensus(
            params(rates(PAYLOAD_HZ, 0.6, 10.0), 86_400),
            3,
            3,
            own_family,
        );
        let mut rng = chacha20::ChaCha12Rng::from_seed([6; 32]);
        let gateway = document.gateways().next().expect("three").id;
        let identity = Identity::generate(&mut rng, gateway);
        let to = Identity::generate(&mut rng, gateway).address();
        let made = Client::new(config(), [seed; 32], identity, []);
        let mut driven = Self {
            client: made.expect("no records"),
            driver,
            told: Time::ZERO,
            up: false,
        };
        let utc = Utc::from_secs(START_S);
        let calendar = Calendar {
            at: Time::ZERO,
            utc,
        };
        driven.client.handle(Time::ZERO, Input::Calendar(calendar));
        let document = Input::Consensus(Arc::new(document));
        driven.client.handle(Time::ZERO, document);
        driven.links(driver != Driver::Dialling);
        (driven, Target::Address(to))
    }

    fn links(&mut self, up: bool) {
        if self.up == up {
            return;
        }
        self.up = up;
        let entry = self.client.entry().expect("it has a document");
        let home = self.client.mailbox_gateway();
        let exporter = [1; 32];
        let inputs = if up {
            let (gateway, home) = (entry, home);
            let mailbox = Input::MailboxUp {
                gateway: home,
                exporter,
            };
            [Input::EntryUp { gateway }, mailbox]
        } else {
            let gateway = entry;
            [
                Input::EntryDown { gateway },
                Input::MailboxDown { gateway: home },
            ]
        };
        for input in inputs {
            self.client.handle(self.told, input);
        }
    }

    fn has_something(&self) -> bool {
        self.client.held().outgoing.0 > 0
    }

    /// Drains the machine at `at`, into a window that began at `start`; how many packets with content there were.
    fn drain(&mut self, at: Time, start: Time, window: &mut Window) -> usize {
        let (at, mut sends) = (at.since(start).as_secs_f64(), 0);
        while let Some(output) = self.client.poll() {
            match output {
                Output::Entry(frame) => window.entry.push((at, frame.field()[0])),
                Output::Mailbox { .. } => window.mailbox.push(at),
                Output::Store { txn, .. } => self.client.handle(self.told, Input::Stored { txn }),
                Output::Event(ClientEvent::PayloadSent) => sends += 1,
                Output::Event(_)
                | Output::Progress(_)
                | Output::Addressed { .. }
                | Output::Relocated(_) => {}
                Output::Deliver(_) => panic!("nobody writes to it"),
            }
        }
        sends
    }

    /// A window from `start` on, which may begin with something to say; and its packets with content.
    fn watch(&mut self, start: Time, end: Time, say: Option<Input>) -> (Window, usize) {
        let mut window = Window {
            entry: Vec::new(),
            mailbox: Vec::new(),
            sending: say.is_some(),
        };
        self.told = self.told.max(start);
        if let Some(say) = say {
            self.client.handle(self.told, say);
        }
        let mut sends = self.drain(start, start, &mut window);
        loop {
            if self.driver == Driver::Dialling {
                self.links(self.has_something());
                sends += self.drain(self.told, start, &mut window);
            }
            let next = self.client.next_wake().expect("it never stops");
            let hurries = self.driver == Driver::Hasty && self.has_something();
            if !hurries && next >= end {
                return (window, sends);
            }
            self.told = next;
            self.client.wake(next);
            let at = if hurries { start } else { next };
            sends += self.drain(at, start, &mut window);
        }
    }
}

/// Seconds of a client that has something to say in each of every other stretch, until there are so many of each
/// kind. They begin a quarter of one before its links' own seconds.
fn windows(driver: Driver, seed: u8, wanted: usize) -> Vec<Window> {
    let (mut driven, to) = Driven::new(driver, seed);
    let at = |second: u32| secs(f64::from(second) + 0.75);
    driven.watch(Time::ZERO, at(0), None);
    let mut windows: Vec<Window> = Vec::new();
    for second in 0_u32.. {
        let into = second % (2 * STRETCH + DRAINING);
        let (sending, drained) = (into < STRETCH, into >= STRETCH + DRAINING);
        let idle = windows.iter().filter(|window| !window.sending);
        if into == 0 && idle.count() >= wanted {
            break;
        }
        let say = sending.then(|| Input::Send {
            ticket: second.into(),
            to,
            body: vec![3; 500],
            reply: Return::None,
        });
        let (window, sends) = driven.watch(at(second), at(second + 1), say);
        if sending || drained {
            assert!(sending || sends == 0, "it is drained");
            windows.push(window);
        }
    }
    windows
}

/// What can be made of times within a second.
#[expect(
    clippy::cast_possible_truncation,
    reason = "features need no more digits"
)]
fn shape(times: &[f64]) -> Vec<f32> {
    let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let least = gaps.iter().copied().fold(1.0, f64::min);
    let most = gaps.iter().copied().fold(0.0, f64::max);
    let squares: f64 = gaps.iter().map(|gap| gap * gap).sum();
    let ends = [times.first(), times.last()].map(|at| at.copied().unwrap_or(2.0));
    [times.len() as f64, least, most, squares, ends[0], ends[1]]
        .map(|x| x as f32)
        .to_vec()
}

/// The entry gateway's log of a window: times, and how the first mixes are spread.
fn at_entry(window: &Window) -> Sample {
    let times: Vec<f64> = window.entry.iter().map(|(at, _)| *at).collect();
    let mut numbers = shape(&times);
    let mut firsts: Vec<u8> = window.entry.iter().map(|(_, first)| *first).collect();
    let repeats = firsts.windows(2).filter(|pair| pair[0] == pair[1]).count();
    firsts.sort_unstable();
    firsts.dedup();
    numbers.extend([repeats as f32, firsts.len() as f32]);
    Sample {
        numbers,
        bytes: Vec::new(),
    }
}

fn at_mailbox(window: &Window) -> Sample {
    Sample {
        numbers: shape(&window.mailbox),
        bytes: Vec::new(),
    }
}

/// ATTACKS g01: neither gateway tells the seconds in which a client has something to say. The controls: drivers that do not
/// wait for slots, or have links only for messages.
#[test]
fn attack_g01_gateways_do_not_see_sending() {
    let deployed = [5, 6].map(|seed| (Driver::Deployed, seed, WINDOWS / 2));
    let controls = [Driver::Hasty, Driver::Dialling].map(|driver| (driver, 7, CONTROL));
    let runs = deployed.into_iter().chain(controls);
    let mut all = at_once(runs, |(driver, seed, wanted)| {
        let all = windows(driver, seed, wanted);
        let pick = |sending: bool| {
            let of = all.iter().filter(move |window| window.sending == sending);
            of.take(wanted)
        };
        let views: [fn(&Window) -> Sample; 2] = [at_entry, at_mailbox];
        views.map(|view| [true, false].map(|kind| pick(kind).map(view).collect::<Vec<Sample>>()))
    });
    let controls = all.split_off(deployed.len());
    for (at, gateway) in ["entry", "mailbox"].into_iter().enumerate() {
        let [sending, idle] = [0, 1].map(|kind| {
            let both = all.iter().flat_map(|of| of[at][kind].clone());
            both.collect::<Vec<Sample>>()
        });
        assert_eq!((sending.len(), idle.len()), (WINDOWS, WINDOWS));
        let area = told_apart(&sending, &idle);
        println!("{gateway} gateway: {area}");
        assert!(area.upper <= AUC_MAX, "{gateway}: {area}");
        for (driver, of) in ["hasty", "dialling"].iter().zip(&controls) {
            let [sending, idle] = &of[at];
            let area = told_apart(sending, idle);
            println!("control, {driver}, {gateway} gateway: {area}");
            assert!(area.lower > AUC_MAX, "{driver}, {gateway}: {area}");
        }
    }
}
