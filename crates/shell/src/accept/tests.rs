//! Who is let in, and how many, over real sockets.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::*;
use crate::link::tests::{certified, dialler, hello, key, target};

/// That of node 2; it admits the link keys 101 and 104.
fn door(purposes: &'static [Purpose], limits: Limits, metrics: &Metrics) -> Door {
    let clock = Clock::start();
    let nodes = [(101, 1), (104, 4)].map(|(link, id)| {
        let public = |seed| key(seed).verifying_key().to_bytes();
        (public(link), NodeId(public(id)))
    });
    let admit = move |key: &[u8; 32]| {
        let node = nodes.iter().find(|(link, _)| link == key);
        node.map(|(_, id)| *id)
    };
    Door {
        key: key(102),
        certificate: Arc::new(move || certified(2, clock)),
        purposes,
        admit: Arc::new(admit),
        limits,
        clock,
        metrics: metrics.clone(),
    }
}

/// A listener at that door. What it takes comes out of the receiver.
pub(crate) async fn open(
    purposes: &'static [Purpose],
    limits: Limits,
) -> (
    String,
    mpsc::UnboundedReceiver<Incoming>,
    Metrics,
    CancellationToken,
) {
    let (metrics, stop) = (Metrics::default(), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let door = door(purposes, limits, &metrics);
    let (taken, links) = mpsc::unbounded_channel();
    let handle = move |incoming: Incoming| {
        let taken = taken.clone();
        async move {
            let ended = incoming.ended.clone();
            taken.send(incoming).expect("the test listens");
            ended.cancelled().await;
        }
    };
    tokio::spawn(accept(listener, door, handle, stop.clone()));
    (address, links, metrics, stop)
}

async fn dial(address: &str, seed: Option<u8>, purpose: Purpose) -> Result<Link, LinkError> {
    let dialler = dialler(Clock::start(), seed);
    dialler
        .dial(&target(2, address.to_owned()), hello(purpose))
        .await
}

/// Waits for what tells the two sides of a handshake apart: the listener's verdict.
async fn ends(link: Result<Link, LinkError>) {
    if let Ok(mut link) = link {
        assert!(link.reader.frame().await.is_err());
    }
}

/// The listener counts after the dialler has heard.
async fn refused(metrics: &Metrics, expected: u64) {
    while metrics.sum("lacuna_links_refused_total") < expected {
        tokio::task::yield_now().await;
    }
    assert_eq!(metrics.sum("lacuna_links_refused_total"), expected);
}

/// LNK-7, LNK-8, ATTACKS o03
#[tokio::test]
async fn a_mix_takes_its_neighbours_and_nobody_else() {
    let (address, mut links, metrics, _stop) = open(&[Purpose::Node], Limits::default()).await;
    let neighbour = dial(&address, Some(101), Purpose::Node).await;
    let taken = links.recv().await.unwrap();
    assert_eq!(taken.node, Some(NodeId(key(1).verifying_key().to_bytes())));
    ends(dial(&address, Some(103), Purpose::Node).await).await; // not a neighbour
    ends(dial(&address, None, Purpose::Node).await).await; // no key
    ends(dial(&address, None, Purpose::Entry).await).await; // a client
    ends(dial(&address, None, Purpose::Directory).await).await;
    refused(&metrics, 4).await;
    assert_eq!(metrics.sum("lacuna_links_taken_total"), 1);
    drop(neighbour);
}

/// LNK-7: at a gateway clients need no key, nodes do.
#[tokio::test]
async fn a_gateway_takes_clients_and_its_neighbours() {
    const ALL: &[Purpose] = &[
        Purpose::Node,
        Purpose::Entry,
        Purpose::Mailbox,
        Purpose::Directory,
    ];
    let (address, mut links, metrics, _stop) = open(ALL, Limits::default()).await;
    let mut open = Vec::new();
    for purpose in [Purpose::Entry, Purpose::Mailbox, Purpose::Directory] {
        open.push(dial(&address, None, purpose).await.unwrap());
        let taken = links.recv().await.unwrap();
        assert_eq!((taken.hello.purpose, taken.node), (purpose, None));
    }
    open.push(dial(&address, Some(104), Purpose::Node).await.unwrap());
    assert!(links.recv().await.unwrap().node.is_some());
    let stranger = dial(&address, Some(103), Purpose::Node).await;
    assert!(stranger.is_err(), "its dialler knows that it has no link");
    ends(dial(&address, None, Purpose::Node).await).await;
    refused(&metrics, 2).await;
}

/// LNK-9, GW-27: a node may have a few links; the newest win.
#[tokio::test]
async fn a_node_that_dials_again_replaces_its_oldest_link() {
    let (address, mut links, _, _stop) = open(&[Purpose::Node], Limits::default()).await;
    let (mut dialled, mut taken) = (Vec::new(), Vec::new());
    const { assert!(LINKS_PER_NODE > 2, "front ends and a restart") };
    for _ in 0..LINKS_PER_NODE {
        dialled.push(dial(&address, Some(101), Purpose::Node).await.unwrap());
        taken.push(links.recv().await.unwrap());
    }
    assert!(taken.iter().all(|link| !link.ended.is_cancelled()));
    for oldest in 0..2 {
        dialled.push(dial(&address, Some(101), Purpose::Node).await.unwrap());
        taken.push(links.recv().await.unwrap());
        taken.remove(0).ended.cancelled().await;
        assert!(dialled[oldest].reader.frame().await.is_err());
        assert!(taken.iter().all(|link| !link.ended.is_cancelled()));
    }
    // One that ends by itself makes room.
    taken.pop().unwrap().ended.cancel();
    drop(dialled.pop());
    let _again = dial(&address, Some(101), Purpose::Node).await.unwrap();
    let _again = links.recv().await.unwrap();
    assert!(taken.iter().all(|link| !link.ended.is_cancelled()));
}

/// LNK-9
#[tokio::test]
async fn clients_are_limited_and_counted_out_again() {
    let limits = Limits {
        handshakes: 8,
        links: 1,
        links_per_source: 9,
    };
    let (address, mut links, metrics, _stop) = open(&[Purpose::Entry], limits).await;
    let first = dial(&address, None, Purpose::Entry).await.unwrap();
    let taken = links.recv().await.unwrap();
    ends(dial(&address, None, Purpose::Entry).await).await;
    refused(&metrics, 1).await;
    // The first one ends: there is room again, as soon as its task has gone.
    taken.ended.cancel();
    drop((first, taken));
    while metrics.sum("lacuna_links_taken_total") < 2 {
        let again = dial(&address, None, Purpose::Entry).await;
        let refused = async { ends(again).await };
        tokio::select! {
            () = refused => {}
            taken = links.recv() => assert!(taken.is_some()),
        }
    }
}

/// LNK-9, ATTACKS g02: whoever connects and says nothing holds nobody up.
#[tokio::test]
async fn slow_handshakes_wait_on_each_other() {
    let limits = Limits {
        handshakes: 4,
        ..Limits::default()
    };
    let (address, mut links, metrics, _stop) = open(&[Purpose::Entry], limits).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(TcpStream::connect(&address).await.unwrap());
    }
    let _honest = dial(&address, None, Purpose::Entry).await.unwrap();
    assert!(links.recv().await.is_some());
    // All that were more than four at once were let go.
    refused(&metrics, 17).await;
}

/// LNK-9: clients and silent strangers, as many as may be, don't keep a node out.
#[tokio::test]
async fn a_node_gets_in_when_all_places_are_taken() {
    let limits = Limits {
        handshakes: 2,
        links: 1,
        ..Limits::default()
    };
    let both = &[Purpose::Node, Purpose::Entry];
    let (address, mut links, metrics, _stop) = open(both, limits).await;
    let _client = dial(&address, None, Purpose::Entry).await.unwrap();
    let _taken = links.recv().await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..limits.handshakes {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    let _neighbour = dial(&address, Some(101), Purpose::Node).await.unwrap();
    assert!(links.recv().await.unwrap().node.is_some());
    refused(&metrics, 1).await;
}

/// LNK-9: the age of a handshake does not tell whether it is the one that ends.
#[test]
fn each_handshake_is_drawn_alike() {
    let limits = Limits {
        handshakes: 4,
        ..Limits::default()
    };
    let (metrics, stop) = (Metrics::default(), CancellationToken::new());
    let mut ended = [0; 4];
    for _ in 0..1000 {
        let hall = Arc::new(Hall {
            door: door(&[Purpose::Node], limits, &metrics),
            guests: Mutex::default(),
        });
        let enter = || hall.enter([127, 0, 0, 1].into(), &stop).unwrap();
        let there = [(); 4].map(|()| enter());
        let is_over = |guest: &Guest| guest.ended.is_cancelled();
        assert!(!there.iter().any(is_over), "there is room");
        assert!(!is_over(&enter()));
        assert_eq!(there.iter().filter(|guest| is_over(guest)).count(), 1);
        ended[there.iter().position(is_over).unwrap()] += 1;
    }
    // 250 each, with a standard deviation of 14.
    assert!(ended.iter().all(|count| (150..350).contains(count)));
}

/// LNK-9, ATTACKS g02: bytes that are no TLS end their connection and are counted.
#[tokio::test]
async fn garbage_is_hung_up_on() {
    let (address, mut links, metrics, _stop) = open(&[Purpose::Entry], Limits::default()).await;
    for (i, byte) in (1..).zip([0x00, 0x16, 0x17, 0xff]) {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        let _ = socket.write_all(&[byte; 20_000]).await;
        while socket.read(&mut [0; 100]).await.is_ok_and(|read| read > 0) {}
        refused(&metrics, i).await;
    }
    let _honest = dial(&address, None, Purpose::Entry).await.unwrap();
    assert!(links.recv().await.is_some());
}

#[tokio::test]
async fn a_stop_ends_every_link() {
    let (address, mut links, _, stop) = open(&[Purpose::Entry], Limits::default()).await;
    let mut link = dial(&address, None, Purpose::Entry).await.unwrap();
    drop(links.recv().await.unwrap());
    stop.cancel();
    assert!(link.reader.frame().await.is_err());
}
