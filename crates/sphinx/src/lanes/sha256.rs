//! SHA-256, HMAC and HKDF for eight inputs at once: one input per 32-bit lane.
//!
//! Spec: docs/spec/packet.md, PKT-7 and PKT-8.
//!
//! | function       | in, of each lane                  | out, of each lane                       |
//! |----------------|-----------------------------------|-----------------------------------------|
//! | [`expand`]     | shared secret, 32 bytes           | 288 bytes: the keys of a hop            |
//! | [`payload_key`] | seed, 16 bytes                   | 192 bytes: the keys of the wide block   |
//! | [`mac`]        | key, 16 bytes; β, 300 bytes       | γ, 16 bytes                             |
//!
//! HKDF's salt and info strings are constants, so everything that depends on them alone is computed
//! when this is compiled: the two states behind the salt, and the schedules of the blocks that
//! hold no secret, which are half of all blocks of an expansion.
//!
//! Between its blocks a chain stays in lanes: a state's words are the next block's words.
//!
//! Constant time: no branch and no address depends on an input.

use core::arch::x86_64::*;

use sphinx_packet::constants::{
    EXPANDED_SHARED_SECRET_HKDF_INFO, EXPANDED_SHARED_SECRET_HKDF_SALT,
    EXPANDED_SHARED_SECRET_LENGTH, PAYLOAD_KEY_HKDF_INFO, PAYLOAD_KEY_HKDF_SALT, PAYLOAD_KEY_SIZE,
};

use super::LANES;
use super::vector::{load32, store32};
use crate::layout::{BETA_LEN, GAMMA_LEN, SEED_LEN, array};

/// Eight words, one a lane.
type Word = __m256i;
type State = [Word; 8];
type Block = [Word; 16];

const K: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];
const INITIAL: [u32; 8] = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];
const INNER_PAD: u32 = 0x3636_3636;
const OUTER_PAD: u32 = 0x5c5c_5c5c;

// What is computed at compile time.

/// The words that the 64 rounds add, constants included.
const fn schedule(block: [u32; 16]) -> [u32; 64] {
    let mut words = [0u32; 64];
    let mut t = 0;
    while t < 64 {
        words[t] = if t < 16 {
            block[t]
        } else {
            let (a, b) = (words[t - 15], words[t - 2]);
            let small_0 = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
            let small_1 = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
            words[t - 16]
                .wrapping_add(small_0)
                .wrapping_add(words[t - 7])
                .wrapping_add(small_1)
        };
        t += 1;
    }
    t = 0;
    while t < 64 {
        words[t] = words[t].wrapping_add(K[t]);
        t += 1;
    }
    words
}

/// The state behind one block.
const fn first_block(block: [u32; 16]) -> [u32; 8] {
    let words = schedule(block);
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = INITIAL;
    let mut t = 0;
    while t < 64 {
        let big_1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let t1 = h
            .wrapping_add(big_1)
            .wrapping_add((e & f) ^ (!e & g))
            .wrapping_add(words[t]);
        let big_0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t2 = big_0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
        t += 1;
    }
    let mut state = INITIAL;
    let after = [a, b, c, d, e, f, g, h];
    let mut i = 0;
    while i < 8 {
        state[i] = state[i].wrapping_add(after[i]);
        i += 1;
    }
    state
}

/// The state behind the block of an HMAC key that is a constant.
const fn keyed(key: &[u8], pad: u32) -> [u32; 8] {
    assert!(key.len() <= 64);
    let mut block = [pad; 16];
    let mut i = 0;
    while i < key.len() {
        block[i / 4] ^= (key[i] as u32) << (24 - 8 * (i % 4));
        i += 1;
    }
    first_block(block)
}

/// Block `index` of the message of an HMAC: `unknown` bytes (as zeros), `info`, `counter`, padding.
const fn info_block(unknown: usize, info: &[u8], counter: u8, index: usize) -> [u32; 16] {
    let len = unknown + info.len() + 1;
    let mut block = [0u32; 16];
    let mut i = 0;
    while i < 64 {
        let at = 64 * index + i;
        let byte = if at < unknown {
            0
        } else if at < len - 1 {
            info[at - unknown]
        } else if at == len - 1 {
            counter
        } else if at == len {
            0x80
        } else {
            0
        };
        block[i / 4] |= (byte as u32) << (24 - 8 * (i % 4));
        i += 1;
    }
    // The last block has room for the length in bits, that of the key's block included.
    if 64 * (index + 1) >= len + 9 {
        #[expect(clippy::cast_possible_truncation, reason = "some hundred bytes")]
        let bits = 8 * (64 + len) as u32;
        block[15] = bits;
    }
    block
}

/// HKDF with constant salt and info, to `BLOCKS` blocks of 32 bytes.
struct Hkdf<const BLOCKS: usize, const TAIL: usize> {
    /// The states behind the salt as an HMAC key.
    salt: [[u32; 8]; 2],
    /// Of each but the first output block: words 8 to 16 of its first message block, which begins
    /// with the output block before it.
    head: [u32; 8],
    /// The schedules of the message blocks without secrets, of each output block.
    tails: [[[u32; 64]; TAIL]; BLOCKS],
}

impl<const BLOCKS: usize, const TAIL: usize> Hkdf<BLOCKS, TAIL> {
    const fn new(salt: &[u8], info: &[u8]) -> Self {
        // Both kinds of message end within the blocks counted here.
        assert!((info.len() + 1 + 8) / 64 + 1 == TAIL);
        assert!((32 + info.len() + 1 + 8) / 64 == TAIL);
        let first = info_block(32, info, 0, 0);
        let mut head = [0; 8];
        let mut i = 0;
        while i < 8 {
            head[i] = first[8 + i];
            i += 1;
        }
        let mut tails = [[[0; 64]; TAIL]; BLOCKS];
        let mut block = 0;
        while block < BLOCKS {
            #[expect(clippy::cast_possible_truncation, reason = "at most 9")]
            let counter = block as u8 + 1;
            let mut i = 0;
            while i < TAIL {
                tails[block][i] = schedule(if block == 0 {
                    info_block(0, info, counter, i)
                } else {
                    info_block(32, info, counter, 1 + i)
                });
                i += 1;
            }
            block += 1;
        }
        Self {
            salt: [keyed(salt, INNER_PAD), keyed(salt, OUTER_PAD)],
            head,
            tails,
        }
    }
}

static SHARED: Hkdf<{ EXPANDED_SHARED_SECRET_LENGTH / 32 }, 2> = Hkdf::new(
    EXPANDED_SHARED_SECRET_HKDF_SALT,
    EXPANDED_SHARED_SECRET_HKDF_INFO,
);
static PAYLOAD: Hkdf<{ PAYLOAD_KEY_SIZE / 32 }, 1> =
    Hkdf::new(PAYLOAD_KEY_HKDF_SALT, PAYLOAD_KEY_HKDF_INFO);

// What is computed in lanes.

macro_rules! add {
    ($a:expr, $b:expr) => { _mm256_add_epi32($a, $b) };
    ($a:expr, $b:expr, $($rest:expr),+) => { _mm256_add_epi32($a, add!($b, $($rest),+)) };
}
macro_rules! xor3 {
    ($a:expr, $b:expr, $c:expr) => {
        _mm256_ternarylogic_epi32::<0x96>($a, $b, $c)
    };
}

/// One round on `$state` with the scheduled word `$word`.
macro_rules! round {
    ($state:ident, $word:expr) => {{
        let [a, b, c, d, e, f, g, h] = $state;
        let big_1 = xor3!(
            _mm256_ror_epi32::<6>(e),
            _mm256_ror_epi32::<11>(e),
            _mm256_ror_epi32::<25>(e)
        );
        let choice = _mm256_ternarylogic_epi32::<0xca>(e, f, g);
        let t1 = add!(add!(h, $word), add!(choice, big_1));
        let big_0 = xor3!(
            _mm256_ror_epi32::<2>(a),
            _mm256_ror_epi32::<13>(a),
            _mm256_ror_epi32::<22>(a)
        );
        let majority = _mm256_ternarylogic_epi32::<0xe8>(a, b, c);
        $state = [
            add!(t1, add!(big_0, majority)),
            a,
            b,
            c,
            add!(d, t1),
            e,
            f,
            g,
        ];
    }};
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn broadcast(word: u32) -> Word {
    _mm256_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn broadcast_state(words: &[u32; 8]) -> State {
    let mut state = [_mm256_setzero_si256(); 8];
    for (to, word) in state.iter_mut().zip(words) {
        *to = broadcast(*word);
    }
    state
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn sum(a: State, b: State) -> State {
    let mut sum = a;
    for (to, word) in sum.iter_mut().zip(b) {
        *to = add!(*to, word);
    }
    sum
}

/// The state behind one more block.
#[target_feature(enable = "avx512f,avx512vl")]
fn compress(before: State, mut block: Block) -> State {
    let mut state = before;
    for (t, word) in block.iter().enumerate() {
        round!(state, add!(*word, broadcast(K[t])));
    }
    for sixteen in 1..4 {
        for t in 0..16 {
            let (a, b) = (block[(t + 1) % 16], block[(t + 14) % 16]);
            let small_0 = xor3!(
                _mm256_ror_epi32::<7>(a),
                _mm256_ror_epi32::<18>(a),
                _mm256_srli_epi32::<3>(a)
            );
            let small_1 = xor3!(
                _mm256_ror_epi32::<17>(b),
                _mm256_ror_epi32::<19>(b),
                _mm256_srli_epi32::<10>(b)
            );
            block[t] = add!(add!(block[t], small_0), add!(block[(t + 9) % 16], small_1));
            round!(state, add!(block[t], broadcast(K[16 * sixteen + t])));
        }
    }
    sum(before, state)
}

/// [`compress`] for a block that is the same in all lanes.
#[target_feature(enable = "avx512f,avx512vl")]
fn compress_scheduled(before: State, words: &[u32; 64]) -> State {
    let mut state = before;
    for sixteen in words.as_chunks::<16>().0 {
        for word in sixteen {
            round!(state, broadcast(*word));
        }
    }
    sum(before, state)
}

/// A last block that holds `state` alone, behind `before` bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn closing(state: State, before: u32) -> Block {
    let mut block = [_mm256_setzero_si256(); 16];
    block[..8].copy_from_slice(&state);
    block[8] = broadcast(0x8000_0000);
    block[15] = broadcast(8 * (before + 32));
    block
}

/// The states behind an HMAC key.
struct Keyed {
    inner: State,
    outer: State,
}

impl Keyed {
    /// The key is the block's first words; the others are zero.
    #[target_feature(enable = "avx512f,avx512vl")]
    fn new(key: Block) -> Keyed {
        let initial = broadcast_state(&INITIAL);
        let mut blocks = [key, key];
        for (block, pad) in blocks.iter_mut().zip([INNER_PAD, OUTER_PAD]) {
            for word in block {
                *word = _mm256_xor_si256(*word, broadcast(pad));
            }
        }
        let [inner, outer] = blocks;
        Keyed {
            inner: compress(initial, inner),
            outer: compress(initial, outer),
        }
    }

    /// The MAC, from the state behind the message.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn close(&self, inner: State) -> State {
        compress(self.outer, closing(inner, 64))
    }
}

/// HKDF of one secret a lane, which is the block's first words, padded as a message behind the
/// salt's block. The output blocks go to `take` in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn hkdf<const BLOCKS: usize, const TAIL: usize>(
    constants: &Hkdf<BLOCKS, TAIL>,
    secret: Block,
    mut take: impl FnMut(usize, State),
) {
    let [inner, outer] = &constants.salt;
    let extracted = compress(broadcast_state(inner), secret);
    let extracted = compress(broadcast_state(outer), closing(extracted, 64));

    let mut key = [_mm256_setzero_si256(); 16];
    key[..8].copy_from_slice(&extracted);
    let key = Keyed::new(key);
    let mut output = extracted;
    for (i, tails) in constants.tails.iter().enumerate() {
        let mut state = key.inner;
        if i > 0 {
            let mut head = [_mm256_setzero_si256(); 16];
            head[..8].copy_from_slice(&output);
            head[8..].copy_from_slice(&broadcast_state(&constants.head));
            state = compress(state, head);
        }
        for tail in tails {
            state = compress_scheduled(state, tail);
        }
        output = key.close(state);
        take(i, output);
    }
}

/// Expands eight shared secrets (PKT-7).
#[target_feature(enable = "avx512f,avx512vl")]
pub(super) fn expand(
    secrets: [&[u8; 32]; LANES],
    mut expanded: [&mut [u8; EXPANDED_SHARED_SECRET_LENGTH]; LANES],
) {
    let block = closing(to_words(secrets), 64);
    hkdf(&SHARED, block, |i, output| {
        for (to, from) in expanded.iter_mut().zip(from_words(output)) {
            to[32 * i..][..32].copy_from_slice(&from);
        }
    });
}

/// The keys of eight wide blocks, from their seeds (PKT-7).
#[target_feature(enable = "avx512f,avx512vl")]
pub(super) fn payload_key(
    seeds: [&[u8; SEED_LEN]; LANES],
    keys: &mut [[u8; PAYLOAD_KEY_SIZE]; LANES],
) {
    let mut block = short_block(seeds);
    block[4] = broadcast(0x8000_0000);
    block[15] = broadcast(8 * (64 + 16));
    hkdf(&PAYLOAD, block, |i, output| {
        for (to, from) in keys.iter_mut().zip(from_words(output)) {
            to[32 * i..][..32].copy_from_slice(&from);
        }
    });
}

/// γ of eight βs (PKT-8).
#[target_feature(enable = "avx512f,avx512vl")]
pub(super) fn mac(
    keys: [&[u8; 16]; LANES],
    betas: [&[u8; BETA_LEN]; LANES],
) -> [[u8; GAMMA_LEN]; LANES] {
    const WHOLE: usize = BETA_LEN / 64 * 64;
    const { assert!(BETA_LEN - WHOLE <= 64 - 9) };
    let key = Keyed::new(short_block(keys));
    let mut state = key.inner;
    for at in (0..WHOLE).step_by(64) {
        state = compress(state, message_block(betas.map(|beta| array(beta, at))));
    }
    let mut last = [[0; 64]; LANES];
    #[expect(clippy::cast_possible_truncation, reason = "364 bytes")]
    let bits = 8 * (64 + BETA_LEN) as u32;
    for (block, beta) in last.iter_mut().zip(betas) {
        block[..BETA_LEN - WHOLE].copy_from_slice(&beta[WHOLE..]);
        block[BETA_LEN - WHOLE] = 0x80;
        block[60..].copy_from_slice(&bits.to_be_bytes());
    }
    state = compress(state, message_block(last.each_ref()));
    from_words(key.close(state)).map(|mac| *array(&mac, 0))
}

/// 16 bytes of each lane, then zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn short_block(inputs: [&[u8; 16]; LANES]) -> Block {
    let padded = inputs.map(|input| {
        let mut padded = [0; 32];
        padded[..16].copy_from_slice(input);
        padded
    });
    let mut block = [_mm256_setzero_si256(); 16];
    block[..8].copy_from_slice(&to_words(padded.each_ref()));
    block
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn message_block(inputs: [&[u8; 64]; LANES]) -> Block {
    let mut block = [_mm256_setzero_si256(); 16];
    block[..8].copy_from_slice(&to_words(inputs.map(|input| array(input, 0))));
    block[8..].copy_from_slice(&to_words(inputs.map(|input| array(input, 32))));
    block
}

/// The big-endian words of eight inputs: word i of every lane in element i.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn to_words(inputs: [&[u8; 32]; LANES]) -> State {
    let mut rows = [_mm256_setzero_si256(); 8];
    for (row, input) in rows.iter_mut().zip(inputs) {
        *row = swap_bytes(load32(input));
    }
    transpose(rows)
}

/// What [`to_words`] undoes.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn from_words(words: State) -> [[u8; 32]; LANES] {
    let mut outputs = [[0; 32]; LANES];
    for (output, row) in outputs.iter_mut().zip(transpose(words)) {
        store32(output, swap_bytes(row));
    }
    outputs
}

/// Reverses the bytes of each 32-bit word.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn swap_bytes(words: Word) -> Word {
    let order = _mm256_set_epi8(
        12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11, 4, 5,
        6, 7, 0, 1, 2, 3,
    );
    _mm256_shuffle_epi8(words, order)
}

/// Rows to columns, of eight rows of eight words.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn transpose(r: State) -> State {
    let mut pairs = r;
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    let mut fours = r;
    for half in 0..2 {
        for i in 0..2 {
            let (a, b) = (pairs[4 * half + i], pairs[4 * half + i + 2]);
            fours[4 * half + 2 * i] = _mm256_unpacklo_epi64(a, b);
            fours[4 * half + 2 * i + 1] = _mm256_unpackhi_epi64(a, b);
        }
    }
    let mut columns = r;
    for i in 0..4 {
        columns[i] = _mm256_permute2x128_si256::<0x20>(fours[i], fours[i + 4]);
        columns[i + 4] = _mm256_permute2x128_si256::<0x31>(fours[i], fours[i + 4]);
    }
    columns
}
