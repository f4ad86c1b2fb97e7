//! Launches of the network's end (`head.cu`): pooling, the output layer, the loss and the way back to the last map.

use super::{
    device::{Address, Device, Source},
    launches::{Args, COMMON, Launches, MAPS, STORED, Size},
    maps::{Read, Write},
    stored,
};
use crate::{Result, trainer::Precision};

/// The output layer, and what it is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) channels: usize,
    /// Rows and columns of the last map.
    pub(super) size: [usize; 2],
    pub(super) classes: usize,
    pub(super) count: usize,
    /// Images that maps have room for.
    pub(super) batch: usize,
    pub(super) precision: Precision,
    pub(super) weights: Address,
    pub(super) bias: Address,
    /// Distance of these values between instances.
    pub(super) values: usize,
    /// Where their gradients go, if they train, and the distance of those.
    pub(super) gradients: ([Address; 2], usize),
}

/// What an image comes to, and the way back: memory with room for a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) examples: Address,
    /// Of the dataset.
    pub(super) labels: Address,
    pub(super) pooled: Address,
    pub(super) d_pooled: Address,
    pub(super) logits: Address,
    pub(super) d_logits: Address,
    pub(super) losses: Address,
    pub(super) correct: Address,
}

impl Head {
    fn source(&self) -> Source {
        Source {
            name: "head.cu",
            text: [COMMON, STORED, MAPS, include_str!("head.cu")].concat(),
            defines: vec![
                ("PRECISION", stored::name(self.precision).into()),
                ("HEIGHT", self.size[0].to_string()),
                ("WIDTH", self.size[1].to_string()),
            ],
            kernels: vec!["head", "spread", "output", "count"],
        }
    }

    /// Logits, losses and their gradients.
    pub(super) fn forward<D: Device>(&self, to: &mut Launches<'_, D>, last: Read, ends: &Ends) -> Result<()> {
        let shared = (2 * self.classes).next_multiple_of(2) * 8 + 128 * 4 * 4;
        let size = Size { blocks: [self.count, 1], threads: 128, shared };
        let args = Args::default()
            .at(&last.parts)
            .at(&[last.signs, self.weights, self.bias])
            .unsigned(self.values)
            .at(&[ends.examples, ends.labels, ends.pooled, ends.logits, ends.d_logits])
            .at(&[ends.d_pooled, ends.losses, ends.correct])
            .int(&[self.count, self.batch, self.channels, self.classes]);
        to.add(self.source(), "head", size, args.done())
    }

    /// Adds losses and hits to `tally`.
    pub(super) fn count<D: Device>(
        &self,
        to: &mut Launches<'_, D>,
        ends: &Ends,
        tally: Address,
    ) -> Result<()> {
        let size = Size { blocks: [1, 1], threads: 1, shared: 0 };
        let args = Args::default().at(&[ends.losses, ends.correct]).int(&[self.count, self.batch]);
        to.add(self.source(), "count", size, args.at(&[tally]).done())
    }

    /// The gradient of the last map, with its sums.
    pub(super) fn backward<D: Device>(
        &self,
        to: &mut Launches<'_, D>,
        last: Write,
        ends: &Ends,
        partial: (Address, usize),
    ) -> Result<()> {
        let blocks = [self.count, self.channels / 16];
        let size = Size { blocks, threads: 128, shared: 3 * 16 * 33 * 4 };
        let args = Args::default()
            .at(&[ends.d_pooled, last.out, last.z[0], last.z[1], last.line, last.pass, partial.0])
            .unsigned(partial.1)
            .int(&[self.batch, self.channels]);
        to.add(self.source(), "spread", size, args.done())
    }

    /// The gradients of weights and biases, if they train.
    pub(super) fn output<D: Device>(&self, to: &mut Launches<'_, D>, ends: &Ends) -> Result<()> {
        let (gradients, distance) = self.gradients;
        if gradients[0] == Address::NONE {
            return Ok(());
        }
        let values = self.classes * (self.channels + 1);
        let size = Size { blocks: [values.div_ceil(128), 1], threads: 128, shared: 0 };
        let args = Args::default()
            .at(&[ends.d_logits, ends.pooled])
            .at(&gradients)
            .unsigned(distance)
            .int(&[self.count, self.batch, self.channels, self.classes]);
        to.add(self.source(), "output", size, args.done())
    }
}
