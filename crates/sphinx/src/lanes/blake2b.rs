//! Keyed BLAKE2b-256 of eight equally long messages: one message per 64-bit lane.
//!
//! Spec: docs/spec/packet.md, PKT-7 (the hash of the wide block).
//!
//! | argument   | of each lane                                                               |
//! |------------|----------------------------------------------------------------------------|
//! | key        | 64 bytes                                                                   |
//! | message    | any length, the same in all lanes                                          |
//! | hash       | 32 bytes                                                                   |
//!
//! Constant time: no branch and no address depends on key or message.

use core::arch::x86_64::*;

use super::LANES;
use super::vector::{load64, store64, transpose_parts};
use crate::layout::array;

pub(super) const KEY_LEN: usize = 64;
pub(super) const HASH_LEN: usize = 32;
const BLOCK_LEN: usize = 128;

const INITIAL: [u64; 8] = [
    0x6a09e667f3bcc908,
    0xbb67ae8584caa73b,
    0x3c6ef372fe94f82b,
    0xa54ff53a5f1d36f1,
    0x510e527fade682d1,
    0x9b05688c2b3e6c1f,
    0x1f83d9abfb41bd6b,
    0x5be0cd19137e2179,
];
/// One sequential node, its key and hash of these lengths, nothing else.
const PARAMETERS: u64 = 0x0101_0000 ^ ((KEY_LEN as u64) << 8) ^ HASH_LEN as u64;

const ORDER: [[usize; 16]; 12] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
];

/// Quarters of round `$round` on these words of `$v`, the `$i`-th with its two words of the block.
/// Written out, so that all words stay in registers.
macro_rules! quarters {
    ($v:ident, $words:ident, $round:literal: $($i:literal [$a:literal, $b:literal, $c:literal, $d:literal])*) => {$(
        $v[$a] = _mm512_add_epi64(_mm512_add_epi64($v[$a], $words[ORDER[$round][2 * $i]]), $v[$b]);
        $v[$d] = _mm512_ror_epi64::<32>(_mm512_xor_si512($v[$d], $v[$a]));
        $v[$c] = _mm512_add_epi64($v[$c], $v[$d]);
        $v[$b] = _mm512_ror_epi64::<24>(_mm512_xor_si512($v[$b], $v[$c]));
        $v[$a] = _mm512_add_epi64(_mm512_add_epi64($v[$a], $words[ORDER[$round][2 * $i + 1]]), $v[$b]);
        $v[$d] = _mm512_ror_epi64::<16>(_mm512_xor_si512($v[$d], $v[$a]));
        $v[$c] = _mm512_add_epi64($v[$c], $v[$d]);
        $v[$b] = _mm512_ror_epi64::<63>(_mm512_xor_si512($v[$b], $v[$c]));
    )*};
}
macro_rules! rounds {
    ($v:ident, $words:ident: $($round:literal)*) => {$(
        quarters!($v, $words, $round: 0 [0, 4, 8, 12] 1 [1, 5, 9, 13] 2 [2, 6, 10, 14] 3 [3, 7, 11, 15]);
        quarters!($v, $words, $round: 4 [0, 5, 10, 15] 5 [1, 6, 11, 12] 6 [2, 7, 8, 13] 7 [3, 4, 9, 14]);
    )*};
}

/// Eight words, one a lane.
type Word = __m512i;

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(word: u64) -> Word {
    _mm512_set1_epi64(word.cast_signed())
}

/// Takes one block of each lane into the state; `total` bytes so far, this block included.
#[target_feature(enable = "avx512f")]
fn compress(state: &mut [Word; 8], block: [&[u8; BLOCK_LEN]; LANES], total: u64, last: bool) {
    let mut words = [_mm512_setzero_si512(); 16];
    let low = transpose(block.map(|block| array(block, 0)));
    let high = transpose(block.map(|block| array(block, 64)));
    words[..8].copy_from_slice(&low);
    words[8..].copy_from_slice(&high);

    let mut v = [_mm512_setzero_si512(); 16];
    v[..8].copy_from_slice(state);
    for (to, word) in v[8..].iter_mut().zip(INITIAL) {
        *to = broadcast(word);
    }
    v[12] = broadcast(INITIAL[4] ^ total);
    if last {
        v[14] = broadcast(!INITIAL[6]);
    }
    rounds!(v, words: 0 1 2 3 4 5 6 7 8 9 10 11);
    for (i, word) in state.iter_mut().enumerate() {
        *word = _mm512_ternarylogic_epi64::<0x96>(*word, v[i], v[i + 8]);
    }
}

/// The hash of each message under its lane's key.
///
/// # Panics
/// If the messages differ in length: our own bug.
#[target_feature(enable = "avx512f")]
pub(super) fn keyed_hash(
    keys: [&[u8; KEY_LEN]; LANES],
    messages: [&[u8]; LANES],
) -> [[u8; HASH_LEN]; LANES] {
    let len = messages[0].len();
    assert!(
        messages.iter().all(|message| message.len() == len),
        "lanes are equally long"
    );
    let mut state = [_mm512_setzero_si512(); 8];
    for (to, word) in state.iter_mut().zip(INITIAL) {
        *to = broadcast(word);
    }
    state[0] = broadcast(INITIAL[0] ^ PARAMETERS);

    let mut padded = zeroize::Zeroizing::new([[0; BLOCK_LEN]; LANES]);
    for (block, key) in padded.iter_mut().zip(keys) {
        block[..KEY_LEN].copy_from_slice(key);
    }
    let mut total = BLOCK_LEN as u64;
    compress(&mut state, padded.each_ref(), total, len == 0);

    // The last block is padded even if it is whole.
    let whole = len.saturating_sub(1) / BLOCK_LEN;
    for i in 0..whole {
        total += BLOCK_LEN as u64;
        let blocks = messages.map(|message| array(message, i * BLOCK_LEN));
        compress(&mut state, blocks, total, false);
    }
    if len > 0 {
        for (block, message) in padded.iter_mut().zip(messages) {
            let rest = &message[whole * BLOCK_LEN..];
            block.fill(0);
            block[..rest.len()].copy_from_slice(rest);
        }
        compress(
            &mut state,
            padded.each_ref(),
            BLOCK_LEN as u64 + len as u64,
            true,
        );
    }

    let mut hashes = [[0; HASH_LEN]; LANES];
    for (i, word) in state[..HASH_LEN / 8].iter().enumerate() {
        let mut row = [0; 64];
        store64(&mut row, *word);
        for (hash, word) in hashes.iter_mut().zip(row.as_chunks::<8>().0) {
            hash[8 * i..][..8].copy_from_slice(word);
        }
    }
    hashes
}

/// The little-endian words of eight rows of 64 bytes: word i of every row in element i.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [&[u8; 64]; LANES]) -> [Word; 8] {
    let mut r = [_mm512_setzero_si512(); 8];
    for (to, row) in r.iter_mut().zip(rows) {
        *to = load64(row);
    }
    let mut pairs = r;
    for i in 0..4 {
        pairs[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
    }
    let mut columns = r;
    for odd in 0..2 {
        let parts = transpose_parts([pairs[odd], pairs[2 + odd], pairs[4 + odd], pairs[6 + odd]]);
        for (i, part) in parts.into_iter().enumerate() {
            columns[2 * i + odd] = part;
        }
    }
    columns
}
