//! The tags that the front ends of one gateway have admitted: whichever is first has the packet.
//!
//! Spec: docs/spec/gateway.md, rule GW-30.
//!
//! Marks are inserted where the primary key has none yet, in rising order, so that no two front ends
//! wait for each other; those that were inserted are new. All calls that wait are one transaction
//! (`group`) on a connection of its own, so that packets don't wait for mailboxes. A call that fails,
//! or takes longer than `server::DEADLINE`, ends the engine: from then on nothing is new.
//!
//! Invariant: an answer comes after the commit, so a mark that was called new once is called so never
//! again, whoever is killed.

use std::collections::BTreeSet;

use proto::calendar::Epoch;
use tokio::{runtime::Runtime, time::timeout};
use tokio_postgres::{
    Client, Statement,
    types::{ToSql, Type},
};
use tokio_util::sync::CancellationToken;

use super::{
    Server, column, on_its_own,
    server::{DEADLINE, Failure},
};
use crate::store::{Answer, Mark, Reply, StoreError, Tags, group::Group, unopened};

/// Marks that one call forgets at most: as long as it runs, packets wait.
const FORGOTTEN_MAX: i64 = 10_000;

enum Request {
    Admit(Vec<Mark>, Answer<Vec<bool>>),
    Forget(Epoch, Answer<u64>),
}

/// The set in a PostgreSQL server. Dropping it carries out what was asked.
pub struct SharedTags {
    group: Group<Request>,
    failed: CancellationToken,
}

impl SharedTags {
    /// Opens the set at `server`, where [`super::open`] has made the tables.
    ///
    /// # Errors
    ///
    /// If the server can't be reached, or does not keep what it confirms.
    pub fn open(server: &Server) -> Result<Self, StoreError> {
        let connect = async || {
            let client = server.connect().await?;
            let admit = "INSERT INTO lacuna_tag (epoch, fingerprint) SELECT * FROM unnest($1, $2)
                 ON CONFLICT DO NOTHING RETURNING epoch, fingerprint";
            let numbers = [Type::INT8_ARRAY, Type::INT8_ARRAY];
            let forget = "WITH old AS (
                     SELECT epoch, fingerprint FROM lacuna_tag WHERE epoch < $1
                     ORDER BY epoch, fingerprint LIMIT $2 FOR UPDATE SKIP LOCKED)
                 DELETE FROM lacuna_tag AS tag USING old
                 WHERE tag.epoch = old.epoch AND tag.fingerprint = old.fingerprint";
            Ok(Set {
                admit: client.prepare_typed(admit, &numbers).await?,
                forget: client.prepare_typed(forget, &[Type::INT8; 2]).await?,
                client,
            })
        };
        let (runtime, set) = on_its_own(|runtime| {
            let connected = runtime.block_on(async { timeout(DEADLINE, connect()).await });
            let connected = connected.unwrap_or(Err(Failure::Late));
            Ok((runtime, connected.map_err(unopened)?))
        })?;
        let failed = CancellationToken::new();
        let mut engine = Engine {
            runtime,
            set,
            failed: failed.clone(),
        };
        let group = Group::start("shared-tags", move |batch| engine.carry_out(batch));
        Ok(Self {
            group: group.map_err(unopened)?,
            failed,
        })
    }

    /// Cancelled when the engine has failed.
    #[must_use]
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }
}

impl Tags for SharedTags {
    fn admit(&self, marks: Vec<Mark>) -> Reply<Vec<bool>> {
        Reply::to(|answer| self.group.send(Request::Admit(marks, answer)))
    }

    fn forget(&self, before: Epoch) -> Reply<u64> {
        Reply::to(|answer| self.group.send(Request::Forget(before, answer)))
    }
}

struct Engine {
    runtime: Runtime,
    set: Set,
    failed: CancellationToken,
}

struct Set {
    client: Client,
    admit: Statement,
    forget: Statement,
}

/// As columns.
fn columns(&(epoch, fingerprint): &Mark) -> (i64, i64) {
    (column(epoch.0), i64::from_be_bytes(fingerprint.to_bytes()))
}

impl Engine {
    /// Answers that are dropped say that the store failed.
    fn carry_out(&mut self, batch: Vec<Request>) {
        if self.failed.is_cancelled() {
            return;
        }
        let answered = async {
            let answered = timeout(DEADLINE, self.set.answer(batch)).await;
            answered.unwrap_or(Err(Failure::Late))
        };
        if let Err(why) = self.runtime.block_on(answered) {
            tracing::error!(%why, "the shared replay set failed");
            self.failed.cancel();
        }
    }
}

impl Set {
    async fn answer(&self, batch: Vec<Request>) -> Result<(), Failure> {
        let mut asked = BTreeSet::new();
        for request in &batch {
            if let Request::Admit(marks, _) = request {
                asked.extend(marks.iter().map(columns));
            }
        }
        let mut new = self.insert(&asked).await?;
        for request in batch {
            match request {
                // The first that asks for it has it.
                Request::Admit(marks, answer) => {
                    let verdicts = marks.iter().map(|mark| new.remove(&columns(mark)));
                    let _nobody_waits = answer.send(Ok(verdicts.collect()));
                }
                Request::Forget(before, answer) => {
                    let (before, most) = (column(before.0), FORGOTTEN_MAX);
                    let gone = self.client.execute(&self.forget, &[&before, &most]).await?;
                    let _nobody_waits = answer.send(Ok(gone));
                }
            }
        }
        Ok(())
    }

    /// Inserts what is not there, and says what that was.
    async fn insert(&self, marks: &BTreeSet<(i64, i64)>) -> Result<BTreeSet<(i64, i64)>, Failure> {
        if marks.is_empty() {
            return Ok(BTreeSet::new());
        }
        let (epochs, fingerprints): (Vec<i64>, Vec<i64>) = marks.iter().copied().unzip();
        let marks: [&(dyn ToSql + Sync); 2] = [&epochs, &fingerprints];
        let rows = self.client.query(&self.admit, &marks).await?;
        let rows = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        rows.collect()
    }
}
