//! Attacks on a gateway.
//!
//! Each has a positive control: its check is made to fail by a gateway that the test itself has
//! weakened, so that a check that sees nothing is seen. A rhythm is taken out of it by a driver that does not wait for the
//! next tick (p18), or that works off what it has missed (t12).

use core::time::Duration;

use chacha20::ChaCha12Rng;
use proto::{
    LinkId, Machine as _, Time,
    gateway::{GatewayDrop, GatewayEvent, Input, Limits, Output},
    wire::{FRAME_LEN, Frame, Open, Purpose},
};
use rand::RngExt;
use rand_core::SeedableRng;

use super::{
    fixture::{Owner, confirm, exporter, limits, node, relayed},
    world::{MS, PERIOD, SECOND, World, at, dropped, names},
};
use crate::kolmogorov::{bound, distance};

/// p18: a thousand replies at once leave the victim's link as it was: GW-11, GW-12, GW-13. The control: a driver that
/// does not wait for ticks while there is something to send.
#[test]
fn attack_p18_burst_of_replies() {
    let run = |burst: u64, waits: bool| {
        let owner = Owner::new(1);
        let mut world = World::new(limits());
        let link = world.open(1, &owner);
        world.until(at(SECOND + 3));
        let outputs = world.arrive(owner.mailbox(), 0..burst);
        assert_eq!(dropped(&outputs, GatewayDrop::Quota), 0);
        world.leaves = Some(world.now).filter(|_| !waits);
        while !waits && world.gateway.loaded() > 0 {
            let next = world.gateway.next_wake().expect("a tick");
            world.wake(next);
        }
        world.leaves = None;
        world.until(at(40 * SECOND));
        let frames = world.frames(link);
        assert!(
            frames
                .iter()
                .all(|(_, frame)| frame.as_bytes().len() == FRAME_LEN)
        );
        (world.times(link), names(&frames))
    };
    let (quiet, nothing) = run(0, true);
    let (burst, packets) = run(1000, true);
    assert_eq!(quiet.len(), 1600);
    assert!(nothing.is_empty());
    assert_eq!(burst, quiet);
    let names: Vec<u64> = packets.iter().map(|(_, name)| *name).collect();
    assert_eq!(names, (0..1000).collect::<Vec<_>>());
    let (hasty, packets) = run(1000, false);
    assert_eq!(packets.len(), 1000);
    let apart = distance(&gaps(&hasty), &gaps(&quiet));
    let least = apart - bound(hasty.len(), quiet.len());
    assert!(least > 0.5, "positive control: {apart}, at least {least}");
}

/// Seconds from each frame to the next.
fn gaps(times: &[Time]) -> Vec<f64> {
    let gap = |pair: &[Time]| pair[1].since(pair[0]).as_secs_f64();
    times.windows(2).map(gap).collect()
}

/// Whether any stretch of time sees more frames than its rate, rounded up, and one: GW-12.
fn bursts(times: &[Time], period: u64) -> bool {
    let most = |from: Time, to: Time| {
        let span = u64::try_from(to.since(from).as_nanos()).unwrap();
        usize::try_from(span.div_ceil(period)).unwrap() + 1
    };
    (0..times.len()).any(|i| (i..times.len()).any(|j| j + 1 - i > most(times[i], times[j])))
}

/// t12: a gateway that stood still for ten seconds makes up for nothing: GW-12. The control: a driver that then gives it
/// the ticks that it has missed, one after the other.
#[test]
fn attack_t12_no_burst_after_a_stop() {
    let run = |works_off: bool| {
        let owner = Owner::new(1);
        let mut world = World::new(limits());
        let link = world.open(1, &owner);
        world.arrive(owner.mailbox(), 0..1000);
        world.until(at(2 * SECOND));
        let goes_on = at(12 * SECOND + 7); // stopped in between
        if works_off {
            world.leaves = Some(goes_on);
            world.until(goes_on);
            world.leaves = None;
        } else {
            world.wake(goes_on);
        }
        world.until(at(14 * SECOND));
        let skipped = |(_, output): &(Time, Output)| match output {
            Output::Event(GatewayEvent::TicksSkipped(skipped)) => *skipped,
            _ => 0,
        };
        let skipped: u64 = world.log.iter().map(skipped).sum();
        (world.times(link), skipped)
    };
    let (times, skipped) = run(false);
    assert_eq!((times.len(), skipped), (4 * 40 + 1, 399));
    assert!(!bursts(&times, PERIOD));
    // On the grid of the first tick still.
    let on_grid = |time: &Time| {
        time.since(times[0])
            .as_nanos()
            .is_multiple_of(PERIOD.into())
    };
    assert_eq!(times.iter().filter(|time| !on_grid(time)).count(), 1);

    let (made_up, skipped) = run(true);
    assert_eq!((made_up.len(), skipped), (14 * 40, 0));
    assert!(bursts(&made_up, PERIOD), "positive control");
}

/// g02: links and frames without end: memory stays, honest links keep their times: GW-1, GW-3,
/// GW-4, GW-19.
#[test]
fn attack_g02_floods() {
    let honest = |flood: bool, limits: Limits| {
        let owner = Owner::new(1);
        let mut world = World::new(limits);
        let link = world.open(1, &owner);
        if flood {
            for other in 2..10_002 {
                world.link(
                    other,
                    [Purpose::Entry, Purpose::Mailbox][other as usize % 2],
                );
            }
            for tenth in 1..=10 {
                world.until(at(tenth * 100 * MS));
                for name in 0..500 {
                    let other = LinkId(2 + name % 200);
                    world.input(relayed(other, node(1), name));
                    let garbage = Frame::from_bytes(Box::new([0xff; FRAME_LEN]));
                    world.input(Input::Frame {
                        link: other,
                        frame: garbage,
                    });
                }
            }
        }
        world.until(at(SECOND));
        (
            world.times(link),
            world.gateway.links(),
            world.gateway.loaded(),
            world.log,
        )
    };
    let bounded = |links: usize| links <= limits().links_max;
    let (quiet, ..) = honest(false, limits());
    let (times, links, loaded, log) = honest(true, limits());
    assert_eq!(times, quiet);
    assert!(bounded(links) && loaded == 0);
    let closed = |(_, output): &&(Time, Output)| matches!(output, Output::Close { .. });
    assert_eq!(
        log.iter().filter(closed).count(),
        10_001 - limits().links_max
    );
    let outputs: Vec<Output> = log.into_iter().map(|(_, output)| output).collect();
    assert!(dropped(&outputs, GatewayDrop::NoLink) > 0);
    assert!(dropped(&outputs, GatewayDrop::Kind) > 0);
    // The weakened gateway: no limit to speak of.
    let links_max = usize::MAX;
    let (_, links, ..) = honest(
        true,
        Limits {
            links_max,
            ..limits()
        },
    );
    assert!(!bounded(links), "positive control");
}

/// GW-3: an honest client, whose frames come as a Poisson process, loses none of 200 000; one
/// that sends ten times as fast gets what its profile allows. A bucket that fills at the honest
/// rate exactly would lose the honest client hundreds.
#[test]
fn a_client_sends_as_fast_as_its_profile_allows_and_no_faster() {
    const FRAMES: u32 = 200_000;
    let arrivals = |rate_hz: f64| {
        let mut rng = ChaCha12Rng::from_seed([3; 32]);
        let mut now_s = 0.0;
        (0..FRAMES).map(move |_| {
            let uniform: f64 = rng.random();
            now_s += -(1.0 - uniform).ln() / rate_hz;
            now_s
        })
    };
    let lost = |rate_hz: f64| {
        let mut world = World::new(limits());
        let link = world.link(1, Purpose::Entry);
        let mut lost = 0;
        for now_s in arrivals(rate_hz) {
            world.now = Time::ZERO.after(Duration::from_secs_f64(now_s));
            lost += dropped(&world.input(relayed(link, node(1), 0)), GatewayDrop::Rate);
            world.log.clear();
        }
        lost
    };
    assert_eq!(lost(22.0), 0);
    let allowed = f64::from(FRAMES) / 220.0 * 22.0 * 1.25 + 64.0;
    let passed = f64::from(FRAMES) - lost(220.0) as f64;
    assert!(
        (passed / allowed - 1.0).abs() < 0.01,
        "{passed} of {allowed}"
    );

    // The weakened gateway: no headroom.
    let (mut full_at, mut exact) = (0.0f64, 0);
    for now_s in arrivals(22.0) {
        full_at = full_at.max(now_s);
        if full_at - now_s <= 63.0 / 22.0 {
            full_at += 1.0 / 22.0;
        } else {
            exact += 1;
        }
    }
    assert!(exact > 100, "positive control: {exact}");
}

/// g03: nobody but the holder of its key gets a mailbox's packets: GW-5, GW-6, GW-7.
#[test]
fn attack_g03_theft() {
    let owner = Owner::new(1);
    let thief = Owner::new(2);
    let victim = owner.mailbox();
    let mine = LinkId(2);
    let overheard = owner.open(0, &exporter(LinkId(1)));
    let signed_by_thief = Open {
        signature: thief.open_of(&victim, 0, &exporter(mine)).signature,
        ..overheard
    };
    let other_exporter = owner.open(0, &[0; 32]);
    let mut weak_key = signed_by_thief;
    weak_key.key = [0; 32];
    weak_key.signature = [0; 64];
    weak_key.signature[0] = 1; // R = identity, S = 0: what `verify_strict` is for
    let right = owner.open(0, &exporter(mine));

    let gets = |open: Open| {
        let mut world = World::new(limits());
        let link = world.open(1, &owner);
        world.link(mine.0, Purpose::Mailbox);
        let outputs = world.input(confirm(mine, Vec::new(), Some(open)));
        world.arrive(victim, 0..10);
        world.until(at(SECOND));
        let got = world.sent(mine).len();
        assert_eq!(got + world.sent(link).len(), 10, "somebody has them");
        assert_eq!(
            dropped(&outputs, GatewayDrop::BadOpen),
            usize::from(got == 0)
        );
        got
    };
    for open in [overheard, signed_by_thief, other_exporter, weak_key] {
        assert_eq!(gets(open), 0);
    }
    assert_eq!(gets(right), 10, "positive control");
}

/// g03: a flood to one mailbox starves no other, on no link: GW-10, GW-13.
#[test]
fn attack_g03_flood() {
    let [flooded, neighbour, far] = [1, 2, 3].map(Owner::new);
    let limits = Limits {
        quota: 500,
        ..limits()
    };
    let mut world = World::new(limits);
    let link = world.open(1, &flooded);
    let open = neighbour.open(1, &exporter(link));
    world.input(confirm(link, Vec::new(), Some(open)));
    let far_link = world.open(2, &far);
    world.until(at(SECOND));
    let outputs = world.arrive(flooded.mailbox(), 0..1000);
    assert_eq!(dropped(&outputs, GatewayDrop::Quota), 500);
    world.arrive(neighbour.mailbox(), 1000..1001);
    world.arrive(far.mailbox(), 1001..1002);
    // The weakened gateway: one queue for all, so one more packet behind the flood.
    world.input(Input::Removed {
        mailbox: flooded.mailbox(),
        packets: 1,
    });
    world.arrive(flooded.mailbox(), 1002..1003);
    world.until(at(30 * SECOND));
    let soon = |link: LinkId, name: u64| {
        let packets = names(&world.frames(link));
        let (time, _) = packets.iter().find(|(_, n)| *n == name).expect("it came");
        *time <= at(SECOND + 2 * PERIOD)
    };
    assert!(soon(link, 1000) && soon(far_link, 1001));
    assert!(!soon(link, 1002), "positive control");
}
