//! A step as a list of launches: forward, backward, update, in the order of the CPU engine. Knows no data set.

use super::{
    conv::Conv,
    device::{Address, Launch},
    filters::{self, Places},
    head::Head,
    launches::{Launches, Load, Loaded},
    maps::{Read, Write},
    memory::Memory,
    plan::Plan,
    statistics::{Norm, Sums, clear},
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
/// Those of `load`, where a kernel does not compile.
pub(super) fn launches<'a>(
    load: &'a mut Load<'a>,
    loaded: &'a mut Loaded,
    (plan, memory): (&'a Plan, &'a Memory),
    purpose: Purpose,
    count: usize,
) -> Result<Vec<Launch>> {
    let to = Launches::new(load, loaded, plan.instances);
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

struct Step<'a> {
    plan: &'a Plan,
    memory: &'a Memory,
    purpose: Purpose,
    count: usize,
    to: Launches<'a>,
}

impl Step<'_> {
    fn forward(&mut self) -> Result<()> {
        let (plan, none) = (self.plan, Norm::default());
        if self.purpose != Purpose::Predict {
            clear(&mut self.to, self.memory.sums.0, self.memory.sums.1)?;
        }
        self.forward_unit(0, self.memory.images(), [none; 2])?;
        for (f, feature) in plan.layout.features.iter().enumerate() {
            let mut read = self.memory.feature(plan, f);
            let mut made = [none; 2];
            for (norm, u) in made.iter_mut().zip(plan.layout.ends(f)) {
                *norm = self.norm_forward(u);
            }
            for &u in &feature.readers {
                self.forward_unit(u, read, made)?;
                (read, made) = (read.again(), [none; 2]); // the first reader has kept all
            }
            if feature.readers.is_empty() && self.purpose != Purpose::Predict {
                for (norm, u) in made.iter().zip(plan.layout.ends(f)) {
                    let values = self.values(u);
                    norm.forward(&mut self.to, values)?;
                }
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
        let back = backward.then(|| (memory.gradient(plan, last, true, true), self.sums_back(last)));
        head.launch(&mut self.to, read, &memory.ends, tally, back)
    }

    fn forward_unit(&mut self, u: usize, read: Read, made: [Norm; 2]) -> Result<()> {
        let (conv, memory) = (self.plan.forward(u, read.kind), self.memory);
        let sums = Sums {
            written: (memory.sums_forward(u, conv.outputs)[0], memory.sums.1),
            read: made,
            values: self.plan.layout.units[u]
                .reads
                .map_or(0, |f| self.values(self.plan.layout.features[f].unit)),
        };
        let filters = self.plan.parameters.filters[u].packed[0];
        if self.purpose == Purpose::Predict {
            let read = Read { signs: Address::NONE, ..read };
            self.convolve(&conv, (read, memory.sink(u)), filters, &Sums::default())?;
            return self.norm_forward(u).fix(&mut self.to);
        }
        self.convolve(&conv, (read, memory.sink(u)), filters, &sums)
    }

    fn convolve(&mut self, conv: &Conv, maps: (Read, Write), packed: usize, sums: &Sums) -> Result<()> {
        let filters = self.memory.packed.numbers(packed, self.plan.width());
        conv.launch(&mut self.to, self.count, maps, (filters, self.plan.parameters.packed), sums)
    }

    /// As `cpu/step.rs` has it: filters first, because the gradients that they need are overwritten.
    fn backward(&mut self) -> Result<()> {
        let (plan, last) = (self.plan, self.plan.layout.features.len() - 1);
        self.head().output(&mut self.to, &self.memory.ends)?;
        for f in (0..=last).rev() {
            if f < last {
                self.feature_back(f)?;
            }
            // Filter gradients read lines of their own, and nobody makes those of units whose own reads get no gradient.
            for u in plan.layout.ends(f).filter(|_| f >= plan.lowest) {
                let alone = plan.layout.units[u].reads.is_none_or(|read| read < plan.lowest);
                if plan.filters_train() || alone {
                    let values = self.values(u);
                    self.norm_back(u).backward(&mut self.to, values)?;
                }
            }
        }
        self.filters(0, self.memory.images())
    }

    fn feature_back(&mut self, f: usize) -> Result<()> {
        let (plan, readers) = (self.plan, &self.plan.layout.features[f].readers);
        for &u in readers {
            self.filters(u, self.memory.feature_again(plan, f))?;
        }
        if f < plan.lowest {
            return Ok(());
        }
        for (i, &u) in readers.iter().enumerate() {
            let (read, last) = (self.memory.back(plan, u), i + 1 == readers.len());
            let write = self.memory.gradient(plan, f, i == 0, last);
            let made = if plan.filters_train() { Norm::default() } else { self.norm_back(u) };
            let sums = Sums {
                written: if last { self.sums_back(f) } else { (Address::NONE, 0) },
                read: [made, Norm::default()],
                values: self.values(u),
            };
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

    /// Values of each channel of what unit `u` writes.
    fn values(&self, u: usize) -> usize {
        self.count * self.plan.layout.units[u].output.iter().product::<usize>()
    }

    /// Sums of the gradient of feature `f`, and their distance.
    fn sums_back(&self, f: usize) -> (Address, usize) {
        (self.memory.sums_back(f, self.plan.shape(f).0)[0], self.memory.sums.1)
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

    /// The BatchNorm of unit `u` on the way forward.
    fn norm_forward(&self, u: usize) -> Norm {
        let sums = self.memory.sums_forward(u, self.plan.output(u).0);
        Norm { sums: (sums, self.memory.sums.1), ..self.norm(u) }
    }

    /// On the way back.
    fn norm_back(&self, u: usize) -> Norm {
        let layout = &self.plan.layout;
        let f = layout.end_of(u);
        let [g, first, second] = self.memory.sums_back(f, self.plan.output(u).0);
        let gz = if layout.features[f].unit == u { first } else { second };
        Norm { sums: ([g, gz], self.memory.sums.1), ..self.norm(u) }
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
            sums: ([Address::NONE; 2], 0),
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
