//! What nodes say of themselves: heard once, if at all; and what clients make of it.

mod harness;

use std::sync::Arc;

use chacha20::ChaCha12Rng;
use harness::network::{TestNetwork, TestNode, VALID_FROM_S};
use proto::{
    Machine, NetworkId, NodeId, Time,
    calendar::{Calendar, Utc},
    client::{
        AddressError, Client, ClientDrop, ClientEvent, Concerns, Config, Identity, Input, Limits,
        Output, Stage,
    },
    directory::{Consensus, Role},
    notice::{Heard, Notice, NoticeDrop, What, minutes_off},
    wire::{FRAME_LEN, Frame},
};
use rand::SeedableRng as _;

/// In the middle of a minute.
const NOW_S: u64 = VALID_FROM_S + 90 - VALID_FROM_S % 60;
const NOW: Utc = Utc::from_secs(NOW_S);

fn network() -> (TestNetwork, Consensus) {
    let network = TestNetwork::new(3, 3, 3);
    let consensus = network.consensus();
    (network, consensus)
}

fn said(network: &TestNetwork, node: &TestNode, what: What, at_s: u64) -> Frame {
    let notice = Notice::new(what, node.id, Utc::from_secs(at_s));
    notice.sign(&network.network.id, &node.identity)
}

/// LOOP-8: of now, of a node in the document, signed by it for this network; nothing else.
#[test]
fn only_a_node_of_the_network_is_heard_and_only_now() {
    let (network, consensus) = network();
    let id = network.network.id;
    let node = &network.nodes[1];
    let hear = |frame: &Frame, at_s: u64, network: &NetworkId, consensus: &Consensus| {
        Heard::default().hear(frame, Utc::from_secs(at_s), network, consensus)
    };
    for what in [What::Alarm, What::Withdrawal] {
        let frame = said(&network, node, what, NOW_S);
        let notice = hear(&frame, NOW_S, &id, &consensus).unwrap();
        assert_eq!((notice.what, notice.node), (what, node.id));
        // Another network, another signer.
        let other = hear(&frame, NOW_S, &NetworkId([1; 32]), &consensus);
        assert_eq!(other, Err(NoticeDrop::Forged));
        let by_another = Notice::new(what, node.id, NOW).sign(&id, &network.nodes[2].identity);
        assert_eq!(
            hear(&by_another, NOW_S, &id, &consensus),
            Err(NoticeDrop::Forged)
        );
        // Too early, too late; and just not.
        let most = minutes_off(&consensus.schedule());
        for (off, heard) in [(most, true), (most + 1, false)] {
            for at_s in [NOW_S + 60 * off, NOW_S - 60 * off] {
                let found = hear(&frame, at_s, &id, &consensus);
                assert_eq!(found.is_ok(), heard, "{off}");
                assert!(heard || found == Err(NoticeDrop::Stale));
            }
        }
        // A node that the document does not name.
        let mut without = consensus.clone();
        without.nodes.retain(|other| other.id != node.id);
        assert_eq!(hear(&frame, NOW_S, &id, &without), Err(NoticeDrop::Stale));
    }
}

/// LOOP-8, EPO-1: a node is heard whose clock is off by all that honest clocks may be, after a minute's
/// wait for a tick (LOOP-9).
#[test]
fn a_clock_within_the_skew_is_heard() {
    let (network, consensus) = network();
    let skew_s = consensus.schedule().skew().as_secs();
    assert_eq!(skew_s, 300);
    let hear = |said_s: u64, heard_s: u64| {
        let frame = said(&network, &network.nodes[0], What::Alarm, said_s);
        let utc = Utc::from_secs(heard_s);
        Heard::default().hear(&frame, utc, &network.network.id, &consensus)
    };
    for second in 0..60 {
        let at_s = NOW_S + second;
        assert!(hear(at_s, at_s + skew_s + 60).is_ok(), "behind");
        assert!(hear(at_s, at_s - skew_s).is_ok(), "ahead");
        assert_eq!(hear(at_s, at_s + skew_s + 180), Err(NoticeDrop::Stale));
    }
}

/// LOOP-8: one notice is one frame: no byte of it may be another.
#[test]
fn no_byte_can_be_changed() {
    let (network, consensus) = network();
    let frame = said(&network, &network.nodes[0], What::Alarm, NOW_S);
    let mut heard = Heard::default();
    for byte in 0..FRAME_LEN {
        let mut bytes = Box::new(*frame.as_bytes());
        bytes[byte] ^= 0x10;
        let bent = Frame::from_bytes(bytes);
        let found = heard.hear(&bent, NOW, &network.network.id, &consensus);
        assert!(found.is_err(), "byte {byte}");
    }
    assert!(
        heard
            .hear(&frame, NOW, &network.network.id, &consensus)
            .is_ok()
    );
}

/// LOOP-9: each is passed on once, and of one node one of a kind a minute; an older one is not news.
#[test]
fn each_is_heard_once() {
    let (network, consensus) = network();
    let [first, second] = [&network.nodes[0], &network.nodes[4]];
    let mut heard = Heard::default();
    let mut hear = |node: &TestNode, what, at_s: u64| {
        let frame = said(&network, node, what, at_s);
        let now = Utc::from_secs(at_s.max(NOW_S));
        heard
            .hear(&frame, now, &network.network.id, &consensus)
            .map(drop)
    };
    let old = Err(NoticeDrop::Old);
    assert_eq!(hear(first, What::Alarm, NOW_S), Ok(()));
    assert_eq!(hear(first, What::Alarm, NOW_S), old);
    assert_eq!(hear(first, What::Alarm, NOW_S + 29), old, "the same minute");
    assert_eq!(hear(first, What::Alarm, NOW_S - 60), old, "an older one");
    // Other nodes and kinds have minutes of their own.
    assert_eq!(hear(second, What::Alarm, NOW_S), Ok(()));
    assert_eq!(hear(first, What::Withdrawal, NOW_S), Ok(()));
    assert_eq!(hear(first, What::Alarm, NOW_S + 60), Ok(()));
    // What was heard stays heard for as long as it would not be stale.
    let leaves = said(&network, first, What::Withdrawal, NOW_S);
    let most = minutes_off(&consensus.schedule());
    for minute in 1..=most {
        assert_eq!(hear(second, What::Withdrawal, NOW_S + 60 * minute), Ok(()));
    }
    let late = Utc::from_secs(NOW_S + 60 * most);
    let again = heard.hear(&leaves, late, &network.network.id, &consensus);
    assert_eq!(again, Err(NoticeDrop::Old));
}

/// A client of gateway 3 in a network of three gateways, with both links up.
fn client(network: &TestNetwork, consensus: &Consensus) -> Client {
    let mut rng = ChaCha12Rng::from_seed([9; 32]);
    let home = network.nodes[3].id;
    let config = Config {
        network: network.network.id,
        entry: None,
        profile: consensus.params.profiles[0].name.clone(),
        via: None,
        acks: true,
        limits: Limits::default(),
    };
    let identity = Identity::generate(&mut rng, home);
    let mut client = Client::new(config, [5; 32], identity, []).expect("a new one");
    let calendar = Calendar {
        at: Time::ZERO,
        utc: NOW,
    };
    for input in [
        Input::Calendar(calendar),
        Input::Consensus(Arc::new(consensus.clone())),
        Input::MailboxUp {
            gateway: home,
            exporter: [7; 32],
        },
    ] {
        client.handle(Time::ZERO, input);
    }
    let gateway = client.entry().expect("three gateways");
    client.handle(Time::ZERO, Input::EntryUp { gateway });
    settle(&mut client);
    client
}

/// Stores what the client asks for, at once. What else happened.
fn settle(client: &mut Client) -> Vec<ClientEvent> {
    let mut events = Vec::new();
    while let Some(output) = client.poll() {
        match output {
            Output::Store { txn, .. } => client.handle(Time::ZERO, Input::Stored { txn }),
            Output::Event(event) => events.push(event),
            Output::Entry(_)
            | Output::Mailbox { .. }
            | Output::Deliver(_)
            | Output::Progress(_)
            | Output::Relocated(_)
            | Output::Addressed { .. } => {}
        }
    }
    events
}

fn hears(client: &mut Client, frame: Frame) -> Vec<ClientEvent> {
    let gateway = client.mailbox_gateway();
    client.handle(Time::ZERO, Input::Frame { gateway, frame });
    settle(client)
}

/// LOOP-10: whose entry leaves enters by another at once; whose mailbox leaves is told; of the
/// others nothing follows, and of alarms nothing at all.
#[test]
fn only_the_withdrawal_of_its_entry_moves_a_client() {
    let (network, consensus) = network();
    let node = |id: NodeId| network.nodes.iter().find(|node| node.id == id).unwrap();
    let mut client = client(&network, &consensus);
    let entry = client.entry().unwrap();
    let home = client.mailbox_gateway();
    assert_ne!(entry, home);
    let mut unmoved = |id: NodeId, what, concerns| {
        let events = hears(&mut client, said(&network, node(id), what, NOW_S));
        assert_eq!(events, [ClientEvent::Noticed(what, concerns)]);
        assert_eq!(client.entry(), Some(entry));
        assert_eq!(client.watching().stage, Stage::Calm);
    };
    unmoved(entry, What::Alarm, Concerns::Entry);
    unmoved(home, What::Withdrawal, Concerns::Mailbox);
    let gateways = network
        .nodes
        .iter()
        .filter(|node| consensus.node(&node.id).unwrap().role == Role::Gateway);
    let other = gateways
        .map(|node| node.id)
        .find(|id| ![entry, home].contains(id))
        .unwrap();
    unmoved(other, What::Withdrawal, Concerns::Other);
    unmoved(network.nodes[0].id, What::Alarm, Concerns::Other);

    // Said by another of its entry: nothing.
    let forged = Notice::new(What::Withdrawal, entry, NOW);
    let forged = forged.sign(&network.network.id, &node(home).identity);
    let events = hears(&mut client, forged);
    assert_eq!(
        events,
        [ClientEvent::Dropped(ClientDrop::Notice(NoticeDrop::Forged))]
    );
    assert_eq!(client.entry(), Some(entry));

    let leaves = said(&network, node(entry), What::Withdrawal, NOW_S);
    let events = hears(&mut client, leaves.clone());
    let noticed = ClientEvent::Noticed(What::Withdrawal, Concerns::Entry);
    assert_eq!(events, [ClientEvent::EntryReplaced, noticed]);
    let moved = client.entry().unwrap();
    assert_ne!(moved, entry);
    // Heard again, it says nothing, and of the gateway that it now enters by even less.
    let events = hears(&mut client, leaves);
    assert_eq!(
        events,
        [ClientEvent::Dropped(ClientDrop::Notice(NoticeDrop::Old))]
    );
    assert_eq!(client.entry(), Some(moved));
}

/// CLI-40: mailboxes do not move to a gateway that withdraws, until it is entered by again. The control:
/// before it says so, they do.
#[test]
fn mailboxes_do_not_move_to_a_gateway_that_withdraws() {
    let (network, consensus) = network();
    let first = client(&network, &consensus);
    let known = [first.entry().unwrap(), first.mailbox_gateway()];
    let other = consensus.gateways().find(|node| !known.contains(&node.id));
    let other = network
        .nodes
        .iter()
        .find(|node| Some(node.id) == other.map(|other| other.id));
    let other = other.unwrap();
    for withdrawn in [false, true] {
        let mut client = client(&network, &consensus);
        if withdrawn {
            hears(&mut client, said(&network, other, What::Withdrawal, NOW_S));
        }
        client.handle(
            Time::ZERO,
            Input::Move {
                ticket: 1,
                to: None,
            },
        );
        settle(&mut client);
        let to = if withdrawn { known[0] } else { other.id };
        assert_eq!(client.mailbox_gateway(), to);
    }
    let mut client = client(&network, &consensus);
    let entry = network.nodes.iter().find(|node| node.id == known[0]);
    hears(&mut client, said(&network, other, What::Withdrawal, NOW_S));
    let leaves = said(&network, entry.unwrap(), What::Withdrawal, NOW_S);
    hears(&mut client, leaves);
    let refused = |client: &Client| client.moving().refused;
    assert_eq!(refused(&client), Some(AddressError::NoOther));
    assert!(client.entrance().withdrew);
    let gateway = client.entry().unwrap();
    client.handle(Time::ZERO, Input::EntryUp { gateway });
    assert!(!client.entrance().withdrew && refused(&client).is_none());
}
