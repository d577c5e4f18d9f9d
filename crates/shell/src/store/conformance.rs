//! What every engine of mailboxes does, whatever it is built on: the suite that each passes.
//!
//! Spec: docs/spec/gateway.md, rules GW-10, GW-21, GW-23, GW-28, GW-29, GW-32.
//!
//! | check                             | what                                                     |
//! |-----------------------------------|----------------------------------------------------------|
//! | [`alone`]                         | numbers, order, confirming, expiry, quota, restarts      |
//! | [`many_putters`]                  | numbers are given once, and rise for each putter         |
//! | [`numbers`]                       | an empty store gives higher ones than one that was lost  |
//! | [`front_ends`]                    | two engines on one store: what one changes the other     |
//! |                                   | finds and is told, quota and openings are of both        |
//! | [`kill_a_putter`], [`holds_all`]  | what was answered survives `kill -9`                     |
//! | [`fill_a_day`], [`day_opens`]     | a copied database does not open after its day            |
//!
//! An engine's tests open it with room for [`QUOTA`] packets in each mailbox. Everything here
//! panics where the engine differs.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{self, BufRead, BufReader, Write},
    process::{Command, Stdio},
    thread,
};

use proto::{
    MailboxId,
    gateway::{Change, Kept},
};
use sphinx::Packet;

use super::{MailboxStore, StoreError};

/// Packets that one mailbox holds in these tests.
pub(super) const QUOTA: u64 = 500;
/// Names the store to the process that is killed.
pub(super) const CHILD: &str = "LACUNA_STORE_TEST_CHILD";
/// When the day of [`fill_a_day`] begins.
pub(super) const DAY_S: u64 = 20_000 * 86_400;
/// The day after the one of [`fill_a_day`] begins.
pub(super) const NEXT_DAY_S: u64 = DAY_S + 86_400;
const ANN: MailboxId = MailboxId([1; 32]);
const BOB: MailboxId = MailboxId([2; 32]);

fn packet(byte: u8) -> Box<Packet> {
    Box::new([byte; sphinx::PACKET_LEN])
}

/// Of a store that no other process uses. `open` opens the same store again.
pub(super) async fn alone<S: MailboxStore>(mut open: impl FnMut() -> S) {
    let (ann, bob, carl) = (ANN, BOB, MailboxId([3; 32]));
    let kept = |seq: u64, stored_at_s: u64, byte: u8| Kept {
        seq,
        stored_at_s,
        packet: packet(byte),
    };
    let store = open();

    // Nobody's packet is not stored.
    let nobody = store.put(ann, 10, packet(0)).await;
    assert!(matches!(nobody, Err(StoreError::NoMailbox)));
    assert!(store.usage().await.expect("usage").is_empty());

    // Numbers rise within a mailbox, whatever other mailboxes do.
    for mailbox in [ann, bob, ann] {
        store.register(mailbox).await.expect("register");
    }
    let calls = [(ann, 10), (bob, 11), (ann, 12), (ann, 13)];
    let numbered = (0u8..)
        .zip(calls)
        .map(|(i, (mailbox, at))| store.put(mailbox, at, packet(i)));
    let mut numbers = Vec::new();
    for put in numbered.collect::<Vec<_>>() {
        numbers.push(put.await.expect("put"));
    }
    assert!(numbers[0] >= 1 && numbers[0] < numbers[2] && numbers[2] < numbers[3]);
    let all = store.peek(ann, 0, 10).await.expect("peek");
    let [first, second, third] = [numbers[0], numbers[2], numbers[3]];
    assert_eq!(
        all,
        [kept(first, 10, 0), kept(second, 12, 2), kept(third, 13, 3)]
    );
    let window = store.peek(ann, first, 1).await.expect("peek");
    assert_eq!(window, [kept(second, 12, 2)]);
    assert!(store.peek(ann, third, 9).await.expect("peek").is_empty());
    assert!(store.peek(carl, 0, 9).await.expect("peek").is_empty());

    // What is confirmed goes, once, and nothing else does.
    assert_eq!(store.confirm(ann, second).await.expect("confirm"), 2);
    assert_eq!(store.confirm(ann, second).await.expect("confirm"), 0);
    assert_eq!(store.confirm(carl, u64::MAX).await.expect("confirm"), 0);
    let mut usage = store.usage().await.expect("usage");
    usage.sort_unstable();
    assert_eq!(usage, [(ann, 1), (bob, 1)]);

    // Another process finds the same, and goes on numbering where this one stopped, also in a
    // mailbox that has been emptied.
    assert_eq!(store.confirm(ann, u64::MAX).await.expect("confirm"), 1);
    drop(store);
    let store = open();
    assert!(store.peek(ann, 0, 9).await.expect("peek").is_empty());
    let again = store.put(ann, 20, packet(9)).await.expect("put");
    assert!(again > third, "a number was given twice");
    assert_eq!(
        store.peek(bob, 0, 9).await.expect("peek"),
        [kept(numbers[1], 11, 1)]
    );

    // What is too old goes, in every mailbox.
    let mut expired = store.expire(20).await.expect("expire");
    expired.sort_unstable();
    assert_eq!(expired, [(bob, 1)]);
    assert_eq!(
        store.peek(ann, 0, 9).await.expect("peek"),
        [kept(again, 20, 9)]
    );
    let mut usage = store.usage().await.expect("usage");
    usage.sort_unstable();
    assert_eq!(usage, [(ann, 1), (bob, 0)]);

    // A mailbox takes its quota and no more, others are none the worse, and what goes makes room.
    let full = fill(&store, ann, 20, 600).await;
    assert_eq!(full, (QUOTA - 1, 600 - (QUOTA - 1)), "one was there before");
    store
        .put(bob, 21, packet(1))
        .await
        .expect("room for others");
    let held = store.peek(ann, 0, 600).await.expect("peek");
    assert!(held.is_sorted_by(|a, b| a.seq < b.seq));
    assert!(left_out(&held).is_empty());
    let upto = held.get(99).expect("the hundredth").seq;
    assert_eq!(store.confirm(ann, upto).await.expect("confirm"), 100);
    assert_eq!(fill(&store, ann, 20, 200).await, (100, 100));
    // Its owner can see that it was full: one number is left out.
    let last = held.last().expect("many").seq;
    let held = store.peek(ann, 0, 600).await.expect("peek");
    assert_eq!(left_out(&held), [last + 1]);
    drop(store);
    let store = open();
    assert_eq!(
        fill(&store, ann, 20, 1).await,
        (0, 1),
        "full after a restart"
    );
    assert_eq!(store.expire(NEXT_DAY_S).await.expect("expire").len(), 2);

    // The key of that time is gone, also for what is asked in the same breath; numbers go on.
    let upto = store.put(ann, NEXT_DAY_S, packet(1)).await.expect("put");
    let day_after = NEXT_DAY_S + 86_400;
    let (expired, late) = (
        store.expire(day_after),
        store.put(ann, NEXT_DAY_S, packet(1)),
    );
    assert_eq!(expired.await.expect("expire"), [(ann, 1)]);
    assert!(matches!(late.await, Err(StoreError::TooOld)));
    let next = store.put(ann, day_after, packet(1)).await.expect("put");
    assert!(next > upto);
}

/// The first of each run of numbers that are missing in between.
fn left_out(held: &[Kept]) -> Vec<u64> {
    let next = |two: &[Kept]| (two[1].seq > two[0].seq + 1).then_some(two[0].seq + 1);
    held.windows(2).filter_map(next).collect()
}

/// Four threads put into two mailboxes at once, through two engines on one store or one twice.
pub(super) async fn many_putters<S: MailboxStore>(engines: [&S; 2]) {
    let [store, _] = engines;
    for mailbox in [ANN, BOB] {
        store.register(mailbox).await.expect("register");
    }
    let putter = |n: usize| {
        let put = |i: u8| {
            let mailbox = [ANN, BOB][usize::from(i % 2)];
            (mailbox, engines[n % 2].put(mailbox, DAY_S, packet(i)))
        };
        (0..100).map(put).collect::<Vec<_>>()
    };
    let asked: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = (0..4).map(|n| scope.spawn(move || putter(n))).collect();
        let ended = started
            .into_iter()
            .map(|thread| thread.join().expect("it put"));
        ended.collect()
    });
    let mut given = [Vec::new(), Vec::new()];
    for puts in asked {
        let mut own = [Vec::new(), Vec::new()];
        for (mailbox, put) in puts {
            own[usize::from(mailbox == BOB)].push(put.await.expect("put"));
        }
        for (all, own) in given.iter_mut().zip(own) {
            assert!(own.len() == 50 && own.is_sorted_by(|a, b| a < b));
            all.extend(own);
        }
    }
    for (mailbox, mut numbers) in [ANN, BOB].into_iter().zip(given) {
        numbers.sort_unstable();
        let kept = store.peek(mailbox, 0, 400).await.expect("peek");
        let found: Vec<u64> = kept.iter().map(|kept| kept.seq).collect();
        assert_eq!(found, numbers, "a number was given twice, or not kept");
    }
}

/// Numbers follow one another, and those of a store that knows nothing lie above all that another gave
/// before. `open` opens the first store, or the second, again.
pub(super) async fn numbers<S: MailboxStore>(mut open: impl FnMut(usize) -> S) {
    let put = async |store: &S, at_s| store.put(ANN, at_s, packet(1)).await.expect("put");
    let (mut given, mut bobs) = (Vec::new(), Vec::new());
    // The first is opened twice; then it is lost.
    for (which, at_s) in [(0, DAY_S), (0, DAY_S + 9), (1, DAY_S + 10)] {
        let store = open(which);
        store.register(ANN).await.expect("register");
        for later_s in 0..9 {
            given.push(put(&store, at_s + later_s / 4).await);
        }
        // Registered later.
        store.register(BOB).await.expect("register");
        let put = store.put(BOB, at_s + 2, packet(1));
        bobs.push(put.await.expect("put"));
    }
    assert!(bobs.is_sorted_by(|a, b| a < b), "{bobs:?}");
    for (i, two) in given.windows(2).enumerate() {
        let begins = (i + 1) % 9 == 0;
        assert_eq!(two[1] > two[0] + 1, begins, "{i}: {two:?}");
        assert!(two[1] > two[0], "{i}: {two:?}");
    }
}

/// Of a store that front ends share. `open` opens it once more.
pub(super) async fn front_ends<S: MailboxStore>(mut open: impl FnMut() -> S) {
    let (one, two) = (open(), open());
    let told = async |store: &S| {
        let changes = store.changes().expect("shared").await.expect("changes");
        let of = |change: Change| (change.mailbox, change);
        changes.into_iter().map(of).collect::<BTreeMap<_, _>>()
    };
    let change = |packets, highest, openings| Change {
        mailbox: ANN,
        packets,
        highest,
        openings,
    };
    one.register(ANN).await.expect("register");
    assert!(told(&two).await.get(&ANN) == Some(&change(0, 0, 0)));
    assert!(told(&two).await.is_empty(), "once");

    // What one stores the other finds and is told of; numbers are of both.
    let first = one.put(ANN, DAY_S, packet(1)).await.expect("put");
    let second = two.put(ANN, DAY_S, packet(2)).await.expect("put");
    assert!(first < second);
    for store in [&one, &two] {
        assert!(told(store).await.get(&ANN) == Some(&change(2, second, 0)));
        let kept = store.peek(ANN, 0, 9).await.expect("peek");
        let bytes: Vec<u8> = kept.iter().map(|kept| kept.packet[0]).collect();
        assert_eq!(bytes, [1, 2]);
    }
    assert_eq!(two.confirm(ANN, first).await.expect("confirm"), 1);
    assert_eq!(one.confirm(ANN, first).await.expect("confirm"), 0);
    assert!(told(&one).await.get(&ANN) == Some(&change(1, second, 0)));

    // Openings are counted over both.
    for (store, openings) in [(&one, 1), (&two, 2), (&two, 3), (&one, 4)] {
        let opened = store.open(ANN).expect("shared").await.expect("open");
        assert_eq!(opened, openings);
    }
    assert!(told(&two).await.get(&ANN) == Some(&change(1, second, 4)));

    // The quota as well.
    let (taken, _) = fill(&one, ANN, DAY_S, QUOTA / 2).await;
    assert_eq!(
        fill(&two, ANN, DAY_S, QUOTA).await,
        (QUOTA - 1 - taken, 1 + taken)
    );
    assert_eq!(fill(&one, ANN, DAY_S, 1).await, (0, 1));
    let expired = one.expire(DAY_S + 1).await.expect("expire");
    assert_eq!(expired, [(ANN, QUOTA)]);
    assert!(told(&two).await.get(&ANN).map(|change| change.packets) == Some(0));
    assert_eq!(fill(&two, ANN, DAY_S, 1).await, (1, 0));

    // One that opens the store now is told what comes, and finds what was.
    drop(one);
    let one = open();
    let usage = one.usage().await.expect("usage");
    assert_eq!(usage, [(ANN, 1)]);
    assert!(told(&one).await.is_empty());
    two.register(BOB).await.expect("register");
    assert!(told(&one).await.contains_key(&BOB));
    assert_eq!(one.confirm(ANN, u64::MAX).await.expect("confirm"), 1);
    many_putters([&one, &two]).await;
}

/// Puts `count` packets at once; says how many were taken, and how many refused for the quota.
async fn fill(store: &impl MailboxStore, mailbox: MailboxId, at_s: u64, count: u64) -> (u64, u64) {
    let puts: Vec<_> = (0..count)
        .map(|_| store.put(mailbox, at_s, packet(7)))
        .collect();
    let (mut taken, mut refused) = (0, 0);
    for put in puts {
        match put.await {
            Ok(_) => taken += 1,
            Err(StoreError::Full) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    (taken, refused)
}

/// The child's part of [`kill_a_putter`]: says each number once it has it, and never closes the store.
pub(super) async fn put_until_killed(store: &impl MailboxStore) {
    store.register(ANN).await.expect("register");
    for i in 0..200 {
        let put = store.put(ANN, DAY_S, packet(i)).await;
        let seq = put.expect("put");
        let mut out = io::stdout().lock();
        writeln!(out, "stored {seq} {i}").expect("the parent reads");
        out.flush().expect("the parent reads");
    }
    // Until it is killed, or its parent is gone.
    io::stdin().read_line(&mut String::new()).expect("a pipe");
}

/// Runs the test `child` of this program on `store`, kills it with SIGKILL in the middle of its
/// work, and says which numbers and first bytes it had been answered.
pub(super) fn kill_a_putter(child: &str, store: &OsStr) -> Vec<(u64, u8)> {
    let program = std::env::current_exe().expect("a path");
    let mut child = Command::new(program)
        .args([child, "--exact", "--nocapture"])
        .env(CHILD, store)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let stored = lines.filter_map(|line| {
        let line = line.ok()?;
        let (_, said) = line.split_once("stored ")?;
        let (seq, byte) = said.split_once(' ')?;
        Some((seq.parse().ok()?, byte.parse().ok()?))
    });
    let seen = stored.take(100).collect();
    child.kill().expect("killed"); // SIGKILL
    child.wait().expect("ended");
    seen
}

/// Whether all that the killed process was answered is there, and numbering goes on above it.
pub(super) async fn holds_all(store: &impl MailboxStore, seen: Vec<(u64, u8)>) {
    assert_eq!(seen.len(), 100);
    let kept = store.peek(ANN, 0, 1000).await.expect("peek");
    let first: Vec<(u64, u8)> = kept.iter().map(|kept| (kept.seq, kept.packet[0])).collect();
    assert_eq!(first.get(..100), Some(seen.as_slice()));
    let next = store.put(ANN, DAY_S, packet(0)).await.expect("put");
    assert!(kept.last().is_some_and(|last| next > last.seq));
}

/// Stores a packet on one day and one on the next.
pub(super) async fn fill_a_day(store: &impl MailboxStore) {
    store.register(ANN).await.expect("register");
    for stored_at_s in [DAY_S, NEXT_DAY_S] {
        store.put(ANN, stored_at_s, packet(1)).await.expect("put");
    }
}

/// Whether the packet of that day opens, as it should or should not; the next day's always does.
pub(super) async fn day_opens(store: &impl MailboxStore, opens: bool) {
    let kept = store.peek(ANN, 0, 9).await.expect("peek");
    let days: Vec<u64> = kept.iter().map(|kept| kept.stored_at_s).collect();
    let expected = [DAY_S, NEXT_DAY_S];
    assert_eq!(days, if opens { &expected[..] } else { &expected[1..] });
    let usage = store.usage().await.expect("usage");
    assert_eq!(usage, [(ANN, 2)], "the copy has both");
}
