//! Winograd's convolutions against plain loops at awkward sizes.

use super::*;
use crate::{
    cpu::{buffers::Images, tiles},
    rng,
};

struct Case {
    images: usize,
    channels: usize,
    filters: usize,
    rows: usize,
    columns: usize,
}

/// `[image][channel][row][column]` to the blocked layout.
fn blocked(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (i, &value) in values.iter().enumerate() {
        let (pixel, plane) = (i % (rows * columns), i / columns / rows);
        let (block, lane) = (plane / LANES, plane % LANES); // images are whole blocks
        out[(block * rows * columns + pixel) * LANES + lane] = value;
    }
    out
}

/// What a convolution makes of `images` images in the blocked layout, whatever lay in its memory before.
fn convolved(isa: Isa, conv: &Winograd, images: usize, input: &[f32]) -> Vec<f32> {
    let area = conv.size.iter().product::<usize>();
    let (mut x, mut z) =
        (Images::new(images, conv.channels * area), Images::new(images, conv.filters * area));
    x.all().copy_from_slice(input);
    z.all().fill(f32::NAN);
    let mut scratch = vec![f32::NAN; tiles::scratch_len(conv)];
    tiles::alone(isa, conv, &x, &mut z, &mut scratch);
    z.all().to_vec()
}

fn naive(case: &Case, input: &[f32], weight: impl Fn(usize, usize, usize) -> f32) -> Vec<f64> {
    let Case { images, channels, filters, rows, columns } = *case;
    let mut out = Vec::new();
    for n in 0..images {
        for k in 0..filters {
            for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
                let mut sum = 0.0;
                for c in 0..channels {
                    for tap in 0..9 {
                        let (y, x) = ((y + tap / 3).wrapping_sub(1), (x + tap % 3).wrapping_sub(1));
                        if y < rows && x < columns {
                            let value = input[((n * channels + c) * rows + y) * columns + x];
                            sum += f64::from(value) * f64::from(weight(k, c, tap));
                        }
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

/// Within 3e-6 of the outputs' root mean square on average and 3e-5 at worst: about five times
/// the error of a direct f32 convolution.
fn check(case: &Case, conv: &mut Winograd, weights: &[f32], input: &[f32], expected: &[f64]) {
    let size = [case.rows, case.columns];
    let input = blocked(input, size);
    let as_f32: Vec<f32> = expected.iter().map(|&x| x as f32).collect();
    let wanted = blocked(&as_f32, size);
    let mut first: Option<Vec<f32>> = None;
    for isa in Isa::all() {
        conv.set(isa, weights);
        let output = convolved(isa, conv, case.images, &input);
        let mean = |squares: f64| (squares / wanted.len() as f64).sqrt();
        let scale = mean(wanted.iter().map(|&x| f64::from(x).powi(2)).sum());
        let errors: Vec<f64> = output.iter().zip(&wanted).map(|(a, b)| f64::from(a - b).abs()).collect();
        let typical = mean(errors.iter().map(|e| e * e).sum());
        assert!(typical < 3e-6 * scale, "{isa} {size:?}: {typical:e} of {scale:e}");
        assert!(errors.iter().all(|&e| e < 3e-5 * scale), "{isa} {size:?}");
        let first = first.get_or_insert_with(|| output.clone());
        assert!(first.iter().zip(&output).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa} differs");
    }
}

#[test]
fn it_is_the_convolution_and_its_data_gradient_at_awkward_sizes_with_equal_bits_on_all_instruction_sets() {
    for (images, channels, filters, rows, columns) in [
        (1, 16, 16, 1, 1),
        (3, 16, 32, 3, 5),
        (7, 32, 16, 8, 8),
        (2, 32, 48, 7, 9),
        (14, 64, 64, 4, 4),
        (1, 32, 32, 16, 16),
        (2, 16, 16, 32, 30),
        (1, 144, 16, 1, 1),
        (65, 16, 160, 3, 4),
        (2, 144, 160, 5, 2),
    ] {
        let case = Case { images, channels, filters, rows, columns };
        let mut stream = rng::stream(7, "winograd");
        let mut draw = |n: usize| (0..n).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
        let input = draw(images * channels * rows * columns);
        let weights = draw(filters * channels * 9);
        let expected = naive(&case, &input, |k, c, tap| weights[(k * channels + c) * 9 + tap]);
        let mut conv = Winograd::forward(filters, channels, [rows, columns]);
        check(&case, &mut conv, &weights, &input, &expected);
        // The gradient with respect to an input is the sum over all outputs it reached.
        let gradient = draw(images * filters * rows * columns);
        let swapped = Case { channels: filters, filters: channels, ..case };
        let expected = scattered(&case, &gradient, &weights);
        let mut conv = Winograd::backward(filters, channels, [rows, columns]);
        check(&swapped, &mut conv, &weights, &gradient, &expected);
    }
}

fn scattered(case: &Case, gradient: &[f32], weights: &[f32]) -> Vec<f64> {
    let Case { images, channels, filters, rows, columns } = *case;
    let mut out = vec![0.0; images * channels * rows * columns];
    for (i, &g) in gradient.iter().enumerate() {
        let (x, y, k, n) =
            (i % columns, i / columns % rows, i / columns / rows % filters, i / columns / rows / filters);
        for (c, tap) in (0..channels).flat_map(|c| (0..9).map(move |tap| (c, tap))) {
            let (y, x) = ((y + tap / 3).wrapping_sub(1), (x + tap % 3).wrapping_sub(1));
            if y < rows && x < columns {
                out[((n * channels + c) * rows + y) * columns + x] +=
                    f64::from(g) * f64::from(weights[(k * channels + c) * 9 + tap]);
            }
        }
    }
    out
}

#[test]
fn splitting_a_batch_changes_no_bit() {
    for channels in [32, 144] {
        let mut stream = rng::stream(8, "winograd");
        let mut draw = |n: usize| (0..n).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
        let (images, size) = (19, [8, 8]);
        let mut conv = Winograd::forward(channels, channels, size);
        conv.set(Isa::all()[0], &draw(channels * channels * 9));
        let input = draw(images * channels * 64);
        let isa = Isa::all()[0];
        let whole = convolved(isa, &conv, images, &input);
        for together in [1, 4] {
            let parts = input.chunks(together * channels * 64);
            let parts = parts.flat_map(|input| convolved(isa, &conv, input.len() / channels / 64, input));
            let parts: Vec<_> = parts.collect();
            assert_eq!(whole.len(), parts.len());
            assert!(whole.iter().zip(&parts).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}

#[test]
fn filters_transformed_when_they_are_used_give_the_bits_of_those_transformed_once() {
    for (channels, filters) in [(144, 32), (32, 144), (160, 160)] {
        let mut stream = rng::stream(9, "winograd");
        let mut draw = |n: usize| (0..n).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
        let (images, size) = (3, [5, 4]);
        let (other, weights) = (draw(9 * channels * filters), draw(9 * channels * filters));
        let mut pair =
            [Winograd::forward(filters, channels, size), Winograd::backward(filters, channels, size)];
        let inputs = [draw(images * channels * 20), draw(images * filters * 20)];
        for isa in Isa::all() {
            let [forward, backward] = &mut pair;
            Winograd::set_both([forward, backward], isa, &other);
            Winograd::set_both([forward, backward], isa, &weights);
            assert_eq!(Winograd::filters_len([forward, backward]), weights.len(), "both hold the same");
            for (conv, input) in pair.iter().zip(&inputs) {
                let held = Held::Transformed(vec![f32::NAN; N * N * channels * filters]);
                let mut once = Winograd { held, ..*conv };
                once.set(isa, &weights);
                let [ours, expected] = [conv, &once].map(|conv| {
                    let output = convolved(isa, conv, images, input);
                    output.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                });
                assert!(ours == expected, "{channels}>{filters}, {isa}");
            }
        }
    }
}
