//! The rules of a gateway, one by one.

use core::time::Duration;
use std::collections::VecDeque;

use proptest::{prelude::*, test_runner::RngSeed};
use proto::{
    LinkId, Machine, MailboxId, Time,
    directory::Params,
    gateway::{Gateway, GatewayDrop, GatewayEvent, Input, Limits, Output},
    wire::{Frame, Kind, Purpose},
};

use super::{
    fixture::{
        DAY_S, EXPIRY_S, NETWORK, Owner, PERIOD_S, SEED, START_S, calendar_at, confirm, consensus,
        exporter, limits, linked, node, notice, packet, peeled, relayed,
    },
    world::{PERIOD, SECOND, World, at, dropped},
};
use crate::harness::call;

/// GW-5, GW-16, LNK-4: one confirmation opens as many as fit it, before its cursors count; after a signature that
/// does not hold none of its openings does.
#[test]
fn one_confirmation_opens_several() {
    let owners = [1, 2, 3].map(Owner::new);
    let [a, b, c] = &owners;
    let mut world = World::new(limits());
    let opened = |outputs: &[Output]| {
        let opened = |output: &&Output| **output == Output::Event(GatewayEvent::Opened);
        outputs.iter().filter(opened).count()
    };
    let link = world.link(1, Purpose::Mailbox);
    let many = (0u8..17).map(|i| Owner::new(100 + i).open(i.into(), &exporter(link)));
    let outputs = world.input(confirm(link, Vec::new(), many));
    assert_eq!(opened(&outputs), 17);

    let link = world.link(2, Purpose::Mailbox);
    let opens = [
        a.open(0, &exporter(link)),
        b.open_of(&a.mailbox(), 1, &exporter(link)),
        c.open(2, &exporter(link)),
    ];
    let outputs = world.input(confirm(link, Vec::new(), opens));
    assert_eq!(opened(&outputs), 1);
    assert_eq!(dropped(&outputs, GatewayDrop::BadOpen), 1);
    // One that fails for another reason keeps none of the others away.
    let opens = [b.open(0, &exporter(link)), c.open(2, &exporter(link))];
    let outputs = world.input(confirm(link, vec![(2, 0)], opens));
    assert_eq!(opened(&outputs), 1);
    assert_eq!(dropped(&outputs, GatewayDrop::SlotTaken), 1);
    assert_eq!(
        dropped(&outputs, GatewayDrop::Cursor),
        0,
        "it is open by then"
    );
}

/// GW-6, GW-7, GW-8: slots, the newest link, and room for mailboxes.
#[test]
fn opening_rules() {
    let [a, b, c] = [1, 2, 3].map(Owner::new);
    let mut world = World::new(Limits {
        mailboxes_max: 2,
        ..limits()
    });
    let link = world.open(1, &a);
    let say = |world: &mut World, link, owner: &Owner, slot| {
        world.now = world.now.after(Duration::from_secs(1));
        let open = owner.open(slot, &exporter(link));
        world.input(confirm(link, Vec::new(), Some(open)))
    };
    let opened = Output::Event(GatewayEvent::Opened);
    let displaced = Output::Event(GatewayEvent::Displaced);
    assert!(
        !say(&mut world, link, &a, 0).contains(&opened),
        "said twice"
    );
    assert_eq!(
        dropped(&say(&mut world, link, &a, 1), GatewayDrop::SlotTaken),
        1
    );
    assert_eq!(
        dropped(&say(&mut world, link, &b, 0), GatewayDrop::SlotTaken),
        1
    );
    assert!(say(&mut world, link, &b, 7).contains(&opened));
    assert_eq!(
        dropped(&say(&mut world, link, &c, 1), GatewayDrop::MailboxesFull),
        1
    );
    // The newest link wins; the loser ticks on, and hears of it only by silence.
    let newer = world.link(2, Purpose::Mailbox);
    assert!(say(&mut world, newer, &a, 3).contains(&displaced));
    world.arrive(a.mailbox(), 0..5);
    world.until(at(10 * SECOND));
    assert_eq!(world.sent(newer).len(), 5);
    assert_eq!(world.sent(link), []);
    assert!(world.times(link).last().unwrap().since(at(9 * SECOND)) > Duration::ZERO);
    // What it confirms now is nobody's.
    let outputs = world.input(confirm(link, vec![(0, 1)], None));
    assert_eq!(dropped(&outputs, GatewayDrop::Cursor), 1);
}

/// GW-6: no more than 64 mailboxes on a link.
#[test]
fn a_link_has_64_slots() {
    let mut world = World::new(limits());
    let link = world.link(1, Purpose::Mailbox);
    for i in 0..65u16 {
        world.now = world.now.after(Duration::from_secs(1));
        let open = Owner::new(i as u8).open(i, &exporter(link));
        let outputs = world.input(confirm(link, Vec::new(), Some(open)));
        assert_eq!(
            dropped(&outputs, GatewayDrop::SlotTaken),
            usize::from(i == 64)
        );
    }
    assert_eq!(world.gateway.mailboxes(), 64);
}

/// GW-15, GW-16: cursors beyond what was sent are nothing; a reconnect resends what no cursor
/// has confirmed, and a cursor for what an earlier link carried counts.
#[test]
fn cursors_and_reconnects() {
    let owner = Owner::new(1);
    let mut world = World::new(limits());
    let link = world.open(1, &owner);
    world.arrive(owner.mailbox(), 0..20);
    world.until(at(10 * PERIOD));
    assert_eq!(world.sent(link), (1..=10).collect::<Vec<_>>());
    let mailbox = owner.mailbox();
    let [nothing, dropped] = [vec![], vec![Output::Dropped(GatewayDrop::Cursor)]];
    let confirmed = |upto| vec![Output::Confirm { mailbox, upto }];
    for (upto, expected) in [
        (11, dropped.clone()),
        (u64::MAX, dropped),
        (4, confirmed(4)),
        (4, nothing.clone()),
        (3, nothing),
    ] {
        assert_eq!(world.input(confirm(link, vec![(0, upto)], None)), expected);
    }
    world.input(Input::Unlinked { link });
    let again = world.open(2, &owner);
    world.until(at(15 * PERIOD));
    assert_eq!(world.sent(again), (5..=9).collect::<Vec<_>>());
    // The first link carried number 10, which lies loaded for this one.
    let outputs = world.input(confirm(again, vec![(0, 10)], None));
    assert_eq!(outputs, confirmed(10));
    world.until(at(17 * PERIOD));
    assert_eq!(world.sent(again)[5..], [11, 12]);
    world.input(Input::Unlinked { link: again });
    // The cursor rides with the opening: nothing that the client has is sent again.
    let third = world.link(3, Purpose::Mailbox);
    let open = owner.open(0, &exporter(third));
    world.input(confirm(third, vec![(0, 12)], Some(open)));
    world.until(at(60 * PERIOD));
    assert_eq!(world.sent(third), (13..=20).collect::<Vec<_>>());
}

/// GW-28, GW-29: of two gateways on one store the one that opened a mailbox last has it; what the
/// other stores is sent here as if it had been stored here.
#[test]
fn a_mailbox_goes_to_the_gateway_that_opened_it_last() {
    let owner = Owner::new(1);
    let mailbox = owner.mailbox();
    let displaced = Output::Event(GatewayEvent::Displaced);
    let mut world = World::new(limits());
    let link = world.open(1, &owner);
    let news = |world: &mut World| {
        let change = world.store.change(mailbox);
        world.input(Input::Changed(vec![change]))
    };
    assert_eq!(news(&mut world), [], "its own opening");
    world.store.put(mailbox, START_S + 3_600, packet(1));
    news(&mut world);
    world.until(at(SECOND));
    assert_eq!(world.sent(link), [1]);

    world.store.open(mailbox);
    assert_eq!(news(&mut world), std::slice::from_ref(&displaced));
    world.store.put(mailbox, START_S + 3_600, packet(2));
    assert_eq!(news(&mut world), []);
    let cursor = world.input(confirm(link, vec![(0, 1)], None));
    assert_eq!(dropped(&cursor, GatewayDrop::Cursor), 1);
    world.until(at(2 * SECOND));
    assert_eq!(world.sent(link), [1], "closed");
    assert_eq!(world.times(link).len(), 80, "and told nothing");
    let again = world.open(2, &owner);
    assert_eq!(news(&mut world), []);
    world.until(at(3 * SECOND));
    assert_eq!(world.sent(again), [1, 2]);

    // What was read before an opening here was counted says nothing against it.
    let newest = LinkId(3);
    let call = |world: &mut World, input| call(&mut world.gateway, world.now, Some(input));
    call(&mut world, linked(newest, Purpose::Mailbox, 0));
    let open = owner.open(0, &exporter(newest));
    let opening = call(&mut world, confirm(newest, Vec::new(), Some(open)));
    assert!(opening.contains(&Output::Open { mailbox }));
    world.store.open(mailbox);
    let stale = Input::Changed(vec![world.store.change(mailbox)]);
    assert!(!call(&mut world, stale).contains(&displaced));
    for asked in opening {
        for answer in world.store.answer(asked) {
            world.input(answer);
        }
    }
    assert!(!news(&mut world).contains(&displaced));
    world.store.open(mailbox);
    assert!(news(&mut world).contains(&displaced));
}

/// GW-8, GW-29: a mailbox that was registered at another gateway gets packets here, if there is room.
#[test]
fn a_mailbox_of_another_gateway_is_known_here() {
    let [a, b] = [1, 2].map(|i| Owner::new(i).mailbox());
    let mut world = World::new(Limits {
        mailboxes_max: 1,
        quota: 3,
        ..limits()
    });
    for mailbox in [a, b] {
        world.store.boxes.entry(mailbox).or_default();
    }
    world.store.put(a, START_S + 3_600, packet(1));
    let changes = [a, b].map(|mailbox| world.store.change(mailbox));
    world.input(Input::Changed(changes.to_vec()));
    let came = world.arrive(a, 2..5);
    assert_eq!(dropped(&came, GatewayDrop::Quota), 1, "{came:?}");
    assert_eq!(world.store.boxes[&a].len(), 3);
    let none = world.arrive(b, 5..6);
    assert_eq!(none, [Output::Dropped(GatewayDrop::NoMailbox)]);
    // What is read at the other gateway makes room at this one.
    world.store.boxes.insert(a, Vec::new());
    world.input(Input::Changed(vec![world.store.change(a)]));
    assert_eq!(dropped(&world.arrive(a, 6..7), GatewayDrop::Quota), 0);
}

/// GW-2, GW-9: where packets may go, and what a mailbox gateway refuses.
#[test]
fn packets_go_where_they_may() {
    let owner = Owner::new(1);
    let mut world = World::new(limits());
    world.open(1, &owner);
    let entry = world.link(2, Purpose::Entry);
    let relay = |first| Output::Relay {
        to: node(first),
        packet: packet(5),
    };
    assert_eq!(world.input(relayed(entry, node(1), 5)), [relay(1)]);
    let wrong = world.input(relayed(entry, node(3), 5));
    assert_eq!(wrong, [Output::Dropped(GatewayDrop::WrongFirst)]);
    let mut late = peeled(world.now, owner.mailbox(), 6);
    late.delay = Duration::from_nanos(1);
    let outputs = world.input(Input::Peeled(late));
    assert_eq!(outputs, [Output::Dropped(GatewayDrop::DelayNotZero)]);
    let outputs = world.arrive(MailboxId([7; 32]), 0..1);
    assert_eq!(outputs, [Output::Dropped(GatewayDrop::NoMailbox)]);
    // At a period's edge both first layers count, afterwards the new one alone.
    world.input(Input::Consensus(consensus(
        2,
        &[2, 3],
        Params::default().profiles,
    )));
    let edge_s = START_S + PERIOD_S + DAY_S / 4 + 300;
    for (utc_s, old) in [(edge_s - 1, true), (edge_s, false)] {
        world.input(calendar_at(world.now, utc_s));
        assert_eq!(world.input(relayed(entry, node(3), 5)), [relay(3)]);
        assert_eq!(world.input(relayed(entry, node(1), 5)) == [relay(1)], old);
    }
}

/// GW-14: what is too old is neither kept nor sent; outside all epochs nothing is deleted.
#[test]
fn packets_expire() {
    let owner = Owner::new(1);
    let mut world = World::new(limits());
    world.open(1, &owner);
    world.input(Input::Unlinked { link: LinkId(1) });
    let stored_at_s = START_S + 3_600;
    world.arrive(owner.mailbox(), 0..3);
    let expires: Vec<u64> = (1..=4)
        .filter_map(|hour| {
            world.wake(at(hour * 3_600 * SECOND));
            match world.log.last() {
                Some((_, Output::Expire { before_s })) => Some(*before_s),
                _ => None,
            }
        })
        .collect();
    let expected = (1..=4).map(|hour| stored_at_s + hour * 3_600 - u64::from(EXPIRY_S));
    assert_eq!(expires, expected.collect::<Vec<_>>());
    assert!(world.store.boxes[&owner.mailbox()].is_empty());
    // A clock gone wrong: no epoch, no deletion.
    world.arrive(owner.mailbox(), 3..6);
    world.input(calendar_at(world.now, START_S * 1_000));
    let before = world.log.len();
    world.wake(at(6 * 3_600 * SECOND));
    assert_eq!(world.log.len(), before);
    assert_eq!(world.store.boxes[&owner.mailbox()].len(), 3);
}

/// GW-17, GW-18: before a consensus, after its last epoch, and once the store has failed,
/// nothing goes in or out but dummies.
#[test]
fn stops_closed() {
    let mut new = Gateway::new(limits(), NETWORK, SEED);
    let close = Output::Close { link: LinkId(1) };
    let outputs = call(
        &mut new,
        Time::ZERO,
        Some(linked(LinkId(1), Purpose::Entry, 0)),
    );
    assert_eq!(outputs, [close, Output::Event(GatewayEvent::LinkRefused)]);

    let end = |world: &World| calendar_at(world.now, START_S + 4 * DAY_S);
    let fail = |_: &World| Input::StoreFailed;
    let nothing = |_: &World| Input::Unlinked { link: LinkId(99) };
    type Way = fn(&World) -> Input;
    let ways: [(Way, bool); 3] = [(end, true), (fail, true), (nothing, false)];
    for (way, closed) in ways {
        let owner = Owner::new(1);
        let mut world = World::new(limits());
        let link = world.open(1, &owner);
        let entry = world.link(2, Purpose::Entry);
        world.arrive(owner.mailbox(), 0..10);
        let input = way(&world);
        world.input(input);
        let mut outputs = world.arrive(owner.mailbox(), 10..11);
        outputs.extend(world.input(relayed(entry, node(1), 0)));
        world.until(at(SECOND));
        assert_eq!(world.times(link).len(), 40);
        assert_eq!(world.sent(link).len(), if closed { 0 } else { 11 });
        assert_eq!(
            dropped(&outputs, GatewayDrop::Closed),
            if closed { 2 } else { 0 }
        );
    }
}

#[derive(Clone, Debug)]
enum Act {
    Arrive(u64),
    Wait(u64),
    Answer(usize),
    Confirm,
    Reconnect,
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, rng_seed: RngSeed::Fixed(18), ..ProptestConfig::default()
    })]

    /// GW-11, GW-15, GW-16: however the store lags and links come and go, a link carries a
    /// mailbox's packets in order, each once, from the first unconfirmed, and in the end all.
    #[test]
    fn a_mailbox_loses_and_repeats_nothing(
        acts in prop::collection::vec(prop_oneof![
            (1u64..6).prop_map(Act::Arrive),
            (1u64..6).prop_map(Act::Wait),
            (1usize..8).prop_map(Act::Answer),
            Just(Act::Confirm),
            Just(Act::Reconnect),
        ], 0..60),
        read_ahead in 1usize..6,
    ) {
        let owner = Owner::new(1);
        let mailbox = owner.mailbox();
        let mut world = World::new(Limits { read_ahead, ..limits() });
        let mut asked: VecDeque<Output> = VecDeque::new();
        let mut got: Vec<u64> = Vec::new(); // on the present link
        let (mut link, mut first, mut confirmed, mut came) = (LinkId(1), 1, 0, 0);
        world.open(1, &owner);
        let end = [Act::Answer(usize::MAX), Act::Wait(400)];
        for act in acts.into_iter().chain(end) {
            let mut now = world.now;
            let mut inputs = VecDeque::new();
            match act {
                Act::Arrive(n) => {
                    let new = (came..came + n).map(|i| Input::Peeled(peeled(now, mailbox, i)));
                    inputs.extend(new);
                    came += n;
                }
                Act::Wait(periods) => now = now.after(Duration::from_nanos(periods * PERIOD)),
                Act::Answer(n) => {
                    for ask in asked.drain(..n.min(asked.len())).collect::<Vec<_>>() {
                        inputs.extend(world.store.answer(ask));
                    }
                }
                Act::Confirm => if let Some(last) = got.last().copied() {
                    confirmed = confirmed.max(last);
                    inputs.push_back(confirm(link, vec![(0, confirmed)], None));
                },
                Act::Reconnect => {
                    inputs.push_back(Input::Unlinked { link });
                    link = LinkId(link.0 + 1);
                    got.clear();
                    first = confirmed + 1;
                    inputs.push_back(linked(link, Purpose::Mailbox, 0));
                    let open = owner.open(0, &exporter(link));
                    inputs.push_back(confirm(link, Vec::new(), Some(open)));
                }
            }
            // The gateway's wakes until `now`, then the inputs; at the end answers are at once.
            let last = matches!(act, Act::Wait(400) | Act::Answer(usize::MAX));
            loop {
                let input = inputs.pop_front();
                let due = world.gateway.next_wake().filter(|at| *at <= now);
                let call_at = match (&input, due) {
                    (Some(_), _) => world.now,
                    (None, Some(at)) => at,
                    (None, None) => break,
                };
                world.now = call_at;
                for output in call(&mut world.gateway, call_at, input) {
                    match output {
                        Output::Frame { link: l, frame } if frame.kind() == Some(Kind::Packet) => {
                            prop_assert_eq!(l, link);
                            got.push(frame.numbers().0);
                        }
                        other if last => inputs.extend(world.store.answer(other)),
                        other => asked.push_back(other),
                    }
                }
            }
            world.now = now;
            let run: Vec<u64> = (first..).take(got.len()).collect();
            prop_assert_eq!(&got, &run);
        }
        prop_assert_eq!(got.last().copied().unwrap_or(confirmed).max(confirmed), came);
    }
}

/// LOOP-9, GW-12: notices go out once on each mailbox link, the newest first, in place of dummies, and
/// move no tick.
#[test]
fn notices_stand_in_for_dummies() {
    let play = |notices: u8| {
        let mut world = World::new(limits());
        let link = world.link(1, Purpose::Mailbox);
        for n in 0..notices {
            world.input(notice(n));
        }
        world.until(at(2 * SECOND));
        world.frames(link)
    };
    let (without, with) = (play(0), play(3));
    assert_eq!(without.len(), with.len());
    for ((then, before), (now, frame)) in without.iter().zip(&with) {
        assert_eq!(then, now, "no tick moves");
        let replaces = before.kind() == Some(Kind::Dummy) && frame.kind() == Some(Kind::Notice);
        assert!(replaces || before == frame, "{before:?} {frame:?}");
    }
    assert_eq!(notices_of(&with), [2, 1, 0]);
    // A link that gets no tick in between keeps the newest eight.
    assert_eq!(notices_of(&play(20)), (12..20).rev().collect::<Vec<_>>());
}

fn notices_of(frames: &[(Time, Frame)]) -> Vec<u8> {
    let of_kind = |(_, frame): &&(Time, Frame)| frame.kind() == Some(Kind::Notice);
    let notices = frames.iter().filter(of_kind);
    notices.map(|(_, frame)| frame.body()[0]).collect()
}

/// LOOP-9, GW-12, GW-13: a mailbox that is never empty keeps no notice away: one in a minute goes before its
/// packets, which lose those ticks and nothing else.
#[test]
fn a_backlog_keeps_no_notice_away() {
    let owner = Owner::new(1);
    let end = at(150 * SECOND);
    let play = |notices: u8| {
        let mut world = World::new(limits());
        let link = world.open(1, &owner);
        world.arrive(owner.mailbox(), 0..end.as_nanos() / PERIOD);
        for n in 0..notices {
            world.input(notice(n));
        }
        world.until(end);
        (world.times(link), world.sent(link), world.frames(link))
    };
    let ((times, all, frames), (same_times, left, with)) = (play(0), play(8));
    assert_eq!(times, same_times, "no tick moves");
    assert_eq!(all.len(), frames.len(), "the mailbox is never empty");
    assert_eq!(notices_of(&with), [7, 6, 5]);
    assert_eq!(left, all[..all.len() - 3]);
    let notices = with
        .iter()
        .filter(|(_, frame)| frame.kind() == Some(Kind::Notice));
    let sent: Vec<Time> = notices.map(|(at, _)| *at).collect();
    for two in sent.windows(2) {
        assert!(two[1].since(two[0]) >= Duration::from_secs(60));
    }
}
