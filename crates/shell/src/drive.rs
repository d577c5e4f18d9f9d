//! Runs one machine on tokio.
//!
//! The loop owns the machine: no lock, no `Arc`, one task. It is the counterpart of the
//! simulator's world, which does the same four things in virtual time: drain outputs, wait for
//! whichever comes first of stop, due time and input, and tell the machine.
//!
//! Under load many packets are due within one [`GRAIN`], and one wake serves them all: a wake waits
//! until the one before is a grain ago. An idle machine is woken on the nanosecond, and no clock's
//! grid shows in what it sends.
//!
//! Invariants: `poll` is drained before every wait (law 2); a due time is served before a waiting
//! input; time is read once per call and never goes back (law 1).
//!
//! Not done here: reading links (their tasks send to `inbox`), and telling a machine the calendar
//! ([`feed_calendar`] does, for those that want it).

use core::time::Duration;
use std::io;

use proto::{Machine, Time, calendar::Calendar};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, timer::Timer};

/// How often [`feed_calendar`] tells a machine what UTC is.
pub const CALENDAR_EVERY: Duration = Duration::from_secs(10);

/// Least time from one wake to the next; also the most that it makes a wake late.
pub const GRAIN: Duration = Duration::from_micros(80);
/// Most inputs taken between two looks at the timer.
const INPUTS: usize = 32;

/// Drives `machine` until `stop` is cancelled or every sender of `inbox` is gone.
///
/// `effect` carries out one output and must not wait: a full link drops the packet,
/// because a mix that waits for one slow peer delays every other.
///
/// # Errors
///
/// If the system has no timer to give, or a timer fails.
pub async fn drive<M: Machine>(
    mut machine: M,
    clock: Clock,
    mut inbox: mpsc::Receiver<M::Input>,
    mut effect: impl FnMut(M::Output),
    stop: CancellationToken,
) -> io::Result<M> {
    let mut timer = Timer::new(clock)?;
    let mut inputs = Vec::with_capacity(INPUTS);
    let mut woken_next = Time::ZERO;
    drain(&mut machine, &mut effect);
    loop {
        let due = machine.next_wake().map(|due| due.max(woken_next));
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(machine),
            woken = timer.until(due) => {
                woken?;
                let now = clock.now();
                woken_next = now.after(GRAIN);
                machine.wake(now);
                drain(&mut machine, &mut effect);
            }
            taken = inbox.recv_many(&mut inputs, INPUTS) => {
                if taken == 0 {
                    return Ok(machine);
                }
                for input in inputs.drain(..) {
                    machine.handle(clock.now(), input);
                    drain(&mut machine, &mut effect);
                }
            }
        }
    }
}

/// Carries out all that the machine asks for (law 2).
fn drain<M: Machine>(machine: &mut M, effect: &mut impl FnMut(M::Output)) {
    while let Some(output) = machine.poll() {
        effect(output);
    }
}

/// Tells a machine the calendar now and every [`CALENDAR_EVERY`], until its inbox closes.
///
/// `input` makes the machine's input of it, e.g. `gateway::Input::Calendar`.
pub async fn feed_calendar<I>(clock: Clock, inbox: mpsc::Sender<I>, input: impl Fn(Calendar) -> I) {
    while inbox.send(input(clock.calendar())).await.is_ok() {
        tokio::select! {
            () = tokio::time::sleep(CALENDAR_EVERY) => {}
            () = inbox.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        NodeId,
        calendar::Epoch,
        mix::{Input, Mix, MixDrop, Output, always},
        peel::Peeled,
    };

    use super::*;

    fn peeled(clock: Clock, next: NodeId) -> Input {
        Input::Peeled(Peeled {
            received: clock.now(),
            next: next.0,
            epoch: Epoch(0),
            delay: Duration::from_millis(5),
            packet: Box::new([0; sphinx::PACKET_LEN]),
        })
    }

    #[tokio::test]
    async fn a_packet_crosses_the_driver() {
        let (tx, rx) = mpsc::channel(1);
        let (sent_tx, mut sent_rx) = mpsc::unbounded_channel();
        let (clock, stop) = (Clock::start(), CancellationToken::new());
        let effect = move |out| sent_tx.send(out).expect("test is listening");
        let task = tokio::spawn(drive(Mix::new(1), clock, rx, effect, stop.clone()));

        let next = NodeId([7; 32]);
        tx.send(peeled(clock, next)).await.unwrap();
        let refused = sent_rx.recv().await;
        assert_eq!(refused, Some(Output::Dropped(MixDrop::WrongNext)));

        tx.send(Input::Next(always([next]))).await.unwrap();
        tx.send(peeled(clock, next)).await.unwrap();
        let sent = sent_rx.recv().await;
        assert!(matches!(sent, Some(Output::Send { to, .. }) if to == next));
        stop.cancel();
        assert_eq!(task.await.unwrap().unwrap().held(), 0);
    }

    #[tokio::test]
    async fn the_calendar_is_fed_until_the_inbox_closes() {
        let (tx, mut rx) = mpsc::channel(1);
        let feeder = tokio::spawn(feed_calendar(Clock::start(), tx, |calendar| calendar));
        assert!(rx.recv().await.unwrap().utc > proto::calendar::Utc::default());
        drop(rx);
        feeder.await.unwrap();
    }
}
