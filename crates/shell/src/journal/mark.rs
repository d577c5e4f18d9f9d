//! What the kernel's memory knows of a journal: it outlives the process, `kill -9` too, ends with the
//! boot, and does not go back when a volume does.
//!
//! | offset | bytes | field                                                             |
//! |--------|-------|-------------------------------------------------------------------|
//! | 0      | 32    | public key of the epoch: another key's mark says nothing          |
//! | 32     | 8     | records that the journal holds at least, big-endian; 2⁶⁴ − 1: burned |
//!
//! Rule RPL-4. A file of 0600 in [`FOLDER`] that belongs to this user. Another user of the machine who
//! puts something else there keeps the key shut, and can't open it.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustix::{fs::OFlags, process::geteuid};
use sphinx::PublicKey;

use crate::state;

/// Files in memory on any Linux.
pub(super) const FOLDER: &str = "/dev/shm";
const KEY: usize = 32;
const LEN: usize = KEY + 8;
const BURNED: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    /// A write that was under way when the disk failed must not take it back.
    burned: Mutex<bool>,
}

impl Mark {
    /// That of the journal for `key`, and how many records it says; none, if it is new.
    ///
    /// # Errors
    ///
    /// If there can be none.
    pub(super) fn open(path: &Path, key: &PublicKey) -> io::Result<(Self, u64)> {
        let of_file = |file| Self {
            file,
            burned: Mutex::default(),
        };
        let opened = || {
            let file = state::in_place()
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(path)?;
            let about = file.metadata()?;
            if about.uid() != geteuid().as_raw() || about.mode() & 0o077 != 0 {
                return Err(io::Error::other("it is another user's; remove it"));
            }
            let mut bytes = [0; LEN];
            // Shorter only before its first write, which is one.
            let read = file.read_at(&mut bytes, 0)?;
            let (of, held) = bytes.split_at(KEY);
            if read == LEN && of == *key.as_bytes() {
                let held = held.first_chunk().copied();
                return Ok((of_file(file), held.map_or(BURNED, u64::from_be_bytes)));
            }
            bytes = [0; LEN];
            bytes[..KEY].copy_from_slice(key.as_bytes());
            file.write_all_at(&bytes, 0)?;
            Ok((of_file(file), 0))
        };
        opened()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// The journal holds so many records.
    ///
    /// # Errors
    ///
    /// If it can't be written, or the key is burned.
    pub(super) fn set(&self, held: u64) -> io::Result<()> {
        let burned = self.burned.lock().unwrap_or_else(PoisonError::into_inner);
        if *burned {
            return Err(io::Error::other("its disk has failed before"));
        }
        self.write(held)
    }

    /// The key must open no more.
    pub(super) fn burn(&self) -> io::Result<()> {
        let mut burned = self.burned.lock().unwrap_or_else(PoisonError::into_inner);
        *burned = true;
        self.write(BURNED)
    }

    fn write(&self, held: u64) -> io::Result<()> {
        self.file.write_all_at(&held.to_be_bytes(), KEY as u64)
    }
}
