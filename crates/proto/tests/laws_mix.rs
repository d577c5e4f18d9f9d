//! The laws of `Machine` for the mix, and a naive model that predicts its every output.
//!
//! The model is what catches a mix that refuses all, refuses nothing, or lets go early.

mod harness;

use core::time::Duration;
use std::collections::BTreeSet;

use harness::{Call, call, deterministic, drain, harmless_wake, ns, progress};
use proptest::prelude::*;
use proto::{
    Machine, NodeId, Time,
    calendar::Epoch,
    mix::{Input, Mix, MixDrop, Next, Output, always},
    peel::Peeled,
};
use sphinx::PACKET_LEN;

/// The mix as a sorted list: what it holds, by due time and then by arrival.
struct Model {
    pool_max: usize,
    next: Next,
    held: Vec<(Time, Output)>,
}

impl Model {
    fn new(pool_max: usize) -> Self {
        Self {
            pool_max,
            next: Next::new(),
            held: Vec::new(),
        }
    }

    fn call(&mut self, now: Time, input: Option<Input>) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            None => {}
            Some(Input::Hold { .. }) => unreachable!("mix_hold.rs holds"),
            Some(Input::Next(next)) => self.next = next, // MIX-5: what is held stays
            Some(Input::Peeled(peeled)) => {
                let to = NodeId(peeled.next);
                let begun = self
                    .next
                    .iter()
                    .filter(|(first, _)| **first <= peeled.epoch);
                let nodes = begun.max_by_key(|(first, _)| **first); // EPO-6
                if !nodes.is_some_and(|(_, nodes)| nodes.contains(&to)) {
                    out.push(Output::Dropped(MixDrop::WrongNext)); // MIX-4
                } else if self.held.len() == self.pool_max {
                    out.push(Output::Dropped(MixDrop::PoolFull)); // MIX-3
                } else {
                    let packet = peeled.packet;
                    let due = peeled.received.after(peeled.delay); // MIX-1
                    self.held.push((due, Output::Send { to, packet }));
                    self.held.sort_by_key(|(due, _)| *due); // stable: ties leave as they came
                }
            }
        }
        let due = self.held.partition_point(|(due, _)| *due <= now); // MIX-2
        out.extend(self.held.drain(..due).map(|(_, send)| send));
        out
    }
}

fn node(i: u8) -> NodeId {
    NodeId([i; 32])
}

/// A packet that no other of a schedule equals.
fn packet(name: u16) -> Box<[u8; PACKET_LEN]> {
    let mut packet = Box::new([0; PACKET_LEN]);
    packet[..2].copy_from_slice(&name.to_be_bytes());
    packet
}

/// A limit, and the calls of a driver that is often late and whose queue takes up to 9 ns. Nodes
/// are few, and a third of the steps changes which of them may come next, in up to three periods.
fn schedule() -> impl Strategy<Value = (usize, Vec<Call<Input>>)> {
    let arrival = (ns(0..10), 0u8..4, 0u64..9, ns(0..110)).prop_map(Ok);
    let nodes = prop::collection::btree_set(0u8..4, 2..=4);
    let next = prop::collection::btree_map(0u64..9, nodes, 0..=3).prop_map(Err);
    let input = prop_oneof![5 => arrival, 1 => next];
    let step = (ns(0..20), proptest::option::of(input));
    (0usize..8, prop::collection::vec(step, 0..200)).prop_map(|(pool_max, steps)| {
        let mut now = Duration::ZERO;
        let all = Input::Next(always((0..4).map(node)));
        let calls = (0u16..).zip(steps).map(|(name, (gap, input))| {
            now += gap;
            let input = input.map(|input| match input {
                Ok((queued, to, epoch, delay)) => Input::Peeled(Peeled {
                    received: Time::ZERO.after(now.saturating_sub(queued)),
                    next: node(to).0,
                    epoch: Epoch(epoch),
                    delay,
                    packet: packet(name),
                }),
                Err(periods) => {
                    let nodes = |nodes: BTreeSet<u8>| nodes.into_iter().map(node).collect();
                    let periods = periods.into_iter();
                    Input::Next(
                        periods
                            .map(|(first, of)| (Epoch(first), nodes(of)))
                            .collect(),
                    )
                }
            });
            (Time::ZERO.after(now), input)
        });
        let start = [(Time::ZERO, Some(all))];
        (pool_max, start.into_iter().chain(calls).collect())
    })
}

/// No schedule holds more packets than it has calls, so this many wakes empty any mix.
const WAKES_MAX: usize = 201;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// MIX-1, MIX-2, MIX-3, MIX-4, MIX-5, EPO-6
    #[test]
    fn mix_does_what_the_model_predicts((pool_max, calls) in schedule()) {
        let (mut mix, mut model) = (Mix::new(pool_max), Model::new(pool_max));
        for (now, input) in calls {
            prop_assert_eq!(call(&mut mix, now, input.clone()), model.call(now, input));
            prop_assert_eq!(mix.next_wake(), model.held.first().map(|(due, _)| *due));
        }
        while let Some(&(due, _)) = model.held.first() {
            prop_assert_eq!(call(&mut mix, due, None), model.call(due, None));
        }
        prop_assert_eq!(mix.next_wake(), None);
    }

    #[test]
    fn mix_law_2_drain((pool_max, calls) in schedule()) {
        drain(Mix::new(pool_max), calls)?;
    }

    #[test]
    fn mix_law_3_progress((pool_max, calls) in schedule()) {
        progress(Mix::new(pool_max), calls)?;
    }

    #[test]
    fn mix_law_4_harmless_wake((pool_max, calls) in schedule()) {
        harmless_wake(|| Mix::new(pool_max), calls, WAKES_MAX)?;
    }

    #[test]
    fn mix_law_5_bounded((pool_max, calls) in schedule()) {
        let mut mix = Mix::new(pool_max);
        for (now, input) in calls {
            // One drop, or what was held and the packet that came.
            prop_assert!(call(&mut mix, now, input).len() <= pool_max + 1);
            prop_assert!(mix.held() <= pool_max);
        }
    }

    #[test]
    fn mix_law_6_deterministic((pool_max, calls) in schedule()) {
        deterministic(|| Mix::new(pool_max), calls, WAKES_MAX)?;
    }
}

/// Law 1, for each of the two calls that carry a time.
fn goes_back(input: Option<Input>) {
    let mut mix = Mix::new(1);
    mix.wake(Time::from_nanos(2));
    call(&mut mix, Time::from_nanos(1), input);
}

#[test]
#[should_panic(expected = "law 1")]
fn mix_law_1_monotone_wake() {
    goes_back(None);
}

#[test]
#[should_panic(expected = "law 1")]
fn mix_law_1_monotone_handle() {
    goes_back(Some(Input::Next(Next::new())));
}
