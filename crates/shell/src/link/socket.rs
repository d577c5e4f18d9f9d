//! The socket below a link: what the system may hold of it unsent, and when it gives up a peer.
//!
//! Spec: docs/spec/link.md, rules LNK-9, LNK-11.
//!
//! | what may be unsent when a write begins | on                                               | why                            |
//! |----------------------------------------|--------------------------------------------------|--------------------------------|
//! | [`UNSENT_CLIENT`]                      | what clients write                               | it has room as long as it sends|
//! | [`UNSENT_NODE`]                        | what a node writes to the next                   | 1 ms at half a gigabit a second|
//! | [`UNSENT_TAKEN`]                       | what the dialled side writes: frames of mailboxes| outlives short stalls          |
//!
//! *Unsent* is what TCP has not sent once: neither the peer's window nor the path has let it. What is
//! under way is not counted, so a long way costs nothing while the send buffer holds it.

use core::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use std::{
    io::{self, ErrorKind, IoSlice},
    os::fd::AsFd,
};

use proto::wire::FRAME_LEN;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::sockopt,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// Less than a frame: a client's packet that can't leave now is better not built (CLI-4).
#[expect(clippy::cast_possible_truncation, reason = "2432")]
pub(super) const UNSENT_CLIENT: u32 = FRAME_LEN as u32;
/// Some 26 packets: few against what passes in the second that a packet may wait (LNK-10), and enough
/// that the wire is busy until the writer, woken, has written again.
pub(super) const UNSENT_NODE: u32 = 64 << 10;
/// Some 107 frames: a mailbox link is closed when its queue is full (GW-13), so a client whose line
/// stands still for a second must not fill it; and thousands that read nothing must not fill the
/// memory of the system, as they would with the 4 MB that it takes by itself.
pub(super) const UNSENT_TAKEN: u32 = 256 << 10;

/// Longest that a peer may leave what was sent to it unacknowledged by TCP, in ms (LNK-9).
const SILENT_MS: u32 = 30_000;

/// A connection that takes a write only while less than so much of what came before is unsent.
#[derive(Debug)]
pub(super) struct Socket(TcpStream);

impl Socket {
    /// Frames leave at once; a write waits while `unsent` bytes or more of those before it are; and
    /// a peer that is gone is noticed within [`SILENT_MS`] of a frame for it, or within 75 s.
    pub(super) fn tuned(socket: TcpStream, unsent: u32) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        // Linux says that there is room when less than half of this is unsent.
        SockRef::from(&socket).set_tcp_notsent_lowat(2 * unsent)?;
        let fd = socket.as_fd();
        sockopt::set_socket_keepalive(fd, true)?;
        sockopt::set_tcp_keepidle(fd, Duration::from_secs(60))?;
        sockopt::set_tcp_keepintvl(fd, Duration::from_secs(15))?;
        sockopt::set_tcp_keepcnt(fd, 4)?;
        // Else what is on its way to a peer that fell silent keeps the link for a quarter of an hour.
        sockopt::set_tcp_user_timeout(fd, SILENT_MS)?;
        Ok(Self(socket))
    }

    /// Moves the connection to the runtime that this is called in.
    pub(super) fn rehome(&mut self) -> io::Result<()> {
        // The old descriptor leaves its runtime when it is dropped; the new one is the same connection.
        let same = std::net::TcpStream::from(self.0.as_fd().try_clone_to_owned()?);
        self.0 = TcpStream::from_std(same)?;
        Ok(())
    }

    /// Waits for room. The system is asked: a write alone would be taken beyond the mark, as long as
    /// it fits into the segment that waits last (64 kB).
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ask = || {
            let mut socket = [PollFd::new(&self.0, PollFlags::OUT)];
            match poll(&mut socket, Some(&Timespec::default())) {
                // A signal came before there was room.
                Ok(0) | Err(Errno::INTR) => Err(ErrorKind::WouldBlock.into()),
                Ok(_) => Ok(()),
                Err(why) => Err(why.into()),
            }
        };
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_io(Interest::WRITABLE, ask) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                asked => return Poll::Ready(asked),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proto::wire::{Frame, Kind, Purpose};
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpSocket},
    };

    use super::*;
    use crate::{
        clock::Clock,
        link::tests::{certified, pair},
    };

    /// LNK-9: without it TCP tries for a quarter of an hour.
    #[tokio::test]
    async fn a_peer_that_fell_silent_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let tuned = Socket::tuned(socket, UNSENT_CLIENT).unwrap();
        let limit = sockopt::tcp_user_timeout(tuned.0.as_fd()).unwrap();
        assert_eq!(limit, SILENT_MS);
    }

    /// LNK-11: of what is written to a peer that reads nothing the system holds little that it has not
    /// sent: less than the mark, and one write.
    #[tokio::test]
    async fn little_is_unsent() {
        const IDLE: usize = 1000;
        let frame = [0; FRAME_LEN];
        for unsent in [UNSENT_CLIENT, UNSENT_NODE, UNSENT_TAKEN] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let here = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (there, _) = listener.accept().await.unwrap();
            let mut socket = Socket::tuned(here, unsent).unwrap();
            let (mut taken, mut idle) = (0, 0);
            while idle < IDLE {
                tokio::select! {
                    biased;
                    written = socket.write(&frame) => taken += written.unwrap() as u64,
                    () = tokio::task::yield_now() => idle += 1,
                }
            }
            let held = taken - rustix::io::ioctl_fionread(&there).unwrap();
            let room = u64::from(unsent)..u64::from(unsent + UNSENT_CLIENT);
            assert!(room.contains(&held), "{unsent}: {held}");
        }
    }

    /// LNK-11: to a peer that reads nothing a link takes what the peer's buffer takes and little
    /// more, and goes on where it stopped once the peer reads.
    #[tokio::test]
    async fn what_the_system_holds_of_a_stalled_link_is_little() {
        const QUEUE: u32 = 2; // which the writer may have in hand, and the system, once more each
        const YIELDS: usize = 20_000; // enough for the 4 MB that the system takes by itself
        let there = TcpSocket::new_v4().unwrap().recv_buffer_size().unwrap();
        for (purpose, dials, unsent) in [
            (Purpose::Entry, true, UNSENT_CLIENT),
            (Purpose::Node, true, UNSENT_NODE),
            (Purpose::Mailbox, false, UNSENT_TAKEN),
        ] {
            let certificate = certified(2, Clock::start());
            let (dialled, taken) = pair(|_| {}, certificate, purpose).await;
            let (dialled, taken) = (dialled.unwrap(), taken.unwrap().0);
            let (from, to) = if dials {
                (dialled, taken)
            } else {
                (taken, dialled)
            };
            let (outbox, _reader) = from.start(QUEUE as usize);
            let mut given: u32 = 0;
            for _ in 0..YIELDS {
                if outbox.is_free() {
                    let frame = Frame::new(Kind::Dummy, 0, proto::wire::field_of(given.into(), 0));
                    outbox.send(frame).unwrap();
                    given += 1;
                }
                tokio::task::yield_now().await;
            }
            let least = (unsent + UNSENT_CLIENT) / UNSENT_CLIENT;
            let most = (there + unsent) / UNSENT_CLIENT + 3 * QUEUE + 1;
            assert!((least..=most).contains(&given), "{purpose:?}: {given}");

            let mut reader = to.reader;
            for number in 0..given {
                let (_, frame) = reader.frame().await.unwrap();
                assert_eq!(frame.numbers().0, u64::from(number));
            }
            while !outbox.is_free() {
                tokio::task::yield_now().await;
            }
        }
    }
}
