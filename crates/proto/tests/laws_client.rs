//! The laws of `Machine` for the client.
//!
//! What the schedules reach: documents, calendars and links that come in any order or not at all,
//! frames good and bad, messages to oneself with every kind of return, transactions that are
//! confirmed late, twice or never, and limits small enough to be full. A driver that is late skips
//! ticks, so laws about time are checked with drivers that are late too.

mod client_net;
mod harness;

use core::time::Duration;
use std::sync::{Arc, LazyLock};

use chacha20::ChaCha12Rng;
use client_net::{START_S, config, consensus, gateway_id, own_family, params, rates};
use harness::{Call, call, deterministic, drain, harmless_wake, progress};
use proptest::prelude::*;
use proto::{
    NodeId, Time,
    calendar::{Calendar, Utc},
    client::{
        ADDRESSES_MAX, Client, Held, Identity, Input, Limits, MAILBOX_GATEWAYS_MAX, MessageId,
        Output, ReplyToken, Return, State, Target,
        content::{Content, Fragment},
        fountain,
    },
    directory::Consensus,
    wire::{Frame, Kind, field_of},
};
use rand::SeedableRng as _;
use sphinx::Hop;

static NETWORK: LazyLock<Arc<Consensus>> = LazyLock::new(|| {
    let params = params(rates(20.0, 2.0, 20.0), 3600);
    Arc::new(consensus(params, 3, 3, own_family).0)
});

fn identity() -> Identity {
    Identity::generate(&mut ChaCha12Rng::from_seed([1; 32]), gateway_id(0))
}

fn client(limits: Limits) -> Client {
    let mut config = config();
    config.limits = limits;
    Client::new(config, [2; 32], identity(), []).expect("a new one")
}

/// The mailbox is at the first gateway, until it moves.
fn link() -> impl Strategy<Value = NodeId> {
    prop_oneof![3 => Just(gateway_id(0)), 1 => (0u8..3).prop_map(gateway_id)]
}

fn limits() -> impl Strategy<Value = Limits> {
    (1usize..4, 1usize..6).prop_map(|(few, some)| Limits {
        outgoing_max: few,
        outgoing_bytes_max: 4000 * few,
        incoming_max: few,
        incoming_bytes_max: 2000 * some,
        acks_max: few,
        tags_max: some,
        finished_max: some,
        surbs_max: 5 * some,
        held_surbs_max: 3 * some,
        contacts_max: some,
        loops_max: some,
        unstored_max: some,
    })
}

/// A frame for the client: a fragment of one of a few messages, or garbage.
fn frame(seq: u64, message: u8, esi: u32, kind: u8) -> Frame {
    let address = identity().address();
    let content = match kind {
        0 => Content::Loop([message; 16]),
        1 => Content::Acks {
            left: 0,
            blocks: vec![(MessageId([message; 16]), 0)],
        },
        _ => Content::Fragment(Fragment {
            message: MessageId([message; 16]),
            length: [10, 3000][usize::from(message % 2)],
            block: 0,
            esi,
            epoch: proto::calendar::Epoch(0),
            return_len: 1,
            symbol: vec![0; fountain::SYMBOL_LEN],
        }),
    };
    let hop = Hop {
        address: address.mailbox.0,
        key: address.key,
        delay_ns: 0,
    };
    let mut rng = ChaCha12Rng::from_seed([message.wrapping_add(esi.to_be_bytes()[3]); 32]);
    let mut packet = sphinx::build(&mut rng, &[hop], [0; 32], [0; 16], &content.to_bytes());
    packet[400] ^= u8::from(kind == 3);
    Frame::packet(0, field_of(seq, START_S + seq), &packet)
}

fn input() -> impl Strategy<Value = Input> {
    let to_self = Target::Address(identity().address());
    let reply = |byte: u8| Target::Reply(ReplyToken::from_bytes([byte; 16]));
    let send =
        (any::<u8>(), 0usize..5000, 0u8..4).prop_map(move |(ticket, len, how)| Input::Send {
            ticket: ticket.into(),
            to: if ticket % 5 == 0 {
                reply(ticket)
            } else {
                to_self
            },
            body: vec![ticket; len],
            reply: match how {
                0 => Return::None,
                1 => Return::Address,
                more => Return::Surbs(more),
            },
        });
    prop_oneof![
        1 => Just(Input::Consensus(NETWORK.clone())),
        1 => (0u64..4).prop_map(|hours| Input::Calendar(Calendar {
            at: Time::ZERO,
            utc: Utc::from_secs(START_S + hours * 3600),
        })),
        2 => (0u8..3).prop_map(|i| Input::EntryUp { gateway: gateway_id(i) }),
        2 => (0u8..3).prop_map(|i| Input::EntryDown { gateway: gateway_id(i) }),
        2 => (any::<bool>(), prop::collection::vec(link(), 0..2))
            .prop_map(|(entry, mailboxes)| Input::Full { entry, mailboxes }),
        2 => (any::<u8>(), link()).prop_map(|(byte, gateway)| Input::MailboxUp {
            gateway,
            exporter: [byte; 32],
        }),
        1 => link().prop_map(|gateway| Input::MailboxDown { gateway }),
        8 => (0u64..40, 0u8..6, 0u32..6, 0u8..8, 0u16..8, link())
            .prop_map(|(seq, message, esi, kind, slot, gateway)| {
                let frame = frame(seq, message, esi, kind);
                // Most come to the first address; some to others, or to none.
                let slot = slot.saturating_sub(4);
                let frame = Frame::packet(slot, frame.field(), &frame.to_packet());
                Input::Frame { gateway, frame }
            }),
        1 => (0u8..3, link()).prop_map(|(kind, gateway)| {
            let kind = [Kind::Dummy, Kind::Hello, Kind::Blob][usize::from(kind)];
            let frame = Frame::new(kind, 0, [0; 32]);
            Input::Frame { gateway, frame }
        }),
        3 => send,
        1 => (0u8..4, any::<u64>()).prop_map(|(name, ticket)| Input::NewAddress {
            ticket,
            label: "x".repeat(name.into()),
        }),
        1 => (0u8..4, any::<u64>()).prop_map(|(name, ticket)| Input::Revoke {
            ticket,
            label: ["main", "x", "xx", ""][usize::from(name)].to_owned(),
        }),
        1 => (any::<u64>(), prop::option::of(0u8..4)).prop_map(|(ticket, to)| Input::Move {
            ticket,
            to: to.map(gateway_id),
        }),
        1 => (0u8..6).prop_map(|message| Input::Taken { message: MessageId([message; 16]) }),
        6 => (0u64..30).prop_map(|txn| Input::Stored { txn }),
    ]
}

/// Calls of a driver that starts in good order more often than not, and is sometimes late.
fn calls() -> impl Strategy<Value = Vec<Call<Input>>> {
    let step = (0u64..120, proptest::option::of(input()));
    (any::<bool>(), prop::collection::vec(step, 0..60)).prop_map(|(orderly, steps)| {
        let start = [
            Input::Calendar(Calendar {
                at: Time::ZERO,
                utc: Utc::from_secs(START_S + 60),
            }),
            Input::Consensus(NETWORK.clone()),
            // One of the two is the entry; the other one's link was left.
            Input::EntryUp {
                gateway: gateway_id(1),
            },
            Input::EntryUp {
                gateway: gateway_id(2),
            },
            Input::MailboxUp {
                gateway: gateway_id(0),
                exporter: [1; 32],
            },
        ];
        let start = start.into_iter().filter(|_| orderly);
        let mut calls: Vec<Call<Input>> = start.map(|input| (Time::ZERO, Some(input))).collect();
        let mut now = Duration::ZERO;
        for (gap_ms, input) in steps {
            now += Duration::from_millis(gap_ms);
            calls.push((Time::ZERO.after(now), input));
        }
        calls
    })
}

/// Law 5 for one moment (CLI-28).
fn within(held: Held, limits: Limits) -> Result<(), TestCaseError> {
    let (messages, bytes) = held.outgoing;
    prop_assert!(held.stranded <= messages, "{held:?}");
    prop_assert!(messages <= limits.outgoing_max && bytes <= limits.outgoing_bytes_max);
    prop_assert!(held.incoming <= limits.incoming_max, "{held:?}");
    prop_assert!(held.tags <= limits.tags_max, "{held:?}");
    prop_assert!(held.finished <= limits.finished_max, "{held:?}");
    prop_assert!(held.acks <= ADDRESSES_MAX * limits.acks_max, "{held:?}");
    prop_assert!(held.surbs <= limits.surbs_max, "{held:?}");
    prop_assert!(held.loops <= limits.loops_max, "{held:?}");
    let unstored_max = MAILBOX_GATEWAYS_MAX * limits.unstored_max;
    prop_assert!(held.unstored <= unstored_max, "{held:?}");
    prop_assert!(held.returns.0 <= limits.finished_max + limits.incoming_max);
    prop_assert!(held.returns.1 <= limits.held_surbs_max);
    prop_assert!(held.contacts <= limits.contacts_max, "{held:?}");
    // What is whole is delivered before it is weighed: one message may stand above the limit.
    prop_assert!(held.incoming_bytes <= limits.incoming_bytes_max, "{held:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn client_law_2_drain(limits in limits(), calls in calls()) {
        drain(client(limits), calls)?;
    }

    #[test]
    fn client_law_3_progress(limits in limits(), calls in calls()) {
        progress(client(limits), calls)?;
    }

    #[test]
    fn client_law_4_harmless_wake(limits in limits(), calls in calls()) {
        harmless_wake(|| client(limits), calls, 100)?;
    }

    #[test]
    fn client_law_5_bounded(limits in limits(), calls in calls()) {
        let mut client = client(limits);
        for (now, input) in calls {
            // A payload, a loop, a tick, and for each an event; what was stored; what expired.
            let most = 16 + 8 * MAILBOX_GATEWAYS_MAX * limits.unstored_max + 4 * limits.outgoing_max;
            prop_assert!(call(&mut client, now, input).len() <= most);
            within(client.held(), limits)?;
        }
    }

    #[test]
    fn client_law_6_deterministic(limits in limits(), calls in calls()) {
        deterministic(|| client(limits), calls, 100)?;
    }

    /// CLI-16: nothing is reported, delivered or confirmed before its transaction is durable, and
    /// transactions come one at a time.
    #[test]
    fn client_shows_nothing_before_it_is_durable(limits in limits(), calls in calls()) {
        let mut client = client(limits);
        let (mut asked, mut durable) = (0, 0);
        for (now, input) in calls {
            // A driver confirms only what was asked, in order.
            let input = match input {
                Some(Input::Stored { .. }) if asked > durable => {
                    durable = asked;
                    Some(Input::Stored { txn: asked })
                }
                Some(Input::Stored { .. }) => None,
                other => other,
            };
            let confirmed = matches!(input, Some(Input::Stored { .. }));
            for output in call(&mut client, now, input) {
                match output {
                    Output::Store { txn, ops } => {
                        prop_assert_eq!(durable, asked, "one at a time");
                        prop_assert_eq!(txn, asked + 1);
                        prop_assert!(!ops.is_empty() || txn > 0);
                        asked = txn;
                    }
                    Output::Deliver(_) | Output::Addressed { outcome: Ok(_), .. } => {
                        prop_assert!(confirmed);
                    }
                    Output::Progress(progress) => {
                        let failed = matches!(progress.state, State::Failed(_));
                        prop_assert!(confirmed || failed);
                    }
                    Output::Entry(_)
                    | Output::Mailbox { .. }
                    | Output::Relocated(_)
                    | Output::Addressed { .. }
                    | Output::Event(_) => {}
                }
            }
        }
    }
}

/// Law 1, for each of the two calls that carry a time.
fn goes_back(input: Option<Input>) {
    let mut client = client(Limits::default());
    call(&mut client, Time::from_nanos(2), None);
    call(&mut client, Time::from_nanos(1), input);
}

#[test]
#[should_panic(expected = "law 1")]
fn client_law_1_monotone_wake() {
    goes_back(None);
}

#[test]
#[should_panic(expected = "law 1")]
fn client_law_1_monotone_handle() {
    goes_back(Some(Input::MailboxDown {
        gateway: gateway_id(0),
    }));
}
