//! Packets at rest: sealed under a key of their day, which is gone when they have expired.
//!
//! Spec: docs/spec/gateway.md, rules GW-22, GW-23.
//!
//! ```text
//! chain of day 0 ─ step ─▶ chain of day 1 ─ step ─▶ … ─▶ chain of day d ─ key ─▶ key of day d
//! ```
//!
//! | thing    | bytes                    | what                                                    |
//! |----------|--------------------------|---------------------------------------------------------|
//! | day      | 8                        | UTC seconds at which a packet was stored / 86 400        |
//! | chain    | 32                       | HKDF-SHA256 of the chain before it; cannot be run back   |
//! | key      | 32                       | AES-256-GCM, HKDF-SHA256 of its day's chain              |
//! | sealed   | [`SEALED_LEN`]           | nonce (12, random), packet (2396), tag (16)              |
//! | bound to | 48                       | stored-at, mailbox, number: a sealed packet moved        |
//! |          |                          | elsewhere in the database does not open                  |
//!
//! One file in the folder holds a random name of the keys (16) and the chain of the oldest day that
//! may still be read; the file's name is that day. A database says the name of the keys that it is
//! sealed under, so that it is not opened with others, which could read nothing (GW-25). When all
//! packets of a day have expired, the chain of the next day is written, then the old file is
//! overwritten and removed. So a copy of the database, however old, tells nothing of the days
//! before, not even together with the folder as it is now.
//!
//! Not claimed: whoever takes the file *and* the database reads what has not expired, and what
//! comes later (still wrapped for its recipients); disks that keep overwritten blocks keep keys.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use proto::MailboxId;
use sphinx::{PACKET_LEN, Packet};
use zeroize::Zeroizing;

use super::{StoreError, unopened};
use crate::{
    chain::{Secret as Chain, derive, run},
    entropy::seed,
    state::{self, StateError},
};

const DAY_S: u64 = 86_400;
/// A clock that says more than this is wrong (in the year 4707), and no reason to hash for ever.
const DAYS_MAX: u64 = 1_000_000;
const TAG_LEN: usize = 16;
const ID_LEN: usize = 16;
/// Leads from the chain of a day to that of the next.
const NEXT_DAY: &[u8] = b"lacuna mailbox next day";
/// The file by which the operator says that keys are lost for good.
const LOST: &str = "lost";
/// Of a sealed packet.
pub(super) const SEALED_LEN: usize = NONCE_LEN + PACKET_LEN + TAG_LEN;

/// Names the keys of a store; no secret.
pub(super) type KeysId = [u8; ID_LEN];

/// Seals and opens packets; its folder holds the one secret.
pub(super) struct Seal {
    folder: PathBuf,
    id: KeysId,
    /// The oldest day that can be read, and its chain.
    oldest: (u64, Chain),
    /// The day whose chain the folder holds: `oldest`, or one that is to be erased.
    on_disk: u64,
    keys: BTreeMap<u64, RandomizedNonceKey>,
}

/// What tells a packet's place.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) mailbox: &'a MailboxId,
    pub(super) seq: u64,
    pub(super) stored_at_s: u64,
}

impl Place<'_> {
    fn bytes(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[..8].copy_from_slice(&self.stored_at_s.to_be_bytes());
        bytes[8..40].copy_from_slice(&self.mailbox.0);
        bytes[40..].copy_from_slice(&self.seq.to_be_bytes());
        bytes
    }

    fn day(&self) -> u64 {
        self.stored_at_s / DAY_S
    }
}

/// The keys' name and chain in a file; none if it is damaged.
fn read(path: &Path) -> io::Result<Option<(KeysId, Chain)>> {
    let bytes = Zeroizing::new(fs::read(path)?);
    Ok(bytes.split_first_chunk().and_then(|(id, chain)| {
        let chain: [u8; 32] = chain.try_into().ok()?;
        Some((*id, Zeroizing::new(chain)))
    }))
}

fn write(path: &Path, id: &KeysId, chain: &Chain) -> Result<(), StateError> {
    let bytes = Zeroizing::new([id.as_slice(), chain.as_slice()].concat());
    state::write(path, &bytes)
}

impl Seal {
    /// Reads the chain in `folder` (0700). Draws one for a store that is `bound` to none yet, or
    /// whose operator says that its keys are lost.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`]: the folder can't be used, or does not hold the keys of the store.
    pub(super) fn open(folder: &Path, bound: Option<KeysId>) -> Result<Self, StoreError> {
        let shown = folder.display();
        let failed = |error: io::Error| unopened(format!("{shown}: {error}"));
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).map_err(failed)?;
        let mut days = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default();
            days.extend(name.to_string_lossy().parse::<u64>().ok());
            // Killed while it wrote one: a chain from which all later keys would follow.
            if path.extension().is_some_and(|end| end == state::UNFINISHED) {
                state::erase(&path).map_err(unopened)?;
            }
        }
        days.sort_unstable();
        let newest = days.pop();
        let held = newest
            .map(|day| read(&folder.join(day.to_string())))
            .transpose()
            .map_err(failed)?;
        let lost = folder.join(LOST).exists();
        let refuse = |what| {
            Err(unopened(format!(
                "{shown} {what}: put back the folder that belongs to this store; if its keys are lost for good, so are the \
                 packets sealed under them: run `touch {shown}/{LOST}`, start again, and the store \
                 goes on without them"
            )))
        };
        let (day, id, chain) = match (newest.zip(held), bound) {
            (Some((day, Some((id, chain)))), bound)
                if lost || bound.is_none_or(|bound| bound == id) =>
            {
                (day, id, chain)
            }
            (Some((_, Some(_))), _) => return refuse("holds the keys of another store"),
            (Some((_, None)), _) if !lost => return refuse("is damaged"),
            (None, Some(_)) if !lost => return refuse("holds no keys"),
            (None | Some((_, None)), _) => {
                let day = newest.unwrap_or(0);
                let (secret, chain) = (Zeroizing::new(seed()), Zeroizing::new(seed()));
                let id = *secret.first_chunk().expect("32 bytes begin with 16");
                write(&folder.join(day.to_string()), &id, &chain).map_err(unopened)?;
                (day, id, chain)
            }
        };
        // Killed between writing the newer chain and erasing the older one.
        for day in days {
            state::erase(&folder.join(day.to_string())).map_err(unopened)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            id,
            on_disk: day,
            oldest: (day, chain),
            keys: BTreeMap::new(),
        })
    }

    /// What the store must say that it is bound to, durably, before anything is sealed.
    pub(super) fn id(&self) -> KeysId {
        self.id
    }

    /// The store is bound to these keys: what the operator said of former ones is done.
    pub(super) fn bound(&self) -> Result<(), StateError> {
        state::erase(&self.folder.join(LOST))
    }

    fn key(&mut self, day: u64) -> Option<&RandomizedNonceKey> {
        let (oldest, chain) = &self.oldest;
        if !(*oldest..DAYS_MAX).contains(&day) {
            return None;
        }
        Some(self.keys.entry(day).or_insert_with(|| {
            let key = derive(&run(chain, day - oldest, NEXT_DAY), b"lacuna mailbox key");
            RandomizedNonceKey::new(&AES_256_GCM, key.as_slice()).expect("a key of 32 bytes")
        }))
    }

    /// The packet as it is stored; none if its day is over or absurd.
    pub(super) fn seal(&mut self, place: Place<'_>, packet: &Packet) -> Option<Vec<u8>> {
        let key = self.key(place.day())?;
        let mut sealed = Vec::with_capacity(SEALED_LEN);
        sealed.extend_from_slice(&[0; NONCE_LEN]);
        sealed.extend_from_slice(packet);
        let text = &mut sealed[NONCE_LEN..];
        let done = key.seal_in_place_separate_tag(Aad::from(place.bytes()), text);
        let (nonce, tag) = done.ok()?;
        sealed[..NONCE_LEN].copy_from_slice(nonce.as_ref());
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }

    /// The packet again; none if its day is over, or it was not sealed here, for this place.
    pub(super) fn unseal(&mut self, place: Place<'_>, sealed: &[u8]) -> Option<Box<Packet>> {
        let key = self.key(place.day())?;
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut text = text.to_vec();
        let packet = key.open_in_place(nonce, Aad::from(place.bytes()), &mut text);
        Box::<[u8]>::from(&*packet.ok()?).try_into().ok()
    }

    /// Neither seals nor opens what was stored on a day that ended by `before_s`, from now on.
    pub(super) fn forget(&mut self, before_s: u64) {
        let (was, chain) = &self.oldest;
        let day = (before_s / DAY_S).min(DAYS_MAX);
        if day > *was {
            self.oldest = (day, run(chain, day - was, NEXT_DAY));
            self.keys = self.keys.split_off(&day);
        }
    }

    /// Erases from the disk what was forgotten; durable when it returns.
    pub(super) fn erase(&mut self) -> Result<(), StateError> {
        let (day, chain) = &self.oldest;
        if self.on_disk != *day {
            write(&self.folder.join(day.to_string()), &self.id, chain)?;
            state::erase(&self.folder.join(self.on_disk.to_string()))?;
            self.on_disk = *day;
        }
        Ok(())
    }
}

impl core::fmt::Debug for Seal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seal(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: MailboxId = MailboxId([1; 32]);

    fn place(seq: u64, stored_at_s: u64) -> Place<'static> {
        Place {
            mailbox: &ANN,
            seq,
            stored_at_s,
        }
    }

    /// GW-22, GW-23.
    #[test]
    fn a_packet_opens_at_its_place_alone_and_until_its_day_is_erased() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let packet = [7; PACKET_LEN];
        let (today, tomorrow) = (place(1, 20_000 * DAY_S + 5), place(2, 20_001 * DAY_S));
        let mut seal = Seal::open(&path, None).unwrap();
        let old = seal.seal(today, &packet).unwrap();
        let new = seal.seal(tomorrow, &packet).unwrap();
        assert_eq!(old.len(), SEALED_LEN);
        assert!(!old.windows(16).any(|window| window == [7; 16]));
        assert_ne!(old, seal.seal(today, &packet).unwrap(), "nonces repeat");

        // Another process opens both, at their places alone.
        drop(seal);
        let mut seal = Seal::open(&path, None).unwrap();
        assert_eq!(*seal.unseal(today, &old).unwrap(), packet);
        assert!(seal.unseal(place(2, today.stored_at_s), &old).is_none());
        assert!(seal.unseal(today, &new).is_none());

        // A day that has not ended keeps its key; one that has, has none, also after a restart.
        seal.forget(20_001 * DAY_S - 1);
        seal.erase().unwrap();
        assert_eq!(*seal.unseal(today, &old).unwrap(), packet);
        seal.forget(20_001 * DAY_S);
        assert!(
            seal.unseal(today, &old).is_none(),
            "forgotten before it is erased"
        );
        seal.erase().unwrap();
        // Looked at before anything opens the folder again, which would tidy up.
        let left = fs::read_dir(&path).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["20001"]);
        for mut seal in [seal, Seal::open(&path, None).unwrap()] {
            assert!(seal.unseal(today, &old).is_none());
            assert!(seal.seal(today, &packet).is_none());
            assert_eq!(*seal.unseal(tomorrow, &new).unwrap(), packet);
        }
    }

    /// GW-23.
    #[test]
    fn killed_between_its_two_writes_it_keeps_the_newer_chain() {
        let folder = tempfile::tempdir().unwrap();
        let mut seal = Seal::open(folder.path(), None).unwrap();
        let old = fs::read(folder.path().join("0")).unwrap();
        seal.forget(3 * DAY_S);
        seal.erase().unwrap();
        fs::write(folder.path().join("0"), &old).unwrap();
        fs::write(folder.path().join("2.new"), old).unwrap();
        let mut seal = Seal::open(folder.path(), None).unwrap();
        assert!(seal.seal(place(1, 2 * DAY_S), &[0; PACKET_LEN]).is_none());
        let left = fs::read_dir(folder.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["3"]);
    }

    /// GW-25.
    #[test]
    fn keys_that_are_not_the_stores_are_refused_until_they_are_said_to_be_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, lost) = (folder.path().join("keys"), folder.path().join("keys/lost"));
        let packet = [7; PACKET_LEN];
        let mut seal = Seal::open(&path, None).unwrap();
        let first = seal.id();
        let sealed = seal.seal(place(1, 5), &packet).unwrap();
        let refused = |what: &str| {
            let error = Seal::open(&path, Some(first)).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("touch"), "{error}");
        };
        let file = path.join("0");
        let kept = fs::read(&file).unwrap();
        fs::write(&file, b"short").unwrap();
        refused("damaged");
        fs::remove_dir_all(&path).unwrap();
        refused("no keys");
        drop(Seal::open(&path, None).unwrap());
        refused("another store");
        // The folder put back is enough, and nothing of it was touched.
        fs::write(&file, kept).unwrap();
        let mut seal = Seal::open(&path, Some(first)).unwrap();
        assert!(seal.unseal(place(1, 5), &sealed).is_some());

        // Said to be lost: new ones, and the same until the store says that it has taken them.
        for damaged in [true, false] {
            fs::remove_dir_all(&path).unwrap();
            fs::create_dir(&path).unwrap();
            fs::write(&lost, b"").unwrap();
            if damaged {
                fs::write(&file, b"short").unwrap();
            }
            let second = Seal::open(&path, Some(first)).unwrap().id();
            assert_ne!(first, second);
            let mut seal = Seal::open(&path, Some(first)).unwrap();
            assert_eq!(seal.id(), second);
            assert!(seal.unseal(place(1, 5), &sealed).is_none());
            seal.bound().unwrap();
            assert!(!lost.exists());
            refused("another store");
        }
    }
}
