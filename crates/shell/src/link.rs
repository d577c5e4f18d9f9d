//! One link: TLS over TCP, the first two frames, then frames both ways.
//!
//! Spec: docs/spec/link.md, rules LNK-1, LNK-3, LNK-6, LNK-9.
//!
//! ```text
//! dialler                         dialled
//!    │ ──────── TLS 1.3 ────────── │   raw keys; a wrong one ends it here
//!    │ ◀─────── Certificate ────── │   its identity's word for its link key (LNK-6)
//!    │ ──────── Hello ───────────▶ │   only when the certificate holds
//!    │ ◀─────── frames ──────────▶ │
//! ```
//!
//! | quantity            | value                                                         |
//! |---------------------|---------------------------------------------------------------|
//! | frame               | [`FRAME_LEN`] bytes, always, in both directions (LNK-1)       |
//! | [`HANDSHAKE_TIME`]  | TCP, TLS and both first frames together                       |
//! | [`WRITE_TIME`]      | longest that a peer may refuse to take a write                |
//! | idle time           | set by the reader's owner: longest without a whole frame      |
//! | read buffer         | 7 frames of text, and as much again below TLS                 |
//! | write batch         | up to 16 frames that are queued anyhow, in one write          |
//!
//! A frame is stamped when the read that completed it returns (MIX-1 counts from there).
//!
//! Not done here: what a frame means, limits on how many links there are (`accept`), redialling
//! (`dial`). Writers never wait for machines and machines never wait for writers: a full
//! [`Outbox`] refuses, and the caller counts.

use core::{
    future::{pending, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use std::{collections::VecDeque, io, os::fd::AsFd, sync::Arc};

use ed25519_dalek::SigningKey;
use proto::{
    NetworkId, NodeId, Time,
    directory::{Descriptor, LinkCertificate},
    wire::{FRAME_LEN, Frame, Hello, Kind, Purpose},
};
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, BufReader, ReadBuf, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    tls::{self, Peer, Records},
};

/// Longest that TCP, TLS and the first two frames may take together (LNK-9).
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Longest that a peer may refuse to take what is written to it (LNK-9).
pub const WRITE_TIME: Duration = Duration::from_secs(30);

const READ_BUFFER_LEN: usize = 7 * FRAME_LEN;
const WRITE_BATCH: usize = 16;
/// No limit: rustls would take a part of a write, which ends within a frame, and the rest of that
/// frame would stand in a record of its own (LNK-1). What is written bounds what is buffered.
const WHOLE_WRITES: Option<usize> = None;

type Stream = TlsStream<BufReader<TcpStream>>;

/// Why a link ended or never came up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The network, or TLS: the message of rustls names which side is to blame.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer let a time limit pass.
    #[error("the peer was too slow: {0}")]
    PeerSlow(&'static str),
    /// The peer broke the rules of a link.
    #[error("the peer misbehaved: {0}")]
    PeerMisbehaved(&'static str),
    /// The peer showed a key that may not dial here.
    #[error("the peer may not dial here")]
    NotWelcome,
    /// One of the two ends closed it.
    #[error("the link is closed")]
    Closed,
}

/// Whom to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The identity that must have certified the link key.
    pub id: NodeId,
    /// `host:port`.
    pub address: String,
    /// The link key, where a consensus names it; else the certificate frame alone vouches.
    pub link_key: Option<[u8; 32]>,
}

impl From<&Descriptor> for Target {
    fn from(node: &Descriptor) -> Self {
        Self {
            id: node.id,
            address: node.address.clone(),
            link_key: Some(node.link.link_key),
        }
    }
}

/// Who dials: which network it is in, and the link key it presents if it is a node.
#[derive(Clone, Debug)]
pub struct Dialler {
    /// Certificates of other networks are refused.
    pub network: NetworkId,
    /// A node's link key; a client has none.
    pub key: Option<SigningKey>,
    /// Stamps frames, and judges the validity of certificates.
    pub clock: Clock,
}

/// A link whose first two frames were exchanged.
#[derive(Debug)]
pub struct Link {
    /// What TLS proved of the other end.
    pub peer: Peer,
    /// Frames from there.
    pub reader: Reader,
    /// Frames to there.
    pub writer: Writer,
}

impl Dialler {
    /// Dials `target`: TLS, its certificate, our hello.
    ///
    /// # Errors
    ///
    /// A [`LinkError`]; nothing has been sent to a peer whose certificate does not hold.
    pub async fn dial(&self, target: &Target, hello: Hello) -> Result<Link, LinkError> {
        let shaken = timeout(HANDSHAKE_TIME, self.shake(target, hello)).await;
        shaken.unwrap_or(Err(LinkError::PeerSlow("handshake")))
    }

    async fn shake(&self, target: &Target, hello: Hello) -> Result<Link, LinkError> {
        let records = match hello.purpose {
            Purpose::Node => Records::Packed,
            Purpose::Entry | Purpose::Mailbox | Purpose::Directory => Records::OneFrame,
        };
        // LNK-7: only node links show who dials.
        let key = self.key.as_ref().filter(|_| hello.purpose == Purpose::Node);
        let config = tls::client(key, target.link_key, records);
        let socket = tuned(TcpStream::connect(&target.address).await?)?;
        let mut stream = TlsConnector::from(config)
            .connect(tls::nameless(), socket)
            .await?;
        stream.get_mut().1.set_buffer_limit(WHOLE_WRITES);
        let peer = tls::peer(stream.get_ref().1).map_err(io::Error::other)?;
        let mut link = Link::over(stream.into(), peer, self.clock);

        let (_, first) = link.reader.frame().await?;
        let certificate = certificate(&first).ok_or(LinkError::PeerMisbehaved(
            "its first frame is no certificate",
        ))?;
        let now_s = self.clock.utc().as_secs();
        // LNK-6
        if certificate.verify(&self.network, now_s).is_err()
            || certificate.id != target.id
            || Some(certificate.link_key) != peer.link_key
        {
            return Err(LinkError::PeerMisbehaved("its certificate does not hold"));
        }
        link.writer.write(&[hello.to_frame()]).await?;
        Ok(link)
    }
}

/// Takes a dialled connection: TLS, our certificate, the dialler's hello. A peer that is not
/// `welcome` hears no certificate, so that it knows that it has no link.
///
/// # Errors
///
/// A [`LinkError`]; the caller counts it.
pub async fn take(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    certificate: &Frame,
    welcome: impl FnOnce(&Peer) -> bool,
    clock: Clock,
) -> Result<(Link, Hello), LinkError> {
    let shake = async {
        let mut stream = TlsAcceptor::from(config).accept(tuned(socket)?).await?;
        stream.get_mut().1.set_buffer_limit(WHOLE_WRITES);
        let peer = tls::peer(stream.get_ref().1).map_err(io::Error::other)?;
        if !welcome(&peer) {
            return Err(LinkError::NotWelcome);
        }
        let mut link = Link::over(stream.into(), peer, clock);
        link.writer
            .write(core::slice::from_ref(certificate))
            .await?;
        let (_, first) = link.reader.frame().await?;
        let hello = Hello::parse(&first);
        let hello = hello.ok_or(LinkError::PeerMisbehaved("its first frame is no hello"))?;
        Ok((link, hello))
    };
    let shaken = timeout(HANDSHAKE_TIME, shake).await;
    shaken.unwrap_or(Err(LinkError::PeerSlow("handshake")))
}

/// The frame that carries a certificate: its length (u16), then its encoding.
#[must_use]
pub fn certificate_frame(certificate: &LinkCertificate) -> Frame {
    let bytes = certificate.to_bytes();
    let length = u16::try_from(bytes.len()).expect("a certificate is some 250 bytes");
    let body = [length.to_be_bytes().as_slice(), &bytes].concat();
    Frame::with_body(Kind::Certificate, [0; 32], &body)
}

fn certificate(frame: &Frame) -> Option<LinkCertificate> {
    let (length, rest) = frame.body().split_first_chunk()?;
    let bytes = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    let certificate = LinkCertificate::parse(bytes).ok()?;
    (frame.kind() == Some(Kind::Certificate)).then_some(certificate)
}

/// Frames leave at once, and a peer that is gone is noticed within two minutes.
fn tuned(socket: TcpStream) -> io::Result<BufReader<TcpStream>> {
    socket.set_nodelay(true)?;
    let fd = socket.as_fd();
    sockopt::set_socket_keepalive(fd, true)?;
    sockopt::set_tcp_keepidle(fd, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(fd, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(fd, 4)?;
    Ok(BufReader::with_capacity(READ_BUFFER_LEN, socket))
}

impl Link {
    fn over(stream: Stream, peer: Peer, clock: Clock) -> Self {
        let (read, write) = tokio::io::split(stream);
        let closed = CancellationToken::new();
        let reader = Reader {
            half: read,
            buffer: vec![0; READ_BUFFER_LEN].into_boxed_slice(),
            filled: 0,
            whole: VecDeque::new(),
            clock,
            idle: None,
            closed: closed.clone(),
        };
        let writer = Writer {
            half: write,
            batch: Vec::new(),
            closed,
        };
        Self {
            peer,
            reader,
            writer,
        }
    }

    /// Puts a queue of `length` frames before the writer, and a task that empties it.
    #[must_use]
    pub fn start(self, length: usize) -> (Outbox, Reader) {
        let (queue, mut frames) = mpsc::channel(length);
        let closed = self.writer.closed.clone();
        let mut writer = self.writer;
        tokio::spawn(async move {
            let closed = writer.closed.clone();
            tokio::select! {
                _ = writer.pump(&mut frames) => writer.close().await,
                () = closed.cancelled() => writer.close().await,
            }
        });
        (Outbox { queue, closed }, self.reader)
    }
}

/// The reading half.
#[derive(Debug)]
pub struct Reader {
    half: ReadHalf<Stream>,
    buffer: Box<[u8]>,
    filled: usize,
    whole: VecDeque<(Time, Frame)>,
    clock: Clock,
    idle: Option<Duration>,
    closed: CancellationToken,
}

impl Reader {
    /// From now on, ends the link when no whole frame has come for `idle` (LNK-9).
    pub fn set_idle(&mut self, idle: Option<Duration>) {
        self.idle = idle;
    }

    /// The next frame, and when it was read.
    ///
    /// # Errors
    ///
    /// As [`Reader::frames`].
    pub async fn frame(&mut self) -> Result<(Time, Frame), LinkError> {
        loop {
            if let Some(frame) = self.whole.pop_front() {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Waits for at least one whole frame, and adds all that have come to `frames`. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`LinkError::Closed`] when either end closed the link, [`LinkError::PeerSlow`] past the
    /// idle time, or what the network says.
    pub async fn frames(&mut self, frames: &mut Vec<(Time, Frame)>) -> Result<(), LinkError> {
        if self.whole.is_empty() {
            self.fill().await?;
        }
        frames.extend(self.whole.drain(..));
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), LinkError> {
        let (closed, idle) = (self.closed.clone(), self.idle);
        let patience = async {
            match idle {
                Some(idle) => tokio::time::sleep(idle).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = closed.cancelled() => Err(LinkError::Closed),
            read = poll_fn(|cx| self.poll_fill(cx)) => read,
            () = patience => Err(LinkError::PeerSlow("no frame")),
        }
    }

    /// Reads as long as there is something to read, until at least one frame is whole.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            let mut free = ReadBuf::new(&mut self.buffer[self.filled..]);
            let polled = Pin::new(&mut self.half).poll_read(cx, &mut free);
            let read = free.filled().len();
            if polled.is_pending() && !self.whole.is_empty() {
                return Poll::Ready(Ok(()));
            }
            ready!(polled)?;
            if read == 0 {
                let ended = self.whole.is_empty();
                return Poll::Ready(if ended {
                    Err(LinkError::Closed)
                } else {
                    Ok(())
                });
            }
            self.filled += read;
            self.split();
            if self.whole.len() >= WRITE_BATCH {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes whole frames off the buffer; it then holds less than one.
    fn split(&mut self) {
        let now = self.clock.now();
        let (frames, rest) = self.buffer[..self.filled].as_chunks::<FRAME_LEN>();
        let rest = (self.filled - rest.len())..self.filled;
        let frames = frames
            .iter()
            .map(|bytes| Frame::from_bytes(Box::new(*bytes)));
        self.whole.extend(frames.map(|frame| (now, frame)));
        self.filled = rest.len();
        self.buffer.copy_within(rest, 0);
    }
}

/// The writing half.
#[derive(Debug)]
pub struct Writer {
    half: WriteHalf<Stream>,
    batch: Vec<u8>,
    closed: CancellationToken,
}

impl Writer {
    /// Writes frames and waits until the system has them.
    ///
    /// # Errors
    ///
    /// A [`LinkError`]; the link is of no more use. Dropping the future half way breaks it too.
    pub async fn write(&mut self, frames: &[Frame]) -> Result<(), LinkError> {
        self.batch.clear();
        frames
            .iter()
            .for_each(|frame| self.batch.extend_from_slice(frame.as_bytes()));
        let write = async {
            self.half.write_all(&self.batch).await?;
            self.half.flush().await
        };
        let written = timeout(WRITE_TIME, write).await;
        Ok(written.map_err(|_| LinkError::PeerSlow("it takes no frames"))??)
    }

    /// Writes what comes out of a queue, all that is there at a time, until it closes.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub async fn pump(&mut self, queue: &mut mpsc::Receiver<Frame>) -> Result<(), LinkError> {
        let mut frames = Vec::with_capacity(WRITE_BATCH);
        while queue.recv_many(&mut frames, WRITE_BATCH).await > 0 {
            self.write(&frames).await?;
            frames.clear();
        }
        Ok(())
    }

    /// Says goodbye, if the peer listens, and ends both halves.
    pub async fn close(&mut self) {
        self.closed.cancel();
        let _ = timeout(Duration::from_secs(1), self.half.shutdown()).await;
    }
}

/// Why a frame was not taken. The caller drops and counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotSent {
    /// The queue of the link is full.
    Full,
    /// There is no link.
    Down,
}

impl NotSent {
    /// As the label of a metric.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Full => "link_full",
            Self::Down => "link_down",
        }
    }
}

/// The bounded queue before a link's writer. Clones share it.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: mpsc::Sender<Frame>,
    closed: CancellationToken,
}

impl Outbox {
    /// Queues a frame; never waits.
    ///
    /// # Errors
    ///
    /// [`NotSent`]: the frame is gone.
    pub fn send(&self, frame: Frame) -> Result<(), NotSent> {
        if self.closed.is_cancelled() {
            return Err(NotSent::Down);
        }
        self.queue.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotSent::Full,
            mpsc::error::TrySendError::Closed(_) => NotSent::Down,
        })
    }

    /// Closes the link, whatever is queued.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Waits until the link is closed, by whom ever.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::net::TcpListener;

    use super::*;

    pub(crate) const NETWORK: NetworkId = NetworkId([9; 32]);

    pub(crate) fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    pub(crate) fn dialler(clock: Clock, seed: Option<u8>) -> Dialler {
        Dialler {
            network: NETWORK,
            key: seed.map(key),
            clock,
        }
    }

    pub(crate) fn hello(purpose: Purpose) -> Hello {
        Hello {
            version: proto::wire::WIRE_VERSION,
            purpose,
            profile: 0,
        }
    }

    /// Identity `seed` certifies link key `seed + 100`.
    pub(crate) fn certified(seed: u8, clock: Clock) -> Frame {
        let now_s = clock.utc().as_secs();
        let link_key = key(seed + 100).verifying_key().to_bytes();
        let validity = now_s - 60..now_s + 60;
        certificate_frame(&LinkCertificate::sign(
            &NETWORK,
            &key(seed),
            link_key,
            validity,
        ))
    }

    pub(crate) fn target(seed: u8, address: String) -> Target {
        Target {
            id: NodeId(key(seed).verifying_key().to_bytes()),
            address,
            link_key: Some(key(seed + 100).verifying_key().to_bytes()),
        }
    }

    /// A link over 127.0.0.1 between a dialler that looks for `target` and a listener that shows
    /// `certificate` under link key 102.
    async fn pair(
        change: impl FnOnce(&mut Target),
        certificate: Frame,
        purpose: Purpose,
    ) -> (Result<Link, LinkError>, Result<(Link, Hello), LinkError>) {
        let clock = Clock::start();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut target = target(2, listener.local_addr().unwrap().to_string());
        change(&mut target);
        let config = tls::server(&key(102), tls::Admit::Anyone);
        let taken = async {
            let (socket, _) = listener.accept().await.unwrap();
            take(socket, config, &certificate, |_| true, clock).await
        };
        let dialler = dialler(clock, Some(101));
        tokio::join!(dialler.dial(&target, hello(purpose)), taken)
    }

    /// LNK-1, LNK-3
    #[tokio::test]
    async fn frames_cross_in_order_and_are_stamped() {
        let certificate = certified(2, Clock::start());
        let (dialled, taken) = pair(|_| {}, certificate, Purpose::Node).await;
        let ((there, said), here) = (taken.unwrap(), dialled.unwrap());
        assert_eq!(said, hello(Purpose::Node));
        assert_eq!(there.peer.exporter, here.peer.exporter);
        assert_eq!(
            there.peer.link_key,
            Some(key(101).verifying_key().to_bytes())
        );

        let (outbox, _reader) = here.start(100);
        let numbered = |i| Frame::new(Kind::Dummy, 0, proto::wire::field_of(i, 0));
        (0..100).for_each(|i| outbox.send(numbered(i)).unwrap());
        let (mut reader, mut read) = (there.reader, Vec::new());
        while read.len() < 100 {
            reader.frames(&mut read).await.unwrap();
        }
        let numbers: Vec<u64> = read.iter().map(|(_, frame)| frame.numbers().0).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        assert!(read.iter().map(|(time, _)| time).is_sorted());

        outbox.close();
        assert!(matches!(
            reader.frame().await,
            Err(LinkError::Closed | LinkError::Io(_))
        ));
        assert_eq!(outbox.send(numbered(0)), Err(NotSent::Down));
    }

    /// LNK-7: a client's link shows no key, even if the process has one.
    #[tokio::test]
    async fn only_node_links_present_a_key() {
        for purpose in [Purpose::Entry, Purpose::Mailbox, Purpose::Directory] {
            let certificate = certified(2, Clock::start());
            let (dialled, taken) = pair(|_| {}, certificate, purpose).await;
            assert!(dialled.is_ok());
            assert_eq!(taken.unwrap().0.peer.link_key, None);
        }
    }

    /// LNK-6
    #[tokio::test]
    async fn a_dialler_checks_key_identity_and_certificate() {
        let clock = Clock::start();
        let good = || certified(2, clock);
        let now_s = clock.utc().as_secs();
        let link_key = key(102).verifying_key().to_bytes();
        let signed = |network: &NetworkId, identity: u8, link_key, validity| {
            certificate_frame(&LinkCertificate::sign(
                network,
                &key(identity),
                link_key,
                validity,
            ))
        };
        let valid = now_s - 60..now_s + 60;
        let bootstrap = |target: &mut Target| target.link_key = None;
        assert!(pair(|_| {}, good(), Purpose::Entry).await.0.is_ok());
        assert!(pair(bootstrap, good(), Purpose::Entry).await.0.is_ok());
        // The consensus names another key: TLS ends it.
        let other = |target: &mut Target| target.link_key = Some([3; 32]);
        assert!(matches!(
            pair(other, good(), Purpose::Entry).await.0,
            Err(LinkError::Io(_))
        ));
        // TLS is content, the certificate is not.
        for certificate in [
            signed(&NetworkId([8; 32]), 2, link_key, valid.clone()),
            signed(&NETWORK, 3, link_key, valid.clone()),
            signed(
                &NETWORK,
                2,
                key(103).verifying_key().to_bytes(),
                valid.clone(),
            ),
            signed(&NETWORK, 2, link_key, now_s - 60..now_s - 30),
            hello(Purpose::Entry).to_frame(),
            Frame::with_body(Kind::Certificate, [0; 32], &[0xff; 99]),
        ] {
            let (dialled, taken) = pair(bootstrap, certificate, Purpose::Entry).await;
            assert!(matches!(dialled, Err(LinkError::PeerMisbehaved(_))));
            assert!(taken.is_err(), "a refused peer hears nothing more");
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_never_waits() {
        let certificate = certified(2, Clock::start());
        let (dialled, _taken) = pair(|_| {}, certificate, Purpose::Entry).await;
        let (outbox, _reader) = dialled.unwrap().start(1);
        // The current-thread runtime cannot run the writer in between.
        let frame = || Frame::new(Kind::Dummy, 0, [0; 32]);
        assert_eq!(outbox.send(frame()), Ok(()));
        assert_eq!(outbox.send(frame()), Err(NotSent::Full));
    }

    /// LNK-9
    #[tokio::test]
    async fn an_idle_link_ends() {
        let certificate = certified(2, Clock::start());
        let (dialled, taken) = pair(|_| {}, certificate, Purpose::Entry).await;
        let (mut link, _) = taken.unwrap();
        link.reader.set_idle(Some(Duration::from_millis(1)));
        assert!(matches!(
            link.reader.frame().await,
            Err(LinkError::PeerSlow(_))
        ));
        drop(dialled);
    }
}
