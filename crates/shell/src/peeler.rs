//! The thread that holds a node's packet keys: it opens packets, journals their tags, finishes them.
//!
//! Rules RPL-4 and EPO-2; the pure half is [`proto::peel`].
//!
//! | quantity | unit, range                                                                    |
//! |----------|--------------------------------------------------------------------------------|
//! | waiting  | packets that links have read, <= [`WAITING_MAX`]; more are dropped and counted  |
//! | batch    | whatever waits, <= [`BATCH_MAX`] packets, the newest first: one journal write   |
//! | age      | packets that a batch passes over are dropped and counted past [`PASSED_OVER_MAX`] |
//! | tend     | at least every [`TEND_EVERY`]: keys come and go with their windows              |
//!
//! A thread and not a task: peeling is arithmetic, and its write to the journal blocks. A slow
//! machine holds up this thread, then the queue before it, and then packets are dropped and
//! counted; no link ever waits.
//!
//! Beyond capacity some packets have to go. In order of arrival every packet would wait as long as
//! the queue is, and the holding times of all would be late by it (ATTACKS t05, t06); newest first,
//! those that pass are as fresh as ever and their law stays exponential, and the rest is dropped.
//! The order in which packets are opened shows nowhere: the mix sorts them by due time (MIX-2).
//! Below capacity all that waits fits one batch, and no age counts.
//!
//! Fail closed: an epoch whose journal can't be opened or written has no key until it ends.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
};

use proto::{
    Time,
    calendar::Epoch,
    directory::Consensus,
    peel::{Arrival, PeelDrop, Peeled, Stage},
    replay::{Fingerprint, ReplaySet},
};
use tokio::sync::oneshot;

use crate::{
    clock::Clock,
    journal::{BootId, Journal, JournalError},
    keys::Keys,
    state::StateError,
};

/// Most packets that wait to be opened, besides those on their way from the links.
pub const WAITING_MAX: usize = 512;
/// Most packets opened at once: four times eight lanes, and some 2 ms of arithmetic without them.
pub const BATCH_MAX: usize = 32;
/// Longest that a packet may have been here when a batch passes it over for newer ones.
pub const PASSED_OVER_MAX: Duration = Duration::from_millis(5);
/// Most reads of links, of some dozen packets each, that wait for the thread.
const READS_MAX: usize = 128;
/// It is said when less than one in so many places of a replay set is left.
const NEARLY: usize = 5;
/// Keys are looked after at least this often, traffic or none.
pub const TEND_EVERY: Duration = Duration::from_millis(500);

/// What the peeler counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// A packet was opened and passed on.
    Peeled,
    /// A packet was dropped by the stage.
    Dropped(PeelDrop),
    /// A packet was dropped because its tag could not be journaled.
    Unjournaled,
    /// A packet was dropped because more come than can be opened.
    Overload,
}

/// What a peeler starts from.
pub struct Setup {
    /// The node's clock.
    pub clock: Clock,
    /// Its keys on disk.
    pub keys: Arc<Keys>,
    /// Directory of the replay journals.
    pub journals: PathBuf,
    /// On which path packets are computed, one of this processor's.
    pub path: sphinx::Path,
    /// Most packets opened under one key.
    pub replay_max: usize,
}

enum Work {
    Packets(Vec<Arrival>),
    Consensus(Arc<Consensus>),
    Stop,
}

/// The thread's near end. Clones feed the same thread.
#[derive(Clone)]
pub struct Peeler {
    work: SyncSender<Work>,
}

impl Peeler {
    /// Starts the thread. `passed` takes each finished packet and may wait; `counted` hears what
    /// became of every packet. The receiver resolves when the thread has closed its journals.
    ///
    /// # Errors
    ///
    /// If no thread can be started, or the kernel does not say which boot this is.
    pub fn start(
        setup: Setup,
        passed: impl FnMut(Peeled) + Send + 'static,
        counted: impl FnMut(Verdict) + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (work, waiting) = sync_channel(READS_MAX);
        let (ended, end) = oneshot::channel();
        let bench = Bench {
            setup,
            boot: BootId::current()?,
            consensus: None,
            stage: Stage::default(),
            journals: BTreeMap::new(),
            burned: BTreeSet::new(),
            told: BTreeSet::new(),
        };
        thread::Builder::new()
            .name("peeler".to_owned())
            .spawn(move || {
                bench.run(&waiting, passed, counted);
                let _nobody_waits = ended.send(());
            })?;
        Ok((Self { work }, end))
    }

    /// Hands over what one read of a link brought; says whether there was room for it.
    #[must_use]
    pub fn arrived(&self, arrivals: Vec<Arrival>) -> bool {
        self.work.try_send(Work::Packets(arrivals)).is_ok()
    }

    /// Hands over the newest consensus. Waits while packets wait; not for an async task's hot path.
    pub fn renew(&self, consensus: Arc<Consensus>) {
        let _ended = self.work.send(Work::Consensus(consensus));
    }

    /// Asks the thread to close its journals and end, after what waits.
    pub fn stop(&self) {
        let _ended = self.work.send(Work::Stop);
    }
}

/// Packets that wait to be opened, the oldest first.
#[derive(Default)]
struct Backlog(VecDeque<Arrival>);

impl Backlog {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest [`BATCH_MAX`], and how many of those passed over are dropped for their age or
    /// their number.
    fn take(&mut self, now: Time) -> (Vec<Arrival>, usize) {
        let over = self.0.len().saturating_sub(BATCH_MAX);
        let batch = self.0.split_off(over).into();
        let old = |arrival: &&Arrival| now.since(arrival.received) > PASSED_OVER_MAX;
        let aged = self.0.iter().take_while(old).count();
        let dropped = aged.max(over.saturating_sub(WAITING_MAX));
        self.0.drain(..dropped);
        (batch, dropped)
    }
}

/// The thread's own state.
struct Bench {
    setup: Setup,
    boot: BootId,
    consensus: Option<Arc<Consensus>>,
    stage: Stage,
    journals: BTreeMap<Epoch, Journal>,
    /// Epochs whose key must open nothing more.
    burned: BTreeSet<Epoch>,
    /// Epochs of which it has been said that their set is nearly full, or full.
    told: BTreeSet<(Epoch, bool)>,
}

impl Bench {
    fn run(
        mut self,
        waiting: &Receiver<Work>,
        mut passed: impl FnMut(Peeled),
        mut counted: impl FnMut(Verdict),
    ) {
        let mut tended = self.setup.clock.now();
        let mut backlog = Backlog::default();
        loop {
            let mut news = None;
            let mut stop = false;
            let first = if backlog.is_empty() {
                match waiting.recv_timeout(TEND_EVERY) {
                    Ok(work) => Some(work),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            } else {
                None
            };
            for work in first.into_iter().chain(waiting.try_iter().take(READS_MAX)) {
                match work {
                    Work::Packets(arrivals) => backlog.0.extend(arrivals),
                    Work::Consensus(consensus) => news = Some(consensus),
                    Work::Stop => stop = true,
                }
            }
            let now = self.setup.clock.now();
            if news.is_some() || now.since(tended) >= TEND_EVERY {
                self.consensus = news.or(self.consensus);
                self.tend();
                tended = now;
            }
            while !backlog.is_empty() {
                let (batch, overload) = backlog.take(self.setup.clock.now());
                (0..overload).for_each(|_| counted(Verdict::Overload));
                self.peel(batch, &mut passed, &mut counted);
                if !stop {
                    break; // first see whether newer ones have come
                }
            }
            if stop {
                break;
            }
        }
        for journal in core::mem::take(&mut self.journals).into_values() {
            if let Err(error) = journal.close(self.setup.clock.utc()) {
                tracing::error!(%error, "a replay journal was not closed; a reboot burns its key");
            }
        }
    }

    /// Opens one batch and passes on what may go on.
    fn peel(
        &mut self,
        batch: Vec<Arrival>,
        passed: &mut impl FnMut(Peeled),
        counted: &mut impl FnMut(Verdict),
    ) {
        let Some(consensus) = &self.consensus else {
            let dropped = Verdict::Dropped(PeelDrop::NoKey);
            return batch.iter().for_each(|_| counted(dropped));
        };
        let (schedule, delay_max) = (consensus.schedule(), consensus.params.delay_cap());
        let now = self.setup.clock.utc();
        let pending = self.stage.open(&schedule, now, delay_max, batch, |why| {
            counted(Verdict::Dropped(why));
        });
        let mut tags: BTreeMap<Epoch, Vec<Fingerprint>> = BTreeMap::new();
        for (epoch, tag) in &pending.journal {
            tags.entry(*epoch).or_default().push(*tag);
        }
        for (epoch, tags) in tags {
            let journal = self.journals.get_mut(&epoch);
            let written = journal.map(|journal| journal.append(&tags));
            if !matches!(written, Some(Ok(()))) {
                self.burn(epoch, written.and_then(Result::err).as_ref());
                return (0..pending.len()).for_each(|_| counted(Verdict::Unjournaled)); // RPL-4
            }
        }
        // All of the batch before any is passed on: whoever takes them is woken once, not for each.
        let finished: Vec<Peeled> = pending.finish().collect();
        for peeled in finished {
            passed(peeled);
            counted(Verdict::Peeled);
        }
    }

    fn burn(&mut self, epoch: Epoch, why: Option<&JournalError>) {
        let why = why.map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            epoch = epoch.0,
            why,
            "no packets are taken in this key epoch"
        );
        self.stage.burn(epoch);
        self.journals.remove(&epoch);
        self.burned.insert(epoch);
    }

    /// Lets keys come and go with their windows (EPO-2, EPO-5).
    fn tend(&mut self) {
        let Some(consensus) = self.consensus.clone() else {
            return;
        };
        let (schedule, now) = (consensus.schedule(), self.setup.clock.utc());
        for epoch in self.stage.retire(&schedule, now) {
            self.journals.remove(&epoch);
        }
        self.told.retain(|(epoch, _)| self.stage.holds(*epoch));
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
        // Also those that ended while this node was off.
        let on_disk = self.setup.keys.epochs().unwrap_or_default();
        for epoch in on_disk {
            if schedule.opens(epoch).end <= now {
                self.erase(epoch);
                self.burned.remove(&epoch);
            }
        }
        for epoch in schedule.epochs() {
            let open = schedule.opens(epoch).contains(&now);
            let wanted = open && !self.stage.holds(epoch) && !self.burned.contains(&epoch);
            if wanted && let Err(why) = self.install(&consensus, epoch) {
                tracing::error!(epoch = epoch.0, %why, "no packets are taken in this key epoch");
                self.burned.insert(epoch);
            }
        }
    }

    /// Puts one key in, with what its journal remembers.
    fn install(&mut self, consensus: &Consensus, epoch: Epoch) -> Result<(), NoKey> {
        let Setup {
            keys,
            journals,
            replay_max,
            path,
            ..
        } = &self.setup;
        let secret = keys.packet_secret(epoch)?.ok_or(NoKey::Erased)?;
        let published = consensus
            .node(&keys.id())
            .and_then(|own| consensus.packet_key(own, epoch));
        if published != Some(secret.public()) {
            return Err(NoKey::Unpublished);
        }
        let secret = secret.on(*path).map_err(NoKey::Path)?;
        let mut seen = ReplaySet::new(&secret, *replay_max);
        // A journal longer than the set can hold leaves the set full: it takes no more.
        let known = |tags: &[Fingerprint]| seen.admit_batch(tags, |_, _known| ());
        let now = self.setup.clock.utc();
        let journal = match Journal::open(journals, epoch, *replay_max, self.boot, now, known) {
            Err(burned @ JournalError::Burned(_)) => {
                self.erase(epoch);
                return Err(burned.into());
            }
            opened => opened?,
        };
        self.journals.insert(epoch, journal);
        self.stage.install(epoch, secret, seen);
        tracing::info!(epoch = epoch.0, "key epoch opened");
        Ok(())
    }

    /// Erases what the disk holds of `epoch`.
    fn erase(&self, epoch: Epoch) {
        let key = self.setup.keys.erase(epoch);
        let journal = Journal::erase(&self.setup.journals, epoch);
        match (key, journal) {
            (Ok(()), Ok(())) => tracing::info!(epoch = epoch.0, "key erased"),
            (Err(error), _) => tracing::error!(epoch = epoch.0, %error, "key not erased"),
            (_, Err(error)) => tracing::error!(epoch = epoch.0, %error, "journal not erased"),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(arrivals: usize, step: Duration) -> Backlog {
        let arrival = |i| Arrival {
            received: Time::ZERO.after(step * i),
            packet: Box::new([0; sphinx::PACKET_LEN]),
        };
        let arrivals = u32::try_from(arrivals).expect("few");
        Backlog((0..arrivals).map(arrival).collect())
    }

    /// ATTACKS t06: beyond capacity those that pass are fresh; below it nothing is dropped for age.
    #[test]
    fn the_newest_go_first_and_only_those_passed_over_age() {
        let step = Duration::from_micros(100);
        let late = Time::ZERO.after(Duration::from_secs(1));
        let (batch, dropped) = backlog(BATCH_MAX, step).take(late);
        assert_eq!((batch.len(), dropped), (BATCH_MAX, 0));

        let mut waiting = backlog(BATCH_MAX + 100, step);
        let now = Time::ZERO.after(step * 80).after(PASSED_OVER_MAX);
        let (batch, dropped) = waiting.take(now);
        let fresh = |arrival: &Arrival| arrival.received >= Time::ZERO.after(step * 100);
        assert!(batch.len() == BATCH_MAX && batch.iter().all(fresh));
        assert_eq!((dropped, waiting.0.len()), (80, 20));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut waiting = backlog(BATCH_MAX + WAITING_MAX + 7, Duration::ZERO);
        let (_, dropped) = waiting.take(Time::ZERO);
        assert_eq!((dropped, waiting.0.len()), (7, WAITING_MAX));
    }
}
