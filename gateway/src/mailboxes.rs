//! Carries out the machine's storage outputs, and brings the answers back in the same order.
//!
//! Spec: docs/spec/gateway.md, rules GW-10, GW-11, GW-18.
//!
//! ```text
//! Output::{Register, Store, Peek, Confirm, Expire} ─ call ─▶ store (own thread, group commit)
//!        replies, in the order of the calls ─▶ one task ─▶ Input::{Stored, Peeked, Removed, …}
//! ```
//!
//! | quantity          | value                                                                 |
//! |-------------------|-----------------------------------------------------------------------|
//! | [`REPLIES_MAX`]   | calls whose answers have not been brought back                        |
//! | [`PUTS_MAX`]      | packets among them; above it the store is busy and packets are refused |
//!
//! A call is never waited for here. If the store fails, or can't even take a call that is no
//! packet, the machine is told so and stops closed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use proto::{
    MailboxId,
    gateway::{Input, Kept, Output},
};
use shell::{
    metrics::{Cell, Metrics},
    store::{MailboxStore, Reply, StoreError},
};
use tokio::sync::mpsc;

const REPLIES_MAX: usize = 16_384;
const PUTS_MAX: usize = 4_096;

/// A call that has been made.
enum Made {
    Register(Reply<()>),
    Put(MailboxId, Reply<u64>),
    Peek(MailboxId, Reply<Vec<Kept>>),
    Confirm(MailboxId, Reply<u64>),
    Expire(Reply<Vec<(MailboxId, u64)>>),
    /// A packet that was refused without a call.
    Refused(MailboxId),
}

/// The store, as the machine's driver sees it.
pub(crate) struct Mailboxes<S> {
    store: S,
    made: mpsc::Sender<Made>,
    puts: Arc<AtomicUsize>,
}

/// Brings answers back; see [`Answers::run`].
pub(crate) struct Answers {
    made: mpsc::Receiver<Made>,
    puts: Arc<AtomicUsize>,
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

impl<S: MailboxStore> Mailboxes<S> {
    /// Tells the machine what the store holds, and sets up both ends.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(crate) async fn start(
        store: S,
        machine: mpsc::Sender<Input>,
        metrics: &Metrics,
    ) -> Result<(Self, Answers, Input), StoreError> {
        let usage = store.usage().await?;
        let (made, waiting) = mpsc::channel(REPLIES_MAX);
        let puts = Arc::new(AtomicUsize::new(0));
        let answers = Answers {
            made: waiting,
            puts: Arc::clone(&puts),
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
        let registered = Input::Registered(usage);
        Ok((Self { store, made, puts }, answers, registered))
    }

    /// Makes the call that `output` asks for; gives back an output that is none of the store's.
    pub(crate) fn carry_out(&self, output: Output) -> Result<Option<Output>, Failed> {
        let made = match output {
            Output::Register { mailbox } => Made::Register(self.store.register(mailbox)),
            Output::Store { mailbox, .. } if self.puts.load(Ordering::Relaxed) >= PUTS_MAX => {
                Made::Refused(mailbox)
            }
            Output::Store {
                mailbox,
                stored_at_s,
                packet,
            } => {
                self.puts.fetch_add(1, Ordering::Relaxed);
                Made::Put(mailbox, self.store.put(mailbox, stored_at_s, packet))
            }
            Output::Peek {
                mailbox,
                after,
                limit,
            } => Made::Peek(mailbox, self.store.peek(mailbox, after, limit)),
            Output::Confirm { mailbox, upto } => {
                Made::Confirm(mailbox, self.store.confirm(mailbox, upto))
            }
            Output::Expire { before_s } => Made::Expire(self.store.expire(before_s)),
            other @ (Output::Relay { .. }
            | Output::Frame { .. }
            | Output::Close { .. }
            | Output::Dropped(_)
            | Output::Event(_)) => return Ok(Some(other)),
        };
        self.made.try_send(made).map_or(Err(Failed), |()| Ok(None))
    }
}

impl Answers {
    /// Brings answers back until the machine is gone, or the store fails.
    pub(crate) async fn run(mut self) -> Result<(), Failed> {
        while let Some(made) = self.made.recv().await {
            let inputs = match self.answer(made).await {
                Ok(inputs) => inputs,
                Err(_) => {
                    let _stopping = self.machine.send(Input::StoreFailed).await;
                    return Err(Failed);
                }
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
            Made::Refused(mailbox) => vec![Input::Refused { mailbox }],
            Made::Put(mailbox, reply) => {
                let stored = reply.await;
                self.puts.fetch_sub(1, Ordering::Relaxed);
                match stored {
                    Ok(seq) => {
                        self.stored.add(1);
                        self.held.add(1);
                        vec![Input::Stored { mailbox, seq }]
                    }
                    Err(StoreError::Failed) => return Err(StoreError::Failed),
                    Err(_) => vec![Input::Refused { mailbox }],
                }
            }
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
    use shell::store::redb::RedbStore;

    use super::*;

    const ANN: MailboxId = MailboxId([1; 32]);

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
        let store = RedbStore::open(&folder.path().join("mailboxes")).unwrap();
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
            assert!(mailboxes.carry_out(output).unwrap().is_none());
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

    #[tokio::test]
    async fn what_is_not_the_stores_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = RedbStore::open(&folder.path().join("mailboxes")).unwrap();
        let (machine, _inbox) = mpsc::channel(1);
        let started = Mailboxes::start(store, machine, &Metrics::default()).await;
        let (mailboxes, _answers, _) = started.unwrap();
        let close = Output::Close {
            link: proto::LinkId(1),
        };
        assert!(mailboxes.carry_out(close.clone()).unwrap() == Some(close));
    }
}
