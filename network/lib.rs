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
//!
//! A network of random filters, trained to tell dark images from bright ones by its BatchNorms alone:
//!
//! ```
//! use std::{ops::ControlFlow, sync::Arc};
//!
//! use network::{
//!     arch::Variant,
//!     data::{self, Dataset, IMAGE_BYTES, Images},
//!     init::{BnInit, Init, WeightInit},
//!     mode::Mode,
//!     model::Model,
//!     train::{Protocol, Training},
//!     trainer::{EngineChoice, EngineName, Precision, trainer},
//! };
//!
//! let classes = ["dark", "bright"].map(String::from);
//! let labels: Vec<u16> = (0..8).map(|i| i % 2).collect();
//! let pixels: Vec<u8> = labels.iter().flat_map(|label| [200 * *label as u8; IMAGE_BYTES]).collect();
//! let images = Images { labels: &labels, pixels: &pixels };
//! let data = Arc::new(Dataset::from_bytes(Arc::new(data::pack(&classes, images, images)?))?);
//!
//! let init = Init { weights: WeightInit::HeNormal, bn: BnInit::Uniform };
//! let model = Model::new("resnet8".parse()?, Variant::Paper, 0, init, classes.len());
//! let protocol = Protocol { epochs: 2, batch: 4, ..Protocol::default() };
//! let spec = protocol.spec(&model, Mode::Bn.train_set(model.variant, 0), Precision::F32);
//! let choice = EngineChoice { engine: EngineName::Cpu, threads: 1, memory: None, isa: None, card: None };
//! let (trainer, _note) = trainer(&spec, data.clone(), &choice)?;
//! let mut training = Training::new(trainer, data, &spec, protocol, 0)?;
//! while !training.finished() {
//!     training.epoch(&mut |_| ControlFlow::Continue(()))?;
//! }
//! let last = training.history().last().expect("two epochs");
//! assert!(last.train_loss.is_finite() && last.test_loss.is_finite());
//! # Ok::<(), network::Error>(())
//! ```

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
