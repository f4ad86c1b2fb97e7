//! Where values lie on the device: first what trains (weights of filters before the rest), then what does not but is
//! no filter either; and the two packed copies of every filter tensor, forward `C R S K` and, flipped, backward
//! `K R S C`, or as tensor cores want them. Knows no device.

use std::collections::BTreeMap;

use super::stored;
use crate::{
    arch::{Graph, Param, Role},
    cpu::layout::{Layout, Unit},
    init::random_positions,
    mode::Share,
    tensor::Tensors,
    trainer::{State, TrainSpec},
};

/// What trains of a parameter.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Its name in [`State::values`].
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// Its first value.
    pub(super) at: usize,
}

impl Slot {
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The filters of a unit.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    param: Param,
    pub(super) share: Share,
    /// First value of what trains.
    pub(super) at: usize,
    /// First value of the packed copies; those of the image's reader are one.
    pub(super) packed: [usize; 2],
    /// Numbers of a word, where tensor cores multiply.
    in_word: Option<usize>,
}

/// All values of one instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters {
    pub(super) slots: Vec<Slot>,
    /// By unit.
    pub(super) filters: Vec<Filters>,
    /// First values by parameter, of all that are no filters.
    pub(super) at: BTreeMap<String, usize>,
    /// Values of filters that train.
    pub(super) weights: usize,
    /// Values that train.
    pub(super) trained: usize,
    /// All values.
    pub(super) len: usize,
    /// Values in packed filters.
    pub(super) packed: usize,
}

impl Parameters {
    pub(super) fn new(graph: &Graph, layout: &Layout, spec: &TrainSpec, tensor_cores: bool) -> Self {
        let params = graph.params();
        let is_filter = |param: &Param| matches!(param.role, Role::Conv | Role::Shortcut);
        let mut all = Self::default();
        for filters in [true, false] {
            for param in params.iter().filter(|p| is_filter(p) == filters) {
                let Some((name, shape)) = spec.set.slot(param) else { continue };
                let slot = Slot { name, shape, at: all.trained };
                all.trained += slot.len();
                if !filters {
                    all.at.insert(param.name.clone(), slot.at);
                }
                all.slots.push(slot);
            }
            if filters {
                all.weights = all.trained;
            }
        }
        all.len = all.trained;
        for param in params.iter().filter(|p| !is_filter(p)) {
            if !all.at.contains_key(&param.name) {
                all.at.insert(param.name.clone(), all.len);
                all.len += param.count();
            }
        }
        for unit in &layout.units {
            let name = format!("{}.weight", unit.conv.name);
            for param in params.iter().filter(|p| p.name == name) {
                all.filter(param.clone(), spec, unit.reads.is_none(), tensor_cores);
            }
        }
        all
    }

    /// Does anything of unit `u` train?
    pub(super) fn train(&self, u: usize, unit: &Unit) -> bool {
        let trains = |name: String| self.at.get(&name).is_some_and(|at| *at < self.trained);
        let norm = ["weight", "bias"].map(|part| format!("{}.{part}", unit.norm));
        self.filters[u].trained() > 0
            || trains(format!("{}.bias", unit.conv.name))
            || norm.into_iter().any(trains)
    }

    fn filter(&mut self, param: Param, spec: &TrainSpec, once: bool, tensor_cores: bool) {
        let name = spec.set.slot(&param).map(|(name, _)| name);
        let at = self.slots.iter().find(|slot| Some(&slot.name) == name.as_ref()).map_or(0, |slot| slot.at);
        let forward = self.packed;
        let in_word = tensor_cores.then_some(4 / stored::width(spec.precision));
        // Tensor cores multiply 8 words of channels; those that an image lacks are zero.
        let channels = param.shape[1].next_multiple_of(in_word.map_or(1, |each| 8 * each));
        let len = param.count() / param.shape[1] * channels;
        let backward = if once { forward } else { forward + len };
        self.packed = backward + len;
        self.filters.push(Filters {
            share: spec.set.share(&param),
            param,
            at,
            packed: [forward, backward],
            in_word,
        });
    }

    /// All values of an instance that starts (or goes on) with `state`; `weights` holds what does not train.
    pub(super) fn values(&self, state: &State, weights: &Tensors) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        for (name, at) in &self.at {
            let from = &weights[name].data;
            values[*at..*at + from.len()].copy_from_slice(from);
        }
        for slot in &self.slots {
            values[slot.at..slot.at + slot.len()].copy_from_slice(&state.values[&slot.name].data);
        }
        values
    }

    /// The packed filters.
    pub(super) fn pack(&self, weights: &Tensors) -> Vec<f32> {
        let mut packed = vec![0.0; self.packed];
        for filters in &self.filters {
            for (i, value) in weights[&filters.param.name].data.iter().enumerate() {
                for place in filters.places(i) {
                    packed[place] = *value;
                }
            }
        }
        packed
    }

    /// Where each trained weight goes in the packed filters: two places each.
    pub(super) fn places(&self, spec: &TrainSpec) -> Vec<u32> {
        let mut places = vec![0; 2 * self.weights];
        for filters in &self.filters {
            let trained: Vec<u32> = match filters.share {
                Share::Frozen => continue,
                Share::Full => (0..filters.param.count() as u32).collect(),
                Share::PerFilter { k } => random_positions(spec.seed, &filters.param, k),
            };
            for (value, i) in trained.iter().enumerate() {
                let to = 2 * (filters.at + value);
                for (place, at) in places[to..to + 2].iter_mut().zip(filters.places(*i as usize)) {
                    *place = at as u32;
                }
            }
        }
        places
    }
}

impl Filters {
    /// Filters by themselves.
    #[cfg(test)]
    pub(super) fn alone(param: Param, share: Share) -> Self {
        Self { param, share, at: 0, packed: [0; 2], in_word: None }
    }

    /// Weights of each filter that train, if they are only some.
    pub(super) fn each(&self) -> Option<usize> {
        if let Share::PerFilter { k } = self.share { Some(k) } else { None }
    }

    /// Their positions in `spec`'s instance.
    pub(super) fn positions(&self, spec: &TrainSpec) -> Vec<u32> {
        self.each().map_or_else(Vec::new, |k| random_positions(spec.seed, &self.param, k))
    }

    /// How many values train.
    pub(super) fn trained(&self) -> usize {
        self.share.count(&self.param)
    }

    /// Where element `i` of `K C R S` goes, forward and backward.
    fn places(&self, i: usize) -> [usize; 2] {
        let [outputs, channels] = [self.param.shape[0], self.param.shape[1]];
        let taps = self.param.count() / (outputs * channels);
        let (tap, c, k) = (i % taps, i / taps % channels, i / taps / channels);
        let forward = self.packed[0] + place(self.in_word, [c, tap, k], [taps, outputs]);
        if self.packed[0] == self.packed[1] {
            return [forward, forward];
        }
        [forward, self.packed[1] + place(self.in_word, [k, taps - 1 - tap, c], [taps, channels])]
    }
}

/// Where the weight of channel `c`, a tap and output `k` lies in a copy: `C R S K`, or as `tensor.cu` has it with as
/// many numbers in a word.
pub(super) fn place(in_word: Option<usize>, [c, tap, k]: [usize; 3], [taps, outputs]: [usize; 2]) -> usize {
    let Some(each) = in_word else { return (c * taps + tap) * outputs + k };
    let (word, part) = (c / each, c % each);
    let matrices = (word / 8 * taps + tap) * (outputs / 16) + k / 16;
    // Of two matrices of eight columns, so numbered that a thread's sums, columns 2 t and 2 t + 1 of both, are those of
    // outputs 4 t to 4 t + 3.
    let (matrix, column) = (k / 2 % 2, k % 16 / 4 * 2 + k % 2);
    let thread = column * 4 + word % 4;
    ((matrices * 32 + thread) * 4 + 2 * matrix + word % 8 / 4) * each + part
}
