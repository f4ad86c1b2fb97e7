//! The CUDA engine behind the training loop's interface: a group of one. Knows no schedule and no files.

use std::{ops::Range, sync::Arc};

use super::{device::Device, group::Group};
use crate::{
    Error, Result,
    data::Dataset,
    tensor::Tensors,
    trainer::{Example, Split, State, Tally, TrainSpec, Trainer},
};

/// A network in training on a device.
pub struct CudaTrainer<D> {
    group: Group<D>,
}

impl<D: Device> CudaTrainer<D> {
    /// The network of `spec` with its initial values, and all memory of a step.
    ///
    /// # Errors
    /// As [`Group::new`].
    pub fn new(spec: &TrainSpec, data: Arc<Dataset>, device: D) -> Result<Self> {
        Ok(Self { group: Group::new(std::slice::from_ref(spec), data, device)? })
    }
}

/// Of a group of one, what there is.
fn only<T>(all: Vec<T>) -> Result<T> {
    all.into_iter().next().ok_or_else(|| Error::Invalid("a group of no trainings".into()))
}

impl<D: Device> Trainer for CudaTrainer<D> {
    fn step(&mut self, batch: &[Example], rate: f32) -> Result<()> {
        self.group.step(&[batch], &[rate])
    }

    fn take_tally(&mut self) -> Result<Tally> {
        only(self.group.take_tallies()?)
    }

    fn predict(&mut self, split: Split, range: Range<usize>) -> Result<Vec<f32>> {
        only(self.group.predict(split, range)?)
    }

    fn gradients(&mut self, batch: &[Example]) -> Result<(Tally, Tensors)> {
        only(self.group.gradients(&[batch])?)
    }

    fn state(&mut self) -> Result<State> {
        self.group.state(0)
    }

    fn restore(&mut self, state: &State) -> Result<()> {
        self.group.restore(0, state)
    }

    fn describe(&self) -> String {
        format!("cuda engine, {}, f32", self.group.describe())
    }
}

#[cfg(test)]
#[path = "trainer_tests.rs"]
mod tests;
