//! Sixteen lanes in AVX-512 and AVX2 registers. Knows no kernel.
#![allow(unsafe_code)] // intrinsics
#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

use super::lanes::Lanes;

/// Sixteen lanes in one AVX-512 register; `BF16`: with AVX-512 BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(__m512);

/// Sixteen lanes in two AVX2 registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

impl<const BF16: bool> Lanes for Avx512<BF16> {
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for the CPU.
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the CPU and the pointer.
        Self(unsafe { _mm512_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for the pointer; `self` proves the CPU.
        unsafe { _mm512_storeu_ps(p, self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller vouches for the CPU and the pointer.
        unsafe {
            let upper = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) -> Self {
        // SAFETY: the caller vouches for the pointer; `self` proves the CPU, `BF16` its extension.
        unsafe {
            let upper = if BF16 {
                let upper = _mm512_cvtneps_pbh(self.0);
                std::mem::transmute::<__m256bh, __m256i>(upper)
            } else {
                _mm512_cvtepi32_epi16(nearest_upper_halves(self.0))
            };
            _mm256_storeu_si256(p.cast(), upper);
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(upper))))
        }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        Self(unsafe { _mm512_add_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        Self(unsafe { _mm512_sub_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        Self(unsafe { _mm512_mul_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        Self(unsafe { _mm512_max_ps(self.0, b.0) })
    }
    #[inline(always)]
    fn or(self, b: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        unsafe {
            Self(_mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(self.0), _mm512_castps_si512(b.0))))
        }
    }
    #[inline(always)]
    fn positive(self) -> u16 {
        // SAFETY: `self` proves the CPU.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_ps()) }
    }
    #[inline(always)]
    fn nonzero(self) -> u16 {
        // SAFETY: `self` proves the CPU.
        unsafe { _mm512_test_epi32_mask(_mm512_castps_si512(self.0), _mm512_set1_epi32(i32::MAX)) }
    }
    #[inline(always)]
    fn keep(self, mask: u16) -> Self {
        // SAFETY: `self` proves the CPU.
        Self(unsafe { _mm512_maskz_mov_ps(mask, self.0) })
    }
    #[inline(always)]
    fn transpose(rows: [Self; 16]) -> [Self; 16] {
        // Plain loops: closures are not always inlined into code for another instruction set.
        let (mut values, mut out) = ([rows[0].0; 16], rows);
        for i in 0..16 {
            values[i] = rows[i].0;
        }
        // SAFETY: `rows` prove the CPU.
        values = unsafe { super::transpose::avx512(values) };
        for i in 0..16 {
            out[i].0 = values[i];
        }
        out
    }
}

impl Lanes for Avx2 {
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller vouches for the CPU.
        let half = unsafe { _mm256_set1_ps(x) };
        Self(half, half)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the CPU and 16 floats.
        unsafe { Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for 16 floats; `self` proves the CPU.
        unsafe {
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller vouches for the CPU and 16 numbers.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast()));
            Self(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            )
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) -> Self {
        // SAFETY: the caller vouches for 16 numbers; `self` proves the CPU.
        unsafe {
            let (low, high) = (upper_halves(self.0), upper_halves(self.1));
            // The halves come out as 0, 2, 1, 3 quarters.
            let mixed = _mm256_packus_epi32(low, high);
            _mm256_storeu_si256(p.cast(), _mm256_permute4x64_epi64::<0xd8>(mixed));
            Self(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            )
        }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        unsafe { Self(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        unsafe { Self(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        unsafe { Self(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        unsafe { Self(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }
    #[inline(always)]
    fn or(self, b: Self) -> Self {
        // SAFETY: `self` proves the CPU.
        unsafe { Self(_mm256_or_ps(self.0, b.0), _mm256_or_ps(self.1, b.1)) }
    }
    #[inline(always)]
    fn positive(self) -> u16 {
        // SAFETY: `self` proves the CPU.
        unsafe {
            let zero = _mm256_setzero_ps();
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(self.0, zero));
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(self.1, zero));
            (low | high << 8) as u16
        }
    }
    #[inline(always)]
    fn nonzero(self) -> u16 {
        // SAFETY: `self` proves the CPU.
        unsafe {
            let zero = |half: __m256| {
                let magnitude = _mm256_and_si256(_mm256_castps_si256(half), _mm256_set1_epi32(i32::MAX));
                let zero = _mm256_cmpeq_epi32(magnitude, _mm256_setzero_si256());
                _mm256_movemask_ps(_mm256_castsi256_ps(zero))
            };
            !((zero(self.0) | zero(self.1) << 8) as u16)
        }
    }
    #[inline(always)]
    fn keep(self, mask: u16) -> Self {
        // SAFETY: `self` proves the CPU.
        unsafe {
            let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let spread = |half: i32| {
                let set = _mm256_and_si256(_mm256_set1_epi32(half), bits);
                _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, bits))
            };
            Self(
                _mm256_and_ps(self.0, spread(i32::from(mask & 0xff))),
                _mm256_and_ps(self.1, spread(i32::from(mask >> 8))),
            )
        }
    }
    #[inline(always)]
    fn transpose(rows: [Self; 16]) -> [Self; 16] {
        let mut quarters = [[rows[0].0; 8]; 4];
        for i in 0..8 {
            quarters[0][i] = rows[i].0;
            quarters[1][i] = rows[8 + i].0;
            quarters[2][i] = rows[i].1;
            quarters[3][i] = rows[8 + i].1;
        }
        for quarter in &mut quarters {
            // SAFETY: `rows` prove the CPU.
            *quarter = unsafe { super::transpose::avx(*quarter) };
        }
        let mut out = rows;
        for i in 0..8 {
            out[i] = Self(quarters[0][i], quarters[1][i]);
            out[8 + i] = Self(quarters[2][i], quarters[3][i]);
        }
        out
    }
}

/// The nearest bf16 of eight numbers, each in 32 bits.
///
/// # Safety
/// The CPU has AVX2, and the caller is compiled for it.
#[inline(always)]
unsafe fn upper_halves(values: __m256) -> __m256i {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        let bits = _mm256_castps_si256(values);
        let upper = _mm256_srli_epi32::<16>(bits);
        let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        let up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(values, values));
        let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
        let exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7f80_0000));
        let tiny = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
        let sign = _mm256_and_si256(upper, _mm256_set1_epi32(0x8000));
        let result = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(up), quiet, nan);
        _mm256_blendv_epi8(result, sign, tiny)
    }
}

/// The nearest bf16 of sixteen numbers, each in 32 bits: what VCVTNEPS2BF16 does.
///
/// # Safety
/// The CPU has AVX-512, and the caller is compiled for it.
#[inline(always)]
unsafe fn nearest_upper_halves(values: __m512) -> __m512i {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        let bits = _mm512_castps_si512(values);
        let upper = _mm512_srli_epi32::<16>(bits);
        let odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        let up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
        let tiny = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(0x7f80_0000));
        let result = _mm512_srli_epi32::<16>(up);
        let result = _mm512_mask_or_epi32(result, nan, upper, _mm512_set1_epi32(0x40));
        _mm512_mask_and_epi32(result, tiny, upper, _mm512_set1_epi32(0x8000))
    }
}
