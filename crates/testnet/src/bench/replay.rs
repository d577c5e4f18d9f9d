//! `bench replay`: the replay set of one key and its journal, filled with as many tags as asked for.
//!
//! | figure        | unit          | what                                                             |
//! |---------------|---------------|------------------------------------------------------------------|
//! | filling       | ns a tag      | fingerprint, check and insert, batch after batch, empty to full  |
//! | full          | ns a tag      | the same for the last tags, after a real unwrap of each batch    |
//! | one at a time | ns a tag      | as *full*, without the batch's reads ahead                       |
//! | share         | of 1          | *full* over the batched unwrap beside it                         |
//! | journal       | ns a tag      | the batch's write, until it has returned                         |
//! | restart       | s             | the journal opened and the set filled from it                    |
//! | memory        | bytes         | most that this process held while it restarted                   |
//!
//! Between two batches of a node the unwrap of the next one has the caches; that is why *full* does
//! not run batch after batch. Tags are numbers: the set hashes them under its key.

use core::fmt;
use std::{fs, path::Path};

use anyhow::{Context, ensure};
use proto::{
    Time,
    calendar::Epoch,
    replay::{Fingerprint, Refused, ReplaySet},
};
use serde::Serialize;
use shell::{
    clock::Clock,
    entropy::seed,
    journal::Journals,
    selfcheck::{BATCH, Unwrap},
};
use sphinx::{SecretKey, Tag};

use super::node::memory_max;
use crate::progress::Progress;

/// Batches that follow an unwrap, for each of the two ways.
const BETWEEN: usize = 4096;
/// Batches between two words on the progress.
const TELL_EVERY: usize = 1 << 15;
const EPOCH: Epoch = Epoch(0);

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Tags held at the end, all that the set has room for.
    pub tags: usize,
    /// Mean over all tags, in ns.
    pub filling_ns: f64,
    /// In a full set, between unwraps, in ns.
    pub full_ns: f64,
    /// The same without reading ahead, in ns.
    pub full_single_ns: f64,
    /// The unwraps between, in ns a packet.
    pub unwrap_ns: f64,
    /// `full_ns` over `unwrap_ns`.
    pub share: f64,
    /// The journal's write, in ns a tag.
    pub journal_ns: f64,
    /// Memory of the set, in bytes a tag.
    pub bytes_per_tag: f64,
    /// Opening the journal and filling a set from it, in s.
    pub restart_s: f64,
    /// Most memory of this process while it did, in bytes.
    pub restart_memory_max: u64,
}

/// Nanoseconds spent on a number of things.
#[derive(Default)]
struct Spent {
    ns: u64,
    things: usize,
}

impl Spent {
    fn add(&mut self, clock: Clock, from: Time, things: usize) {
        let span = clock.now().as_nanos() - from.as_nanos();
        self.ns += span;
        self.things += things;
    }

    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    fn each(&self) -> f64 {
        self.ns as f64 / self.things as f64
    }
}

fn tag(number: usize) -> Tag {
    let mut tag = [0; 32];
    tag[..8].copy_from_slice(&(number as u64).to_be_bytes());
    tag
}

/// A batch of new tags, fingerprinted and admitted; what it took is added to `spent`.
fn admit(
    set: &mut ReplaySet,
    tags: &[Tag],
    together: bool,
    clock: Clock,
    spent: &mut Spent,
) -> anyhow::Result<Vec<Fingerprint>> {
    let mut taken = Vec::with_capacity(tags.len());
    let mut prints = Vec::with_capacity(tags.len());
    let from = clock.now();
    if together {
        prints.extend(tags.iter().map(|tag| set.fingerprint(tag)));
        set.admit_batch(&prints, |print, admitted| {
            taken.extend(admitted.is_ok().then_some(print));
        });
    } else {
        for tag in tags {
            let print = set.fingerprint(tag);
            taken.extend(set.admit(print).is_ok().then_some(print));
        }
    }
    spent.add(clock, from, tags.len());
    ensure!(
        taken.len() == tags.len(),
        "a new tag was taken for a replay"
    );
    Ok(taken)
}

/// Runs it with room for `tags`, the journal in the empty folder `root`.
///
/// # Errors
///
/// If the folder can't be written, or set or journal do not hold what they should.
pub fn run(root: &Path, tags: usize, progress: &Progress) -> anyhow::Result<Report> {
    let clock = Clock::start();
    let journals = Journals::at(root)?;
    let secret = SecretKey::from_bytes(seed());
    let key = secret.public();
    let mut unwrap = Unwrap::on(sphinx::Path::best())?;
    let tags = tags.next_multiple_of(BATCH);
    let open = |told: &mut dyn FnMut(&[Fingerprint])| {
        journals.open(EPOCH, &key, tags, clock.utc(), |piece| told(piece))
    };
    let mut set = ReplaySet::new(&secret, tags);
    let mut journal = open(&mut |_| ())?;

    let (mut filling, mut full, mut single) =
        (Spent::default(), Spent::default(), Spent::default());
    let (mut unwrapping, mut writing) = (Spent::default(), Spent::default());
    let mut batch = Vec::with_capacity(BATCH);
    let batches = tags / BATCH;
    for number in 0..batches {
        if number % TELL_EVERY == 0 {
            progress.step(&format!("{} of {tags} tags", number * BATCH));
        }
        batch.clear();
        batch.extend((0..BATCH).map(|i| tag(number * BATCH + i)));
        let left = batches - number;
        let taken = if left > 2 * BETWEEN {
            admit(&mut set, &batch, true, clock, &mut filling)?
        } else {
            let from = clock.now();
            unwrap.batch();
            unwrapping.add(clock, from, BATCH);
            let together = left.is_multiple_of(2);
            let spent = if together { &mut full } else { &mut single };
            admit(&mut set, &batch, together, clock, spent)?
        };
        let from = clock.now();
        journal.append(&taken)?;
        writing.add(clock, from, BATCH);
    }
    let more = set.fingerprint(&tag(tags));
    ensure!(
        set.admit(more) == Err(Refused::Full),
        "a full set took more"
    );
    let old = set.fingerprint(&tag(tags / 2));
    ensure!(
        set.admit(old) == Err(Refused::Seen),
        "a replay was not seen"
    );

    progress.step("starting again from the journal");
    drop((journal, set)); // as by a kill: not closed
    fs::write("/proc/self/clear_refs", "5").context("resetting the peak of memory")?;
    let from = clock.now();
    let mut set = ReplaySet::new(&secret, tags);
    let journal = open(&mut |piece| set.admit_batch(piece, |_, _known| ()))?;
    let restart_s = clock.now().since(from).as_secs_f64();
    let restart_memory_max = memory_max(std::process::id())?;
    ensure!(set.held() == tags, "the journal lost tags");
    let old = set.fingerprint(&tag(tags / 2));
    ensure!(
        set.admit(old) == Err(Refused::Seen),
        "a replay was not seen"
    );
    drop((journal, set.take_old()));
    journals.erase(EPOCH)?;

    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    let bytes_per_tag = set.memory() as f64 / tags as f64;
    Ok(Report {
        tags,
        filling_ns: filling.each(),
        full_ns: full.each(),
        full_single_ns: single.each(),
        unwrap_ns: unwrapping.each(),
        share: full.each() / unwrapping.each(),
        journal_ns: writing.each(),
        bytes_per_tag,
        restart_s,
        restart_memory_max,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "replay set of {} tags, full\n", self.tags)?;
        let mut line = |name, value: f64, unit| writeln!(f, "{name:<42} {value:>9.1} {unit}");
        line("filling, batch after batch", self.filling_ns, "ns a tag")?;
        line("full, between unwraps", self.full_ns, "ns a tag")?;
        line("full, one at a time", self.full_single_ns, "ns a tag")?;
        line("batched unwrap beside it", self.unwrap_ns, "ns a packet")?;
        line("the journal's write", self.journal_ns, "ns a tag")?;
        line("memory of the set", self.bytes_per_tag, "bytes a tag")?;
        line("restart from the journal", self.restart_s, "s")?;
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let memory = self.restart_memory_max as f64 / 1e6;
        line("most memory while it restarted", memory, "MB")?;
        write!(f, "\nratio replay_share {:.4}", self.share)
    }
}
