//! One link: TLS over TCP, the first two frames, then frames both ways.
//!
//! Spec: docs/spec/link.md, rules LNK-1, LNK-3, LNK-6, LNK-9, LNK-11.
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
//! | `socket`            | what TCP may hold unsent, or without word of it (LNK-11)      |
//! | idle time           | set by the reader's owner: longest without a whole frame      |
//! | read buffer         | 7 frames of text, and as much again below TLS                 |
//! | write batch         | up to 24 frames that are queued anyhow, in one write          |
//!
//! A frame is stamped when the read that completed it returns (MIX-1 counts from there).
//!
//! Not done here: what a frame means, limits on how many links there are (`accept`), redialling
//! (`dial`). Writers never wait for machines and machines never wait for writers: a full
//! [`Outbox`] refuses, and the caller counts.

mod halves;
mod onward;
mod socket;

use core::time::Duration;
use std::{io, sync::Arc};

use ed25519_dalek::SigningKey;
use proto::{
    NetworkId, NodeId,
    directory::{Descriptor, LinkCertificate},
    wire::{FRAME_LEN, Frame, Hello, Kind, Purpose},
};
use rustls::ServerConfig;
use tokio::{io::BufReader, net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

pub(crate) use self::onward::{Counts, Onward, Waiting};
use self::socket::Socket;
pub use self::{
    halves::{NotSent, Outbox, READ_BATCH, Reader, Writer},
    onward::WAIT_MAX,
};
use crate::{
    clock::Clock,
    tls::{self, Peer, RECORD_FRAMES, Records},
};

/// Longest that TCP, TLS and the first two frames may take together (LNK-9).
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Longest that a peer may refuse to take what is written to it (LNK-9).
pub const WRITE_TIME: Duration = Duration::from_secs(30);

pub(crate) const READ_BUFFER_LEN: usize = 7 * FRAME_LEN;
/// No limit: rustls would take a part of a write, which ends within a frame, and the rest of that
/// frame would stand in a record of its own (LNK-1). What is written bounds what is buffered.
const WHOLE_WRITES: Option<usize> = None;

type Stream = TlsStream<BufReader<Socket>>;

/// Why a link ended or never came up.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The network, or TLS: the message of rustls names which side is to blame.
    #[error(transparent)]
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
        let (records, unsent) = match hello.purpose {
            Purpose::Node => (Records::Packed, socket::UNSENT_NODE),
            Purpose::Entry | Purpose::Mailbox | Purpose::Directory => {
                (Records::OneFrame, socket::UNSENT_CLIENT)
            }
        };
        // LNK-7: only node links show who dials.
        let key = self.key.as_ref().filter(|_| hello.purpose == Purpose::Node);
        let config = tls::client(key, target.link_key, records);
        let socket = Socket::tuned(TcpStream::connect(&target.address).await?, unsent)?;
        let mut stream = TlsConnector::from(config)
            .connect(tls::nameless(), buffered(socket))
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
        let socket = Socket::tuned(socket, socket::UNSENT_TAKEN)?;
        let mut stream = TlsAcceptor::from(config).accept(buffered(socket)).await?;
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

fn buffered(socket: Socket) -> BufReader<Socket> {
    BufReader::with_capacity(READ_BUFFER_LEN, socket)
}

impl Link {
    fn over(stream: Stream, peer: Peer, clock: Clock) -> Self {
        let (reader, writer) = halves::split(stream, clock);
        Self {
            peer,
            reader,
            writer,
        }
    }

    /// Puts a queue of `length` frames before the writer, and a task that empties it.
    #[must_use]
    pub fn start(self, length: usize) -> (Outbox, Reader) {
        (self.writer.start(length), self.reader)
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
    pub(crate) async fn pair(
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

    /// A peer that ends without a goodbye loses nothing that it wrote before.
    #[tokio::test]
    async fn frames_before_an_abrupt_end_are_handed_over() {
        let certificate = certified(2, Clock::start());
        let (dialled, taken) = pair(|_| {}, certificate, Purpose::Node).await;
        let (mut reader, mut here) = (taken.unwrap().0.reader, dialled.unwrap());
        let frame = Frame::new(Kind::Dummy, 0, [0; 32]);
        here.writer.write(&[frame.clone(), frame]).await.unwrap();
        drop(here);
        let mut read = Vec::new();
        while reader.frames(&mut read).await.is_ok() {}
        assert_eq!(read.len(), 2);
    }

    /// LNK-2: a link between nodes tells packets from other frames. It does so on another runtime
    /// too, and what the first one had read is not lost.
    #[tokio::test]
    async fn packets_cross_to_another_runtime() {
        let certificate = certified(2, Clock::start());
        let (dialled, taken) = pair(|_| {}, certificate, Purpose::Node).await;
        let (mut here, mut there) = (dialled.unwrap(), taken.unwrap().0);
        let packet = |i| Frame::packet(0, [0; 32], &[i; sphinx::PACKET_LEN]);
        here.writer.write(&[0, 1, 2].map(packet)).await.unwrap();
        assert_eq!(there.reader.frame().await.unwrap().1, packet(0));
        let (sent, mut moved) = tokio::sync::mpsc::channel(1);
        let other = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let mut link = there.rehome().unwrap();
                let (mut packets, mut others) = (Vec::new(), Vec::new());
                while packets.len() < 12 {
                    let read = link.reader.packets(&mut packets, &mut others);
                    read.await.unwrap();
                    sent.send(packets.len()).await.unwrap();
                }
                assert!(others.is_empty());
                while others.is_empty() {
                    let read = link.reader.packets(&mut packets, &mut others);
                    read.await.unwrap();
                }
                (packets, others)
            })
        });
        while moved.recv().await.unwrap() < 2 {}
        let frames: Vec<_> = (3..13).map(packet).collect();
        here.writer.write(&frames).await.unwrap();
        while moved.recv().await.is_some_and(|packets| packets < 12) {}
        let dummy = Frame::new(Kind::Dummy, 0, [0; 32]);
        let last = [packet(13), dummy.clone()];
        here.writer.write(&last).await.unwrap();
        let (packets, others) = other.join().unwrap();
        assert_eq!(others, [dummy]);
        let bytes: Vec<u8> = packets.iter().map(|arrival| arrival.packet[7]).collect();
        assert_eq!(bytes, (1..14).collect::<Vec<_>>());
        assert!(packets.is_sorted_by_key(|arrival| arrival.received));
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
