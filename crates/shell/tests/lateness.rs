//! How late a packet leaves the driver, over 1000 holding times, beside tokio's own timer.
//!
//! ATTACKS t05: a coarse timer adds half a millisecond and all but removes short holding times.
//! `cargo test -p shell --test lateness -- --nocapture` prints both distributions.

use core::time::Duration;

use chacha20::ChaCha12Rng;
use proto::{
    NodeId, Time,
    mix::{Input, Mix},
    peel::Peeled,
};
use rand_core::{Rng, SeedableRng};
use shell::{clock::Clock, drive::drive};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const WAITS: usize = 1000;
const MEAN: Duration = Duration::from_millis(1);

/// Exponential holding times, the same in each run.
fn delays() -> impl Iterator<Item = Duration> {
    let mut rng = ChaCha12Rng::from_seed([7; 32]);
    (0..WAITS).map(move |_| {
        let uniform = (f64::from(rng.next_u32()) + 0.5) / f64::from(u32::MAX);
        MEAN.mul_f64(-uniform.min(1.0).ln())
    })
}

/// How far departures lie behind their due times: median, 90 %, 99 %, most.
fn lateness(due_and_left: &[(Time, Time)]) -> [Duration; 4] {
    let mut late: Vec<u64> = due_and_left
        .iter()
        .map(|(due, left)| left.as_nanos().checked_sub(due.as_nanos()))
        .map(|late| late.expect("left early"))
        .collect();
    late.sort_unstable();
    [500, 900, 990, 1000].map(|per_mille| {
        let rank = late.len() * per_mille / 1000;
        Duration::from_nanos(late[rank - 1])
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_leave_on_time() {
    let next = NodeId([1; 32]);
    let (tx, rx) = mpsc::channel(1);
    let (left_tx, mut left_rx) = mpsc::channel(1);
    let (clock, stop) = (Clock::start(), CancellationToken::new());
    let effect = move |_| left_tx.try_send(clock.now()).expect("one at a time");
    let driver = tokio::spawn(drive(Mix::new(1), clock, rx, effect, stop));
    tx.send(Input::Next([next].into())).await.unwrap();

    let (mut with_driver, mut with_tokio) = (Vec::new(), Vec::new());
    for delay in delays() {
        let received = clock.now();
        let peeled = Peeled {
            received,
            next: next.0,
            delay,
            packet: Box::new([0; sphinx::PACKET_LEN]),
        };
        tx.send(Input::Peeled(peeled)).await.unwrap();
        with_driver.push((received.after(delay), left_rx.recv().await.unwrap()));

        let due = clock.now().after(delay);
        tokio::time::sleep(delay).await;
        with_tokio.push((due, clock.now()));
    }
    drop(tx);
    driver.await.unwrap().unwrap();

    let (driver, tokio) = (lateness(&with_driver), lateness(&with_tokio));
    println!("late by (p50, p90, p99, max): driver {driver:?}, tokio {tokio:?}");
    // Both saw the same machine under the same load, so that a slow one fails no test.
    assert!(driver[0] < tokio[0] / 2);
}
