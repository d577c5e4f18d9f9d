//! What burns a key, and what does not.

use super::*;
use std::{
    fs::OpenOptions,
    io::Write,
    process::{Command, Stdio},
};

use sphinx::SecretKey;
use tempfile::{TempDir, tempdir};

mod room;

const EPOCH_7: Epoch = Epoch(7);
const BOOT_A: BootId = BootId([b'a'; 36]);
const BOOT_B: BootId = BootId([b'b'; 36]);

fn fingerprint(i: u64) -> Fingerprint {
    Fingerprint::from_bytes((i + 1).to_be_bytes())
}

const NOW: Utc = Utc::from_secs(1_000_000);

/// A folder, and the marks of its journals: both are gone afterwards.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn journals(&self, boot: BootId) -> Journals {
        Journals::booted(self.path(), boot).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for boot in [BOOT_A, BOOT_B, BootId::current().unwrap()] {
            self.journals(boot).erase(EPOCH_7).unwrap();
        }
    }
}

fn key(seed: u8) -> PublicKey {
    SecretKey::from_bytes([seed; 32]).public()
}

fn path(folder: &Folder) -> PathBuf {
    folder.journals(BOOT_A).path(EPOCH_7)
}

fn beside(folder: &Folder) -> PathBuf {
    folder.journals(BOOT_A).beside(EPOCH_7)
}

type Opened = Result<(Journal, Vec<Fingerprint>), JournalError>;

fn open_for(folder: &Folder, capacity: usize, boot: BootId, now: Utc) -> Opened {
    let mut found = Vec::new();
    let tell = |piece: &[Fingerprint]| found.extend_from_slice(piece);
    let journal = folder
        .journals(boot)
        .open(EPOCH_7, &key(1), capacity, now, tell)?;
    Ok((journal, found))
}

fn open(folder: &Folder, boot: BootId) -> Opened {
    open_for(folder, 1000, boot, NOW)
}

/// RPL-4
#[test]
fn what_was_appended_is_there_after_a_crash() {
    let folder = Folder::new();
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
    let folder = Folder::new();
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
        let folder = Folder::new();
        let journal_file = path(&folder);
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
    let folder = Folder::new();
    let (mut journal, _) = open(&folder, BOOT_A).unwrap();
    let count = fs::read(beside(&folder)).unwrap();
    journal.append(&[fingerprint(1)]).unwrap();
    drop(journal);
    drop(open(&folder, BOOT_A).unwrap());
    fs::write(beside(&folder), count).unwrap();
    assert_eq!(open(&folder, BOOT_A).unwrap().1, [fingerprint(1)]);
}

#[test]
fn a_full_journal_takes_no_part_of_a_batch() {
    let folder = Folder::new();
    let (mut journal, _) = open_for(&folder, 2, BOOT_A, NOW).unwrap();
    let batch = [1, 2, 3].map(fingerprint);
    assert!(matches!(journal.append(&batch), Err(JournalError::Full)));
    journal.append(&batch[..2]).unwrap();
    drop(journal);
    let (_, found) = open(&folder, BOOT_A).unwrap();
    assert_eq!(found, batch[..2]);
    folder.journals(BOOT_A).erase(EPOCH_7).unwrap();
    folder.journals(BOOT_A).erase(EPOCH_7).unwrap();
    assert!(open(&folder, BOOT_B).unwrap().1.is_empty());
}

/// What is remembered comes in pieces, and each piece once.
#[test]
fn it_is_read_in_pieces() {
    const RECORDS_OF_ALL: usize = PIECE / RECORD * 2 + 5;
    for held in [PIECE / RECORD, PIECE / RECORD * 2, RECORDS_OF_ALL] {
        let folder = Folder::new();
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
        let again = folder
            .journals(BOOT_A)
            .open(EPOCH_7, &key(1), RECORDS_OF_ALL, NOW, tell)
            .unwrap();
        assert_eq!((found, again.held.count), (all, held as u64));
        assert_eq!(most, PIECE / RECORD);
    }
}

/// A torn write at the end is of a packet that did not go on: the key lives, what was written
/// before is there, and what comes after is not lost behind it.
#[test]
fn a_torn_tail_loses_nothing_and_burns_nothing() {
    for torn in 0..RECORD {
        let folder = Folder::new();
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
    type Harm = fn(&Folder);
    let later = |s| NOW.after(Duration::from_secs(s));
    let earlier = |s| NOW.before(Duration::from_secs(s));
    let untouched: Harm = |_| ();
    let shorter: Harm = |folder| {
        let file = OpenOptions::new().write(true).open(path(folder));
        file.unwrap().set_len(place(999)).unwrap();
    };
    let empty: Harm = |folder| fs::write(path(folder), b"").unwrap();
    let version_before: Harm = |folder| {
        let file = OpenOptions::new().write(true).open(path(folder));
        file.unwrap().write_all_at(MAGIC_NO_SUM, 0).unwrap();
    };
    let older_version: Harm = |folder| {
        let file = OpenOptions::new().write(true).open(path(folder));
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
        ("version before", version_before, BOOT_A, NOW, true),
        ("its power loss", version_before, BOOT_B, NOW, false),
        ("older version", older_version, BOOT_A, NOW, false),
    ] {
        let folder = Folder::new();
        let (mut journal, _) = open(&folder, BOOT_A).unwrap();
        journal.append(&[fingerprint(1)]).unwrap();
        drop(journal);
        assert!(path(&folder).exists());
        harm(&folder);
        let result = open_for(&folder, 1000, boot, now);
        assert_eq!(result.is_ok(), keeps, "{name}: {result:?}");
        assert!(
            keeps || matches!(result, Err(JournalError::Burned(7))),
            "{name}"
        );
    }
    // Closing tells the time too.
    let folder = Folder::new();
    open(&folder, BOOT_A).unwrap().0.close(later(3600)).unwrap();
    let result = open_for(&folder, 1000, BOOT_A, later(3299));
    assert!(matches!(result, Err(JournalError::Burned(7))));
}

/// An upgrade keeps what is open. The control: a sum that is missing is a wrong one.
#[test]
fn a_journal_of_the_version_before_has_no_sum() {
    for (magic, keeps) in [(MAGIC_NO_SUM, true), (MAGIC, false)] {
        let folder = Folder::new();
        let (mut journal, _) = open(&folder, BOOT_A).unwrap();
        journal.append(&[fingerprint(1)]).unwrap();
        journal.close(NOW).unwrap();
        let file = OpenOptions::new().write(true).open(path(&folder)).unwrap();
        file.write_all_at(magic, 0).unwrap();
        file.write_all_at(&[0; 8], SUM as u64).unwrap();
        let result = open(&folder, BOOT_B);
        assert_eq!(result.is_ok(), keeps, "{result:?}");
        // It is of this version from then on.
        assert_eq!(
            Header::parse(&fs::read(path(&folder)).unwrap())
                .unwrap()
                .sum,
            Some(0)
        );
    }
}

/// RPL-4: a journal that holds fewer records than were let through on this boot burns the key, however
/// it came to that, and for good. The control, without the mark in the kernel's memory: it opens, and
/// has forgotten what comes again.
#[test]
fn a_volume_that_went_back_within_one_boot_burns_the_key() {
    type Back = fn(&Folder, kept: [Vec<u8>; 2]);
    let put_back: Back = |folder, [journal, opened]| {
        fs::write(path(folder), journal).unwrap();
        fs::write(beside(folder), opened).unwrap();
    };
    let before_there_was_one: Back = |folder, _| {
        fs::remove_file(path(folder)).unwrap();
        fs::remove_file(beside(folder)).unwrap();
    };
    let a_page_not_written: Back = |folder, _| {
        let file = OpenOptions::new().write(true).open(path(folder));
        file.unwrap().write_all_at(&[0; RECORD], place(2)).unwrap();
    };
    for (back, left) in [
        (put_back, 2),
        (before_there_was_one, 0),
        (a_page_not_written, 2),
    ] {
        for (closed, marked) in [(false, false), (false, true), (true, false), (true, true)] {
            let folder = Folder::new();
            let (mut journal, _) = open(&folder, BOOT_A).unwrap();
            journal.append(&[fingerprint(1), fingerprint(2)]).unwrap();
            if closed {
                journal.close(NOW).unwrap();
                (journal, _) = open(&folder, BOOT_A).unwrap();
            }
            let kept = [path(&folder), beside(&folder)].map(|file| fs::read(file).unwrap());
            journal.append(&[fingerprint(3)]).unwrap();
            drop(journal);
            back(&folder, kept);
            if !marked {
                fs::remove_file(folder.journals(BOOT_A).mark(EPOCH_7)).unwrap();
                assert_eq!(open(&folder, BOOT_A).unwrap().1.len(), left);
                continue;
            }
            for _ in 0..2 {
                let result = open(&folder, BOOT_A);
                assert!(matches!(result, Err(JournalError::Burned(7))), "{result:?}");
            }
        }
    }
}

/// RPL-4: a journal that was closed in order, and whose records are not those that it was closed with,
/// burns the key also after a reboot, of which no mark tells. The control is the same reboot untouched.
#[test]
fn a_closed_journal_that_lost_a_record_burns_the_key() {
    let all: Vec<_> = (0..1000).map(fingerprint).collect();
    let zero = [0; RECORD];
    let garbage = [0xab; RECORD];
    let of = |i: u64| fingerprint(i).to_bytes();
    for (name, harm, keeps) in [
        ("untouched", None, true),
        ("a zero", Some((10, zero)), false),
        ("the last is gone", Some((999, zero)), false),
        ("the first is gone", Some((0, zero)), false),
        ("one is another", Some((10, garbage)), false),
        ("one stands twice", Some((10, of(11))), false),
        ("one too many", Some((1000, garbage)), false),
    ] {
        let folder = Folder::new();
        let (mut journal, _) = open_for(&folder, 2000, BOOT_A, NOW).unwrap();
        journal.append(&all[..400]).unwrap();
        drop(journal); // what it held when it was opened counts as well
        let (mut journal, _) = open_for(&folder, 2000, BOOT_A, NOW).unwrap();
        journal.append(&all[400..]).unwrap();
        journal.close(NOW).unwrap();
        if let Some((i, record)) = harm {
            let file = OpenOptions::new().write(true).open(path(&folder));
            file.unwrap().write_all_at(&record, place(i)).unwrap();
        }
        for _ in 0..2 {
            match open_for(&folder, 2000, BOOT_B, NOW) {
                Ok((journal, found)) => {
                    assert!(keeps && found == all, "{name}");
                    journal.close(NOW).unwrap();
                }
                Err(why) => assert!(!keeps && matches!(why, JournalError::Burned(7)), "{name}"),
            }
        }
    }
}

/// A mark is of one key: another one that begins in the same place begins anew.
#[test]
fn the_mark_of_another_key_says_nothing() {
    let folder = Folder::new();
    let (mut journal, _) = open(&folder, BOOT_A).unwrap();
    journal.append(&[fingerprint(1)]).unwrap();
    drop(journal);
    fs::remove_file(path(&folder)).unwrap();
    fs::remove_file(beside(&folder)).unwrap();
    let journals = folder.journals(BOOT_A);
    journals.open(EPOCH_7, &key(2), 10, NOW, |_| ()).unwrap();
}

/// RPL-4: a disk that failed burns the key at the next start too, whatever it holds then.
#[test]
fn a_disk_that_failed_burns_the_key_for_good() {
    type Write = fn(&mut Journal) -> Result<(), JournalError>;
    let append: Write = |journal| journal.append(&[fingerprint(2)]);
    let sync: Write = |journal| journal.sync(NOW)();
    for write in [append, sync] {
        for fails in [false, true] {
            let folder = Folder::new();
            let (mut journal, _) = open(&folder, BOOT_A).unwrap();
            journal.append(&[fingerprint(1)]).unwrap();
            if fails {
                journal.fail();
            }
            let result = write(&mut journal);
            assert_eq!(matches!(result, Err(JournalError::Lost(7, _))), fails);
            drop(journal);
            let result = open(&folder, BOOT_A);
            assert_eq!(matches!(result, Err(JournalError::Burned(7))), fails);
        }
    }
}

/// What was being appended when the disk said that it had failed does not take that back.
#[test]
fn an_append_meanwhile_takes_no_failure_back() {
    for fails in [false, true] {
        let folder = Folder::new();
        let (mut journal, _) = open(&folder, BOOT_A).unwrap();
        let sound = Arc::clone(&journal.file);
        if fails {
            journal.fail();
        }
        let sync = journal.sync(NOW);
        journal.file = sound;
        assert_eq!(sync().is_err(), fails);
        let result = journal.append(&[fingerprint(1)]);
        assert_eq!(matches!(result, Err(JournalError::Lost(7, _))), fails);
        drop(journal);
        let result = open(&folder, BOOT_A);
        assert_eq!(matches!(result, Err(JournalError::Burned(7))), fails);
    }
}

/// The time of the last sync counts, also after a kill.
#[test]
fn a_clock_that_went_back_behind_a_sync_burns_the_key() {
    let later = NOW.after(Duration::from_secs(3600));
    for (synced, keeps) in [(NOW, true), (later, false)] {
        let folder = Folder::new();
        let (mut journal, _) = open(&folder, BOOT_A).unwrap();
        journal.sync(synced)().unwrap();
        drop(journal);
        assert_eq!(open(&folder, BOOT_A).is_ok(), keeps);
    }
}

/// The mark is as private as the journal, and nobody else's file is taken for one.
#[test]
fn a_mark_is_private() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let folder = Folder::new();
    drop(open(&folder, BOOT_A).unwrap());
    let mark = folder.journals(BOOT_A).mark(EPOCH_7);
    assert_eq!(fs::metadata(&mark).unwrap().mode() & 0o777, 0o600);
    fs::set_permissions(&mark, fs::Permissions::from_mode(0o666)).unwrap();
    let error = open(&folder, BOOT_A).unwrap_err().to_string();
    assert!(error.contains("remove it"), "{error}");
    fs::remove_file(&mark).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    symlink(&elsewhere, &mark).unwrap();
    assert!(matches!(open(&folder, BOOT_A), Err(JournalError::Io(_))));
    assert!(!elsewhere.exists());
}

const CHILD: &str = "LACUNA_JOURNAL_TEST_FOLDER";

/// Not a test by itself: the process that `a_killed_process_loses_nothing` kills.
#[test]
fn child_appends_until_killed() {
    let Some(folder) = std::env::var_os(CHILD) else {
        return;
    };
    let journals = Journals::at(folder.as_ref()).unwrap();
    let opened = journals.open(EPOCH_7, &key(1), 1 << 20, NOW, |_| ());
    let mut journal = opened.unwrap();
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
    let folder = Folder::new();
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
