//! ChaCha20 of one message, sixteen blocks at once: one block per 32-bit lane.
//!
//! Spec: docs/spec/packet.md, PKT-7 (the stream of the wide block).
//!
//! | argument   |                                                                            |
//! |------------|----------------------------------------------------------------------------|
//! | key        | 32 bytes                                                                   |
//! | nonce      | 12 zero bytes; the counter starts at zero                                  |
//! | message    | any length below 2³⁸ bytes, changed in place                               |
//!
//! A payload of 2 KiB is two rounds of sixteen blocks, so lanes are filled by one packet, and other
//! packets aren't waited for.
//!
//! Constant time: no branch and no address depends on the key or the message.

use core::arch::x86_64::*;

use super::vector::{transpose_parts, xor_up_to_64};

const BLOCK_LEN: usize = 64;
const BLOCKS: usize = 16;
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Quarters of a round on these words of `$v`. Written out, so that all words stay in registers.
macro_rules! quarters {
    ($v:ident: $([$a:literal, $b:literal, $c:literal, $d:literal])*) => {$(
        $v[$a] = _mm512_add_epi32($v[$a], $v[$b]);
        $v[$d] = _mm512_rol_epi32::<16>(_mm512_xor_si512($v[$d], $v[$a]));
        $v[$c] = _mm512_add_epi32($v[$c], $v[$d]);
        $v[$b] = _mm512_rol_epi32::<12>(_mm512_xor_si512($v[$b], $v[$c]));
        $v[$a] = _mm512_add_epi32($v[$a], $v[$b]);
        $v[$d] = _mm512_rol_epi32::<8>(_mm512_xor_si512($v[$d], $v[$a]));
        $v[$c] = _mm512_add_epi32($v[$c], $v[$d]);
        $v[$b] = _mm512_rol_epi32::<7>(_mm512_xor_si512($v[$b], $v[$c]));
    )*};
}

/// Adds the key stream to `bytes`.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn xor(key: &[u8; 32], bytes: &mut [u8]) {
    let mut start = [_mm512_setzero_si512(); 16];
    for (to, word) in start.iter_mut().zip(CONSTANTS) {
        *to = _mm512_set1_epi32(word.cast_signed());
    }
    for (to, word) in start[4..12].iter_mut().zip(key.as_chunks::<4>().0) {
        *to = _mm512_set1_epi32(i32::from_le_bytes(*word));
    }
    start[12] = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for sixteen in bytes.chunks_mut(BLOCK_LEN * BLOCKS) {
        let stream = blocks(&start);
        for (bytes, stream) in sixteen.chunks_mut(BLOCK_LEN).zip(stream) {
            xor_up_to_64(bytes, stream);
        }
        start[12] = _mm512_add_epi32(start[12], _mm512_set1_epi32(16));
    }
}

/// Sixteen blocks of the key stream, in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn blocks(start: &[__m512i; 16]) -> [__m512i; BLOCKS] {
    let mut v = *start;
    for _ in 0..10 {
        quarters!(v: [0, 4, 8, 12] [1, 5, 9, 13] [2, 6, 10, 14] [3, 7, 11, 15]);
        quarters!(v: [0, 5, 10, 15] [1, 6, 11, 12] [2, 7, 8, 13] [3, 4, 9, 14]);
    }
    for (word, start) in v.iter_mut().zip(start) {
        *word = _mm512_add_epi32(*word, *start);
    }
    // Words to blocks: within 128-bit parts, four words of blocks 4k + j in part k of element j.
    let mut fours = v;
    for i in 0..4 {
        let [a, b, c, d] = [v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]];
        let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low_2, high_2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        fours[4 * i] = _mm512_unpacklo_epi64(low, low_2);
        fours[4 * i + 1] = _mm512_unpackhi_epi64(low, low_2);
        fours[4 * i + 2] = _mm512_unpacklo_epi64(high, high_2);
        fours[4 * i + 3] = _mm512_unpackhi_epi64(high, high_2);
    }
    for j in 0..4 {
        let parts = transpose_parts([fours[j], fours[4 + j], fours[8 + j], fours[12 + j]]);
        for (k, part) in parts.into_iter().enumerate() {
            v[4 * k + j] = part;
        }
    }
    v
}
