//! A client moves its mailboxes to another gateway, and its correspondents follow.
//!
//! | test               | rule                                                                    |
//! |--------------------|-------------------------------------------------------------------------|
//! | nothing is lost    | CLI-40 to CLI-43, MSG-24, MSG-25: while both write all the time         |
//! | dead gateway       | MSG-24, MSG-25: what is under way in both directions follows            |
//! | forged             | MSG-24: only the owner of both addresses is believed; the control: he is |
//! | lost acks          | MSG-25: notices repeat; repair at the new mailbox is of the old message |
//! | forgotten tag      | MSG-15, MSG-24: a notice that is played again brings no ack             |
//! | killed             | CLI-40: after each write, on either side; before it there was no move   |
//! | revoked, restored  | CLI-32, CLI-34: former mailboxes as well                                |
//! | entry link         | CLI-2: written at the same instants as without a move                   |
//! | not named          | MSG-25: what goes in another name, or none, shows nothing of a move     |
//! | no route           | MSG-25: a notice counts once its packet is built                        |
//! | not open           | CLI-44, MSG-25: of a mailbox that does not open nobody is told          |
//! | back again         | CLI-40, CLI-14: to a gateway whose link is up                           |
//! | room               | CLI-15: a former gateway takes none of the new one's                    |
//! | refusals           | CLI-40, CLI-44: each with its reason                                    |
//! | to and fro         | CLI-44: three moves until the first former mailbox is closed            |

mod client_net;

use core::time::Duration;
use std::{collections::BTreeMap, sync::Arc};

use client_net::{NETWORK, Net, body, consensus, gateway_id, own_family, params, rates, secs};
use proto::{
    MailboxId, NodeId,
    address::Address,
    calendar::Epoch,
    client::{
        AddressError, ClientDrop, ClientEvent, Identity, Input, MAILBOX_GATEWAYS_MAX, MessageId,
        Relocated, Relocation, Return, State, Target, backup, content::Content, founding,
    },
    directory::Consensus,
    wire::{Frame, Kind},
};
use sphinx::{Hop, Packet, SecretKey};

const EPOCH_S: u32 = 120;
/// How long mailboxes keep packets, and former mailboxes are read.
const EXPIRY_S: u64 = 480;

fn document() -> (Consensus, BTreeMap<NodeId, Vec<SecretKey>>) {
    let params = params(rates(5.0, 0.5, 20.0), EPOCH_S);
    consensus(params, 3, 6, own_family)
}

/// Clients with mailboxes at gateways 0, 1, …; all enter by gateway 5.
fn net(seed: u8, clients: u8) -> Net {
    let (consensus, secrets) = document();
    let mut net = Net::with(seed, consensus, secrets, clients);
    for peer in &mut net.peers {
        peer.config.entry = Some(gateway_id(5));
        peer.records.extend(founding(&peer.identity));
    }
    net.run(secs(1.0), |_| false);
    net
}

fn pass(net: &mut Net, span_s: u64) {
    net.run(net.now.after(Duration::from_secs(span_s)), |_| false);
}

fn order(net: &mut Net, client: usize, to: Option<u8>) {
    let to = to.map(gateway_id);
    net.input(client, Input::Move { ticket: 99, to });
}

/// Moves a client to this gateway, and waits until it is told so.
fn moves(net: &mut Net, client: usize, to: u8) {
    let before = net.peers[client].addressed.len();
    order(net, client, Some(to));
    let limit = net.now.after(Duration::from_secs(5));
    assert!(net.run(limit, |net| net.peers[client].addressed.len() > before));
    assert_eq!(net.peers[client].addressed[before], (99, Ok(0)));
}

fn acked(net: &Net, client: usize, ticket: u64) -> bool {
    net.states(client, ticket).contains(&State::Acked)
}

/// Client `from` writes to the first address of client `to`, and each knows the other by that.
fn acquaint(net: &mut Net, from: usize, to: usize) {
    net.send(from, 1, to, body(5, 1), Return::Address);
    let limit = net.now.after(Duration::from_secs(60));
    assert!(net.run(limit, |net| acked(net, from, 1)));
}

fn untold(net: &Net, client: usize) -> usize {
    net.client(client).moving().untold
}

/// Packets that the mailboxes got since the last look.
fn arrived(net: &mut Net, at: MailboxId) -> usize {
    let tap = net.tap.replace(Vec::new()).unwrap_or_default();
    tap.iter().filter(|(mailbox, _)| *mailbox == at).count()
}

fn send(net: &mut Net, from: usize, ticket: u64, to: Address, reply: Return) {
    net.send_to(from, ticket, to, body(5, 7), reply);
}

/// CLI-40, CLI-41, CLI-42, CLI-43, MSG-24, MSG-25: while both write all the time, one to the old
/// address, nothing is lost and nothing comes twice.
#[test]
fn nothing_is_lost_through_a_move() {
    let mut net = net(50, 2);
    net.loss = 0.02;
    let old = net.client(0).address();
    let (mut sent, mut ticket) = (Vec::new(), 0);
    for second in 0..80u8 {
        if second == 20 {
            moves(&mut net, 0, 3);
            assert_ne!(net.client(0).address(), old);
        }
        if second.is_multiple_of(4) {
            ticket += 1;
            for (from, to) in [(0, 1), (1, 0)] {
                // The correspondent goes on writing to the address that it knows.
                let text = body(3000, second ^ u8::try_from(from).expect("0 or 1"));
                net.send(from, ticket, to, text.clone(), Return::Address);
                sent.push((to, text));
            }
        }
        if second == 40 {
            assert_eq!(untold(&net, 0), 0);
            let to = net.client(0).address();
            let (slot, from) = (0, old);
            assert_eq!(net.peers[1].relocated, [Relocated { slot, from, to }]);
            assert_eq!(net.open_slots(0), [0, 1], "both gateways (CLI-42)");
            pass(&mut net, 10); // what was under way to the old one has come
            arrived(&mut net, old.mailbox);
        }
        pass(&mut net, 1);
    }
    net.loss = 0.0;
    assert!(net.run(secs(400.0), |net| {
        (1..=ticket).all(|ticket| acked(net, 0, ticket) && acked(net, 1, ticket))
    }));
    for client in 0..2 {
        let mut texts: Vec<_> = sent.iter().filter(|(to, _)| *to == client).collect();
        texts.sort();
        let texts: Vec<_> = texts.into_iter().map(|(_, text)| text.clone()).collect();
        assert_eq!(net.bodies(client), texts, "each once");
    }
    assert_eq!(arrived(&mut net, old.mailbox), 0, "nobody writes there now");
    // CLI-43: then the old mailbox is closed, and its secrets are gone.
    let secrets = net.peers[0].identity.to_bytes();
    let holds = |net: &Net| {
        let mut values = net.peers[0].records.values();
        values.any(|value| value.windows(64).any(|part| part == &secrets[1..65]))
    };
    assert!(holds(&net), "the control");
    net.run(secs(EXPIRY_S as f64 + 120.0), |_| false);
    assert_eq!(net.open_slots(0), [1]);
    assert!(!holds(&net) && net.client(0).mailbox_gateways() == [gateway_id(3)]);
    net.crash(0, Duration::ZERO);
    net.send(1, 1000, 0, body(9, 9), Return::Address);
    assert!(net.run(secs(900.0), |net| acked(net, 1, 1000)));
}

/// MSG-24, MSG-25: the old gateway is gone, with what it stored. What was under way when it died
/// follows: messages to the old address, and acks to it.
#[test]
fn messages_follow_from_a_dead_gateway() {
    let mut net = net(51, 2);
    acquaint(&mut net, 1, 0);
    net.dead.insert(gateway_id(0));
    net.send(1, 2, 0, body(3000, 2), Return::Address);
    net.send(0, 3, 1, body(3000, 3), Return::Address);
    pass(&mut net, 40);
    assert!(!acked(&net, 1, 2) && !acked(&net, 0, 3), "the control");
    moves(&mut net, 0, 3);
    assert!(net.run(secs(400.0), |net| acked(net, 1, 2) && acked(net, 0, 3)));
    assert_eq!(net.bodies(0), [body(5, 1), body(3000, 2)]);
    assert_eq!(net.bodies(1), [body(3000, 3)]);
    // An answer to what came before goes there too.
    let first = net.peers[1].taken.values().next().expect("one");
    let to = Target::Reply(first.reply.expect("it brought an address"));
    let answer = Input::Send {
        ticket: 4,
        to,
        body: body(9, 4),
        reply: Return::Address,
    };
    net.input(1, answer);
    assert!(net.run(secs(460.0), |net| acked(net, 1, 4)));
}

fn relocation(old: &Identity, new: &Identity) -> Relocation {
    let id = (MessageId([9; 16]), Epoch(0));
    Relocation::sign(&NETWORK, id, 1 << 40, old, new)
}

/// A packet for one of a mailbox' owner.
fn packet_for(net: &mut Net, to: Address, content: &Content) -> Box<Packet> {
    let hop = Hop {
        address: to.mailbox.0,
        key: to.key,
        delay_ns: 0,
    };
    sphinx::build(&mut net.rng, &[hop], [0; 32], [0; 16], &content.to_bytes())
}

/// Puts a notice about a move into the mailbox of client 1, twice.
fn notice(net: &mut Net, news: Relocation) {
    let to = net.peers[1].identity.address();
    let packet = packet_for(net, to, &Content::Move(Box::new(news)));
    net.inject(1, packet.clone());
    net.inject(1, packet);
    pass(net, 3);
}

/// MSG-24: a notice that another signed, or about somebody else, or to where its sender is not,
/// redirects nothing; the control: that of the owner does, and a second time it has no effect.
#[test]
fn only_the_owner_of_an_address_moves_it() {
    let mut net = net(52, 3);
    acquaint(&mut net, 1, 0);
    let owner = net.peers[0].identity.clone();
    let [victim, third] = [1, 2].map(|of| net.peers[of].identity.clone());
    let dropped = |net: &Net, why| net.count(1, ClientEvent::Dropped(why));
    let stolen = Relocation {
        left: relocation(&third, &owner).left,
        ..relocation(&owner, &third)
    };
    notice(&mut net, stolen);
    assert_eq!(dropped(&net, ClientDrop::Forged), 2);
    for (to, drops) in [(&third, 4), (&victim, 6)] {
        let thrust = Relocation {
            entered: relocation(&owner, &owner).entered,
            ..relocation(&owner, to)
        };
        notice(&mut net, thrust);
        assert_eq!(dropped(&net, ClientDrop::Forged), drops);
    }
    notice(&mut net, relocation(&third, &owner));
    assert_eq!(dropped(&net, ClientDrop::Stranger), 2);
    assert_eq!(net.count(1, ClientEvent::RelocationReceived), 0);
    net.send(1, 2, 0, body(5, 2), Return::Address);
    assert!(net.run(secs(120.0), |net| acked(net, 1, 2)));
    notice(&mut net, relocation(&owner, &third));
    assert_eq!(net.count(1, ClientEvent::RelocationReceived), 1);
    assert_eq!(dropped(&net, ClientDrop::Replay), 1);
    net.send(1, 3, 0, body(5, 3), Return::Address);
    assert!(net.run(secs(240.0), |net| acked(net, 1, 3)));
    assert_eq!(net.bodies(2), [body(5, 3)], "the owner said so");
}

/// MSG-25, MSG-20: acks of the notice are lost, so it is repeated; an ack of a message was lost
/// before the move, so repair comes, to the new mailbox: it is the same message, delivered once.
#[test]
fn lost_acks_of_notices_and_messages_are_made_up() {
    let mut net = net(53, 2);
    acquaint(&mut net, 0, 1);
    net.send(0, 2, 1, body(3000, 2), Return::Address);
    assert!(net.run(secs(60.0), |net| net.peers[1].taken.len() == 2));
    net.loss = 1.0;
    pass(&mut net, 2); // the ack is lost
    net.loss = 0.0;
    assert!(!acked(&net, 0, 2));
    moves(&mut net, 1, 3);
    net.taken = true; // nothing of client 0's arrives any more
    let told = ClientEvent::RelocationReceived;
    assert!(net.run(secs(200.0), |net| net.count(0, told) >= 2));
    assert_eq!(untold(&net, 1), 1);
    net.taken = false;
    net.tap = Some(Vec::new());
    assert!(net.run(secs(400.0), |net| acked(net, 0, 2) && untold(net, 1) == 0));
    assert!(net.count(1, ClientEvent::SpareReceived) > 0);
    assert_eq!(net.bodies(1), [body(5, 1), body(3000, 2)]);
    assert_eq!(net.peers[0].relocated.len(), 1);
}

/// MSG-15, MSG-24: a notice whose tag had to be forgotten is taken again, and brings no ack: a gateway that
/// plays it again learns nothing.
#[test]
fn a_notice_as_old_as_what_is_forgotten_brings_no_ack() {
    let mut net = net(62, 2);
    acquaint(&mut net, 0, 1);
    let (told, mailbox) = (
        ClientEvent::RelocationReceived,
        net.peers[1].identity.mailbox(),
    );
    net.tap = Some(Vec::new());
    moves(&mut net, 0, 3);
    assert!(net.run(secs(200.0), |net| untold(net, 0) == 0));
    let mut tapped = net.tap.take().expect("it listens");
    tapped.retain(|(to, _)| *to == mailbox);
    net.peers[1].config.limits.tags_max = 1;
    net.crash(1, Duration::ZERO);
    net.send(0, 2, 1, body(5, 2), Return::Address); // its tag takes the place
    assert!(net.run(secs(260.0), |net| acked(net, 0, 2)));
    pass(&mut net, 20);
    let before = [told, ClientEvent::PayloadSent].map(|event| net.count(1, event));
    for (_, packet) in tapped {
        net.inject(1, packet);
    }
    pass(&mut net, 60);
    assert!(net.count(1, told) > before[0], "it was forgotten");
    assert_eq!(net.count(1, ClientEvent::PayloadSent), before[1]);
}

/// CLI-40: killed after each write of the move, the notices and their acks, either side goes on where
/// it was; killed before the first, there was no move.
#[test]
fn a_move_survives_a_kill_after_any_write() {
    for (client, writes) in (0..2).flat_map(|client| (0..12).map(move |writes| (client, writes))) {
        let mut net = net(54, 2);
        acquaint(&mut net, 1, 0);
        pass(&mut net, 5);
        let (old, before) = (net.client(0).address(), net.peers[client].writes);
        order(&mut net, 0, Some(3));
        net.send(1, 2, 0, body(3000, 2), Return::Address);
        net.send(0, 3, 1, body(3000, 3), Return::Address);
        let limit = net.now.after(Duration::from_secs(60));
        assert!(net.run(limit, |net| net.peers[client].writes >= before + writes));
        net.crash(client, Duration::from_secs(3));
        pass(&mut net, 4);
        if net.client(0).mailbox_gateway() == gateway_id(0) {
            assert!(client == 0 && writes < 2 && net.client(0).address() == old);
            moves(&mut net, 0, 3);
        }
        // What its sender was not told to be durable may be gone.
        let whole = |net: &Net, from: usize, ticket| {
            acked(net, from, ticket) || net.states(from, ticket).is_empty()
        };
        let done = |net: &Net| whole(net, 1, 2) && whole(net, 0, 3) && untold(net, 0) == 0;
        let limit = net.now.after(Duration::from_secs(300));
        assert!(net.run(limit, done), "{client}, {writes}");
        send(&mut net, 1, 4, old, Return::Address);
        let limit = net.now.after(Duration::from_secs(60));
        assert!(net.run(limit, |net| acked(net, 1, 4)));
        assert_eq!(net.client(1).relocated().len(), 1);
    }
}

/// CLI-32, CLI-34: a former mailbox is revoked with its address, and is in a backup with it.
#[test]
fn former_mailboxes_are_revoked_and_restored_with_their_addresses() {
    let mut net = net(55, 2);
    let label = "bob".to_owned();
    net.input(0, Input::NewAddress { ticket: 1, label });
    pass(&mut net, 1);
    let [main, bob] = [0, 1].map(|at| net.client(0).addresses().1[at].address);
    let own = net.client(1).address();
    send(&mut net, 1, 1, bob, Return::Address);
    net.send(1, 2, 0, body(5, 2), Return::Address);
    assert!(net.run(secs(60.0), |net| acked(net, 1, 1) && acked(net, 1, 2)));
    net.links(1, false); // so that it is not told yet
    moves(&mut net, 0, 3);
    pass(&mut net, 5);
    assert_eq!(net.open_slots(0), [0, 1, 2, 3]);
    assert_eq!(untold(&net, 0), 2);
    let all: Vec<_> = net.peers[0].records.clone().into_iter().collect();
    net.peers[0].records = backup(&all).into_iter().collect();
    let before = net.client(0).addresses().1;
    net.crash(0, Duration::ZERO);
    pass(&mut net, 5);
    assert_eq!(net.open_slots(0), [0, 1, 2, 3]);
    assert_eq!((net.client(0).addresses().1, untold(&net, 0)), (before, 2));
    let label = "bob".to_owned();
    net.input(0, Input::Revoke { ticket: 2, label });
    pass(&mut net, 2);
    assert_eq!(untold(&net, 0), 1);
    net.crash(0, Duration::ZERO);
    pass(&mut net, 5);
    assert_eq!(net.open_slots(0), [0, 2]);
    let lines = net.peers[0].records.iter();
    let secrets = lines.filter(|(key, value)| key[0] == b'a' && !value.is_empty());
    assert_eq!(secrets.count(), 2);
    let contacts = net.peers[0].records.keys();
    let mut contacts = contacts.filter(|key| key[0] == b'h');
    assert!(contacts.all(|key| key[1..3] == [0, 0] && key[3..] == own.to_bytes()));
    net.links(1, true);
    assert!(net.run(secs(400.0), |net| untold(net, 0) == 0));
    let told = net.client(1).relocated();
    assert!(told.iter().any(|of| of.from == main));
}

/// CLI-2, CLI-13: a move changes nothing of when the entry link is written, notices and all.
#[test]
fn the_entry_link_shows_nothing_of_a_move() {
    let run = |moving: bool| {
        let mut net = net(56, 3);
        acquaint(&mut net, 1, 0);
        acquaint(&mut net, 2, 0);
        net.run(secs(80.0), |_| false);
        if moving {
            order(&mut net, 0, Some(3));
        }
        net.run(secs(160.0), |_| false);
        assert_eq!(net.peers[1].relocated.len(), usize::from(moving));
        let written = |client: usize| net.peers[client].written.clone();
        (written(0), written(1))
    };
    let with = run(true);
    assert!(with == run(false) && with.0.len() > 500);
}

/// MSG-25, CLI-33: what goes in the name of another address, or in none, is packet for packet as if
/// nothing had been heard: else whoever moves sees which addresses are one client's. The control:
/// what names the address that heard so follows.
#[test]
fn who_is_not_named_does_not_follow() {
    let run = |told: bool, replies: [Return; 3]| {
        let mut net = net(57, 3);
        net.peers[1].config.acks = false;
        net.crash(1, Duration::ZERO);
        net.store_s = 0.0;
        pass(&mut net, 1);
        let label = "bob".to_owned();
        net.input(1, Input::NewAddress { ticket: 1, label });
        acquaint(&mut net, 1, 0);
        let [old, new] = [0, 2].map(|of| net.peers[of].identity.clone());
        let mut news = relocation(&old, &new);
        news.left.1[0] ^= u8::from(!told);
        notice(&mut net, news);
        assert_eq!(net.peers[1].relocated.len(), usize::from(told));
        net.tap = Some(Vec::new());
        for (ticket, reply) in (5..).zip(replies) {
            send(&mut net, 1, ticket, old.address(), reply);
        }
        pass(&mut net, 30);
        assert!((5..8).all(|ticket| net.states(1, ticket).contains(&State::Sent)));
        net.tap.take().expect("it was asked for")
    };
    let unnamed = [Return::None, Return::Surbs(2), Return::At(1)];
    let told = run(true, unnamed);
    assert!(told == run(false, unnamed) && told.len() > 50);
    let named = [Return::Address; 3];
    assert!(run(true, named) != run(false, named), "the control");
}

/// MSG-25: a notice counts as sent once its packet is built. While there is no route to the
/// correspondent (no document names its gateway) the waits between two do not grow, and it is told as
/// soon as a document brings a route.
#[test]
fn a_notice_that_has_no_route_does_not_count() {
    let mut net = net(62, 2);
    net.send(1, 1, 0, body(5, 1), Return::Address);
    assert!(net.run(secs(30.0), |net| !net.peers[0].taken.is_empty()));
    let mut lacking = document().0;
    lacking.nodes.retain(|node| node.id != gateway_id(1));
    net.input(0, Input::Consensus(Arc::new(lacking)));
    moves(&mut net, 0, 3);
    pass(&mut net, 240);
    assert_eq!(net.client(0).moving().unopened, 0);
    assert_eq!((untold(&net, 0), net.peers[1].relocated.len()), (1, 0));
    let document = Arc::new(document().0);
    net.input(0, Input::Consensus(document));
    let soon = net.now.after(Duration::from_secs(5));
    assert!(net.run(soon, |net| net.peers[1].relocated.len() == 1));
    assert!(net.run(secs(300.0), |net| untold(net, 0) == 0));
}

/// CLI-44, MSG-25: a gateway that is full opens nothing and says nothing: nobody is told of a mailbox
/// that nothing came by, and what the client writes names the former one. Then it has room.
#[test]
fn nobody_is_told_of_a_mailbox_that_does_not_open() {
    let mut net = net(59, 2);
    let label = "bob".to_owned();
    net.input(0, Input::NewAddress { ticket: 1, label });
    pass(&mut net, 1);
    let bob = net.client(0).addresses().1[1].address;
    acquaint(&mut net, 1, 0);
    send(&mut net, 1, 2, bob, Return::Address);
    net.full.insert(gateway_id(3));
    moves(&mut net, 0, 3);
    pass(&mut net, 60);
    let waits = |net: &Net| (untold(net, 0), net.client(0).moving().unopened);
    assert_eq!((waits(&net), net.open_slots(0)), ((2, 2), vec![0, 1]));
    assert!(net.peers[1].relocated.is_empty());
    net.send(0, 3, 1, body(5, 3), Return::At(1));
    assert!(net.run(secs(120.0), |net| acked(net, 1, 2) && acked(net, 0, 3)));
    net.full.clear();
    net.links(0, false);
    net.links(0, true);
    assert!(net.run(secs(300.0), |net| waits(net) == (0, 0)));
    assert_eq!(net.peers[1].relocated.len(), 2);
}

/// CLI-40, CLI-14: back to a gateway whose link is up, since it is read there: the new mailbox is
/// opened on it, and loops that do not come are lost.
#[test]
fn a_move_back_opens_the_new_mailbox_on_the_link_that_is_up() {
    let mut net = net(60, 2);
    moves(&mut net, 0, 3);
    pass(&mut net, 10);
    moves(&mut net, 0, 0);
    pass(&mut net, 20);
    assert_eq!(net.open_slots(0), [0, 2, 1]);
    acquaint(&mut net, 1, 0);
    assert_eq!(untold(&net, 0), 1);
    assert!(net.run(secs(120.0), |net| untold(net, 0) == 0));
    let lost = |net: &Net| net.count(0, ClientEvent::LoopLost);
    assert_eq!(lost(&net), 0);
    net.loss = 1.0;
    pass(&mut net, 30);
    net.frame(0, Frame::new(Kind::Dummy, 0, [0; 32]));
    assert!(lost(&net) > 0);
}

/// CLI-15: what a former gateway sends takes no room of what comes from the new one.
#[test]
fn a_former_gateway_takes_no_room_of_the_new_one() {
    let mut net = net(61, 1);
    net.peers[0].config.limits.unstored_max = 20;
    net.crash(0, Duration::ZERO);
    pass(&mut net, 1);
    let old = net.client(0).address();
    moves(&mut net, 0, 3);
    pass(&mut net, 5);
    net.store_s = 1e6;
    for _ in 0..40 {
        let packet = packet_for(&mut net, old, &Content::Loop([1; 16]));
        net.inject_at(old.mailbox, packet);
    }
    pass(&mut net, 10);
    let deaf = [0, 3].map(|of| net.client(0).is_deaf(gateway_id(of)));
    assert_eq!(deaf, [true, false]);
}

/// CLI-40, CLI-44
#[test]
fn a_move_that_is_refused_says_why() {
    let mut net = net(58, 1);
    let refused = |net: &mut Net, to| {
        order(net, 0, to);
        let last = net.peers[0].addressed.pop();
        last.map(|(_, outcome)| outcome)
    };
    let nowhere = Some(Err(AddressError::NoGateway));
    assert_eq!(refused(&mut net, Some(0)), nowhere, "it is there");
    assert_eq!(refused(&mut net, Some(9)), nowhere);
    order(&mut net, 0, None);
    assert_eq!(refused(&mut net, Some(2)), Some(Err(AddressError::Moving)));
    let label = "bob".to_owned();
    net.input(0, Input::NewAddress { ticket: 1, label });
    assert_eq!(
        net.peers[0].addressed.pop(),
        Some((1, Err(AddressError::Moving)))
    );
    pass(&mut net, 1);
    let drawn = net.client(0).mailbox_gateway();
    assert!(drawn != gateway_id(0) && drawn != gateway_id(5), "CLI-11");
    // The entry is not where a mailbox is.
    moves(&mut net, 0, 5);
    pass(&mut net, 1);
    let entry = net.client(0).entry().expect("there are others");
    assert!(!net.client(0).mailbox_gateways().contains(&entry));
    let free: Vec<u8> = (1..5).filter(|i| gateway_id(*i) != drawn).collect();
    moves(&mut net, 0, free[0]);
    assert_eq!(net.client(0).mailbox_gateways().len(), MAILBOX_GATEWAYS_MAX);
    let why = refused(&mut net, Some(free[1]));
    assert!(matches!(why, Some(Err(AddressError::TooSoon { .. }))));
    // All of them are read, and closed in their turn.
    pass(&mut net, 5);
    assert_eq!(net.open_slots(0).len(), MAILBOX_GATEWAYS_MAX);
    pass(&mut net, EXPIRY_S + 120);
    assert_eq!(net.client(0).mailbox_gateways().len(), 1);
    moves(&mut net, 0, free[1]);
}

/// CLI-44: to and fro between two gateways is moving too: each move costs them mailboxes. The fourth
/// is refused until the time that the refusal names.
#[test]
fn moves_are_counted_wherever_they_lead() {
    let mut net = net(62, 1);
    for to in [3, 0, 3] {
        moves(&mut net, 0, to);
    }
    order(&mut net, 0, Some(0));
    let refused = net.peers[0].addressed.pop().expect("at once");
    let Err(AddressError::TooSoon { wait_s }) = refused.1 else {
        panic!("{:?}", refused.1);
    };
    assert!((EXPIRY_S - 5..=EXPIRY_S).contains(&wait_s));
    pass(&mut net, wait_s - 1);
    order(&mut net, 0, Some(0));
    assert!(
        net.peers[0]
            .addressed
            .pop()
            .is_some_and(|(_, moved)| moved.is_err())
    );
    pass(&mut net, 1);
    moves(&mut net, 0, 0);
}
