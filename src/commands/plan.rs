//! `repro plan`: what a training step costs, before anything runs.

use std::process::ExitCode;

use network::{
    arch::Graph,
    cost::{Operation, operations},
    memory::STEP,
    model::Counts,
    plan::{Direction, Pass, Plan},
};
use serde_json::{Value, json};

use super::bench;
use crate::{args, error::Failure, ui};

/// Bytes of a stored number.
const fn width(precision: crate::args::Precision) -> u64 {
    match precision {
        crate::args::Precision::F32 | crate::args::Precision::Tf32 => 4,
        crate::args::Precision::Bf16 => 2,
    }
}

/// What is known of a step.
struct Known<'a> {
    options: &'a args::Plan,
    /// Parameters, and those that train.
    parameters: [usize; 2],
    operations: Vec<Operation>,
    engine: String,
    /// The engine's own account, where it gives one.
    plan: Option<Plan>,
}

pub(super) fn plan(options: &args::Plan) -> Result<ExitCode, Failure> {
    let work = &options.work;
    let graph = Graph::new(options.arch, work.variant, bench::CLASSES);
    let set = bench::set(work);
    let (engine, plan, note) = engine(options)?; // refuses a mode that cannot be
    let parameters = [Counts::of(&graph).total, set.trained_of(&graph)];
    if let Some(note) = note {
        ui::note(&format!("note: {note}"));
    }
    let known = Known { options, parameters, operations: operations(&graph, &set), engine, plan };
    if options.json {
        ui::json(&known.json());
    } else {
        known.show();
    }
    Ok(ExitCode::SUCCESS)
}

impl Known<'_> {
    /// Over a batch.
    fn sum(&self, part: impl Fn(&Operation) -> u64) -> u64 {
        u64::from(self.options.work.batch) * self.operations.iter().map(part).sum::<u64>()
    }

    /// Operations of a step: forward, back to the data, to the weights.
    fn flop(&self) -> [u64; 3] {
        [self.sum(|o| o.forward), self.sum(|o| o.data), self.sum(|o| o.weights)]
    }

    /// Bytes that a step moves by definition: forward, backward.
    fn moved(&self) -> [u64; 2] {
        let bytes = width(self.options.work.precision);
        [self.sum(|o| bytes * o.forward_numbers), self.sum(|o| bytes * o.backward_numbers)]
    }

    fn json(&self) -> Value {
        let work = &self.options.work;
        let (batch, bytes) = (u64::from(work.batch), width(work.precision));
        let operations = self.operations.iter().map(|o| {
            json!({
                "name": o.name, "channels": [o.cin, o.output[0]], "kernel": o.kernel, "stride": o.stride,
                "output": o.output, "then": o.then,
                "flop": {
                    "forward": batch * o.forward, "data": batch * o.data, "weights": batch * o.weights,
                },
                "bytes": {
                    "forward": batch * bytes * o.forward_numbers,
                    "backward": batch * bytes * o.backward_numbers,
                },
            })
        });
        let passes = self.plan.as_ref().map(|plan| {
            let pass = |p: &Pass| {
                json!({
                    "direction": p.direction, "modules": p.modules, "algorithms": p.algorithms,
                    "on_read": p.on_read, "on_write": p.on_write, "bytes_read": batch * p.bytes_read,
                    "bytes_written": batch * p.bytes_written, "flop": batch * p.flop,
                })
            };
            plan.passes.iter().map(pass).collect::<Vec<_>>()
        });
        let (flop, moved) = (self.flop(), self.moved());
        json!({
            "arch": self.options.arch.to_string(), "variant": work.variant.to_string(),
            "mode": work.mode.to_string(), "batch": batch, "parameters": self.parameters[0],
            "trained": self.parameters[1], "engine": self.engine,
            "flop": {
                "forward": flop[0], "data": flop[1], "weights": flop[2], "step": flop.iter().sum::<u64>(),
            },
            "bytes": { "forward": moved[0], "backward": moved[1], "step": moved.iter().sum::<u64>() },
            "operations": operations.collect::<Vec<_>>(),
            "passes": passes,
            "buffers": self.plan.as_ref().map(|plan| &plan.buffers),
            "buffer_bytes": self.plan.as_ref().map(|plan| plan.buffer_bytes(false)),
            "batch_buffer_bytes": self.plan.as_ref().map(|plan| plan.buffer_bytes(true)),
        })
    }

    fn show(&self) {
        let work = &self.options.work;
        let batch = u64::from(work.batch);
        let [parameters, trained] = self.parameters;
        ui::line(&format!(
            "{} {}, mode {}, a step of {batch} images: {trained} of {parameters} parameters train",
            self.options.arch, work.variant, work.mode
        ));
        match &self.plan {
            Some(plan) if !plan.passes.is_empty() => ui::print(&ui::table(&passes(plan, batch))),
            _ => ui::print(&ui::table(&table(&self.operations, batch, width(work.precision)))),
        }
        let (flop, moved) = (self.flop(), self.moved());
        ui::line(&format!(
            "{} GFLOP by direct convolution: {} forward, {} back to the data, {} to the weights",
            giga(flop.iter().sum()),
            giga(flop[0]),
            giga(flop[1]),
            giga(flop[2])
        ));
        ui::line(&format!(
            "{} GB of activations to read or write by definition: {} forward, {} backward",
            giga(moved.iter().sum()),
            giga(moved[0]),
            giga(moved[1])
        ));
        let Some(plan) = &self.plan else { return ui::line(&format!("buffers unknown ({})", self.engine)) };
        let known = !plan.passes.is_empty();
        let moved = |part: fn(&Pass) -> u64| giga(batch * plan.passes.iter().map(part).sum::<u64>());
        if known {
            ui::line(&format!(
                "the passes read {} GB and write {}",
                moved(|p| p.bytes_read),
                moved(|p| p.bytes_written)
            ));
        }
        let mega = |bytes: usize| format!("{:.3}", bytes as f64 / 1e6);
        let line = |b: &network::plan::Buffer| {
            vec![b.name.to_owned(), mega(b.bytes), if b.of_batch { "with the batch" } else { "" }.to_owned()]
        };
        let heading = ["buffer", "MB", "grows"].map(str::to_owned).to_vec();
        let buffers = plan.buffers.iter().filter(|b| b.bytes > 0).map(line);
        ui::print(&ui::table(&std::iter::once(heading).chain(buffers).collect::<Vec<_>>()));
        let of_batch = format!(", {} of which grow with the batch", mega(plan.buffer_bytes(true)));
        let of_batch = if known { of_batch } else { String::new() };
        ui::line(&format!("{} MB of buffers{of_batch} ({})", mega(plan.buffer_bytes(false)), self.engine));
    }
}

/// What would compute, what it would do and hold, and a note about it.
fn engine(options: &args::Plan) -> Result<(String, Option<Plan>, Option<String>), Failure> {
    let of = |batch: usize| {
        let (trainer, note) = bench::trainer(options.arch, &options.work, batch)?;
        Ok::<_, Failure>((trainer.describe(), trainer.plan(), note))
    };
    let batch = options.work.batch as usize;
    if options.work.memory.is_some() {
        return of(batch); // which outputs are kept depends on all of them
    }
    // Buffers grow evenly by steps; so those of two small batches tell about a large one that would fill the memory.
    // Each thread has room for an image at least.
    let steps = (batch / STEP).saturating_sub(usize::from(options.work.threads).div_ceil(STEP));
    let small = batch - steps * STEP;
    let (engine, mut plan, note) = of(small)?;
    if let (Some(plan), true) = (&mut plan, steps > 0) {
        let larger = of(small + STEP)?.1.unwrap_or_default();
        for (buffer, larger) in plan.buffers.iter_mut().zip(larger.buffers) {
            buffer.bytes += larger.bytes.saturating_sub(buffer.bytes) * steps;
        }
    }
    Ok((engine, plan, note))
}

fn passes(plan: &Plan, batch: u64) -> Vec<Vec<String>> {
    let heading = ["pass", "convolutions", "by", "on read", "on write", "GB read", "written", "GFLOP"];
    let line = |p: &Pass| {
        let direction = match p.direction {
            Direction::Forward => "forward",
            Direction::Again => "again",
            Direction::Backward => "backward",
            Direction::Filters => "filters",
        };
        vec![
            direction.to_owned(),
            p.modules.join(", "),
            p.algorithms.join(", "),
            p.on_read.join(", "),
            p.on_write.join(", "),
            giga(batch * p.bytes_read),
            giga(batch * p.bytes_written),
            giga(batch * p.flop),
        ]
    };
    std::iter::once(heading.map(str::to_owned).to_vec()).chain(plan.passes.iter().map(line)).collect()
}

fn table(operations: &[Operation], batch: u64, bytes: u64) -> Vec<Vec<String>> {
    let heading = ["operation", "kind", "output", "then", "GFLOP", "data", "weights", "GB", "backward"];
    let line = |o: &Operation| {
        let [channels, h, w] = o.output;
        vec![
            o.name.clone(),
            format!("{0}x{0}/{1} {2}>{channels}", o.kernel, o.stride, o.cin),
            format!("{channels}x{h}x{w}"),
            o.then.join(" "),
            giga(batch * o.forward),
            giga(batch * o.data),
            giga(batch * o.weights),
            giga(batch * bytes * o.forward_numbers),
            giga(batch * bytes * o.backward_numbers),
        ]
    };
    let heading = heading.map(str::to_owned).to_vec();
    std::iter::once(heading).chain(operations.iter().map(line)).collect()
}

/// Thousands of millions.
fn giga(n: u64) -> String {
    format!("{:.3}", n as f64 / 1e9)
}
