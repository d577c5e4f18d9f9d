//! Who stands before and after a node: whose links it takes, and whom it dials.
//!
//! Spec: docs/spec/link.md, rules LNK-7, LNK-8.
//!
//! | node               | before it (may dial it) | after it (it dials)   |
//! |--------------------|-------------------------|-----------------------|
//! | gateway            | the last layer          | the first layer       |
//! | mix of layer 1     | gateways                | layer 2               |
//! | mix of layer i     | layer i − 1             | layer i + 1           |
//! | mix of last layer  | the layer before        | gateways              |

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::{
    NodeId,
    directory::{Consensus, Descriptor, Role},
    mix::Next,
};

use tokio::sync::watch;

use crate::{accept::AdmitNode, link::Target};

/// The two sides of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Index of its layer; none for a gateway.
    pub layer: Option<usize>,
    /// Link keys of those that may dial it.
    pub before: BTreeMap<[u8; 32], NodeId>,
    /// Those that it dials.
    pub after: Vec<Target>,
}

impl Neighbours {
    /// Of the node `id`, or none if the consensus does not name it.
    #[must_use]
    pub fn of(consensus: &Consensus, id: &NodeId) -> Option<Self> {
        let node = consensus.node(id)?;
        let layer = consensus.layer(id);
        let gateways = || consensus.gateways().collect::<Vec<_>>();
        let mixes = |layer: usize| -> Vec<&Descriptor> {
            let ids = consensus.layers.get(layer).into_iter().flatten();
            ids.filter_map(|id| consensus.node(id)).collect()
        };
        let last = consensus.layers.len().checked_sub(1)?;
        let (before, after) = match (node.role, layer) {
            (Role::Gateway, _) => (mixes(last), mixes(0)),
            (Role::Mix, None) => return None,
            (Role::Mix, Some(layer)) => {
                let before = layer.checked_sub(1).map_or_else(gateways, mixes);
                let after = if layer == last {
                    gateways()
                } else {
                    mixes(layer + 1)
                };
                (before, after)
            }
        };
        Some(Self {
            layer,
            before: before
                .iter()
                .map(|node| (node.link.link_key, node.id))
                .collect(),
            after: after.into_iter().map(Target::from).collect(),
        })
    }

    /// Of the node `id` in several documents, oldest first: who is its neighbour in any (LNK-8). Of
    /// what they say differently of one node, the newest counts; so does its layer.
    #[must_use]
    pub fn of_all(documents: &[Arc<Consensus>], id: &NodeId) -> Self {
        let mut all = Self::default();
        let mut after = BTreeMap::new();
        for document in documents {
            let Some(own) = Self::of(document, id) else {
                continue;
            };
            all.layer = own.layer;
            all.before.extend(own.before);
            after.extend(own.after.into_iter().map(|target| (target.id, target)));
        }
        all.after = after.into_values().collect();
        all
    }

    /// The names of those that it dials.
    #[must_use]
    pub fn next(&self) -> BTreeSet<NodeId> {
        self.after.iter().map(|target| target.id).collect()
    }
}

/// Who may come after the mix `id` (MIX-4), by the first epoch of each document; nobody in one that
/// does not name it.
#[must_use]
pub fn next_of(documents: &[Arc<Consensus>], id: &NodeId) -> Next {
    let next = |document: &Arc<Consensus>| {
        let own = Neighbours::of(document, id);
        let nodes = own.map(|own| own.next()).unwrap_or_default();
        (document.schedule().first, nodes)
    };
    documents.iter().map(next).collect()
}

/// Whom a listener admits now, by link key; changes with the consensus. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Admitted(Arc<watch::Sender<BTreeMap<[u8; 32], NodeId>>>);

impl Admitted {
    /// From now on, these link keys and no others.
    pub fn set(&self, before: BTreeMap<[u8; 32], NodeId>) {
        self.0.send_replace(before);
    }

    /// The question that a listener asks.
    #[must_use]
    pub fn admit(&self) -> AdmitNode {
        let known = Arc::clone(&self.0);
        Arc::new(move |key| known.borrow().get(key).copied())
    }

    /// The set as it changes, for links that are up: one that waited for the document instead
    /// could ask before the set follows it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeMap<[u8; 32], NodeId>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        NetworkId,
        directory::{Params, Terms},
    };

    use super::*;
    use crate::{
        keys::{About, Keys},
        state::StateDir,
    };

    const NETWORK: NetworkId = NetworkId([7; 32]);

    /// LNK-8
    #[test]
    fn every_node_dials_those_that_admit_it() {
        let folder = tempfile::tempdir().unwrap();
        let params = Params::default();
        let nodes: Vec<_> = (0..8u8)
            .map(|i| {
                let path = folder.path().join(i.to_string());
                let keys = Keys::open(StateDir::open(&path).unwrap()).unwrap();
                let about = About {
                    role: if i < 6 { Role::Mix } else { Role::Gateway },
                    address: format!("127.0.0.1:{}", 9000 + u16::from(i)),
                    family: "x".to_owned(),
                    check: proto::directory::SelfCheck::new(sphinx::Path::Portable, 1, 1),
                };
                let said = keys.descriptor(&NETWORK, &about, 0, &params, 1_000_000);
                (keys, said.unwrap())
            })
            .collect();
        let terms = Terms {
            network: NETWORK,
            period: 0,
            previous: [0; 32],
            layers: 3,
            params,
        };
        let said = nodes.iter().map(|(_, said)| said.clone());
        let consensus = Consensus::build(&terms, 1_000_000, said).unwrap();

        let of = |keys: &Keys| Neighbours::of(&consensus, &keys.id()).unwrap();
        let mut edges = 0;
        for (from, _) in &nodes {
            for (to, _) in &nodes {
                let dials = of(from).next().contains(&to.id());
                let link_key = from.link().verifying_key().to_bytes();
                let admits = of(to).before.get(&link_key) == Some(&from.id());
                assert_eq!(dials, admits);
                edges += usize::from(dials);
                if dials && let Some(layer) = of(from).layer {
                    let next = if layer == 2 { None } else { Some(layer + 1) };
                    assert_eq!(of(to).layer, next);
                }
            }
        }
        assert_eq!(edges, 4 * (2 * 2)); // four crossings, two nodes on either side
        let stranger = NodeId([1; 32]);
        assert_eq!(Neighbours::of(&consensus, &stranger), None);

        // EPO-6, MIX-4: at a period's edge those of both, and whose key it is says who may be next.
        let mut turned = consensus.clone();
        turned.period = 1;
        turned.layers.rotate_left(1);
        let both = [Arc::new(consensus), Arc::new(turned)];
        for (node, _) in &nodes {
            let id = node.id();
            let [old, new] = [0, 1].map(|i| Neighbours::of(&both[i], &id).unwrap());
            let all = Neighbours::of_all(&both, &id);
            assert_eq!(all.next(), &old.next() | &new.next());
            let before = old.before.clone().into_iter().chain(new.before.clone());
            let before = before.collect();
            assert_eq!(all.before, before);
            let next = next_of(&both, &id);
            let first = |i: usize| both[i].schedule().first;
            assert_eq!(
                next,
                [(first(0), old.next()), (first(1), new.next())].into()
            );
            assert_eq!(Neighbours::of_all(&both[1..], &id), new);
        }
        assert_eq!(Neighbours::of_all(&both, &stranger), Neighbours::default());
        let nobody = BTreeSet::new();
        assert!(
            next_of(&both, &stranger)
                .values()
                .all(|next| *next == nobody)
        );

        let (admitted, key) = (
            Admitted::default(),
            nodes[0].0.link().verifying_key().to_bytes(),
        );
        let admit = admitted.admit();
        assert_eq!(admit(&key), None);
        admitted.set(BTreeMap::from([(key, nodes[0].0.id())]));
        assert_eq!(admit(&key), Some(nodes[0].0.id()));
    }
}
