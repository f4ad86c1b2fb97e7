//! Launches of what follows the gradients (`update.cu`): sums of their parts, SGD, trained weights packed as filters.

use super::{
    device::{Address, Source},
    launches::{Args, COMMON, Launches, STORED, Size},
    memory::Memory,
    plan::Plan,
    stored,
};
use crate::{Result, trainer::Precision};

fn source(precision: Precision) -> Source {
    Source {
        name: "update.cu",
        text: [COMMON, STORED, include_str!("update.cu")].concat(),
        defines: vec![("PRECISION", stored::kept(precision).into())],
        kernels: vec!["total", "sgd", "pack"],
    }
}

/// One thread for each of `count` values.
fn each(count: usize) -> Size {
    Size { blocks: [count.div_ceil(256), 1], threads: 256, shared: 0 }
}

/// `gradient` becomes the sum of `splits` parts of `len` values; both with their distances between instances. Several
/// threads share a value, some eight parts each, so that most loads are on their way at once.
pub(super) fn total(
    to: &mut Launches<'_>,
    precision: Precision,
    splits: usize,
    len: usize,
    partial: (Address, usize),
    gradient: (Address, usize),
) -> Result<()> {
    let lanes = splits.div_ceil(8).next_power_of_two().min(32);
    let args = Args::default().at(&[partial.0]).unsigned(partial.1).int(&[splits]).unsigned(len);
    let args = args.int(&[lanes]).at(&[gradient.0]).unsigned(gradient.1);
    let size = Size { shared: 8 * 256, ..each(len * lanes) };
    to.add(source(precision), "total", size, args.done())
}

/// All values of instances, and what comes with those that train.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    pub(super) precision: Precision,
    /// How many there are, how many of them train, and how many of these are weights of filters: they come first.
    pub(super) len: usize,
    pub(super) trained: usize,
    pub(super) weights: usize,
    /// Values in packed filters.
    pub(super) packed_len: usize,
    pub(super) values: Address,
    pub(super) velocity: Address,
    pub(super) gradient: Address,
    pub(super) settings: Address,
    /// Where in the packed filters each weight goes.
    pub(super) places: Address,
    pub(super) packed: Address,
}

impl Values {
    pub(super) fn new(plan: &Plan, memory: &Memory) -> Self {
        let of = &plan.parameters;
        Self {
            precision: plan.precision,
            len: of.len,
            trained: of.trained,
            weights: of.weights,
            packed_len: of.packed,
            values: memory.values,
            velocity: memory.velocity,
            gradient: memory.gradient,
            settings: memory.settings,
            places: memory.places,
            packed: memory.packed,
        }
    }
}

/// One step on all that trains.
pub(super) fn sgd(to: &mut Launches<'_>, of: &Values) -> Result<()> {
    if of.trained == 0 {
        return Ok(());
    }
    let args = Args::default()
        .at(&[of.values])
        .unsigned(of.len)
        .at(&[of.velocity, of.gradient])
        .unsigned(of.trained)
        .at(&[of.settings, of.places])
        .unsigned(of.weights)
        .at(&[of.packed])
        .unsigned(of.packed_len);
    to.add_early(source(of.precision), "sgd", each(of.trained), args.done())
}

/// Trained weights into the packed filters.
pub(super) fn pack(to: &mut Launches<'_>, of: &Values) -> Result<()> {
    if of.weights == 0 {
        return Ok(());
    }
    let args = Args::default()
        .at(&[of.values])
        .unsigned(of.len)
        .at(&[of.places])
        .unsigned(of.weights)
        .at(&[of.packed])
        .unsigned(of.packed_len);
    to.add(source(of.precision), "pack", each(of.weights), args.done())
}
