//! Images by formula, and trainers of small networks on them.

use std::sync::Arc;

use candle_core::DType;
use network::{
    Error,
    arch::Variant,
    data::{self, Dataset, IMAGE_BYTES, Images},
    init::{BnInit, Init, WeightInit},
    mode::Mode,
    reference::Reference,
    trainer::{EngineChoice, EngineName, Example, Precision, TrainSpec, Trainer, trainer},
};

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

/// The engines that cover `spec`: always the reference.
pub(crate) fn engines(spec: &TrainSpec) -> Vec<Box<dyn Trainer>> {
    let reference = engine(spec, EngineName::Reference).unwrap();
    [reference].into_iter().chain(engine(spec, EngineName::Cpu)).collect()
}

pub(crate) fn in_f64(spec: &TrainSpec) -> Reference {
    Reference::new(spec, images(), DType::F64).unwrap()
}
