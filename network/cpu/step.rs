//! One fused training step of a residual network whose filters are fixed. Kept for the way back
//! are the outputs of the convolutions before their BatchNorm and one bit per element of each
//! block's input; the rest is computed again while an image is in the cache. Knows no data set,
//! no optimiser and no running statistics.
//!
//! Every sum over a batch is f32 within an image (see [`super::fuse`]) and f64 across images, in
//! their order, so that threads change no bit.
#![allow(unsafe_code)] // each worker has its image's slice of every buffer

use super::{
    buffers::{Images, each_image},
    conv::{Conv, bordered, plain},
    fuse::{self, Line, Pass, Shortcut},
    lanes::Isa,
};
use crate::{
    Error, Result,
    arch::{Graph, Op},
    tensor::Tensors,
};

const EPS: f64 = 1e-5;

/// A convolution and the BatchNorm behind it.
pub struct Unit {
    /// PyTorch's name of the BatchNorm.
    pub name: String,
    /// Does it stand on a shortcut?
    pub shortcut: bool,
    /// BatchNorm scales.
    pub gamma: Vec<f32>,
    /// BatchNorm shifts.
    pub beta: Vec<f32>,
    /// Mean and (biased) variance per channel of the last batch.
    pub batch: Vec<[f64; 2]>,
    /// Values per channel in the last batch.
    pub count: usize,
    /// Gradient of `gamma`.
    pub d_gamma: Vec<f32>,
    /// Gradient of `beta`.
    pub d_beta: Vec<f32>,
    conv: Conv,
    shape: usize,
    scale: Vec<f32>,
    shift: Vec<f32>,
    back: [Vec<f32>; 3],
    z: Images<f32>,
    sums: Images<f32>,
}

struct Block {
    first: usize,
    second: usize,
    projection: Option<usize>,
}

struct Scratch {
    images: Vec<f32>,
    /// A bordered image of each shape.
    bordered: Vec<Vec<f32>>,
}

/// A network with its buffers.
pub struct Step {
    /// Convolutions with their BatchNorms, in the order of the graph.
    pub units: Vec<Unit>,
    /// Logits of the last forward pass, one slice per image.
    pub logits: Vec<f64>,
    isa: Isa,
    blocks: Vec<Block>,
    scratch: Vec<Scratch>,
    shapes: Vec<(usize, [usize; 2])>,
    /// Of each shape: the current block's input (or output), and gradients.
    x: Vec<Images<f32>>,
    g: Vec<Images<f32>>,
    d: Vec<Images<f32>>,
    /// Of each block's input, and of the last output: which are above zero.
    masks: Vec<Images<u16>>,
    output: Vec<f32>,
    output_bias: Vec<f32>,
    pooled: Images<f64>,
}

/// What normalises.
#[derive(Clone, Copy, Debug)]
pub enum Statistics<'a> {
    /// The batch itself.
    Batch,
    /// Mean and variance of each channel of each unit.
    Fixed(&'a [Vec<[f64; 2]>]),
}

impl Unit {
    fn line(&self) -> Line<'_> {
        Line { scale: &self.scale, shift: &self.shift }
    }

    /// # Safety
    /// The caller has image `n` to itself.
    unsafe fn forward(&self, isa: Isa, x: &[f32], n: usize, count: bool) {
        // SAFETY: the caller's promise.
        let (z, sums) = unsafe { (self.z.image(n), self.sums.image(n)) };
        self.conv.forward(isa, x, z);
        if count {
            fuse::moments(isa, z, sums);
        }
    }

    /// Sums over the first `images` images, two per channel.
    fn total(&mut self, images: usize) -> Vec<[f64; 2]> {
        let channels = self.gamma.len();
        let mut total = vec![[0.0; 2]; channels];
        for n in 0..images {
            let (first, second) = self.sums.get(n).split_at(channels);
            for (total, (a, b)) in total.iter_mut().zip(first.iter().zip(second)) {
                total[0] += f64::from(*a);
                total[1] += f64::from(*b);
            }
        }
        total
    }

    fn normalise(&mut self, images: usize, fixed: Option<&[[f64; 2]]>) {
        let [h, w] = self.conv.output;
        if fixed.is_none() {
            self.count = images * h * w;
            let count = self.count as f64;
            let moments = |[s, q]: [f64; 2]| [s / count, (q / count - (s / count) * (s / count)).max(0.0)];
            self.batch = self.total(images).into_iter().map(moments).collect();
        }
        for (c, [mean, variance]) in fixed.unwrap_or(&self.batch).iter().enumerate() {
            let scale = f64::from(self.gamma[c]) / (variance + EPS).sqrt();
            self.scale[c] = scale as f32;
            self.shift[c] = (f64::from(self.beta[c]) - mean * scale) as f32;
        }
    }

    /// From the sums of g and g z: the gradients, and a, b, c of the gradient a g + b z + c.
    fn differentiate(&mut self, images: usize) {
        let count = self.count as f64;
        for (c, [g, gz]) in self.total(images).into_iter().enumerate() {
            let [mean, variance] = self.batch[c];
            let inverse = 1.0 / (variance + EPS).sqrt();
            let d_gamma = (gz - mean * g) * inverse;
            (self.d_gamma[c], self.d_beta[c]) = (d_gamma as f32, g as f32);
            let a = f64::from(self.gamma[c]) * inverse;
            let slope = inverse * d_gamma / count;
            self.back[0][c] = a as f32;
            self.back[1][c] = (-a * slope) as f32;
            self.back[2][c] = (a * (mean * slope - g / count)) as f32;
        }
    }

    fn abc(&self) -> [&[f32]; 3] {
        [&self.back[0], &self.back[1], &self.back[2]]
    }
}

impl Step {
    /// Packs the filters of `graph` from `values` and makes all buffers for `batch` images.
    pub fn new(graph: &Graph, values: &Tensors, batch: usize, isa: Isa, threads: usize) -> Result<Self> {
        let mut step = Self {
            units: Vec::new(),
            logits: Vec::new(),
            isa,
            blocks: Vec::new(),
            scratch: Vec::new(),
            shapes: Vec::new(),
            x: Vec::new(),
            g: Vec::new(),
            d: Vec::new(),
            masks: Vec::new(),
            output: Vec::new(),
            output_bias: Vec::new(),
            pooled: Images::new(0, 0),
        };
        let value = |name: String| {
            values
                .get(&name)
                .map(|t| t.data.clone())
                .ok_or_else(|| Error::Invalid(format!("no value `{name}`")))
        };
        for (i, node) in graph.nodes.iter().enumerate() {
            match &node.op {
                Op::Conv(conv) => {
                    let Some(Op::BatchNorm { name, shortcut }) = graph.nodes.get(i + 1).map(|n| &n.op) else {
                        return Err(uncovered("a convolution without BatchNorm"));
                    };
                    if conv.bias || conv.cout % 16 != 0 {
                        return Err(uncovered("convolutions with a bias"));
                    }
                    let [channels, h, w] = node.shape;
                    let shape = step.shape(channels, [h, w]);
                    let [_, ih, iw] = graph.nodes[node.inputs[0]].shape;
                    let weights = value(format!("{}.weight", conv.name))?;
                    let sizes = [conv.cout, conv.cin, conv.kernel, conv.kernel];
                    step.units.push(Unit {
                        name: name.clone(),
                        shortcut: *shortcut,
                        gamma: value(format!("{name}.weight"))?,
                        beta: value(format!("{name}.bias"))?,
                        batch: Vec::new(),
                        count: 0,
                        d_gamma: vec![0.0; channels],
                        d_beta: vec![0.0; channels],
                        conv: Conv::new(sizes, conv.stride, [ih, iw], &weights),
                        shape,
                        scale: vec![0.0; channels],
                        shift: vec![0.0; channels],
                        back: std::array::from_fn(|_| vec![0.0; channels]),
                        z: Images::new(batch, channels * h * w),
                        sums: Images::new(batch, 2 * channels),
                    });
                }
                Op::Add => {
                    let last = step.units.len() - 1;
                    let projected = step.units[last].shortcut;
                    let second = last - usize::from(projected);
                    step.blocks.push(Block {
                        first: second - 1,
                        second,
                        projection: projected.then_some(last),
                    });
                }
                Op::MaxPool => return Err(uncovered("max-pooling")),
                Op::Linear { name, .. } => {
                    step.output = value(format!("{name}.weight"))?;
                    step.output_bias = value(format!("{name}.bias"))?;
                }
                Op::Input | Op::BatchNorm { .. } | Op::Relu | Op::GlobalAvgPool => {}
            }
        }
        let images = |shapes: &[(usize, [usize; 2])]| -> Vec<Images<f32>> {
            shapes.iter().map(|(c, size)| Images::new(batch, plain(*c, *size))).collect()
        };
        (step.x, step.g, step.d) = (images(&step.shapes), images(&step.shapes), images(&step.shapes));
        let ends = std::iter::once(0).chain(step.blocks.iter().map(|b| b.second));
        let sizes = ends.map(|unit| step.shapes[step.units[unit].shape]);
        step.masks = sizes.map(|(c, size)| Images::new(batch, plain(c, size) / 16)).collect();
        step.pooled = Images::new(batch, step.output.len() / step.output_bias.len());
        let stem = &step.units[0].conv;
        step.scratch = (0..threads.max(1))
            .map(|_| Scratch {
                images: vec![0.0; bordered(stem.cin, stem.input)],
                bordered: step.shapes.iter().map(|(c, size)| vec![0.0; bordered(*c, *size)]).collect(),
            })
            .collect();
        Ok(step)
    }

    fn shape(&mut self, channels: usize, size: [usize; 2]) -> usize {
        self.shapes.iter().position(|s| *s == (channels, size)).unwrap_or_else(|| {
            self.shapes.push((channels, size));
            self.shapes.len() - 1
        })
    }

    /// Bytes of all buffers that grow with the batch.
    pub fn bytes(&self) -> usize {
        let units = self.units.iter().map(|u| u.z.bytes() + u.sums.bytes()).sum::<usize>();
        let images = [&self.x, &self.g, &self.d].into_iter().flatten().map(Images::bytes).sum::<usize>();
        units + images + self.masks.iter().map(Images::bytes).sum::<usize>() + self.pooled.bytes()
    }

    /// The logits of `count` images; `load(n, bordered)` writes the inside of image `n`, channels
    /// innermost of 16.
    pub fn forward(&mut self, count: usize, stats: Statistics<'_>, load: impl Fn(usize, &mut [f32]) + Sync) {
        let (isa, batch) = (self.isa, matches!(stats, Statistics::Batch));
        let fixed = |unit: usize| match stats {
            Statistics::Batch => None,
            Statistics::Fixed(all) => Some(all[unit].as_slice()),
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        each_image(&mut scratch, count, |n, s| {
            load(n, &mut s.images);
            // SAFETY: each image has one worker.
            unsafe { self.units[0].forward(isa, &s.images, n, batch) }
        });
        self.units[0].normalise(count, fixed(0));
        for t in 0..self.blocks.len() {
            let Block { first, second, projection } = self.blocks[t];
            each_image(&mut scratch, count, |n, s| {
                let x = self.input(t, n, s);
                for unit in std::iter::once(first).chain(projection) {
                    // SAFETY: each image has one worker.
                    unsafe { self.units[unit].forward(isa, x, n, batch) }
                }
            });
            for unit in std::iter::once(first).chain(projection) {
                self.units[unit].normalise(count, fixed(unit));
            }
            each_image(&mut scratch, count, |n, s| {
                let (a, b) = (&self.units[first], &self.units[second]);
                let x = &mut s.bordered[a.shape];
                // SAFETY: each image has one worker.
                unsafe {
                    fuse::activate(isa, a.conv.output, (a.z.image(n), a.line()), Shortcut::None, None, x);
                    b.forward(isa, x, n, batch);
                }
            });
            self.units[second].normalise(count, fixed(second));
        }
        each_image(&mut scratch, count, |n, s| {
            self.input(self.blocks.len(), n, s);
            let shape = self.units[self.end(self.blocks.len())].shape;
            let area = self.shapes[shape].1.iter().product::<usize>();
            // SAFETY: each image has one worker.
            let (x, pooled) = unsafe { (self.x[shape].image(n), self.pooled.image(n)) };
            for (c, pooled) in pooled.iter_mut().enumerate() {
                let pixels = x[c / 16 * area * 16..][..area * 16].iter().skip(c % 16).step_by(16);
                *pooled = pixels.map(|x| f64::from(*x)).sum::<f64>() / area as f64;
            }
        });
        self.scratch = scratch;
        self.logits.clear();
        let features = self.output.len() / self.output_bias.len();
        for n in 0..count {
            let pooled = self.pooled.get(n);
            for (weights, bias) in self.output.chunks_exact(features).zip(&self.output_bias) {
                let products = weights.iter().zip(pooled.iter()).map(|(w, x)| f64::from(*w) * x);
                self.logits.push(f64::from(*bias) + products.sum::<f64>());
            }
        }
    }

    /// The unit whose BatchNorm ends in the input of block `t`.
    fn end(&self, t: usize) -> usize {
        if t == 0 { 0 } else { self.blocks[t - 1].second }
    }

    /// The input of block `t` (or the last output), bordered; kept plain and as bits as well.
    fn input<'s>(&self, t: usize, n: usize, s: &'s mut Scratch) -> &'s [f32] {
        let unit = &self.units[self.end(t)];
        let out = &mut s.bordered[unit.shape];
        // SAFETY: the caller is the worker of image `n`.
        unsafe {
            let keep = (self.x[unit.shape].image(n), self.masks[t].image(n));
            let shortcut = match t.checked_sub(1).map(|t| self.blocks[t].projection) {
                None => Shortcut::None,
                Some(None) => Shortcut::Identity,
                Some(Some(p)) => Shortcut::Projection(self.units[p].z.image(n), self.units[p].line()),
            };
            let z = (&*unit.z.image(n), unit.line());
            fuse::activate(self.isa, unit.conv.output, z, shortcut, Some(keep), out);
        }
        out
    }

    /// Gradients of all gammas and betas, after a forward pass of `count` images with batch
    /// statistics; `d_logits` are the loss's.
    pub fn backward(&mut self, count: usize, d_logits: &[f64]) {
        let (isa, last) = (self.isa, self.blocks.len());
        let mut scratch = std::mem::take(&mut self.scratch);
        let classes = self.output_bias.len();
        each_image(&mut scratch, count, |n, _| {
            let shape = self.units[self.end(last)].shape;
            let area = self.shapes[shape].1.iter().product::<usize>();
            let d = &d_logits[n * classes..][..classes];
            // SAFETY: each image has one worker.
            let g = unsafe { self.g[shape].image(n) };
            let features = self.output.len() / classes;
            for c in 0..features {
                let products =
                    d.iter().enumerate().map(|(k, d)| f64::from(self.output[k * features + c]) * d);
                let each = (products.sum::<f64>() / area as f64) as f32;
                g[c / 16 * area * 16..][..area * 16]
                    .iter_mut()
                    .skip(c % 16)
                    .step_by(16)
                    .for_each(|g| *g = each);
            }
            self.rectify(last, n);
        });
        for t in (0..last).rev() {
            let Block { first, second, projection } = self.blocks[t];
            for unit in std::iter::once(second).chain(projection) {
                self.units[unit].differentiate(count);
            }
            each_image(&mut scratch, count, |n, s| {
                let (a, b) = (&self.units[first], &self.units[second]);
                let (g, border) = (&self.g[b.shape], &mut s.bordered[b.shape]);
                // SAFETY: each image has one worker.
                unsafe {
                    let d = self.d[a.shape].image(n);
                    fuse::spread(isa, b.conv.output, g.image(n), b.z.image(n), b.abc(), border);
                    b.conv.backward(isa, border, d, false);
                    fuse::reduce(isa, d, a.z.image(n), Pass::Above(a.line()), a.sums.image(n));
                }
            });
            self.units[first].differentiate(count);
            each_image(&mut scratch, count, |n, s| {
                let a = &self.units[first];
                let border = &mut s.bordered[a.shape];
                // SAFETY: each image has one worker.
                unsafe {
                    let into = self.g[self.units[self.end(t)].shape].image(n);
                    fuse::spread(isa, a.conv.output, self.d[a.shape].image(n), a.z.image(n), a.abc(), border);
                    a.conv.backward(isa, border, into, projection.is_none());
                    if let Some(p) = projection {
                        let p = &self.units[p];
                        let g = self.g[p.shape].image(n);
                        fuse::spread(isa, p.conv.output, g, p.z.image(n), p.abc(), border);
                        p.conv.backward(isa, border, into, true);
                    }
                }
                self.rectify(t, n);
            });
        }
        self.units[0].differentiate(count);
        self.scratch = scratch;
    }

    /// Takes the gradient of block `t`'s input back through its rectifier, and sums for the
    /// BatchNorms before it.
    fn rectify(&self, t: usize, n: usize) {
        let projection = t.checked_sub(1).and_then(|t| self.blocks[t].projection);
        let end = &self.units[self.end(t)];
        // SAFETY: the caller is the worker of image `n`.
        unsafe {
            let g = self.g[end.shape].image(n);
            let bits = Pass::Bits(self.masks[t].image(n));
            fuse::reduce(self.isa, g, end.z.image(n), bits, end.sums.image(n));
            if let Some(p) = projection.map(|p| &self.units[p]) {
                fuse::reduce(self.isa, g, p.z.image(n), Pass::All, p.sums.image(n));
            }
        }
    }
}

fn uncovered(what: &str) -> Error {
    Error::Unsupported { engine: "cpu", reason: format!("it does not cover {what} yet; use the reference") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arch::Variant, rng::stream, tensor::Tensor};

    fn network(variant: Variant, isa: Isa, threads: usize) -> Step {
        let graph = Graph::new("resnet8".parse().unwrap(), variant, 10);
        let draw = |p: &crate::arch::Param| {
            let mut s = stream(0, &p.name);
            let size = (2.0 / (p.len() / p.shape[0]) as f64).sqrt();
            let data = (0..p.len()).map(|_| match p.shape.len() {
                1 => 0.5 + s.uniform() as f32,
                _ => (size * s.normal()) as f32,
            });
            (p.name.clone(), Tensor::new(p.shape.clone(), data.collect()))
        };
        Step::new(&graph, &graph.params().iter().map(draw).collect(), 5, isa, threads).unwrap()
    }

    /// Logits, loss (half their sum of squares) and gradients.
    fn run(step: &mut Step) -> f64 {
        step.forward(5, Statistics::Batch, |n, x| {
            let mut s = stream(n as u64, "image");
            for (y, c) in (1..33).flat_map(|y| (1..33).map(move |c| (y, c))) {
                x[(y * 34 + c) * 16..][..3].fill_with(|| s.normal() as f32);
            }
        });
        let logits = step.logits.clone();
        step.backward(5, &logits);
        logits.iter().map(|l| l * l / 2.0).sum()
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for variant in [Variant::Paper, Variant::Origin] {
            let mut step = network(variant, Isa::all()[0], 2);
            run(&mut step);
            let gradients: Vec<_> =
                step.units.iter().map(|u| (u.d_gamma.clone(), u.d_beta.clone())).collect();
            for (u, (d_gamma, d_beta)) in gradients.iter().enumerate() {
                // Along the gradient of a unit's parameters, rounding and kinks matter least.
                let norm = d_gamma.iter().chain(d_beta).map(|x| x * x).sum::<f32>().sqrt();
                let mut moved = |by: f32| {
                    let unit = &mut step.units[u];
                    let old = (unit.gamma.clone(), unit.beta.clone());
                    unit.gamma.iter_mut().zip(d_gamma).for_each(|(x, d)| *x += by * d / norm);
                    unit.beta.iter_mut().zip(d_beta).for_each(|(x, d)| *x += by * d / norm);
                    let loss = run(&mut step);
                    let unit = &mut step.units[u];
                    (unit.gamma, unit.beta) = old;
                    loss
                };
                let slope = (moved(2e-3) - moved(-2e-3)) / 4e-3;
                let error = (slope / f64::from(norm) - 1.0).abs();
                assert!(error < 0.02, "{variant} {}: slope {slope}, gradient {norm}", step.units[u].name);
            }
        }
    }

    #[test]
    fn threads_and_instruction_sets_change_no_bit() {
        let bits = |isa, threads| {
            let mut step = network(Variant::Paper, isa, threads);
            run(&mut step);
            let gradients = step.units.iter().flat_map(|u| u.d_gamma.iter().chain(&u.d_beta));
            let gradients: Vec<u32> = gradients.map(|x| x.to_bits()).collect();
            (step.logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), gradients)
        };
        let expected = bits(Isa::all()[0], 1);
        for isa in Isa::all() {
            for threads in [1, 2, 4, 7] {
                assert!(bits(isa, threads) == expected, "{isa} with {threads} threads");
            }
        }
    }
}
