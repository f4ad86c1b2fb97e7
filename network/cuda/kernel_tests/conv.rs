//! Convolutions with every source and every sink, by threads and on tensor cores.

use super::{
    Bench, PRECISIONS, as_multiplied, as_stored, emulated,
    maps::{Map, check_kept, noise, on_line, places, source, winner},
    near, sources_of, unlike_any,
};
use crate::{
    cuda::{
        conv::Conv,
        device::{Address, Device},
        maps::{Kind, Read, Target, Write},
        parameters::place,
        statistics::{Norm, SUM, Sums},
        stored,
    },
    trainer::Precision,
};

/// Of what is computed: how, from what, to what.
struct Case {
    filter: usize,
    /// Forward, and backward.
    strides: [usize; 2],
    source: (Kind, bool),
    target: Target,
    /// Rows and columns of what is written.
    size: usize,
    /// Read and written.
    channels: [usize; 2],
    /// Images, and those that maps have room for.
    images: [usize; 2],
}

const fn case(
    filter: usize,
    strides: [usize; 2],
    source: (Kind, bool),
    target: Target,
    size: usize,
    channels: [usize; 2],
    images: [usize; 2],
) -> Case {
    Case { filter, strides, source, target, size, channels, images }
}

const CASES: [Case; 22] = {
    use {Kind::*, Target::*};
    [
        case(3, [1, 1], (Image, false), Keep, 32, [3, 48], [3, 3]),
        case(3, [1, 1], (Rectified, true), Keep, 8, [48, 32], [3, 5]),
        case(3, [2, 1], (Rectified, false), Keep, 16, [16, 32], [1, 2]),
        case(1, [2, 1], (Rectified, false), Keep, 4, [32, 64], [7, 11]),
        case(3, [1, 1], (Gradient, false), Rectifier, 4, [512, 16], [5, 5]),
        case(3, [1, 2], (Gradient, false), Rectifier, 16, [32, 16], [1, 3]),
        case(1, [1, 2], (Gradient, false), Plain, 8, [64, 32], [3, 3]),
        case(3, [1, 1], (Pooled, false), Keep, 2, [16, 512], [3, 3]),
        case(3, [1, 1], (Unpooled, false), Maximum, 4, [32, 32], [2, 5]),
        // Batches with the tiles of real trainings.
        case(3, [1, 1], (Rectified, true), Keep, 32, [16, 16], [1, 128]),
        case(3, [1, 1], (Gradient, false), Rectifier, 8, [64, 64], [5, 512]),
        case(3, [1, 2], (Gradient, false), Rectifier, 32, [32, 16], [1, 128]),
        case(3, [1, 1], (Rectified, false), Keep, 8, [64, 64], [3, 256]),
        case(3, [1, 1], (Image, false), Keep, 32, [3, 32], [1, 128]),
        case(3, [1, 1], (Rectified, true), Keep, 16, [16, 16], [1, 128]),
        case(3, [1, 1], (Rectified, false), Keep, 16, [32, 32], [1, 128]),
        case(3, [1, 1], (Gradient, false), Maximum, 8, [32, 64], [3, 128]),
        case(3, [1, 1], (Unpooled, false), Rectifier, 8, [32, 32], [3, 128]),
        // The two readers of a map before a stride: the second adds.
        case(3, [1, 2], (Gradient, false), Plain, 16, [32, 32], [1, 128]),
        case(1, [1, 2], (Gradient, false), Rectifier, 16, [32, 16], [1, 128]),
        case(1, [1, 2], (Gradient, false), Rectifier, 32, [16, 32], [1, 128]),
        case(1, [1, 2], (Gradient, false), Plain, 8, [64, 32], [3, 256]),
    ]
};

pub(super) fn check<D: Device>(bench: &mut Bench<D>) {
    let has_tensor_cores = bench.device.has_tensor_cores();
    for case in &CASES {
        for precision in PRECISIONS.into_iter().filter(|_| has_tensor_cores) {
            case.check(bench, precision, true);
        }
        case.check(bench, Precision::F32, false);
    }
}

impl Case {
    fn conv(&self, precision: Precision, tensor_cores: bool) -> Conv {
        Conv {
            filter: self.filter,
            stride: self.strides[0],
            dilate: self.strides[1],
            kind: self.source.0,
            channels: self.channels[0],
            outputs: self.channels[1],
            size: [self.size; 2],
            batch: self.images[1],
            precision,
            tensor_cores,
        }
    }

    fn check<D: Device>(&self, bench: &mut Bench<D>, precision: Precision, tensor_cores: bool) {
        let conv = self.conv(precision, tensor_cores);
        let ([count, batch], [channels, outputs]) = (self.images, self.channels);
        let (who, taps) = (format!("{conv:?} {:?} {count}", self.target), self.filter * self.filter);
        let size = self.size * self.strides[0] / self.strides[1];
        let (read, map) = source(bench, precision, self.source, [count, size, size, channels], batch);
        let weights = bench.normal(channels * taps * outputs); // `C R S K`
        let packed = pack(&conv, &weights, taps);
        let packed = bench.give(&stored::bytes(precision, &packed));
        let sink = Sink::new(bench, precision, self);
        let shape = [count, self.size, self.size, outputs];
        // No room for more than a real training has.
        let kinds = if self.target == Target::Keep { 2 } else { 3 };
        let written = bench.give(&vec![0; SUM * kinds * outputs]);
        let (bare, norms) = self.without_lines(bench, read);
        let sums = Sums { written: (written, 0), read: norms, values: VALUES };
        bench.run(|to| conv.launch(to, count, (bare, sink.write), (packed, 0), &sums));
        for (norm, at) in norms.iter().zip([read.parts[2], read.parts[3]]) {
            check_line(bench, &who, norm, at);
        }

        let len = shape.iter().product();
        let out = Map { shape, data: bench.read(precision, sink.write.out, len) };
        let number = |x: f32| if conv.tensor_cores { as_multiplied(precision, x) } else { x };
        let weights: Vec<f32> = weights.iter().map(|w| number(as_stored(precision, *w))).collect();
        let multiplied = Map { shape: map.shape, data: map.data.iter().map(|x| number(*x)).collect() };
        for at in places(shape) {
            let (mut value, mut size) = self.plain(&multiplied, &weights, at);
            if sink.write.add {
                (value, size) = (value + f64::from(sink.before.at(at)), size + 1.0);
            }
            let value = if sink.passes(at) { value } else { 0.0 };
            let rounding = if precision == Precision::Bf16 { value.abs() / 256.0 } else { 0.0 };
            near(&who, out.at(at).into(), value, 2e-6 * size + rounding);
        }
        let width = stored::width(precision);
        let rest = bench.bytes(sink.write.out.numbers(len, width), (batch - count) * len / count * width);
        assert!(rest.iter().all(|byte| *byte == 0xff), "{who}: wrote images that are not there");
        let totals = bench.totals(written, kinds * outputs);
        sink.check_sums(&who, &out, &totals);
        if self.source.1 {
            check_kept(bench, precision, read, &map);
        }
    }

    /// In every other case what is read lacks its lines, which the convolution is to make of sums.
    fn without_lines<D: Device>(&self, bench: &mut Bench<D>, read: Read) -> (Read, [Norm; 2]) {
        let ([z, side, line, other], channels) = (read.parts, self.channels[0]);
        let mut norms = [Norm::default(); 2];
        if self.images[0].is_multiple_of(2) || line == Address::NONE || self.source.0 == Kind::Image {
            return (read, norms);
        }
        let back = matches!(self.source.0, Kind::Gradient | Kind::Unpooled);
        if back {
            let values = bench.read(Precision::F32, line, 3 * channels);
            norms[0] = bench.norm_of_back(&values, VALUES);
            return (Read { parts: [z, side, norms[0].back, other], ..read }, norms);
        }
        let mut parts = read.parts;
        for (i, norm) in norms.iter_mut().enumerate().filter(|(i, _)| read.parts[2 + i] != Address::NONE) {
            let values = bench.read(Precision::F32, read.parts[2 + i], 2 * channels);
            *norm = bench.norm_of_line(&values, VALUES);
            parts[2 + i] = norm.line;
        }
        (Read { parts, ..read }, norms)
    }

    /// An output, and the sum of the products' magnitudes.
    fn plain(&self, map: &Map, weights: &[f32], [n, y, x, k]: [usize; 4]) -> (f64, f64) {
        let ([_, h, w, channels], [stride, dilate]) = (map.shape, self.strides);
        let mut sums = (0.0, 0.0);
        for (r, s) in (0..self.filter).flat_map(|r| (0..self.filter).map(move |s| (r, s))) {
            let place = |at: usize, tap: usize| (at * stride + tap).checked_sub(self.filter / 2);
            let (Some(y), Some(x)) = (place(y, r), place(x, s)) else { continue };
            if y % dilate > 0 || x % dilate > 0 || y / dilate >= h || x / dilate >= w {
                continue;
            }
            for c in 0..channels {
                let weight = weights[((c * self.filter + r) * self.filter + s) * self.channels[1] + k];
                let product = f64::from(map.at([n, y / dilate, x / dilate, c])) * f64::from(weight);
                sums = (sums.0 + product, sums.1 + product.abs());
            }
        }
        sums
    }
}

/// Values that BatchNorms of what is read are over.
const VALUES: usize = 1000;

/// Did the convolution keep the lines of `norm` that lie at `expected`?
fn check_line<D: Device>(bench: &mut Bench<D>, who: &str, norm: &Norm, expected: Address) {
    let (at, each) = if norm.back == Address::NONE { (norm.line, 2) } else { (norm.back, 3) };
    if at == Address::NONE {
        return;
    }
    let [got, expected] = [at, expected].map(|at| bench.read(Precision::F32, at, each * norm.channels));
    for (got, expected) in got.into_iter().zip(expected) {
        near(&format!("{who}: a line"), got.into(), expected.into(), 1e-6 * f64::from(expected.abs()));
    }
}

/// Filters as the kernel of `conv` wants them.
fn pack(conv: &Conv, weights: &[f32], taps: usize) -> Vec<f32> {
    let each = conv.tensor_cores.then_some(4 / stored::width(conv.precision));
    let channels = conv.channels.next_multiple_of(each.map_or(1, |each| 8 * each));
    let mut packed = vec![0.0; weights.len() / conv.channels * channels];
    for (i, weight) in weights.iter().enumerate() {
        let index = [i / conv.outputs / taps, i / conv.outputs % taps, i % conv.outputs];
        packed[place(each, index, [taps, conv.outputs])] = *weight;
    }
    packed
}

/// Where a convolution writes: buffers, and their copies.
struct Sink {
    write: Write,
    before: Map,
    z: Map,
    side: Option<Map>,
    line: Vec<f32>,
    pass: Option<Vec<u8>>,
}

impl Sink {
    /// Of a rectifier's gradient in large maps there are bits, something to add, and a projection.
    fn new<D: Device>(bench: &mut Bench<D>, precision: Precision, case: &Case) -> Self {
        let ([count, batch], size, channels) = (case.images, case.size, case.channels[1]);
        let shape = [count, size, size, channels];
        let (before, out) = noise(bench, precision, shape, batch);
        let z_size = if case.target == Target::Maximum { 2 * size } else { size };
        let (z, z_at) = noise(bench, precision, [count, z_size, z_size, channels], batch);
        let (line, line_at) = bench.line(channels);
        let mut write = Write { z: [z_at, Address::NONE], line: line_at, ..Write::new(case.target, out) };
        let (mut side, mut pass) = (None, None);
        if case.target == Target::Rectifier && size > 8 {
            let (map, at) = noise(bench, precision, shape, batch);
            let bits: Vec<u8> = (0..z.data.len() / 4).map(|_| bench.stream.below(16) as u8).collect();
            write.pass = bench.give_in(&bits, bits.len() / count * batch);
            (write.z[1], write.add, side, pass) = (at, true, Some(map), Some(bits));
        }
        Self { write, before, z, side, line, pass }
    }

    /// Does the gradient reach what was rectified?
    fn passes(&self, at: [usize; 4]) -> bool {
        let [n, y, x, c] = at;
        match (self.write.target, &self.pass) {
            (Target::Keep | Target::Plain, _) => true,
            (Target::Maximum, _) => winner(&self.z, &self.line, at).1 > 0.0,
            (Target::Rectifier, None) => on_line(&self.line, c, self.z.at(at)) > 0.0,
            (Target::Rectifier, Some(bits)) => {
                let [_, h, w, channels] = self.z.shape;
                bits[(((n * h + y) * w + x) * channels + c) / 4] >> (c % 4) & 1 == 1
            }
        }
    }

    /// Are the `[sum][channel]` those of what was written?
    fn check_sums(&self, who: &str, out: &Map, totals: &[f64]) {
        if self.write.target == Target::Plain {
            return;
        }
        let channels = out.shape[3];
        let (mut sums, mut sizes) = (vec![[0.0; 3]; channels], vec![[0.0; 3]; channels]);
        for at in places(out.shape) {
            let value = out.at(at);
            let z = match self.write.target {
                Target::Keep => value,
                Target::Maximum => {
                    let ([n, y, x, c], won) = (at, winner(&self.z, &self.line, at).0);
                    self.z.at([n, 2 * y + won / 2, 2 * x + won % 2, c])
                }
                _ => self.z.at(at),
            };
            let side = self.side.as_ref().map_or(0.0, |side| side.at(at));
            for (i, factor) in [1.0, z, side].into_iter().enumerate() {
                let product = f64::from(value) * f64::from(factor);
                sums[at[3]][i] += product;
                sizes[at[3]][i] += product.abs();
            }
        }
        for (c, i) in (0..channels).flat_map(|c| (0..3).map(move |i| (c, i))) {
            if self.write.target == Target::Keep && i == 2 {
                continue; // of z alone there are two
            }
            let got = totals[i * channels + c];
            near(&format!("{who}: sum {i} of channel {c}"), got, sums[c][i], 1e-5 * sizes[c][i]);
        }
    }
}

#[test]
fn convolutions_are_those_of_plain_loops_from_every_source_to_every_sink() {
    let Some(mut bench) = emulated() else { return };
    check(&mut bench);
}

/// Diverged numbers must be seen, whichever of the four they are, and in no other image.
#[test]
fn a_maximum_over_what_is_no_number_is_none() {
    let case = case(3, [1, 1], (Kind::Pooled, false), Target::Keep, 2, [16, 512], [3, 3]);
    let conv = case.conv(Precision::F32, false);
    let Some(mut bench) = emulated() else { return };
    let weights = bench.normal(16 * 9 * 512);
    let packed = bench.floats(&pack(&conv, &weights, 9));
    for pixel in [[0, 0], [0, 1], [1, 0], [1, 1]] {
        let (read, _) = source(&mut bench, Precision::F32, case.source, [3, 2, 2, 16], 3);
        let at = read.parts[0].floats((pixel[0] * 4 + pixel[1]) * 16);
        bench.device.upload(at, &f32::NAN.to_le_bytes()).unwrap();
        let sink = Sink::new(&mut bench, Precision::F32, &case);
        bench.run(|to| conv.launch(to, 3, (read, sink.write), (packed, 0), &Sums::default()));
        let out = bench.read(Precision::F32, sink.write.out, 3 * 4 * 512);
        let (own, others) = out.split_at(4 * 512);
        assert!(own.iter().all(|x| x.is_nan()) && others.iter().all(|x| x.is_finite()), "{pixel:?}");
    }
}

#[test]
fn every_convolution_of_a_real_training_is_like_one_that_is_checked() {
    let mut checked = Vec::new();
    for case in &CASES {
        let devices =
            PRECISIONS.map(|precision| (precision, true)).into_iter().chain([(Precision::F32, false)]);
        for (precision, tensor_cores) in devices {
            let conv = case.conv(precision, tensor_cores);
            let maps = (Read::new(conv.kind, [Address::NONE; 4]), Write::new(case.target, Address::NONE));
            checked.extend(sources_of(|to| conv.launch(to, 1, maps, (Address::NONE, 0), &Sums::default())));
        }
    }
    let groups: &[&[&str]] = &[
        &["PRECISION", "FILTER", "STRIDE", "DILATE", "KIND", "TARGET"],
        &["PRECISION", "DILATE", "PIXELS", "KB", "FRAGMENTS", "TX", "TK"],
    ];
    let unlike = unlike_any(&checked, &["tensor.cu", "conv.cu"], groups);
    assert!(unlike.is_empty(), "{unlike:#?}");
}
