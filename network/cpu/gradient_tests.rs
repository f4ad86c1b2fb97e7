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

#[test]
fn it_is_the_filter_gradient_at_awkward_sizes_with_equal_bits_on_all_instruction_sets() {
    for (shape, stride, input) in [
        ([16, 16, 3, 3], 1, [1, 1]),
        ([16, 32, 3, 3], 1, [3, 5]),
        ([48, 16, 3, 3], 1, [9, 7]),
        ([32, 32, 3, 3], 1, [17, 16]),
        ([64, 64, 3, 3], 1, [4, 4]),
        ([32, 16, 3, 3], 2, [7, 9]),
        ([32, 16, 3, 3], 2, [8, 8]),
        ([16, 16, 3, 3], 2, [1, 2]),
        ([16, 16, 3, 3], 2, [31, 33]),
        ([32, 16, 1, 1], 2, [7, 8]),
        ([16, 32, 1, 1], 1, [5, 13]),
        ([16, 3, 3, 3], 1, [9, 17]),
        ([32, 1, 3, 3], 2, [5, 6]),
        ([16, 15, 1, 1], 1, [2, 3]),
    ] {
        let gradient = FilterGradient::new(shape, stride, input);
        let output = input.map(|n: usize| n.div_ceil(stride));
        let case = Case { shape, stride, input, output };
        let mut stream = rng::stream(9, "filter gradient");
        let images = 3;
        let mut draw = |c, size| (0..images).flat_map(|_| draw(&mut stream, c, size)).collect::<Vec<_>>();
        let (x, g) = (draw(shape[1], input), draw(shape[0], output));
        let (expected, size) = plain_loops(&case, images, &x, &g);
        let mut bits: Vec<Vec<u32>> = Vec::new();
        for isa in Isa::all() {
            let mut sums = vec![0.0; 2 * gradient.sum_len()];
            let (first, second) = sums.split_at_mut(gradient.sum_len());
            let mut scratch = vec![f32::NAN; gradient.scratch_len()];
            let (x_len, g_len) = (x.len() / images, g.len() / images);
            gradient.add(isa, 2, &x, &g, first, &mut scratch);
            gradient.add(isa, 1, &x[2 * x_len..], &g[2 * g_len..], second, &mut scratch);
            let mut out = vec![f32::NAN; expected.len()];
            gradient.finish(isa, &mut sums, &mut out);
            // A chain of n additions errs by at most n roundings of the sum of magnitudes; Winograd
            // by what its transforms enlarge.
            let n = (images * output[0] * output[1]) as f64;
            let bound = f64::from(f32::EPSILON) * if gradient.winograd.is_some() { 20.0 + n } else { n };
            for ((&got, &wanted), &size) in out.iter().zip(&expected).zip(&size) {
                let near = (f64::from(got) - wanted).abs() <= bound * size.max(1.0);
                assert!(near, "{got} for {wanted} (of {size}): {shape:?} {stride} {input:?} {isa}");
            }
            bits.push(out.iter().map(|x| x.to_bits()).collect());
        }
        assert!(bits.iter().all(|b| b == &bits[0]), "{shape:?} {stride} {input:?}: bits differ");
    }
}

#[test]
fn splitting_a_group_into_calls_changes_no_bit() {
    for (shape, stride, size) in [([32, 32, 3, 3], 1, [8, 8]), ([32, 16, 3, 3], 2, [8, 8])] {
        let gradient = FilterGradient::new(shape, stride, size);
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
            let mut out = vec![0.0; shape.iter().product()];
            gradient.finish(Isa::all()[0], &mut sum, &mut out);
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let whole = run(images);
        assert!(run(1) == whole && run(4) == whole && run(16) == whole, "{shape:?}");
    }
}
