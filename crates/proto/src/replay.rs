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
//! | table         | lines      | 4/3 × its room of places: 10.7 B a fingerprint, zeroed lazily  |
//!
//! Open addressing by lines: a fingerprint stands in its home line, or, if that is full, in the
//! next that is not. At three quarters full an admission reads 1.2 lines. In a table beyond the
//! caches each line is a wait for memory, so a batch first reads all home lines, one after another
//! but without waiting for each other, and then admits.
//!
//! The set grows with what came, not with what may come: a full table is followed by one of four times
//! its room. No packet waits until all has moved there: each admission copies one line, and until the
//! last of them is copied looks into both tables. Nor does one wait until the memory of the old table is
//! given back, which takes up to a tenth of a second for 1 GB: [`ReplaySet::take_old`] hands that out, to be
//! dropped where nobody waits. What a packet does wait for is the kernel, which zeroes each page of the new
//! table when it is first written. Fingerprints stand in their order in both, so that
//! copying reads and writes memory from one end to the other. (One table as large as it may become takes
//! the memory of a flood; several, each for a part, cost a wait for memory each, for ever.)
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
/// What the first table holds at most: 11 MB.
const FIRST: usize = 1 << 20;
/// How many times as much the next table holds.
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
    /// In which every fingerprint will stand.
    table: Table,
    /// The full one before it, until all of it is copied.
    before: Option<Table>,
    /// How many of its lines are.
    copied: usize,
    /// One that is copied, until it is taken.
    old: Option<Table>,
    /// How many larger tables may follow.
    follow: u32,
    held: usize,
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
        let mut follow = 0;
        while Self::room(capacity, follow) > first {
            follow += 1;
        }
        Self {
            keyed,
            table: Table::of(Self::room(capacity, follow)),
            before: None,
            copied: 0,
            old: None,
            follow,
            held: 0,
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
        let before = self.before.as_mut();
        if before.is_some_and(|before| before.find(fingerprint).is_none()) {
            return Err(Refused::Seen);
        }
        let free = self.table.find(fingerprint).ok_or(Refused::Seen)?;
        if self.held == self.capacity {
            return Err(Refused::Full);
        }
        *free = fingerprint.0;
        self.held += 1;
        self.copy_line();
        if self.held == Self::room(self.capacity, self.follow) && self.follow > 0 {
            // Long done, but in tables of a few lines.
            while self.before.is_some() {
                self.copy_line();
            }
            self.follow -= 1;
            let larger = Table::of(Self::room(self.capacity, self.follow));
            let full = core::mem::replace(&mut self.table, larger);
            (self.before, self.copied, self.old) = (Some(full), 0, None);
        }
        Ok(())
    }

    /// Copies the next line of the full table, if there is one. It has a line for six fingerprints, and
    /// the new table lets three times as many in as it holds: it is copied long before that is full.
    fn copy_line(&mut self) {
        let Some(before) = &mut self.before else {
            return;
        };
        let lines = before.lines();
        for place in lines[self.copied].iter().filter(|place| **place != 0) {
            if let Some(free) = self.table.find(Fingerprint(*place)) {
                *free = *place;
            }
        }
        self.copied += 1;
        if self.copied == lines.len() {
            self.old = self.before.take();
        }
    }

    /// Takes a batch in, in order; `verdict` hears of each what [`Self::admit`] would say.
    pub fn admit_batch(
        &mut self,
        batch: &[Fingerprint],
        mut verdict: impl FnMut(Fingerprint, Result<(), Refused>),
    ) {
        for some in batch.chunks(AHEAD) {
            for table in self.before.iter_mut().chain([&mut self.table]) {
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

    /// A table that all has moved out of, once. Dropping it takes the kernel milliseconds; one that is not
    /// taken goes when the set grows again.
    #[must_use]
    pub fn take_old(&mut self) -> Option<OldTable> {
        self.old.take().map(OldTable)
    }

    /// Bytes of its tables, once all places were written; one that may be taken counts.
    #[must_use]
    pub fn memory(&self) -> usize {
        let others = self.before.iter().chain(&self.old);
        others.map(Table::bytes).sum::<usize>() + self.table.bytes()
    }

    /// Bytes that a set of `capacity` fingerprints takes at most: while the last table is filled from
    /// the one before.
    #[must_use]
    pub const fn memory_of(capacity: usize) -> usize {
        let before = if capacity > FIRST {
            Table::places(Self::room(capacity, 1))
        } else {
            0
        };
        (Table::places(capacity) + before) * size_of::<u64>()
    }

    /// What a table holds that so many are to follow.
    const fn room(capacity: usize, follow: u32) -> usize {
        capacity.div_ceil(GROWTH.pow(follow))
    }

    /// How many it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

/// What [`ReplaySet::take_old`] hands out: memory to be dropped.
pub struct OldTable(#[expect(dead_code, reason = "it is there to be dropped")] Table);

impl core::fmt::Debug for OldTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("OldTable(..)")
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
            ("uniform, through tables of 2, 7, 25 and 100", 1, 2),
            ("all in one line, from 7", 0, 10),
            ("at the end, from 25", 2, 30),
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
            for set in [one, batched] {
                assert!(set.follow == 0 && set.before.is_none(), "{name}");
            }
        }
    }

    /// RPL-1: whatever is copied already, after each admission.
    #[test]
    fn while_it_grows_no_replay_is_admitted() {
        const CAPACITY: u32 = 300;
        for first in [1, 2, 5, 10, 100, 300] {
            let secret = SecretKey::from_bytes([5; 32]);
            let mut set = ReplaySet::starting_with(&secret, CAPACITY as usize, first);
            for i in 0..CAPACITY {
                let new = set.fingerprint(&tag(i));
                assert_eq!(set.admit(new), Ok(()), "{first}, {i}");
                for old in 0..=i {
                    let old = set.fingerprint(&tag(old));
                    assert_eq!(set.admit(old), Err(Refused::Seen), "{first}, {i}");
                }
            }
            assert_eq!(set.follow, 0, "it has grown");
        }
    }

    /// RPL-3
    #[test]
    fn memory_grows_with_what_came_up_to_what_is_told() {
        let capacity = 4 * FIRST;
        let (mut set, told) = (set(capacity), ReplaySet::memory_of(capacity));
        let (small, mut most) = (set.memory(), 0);
        assert_eq!(small, ReplaySet::memory_of(FIRST));
        for i in 0..u32::try_from(FIRST * 3 / 2).unwrap() {
            assert_eq!(set.memory() == small, set.held() < FIRST);
            let fingerprint = set.fingerprint(&tag(i));
            assert_eq!(set.admit(fingerprint), Ok(()));
            most = most.max(set.memory());
        }
        assert_eq!(most, told);
        assert_eq!(set.memory(), told, "copied, and nobody has taken it");
        assert!(set.take_old().is_some() && set.take_old().is_none());
        assert_eq!(set.memory(), Table::of(capacity).bytes());
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
