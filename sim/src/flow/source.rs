//! When packets enter, and when the first target does.
//!
//! A message to measure must be a *typical* one. In a steady Poisson stream that is an extra
//! packet at any fixed time (Slivnyak, Mecke). If users come and go, typical messages are sent
//! when many are online, by someone who is: the first target's sender is online when it sends,
//! and its comings and goings before and after are drawn from there on in both directions (they
//! are reversible in time), while all others stay as they are without it. In a trace, the first
//! target is one of its packets, uniformly chosen. (Palm measures of these processes: Baccelli
//! and Brémaud, *Elements of Queueing Theory*, 1.)
//!
//! Users are counted, not kept: exponential times online make their number a Markov chain.
//! Times are in ticks of `agenda`; means in units of time.

use super::{
    agenda::{ORIGIN, after, ticks},
    setup::{Setup, Users},
};
use crate::random::{Purpose, SOURCE, Stream};

#[derive(Debug)]
enum Law {
    Steady,
    Changing(Crowd),
    Trace {
        /// Ticks from the start of a round, ascending.
        times: Vec<u64>,
        round: u64,
        /// Start of the present round; may lie before the origin, so it wraps.
        start: u64,
        /// What comes next in the round.
        index: usize,
        /// The first target, which is not sent twice.
        target: (u64, usize),
    },
}

/// Users online.
#[derive(Debug)]
struct Crowd {
    /// All but the first target's sender, of whom there are [`Crowd::others`] more offline.
    online: u64,
    /// Users who come and go, without the first target's sender before it is counted;
    /// `None`: those who go never come back, and others come.
    others: Option<u64>,
    /// Rates of one user's going and coming; of all newcomers together, without `others`.
    go: f64,
    come: f64,
    /// Packets of one user online per unit.
    rate: f64,
    /// When the first target's sender changes, the last first; each but the last flips it.
    changes: Vec<u64>,
    sender_online: bool,
}

/// A source of packets.
#[derive(Debug)]
pub(super) struct Source {
    law: Law,
    rate: f64,
    gap: Stream,
    chain: Stream,
    now: u64,
    /// When the next packet enters.
    pub(super) next: u64,
    /// When the first target enters.
    pub(super) first_target: u64,
}

impl Source {
    /// A source that starts at [`ORIGIN`], in its stationary state, and whose first target
    /// enters at `first_target`.
    pub(super) fn new(setup: &Setup, seed: u64, replication: u64, first_target: u64) -> Self {
        let stream = |purpose| Stream::new(seed, replication, SOURCE, purpose);
        let mut chain = stream(Purpose::Online);
        let law = match &setup.users {
            Users::Steady => Law::Steady,
            Users::OnOff {
                users,
                online,
                offline,
            } => Law::Changing(Crowd::on_off(
                (*users, *online, *offline),
                setup.rate,
                first_target,
                &mut chain,
            )),
            Users::Sessions { users, online } => Law::Changing(Crowd::sessions(
                (*users, *online),
                setup.rate,
                first_target,
                &mut chain,
            )),
            Users::Trace(times) => trace(times, first_target, &mut chain),
        };
        let mut source = Self {
            law,
            rate: setup.rate,
            gap: stream(Purpose::Gap),
            chain,
            now: ORIGIN,
            next: ORIGIN,
            first_target,
        };
        source.advance();
        source
    }

    /// After a packet has entered: finds when the next one does.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.next = match &mut self.law {
            Law::Steady => after(self.next, self.gap.exponential() / self.rate),
            Law::Changing(crowd) => {
                self.now = crowd.packet_after(self.now, &mut self.gap, &mut self.chain);
                self.now
            }
            Law::Trace {
                times,
                round,
                start,
                index,
                target,
            } => loop {
                let (at, this) = (start.wrapping_add(times[*index]), (*start, *index));
                *index += 1;
                if *index == times.len() {
                    (*index, *start) = (0, start.wrapping_add(*round));
                }
                let past = at.wrapping_sub(ORIGIN) > u64::MAX / 2;
                if !past && this != *target {
                    break at;
                }
            },
        };
    }
}

/// A Poisson process from [`ORIGIN`] on: of loops, of dummies, or of the adversary's packets.
#[derive(Debug)]
pub(super) struct Clock {
    rate: f64,
    stream: Stream,
    /// In the end of time, if the rate is 0.
    pub(super) next: u64,
}

impl Clock {
    pub(super) fn new(rate: f64, stream: Stream) -> Self {
        let mut clock = Self {
            rate,
            stream,
            next: if rate > 0.0 { ORIGIN } else { u64::MAX },
        };
        clock.advance();
        clock
    }

    pub(super) fn advance(&mut self) {
        if self.rate > 0.0 {
            self.next = after(self.next, self.stream.exponential() / self.rate);
        }
    }

    /// Goes on to the next, after drawing one of `places` for this one.
    pub(super) fn place(&mut self, places: usize) -> usize {
        let place = self.stream.index(places);
        self.advance();
        place
    }
}

fn trace(times: &[f64], first_target: u64, chain: &mut Stream) -> Law {
    let times: Vec<u64> = times.iter().map(|at| ticks(*at)).collect();
    let round = times.last().copied().unwrap_or(1).max(1);
    let chosen = chain.index(times.len());
    let target_start = first_target.wrapping_sub(times[chosen]);
    // Whole rounds back, until nothing of the first one lies after the origin.
    let back = (first_target - ORIGIN) / round + 2;
    Law::Trace {
        start: target_start.wrapping_sub(back.wrapping_mul(round)),
        index: 0,
        target: (target_start, chosen),
        times,
        round,
    }
}

impl Crowd {
    #[expect(clippy::cast_precision_loss, reason = "at most 1e9 users")]
    fn on_off(
        (users, online, offline): (u64, f64, f64),
        rate: f64,
        first_target: u64,
        chain: &mut Stream,
    ) -> Self {
        let share = online / (online + offline);
        let mut crowd = Self {
            online: chain.binomial(users - 1, share),
            others: Some(users - 1),
            go: 1.0 / online,
            come: 1.0 / offline,
            rate: rate / (users as f64 * share),
            changes: vec![first_target],
            sender_online: true,
        };
        let mut at = first_target;
        loop {
            let mean = if crowd.sender_online { online } else { offline };
            let stay = ticks(mean * chain.exponential()).max(1);
            if at - ORIGIN <= stay {
                return crowd;
            }
            at -= stay;
            crowd.sender_online = !crowd.sender_online;
            crowd.changes.push(at);
        }
    }

    fn sessions(
        (users, online): (f64, f64),
        rate: f64,
        first_target: u64,
        chain: &mut Stream,
    ) -> Self {
        let stay = ticks(online * chain.exponential()).max(1);
        let began_before = first_target - ORIGIN <= stay;
        let mut changes = vec![first_target];
        if !began_before {
            changes.push(first_target - stay);
        }
        Self {
            online: chain.poisson(users) as u64,
            others: None,
            go: 1.0 / online,
            come: users / online,
            rate: rate / users,
            changes,
            sender_online: began_before,
        }
    }

    /// The next packet after `now`, and whoever comes or goes until then.
    #[expect(clippy::cast_precision_loss, reason = "at most 1e9 users")]
    fn packet_after(&mut self, mut now: u64, gap: &mut Stream, chain: &mut Stream) -> u64 {
        loop {
            let sending = self.rate * (self.online + u64::from(self.sender_online)) as f64;
            let going = self.go * self.online as f64;
            let coming = match self.others {
                Some(others) => self.come * (others - self.online) as f64,
                None => self.come,
            };
            let all = sending + going + coming;
            let at = after(now, gap.exponential() / all);
            // Exponential times have no memory: at a change of the sender one draws anew.
            if let Some(change) = self.changes.last().copied()
                && change <= at
            {
                now = change;
                self.changes.pop();
                if self.changes.is_empty() {
                    // The first target enters; from here on its sender is one of the others.
                    self.sender_online = false;
                    self.online += 1;
                    self.others = self.others.map(|others| others + 1);
                } else {
                    self.sender_online = !self.sender_online;
                }
                continue;
            }
            now = at;
            let which = chain.uniform() * all;
            if which < sending {
                return now;
            } else if which < sending + going {
                self.online -= 1;
            } else {
                self.online += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::agenda::TICKS;

    fn count(users: &Users, span: f64, replications: u64) -> (f64, f64) {
        let setup = Setup {
            rate: 10.0,
            users: users.clone(),
            ..Setup::default()
        };
        let (mut before, mut after) = (0.0, 0.0);
        for replication in 0..replications {
            let first = ORIGIN + ticks(50.0);
            let mut source = Source::new(&setup, 5, replication, first);
            while source.next < first + ticks(span) {
                if source.next + ticks(span) >= first && source.next < first {
                    before += 1.0;
                } else if source.next >= first {
                    after += 1.0;
                }
                source.advance();
            }
        }
        let scale = replications as f64 * span;
        (before / scale, after / scale)
    }

    /// Around a typical message the stream is as dense before as after, and denser than on
    /// average by exactly the sender's own packets: with one user online half of the time,
    /// twice as dense; with sessions, by one user's rate while it is online.
    #[test]
    fn a_typical_message_sees_its_sender_online() {
        let (online, span) = (20.0, 1.0);
        // Mean share of the span during which a sender, online at its end, was online.
        let stayed = |rate: f64| (1.0 - (-span * rate).exp()) / (span * rate);
        let alone = Users::OnOff {
            users: 1,
            online,
            offline: online,
        };
        let sessions = Users::Sessions { users: 2.0, online };
        for (users, expected) in [
            (Users::Steady, 10.0),
            (alone, 10.0 * (1.0 + stayed(2.0 / online))),
            (sessions, 10.0 + 5.0 * stayed(1.0 / online)),
        ] {
            let (before, after) = count(&users, span, 4000);
            for found in [before, after] {
                assert!(
                    (found / expected - 1.0).abs() < 0.05,
                    "{users:?} {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_trace_is_sent_over_and_over_but_for_the_target() {
        let users = Users::Trace([1.0, 1.5, 4.0].into());
        let setup = Setup {
            users,
            rate: 0.75,
            ..Setup::default()
        };
        for replication in 0..8 {
            let first = ORIGIN + ticks(9.5);
            let mut source = Source::new(&setup, 1, replication, first);
            let mut times = vec![first];
            while source.next < ORIGIN + ticks(20.0) {
                assert!(source.next >= ORIGIN && source.next != first);
                times.push(source.next);
                source.advance();
            }
            times.sort_unstable();
            let gaps = times
                .windows(2)
                .map(|pair| (pair[1] - pair[0]) as f64 / TICKS);
            let gaps: Vec<String> = gaps.map(|gap| format!("{gap:.1}")).collect();
            assert!((14..=16).contains(&times.len()), "{times:?}");
            let pattern = ["1.0", "0.5", "2.5"];
            let turn = pattern.iter().position(|gap| *gap == gaps[0]).unwrap();
            for (place, gap) in gaps.iter().enumerate() {
                assert_eq!(gap, pattern[(turn + place) % 3], "{gaps:?}");
            }
        }
    }
}
