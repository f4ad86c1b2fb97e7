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
    if purpose != Purpose::Predict {
        let tally = memory.tallies[usize::from(purpose == Purpose::Gradients)];
        step.head().count(&mut step.to, &memory.ends, tally)?;
        if plan.parameters.trained > 0 {
            step.backward()?;
        }
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
        let last = self.memory.feature(plan, plan.layout.features.len() - 1);
        let head = self.head();
        head.forward(&mut self.to, last, &self.memory.ends)
    }

    fn forward_unit(&mut self, u: usize, read: Read) -> Result<()> {
        let conv = self.plan.forward(u, read.kind);
        let predict = self.purpose == Purpose::Predict;
        let read = if predict { Read { signs: Address::NONE, ..read } } else { read };
        self.convolve(&conv, (read, self.memory.sink(u)), self.plan.parameters.filters[u].packed[0])?;
        let norm = self.norm(u);
        if predict {
            return norm.fix(&mut self.to);
        }
        let sums = self.sums(conv.tiles(self.count), u);
        norm.normalise(&mut self.to, sums, self.purpose == Purpose::Step)
    }

    fn convolve(&mut self, conv: &Conv, maps: (Read, Write), packed: usize) -> Result<()> {
        let predict = self.purpose == Purpose::Predict;
        let partial = if predict { Address::NONE } else { self.memory.partial };
        let filters = self.memory.packed.numbers(packed, self.plan.width());
        let packed = (filters, self.plan.parameters.packed);
        conv.launch(&mut self.to, self.count, maps, packed, (partial, self.plan.partials()))
    }

    /// As `cpu/step.rs` has it: filters first, because the gradients that they need are overwritten.
    fn backward(&mut self) -> Result<()> {
        let (plan, last) = (self.plan, self.plan.layout.features.len() - 1);
        let (head, write) = (self.head(), self.memory.gradient(plan, last, true, true));
        head.output(&mut self.to, &self.memory.ends)?;
        let partial = (self.memory.partial, plan.partials());
        head.backward(&mut self.to, write, &self.memory.ends, partial)?;
        self.differentiate(last, self.count)?;
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
        let mut tiles = 0;
        for (i, &u) in readers.iter().enumerate() {
            let read = self.memory.back(plan, u);
            let write = self.memory.gradient(plan, f, i == 0, i + 1 == readers.len());
            let conv = plan.backward(u, read.kind);
            self.convolve(&conv, (read, write), plan.parameters.filters[u].packed[1])?;
            tiles = conv.tiles(self.count);
        }
        self.differentiate(f, tiles)
    }

    /// The BatchNorms that end in feature `f`, whose gradient's writers left sums of `tiles` tiles.
    fn differentiate(&mut self, f: usize, tiles: usize) -> Result<()> {
        for (i, u) in self.plan.layout.ends(f).enumerate() {
            let sums = self.sums(tiles, u);
            self.norm(u).differentiate(&mut self.to, sums, i + 1)?;
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
            true,
            unit,
            [self.count, plan.batch],
            [x, memory.back(plan, u)],
            places,
        )
    }

    fn sums(&self, tiles: usize, u: usize) -> Sums {
        let area: usize = self.plan.layout.units[u].output.iter().product();
        Sums { partial: (self.memory.partial, self.plan.partials()), tiles, count: self.count * area }
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
            running: memory.running[u],
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
            gradients: ([self.gradient(&weights), self.gradient(&bias)], of.trained),
        }
    }
}
