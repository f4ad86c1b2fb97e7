//! A list of launches in the making: kernels are compiled when they are first wanted. Knows no network.

use std::collections::HashMap;

use super::device::{Address, Arg, Kernel, Launch, Source};
use crate::{Error, Result};

/// What all kernels share.
pub(super) const COMMON: &str = include_str!("common.cu");
/// What kernels share that read or write maps or filters.
pub(super) const STORED: &str = include_str!("stored.cu");
/// What kernels that make maps while they read them share.
pub(super) const MAPS: &str = include_str!("maps.cu");
/// What kernels that leave sums for a BatchNorm share.
pub(super) const NORMS: &str = include_str!("norms.cu");
/// What convolutions share.
pub(super) const TILES: &str = include_str!("tiles.cu");
/// What kernels on tensor cores share.
pub(super) const MMA: &str = include_str!("mma.cu");

/// The kernels that were loaded, by their source.
pub(super) type Loaded = HashMap<Source, Vec<Kernel>>;

/// Loads the kernels of a source, as [`Device::load`](super::device::Device::load) does.
pub(super) type Load<'a> = dyn FnMut(&Source) -> Result<Vec<Kernel>> + 'a;

/// Launches, and where their kernels come from.
pub(super) struct Launches<'a> {
    load: &'a mut Load<'a>,
    loaded: &'a mut Loaded,
    instances: u32,
    pub(super) list: Vec<Launch>,
}

/// Blocks (x, y), threads and bytes of shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) blocks: [usize; 2],
    pub(super) threads: usize,
    pub(super) shared: usize,
}

impl<'a> Launches<'a> {
    pub(super) fn new(load: &'a mut Load<'a>, loaded: &'a mut Loaded, instances: usize) -> Self {
        Self { load, loaded, instances: instances as u32, list: Vec::new() }
    }

    /// Adds a launch of `kernel` of `source` for all instances.
    pub(super) fn add(&mut self, source: Source, kernel: &str, size: Size, args: Vec<Arg>) -> Result<()> {
        self.push(source, kernel, size, args, false)
    }

    /// The same of a kernel that calls `await_launches` first, so that it may begin before the launch before has ended.
    pub(super) fn add_early(
        &mut self,
        source: Source,
        kernel: &str,
        size: Size,
        args: Vec<Arg>,
    ) -> Result<()> {
        self.push(source, kernel, size, args, true)
    }

    fn push(&mut self, source: Source, kernel: &str, size: Size, args: Vec<Arg>, early: bool) -> Result<()> {
        let index = source.kernels.iter().position(|k| *k == kernel);
        let index =
            index.ok_or_else(|| Error::Invalid(format!("{} has no kernel `{kernel}`", source.name)))?;
        if !self.loaded.contains_key(&source) {
            let kernels = (self.load)(&source)?;
            self.loaded.insert(source.clone(), kernels);
        }
        self.list.push(Launch {
            kernel: self.loaded[&source][index],
            grid: [size.blocks[0] as u32, size.blocks[1] as u32, self.instances],
            block: [size.threads as u32, 1, 1],
            shared: size.shared as u32,
            early,
            args,
        });
        Ok(())
    }
}

/// Arguments of a launch.
#[derive(Default)]
pub(super) struct Args(Vec<Arg>);

impl Args {
    /// Addresses.
    pub(super) fn at(mut self, addresses: &[Address]) -> Self {
        self.0.extend(addresses.iter().map(|a| Arg::Address(*a)));
        self
    }

    /// Signed numbers: sizes that kernels count with.
    pub(super) fn int(mut self, numbers: &[usize]) -> Self {
        self.0.extend(numbers.iter().map(|n| Arg::I32(*n as i32)));
        self
    }

    /// Unsigned numbers: distances between instances, lengths.
    pub(super) fn unsigned(mut self, number: usize) -> Self {
        self.0.push(Arg::U32(number as u32));
        self
    }

    pub(super) fn done(self) -> Vec<Arg> {
        self.0
    }
}

impl Address {
    /// Nothing.
    pub(super) const NONE: Self = Self(0);

    /// The address of the `count`-th `f32` from here.
    pub(super) fn floats(self, count: usize) -> Self {
        self.numbers(count, 4)
    }

    /// The address of the `count`-th number of `width` bytes from here.
    pub(super) fn numbers(self, count: usize, width: usize) -> Self {
        Self(self.0 + (width * count) as u64)
    }
}
