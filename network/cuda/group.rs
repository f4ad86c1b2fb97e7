//! A group of trainings of one network on one device: their values, and steps of all of them at once. Knows no
//! schedule and no files.
//!
//! Instances differ in seed and initialisation, in their batches and in their learning rates; in a step each sees
//! equally many examples. None reads another's memory, and nothing that it computes depends on how many there are.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    device::{Address, Device, Recording},
    fit,
    launches::Loaded,
    memory::{EXAMPLE, Memory, SETTINGS, TALLY},
    plan::Plan,
    sources::wanted,
    step::{Purpose, launches},
    stored,
};
use crate::{
    Error, Result,
    arch::Graph,
    data::{self, Dataset},
    tensor::{Tensor, Tensors},
    trainer::{Example, Precision, Split, State, Tally, TrainSpec},
};

/// Trainings that step together.
pub struct Group<D> {
    device: D,
    specs: Vec<TrainSpec>,
    data: Arc<Dataset>,
    plan: Plan,
    memory: Memory,
    loaded: Loaded,
    recordings: HashMap<(Purpose, usize), Recording>,
    settings: Vec<u8>,
}

impl<D: Device> Group<D> {
    /// One training for each of `specs`, which may differ in seed, initialisation, momentum and weight decay.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the engine does not cover the network; where specs differ in more than they may;
    /// where the device's memory does not suffice, with the largest batch that fits.
    pub fn new(specs: &[TrainSpec], data: Arc<Dataset>, mut device: D) -> Result<Self> {
        let Some(spec) = specs.first() else {
            return Err(Error::Invalid("a group of no trainings".into()));
        };
        let alike = |other: &&TrainSpec| {
            (other.arch, other.variant, other.set, other.batch, other.precision)
                == (spec.arch, spec.variant, spec.set, spec.batch, spec.precision)
        };
        if !specs.iter().all(|other| alike(&other)) {
            return Err(Error::Invalid(
                "trainings of a group must agree in architecture, mode, batch and precision; train these alone"
                    .into(),
            ));
        }
        let images = data.len(Split::Train) + data.len(Split::Test);
        let plan = Plan::new(spec, specs.len(), data.classes().len(), images, device.has_tensor_cores())?;
        if spec.precision != Precision::F32 && !device.has_tensor_cores() {
            let reason = format!(
                "{} knows neither tf32 nor bf16, which a card of compute capability 8.0 does; use precision = \"f32\"",
                device.describe()
            );
            return Err(Error::Unsupported { engine: "cuda", reason });
        }
        fit::check(spec, &data, &plan, &device)?;
        let memory = Memory::new(&plan, &mut |bytes| device.alloc(bytes))?;
        let (sources, shared) = wanted(&plan, &memory)?;
        if shared > device.most_shared() {
            let (most, what) = (device.most_shared() >> 10, device.describe());
            let reason = format!(
                "it does not cover a network of this width on {what}, whose blocks have {most} KiB of shared memory: one \
                 of its kernels takes {}",
                shared.div_ceil(1 << 10)
            );
            return Err(Error::Unsupported { engine: "cuda", reason });
        }
        device.prepare(&sources)?;
        let mut group = Self {
            device,
            specs: specs.to_vec(),
            data,
            plan,
            memory,
            loaded: Loaded::default(),
            recordings: HashMap::new(),
            settings: Vec::new(),
        };
        group.upload_data()?;
        for i in 0..specs.len() {
            group.upload_initial(i)?;
        }
        // Loading kernels and graphs later would wait until nothing else runs on the device.
        for (purpose, split) in [(Purpose::Step, Split::Train), (Purpose::Predict, Split::Test)] {
            let (images, batch) = (group.data.len(split), group.plan.batch);
            for count in [images.min(batch), images % batch].into_iter().filter(|count| *count > 0) {
                group.recording(purpose, count)?;
            }
        }
        if group.plan.filters_train() {
            group.recording(Purpose::Pack, 0)?;
        }
        Ok(group)
    }

    /// How many trainings.
    pub(super) fn len(&self) -> usize {
        self.specs.len()
    }

    /// Bytes of all buffers.
    pub(super) fn bytes(&self) -> usize {
        Memory::bytes(&self.plan)
    }

    /// What of the device decides how sums are rounded.
    pub(super) fn rounding(&self) -> String {
        format!("cuda, {}", self.device.rounding())
    }

    /// Card, driver, compiler, precision.
    pub(super) fn describe(&self) -> String {
        format!("{}, {}", self.device.describe(), stored::name(self.plan.precision).to_lowercase())
    }

    fn upload_data(&mut self) -> Result<()> {
        let floats = data::normalization().concat();
        upload(&mut self.device, self.memory.table, &le_bytes(&floats))?;
        let splits = [Split::Train, Split::Test].map(|split| (split, self.data.len(split)));
        let all = splits.iter().flat_map(|(split, n)| (0..*n).map(move |i| (*split, i)));
        let labels: Vec<u8> = all.clone().flat_map(|(s, i)| self.data.label(s, i).to_le_bytes()).collect();
        upload(&mut self.device, self.memory.ends.labels, &labels)?;
        for (n, (split, i)) in all.enumerate() {
            let to = Address(self.memory.pixels.0 + (n * data::IMAGE_BYTES) as u64);
            upload(&mut self.device, to, self.data.image(split, i))?;
        }
        Ok(())
    }

    /// Everything of instance `i` before its first step.
    fn upload_initial(&mut self, i: usize) -> Result<()> {
        let graph = Graph::new(self.specs[i].arch, self.specs[i].variant, self.data.classes().len());
        let (state, weights) = State::initial(&graph, &self.specs[i])?;
        let of = &self.plan.parameters;
        let values = of.values(&state, &weights);
        let packed = stored::bytes(self.plan.precision, &of.pack(&weights));
        let places: Vec<u8> = of.places(&self.specs[i]).iter().flat_map(|p| p.to_le_bytes()).collect();
        upload(&mut self.device, instance(self.memory.values, i, 4 * values.len()), &le_bytes(&values))?;
        upload(&mut self.device, instance(self.memory.packed, i, packed.len()), &packed)?;
        upload(&mut self.device, instance(self.memory.places, i, places.len()), &places)?;
        for (u, filters) in of.filters.iter().enumerate() {
            let at: Vec<u8> =
                filters.positions(&self.specs[i]).iter().flat_map(|p| p.to_le_bytes()).collect();
            upload(&mut self.device, instance(self.memory.positions[u], i, at.len()), &at)?;
        }
        self.upload_rest(i, &state)
    }

    /// Momentum and running statistics of instance `i`.
    fn upload_rest(&mut self, i: usize, state: &State) -> Result<()> {
        let of = &self.plan.parameters;
        let velocity: Vec<f32> = of.slots.iter().flat_map(|s| state.momentum[&s.name].data.clone()).collect();
        upload(
            &mut self.device,
            instance(self.memory.velocity, i, 4 * velocity.len()),
            &le_bytes(&velocity),
        )?;
        for (u, unit) in self.plan.layout.units.iter().enumerate() {
            let part = |part: &str| &state.values[&format!("{}.{part}", unit.norm)].data;
            let running = [part("running_mean").as_slice(), part("running_var")].concat();
            upload(
                &mut self.device,
                instance(self.memory.running[u], i, 4 * running.len()),
                &le_bytes(&running),
            )?;
        }
        Ok(())
    }

    fn run(&mut self, purpose: Purpose, count: usize) -> Result<()> {
        let recording = self.recording(purpose, count)?;
        self.device.replay(recording)
    }

    /// The launches of `purpose`, recorded the first time.
    fn recording(&mut self, purpose: Purpose, count: usize) -> Result<Recording> {
        if let Some(recording) = self.recordings.get(&(purpose, count)) {
            return Ok(*recording);
        }
        let parts = (&self.plan, &self.memory);
        let list = launches(&mut |source| self.device.load(source), &mut self.loaded, parts, purpose, count)?;
        let recording = self.device.record(&list)?;
        self.recordings.insert((purpose, count), recording);
        Ok(recording)
    }

    /// Gives the device the examples of each instance; returns how many each has.
    fn upload_examples(&mut self, batches: &[&[Example]]) -> Result<usize> {
        let count = batches.first().map_or(0, |batch| batch.len());
        if batches.len() != self.len() || batches.iter().any(|batch| batch.len() != count) {
            return Err(Error::Invalid(format!(
                "{} batches for {} trainings; each needs one, all equally large",
                batches.len(),
                self.len()
            )));
        }
        batches.iter().zip(&self.specs).try_for_each(|(batch, spec)| spec.check(batch, &self.data))?;
        let bytes: Vec<u8> = batches.iter().flat_map(|batch| packed(batch, self.plan.batch)).collect();
        upload(&mut self.device, self.memory.ends.examples, &bytes)?;
        Ok(count)
    }

    /// One optimisation step of each training, on its batch at its learning rate.
    ///
    /// # Errors
    /// Where the batches are no such; those of the device.
    pub(super) fn step(&mut self, batches: &[&[Example]], rates: &[f32]) -> Result<()> {
        if rates.len() != self.len() {
            return Err(Error::Invalid(format!("{} rates for {} trainings", rates.len(), self.len())));
        }
        let count = self.upload_examples(batches)?;
        let each = self.specs.iter().zip(rates);
        let floats: Vec<f32> =
            each.flat_map(|(spec, rate)| [*rate, spec.momentum, spec.weight_decay, 0.0]).collect();
        let settings = le_bytes(&floats);
        assert_eq!(settings.len(), SETTINGS * self.len());
        if settings != self.settings {
            upload(&mut self.device, self.memory.settings, &settings)?;
            self.settings = settings;
        }
        self.run(Purpose::Step, count)
    }

    /// Reads and clears sums over examples.
    fn tallies(&mut self, which: usize) -> Result<Vec<Tally>> {
        let mut bytes = vec![0; TALLY * self.len()];
        self.device.download(self.memory.tallies[which], &mut bytes)?;
        upload(&mut self.device, self.memory.tallies[which], &vec![0; bytes.len()])?;
        let word = |bytes: &[u8], i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * i..8 * i + 8]);
            u64::from_le_bytes(word)
        };
        let tally =
            |b: &[u8]| Tally { examples: word(b, 0), loss: f64::from_bits(word(b, 1)), correct: word(b, 2) };
        Ok(bytes.chunks_exact(TALLY).map(tally).collect())
    }

    /// The sums over all steps since the last call, of each training.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn take_tallies(&mut self) -> Result<Vec<Tally>> {
        self.tallies(0)
    }

    /// Logits (`N K`) of images `range` of `split` by each training, with running statistics.
    ///
    /// # Errors
    /// Where there are no such images; those of the device.
    pub(super) fn predict(&mut self, split: Split, range: Range<usize>) -> Result<Vec<Vec<f32>>> {
        self.data.check(split, &range)?;
        let before = if split == Split::Test { self.data.len(Split::Train) } else { 0 };
        let (most, classes) = (self.plan.batch, self.plan.layout.classes);
        let mut logits = vec![Vec::with_capacity(range.len() * classes); self.len()];
        for first in range.clone().step_by(most) {
            let count = most.min(range.end - first);
            let whole = |n: usize| Example::whole((before + first + n) as u32);
            let batch = packed(&(0..count).map(whole).collect::<Vec<_>>(), most);
            let batches = batch.repeat(self.len());
            upload(&mut self.device, self.memory.ends.examples, &batches)?;
            self.run(Purpose::Predict, count)?;
            let mut bytes = vec![0; 8 * most * classes * self.len()];
            self.device.download(self.memory.ends.logits, &mut bytes)?;
            for (logits, bytes) in logits.iter_mut().zip(bytes.chunks_exact(8 * most * classes)) {
                let (words, _) = bytes.as_chunks();
                logits.extend(words[..count * classes].iter().map(|word| f64::from_le_bytes(*word) as f32));
            }
        }
        Ok(logits)
    }

    /// Gradients of the mean cross-entropy of each training's batch; changes nothing.
    ///
    /// # Errors
    /// As [`Group::step`].
    pub(super) fn gradients(&mut self, batches: &[&[Example]]) -> Result<Vec<(Tally, Tensors)>> {
        let count = self.upload_examples(batches)?;
        self.run(Purpose::Gradients, count)?;
        let tallies = self.tallies(1)?;
        let (at, trained) = (self.memory.gradient, self.plan.parameters.trained);
        let of = |(i, tally)| Ok((tally, self.slots(at, trained, i)?));
        tallies.into_iter().enumerate().map(of).collect()
    }

    /// Instance `i` of what trains, in the order of values, from memory whose instances have `len` of them.
    fn slots(&mut self, at: Address, len: usize, i: usize) -> Result<Tensors> {
        let trained = self.floats(instance(at, i, 4 * len), self.plan.parameters.trained)?;
        let slots = self.plan.parameters.slots.iter();
        let of = |slot: &super::parameters::Slot| {
            let data = trained[slot.at..slot.at + slot.len()].to_vec();
            (slot.name.clone(), Tensor::new(slot.shape.clone(), data))
        };
        Ok(slots.map(of).collect())
    }

    fn floats(&mut self, at: Address, count: usize) -> Result<Vec<f32>> {
        let mut bytes = vec![0; 4 * count];
        if count > 0 {
            self.device.download(at, &mut bytes)?;
        }
        Ok(bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }

    /// A copy of all that changes in training `i`.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn state(&mut self, i: usize) -> Result<State> {
        let (at, of) = (&self.memory, &self.plan.parameters);
        let [(at, len), (velocity, trained)] = [(at.values, of.len), (at.velocity, of.trained)];
        let (mut values, momentum) = (self.slots(at, len, i)?, self.slots(velocity, trained, i)?);
        for u in 0..self.plan.layout.units.len() {
            let channels = self.plan.output(u).0;
            let mut mean = self.floats(instance(self.memory.running[u], i, 8 * channels), 2 * channels)?;
            let variance = mean.split_off(channels);
            for (part, data) in [("running_mean", mean), ("running_var", variance)] {
                let name = format!("{}.{part}", self.plan.layout.units[u].norm);
                values.insert(name, Tensor::new([channels], data));
            }
        }
        Ok(State { values, momentum })
    }

    /// Training `i` goes on from `state`.
    ///
    /// # Errors
    /// Where its names or shapes are not this network's; those of the device.
    pub(super) fn restore(&mut self, i: usize, state: &State) -> Result<()> {
        self.state(i)?.check(state)?;
        let of = &self.plan.parameters;
        let trained: Vec<f32> = of.slots.iter().flat_map(|s| state.values[&s.name].data.clone()).collect();
        upload(&mut self.device, instance(self.memory.values, i, 4 * of.len), &le_bytes(&trained))?;
        self.upload_rest(i, state)?;
        if self.plan.filters_train() { self.run(Purpose::Pack, 0) } else { Ok(()) }
    }
}

/// Instance `i` of a buffer of `bytes` each.
fn instance(at: Address, i: usize, bytes: usize) -> Address {
    Address(at.0 + (i * bytes) as u64)
}

/// Copies to `device`; what does not exist has no address.
fn upload<D: Device>(device: &mut D, to: Address, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() { Ok(()) } else { device.upload(to, bytes) }
}

fn le_bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// `batch` as the device has it, with room for `most`.
fn packed(batch: &[Example], most: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(most * EXAMPLE);
    for example in batch {
        bytes.extend(example.index.to_le_bytes());
        bytes.extend([example.dy, example.dx, u8::from(example.flip), 0]);
    }
    bytes.resize(most * EXAMPLE, 0);
    bytes
}
