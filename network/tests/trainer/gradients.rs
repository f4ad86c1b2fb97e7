//! Gradients against finite differences in f64, and against one another.

use network::{
    arch::{Graph, Variant},
    init::{BnInit, random_positions},
    mode::Mode,
    rng::stream,
    tensor::Tensor,
    trainer::{EngineName, TrainSpec, Trainer},
};

use crate::support::{batch, engine, engines, in_f64, spec};

/// How far values move: so little that hardly a ReLU switches, and f64 still sees it well.
const H: f32 = 1e-7;

/// Derivative along a random direction of each trained tensor whose name `keep` accepts: from the gradient,
/// and from two losses.
fn compare(spec: &TrainSpec, keep: &dyn Fn(&str) -> bool) {
    let mut trainer = in_f64(spec);
    let batch = batch(spec.seed, 0, spec.batch);
    let (_, gradients) = trainer.gradients(&batch).unwrap();
    let start = trainer.state().unwrap();
    for (name, gradient) in gradients.iter().filter(|(name, _)| keep(name)) {
        let mut s = stream(7, name);
        let direction: Vec<f32> = gradient.data.iter().map(|_| s.normal() as f32).collect();
        let mut along = |h: f32| {
            let mut state = start.clone();
            let values = &mut state.values.get_mut(name).unwrap().data;
            let before = values.clone();
            values.iter_mut().zip(&direction).for_each(|(w, d)| *w += h * d);
            // What the values really moved by, after rounding, as a derivative would have it.
            let moved = values.iter().zip(&before).map(|(w, b)| f64::from(*w) - f64::from(*b));
            let expected: f64 = moved.zip(&gradient.data).map(|(m, g)| m * f64::from(*g)).sum();
            trainer.restore(&state).unwrap();
            (trainer.gradients(&batch).unwrap().0.loss / batch.len() as f64, expected)
        };
        let (up, down) = (along(H), along(-H));
        let (measured, expected) = (up.0 - down.0, up.1 - down.1);
        let norm = gradient.data.iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt();
        let error = (measured - expected).abs();
        assert!(
            error <= 1e-5 * f64::from(2.0 * H) * norm.max(1e-3),
            "{name}: {measured:e} measured, {expected:e} expected"
        );
    }
}

#[test]
fn every_gradient_of_a_resnet_is_the_slope_of_the_loss() {
    compare(&spec("resnet8", Variant::Origin, Mode::All, 2), &|_| true);
    compare(&spec("resnet8", Variant::Origin, Mode::Random, 2), &|_| true);
    compare(&spec("resnet8", Variant::Paper, Mode::All, 2), &|name| name.starts_with("layer1.0.bn"));
}

#[test]
fn gradients_of_a_vgg_are_the_slope_of_the_loss() {
    // Behind every pooling; a bias before a BatchNorm changes nothing.
    let first = |name: &str| ["layers.0.conv.weight", "layers.0.conv.bias"].contains(&name);
    compare(&spec("vgg11", Variant::Paper, Mode::All, 1), &first);
}

/// Some scales are below zero, or all shifts above: what is the largest behind a BatchNorm is not so before it.
#[test]
fn gradients_of_every_initialisation_are_those_in_f64() {
    for (arch, bn) in [
        ("vgg11", BnInit::PositiveNegative),
        ("vgg11", BnInit::Oneone),
        ("resnet8", BnInit::PositiveNegative),
        ("resnet8", BnInit::Oneone),
        ("resnet14", BnInit::Uniform),
    ] {
        let mut spec = spec(arch, Variant::Paper, Mode::Bn, 4);
        spec.init.bn = bn;
        let batch = batch(0, 0, 4);
        let (_, expected) = in_f64(&spec).gradients(&batch).unwrap();
        for mut engine in engines(&spec) {
            let (_, gradients) = engine.gradients(&batch).unwrap();
            assert!(gradients.keys().eq(expected.keys()));
            for (name, gradient) in &gradients {
                let who = format!("{arch}, {bn:?}, {}, {name}", engine.describe());
                assert_near(gradient, &expected[name], &who);
            }
        }
    }
}

/// Gradients of filters are summed over some images at a time.
#[test]
fn gradients_of_a_batch_of_many_images_are_those_in_f64() {
    for mode in [Mode::All, Mode::Random] {
        let spec = spec("resnet8", Variant::Origin, mode, 40);
        let batch = batch(0, 0, 40);
        let (_, expected) = in_f64(&spec).gradients(&batch).unwrap();
        let mut engine = engine(&spec, EngineName::Cpu).unwrap();
        let (_, gradients) = engine.gradients(&batch).unwrap();
        assert!(gradients.keys().eq(expected.keys()));
        for (name, gradient) in &gradients {
            assert_near(gradient, &expected[name], &format!("{mode}, {name}"));
        }
    }
}

#[test]
fn the_gradient_of_chosen_weights_is_the_full_gradient_there() {
    let random = spec("resnet8", Variant::Origin, Mode::Random, 8);
    let all = spec("resnet8", Variant::Origin, Mode::All, 8);
    let batch = batch(0, 0, 8);
    let (_, full) = in_f64(&all).gradients(&batch).unwrap();
    for mut engine in engines(&random) {
        let (_, chosen) = engine.gradients(&batch).unwrap();
        assert_eq!(chosen.len(), 10, "{}", engine.describe());
        for param in Graph::new(random.arch, random.variant, 10).params() {
            let Some(chosen) = chosen.get(&format!("{}.values", param.name)) else { continue };
            let at = random_positions(random.seed, &param, 2);
            let full = at.iter().map(|p| full[&param.name].data[*p as usize]).collect();
            assert_near(chosen, &Tensor::new(chosen.shape.clone(), full), &param.name);
        }
    }
}

fn assert_near(a: &Tensor, b: &Tensor, name: &str) {
    assert_eq!(a.shape, b.shape, "{name}");
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    let difference = norm(&mut a.data.iter().zip(&b.data).map(|(a, b)| a - b));
    let size = norm(&mut b.data.iter().copied());
    assert!(difference <= 1e-4 * size, "{name}: differs by {difference:e} of {size:e}");
}
