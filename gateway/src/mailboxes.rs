//! Carries out the machine's storage outputs, and brings the answers back in the same order.
//!
//! Spec: docs/spec/gateway.md, rules GW-10, GW-11, GW-18, GW-20.
//!
//! ```text
//! Output::{Register, Store, Peek, Confirm, Expire} ─ asked ─▶ one task ─ call ─▶ store (own
//!        replies, in the order of the calls ─▶ one task ─▶ Input::{Stored, Peeked, Removed, …}
//! ```
//!
//! | what waits           | at most                                                            |
//! |----------------------|--------------------------------------------------------------------|
//! | packets              | [`PUTS_MAX`]; further ones are refused                             |
//! | confirmations        | [`CONFIRMS_MAX`]; further ones are left out: a later one, or       |
//! |                      | expiry, deletes the same packets                                   |
//! | registrations, peeks | one each for a mailbox, so `mailboxes_max`                         |
//! | replies              | [`REPLIES_MAX`]                                                    |
//!
//! The machine never waits. A store that is busy is asked again in a moment and what comes after
//! waits, so that the order holds; only a packet that it has no room for is refused. If the store
//! fails, the machine is told so and stops closed.

use core::time::Duration;
use std::sync::Arc;

use proto::{
    MailboxId,
    gateway::{Input, Kept, Output},
};
use shell::{
    metrics::{Cell, Metrics},
    store::{MailboxStore, Reply, StoreError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

const REPLIES_MAX: usize = 16_384;
const PUTS_MAX: usize = 4_096;
const CONFIRMS_MAX: usize = 16_384;
/// Until a busy store is asked again.
const BUSY_WAIT: Duration = Duration::from_millis(5);

/// Counts a packet or a confirmation until it is answered.
type Counted = Option<OwnedSemaphorePermit>;

/// A call that has been made.
enum Made {
    Register(Reply<()>),
    Put(MailboxId, Reply<u64>),
    Peek(MailboxId, Reply<Vec<Kept>>),
    Confirm(MailboxId, Reply<u64>),
    Expire(Reply<Vec<(MailboxId, u64)>>),
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
        let usage = store.usage().await?;
        let answers = Answers {
            machine,
            stored: metrics.cell("lacuna_mailbox_packets_stored_total", ""),
            confirmed: metrics.cell("lacuna_mailbox_packets_confirmed_total", ""),
            expired: metrics.cell("lacuna_mailbox_packets_expired_total", ""),
            held: metrics.cell("lacuna_mailbox_packets_held", ""),
            mailboxes: metrics.cell("lacuna_mailboxes", ""),
        };
        answers.mailboxes.set(usage.len() as u64);
        answers
            .held
            .set(usage.iter().map(|(_, packets)| packets).sum());
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
            Output::Register { .. } | Output::Peek { .. } | Output::Expire { .. } => None,
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
            mut asked,
            mut refused,
            answers,
        } = self;
        let (made, replies) = mpsc::channel(REPLIES_MAX);
        let calling = async move {
            while let Some((output, counted)) = asked.recv().await {
                let Some(call) = call(&store, output).await else {
                    continue;
                };
                if made.send((call, counted)).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        // These wait for nothing but the machine, which makes no more of them than it takes.
        let refusing = async {
            while let Some(refusal) = refused.recv().await {
                if answers.machine.send(refusal).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        tokio::try_join!(calling, refusing, answers.bring(replies)).map(drop)
    }
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
            Output::Register { mailbox } => Made::Register(store.register(mailbox)),
            Output::Peek {
                mailbox,
                after,
                limit,
            } => Made::Peek(mailbox, store.peek(mailbox, after, limit)),
            Output::Confirm { mailbox, upto } => {
                Made::Confirm(mailbox, store.confirm(mailbox, upto))
            }
            Output::Expire { before_s } => Made::Expire(store.expire(before_s)),
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
            Self::Register(reply) => reply.is_busy(),
            Self::Put(_, reply) | Self::Confirm(_, reply) => reply.is_busy(),
            Self::Peek(_, reply) => reply.is_busy(),
            Self::Expire(reply) => reply.is_busy(),
        }
    }
}

impl Answers {
    async fn bring(&self, mut replies: mpsc::Receiver<(Made, Counted)>) -> Result<(), Failed> {
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

    async fn answer(&self, made: Made) -> Result<Vec<Input>, StoreError> {
        Ok(match made {
            Made::Register(reply) => {
                reply.await?;
                self.mailboxes.add(1);
                Vec::new()
            }
            Made::Put(mailbox, reply) => match reply.await {
                Ok(seq) => {
                    self.stored.add(1);
                    self.held.add(1);
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
                self.gone(&self.confirmed, packets);
                vec![Input::Removed { mailbox, packets }]
            }
            Made::Expire(reply) => {
                let expired = reply.await?;
                self.gone(
                    &self.expired,
                    expired.iter().map(|(_, packets)| packets).sum(),
                );
                let removed = |(mailbox, packets)| Input::Removed { mailbox, packets };
                expired.into_iter().map(removed).collect()
            }
        })
    }

    fn gone(&self, counted: &Cell, packets: u64) {
        counted.add(packets);
        self.held.set(self.held.value().saturating_sub(packets));
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use std::path::Path;

    use shell::store::{self, redb};
    use sphinx::Packet;

    use super::*;

    const ANN: MailboxId = MailboxId([1; 32]);

    fn opened(folder: &Path, quota: u64) -> store::Mailboxes {
        let (file, keys) = (folder.join("mailboxes"), folder.join("mailbox-keys"));
        redb::open(&file, &keys, quota).unwrap()
    }

    fn store_packet(mailbox: MailboxId, byte: u8) -> Output {
        Output::Store {
            mailbox,
            stored_at_s: 7,
            packet: Box::new([byte; sphinx::PACKET_LEN]),
        }
    }

    /// GW-10, GW-11: every call is answered, in the order of the calls.
    #[tokio::test]
    async fn answers_come_in_the_order_of_the_calls() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), u64::MAX);
        let (machine, mut inbox) = mpsc::channel(16);
        let metrics = Metrics::default();
        let started = Mailboxes::start(store, machine, &metrics).await.unwrap();
        let (mailboxes, answers, registered) = started;
        assert!(matches!(registered, Input::Registered(held) if held.is_empty()));
        tokio::spawn(answers.run());

        let (after, limit, nobody) = (0, 9, MailboxId([2; 32]));
        for output in [
            Output::Register { mailbox: ANN },
            store_packet(ANN, 3),
            store_packet(nobody, 4),
            Output::Peek {
                mailbox: ANN,
                after,
                limit,
            },
            Output::Confirm {
                mailbox: ANN,
                upto: u64::MAX,
            },
            store_packet(ANN, 5),
            Output::Expire { before_s: 8 },
        ] {
            assert!(mailboxes.carry_out(output).is_none());
        }
        let Some(Input::Stored { mailbox: ANN, seq }) = inbox.recv().await else {
            panic!("stored first");
        };
        let refused = inbox.recv().await;
        assert!(matches!(refused, Some(Input::Refused { mailbox }) if mailbox == nobody));
        let Some(Input::Peeked { packets, .. }) = inbox.recv().await else {
            panic!("then peeked");
        };
        assert_eq!((packets.len(), packets[0].seq), (1, seq));
        let removed = inbox.recv().await;
        assert!(matches!(removed, Some(Input::Removed { packets: 1, .. })));
        assert!(matches!(inbox.recv().await, Some(Input::Stored { .. })));
        let expired = inbox.recv().await;
        assert!(matches!(expired, Some(Input::Removed { packets: 1, .. })));
        let names = [
            "lacuna_mailbox_packets_stored_total",
            "lacuna_mailbox_packets_confirmed_total",
            "lacuna_mailbox_packets_expired_total",
        ];
        let counts = names.map(|name| metrics.sum(name));
        assert_eq!(counts, [2, 1, 1]);
        assert_eq!(metrics.sum("lacuna_mailbox_packets_held"), 0);
    }

    /// GW-10, GW-23: what the store refuses for itself is a drop, and no failure.
    #[tokio::test]
    async fn a_full_mailbox_and_a_day_that_is_over_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (machine, mut inbox) = mpsc::channel(16);
        let store = opened(folder.path(), 1);
        let started = Mailboxes::start(store, machine, &Metrics::default()).await;
        let (mailboxes, calls, _) = started.unwrap();
        tokio::spawn(calls.run());
        mailboxes.carry_out(Output::Register { mailbox: ANN });
        for output in [
            store_packet(ANN, 1),
            store_packet(ANN, 2),
            Output::Expire { before_s: 86_400 },
            store_packet(ANN, 3),
        ] {
            mailboxes.carry_out(output);
        }
        assert!(matches!(inbox.recv().await, Some(Input::Stored { .. })));
        assert!(matches!(inbox.recv().await, Some(Input::Refused { .. })));
        assert!(matches!(inbox.recv().await, Some(Input::Removed { .. })));
        assert!(matches!(inbox.recv().await, Some(Input::Refused { .. })));
    }

    #[tokio::test]
    async fn what_is_not_the_stores_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), u64::MAX);
        let (machine, _inbox) = mpsc::channel(1);
        let started = Mailboxes::start(store, machine, &Metrics::default()).await;
        let (mailboxes, _answers, _) = started.unwrap();
        let close = Output::Close {
            link: proto::LinkId(1),
        };
        assert!(mailboxes.carry_out(close.clone()) == Some(close));
    }

    /// A store that is busy for the first calls, unless they are packets; and for packets that
    /// begin with 9.
    struct Crowded {
        store: store::Mailboxes,
        busy: AtomicUsize,
    }

    impl Crowded {
        fn admit<T>(&self, call: impl FnOnce(&store::Mailboxes) -> Reply<T>) -> Reply<T> {
            let one_less = |left: usize| left.checked_sub(1);
            let order = Ordering::Relaxed;
            match self.busy.fetch_update(order, order, one_less) {
                Ok(_) => Reply::busy(),
                Err(_) => call(&self.store),
            }
        }
    }

    impl MailboxStore for Crowded {
        fn register(&self, mailbox: MailboxId) -> Reply<()> {
            self.admit(|store| store.register(mailbox))
        }
        fn put(&self, mailbox: MailboxId, stored_at_s: u64, packet: Box<Packet>) -> Reply<u64> {
            match packet[0] {
                9 => Reply::busy(),
                _ => self.store.put(mailbox, stored_at_s, packet),
            }
        }
        fn peek(&self, mailbox: MailboxId, after: u64, limit: usize) -> Reply<Vec<Kept>> {
            self.admit(|store| store.peek(mailbox, after, limit))
        }
        fn confirm(&self, mailbox: MailboxId, upto: u64) -> Reply<u64> {
            self.admit(|store| store.confirm(mailbox, upto))
        }
        fn expire(&self, before_s: u64) -> Reply<Vec<(MailboxId, u64)>> {
            self.admit(|store| store.expire(before_s))
        }
        fn usage(&self) -> Reply<Vec<(MailboxId, u64)>> {
            self.store.usage()
        }
    }

    /// GW-20: a busy store ends nothing: packets are refused above a limit, the rest waits and is
    /// carried out in order.
    #[tokio::test]
    async fn a_busy_store_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Crowded {
            store: opened(folder.path(), u64::MAX),
            busy: AtomicUsize::new(3),
        };
        let (machine, mut inbox) = mpsc::channel(16);
        let started = Mailboxes::start(store, machine, &Metrics::default()).await;
        let (mailboxes, calls, _) = started.unwrap();

        mailboxes.carry_out(Output::Register { mailbox: ANN });
        mailboxes.carry_out(store_packet(ANN, 9));
        for _ in 0..PUTS_MAX {
            mailboxes.carry_out(store_packet(ANN, 1));
        }
        let (after, limit, upto) = (0, 9, u64::MAX);
        let mailbox = ANN;
        mailboxes.carry_out(Output::Peek {
            mailbox,
            after,
            limit,
        });
        mailboxes.carry_out(Output::Confirm { mailbox, upto });
        let running = tokio::spawn(calls.run());

        let (mut refused, mut stored) = (0, 0);
        let peeked = loop {
            let answer = inbox.recv().await.unwrap();
            if let Input::Peeked { packets, .. } = answer {
                break packets;
            }
            refused += usize::from(matches!(answer, Input::Refused { .. }));
            stored += usize::from(matches!(answer, Input::Stored { .. }));
        };
        // One that the store had no room for, one above the limit; the mailbox was there first.
        assert_eq!((refused, stored, peeked.len()), (2, PUTS_MAX - 1, 9));
        let removed = inbox.recv().await;
        let all = PUTS_MAX as u64 - 1;
        assert!(matches!(removed, Some(Input::Removed { packets, .. }) if packets == all));
        assert!(!running.is_finished());
    }
}
