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
        match (L::WIDE, this.width()) {
            (true, LANES) => multiply::<L, 1, 16>(this, filters, spectra, products, count, meanwhile),
            (true, _) => multiply::<L, 2, 8>(this, filters, spectra, products, count, meanwhile),
            (false, _) => multiply::<L, 1, 6>(this, filters, spectra, products, count, meanwhile),
        }
    }
}

/// The 36 matrix products of one panel of filters: `TILES` tiles times `BLOCKS` blocks of filters in
/// registers.
///
/// # Safety
/// As [`multiply_panel`]; `BLOCKS` divides the panel's blocks.
#[inline(always)]
unsafe fn multiply<L: Lanes, const BLOCKS: usize, const TILES: usize>(
    this: &Winograd,
    filters: *const f32,
    spectra: *const f32,
    products: *mut f32,
    count: usize,
    meanwhile: &mut impl FnMut(),
) {
    let (channels, width) = (this.channels, this.width());
    let (from, to) = (this.spectra_stride(), this.products_stride());
    for point in 0..N * N {
        meanwhile();
        for t in (0..count).step_by(TILES) {
            for block in (0..width / LANES).step_by(BLOCKS) {
                // SAFETY: indices are below the sizes that the caller promises.
                unsafe {
                    let weights = filters.add(point * channels * width + block * LANES);
                    let spectra = spectra.add(point * from + t * row(channels));
                    let products = products.add(point * to + t * width + block * LANES);
                    let zero = L::splat(0.0);
                    let mut sums = [[zero; BLOCKS]; TILES];
                    for c in 0..channels {
                        let mut weight = [zero; BLOCKS];
                        for (b, weight) in weight.iter_mut().enumerate() {
                            *weight = L::load(weights.add(c * width + b * LANES));
                        }
                        for (t, sums) in sums.iter_mut().enumerate() {
                            let value = L::splat(*spectra.add(t * row(channels) + c));
                            for b in 0..BLOCKS {
                                sums[b] = value.fma(weight[b], sums[b]);
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
        }
    }
}
