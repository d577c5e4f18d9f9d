//! Mailboxes in PostgreSQL: for a gateway that outgrows one file.
//!
//! | table            | columns                                                                  |
//! |------------------|--------------------------------------------------------------------------|
//! | `lacuna_store`   | one row: form, name of the day keys (16 bytes), version                  |
//! | `lacuna_mailbox` | id (32), its highest number, packets held, version of the last change,   |
//! |                  | how often it has been opened                                             |
//! | `lacuna_packet`  | mailbox, number, stored-at (UTC s), sealed packet (2424)                 |
//! | `lacuna_tag`     | epoch, fingerprint of a packet that was admitted ([`SharedTags`])        |
//!
//! Spec: docs/spec/gateway.md, rules GW-10, GW-21 to GW-23, GW-25 to GW-30, GW-32.
//!
//! A batch of calls is one transaction (`calls`) of few statements: `batch` gathers them. A batch
//! that changes something first raises the store's version, which holds its row until the commit:
//! engines on one store take turns, so numbers, quotas and versions need no other lock, no two transactions
//! wait for each other, and versions appear in the order in which they were given. Packets are
//! sealed here; the server sees ids, numbers, times and counts.
//!
//! Not done here: TLS, and waiting for a server that is away. A call that fails, or takes longer
//! than `server::DEADLINE`, ends the engine (GW-18).

mod batch;
pub mod server;
mod tags;

use std::{path::Path, thread};

use proto::{MailboxId, gateway::Numbers};
use tokio::{runtime::Runtime, time::timeout};
use tokio_postgres::{Client, Statement, error::SqlState, types::Type};

use self::{
    batch::Work,
    server::{DEADLINE, EXPIRY_DEADLINE, Failure, TAKING},
};
pub use self::{
    server::{Server, ServerError},
    tags::SharedTags,
};
use super::{
    Mailboxes, StoreError,
    calls::{Outcome, Request},
    seal::{KeysId, Seal},
    unopened,
};

/// Of the tables.
const FORM: i32 = 1;
/// Engines that start at once make the tables one after another.
const MAKING: i64 = 0x4c61_6375_6e61_4d42;
/// Held as long as an engine is open: shared by front ends, by a gateway alone.
const USING: i64 = MAKING + 1;
/// A packet stays in its row: 2.5 kB would be cut up, and tried to be compressed, in vain.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS lacuna_store (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        form integer NOT NULL, keys bytea, version bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS lacuna_mailbox (
        id bytea PRIMARY KEY, highest bigint NOT NULL, held bigint NOT NULL,
        changed bigint NOT NULL);
    ALTER TABLE lacuna_mailbox ADD COLUMN IF NOT EXISTS opened bigint NOT NULL DEFAULT 0;
    CREATE TABLE IF NOT EXISTS lacuna_packet (
        mailbox bytea NOT NULL, seq bigint NOT NULL, stored_at bigint NOT NULL,
        sealed bytea NOT NULL, PRIMARY KEY (mailbox, seq));
    ALTER TABLE lacuna_packet ALTER COLUMN sealed SET STORAGE PLAIN;
    CREATE INDEX IF NOT EXISTS lacuna_packet_age ON lacuna_packet (stored_at);
    CREATE INDEX IF NOT EXISTS lacuna_mailbox_changed ON lacuna_mailbox (changed);
    CREATE TABLE IF NOT EXISTS lacuna_tag (
        epoch bigint NOT NULL, fingerprint bigint NOT NULL, PRIMARY KEY (epoch, fingerprint));";

/// Opens the store at `server`, making its tables if there are none, with room for `quota` packets
/// in each mailbox, and with the day keys in the folder `keys`; `shared` with the other front ends of
/// a gateway, or with nobody. Waits for the server.
///
/// # Errors
///
/// If the server can't be reached, does not keep what it confirms, holds something else, or is in
/// use by a gateway that does not share it; or `keys` does not hold the keys that the store is
/// sealed under.
pub fn open(
    server: &Server,
    keys: &Path,
    quota: u64,
    shared: bool,
) -> Result<Mailboxes, StoreError> {
    let connect = async || {
        let client = server.connect().await.map_err(unopened)?;
        take(&client, shared).await.map_err(unopened)?;
        let (seal, told) = bind(&client, keys).await?;
        let sql = Statements::prepare(&client).await.map_err(unopened)?;
        Ok(Store {
            client,
            sql,
            numbers: Numbers::default(),
            seal,
            quota,
            told,
        })
    };
    let mut engine = on_its_own(|runtime| {
        let store = runtime.block_on(async {
            let connected = timeout(DEADLINE, connect()).await;
            connected.unwrap_or_else(|_| Err(unopened(Failure::Late)))
        })?;
        Ok(Engine { runtime, store })
    })?;
    Mailboxes::start(shared, move |batch: &[Request]| engine.carry_out(batch))
}

/// Does `work` with a runtime of its own on a thread of its own, for callers inside of another.
fn on_its_own<T: Send>(
    work: impl FnOnce(Runtime) -> Result<T, StoreError> + Send,
) -> Result<T, StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(unopened)?;
    thread::scope(|scope| scope.spawn(|| work(runtime)).join()).expect("it did not panic")
}

/// GW-27: keeps the store for this engine and those that share it, until the connection ends. That of
/// a process that was killed ends soon.
async fn take(client: &Client, shared: bool) -> Result<(), Failure> {
    let lock = if shared { "lock_shared" } else { "lock" };
    let lock = format!(
        "SET lock_timeout = {}; SELECT pg_advisory_{lock}({USING}); RESET lock_timeout",
        TAKING.as_millis()
    );
    let taken = client.batch_execute(&lock).await;
    taken.map_err(|error| match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => Failure::InUse,
        _ => error.into(),
    })
}

/// GW-25: makes the tables, and binds them to the keys in the folder `keys`; the keys, and the
/// store's version.
async fn bind(client: &Client, keys: &Path) -> Result<(Seal, i64), StoreError> {
    let failed = |error| unopened(Failure::Server(error));
    client.batch_execute("BEGIN").await.map_err(failed)?;
    let making = format!("SELECT pg_advisory_xact_lock({MAKING}); {TABLES}");
    client.batch_execute(&making).await.map_err(failed)?;
    let first = "INSERT INTO lacuna_store (form, version) VALUES ($1, 0) ON CONFLICT DO NOTHING";
    client.execute(first, &[&FORM]).await.map_err(failed)?;
    let found = "SELECT form, keys, version FROM lacuna_store FOR UPDATE";
    let found = client.query_one(found, &[]).await.map_err(failed)?;
    let form: i32 = found.try_get(0).map_err(failed)?;
    if form != FORM {
        let form = format!("the store in PostgreSQL has form {form}, this version knows {FORM}");
        return Err(unopened(form));
    }
    let bound: Option<&[u8]> = found.try_get(1).map_err(failed)?;
    let bound = bound.map(|id| {
        let id = KeysId::try_from(id).map_err(|_| Failure::Damaged("name of keys"));
        id.map_err(unopened)
    });
    let seal = Seal::open(keys, bound.transpose()?)?;
    let bind = "UPDATE lacuna_store SET keys = $1";
    let id = seal.id();
    client
        .execute(bind, &[&id.as_slice()])
        .await
        .map_err(failed)?;
    client.batch_execute("COMMIT").await.map_err(failed)?;
    seal.bound().map_err(unopened)?;
    Ok((seal, found.try_get(2).map_err(failed)?))
}

struct Engine {
    runtime: Runtime,
    store: Store,
}

/// What a batch works with.
struct Store {
    client: Client,
    sql: Statements,
    numbers: Numbers,
    seal: Seal,
    quota: u64,
    /// The version of the last change that was told of.
    told: i64,
}

impl Engine {
    /// Carries out a batch in one durable transaction; on failure none of it has been answered.
    fn carry_out(&mut self, batch: &[Request]) -> Result<Vec<Outcome>, Failure> {
        let committed = async {
            let expires = batch
                .iter()
                .any(|request| matches!(request, Request::Expire(..)));
            let deadline = if expires { EXPIRY_DEADLINE } else { DEADLINE };
            let committed = timeout(deadline, Work::commit(&mut self.store, batch)).await;
            committed.unwrap_or(Err(Failure::Late))
        };
        let outcomes = self.runtime.block_on(committed)?;
        // GW-23: their packets are gone; now the keys of their days.
        self.store.seal.erase()?;
        Ok(outcomes)
    }
}

/// Every statement of a batch. Columns are passed as arrays, one row an element.
struct Statements {
    turn: Statement,
    mailboxes: Statement,
    keep: Statement,
    put: Statement,
    confirm: Statement,
    peek: Statement,
    expire: Statement,
    usage: Statement,
    changes: Statement,
}

impl Statements {
    async fn prepare(client: &Client) -> Result<Self, Failure> {
        const IDS: Type = Type::BYTEA_ARRAY;
        const NUMBERS: Type = Type::INT8_ARRAY;
        let prepare = async |sql: &str, types: &[Type]| client.prepare_typed(sql, types).await;
        Ok(Self {
            turn: prepare(
                "UPDATE lacuna_store SET version = version + 1 RETURNING version",
                &[],
            )
            .await?,
            mailboxes: prepare(
                "SELECT id, highest, held, opened FROM lacuna_mailbox WHERE id = ANY($1)",
                &[IDS],
            )
            .await?,
            keep: prepare(
                "INSERT INTO lacuna_mailbox (id, highest, held, opened, changed)
                 SELECT *, $5 FROM unnest($1, $2, $3, $4)
                 ON CONFLICT (id) DO UPDATE SET
                 highest = excluded.highest, held = excluded.held, opened = excluded.opened,
                 changed = excluded.changed",
                &[IDS, NUMBERS, NUMBERS, NUMBERS, Type::INT8],
            )
            .await?,
            put: prepare(
                "INSERT INTO lacuna_packet (mailbox, seq, stored_at, sealed)
                 SELECT * FROM unnest($1, $2, $3, $4)",
                &[IDS, NUMBERS, NUMBERS, IDS],
            )
            .await?,
            confirm: prepare(
                "WITH gone AS (
                     DELETE FROM lacuna_packet USING unnest($1, $2) AS done (id, upto)
                     WHERE mailbox = id AND seq <= upto RETURNING mailbox)
                 SELECT mailbox, count(*) FROM gone GROUP BY mailbox",
                &[IDS, NUMBERS],
            )
            .await?,
            peek: prepare(
                "SELECT asked, seq, stored_at, sealed
                 FROM unnest($1, $2, $3) WITH ORDINALITY AS asking (id, above, most, asked),
                 LATERAL (
                     SELECT seq, stored_at, sealed FROM lacuna_packet
                     WHERE mailbox = id AND seq > above ORDER BY seq LIMIT most) AS found
                 ORDER BY asked, seq",
                &[IDS, NUMBERS, NUMBERS],
            )
            .await?,
            expire: prepare(
                "WITH gone AS (
                     DELETE FROM lacuna_packet WHERE stored_at < $1 RETURNING mailbox)
                 SELECT mailbox, count(*) FROM gone GROUP BY mailbox",
                &[Type::INT8],
            )
            .await?,
            usage: prepare("SELECT id, held FROM lacuna_mailbox", &[]).await?,
            changes: prepare(
                "SELECT id, highest, held, opened, changed FROM lacuna_mailbox WHERE changed > $1",
                &[Type::INT8],
            )
            .await?,
        })
    }
}

/// The id in a row.
fn mailbox(bytes: &[u8]) -> Result<MailboxId, Failure> {
    let id = bytes.try_into().map_err(|_| Failure::Damaged("an id"))?;
    Ok(MailboxId(id))
}

/// A column that is never negative.
fn number(column: i64) -> Result<u64, Failure> {
    u64::try_from(column).map_err(|_| Failure::Damaged("a number"))
}

/// As a column: what is larger is larger than every number in the tables.
fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
