//! Small trainings against PyTorch's numbers, which `../golden/make.py` wrote.

use network::{
    arch::{Graph, Variant},
    init::{BnInit, digest, initial},
    mode::Mode,
    trainer::{Split, TrainSpec, Trainer},
};
use serde::Deserialize;

use crate::support::{batch, engines, spec};

#[derive(Deserialize)]
struct Case {
    arch: String,
    variant: String,
    bn_init: BnInit,
    digest: String,
    mode: String,
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

fn check_all(arch: &str) {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/golden.json")).unwrap();
    let cases: Vec<Case> = cases.into_iter().filter(|case| case.arch == arch).collect();
    assert!(!cases.is_empty());
    for case in cases {
        let (variant, mode): (Variant, Mode) = (case.variant.parse().unwrap(), case.mode.parse().unwrap());
        let mut spec = spec(arch, variant, mode, case.batch);
        spec.init.bn = case.bn_init;
        spec.weight_decay = case.decay;
        let weights = initial(&Graph::new(spec.arch, variant, 10), spec.seed, spec.init);
        assert_eq!(digest(&weights), case.digest, "initial weights of {arch}, {variant}");
        for mut engine in engines(&spec) {
            check(&case, &spec, &mut *engine);
        }
    }
}

fn check(case: &Case, spec: &TrainSpec, engine: &mut dyn Trainer) {
    let who = format!("{}, {}, {}, {}", case.arch, case.variant, case.mode, engine.describe());
    let close = |what: &str, tolerance: f64, got: f64, expected: f64| {
        let apart = (got - expected).abs();
        assert!(apart <= tolerance * (1.0 + expected.abs()), "{who}, {what}: {got}, PyTorch has {expected}");
    };
    for (i, rate) in case.rates.iter().enumerate() {
        engine.step(&batch(spec.seed, i, case.batch), *rate).unwrap();
        let tally = engine.take_tally().unwrap();
        close(&format!("loss of step {i}"), TOLERANCE, tally.loss / tally.examples as f64, case.losses[i]);
        assert_eq!(tally.correct, case.correct[i], "{who}, correct in step {i}");
    }
    let logits = engine.predict(Split::Test, 0..4).unwrap();
    assert_eq!(logits.len(), case.logits.len());
    for (i, (got, expected)) in logits.iter().zip(&case.logits).enumerate() {
        close(&format!("logit {i}"), LOGIT_TOLERANCE, f64::from(*got), *expected);
    }
    let values = engine.state().unwrap().values;
    assert_eq!(values.len(), case.norms.len(), "{who}");
    for ((name, tensor), expected) in values.iter().zip(&case.norms) {
        let squares: f64 = tensor.data.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        close(name, TOLERANCE, squares.sqrt(), *expected);
    }
}

#[test]
fn residual_networks_train_as_in_pytorch_in_every_mode() {
    check_all("resnet8");
}

#[test]
fn a_vgg_trains_as_in_pytorch() {
    check_all("vgg11");
}
