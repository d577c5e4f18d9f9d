//! What the threads of packets share: the keys, their replay sets and journals.
//!
//! | part    | lock                                                                              |
//! |---------|-----------------------------------------------------------------------------------|
//! | keys    | read for a batch to take a snapshot; written when keys come and go                  |
//! | books   | locked for a batch while its tags are admitted and journaled: a few microseconds    |
//!
//! A batch is opened without a lock, by the snapshot. A key that is taken away meanwhile admits
//! nothing any more. One thread tends; the disk is yet another thread's work, and so is giving memory back,
//! of which the kernel makes milliseconds.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use proto::{
    Time,
    calendar::{Epoch, Schedule, Utc},
    directory::Consensus,
    peel::{PeelDrop, Pending, Ring, Stage},
    replay::{Fingerprint, ReplaySet},
};
use sphinx::SecretKey;
use tokio::{sync::watch, task::spawn_blocking};

use super::{Arrival, Setup, Verdict};
use crate::{
    clock::Clock,
    journal::{Journal, JournalError},
    state::StateError,
};

/// How long after a key could not be opened it is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(30);
/// It is said when less than one in so many places of a replay set is left.
const NEARLY: usize = 5;

pub(super) struct Desk {
    setup: Arc<Setup>,
    keys: RwLock<Option<Arc<Snapshot>>>,
    books: Mutex<Books>,
    /// Whether the key of the epoch that holds now is open.
    key_open: watch::Sender<bool>,
}

/// What batches are opened by.
struct Snapshot {
    consensus: Arc<Consensus>,
    ring: Ring,
}

#[derive(Default)]
struct Books {
    stage: Stage,
    journals: BTreeMap<Epoch, Journal>,
    /// Epochs whose key is not opened, and why.
    closed: BTreeMap<Epoch, Closed>,
    /// Epochs of which it has been said that their set is nearly full, or full.
    told: BTreeSet<(Epoch, bool)>,
    /// Epochs of which it has been said that the disk has no space for their journal.
    short: BTreeSet<Epoch>,
    /// Sets of keys that were closed, to be dropped.
    over: Vec<ReplaySet>,
}

/// Why a key is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    /// What it has opened is not known for sure: it is erased.
    Burned,
    /// It could not be opened, at that time, for a reason that may pass: it is tried again.
    Failed(Time),
    /// There is no such key, or the document does not name it. The next one may.
    Absent,
}

impl Closed {
    /// Whether nothing is to be tried.
    fn stays(self, now: Time) -> bool {
        match self {
            Self::Burned | Self::Absent => true,
            Self::Failed(at) => now < at.after(RETRY_EVERY),
        }
    }
}

impl Books {
    /// Writes down the tags of what may go on.
    fn journal(&mut self, pending: &Pending) -> Result<(), (Epoch, Option<JournalError>)> {
        let mut tags: BTreeMap<Epoch, Vec<Fingerprint>> = BTreeMap::new();
        for (epoch, tag) in &pending.journal {
            tags.entry(*epoch).or_default().push(*tag);
        }
        for (epoch, tags) in tags {
            let journal = self.journals.get_mut(&epoch).ok_or((epoch, None))?;
            journal.append(&tags).map_err(|why| (epoch, Some(why)))?;
        }
        Ok(())
    }

    /// Says once of each set that it is nearly full, and that it is full.
    fn tell(&mut self) {
        self.told.retain(|(epoch, _)| self.stage.holds(*epoch));
        self.short.retain(|epoch| self.stage.holds(*epoch));
        for (epoch, set) in self.stage.sets() {
            let (held, capacity) = (set.held(), set.capacity());
            let full = held >= capacity;
            if held >= capacity - capacity / NEARLY && self.told.insert((epoch, full)) {
                let remedy = "raise replay_max and start again";
                if full {
                    tracing::error!(
                        epoch = epoch.0,
                        capacity,
                        remedy,
                        "the replay set is full: every packet of this key epoch is dropped"
                    );
                } else {
                    tracing::warn!(
                        epoch = epoch.0,
                        held,
                        capacity,
                        remedy,
                        "the replay set is nearly full"
                    );
                }
            }
        }
    }
}

impl Desk {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            setup: Arc::new(setup),
            keys: RwLock::default(),
            books: Mutex::default(),
            key_open: watch::Sender::new(false),
        }
    }

    pub(super) fn clock(&self) -> Clock {
        self.setup.clock
    }

    pub(super) fn key_open(&self) -> watch::Receiver<bool> {
        self.key_open.subscribe()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// From now on, batches are opened by the keys that `books` hold.
    fn publish(&self, consensus: &Arc<Consensus>, books: &Books) {
        let snapshot = Snapshot {
            consensus: Arc::clone(consensus),
            ring: books.stage.ring().clone(),
        };
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *keys = Some(Arc::new(snapshot));
    }

    /// Opens one batch and journals it; what comes out may be finished and go on, unless another front
    /// end has had it (GW-30).
    pub(super) fn admit(&self, batch: Vec<Arrival>, counted: &impl Fn(Verdict)) -> Pending {
        let dropped = |why| counted(Verdict::Dropped(why));
        let Some(snapshot) = self.snapshot() else {
            batch.iter().for_each(|_| dropped(PeelDrop::NoKey));
            return Pending::default();
        };
        let Snapshot { consensus, ring } = &*snapshot;
        let (schedule, delay_max) = (consensus.schedule(), consensus.params.delay_cap());
        let opened = ring.open(&schedule, self.clock().utc(), delay_max, batch, dropped);
        let mut books = self.books();
        let pending = books.stage.admit(opened, dropped);
        if let Err((epoch, why)) = books.journal(&pending) {
            self.close_key(&mut books, epoch, why.as_ref());
            (0..pending.len()).for_each(|_| counted(Verdict::Unjournaled)); // RPL-4
            return Pending::default();
        }
        pending
    }

    /// The key of `epoch` opens nothing from now on.
    fn close_key(&self, books: &mut Books, epoch: Epoch, why: Option<&JournalError>) {
        // What was written may be lost with what was not, unless nothing was tried.
        let closes = match why {
            Some(why) if why.burns() => Closed::Burned,
            _ => Closed::Failed(self.clock().now()),
        };
        let why = why.map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            epoch = epoch.0,
            why,
            "no packets are taken in this key epoch"
        );
        let set = books.stage.burn(epoch);
        books.over.extend(set);
        books.journals.remove(&epoch);
        books.closed.insert(epoch, closes);
        // Not by a batch's document: there may be a newer one.
        if let Some(known) = self.snapshot() {
            self.publish(&known.consensus, books);
        }
    }

    /// Asks the disk whether all that was journaled has got there: what the kernel writes by itself
    /// may fail too, and nobody else would ask. It takes as long as the disk does.
    pub(super) async fn sync(&self) {
        let syncs: Vec<_> = {
            let mut books = self.books();
            let (journals, now) = (books.journals.iter_mut(), self.clock().utc());
            journals
                .map(|(epoch, journal)| (*epoch, journal.sync(now)))
                .collect()
        };
        for (epoch, sync) in syncs {
            match self.away(move |_| sync()).await {
                Ok(()) => {
                    self.books().short.remove(&epoch);
                }
                Err(why @ JournalError::NoSpace(_)) => {
                    if self.books().short.insert(epoch) {
                        tracing::warn!(epoch = epoch.0, %why, "free some disk");
                    }
                }
                Err(why) => self.close_key(&mut self.books(), epoch, Some(&why)),
            }
        }
    }

    /// Lets keys come and go with their windows (EPO-2, EPO-5), by the newest consensus. Packets
    /// are opened meanwhile.
    pub(super) async fn tend(&self, news: Option<Arc<Consensus>>) {
        let is_new = news.is_some();
        let known = || self.snapshot().map(|known| Arc::clone(&known.consensus));
        let Some(consensus) = news.or_else(known) else {
            return;
        };
        let (schedule, now) = (consensus.schedule(), self.clock().utc());
        let to_drop = {
            let mut books = self.books();
            let gone = books.stage.retire(&schedule, now);
            for epoch in gone.keys() {
                books.journals.remove(epoch);
            }
            if is_new {
                books.closed.retain(|_, why| *why != Closed::Absent);
            }
            books.tell();
            self.publish(&consensus, &books);
            let closed = core::mem::take(&mut books.over);
            (gone, closed, books.stage.take_old())
        };
        self.away(move |_| drop(to_drop)).await;
        for epoch in schedule.epochs() {
            let settled = {
                let books = self.books();
                let closed = books.closed.get(&epoch);
                let stays = |why: &Closed| why.stays(self.clock().now());
                books.stage.holds(epoch) || closed.is_some_and(stays)
            };
            if !settled && schedule.opens(epoch).contains(&now) {
                self.open_key(&consensus, epoch).await;
            }
        }
        let current = schedule.at(now);
        // A document is in force a skew before its first epoch begins.
        let begins = || Some(schedule.first).filter(|first| schedule.opens(*first).contains(&now));
        let open = current
            .or_else(begins)
            .is_some_and(|epoch| self.books().stage.holds(epoch));
        self.key_open
            .send_if_modified(|was| core::mem::replace(was, open) != open);
        self.erase(&schedule, now).await;
        // GW-30: tags outlive their key by two thirds of an epoch. Nobody waits.
        if let (Some(tags), Some(current)) = (&self.setup.tags, current) {
            let _forgotten_in_time = tags.forget(Epoch(current.0.saturating_sub(1)));
        }
    }

    async fn open_key(&self, consensus: &Arc<Consensus>, epoch: Epoch) {
        let current = Arc::clone(consensus);
        let opened = self.away(move |setup| setup.open(&current, epoch));
        let opened = opened.await;
        let mut books = self.books();
        match opened {
            // Its disk lost something while it was opened.
            Ok(_) if books.closed.get(&epoch) == Some(&Closed::Burned) => {}
            Ok((secret, seen, journal)) => {
                books.journals.insert(epoch, journal);
                books.stage.install(epoch, secret, seen);
                books.closed.remove(&epoch);
                self.publish(consensus, &books);
                tracing::info!(epoch = epoch.0, "key epoch opened");
            }
            Err(why) => {
                let closes = why.closes(self.clock().now());
                let before = books.closed.insert(epoch, closes);
                if !matches!(
                    (before, closes),
                    (Some(Closed::Failed(_)), Closed::Failed(_))
                ) {
                    let tried_again = matches!(closes, Closed::Failed(_));
                    tracing::error!(
                        epoch = epoch.0,
                        %why,
                        tried_again,
                        "no packets are taken in this key epoch"
                    );
                }
            }
        }
    }

    /// Erases from the disk what is over, also while this node was off, and what is burned.
    async fn erase(&self, schedule: &Schedule, now: Utc) {
        let kept = match self.away(|setup| setup.kept()).await {
            Ok(kept) => kept,
            Err(error) => {
                return tracing::error!(%error, "can't see which keys are to be erased");
            }
        };
        for epoch in kept {
            let over = schedule.opens(epoch).end <= now;
            let burned = self.books().closed.get(&epoch) == Some(&Closed::Burned);
            if over || burned {
                self.away(move |setup| setup.erase(epoch)).await;
            }
        }
        let mut books = self.books();
        books
            .closed
            .retain(|epoch, _| schedule.opens(*epoch).end > now);
    }

    /// Does `work` on a thread that may wait.
    async fn away<T: Send + 'static>(&self, work: impl FnOnce(&Setup) -> T + Send + 'static) -> T {
        let setup = Arc::clone(&self.setup);
        let done = spawn_blocking(move || work(&setup)).await;
        done.expect("it does not panic, and nobody cancels it")
    }

    /// Closes the journals; no batch may follow.
    pub(super) fn close(&self) {
        for journal in core::mem::take(&mut self.books().journals).into_values() {
            if let Err(error) = journal.close(self.clock().utc()) {
                tracing::error!(%error, "a replay journal was not closed; a reboot burns its key");
            }
        }
    }
}

impl Setup {
    /// Reads the key of `epoch`, and what its journal remembers.
    fn open(
        &self,
        consensus: &Consensus,
        epoch: Epoch,
    ) -> Result<(SecretKey, ReplaySet, Journal), NoKey> {
        let secret = self.keys.packet_secret(epoch)?.ok_or(NoKey::Erased)?;
        let published = consensus
            .node(&self.keys.id())
            .and_then(|own| consensus.packet_key(own, epoch));
        if published != Some(secret.public()) {
            return Err(NoKey::Unpublished);
        }
        let secret = secret.on(self.path).map_err(NoKey::Path)?;
        let mut seen = ReplaySet::new(&secret, self.replay_max);
        // A journal longer than the set can hold leaves the set full: it takes no more.
        let known = |tags: &[Fingerprint]| seen.admit_batch(tags, |_, _known| ());
        let now = self.clock.utc();
        let public = secret.public();
        let opened = self
            .journals
            .open(epoch, &public, self.replay_max, now, known);
        Ok((secret, seen, opened?))
    }

    /// Epochs of which the disk holds a key or a journal.
    fn kept(&self) -> Result<BTreeSet<Epoch>, NoKey> {
        let keys = self.keys.epochs()?;
        let journals = self.journals.epochs().map_err(JournalError::Io)?;
        Ok(keys.into_iter().chain(journals).collect())
    }

    /// Erases what the disk holds of `epoch`: the journal only when the key is gone, since a key
    /// without its journal would let replays through.
    fn erase(&self, epoch: Epoch) {
        if let Err(error) = self.keys.erase(epoch) {
            return tracing::error!(epoch = epoch.0, %error, "key not erased");
        }
        match self.journals.erase(epoch) {
            Ok(()) => tracing::info!(epoch = epoch.0, "key erased"),
            Err(error) => tracing::error!(epoch = epoch.0, %error, "journal not erased"),
        }
    }
}

/// Why an epoch has no key.
#[derive(Debug, thiserror::Error)]
enum NoKey {
    #[error("its key is not on the disk: never made, or erased")]
    Erased,
    #[error("its key on the disk is not the one that the consensus names")]
    Unpublished,
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Path(sphinx::PathAbsent),
}

impl NoKey {
    fn closes(&self, now: Time) -> Closed {
        match self {
            Self::Journal(why) if why.burns() => Closed::Burned,
            Self::Erased | Self::Unpublished => Closed::Absent,
            Self::State(_) | Self::Journal(_) | Self::Path(_) => Closed::Failed(now),
        }
    }
}

#[cfg(test)]
mod tests;
