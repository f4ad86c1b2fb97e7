//! Kind `evaluate`: how good a trained network is on the test images, what its gammas look like and what
//! the small ones are worth, and which of its features are dead. The mathematics is [`network::evaluate`],
//! [`network::gamma`] and [`network::features`].

use engine::kind::{Job, Kind, ParamError, Params, Progress, RoleSpec, Roles, StageError, Wanted};
use network::{
    Error,
    arch::Graph,
    checkpoint::Checkpoint,
    data::Dataset,
    evaluate::{Metrics, evaluate},
    features::{Features, features, no_zeros, rectifiers},
    gamma::{GammaStatistics, Gammas, THRESHOLDS, Zeroing, gammas, zero_small},
    mode::Mode,
    train::Protocol,
    trainer::{EngineName, Precision, Split, State, Trainer},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{
    compute::{self, Device, SETTINGS},
    inputs,
    output::write_json,
    params::{resolve, sound},
};

/// The kind `evaluate`.
pub(crate) struct Evaluate;

/// Parameters of an `evaluate` stage; neither is part of the result.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EvaluateParams {
    /// The device.
    #[serde(default)]
    device: Device,
    /// The program that computes.
    #[serde(default)]
    engine: EngineName,
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

/// How small a checkpoint is.
#[derive(Serialize)]
struct Sizes {
    /// Bytes of the checkpoint.
    checkpoint_bytes: usize,
    /// Bytes of every parameter and running statistic.
    weights_bytes: usize,
}

/// `metrics.json`.
#[derive(Serialize)]
struct MetricsFile<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    #[serde(flatten)]
    metrics: Metrics,
    #[serde(flatten)]
    sizes: Sizes,
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
    /// The network without the small ones.
    zeroing: Vec<Zeroing>,
}

/// `features.json`.
#[derive(Serialize)]
struct FeaturesFile<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    #[serde(flatten)]
    features: Features,
}

impl Kind for Evaluate {
    fn name(&self) -> &'static str {
        "evaluate"
    }

    fn version(&self) -> u32 {
        2
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[
            RoleSpec { name: "data", required: true, many: false },
            RoleSpec { name: "train", required: true, many: false },
        ])
    }

    fn wants(&self, role: &str) -> Option<Wanted> {
        inputs::wanted(role)
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        EvaluateParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        let (_, params) = resolve::<EvaluateParams>(given, &SETTINGS)?;
        let cuda = |key: &&&str| params.settings.get(**key).and_then(toml::Value::as_str) == Some("cuda");
        let errors = SETTINGS.iter().filter(cuda).map(|key| ParamError {
            key: (*key).into(),
            message: "an evaluation counts zeros behind rectifiers, which a card does not".into(),
            hint: Some(format!("leave out `{key}` of this stage")),
        });
        sound(errors.collect()).map(|()| params)
    }

    fn threads(&self, params: &Params) -> usize {
        compute::threads(params, Protocol::default().batch)
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let EvaluateParams { engine, .. } = job.params()?;
        let (data, checkpoint) = (inputs::dataset(job)?, inputs::checkpoint(job)?);
        let model = &checkpoint.model;
        inputs::same_classes(model, &data)?;
        let weights = checkpoint.weights().map_err(failed)?; // compares the initial weights' digest
        // As if every gamma had trained, so that any can be set to zero.
        let set = checkpoint.set().with_gammas();
        // No room for more images than a processor's threads take at once, or than there are: deep and wide networks need
        // much for each, and no image's numbers depend on the others.
        let most = AT_ONCE * job.resources.threads.max(1);
        let batch = Protocol::default().batch.min(most).min(data.len(Split::Test)).max(1);
        // In float32 whatever it was trained in: a training in bfloat16 told slightly other numbers of its last epoch.
        let spec = Protocol { batch, ..Protocol::default() }.spec(model, set, Precision::F32);
        let mut trainer = compute::start(job, &spec, &data, Device::Cpu, engine)?;
        let state = checkpoint.state_in(&set, &weights);
        let subject = subject(&checkpoint);

        let mut looks = Looks { trainer: &mut *trainer, data: &data, batch, done: 0 };
        let rectifiers = rectifiers(&model.graph());
        let mut zeros = no_zeros(&rectifiers);
        let metrics = looks.look(job, &state, Some(&mut zeros))?;
        let (graph, gammas) = (model.graph(), gammas(&model.graph(), &weights).map_err(failed)?);
        let zeroing = looks.without_small_gammas(job, state, &metrics, (&graph, &gammas.all))?;

        let features = features(&rectifiers, &zeros, metrics.examples);
        write_json(job, "features.json", &FeaturesFile { subject: &subject, features })?;
        write_json(job, "gamma.json", &GammaFile { subject: &subject, gammas, zeroing })?;
        let checkpoint_bytes = checkpoint.to_bytes().map_err(failed)?.len();
        let sizes = Sizes { checkpoint_bytes, weights_bytes: model.weights_bytes() };
        let classes = data.classes();
        write_json(job, "metrics.json", &MetricsFile { subject: &subject, metrics, sizes, classes })
    }
}

/// Images that a thread of the CPU engine predicts together, at most.
const AT_ONCE: usize = 16;

/// Goes through the test images, several times.
struct Looks<'a> {
    trainer: &'a mut dyn Trainer,
    data: &'a Dataset,
    /// Images at a time.
    batch: usize,
    /// Times that it did.
    done: usize,
}

impl Looks<'_> {
    /// The network in `state`; its zeros are counted into `zeros`, if there are any.
    fn look(
        &mut self,
        job: &mut Job<'_>,
        state: &State,
        zeros: Option<&mut [Vec<u64>]>,
    ) -> Result<Metrics, StageError> {
        self.trainer.restore(state).map_err(failed)?;
        let images = self.data.len(Split::Test);
        let before = self.done * images;
        let go_on = &mut |done: usize| {
            let (done, total) = ((before + done) as u64, ((1 + THRESHOLDS.len()) * images) as u64);
            job.reporter.progress(&Progress { done, total, unit: "image".to_owned(), readings: Vec::new() });
            !job.reporter.stop_requested()
        };
        let metrics = evaluate(self.trainer, self.data, self.batch, zeros, go_on);
        self.done += 1;
        metrics.map_err(failed)?.ok_or_else(StageError::interrupted)
    }

    /// What is left of `whole` when the small gammas of `state` are set to zero.
    fn without_small_gammas(
        &mut self,
        job: &mut Job<'_>,
        mut state: State,
        whole: &Metrics,
        (graph, before): (&Graph, &GammaStatistics),
    ) -> Result<Vec<Zeroing>, StageError> {
        let shares = [before.below_001, before.below_005, before.below_01];
        let (mut top1, mut loss) = (whole.top1, whole.loss);
        let mut zeroing = Vec::new();
        for (threshold, zeroed) in THRESHOLDS.into_iter().zip(shares) {
            if zero_small(graph, &mut state, threshold) {
                Metrics { top1, loss, .. } = self.look(job, &state, None)?;
            } else {
                self.done += 1;
            }
            zeroing.push(Zeroing { threshold, zeroed, top1, change: top1 - whole.top1, loss });
        }
        Ok(zeroing)
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
