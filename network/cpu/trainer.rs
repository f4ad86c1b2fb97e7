//! The CPU engine behind the training loop's interface: augmented images in, running statistics,
//! loss, SGD. Knows no schedule and no files.
//!
//! Everything outside [`Step`] is done by one thread, in one order, with libm's functions.

use std::{ops::Range, sync::Arc};

use super::{
    lanes::Isa,
    step::{Statistics, Step},
};
use crate::{
    Error, Result,
    arch::{Graph, IMAGE_SIZE},
    data::{self, Dataset},
    init::initial,
    mode::{Convs, Share},
    optimizer::Sgd,
    tensor::{Tensor, Tensors},
    trainer::{Example, Precision, Split, State, Tally, TrainSpec, Trainer},
};

/// Share of a batch in the running statistics.
const MOMENTUM: f64 = 0.1;

/// A network in training on the CPU.
pub struct CpuTrainer {
    spec: TrainSpec,
    data: Arc<Dataset>,
    step: Step,
    trained: Vec<Trained>,
    /// Running mean and variance of each channel of each unit.
    running: Vec<Vec<[f32; 2]>>,
    tally: Tally,
    d_logits: Vec<f64>,
    normalization: [[f32; 256]; 3],
    description: String,
}

/// A gamma or beta that trains.
struct Trained {
    unit: usize,
    which: Which,
    velocity: Vec<f32>,
}

#[derive(Clone, Copy, PartialEq)]
enum Which {
    Gamma,
    Beta,
}

impl Trained {
    fn name(&self, step: &Step) -> String {
        let part = if self.which == Which::Gamma { "weight" } else { "bias" };
        format!("{}.{part}", step.units[self.unit].name)
    }

    fn value<'a>(&self, step: &'a Step) -> &'a [f32] {
        let unit = &step.units[self.unit];
        if self.which == Which::Gamma { &unit.gamma } else { &unit.beta }
    }

    fn gradient<'a>(&self, step: &'a Step) -> &'a [f32] {
        let unit = &step.units[self.unit];
        if self.which == Which::Gamma { &unit.d_gamma } else { &unit.d_beta }
    }
}

fn unsupported(reason: &str) -> Error {
    Error::Unsupported { engine: "cpu", reason: reason.into() }
}

impl CpuTrainer {
    /// The network of `spec` with its initial values, and all buffers of a step.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the engine does not cover the network or what is trained.
    pub fn new(spec: &TrainSpec, data: Arc<Dataset>, isa: Isa, threads: usize) -> Result<Self> {
        if spec.set.convs != Convs::Frozen || spec.set.shortcut || spec.set.output {
            return Err(unsupported("it trains nothing but BatchNorm yet; use the reference"));
        }
        if spec.precision != Precision::F32 {
            return Err(unsupported("it computes in f32 only; use precision = \"f32\""));
        }
        let graph = Graph::new(spec.arch, spec.variant, data.classes().len());
        let values = initial(&graph, spec.seed, spec.init);
        let step = Step::new(&graph, &values, spec.batch, isa, threads)?;
        let mut trained = Vec::new();
        for param in graph.params() {
            if spec.set.share(&param) == Share::Frozen {
                continue;
            }
            let (module, part) = param.name.rsplit_once('.').unwrap_or((&param.name, ""));
            let unit = step.units.iter().position(|u| u.name == module);
            let unit = unit.ok_or_else(|| unsupported(&format!("it cannot train `{}`", param.name)))?;
            let which = if part == "weight" { Which::Gamma } else { Which::Beta };
            trained.push(Trained { unit, which, velocity: vec![0.0; param.len()] });
        }
        let running = step.units.iter().map(|u| vec![[0.0, 1.0]; u.gamma.len()]).collect();
        Ok(Self {
            description: format!("cpu engine, {isa}, {} threads, f32", threads.max(1)),
            spec: spec.clone(),
            data,
            step,
            trained,
            running,
            tally: Tally::default(),
            d_logits: Vec::new(),
            normalization: data::normalization(),
        })
    }

    /// Forward with batch statistics, loss and backward.
    fn differentiate(&mut self, batch: &[Example]) -> Result<Tally> {
        if batch.is_empty() || batch.len() > self.spec.batch {
            return Err(Error::Invalid(format!(
                "a batch of {} examples; this trainer takes 1 to {}",
                batch.len(),
                self.spec.batch
            )));
        }
        let images = self.data.len(Split::Train);
        if let Some(example) = batch.iter().find(|e| e.index as usize >= images) {
            return Err(Error::Invalid(format!("no training image {}; there are {images}", example.index)));
        }
        let (data, table) = (&self.data, &self.normalization);
        self.step.forward(batch.len(), Statistics::Batch, |n, out| {
            load(data.image(Split::Train, batch[n].index as usize), &batch[n], table, out);
        });
        let tally = self.lose(batch);
        self.step.backward(batch.len(), &self.d_logits);
        Ok(tally)
    }

    /// Cross-entropies of the logits, and their mean's gradient.
    fn lose(&mut self, batch: &[Example]) -> Tally {
        let classes = self.data.classes().len();
        let mut tally = Tally { examples: batch.len() as u64, ..Tally::default() };
        self.d_logits.clear();
        for (example, logits) in batch.iter().zip(self.step.logits.chunks_exact(classes)) {
            let label = usize::from(self.data.label(Split::Train, example.index as usize));
            let best = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|x| libm::exp(x - best)).sum();
            tally.loss += libm::log(sum) - (logits[label] - best);
            tally.correct += u64::from(logits.iter().position(|x| *x == best) == Some(label));
            self.d_logits.extend(logits.iter().enumerate().map(|(k, x)| {
                let target = if k == label { 1.0 } else { 0.0 };
                (libm::exp(x - best) / sum - target) / batch.len() as f64
            }));
        }
        tally
    }

    fn follow(&mut self) {
        for (unit, running) in self.step.units.iter().zip(&mut self.running) {
            let unbiased = unit.count as f64 / (unit.count.max(2) - 1) as f64;
            for ([mean, variance], batch) in running.iter_mut().zip(&unit.batch) {
                let move_to =
                    |old: f32, new: f64| ((1.0 - MOMENTUM) * f64::from(old) + MOMENTUM * new) as f32;
                *mean = move_to(*mean, batch[0]);
                *variance = move_to(*variance, batch[1] * unbiased);
            }
        }
    }
}

/// Writes the normalised cut of `image` into the inside of a bordered image of 16 lanes, as
/// [`data::augmented_pixel`] defines it.
fn load(image: &[u8], example: &Example, table: &[[f32; 256]; 3], out: &mut [f32]) {
    let wide = IMAGE_SIZE + 2;
    for y in 0..IMAGE_SIZE {
        let out = &mut out[((y + 1) * wide + 1) * 16..][..IMAGE_SIZE * 16];
        let row = (y + usize::from(example.dy)).wrapping_sub(data::PADDING);
        for (x, pixel) in out.chunks_exact_mut(16).enumerate() {
            let column = (x + usize::from(example.dx)).wrapping_sub(data::PADDING);
            let inside = row < IMAGE_SIZE && column < IMAGE_SIZE;
            let column = if example.flip { IMAGE_SIZE - 1 - column.min(IMAGE_SIZE - 1) } else { column };
            for (c, table) in table.iter().enumerate() {
                let byte = if inside { image[(c * IMAGE_SIZE + row) * IMAGE_SIZE + column] } else { 0 };
                pixel[c] = table[usize::from(byte)];
            }
        }
    }
}

impl Trainer for CpuTrainer {
    fn step(&mut self, batch: &[Example], rate: f32) -> Result<()> {
        let tally = self.differentiate(batch)?;
        self.tally.examples += tally.examples;
        self.tally.loss += tally.loss;
        self.tally.correct += tally.correct;
        self.follow();
        let sgd = Sgd { rate, momentum: self.spec.momentum, weight_decay: self.spec.weight_decay };
        for Trained { unit, which, velocity } in &mut self.trained {
            let unit = &mut self.step.units[*unit];
            match which {
                Which::Gamma => sgd.step(&mut unit.gamma, velocity, &unit.d_gamma),
                Which::Beta => sgd.step(&mut unit.beta, velocity, &unit.d_beta),
            }
        }
        Ok(())
    }

    fn take_tally(&mut self) -> Result<Tally> {
        Ok(std::mem::take(&mut self.tally))
    }

    fn predict(&mut self, split: Split, range: Range<usize>) -> Result<Vec<f32>> {
        let images = self.data.len(split);
        if range.end > images {
            return Err(Error::Invalid(format!(
                "no image {} in {split:?}; there are {images}",
                range.end - 1
            )));
        }
        let fixed: Vec<Vec<[f64; 2]>> =
            self.running.iter().map(|unit| unit.iter().map(|x| x.map(f64::from)).collect()).collect();
        let (data, table) = (&self.data, &self.normalization);
        let centre = Example { index: 0, dy: data::PADDING as u8, dx: data::PADDING as u8, flip: false };
        let mut logits = Vec::with_capacity(range.len() * data.classes().len());
        for first in range.clone().step_by(self.spec.batch) {
            let count = self.spec.batch.min(range.end - first);
            self.step.forward(count, Statistics::Fixed(&fixed), |n, out| {
                load(data.image(split, first + n), &centre, table, out);
            });
            logits.extend(self.step.logits.iter().map(|x| *x as f32));
        }
        Ok(logits)
    }

    fn gradients(&mut self, batch: &[Example]) -> Result<(Tally, Tensors)> {
        let tally = self.differentiate(batch)?;
        let gradient = |t: &Trained| {
            let gradient = t.gradient(&self.step).to_vec();
            (t.name(&self.step), Tensor::new([gradient.len()], gradient))
        };
        Ok((tally, self.trained.iter().map(gradient).collect()))
    }

    fn state(&mut self) -> Result<State> {
        let mut state = State::default();
        for t in &self.trained {
            let (name, value) = (t.name(&self.step), t.value(&self.step).to_vec());
            state.momentum.insert(name.clone(), Tensor::new([value.len()], t.velocity.clone()));
            state.values.insert(name, Tensor::new([value.len()], value));
        }
        for (unit, running) in self.step.units.iter().zip(&self.running) {
            for (i, part) in ["running_mean", "running_var"].into_iter().enumerate() {
                let values: Vec<f32> = running.iter().map(|x| x[i]).collect();
                state.values.insert(format!("{}.{part}", unit.name), Tensor::new([values.len()], values));
            }
        }
        Ok(state)
    }

    fn restore(&mut self, state: &State) -> Result<()> {
        self.state()?.check(state)?;
        for t in &mut self.trained {
            let name = t.name(&self.step);
            t.velocity.copy_from_slice(&state.momentum[&name].data);
            let unit = &mut self.step.units[t.unit];
            let value = if t.which == Which::Gamma { &mut unit.gamma } else { &mut unit.beta };
            value.copy_from_slice(&state.values[&name].data);
        }
        for (unit, running) in self.step.units.iter().zip(&mut self.running) {
            for (i, part) in ["running_mean", "running_var"].into_iter().enumerate() {
                let values = &state.values[&format!("{}.{part}", unit.name)].data;
                running.iter_mut().zip(values).for_each(|(to, from)| to[i] = *from);
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
