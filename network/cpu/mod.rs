//! The fused CPU engine: activations in blocks of 16 channels, kernels written once and compiled
//! for each instruction set. Knows no files and no schedule.

pub mod lanes; // first: its macro

mod ahead;
pub mod buffers;
pub mod conv;
pub mod direct;
mod fused;
pub mod gradient;
mod gradient_direct;
mod gradient_positions;
mod gradient_winograd;
pub mod kernels;
mod lanes_portable;
mod lanes_x86;
pub mod layer;
pub mod layout;
mod maps;
pub mod peak;
mod plan;
mod predict;
mod products;
mod sink_rows;
pub mod sinks;
mod slots;
pub mod sources;
pub mod step;
pub mod stored;
pub mod tiles;
pub mod trainer;
mod transforms;
mod transpose;
pub mod unit;
pub mod winograd;
pub mod workers;
