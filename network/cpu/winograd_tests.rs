//! Winograd's convolutions against plain loops at awkward sizes.

use super::*;
use crate::rng;

struct Case {
    images: usize,
    channels: usize,
    filters: usize,
    rows: usize,
    columns: usize,
}

/// `[image][channel][row][column]` to the blocked layout with a border of `pad` zeros.
fn blocked(
    values: &[f32],
    images: usize,
    channels: usize,
    [rows, columns]: [usize; 2],
    pad: usize,
) -> Vec<f32> {
    let (high, wide) = (rows + 2 * pad, columns + 2 * pad);
    let mut out = vec![0.0; images * channels * high * wide];
    for (i, &value) in values.iter().enumerate() {
        let (x, y, plane) = (i % columns, i / columns % rows, i / columns / rows);
        let (block, lane) = (plane / LANES, plane % LANES); // images are whole blocks
        out[((block * high + y + pad) * wide + x + pad) * LANES + lane] = value;
    }
    out
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
    let Case { images, channels, filters, rows, columns } = *case;
    let size = [rows, columns];
    let padded = blocked(input, images, channels, size, 1);
    let as_f32: Vec<f32> = expected.iter().map(|&x| x as f32).collect();
    let wanted = blocked(&as_f32, images, filters, size, 0);
    let mut first: Option<Vec<f32>> = None;
    for isa in Isa::all() {
        let mut output = vec![f32::NAN; wanted.len()];
        let mut scratch = vec![f32::NAN; conv.scratch_len()];
        conv.set(isa, weights);
        conv.run(isa, images, &padded, &mut output, false, &mut scratch);
        let mut twice = output.clone();
        conv.run(isa, images, &padded, &mut twice, true, &mut scratch);
        assert!(twice.iter().zip(&output).all(|(a, b)| a.to_bits() == (b + b).to_bits()), "accumulate");
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
        let input = draw(images * channels * 100);
        let isa = Isa::all()[0];
        let mut scratch = vec![0.0; conv.scratch_len()];
        let mut whole = vec![0.0; images * channels * 64];
        conv.run(isa, images, &input, &mut whole, false, &mut scratch);
        let mut parts = vec![0.0; whole.len()];
        for (input, output) in input.chunks(4 * channels * 100).zip(parts.chunks_mut(4 * channels * 64)) {
            conv.run(isa, output.len() / (channels * 64), input, output, false, &mut scratch);
        }
        assert!(whole.iter().zip(&parts).all(|(a, b)| a.to_bits() == b.to_bits()));
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
        let inputs = [draw(images * channels * 7 * 6), draw(images * filters * 7 * 6)];
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
                    let mut scratch = vec![f32::NAN; conv.scratch_len()];
                    let mut output = vec![f32::NAN; images * conv.filters * 20];
                    conv.run(isa, images, input, &mut output, false, &mut scratch);
                    output.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                });
                assert!(ours == expected, "{channels}>{filters}, {isa}");
            }
        }
    }
}
