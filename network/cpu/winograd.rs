//! 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3): 16 outputs for 36 multiplications
//! instead of 144. Here are the filters; [`super::tiles`] takes images through them. Knows no images.
//!
//! Filters are transformed once, and again only where they train; those of a wide layer a panel at a
//! time, whenever a group of tiles is multiplied, because transformed they would take eight times
//! their room and come from memory for every group.
//!
//! A tile of 6x6 inputs becomes 36 numbers per channel; each of the 36 is then one small matrix
//! product over channels, register-blocked over several images' tiles; 36 products become 4x4
//! outputs. Lanes run over channels of the result in all three stages and every sum runs over
//! input channels in ascending order, so neither the instruction set nor the grouping of tiles
//! changes a bit.
#![allow(unsafe_code)] // kernels on raw pointers, whose bounds are checked where filters are set
#![allow(clippy::needless_range_loop)] // tiles are transposed: one index serves two arrays

use std::sync::Arc;

use super::{
    lanes::{Isa, Lanes, lanes_dispatch},
    transforms::filter_transform,
};

/// Channels in a block.
pub(super) const LANES: usize = 16;
/// Rows and columns of a tile's outputs.
pub(super) const M: usize = 4;
/// Rows and columns of a tile's inputs.
pub(super) const N: usize = M + 2;
/// Room for tiles that are transformed before they are multiplied: the two scratch matrices stay in the
/// L2 cache. Gradients of filters fill it, convolutions a third. A multiple of 16, 8 and 6, which kernels take
/// at a time: they compute some tiles that nobody reads.
pub(super) const GROUP: usize = 48;
/// The same in a wide layer: enough that transforming the filters costs little beside multiplying.
pub(super) const WIDE_GROUP: usize = 96;
/// Floats of a block of plain filters: 16 filters, 16 channels, nine taps.
const BLOCK: usize = 9 * LANES * LANES;

/// Images of `size` = rows, columns that fill one group of tiles: a call is fast with a multiple of
/// that, or of twice that in a wide layer.
pub(crate) fn chunk(size: [usize; 2]) -> usize {
    (GROUP / size.map(|n| n.div_ceil(M)).iter().product::<usize>()).max(1)
}

/// A 3x3 convolution of stride 1 and padding 1 with its filters transformed.
pub(crate) struct Winograd {
    pub(super) channels: usize,
    pub(super) filters: usize,
    /// Rows and columns.
    pub(super) size: [usize; 2],
    /// Does it turn the filters: is it a data gradient?
    turned: bool,
    /// Are all filters finite numbers? Then what is multiplied with a zero can be left out.
    pub(super) finite: bool,
    held: Held,
}

/// The filters between two calls.
enum Held {
    /// `[K/w][36][C][w]` with w = [`Winograd::width`]: panels that are read once per group of tiles.
    Transformed(Vec<f32>),
    /// As they are: `[K/16][C/16][9][16 c][16 k]` of the forward convolution, which both directions may
    /// share.
    Plain(Arc<Vec<f32>>),
}

impl Winograd {
    /// Does this algorithm serve a convolution? A question of shape alone, so that every machine
    /// answers alike.
    pub(crate) fn serves(channels: usize, filters: usize, kernel: usize, stride: usize) -> bool {
        kernel == 3 && stride == 1 && channels.is_multiple_of(LANES) && filters.is_multiple_of(LANES)
    }

    /// The convolution of images of `size` = rows, columns with filters in `K C 3 3` that
    /// [`Winograd::set`] gives; `filters` = K, `channels` = C.
    ///
    /// # Panics
    /// Where [`Winograd::serves`] says no.
    pub(crate) fn forward(filters: usize, channels: usize, size: [usize; 2]) -> Self {
        assert!(Self::serves(channels, filters, 3, 1), "channels come in blocks of 16");
        let held = if wide(channels, filters) {
            Held::Plain(Arc::new(vec![0.0; 9 * channels * filters]))
        } else {
            Held::Transformed(vec![0.0; N * N * channels * filters])
        };
        Self { channels, filters, size, turned: false, finite: false, held }
    }

    /// Its data gradient: from the gradient of the K outputs to that of the C inputs, which is a
    /// convolution with the filters turned by 180 degrees and the channels exchanged.
    ///
    /// # Panics
    /// Where [`Winograd::serves`] says no.
    pub(crate) fn backward(filters: usize, channels: usize, size: [usize; 2]) -> Self {
        Self { turned: true, ..Self::forward(channels, filters, size) }
    }

    /// Takes over `weights`, `K C 3 3` of the forward convolution in both directions.
    ///
    /// # Panics
    /// Where they are not as many as that.
    pub(crate) fn set(&mut self, isa: Isa, weights: &[f32]) {
        let Self { channels, filters, turned, .. } = *self;
        assert_eq!(weights.len(), 9 * channels * filters, "weights do not fill their shape");
        self.finite = weights.iter().all(|weight| weight.is_finite());
        match &mut self.held {
            // SAFETY: the lengths are those of the layouts.
            Held::Transformed(to) => unsafe { transform_in(isa, [channels, filters], turned, weights, to) },
            Held::Plain(to) => {
                let to: &mut Vec<f32> = Arc::make_mut(to);
                block(if turned { filters } else { channels }, weights, to);
            }
        }
    }

    /// The same for both directions of a convolution, which hold in common what they can.
    ///
    /// # Panics
    /// As [`Winograd::set`].
    pub(crate) fn set_both([forward, backward]: [&mut Self; 2], isa: Isa, weights: &[f32]) {
        if let Held::Plain(theirs) = &mut backward.held {
            *theirs = Arc::default(); // so that `forward` writes into what both held
            forward.set(isa, weights);
            if let Held::Plain(ours) = &forward.held {
                *theirs = ours.clone();
            }
            backward.finite = forward.finite;
        } else {
            forward.set(isa, weights);
            backward.set(isa, weights);
        }
    }

    /// Floats of the filters of both directions of a convolution.
    pub(crate) fn filters_len([forward, backward]: [&Self; 2]) -> usize {
        match [&forward.held, &backward.held] {
            [Held::Transformed(forward), Held::Transformed(backward)] => forward.len() + backward.len(),
            [Held::Plain(filters), _] | [_, Held::Plain(filters)] => filters.len(),
        }
    }

    /// Filters of a panel.
    pub(super) fn width(&self) -> usize {
        panel(self.filters)
    }

    /// Tiles in a group, at most.
    pub(super) fn group(&self) -> usize {
        if wide(self.channels, self.filters) { WIDE_GROUP } else { GROUP }
    }

    /// Floats from one to the next of the 36 matrices of transformed inputs.
    pub(super) fn spectra_stride(&self) -> usize {
        stride(self.channels, self.group())
    }

    /// Floats from one to the next of the 36 matrices of products of a panel.
    pub(super) fn products_stride(&self) -> usize {
        stride(self.width(), self.group())
    }

    /// Floats of a panel that is transformed when it is used, 0 where all are transformed already.
    pub(super) fn panel_len(&self) -> usize {
        if wide(self.channels, self.filters) { N * N * self.channels * self.width() } else { 0 }
    }

    /// Floats of scratch memory for a group of tiles.
    pub(super) fn scratch_len(&self) -> usize {
        N * N * (self.spectra_stride() + self.products_stride()) + self.panel_len()
    }

    /// The transformed filters of `panel`, `[36][C][w]`: where they lie, or now in `room`.
    ///
    /// # Safety
    /// `room` holds [`Winograd::panel_len`] floats, and stays as it is while the result is used.
    #[inline(always)]
    pub(super) unsafe fn panel<L: Lanes>(&self, panel: usize, room: *mut f32) -> *const f32 {
        match &self.held {
            Held::Transformed(all) => {
                let len = N * N * self.channels * self.width();
                all[panel * len..][..len].as_ptr()
            }
            Held::Plain(filters) => {
                // SAFETY: the caller's promise.
                unsafe { transform_panel::<L>(self, filters, panel, room) }
                room.cast_const()
            }
        }
    }
}

/// Floats from one tile to the next in a scratch matrix. Rows of 1024 bytes and more would compete for
/// a few sets of the L1 cache.
#[inline]
pub(super) fn row(channels: usize) -> usize {
    if channels < 256 { channels } else { channels + LANES }
}

/// Filters that are computed together.
#[inline]
pub(super) fn panel(filters: usize) -> usize {
    if filters.is_multiple_of(2 * LANES) { 2 * LANES } else { LANES }
}

/// Are the filters so many that they are transformed when they are used? A question of shape alone.
pub(super) fn wide(channels: usize, filters: usize) -> bool {
    channels.max(filters) > 128
}

/// Floats between two of the 36 scratch matrices of so many tiles. The extra block keeps the 36 stores of
/// a tile out of the same cache set.
#[inline]
pub(super) fn stride(channels: usize, tiles: usize) -> usize {
    tiles * row(channels) + LANES
}

lanes_dispatch!(
    unsafe fn transform_in(sizes: [usize; 2], turned: bool, weights: &[f32], to: &mut [f32]) = transform_all
);

/// All filters, `K C 3 3` of the forward convolution, to panels.
///
/// # Safety
/// Both slices are as long as `sizes` = channels, filters say.
#[inline(always)]
unsafe fn transform_all<L: Lanes>(
    [channels, filters]: [usize; 2],
    turned: bool,
    weights: &[f32],
    to: &mut [f32],
) {
    let width = panel(filters);
    let mut taps = [[0.0f32; LANES]; 9];
    for (k, c) in (0..filters).step_by(LANES).flat_map(|k| (0..channels).map(move |c| (k, c))) {
        for lane in 0..LANES {
            let at = if turned { c * filters + k + lane } else { (k + lane) * channels + c };
            for (tap, weight) in weights[at * 9..][..9].iter().enumerate() {
                taps[if turned { 8 - tap } else { tap }][lane] = *weight;
            }
        }
        // SAFETY: `taps` hold nine times 16 floats; the result lies inside its panel.
        unsafe {
            let panel = to[k / width * N * N * channels * width..].as_mut_ptr();
            transform_filters::<L>(
                taps.as_ptr().cast(),
                LANES,
                panel.add(c * width + k % width),
                channels * width,
            );
        }
    }
}

/// The filters of a panel, from blocks as [`block`] makes them, to `[36][C][w]` in `to`.
///
/// # Safety
/// `blocks` are the filters of `this`; `to` holds a panel.
#[inline(always)]
unsafe fn transform_panel<L: Lanes>(this: &Winograd, blocks: &[f32], panel: usize, to: *mut f32) {
    let Winograd { channels, filters, turned, .. } = *this;
    let width = this.width();
    let mut other_way = [0.0f32; BLOCK];
    for (k, c) in (0..width).step_by(LANES).flat_map(|k| (0..channels).step_by(LANES).map(move |c| (k, c))) {
        let (k_block, c_block) = ((panel * width + k) / LANES, c / LANES);
        let at = if turned { c_block * filters + k_block * LANES } else { k_block * channels + c };
        let block = &blocks[at / LANES * BLOCK..][..BLOCK];
        // SAFETY: sixteen rows for each tap in a block; the results lie inside the panel.
        unsafe {
            let taps = if turned {
                for tap in 0..9 {
                    let rows = block[tap * LANES * LANES..].as_ptr();
                    let columns = L::transpose(std::array::from_fn(|i| L::load(rows.add(i * LANES))));
                    let to = other_way[(8 - tap) * LANES * LANES..].as_mut_ptr();
                    for (i, column) in columns.into_iter().enumerate() {
                        column.store(to.add(i * LANES));
                    }
                }
                other_way.as_ptr()
            } else {
                block.as_ptr()
            };
            for lane in 0..LANES {
                let to = to.add((c + lane) * width + k);
                transform_filters::<L>(taps.add(lane * LANES), LANES * LANES, to, channels * width);
            }
        }
    }
}

/// Sixteen filters of one channel, whose nine taps lie `apart`, to 36 vectors `stride` apart.
///
/// # Safety
/// `taps` and `to` hold these.
#[inline(always)]
unsafe fn transform_filters<L: Lanes>(taps: *const f32, apart: usize, to: *mut f32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let tap = |t: usize| L::load(taps.add(t * apart));
        let mut rows = [[L::splat(0.0); 3]; N];
        for s in 0..3 {
            let column = filter_transform([tap(s), tap(3 + s), tap(6 + s)]);
            for a in 0..N {
                rows[a][s] = column[a];
            }
        }
        for (a, row) in rows.into_iter().enumerate() {
            for (b, value) in filter_transform(row).into_iter().enumerate() {
                value.store(to.add((a * N + b) * stride));
            }
        }
    }
}

/// Filters `K C 3 3` to blocks `[K/16][C/16][9][16 c][16 k]`.
fn block(channels: usize, weights: &[f32], to: &mut [f32]) {
    for (at, to) in to.chunks_exact_mut(BLOCK).enumerate() {
        let (k, c) = (at / (channels / LANES) * LANES, at % (channels / LANES) * LANES);
        for lane in 0..LANES {
            let filter = &weights[((k + lane) * channels + c) * 9..][..9 * LANES];
            for (i, weight) in filter.iter().enumerate() {
                to[(i % 9 * LANES + i / 9) * LANES + lane] = *weight;
            }
        }
    }
}

#[cfg(test)]
#[path = "winograd_tests.rs"]
mod tests;
