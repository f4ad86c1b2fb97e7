//! Prediction: a worker takes a few images through the whole network before the next ones, so that the
//! maps between two convolutions stay in its caches; outputs are normalised, added and rectified while
//! they are written. Has no memory of its own: maps lie where a training step keeps the outputs of
//! convolutions, each worker's in images of its own. Knows no batch statistics and no way back.
#![allow(unsafe_code)] // each worker has its images to itself

use std::{ops::Range, sync::Arc};

use super::{
    buffers::Images,
    direct::{self, Values},
    lanes::Isa,
    layer::Way,
    layout::{Added, Layout},
    maps::Scratch,
    sinks::Sink,
    sources::{Normal, Side, Source},
    step::Step,
    stored::Stored,
    tiles,
    unit::Unit,
};

/// Where a prediction keeps what, and how many images go together.
pub(super) struct Route {
    /// Images that a worker takes through the network at once.
    group: usize,
    /// By feature: the units in whose outputs' place it lies, and its projection.
    places: Vec<(usize, Option<usize>)>,
}

impl Route {
    /// For `batch` images, of which each worker has the same share for its maps.
    pub(super) fn new(layout: &Layout, units: &[Unit<impl Stored>], batch: usize, workers: usize) -> Self {
        let full = units.iter().map(|unit| match &unit.layer.way {
            Way::Winograd { forward, .. } => tiles::images_per_call(forward),
            Way::Direct(_) => 1,
        });
        let group = full.max().unwrap_or(1).min(batch / workers).max(1);
        let last = last_uses(layout);
        // Of units that share a place, the first one stands for it.
        let own = |u: usize| (0..u).all(|before| !Arc::ptr_eq(&units[before].z, &units[u].z));
        let own: Vec<bool> = (0..units.len()).map(own).collect();
        // By unit: the first feature that may be written over what lies in the place of its outputs.
        let mut free = vec![0; layout.units.len()];
        let mut places: Vec<(usize, Option<usize>)> = Vec::new();
        for (f, feature) in layout.features.iter().enumerate() {
            let shape = layout.units[feature.unit].shape;
            let take = |free: &mut Vec<usize>, until: usize| {
                let fits = |u: &usize| layout.units[*u].shape == shape && free[*u] <= f && own[*u];
                let place = (0..free.len()).find(fits).unwrap_or(feature.unit);
                free[place] = until + 1;
                place
            };
            let map = match feature.added {
                Added::Feature(from) if last[from] == f && layout.units[feature.unit].reads != Some(from) => {
                    let place = places[from].0; // over the shortcut, pixel by pixel
                    free[place] = last[f] + 1;
                    place
                }
                _ => take(&mut free, last[f]),
            };
            places.push((map, matches!(feature.added, Added::Unit(_)).then(|| take(&mut free, f))));
        }
        Self { group, places }
    }
}

/// By feature: the last one that is made of it.
fn last_uses(layout: &Layout) -> Vec<usize> {
    let mut last: Vec<usize> = (0..layout.features.len()).collect();
    let reads = layout.units.iter().enumerate().filter_map(|(u, unit)| Some((unit.reads?, layout.end_of(u))));
    let joins = layout.features.iter().enumerate().filter_map(|(f, feature)| Some((f, feature.joins?)));
    for (from, to) in reads.chain(joins) {
        last[from] = last[from].max(to);
    }
    last
}

impl<S: Stored> Step<S> {
    /// The logits of `count` images, normalised by mean and variance of each channel of each unit;
    /// `load(n, bordered)` writes the inside of image `n`, channels innermost of 16.
    pub(crate) fn predict(
        &mut self,
        count: usize,
        statistics: &[Vec<[f64; 2]>],
        load: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        self.units.iter_mut().zip(statistics).for_each(|(unit, by)| unit.normalise_by(by));
        let Self { units, layout, pool, scratch, pooled, route, .. } = self;
        let (isa, group) = (self.isa, route.group);
        let pass = Pass { isa, layout, units, route };
        pool.each(scratch, count.div_ceil(group), |item, own| {
            let images = item * group..((item + 1) * group).min(count);
            // SAFETY: each worker has its images of every map, each item its images of the result.
            unsafe { pass.run(images, own, pooled, &load) }
        });
        self.guess(count);
    }
}

/// A network on its way forward.
struct Pass<'a, S: Stored> {
    isa: Isa,
    layout: &'a Layout,
    units: &'a [Unit<S>],
    route: &'a Route,
}

impl<S: Stored> Pass<'_, S> {
    /// Takes `images` through the network, to the means of the last feature in `pooled`.
    ///
    /// # Safety
    /// The caller has the worker's images of every map and `images` of `pooled` to itself.
    unsafe fn run(
        &self,
        images: Range<usize>,
        own: &mut Scratch,
        pooled: &Images<f32>,
        load: &impl Fn(usize, &mut [f32]),
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for (f, feature) in self.layout.features.iter().enumerate() {
                let place = |unit: usize| &self.units[unit].z;
                let (map, projection) = self.route.places[f];
                let (x, main) = (place(map), &self.units[feature.unit]);
                let side = match (feature.added, projection) {
                    (Added::Feature(from), _) => Side::Identity(place(self.route.places[from].0)),
                    (Added::Unit(u), Some(z)) => {
                        let z = place(z);
                        self.convolve(u, Sink::Keep { z, sums: None }, &images, own, load);
                        Side::Projection(Normal { z, line: self.units[u].line() })
                    }
                    _ => Side::None,
                };
                let sink = if feature.pooled {
                    Sink::Keep { z: x, sums: None }
                } else {
                    Sink::Predict { line: main.line(), side, x }
                };
                self.convolve(feature.unit, sink, &images, own, load);
            }
            let last = self.layout.features.len() - 1;
            let size = self.layout.shapes[self.layout.features[last].shape].1;
            for (i, n) in images.enumerate() {
                let out = std::slice::from_raw_parts_mut(pooled.ptr(n), pooled.size());
                let from = own.index * self.route.group + i;
                direct::mean(self.isa, &self.source(last), from, size, own.plain.get(0), out);
            }
        }
    }

    /// Feature `f`, made before.
    fn source(&self, f: usize) -> Source<'_, S> {
        let (feature, z) = (&self.layout.features[f], &self.units[self.route.places[f].0].z);
        if feature.pooled {
            Source::Pooled(Normal { z, line: self.units[feature.unit].line() })
        } else {
            Source::Plain(z)
        }
    }

    /// The outputs of unit `u`.
    ///
    /// # Safety
    /// As [`Pass::run`].
    unsafe fn convolve(
        &self,
        u: usize,
        sink: Sink<'_, S>,
        images: &Range<usize>,
        own: &mut Scratch,
        load: &impl Fn(usize, &mut [f32]),
    ) {
        let (unit, layer) = (&self.layout.units[u], &self.units[u].layer);
        let (first, count) = (own.index * self.route.group, images.len());
        if let (Some(f), Way::Winograd { forward, .. }) = (unit.reads, &layer.way) {
            let together = tiles::images_per_call(forward);
            for i in (0..count).step_by(together) {
                let images = first + i..first + (i + together).min(count);
                // SAFETY: the caller's promise.
                unsafe {
                    tiles::run(self.isa, forward, self.source(f), sink, images, false, own.tiles.get(0));
                }
            }
            return;
        }
        for i in 0..count {
            let x = match unit.reads {
                None => {
                    load(images.start + i, own.image.get(0));
                    own.image.get(0)
                }
                Some(f) => {
                    let x = own.inputs[self.layout.features[f].shape].get(0);
                    // SAFETY: the caller's promise.
                    unsafe { direct::read(self.isa, &self.source(f), first + i, unit.input, x) };
                    x
                }
            };
            let out = &mut own.plain.get(0)[..self.units[u].z.size()];
            layer.direct().forward(self.isa, x, out);
            // SAFETY: the caller's promise.
            unsafe { direct::write(self.isa, &sink, first + i, unit.output, Values::Image(out)) }
        }
    }
}
