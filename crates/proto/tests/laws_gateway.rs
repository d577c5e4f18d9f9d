//! The laws of `Machine` for the gateway, and a naive model that predicts its every output.
//!
//! Schedules are played, see `gateway::play`; what is drawn here are the acts.

#![expect(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that is wrong may panic"
)]

mod gateway;
mod harness;
mod kolmogorov;

use std::collections::BTreeMap;

use gateway::{
    fixture::{DAY_S, PERIOD_S, START_S, limits},
    play::{Act, Call, Forgery, Play, agree, new},
};
use harness::{call, deterministic, drain, harmless_wake, progress};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngSeed, TestRunner},
};
use proto::{
    Machine, Time,
    gateway::{Input, Limits},
    wire::Purpose,
};

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
    // A header that is mostly right, and whatever comes after it.
    let header = (0u8..9, prop::bool::weighted(0.1)).prop_map(|(kind, odd)| [kind, odd.into()]);
    let bytes = (header, prop::collection::vec(any::<u8>(), 34..50));
    let bytes = bytes.prop_map(|(header, rest)| [header.to_vec(), rest].concat());
    let side = prop::sample::select(vec![Purpose::Entry, Purpose::Mailbox]);
    // Most owners have a slot of their own, as clients do.
    let slot = prop_oneof![1 => (0u16..4).prop_map(Some), 4 => Just(None)];
    let open = (1u8..6, slot, forgery)
        .prop_map(|(owner, slot, forgery)| (owner, slot.unwrap_or(u16::from(owner % 4)), forgery));
    let open = prop::collection::vec(open, 0..4);
    let cursors = prop::collection::vec((0u16..4, 0u64..5), 0..3);
    let link = || prop::sample::select(vec![0u64, 0, 0, 0, 1, 1, 2, 3]);
    prop_oneof![
        2 => (0u8..4).prop_map(Act::Document),
        2 => utc.prop_map(Act::Utc),
        8 => (purpose, 0u8..4).prop_map(|(purpose, profile)| Act::Link(purpose, profile)),
        2 => link().prop_map(Act::Unlink),
        4 => (1u8..4, 0u8..3).prop_map(|(owner, profile)| Act::Return(owner, profile)),
        8 => (link(), 0u8..5, 1u8..50).prop_map(|(link, to, n)| Act::Packets(link, to, n)),
        6 => (link(), side, bytes).prop_map(|(link, side, bytes)| Act::Bytes(link, side, bytes)),
        20 => (link(), cursors, open).prop_map(|(link, c, open)| Act::Confirm(link, c, open)),
        20 => (0u8..7, prop::bool::weighted(0.05), 1u8..10)
            .prop_map(|(to, delay, n)| Act::Peeled(to, delay, n)),
        30 => (1u8..20).prop_map(Act::Answer),
        2 => Just(Act::Refuse),
        3 => (0u8..7, 0u64..40, 0u64..40).prop_map(|(of, seq, n)| Act::Unasked(of, seq, n)),
        4 => (0u8..7, 0u8..3).prop_map(|(of, what)| Act::Elsewhere(of, what)),
        1 => prop::bool::weighted(0.1)
            .prop_map(|fails| if fails { Act::StoreFails } else { Act::Wake }),
        6 => any::<u8>().prop_map(Act::Notice),
        10 => Just(Act::Wake),
    ]
}

/// Small limits, and the calls of a play that mostly starts with all that a gateway needs.
fn schedule() -> impl Strategy<Value = (Limits, Vec<Call>)> {
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
        let mut play = Play::new(limits, ready);
        for (gap, act) in steps {
            play.act(gap, act);
        }
        (limits, play.into_calls())
    })
}

/// After the schedule, so many wakes more: a link ticks as long as it is up.
const WAKES_MAX: usize = 60;

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(2),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// GW-1 to GW-18, GW-28 and GW-29, but for the phase of ticks, which need only lie within a period.
    #[test]
    fn gateway_does_what_the_model_predicts((limits, calls) in schedule()) {
        agree(limits, calls, WAKES_MAX);
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
        "Open(..)",
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
    let mut gateway = new(limits());
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
