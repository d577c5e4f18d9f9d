//! The thread that holds a node's packet keys: it opens packets, journals their tags, finishes them.
//!
//! Rules RPL-4 and EPO-2; the pure half is [`proto::peel`].
//!
//! | quantity | unit, range                                                                    |
//! |----------|--------------------------------------------------------------------------------|
//! | waiting  | packets that links have read, <= [`WAITING_MAX`]; more are dropped and counted  |
//! | batch    | whatever waits, <= [`BATCH_MAX`] packets: one write to the journal              |
//! | tend     | at least every [`TEND_EVERY`]: keys come and go with their windows              |
//!
//! A thread and not a task: peeling is arithmetic, and its write to the journal blocks. A slow
//! machine holds up this thread, then the queue before it, and then packets are dropped and
//! counted; no link ever waits.
//!
//! Fail closed: an epoch whose journal can't be opened or written has no key until it ends.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
};

use proto::{
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

/// Most packets that wait to be opened: a tenth of a second at 20 000 a second.
pub const WAITING_MAX: usize = 2048;
/// Most packets opened at once.
pub const BATCH_MAX: usize = 64;
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
}

/// What a peeler starts from.
pub struct Setup {
    /// The node's clock.
    pub clock: Clock,
    /// Its keys on disk.
    pub keys: Arc<Keys>,
    /// Directory of the replay journals.
    pub journals: PathBuf,
    /// Most packets opened under one key.
    pub replay_max: usize,
}

enum Work {
    Packet(Arrival),
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
        let (work, waiting) = sync_channel(WAITING_MAX);
        let (ended, end) = oneshot::channel();
        let bench = Bench {
            setup,
            boot: BootId::current()?,
            consensus: None,
            stage: Stage::default(),
            journals: BTreeMap::new(),
            burned: BTreeSet::new(),
        };
        thread::Builder::new()
            .name("peeler".to_owned())
            .spawn(move || {
                bench.run(&waiting, passed, counted);
                let _nobody_waits = ended.send(());
            })?;
        Ok((Self { work }, end))
    }

    /// Hands over a packet that a link has read; says whether there was room for it.
    #[must_use]
    pub fn arrived(&self, arrival: Arrival) -> bool {
        self.work.try_send(Work::Packet(arrival)).is_ok()
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

/// The thread's own state.
struct Bench {
    setup: Setup,
    boot: BootId,
    consensus: Option<Arc<Consensus>>,
    stage: Stage,
    journals: BTreeMap<Epoch, Journal>,
    /// Epochs whose key must open nothing more.
    burned: BTreeSet<Epoch>,
}

impl Bench {
    fn run(
        mut self,
        waiting: &Receiver<Work>,
        mut passed: impl FnMut(Peeled),
        mut counted: impl FnMut(Verdict),
    ) {
        let mut tended = self.setup.clock.now();
        loop {
            let first = match waiting.recv_timeout(TEND_EVERY) {
                Ok(work) => Some(work),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut batch = Vec::new();
            let mut news = None;
            let mut stop = false;
            for work in first.into_iter().chain(waiting.try_iter()) {
                match work {
                    Work::Packet(arrival) => batch.push(arrival),
                    Work::Consensus(consensus) => news = Some(consensus),
                    Work::Stop => stop = true,
                }
                if stop || batch.len() == BATCH_MAX {
                    break;
                }
            }
            let now = self.setup.clock.now();
            if news.is_some() || now.since(tended) >= TEND_EVERY {
                self.consensus = news.or(self.consensus);
                self.tend();
                tended = now;
            }
            if !batch.is_empty() {
                self.peel(batch, &mut passed, &mut counted);
            }
            if stop {
                break;
            }
        }
        for journal in core::mem::take(&mut self.journals).into_values() {
            if let Err(error) = journal.close() {
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
            ..
        } = &self.setup;
        let secret = keys.packet_secret(epoch)?.ok_or(NoKey::Erased)?;
        let published = consensus
            .node(&keys.id())
            .and_then(|own| consensus.packet_key(own, epoch));
        if published != Some(secret.public()) {
            return Err(NoKey::Unpublished);
        }
        let (journal, seen) = match Journal::open(journals, epoch, *replay_max, self.boot) {
            Err(burned @ JournalError::Burned(_)) => {
                self.erase(epoch);
                return Err(burned.into());
            }
            opened => opened?,
        };
        let mut set = ReplaySet::new(&secret, *replay_max);
        for tag in seen {
            // A journal longer than the set can hold leaves the set full: it takes no more.
            let _known = set.admit(tag);
        }
        self.journals.insert(epoch, journal);
        self.stage.install(epoch, secret, set);
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
}
