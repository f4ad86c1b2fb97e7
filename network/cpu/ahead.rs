//! What the caches will need next, fetched bit by bit while the processor multiplies: strips of maps
//! for a convolution, whole images for a gradient of filters. Knows no arithmetic; whatever it does
//! changes no result.

use std::ops::Range;

use super::{
    buffers::Images,
    lanes::prefetch_later,
    stored::Stored,
    tiles::Job,
    winograd::{LANES, M, N},
};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Cache lines of so many pixels.
fn lines<S>(pixels: usize) -> usize {
    (pixels * LANES * size_of::<S>()).div_ceil(LINE)
}

/// A map, its blocks of 16 channels, and some of its strips, counted over all images.
type Part<'a, S> = (&'a Images<S>, usize, Range<usize>);

/// What the caches will need next.
pub(super) struct Ahead<'a, S: Stored> {
    job: &'a Job<'a, S>,
    parts: [Option<Part<'a, S>>; 5],
    part: usize,
    /// Strips times blocks that were fetched of the current part, and lines of the next.
    done: [usize; 2],
    /// Lines to fetch at a time.
    share: usize,
}

impl<'a, S: Stored> Ahead<'a, S> {
    /// The sink of the group of `count` strips that begins with `first`, and the next group's source.
    /// That may belong to another call: a worker's items follow each other.
    #[inline(always)]
    pub(super) fn new(job: &'a Job<'a, S>, first: usize, count: usize) -> Self {
        let [h, w] = job.conv.size;
        let (first, strips) = (first + job.images.start * h.div_ceil(M), h.div_ceil(M));
        let [a, b, c] =
            job.sink.parts().map(|map| Some((map?, job.conv.filters / LANES, first..first + count)));
        let [d, e] = job.source.parts().map(|map| {
            let end = (first + 2 * count).min(map?.count() * strips);
            Some((map?, job.conv.channels / LANES, first + count..end))
        });
        let parts = if job.far { [a, b, c, d, e] } else { [const { None }; 5] };
        let pieces: usize = parts.iter().flatten().map(|(_, blocks, strips)| blocks * strips.len()).sum();
        let share = (pieces * lines::<S>(M * w)).div_ceil(N * N * job.conv.filters / job.conv.width());
        Self { job, parts, part: 0, done: [0, 0], share }
    }

    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        let [h, w] = self.job.conv.size;
        let strips = h.div_ceil(M);
        let mut left = self.share;
        while left > 0 && self.part < self.parts.len() {
            let [piece, line] = self.done;
            let Some((map, blocks, range)) = &self.parts[self.part] else {
                self.part += 1;
                continue;
            };
            if piece >= blocks * range.len() {
                (self.part, self.done) = (self.part + 1, [0, 0]);
                continue;
            }
            let strip = range.start + piece / blocks;
            let (image, top) = (strip / strips, strip % strips * M);
            let from = map.ptr(image).wrapping_add((piece % blocks * h + top) * w * LANES);
            let lines = lines::<S>(M.min(h - top) * w);
            let now = left.min(lines - line);
            for i in line..line + now {
                prefetch_later(from.wrapping_byte_add(i * LINE));
            }
            left -= now;
            self.done = if line + now == lines { [piece + 1, 0] } else { [piece, line + now] };
        }
    }
}

/// Images that the next gradient of filters will read, in equal portions.
#[derive(Default)]
pub(super) struct Next {
    /// Where they begin, and their cache lines.
    parts: [Option<(*const u8, usize)>; 4],
    part: usize,
    done: usize,
    /// Lines to fetch at a time.
    share: usize,
}

impl Next {
    /// These images of what two sources read.
    pub(super) fn of<S: Stored>(maps: [Option<&Images<S>>; 4], images: Range<usize>) -> Self {
        let part = |map: &Images<S>| {
            let first = map.ptr(images.start).cast_const().cast();
            (first, lines::<S>(images.len() * map.size() / LANES))
        };
        let parts = if images.is_empty() { [None; 4] } else { maps.map(|map| map.map(part)) };
        Self { parts, ..Self::default() }
    }

    /// From here on all of them in so many portions.
    pub(super) fn divide(&mut self, portions: usize) {
        let lines: usize = self.parts.iter().flatten().map(|(_, lines)| lines).sum();
        self.share = lines.div_ceil(portions.max(1));
    }

    /// A portion.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        let mut left = self.share;
        while left > 0 && self.part < self.parts.len() {
            let Some((first, lines)) = self.parts[self.part].filter(|(_, lines)| *lines > self.done) else {
                (self.part, self.done) = (self.part + 1, 0);
                continue;
            };
            let end = lines.min(self.done + left);
            for line in self.done..end {
                prefetch_later(first.wrapping_add(line * LINE));
            }
            left -= end - self.done;
            self.done = end;
        }
    }
}
