//! Questions to the directory, and answers.
//!
//! Spec: docs/spec/directory.md, rule DIR-11.
//!
//! | question      | who asks whom                 | answer                                        |
//! |---------------|-------------------------------|-----------------------------------------------|
//! | `Consensus`   | anyone a gateway or authority | `Consensus`, or `NotYet`                      |
//! | `Gathering`   | node an authority             | `Gathering`, or `NotYet` if none is under way |
//! | `Submit`      | node an authority             | `Accepted` or `Refused`                       |
//! | `Descriptors` | authority an authority        | `Descriptors`                                 |
//! | `Propose`     | authority an authority        | `Accepted` or `Refused`                       |
//! | `Vote`        | authority an authority        | `Accepted` or `Refused`                       |
//!
//! Gateways answer `Consensus` alone, and refuse the rest. Encodings are canonical CBOR with a
//! cap on their length, so that no question holds more memory than its kind needs; frames carry
//! them in parts (LNK-1), and answers are padded to buckets of [`BUCKET_FRAMES`] frames.
//!
//! Not done here: who may ask. Everything that matters in a question is signed by itself.

use minicbor::{Decode, Encode};

use crate::directory::{
    Ballot, DocumentError, Params, Proposal, SignedConsensus, SignedDescriptor, cbor,
    consensus::{BODY_LEN_MAX, CONSENSUS_LEN_MAX},
    descriptor::DESCRIPTOR_LEN_MAX,
};

/// Answers fill a multiple of this many frames, so that their length tells little.
pub const BUCKET_FRAMES: usize = 32;
/// Longest question that a gateway reads.
pub const GATEWAY_QUESTION_LEN_MAX: usize = 64;
/// Longest question that an authority reads: a proposal.
pub const QUESTION_LEN_MAX: usize = BODY_LEN_MAX + 256;
/// Longest answer.
pub const ANSWER_LEN_MAX: usize = CONSENSUS_LEN_MAX + 64;
/// Most descriptors in an answer, and at an authority.
pub const DESCRIPTORS_MAX: usize = BODY_LEN_MAX / DESCRIPTOR_LEN_MAX - 1;

/// What one may ask.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Question {
    /// The document of a period, or the newest.
    #[n(0)]
    Consensus {
        /// Which period; none for the newest.
        #[n(0)]
        period: Option<u64>,
    },
    /// Take my descriptor.
    #[n(1)]
    Submit(#[n(0)] SignedDescriptor),
    /// I propose this document.
    #[n(2)]
    Propose(#[n(0)] Proposal),
    /// I precommit to this document.
    #[n(3)]
    Vote(#[n(0)] Ballot),
    /// Which descriptors do you hold?
    #[n(4)]
    Descriptors,
    /// For which period do you gather descriptors, and with which parameters?
    #[n(5)]
    Gathering,
}

/// What one may answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// The document.
    #[n(0)]
    Consensus(#[n(0)] SignedConsensus),
    /// There is none yet.
    #[n(1)]
    NotYet,
    /// Taken. A vote or a proposal is judged later: this says only that it was read.
    #[n(2)]
    Accepted,
    /// Not taken, and why.
    #[n(3)]
    Refused(#[n(0)] Refusal),
    /// All descriptors that this authority holds.
    #[n(4)]
    Descriptors(#[n(0)] Vec<SignedDescriptor>),
    /// What is gathered.
    #[n(5)]
    Gathering {
        /// For which period.
        #[n(0)]
        period: u64,
        /// With which parameters.
        #[n(1)]
        params: Params,
    },
}

/// Why a question is refused. Numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Refusal {
    /// This node does not answer such questions.
    #[n(0)]
    NotServed,
    /// The descriptor is not believed.
    #[n(1)]
    Descriptor,
    /// The descriptor is for another period, or has not one packet key for each epoch.
    #[n(2)]
    PacketKeys,
    /// The document of this period is made.
    #[n(3)]
    Closed,
    /// No more nodes can be taken.
    #[n(4)]
    Full,
    /// The link certificate does not cover the period.
    #[n(5)]
    Certificate,
    /// A later descriptor of this node is held.
    #[n(6)]
    Older,
}

impl Question {
    /// Its canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads a question of at most `len_max` bytes.
    ///
    /// # Errors
    ///
    /// [`DocumentError`], if these bytes are none.
    pub fn parse(bytes: &[u8], len_max: usize) -> Result<Self, DocumentError> {
        cbor::decode(bytes, len_max)
    }
}

impl Answer {
    /// Its canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads an answer of at most [`ANSWER_LEN_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// [`DocumentError`], if these bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        cbor::decode(bytes, ANSWER_LEN_MAX)
    }
}

/// How many frames carry an answer of `len` bytes: whole frames, whole buckets (DIR-11).
#[must_use]
pub fn frames_of(len: usize) -> usize {
    let frames = len.div_ceil(crate::wire::BODY_LEN).max(1);
    frames.div_ceil(BUCKET_FRAMES) * BUCKET_FRAMES
}
