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
//! | 72     | 8     | capacity, records; the file is never shorter                   |
//! | 80     | 8     | UTC seconds when it was last opened or closed                  |
//! | 88     | 8     | zero                                                           |
//! | 96     | 8 × n | fingerprints, in order; zero: none yet                         |
//!
//! The header, the count beside it and the folder are on the disk before the first append, so that a
//! power loss always leaves a file that says it was not closed.
//!
//! A file is burned, and its key with it, when records may be missing from it:
//!
//! - it was not closed in order, and another kernel has booted since;
//! - its count of openings is lower than the one beside it, or it is gone: it went back;
//! - it is shorter than it was made, or of another version;
//! - the clock stands more than [`CLOCK_BACK_MAX`] before the time in it: whatever turned that back
//!   may have turned back more.
//!
//! A torn record can only be one whose packet did not go on. Reading is in pieces of `PIECE`
//! bytes, so that memory does not grow with what is remembered.
//!
//! Not seen, and documented as a limit: a machine whose whole disk went back together.

use core::time::Duration;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use proto::{
    calendar::{Epoch, Utc},
    replay::Fingerprint,
};
use rustix::fs::{FallocateFlags, fallocate};

const MAGIC: &[u8; 8] = b"LacRpl02";
const EPOCH: usize = 8;
const BOOT: usize = 16;
const OPENED: usize = 56;
const CLOSED: usize = 64;
const CAPACITY: usize = 72;
const SEEN: usize = 80;
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
    /// It holds as many records as it can.
    #[error("the replay journal is full")]
    Full,
    /// The file system failed.
    #[error("the replay journal: {0}")]
    Io(#[from] io::Error),
}

/// The open journal of one epoch.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Records written.
    held: u64,
    capacity: u64,
}

fn path(folder: &Path, epoch: Epoch) -> PathBuf {
    folder.join(format!("epoch-{}.replay", epoch.0))
}

/// Where record `i` stands.
fn place(i: u64) -> u64 {
    RECORDS as u64 + i * RECORD as u64
}

/// The count of openings that stands beside the journal.
fn beside(folder: &Path, epoch: Epoch) -> PathBuf {
    folder.join(format!("epoch-{}.opened", epoch.0))
}

impl Journal {
    /// Opens the journal of `epoch` in `folder` at UTC `now`, making it if there is none;
    /// `remembered` is told what it holds, in pieces.
    ///
    /// # Errors
    ///
    /// [`JournalError::Burned`] as the file header says; [`JournalError::Io`].
    pub fn open(
        folder: &Path,
        epoch: Epoch,
        capacity: usize,
        boot: BootId,
        now: Utc,
        remembered: impl FnMut(&[Fingerprint]),
    ) -> Result<Self, JournalError> {
        let burned = || JournalError::Burned(epoch.0);
        let beside = beside(folder, epoch);
        let mut opened_before = match fs::read(&beside) {
            Ok(bytes) => bytes.first_chunk().copied().map_or(0, u64::from_be_bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path(folder, epoch))?;
        let mut head = [0; RECORDS];
        let head_len = read_at(&file, &mut head, 0)?;
        // All zero: killed after its space was taken and before its header was written.
        let held = if head != [0; RECORDS] {
            let header = Header::parse(&head).ok_or_else(burned)?;
            let lost = !header.closed && header.boot != boot;
            let back = header.opened < opened_before
                || now.after(CLOCK_BACK_MAX) < Utc::from_secs(header.seen_s);
            let short = head_len < RECORDS || file.metadata()?.len() < place(header.capacity);
            if lost || back || short || header.epoch != epoch.0 {
                return Err(burned());
            }
            // Killed between the two writes below: the journal is the newer.
            opened_before = header.opened;
            read_records(&file, remembered)?
        } else if opened_before != 0 {
            return Err(burned()); // the journal itself is gone
        } else {
            0
        };
        let capacity = (capacity as u64).max(held);
        // All space is taken now, so that no append can find the disk full.
        fallocate(&file, FallocateFlags::empty(), 0, place(capacity)).map_err(io::Error::from)?;

        let opened = opened_before + 1;
        let header = Header {
            epoch: epoch.0,
            boot,
            opened,
            closed: false,
            capacity,
            seen_s: now.as_secs(),
        };
        // On the disk before the first packet: after a power loss a journal that is absent, or
        // still says that it was closed in order, would pass for one that lost nothing.
        file.write_all_at(&header.to_bytes(), 0)?;
        file.sync_all()?;
        let mut count = File::create(&beside)?;
        count.write_all(&opened.to_be_bytes())?;
        count.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok(Self {
            file,
            held,
            capacity,
        })
    }

    /// Appends a batch with one write. Its packets may go on when this has returned.
    ///
    /// # Errors
    ///
    /// Any: the packets must be dropped, and the key must open no more (fail closed).
    pub fn append(&mut self, batch: &[Fingerprint]) -> Result<(), JournalError> {
        if self.held + batch.len() as u64 > self.capacity {
            return Err(JournalError::Full);
        }
        let bytes: Vec<u8> = batch.iter().flat_map(|one| one.to_bytes()).collect();
        self.file.write_all_at(&bytes, place(self.held))?;
        self.held += batch.len() as u64;
        Ok(())
    }

    /// Closes it in order at UTC `now`: what it holds is on the disk, and a reboot does not burn
    /// the key.
    ///
    /// # Errors
    ///
    /// If the disk fails; the journal then counts as not closed.
    pub fn close(self, now: Utc) -> Result<(), JournalError> {
        self.file.sync_all()?;
        self.file
            .write_all_at(&now.as_secs().to_be_bytes(), SEEN as u64)?;
        self.file.write_all_at(&1u64.to_be_bytes(), CLOSED as u64)?;
        self.file.sync_all()?;
        Ok(())
    }

    /// The epochs of which `folder` holds a journal, or its count of openings.
    ///
    /// # Errors
    ///
    /// If the folder can't be read.
    pub fn epochs(folder: &Path) -> io::Result<Vec<Epoch>> {
        let mut epochs = Vec::new();
        for entry in fs::read_dir(folder)? {
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
    pub fn erase(folder: &Path, epoch: Epoch) -> io::Result<()> {
        for path in [path(folder, epoch), beside(folder, epoch)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
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

/// Tells of the records up to the first that is zero, in pieces; how many they are.
fn read_records(file: &File, mut remembered: impl FnMut(&[Fingerprint])) -> io::Result<u64> {
    let mut bytes = vec![0; PIECE];
    let mut piece = Vec::with_capacity(PIECE / RECORD);
    let mut held = 0;
    loop {
        let read = read_at(file, &mut bytes, place(held))?;
        let (records, _) = bytes[..read].as_chunks::<RECORD>();
        let written = records.iter().take_while(|record| **record != [0; RECORD]);
        piece.clear();
        piece.extend(written.map(|record| Fingerprint::from_bytes(*record)));
        remembered(&piece);
        held += piece.len() as u64;
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
    capacity: u64,
    seen_s: u64,
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
        put(CAPACITY, &self.capacity.to_be_bytes());
        put(SEEN, &self.seen_s.to_be_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let field = bytes.get(at..)?.first_chunk()?;
            Some(u64::from_be_bytes(*field))
        };
        (bytes.first_chunk() == Some(MAGIC)).then_some(())?;
        Some(Self {
            epoch: number(EPOCH)?,
            boot: BootId(*bytes.get(BOOT..)?.first_chunk()?),
            opened: number(OPENED)?,
            closed: number(CLOSED)? == 1,
            capacity: number(CAPACITY)?,
            seen_s: number(SEEN)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use tempfile::{TempDir, tempdir};

    const EPOCH_7: Epoch = Epoch(7);
    const BOOT_A: BootId = BootId([b'a'; 36]);
    const BOOT_B: BootId = BootId([b'b'; 36]);

    fn fingerprint(i: u64) -> Fingerprint {
        Fingerprint::from_bytes((i + 1).to_be_bytes())
    }

    const NOW: Utc = Utc::from_secs(1_000_000);

    type Opened = Result<(Journal, Vec<Fingerprint>), JournalError>;

    fn open_for(folder: &TempDir, capacity: usize, boot: BootId, now: Utc) -> Opened {
        let mut found = Vec::new();
        let tell = |piece: &[Fingerprint]| found.extend_from_slice(piece);
        let journal = Journal::open(folder.path(), EPOCH_7, capacity, boot, now, tell)?;
        Ok((journal, found))
    }

    fn open(folder: &TempDir, boot: BootId) -> Opened {
        open_for(folder, 1000, boot, NOW)
    }

    /// RPL-4
    #[test]
    fn what_was_appended_is_there_after_a_crash() {
        let folder = tempdir().unwrap();
        let (mut journal, none) = open(&folder, BOOT_A).unwrap();
        assert!(none.is_empty());
        journal.append(&[fingerprint(1), fingerprint(2)]).unwrap();
        journal.append(&[fingerprint(3)]).unwrap();
        drop(journal); // not closed
        let (mut journal, found) = open(&folder, BOOT_A).unwrap();
        assert_eq!(found, [1, 2, 3].map(fingerprint));
        journal.append(&[fingerprint(4)]).unwrap();
        journal.close(NOW).unwrap();
        let (_, found) = open(&folder, BOOT_B).unwrap(); // closed in order: a reboot is harmless
        assert_eq!(found, [1, 2, 3, 4].map(fingerprint));
    }

    #[test]
    fn a_reboot_without_closing_burns_the_key_for_good() {
        let folder = tempdir().unwrap();
        let (mut journal, _) = open(&folder, BOOT_A).unwrap();
        journal.append(&[fingerprint(1)]).unwrap();
        drop(journal);
        for boot in [BOOT_B, BOOT_B] {
            assert!(matches!(open(&folder, boot), Err(JournalError::Burned(7))));
        }
    }

    #[test]
    fn a_file_that_went_back_burns_the_key() {
        for gone in [false, true] {
            let folder = tempdir().unwrap();
            let journal_file = path(folder.path(), EPOCH_7);
            let (journal, _) = open(&folder, BOOT_A).unwrap();
            journal.close(NOW).unwrap();
            let old = fs::read(&journal_file).unwrap();
            let (mut journal, _) = open(&folder, BOOT_A).unwrap();
            journal.append(&[fingerprint(1)]).unwrap();
            drop(journal);
            if gone {
                fs::remove_file(&journal_file).unwrap();
            } else {
                fs::write(&journal_file, old).unwrap();
            }
            let result = open(&folder, BOOT_A);
            assert!(matches!(result, Err(JournalError::Burned(7))));
        }
    }

    #[test]
    fn killed_between_its_two_counts_it_opens_again() {
        let folder = tempdir().unwrap();
        let (mut journal, _) = open(&folder, BOOT_A).unwrap();
        let count = fs::read(beside(folder.path(), EPOCH_7)).unwrap();
        journal.append(&[fingerprint(1)]).unwrap();
        drop(journal);
        drop(open(&folder, BOOT_A).unwrap());
        fs::write(beside(folder.path(), EPOCH_7), count).unwrap();
        assert_eq!(open(&folder, BOOT_A).unwrap().1, [fingerprint(1)]);
    }

    #[test]
    fn a_full_journal_takes_no_part_of_a_batch() {
        let folder = tempdir().unwrap();
        let (mut journal, _) = open_for(&folder, 2, BOOT_A, NOW).unwrap();
        let batch = [1, 2, 3].map(fingerprint);
        assert!(matches!(journal.append(&batch), Err(JournalError::Full)));
        journal.append(&batch[..2]).unwrap();
        drop(journal);
        let (_, found) = open(&folder, BOOT_A).unwrap();
        assert_eq!(found, batch[..2]);
        Journal::erase(folder.path(), EPOCH_7).unwrap();
        Journal::erase(folder.path(), EPOCH_7).unwrap();
        assert!(open(&folder, BOOT_B).unwrap().1.is_empty());
    }

    /// What is remembered comes in pieces, and each piece once.
    #[test]
    fn it_is_read_in_pieces() {
        const RECORDS_OF_ALL: usize = PIECE / RECORD * 2 + 5;
        for held in [PIECE / RECORD, PIECE / RECORD * 2, RECORDS_OF_ALL] {
            let folder = tempdir().unwrap();
            let (mut journal, _) = open_for(&folder, RECORDS_OF_ALL, BOOT_A, NOW).unwrap();
            let all: Vec<_> = (0..held as u64).map(fingerprint).collect();
            journal.append(&all).unwrap();
            drop(journal);
            let mut most = 0;
            let mut found = Vec::new();
            let tell = |piece: &[Fingerprint]| {
                most = most.max(piece.len());
                found.extend_from_slice(piece);
            };
            let again =
                Journal::open(folder.path(), EPOCH_7, RECORDS_OF_ALL, BOOT_A, NOW, tell).unwrap();
            assert_eq!((found, again.held), (all, held as u64));
            assert_eq!(most, PIECE / RECORD);
        }
    }

    /// A torn write at the end is of a packet that did not go on: the key lives, what was written
    /// before is there, and what comes after is not lost behind it.
    #[test]
    fn a_torn_tail_loses_nothing_and_burns_nothing() {
        for torn in 0..RECORD {
            let folder = tempdir().unwrap();
            let (mut journal, _) = open(&folder, BOOT_A).unwrap();
            journal.append(&[fingerprint(1), fingerprint(2)]).unwrap();
            let whole = [0xab; RECORD];
            journal.file.write_all_at(&whole[..torn], place(2)).unwrap();
            drop(journal);
            let (mut journal, found) = open(&folder, BOOT_A).unwrap();
            assert_eq!(found[..2], [1, 2].map(fingerprint));
            assert_eq!(found.len(), 2 + usize::from(torn > 0));
            journal.append(&[fingerprint(3)]).unwrap();
            drop(journal);
            assert_eq!(
                open(&folder, BOOT_A).unwrap().1.last(),
                Some(&fingerprint(3))
            );
        }
    }

    /// RPL-4: each way in which a file or a clock can have gone back burns the key; the control is
    /// the same restart untouched.
    #[test]
    fn what_went_back_burns_the_key_and_what_did_not_keeps_it() {
        type Harm = fn(&TempDir);
        let journal_of = |folder: &TempDir| path(folder.path(), EPOCH_7);
        let later = |s| NOW.after(Duration::from_secs(s));
        let earlier = |s| NOW.before(Duration::from_secs(s));
        let untouched: Harm = |_| ();
        let shorter: Harm = |folder| {
            let file = OpenOptions::new()
                .write(true)
                .open(path(folder.path(), EPOCH_7));
            file.unwrap().set_len(place(999)).unwrap();
        };
        let empty: Harm = |folder| fs::write(path(folder.path(), EPOCH_7), b"").unwrap();
        let older_version: Harm = |folder| {
            let file = OpenOptions::new()
                .write(true)
                .open(path(folder.path(), EPOCH_7));
            file.unwrap().write_all_at(b"LacRpl01", 0).unwrap();
        };
        for (name, harm, boot, now, keeps) in [
            ("untouched", untouched, BOOT_A, NOW, true),
            ("later", untouched, BOOT_A, later(3600), true),
            ("the clock corrected", untouched, BOOT_A, earlier(300), true),
            (
                "the clock went back",
                untouched,
                BOOT_A,
                earlier(301),
                false,
            ),
            ("power loss", untouched, BOOT_B, NOW, false),
            ("shorter", shorter, BOOT_A, NOW, false),
            ("empty", empty, BOOT_A, NOW, false),
            ("older version", older_version, BOOT_A, NOW, false),
        ] {
            let folder = tempdir().unwrap();
            let (mut journal, _) = open(&folder, BOOT_A).unwrap();
            journal.append(&[fingerprint(1)]).unwrap();
            drop(journal);
            assert!(journal_of(&folder).exists());
            harm(&folder);
            let result = open_for(&folder, 1000, boot, now);
            assert_eq!(result.is_ok(), keeps, "{name}: {result:?}");
            assert!(
                keeps || matches!(result, Err(JournalError::Burned(7))),
                "{name}"
            );
        }
        // Closing tells the time too.
        let folder = tempdir().unwrap();
        open(&folder, BOOT_A).unwrap().0.close(later(3600)).unwrap();
        let result = open_for(&folder, 1000, BOOT_A, later(3299));
        assert!(matches!(result, Err(JournalError::Burned(7))));
    }

    const CHILD: &str = "LACUNA_JOURNAL_TEST_FOLDER";

    /// Not a test by itself: the process that `a_killed_process_loses_nothing` kills.
    #[test]
    fn child_appends_until_killed() {
        let Some(folder) = std::env::var_os(CHILD) else {
            return;
        };
        let boot = BootId::current().unwrap();
        let mut journal =
            Journal::open(folder.as_ref(), EPOCH_7, 1 << 20, boot, NOW, |_| ()).unwrap();
        let mut out = io::stdout().lock();
        for i in 0.. {
            journal.append(&[fingerprint(i)]).unwrap();
            writeln!(out, "appended {i}").unwrap();
            out.flush().unwrap();
        }
    }

    /// RPL-4: every fingerprint whose write had returned is there, and the key is not burned.
    #[test]
    fn a_killed_process_loses_nothing() {
        use std::io::{BufRead, BufReader};
        let folder = tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "journal::tests::child_appends_until_killed",
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let appended = lines.filter(|line| line.as_ref().unwrap().contains("appended"));
        let seen = appended.take(200).count() as u64;
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let boot = BootId::current().unwrap();
        let (_, found) = open_for(&folder, 1 << 20, boot, NOW).unwrap();
        let expected: Vec<_> = (0..seen).map(fingerprint).collect();
        assert_eq!(found[..expected.len()], expected);
    }
}
