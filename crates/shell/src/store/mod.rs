//! Where a gateway keeps mailboxes.
//!
//! | call       | effect                                          | when it resolves          |
//! |------------|-------------------------------------------------|---------------------------|
//! | `register` | the mailbox exists                              | durable                   |
//! | `put`      | the packet has a number in its mailbox          | durable                   |
//! | `peek`     | reads packets above a number, rising            | sees every earlier call   |
//! | `confirm`  | deletes packets up to a number                  | durable; says how many    |
//! | `expire`   | deletes packets stored before a time            | durable; says whose       |
//! | `usage`    | every mailbox and how many packets it holds     | sees every earlier call   |
//! | `open`     | counts an opening; a shared store only          | durable; says which it is |
//! | `changes`  | what was changed since the last time, by whom   | sees every earlier call   |
//! |            | ever; a shared store only                       | that has been answered    |
//!
//! A call is made when the method returns, and calls are carried out in the order in
//! which they are made; the [`Reply`] only waits for the answer. Numbers rise within a mailbox and are
//! never reused, also after `confirm`, a crash, a restart, or when the store was lost: a recipient's cursor
//! depends on it.
//! Durable means that the answer comes after the operating system has been told to put the data on
//! the disk (`fsync`), so what was answered survives `kill -9` and a loss of power.
//!
//! Spec: docs/spec/gateway.md, rules GW-21 to GW-30, GW-32.
//!
//! Two engines: [`redb`], a file beside the gateway's keys, and [`postgres`], a server. Both keep
//! packets sealed under a key of their day (`seal`), hold each mailbox to its quota, and pass
//! `conformance`, which knows nothing of either. A server may serve several front ends of one
//! gateway; they share [`Tags`] there as well.

mod calls;
#[cfg(test)]
mod conformance;
mod group;
pub mod kv;
pub mod postgres;
pub mod redb;
mod seal;
pub mod throwaway;

use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

pub use calls::Mailboxes;
use proto::{
    MailboxId,
    calendar::Epoch,
    gateway::{Change, Kept},
    replay::Fingerprint,
};
use sphinx::Packet;
use tokio::sync::oneshot;

/// Why the store did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The mailbox is not registered; nothing was stored.
    #[error("no such mailbox")]
    NoMailbox,
    /// The mailbox holds its quota; nothing was stored.
    #[error("the mailbox is full")]
    Full,
    /// The key of the day on which it is to be stored is gone; nothing was stored.
    #[error("the packet is older than what is kept; check the clock")]
    TooOld,
    /// More requests wait than the store takes; nothing was stored.
    #[error("the store is busy")]
    Busy,
    /// The engine failed, and will not work again before a restart; the log says why.
    #[error("the store failed; see the log")]
    Failed,
    /// The same, and why.
    #[error("{0}")]
    Broken(String),
    /// It can't be opened: in use by another process, or damaged; or its keys can't.
    #[error("can't open the store: {0}")]
    Open(String),
}

fn unopened(error: impl core::fmt::Display) -> StoreError {
    StoreError::Open(error.to_string())
}

/// The answer to a call that has been made. Dropping it takes nothing back.
#[derive(Debug)]
pub struct Reply<T>(Option<oneshot::Receiver<Result<T, StoreError>>>);

/// Gives the answer to one [`Reply`]; dropped, it says that the engine failed.
type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

impl<T> Reply<T> {
    /// An answer to come, and where it is given.
    #[must_use]
    pub fn awaited() -> (oneshot::Sender<Result<T, StoreError>>, Self) {
        let (answer, reply) = oneshot::channel();
        (answer, Self(Some(reply)))
    }

    /// Hands an [`Answer`] to `queue`, which says whether there was room for it.
    fn to(queue: impl FnOnce(Answer<T>) -> bool) -> Self {
        let (answer, reply) = oneshot::channel();
        Self(queue(answer).then_some(reply))
    }

    /// The answer of a store that has no room: [`StoreError::Busy`].
    #[must_use]
    pub fn busy() -> Self {
        Self(None)
    }

    /// Whether the store had no room, so that the call was not made.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.0.is_none()
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            None => Poll::Ready(Err(StoreError::Busy)),
            Some(reply) => Pin::new(reply)
                .poll(context)
                .map(|answered| answered.unwrap_or(Err(StoreError::Failed))),
        }
    }
}

/// A store of mailboxes.
pub trait MailboxStore: Send + Sync + 'static {
    /// Makes a mailbox; does nothing to one that exists.
    fn register(&self, mailbox: MailboxId) -> Reply<()>;

    /// Stores a packet and says the number it was given, at least 1.
    fn put(&self, mailbox: MailboxId, stored_at_s: u64, packet: Box<Packet>) -> Reply<u64>;

    /// Reads at most `limit` packets numbered above `after`, rising.
    fn peek(&self, mailbox: MailboxId, after: u64, limit: usize) -> Reply<Vec<Kept>>;

    /// Deletes packets numbered up to `upto`; says how many there were.
    fn confirm(&self, mailbox: MailboxId, upto: u64) -> Reply<u64>;

    /// Deletes packets stored before `before_s`; says of whom and how many.
    fn expire(&self, before_s: u64) -> Reply<Vec<(MailboxId, u64)>>;

    /// Every mailbox, and how many packets it holds.
    fn usage(&self) -> Reply<Vec<(MailboxId, u64)>>;

    /// Counts an opening of a mailbox and says how many there were (GW-28); none if nobody shares
    /// the store.
    fn open(&self, _mailbox: MailboxId) -> Option<Reply<u64>> {
        None
    }

    /// What has changed since this was asked last, or since the store was opened (GW-29); none if
    /// nobody shares the store.
    fn changes(&self) -> Option<Reply<Vec<Change>>> {
        None
    }
}

/// What is kept of a packet that was admitted: its key's epoch, and the fingerprint of its tag.
pub type Mark = (Epoch, Fingerprint);

/// The tags of packets that the front ends of one gateway have admitted (GW-30).
pub trait Tags: Send + Sync + 'static {
    /// Takes marks in, durably, and says of each whether it is new.
    fn admit(&self, marks: Vec<Mark>) -> Reply<Vec<bool>>;

    /// Forgets some of the marks of all epochs before this one; says how many.
    fn forget(&self, before: Epoch) -> Reply<u64>;
}
