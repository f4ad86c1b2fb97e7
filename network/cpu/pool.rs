//! The 2x2 maximum of a rectified BatchNorm's output and the way back. Knows one image at a time.
//!
//! Maximum and rectifier commute, so the larger image is never written: both directions compute it
//! from the output of the convolution. Where several of four are largest the gradient goes to the first in
//! the order of rows, as in PyTorch; where none is above zero it ends at the rectifier.
#![allow(unsafe_code)] // pointers into slices whose lengths are checked once per image

use super::{
    fuse::Line,
    lanes::{Isa, Lanes},
};
use crate::lanes_dispatch;

/// Writes relu(max over 2x2 of line(z)) into the inside of `bordered`; `size` = rows, columns of `z`
/// (plain), of which an odd last one is left out.
///
/// # Panics
/// Where a slice has not the length of its image.
pub fn activate(isa: Isa, size: [usize; 2], z: &[f32], line: Line<'_>, bordered: &mut [f32]) {
    let blocks = check(size, z, line);
    assert_eq!(bordered.len(), blocks * (size[0] / 2 + 2) * (size[1] / 2 + 2) * 16, "bordered image");
    // SAFETY: the lengths are checked.
    unsafe { activate_in(isa, size, z, line, bordered) }
}

/// Writes the gradient of `z`'s BatchNorm output, all of it, for the plain gradient `g` of the pooled image.
///
/// # Panics
/// Where a slice has not the length of its image.
pub fn backward(isa: Isa, size: [usize; 2], g: &[f32], z: &[f32], line: Line<'_>, out: &mut [f32]) {
    let blocks = check(size, z, line);
    assert_eq!(g.len(), blocks * (size[0] / 2) * (size[1] / 2) * 16, "gradient");
    assert_eq!(out.len(), z.len(), "gradient of the larger image");
    // SAFETY: the lengths are checked.
    unsafe { backward_in(isa, size, g, z, line, out) }
}

/// The number of blocks of channels.
fn check(size: [usize; 2], z: &[f32], line: Line<'_>) -> usize {
    let blocks = line.scale.len() / 16;
    assert!(line.scale.len() == blocks * 16 && line.shift.len() == blocks * 16, "channels");
    assert_eq!(z.len(), blocks * size[0] * size[1] * 16, "image");
    blocks
}

lanes_dispatch!(unsafe fn activate_in(
    size: [usize; 2],
    z: &[f32],
    line: Line<'_>,
    bordered: &mut [f32],
) = activate_on);

#[inline(always)]
unsafe fn activate_on<L: Lanes>([h, w]: [usize; 2], z: &[f32], line: Line<'_>, bordered: &mut [f32]) {
    let [rows, columns] = [h / 2, w / 2];
    for (block, y) in (0..line.scale.len() / 16).flat_map(|block| (0..rows).map(move |y| (block, y))) {
        // SAFETY: the caller checked every length; cell (y, x) lies inside both images.
        unsafe {
            let out = bordered.as_mut_ptr().add(((block * (rows + 2) + y + 1) * (columns + 2) + 1) * 16);
            for x in 0..columns {
                let cell = cell::<L>(z.as_ptr().add(((block * h + 2 * y) * w + 2 * x) * 16), w, line, block);
                // NaN survives: a batch with one has no other values behind its BatchNorm.
                L::splat(0.0).max(largest(cell)).store(out.add(x * 16));
            }
        }
    }
}

lanes_dispatch!(unsafe fn backward_in(
    size: [usize; 2],
    g: &[f32],
    z: &[f32],
    line: Line<'_>,
    out: &mut [f32],
) = backward_on);

#[inline(always)]
unsafe fn backward_on<L: Lanes>([h, w]: [usize; 2], g: &[f32], z: &[f32], line: Line<'_>, out: &mut [f32]) {
    let [rows, columns] = [h / 2, w / 2];
    if h % 2 + w % 2 > 0 {
        out.fill(0.0);
    }
    for (block, y) in (0..line.scale.len() / 16).flat_map(|block| (0..rows).map(move |y| (block, y))) {
        for x in 0..columns {
            // SAFETY: as in `activate_on`.
            unsafe {
                let at = ((block * h + 2 * y) * w + 2 * x) * 16;
                let cell = cell::<L>(z.as_ptr().add(at), w, line, block);
                let gradient = L::load(g.as_ptr().add(((block * rows + y) * columns + x) * 16));
                let largest = largest(cell);
                let mut free = largest.positive();
                for (i, value) in cell.into_iter().enumerate() {
                    let here = free & !largest.sub(value).positive();
                    free &= !here;
                    gradient.keep(here).store(out.as_mut_ptr().add(at + (i / 2 * w + i % 2) * 16));
                }
            }
        }
    }
}

/// line(z) of a cell's four pixels, in the order of rows.
///
/// # Safety
/// `z` points to the first of them, in rows of `w`; `block` exists.
#[inline(always)]
unsafe fn cell<L: Lanes>(z: *const f32, w: usize, line: Line<'_>, block: usize) -> [L; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let scale = L::load(line.scale.as_ptr().add(block * 16));
        let shift = L::load(line.shift.as_ptr().add(block * 16));
        let mut values = [shift; 4];
        for (i, value) in values.iter_mut().enumerate() {
            *value = L::load(z.add((i / 2 * w + i % 2) * 16)).fma(scale, shift);
        }
        values
    }
}

#[inline(always)]
fn largest<L: Lanes>([a, b, c, d]: [L; 4]) -> L {
    a.max(b).max(c.max(d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn it_is_the_maximum_and_its_gradient_at_awkward_sizes_on_every_instruction_set() {
        for (channels, [h, w]) in [(16, [2, 2]), (32, [4, 6]), (48, [1, 3]), (16, [5, 7]), (16, [32, 32])] {
            let [rows, columns] = [h / 2, w / 2];
            let mut stream = rng::stream(5, "pool");
            // Few values, so that many are equal.
            let z: Vec<f32> = (0..channels * h * w).map(|_| stream.below(5) as f32 - 2.0).collect();
            let g: Vec<f32> = (0..channels * rows * columns).map(|_| stream.normal() as f32).collect();
            let scale: Vec<f32> = (0..channels).map(|_| stream.normal() as f32).collect();
            let shift: Vec<f32> = (0..channels).map(|_| stream.normal() as f32).collect();
            let line = Line { scale: &scale, shift: &shift };
            let mut expected = vec![0.0f32; channels / 16 * (rows + 2) * (columns + 2) * 16];
            let mut d_expected = vec![0.0f32; z.len()];
            for (i, &gradient) in g.iter().enumerate() {
                let (lane, x, y, block) =
                    (i % 16, i / 16 % columns, i / 16 / columns % rows, i / 16 / columns / rows);
                let mut best = (0.0, None);
                for j in 0..4 {
                    let at = ((block * h + 2 * y + j / 2) * w + 2 * x + j % 2) * 16 + lane;
                    let value = z[at].mul_add(scale[block * 16 + lane], shift[block * 16 + lane]);
                    if value > best.0 {
                        best = (value, Some(at));
                    }
                }
                expected[((block * (rows + 2) + y + 1) * (columns + 2) + x + 1) * 16 + lane] = best.0;
                if let Some(at) = best.1 {
                    d_expected[at] = gradient;
                }
            }
            for isa in Isa::all() {
                let (mut out, mut back) = (vec![0.0; expected.len()], vec![f32::NAN; z.len()]);
                activate(isa, [h, w], &z, line, &mut out);
                backward(isa, [h, w], &g, &z, line, &mut back);
                assert!(out == expected && back == d_expected, "{isa} {channels} {h} {w}");
            }
        }
    }
}
