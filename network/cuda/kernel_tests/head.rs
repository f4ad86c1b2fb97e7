//! The network's end against softmax cross-entropy in f64.

use super::{
    Bench, emulated,
    maps::{Map, check_signs, noise, source},
    near,
};
use crate::{
    cuda::{
        device::{Address, Device},
        head::{Ends, Head},
        maps::{Kind, Target, Write},
        memory::COUNTERS,
        statistics::SUM,
    },
    trainer::Precision,
};

pub(super) fn check<D: Device>(bench: &mut Bench<D>) {
    for precision in bench.stores() {
        for (channels, size, classes, images) in [
            (16, 2, 2, [1, 1]),
            (48, 8, 131, [3, 5]),
            (512, 2, 10, [7, 11]),
            (16, 2, 10, [300, 301]),
            (2048, 8, 10, [1, 2]),
        ] {
            check_one(bench, precision, [channels, size, classes], images);
        }
    }
}

/// The definition, for each image: pooled channels, logits, loss, gradients of logits and of a pixel's channels.
struct Plain {
    pooled: Vec<f64>,
    logits: Vec<f64>,
    loss: f64,
    d_logits: Vec<f64>,
    d_pixel: Vec<f64>,
}

impl Plain {
    fn new(map: &Map, n: usize, weights: &[f32], bias: &[f32], label: usize) -> Self {
        let [count, h, w, channels] = map.shape;
        let pixels = |c: usize| (0..h * w).map(move |p| f64::from(map.at([n, p / w, p % w, c])));
        let area = (h * w) as f64;
        let pooled: Vec<f64> = (0..channels).map(|c| pixels(c).sum::<f64>() / area).collect();
        let row = |k: usize| weights[k * channels..][..channels].iter().map(|w| f64::from(*w));
        let logit = |k: usize| row(k).zip(&pooled).map(|(w, x)| w * x).sum::<f64>() + f64::from(bias[k]);
        let logits: Vec<f64> = (0..bias.len()).map(logit).collect();
        let sum: f64 = logits.iter().map(|x| x.exp()).sum();
        let wanted = |k: usize| if k == label { 1.0 } else { 0.0 };
        let d_logits: Vec<f64> =
            (0..bias.len()).map(|k| (logits[k].exp() / sum - wanted(k)) / count as f64).collect();
        let d_pixel = |c: usize| {
            let of = |k: usize| f64::from(weights[k * channels + c]) * d_logits[k];
            (0..bias.len()).map(of).sum::<f64>() / area
        };
        let d_pixel = (0..channels).map(d_pixel).collect();
        Self { loss: sum.ln() - logits[label], pooled, logits, d_logits, d_pixel }
    }
}

fn check_one<D: Device>(
    bench: &mut Bench<D>,
    precision: Precision,
    [channels, size, classes]: [usize; 3],
    [count, batch]: [usize; 2],
) {
    let who = format!("{precision:?} {channels} {classes}");
    let shape = [count, size, size, channels];
    let (read, map) = source(bench, precision, (Kind::Rectified, true), shape, batch);
    let [weights, bias] = [channels * classes, classes]
        .map(|len| bench.normal(len).into_iter().map(|x| 0.2 * x).collect::<Vec<f32>>());
    let label = |n: usize| (n * 5 + 1) % classes;
    let labels: Vec<u8> = (0..count).flat_map(|n| (label(n) as u16).to_le_bytes()).collect();
    let examples: Vec<u8> = (0..count).flat_map(|n| (n as u64).to_le_bytes()).collect();
    let head = Head {
        channels,
        size: [size; 2],
        classes,
        count,
        batch,
        precision,
        weights: bench.floats(&weights),
        bias: bench.floats(&bias),
        values: 0,
        counters: bench.room(4 * COUNTERS),
        gradients: ([bench.room(4 * weights.len()), bench.room(4 * classes)], 0),
    };
    let ends = Ends {
        examples: bench.give(&examples),
        labels: bench.give(&labels),
        pooled: bench.room(4 * batch * channels),
        logits: bench.room(8 * batch * classes),
        d_logits: bench.room(8 * batch * classes),
        losses: bench.room(8 * batch),
        correct: bench.room(4 * batch),
    };
    let tally = bench.give(&[0; 24]);
    // The way back, to where the map was above zero.
    let (z, z_at) = noise(bench, precision, shape, batch);
    let (_, out) = noise(bench, precision, shape, batch);
    let write = Write { z: [z_at, Address::NONE], pass: read.signs, ..Write::new(Target::Rectifier, out) };
    let sums = bench.give(&vec![0; SUM * 3 * channels]);
    bench.run(|to| head.launch(to, read, &ends, tally, Some((write, (sums, 0)))));
    bench.run(|to| head.output(to, &ends));

    let plain: Vec<Plain> = (0..count).map(|n| Plain::new(&map, n, &weights, &bias, label(n))).collect();
    let all = |of: fn(&Plain) -> &[f64]| plain.iter().flat_map(of).copied().collect::<Vec<f64>>();
    let is = |what: &str, got: &[f64], expected: &[f64]| {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            near(&format!("{who}: {what}"), *got, *expected, 1e-5 * (1.0 + expected.abs()));
        }
    };
    let floats = |bench: &mut Bench<D>, at: Address, len: usize| -> Vec<f64> {
        bench.read(Precision::F32, at, len).into_iter().map(f64::from).collect()
    };
    is("mean", &floats(bench, ends.pooled, count * channels), &all(|p| &p.pooled));
    is("logit", &bench.doubles(ends.logits, count * classes), &all(|p| &p.logits));
    is("gradient of a logit", &bench.doubles(ends.d_logits, count * classes), &all(|p| &p.d_logits));
    let best =
        |p: &Plain| (0..classes).fold(0, |best, k| if p.logits[k] > p.logits[best] { k } else { best });
    let correct = plain.iter().enumerate().filter(|(n, p)| best(p) == label(*n)).count();
    let bytes = bench.bytes(tally, 24);
    let word =
        |i: usize| bytes[8 * i..8 * i + 8].iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
    assert_eq!([word(0), word(2)], [count as u64, correct as u64], "{who}");
    is("loss", &[f64::from_bits(word(1))], &[plain.iter().map(|p| p.loss).sum()]);
    let d_weight = |i: usize| plain.iter().map(|p| p.d_logits[i / channels] * p.pooled[i % channels]).sum();
    let d_weights: Vec<f64> = (0..weights.len()).map(d_weight).collect();
    is("gradient of a weight", &floats(bench, head.gradients.0[0], weights.len()), &d_weights);
    let d_bias: Vec<f64> = (0..classes).map(|k| plain.iter().map(|p| p.d_logits[k]).sum()).collect();
    is("gradient of a bias", &floats(bench, head.gradients.0[1], classes), &d_bias);
    check_signs(bench, read, &map);

    let out = Map { shape, data: bench.read(precision, out, map.data.len()) };
    let totals = bench.totals(sums, 2 * channels);
    for c in 0..channels {
        let places = || (0..count * size * size).map(|p| [p / (size * size), p / size % size, p % size, c]);
        let gradient = |at: [usize; 4]| if map.at(at) > 0.0 { plain[at[0]].d_pixel[c] } else { 0.0 };
        let tolerance = if precision == Precision::Bf16 { 1.0 / 256.0 } else { 1e-5 };
        for at in places() {
            near(&who, out.at(at).into(), gradient(at), 1e-8 + tolerance * gradient(at).abs());
        }
        let value = |at| f64::from(out.at(at));
        let sums = [
            places().map(value).sum::<f64>(),
            places().map(|at| value(at) * f64::from(z.at(at))).sum::<f64>(),
        ];
        for (i, sum) in sums.into_iter().enumerate() {
            near(&format!("{who}: sum {i}"), totals[i * channels + c], sum, 1e-6);
        }
    }
}

#[test]
fn the_end_is_softmax_cross_entropy_of_means() {
    let Some(mut bench) = emulated() else { return };
    check(&mut bench);
}
