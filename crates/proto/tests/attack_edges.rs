//! The edge of a key epoch as clients cross it: what the keys of their packets tell, and what is lost (ATTACKS d05).
//!
//! | client | does                                                                              | its clock     |
//! |--------|-----------------------------------------------------------------------------------|---------------|
//! | 0      | asks again and again without a name, with reply blocks                             | a skew ahead  |
//! | 1      | answers on them; writes by address in between                                      | right         |
//!
//! Nodes open a packet with the keys that are open when it comes (EPO-2), by a clock that is right. Each of some networks has
//! clients of its own, who go over at instants of their own; the clients' first seconds are the last of an epoch.

mod classifier;
mod client_net;

use std::collections::BTreeSet;

use classifier::{Area, Sample, at_once, told_apart};
use client_net::{Class, Crossings, Net, consensus, own_family, params, rates, secs};
use proto::{
    Time,
    client::{ClientEvent, Input, Return, Target},
};

const NETWORKS: u8 = 12;
const EPOCH_S: u32 = 600;
/// Seconds until the edge, and until the last client has gone over.
const EDGE_S: u32 = 8;
const END_S: u32 = EDGE_S + 115;
/// How many packets after a reply its forward packet may come: a longer queue of replies would put the edge between them.
const NEAR: usize = 8;
/// Above this an observer has learned something.
const AUC_MAX: f64 = 0.52;
/// First bytes of messages.
const ASKED: u8 = 1;
const TOLD: u8 = 2;
const ANSWERED: u8 = 3;

/// A packet of client 1.
struct Sent {
    at: Time,
    reply: bool,
    /// Which key opened it.
    key: u64,
}

/// One network through the edge: what client 1 sent.
fn cross(seed: u8) -> Vec<Sent> {
    let params = params(rates(40.0, 1.0, 90.0), EPOCH_S);
    let (mut document, secrets) = consensus(params, 3, 3, own_family);
    document.valid_from_s -= u64::from(EPOCH_S - EDGE_S);
    let schedule = document.schedule();
    let mut net = Net::with(seed, document, secrets, 2);
    net.peers[0].ahead = schedule.skew();
    net.crossings = Some(Crossings::new(usize::MAX));
    let (mut ticket, mut answered) = (0, BTreeSet::new());
    for second in 1..=END_S {
        net.run(secs(f64::from(second)), |_| false);
        let mut next = || {
            ticket += 1;
            ticket
        };
        net.send(0, next(), 1, vec![ASKED; 100], Return::Surbs(40));
        net.send(1, next(), 0, vec![TOLD; 9_000], Return::None);
        let taken = net.peers[1].taken.values();
        let tokens = taken.filter_map(|delivery| {
            let fresh = answered.insert(delivery.message);
            delivery.reply.filter(|_| fresh)
        });
        for token in tokens.collect::<Vec<_>>() {
            let send = Input::Send {
                ticket: next(),
                to: Target::Reply(token),
                body: vec![ANSWERED; 16 * 1_900],
                reply: Return::None,
            };
            net.input(1, send);
        }
    }
    net.run(secs(f64::from(END_S) + 30.0), |_| false);

    // Nothing is lost.
    assert_eq!(net.unopened, 0, "every key was open");
    for peer in &net.peers {
        let dropped = peer
            .events
            .keys()
            .find(|event| matches!(event, ClientEvent::Dropped(_)));
        assert_eq!(dropped, None);
    }
    let of = |kind: u8| net.bodies(0).iter().filter(|body| body[0] == kind).count();
    assert_eq!(of(TOLD), END_S as usize);
    assert!(of(ANSWERED) > END_S as usize / 2, "{}", of(ANSWERED));

    let all = net.crossings.take().expect("it was given").seen;
    let own = all
        .into_values()
        .flatten()
        .filter(|packet| packet.client == 1);
    let mut sent: Vec<Sent> = own
        .map(|packet| Sent {
            at: packet.at,
            reply: packet.class == Class::Reply,
            key: packet.hops[0].key as u64,
        })
        .collect();
    sent.sort_by_key(|packet| packet.at);
    let edge = secs(f64::from(EDGE_S));
    sent.retain(|packet| packet.at > edge);
    sent
}

/// What a first mix and an entry gateway have together: under which key a packet is, and whether the same client's packet
/// before and the one after are under another. Each reply, and the next forward packet soon after it that is not taken, if
/// there is one: how many there are of each kind, before and after the edge, is not what the key tells.
fn samples(sent: &[Sent], key: impl Fn(&Sent) -> u64) -> [Vec<Sample>; 2] {
    let of = |at: usize| {
        let [before, own, after] = [at - 1, at, at + 1].map(|at| key(&sent[at]) as f32);
        let numbers = vec![own, own - before, after - own];
        let bytes = Vec::new();
        Sample { numbers, bytes }
    };
    let (mut replies, mut others, mut next) = (Vec::new(), Vec::new(), 1);
    for at in 1..sent.len() - 1 {
        if sent[at].reply {
            next = next.max(at + 1);
            let soon = next..(at + NEAR).min(sent.len() - 1);
            let forward = soon.into_iter().find(|at| !sent[*at].reply);
            let Some(forward) = forward else { continue };
            next = forward + 1;
            replies.push(of(at));
            others.push(of(forward));
        }
    }
    [replies, others]
}

/// d05, EPO-2, EPO-3, CLI-12, CLI-20: through the edge nothing is lost, with clocks a skew apart; forward packets and
/// replies go over at one instant, and no classifier tells them apart by their keys. The control: reply blocks
/// that are used on after their user went over.
#[test]
fn attack_d05_replies_and_forward_packets_use_one_key() {
    let networks: Vec<Vec<Sent>> = at_once(1..=NETWORKS, cross);
    for sent in &networks {
        let old = sent.iter().rposition(|packet| packet.key == 0);
        let (old, new) = sent.split_at(old.map_or(0, |at| at + 1));
        for part in [old, new] {
            assert!(
                part.iter().all(|packet| packet.key == part[0].key),
                "one instant"
            );
            let replies = part.iter().filter(|packet| packet.reply).count();
            assert!(
                replies > 20 && part.len() - replies > 20,
                "{replies} of {}",
                part.len()
            );
        }
    }
    let judge = |key: &dyn Fn(&Sent) -> u64| -> (Area, usize) {
        let [mut replies, mut others] = [Vec::new(), Vec::new()];
        for sent in &networks {
            let [of_replies, of_others] = samples(sent, key);
            replies.extend(of_replies);
            others.extend(of_others);
        }
        (told_apart(&replies, &others), replies.len())
    };
    let (area, count) = judge(&|packet| packet.key);
    println!("by their keys: {area}, {count} of each");
    assert!(count >= 10_000, "{count}");
    assert!(area.upper <= AUC_MAX, "{area}");
    let kept = |packet: &Sent| if packet.reply { 0 } else { packet.key };
    let (area, _) = judge(&kept);
    println!("control: {area}");
    assert!(area.lower > AUC_MAX, "control: {area}");
}
