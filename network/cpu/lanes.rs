//! Sixteen `f32` lanes on three instruction sets, with equal bits on all of them: every operation
//! is exactly rounded, multiplication-additions are fused everywhere, and lanes never meet each
//! other. Knows no convolution.
//!
//! A kernel is one `#[inline(always)] unsafe fn k<L: Lanes>(..)`; `lanes_dispatch!` compiles it
//! under each target feature and picks by [`Isa`]. A value of [`Isa`] exists only where the CPU
//! has that instruction set, and a value of [`Lanes`] comes only from its unsafe constructors, so
//! that its arithmetic can be safe.
#![allow(unsafe_code)] // intrinsics

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::fmt;

use crate::{Error, Result};

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Set);

/// What `lanes_dispatch!` matches on.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The instruction sets of this CPU, best first; `portable` is always there, last.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                all.push(Self(Set::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self(Set::Avx2));
            }
        }
        all.push(Self(Set::Portable));
        all
    }

    /// The best of this CPU, or the one named, when the CPU has it.
    pub fn choose(name: Option<&str>) -> Result<Self> {
        let all = Self::all();
        let Some(name) = name else { return Ok(all[0]) };
        all.iter().copied().find(|isa| isa.to_string() == name).ok_or_else(|| Error::Unknown {
            what: "instruction set (of this CPU)",
            name: name.into(),
            known: all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        })
    }

    #[doc(hidden)]
    pub fn set(self) -> Set {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            Set::Portable => "portable",
        })
    }
}

/// Sixteen `f32`.
pub trait Lanes: Copy {
    /// Has it enough registers for 16 accumulators (otherwise: for 4)?
    const WIDE: bool;

    /// All lanes `x`.
    ///
    /// # Safety
    /// The CPU has the instruction set, and the caller is compiled for it.
    unsafe fn splat(x: f32) -> Self;
    /// Sixteen values from `p`, unaligned.
    ///
    /// # Safety
    /// As [`Lanes::splat`]; `p` is valid for reading 16 floats.
    unsafe fn load(p: *const f32) -> Self;
    /// Writes to `p`, unaligned.
    ///
    /// # Safety
    /// `p` is valid for writing 16 floats.
    unsafe fn store(self, p: *mut f32);
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// `self + b`
    fn add(self, b: Self) -> Self;
    /// `self - b`
    fn sub(self, b: Self) -> Self;
    /// `self * b`
    fn mul(self, b: Self) -> Self;
    /// `self` where `self > b`, otherwise `b` (also where either is NaN).
    fn max(self, b: Self) -> Self;
    /// Bit i: is lane i above zero?
    fn positive(self) -> u16;
    /// Lane i where bit i of `mask` is set, otherwise +0.
    fn keep(self, mask: u16) -> Self;
    /// Lane j of result i is lane i of `rows[j]`.
    fn transpose(rows: [Self; 16]) -> [Self; 16];
}

/// Sixteen lanes in one AVX-512 register.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

/// Sixteen lanes in two AVX2 registers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2(__m256, __m256);

/// Sixteen lanes in plain Rust.
#[derive(Clone, Copy)]
pub struct Portable([f32; 16]);

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512 {
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
    fn positive(self) -> u16 {
        // SAFETY: `self` proves the CPU.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_ps()) }
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

#[cfg(target_arch = "x86_64")]
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
    fn fma(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| super::fused::mul_add(self.0[i], b.0[i], c.0[i])))
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
    fn positive(self) -> u16 {
        (0..16).fold(0, |mask, i| mask | u16::from(self.0[i] > 0.0) << i)
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

/// Asks for a cache line that will be needed; any address will do.
#[inline(always)]
pub fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every x86-64, and a hint that never faults.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// `lanes_dispatch!(pub unsafe fn name(a: A, ..) = kernel);` makes `name(isa, a, ..)`, which runs
/// `kernel::<L>(a, ..)` compiled for `isa`. What `kernel` demands of its arguments, `name` does.
#[macro_export]
macro_rules! lanes_dispatch {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $kernel:ident) => {
        $(#[$doc])*
        $vis unsafe fn $name(isa: $crate::cpu::lanes::Isa, $($arg: $ty),*) {
            use $crate::cpu::lanes::{self, Set};
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: the caller's promises; the feature is on here.
                unsafe { $kernel::<lanes::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: the caller's promises; the features are on here.
                unsafe { $kernel::<lanes::Avx2>($($arg),*) }
            }
            // SAFETY: an `Isa` exists only where the CPU has it; the rest are the caller's promises.
            unsafe {
                match isa.set() {
                    #[cfg(target_arch = "x86_64")]
                    Set::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Set::Avx2 => avx2($($arg),*),
                    Set::Portable => $kernel::<lanes::Portable>($($arg),*),
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    unsafe fn everything<L: Lanes>(a: &[f32; 16], b: &[f32; 16], out: &mut [f32; 144]) {
        // SAFETY: the arrays hold 16 floats, `out` nine times as many.
        unsafe {
            let (x, y, z) = (L::load(a.as_ptr()), L::load(b.as_ptr()), L::splat(0.1));
            let masks = [x.positive(), y.positive()];
            let results = [
                x.fma(y, z),
                x.add(y),
                x.sub(y),
                x.mul(y),
                x.max(y),
                y.max(x),
                x.keep(masks[1]),
                x.keep(0xa5c3),
                L::splat(f32::from(masks[0])),
            ];
            for (i, result) in results.into_iter().enumerate() {
                result.store(out.as_mut_ptr().add(16 * i));
            }
        }
    }

    lanes_dispatch!(unsafe fn run_everything(a: &[f32; 16], b: &[f32; 16], out: &mut [f32; 144]) = everything);

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let mut stream = crate::rng::stream(0, "lanes");
        for round in 0..200 {
            let mut draw = || std::array::from_fn(|_| stream.normal() as f32);
            let (mut a, mut b): ([f32; 16], [f32; 16]) = (draw(), draw());
            if round % 2 == 1 {
                (a[0], b[0], a[1], b[1], a[2], b[3]) = (0.0, -0.0, -0.0, 0.0, f32::NAN, f32::NAN);
                (a[4], b[4], a[5]) = (f32::INFINITY, 1.0, f32::MIN_POSITIVE / 2.0);
            }
            let outputs: Vec<Vec<u32>> = Isa::all()
                .into_iter()
                .map(|isa| {
                    let mut out = [0.0; 144];
                    // SAFETY: references are valid.
                    unsafe { run_everything(isa, &a, &b, &mut out) };
                    out.iter().map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }).collect()
                })
                .collect();
            for output in &outputs {
                assert_eq!(output, &outputs[0]);
            }
            assert_eq!(outputs[0][8], (a[8].mul_add(b[8], 0.1)).to_bits());
            assert_eq!(outputs[0][64 + 8], a[8].max(b[8]).to_bits());
            assert_eq!(f32::from_bits(outputs[0][112 + 2]), 0.0); // bit 2 of 0xa5c3 is clear
            assert_eq!(outputs[0][112 + 8], a[8].to_bits()); // bit 8 is set
        }
    }

    #[inline(always)]
    unsafe fn turn<L: Lanes>(values: &mut [f32; 256]) {
        // SAFETY: 16 rows of 16 floats.
        unsafe {
            let at = values.as_mut_ptr();
            let rows = L::transpose(std::array::from_fn(|i| L::load(at.add(16 * i))));
            rows.into_iter().enumerate().for_each(|(i, row)| row.store(at.add(16 * i)));
        }
    }

    lanes_dispatch!(unsafe fn turn_on(values: &mut [f32; 256]) = turn);

    #[test]
    fn transposition_moves_every_value_to_its_place() {
        for isa in Isa::all() {
            let mut values = std::array::from_fn(|i| i as f32);
            // SAFETY: a reference is valid.
            unsafe { turn_on(isa, &mut values) };
            assert!((0..256).all(|i| values[i] == (i % 16 * 16 + i / 16) as f32), "{isa}: {values:?}");
        }
    }

    #[test]
    fn an_instruction_set_that_this_cpu_lacks_is_refused_by_name() {
        assert_eq!(Isa::choose(Some("portable")).unwrap().to_string(), "portable");
        assert!(Isa::choose(Some("mmx")).unwrap_err().to_string().contains("portable"));
        assert_eq!(Isa::choose(None).unwrap(), Isa::all()[0]);
    }
}
