//! Sixteen `f32` lanes on three instruction sets, with equal bits on all of them: every operation
//! is exactly rounded, multiplication-additions are fused everywhere, and lanes never meet each
//! other. Knows no convolution.
//!
//! A kernel is one `#[inline(always)] unsafe fn k<L: Lanes>(..)`; `lanes_dispatch!` compiles it
//! under each target feature and picks by [`Isa`]. A value of [`Isa`] exists only where the CPU
//! has that instruction set, and a value of `Lanes` comes only from its unsafe constructors, so
//! that its arithmetic can be safe.
#![allow(unsafe_code)] // intrinsics

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::fmt;

pub(crate) use super::lanes_portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use super::lanes_x86::{Avx2, Avx512};
use crate::{Error, Result};

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Set);

/// What `lanes_dispatch!` matches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The instruction sets of this CPU, best first; `portable` is always there, last.
    pub fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let sets = {
            let avx512 = is_x86_feature_detected!("avx512f");
            [
                (Set::Avx512Bf16, avx512 && is_x86_feature_detected!("avx512bf16")),
                (Set::Avx512, avx512),
                (Set::Avx2, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
                (Set::Portable, true),
            ]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let sets = [(Set::Portable, true)];
        sets.into_iter().filter(|(_, found)| *found).map(|(set, _)| Self(set)).collect()
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

    pub(crate) fn set(self) -> Set {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Bf16 => "avx512bf16",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            Set::Portable => "portable",
        })
    }
}

/// Sixteen `f32`.
pub(crate) trait Lanes: Copy {
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
    /// Sixteen bf16 from `p`, unaligned: the upper halves of f32.
    ///
    /// # Safety
    /// As [`Lanes::splat`]; `p` is valid for reading 16 numbers.
    unsafe fn load_bf16(p: *const u16) -> Self;
    /// Writes to `p` as bf16, unaligned, and returns what was written. Rounds to nearest, ties to even;
    /// subnormal numbers become zeros of their sign, as the instruction for this has it.
    ///
    /// # Safety
    /// `p` is valid for writing 16 numbers.
    unsafe fn store_bf16(self, p: *mut u16) -> Self;
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
    /// The bits of both.
    fn or(self, b: Self) -> Self;
    /// Bit i: is lane i above zero?
    fn positive(self) -> u16;
    /// Bit i: is lane i anything but a zero of either sign?
    fn nonzero(self) -> u16;
    /// Lane i where bit i of `mask` is set, otherwise +0.
    fn keep(self, mask: u16) -> Self;
    /// Lane j of result i is lane i of `rows[j]`.
    fn transpose(rows: [Self; 16]) -> [Self; 16];
}

/// Asks for a cache line that will be needed; any address will do.
#[inline(always)]
pub(crate) fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every x86-64, and a hint that never faults.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// The same for one that is needed later: it waits in the second cache, and takes no room in the first.
#[inline(always)]
pub(crate) fn prefetch_later<T>(p: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of every x86-64, and a hint that never faults.
    unsafe {
        _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// `lanes_dispatch!(pub unsafe fn name(a: A, ..) = kernel);` makes `name(isa, a, ..)`, which runs
/// `kernel::<L>(a, ..)` compiled for `isa`; `name<S>` makes `name::<S>`, which runs `kernel::<L, S>` for
/// what is `Stored` as `S`. What `kernel` demands of its arguments, `name` does.
macro_rules! lanes_dispatch {
    (
        $(#[$doc:meta])* $vis:vis unsafe fn $name:ident $(<$stored:ident>)? ($($arg:ident: $ty:ty),* $(,)?)
        = $kernel:ident
    ) => {
        $(#[$doc])*
        $vis unsafe fn $name $(<$stored: $crate::cpu::stored::Stored>)? (
            isa: $crate::cpu::lanes::Isa,
            $($arg: $ty),*
        ) {
            use $crate::cpu::lanes::{self, Set};
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bf16")]
            unsafe fn avx512bf16 $(<$stored: $crate::cpu::stored::Stored>)? ($($arg: $ty),*) {
                // SAFETY: the caller's promises; the features are on here.
                unsafe { $kernel::<lanes::Avx512<true> $(, $stored)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            unsafe fn avx512 $(<$stored: $crate::cpu::stored::Stored>)? ($($arg: $ty),*) {
                // SAFETY: the caller's promises; the feature is on here.
                unsafe { $kernel::<lanes::Avx512<false> $(, $stored)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2 $(<$stored: $crate::cpu::stored::Stored>)? ($($arg: $ty),*) {
                // SAFETY: the caller's promises; the features are on here.
                unsafe { $kernel::<lanes::Avx2 $(, $stored)?>($($arg),*) }
            }
            // SAFETY: an `Isa` exists only where the CPU has it; the rest are the caller's promises.
            unsafe {
                match isa.set() {
                    #[cfg(target_arch = "x86_64")]
                    Set::Avx512Bf16 => {
                        // What stores no bf16 needs no copy of its own.
                        if false $(|| <$stored as $crate::cpu::stored::Stored>::HALF)? {
                            avx512bf16 $(::<$stored>)? ($($arg),*)
                        } else {
                            avx512 $(::<$stored>)? ($($arg),*)
                        }
                    }
                    #[cfg(target_arch = "x86_64")]
                    Set::Avx512 => avx512 $(::<$stored>)? ($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    Set::Avx2 => avx2 $(::<$stored>)? ($($arg),*),
                    Set::Portable => $kernel::<lanes::Portable $(, $stored)?>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use lanes_dispatch;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::stored::{Bf16, Stored};

    #[inline(always)]
    unsafe fn everything<L: Lanes>(a: &[f32; 16], b: &[f32; 16], out: &mut [f32; 176]) {
        // SAFETY: the arrays hold 16 floats, `out` eleven times as many.
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
                x.or(y),
                L::splat(f32::from(x.nonzero())),
            ];
            for (i, result) in results.into_iter().enumerate() {
                result.store(out.as_mut_ptr().add(16 * i));
            }
        }
    }

    lanes_dispatch!(unsafe fn run_everything(a: &[f32; 16], b: &[f32; 16], out: &mut [f32; 176]) = everything);

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
                    let mut out = [0.0; 176];
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
    unsafe fn halve<L: Lanes, S: Stored>(
        values: &[f32; 16],
        stored: &mut [S; 16],
        back: &mut [[f32; 16]; 2],
    ) {
        // SAFETY: the arrays hold 16 numbers.
        unsafe {
            S::store(L::load(values.as_ptr()), stored.as_mut_ptr()).store(back[0].as_mut_ptr());
            S::load::<L>(stored.as_ptr()).store(back[1].as_mut_ptr());
        }
    }

    lanes_dispatch!(
        unsafe fn halve_on<S>(values: &[f32; 16], stored: &mut [S; 16], back: &mut [[f32; 16]; 2]) = halve
    );

    #[test]
    fn bf16_is_the_nearest_upper_half_on_every_instruction_set() {
        let mut stream = crate::rng::stream(2, "bf16");
        for _ in 0..10_000 {
            let values: [f32; 16] = std::array::from_fn(|i| match i {
                0 => f32::NAN,
                1 => f32::from_bits(0x7f80_0001), // a signalling NaN whose upper half is infinity's
                2 => -f32::MAX,
                3 => f32::INFINITY,
                4..8 => f32::from_bits((stream.next_u64() as u32) << 16 | 0x8000), // ties
                8 => f32::from_bits(stream.next_u64() as u32 & 0x807f_ffff),       // subnormal
                _ => f32::from_bits(stream.next_u64() as u32),
            });
            for isa in Isa::all() {
                let (mut stored, mut back) = ([Bf16::default(); 16], [[0.0; 16]; 2]);
                // SAFETY: references are valid.
                unsafe { halve_on(isa, &values, &mut stored, &mut back) };
                for (i, value) in values.iter().enumerate() {
                    let bf16 = (f32::from(stored[i]).to_bits() >> 16) as u16;
                    assert!(back.iter().all(|back| back[i].to_bits() == u32::from(bf16) << 16));
                    let back = back[0][i];
                    if value.is_subnormal() {
                        assert_eq!(back.to_bits(), value.to_bits() & 0x8000_0000, "{value:e} on {isa}");
                        continue;
                    }
                    if value.is_nan() {
                        assert!(back.is_nan() && bf16 == (value.to_bits() >> 16) as u16 | 0x40);
                        continue;
                    }
                    // Neighbours differ by one as integers, also where one is infinite.
                    let (below, above) = (value.to_bits() >> 16, (value.to_bits() >> 16) + 1);
                    let to = |upper: u32| (i64::from(upper) * 0x1_0000 - i64::from(value.to_bits())).abs();
                    let nearest = match to(below).cmp(&to(above)) {
                        std::cmp::Ordering::Less => below,
                        std::cmp::Ordering::Greater => above,
                        std::cmp::Ordering::Equal => below + (below & 1),
                    };
                    assert_eq!(u32::from(bf16), nearest, "{value:e} on {isa}");
                }
            }
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
