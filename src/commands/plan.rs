//! `repro plan`: what a training step costs, before anything runs.

use std::process::ExitCode;

use network::{
    arch::Graph,
    cost::{Operation, operations},
};
use serde_json::json;

use super::bench;
use crate::{args::Plan, error::Failure, ui};

/// Bytes of a stored number.
const fn width(precision: crate::args::Precision) -> u64 {
    match precision {
        crate::args::Precision::F32 => 4,
        crate::args::Precision::Bf16 => 2,
    }
}

pub(super) fn plan(options: &Plan) -> Result<ExitCode, Failure> {
    let work = &options.work;
    let graph = Graph::new(options.arch, work.variant, bench::CLASSES);
    let set = work.mode.train_set(work.variant, work.k);
    let operations = operations(&graph, &set);
    let params = graph.params();
    let parameters: usize = params.iter().map(|p| p.len()).sum();
    let trained: usize = params.iter().map(|p| set.trained(p)).sum();
    let (engine, buffers, note) = engine(options)?;
    if let Some(note) = note {
        ui::note(&format!("note: {note}"));
    }
    let batch = u64::from(work.batch);
    let sum = |part: &dyn Fn(&Operation) -> u64| batch * operations.iter().map(part).sum::<u64>();
    let bytes = width(work.precision);
    let flop = [sum(&|o| o.forward), sum(&|o| o.data), sum(&|o| o.weights)];
    let moved = [sum(&|o| bytes * o.forward_numbers), sum(&|o| bytes * o.backward_numbers)];
    if options.json {
        let operations = operations.iter().map(|o| {
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
        ui::json(&json!({
            "arch": options.arch.to_string(), "variant": work.variant.to_string(),
            "mode": work.mode.to_string(), "batch": batch, "parameters": parameters, "trained": trained,
            "engine": engine, "buffer_bytes": buffers,
            "flop": {
                "forward": flop[0], "data": flop[1], "weights": flop[2], "step": flop.iter().sum::<u64>(),
            },
            "bytes": { "forward": moved[0], "backward": moved[1], "step": moved.iter().sum::<u64>() },
            "operations": operations.collect::<Vec<_>>(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    ui::line(&format!(
        "{} {}, mode {}, a step of {batch} images: {trained} of {parameters} parameters train",
        options.arch, work.variant, work.mode
    ));
    ui::print(&ui::table(&table(&operations, batch, bytes)));
    ui::line(&format!(
        "{} GFLOP by direct convolution: {} forward, {} back to the data, {} to the weights",
        giga(flop.iter().sum()),
        giga(flop[0]),
        giga(flop[1]),
        giga(flop[2])
    ));
    ui::line(&format!(
        "{} GB of activations read or written: {} forward, {} backward",
        giga(moved.iter().sum()),
        giga(moved[0]),
        giga(moved[1])
    ));
    let buffers = buffers.map_or_else(|| "an unknown number of".into(), |bytes| giga(bytes as u64));
    ui::line(&format!("{buffers} GB of buffers ({engine})"));
    Ok(ExitCode::SUCCESS)
}

/// What would compute, the bytes of its buffers, and a note about it.
fn engine(options: &Plan) -> Result<(String, Option<usize>, Option<String>), Failure> {
    /// Buffers grow evenly from one multiple of that many images to the next; so those of two small
    /// batches tell about a large one that would fill the memory.
    const STEP: usize = 64;
    let of = |batch: usize| {
        let (trainer, note) = bench::trainer(options.arch, &options.work, batch)?;
        Ok::<_, Failure>((trainer.describe(), trainer.buffer_bytes(), note))
    };
    let batch = options.work.batch as usize;
    let (engine, small, note) = of(batch.min(STEP))?;
    let Some(small) = small.filter(|_| batch > STEP) else { return Ok((engine, small, note)) };
    let (_, large, _) = of(2 * STEP)?;
    let each = |large: usize| (large - small) * (batch - STEP) / STEP;
    Ok((engine, large.map(|large| small + each(large)), note))
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
