//! Whether anyone on a packet's way tells what it is: data, an ack, a reply, a loop, a drop, a probe (ATTACKS p16).
//!
//! In each of two networks three clients write to each other in a ring, by address and by reply blocks, so that each class
//! of packets goes between the same gateways. Of each packet every hop's view is kept ([`client_net::Hop`]), and a classifier is trained to tell
//! one class from all others by it.
//!
//! | view            | what it has of a packet                                                                      |
//! |-----------------|----------------------------------------------------------------------------------------------|
//! | entry gateway   | the frame; first mix; header; both ends of the payload                                       |
//! | each mix        | header; both ends of the payload; delay; next hop; which key opened it                       |
//! | mailbox gateway | the same, the mailbox, and what it keeps; drops apart, whose mailbox is nobody's               |
//! | each of them    | how many pieces of a packet (16 bytes, an α is two) another packet had as well                |
//!
//! | control                              | what is wrong with it                                                   |
//! |--------------------------------------|-------------------------------------------------------------------------|
//! | loops of another parameter           | real packets of clients whose document says a fifth of the mean delay (Nym's) |
//! | replies of another epoch             | the key that opens them is the next one                                  |
//! | acks with less padding               | the end of their header is zeros                                        |
//! | acks of another kind, in a slot      | their frame's kind is 2, or its slot 1: bytes that differ in their lower half alone |
//! | acks that repeat an α                | every two have the same                                                 |
//!
//! Probes are those that bring more reply blocks for an answer that has used up its own. Not among the features: how long the client's link was silent before, which is published (docs/THREAT_MODEL.md, waits): whatever comes up
//! at a random time leaves in the first slot after, and a random time falls into a long gap rather than a short one.

mod classifier;
mod client_net;

use std::collections::BTreeSet;

use classifier::{Sample, at_once, told_apart};
use client_net::{Class, Crossing, Crossings, Net, params, rates, secs};
use proto::client::{Input, MessageId, Progress, Return, State, Target};
use sphinx::HEADER_LEN;

/// Packets of each class, half of them in each network.
const PACKETS: usize = 10_000;
const SEEDS: [u8; 2] = [16, 17];
/// Of loops in the control.
const CONTROL: usize = 1_500;
/// Above this an observer has learned something.
const AUC_MAX: f64 = 0.52;
const CLASSES: [Class; 6] = [
    Class::Data,
    Class::Ack,
    Class::Reply,
    Class::Loop,
    Class::Drop,
    Class::Probe,
];
const EPOCH_S: u32 = 86_400;
/// Bytes whose repetition is looked for.
const PIECE: usize = 16;
/// First bytes of messages: with a return address, with reply blocks.
const NAMED: u8 = 1;
const UNNAMED: u8 = 2;

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum View {
    Entry,
    Mix(usize),
    Mailbox,
}

const VIEWS: [View; 5] = [
    View::Entry,
    View::Mix(0),
    View::Mix(1),
    View::Mix(2),
    View::Mailbox,
];

fn sample(view: View, packet: &Crossing) -> Sample {
    let first = packet.frame[packet.frame.len() - 1];
    let hop = match view {
        View::Entry => {
            return Sample {
                numbers: vec![f32::from(first)],
                bytes: [&packet.frame[..4], &packet.hops[0].bytes].concat(),
            };
        }
        View::Mix(at) => &packet.hops[at],
        View::Mailbox => &packet.hops[3],
    };
    let kept: &[u8] = if view == View::Mailbox {
        &packet.kept
    } else {
        &[]
    };
    Sample {
        numbers: vec![
            hop.delay.as_secs_f32(),
            f32::from(hop.next.0[0]),
            hop.key as f32,
        ],
        bytes: [&hop.bytes, kept].concat(),
    }
}

/// Adds to each sample how many of its pieces are seen more than once: what a hop makes of packets that have something in
/// common, whose own laws are as ever.
fn mark_repeats(classes: &mut [Vec<Sample>]) {
    let pieces = |sample: &Sample| sample.bytes.as_chunks::<PIECE>().0.to_vec();
    let mut all: Vec<[u8; PIECE]> = classes.iter().flatten().flat_map(pieces).collect();
    all.sort_unstable();
    let equal = all.chunk_by(|a, b| a == b).filter(|equal| equal.len() > 1);
    let repeated: Vec<[u8; PIECE]> = equal.map(|equal| equal[0]).collect();
    for sample in classes.iter_mut().flatten() {
        let own = pieces(sample);
        let own = own
            .iter()
            .filter(|piece| repeated.binary_search(piece).is_ok());
        let own = u8::try_from(own.count()).expect("some thirty");
        sample.bytes.push(own);
    }
}

/// A network in which everyone writes to the next in the ring, until its hops have seen so many packets of each class.
fn talking(seed: u8) -> Crossings {
    let wanted = PACKETS / SEEDS.len();
    let mut net = Net::new(seed, params(rates(104.0, 8.5, 150.0), EPOCH_S), 3);
    net.crossings = Some(Crossings::new(wanted));
    let (mut ticket, mut answered) = (0, BTreeSet::new());
    let enough = |seen: &Crossings| CLASSES.iter().all(|class| seen.count(*class) == wanted);
    for second in 1.. {
        net.run(secs(f64::from(second)), |_| false);
        talk(&mut net, &mut ticket, &mut answered);
        if net.crossings.as_ref().is_some_and(enough) {
            break;
        }
    }
    for peer in &net.peers {
        let failed = |progress: &Progress| matches!(progress.state, State::Failed(_));
        assert!(
            !peer.progress.iter().any(failed),
            "every reply has its blocks"
        );
    }
    net.crossings.take().expect("it was given")
}

/// Loops of clients whose document has a fifth of the mean delay.
fn loops_of_another_mean_delay() -> Vec<Crossing> {
    let mut params = params(rates(1.0, 10.0, 20.0), EPOCH_S);
    params.delay_mean_ms /= 5;
    let mut net = Net::new(18, params, 3);
    net.crossings = Some(Crossings::new(CONTROL));
    let enough = |seen: &Crossings| seen.count(Class::Loop) == CONTROL;
    net.run(secs(3600.0), |net| {
        net.crossings.as_ref().is_some_and(enough)
    });
    let seen = net.crossings.take().expect("it was given").seen;
    seen.into_iter()
        .filter(|(class, _)| *class == Class::Loop)
        .flat_map(|(_, loops)| loops)
        .collect()
}

/// One second's messages: eight by address, whose acks come by address; one by reply blocks, and the answer to one, which
/// takes many more of them than it brought: probes bring the others.
fn talk(net: &mut Net, ticket: &mut u64, answered: &mut BTreeSet<MessageId>) {
    let mut next = || {
        *ticket += 1;
        *ticket
    };
    for from in 0..net.peers.len() {
        let to = (from + 1) % net.peers.len();
        for _ in 0..8 {
            net.send(from, next(), to, vec![NAMED; 300], Return::Address);
        }
        net.send(from, next(), to, vec![UNNAMED; 300], Return::Surbs(7));
        let taken = net.peers[from].taken.values();
        let unnamed = taken.filter(|delivery| delivery.body[0] == UNNAMED);
        let tokens = unnamed.filter_map(|delivery| {
            let fresh = answered.insert(delivery.message);
            delivery.reply.filter(|_| fresh)
        });
        for token in tokens.collect::<Vec<_>>() {
            let send = Input::Send {
                ticket: next(),
                to: Target::Reply(token),
                body: vec![NAMED; 45 * 1900],
                reply: Return::None,
            };
            net.input(from, send);
        }
    }
}

/// p16: no hop's view tells any class from the others; each control is told at every hop that it concerns.
#[test]
fn attack_p16_no_hop_tells_what_a_packet_is() {
    let all = at_once(SEEDS, talking);
    let seen = |class: Class| all.iter().flat_map(move |network| &network.seen[&class]);
    let of = |class: Class, view: View| -> Vec<Sample> {
        seen(class).map(|packet| sample(view, packet)).collect()
    };
    let judged = at_once(VIEWS, |view| {
        // Drops end at the mailbox gateway (GW-9).
        let classes = CLASSES
            .into_iter()
            .filter(|class| view != View::Mailbox || *class != Class::Drop);
        let classes: Vec<Class> = classes.collect();
        let mut samples: Vec<Vec<Sample>> = classes.iter().map(|class| of(*class, view)).collect();
        mark_repeats(&mut samples);
        let judge = |(at, class): (usize, &Class)| {
            let (own, mut others) = (&samples[at], samples.clone());
            others.remove(at);
            assert_eq!(own.len(), PACKETS);
            (view, *class, told_apart(own, &others.concat()))
        };
        classes.iter().enumerate().map(judge).collect::<Vec<_>>()
    });
    for (view, class, area) in judged.into_iter().flatten() {
        println!("{view:?}, {class:?}: {area}");
        assert!(area.upper <= AUC_MAX, "{view:?}, {class:?}: {area}");
    }

    let nyms = loops_of_another_mean_delay();
    for view in VIEWS {
        let data = || seen(Class::Data).take(CONTROL);
        let honest: Vec<Sample> = data().map(|packet| sample(view, packet)).collect();
        let told = |name: &str, samples: Vec<Sample>| {
            let mut both = [samples, honest.clone()];
            mark_repeats(&mut both);
            let area = told_apart(&both[0], &both[1]);
            println!("control at {view:?}, {name}: {area}");
            assert!(area.lower > AUC_MAX, "{view:?}, {name}: {area}");
        };
        if let View::Mix(_) = view {
            let loops = nyms.iter();
            told(
                "another mean delay",
                loops.map(|packet| sample(view, packet)).collect(),
            );
        }
        if view != View::Entry {
            let next_key = |mut sample: Sample| {
                *sample.numbers.last_mut().expect("the key") += 1.0;
                sample
            };
            let replies = of(Class::Reply, view).into_iter().take(CONTROL);
            told("the next epoch's key", replies.map(next_key).collect());
        }
        let unpadded = |mut sample: Sample| {
            sample.bytes[HEADER_LEN - 64..HEADER_LEN].fill(0);
            sample
        };
        let acks = || of(Class::Ack, view).into_iter().take(CONTROL);
        told("less padding", acks().map(unpadded).collect());
        let mut repeating: Vec<Sample> = acks().collect();
        let alpha = if view == View::Entry { 4..36 } else { 0..32 };
        for pair in repeating.chunks_exact_mut(2) {
            let first = pair[0].bytes[alpha.clone()].to_vec();
            pair[1].bytes[alpha.clone()].copy_from_slice(&first);
        }
        told("one α for two", repeating);
        if view == View::Entry {
            // The second byte of a slot is the frame's fourth.
            for (name, byte, value) in [("another kind", 0, 2), ("a slot", 3, 1)] {
                let marked = acks().map(|mut sample| {
                    assert_ne!(core::mem::replace(&mut sample.bytes[byte], value), value);
                    sample
                });
                told(name, marked.collect());
            }
        }
    }
}
