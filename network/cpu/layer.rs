//! One convolution of a network in all that a training asks of it. Knows which algorithm serves which
//! shape (a question of shape alone, so that every machine answers alike), no BatchNorm and no threads.
//!
//! A direct convolution takes bordered images (`[C/16][H + 2][W + 2][16]`, the border zero) to plain ones
//! (`[C/16][H][W][16]`), Winograd's plain ones to plain ones; filter gradients take bordered images and
//! gradients. No result depends on how many images a call is given.

use super::{
    conv::{Conv, Sizes},
    gradient::FilterGradient,
    lanes::Isa,
    tiles,
    winograd::Winograd,
};

/// A convolution with its filters prepared.
pub(crate) struct Layer {
    pub(crate) sizes: Sizes,
    pub(super) way: Way,
}

/// The algorithm.
pub(super) enum Way {
    Direct(Conv),
    Winograd { forward: Winograd, backward: Winograd },
}

impl Layer {
    /// [`Layer::set`] gives the filters.
    pub(crate) fn new(sizes: Sizes) -> Self {
        let Sizes { channels, filters, kernel, stride, input, .. } = sizes;
        let way = if Winograd::serves(channels, filters, kernel, stride) {
            Way::Winograd {
                forward: Winograd::forward(filters, channels, input),
                backward: Winograd::backward(filters, channels, input),
            }
        } else {
            Way::Direct(Conv::new(sizes, &vec![0.0; sizes.len()]))
        };
        Self { sizes, way }
    }

    /// Takes over `weights`, `K C R S`; quick enough for every step of a training that changes them.
    ///
    /// # Panics
    /// Where they are not as many as that.
    pub(crate) fn set(&mut self, isa: Isa, weights: &[f32]) {
        match &mut self.way {
            Way::Direct(conv) => conv.set(weights),
            Way::Winograd { forward, backward } => {
                Winograd::set_both([forward, backward], isa, weights);
            }
        }
    }

    /// Floats of scratch memory that [`tiles::run`] needs for either direction, 0 where Winograd's
    /// algorithm does not serve.
    pub(crate) fn scratch_len(&self) -> usize {
        match &self.way {
            Way::Direct(_) => 0,
            Way::Winograd { forward, backward } => {
                tiles::scratch_len(forward).max(tiles::scratch_len(backward))
            }
        }
    }

    /// Floats of the prepared filters.
    pub(crate) fn filters_len(&self) -> usize {
        match &self.way {
            Way::Direct(conv) => conv.filters_len(),
            Way::Winograd { forward, backward } => Winograd::filters_len([forward, backward]),
        }
    }

    /// The direct convolution, of what takes one bordered image at a time: the image's own, and those that
    /// read one map with others.
    ///
    /// # Panics
    /// Where Winograd's algorithm serves: nothing else reads a map that such a convolution reads.
    pub(crate) fn direct(&self) -> &Conv {
        match &self.way {
            Way::Direct(conv) => conv,
            Way::Winograd { .. } => panic!("a projection beside a convolution of stride 1"),
        }
    }

    /// The gradient of all its filters, or of the weights at `positions` (`K k` flat indices).
    pub(crate) fn gradient(&self, positions: Option<&[u32]>) -> FilterGradient {
        match positions {
            None => FilterGradient::new(self.sizes),
            Some(positions) => FilterGradient::of_positions(self.sizes, positions),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpu::{
            buffers::Images,
            conv::{bordered, plain},
            kernels::{Direction, alone},
        },
        rng,
    };

    /// What a direction makes of images, bordered and plain.
    fn results(layer: &Layer, isa: Isa, direction: Direction, x: [&[f32]; 2], images: usize) -> Vec<f32> {
        let Sizes { channels, filters, input, output, .. } = layer.sizes;
        let [from, to] = [(channels, input), (filters, output)];
        let [from, to] = if direction == Direction::Back { [to, from] } else { [from, to] };
        let mut inputs = Images::new(images, plain(from.0, from.1));
        inputs.all().copy_from_slice(x[1]);
        let mut results = Images::new(images, plain(to.0, to.1));
        results.all().fill(f32::NAN);
        let mut scratch = vec![f32::NAN; layer.scratch_len()];
        alone(isa, layer, direction, x[0], &inputs, &mut results, &mut scratch);
        results.all().to_vec()
    }

    /// The bits themselves, so that a machine of another kind would be noticed.
    #[test]
    fn results_are_the_same_bits_on_every_machine() {
        for isa in Isa::all() {
            let mut digest = blake3::Hasher::new();
            for (shape, stride) in
                [([32, 32, 3, 3], 1), ([32, 16, 3, 3], 2), ([16, 16, 1, 1], 2), ([16, 3, 3, 3], 1)]
            {
                let (size, images) = ([9, 8], 2);
                let mut layer = Layer::new(Sizes::new(shape, stride, size));
                let Sizes { channels, filters, output, .. } = layer.sizes;
                let mut stream = rng::stream(4, "layer");
                let mut draw = |n: usize| (0..n).map(|_| stream.uniform() as f32 - 0.5).collect::<Vec<_>>();
                layer.set(isa, &draw(shape.iter().product()));
                let (x, x_plain) = inside(&draw(images * plain(channels, size)), channels, size, images);
                let (g, g_plain) = inside(&draw(images * plain(filters, output)), filters, output, images);
                let gradient = layer.gradient(None);
                let mut scratch = vec![0.0; gradient.scratch_len()];
                let back = || results(&layer, isa, Direction::Back, [&g, &g_plain], images);
                let none = || vec![0.0; images * plain(channels, size)];
                let mut results = [
                    results(&layer, isa, Direction::Forward, [&x, &x_plain], images),
                    if channels >= 16 { back() } else { none() },
                    vec![0.0; shape.iter().product()],
                ];
                let mut sum = vec![0.0; gradient.sum_len()];
                gradient.add(isa, images, &x, &g, &mut sum, &mut scratch);
                gradient.finish(isa, &mut sum, &mut results[2]);
                results.iter().flatten().for_each(|x| _ = digest.update(&x.to_le_bytes()));
            }
            assert_eq!(&digest.finalize().to_hex()[..16], "f4da79bfca93c3a5", "{isa}");
        }
    }

    /// Bordered images and plain ones with the channels that exist.
    fn inside(x: &[f32], channels: usize, [h, w]: [usize; 2], images: usize) -> (Vec<f32>, Vec<f32>) {
        let mut x = x.to_vec();
        let mut out = vec![0.0; images * bordered(channels, [h, w])];
        for (i, x) in x.iter_mut().enumerate() {
            let (lane, column, row, plane) = (i % 16, i / 16 % w, i / 16 / w % h, i / 16 / w / h);
            if plane % channels.div_ceil(16) * 16 + lane >= channels {
                *x = 0.0;
            }
            out[((plane * (h + 2) + row + 1) * (w + 2) + column + 1) * 16 + lane] = *x;
        }
        (out, x)
    }
}
