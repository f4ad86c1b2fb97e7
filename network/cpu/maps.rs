//! The memory of a network's features: what forward keeps, what backward passes on, and a worker's
//! own. Knows which features may share a map, and no arithmetic.

use super::{
    buffers::Images,
    conv::{bordered, plain},
    layer::Way,
    layout::{Added, Feature, Layout},
    sinks::{Gate, Sink},
    sources::{Side, Source},
    stored::Stored,
    unit::Unit,
    winograd::chunk,
};

/// Maps of features, one slice per image.
pub(super) struct Maps<S: Stored> {
    /// By shape: gradients of the trunk.
    trunk: Vec<Images<S>>,
    /// By shape: forward, the trunk's current feature; backward, gradients off the trunk.
    side: Vec<Images<S>>,
    /// By feature: the trunk's features that filter gradients need again.
    kept: Vec<Images<S>>,
    /// By feature: which elements are above zero, where that cannot be told from the unit.
    masks: Vec<Images<u16>>,
}

impl<S: Stored> Maps<S> {
    /// For `batch` images; `train`: do the filters of a unit?
    pub(super) fn new(layout: &Layout, batch: usize, train: impl Fn(usize) -> bool) -> Self {
        // The last feature, which nothing reads again, too where filters train: what is kept is rounded to how it is kept.
        let any = (0..layout.units.len()).any(&train);
        let keep = |f: &Feature| {
            let sum = f.joins.is_some() || matches!(f.added, Added::Feature(_));
            sum && (f.readers.iter().any(|u| train(*u)) || any && f.readers.is_empty())
        };
        let used = |trunk: bool| {
            let of = |(i, (channels, size)): (usize, &(usize, [usize; 2]))| {
                let own = |(f, feature): (usize, &Feature)| {
                    let passes = !trunk && !keep(feature) && feature.joins.is_some();
                    feature.shape == i && (layout.trunk(f) == trunk || passes)
                };
                let used = layout.features.iter().enumerate().any(own);
                Images::new(if used { batch } else { 0 }, plain(*channels, *size))
            };
            layout.shapes.iter().enumerate().map(of).collect()
        };
        let by_feature = |lanes: usize, wanted: &dyn Fn(&Feature) -> bool| {
            let of = |f: &Feature| {
                let (channels, size) = layout.shapes[f.shape];
                (if wanted(f) { batch } else { 0 }, plain(channels, size) / lanes)
            };
            layout.features.iter().map(of).collect::<Vec<_>>()
        };
        let kept = by_feature(1, &keep).into_iter().map(|(n, size)| Images::new(n, size)).collect();
        let masks = by_feature(16, &|f| f.added != Added::None);
        let masks = masks.into_iter().map(|(n, size)| Images::new(n, size)).collect();
        Self { trunk: used(true), side: used(false), kept, masks }
    }

    /// Where the trunk's feature `f` is kept, if not beside its predecessors.
    fn x(&self, layout: &Layout, f: usize) -> &Images<S> {
        if self.kept[f].bytes() > 0 { &self.kept[f] } else { &self.side[layout.features[f].shape] }
    }

    /// The map of the gradient of feature `f`.
    pub(super) fn gradient(&self, layout: &Layout, f: usize) -> &Images<S> {
        let shape = layout.features[f].shape;
        if layout.trunk(f) { &self.trunk[shape] } else { &self.side[shape] }
    }

    /// Feature `f` on the way forward.
    pub(super) fn source<'a>(&'a self, layout: &Layout, units: &'a [Unit<S>], f: usize) -> Source<'a, S> {
        let feature = &layout.features[f];
        let main = units[feature.unit].normal();
        if feature.pooled {
            return Source::Pooled(main);
        }
        let side = match feature.added {
            Added::None => Side::None,
            Added::Feature(from) => Side::Identity(self.x(layout, from)),
            Added::Unit(u) => Side::Projection(units[u].normal()),
        };
        let mask = (feature.added != Added::None).then(|| &self.masks[f]);
        let keep = feature.joins.is_some() || self.kept[f].bytes() > 0;
        Source::Rectified { main, side, x: keep.then(|| self.x(layout, f)), mask }
    }

    /// Feature `f` once more, on the way back of a network whose filters train.
    pub(super) fn again<'a>(&'a self, layout: &Layout, units: &'a [Unit<S>], f: usize) -> Source<'a, S> {
        match self.source(layout, units, f) {
            Source::Rectified { x: Some(x), .. } => Source::Plain(x),
            Source::Rectified { main, side, .. } => Source::Rectified { main, side, x: None, mask: None },
            source => source,
        }
    }

    /// Which elements of feature `f` were above zero on the way forward, where that is kept.
    pub(super) fn mask(&self, f: usize) -> Option<&Images<u16>> {
        Some(&self.masks[f]).filter(|mask| mask.bytes() > 0)
    }

    /// Where the gradient of feature `f` goes.
    pub(super) fn sink<'a>(&'a self, layout: &Layout, units: &'a [Unit<S>], f: usize) -> Sink<'a, S> {
        let feature = &layout.features[f];
        let (unit, g) = (&units[feature.unit], self.gradient(layout, f));
        if feature.pooled {
            return Sink::Pooled { g, main: unit.normal(), sums: &unit.sums };
        }
        let gate = match feature.added {
            Added::None => Gate::Above(unit.line()),
            _ => Gate::Bits(&self.masks[f]),
        };
        let side =
            if let Added::Unit(u) = feature.added { Some((&*units[u].z, &units[u].sums)) } else { None };
        Sink::Rectifier { g, add: feature.joins.is_some(), gate, z: &unit.z, sums: &unit.sums, side }
    }

    /// The gradient of what unit `u` wrote.
    pub(super) fn back<'a>(&'a self, layout: &Layout, units: &'a [Unit<S>], u: usize) -> Source<'a, S> {
        let end = layout.end_of(u);
        units[u].gradient(self.gradient(layout, end), layout.features[end].pooled)
    }

    /// Bytes of the trunk, the side, the kept features and the masks.
    pub(super) fn bytes(&self) -> [usize; 4] {
        let sum = |maps: &[Images<S>]| maps.iter().map(Images::bytes).sum();
        let masks = self.masks.iter().map(Images::bytes).sum();
        [sum(&self.trunk), sum(&self.side), sum(&self.kept), masks]
    }
}

/// A worker's own memory.
pub(super) struct Scratch {
    /// Which worker's.
    pub index: usize,
    /// Of the algorithms.
    pub tiles: Images<f32>,
    /// Bordered images of 16 lanes, of which three are used.
    pub image: Images<f32>,
    /// By shape: bordered inputs.
    pub inputs: Vec<Images<f32>>,
    /// By shape: bordered gradients of outputs.
    pub outputs: Vec<Images<f32>>,
    /// One image, or a gradient.
    pub plain: Images<f32>,
}

impl Scratch {
    pub(super) fn new(layout: &Layout, units: &[Unit<impl Stored>], index: usize) -> Self {
        let (mut tiles, mut plain_len, mut images) = (0, 0, 0);
        let (mut inputs, mut outputs) = (vec![0; layout.shapes.len()], vec![0; layout.shapes.len()]);
        for (unit, found) in units.iter().zip(&layout.units) {
            let conv = &found.conv;
            plain_len = plain_len.max(plain(conv.cout, found.output)).max(plain(conv.cin, found.input));
            let read = found.reads.map(|f| &layout.features[f]);
            let mut need = |count: usize| {
                match read {
                    None => images = images.max(count),
                    Some(f) => inputs[f.shape] = count.max(inputs[f.shape]),
                }
                outputs[found.shape] = count.max(outputs[found.shape]);
            };
            if let Some(filters) = &unit.filters {
                tiles = tiles.max(filters.gradient.scratch_len());
                need(chunk(found.input));
            }
            tiles = tiles.max(unit.layer.scratch_len());
            if let Way::Direct(_) = unit.layer.way {
                need(1);
            }
        }
        let of = |counts: Vec<usize>| {
            let maps = layout.shapes.iter().zip(counts);
            maps.map(|((channels, size), count)| Images::new(count, bordered(*channels, *size))).collect()
        };
        let image = layout.units.first().map_or(0, |unit| bordered(unit.conv.cin, unit.input));
        Self {
            index,
            tiles: Images::new(1, tiles),
            image: Images::new(images, image),
            inputs: of(inputs),
            outputs: of(outputs),
            plain: Images::new(1, plain_len),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let maps = [&self.tiles, &self.image, &self.plain].into_iter();
        maps.chain(&self.inputs).chain(&self.outputs).map(Images::bytes).sum()
    }
}
