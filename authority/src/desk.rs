//! The authority machine with a desk before it: whoever asks gets the machine's answer.
//!
//! [`Authority::answer`] reads the state that the question finds; the question then goes in as an
//! input. Both happen in one call, so that no other input can come between them.

use proto::{
    Machine, Time,
    authority::{Authority, Input, Output},
    directory::{Answer, Question},
};
use tokio::sync::{oneshot, watch};

/// What comes to the desk.
#[derive(Debug)]
pub(crate) enum Paper {
    /// Someone asks, and waits for the answer.
    Asked(Question, oneshot::Sender<Answer>),
    /// Anything else the machine takes.
    Other(Input),
}

/// What the desk shows to the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Descriptors held.
    pub(crate) held: usize,
    /// Whether the document is made, and on the disk.
    pub(crate) kept: bool,
}

/// The machine and its desk.
pub(crate) struct Desk {
    authority: Authority,
    shown: watch::Sender<Shown>,
}

impl Desk {
    pub(crate) fn new(authority: Authority, shown: watch::Sender<Shown>) -> Self {
        Self { authority, shown }
    }

    fn show(&self) {
        let held = self.authority.held();
        self.shown
            .send_if_modified(|shown| core::mem::replace(&mut shown.held, held) != held);
    }
}

impl Machine for Desk {
    type Input = Paper;
    type Output = Output;

    fn handle(&mut self, now: Time, paper: Paper) {
        let input = match paper {
            Paper::Asked(question, reply) => {
                // Whoever asked may have hung up.
                let _ = reply.send(self.authority.answer(&question));
                Input::Asked(question)
            }
            Paper::Other(input) => input,
        };
        self.authority.handle(now, input);
        self.show();
    }

    fn wake(&mut self, now: Time) {
        self.authority.wake(now);
        self.show();
    }

    fn poll(&mut self) -> Option<Output> {
        self.authority.poll()
    }

    fn next_wake(&self) -> Option<Time> {
        self.authority.next_wake()
    }
}
