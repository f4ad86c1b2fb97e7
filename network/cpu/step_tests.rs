//! What the fused step promises: see each test's name.

use super::*;
use crate::{arch::Variant, cpu::stored::Bf16, rng::stream, tensor::Tensor};

fn network<S: Stored>(arch: &str, variant: Variant, batch: usize, isa: Isa, threads: usize) -> Step<S> {
    let graph = Graph::new(arch.parse().unwrap(), variant, 10);
    let draw = |p: &crate::arch::Param| {
        let mut s = stream(0, &p.name);
        let size = (2.0 / (p.count() / p.shape[0]) as f64).sqrt();
        let data = (0..p.count()).map(|_| match p.shape.len() {
            1 => 0.5 + s.uniform() as f32,
            _ => (size * (s.uniform() - 0.5) * 12f64.sqrt()) as f32,
        });
        (p.name.clone(), Tensor::new(p.shape.clone(), data.collect()))
    };
    let values = graph.params().iter().map(draw).collect();
    Step::new(&graph, values, |_| Trained::None, (batch, 0), isa, threads).unwrap()
}

/// Noise, image by image.
fn load(n: usize, x: &mut [f32]) {
    let mut s = stream(n as u64, "image");
    for (y, c) in (1..33).flat_map(|y| (1..33).map(move |c| (y, c))) {
        x[(y * 34 + c) * 16..][..3].fill_with(|| s.normal() as f32);
    }
}

/// Loss (half the sum of squares of the logits); leaves logits and gradients.
fn run(step: &mut Step<impl Stored>, batch: usize) -> f64 {
    step.forward(batch, load);
    let logits = step.logits.clone();
    step.backward(batch, &logits, load);
    logits.iter().map(|l| l * l / 2.0).sum()
}

/// Logits and gradients after a step, and that after another of another size.
fn bits<S: Stored>(arch: &str, variant: Variant, batch: usize, isa: Isa, threads: usize) -> Vec<u64> {
    let mut step = network::<S>(arch, variant, batch, isa, threads);
    let mut bits = Vec::new();
    for size in [batch, 1] {
        run(&mut step, size);
        bits.extend(step.logits.iter().map(|x| x.to_bits()));
        let gradients = step.units.iter().flat_map(|u| u.d_gamma.iter().chain(&u.d_beta));
        bits.extend(gradients.map(|x| u64::from(x.to_bits())));
    }
    bits
}

#[test]
fn threads_and_instruction_sets_change_no_bit() {
    for (arch, variant, batch) in [("resnet8", Variant::Paper, 11), ("resnet8-2", Variant::Origin, 35)] {
        change_no_bit::<f32>(arch, variant, batch, &[1, 2, 4, 7]);
        change_no_bit::<Bf16>(arch, variant, batch, &[1, 3]);
    }
}

fn change_no_bit<S: Stored>(arch: &str, variant: Variant, batch: usize, threads: &[usize]) {
    let expected = bits::<S>(arch, variant, batch, Isa::all()[0], 1);
    assert!(expected.iter().any(|x| *x != 0));
    for (i, isa) in Isa::all().into_iter().enumerate() {
        // Who computes which image is the same in all of them.
        for &threads in threads.iter().skip(if i == 0 { 0 } else { threads.len() - 1 }) {
            let equal = bits::<S>(arch, variant, batch, isa, threads) == expected;
            assert!(equal, "{arch} in {}: {isa}, {threads} threads", S::NAME);
        }
    }
}

#[test]
fn pooling_has_equal_bits_on_all_instruction_sets() {
    change_no_bit::<f32>("vgg11", Variant::Paper, 1, &[3]);
    change_no_bit::<Bf16>("vgg11", Variant::Paper, 1, &[3]);
}

#[test]
fn predictions_by_the_statistics_of_a_batch_have_the_bits_of_its_forward_pass() {
    for (arch, variant, batch) in [
        ("resnet8", Variant::Paper, 11),
        ("resnet14", Variant::Paper, 3),
        ("resnet20", Variant::Paper, 3),
        ("resnet14-2", Variant::Origin, 9),
        ("vgg11", Variant::Paper, 2),
    ] {
        for threads in [1, 3] {
            let mut step = network::<f32>(arch, variant, batch, Isa::all()[0], threads);
            step.forward(batch, load);
            let statistics: Vec<_> = step.units.iter().map(|unit| unit.batch.clone()).collect();
            let expected = step.logits.clone();
            for count in [batch, batch - 1] {
                step.predict(count, &statistics, load);
                assert_eq!(step.logits, expected[..count * 10], "{arch} {variant}, {threads} threads");
            }
        }
    }
}

#[test]
fn sums_of_images_are_added_up_in_more_digits_than_they_have() {
    const LARGE: f32 = 16_777_216.0; // 2^24: in f32 the next number is larger by two
    let mut step = network::<f32>("resnet8", Variant::Origin, 64, Isa::all()[0], 1);
    let unit = &mut step.units[0];
    for n in 0..64 {
        unit.sums.get(n)[0] = if n == 0 { LARGE } else { 1.0 };
    }
    unit.normalise(64);
    assert_eq!(unit.batch[0][0] * unit.count as f64, f64::from(LARGE) + 63.0);
}

/// As vectors, over all units: how far are gradients in bf16 from those in f32?
#[test]
fn a_step_in_bf16_is_near_that_in_f32() {
    fn of<S: Stored>() -> (f64, Vec<f64>, usize) {
        let mut step = network::<S>("resnet14", Variant::Paper, 16, Isa::all()[0], 2);
        let loss = run(&mut step, 16);
        let gradients = step.units.iter().flat_map(|u| u.d_gamma.iter().chain(&u.d_beta));
        (loss, gradients.map(|x| f64::from(*x)).collect(), step.plan().buffer_bytes(true))
    }
    let ((loss, gradients, bytes), (half_loss, half_gradients, half_bytes)) = (of::<f32>(), of::<Bf16>());
    assert!((half_loss / loss - 1.0).abs() < 0.02, "{half_loss} instead of {loss}");
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norms = (dot(&gradients, &gradients) * dot(&half_gradients, &half_gradients)).sqrt();
    let cosine = dot(&gradients, &half_gradients) / norms;
    assert!(cosine > 0.99 && cosine < 1.0, "the cosine between the gradients is {cosine}");
    assert!(half_bytes as f64 / (bytes as f64) < 0.55, "{half_bytes} of {bytes} bytes");
}

/// Images do not meet before the statistics: the sums of an image are the same bits in any batch.
#[test]
fn an_image_has_the_same_outputs_in_every_batch() {
    let forward = |arch: &str, batch: usize, threads: usize| {
        let mut step = network::<f32>(arch, Variant::Paper, batch, Isa::all()[0], threads);
        // What follows a BatchNorm depends on the batch: the statistics are fixed.
        let fixed: Vec<_> = step.units.iter().map(|unit| unit.batch.clone()).collect();
        step.forward_by(batch, &fixed, load);
        let unit = |unit: &mut Unit<f32>| {
            let z = std::sync::Arc::get_mut(&mut unit.z).unwrap().get(0).to_vec();
            (z, unit.sums.get(0).to_vec())
        };
        step.units.iter_mut().map(unit).collect::<Vec<_>>()
    };
    for (arch, many) in [("resnet8", 17), ("vgg11", 4)] {
        let alone = forward(arch, 1, 1);
        for (batch, threads) in [(3, 1), (many, 3)] {
            let bits = |units: &[(Vec<f32>, Vec<f32>)]| -> Vec<u32> {
                units.iter().flat_map(|(z, sums)| z.iter().chain(sums)).map(|x| x.to_bits()).collect()
            };
            assert!(bits(&forward(arch, batch, threads)) == bits(&alone), "{arch}, {batch} images");
        }
    }
}
