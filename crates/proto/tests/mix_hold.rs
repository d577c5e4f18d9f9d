//! A mix that holds its output back: what it lets go when, and that it stays a machine.

mod harness;

use core::time::Duration;

use harness::{Call, call, deterministic, drain, harmless_wake, ns, progress};
use proptest::prelude::*;
use proto::{
    Machine, NodeId, Time,
    calendar::Epoch,
    mix::{HOLD, HOLDS, Input, Mix, MixDrop, Output, always},
    peel::Peeled,
};
use sphinx::PACKET_LEN;

const NEXT: NodeId = NodeId([1; 32]);
const MEAN: Duration = Duration::from_millis(50);

fn packet(now: Time, number: u32, delay: Duration) -> Input {
    let mut packet = Box::new([0; PACKET_LEN]);
    packet[..4].copy_from_slice(&number.to_be_bytes());
    Input::Peeled(Peeled {
        received: now,
        next: NEXT.0,
        epoch: Epoch(0),
        delay,
        packet,
    })
}

fn hold(seed: u8) -> Input {
    Input::Hold {
        delay_mean: MEAN,
        seed: [seed; 32],
    }
}

fn mix(pool_max: usize) -> Mix {
    let mut mix = Mix::new(pool_max);
    call(&mut mix, Time::ZERO, Some(Input::Next(always([NEXT]))));
    mix
}

/// Wakes it whenever it asks, until `until`: numbers of packets, and when they left.
fn left(mix: &mut Mix, until: Time) -> Vec<(Time, u32)> {
    let mut all = Vec::new();
    while let Some(at) = mix.next_wake().filter(|at| *at <= until) {
        for output in call(mix, at, None) {
            if let Output::Send { packet, .. } = output {
                let [a, b, c, d, ..] = *packet;
                all.push((at, u32::from_be_bytes([a, b, c, d])));
            }
        }
    }
    all
}

/// MIX-6: nothing leaves during a hold; what is late by its end leaves with fresh exponential
/// delays, in another order than it would have, and what is not late leaves when it is due.
#[test]
fn a_hold_keeps_everything_and_then_draws_anew() {
    const PACKETS: u32 = 2000;
    let mut mix = mix(5000);
    let end = Time::ZERO.after(HOLD);
    assert_eq!(
        call(&mut mix, Time::ZERO, Some(hold(1))),
        [Output::Holding { until: end }]
    );
    for number in 0..PACKETS {
        let now = Time::ZERO.after(HOLD / PACKETS * number);
        assert_eq!(call(&mut mix, now, Some(packet(now, number, MEAN / 2))), []);
        assert_eq!(mix.next_wake(), Some(end));
    }
    let later = HOLD * 2;
    call(&mut mix, end.after(Duration::ZERO), None);
    call(&mut mix, end, Some(packet(end, PACKETS, later)));
    let all = left(&mut mix, end.after(later));
    assert_eq!(all.len(), PACKETS as usize + 1);
    assert_eq!(all.last(), Some(&(end.after(later), PACKETS)));
    assert!(all.iter().all(|(at, _)| *at >= end));

    let mut delays: Vec<f64> = all[..PACKETS as usize]
        .iter()
        .map(|(at, _)| at.since(end).as_secs_f64())
        .collect();
    delays.sort_by(f64::total_cmp);
    let n = delays.len() as f64;
    let distance = (0..).zip(&delays).map(|(i, delay)| {
        let law = 1.0 - (-delay / MEAN.as_secs_f64()).exp();
        (law - f64::from(i) / n).abs()
    });
    // Kolmogorov–Smirnov: 1.63 is the 1 % point.
    assert!(distance.fold(0.0, f64::max) < 1.63 / n.sqrt());
    let in_order = all.windows(2).filter(|two| two[0].1 < two[1].1).count();
    assert!(in_order.abs_diff(1000) < 120, "{in_order}");
}

/// MIX-6, MIX-3: the next hold comes ten minutes after the last one began at the earliest, and
/// the pool stays bounded meanwhile.
#[test]
fn holds_are_rare_and_bounded() {
    let mut mix = mix(3);
    let at = |s: u64| Time::ZERO.after(Duration::from_secs(s));
    let began = |outputs: &[Output]| outputs.iter().any(|o| matches!(o, Output::Holding { .. }));
    assert!(began(&call(&mut mix, at(1), Some(hold(1)))));
    for number in 0..3 {
        assert_eq!(call(&mut mix, at(2), Some(packet(at(2), number, MEAN))), []);
    }
    let full = call(&mut mix, at(2), Some(packet(at(2), 3, MEAN)));
    assert_eq!(full, [Output::Dropped(MixDrop::PoolFull)]);
    assert!(!began(&call(&mut mix, at(3), Some(hold(2)))), "it holds");
    assert_eq!(left(&mut mix, at(60)).len(), 3);
    let again = 1 + HOLDS.as_secs();
    assert!(!began(&call(&mut mix, at(again - 1), Some(hold(3)))));
    call(
        &mut mix,
        at(again - 1),
        Some(packet(at(again - 1), 4, MEAN)),
    );
    assert_eq!(left(&mut mix, at(again)).len(), 1, "it did not hold");
    assert!(began(&call(&mut mix, at(again), Some(hold(4)))));
}

/// Packets and holds, with gaps from nanoseconds to minutes.
fn schedule() -> impl Strategy<Value = Vec<Call<Input>>> {
    let gap = prop_oneof![
        6 => ns(0..20),
        2 => (0u64..40).prop_map(Duration::from_secs),
        1 => (500u64..700).prop_map(Duration::from_secs),
    ];
    let delay = prop_oneof![ns(0..110), (0u64..40).prop_map(Duration::from_secs)];
    let input = prop_oneof![
        4 => delay.prop_map(Some),
        1 => Just(None),
    ];
    prop::collection::vec((gap, proptest::option::of(input)), 0..60).prop_map(|steps| {
        let mut now = Time::ZERO;
        let mut calls = vec![(now, Some(Input::Next(always([NEXT]))))];
        for (number, (gap, input)) in (0u32..).zip(steps) {
            now = now.after(gap);
            let input = input.map(|input| match input {
                Some(delay) => packet(now, number, delay),
                None => hold(u8::try_from(number).unwrap_or_default()),
            });
            calls.push((now, input));
        }
        calls
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// MIX-6: whatever is held comes out, once.
    #[test]
    fn a_holding_mix_keeps_the_laws(calls in schedule()) {
        drain(Mix::new(8), calls.clone())?;
        progress(Mix::new(8), calls.clone())?;
        harmless_wake(|| Mix::new(8), calls.clone(), 200)?;
        deterministic(|| Mix::new(8), calls.clone(), 200)?;
        let (mut mix, mut taken, mut sent) = (Mix::new(8), 0, 0);
        let count = |outputs: &[Output], sent: &mut usize, taken: &mut usize| for output in outputs {
            match output {
                Output::Send { .. } => *sent += 1,
                Output::Dropped(_) => *taken -= 1,
                Output::Holding { .. } => {}
            }
        };
        for (now, input) in calls {
            taken += usize::from(matches!(input, Some(Input::Peeled(_))));
            count(&call(&mut mix, now, input), &mut sent, &mut taken);
            prop_assert!(mix.held() <= 8);
        }
        while let Some(at) = mix.next_wake() {
            count(&call(&mut mix, at, None), &mut sent, &mut taken);
        }
        prop_assert_eq!(sent, taken);
    }
}
