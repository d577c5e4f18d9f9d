//! A client that is restored from a backup, once or more: nothing is used twice (CLI-34).

mod client_net;

use core::{ops::Range, time::Duration};
use std::collections::BTreeMap;

use client_net::{Net, body, params, rates, secs};
use proto::{
    calendar::Epoch,
    client::{
        ClientDrop, ClientEvent, Failure, Input, MessageId, ReplyToken, Return, State, Target,
        backup,
        content::{Content, Fragment, ReturnPart},
        fountain,
    },
};
use sphinx::Hop;

const HOUR: u32 = 3600;

/// Puts symbols of a block of a message into the mailbox of client 1, as its sender would.
fn put(net: &mut Net, message: u8, whole: &[u8], block: u32, part: &ReturnPart, esis: Range<u32>) {
    let to = net.peers[1].identity.address();
    let (length, part) = (whole.len() as u64, part.to_bytes());
    let start = block as usize * fountain::SHARE_LEN;
    let share = &whole[start..start + fountain::share(length, block)];
    for esi in esis {
        let content = Content::Fragment(Fragment {
            message: MessageId([message; 16]),
            length,
            block,
            esi,
            epoch: Epoch(0),
            return_len: u16::try_from(part.len()).expect("short"),
            symbol: fountain::source_symbol([&part, share], esi),
        });
        let hop = Hop {
            address: to.mailbox.0,
            key: to.key,
            delay_ns: 0,
        };
        let bytes = content.to_bytes();
        let packet = sphinx::build(&mut net.rng, &[hop], [0; 32], [0; 16], &bytes);
        net.inject(1, packet);
    }
    net.run(net.now.after(Duration::from_secs(10)), |_| false);
}

/// CLI-34: what the sender and the mailbox gateway need not keep any more is in the backup: a block
/// that was acked of a message that is not whole, and symbols that were confirmed of another that
/// nobody repairs. The control: without those records the rest of both makes no message.
#[test]
fn what_was_confirmed_or_acked_is_in_the_backup() {
    for control in [false, true] {
        let mut net = Net::new(42, params(rates(1.0, 0.0, 200.0), HOUR), 2);
        net.run(secs(1.0), |_| false);
        let long = body(fountain::SHARE_LEN + 5000, 1);
        let short = body(20_000, 2);
        let back = ReturnPart::Address(net.client(0).address());
        put(&mut net, 1, &long, 1, &back, 0..3);
        put(&mut net, 2, &short, 0, &ReturnPart::None, 0..6);
        assert!(net.run(secs(60.0), |net| net.count(0, ClientEvent::AckReceived) > 0));
        assert_eq!((net.waiting(1), net.peers[1].taken.len()), (0, 0));
        let all: Vec<_> = net.peers[1].records.clone().into_iter().collect();
        let mut saved = backup(&all);
        saved.retain(|(key, _)| !control || !b"bf".contains(&key[0]));
        net.peers[1].records = saved.into_iter().collect();
        net.crash(1, Duration::ZERO);
        put(&mut net, 1, &long, 0, &back, 0..1000);
        put(&mut net, 2, &short, 0, &ReturnPart::None, 6..11);
        let came = net.bodies(1);
        assert_eq!(came.contains(&long), !control);
        assert_eq!(came.contains(&short), !control);
    }
}

fn acked(net: &Net, client: usize, ticket: u64) -> bool {
    net.states(client, ticket).contains(&State::Acked)
}

fn answer(net: &mut Net, ticket: u64, token: ReplyToken) {
    let send = Input::Send {
        ticket,
        to: Target::Reply(token),
        body: body(10, 7),
        reply: Return::None,
    };
    net.input(1, send);
    net.run(net.now.after(Duration::from_secs(30)), |_| false);
}

/// CLI-34: a client holds reply blocks, is backed up, uses one, and is restored, twice: it holds
/// none any more and says so. With all its records in place of the backup's it uses one again: the
/// control.
#[test]
fn a_restored_client_uses_no_reply_block_twice() {
    for whole in [false, true] {
        let mut net = Net::new(40, params(rates(5.0, 0.1, 20.0), HOUR), 2);
        net.run(secs(1.0), |_| false);
        net.send(0, 1, 1, body(100, 1), Return::Surbs(8));
        assert!(net.run(secs(60.0), |net| acked(net, 0, 1)));
        net.run(secs(65.0), |_| false);
        let all: Vec<_> = net.peers[1].records.clone().into_iter().collect();
        let saved: BTreeMap<_, _> = if whole { all } else { backup(&all) }.into_iter().collect();
        let delivery = net.peers[1].taken.values().next();
        let token = delivery.and_then(|d| d.reply).expect("it brought a return");
        answer(&mut net, 2, token);
        assert!(net.states(1, 2).contains(&State::Sent));
        let again = ClientEvent::Dropped(ClientDrop::Surb);
        assert_eq!(net.count(0, again), 0);
        for ticket in [3, 4] {
            net.peers[1].records = saved.clone();
            net.crash(1, Duration::ZERO);
            net.run(net.now.after(Duration::from_secs(2)), |_| false);
            let held = net.client(1).held();
            assert_eq!(held.returns.1 > 0, whole);
            assert_eq!(held.surbs, 0);
            answer(&mut net, ticket, token);
            let refused = [State::Failed(Failure::NothingToReplyTo)];
            assert_eq!(net.states(1, ticket) == refused, !whole);
        }
        assert_eq!(
            net.count(0, again) > 0,
            whole,
            "a second reply on one block"
        );
    }
}

/// CLI-34: addresses, what came before, and messages to addresses are restored; what waits in the
/// mailbox comes; what came before the backup does not come again.
#[test]
fn a_restored_client_is_reached_and_goes_on() {
    let mut net = Net::new(41, params(rates(5.0, 0.1, 20.0), HOUR), 2);
    net.run(secs(1.0), |_| false);
    let label = "carol".to_owned();
    net.input(1, Input::NewAddress { ticket: 0, label });
    net.send(0, 1, 1, body(3000, 1), Return::Address);
    assert!(net.run(secs(60.0), |net| acked(net, 0, 1)));
    net.run(secs(70.0), |_| false);
    // Two are on their way out: one to an address, one that no backup can hold.
    net.links(1, false);
    net.send(1, 2, 0, body(9, 2), Return::Address);
    net.send(1, 3, 0, body(9, 3), Return::Surbs(1));
    net.run(secs(75.0), |_| false);
    let all: Vec<_> = net.peers[1].records.clone().into_iter().collect();
    let saved = backup(&all);
    let kinds: Vec<char> = saved.iter().map(|(key, _)| char::from(key[0])).collect();
    assert!(kinds.contains(&'o') && kinds.contains(&'a') && kinds.contains(&'s'));
    assert!(
        !kinds.iter().any(|kind| "cruw".contains(*kind)),
        "{kinds:?}"
    );
    let own = net.client(1).addresses().1;
    // The disk is lost; somebody writes meanwhile.
    net.crash(1, Duration::from_secs(100));
    net.peers[1].records = saved.into_iter().collect();
    net.send(0, 4, 1, body(3000, 4), Return::Address);
    net.run(secs(150.0), |_| false);
    net.peers[1].online = true;
    assert!(net.run(secs(400.0), |net| acked(net, 0, 4) && acked(net, 1, 2)));
    assert_eq!(net.client(1).addresses().1, own);
    assert_eq!(net.bodies(0), [body(9, 2)]);
    // A driver that heard a delivery twice would have panicked.
    assert_eq!(net.peers[1].taken.len(), 2);
}
