//! Direct convolutions between a [`Source`] and a [`Sink`], one image at a time: what the other
//! algorithm does not serve, and several convolutions that read one source. Knows no batch and no
//! threads.
#![allow(unsafe_code)] // images that one worker has to itself

use super::{
    conv::plain,
    lanes::{Isa, Lanes, lanes_dispatch},
    sink_rows::{Chains, Rows, Visit},
    sinks::Sink,
    sources::Source,
    stored::Stored,
};

/// Writes image `n` of `source` into the inside of `bordered`.
///
/// # Safety
/// The caller has image `n` of every part of `source` to itself.
///
/// # Panics
/// Where a part has another shape than the bordered image.
pub(crate) unsafe fn read<S: Stored>(
    isa: Isa,
    source: &Source<'_, S>,
    n: usize,
    size: [usize; 2],
    bordered: &mut [f32],
) {
    let plane = (size[0] + 2) * (size[1] + 2) * 16;
    assert!(bordered.len().is_multiple_of(plane), "bordered image");
    source.check(bordered.len() / plane, size);
    // SAFETY: shapes are checked; the image is the caller's promise.
    unsafe { read_on(isa, source, n, size, bordered) }
}

lanes_dispatch!(
    /// # Safety
    /// As [`read`], which checks the shapes.
    unsafe fn read_on<S>(source: &Source<'_, S>, n: usize, size: [usize; 2], bordered: &mut [f32]) = read_with
);

/// # Safety
/// As [`read_on`]; the CPU has the instruction set of `L`, and the caller is compiled for it.
#[inline(always)]
unsafe fn read_with<L: Lanes, S: Stored>(
    source: &Source<'_, S>,
    n: usize,
    [h, w]: [usize; 2],
    bordered: &mut [f32],
) {
    for block in 0..bordered.len() / ((h + 2) * (w + 2) * 16) {
        for y in 0..h {
            // SAFETY: the row lies inside the border.
            unsafe {
                let out = bordered.as_mut_ptr().add(((block * (h + 2) + y + 1) * (w + 2) + 1) * 16);
                source.row::<L>(n, block, y, [h, w], out);
            }
        }
    }
}

/// The mean over all pixels of image `n` of `source`, per channel: `row` holds a row meanwhile. Rows
/// modulo 4 are four chains, added as (0 + 1) + (2 + 3).
///
/// # Safety
/// As [`read`].
///
/// # Panics
/// Where a part has another shape, or the row is too short.
pub(crate) unsafe fn mean<S: Stored>(
    isa: Isa,
    source: &Source<'_, S>,
    n: usize,
    size: [usize; 2],
    row: &mut [f32],
    out: &mut [f32],
) {
    assert!(row.len() >= size[1] * 16, "row");
    source.check(out.len() / 16, size);
    // SAFETY: shapes are checked; the image is the caller's promise.
    unsafe { mean_on(isa, source, n, size, row, out) }
}

lanes_dispatch!(
    /// # Safety
    /// As [`mean`], which checks the shapes.
    unsafe fn mean_on<S>(source: &Source<'_, S>, n: usize, size: [usize; 2], row: &mut [f32], out: &mut [f32]) = mean_with
);

/// # Safety
/// As [`mean_on`]; the CPU has the instruction set of `L`, and the caller is compiled for it.
#[inline(always)]
unsafe fn mean_with<L: Lanes, S: Stored>(
    source: &Source<'_, S>,
    n: usize,
    [h, w]: [usize; 2],
    row: &mut [f32],
    out: &mut [f32],
) {
    for (block, out) in out.chunks_exact_mut(16).enumerate() {
        // SAFETY: the caller checked the lengths.
        unsafe {
            let mut sums = [L::splat(0.0); 4];
            for y in 0..h {
                source.row::<L>(n, block, y, [h, w], row.as_mut_ptr());
                for x in 0..w {
                    sums[y % 4] = sums[y % 4].add(L::load(row.as_ptr().add(x * 16)));
                }
            }
            let [a, b, c, d] = sums;
            let each = L::splat(1.0 / (h * w) as f32);
            a.add(b).add(c.add(d)).mul(each).store(out.as_mut_ptr());
        }
    }
}

/// What goes into a sink without a convolution.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    /// An image `[C/16][H][W][16]`.
    Image(&'a [f32]),
    /// One value per channel, for all pixels.
    Channels(&'a [f32]),
}

/// Gives image `n` of `sink` its values.
///
/// # Safety
/// As [`read`], for the sink.
///
/// # Panics
/// Where a part has another shape than the values.
pub(crate) unsafe fn write<S: Stored>(
    isa: Isa,
    sink: &Sink<'_, S>,
    n: usize,
    size: [usize; 2],
    values: Values<'_>,
) {
    let blocks = match values {
        Values::Image(image) => image.len() / plain(16, size),
        Values::Channels(channels) => channels.len() / 16,
    };
    sink.check(blocks, size);
    // SAFETY: shapes are checked; the image is the caller's promise.
    unsafe { write_on(isa, sink, n, size, blocks, values) }
}

lanes_dispatch!(
    /// # Safety
    /// As [`write`], which checks the shapes.
    unsafe fn write_on<S>(sink: &Sink<'_, S>, n: usize, size: [usize; 2], blocks: usize, values: Values<'_>) = write_with
);

/// # Safety
/// As [`write_on`]; the CPU has the instruction set of `L`, and the caller is compiled for it.
#[inline(always)]
unsafe fn write_with<L: Lanes, S: Stored>(
    sink: &Sink<'_, S>,
    n: usize,
    size: [usize; 2],
    blocks: usize,
    values: Values<'_>,
) {
    for block in 0..blocks {
        // SAFETY: the caller checked the shapes.
        unsafe { sink.open::<L>(n, block, size, Sweep { sink, n, block, size, values }) }
    }
}

struct Sweep<'a, S: Stored> {
    sink: &'a Sink<'a, S>,
    n: usize,
    block: usize,
    size: [usize; 2],
    values: Values<'a>,
}

impl<L: Lanes, S: Stored> Visit<L> for Sweep<'_, S> {
    #[inline(always)]
    unsafe fn with<R: Rows<L>>(self, rows: R) {
        let [h, w] = self.size;
        // SAFETY: all pixels of the block; `write` checked the shapes.
        unsafe {
            let (first, step) = match self.values {
                Values::Image(image) => (image.as_ptr().add(self.block * h * w * 16), 16),
                Values::Channels(channels) => (channels.as_ptr().add(self.block * 16), 0),
            };
            let mut chains = Chains::zero();
            for top in (0..h).step_by(4) {
                for x in (0..w).step_by(4) {
                    for chain in 0..4 {
                        if top + chain < h {
                            let live = (w - x).min(4);
                            let at = first.add(((top + chain) * w + x) * step);
                            let values = std::array::from_fn(|i| L::load(at.add(i.min(live - 1) * step)));
                            rows.take(values, top + chain, x, live, chain, &mut chains);
                        }
                    }
                }
            }
            self.sink.close(self.n, self.block, &chains);
        }
    }
}
