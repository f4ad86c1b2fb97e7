//! Filter gradients against plain loops at awkward sizes.

use super::*;
use crate::rng;

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
fn plain_loops(case: &Sizes, images: usize, x: &[f32], g: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let Sizes { channels, filters, kernel, stride, input, output: [h, w] } = *case;
    let at = |image: &[f32], wide: usize, high: usize, c: usize, y: usize, z: usize| {
        f64::from(image[((c / 16 * high + y) * wide + z) * 16 + c % 16])
    };
    let (x_len, g_len) = (bordered(channels, input), bordered(filters, [h, w]));
    let sums = (0..filters * channels * kernel * kernel).map(|i| {
        let (tap, c, k) =
            (i % (kernel * kernel), i / (kernel * kernel) % channels, i / (kernel * kernel) / channels);
        let (mut sum, mut size) = (0.0, 0.0);
        for n in 0..images {
            for (y, z) in (0..h).flat_map(|y| (0..w).map(move |z| (y, z))) {
                let near = 1 - kernel / 2;
                let (row, column) = (y * stride + tap / kernel + near, z * stride + tap % kernel + near);
                let product = at(&g[n * g_len..], w + 2, h + 2, k, y + 1, z + 1)
                    * at(&x[n * x_len..], input[1] + 2, input[0] + 2, c, row, column);
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
fn check(case: &Sizes, gradient: &FilterGradient, wanted: &[u32]) {
    let mut stream = rng::stream(9, "filter gradient");
    let images = 3;
    let mut draw = |c, size| (0..images).flat_map(|_| draw(&mut stream, c, size)).collect::<Vec<_>>();
    let (x, g) = (draw(case.channels, case.input), draw(case.filters, case.output));
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
        let bound = f64::from(f32::EPSILON) * (n + if let Way::Winograd = gradient.way { 20.0 } else { 0.0 });
        for (&got, &i) in out.iter().zip(wanted) {
            let (wanted, size) = (expected[i as usize], size[i as usize]);
            let near = (f64::from(got) - wanted).abs() <= bound * size.max(1.0);
            assert!(near, "{got} for {wanted} (of {size}): {case:?} {isa}");
        }
        bits.push(out.iter().map(|x| x.to_bits()).collect());
    }
    assert!(bits.iter().all(|b| b == &bits[0]), "{case:?}: bits differ");
}

#[test]
fn it_is_the_filter_gradient_at_awkward_sizes_with_equal_bits_on_all_instruction_sets() {
    for case in CASES.map(|(shape, stride, input)| Sizes::new(shape, stride, input)) {
        let all: Vec<u32> = (0..case.len() as u32).collect();
        check(&case, &FilterGradient::new(case), &all);
    }
}

#[test]
fn k_weights_of_each_filter_have_their_gradients() {
    for case in CASES.map(|(shape, stride, input)| Sizes::new(shape, stride, input)) {
        let fan_in = case.len() / case.filters;
        let mut stream = rng::stream(11, "positions");
        for k in [1, 2, 7, fan_in].map(|k| k.min(fan_in)) {
            let positions: Vec<u32> = (0..case.filters)
                .flat_map(|filter| {
                    let mut order: Vec<usize> = (0..fan_in).collect();
                    (0..k).for_each(|i| order.swap(i, i + stream.below((fan_in - i) as u64) as usize));
                    order.into_iter().take(k).map(move |p| (filter * fan_in + p) as u32).collect::<Vec<_>>()
                })
                .collect();
            let gradient = FilterGradient::of_positions(case, &positions);
            assert_eq!(k <= case.channels, matches!(gradient.way, Way::Positions(_)));
            check(&case, &gradient, &positions);
        }
    }
}

#[test]
fn splitting_a_group_into_calls_changes_no_bit() {
    let first: Vec<u32> = (0..32).map(|k| k * 32 * 9).collect();
    let sizes = |shape, stride| Sizes::new(shape, stride, [8, 8]);
    let [wide, half] = [sizes([32, 32, 3, 3], 1), sizes([32, 16, 3, 3], 2)];
    for (case, gradient) in [
        (wide, FilterGradient::new(wide)),
        (half, FilterGradient::new(half)),
        (wide, FilterGradient::of_positions(wide, &first)),
    ] {
        let mut stream = rng::stream(10, "filter gradient");
        let images = 21;
        let x: Vec<f32> = (0..images).flat_map(|_| draw(&mut stream, case.channels, case.input)).collect();
        let g: Vec<f32> = (0..images).flat_map(|_| draw(&mut stream, case.filters, case.output)).collect();
        let run = |share: usize| {
            let mut sum = vec![0.0; gradient.sum_len()];
            let mut scratch = vec![0.0; gradient.scratch_len()];
            for first in (0..images).step_by(share) {
                let (x, g) = (&x[first * x.len() / images..], &g[first * g.len() / images..]);
                gradient.add(Isa::all()[0], share.min(images - first), x, g, &mut sum, &mut scratch);
            }
            let wanted = if let Way::Positions(_) = gradient.way { 32 } else { case.len() };
            let mut out = vec![0.0; wanted];
            gradient.finish(Isa::all()[0], &mut sum, &mut out);
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let whole = run(images);
        assert!(run(1) == whole && run(4) == whole && run(16) == whole, "{case:?}");
    }
}
