//! Mailboxes in one `redb` file: the embedded default.
//!
//! | table      | key                                         | value                        |
//! |------------|---------------------------------------------|------------------------------|
//! | `mailbox`  | mailbox (32)                                | highest number given (u64)   |
//! | `packet`   | mailbox (32), number (8, big-endian)        | stored-at (8), packet (2396) |
//! | `age`      | stored-at (8), mailbox (32), number (8)     | nothing                      |
//!
//! All calls go through one thread, which commits whatever has queued as one transaction
//! (`group`). Counts for each mailbox stand in memory, made from the file at start. Once a transaction
//! fails every later call fails too: what the file holds is then known only after a restart.

use std::{collections::BTreeMap, fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path};

use ::redb::{
    Database, ReadableTable, Table, TableDefinition, WriteTransaction, backends::FileBackend,
};
use proto::{MailboxId, gateway::Kept};
use sphinx::{PACKET_LEN, Packet};

use super::{Answer, MailboxStore, Reply, StoreError, group::Group};

const MAILBOX: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("mailbox");
const PACKET: TableDefinition<'_, [u8; 40], &[u8]> = TableDefinition::new("packet");
const AGE: TableDefinition<'_, [u8; 48], ()> = TableDefinition::new("age");

type Counts = BTreeMap<MailboxId, u64>;

enum Request {
    Register(MailboxId, Answer<()>),
    Put(MailboxId, u64, Box<Packet>, Answer<u64>),
    Peek(MailboxId, u64, usize, Answer<Vec<Kept>>),
    Confirm(MailboxId, u64, Answer<u64>),
    Expire(u64, Answer<Vec<(MailboxId, u64)>>),
    Usage(Answer<Vec<(MailboxId, u64)>>),
}

/// The store. Dropping it carries out what has been asked.
pub struct RedbStore {
    group: Group<Request>,
}

/// Opens a database file that only its owner may read, creating it if there is none.
pub(super) fn open_file(path: &Path) -> Result<Database, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(unopened)?;
    let backend = FileBackend::new(file).map_err(unopened)?;
    Database::builder()
        .create_with_backend(backend)
        .map_err(unopened)
}

pub(super) fn unopened(error: impl std::fmt::Display) -> StoreError {
    StoreError::Open(error.to_string())
}

impl RedbStore {
    /// Opens the file at `path`, creating it (0600) if there is none.
    ///
    /// # Errors
    ///
    /// If it can't be opened: another process has it open, it is no such file, or it is damaged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = open_file(path)?;
        let mut counts = load(&database).map_err(unopened)?;
        let mut broken = false;
        let commit = move |batch| {
            // Answers that are dropped say that the store failed.
            match (!broken).then(|| carry_out(&database, &mut counts, batch)) {
                Some(Ok(answers)) => answers.into_iter().for_each(|answer| answer()),
                Some(Err(why)) => {
                    tracing::error!(%why, "the mailbox store failed");
                    broken = true;
                }
                None => {}
            }
        };
        let group = Group::start("mailbox-store", commit).map_err(unopened)?;
        Ok(Self { group })
    }

    fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Reply<T> {
        Reply::to(|answer| self.group.send(request(answer)))
    }
}

impl MailboxStore for RedbStore {
    fn register(&self, mailbox: MailboxId) -> Reply<()> {
        self.ask(|answer| Request::Register(mailbox, answer))
    }

    fn put(&self, mailbox: MailboxId, stored_at_s: u64, packet: Box<Packet>) -> Reply<u64> {
        self.ask(|answer| Request::Put(mailbox, stored_at_s, packet, answer))
    }

    fn peek(&self, mailbox: MailboxId, after: u64, limit: usize) -> Reply<Vec<Kept>> {
        self.ask(|answer| Request::Peek(mailbox, after, limit, answer))
    }

    fn confirm(&self, mailbox: MailboxId, upto: u64) -> Reply<u64> {
        self.ask(|answer| Request::Confirm(mailbox, upto, answer))
    }

    fn expire(&self, before_s: u64) -> Reply<Vec<(MailboxId, u64)>> {
        self.ask(|answer| Request::Expire(before_s, answer))
    }

    fn usage(&self) -> Reply<Vec<(MailboxId, u64)>> {
        self.ask(Request::Usage)
    }
}

/// Gives an answer; called once the transaction is durable.
type Deferred = Box<dyn FnOnce()>;

fn defer<T: 'static>(answer: Answer<T>, result: Result<T, StoreError>) -> Deferred {
    Box::new(move || {
        // Whoever asked may have stopped waiting.
        let _ = answer.send(result);
    })
}

/// Carries out a batch in one durable transaction; on failure none of it has happened.
fn carry_out(
    database: &Database,
    counts: &mut Counts,
    batch: Vec<Request>,
) -> Result<Vec<Deferred>, ::redb::Error> {
    let transaction = database.begin_write()?;
    let mut tables = Tables::open(&transaction)?;
    let serve = |request| tables.serve(counts, request);
    let answers = batch.into_iter().map(serve).collect::<Result<_, _>>()?;
    drop(tables);
    transaction.commit()?;
    Ok(answers)
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

/// When a value was stored, and its packet; `None` for a value that no version of this file wrote.
fn parse(value: &[u8]) -> Option<(u64, Box<Packet>)> {
    let (stored_at, packet) = value.split_first_chunk::<8>()?;
    let packet = Box::<[u8]>::from(packet).try_into().ok()?;
    Some((u64::from_be_bytes(*stored_at), packet))
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, ::redb::Error> {
        Ok(Self {
            mailbox: transaction.open_table(MAILBOX)?,
            packet: transaction.open_table(PACKET)?,
            age: transaction.open_table(AGE)?,
        })
    }

    fn serve(&mut self, counts: &mut Counts, request: Request) -> Result<Deferred, ::redb::Error> {
        Ok(match request {
            Request::Register(mailbox, answer) => {
                if self.mailbox.get(mailbox.0)?.is_none() {
                    self.mailbox.insert(mailbox.0, 0)?;
                    counts.insert(mailbox, 0);
                }
                defer(answer, Ok(()))
            }
            Request::Put(mailbox, stored_at_s, packet, answer) => {
                let seq = self.put(mailbox, stored_at_s, &packet)?;
                if seq.is_some() {
                    *counts.entry(mailbox).or_default() += 1;
                }
                defer(answer, seq.ok_or(StoreError::NoMailbox))
            }
            Request::Peek(mailbox, after, limit, answer) => {
                defer(answer, Ok(self.peek(&mailbox, after, limit)?))
            }
            Request::Confirm(mailbox, upto, answer) => {
                let gone = self.confirm(&mailbox, upto)?;
                if let Some(count) = counts.get_mut(&mailbox) {
                    *count = count.saturating_sub(gone);
                }
                defer(answer, Ok(gone))
            }
            Request::Expire(before_s, answer) => {
                let gone = self.expire(before_s)?;
                for (mailbox, gone) in &gone {
                    if let Some(count) = counts.get_mut(mailbox) {
                        *count = count.saturating_sub(*gone);
                    }
                }
                defer(answer, Ok(gone.into_iter().collect()))
            }
            Request::Usage(answer) => {
                defer(answer, Ok(counts.iter().map(|(&m, &n)| (m, n)).collect()))
            }
        })
    }

    fn put(
        &mut self,
        mailbox: MailboxId,
        stored_at_s: u64,
        packet: &Packet,
    ) -> Result<Option<u64>, ::redb::Error> {
        let Some(highest) = self.mailbox.get(mailbox.0)?.map(|highest| highest.value()) else {
            return Ok(None);
        };
        let seq = highest + 1;
        self.mailbox.insert(mailbox.0, seq)?;
        let key = packet_key(&mailbox, seq);
        let mut value = Vec::with_capacity(8 + PACKET_LEN);
        value.extend_from_slice(&stored_at_s.to_be_bytes());
        value.extend_from_slice(packet);
        self.packet.insert(key, value.as_slice())?;
        self.age.insert(age_key(stored_at_s, &key), ())?;
        Ok(Some(seq))
    }

    fn peek(
        &self,
        mailbox: &MailboxId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Kept>, ::redb::Error> {
        let from = packet_key(mailbox, after.saturating_add(1));
        let to = packet_key(mailbox, u64::MAX);
        let mut kept = Vec::new();
        for entry in self.packet.range(from..to)?.take(limit) {
            let (key, value) = entry?;
            if let Some((stored_at_s, packet)) = parse(value.value()) {
                let (_, seq) = split(&key.value());
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
        for entry in self.packet.extract_from_if(range, |_, _| true)? {
            let (key, value) = entry?;
            if let Some((stored_at_s, _)) = parse(value.value()) {
                self.age.remove(age_key(stored_at_s, &key.value()))?;
            }
            gone += 1;
        }
        Ok(gone)
    }

    fn expire(&mut self, before_s: u64) -> Result<Counts, ::redb::Error> {
        let mut gone = Counts::new();
        let old = ..age_key(before_s, &[0; 40]);
        for entry in self.age.extract_from_if(old, |_, ()| true)? {
            let key = entry?.0.value();
            let packet: [u8; 40] = *key.last_chunk().expect("48 bytes end in 40");
            self.packet.remove(packet)?;
            *gone.entry(split(&packet).0).or_default() += 1;
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn it_conforms() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mailboxes.redb");
        super::super::conformance(|| RedbStore::open(&path).unwrap()).await;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn two_processes_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mailboxes.redb");
        let first = RedbStore::open(&path).unwrap();
        let second = RedbStore::open(&path);
        assert!(matches!(second, Err(StoreError::Open(_))));
        drop(first);
        RedbStore::open(&path).unwrap();
    }
}
