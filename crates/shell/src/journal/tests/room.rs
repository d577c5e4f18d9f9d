//! What a journal takes of the disk, and what it does where there is none.

use std::os::{fd::AsRawFd, unix::fs::symlink};

use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstatvfs, memfd_create,
    },
    io::Errno,
};

use super::*;

/// Space is taken before it is needed, and a file that lost some of it is burned.
#[test]
fn a_journal_takes_space_ahead() {
    for (left, keeps) in [(8, true), (7, false)] {
        let folder = Folder::new();
        let (mut journal, _) = open(&folder, BOOT_A).unwrap();
        let len = || fs::metadata(path(&folder)).unwrap().len();
        journal.file.set_len(place(4)).unwrap();
        journal.append(&[fingerprint(1), fingerprint(2)]).unwrap();
        journal.sync(NOW)().unwrap();
        assert_eq!(len(), place(4), "half of it is left");
        journal.append(&[fingerprint(3)]).unwrap();
        journal.sync(NOW)().unwrap();
        assert_eq!(len(), place(8));
        drop(journal);
        let file = OpenOptions::new().write(true).open(path(&folder));
        file.unwrap().set_len(place(left)).unwrap();
        assert_eq!(open(&folder, BOOT_A).is_ok(), keeps, "{left}");
    }
}

/// A disk without space ahead burns nothing: what was appended is there.
#[test]
fn no_space_ahead_is_told_and_burns_nothing() {
    let folder = Folder::new();
    let (mut journal, _) = open(&folder, BOOT_A).unwrap();
    journal.append(&[fingerprint(1)]).unwrap();
    journal.capacity = 1 << 60;
    journal.sync(NOW)().unwrap();
    journal.held.count = 1 << 59; // more than any file system has
    for _asked_again in 0..2 {
        let result = journal.sync(NOW)();
        assert!(matches!(result, Err(JournalError::NoSpace(_))));
    }
    drop(journal);
    let (_, known) = open(&folder, BOOT_A).unwrap();
    assert_eq!(known, [fingerprint(1)]);
}

/// A disk that has not as much as is wanted gives what is enough for now.
#[test]
fn where_space_is_short_it_takes_less() {
    let folder = Folder::new();
    let (mut journal, _) = open(&folder, BOOT_A).unwrap();
    let disk = fstatvfs(&journal.file).unwrap();
    // Longer than the disk has space, without taking any.
    let room = disk.f_bavail * disk.f_frsize / RECORD as u64 + space::FIRST_ROOM;
    journal.file.set_len(place(room)).unwrap();
    journal.capacity = 1 << 60;
    for short in [0, 1000, 2000] {
        journal.held.count = room - space::FIRST_ROOM + short;
        journal.sync(NOW)().unwrap();
        assert_eq!(space::room(&journal.file).unwrap(), room + short);
    }
}

/// Zeros go behind the records that came meanwhile, and not over them.
#[test]
fn zeros_meet_no_record() {
    let folder = Folder::new();
    let (mut journal, _) = open_for(&folder, 4, BOOT_A, NOW).unwrap();
    let room = space::room(&journal.file).unwrap();
    journal.capacity = room + 2;
    let all: Vec<_> = (0..room + 2).map(fingerprint).collect();
    journal.append(&all).unwrap(); // beyond what it had taken
    let more = PIECE + 5;
    space::append_zeros(&journal.file, more as u64).unwrap();
    let len = fs::metadata(path(&folder)).unwrap().len();
    assert_eq!(len, place(room + 2) + more as u64);
    drop(journal);
    assert_eq!(open(&folder, BOOT_A).unwrap().1, all);
}

const RAMFS: &str = "LACUNA_JOURNAL_TEST_RAMFS";

/// Not a test by itself: what `a_file_system_that_takes_no_space_is_given_zeros` runs on one.
#[test]
fn child_keeps_a_journal() {
    let Some(there) = std::env::var_os(RAMFS) else {
        return;
    };
    let journals = Journals::at(there.as_ref()).unwrap();
    let open = || journals.open(EPOCH_7, &key(1), 1000, NOW, |_| ());
    let mut journal = open().unwrap();
    assert_eq!(
        fallocate(&journal.file, FallocateFlags::empty(), 0, place(2000)),
        Err(Errno::OPNOTSUPP)
    );
    assert_eq!(space::room(&journal.file).unwrap(), 1000);
    journal.append(&[fingerprint(1)]).unwrap();
    (journal.held.count, journal.capacity) = (501, 10_000);
    journal.sync(NOW)().unwrap();
    assert_eq!(space::room(&journal.file).unwrap(), 2000);
    drop(journal);
    assert_eq!(open().unwrap().held.count, 1);
    journals.erase(EPOCH_7).unwrap();
}

/// A mix on a file system without `fallocate` has keys, too.
#[test]
fn a_file_system_that_takes_no_space_is_given_zeros() {
    let folder = tempdir().unwrap();
    let mount = "mount -t ramfs none \"$0\" || exit 100; exec \"$@\"";
    let ran = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", mount])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["journal::tests::room::child_keeps_a_journal", "--exact"])
        .env(RAMFS, folder.path())
        .output();
    match ran {
        // There is no `unshare`, or neither it nor `mount` may do that here.
        Err(why) => eprintln!("skipped: a ramfs can't be mounted: {why}"),
        Ok(ran) if matches!(ran.status.code(), Some(1 | 100)) => {
            eprintln!("skipped: a ramfs can't be mounted: {ran:?}");
        }
        Ok(ran) => {
            let said = String::from_utf8_lossy(&ran.stdout);
            assert!(said.contains("1 passed"), "{ran:?}");
        }
    }
}

/// A journal that has room opens although the disk gives no more; one that has none does not, for now.
/// The control is a disk that gives some.
#[test]
fn a_journal_that_has_room_opens_without_more() {
    for (held, gives, opens) in [(400, false, true), (1000, false, false), (1000, true, true)] {
        let folder = Folder::new();
        let all: Vec<_> = (0..held).map(fingerprint).collect();
        let (mut journal, _) = open(&folder, BOOT_A).unwrap();
        journal.append(&all).unwrap();
        journal.close(NOW).unwrap();
        // A file that can't grow, in its place.
        let fixed = File::from(memfd_create("journal", MemfdFlags::ALLOW_SEALING).unwrap());
        fixed
            .write_all_at(&fs::read(path(&folder)).unwrap(), 0)
            .unwrap();
        if !gives {
            fcntl_add_seals(&fixed, SealFlags::GROW).unwrap();
        }
        fs::remove_file(path(&folder)).unwrap();
        let there = format!("/proc/self/fd/{}", fixed.as_raw_fd());
        symlink(there, path(&folder)).unwrap();
        for _ in 0..2 {
            match open_for(&folder, 1 << 20, BOOT_A, NOW) {
                Ok((_, found)) => assert!(opens && found == all, "{held}"),
                Err(JournalError::NoSpace(_)) => assert!(!opens, "{held}"),
                Err(why) => panic!("{held}: {why}"),
            }
        }
    }
}
