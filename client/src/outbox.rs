//! Messages on their way out, as whoever sent them sees them.
//!
//! | progress  | ends the ticket              | told as                        |
//! |-----------|------------------------------|--------------------------------|
//! | queued    | no                           | [`Wait::Queued`]               |
//! | sent      | if nothing can be acked      | [`Wait::Sent`]                 |
//! | acked     | yes                          | [`Wait::Acked`]                |
//! | expired   | yes                          | [`SendError::Expired`]         |
//! | failed    | yes                          | [`SendError::Refused`]         |
//!
//! Tickets live as long as the process. A message that a restart found in the store goes on
//! without one: it is delivered, counted and acked, but nobody waits for it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use proto::client::{Failure, Progress, State};
use tokio::sync::watch;

use crate::api::Wait;

/// Why a message did not reach the state that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// It was not taken.
    Refused(Failure),
    /// The recipient did not acknowledge it before it expired.
    Expired,
    /// Its way back is none, so no ack can ever come.
    NoAck,
    /// The daemon stopped; a queued message goes on when it runs again.
    Stopped,
}

impl SendError {
    /// Whether the same request would fail again.
    #[must_use]
    pub fn is_usage(self) -> bool {
        match self {
            Self::NoAck => true,
            Self::Refused(failure) => match failure {
                Failure::TooLong
                | Failure::NothingToReplyTo
                | Failure::TooFewSurbs
                | Failure::SurbsExpired
                | Failure::NoAddress => true,
                Failure::NotReady
                | Failure::OutboxFull
                | Failure::TooManySurbs
                | Failure::NoRoute
                | Failure::Revoked => false,
            },
            Self::Expired | Self::Stopped => false,
        }
    }
}

impl core::fmt::Display for SendError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Expired => "the recipient did not acknowledge the message before it expired",
            Self::NoAck => "no ack can come without a way back: send with --reply address or surbs, or wait for less",
            Self::Stopped => "the daemon is stopping; a queued message goes on when it runs again",
            Self::Refused(failure) => match failure {
                Failure::NotReady => "there is no consensus yet: see `lacuna status`, try again when it is ready",
                Failure::TooLong => "a message has at most 128 MiB: split it",
                Failure::OutboxFull => "too much is on its way out: wait until some of it is sent",
                Failure::NothingToReplyTo => "this reply token names no message that can be answered",
                Failure::TooFewSurbs => "no reply block is left, not even to ask for more by: wait for the sender's next message",
                Failure::SurbsExpired => "the reply blocks' epoch is over: the message can't be answered any more",
                Failure::TooManySurbs => "too many reply blocks are under way: ask for fewer, or wait until some are used or their epoch ends",
                Failure::NoAddress => "the address to answer to was revoked: name another one",
                Failure::Revoked => "the address that its acks would come to was revoked: whether it arrives is not known",
                Failure::NoRoute => "the network has no route now: try again later",
            },
        })
    }
}

impl core::error::Error for SendError {}

/// Where one message is: its id, once it has one, and the furthest state.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    pub(crate) id: Option<[u8; 16]>,
    pub(crate) state: Option<Result<Wait, SendError>>,
}

struct Ticket {
    known: watch::Sender<Known>,
    ackable: bool,
}

/// All tickets of one daemon.
#[derive(Default)]
pub(crate) struct Outbox {
    tickets: Mutex<BTreeMap<u64, Ticket>>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a ticket; `ackable` says whether an ack can come.
    pub(crate) fn open(&self, ticket: u64, ackable: bool) -> watch::Receiver<Known> {
        let (known, watch) = watch::channel(Known::default());
        self.lock().insert(ticket, Ticket { known, ackable });
        watch
    }

    /// How many messages are under way.
    #[cfg(test)]
    fn len(&self) -> u64 {
        self.lock().len() as u64
    }

    /// Notes what the machine says of a message.
    pub(crate) fn note(&self, progress: Progress) {
        let mut tickets = self.lock();
        let Some(ticket) = tickets.get(&progress.ticket) else {
            return; // of a message from before a restart
        };
        let (state, ended) = match progress.state {
            State::Queued => (Ok(Wait::Queued), false),
            State::Sent => (Ok(Wait::Sent), !ticket.ackable),
            State::Acked => (Ok(Wait::Acked), true),
            State::Expired => (Err(SendError::Expired), true),
            State::Failed(failure) => (Err(SendError::Refused(failure)), true),
        };
        ticket.known.send_replace(Known {
            id: Some(progress.message.0),
            state: Some(state),
        });
        if ended {
            tickets.remove(&progress.ticket);
        }
    }

    /// Ends every ticket.
    pub(crate) fn close(&self) {
        self.lock().clear();
    }
}

/// One message on its way: what [`crate::Handle::send`] gives back.
#[derive(Debug)]
pub struct Sending {
    known: watch::Receiver<Known>,
    ackable: bool,
}

impl Sending {
    pub(crate) fn new(known: watch::Receiver<Known>, ackable: bool) -> Self {
        Self { known, ackable }
    }

    /// Waits until the message is at least in `state`; gives its id and the state that it is in,
    /// which may be a later one. Cancel safe.
    ///
    /// # Errors
    ///
    /// If it can't come so far.
    pub async fn reached(&mut self, state: Wait) -> Result<([u8; 16], Wait), SendError> {
        if state == Wait::Acked && !self.ackable {
            return Err(SendError::NoAck);
        }
        let far_enough = |known: &Known| match known.state {
            Some(Ok(now)) => now >= state,
            Some(Err(_)) => true,
            None => false,
        };
        let known = *self
            .known
            .wait_for(far_enough)
            .await
            .map_err(|_| SendError::Stopped)?;
        let now = known.state.ok_or(SendError::Stopped)??;
        Ok((known.id.ok_or(SendError::Stopped)?, now))
    }
}

#[cfg(test)]
mod tests {
    use proto::client::MessageId;

    use super::*;

    fn progress(ticket: u64, state: State) -> Progress {
        Progress {
            ticket,
            message: MessageId([9; 16]),
            state,
        }
    }

    #[tokio::test]
    async fn a_ticket_ends_with_the_last_state_that_can_come() {
        let outbox = Outbox::default();
        let mut sending = Sending::new(outbox.open(1, true), true);
        let mut silent = Sending::new(outbox.open(2, false), false);
        for ticket in [1, 2, 77] {
            outbox.note(progress(ticket, State::Queued));
            outbox.note(progress(ticket, State::Sent));
        }
        assert_eq!(outbox.len(), 1, "without a way back, sent is the end");
        assert_eq!(
            silent.reached(Wait::Queued).await,
            Ok(([9; 16], Wait::Sent))
        );
        assert_eq!(silent.reached(Wait::Acked).await, Err(SendError::NoAck));
        outbox.note(progress(1, State::Acked));
        assert_eq!(
            sending.reached(Wait::Acked).await,
            Ok(([9; 16], Wait::Acked))
        );
        assert_eq!(outbox.len(), 0);
    }

    #[tokio::test]
    async fn failure_and_stop_end_the_wait() {
        let outbox = Outbox::default();
        let mut failed = Sending::new(outbox.open(1, true), true);
        let mut stopped = Sending::new(outbox.open(2, true), true);
        outbox.note(progress(1, State::Failed(Failure::OutboxFull)));
        let refused = SendError::Refused(Failure::OutboxFull);
        assert_eq!(failed.reached(Wait::Sent).await, Err(refused));
        assert!(
            !SendError::Refused(Failure::TooManySurbs).is_usage(),
            "it passes"
        );
        outbox.close();
        assert_eq!(stopped.reached(Wait::Sent).await, Err(SendError::Stopped));
    }
}
