//! What a journal takes of the disk, and what it does where there is none.

use std::os::{fd::AsRawFd, unix::fs::symlink};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstatvfs, memfd_create};

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
