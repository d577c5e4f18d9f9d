//! The replay set's memory across restarts: one file for each key epoch.
//!
//! Rule RPL-4: a packet goes on only when the write of its fingerprint has returned. The record is
//! then with the kernel, so it survives `kill -9`. It need not be on the disk: after a power loss
//! the whole key is burned instead.
//!
//! | offset | bytes | field                                                          |
//! |--------|-------|----------------------------------------------------------------|
//! | 0      | 8     | magic and version                                              |
//! | 8      | 8     | epoch, big-endian                                              |
//! | 16     | 36    | boot id of the kernel that wrote it                            |
//! | 52     | 4     | zero                                                           |
//! | 56     | 8     | how often it has been opened, also kept in a file beside it    |
//! | 64     | 8     | 1 if closed in order and on the disk, else 0                   |
//! | 72     | 8     | room, records; the file is never shorter                       |
//! | 80     | 8     | UTC seconds when it was last opened, synced or closed          |
//! | 88     | 8     | sum of the records if closed in order, mod 2⁶⁴; else 0; no sum |
//! |        |       | in the version before, which is taken too                      |
//! | 96     | 8 × n | fingerprints, in order; zero: none yet                         |
//!
//! The header, the count beside it and the folder are on the disk before the first append, so that a
//! power loss always leaves a file that says it was not closed.
//!
//! Space is taken ahead, so that hardly an append can find the disk full (`space`).
//!
//! A file is burned, and its key with it, when records may be missing from it:
//!
//! - it holds fewer than the kernel's memory says (`mark`): a volume went back, or a device lost what
//!   was written, and nothing has booted since;
//! - the disk said that it lost something, at an append, a [`Journal::sync`] or the opening;
//! - it was not closed in order, and another kernel has booted since;
//! - it was, and its records have another sum: some were lost, or are others (they are uniform, so a
//!   sum tells as surely as a hash, and costs an addition);
//! - its count of openings is lower than the one beside it, or it is gone: it went back;
//! - it is shorter than it was made, or of a version that is neither this one nor the one before;
//! - the clock stands more than [`CLOCK_BACK_MAX`] before the time in it: whatever turned that back
//!   may have turned back more.
//!
//! A torn record can only be one whose packet did not go on. Reading is in pieces of `PIECE`
//! bytes, so that memory does not grow with what is remembered.
//!
//! Not seen, and documented as limits: a whole machine, or a whole disk with a reboot, that went back;
//! the same without one where `/dev/shm` went too, as a container's does when that ends.

mod mark;
mod space;

use core::time::Duration;
use std::{
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{Context, SHA256};
use proto::{
    calendar::{Epoch, Utc},
    replay::Fingerprint,
};
use sphinx::PublicKey;

use self::mark::Mark;
use crate::state::{self, StateError};

const MAGIC: &[u8; 8] = b"LacRpl03";
/// The same without the sum. Taken so that an upgrade costs no epoch.
const MAGIC_NO_SUM: &[u8; 8] = b"LacRpl02";
const EPOCH: usize = 8;
const BOOT: usize = 16;
const OPENED: usize = 56;
const CLOSED: usize = 64;
const ROOM: usize = 72;
const SEEN: usize = 80;
const SUM: usize = 88;
const RECORDS: usize = 96;
const RECORD: usize = 8;
/// Bytes that are read at once.
const PIECE: usize = 1 << 16;
/// How far a clock may be set back while a node is down, as two honest ones may differ.
pub const CLOCK_BACK_MAX: Duration = Duration::from_secs(300);

/// Which boot of the kernel this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId([u8; 36]);

impl BootId {
    /// Of the running kernel.
    ///
    /// # Errors
    ///
    /// If `/proc` does not say.
    pub fn current() -> io::Result<Self> {
        let text = fs::read("/proc/sys/kernel/random/boot_id")?;
        let id = text.first_chunk().copied();
        id.map(Self)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "boot_id is too short"))
    }
}

/// Why a journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Records may be missing: the key of this epoch must not open another packet.
    #[error("the replay journal of epoch {0} may have lost records; its key is burned")]
    Burned(u64),
    /// The disk may have lost records: the same.
    #[error("the replay journal of epoch {0} may have lost records, its key is burned: {1}")]
    Lost(u64, io::Error),
    /// It holds as many records as it may.
    #[error("the replay journal is full")]
    Full,
    /// The disk has no space to take ahead. Nothing is lost: appends go on until they fail.
    #[error("no space for the replay journal: {0}; if an append finds none, the key is burned")]
    NoSpace(io::Error),
    /// The file system failed.
    #[error("the replay journal: {0}")]
    Io(io::Error),
    /// The file beside it could not be written.
    #[error(transparent)]
    Beside(#[from] StateError),
}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl JournalError {
    /// Whether the key must not open another packet, ever.
    #[must_use]
    pub fn burns(&self) -> bool {
        matches!(self, Self::Burned(_) | Self::Lost(..))
    }
}

/// The journals of one node.
#[derive(Clone, Debug)]
pub struct Journals {
    folder: PathBuf,
    boot: BootId,
    /// What the names of their marks begin with.
    marks: PathBuf,
}

/// The open journal of one epoch.
#[derive(Debug)]
pub struct Journal {
    epoch: Epoch,
    file: Arc<File>,
    mark: Arc<Mark>,
    /// Records written.
    held: Held,
    /// Most records.
    capacity: u64,
}

/// Records: how many, and their sum mod 2⁶⁴.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    count: u64,
    sum: u64,
}

impl Held {
    /// And these.
    fn with(self, more: &[Fingerprint]) -> Self {
        let numbers = more.iter().map(|one| u64::from_be_bytes(one.to_bytes()));
        Self {
            count: self.count + more.len() as u64,
            sum: numbers.fold(self.sum, u64::wrapping_add),
        }
    }
}

/// Where record `i` stands.
fn place(i: u64) -> u64 {
    RECORDS as u64 + i * RECORD as u64
}

impl Journals {
    /// Those in `folder`, which exists.
    ///
    /// # Errors
    ///
    /// If it can't be found, or the kernel does not say which boot this is.
    pub fn at(folder: &Path) -> io::Result<Self> {
        Self::booted(folder, BootId::current()?)
    }

    fn booted(folder: &Path, boot: BootId) -> io::Result<Self> {
        // By its place: what holds its files may go back, where it is does not.
        let mut name = Context::new(&SHA256);
        name.update(&boot.0);
        name.update(fs::canonicalize(folder)?.as_os_str().as_bytes());
        let name = name.finish();
        let name: String = name.as_ref()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self {
            folder: folder.to_owned(),
            boot,
            marks: Path::new(mark::FOLDER).join(format!("lacuna-replay-{name}")),
        })
    }

    fn path(&self, epoch: Epoch) -> PathBuf {
        self.folder.join(format!("epoch-{}.replay", epoch.0))
    }

    /// The count of openings that stands beside the journal.
    fn beside(&self, epoch: Epoch) -> PathBuf {
        self.folder.join(format!("epoch-{}.opened", epoch.0))
    }

    /// Where the kernel's memory says how much the journal of `epoch` holds.
    #[must_use]
    pub fn mark(&self, epoch: Epoch) -> PathBuf {
        self.marks.with_added_extension(epoch.0.to_string())
    }

    /// Opens the journal of `epoch`, whose key is `key`, at UTC `now`, making it if there is none;
    /// `remembered` is told what it holds, in pieces.
    ///
    /// # Errors
    ///
    /// [`JournalError::Burned`] and [`JournalError::Lost`] as the file header says;
    /// [`JournalError::Io`] and [`JournalError::Beside`], and [`JournalError::NoSpace`] if there is none
    /// beyond what it holds: those burn nothing, and it may be tried again.
    pub fn open(
        &self,
        epoch: Epoch,
        key: &PublicKey,
        capacity: usize,
        now: Utc,
        remembered: impl FnMut(&[Fingerprint]),
    ) -> Result<Journal, JournalError> {
        let burned = || JournalError::Burned(epoch.0);
        let mut opened_before = match fs::read(self.beside(epoch)) {
            Ok(bytes) => bytes.first_chunk().copied().map_or(0, u64::from_be_bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
        let file = state::in_place().open(self.path(epoch))?;
        let mut head = [0; RECORDS];
        let head_len = read_at(&file, &mut head, 0)?;
        // All zero: killed after its space was taken and before its header was written.
        let held = if head != [0; RECORDS] {
            let header = Header::parse(&head).ok_or_else(burned)?;
            let lost = !header.closed && header.boot != self.boot;
            let back = header.opened < opened_before
                || now.after(CLOCK_BACK_MAX) < Utc::from_secs(header.seen_s);
            let short = head_len < RECORDS || file.metadata()?.len() < place(header.room);
            if lost || back || short || header.epoch != epoch.0 {
                return Err(burned());
            }
            // Killed between the two writes below: the journal is the newer.
            opened_before = header.opened;
            let held = read_records(&file, remembered)?;
            if header.closed && header.sum.is_some_and(|sum| sum != held.sum) {
                return Err(burned());
            }
            held
        } else if opened_before != 0 {
            return Err(burned()); // the journal itself is gone
        } else {
            Held::default()
        };
        let (mark, marked) = Mark::open(&self.mark(epoch), key)?;
        if held.count < marked {
            return Err(burned());
        }
        let capacity = (capacity as u64).max(held.count);
        if let Err(why) = space::at_first(&file, held.count, capacity) {
            let why = JournalError::NoSpace(why);
            if space::room(&file)? <= held.count {
                return Err(why);
            }
            tracing::warn!(epoch = epoch.0, %why, "free some disk");
        }

        let opened = opened_before + 1;
        let header = Header {
            epoch: epoch.0,
            boot: self.boot,
            opened,
            closed: false,
            room: space::room(&file)?,
            seen_s: now.as_secs(),
            sum: Some(0),
        };
        let journal = Journal {
            epoch,
            file: Arc::new(file),
            mark: Arc::new(mark),
            held,
            capacity,
        };
        // On the disk before the first packet: after a power loss a journal that is absent, or
        // still says that it was closed in order, would pass for one that lost nothing.
        journal.file.write_all_at(&header.to_bytes(), 0)?;
        journal.or_burn(journal.file.sync_all())?;
        state::write(&self.beside(epoch), &opened.to_be_bytes())?;
        journal.or_burn(journal.mark.set(held.count))?;
        Ok(journal)
    }

    /// The epochs of which there is a journal, or its count of openings.
    ///
    /// # Errors
    ///
    /// If the folder can't be read.
    pub fn epochs(&self) -> io::Result<Vec<Epoch>> {
        let mut epochs = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let number = name.strip_prefix("epoch-").and_then(|name| {
                let number = name.strip_suffix(".replay");
                number.or_else(|| name.strip_suffix(".opened"))
            });
            epochs.extend(number.and_then(|number| number.parse().ok()).map(Epoch));
        }
        Ok(epochs)
    }

    /// Deletes the journal of an epoch whose key has been erased.
    ///
    /// # Errors
    ///
    /// If the file system refuses; a journal that is not there is no error.
    pub fn erase(&self, epoch: Epoch) -> io::Result<()> {
        for path in [self.path(epoch), self.beside(epoch), self.mark(epoch)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Forgets, when it is dropped, what the kernel's memory says of the journals of a network that is
/// thrown away with its folder: a test's, or a demo's. They stand in folders called `replay`, in that of
/// each node or in its `state`.
#[derive(Debug)]
pub struct Throwaway(pub PathBuf);

impl Drop for Throwaway {
    fn drop(&mut self) {
        for node in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            for replay in ["replay", "state/replay"] {
                let Ok(journals) = Journals::at(&node.path().join(replay)) else {
                    continue;
                };
                for epoch in journals.epochs().unwrap_or_default() {
                    let _never_made = fs::remove_file(journals.mark(epoch));
                }
            }
        }
    }
}

impl Journal {
    /// Appends a batch with one write, and one to the mark. Its packets may go on when this has
    /// returned.
    ///
    /// # Errors
    ///
    /// Any: the packets must be dropped, and the key must open no more (fail closed).
    pub fn append(&mut self, batch: &[Fingerprint]) -> Result<(), JournalError> {
        let held = self.held.with(batch);
        if held.count > self.capacity {
            return Err(JournalError::Full);
        }
        let bytes: Vec<u8> = batch.iter().flat_map(|one| one.to_bytes()).collect();
        self.or_burn(self.file.write_all_at(&bytes, place(self.held.count)))?;
        self.or_burn(self.mark.set(held.count))?;
        self.held = held;
        Ok(())
    }

    /// What asks the disk at UTC `now`, on a thread that may wait, whether all that was appended has got
    /// there, and takes further space before it is needed.
    ///
    /// # Errors
    ///
    /// What it returns: [`JournalError::Lost`] and [`JournalError::NoSpace`].
    pub fn sync(&mut self, now: Utc) -> impl FnOnce() -> Result<(), JournalError> + Send + use<> {
        let (file, mark, epoch) = (Arc::clone(&self.file), Arc::clone(&self.mark), self.epoch);
        let (held, capacity) = (self.held.count, self.capacity);
        move || {
            or_burn(epoch, &mark, write_seen(&file, now))?;
            or_burn(epoch, &mark, file.sync_data())?;
            if space::ahead(&file, held, capacity).map_err(JournalError::NoSpace)? {
                or_burn(epoch, &mark, write_room(&file))?;
            }
            Ok(())
        }
    }

    /// Closes it in order at UTC `now`: what it holds is on the disk, and a reboot does not burn
    /// the key.
    ///
    /// # Errors
    ///
    /// [`JournalError::Lost`] if the disk fails.
    pub fn close(self, now: Utc) -> Result<(), JournalError> {
        let closed = || {
            self.file.sync_all()?;
            write_room(&self.file)?;
            write_seen(&self.file, now)?;
            let sum = self.held.sum.to_be_bytes();
            self.file.write_all_at(&sum, SUM as u64)?;
            self.file.write_all_at(&1u64.to_be_bytes(), CLOSED as u64)?;
            self.file.sync_all()
        };
        self.or_burn(closed())
    }

    fn or_burn(&self, done: io::Result<()>) -> Result<(), JournalError> {
        or_burn(self.epoch, &self.mark, done)
    }

    /// From now on its disk fails.
    #[cfg(test)]
    pub(crate) fn fail(&mut self) {
        self.file = Arc::new(File::open("/dev/null").expect("it is there"));
    }
}

/// A disk that failed may have lost what it had taken before: the key is burned, also if it can't be
/// erased now.
fn or_burn(epoch: Epoch, mark: &Mark, done: io::Result<()>) -> Result<(), JournalError> {
    done.map_err(|error| {
        if let Err(error) = mark.burn() {
            tracing::error!(%error, "the mark of a replay journal can't be written");
        }
        JournalError::Lost(epoch.0, error)
    })
}

/// Says in its header how long the file is.
fn write_room(file: &File) -> io::Result<()> {
    file.write_all_at(&space::room(file)?.to_be_bytes(), ROOM as u64)
}

fn write_seen(file: &File, now: Utc) -> io::Result<()> {
    file.write_all_at(&now.as_secs().to_be_bytes(), SEEN as u64)
}

/// Reads until `bytes` is full or the file ends; how many bytes it read.
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], at + read as u64) {
            Ok(0) => break,
            Ok(some) => read += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Tells of the records up to the first that is zero, in pieces.
fn read_records(file: &File, mut remembered: impl FnMut(&[Fingerprint])) -> io::Result<Held> {
    let mut bytes = vec![0; PIECE];
    let mut piece = Vec::with_capacity(PIECE / RECORD);
    let mut held = Held::default();
    loop {
        let read = read_at(file, &mut bytes, place(held.count))?;
        let (records, _) = bytes[..read].as_chunks::<RECORD>();
        let written = records.iter().take_while(|record| **record != [0; RECORD]);
        piece.clear();
        piece.extend(written.map(|record| Fingerprint::from_bytes(*record)));
        remembered(&piece);
        held = held.with(&piece);
        if piece.len() < PIECE / RECORD {
            return Ok(held);
        }
    }
}

struct Header {
    epoch: u64,
    boot: BootId,
    opened: u64,
    closed: bool,
    room: u64,
    seen_s: u64,
    /// In no file of the version before.
    sum: Option<u64>,
}

impl Header {
    fn to_bytes(&self) -> [u8; RECORDS] {
        let mut bytes = [0; RECORDS];
        let mut put = |at: usize, field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
        };
        put(0, MAGIC);
        put(EPOCH, &self.epoch.to_be_bytes());
        put(BOOT, &self.boot.0);
        put(OPENED, &self.opened.to_be_bytes());
        put(CLOSED, &u64::from(self.closed).to_be_bytes());
        put(ROOM, &self.room.to_be_bytes());
        put(SEEN, &self.seen_s.to_be_bytes());
        put(SUM, &self.sum.unwrap_or_default().to_be_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let field = bytes.get(at..)?.first_chunk()?;
            Some(u64::from_be_bytes(*field))
        };
        let magic = bytes.first_chunk()?;
        (magic == MAGIC || magic == MAGIC_NO_SUM).then_some(())?;
        Some(Self {
            epoch: number(EPOCH)?,
            boot: BootId(*bytes.get(BOOT..)?.first_chunk()?),
            opened: number(OPENED)?,
            closed: number(CLOSED)? == 1,
            room: number(ROOM)?,
            seen_s: number(SEEN)?,
            sum: Some(number(SUM)?).filter(|_| magic == MAGIC),
        })
    }
}

#[cfg(test)]
mod tests;
