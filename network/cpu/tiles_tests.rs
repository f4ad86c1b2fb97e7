//! Convolutions between stored images: bf16 is f32 with every stored number rounded.

use super::*;
use crate::{
    cpu::{buffers::Images, lanes::Portable, sinks::Gate, sources::Line, stored::Bf16},
    rng,
};

const SHAPES: [(usize, usize, [usize; 2]); 5] =
    [(16, 16, [32, 32]), (32, 16, [7, 9]), (16, 64, [8, 8]), (32, 32, [3, 4]), (144, 160, [5, 2])];
const IMAGES: usize = 3;

/// By the definition: to the nearest of the numbers whose lower half is zero, to the even one of two.
fn rounded(x: f32) -> f32 {
    let below = f32::from_bits(x.to_bits() & 0xffff_0000);
    let above = f32::from_bits((x.to_bits() & 0xffff_0000) + 0x1_0000);
    match (x - below).abs().total_cmp(&(above - x).abs()) {
        std::cmp::Ordering::Less => below,
        std::cmp::Ordering::Greater => above,
        std::cmp::Ordering::Equal => {
            if x.to_bits() & 0x1_0000 == 0 {
                below
            } else {
                above
            }
        }
    }
}

/// The same images in either way of keeping them.
fn images(values: &[f32]) -> (Images<f32>, Images<Bf16>) {
    let (mut wide, mut half) =
        (Images::new(IMAGES, values.len() / IMAGES), Images::new(IMAGES, values.len() / IMAGES));
    wide.all().copy_from_slice(values);
    for (to, from) in half.all().chunks_exact_mut(16).zip(values.chunks_exact(16)) {
        // SAFETY: both hold 16 numbers.
        unsafe { Bf16::store(Portable::load(from.as_ptr()), to.as_mut_ptr()) };
    }
    (wide, half)
}

fn bits(images: &mut Images<f32>) -> Vec<u32> {
    images.all().iter().map(|x| x.to_bits()).collect()
}

fn widened(images: &mut Images<Bf16>) -> Vec<u32> {
    images.all().iter().map(|x| f32::from(*x).to_bits()).collect()
}

fn convolve<S: Stored>(isa: Isa, conv: &Winograd, source: Source<'_, S>, sink: Sink<'_, S>) {
    let mut scratch = vec![f32::NAN; scratch_len(conv)];
    for n in 0..IMAGES {
        // SAFETY: nobody else holds the images.
        unsafe { run(isa, conv, source, sink, n..n + 1, n % 2 == 0, &mut scratch) }
    }
}

/// By the definition: the sums of each channel of `stored` and of its products with `others`, image by image.
fn assert_sums(sums: &mut Images<f32>, channels: usize, stored: &[u32], others: &[u32], who: &str) {
    let area = stored.len() / (IMAGES * channels);
    for (n, sums) in sums.all().chunks_exact(2 * channels).enumerate() {
        for k in 0..channels {
            let pixel = |i: usize| ((n * channels + k / 16 * 16) * area + i * 16) + k % 16;
            let of = |bits: &[u32]| {
                (0..area).map(|i| f64::from(f32::from_bits(bits[pixel(i)]))).collect::<Vec<_>>()
            };
            let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (x, z) = (of(stored), of(others));
            let (squares, others) = (product(&x, &x), product(&z, &z));
            let error = (f64::from(sums[k]) - x.iter().sum::<f64>()).abs();
            assert!(error <= 1e-5 * (squares * area as f64).sqrt(), "{who}: sum is off by {error}");
            let error = (f64::from(sums[channels + k]) - product(&x, &z)).abs();
            assert!(error <= 1e-5 * (squares * others).sqrt(), "{who}: products are off by {error}");
        }
    }
}

#[test]
fn outputs_in_bf16_are_those_in_f32_rounded_and_summed_as_they_were_stored() {
    for (channels, filters, size) in SHAPES {
        let mut stream = rng::stream(5, "tiles");
        let area = size[0] * size[1];
        let mut draw = |n: usize| (0..n).map(|_| stream.normal() as f32).collect::<Vec<_>>();
        let (weights, x) = (draw(9 * channels * filters), draw(IMAGES * channels * area));
        let (x, x_half) = images(&x.into_iter().map(rounded).collect::<Vec<_>>());
        let mut conv = Winograd::forward(filters, channels, size);
        for isa in Isa::all() {
            conv.set(isa, &weights);
            let blank = || (Images::new(IMAGES, filters * area), Images::new(IMAGES, 2 * filters));
            let ((mut z, sums), mut half_sums) = (blank(), Images::new(IMAGES, 2 * filters));
            let mut half: Images<Bf16> = Images::new(IMAGES, filters * area);
            convolve(isa, &conv, Source::Plain(&x), Sink::Keep { z: &z, sums: Some(&sums) });
            convolve(isa, &conv, Source::Plain(&x_half), Sink::Keep { z: &half, sums: Some(&half_sums) });
            let expected: Vec<u32> = z.all().iter().map(|x| rounded(*x).to_bits()).collect();
            assert!(widened(&mut half) == expected, "{channels}>{filters} {size:?} on {isa}");
            assert_sums(&mut half_sums, filters, &expected, &expected, &isa.to_string());
        }
    }
}

#[test]
fn gradients_in_bf16_are_those_in_f32_rounded_and_summed_as_they_were_stored() {
    for (channels, filters, size) in SHAPES {
        let mut stream = rng::stream(6, "tiles");
        let area = size[0] * size[1];
        let mut draw = |n: usize| (0..n).map(|_| rounded(stream.normal() as f32)).collect::<Vec<_>>();
        let weights = draw(9 * channels * filters);
        let (g, g_half) = images(&draw(IMAGES * filters * area));
        let (z, z_half) = images(&draw(IMAGES * filters * area));
        let (mut before, before_half) = images(&draw(IMAGES * channels * area));
        let others = bits(&mut before);
        let old = draw(IMAGES * channels * area);
        let abc = [draw(filters), draw(filters), draw(filters)];
        let abc = [abc[0].as_slice(), &abc[1], &abc[2]];
        let (scale, shift) = (draw(channels), draw(channels));
        let gate = Gate::Above(Line { scale: &scale, shift: &shift });
        let mut conv = Winograd::backward(filters, channels, size);
        for isa in Isa::all() {
            conv.set(isa, &weights);
            let (mut wide, mut half) = images(&old);
            let [mut wide_sums, mut half_sums] = [(); 2].map(|()| Images::new(IMAGES, 2 * channels));
            let (sums, side) = (&wide_sums, None);
            let sink = Sink::Rectifier { g: &wide, add: true, gate, z: &before, sums, side };
            convolve(isa, &conv, Source::Gradient { g: &g, z: &z, abc }, sink);
            let (sums, side) = (&half_sums, None);
            let sink = Sink::Rectifier { g: &half, add: true, gate, z: &before_half, sums, side };
            convolve(isa, &conv, Source::Gradient { g: &g_half, z: &z_half, abc }, sink);
            let expected: Vec<u32> = wide.all().iter().map(|x| rounded(*x).to_bits()).collect();
            assert!(bits(&mut wide) != expected, "nothing was rounded");
            assert!(widened(&mut half) == expected, "{channels}<{filters} {size:?} on {isa}");
            let exact = bits(&mut wide);
            for (sums, stored) in [(&mut wide_sums, &exact), (&mut half_sums, &expected)] {
                assert_sums(sums, channels, stored, &others, &isa.to_string());
            }
        }
    }
}

#[test]
fn channels_of_zeros_are_left_out_without_changing_a_bit() {
    for (channels, filters, size) in SHAPES {
        let mut stream = rng::stream(6, "tiles");
        let area = size[0] * size[1];
        let weights: Vec<f32> = (0..9 * channels * filters).map(|_| stream.normal() as f32).collect();
        let mut conv = Winograd::forward(filters, channels, size);
        // Of 16: all live, some only in the lower half of an image and some in its first rows, one, none. At
        // 32x32 those end with the two rows that the second group of tiles has in common with the first.
        for dead in [0, 3, 8, 15, 16] {
            let mut x = Images::<f32>::new(IMAGES, channels * area);
            for (i, x) in x.all().iter_mut().enumerate() {
                let (lane, y) = (i % 16, i / (16 * size[1]) % size[0]);
                let below = lane < 4 && y > size[0] / 2;
                let above = (4..6).contains(&lane) && y <= size[0] / 4;
                let live = lane >= dead || dead == 8 && (below || above);
                let zero = if i % 3 == 0 { -0.0 } else { 0.0 };
                *x = if live { stream.normal() as f32 } else { zero };
            }
            if dead == 15 {
                x.all()[3] = f32::NAN; // in a channel of zeros
            }
            for isa in Isa::all() {
                conv.set(isa, &weights);
                assert!(conv.finite);
                let mut outputs = [true, false].map(|finite| {
                    conv.finite = finite;
                    let mut z = Images::new(IMAGES, filters * area);
                    convolve(isa, &conv, Source::Plain(&x), Sink::Keep { z: &z, sums: None });
                    bits(&mut z)
                });
                // Which of two that are not numbers comes out is nobody's business.
                for bits in outputs.iter_mut().flatten() {
                    if f32::from_bits(*bits).is_nan() {
                        *bits = f32::NAN.to_bits();
                    }
                }
                let nan = outputs[0].iter().any(|bits| f32::from_bits(*bits).is_nan());
                assert_eq!(nan, dead == 15, "{channels}>{filters} {size:?} on {isa}");
                assert!(outputs[0] == outputs[1], "{channels}>{filters} {size:?}, {dead} dead, on {isa}");
            }
        }
    }
}

#[test]
fn nothing_is_left_out_where_a_filter_is_not_finite() {
    let mut conv = Winograd::forward(16, 16, [4, 4]);
    let mut weights = vec![1.0; 9 * 16 * 16];
    weights[5 * 9] = f32::INFINITY; // of channel 5
    let isa = Isa::all()[0];
    conv.set(isa, &weights);
    let mut x = Images::<f32>::new(IMAGES, 16 * 16);
    x.all().iter_mut().step_by(16).for_each(|x| *x = 1.0); // channel 0 alone lives
    let mut z = Images::new(IMAGES, 16 * 16);
    convolve(isa, &conv, Source::Plain(&x), Sink::Keep { z: &z, sums: None });
    assert!(z.all()[0].is_nan(), "zero times infinity is not a number");
}

/// It would be left out of the gradient, and its sums be zero.
#[test]
#[should_panic(expected = "assertion failed")]
fn a_line_is_no_gate_for_what_a_projection_was_added_to() {
    let (map, sums, line) = (Images::<f32>::new(1, 16 * 4), Images::new(1, 2 * 16), [1.0; 16]);
    let gate = Gate::Above(Line { scale: &line, shift: &line });
    let side = Some((&map, &sums));
    Sink::Rectifier { g: &map, add: false, gate, z: &map, sums: &sums, side }.check(1, [2, 2]);
}
