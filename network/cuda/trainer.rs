//! The CUDA engine behind the training loop's interface: a group of one, or of several alike. Knows no schedule and no
//! files.

use std::{ops::Range, sync::Arc};

use super::{device::Device, group::Group};
use crate::{
    Error, Result,
    data::Dataset,
    plan::Plan,
    tensor::Tensors,
    trainer::{Example, Split, State, Tally, TrainSpec, Trainer},
};

/// Networks in training on a device: one, or several alike, which do the same work together. What several are asked for
/// is the first one's; sums are over all.
pub struct CudaTrainer<D> {
    group: Group<D>,
}

impl<D: Device> CudaTrainer<D> {
    /// The network of `spec` with its initial values, and all memory of a step.
    ///
    /// # Errors
    /// As [`Group::new`].
    pub fn new(spec: &TrainSpec, data: Arc<Dataset>, device: D) -> Result<Self> {
        Self::many(spec, 1, data, device)
    }

    /// `count` networks, each of a seed of its own, that step together: to measure what a group costs.
    ///
    /// # Errors
    /// As [`Group::new`].
    pub fn many(spec: &TrainSpec, count: usize, data: Arc<Dataset>, device: D) -> Result<Self> {
        let seeds = (0..count as u64).map(|i| spec.seed.wrapping_add(i));
        let specs: Vec<_> = seeds.map(|seed| TrainSpec { seed, ..spec.clone() }).collect();
        Ok(Self { group: Group::new(&specs, data, device)? })
    }
}

/// The first.
fn first<T>(all: Vec<T>) -> Result<T> {
    all.into_iter().next().ok_or_else(|| Error::Invalid("a group of no trainings".into()))
}

/// An error where `zeros` are wanted.
pub(super) fn uncounted(zeros: Option<&mut [Vec<u64>]>) -> Result<()> {
    if zeros.is_none() {
        return Ok(());
    }
    let reason = "it does not count zeros; use the engine `cpu` or `reference`".into();
    Err(Error::Unsupported { engine: "cuda", reason })
}

impl<D: Device> Trainer for CudaTrainer<D> {
    fn step(&mut self, batch: &[Example], rate: f32) -> Result<()> {
        let all = self.group.len();
        self.group.step(&vec![batch; all], &vec![rate; all])
    }

    fn take_tally(&mut self) -> Result<Tally> {
        let mut sum = Tally::default();
        self.group.take_tallies()?.into_iter().for_each(|tally| sum += tally);
        Ok(sum)
    }

    fn look(
        &mut self,
        split: Split,
        range: Range<usize>,
        zeros: Option<&mut [Vec<u64>]>,
    ) -> Result<Vec<f32>> {
        uncounted(zeros)?;
        first(self.group.predict(split, range)?)
    }

    fn gradients(&mut self, batch: &[Example]) -> Result<(Tally, Tensors)> {
        let all = self.group.len();
        first(self.group.gradients(&vec![batch; all])?)
    }

    fn state(&mut self) -> Result<State> {
        self.group.state(0)
    }

    fn restore(&mut self, state: &State) -> Result<()> {
        self.group.restore(0, state)
    }

    fn engine(&self) -> &'static str {
        "cuda"
    }

    fn rounding(&self) -> String {
        self.group.rounding()
    }

    fn describe(&self) -> String {
        format!("cuda engine, {}", self.group.describe())
    }

    fn plan(&self) -> Option<Plan> {
        Some(Plan::of_memory(self.group.bytes()))
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
