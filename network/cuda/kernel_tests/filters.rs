//! Gradients of filters from every source: of all weights, and of a few of each filter.

use super::{
    Bench, PRECISIONS, as_multiplied, emulated,
    maps::{Map, source},
    near, sources_of, unlike_any,
};
use crate::{
    arch::{Conv, Param, Role},
    cpu::layout::Unit,
    cuda::{
        device::{Address, Device},
        filters::{Places, launch, splits},
        maps::{Kind, Read},
        parameters::Filters,
    },
    mode::Share,
    trainer::Precision,
};

/// Filter, stride, what was read, what the gradient is made of, rows and columns of what was written, channels read and
/// written, images and room for them.
type Case = (usize, usize, Kind, Kind, usize, [usize; 2], [usize; 2]);

/// Awkward sizes.
const CASES: [Case; 7] = [
    (3, 1, Kind::Image, Kind::Gradient, 32, [3, 16], [1, 3]),
    (3, 1, Kind::Rectified, Kind::Gradient, 32, [16, 16], [2, 2]),
    (3, 1, Kind::Rectified, Kind::Gradient, 8, [48, 16], [3, 5]),
    (3, 1, Kind::Rectified, Kind::Gradient, 8, [64, 96], [5, 5]),
    (3, 2, Kind::Rectified, Kind::Gradient, 16, [16, 32], [2, 2]),
    // More tiles than blocks.
    (1, 2, Kind::Rectified, Kind::Gradient, 4, [32, 512], [145, 146]),
    (3, 1, Kind::Pooled, Kind::Unpooled, 4, [32, 16], [7, 11]),
];

/// The other tiles, and sources, of networks.
const TILES: [Case; 7] = [
    (3, 1, Kind::Image, Kind::Gradient, 32, [3, 32], [1, 2]),
    (3, 1, Kind::Rectified, Kind::Unpooled, 16, [32, 32], [1, 1]),
    (3, 1, Kind::Pooled, Kind::Gradient, 8, [64, 64], [1, 2]),
    (3, 2, Kind::Rectified, Kind::Gradient, 16, [16, 16], [1, 1]),
    (3, 2, Kind::Rectified, Kind::Gradient, 4, [32, 64], [3, 5]),
    (1, 2, Kind::Rectified, Kind::Gradient, 16, [16, 16], [1, 3]),
    (1, 2, Kind::Rectified, Kind::Gradient, 8, [16, 32], [3, 3]),
];

/// Those that only a few weights of each filter have.
const TILES_OF_FEW: [Case; 4] = [
    (3, 1, Kind::Image, Kind::Gradient, 32, [3, 64], [1, 1]),
    (3, 2, Kind::Rectified, Kind::Gradient, 16, [32, 32], [1, 2]),
    (1, 2, Kind::Rectified, Kind::Gradient, 16, [32, 32], [1, 1]),
    (1, 2, Kind::Rectified, Kind::Gradient, 4, [64, 64], [3, 3]),
];

/// Every case with how it is run: precision, on tensor cores, and how many weights of each filter train, if not all.
fn runs() -> Vec<(Case, Precision, bool, Option<usize>)> {
    let sets: [(&[Case], &[Option<usize>]); 3] =
        [(&CASES, &[None, Some(2), Some(33)]), (&TILES, &[None, Some(2)]), (&TILES_OF_FEW, &[Some(2)])];
    let mut runs = Vec::new();
    for (case, some) in sets.into_iter().flat_map(|(cases, some)| cases.iter().map(move |case| (*case, some)))
    {
        for precision in PRECISIONS {
            // Those of a few weights need no tensor cores.
            let cores = |k: &Option<usize>| precision != Precision::F32 || k.is_none();
            runs.extend(some.iter().map(|k| (case, precision, cores(k), *k)));
        }
        if some.contains(&None) {
            runs.push((case, Precision::F32, false, None));
        }
    }
    runs
}

pub(super) fn check<D: Device>(bench: &mut Bench<D>) {
    let has_tensor_cores = bench.device.has_tensor_cores();
    for (case, precision, cores, k) in runs().into_iter().filter(|(.., cores, _)| has_tensor_cores || !cores)
    {
        check_one(bench, (precision, cores), (case, false), k);
    }
    if !has_tensor_cores {
        return;
    }
    // A shortcut's sum is read, where it is not kept.
    let sum = (3, 1, Kind::Rectified, Kind::Gradient, 16, [32, 32], [1, 1]);
    check_one(bench, (Precision::Bf16, true), (sum, true), None);
    check_one(bench, (Precision::F32, false), (sum, true), Some(2));
}

/// `cores`: on tensor cores; `full`: what is read is a sum.
fn check_one<D: Device>(
    bench: &mut Bench<D>,
    (precision, cores): (Precision, bool),
    (case, full): (Case, bool),
    k: Option<usize>,
) {
    let (filter, stride, kind, back, size, channels, [count, batch]) = case;
    let who = format!("{case:?} {precision:?} {cores} {full} {k:?}");
    let read = [count, size * stride, size * stride, channels[0]];
    let (x, x_map) = source(bench, precision, (kind, full), read, batch);
    let (g, g_map) = source(bench, precision, (back, false), [count, size, size, channels[1]], batch);
    let (unit, own) = unit([filter, stride, size], channels, k);
    let fan_in = channels[0] * filter * filter;
    // Strided through each filter, so that every tap and border comes.
    let positions: Vec<u32> = match k {
        None => (0..(channels[1] * fan_in) as u32).collect(),
        Some(k) => (0..channels[1] * k).map(|i| (i / k * fan_in + (i * 7 + i / k) % fan_in) as u32).collect(),
    };
    let at = bench.give(&positions.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>());
    let parts = splits(&unit, &own, batch);
    let places = Places {
        at,
        partial: (bench.room(4 * parts * positions.len()), 0),
        gradient: (bench.room(4 * positions.len()), 0),
    };
    bench.run(|to| launch(to, precision, cores, (&unit, &own), [count, batch], [x, g], places));
    let tensor = cores && k.is_none() && kind != Kind::Image;
    let number = |x: &f32| if tensor { as_multiplied(precision, *x) } else { *x };
    let [x_map, g_map] = [x_map, g_map].map(|map| Map { data: map.data.iter().map(number).collect(), ..map });
    let got = bench.read(Precision::F32, places.gradient.0, positions.len());
    for (got, position) in got.iter().zip(&positions) {
        let (value, magnitude) = plain(&x_map, &g_map, [filter, stride], *position as usize);
        near(&format!("{who}: weight {position}"), (*got).into(), value, 2e-6 * magnitude);
    }
}

/// A unit of a network, and its filters of which `k` weights each train, or all.
pub(in crate::cuda) fn unit(
    [kernel, stride, size]: [usize; 3],
    [cin, cout]: [usize; 2],
    k: Option<usize>,
) -> (Unit, Filters) {
    let conv = Conv { name: String::new(), cin, cout, kernel, stride, bias: false, shortcut: false };
    let (norm, reads, shape) = (String::new(), Some(0), 0);
    let unit = Unit { conv, norm, reads, input: [size * stride; 2], output: [size; 2], shape };
    let (name, role) = (String::new(), Role::Conv);
    let param = Param { name, shape: vec![cout, cin, kernel, kernel], role, shortcut: false };
    (unit, Filters::alone(param, k.map_or(Share::Full, |k| Share::PerFilter { k })))
}

/// The gradient of weight `position` of `K C R S`, and the sum of the products' magnitudes.
fn plain(x: &Map, g: &Map, [filter, stride]: [usize; 2], position: usize) -> (f64, f64) {
    let ([images, rows, columns, channels], taps) = (x.shape, filter * filter);
    let (tap, c, k) = (position % taps, position / taps % channels, position / taps / channels);
    let mut sums = (0.0, 0.0);
    for (n, y, z) in (0..images).flat_map(|n| {
        let size = g.shape[1];
        (0..size).flat_map(move |y| (0..size).map(move |z| (n, y, z)))
    }) {
        let place = |at: usize, tap: usize| (at * stride + tap).checked_sub(filter / 2);
        let (Some(row), Some(column)) = (place(y, tap / filter), place(z, tap % filter)) else { continue };
        if row < rows && column < columns {
            let product = f64::from(x.at([n, row, column, c])) * f64::from(g.at([n, y, z, k]));
            sums = (sums.0 + product, sums.1 + product.abs());
        }
    }
    sums
}

#[test]
fn filter_gradients_are_those_of_plain_loops() {
    let Some(mut bench) = emulated() else { return };
    check(&mut bench);
}

#[test]
fn every_filter_gradient_of_a_real_training_is_like_one_that_is_checked() {
    let mut checked = Vec::new();
    for ((filter, stride, kind, back, size, channels, [count, batch]), precision, cores, k) in runs() {
        let (unit, own) = unit([filter, stride, size], channels, k);
        let maps = [kind, back].map(|kind| Read::new(kind, [Address::NONE; 4]));
        let (at, partial, gradient) = (Address::NONE, (Address::NONE, 0), (Address::NONE, 0));
        let places = Places { at, partial, gradient };
        checked.extend(sources_of(|to| {
            launch(to, precision, cores, (&unit, &own), [count, batch], maps, places)
        }));
    }
    let groups: &[&[&str]] = &[
        &["PRECISION", "FILTER", "STRIDE", "KIND", "BACK"],
        &["PRECISION", "FILTER", "PIXELS", "CB", "KB", "WARPS", "HELD"],
    ];
    let unlike = unlike_any(&checked, &["tensor_filters.cu", "filters.cu", "positions.cu"], groups);
    assert!(unlike.is_empty(), "{unlike:#?}");
}
