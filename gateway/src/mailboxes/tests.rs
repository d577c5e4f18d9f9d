//! Against the file's engine, and stores that are busy or shared.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::{path::Path, sync::Mutex};

use shell::store::{self, redb};
use sphinx::Packet;

use super::*;

const ANN: MailboxId = MailboxId([1; 32]);

fn opened(folder: &Path, quota: u64) -> store::Mailboxes {
    let (file, keys) = (folder.join("mailboxes"), folder.join("mailbox-keys"));
    redb::open(&file, &keys, quota).unwrap()
}

fn store_packet(mailbox: MailboxId, byte: u8) -> Output {
    Output::Store {
        mailbox,
        stored_at_s: 7,
        packet: Box::new([byte; sphinx::PACKET_LEN]),
    }
}

/// GW-10, GW-11: every call is answered, in the order of the calls.
#[tokio::test]
async fn answers_come_in_the_order_of_the_calls() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path(), u64::MAX);
    let (machine, mut inbox) = mpsc::channel(16);
    let metrics = Metrics::default();
    let started = Mailboxes::start(store, machine, &metrics).await.unwrap();
    let (mailboxes, answers, registered) = started;
    assert!(matches!(registered, Input::Registered(held) if held.is_empty()));
    tokio::spawn(answers.run());

    let (after, limit, nobody) = (0, 9, MailboxId([2; 32]));
    for output in [
        Output::Register { mailbox: ANN },
        store_packet(ANN, 3),
        store_packet(nobody, 4),
        Output::Peek {
            mailbox: ANN,
            after,
            limit,
        },
        Output::Confirm {
            mailbox: ANN,
            upto: u64::MAX,
        },
        store_packet(ANN, 5),
        Output::Expire { before_s: 8 },
    ] {
        assert!(mailboxes.carry_out(output).is_none());
    }
    let Some(Input::Stored { mailbox: ANN, seq }) = inbox.recv().await else {
        panic!("stored first");
    };
    let refused = inbox.recv().await;
    assert!(matches!(refused, Some(Input::Refused { mailbox }) if mailbox == nobody));
    let Some(Input::Peeked { packets, .. }) = inbox.recv().await else {
        panic!("then peeked");
    };
    assert_eq!((packets.len(), packets[0].seq), (1, seq));
    let removed = inbox.recv().await;
    assert!(matches!(removed, Some(Input::Removed { packets: 1, .. })));
    assert!(matches!(inbox.recv().await, Some(Input::Stored { .. })));
    let expired = inbox.recv().await;
    assert!(matches!(expired, Some(Input::Removed { packets: 1, .. })));
    let names = [
        "lacuna_mailbox_packets_stored_total",
        "lacuna_mailbox_packets_confirmed_total",
        "lacuna_mailbox_packets_expired_total",
    ];
    let counts = names.map(|name| metrics.sum(name));
    assert_eq!(counts, [2, 1, 1]);
    assert_eq!(metrics.sum("lacuna_mailbox_packets_held"), 0);
}

/// GW-10, GW-23: what the store refuses for itself is a drop, and no failure.
#[tokio::test]
async fn a_full_mailbox_and_a_day_that_is_over_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (machine, mut inbox) = mpsc::channel(16);
    let store = opened(folder.path(), 1);
    let started = Mailboxes::start(store, machine, &Metrics::default()).await;
    let (mailboxes, calls, _) = started.unwrap();
    tokio::spawn(calls.run());
    mailboxes.carry_out(Output::Register { mailbox: ANN });
    for output in [
        store_packet(ANN, 1),
        store_packet(ANN, 2),
        Output::Expire { before_s: 86_400 },
        store_packet(ANN, 3),
    ] {
        mailboxes.carry_out(output);
    }
    assert!(matches!(inbox.recv().await, Some(Input::Stored { .. })));
    assert!(matches!(inbox.recv().await, Some(Input::Refused { .. })));
    assert!(matches!(inbox.recv().await, Some(Input::Removed { .. })));
    assert!(matches!(inbox.recv().await, Some(Input::Refused { .. })));
}

#[tokio::test]
async fn what_is_not_the_stores_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path(), u64::MAX);
    let (machine, _inbox) = mpsc::channel(1);
    let started = Mailboxes::start(store, machine, &Metrics::default()).await;
    let (mailboxes, _answers, _) = started.unwrap();
    let close = Output::Close {
        link: proto::LinkId(1),
    };
    assert!(mailboxes.carry_out(close.clone()) == Some(close));
}

/// A store that is busy for the first calls, unless they are packets; and for packets that
/// begin with 9.
struct Crowded {
    store: store::Mailboxes,
    busy: AtomicUsize,
}

impl Crowded {
    fn admit<T>(&self, call: impl FnOnce(&store::Mailboxes) -> Reply<T>) -> Reply<T> {
        let one_less = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        match self.busy.fetch_update(order, order, one_less) {
            Ok(_) => Reply::busy(),
            Err(_) => call(&self.store),
        }
    }
}

impl MailboxStore for Crowded {
    fn register(&self, mailbox: MailboxId) -> Reply<()> {
        self.admit(|store| store.register(mailbox))
    }
    fn put(&self, mailbox: MailboxId, stored_at_s: u64, packet: Box<Packet>) -> Reply<u64> {
        match packet[0] {
            9 => Reply::busy(),
            _ => self.store.put(mailbox, stored_at_s, packet),
        }
    }
    fn peek(&self, mailbox: MailboxId, after: u64, limit: usize) -> Reply<Vec<Kept>> {
        self.admit(|store| store.peek(mailbox, after, limit))
    }
    fn confirm(&self, mailbox: MailboxId, upto: u64) -> Reply<u64> {
        self.admit(|store| store.confirm(mailbox, upto))
    }
    fn expire(&self, before_s: u64) -> Reply<Vec<(MailboxId, u64)>> {
        self.admit(|store| store.expire(before_s))
    }
    fn usage(&self) -> Reply<Vec<(MailboxId, u64)>> {
        self.store.usage()
    }
}

/// GW-20: a busy store ends nothing: packets are refused above a limit, the rest waits and is
/// carried out in order.
#[tokio::test]
async fn a_busy_store_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = Crowded {
        store: opened(folder.path(), u64::MAX),
        busy: AtomicUsize::new(3),
    };
    let (machine, mut inbox) = mpsc::channel(16);
    let started = Mailboxes::start(store, machine, &Metrics::default()).await;
    let (mailboxes, calls, _) = started.unwrap();

    mailboxes.carry_out(Output::Register { mailbox: ANN });
    mailboxes.carry_out(store_packet(ANN, 9));
    for _ in 0..PUTS_MAX {
        mailboxes.carry_out(store_packet(ANN, 1));
    }
    let (after, limit, upto) = (0, 9, u64::MAX);
    let mailbox = ANN;
    mailboxes.carry_out(Output::Peek {
        mailbox,
        after,
        limit,
    });
    mailboxes.carry_out(Output::Confirm { mailbox, upto });
    let running = tokio::spawn(calls.run());

    let (mut refused, mut stored) = (0, 0);
    let peeked = loop {
        let answer = inbox.recv().await.unwrap();
        if let Input::Peeked { packets, .. } = answer {
            break packets;
        }
        refused += usize::from(matches!(answer, Input::Refused { .. }));
        stored += usize::from(matches!(answer, Input::Stored { .. }));
    };
    // One that the store had no room for, one above the limit; the mailbox was there first.
    assert_eq!((refused, stored, peeked.len()), (2, PUTS_MAX - 1, 9));
    let removed = inbox.recv().await;
    let all = PUTS_MAX as u64 - 1;
    assert!(matches!(removed, Some(Input::Removed { packets, .. }) if packets == all));
    assert!(!running.is_finished());
}

/// A store that another gateway shares: it opens what is opened here, and changes it once.
struct Shared {
    store: store::Mailboxes,
    change: Mutex<Option<Change>>,
}

impl MailboxStore for Shared {
    fn register(&self, mailbox: MailboxId) -> Reply<()> {
        self.store.register(mailbox)
    }
    fn put(&self, mailbox: MailboxId, stored_at_s: u64, packet: Box<Packet>) -> Reply<u64> {
        self.store.put(mailbox, stored_at_s, packet)
    }
    fn peek(&self, mailbox: MailboxId, after: u64, limit: usize) -> Reply<Vec<Kept>> {
        self.store.peek(mailbox, after, limit)
    }
    fn confirm(&self, mailbox: MailboxId, upto: u64) -> Reply<u64> {
        self.store.confirm(mailbox, upto)
    }
    fn expire(&self, before_s: u64) -> Reply<Vec<(MailboxId, u64)>> {
        self.store.expire(before_s)
    }
    fn usage(&self) -> Reply<Vec<(MailboxId, u64)>> {
        self.store.usage()
    }
    fn open(&self, mailbox: MailboxId) -> Option<Reply<u64>> {
        let (answer, reply) = Reply::awaited();
        answer.send(Ok(2)).unwrap();
        *self.change.lock().unwrap() = Some(Change {
            mailbox,
            packets: 5,
            highest: 7,
            openings: 3,
        });
        Some(reply)
    }
    fn changes(&self) -> Option<Reply<Vec<Change>>> {
        let (answer, reply) = Reply::awaited();
        let change = self.change.lock().unwrap().take();
        answer.send(Ok(change.into_iter().collect())).unwrap();
        Some(reply)
    }
}

/// GW-28, GW-29: openings are counted, and what others change is asked for and told.
#[tokio::test]
async fn what_others_change_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = Shared {
        store: opened(folder.path(), u64::MAX),
        change: Mutex::default(),
    };
    let (machine, mut inbox) = mpsc::channel(16);
    let metrics = Metrics::default();
    let started = Mailboxes::start(store, machine, &metrics).await.unwrap();
    let (mailboxes, calls, _) = started;
    tokio::spawn(calls.run());
    for output in [
        Output::Register { mailbox: ANN },
        Output::Open { mailbox: ANN },
    ] {
        assert!(mailboxes.carry_out(output).is_none());
    }
    let opened = inbox.recv().await;
    assert!(matches!(
        opened,
        Some(Input::Opened {
            mailbox: ANN,
            openings: 2
        })
    ));
    let Some(Input::Changed(changes)) = inbox.recv().await else {
        panic!("told");
    };
    assert_eq!((changes.len(), changes[0].openings), (1, 3));
    assert_eq!(metrics.sum("lacuna_mailbox_packets_held"), 5);
    assert_eq!(metrics.sum("lacuna_mailboxes"), 1);
}
