//! Where the outputs of convolutions lie: each unit's for itself, or, where memory is short, in a place that
//! units of one shape share. What such a unit wrote on the way forward is written over by the next one and
//! computed again on the way back, to the same bits: its inputs are a kept output and a BatchNorm's line.
//! Computes nothing.

use std::sync::Arc;

use super::Step;
use crate::cpu::{buffers::Images, conv::plain, layout::Layout, stored::Stored};

/// Which units share a place.
pub(in crate::cpu) struct Outputs {
    /// By unit.
    shared: Vec<bool>,
    /// By shape: the last unit in the place, whose outputs are still there on the way back.
    last: Vec<Option<usize>>,
}

impl Outputs {
    /// The first `again` of [`Layout::repeatable`] share.
    pub(super) fn new(layout: &Layout, again: usize) -> Self {
        let mut shared = vec![false; layout.units.len()];
        layout.repeatable().iter().take(again).for_each(|u| shared[*u] = true);
        let mut last = vec![None; layout.shapes.len()];
        for (u, unit) in layout.units.iter().enumerate().filter(|(u, _)| shared[*u]) {
            last[unit.shape] = Some(u);
        }
        Self { shared, last }
    }

    /// The place of each unit, for `batch` images.
    pub(super) fn places<S: Stored>(&self, layout: &Layout, batch: usize) -> Vec<Arc<Images<S>>> {
        let images = |u: usize| {
            let unit = &layout.units[u];
            Arc::new(Images::new(batch, plain(unit.conv.cout, unit.output)))
        };
        let of_shapes: Vec<Option<Arc<Images<S>>>> = self.last.iter().map(|last| last.map(images)).collect();
        let place = |(u, shared): (usize, &bool)| {
            let common = of_shapes[layout.units[u].shape].as_ref().filter(|_| *shared);
            common.map_or_else(|| images(u), Arc::clone)
        };
        self.shared.iter().enumerate().map(place).collect()
    }

    /// The feature whose reader wrote what feature `f` is made of, if that must be computed again.
    pub(in crate::cpu) fn again(&self, layout: &Layout, f: usize) -> Option<usize> {
        let unit = layout.features[f].unit;
        layout.units[unit].reads.filter(|_| self.repeats(layout, unit))
    }

    /// Is unit `u` computed again?
    pub(in crate::cpu) fn repeats(&self, layout: &Layout, u: usize) -> bool {
        self.shared[u] && self.last[layout.units[u].shape] != Some(u)
    }
}

impl<S: Stored> Step<S> {
    /// How many of [`Layout::repeatable`] must at least share for all buffers to fit `room` bytes, where they
    /// take `least` bytes when all of them do; `None`: all.
    pub(in crate::cpu) fn fewest_again(&self, least: usize, room: usize) -> Option<usize> {
        let all = self.layout.repeatable().len();
        let bytes = |again: usize| self.output_bytes(&Outputs::new(&self.layout, again));
        let other = least.saturating_sub(bytes(all));
        (0..all).find(|again| other + bytes(*again) <= room)
    }

    /// How many units are computed again.
    pub(in crate::cpu) fn repeated(&self) -> usize {
        (0..self.units.len()).filter(|u| self.outputs.repeats(&self.layout, *u)).count()
    }

    /// Bytes of all places, shared as in `outputs`.
    pub(in crate::cpu) fn output_bytes(&self, outputs: &Outputs) -> usize {
        let own = (0..self.units.len()).filter(|u| !outputs.repeats(&self.layout, *u));
        own.map(|u| self.units[u].z.bytes()).sum()
    }
}
