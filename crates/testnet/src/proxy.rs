//! A wire-tap: a TCP relay in front of one gateway or mix that sees what an observer of the link sees.
//!
//! Spec: docs/spec/link.md, rule LNK-1 (every frame has one length).
//!
//! It relays bytes in both directions and reads the headers of the TLS records that pass. It
//! holds no key, so all it knows is lengths, which is the point: the sizes that the demo prints
//! were seen from outside every role.
//!
//! | record                      | bytes on the wire after the 5-byte header                  |
//! |-----------------------------|------------------------------------------------------------|
//! | handshake, in clear         | type 20 or 22; not counted                                 |
//! | handshake, encrypted        | the first of type 23 in each direction; not counted        |
//! | alert (the end of a link)   | 2 + 17                                                     |
//! | data                        | n + 17: content type (1) and tag (16)                      |
//!
//! A dialler without a TLS client key sends a first encrypted record of less than
//! 100 bytes (`Finished` alone): that is a client, whose every record must be
//! one frame. A node presents its key; its records may hold several frames, and are counted as
//! the frames they hold if they hold whole ones.
//!
//! All links of a tap can be cut at once, and none let through from then on. Deliberately not here: decryption, delay, loss.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use proto::wire::FRAME_LEN;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

const HEADER_LEN: usize = 5;
const APPLICATION_DATA: u8 = 23;
/// What TLS 1.3 adds to the plaintext of a record: its content type and the tag.
const SEAL_LEN: usize = 17;
const ALERT_LEN: usize = 2;
/// `Finished` alone is at most 4 + 48 + 17 bytes; with a key and its proof it is over 180.
const CLIENT_FINISHED_MAX: usize = 100;

/// How often each size was seen: bytes to times.
pub type Sizes = BTreeMap<usize, u64>;

/// What passed a tap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Sizes of the frames on client links, both directions: one record is one frame.
    pub client: Sizes,
    /// Sizes of the frames on node links: whole frames within a record, else the record.
    pub node: Sizes,
}

impl Seen {
    /// Adds what another tap saw.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.client, &other.client),
            (&mut self.node, &other.node),
        ] {
            for (size, times) in theirs {
                *mine.entry(*size).or_default() += times;
            }
        }
    }
}

/// One running relay.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    target: watch::Sender<Option<SocketAddr>>,
    cuts: watch::Sender<u64>,
    stop: CancellationToken,
}

impl Tap {
    /// Listens on a free port of 127.0.0.1. Links wait until [`Tap::aim`] says where they go.
    ///
    /// # Errors
    ///
    /// If no port can be bound.
    pub async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let tap = Self {
            address: listener.local_addr()?,
            seen: Arc::default(),
            target: watch::Sender::new(None),
            cuts: watch::Sender::new(0),
            stop: CancellationToken::new(),
        };
        tokio::spawn(accept(
            listener,
            tap.target.subscribe(),
            Arc::clone(&tap.seen),
            tap.cuts.subscribe(),
            tap.stop.clone(),
        ));
        Ok(tap)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Relays links to `target`; also after a restart of what listens there.
    pub fn aim(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    /// Ends every link that it relays now.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends every link that it relays now, and lets nothing through until it is aimed again: whoever
    /// dials finds a peer that says nothing.
    pub fn shut(&self) {
        self.target.send_replace(None);
        self.cut();
    }

    /// What it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    target: watch::Receiver<Option<SocketAddr>>,
    seen: Arc<Mutex<Seen>>,
    cuts: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => {
                let Ok((link, _)) = accepted else { continue };
                let relaying = relay(link, target.clone(), Arc::clone(&seen));
                let mut cut = cuts.clone();
                cut.mark_unchanged();
                links.spawn(async move {
                    tokio::select! { ended = relaying => ended, _ = cut.changed() => Ok(()) }
                });
            }
            Some(_) = links.join_next() => {}
        }
    }
}

/// One link, until either side ends it.
async fn relay(
    near: TcpStream,
    mut target: watch::Receiver<Option<SocketAddr>>,
    seen: Arc<Mutex<Seen>>,
) -> io::Result<()> {
    let Ok(at) = target.wait_for(Option::is_some).await.map(|at| *at) else {
        return Ok(());
    };
    let Some(at) = at else { return Ok(()) };
    let far = TcpStream::connect(at).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    // Which kind of link it is shows in the dialler's first encrypted record.
    let dialler = watch::Sender::new(None);
    let answers = dialler.subscribe();
    let up = copy(near_in, far_out, Party::Dialler(dialler), &seen);
    let down = copy(far_in, near_out, Party::Dialled(answers), &seen);
    tokio::select! { ended = up => ended, ended = down => ended }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkKind {
    Client,
    Node,
}

enum Party {
    Dialler(watch::Sender<Option<LinkKind>>),
    Dialled(watch::Receiver<Option<LinkKind>>),
}

impl Party {
    /// Called with the length of the first encrypted record.
    fn first(&self, len: usize) {
        if let Self::Dialler(kind) = self {
            kind.send_replace(Some(if len < CLIENT_FINISHED_MAX {
                LinkKind::Client
            } else {
                LinkKind::Node
            }));
        }
    }

    /// What kind of link it is. The dialled side may speak before the dialler has shown it.
    async fn kind(&mut self) -> LinkKind {
        match self {
            Self::Dialler(kind) => kind.borrow().unwrap_or(LinkKind::Node),
            Self::Dialled(kind) => kind
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|kind| *kind)
                .unwrap_or(LinkKind::Node),
        }
    }
}

/// Relays record by record.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut party: Party,
    seen: &Mutex<Seen>,
) -> io::Result<()> {
    let mut record = Vec::new();
    let mut encrypted = 0_u64;
    loop {
        record.resize(HEADER_LEN, 0);
        from.read_exact(&mut record).await?;
        let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.resize(HEADER_LEN + len, 0);
        from.read_exact(&mut record[HEADER_LEN..]).await?;
        let protected = record[0] == APPLICATION_DATA;
        if protected && encrypted == 0 {
            party.first(len);
        }
        to.write_all(&record).await?;
        if protected && encrypted > 0 {
            let kind = party.kind().await;
            count(
                &mut seen.lock().unwrap_or_else(PoisonError::into_inner),
                kind,
                len,
            );
        }
        encrypted += u64::from(protected);
    }
}

/// Counts the record of `len` protected bytes.
fn count(seen: &mut Seen, kind: LinkKind, len: usize) {
    let plain = len.saturating_sub(SEAL_LEN);
    match kind {
        _ if plain == ALERT_LEN => {}
        LinkKind::Client => *seen.client.entry(plain).or_default() += 1,
        LinkKind::Node if plain > 0 && plain.is_multiple_of(FRAME_LEN) => {
            *seen.node.entry(FRAME_LEN).or_default() += (plain / FRAME_LEN) as u64;
        }
        LinkKind::Node => *seen.node.entry(plain).or_default() += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, len: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        let mut bytes = vec![kind, 3, 3, high, low];
        bytes.resize(HEADER_LEN + len, 0);
        bytes
    }

    /// LNK-1: a client's records are taken as they come, a node's as the frames they hold.
    #[tokio::test]
    async fn sizes_are_read_from_record_headers() {
        for (first, records, client, node) in [
            (53, vec![2449, 2449, 19], vec![(2432, 2)], vec![]),
            (53, vec![4881], vec![(4864, 1)], vec![]),
            (190, vec![2449, 4881], vec![], vec![(2432, 3)]),
            (190, vec![2450], vec![], vec![(2433, 1)]),
        ] {
            let far = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let tap = Tap::open().await.unwrap();
            tap.aim(far.local_addr().unwrap());
            let mut near = TcpStream::connect(tap.address()).await.unwrap();
            let mut sent = [record(22, 1500), record(23, first)].concat();
            records
                .iter()
                .for_each(|len| sent.extend(record(APPLICATION_DATA, *len)));
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            let mut got = vec![0; sent.len()];
            let (mut link, _) = far.accept().await.unwrap();
            link.read_exact(&mut got).await.unwrap();
            assert_eq!(got, sent);
            // The relay ends once it has counted the last record.
            assert_eq!(link.read(&mut [0]).await.unwrap(), 0);
            let seen = tap.seen();
            assert_eq!(seen.client, client.into_iter().collect());
            assert_eq!(seen.node, node.into_iter().collect());
        }
    }
}
