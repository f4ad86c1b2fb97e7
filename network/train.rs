//! The training loop: epochs, schedule, history, and the state from which a killed training goes on
//! to the same bits. Knows no engine, no files and no clock.

use std::{fmt::Write as _, ops::ControlFlow, sync::Arc};

use serde::Serialize;

use crate::{
    Error, Result,
    data::{Dataset, epoch_order, example},
    evaluate::evaluate,
    mode::TrainSet,
    model::Model,
    tensor::Tensors,
    tensorfile::{self, Metadata, entry},
    trainer::{Example, Precision, Split, State, Tally, TrainSpec, Trainer},
};

/// How a network is trained. The default is the paper's.
#[derive(Clone, Debug, PartialEq)]
pub struct Protocol {
    /// Passes over the training images (160).
    pub epochs: usize,
    /// Images per step (128); the last step of an epoch takes what is left.
    pub batch: usize,
    /// Learning rate of the first epoch (0.1).
    pub learning_rate: f64,
    /// Numbers of epochs after which the rate drops (80 and 120).
    pub milestones: Vec<usize>,
    /// What it is multiplied by then (0.1).
    pub factor: f64,
    /// SGD momentum (0.9), without Nesterov or dampening.
    pub momentum: f64,
    /// Weight decay (1e-4), coupled, on everything that trains.
    pub weight_decay: f64,
    /// Flip half of the images and crop them with padding 4 (yes).
    pub augment: bool,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            epochs: 160,
            batch: 128,
            learning_rate: 0.1,
            milestones: vec![80, 120],
            factor: 0.1,
            momentum: 0.9,
            weight_decay: 1e-4,
            augment: true,
        }
    }
}

impl Protocol {
    /// Learning rate of epoch `epoch`, counted from 0.
    pub fn rate(&self, epoch: usize) -> f32 {
        let drops = self.milestones.iter().filter(|m| **m <= epoch).count();
        (0..drops).fold(self.learning_rate, |rate, _| rate * self.factor) as f32
    }

    /// What an engine needs to know to train `set` of `model` this way.
    pub fn spec(&self, model: &Model, set: TrainSet, precision: Precision) -> TrainSpec {
        TrainSpec {
            arch: model.arch,
            variant: model.variant,
            seed: model.seed,
            init: model.init(),
            set,
            momentum: self.momentum as f32,
            weight_decay: self.weight_decay as f32,
            batch: self.batch,
            precision,
        }
    }
}

/// One epoch of a history. Losses are mean cross-entropies in nats, accuracies fractions of 1; those
/// on the training images are taken as the network learns from them, augmented and with the
/// statistics of their batch; those on the test images at the end of the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Counted from 1.
    pub epoch: usize,
    /// Learning rate.
    pub learning_rate: f32,
    /// On the training images.
    pub train_loss: f64,
    /// On the training images.
    pub train_accuracy: f64,
    /// On the test images.
    pub test_loss: f64,
    /// On the test images.
    pub test_accuracy: f64,
}

/// Columns of [`csv`].
const COLUMNS: &str = "epoch,learning_rate,train_loss,train_accuracy,test_loss,test_accuracy";

/// `history` as a table. Every number is the shortest text that gives back its bits.
pub fn csv(history: &[Row]) -> String {
    let mut text = format!("{COLUMNS}\n");
    for row in history {
        let Row { epoch, learning_rate, train_loss, train_accuracy, test_loss, test_accuracy } = row;
        let _ = writeln!(
            text,
            "{epoch},{learning_rate},{train_loss},{train_accuracy},{test_loss},{test_accuracy}"
        );
    }
    text
}

/// `history` as one JSON object per line.
pub fn json_lines(history: &[Row]) -> Result<String> {
    let mut text = String::new();
    for row in history {
        text += &serde_json::to_string(row).map_err(|e| Error::Invalid(format!("history: {e}")))?;
        text.push('\n');
    }
    Ok(text)
}

/// Reads [`csv`] back, bit for bit; `None` where it is not one.
fn parse(text: &str) -> Option<Vec<Row>> {
    let mut lines = text.lines();
    let header = lines.next()?;
    let row = |(index, line): (usize, &str)| {
        let cells: Vec<&str> = line.split(',').collect();
        let [epoch, rate, train_loss, train_accuracy, test_loss, test_accuracy] = cells[..] else {
            return None;
        };
        let row = Row {
            epoch: epoch.parse().ok()?,
            learning_rate: rate.parse().ok()?,
            train_loss: train_loss.parse().ok()?,
            train_accuracy: train_accuracy.parse().ok()?,
            test_loss: test_loss.parse().ok()?,
            test_accuracy: test_accuracy.parse().ok()?,
        };
        (row.epoch == index + 1).then_some(row)
    };
    if header == COLUMNS { lines.enumerate().map(row).collect() } else { None }
}

/// Where a running epoch is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Counted from 1.
    pub epoch: usize,
    /// Which images it is at: first those for training, then those for testing.
    pub split: Split,
    /// How many of them are done.
    pub done: usize,
    /// Mean training loss of the epoch so far, once it is known.
    pub loss: Option<f64>,
    /// May it pause here? Otherwise a stop loses what was not saved.
    pub safe: bool,
}

/// How a call of [`Training::epoch`] ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Epoch {
    /// At the end of the epoch.
    Finished(Row),
    /// Where it was asked to and may: it can be saved, and the next call goes on. (A pause among the test
    /// images begins these anew.)
    Paused,
    /// Where it was asked to, between two places at which it may pause. The training cannot go on from
    /// here, only from what was saved before.
    Stopped,
}

/// What is done of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Part {
    steps: usize,
    tally: Tally,
}

impl Part {
    /// As metadata; the loss by its bits.
    fn text(&self) -> String {
        let Self { steps, tally: Tally { examples, loss, correct } } = self;
        format!("{steps} {examples} {correct} {:016x}", loss.to_bits())
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [steps, examples, correct, loss] = words[..] else { return None };
        let loss = f64::from_bits(u64::from_str_radix(loss, 16).ok()?);
        let tally = Tally { examples: examples.parse().ok()?, loss, correct: correct.parse().ok()? };
        Some(Self { steps: steps.parse().ok()?, tally })
    }
}

/// Losses are fetched from the engine after so many steps: a fetch may wait for a device. Sums are
/// grouped by it, so changing it changes the last bits of a history; and nothing but such a place is one
/// at which a training may pause.
const FETCH: usize = 8;
const FORMAT: &str = "repro resume 4";
const WHAT: &str = "resume state";

/// Of all that [`Training::save`] keeps: a bit that flips in a number would go unnoticed for ever.
fn digest(metadata: &Metadata, tensors: &Tensors) -> Result<String> {
    Ok(tensorfile::hash(metadata, tensors)?.to_hex().to_string())
}

/// Was what [`Training::save`] made saved within an epoch? No, where it cannot be read.
pub fn saved_within_epoch(bytes: &[u8]) -> bool {
    let part = tensorfile::metadata(WHAT, bytes).ok().and_then(|words| Part::parse(words.get("part")?));
    part.is_some_and(|part| part != Part::default())
}

/// A training under way.
pub struct Training {
    trainer: Box<dyn Trainer>,
    data: Arc<Dataset>,
    protocol: Protocol,
    seed: u64,
    fingerprint: String,
    history: Vec<Row>,
    /// Of the running epoch.
    part: Part,
    stopped: bool,
}

impl Training {
    /// A training of `trainer`, which was made for `spec` on `data`; `seed` gives the order and the
    /// cuts of the images.
    pub fn new(
        trainer: Box<dyn Trainer>,
        data: Arc<Dataset>,
        spec: &TrainSpec,
        protocol: Protocol,
        seed: u64,
    ) -> Result<Self> {
        for split in [Split::Train, Split::Test] {
            if data.len(split) == 0 {
                return Err(Error::Invalid(format!("the dataset has no images in its split {split:?}")));
            }
        }
        if protocol.batch == 0 {
            return Err(Error::Invalid("a batch of 0 images trains nothing".into()));
        }
        let (train, test) = (data.len(Split::Train), data.len(Split::Test));
        let images = data.digest();
        let text = format!("{FORMAT}\n{spec:?}\n{protocol:?}\n{seed} {train} {test} {images}");
        let fingerprint = blake3::hash(text.as_bytes()).to_hex().to_string();
        Ok(Self {
            trainer,
            data,
            protocol,
            seed,
            fingerprint,
            history: Vec::new(),
            part: Part::default(),
            stopped: false,
        })
    }

    /// The finished epochs.
    pub fn history(&self) -> &[Row] {
        &self.history
    }

    /// Are all epochs done?
    pub fn finished(&self) -> bool {
        self.history.len() >= self.protocol.epochs
    }

    /// Steps of the finished epochs.
    pub fn steps(&self) -> u64 {
        (self.history.len() * self.data.len(Split::Train).div_ceil(self.protocol.batch)) as u64
    }

    /// What was trained, and the running statistics.
    pub fn values(&mut self) -> Result<Tensors> {
        self.whole()?;
        Ok(self.trainer.state()?.values)
    }

    fn whole(&self) -> Result<()> {
        if self.stopped {
            return Err(Error::Invalid(
                "this training was stopped between two steps and cannot go on".into(),
            ));
        }
        Ok(())
    }

    fn example(&self, epoch: usize, index: u32) -> Example {
        if self.protocol.augment {
            return example(self.seed, epoch, index);
        }
        Example::whole(index)
    }

    /// One more epoch, or what is left of one: all training images, then all test images. Asks `watch` before
    /// each batch whether to go on. [`Error::Diverged`] when the loss, a trained value or a running statistic is not finite.
    pub fn epoch(&mut self, watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>) -> Result<Epoch> {
        self.whole()?;
        self.stopped = true; // until the end is reached
        let epoch = self.history.len();
        let diverged = |what: String| Error::Diverged(format!("epoch {}: {what}", epoch + 1));
        let learning_rate = self.protocol.rate(epoch);
        let order = epoch_order(self.seed, epoch, self.data.len(Split::Train));
        let Part { steps, mut tally } = self.part;
        let loss = |tally: Tally| (tally.examples > 0).then(|| tally.loss / tally.examples as f64);
        let done = (steps * self.protocol.batch).min(order.len());
        let mut progress =
            Progress { epoch: epoch + 1, split: Split::Train, done, loss: loss(tally), safe: true };
        for (step, batch) in order.chunks(self.protocol.batch).enumerate().skip(steps) {
            progress.safe = step % FETCH == 0;
            if watch(&progress).is_break() {
                return Ok(self.halt(progress.safe));
            }
            let batch: Vec<Example> = batch.iter().map(|index| self.example(epoch, *index)).collect();
            self.trainer.step(&batch, learning_rate)?;
            progress.done += batch.len();
            if (step + 1) % FETCH == 0 || progress.done == order.len() {
                tally += self.trainer.take_tally()?;
                if !tally.loss.is_finite() {
                    let loss = tally.loss;
                    return Err(diverged(format!("the training loss is {loss}: the training has diverged")));
                }
                progress.loss = loss(tally);
                self.part = Part { steps: step + 1, tally };
            }
        }
        progress.safe = true;
        progress.split = Split::Test;
        let batch = self.protocol.batch;
        let test = evaluate(&mut *self.trainer, &self.data, batch, None, &mut |done| {
            watch(&Progress { done, ..progress }).is_continue()
        });
        let Some(test) = test.map_err(|e| match e {
            Error::Diverged(what) => diverged(format!("on the test images, {what}")),
            e => e,
        })?
        else {
            return Ok(self.halt(true));
        };
        // An infinite variance switches its channel off, and nothing else tells.
        let values = self.trainer.state()?.values;
        if let Some((name, _)) = values.iter().find(|(_, tensor)| tensor.data.iter().any(|x| !x.is_finite()))
        {
            return Err(diverged(format!("`{name}` is no longer finite: the training has diverged")));
        }
        let row = Row {
            epoch: epoch + 1,
            learning_rate,
            train_loss: tally.loss / tally.examples as f64,
            train_accuracy: tally.correct as f64 / tally.examples as f64,
            test_loss: test.loss,
            test_accuracy: test.top1,
        };
        self.history.push(row);
        (self.part, self.stopped) = (Part::default(), false);
        Ok(Epoch::Finished(row))
    }

    fn halt(&mut self, safe: bool) -> Epoch {
        self.stopped = !safe;
        if safe { Epoch::Paused } else { Epoch::Stopped }
    }

    /// All that a later training needs to go on from here, as a file.
    pub fn save(&mut self) -> Result<Vec<u8>> {
        self.whole()?;
        let mut metadata = Metadata::from(
            [
                ("engine", self.trainer.rounding()),
                ("fingerprint", self.fingerprint.clone()),
                ("format", FORMAT.into()),
                ("history", csv(&self.history)),
                ("part", self.part.text()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        let State { values, momentum } = self.trainer.state()?;
        let mut tensors = Tensors::new();
        for (part, of) in [("values/", values), ("momentum/", momentum)] {
            tensors.extend(of.into_iter().map(|(name, tensor)| (format!("{part}{name}"), tensor)));
        }
        let digest = digest(&metadata, &tensors)?;
        metadata.insert("digest".into(), digest);
        tensorfile::write(&metadata, &Default::default(), &tensors)
    }

    /// Goes on from what [`Training::save`] made. [`Error::Malformed`] or [`Error::Invalid`] when that is
    /// damaged, or belongs to another training or engine; this one is then as it was.
    pub fn resume(&mut self, bytes: &[u8]) -> Result<()> {
        let bad = |reason: &str| Error::Malformed(format!("{WHAT}: {reason}"));
        let (mut metadata, tensors) = tensorfile::read(WHAT, bytes)?;
        if metadata.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(bad("it was written by another version of the program"));
        }
        if metadata.remove("digest") != Some(digest(&metadata, &tensors)?) {
            return Err(bad("it is damaged"));
        }
        if metadata.get("fingerprint") != Some(&self.fingerprint) {
            return Err(bad("it belongs to another training"));
        }
        let (engine, saved_by) = (self.trainer.rounding(), entry::<String>(WHAT, &metadata, "engine")?);
        if saved_by != engine {
            return Err(bad(&format!("it was saved by the engine `{saved_by}`, and this is `{engine}`")));
        }
        let history = metadata.get("history").and_then(|text| parse(text));
        let history = history.filter(|rows| rows.len() <= self.protocol.epochs);
        let history = history.ok_or_else(|| bad("its history is damaged"))?;
        let part = metadata.get("part").and_then(|text| Part::parse(text));
        let done =
            |part: &Part| part.steps.saturating_mul(self.protocol.batch).min(self.data.len(Split::Train));
        let part = part.filter(|part| part.tally.examples == done(part) as u64);
        let part = part.ok_or_else(|| bad("it does not say how far it is"))?;
        let mut state = State::default();
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix("values/") {
                state.values.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix("momentum/") {
                state.momentum.insert(name.to_owned(), tensor);
            }
        }
        self.trainer.restore(&state)?;
        (self.history, self.part) = (history, part);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
