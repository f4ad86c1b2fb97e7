//! All memory of a group on the device, allocated once. The same walk counts bytes before anything is allocated, so
//! that the prediction cannot drift from the truth. Knows no launches.

use super::{
    device::Address,
    head::Ends,
    maps::{Kind, Read, Target, Write},
    plan::Plan,
    statistics::SUM,
};
use crate::{
    Result,
    cpu::layout::{Added, Feature},
    data::IMAGE_BYTES,
};

/// Bytes of an example on the device.
pub(super) const EXAMPLE: usize = 8;
/// Bytes of an instance's settings on the device.
pub(super) const SETTINGS: usize = 16;
/// Bytes of an instance's sums over examples on the device.
pub(super) const TALLY: usize = 24;
/// Counters that an instance has for launches whose last block does more (`last_block`).
pub(super) const COUNTERS: usize = 64;

/// Addresses; each buffer has a leading instance dimension but for the dataset's.
#[derive(Default)]
pub(super) struct Memory {
    /// By unit: what its convolution wrote.
    z: Vec<Address>,
    /// By feature: its gradient.
    gradients: Vec<Address>,
    /// By feature: itself, if it is written.
    features: Vec<Address>,
    /// By feature: which elements are above zero, if that cannot be told from the unit.
    signs: Vec<Address>,
    /// By unit.
    pub(super) lines: Vec<Address>,
    pub(super) backs: Vec<Address>,
    pub(super) moments: Vec<Address>,
    pub(super) running: Vec<Address>,
    /// By unit: trained positions.
    pub(super) positions: Vec<Address>,
    /// Of all that BatchNorms are made from, by instance: for each unit of z and z z, for each feature of its gradient g and of g z
    /// of its one or two units; and how many words an instance has.
    pub(super) sums: (Address, usize),
    /// By unit, and by feature: where its sums are.
    unit_sums: Vec<usize>,
    feature_sums: Vec<usize>,
    pub(super) split: Address,
    /// What the network's end reads and writes.
    pub(super) ends: Ends,
    pub(super) values: Address,
    pub(super) velocity: Address,
    pub(super) gradient: Address,
    pub(super) places: Address,
    pub(super) packed: Address,
    pub(super) settings: Address,
    /// Sums over steps, and over one batch.
    pub(super) tallies: [Address; 2],
    /// By instance a row of [`COUNTERS`], zero between launches.
    pub(super) counters: Address,
    pub(super) table: Address,
    pub(super) pixels: Address,
}

impl Memory {
    /// Bytes that `plan` takes.
    pub(super) fn bytes(plan: &Plan) -> usize {
        let mut bytes = 0;
        let counted = Self::new(plan, &mut |size| {
            bytes += size.next_multiple_of(256);
            Ok(Address::NONE)
        });
        if counted.is_ok() { bytes } else { usize::MAX }
    }

    /// Memory from `alloc`, which is given bytes.
    ///
    /// # Errors
    /// Those of `alloc`.
    pub(super) fn new(plan: &Plan, alloc: &mut dyn FnMut(usize) -> Result<Address>) -> Result<Self> {
        let (layout, of, batch) = (&plan.layout, &plan.parameters, plan.batch);
        let mut shared = |bytes: usize| if bytes == 0 { Ok(Address::NONE) } else { alloc(bytes) };
        let (table, pixels) = (shared(3 * 256 * 4)?, shared(plan.images * IMAGE_BYTES)?);
        let labels = shared(plan.images * 2)?;
        let mut own = |bytes: usize| shared(bytes * plan.instances);
        let mut memory = Self { table, pixels, ends: Ends { labels, ..Ends::default() }, ..Self::default() };
        memory.maps(plan, &mut own)?;
        for (unit, filters) in layout.units.iter().zip(&of.filters) {
            let channels = unit.conv.cout;
            memory.z.push(own(plan.width() * batch * channels * unit.output.iter().product::<usize>())?);
            memory.lines.push(own(4 * 2 * channels)?);
            memory.backs.push(own(4 * 3 * channels)?);
            memory.moments.push(own(8 * 2 * channels)?);
            memory.running.push(own(4 * 2 * channels)?);
            memory.positions.push(own(4 * channels * filters.each().unwrap_or(0))?);
        }
        let mut bytes = 0;
        let mut place = |sums: usize| {
            bytes += sums * SUM;
            bytes - sums * SUM
        };
        memory.unit_sums = layout.units.iter().map(|unit| place(2 * unit.conv.cout)).collect();
        memory.feature_sums = (0..layout.features.len()).map(|f| place(3 * plan.shape(f).0)).collect();
        memory.sums = (own(bytes)?, bytes / 8);
        let (channels, classes) = (plan.last().0, layout.classes);
        memory.split = own(4 * plan.split_sums())?;
        memory.ends.pooled = own(4 * batch * channels)?;
        memory.ends.logits = own(8 * batch * classes)?;
        memory.ends.d_logits = own(8 * batch * classes)?;
        memory.ends.losses = own(8 * batch)?;
        memory.ends.correct = own(4 * batch)?;
        memory.values = own(4 * of.len)?;
        memory.velocity = own(4 * of.trained)?;
        memory.gradient = own(4 * of.trained)?;
        memory.places = own(4 * 2 * of.weights)?;
        memory.packed = own(plan.width() * of.packed)?;
        memory.settings = own(SETTINGS)?;
        memory.ends.examples = own(EXAMPLE * batch)?;
        memory.tallies = [own(TALLY)?, own(TALLY)?];
        memory.counters = own(4 * COUNTERS)?;
        Ok(memory)
    }

    fn maps(&mut self, plan: &Plan, own: &mut dyn FnMut(usize) -> Result<Address>) -> Result<()> {
        let elements = |shape: usize| {
            let (channels, size) = plan.layout.shapes[shape];
            plan.batch * channels * size.iter().product::<usize>()
        };
        let (gradients, features) = (plan.gradient_slots(), plan.feature_slots());
        let mut pairs = vec![[Address::NONE; 2]; plan.layout.shapes.len()];
        for (shape, pair) in pairs.iter_mut().enumerate() {
            for (slot, map) in pair.iter_mut().enumerate() {
                let used = |f: usize| gradients[f] == slot || features[f] == Some(slot);
                let all = plan.layout.features.iter().enumerate();
                if all.filter(|(_, feature)| feature.shape == shape).any(|(f, _)| used(f)) {
                    *map = own(plan.width() * elements(shape))?;
                }
            }
        }
        for (f, feature) in plan.layout.features.iter().enumerate() {
            self.gradients.push(pairs[feature.shape][gradients[f]]);
            self.features.push(match features[f] {
                Some(slot) => pairs[feature.shape][slot],
                None if plan.kept(f) => own(plan.width() * elements(feature.shape))?,
                None => Address::NONE,
            });
            let signed = feature.added != Added::None;
            self.signs.push(if signed { own(elements(feature.shape) / 4)? } else { Address::NONE });
        }
        Ok(())
    }

    /// Sums of what unit `u` writes, of each of its `channels` channels: of z, and of z z.
    pub(super) fn sums_forward(&self, u: usize, channels: usize) -> [Address; 2] {
        let at = |which: usize| self.sums.0.numbers(self.unit_sums[u] + which * channels * SUM, 1);
        [at(0), at(1)]
    }

    /// Sums of the gradient of feature `f`, of each of its `channels` channels: of g, and of g z of its first and of its
    /// second unit.
    pub(super) fn sums_back(&self, f: usize, channels: usize) -> [Address; 3] {
        [0, 1, 2].map(|which| self.sums.0.numbers(self.feature_sums[f] + which * channels * SUM, 1))
    }

    /// The images.
    pub(super) fn images(&self) -> Read {
        Read::new(Kind::Image, [self.pixels, self.table, self.ends.examples, Address::NONE])
    }

    /// What unit `u` writes on the way forward.
    pub(super) fn sink(&self, u: usize) -> Write {
        Write::new(Target::Keep, self.z[u])
    }

    /// Feature `f` on the way forward.
    pub(super) fn feature(&self, plan: &Plan, f: usize) -> Read {
        let Feature { unit, added, pooled, .. } = plan.layout.features[f];
        let (z, line, none) = (self.z[unit], self.lines[unit], Address::NONE);
        if pooled {
            return Read::new(Kind::Pooled, [z, none, line, none]);
        }
        let (side, side_line) = match added {
            Added::None => (none, none),
            Added::Feature(from) => (self.features[from], none),
            Added::Unit(u) => (self.z[u], self.lines[u]),
        };
        let read = Read::new(Kind::Rectified, [z, side, line, side_line]);
        Read { kept: self.features[f], signs: self.signs[f], ..read }
    }

    /// Feature `f` once more, on the way back.
    pub(super) fn feature_again(&self, plan: &Plan, f: usize) -> Read {
        let none = Address::NONE;
        if plan.kept(f) {
            return Read::new(Kind::Rectified, [self.features[f], none, none, none]);
        }
        self.feature(plan, f).again()
    }

    /// The gradient of what unit `u` wrote.
    pub(super) fn back(&self, plan: &Plan, u: usize) -> Read {
        let end = plan.layout.end_of(u);
        let pooled = plan.layout.features[end].pooled;
        let kind = if pooled { Kind::Unpooled } else { Kind::Gradient };
        Read::new(kind, [self.gradients[end], self.z[u], self.backs[u], self.lines[u]])
    }

    /// Where the gradient of feature `f` goes, `first` of several parts or the last one.
    pub(super) fn gradient(&self, plan: &Plan, f: usize, first: bool, last: bool) -> Write {
        let Feature { unit, added, pooled, joins, .. } = plan.layout.features[f];
        if !last {
            return Write { add: !first, ..Write::new(Target::Plain, self.gradients[f]) };
        }
        let side = if let Added::Unit(u) = added { self.z[u] } else { Address::NONE };
        Write {
            target: if pooled { Target::Maximum } else { Target::Rectifier },
            out: self.gradients[f],
            z: [self.z[unit], side],
            line: self.lines[unit],
            pass: self.signs[f],
            add: !first || joins.is_some(),
        }
    }
}
