//! ATTACKS t06 in virtual time: what a packet waits for its turn does not show in how long it is held.
//!
//! A slow processor at 80 % load, [`RATE`] packets per second: the peeler's own queue and batches,
//! the mix itself, and turns as the thread of packets takes them, so that the mix is woken between
//! batches alone. Nothing else has a clock here, and every run gives the same figures.
//!
//! | quantity | what                                                                           |
//! |----------|--------------------------------------------------------------------------------|
//! | held     | from receipt to leaving, in means of the exponential delays                    |
//! | whole    | Kolmogorov–Smirnov distance of `held` from the exponential law                 |
//! | tail     | the same above [`TAIL`] alone. A packet whose delay ends before its turn must be |
//! |          | late, whenever timers start; none whose delay is longer may be                 |

use chacha20::ChaCha20Rng;
use proto::{
    Machine, NodeId,
    calendar::Epoch,
    directory::Params,
    mix::{Input, Mix, Output, always},
};
use rand_core::{Rng, SeedableRng};

use super::*;

/// Packets per second that the processor opens.
const RATE: f64 = 5_000.0;
const LOAD: f64 = 0.8;
const PACKETS: usize = 100_000;
/// Longer than nearly every wait for a turn, in means of the delays: 8 ms.
const TAIL: f64 = 0.16;

/// When the timer of a delay starts.
#[derive(Clone, Copy)]
enum Timer {
    /// MIX-1.
    Receipt,
    /// The positive control: when the packet has left the peel queue.
    Peeled,
}

/// How long each packet was held, in means, and how many were dropped.
fn held(timer: Timer) -> (Vec<f64>, usize) {
    let mut rng = ChaCha20Rng::from_seed([6; 32]);
    // 1 to 2^32 parts of 2^32: never zero.
    let mut exponential = move || -((f64::from(rng.next_u32()) + 1.0) / 4_294_967_296.0).ln();
    let (mean, next) = (Params::default().delay_mean(), NodeId([7; 32]));
    let mut mix = Mix::new(PACKETS);
    mix.handle(Time::ZERO, Input::Next(always([next])));
    let gap = Duration::from_secs_f64(1.0 / (LOAD * RATE));
    let mut at = Time::ZERO;
    let received: Vec<Time> = (0..PACKETS)
        .map(|_| {
            at = at.after(gap.mul_f64(exponential()));
            at
        })
        .collect();

    let (mut now, mut come, mut dropped) = (Time::ZERO, 0, 0);
    let (mut backlog, mut held) = (Backlog::default(), Vec::new());
    loop {
        while come < PACKETS && received[come] <= now {
            let mut packet = Box::new([0; sphinx::PACKET_LEN]);
            packet[..8].copy_from_slice(&(come as u64).to_be_bytes());
            backlog.0.push_back(Arrival {
                received: received[come],
                packet,
            });
            come += 1;
        }
        let (batch, overload) = backlog.take(batch_max(sphinx::Path::Portable, RATE), now);
        dropped += overload;
        if batch.is_empty() {
            // Idle: woken by whichever comes first.
            let arrival = received.get(come).copied();
            let Some(first) = arrival.into_iter().chain(mix.next_wake()).min() else {
                return (held, dropped);
            };
            now = first;
            mix.wake(now);
        }
        let opened = u32::try_from(batch.len()).expect("few");
        now = now.after(Duration::from_secs_f64(1.0 / RATE) * opened);
        for Arrival { received, packet } in batch {
            let peeled = Peeled {
                received: match timer {
                    Timer::Receipt => received,
                    Timer::Peeled => now,
                },
                next: next.0,
                epoch: Epoch(0),
                delay: mean.mul_f64(exponential()),
                packet,
            };
            mix.handle(now, Input::Peeled(peeled));
        }
        mix.wake(now);
        while let Some(output) = mix.poll() {
            let Output::Send { packet, .. } = output else {
                panic!("{output:?}");
            };
            let number = packet.first_chunk().copied().map(u64::from_be_bytes);
            let number = usize::try_from(number.expect("longer")).expect("small");
            let span = now.since(received[number]);
            held.push(span.as_secs_f64() / mean.as_secs_f64());
        }
    }
}

/// The distance of sorted `held` from the law, at `from` and above.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn distance(held: &[f64], from: f64) -> f64 {
    let n = held.len() as f64;
    let above = held.iter().enumerate().filter(|(_, x)| **x >= from);
    let apart = above.map(|(i, x)| {
        let law = 1.0 - (-x).exp();
        (law - i as f64 / n)
            .abs()
            .max((law - (i + 1) as f64 / n).abs())
    });
    apart.fold(0.0, f64::max)
}

#[test]
fn at_80_percent_load_holding_times_stay_exponential() {
    let found = [Timer::Receipt, Timer::Peeled].map(|timer| {
        let (mut held, dropped) = held(timer);
        held.sort_by(f64::total_cmp);
        assert!(dropped < PACKETS / 100, "{dropped}");
        assert_eq!(held.len() + dropped, PACKETS);
        let found = (distance(&held, 0.0), distance(&held, TAIL));
        println!(
            "whole {:.4}, tail {:.4}; dropped {dropped}",
            found.0, found.1
        );
        found
    });
    let [receipt, peeled] = found;
    assert!(receipt.0 < 0.01 && receipt.1 < 0.006, "{found:?}");
    let seen = peeled.0 > 0.012 && peeled.1 > 0.01;
    assert!(seen, "the control: {found:?}");
}
