//! Winograd's 36 small matrix products over channels, in registers. Knows no images.
#![allow(unsafe_code)] // kernels on raw pointers, whose bounds the callers checked

use super::{
    lanes::Lanes,
    winograd::{LANES, N, Winograd, row},
};

/// The 36 matrix products of the first `count` tiles and a panel of filters, `[36][C][w]`; `meanwhile` is
/// called 36 times, evenly.
///
/// # Safety
/// `filters` are a panel; `spectra` and `products` hold a group of tiles.
#[inline(always)]
pub(super) unsafe fn multiply_panel<L: Lanes>(
    this: &Winograd,
    filters: *const f32,
    spectra: *const f32,
    products: *mut f32,
    count: usize,
    meanwhile: &mut impl FnMut(),
) {
    // SAFETY: the caller's promise.
    unsafe {
        macro_rules! multiply {
            ($($sizes:tt)*) => { multiply::<L, $($sizes)*>(this, filters, spectra, products, count, meanwhile) };
        }
        // With two registers for sixteen lanes, addresses cost as much as arithmetic unless they are constants.
        match (L::WIDE, row(this.channels), this.width()) {
            (true, _, LANES) => multiply!(1, 16, 16, 0, 0),
            (true, _, _) => multiply!(2, 8, 8, 0, 0),
            (false, 16, 16) => multiply!(1, 6, 4, 16, 16),
            (false, 32, 32) => multiply!(1, 6, 4, 32, 32),
            (false, 64, 32) => multiply!(1, 6, 4, 64, 32),
            (false, 128, 32) => multiply!(1, 6, 4, 128, 32),
            (false, _, _) => multiply!(1, 6, 4, 0, 0),
        }
    }
}

/// The 36 matrix products of one panel of filters: `TILES` tiles times `BLOCKS` blocks of filters in
/// registers, the last `LAST` by themselves. `ROW`, `WIDTH`: floats from tile to tile in `spectra` and in `products`,
/// or 0 where the compiler cannot know.
///
/// # Safety
/// As [`multiply_panel`]; `BLOCKS` divides the panel's blocks.
#[inline(always)]
unsafe fn multiply<
    L: Lanes,
    const BLOCKS: usize,
    const TILES: usize,
    const LAST: usize,
    const ROW: usize,
    const WIDTH: usize,
>(
    this: &Winograd,
    filters: *const f32,
    spectra: *const f32,
    products: *mut f32,
    count: usize,
    meanwhile: &mut impl FnMut(),
) {
    let channels = this.channels;
    let row = if ROW == 0 { row(channels) } else { ROW };
    let width = if WIDTH == 0 { this.width() } else { WIDTH };
    let (from, to) = (this.spectra_stride(), this.products_stride());
    for point in 0..N * N {
        meanwhile();
        let mut t = 0;
        while t < count {
            let last = LAST < TILES && count - t <= LAST;
            for block in (0..width / LANES).step_by(BLOCKS) {
                // SAFETY: indices are below the sizes that the caller promises.
                unsafe {
                    let weights = filters.add(point * channels * width + block * LANES);
                    let spectra = spectra.add(point * from + t * row);
                    let products = products.add(point * to + t * width + block * LANES);
                    let apart = [row, width];
                    if last {
                        some::<L, BLOCKS, LAST>(channels, apart, weights, spectra, products);
                    } else {
                        some::<L, BLOCKS, TILES>(channels, apart, weights, spectra, products);
                    }
                }
            }
            t += if last { LAST } else { TILES };
        }
    }
}

/// `TILES` tiles times `BLOCKS` blocks of filters at one of the 36 points; `apart`: floats from tile to tile in
/// `spectra` and in `products`.
///
/// # Safety
/// The pointers hold these.
#[inline(always)]
unsafe fn some<L: Lanes, const BLOCKS: usize, const TILES: usize>(
    channels: usize,
    [row, width]: [usize; 2],
    weights: *const f32,
    spectra: *const f32,
    products: *mut f32,
) {
    // Channels come in blocks of 16; a longer step leaves fewer addresses to compute.
    let step = if L::WIDE { 1 } else { 4 };
    // SAFETY: the caller's promise.
    unsafe {
        let zero = L::splat(0.0);
        let mut sums = [[zero; BLOCKS]; TILES];
        for first in (0..channels).step_by(step) {
            let (weights, spectra) = (weights.add(first * width), spectra.add(first));
            for c in 0..step {
                let mut weight = [zero; BLOCKS];
                for (b, weight) in weight.iter_mut().enumerate() {
                    *weight = L::load(weights.add(c * width + b * LANES));
                }
                for (t, sums) in sums.iter_mut().enumerate() {
                    let value = L::splat(*spectra.add(t * row + c));
                    for b in 0..BLOCKS {
                        sums[b] = value.fma(weight[b], sums[b]);
                    }
                }
            }
        }
        for (t, sums) in sums.into_iter().enumerate() {
            for (b, sum) in sums.into_iter().enumerate() {
                sum.store(products.add(t * width + b * LANES));
            }
        }
    }
}
