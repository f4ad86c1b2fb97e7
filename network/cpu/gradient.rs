//! The gradient of a convolution's filters, for the modes that train all of some. Knows which
//! algorithm serves which shape, no BatchNorm and no threads.
//!
//! Images are added in ascending order to a sum that a fixed number of them share
//! ([`FilterGradient::group`]); [`FilterGradient::finish`] adds these sums, again in order. Both are
//! chains of f32, so the bits depend on neither threads, nor on how many images one call of
//! [`FilterGradient::add`] is given, nor on the instruction set.
//!
//! Both images are bordered: the input `[image][C/16][H + 2][W + 2][16]`, the output's gradient
//! `[image][K/16][h + 2][w + 2][16]`.

use super::{
    conv::bordered,
    gradient_direct::{self as direct, Direct},
    gradient_winograd::WinogradGradient,
    lanes::Isa,
    winograd::Winograd,
};

/// The filter gradient of one convolution of padding `kernel / 2`.
#[derive(Clone, Copy, Debug)]
pub struct FilterGradient {
    shape: Direct,
    winograd: Option<WinogradGradient>,
}

impl FilterGradient {
    /// Of a convolution with filters `K C R S` = `shape` (K a multiple of 16, C too or below 16; 3x3
    /// or 1x1) and `stride` 1 or 2, from an input of rows, columns = `input`, its border not counted.
    ///
    /// # Panics
    /// On any other shape.
    pub fn new(shape: [usize; 4], stride: usize, input: [usize; 2]) -> Self {
        let [filters, channels, kernel, _] = shape;
        let winograd = Winograd::serves(channels, filters, kernel, stride).then_some(WinogradGradient {
            channels,
            filters,
            size: input,
        });
        Self { shape: Direct::new(shape, stride, input), winograd }
    }

    /// Images that share one sum: the first `group()` of a batch the first sum, and so on. A question
    /// of shape alone.
    pub fn group(&self) -> usize {
        // Sums of wide layers are large, and there is work for several threads in few images.
        if self.shape.channels * self.shape.filters <= 128 * 128 { 16 } else { 64 }
    }

    /// Floats of one sum.
    pub fn sum_len(&self) -> usize {
        self.winograd.map_or_else(|| self.shape.sum_len(), |w| w.sum_len())
    }

    /// Floats of scratch memory that one thread needs; what they hold before does not matter.
    pub fn scratch_len(&self) -> usize {
        self.winograd.map_or(0, |w| w.scratch_len())
    }

    /// Adds the shares of `images` images to `sum` (zeros before the first). Fast where the images
    /// fill [`super::winograd::chunk`].
    ///
    /// # Panics
    /// Where a slice is shorter than its layout.
    pub fn add(&self, isa: Isa, images: usize, x: &[f32], g: &[f32], sum: &mut [f32], scratch: &mut [f32]) {
        let shape = &self.shape;
        assert!(x.len() >= images * bordered(shape.channels, shape.input), "input too short");
        assert!(g.len() >= images * bordered(shape.filters, shape.output), "gradient too short");
        assert!(sum.len() >= self.sum_len(), "sum too short");
        assert!(scratch.len() >= self.scratch_len(), "scratch too short");
        // SAFETY: the lengths are checked.
        #[allow(unsafe_code)]
        unsafe {
            match &self.winograd {
                Some(winograd) => winograd.add(isa, images, x, g, sum, scratch),
                None => direct::add(isa, shape, images, x, g, sum),
            }
        }
    }

    /// Adds up the sums of all groups, laid one behind the other, and writes the gradient in PyTorch's
    /// order, `K C R S`. The first sum is overwritten.
    ///
    /// # Panics
    /// Where `sums` is not a positive number of sums or `out` not one gradient.
    pub fn finish(&self, isa: Isa, sums: &mut [f32], out: &mut [f32]) {
        let len = self.sum_len();
        assert!(!sums.is_empty() && sums.len().is_multiple_of(len), "whole sums");
        assert_eq!(out.len(), self.shape.len(), "one gradient");
        let (total, others) = sums.split_at_mut(len);
        for other in others.chunks_exact(len) {
            total.iter_mut().zip(other).for_each(|(total, other)| *total += other);
        }
        match &self.winograd {
            Some(winograd) => winograd.unpack(isa, total, out),
            None => self.shape.unpack(total, out),
        }
    }
}

#[cfg(test)]
#[path = "gradient_tests.rs"]
mod tests;
