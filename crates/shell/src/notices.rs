//! Notices on their way: a node hears each once, passes it on, and says its own.
//!
//! Spec: docs/spec/loops.md, rules LOOP-8, LOOP-9.
//!
//! | metric                     | what                                                           |
//! |----------------------------|----------------------------------------------------------------|
//! | `lacuna_notices_total`     | heard, by kind (`alarm`, `withdrawal`); not heard, by reason   |
//!
//! A notice names a node, never a client, so that it may be logged (OPS-1).

use core::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use proto::{
    NetworkId,
    notice::{Heard, Notice, NoticeDrop, What},
    wire::Frame,
};
use tokio::sync::watch;

use crate::{clock::Clock, dial::Outgoing, follow::State, keys::Keys, metrics::Metrics};

const TOTAL: &str = "lacuna_notices_total";

/// Whom a role tells of each new notice besides the next hops; must not wait.
pub type Tell = Arc<dyn Fn(&Frame) + Send + Sync>;

/// What the notices of one node work with.
pub(crate) struct Setup {
    pub(crate) network: NetworkId,
    pub(crate) keys: Arc<Keys>,
    pub(crate) clock: Clock,
    pub(crate) directory: watch::Receiver<State>,
    pub(crate) outgoing: Outgoing,
    pub(crate) tell: Tell,
    pub(crate) metrics: Metrics,
}

/// The notices of one node. Clones share them.
#[derive(Clone)]
pub(crate) struct Notices(Arc<(Setup, Mutex<Heard>)>);

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices(..)")
    }
}

impl Notices {
    pub(crate) fn new(setup: Setup) -> Self {
        Self(Arc::new((setup, Mutex::default())))
    }

    /// Says `what` of this node, and gives the frame that says it; nothing comes of it if it did so
    /// within this minute, or if no document names it.
    pub(crate) fn say(&self, what: What) -> Frame {
        let notice = Notice::new(what, self.0.0.keys.id(), self.0.0.clock.utc());
        let frame = notice.sign(&self.0.0.network, self.0.0.keys.identity());
        let _said_before = self.hear(&frame);
        frame
    }

    /// Hears what a neighbour passes on, and passes it on if it is new.
    ///
    /// # Errors
    ///
    /// Why it is not heard. Only [`NoticeDrop::Forged`] is the neighbour's fault.
    pub(crate) fn hear(&self, frame: &Frame) -> Result<(), NoticeDrop> {
        let heard = self.news(frame);
        self.0.0.metrics.count(
            TOTAL,
            match heard.map(|notice| notice.what) {
                Ok(What::Alarm) => "alarm",
                Ok(What::Withdrawal) => "withdrawal",
                Err(NoticeDrop::Forged) => "forged",
                Err(NoticeDrop::Stale) => "stale",
                Err(NoticeDrop::Old) => "old",
            },
        );
        let notice = heard?;
        if notice.node != self.0.0.keys.id() {
            tracing::warn!(node = ?notice.node, what = ?notice.what, "a node says of itself");
        }
        self.0.0.outgoing.broadcast(frame);
        (self.0.0.tell)(frame);
        Ok(())
    }

    fn news(&self, frame: &Frame) -> Result<Notice, NoticeDrop> {
        let state = self.0.0.directory.borrow().clone();
        let consensus = state.consensus().ok_or(NoticeDrop::Stale)?;
        let mut heard = self.0.1.lock().unwrap_or_else(PoisonError::into_inner);
        heard.hear(frame, self.0.0.clock.utc(), &self.0.0.network, consensus)
    }
}

/// What `/status` says of notices.
#[must_use]
pub fn status(metrics: &Metrics) -> serde_json::Value {
    let [alarms, withdrawals] =
        ["alarm", "withdrawal"].map(|what| metrics.cell(TOTAL, what).value());
    serde_json::json!({ "alarms": alarms, "withdrawals": withdrawals })
}
