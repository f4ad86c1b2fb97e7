//! The CUDA engine: the CPU engine's static plan as one list of kernel launches per step, recorded once and replayed.
//! Kernels are the `.cu` files here; each stands beside the Rust that sizes and launches it. What runs them is a
//! [`Device`](device::Device): a card, or in tests the processor under an emulation. Driver and compiler are found when
//! they are asked for, so one binary starts everywhere. Knows no files of a pipeline, no environment and no schedule.
//!
//! Several trainings of one network run in one step as `instances`: every buffer has a leading instance dimension,
//! and `blockIdx.z` is the instance. `docs/cuda.md` has the design.

pub mod cards;
mod conv;
mod cubins;
pub mod device;
pub mod driver;
#[cfg(all(test, unix))]
mod emulation;
mod filters;
pub mod fit;
pub mod group;
mod head;
#[cfg(test)]
#[cfg(unix)]
mod kernel_tests;
mod launches;
mod maps;
pub mod members;
mod memory;
pub mod nvrtc;
mod parameters;
pub(crate) mod plan;
mod sources;
mod statistics;
mod step;
mod stored;
mod tensor;
pub mod trainer;
mod update;
