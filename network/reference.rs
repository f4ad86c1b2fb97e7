//! The reference engine: the network written plainly with candle's autograd. Slow, and what every
//! fast engine is tested against. Knows no schedule and no files.
//!
//! Where candle's own operation has another gradient than PyTorch's, a plain composition stands in
//! for it: `relu` (candle lets gradients through at 0) and `max_pool` (candle scales them). `convolution` is
//! one because candle's own takes several times as long on the way back.
//! candle takes its threads from `RAYON_NUM_THREADS`; they change no bit of a result.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use candle_core::{D, DType, Device, Tensor as Array, Var};
use candle_nn::loss::cross_entropy;

use crate::{
    Error, Result,
    arch::{BN_EPS, BN_MOMENTUM, Conv, Graph, IMAGE_CHANNELS, IMAGE_SIZE, Op},
    cpu::lanes::Isa,
    data::{self, Dataset},
    init,
    mode::Share,
    optimizer::Sgd,
    tensor::{Tensor, Tensors},
    trainer::{Example, Precision, Split, State, Tally, TrainSpec, Trainer},
};

/// A network in training, computed by candle.
pub struct Reference {
    spec: TrainSpec,
    graph: Graph,
    data: Arc<Dataset>,
    dtype: DType,
    normalization: [[f32; 256]; IMAGE_CHANNELS],
    /// Parameters that do not train, or not in full: those are zero where trained values go.
    frozen: BTreeMap<String, Array>,
    /// Where trained values go in their parameter.
    positions: BTreeMap<String, Array>,
    state: State,
    tally: Tally,
}

/// Every parameter of the network by its name, and the variables among or behind them by the
/// names of [`State::values`].
struct Weights {
    all: BTreeMap<String, Array>,
    trained: BTreeMap<String, Var>,
}

/// What normalises.
#[derive(Clone, Copy)]
enum Statistics {
    Batch,
    Running,
}

/// What a forward pass gives: logits `N K`, and the batch's mean and (biased) variance `C 1` for
/// each BatchNorm with the number of values behind them.
struct Pass {
    logits: Array,
    statistics: Vec<(String, [Array; 2], usize)>,
}

impl Reference {
    /// The network of `spec` at its initial weights, computed in `dtype`: `F32`, or `F64` for tests of
    /// gradients. Errors when `spec` asks for something that does not exist.
    pub fn new(spec: &TrainSpec, data: Arc<Dataset>, dtype: DType) -> Result<Self> {
        if spec.precision != Precision::F32 {
            let reason =
                "it computes in float32 only; set precision to f32 (tf32 needs a card's tensor cores, bf16 the CPU engine or a card)"
                    .into();
            return Err(Error::Unsupported { engine: "reference", reason });
        }
        let graph = Graph::new(spec.arch, spec.variant, data.classes().len());
        let (state, mut weights) = State::initial(&graph, spec)?;
        let (mut frozen, mut positions) = (BTreeMap::new(), BTreeMap::new());
        for param in graph.params() {
            let share = spec.set.share(&param);
            let Some(mut tensor) = weights.remove(&param.name).filter(|_| share != Share::Full) else {
                continue;
            };
            if let Share::PerFilter { k } = share {
                let chosen = init::random_positions(spec.seed, &param, k);
                chosen.iter().for_each(|p| tensor.data[*p as usize] = 0.0);
                positions.insert(param.name.clone(), Array::new(chosen, &Device::Cpu)?);
            }
            frozen.insert(param.name, array(&tensor, dtype)?);
        }
        Ok(Self {
            spec: spec.clone(),
            graph,
            data,
            dtype,
            normalization: data::normalization(),
            frozen,
            positions,
            state,
            tally: Tally::default(),
        })
    }

    fn weights(&self) -> Result<Weights> {
        let mut weights = Weights { all: BTreeMap::new(), trained: BTreeMap::new() };
        for param in self.graph.params() {
            let tensor = match self.spec.set.slot(&param) {
                None => self.frozen[&param.name].clone(),
                Some((name, _)) => {
                    let var = Var::from_tensor(&array(&self.state.values[&name], self.dtype)?)?;
                    let values = var.as_tensor().clone();
                    weights.trained.insert(name, var);
                    match self.positions.get(&param.name) {
                        None => values,
                        Some(positions) => {
                            let rest = self.frozen[&param.name].flatten_all()?;
                            rest.index_add(positions, &values.flatten_all()?, 0)?.reshape(param.shape)?
                        }
                    }
                }
            };
            weights.all.insert(param.name, tensor);
        }
        Ok(weights)
    }

    /// The normalised images `N 3 H W` and labels of `batch`, which must exist.
    fn images(&self, split: Split, batch: &[Example]) -> Result<(Array, Vec<u32>)> {
        let mut pixels = Vec::with_capacity(batch.len() * data::IMAGE_BYTES);
        for example in batch {
            let image = self.data.image(split, example.index as usize);
            for (c, table) in self.normalization.iter().enumerate() {
                for (y, x) in (0..IMAGE_SIZE).flat_map(|y| (0..IMAGE_SIZE).map(move |x| (y, x))) {
                    pixels.push(table[usize::from(data::augmented_pixel(image, example, c, y, x))]);
                }
            }
        }
        let shape = [batch.len(), IMAGE_CHANNELS, IMAGE_SIZE, IMAGE_SIZE];
        let labels = batch.iter().map(|e| u32::from(self.data.label(split, e.index as usize)));
        Ok((array(&Tensor::new(shape, pixels), self.dtype)?, labels.collect()))
    }

    /// `rectified` sees the output of every ReLU.
    fn forward(
        &self,
        images: Array,
        weights: &Weights,
        statistics: Statistics,
        rectified: &mut dyn FnMut(&Array) -> Result<()>,
    ) -> Result<Pass> {
        let mut seen = Vec::new();
        let mut outputs: Vec<Array> = Vec::with_capacity(self.graph.nodes.len());
        for node in &self.graph.nodes {
            let input = |i: usize| &outputs[node.inputs[i]];
            let weight = |name: &str, part: &str| &weights.all[&format!("{name}.{part}")];
            let output = match &node.op {
                Op::Input => images.clone(),
                Op::Conv(conv) => {
                    let bias = conv.bias.then(|| weight(&conv.name, "bias"));
                    convolution(input(0), conv, weight(&conv.name, "weight"), bias)?
                }
                Op::BatchNorm { name, .. } => {
                    let [gamma, beta] = ["weight", "bias"].map(|part| weight(name, part));
                    let x = channels_first(input(0))?;
                    let [mean, variance] = match statistics {
                        Statistics::Batch => batch_statistics(&x)?,
                        Statistics::Running => self.running_statistics(name)?,
                    };
                    let scale = (&variance + BN_EPS)?.sqrt()?;
                    let x = x.broadcast_sub(&mean)?.broadcast_div(&scale)?;
                    let x = x.broadcast_mul(&gamma.unsqueeze(1)?)?.broadcast_add(&beta.unsqueeze(1)?)?;
                    seen.push((name.clone(), [mean, variance], x.dim(1)?));
                    let [c, h, w] = node.shape;
                    x.reshape((c, (), h, w))?.transpose(0, 1)?.contiguous()?
                }
                Op::Relu => {
                    let output = relu(input(0))?;
                    rectified(&output)?;
                    output
                }
                Op::Add => (input(0) + input(1))?,
                Op::MaxPool => max_pool(input(0))?,
                Op::GlobalAvgPool => input(0).flatten_from(2)?.mean(D::Minus1)?,
                Op::Linear { name, .. } => {
                    let product = input(0).matmul(&weight(name, "weight").t()?)?;
                    product.broadcast_add(weight(name, "bias"))?
                }
            };
            outputs.push(output);
        }
        let logits = outputs.pop().ok_or_else(|| Error::Invalid("the network has no layers".into()))?;
        Ok(Pass { logits, statistics: seen })
    }

    fn running_statistics(&self, name: &str) -> Result<[Array; 2]> {
        let read = |part: &str| -> Result<Array> {
            Ok(array(&self.state.values[&format!("{name}.{part}")], self.dtype)?.unsqueeze(1)?)
        };
        Ok([read("running_mean")?, read("running_var")?])
    }

    /// Forward with batch statistics and backward; changes nothing.
    fn pass(&self, batch: &[Example]) -> Result<(Pass, Tally, Tensors)> {
        self.spec.check(batch, &self.data)?;
        let (images, labels) = self.images(Split::Train, batch)?;
        let weights = self.weights()?;
        let pass = self.forward(images, &weights, Statistics::Batch, &mut |_| Ok(()))?;
        let tally = tally(&numbers(&pass.logits)?, &labels);
        let mut gradients = Tensors::new();
        if !weights.trained.is_empty() {
            let loss = cross_entropy(&pass.logits, &Array::new(labels, &Device::Cpu)?)?;
            let mut store = loss.backward()?;
            for (name, var) in &weights.trained {
                let gradient = store.remove(var.as_tensor());
                let gradient = gradient.ok_or_else(|| {
                    Error::Invalid(format!("candle has no gradient of the loss for `{name}`"))
                })?;
                gradients.insert(name.clone(), tensor(&gradient)?);
            }
        }
        Ok((pass, tally, gradients))
    }
}

impl Trainer for Reference {
    fn step(&mut self, batch: &[Example], rate: f32) -> Result<()> {
        let (pass, tally, gradients) = self.pass(batch)?;
        let sgd = Sgd { rate, momentum: self.spec.momentum, weight_decay: self.spec.weight_decay };
        let State { values, momentum } = &mut self.state;
        for (name, gradient) in &gradients {
            if let (Some(values), Some(velocity)) = (values.get_mut(name), momentum.get_mut(name)) {
                sgd.step(&mut values.data, &mut velocity.data, &gradient.data);
            }
        }
        for (name, [mean, variance], count) in &pass.statistics {
            let unbiased = (variance * (*count as f64 / (*count as f64 - 1.0)))?;
            for (part, new) in [("running_mean", mean), ("running_var", &unbiased)] {
                let Some(running) = values.get_mut(&format!("{name}.{part}")) else { continue };
                for (r, x) in running.data.iter_mut().zip(numbers(new)?) {
                    *r = ((1.0 - BN_MOMENTUM) * f64::from(*r) + BN_MOMENTUM * x) as f32;
                }
            }
        }
        self.tally += tally;
        Ok(())
    }

    fn take_tally(&mut self) -> Result<Tally> {
        Ok(std::mem::take(&mut self.tally))
    }

    fn look(
        &mut self,
        split: Split,
        range: Range<usize>,
        mut zeros: Option<&mut [Vec<u64>]>,
    ) -> Result<Vec<f32>> {
        self.data.check(split, &range)?;
        let examples: Vec<_> = range.map(|i| Example::whole(i as u32)).collect();
        let weights = self.weights()?;
        let mut logits = Vec::with_capacity(examples.len() * self.graph.classes());
        for batch in examples.chunks(self.spec.batch.max(1)) {
            let (images, _) = self.images(split, batch)?;
            let mut later = zeros.as_deref_mut().unwrap_or_default().iter_mut();
            let mut count = |x: &Array| later.next().map_or(Ok(()), |zeros| count_zeros(x, zeros));
            let pass = self.forward(images, &weights, Statistics::Running, &mut count)?;
            logits.extend(tensor(&pass.logits)?.data);
        }
        Ok(logits)
    }

    fn gradients(&mut self, batch: &[Example]) -> Result<(Tally, Tensors)> {
        let (_, tally, gradients) = self.pass(batch)?;
        Ok((tally, gradients))
    }

    fn state(&mut self) -> Result<State> {
        Ok(self.state.clone())
    }

    fn restore(&mut self, state: &State) -> Result<()> {
        self.state.check(state)?;
        self.state = state.clone();
        Ok(())
    }

    fn engine(&self) -> &'static str {
        "reference"
    }

    /// candle takes exponentials from the system and kernels by the processor.
    fn rounding(&self) -> String {
        let isa = Isa::choose(None).map_or_else(|_| String::new(), |isa| isa.to_string());
        format!("{}, {} {} {isa}", self.engine(), std::env::consts::OS, std::env::consts::ARCH)
    }

    fn describe(&self) -> String {
        format!("reference engine (candle), {}", self.dtype.as_str())
    }
}

/// Adds the number of zeros of each channel of `x`, `N C H W`.
fn count_zeros(x: &Array, zeros: &mut [u64]) -> Result<()> {
    let found = channels_first(&x.eq(0.0)?.to_dtype(DType::F64)?)?.sum(1)?.to_vec1::<f64>()?;
    zeros.iter_mut().zip(found).for_each(|(zeros, found)| *zeros += found as u64);
    Ok(())
}

fn array(tensor: &Tensor, dtype: DType) -> Result<Array> {
    Ok(Array::from_slice(&tensor.data, tensor.shape.as_slice(), &Device::Cpu)?.to_dtype(dtype)?)
}

fn tensor(array: &Array) -> Result<Tensor> {
    let data = array.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(Tensor::new(array.dims(), data))
}

fn numbers(array: &Array) -> Result<Vec<f64>> {
    Ok(array.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// The product of the filters, as `K C*k*k`, with the patches that they meet, `N C*k*k H*W`.
fn convolution(x: &Array, conv: &Conv, weight: &Array, bias: Option<&Array>) -> Result<Array> {
    let (n, c, h, w) = x.dims4()?;
    let Conv { kernel, stride, cout, .. } = *conv;
    let size = [h, w].map(|size| size.div_ceil(stride));
    let mut padded = x.clone();
    for dim in [2, 3] {
        // Behind it also what makes the last stride whole.
        padded = padded.pad_with_zeros(dim, kernel / 2, kernel / 2 + stride - 1)?;
    }
    // One element of each filter: every `stride`-th row and column from its own on.
    let met = |at: usize| -> Result<Array> {
        let rows = padded.narrow(2, at / kernel, size[0] * stride)?;
        let all = rows.narrow(3, at % kernel, size[1] * stride)?;
        let all = all.reshape((n, c, size[0], stride, size[1], stride))?;
        Ok(all.narrow(3, 0, 1)?.narrow(5, 0, 1)?.reshape((n, c, 1, size[0] * size[1]))?)
    };
    let patches = (0..kernel * kernel).map(met).collect::<Result<Vec<_>>>()?;
    let patches = Array::cat(&patches, 2)?.flatten(1, 2)?;
    let filters = weight.flatten_from(1)?.broadcast_left(n)?;
    let y = filters.matmul(&patches)?.reshape((n, cout, size[0], size[1]))?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?)?,
        None => y,
    })
}

/// `N C H W` as `C N*H*W`, where candle's sums over the last dimension are quick.
fn channels_first(x: &Array) -> Result<Array> {
    Ok(x.transpose(0, 1)?.flatten_from(1)?.contiguous()?)
}

/// Mean and biased variance over the second dimension, `C 1` each.
fn batch_statistics(x: &Array) -> Result<[Array; 2]> {
    let mean = x.mean_keepdim(1)?;
    let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(1)?;
    Ok([mean, variance])
}

/// max(x, 0) with gradient 0 at 0.
fn relu(x: &Array) -> Result<Array> {
    Ok((x * x.gt(0.0)?.to_dtype(x.dtype())?)?)
}

/// The 2x2 maximum; among equals the first in row-major order takes the gradient.
fn max_pool(x: &Array) -> Result<Array> {
    let (n, c, h, w) = x.dims4()?;
    let pick = |pairs: Array, dim: usize| -> Result<Array> {
        let [a, b] = [pairs.narrow(dim, 0, 1)?.squeeze(dim)?, pairs.narrow(dim, 1, 1)?.squeeze(dim)?];
        Ok(b.gt(&a)?.where_cond(&b, &a)?)
    };
    let columns = pick(x.reshape((n, c, h, w / 2, 2))?, 4)?;
    pick(columns.reshape((n, c, h / 2, 2, w / 2))?, 3)
}

/// Cross-entropies of `logits` (`N K`) in f64.
fn tally(logits: &[f64], labels: &[u32]) -> Tally {
    let mut tally = Tally { examples: labels.len() as u64, ..Tally::default() };
    let classes = logits.len() / labels.len().max(1);
    for (row, label) in logits.chunks_exact(classes).zip(labels) {
        let label = *label as usize;
        let (largest, own) = (row.iter().copied().fold(f64::NEG_INFINITY, f64::max), row[label]);
        let sum: f64 = row.iter().map(|x| libm::exp(x - largest)).sum();
        tally.loss += libm::log(sum) + largest - own;
        let (before, after) = (&row[..label], &row[label + 1..]);
        let correct = before.iter().all(|x| *x < own) && after.iter().all(|x| *x <= own);
        tally.correct += u64::from(correct);
    }
    tally
}
