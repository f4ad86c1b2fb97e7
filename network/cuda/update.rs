//! Launches of what follows the gradients (`update.cu`): sums of their parts, SGD, trained weights packed as filters.

use super::{
    device::{Address, Device, Source},
    launches::{Args, COMMON, Launches, Size},
    memory::Memory,
    parameters::Parameters,
};
use crate::Result;

fn source() -> Source {
    Source {
        name: "update.cu",
        text: [COMMON, include_str!("update.cu")].concat(),
        defines: Vec::new(),
        kernels: vec!["total", "sgd", "pack"],
    }
}

/// One thread for each of `count` values.
fn each(count: usize) -> Size {
    Size { blocks: [count.div_ceil(256), 1], threads: 256, shared: 0 }
}

/// `gradient` becomes the sum of `splits` parts of `len` values; both with their distances between instances.
pub(super) fn total<D: Device>(
    to: &mut Launches<'_, D>,
    splits: usize,
    len: usize,
    partial: (Address, usize),
    gradient: (Address, usize),
) -> Result<()> {
    let args = Args::default().at(&[partial.0]).unsigned(partial.1).int(&[splits]).unsigned(len);
    let args = args.at(&[gradient.0]).unsigned(gradient.1);
    to.add(source(), "total", each(len), args.done())
}

/// One step on all that trains.
pub(super) fn sgd<D: Device>(to: &mut Launches<'_, D>, of: &Parameters, memory: &Memory) -> Result<()> {
    if of.trained == 0 {
        return Ok(());
    }
    let args = Args::default()
        .at(&[memory.values])
        .unsigned(of.len)
        .at(&[memory.velocity, memory.gradient])
        .unsigned(of.trained)
        .at(&[memory.settings, memory.places])
        .unsigned(of.weights)
        .at(&[memory.packed])
        .unsigned(of.packed);
    to.add(source(), "sgd", each(of.trained), args.done())
}

/// Trained weights into the packed filters.
pub(super) fn pack<D: Device>(to: &mut Launches<'_, D>, of: &Parameters, memory: &Memory) -> Result<()> {
    if of.weights == 0 {
        return Ok(());
    }
    let args = Args::default()
        .at(&[memory.values])
        .unsigned(of.len)
        .at(&[memory.places])
        .unsigned(of.weights)
        .at(&[memory.packed])
        .unsigned(of.packed);
    to.add(source(), "pack", each(of.weights), args.done())
}
