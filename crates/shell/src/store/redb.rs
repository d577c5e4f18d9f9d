//! Mailboxes in one `redb` file: the embedded default.
//!
//! | table      | key                                         | value                        |
//! |------------|---------------------------------------------|------------------------------|
//! | `mailbox`  | mailbox (32)                                | its highest number (u64)     |
//! | `sealed`   | mailbox (32), number (8, big-endian)        | stored-at (8), sealed (2424) |
//! | `age`      | stored-at (8), mailbox (32), number (8)     | nothing                      |
//! | `keys`     | nothing                                     | name of its keys (16)        |
//!
//! Spec: docs/spec/gateway.md, rules GW-10, GW-21 to GW-25, GW-32.
//!
//! A batch of calls is one transaction (`calls`). Counts for each mailbox stand in memory, made from
//! the file at start. What is sealed, and how its keys end: `seal`. A file of the former form keeps
//! packets unsealed in a table `packet`; opening it seals them (GW-24).

use std::{collections::BTreeMap, path::Path};

use ::redb::{
    Database, ReadableTable, Table, TableDefinition, TableHandle, WriteTransaction,
    backends::FileBackend,
};
use proto::{
    MailboxId,
    gateway::{Kept, Numbers},
};
use sphinx::Packet;

use super::{
    Mailboxes, StoreError,
    calls::{Outcome, Request},
    seal::{KeysId, Place, SEALED_LEN, Seal},
    unopened,
};
use crate::state::{StateError, in_place};

const MAILBOX: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("mailbox");
const PACKET: TableDefinition<'_, [u8; 40], &[u8]> = TableDefinition::new("sealed");
/// Of the former form: stored-at (8), packet (2396).
const UNSEALED: TableDefinition<'_, [u8; 40], &[u8]> = TableDefinition::new("packet");
const AGE: TableDefinition<'_, [u8; 48], ()> = TableDefinition::new("age");
const KEYS: TableDefinition<'_, (), KeysId> = TableDefinition::new("keys");

type Counts = BTreeMap<MailboxId, u64>;

/// Opens a database file that only its owner may read, creating it if there is none.
pub(super) fn open_file(path: &Path) -> Result<Database, StoreError> {
    let file = in_place().open(path).map_err(unopened)?;
    let backend = FileBackend::new(file).map_err(unopened)?;
    Database::builder()
        .create_with_backend(backend)
        .map_err(unopened)
}

/// Opens the file at `path`, creating it (0600) if there is none, with room for `quota` packets in
/// each mailbox, and with the day keys in the folder `keys`.
///
/// # Errors
///
/// If it can't be opened: another process has it open, it is no such file, or it is damaged; or
/// `keys` does not hold the keys that it is sealed under.
pub fn open(path: &Path, keys: &Path, quota: u64) -> Result<Mailboxes, StoreError> {
    let mut database = open_file(path)?;
    let mut seal = Seal::open(keys, bound(&database).map_err(unopened)?)?;
    bind(&database, seal.id()).map_err(unopened)?;
    seal.bound().map_err(unopened)?;
    if seal_former(&database, &mut seal).map_err(unopened)? {
        // Unsealed copies stand in pages that are free now. The empty table goes last, so that
        // whoever is killed before begins again.
        database.compact().map_err(unopened)?;
        forget_former(&database).map_err(unopened)?;
    }
    let counts = load(&database).map_err(unopened)?;
    let mut engine = Engine {
        database,
        counts,
        numbers: Numbers::default(),
        seal,
        quota,
    };
    Mailboxes::start(false, move |batch: &[Request]| engine.carry_out(batch))
}

struct Engine {
    database: Database,
    counts: Counts,
    numbers: Numbers,
    seal: Seal,
    quota: u64,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Engine(#[from] ::redb::Error),
    #[error(transparent)]
    Keys(#[from] StateError),
}

impl Engine {
    /// Carries out a batch in one durable transaction; on failure none of it has happened.
    fn carry_out(&mut self, batch: &[Request]) -> Result<Vec<Outcome>, Failure> {
        let outcomes = self.commit(batch)?;
        // GW-23: their packets are gone; now the keys of their days.
        self.seal.erase()?;
        Ok(outcomes)
    }

    fn commit(&mut self, batch: &[Request]) -> Result<Vec<Outcome>, ::redb::Error> {
        let transaction = self.database.begin_write()?;
        let mut work = Work {
            tables: Tables::open(&transaction)?,
            counts: &mut self.counts,
            numbers: &mut self.numbers,
            seal: &mut self.seal,
            quota: self.quota,
        };
        let outcomes = batch.iter().map(|request| work.serve(request));
        let outcomes = outcomes.collect::<Result<_, _>>()?;
        drop(work);
        transaction.commit()?;
        Ok(outcomes)
    }
}

/// GW-25: which keys the packets are sealed under.
fn bound(database: &Database) -> Result<Option<KeysId>, ::redb::Error> {
    let transaction = database.begin_write()?;
    let bound = transaction.open_table(KEYS)?.get(())?.map(|id| id.value());
    transaction.commit()?;
    Ok(bound)
}

fn bind(database: &Database, id: KeysId) -> Result<(), ::redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(KEYS)?.insert((), id)?;
    transaction.commit()?;
    Ok(())
}

/// GW-24: seals the packets of a file of the former form, and says whether it is one.
fn seal_former(database: &Database, seal: &mut Seal) -> Result<bool, ::redb::Error> {
    let transaction = database.begin_write()?;
    let former = |table: ::redb::UntypedTableHandle| table.name() == UNSEALED.name();
    if !transaction.list_tables()?.any(former) {
        return Ok(false);
    }
    {
        let mut former = transaction.open_table(UNSEALED)?;
        let mut tables = Tables::open(&transaction)?;
        for entry in former.iter()? {
            let (key, value) = entry?;
            let key = key.value();
            let (mailbox, seq) = split(&key);
            let sealed = parse(value.value()).and_then(|(stored_at_s, packet)| {
                let place = Place {
                    mailbox: &mailbox,
                    seq,
                    stored_at_s,
                };
                let sealed = seal.seal(place, packet.try_into().ok()?)?;
                Some((stored_at_s, sealed))
            });
            if let Some((stored_at_s, sealed)) = sealed {
                tables
                    .packet
                    .insert(key, value_of(stored_at_s, &sealed).as_slice())?;
            }
        }
        former.retain(|_, _| false)?;
    }
    transaction.commit()?;
    Ok(true)
}

fn forget_former(database: &Database) -> Result<(), ::redb::Error> {
    let transaction = database.begin_write()?;
    transaction.delete_table(UNSEALED)?;
    transaction.commit()?;
    Ok(())
}

fn load(database: &Database) -> Result<Counts, ::redb::Error> {
    let transaction = database.begin_write()?;
    let mut counts = Counts::new();
    {
        let tables = Tables::open(&transaction)?;
        for entry in tables.mailbox.iter()? {
            counts.insert(MailboxId(entry?.0.value()), 0);
        }
        for entry in tables.packet.iter()? {
            let (mailbox, _) = split(&entry?.0.value());
            *counts.entry(mailbox).or_default() += 1;
        }
    }
    transaction.commit()?;
    Ok(counts)
}

struct Tables<'t> {
    mailbox: Table<'t, [u8; 32], u64>,
    packet: Table<'t, [u8; 40], &'static [u8]>,
    age: Table<'t, [u8; 48], ()>,
}

fn packet_key(mailbox: &MailboxId, seq: u64) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(&mailbox.0);
    key[32..].copy_from_slice(&seq.to_be_bytes());
    key
}

fn split(key: &[u8; 40]) -> (MailboxId, u64) {
    let (mailbox, seq) = key.split_at(32);
    let mailbox = mailbox.try_into().expect("32 of 40 bytes");
    let seq = seq.try_into().expect("the other 8");
    (MailboxId(mailbox), u64::from_be_bytes(seq))
}

fn age_key(stored_at_s: u64, packet: &[u8; 40]) -> [u8; 48] {
    let mut key = [0; 48];
    key[..8].copy_from_slice(&stored_at_s.to_be_bytes());
    key[8..].copy_from_slice(packet);
    key
}

/// When a value was stored, and its sealed packet; `None` for what no version of this file wrote.
fn parse(value: &[u8]) -> Option<(u64, &[u8])> {
    let (stored_at, sealed) = value.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*stored_at), sealed))
}

/// What [`parse`] takes apart.
fn value_of(stored_at_s: u64, sealed: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(8 + SEALED_LEN);
    value.extend_from_slice(&stored_at_s.to_be_bytes());
    value.extend_from_slice(sealed);
    value
}

/// One transaction under way.
struct Work<'t> {
    tables: Tables<'t>,
    counts: &'t mut Counts,
    numbers: &'t mut Numbers,
    seal: &'t mut Seal,
    quota: u64,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, ::redb::Error> {
        Ok(Self {
            mailbox: transaction.open_table(MAILBOX)?,
            packet: transaction.open_table(PACKET)?,
            age: transaction.open_table(AGE)?,
        })
    }
}

impl Work<'_> {
    fn serve(&mut self, request: &Request) -> Result<Outcome, ::redb::Error> {
        Ok(match request {
            Request::Register(mailbox, _) => {
                if self.tables.mailbox.get(mailbox.0)?.is_none() {
                    self.tables.mailbox.insert(mailbox.0, 0)?;
                    self.counts.insert(*mailbox, 0);
                }
                Outcome::Registered
            }
            Request::Put(mailbox, stored_at_s, packet, _) => {
                Outcome::Put(self.put(mailbox, *stored_at_s, packet)?)
            }
            Request::Peek(mailbox, after, limit, _) => {
                Outcome::Peeked(self.peek(mailbox, *after, *limit)?)
            }
            Request::Confirm(mailbox, upto, _) => {
                let gone = self.confirm(mailbox, *upto)?;
                self.less(mailbox, gone);
                Outcome::Confirmed(gone)
            }
            Request::Expire(before_s, _) => {
                let gone = self.expire(*before_s)?;
                self.seal.forget(*before_s);
                gone.iter()
                    .for_each(|(mailbox, gone)| self.less(mailbox, *gone));
                Outcome::Counts(gone.into_iter().collect())
            }
            Request::Usage(_) => {
                Outcome::Counts(self.counts.iter().map(|(&m, &n)| (m, n)).collect())
            }
            Request::Open(..) | Request::Changes(_) => unreachable!("nobody shares the file"),
        })
    }

    fn less(&mut self, mailbox: &MailboxId, gone: u64) {
        if let Some(count) = self.counts.get_mut(mailbox) {
            *count = count.saturating_sub(gone);
        }
    }

    fn put(
        &mut self,
        mailbox: &MailboxId,
        stored_at_s: u64,
        packet: &Packet,
    ) -> Result<Result<u64, StoreError>, ::redb::Error> {
        let tables = &mut self.tables;
        let highest = tables
            .mailbox
            .get(mailbox.0)?
            .map(|highest| highest.value());
        let (Some(highest), Some(count)) = (highest, self.counts.get_mut(mailbox)) else {
            return Ok(Err(StoreError::NoMailbox));
        };
        // GW-10
        if *count >= self.quota {
            return Ok(Err(StoreError::Full));
        }
        let seq = self.numbers.next(highest, stored_at_s);
        let place = Place {
            mailbox,
            seq,
            stored_at_s,
        };
        let Some(sealed) = self.seal.seal(place, packet) else {
            return Ok(Err(StoreError::TooOld));
        };
        *count += 1;
        let highest = Numbers::highest(seq, *count >= self.quota);
        tables.mailbox.insert(mailbox.0, highest)?;
        let key = packet_key(mailbox, seq);
        tables
            .packet
            .insert(key, value_of(stored_at_s, &sealed).as_slice())?;
        tables.age.insert(age_key(stored_at_s, &key), ())?;
        Ok(Ok(seq))
    }

    fn peek(
        &mut self,
        mailbox: &MailboxId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Kept>, ::redb::Error> {
        let from = packet_key(mailbox, after.saturating_add(1));
        let to = packet_key(mailbox, u64::MAX);
        let mut kept = Vec::new();
        for entry in self.tables.packet.range(from..to)? {
            if kept.len() == limit {
                break;
            }
            let (key, value) = entry?;
            let (_, seq) = split(&key.value());
            let opened = parse(value.value()).and_then(|(stored_at_s, sealed)| {
                let place = Place {
                    mailbox,
                    seq,
                    stored_at_s,
                };
                Some((stored_at_s, self.seal.unseal(place, sealed)?))
            });
            // What doesn't open hides nothing behind it.
            if let Some((stored_at_s, packet)) = opened {
                kept.push(Kept {
                    seq,
                    stored_at_s,
                    packet,
                });
            }
        }
        Ok(kept)
    }

    fn confirm(&mut self, mailbox: &MailboxId, upto: u64) -> Result<u64, ::redb::Error> {
        let range = packet_key(mailbox, 0)..=packet_key(mailbox, upto);
        let mut gone = 0;
        for entry in self.tables.packet.extract_from_if(range, |_, _| true)? {
            let (key, value) = entry?;
            if let Some((stored_at_s, _)) = parse(value.value()) {
                self.tables.age.remove(age_key(stored_at_s, &key.value()))?;
            }
            gone += 1;
        }
        Ok(gone)
    }

    fn expire(&mut self, before_s: u64) -> Result<Counts, ::redb::Error> {
        let mut gone = Counts::new();
        let old = ..age_key(before_s, &[0; 40]);
        for entry in self.tables.age.extract_from_if(old, |_, ()| true)? {
            let key = entry?.0.value();
            let packet: [u8; 40] = *key.last_chunk().expect("48 bytes end in 40");
            if self.tables.packet.remove(packet)?.is_some() {
                *gone.entry(split(&packet).0).or_default() += 1;
            }
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MailboxStore, conformance};
    use std::os::unix::fs::PermissionsExt;

    fn opened(folder: &Path) -> Mailboxes {
        let (file, keys) = (folder.join("mailboxes.redb"), folder.join("keys"));
        open(&file, &keys, conformance::QUOTA).unwrap()
    }

    /// GW-10, GW-21, GW-23, GW-32.
    #[tokio::test]
    async fn it_conforms() {
        let folder = tempfile::tempdir().unwrap();
        conformance::alone(|| opened(folder.path())).await;
        let file = folder.path().join("mailboxes.redb");
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        conformance::many_putters([&store, &store]).await;
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        conformance::numbers(|which| opened(folders[which].path())).await;
    }

    /// Not a test by itself: the process that `what_was_answered_survives_a_kill` kills.
    #[tokio::test]
    async fn child_puts_until_killed() {
        if let Some(folder) = std::env::var_os(conformance::CHILD) {
            conformance::put_until_killed(&opened(Path::new(&folder))).await;
        }
    }

    /// GW-21.
    #[tokio::test]
    async fn what_was_answered_survives_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let seen = conformance::kill_a_putter(
            "store::redb::tests::child_puts_until_killed",
            folder.path().as_os_str(),
        );
        conformance::holds_all(&opened(folder.path()), seen).await;
    }

    /// GW-22, GW-23.
    #[tokio::test]
    async fn a_copied_database_does_not_open_after_its_day() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.redb");
        let store = opened(folder.path());
        conformance::fill_a_day(&store).await;
        drop(store);
        std::fs::copy(folder.path().join("mailboxes.redb"), &copy).unwrap();
        assert!(!holds_unsealed(&copy));
        let copied = || open(&copy, &folder.path().join("keys"), 9).unwrap();
        conformance::day_opens(&copied(), true).await; // positive control: the key is there still
        let store = opened(folder.path());
        store.expire(conformance::NEXT_DAY_S).await.unwrap();
        drop(store);
        conformance::day_opens(&copied(), false).await;
    }

    /// Whether the bytes of a packet of [`conformance::fill_a_day`] stand in the file.
    fn holds_unsealed(file: &Path) -> bool {
        let bytes = std::fs::read(file).unwrap();
        bytes.windows(256).any(|window| window == [1; 256])
    }

    /// GW-24: also when the first start was killed before the file was rewritten.
    #[tokio::test]
    async fn a_file_of_the_former_form_is_sealed_when_it_is_opened() {
        const PACKETS: u64 = 300;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mailboxes.redb");
        let mailbox = MailboxId([1; 32]);
        let days = [conformance::DAY_S, conformance::NEXT_DAY_S];
        let stored = (1..=PACKETS).map(|seq| (seq, days[usize::from(seq > 100)]));
        let database = open_file(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut former = transaction.open_table(UNSEALED).unwrap();
            let mut tables = Tables::open(&transaction).unwrap();
            tables.mailbox.insert(mailbox.0, PACKETS + 9).unwrap();
            for (seq, stored_at_s) in stored.clone() {
                let key = packet_key(&mailbox, seq);
                let value = value_of(stored_at_s, &[1; sphinx::PACKET_LEN]);
                former.insert(key, value.as_slice()).unwrap();
                tables.age.insert(age_key(stored_at_s, &key), ()).unwrap();
            }
        }
        transaction.commit().unwrap();
        let mut seal = Seal::open(&folder.path().join("keys"), None).unwrap();
        assert!(seal_former(&database, &mut seal).unwrap());
        drop((database, seal));
        assert!(
            holds_unsealed(&file),
            "positive control: killed before it is rewritten"
        );

        drop(opened(folder.path()));
        assert!(!holds_unsealed(&file));
        let mut seal = Seal::open(&folder.path().join("keys"), None).unwrap();
        let again = seal_former(&open_file(&file).unwrap(), &mut seal);
        assert!(!again.unwrap(), "rewritten once, not at every start");
        let store = opened(folder.path());
        let kept = store.peek(mailbox, 0, usize::MAX).await.unwrap();
        let found = kept.iter().map(|kept| (kept.seq, kept.stored_at_s));
        assert!(found.eq(stored));
        assert!(
            kept.iter()
                .all(|kept| *kept.packet == [1; sphinx::PACKET_LEN])
        );
        assert_eq!(store.expire(days[1]).await.unwrap(), [(mailbox, 100)]);
        let next = store.put(mailbox, days[1], Box::new([2; sphinx::PACKET_LEN]));
        assert!(next.await.unwrap() > PACKETS + 9, "numbers go on");
    }

    /// GW-22, GW-25: keys that are gone are asked for; said to be lost, what they sealed neither
    /// shows nor hides what came later.
    #[tokio::test]
    async fn what_does_not_open_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        conformance::fill_a_day(&opened(folder.path())).await;
        let (file, keys) = (
            folder.path().join("mailboxes.redb"),
            folder.path().join("keys"),
        );
        std::fs::remove_dir_all(&keys).unwrap();
        let refused = open(&file, &keys, 1);
        assert!(matches!(refused, Err(StoreError::Open(why)) if why.contains("touch")));
        std::fs::write(keys.join("lost"), b"").unwrap();
        drop(opened(folder.path()));
        let store = opened(folder.path()); // it is bound to the new keys
        let mailbox = MailboxId([1; 32]);
        let put = store.put(
            mailbox,
            conformance::NEXT_DAY_S,
            Box::new([2; sphinx::PACKET_LEN]),
        );
        let seq = put.await.unwrap();
        let kept = store.peek(mailbox, 0, 1).await.unwrap();
        assert_eq!((kept.len(), kept[0].seq), (1, seq));
    }

    #[tokio::test]
    async fn two_processes_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mailboxes.redb");
        let keys = folder.path().join("keys");
        let first = open(&path, &keys, 1).unwrap();
        let second = open(&path, &keys, 1);
        assert!(matches!(second, Err(StoreError::Open(_))));
        drop(first);
        open(&path, &keys, 1).unwrap();
    }
}
