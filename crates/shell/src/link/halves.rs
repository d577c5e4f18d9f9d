//! The two halves of a link: a reader that stamps frames, a writer that packs them.
//!
//! Spec: docs/spec/link.md, rules LNK-1, LNK-9; units stand in [`super`].
//!
//! Invariants: a frame is handed over whole or not at all; the reader's buffer holds less than
//! one frame between calls; nobody waits for an [`Outbox`].

use core::{
    future::{pending, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use std::{collections::VecDeque, io};

use proto::{
    Time,
    peel::Arrival,
    wire::{FRAME_LEN, Frame, PACKET_HEADER, packet_in},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf},
    sync::mpsc::{self, error::TrySendError},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Link, LinkError, Onward, READ_BUFFER_LEN, RECORD_FRAMES, Stream, WRITE_TIME};
use crate::clock::Clock;

/// Frames handed over at a time, once read: as soon as it is reached, the rest waits for the next call.
pub const READ_BATCH: usize = 64;
/// Frames written at a time: four TLS records between nodes (LNK-1).
const WRITE_BATCH: usize = 4 * RECORD_FRAMES;

/// Both halves of `stream`.
pub(super) fn split(stream: Stream, clock: Clock) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(stream);
    let closed = CancellationToken::new();
    let reader = Reader {
        half: read,
        buffer: vec![0; READ_BUFFER_LEN].into_boxed_slice(),
        filled: 0,
        early: VecDeque::new(),
        clock,
        idle: None,
        closed: closed.clone(),
    };
    let writer = Writer {
        half: write,
        batch: Vec::new(),
        closed,
    };
    (reader, writer)
}

/// The reading half.
#[derive(Debug)]
pub struct Reader {
    half: ReadHalf<Stream>,
    buffer: Box<[u8]>,
    filled: usize,
    /// Frames that came with one that was asked for by itself.
    early: VecDeque<(Time, Frame)>,
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
            if let Some(frame) = self.early.pop_front() {
                return Ok(frame);
            }
            let mut frames = Vec::new();
            self.frames(&mut frames).await?;
            self.early.extend(frames);
        }
    }

    /// Waits for at least one whole frame, and adds all that have come to `frames`. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`LinkError::Closed`] when either end closed the link, [`LinkError::PeerSlow`] past the
    /// idle time, or what the network says.
    pub async fn frames(&mut self, frames: &mut Vec<(Time, Frame)>) -> Result<(), LinkError> {
        if !self.early.is_empty() {
            frames.extend(self.early.drain(..));
            return Ok(());
        }
        let mut take = |now, bytes: &[u8; FRAME_LEN]| {
            frames.push((now, Frame::from_bytes(Box::new(*bytes))));
        };
        self.fill(&mut take).await
    }

    /// As [`Reader::frames`], of a link between nodes: each packet is copied once, and what is none
    /// goes to `others`.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn packets(
        &mut self,
        packets: &mut Vec<Arrival>,
        others: &mut Vec<Frame>,
    ) -> Result<(), LinkError> {
        let mut take = |received, bytes: &[u8; FRAME_LEN]| match packet_in(bytes) {
            Some(packet) => packets.push(Arrival {
                received,
                packet: Box::new(*packet),
            }),
            None => others.push(Frame::from_bytes(Box::new(*bytes))),
        };
        if self.early.is_empty() {
            return self.fill(&mut take).await;
        }
        for (received, frame) in self.early.drain(..) {
            take(received, frame.as_bytes());
        }
        Ok(())
    }

    /// Waits for at least one whole frame; `take` gets those that have come. When the future is
    /// dropped, it has taken nothing.
    async fn fill(
        &mut self,
        take: &mut impl FnMut(Time, &[u8; FRAME_LEN]),
    ) -> Result<(), LinkError> {
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
            read = poll_fn(|cx| self.poll_fill(cx, take)) => read,
            () = patience => Err(LinkError::PeerSlow("no frame")),
        }
    }

    /// Reads as long as there is something to read, until at least one frame is whole.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(Time, &[u8; FRAME_LEN]),
    ) -> Poll<Result<(), LinkError>> {
        let mut taken = 0;
        loop {
            let mut free = ReadBuf::new(&mut self.buffer[self.filled..]);
            let polled = Pin::new(&mut self.half).poll_read(cx, &mut free);
            let read = free.filled().len();
            if taken > 0 && read == 0 {
                // Nothing more for now, or an end, which shows itself again.
                return Poll::Ready(Ok(()));
            }
            ready!(polled)?;
            if read == 0 {
                return Poll::Ready(Err(LinkError::Closed));
            }
            self.filled += read;
            taken += self.split(take);
            if taken >= READ_BATCH {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes whole frames off the buffer; it then holds less than one.
    fn split(&mut self, take: &mut impl FnMut(Time, &[u8; FRAME_LEN])) -> usize {
        let now = self.clock.now();
        let (frames, rest) = self.buffer[..self.filled].as_chunks::<FRAME_LEN>();
        let (whole, rest) = (frames.len(), (self.filled - rest.len())..self.filled);
        frames.iter().for_each(|frame| take(now, frame));
        self.filled = rest.len();
        self.buffer.copy_within(rest, 0);
        whole
    }
}

impl Link {
    /// Moves the link to the runtime that this is called in: until then, another one watches its
    /// socket.
    ///
    /// # Errors
    ///
    /// What the system says; the link is gone.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn rehome(self) -> io::Result<Self> {
        let Self {
            peer,
            mut reader,
            mut writer,
        } = self;
        let mut stream = reader.half.unsplit(writer.half);
        // What has been read from it stays where it is.
        stream.get_mut().0.get_mut().rehome()?;
        (reader.half, writer.half) = tokio::io::split(stream);
        Ok(Self {
            peer,
            reader,
            writer,
        })
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
        for frame in frames {
            self.batch.extend_from_slice(frame.as_bytes());
        }
        self.write_batch().await
    }

    async fn write_batch(&mut self) -> Result<(), LinkError> {
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
    async fn pump(&mut self, queue: &mut mpsc::Receiver<Frame>) -> Result<(), LinkError> {
        let mut frames = Vec::with_capacity(WRITE_BATCH);
        while queue.recv_many(&mut frames, WRITE_BATCH).await > 0 {
            self.write(&frames).await?;
            frames.clear();
        }
        Ok(())
    }

    /// As [`Writer::write`], of all that comes out of the queue of a link between nodes, until it
    /// closes; but for packets that have waited too long. Each packet is counted, also those in hand
    /// when the link breaks.
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) async fn pump_onwards(
        &mut self,
        queue: &mut mpsc::Receiver<Onward>,
    ) -> Result<(), LinkError> {
        let mut onwards = Vec::with_capacity(WRITE_BATCH);
        while queue.recv_many(&mut onwards, WRITE_BATCH).await > 0 {
            self.batch.clear();
            onwards.retain_mut(|onward| match onward {
                Onward::Packet(waiting) => {
                    let due = !waiting.is_late();
                    if due {
                        self.batch.extend_from_slice(&PACKET_HEADER);
                        self.batch.extend_from_slice(waiting.packet());
                    }
                    due
                }
                Onward::Notice(frame) => {
                    self.batch.extend_from_slice(frame.as_bytes());
                    false
                }
            });
            self.write_batch().await?;
            for onward in onwards.drain(..) {
                if let Onward::Packet(written) = onward {
                    written.sent();
                }
            }
        }
        Ok(())
    }

    /// Puts a queue of `length` frames before itself, and a task that empties it.
    pub(super) fn start(mut self, length: usize) -> Outbox {
        let (queue, mut frames) = mpsc::channel(length);
        let closed = self.closed.clone();
        let until = closed.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = self.pump(&mut frames) => {}
                () = until.cancelled() => {}
            }
            self.close().await;
        });
        Outbox { queue, closed }
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

impl<T> From<TrySendError<T>> for NotSent {
    fn from(error: TrySendError<T>) -> Self {
        match error {
            TrySendError::Full(_) => Self::Full,
            TrySendError::Closed(_) => Self::Down,
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
    /// One whose frames nobody writes.
    #[cfg(test)]
    pub(crate) fn unwritten(length: usize) -> (Self, mpsc::Receiver<Frame>) {
        let (queue, frames) = mpsc::channel(length);
        let closed = CancellationToken::new();
        (Self { queue, closed }, frames)
    }

    /// Queues a frame; never waits.
    ///
    /// # Errors
    ///
    /// [`NotSent`]: the frame is gone.
    pub fn send(&self, frame: Frame) -> Result<(), NotSent> {
        if self.closed.is_cancelled() {
            return Err(NotSent::Down);
        }
        Ok(self.queue.try_send(frame)?)
    }

    /// Whether nothing waits in the queue of a link that is up.
    #[must_use]
    pub fn is_free(&self) -> bool {
        !self.closed.is_cancelled() && self.queue.capacity() == self.queue.max_capacity()
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
