//! From sums to lines, against the formulas of BatchNorm.

use super::{Bench, emulated, near};
use crate::{
    cuda::{
        device::{Address, Device},
        statistics::{Norm, Sums},
    },
    trainer::Precision,
};

/// Values of each channel.
const COUNT: usize = 35;

pub(super) fn check<D: Device>(bench: &mut Bench<D>) {
    for (channels, tiles) in [(16, 1), (48, 17), (512, 35)] {
        check_one(bench, channels, tiles);
    }
}

/// A convolution's output of `tiles` equal parts, each of which left its sums.
fn check_one<D: Device>(bench: &mut Bench<D>, channels: usize, tiles: usize) {
    let values: Vec<Vec<f32>> = (0..channels).map(|_| bench.normal(COUNT)).collect();
    let gradients: Vec<Vec<f32>> = (0..channels).map(|_| bench.normal(COUNT)).collect();
    let partial = |of: &dyn Fn(usize, usize) -> [f32; 3]| -> Vec<f32> {
        let part = |tile: usize, which: usize, c: usize| {
            let own = (0..COUNT).filter(|i| i % tiles == tile);
            own.map(|i| of(c, i)[which]).sum()
        };
        let all = (0..tiles * 3 * channels).map(|i| part(i / channels / 3, i / channels % 3, i % channels));
        all.collect()
    };
    let forward = partial(&|c, i| [values[c][i], values[c][i] * values[c][i], f32::NAN]);
    let backward = partial(&|c, i| [gradients[c][i], f32::NAN, gradients[c][i] * values[c][i]]);
    let (forward, backward) = (bench.floats(&forward), bench.floats(&backward));
    let [gamma, beta, bias] = [(); 3].map(|()| bench.normal(channels));
    let before = [bench.normal(channels), vec![2.0; channels]].concat();
    let norm = Norm {
        channels,
        gamma: bench.floats(&gamma),
        beta: bench.floats(&beta),
        bias: bench.floats(&bias),
        values: channels,
        gradients: ([bench.room(4 * channels), bench.room(4 * channels)], channels),
        moments: bench.room(8 * 2 * channels),
        line: bench.room(4 * 2 * channels),
        back: bench.room(4 * 3 * channels),
        running: bench.floats(&before),
    };
    let sums = |at: Address| Sums { partial: (at, 0), tiles, count: COUNT };
    bench.run(|to| norm.normalise(to, sums(forward), true));
    bench.run(|to| norm.differentiate(to, sums(backward), 2));
    let line = bench.read(Precision::F32, norm.line, 2 * channels);
    let running = bench.read(Precision::F32, norm.running, 2 * channels);
    let back = bench.read(Precision::F32, norm.back, 3 * channels);
    let [d_gamma, d_beta] = norm.gradients.0.map(|at| bench.read(Precision::F32, at, channels));
    bench.run(|to| norm.fix(to));
    let fixed = bench.read(Precision::F32, norm.line, 2 * channels);

    let mean_of = |of: &dyn Fn(usize) -> f64| (0..COUNT).map(of).sum::<f64>() / COUNT as f64;
    for c in 0..channels {
        let is = |what: &str, got: f32, expected: f64| {
            near(&format!("{what} of channel {c}"), got.into(), expected, 2e-5 * (1.0 + expected.abs()));
        };
        let z = |i: usize| f64::from(values[c][i]);
        let (mean, [gamma, beta, bias]) = (mean_of(&z), [gamma[c], beta[c], bias[c]].map(f64::from));
        let variance = mean_of(&|i| (z(i) - mean).powi(2));
        let inverse = 1.0 / (variance + 1e-5).sqrt();
        is("scale", line[c], gamma * inverse);
        is("shift", line[channels + c], beta - gamma * inverse * mean);
        let unbiased = variance * COUNT as f64 / (COUNT - 1) as f64;
        let follow = |old: f32, new: f64| 0.9 * f64::from(old) + 0.1 * new;
        let [running_mean, running_variance] =
            [follow(before[c], mean + bias), follow(before[channels + c], unbiased)];
        is("running mean", running[c], running_mean);
        is("running variance", running[channels + c], running_variance);
        let scale = gamma / (running_variance + 1e-5).sqrt();
        is("fixed scale", fixed[c], scale);
        is("fixed shift", fixed[channels + c], beta - scale * (running_mean - bias));

        let g = |i: usize| f64::from(gradients[c][i]);
        let normal = |i: usize| (z(i) - mean) * inverse;
        let [sum, slope] = [mean_of(&g), mean_of(&|i| g(i) * normal(i))];
        is("gradient of gamma", d_gamma[c], COUNT as f64 * slope);
        is("gradient of beta", d_beta[c], COUNT as f64 * sum);
        for i in 0..COUNT {
            let [a, b, d] = [0, 1, 2].map(|part| f64::from(back[part * channels + c]));
            let expected = gamma * inverse * (g(i) - sum - normal(i) * slope);
            is("gradient", (a * g(i) + b * z(i) + d) as f32, expected);
        }
    }
}

#[test]
fn sums_become_the_lines_of_batch_norm() {
    let Some(mut bench) = emulated() else { return };
    check(&mut bench);
}
