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
//!
//! A call is made when the method returns, and calls are carried out in the order in
//! which they are made; the [`Reply`] only waits for the answer. Numbers rise within a mailbox and are
//! never reused, also after `confirm`, a crash or a restart: a recipient's cursor depends on it.
//! Durable means that the answer comes after the operating system has been told to put the data on
//! the disk (`fsync`), so what was answered survives `kill -9` and a loss of power.
//!
//! Engines: [`redb`] (embedded, the default). [`conformance`] is the suite that each passes.

mod group;
pub mod kv;
pub mod redb;

use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use proto::{MailboxId, gateway::Kept};
use sphinx::Packet;
use tokio::sync::oneshot;

/// Why the store did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The mailbox is not registered; nothing was stored.
    #[error("no such mailbox")]
    NoMailbox,
    /// More requests wait than the store takes; nothing was stored.
    #[error("the store is busy")]
    Busy,
    /// The engine failed, and will not work again before a restart; the log says why.
    #[error("the store failed; see the log")]
    Failed,
    /// The file can't be opened: in use by another process, damaged, or no such file.
    #[error("can't open the store: {0}")]
    Open(String),
}

/// The answer to a call that has been made. Dropping it takes nothing back.
#[derive(Debug)]
pub struct Reply<T>(Option<oneshot::Receiver<Result<T, StoreError>>>);

/// Gives the answer to one [`Reply`]; dropped, it says that the engine failed.
type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

impl<T> Reply<T> {
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
}

/// What every engine does, whatever it is built on. `open` opens the same store again.
///
/// # Panics
///
/// Where the engine differs.
pub async fn conformance<S: MailboxStore>(mut open: impl FnMut() -> S) {
    let [ann, bob, carl] = [1, 2, 3].map(|byte| MailboxId([byte; 32]));
    let packet = |byte: u8| Box::new([byte; sphinx::PACKET_LEN]);
    let kept = |seq: u64, stored_at_s: u64, byte: u8| Kept {
        seq,
        stored_at_s,
        packet: packet(byte),
    };
    let store = open();

    // Nobody's packet is not stored.
    let nobody = store.put(ann, 10, packet(0)).await;
    assert!(matches!(nobody, Err(StoreError::NoMailbox)));
    assert!(store.usage().await.expect("usage").is_empty());

    // Numbers rise within a mailbox, whatever other mailboxes do.
    for mailbox in [ann, bob, ann] {
        store.register(mailbox).await.expect("register");
    }
    let calls = [(ann, 10), (bob, 11), (ann, 12), (ann, 13)];
    let numbered = (0u8..)
        .zip(calls)
        .map(|(i, (mailbox, at))| store.put(mailbox, at, packet(i)));
    let mut numbers = Vec::new();
    for put in numbered.collect::<Vec<_>>() {
        numbers.push(put.await.expect("put"));
    }
    assert!(numbers[0] >= 1 && numbers[0] < numbers[2] && numbers[2] < numbers[3]);
    let all = store.peek(ann, 0, 10).await.expect("peek");
    let [first, second, third] = [numbers[0], numbers[2], numbers[3]];
    assert_eq!(
        all,
        [kept(first, 10, 0), kept(second, 12, 2), kept(third, 13, 3)]
    );
    let window = store.peek(ann, first, 1).await.expect("peek");
    assert_eq!(window, [kept(second, 12, 2)]);
    assert!(store.peek(ann, third, 9).await.expect("peek").is_empty());
    assert!(store.peek(carl, 0, 9).await.expect("peek").is_empty());

    // What is confirmed goes, once, and nothing else does.
    assert_eq!(store.confirm(ann, second).await.expect("confirm"), 2);
    assert_eq!(store.confirm(ann, second).await.expect("confirm"), 0);
    assert_eq!(store.confirm(carl, u64::MAX).await.expect("confirm"), 0);
    let mut usage = store.usage().await.expect("usage");
    usage.sort_unstable();
    assert_eq!(usage, [(ann, 1), (bob, 1)]);

    // Another process finds the same, and goes on numbering where this one stopped, also in a
    // mailbox that has been emptied.
    assert_eq!(store.confirm(ann, u64::MAX).await.expect("confirm"), 1);
    drop(store);
    let store = open();
    assert!(store.peek(ann, 0, 9).await.expect("peek").is_empty());
    let again = store.put(ann, 20, packet(9)).await.expect("put");
    assert!(again > third, "a number was given twice");
    assert_eq!(
        store.peek(bob, 0, 9).await.expect("peek"),
        [kept(numbers[1], 11, 1)]
    );

    // What is too old goes, in every mailbox.
    let mut expired = store.expire(20).await.expect("expire");
    expired.sort_unstable();
    assert_eq!(expired, [(bob, 1)]);
    assert_eq!(
        store.peek(ann, 0, 9).await.expect("peek"),
        [kept(again, 20, 9)]
    );
    let mut usage = store.usage().await.expect("usage");
    usage.sort_unstable();
    assert_eq!(usage, [(ann, 1), (bob, 0)]);
}
