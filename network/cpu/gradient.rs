//! The gradient of a convolution's filters, for the modes that train some of them. Knows one image
//! at a time; the caller fixes the order in which images are added up.
//!
//! Layouts are the direct convolution's: the input `[C/16][H + 2][W + 2][16]` with a border of
//! zeros, the output's gradient `[K/16][h][w][16]`. Lanes run over filters; each number is one
//! chain of fused multiplication-additions over output rows, then columns, so that bits do not
//! depend on the instruction set.
#![allow(unsafe_code)] // the inner loop runs on pointers whose bounds are checked once per image

use super::lanes::{Isa, Lanes};
use crate::lanes_dispatch;

/// Channels in a block.
const LANES: usize = 16;

/// The filter gradient of one 3x3 convolution with padding 1 (channels and filters in blocks of 16).
#[derive(Clone, Copy, Debug)]
pub struct FilterGradient {
    /// Input channels.
    pub channels: usize,
    /// Filters, the channels of the output.
    pub filters: usize,
    /// 1 or 2.
    pub stride: usize,
    /// Rows and columns of the input, its border not counted.
    pub input: [usize; 2],
}

impl FilterGradient {
    /// Rows and columns of the output.
    pub fn output(&self) -> [usize; 2] {
        self.input.map(|n| n.div_ceil(self.stride))
    }

    /// Adds one image's share to `sum`, laid out `[K/16][C/16][9][16 c][16 k]`.
    ///
    /// # Panics
    /// Where channels are no whole blocks or a slice is shorter than its layout.
    pub fn add(&self, isa: Isa, x: &[f32], gradient: &[f32], sum: &mut [f32]) {
        let (h, w) = (self.input[0] + 2, self.input[1] + 2);
        assert!(self.channels.is_multiple_of(LANES) && self.filters.is_multiple_of(LANES), "whole blocks");
        assert!(x.len() >= self.channels * h * w, "input too short");
        assert!(
            gradient.len() >= self.filters * self.output().iter().product::<usize>(),
            "gradient too short"
        );
        assert!(sum.len() >= self.filters * self.channels * 9, "sum too short");
        // SAFETY: the lengths are checked.
        unsafe { add_on(isa, self, x, gradient, sum) }
    }

    /// Brings a sum into PyTorch's order, `K C 3 3`.
    pub fn unpack(&self, sum: &[f32]) -> Vec<f32> {
        let blocks = self.channels / LANES;
        let mut out = vec![0.0; sum.len()];
        for (i, &value) in sum.iter().enumerate() {
            let (k, c, tap, outer) = (i % 16, i / 16 % 16, i / 256 % 9, i / 2304);
            let (k, c) = (outer / blocks * LANES + k, outer % blocks * LANES + c);
            out[(k * self.channels + c) * 9 + tap] = value;
        }
        out
    }
}

lanes_dispatch!(
    unsafe fn add_on(this: &FilterGradient, x: &[f32], gradient: &[f32], sum: &mut [f32]) = add_image
);

/// # Safety
/// The slices are as long as [`FilterGradient::add`] demands.
#[inline(always)]
unsafe fn add_image<L: Lanes>(this: &FilterGradient, x: &[f32], gradient: &[f32], sum: &mut [f32]) {
    // SAFETY: as the caller.
    unsafe {
        if L::WIDE {
            add_blocks::<L, 16>(this, x, gradient, sum);
        } else {
            add_blocks::<L, 4>(this, x, gradient, sum);
        }
    }
}

/// `HELD` input channels' sums stay in registers over a whole map.
///
/// # Safety
/// As [`add_image`]; `HELD` divides 16.
#[inline(always)]
unsafe fn add_blocks<L: Lanes, const HELD: usize>(
    this: &FilterGradient,
    x: &[f32],
    gradient: &[f32],
    sum: &mut [f32],
) {
    let ([rows, columns], wide) = (this.output(), this.input[1] + 2);
    let plane = (this.input[0] + 2) * wide * LANES;
    let blocks = this.channels / LANES;
    for outer in 0..this.filters / LANES * blocks {
        for (tap, c) in (0..9).flat_map(|tap| (0..LANES).step_by(HELD).map(move |c| (tap, c))) {
            // SAFETY: indices are below the sizes that the caller promises: a row of the input is
            // at most stride (rows - 1) + 2 < H + 2.
            unsafe {
                let sum = sum.as_mut_ptr().add((outer * 9 + tap) * 256 + c * LANES);
                let x = x.as_ptr().add(outer % blocks * plane + ((tap / 3) * wide + tap % 3) * LANES + c);
                let gradient = gradient.as_ptr().add(outer / blocks * rows * columns * LANES);
                let mut held = [L::splat(0.0); HELD];
                for (i, held) in held.iter_mut().enumerate() {
                    *held = L::load(sum.add(i * LANES));
                }
                for row in 0..rows {
                    for column in 0..columns {
                        let g = L::load(gradient.add((row * columns + column) * LANES));
                        let x = x.add((row * wide + column) * this.stride * LANES);
                        for (i, held) in held.iter_mut().enumerate() {
                            *held = L::splat(*x.add(i)).fma(g, *held);
                        }
                    }
                }
                for (i, held) in held.into_iter().enumerate() {
                    held.store(sum.add(i * LANES));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn it_is_the_filter_gradient_at_awkward_sizes_with_equal_bits_on_all_instruction_sets() {
        for (channels, filters, stride, rows, columns) in
            [(16, 16, 1, 1, 1), (32, 16, 1, 3, 5), (16, 32, 2, 7, 9), (16, 32, 2, 8, 8), (64, 64, 1, 4, 4)]
        {
            let this = FilterGradient { channels, filters, stride, input: [rows, columns] };
            let [h, w] = this.output();
            let mut stream = rng::stream(9, "filter gradient");
            let (high, wide) = (rows + 2, columns + 2);
            let mut sums = vec![vec![0.0f32; filters * channels * 9]; Isa::all().len()];
            let mut expected = vec![0.0f64; filters * channels * 9];
            let mut magnitude = vec![0.0f64; expected.len()];
            for _image in 0..2 {
                let mut x = vec![0.0f32; channels * high * wide];
                for (i, x) in x.iter_mut().enumerate() {
                    let (column, row) = (i / 16 % wide, i / 16 / wide % high);
                    if (1..=rows).contains(&row) && (1..=columns).contains(&column) {
                        *x = stream.normal() as f32;
                    }
                }
                let gradient: Vec<f32> = (0..filters * h * w).map(|_| stream.normal() as f32).collect();
                for (isa, sum) in Isa::all().into_iter().zip(&mut sums) {
                    this.add(isa, &x, &gradient, sum);
                }
                for (i, (expected, magnitude)) in expected.iter_mut().zip(&mut magnitude).enumerate() {
                    let (tap, c, k) = (i % 9, i / 9 % channels, i / 9 / channels);
                    for (row, column) in (0..h).flat_map(|row| (0..w).map(move |column| (row, column))) {
                        let g = gradient[((k / 16 * h + row) * w + column) * 16 + k % 16];
                        let (y, z) = (row * stride + tap / 3, column * stride + tap % 3);
                        let product =
                            f64::from(g) * f64::from(x[((c / 16 * high + y) * wide + z) * 16 + c % 16]);
                        *expected += product;
                        *magnitude += product.abs();
                    }
                }
            }
            // A chain of n additions errs by at most n roundings of the sum of magnitudes.
            let bound = (2 * h * w) as f64 * f64::from(f32::EPSILON);
            for sum in &sums {
                assert!(sum.iter().zip(&sums[0]).all(|(a, b)| a.to_bits() == b.to_bits()));
                for ((&got, &wanted), &size) in this.unpack(sum).iter().zip(&expected).zip(&magnitude) {
                    assert!((f64::from(got) - wanted).abs() <= bound * size, "{got} for {wanted}: {this:?}");
                }
            }
        }
    }
}
