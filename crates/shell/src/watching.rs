//! A node follows the consensus: neighbours, keys, and how it stands.
//!
//! Spec: docs/spec/link.md, LNK-7, LNK-8; docs/spec/epochs.md, EPO-2, EPO-4.

use core::time::Duration;
use std::sync::Arc;

use proto::{NodeId, directory::Consensus};
use tokio::sync::watch;

use crate::{
    budget::replay_lasts,
    dial::Outgoing,
    follow::{Directory, State},
    metrics::Metrics,
    neighbours::{Admitted, Neighbours},
    peeler::Peeler,
    selfcheck::Measured,
};

/// How a node stands, for whoever looks after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Stopped, or stopped closed after a proof of a split.
    Off,
    /// No document holds now; it is being asked for.
    Bootstrapping,
    /// The document that holds does not name this node: nobody links to it.
    Unlisted,
    /// The key of this epoch is not open, and the log says why: every packet is dropped.
    Closed,
    /// Packets are taken.
    Ready,
}

impl Standing {
    fn of(state: &State, id: &NodeId, key_open: bool) -> Self {
        match state {
            State::Off => Self::Off,
            State::Bootstrapping => Self::Bootstrapping,
            State::Ready(consensus) if Neighbours::of(consensus, id).is_none() => Self::Unlisted,
            State::Ready(_) if !key_open => Self::Closed,
            State::Ready(_) => Self::Ready,
        }
    }

    /// `off`, `bootstrapping`, `unlisted`, `closed` or `ready`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Bootstrapping => "bootstrapping",
            Self::Unlisted => "unlisted",
            Self::Closed => "closed",
            Self::Ready => "ready",
        }
    }
}

/// Follows the consensus with everything that depends on it.
pub(crate) struct Watching {
    pub(crate) id: NodeId,
    pub(crate) directory: Directory,
    pub(crate) in_force: watch::Sender<State>,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) admitted: Admitted,
    pub(crate) outgoing: Outgoing,
    pub(crate) peeler: Peeler,
    pub(crate) replay_max: usize,
    pub(crate) crypto: Measured,
    pub(crate) metrics: Metrics,
}

impl Watching {
    pub(crate) async fn run(mut self) {
        let mut known = None;
        let mut key_open = self.peeler.key_open();
        let shown = self.metrics.cell("lacuna_key_open", "");
        loop {
            let using = self.directory.in_use.borrow_and_update().clone();
            let state = self.directory.state.borrow_and_update().clone();
            let is_new = known.as_ref() != Some(&state);
            // Keys first, which takes a while with large journals: what came meanwhile would be
            // dropped.
            if is_new {
                self.open_keys(&using, &state).await;
            }
            self.link(&using);
            if is_new {
                self.in_force.send_replace(state.clone());
            }
            let open = *key_open.borrow_and_update();
            shown.set(open.into());
            self.stand(Standing::of(&state, &self.id, open));
            known = Some(state);
            let gone = tokio::select! {
                changed = self.directory.state.changed() => changed.is_err(),
                changed = self.directory.in_use.changed() => changed.is_err(),
                // Its end is the node's.
                Ok(()) = key_open.changed() => false,
            };
            if gone {
                self.link(&[]);
                self.in_force.send_replace(State::Off);
                return self.stand(Standing::Off);
            }
        }
    }

    fn stand(&self, standing: Standing) {
        self.standing
            .send_if_modified(|before| core::mem::replace(before, standing) != standing);
    }

    /// EPO-4: without a document, nobody.
    fn link(&self, using: &[Arc<Consensus>]) {
        let neighbours = Neighbours::of_all(using, &self.id);
        self.admitted.set(neighbours.before);
        self.outgoing.set(neighbours.after);
    }

    async fn open_keys(&self, using: &[Arc<Consensus>], state: &State) {
        if let Some(consensus) = state.consensus() {
            if Neighbours::of(consensus, &self.id).is_some() {
                tracing::info!("in the consensus");
            } else {
                tracing::warn!("the consensus does not name this node; it stays closed");
            }
            self.warn_of_replay_max(consensus);
            // At an edge, from a skew before it on, the last key of the period before opens packets too
            // (EPO-2), which only that period's document names: a node that was just started has it not.
            let before = |known: &&Arc<Consensus>| known.period < consensus.period;
            for known in using.iter().filter(before).chain([consensus]) {
                self.peeler.renew(Arc::clone(known)).await;
            }
        }
    }

    /// RPL-3: once the set is full, nothing passes until its key closes.
    fn warn_of_replay_max(&self, consensus: &Consensus) {
        let schedule = consensus.schedule();
        let opens = schedule.opens(schedule.first);
        let opens = Duration::from_nanos(opens.end.0 - opens.start.0);
        if let Err(small) = replay_lasts(self.replay_max, self.crypto.rate_per_s, opens) {
            if small.by_far() {
                tracing::warn!(replay_max = self.replay_max, "{small}");
            } else {
                tracing::info!(replay_max = self.replay_max, "{small}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::consensus;

    #[test]
    fn without_a_document_the_key_says_nothing() {
        let id = NodeId([1; 32]);
        for key_open in [false, true] {
            assert_eq!(Standing::of(&State::Off, &id, key_open), Standing::Off);
            let asks = Standing::of(&State::Bootstrapping, &id, key_open);
            assert_eq!(asks, Standing::Bootstrapping);
        }
    }

    #[test]
    fn a_node_is_ready_when_it_is_named_and_its_key_is_open() {
        let consensus = Arc::new(consensus());
        let (named, state) = (consensus.gateways().next().unwrap().id, State::Ready);
        let of = |id, key_open| Standing::of(&state(Arc::clone(&consensus)), &id, key_open);
        assert_eq!(of(named, true), Standing::Ready);
        assert_eq!(of(named, false), Standing::Closed);
        assert_eq!(of(NodeId([1; 32]), true), Standing::Unlisted);
    }
}
