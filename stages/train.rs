//! Kind `train`: a dataset and a model become a checkpoint and a history. The mathematics is
//! [`network::train`]; here are the parameters, the progress and the file from which a killed
//! training goes on.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use engine::kind::{
    self, Group, Input, Job, Kind, ParamError, Params, Reporter, RoleSpec, Roles, StageError,
};
use network::{
    Error,
    arch::Variant,
    checkpoint::Checkpoint,
    data::Dataset,
    mode::Mode,
    model::Model,
    train::{Epoch, Progress, Protocol, Row, Training, csv, json_lines, saved_within_epoch},
    trainer::{Precision, Split, TrainSpec, Trainer},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{
    compute::{self, Device, Engine, SETTINGS},
    inputs,
    output::{self, write},
    params::{Text, resolve_with_settings},
};

mod group;

/// The kind `train`.
pub struct Train;

/// Parameters of a `train` stage. The defaults are the paper's.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct TrainParams {
    /// What trains.
    #[schemars(extend("enum" = Mode::NAMES.map(|(name, _)| name)))]
    mode: Text<Mode>,
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
    #[schemars(range(min = 1))]
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
    engine: Engine,
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
            mode: Text(Mode::Bn),
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
            engine: Engine::Auto,
        }
    }
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
            let set = self.mode.0.train_set(variant, self.k);
            set.with_shortcut_bn(self.shortcut_bn.train()) != set
        })
    }

    /// Everything that the types let through and that could not work.
    fn faults(&self) -> Vec<ParamError> {
        let size = |x: f64| x.is_finite() && x >= 0.0;
        let checks = [
            ("k", self.k > 0, "a number from 1 on"),
            ("epochs", self.epochs > 0, "a number from 1 on"),
            ("batch", self.batch > 0, "a number from 1 on"),
            ("learning_rate", size(self.learning_rate), "a number from 0 on"),
            ("milestones", self.milestones.is_sorted(), "a list of rising numbers"),
            ("factor", size(self.factor), "a number from 0 on"),
            ("momentum", size(self.momentum) && self.momentum < 1.0, "a number from 0 to below 1"),
            ("weight_decay", size(self.weight_decay), "a number from 0 on"),
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

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        TrainParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        let mut params = resolve_with_settings::<TrainParams>(given, &SETTINGS)?;
        let read = TrainParams::deserialize(toml::Value::Table(params.recipe.clone()));
        let read =
            read.map_err(|e| vec![ParamError { key: String::new(), message: e.to_string(), hint: None }])?;
        if read.mode.0 != Mode::Random {
            params.recipe.remove("k"); // so that sweeping it reruns nothing else
        }
        if !read.shortcut_bn_counts() {
            params.recipe.remove("shortcut_bn");
        }
        let faults = read.faults();
        if faults.is_empty() { Ok(params) } else { Err(faults) }
    }

    fn gpus(&self, params: &Params) -> usize {
        compute::gpus(params)
    }

    fn group(&self, params: &Params, inputs: &BTreeMap<String, Vec<Input>>) -> Option<Group> {
        group::of(params, inputs)
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
        let set = params.mode.0.train_set(model.variant, params.k);
        let set = set.with_shortcut_bn(params.shortcut_bn.train());
        let spec = protocol.spec(&model, set, params.precision);
        let seed = params.order_seed.unwrap_or(model.seed);
        Ok(Self { params, model, data, spec, protocol, seed })
    }

    /// Trains with `trainer`. Saves at the end of each epoch, and `within` it too.
    fn train(&self, job: &mut Job<'_>, trainer: Box<dyn Trainer>, within: bool) -> Result<(), StageError> {
        let Self { params, model, data, spec, protocol, seed } = self;
        let training = Training::new(trainer, data.clone(), spec, protocol.clone(), *seed);
        let mut training = training.map_err(failed)?;
        let saved = job.scratch.join(SAVED);
        if let Some(bytes) = read(&saved)? {
            go_on(&mut *job.reporter, &mut training, &bytes)?;
        }
        let mut watch = Watch::new(data.len(Split::Train), protocol.epochs, within, training.history());
        while !training.finished() {
            let ended = training.epoch(&mut |progress| watch.look(&mut *job.reporter, progress));
            match ended.map_err(failed)? {
                Epoch::Finished(row) => watch.finished(&mut *job.reporter, &row),
                Epoch::Paused if within => {}
                Epoch::Paused | Epoch::Stopped => return Err(StageError::interrupted()),
            }
            save(&saved, &training.save().map_err(failed)?)
                .map_err(|error| output::failed("save the training to", &saved, &error))?;
            if !watch.saved() {
                return Err(StageError::interrupted());
            }
        }
        watch.note(&mut *job.reporter);
        let values = training.values().map_err(failed)?;
        let (model, mode, k, shortcut_bn) =
            (model.clone(), params.mode.0, params.k, params.shortcut_bn.train());
        let checkpoint = Checkpoint { model, mode, k, shortcut_bn, steps: training.steps(), values };
        write(job, "checkpoint.safetensors", &checkpoint.to_bytes().map_err(failed)?)?;
        write(job, "history.csv", csv(training.history()).as_bytes())?;
        write(job, "history.jsonl", json_lines(training.history()).map_err(failed)?.as_bytes())?;
        job.reporter.finished();
        Ok(())
    }
}

/// From what an earlier run saved, if that can be used.
fn go_on(reporter: &mut dyn Reporter, training: &mut Training, saved: &[u8]) -> Result<(), StageError> {
    match training.resume(saved) {
        Ok(()) if saved_within_epoch(saved) => {
            reporter.say(&format!("going on within epoch {}", training.history().len() + 1));
        }
        Ok(()) => reporter.say(&format!("going on after epoch {}", training.history().len())),
        Err(reason @ (Error::Malformed(_) | Error::Invalid(_))) => {
            reporter.say(&format!("what an earlier run saved cannot be used ({reason}); starting anew"));
        }
        Err(error) => return Err(failed(error)),
    }
    Ok(())
}

fn failed(error: Error) -> StageError {
    let failure = StageError::new(error.to_string());
    match error {
        Error::Diverged(_) => {
            failure.hint("lower `learning_rate`, or look at the history of a shorter training")
        }
        _ => failure,
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(output::failed("read", path, &error)),
    }
}

/// Whole or not at all, also when the machine goes down.
fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&draft, path)
}

/// From what a training that was stopped goes on.
const SAVED: &str = "resume.safetensors";
/// So much of a training may be lost to a crash.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// So long a training that is asked to stop may look for a place to pause; whoever asks may not wait for long.
const GRACE: Duration = Duration::from_secs(5);

/// Tells how far a training is, and how fast; and has it pause to be saved.
struct Watch {
    images: usize,
    epochs: usize,
    last: Option<Row>,
    reported: Option<Instant>,
    /// May it be saved within an epoch?
    within: bool,
    saved: Instant,
    /// Since when it should stop.
    stop: Option<Instant>,
    /// Start of the running epoch, once its first batch is asked for, and the images that were done then.
    epoch: Option<(Instant, usize)>,
    /// Images trained on since the start of the program, and the time that took.
    trained: (usize, Duration),
}

/// A report more often than this is more than anyone reads.
const REPORT_EVERY: Duration = Duration::from_millis(250);

impl Watch {
    fn new(images: usize, epochs: usize, within: bool, history: &[Row]) -> Self {
        Self {
            images,
            epochs,
            last: history.last().copied(),
            reported: None,
            within,
            saved: Instant::now(),
            stop: None,
            epoch: None,
            trained: Default::default(),
        }
    }

    /// It was saved; go on?
    fn saved(&mut self) -> bool {
        self.saved = Instant::now();
        self.stop.is_none()
    }

    /// Should it stop or pause here?
    fn halt(&mut self, reporter: &dyn Reporter, progress: &Progress) -> bool {
        if reporter.stop_requested() {
            let since = *self.stop.get_or_insert_with(Instant::now);
            return !self.within || progress.safe || since.elapsed() >= GRACE;
        }
        // A pause among the test images would begin these anew.
        self.within && progress.safe && progress.split == Split::Train && self.saved.elapsed() >= SAVE_EVERY
    }

    fn look(&mut self, reporter: &mut dyn Reporter, progress: &Progress) -> ControlFlow<()> {
        if self.halt(reporter, progress) {
            return ControlFlow::Break(());
        }
        let done = match progress.split {
            Split::Train => progress.done,
            Split::Test => self.images,
        };
        let (start, from) = *self.epoch.get_or_insert_with(|| (Instant::now(), done));
        let trained = || (self.trained.0 + done - from, self.trained.1 + start.elapsed());
        let (images, time) = match progress.split {
            Split::Train => trained(),
            Split::Test if progress.done == 0 => {
                self.trained = trained();
                self.trained
            }
            Split::Test => self.trained,
        };
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            self.reported = Some(Instant::now());
            let mut readings = vec![format!("epoch {}/{}", progress.epoch, self.epochs)];
            let loss = progress.loss.or(self.last.map(|row| row.train_loss));
            readings.extend(loss.map(|loss| format!("loss {loss:.3}")));
            readings.extend(self.last.map(|row| format!("test {:.1} %", 100.0 * row.test_accuracy)));
            readings.extend(speed(images, time).map(|speed| format!("{speed:.0} images/s")));
            self.report(reporter, progress.epoch - 1, done, readings);
        }
        ControlFlow::Continue(())
    }

    fn finished(&mut self, reporter: &mut dyn Reporter, row: &Row) {
        (self.epoch, self.last) = (None, Some(*row));
        let Row { epoch, train_loss, test_accuracy, .. } = row;
        let test = 100.0 * test_accuracy;
        reporter.say(&format!("epoch {epoch}/{}: loss {train_loss:.4}, test {test:.2} %", self.epochs));
        if *epoch == self.epochs {
            self.report(reporter, *epoch, 0, vec![format!("test {test:.1} %")]);
        }
    }

    fn report(&self, reporter: &mut dyn Reporter, epochs: usize, images: usize, readings: Vec<String>) {
        let (done, total) = (epochs * self.images + images, self.epochs * self.images);
        let unit = "image".to_owned();
        reporter.progress(&kind::Progress { done: done as u64, total: total as u64, unit, readings });
    }

    /// What the record should say of it.
    fn note(&self, reporter: &mut dyn Reporter) {
        if let Some(speed) = speed(self.trained.0, self.trained.1) {
            reporter.note("images_per_second", ((10.0 * speed).round() / 10.0).into());
        }
        if let Some(bytes) = peak_memory() {
            reporter.note("peak_rss_bytes", bytes.into());
        }
    }
}

fn speed(images: usize, time: Duration) -> Option<f64> {
    (images > 0 && !time.is_zero()).then(|| images as f64 / time.as_secs_f64())
}

/// Most memory that this process has held, where the system tells it.
fn peak_memory() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.split_whitespace().next()?.parse::<i64>().ok()?)
}

#[cfg(test)]
mod tests;
