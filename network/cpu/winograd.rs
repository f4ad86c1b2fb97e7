//! 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3): 16 outputs for 36 multiplications
//! instead of 144. The filters never change during training, so they are transformed once.
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

use super::lanes::{Isa, Lanes};
use crate::lanes_dispatch;

/// Channels in a block.
pub(super) const LANES: usize = 16;
/// Rows and columns of a tile's outputs.
pub(super) const M: usize = 4;
/// Rows and columns of a tile's inputs.
pub(super) const N: usize = M + 2;
/// Tiles transformed before they are multiplied: the two scratch matrices stay in the L2 cache.
/// A multiple of every kernel's number of tiles (6, 8 and 12).
pub(super) const GROUP: usize = 48;

/// The filter transform, for the points 0, 1, -1, 2, -2 and infinity.
const G: [[f64; 3]; N] = [
    [0.25, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Images of `size` = rows, columns that fill one group of tiles: a call is fast with a multiple of
/// that.
pub fn chunk(size: [usize; 2]) -> usize {
    (GROUP / size.map(|n| n.div_ceil(M)).iter().product::<usize>()).max(1)
}

/// A 3x3 convolution of stride 1 and padding 1 with its filters transformed.
pub struct Winograd {
    channels: usize,
    filters: usize,
    /// Rows and columns.
    size: [usize; 2],
    /// `[36][channels][filters]`
    transformed: Vec<f32>,
}

impl Winograd {
    /// Does this algorithm serve a convolution? A question of shape alone, so that every machine
    /// answers alike.
    pub fn serves(channels: usize, filters: usize, kernel: usize, stride: usize) -> bool {
        kernel == 3 && stride == 1 && channels.is_multiple_of(LANES) && filters.is_multiple_of(LANES)
    }

    /// The convolution of images of `size` = rows, columns with `weights` in `K C 3 3`, `filters` = K,
    /// `channels` = C.
    pub fn forward(weights: &[f32], filters: usize, channels: usize, size: [usize; 2]) -> Self {
        Self::transform(filters, channels, size, |k, c, tap| weights[(k * channels + c) * 9 + tap])
    }

    /// Its data gradient: from the gradient of the K outputs to that of the C inputs, which is a
    /// convolution with the filters turned by 180 degrees and the channels exchanged.
    pub fn backward(weights: &[f32], filters: usize, channels: usize, size: [usize; 2]) -> Self {
        Self::transform(channels, filters, size, |c, k, tap| weights[(k * channels + c) * 9 + 8 - tap])
    }

    fn transform(
        filters: usize,
        channels: usize,
        size: [usize; 2],
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        assert!(Self::serves(channels, filters, 3, 1), "channels come in blocks of 16");
        let mut transformed = vec![0.0; N * N * channels * filters];
        for k in 0..filters {
            for c in 0..channels {
                for (a, rows) in G.iter().enumerate() {
                    for (b, columns) in G.iter().enumerate() {
                        let mut sum = 0.0f64;
                        for (r, row) in rows.iter().enumerate() {
                            for (s, column) in columns.iter().enumerate() {
                                sum += row * f64::from(weight(k, c, r * 3 + s)) * column;
                            }
                        }
                        transformed[((a * N + b) * channels + c) * filters + k] = sum as f32;
                    }
                }
            }
        }
        Self { channels, filters, size, transformed }
    }

    /// Floats of scratch memory that one thread needs.
    pub fn scratch_len(&self) -> usize {
        N * N * (stride(self.channels) + stride(self.filters))
    }

    /// Convolves `images` images into `output`, or adds the result to it; layouts as in the module's
    /// description. What `scratch` holds before does not matter.
    ///
    /// # Panics
    /// Where a slice is shorter than its layout.
    pub fn run(
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
        unsafe { convolve_on(isa, self, images, input, output, accumulate, scratch) }
    }
}

/// Floats between two of the 36 scratch matrices. The extra block keeps the 36 stores of a tile
/// out of the same cache set.
pub(super) fn stride(channels: usize) -> usize {
    GROUP * channels + LANES
}

lanes_dispatch!(
    unsafe fn convolve_on(
        this: &Winograd,
        images: usize,
        input: &[f32],
        output: &mut [f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) = convolve
);

/// Where a tile lies.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub image: usize,
    pub y: usize,
    pub x: usize,
}

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
        for t in 0..count {
            let id = first + t;
            let place = Place { image: id / per_image, y: id % per_image / across * M, x: id % across * M };
            // SAFETY: a place inside the input; tile t of a group fits the scratch.
            unsafe {
                load_tile::<L>(
                    this.channels,
                    input.as_ptr(),
                    this.size,
                    place,
                    spectra.add(t * this.channels),
                )
            }
        }
        // SAFETY: the scratch holds GROUP tiles, a multiple of every kernel's tiles; what lies
        // beyond `count` is multiplied and never read.
        unsafe {
            match (L::WIDE, this.filters.is_multiple_of(2 * LANES)) {
                (true, true) => multiply::<L, 2, 8>(this, spectra, products, count),
                (true, false) => multiply::<L, 1, 12>(this, spectra, products, count),
                (false, _) => multiply::<L, 1, 6>(this, spectra, products, count),
            }
        }
        for t in 0..count {
            let id = first + t;
            let place = Place { image: id / per_image, y: id % per_image / across * M, x: id % across * M };
            // SAFETY: as above, for the output.
            unsafe {
                let products = products.add(t * this.filters);
                store_tile::<L>(this, products, output.as_mut_ptr(), place, accumulate)
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

/// The 36 matrix products: `TILES` tiles times `BLOCKS` blocks of filters in registers.
///
/// # Safety
/// `spectra` and `products` hold GROUP tiles; `BLOCKS` divides the filter blocks, `TILES` GROUP.
#[inline(always)]
unsafe fn multiply<L: Lanes, const BLOCKS: usize, const TILES: usize>(
    this: &Winograd,
    spectra: *const f32,
    products: *mut f32,
    count: usize,
) {
    let (channels, filters) = (this.channels, this.filters);
    for point in 0..N * N {
        for t in (0..count).step_by(TILES) {
            for block in (0..filters / LANES).step_by(BLOCKS) {
                // SAFETY: indices are below the sizes that the caller promises.
                unsafe {
                    let weights = this.transformed.as_ptr().add(point * channels * filters + block * LANES);
                    let spectra = spectra.add(point * stride(channels) + t * channels);
                    let products = products.add(point * stride(filters) + t * filters + block * LANES);
                    let zero = L::splat(0.0);
                    let mut sums = [[zero; BLOCKS]; TILES];
                    for c in 0..channels {
                        let mut weight = [zero; BLOCKS];
                        for (b, weight) in weight.iter_mut().enumerate() {
                            *weight = L::load(weights.add(c * filters + b * LANES));
                        }
                        for (t, sums) in sums.iter_mut().enumerate() {
                            let value = L::splat(*spectra.add(t * channels + c));
                            for b in 0..BLOCKS {
                                sums[b] = value.fma(weight[b], sums[b]);
                            }
                        }
                    }
                    for (t, sums) in sums.into_iter().enumerate() {
                        for (b, sum) in sums.into_iter().enumerate() {
                            sum.store(products.add(t * filters + b * LANES));
                        }
                    }
                }
            }
        }
    }
}

/// Transforms one tile of every filter block back and writes the outputs inside the image.
///
/// # Safety
/// `products` holds 36 rows, `output` the image of `place`.
#[inline(always)]
unsafe fn store_tile<L: Lanes>(
    this: &Winograd,
    products: *const f32,
    output: *mut f32,
    place: Place,
    accumulate: bool,
) {
    let (filters, [rows, columns]) = (this.filters, this.size);
    for block in 0..filters / LANES {
        // SAFETY: outputs beyond the last row or column are not written.
        unsafe {
            let plane = output.add((place.image * (filters / LANES) + block) * rows * columns * LANES);
            let zero = L::splat(0.0);
            let mut tile = [[zero; N]; M];
            for x in 0..N {
                let mut column = [zero; N];
                for (y, value) in column.iter_mut().enumerate() {
                    *value = L::load(products.add((y * N + x) * stride(filters) + block * LANES));
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

/// One dimension of the input transform (B transposed), with its common terms shared.
///
/// # Safety
/// As [`Lanes::splat`].
#[inline(always)]
unsafe fn input_transform<L: Lanes>(d: [L; N]) -> [L; N] {
    // SAFETY: the caller's promise.
    let [two, four, minus_two, minus_four, minus_five] =
        unsafe { [L::splat(2.0), L::splat(4.0), L::splat(-2.0), L::splat(-4.0), L::splat(-5.0)] };
    let (even, odd) = (minus_four.fma(d[2], d[4]), minus_four.fma(d[1], d[3]));
    let (far_even, far_odd) = (d[4].sub(d[2]), d[3].sub(d[1]));
    [
        four.fma(d[0], minus_five.fma(d[2], d[4])),
        even.add(odd),
        even.sub(odd),
        two.fma(far_odd, far_even),
        minus_two.fma(far_odd, far_even),
        four.fma(d[1], minus_five.fma(d[3], d[5])),
    ]
}

/// One dimension of the output transform (A transposed).
///
/// # Safety
/// As [`Lanes::splat`].
#[inline(always)]
unsafe fn output_transform<L: Lanes>(m: [L; N]) -> [L; M] {
    // SAFETY: the caller's promise.
    let [two, four, eight] = unsafe { [L::splat(2.0), L::splat(4.0), L::splat(8.0)] };
    let (near_sum, near_gap) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (far_sum, far_gap) = (m[3].add(m[4]), m[3].sub(m[4]));
    [
        m[0].add(near_sum).add(far_sum),
        two.fma(far_gap, near_gap),
        four.fma(far_sum, near_sum),
        eight.fma(far_gap, near_gap).add(m[5]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    struct Case {
        images: usize,
        channels: usize,
        filters: usize,
        rows: usize,
        columns: usize,
    }

    /// `[image][channel][row][column]` to the blocked layout with a border of `pad` zeros.
    fn blocked(
        values: &[f32],
        images: usize,
        channels: usize,
        [rows, columns]: [usize; 2],
        pad: usize,
    ) -> Vec<f32> {
        let (high, wide) = (rows + 2 * pad, columns + 2 * pad);
        let mut out = vec![0.0; images * channels * high * wide];
        for (i, &value) in values.iter().enumerate() {
            let (x, y, plane) = (i % columns, i / columns % rows, i / columns / rows);
            let (block, lane) = (plane / LANES, plane % LANES); // images are whole blocks
            out[((block * high + y + pad) * wide + x + pad) * LANES + lane] = value;
        }
        out
    }

    fn naive(case: &Case, input: &[f32], weight: impl Fn(usize, usize, usize) -> f32) -> Vec<f64> {
        let Case { images, channels, filters, rows, columns } = *case;
        let mut out = Vec::new();
        for n in 0..images {
            for k in 0..filters {
                for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
                    let mut sum = 0.0;
                    for c in 0..channels {
                        for tap in 0..9 {
                            let (y, x) = ((y + tap / 3).wrapping_sub(1), (x + tap % 3).wrapping_sub(1));
                            if y < rows && x < columns {
                                let value = input[((n * channels + c) * rows + y) * columns + x];
                                sum += f64::from(value) * f64::from(weight(k, c, tap));
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
        out
    }

    /// Within 3e-6 of the outputs' root mean square on average and 3e-5 at worst: about five times
    /// the error of a direct f32 convolution.
    fn check(case: &Case, conv: &Winograd, input: &[f32], expected: &[f64]) {
        let Case { images, channels, filters, rows, columns } = *case;
        let size = [rows, columns];
        let padded = blocked(input, images, channels, size, 1);
        let as_f32: Vec<f32> = expected.iter().map(|&x| x as f32).collect();
        let wanted = blocked(&as_f32, images, filters, size, 0);
        let mut first: Option<Vec<f32>> = None;
        for isa in Isa::all() {
            let mut output = vec![f32::NAN; wanted.len()];
            let mut scratch = vec![f32::NAN; conv.scratch_len()];
            conv.run(isa, images, &padded, &mut output, false, &mut scratch);
            let mut twice = output.clone();
            conv.run(isa, images, &padded, &mut twice, true, &mut scratch);
            assert!(twice.iter().zip(&output).all(|(a, b)| a.to_bits() == (b + b).to_bits()), "accumulate");
            let mean = |squares: f64| (squares / wanted.len() as f64).sqrt();
            let scale = mean(wanted.iter().map(|&x| f64::from(x).powi(2)).sum());
            let errors: Vec<f64> = output.iter().zip(&wanted).map(|(a, b)| f64::from(a - b).abs()).collect();
            let typical = mean(errors.iter().map(|e| e * e).sum());
            assert!(typical < 3e-6 * scale, "{isa} {size:?}: {typical:e} of {scale:e}");
            assert!(errors.iter().all(|&e| e < 3e-5 * scale), "{isa} {size:?}");
            let first = first.get_or_insert_with(|| output.clone());
            assert!(first.iter().zip(&output).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa} differs");
        }
    }

    #[test]
    fn it_is_the_convolution_and_its_data_gradient_at_awkward_sizes_with_equal_bits_on_all_instruction_sets()
    {
        for (images, channels, filters, rows, columns) in [
            (1, 16, 16, 1, 1),
            (3, 16, 32, 3, 5),
            (7, 32, 16, 8, 8),
            (2, 32, 48, 7, 9),
            (14, 64, 64, 4, 4),
            (1, 32, 32, 16, 16),
            (2, 16, 16, 32, 30),
        ] {
            let case = Case { images, channels, filters, rows, columns };
            let mut stream = rng::stream(7, "winograd");
            let mut draw = |n: usize| (0..n).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
            let input = draw(images * channels * rows * columns);
            let weights = draw(filters * channels * 9);
            let expected = naive(&case, &input, |k, c, tap| weights[(k * channels + c) * 9 + tap]);
            check(&case, &Winograd::forward(&weights, filters, channels, [rows, columns]), &input, &expected);
            // The gradient with respect to an input is the sum over all outputs it reached.
            let gradient = draw(images * filters * rows * columns);
            let swapped = Case { channels: filters, filters: channels, ..case };
            let expected = scattered(&case, &gradient, &weights);
            check(
                &swapped,
                &Winograd::backward(&weights, filters, channels, [rows, columns]),
                &gradient,
                &expected,
            );
        }
    }

    fn scattered(case: &Case, gradient: &[f32], weights: &[f32]) -> Vec<f64> {
        let Case { images, channels, filters, rows, columns } = *case;
        let mut out = vec![0.0; images * channels * rows * columns];
        for (i, &g) in gradient.iter().enumerate() {
            let (x, y, k, n) =
                (i % columns, i / columns % rows, i / columns / rows % filters, i / columns / rows / filters);
            for (c, tap) in (0..channels).flat_map(|c| (0..9).map(move |tap| (c, tap))) {
                let (y, x) = ((y + tap / 3).wrapping_sub(1), (x + tap % 3).wrapping_sub(1));
                if y < rows && x < columns {
                    out[((n * channels + c) * rows + y) * columns + x] +=
                        f64::from(g) * f64::from(weights[(k * channels + c) * 9 + tap]);
                }
            }
        }
        out
    }

    #[test]
    fn splitting_a_batch_changes_no_bit() {
        let mut stream = rng::stream(8, "winograd");
        let mut draw = |n: usize| (0..n).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
        let (images, channels, size) = (9, 32, [8, 8]);
        let conv = Winograd::forward(&draw(channels * channels * 9), channels, channels, size);
        let input = draw(images * channels * 100);
        let isa = Isa::all()[0];
        let mut scratch = vec![0.0; conv.scratch_len()];
        let mut whole = vec![0.0; images * channels * 64];
        conv.run(isa, images, &input, &mut whole, false, &mut scratch);
        let mut parts = vec![0.0; whole.len()];
        for (input, output) in input.chunks(4 * channels * 100).zip(parts.chunks_mut(4 * channels * 64)) {
            conv.run(isa, output.len() / (channels * 64), input, output, false, &mut scratch);
        }
        assert!(whole.iter().zip(&parts).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}
