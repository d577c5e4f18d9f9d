//! Keeps one node link alive towards each next hop.
//!
//! Spec: docs/spec/link.md, rules LNK-7, LNK-9, LNK-10.
//!
//! | quantity        | value                                                             |
//! |-----------------|-------------------------------------------------------------------|
//! | links           | one for each target; the set changes with the consensus           |
//! | queue           | a bounded number of packets for each link, up or down             |
//! | wait in a queue | at most [`crate::link::WAIT_MAX`] for a packet; a notice waits as long as it takes |
//! | wait to redial  | doubling from 0.1 s to 10 s, jittered; reset by a link that held  |
//!
//! A node link carries frames from its dialler only; if the other end says anything, it
//! misbehaves and the link ends. Packets that wait when a link breaks go over the next one, if that comes
//! soon; those that were being written are dropped and counted, and what was in the broken one's socket is
//! lost, like any packet. The links live on a runtime of the caller's choice.

use core::time::Duration;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use proto::{
    NodeId,
    wire::{Frame, Hello, Purpose, WIRE_VERSION},
};
use sphinx::Packet;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    entropy::Backoff,
    link::{Counts, Dialler, LinkError, NotSent, Onward, Target, Waiting},
    metrics::{Cell, Metrics},
};

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The links to all next hops. Clones share them.
#[derive(Clone, Debug)]
pub struct Outgoing(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dialler: Dialler,
    queue_max: usize,
    hops: RwLock<BTreeMap<NodeId, Hop>>,
    /// What of them is queued to, as it changes.
    queues: watch::Sender<Queues>,
    up: watch::Sender<usize>,
    failures: Cell,
    counts: Arc<Counts>,
    runtime: Handle,
    stop: CancellationToken,
}

type Queues = Arc<BTreeMap<NodeId, mpsc::Sender<Onward>>>;

#[derive(Debug)]
struct Hop {
    target: Target,
    queue: mpsc::Sender<Onward>,
    /// Cancelled when the hop is dropped: its task ends.
    ended: CancellationToken,
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Outgoing {
    /// No links yet. Each will queue at most `queue_max` packets and live on `runtime`; all end with
    /// `stop`.
    #[must_use]
    pub fn new(
        dialler: Dialler,
        queue_max: usize,
        metrics: &Metrics,
        runtime: Handle,
        stop: CancellationToken,
    ) -> Self {
        let clock = dialler.clock;
        Self(Arc::new(Shared {
            dialler,
            queue_max,
            hops: RwLock::default(),
            queues: watch::Sender::default(),
            up: watch::Sender::new(0),
            failures: metrics.cell("lacuna_dials_failed_total", ""),
            counts: Arc::new(Counts::of(metrics, clock)),
            runtime,
            stop,
        }))
    }

    /// Keeps links to these and to no others. A target that has not changed keeps its link.
    pub fn set(&self, targets: impl IntoIterator<Item = Target>) {
        let mut hops = self.0.hops.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = core::mem::take(&mut *hops);
        for target in targets {
            let same = old.remove(&target.id).filter(|hop| hop.target == target);
            hops.insert(target.id, same.unwrap_or_else(|| self.start(target)));
        }
        let queues = hops.iter().map(|(id, hop)| (*id, hop.queue.clone()));
        self.0.queues.send_replace(Arc::new(queues.collect()));
    }

    fn start(&self, target: Target) -> Hop {
        let (queue, frames) = mpsc::channel(self.0.queue_max);
        let ended = self.0.stop.child_token();
        let keep = keep(Arc::clone(&self.0), target.clone(), frames);
        let until = ended.clone();
        let keep = async move { until.run_until_cancelled(keep).await };
        self.0.runtime.spawn(keep);
        Hop {
            target,
            queue,
            ended,
        }
    }

    /// Where packets are queued; each place that sends has its own.
    #[must_use]
    pub fn sender(&self) -> Sending {
        let changes = self.0.queues.subscribe();
        let queues = changes.borrow().clone();
        Sending {
            shared: Arc::clone(&self.0),
            changes,
            queues,
        }
    }

    /// Queues a copy of `frame` for each next hop whose queue has room.
    pub fn broadcast(&self, frame: &Frame) {
        let hops = self.0.hops.read().unwrap_or_else(PoisonError::into_inner);
        for hop in hops.values() {
            let _full = hop.queue.try_send(Onward::Notice(frame.clone()));
        }
    }

    /// Waits until each link has taken all that was queued; one that is down never does, so its
    /// caller waits with a limit.
    pub async fn flushed(&self) {
        for queue in self.queues() {
            let all = queue.max_capacity();
            let _ended = queue.reserve_many(all).await;
        }
    }

    fn queues(&self) -> Vec<mpsc::Sender<Onward>> {
        let hops = self.0.hops.read().unwrap_or_else(PoisonError::into_inner);
        hops.values().map(|hop| hop.queue.clone()).collect()
    }

    /// How many links are up, as it changes.
    #[must_use]
    pub fn up(&self) -> watch::Receiver<usize> {
        self.0.up.subscribe()
    }

    /// How many links there should be.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.0
            .hops
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// Where packets for the next hops are queued, without a lock unless the hops have changed.
#[derive(Debug)]
pub struct Sending {
    shared: Arc<Shared>,
    changes: watch::Receiver<Queues>,
    queues: Queues,
}

impl Sending {
    /// Queues a packet for `to`, and counts what became of it; never waits.
    ///
    /// # Errors
    ///
    /// [`NotSent::Full`] if its queue is, [`NotSent::Down`] if `to` is no next hop.
    pub fn send(&mut self, to: &NodeId, packet: Box<Packet>) -> Result<(), NotSent> {
        if self.changes.has_changed().unwrap_or(false) {
            self.queues = self.changes.borrow_and_update().clone();
        }
        let counts = &self.shared.counts;
        let room = self.queues.get(to).ok_or(NotSent::Down);
        let room = room.and_then(|queue| Ok(queue.try_reserve()?));
        room.inspect_err(|why| counts.refused(*why))?
            .send(Onward::Packet(Waiting::new(packet, counts)));
        Ok(())
    }
}

/// Counts one link that is up, until it is dropped.
struct Up<'a>(&'a watch::Sender<usize>);

impl<'a> Up<'a> {
    fn count(up: &'a watch::Sender<usize>) -> Self {
        up.send_modify(|up| *up += 1);
        Self(up)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|up| *up -= 1);
    }
}

/// Dials `target` again and again, and writes what is queued. Ends only by being dropped.
async fn keep(shared: Arc<Shared>, target: Target, mut queued: mpsc::Receiver<Onward>) {
    let hello = Hello {
        version: WIRE_VERSION,
        purpose: Purpose::Node,
        profile: 0,
    };
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let error = match shared.dialler.dial(&target, hello).await {
            Ok(link) => {
                let _up = Up::count(&shared.up);
                let dialled = shared.dialler.clock.now();
                let (mut silent, mut writer) = (link.reader, link.writer);
                let ended = tokio::select! {
                    written = writer.pump_onwards(&mut queued) => written.err(),
                    heard = silent.frame() => Some(heard.map_or_else(
                        |error| error,
                        |_| LinkError::PeerMisbehaved("a node link has one direction"),
                    )),
                };
                // One that is refused ends at once; only a link that held starts over.
                if shared.dialler.clock.now().since(dialled) >= LONGEST_WAIT {
                    backoff.reset();
                }
                ended.unwrap_or(LinkError::Closed)
            }
            Err(error) => error,
        };
        shared.failures.add(1);
        tracing::debug!(node = ?target.id, %error, "no link; it will be dialled again");
        tokio::time::sleep(backoff.wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use proto::{Time, wire::FIELD_LEN};

    use super::*;
    use crate::{
        accept::{Limits, tests::open},
        clock::Clock,
        link::{
            WAIT_MAX,
            tests::{dialler, target},
        },
    };

    const DROPPED: &str = "lacuna_packets_dropped_total";

    fn outgoing(seed: u8, queue_max: usize) -> (Outgoing, CancellationToken) {
        outgoing_at(Clock::start(), seed, queue_max, &Metrics::default())
    }

    fn outgoing_at(
        clock: Clock,
        seed: u8,
        queue_max: usize,
        metrics: &Metrics,
    ) -> (Outgoing, CancellationToken) {
        let stop = CancellationToken::new();
        let (dialler, here) = (dialler(clock, Some(seed)), Handle::current());
        let outgoing = Outgoing::new(dialler, queue_max, metrics, here, stop.clone());
        (outgoing, stop)
    }

    fn numbered(number: u8) -> Box<Packet> {
        Box::new([number; sphinx::PACKET_LEN])
    }

    fn framed(number: u8) -> Frame {
        Frame::packet(0, [0; FIELD_LEN], &numbered(number))
    }

    #[tokio::test]
    async fn frames_wait_for_a_link_and_survive_its_loss() {
        let (address, mut links, _, _stop) = open(&[Purpose::Node], Limits::default()).await;
        let (outgoing, _stop) = outgoing(101, 4);
        let target = target(2, address);
        let mut sending = outgoing.sender();
        assert_eq!(sending.send(&target.id, numbered(0)), Err(NotSent::Down));
        outgoing.set([target.clone()]);
        sending.send(&target.id, numbered(1)).unwrap();
        let mut first = links.recv().await.unwrap();
        assert_eq!(first.link.reader.frame().await.unwrap().1, framed(1));

        // The link breaks; it is dialled again, and what is queued goes over the new one.
        first.ended.cancel();
        drop(first);
        let mut second = links.recv().await.unwrap();
        outgoing.up().wait_for(|up| *up == 1).await.unwrap();
        sending.send(&target.id, numbered(2)).unwrap();
        assert_eq!(second.link.reader.frame().await.unwrap().1, framed(2));
    }

    /// LNK-10: behind a slow neighbour what passes is not late by as much as the queue is long. A notice
    /// waits, and so does a packet that came a moment ago.
    #[tokio::test]
    async fn what_waited_too_long_for_its_link_is_dropped_and_counted() {
        let (address, mut links, _, _stop) = open(&[Purpose::Node], Limits::default()).await;
        let (clock, metrics) = (Clock::started(WAIT_MAX * 2), Metrics::default());
        let (outgoing, _stop) = outgoing_at(clock, 101, 4, &metrics);
        let target = target(2, address);
        outgoing.set([target.clone()]);
        let queue = outgoing.queues().remove(0);
        let old = Waiting::new(numbered(1), &outgoing.0.counts).since(Time::ZERO);
        for old in [Onward::Packet(old), Onward::Notice(framed(2))] {
            queue.try_send(old).unwrap();
        }
        let mut sending = outgoing.sender();
        sending.send(&target.id, numbered(3)).unwrap();
        let mut taken = links.recv().await.unwrap();
        for number in [2, 3] {
            let (_, frame) = taken.link.reader.frame().await.unwrap();
            assert_eq!(frame, framed(number));
        }
        settled(&metrics).await;
        assert_eq!(metrics.cell(DROPPED, "link_slow").value(), 1);
        assert_eq!(metrics.sum("lacuna_packets_sent_total"), 1);
    }

    /// Waits until no packet is under way; each has been counted by then.
    async fn settled(metrics: &Metrics) {
        while metrics.sum("lacuna_packets_queued") > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// LNK-10: what is queued is not sent yet, and no packet goes uncounted when its link breaks while it
    /// is written, or when its next hop is one no longer.
    #[tokio::test]
    async fn packets_that_go_with_their_link_are_counted_once() {
        const PACKETS: u64 = 10_000; // more than the kernel's buffers take
        let (address, mut links, _, _stop) = open(&[Purpose::Node], Limits::default()).await;
        let (clock, metrics) = (Clock::start(), Metrics::default());
        let (outgoing, _stop) = outgoing_at(clock, 101, 10_000, &metrics);
        let target = target(2, address);
        let count = |reason| metrics.cell(DROPPED, reason).value();
        let sent = metrics.cell("lacuna_packets_sent_total", "");
        let queued = metrics.cell("lacuna_packets_queued", "");
        outgoing.set([target.clone()]);
        let first = links.recv().await.unwrap();
        outgoing.up().wait_for(|up| *up == 1).await.unwrap();
        let mut sending = outgoing.sender();
        for _ in 0..PACKETS {
            sending.send(&target.id, numbered(1)).unwrap();
        }
        assert_eq!((sent.value(), queued.value()), (0, PACKETS));

        // A neighbour that reads nothing: the writer waits with a batch in hand when the link breaks.
        let mut before = 0;
        while sent.value() == 0 || sent.value() > before {
            before = sent.value();
            tokio::task::yield_now().await;
        }
        assert_eq!(sent.value() + queued.value(), PACKETS);
        first.ended.cancel();
        drop(first);
        let _second = links.recv().await.unwrap();
        let broken = count("link_down");
        assert!(broken > 0, "the batch in hand");

        // The next document names others.
        outgoing.set([]);
        settled(&metrics).await;
        let ends = [sent.value(), count("link_down"), count("link_slow")];
        assert_eq!(ends.iter().sum::<u64>(), PACKETS, "{ends:?}");
        assert!(ends[1] > broken, "what was queued");
        assert_eq!(sending.send(&target.id, numbered(1)), Err(NotSent::Down));
        assert_eq!(count("link_down"), ends[1] + 1);
    }

    #[tokio::test]
    async fn the_set_of_links_follows_the_targets() {
        let (address, mut links, _, _stop) = open(&[Purpose::Node], Limits::default()).await;
        let (outgoing, _stop) = outgoing(101, 4);
        let target = target(2, address);
        outgoing.set([target.clone()]);
        let mut kept = links.recv().await.unwrap();
        outgoing.set([target.clone()]);
        let mut sending = outgoing.sender();
        sending.send(&target.id, numbered(1)).unwrap();
        assert!(
            kept.link.reader.frame().await.is_ok(),
            "an equal target keeps its link"
        );
        outgoing.set([]);
        assert!(kept.link.reader.frame().await.is_err());
        assert_eq!(sending.send(&target.id, numbered(2)), Err(NotSent::Down));
        outgoing.up().wait_for(|up| *up == 0).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let (outgoing, _stop) = outgoing(101, 2);
        let nobody = target(2, "127.0.0.1:1".to_owned());
        outgoing.set([nobody.clone()]);
        let mut sending = outgoing.sender();
        let results = [0, 1, 2].map(|number| sending.send(&nobody.id, numbered(number)));
        assert_eq!(results, [Ok(()), Ok(()), Err(NotSent::Full)]);
    }

    /// A node link has one direction.
    #[tokio::test]
    async fn whoever_answers_on_a_node_link_is_hung_up_on() {
        let (address, mut links, _, _stop) = open(&[Purpose::Node], Limits::default()).await;
        let (outgoing, _stop) = outgoing(101, 2);
        outgoing.set([target(2, address)]);
        let mut taken = links.recv().await.unwrap();
        taken.link.writer.write(&[framed(1)]).await.unwrap();
        assert!(taken.link.reader.frame().await.is_err());
        assert!(links.recv().await.is_some(), "and dialled again");
    }
}
