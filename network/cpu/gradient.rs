//! The gradient of a convolution's filters, for the modes that train all of them or k weights of each.
//! Knows which algorithm serves which shape, no BatchNorm and no threads.
//!
//! Images are added in ascending order to a sum that a fixed number of them share
//! ([`FilterGradient::group`]); [`FilterGradient::finish`] adds these sums, again in order. Both are
//! chains of f32, so the bits depend on neither threads, nor on how many images one call of
//! [`FilterGradient::add`] is given, nor on the instruction set.
//!
//! Both images are bordered: the input `[image][C/16][H + 2][W + 2][16]`, the output's gradient
//! `[image][K/16][h + 2][w + 2][16]`.

use super::{
    ahead::Next,
    conv::{Sizes, bordered},
    gradient_direct as direct,
    gradient_positions::{self as positions, Positions},
    gradient_winograd as winograd,
    lanes::Isa,
    winograd::Winograd,
};

/// The filter gradient of one convolution of padding `kernel / 2`.
#[derive(Clone, Debug)]
pub(crate) struct FilterGradient {
    sizes: Sizes,
    way: Way,
    /// Flat indices into `K C R S` of what is wanted, where that is not all and not a way of its own.
    selected: Option<Vec<u32>>,
}

#[derive(Clone, Debug)]
enum Way {
    Direct,
    Winograd,
    Positions(Positions),
}

impl FilterGradient {
    /// Of all filters.
    pub(crate) fn new(sizes: Sizes) -> Self {
        let Sizes { channels, filters, kernel, stride, .. } = sizes;
        let winograd = Winograd::serves(channels, filters, kernel, stride);
        Self { sizes, way: if winograd { Way::Winograd } else { Way::Direct }, selected: None }
    }

    /// Of k weights of each filter: `positions` are `K k` flat indices into `K C R S`, filter by filter.
    ///
    /// # Panics
    /// Where a filter has another number of positions.
    pub(crate) fn of_positions(sizes: Sizes, positions: &[u32]) -> Self {
        let mut this = Self::new(sizes);
        // From about one weight per channel on, all of them come cheaper than the wanted ones alone.
        if positions.len() <= sizes.filters * sizes.channels {
            this.way = Way::Positions(Positions::new(sizes, positions));
        } else {
            this.selected = Some(positions.to_vec());
        }
        this
    }

    /// The algorithm's name.
    pub(super) fn algorithm(&self) -> &'static str {
        match &self.way {
            Way::Direct => "direct",
            Way::Winograd => "winograd",
            Way::Positions(_) => "selected",
        }
    }

    /// Images that share one sum: the first `group()` of a batch the first sum, and so on. A question
    /// of shape alone.
    pub(crate) fn group(&self) -> usize {
        // Sums of wide layers are large, and there is work for several threads in few images.
        if self.sizes.channels * self.sizes.filters <= 128 * 128 { 16 } else { 64 }
    }

    /// Floats of one sum.
    pub(crate) fn sum_len(&self) -> usize {
        match &self.way {
            Way::Direct => self.sizes.len(),
            Way::Winograd => winograd::sum_len(&self.sizes),
            Way::Positions(positions) => positions.sum_len(),
        }
    }

    /// Floats of scratch memory that one thread needs; what they hold before does not matter.
    pub(crate) fn scratch_len(&self) -> usize {
        match &self.way {
            Way::Direct => 0,
            Way::Winograd => winograd::scratch_len(&self.sizes),
            Way::Positions(positions) => positions.scratch_len(),
        }
    }

    /// Adds the shares of `images` images to `sum` (zeros before the first). Fast where the images
    /// fill [`super::winograd::chunk`].
    ///
    /// # Panics
    /// Where a slice is shorter than its layout.
    pub(crate) fn add(
        &self,
        isa: Isa,
        images: usize,
        x: &[f32],
        g: &[f32],
        sum: &mut [f32],
        scratch: &mut [f32],
    ) {
        self.add_before(isa, images, [x, g], sum, scratch, &mut Next::default());
    }

    /// The same, while the caches are given what the `next` call will read.
    pub(super) fn add_before(
        &self,
        isa: Isa,
        images: usize,
        [x, g]: [&[f32]; 2],
        sum: &mut [f32],
        scratch: &mut [f32],
        next: &mut Next,
    ) {
        let sizes = &self.sizes;
        assert!(x.len() >= images * bordered(sizes.channels, sizes.input), "input too short");
        assert!(g.len() >= images * bordered(sizes.filters, sizes.output), "gradient too short");
        assert!(sum.len() >= self.sum_len(), "sum too short");
        assert!(scratch.len() >= self.scratch_len(), "scratch too short");
        // SAFETY: the lengths are checked.
        #[allow(unsafe_code)]
        unsafe {
            match &self.way {
                Way::Direct => direct::add(isa, sizes, images, x, g, sum),
                Way::Winograd => winograd::add(isa, sizes, images, [x, g], sum, scratch, next),
                Way::Positions(wanted) => positions::add(isa, wanted, images, [x, g], sum, scratch, next),
            }
        }
    }

    /// Adds up the sums of all groups, laid one behind the other, and writes the gradient in PyTorch's
    /// order, `K C R S`, or `K k` of the wanted positions. The first sum is overwritten.
    ///
    /// # Panics
    /// Where `sums` is not a positive number of sums or `out` not one gradient.
    pub(crate) fn finish(&self, isa: Isa, sums: &mut [f32], out: &mut [f32]) {
        let len = self.sum_len();
        assert!(!sums.is_empty() && sums.len().is_multiple_of(len), "whole sums");
        let (total, others) = sums.split_at_mut(len);
        for other in others.chunks_exact(len) {
            total.iter_mut().zip(other).for_each(|(total, other)| *total += other);
        }
        if let Some(selected) = &self.selected {
            assert_eq!(out.len(), selected.len(), "one gradient");
            let mut all = vec![0.0; self.sizes.len()];
            self.unpack(isa, total, &mut all);
            selected.iter().zip(out).for_each(|(i, out)| *out = all[*i as usize]);
        } else {
            self.unpack(isa, total, out);
        }
    }

    fn unpack(&self, isa: Isa, total: &[f32], out: &mut [f32]) {
        if let Way::Positions(positions) = &self.way {
            return positions.unpack(total, out);
        }
        assert_eq!(out.len(), self.sizes.len(), "one gradient");
        match &self.way {
            Way::Winograd => winograd::unpack(isa, &self.sizes, total, out),
            _ => direct::unpack(&self.sizes, total, out),
        }
    }
}

#[cfg(test)]
#[path = "gradient_tests.rs"]
mod tests;
