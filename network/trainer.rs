//! The one interface that the training loop speaks. Behind it stand the reference (candle), the
//! CPU engine and the CUDA engine, which agree with one another within rounding; how one of them may
//! spend the machine changes none of its bits in float32. Knows no epochs, schedules or files.

use std::{
    ops::{AddAssign, Range},
    sync::Arc,
};

use candle_core::DType;

use crate::{
    Error, Result,
    arch::{Arch, Variant},
    cpu::{self, lanes::Isa},
    cuda::{cards, driver::Card, nvrtc::Places, trainer::CudaTrainer},
    data::{Dataset, PADDING},
    init::Init,
    mode::TrainSet,
    plan::Plan,
    reference::Reference,
    tensor::Tensors,
};

/// Everything that decides the numbers of a training step.
#[derive(Clone, Debug)]
pub struct TrainSpec {
    /// The network.
    pub arch: Arch,
    /// Which reading of it.
    pub variant: Variant,
    /// Seed of the initial weights and the random positions.
    pub seed: u64,
    /// How the weights are drawn.
    pub init: Init,
    /// What trains.
    pub set: TrainSet,
    /// SGD momentum (0.9).
    pub momentum: f32,
    /// Weight decay on every trained value (1e-4), coupled as in PyTorch's SGD.
    pub weight_decay: f32,
    /// Largest batch that [`Trainer::step`] will be given.
    pub batch: usize,
    /// What activations are stored as, and on a card what is multiplied.
    pub precision: Precision,
}

impl TrainSpec {
    /// The same with room for no more images than the larger split of `data` has: neither a step nor a prediction
    /// takes more at once.
    pub fn for_images_of(&self, data: &Dataset) -> Self {
        let most = data.len(Split::Train).max(data.len(Split::Test)).max(1);
        Self { batch: self.batch.min(most), ..self.clone() }
    }

    /// Can a step be made on `batch`, of the training images of `data`?
    pub(crate) fn check(&self, batch: &[Example], data: &Dataset) -> Result<()> {
        let (count, most, images) = (batch.len(), self.batch, data.len(Split::Train));
        if count == 0 || count > most {
            return Err(Error::Invalid(format!(
                "a batch of {count} examples; this trainer takes 1 to {most}"
            )));
        }
        match batch.iter().find(|example| example.index as usize >= images) {
            Some(example) => {
                Err(Error::Invalid(format!("no training image {}; there are {images}", example.index)))
            }
            None => Ok(()),
        }
    }
}

/// How activations and their gradients are stored and, on a card, multiplied with filters. Parameters, statistics and
/// accumulation are f32 or wider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 32-bit floats; a card's tensor cores round what they multiply to 11 significant bits. For cards only.
    Tf32,
    /// bfloat16, of 8 significant bits: half the memory and its traffic. A card's tensor cores multiply it; the
    /// processor computes in f32.
    Bf16,
}

/// One training example: which image, and how it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// Index in the training split.
    pub index: u32,
    /// Row offset of the crop in the zero-padded image, 0..=8; 4 is the centre.
    pub dy: u8,
    /// Column offset, likewise.
    pub dx: u8,
    /// Mirror the columns, before cropping.
    pub flip: bool,
}

impl Example {
    /// An image as it is.
    pub fn whole(index: u32) -> Self {
        Self { index, dy: PADDING as u8, dx: PADDING as u8, flip: false }
    }
}

/// Sums over examples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Examples counted.
    pub examples: u64,
    /// Sum of their cross-entropies (natural logarithm).
    pub loss: f64,
    /// How many had the largest logit at their label (the first, where several are equal).
    pub correct: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.examples += other.examples;
        self.loss += other.loss;
        self.correct += other.correct;
    }
}

/// The two parts of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For training.
    Train,
    /// For testing.
    Test,
}

/// All that changes during training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// What trains, by PyTorch's names (`layer1.0.bn1.weight`), and the running statistics of every
    /// BatchNorm (`layer1.0.bn1.running_mean`, `.running_var`). Of a filter tensor of which k values per
    /// filter train, these alone: `conv1.weight.values`, shape `K k`, ordered like
    /// [`init::random_positions`](crate::init::random_positions).
    pub values: Tensors,
    /// Momentum buffers of what trains, by the same names.
    pub momentum: Tensors,
}

/// A network in training on a dataset.
pub trait Trainer {
    /// One optimisation step on `batch` (1 to `spec.batch` examples) at learning rate `rate`:
    /// forward with batch statistics, mean cross-entropy, backward, SGD.
    fn step(&mut self, batch: &[Example], rate: f32) -> Result<()>;

    /// The sums over all steps since the last call; measured as each step's forward saw them.
    fn take_tally(&mut self) -> Result<Tally>;

    /// Logits (`N K`) of images `range` of `split`, not augmented, with running statistics. Where `zeros` are wanted, it looks
    /// in bf16 but for rounding, and adds to them, one list for each ReLU in the order of the graph, at how many positions
    /// each of its channels was zero. Not every engine can.
    fn look(&mut self, split: Split, range: Range<usize>, zeros: Option<&mut [Vec<u64>]>)
    -> Result<Vec<f32>>;

    /// The logits alone.
    fn predict(&mut self, split: Split, range: Range<usize>) -> Result<Vec<f32>> {
        self.look(split, range, None)
    }

    /// Gradients of the mean cross-entropy of `batch` for everything that trains, by the names
    /// of [`State::values`], without weight decay. Changes nothing. For tests; not every trainer tells them.
    fn gradients(&mut self, _batch: &[Example]) -> Result<(Tally, Tensors)> {
        Err(Error::Unsupported { engine: self.engine(), reason: "it tells no gradients".into() })
    }

    /// A copy of all that changes.
    fn state(&mut self) -> Result<State>;

    /// Goes on from `state`; [`Error::Invalid`] when its names or shapes are not this network's, before
    /// anything is changed.
    fn restore(&mut self, state: &State) -> Result<()>;

    /// The engine in one word: `cpu`, `cuda`, `reference`. Another one rounds otherwise.
    fn engine(&self) -> &'static str;

    /// What decides how it rounds: a training goes on only where this is the same. The engine's name, where that rounds
    /// alike on every machine.
    fn rounding(&self) -> String {
        self.engine().to_owned()
    }

    /// What computes: engine, instruction set, threads, precision; for the record of a run.
    fn describe(&self) -> String;

    /// What a step of `spec.batch` examples does and holds, where it knows.
    fn plan(&self) -> Option<Plan> {
        None
    }
}

/// Which engine, and how it may spend the machine. Engines agree within rounding; what else stands here changes
/// no bit of a result that the CPU engine gives in float32.
#[derive(Clone, Debug)]
pub struct EngineChoice {
    /// `auto`, `reference`, `cpu`, ...
    pub engine: EngineName,
    /// Worker threads.
    pub threads: usize,
    /// Bytes that the buffers of a step should fit, where the engine can save some by computing more.
    pub memory: Option<usize>,
    /// Forces an instruction set, for measurements and tests: `avx512bf16`, `avx512`, `avx2`, `portable`.
    pub isa: Option<String>,
    /// Where CUDA's parts lie. Without it `auto` uses no card, and `cuda` looks in the usual places.
    pub card: Option<Places>,
}

/// The program that computes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Engine")]
pub enum EngineName {
    /// The fastest one that covers the network.
    #[default]
    Auto,
    /// Plain and slow: what the others are compared with.
    Reference,
    /// The fused kernels for the processor.
    Cpu,
    /// The fused kernels for an NVIDIA card.
    Cuda,
}

/// A trainer for `spec` on `data`, and a note when it is not the fast one that was hoped for.
pub fn trainer(
    spec: &TrainSpec,
    data: Arc<Dataset>,
    choice: &EngineChoice,
) -> Result<(Box<dyn Trainer>, Option<String>)> {
    let reference =
        |data| -> Result<Box<dyn Trainer>> { Ok(Box::new(Reference::new(spec, data, DType::F32)?)) };
    let small = spec.for_images_of(&data);
    let cpu = |data: Arc<Dataset>| -> Result<(Box<dyn Trainer>, Option<String>)> {
        let (isa, room) = (Isa::choose(choice.isa.as_deref())?, choice.memory.unwrap_or(usize::MAX));
        let trainer = cpu::trainer::open(&small, data, isa, choice.threads, room)?;
        let note = over(&*trainer, choice.memory);
        Ok((trainer, note))
    };
    let cuda = |data| -> Result<Box<dyn Trainer>> {
        let places = choice.card.clone().unwrap_or_default();
        Ok(Box::new(CudaTrainer::new(&small, data, Card::open(&places)?)?))
    };
    match choice.engine {
        EngineName::Reference => {
            let note = choice.memory.map(|_| "the reference engine fits its buffers to no memory".to_owned());
            Ok((reference(data)?, note))
        }
        EngineName::Cpu => cpu(data),
        EngineName::Cuda => Ok((cuda(data)?, None)),
        EngineName::Auto => {
            let mut notes = Vec::new();
            if choice.card.is_some() {
                match cards::any().and_then(|any| any.then(|| cuda(data.clone())).transpose()) {
                    Ok(Some(trainer)) => return Ok((trainer, None)),
                    Ok(None) => {}
                    Err(error @ (Error::Unsupported { .. } | Error::Device(_))) => {
                        notes.push(format!("the card is not used: {error}"));
                    }
                    Err(error) => return Err(error),
                }
            }
            // Why the last engine does not compute, and before it the card.
            let joined = |error, notes: &[String]| match error {
                Error::Unsupported { engine, reason } => {
                    Error::Unsupported { engine, reason: [&[reason], notes].concat().join("; ") }
                }
                error => error,
            };
            let trainer = match cpu(data.clone()) {
                Ok((trainer, over)) => {
                    notes.extend(over);
                    trainer
                }
                // The reference has no more than the processor.
                Err(error) if spec.precision == Precision::Tf32 => return Err(joined(error, &notes)),
                Err(Error::Unsupported { reason, .. }) => {
                    let slow =
                        format!("the reference engine computes, which is slow: of the CPU engine, {reason}");
                    let trainer = reference(data).map_err(|error| joined(error, &notes))?;
                    notes.push(slow);
                    trainer
                }
                Err(error) => return Err(error),
            };
            Ok((trainer, (!notes.is_empty()).then(|| notes.join("; "))))
        }
    }
}

/// A word where the buffers of a step take more than the memory that they should fit.
fn over(trainer: &dyn Trainer, memory: Option<usize>) -> Option<String> {
    let (room, bytes) = (memory?, trainer.plan()?.buffer_bytes(false));
    (bytes > room).then(|| {
        let [bytes, room] = [bytes, room].map(|bytes| bytes as f64 / 1e6);
        format!(
            "the buffers of a step take {bytes:.1} MB, though all outputs that can be are computed again, and not the \
             {room:.1} MB that were asked for; a smaller batch takes less (to evaluate, fewer threads)"
        )
    })
}
