//! The stage kinds: thin adapters between the runner and the mathematics, one file per kind.
//! Knows neither the pipeline file nor the terminal: a kind sees its parameters and its job.

pub mod card;
pub mod claims;
mod command;
mod compute;
pub mod dataset;
mod evaluate;
mod inputs;
mod memory;
mod model;
mod output;
mod params;
mod plot;
mod readme;
mod results;
#[cfg(test)]
mod testing;
mod train;

use engine::kind::Kinds;

pub use self::results::Statistics;

/// Every kind that a pipeline may name.
#[must_use]
pub fn kinds() -> Kinds {
    Kinds::default()
        .with(claims::Claims)
        .with(command::Command)
        .with(dataset::Dataset)
        .with(evaluate::Evaluate)
        .with(memory::Memory)
        .with(model::Model)
        .with(plot::Plot)
        .with(readme::Readme)
        .with(train::Train)
}
