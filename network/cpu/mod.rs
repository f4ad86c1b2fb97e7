//! The fused CPU engine: activations in blocks of 16 channels, kernels written once and compiled
//! for each instruction set. Knows no files and no schedule.

pub mod lanes; // first: its macro

mod ahead;
mod buffers;
mod conv;
mod direct;
mod fused;
mod gradient;
mod gradient_direct;
mod gradient_positions;
mod gradient_winograd;
pub mod kernels;
mod lanes_portable;
mod lanes_x86;
mod layer;
pub(crate) mod layout;
mod maps;
pub mod peak;
mod plan;
mod predict;
mod products;
mod sink_rows;
mod sinks;
mod slots;
mod sources;
mod step;
pub(crate) mod stored;
mod tiles;
pub(crate) mod trainer;
mod transforms;
mod transpose;
mod unit;
mod winograd;
mod workers;
