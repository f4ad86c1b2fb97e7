//! Sixteen lanes in plain Rust, written so that a compiler finds the vectors. Knows no kernel.
#![allow(unsafe_code)] // unaligned reads and writes

use super::{fused, lanes::Lanes};

/// Sixteen lanes in plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 16]);

impl Lanes for Portable {
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 16])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for 16 floats.
        Self(unsafe { p.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for 16 floats.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller vouches for 16 numbers.
        let upper = unsafe { p.cast::<[u16; 16]>().read_unaligned() };
        Self(std::array::from_fn(|i| f32::from_bits(u32::from(upper[i]) << 16)))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) -> Self {
        let upper: [u16; 16] = std::array::from_fn(|i| {
            let bits = self.0[i].to_bits();
            let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
            let up = if self.0[i].is_nan() { bits >> 16 | 0x40 } else { up };
            (if bits & 0x7f80_0000 == 0 { bits >> 16 & 0x8000 } else { up }) as u16
        });
        // SAFETY: the caller vouches for 16 numbers.
        unsafe {
            p.cast::<[u16; 16]>().write_unaligned(upper);
            Self::load_bf16(p)
        }
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Self(fused::mul_add(self.0, b.0, c.0))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + b.0[i]))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - b.0[i]))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * b.0[i]))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }))
    }
    #[inline(always)]
    fn or(self, b: Self) -> Self {
        Self(std::array::from_fn(|i| f32::from_bits(self.0[i].to_bits() | b.0[i].to_bits())))
    }
    #[inline(always)]
    fn positive(self) -> u16 {
        (0..16).fold(0, |mask, i| mask | u16::from(self.0[i] > 0.0) << i)
    }
    #[inline(always)]
    fn nonzero(self) -> u16 {
        (0..16).fold(0, |mask, i| mask | u16::from(self.0[i].to_bits() << 1 != 0) << i)
    }
    #[inline(always)]
    fn keep(self, mask: u16) -> Self {
        Self(std::array::from_fn(|i| if mask >> i & 1 == 1 { self.0[i] } else { 0.0 }))
    }
    #[inline(always)]
    fn transpose(rows: [Self; 16]) -> [Self; 16] {
        std::array::from_fn(|i| Self(std::array::from_fn(|j| rows[j].0[i])))
    }
}
