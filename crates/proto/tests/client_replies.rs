//! Anonymous senders: answers and acks on reply blocks, probes, and what can't be answered.

mod client_net;

use core::time::Duration;

use client_net::{Net, body, params, rates, secs};
use proto::client::{
    ClientDrop, ClientEvent, Failure, Input, RESERVE, ReplyToken, Return, State, Target,
};

fn acked(net: &Net, client: usize, ticket: u64) -> bool {
    net.states(client, ticket).contains(&State::Acked)
}

const HOUR: u32 = 3600;

/// The token of a message that `client` took.
fn token(net: &Net, client: usize) -> ReplyToken {
    let delivery = net.peers[client]
        .taken
        .values()
        .next()
        .expect("it took one");
    delivery.reply.expect("it brought a return")
}

fn reply(net: &mut Net, from: usize, ticket: u64, body: Vec<u8>, reply: Return) {
    let to = Target::Reply(token(net, from));
    let send = Input::Send {
        ticket,
        to,
        body,
        reply,
    };
    net.input(from, send);
}

/// CLI-18, CLI-20: a reply on reply blocks reaches a sender whose address stays unknown, and its
/// message's ack came the same way. Both ends restart in between.
#[test]
fn an_anonymous_sender_gets_its_ack_and_an_answer() {
    let mut net = Net::new(10, params(rates(5.0, 0.1, 20.0), HOUR), 2);
    net.run(secs(1.0), |_| false);
    net.send(0, 1, 1, body(100, 1), Return::Surbs(8));
    assert!(net.run(secs(60.0), |net| acked(net, 0, 1)));
    net.crash(0, Duration::ZERO);
    net.crash(1, Duration::ZERO);
    net.run(secs(70.0), |_| false);
    let held = net.client(1).held().returns;
    assert_eq!(held, (1, 8 + 4 - 1), "one was used for the ack");
    reply(&mut net, 1, 2, body(3000, 5), Return::Address);
    assert!(net.run(secs(120.0), |net| acked(net, 1, 2)));
    assert_eq!(net.bodies(0), [body(3000, 5)]);
    // And an answer to the answer, to an address that only the token knows.
    reply(&mut net, 0, 3, body(10, 6), Return::None);
    assert!(net.run(secs(180.0), |net| net.peers[1].taken.len() == 2));
}

/// CLI-25: what can't be answered fails, and says why.
#[test]
fn replies_that_cannot_be_sent_say_why() {
    let mut net = Net::new(11, params(rates(5.0, 0.1, 20.0), 600), 2);
    net.run(secs(1.0), |_| false);
    let failure = |net: &Net, ticket| match net.states(1, ticket)[..] {
        [State::Failed(why)] => Some(why),
        _ => None,
    };
    let send = Input::Send {
        ticket: 1,
        to: Target::Reply(ReplyToken::from_bytes([1; 16])),
        body: vec![0; 10],
        reply: Return::None,
    };
    net.input(1, send);
    assert_eq!(failure(&net, 1), Some(Failure::NothingToReplyTo));
    net.send(0, 1, 1, body(100, 1), Return::Surbs(2));
    net.run(secs(60.0), |net| acked(net, 0, 1));
    // In the next epoch the reply blocks are dead.
    net.run(secs(800.0), |_| false);
    reply(&mut net, 1, 3, body(10, 1), Return::None);
    assert_eq!(failure(&net, 3), Some(Failure::SurbsExpired));
    assert_eq!(net.client(1).held().returns.1, 0);
    net.send(1, 4, 0, vec![0; (128 << 20) + 1], Return::None);
    assert_eq!(failure(&net, 4), Some(Failure::TooLong));
    net.send(1, 5, 0, vec![], Return::Surbs(97));
    assert_eq!(failure(&net, 5), Some(Failure::TooManySurbs));
    net.peers[1].config.limits.outgoing_max = 1;
    net.crash(1, Duration::ZERO);
    net.run(secs(801.0), |_| false);
    net.send(1, 6, 0, vec![], Return::Address);
    net.send(1, 7, 0, vec![], Return::Address);
    assert_eq!(failure(&net, 7), Some(Failure::OutboxFull));
}

/// MSG-7: the recipient is away until the reply blocks of an anonymous message are dead; a probe
/// brings fresh ones, and the ack comes after all.
#[test]
fn a_probe_brings_the_ack_of_an_anonymous_message() {
    let mut net = Net::new(12, params(rates(2.0, 0.05, 5.0), 600), 2);
    net.run(secs(1.0), |_| false);
    net.links(1, false);
    net.send(0, 1, 1, body(100, 1), Return::Surbs(1));
    net.run(secs(900.0), |_| false);
    assert_eq!(net.states(0, 1), [State::Queued, State::Sent]);
    net.links(1, true);
    assert!(net.run(secs(1300.0), |net| acked(net, 0, 1)));
    let probes = net.count(1, ClientEvent::ProbeReceived);
    assert!((1..=2).contains(&probes), "one an epoch: {probes}");
    assert_eq!(net.peers[1].taken.len(), 1);
}

/// p17, CLI-19: the second use of a reply block is a reply to nothing, after a restart too. A
/// gateway plays the reply again; the mixes' replay sets would stop anyone before it.
#[test]
fn a_second_reply_on_one_block_is_dropped() {
    let mut net = Net::new(13, params(rates(5.0, 0.1, 20.0), HOUR), 2);
    net.run(secs(1.0), |_| false);
    net.tap = Some(Vec::new());
    net.send(0, 1, 1, body(100, 1), Return::Surbs(1));
    assert!(net.run(secs(60.0), |net| acked(net, 0, 1)));
    let acks = net.count(0, ClientEvent::AckReceived);
    let mailbox = net.peers[0].identity.mailbox();
    let tapped = net.tap.take().expect("it listens").into_iter();
    let again: Vec<_> = tapped.filter(|(to, _)| *to == mailbox).collect();
    for restart in [false, true] {
        if restart {
            net.crash(0, Duration::ZERO);
        }
        for (_, packet) in &again {
            net.inject(0, packet.clone());
        }
        net.run(net.now.after(Duration::from_secs(20)), |_| false);
    }
    assert_eq!(net.count(0, ClientEvent::AckReceived), acks);
    let dropped = ClientEvent::Dropped(ClientDrop::Surb);
    assert_eq!(net.count(0, dropped), 2 * acks);
}

/// CLI-18, MSG-21, MSG-22: reply blocks are counted, absolutely: each packet of an answer and each
/// ack uses one, and none is used twice. Answers leave a reserve; one that has come down to it asks
/// for more by it, and goes on when they are there, whoever restarts meanwhile. The control: while
/// what the sender brings is taken by somebody, it does not.
#[test]
fn answers_that_run_dry_ask_for_more_and_go_on() {
    for control in [false, true] {
        let mut net = Net::new(14, params(rates(5.0, 0.1, 20.0), HOUR / 3), 2);
        net.run(secs(1.0), |_| false);
        net.send(0, 1, 1, body(100, 1), Return::Surbs(8));
        assert!(net.run(secs(60.0), |net| acked(net, 0, 1)));
        net.run(secs(65.0), |_| false);
        let held = |net: &Net| net.client(1).held().returns.1;
        assert_eq!(held(&net), 8 + 4 - 1);
        net.taken = control;
        let (mut came, mut before) = (0, held(&net));
        for ticket in 10..20 {
            reply(&mut net, 1, ticket, body(10, 3), Return::None);
            let limit = net.now.after(Duration::from_secs(90));
            let sent = |net: &Net| net.states(1, ticket).contains(&State::Sent);
            let went = net.run(limit, sent);
            if ticket < 12 {
                // A burst of four for one symbol each: down to the reserve.
                assert!(went && before - held(&net) == 4);
                before = held(&net);
            }
            came += usize::from(went);
            if ticket == 14 && !control {
                net.crash(0, Duration::ZERO);
                net.crash(1, Duration::ZERO);
                net.run(net.now.after(Duration::from_secs(1)), |_| false);
            }
        }
        assert_eq!(came, if control { 2 } else { 10 });
        net.run(net.now.after(Duration::from_secs(30)), |_| false);
        assert_eq!(net.peers[0].taken.len(), came);
        assert_eq!(net.count(0, ClientEvent::Dropped(ClientDrop::Surb)), 0);
        // The sender held some back for the answers to come.
        assert_eq!(held(&net) >= RESERVE - 1, !control, "{}", held(&net));
        if control {
            // It asked as often as it could, and says so in the end.
            reply(&mut net, 1, 99, body(10, 4), Return::None);
            assert_eq!(net.states(1, 99), [State::Failed(Failure::TooFewSurbs)]);
            net.run(secs(1800.0), |_| false);
            let last = net.states(1, 12).last().copied();
            assert_eq!(last, Some(State::Failed(Failure::SurbsExpired)));
        }
    }
}

/// CLI-25, MSG-21: an answer may be longer than what is held: it is sent as more come, with losses
/// too, within its epoch.
#[test]
fn an_answer_is_longer_than_what_is_held() {
    let mut net = Net::new(16, params(rates(5.0, 0.1, 20.0), HOUR), 2);
    net.loss = 0.03;
    net.run(secs(1.0), |_| false);
    net.send(0, 1, 1, body(100, 1), Return::Surbs(5));
    assert!(net.run(secs(200.0), |net| acked(net, 0, 1)));
    let long = body(100_000, 5);
    reply(&mut net, 1, 2, long.clone(), Return::Address);
    assert!(net.run(secs(1800.0), |net| acked(net, 1, 2)));
    assert_eq!(net.bodies(0), [long]);
    assert!(
        net.client(0).held().surbs < 8 * (5 + RESERVE),
        "what came back is forgotten"
    );
}

/// MSG-7: answers and questions for more used up every reply block, those for acks too, and nothing of
/// it arrived: with the next epoch a probe brings fresh ones, and the ack comes. (Without a next epoch
/// it does not: the control.)
#[test]
fn acks_that_ran_dry_recover_with_the_next_epoch() {
    for (until_s, comes) in [(500.0, false), (1900.0, true)] {
        let mut net = Net::new(15, params(rates(5.0, 0.05, 20.0), 600), 2);
        net.run(secs(1.0), |_| false);
        net.links(0, false);
        net.links(0, true);
        net.send(0, 1, 1, body(100, 1), Return::Surbs(1));
        assert!(net.run(secs(60.0), |net| net.peers[1].taken.len() == 1));
        // Nothing reaches the sender while the recipient uses up what it holds.
        net.loss = 1.0;
        while net.client(1).held().returns.1 > 0 {
            reply(&mut net, 1, 10, vec![], Return::None);
            net.run(net.now.after(Duration::from_secs(5)), |_| false);
        }
        assert!(!acked(&net, 0, 1) && net.now < secs(400.0));
        net.loss = 0.0;
        net.run(secs(until_s), |net| acked(net, 0, 1));
        assert_eq!(acked(&net, 0, 1), comes, "{until_s}");
        let probes = net.count(1, ClientEvent::ProbeReceived);
        assert_eq!(probes > 0, comes);
    }
}
