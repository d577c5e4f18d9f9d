//! Messages between client machines over a tiny network: delivered once, whatever happens.

mod client_net;

use core::time::Duration;
use std::sync::Arc;

use client_net::{Net, body, params, rates, secs};
use proto::{
    NodeId,
    client::{ClientDrop, ClientEvent, Input, Return, State, Target, fountain},
    directory::Consensus,
};
use rand::RngExt as _;

fn acked(net: &Net, client: usize, ticket: u64) -> bool {
    net.states(client, ticket).contains(&State::Acked)
}

const HOUR: u32 = 3600;
const LOOP_BACK: ClientEvent = ClientEvent::LoopReturned {
    latency: Duration::ZERO,
};

/// CLI-24, MSG-5, MSG-11
#[test]
fn a_message_is_queued_sent_delivered_and_acked() {
    let mut net = Net::new(1, params(rates(5.0, 0.5, 20.0), HOUR), 2);
    net.run(secs(1.0), |_| false);
    net.send(0, 7, 1, body(100, 1), Return::Address);
    assert!(net.run(secs(60.0), |net| acked(net, 0, 7)));
    assert_eq!(net.states(0, 7), [State::Queued, State::Sent, State::Acked]);
    assert_eq!(net.bodies(1), [body(100, 1)]);
    // The first burst of one symbol is four; one ack comes back.
    assert_eq!(net.count(0, ClientEvent::PayloadSent), 4);
    assert_eq!(net.count(1, ClientEvent::PayloadSent), 1);
    net.run(secs(61.0), |_| false);
    // What the sender kept is gone, but for its entry, its cursor, and who knows its address.
    assert_eq!(net.kinds(0), ['c', 'e', 'h'].into());
}

/// MSG-15 to MSG-17, CLI-16, CLI-26: with loss, duplicates, reordering, slow stores, crashes of
/// both ends and an application that sometimes takes nothing, each message is delivered once.
#[test]
fn every_message_is_delivered_once_through_loss_and_crashes() {
    for seed in 0..3 {
        let mut net = Net::new(seed, params(rates(4.0, 0.2, 8.0), HOUR), 2);
        (net.loss, net.duplicates, net.store_s) = (0.25, 0.1, 2.0);
        net.run(secs(1.0), |_| false);
        let mut sent: [Vec<Vec<u8>>; 2] = Default::default();
        for round in 0..12u8 {
            for from in 0..2usize {
                let len = [0, 1, 1887, 1888, 9000, 40_000][usize::from(round) % 6];
                let salt = round.wrapping_mul(17) ^ u8::from(from == 1);
                let body = body(len, salt);
                // A crash before it is queued would rightly lose it: the owner was not told.
                let ticket = u64::from(round);
                net.send(from, ticket, 1 - from, body.clone(), Return::Address);
                let queued = |net: &Net| !net.states(from, ticket).is_empty();
                assert!(net.run(secs(1e5), queued));
                sent[1 - from].push(body);
            }
            pause(&mut net, 0.0..40.0);
            let victim = net.rng.random_range(0..2usize);
            let down = net.rng.random_range(0.0..20.0);
            net.peers[victim].takes = net.rng.random_bool(0.5);
            net.crash(victim, Duration::from_secs_f64(down));
            if net.rng.random_bool(0.5) {
                pause(&mut net, 0.0..5.0);
                net.links(1 - victim, false);
                pause(&mut net, 0.0..20.0);
                net.links(1 - victim, true);
            }
            pause(&mut net, 20.0..21.0);
        }
        // The faults end; everything must arrive.
        (net.loss, net.duplicates, net.store_s) = (0.0, 0.0, 0.01);
        for client in 0..2 {
            net.peers[client].takes = true;
            net.crash(client, Duration::ZERO);
        }
        pause(&mut net, 0.0..1.0);
        let all = |net: &Net| {
            let whole = |i: usize| net.peers[i].taken.len() == sent[i].len();
            let tickets = |i: usize| (0..12).all(|ticket| acked(net, i, ticket));
            whole(0) && whole(1) && tickets(0) && tickets(1)
        };
        assert!(net.run(secs(13_000.0), all), "seed {seed}");
        for (client, bodies) in sent.iter_mut().enumerate() {
            bodies.sort();
            assert_eq!(net.bodies(client), *bodies, "seed {seed}");
            assert_eq!(net.client(client).held().outgoing, (0, 0));
        }
        pause(&mut net, 60.0..61.0);
        for client in 0..2 {
            let known = ['c', 'e', 'h', 'l', 't', 's', 'p'].into();
            assert!(net.kinds(client).is_subset(&known), "seed {seed}");
        }
    }
}

fn pause(net: &mut Net, range: core::ops::Range<f64>) {
    let pause = Duration::from_secs_f64(net.rng.random_range(range));
    net.run(net.now.after(pause), |_| false);
}

/// MSG-9 to MSG-11: a megabyte is one block of some hundred symbols.
#[test]
fn a_megabyte_takes_no_more_packets_than_its_first_burst() {
    let mut net = Net::new(3, params(rates(40.0, 0.1, 80.0), HOUR), 2);
    net.loss = 0.02;
    net.run(secs(1.0), |_| false);
    let whole = body(1_000_000, 9);
    let k = fountain::symbols(whole.len() + 97);
    net.send(0, 1, 1, whole.clone(), Return::Address);
    assert!(net.run(secs(120.0), |net| acked(net, 0, 1)));
    assert_eq!(net.bodies(1), [whole]);
    let sent = net.count(0, ClientEvent::PayloadSent);
    assert!(
        sent <= u64::from(fountain::first_burst(k, 0.049)),
        "{sent} for {k}"
    );
}

/// MSG-10: a message of two blocks, each acked by itself; the first survives a crash.
#[test]
fn a_message_of_two_blocks_is_put_together() {
    let mut net = Net::new(4, params(rates(400.0, 0.1, 800.0), HOUR), 2);
    net.run(secs(1.0), |_| false);
    let whole = body(fountain::SHARE_LEN + 5000, 3);
    net.send(0, 1, 1, whole.clone(), Return::Address);
    assert!(net.run(secs(60.0), |net| net.count(1, ClientEvent::PayloadSent) > 0));
    net.crash(1, Duration::ZERO);
    assert!(net.run(secs(90.0), |net| acked(net, 0, 1)));
    assert_eq!(net.bodies(1), [whole]);
    assert!(net.count(0, ClientEvent::AckReceived) >= 2);
}

/// MSG-11, CLI-24: a sender that goes offline once the message is "sent" need not come back.
#[test]
fn sent_means_that_the_sender_may_go() {
    let mut net = Net::new(5, params(rates(20.0, 0.1, 20.0), HOUR), 2);
    net.loss = 0.049;
    net.run(secs(1.0), |_| false);
    for ticket in 0..40u8 {
        net.send(0, ticket.into(), 1, body(1000, ticket), Return::Address);
    }
    let sent = |net: &Net| (0..40).all(|t| net.states(0, t).contains(&State::Sent));
    assert!(net.run(secs(60.0), sent));
    net.crash(0, Duration::from_secs(1_000_000));
    assert!(net.run(secs(120.0), |net| net.peers[1].taken.len() == 40));
}

/// CLI-23: a short message does not wait for a long one.
#[test]
fn messages_take_turns() {
    let mut net = Net::new(6, params(rates(10.0, 0.1, 20.0), HOUR), 2);
    net.run(secs(1.0), |_| false);
    net.send(0, 1, 1, body(500_000, 1), Return::Address);
    net.run(secs(2.0), |_| false);
    net.send(0, 2, 1, body(100, 2), Return::Address);
    assert!(net.run(secs(8.0), |net| acked(net, 0, 2)));
    assert!(!net.states(0, 1).contains(&State::Sent));
}

/// MSG-13, MSG-14: while nobody answers, repair follows on a back-off that grows; then it expires.
#[test]
fn repair_backs_off_until_the_message_expires() {
    let mut net = Net::new(7, params(rates(2.0, 0.05, 5.0), 400), 2);
    net.run(secs(1.0), |_| false);
    net.crash(1, Duration::from_secs(1_000_000));
    net.send(0, 1, 1, body(100, 1), Return::Address);
    let mut sent = Vec::new();
    for minutes in 1..=25u32 {
        net.run(secs(f64::from(minutes) * 60.0), |_| false);
        sent.push(net.count(0, ClientEvent::PayloadSent));
    }
    assert!((4..=6).contains(&sent[0]), "{sent:?}");
    assert!((1..=4).contains(&(sent[24] - sent[10])), "{sent:?}");
    let expired = |net: &Net| net.states(0, 1).contains(&State::Expired);
    assert!(net.run(secs(1700.0), expired));
    assert_eq!(net.client(0).held().outgoing, (0, 0));
}

/// MSG-6: a fragment of a finished block brings its ack again, so a lost ack costs one repair.
#[test]
fn a_lost_ack_is_sent_again() {
    let mut net = Net::new(8, params(rates(5.0, 0.1, 20.0), HOUR), 2);
    net.run(secs(1.0), |_| false);
    net.send(0, 1, 1, body(100, 1), Return::Address);
    // Lose what the recipient sends until its ack is gone.
    assert!(net.run(secs(60.0), |net| !net.peers[1].taken.is_empty()));
    net.loss = 1.0;
    assert!(
        net.run(secs(60.0), |net| net.count(1, ClientEvent::PayloadSent)
            == 1)
    );
    net.loss = 0.0;
    assert!(net.run(secs(120.0), |net| acked(net, 0, 1)));
    assert!(net.count(1, ClientEvent::PayloadSent) >= 2);
    assert_eq!(net.peers[1].taken.len(), 1);
}

/// MSG-5, CLI-21: acks can be off, and without a return there is none.
#[test]
fn acks_can_be_off() {
    let mut net = Net::new(9, params(rates(5.0, 0.1, 20.0), HOUR), 2);
    net.peers[1].config.acks = false;
    net.run(secs(1.0), |_| false);
    net.send(0, 1, 1, body(100, 1), Return::Address);
    net.send(0, 2, 1, body(100, 2), Return::None);
    net.run(secs(100.0), |_| false);
    assert_eq!(net.peers[1].taken.len(), 2);
    assert_eq!(net.count(1, ClientEvent::PayloadSent), 0);
    assert_eq!(net.states(0, 1), [State::Queued, State::Sent]);
    assert_eq!(net.states(0, 2), [State::Queued, State::Sent]);
    let waiting = net.client(0).held().outgoing;
    assert_eq!(waiting, (1, 100), "one waits, one is over");
}

/// MSG-4, MSG-15: what a gateway stored and plays again later is refused: by its tag while a
/// fragment of that age would be taken, by its age from then on. No ack follows.
#[test]
fn a_gateway_that_plays_old_packets_again_achieves_nothing() {
    let mut net = Net::new(14, params(rates(1.0, 0.01, 20.0), 300), 2);
    net.run(secs(1.0), |_| false);
    net.tap = Some(Vec::new());
    net.send(0, 1, 1, body(5000, 1), Return::Address);
    assert!(net.run(secs(90.0), |net| acked(net, 0, 1)));
    let mailbox = net.peers[1].identity.mailbox();
    let tapped = net.tap.take().expect("it listens");
    let mut again = tapped.into_iter();
    let (_, packet) = again.find(|(to, _)| *to == mailbox).expect("a fragment");
    let sent = net.count(1, ClientEvent::PayloadSent);
    // Expiry is four epochs, so the age limit is the end of the sixth.
    for (at, tags) in [
        (100.0, true),
        (1000.0, true),
        (1700.0, true),
        (2000.0, false),
    ] {
        net.run(secs(at), |_| false);
        assert_eq!(net.client(1).held().tags > 0, tags, "at {at}");
        net.inject(1, packet.clone());
    }
    net.run(secs(2100.0), |_| false);
    use proto::client::ClientDrop::{Epoch, Replay};
    assert_eq!(net.count(1, ClientEvent::Dropped(Replay)), 3);
    assert_eq!(net.count(1, ClientEvent::Dropped(Epoch)), 1);
    assert_eq!(net.count(1, ClientEvent::PayloadSent), sent);
    assert_eq!(net.peers[1].taken.len(), 1);
    assert_eq!(net.client(1).held().finished, 0);
}

/// MSG-15: nor where tags were forgotten before their time, also after a restart; and a lost ack of a
/// younger message is repeated.
#[test]
fn packets_as_old_as_what_is_forgotten_bring_no_ack() {
    let mut net = Net::new(17, params(rates(1.0, 0.01, 20.0), 300), 2);
    net.peers[1].config.limits.tags_max = 6;
    net.crash(1, Duration::ZERO);
    net.run(secs(1.0), |_| false);
    net.tap = Some(Vec::new());
    net.send(0, 1, 1, body(20_000, 1), Return::Address);
    assert!(net.run(secs(90.0), |net| acked(net, 0, 1)));
    let mailbox = net.peers[1].identity.mailbox();
    let mut tapped = net.tap.take().expect("it listens");
    tapped.retain(|(to, _)| *to == mailbox);
    net.run(secs(100.0), |_| false);
    let sent = net.count(1, ClientEvent::PayloadSent);
    for at in [150.0, 200.0] {
        let spare = net.count(1, ClientEvent::SpareReceived);
        for (_, packet) in &tapped {
            net.inject(1, packet.clone());
        }
        net.run(secs(at), |_| false);
        let again = net.count(1, ClientEvent::SpareReceived);
        assert!(again > spare, "some were forgotten");
        assert_eq!(net.count(1, ClientEvent::PayloadSent), sent);
        net.crash(1, Duration::ZERO);
    }
    // In the next epoch.
    net.run(secs(400.0), |_| false);
    net.send(0, 2, 1, body(100, 2), Return::Address);
    assert!(net.run(secs(430.0), |net| net.peers[1].taken.len() == 2));
    net.loss = 1.0;
    let lost = |net: &Net| net.count(1, ClientEvent::PayloadSent) > sent;
    assert!(net.run(secs(440.0), lost));
    net.loss = 0.0;
    assert!(net.run(secs(600.0), |net| acked(net, 0, 2)));
}

/// CLI-23: messages to a gateway that the document does not have are counted and hold up no other; once it
/// has it they leave.
#[test]
fn messages_to_an_unknown_gateway_are_counted() {
    let mut net = Net::new(18, params(rates(2.0, 0.0, 5.0), 100), 3);
    net.run(secs(1.0), |_| false);
    net.send(1, 1, 0, body(100, 1), Return::Address);
    assert!(net.run(secs(60.0), |net| acked(net, 1, 1)));
    let reply = net.peers[0].taken.values().find_map(|of| of.reply);
    let whole = Arc::clone(&net.consensus);
    let mut without = Consensus::clone(&whole);
    let gone = net.peers[1].identity.gateway();
    without.nodes.retain(|node| node.id != gone);
    net.input(0, Input::Consensus(without.into()));
    net.send(0, 1, 1, body(100, 2), Return::None);
    let to = Target::Reply(reply.expect("a way back"));
    let answer = Input::Send {
        ticket: 2,
        to,
        body: body(100, 3),
        reply: Return::None,
    };
    net.input(0, answer);
    net.send(0, 3, 2, body(100, 4), Return::None);
    net.run(secs(120.0), |_| false);
    assert_eq!(net.states(0, 3), [State::Queued, State::Sent]);
    let held = net.client(0).held();
    assert_eq!((held.outgoing.0, held.stranded), (2, 2));
    net.input(0, Input::Consensus(whole));
    assert_eq!(net.client(0).held().stranded, 0);
    assert!(net.run(secs(180.0), |net| net.peers[1].taken.len() == 2));
    // An address of another network.
    let mut other = net.peers[1].identity.address();
    other.gateway = NodeId([9; 32]);
    net.send_to(0, 4, other, body(100, 5), Return::Address);
    net.run(secs(181.0), |_| false);
    assert_eq!(net.client(0).held().stranded, 1);
    net.run(secs(700.0), |_| false);
    assert_eq!(net.states(0, 4), [State::Queued, State::Expired]);
    assert_eq!(net.client(0).held().stranded, 0);
}

/// GW-32: a gateway that comes back with an empty store is read on from, and what is read is confirmed.
#[test]
fn a_client_reads_on_at_a_gateway_that_lost_its_store() {
    let mut net = Net::new(16, params(rates(5.0, 0.5, 20.0), HOUR), 2);
    net.run(secs(60.0), |_| false);
    assert!(net.count(1, LOOP_BACK) > 10);
    net.lose_mailboxes();
    net.send(0, 1, 1, body(100, 1), Return::None);
    net.run(secs(70.0), |_| false);
    assert_eq!(net.bodies(1), [body(100, 1)]);
    assert!(net.waiting(1) < 3);
    let unread = ClientEvent::Dropped(ClientDrop::Sequence);
    assert_eq!(net.count(1, unread), 0);
}

/// CLI-16: a delivery comes again after each restart until it is taken, and never after.
#[test]
fn a_delivery_comes_again_until_it_is_taken() {
    use proto::client::Input::Taken;
    let mut net = Net::new(15, params(rates(5.0, 0.1, 20.0), HOUR), 2);
    net.peers[1].takes = false;
    net.run(secs(1.0), |_| false);
    net.send(0, 1, 1, body(100, 1), Return::Address);
    assert!(net.run(secs(60.0), |net| acked(net, 0, 1)));
    let message = *net.peers[1].offered.keys().next().expect("one");
    net.peers[1].offered.clear();
    net.crash(1, Duration::ZERO);
    net.run(secs(61.0), |_| false);
    assert!(net.peers[1].offered.keys().eq([&message]));
    net.peers[1].offered.clear();
    net.input(1, Taken { message });
    net.run(secs(62.0), |_| false);
    net.crash(1, Duration::ZERO);
    net.run(secs(63.0), |_| false);
    assert!(net.peers[1].offered.is_empty());
    assert_eq!(net.client(1).held().incoming_bytes, 0);
}
