//! Direct convolutions over blocks of 16 channels, forward and back to the data. Knows one image
//! at a time and no BatchNorm.
//!
//! An image is `[C/16][H][W][16]`; the input of a kernel has a border of one zero pixel. Lanes are
//! output channels. Each output is one chain of fused multiplication-additions: input blocks, then
//! filter rows, filter columns, and channels of the block, in ascending order (of the forward
//! filter, in both directions), so that bits depend on neither tile nor instruction set.
#![allow(unsafe_code)] // the inner loop runs on pointers whose bounds are checked once per image

use super::lanes::{Isa, Lanes, lanes_dispatch};

/// The sizes of a convolution of padding `kernel / 2`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Input channels: a multiple of 16, or less than 16.
    pub(crate) channels: usize,
    /// Output channels: a multiple of 16.
    pub(crate) filters: usize,
    /// Rows and columns of a filter, 1 or 3.
    pub(crate) kernel: usize,
    /// 1 or 2.
    pub(crate) stride: usize,
    /// Input rows and columns, the border not counted.
    pub(crate) input: [usize; 2],
    /// Output rows and columns.
    pub(crate) output: [usize; 2],
}

impl Sizes {
    /// Those with filters `K C R S` = `shape` for an input of rows, columns = `input`.
    ///
    /// # Panics
    /// On a shape or a stride that none may have.
    pub(crate) fn new(
        [filters, channels, kernel, columns]: [usize; 4],
        stride: usize,
        input: [usize; 2],
    ) -> Self {
        assert!(filters.is_multiple_of(16), "filters come in blocks of 16");
        assert!(channels.is_multiple_of(16) || channels < 16, "channels come in blocks of 16");
        assert!(kernel == columns && (kernel == 1 || kernel == 3) && (stride == 1 || stride == 2));
        Self { channels, filters, kernel, stride, input, output: input.map(|n| n.div_ceil(stride)) }
    }

    /// Elements of all filters.
    pub(crate) fn len(&self) -> usize {
        self.filters * self.channels * self.kernel * self.kernel
    }
}

/// A convolution whose weights are packed for both directions.
pub(crate) struct Conv {
    sizes: Sizes,
    /// `[K/16][C/16][R][S][16 c][16 k]`
    forward: Vec<f32>,
    /// `[C/16][K/16][R][S][16 k][16 c]`
    backward: Vec<f32>,
}

/// Floats of a bordered image.
pub(crate) fn bordered(channels: usize, [h, w]: [usize; 2]) -> usize {
    channels.div_ceil(16) * (h + 2) * (w + 2) * 16
}

/// Floats of an image.
pub(crate) fn plain(channels: usize, [h, w]: [usize; 2]) -> usize {
    channels.div_ceil(16) * h * w * 16
}

impl Conv {
    /// Packs `weights`, `K C R S`.
    pub(crate) fn new(sizes: Sizes, weights: &[f32]) -> Self {
        let Sizes { channels, filters, kernel, .. } = sizes;
        let floats = channels.div_ceil(16) * filters / 16 * kernel * kernel * 256;
        let backward = if channels < 16 { Vec::new() } else { vec![0.0; floats] };
        let mut this = Self { sizes, forward: vec![0.0; floats], backward };
        this.set(weights);
        this
    }

    /// Packs other `weights` of the same shape.
    pub(crate) fn set(&mut self, weights: &[f32]) {
        let Sizes { channels, filters, kernel, .. } = self.sizes;
        assert_eq!(weights.len(), self.sizes.len(), "weights do not fill their shape");
        let (inputs, outputs, taps) = (channels.div_ceil(16), filters / 16, kernel * kernel);
        for (i, weights) in weights.chunks_exact(taps).enumerate() {
            let (k, c) = (i / channels, i % channels);
            let forward = (k / 16 * inputs + c / 16) * taps * 256 + c % 16 * 16 + k % 16;
            let backward = (c / 16 * outputs + k / 16) * taps * 256 + k % 16 * 16 + c % 16;
            for (tap, weight) in weights.iter().enumerate() {
                self.forward[forward + tap * 256] = *weight;
                if let Some(to) = self.backward.get_mut(backward + tap * 256) {
                    *to = *weight;
                }
            }
        }
    }

    /// Floats of the packed filters.
    pub(crate) fn filters_len(&self) -> usize {
        self.forward.len() + self.backward.len()
    }

    /// `out` = the convolution of the bordered image `x`.
    pub(crate) fn forward(&self, isa: Isa, x: &[f32], out: &mut [f32]) {
        let Sizes { channels, filters, kernel, stride, input, output } = self.sizes;
        assert_eq!(x.len(), bordered(channels, input), "bordered input");
        assert_eq!(out.len(), plain(filters, output), "output");
        let row = (input[1] + 2) * 16;
        let near = 1 - kernel / 2; // a 1x1 filter starts inside the border
        let taps: Vec<(usize, usize)> = (0..kernel * kernel)
            .map(|t| ((t / kernel + near) * row + (t % kernel + near) * 16, t * 256))
            .collect();
        let planes = channels.div_ceil(16);
        let weights = planes * kernel * kernel * 256;
        let [h, w] = output;
        for (block, out) in out.chunks_exact_mut(h * w * 16).enumerate() {
            let job = Job {
                input: x.as_ptr(),
                row,
                plane: (input[0] + 2) * row,
                planes,
                live: channels.min(16),
                step: stride,
                taps: &taps,
                weights: self.forward[block * weights..][..weights].as_ptr(),
                weight_plane: kernel * kernel * 256,
                out: out.as_mut_ptr(),
                out_row: w * 16,
                out_step: 16,
                size: [h, w],
                accumulate: false,
            };
            // SAFETY: the lengths were checked above; the last tap of the last pixel lies on the
            // far border at most: (h - 1) stride + 2 <= H + 1.
            unsafe { convolve(isa, &job) }
        }
    }

    /// `dx` = the gradient of the input, or that added to `dx`, for the bordered gradient `g` of
    /// the output. Not for a first layer of fewer than 16 channels.
    pub(crate) fn backward(&self, isa: Isa, g: &[f32], dx: &mut [f32], accumulate: bool) {
        let Sizes { channels, filters, kernel, stride: s, input, output } = self.sizes;
        assert!(channels >= 16, "nothing asks for the gradient of the images");
        assert_eq!(g.len(), bordered(filters, output), "bordered gradient");
        assert_eq!(dx.len(), plain(channels, input), "input gradient");
        let row = (output[1] + 2) * 16;
        let (planes, all) = (filters / 16, kernel * kernel * 256);
        let (weights, [h, w]) = (planes * all, input);
        // The pixels of each parity get a filter of their own: the taps that reach them.
        for (py, px) in (0..s * s).map(|p| (p / s, p % s)) {
            let reach = |parity: usize, tap: usize| {
                let shifted = parity + kernel / 2 + s - tap; // >= 0; one pixel for the border
                shifted.is_multiple_of(s).then_some(shifted / s)
            };
            let taps: Vec<(usize, usize)> = (0..kernel * kernel)
                .filter_map(|t| {
                    let (y, x) = (reach(py, t / kernel)?, reach(px, t % kernel)?);
                    Some((y * row + x * 16, t * 256))
                })
                .collect();
            let size = [(h + s - 1 - py) / s, (w + s - 1 - px) / s];
            for (block, out) in dx.chunks_exact_mut(h * w * 16).enumerate() {
                if size[0] == 0 || size[1] == 0 || accumulate && taps.is_empty() {
                    continue; // no pixel, or nothing to add to them
                }
                let job = Job {
                    input: g.as_ptr(),
                    row,
                    plane: (output[0] + 2) * row,
                    planes,
                    live: 16,
                    step: 1,
                    taps: &taps,
                    weights: self.backward[block * weights..][..weights].as_ptr(),
                    weight_plane: all,
                    out: out[(py * w + px) * 16..].as_mut_ptr(),
                    out_row: s * w * 16,
                    out_step: s * 16,
                    size,
                    accumulate,
                };
                // SAFETY: the lengths were checked above; pixel s i + p with i < size lies inside
                // the image, and the taps reach from the near border to the far one.
                unsafe { convolve(isa, &job) }
            }
        }
    }
}

/// One block of 16 output channels of one image; offsets and strides in floats.
struct Job<'a> {
    input: *const f32,
    row: usize,
    plane: usize,
    planes: usize,
    /// Channels of each input block that are not padding.
    live: usize,
    /// Input pixels per output pixel.
    step: usize,
    /// Offset in the input, offset in the weights.
    taps: &'a [(usize, usize)],
    weights: *const f32,
    weight_plane: usize,
    out: *mut f32,
    out_row: usize,
    out_step: usize,
    size: [usize; 2],
    accumulate: bool,
}

lanes_dispatch!(
    /// # Safety
    /// As [`convolve_on`], on any CPU.
    unsafe fn convolve(job: &Job<'_>) = convolve_on
);

/// # Safety
/// As [`image`].
#[inline(always)]
unsafe fn convolve_on<L: Lanes>(job: &Job<'_>) {
    // SAFETY: the caller's promise about `job` holds for each strip of rows.
    unsafe {
        if job.step == 1 {
            image::<L, 1>(job);
        } else {
            image::<L, 2>(job);
        }
    }
}

/// All of an image.
///
/// # Safety
/// The image of `job` is writable, its pixels' taps are readable in every plane, and there is a weight for each. `S` is
/// its `step`. The CPU has the instruction set of `L`, and the caller is compiled for it.
#[inline(always)]
unsafe fn image<L: Lanes, const S: usize>(job: &Job<'_>) {
    let [h, w] = job.size;
    let mut y = 0;
    while y < h {
        // SAFETY: each strip lies within the rows of the image.
        y += unsafe {
            if L::WIDE && w >= 16 {
                strip::<L, S, 1, 16>(job, y)
            } else if L::WIDE && w >= 8 && y + 2 <= h {
                strip::<L, S, 2, 8>(job, y)
            } else if L::WIDE && y + 4 <= h {
                strip::<L, S, 4, 4>(job, y)
            } else {
                strip::<L, S, 1, 4>(job, y)
            }
        };
    }
}

/// `R` rows from `y` on; returns how many.
///
/// # Safety
/// As [`image`]; these rows are within the image.
#[inline(always)]
unsafe fn strip<L: Lanes, const S: usize, const R: usize, const Q: usize>(job: &Job<'_>, y: usize) -> usize {
    let mut x = 0;
    // SAFETY: each tile lies within the columns of the image.
    unsafe {
        while x + Q <= job.size[1] {
            tile::<L, S, R, Q>(job, y, x);
            x += Q;
        }
        while x < job.size[1] {
            tile::<L, S, R, 1>(job, y, x);
            x += 1;
        }
    }
    R
}

/// `R` rows of `Q` pixels.
///
/// # Safety
/// As [`image`]; these pixels are within it.
#[inline(always)]
unsafe fn tile<L: Lanes, const S: usize, const R: usize, const Q: usize>(job: &Job<'_>, y: usize, x: usize) {
    // SAFETY: the pixels lie in the image that `job` describes, and so do their taps.
    unsafe {
        let out = job.out.add(y * job.out_row + x * job.out_step);
        let mut sums = [[L::splat(0.0); Q]; R];
        if job.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (q, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(out.add(r * job.out_row + q * job.out_step));
                }
            }
        }
        let first = job.input.add(y * S * job.row + x * S * 16);
        for plane in 0..job.planes {
            for &(offset, weight) in job.taps {
                let pixels = first.add(plane * job.plane + offset);
                let weights = job.weights.add(plane * job.weight_plane + weight);
                for c in 0..job.live {
                    let w = L::load(weights.add(16 * c));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let pixels = pixels.add(r * S * job.row + c);
                        for (q, sum) in sums.iter_mut().enumerate() {
                            *sum = L::splat(*pixels.add(q * S * 16)).fma(w, *sum);
                        }
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (q, sum) in sums.iter().enumerate() {
                sum.store(out.add(r * job.out_row + q * job.out_step));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASES: [([usize; 4], usize, [usize; 2]); 9] = [
        ([16, 16, 3, 3], 1, [32, 32]),
        ([16, 3, 3, 3], 1, [9, 17]),
        ([32, 16, 3, 3], 2, [8, 8]),
        ([16, 32, 3, 3], 2, [7, 9]),
        ([32, 16, 1, 1], 2, [7, 5]),
        ([16, 16, 1, 1], 1, [3, 21]),
        ([16, 16, 3, 3], 1, [1, 1]),
        ([32, 32, 3, 3], 1, [5, 11]),
        ([16, 16, 3, 3], 2, [33, 34]),
    ];

    fn draw(name: &str, n: usize) -> Vec<f32> {
        let mut s = crate::rng::stream(0, name);
        (0..n).map(|_| s.normal() as f32).collect()
    }

    /// `[C/16][H][W][16]` with a border of `b` zero pixels, from `C H W`.
    fn block(x: &[f32], c: usize, [h, w]: [usize; 2], b: usize) -> Vec<f32> {
        let mut out = vec![0.0; c.div_ceil(16) * (h + 2 * b) * (w + 2 * b) * 16];
        for (i, x) in x.iter().enumerate() {
            let (k, y, z) = (i / (h * w), i / w % h, i % w);
            out[((k / 16 * (h + 2 * b) + y + b) * (w + 2 * b) + z + b) * 16 + k % 16] = *x;
        }
        out
    }

    /// Every product of the convolution: output, input, weight index.
    fn products(sizes: &Sizes, mut each: impl FnMut(usize, usize, usize)) {
        let Sizes { channels, filters, kernel: n, stride, input: [h, w], output: [oh, ow] } = *sizes;
        for i in 0..filters * oh * ow * channels * n * n {
            let (o, tap, c) = (i / (channels * n * n), i % (n * n), i / (n * n) % channels);
            let (k, y, x) = (o / (oh * ow), o / ow % oh, o % ow);
            let row = (y * stride + tap / n).wrapping_sub(n / 2);
            let column = (x * stride + tap % n).wrapping_sub(n / 2);
            if row < h && column < w {
                each(o, (c * h + row) * w + column, (k * channels + c) * n * n + tap);
            }
        }
    }

    fn near(ours: &[f32], expected: &[f32], what: &str) {
        assert_eq!(ours.len(), expected.len(), "{what}");
        for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{what} at {i}: {a} instead of {b}");
        }
    }

    #[test]
    fn both_directions_equal_plain_loops_with_the_same_bits_on_every_instruction_set() {
        for (shape, stride, input) in CASES {
            let what = format!("{shape:?} stride {stride} {input:?}");
            let weights = draw("weights", shape.iter().product());
            let sizes = Sizes::new(shape, stride, input);
            let Sizes { channels, filters, output, .. } = sizes;
            let conv = Conv::new(sizes, &weights);
            let (area, out_area) = (input[0] * input[1], output[0] * output[1]);
            let (x, g) = (draw("x", channels * area), draw("g", filters * out_area));
            let (mut y, mut dx) = (vec![0f64; g.len()], vec![0f64; x.len()]);
            products(&sizes, |o, i, t| {
                y[o] += f64::from(x[i]) * f64::from(weights[t]);
                dx[i] += f64::from(g[o]) * f64::from(weights[t]);
            });
            let narrow = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<_>>();
            let y = block(&narrow(&y), filters, output, 0);
            let dx = block(&narrow(&dx), channels, input, 0);
            let (x, g) = (block(&x, channels, input, 1), block(&g, filters, output, 1));
            let mut bits = Vec::new();
            for isa in Isa::all() {
                let (mut out, mut back) = (vec![f32::NAN; y.len()], vec![f32::NAN; dx.len()]);
                conv.forward(isa, &x, &mut out);
                near(&out, &y, &what);
                if channels >= 16 {
                    conv.backward(isa, &g, &mut back, false);
                    near(&back, &dx, &what);
                    let mut twice = back.clone();
                    conv.backward(isa, &g, &mut twice, true);
                    near(&twice, &dx.iter().map(|x| 2.0 * x).collect::<Vec<_>>(), &what);
                    out.extend(&twice);
                }
                bits.push(out.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
            }
            assert!(bits.iter().all(|b| b == &bits[0]), "{what}: bits differ between instruction sets");
        }
    }
}
