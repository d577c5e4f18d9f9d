//! What gateways and correspondents can make a client do: nothing but what it would have done.

mod client_net;

use core::time::Duration;
use std::collections::BTreeMap;

use chacha20::ChaCha12Rng;
use client_net::{Net, params, rates, secs};
use proto::{
    MailboxId, NodeId,
    address::Address,
    calendar::Epoch,
    client::{
        ClientDrop, ClientEvent, Input, MessageId, Return, State, Target,
        content::{Content, Fragment, ReturnPart},
        fountain,
    },
    wire::{Frame, Kind, field_of},
};
use rand::{RngExt as _, SeedableRng as _};
use sphinx::{Hop, Packet, Reject, SURB_LEN, SecretKey, Surb};

const HOUR: u32 = 3600;

/// A network whose clients send only what is asked for here: no loops, slow payload slots.
fn quiet(seed: u8) -> Net {
    let mut net = Net::new(seed, params(rates(1.0, 0.0, 200.0), HOUR), 2);
    net.run(secs(1.0), |_| false);
    net
}

/// A packet as it lies in the mailbox of client 0: one layer, for its address key.
fn sealed(net: &mut Net, surb_id: [u8; 16], message: &[u8]) -> Box<Packet> {
    let address = net.peers[0].identity.address();
    let hop = Hop {
        address: address.mailbox.0,
        key: address.key,
        delay_ns: 0,
    };
    sphinx::build(&mut net.rng, &[hop], [0; 32], surb_id, message)
}

fn inject(net: &mut Net, content: &Content) {
    let packet = sealed(net, [0; 16], &content.to_bytes());
    net.inject(0, packet);
}

fn dropped(net: &Net, why: ClientDrop) -> u64 {
    net.count(0, ClientEvent::Dropped(why))
}

fn settle(net: &mut Net, s: u64) {
    let until = net.now.after(Duration::from_secs(s));
    net.run(until, |_| false);
}

fn fragment(message: u8, length: u64, esi: u32) -> Fragment {
    Fragment {
        message: MessageId([message; 16]),
        length,
        block: 0,
        esi,
        epoch: Epoch(0),
        return_len: 1,
        symbol: vec![0; fountain::SYMBOL_LEN],
    }
}

/// A message of one packet that brings this way back.
fn whole(message: u8, back: &ReturnPart) -> Content {
    let block = back.to_bytes();
    Content::Fragment(Fragment {
        return_len: u16::try_from(block.len()).expect("short"),
        symbol: fountain::source_symbol([&block, &[1; 10]], 0),
        ..fragment(message, 10, 0)
    })
}

/// CLI-27, p08, g04: each kind of garbage is counted under its reason, sends nothing, keeps
/// nothing, and is confirmed like any packet.
#[test]
fn garbage_changes_nothing_but_counts() {
    let mut net = quiet(1);
    let before = net.client(0).held();
    let good = Content::Fragment(fragment(1, 10, 0)).to_bytes();
    let whole = sealed(&mut net, [0; 16], &good);
    let flipped = |at: usize| {
        let mut packet = whole.clone();
        packet[at] ^= 1;
        packet
    };
    let other = SecretKey::from_bytes([8; 32]).public();
    let address = net.peers[0].identity.address();
    let hop = |key| Hop {
        address: [1; 32],
        key,
        delay_ns: 0,
    };
    let mut rng = ChaCha12Rng::from_seed([5; 32]);
    let mut build = |route: &[Hop]| sphinx::build(&mut rng, route, [0; 32], [0; 16], &good);
    let cases: Vec<(Box<Packet>, ClientDrop)> = vec![
        (flipped(40), ClientDrop::Rejected(Reject::Mac)),
        (flipped(100), ClientDrop::Rejected(Reject::Mac)),
        (flipped(348), ClientDrop::Payload),
        (flipped(2395), ClientDrop::Payload),
        (Box::new([0; 2396]), ClientDrop::Rejected(Reject::LowOrder)),
        (build(&[hop(other)]), ClientDrop::Rejected(Reject::Mac)),
        (build(&[hop(address.key), hop(other)]), ClientDrop::Forward),
        (sealed(&mut net, [3; 16], &good), ClientDrop::Surb),
        (sealed(&mut net, [0; 16], &[]), ClientDrop::Content),
        (sealed(&mut net, [0; 16], &[9; 40]), ClientDrop::Content),
        (
            sealed(&mut net, [0; 16], &good[..good.len() - 1]),
            ClientDrop::Content,
        ),
        (
            sealed(&mut net, [0; 16], &Content::Loop([1; 16]).to_bytes()),
            ClientDrop::Loop,
        ),
    ];
    let mut counts: BTreeMap<ClientDrop, u64> = BTreeMap::new();
    for (packet, why) in cases {
        *counts.entry(why).or_default() += 1;
        net.inject(0, packet);
    }
    settle(&mut net, 20);
    for (why, count) in counts {
        assert_eq!(dropped(&net, why), count, "{why:?}");
    }
    assert_eq!(net.waiting(0), 0, "all confirmed");
    assert_eq!(net.client(0).held(), before);
    assert_eq!(net.count(0, ClientEvent::PayloadSent), 0);
    assert!(net.peers[0].taken.is_empty());
    assert_eq!(net.kinds(0), ['c', 'e'].into());
    // The control: the packet that was not tampered with is a message.
    net.inject(0, whole);
    settle(&mut net, 5);
    assert_eq!(net.peers[0].taken.len(), 1);
}

/// Frames that no gateway sends, unknown slots, and sequences that were read, do nothing.
#[test]
fn odd_frames_do_nothing() {
    let mut net = quiet(2);
    let good = Content::Fragment(fragment(1, 10, 0)).to_bytes();
    let packet = sealed(&mut net, [0; 16], &good);
    let mut odd = Box::new([0; 2432]);
    odd[0] = 99;
    for frame in [
        Frame::new(Kind::Hello, 0, [0; 32]),
        Frame::new(Kind::Confirm, 0, [0; 32]),
        Frame::from_bytes(odd),
    ] {
        net.frame(0, frame);
    }
    assert_eq!(dropped(&net, ClientDrop::Frame), 3);
    net.frame(0, Frame::packet(1, field_of(1, 0), &packet));
    assert_eq!(dropped(&net, ClientDrop::Slot), 1);
    for _ in 0..2 {
        net.frame(0, Frame::packet(0, field_of(7, 0), &packet));
    }
    net.frame(0, Frame::packet(0, field_of(6, 0), &packet));
    assert_eq!(dropped(&net, ClientDrop::Sequence), 2);
    let before = net.count(0, ClientEvent::DummyReceived);
    net.frame(0, Frame::new(Kind::Dummy, 0, [0; 32]));
    assert_eq!(net.count(0, ClientEvent::DummyReceived), before + 1);
    settle(&mut net, 5);
    assert_eq!(net.peers[0].taken.len(), 1);
}

/// MSG-4: too old and from the future.
#[test]
fn fragments_of_other_times_are_refused() {
    let mut net = quiet(3);
    for (message, epoch) in [(1, 0), (2, 1), (3, 2), (4, u64::MAX)] {
        let epoch = Epoch(epoch);
        inject(
            &mut net,
            &Content::Fragment(Fragment {
                epoch,
                ..fragment(message, 10, 0)
            }),
        );
    }
    settle(&mut net, 5);
    assert_eq!(dropped(&net, ClientDrop::Epoch), 2);
    assert_eq!(
        net.peers[0].taken.len(),
        2,
        "a clock may be ahead by less than an epoch"
    );
}

/// MSG-16, g04, law 5: fragments of every shape that a parser lets through, in any number: memory
/// stays within its limits and grows by what came, not by what was announced.
#[test]
fn random_fragments_stay_within_bounds() {
    let mut net = quiet(4);
    net.crash(0, Duration::ZERO);
    let limits = &mut net.peers[0].config.limits;
    limits.incoming_max = 20;
    limits.incoming_bytes_max = 100 * fountain::SYMBOL_LEN;
    limits.tags_max = 50;
    limits.finished_max = 10;
    let limits = *limits;
    settle(&mut net, 1);
    let mut rng = ChaCha12Rng::from_seed([6; 32]);
    for _ in 0..1500 {
        let message: u8 = rng.random_range(0..40);
        // Mostly the same shape for the same message, so that fragments add up.
        let shape = usize::from(message) + usize::from(rng.random_bool(0.1));
        let length = [0, 5, 3000, 100_000, 2_000_000, 128 << 20][shape % 6];
        let random = Fragment {
            block: rng.random_range(0..fountain::blocks(length)),
            esi: [rng.random_range(0..40), rng.random_range(0..1 << 24)][rng.random_range(0..2)],
            return_len: [1, 1, 97, 406, 39_610][shape % 5],
            epoch: Epoch(u64::from(message % 2)),
            ..fragment(message, length, 0)
        };
        inject(&mut net, &Content::Fragment(random));
        if rng.random_bool(0.05) {
            settle(&mut net, 1);
            let held = net.client(0).held();
            assert!(held.incoming <= limits.incoming_max, "{held:?}");
            assert!(held.incoming_bytes <= limits.incoming_bytes_max, "{held:?}");
            assert!(held.tags <= limits.tags_max, "{held:?}");
            assert!(held.finished <= limits.finished_max, "{held:?}");
        }
    }
    settle(&mut net, 60);
    let held = net.client(0).held();
    assert!(
        held.incoming > 5 && held.incoming_bytes > 60 * fountain::SYMBOL_LEN,
        "{held:?}"
    );
    assert_eq!(held.tags, limits.tags_max, "the limits were reached");
    assert!(held.finished > 5, "{held:?}");
    assert_eq!(net.count(0, ClientEvent::PayloadSent), 0);
    // What is on disk is what is in memory: a restart finds the same.
    net.crash(0, Duration::ZERO);
    settle(&mut net, 1);
    let again = net.client(0).held();
    assert_eq!(again.incoming_bytes, held.incoming_bytes);
    assert_eq!(
        (again.incoming, again.tags, again.finished),
        (held.incoming, held.tags, held.finished)
    );
}

/// MSG-16: what was confirmed does not give way to a flood of beginnings; of those, the longest idle
/// goes first.
#[test]
fn a_full_inbox_keeps_what_it_acked() {
    let mut net = quiet(5);
    net.crash(0, Duration::ZERO);
    net.peers[0].config.limits.incoming_max = 2;
    settle(&mut net, 1);
    // A long message of which the last block, of one symbol, is finished.
    let length = fountain::SHARE_LEN as u64 + 10;
    inject(
        &mut net,
        &Content::Fragment(Fragment {
            block: 1,
            ..fragment(1, length, 0)
        }),
    );
    for message in 2..9 {
        inject(&mut net, &Content::Fragment(fragment(message, 5000, 0)));
    }
    settle(&mut net, 2);
    assert_eq!(net.client(0).held().incoming, 2);
    assert!(
        net.kinds(0).contains(&'b'),
        "the finished block is still there"
    );
    for esi in 1..3 {
        inject(&mut net, &Content::Fragment(fragment(8, 5000, esi)));
    }
    settle(&mut net, 2);
    let bodies: Vec<usize> = net.bodies(0).iter().map(Vec::len).collect();
    assert_eq!(bodies, [5000], "the youngest was kept and finished");
    assert_eq!(dropped(&net, ClientDrop::Full), 0);
}

/// MSG-16: nor do messages of which a block is finished close the inbox, however many they are: of
/// those, too, the longest idle gives way.
#[test]
fn half_finished_messages_close_no_inbox() {
    let mut net = quiet(11);
    net.crash(0, Duration::ZERO);
    let incoming_max = 8;
    net.peers[0].config.limits.incoming_max = incoming_max;
    settle(&mut net, 1);
    let half = |message| {
        Content::Fragment(Fragment {
            block: 1,
            ..fragment(message, fountain::SHARE_LEN as u64 + 10, 0)
        })
    };
    for message in 1..=20 {
        inject(&mut net, &half(message));
    }
    settle(&mut net, 2);
    assert_eq!(net.client(0).held().incoming, incoming_max);
    // They go on while an honest message comes.
    for esi in 0..3 {
        inject(&mut net, &Content::Fragment(fragment(100, 5000, esi)));
        for message in 0..3 {
            let message = 30 + 3 * u8::try_from(esi).expect("few") + message;
            inject(&mut net, &half(message));
        }
    }
    settle(&mut net, 2);
    let bodies: Vec<usize> = net.bodies(0).iter().map(Vec::len).collect();
    assert_eq!(bodies, [5000]);
    assert_eq!(net.client(0).held().incoming, incoming_max);
    assert_eq!(dropped(&net, ClientDrop::Full), 0);
    // What gave way is gone from the disk too: a restart finds the same.
    net.crash(0, Duration::ZERO);
    settle(&mut net, 1);
    assert_eq!(net.client(0).held().incoming, incoming_max);
}

/// MSG-18: when finished messages are forgotten before their time, no message as old as those is
/// begun any more, so that none comes twice; younger ones are.
#[test]
fn what_is_forgotten_does_not_come_twice() {
    let mut net = quiet(9);
    net.crash(0, Duration::ZERO);
    net.peers[0].config.limits.finished_max = 3;
    net.peers[0].config.limits.tags_max = 1;
    settle(&mut net, 1);
    let made = |message, epoch| {
        let epoch = Epoch(epoch);
        Content::Fragment(Fragment {
            epoch,
            ..fragment(message, 10, 0)
        })
    };
    for message in 1..=4 {
        inject(&mut net, &made(message, 0));
    }
    settle(&mut net, 2);
    assert_eq!(net.peers[0].taken.len(), 4);
    net.crash(0, Duration::ZERO);
    settle(&mut net, 1);
    for message in [1, 2, 3, 4, 5] {
        inject(&mut net, &made(message, 0));
    }
    settle(&mut net, 2);
    assert_eq!(net.peers[0].taken.len(), 4);
    assert!(
        dropped(&net, ClientDrop::Full) >= 2,
        "the forgotten one, and a new one"
    );
    inject(&mut net, &made(6, 1));
    settle(&mut net, 2);
    assert_eq!(net.peers[0].taken.len(), 5);
}

/// MSG-15: a probe as old as packets that had to be forgotten may be one of them.
#[test]
fn a_probe_that_may_be_played_again_is_dropped() {
    for (tags_max, taken) in [(1 << 20, true), (1, false)] {
        let mut net = quiet(13);
        net.peers[0].config.limits.tags_max = tags_max;
        net.crash(0, Duration::ZERO);
        settle(&mut net, 1);
        let back = ReturnPart::Address(net.peers[1].identity.address());
        inject(&mut net, &whole(1, &back));
        let node = net.consensus.node(&net.consensus.layers[0][0]);
        let (address, key) = node.map(|of| (of.id.0, of.packet_keys[0])).expect("a mix");
        let delay_ns = 0;
        let hop = Hop {
            address,
            key,
            delay_ns,
        };
        let surbs = (0..5).map(|_| sphinx::surb(&mut net.rng, &[hop; 5], [0; 32]).0);
        let reply = ReturnPart::Surbs {
            epoch: Epoch(0),
            surbs: surbs.collect(),
        };
        let message = MessageId([1; 16]);
        inject(&mut net, &Content::Probe { message, reply });
        settle(&mut net, 2);
        let count = u64::from(taken);
        assert_eq!(net.count(0, ClientEvent::ProbeReceived), count);
        assert_eq!(dropped(&net, ClientDrop::Replay), 1 - count);
    }
}

/// MSG-9: symbols that contradict each other, and blocks whose return part is none.
#[test]
fn contradictions_are_dropped() {
    let mut net = quiet(6);
    inject(&mut net, &Content::Fragment(fragment(1, 5000, 0)));
    inject(&mut net, &Content::Fragment(fragment(1, 5001, 1)));
    inject(
        &mut net,
        &Content::Fragment(Fragment {
            return_len: 97,
            ..fragment(1, 5000, 1)
        }),
    );
    settle(&mut net, 2);
    assert_eq!(dropped(&net, ClientDrop::Mismatch), 2);
    // One symbol, which says that it starts with an address and does not.
    inject(
        &mut net,
        &Content::Fragment(Fragment {
            return_len: 97,
            ..fragment(2, 10, 0)
        }),
    );
    settle(&mut net, 2);
    assert_eq!(dropped(&net, ClientDrop::Mismatch), 3);
    assert_eq!(net.client(0).held().incoming, 1);
    assert_eq!(net.count(0, ClientEvent::PayloadSent), 0);
}

/// MSG-9: symbols chosen so that no number of them decodes are not gathered for ever.
#[test]
fn a_block_that_never_decodes_is_dropped() {
    let mut net = quiet(12);
    // One repair symbol of a block of one in about 180 is nothing times the block.
    let repair = fountain::repair_symbols(&[1; 11], 1, 4000);
    let nothing = (1u32..)
        .zip(repair)
        .filter(|(_, symbol)| symbol.iter().all(|byte| *byte == 0));
    let numbers: Vec<u32> = nothing.map(|(esi, _)| esi).collect();
    assert!(numbers.len() > 12);
    for esi in &numbers[..12] {
        assert_eq!(dropped(&net, ClientDrop::Mismatch), 0);
        inject(&mut net, &Content::Fragment(fragment(1, 10, *esi)));
        settle(&mut net, 1);
    }
    assert_eq!(dropped(&net, ClientDrop::Mismatch), 1);
    assert_eq!(net.client(0).held().incoming_bytes, 0);
    assert_eq!(net.kinds(0), ['c', 'e', 't'].into());
}

/// CLI-20: a reply block that names a first hop outside the first layer would show the entry
/// gateway who answers it. It is not used, and the slot sends what it would have sent.
#[test]
fn a_reply_block_cannot_mark_who_uses_it() {
    let mut net = quiet(7);
    let node = net
        .consensus
        .node(&net.consensus.layers[1][0])
        .expect("a mix")
        .clone();
    let hop = Hop {
        address: node.id.0,
        key: node.packet_keys[0],
        delay_ns: 0,
    };
    let (surb, _) = sphinx::surb(&mut net.rng, &[hop; 5], [0; 32]);
    let part = ReturnPart::Surbs {
        epoch: Epoch(0),
        surbs: vec![surb],
    };
    let block = part.to_bytes();
    let return_len = u16::try_from(block.len()).expect("short");
    let symbol = fountain::source_symbol([&block, &[1; 10]], 0);
    let marked = Fragment {
        return_len,
        symbol,
        ..fragment(1, 10, 0)
    };
    inject(&mut net, &Content::Fragment(marked));
    settle(&mut net, 30);
    assert_eq!(net.peers[0].taken.len(), 1);
    // Its ack had nothing else to go by. (The network here asserts that first hops are in layer 1.)
    assert_eq!(net.count(0, ClientEvent::PayloadSent), 0);
    assert_eq!(net.client(0).held().returns.1, 0, "it was spent");
    let token = net.peers[0].taken.values().next().and_then(|d| d.reply);
    let to = Target::Reply(token.expect("it brought one"));
    net.input(
        0,
        Input::Send {
            ticket: 9,
            to,
            body: vec![],
            reply: Return::None,
        },
    );
    assert!(matches!(net.states(0, 9)[..], [State::Failed(_)]));
}

/// MSG-5, CLI-21: acks that can't be sent keep nobody else's from being sent: ways back to gateways
/// that there are not, and reply blocks of epochs to come.
#[test]
fn acks_that_go_nowhere_make_room() {
    let nowhere = |net: &Net| {
        ReturnPart::Address(Address {
            gateway: NodeId([0x99; 32]),
            ..net.peers[1].identity.address()
        })
    };
    let surbs = |epoch| ReturnPart::Surbs {
        epoch: Epoch(epoch),
        surbs: vec![Surb::parse(&[1; SURB_LEN]); 2],
    };
    // What comes back by each, how many acks then wait, how many reply blocks are held.
    for (kind, waiting, held) in [(0, 4, 12), (1, 0, 0), (2, 0, 0)] {
        let mut net = quiet(10 + kind);
        net.crash(0, Duration::ZERO);
        net.peers[0].config.limits.acks_max = 4;
        settle(&mut net, 1);
        let block = match kind {
            0 => surbs(1),
            1 => surbs(u64::MAX),
            _ => nowhere(&net),
        };
        for message in 0..6 {
            inject(&mut net, &whole(message, &block));
        }
        settle(&mut net, 11);
        assert_eq!(net.peers[0].taken.len(), 6);
        assert_eq!(net.client(0).held().acks, waiting, "kind {kind}");
        let forgotten = net.count(0, ClientEvent::AckForgotten);
        assert!(kind > 0 || forgotten == 2, "each is counted");
        assert_eq!(net.client(0).held().returns.1, held, "kind {kind}");
        net.send(1, 1, 0, vec![1; 10], Return::Address);
        let acked = |net: &Net| net.states(1, 1).contains(&State::Acked);
        let until = net.now.after(Duration::from_secs(15));
        assert!(net.run(until, acked), "kind {kind}");
    }
}

/// CLI-9, CLI-21, g04: who sends message upon message of one packet, each with another address for
/// its ack so that no two acks share a packet, takes no more than every second slot from what the
/// client sends of its own, and lets who writes to its other address wait for a slot or two.
#[test]
fn a_flood_of_acks_leaves_others_their_slots() {
    // Slots until a message of 21 symbols has left.
    let slots = |flood: u8| {
        let mut net = quiet(12);
        let label = "other".to_owned();
        net.input(0, Input::NewAddress { ticket: 0, label });
        settle(&mut net, 5);
        let other = net.client(0).addresses().1[1].address;
        for message in 0..flood {
            let back = ReturnPart::Address(Address {
                mailbox: MailboxId([message; 32]),
                ..net.peers[1].identity.address()
            });
            inject(&mut net, &whole(message, &back));
        }
        settle(&mut net, 2);
        assert_eq!(net.peers[0].taken.len(), usize::from(flood));
        net.send(0, 1, 1, vec![1; 20 * fountain::SYMBOL_LEN], Return::None);
        net.send_to(1, 1, other, vec![1; 10], Return::Address);
        let slots = |net: &Net| net.peers[0].written.len();
        let before = slots(&net);
        let sent = |net: &Net| net.states(0, 1).contains(&State::Sent);
        assert!(net.run(secs(600.0), sent));
        let took = slots(&net) - before;
        assert_eq!(net.states(1, 1).last(), Some(&State::Acked));
        assert!(net.client(0).held().acks >= usize::from(flood / 2));
        took
    };
    let (undisturbed, flooded) = (slots(0), slots(250));
    assert!(flooded <= 2 * undisturbed + 1, "{undisturbed} {flooded}");
}

/// CLI-15: what can't be kept now is left with the gateway, and comes again on the next link.
#[test]
fn a_stuck_store_loses_nothing() {
    let mut net = quiet(8);
    net.crash(0, Duration::ZERO);
    net.peers[0].config.limits.unstored_max = 3;
    net.store_s = 1e6;
    settle(&mut net, 1);
    for message in 1..=9 {
        inject(&mut net, &Content::Fragment(fragment(message, 10, 0)));
    }
    settle(&mut net, 5);
    assert!(
        dropped(&net, ClientDrop::Deaf) > 0 && {
            let client = net.client(0);
            client.is_deaf(client.mailbox_gateway())
        }
    );
    assert!(net.client(0).held().unstored <= 3);
    assert_eq!((net.waiting(0), net.peers[0].taken.len()), (9, 0));
    // The store recovers with a restart; the rest comes once the link is opened again.
    net.store_s = 0.01;
    net.crash(0, Duration::ZERO);
    for _ in 0..5 {
        settle(&mut net, 3);
        net.links(0, false);
        net.links(0, true);
    }
    settle(&mut net, 3);
    assert_eq!((net.waiting(0), net.peers[0].taken.len()), (0, 9));
}
