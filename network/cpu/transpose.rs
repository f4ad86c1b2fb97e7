//! A 16x16 transposition on each instruction set: it moves values and rounds none. Knows nothing of
//! what they are.
#![allow(unsafe_code)] // intrinsics
#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

/// # Safety
/// The CPU has AVX-512F, and the caller is compiled for it.
#[inline(always)]
pub(super) unsafe fn avx512(r: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        // Within each quarter of four rows: 4x4 blocks.
        let mut quads = r;
        for i in (0..16).step_by(4) {
            let low = [_mm512_unpacklo_ps(r[i], r[i + 1]), _mm512_unpacklo_ps(r[i + 2], r[i + 3])];
            let high = [_mm512_unpackhi_ps(r[i], r[i + 1]), _mm512_unpackhi_ps(r[i + 2], r[i + 3])];
            for (j, [a, b]) in [low, high].into_iter().enumerate() {
                quads[i + 2 * j] = _mm512_shuffle_ps::<0x44>(a, b);
                quads[i + 2 * j + 1] = _mm512_shuffle_ps::<0xee>(a, b);
            }
        }
        // Then the blocks themselves: quads[4 i + j] holds column 4 b + j of rows 4 i.. in block b.
        let mut out = quads;
        for j in 0..4 {
            let [a, b, c, d] = [quads[j], quads[4 + j], quads[8 + j], quads[12 + j]];
            let even = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d)];
            let odd = [_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d)];
            out[j] = _mm512_shuffle_f32x4::<0x88>(even[0], even[1]);
            out[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]);
            out[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]);
            out[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]);
        }
        out
    }
}

/// Of 8x8 values.
///
/// # Safety
/// The CPU has AVX, and the caller is compiled for it.
#[inline(always)]
pub(super) unsafe fn avx(r: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        let mut quads = r;
        for i in [0, 4] {
            let low = [_mm256_unpacklo_ps(r[i], r[i + 1]), _mm256_unpacklo_ps(r[i + 2], r[i + 3])];
            let high = [_mm256_unpackhi_ps(r[i], r[i + 1]), _mm256_unpackhi_ps(r[i + 2], r[i + 3])];
            for (j, [a, b]) in [low, high].into_iter().enumerate() {
                quads[i + 2 * j] = _mm256_shuffle_ps::<0x44>(a, b);
                quads[i + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(a, b);
            }
        }
        let mut out = quads;
        for j in 0..4 {
            out[j] = _mm256_permute2f128_ps::<0x20>(quads[j], quads[4 + j]);
            out[4 + j] = _mm256_permute2f128_ps::<0x31>(quads[j], quads[4 + j]);
        }
        out
    }
}
