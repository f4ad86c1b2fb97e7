//! What a sink does with the numbers of a block while they are in registers, four pixels of a row at a
//! time. Knows no convolution, and no batch.
#![allow(unsafe_code)] // images that one worker has to itself
#![allow(clippy::needless_range_loop)] // an array of lanes by value goes through memory in an iterator

use super::{
    lanes::Lanes,
    sources::{At, Line, Normal, winners},
    stored::Stored,
};

/// Floats that a block's sums need between two calls.
pub(super) const HELD: usize = 3 * 4 * 16;

/// Four chains of three sums.
#[derive(Clone, Copy)]
pub(super) struct Chains<L> {
    pub first: [L; 4],
    pub second: [L; 4],
    pub third: [L; 4],
}

impl<L: Lanes> Chains<L> {
    /// # Safety
    /// As [`Lanes::splat`].
    #[inline(always)]
    pub(super) unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        let zero = unsafe { [L::splat(0.0); 4] };
        Self { first: zero, second: zero, third: zero }
    }

    /// # Safety
    /// `held` holds [`HELD`] floats.
    #[inline(always)]
    pub(super) unsafe fn load(held: *const f32) -> Self {
        // SAFETY: the caller's promise.
        let four = |at: usize| std::array::from_fn(|i| unsafe { L::load(held.add((at * 4 + i) * 16)) });
        Self { first: four(0), second: four(1), third: four(2) }
    }

    /// # Safety
    /// `held` holds [`HELD`] floats.
    #[inline(always)]
    pub(super) unsafe fn store(self, held: *mut f32) {
        for (i, chain) in self.first.into_iter().chain(self.second).chain(self.third).enumerate() {
            // SAFETY: the caller's promise.
            unsafe { chain.store(held.add(i * 16)) }
        }
    }

    /// Adds `v` to the first sum, and `v z` to the second.
    #[inline(always)]
    fn add(&mut self, chain: usize, v: L, z: L) {
        self.first[chain] = self.first[chain].add(v);
        self.second[chain] = v.fma(z, self.second[chain]);
    }
}

/// One block of one image, and what to do with its rows.
pub(super) trait Rows<L> {
    /// Takes the first `live` of `values`, pixels (y, x..) with `chain` = y modulo 4.
    ///
    /// # Safety
    /// The pixels lie in the image; the caller has it to itself.
    unsafe fn take(
        &self,
        values: [L; 4],
        y: usize,
        x: usize,
        live: usize,
        chain: usize,
        sums: &mut Chains<L>,
    );
}

/// Work to do with a [`Rows`] of whatever kind.
pub(super) trait Visit<L: Lanes> {
    /// # Safety
    /// As [`Rows::take`].
    unsafe fn with<R: Rows<L>>(self, rows: R);
}

/// Into a map; sums of the numbers and their squares.
pub(super) struct KeepRows<S> {
    pub z: *mut S,
    pub w: usize,
}

impl<L: Lanes, S: Stored> Rows<L> for KeepRows<S> {
    #[inline(always)]
    unsafe fn take(
        &self,
        values: [L; 4],
        y: usize,
        x: usize,
        live: usize,
        chain: usize,
        sums: &mut Chains<L>,
    ) {
        // SAFETY: the caller's promise.
        let z = unsafe { self.z.add((y * self.w + x) * 16) };
        for i in 0..4 {
            let v = values[i];
            if i < live {
                // SAFETY: as above.
                let v = unsafe { S::store(v, z.add(i * 16)) };
                sums.add(chain, v, v);
            }
        }
    }
}

/// Which pixels a rectifier lets pass.
pub(super) trait Passing<L> {
    /// The lanes of pixel `at` of a block, where BatchNorm normalised `z`.
    ///
    /// # Safety
    /// The block has that pixel.
    unsafe fn lanes(&self, at: usize, z: L) -> u16;
}

/// Those whose bit is set.
pub(super) struct Bits(pub *const u16);

impl<L> Passing<L> for Bits {
    #[inline(always)]
    unsafe fn lanes(&self, at: usize, _: L) -> u16 {
        // SAFETY: the caller's promise.
        unsafe { *self.0.add(at) }
    }
}

/// Those where a line is above zero.
pub(super) struct Above<L> {
    scale: L,
    shift: L,
}

impl<L: Lanes> Above<L> {
    /// The line of block `block`.
    ///
    /// # Safety
    /// As [`Lanes::splat`]; the line has that block.
    #[inline(always)]
    pub(super) unsafe fn new(line: Line<'_>, block: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                scale: L::load(line.scale.as_ptr().add(block * 16)),
                shift: L::load(line.shift.as_ptr().add(block * 16)),
            }
        }
    }
}

impl<L: Lanes> Passing<L> for Above<L> {
    #[inline(always)]
    unsafe fn lanes(&self, _: usize, z: L) -> u16 {
        z.fma(self.scale, self.shift).positive()
    }
}

/// The way back through a rectifier.
pub(super) struct RectifierRows<P, S> {
    pub g: *mut S,
    pub add: bool,
    pub pass: P,
    pub z: *const S,
    pub side: Option<*const S>,
    pub w: usize,
}

impl<L: Lanes, P: Passing<L>, S: Stored> Rows<L> for RectifierRows<P, S> {
    #[inline(always)]
    unsafe fn take(
        &self,
        values: [L; 4],
        y: usize,
        x: usize,
        live: usize,
        chain: usize,
        sums: &mut Chains<L>,
    ) {
        let first = y * self.w + x;
        for i in 0..4 {
            let mut v = values[i];
            if i < live {
                // SAFETY: the caller's promise.
                unsafe {
                    let g = self.g.add((first + i) * 16);
                    if self.add {
                        v = v.add(S::load(g));
                    }
                    let z = S::load::<L>(self.z.add((first + i) * 16));
                    let v = S::store(v.keep(self.pass.lanes(first + i, z)), g);
                    sums.add(chain, v, z);
                    if let Some(z) = self.side {
                        sums.third[chain] = v.fma(S::load(z.add((first + i) * 16)), sums.third[chain]);
                    }
                }
            }
        }
    }
}

/// The way back through a maximum and a rectifier.
pub(super) struct PooledRows<'a, S: Stored> {
    pub g: *mut S,
    pub main: Normal<'a, S>,
    pub n: usize,
    pub block: usize,
    pub size: [usize; 2],
}

impl<L: Lanes, S: Stored> Rows<L> for PooledRows<'_, S> {
    #[inline(always)]
    unsafe fn take(
        &self,
        values: [L; 4],
        y: usize,
        x: usize,
        live: usize,
        chain: usize,
        sums: &mut Chains<L>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let (up, down) = self.main.rows::<L>(self.n, self.block, y, self.size);
            for i in 0..4 {
                let v = values[i];
                if i < live {
                    let masks = winners(&up, &down, x + i);
                    let pixels = [(&up, 0), (&up, 1), (&down, 0), (&down, 1)];
                    let (mut z, mut positive) = (L::splat(0.0), 0);
                    for (mask, (row, side)) in masks.into_iter().zip(pixels) {
                        let pixel = 2 * (x + i) + side;
                        z = z.add(S::load::<L>(row.z.add(pixel * 16)).keep(mask));
                        positive |= mask & row.value(pixel).positive();
                    }
                    let g = self.g.add((y * self.size[1] + x + i) * 16);
                    let v = S::store(v.keep(positive), g);
                    sums.add(chain, v, z);
                }
            }
        }
    }
}

/// Normalised, added and rectified at once.
pub(super) struct PredictRows<L, S> {
    pub main: At<L, S>,
    pub side: Option<At<L, S>>,
    pub x: *mut S,
    pub w: usize,
}

impl<L: Lanes, S: Stored> Rows<L> for PredictRows<L, S> {
    #[inline(always)]
    unsafe fn take(&self, values: [L; 4], y: usize, x: usize, live: usize, _: usize, _: &mut Chains<L>) {
        let first = y * self.w + x;
        for i in 0..4 {
            let v = values[i];
            if i < live {
                // SAFETY: the caller's promise.
                unsafe {
                    let mut v = v.fma(self.main.scale, self.main.shift);
                    if let Some(side) = &self.side {
                        v = v.add(side.value(first + i));
                    }
                    S::store(L::splat(0.0).max(v), self.x.add((first + i) * 16));
                }
            }
        }
    }
}
