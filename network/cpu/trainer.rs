//! The CPU engine behind the training loop's interface: augmented images in, running statistics,
//! loss, SGD. Knows no schedule and no files.
//!
//! Everything outside [`Step`] is done in one order, with libm's functions.

use std::{ops::Range, sync::Arc};

use super::{
    lanes::Isa,
    slots::{Slot, What},
    step::Step,
    stored::{Bf16, Stored},
    unit::Trained,
};
use crate::{
    Error, Result,
    arch::{BN_MOMENTUM, Graph, IMAGE_SIZE, Param, Role},
    data::{self, Dataset},
    init::random_positions,
    mode::Share,
    optimizer::Sgd,
    plan::{Buffer, Direction, Plan},
    tensor::{Tensor, Tensors},
    trainer::{Example, Precision, Split, State, Tally, TrainSpec, Trainer},
};

/// A trainer for `spec` whose buffers fit `room` bytes if that can be, see [`CpuTrainer::within`].
///
/// # Errors
/// As [`CpuTrainer::new`]; where the processor has not the precision.
pub(crate) fn open(
    spec: &TrainSpec,
    data: Arc<Dataset>,
    isa: Isa,
    threads: usize,
    room: usize,
) -> Result<Box<dyn Trainer>> {
    Ok(match spec.precision {
        Precision::F32 => Box::new(CpuTrainer::<f32>::within(spec, data, isa, threads, room)?),
        Precision::Bf16 => Box::new(CpuTrainer::<Bf16>::within(spec, data, isa, threads, room)?),
        Precision::Tf32 => {
            let reason = "the processor has no tf32; use precision = \"f32\", or device = \"cuda\"".into();
            return Err(Error::Unsupported { engine: "cpu", reason });
        }
    })
}

/// A network in training on the CPU, its activations and their gradients stored as `S`.
pub(crate) struct CpuTrainer<S: Stored> {
    spec: TrainSpec,
    data: Arc<Dataset>,
    step: Step<S>,
    /// What trains of each unit.
    slots: Vec<Vec<Slot>>,
    /// What trains of the output layer.
    output: Vec<Slot>,
    /// Running mean and variance of each channel of each unit.
    running: Vec<Vec<[f32; 2]>>,
    tally: Tally,
    d_logits: Vec<f64>,
    normalization: [[f32; 256]; 3],
}

impl<S: Stored> CpuTrainer<S> {
    /// The network of `spec` with its initial values, and all buffers of a step.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the engine does not cover the network; where `k` positions do not
    /// fit a filter.
    pub(crate) fn new(spec: &TrainSpec, data: Arc<Dataset>, isa: Isa, threads: usize) -> Result<Self> {
        Self::with(spec, data, isa, threads, 0)
    }

    /// The same, of which all buffers fit `room` bytes if that can be: as few outputs of convolutions as
    /// that takes are not kept, but computed again on the way back, which changes no bit.
    ///
    /// # Errors
    /// As [`CpuTrainer::new`].
    pub(crate) fn within(
        spec: &TrainSpec,
        data: Arc<Dataset>,
        isa: Isa,
        threads: usize,
        room: usize,
    ) -> Result<Self> {
        if room == usize::MAX {
            return Self::new(spec, data, isa, threads);
        }
        let least = Self::with(spec, data.clone(), isa, threads, usize::MAX)?;
        let bytes = least.plan().map_or(0, |plan| plan.buffer_bytes(false));
        let Some(again) = least.step.fewest_again(bytes, room) else { return Ok(least) };
        drop(least);
        Self::with(spec, data, isa, threads, again)
    }

    /// With the first `again` outputs computed again.
    fn with(spec: &TrainSpec, data: Arc<Dataset>, isa: Isa, threads: usize, again: usize) -> Result<Self> {
        let graph = Graph::new(spec.arch, spec.variant, data.classes().len());
        let (state, weights) = State::initial(&graph, spec)?;
        let params = graph.params();
        let trained = |conv: &str| {
            let name = format!("{conv}.weight");
            let param = params.iter().find(|p| p.name == name);
            match param.map(|p| (p, spec.set.share(p))) {
                None | Some((_, Share::Frozen)) => Trained::None,
                Some((_, Share::Full)) => Trained::All,
                Some((param, Share::PerFilter { k })) => Trained::At(random_positions(spec.seed, param, k)),
            }
        };
        let in_part = params.iter().filter(|p| matches!(spec.set.share(p), Share::PerFilter { .. }));
        let mut in_part: Tensors = in_part.map(|p| (p.name.clone(), weights[&p.name].clone())).collect();
        let mut step = Step::new(&graph, weights, trained, (spec.batch, again), isa, threads)?;
        let mut slots: Vec<Vec<Slot>> = step.units.iter().map(|_| Vec::new()).collect();
        let mut output = Vec::new();
        for param in &params {
            let Some((name, _)) = spec.set.slot(param) else { continue };
            let what = match (param.role, spec.set.share(param)) {
                (Role::Gamma, _) => What::Gamma,
                (Role::Beta, _) => What::Beta,
                (Role::ConvBias, _) => What::Bias,
                (Role::OutputWeight, _) => What::OutputWeights,
                (Role::OutputBias, _) => What::OutputBias,
                (_, Share::PerFilter { k }) => What::Positions {
                    filters: in_part.remove(&param.name).map_or_else(Vec::new, |tensor| tensor.data),
                    at: random_positions(spec.seed, param, k),
                },
                _ => What::Filters,
            };
            let values = state.values[&name].clone();
            let slot = Slot { name, what, velocity: vec![0.0; values.data.len()], values };
            match unit_of(&step, param) {
                Some(unit) => slots[unit].push(slot),
                None => output.push(slot),
            }
        }
        step.lowest = step.layout.lowest(|u| !slots[u].is_empty());
        let running = step.units.iter().map(|u| vec![[0.0, 1.0]; u.gamma.len()]).collect();
        Ok(Self {
            spec: spec.clone(),
            data,
            step,
            slots,
            output,
            running,
            tally: Tally::default(),
            d_logits: Vec::new(),
            normalization: data::normalization(),
        })
    }

    /// Does anything?
    fn trains(&self) -> bool {
        self.slots.iter().chain([&self.output]).any(|slots| !slots.is_empty())
    }

    /// Forward with batch statistics, loss and, where something trains, backward.
    fn differentiate(&mut self, batch: &[Example]) -> Result<Tally> {
        self.spec.check(batch, &self.data)?;
        let (data, table) = (self.data.clone(), self.normalization);
        let load = |n: usize, out: &mut [f32]| {
            let example: &Example = &batch[n];
            load(data.image(Split::Train, example.index as usize), example, &table, out);
        };
        self.step.forward(batch.len(), load);
        let tally = self.lose(batch);
        if self.trains() {
            self.step.backward(batch.len(), &self.d_logits, load);
        }
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

    /// Moves the running statistics towards the batch's.
    fn follow(&mut self) {
        for (unit, running) in self.step.units.iter().zip(&mut self.running) {
            let unbiased = unit.count as f64 / (unit.count.max(2) - 1) as f64;
            for ([mean, variance], batch) in running.iter_mut().zip(&unit.batch) {
                let move_to =
                    |old: f32, new: f64| ((1.0 - BN_MOMENTUM) * f64::from(old) + BN_MOMENTUM * new) as f32;
                *mean = move_to(*mean, batch[0]);
                *variance = move_to(*variance, batch[1] * unbiased);
            }
        }
    }

    fn all_slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().flatten().chain(&mut self.output)
    }
}

/// The unit that a parameter belongs to; none: the output layer.
fn unit_of(step: &Step<impl Stored>, param: &Param) -> Option<usize> {
    let module = param.name.rsplit_once('.').map_or("", |(module, _)| module);
    step.units.iter().position(|unit| unit.name == module || unit.conv == module)
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

impl<S: Stored> Trainer for CpuTrainer<S> {
    fn step(&mut self, batch: &[Example], rate: f32) -> Result<()> {
        let tally = self.differentiate(batch)?;
        self.tally += tally;
        self.follow();
        let sgd = Sgd { rate, momentum: self.spec.momentum, weight_decay: self.spec.weight_decay };
        let isa = self.step.isa;
        self.step.update(&mut self.slots, |unit, slots| {
            for slot in slots.iter_mut() {
                let gradient = slot.gradient(unit);
                sgd.step(&mut slot.values.data, &mut slot.velocity, &gradient);
                slot.apply(isa, unit);
            }
        });
        for slot in &mut self.output {
            let gradient = slot.output_gradient(&self.step.output);
            sgd.step(&mut slot.values.data, &mut slot.velocity, &gradient);
            slot.apply_output(&mut self.step.output);
        }
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
        let fixed: Vec<Vec<[f64; 2]>> =
            self.running.iter().map(|unit| unit.iter().map(|x| x.map(f64::from)).collect()).collect();
        let (data, table) = (&self.data, &self.normalization);
        let mut logits = Vec::with_capacity(range.len() * data.classes().len());
        for first in range.clone().step_by(self.spec.batch) {
            let count = self.spec.batch.min(range.end - first);
            let load = |n: usize, out: &mut [f32]| {
                load(data.image(split, first + n), &Example::whole(0), table, out)
            };
            match &mut zeros {
                None => self.step.predict(count, &fixed, load),
                Some(zeros) => {
                    self.step.forward_by(count, &fixed, load);
                    self.step.count_zeros(count, zeros);
                }
            }
            logits.extend(self.step.logits.iter().map(|x| *x as f32));
        }
        Ok(logits)
    }

    fn gradients(&mut self, batch: &[Example]) -> Result<(Tally, Tensors)> {
        let tally = self.differentiate(batch)?;
        let of =
            |slot: &Slot, gradient| (slot.name.clone(), Tensor::new(slot.values.shape.clone(), gradient));
        let units = self.step.units.iter().zip(&self.slots);
        let units = units
            .flat_map(|(u, slots)| slots.iter().map(move |slot| of(slot, slot.gradient(u).into_owned())));
        let output = self.output.iter().map(|slot| of(slot, slot.output_gradient(&self.step.output)));
        Ok((tally, units.chain(output).collect()))
    }

    fn state(&mut self) -> Result<State> {
        let mut state = State::default();
        for slot in self.all_slots() {
            let velocity = Tensor::new(slot.values.shape.clone(), slot.velocity.clone());
            state.momentum.insert(slot.name.clone(), velocity);
            state.values.insert(slot.name.clone(), slot.values.clone());
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
        for slot in self.all_slots() {
            slot.values = state.values[&slot.name].clone();
            slot.velocity.copy_from_slice(&state.momentum[&slot.name].data);
        }
        let isa = self.step.isa;
        self.step.update(&mut self.slots, |unit, slots| {
            slots.iter_mut().for_each(|slot| slot.apply(isa, unit));
        });
        for slot in &self.output {
            slot.apply_output(&mut self.step.output);
        }
        for (unit, running) in self.step.units.iter().zip(&mut self.running) {
            for (i, part) in ["running_mean", "running_var"].into_iter().enumerate() {
                let values = &state.values[&format!("{}.{part}", unit.name)].data;
                running.iter_mut().zip(values).for_each(|(to, from)| to[i] = *from);
            }
        }
        Ok(())
    }

    fn engine(&self) -> &'static str {
        "cpu"
    }

    fn describe(&self) -> String {
        let again = match self.step.repeated() {
            0 => String::new(),
            again => format!(", {again} outputs computed again"),
        };
        let (isa, threads) = (self.step.isa, self.step.pool.workers());
        format!("cpu engine, {isa}, {threads} threads, {}{again}", S::NAME)
    }

    fn plan(&self) -> Option<Plan> {
        let mut plan = self.step.plan();
        if !self.trains() {
            plan.passes.retain(|pass| pass.direction == Direction::Forward);
        }
        let slots = self.slots.iter().flatten().chain(&self.output);
        let trains = slots.clone().map(|slot| 4 * (slot.values.data.len() + slot.velocity.len())).sum();
        let in_part = slots.map(|slot| slot.what.bytes()).sum();
        for (name, bytes) in
            [("what trains, and its momentum", trains), ("filters that train in part", in_part)]
        {
            plan.buffers.push(Buffer { name, bytes, of_batch: false });
        }
        Some(plan)
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
