//! A fast engine beside the reference, for many steps.

use network::{arch::Variant, mode::Mode, tensor::Tensors, trainer::EngineName};

use crate::support::{batch, engine, spec};

/// Along two hundred steps of the fast engine, the reference takes every eighth from the same
/// state. (Left alone, the two part: a ReLU that rounding switches changes a gradient by up to a
/// hundredth in such a small batch, and the next steps amplify it.)
#[test]
fn two_hundred_steps_are_those_of_the_reference() {
    for (variant, mode) in [
        (Variant::Origin, Mode::Bn),
        (Variant::Origin, Mode::All),
        (Variant::Origin, Mode::Random),
        (Variant::Paper, Mode::Bn),
    ] {
        follow(variant, mode);
    }
}

fn follow(variant: Variant, mode: Mode) {
    let spec = spec("resnet8", variant, mode, 8);
    let mut reference = engine(&spec, EngineName::Reference).unwrap();
    let mut fast = engine(&spec, EngineName::Cpu).unwrap();
    for step in 0..200 {
        let examples = batch(spec.seed, step, 8);
        let compared = step % 8 == 7;
        if compared {
            reference.restore(&fast.state().unwrap()).unwrap();
            reference.step(&examples, 0.1).unwrap();
        }
        fast.step(&examples, 0.1).unwrap();
        let tally = fast.take_tally().unwrap();
        if compared {
            let expected = reference.take_tally().unwrap();
            let apart = (tally.loss - expected.loss).abs();
            assert!(
                apart <= 1e-5 * expected.loss,
                "{variant}, {mode}, step {step}: {tally:?}, the reference has {expected:?}"
            );
            let (state, expected) = (fast.state().unwrap(), reference.state().unwrap());
            close(1e-3, &state.values, &expected.values);
            close(2e-2, &state.momentum, &expected.momentum);
        }
    }
}

/// A reference that is left alone ends elsewhere, as above, but learns as fast.
#[test]
fn two_hundred_steps_lose_as_much_as_those_of_a_reference_left_alone() {
    let spec = spec("resnet8", Variant::Paper, Mode::Bn, 8);
    let losses = [EngineName::Cpu, EngineName::Reference].map(|name| {
        let mut engine = engine(&spec, name).unwrap();
        let mut loss = |step| {
            engine.step(&batch(spec.seed, step, 8), 0.1).unwrap();
            engine.take_tally().unwrap().loss
        };
        (0..200).map(&mut loss).collect::<Vec<_>>()
    });
    let [ours, theirs] =
        losses.map(|losses| losses.chunks(50).map(|part| part.iter().sum::<f64>()).collect::<Vec<_>>());
    assert!(theirs[3] < 0.7 * theirs[0], "nothing was learnt: {theirs:?}");
    for (part, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        assert!((a / b - 1.0).abs() < 0.03, "steps from {}: {a}, the reference has {b}", 50 * part);
    }
}

fn close(tolerance: f64, got: &Tensors, expected: &Tensors) {
    assert!(got.keys().eq(expected.keys()));
    for (name, expected) in expected {
        let pairs = got[name].data.iter().zip(&expected.data);
        let apart = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        let size = expected.data.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!(apart <= tolerance * size, "{name}: {apart:e} apart, size {size:e}");
    }
}
