//! What the CUDA step needs of a device: memory, compiled kernels, launches, a recorded graph. Behind it stand a card
//! (`driver.rs`, through cudarc) and, in tests, an emulation that runs the same `.cu` sources on the processor
//! (`emulation/`). Knows no network.

use crate::Result;

/// An address in the device's memory; 0 is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address(pub u64);

/// A kernel that can be launched: index of what [`Device::load`] returned, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(pub usize);

/// A recorded sequence of launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording(pub usize);

/// A source with its constants, compiled as one unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// File name, for messages.
    pub name: &'static str,
    /// CUDA C++; includes are already pasted in.
    pub text: String,
    /// `-D` constants, in order.
    pub defines: Vec<(&'static str, String)>,
    /// `extern "C" __global__` functions that are wanted from it.
    pub kernels: Vec<&'static str>,
}

/// One kernel argument, passed by value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// A pointer.
    Address(Address),
    /// `int`
    I32(i32),
    /// `unsigned`
    U32(u32),
}

/// How a kernel is started.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// What runs.
    pub kernel: Kernel,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// May it begin before the launch before it has ended? The kernel then waits itself, by `await_launches`, before it
    /// touches what that one wrote.
    pub early: bool,
    /// In the order of the kernel's parameters.
    pub args: Vec<Arg>,
}

/// A device with one stream: everything happens in the order of the calls.
pub trait Device {
    /// Told which sources will be loaded, before any is: several compile at once.
    fn prepare(&mut self, sources: &[Source]) -> Result<()>;
    /// Compiles (or finds compiled) and loads; one [`Kernel`] per wanted name, in order.
    fn load(&mut self, source: &Source) -> Result<Vec<Kernel>>;
    /// Zeroed memory, aligned to 256 bytes, that lives as long as the device.
    fn alloc(&mut self, bytes: usize) -> Result<Address>;
    /// Copies `bytes` to the device; they may change once this returns.
    fn upload(&mut self, to: Address, bytes: &[u8]) -> Result<()>;
    /// Waits for all that was asked before, and copies from the device.
    fn download(&mut self, from: Address, bytes: &mut [u8]) -> Result<()>;
    /// Runs a kernel.
    fn launch(&mut self, launch: &Launch) -> Result<()>;
    /// Keeps these launches as one graph.
    fn record(&mut self, launches: &[Launch]) -> Result<Recording>;
    /// Runs them, in their order.
    fn replay(&mut self, recording: Recording) -> Result<()>;
    /// Free and total bytes.
    fn memory(&self) -> Result<[u64; 2]>;
    /// Bytes of shared memory that a block may have at most.
    fn most_shared(&self) -> u32;
    /// Can it multiply in tf32 and bf16?
    fn has_tensor_cores(&self) -> bool;
    /// Card, driver, compiler; for the record of a run.
    fn describe(&self) -> String;
    /// What of it decides how sums are rounded: the same bits come out where this is the same.
    fn rounding(&self) -> String;
}
