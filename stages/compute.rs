//! Where a stage computes: the settings `device` and `engine`, and the trainer that they give.
//! Neither changes a result, so neither is in a recipe.

use std::sync::Arc;

use engine::kind::{Job, StageError};
use network::{
    data::Dataset,
    trainer::{EngineChoice, EngineName, TrainSpec, Trainer, trainer},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The names of the settings.
pub(crate) const SETTINGS: [&str; 2] = ["device", "engine"];

/// The device.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Device {
    /// The fastest one that there is.
    #[default]
    Auto,
    /// The processor.
    Cpu,
}

/// The program that computes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    /// The fastest one that covers the network.
    #[default]
    Auto,
    /// Plain and slow: what the others are compared with.
    Reference,
    /// The fused kernels for the processor.
    Cpu,
}

/// A trainer for `spec`; what computes goes into the record.
pub(crate) fn start(
    job: &mut Job<'_>,
    spec: &TrainSpec,
    data: &Arc<Dataset>,
    device: Device,
    engine: Engine,
) -> Result<Box<dyn Trainer>, StageError> {
    let engine = match (engine, device) {
        (Engine::Auto, Device::Auto | Device::Cpu) => EngineName::Auto,
        (Engine::Reference, _) => EngineName::Reference,
        (Engine::Cpu, _) => EngineName::Cpu,
    };
    let choice = EngineChoice { engine, threads: job.resources.threads.max(1), isa: None };
    let (trainer, note) = trainer(spec, Arc::clone(data), &choice)
        .map_err(|e| StageError::new(format!("cannot compute {}: {e}", spec.arch)))?;
    job.reporter.note("engine", trainer.describe().into());
    if let Some(note) = note {
        job.reporter.say(&note);
        job.reporter.note("engine_note", note.into());
    }
    Ok(trainer)
}
