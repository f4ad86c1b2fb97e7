//! Whether trainings fit a device's memory, before anything is allocated. Knows no addresses.

use super::{device::Device, memory::Memory, plan::Plan};
use crate::{
    Error, Result,
    data::Dataset,
    trainer::{Split, TrainSpec},
};

/// Bytes on the device for `instances` trainings like `spec` on `data`; as many as can be counted where kernels cannot
/// count the elements of a map.
///
/// # Errors
/// [`Error::Unsupported`] where the engine does not cover them.
pub(super) fn bytes_needed(spec: &TrainSpec, data: &Dataset, instances: usize) -> Result<usize> {
    let images = data.len(Split::Train) + data.len(Split::Test);
    let plan = Plan::new(spec, instances, data.classes().len(), images, true)?;
    Ok(if plan.countable() { Memory::bytes(&plan) } else { usize::MAX })
}

/// The largest batch whose `instances` trainings fit into `free` bytes; 0: none does.
///
/// # Errors
/// [`Error::Unsupported`] where the engine does not cover the network.
pub fn largest_batch(spec: &TrainSpec, data: &Dataset, instances: usize, free: u64) -> Result<usize> {
    let fits = |batch: usize| {
        let bytes = bytes_needed(&TrainSpec { batch, ..spec.clone() }, data, instances)?;
        Ok::<bool, Error>(bytes as u64 <= free)
    };
    let (mut fitting, mut above) = (0, 1);
    while above < 1 << 20 && fits(above)? {
        (fitting, above) = (above, 2 * above);
    }
    while fitting + 1 < above {
        let middle = fitting.midpoint(above);
        if fits(middle)? { fitting = middle } else { above = middle }
    }
    Ok(fitting)
}

/// Errs unless `plan` fits into the memory that `device` has free.
pub(super) fn check<D: Device>(spec: &TrainSpec, data: &Dataset, plan: &Plan, device: &D) -> Result<()> {
    let ([free, total], needed, n) = (device.memory()?, Memory::bytes(plan) as u64, plan.instances);
    if needed <= free && plan.countable() {
        return Ok(());
    }
    let size = |bytes: u64| match bytes as f64 / f64::from(1 << 30) {
        gib if gib < 1.0 => format!("{:.1} MiB", 1024.0 * gib),
        gib => format!("{gib:.2} GiB"),
    };
    let way_out = match largest_batch(spec, data, n, free)? {
        0 => "not even a batch of 1 fits; train fewer at once, or a smaller network".into(),
        most => format!("the largest batch that fits is {most}"),
    };
    if !plan.countable() {
        let reason = format!("it does not cover maps of 2^32 values, as at batch {}; {way_out}", plan.batch);
        return Err(Error::Unsupported { engine: "cuda", reason });
    }
    let what = match n {
        1 => format!("{} at batch {} takes", spec.arch, plan.batch),
        n => format!("{n} trainings of {} at batch {} take", spec.arch, plan.batch),
    };
    let [needed, free, total] = [needed, free, total].map(size);
    Err(Error::Device(format!("{what} {needed} on the device, which has {free} of {total} free; {way_out}")))
}
