//! Filter gradients against plain loops at awkward sizes.

use super::*;
use crate::rng;

struct Case {
    shape: [usize; 4],
    stride: usize,
    input: [usize; 2],
    output: [usize; 2],
}

/// Draws a bordered image: zeros on the border and in channels that do not exist.
fn draw(stream: &mut rng::Stream, channels: usize, [h, w]: [usize; 2]) -> Vec<f32> {
    (0..bordered(channels, [h, w]))
        .map(|i| {
            let (lane, x, y, block) =
                (i % 16, i / 16 % (w + 2), i / 16 / (w + 2) % (h + 2), i / 16 / (w + 2) / (h + 2));
            let inside = (1..=h).contains(&y) && (1..=w).contains(&x) && block * 16 + lane < channels;
            if inside { stream.normal() as f32 } else { 0.0 }
        })
        .collect()
}

/// The gradient in f64 and the sum of magnitudes.
fn plain_loops(case: &Case, images: usize, x: &[f32], g: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let ([filters, channels, kernel, _], [h, w]) = (case.shape, case.output);
    let at = |image: &[f32], wide: usize, high: usize, c: usize, y: usize, z: usize| {
        f64::from(image[((c / 16 * high + y) * wide + z) * 16 + c % 16])
    };
    let (x_len, g_len) = (bordered(channels, case.input), bordered(filters, case.output));
    let sums = (0..filters * channels * kernel * kernel).map(|i| {
        let (tap, c, k) =
            (i % (kernel * kernel), i / (kernel * kernel) % channels, i / (kernel * kernel) / channels);
        let (mut sum, mut size) = (0.0, 0.0);
        for n in 0..images {
            for (y, z) in (0..h).flat_map(|y| (0..w).map(move |z| (y, z))) {
                let near = 1 - kernel / 2;
                let (row, column) =
                    (y * case.stride + tap / kernel + near, z * case.stride + tap % kernel + near);
                let product = at(&g[n * g_len..], w + 2, h + 2, k, y + 1, z + 1)
                    * at(&x[n * x_len..], case.input[1] + 2, case.input[0] + 2, c, row, column);
                sum += product;
                size += product.abs();
            }
        }
        (sum, size)
    });
    sums.unzip()
}

const CASES: [([usize; 4], usize, [usize; 2]); 17] = [
    ([16, 16, 3, 3], 1, [1, 1]),
    ([16, 32, 3, 3], 1, [3, 5]),
    ([48, 16, 3, 3], 1, [9, 7]),
    ([32, 32, 3, 3], 1, [17, 16]),
    ([64, 64, 3, 3], 1, [4, 4]),
    ([160, 144, 3, 3], 1, [5, 4]),
    ([32, 16, 3, 3], 2, [7, 9]),
    ([32, 16, 3, 3], 2, [8, 8]),
    ([16, 16, 3, 3], 2, [1, 2]),
    ([16, 16, 3, 3], 2, [30, 29]),
    ([16, 16, 3, 3], 2, [31, 33]),
    ([32, 16, 1, 1], 2, [7, 8]),
    ([32, 16, 1, 1], 2, [32, 30]),
    ([16, 32, 1, 1], 1, [5, 13]),
    ([16, 3, 3, 3], 1, [9, 17]),
    ([32, 1, 3, 3], 2, [5, 6]),
    ([16, 15, 1, 1], 1, [2, 3]),
];

/// Three images, the last one in a group of its own, on every instruction set.
fn check(case: &Case, gradient: &FilterGradient, wanted: &[u32]) {
    let mut stream = rng::stream(9, "filter gradient");
    let images = 3;
    let mut draw = |c, size| (0..images).flat_map(|_| draw(&mut stream, c, size)).collect::<Vec<_>>();
    let (x, g) = (draw(case.shape[1], case.input), draw(case.shape[0], case.output));
    let (expected, size) = plain_loops(case, images, &x, &g);
    let mut bits: Vec<Vec<u32>> = Vec::new();
    for isa in Isa::all() {
        let mut sums = vec![0.0; 2 * gradient.sum_len()];
        let (first, second) = sums.split_at_mut(gradient.sum_len());
        let mut scratch = vec![f32::NAN; gradient.scratch_len()];
        let (x_len, g_len) = (x.len() / images, g.len() / images);
        gradient.add(isa, 2, &x, &g, first, &mut scratch);
        gradient.add(isa, 1, &x[2 * x_len..], &g[2 * g_len..], second, &mut scratch);
        let mut out = vec![f32::NAN; wanted.len()];
        gradient.finish(isa, &mut sums, &mut out);
        // A chain of n additions errs by at most n roundings of the sum of magnitudes; Winograd by
        // what its transforms enlarge.
        let n = (images * case.output[0] * case.output[1]) as f64;
        let bound =
            f64::from(f32::EPSILON) * (n + if let Way::Winograd(_) = gradient.way { 20.0 } else { 0.0 });
        for (&got, &i) in out.iter().zip(wanted) {
            let (wanted, size) = (expected[i as usize], size[i as usize]);
            let near = (f64::from(got) - wanted).abs() <= bound * size.max(1.0);
            assert!(
                near,
                "{got} for {wanted} (of {size}): {:?} {} {:?} {isa}",
                case.shape, case.stride, case.input
            );
        }
        bits.push(out.iter().map(|x| x.to_bits()).collect());
    }
    assert!(bits.iter().all(|b| b == &bits[0]), "{:?} {:?}: bits differ", case.shape, case.input);
}

fn case((shape, stride, input): ([usize; 4], usize, [usize; 2])) -> Case {
    Case { shape, stride, input, output: input.map(|n: usize| n.div_ceil(stride)) }
}

#[test]
fn it_is_the_filter_gradient_at_awkward_sizes_with_equal_bits_on_all_instruction_sets() {
    for case in CASES.map(case) {
        let all: Vec<u32> = (0..case.shape.iter().product::<usize>() as u32).collect();
        check(&case, &FilterGradient::new(case.shape, case.stride, case.input), &all);
    }
}

#[test]
fn k_weights_of_each_filter_have_their_gradients() {
    for case in CASES.map(case) {
        let fan_in = case.shape[1..].iter().product::<usize>();
        let mut stream = rng::stream(11, "positions");
        for k in [1, 2, 7, fan_in].map(|k| k.min(fan_in)) {
            let positions: Vec<u32> = (0..case.shape[0])
                .flat_map(|filter| {
                    let mut order: Vec<usize> = (0..fan_in).collect();
                    (0..k).for_each(|i| order.swap(i, i + stream.below((fan_in - i) as u64) as usize));
                    order.into_iter().take(k).map(move |p| (filter * fan_in + p) as u32).collect::<Vec<_>>()
                })
                .collect();
            let gradient = FilterGradient::of_positions(case.shape, case.stride, case.input, &positions);
            assert_eq!(k <= case.shape[1], matches!(gradient.way, Way::Positions(_)));
            check(&case, &gradient, &positions);
        }
    }
}

#[test]
fn splitting_a_group_into_calls_changes_no_bit() {
    let size = [8, 8];
    let first: Vec<u32> = (0..32).map(|k| k * 32 * 9).collect();
    for (shape, stride, gradient) in [
        ([32, 32, 3, 3], 1, FilterGradient::new([32, 32, 3, 3], 1, size)),
        ([32, 16, 3, 3], 2, FilterGradient::new([32, 16, 3, 3], 2, size)),
        ([32, 32, 3, 3], 1, FilterGradient::of_positions([32, 32, 3, 3], 1, size, &first)),
    ] {
        let mut stream = rng::stream(10, "filter gradient");
        let images = 21;
        let output = size.map(|n: usize| n.div_ceil(stride));
        let x: Vec<f32> = (0..images).flat_map(|_| draw(&mut stream, shape[1], size)).collect();
        let g: Vec<f32> = (0..images).flat_map(|_| draw(&mut stream, shape[0], output)).collect();
        let run = |share: usize| {
            let mut sum = vec![0.0; gradient.sum_len()];
            let mut scratch = vec![0.0; gradient.scratch_len()];
            for first in (0..images).step_by(share) {
                let (x, g) = (&x[first * x.len() / images..], &g[first * g.len() / images..]);
                gradient.add(Isa::all()[0], share.min(images - first), x, g, &mut sum, &mut scratch);
            }
            let wanted = if let Way::Positions(_) = gradient.way { 32 } else { shape.iter().product() };
            let mut out = vec![0.0; wanted];
            gradient.finish(Isa::all()[0], &mut sum, &mut out);
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let whole = run(images);
        assert!(run(1) == whole && run(4) == whole && run(16) == whole, "{shape:?}");
    }
}
