//! What a convolution reads, made row by row while it is read: normalised, added, rectified,
//! pooled; on the way back the gradient behind a BatchNorm. Knows no convolution.
#![allow(unsafe_code)] // rows of images that one worker has to itself

use super::{buffers::Images, lanes::Lanes, stored::Stored};

/// A per-channel line: `scale z + shift`.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    /// One per channel.
    pub(crate) scale: &'a [f32],
    /// One per channel.
    pub(crate) shift: &'a [f32],
}

/// The outputs of a convolution and the BatchNorm behind it.
#[derive(Clone, Copy)]
pub(crate) struct Normal<'a, S: Stored> {
    /// `[image][C/16][H][W][16]`
    pub(crate) z: &'a Images<S>,
    /// The BatchNorm.
    pub(crate) line: Line<'a>,
}

/// What is added before a rectifier.
#[derive(Clone, Copy)]
pub(crate) enum Side<'a, S: Stored> {
    /// Nothing.
    None,
    /// An earlier input.
    Identity(&'a Images<S>),
    /// A projection.
    Projection(Normal<'a, S>),
}

impl<'a, S: Stored> Side<'a, S> {
    /// What is added, or what becomes that.
    pub(super) fn map(&self) -> Option<&'a Images<S>> {
        match self {
            Side::None => None,
            Side::Identity(x) => Some(x),
            Side::Projection(p) => Some(p.z),
        }
    }
}

/// Images of `[C/16][H][W][16]` that do not exist until they are read.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a, S: Stored> {
    /// These.
    Plain(&'a Images<S>),
    /// relu(line(z) + side). Where they are given, `x` gets the result (it may be the side's) and
    /// `mask` which elements are above zero.
    Rectified {
        /// Convolution and BatchNorm.
        main: Normal<'a, S>,
        /// The shortcut.
        side: Side<'a, S>,
        /// Where to keep the result.
        x: Option<&'a Images<S>>,
        /// Where to keep its signs.
        mask: Option<&'a Images<u16>>,
    },
    /// The maximum of each 2x2 pixels of relu(line(z)), which has twice the rows and columns.
    Pooled(Normal<'a, S>),
    /// `a g + b z + c`: the gradient of z from that of its BatchNorm's output.
    Gradient {
        /// The gradient of the BatchNorm's output.
        g: &'a Images<S>,
        /// The convolution's output.
        z: &'a Images<S>,
        /// One of each per channel.
        abc: [&'a [f32]; 3],
    },
    /// The same behind a maximum: `g` has half the rows and columns, and each of its elements goes
    /// to the first of the largest of 2x2.
    Unpooled {
        /// The gradient of the maximum, zero where that is zero.
        g: &'a Images<S>,
        /// Convolution and BatchNorm.
        main: Normal<'a, S>,
        /// One of each per channel.
        abc: [&'a [f32]; 3],
    },
}

impl<S: Stored> Source<'_, S> {
    /// Panics unless all parts hold images of `blocks` blocks of 16 channels and `size` rows and
    /// columns: a bug of the caller.
    pub(crate) fn check(&self, blocks: usize, [h, w]: [usize; 2]) {
        let len = blocks * h * w * 16;
        let lines = |line: &Line<'_>| line.scale.len() == blocks * 16 && line.shift.len() == blocks * 16;
        let three = |abc: &[&[f32]; 3]| abc.iter().all(|p| p.len() == blocks * 16);
        assert!(match self {
            Source::Plain(x) => x.size() == len,
            Source::Rectified { main, side, x, mask } => {
                main.z.size() == len
                    && lines(&main.line)
                    && x.is_none_or(|x| x.size() == len)
                    && mask.is_none_or(|mask| mask.size() * 16 == len)
                    && match side {
                        Side::None => true,
                        Side::Identity(x) => x.size() == len,
                        Side::Projection(p) => p.z.size() == len && lines(&p.line),
                    }
            }
            Source::Pooled(main) => main.z.size() == 4 * len && lines(&main.line),
            Source::Gradient { g, z, abc } => g.size() == len && z.size() == len && three(abc),
            Source::Unpooled { g, main, abc } => {
                let fits = h % 2 == 0 && w % 2 == 0 && 4 * g.size() == len;
                fits && main.z.size() == len && lines(&main.line) && three(abc)
            }
        });
    }

    /// The maps that [`Source::row`] reads, those of other sizes left out.
    pub(super) fn parts(&self) -> [Option<&Images<S>>; 2] {
        match self {
            Source::Plain(x) => [Some(x), None],
            Source::Rectified { main, side, .. } => [Some(main.z), side.map()],
            Source::Pooled(_) => [None, None],
            Source::Gradient { g, z, .. } => [Some(g), Some(z)],
            Source::Unpooled { main, .. } => [Some(main.z), None],
        }
    }

    /// Writes row `y` of block `block` of image `n` to `out`, and returns the bits of all its pixels together: which
    /// channels have only zeros there.
    ///
    /// # Safety
    /// [`Source::check`] passed for this size; the row exists; `out` holds `w` pixels; the caller
    /// has image `n` of every part to itself.
    #[inline(always)]
    pub(crate) unsafe fn row<L: Lanes>(
        &self,
        n: usize,
        block: usize,
        y: usize,
        [h, w]: [usize; 2],
        out: *mut f32,
    ) -> L {
        let first = (block * h + y) * w;
        // SAFETY: all parts hold the row, by the caller's promise.
        unsafe {
            let zero = L::splat(0.0);
            let mut bits = zero;
            match self {
                Source::Plain(x) => {
                    let x = x.ptr(n).add(first * 16);
                    for i in 0..w {
                        let v = S::load::<L>(x.add(i * 16));
                        bits = bits.or(v);
                        v.store(out.add(i * 16));
                    }
                }
                Source::Rectified { main, side, x, mask } => {
                    let line = main.at::<L>(n, block, first);
                    let side = match side {
                        Side::None => None,
                        Side::Identity(x) => Some(At::<L, S>::identity(x.ptr(n).add(first * 16))),
                        Side::Projection(p) => Some(p.at::<L>(n, block, first)),
                    };
                    let x = x.map(|x| x.ptr(n).add(first * 16));
                    let mask = mask.map(|mask| mask.ptr(n).add(first));
                    for i in 0..w {
                        let mut v = line.value(i);
                        if let Some(side) = &side {
                            v = v.add(side.value(i));
                        }
                        if let Some(mask) = mask {
                            *mask.add(i) = v.positive();
                        }
                        let mut v = zero.max(v); // in this order NaN survives
                        if let Some(x) = x {
                            v = S::store(v, x.add(i * 16));
                        }
                        bits = bits.or(v);
                        v.store(out.add(i * 16));
                    }
                }
                Source::Pooled(main) => {
                    let (up, down) = main.rows::<L>(n, block, y, [h, w]);
                    for i in 0..w {
                        let (a, b) = (up.value(2 * i), up.value(2 * i + 1));
                        let (c, d) = (down.value(2 * i), down.value(2 * i + 1));
                        let largest = zero.max(a.max(b).max(c.max(d)));
                        // `max` drops NaN of its first operand; a sum drops none, and zero times it adds zero.
                        let v = a.add(b).add(c.add(d)).fma(zero, largest);
                        bits = bits.or(v);
                        v.store(out.add(i * 16));
                    }
                }
                Source::Gradient { g, z, abc } => {
                    let [a, b, c] = abc.map(|p| L::load(p.as_ptr().add(block * 16)));
                    let (g, z) = (g.ptr(n).add(first * 16), z.ptr(n).add(first * 16));
                    for i in 0..w {
                        let behind = S::load::<L>(z.add(i * 16)).fma(b, c);
                        let v = S::load::<L>(g.add(i * 16)).fma(a, behind);
                        bits = bits.or(v);
                        v.store(out.add(i * 16));
                    }
                }
                Source::Unpooled { g, main, abc } => {
                    let [a, b, c] = abc.map(|p| L::load(p.as_ptr().add(block * 16)));
                    let (up, down) = main.rows::<L>(n, block, y / 2, [h / 2, w / 2]);
                    let g = g.ptr(n).add((block * (h / 2) + y / 2) * (w / 2) * 16);
                    for i in 0..w / 2 {
                        let d = S::load::<L>(g.add(i * 16));
                        let own = if y.is_multiple_of(2) { &up } else { &down };
                        for (side, winner) in
                            winners(&up, &down, i).into_iter().skip(y % 2 * 2).take(2).enumerate()
                        {
                            let behind = S::load::<L>(own.z.add((2 * i + side) * 16)).fma(b, c);
                            let v = d.keep(winner).fma(a, behind);
                            bits = bits.or(v);
                            v.store(out.add((2 * i + side) * 16));
                        }
                    }
                }
            }
            bits
        }
    }
}

/// A row of z and its channels' line.
pub(super) struct At<L, S> {
    pub(crate) z: *const S,
    pub(crate) scale: L,
    pub(crate) shift: L,
}

impl<L: Lanes, S: Stored> At<L, S> {
    /// The line that changes nothing.
    ///
    /// # Safety
    /// As [`Lanes::splat`].
    #[inline(always)]
    pub(super) unsafe fn identity(z: *const S) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { z, scale: L::splat(1.0), shift: L::splat(0.0) } }
    }

    /// The line at pixel `i`.
    ///
    /// # Safety
    /// The row has that pixel.
    #[inline(always)]
    pub(super) unsafe fn value(&self, i: usize) -> L {
        // SAFETY: the caller's promise.
        unsafe { S::load::<L>(self.z.add(i * 16)).fma(self.scale, self.shift) }
    }
}

impl<S: Stored> Normal<'_, S> {
    /// The row that begins at pixel `first` of image `n`.
    ///
    /// # Safety
    /// It exists, and so does `block`.
    #[inline(always)]
    pub(super) unsafe fn at<L: Lanes>(&self, n: usize, block: usize, first: usize) -> At<L, S> {
        // SAFETY: the caller's promise.
        unsafe {
            At {
                z: self.z.ptr(n).add(first * 16),
                scale: L::load(self.line.scale.as_ptr().add(block * 16)),
                shift: L::load(self.line.shift.as_ptr().add(block * 16)),
            }
        }
    }

    /// The two rows behind row `y` of a pooled map of `h` rows and `w` columns.
    ///
    /// # Safety
    /// As [`Normal::at`].
    #[inline(always)]
    pub(super) unsafe fn rows<L: Lanes>(
        &self,
        n: usize,
        block: usize,
        y: usize,
        [h, w]: [usize; 2],
    ) -> (At<L, S>, At<L, S>) {
        let first = (block * h + y) * 4 * w;
        // SAFETY: the caller's promise.
        unsafe { (self.at(n, block, first), self.at(n, block, first + 2 * w)) }
    }
}

/// Of 2x2 pixels in reading order: in which lanes each is the first of the largest.
///
/// # Safety
/// The rows have pixels 2 i and 2 i + 1.
#[inline(always)]
pub(super) unsafe fn winners<L: Lanes, S: Stored>(up: &At<L, S>, down: &At<L, S>, i: usize) -> [u16; 4] {
    // SAFETY: the caller's promise.
    let [a, b, c, d] =
        unsafe { [up.value(2 * i), up.value(2 * i + 1), down.value(2 * i), down.value(2 * i + 1)] };
    let (second, fourth) = (b.sub(a).positive(), d.sub(c).positive());
    let lower = c.max(d).sub(a.max(b)).positive();
    [!second & !lower, second & !lower, !fourth & lower, fourth & lower]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::lanes::Portable;

    #[test]
    fn a_maximum_is_not_a_number_where_one_of_its_pixels_is_not() {
        let line = Line { scale: &[1.0; 16], shift: &[0.0; 16] };
        for lane in 0..4 {
            let mut z = Images::<f32>::new(1, 4 * 16);
            z.all().iter_mut().enumerate().for_each(|(i, z)| *z = i as f32 - 20.0);
            z.all()[lane * 16 + lane] = f32::NAN; // another pixel for each lane
            let mut out = [0.0; 16];
            // SAFETY: a map of two by two pixels behind one; the result is sixteen long.
            unsafe {
                Source::Pooled(Normal { z: &z, line }).row::<Portable>(0, 0, 0, [1, 1], out.as_mut_ptr());
            }
            for (i, out) in out.into_iter().enumerate() {
                let expected = if i == lane { f32::NAN } else { (48 + i) as f32 - 20.0 };
                assert!(
                    out == expected || out.is_nan() && expected.is_nan(),
                    "pixel {lane}, lane {i}: {out}"
                );
            }
        }
    }
}
