//! What stands behind `repro bench` and `repro plan` on the command line.

use clap::{Subcommand, ValueEnum};
use network::{
    arch::{Arch, Variant},
    mode::Mode,
};

/// The most steps that can be asked for: nobody waits for more, and two such numbers can be added.
const MOST: i64 = 1_000_000;

/// What a network's training step is.
#[derive(Debug, clap::Args)]
pub(crate) struct Work {
    /// Which reading of the network: `paper` or `origin`
    #[arg(long, default_value = "paper")]
    pub(crate) variant: Variant,
    /// What trains: `bn`, `random`, `all`, ...
    #[arg(long, default_value = "bn")]
    pub(crate) mode: Mode,
    /// Weights of each filter that train in mode `random` [default: 2]
    #[arg(short, long, value_name = "N")]
    pub(crate) k: Option<usize>,
    /// Images of a step
    #[arg(long, value_name = "N", default_value = "128", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) batch: u32,
    /// How activations are stored and, on a card, multiplied
    #[arg(long, value_enum, default_value = "f32")]
    pub(crate) precision: Precision,
    /// What computes
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) engine: Engine,
    /// Where it computes
    #[arg(long, value_enum, default_value = "cpu")]
    pub(crate) device: Device,
    /// Threads that compute
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Bytes that the buffers should fit: what is not kept for that is computed again
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) memory: Option<usize>,
    /// Compute with this instruction set: `avx512bf16`, `avx512`, `avx2` or `portable` [default: the best]
    #[arg(long, value_name = "NAME")]
    pub(crate) isa: Option<String>,
}

/// A number of bytes, with `_` between its digits or without, as in a pipeline file.
fn bytes(text: &str) -> Result<usize, String> {
    text.replace('_', "").parse().map_err(|_| "write bytes, such as 100_000_000".to_owned())
}

/// Options of `repro plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// The network: resnet32, resnet14-8, vgg16, ...
    pub(crate) arch: Arch,
    #[command(flatten)]
    pub(crate) work: Work,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Whole training steps (augmentation, forward, backward, SGD) on images of noise
    Step(BenchStep),
    /// Single convolutions in every direction, on one thread and in its CPU time
    Kernels(BenchKernels),
}

/// Options of `repro bench step`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchStep {
    /// The network: resnet32, resnet14-8, vgg16, ...
    #[arg(long, default_value = "resnet32")]
    pub(crate) arch: Arch,
    #[command(flatten)]
    pub(crate) work: Work,
    /// Trainings that step together on a card
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) instances: u16,
    /// Time the evaluation of as many images instead
    #[arg(long)]
    pub(crate) predict: bool,
    /// Steps that are timed
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub(crate) repeats: u32,
    /// Steps before them
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(0..=MOST))]
    pub(crate) warmup: u32,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `repro bench kernels`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchKernels {
    /// Only those with this text in their name, such as `32>32`, or `forward`, `backward`, `gradient`,
    /// `two-positions`, `set`, `direct`, `direct-back`
    pub(crate) filter: Option<String>,
    /// Compute with this instruction set: `avx512bf16`, `avx512`, `avx2` or `portable` [default: the best]
    #[arg(long, value_name = "NAME")]
    pub(crate) isa: Option<String>,
    /// Measurements of each, of which the median counts
    #[arg(long, value_name = "N", default_value = "15", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub(crate) repeats: u32,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How activations are stored and, on a card, multiplied.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Precision {
    /// 32-bit floats
    F32,
    /// 32-bit floats, rounded for a card's tensor cores while they are multiplied
    Tf32,
    /// bfloat16 activations and gradients; sums in 32-bit floats
    Bf16,
}

/// What computes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Engine {
    /// The fastest one that covers the network on this machine
    Auto,
    /// Plain candle: what the others are compared with
    Reference,
    /// The fused kernels
    Cpu,
}

/// Where it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    /// The processor
    Cpu,
    /// An NVIDIA card, with the fused kernels for it
    Cuda,
}
