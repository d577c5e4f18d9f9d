//! Messages that arrived and that no application has taken yet.
//!
//! | state    | who has it                                         | after a restart |
//! |----------|----------------------------------------------------|-----------------|
//! | waiting  | nobody                                             | waiting         |
//! | leased   | one receiver, as a [`Lease`]                       | waiting         |
//! | taken    | the application; the machine forgets the body      | gone            |
//!
//! Invariants: a message is leased to one receiver at a time; messages wait in the order in which
//! they became complete; a lease that is dropped untaken waits again, at the front.
//!
//! Not here: bounds and storage. The machine delivers again whatever was not taken, and refuses
//! fragments when its own store of bodies is full.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The messages of one daemon; `M` is what is handed out, by id.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    inner: Mutex<Inner<M>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Inner<M> {
    /// By order of arrival.
    waiting: BTreeMap<u64, ([u8; 16], M)>,
    /// Every id that waits or is leased: a second delivery of one changes nothing.
    known: BTreeMap<[u8; 16], u64>,
    arrivals: u64,
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                waiting: BTreeMap::new(),
                known: BTreeMap::new(),
                arrivals: 0,
            }),
            arrived: Notify::new(),
        }
    }
}

impl<M> Inbox<M> {
    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message that arrived; one that it has already is dropped.
    pub(crate) fn offer(&self, id: [u8; 16], message: M) {
        let mut inner = self.lock();
        inner.arrivals += 1;
        let at = inner.arrivals;
        if let Entry::Vacant(entry) = inner.known.entry(id) {
            entry.insert(at);
            inner.waiting.insert(at, (id, message));
            drop(inner);
            self.arrived.notify_waiters();
        }
    }

    /// How many messages nobody has taken.
    pub(crate) fn len(&self) -> u64 {
        self.lock().known.len() as u64
    }

    /// Leases the message that waits longest, if one waits.
    pub(crate) fn try_lease(self: &Arc<Self>) -> Option<Lease<M>> {
        let (at, (id, message)) = self.lock().waiting.pop_first()?;
        Some(Lease {
            inbox: Arc::clone(self),
            at,
            id,
            message: Some(message),
        })
    }

    /// Leases the message that waits longest, as soon as there is one. Cancel safe.
    pub(crate) async fn lease(self: &Arc<Self>) -> Lease<M> {
        loop {
            let arrived = self.arrived.notified();
            let mut arrived = core::pin::pin!(arrived);
            arrived.as_mut().enable();
            if let Some(lease) = self.try_lease() {
                return lease;
            }
            arrived.await;
        }
    }
}

/// One message, held by one receiver.
#[derive(Debug)]
pub(crate) struct Lease<M> {
    inbox: Arc<Inbox<M>>,
    at: u64,
    id: [u8; 16],
    message: Option<M>,
}

impl<M> Lease<M> {
    /// Its id.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The message.
    pub(crate) fn message(&self) -> &M {
        self.message
            .as_ref()
            .expect("only `take` and `drop` empty it")
    }

    /// The receiver has it: it will not be offered again.
    pub(crate) fn take(mut self) {
        self.message = None;
        self.inbox.lock().known.remove(&self.id);
    }
}

impl<M> Drop for Lease<M> {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            let mut inner = self.inbox.lock();
            inner.waiting.insert(self.at, (self.id, message));
            drop(inner);
            self.inbox.arrived.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> [u8; 16] {
        [n; 16]
    }

    #[test]
    fn a_message_is_leased_once_and_waits_again_if_not_taken() {
        let inbox = Arc::new(Inbox::default());
        inbox.offer(id(1), "one");
        inbox.offer(id(2), "two");
        inbox.offer(id(1), "one again");
        let first = inbox.try_lease().unwrap();
        let second = inbox.try_lease().unwrap();
        assert_eq!((*first.message(), *second.message()), ("one", "two"));
        assert!(inbox.try_lease().is_none());
        inbox.offer(id(1), "one again");
        assert!(inbox.try_lease().is_none(), "it is leased, not gone");
        drop(first);
        let first = inbox.try_lease().unwrap();
        assert_eq!((first.id(), inbox.len()), (id(1), 2));
        first.take();
        second.take();
        assert_eq!(inbox.len(), 0);
    }

    #[tokio::test]
    async fn whoever_waits_is_told() {
        let inbox = Arc::new(Inbox::default());
        let waiting = tokio::spawn({
            let inbox = Arc::clone(&inbox);
            async move { *inbox.lease().await.message() }
        });
        tokio::task::yield_now().await;
        inbox.offer(id(1), 7);
        assert_eq!(waiting.await.unwrap(), 7);
        assert_eq!(inbox.len(), 1, "dropped untaken: it waits again");
    }
}
