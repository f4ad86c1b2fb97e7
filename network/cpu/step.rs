//! One fused training step of a network whose filters are fixed. Kept for the way back are the
//! outputs of the convolutions before their BatchNorm and one bit per element of each sum; the rest
//! is computed again while it is read. Knows no data set, no optimiser and no running statistics.
//!
//! Forward is one pass per feature: it is made while the convolutions that read it run. Backward
//! mirrors that: the gradient of a feature is made from those of the convolutions that read it.
#![allow(unsafe_code)] // each item of a pass has its images to itself

use super::{
    buffers::Images,
    conv::{bordered, plain},
    direct::{self, Values},
    lanes::Isa,
    layer::Way,
    layout::{Added, Layout},
    sinks::{Pass, Sink},
    sources::{Side, Source},
    tiles,
    unit::Unit,
    workers::Pool,
};
use crate::{Error, Result, arch::Graph, tensor::Tensors};

/// A network with its buffers.
pub struct Step {
    /// Convolutions with their BatchNorms, in the order of the graph.
    pub units: Vec<Unit>,
    /// Logits of the last forward pass, one slice per image.
    pub logits: Vec<f64>,
    isa: Isa,
    layout: Layout,
    pool: Pool,
    scratch: Vec<Scratch>,
    maps: Maps,
    output: Vec<f32>,
    output_bias: Vec<f32>,
    pooled: Images<f32>,
}

/// Maps that one feature after the other uses.
struct Maps {
    /// By shape: gradients of the trunk.
    trunk: Vec<Images<f32>>,
    /// By shape: forward, the trunk's current feature; backward, gradients off the trunk.
    side: Vec<Images<f32>>,
    /// By feature: which elements are above zero, where that cannot be told from the unit.
    masks: Vec<Images<u16>>,
}

/// A worker's own memory.
struct Scratch {
    tiles: Images<f32>,
    /// The inside of a bordered image of 16 lanes, of which three are used.
    image: Images<f32>,
    /// By shape: a bordered image.
    bordered: Vec<Images<f32>>,
    plain: Images<f32>,
}

/// What normalises.
#[derive(Clone, Copy, Debug)]
pub enum Statistics<'a> {
    /// The batch itself.
    Batch,
    /// Mean and variance of each channel of each unit.
    Fixed(&'a [Vec<[f64; 2]>]),
}

impl Step {
    /// Packs the filters of `graph` from `values` and makes all buffers for `batch` images.
    ///
    /// # Errors
    /// Where the engine does not cover the graph, or a value is missing.
    pub fn new(graph: &Graph, values: &Tensors, batch: usize, isa: Isa, threads: usize) -> Result<Self> {
        let layout = Layout::new(graph)?;
        let value = |name: String| {
            values.get(&name).map(|t| &*t.data).ok_or_else(|| Error::Invalid(format!("no value `{name}`")))
        };
        let mut units = Vec::new();
        for unit in &layout.units {
            let conv = &unit.conv;
            let bias = if conv.bias { value(format!("{}.bias", conv.name))? } else { &[] };
            let named = [
                value(format!("{}.weight", conv.name))?,
                bias,
                value(format!("{}.weight", unit.norm))?,
                value(format!("{}.bias", unit.norm))?,
            ];
            units.push(Unit::new(unit, named, batch, isa));
        }
        let maps = Maps::new(&layout, batch);
        let pool = Pool::new(threads);
        let scratch = (0..pool.workers()).map(|_| Scratch::new(&layout, &units)).collect();
        let output = value(format!("{}.weight", layout.output))?.to_vec();
        let output_bias = value(format!("{}.bias", layout.output))?.to_vec();
        let pooled = Images::new(batch, output.len() / output_bias.len());
        Ok(Self { units, logits: Vec::new(), isa, layout, pool, scratch, maps, output, output_bias, pooled })
    }

    /// Bytes of all buffers that grow with the batch.
    pub fn bytes(&self) -> usize {
        let maps =
            [&self.maps.trunk, &self.maps.side].into_iter().flatten().map(Images::bytes).sum::<usize>();
        let masks = self.maps.masks.iter().map(Images::bytes).sum::<usize>();
        self.units.iter().map(Unit::bytes).sum::<usize>() + maps + masks + self.pooled.bytes()
    }

    /// The logits of `count` images; `load(n, bordered)` writes the inside of image `n`, channels
    /// innermost of 16.
    pub fn forward(&mut self, count: usize, stats: Statistics<'_>, load: impl Fn(usize, &mut [f32]) + Sync) {
        let Self { units, layout, pool, scratch, maps, isa, .. } = self;
        let isa = *isa;
        let normalise = |units: &mut [Unit], done: &[usize]| {
            for &u in done {
                match stats {
                    Statistics::Batch => units[u].normalise(count),
                    Statistics::Fixed(all) => units[u].normalise_by(&all[u]),
                }
            }
        };
        let first: Vec<usize> = (0..units.len()).filter(|u| layout.units[*u].reads.is_none()).collect();
        pool.each(scratch, count, |n, own| {
            let image = own.image.get(0);
            load(n, image);
            for &u in &first {
                // SAFETY: each item has its image.
                unsafe { convolve(isa, &units[u], n, image, own.plain.get(0), own.tiles.get(0)) }
            }
        });
        normalise(units, &first);
        for (f, feature) in layout.features.iter().enumerate() {
            let (source, size) = (source(layout, units, maps, f), layout.shapes[feature.shape].1);
            match feature.readers.as_slice() {
                [] => {}
                [u] if let Way::Winograd { forward, .. } = &units[*u].layer.way => {
                    let sink = Sink::Keep { z: &units[*u].z, sums: &units[*u].sums };
                    let group = tiles::images_per_call(size);
                    pool.each(scratch, count.div_ceil(group), |item, own| {
                        let images = item * group..((item + 1) * group).min(count);
                        // SAFETY: each item has its images.
                        unsafe { tiles::run(isa, forward, source, sink, images, own.tiles.get(0)) }
                    });
                }
                readers => pool.each(scratch, count, |n, own| {
                    let x = own.bordered[feature.shape].get(0);
                    // SAFETY: each item has its image.
                    unsafe {
                        direct::read(isa, &source, n, size, x);
                        for &u in readers {
                            convolve(isa, &units[u], n, x, own.plain.get(0), own.tiles.get(0));
                        }
                    }
                }),
            }
            normalise(units, &feature.readers);
        }
        self.head(count);
    }

    /// The output layer: logits from the last feature.
    fn head(&mut self, count: usize) {
        let last = self.layout.features.len() - 1;
        let size = self.layout.shapes[self.layout.features[last].shape].1;
        let (source, pooled) = (source(&self.layout, &self.units, &self.maps, last), &self.pooled);
        self.pool.each(&mut self.scratch, count, |n, own| {
            // SAFETY: each item has its image.
            unsafe {
                let out = std::slice::from_raw_parts_mut(pooled.ptr(n), pooled.size());
                direct::mean(self.isa, &source, n, size, own.plain.get(0), out);
            }
        });
        self.logits.clear();
        for n in 0..count {
            let pooled = self.pooled.get(n);
            for (weights, bias) in self.output.chunks_exact(pooled.len()).zip(&self.output_bias) {
                let products = weights.iter().zip(pooled.iter()).map(|(w, x)| f64::from(*w) * f64::from(*x));
                self.logits.push(f64::from(*bias) + products.sum::<f64>());
            }
        }
    }

    /// Gradients of all gammas and betas, after a forward pass of `count` images with batch
    /// statistics; `d_logits` are the loss's.
    pub fn backward(&mut self, count: usize, d_logits: &[f64]) {
        let Self { units, layout, pool, scratch, maps, isa, output, .. } = self;
        let (isa, output, last) = (*isa, &*output, layout.features.len() - 1);
        let size_of = |f: usize| layout.shapes[layout.features[f].shape].1;
        let sink_of = sink(layout, units, maps, last);
        let area = size_of(last).iter().product::<usize>() as f64;
        pool.each(scratch, count, |n, own| {
            let d = &d_logits[n * layout.classes..][..layout.classes];
            let features = output.len() / layout.classes;
            let each = &mut own.plain.get(0)[..features];
            for (c, each) in each.iter_mut().enumerate() {
                let products = d.iter().enumerate().map(|(k, d)| f64::from(output[k * features + c]) * d);
                *each = (products.sum::<f64>() / area) as f32;
            }
            // SAFETY: each item has its image.
            unsafe { direct::write(isa, &sink_of, n, size_of(last), Values::Channels(each)) }
        });
        for u in layout.ends(last) {
            units[u].differentiate(count);
        }
        for f in (0..last).rev() {
            let (sink, size) = (sink(layout, units, maps, f), size_of(f));
            let gradient = |u: usize| {
                let end = layout.end_of(u);
                units[u].gradient(maps.gradient(layout, end), layout.features[end].pooled)
            };
            match layout.features[f].readers.as_slice() {
                [u] if let Way::Winograd { backward, .. } = &units[*u].layer.way => {
                    let (source, group) = (gradient(*u), tiles::images_per_call(size));
                    pool.each(scratch, count.div_ceil(group), |item, own| {
                        let images = item * group..((item + 1) * group).min(count);
                        // SAFETY: each item has its images.
                        unsafe { tiles::run(isa, backward, source, sink, images, own.tiles.get(0)) }
                    });
                }
                readers => pool.each(scratch, count, |n, own| {
                    let dx = &mut own.plain.get(0)[..plain(layout.shapes[layout.features[f].shape].0, size)];
                    for (i, &u) in readers.iter().enumerate() {
                        let layer = &units[u].layer;
                        let g = own.bordered[layout.features[layout.end_of(u)].shape].get(0);
                        // SAFETY: each item has its image.
                        unsafe { direct::read(isa, &gradient(u), n, layer.output, g) };
                        layer.backward(isa, 1, g, dx, i > 0, own.tiles.get(0));
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
}

/// Image `n`: bordered `x` to the unit's z and sums.
///
/// # Safety
/// The caller has image `n` to itself.
unsafe fn convolve(isa: Isa, unit: &Unit, n: usize, x: &[f32], out: &mut [f32], scratch: &mut [f32]) {
    let out = &mut out[..unit.z.size()];
    unit.layer.forward(isa, 1, x, out, scratch);
    let sink = Sink::Keep { z: &unit.z, sums: &unit.sums };
    // SAFETY: the caller's promise.
    unsafe { direct::write(isa, &sink, n, unit.layer.output, Values::Image(out)) }
}

/// Feature `f` on the way forward.
fn source<'a>(layout: &Layout, units: &'a [Unit], maps: &'a Maps, f: usize) -> Source<'a> {
    let feature = &layout.features[f];
    let main = units[feature.unit].normal();
    if feature.pooled {
        return Source::Pooled(main);
    }
    let x = &maps.side[feature.shape];
    let side = match feature.added {
        Added::None => Side::None,
        Added::Feature(_) => Side::Identity(x),
        Added::Unit(u) => Side::Projection(units[u].normal()),
    };
    let mask = (feature.added != Added::None).then(|| &maps.masks[f]);
    Source::Rectified { main, side, x: feature.joins.map(|_| x), mask }
}

/// Where the gradient of feature `f` goes.
fn sink<'a>(layout: &Layout, units: &'a [Unit], maps: &'a Maps, f: usize) -> Sink<'a> {
    let feature = &layout.features[f];
    let (unit, g) = (&units[feature.unit], maps.gradient(layout, f));
    if feature.pooled {
        return Sink::Pooled { g, main: unit.normal(), sums: &unit.sums };
    }
    let pass = match feature.added {
        Added::None => Pass::Above(unit.line()),
        _ => Pass::Bits(&maps.masks[f]),
    };
    let side = if let Added::Unit(u) = feature.added { Some((&units[u].z, &units[u].sums)) } else { None };
    Sink::Rectifier { g, add: feature.joins.is_some(), pass, z: &unit.z, sums: &unit.sums, side }
}

impl Maps {
    fn new(layout: &Layout, batch: usize) -> Self {
        let used = |trunk: bool| {
            let of = |(i, (channels, size)): (usize, &(usize, [usize; 2]))| {
                let mut features = layout.features.iter().enumerate();
                let own = |(f, feature): (usize, &super::layout::Feature)| {
                    feature.shape == i && (layout.trunk(f) == trunk || feature.joins.is_some())
                };
                let used = features.any(own);
                Images::new(if used { batch } else { 0 }, plain(*channels, *size))
            };
            layout.shapes.iter().enumerate().map(of).collect()
        };
        let mask = |f: &super::layout::Feature| {
            let (channels, size) = layout.shapes[f.shape];
            Images::new(if f.added == Added::None { 0 } else { batch }, plain(channels, size) / 16)
        };
        Self { trunk: used(true), side: used(false), masks: layout.features.iter().map(mask).collect() }
    }

    /// The map of the gradient of feature `f`.
    fn gradient(&self, layout: &Layout, f: usize) -> &Images<f32> {
        let shape = layout.features[f].shape;
        if layout.trunk(f) { &self.trunk[shape] } else { &self.side[shape] }
    }
}

impl Scratch {
    fn new(layout: &Layout, units: &[Unit]) -> Self {
        let (mut tiles, mut plain_len, mut image) = (0, 0, 0);
        let mut needed = vec![false; layout.shapes.len()];
        for (unit, found) in units.iter().zip(&layout.units) {
            let conv = &found.conv;
            plain_len = plain_len.max(plain(conv.cout, found.output)).max(plain(conv.cin, found.input));
            let alone = found.reads.is_some_and(|f| layout.features[f].readers.len() == 1);
            if let (Way::Winograd { .. }, true) = (&unit.layer.way, alone) {
                let len = |c, k| tiles::scratch_len(c, k, found.input);
                tiles = tiles.max(len(conv.cin, conv.cout)).max(len(conv.cout, conv.cin));
                continue;
            }
            tiles = tiles.max(unit.layer.scratch_len());
            match found.reads {
                None => image = image.max(bordered(conv.cin, found.input)),
                Some(f) => needed[layout.features[f].shape] = true,
            }
            let written = (conv.cout, found.output);
            layout.shapes.iter().zip(&mut needed).for_each(|(s, needed)| *needed |= *s == written);
        }
        let of = |((channels, size), needed): (&(usize, [usize; 2]), bool)| {
            Images::new(1, if needed { bordered(*channels, *size) } else { 0 })
        };
        Self {
            tiles: Images::new(1, tiles),
            image: Images::new(1, image),
            bordered: layout.shapes.iter().zip(needed).map(of).collect(),
            plain: Images::new(1, plain_len),
        }
    }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
