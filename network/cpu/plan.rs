//! The fused step as a list: the passes that [`Step`] runs, in the order and from the sources and sinks
//! of its own methods, and its buffers. Computes nothing.

use super::{
    buffers::Images,
    layer::Way,
    sinks::{Gate, Sink},
    sources::{Side, Source},
    step::Step,
    stored::Stored,
};
use crate::{
    arch::IMAGE_SIZE,
    plan::{Buffer, Direction, Pass, Plan},
};

/// Bytes of an image's slice.
fn slice<T: Copy>(images: &Images<T>) -> u64 {
    (images.size() * size_of::<T>()) as u64
}

impl<S: Stored> Source<'_, S> {
    /// What is done on reading, bytes that are read of an image, and bytes that are written meanwhile.
    fn plan(&self) -> (Vec<&'static str>, u64, u64) {
        match self {
            Source::Plain(x) => (vec![], slice(x), 0),
            Source::Rectified { main, side, x, mask } => {
                let mut done = vec!["normalise"];
                done.extend(match side {
                    Side::None => None,
                    Side::Identity(_) => Some("add"),
                    Side::Projection(_) => Some("add normalised"),
                });
                done.push("rectify");
                done.extend(x.map(|_| "keep"));
                done.extend(mask.map(|_| "keep signs"));
                let written = x.map_or(0, slice) + mask.map_or(0, slice);
                (done, slice(main.z) + side.map().map_or(0, slice), written)
            }
            Source::Pooled(main) => (vec!["normalise", "rectify", "maximum"], slice(main.z), 0),
            Source::Gradient { g, z, .. } => (vec!["normalise back"], slice(g) + slice(z), 0),
            Source::Unpooled { g, main, .. } => {
                (vec!["maximum back", "normalise back"], slice(g) + slice(main.z), 0)
            }
        }
    }
}

impl<S: Stored> Sink<'_, S> {
    /// What is done on writing, bytes that are read of an image meanwhile, and bytes that are written.
    fn plan(&self) -> (Vec<&'static str>, u64, u64) {
        match self {
            Sink::Keep { z, sums } => (sums.iter().map(|_| "sum").collect(), 0, slice(z)),
            Sink::Rectifier { g, add, gate, z, side, .. } => {
                let (word, signs) = match gate {
                    Gate::Bits(mask) => ("rectify back by signs", slice(mask)),
                    Gate::Above(_) => ("rectify back", 0),
                };
                let done = if *add { vec!["add", word, "sum"] } else { vec![word, "sum"] };
                let sides = side.map_or(0, |(z, _)| slice(z)) + if *add { slice(g) } else { 0 };
                (done, slice(z) + sides + signs, slice(g))
            }
            Sink::Pooled { g, main, .. } => {
                (vec!["maximum back", "rectify back", "sum"], slice(main.z), slice(g))
            }
            Sink::Predict { side, x, .. } => {
                (vec!["normalise", "add", "rectify"], side.map().map_or(0, slice), slice(x))
            }
        }
    }
}

impl<S: Stored> Step<S> {
    /// What it does and holds.
    pub(crate) fn plan(&self) -> Plan {
        let mut passes = vec![self.first()];
        for (f, feature) in self.layout.features.iter().enumerate().filter(|(_, f)| !f.readers.is_empty()) {
            passes.push(self.forward_pass(f, &feature.readers));
        }
        let last = self.last().0;
        passes.push(self.head_pass(last));
        passes.push(self.head_back_pass(last));
        for (f, feature) in
            self.layout.features.iter().enumerate().take(last).rev().filter(|(f, _)| self.wants(*f))
        {
            if let Some(read) = self.outputs.again(&self.layout, f) {
                let readers = &self.layout.features[read].readers;
                passes.push(Pass { direction: Direction::Again, ..self.forward_pass(read, readers) });
            }
            passes.extend(feature.readers.iter().filter_map(|u| self.filter_pass(*u)));
            if f >= self.lowest {
                passes.push(self.backward_pass(f, &feature.readers));
            }
        }
        passes.extend(self.filter_pass(0));
        Plan { passes, buffers: self.buffers() }
    }

    fn pass(&self, direction: Direction, units: &[usize]) -> Pass {
        let algorithm = |u: &usize| match self.units[*u].layer.way {
            Way::Direct(_) => "direct",
            Way::Winograd { .. } => "winograd",
        };
        let flop = |u: &usize| {
            let layer = &self.units[*u].layer;
            2 * (layer.sizes.len() * layer.sizes.output.iter().product::<usize>()) as u64
        };
        Pass {
            direction,
            modules: units.iter().map(|u| self.units[*u].conv.clone()).collect(),
            algorithms: units.iter().map(algorithm).collect(),
            on_read: vec![],
            on_write: vec![],
            bytes_read: 0,
            bytes_written: 0,
            flop: units.iter().map(flop).sum(),
        }
    }

    /// The output layer's.
    fn output_pass(&self, direction: Direction) -> Pass {
        let modules = vec![self.layout.output.clone()];
        let flop = 2 * self.output.weights.len() as u64;
        Pass { modules, algorithms: vec!["direct"], flop, ..self.pass(direction, &[]) }
    }

    fn first(&self) -> Pass {
        let mut pass = self.pass(Direction::Forward, &[0]);
        (pass.on_read, pass.bytes_read) = (vec!["cut"], (3 * IMAGE_SIZE * IMAGE_SIZE) as u64);
        pass.write(&Sink::Keep { z: &self.units[0].z, sums: Some(&self.units[0].sums) });
        pass
    }

    fn forward_pass(&self, f: usize, readers: &[usize]) -> Pass {
        let mut pass = self.pass(Direction::Forward, readers);
        pass.read(&self.maps.source(&self.layout, &self.units, f));
        for u in readers {
            pass.write(&Sink::Keep { z: &self.units[*u].z, sums: Some(&self.units[*u].sums) });
        }
        pass
    }

    fn head_pass(&self, last: usize) -> Pass {
        let mut pass = self.output_pass(Direction::Forward);
        pass.read(&self.maps.source(&self.layout, &self.units, last));
        pass.on_write.push("mean");
        pass.bytes_written += slice(&self.pooled);
        pass
    }

    fn head_back_pass(&self, last: usize) -> Pass {
        let mut pass = self.output_pass(Direction::Backward);
        pass.flop *= 2; // to the data and to the weights
        pass.bytes_read += slice(&self.pooled);
        pass.write(&self.maps.sink(&self.layout, &self.units, last));
        pass
    }

    fn backward_pass(&self, f: usize, readers: &[usize]) -> Pass {
        let mut pass = self.pass(Direction::Backward, readers);
        for u in readers {
            pass.read(&self.maps.back(&self.layout, &self.units, *u));
        }
        pass.write(&self.maps.sink(&self.layout, &self.units, f));
        pass
    }

    /// That of unit `u`, where its filters train.
    fn filter_pass(&self, u: usize) -> Option<Pass> {
        let filters = self.units[u].filters.as_ref()?;
        let mut pass = self.pass(Direction::Filters, &[u]);
        pass.algorithms = vec![filters.gradient.algorithm()];
        pass.flop = pass.flop * filters.values.len() as u64 / self.units[u].layer.sizes.len() as u64;
        match self.layout.units[u].reads {
            Some(f) => pass.read(&self.maps.again(&self.layout, &self.units, f)),
            None => (pass.on_read, pass.bytes_read) = (vec!["cut"], (3 * IMAGE_SIZE * IMAGE_SIZE) as u64),
        }
        pass.read(&self.maps.back(&self.layout, &self.units, u));
        pass.on_write.push("sum");
        Some(pass)
    }

    fn buffers(&self) -> Vec<Buffer> {
        let sum = |of: &dyn Fn(&super::unit::Unit<S>) -> usize| self.units.iter().map(of).sum::<usize>();
        let floats = |n: usize| 4 * n;
        let [trunk, side, kept, masks] = self.maps.bytes();
        let values = |u: &super::unit::Unit<S>| u.filters.as_ref().map_or(0, |f| floats(f.values.len()));
        let output = &self.output;
        let scratch = self.scratch.iter().map(|own| own.bytes()).sum();
        let of = |name, bytes, of_batch| Buffer { name, bytes, of_batch };
        vec![
            of("outputs of convolutions", self.output_bytes(&self.outputs), true),
            of("gradients on the trunk", trunk, true),
            of("features, and gradients off the trunk", side, true),
            of("features that filters need again", kept, true),
            of("signs of sums", masks, true),
            of("sums of BatchNorm", sum(&|u| u.sums.bytes()), true),
            of("sums of filter gradients", self.sums.iter().map(Images::bytes).sum(), true),
            of("means of the last feature", self.pooled.bytes(), true),
            of("logits, and their gradients", 16 * self.pooled.count() * self.layout.classes, true),
            of("prepared filters", sum(&|u| floats(u.layer.filters_len())), false),
            of("gradients of filters", sum(&values), false),
            of("BatchNorm", sum(&|u| u.channel_bytes()), false),
            of("output layer", 2 * floats(output.weights.len() + output.bias.len()), false),
            of("scratch of the threads", scratch, false),
        ]
    }
}

impl Pass {
    fn read(&mut self, source: &Source<'_, impl Stored>) {
        let (done, read, written) = source.plan();
        self.on_read.extend(done.iter().filter(|word| !self.on_read.contains(word)).collect::<Vec<_>>());
        self.bytes_read += read;
        self.bytes_written += written;
    }

    fn write(&mut self, sink: &Sink<'_, impl Stored>) {
        let (done, read, written) = sink.plan();
        self.on_write.extend(done.iter().filter(|word| !self.on_write.contains(word)).collect::<Vec<_>>());
        self.bytes_read += read;
        self.bytes_written += written;
    }
}
