//! Kind `train`: a dataset and a model become a checkpoint and a history. The mathematics is
//! [`network::train`]; here are the parameters and the file from which a killed training
//! goes on. Of engines it knows the names.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{
    digest::Digest,
    kind::{Group, Job, Kind, ParamError, Params, Reporter, RoleSpec, Roles, StageError, Wanted},
};
use network::{
    Error,
    arch::Variant,
    checkpoint::Checkpoint,
    data::Dataset,
    mode::Mode,
    model::{Model, as_text},
    train::{Epoch, Protocol, Training, csv, json_lines, saved_within_epoch},
    trainer::{EngineName, Precision, Split, TrainSpec, Trainer},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{
    compute::{self, Device, SETTINGS},
    inputs,
    output::{self, write},
    params::{resolve, sound},
};

mod group;
mod watch;

/// The kind `train`.
pub(crate) struct Train;

/// The engines whose trainings can be interrupted.
const ENGINES: [&str; 3] = ["cpu", "cuda", "reference"];

/// What an interrupted training goes on from: each engine for itself, because what another one computed rounds
/// otherwise, and is worth keeping.
fn saved_by(engine: &str) -> String {
    format!("resume-{engine}.safetensors")
}

/// A step of more would fit no machine.
pub(crate) const MOST_IMAGES: usize = 65_536;

/// Parameters of a `train` stage. The defaults are the paper's.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct TrainParams {
    /// What trains.
    #[serde(with = "as_text")]
    #[schemars(with = "String", extend("enum" = Mode::NAMES.map(|(name, _)| name)))]
    mode: Mode,
    /// Trained weights per filter in mode `random`; other modes have no use for it.
    #[schemars(range(min = 1))]
    k: usize,
    /// What becomes of the shortcuts' BatchNorms where the others train.
    #[serde(skip_serializing_if = "ShortcutBn::is_default")]
    shortcut_bn: ShortcutBn,
    /// Passes over the training images.
    #[schemars(range(min = 1))]
    epochs: usize,
    /// Images per step.
    #[schemars(range(min = 1, max = MOST_IMAGES))]
    batch: usize,
    /// Learning rate of the first epoch.
    learning_rate: f64,
    /// Numbers of epochs after which the learning rate drops.
    milestones: Vec<usize>,
    /// What it is multiplied by then.
    factor: f64,
    /// Momentum of SGD.
    momentum: f64,
    /// Weight decay on everything that trains.
    weight_decay: f64,
    /// Flip half of the images and crop them from a border of 4 zeros.
    augment: bool,
    /// How activations are stored and, on a card, multiplied; `tf32` only there.
    precision: Precision,
    /// Of the order and the cuts of the images; the model's if it is not given. (Were it called `seed`, an
    /// axis of that name would set it, and a training would be another one for being listed by seed.)
    #[serde(skip_serializing_if = "Option::is_none")]
    order_seed: Option<u64>,
    /// The device. Not part of the result.
    device: Device,
    /// The program that computes. Not part of the result.
    engine: EngineName,
}

/// The shortcuts' BatchNorms, in modes that train BatchNorms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ShortcutBn {
    /// As the model's variant has it: in the paper's they train; in the origin's they do not, unless
    /// convolutions train too.
    Variant,
    /// They train.
    Trained,
    /// They do not.
    Frozen,
}

impl ShortcutBn {
    /// Recipes from before there was a choice say nothing of it.
    fn is_default(&self) -> bool {
        *self == Self::Variant
    }

    fn train(self) -> Option<bool> {
        match self {
            Self::Variant => None,
            Self::Trained => Some(true),
            Self::Frozen => Some(false),
        }
    }
}

impl Default for TrainParams {
    fn default() -> Self {
        let Protocol { epochs, batch, learning_rate, milestones, factor, momentum, weight_decay, augment } =
            Protocol::default();
        Self {
            mode: Mode::Bn,
            k: 2,
            shortcut_bn: ShortcutBn::Variant,
            epochs,
            batch,
            learning_rate,
            milestones,
            factor,
            momentum,
            weight_decay,
            augment,
            precision: Precision::F32,
            order_seed: None,
            device: Device::Auto,
            engine: EngineName::Auto,
        }
    }
}

/// What `k` must be.
pub(crate) const K: &str = "a number from 1 to 27, which each filter of the first layer has";

/// Can so many weights of each filter train, where that counts? The first layer's filters have 27, 3 x 3 of 3 colours: in
/// no network are all filters larger.
pub(crate) fn k_fits(mode: Mode, k: usize) -> bool {
    mode != Mode::Random || (1..=27).contains(&k)
}

impl TrainParams {
    fn protocol(&self) -> Protocol {
        Protocol {
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            milestones: self.milestones.clone(),
            factor: self.factor,
            momentum: self.momentum,
            weight_decay: self.weight_decay,
            augment: self.augment,
        }
    }

    /// Does `shortcut_bn` change what trains in some variant?
    fn shortcut_bn_counts(&self) -> bool {
        [Variant::Paper, Variant::Origin].into_iter().any(|variant| {
            let set = self.mode.train_set(variant, self.k);
            set.with_shortcut_bn(self.shortcut_bn.train()) != set
        })
    }

    /// Everything that the types let through and that could not work.
    fn faults(&self) -> Vec<ParamError> {
        // Trainings compute in f32: what that does not hold would be taken for infinity or for nothing.
        let size = |x: f64| x == 0.0 || (x > 0.0 && (x as f32) > 0.0 && (x as f32).is_finite());
        let checks = [
            ("k", k_fits(self.mode, self.k), K),
            ("epochs", self.epochs > 0, "a number from 1 on"),
            ("batch", (1..=MOST_IMAGES).contains(&self.batch), "a number from 1 to 65536"),
            ("learning_rate", size(self.learning_rate), "a number from 0 on that 32 bits can hold"),
            ("milestones", self.milestones.is_sorted_by(|a, b| a < b), "a list of rising numbers"),
            ("factor", size(self.factor), "a number from 0 on that 32 bits can hold"),
            (
                "momentum",
                size(self.momentum) && (self.momentum as f32) < 1.0,
                "a number from 0 to below 1, as 32 bits hold it",
            ),
            ("weight_decay", size(self.weight_decay), "a number from 0 on that 32 bits can hold"),
        ];
        let wrong = checks.into_iter().filter(|(_, fine, _)| !fine).map(|(key, _, wanted)| ParamError {
            key: key.into(),
            message: format!("`{key}` must be {wanted}"),
            hint: None,
        });
        wrong.collect()
    }
}

impl Kind for Train {
    fn name(&self) -> &'static str {
        "train"
    }

    fn version(&self) -> u32 {
        1
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[
            RoleSpec { name: "data", required: true, many: false },
            RoleSpec { name: "model", required: true, many: false },
        ])
    }

    fn wants(&self, role: &str) -> Option<Wanted> {
        inputs::wanted(role)
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        TrainParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        let (read, mut params) = resolve::<TrainParams>(given, &SETTINGS)?;
        if read.mode != Mode::Random {
            params.recipe.remove("k"); // so that sweeping it reruns nothing else
        }
        if !read.shortcut_bn_counts() {
            params.recipe.remove("shortcut_bn");
        }
        sound(read.faults()).map(|()| params)
    }

    fn gpus(&self, params: &Params) -> usize {
        compute::gpus(params)
    }

    fn threads(&self, params: &Params) -> usize {
        let batch = params.recipe.get("batch").and_then(toml::Value::as_integer);
        compute::threads(params, batch.and_then(|batch| usize::try_from(batch).ok()).unwrap_or(0))
    }

    fn group(&self, params: &Params) -> Option<Group> {
        group::of(params)
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let work = Work::of(job)?;
        let TrainParams { device, engine, .. } = work.params;
        let trainer = compute::start(job, &work.spec, &work.data, device, engine)?;
        work.train(job, trainer, true)
    }

    fn run_group(&self, jobs: &mut [Job<'_>]) -> Vec<Result<(), StageError>> {
        group::run(jobs)
    }
}

/// All that a training needs but what computes it.
struct Work {
    params: TrainParams,
    model: Model,
    data: Arc<Dataset>,
    spec: TrainSpec,
    protocol: Protocol,
    /// Of the order and the cuts of the images.
    seed: u64,
}

impl Work {
    fn of(job: &Job<'_>) -> Result<Self, StageError> {
        let params: TrainParams = job.params()?;
        let (model, data) = (inputs::model(job)?, inputs::dataset(job)?);
        inputs::same_classes(&model, &data)?;
        let protocol = params.protocol();
        let set = params.mode.train_set(model.variant, params.k);
        let set = set.with_shortcut_bn(params.shortcut_bn.train());
        let spec = protocol.spec(&model, set, params.precision);
        let seed = params.order_seed.unwrap_or(model.seed);
        Ok(Self { params, model, data, spec, protocol, seed })
    }

    /// Trains with `trainer`. Saves at the end of each epoch, and `within` it too.
    fn train(&self, job: &mut Job<'_>, trainer: Box<dyn Trainer>, within: bool) -> Result<(), StageError> {
        let Self { params, model, data, spec, protocol, seed } = self;
        // Of a model that does not say its weights, nobody could read the checkpoint.
        model.draw().map_err(failed)?;
        let saved = job.scratch.join(saved_by(trainer.engine()));
        for other in ENGINES.iter().filter(|other| **other != trainer.engine()) {
            if job.scratch.join(saved_by(other)).exists() {
                let line = format!(
                    "what the engine `{other}` saved of this training is left aside; it goes on from that where it computes again"
                );
                job.reporter.warn(&line);
            }
        }
        let Protocol { milestones, epochs, .. } = protocol;
        if !milestones.is_empty() && milestones.iter().all(|milestone| milestone >= epochs) {
            job.reporter.warn(&format!(
                "the learning rate never falls: `milestones` = {milestones:?} lie beyond the {epochs} epochs"
            ));
        }
        let training = Training::new(trainer, data.clone(), spec, protocol.clone(), *seed);
        let mut training = training.map_err(failed)?;
        go_on(&mut *job.reporter, &mut training, &saved)?;
        let mut watch =
            watch::Watch::new(data.len(Split::Train), protocol.epochs, within, training.history());
        while !training.finished() {
            let ended = training.epoch(&mut |progress| watch.look(&mut *job.reporter, progress));
            match ended.map_err(failed)? {
                Epoch::Finished(row) => watch.finished(&mut *job.reporter, &row),
                Epoch::Paused if within => {}
                Epoch::Paused | Epoch::Stopped => return Err(StageError::interrupted()),
            }
            engine::place::replace(&saved, &training.save().map_err(failed)?)
                .map_err(|error| output::failed("save the training to", &saved, &error))?;
            if !watch.saved() {
                return Err(StageError::interrupted());
            }
        }
        watch.note(&mut *job.reporter);
        let values = training.values().map_err(failed)?;
        let (model, mode, k, shortcut_bn) =
            (model.clone(), params.mode, params.k, params.shortcut_bn.train());
        let checkpoint = Checkpoint { model, mode, k, shortcut_bn, steps: training.steps(), values };
        write(job, "checkpoint.safetensors", &checkpoint.to_bytes().map_err(failed)?)?;
        write(job, "history.csv", csv(training.history()).as_bytes())?;
        write(job, "history.jsonl", json_lines(training.history()).map_err(failed)?.as_bytes())?;
        job.reporter.finished();
        Ok(())
    }
}

/// From what an earlier run saved at `place`, if that can be used. If not, it is put aside: a card that is used with another
/// compiler rounds otherwise, and the one that saved it may come back. Then this goes on from what was put aside.
fn go_on(reporter: &mut dyn Reporter, training: &mut Training, place: &Path) -> Result<(), StageError> {
    let asides = asides(place);
    let Some(saved) = read(place)? else { return go_on_from_one_of(&asides, reporter, training).map(drop) };
    let Err(reason) = resume(reporter, training, &saved)? else { return Ok(()) };
    let aside = place.with_extension(format!("{}{ASIDE}", &Digest::of(&saved).to_string()[..8]));
    let kept = match fs::rename(place, &aside) {
        Ok(()) => format!("; it is kept in `{}`", aside.display()),
        Err(_) => String::new(), // it is overwritten, then
    };
    reporter.warn(&format!("what an earlier run saved cannot be used ({reason}){kept}"));
    if !go_on_from_one_of(&asides, reporter, training)? {
        reporter.warn("starting anew");
    }
    Ok(())
}

/// How what was put aside ends.
const ASIDE: &str = ".aside";

/// What was put aside at `place`, sorted.
fn asides(place: &Path) -> Vec<PathBuf> {
    let stem = format!("{}.", place.file_stem().unwrap_or_default().to_string_lossy());
    let folder = place.parent().and_then(|folder| fs::read_dir(folder).ok());
    let all = folder.into_iter().flatten().flatten().map(|entry| entry.path());
    let is_aside = |name: &str| name.starts_with(&stem) && name.ends_with(ASIDE);
    let mut asides: Vec<_> =
        all.filter(|path| path.file_name().and_then(OsStr::to_str).is_some_and(is_aside)).collect();
    asides.sort();
    asides
}

fn go_on_from_one_of(
    asides: &[PathBuf],
    reporter: &mut dyn Reporter,
    training: &mut Training,
) -> Result<bool, StageError> {
    for aside in asides {
        if let Some(saved) = read(aside)?
            && resume(reporter, training, &saved)?.is_ok()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Goes on from what was `saved`; why not, where that cannot be used.
fn resume(
    reporter: &mut dyn Reporter,
    training: &mut Training,
    saved: &[u8],
) -> Result<Result<(), Error>, StageError> {
    match training.resume(saved) {
        Ok(()) if saved_within_epoch(saved) => {
            reporter.say(&format!("going on within epoch {}", training.history().len() + 1));
        }
        Ok(()) => reporter.say(&format!("going on after epoch {}", training.history().len())),
        Err(reason @ (Error::Malformed(_) | Error::Invalid(_))) => return Ok(Err(reason)),
        Err(error) => return Err(failed(error)),
    }
    Ok(Ok(()))
}

fn failed(error: Error) -> StageError {
    let failure = StageError::new(error.to_string());
    match error {
        Error::Diverged(_) => failure
            .hint("lower `learning_rate` or `weight_decay`, or look at the history of a shorter training"),
        _ => failure,
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StageError> {
    match engine::place::read_plain(path) {
        Ok(bytes) => Ok(Some(bytes)),
        // What is no file is put aside like one that is damaged.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory) => {
            Ok(Some(Vec::new()))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(output::failed("read", path, &error)),
    }
}

#[cfg(test)]
mod tests;
