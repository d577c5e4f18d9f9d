//! Links of clients: what they send goes to the machine, what the machine sends goes to them.
//!
//! Spec: docs/spec/gateway.md, rules GW-1, GW-13; docs/spec/link.md, LNK-9.
//!
//! | quantity         | value                                                                  |
//! |------------------|------------------------------------------------------------------------|
//! | link number      | counted up from 0, never given twice                                   |
//! | [`QUEUE_MAX`]    | frames before one link's writer; a full one closes the link            |
//! | [`SILENCE`]      | longest without a frame: every profile speaks several times in it      |
//!
//! Invariants: the machine hears of a link before it hears its first frame, and that it is gone
//! after its last. Nothing here is labelled with, or logs, whose link it is (OPS-1).

use core::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::{
    LinkId,
    gateway::Input,
    wire::{Frame, Kind, Purpose},
};
use shell::{
    accept::Incoming,
    link::Outbox,
    metrics::{Cell, Metrics},
};
use tokio::sync::mpsc;

/// Twice the longest time between two confirmations that parameters allow (LNK-9, DIR-2).
const SILENCE: Duration = Duration::from_secs(2 * 3600);

/// Frames that wait for one client at most: they come at its profile's rate, so this is more than half a second of
/// the fastest, besides as much that the system takes (LNK-11). Many that read nothing must not fill the memory.
pub(crate) const QUEUE_MAX: usize = 128;

/// All links of clients. Clones share them.
#[derive(Clone)]
pub(crate) struct Clients(Arc<Shared>);

struct Shared {
    machine: mpsc::Sender<Input>,
    numbered: AtomicU64,
    open: Mutex<BTreeMap<LinkId, Outbox>>,
    entry_in: Cell,
    mailbox_in: Cell,
    packets_out: Cell,
    dummies_out: Cell,
    notices_out: Cell,
    links: Cell,
    too_slow: Cell,
}

impl Clients {
    pub(crate) fn new(machine: mpsc::Sender<Input>, metrics: &Metrics) -> Self {
        Self(Arc::new(Shared {
            machine,
            numbered: AtomicU64::new(0),
            open: Mutex::default(),
            entry_in: metrics.cell("lacuna_client_frames_in_total", "entry"),
            mailbox_in: metrics.cell("lacuna_client_frames_in_total", "mailbox"),
            packets_out: metrics.cell("lacuna_client_frames_out_total", "packet"),
            dummies_out: metrics.cell("lacuna_client_frames_out_total", "dummy"),
            notices_out: metrics.cell("lacuna_client_frames_out_total", "notice"),
            links: metrics.cell("lacuna_client_links", ""),
            too_slow: metrics.cell("lacuna_links_broken_total", "client_too_slow"),
        }))
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<LinkId, Outbox>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, open: &BTreeMap<LinkId, Outbox>) {
        self.0.links.set(open.len() as u64);
    }

    /// Serves one link until it ends.
    pub(crate) async fn serve(self, incoming: Incoming) {
        let link = LinkId(self.0.numbered.fetch_add(1, Ordering::Relaxed));
        let (hello, exporter) = (incoming.hello, incoming.link.peer.exporter);
        let (outbox, mut reader) = incoming.link.start(QUEUE_MAX);
        reader.set_idle(Some(SILENCE));
        // Removed on every way out, also when the task is dropped as the process stops.
        let _listed = Listed::new(&self, link, outbox);
        let linked = Input::Linked {
            link,
            purpose: hello.purpose,
            profile: hello.profile,
            exporter,
        };
        let read = match hello.purpose {
            Purpose::Entry => &self.0.entry_in,
            Purpose::Mailbox | Purpose::Node | Purpose::Directory => &self.0.mailbox_in,
        };
        let (machine, mut frames) = (&self.0.machine, Vec::new());
        let work = async {
            machine.send(linked).await.ok()?;
            while reader.frames(&mut frames).await.is_ok() {
                read.add(frames.len() as u64);
                for (_, frame) in frames.drain(..) {
                    machine.send(Input::Frame { link, frame }).await.ok()?;
                }
            }
            machine.send(Input::Unlinked { link }).await.ok()
        };
        // None: the machine has stopped, and with it this process.
        let _stopping = work.await;
    }

    /// Queues a frame for a client's link. If that can't be, the link is closed: a frame left
    /// out would be confirmed by the next one (GW-13).
    pub(crate) fn send(&self, link: LinkId, frame: Frame) {
        let counted = match frame.kind() {
            Some(Kind::Packet) => &self.0.packets_out,
            Some(Kind::Notice) => &self.0.notices_out,
            _ => &self.0.dummies_out,
        };
        if let Some(outbox) = self.open().get(&link) {
            match outbox.send(frame) {
                Ok(()) => counted.add(1),
                Err(_) => {
                    self.0.too_slow.add(1);
                    outbox.close();
                }
            }
        }
    }

    /// Closes a client's link.
    pub(crate) fn close(&self, link: LinkId) {
        if let Some(outbox) = self.open().get(&link) {
            outbox.close();
        }
    }
}

/// A link on the list, until dropped; its writer ends with it.
struct Listed<'a> {
    clients: &'a Clients,
    link: LinkId,
}

impl<'a> Listed<'a> {
    fn new(clients: &'a Clients, link: LinkId, outbox: Outbox) -> Self {
        let mut open = clients.open();
        open.insert(link, outbox);
        clients.show(&open);
        Self { clients, link }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut open = self.clients.open();
        if let Some(outbox) = open.remove(&self.link) {
            outbox.close();
        }
        self.clients.show(&open);
    }
}
