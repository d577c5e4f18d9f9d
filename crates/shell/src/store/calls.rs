//! What is asked of a mailbox engine, in the order in which it was asked, and its answers.
//!
//! An engine is a function that carries out a batch of [`Request`]s as one durable transaction and
//! gives one [`Outcome`] for each, or fails, and then none of the batch has happened. [`Mailboxes`]
//! queues requests before it (`group`) and gives the answers back. Once a batch fails every later
//! call fails too: what the store holds is then known only after a restart.

use proto::{
    MailboxId,
    gateway::{Change, Kept},
};
use sphinx::Packet;

use super::{Answer, MailboxStore, Reply, StoreError, group::Group, unopened};

pub(super) enum Request {
    Register(MailboxId, Answer<()>),
    Put(MailboxId, u64, Box<Packet>, Answer<u64>),
    Peek(MailboxId, u64, usize, Answer<Vec<Kept>>),
    Confirm(MailboxId, u64, Answer<u64>),
    Expire(u64, Answer<Vec<(MailboxId, u64)>>),
    Usage(Answer<Vec<(MailboxId, u64)>>),
    /// Of a store that is shared, as the next.
    Open(MailboxId, Answer<u64>),
    Changes(Answer<Vec<Change>>),
}

/// What became of one request.
pub(super) enum Outcome {
    Registered,
    Put(Result<u64, StoreError>),
    Peeked(Vec<Kept>),
    Confirmed(u64),
    /// Of `Expire` and `Usage`.
    Counts(Vec<(MailboxId, u64)>),
    Opened(u64),
    Changed(Vec<Change>),
}

impl Request {
    fn answer(self, outcome: Outcome) {
        // Whoever asked may have stopped waiting.
        match (self, outcome) {
            (Self::Register(_, answer), Outcome::Registered) => drop(answer.send(Ok(()))),
            (Self::Put(.., answer), Outcome::Put(result)) => drop(answer.send(result)),
            (Self::Peek(.., answer), Outcome::Peeked(kept)) => drop(answer.send(Ok(kept))),
            (Self::Confirm(.., answer), Outcome::Confirmed(gone)) => drop(answer.send(Ok(gone))),
            (Self::Expire(_, answer) | Self::Usage(answer), Outcome::Counts(counts)) => {
                drop(answer.send(Ok(counts)));
            }
            (Self::Open(_, answer), Outcome::Opened(openings)) => drop(answer.send(Ok(openings))),
            (Self::Changes(answer), Outcome::Changed(changes)) => drop(answer.send(Ok(changes))),
            _ => unreachable!("an engine answers what it was asked"),
        }
    }
}

/// A store of mailboxes: an engine behind its queue. Dropping it carries out what was asked.
pub struct Mailboxes {
    group: Group<Request>,
    shared: bool,
}

impl Mailboxes {
    /// Starts the thread that carries out requests with `engine`, which others share the store of
    /// or not.
    pub(super) fn start<E: core::fmt::Display>(
        shared: bool,
        mut engine: impl FnMut(&[Request]) -> Result<Vec<Outcome>, E> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let mut broken = false;
        let commit = move |batch: Vec<Request>| {
            // Answers that are dropped say that the store failed.
            match (!broken).then(|| engine(&batch)) {
                Some(Ok(outcomes)) => {
                    let answered = batch.into_iter().zip(outcomes);
                    answered.for_each(|(request, outcome)| request.answer(outcome));
                }
                Some(Err(why)) => {
                    tracing::error!(%why, "the mailbox store failed");
                    broken = true;
                }
                None => {}
            }
        };
        let group = Group::start("mailbox-store", commit).map_err(unopened)?;
        Ok(Self { group, shared })
    }

    fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Reply<T> {
        Reply::to(|answer| self.group.send(request(answer)))
    }
}

impl MailboxStore for Mailboxes {
    fn register(&self, mailbox: MailboxId) -> Reply<()> {
        self.ask(|answer| Request::Register(mailbox, answer))
    }

    fn put(&self, mailbox: MailboxId, stored_at_s: u64, packet: Box<Packet>) -> Reply<u64> {
        self.ask(|answer| Request::Put(mailbox, stored_at_s, packet, answer))
    }

    fn peek(&self, mailbox: MailboxId, after: u64, limit: usize) -> Reply<Vec<Kept>> {
        self.ask(|answer| Request::Peek(mailbox, after, limit, answer))
    }

    fn confirm(&self, mailbox: MailboxId, upto: u64) -> Reply<u64> {
        self.ask(|answer| Request::Confirm(mailbox, upto, answer))
    }

    fn expire(&self, before_s: u64) -> Reply<Vec<(MailboxId, u64)>> {
        self.ask(|answer| Request::Expire(before_s, answer))
    }

    fn usage(&self) -> Reply<Vec<(MailboxId, u64)>> {
        self.ask(Request::Usage)
    }

    fn open(&self, mailbox: MailboxId) -> Option<Reply<u64>> {
        self.shared
            .then(|| self.ask(|answer| Request::Open(mailbox, answer)))
    }

    fn changes(&self) -> Option<Reply<Vec<Change>>> {
        self.shared.then(|| self.ask(Request::Changes))
    }
}
