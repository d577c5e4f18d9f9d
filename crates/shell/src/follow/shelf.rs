//! The documents that are believed, and which of them count at a moment.
//!
//! Spec: docs/spec/link.md, LNK-8; docs/spec/epochs.md, EPO-2, EPO-4.
//!
//! | document        | holds                            | its layers count                              |
//! |-----------------|----------------------------------|-----------------------------------------------|
//! | the one before  | until the newer one begins       | until the last key of its period has closed   |
//! | the current one | from a skew before its start     | as long as there is no newer one whose edge is over |
//! | the next one    | not yet                          | as soon as it is known                        |
//!
//! The next one counts early, so that its links are up before anyone sends a packet over them.

use std::sync::{Arc, PoisonError, RwLock};

use proto::{
    calendar::Utc,
    directory::{Consensus, SignedConsensus},
};

/// The documents whose layers links admit, oldest first; none while none holds (EPO-4).
pub type InUse = Vec<Arc<Consensus>>;

/// The one that holds, and one on either side.
const KEPT: usize = 3;

/// A document and what it says.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) signed: SignedConsensus,
    pub(super) consensus: Arc<Consensus>,
}

/// The newest documents believed, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf(Arc<RwLock<Vec<Document>>>);

impl Shelf {
    pub(super) fn documents(&self) -> Vec<Document> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn newest(&self) -> Option<Document> {
        self.documents().pop()
    }

    /// The document that holds now: the newest of those that have begun.
    pub(super) fn current(&self, now: Utc) -> Option<Document> {
        let documents = self.documents();
        let holds = |document: &Document| document.consensus.check_time(now).is_ok();
        documents.into_iter().rfind(holds)
    }

    /// Those whose layers count now.
    pub(super) fn in_use(&self, now: Utc) -> InUse {
        if self.current(now).is_none() {
            return InUse::new();
        }
        let documents = self.documents().into_iter();
        let mut documents: InUse = documents.map(|document| document.consensus).collect();
        let settled = |known: &Arc<Consensus>| edge_ends(known) <= now;
        let before = documents.iter().rposition(settled);
        documents.drain(..before.unwrap_or_default());
        documents
    }

    pub(super) fn put(&self, document: Document) {
        let mut documents = self.0.write().unwrap_or_else(PoisonError::into_inner);
        documents.retain(|known| known.consensus.period < document.consensus.period);
        documents.push(document);
        let surplus = documents.len().saturating_sub(KEPT);
        documents.drain(..surplus);
    }
}

/// When the last key of the period before this document's has closed (EPO-2).
pub(super) fn edge_ends(consensus: &Consensus) -> Utc {
    let schedule = consensus.schedule();
    schedule
        .valid_from
        .after(schedule.grace() + schedule.skew())
}

#[cfg(test)]
mod tests {
    use proto::{NetworkId, directory::Params};

    use super::*;

    const START_S: u64 = 1_000_000;

    /// One epoch of 90 s a period: the skew is 5.625 s, the grace 22.5 s.
    fn document(period: u64) -> Document {
        let params = Params {
            epoch_s: 90,
            epochs: 1,
            ..Params::default()
        };
        let consensus = Consensus {
            network: NetworkId([1; 32]),
            period,
            valid_from_s: START_S + 90 * period,
            previous: [0; 32],
            params,
            descriptors: Vec::new(),
            nodes: Vec::new(),
            layers: Vec::new(),
        };
        let signed = SignedConsensus {
            votes: Vec::new(),
            body: Vec::new(),
        };
        let consensus = Arc::new(consensus);
        Document { signed, consensus }
    }

    /// LNK-8, EPO-4
    #[test]
    fn both_documents_count_until_the_old_keys_have_closed() {
        let shelf = Shelf::default();
        let in_use = |into_s: u64| -> Vec<u64> {
            let known = shelf.in_use(Utc::from_secs(START_S + into_s));
            known.iter().map(|document| document.period).collect()
        };
        assert_eq!(in_use(10), [0; 0]);
        shelf.put(document(0));
        assert_eq!(in_use(50), [0]);
        assert_eq!(in_use(100), [0], "nobody made the next one");
        shelf.put(document(1));
        for (into_s, periods) in [
            (50, vec![0, 1]),
            (86, vec![0, 1]),
            (90, vec![0, 1]),
            (118, vec![0, 1]),
            (119, vec![1]),
            (269, vec![1]),
            (270, vec![]), // its second period is over as well
        ] {
            assert_eq!(in_use(into_s), periods, "{into_s}");
        }
        shelf.put(document(2));
        assert_eq!(in_use(110), [0, 1, 2], "it came before that edge was over");
        assert_eq!(in_use(170), [1, 2]);
        assert_eq!(in_use(210), [2]);
    }
}
