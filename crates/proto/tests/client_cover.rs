//! What a client's links show: nothing but its rates.

mod client_net;
mod kolmogorov;

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chacha20::ChaCha12Rng;
use client_net::{
    NETWORK, Net, PROFILE, START_S, body, config, consensus, gateway_id, mix_id, own_family,
    params, rates, secs,
};
use kolmogorov::{bound, distance};
use proto::{
    Machine, NodeId, Time,
    calendar::{Calendar, Epoch, Utc},
    client::{
        Client, ClientEvent, Config, Identity, Input, LATE_MAX, Output, Progress, Return, State,
        Target,
    },
    directory::{Consensus, params::NODE_PROFILE},
    wire::{Confirmation, Kind, open_statement},
};
use rand::{Rng as _, SeedableRng as _};

fn drain(client: &mut Client) -> Vec<Output> {
    core::iter::from_fn(|| client.poll()).collect()
}

fn feed(client: &mut Client, now: Time, input: Input) -> Vec<Output> {
    client.handle(now, input);
    drain(client)
}

/// The entry link is up, if the client has chosen one.
fn enter(client: &mut Client) {
    if let Some(gateway) = client.entry() {
        feed(client, Time::ZERO, Input::EntryUp { gateway });
    }
}

fn calendar(utc_s: u64) -> Input {
    Input::Calendar(Calendar {
        at: Time::ZERO,
        utc: Utc::from_secs(utc_s),
    })
}

fn client_of(seed: u8, gateway: u8) -> Client {
    let mut rng = ChaCha12Rng::from_seed([9; 32]);
    let identity = Identity::generate(&mut rng, gateway_id(gateway));
    Client::new(config(), [seed; 32], identity, []).expect("a new one")
}

fn network(width: u8, gateways: u8, family: impl Fn(NodeId) -> String) -> Arc<Consensus> {
    let params = params(rates(20.0, 2.0, 20.0), 3600);
    Arc::new(consensus(params, width, gateways, family).0)
}

/// A client with everything that it needs to send.
fn ready(seed: u8, consensus: &Arc<Consensus>) -> Client {
    let mut client = client_of(seed, 0);
    feed(&mut client, Time::ZERO, calendar(START_S + 60));
    feed(&mut client, Time::ZERO, Input::Consensus(consensus.clone()));
    enter(&mut client);
    client
}

/// Wakes a client whenever it asks, until `until`; what it did, and when.
fn run(client: &mut Client, until: Time) -> Vec<(Time, Output)> {
    let mut all = Vec::new();
    while let Some(at) = client.next_wake().filter(|at| *at <= until) {
        client.wake(at);
        all.extend(drain(client).into_iter().map(|output| (at, output)));
    }
    all
}

fn entered(outputs: &[(Time, Output)]) -> Vec<Time> {
    let entered = outputs
        .iter()
        .filter(|(_, o)| matches!(o, Output::Entry(_)));
    entered.map(|(at, _)| *at).collect()
}

fn events(outputs: &[(Time, Output)]) -> BTreeMap<ClientEvent, usize> {
    let mut events = BTreeMap::new();
    for (_, output) in outputs {
        if let Output::Event(event) = output {
            *events.entry(*event).or_default() += 1;
        }
    }
    events
}

/// t07, CLI-2: the times of one seed are the same idle and with all that a client can do: a long
/// message, replies, acks, repair, a crash of the correspondent. The control: a driver that does not wait for slots while
/// a first burst is under way.
#[test]
fn what_is_sent_does_not_move_when() {
    let run = |busy: bool, waits: bool| {
        let mut net = Net::new(1, params(rates(8.0, 0.5, 16.0), 3600), 2);
        net.run(secs(1.0), |_| false);
        if busy {
            net.send(0, 1, 1, vec![1; 300_000], Return::Address);
            net.send(1, 1, 0, vec![2; 50_000], Return::Surbs(8));
            net.send(0, 2, 0, vec![3; 2000], Return::Address);
            net.loss = 0.15; // below what alarms a client (LOOP-4)
        }
        if !waits {
            net.run(secs(2.0), |_| false);
            let burst = net.count(0, ClientEvent::PayloadSent) + 150;
            net.hurry(0, |net| net.count(0, ClientEvent::PayloadSent) >= burst);
        }
        net.run(secs(60.0), |_| false);
        if busy {
            assert!(net.count(0, ClientEvent::PayloadSent) > 150);
            assert!(net.count(0, ClientEvent::AckReceived) > 0);
            net.crash(1, Duration::from_secs(10));
        }
        net.run(secs(90.0), |_| false);
        net.peers[0].written.clone()
    };
    let (idle, busy) = (run(false, true), run(true, true));
    assert!(idle.len() > 600);
    assert_eq!(idle, busy);
    let gaps = |times: &[Time]| -> Vec<f64> {
        let gap = |pair: &[Time]| pair[1].since(pair[0]).as_secs_f64();
        times.windows(2).map(gap).collect()
    };
    let hasty = run(true, false);
    let apart = distance(&gaps(&idle), &gaps(&hasty));
    let most = bound(idle.len(), hasty.len());
    assert!(apart - most > most, "control: {apart} of {most}");
}

/// CLI-3: payload slots and loops at the profile's rates, loops whether or not there is traffic.
#[test]
fn loops_run_at_their_own_rate() {
    let network = network(3, 3, own_family);
    let mut client = ready(1, &network);
    let all = run(&mut client, secs(300.0));
    let events = events(&all);
    // Five standard deviations of a Poisson count.
    assert!(
        events[&ClientEvent::DropSent].abs_diff(6_000) < 390,
        "{events:?}"
    );
    assert!(
        events[&ClientEvent::LoopSent].abs_diff(600) < 125,
        "{events:?}"
    );
    assert_eq!(events.get(&ClientEvent::TickSkipped), None);
}

/// CLI-3: the two processes of a client, and those of two clients, have nothing in common.
#[test]
fn processes_are_independent() {
    let params = params(rates(5.0, 5.0, 20.0), 3600);
    let network = Arc::new(consensus(params, 3, 3, own_family).0);
    let times = |seed: u8| {
        let all = run(&mut ready(seed, &network), secs(100.0));
        let of = |event: ClientEvent| -> BTreeSet<Time> {
            let these = all.iter().filter(|(_, o)| *o == Output::Event(event));
            these.map(|(at, _)| *at).collect()
        };
        [of(ClientEvent::DropSent), of(ClientEvent::LoopSent)]
    };
    let ([a, b], [c, d]) = (times(1), times(2));
    assert!(a.len() > 400 && b.len() > 400 && c.len() > 400 && d.len() > 400);
    for (one, other) in [(&a, &b), (&a, &c), (&a, &d), (&b, &c), (&b, &d), (&c, &d)] {
        assert!(one.is_disjoint(other));
    }
}

fn mailbox_up(client: &Client, byte: u8) -> Input {
    Input::MailboxUp {
        gateway: client.mailbox_gateway(),
        exporter: [byte; 32],
    }
}

/// t12, CLI-4: after ten seconds of standing still, nothing is made up: not for the entry link,
/// not for the mailbox link. The control: a driver that then gives the client each tick that it has missed.
#[test]
fn a_stop_makes_no_burst() {
    let network = network(3, 3, own_family);
    let stopped = || {
        let mut client = ready(2, &network);
        let up = mailbox_up(&client, 1);
        feed(&mut client, secs(0.0), up);
        run(&mut client, secs(5.0));
        client
    };
    let goes_on = secs(15.0);
    let at_once = |outputs: &[Output]| {
        let links = |output: &&Output| matches!(output, Output::Entry(_) | Output::Mailbox { .. });
        outputs.iter().filter(links).count()
    };
    let mut client = stopped();
    client.wake(goes_on);
    let outputs = drain(&mut client);
    assert_eq!(at_once(&outputs), 0);
    let skipped = |output: &&Output| **output == Output::Event(ClientEvent::TickSkipped);
    assert_eq!(outputs.iter().filter(skipped).count(), 3);
    // And the second after it is like any other: 22 packets on average, 50 never.
    let after = entered(&run(&mut client, secs(16.0)));
    assert!((5..50).contains(&after.len()), "{}", after.len());
    // A wake that is a little late sends one packet of each process.
    let late = client.next_wake().expect("it never stops").after(LATE_MAX);
    client.wake(late);
    let outputs: Vec<(Time, Output)> = drain(&mut client).into_iter().map(|o| (late, o)).collect();
    assert!((1..=2).contains(&entered(&outputs).len()));

    let made_up = run(&mut stopped(), goes_on);
    let made_up: Vec<Output> = made_up.into_iter().map(|(_, output)| output).collect();
    assert!(at_once(&made_up) > 150, "control: {}", at_once(&made_up));
}

/// t12, CLI-4: an entry link that takes nothing for ten seconds. No packet is built for it, so that
/// none counts as sent and no loop as lost; what leaves after leaves when it would have left anyway,
/// and the message arrives.
#[test]
fn a_full_entry_link_skips_ticks() {
    let stall = [secs(5.0), secs(15.0)];
    let sent = [
        ClientEvent::PayloadSent,
        ClientEvent::DropSent,
        ClientEvent::LoopSent,
    ];
    let run = |stalls: bool| {
        let mut net = Net::new(1, params(rates(8.0, 0.5, 16.0), 3600), 2);
        net.run(stall[0], |_| false);
        let full = |entry| Input::Full {
            entry,
            mailboxes: Vec::new(),
        };
        net.input(0, full(stalls));
        net.send(0, 1, 1, vec![1; 20_000], Return::Address);
        let before = sent.map(|event| net.count(0, event));
        net.run(stall[1], |_| false);
        if stalls {
            assert_eq!(sent.map(|event| net.count(0, event)), before);
            let is_sent = |progress: &Progress| progress.state == State::Sent;
            assert!(!net.peers[0].progress.iter().any(is_sent));
        }
        net.input(0, full(false));
        net.run(secs(60.0), |_| false);
        assert_eq!(net.count(0, ClientEvent::LoopLost), 0);
        assert_eq!(net.peers[1].taken.len(), 1);
        let skipped = net.count(0, ClientEvent::TickSkipped);
        (net.peers[0].written.clone(), skipped)
    };
    let ((mut free, none), (full, skipped)) = (run(false), run(true));
    let ticks = free.len();
    free.retain(|at| !(stall[0]..stall[1]).contains(at));
    assert_eq!(free, full);
    assert_eq!((none, skipped), (0, (ticks - full.len()) as u64));
    assert!(skipped > 50);
}

/// CLI-5: without calendar, without consensus, before the first epoch, after the last, and
/// without a link, nothing is sent; and nothing that was held back is made up.
#[test]
fn without_a_valid_epoch_nothing_is_sent() {
    let network = network(3, 3, own_family);
    let epochs_s = 16 * 3600;
    let up = |client: &mut Client| {
        enter(client);
        let up = mailbox_up(client, 1);
        feed(client, Time::ZERO, up);
    };
    let with = |consensus: bool, utc_s: Option<u64>, link: bool| {
        let mut client = client_of(3, 0);
        if let Some(utc_s) = utc_s {
            feed(&mut client, Time::ZERO, calendar(utc_s));
        }
        if consensus {
            feed(&mut client, Time::ZERO, Input::Consensus(network.clone()));
        }
        if link {
            up(&mut client);
        }
        let frames = |(_, output): &(Time, Output)| {
            matches!(output, Output::Entry(_) | Output::Mailbox { .. })
        };
        run(&mut client, secs(60.0))
            .iter()
            .filter(|o| frames(o))
            .count()
    };
    let now = START_S + 60;
    assert_eq!(with(false, Some(now), true), 0);
    assert_eq!(with(true, None, true), 0);
    assert_eq!(with(true, Some(START_S - 100), true), 0);
    assert_eq!(with(true, Some(START_S + epochs_s), true), 0);
    assert_eq!(with(true, Some(now), false), 0);
    assert!(with(true, Some(now), true) > 1000, "the control");

    // The network ends while the client runs.
    let mut client = ready(4, &network);
    feed(&mut client, Time::ZERO, calendar(START_S + epochs_s - 30));
    let sent = entered(&run(&mut client, secs(60.0)));
    assert!(sent.len() > 400);
    assert!(sent.iter().all(|at| *at < secs(30.0)));
    assert_eq!(client.epoch(secs(60.0)), None);
}

/// CLI-12: one switch instant for each epoch, within its room; the same after a restart.
#[test]
fn a_client_switches_once_an_epoch() {
    let network = network(3, 3, own_family);
    let schedule = network.schedule();
    let mut client = ready(5, &network);
    feed(&mut client, Time::ZERO, calendar(START_S));
    let mut other = ready(6, &network);
    feed(&mut other, Time::ZERO, calendar(START_S));
    let mut switches = Vec::new();
    for s in 0..3 * 3600u32 {
        let now = secs(f64::from(s));
        let epoch = client.epoch(now).expect("valid");
        assert_eq!(Some(epoch), other.epoch(now), "a property of the identity");
        if switches.last().is_none_or(|(_, last)| *last != epoch) {
            switches.push((u64::from(s), epoch));
        }
    }
    let [(0, Epoch(0)), (first, Epoch(1)), (second, Epoch(2))] = switches[..] else {
        panic!("{switches:?}");
    };
    let skew = schedule.skew().as_secs();
    let room = skew..schedule.grace().as_secs() - skew - schedule.transit.as_secs();
    assert!(room.contains(&(first - 3600)) && room.contains(&(second - 7200)));
    assert_ne!(first - 3600, second - 7200, "drawn for each");
}

/// CLI-8, CLI-9, CLI-10: triples are uniform over those in which no family meets itself, gateways of
/// drops over all; delays are exponential.
#[test]
fn routes_and_delays_follow_their_laws() {
    // "a" runs the first mix of each layer: of 27 triples, 7 have two of them or three.
    let family = |id: NodeId| {
        let first = [mix_id(0, 0), mix_id(1, 0), mix_id(2, 0)];
        let a = first.contains(&id);
        if a { "a".to_owned() } else { own_family(id) }
    };
    let params = params(rates(50.0, 0.01, 20.0), 3600);
    let (document, secrets) = consensus(params, 3, 3, family);
    let mut net = Net::with(2, document, secrets, 1);
    net.run(secs(100.0), |_| false);
    assert_eq!(net.routes.len(), 20 * 3);
    let total: u64 = net.routes.values().sum();
    let each = total as f64 / 60.0;
    for count in net.routes.values() {
        // Five standard deviations of a count.
        assert!(
            (*count as f64 - each).abs() < 5.0 * each.sqrt(),
            "{:?}",
            net.routes
        );
    }
    assert!(net.nobodys > total * 9 / 10);

    net.delays.sort();
    let n = net.delays.len() as f64;
    let distance = net.delays.iter().enumerate().map(|(i, delay)| {
        let law = 1.0 - (-delay.as_secs_f64() / 0.05).exp();
        (law - i as f64 / n).abs()
    });
    // Kolmogorov–Smirnov: 1.63 is the 1 % point.
    assert!(distance.fold(0.0, f64::max) < 1.63 / n.sqrt());
}

/// CLI-8: the law of mixes does not depend on who runs the gateways, so that the first mix tells an
/// entry gateway neither the client's mailbox gateway nor, of what leaves, where it goes. Where
/// families must meet nothing is sent and it is said.
#[test]
fn the_law_of_mixes_knows_no_gateways() {
    // Each gateway's operator runs a mix of the first layer as well.
    let operator = |id: NodeId| {
        let mut pairs = (0..3).map(|i| (gateway_id(i), mix_id(0, i)));
        let of = pairs.find(|(gateway, mix)| [*gateway, *mix].contains(&id));
        own_family(of.map_or(id, |(gateway, _)| gateway))
    };
    let params = params(rates(50.0, 5.0, 20.0), 3600);
    let (document, secrets) = consensus(params, 3, 3, operator);
    let mut net = Net::with(2, document, secrets, 2);
    for number in 0..40 {
        net.send(0, number, 1, body(9000, 1), Return::Surbs(2));
    }
    net.run(secs(100.0), |_| false);
    // First mixes of what went to each gateway.
    let mut firsts = BTreeMap::<NodeId, BTreeMap<NodeId, u64>>::new();
    for (route, count) in &net.routes {
        let of = firsts.entry(route[3]).or_default();
        *of.entry(route[0]).or_default() += count;
    }
    assert_eq!(firsts.len(), 3);
    for of in firsts.values() {
        let total: u64 = of.values().sum();
        let each = total as f64 / 3.0;
        assert!(total > 1000 && of.len() == 3, "{firsts:?}");
        for count in of.values() {
            let distance = (*count as f64 - each).abs();
            assert!(distance < 5.0 * each.sqrt(), "{firsts:?}");
        }
    }

    let one = network(2, 2, |_| "a".to_owned());
    let mut client = ready(8, &one);
    let all = run(&mut client, secs(20.0));
    assert_eq!(entered(&all), []);
    assert!(events(&all)[&ClientEvent::NoRoute] > 300);
}

/// LOOP-1, LOOP-2: a mix's loops go through itself, enter by no gateway of its family, and are all
/// that it sends.
#[test]
fn the_loops_of_a_mix_pass_it() {
    let own = mix_id(0, 1);
    let family = |id: NodeId| {
        let a = [own, gateway_id(1)].contains(&id);
        if a { "a".to_owned() } else { own_family(id) }
    };
    let network = network(3, 3, family);
    let node = |via: NodeId| {
        let mut rng = ChaCha12Rng::from_seed([9; 32]);
        let identity = Identity::generate(&mut rng, gateway_id(0));
        let config = Config {
            via: Some(via),
            profile: NODE_PROFILE.to_owned(),
            ..config()
        };
        let mut client = Client::new(config, [4; 32], identity, []).expect("a new one");
        feed(&mut client, Time::ZERO, calendar(START_S + 60));
        feed(&mut client, Time::ZERO, Input::Consensus(network.clone()));
        enter(&mut client);
        client
    };
    let mut client = node(own);
    assert_eq!(client.entry(), Some(gateway_id(2)));
    let all = run(&mut client, secs(60.0));
    let mut firsts = all.iter().filter_map(|(_, output)| {
        let Output::Entry(frame) = output else {
            return None;
        };
        Some(NodeId(frame.field()))
    });
    assert!(firsts.all(|first| first == own));
    let events = events(&all);
    // 2.2 / (50 ms × (3 layers + 3 gateways / 3 mixes)), for a minute.
    let sent = events[&ClientEvent::LoopSent] as f64;
    assert!((sent - 660.0).abs() < 5.0 * 660_f64.sqrt(), "{sent}");
    assert!(!events.contains_key(&ClientEvent::DropSent));

    // One that stands in no layer has no route.
    let mut stranger = node(NodeId([1; 32]));
    let all = run(&mut stranger, secs(10.0));
    assert_eq!(entered(&all), []);
}

/// CLI-11: the entry is not the mailbox gateway where there are two; a preference holds, and what
/// was chosen stays, across documents and restarts.
#[test]
fn the_entry_gateway_is_another_one_and_stays() {
    for seed in 0..20 {
        let client = ready(seed, &network(3, 4, own_family));
        assert!(client.entry().is_some_and(|entry| entry != gateway_id(0)));
    }
    assert_eq!(
        ready(1, &network(3, 1, own_family)).entry(),
        Some(gateway_id(0))
    );
    for seed in 0..20 {
        // Of its family if need be, but not itself.
        let client = ready(seed, &network(3, 2, |_| "a".to_owned()));
        assert_eq!(client.entry(), Some(gateway_id(1)));
    }

    let mut rng = ChaCha12Rng::from_seed([9; 32]);
    let identity = Identity::generate(&mut rng, gateway_id(0));
    let many = network(3, 9, own_family);
    for (prefers, gets) in [(Some(5), Some(5)), (Some(0), None)] {
        let mut config = config();
        config.entry = prefers.map(gateway_id);
        let mut client = Client::new(
            config,
            rng.next_u64()
                .to_be_bytes()
                .repeat(4)
                .try_into()
                .expect("32"),
            identity.clone(),
            [],
        )
        .expect("new");
        feed(&mut client, Time::ZERO, calendar(START_S + 60));
        let outputs = feed(&mut client, Time::ZERO, Input::Consensus(many.clone()));
        let entry = client.entry().expect("there are nine");
        assert!(gets.is_none_or(|i| entry == gateway_id(i)));
        assert_ne!(entry, gateway_id(0));
        feed(&mut client, Time::ZERO, Input::Consensus(many.clone()));
        assert_eq!(client.entry(), Some(entry));
        let Some(Output::Store { ops, .. }) = outputs.into_iter().next() else {
            panic!("the choice is stored");
        };
        let records = ops.into_iter().filter_map(|op| match op {
            proto::client::Op::Put { key, value } => Some((key, value)),
            proto::client::Op::Delete { .. } | proto::client::Op::Erase => None,
        });
        let mut again = Client::new(client_net::config(), [99; 32], identity.clone(), records)
            .expect("its own");
        feed(&mut again, Time::ZERO, calendar(START_S + 60));
        feed(&mut again, Time::ZERO, Input::Consensus(many.clone()));
        assert_eq!(again.entry(), Some(entry));
    }
}

/// CLI-13, CLI-14: the first tick comes at once and opens; then one each interval, whatever comes.
#[test]
fn confirmations_tick_at_a_constant_rate() {
    let network = network(3, 3, own_family);
    let mut client = ready(9, &network);
    let up = secs(3.25);
    run(&mut client, up);
    let link = mailbox_up(&client, 7);
    let outputs = feed(&mut client, up, link);
    let mut ticks: Vec<(Time, Confirmation)> = Vec::new();
    let mut note = |at: Time, output: &Output| {
        if let Output::Mailbox { frame, .. } = output {
            assert_eq!(frame.kind(), Some(Kind::Confirm));
            ticks.push((at, Confirmation::parse(frame).expect("one")));
        }
    };
    outputs.iter().for_each(|output| note(up, output));
    run(&mut client, secs(30.0))
        .iter()
        .for_each(|(at, output)| note(*at, output));
    assert_eq!(ticks.len(), 27);
    for (i, (at, confirmation)) in (0u32..).zip(&ticks) {
        assert_eq!(*at, up.after(Duration::from_secs(1) * i));
        assert_eq!(!confirmation.opens.is_empty(), i == 0);
    }
    let open = ticks[0].1.opens[0];
    let mailbox = proto::MailboxId::of(&open.key);
    assert_eq!(mailbox, client.address().mailbox);
    let key = ed25519_dalek::VerifyingKey::from_bytes(&open.key).expect("a key");
    let signature = ed25519_dalek::Signature::from_bytes(&open.signature);
    let statement = open_statement(&NETWORK, &mailbox, &[7; 32]);
    key.verify_strict(&statement, &signature)
        .expect("bound to this link");
}

/// An unknown profile, or a document of an earlier period, is not acted upon.
#[test]
fn old_documents_and_unknown_profiles_change_nothing() {
    let network = network(3, 3, own_family);
    let mut client = ready(10, &network);
    assert_eq!(
        client.profile().map(|(_, profile)| profile.name.as_str()),
        Some(PROFILE)
    );
    let mut later = Consensus::clone(&network);
    later.period = 1;
    later.valid_from_s += 8 * 3600;
    for node in &mut later.nodes {
        node.packet_keys.rotate_left(8);
    }
    // It comes early and waits for its first epoch.
    let later = Arc::new(later);
    feed(&mut client, Time::ZERO, Input::Consensus(later.clone()));
    assert_eq!(client.consensus().map(|c| c.period), Some(0));
    feed(&mut client, secs(1.0), calendar(START_S + 8 * 3600 - 10));
    run(&mut client, secs(20.0));
    assert_eq!(client.consensus().map(|c| c.period), Some(1));
    feed(&mut client, secs(20.0), Input::Consensus(network));
    assert_eq!(client.consensus().map(|c| c.period), Some(1));
    let _ = Target::Address(client.address());
}
