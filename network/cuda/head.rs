//! Launches of the network's end (`head.cu`): pooling, the output layer, the loss and the way back to the last map.

use super::{
    device::{Address, Source},
    launches::{Args, COMMON, Launches, MAPS, NORMS, STORED, Size},
    maps::{Read, Target, Write},
    stored,
};
use crate::{Result, trainer::Precision};

/// Of a block; as in the kernels.
const THREADS: usize = 256;

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
    /// Rows of [`COUNTERS`](super::memory::COUNTERS).
    pub(super) counters: Address,
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
    pub(super) logits: Address,
    pub(super) d_logits: Address,
    pub(super) losses: Address,
    pub(super) correct: Address,
}

impl Head {
    fn source(&self) -> Source {
        Source {
            name: "head.cu",
            text: [COMMON, STORED, MAPS, NORMS, include_str!("head.cu")].concat(),
            defines: vec![
                ("PRECISION", stored::kept(self.precision).into()),
                ("CHANNELS", self.channels.to_string()),
                ("HEIGHT", self.size[0].to_string()),
                ("WIDTH", self.size[1].to_string()),
            ],
            kernels: vec!["head", "output"],
        }
    }

    /// Logits, losses and their gradients; with a `tally`, adds losses and hits to it; with a way `back`, also the
    /// gradient of the last map and, in the second, its sums (and their distance).
    pub(super) fn launch(
        &self,
        to: &mut Launches<'_>,
        last: Read,
        ends: &Ends,
        tally: Address,
        back: Option<(Write, (Address, usize))>,
    ) -> Result<()> {
        let (write, sums) =
            back.unwrap_or((Write::new(Target::Rectifier, Address::NONE), (Address::NONE, 0)));
        let shared = 2 * 8 * self.classes + 4 * self.channels + 3 * THREADS * 16;
        let size = Size { blocks: [self.count, 1], threads: THREADS, shared };
        let args = Args::default()
            .at(&last.parts)
            .at(&[last.signs, self.weights, self.bias])
            .unsigned(self.values)
            .at(&[ends.examples, ends.labels, ends.pooled, ends.logits, ends.d_logits])
            .at(&[ends.losses, ends.correct])
            .int(&[self.count, self.batch, self.classes])
            .at(&[write.out, write.z[0], write.z[1], write.line, write.pass, sums.0])
            .unsigned(sums.1)
            .at(&[self.counters, tally]);
        to.add_early(self.source(), "head", size, args.done())
    }

    /// The gradients of weights and biases, if they train.
    pub(super) fn output(&self, to: &mut Launches<'_>, ends: &Ends) -> Result<()> {
        let (gradients, distance) = self.gradients;
        if gradients[0] == Address::NONE {
            return Ok(());
        }
        let values = self.classes * (self.channels + 1);
        let size = Size { blocks: [values.div_ceil(32), 1], threads: THREADS, shared: 8 * THREADS };
        let args = Args::default()
            .at(&[ends.d_logits, ends.pooled])
            .at(&gradients)
            .unsigned(distance)
            .int(&[self.count, self.batch, self.classes]);
        to.add_early(self.source(), "output", size, args.done())
    }
}
