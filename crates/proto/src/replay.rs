//! The set of packets already seen under one packet key.
//!
//! Spec: docs/spec/mix.md, rules RPL-1 to RPL-4.
//!
//! | quantity      | type    | unit, range                                               |
//! |---------------|---------|-----------------------------------------------------------|
//! | tag           | 32 B    | keyed on the packet's shared secret (PKT, `sphinx::Tag`)  |
//! | fingerprint   | `u64`   | first 8 bytes of SHA-256(set key ‖ tag), never zero       |
//! | capacity      | `usize` | most fingerprints, from line rate × epoch                 |
//! | table         | `u64`s  | next power of two above 4/3 × capacity; 8 B a place       |
//!
//! Open addressing, linear probing. A false "seen" needs two packets of one epoch to agree in 64
//! bits under a key derived from the node's secret, so nobody can search for such a pair: at
//! 10⁸ packets an epoch the probability per packet is 5 × 10⁻¹² (RPL-2). A false "new" cannot
//! happen. When `capacity` is reached everything is refused until the key ends (RPL-3): a set
//! that forgot would let replays through.
//!
//! The set writes no file: [`crate::peel`] says which fingerprints must reach the journal before
//! their packets may go on (RPL-4).

use sha2::{Digest, Sha256};
use sphinx::{SecretKey, Tag};
use zeroize::Zeroizing;

/// What the set keeps of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// From a journal record.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// A journal record.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// Why a packet may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// A packet with this tag has been admitted under this key.
    Seen,
    /// The set holds `capacity` fingerprints; it refuses all further packets (RPL-3).
    Full,
}

/// The set of one key. Its memory is fixed at construction.
pub struct ReplaySet {
    key: Zeroizing<[u8; 32]>,
    places: Box<[u64]>,
    held: usize,
    capacity: usize,
}

impl ReplaySet {
    /// An empty set for packets that `secret` opens.
    #[must_use]
    pub fn new(secret: &SecretKey, capacity: usize) -> Self {
        let hash = Sha256::new()
            .chain_update(b"lacuna replay set v1")
            .chain_update(secret.to_bytes().as_slice())
            .finalize();
        let places = (capacity + capacity / 3 + 2).next_power_of_two();
        Self {
            key: Zeroizing::new(hash.into()),
            places: vec![0; places].into_boxed_slice(),
            held: 0,
            capacity,
        }
    }

    /// What the set would keep of `tag`.
    #[must_use]
    pub fn fingerprint(&self, tag: &Tag) -> Fingerprint {
        let hash = Sha256::new()
            .chain_update(self.key.as_slice())
            .chain_update(tag)
            .finalize();
        let first = hash.first_chunk().copied().map_or(0, u64::from_be_bytes);
        Fingerprint(first.max(1)) // zero marks a free place
    }

    /// Takes a fingerprint in (RPL-1).
    ///
    /// # Errors
    ///
    /// [`Refused::Seen`] for the second of two equal ones, [`Refused::Full`] at capacity.
    pub fn admit(&mut self, fingerprint: Fingerprint) -> Result<(), Refused> {
        let mask = self.places.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "masked to the table's length"
        )]
        let mut at = fingerprint.0 as usize & mask;
        // Ends: a quarter of the places is always free.
        while self.places[at] != 0 {
            if self.places[at] == fingerprint.0 {
                return Err(Refused::Seen);
            }
            at = (at + 1) & mask;
        }
        if self.held == self.capacity {
            return Err(Refused::Full);
        }
        self.places[at] = fingerprint.0;
        self.held += 1;
        Ok(())
    }

    /// How many it holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl core::fmt::Debug for ReplaySet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ReplaySet({} of {})", self.held, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn set(capacity: usize) -> ReplaySet {
        ReplaySet::new(&SecretKey::from_bytes([5; 32]), capacity)
    }

    fn tag(i: u32) -> Tag {
        let mut tag = [0; 32];
        tag[..4].copy_from_slice(&i.to_be_bytes());
        tag
    }

    /// RPL-1, RPL-3
    #[test]
    fn admits_once_and_fails_closed_when_full() {
        for capacity in [0, 1, 2, 3, 1000] {
            let mut set = set(capacity);
            for i in 0..u32::try_from(capacity).unwrap() {
                let fingerprint = set.fingerprint(&tag(i));
                assert_eq!(set.admit(fingerprint), Ok(()));
                assert_eq!(set.admit(fingerprint), Err(Refused::Seen));
            }
            let more = set.fingerprint(&tag(u32::MAX));
            assert_eq!(set.admit(more), Err(Refused::Full));
            assert_eq!(set.held(), capacity);
            if capacity > 0 {
                let old = set.fingerprint(&tag(0));
                assert_eq!(set.admit(old), Err(Refused::Seen));
            }
        }
    }

    /// RPL-2
    #[test]
    fn fingerprints_differ_between_tags_and_between_keys() {
        let (a, b) = (set(1), ReplaySet::new(&SecretKey::from_bytes([6; 32]), 1));
        let all: BTreeSet<_> = (0..1000)
            .flat_map(|i| [a.fingerprint(&tag(i)), b.fingerprint(&tag(i))])
            .collect();
        assert_eq!(all.len(), 2000);
        let one = a.fingerprint(&tag(1));
        assert_eq!(Fingerprint::from_bytes(one.to_bytes()), one);
    }
}
