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
//! | 72     | 8     | capacity, records                                              |
//! | 80     | 16    | zero                                                           |
//! | 96     | 8 × n | fingerprints, in order; zero: none yet                         |
//!
//! The header, the count beside it and the folder are on the disk before the first append, so that a
//! power loss always leaves a file that says it was not closed.
//!
//! A file is burned, and its key with it, when it was not closed in order and another kernel has
//! booted since (records may be missing), or when its count of openings is lower than the one beside
//! it (it went back). A torn record can only be one whose packet did not go on.
//!
//! Not seen, and documented as a limit: a machine whose whole disk went back together.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use proto::{calendar::Epoch, replay::Fingerprint};
use rustix::fs::{FallocateFlags, fallocate};

const MAGIC: &[u8; 8] = b"LacRpl01";
const EPOCH: usize = 8;
const BOOT: usize = 16;
const OPENED: usize = 56;
const CLOSED: usize = 64;
const CAPACITY: usize = 72;
const RECORDS: usize = 96;
const RECORD: usize = 8;

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
    /// Opens the journal of `epoch` in `folder`, making it if there is none, and reads what it
    /// remembers.
    ///
    /// # Errors
    ///
    /// [`JournalError::Burned`] as the file header says; [`JournalError::Io`].
    pub fn open(
        folder: &Path,
        epoch: Epoch,
        capacity: usize,
        boot: BootId,
    ) -> Result<(Self, Vec<Fingerprint>), JournalError> {
        let beside = beside(folder, epoch);
        let mut opened_before = match fs::read(&beside) {
            Ok(bytes) => bytes.first_chunk().copied().map_or(0, u64::from_be_bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path(folder, epoch))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;

        let made = bytes.iter().any(|byte| *byte != 0);
        if made {
            let burned = JournalError::Burned(epoch.0);
            let Some(header) = Header::parse(&bytes) else {
                return Err(burned);
            };
            let lost = !header.closed && header.boot != boot;
            if lost || header.opened < opened_before || header.epoch != epoch.0 {
                return Err(burned);
            }
            // Killed between the two writes below: the journal is the newer.
            opened_before = header.opened;
        } else if opened_before != 0 {
            return Err(JournalError::Burned(epoch.0)); // the journal itself is gone
        }

        let fingerprints: Vec<Fingerprint> = bytes
            .get(RECORDS..)
            .unwrap_or_default()
            .chunks_exact(RECORD)
            .map_while(|record| {
                record
                    .try_into()
                    .ok()
                    .filter(|record| *record != [0; RECORD])
            })
            .map(Fingerprint::from_bytes)
            .collect();
        let held = fingerprints.len() as u64;
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
        };
        // On the disk before the first packet: after a power loss a journal that is absent, or
        // still says that it was closed in order, would pass for one that lost nothing.
        file.write_all_at(&header.to_bytes(), 0)?;
        file.sync_all()?;
        let mut count = File::create(&beside)?;
        count.write_all(&opened.to_be_bytes())?;
        count.sync_all()?;
        File::open(folder)?.sync_all()?;
        let journal = Self {
            file,
            held,
            capacity,
        };
        Ok((journal, fingerprints))
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

    /// Closes it in order: what it holds is on the disk, and a reboot does not burn the key.
    ///
    /// # Errors
    ///
    /// If the disk fails; the journal then counts as not closed.
    pub fn close(self) -> Result<(), JournalError> {
        self.file.sync_all()?;
        self.file.write_all_at(&1u64.to_be_bytes(), CLOSED as u64)?;
        self.file.sync_all()?;
        Ok(())
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

struct Header {
    epoch: u64,
    boot: BootId,
    opened: u64,
    closed: bool,
    capacity: u64,
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

    fn open(folder: &TempDir, boot: BootId) -> Result<(Journal, Vec<Fingerprint>), JournalError> {
        Journal::open(folder.path(), EPOCH_7, 1000, boot)
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
        journal.close().unwrap();
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
            journal.close().unwrap();
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
        let (mut journal, _) = Journal::open(folder.path(), EPOCH_7, 2, BOOT_A).unwrap();
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

    const CHILD: &str = "LACUNA_JOURNAL_TEST_FOLDER";

    /// Not a test by itself: the process that `a_killed_process_loses_nothing` kills.
    #[test]
    fn child_appends_until_killed() {
        let Some(folder) = std::env::var_os(CHILD) else {
            return;
        };
        let boot = BootId::current().unwrap();
        let (mut journal, _) = Journal::open(folder.as_ref(), EPOCH_7, 1 << 20, boot).unwrap();
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
        let (_, found) = Journal::open(folder.path(), EPOCH_7, 1 << 20, boot).unwrap();
        let expected: Vec<_> = (0..seen).map(fingerprint).collect();
        assert_eq!(found[..expected.len()], expected);
    }
}
