//! At how many positions each channel behind a ReLU is zero: what the forward pass left behind is read once
//! more. Knows no threshold.
#![allow(unsafe_code)] // each item of a pass has its image to itself

use super::Step;
use crate::cpu::{
    buffers::Images,
    conv::bordered,
    direct,
    sources::{Side, Source},
    stored::Stored,
};

impl<S: Stored> Step<S> {
    /// After a forward pass of `count` images: adds to `zeros`, one list for each feature, at how many
    /// positions (before pooling) each channel was zero.
    pub(crate) fn count_zeros(&mut self, count: usize, zeros: &mut [Vec<u64>]) {
        let Self { units, layout, pool, scratch, maps, .. } = self;
        let isa = self.isa;
        let total = zeros.iter().map(Vec::len).sum();
        let counts = Images::<u32>::new(count, total);
        let longest = layout.units.iter().map(|unit| bordered(unit.conv.cout, unit.output)).max();
        pool.each(scratch, count, |n, _| {
            // SAFETY: each item has its slice.
            let mut rest = unsafe { std::slice::from_raw_parts_mut(counts.ptr(n), total) };
            let mut x = vec![0.0; longest.unwrap_or(0)];
            for (f, feature) in layout.features.iter().enumerate() {
                let unit = &layout.units[feature.unit];
                let own;
                (own, rest) = rest.split_at_mut(unit.conv.cout);
                if let Some(mask) = maps.mask(f) {
                    // SAFETY: each item has its image.
                    let mask = unsafe { std::slice::from_raw_parts(mask.ptr(n), mask.size()) };
                    of_mask(mask, own);
                } else {
                    let main = units[feature.unit].normal();
                    let source = Source::Rectified { main, side: Side::None, x: None, mask: None };
                    let x = &mut x[..bordered(unit.conv.cout, unit.output)];
                    // SAFETY: each item has its image.
                    unsafe { direct::read(isa, &source, n, unit.output, x) };
                    of_image(x, unit.output, own);
                }
            }
        });
        for n in 0..count {
            // SAFETY: the workers have finished.
            let counts = unsafe { std::slice::from_raw_parts(counts.ptr(n).cast_const(), total) };
            zeros.iter_mut().flatten().zip(counts).for_each(|(zeros, count)| *zeros += u64::from(*count));
        }
    }
}

/// Zeros by channel where `mask` has one bit for each of 16 channels, set above zero.
fn of_mask(mask: &[u16], zeros: &mut [u32]) {
    let area = mask.len() * 16 / zeros.len();
    for (mask, zeros) in mask.chunks_exact(area).zip(zeros.chunks_exact_mut(16)) {
        for bits in mask {
            zeros.iter_mut().enumerate().for_each(|(lane, zeros)| *zeros += u32::from(!bits >> lane & 1));
        }
    }
}

/// Zeros by channel inside the border of `x`, `[C/16][H + 2][W + 2][16]`.
fn of_image(x: &[f32], [h, w]: [usize; 2], zeros: &mut [u32]) {
    let row = (w + 2) * 16;
    for (plane, zeros) in x.chunks_exact((h + 2) * row).zip(zeros.chunks_exact_mut(16)) {
        for pixels in plane.chunks_exact(row).skip(1).take(h) {
            for pixel in pixels[16..row - 16].chunks_exact(16) {
                zeros.iter_mut().zip(pixel).for_each(|(zeros, x)| *zeros += u32::from(*x == 0.0));
            }
        }
    }
}
