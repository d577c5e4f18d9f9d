//! The set of packets already seen under one packet key.
//!
//! Spec: docs/spec/mix.md, rules RPL-1 to RPL-4.
//!
//! | quantity      | type       | unit, range                                                    |
//! |---------------|------------|----------------------------------------------------------------|
//! | tag           | 32 B       | keyed on the packet's shared secret (PKT, `sphinx::Tag`)       |
//! | fingerprint   | `u64`      | first 8 bytes of SHA-256(set key ‖ 32 zeros ‖ tag), never zero |
//! | capacity      | `usize`    | most fingerprints                                              |
//! | line          | `[u64; 8]` | one line of the processor's cache; zero marks a free place     |
//! | table         | lines      | 4/3 × its share of places: 10.7 B a fingerprint, zeroed lazily |
//!
//! Open addressing by lines: a fingerprint stands in its home line, or, if that is full, in the
//! next that is not. At three quarters full an admission reads 1.2 lines. In a table beyond the
//! caches each line is a wait for memory, so a batch first reads all home lines, one after another
//! but without waiting for each other, and then admits.
//!
//! The set grows with what came, not with what may come: when its tables are full it gets a further
//! one, which makes it four times as large. Nothing moves, so no packet waits for that; an
//! admission looks into each table, of which a set of 10⁸ has five.
//!
//! A false "seen" needs two packets of one epoch to agree in 64 bits under a key derived from the
//! node's secret, so nobody can search for such a pair: with n held it is n / 2⁶⁴ for each honest
//! packet, 5.4 × 10⁻¹² at 10⁸ (RPL-2). A false "new" cannot happen. When `capacity` is reached
//! everything is refused until the key ends (RPL-3): a set that forgot would let replays through.
//!
//! The set writes no file: [`crate::peel`] says which fingerprints must reach the journal before
//! their packets may go on (RPL-4).

use core::hint::black_box;

use sha2::{Digest, Sha256, block_api::compress256};
use sphinx::{SecretKey, Tag};
use zeroize::{Zeroize as _, Zeroizing};

/// Places of a line.
const LINE: usize = 8;
/// Lines that are read before the first of them is used: more than a processor has under way at
/// once, and few enough that none has left the nearest cache again.
const AHEAD: usize = 64;
/// What the first table holds: 11 MB.
const FIRST: usize = 1 << 20;
/// What a further table makes of the set's room.
const GROWTH: usize = 4;
/// The state that SHA-256 starts from (FIPS 180-4, 5.3.3).
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

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

/// The set of one key. Its memory grows with what it holds, to [`Self::memory_of`] its capacity.
pub struct ReplaySet {
    /// SHA-256 after the block of the set key: what every fingerprint begins with.
    keyed: Zeroizing<[u32; 8]>,
    /// All full but the last.
    tables: Vec<Table>,
    held: usize,
    /// What all tables have room for.
    room: usize,
    capacity: usize,
}

impl ReplaySet {
    /// An empty set for packets that `secret` opens.
    #[must_use]
    pub fn new(secret: &SecretKey, capacity: usize) -> Self {
        Self::starting_with(secret, capacity, FIRST)
    }

    fn starting_with(secret: &SecretKey, capacity: usize, first: usize) -> Self {
        let mut hash = Sha256::new()
            .chain_update(b"lacuna replay set v1")
            .chain_update(secret.to_bytes().as_slice())
            .finalize();
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(&hash);
        hash.as_mut_slice().zeroize();
        let mut keyed = Zeroizing::new(START);
        compress256(&mut keyed, core::slice::from_ref(&*block));
        let room = first.min(capacity);
        Self {
            keyed,
            tables: vec![Table::of(room)],
            held: 0,
            room,
            capacity,
        }
    }

    /// What the set would keep of `tag`.
    #[must_use]
    pub fn fingerprint(&self, tag: &Tag) -> Fingerprint {
        let mut block = [0; 64];
        block[..32].copy_from_slice(tag);
        block[32] = 0x80; // SHA-256's padding of 64 + 32 bytes
        block[62..].copy_from_slice(&(96u16 * 8).to_be_bytes());
        let mut state = *self.keyed;
        compress256(&mut state, core::slice::from_ref(&block));
        let first = (u64::from(state[0]) << 32) | u64::from(state[1]);
        Fingerprint(first.max(1)) // zero marks a free place
    }

    /// Takes a fingerprint in (RPL-1).
    ///
    /// # Errors
    ///
    /// [`Refused::Seen`] for the second of two equal ones, [`Refused::Full`] at capacity.
    pub fn admit(&mut self, fingerprint: Fingerprint) -> Result<(), Refused> {
        let (last, full) = self.tables.split_last_mut().expect("never without a table");
        if full
            .iter_mut()
            .any(|table| table.find(fingerprint).is_none())
        {
            return Err(Refused::Seen);
        }
        let free = last.find(fingerprint).ok_or(Refused::Seen)?;
        if self.held == self.capacity {
            return Err(Refused::Full);
        }
        *free = fingerprint.0;
        self.held += 1;
        if self.held == self.room && self.room < self.capacity {
            let room = self.room.saturating_mul(GROWTH).min(self.capacity);
            self.tables.push(Table::of(room - self.room));
            self.room = room;
        }
        Ok(())
    }

    /// Takes a batch in, in order; `verdict` hears of each what [`Self::admit`] would say.
    pub fn admit_batch(
        &mut self,
        batch: &[Fingerprint],
        mut verdict: impl FnMut(Fingerprint, Result<(), Refused>),
    ) {
        for some in batch.chunks(AHEAD) {
            for table in &mut self.tables {
                let lines = table.lines();
                let read = |sum, one: &Fingerprint| sum ^ lines[home(*one, lines.len())][0];
                black_box(some.iter().fold(0, read));
            }
            for one in some {
                verdict(*one, self.admit(*one));
            }
        }
    }

    /// How many it holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Bytes of its tables, once they are full.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.tables.iter().map(Table::bytes).sum()
    }

    /// Bytes that a set of `capacity` fingerprints takes at most.
    #[must_use]
    pub const fn memory_of(capacity: usize) -> usize {
        let (mut bytes, mut room, mut next) = (0, 0, FIRST);
        loop {
            let whole = if next < capacity { next } else { capacity };
            bytes += Table::places(whole - room) * size_of::<u64>();
            if whole == capacity {
                return bytes;
            }
            (room, next) = (whole, whole.saturating_mul(GROWTH));
        }
    }

    /// How many it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

/// Fingerprints by their home lines.
struct Table {
    /// The lines, from the first place that begins one.
    places: Box<[u64]>,
}

impl Table {
    /// An empty one for `room` fingerprints.
    fn of(room: usize) -> Self {
        let places = vec![0; Self::places(room)].into_boxed_slice();
        Self { places }
    }

    /// Filled to three quarters at most, never without a free place; and one line more, of which
    /// only as much is used as the first begins late.
    const fn places(room: usize) -> usize {
        (room.div_ceil(LINE * 3 / 4) + 2) * LINE
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.places)
    }

    /// Its lines where those of the cache are.
    fn lines(&mut self) -> &mut [[u64; LINE]] {
        let late = self.places.as_ptr().align_offset(LINE * size_of::<u64>());
        let (lines, _) = self.places[late.min(LINE)..].as_chunks_mut();
        lines
    }

    /// The free place in which a fingerprint would stand; none if it is there.
    fn find(&mut self, fingerprint: Fingerprint) -> Option<&mut u64> {
        let lines = self.lines();
        let mut at = home(fingerprint, lines.len());
        // Ends: a quarter of the places is always free. Without an early exit from a line, so that
        // its eight places are compared at once.
        loop {
            let line = &lines[at];
            let is_there = line.iter().fold(false, |is_there, place| {
                is_there | (*place == fingerprint.0)
            });
            if is_there {
                return None;
            }
            let taken = line.iter().filter(|place| **place != 0).count();
            if taken < LINE {
                return Some(&mut lines[at][taken]);
            }
            at = if at + 1 == lines.len() { 0 } else { at + 1 };
        }
    }
}

/// The line in which a fingerprint is looked for first: they are uniform, so their order is the
/// table's.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the high half of the product is below `lines`"
)]
fn home(fingerprint: Fingerprint, lines: usize) -> usize {
    ((u128::from(fingerprint.0) * lines as u128) >> 64) as usize
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

    /// Against a plain set: chains that run over many lines and around the table's end, singly and
    /// in batches.
    #[test]
    fn is_a_set_also_where_lines_overflow() {
        const CAPACITY: usize = 100;
        for (name, spread, first) in [
            ("uniform", 1, CAPACITY),
            ("all in one line", 0, CAPACITY),
            ("at the end", 2, CAPACITY),
            ("uniform, in tables of 2, 6, 24 and 68", 1, 2),
            ("all in one line of each table", 0, 3),
            ("at the end of each table", 2, 1),
        ] {
            let set = || ReplaySet::starting_with(&SecretKey::from_bytes([5; 32]), CAPACITY, first);
            let (mut one, mut batched) = (set(), set());
            let mut model = BTreeSet::new();
            let batch: Vec<Fingerprint> = (0..300u64)
                .map(|i| {
                    let number = (i * i) % 151; // some come again
                    Fingerprint(match spread {
                        0 => 1 + number,
                        1 => (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                        _ => u64::MAX - number,
                    })
                })
                .collect();
            let expected: Vec<_> = batch
                .iter()
                .map(|fingerprint| match model.len() {
                    _ if model.contains(fingerprint) => Err(Refused::Seen),
                    CAPACITY => Err(Refused::Full),
                    _ => {
                        model.insert(*fingerprint);
                        Ok(())
                    }
                })
                .collect();
            let singly: Vec<_> = batch.iter().map(|one_of| one.admit(*one_of)).collect();
            assert_eq!(singly, expected, "{name}");
            let mut told = Vec::new();
            batched.admit_batch(&batch, |which, verdict| told.push((which, verdict)));
            let expected: Vec<_> = batch.iter().copied().zip(expected).collect();
            assert_eq!(told, expected, "{name}");
            assert_eq!((one.held(), batched.held()), (model.len(), model.len()));
            assert_eq!(one.tables.len() > 3, first < CAPACITY, "{name}");
        }
    }

    /// RPL-3
    #[test]
    fn memory_grows_with_what_came_up_to_what_is_told() {
        let capacity = FIRST + 1000;
        let mut set = set(capacity);
        let small = set.memory();
        assert_eq!(small, ReplaySet::memory_of(FIRST));
        for i in 0..u32::try_from(capacity).unwrap() {
            assert_eq!(set.memory() == small, set.held() < FIRST);
            let fingerprint = set.fingerprint(&tag(i));
            assert_eq!(set.admit(fingerprint), Ok(()));
        }
        assert_eq!(set.memory(), ReplaySet::memory_of(capacity));
        let (large, told) = (4_000_000_000_usize, ReplaySet::memory_of(4_000_000_000));
        assert!((large * 32 / 3..large * 32 / 3 + 2000).contains(&told));
    }

    /// RPL-2: what the spec says, by the library's own hash.
    #[test]
    fn a_fingerprint_is_a_keyed_hash_of_the_tag() {
        let secret = SecretKey::from_bytes([5; 32]);
        let key = Sha256::new()
            .chain_update(b"lacuna replay set v1")
            .chain_update(secret.to_bytes().as_slice())
            .finalize();
        let hash = Sha256::new()
            .chain_update(key)
            .chain_update([0; 32])
            .chain_update(tag(7))
            .finalize();
        assert_eq!(set(1).fingerprint(&tag(7)).to_bytes(), hash[..8]);
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
