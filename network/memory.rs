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
pub struct Buffers {
    spec: TrainSpec,
    /// Classes and no images.
    data: Arc<Dataset>,
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
        let mut buffers = Self { spec: spec.clone(), data: Arc::new(data), fixed: 0, each: 0 };
        let (small, large) = (buffers.made(STEP)?, buffers.made(2 * STEP)?);
        (buffers.fixed, buffers.each) = ((2 * small).saturating_sub(large), large - small);
        Ok(buffers)
    }

    /// Bytes for a batch: those of two small ones tell, so that buffers need not be had to be counted.
    fn exactly(&self, batch: usize) -> Result<usize> {
        let steps = (batch / STEP).saturating_sub(1);
        Ok(self.made(batch - steps * STEP)?.saturating_add(self.each.saturating_mul(steps)))
    }

    /// Bytes for a batch, as the plan of its step has them.
    fn made(&self, batch: usize) -> Result<usize> {
        let spec = TrainSpec { batch, ..self.spec.clone() };
        let trainer = trainer::open(&spec, self.data.clone(), Isa::choose(None)?, 1, usize::MAX)?;
        Ok(trainer.plan().map_or(0, |plan| plan.buffer_bytes(false)))
    }

    /// Bytes for a batch, rounded up to the next multiple of [`STEP`]; none where they are more than can be
    /// counted.
    pub fn bytes(&self, batch: usize) -> Option<usize> {
        batch.div_ceil(STEP).checked_mul(self.each)?.checked_add(self.fixed)
    }

    /// The largest batch that `budget` bytes suffice for; 0 where not even one image's do.
    ///
    /// # Errors
    /// As those of [`Buffers::of`].
    pub fn largest_batch(&self, budget: usize) -> Result<usize> {
        let steps = budget.checked_sub(self.fixed).map_or(0, |rest| rest / self.each);
        let (mut fits, mut too_many) = (steps * STEP, (steps + 1) * STEP);
        while too_many - fits > 1 {
            let middle = usize::midpoint(fits, too_many);
            *(if self.exactly(middle)? <= budget { &mut fits } else { &mut too_many }) = middle;
        }
        Ok(fits)
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
        let [of_bn, of_all] = [&bn, &all].map(|buffers| buffers.bytes(128).unwrap());
        assert!(of_bn > 128 * 4 * outputs && of_bn < 3 * 128 * 4 * outputs, "{of_bn}");
        assert!(of_all > of_bn, "gradients of filters take room");
        assert_eq!(bn.bytes(usize::MAX - STEP), None);
    }

    #[test]
    fn the_largest_batch_fits_and_the_next_does_not() {
        let buffers = buffers(Mode::Bn);
        let bytes = |batch| buffers.exactly(batch).unwrap();
        for budget in [1 << 24, 1 << 28] {
            let largest = buffers.largest_batch(budget).unwrap();
            assert!(largest > 0 && bytes(largest) <= budget && bytes(largest + 1) > budget, "{largest}");
        }
        assert_eq!(bytes(5 * STEP), buffers.bytes(5 * STEP).unwrap());
        for batch in [1, STEP - 1, 2 * STEP + 1, 3 * STEP + 17, 5 * STEP] {
            assert_eq!(bytes(batch), buffers.made(batch).unwrap(), "{batch}");
        }
        // More than any machine has.
        let largest = buffers.largest_batch(1 << 60).unwrap();
        assert!(bytes(largest) <= 1 << 60 && bytes(largest + 1) > 1 << 60, "{largest}");
        assert_eq!(buffers.largest_batch(1000).unwrap(), 0);
    }
}
