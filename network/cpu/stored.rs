//! How images are kept in memory: as f32, or as bf16, half as large. Arithmetic is in f32 either way.
//! Knows no layout.
#![allow(unsafe_code)] // reads and writes sixteen numbers at a pointer

use super::{buffers::Zeroed, lanes::Lanes};

/// A number as it is kept in memory.
pub(crate) trait Stored: Zeroed + Default + Send + Sync + 'static {
    /// Its name, as in a record of a run.
    const NAME: &'static str;
    /// Is it bf16, for which some instruction sets have instructions of their own?
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "none that is known here"))]
    const HALF: bool;
    /// Sixteen numbers from `p`, unaligned.
    ///
    /// # Safety
    /// As [`Lanes::splat`]; `p` is valid for reading 16 numbers.
    unsafe fn load<L: Lanes>(p: *const Self) -> L;
    /// Writes sixteen numbers to `p`, unaligned, rounded as [`Lanes::store_bf16`] says where they do not
    /// fit, and returns what was written.
    ///
    /// # Safety
    /// `p` is valid for writing 16 numbers.
    unsafe fn store<L: Lanes>(values: L, p: *mut Self) -> L;
}

/// The upper half of an f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Bf16(u16);

// SAFETY: a number.
unsafe impl Zeroed for Bf16 {}

impl From<Bf16> for f32 {
    fn from(x: Bf16) -> Self {
        Self::from_bits(u32::from(x.0) << 16)
    }
}

impl Stored for f32 {
    const NAME: &'static str = "f32";
    const HALF: bool = false;

    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(p) }
    }
    #[inline(always)]
    unsafe fn store<L: Lanes>(values: L, p: *mut Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { values.store(p) }
        values
    }
}

impl Stored for Bf16 {
    const NAME: &'static str = "bf16";
    const HALF: bool = true;

    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_bf16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store<L: Lanes>(values: L, p: *mut Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { values.store_bf16(p.cast()) }
    }
}
