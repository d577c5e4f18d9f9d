//! What a correspondent can do to learn whose address is whose, or who sent him a message.
//!
//! | test                | attack                                                    | control          |
//! |---------------------|-----------------------------------------------------------|------------------|
//! | a guessed ack       | the ack of an anonymous message, to a suspected address   | by its own way   |
//! | one id, two ways    | one message id to two addresses, in every state           | to one of them   |

mod client_net;

use core::time::Duration;

use client_net::{Net, body, params, rates, secs};
use proto::{
    address::Address,
    calendar::Epoch,
    client::{
        ClientDrop, ClientEvent, Input, MessageId, Return, State, Target,
        content::{Content, Fragment, ReturnPart},
        fountain,
    },
};
use sphinx::{Hop, SURB_LEN, Surb};

const HOUR: u32 = 3600;

/// Client 0 has a second address; client 1 acknowledges nothing.
fn net(seed: u8) -> (Net, [Address; 2]) {
    let mut net = Net::new(seed, params(rates(1.0, 0.0, 50.0), HOUR), 2);
    net.peers[1].config.acks = false;
    net.run(secs(1.0), |_| false);
    let label = "other".to_owned();
    net.input(0, Input::NewAddress { ticket: 0, label });
    settle(&mut net, 5);
    let own = net.client(0).addresses().1;
    let addresses = [own[0].address, own[1].address];
    (net, addresses)
}

fn settle(net: &mut Net, s: u64) {
    let until = net.now.after(Duration::from_secs(s));
    net.run(until, |_| false);
}

fn dropped(net: &Net, why: ClientDrop) -> u64 {
    net.count(0, ClientEvent::Dropped(why))
}

/// Puts a content into the mailbox of an address of client 0, as anybody can who knows it.
fn inject(net: &mut Net, to: &Address, content: &Content) {
    let hop = Hop {
        address: to.mailbox.0,
        key: to.key,
        delay_ns: 0,
    };
    let packet = sphinx::build(&mut net.rng, &[hop], [0; 32], [0; 16], &content.to_bytes());
    net.inject_at(to.mailbox, packet);
}

/// MSG-19: the recipient of an anonymous message has an address in suspicion. He keeps the ack back
/// and sends it there: were repair to stop, he would know. Nor does an ack count that comes to
/// another address than its message named. The control: to the one that it named, it does.
#[test]
fn a_guessed_ack_stops_no_repair() {
    // What the message brings, the address that the ack is sent to, whether it counts.
    for (reply, to, counts) in [
        (Return::Surbs(1), 0, false),
        (Return::Surbs(1), 1, false),
        (Return::At(1), 0, false),
        (Return::Address, 1, false),
        (Return::At(1), 1, true),
        (Return::Address, 0, true),
    ] {
        let (mut net, addresses) = net(1);
        net.send(0, 1, 1, body(100, 1), reply);
        settle(&mut net, 30);
        let message = net.peers[0].progress[0].message;
        assert_eq!(net.states(0, 1), [State::Queued, State::Sent]);
        let ack = Content::Acks {
            left: 0,
            blocks: vec![(message, 0)],
        };
        inject(&mut net, &addresses[to], &ack);
        settle(&mut net, 5);
        let before = net.count(0, ClientEvent::PayloadSent);
        settle(&mut net, 600);
        let acked = net.states(0, 1).contains(&State::Acked);
        let repaired = net.count(0, ClientEvent::PayloadSent) > before;
        assert_eq!((acked, repaired), (counts, !counts), "{reply:?} {to}");
        assert_eq!(dropped(&net, ClientDrop::Way), u64::from(!counts));
    }
}

fn fragment(length: u64, esi: u32, part: &ReturnPart) -> Fragment {
    let block = [
        part.to_bytes(),
        body(usize::try_from(length).expect("short"), 7),
    ]
    .concat();
    Fragment {
        message: MessageId([5; 16]),
        length,
        block: 0,
        esi,
        epoch: Epoch(0),
        return_len: u16::try_from(part.to_bytes().len()).expect("short"),
        symbol: fountain::source_symbol([&block, &[]], esi),
    }
}

/// MSG-20: whatever somebody did with a message id at one address of a client, the other address
/// does as if it had never seen that id. The control: the same address does not.
#[test]
fn one_id_at_two_addresses_is_two_messages() {
    for control in [false, true] {
        let (mut net, [here, there]) = net(2);
        let there = if control { here } else { there };
        let none = ReturnPart::None;
        // Begun at one, it is not completed at the other, and does not contradict it.
        inject(
            &mut net,
            &here,
            &Content::Fragment(fragment(3000, 0, &none)),
        );
        inject(
            &mut net,
            &there,
            &Content::Fragment(fragment(3001, 1, &none)),
        );
        settle(&mut net, 2);
        assert_eq!(dropped(&net, ClientDrop::Mismatch) > 0, control);
        inject(
            &mut net,
            &there,
            &Content::Fragment(fragment(3000, 1, &none)),
        );
        settle(&mut net, 2);
        let whole = net.peers[0].taken.len();
        assert_eq!(whole, usize::from(control));

        // Finished at one, it is neither a duplicate at the other nor known to a probe there.
        let (mut net, [here, there]) = self::net(3);
        let there = if control { here } else { there };
        inject(&mut net, &here, &Content::Fragment(fragment(10, 0, &none)));
        settle(&mut net, 2);
        let probe = Content::Probe {
            message: MessageId([5; 16]),
            reply: ReturnPart::Surbs {
                epoch: Epoch(0),
                surbs: vec![Surb::parse(&[1; SURB_LEN]); 2],
            },
        };
        inject(&mut net, &there, &probe);
        settle(&mut net, 2);
        assert_eq!(net.client(0).held().returns.0, usize::from(control));
        inject(&mut net, &there, &Content::Fragment(fragment(10, 0, &none)));
        settle(&mut net, 2);
        let spares = net.count(0, ClientEvent::SpareReceived);
        assert_eq!(spares, u64::from(control));
        assert_eq!(net.peers[0].taken.len(), 2 - usize::from(control));
    }
}

/// MSG-20, MSG-5: nor does the way back of the one serve the other. One id comes to two addresses,
/// each time with another address for the ack: each hears of its own, and from no packet of two. The
/// control: at one address the first way back holds for both.
#[test]
fn acks_of_one_id_at_two_addresses_go_their_own_ways() {
    for control in [false, true] {
        let (mut net, [here, there]) = net(4);
        let there = if control { here } else { there };
        let label = "second".to_owned();
        net.input(1, Input::NewAddress { ticket: 0, label });
        settle(&mut net, 5);
        let back = net.client(1).addresses().1;
        net.tap = Some(Vec::new());
        for (to, own) in [(here, &back[0]), (there, &back[1])] {
            let part = ReturnPart::Address(own.address);
            inject(&mut net, &to, &Content::Fragment(fragment(10, 0, &part)));
            settle(&mut net, 11); // an ack rests for ten seconds
        }
        settle(&mut net, 10);
        let tapped = net.tap.take().expect("it listens");
        let acks = back.iter().map(|own| {
            let of = tapped.iter().filter(|(to, _)| *to == own.address.mailbox);
            of.count()
        });
        let acks: Vec<usize> = acks.collect();
        assert_eq!(acks, if control { [2, 0] } else { [1, 1] });
    }
}

/// MSG-20: answers to one message are told from those to another by the reply blocks that they come
/// by, whatever id they have; and an application answers each by a token of its own.
#[test]
fn each_message_of_one_id_has_a_token_of_its_own() {
    let (mut net, addresses) = net(5);
    let part = ReturnPart::Address(net.client(1).address());
    for to in &addresses {
        inject(&mut net, to, &Content::Fragment(fragment(10, 0, &part)));
    }
    settle(&mut net, 5);
    let taken = net.peers[0].taken.values();
    let tokens: Vec<_> = taken
        .map(|delivery| delivery.reply.expect("it has one"))
        .collect();
    assert_eq!(tokens.len(), 2);
    assert_ne!(tokens[0], tokens[1]);
    for (ticket, token) in (10..).zip(tokens) {
        let send = Input::Send {
            ticket,
            to: Target::Reply(token),
            body: body(10, 1),
            reply: Return::None,
        };
        net.input(0, send);
        settle(&mut net, 20);
        assert!(net.states(0, ticket).contains(&State::Sent));
    }
    assert_eq!(net.peers[1].taken.len(), 2);
}
