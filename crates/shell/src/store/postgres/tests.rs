//! The conformance suite on a real server, and what is PostgreSQL's own. `LACUNA_SYSTEM=1` runs it.

use proto::{calendar::Epoch, replay::Fingerprint};
use tempfile::TempDir;

use super::*;
use crate::store::{MailboxStore, Mark, Tags, conformance, throwaway::PostgreSql};

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
    let server = Server::parse(address).unwrap();
    open(&server, keys, conformance::QUOTA, false)
}

fn front_end(address: &str, keys: &Path) -> Result<Mailboxes, StoreError> {
    let server = Server::parse(address).unwrap();
    open(&server, keys, conformance::QUOTA, true)
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

/// GW-10, GW-21, GW-23, GW-32.
#[tokio::test]
async fn it_conforms() {
    let Some((server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    conformance::alone(|| opened(&address, keys.path())).await;
    administer(&address, &["CREATE DATABASE many"]);
    let (address, keys) = (server.address("many"), tempfile::tempdir().unwrap());
    let store = opened(&address, keys.path());
    conformance::many_putters([&store, &store]).await;
    let databases = ["first", "second"];
    administer(
        &server.address("postgres"),
        &databases
            .map(|name| format!("CREATE DATABASE {name}"))
            .each_ref()
            .map(String::as_str),
    );
    let folders = databases.map(|_| tempfile::tempdir().unwrap());
    conformance::numbers(|which| opened(&server.address(databases[which]), folders[which].path()))
        .await;
}

/// GW-28, GW-29: each front end has a folder of keys of its own.
#[tokio::test]
async fn front_ends_conform() {
    let Some((server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    drop(front_end(&address, keys.path()).unwrap());
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(keys.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let mut folders = [keys.path(), copy.path()].into_iter().cycle();
    conformance::front_ends(|| front_end(&address, folders.next().unwrap()).unwrap()).await;
}

/// GW-27: front ends share a store with each other, and with nobody else.
#[tokio::test]
async fn a_store_is_one_gateways() {
    let Some((server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    let refused = |opened: Result<Mailboxes, StoreError>| {
        let named = |why: &str| why.contains("front_ends = true");
        assert!(matches!(opened, Err(StoreError::Open(why)) if named(&why)));
    };
    let alone = opened(&address, keys.path());
    thread::scope(|scope| {
        scope.spawn(|| refused(try_open(&address, keys.path())));
        scope.spawn(|| refused(front_end(&address, keys.path())));
    });
    drop(alone);
    let shared = [(); 2].map(|()| front_end(&address, keys.path()).unwrap());
    refused(try_open(&address, keys.path()));
    drop(shared);
    drop(opened(&address, keys.path()));
}

fn mark(epoch: u64, number: u64) -> Mark {
    // Half of them are negative as columns.
    let fingerprint = (number << 63 | number).to_be_bytes();
    (Epoch(epoch), Fingerprint::from_bytes(fingerprint))
}

/// GW-30: of front ends that ask for the same packets at once, in whatever order, one has each.
#[tokio::test]
async fn a_mark_is_new_once_over_all_front_ends() {
    const ROUNDS: u64 = 30;
    const MARKS: u64 = 40;
    let Some((server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    administer(&address, &["CREATE DATABASE other"]);
    let address = |name| Server::parse(&server.address(name)).unwrap();
    for name in ["postgres", "other"] {
        drop(front_end(&server.address(name), keys.path()).unwrap());
    }
    let tags = |name| SharedTags::open(&address(name)).unwrap();
    let (one, two, apart) = (tags("postgres"), tags("postgres"), tags("other"));
    for round in 0..ROUNDS {
        let marks: Vec<Mark> = (0..MARKS).map(|i| mark(7, round * MARKS + i)).collect();
        let mut back = marks.clone();
        back.reverse();
        let (at_one, at_two) = (one.admit(marks.clone()), two.admit(back));
        let (at_one, mut at_two) = (at_one.await.unwrap(), at_two.await.unwrap());
        at_two.reverse();
        assert!(at_one.iter().zip(&at_two).all(|(one, two)| one != two));
        let at_other = apart.admit(marks).await.unwrap();
        assert!(at_other.iter().all(|new| *new), "positive control");
    }
    // Within one call, of another epoch, and after all who had it are gone.
    let twice = one.admit(vec![mark(8, 1), mark(8, 1)]).await.unwrap();
    assert_eq!(twice, [true, false]);
    drop((one, two));
    let one = tags("postgres");
    let again = one.admit(vec![mark(8, 1), mark(7, 1), mark(9, 1)]);
    assert_eq!(again.await.unwrap(), [false, false, true]);

    // Only what is older is forgotten.
    assert_eq!(one.forget(Epoch(7)).await.unwrap(), 0);
    assert_eq!(one.forget(Epoch(8)).await.unwrap(), ROUNDS * MARKS);
    let again = one.admit(vec![mark(8, 1), mark(7, 1)]);
    assert_eq!(again.await.unwrap(), [false, true]);
}

/// GW-30: what the server does not say is new, is not; not after a restart of it either.
#[tokio::test]
async fn marks_fail_closed() {
    let Some((mut server, keys)) = system() else {
        return;
    };
    let address = server.address("postgres");
    drop(front_end(&address, keys.path()).unwrap());
    let open = || SharedTags::open(&Server::parse(&address).unwrap()).unwrap();
    let tags = open();
    assert_eq!(tags.admit(vec![mark(1, 1)]).await.unwrap(), [true]);
    server.crash().unwrap();
    assert!(!tags.failed().is_cancelled());
    for _ in 0..2 {
        let said = tags.admit(vec![mark(1, 2)]).await;
        assert!(matches!(said, Err(StoreError::Failed)));
    }
    tags.failed().cancelled().await;
    // What was called new before the crash is not forgotten by it.
    let again = open().admit(vec![mark(1, 1), mark(1, 2)]);
    assert_eq!(again.await.unwrap(), [false, true]);
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
    for setting in ["fsync", "synchronous_commit"] {
        let Some((mut server, keys)) = system() else {
            return;
        };
        let address = server.address("postgres");
        drop(opened(&address, keys.path())); // as it ships
        let forget = format!("ALTER SYSTEM SET {setting} = off");
        administer(&address, &[&forget]);
        server.crash().unwrap(); // it reads its settings again
        let named = |why: &str| why.contains(setting) && why.contains("postgresql.conf");
        let refused = try_open(&address, keys.path());
        assert!(matches!(refused, Err(StoreError::Open(why)) if named(&why)));
        let refused = SharedTags::open(&Server::parse(&address).unwrap());
        assert!(matches!(refused, Err(StoreError::Open(why)) if named(&why)));
    }
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
    let one = at << 20; // GW-32
    let first = (store.put(ann, at, packet()), store.put(ann, at, packet()));
    let seen = store.peek(ann, 0, 9);
    let gone = (
        store.confirm(ann, one),
        store.confirm(ann, one),
        store.confirm(ann, one + 8),
    );
    let last = store.put(ann, at, packet());
    let (expired, usage) = (store.expire(at + 1), store.usage());
    let numbers = (first.0.await.unwrap(), first.1.await.unwrap());
    assert_eq!(numbers, (one, one + 1));
    assert_eq!(seen.await.unwrap().len(), 2);
    let gone = (
        gone.0.await.unwrap(),
        gone.1.await.unwrap(),
        gone.2.await.unwrap(),
    );
    assert_eq!(gone, (1, 0, 1));
    assert_eq!(last.await.unwrap(), one + 2);
    assert_eq!(expired.await.unwrap(), [(ann, 1)]);
    assert_eq!(usage.await.unwrap(), [(ann, 0)]);
}
