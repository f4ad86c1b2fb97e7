//! Images by formula, trainers of small networks on them, and PyTorch's numbers for some of these.

use std::sync::Arc;

use candle_core::DType;
use network::{
    Error,
    arch::{Graph, Variant},
    data::{self, Dataset, IMAGE_BYTES, Images},
    init::{BnInit, Init, WeightInit, digest, initial},
    mode::Mode,
    reference::Reference,
    trainer::{EngineChoice, EngineName, Example, Precision, Split, TrainSpec, Trainer, trainer},
};
use serde::Deserialize;

pub(crate) const TRAIN: usize = 64;
pub(crate) const TEST: usize = 16;

/// Ten classes of stripes under noise; `golden/make.py` draws the same.
pub(crate) fn images() -> Arc<Dataset> {
    let labels: Vec<u16> = (0..TRAIN + TEST).map(|i| (i * 7 % 10) as u16).collect();
    let pixels: Vec<u8> = (0..(TRAIN + TEST) * IMAGE_BYTES).map(|i| pixel(i, &labels)).collect();
    let names: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let train = Images { labels: &labels[..TRAIN], pixels: &pixels[..TRAIN * IMAGE_BYTES] };
    let test = Images { labels: &labels[TRAIN..], pixels: &pixels[TRAIN * IMAGE_BYTES..] };
    Arc::new(Dataset::from_bytes(Arc::new(data::pack(&names, train, test).unwrap())).unwrap())
}

fn pixel(i: usize, labels: &[u16]) -> u8 {
    let (image, c, y, x) = (i / 3072, i / 1024 % 3, i / 32 % 32, i % 32);
    let noise = (i as u32).wrapping_mul(2_654_435_761) >> 26;
    let stripe = (y * (usize::from(labels[image]) + 1) + x * (c + 2)) % 8;
    (64 + 16 * stripe + noise as usize) as u8
}

/// The `step`-th batch of `n`, augmented.
pub(crate) fn batch(seed: u64, step: usize, n: usize) -> Vec<Example> {
    let per_epoch = TRAIN / n;
    let epoch = step / per_epoch;
    let order = data::epoch_order(seed, epoch, TRAIN);
    order[step % per_epoch * n..][..n].iter().map(|i| data::example(seed, epoch, *i)).collect()
}

pub(crate) fn spec(arch: &str, variant: Variant, mode: Mode, batch: usize) -> TrainSpec {
    TrainSpec {
        arch: arch.parse().unwrap(),
        variant,
        seed: 0,
        init: Init { weights: WeightInit::HeNormal, bn: BnInit::Uniform },
        set: mode.train_set(variant, 2),
        momentum: 0.9,
        weight_decay: 1e-4,
        batch,
        precision: Precision::F32,
    }
}

/// A trainer of `spec`, unless `name` does not cover it.
pub(crate) fn engine(spec: &TrainSpec, name: EngineName) -> Option<Box<dyn Trainer>> {
    match trainer(
        spec,
        images(),
        &EngineChoice { engine: name, threads: 2, memory: None, isa: None, card: None },
    ) {
        Ok((trainer, _)) => Some(trainer),
        Err(Error::Unsupported { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The engines of the processor.
pub(crate) fn engines(spec: &TrainSpec) -> [Box<dyn Trainer>; 2] {
    [EngineName::Reference, EngineName::Cpu].map(|name| engine(spec, name).unwrap())
}

pub(crate) fn in_f64(spec: &TrainSpec) -> Reference {
    Reference::new(spec, images(), DType::F64).unwrap()
}

/// A small training with PyTorch's numbers, as `../golden/make.py` wrote them.
#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) arch: String,
    pub(crate) variant: String,
    bn_init: BnInit,
    digest: String,
    pub(crate) mode: String,
    batch: usize,
    /// Learning rate of each step.
    rates: Vec<f32>,
    /// Weight decay.
    decay: f32,
    losses: Vec<f64>,
    correct: Vec<u64>,
    /// Of the first four test images, after the last step.
    logits: Vec<f64>,
    /// Length (as a vector) of each tensor of the final state, by its name in order.
    norms: Vec<f64>,
}

/// Ten steps in float32 end about 1e-6 away from PyTorch's float64; with a ReLU that rounding
/// switches up to a hundred times further, and single logits most of all.
const TOLERANCE: f64 = 2e-4;
const LOGIT_TOLERANCE: f64 = 5e-4;

/// All of them.
pub(crate) fn golden() -> Vec<Golden> {
    serde_json::from_str(include_str!("../golden/golden.json")).unwrap()
}

impl Golden {
    /// What is trained, from the weights that PyTorch began with.
    pub(crate) fn spec(&self) -> TrainSpec {
        let (variant, mode) = (self.variant.parse().unwrap(), self.mode.parse().unwrap());
        let mut spec = spec(&self.arch, variant, mode, self.batch);
        (spec.init.bn, spec.weight_decay) = (self.bn_init, self.decay);
        let weights = initial(&Graph::new(spec.arch, variant, 10), spec.seed, spec.init);
        assert_eq!(digest(&weights), self.digest, "initial weights of {}, {variant}", self.arch);
        spec
    }

    /// Trains with `trainer`, which is new.
    pub(crate) fn check(&self, trainer: &mut dyn Trainer) {
        let who = format!("{}, {}, {}, {}", self.arch, self.variant, self.mode, trainer.describe());
        let close = |what: &str, tolerance: f64, got: f64, expected: f64| {
            let apart = (got - expected).abs();
            let most = tolerance * (1.0 + expected.abs());
            assert!(apart <= most, "{who}, {what}: {got}, PyTorch has {expected}");
        };
        assert_eq!([self.losses.len(), self.correct.len()], [self.rates.len(); 2], "{who}");
        for (i, rate) in self.rates.iter().enumerate() {
            trainer.step(&batch(0, i, self.batch), *rate).unwrap();
            let tally = trainer.take_tally().unwrap();
            let loss = tally.loss / tally.examples as f64;
            close(&format!("loss of step {i}"), TOLERANCE, loss, self.losses[i]);
            assert_eq!(tally.correct, self.correct[i], "{who}, correct in step {i}");
        }
        let logits = trainer.predict(Split::Test, 0..4).unwrap();
        assert_eq!(logits.len(), self.logits.len(), "{who}");
        for (i, (got, expected)) in logits.iter().zip(&self.logits).enumerate() {
            close(&format!("logit {i}"), LOGIT_TOLERANCE, f64::from(*got), *expected);
        }
        let values = trainer.state().unwrap().values;
        assert_eq!(values.len(), self.norms.len(), "{who}");
        for ((name, tensor), expected) in values.iter().zip(&self.norms) {
            let squares: f64 = tensor.data.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            close(name, TOLERANCE, squares.sqrt(), *expected);
        }
    }
}
