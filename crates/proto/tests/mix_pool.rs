//! How much memory the pool takes: a packet in it costs at most [`HELD_LEN`] bytes, however many.
//!
//! `cargo test --release -p proto --test mix_pool -- --ignored --nocapture` fills it with a million.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use core::time::Duration;
use std::fs;

use proto::{
    Machine, NodeId, Time,
    calendar::Epoch,
    mix::{HELD_LEN, Input, Mix, MixDrop, Output, always},
    peel::Peeled,
};

/// Bytes that the process holds.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Fills a pool of `packets`, sees that it takes no more, and empties it. Gives bytes a packet.
fn fill(packets: u32) -> f64 {
    let next = NodeId([7; 32]);
    let mut mix = Mix::new(packets as usize);
    mix.handle(Time::ZERO, Input::Next(always([next])));
    let before = resident();
    let peeled = |i: u32| {
        let mut packet = Box::new([1; sphinx::PACKET_LEN]);
        packet[..4].copy_from_slice(&i.to_be_bytes());
        Input::Peeled(Peeled {
            received: Time::ZERO,
            next: next.0,
            epoch: Epoch(0),
            // An order far from that of arrival; each once.
            delay: Duration::from_micros(u64::from(i.wrapping_mul(2_654_435_761) % (1 << 30)) + 1),
            packet,
        })
    };
    for i in 0..packets {
        mix.handle(Time::ZERO, peeled(i));
        assert_eq!(mix.poll(), None);
    }
    let each = (resident() - before) as f64 / f64::from(packets);
    assert!(
        each > sphinx::PACKET_LEN as f64 && each < HELD_LEN as f64,
        "{each}"
    );

    mix.handle(Time::ZERO, peeled(packets)); // MIX-3
    assert_eq!(mix.poll(), Some(Output::Dropped(MixDrop::PoolFull)));
    assert_eq!(mix.held(), packets as usize);

    let (mut left, mut last) = (0, Time::ZERO);
    while let Some(due) = mix.next_wake() {
        assert!(due > last);
        last = due;
        mix.wake(due);
        while let Some(output) = mix.poll() {
            assert!(matches!(output, Output::Send { .. }));
            left += 1;
        }
    }
    assert_eq!((left, mix.held()), (packets, 0));
    each
}

/// MIX-3
#[test]
fn a_pool_of_thirty_thousand_is_bounded() {
    println!("{:.0} bytes a packet", fill(30_000));
}

/// MIX-3
#[test]
#[ignore = "2.5 GB of memory: cargo test --release -p proto --test mix_pool -- --ignored --nocapture"]
fn a_pool_of_a_million_is_bounded() {
    println!("{:.0} bytes a packet", fill(1_000_000));
}
