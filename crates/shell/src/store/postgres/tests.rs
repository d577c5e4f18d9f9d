//! The conformance suite on a real server, and what is PostgreSQL's own. `LACUNA_SYSTEM=1` runs it.

use tempfile::TempDir;

use super::*;
use crate::store::{MailboxStore, conformance, throwaway::PostgreSql};

/// A server of its own and a folder of keys; none unless asked for.
fn system() -> Option<(PostgreSql, TempDir)> {
    if std::env::var_os("LACUNA_SYSTEM").is_none() {
        eprintln!(
            "skipped: LACUNA_SYSTEM=1 runs it; it needs PostgreSQL (apt-get install postgresql)"
        );
        return None;
    }
    let server = PostgreSql::start().unwrap();
    Some((server, tempfile::tempdir().unwrap()))
}

fn try_open(address: &str, keys: &Path) -> Result<Mailboxes, StoreError> {
    open(&Server::parse(address).unwrap(), keys, conformance::QUOTA)
}

fn opened(address: &str, keys: &Path) -> Mailboxes {
    try_open(address, keys).unwrap()
}

/// Has the server do something that a gateway never would.
fn administer(address: &str, sql: &[&str]) -> Vec<Vec<u8>> {
    let server = Server::parse(address).unwrap();
    on_its_own(|runtime| {
        runtime.block_on(async {
            let client = server.connect().await.map_err(unopened)?;
            let mut found = Vec::new();
            for sql in sql {
                let rows = client.query(*sql, &[]).await;
                let rows = rows.map_err(|error| unopened(Failure::Server(error)))?;
                found.extend(rows.iter().filter_map(|row| row.try_get(0).ok()));
            }
            Ok(found)
        })
    })
    .unwrap()
}

/// GW-10, GW-21, GW-23.
#[tokio::test]
async fn it_conforms() {
    let Some((server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    conformance::alone(|| opened(&address, keys.path())).await;
    administer(&address, &["CREATE DATABASE many"]);
    let (address, keys) = (server.address("many"), tempfile::tempdir().unwrap());
    conformance::many_putters(&opened(&address, keys.path())).await;
}

/// Not a test by itself: the process that `what_was_answered_survives_kills` kills.
#[tokio::test]
async fn child_puts_until_killed() {
    if let Some(store) = std::env::var_os(conformance::CHILD) {
        let store = store.into_string().unwrap();
        let (address, keys) = store.split_once('\n').unwrap();
        conformance::put_until_killed(&opened(address, Path::new(keys))).await;
    }
}

/// GW-21: of the gateway, then of the server.
#[tokio::test]
async fn what_was_answered_survives_kills() {
    let Some((mut server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    let place = format!("{address}\n{}", keys.path().display());
    let child = "store::postgres::tests::child_puts_until_killed";
    let seen = conformance::kill_a_putter(child, place.as_ref());
    server.crash().unwrap();
    conformance::holds_all(&opened(&address, keys.path()), seen).await;
}

/// GW-18: what can't be made durable is not answered, and the engine does not come back.
#[tokio::test]
async fn a_server_that_is_away_fails_every_call() {
    let Some((mut server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    let store = opened(&address, keys.path());
    conformance::fill_a_day(&store).await;
    server.crash().unwrap();
    for _ in 0..2 {
        assert!(matches!(store.usage().await, Err(StoreError::Failed)));
    }
    drop(store);
    conformance::day_opens(&opened(&address, keys.path()), true).await;
    server.end().unwrap();
    let away = try_open(&address, keys.path());
    assert!(matches!(away, Err(StoreError::Open(why)) if why.contains("PostgreSQL")));
}

/// GW-22, GW-23.
#[tokio::test]
async fn a_copied_database_does_not_open_after_its_day() {
    let Some((server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    administer(&address, &["CREATE DATABASE day"]);
    let day = server.address("day");
    let store = opened(&day, keys.path());
    conformance::fill_a_day(&store).await;
    drop(store);
    let stored = administer(&day, &["SELECT sealed FROM lacuna_packet"]);
    assert_eq!(stored.len(), 2);
    assert!(
        stored
            .iter()
            .all(|sealed| !sealed.windows(9).any(|w| w == [1; 9]))
    );
    administer(&address, &["CREATE DATABASE copy TEMPLATE day"]);
    let copy = server.address("copy");
    conformance::day_opens(&opened(&copy, keys.path()), true).await; // positive control
    let store = opened(&day, keys.path());
    store.expire(conformance::NEXT_DAY_S).await.unwrap();
    drop(store);
    conformance::day_opens(&opened(&copy, keys.path()), false).await;
}

/// GW-25.
#[tokio::test]
async fn other_keys_are_refused() {
    let Some((server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    drop(opened(&address, keys.path()));
    drop(opened(&address, keys.path()));
    let others = tempfile::tempdir().unwrap();
    let refused = try_open(&address, others.path());
    assert!(matches!(refused, Err(StoreError::Open(why)) if why.contains("holds no keys")));
}

/// GW-26.
#[tokio::test]
async fn a_server_that_forgets_is_refused() {
    let Some((server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    administer(
        &address,
        &["ALTER ROLE lacuna SET synchronous_commit = off"],
    );
    let refused = try_open(&address, keys.path());
    let named = |why: &str| why.contains("synchronous_commit") && why.contains("postgresql.conf");
    assert!(matches!(refused, Err(StoreError::Open(why)) if named(&why)));
}

/// What one statement can't carry out is carried out in order: calls on one mailbox, made at once.
#[tokio::test]
async fn calls_on_one_mailbox_keep_their_order() {
    let Some((server, keys)) = system() else {
        return;
    };
    let store = opened(&server.address("postgres"), keys.path());
    let ann = MailboxId([1; 32]);
    let at = conformance::DAY_S;
    let packet = || Box::new([7; sphinx::PACKET_LEN]);
    let _registered = store.register(ann);
    let first = (store.put(ann, at, packet()), store.put(ann, at, packet()));
    let seen = store.peek(ann, 0, 9);
    let gone = (
        store.confirm(ann, 1),
        store.confirm(ann, 1),
        store.confirm(ann, 9),
    );
    let last = store.put(ann, at, packet());
    let (expired, usage) = (store.expire(at + 1), store.usage());
    assert_eq!((first.0.await.unwrap(), first.1.await.unwrap()), (1, 2));
    assert_eq!(seen.await.unwrap().len(), 2);
    let gone = (
        gone.0.await.unwrap(),
        gone.1.await.unwrap(),
        gone.2.await.unwrap(),
    );
    assert_eq!(gone, (1, 0, 1));
    assert_eq!(last.await.unwrap(), 3);
    assert_eq!(expired.await.unwrap(), [(ann, 1)]);
    assert_eq!(usage.await.unwrap(), [(ann, 0)]);
}
