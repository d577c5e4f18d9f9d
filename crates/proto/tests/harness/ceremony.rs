//! Authorities of a test network: one by itself, or four together over a driver that loses
//! questions, delays disks and restarts them.

use core::time::Duration;

use proto::{
    Machine, Time,
    authority::{Authority, AuthorityDrop, Config, Event, Input, Output, Record},
    calendar::{Calendar, Utc},
    directory::{Ballot, Proposal, Question},
};

use super::{
    call,
    network::{TestNetwork, VALID_FROM_S},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn town() -> TestNetwork {
    TestNetwork::new(3, 3, 1)
}

pub(crate) fn config(town: &TestNetwork) -> Config {
    Config {
        network: town.network.clone(),
        terms: town.terms.clone(),
        mixes_min: 3,
        gateways_min: 1,
        nodes_max: 6,
        settle: SECOND * 2,
        round: SECOND,
    }
}

pub(crate) fn authority(town: &TestNetwork, own: usize) -> Authority {
    Authority::new(config(town), town.authorities[own].clone(), None)
        .expect("a sound configuration")
}

/// The driver's time zero is when the test networks' documents start.
pub(crate) fn calendar() -> Input {
    Input::Calendar(Calendar {
        at: Time::ZERO,
        utc: Utc::from_secs(VALID_FROM_S),
    })
}

pub(crate) fn at(secs: u64) -> Time {
    Time::from_nanos(secs * 1_000_000_000)
}

/// The first round from `from` on that is `authority`'s turn. Rounds are one second here.
pub(crate) fn turn(authority: u8, from: u64) -> u32 {
    let first = u32::try_from(VALID_FROM_S + from).expect("before 2106");
    (first..)
        .find(|round| round % 4 == u32::from(authority))
        .expect("one in four")
}

pub(crate) fn proposal(town: &TestNetwork, by: u8, round: u32, body: Vec<u8>) -> Proposal {
    let key = &town.authorities[usize::from(by)];
    Proposal::sign(&town.network.id, key, by, 7, round, body)
}

pub(crate) fn ballot(town: &TestNetwork, by: u8, round: u32, hash: [u8; 32]) -> Ballot {
    let key = &town.authorities[usize::from(by)];
    Ballot::sign(&town.network.id, key, by, 7, round, hash)
}

/// What was dropped, or nothing.
pub(crate) fn dropped(outputs: &[Output]) -> Option<AuthorityDrop> {
    outputs.iter().find_map(|output| {
        if let Output::Event(Event::Dropped(why)) = output {
            Some(*why)
        } else {
            None
        }
    })
}

pub(crate) fn asked(machine: &mut Authority, now: Time, question: Question) -> Vec<Output> {
    call(machine, now, Some(Input::Asked(question)))
}

/// One authority as its driver keeps it.
pub(crate) struct Seat {
    pub(crate) machine: Authority,
    pub(crate) record: Option<Record>,
    /// Written, but not yet told.
    pub(crate) storing: bool,
}

/// Four authorities, a network between them, and what went wrong.
pub(crate) struct Ceremony {
    pub(crate) town: TestNetwork,
    pub(crate) seats: Vec<Seat>,
    pub(crate) now: Time,
    pub(crate) published: Vec<[u8; 32]>,
}

impl Ceremony {
    pub(crate) fn new(town: TestNetwork) -> Self {
        let seat = |own| Seat {
            machine: authority(&town, own),
            record: None,
            storing: false,
        };
        let mut ceremony = Self {
            seats: (0..4).map(seat).collect(),
            town,
            now: Time::ZERO,
            published: Vec::new(),
        };
        for own in 0..4 {
            ceremony.give(own, calendar(), &mut || true);
        }
        ceremony
    }

    pub(crate) fn give(&mut self, own: usize, input: Input, arrives: &mut dyn FnMut() -> bool) {
        let outputs = call(&mut self.seats[own].machine, self.now, Some(input));
        self.carry_out(own, outputs, arrives);
    }

    pub(crate) fn carry_out(
        &mut self,
        own: usize,
        outputs: Vec<Output>,
        arrives: &mut dyn FnMut() -> bool,
    ) {
        for output in outputs {
            match output {
                Output::Ask {
                    authority,
                    question,
                } => {
                    let to = usize::from(authority);
                    if arrives() {
                        let answer = self.seats[to].machine.answer(&question);
                        self.give(to, Input::Asked(question), arrives);
                        if arrives() {
                            self.give(own, Input::Answered(answer), arrives);
                        }
                    }
                }
                Output::Store(record) => {
                    let seat = &mut self.seats[own];
                    (seat.record, seat.storing) = (Some(record), true);
                }
                Output::Publish(signed) => {
                    let consensus = signed.verify(&self.town.network, None).expect("valid");
                    self.published.push(consensus.hash());
                }
                Output::Event(event) => assert_ne!(event, Event::Split),
            }
        }
    }

    /// Lets time go to `now`: wakes, and disks that finish.
    pub(crate) fn advance(&mut self, now: Time, arrives: &mut dyn FnMut() -> bool) {
        loop {
            let wakes = self.seats.iter().map(|seat| seat.machine.next_wake());
            let due = (0..)
                .zip(wakes)
                .filter_map(|(own, at)| Some((at?, own)))
                .min();
            let Some((at, own)) = due.filter(|(at, _)| *at <= now) else {
                break;
            };
            self.now = at.max(self.now);
            let outputs = call(&mut self.seats[own].machine, self.now, None);
            self.carry_out(own, outputs, arrives);
            for own in 0..4 {
                if self.seats[own].storing && arrives() {
                    self.seats[own].storing = false;
                    self.give(own, Input::Stored, arrives);
                }
            }
        }
        self.now = now;
    }

    /// A process that ends at once and starts again with what its disk holds.
    pub(crate) fn restart(&mut self, own: usize) {
        let key = self.town.authorities[own].clone();
        let record = self.seats[own].record.clone();
        let machine = Authority::new(config(&self.town), key, record).expect("its own record");
        self.seats[own].machine = machine;
        self.seats[own].storing = false;
        self.give(own, calendar(), &mut || true);
    }
}
