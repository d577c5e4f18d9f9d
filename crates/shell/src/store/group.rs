//! One thread that owns a database, and group commit in front of it.
//!
//! Requests queue in the order in which they are made. The thread takes all that wait, up to
//! [`BATCH`], and hands them over as one batch, which the engine commits at once: under load one
//! `fsync` serves many, and an idle store answers a single request without waiting for company.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

/// Most requests that one commit carries.
pub(super) const BATCH: usize = 512;
/// Most requests that wait; a further one is refused, so that memory is bounded.
pub(super) const WAITING: usize = 8192;

/// The sending side. Dropped last, it lets the thread finish what waits, and joins it.
pub(super) struct Group<R> {
    queue: Option<SyncSender<R>>,
    thread: Option<JoinHandle<()>>,
}

impl<R: Send + 'static> Group<R> {
    /// Starts the thread; `commit` carries out one batch and answers each of its requests.
    pub(super) fn start(
        name: &str,
        commit: impl FnMut(Vec<R>) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, requests) = sync_channel(WAITING);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(&requests, commit))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Queues a request and says whether there was room for it; never waits.
    pub(super) fn send(&self, request: R) -> bool {
        let queue = self.queue.as_ref();
        queue.is_some_and(|queue| queue.try_send(request).is_ok())
    }
}

fn serve<R>(requests: &Receiver<R>, mut commit: impl FnMut(Vec<R>)) {
    while let Ok(first) = requests.recv() {
        let mut batch = vec![first];
        batch.extend(requests.try_iter().take(BATCH - 1));
        commit(batch);
    }
}

impl<R> Drop for Group<R> {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; here there is nobody to tell.
            let _ = thread.join();
        }
    }
}
