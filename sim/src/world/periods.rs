//! The edge of a period: a second document, in which every mix stands in another layer.
//!
//! | who     | goes over to the second document                                                      |
//! |---------|---------------------------------------------------------------------------------------|
//! | client  | at the new period's start (EPO-3), having been told a skew before                      |
//! | gateway | a skew before the start, and relays to both first layers until the old keys have closed |
//! | mix     | packet by packet: the key that opens one says whose layers count (EPO-6)                |
//! | link    | admits who may stand there in either document, until the old keys have closed (LNK-8)    |
//!
//! Everyone by a clock of its own. The documents are built here and carry no votes: verifying them is the
//! shell's, which this engine has not.

use std::{collections::BTreeSet, sync::Arc};

use proto::{NodeId, calendar::Utc, client, directory::Consensus, mix::Next};

use super::{World, agenda::Event, report, setup};
use crate::{
    outcome::{Outcome, RunError},
    scenario::Scenario,
};

/// What links and mixes go by at the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edge {
    /// Both documents, as deployed.
    #[default]
    Both,
    /// The newest that has begun, and no other: for positive controls.
    Newest,
}

/// What a node's documents say.
pub(super) struct Says {
    pub(super) next: Next,
    pub(super) documents: Vec<Arc<Consensus>>,
}

/// [`super::run`], with the edge of a period in the middle of the run. Each opened packet is counted by the
/// period of its key, `OpenedInPeriod…`; each that a link does not admit is `NotAdmitted`.
///
/// # Errors
///
/// As [`super::run`].
pub fn cross(scenario: &Scenario, seed: u64, edge: Edge) -> Result<Outcome, RunError> {
    let mut plan = setup::plan(scenario, seed)?;
    plan.documents.push(Arc::new(following(&plan.documents[0])));
    let mut world = World::new(scenario, seed, plan).with_messages();
    world.edge = edge;
    world.run(&|_| ());
    Ok(report::outcome(scenario, &world))
}

/// The document of the next period: the same nodes, every mix in another layer.
fn following(document: &Consensus) -> Consensus {
    let mut next = document.clone();
    let epochs = usize::from(document.params.epochs);
    next.period += 1;
    next.valid_from_s += u64::from(document.params.epoch_s) * u64::from(document.params.epochs);
    next.previous = document.hash();
    next.layers.rotate_left(1);
    for node in &mut next.nodes {
        node.period += 1;
        // Those of this period; no run reaches the one after.
        node.packet_keys.rotate_left(epochs);
    }
    next
}

/// Whether a link from one node to the other is one of the document's.
fn leads(document: &Consensus, from: &NodeId, to: &NodeId) -> bool {
    let last = document.layers.len() - 1;
    match (document.layer(from), document.layer(to)) {
        (None, to) => to == Some(0),
        (Some(from), None) => from == last,
        (Some(from), Some(to)) => to == from + 1,
    }
}

/// Who may follow a mix.
fn after(document: &Consensus, id: &NodeId) -> BTreeSet<NodeId> {
    let nodes = document.nodes.iter().map(|node| node.id);
    nodes.filter(|to| leads(document, id, to)).collect()
}

impl World<'_> {
    /// Steers an entity whenever one of its documents begins to count, or one before it stops to.
    pub(super) fn edges(&mut self, entity: usize) {
        let mut edges = Vec::new();
        for document in &self.documents[1..] {
            let calendar = self.calendar_of(entity);
            for utc in [begins(document), closes(document)] {
                edges.push(calendar.time(utc));
            }
        }
        for at in edges {
            self.agenda.put(at, Event::Steer(entity));
        }
    }

    /// The document that holds at an entity now, by its clock.
    pub(super) fn current(&self, entity: usize) -> &Arc<Consensus> {
        let utc = self.calendar_of(entity).utc(self.now);
        let begun = self.documents.iter().rfind(|known| begins(known) <= utc);
        begun.unwrap_or(&self.documents[0])
    }

    /// The documents whose layers count at an entity now.
    fn in_use(&self, entity: usize) -> &[Arc<Consensus>] {
        let utc = self.calendar_of(entity).utc(self.now);
        let of = |at: Option<usize>| at.unwrap_or_default();
        match self.edge {
            Edge::Both => {
                let over = self
                    .documents
                    .iter()
                    .rposition(|known| closes(known) <= utc);
                &self.documents[of(over)..]
            }
            Edge::Newest => {
                let begun = self
                    .documents
                    .iter()
                    .rposition(|known| begins(known) <= utc);
                &self.documents[of(begun)..=of(begun)]
            }
        }
    }

    /// Whether both ends of a link between nodes have it now (LNK-8).
    pub(super) fn admits(&self, from: usize, to: usize) -> bool {
        let ids = [from, to].map(|node| self.nodes[node].id);
        [from, to].into_iter().all(|end| {
            let mut documents = self.in_use(end).iter();
            documents.any(|document| leads(document, &ids[0], &ids[1]))
        })
    }

    /// Who may follow a node now, and the documents that a gateway has heard of, oldest first.
    pub(super) fn says(&self, node: usize) -> Says {
        let id = self.nodes[node].id;
        let next = |document: &Arc<Consensus>| {
            let first = match self.edge {
                Edge::Both => document.schedule().first,
                Edge::Newest => self.documents[0].schedule().first,
            };
            (first, after(document, &id))
        };
        let current = self.current(node).period;
        let heard = self.documents.iter();
        Says {
            next: self.in_use(node).iter().map(next).collect(),
            documents: heard
                .filter(|known| known.period <= current)
                .cloned()
                .collect(),
        }
    }

    /// Tells an entity's machine what its documents say now.
    pub(super) fn steer(&mut self, entity: usize) {
        match entity.checked_sub(self.nodes.len()) {
            None => {
                let says = self.says(entity);
                self.nodes[entity].heed(self.now, &says);
                self.settle(entity);
            }
            Some(client) => {
                let current = Arc::clone(self.current(entity));
                self.tell(client, client::Input::Consensus(current));
            }
        }
    }
}

/// A document is believed from a skew before its first epoch (EPO-4).
fn begins(document: &Consensus) -> Utc {
    let schedule = document.schedule();
    schedule.valid_from.before(schedule.skew())
}

/// When the last key of the period before has closed (EPO-2).
fn closes(document: &Consensus) -> Utc {
    let schedule = document.schedule();
    schedule
        .valid_from
        .after(schedule.grace() + schedule.skew())
}
