//! The laws of `Machine` for the gateway, and a naive model that predicts its every output.
//!
//! A gateway talks with a store, so a schedule is not drawn but played: what is drawn are steps
//! of clients, of the clock, of the packets that come and of a store that lags, refuses, talks
//! without being asked and fails. The calls that a play makes are the schedule.

#![expect(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that is wrong may panic"
)]

mod gateway;
mod harness;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use gateway::{
    DAY_S, Owner, PERIOD_S, SEED, START_S, Store, calendar_at, confirm, consensus, exporter,
    linked, model::Model, node, packet, peeled, relayed,
};
use harness::{Call, call, deterministic, drain, harmless_wake, progress};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngSeed, TestRunner},
};
use proto::{
    LinkId, Machine, Time,
    directory::Profile,
    gateway::{Gateway, Input, Kept, Limits, Output},
    wire::{Frame, Kind, Purpose},
};

/// Gaps of a few nanoseconds, so that ticks often coincide with calls or miss them by one.
fn profile(name: &str, up_gap_ns: u64, down_gap_ns: u64, confirm_ms: u32) -> Profile {
    let uhz = |gap: u64| 1_000_000_000_000_000u64.checked_div(gap).unwrap_or(0);
    let up = uhz(up_gap_ns) / 5 * 4;
    Profile {
        name: name.to_owned(),
        payload_uhz: up / 2,
        loops_uhz: up / 2,
        downstream_uhz: uhz(down_gap_ns),
        confirm_ms,
    }
}

/// Documents: two periods with different first layers, and profiles that move, change and go.
fn document(which: u8) -> Input {
    let fast = profile("fast", 10, 5, 0);
    let slow = profile("slow", 20, 8, 1);
    let quiet = profile("quiet", 0, 0, 1);
    Input::Consensus(match which {
        0 => consensus(1, &[1, 2], vec![fast, slow, quiet]),
        1 => {
            let quiet = profile("quiet", 0, 4, 1);
            consensus(1, &[1, 2], vec![fast, slow, quiet])
        }
        2 => {
            let fast = profile("fast", 8, 10, 0);
            consensus(2, &[2, 3], vec![quiet, slow, fast])
        }
        _ => {
            let slow = profile("slow", 10, 0, 1);
            consensus(3, &[4], vec![slow, fast])
        }
    })
}

#[derive(Clone, Debug)]
enum Forgery {
    None,
    Exporter,
    Mailbox,
    Key,
}

/// What somebody does. Links are picked from those that are up, or are unknown.
#[derive(Clone, Debug)]
enum Act {
    Document(u8),
    Utc(u64),
    Link(Purpose, u8),
    Unlink(u64),
    Packets(u64, u8, u8),
    Kind(u64, Kind),
    /// Cursors count from the last number that was sent, less two.
    Confirm(u64, Vec<(u16, u64)>, Option<(u8, u16, Forgery)>),
    Malformed(u64),
    Peeled(u8, bool, u8),
    Answer(u8),
    Refuse,
    Unasked(u8, u64),
    StoreFails,
    Wake,
}

fn acts() -> impl Strategy<Value = Act> {
    let edges = prop::sample::select(vec![
        START_S - 1,
        START_S,
        START_S + PERIOD_S,
        START_S + PERIOD_S + DAY_S / 4 + 299,
        START_S + PERIOD_S + DAY_S / 4 + 300,
        START_S + 4 * DAY_S - 1,
        START_S + 4 * DAY_S,
        START_S + PERIOD_S + 4 * DAY_S,
        START_S + 2 * PERIOD_S + 4 * DAY_S,
    ]);
    let utc = prop_oneof![edges, START_S..START_S + 7 * DAY_S];
    let purpose = prop_oneof![
        4 => Just(Purpose::Mailbox), 3 => Just(Purpose::Entry), 1 => Just(Purpose::Directory)
    ];
    let forgery = prop_oneof![
        8 => Just(Forgery::None), 1 => Just(Forgery::Exporter),
        1 => Just(Forgery::Mailbox), 1 => Just(Forgery::Key),
    ];
    let kind = prop::sample::select(vec![Kind::Packet, Kind::Dummy, Kind::Confirm, Kind::Hello]);
    let open = proptest::option::weighted(0.6, (1u8..6, 0u16..4, forgery));
    let cursors = prop::collection::vec((0u16..4, 0u64..5), 0..3);
    let link = || prop::sample::select(vec![0u64, 0, 0, 0, 1, 1, 2, 3]);
    prop_oneof![
        2 => (0u8..4).prop_map(Act::Document),
        2 => utc.prop_map(Act::Utc),
        8 => (purpose, 0u8..4).prop_map(|(purpose, profile)| Act::Link(purpose, profile)),
        2 => link().prop_map(Act::Unlink),
        8 => (link(), 0u8..5, 1u8..50).prop_map(|(link, to, n)| Act::Packets(link, to, n)),
        1 => (link(), kind).prop_map(|(link, kind)| Act::Kind(link, kind)),
        1 => link().prop_map(Act::Malformed),
        20 => (link(), cursors, open).prop_map(|(link, c, open)| Act::Confirm(link, c, open)),
        20 => (0u8..7, prop::bool::weighted(0.05), 1u8..10)
            .prop_map(|(to, delay, n)| Act::Peeled(to, delay, n)),
        30 => (1u8..20).prop_map(Act::Answer),
        2 => Just(Act::Refuse),
        3 => (0u8..7, 0u64..40).prop_map(|(of, seq)| Act::Unasked(of, seq)),
        1 => prop::bool::weighted(0.1)
            .prop_map(|fails| if fails { Act::StoreFails } else { Act::Wake }),
        10 => Just(Act::Wake),
    ]
}

/// Plays acts against a machine and a store; keeps the calls.
struct Play {
    gateway: Gateway,
    store: Store,
    asked: VecDeque<Output>,
    calls: Vec<Call<Input>>,
    now: Time,
    links: u64,
    up: Vec<(LinkId, Purpose)>,
    /// The last number sent on each slot.
    sent: BTreeMap<(LinkId, u16), u64>,
    packets: u64,
}

impl Play {
    fn call(&mut self, input: Option<Input>) {
        self.calls.push((self.now, input.clone()));
        for output in call(&mut self.gateway, self.now, input) {
            match output {
                Output::Close { link } => self.up.retain(|(up, _)| *up != link),
                Output::Frame { link, frame } => {
                    let last = self.sent.entry((link, frame.slot())).or_default();
                    *last = frame.numbers().0.max(*last);
                }
                Output::Relay { .. } | Output::Dropped(_) | Output::Event(_) => {}
                for_store => self.asked.push_back(for_store),
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.call(Some(input));
    }

    /// One of the links for `purpose`, and now and then one that nobody knows.
    fn link(&self, pick: u64, purpose: Purpose) -> LinkId {
        let mut fitting = self.up.iter().filter(|(_, its)| *its == purpose).rev();
        let picked = fitting.nth(usize::try_from(pick).unwrap());
        picked.map_or(LinkId(1_000_000), |(link, _)| *link)
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Wake => self.call(None),
            Act::Document(which) => self.input(document(which)),
            Act::Utc(utc_s) => self.input(calendar_at(self.now, utc_s)),
            Act::Link(purpose, profile) => {
                self.links += 1;
                self.up.push((LinkId(self.links), purpose));
                self.input(linked(LinkId(self.links), purpose, profile));
            }
            Act::Unlink(pick) => {
                let all = self.up.len();
                let which = usize::try_from(pick).unwrap();
                let link = if which < all {
                    self.up.remove(all - 1 - which).0
                } else {
                    LinkId(0)
                };
                self.input(Input::Unlinked { link });
            }
            Act::Packets(link, to, n) => {
                for _ in 0..n {
                    self.packets += 1;
                    let link = self.link(link, Purpose::Entry);
                    self.input(relayed(link, node(to), self.packets));
                }
            }
            Act::Kind(link, kind) => {
                let link = self.link(
                    link / 2,
                    [Purpose::Entry, Purpose::Mailbox][link as usize % 2],
                );
                let frame = Frame::with_body(kind, [1; 32], &[0xff; 4]);
                self.input(Input::Frame { link, frame });
            }
            Act::Malformed(link) => {
                let link = self.link(link, Purpose::Mailbox);
                let frame = Frame::with_body(Kind::Confirm, [0; 32], &[0xff; 4]);
                self.input(Input::Frame { link, frame });
            }
            Act::Confirm(link, cursors, open) => {
                let link = self.link(link, Purpose::Mailbox);
                let cursors = cursors.into_iter().map(|(slot, ahead)| {
                    let sent = self.sent.get(&(link, slot)).copied().unwrap_or(0);
                    (slot, (sent + ahead).saturating_sub(2))
                });
                let cursors = cursors.collect();
                let open = open.map(|(owner, slot, forgery)| {
                    let (owner, exporter) = (Owner::new(owner), exporter(link));
                    match forgery {
                        Forgery::None => owner.open(slot, &exporter),
                        Forgery::Exporter => owner.open(slot, &[0; 32]),
                        Forgery::Mailbox => {
                            owner.open_of(&Owner::new(1).mailbox(), slot, &exporter)
                        }
                        Forgery::Key => {
                            let mut open = owner.open(slot, &exporter);
                            open.key = Owner::new(1).open(slot, &exporter).key;
                            open.key[31] ^= 1;
                            open
                        }
                    }
                });
                self.input(confirm(link, cursors, open));
            }
            Act::Peeled(to, delayed, n) => {
                for _ in 0..n {
                    self.packets += 1;
                    let mut came = peeled(self.now, Owner::new(to).mailbox(), self.packets);
                    came.delay = Duration::from_nanos(delayed.into());
                    self.input(Input::Peeled(came));
                }
            }
            Act::Answer(n) => {
                for _ in 0..n {
                    let asked = self.asked.pop_front();
                    for input in asked
                        .map(|asked| self.store.answer(asked))
                        .unwrap_or_default()
                    {
                        self.input(input);
                    }
                }
            }
            Act::Refuse => {
                let next = self
                    .asked
                    .iter()
                    .position(|ask| matches!(ask, Output::Store { .. }));
                let asked = next.and_then(|next| self.asked.remove(next));
                if let Some(Output::Store { mailbox, .. }) = asked {
                    self.input(Input::Refused { mailbox });
                }
            }
            Act::Unasked(of, seq) => {
                let mailbox = Owner::new(of).mailbox();
                let packets = (seq..seq + seq % 5).map(|seq| Kept {
                    seq,
                    stored_at_s: START_S + seq * 1_000,
                    packet: packet(seq),
                });
                self.input(match seq % 3 {
                    0 => Input::Stored { mailbox, seq },
                    1 => Input::Removed {
                        mailbox,
                        packets: seq,
                    },
                    _ => Input::Peeked {
                        mailbox,
                        packets: packets.collect(),
                    },
                });
            }
            Act::StoreFails => self.input(Input::StoreFailed),
        }
    }
}

fn new(limits: Limits) -> Gateway {
    Gateway::new(limits, gateway::NETWORK, SEED)
}

/// Small limits, and the calls of a play that mostly starts with all that a gateway needs.
fn schedule() -> impl Strategy<Value = (Limits, Vec<Call<Input>>)> {
    let limits = (1usize..6, 1usize..6, 1usize..6, 0u64..12);
    let limits = limits.prop_map(|(mailboxes_max, links_max, read_ahead, quota)| Limits {
        mailboxes_max,
        links_max,
        read_ahead,
        quota,
    });
    let gap = prop_oneof![
        20 => 0u64..8,
        10 => 0u64..200,
        1 => 0u64..2_000_000,
        1 => 3_599_999_999_990u64..3_600_000_000_010,
    ];
    let steps = prop::collection::vec((gap, acts()), 0..120);
    (limits, prop::bool::weighted(0.9), steps).prop_map(|(limits, ready, steps)| {
        let mut play = Play {
            gateway: new(limits),
            store: Store::default(),
            asked: VecDeque::new(),
            calls: Vec::new(),
            now: Time::ZERO,
            links: 0,
            up: Vec::new(),
            sent: BTreeMap::new(),
            packets: 0,
        };
        let mut start = vec![Act::Link(Purpose::Mailbox, 0)];
        if ready {
            start.insert(0, Act::Document(0));
            start.insert(0, Act::Utc(START_S));
            // What was there before: a mailbox with two packets, and one that has no room.
            let owner = Owner::new(1).mailbox();
            play.store.boxes.insert(owner, Vec::new());
            for name in 1_000_000..1_000_002 {
                play.store.put(owner, START_S, packet(name));
            }
            let held = (1..=6).map(|i| (Owner::new(i).mailbox(), if i == 1 { 2 } else { 0 }));
            for (mailbox, _) in held.clone() {
                play.store.boxes.entry(mailbox).or_default();
            }
            play.input(Input::Registered(held.take(2).collect()));
        }
        start.into_iter().for_each(|act| play.act(act));
        for (gap, act) in steps {
            play.now = play.now.after(Duration::from_nanos(gap));
            play.act(act);
        }
        (limits, play.calls)
    })
}

/// After the schedule, so many wakes more: a link ticks as long as it is up.
const WAKES_MAX: usize = 60;

/// When `link` first sends a frame, found on a machine of its own that is played the same calls.
fn first_tick(limits: Limits, calls: &[Call<Input>], link: LinkId) -> Time {
    let mut twin = new(limits);
    for (now, input) in calls {
        call(&mut twin, *now, input.clone());
    }
    loop {
        let at = twin.next_wake().expect("the link ticks");
        let outputs = call(&mut twin, at, None);
        let its = |out: &Output| matches!(out, Output::Frame { link: l, .. } if *l == link);
        if outputs.iter().any(its) {
            return at;
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(2),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// GW-1 to GW-18, but for the phase of ticks, which need only lie within a period.
    #[test]
    fn gateway_does_what_the_model_predicts((limits, mut calls) in schedule()) {
        let (mut gateway, mut model) = (new(limits), Model::new(limits));
        let played = calls.len();
        let mut i = 0;
        while i < played + WAKES_MAX {
            if i == calls.len() {
                let Some(at) = gateway.next_wake() else { break };
                calls.push((at, None));
            }
            let (now, input) = calls[i].clone();
            prop_assert_eq!(call(&mut gateway, now, input.clone()), model.call(now, input));
            i += 1;
            for (link, period) in model.unknown_phases() {
                let first = first_tick(limits, &calls[..i], link);
                let phase = first.since(now).as_nanos();
                prop_assert!((1..=u128::from(period)).contains(&phase), "phase {phase}"); // GW-12
                model.set_phase(link, first);
            }
            prop_assert_eq!(gateway.next_wake(), model.next_wake());
        }
    }

    #[test]
    fn gateway_law_2_drain((limits, calls) in schedule()) {
        drain(new(limits), calls)?;
    }

    #[test]
    fn gateway_law_3_progress((limits, calls) in schedule()) {
        progress(new(limits), calls)?;
    }

    #[test]
    fn gateway_law_4_harmless_wake((limits, calls) in schedule()) {
        harmless_wake(|| new(limits), calls, WAKES_MAX)?;
    }

    /// GW-19
    #[test]
    fn gateway_law_5_bounded((limits, calls) in schedule()) {
        let mut gateway = new(limits);
        for (now, input) in calls {
            let outputs = call(&mut gateway, now, input).len();
            // For each link a close, a frame, a skip; for each mailbox up to three peeks (an
            // answer, an expiry, a tick); a confirmation's openings and cursors.
            let most = 4 * limits.links_max + 3 * limits.mailboxes_max + 8;
            prop_assert!(outputs <= most, "{outputs} outputs");
            prop_assert!(gateway.links() <= limits.links_max);
            prop_assert!(gateway.mailboxes() <= limits.mailboxes_max);
            prop_assert!(gateway.loaded() <= limits.read_ahead * limits.mailboxes_max);
        }
    }

    #[test]
    fn gateway_law_6_deterministic((limits, calls) in schedule()) {
        deterministic(|| new(limits), calls, WAKES_MAX)?;
    }
}

/// What no play reaches, no law tests: every drop, every event and every effect, many times.
#[test]
fn plays_reach_everything() {
    let mut runner = TestRunner::new(config());
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..500 {
        let (limits, calls) = schedule().new_tree(&mut runner).unwrap().current();
        let mut gateway = new(limits);
        for (now, input) in calls {
            for output in call(&mut gateway, now, input) {
                let name = format!("{output:?}").replace(|c: char| c.is_ascii_digit(), "");
                *seen.entry(name).or_default() += 1;
            }
        }
    }
    let least = |name: &str| seen.get(name).copied().unwrap_or(0) >= 10;
    let drops = "Closed NoLink Kind Rate WrongFirst DelayNotZero NoMailbox Quota StoreRefused \
                 Malformed BadOpen SlotTaken MailboxesFull Cursor";
    for why in drops.split_whitespace() {
        assert!(least(&format!("Dropped({why})")), "{why}: {seen:#?}");
    }
    for what in [
        "Event(LinkRefused)",
        "Event(Opened)",
        "Event(Displaced)",
        "Event(TicksSkipped())",
        "Event(MailboxesUnserved())",
        "Event(StoreFailed)",
        "Relay()",
        "Frame(Some(Packet))",
        "Frame(Some(Dummy))",
        "Close(..)",
        "Register(..)",
        "Store(..)",
        "Peek()",
        "Confirm(..)",
        "Expire()",
    ] {
        assert!(least(what), "{what}: {seen:#?}");
    }
}

/// Law 1, for each of the two calls that carry a time.
fn goes_back(input: Option<Input>) {
    let mut gateway = new(gateway::limits());
    gateway.wake(Time::from_nanos(2));
    call(&mut gateway, Time::from_nanos(1), input);
}

#[test]
#[should_panic(expected = "law 1")]
fn gateway_law_1_monotone_wake() {
    goes_back(None);
}

#[test]
#[should_panic(expected = "law 1")]
fn gateway_law_1_monotone_handle() {
    goes_back(Some(Input::StoreFailed));
}
