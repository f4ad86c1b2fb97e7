//! Winograd's transforms: of one dimension, and of a tile between memory and registers. Knows no
//! layout but rows of pixels and the distance between two of the 36 scratch matrices.
#![allow(unsafe_code)] // tiles behind pointers
#![allow(clippy::needless_range_loop)] // tiles are transposed: one index serves two arrays

use super::{
    lanes::Lanes,
    winograd::{LANES, M, N},
};

/// One dimension of the filter transform (G), for the points 0, 1, -1, 2, -2 and infinity.
///
/// # Safety
/// As [`Lanes::splat`].
#[inline(always)]
pub(super) unsafe fn filter_transform<L: Lanes>(w: [L; 3]) -> [L; N] {
    // SAFETY: the caller's promise.
    let [two, four, quarter, minus_sixth, twenty_fourth] =
        unsafe { [L::splat(2.0), L::splat(4.0), L::splat(0.25), L::splat(-1.0 / 6.0), L::splat(1.0 / 24.0)] };
    let (even, far_even, far_odd) = (w[0].add(w[2]), four.fma(w[2], w[0]), two.mul(w[1]));
    [
        quarter.mul(w[0]),
        minus_sixth.mul(even.add(w[1])),
        minus_sixth.mul(even.sub(w[1])),
        twenty_fourth.mul(far_even.add(far_odd)),
        twenty_fourth.mul(far_even.sub(far_odd)),
        w[2],
    ]
}

/// One dimension of the input transform (B transposed), with its common terms shared.
///
/// # Safety
/// As [`Lanes::splat`].
#[inline(always)]
unsafe fn input_transform<L: Lanes>(d: [L; N]) -> [L; N] {
    // SAFETY: the caller's promise.
    let [two, four, minus_two, minus_four, minus_five] =
        unsafe { [L::splat(2.0), L::splat(4.0), L::splat(-2.0), L::splat(-4.0), L::splat(-5.0)] };
    let (even, odd) = (minus_four.fma(d[2], d[4]), minus_four.fma(d[1], d[3]));
    let (far_even, far_odd) = (d[4].sub(d[2]), d[3].sub(d[1]));
    [
        four.fma(d[0], minus_five.fma(d[2], d[4])),
        even.add(odd),
        even.sub(odd),
        two.fma(far_odd, far_even),
        minus_two.fma(far_odd, far_even),
        four.fma(d[1], minus_five.fma(d[3], d[5])),
    ]
}

/// One dimension of the output transform (A transposed).
///
/// # Safety
/// As [`Lanes::splat`].
#[inline(always)]
unsafe fn output_transform<L: Lanes>(m: [L; N]) -> [L; M] {
    // SAFETY: the caller's promise.
    let [two, four, eight] = unsafe { [L::splat(2.0), L::splat(4.0), L::splat(8.0)] };
    let (near_sum, near_gap) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (far_sum, far_gap) = (m[3].add(m[4]), m[3].sub(m[4]));
    [
        m[0].add(near_sum).add(far_sum),
        two.fma(far_gap, near_gap),
        four.fma(far_sum, near_sum),
        eight.fma(far_gap, near_gap).add(m[5]),
    ]
}

/// One tile to its 36 numbers, in two halves of three rows so that all of it stays in registers.
///
/// # Safety
/// The rows hold six pixels, `out` 36 matrices.
#[inline(always)]
pub(super) unsafe fn transform<L: Lanes>(rows: [*const f32; N], out: *mut f32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        transform_half::<L, 0>(rows, out, stride);
        transform_half::<L, 3>(rows, out, stride);
    }
}

/// Rows `FIRST` to `FIRST` + 2.
///
/// # Safety
/// As [`transform`].
#[inline(always)]
unsafe fn transform_half<L: Lanes, const FIRST: usize>(rows: [*const f32; N], out: *mut f32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut part = [[L::splat(0.0); N]; N / 2];
        for x in 0..N {
            let mut column = [L::splat(0.0); N];
            for y in 0..N {
                column[y] = L::load(rows[y].add(x * LANES));
            }
            let column = input_transform(column);
            for y in 0..N / 2 {
                part[y][x] = column[FIRST + y];
            }
        }
        for y in 0..N / 2 {
            let row = input_transform(part[y]);
            for x in 0..N {
                row[x].store(out.add(((FIRST + y) * N + x) * stride));
            }
        }
    }
}

/// Rows `FIRST` and `FIRST` + 2 of a tile's 4x4 outputs.
///
/// # Safety
/// `from` holds 36 matrices.
#[inline(always)]
pub(super) unsafe fn untransform_half<L: Lanes, const FIRST: usize>(
    from: *const f32,
    stride: usize,
) -> [[L; M]; M / 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut part = [[L::splat(0.0); N]; M / 2];
        for x in 0..N {
            let mut column = [L::splat(0.0); N];
            for y in 0..N {
                column[y] = L::load(from.add((y * N + x) * stride));
            }
            let column = output_transform(column);
            part[0][x] = column[FIRST];
            part[1][x] = column[FIRST + 2];
        }
        [output_transform(part[0]), output_transform(part[1])]
    }
}
