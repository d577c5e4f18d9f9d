//! A client's durable records: opaque keys and values in one `redb` file.
//!
//! The client machine decides what stands in them ([`proto::client`]); here they are only kept. A
//! transaction is applied whole or not at all, transactions are applied in the order in which they
//! are made, and the reply comes once the transaction is durable. Once one fails every later one
//! fails too.
//!
//! An engine leaves what was deleted in pages that it will use again some day. So a transaction with
//! [`Op::Erase`] writes the file anew: the records that stay, with the transaction applied, go into a
//! file beside it, which then takes its place, and the one before is overwritten with zeros.
//!
//! | step | file       | `.new`     | `.old`     | after a crash, [`Records::open`]                |
//! |------|------------|------------|------------|-------------------------------------------------|
//! | 1    | before     | partly     |            | erases `.new`: the transaction was not applied  |
//! | 2    |            | durable    | before     | goes on with step 3: it was                     |
//! | 3    | durable    |            | before     | erases `.old`                                   |

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ::redb::{Database, ReadableTable, TableDefinition};
use proto::client::Op;
use zeroize::Zeroizing;

use super::{Answer, Reply, StoreError, group::Group, redb::open_file, unopened};
use crate::state::{self, StateError, sync_folder};

const RECORD: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("record");

/// One record: its key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

struct Request {
    /// Secrets are among them.
    ops: Zeroizing<Vec<Op>>,
    answer: Answer<()>,
}

/// The records of one client.
pub struct Records {
    group: Group<Request>,
}

impl Records {
    /// Whether there are records at `path`, also where a crash has left them in the files beside it.
    #[must_use]
    pub fn are_at(path: &Path) -> bool {
        let [_, old] = File::beside(path);
        path.exists() || old.exists()
    }

    /// Opens the file at `path`, creating it (0600) if there is none, and reads it whole.
    ///
    /// # Errors
    ///
    /// If it can't be opened: another process has it open, it is no such file, or it is damaged.
    pub fn open(path: &Path) -> Result<(Self, Vec<Record>), StoreError> {
        let mut file = File::open(path)?;
        let records = load(&file.database).map_err(unopened)?;
        let mut broken = Ok(());
        let commit = move |batch: Vec<Request>| {
            if broken.is_ok() {
                broken = file.commit(&batch).map_err(|why| why.to_string());
                if let Err(why) = &broken {
                    tracing::error!(%why, "the client's store failed");
                }
            }
            for request in batch {
                // Whoever asked may have stopped waiting.
                let _ = request
                    .answer
                    .send(broken.clone().map_err(StoreError::Broken));
            }
        };
        let group = Group::start("records", commit).map_err(unopened)?;
        Ok((Self { group }, records))
    }

    /// Applies one transaction.
    pub fn apply(&self, ops: Vec<Op>) -> Reply<()> {
        let ops = Zeroizing::new(ops);
        Reply::to(|answer| self.group.send(Request { ops, answer }))
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Engine(#[from] ::redb::Error),
    #[error("it can't be written anew: {0}")]
    Anew(StoreError),
    #[error("what was deleted can't be erased: {0}")]
    Erase(StateError),
    #[error("the new file can't take its place: {0}")]
    Place(io::Error),
}

/// The database in use, and where it stands.
struct File {
    path: PathBuf,
    database: Database,
}

impl File {
    fn beside(path: &Path) -> [PathBuf; 2] {
        ["new", "old"].map(|end| path.with_added_extension(end))
    }

    /// Opens it, after it has ended what a crash may have interrupted.
    fn open(path: &Path) -> Result<Self, StoreError> {
        let [new, old] = Self::beside(path);
        let recovered = || {
            if old.exists() && !path.exists() {
                fs::rename(&new, path)?;
                sync_folder(path)?;
            }
            Ok::<_, io::Error>(())
        };
        recovered().map_err(unopened)?;
        for gone in [&new, &old] {
            state::erase(gone).map_err(unopened)?;
        }
        Ok(Self {
            path: path.to_owned(),
            database: open_file(path)?,
        })
    }

    fn commit(&mut self, batch: &[Request]) -> Result<(), Failure> {
        let mut ops = batch.iter().flat_map(|request| &*request.ops);
        if ops.any(|op| matches!(op, Op::Erase)) {
            self.anew(batch)
        } else {
            Ok(apply(&self.database, &[], batch)?)
        }
    }

    /// Applies all transactions of a batch in a file that has never held anything else.
    fn anew(&mut self, batch: &[Request]) -> Result<(), Failure> {
        let [new, old] = Self::beside(&self.path);
        let stays = Zeroizing::new(load(&self.database)?);
        let database = open_file(&new).map_err(Failure::Anew)?;
        apply(&database, &stays, batch)?;
        let placed = || {
            sync_folder(&new)?;
            fs::rename(&self.path, &old)?;
            fs::rename(&new, &self.path)?;
            sync_folder(&self.path)
        };
        placed().map_err(Failure::Place)?;
        drop(core::mem::replace(&mut self.database, database));
        state::erase(&old).map_err(Failure::Erase)
    }
}

fn load(database: &Database) -> Result<Vec<Record>, ::redb::Error> {
    let transaction = database.begin_write()?;
    let mut records = Vec::new();
    {
        let table = transaction.open_table(RECORD)?;
        for entry in table.iter()? {
            let (key, value) = entry?;
            records.push((key.value().to_vec(), value.value().to_vec()));
        }
    }
    transaction.commit()?;
    Ok(records)
}

/// Puts `first`, and applies all transactions of a batch, in order, as one.
fn apply(database: &Database, first: &[Record], batch: &[Request]) -> Result<(), ::redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORD)?;
        for (key, value) in first {
            table.insert(key.as_slice(), value.as_slice())?;
        }
        for op in batch.iter().flat_map(|request| &*request.ops) {
            match op {
                Op::Put { key, value } => drop(table.insert(key.as_slice(), value.as_slice())?),
                Op::Delete { key } => drop(table.remove(key.as_slice())?),
                Op::Erase => {} // done by the file that this is written to
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Op {
        Op::Put {
            key: key.into(),
            value: value.into(),
        }
    }

    #[tokio::test]
    async fn transactions_apply_in_order_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.redb");
        let (records, none) = Records::open(&path).unwrap();
        assert!(none.is_empty());
        let first = records.apply(vec![put("a", "1"), put("b", "2")]);
        let delete = Op::Delete { key: "a".into() };
        let second = records.apply(vec![delete, put("b", "3")]);
        second.await.unwrap();
        first.await.unwrap();
        drop(records);
        let (_, found) = Records::open(&path).unwrap();
        assert_eq!(found, [(b"b".to_vec(), b"3".to_vec())]);
    }

    /// A store that failed says why, also to those that come later.
    #[tokio::test]
    async fn what_fails_names_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.redb");
        let (records, _) = Records::open(&path).unwrap();
        let [new, _] = File::beside(&path);
        fs::create_dir(new).unwrap();
        for ops in [vec![Op::Erase], vec![put("a", "1")]] {
            let why = records.apply(ops).await.unwrap_err().to_string();
            assert!(why.contains("directory"), "{why}");
        }
    }

    const SECRET: &[u8] = &[0xa7; 97];

    async fn with_secret(path: &Path) -> Records {
        let (records, _) = Records::open(path).unwrap();
        let secret = Op::Put {
            key: b"s".to_vec(),
            value: SECRET.to_vec(),
        };
        records.apply(vec![put("a", "1"), secret]).await.unwrap();
        let delete = Op::Delete { key: b"s".to_vec() };
        records.apply(vec![delete]).await.unwrap();
        records
    }

    fn holds_secret(folder: &Path) -> bool {
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
        let mut all = files.map(|file| fs::read(file.path()).unwrap());
        all.any(|bytes| bytes.windows(SECRET.len()).any(|part| part == SECRET))
    }

    /// CLI-32: the control is a record that was only deleted.
    #[tokio::test]
    async fn what_is_erased_stands_in_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.redb");
        let records = with_secret(&path).await;
        assert!(
            holds_secret(folder.path()),
            "a deleted record is still there"
        );
        let before = records.apply(vec![put("b", "2")]);
        records.apply(vec![put("c", "3"), Op::Erase]).await.unwrap();
        before.await.unwrap();
        assert!(!holds_secret(folder.path()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        records.apply(vec![put("d", "4")]).await.unwrap();
        drop(records);
        let (_, found) = Records::open(&path).unwrap();
        let keys: Vec<&[u8]> = found.iter().map(|(key, _)| &**key).collect();
        assert_eq!(keys, [b"a", b"b", b"c", b"d"]);
    }

    /// CLI-32, CLI-26: killed at each step, the transaction was applied whole or not at all, and what
    /// it erases is gone in either case once the file is opened again, as far as it was applied.
    #[tokio::test]
    async fn an_erasure_that_was_interrupted_is_ended() {
        for step in 1..=3 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("client.redb");
            drop(with_secret(&path).await);
            let [new, old] = File::beside(&path);
            if step == 1 {
                fs::write(&new, SECRET).unwrap();
            } else {
                let database = open_file(&new).unwrap();
                let request = Request {
                    ops: vec![put("a", "2")].into(),
                    answer: tokio::sync::oneshot::channel().0,
                };
                apply(&database, &[], &[request]).unwrap();
                drop(database);
                fs::rename(&path, &old).unwrap();
            }
            if step == 3 {
                fs::rename(&new, &path).unwrap();
            }
            let (records, found) = Records::open(&path).unwrap();
            let value = if step == 1 { b"1" } else { b"2" };
            assert_eq!(found, [(b"a".to_vec(), value.to_vec())], "step {step}");
            drop(records);
            assert!(step == 1 || !holds_secret(folder.path()), "step {step}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}
