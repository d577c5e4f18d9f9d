//! Whom a client takes for a correspondent, and in which order it tells them of a move.
//!
//! | test      | rule                                                                             |
//! |-----------|----------------------------------------------------------------------------------|
//! | unseen    | CLI-41: packets of which no message comes make no correspondent; the control: messages do |
//! | fair      | MSG-25: whom the owner wrote to first; of others nobody twice before all once    |

mod client_net;

use core::time::Duration;

use client_net::{Net, body, consensus, gateway_id, own_family, params, rates, secs};
use proto::{
    MailboxId,
    address::Address,
    calendar::Epoch,
    client::{
        Identity, Input, MessageId, Return, State,
        content::{Content, Fragment, ReturnPart},
        founding, fountain,
    },
};
use sphinx::Hop;

/// Clients that send so often, and do not acknowledge.
fn net(seed: u8, payload_hz: f64) -> Net {
    let params = params(rates(payload_hz, 0.5, 40.0), 120);
    let (consensus, secrets) = consensus(params, 3, 6, own_family);
    let mut net = Net::with(seed, consensus, secrets, 2);
    for peer in &mut net.peers {
        peer.config.entry = Some(gateway_id(5));
        peer.config.limits.contacts_max = 64;
        peer.records.extend(founding(&peer.identity));
    }
    net
}

fn pass(net: &mut Net, span_s: u64) {
    net.run(net.now.after(Duration::from_secs(span_s)), |_| false);
}

/// Block `block` of a message of `length` bytes, whose last one is in it alone, that names another as
/// its sender: all in one packet.
fn forge(net: &mut Net, id: u8, length: u64, block: u32) -> MailboxId {
    let who = Identity::generate(&mut net.rng, gateway_id(4)).address();
    let part = ReturnPart::Address(who).to_bytes();
    let fragment = Fragment {
        message: MessageId([id; 16]),
        length,
        block,
        esi: 0,
        epoch: Epoch(0),
        return_len: u16::try_from(part.len()).expect("short"),
        symbol: fountain::source_symbol([&part, &[0]], 0),
    };
    let to = net.peers[0].identity.address();
    put(net, to, &Content::Fragment(fragment));
    who.mailbox
}

fn put(net: &mut Net, to: Address, content: &Content) {
    let hop = Hop {
        address: to.mailbox.0,
        key: to.key,
        delay_ns: 0,
    };
    let packet = sphinx::build(&mut net.rng, &[hop], [0; 32], [0; 16], &content.to_bytes());
    net.inject(0, packet);
}

fn moves(net: &mut Net) {
    let to = Some(gateway_id(3));
    net.input(0, Input::Move { ticket: 99, to });
    let limit = net.now.after(Duration::from_secs(5));
    assert!(net.run(limit, |net| !net.peers[0].addressed.is_empty()));
}

fn acquaint(net: &mut Net, from: usize, to: usize) {
    net.run(secs(1.0), |_| false);
    net.send(from, 1, to, body(5, 1), Return::Address);
    let acked = |net: &Net| net.states(from, 1).contains(&State::Acked);
    assert!(net.run(secs(200.0), acked));
}

/// CLI-41: the packets of messages that never become whole drive no correspondent out, and name
/// nobody who is told of a move. The control: messages that the application gets do.
#[test]
fn what_no_application_sees_makes_no_correspondent() {
    let (whole, share) = (1, fountain::SHARE_LEN as u64);
    for (length, block, contacts) in [(share + 1, 1, 1), (whole, 0, 64)] {
        let mut net = net(50, 5.0);
        acquaint(&mut net, 1, 0);
        for id in 0..70 {
            forge(&mut net, id, length, block);
        }
        pass(&mut net, 20);
        let seen = if length == whole { 71 } else { 1 };
        assert_eq!(net.bodies(0).len(), seen);
        assert_eq!(net.client(0).held().contacts, contacts);
        moves(&mut net);
        let untold = net.client(0).moving().untold;
        assert_eq!(untold, contacts);
        pass(&mut net, 40);
        if length != whole {
            assert_eq!(
                (net.client(0).moving().untold, net.peers[1].relocated.len()),
                (0, 1)
            );
        }
    }
}

/// MSG-25: whom the owner wrote to is told first; of the others no one hears again before everybody
/// has heard.
#[test]
fn nobody_is_told_twice_before_all_are_told_once() {
    let mut net = net(51, 0.5);
    net.peers[0].config.acks = false; // they would take the slots
    acquaint(&mut net, 0, 1);
    net.links(1, false); // no loops of its own go to its mailbox
    let ours = net.peers[1].identity.mailbox();
    let forged: Vec<MailboxId> = (0..40).map(|id| forge(&mut net, id, 1, 0)).collect();
    pass(&mut net, 20);
    assert_eq!(net.client(0).held().contacts, 41);
    moves(&mut net);
    net.tap = Some(Vec::new());
    pass(&mut net, 200);
    let came = net.tap.take().expect("it is on");
    let known = came.iter().map(|(mailbox, _)| *mailbox);
    let known: Vec<MailboxId> = known
        .filter(|at| *at == ours || forged.contains(at))
        .collect();
    assert_eq!(known.first(), Some(&ours));
    let others: Vec<MailboxId> = known.into_iter().filter(|at| *at != ours).collect();
    assert!(others.len() > 60, "some of them twice");
    for who in &forged {
        let times = others[..40].iter().filter(|at| *at == who).count();
        assert_eq!(times, 1, "of {} notices", others.len());
    }
}
