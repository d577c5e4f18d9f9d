//! What a node says of itself to everyone: that its loops are being lost, or that it is leaving.
//!
//! Spec: docs/spec/loops.md, rules LOOP-8 to LOOP-10.
//!
//! | offset | bytes | field of the body                                                   |
//! |--------|-------|---------------------------------------------------------------------|
//! | 0      | 1     | what ([`What`])                                                     |
//! | 1      | 7     | zero                                                                |
//! | 8      | 8     | the minute in which it was said (UTC seconds / 60), big-endian      |
//! | 16     | 32    | who says it                                                         |
//! | 48     | 64    | its Ed25519 signature over a domain, the network and the 48 bytes   |
//!
//! A notice goes round: a node that hears a new one sends it to all its next hops, a gateway to its
//! clients as well. [`Heard`] is what makes it end: each is passed on once, and of one node no
//! more than one of a kind a minute.
//!
//! Not done here: what hearing one brings about.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use crate::{
    NetworkId, NodeId,
    calendar::{Schedule, Utc},
    directory::{Consensus, sign},
    wire::{FIELD_LEN, Frame, Kind},
};

/// How far the minute of a notice may be from the hearer's own besides the skew of their clocks: the way,
/// with a minute's wait for a tick (LOOP-9).
const WAY_MINUTES: u64 = 2;

/// How far the minute of a notice may be from the hearer's own (LOOP-8): clocks, and the way.
#[must_use]
pub fn minutes_off(schedule: &Schedule) -> u64 {
    schedule.skew().as_secs().div_ceil(60) + WAY_MINUTES
}

const SAID: usize = 48;
const LEN: usize = SAID + 64;

/// What a notice says. Numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum What {
    /// Too many of its own loops are lost (LOOP-4).
    Alarm = 1,
    /// It stops on purpose; who enters by it had better enter elsewhere.
    Withdrawal = 2,
}

/// A notice whose signature holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it says.
    pub what: What,
    /// Who says it, of itself.
    pub node: NodeId,
    /// UTC seconds / 60.
    pub minute: u64,
}

/// Why a notice is not heard. Counted, never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoticeDrop {
    /// It does not parse, or its signature does not hold: who passes that on misbehaves.
    Forged,
    /// Of another time than now, or of a node that the document does not name.
    Stale,
    /// It, or a later one of this node and kind, was heard already.
    Old,
}

impl Notice {
    /// What `node` says at `utc`.
    #[must_use]
    pub fn new(what: What, node: NodeId, utc: Utc) -> Self {
        let minute = utc.as_secs() / 60;
        Self { what, node, minute }
    }

    fn said(&self) -> [u8; SAID] {
        let mut said = [0; SAID];
        said[0] = self.what as u8;
        said[8..16].copy_from_slice(&self.minute.to_be_bytes());
        said[16..].copy_from_slice(&self.node.0);
        said
    }

    /// The frame that carries it, signed by the identity of the node.
    #[must_use]
    pub fn sign(&self, network: &NetworkId, identity: &SigningKey) -> Frame {
        let said = self.said();
        let signature = sign::sign(identity, &statement(network, &said));
        let body = [said.as_slice(), &signature].concat();
        Frame::with_body(Kind::Notice, [0; FIELD_LEN], &body)
    }

    /// What `frame` says, and the signature under it, which nobody has checked yet. Only one
    /// frame says it so: slot, field and what follows the signature are zeros.
    fn parse(frame: &Frame) -> Option<(Self, [u8; 64])> {
        let body = frame.body();
        let what = match body[0] {
            1 => What::Alarm,
            2 => What::Withdrawal,
            _ => return None,
        };
        let (minute, node, signature) = (&body[8..16], &body[16..SAID], &body[SAID..LEN]);
        let notice = Self {
            what,
            node: NodeId(node.try_into().ok()?),
            minute: u64::from_be_bytes(minute.try_into().ok()?),
        };
        let written = Frame::with_body(Kind::Notice, [0; FIELD_LEN], &body[..LEN]);
        let canonical = *frame == written && body[..SAID] == notice.said();
        canonical.then_some((notice, signature.try_into().ok()?))
    }
}

fn statement(network: &NetworkId, said: &[u8; SAID]) -> Vec<u8> {
    [b"lacuna notice v1".as_slice(), &network.0, said].concat()
}

/// Which notices were heard. Holds no more than two of each node of the last minutes.
#[derive(Clone, Debug, Default)]
pub struct Heard(BTreeMap<(NodeId, What), u64>);

impl Heard {
    /// Hears `frame` at `utc`: once, if it is of now, of a node in `consensus`, the newest of its
    /// node and kind, and signed (LOOP-8, LOOP-9). Ed25519 is computed only for what passes all
    /// the rest.
    ///
    /// # Errors
    ///
    /// Why it is not heard; [`NoticeDrop`].
    pub fn hear(
        &mut self,
        frame: &Frame,
        utc: Utc,
        network: &NetworkId,
        consensus: &Consensus,
    ) -> Result<Notice, NoticeDrop> {
        let (notice, signature) = Notice::parse(frame).ok_or(NoticeDrop::Forged)?;
        let minute = utc.as_secs() / 60;
        let minutes_off = minutes_off(&consensus.schedule());
        let timely = |said: u64| said.abs_diff(minute) <= minutes_off;
        if !timely(notice.minute) || consensus.node(&notice.node).is_none() {
            return Err(NoticeDrop::Stale);
        }
        let key = (notice.node, notice.what);
        if self.0.get(&key).is_some_and(|last| *last >= notice.minute) {
            return Err(NoticeDrop::Old);
        }
        if !sign::holds(
            &notice.node.0,
            &statement(network, &notice.said()),
            &signature,
        ) {
            return Err(NoticeDrop::Forged);
        }
        self.0.retain(|_, said| timely(*said)); // what is not would be refused as stale
        self.0.insert(key, notice.minute);
        Ok(notice)
    }
}
