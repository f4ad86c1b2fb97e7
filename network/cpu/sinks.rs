//! What becomes of a convolution's outputs while they are in registers: kept and summed for
//! BatchNorm; on the way back rectified, added to a shortcut's gradient and summed; for prediction
//! normalised at once. What is done with the numbers themselves: `sink_rows`. Knows no
//! convolution.
//!
//! Channel sums of an image are sums of what was written, that is, rounded. They are specified as four
//! chains, rows modulo 4, each along its rows in reading order, added as (0 + 1) + (2 + 3).
#![allow(unsafe_code)] // images that one worker has to itself

use super::{
    buffers::Images,
    lanes::Lanes,
    sink_rows::{Above, Bits, Chains, KeepRows, PooledRows, PredictRows, RectifierRows, Visit},
    sources::{At, Line, Normal, Side},
    stored::Stored,
};

/// Which elements of a gradient pass a rectifier.
#[derive(Clone, Copy)]
pub(crate) enum Gate<'a> {
    /// Those whose bit is set.
    Bits(&'a Images<u16>),
    /// Those where the line through z is above zero.
    Above(Line<'a>),
}

/// Sums per channel of each image: C of one thing, then C of another.
pub(crate) type Sums<'a> = &'a Images<f32>;

/// Where outputs `[C/16][H][W][16]` go.
#[derive(Clone, Copy)]
pub(crate) enum Sink<'a, S: Stored> {
    /// Into `z`; sums of z and its squares.
    Keep {
        /// The outputs.
        z: &'a Images<S>,
        /// Two per channel, where they are wanted.
        sums: Option<Sums<'a>>,
    },
    /// The gradient of a rectified map, made the gradient of what was rectified: into `g`; sums of
    /// g and g z.
    Rectifier {
        /// The gradient; before, with `add`, what a shortcut brings.
        g: &'a Images<S>,
        /// Add what `g` holds.
        add: bool,
        /// The rectifier.
        gate: Gate<'a>,
        /// What BatchNorm normalised.
        z: &'a Images<S>,
        /// Two per channel.
        sums: Sums<'a>,
        /// The same two sums for a projection that was added.
        side: Option<(&'a Images<S>, Sums<'a>)>,
    },
    /// The same for the maximum of each 2x2 of a rectified map, zero where that is not above zero;
    /// sums over the pixels that were the maximum.
    Pooled {
        /// The gradient of the maximum.
        g: &'a Images<S>,
        /// What was normalised, rectified and pooled; twice the rows and columns.
        main: Normal<'a, S>,
        /// Two per channel.
        sums: Sums<'a>,
    },
    /// relu(line(output) + side) into `x`.
    Predict {
        /// The BatchNorm.
        line: Line<'a>,
        /// The shortcut; `z` of a projection holds its outputs.
        side: Side<'a, S>,
        /// The result; may be the side's.
        x: &'a Images<S>,
    },
}

impl<S: Stored> Sink<'_, S> {
    /// Panics unless all parts hold images of `blocks` blocks of 16 channels and `size` rows and
    /// columns: a bug of the caller.
    pub(crate) fn check(&self, blocks: usize, [h, w]: [usize; 2]) {
        let (len, channels) = (blocks * h * w * 16, blocks * 16);
        let line = |line: &Line<'_>| line.scale.len() == channels && line.shift.len() == channels;
        let summed = |sums: &Sums<'_>| sums.size() == 2 * channels;
        assert!(match self {
            Sink::Keep { z, sums } => z.size() == len && sums.as_ref().is_none_or(summed),
            Sink::Rectifier { g, gate, z, sums, side, .. } => {
                g.size() == len
                    && z.size() == len
                    && summed(sums)
                    && side.is_none_or(|(z, sums)| z.size() == len && summed(&sums))
                    && match gate {
                        Gate::Bits(mask) => mask.size() * 16 == len,
                        // Its line is of `z` alone: what was rectified with a side has bits.
                        Gate::Above(above) => line(above) && side.is_none(),
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
    pub(super) fn parts(&self) -> [Option<&Images<S>>; 3] {
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
                Sink::Rectifier { g, add, gate, z, side, .. } => {
                    let (g, z) = (g.ptr(n).add(plane * 16), z.ptr(n).add(plane * 16).cast_const());
                    match gate {
                        Gate::Above(line) => {
                            let pass = Above::<L>::new(line, block);
                            visit.with(RectifierRows { g, add, pass, z, side: None, w });
                        }
                        Gate::Bits(mask) => {
                            let pass = Bits(mask.ptr(n).add(plane).cast_const());
                            let side = side.map(|(z, _)| z.ptr(n).add(plane * 16).cast_const());
                            visit.with(RectifierRows { g, add, pass, z, side, w });
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
                        Side::Identity(x) => Some(At::<L, S>::identity(x.ptr(n).add(plane * 16))),
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
                Sink::Keep { sums: Some(sums), .. } | Sink::Pooled { sums, .. } => {
                    total(sums, n, block, chains.first, chains.second);
                }
                Sink::Rectifier { sums, side, .. } => {
                    total(sums, n, block, chains.first, chains.second);
                    if let Some((_, sums)) = side {
                        total(sums, n, block, chains.first, chains.third);
                    }
                }
                Sink::Keep { sums: None, .. } | Sink::Predict { .. } => {}
            }
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
