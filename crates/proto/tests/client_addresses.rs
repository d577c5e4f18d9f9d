//! One address for each correspondent: made, told apart, revoked, and all of it after a crash.
//!
//! | test              | rule                                                                     |
//! |-------------------|--------------------------------------------------------------------------|
//! | messages come to  | CLI-31: to the address they were sent to, and are acked                   |
//! | revoked           | CLI-32: nothing comes of what is sent there, now or after a restart       |
//! | no secret is left | CLI-32: in the records, which are all that a client is made from again    |
//! | what is under way | CLI-32: acks that wait, messages that named the address                   |
//! | durable first     | CLI-31: nobody hears of an address that a crash could forget              |
//! | nothing in common | CLI-33: what two addresses, and messages that carry them, say             |
//! | refusals          | CLI-31, CLI-32: each with its reason                                      |
//! | short links       | CLI-31: each address is opened, though no link lives for two ticks        |
//! | full links        | CLI-13: a link that takes no frame for a while loses no opening          |
//! | loops             | CLI-6: another address's packets make no loop look lost                   |

mod client_net;

use core::time::Duration;
use std::collections::BTreeMap;

use client_net::{Net, START_S, body, params, rates, secs};
use proto::{
    Machine, Time,
    address::Address,
    calendar::{Calendar, Epoch, Utc},
    client::{
        ADDRESSES_MAX, AddressError, Client, ClientDrop, ClientEvent, Failure, Input, MessageId,
        Return, State, Target, addresses_of,
        content::{Content, Fragment, ReturnPart},
        founding, fountain,
    },
    wire::{Frame, field_of},
};
use sphinx::{Hop, PACKET_LEN};

const HOUR: u32 = 3600;

fn net(seed: u8) -> Net {
    let mut net = Net::new(seed, params(rates(5.0, 0.5, 20.0), HOUR), 2);
    net.run(secs(1.0), |_| false);
    net
}

/// Makes an address of `client`, and waits until it is durable.
fn make(net: &mut Net, client: usize, label: &str) -> (u16, Address) {
    let ticket = net.peers[client].addressed.len() as u64;
    let label = label.to_owned();
    net.input(client, Input::NewAddress { ticket, label });
    let limit = net.now.after(Duration::from_secs(5));
    assert!(
        net.run(limit, |net| net.peers[client].addressed.len() as u64
            > ticket)
    );
    let (_, made) = net.peers[client].addressed[usize::try_from(ticket).expect("few")];
    let slot = made.expect("it is made");
    let own = net.client(client).addresses().1;
    let own = own
        .iter()
        .find(|own| own.slot == slot)
        .expect("it is listed");
    (slot, own.address)
}

fn revoke(net: &mut Net, client: usize, label: &str) -> Option<Result<u16, AddressError>> {
    let before = net.peers[client].addressed.len();
    let label = label.to_owned();
    net.input(client, Input::Revoke { ticket: 0, label });
    let limit = net.now.after(Duration::from_secs(5));
    net.run(limit, |net| net.peers[client].addressed.len() > before);
    Some(net.peers[client].addressed.get(before)?.1)
}

fn send(net: &mut Net, from: usize, ticket: u64, to: Address, body: Vec<u8>, reply: Return) {
    let to = Target::Address(to);
    let send = Input::Send {
        ticket,
        to,
        body,
        reply,
    };
    net.input(from, send);
}

fn acked(net: &Net, client: usize, ticket: u64) -> bool {
    net.states(client, ticket).contains(&State::Acked)
}

/// CLI-31: each message comes to the address that it was sent to, and says so; a crash forgets
/// none of them.
#[test]
fn messages_come_to_the_address_they_were_sent_to() {
    let mut net = net(30);
    let main = net.client(1).address();
    let (bob, to_bob) = make(&mut net, 1, "bob");
    let (carol, to_carol) = make(&mut net, 1, "carol");
    for restart in [false, true] {
        if restart {
            net.crash(1, Duration::ZERO);
            net.run(net.now.after(Duration::from_secs(1)), |_| false);
            let labels = net.client(1).addresses().1;
            let labels: Vec<&str> = labels.iter().map(|own| &*own.label).collect();
            assert_eq!(labels, ["main", "bob", "carol"]);
        }
        for (i, to, slot) in [(0, main, 0), (1, to_bob, bob), (2, to_carol, carol)] {
            let ticket = i + 10 * u64::from(restart);
            let text = body(3000, u8::try_from(ticket).expect("small"));
            send(&mut net, 0, ticket, to, text.clone(), Return::Address);
            let limit = net.now.after(Duration::from_secs(120));
            assert!(net.run(limit, |net| acked(net, 0, ticket)), "{ticket}");
            let taken = net.peers[1].taken.values();
            let slots: Vec<u16> = taken.filter(|d| d.body == text).map(|d| d.slot).collect();
            assert_eq!(slots, [slot]);
        }
    }
    assert_eq!(net.open_slots(1), [0, bob, carol]);
    net.run(net.now.after(Duration::from_secs(5)), |_| false);
    for to in [main, to_bob, to_carol] {
        assert!(net.waiting_in(to.mailbox) < 3, "cursors of every slot");
    }
}

/// CLI-32: of what is sent to a revoked address nothing comes, not even an ack, and its mailbox is
/// emptied while the link lasts; the others go on. After a restart it is not opened any more.
#[test]
fn nothing_comes_of_a_message_to_a_revoked_address() {
    let mut net = net(31);
    let (bob, to_bob) = make(&mut net, 1, "bob");
    let (_, to_carol) = make(&mut net, 1, "carol");
    send(&mut net, 0, 1, to_bob, body(10, 1), Return::Address);
    assert!(net.run(secs(60.0), |net| acked(net, 0, 1)), "the control");
    assert_eq!(revoke(&mut net, 1, "bob"), Some(Ok(bob)));
    for (restart, ticket) in [(false, 2), (true, 3)] {
        if restart {
            net.crash(1, Duration::ZERO);
        }
        send(&mut net, 0, ticket, to_bob, body(10, 2), Return::Address);
        send(
            &mut net,
            0,
            ticket + 10,
            to_carol,
            body(10, 3),
            Return::Address,
        );
        net.run(net.now.after(Duration::from_secs(120)), |_| false);
        assert!(!acked(&net, 0, ticket) && acked(&net, 0, ticket + 10));
        let emptied = net.waiting_in(to_bob.mailbox) == 0;
        assert_eq!(emptied, !restart, "confirmed unread until the link ended");
    }
    assert!(!net.bodies(1).contains(&body(10, 2)));
    assert!(net.count(1, ClientEvent::Dropped(ClientDrop::Revoked)) > 0);
    assert!(!net.open_slots(1).contains(&bob));
    let erased = net.peers[1]
        .records
        .get(&[b"a", &bob.to_be_bytes()[..]].concat());
    assert_eq!(erased, Some(&Vec::new()), "its secrets are gone");
    // Its number is not used again, also after a restart.
    let (next, _) = make(&mut net, 1, "bob");
    assert!(next > bob + 1);
}

/// CLI-32: the first address can be revoked like any other; loops come to the next one.
#[test]
fn the_first_address_is_revoked_like_any_other() {
    let mut net = net(32);
    let main = net.client(1).address();
    assert_eq!(revoke(&mut net, 1, "main"), Some(Err(AddressError::Last)));
    let (slot, other) = make(&mut net, 1, "other");
    let epoch = net.client(1).epoch(net.now);
    assert_eq!(revoke(&mut net, 1, "main"), Some(Ok(0)));
    assert_eq!(net.client(1).address(), other);
    net.run(net.now.after(Duration::from_secs(60)), |_| false);
    let returned = net.client(1).loops().1;
    net.crash(1, Duration::ZERO);
    net.run(net.now.after(Duration::from_secs(60)), |_| false);
    assert!(returned > 0 && net.client(1).loops().1 > 0);
    assert_eq!(
        (net.client(1).address(), net.open_slots(1)),
        (other, vec![slot])
    );
    assert_eq!(net.client(1).epoch(net.now), epoch, "CLI-12: the same draw");
    send(&mut net, 0, 1, main, body(10, 1), Return::Address);
    net.run(net.now.after(Duration::from_secs(60)), |_| false);
    assert!(!acked(&net, 0, 1));
}

/// CLI-32: of a revoked address, the first one too, no record holds a secret; those records alone
/// make the client again. The control: before, they held it.
#[test]
fn no_record_holds_the_secrets_of_a_revoked_address() {
    let mut net = net(36);
    let first = net.peers[1].identity.clone();
    let founding: BTreeMap<_, _> = founding(&first).into_iter().collect();
    net.peers[1].records.extend(founding);
    net.crash(1, Duration::ZERO);
    net.run(net.now.after(Duration::from_secs(1)), |_| false);
    let (slot, other) = make(&mut net, 1, "other");
    let secrets = first.to_bytes();
    let holds = |net: &Net| {
        let mut values = net.peers[1].records.values();
        values.any(|value| {
            let mut parts = value.windows(32);
            parts.any(|part| part == &secrets[1..33] || part == &secrets[33..65])
        })
    };
    assert!(holds(&net));
    let epoch = net.client(1).epoch(net.now);
    assert_eq!(revoke(&mut net, 1, "main"), Some(Ok(0)));
    assert!(!holds(&net));
    let records = net.peers[1].records.clone();
    let all: Vec<_> = records.clone().into_iter().collect();
    let own = addresses_of(&all).expect("it has records of addresses");
    assert_eq!((own[0].slot, own[0].address, own.len()), (slot, other, 1));
    let again = Client::new(client_net::config(), [1; 32], None, records).expect("its own");
    assert_eq!(again.address(), other);
    let calendar = Input::Calendar(Calendar {
        at: Time::ZERO,
        utc: Utc::from_secs(START_S),
    });
    let (mut again, now) = (again, net.now);
    again.handle(now, calendar);
    again.handle(now, Input::Consensus(net.consensus.clone()));
    assert_eq!(again.epoch(now), epoch, "CLI-12");
    assert!(Client::new(client_net::config(), [1; 32], None, []).is_err());
}

/// CLI-32: acks of what came to a revoked address are not sent, whether they wait for a slot or for
/// the store; messages that named it for their acks end, and say why. The control: those of the
/// other address go on.
#[test]
fn what_waits_on_a_revoked_address_ends() {
    let mut net = Net::new(37, params(rates(0.001, 0.0, 20.0), HOUR), 2);
    net.run(secs(1.0), |_| false);
    let (_, to_bob) = make(&mut net, 1, "bob");
    let (carol, to_carol) = make(&mut net, 1, "carol");
    net.run(net.now.after(Duration::from_secs(5)), |_| false); // both are open
    let part = ReturnPart::Address(net.client(0).address());
    let block = [part.to_bytes(), vec![1; 10]].concat();
    let put = |net: &mut Net, to: &Address, message: u8| {
        let content = Content::Fragment(Fragment {
            message: MessageId([message; 16]),
            length: 10,
            block: 0,
            esi: 0,
            epoch: Epoch(0),
            return_len: 97,
            symbol: fountain::source_symbol([&block, &[]], 0),
        });
        let hop = Hop {
            address: to.mailbox.0,
            key: to.key,
            delay_ns: 0,
        };
        let bytes = content.to_bytes();
        let packet = sphinx::build(&mut net.rng, &[hop], [0; 32], [0; 16], &bytes);
        net.inject_at(to.mailbox, packet);
        net.run(net.now.after(Duration::from_secs(4)), |_| false);
    };
    put(&mut net, &to_bob, 1);
    put(&mut net, &to_carol, 2);
    assert_eq!(net.client(1).held().acks, 2);
    let home = net.client(0).address();
    let own = net.client(1).addresses().1;
    for (ticket, own) in (10..).zip(&own) {
        send(&mut net, 1, ticket, home, body(5, 1), Return::At(own.slot));
    }
    net.run(net.now.after(Duration::from_secs(1)), |_| false);
    // The store is slow: one more has come and is not acked yet when bob goes.
    net.store_s = 20.0;
    put(&mut net, &to_bob, 3);
    let label = "bob".to_owned();
    net.input(1, Input::Revoke { ticket: 1, label });
    assert_eq!(net.client(1).held().acks, 1, "carol's");
    net.run(net.now.after(Duration::from_secs(60)), |_| false);
    assert!(net.client(1).held().acks <= 1);
    let failed = |ticket| {
        let last = net.states(1, ticket).last().copied();
        last == Some(State::Failed(Failure::Revoked))
    };
    assert_eq!([failed(10), failed(11), failed(12)], [false, true, false]);
    assert_eq!(net.client(1).held().outgoing.0, 2);
    assert!(
        net.client(1)
            .addresses()
            .1
            .iter()
            .any(|own| own.slot == carol)
    );
}

/// CLI-31: an address is neither listed nor opened nor put on a message before it is durable: a
/// crash could forget it.
#[test]
fn an_address_is_told_when_it_is_durable() {
    let mut net = net(38);
    net.store_s = 1e6;
    let label = "bob".to_owned();
    net.input(1, Input::NewAddress { ticket: 1, label });
    net.run(net.now.after(Duration::from_secs(30)), |_| false);
    let (version, own) = net.client(1).addresses();
    assert_eq!((own.len(), net.open_slots(1)), (1, vec![0]));
    let home = net.client(0).address();
    send(&mut net, 1, 2, home, vec![], Return::At(1));
    assert_eq!(net.states(1, 2), [State::Failed(Failure::NoAddress)]);
    // Nor after a crash; the control: once it is durable, all of it.
    net.store_s = 0.01;
    net.crash(1, Duration::ZERO);
    net.run(net.now.after(Duration::from_secs(1)), |_| false);
    assert_eq!(net.client(1).addresses().1.len(), 1);
    let (slot, _) = make(&mut net, 1, "bob");
    net.run(net.now.after(Duration::from_secs(3)), |_| false);
    assert_eq!(net.open_slots(1), [0, slot]);
    assert!(net.client(1).addresses().0 > version);
}

/// CLI-33: two addresses of a client share their gateway and nothing else, and a message carries
/// the one that its sender named.
#[test]
fn two_addresses_have_nothing_in_common_but_their_gateway() {
    let mut net = net(33);
    let main = net.client(1).address();
    let (bob, to_bob) = make(&mut net, 1, "bob");
    assert_eq!(main.gateway, to_bob.gateway);
    let (a, b) = (main.to_bytes(), to_bob.to_bytes());
    let equal = a[32..].iter().zip(&b[32..]).filter(|(a, b)| a == b).count();
    assert!(equal < 8, "64 random bytes agree in {equal}");
    let home = net.client(0).address();
    send(&mut net, 1, 1, home, body(5, 1), Return::At(bob));
    assert!(net.run(secs(60.0), |net| acked(net, 1, 1)));
    let token = net.peers[0].taken.values().next().and_then(|d| d.reply);
    let to = Target::Reply(token.expect("it brought an address"));
    let send = Input::Send {
        ticket: 2,
        to,
        body: body(5, 2),
        reply: Return::None,
    };
    net.input(0, send);
    assert!(net.run(secs(120.0), |net| net.peers[1].taken.len() == 1));
    assert_eq!(
        net.peers[1].taken.values().next().map(|d| d.slot),
        Some(bob)
    );
}

/// CLI-31, CLI-32, CLI-28
#[test]
fn what_is_refused_says_why() {
    let mut net = net(34);
    let (slot, _) = make(&mut net, 1, "bob");
    let refused = |net: &mut Net, label: &str| {
        let label = label.to_owned();
        net.input(1, Input::NewAddress { ticket: 9, label });
        net.peers[1].addressed.pop().expect("refused at once").1
    };
    assert_eq!(refused(&mut net, "bob"), Err(AddressError::Taken));
    assert_eq!(refused(&mut net, "main"), Err(AddressError::Taken));
    assert_eq!(refused(&mut net, ""), Err(AddressError::Label));
    assert_eq!(refused(&mut net, "a\nb"), Err(AddressError::Label));
    assert_eq!(refused(&mut net, &"x".repeat(65)), Err(AddressError::Label));
    assert_eq!(
        revoke(&mut net, 1, "nobody"),
        Some(Err(AddressError::Unknown))
    );
    for i in 2..ADDRESSES_MAX {
        make(&mut net, 1, &i.to_string());
    }
    assert_eq!(refused(&mut net, "more"), Err(AddressError::TooMany));
    // One that was revoked has its slot on the link until a new link comes.
    assert_eq!(revoke(&mut net, 1, "bob"), Some(Ok(slot)));
    assert_eq!(refused(&mut net, "more"), Err(AddressError::TooMany));
    net.links(1, false);
    net.links(1, true);
    make(&mut net, 1, "more");
    let home = net.client(0).address();
    send(&mut net, 1, 1, home, vec![], Return::At(slot));
    assert_eq!(net.states(1, 1), [State::Failed(Failure::NoAddress)]);
    // All sixty-four are opened, one a tick.
    net.run(net.now.after(Duration::from_secs(70)), |_| false);
    assert_eq!(net.open_slots(1).len(), ADDRESSES_MAX);
}

/// CLI-31, CLI-14: the home is opened on each link, and every other address after a few, though no link lives for
/// two ticks; on one that lives, four ticks open as many as there may be.
#[test]
fn short_links_open_every_address() {
    const OTHERS: u64 = 63;
    let mut net = net(36);
    let others: Vec<Address> = (0..OTHERS)
        .map(|i| make(&mut net, 1, &i.to_string()).1)
        .collect();
    let read = |net: &Net| net.count(1, ClientEvent::Dropped(ClientDrop::Loop));
    let fill = |net: &mut Net| {
        for to in &others {
            let hop = Hop {
                address: to.mailbox.0,
                key: to.key,
                delay_ns: 0,
            };
            let content = Content::Loop([1; 16]).to_bytes();
            let packet = sphinx::build(&mut net.rng, &[hop], [0; 32], [0; 16], &content);
            net.inject_at(to.mailbox, packet);
        }
    };
    // Ticks come once a second, and the first at once.
    let link = |net: &mut Net, ticks: u64| {
        net.links(1, false);
        net.links(1, true);
        let span = Duration::from_millis(ticks * 1000 - 100);
        net.run(net.now.after(span), |_| false);
    };
    link(&mut net, 5); // registered by now (GW-9)
    fill(&mut net);
    let before = net.count(
        1,
        ClientEvent::LoopReturned {
            latency: Duration::ZERO,
        },
    );
    let links = (1..40).find(|_| {
        link(&mut net, 1);
        read(&net) == OTHERS
    });
    assert!(links.is_some(), "{} of {OTHERS}", read(&net));
    assert!(
        net.count(
            1,
            ClientEvent::LoopReturned {
                latency: Duration::ZERO
            }
        ) > before
    );
    assert_eq!(net.client(1).unopened_addresses().len(), 63 - 16);
    link(&mut net, 4);
    assert!(net.client(1).unopened_addresses().is_empty());
    fill(&mut net);
    link(&mut net, 8);
    assert_eq!(read(&net), 2 * OTHERS);
}

/// CLI-13: an opening is said once on a link; while the link takes no frame, its tick is skipped and
/// the opening waits.
#[test]
fn a_full_mailbox_link_loses_no_opening() {
    let mut net = net(37);
    let full = |mailboxes| Input::Full {
        entry: false,
        mailboxes,
    };
    let gateways = net.client(1).mailbox_gateways();
    let skipped = |net: &Net| net.count(1, ClientEvent::TickSkipped);
    net.input(1, full(gateways));
    let (slot, _) = make(&mut net, 1, "new");
    let before = skipped(&net);
    net.run(net.now.after(Duration::from_secs(10)), |_| false);
    assert_eq!(skipped(&net) - before, 10);
    assert_eq!(net.client(1).unopened_addresses(), [slot]);
    assert!(!net.open_slots(1).contains(&slot));
    net.input(1, full(vec![]));
    let limit = net.now.after(Duration::from_secs(1));
    assert!(net.run(limit, |net| net.open_slots(1).contains(&slot)));
    assert!(net.client(1).unopened_addresses().is_empty());
}

/// CLI-6: packets of another address say nothing of loops, which wait in a mailbox of their own.
#[test]
fn packets_of_another_address_lose_no_loop() {
    let mut net = net(35);
    let (other, _) = make(&mut net, 1, "other");
    net.loss = 1.0;
    net.run(net.now.after(Duration::from_secs(60)), |_| false);
    let lost = |net: &Net| net.count(1, ClientEvent::LoopLost);
    let before = lost(&net);
    let stored_s = START_S + net.now.as_nanos() / 1_000_000_000 + 60;
    // Whatever the packet is, something stored after all loops under way was read.
    let frame = |slot| Frame::packet(slot, field_of(1000, stored_s), &[0; PACKET_LEN]);
    net.frame(1, frame(other));
    assert_eq!(lost(&net), before);
    net.frame(1, frame(0));
    assert!(lost(&net) > before, "the control");
}
