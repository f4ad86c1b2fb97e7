//! The mathematics of BatchNorm-only training: networks whose filters are a seed, their training
//! step, their data.
//!
//! Pure: bytes and tensors in, bytes and tensors out; but for a card, whose compiler is looked for and
//! whose compiled kernels are kept in a folder that the caller names ([`cuda`]). Prints nothing and draws
//! every random number from a named stream ([`rng`]).
//!
//! Shape letters: `N` examples in a batch, `C` channels in, `K` channels out (and classes),
//! `H`, `W` rows and columns, `R`, `S` filter rows and columns. Public tensors are contiguous
//! `f32` in PyTorch's order: images `N C H W`, filters `K C R S`. Fast engines keep their own
//! layouts inside.

#[cfg(test)]
extern crate self as network; // for support code that integration tests share

pub mod arch;
pub mod checkpoint;
pub mod cost;
pub mod cpu;
pub mod cuda;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod export;
pub mod features;
pub mod gamma;
pub mod init;
pub mod memory;
pub mod mode;
pub mod model;
mod optimizer;
pub mod plan;
pub mod reference;
pub mod rng;
pub mod state;
pub mod tensor;
mod tensorfile;
pub mod train;
pub mod trainer;

#[cfg(test)]
#[allow(dead_code)] // what only integration tests need
#[path = "tests/trainer/support.rs"]
mod support;

pub use error::{Error, Result};
