//! BatchNorms between the sums over a batch and the lines that sweeps apply (`norms.cu`): a convolution makes those of
//! what it reads, and elsewhere launches of `statistics.cu` do.

use super::{
    device::{Address, Source},
    launches::{Args, COMMON, Launches, NORMS, Size},
};
use crate::Result;

/// Of a block; as in the kernels.
const THREADS: usize = 256;
/// Bytes of one sum.
pub(super) const SUM: usize = 8 * 8;

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
    /// Sums for each channel, and their distance in words: of z and z z, or of g and g z.
    pub(super) sums: ([Address; 2], usize),
    /// Where gradients go, and the distance of those.
    pub(super) gradients: ([Address; 2], usize),
    pub(super) moments: Address,
    /// Scale and shift.
    pub(super) line: Address,
    /// a, b, c of the gradient.
    pub(super) back: Address,
    /// Means and variances, if they are to follow.
    pub(super) running: Address,
}

/// What a convolution adds up of what it writes, and the BatchNorms of what it reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    /// Sums for each channel of what is written, if they are wanted, and their distance in words between instances.
    pub(super) written: (Address, usize),
    /// Whose lines the convolution makes: of what it reads, and of what is added to that.
    pub(super) read: [Norm; 2],
    /// Values of each channel of these.
    pub(super) values: usize,
}

impl Sums {
    /// They as a kernel takes them.
    pub(super) fn args(&self, args: Args) -> Args {
        let args = args.at(&[self.written.0]).unsigned(self.written.1).int(&[self.values]);
        self.read.iter().fold(args, |args, norm| norm.args(args))
    }
}

fn source() -> Source {
    Source {
        name: "statistics.cu",
        text: [COMMON, NORMS, include_str!("statistics.cu")].concat(),
        defines: Vec::new(),
        kernels: vec!["make_line", "make_back", "fix", "clear"],
    }
}

/// All `words` of an instance's sums become zero.
pub(super) fn clear(to: &mut Launches<'_>, sums: Address, words: usize) -> Result<()> {
    let size = Size { blocks: [words.div_ceil(THREADS), 1], threads: THREADS, shared: 0 };
    to.add_early(source(), "clear", size, Args::default().at(&[sums]).unsigned(words).done())
}

impl Norm {
    fn args(&self, args: Args) -> Args {
        let ([d_gamma, d_beta], distance) = self.gradients;
        args.at(&[self.gamma, self.beta, self.bias])
            .unsigned(self.values)
            .at(&self.sums.0)
            .unsigned(self.sums.1)
            .at(&[self.moments, self.line, self.running, d_gamma, d_beta])
            .unsigned(distance)
            .at(&[self.back])
    }

    fn launch(&self, to: &mut Launches<'_>, kernel: &str, values: Option<usize>) -> Result<()> {
        let size = Size { blocks: [1, 1], threads: THREADS, shared: 8 * 2 * self.channels };
        let args = Args::default().int(&[self.channels]);
        let args = if let Some(values) = values { args.int(&[values]) } else { args };
        to.add_early(source(), kernel, size, self.args(args).done())
    }

    /// The line by the sums over `values` values.
    pub(super) fn forward(&self, to: &mut Launches<'_>, values: usize) -> Result<()> {
        self.launch(to, "make_line", Some(values))
    }

    /// The line of the gradient by the sums over `values` values, and the gradients of gamma and beta.
    pub(super) fn backward(&self, to: &mut Launches<'_>, values: usize) -> Result<()> {
        self.launch(to, "make_back", Some(values))
    }

    /// The line by the running statistics.
    pub(super) fn fix(&self, to: &mut Launches<'_>) -> Result<()> {
        self.launch(to, "fix", None)
    }
}
