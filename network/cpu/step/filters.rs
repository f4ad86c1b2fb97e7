//! Gradients of filters that train. A pass over the images makes a convolution's sums, one for each group of
//! images; they are added up as one of the items of the next convolution's pass. So two places suffice for the
//! sums of all convolutions. Knows no order of passes.
#![allow(unsafe_code)] // each item of a pass has its sum to itself

use std::sync::{Mutex, PoisonError};

use super::Step;
use crate::cpu::{
    ahead::Next, buffers::Images, direct, lanes::Isa, sources::Source, stored::Stored, unit::Unit,
    winograd::chunk,
};

/// Sums that have not been added up.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    unit: usize,
    /// Which of the two places.
    place: usize,
    /// Floats.
    len: usize,
}

impl<S: Stored> Step<S> {
    /// Sums for the gradient of the filters of unit `u`, if they train; meanwhile those `waiting` are added up.
    pub(super) fn filters(
        &mut self,
        count: usize,
        u: usize,
        load: &(impl Fn(usize, &mut [f32]) + Sync),
        waiting: Option<Waiting>,
    ) -> Option<Waiting> {
        if self.units[u].filters.is_none() {
            return waiting;
        }
        let late = waiting.map(|waiting| Mutex::new((waiting, self.take_values(waiting))));
        let Self { units, layout, pool, scratch, maps, sums, .. } = self;
        let (isa, unit) = (self.isa, &layout.units[u]);
        let filters = units[u].filters.as_ref()?;
        let (group, step) = (filters.gradient.group(), chunk(unit.input));
        let (x_of, g_of) = (unit.reads.map(|f| maps.again(layout, units, f)), maps.back(layout, units, u));
        let ([a, b], [c, d]) = (x_of.as_ref().map_or([None; 2], Source::parts), g_of.parts());
        let maps_read = [a, b, c, d];
        let place = waiting.map_or(0, |waiting| 1 - waiting.place);
        assert!(sums[place].size() >= filters.sums_len(count), "the place is too small for the sums");
        let first_item = usize::from(late.is_some());
        pool.each(scratch, count.div_ceil(group) + first_item, |item, own| {
            if let (Some(late), 0) = (&late, item) {
                let (waiting, values) = &mut *late.lock().unwrap_or_else(PoisonError::into_inner);
                // SAFETY: the sums lie in the other place, and no other item uses them.
                unsafe { add_up(isa, &units[waiting.unit], sums, *waiting, values) };
                return;
            }
            let (item, len) = (item - first_item, filters.gradient.sum_len());
            // SAFETY: each item has its sum.
            let sum = unsafe { std::slice::from_raw_parts_mut(sums[place].ptr(0).add(item * len), len) };
            sum.fill(0.0);
            let g = &mut own.outputs[unit.shape];
            let x = match unit.reads {
                Some(f) => &mut own.inputs[layout.features[f].shape],
                None => &mut own.image,
            };
            let end = ((item + 1) * group).min(count);
            for first in (item * group..end).step_by(step) {
                let images = step.min(end - first);
                for i in 0..images {
                    // SAFETY: each item has its images.
                    unsafe {
                        match &x_of {
                            Some(source) => direct::read(isa, source, first + i, unit.input, x.get(i)),
                            None => load(first + i, x.get(i)),
                        }
                        direct::read(isa, &g_of, first + i, unit.output, g.get(i));
                    }
                }
                let next = first + images..(first + images + step).min(count);
                let mut next = Next::of(maps_read, next);
                let (maps, scratch) = ([&*x.all(), &*g.all()], own.tiles.get(0));
                filters.gradient.add_before(isa, images, maps, sum, scratch, &mut next);
            }
        });
        let waiting = Waiting { unit: u, place, len: filters.sums_len(count) };
        if let Some(late) = late {
            let (waiting, values) = late.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.give_values(waiting, values);
        }
        Some(waiting)
    }

    /// Adds up the sums that are `waiting`.
    pub(super) fn finish(&mut self, waiting: Option<Waiting>) {
        let Some(waiting) = waiting else { return };
        let mut values = self.take_values(waiting);
        // SAFETY: no pass is running.
        unsafe { add_up(self.isa, &self.units[waiting.unit], &self.sums, waiting, &mut values) };
        self.give_values(waiting, values);
    }

    fn take_values(&mut self, of: Waiting) -> Vec<f32> {
        self.units[of.unit].filters.as_mut().map(|f| std::mem::take(&mut f.values)).unwrap_or_default()
    }

    fn give_values(&mut self, of: Waiting, values: Vec<f32>) {
        if let Some(filters) = &mut self.units[of.unit].filters {
            filters.values = values;
        }
    }
}

/// Adds up the sums that are `waiting` to the gradient of the filters of `unit`.
///
/// # Safety
/// The caller has these sums to itself.
unsafe fn add_up(
    isa: Isa,
    unit: &Unit<impl Stored>,
    sums: &[Images<f32>; 2],
    waiting: Waiting,
    values: &mut [f32],
) {
    // SAFETY: the caller's promise; the place holds so many.
    let sums = unsafe { std::slice::from_raw_parts_mut(sums[waiting.place].ptr(0), waiting.len) };
    if let Some(filters) = &unit.filters {
        filters.gradient.finish(isa, sums, values);
    }
}
