//! The disk's space that a journal takes ahead of its records.
//!
//! | when                       | room, records                                                  |
//! |----------------------------|----------------------------------------------------------------|
//! | opened                     | twice what it holds, at least [`FIRST_ROOM`]                   |
//! | more than half of it used  | twice as much                                                  |
//! | the disk has not so much   | [`FIRST_ROOM`] beyond what it holds; asked again at each sync  |
//!
//! A file system that can't take space (ramfs, NFSv3, some of ZFS and FUSE) is given zeros, as
//! `posix_fallocate` does. Never more than its capacity. The file's length says how much is taken: only what was taken, or
//! written, makes it longer.

use std::{
    fs::File,
    io::{self, IoSlice},
};

use rustix::{
    fs::{FallocateFlags, fallocate, fstatvfs},
    io::{Errno, ReadWriteFlags, pwritev2},
};

use super::{PIECE, RECORD, RECORDS, place};

/// 16 MB, and more than come between two syncs.
pub(super) const FIRST_ROOM: u64 = 2_000_000;

/// How many records the file has room for.
pub(super) fn room(file: &File) -> io::Result<u64> {
    let bytes = file.metadata()?.len().saturating_sub(RECORDS as u64);
    Ok(bytes / RECORD as u64)
}

/// Takes what a journal that is opened needs.
///
/// # Errors
///
/// If there is not so much, and not [`FIRST_ROOM`] either.
pub(super) fn at_first(file: &File, held: u64, capacity: u64) -> io::Result<()> {
    take_some(file, FIRST_ROOM.max(2 * held), held, capacity)
}

/// Takes more if half of what there is, is used; whether it did.
///
/// # Errors
///
/// As [`at_first`].
pub(super) fn ahead(file: &File, held: u64, capacity: u64) -> io::Result<bool> {
    let room = room(file)?;
    let needs = held > room / 2 && room < capacity;
    if needs {
        take_some(file, 2 * room.max(held), held, capacity)?;
    }
    Ok(needs)
}

fn take_some(file: &File, wanted: u64, held: u64, capacity: u64) -> io::Result<()> {
    let take = |records: u64| take(file, place(records.min(capacity)));
    take(wanted).or_else(|_| take(held + FIRST_ROOM))
}

/// Makes the file so many bytes long, if it is not, of space that is its own.
fn take(file: &File, bytes: u64) -> io::Result<()> {
    let (has, disk) = (file.metadata()?.len(), fstatvfs(file)?);
    let more = bytes.saturating_sub(has);
    // What is asked for in vain may fill the disk: ext4 keeps what it found.
    if more > disk.f_bavail.saturating_mul(disk.f_frsize) && disk.f_blocks > 0 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    if more == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), has, more) {
        Err(Errno::OPNOTSUPP) => append_zeros(file, more),
        taken => Ok(taken?),
    }
}

/// Appends so many zeros, each piece where the file then ends: it meets no record that a thread of packets
/// appends meanwhile.
pub(super) fn append_zeros(file: &File, mut bytes: u64) -> io::Result<()> {
    let zeros = [0; PIECE];
    while bytes > 0 {
        let piece = usize::try_from(bytes).map_or(PIECE, |bytes| bytes.min(PIECE));
        match pwritev2(
            file,
            &[IoSlice::new(&zeros[..piece])],
            0,
            ReadWriteFlags::APPEND,
        ) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes -= written as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
