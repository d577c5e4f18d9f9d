//! What an authority counts.
//!
//! Spec: docs/spec/directory.md, rules DIR-7 to DIR-9, DIR-12.

use crate::{
    NodeId,
    directory::{Ballot, ConsensusError, Refusal},
};

/// What happens at an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node's descriptor was taken.
    Submitted(NodeId),
    /// A node's descriptor was not taken.
    Refused(Refusal),
    /// A proposal or a vote was not taken.
    Dropped(AuthorityDrop),
    /// This authority's nodes make no document.
    NoDocument(ConsensusError),
    /// This authority proposed.
    Proposed {
        /// In this round.
        round: u32,
    },
    /// This authority voted.
    Voted {
        /// In this round.
        round: u32,
    },
    /// Proof against an authority: two votes of one round.
    Equivocated {
        /// Its vote.
        first: Ballot,
        /// Its other vote.
        second: Ballot,
    },
    /// Two valid documents of one period: a third of the authorities cheat (DIR-9).
    Split,
    /// The document is made.
    Finished {
        /// Its hash.
        hash: [u8; 32],
    },
}

/// Why a proposal or a vote was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthorityDrop {
    /// It is for another period.
    Period,
    /// It names no authority.
    Authority,
    /// It is not its proposer's turn.
    Turn,
    /// Its signature does not hold.
    Signature,
    /// The document breaks a rule of DIR-5.
    Document,
    /// The document is not what this authority's terms call for.
    Terms,
    /// The document has fewer nodes than this authority asks for.
    Nodes,
    /// The document starts more than a quarter epoch from now, by this authority's clock.
    Clock,
    /// This authority has voted for another document.
    Conflict,
}
