//! A gateway with a store that answers at once, and a clock to turn.

use core::ops::Range;
use std::collections::VecDeque;

use proto::{
    LinkId, Machine, MailboxId, Time,
    directory::Params,
    gateway::{Gateway, GatewayDrop, GatewayEvent, Input, Limits, Output},
    wire::{Frame, Kind, Purpose},
};

use super::fixture::{
    NETWORK, Owner, SEED, Store, calendar, confirm, consensus, exporter, linked, peeled,
};
use crate::harness::call;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MS;
/// Of profile 0, `interactive`: 40 frames a second downstream.
pub(crate) const PERIOD: u64 = 25 * MS;

pub(crate) fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

/// A gateway in its first hour, with a store that answers at once, and all that came out.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) store: Store,
    pub(crate) now: Time,
    pub(crate) log: Vec<(Time, Output)>,
    /// When what comes out leaves, if not at the time that the gateway is told: its driver is late, or does not wait.
    pub(crate) leaves: Option<Time>,
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut world = Self {
            gateway: Gateway::new(limits, NETWORK, SEED),
            store: Store::default(),
            now: Time::ZERO,
            log: Vec::new(),
            leaves: None,
        };
        world.input(calendar());
        world.input(Input::Consensus(consensus(
            1,
            &[1, 2],
            Params::default().profiles,
        )));
        world
    }

    /// One input and what the store answers; returns what came out.
    pub(crate) fn input(&mut self, input: Input) -> Vec<Output> {
        let first = self.log.len();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in call(&mut self.gateway, self.now, Some(input)) {
                inputs.extend(self.store.answer(output.clone()));
                self.log.push((self.leaves.unwrap_or(self.now), output));
            }
        }
        self.log[first..]
            .iter()
            .map(|(_, output)| output.clone())
            .collect()
    }

    /// Wakes the gateway whenever it asks, until `end`.
    pub(crate) fn until(&mut self, end: Time) {
        while let Some(next) = self.gateway.next_wake().filter(|next| *next <= end) {
            self.wake(next);
        }
        self.now = end;
    }

    pub(crate) fn wake(&mut self, now: Time) {
        self.now = now;
        let outputs = call(&mut self.gateway, now, None);
        for output in outputs {
            let answers = self.store.answer(output.clone());
            self.log.push((self.leaves.unwrap_or(now), output));
            answers.into_iter().for_each(|answer| {
                self.input(answer);
            });
        }
    }

    pub(crate) fn link(&mut self, link: u64, purpose: Purpose) -> LinkId {
        self.input(linked(LinkId(link), purpose, 0));
        LinkId(link)
    }

    /// A mailbox link with `owner`'s mailbox open in slot 0.
    pub(crate) fn open(&mut self, link: u64, owner: &Owner) -> LinkId {
        let link = self.link(link, Purpose::Mailbox);
        let open = owner.open(0, &exporter(link));
        let outputs = self.input(confirm(link, Vec::new(), Some(open)));
        assert!(outputs.contains(&Output::Event(GatewayEvent::Opened)));
        link
    }

    pub(crate) fn arrive(&mut self, to: MailboxId, names: Range<u64>) -> Vec<Output> {
        let came = names.flat_map(|name| self.input(Input::Peeled(peeled(self.now, to, name))));
        came.collect()
    }

    pub(crate) fn frames(&self, link: LinkId) -> Vec<(Time, Frame)> {
        let of_link = self.log.iter().filter_map(|(time, output)| match output {
            Output::Frame { link: l, frame } if *l == link => Some((*time, frame.clone())),
            _ => None,
        });
        of_link.collect()
    }

    pub(crate) fn times(&self, link: LinkId) -> Vec<Time> {
        self.frames(link)
            .into_iter()
            .map(|(time, _)| time)
            .collect()
    }

    /// The sequence numbers that `link` was sent.
    pub(crate) fn sent(&self, link: LinkId) -> Vec<u64> {
        let frames = self.frames(link).into_iter();
        let packets = frames.filter(|(_, frame)| frame.kind() == Some(Kind::Packet));
        packets.map(|(_, frame)| frame.numbers().0).collect()
    }
}

/// The names that [`packet`] gave.
pub(crate) fn names(frames: &[(Time, Frame)]) -> Vec<(Time, u64)> {
    let packets = frames
        .iter()
        .filter(|(_, frame)| frame.kind() == Some(Kind::Packet));
    let name = |frame: &Frame| u64::from_be_bytes(*frame.body().first_chunk().unwrap());
    packets.map(|(time, frame)| (*time, name(frame))).collect()
}

pub(crate) fn dropped(outputs: &[Output], why: GatewayDrop) -> usize {
    outputs
        .iter()
        .filter(|output| **output == Output::Dropped(why))
        .count()
}
