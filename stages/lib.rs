//! The stage kinds: thin adapters between the runner and the mathematics, one file per kind.
//! Knows neither the pipeline file nor the terminal: a kind sees its parameters and its job.

pub mod command;
pub mod dataset;
pub mod params;
pub mod plot;
pub mod readme;

use engine::kind::Kinds;

/// Every kind that a pipeline may name.
#[must_use]
pub fn kinds() -> Kinds {
    Kinds::default().with(command::Command).with(dataset::Dataset).with(plot::Plot).with(readme::Readme)
}
