//! Filter gradients of 3x3 convolutions of stride 1 through Winograd's F(4x4, 3x3): the derivative of
//! [`super::winograd`]'s algorithm with respect to its filters, 36 multiplications for 144. Knows no
//! threads.
//!
//! A tile of 6x6 inputs and its 4x4 gradients become 36 numbers per channel and per filter; 36 small
//! matrix products over tiles add up, and only the total is brought back to 3x3. Lanes run over
//! filters; each of the 36 numbers is one chain over images, then tiles.
#![allow(unsafe_code)] // kernels on raw pointers; bounds are checked once, in `FilterGradient::add`
#![allow(clippy::needless_range_loop)] // tiles are transposed: one index serves two arrays

use super::{
    ahead::Next,
    conv::Sizes,
    lanes::{Isa, Lanes, lanes_dispatch, prefetch},
    transforms::transform,
    winograd::{GROUP, LANES, M, N, panel, row, stride},
};

/// Numbers of a sum that lie together.
const TOGETHER: usize = 256;

/// Floats of a sum, `[36][C/h][K/w][h][w]` with w = [`panel`] and h = 256 / w: what stays in
/// registers lies together.
pub(super) fn sum_len(sizes: &Sizes) -> usize {
    N * N * sizes.channels * sizes.filters
}

pub(super) fn scratch_len(sizes: &Sizes) -> usize {
    N * N * (stride(sizes.channels, GROUP) + stride(sizes.filters, GROUP))
}

/// # Safety
/// The slices hold `images` bordered images, a sum and the scratch.
pub(super) unsafe fn add(
    isa: Isa,
    sizes: &Sizes,
    images: usize,
    maps: [&[f32]; 2],
    sum: &mut [f32],
    scratch: &mut [f32],
    next: &mut Next,
) {
    let tiles = images * sizes.input.map(|n| n.div_ceil(M)).iter().product::<usize>();
    next.divide(tiles.div_ceil(GROUP) * sum_len(sizes) / TOGETHER);
    // SAFETY: the caller's promise.
    unsafe { add_in(isa, sizes, images, maps, sum, scratch, next) }
}

/// Brings a total into the order `K C 3 3`.
pub(super) fn unpack(isa: Isa, sizes: &Sizes, total: &[f32], out: &mut [f32]) {
    assert!(total.len() >= sum_len(sizes) && out.len() >= sizes.len());
    // SAFETY: the lengths are checked.
    unsafe { unpack_in(isa, sizes, total, out) }
}

/// Where a tile lies.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    y: usize,
    x: usize,
}

lanes_dispatch!(
    /// # Safety
    /// As [`add`].
    unsafe fn add_in(
        this: &Sizes,
        images: usize,
        maps: [&[f32]; 2],
        sum: &mut [f32],
        scratch: &mut [f32],
        next: &mut Next,
    ) = add_on
);

/// # Safety
/// As [`add`]; the CPU has the instruction set of `L`, and the caller is compiled for it.
#[inline(always)]
unsafe fn add_on<L: Lanes>(
    this: &Sizes,
    images: usize,
    [x, g]: [&[f32]; 2],
    sum: &mut [f32],
    scratch: &mut [f32],
    next: &mut Next,
) {
    let [rows, columns] = this.input;
    let (across, per_image) = (columns.div_ceil(M), columns.div_ceil(M) * rows.div_ceil(M));
    let (spectra, gradients) = scratch.split_at_mut(N * N * stride(this.channels, GROUP));
    let (spectra, gradients) = (spectra.as_mut_ptr(), gradients.as_mut_ptr());
    for first in (0..images * per_image).step_by(GROUP) {
        let count = GROUP.min(images * per_image - first);
        for t in 0..count {
            let id = first + t;
            let place = Place { image: id / per_image, y: id % per_image / across * M, x: id % across * M };
            // SAFETY: a place inside the images; tile t of a group fits the scratch.
            unsafe {
                load_tile::<L>(this, x.as_ptr(), place, spectra.add(t * row(this.channels)));
                load_gradient::<L>(this, g.as_ptr(), place, gradients.add(t * row(this.filters)));
            }
        }
        // SAFETY: `count` tiles were written.
        unsafe {
            let sum = sum.as_mut_ptr();
            match (L::WIDE, panel(this.filters)) {
                (true, LANES) => multiply::<L, 1, 16>(this, spectra, gradients, sum, count, next),
                (true, _) => multiply::<L, 2, 8>(this, spectra, gradients, sum, count, next),
                (false, _) => multiply::<L, 1, 4>(this, spectra, gradients, sum, count, next),
            }
        }
    }
}

/// Transforms one tile of every channel block into `spectra[36][stride]`.
///
/// # Safety
/// `input` holds the padded image of `place`, `spectra` 36 rows.
#[inline(always)]
unsafe fn load_tile<L: Lanes>(this: &Sizes, input: *const f32, place: Place, spectra: *mut f32) {
    let ([rows, columns], blocks) = (this.input.map(|n| n + 2), this.channels / LANES);
    let stride = stride(this.channels, GROUP);
    let inside = place.y + N <= rows && place.x + N <= columns;
    for block in 0..blocks {
        // SAFETY: rows and columns of the padded plane are checked where the tile overhangs.
        unsafe {
            let plane = input.add((place.image * blocks + block) * rows * columns * LANES);
            let first = plane.add((place.y * columns + place.x) * LANES);
            let out = spectra.add(block * LANES);
            if inside {
                let rows = std::array::from_fn(|y| first.add(y * columns * LANES));
                transform::<L>(rows, out, stride);
            } else {
                let mut edge = [[0.0f32; N * LANES]; N];
                for (y, row) in edge.iter_mut().enumerate().take(rows - place.y) {
                    let pixels = N.min(columns - place.x);
                    row.as_mut_ptr().copy_from_nonoverlapping(first.add(y * columns * LANES), pixels * LANES);
                }
                transform::<L>(std::array::from_fn(|y| edge[y].as_ptr()), out, stride);
            }
        }
    }
}

/// Transforms one tile's gradients of every filter block into `gradients[36][stride]`.
///
/// # Safety
/// `input` holds the bordered image of `place`, `gradients` 36 rows.
#[inline(always)]
unsafe fn load_gradient<L: Lanes>(this: &Sizes, g: *const f32, place: Place, gradients: *mut f32) {
    let ([rows, columns], blocks) = (this.input, this.filters / LANES);
    let (high, wide) = (rows.min(place.y + M) - place.y, columns.min(place.x + M) - place.x);
    for block in 0..blocks {
        // SAFETY: only pixels inside the image are read.
        unsafe {
            let plane = g.add((place.image * blocks + block) * (rows + 2) * (columns + 2) * LANES);
            let zero = L::splat(0.0);
            let mut tile = [[zero; M]; N];
            for x in 0..wide {
                let mut column = [zero; M];
                for (y, value) in column.iter_mut().enumerate().take(high) {
                    *value =
                        L::load(plane.add(((place.y + y + 1) * (columns + 2) + place.x + x + 1) * LANES));
                }
                let column = gradient_transform(column);
                for y in 0..N {
                    tile[y][x] = column[y];
                }
            }
            for (y, row) in tile.into_iter().enumerate() {
                for (x, value) in gradient_transform(row).into_iter().enumerate() {
                    value.store(gradients.add((y * N + x) * stride(this.filters, GROUP) + block * LANES));
                }
            }
        }
    }
}

/// Adds `count` tiles to the sums: `BLOCKS` blocks of filters times `CHANNELS` channels in registers.
///
/// # Safety
/// `spectra` and `gradients` hold `count` tiles, `sum` is whole; `BLOCKS` blocks divide [`panel`],
/// `CHANNELS` what lies together.
#[inline(always)]
unsafe fn multiply<L: Lanes, const BLOCKS: usize, const CHANNELS: usize>(
    this: &Sizes,
    spectra: *const f32,
    gradients: *const f32,
    sum: *mut f32,
    count: usize,
    next: &mut Next,
) {
    let (channels, filters, width) = (this.channels, this.filters, panel(this.filters));
    let (high, across) = (TOGETHER / width, filters / width);
    for i in 0..sum_len(this) / TOGETHER {
        next.fetch();
        let (point, c, k) =
            (i * TOGETHER / channels / filters, i / across % (channels / high) * high, i % across * width);
        // SAFETY: indices are below the sizes that the caller promises.
        unsafe {
            let sum = sum.add(i * TOGETHER);
            for line in (0..TOGETHER).step_by(LANES) {
                prefetch(sum.wrapping_add(TOGETHER + line));
            }
            for (c_in, k_in) in (0..high)
                .step_by(CHANNELS)
                .flat_map(|c| (0..width).step_by(BLOCKS * LANES).map(move |k| (c, k)))
            {
                let spectra = spectra.add(point * stride(channels, GROUP) + c + c_in);
                let gradients = gradients.add(point * stride(filters, GROUP) + k + k_in);
                let sum = sum.add(c_in * width + k_in);
                let zero = L::splat(0.0);
                let mut sums = [[zero; BLOCKS]; CHANNELS];
                for (c, sums) in sums.iter_mut().enumerate() {
                    for (b, held) in sums.iter_mut().enumerate() {
                        *held = L::load(sum.add(c * width + b * LANES));
                    }
                }
                for t in 0..count {
                    let mut gradient = [zero; BLOCKS];
                    for (b, gradient) in gradient.iter_mut().enumerate() {
                        *gradient = L::load(gradients.add(t * row(filters) + b * LANES));
                    }
                    for (c, sums) in sums.iter_mut().enumerate() {
                        let value = L::splat(*spectra.add(t * row(channels) + c));
                        for b in 0..BLOCKS {
                            sums[b] = value.fma(gradient[b], sums[b]);
                        }
                    }
                }
                for (c, sums) in sums.iter().enumerate() {
                    for (b, held) in sums.iter().enumerate() {
                        held.store(sum.add(c * width + b * LANES));
                    }
                }
            }
        }
    }
}

/// One dimension of the gradient's transform: the output transform, transposed.
///
/// # Safety
/// As [`Lanes::splat`].
#[inline(always)]
unsafe fn gradient_transform<L: Lanes>(g: [L; M]) -> [L; N] {
    // SAFETY: the caller's promise.
    let [two, four] = unsafe { [L::splat(2.0), L::splat(4.0)] };
    let (even, odd) = (g[0].add(g[2]), g[1].add(g[3]));
    let (far_even, far_odd) = (four.fma(g[2], g[0]), two.mul(four.fma(g[3], g[1])));
    [g[0], even.add(odd), even.sub(odd), far_even.add(far_odd), far_even.sub(far_odd), g[3]]
}

/// One dimension of the way back: the filter transform, transposed.
///
/// # Safety
/// As [`Lanes::splat`].
#[inline(always)]
unsafe fn filter_transform_back<L: Lanes>(s: [L; N]) -> [L; 3] {
    // SAFETY: the caller's promise.
    let [quarter, sixth, twelfth, twenty_fourth] =
        unsafe { [L::splat(0.25), L::splat(1.0 / 6.0), L::splat(1.0 / 12.0), L::splat(1.0 / 24.0)] };
    let (near_sum, near_gap) = (s[1].add(s[2]), s[2].sub(s[1]));
    let (far_sum, far_gap) = (s[3].add(s[4]), s[3].sub(s[4]));
    [
        quarter.fma(s[0], twenty_fourth.mul(far_sum)).sub(sixth.mul(near_sum)),
        twelfth.fma(far_gap, sixth.mul(near_gap)),
        sixth.fma(far_sum.sub(near_sum), s[5]),
    ]
}

lanes_dispatch!(
    /// # Safety
    /// As [`unpack_on`], on any CPU.
    unsafe fn unpack_in(this: &Sizes, total: &[f32], out: &mut [f32]) = unpack_on
);

/// # Safety
/// `total` has as many numbers as a sum, and `out` has room for all weights. The CPU has the instruction set of `L`, and
/// the caller is compiled for it.
#[inline(always)]
unsafe fn unpack_on<L: Lanes>(this: &Sizes, total: &[f32], out: &mut [f32]) {
    let (channels, filters, width) = (this.channels, this.filters, panel(this.filters));
    let (high, across) = (TOGETHER / width, filters / width);
    for (c, k) in (0..channels).flat_map(|c| (0..filters).step_by(LANES).map(move |k| (c, k))) {
        // SAFETY: the caller checked both lengths.
        unsafe {
            let zero = L::splat(0.0);
            let mut tile = [[zero; N]; 3];
            for x in 0..N {
                let mut column = [zero; N];
                for (y, value) in column.iter_mut().enumerate() {
                    let place = c / high * across + k / width;
                    let inside = c % high * width + k % width;
                    let point = (y * N + x) * channels * filters;
                    *value = L::load(total.as_ptr().add(point + place * TOGETHER + inside));
                }
                for (y, value) in filter_transform_back(column).into_iter().enumerate() {
                    tile[y][x] = value;
                }
            }
            let mut weights = [[0.0f32; LANES]; 9];
            for (y, row) in tile.into_iter().enumerate() {
                for (x, value) in filter_transform_back(row).into_iter().enumerate() {
                    value.store(weights[y * 3 + x].as_mut_ptr());
                }
            }
            for lane in 0..LANES {
                for (tap, weights) in weights.iter().enumerate() {
                    out[((k + lane) * channels + c) * 9 + tap] = weights[lane];
                }
            }
        }
    }
}
