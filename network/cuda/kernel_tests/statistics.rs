//! From sums to lines, against the formulas of BatchNorm.

use super::{Bench, emulated, near};
use crate::{
    cuda::{
        device::{Address, Device, Source},
        launches::{Args, COMMON, NORMS, Size},
        memory::COUNTERS,
        statistics::{self, Norm, Sums},
    },
    trainer::Precision,
};

/// What a convolution's last block does on the way forward, by itself.
const NORMALISE: &str = r#"
extern "C" __global__ void normalise_alone(const float *partial, int tiles, int channels, int count,
                                           NORM_PARAMETERS()) {
    SHARED_MEMORY(double, memory);
    const int first = blockIdx.x * 16, c = threadIdx.x;
    const Norm norm = OWN_NORM(, channels);
    const Held held = hold(norm, first + c % 16, channels, true);
    const double *sums = add_up<16, 128, 2>(memory, partial, tiles, channels, first);
    if (c < 16) normalise(norm, held, first + c, channels, count, sums[c], sums[16 + c]);
}
"#;

impl<D: Device> Bench<D> {
    /// A BatchNorm with values, and moments as if it had gone forward.
    fn norm(&mut self, channels: usize) -> Norm {
        let [gamma, beta, bias, means] = [(); 4].map(|()| self.normal(channels));
        let moments = means.iter().map(|mean| f64::from(*mean)).chain(vec![0.7; channels]);
        let moments: Vec<u8> = moments.flat_map(f64::to_le_bytes).collect();
        let norm = Norm {
            channels,
            gamma: self.floats(&gamma),
            beta: self.floats(&beta),
            bias: self.floats(&bias),
            values: channels,
            moments: self.give(&moments),
            running: self.floats(&[vec![-0.3; channels], vec![2.0; channels]].concat()),
            ..Norm::default()
        };
        self.with_room(&norm)
    }

    /// The same values, and other room for what comes of them.
    fn with_room(&mut self, norm: &Norm) -> Norm {
        let n = norm.channels;
        let [moments, running] = [(norm.moments, 16 * n), (norm.running, 8 * n)].map(|(at, bytes)| {
            let bytes = self.bytes(at, bytes);
            self.give(&bytes)
        });
        let gradients = ([self.room(4 * n), self.room(4 * n)], n);
        let (line, back) = (self.room(4 * 2 * n), self.room(4 * 3 * n));
        Norm { moments, running, gradients, line, back, ..*norm }
    }

    /// All that came of it.
    fn outcome(&mut self, norm: &Norm) -> Vec<f32> {
        let [d_gamma, d_beta] = norm.gradients.0;
        let parts = [(norm.line, 2), (norm.back, 3), (norm.running, 2), (d_gamma, 1), (d_beta, 1)];
        let moments = self.doubles(norm.moments, 2 * norm.channels).into_iter().map(|x| x as f32);
        let floats = parts.map(|(at, each)| self.read(Precision::F32, at, each * norm.channels)).concat();
        moments.chain(floats).collect()
    }

    /// What a convolution is to make of the sums that it leaves.
    pub(super) fn sums(&mut self, partial: Address, channels: usize) -> Sums {
        let norms = [self.norm(channels), self.norm(channels)];
        Sums { partial: (partial, 0), counters: self.room(4 * COUNTERS), norms }
    }

    /// What a convolution's last block will have made of them: to be called before it is launched.
    pub(super) fn twins(&mut self, sums: &Sums) -> [Norm; 2] {
        sums.norms.each_ref().map(|norm| self.with_room(norm))
    }

    /// Did its last block make of the sums over `count` values what launches of their own would?
    pub(super) fn check_norms(
        &mut self,
        who: &str,
        sums: &Sums,
        twins: [Norm; 2],
        forward: bool,
        [tiles, count]: [usize; 2],
    ) {
        if forward {
            self.normalise(&twins[0], sums.partial.0, [tiles, count]);
        } else {
            for (i, twin) in twins.iter().enumerate() {
                self.run(|to| twin.back(to, sums.partial, [tiles, count, i + 1]));
            }
        }
        for (norm, twin) in sums.norms.iter().zip(&twins) {
            let [got, expected] = [norm, twin].map(|norm| self.outcome(norm));
            for (got, expected) in got.iter().zip(&expected) {
                near(who, f64::from(*got), f64::from(*expected), 1e-6 * (1.0 + f64::from(expected.abs())));
            }
        }
    }

    fn normalise(&mut self, norm: &Norm, partial: Address, [tiles, count]: [usize; 2]) {
        let source = Source {
            name: "norms.cu",
            text: [COMMON, NORMS, NORMALISE].concat(),
            defines: Vec::new(),
            kernels: vec!["normalise_alone"],
        };
        let size =
            Size { blocks: [norm.channels / 16, 1], threads: 128, shared: statistics::shared(128, 16) };
        let args = norm.args(Args::default().at(&[partial]).int(&[tiles, norm.channels, count])).done();
        self.run(|to| to.add(source, "normalise_alone", size, args));
    }
}

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
    bench.normalise(&norm, forward, [tiles, COUNT]);
    bench.run(|to| norm.back(to, (backward, 0), [tiles, COUNT, 2]));
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
