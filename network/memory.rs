//! How much memory a training step takes, without training. Knows no files.

use std::sync::Arc;

use crate::{
    Result,
    cpu::{lanes::Isa, trainer},
    data::{Dataset, Images, pack},
    trainer::TrainSpec,
};

/// Buffers grow evenly from one multiple of that many images to the next.
pub const STEP: usize = 64;

/// Bytes of all buffers of a step with one worker, on the CPU engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    fixed: usize,
    each: usize,
}

impl Buffers {
    /// Those of `spec` for `classes` classes, whatever its batch.
    ///
    /// # Errors
    /// Where the engine does not cover the network, or `spec` asks for what does not exist.
    pub fn of(spec: &TrainSpec, classes: usize) -> Result<Self> {
        let none = Images { labels: &[], pixels: &[] };
        let data = Dataset::from_bytes(Arc::new(pack(&vec![String::new(); classes], none, none)?))?;
        let data = Arc::new(data);
        let bytes = |batch: usize| -> Result<usize> {
            let spec = TrainSpec { batch, ..spec.clone() };
            let trainer = trainer::open(&spec, data.clone(), Isa::choose(None)?, 1, usize::MAX)?;
            Ok(trainer.plan().map_or(0, |plan| plan.buffer_bytes(false)))
        };
        let (small, large) = (bytes(STEP)?, bytes(2 * STEP)?);
        Ok(Self { fixed: (2 * small).saturating_sub(large), each: large - small })
    }

    /// Bytes for a batch, rounded up to the next multiple of [`STEP`]; none where they are more than can be
    /// counted.
    pub fn bytes(&self, batch: usize) -> Option<usize> {
        batch.div_ceil(STEP).checked_mul(self.each)?.checked_add(self.fixed)
    }

    /// The largest multiple of [`STEP`] that `budget` bytes suffice for; 0 where none does.
    pub fn largest_batch(&self, budget: usize) -> usize {
        budget.checked_sub(self.fixed).map_or(0, |rest| rest / self.each * STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arch::Variant, mode::Mode, support::spec};

    fn buffers(mode: Mode) -> Buffers {
        Buffers::of(&spec("resnet8", Variant::Paper, mode, 1), 10).unwrap()
    }

    #[test]
    fn buffers_hold_at_least_the_outputs_of_the_convolutions() {
        let outputs = 3 * 16 * 1024 + 3 * 32 * 256 + 3 * 64 * 64;
        let (bn, all) = (buffers(Mode::Bn), buffers(Mode::All));
        let bytes = |buffers: Buffers| buffers.bytes(128).unwrap();
        assert!(bytes(bn) > 128 * 4 * outputs && bytes(bn) < 3 * 128 * 4 * outputs, "{bn:?}");
        assert!(bytes(all) > bytes(bn), "gradients of filters take room");
        assert_eq!(bn.bytes(usize::MAX - STEP), None);
    }

    #[test]
    fn the_largest_batch_fits_and_the_next_does_not() {
        let buffers = buffers(Mode::Bn);
        let largest = buffers.largest_batch(1 << 28);
        assert!(largest > 0 && largest.is_multiple_of(STEP));
        let bytes = |batch| buffers.bytes(batch).unwrap();
        assert!(bytes(largest) <= 1 << 28 && bytes(largest + 1) > 1 << 28);
        assert_eq!(buffers.largest_batch(1000), 0);
    }
}
