//! 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3): 16 outputs for 36 multiplications
//! instead of 144. Filters are transformed once, and again only where they train.
//! Knows nothing of BatchNorm, threads or which layers it serves.
//!
//! A tile of 6x6 inputs becomes 36 numbers per channel; each of the 36 is then one small matrix
//! product over channels, register-blocked over several images' tiles; 36 products become 4x4
//! outputs. Lanes run over channels of the result in all three stages and every sum runs over
//! input channels in ascending order, so neither the instruction set nor the grouping of tiles
//! changes a bit.
//!
//! Layouts: input `[image][C/16][H + 2][W + 2][16]` with a border of zeros, output
//! `[image][K/16][H][W][16]`.
#![allow(unsafe_code)] // kernels on raw pointers; bounds are checked once, in `Winograd::run`
#![allow(clippy::needless_range_loop)] // tiles are transposed: one index serves two arrays

use super::{
    lanes::{Isa, Lanes},
    products::multiply_panel,
    transforms::{filter_transform, input_transform, output_transform},
};
use crate::lanes_dispatch;

/// Channels in a block.
pub(super) const LANES: usize = 16;
/// Rows and columns of a tile's outputs.
pub(super) const M: usize = 4;
/// Rows and columns of a tile's inputs.
pub(super) const N: usize = M + 2;
/// Tiles transformed before they are multiplied: the two scratch matrices stay in the L2 cache.
pub(super) const GROUP: usize = 48;
/// Tiles that fit the scratch: a kernel may compute some that nobody reads.
const ROOM: usize = GROUP;

/// Images of `size` = rows, columns that fill one group of tiles: a call is fast with a multiple of
/// that.
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
    /// `[K/w][36][C][w]` with w = [`Winograd::width`]: panels that are read once per group of tiles.
    pub(super) transformed: Vec<f32>,
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
        let transformed = vec![0.0; N * N * channels * filters];
        Self { channels, filters, size, turned: false, transformed }
    }

    /// Its data gradient: from the gradient of the K outputs to that of the C inputs, which is a
    /// convolution with the filters turned by 180 degrees and the channels exchanged.
    ///
    /// # Panics
    /// Where [`Winograd::serves`] says no.
    pub(crate) fn backward(filters: usize, channels: usize, size: [usize; 2]) -> Self {
        Self { turned: true, ..Self::forward(channels, filters, size) }
    }

    /// Transforms `weights`, `K C 3 3` of the forward convolution in both directions.
    ///
    /// # Panics
    /// Where they are not as many as that.
    pub(crate) fn set(&mut self, isa: Isa, weights: &[f32]) {
        assert_eq!(weights.len(), 9 * self.channels * self.filters, "weights do not fill their shape");
        // SAFETY: the length is checked.
        unsafe { set_in(isa, self, weights) }
    }

    /// Filters of a panel.
    pub(super) fn width(&self) -> usize {
        panel(self.filters)
    }

    /// Floats of the transformed filters.
    pub(crate) fn filters_len(&self) -> usize {
        self.transformed.len()
    }

    /// Floats of scratch memory that one thread needs.
    pub(crate) fn scratch_len(&self) -> usize {
        N * N * (stride(self.channels) + stride(self.width()))
    }

    /// Convolves `images` images into `output`, or adds the result to it; layouts as in the module's
    /// description. What `scratch` holds before does not matter. Fast where `images` is a multiple of
    /// [`chunk`].
    ///
    /// # Panics
    /// Where a slice is shorter than its layout.
    pub(crate) fn run(
        &self,
        isa: Isa,
        images: usize,
        input: &[f32],
        output: &mut [f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        let [rows, columns] = self.size;
        assert!(input.len() >= images * self.channels * (rows + 2) * (columns + 2), "input too short");
        assert!(output.len() >= images * self.filters * rows * columns, "output too short");
        assert!(scratch.len() >= self.scratch_len(), "scratch too short");
        // SAFETY: the lengths are checked.
        unsafe { convolve_in(isa, self, images, input, output, accumulate, scratch) }
    }
}

/// Floats from one tile to the next in a scratch matrix. Rows of 1024 bytes and more would compete for
/// a few sets of the L1 cache.
pub(super) fn row(channels: usize) -> usize {
    if channels < 256 { channels } else { channels + LANES }
}

/// Filters that are computed together.
pub(super) fn panel(filters: usize) -> usize {
    if filters.is_multiple_of(2 * LANES) { 2 * LANES } else { LANES }
}

/// Floats between two of the 36 scratch matrices. The extra block keeps the 36 stores of a tile
/// out of the same cache set.
pub(super) fn stride(channels: usize) -> usize {
    ROOM * row(channels) + LANES
}

/// Where a tile lies.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(crate) image: usize,
    pub(crate) y: usize,
    pub(crate) x: usize,
}

lanes_dispatch!(
    unsafe fn convolve_in(
        this: &Winograd,
        images: usize,
        input: &[f32],
        output: &mut [f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) = convolve
);

/// # Safety
/// The slices are as long as [`Winograd::run`] demands.
#[inline(always)]
unsafe fn convolve<L: Lanes>(
    this: &Winograd,
    images: usize,
    input: &[f32],
    output: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    let [rows, columns] = this.size;
    let (across, per_image) = (columns.div_ceil(M), columns.div_ceil(M) * rows.div_ceil(M));
    let (spectra, products) = scratch.split_at_mut(N * N * stride(this.channels));
    let (spectra, products) = (spectra.as_mut_ptr(), products.as_mut_ptr());
    for first in (0..images * per_image).step_by(GROUP) {
        let count = GROUP.min(images * per_image - first);
        let place = |t: usize| {
            let id = first + t;
            Place { image: id / per_image, y: id % per_image / across * M, x: id % across * M }
        };
        for t in 0..count {
            // SAFETY: a place inside the input; tile t of a group fits the scratch.
            unsafe {
                let spectra = spectra.add(t * row(this.channels));
                load_tile::<L>(this.channels, input.as_ptr(), this.size, place(t), spectra);
            }
        }
        for panel in 0..this.filters / this.width() {
            // SAFETY: the scratch holds ROOM tiles, enough for the last whole step of any kernel;
            // what lies beyond `count` is multiplied and never read.
            unsafe {
                multiply_panel::<L>(this, panel, spectra, products, count, &mut || {});
                for t in 0..count {
                    let products = products.add(t * this.width());
                    store_tile::<L>(this, panel, products, output.as_mut_ptr(), place(t), accumulate);
                }
            }
        }
    }
}

/// Transforms one tile of every channel block into `spectra[36][stride]`.
///
/// # Safety
/// `input` holds the padded image of `place`, `spectra` 36 rows.
#[inline(always)]
pub(super) unsafe fn load_tile<L: Lanes>(
    channels: usize,
    input: *const f32,
    [rows, columns]: [usize; 2],
    place: Place,
    spectra: *mut f32,
) {
    let (rows, columns) = (rows + 2, columns + 2);
    let inside = place.y + N <= rows && place.x + N <= columns;
    for block in 0..channels / LANES {
        // SAFETY: rows and columns of the padded plane are checked where the tile overhangs.
        unsafe {
            let plane = input.add((place.image * (channels / LANES) + block) * rows * columns * LANES);
            let zero = L::splat(0.0);
            let mut tile = [[zero; N]; N];
            for x in 0..N {
                let mut column = [zero; N];
                for (y, value) in column.iter_mut().enumerate() {
                    let (y, x) = (place.y + y, place.x + x);
                    if inside || (y < rows && x < columns) {
                        *value = L::load(plane.add((y * columns + x) * LANES));
                    }
                }
                let column = input_transform(column);
                for y in 0..N {
                    tile[y][x] = column[y];
                }
            }
            for (y, row) in tile.into_iter().enumerate() {
                let row = input_transform(row);
                for (x, value) in row.into_iter().enumerate() {
                    value.store(spectra.add((y * N + x) * stride(channels) + block * LANES));
                }
            }
        }
    }
}

/// Transforms one tile of a panel's filters back and writes the outputs inside the image.
///
/// # Safety
/// `products` holds 36 rows, `output` the image of `place`.
#[inline(always)]
unsafe fn store_tile<L: Lanes>(
    this: &Winograd,
    panel: usize,
    products: *const f32,
    output: *mut f32,
    place: Place,
    accumulate: bool,
) {
    let (width, [rows, columns]) = (this.width(), this.size);
    for block in 0..width / LANES {
        // SAFETY: outputs beyond the last row or column are not written.
        unsafe {
            let plane = place.image * (this.filters / LANES) + panel * width / LANES + block;
            let plane = output.add(plane * rows * columns * LANES);
            let zero = L::splat(0.0);
            let mut tile = [[zero; N]; M];
            for x in 0..N {
                let mut column = [zero; N];
                for (y, value) in column.iter_mut().enumerate() {
                    *value = L::load(products.add((y * N + x) * stride(width) + block * LANES));
                }
                let column = output_transform::<L>(column);
                for y in 0..M {
                    tile[y][x] = column[y];
                }
            }
            for (y, row) in tile.into_iter().enumerate().take(rows - place.y) {
                let row = output_transform::<L>(row);
                for (x, value) in row.into_iter().enumerate() {
                    if place.x + x < columns {
                        let to = plane.add(((place.y + y) * columns + place.x + x) * LANES);
                        if accumulate { L::load(to).add(value) } else { value }.store(to);
                    }
                }
            }
        }
    }
}

lanes_dispatch!(unsafe fn set_in(this: &mut Winograd, weights: &[f32]) = set_on);

#[inline(always)]
unsafe fn set_on<L: Lanes>(this: &mut Winograd, weights: &[f32]) {
    let (channels, filters) = (this.channels, this.filters);
    let width = this.width();
    let mut taps = [[0.0f32; LANES]; 9];
    for (k, c) in (0..filters).step_by(LANES).flat_map(|k| (0..channels).map(move |c| (k, c))) {
        for lane in 0..LANES {
            let at = if this.turned { c * filters + k + lane } else { (k + lane) * channels + c };
            for (tap, weight) in weights[at * 9..][..9].iter().enumerate() {
                taps[if this.turned { 8 - tap } else { tap }][lane] = *weight;
            }
        }
        // SAFETY: `taps` hold nine times 16 floats; the result lies inside its panel.
        unsafe {
            let panel = this.transformed[k / width * N * N * channels * width..].as_mut_ptr();
            let to = panel.add(c * width + k % width);
            let zero = L::splat(0.0);
            let mut rows = [[zero; 3]; N];
            for s in 0..3 {
                let column =
                    [L::load(taps[s].as_ptr()), L::load(taps[3 + s].as_ptr()), L::load(taps[6 + s].as_ptr())];
                let column = filter_transform(column);
                for a in 0..N {
                    rows[a][s] = column[a];
                }
            }
            for (a, row) in rows.into_iter().enumerate() {
                for (b, value) in filter_transform(row).into_iter().enumerate() {
                    value.store(to.add((a * N + b) * channels * width));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "winograd_tests.rs"]
mod tests;
