//! A client's durable records: opaque keys and values in one `redb` file.
//!
//! The client machine decides what stands in them ([`proto::client`]); here they are only kept. A
//! transaction is applied whole or not at all, transactions are applied in the order in which they
//! are made, and the reply comes once the transaction is durable. Once one fails every later one
//! fails too.

use std::path::Path;

use ::redb::{Database, ReadableTable, TableDefinition};
use proto::client::Op;

use super::{Answer, Reply, StoreError, group::Group, redb::open_file, unopened};

const RECORD: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("record");

/// One record: its key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

struct Request {
    ops: Vec<Op>,
    answer: Answer<()>,
}

/// The records of one client.
pub struct Records {
    group: Group<Request>,
}

impl Records {
    /// Opens the file at `path`, creating it (0600) if there is none, and reads it whole.
    ///
    /// # Errors
    ///
    /// If it can't be opened: another process has it open, it is no such file, or it is damaged.
    pub fn open(path: &Path) -> Result<(Self, Vec<Record>), StoreError> {
        let database = open_file(path)?;
        let records = load(&database).map_err(unopened)?;
        let mut broken = false;
        let commit = move |batch: Vec<Request>| {
            if !broken && let Err(why) = apply(&database, &batch) {
                tracing::error!(%why, "the client's store failed");
                broken = true;
            }
            // Answers that are dropped say that the store failed.
            for request in batch.into_iter().filter(|_| !broken) {
                // Whoever asked may have stopped waiting.
                let _ = request.answer.send(Ok(()));
            }
        };
        let group = Group::start("records", commit).map_err(unopened)?;
        Ok((Self { group }, records))
    }

    /// Applies one transaction.
    pub fn apply(&self, ops: Vec<Op>) -> Reply<()> {
        Reply::to(|answer| self.group.send(Request { ops, answer }))
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

/// Applies all transactions of a batch, in order, as one.
fn apply(database: &Database, batch: &[Request]) -> Result<(), ::redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(RECORD)?;
        for op in batch.iter().flat_map(|request| &request.ops) {
            match op {
                Op::Put { key, value } => drop(table.insert(key.as_slice(), value.as_slice())?),
                Op::Delete { key } => drop(table.remove(key.as_slice())?),
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
}
