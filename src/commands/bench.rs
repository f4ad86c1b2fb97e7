//! `repro bench`: how fast training steps and kernels are, beside what this machine can do.

use std::{process::ExitCode, sync::Arc};

use engine::machine;
use network::{
    arch::{Arch, Graph},
    cost::operations,
    cpu::{kernels, lanes::Isa},
    cuda::{device::Device as _, driver::Card, fit, trainer::CudaTrainer},
    data::{self, Dataset, IMAGE_BYTES, Images},
    init::{BnInit, Init, WeightInit},
    mode::{Mode, TrainSet},
    rng::stream,
    trainer::{EngineChoice, EngineName, Example, Precision, Split, TrainSpec, Trainer},
};
use serde_json::{Value, json};

use crate::{
    args::{self, Bench, BenchKernels, BenchStep, Device, Work},
    error::Failure,
    measure, ui,
};

/// Classes of the images.
pub(super) const CLASSES: usize = 10;

pub(super) fn bench(what: &Bench) -> Result<ExitCode, Failure> {
    if cfg!(debug_assertions) {
        ui::note("note: this binary was built for debugging; `cargo build --release` makes the fast one");
    }
    match what {
        Bench::Step(options) => step(options),
        Bench::Kernels(options) => kernels(options),
    }
}

/// What trains.
pub(super) fn set(work: &Work) -> TrainSet {
    work.mode.train_set(work.variant, work.k.unwrap_or(2))
}

/// The work in steps of `batch` images.
fn spec(arch: Arch, work: &Work, batch: usize) -> TrainSpec {
    TrainSpec {
        arch,
        variant: work.variant,
        seed: 0,
        init: Init { weights: WeightInit::HeNormal, bn: BnInit::Uniform },
        set: set(work),
        momentum: 0.9,
        weight_decay: 1e-4,
        batch,
        precision: match work.precision {
            args::Precision::F32 => Precision::F32,
            args::Precision::Tf32 => Precision::Tf32,
            args::Precision::Bf16 => Precision::Bf16,
        },
    }
}

/// What is to compute the work.
fn choice(work: &Work) -> Result<EngineChoice, Failure> {
    if work.k.is_some() && work.mode != Mode::Random {
        let message = "`-k` says how many weights of each filter train in mode `random`; add `--mode random`, or leave it out";
        return Err(Failure::user(message));
    }
    if work.memory.is_some()
        && (work.device == Device::Cuda || matches!(work.engine, args::Engine::Reference))
    {
        let message = "only the CPU engine fits its buffers to `--memory`; leave that out";
        return Err(Failure::user(message));
    }
    Ok(EngineChoice {
        engine: match (work.engine, work.device) {
            (args::Engine::Auto, Device::Cpu) => EngineName::Auto,
            (args::Engine::Reference, Device::Cpu) => EngineName::Reference,
            (args::Engine::Cpu, Device::Cpu) => EngineName::Cpu,
            (args::Engine::Auto, Device::Cuda) => EngineName::Cuda,
            (_, Device::Cuda) => {
                let message = "that engine computes on the processor; leave out `--engine` or `--device`";
                return Err(Failure::user(message));
            }
        },
        threads: work.threads.into(),
        memory: work.memory,
        isa: work.isa.clone(),
        card: (work.device == Device::Cuda).then(stages::card::places),
    })
}

/// A trainer of the work in steps of `batch` images of noise, and a note about the engine.
pub(super) fn trainer(
    arch: Arch,
    work: &Work,
    batch: usize,
) -> Result<(Box<dyn Trainer>, Option<String>), Failure> {
    let choice = choice(work)?;
    Ok(network::trainer::trainer(&spec(arch, work, batch), Arc::new(noise(batch)?), &choice)?)
}

/// Trainings that step together on a card, and the largest batch that it has room for.
fn together(options: &BenchStep) -> Result<(Box<dyn Trainer>, usize), Failure> {
    let (work, count) = (&options.work, options.instances.into());
    let Some(places) = choice(work)?.card else {
        let message = "`--instances` is for a card, where trainings step together; add `--device cuda`";
        return Err(Failure::user(message));
    };
    let spec = spec(options.arch, work, work.batch as usize);
    let (data, card) = (Arc::new(noise(spec.batch)?), Card::open(&places)?);
    let [free, _] = card.memory()?;
    let largest = fit::largest_batch(&spec, &data, count, free)?;
    Ok((Box::new(CudaTrainer::many(&spec, count, data, card)?), largest))
}

/// As many images of noise, for training and for testing.
fn noise(images: usize) -> Result<Dataset, Failure> {
    let mut stream = stream(0, "bench");
    let pixels: Vec<u8> = (0..images * IMAGE_BYTES).map(|_| stream.below(256) as u8).collect();
    let labels: Vec<u16> = (0..images).map(|i| (i % CLASSES) as u16).collect();
    let classes: Vec<String> = (0..CLASSES).map(|class| class.to_string()).collect();
    let split = Images { labels: &labels, pixels: &pixels };
    Ok(Dataset::from_bytes(Arc::new(data::pack(&classes, split, split)?))?)
}

/// What was measured.
struct Measured {
    /// Seconds of each repetition.
    seconds: Vec<f64>,
    /// Seconds of CPU time of all threads of each.
    cpu: Vec<f64>,
    /// The largest measured FMA throughput, 10^9 operations per second.
    peak: f64,
}

fn step(options: &BenchStep) -> Result<ExitCode, Failure> {
    let work = &options.work;
    let isa = Isa::choose(work.isa.as_deref())?;
    let threads = usize::from(work.threads);
    let before = machine::resident();
    let (mut trainer, note, largest) = if work.device == Device::Cpu && options.instances == 1 {
        let (trainer, note) = trainer(options.arch, work, work.batch as usize)?;
        (trainer, note, None)
    } else {
        let (trainer, largest) = together(options)?;
        (trainer, None, Some(largest))
    };
    let measured = repeat(&mut *trainer, options, isa)?;
    // Memory is swept when the peak of the step has been read.
    let after = machine::resident();
    // What the processor could do says nothing about a card.
    let memory = (work.device == Device::Cpu).then(|| measure::memory_gbytes(threads, memory_to_sweep()));
    let Measured { mut seconds, mut cpu, peak } = measured;
    let peak = Some(peak).filter(|_| work.device == Device::Cpu);
    let median = measure::median(&mut seconds);
    let gflops = flop(options) as f64 / median / 1e9;
    let plan = trainer.plan();
    let buffers = |batch_alone: bool| plan.as_ref().map(|plan| plan.buffer_bytes(batch_alone));
    let report = json!({
        "arch": options.arch.to_string(),
        "variant": work.variant.to_string(),
        "mode": work.mode.to_string(),
        "pass": if options.predict { "predict" } else { "train" },
        "batch": work.batch,
        "threads": threads,
        "engine": trainer.describe(),
        "optimised": !cfg!(debug_assertions),
        "note": note,
        "repeats": seconds.len(),
        "instances": options.instances,
        "images_per_second": f64::from(options.instances) * f64::from(work.batch) / median,
        "seconds": { "median": median, "min": seconds[0], "max": seconds[seconds.len() - 1] },
        "cpu_seconds": measure::median(&mut cpu),
        "buffer_bytes": buffers(false),
        "batch_buffer_bytes": buffers(true),
        "largest_batch": largest,
        "peak_rss_bytes": after.map(|[_, peak]| peak),
        "rss_growth_bytes": before.zip(after).map(|([start, _], [_, peak])| peak.saturating_sub(start)),
        "gflops": gflops,
        "fma_peak_gflops": peak,
        "memory_gbytes_per_second": memory,
        "fraction_of_peak": peak.map(|peak| gflops / peak),
    });
    if options.json {
        ui::json(&report);
    } else {
        show(&report);
    }
    Ok(ExitCode::SUCCESS)
}

/// Steps that a card is given before it has to tell, as in a training.
const STEPS_ON_A_CARD: usize = 8;

/// Times whole steps (or evaluations), each beside a measurement of the peak.
fn repeat(trainer: &mut dyn Trainer, options: &BenchStep, isa: Isa) -> Result<Measured, Failure> {
    let (batch, threads) = (options.work.batch as usize, options.work.threads.into());
    let arithmetic = measure::Arithmetic::new(isa, threads, measure::wall);
    let mut measured = Measured { seconds: Vec::new(), cpu: Vec::new(), peak: 0.0 };
    let steps = if options.work.device == Device::Cpu || options.predict { 1 } else { STEPS_ON_A_CARD };
    for repetition in 0..options.warmup + options.repeats {
        let epoch = repetition as usize;
        let order = data::epoch_order(0, epoch, batch);
        let examples: Vec<Example> = order.iter().map(|i| data::example(0, epoch, *i)).collect();
        let (start, cpu) = (measure::wall(), measure::process_time());
        if options.predict {
            trainer.predict(Split::Test, 0..batch)?;
        } else {
            (0..steps).try_for_each(|_| trainer.step(&examples, 0.01))?;
            trainer.take_tally()?; // an engine may still be at work until it has to tell
        }
        if repetition >= options.warmup {
            measured.seconds.push((measure::wall() - start) / steps as f64);
            measured.cpu.push((measure::process_time() - cpu) / steps as f64);
        }
        if options.work.device == Device::Cpu {
            measured.peak = measured.peak.max(arithmetic.gflops());
        }
    }
    Ok(measured)
}

/// Floating-point operations of what is timed, if all convolutions were direct.
fn flop(options: &BenchStep) -> u64 {
    let work = &options.work;
    let graph = Graph::new(options.arch, work.variant, CLASSES);
    let operations = operations(&graph, &set(work));
    let each = operations.iter().map(|o| if options.predict { o.forward } else { o.step() });
    u64::from(options.instances) * u64::from(work.batch) * each.sum::<u64>()
}

/// Several times what the caches hold.
fn memory_to_sweep() -> usize {
    const LEAST: u64 = 1 << 27;
    machine::cache().map_or(LEAST, |cache| (4 * cache).max(LEAST)) as usize
}

fn show(report: &Value) {
    let number = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
    let text = |name: &str| report[name].as_str().unwrap_or("");
    let milliseconds = |name: &str| 1e3 * report["seconds"][name].as_f64().unwrap_or(f64::NAN);
    let megabytes = |name: &str| match report[name].as_u64() {
        Some(bytes) => format!("{:.1} MB", bytes as f64 / 1e6),
        None => "unknown".into(),
    };
    if let Some(note) = report["note"].as_str() {
        ui::note(&format!("note: {note}"));
    }
    ui::line(&format!(
        "{} {}, mode {}, batch {}: {}",
        text("arch"),
        text("variant"),
        text("mode"),
        report["batch"],
        text("engine")
    ));
    ui::line(&format!(
        "{:.1} images/s; a {} takes {:.1} ms (median of {}; {:.1} to {:.1}; {:.1} of CPU time)",
        number("images_per_second"),
        if text("pass") == "predict" { "pass" } else { "step" },
        milliseconds("median"),
        report["repeats"],
        milliseconds("min"),
        milliseconds("max"),
        1e3 * number("cpu_seconds")
    ));
    let gflops = format!("{:.1} GFLOP/s of direct convolution", number("gflops"));
    if report["fma_peak_gflops"].is_null() {
        ui::line(&gflops);
    } else {
        ui::line(&format!(
            "{gflops}, {:.0} % of the FMA peak of {:.1} (threads: {})",
            100.0 * number("fraction_of_peak"),
            number("fma_peak_gflops"),
            report["threads"]
        ));
        ui::line(&format!("{:.1} GB/s between processor and memory", number("memory_gbytes_per_second")));
    }
    ui::line(&format!(
        "buffers {}, process grew by {} to {}",
        megabytes("buffer_bytes"),
        megabytes("rss_growth_bytes"),
        megabytes("peak_rss_bytes")
    ));
}

fn kernels(options: &BenchKernels) -> Result<ExitCode, Failure> {
    /// Calls are repeated until they take that long.
    const LONG_ENOUGH: f64 = 0.01;
    let isa = Isa::choose(options.isa.as_deref())?;
    let clock: measure::Clock = measure::thread_time;
    let arithmetic = measure::Arithmetic::new(isa, 1, clock);
    let (mut speeds, mut best) = (Vec::new(), 0.0f64);
    let wanted = |name: &str| options.filter.as_deref().is_none_or(|filter| name.contains(filter));
    kernels::each(isa, wanted, |name, flop, work| {
        work(); // touches the pages
        // In CPU time of the thread; the fraction is that of the peak measured just before.
        let (mut rates, mut fractions) = (Vec::new(), Vec::new());
        for _ in 0..options.repeats {
            let peak = arithmetic.gflops();
            let (start, mut calls) = (clock(), 0);
            while calls == 0 || clock() - start < LONG_ENOUGH {
                work();
                calls += 1;
            }
            let rate = flop as f64 * f64::from(calls) / (clock() - start) / 1e9;
            rates.push(rate);
            fractions.push(rate / peak);
            best = best.max(peak);
        }
        let (gflops, fraction) = (measure::median(&mut rates), measure::median(&mut fractions));
        if !options.json {
            ui::line(&format!("{name:34} {gflops:7.1} GFLOP/s {:5.0} % of peak", 100.0 * fraction));
        }
        speeds.push(json!({ "name": name, "gflops": gflops, "fraction_of_peak": fraction }));
    });
    if speeds.is_empty() {
        let message = "no kernel has that text in its name; without a text all of them are measured";
        return Err(Failure::user(message));
    }
    if options.json {
        ui::json(&json!({ "isa": isa.to_string(), "fma_peak_gflops": best, "kernels": speeds }));
    } else {
        ui::line(&format!("peak with {isa}: {best:.1} GFLOP/s of multiplication-additions on one thread"));
    }
    Ok(ExitCode::SUCCESS)
}
