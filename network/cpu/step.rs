//! One fused training step of a network. Kept for the way back are the outputs of the convolutions
//! before their BatchNorm and one bit per element of each sum (where filters train, the sums
//! themselves as well); the rest is computed again while it is read, and so are some of the outputs, where memory
//! is short. Knows no data set, no optimiser and no running statistics.
//!
//! Forward is one pass per feature: it is made while the convolutions that read it run. Backward
//! mirrors that: the gradient of a feature is made from those of the convolutions that read it.
#![allow(unsafe_code)] // each item of a pass has its images to itself

mod filters;
mod outputs;
mod zeros;

use super::{
    buffers::Images,
    conv::plain,
    direct::{self, Values},
    lanes::Isa,
    layer::Way,
    layout::Layout,
    maps::{Maps, Scratch},
    predict::Route,
    sinks::Sink,
    stored::Stored,
    tiles,
    unit::{Trained, Unit},
    workers::Pool,
};
use crate::{Error, Result, arch::Graph, tensor::Tensors};
use outputs::Outputs;

/// A network with its buffers.
pub(crate) struct Step<S: Stored> {
    /// Convolutions with their BatchNorms, in the order of the graph.
    pub(crate) units: Vec<Unit<S>>,
    /// The output layer.
    pub(crate) output: Output,
    /// Logits of the last forward pass, one slice per image.
    pub(crate) logits: Vec<f64>,
    /// The first feature whose gradient is wanted: nothing trains before it.
    pub(crate) lowest: usize,
    pub(super) isa: Isa,
    pub(super) layout: Layout,
    pub(super) pool: Pool,
    pub(super) scratch: Vec<Scratch>,
    pub(super) maps: Maps<S>,
    /// Means of the last feature.
    pub(super) pooled: Images<f32>,
    pub(super) route: Route,
    pub(super) outputs: Outputs,
    /// Of filter gradients: those of one convolution, and those of the one before.
    pub(super) sums: [Images<f32>; 2],
}

/// The output layer and its gradients.
#[derive(Default)]
pub(crate) struct Output {
    /// Weights, `K C`.
    pub(crate) weights: Vec<f32>,
    /// Biases.
    pub(crate) bias: Vec<f32>,
    /// Gradient of the weights.
    pub(crate) d_weights: Vec<f32>,
    /// Gradient of the biases.
    pub(crate) d_bias: Vec<f32>,
}

impl<S: Stored> Step<S> {
    /// Packs the filters of `graph` from `values` and makes all buffers for `batch` images; `trained`
    /// says which weights of the convolution of a name train. Outputs of the first `again` of
    /// [`Layout::repeatable`] share a place for each shape; all but the last one in it are computed again.
    ///
    /// # Errors
    /// Where the engine does not cover the graph, or a value is missing.
    pub(crate) fn new(
        graph: &Graph,
        mut values: Tensors,
        trained: impl Fn(&str) -> Trained,
        (batch, again): (usize, usize),
        isa: Isa,
        threads: usize,
    ) -> Result<Self> {
        let layout = Layout::new(graph)?;
        let batch = batch.max(threads); // in a prediction every worker has images of its own
        let outputs = Outputs::new(&layout, again);
        // Each goes when it is packed: there is never room for both.
        let mut take = |name: String| {
            values.remove(&name).map(|t| t.data).ok_or_else(|| Error::Invalid(format!("no value `{name}`")))
        };
        let mut units = Vec::new();
        for (unit, z) in layout.units.iter().zip(outputs.places(&layout, batch)) {
            let conv = &unit.conv;
            let named = [
                take(format!("{}.weight", conv.name))?,
                if conv.bias { take(format!("{}.bias", conv.name))? } else { Vec::new() },
                take(format!("{}.weight", unit.norm))?,
                take(format!("{}.bias", unit.norm))?,
            ];
            units.push(Unit::new(unit, named.each_ref().map(Vec::as_slice), &trained(&conv.name), z, isa));
        }
        let maps = Maps::new(&layout, batch, |u| units[u].filters.is_some());
        let pool = Pool::new(threads);
        let scratch = (0..pool.workers()).map(|index| Scratch::new(&layout, &units, index)).collect();
        let route = Route::new(&layout, &units, batch, pool.workers());
        let weights = take(format!("{}.weight", layout.output))?;
        let bias = take(format!("{}.bias", layout.output))?;
        let pooled = Images::new(batch, weights.len() / bias.len());
        let (d_weights, d_bias) = (vec![0.0; weights.len()], vec![0.0; bias.len()]);
        let output = Output { weights, bias, d_weights, d_bias };
        let sums = units.iter().filter_map(|unit| unit.filters.as_ref()).map(|f| f.sums_len(batch)).max();
        let sums = [(); 2].map(|()| Images::new(1, sums.unwrap_or(0)));
        let logits = Vec::new();
        let lowest = 0;
        Ok(Self {
            units,
            output,
            logits,
            lowest,
            isa,
            layout,
            pool,
            scratch,
            maps,
            pooled,
            route,
            outputs,
            sums,
        })
    }

    /// Runs `work` on each unit and its element of `with`.
    pub(crate) fn update<T: Send>(&mut self, with: &mut [T], work: impl Fn(&mut Unit<S>, &mut T) + Sync) {
        let mut pairs: Vec<(&mut Unit<S>, &mut T)> = self.units.iter_mut().zip(with).collect();
        self.pool.each_of(&mut pairs, |(unit, with)| work(unit, with));
    }

    /// The logits of `count` images, normalised by their own statistics; `load(n, bordered)` writes the
    /// inside of image `n`, channels innermost of 16.
    pub(crate) fn forward(&mut self, count: usize, load: impl Fn(usize, &mut [f32]) + Sync) {
        self.sweep(count, |_, unit| unit.normalise(count), load);
    }

    /// The same, normalised by mean and variance of each channel of each unit. Leaves behind what a
    /// training step does, which [`Step::predict`] does not.
    pub(crate) fn forward_by(
        &mut self,
        count: usize,
        statistics: &[Vec<[f64; 2]>],
        load: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        self.sweep(count, |u, unit| unit.normalise_by(&statistics[u]), load);
    }

    fn sweep(
        &mut self,
        count: usize,
        normalise: impl Fn(usize, &mut Unit<S>),
        load: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let Self { units, pool, scratch, .. } = self;
        let isa = self.isa;
        pool.each(scratch, count, |n, own| {
            let image = own.image.get(0);
            load(n, image);
            // SAFETY: each item has its image.
            unsafe { convolve(isa, &units[0], n, image, own.plain.get(0)) }
        });
        normalise(0, &mut units[0]);
        for f in 0..self.layout.features.len() {
            self.read(count, f);
            self.layout.features[f].readers.iter().for_each(|u| normalise(*u, &mut self.units[*u]));
        }
        self.head(count);
    }

    /// The outputs of all that reads feature `f`, and their sums.
    fn read(&mut self, count: usize, f: usize) {
        let Self { units, layout, pool, scratch, maps, isa, .. } = self;
        let (isa, feature) = (*isa, &layout.features[f]);
        let (source, size) = (maps.source(layout, units, f), layout.shapes[feature.shape].1);
        match feature.readers.as_slice() {
            [] => {}
            [u] if let Way::Winograd { forward, .. } = &units[*u].layer.way => {
                let sink = Sink::Keep { z: &units[*u].z, sums: Some(&units[*u].sums) };
                let group = tiles::images_per_call(forward).min(count.div_ceil(pool.workers()));
                pool.each(scratch, count.div_ceil(group), |item, own| {
                    let images = item * group..((item + 1) * group).min(count);
                    // SAFETY: each item has its images.
                    unsafe { tiles::run(isa, forward, source, sink, images, true, own.tiles.get(0)) }
                });
            }
            readers => pool.each(scratch, count, |n, own| {
                let x = own.inputs[feature.shape].get(0);
                // SAFETY: each item has its image.
                unsafe {
                    direct::read(isa, &source, n, size, x);
                    for &u in readers {
                        convolve(isa, &units[u], n, x, own.plain.get(0));
                    }
                }
            }),
        }
    }

    /// The output layer: logits from the last feature.
    fn head(&mut self, count: usize) {
        let (last, size) = self.last();
        let (source, pooled) = (self.maps.source(&self.layout, &self.units, last), &self.pooled);
        self.pool.each(&mut self.scratch, count, |n, own| {
            // SAFETY: each item has its image.
            unsafe {
                let out = std::slice::from_raw_parts_mut(pooled.ptr(n), pooled.size());
                direct::mean(self.isa, &source, n, size, own.plain.get(0), out);
            }
        });
        self.guess(count);
    }

    /// Logits from the means of the last feature.
    pub(super) fn guess(&mut self, count: usize) {
        self.logits.clear();
        for n in 0..count {
            let pooled = self.pooled.get(n);
            for (weights, bias) in self.output.weights.chunks_exact(pooled.len()).zip(&self.output.bias) {
                let products = weights.iter().zip(pooled.iter()).map(|(w, x)| f64::from(*w) * f64::from(*x));
                self.logits.push(f64::from(*bias) + products.sum::<f64>());
            }
        }
    }

    /// The last feature, and its rows and columns.
    pub(super) fn last(&self) -> (usize, [usize; 2]) {
        let last = self.layout.features.len() - 1;
        (last, self.layout.shapes[self.layout.features[last].shape].1)
    }

    /// All gradients, after a forward pass of the same `count` images;
    /// `d_logits` are the loss's.
    pub(crate) fn backward(
        &mut self,
        count: usize,
        d_logits: &[f64],
        load: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        self.head_back(count, d_logits);
        let mut waiting = None;
        for f in (0..self.last().0).rev() {
            if !self.wants(f) {
                continue;
            }
            if let Some(read) = self.outputs.again(&self.layout, f) {
                self.read(count, read); // makes the sums again too, which nobody reads
            }
            for reader in 0..self.layout.features[f].readers.len() {
                waiting = self.filters(count, self.layout.features[f].readers[reader], &load, waiting);
            }
            if f >= self.lowest {
                self.feature_back(count, f);
            }
        }
        waiting = self.filters(count, 0, &load, waiting);
        self.finish(waiting);
    }

    /// Is there something to do at feature `f` on the way back: its gradient to make, or those of filters that read it?
    pub(super) fn wants(&self, f: usize) -> bool {
        f >= self.lowest || self.layout.features[f].readers.iter().any(|u| self.units[*u].filters.is_some())
    }

    /// The gradients of the output layer and of the last feature.
    fn head_back(&mut self, count: usize, d_logits: &[f64]) {
        let (last, size) = self.last();
        let Self { units, layout, pool, scratch, maps, output, pooled, .. } = self;
        let (isa, features) = (self.isa, pooled.size());
        let classes = layout.classes;
        let mut sums = vec![0.0; classes * features];
        for (n, d) in d_logits.chunks_exact(classes).enumerate() {
            let pooled = pooled.get(n);
            for (d, sums) in d.iter().zip(sums.chunks_exact_mut(features)) {
                sums.iter_mut().zip(&*pooled).for_each(|(sum, x)| *sum += d * f64::from(*x));
            }
        }
        output.d_weights.iter_mut().zip(&sums).for_each(|(d, sum)| *d = *sum as f32);
        for (k, d_bias) in output.d_bias.iter_mut().enumerate() {
            *d_bias = d_logits.iter().skip(k).step_by(classes).sum::<f64>() as f32;
        }
        let (sink, area) = (maps.sink(layout, units, last), size.iter().product::<usize>() as f64);
        pool.each(scratch, count, |n, own| {
            let d = &d_logits[n * classes..][..classes];
            let each = &mut own.plain.get(0)[..features];
            for (c, each) in each.iter_mut().enumerate() {
                let weight = |k: usize| f64::from(output.weights[k * features + c]);
                let products = d.iter().enumerate().map(|(k, d)| weight(k) * d);
                *each = (products.sum::<f64>() / area) as f32;
            }
            // SAFETY: each item has its image.
            unsafe { direct::write(isa, &sink, n, size, Values::Channels(each)) }
        });
        for u in layout.ends(last) {
            units[u].differentiate(count);
        }
    }

    /// The gradient of feature `f`, from those of what read it.
    fn feature_back(&mut self, count: usize, f: usize) {
        let Self { units, layout, pool, scratch, maps, .. } = self;
        let (isa, (channels, size)) = (self.isa, layout.shapes[layout.features[f].shape]);
        let sink = maps.sink(layout, units, f);
        match layout.features[f].readers.as_slice() {
            [u] if let Way::Winograd { backward, .. } = &units[*u].layer.way => {
                let source = maps.back(layout, units, *u);
                let group = tiles::images_per_call(backward).min(count.div_ceil(pool.workers()));
                pool.each(scratch, count.div_ceil(group), |item, own| {
                    let images = item * group..((item + 1) * group).min(count);
                    // SAFETY: each item has its images.
                    unsafe { tiles::run(isa, backward, source, sink, images, true, own.tiles.get(0)) }
                });
            }
            readers => pool.each(scratch, count, |n, own| {
                let dx = &mut own.plain.get(0)[..plain(channels, size)];
                for (i, &u) in readers.iter().enumerate() {
                    let (layer, source) = (&units[u].layer, maps.back(layout, units, u));
                    let g = own.outputs[layout.units[u].shape].get(0);
                    // SAFETY: each item has its image.
                    unsafe { direct::read(isa, &source, n, layer.sizes.output, g) };
                    layer.direct().backward(isa, g, dx, i > 0);
                }
                // SAFETY: as above.
                unsafe { direct::write(isa, &sink, n, size, Values::Image(dx)) }
            }),
        }
        for u in layout.ends(f) {
            units[u].differentiate(count);
        }
    }
}

/// Image `n`: bordered `x` to the unit's z and sums.
///
/// # Safety
/// The caller has image `n` to itself.
unsafe fn convolve(isa: Isa, unit: &Unit<impl Stored>, n: usize, x: &[f32], out: &mut [f32]) {
    let out = &mut out[..unit.z.size()];
    unit.layer.direct().forward(isa, x, out);
    let sink = Sink::Keep { z: &unit.z, sums: Some(&unit.sums) };
    // SAFETY: the caller's promise.
    unsafe { direct::write(isa, &sink, n, unit.layer.sizes.output, Values::Image(out)) }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
