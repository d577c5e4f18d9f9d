//! The laws of [`Machine`] as functions that know no machine.
//!
//! A machine's law tests bring a constructor and a strategy for its schedules; `laws_mix.rs` shows
//! the shape. Laws 1 (monotone) and 5 (bounded) name the machine's own limits, so they stand with
//! each machine; the others are here.
//!
//! [`network`] makes a whole network in memory for tests that need a consensus,
//! [`ceremony`] authorities that make one.
//!
//! What a generator must reach, or a limit is not tested: every limit full (limits are drawn, and
//! small), values at and above each limit, equal due times, inputs that are overdue on arrival.

#![allow(dead_code, reason = "each test binary uses some of these")]

pub(crate) mod ceremony;
pub(crate) mod network;

use core::{fmt::Debug, iter, ops::Range, time::Duration};

use proptest::prelude::*;
use proto::{Machine, Time};

/// One call of a driver: an input, or `None` for a wake.
pub(crate) type Call<I> = (Time, Option<I>);

/// Calls once, then drains as law 2 asks of a driver.
pub(crate) fn call<M: Machine>(
    machine: &mut M,
    now: Time,
    input: Option<M::Input>,
) -> Vec<M::Output> {
    match input {
        Some(input) => machine.handle(now, input),
        None => machine.wake(now),
    }
    iter::from_fn(|| machine.poll()).collect()
}

/// Runs a schedule, then at most `wakes_max` wakes more (a machine with a steady rhythm never
/// stops by itself): each output, and when it came.
pub(crate) fn trace<M: Machine>(
    mut machine: M,
    calls: Vec<Call<M::Input>>,
    wakes_max: usize,
) -> Vec<(Time, M::Output)> {
    let (mut last, mut trace) = (Time::ZERO, Vec::new());
    for (now, input) in calls {
        let outputs = call(&mut machine, now, input);
        trace.extend(outputs.into_iter().map(|output| (now, output)));
        last = now;
    }
    for _ in 0..wakes_max {
        // A wake that makes no progress breaks law 3; here it must only not hang.
        let Some(at) = machine.next_wake().filter(|at| *at > last) else {
            break;
        };
        let outputs = call(&mut machine, at, None);
        trace.extend(outputs.into_iter().map(|output| (at, output)));
        last = at;
    }
    trace
}

/// Law 2: a drained machine stays drained until it is called later.
pub(crate) fn drain<M: Machine>(
    mut machine: M,
    calls: Vec<Call<M::Input>>,
) -> Result<(), TestCaseError> {
    for (now, input) in calls {
        call(&mut machine, now, input);
        prop_assert!(machine.poll().is_none(), "polled again");
        prop_assert!(call(&mut machine, now, None).is_empty(), "woken again");
    }
    Ok(())
}

/// Law 3: what has fallen due is done, so the next wake is later.
pub(crate) fn progress<M: Machine>(
    mut machine: M,
    calls: Vec<Call<M::Input>>,
) -> Result<(), TestCaseError> {
    for (now, input) in calls {
        call(&mut machine, now, input);
        prop_assert!(machine.next_wake().is_none_or(|at| at > now));
    }
    Ok(())
}

/// Law 4 in one half: waking before there is anything to do changes nothing.
pub(crate) fn harmless_wake<M>(
    new: impl Fn() -> M,
    calls: Vec<Call<M::Input>>,
    wakes_max: usize,
) -> Result<(), TestCaseError>
where
    M: Machine<Input: Clone, Output: PartialEq + Debug>,
{
    let more = with_early_wakes(new(), calls.clone());
    prop_assert_eq!(
        trace(new(), more, wakes_max),
        trace(new(), calls, wakes_max)
    );
    Ok(())
}

/// Law 6: equal construction and equal calls give equal outputs.
pub(crate) fn deterministic<M>(
    new: impl Fn() -> M,
    calls: Vec<Call<M::Input>>,
    wakes_max: usize,
) -> Result<(), TestCaseError>
where
    M: Machine<Input: Clone, Output: PartialEq + Debug>,
{
    prop_assert_eq!(
        trace(new(), calls.clone(), wakes_max),
        trace(new(), calls, wakes_max)
    );
    Ok(())
}

/// The same schedule, with a wake before each call wherever the machine has none to do.
pub(crate) fn with_early_wakes<M>(mut machine: M, calls: Vec<Call<M::Input>>) -> Vec<Call<M::Input>>
where
    M: Machine<Input: Clone>,
{
    let mut last = Time::ZERO;
    let mut more = Vec::new();
    for (now, input) in calls {
        let early = Time::from_nanos(last.as_nanos().midpoint(now.as_nanos()));
        if machine.next_wake().is_none_or(|at| early < at) {
            more.push((early, None));
        }
        more.push((now, input.clone()));
        call(&mut machine, now, input);
        last = now;
    }
    more
}

/// A span of nanoseconds; with few of them, times often coincide or miss by one.
pub(crate) fn ns(range: Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_nanos)
}
