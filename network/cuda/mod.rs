//! The CUDA engine: one binary that finds the driver and NVIDIA's run-time compiler when it is asked to,
//! and starts everywhere. `device.rs` is what the step needs of a card, `driver.rs` a card that gives it.
//! Knows no files of a pipeline and no environment.

pub mod cards;
mod cubins;
pub mod device;
pub mod driver;
pub mod nvrtc;
