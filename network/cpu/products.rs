//! Winograd's 36 small matrix products over channels, in registers. Knows no images.
#![allow(unsafe_code)] // kernels on raw pointers, whose bounds the callers checked

use super::{
    lanes::Lanes,
    winograd::{LANES, N, Winograd, row},
};

/// The 36 matrix products of the first `count` tiles and a panel of filters, `[36][C][w]`, over the channels in
/// `live`, in ascending order, or over all where that is nothing; `meanwhile` is called 36 times, evenly.
///
/// # Safety
/// `filters` are a panel; `spectra` and `products` hold a group of tiles; there are the `live` channels.
#[inline(always)]
pub(super) unsafe fn multiply_panel<L: Lanes>(
    this: &Winograd,
    filters: *const f32,
    spectra: *const f32,
    products: *mut f32,
    count: usize,
    live: Option<&[u16]>,
    meanwhile: &mut impl FnMut(),
) {
    // SAFETY: the caller's promise.
    unsafe {
        macro_rules! multiply {
            ($($sizes:tt)*) => {
                multiply::<L, $($sizes)*>(this, filters, spectra, products, count, live, meanwhile)
            };
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
    live: Option<&[u16]>,
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
                    match (last, live) {
                        (true, None) => some::<L, BLOCKS, LAST>(channels, apart, weights, spectra, products),
                        (false, None) => {
                            some::<L, BLOCKS, TILES>(channels, apart, weights, spectra, products)
                        }
                        (true, Some(live)) => {
                            some_of::<L, BLOCKS, LAST>(live, apart, weights, spectra, products)
                        }
                        (false, Some(live)) => {
                            some_of::<L, BLOCKS, TILES>(live, apart, weights, spectra, products)
                        }
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
        let mut sums = [[L::splat(0.0); BLOCKS]; TILES];
        for first in (0..channels).step_by(step) {
            let (weights, spectra) = (weights.add(first * width), spectra.add(first));
            for c in 0..step {
                add::<L, BLOCKS, TILES>(row, weights.add(c * width), spectra.add(c), &mut sums);
            }
        }
        keep(&sums, width, products);
    }
}

/// The same over the channels in `live`. A channel of zeros would add a zero to every sum, which changes none: a sum
/// begins as +0, and a filter is finite. (Only where a product so small that it becomes -0 came first, this keeps the
/// sign, and what follows makes no difference between zeros.)
///
/// # Safety
/// As [`some`].
#[inline(always)]
unsafe fn some_of<L: Lanes, const BLOCKS: usize, const TILES: usize>(
    live: &[u16],
    [row, width]: [usize; 2],
    weights: *const f32,
    spectra: *const f32,
    products: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[L::splat(0.0); BLOCKS]; TILES];
        for c in live {
            let c = usize::from(*c);
            add::<L, BLOCKS, TILES>(row, weights.add(c * width), spectra.add(c), &mut sums);
        }
        keep(&sums, width, products);
    }
}

/// Adds the products of one channel.
///
/// # Safety
/// As [`some`]; both pointers are that channel's.
#[inline(always)]
unsafe fn add<L: Lanes, const BLOCKS: usize, const TILES: usize>(
    row: usize,
    weights: *const f32,
    spectra: *const f32,
    sums: &mut [[L; BLOCKS]; TILES],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut weight = [L::splat(0.0); BLOCKS];
        for (b, weight) in weight.iter_mut().enumerate() {
            *weight = L::load(weights.add(b * LANES));
        }
        for (t, sums) in sums.iter_mut().enumerate() {
            let value = L::splat(*spectra.add(t * row));
            for b in 0..BLOCKS {
                sums[b] = value.fma(weight[b], sums[b]);
            }
        }
    }
}

/// Writes the sums of these tiles to where they belong.
///
/// # Safety
/// As [`some`].
#[inline(always)]
unsafe fn keep<L: Lanes, const BLOCKS: usize, const TILES: usize>(
    sums: &[[L; BLOCKS]; TILES],
    width: usize,
    products: *mut f32,
) {
    for (t, sums) in sums.iter().enumerate() {
        for (b, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { sum.store(products.add(t * width + b * LANES)) }
        }
    }
}
