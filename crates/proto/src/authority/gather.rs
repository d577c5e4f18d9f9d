//! The nodes that have submitted themselves to an authority.
//!
//! Spec: docs/spec/directory.md, rule DIR-12.
//!
//! | quantity | type | unit, range                                          |
//! |----------|------|------------------------------------------------------|
//! | nodes    | map  | descriptors, one a node, <= `nodes_max`           |
//! | grown    | time | when the last new node was taken                     |

use std::collections::BTreeMap;

use crate::{
    NodeId, Time,
    calendar::Utc,
    directory::{Descriptor, Refusal, Role, SignedDescriptor, Terms},
};

pub(super) struct Gathered {
    nodes_max: usize,
    nodes: BTreeMap<NodeId, (Descriptor, SignedDescriptor)>,
    grown: Time,
}

impl Gathered {
    pub(super) fn new(nodes_max: usize) -> Self {
        Self {
            nodes_max,
            nodes: BTreeMap::new(),
            grown: Time::ZERO,
        }
    }

    /// Whether a descriptor can stand in the document of `terms`.
    pub(super) fn judge(
        &self,
        terms: &Terms,
        now: Option<Utc>,
        signed: &SignedDescriptor,
    ) -> Result<Descriptor, Refusal> {
        let said = signed.verify(&terms.network);
        let said = said.map_err(|_| Refusal::Descriptor)?;
        let keys = terms.params.packet_keys();
        if said.period != terms.period || said.packet_keys.len() != keys {
            return Err(Refusal::PacketKeys);
        }
        if now.is_some_and(|now| !covers(terms, &said, now.as_secs())) {
            return Err(Refusal::Certificate);
        }
        match self.nodes.get(&said.id) {
            // Its certificate's first second orders a node's descriptors, so that nobody can
            // bring back an earlier one.
            Some((held, _)) if held.link.not_before_s > said.link.not_before_s => {
                Err(Refusal::Older)
            }
            None if self.nodes.len() >= self.nodes_max => Err(Refusal::Full),
            _ => Ok(said),
        }
    }

    /// Takes what was judged well. Only a node that is new is waited for: one that changed its
    /// descriptor again and again would else put the document off for good.
    pub(super) fn take(&mut self, now: Time, said: Descriptor, signed: SignedDescriptor) {
        if self.nodes.insert(said.id, (said, signed)).is_none() {
            self.grown = now;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn grown(&self) -> Time {
        self.grown
    }

    pub(super) fn said(&self) -> impl Iterator<Item = &Descriptor> {
        self.nodes.values().map(|(said, _)| said)
    }

    pub(super) fn signed(&self) -> impl Iterator<Item = &SignedDescriptor> {
        self.nodes.values().map(|(_, signed)| signed)
    }

    /// Those whose certificates cover a document that starts at `from_s`, in UTC seconds.
    pub(super) fn usable(&self, terms: &Terms, from_s: u64) -> Vec<SignedDescriptor> {
        let nodes = self.nodes.values();
        let usable = nodes.filter(|(said, _)| covers(terms, said, from_s));
        usable.map(|(_, signed)| signed.clone()).collect()
    }
}

fn covers(terms: &Terms, said: &Descriptor, from_s: u64) -> bool {
    let lifetime_s = terms.params.lifetime().as_secs();
    said.link
        .covers(&(from_s..from_s.saturating_add(lifetime_s)))
}

/// Whether there are so many mixes and gateways.
pub(super) fn enough<'a>(
    nodes: impl IntoIterator<Item = &'a Descriptor>,
    mixes_min: usize,
    gateways_min: usize,
) -> bool {
    let (mut mixes, mut gateways) = (0, 0);
    for node in nodes {
        match node.role {
            Role::Mix => mixes += 1,
            Role::Gateway => gateways += 1,
        }
    }
    mixes >= mixes_min && gateways >= gateways_min
}
