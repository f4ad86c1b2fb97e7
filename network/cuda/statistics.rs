//! BatchNorms between the sums over a batch and the lines that sweeps apply (`norms.cu`): a convolution's last block sees
//! to them, and elsewhere launches of `statistics.cu`.

use super::{
    device::{Address, Device, Source},
    launches::{Args, COMMON, Launches, NORMS, Size},
};
use crate::Result;

/// A BatchNorm's memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Norm {
    pub(super) channels: usize,
    pub(super) gamma: Address,
    pub(super) beta: Address,
    /// The convolution's bias, if it has one.
    pub(super) bias: Address,
    /// Distance of these values between instances.
    pub(super) values: usize,
    /// Where their gradients go, and the distance of those.
    pub(super) gradients: ([Address; 2], usize),
    pub(super) moments: Address,
    /// Scale and shift.
    pub(super) line: Address,
    /// a, b, c of the gradient.
    pub(super) back: Address,
    /// Means and variances, if they are to follow.
    pub(super) running: Address,
}

/// Sums that blocks leave, and what becomes of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    /// They, if any are wanted, and their distance between instances.
    pub(super) partial: (Address, usize),
    /// Zeros ([`COUNTERS`](super::memory::COUNTERS)).
    pub(super) counters: Address,
    /// Whose lines they become. Backward the first gets sums of g and g z, the second those of a projection.
    pub(super) norms: [Norm; 2],
}

impl Sums {
    /// They as a kernel takes them; of each channel there are `values` values.
    pub(super) fn args(&self, args: Args, values: usize) -> Args {
        let args = args.at(&[self.partial.0]).unsigned(self.partial.1).at(&[self.counters]).int(&[values]);
        self.norms.iter().fold(args, |args, norm| norm.args(args))
    }
}

fn source() -> Source {
    Source {
        name: "statistics.cu",
        text: [COMMON, NORMS, include_str!("statistics.cu")].concat(),
        defines: Vec::new(),
        kernels: vec!["fix", "back"],
    }
}

/// Bytes of shared memory in which a block of `threads` adds up the sums of `channels` (`add_up`).
pub(super) fn shared(threads: usize, channels: usize) -> usize {
    8 * (4 * threads + 3 * channels)
}

impl Norm {
    pub(super) fn args(&self, args: Args) -> Args {
        let ([d_gamma, d_beta], distance) = self.gradients;
        args.at(&[self.gamma, self.beta, self.bias])
            .unsigned(self.values)
            .at(&[self.moments, self.line, self.running, d_gamma, d_beta])
            .unsigned(distance)
            .at(&[self.back])
    }

    /// The line by the running statistics.
    pub(super) fn fix<D: Device>(&self, to: &mut Launches<'_, D>) -> Result<()> {
        let size = Size { blocks: [self.channels / 16, 1], threads: 16, shared: 0 };
        to.add(source(), "fix", size, self.args(Args::default().int(&[self.channels])).done())
    }

    /// The gradients, from the first and the `which`-th of the sums of `tiles` tiles over `values` values.
    pub(super) fn back<D: Device>(
        &self,
        to: &mut Launches<'_, D>,
        partial: (Address, usize),
        [tiles, values, which]: [usize; 3],
    ) -> Result<()> {
        const THREADS: usize = 256;
        let size = Size { blocks: [self.channels / 16, 1], threads: THREADS, shared: shared(THREADS, 16) };
        let args = Args::default().at(&[partial.0]).unsigned(partial.1);
        let args = args.int(&[tiles, self.channels, values, which]);
        to.add(source(), "back", size, self.args(args).done())
    }
}
