//! What becomes of a convolution's outputs while they are in registers: kept and summed for
//! BatchNorm; on the way back rectified, added to a shortcut's gradient and summed; for prediction
//! normalised at once. Knows no convolution.
//!
//! Channel sums of an image are specified as four chains, rows modulo 4, each along its rows in
//! reading order, added as (0 + 1) + (2 + 3).
#![allow(unsafe_code)] // images that one worker has to itself
#![allow(clippy::needless_range_loop)] // an array of lanes by value goes through memory in an iterator

use super::{
    buffers::Images,
    lanes::Lanes,
    sources::{At, Line, Normal, Side, winners},
};

/// Which elements of a gradient pass a rectifier.
#[derive(Clone, Copy)]
pub enum Pass<'a> {
    /// Those whose bit is set.
    Bits(&'a Images<u16>),
    /// Those where the line through z is above zero.
    Above(Line<'a>),
}

/// Sums per channel of each image: C of one thing, then C of another.
pub type Sums<'a> = &'a Images<f32>;

/// Where outputs `[C/16][H][W][16]` go.
#[derive(Clone, Copy)]
pub enum Sink<'a> {
    /// Into `z`; sums of z and its squares.
    Keep {
        /// The outputs.
        z: &'a Images<f32>,
        /// Two per channel.
        sums: Sums<'a>,
    },
    /// The gradient of a rectified map, made the gradient of what was rectified: into `g`; sums of
    /// g and g z.
    Rectifier {
        /// The gradient; before, with `add`, what a shortcut brings.
        g: &'a Images<f32>,
        /// Add what `g` holds.
        add: bool,
        /// The rectifier.
        pass: Pass<'a>,
        /// What BatchNorm normalised.
        z: &'a Images<f32>,
        /// Two per channel.
        sums: Sums<'a>,
        /// The same two sums for a projection that was added.
        side: Option<(&'a Images<f32>, Sums<'a>)>,
    },
    /// The same for the maximum of each 2x2 of a rectified map, zero where that is not above zero;
    /// sums over the pixels that were the maximum.
    Pooled {
        /// The gradient of the maximum.
        g: &'a Images<f32>,
        /// What was normalised, rectified and pooled; twice the rows and columns.
        main: Normal<'a>,
        /// Two per channel.
        sums: Sums<'a>,
    },
    /// relu(line(output) + side) into `x`.
    Predict {
        /// The BatchNorm.
        line: Line<'a>,
        /// The shortcut; `z` of a projection holds its outputs.
        side: Side<'a>,
        /// The result; may be the side's.
        x: &'a Images<f32>,
    },
}

/// Floats that a block's sums need between two calls.
pub const HELD: usize = 3 * 4 * 16;

/// Four chains of three sums.
#[derive(Clone, Copy)]
pub(super) struct Chains<L> {
    first: [L; 4],
    second: [L; 4],
    third: [L; 4],
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
}

/// Writes two sums of a block of image `n`.
///
/// # Safety
/// `sums` holds them, and the caller has image `n` to itself.
#[inline(always)]
unsafe fn total<L: Lanes>(sums: Sums<'_>, n: usize, block: usize, first: [L; 4], second: [L; 4]) {
    for (i, [a, b, c, d]) in [first, second].into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { a.add(b).add(c.add(d)).store(sums.ptr(n).add(i * sums.size() / 2 + block * 16)) }
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

impl Sink<'_> {
    /// Panics unless all parts hold images of `blocks` blocks of 16 channels and `size` rows and
    /// columns: a bug of the caller.
    pub fn check(&self, blocks: usize, [h, w]: [usize; 2]) {
        let (len, channels) = (blocks * h * w * 16, blocks * 16);
        let line = |line: &Line<'_>| line.scale.len() == channels && line.shift.len() == channels;
        let summed = |sums: &Sums<'_>| sums.size() == 2 * channels;
        assert!(match self {
            Sink::Keep { z, sums } => z.size() == len && summed(sums),
            Sink::Rectifier { g, pass, z, sums, side, .. } => {
                g.size() == len
                    && z.size() == len
                    && summed(sums)
                    && side.is_none_or(|(z, sums)| z.size() == len && summed(&sums))
                    && match pass {
                        Pass::Bits(mask) => mask.size() * 16 == len,
                        Pass::Above(above) => line(above),
                    }
            }
            Sink::Pooled { g, main, sums } => {
                g.size() == len && main.z.size() == 4 * len && line(&main.line) && summed(sums)
            }
            Sink::Predict { line: own, side, x } => {
                x.size() == len
                    && line(own)
                    && match side {
                        Side::None => true,
                        Side::Identity(x) => x.size() == len,
                        Side::Projection(p) => p.z.size() == len && line(&p.line),
                    }
            }
        });
    }

    /// The maps that [`Rows::take`] reads and writes, those of other sizes left out.
    pub(super) fn parts(&self) -> [Option<&Images<f32>>; 3] {
        match self {
            Sink::Keep { z, .. } => [Some(z), None, None],
            Sink::Rectifier { g, z, side, .. } => [Some(g), Some(z), side.map(|(z, _)| z)],
            Sink::Pooled { g, .. } => [Some(g), None, None],
            Sink::Predict { x, side, .. } => [Some(x), side.map(), None],
        }
    }

    /// Gives `visit` the rows of block `block` of image `n`.
    ///
    /// # Safety
    /// [`Sink::check`] passed for this size; the block exists; the caller has image `n` of every
    /// part to itself.
    #[inline(always)]
    pub(super) unsafe fn open<L: Lanes>(
        &self,
        n: usize,
        block: usize,
        [h, w]: [usize; 2],
        visit: impl Visit<L>,
    ) {
        let plane = block * h * w;
        // SAFETY: all parts hold the block, by the caller's promise.
        unsafe {
            match *self {
                Sink::Keep { z, .. } => visit.with(KeepRows { z: z.ptr(n).add(plane * 16), w }),
                Sink::Rectifier { g, add, pass, z, side, .. } => {
                    let g = g.ptr(n).add(plane * 16);
                    match pass {
                        Pass::Above(line) => {
                            let main = Normal { z, line }.at::<L>(n, block, plane);
                            visit.with(AboveRows { g, add, main, w });
                        }
                        Pass::Bits(mask) => {
                            let mask = mask.ptr(n).add(plane).cast_const();
                            let z = z.ptr(n).add(plane * 16).cast_const();
                            let side = side.map(|(z, _)| z.ptr(n).add(plane * 16).cast_const());
                            visit.with(BitsRows { g, add, mask, z, side, w });
                        }
                    }
                }
                Sink::Pooled { g, main, .. } => {
                    let g = g.ptr(n).add(plane * 16);
                    visit.with(PooledRows { g, main, n, block, size: [h, w] });
                }
                Sink::Predict { line, side, x } => {
                    let main = Normal { z: x, line }.at::<L>(n, block, plane);
                    let side = match side {
                        Side::None => None,
                        Side::Identity(x) => Some(At::identity(x.ptr(n).add(plane * 16))),
                        Side::Projection(p) => Some(p.at::<L>(n, block, plane)),
                    };
                    visit.with(PredictRows { main, side, x: x.ptr(n).add(plane * 16), w });
                }
            }
        }
    }

    /// Writes the sums of block `block` of image `n`, all of whose rows were taken.
    ///
    /// # Safety
    /// As [`Sink::open`].
    #[inline(always)]
    pub(super) unsafe fn close<L: Lanes>(&self, n: usize, block: usize, chains: &Chains<L>) {
        // SAFETY: the sums hold two per channel, by the caller's promise.
        unsafe {
            match *self {
                Sink::Keep { sums, .. } | Sink::Pooled { sums, .. } => {
                    total(sums, n, block, chains.first, chains.second);
                }
                Sink::Rectifier { sums, side, .. } => {
                    total(sums, n, block, chains.first, chains.second);
                    if let Some((_, sums)) = side {
                        total(sums, n, block, chains.first, chains.third);
                    }
                }
                Sink::Predict { .. } => {}
            }
        }
    }
}

struct KeepRows {
    z: *mut f32,
    w: usize,
}

impl<L: Lanes> Rows<L> for KeepRows {
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
                unsafe { v.store(z.add(i * 16)) };
                sums.first[chain] = sums.first[chain].add(v);
                sums.second[chain] = v.fma(v, sums.second[chain]);
            }
        }
    }
}

struct AboveRows<L> {
    g: *mut f32,
    add: bool,
    main: At<L>,
    w: usize,
}

impl<L: Lanes> Rows<L> for AboveRows<L> {
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
                        v = v.add(L::load(g));
                    }
                    let z = L::load(self.main.z.add((first + i) * 16));
                    let v = v.keep(z.fma(self.main.scale, self.main.shift).positive());
                    v.store(g);
                    sums.first[chain] = sums.first[chain].add(v);
                    sums.second[chain] = v.fma(z, sums.second[chain]);
                }
            }
        }
    }
}

struct BitsRows {
    g: *mut f32,
    add: bool,
    mask: *const u16,
    z: *const f32,
    side: Option<*const f32>,
    w: usize,
}

impl<L: Lanes> Rows<L> for BitsRows {
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
                        v = v.add(L::load(g));
                    }
                    let v = v.keep(*self.mask.add(first + i));
                    v.store(g);
                    sums.first[chain] = sums.first[chain].add(v);
                    sums.second[chain] = v.fma(L::load(self.z.add((first + i) * 16)), sums.second[chain]);
                    if let Some(z) = self.side {
                        sums.third[chain] = v.fma(L::load(z.add((first + i) * 16)), sums.third[chain]);
                    }
                }
            }
        }
    }
}

struct PooledRows<'a> {
    g: *mut f32,
    main: Normal<'a>,
    n: usize,
    block: usize,
    size: [usize; 2],
}

impl<L: Lanes> Rows<L> for PooledRows<'_> {
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
                        z = z.add(L::load(row.z.add(pixel * 16)).keep(mask));
                        positive |= mask & row.value(pixel).positive();
                    }
                    let v = v.keep(positive);
                    v.store(self.g.add((y * self.size[1] + x + i) * 16));
                    sums.first[chain] = sums.first[chain].add(v);
                    sums.second[chain] = v.fma(z, sums.second[chain]);
                }
            }
        }
    }
}

struct PredictRows<L> {
    main: At<L>,
    side: Option<At<L>>,
    x: *mut f32,
    w: usize,
}

impl<L: Lanes> Rows<L> for PredictRows<L> {
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
                    L::splat(0.0).max(v).store(self.x.add((first + i) * 16));
                }
            }
        }
    }
}
