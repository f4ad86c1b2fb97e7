//! Every kind of convolution that these networks have, in every direction, on noise and ready to be
//! timed. Knows no clock.

use super::{
    buffers::Images,
    conv::{Conv, Sizes, bordered, plain},
    lanes::Isa,
    layer::{Layer, Way},
    tiles,
    winograd::{Winograd, chunk},
};
use crate::rng::stream;

/// Filters `K C R S`, stride, rows and columns of the input.
const SHAPES: [([usize; 4], usize, usize); 13] = [
    ([16, 3, 3, 3], 1, 32),
    ([16, 16, 3, 3], 1, 32),
    ([32, 32, 3, 3], 1, 16),
    ([64, 64, 3, 3], 1, 8),
    ([32, 16, 3, 3], 2, 32),
    ([64, 32, 3, 3], 2, 16),
    ([32, 16, 1, 1], 2, 32),
    ([128, 128, 3, 3], 1, 32),
    ([256, 256, 3, 3], 1, 16),
    ([512, 512, 3, 3], 1, 8),
    ([256, 128, 3, 3], 2, 32),
    ([512, 512, 3, 3], 1, 4),
    ([512, 512, 3, 3], 1, 2),
];

/// One of the kernels.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    Forward,
    Backward,
    Set,
    Gradient,
    TwoPositions,
    Direct,
    DirectBack,
}

const KERNELS: [(&str, Kernel); 7] = [
    ("forward", Kernel::Forward),
    ("backward", Kernel::Backward),
    ("gradient", Kernel::Gradient),
    ("two-positions", Kernel::TwoPositions),
    ("set", Kernel::Set),
    ("direct", Kernel::Direct),
    ("direct-back", Kernel::DirectBack),
];

/// Calls `run(name, operations, work)` for every kernel whose name is `wanted`, such as `forward 16>32
/// 3x3/2 32x32`: `forward` and `backward` by the kernel that a training runs, with nothing before and
/// behind it, `direct` by the definition where that is another one, `gradient` to all filters, `two-positions` to two weights of
/// each, `set` for the preparation of new filters. `operations` are always the floating-point operations
/// of the whole direct convolution of the images that one call of `work` takes.
pub fn each(isa: Isa, wanted: impl Fn(&str) -> bool, mut run: impl FnMut(&str, u64, &mut dyn FnMut())) {
    for (shape, stride, size) in SHAPES {
        let [filters, channels, kernel, _] = shape;
        let of = |word: &str| format!("{word} {channels}>{filters} {kernel}x{kernel}/{stride} {size}x{size}");
        let transformed = Winograd::serves(channels, filters, kernel, stride);
        let exists = |kernel: Kernel| match kernel {
            Kernel::Backward => channels >= 16,
            Kernel::Set | Kernel::Direct | Kernel::DirectBack => transformed,
            Kernel::Forward | Kernel::Gradient | Kernel::TwoPositions => true,
        };
        let named = KERNELS.map(|(word, kernel)| (of(word), kernel));
        let chosen: Vec<_> = named.into_iter().filter(|(n, kernel)| exists(*kernel) && wanted(n)).collect();
        if chosen.is_empty() {
            continue;
        }
        let mut case = Case::new(isa, shape, stride, [size, size]);
        for (name, kernel) in chosen {
            case.run(kernel, |flop, work| run(&name, flop, work));
        }
    }
}

/// Which way a convolution is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Direction {
    Forward,
    Back,
}

/// Noise in both of the layouts that kernels read.
struct Noise {
    bordered: Vec<f32>,
    plain: Images<f32>,
}

/// A convolution with images of noise.
struct Case {
    isa: Isa,
    images: usize,
    weights: Vec<f32>,
    layer: Layer,
    x: Noise,
    g: Noise,
    y: Images<f32>,
    dx: Images<f32>,
}

impl Case {
    fn new(isa: Isa, shape: [usize; 4], stride: usize, input: [usize; 2]) -> Self {
        let [filters, channels, ..] = shape;
        let mut layer = Layer::new(Sizes::new(shape, stride, input));
        let (output, images) = (layer.sizes.output, 2 * chunk(input)); // whole groups, in wide layers too
        let mut stream = stream(0, "kernels");
        let mut draw = |n: usize| (0..n).map(|_| stream.uniform() as f32 - 0.5).collect::<Vec<_>>();
        let weights = draw(shape.iter().product());
        layer.set(isa, &weights);
        let mut noise = |channels: usize, size: [usize; 2]| {
            let len = plain(channels, size);
            let mut plain = Images::new(images, len);
            plain.all().copy_from_slice(&draw(images * len));
            Noise { bordered: draw(images * bordered(channels, size)), plain }
        };
        Self {
            x: noise(channels, input),
            g: noise(filters, output),
            y: Images::new(images, plain(filters, output)),
            dx: Images::new(images, plain(channels, input)),
            isa,
            images,
            weights,
            layer,
        }
    }

    fn run(&mut self, kernel: Kernel, run: impl FnOnce(u64, &mut dyn FnMut())) {
        let Self { isa, images, weights, layer, x, g, y, dx } = self;
        let (isa, images, sizes) = (*isa, *images, layer.sizes);
        let (filters, fan_in) = (sizes.filters, sizes.len() / sizes.filters);
        let area = sizes.output.iter().product::<usize>();
        let flop = 2 * (images * area * sizes.len()) as u64;
        let mut scratch = vec![0.0; layer.scratch_len()];
        let (direction, from, to) = match kernel {
            Kernel::Backward | Kernel::DirectBack => (Direction::Back, &*g, dx),
            _ => (Direction::Forward, &*x, y),
        };
        match kernel {
            Kernel::Forward | Kernel::Backward => run(flop, &mut || {
                alone(isa, layer, direction, &from.bordered, &from.plain, to, &mut scratch);
            }),
            Kernel::Set => run(flop, &mut || layer.set(isa, weights)),
            Kernel::Direct | Kernel::DirectBack => {
                let conv = Conv::new(sizes, weights);
                run(flop, &mut || direct(isa, &conv, direction, &from.bordered, to));
            }
            Kernel::Gradient | Kernel::TwoPositions => {
                // Two weights here and there in each filter.
                let positions: Vec<u32> =
                    (0..2 * filters).map(|i| (i / 2 * fan_in + i * 7919 % fan_in) as u32).collect();
                let some = matches!(kernel, Kernel::TwoPositions);
                let gradient = layer.gradient(some.then_some(&positions));
                let (mut sum, mut scratch) =
                    (vec![0.0; gradient.sum_len()], vec![0.0; gradient.scratch_len()]);
                let (x, g) = (&x.bordered, &g.bordered);
                run(flop, &mut || gradient.add(isa, images, x, g, &mut sum, &mut scratch));
            }
        }
    }
}

/// The convolution, or its data gradient, of all these images by the kernel that a training runs; the images are
/// there twice, for one algorithm in a border.
pub(super) fn alone(
    isa: Isa,
    layer: &Layer,
    direction: Direction,
    bordered: &[f32],
    plain: &Images<f32>,
    results: &mut Images<f32>,
    scratch: &mut [f32],
) {
    match (&layer.way, direction) {
        (Way::Direct(conv), _) => direct(isa, conv, direction, bordered, results),
        (Way::Winograd { forward, .. }, Direction::Forward) => {
            tiles::alone(isa, forward, plain, results, scratch);
        }
        (Way::Winograd { backward, .. }, Direction::Back) => {
            tiles::alone(isa, backward, plain, results, scratch);
        }
    }
}

fn direct(isa: Isa, conv: &Conv, direction: Direction, bordered: &[f32], results: &mut Images<f32>) {
    for (n, from) in bordered.chunks_exact(bordered.len() / results.count()).enumerate() {
        match direction {
            Direction::Forward => conv.forward(isa, from, results.get(n)),
            Direction::Back => conv.backward(isa, from, results.get(n), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_kernels_run_with_their_operations() {
        let mut seen = Vec::new();
        each(
            Isa::all()[0],
            |name| name.ends_with(" 16>16 3x3/1 32x32") || name == "forward 3>16 3x3/1 32x32",
            |name, flop, work| {
                work();
                seen.push((name.split(' ').next().unwrap_or_default().to_owned(), flop));
            },
        );
        let words: Vec<&str> = seen.iter().map(|(word, _)| word.as_str()).collect();
        assert_eq!(words[0], "forward");
        assert_eq!(words[1..], KERNELS.map(|(word, _)| word));
        let images = 2 * chunk([32, 32]) as u64;
        assert_eq!(seen[1].1, images * 2 * 16 * 16 * 9 * 1024);
    }
}
