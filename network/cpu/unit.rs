//! A convolution with its BatchNorm, its buffers and the algebra between the sums over a batch and
//! the lines that sweeps apply. Knows no order of operations.
//!
//! Sums over a batch are f32 within an image (see [`super::sinks`]) and f64 across images, in their
//! order, so that threads change no bit.
#![allow(unsafe_code)] // reads the sums that workers left

use std::sync::Arc;

use super::{
    buffers::Images,
    conv::Sizes,
    gradient::FilterGradient,
    lanes::Isa,
    layer::Layer,
    layout,
    sources::{Line, Normal, Source},
    stored::Stored,
};
use crate::arch::BN_EPS;

/// Which weights of a convolution train.
#[derive(Clone, Debug)]
pub(crate) enum Trained {
    /// None.
    None,
    /// All.
    All,
    /// The same number of each filter, by flat indices into `K C R S`, filter by filter.
    At(Vec<u32>),
}

/// The gradient of a convolution's filters.
pub(crate) struct Filters {
    /// `K C R S`, or one per trained position.
    pub(crate) values: Vec<f32>,
    pub(super) gradient: FilterGradient,
}

impl Filters {
    /// Floats of the sums of a batch of `images`.
    pub(super) fn sums_len(&self, images: usize) -> usize {
        images.div_ceil(self.gradient.group()) * self.gradient.sum_len()
    }
}

/// A convolution and the BatchNorm behind it.
pub(crate) struct Unit<S: Stored> {
    /// PyTorch's name of the BatchNorm.
    pub(crate) name: String,
    /// PyTorch's name of the convolution.
    pub(crate) conv: String,
    /// BatchNorm scales.
    pub(crate) gamma: Vec<f32>,
    /// BatchNorm shifts.
    pub(crate) beta: Vec<f32>,
    /// Mean and (biased) variance per channel of the last batch.
    pub(crate) batch: Vec<[f64; 2]>,
    /// Values per channel in the last batch.
    pub(crate) count: usize,
    /// Gradient of `gamma`.
    pub(crate) d_gamma: Vec<f32>,
    /// Gradient of `beta`.
    pub(crate) d_beta: Vec<f32>,
    /// The gradient of the filters, where they train.
    pub(crate) filters: Option<Filters>,
    pub(super) layer: Layer,
    /// Its own, or what units that do not keep theirs share.
    pub(super) z: Arc<Images<S>>,
    pub(super) sums: Images<f32>,
    /// The convolution's bias (or zeros), which BatchNorm takes away again: z is without it, and its
    /// gradient is zero.
    pub(crate) bias: Vec<f32>,
    area: usize,
    scale: Vec<f32>,
    shift: Vec<f32>,
    back: [Vec<f32>; 3],
}

impl<S: Stored> Unit<S> {
    /// With filters, bias (or nothing), gamma and beta = `values`; outputs go to `z`, a slice per image of the
    /// largest batch.
    pub(crate) fn new(
        unit: &layout::Unit,
        values: [&[f32]; 4],
        trained: &Trained,
        z: Arc<Images<S>>,
        isa: Isa,
    ) -> Self {
        let ([weights, bias, gamma, beta], conv, channels) = (values, &unit.conv, unit.conv.cout);
        let area = unit.output.iter().product();
        let shape = [channels, conv.cin, conv.kernel, conv.kernel];
        let mut layer = Layer::new(Sizes::new(shape, conv.stride, unit.input));
        layer.set(isa, weights);
        let gradient = match trained {
            Trained::None => None,
            Trained::All => Some(layer.gradient(None)),
            Trained::At(positions) => Some(layer.gradient(Some(positions))),
        };
        Self {
            name: unit.norm.clone(),
            conv: conv.name.clone(),
            gamma: gamma.to_vec(),
            beta: beta.to_vec(),
            batch: vec![[0.0, 1.0]; channels],
            count: 0,
            d_gamma: vec![0.0; channels],
            d_beta: vec![0.0; channels],
            filters: gradient.map(|gradient| Filters {
                values: vec![0.0; if let Trained::At(at) = trained { at.len() } else { weights.len() }],
                gradient,
            }),
            layer,
            sums: Images::new(z.count(), 2 * channels),
            z,
            bias: (0..channels).map(|c| bias.get(c).copied().unwrap_or(0.0)).collect(),
            area,
            scale: vec![0.0; channels],
            shift: vec![0.0; channels],
            back: std::array::from_fn(|_| vec![0.0; channels]),
        }
    }

    /// The outputs and the line of the BatchNorm.
    pub(crate) fn normal(&self) -> Normal<'_, S> {
        Normal { z: &self.z, line: self.line() }
    }

    /// The BatchNorm.
    pub(crate) fn line(&self) -> Line<'_> {
        Line { scale: &self.scale, shift: &self.shift }
    }

    /// The gradient of the outputs, from `g`, that of the BatchNorm's.
    pub(crate) fn gradient<'a>(&'a self, g: &'a Images<S>, pooled: bool) -> Source<'a, S> {
        let abc = [self.back[0].as_slice(), &self.back[1], &self.back[2]];
        if pooled {
            Source::Unpooled { g, main: self.normal(), abc }
        } else {
            Source::Gradient { g, z: &self.z, abc }
        }
    }

    /// Sums over the first `images` images, two per channel.
    fn total(&self, images: usize) -> Vec<[f64; 2]> {
        let channels = self.gamma.len();
        let mut totals = vec![0.0; 2 * channels];
        for n in 0..images {
            // SAFETY: a slice of this buffer; workers have finished.
            let sums = unsafe { std::slice::from_raw_parts(self.sums.ptr(n).cast_const(), 2 * channels) };
            totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += f64::from(*sum));
        }
        let (first, second) = totals.split_at(channels);
        first.iter().zip(second).map(|(a, b)| [*a, *b]).collect()
    }

    /// After a forward pass of `images` images: the BatchNorm by their statistics.
    pub(crate) fn normalise(&mut self, images: usize) {
        self.count = images * self.area;
        let count = self.count as f64;
        // Rounding can make a variance negative; unlike `max`, `clamp` keeps NaN.
        let moments = |([s, q], bias): ([f64; 2], &f32)| {
            [s / count + f64::from(*bias), (q / count - (s / count) * (s / count)).clamp(0.0, f64::INFINITY)]
        };
        let batch: Vec<_> = self.total(images).into_iter().zip(&self.bias).map(moments).collect();
        self.normalise_by(&batch);
        self.batch = batch;
    }

    /// The BatchNorm by given means and variances.
    pub(crate) fn normalise_by(&mut self, statistics: &[[f64; 2]]) {
        for (c, [mean, variance]) in statistics.iter().enumerate() {
            let scale = f64::from(self.gamma[c]) / (variance + BN_EPS).sqrt();
            self.scale[c] = scale as f32;
            self.shift[c] = (f64::from(self.beta[c]) - (mean - f64::from(self.bias[c])) * scale) as f32;
        }
    }

    /// From the sums of g and g z over `images` images: the gradients of gamma and beta, and a, b, c
    /// of the outputs' gradient a g + b z + c.
    pub(crate) fn differentiate(&mut self, images: usize) {
        let count = self.count as f64;
        for (c, [g, gz]) in self.total(images).into_iter().enumerate() {
            let (mean, variance) = (self.batch[c][0] - f64::from(self.bias[c]), self.batch[c][1]);
            let inverse = 1.0 / (variance + BN_EPS).sqrt();
            let d_gamma = (gz - mean * g) * inverse;
            (self.d_gamma[c], self.d_beta[c]) = (d_gamma as f32, g as f32);
            let a = f64::from(self.gamma[c]) * inverse;
            let slope = inverse * d_gamma / count;
            self.back[0][c] = a as f32;
            self.back[1][c] = (-a * slope) as f32;
            self.back[2][c] = (a * (mean * slope - g / count)) as f32;
        }
    }

    /// Bytes of what it keeps by channel.
    pub(super) fn channel_bytes(&self) -> usize {
        let lines = 5 + 2 + self.back.len(); // gamma, beta, their gradients, the bias; scale, shift
        self.gamma.len() * (4 * lines + size_of::<[f64; 2]>())
    }
}
