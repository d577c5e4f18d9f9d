//! What those who see a client's links learn of what it does: ATTACKS t09, g01, g04.
//!
//! | attack | observer                                  | asks                                                  |
//! |--------|-------------------------------------------|-------------------------------------------------------|
//! | t09    | whoever sees the recipient's uplink        | was what it was just sent whole, garbled, taken?       |
//! | g04    | a correspondent who garbles or drops its own packets, or waits for acks | the same               |
//! | g01    | entry gateway: times and frames            | does this client send something in this second?        |
//! | g01    | mailbox gateway: times and confirmations    | the same                                              |
//!
//! What a mailbox gateway sees of *receiving* is published, not denied (`lacuna-sim attack receiving`); an ack that
//! comes back is received.

mod classifier;
mod client_net;
mod kolmogorov;

use core::time::Duration;
use std::sync::Arc;

use classifier::{Sample, at_once, lower, told_apart};
use client_net::{Net, START_S, config, consensus, own_family, params, rates, secs};
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

fn recipient(fate: Fate) -> Recipient {
    let mut net = Net::new(9, params(rates(20.0, 1.0, 60.0), 3600), 2);
    net.garbled = fate == Fate::Garbled;
    net.taken = fate == Fate::Taken;
    net.peers[1].config.acks = fate != Fate::Unanswered;
    let mut ticket = 0;
    for tenth in 0..2_500_u32 {
        net.run(secs(f64::from(tenth) / 10.0), |_| false);
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
/// The control: acks that do not wait for slots.
#[test]
fn attack_t09_g04_acks_and_garbage_look_alike() {
    let fates = [Fate::Whole, Fate::Garbled, Fate::Taken, Fate::Unanswered];
    let mut all = at_once(fates, recipient);
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
    let mut eager = written.clone();
    let at_once = |at: &Time| at.after(Duration::from_millis(2));
    eager.extend(read.iter().step_by(4).map(at_once));
    eager.sort();
    let apart = distance(&waits(read, &eager), &whole);
    assert!(
        apart > 2.0 * bound(read.len(), whole.len()),
        "control: {apart}"
    );
}

/// Windows that an observer has, of each kind.
const WINDOWS: usize = 10_000;
/// Above this it has learned something.
const AUC_MAX: f64 = 0.52;
const PAYLOAD_HZ: f64 = 6.0;

/// Seconds of a stretch in which a client has something to say, and of one in which it has not.
const STRETCH: u32 = 40;
/// After so many of the latter the queue is empty: it is six slots a second.
const DRAINED: u32 = 8;

/// One second of a client: times of its frames within it, and what the frames show.
struct Window {
    entry: Vec<(f64, u8)>,
    mailbox: Vec<f64>,
    /// Packets with content. (Whether there are any depends on whether there are slots, so it is no label.)
    sends: usize,
    /// Whether it has something to say.
    sending: bool,
}

/// Seconds of a client that has something to say in every second of every other stretch, its links up throughout.
fn windows() -> Vec<Window> {
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
    let made = Client::new(config(), [5; 32], identity, []);
    let mut client = made.expect("no records");
    let utc = Utc::from_secs(START_S);
    let calendar = Calendar {
        at: Time::ZERO,
        utc,
    };
    client.handle(Time::ZERO, Input::Calendar(calendar));
    client.handle(Time::ZERO, Input::Consensus(Arc::new(document)));
    let entry = client.entry().expect("it has a document");
    let mut inputs = vec![
        Input::EntryUp { gateway: entry },
        Input::MailboxUp {
            gateway: client.mailbox_gateway(),
            exporter: [1; 32],
        },
    ];
    let (mut windows, mut ticket) = (Vec::new(), 0);
    for second in 0_u32.. {
        let (start, end) = (secs(f64::from(second)), secs(f64::from(second + 1)));
        let (sending, into) = ((second / STRETCH).is_multiple_of(2), second % STRETCH);
        let idle = windows.iter().filter(|window: &&Window| !window.sending);
        if into == 0 && sending && idle.count() >= WINDOWS {
            break;
        }
        if sending {
            ticket += 1;
            inputs.push(Input::Send {
                ticket,
                to: Target::Address(to),
                body: vec![3; 500],
                reply: Return::None,
            });
        }
        let mut window = Window {
            entry: Vec::new(),
            mailbox: Vec::new(),
            sends: 0,
            sending,
        };
        let mut now = start;
        loop {
            for input in core::mem::take(&mut inputs) {
                client.handle(now, input);
            }
            while let Some(output) = client.poll() {
                let at = now.since(start).as_secs_f64();
                match output {
                    Output::Entry(frame) => window.entry.push((at, frame.field()[0])),
                    Output::Mailbox { .. } => window.mailbox.push(at),
                    Output::Store { txn, .. } => inputs.push(Input::Stored { txn }),
                    Output::Event(ClientEvent::PayloadSent) => window.sends += 1,
                    Output::Event(_)
                    | Output::Progress(_)
                    | Output::Addressed { .. }
                    | Output::Relocated(_) => {}
                    Output::Deliver(_) => panic!("nobody writes to it"),
                }
            }
            if !inputs.is_empty() {
                continue;
            }
            match client.next_wake() {
                Some(at) if at < end => now = at,
                Some(_) | None => break,
            }
            client.wake(now);
        }
        if sending || into >= DRAINED {
            assert!(sending || window.sends == 0, "it is drained");
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

/// ATTACKS g01: neither gateway tells the seconds in which a client has something to say. The controls: payload that is
/// added to cover instead of taking its place; a confirmation that comes early for it.
#[test]
fn attack_g01_gateways_do_not_see_sending() {
    let all = windows();
    let pick = |sending: bool, view: &dyn Fn(&Window) -> Sample| -> Vec<Sample> {
        let of = all.iter().filter(|window| window.sending == sending);
        let samples: Vec<Sample> = of.take(WINDOWS).map(view).collect();
        assert_eq!(samples.len(), WINDOWS);
        samples
    };
    let at_mailbox = |window: &Window| Sample {
        numbers: shape(&window.mailbox),
        bytes: Vec::new(),
    };
    let idle = |view: &dyn Fn(&Window) -> Sample| pick(false, view);
    let judge = |name: &str, view: &dyn Fn(&Window) -> Sample| {
        let [area, upper] = told_apart(&pick(true, view), &idle(view));
        println!("{name}: {area:.4}, at most {upper:.4}");
        assert!(upper <= AUC_MAX, "{name}: {upper}");
    };
    judge("entry gateway", &at_entry);
    judge("mailbox gateway", &at_mailbox);

    let added = |window: &Window| {
        let mut entry = window.entry.clone();
        entry.extend((0..window.sends).map(|i| (0.3 + i as f64 / 50.0, 0x10)));
        entry.sort_by(|a, b| a.0.total_cmp(&b.0));
        at_entry(&Window {
            entry,
            mailbox: Vec::new(),
            ..*window
        })
    };
    let early = |window: &Window| {
        let mut times = window.mailbox.clone();
        times.extend((window.sends > 0).then_some(0.5)); // sooner than the tick
        times.sort_by(f64::total_cmp);
        Sample {
            numbers: shape(&times),
            bytes: Vec::new(),
        }
    };
    for (name, area) in [
        (
            "added",
            told_apart(&pick(true, &added), &idle(&at_entry))[0],
        ),
        (
            "early",
            told_apart(&pick(true, &early), &idle(&at_mailbox))[0],
        ),
    ] {
        println!("control, {name}: {area:.4}");
        assert!(lower(area, WINDOWS) > AUC_MAX, "{name}: {area}");
    }
}
