//! A step as a list of launches: forward, backward, update, in the order of the CPU engine. Knows no data set.

use super::{
    conv::Conv,
    device::{Address, Device, Launch},
    filters::{self, Places},
    head::Head,
    launches::{Launches, Loaded},
    maps::{Read, Write},
    memory::Memory,
    plan::Plan,
    statistics::{Norm, Sums},
    update::{self, Values},
};
use crate::Result;

/// What a list of launches is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// An optimisation step.
    Step,
    /// Gradients and the tally of one batch, nothing else.
    Gradients,
    /// Logits, with running statistics.
    Predict,
    /// Trained weights packed as filters.
    Pack,
}

/// The launches of `purpose` on `count` images.
///
/// # Errors
/// Those of the device, where a kernel does not compile.
pub(super) fn launches<D: Device>(
    device: &mut D,
    loaded: &mut Loaded,
    (plan, memory): (&Plan, &Memory),
    purpose: Purpose,
    count: usize,
) -> Result<Vec<Launch>> {
    let to = Launches::new(device, loaded, plan.instances);
    let mut step = Step { plan, memory, purpose, count, to };
    if purpose == Purpose::Pack {
        update::pack(&mut step.to, &Values::new(plan, memory))?;
        return Ok(step.to.list);
    }
    step.forward()?;
    if purpose != Purpose::Predict && plan.parameters.trained > 0 {
        step.backward()?;
    }
    if purpose == Purpose::Step {
        update::sgd(&mut step.to, &Values::new(plan, memory))?;
    }
    Ok(step.to.list)
}

struct Step<'a, D> {
    plan: &'a Plan,
    memory: &'a Memory,
    purpose: Purpose,
    count: usize,
    to: Launches<'a, D>,
}

impl<D: Device> Step<'_, D> {
    fn forward(&mut self) -> Result<()> {
        self.forward_unit(0, self.memory.images())?;
        let plan = self.plan;
        for (f, feature) in plan.layout.features.iter().enumerate() {
            let mut read = self.memory.feature(plan, f);
            for &u in &feature.readers {
                self.forward_unit(u, read)?;
                read = read.again(); // the first reader has kept it
            }
        }
        self.end(plan.layout.features.len() - 1)
    }

    /// The network's end and, where something trains, the gradient of its last feature.
    fn end(&mut self, last: usize) -> Result<()> {
        let (plan, memory, head) = (self.plan, self.memory, self.head());
        let read = memory.feature(plan, last);
        let (tally, backward) = match self.purpose {
            Purpose::Predict | Purpose::Pack => (Address::NONE, false),
            Purpose::Step => (memory.tallies[0], plan.parameters.trained > 0),
            Purpose::Gradients => (memory.tallies[1], plan.parameters.trained > 0),
        };
        let back =
            backward.then(|| (memory.gradient(plan, last, true, true), (memory.partial, plan.partials())));
        head.launch(&mut self.to, read, &memory.ends, tally, back)
    }

    fn forward_unit(&mut self, u: usize, read: Read) -> Result<()> {
        let conv = self.plan.forward(u, read.kind);
        let predict = self.purpose == Purpose::Predict;
        let read = if predict { Read { signs: Address::NONE, ..read } } else { read };
        let (norm, none) = (self.norm(u), Norm::default());
        let sums = if predict { Sums::default() } else { self.sums([norm, none]) };
        let filters = self.plan.parameters.filters[u].packed[0];
        self.convolve(&conv, (read, self.memory.sink(u)), filters, &sums)?;
        if predict { self.norm(u).fix(&mut self.to) } else { Ok(()) }
    }

    fn convolve(&mut self, conv: &Conv, maps: (Read, Write), packed: usize, sums: &Sums) -> Result<()> {
        let filters = self.memory.packed.numbers(packed, self.plan.width());
        conv.launch(&mut self.to, self.count, maps, (filters, self.plan.parameters.packed), sums)
    }

    /// As `cpu/step.rs` has it: filters first, because the gradients that they need are overwritten.
    fn backward(&mut self) -> Result<()> {
        let (plan, last) = (self.plan, self.plan.layout.features.len() - 1);
        self.head().output(&mut self.to, &self.memory.ends)?;
        let (partial, area) = ((self.memory.partial, plan.partials()), plan.last().1.iter().product::<usize>());
        for (i, u) in plan.layout.ends(last).enumerate() {
            self.norm(u).back(&mut self.to, partial, [self.count, self.count * area, i + 1])?;
        }
        for f in (0..last).rev() {
            for &u in &plan.layout.features[f].readers {
                self.filters(u, self.memory.feature_again(plan, f))?;
            }
            self.feature_back(f)?;
        }
        self.filters(0, self.memory.images())
    }

    fn feature_back(&mut self, f: usize) -> Result<()> {
        let (plan, readers) = (self.plan, &self.plan.layout.features[f].readers);
        let mut norms = [Norm::default(); 2];
        for (norm, u) in norms.iter_mut().zip(plan.layout.ends(f)) {
            *norm = self.norm(u);
        }
        for (i, &u) in readers.iter().enumerate() {
            let (read, last) = (self.memory.back(plan, u), i + 1 == readers.len());
            let write = self.memory.gradient(plan, f, i == 0, last);
            let sums = if last { self.sums(norms) } else { Sums::default() };
            let filters = plan.parameters.filters[u].packed[1];
            self.convolve(&plan.backward(u, read.kind), (read, write), filters, &sums)?;
        }
        Ok(())
    }

    fn filters(&mut self, u: usize, x: Read) -> Result<()> {
        let (plan, memory) = (self.plan, self.memory);
        let own = &plan.parameters.filters[u];
        if own.trained() == 0 {
            return Ok(());
        }
        let places = Places {
            at: memory.positions[u],
            partial: (memory.split, plan.split_sums()),
            gradient: (memory.gradient.floats(own.at), plan.parameters.trained),
        };
        let unit = (&plan.layout.units[u], own);
        let precision = plan.precision;
        filters::launch(
            &mut self.to,
            precision,
            plan.tensor_cores,
            unit,
            [self.count, plan.batch],
            [x, memory.back(plan, u)],
            places,
        )
    }

    fn sums(&self, norms: [Norm; 2]) -> Sums {
        let partial = (self.memory.partial, self.plan.partials());
        Sums { partial, counters: self.memory.counters, norms }
    }

    /// Where a parameter lies, if there is one of that name.
    fn value(&self, name: &str) -> Address {
        let at = self.plan.parameters.at.get(name);
        at.map_or(Address::NONE, |at| self.memory.values.floats(*at))
    }

    /// Where its gradient goes, if it trains.
    fn gradient(&self, name: &str) -> Address {
        let of = &self.plan.parameters;
        let at = of.at.get(name).filter(|at| **at < of.trained);
        at.map_or(Address::NONE, |at| self.memory.gradient.floats(*at))
    }

    fn norm(&self, u: usize) -> Norm {
        let (unit, of, memory) = (&self.plan.layout.units[u], &self.plan.parameters, self.memory);
        let follow = self.purpose != Purpose::Gradients;
        let [gamma, beta] = ["weight", "bias"].map(|part| format!("{}.{part}", unit.norm));
        Norm {
            channels: unit.conv.cout,
            gamma: self.value(&gamma),
            beta: self.value(&beta),
            bias: self.value(&format!("{}.bias", unit.conv.name)),
            values: of.len,
            gradients: ([self.gradient(&gamma), self.gradient(&beta)], of.trained),
            moments: memory.moments[u],
            line: memory.lines[u],
            back: memory.backs[u],
            running: if follow { memory.running[u] } else { Address::NONE },
        }
    }

    fn head(&self) -> Head {
        let (channels, size) = self.plan.last();
        let of = &self.plan.parameters;
        let [weights, bias] = ["weight", "bias"].map(|part| format!("{}.{part}", self.plan.layout.output));
        Head {
            channels,
            size,
            classes: self.plan.layout.classes,
            count: self.count,
            batch: self.plan.batch,
            precision: self.plan.precision,
            weights: self.value(&weights),
            bias: self.value(&bias),
            values: of.len,
            counters: self.memory.counters,
            gradients: ([self.gradient(&weights), self.gradient(&bias)], of.trained),
        }
    }
}
