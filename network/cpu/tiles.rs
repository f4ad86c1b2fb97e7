//! Winograd convolutions with what stands before and behind them, in one sweep: rows of a
//! [`Source`] are made in a ring of eight, tiles of them transformed, multiplied and transformed
//! back into a [`Sink`]. Knows no batch and no threads.
//!
//! A group of tiles is a number of whole strips (four rows of an image); strips of several images
//! share a group where maps are small. No sum depends on the grouping.
#![allow(unsafe_code)] // kernels on raw pointers; bounds are checked once, in `run`

use std::ops::Range;

use super::{
    ahead::Ahead,
    buffers::Images,
    lanes::{Isa, Lanes, lanes_dispatch},
    products::multiply_panel,
    sink_rows::{Chains, HELD, Rows, Visit},
    sinks::Sink,
    sources::Source,
    stored::Stored,
    transforms::{transform, untransform_half},
    winograd::{LANES, M, N, WIDE_GROUP, Winograd, row, wide},
};

/// Tiles in a group, about: few, so that they stay in the caches, but enough to use a filter often
/// where it is transformed for the group.
fn tiles(conv: &Winograd) -> usize {
    if wide(conv.channels, conv.filters) { WIDE_GROUP } else { 16 }
}

/// Rows of a ring: a strip's six, and the next power of two.
const RING: usize = 8;

/// Images that one call should be given so that groups are full: a question of shape alone.
pub(crate) fn images_per_call(conv: &Winograd) -> usize {
    let [h, w] = conv.size;
    (tiles(conv) / (h.div_ceil(M) * w.div_ceil(M))).max(1)
}

/// Floats of scratch memory that a call needs.
pub(crate) fn scratch_len(conv: &Winograd) -> usize {
    let sums = images_per_call(conv) * conv.filters / LANES * HELD;
    conv.scratch_len() + conv.channels / LANES * ring_len(conv.size[1]) + sums
}

/// Floats of a ring: rows with a zero on both sides, whole tiles wide.
fn ring_len(w: usize) -> usize {
    RING * ring_row(w)
}

#[inline]
fn ring_row(w: usize) -> usize {
    (w.next_multiple_of(M) + 2) * LANES
}

/// Channels at most of which those that have only zeros are left out.
const CHANNELS: usize = 2048;

/// Convolves `images` of `source` into `sink`, no more than [`images_per_call`]; `far`: their maps are
/// likely to be out of the caches. What `scratch` holds before does not matter.
///
/// # Safety
/// The caller has these images to itself in every part of source and sink.
///
/// # Panics
/// Where a part has another shape than the convolution, or the scratch is too short.
pub(crate) unsafe fn run<S: Stored>(
    isa: Isa,
    conv: &Winograd,
    source: Source<'_, S>,
    sink: Sink<'_, S>,
    images: Range<usize>,
    far: bool,
    scratch: &mut [f32],
) {
    source.check(conv.channels / LANES, conv.size);
    sink.check(conv.filters / LANES, conv.size);
    assert!(images.len() <= images_per_call(conv), "too many images");
    assert!(conv.size[1].div_ceil(M) <= conv.group(), "a strip is wider than a group");
    assert!(scratch.len() >= scratch_len(conv), "scratch too short");
    let (spectra, rest) = scratch.split_at_mut(N * N * conv.spectra_stride());
    let (products, rest) = rest.split_at_mut(N * N * conv.products_stride());
    let (room, rest) = rest.split_at_mut(conv.panel_len());
    let (rings, sums) = rest.split_at_mut(conv.channels / LANES * ring_len(conv.size[1]));
    let spectra = spectra.as_mut_ptr();
    // One block of channels and one of filters: products take the place of what they were made of.
    let in_place = conv.channels == LANES && conv.filters == LANES;
    let products = if in_place { spectra } else { products.as_mut_ptr() };
    let job = Job {
        conv,
        source,
        sink,
        images,
        far,
        spectra,
        products,
        room: room.as_mut_ptr(),
        rings: rings.as_mut_ptr(),
        sums: sums.as_mut_ptr(),
    };
    // SAFETY: shapes and lengths are checked; the images are the caller's promise.
    unsafe { run_on(isa, &job) }
}

/// Convolves all images of `x` into `z`, with nothing before them and nothing behind: what is compared with
/// plain loops, and timed by itself. What `scratch` holds before does not matter.
///
/// # Panics
/// As [`run`], and where `x` and `z` hold different numbers of images.
pub(crate) fn alone(isa: Isa, conv: &Winograd, x: &Images<f32>, z: &mut Images<f32>, scratch: &mut [f32]) {
    assert_eq!(x.count(), z.count(), "as many results as images");
    let (source, sink) = (Source::Plain(x), Sink::Keep { z: &*z, sums: None });
    for first in (0..x.count()).step_by(images_per_call(conv)) {
        let images = first..(first + images_per_call(conv)).min(x.count());
        // SAFETY: `x` is only read, and `z` nobody else holds.
        unsafe { run(isa, conv, source, sink, images, false, scratch) }
    }
}

/// Images of a source on their way through a convolution into a sink.
pub(super) struct Job<'a, S: Stored> {
    pub(crate) conv: &'a Winograd,
    pub(crate) source: Source<'a, S>,
    pub(crate) sink: Sink<'a, S>,
    pub(crate) images: Range<usize>,
    pub(crate) far: bool,
    spectra: *mut f32,
    products: *mut f32,
    room: *mut f32,
    rings: *mut f32,
    sums: *mut f32,
}

lanes_dispatch!(unsafe fn run_on<S>(job: &Job<'_, S>) = run_with);

/// # Safety
/// All of [`run`]'s checks passed.
#[inline(always)]
unsafe fn run_with<L: Lanes, S: Stored>(job: &Job<'_, S>) {
    let [h, w] = job.conv.size;
    let (strips, across) = (h.div_ceil(M), w.div_ceil(M));
    let all = job.images.len() * strips;
    let groups = all.div_ceil((tiles(job.conv) / across).max(1));
    let per_group = all.div_ceil(groups); // evenly, so that no group is nearly empty
    let mut live = [0; CHANNELS];
    let mut rows = [[0; RING]; CHANNELS / LANES];
    // SAFETY: strips, blocks and tiles lie inside what `run` checked.
    unsafe {
        clear_edges::<L>(job);
        for first in (0..all).step_by(per_group) {
            let count = per_group.min(all - first);
            let mut alive = 0;
            for block in 0..job.conv.channels / LANES {
                let rows = &mut rows[block % (CHANNELS / LANES)];
                let mut mask = 0;
                for s in 0..count {
                    mask |= read_strip::<L, S>(job, block, first + s, s * across, rows);
                }
                while mask != 0 && alive < CHANNELS {
                    live[alive] = (block * LANES) as u16 + mask.trailing_zeros() as u16;
                    alive += 1;
                    mask &= mask - 1;
                }
            }
            // Behind a rectifier many channels are switched off, more and more while BatchNorm trains. A list of the
            // others pays where they are clearly fewer.
            let few = job.conv.finite && job.conv.channels <= CHANNELS && 8 * alive <= 7 * job.conv.channels;
            let live = few.then_some(&live[..alive]);
            let mut ahead = Ahead::new(job, first, count);
            let mut meanwhile = || ahead.fetch();
            for panel in 0..job.conv.filters / job.conv.width() {
                let (filters, tiles) = (job.conv.panel::<L>(panel, job.room), count * across);
                multiply_panel::<L>(
                    job.conv,
                    filters,
                    job.spectra,
                    job.products,
                    tiles,
                    live,
                    &mut meanwhile,
                );
                for column in (0..job.conv.width()).step_by(LANES) {
                    let mut s = first;
                    while s < first + count {
                        let end = ((s / strips + 1) * strips).min(first + count);
                        let products = job.products.add((s - first) * across * job.conv.width() + column);
                        write_strips::<L, S>(
                            job,
                            (panel * job.conv.width() + column) / LANES,
                            s..end,
                            products,
                        );
                        s = end;
                    }
                }
            }
        }
    }
}

/// Zeros left and right of the ring's rows.
///
/// # Safety
/// As [`run_with`].
#[inline(always)]
unsafe fn clear_edges<L: Lanes>(job: &Job<'_, impl Stored>) {
    let w = job.conv.size[1];
    for row in 0..job.conv.channels / LANES * RING {
        for x in std::iter::once(0).chain(w + 1..w.next_multiple_of(M) + 2) {
            // SAFETY: a pixel of a ring's row.
            unsafe { L::splat(0.0).store(job.rings.add(row * ring_row(w) + x * LANES)) }
        }
    }
}

/// Makes the rows of strip `strip` (counted over all images) that the one before did not, and
/// transforms its tiles; the first is tile `tile` of its group. Returns which channels have more than zeros in them;
/// `live` has that of each row of the ring.
///
/// # Safety
/// As [`run_with`].
#[inline(always)]
unsafe fn read_strip<L: Lanes, S: Stored>(
    job: &Job<'_, S>,
    block: usize,
    strip: usize,
    tile: usize,
    live: &mut [u16; RING],
) -> u16 {
    let [h, w] = job.conv.size;
    let (strips, across) = (h.div_ceil(M), w.div_ceil(M));
    let (image, top) = (job.images.start + strip / strips, strip % strips * M);
    // SAFETY: row y of the image, which is row y + 1 of the bordered one, lives in row (y + 1)
    // modulo RING of the ring; tiles are at most `across`, whose pixels the rows hold.
    unsafe {
        let ring = job.rings.add(block * ring_len(w));
        let line = |bordered: usize| ring.add(bordered % RING * ring_row(w));
        let new = if top == 0 { 0 } else { top + 2 };
        for bordered in new..top + N {
            if bordered == 0 || bordered > h {
                for x in 0..w {
                    L::splat(0.0).store(line(bordered).add((x + 1) * LANES));
                }
                live[bordered % RING] = 0;
            } else {
                let bits = job.source.row::<L>(image, block, bordered - 1, [h, w], line(bordered).add(LANES));
                live[bordered % RING] = bits.nonzero();
            }
        }
        let rows: [*mut f32; N] = std::array::from_fn(|y| line(top + y));
        for t in 0..across {
            let out = job.spectra.add((tile + t) * row(job.conv.channels) + block * LANES);
            transform::<L>(
                rows.map(|row| row.add(t * M * LANES).cast_const()),
                out,
                job.conv.spectra_stride(),
            );
        }
    }
    (top..top + N).fold(0, |all, bordered| all | live[bordered % RING])
}

/// Transforms the tiles of these strips of one image back, into the sink; `products` begins with the
/// first of them.
///
/// # Safety
/// As [`run_with`].
#[inline(always)]
unsafe fn write_strips<L: Lanes, S: Stored>(
    job: &Job<'_, S>,
    block: usize,
    range: Range<usize>,
    products: *const f32,
) {
    let [h, w] = job.conv.size;
    let strips = h.div_ceil(M);
    let local = range.start / strips;
    let first = range.start % strips;
    let visit = Back {
        products,
        width: job.conv.width(),
        stride: job.conv.products_stride(),
        // SAFETY: one for each block of each image.
        held: unsafe { job.sums.add((local * (job.conv.filters / LANES) + block) * HELD) },
        first,
        end: first + range.len(),
        size: [h, w],
        sink: &job.sink,
        image: job.images.start + local,
        block,
    };
    // SAFETY: as the caller.
    unsafe { job.sink.open::<L>(job.images.start + local, block, [h, w], visit) }
}

struct Back<'a, S: Stored> {
    products: *const f32,
    width: usize,
    stride: usize,
    held: *mut f32,
    first: usize,
    end: usize,
    size: [usize; 2],
    sink: &'a Sink<'a, S>,
    image: usize,
    block: usize,
}

impl<L: Lanes, S: Stored> Visit<L> for Back<'_, S> {
    #[inline(always)]
    unsafe fn with<R: Rows<L>>(self, rows: R) {
        let [h, w] = self.size;
        let across = w.div_ceil(M);
        // SAFETY: tiles and pixels lie inside what `run` checked.
        unsafe {
            let mut chains = if self.first == 0 { Chains::zero() } else { Chains::load(self.held) };
            for strip in self.first..self.end {
                for t in 0..across {
                    let from = self.products.add(((strip - self.first) * across + t) * self.width);
                    let whole = strip * M + M <= h && t * M + M <= w;
                    if whole {
                        untransform::<L, R, true>(
                            &rows,
                            from,
                            self.stride,
                            [strip * M, t * M],
                            self.size,
                            &mut chains,
                        );
                    } else {
                        untransform::<L, R, false>(
                            &rows,
                            from,
                            self.stride,
                            [strip * M, t * M],
                            self.size,
                            &mut chains,
                        );
                    }
                }
            }
            if self.end == h.div_ceil(M) {
                self.sink.close(self.image, self.block, &chains);
            } else {
                chains.store(self.held);
            }
        }
    }
}

/// One tile back to its 4x4 outputs, rows 0 and 2 first, then 1 and 3: each half stays in registers.
///
/// # Safety
/// `from` holds 36 matrices; the tile begins inside the image.
#[inline(always)]
unsafe fn untransform<L: Lanes, R: Rows<L>, const WHOLE: bool>(
    rows: &R,
    from: *const f32,
    stride: usize,
    [top, left]: [usize; 2],
    [h, w]: [usize; 2],
    chains: &mut Chains<L>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let live = if WHOLE { M } else { M.min(w - left) };
        let [zeroth, second] = untransform_half::<L, 0>(from, stride);
        rows.take(zeroth, top, left, live, 0, chains);
        if WHOLE || top + 2 < h {
            rows.take(second, top + 2, left, live, 2, chains);
        }
        let [first, third] = untransform_half::<L, 1>(from, stride);
        if WHOLE || top + 1 < h {
            rows.take(first, top + 1, left, live, 1, chains);
        }
        if WHOLE || top + 3 < h {
            rows.take(third, top + 3, left, live, 3, chains);
        }
    }
}

#[cfg(test)]
#[path = "tiles_tests.rs"]
mod tests;
