//! A network, what trains of it and how many of it there are: everything that decides sizes and launches. Found once;
//! knows no device.

use super::{conv::Conv, filters, maps::Kind, parameters::Parameters, stored};
use crate::{
    Error, Result,
    arch::Graph,
    cpu::layout::{Added, Feature, Layout, Unit},
    state::fits,
    trainer::{Precision, TrainSpec},
};

/// A group of trainings of one network.
pub(super) struct Plan {
    pub(super) layout: Layout,
    pub(super) parameters: Parameters,
    /// Most images in a step.
    pub(super) batch: usize,
    /// Trainings in a step.
    pub(super) instances: usize,
    /// Images of the dataset.
    pub(super) images: usize,
    pub(super) precision: Precision,
    /// Do convolutions use tensor cores, as far as they can?
    pub(super) tensor_cores: bool,
    /// The first feature whose gradient is wanted.
    pub(super) lowest: usize,
}

/// Does the engine compute what the CPU engine lays out? If not, why.
pub(crate) fn covers(layout: &Layout) -> Result<(), String> {
    for feature in &layout.features {
        if feature.pooled && feature.readers.is_empty() {
            return Err("its last maps must not be pooled by maxima".into());
        }
        let skips = |u: &usize| layout.units[*u].conv.kernel < layout.units[*u].conv.stride;
        if feature.added != Added::None && feature.readers.first().is_some_and(skips) {
            // Who reads a sum first keeps which elements were above zero.
            return Err("the first convolution that reads a sum must read all of it".into());
        }
    }
    Ok(())
}

impl Plan {
    /// For `instances` trainings like `spec` on `images` images of `classes` classes, on a device with `tensor_cores`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the engine does not cover the network; those of a `k` that is larger than a filter.
    pub(super) fn new(
        spec: &TrainSpec,
        instances: usize,
        classes: usize,
        images: usize,
        tensor_cores: bool,
    ) -> Result<Self> {
        let uncovered = |reason: String| Error::Unsupported { engine: "cuda", reason };
        let graph = Graph::new(spec.arch, spec.variant, classes);
        let layout = Layout::new(&graph).map_err(|e| match e {
            Error::Unsupported { reason, .. } => uncovered(reason),
            e => e,
        })?;
        covers(&layout).map_err(uncovered)?;
        fits(&graph, &spec.set)?;
        let parameters = Parameters::new(&graph, &layout, spec, tensor_cores);
        if parameters.len.max(parameters.packed) > u32::MAX as usize {
            return Err(uncovered("it does not cover networks of 2^32 values".into()));
        }
        let (batch, precision) = (spec.batch.max(1), spec.precision);
        let lowest = layout.lowest(|u| parameters.train(u, &layout.units[u]));
        Ok(Self { layout, parameters, batch, instances, images, precision, tensor_cores, lowest })
    }

    /// Has every map fewer elements than kernels can count (`place` in `maps.cu`)?
    pub(super) fn countable(&self) -> bool {
        let elements = |unit: &Unit| self.batch * unit.conv.cout * unit.output.iter().product::<usize>();
        self.layout.units.iter().all(|unit| u32::try_from(elements(unit)).is_ok())
    }

    /// Bytes of a number in maps and filters.
    pub(super) fn width(&self) -> usize {
        stored::width(self.precision)
    }

    /// Channels, rows and columns of what unit `u` writes.
    pub(super) fn output(&self, u: usize) -> (usize, [usize; 2]) {
        let unit = &self.layout.units[u];
        (unit.conv.cout, unit.output)
    }

    /// Channels, rows and columns of feature `f`.
    pub(super) fn shape(&self, f: usize) -> (usize, [usize; 2]) {
        self.layout.shapes[self.layout.features[f].shape]
    }

    /// Do the filters of some unit train?
    pub(super) fn filters_train(&self) -> bool {
        self.parameters.weights > 0
    }

    /// Is feature `f` kept for the filter gradients? Other ones are made again from what was normalised.
    pub(super) fn kept(&self, f: usize) -> bool {
        let Feature { added, joins, readers, .. } = &self.layout.features[f];
        let sum = joins.is_some() || matches!(added, Added::Feature(_));
        sum && readers.iter().any(|u| self.parameters.filters[*u].trained() > 0)
    }

    /// Which of a shape's two maps gets the gradient of each feature: the trunk's are added to in place, all others
    /// change from reader to read, since a convolution reads around the pixels that it writes.
    pub(super) fn gradient_slots(&self) -> Vec<usize> {
        let mut slots = vec![0; self.layout.features.len()];
        for f in (0..slots.len()).rev() {
            if let (false, [u, ..]) = (self.layout.trunk(f), &*self.layout.features[f].readers) {
                slots[f] = 1 - slots[self.layout.end_of(*u)];
            }
        }
        slots
    }

    /// Which of them holds the feature itself on the way forward, where it is added later: not its predecessor's.
    pub(super) fn feature_slots(&self) -> Vec<Option<usize>> {
        let mut slots: Vec<Option<usize>> = Vec::new();
        for (f, feature) in self.layout.features.iter().enumerate() {
            let before = if let Added::Feature(from) = feature.added { slots[from] } else { None };
            let wanted = feature.joins.is_some() && !self.kept(f);
            slots.push(wanted.then(|| 1 - before.unwrap_or(1)));
        }
        slots
    }

    /// The convolution of unit `u`.
    pub(super) fn forward(&self, u: usize, kind: Kind) -> Conv {
        let Unit { conv, output, .. } = &self.layout.units[u];
        Conv {
            filter: conv.kernel,
            stride: conv.stride,
            dilate: 1,
            kind,
            channels: conv.cin,
            outputs: conv.cout,
            size: *output,
            batch: self.batch,
            precision: self.precision,
            tensor_cores: self.tensor_cores,
        }
    }

    /// The convolution that gives the gradient of what unit `u` read.
    pub(super) fn backward(&self, u: usize, kind: Kind) -> Conv {
        let Unit { conv, input, .. } = &self.layout.units[u];
        let (dilate, channels, outputs, size) = (conv.stride, conv.cout, conv.cin, *input);
        Conv { stride: 1, dilate, channels, outputs, size, ..self.forward(u, kind) }
    }

    /// Most sums that the blocks of one filter gradient leave.
    pub(super) fn split_sums(&self) -> usize {
        let of = |(unit, own): (&Unit, &super::parameters::Filters)| {
            own.trained() * filters::splits(unit, own, self.batch)
        };
        self.layout.units.iter().zip(&self.parameters.filters).map(of).max().unwrap_or(0)
    }

    /// The last feature's channels, rows and columns.
    pub(super) fn last(&self) -> (usize, [usize; 2]) {
        self.shape(self.layout.features.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arch::Variant, mode::Mode, support::spec};

    /// Of three and more blocks in a row, each adds what the one before left, and leaves its own.
    #[test]
    fn a_feature_is_written_elsewhere_than_what_is_added_to_it_lies() {
        for (arch, variant) in ["resnet20", "resnet32"]
            .into_iter()
            .flat_map(|arch| [(arch, Variant::Paper), (arch, Variant::Origin)])
        {
            let plan = Plan::new(&spec(arch, variant, Mode::Bn, 3), 1, 10, 8, true).unwrap();
            let slots = plan.feature_slots();
            let mut both = 0;
            for (f, feature) in plan.layout.features.iter().enumerate() {
                let Some(sum) = feature.joins else { continue };
                assert!(slots[f].is_some(), "{arch} {variant}: feature {f} is nowhere");
                assert_ne!(slots[f], slots[sum], "{arch} {variant}: features {f} and {sum}");
                both += usize::from(slots[sum].is_some());
            }
            assert!(both >= 3, "{arch} {variant}: {both}");
        }
    }
}
