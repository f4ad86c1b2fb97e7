//! Gradients of k weights of each filter, each a dot product of one channel of the output's gradient
//! with one channel of the input, shifted. Knows one image at a time.
//!
//! Both images are turned into planes of one channel whose rows have the output's bordered width, a
//! plane per parity for stride 2; then every dot product runs over contiguous floats, and the
//! gradient's border of zeros hides what the rows' ends multiply. A dot product is sixteen chains,
//! one of each index modulo 16 of such a plane, over all images; at the very end they are added
//! pairwise: i and i + 8, then i + 4, i + 2, i + 1.
#![allow(unsafe_code)] // the inner loop runs on pointers whose bounds are checked once per call
#![allow(clippy::needless_range_loop)] // one index serves two arrays

use super::{
    ahead::Next,
    conv::{Sizes, bordered},
    lanes::{Lanes, lanes_dispatch},
};

/// Channels in a block, and chains of a dot product.
const LANES: usize = 16;

/// Which weights, and where their planes lie.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    sizes: Sizes,
    /// `K k`: where the input's first factor lies among the planes.
    starts: Vec<usize>,
    /// Row and column parities that need a plane.
    parities: Vec<[usize; 2]>,
}

impl Positions {
    /// Of the weights at `positions`: `K k` flat indices into `K C R S`, filter by filter.
    pub(super) fn new(sizes: Sizes, positions: &[u32]) -> Self {
        let (n, s) = (sizes.kernel, sizes.stride);
        let (fan_in, k) = (sizes.len() / sizes.filters, positions.len() / sizes.filters);
        let parities = if n == 1 {
            vec![[1 % s, 1 % s]]
        } else {
            (0..s * s).map(|p| [p / s, p % s]).collect::<Vec<_>>()
        };
        let mut this = Self { sizes, starts: Vec::new(), parities };
        let starts = positions.iter().enumerate().map(|(i, &position)| {
            let filter = position as usize / fan_in;
            assert_eq!(filter, i / k, "position {i} belongs to another filter");
            let (c, tap) = (position as usize % fan_in / (n * n), position as usize % (n * n));
            let at = [tap / n, tap % n].map(|t| t + 1 - n / 2); // a 1x1 filter starts inside the border
            let plane = this.parities.iter().position(|p| *p == at.map(|t| t % s)).unwrap_or(0);
            (c * this.parities.len() + plane) * this.plane() + at[0] / s * this.wide() + at[1] / s
        });
        this.starts = starts.collect();
        this
    }

    /// Columns of a plane.
    fn wide(&self) -> usize {
        self.sizes.output[1] + 2
    }

    /// Products of a dot product: from the first pixel of the output to the last.
    fn products(&self) -> usize {
        self.sizes.output[0] * self.wide() - 2
    }

    /// Floats of a plane: the bordered output's, and what the last sixteen chains may touch; whole
    /// cache lines.
    fn plane(&self) -> usize {
        ((self.sizes.output[0] + 2) * self.wide() + LANES).next_multiple_of(LANES)
    }

    fn k(&self) -> usize {
        self.starts.len() / self.sizes.filters
    }

    pub(super) fn sum_len(&self) -> usize {
        self.starts.len() * LANES
    }

    pub(super) fn scratch_len(&self) -> usize {
        (self.sizes.channels.next_multiple_of(LANES) * self.parities.len() + LANES) * self.plane() + LANES
    }

    /// Adds each dot product's chains.
    pub(super) fn unpack(&self, sum: &[f32], out: &mut [f32]) {
        assert_eq!(out.len(), self.starts.len(), "one gradient");
        for (chains, out) in sum.chunks_exact(LANES).zip(out) {
            let mut chains: [f32; LANES] = std::array::from_fn(|i| chains[i]);
            for half in [8, 4, 2, 1] {
                for i in 0..half {
                    chains[i] += chains[i + half];
                }
            }
            *out = chains[0];
        }
    }
}

lanes_dispatch!(
    /// Adds `images` images' share to `sum`, `[K][k][16 chains]`.
    ///
    /// # Safety
    /// The slices hold that many bordered images, one sum and the scratch.
    pub(super) unsafe fn add(
        this: &Positions,
        images: usize,
        maps: [&[f32]; 2],
        sum: &mut [f32],
        scratch: &mut [f32],
        next: &mut Next,
    ) = add_on
);

#[inline(always)]
unsafe fn add_on<L: Lanes>(
    this: &Positions,
    images: usize,
    [x, g]: [&[f32]; 2],
    sum: &mut [f32],
    scratch: &mut [f32],
    next: &mut Next,
) {
    next.divide(images * this.sizes.filters);
    let Sizes { channels, filters, stride, input, output, .. } = this.sizes;
    let aligned = scratch.as_ptr().align_offset(64).min(LANES);
    let (gradients, planes) = scratch[aligned..].split_at_mut(LANES * this.plane());
    let (gradients, planes) = (gradients.as_mut_ptr(), planes.as_mut_ptr());
    let input_block = (input[0] + 2) * (input[1] + 2) * LANES;
    let output_block = (output[0] + 2) * (output[1] + 2) * LANES;
    for image in 0..images {
        for block in 0..channels.div_ceil(LANES) {
            for (i, &[row, column]) in this.parities.iter().enumerate() {
                // SAFETY: pixels of the bordered image, planes of the scratch.
                unsafe {
                    let first = image * bordered(channels, input) + block * input_block;
                    let from = x.as_ptr().add(first + (row * (input[1] + 2) + column) * LANES);
                    let to = planes.add((block * LANES * this.parities.len() + i) * this.plane());
                    let pixels = Pixels {
                        step: stride,
                        row: stride * (input[1] + 2),
                        rows: (input[0] + 2 - row).div_ceil(stride),
                        columns: (input[1] + 2 - column).div_ceil(stride),
                    };
                    planar::<L>(this, pixels, from, to, this.parities.len() * this.plane());
                }
            }
        }
        for block in 0..filters / LANES {
            // SAFETY: as above; the pixels from the first inside the border to the last.
            unsafe {
                let first = image * bordered(filters, output) + block * output_block;
                let from = g.as_ptr().add(first + (this.wide() + 1) * LANES);
                let pixels = Pixels { step: 1, row: 0, rows: 1, columns: this.products() };
                planar::<L>(this, pixels, from, gradients, this.plane());
                for lane in 0..LANES {
                    next.fetch();
                    filter::<L>(this, block * LANES + lane, planes, gradients.add(lane * this.plane()), sum);
                }
            }
        }
    }
}

/// Where the pixels of a plane lie, in pixels.
struct Pixels {
    step: usize,
    row: usize,
    rows: usize,
    columns: usize,
}

/// Turns 16 channels into planes, `apart` floats from one to the next; zeros behind the pixels.
///
/// # Safety
/// `from` holds the pixels, `to` 16 planes.
#[inline(always)]
unsafe fn planar<L: Lanes>(this: &Positions, pixels: Pixels, from: *const f32, to: *mut f32, apart: usize) {
    // Rows without gaps are one long row.
    let flat = pixels.step == 1 && pixels.columns == pixels.row;
    let (rows, columns, wide) = match (flat, pixels.rows) {
        (true, rows) => (1, rows * pixels.columns, rows * pixels.columns),
        (_, 1) => (1, pixels.columns, pixels.columns),
        (_, rows) => (rows, pixels.columns, this.wide()),
    };
    for row in 0..rows {
        for x in (0..wide).step_by(LANES) {
            // SAFETY: what a row's last store writes too much, the next row overwrites; behind the
            // last one a plane has room for 16 floats.
            unsafe {
                let pixel = |i: usize| from.add((row * pixels.row + (x + i) * pixels.step) * LANES);
                let there = columns.saturating_sub(x).min(LANES);
                let mut values = [L::splat(0.0); LANES];
                if there == LANES {
                    for i in 0..LANES {
                        values[i] = L::load(pixel(i));
                    }
                } else {
                    for i in 0..there {
                        values[i] = L::load(pixel(i));
                    }
                }
                let values = L::transpose(values);
                for i in 0..LANES {
                    values[i].store(to.add(i * apart + row * wide + x));
                }
            }
        }
    }
    let written = rows * wide;
    for i in 0..LANES {
        // SAFETY: the rest of plane i.
        unsafe { to.add(i * apart + written).write_bytes(0, this.plane() - written) }
    }
}

/// All dot products of one filter.
///
/// # Safety
/// `planes` and `sum` are whole, `gradient` is the filter's plane.
#[inline(always)]
unsafe fn filter<L: Lanes>(
    this: &Positions,
    filter: usize,
    planes: *const f32,
    gradient: *const f32,
    sum: &mut [f32],
) {
    let mut i = filter * this.k();
    let end = i + this.k();
    // SAFETY: the caller's promise; i stays below the number of positions.
    unsafe {
        while i < end {
            i += match end - i {
                4.. => dots::<L, 4>(this, i, planes, gradient, sum),
                2.. => dots::<L, 2>(this, i, planes, gradient, sum),
                _ => dots::<L, 1>(this, i, planes, gradient, sum),
            }
        }
    }
}

/// `D` dot products of one filter, from number `first` of all.
///
/// # Safety
/// As [`filter`].
#[inline(always)]
unsafe fn dots<L: Lanes, const D: usize>(
    this: &Positions,
    first: usize,
    planes: *const f32,
    gradient: *const f32,
    sum: &mut [f32],
) -> usize {
    // SAFETY: the caller's promise; the last sixteen products end inside a plane.
    unsafe {
        let sum = sum.as_mut_ptr().add(first * LANES);
        let (mut inputs, mut chains) = ([planes; D], [L::splat(0.0); D]);
        for d in 0..D {
            inputs[d] = planes.add(this.starts[first + d]);
            chains[d] = L::load(sum.add(d * LANES));
        }
        for i in (0..this.products()).step_by(LANES) {
            let g = L::load(gradient.add(i));
            for d in 0..D {
                chains[d] = L::load(inputs[d].add(i)).fma(g, chains[d]);
            }
        }
        for d in 0..D {
            chains[d].store(sum.add(d * LANES));
        }
    }
    D
}
