//! From sums to lines, against the formulas of BatchNorm.

use super::{Bench, emulated, near};
use crate::{
    cuda::{
        device::{Address, Device, Source},
        launches::{Args, COMMON, NORMS, Size},
        statistics::{Norm, SUM},
    },
    trainer::Precision,
};

/// Each thread adds one of `values` to sum i % `sums`; `totals` are what they come to.
const KERNELS: &str = r#"
extern "C" __global__ void add(const float *values, Word *sums, int count, int each) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) add_exactly(sums + i % each * WORDS, values[i]);
}
extern "C" __global__ void tell(const Word *sums, double *totals) {
    totals[blockIdx.x] = total(sums + blockIdx.x * WORDS);
}
"#;

fn source() -> Source {
    let text = [COMMON, NORMS, KERNELS].concat();
    Source { name: "norms.cu", text, defines: Vec::new(), kernels: vec!["add", "tell"] }
}

impl<D: Device> Bench<D> {
    /// Sums of `values`, of which every `each`-th belongs to the same.
    fn add_all(&mut self, values: &[f32], each: usize) -> Address {
        let (at, sums) = (self.floats(values), self.give(&vec![0; SUM * each]));
        let size = Size { blocks: [values.len().div_ceil(96), 1], threads: 96, shared: 0 };
        let args = Args::default().at(&[at, sums]).int(&[values.len(), each]).done();
        self.run(|to| to.add(source(), "add", size, args));
        sums
    }

    /// What sums come to, as the kernels have it.
    pub(super) fn totals(&mut self, sums: Address, count: usize) -> Vec<f64> {
        let totals = self.room(8 * count);
        let size = Size { blocks: [count, 1], threads: 1, shared: 0 };
        self.run(|to| to.add(source(), "tell", size, Args::default().at(&[sums, totals]).done()));
        self.doubles(totals, count)
    }

    /// Sums that come to `totals`.
    fn sums_of(&mut self, totals: &[f64]) -> Address {
        let words = |total: &f64| {
            // Large ones leave out the lowest words, for they would not fit.
            let first = if total.abs() < 2f64.powi(22) { 0 } else { 2 };
            let fixed = (total * 2f64.powi(104 - 40 * first)) as i128;
            (0..8).flat_map(move |i| {
                let word = match i - first {
                    i @ 0..3 => fixed >> (40 * i) & ((1 << 40) - 1),
                    3 => fixed >> 120,
                    _ => 0,
                };
                (word as u64).to_le_bytes()
            })
        };
        self.give(&totals.iter().flat_map(words).collect::<Vec<u8>>())
    }

    /// A BatchNorm over `count` values that makes this line of scales and shifts.
    pub(super) fn norm_of_line(&mut self, line: &[f32], count: usize) -> Norm {
        let channels = line.len() / 2;
        let ones = vec![(1.0 - 1e-5) * count as f64; channels];
        Norm {
            channels,
            gamma: self.floats(&line[..channels]),
            beta: self.floats(&line[channels..]),
            sums: ([self.sums_of(&vec![0.0; channels]), self.sums_of(&ones)], 0),
            moments: self.room(16 * channels),
            line: self.nothing(2 * channels),
            ..Norm::default()
        }
    }

    /// One that makes these a, b and c of a gradient.
    pub(super) fn norm_of_back(&mut self, back: &[f32], count: usize) -> Norm {
        let channels = back.len() / 3;
        let part = |i: usize| back[i * channels..][..channels].iter().map(|x| f64::from(*x));
        let of =
            |i: usize| -> Vec<f64> { part(i).zip(part(0)).map(|(x, a)| -x * count as f64 / a).collect() };
        let moments = [vec![0.0; channels], vec![1.0; channels]].concat();
        let moments: Vec<u8> = moments.into_iter().flat_map(f64::to_le_bytes).collect();
        Norm {
            channels,
            gamma: self.floats(&back[..channels]),
            sums: ([self.sums_of(&of(2)), self.sums_of(&of(1))], 0),
            moments: self.give(&moments),
            back: self.nothing(3 * channels),
            ..Norm::default()
        }
    }

    /// Room for floats that are no numbers.
    fn nothing(&mut self, count: usize) -> Address {
        self.give(&vec![0xff; 4 * count])
    }
}

fn check_sums<D: Device>(bench: &mut Bench<D>) {
    let cases: [(&[f32], f64); 7] = [
        (&[1.0, -1e-30, 1e-30], 1.0),
        (&[f32::MAX, -f32::MAX, 3.5], 3.5),
        (&[1e30, 1.0, -1e30, -0.25], 0.75),
        (&[f32::MIN_POSITIVE, 0.0, -0.0], 0.0), // less than is counted
        (&[-1.0 / 3.0; 1000], -1000.0 * f64::from(1f32 / 3.0)),
        (&[1.0, f32::NAN], f64::NAN),
        (&[f32::INFINITY, f32::NEG_INFINITY], f64::NAN),
    ];
    for (values, expected) in cases {
        let sums = bench.add_all(values, 1);
        let got = bench.totals(sums, 1)[0];
        if expected.is_finite() {
            near(&format!("{:?}", &values[..2]), got, expected, 1e-30 + 1e-15 * expected.abs());
        } else {
            assert!(got.is_nan(), "{values:?}: {got}");
        }
    }
}

/// Values of each channel.
const COUNT: usize = 35;

pub(super) fn check<D: Device>(bench: &mut Bench<D>) {
    check_sums(bench);
    for channels in [16, 48, 512] {
        check_one(bench, channels);
    }
}

/// A convolution's output, and its gradient.
fn check_one<D: Device>(bench: &mut Bench<D>, channels: usize) {
    let values: Vec<Vec<f32>> = (0..channels).map(|_| bench.normal(COUNT)).collect();
    let gradients: Vec<Vec<f32>> = (0..channels).map(|_| bench.normal(COUNT)).collect();
    let sums =
        [|z: f32, _: f32| z, |z: f32, _: f32| z * z, |_: f32, g: f32| g, |z: f32, g: f32| g * z].map(|of| {
            let all = (0..COUNT * channels).map(|i| (i / channels, i % channels));
            let all: Vec<f32> = all.map(|(i, c)| of(values[c][i], gradients[c][i])).collect();
            bench.add_all(&all, channels)
        });
    let [gamma, beta, bias] = [(); 3].map(|()| bench.normal(channels));
    let before = [bench.normal(channels), vec![2.0; channels]].concat();
    let norm = Norm {
        channels,
        gamma: bench.floats(&gamma),
        beta: bench.floats(&beta),
        bias: bench.floats(&bias),
        values: channels,
        sums: ([sums[0], sums[1]], 0),
        gradients: ([bench.room(4 * channels), bench.room(4 * channels)], channels),
        moments: bench.room(8 * 2 * channels),
        line: bench.room(4 * 2 * channels),
        back: bench.room(4 * 3 * channels),
        running: bench.floats(&before),
    };
    bench.run(|to| norm.forward(to, COUNT));
    let on_the_way_back = Norm { sums: ([sums[2], sums[3]], 0), ..norm };
    bench.run(|to| on_the_way_back.backward(to, COUNT));
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
