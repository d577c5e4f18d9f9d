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
use std::collections::VecDeque;

use proto::{
    Time,
    wire::{FRAME_LEN, Frame},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{LinkError, READ_BUFFER_LEN, Stream, WRITE_TIME};
use crate::clock::Clock;

/// Frames handed over at a time, once read.
const READ_BATCH: usize = 16;
/// Frames written at a time: as many as one TLS record holds whole (LNK-1).
const WRITE_BATCH: usize = RECORD_LEN_MAX / FRAME_LEN;
/// Most plaintext of one TLS record (RFC 8446, 5.1).
const RECORD_LEN_MAX: usize = 1 << 14;

/// Both halves of `stream`.
pub(super) fn split(stream: Stream, clock: Clock) -> (Reader, Writer) {
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
    (reader, writer)
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
            let ended = match ready!(polled) {
                Ok(()) if read > 0 => None,
                Ok(()) => Some(LinkError::Closed),
                Err(error) => Some(error.into()),
            };
            if let Some(why) = ended {
                // What came before the end is handed over first; the end shows itself again.
                let last = self.whole.is_empty();
                return Poll::Ready(if last { Err(why) } else { Ok(()) });
            }
            self.filled += read;
            self.split();
            if self.whole.len() >= READ_BATCH {
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
