//! Filter gradients by their definition, for what Winograd does not serve: stride 2, 1x1 filters and
//! the first layer. Knows one image at a time.
//!
//! Lanes run over the 16 input channels of a block (the first layer has fewer: there over the 16
//! filters of one); each number is one chain of fused multiplication-additions over images, then
//! output rows, then columns.
#![allow(unsafe_code)] // the inner loop runs on pointers whose bounds are checked once per call
#![allow(clippy::needless_range_loop)] // one index serves two arrays

use super::{
    conv::{Sizes, bordered},
    lanes::{Lanes, lanes_dispatch},
};

/// Channels in a block.
const LANES: usize = 16;
/// About as many pixels of the output are gone through at a time, so that they stay in the L1 cache.
const PIXELS: usize = 128;

/// Brings a sum into the order `K C R S`.
pub(super) fn unpack(sizes: &Sizes, sum: &[f32], out: &mut [f32]) {
    let (taps, blocks) = (sizes.kernel * sizes.kernel, sizes.channels / LANES);
    for (i, &value) in sum.iter().enumerate().take(sizes.len()) {
        let (k, c, tap) = if sizes.channels < LANES {
            let (lane, tap, rest) = (i % LANES, i / LANES % taps, i / LANES / taps);
            (rest / sizes.channels * LANES + lane, rest % sizes.channels, tap)
        } else {
            let (lane, k, rest) = (i % LANES, i / LANES % LANES, i / LANES / LANES);
            let (tap, rest) = (rest % taps, rest / taps);
            (rest / blocks * LANES + k, rest % blocks * LANES + lane, tap)
        };
        out[(k * sizes.channels + c) * taps + tap] = value;
    }
}

lanes_dispatch!(
    /// Adds `images` images' share to `sum`: `[K/16][C/16][R][S][16 k][16 c]`, for fewer than 16
    /// channels `[K/16][C][R][S][16 k]`.
    ///
    /// # Safety
    /// The slices hold that many bordered images and one sum.
    pub(super) unsafe fn add(this: &Sizes, images: usize, x: &[f32], g: &[f32], sum: &mut [f32]) = add_on
);

/// One block of channels and one of filters, of one image; offsets in floats.
struct Pair {
    x: *const f32,
    /// The first pixel inside the border.
    g: *const f32,
    sum: *mut f32,
    x_row: usize,
    x_step: usize,
    g_row: usize,
    rows: usize,
    columns: usize,
}

/// # Safety
/// As [`add`]; the CPU has the instruction set of `L`, and the caller is compiled for it.
#[inline(always)]
unsafe fn add_on<L: Lanes>(this: &Sizes, images: usize, x: &[f32], g: &[f32], sum: &mut [f32]) {
    let (x_row, g_row) = ((this.input[1] + 2) * LANES, (this.output[1] + 2) * LANES);
    let (x_plane, g_plane) = ((this.input[0] + 2) * x_row, (this.output[0] + 2) * g_row);
    let near = 1 - this.kernel / 2; // a 1x1 filter starts inside the border
    let x_blocks = this.channels.div_ceil(LANES);
    let per_pair = this.kernel * this.kernel * LANES * this.channels.min(LANES);
    let strip = (PIXELS / this.output[1]).max(1);
    for image in 0..images {
        for pair in 0..this.filters / LANES * x_blocks {
            let (k, c) = (pair / x_blocks, pair % x_blocks);
            for y in (0..this.output[0]).step_by(strip) {
                // SAFETY: all offsets lie inside the images and the sum that the caller promises: the
                // last tap of the last pixel is row stride (h - 1) + 2 <= H + 1.
                unsafe {
                    let x = x.as_ptr().add(image * bordered(this.channels, this.input) + c * x_plane);
                    let g = g.as_ptr().add(image * bordered(this.filters, this.output) + k * g_plane);
                    let pair = Pair {
                        x: x.add((y * this.stride + near) * x_row + near * LANES),
                        g: g.add((y + 1) * g_row + LANES),
                        sum: sum.as_mut_ptr().add(pair * per_pair),
                        x_row,
                        x_step: this.stride,
                        g_row,
                        rows: strip.min(this.output[0] - y),
                        columns: this.output[1],
                    };
                    match (this.channels < LANES, this.kernel, L::WIDE) {
                        (true, ..) => few_channels::<L>(&pair, this.kernel, this.channels),
                        (_, 1, true) => taps::<L, 1, 16>(&pair, 1),
                        (_, _, true) => taps::<L, 3, 8>(&pair, 3),
                        (_, kernel, false) => taps::<L, 1, 4>(&pair, kernel),
                    }
                }
            }
        }
    }
}

/// `X` neighbouring taps times `K` filters in registers, over a strip of rows.
///
/// # Safety
/// The pixels of `pair` and their taps are readable, and its sum writable; `X` divides `kernel`, `K`
/// divides 16.
#[inline(always)]
unsafe fn taps<L: Lanes, const X: usize, const K: usize>(pair: &Pair, kernel: usize) {
    for first in (0..kernel * kernel).step_by(X) {
        for k in (0..LANES).step_by(K) {
            // SAFETY: the caller's promise.
            unsafe {
                let sum = pair.sum.add((first * LANES + k) * LANES);
                let mut sums = [[L::splat(0.0); K]; X];
                for (tap, sums) in sums.iter_mut().enumerate() {
                    for (k, held) in sums.iter_mut().enumerate() {
                        *held = L::load(sum.add((tap * LANES + k) * LANES));
                    }
                }
                let x = pair.x.add(first / kernel * pair.x_row + first % kernel * LANES);
                for y in 0..pair.rows {
                    let x = x.add(y * pair.x_step * pair.x_row);
                    let g = pair.g.add(y * pair.g_row + k);
                    for column in 0..pair.columns {
                        let x = x.add(column * pair.x_step * LANES);
                        let mut values = [L::splat(0.0); X];
                        for (tap, value) in values.iter_mut().enumerate() {
                            *value = L::load(x.add(tap * LANES));
                        }
                        for k in 0..K {
                            let g = L::splat(*g.add(column * LANES + k));
                            for tap in 0..X {
                                sums[tap][k] = g.fma(values[tap], sums[tap][k]);
                            }
                        }
                    }
                }
                for (tap, sums) in sums.iter().enumerate() {
                    for (k, held) in sums.iter().enumerate() {
                        held.store(sum.add((tap * LANES + k) * LANES));
                    }
                }
            }
        }
    }
}

/// A first layer's pair: three filter columns of one channel in registers.
///
/// # Safety
/// As [`taps`].
#[inline(always)]
unsafe fn few_channels<L: Lanes>(pair: &Pair, kernel: usize, channels: usize) {
    for row in 0..channels * kernel {
        // SAFETY: the caller's promise.
        unsafe {
            let sum = pair.sum.add(row * kernel * LANES);
            let mut sums = [L::splat(0.0); 3];
            for (tap, held) in sums.iter_mut().enumerate().take(kernel) {
                *held = L::load(sum.add(tap * LANES));
            }
            let x = pair.x.add(row % kernel * pair.x_row + row / kernel);
            for y in 0..pair.rows {
                for column in 0..pair.columns {
                    let x = x.add(y * pair.x_step * pair.x_row + column * pair.x_step * LANES);
                    let g = L::load(pair.g.add(y * pair.g_row + column * LANES));
                    for (tap, held) in sums.iter_mut().enumerate().take(kernel) {
                        *held = L::splat(*x.add(tap * LANES)).fma(g, *held);
                    }
                }
            }
            for (tap, held) in sums.iter().enumerate().take(kernel) {
                held.store(sum.add(tap * LANES));
            }
        }
    }
}
