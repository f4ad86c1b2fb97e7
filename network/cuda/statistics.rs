//! Launches between sums over a batch and the lines that sweeps apply (`statistics.cu`).

use super::{
    device::{Address, Device, Source},
    launches::{Args, COMMON, Launches, Size},
};
use crate::Result;

/// A BatchNorm's memory.
#[derive(Clone, Copy, Debug)]
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
    pub(super) running: Address,
}

/// Sums that blocks left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    /// They, and their distance between instances.
    pub(super) partial: (Address, usize),
    pub(super) tiles: usize,
    /// Values of each channel behind them.
    pub(super) count: usize,
}

fn source() -> Source {
    Source {
        name: "statistics.cu",
        text: [COMMON, include_str!("statistics.cu")].concat(),
        defines: Vec::new(),
        kernels: vec!["normalise", "fix", "differentiate"],
    }
}

impl Norm {
    fn size(&self) -> Size {
        Size { blocks: [self.channels / 16, 1], threads: 256, shared: 256 * 8 }
    }

    /// The line by the batch's sums; the running statistics follow if `follow`.
    pub(super) fn normalise<D: Device>(
        &self,
        to: &mut Launches<'_, D>,
        sums: Sums,
        follow: bool,
    ) -> Result<()> {
        let running = if follow { self.running } else { Address::NONE };
        let args = Args::default()
            .at(&[sums.partial.0])
            .unsigned(sums.partial.1)
            .int(&[sums.tiles, self.channels, sums.count])
            .at(&[self.gamma, self.beta, self.bias])
            .unsigned(self.values)
            .at(&[self.moments, self.line, running]);
        to.add(source(), "normalise", self.size(), args.done())
    }

    /// The line by the running statistics.
    pub(super) fn fix<D: Device>(&self, to: &mut Launches<'_, D>) -> Result<()> {
        let size = Size { threads: 16, shared: 0, ..self.size() };
        let args = Args::default().int(&[self.channels]).at(&[self.gamma, self.beta, self.bias]);
        let args = args.unsigned(self.values).at(&[self.line, self.running]);
        to.add(source(), "fix", size, args.done())
    }

    /// The gradients, from the first and the `which`-th sums.
    pub(super) fn differentiate<D: Device>(
        &self,
        to: &mut Launches<'_, D>,
        sums: Sums,
        which: usize,
    ) -> Result<()> {
        let (gradients, distance) = self.gradients;
        let args = Args::default()
            .at(&[sums.partial.0])
            .unsigned(sums.partial.1)
            .int(&[sums.tiles, which, self.channels, sums.count])
            .at(&[self.gamma])
            .unsigned(self.values)
            .at(&[self.moments])
            .at(&gradients)
            .unsigned(distance)
            .at(&[self.back]);
        to.add(source(), "differentiate", self.size(), args.done())
    }
}
