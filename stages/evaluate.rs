//! Kind `evaluate`: how good a trained network is on the test images, and what its gammas look like.
//! The mathematics is [`network::evaluate`].

use engine::kind::{Job, Kind, ParamError, Params, Progress, RoleSpec, Roles, StageError};
use network::{
    Error,
    checkpoint::Checkpoint,
    evaluate::{Gammas, Metrics, evaluate, gammas},
    mode::Mode,
    train::Protocol,
    trainer::{Precision, Split},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{
    compute::{self, Device, Engine, SETTINGS},
    inputs,
    output::write_json,
    params::resolve_with_settings,
};

/// The kind `evaluate`.
pub struct Evaluate;

/// Parameters of an `evaluate` stage; neither is part of the result.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EvaluateParams {
    /// The device.
    #[serde(default)]
    device: Device,
    /// The program that computes.
    #[serde(default)]
    engine: Engine,
}

/// What was evaluated.
#[derive(Serialize)]
struct Subject {
    arch: String,
    variant: String,
    mode: String,
    /// Trained weights per filter, in mode `random`.
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    depth: usize,
    width: usize,
    seed: u64,
    /// Optimisation steps.
    steps: u64,
    /// Values that were trained.
    trained: usize,
    /// Parameters in all.
    parameters: usize,
}

/// `metrics.json`.
#[derive(Serialize)]
struct MetricsFile<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    #[serde(flatten)]
    metrics: Metrics,
    /// Names of the classes, in the order of `per_class` and `confusion`.
    classes: &'a [String],
}

/// `gamma.json`.
#[derive(Serialize)]
struct GammaFile<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    #[serde(flatten)]
    gammas: Gammas,
}

impl Kind for Evaluate {
    fn name(&self) -> &'static str {
        "evaluate"
    }

    fn version(&self) -> u32 {
        1
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[
            RoleSpec { name: "data", required: true, many: false },
            RoleSpec { name: "train", required: true, many: false },
        ])
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        EvaluateParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        resolve_with_settings::<EvaluateParams>(given, &SETTINGS)
    }

    fn gpus(&self, params: &Params) -> usize {
        compute::gpus(params)
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let EvaluateParams { device, engine } = job.params()?;
        let (data, checkpoint) = (inputs::dataset(job)?, inputs::checkpoint(job)?);
        let model = &checkpoint.model;
        inputs::same_classes(model, &data)?;
        let weights = checkpoint.weights().map_err(failed)?; // compares the initial weights' digest
        let protocol = Protocol::default();
        let spec = protocol.spec(model, checkpoint.set(), Precision::F32);
        let mut trainer = compute::start(job, &spec, &data, device, engine)?;
        trainer.restore(&checkpoint.state()).map_err(failed)?;
        let total = data.len(Split::Test) as u64;
        let evaluation = evaluate(&mut *trainer, &data, Split::Test, protocol.batch, &mut |done| {
            let (done, unit) = (done as u64, "image".to_owned());
            job.reporter.progress(&Progress { done, total, unit, readings: Vec::new() });
            !job.reporter.stop_requested()
        });
        let evaluation = evaluation.map_err(failed)?.ok_or_else(StageError::interrupted)?;
        let subject = subject(&checkpoint);
        let (metrics, classes) = (evaluation.metrics(), data.classes());
        write_json(job, "metrics.json", &MetricsFile { subject: &subject, metrics, classes })?;
        let gammas = gammas(&model.graph(), &weights).map_err(failed)?;
        write_json(job, "gamma.json", &GammaFile { subject: &subject, gammas })
    }
}

fn failed(error: Error) -> StageError {
    StageError::new(error.to_string())
}

fn subject(checkpoint: &Checkpoint) -> Subject {
    let Checkpoint { model, mode, k, steps, .. } = checkpoint;
    Subject {
        arch: model.arch.to_string(),
        variant: model.variant.to_string(),
        mode: mode.to_string(),
        k: (*mode == Mode::Random).then_some(*k),
        depth: model.arch.depth(),
        width: model.arch.width(),
        seed: model.seed,
        steps: *steps,
        trained: checkpoint.trained(),
        parameters: model.counts().total,
    }
}
