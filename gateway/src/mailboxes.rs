//! Carries out the machine's storage outputs, and brings the answers back in the same order.
//!
//! Spec: docs/spec/gateway.md, rules GW-10, GW-11, GW-18, GW-20, GW-28, GW-29.
//!
//! ```text
//! Output::{Register, Store, Peek, Confirm, Expire, Open} ─ asked ─▶ one task ─ call ─▶ store (own
//!        replies, in the order of the calls ─▶ one task ─▶ Input::{Stored, Peeked, Removed, …}
//! ```
//!
//! | what waits           | at most                                                            |
//! |----------------------|--------------------------------------------------------------------|
//! | packets              | [`PUTS_MAX`]; further ones are refused                             |
//! | confirmations        | [`CONFIRMS_MAX`]; further ones are left out: a later one, or       |
//! |                      | expiry, deletes the same packets                                   |
//! | registrations, peeks | one each for a mailbox, so `mailboxes_max`                         |
//! | openings             | one for a confirmation of a client, at their rates                 |
//! | looks for changes    | one, every [`LOOK_EVERY`], at a store that others share            |
//! | replies              | [`REPLIES_MAX`]                                                    |
//!
//! The machine never waits. A store that is busy is asked again in a moment and what comes after
//! waits, so that the order holds; only a packet that it has no room for is refused. If the store
//! fails, the machine is told so and stops closed.

use core::time::Duration;
use std::{collections::BTreeMap, sync::Arc};

use proto::{
    MailboxId,
    gateway::{Change, Input, Kept, Output},
};
use shell::{
    metrics::{Cell, Metrics},
    store::{MailboxStore, Reply, StoreError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

const REPLIES_MAX: usize = 16_384;
const PUTS_MAX: usize = 4_096;
const CONFIRMS_MAX: usize = 16_384;
/// How often a store that others share is asked what they have changed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Until a busy store is asked again.
const BUSY_WAIT: Duration = Duration::from_millis(5);

/// Counts a packet or a confirmation until it is answered.
type Counted = Option<OwnedSemaphorePermit>;

/// A call that has been made.
enum Made {
    Register(MailboxId, Reply<()>),
    Put(MailboxId, Reply<u64>),
    Peek(MailboxId, Reply<Vec<Kept>>),
    Confirm(MailboxId, Reply<u64>),
    Expire(Reply<Vec<(MailboxId, u64)>>),
    Open(MailboxId, Reply<u64>),
    Look(Reply<Vec<Change>>),
}

/// The store, as the machine's driver sees it.
pub(crate) struct Mailboxes {
    asked: mpsc::UnboundedSender<(Output, Counted)>,
    refused: mpsc::UnboundedSender<Input>,
    puts: Arc<Semaphore>,
    confirms: Arc<Semaphore>,
}

/// Makes the calls; see [`Calls::run`].
pub(crate) struct Calls<S> {
    store: S,
    /// Whether others share the store.
    shared: bool,
    asked: mpsc::UnboundedReceiver<(Output, Counted)>,
    refused: mpsc::UnboundedReceiver<Input>,
    answers: Answers,
}

/// Brings answers back.
struct Answers {
    machine: mpsc::Sender<Input>,
    stored: Cell,
    confirmed: Cell,
    expired: Cell,
    /// Packets in each mailbox.
    holds: BTreeMap<MailboxId, u64>,
    held: Cell,
    mailboxes: Cell,
}

/// The store failed: the machine has been told, and nothing more will be answered.
#[derive(Debug)]
pub(crate) struct Failed;

impl Mailboxes {
    /// Tells the machine what the store holds, and sets up both ends.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) async fn start<S: MailboxStore>(
        store: S,
        machine: mpsc::Sender<Input>,
        metrics: &Metrics,
    ) -> Result<(Self, Calls<S>, Input), StoreError> {
        // What has changed until now is part of the usage.
        let shared = store.changes().is_some();
        let usage = store.usage().await?;
        let answers = Answers {
            machine,
            stored: metrics.cell("lacuna_mailbox_packets_stored_total", ""),
            confirmed: metrics.cell("lacuna_mailbox_packets_confirmed_total", ""),
            expired: metrics.cell("lacuna_mailbox_packets_expired_total", ""),
            holds: usage.iter().copied().collect(),
            held: metrics.cell("lacuna_mailbox_packets_held", ""),
            mailboxes: metrics.cell("lacuna_mailboxes", ""),
        };
        answers.mailboxes.set(usage.len() as u64);
        answers.held.set(answers.holds.values().sum());
        let (asked, asked_for) = mpsc::unbounded_channel();
        let (refused, refusals) = mpsc::unbounded_channel();
        let mailboxes = Self {
            asked,
            refused,
            puts: Arc::new(Semaphore::new(PUTS_MAX)),
            confirms: Arc::new(Semaphore::new(CONFIRMS_MAX)),
        };
        let calls = Calls {
            store,
            shared,
            asked: asked_for,
            refused: refusals,
            answers,
        };
        Ok((mailboxes, calls, Input::Registered(usage)))
    }

    /// Asks the store for what `output` wants; gives back an output that is none of the store's.
    pub(crate) fn carry_out(&self, output: Output) -> Option<Output> {
        let room = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned().ok();
        let counted = match &output {
            Output::Store { mailbox, .. } => {
                let Some(counted) = room(&self.puts) else {
                    let mailbox = *mailbox;
                    let _stopping = self.refused.send(Input::Refused { mailbox });
                    return None;
                };
                Some(counted)
            }
            Output::Confirm { .. } => Some(room(&self.confirms)?),
            Output::Register { .. }
            | Output::Peek { .. }
            | Output::Expire { .. }
            | Output::Open { .. } => None,
            Output::Relay { .. }
            | Output::Frame { .. }
            | Output::Close { .. }
            | Output::Dropped(_)
            | Output::Event(_) => return Some(output),
        };
        let _stopping = self.asked.send((output, counted));
        None
    }
}

impl<S: MailboxStore> Calls<S> {
    /// Makes calls and brings answers back until the machine is gone, or the store fails.
    pub(crate) async fn run(self) -> Result<(), Failed> {
        let Self {
            store,
            shared,
            mut asked,
            mut refused,
            mut answers,
        } = self;
        let (made, replies) = mpsc::channel(REPLIES_MAX);
        let machine = answers.machine.clone();
        let calling = async move {
            let mut look = tokio::time::interval(LOOK_EVERY);
            let looks = Arc::new(Semaphore::new(1));
            loop {
                let (call, counted) = tokio::select! {
                    output = asked.recv() => match output {
                        Some((output, counted)) => (call(&store, output).await, counted),
                        None => break,
                    },
                    _ = look.tick(), if shared => match Arc::clone(&looks).try_acquire_owned() {
                        Ok(counted) => (look_at(&store), Some(counted)),
                        Err(_one_is_under_way) => continue,
                    },
                };
                if let Some(call) = call
                    && made.send((call, counted)).await.is_err()
                {
                    break;
                }
            }
            Ok(())
        };
        // These wait for nothing but the machine, which makes no more of them than it takes.
        let refusing = async {
            while let Some(refusal) = refused.recv().await {
                if machine.send(refusal).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        tokio::try_join!(calling, refusing, answers.bring(replies)).map(drop)
    }
}

/// Asks what others have changed; if the store is busy, the next time.
fn look_at(store: &impl MailboxStore) -> Option<Made> {
    let reply = store.changes().filter(|reply| !reply.is_busy());
    reply.map(Made::Look)
}

/// Makes a call, once the store has room for it (GW-20); none for what is not the store's.
async fn call(store: &impl MailboxStore, output: Output) -> Option<Made> {
    loop {
        let made = match output {
            Output::Store {
                mailbox,
                stored_at_s,
                packet,
            } => return Some(Made::Put(mailbox, store.put(mailbox, stored_at_s, packet))),
            Output::Register { mailbox } => Made::Register(mailbox, store.register(mailbox)),
            Output::Peek {
                mailbox,
                after,
                limit,
            } => Made::Peek(mailbox, store.peek(mailbox, after, limit)),
            Output::Confirm { mailbox, upto } => {
                Made::Confirm(mailbox, store.confirm(mailbox, upto))
            }
            Output::Expire { before_s } => Made::Expire(store.expire(before_s)),
            Output::Open { mailbox } => Made::Open(mailbox, store.open(mailbox)?),
            Output::Relay { .. }
            | Output::Frame { .. }
            | Output::Close { .. }
            | Output::Dropped(_)
            | Output::Event(_) => return None,
        };
        if !made.is_busy() {
            return Some(made);
        }
        tokio::time::sleep(BUSY_WAIT).await;
    }
}

impl Made {
    fn is_busy(&self) -> bool {
        match self {
            Self::Register(_, reply) => reply.is_busy(),
            Self::Put(_, reply) | Self::Confirm(_, reply) | Self::Open(_, reply) => reply.is_busy(),
            Self::Look(reply) => reply.is_busy(),
            Self::Peek(_, reply) => reply.is_busy(),
            Self::Expire(reply) => reply.is_busy(),
        }
    }
}

impl Answers {
    async fn bring(&mut self, mut replies: mpsc::Receiver<(Made, Counted)>) -> Result<(), Failed> {
        while let Some((made, _counted)) = replies.recv().await {
            let Ok(inputs) = self.answer(made).await else {
                let _stopping = self.machine.send(Input::StoreFailed).await;
                return Err(Failed);
            };
            for input in inputs {
                if self.machine.send(input).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn answer(&mut self, made: Made) -> Result<Vec<Input>, StoreError> {
        Ok(match made {
            Made::Register(mailbox, reply) => {
                reply.await?;
                self.holds(mailbox, |packets| packets);
                Vec::new()
            }
            Made::Put(mailbox, reply) => match reply.await {
                Ok(seq) => {
                    self.stored.add(1);
                    self.holds(mailbox, |packets| packets + 1);
                    vec![Input::Stored { mailbox, seq }]
                }
                Err(
                    StoreError::NoMailbox
                    | StoreError::Full
                    | StoreError::TooOld
                    | StoreError::Busy,
                ) => vec![Input::Refused { mailbox }],
                Err(failed) => return Err(failed),
            },
            Made::Peek(mailbox, reply) => {
                let packets = reply.await?;
                vec![Input::Peeked { mailbox, packets }]
            }
            Made::Confirm(mailbox, reply) => {
                let packets = reply.await?;
                self.confirmed.add(packets);
                vec![self.removed(mailbox, packets)]
            }
            Made::Expire(reply) => {
                let expired = reply.await?;
                self.expired
                    .add(expired.iter().map(|(_, packets)| packets).sum());
                let removed = |(mailbox, packets)| self.removed(mailbox, packets);
                expired.into_iter().map(removed).collect()
            }
            Made::Open(mailbox, reply) => {
                let openings = reply.await?;
                vec![Input::Opened { mailbox, openings }]
            }
            Made::Look(reply) => {
                let changes = reply.await?;
                for change in &changes {
                    self.holds(change.mailbox, |_| change.packets);
                }
                let news = (!changes.is_empty()).then_some(Input::Changed(changes));
                news.into_iter().collect()
            }
        })
    }

    fn removed(&mut self, mailbox: MailboxId, packets: u64) -> Input {
        self.holds(mailbox, |held| held.saturating_sub(packets));
        Input::Removed { mailbox, packets }
    }

    /// Shows how many packets a mailbox holds.
    fn holds(&mut self, mailbox: MailboxId, now: impl FnOnce(u64) -> u64) {
        let packets = self.holds.entry(mailbox).or_default();
        let others = self.held.value().saturating_sub(*packets);
        *packets = now(*packets);
        self.held.set(others + *packets);
        self.mailboxes.set(self.holds.len() as u64);
    }
}

#[cfg(test)]
mod tests;
