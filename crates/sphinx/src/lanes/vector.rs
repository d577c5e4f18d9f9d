//! Loads, stores and turns of vectors: the lanes' only accesses through pointers.
//!
//! `unsafe`: each block reads or writes exactly the bytes of the array or slice that its argument
//! borrows, by an instruction that asks for no alignment.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use core::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx")]
pub(super) fn load32(from: &[u8; 32]) -> __m256i {
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx")]
pub(super) fn store32(to: &mut [u8; 32], vector: __m256i) {
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load64(from: &[u8; 64]) -> __m512i {
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store64(to: &mut [u8; 64], vector: __m512i) {
    // SAFETY: 64 writable bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), vector) }
}

/// Adds a key stream to the first bytes of `bytes`, at most 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn xor_up_to_64(bytes: &mut [u8], stream: __m512i) {
    let mask = match bytes.len() {
        len @ 0..64 => (1u64 << len) - 1,
        _ => u64::MAX,
    };
    // SAFETY: the mask selects at most as many bytes as the slice has, from its start; bytes that
    // it does not select are neither read nor written.
    unsafe {
        let at = bytes.as_mut_ptr().cast();
        let mixed = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, at), stream);
        _mm512_mask_storeu_epi8(at, mask, mixed);
    }
}

/// Rows to columns, of four rows of four 128-bit parts.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose_parts([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (even, odd) = (
        _mm512_shuffle_i64x2::<0x88>(a, b),
        _mm512_shuffle_i64x2::<0xdd>(a, b),
    );
    let (even_2, odd_2) = (
        _mm512_shuffle_i64x2::<0x88>(c, d),
        _mm512_shuffle_i64x2::<0xdd>(c, d),
    );
    [
        _mm512_shuffle_i64x2::<0x88>(even, even_2),
        _mm512_shuffle_i64x2::<0x88>(odd, odd_2),
        _mm512_shuffle_i64x2::<0xdd>(even, even_2),
        _mm512_shuffle_i64x2::<0xdd>(odd, odd_2),
    ]
}
