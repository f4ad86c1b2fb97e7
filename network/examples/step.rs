//! Images per second of the fused training step, beside this machine's FMA peak:
//! `cargo run --release -p repro-network --example step -- resnet32 paper 128 1 [bn|all] [avx512]`.
#![allow(clippy::print_stdout, unsafe_code)] // a benchmark speaks; its clock is the system's

use std::{error::Error, time::Instant};

use network::{
    arch::{Graph, Op},
    cpu::{
        lanes::Isa,
        peak::multiply_add,
        step::{Statistics, Step},
        unit::Trained,
    },
    rng::stream,
    tensor::{Tensor, Tensors},
};

/// Best of five, in 10^9 floating-point operations per second on one thread.
fn peak(isa: Isa) -> f64 {
    let once = || {
        let start = Instant::now();
        multiply_add(isa, 1_000_000) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| once()).fold(0.0, f64::max)
}

/// CPU time of all threads: other work on the machine hardly counts.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a reference to a timespec is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn main() -> Result<(), Box<dyn Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, otherwise: &str| given.get(i).map_or(otherwise.to_string(), Clone::clone);
    let (arch, variant) = (arg(0, "resnet32").parse()?, arg(1, "paper").parse()?);
    let (batch, threads): (usize, usize) = (arg(2, "128").parse()?, arg(3, "1").parse()?);
    let trained = if arg(4, "bn") == "all" { Trained::All } else { Trained::None };
    let isa = Isa::choose(given.get(5).map(String::as_str))?;
    let graph = Graph::new(arch, variant, 10);
    let values: Tensors = (graph.params().into_iter())
        .map(|p| {
            let (mut s, fan_in) = (stream(0, &p.name), p.len() / p.shape[0]);
            let size = (2.0 / fan_in as f64).sqrt();
            let data =
                (0..p.len()).map(|_| if fan_in == 1 { 1.0 } else { (size * s.normal()) as f32 }).collect();
            (p.name, Tensor::new(p.shape, data))
        })
        .collect();
    let mut step = Step::new(&graph, &values, |_| Ok(trained.clone()), batch, isa, threads)?;
    let mut image = vec![0.0; 34 * 34 * 16];
    let mut s = stream(0, "image");
    for (y, x) in (1..33).flat_map(|y| (1..33).map(move |x| (y, x))) {
        image[(y * 34 + x) * 16..][..3].fill_with(|| s.normal() as f32);
    }
    let load = |_: usize, x: &mut [f32]| x.copy_from_slice(&image);
    let d_logits = vec![1e-3; batch * graph.classes()];
    let (mut seconds, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        step.forward(batch, Statistics::Batch, load);
        step.backward(batch, &d_logits, load);
        seconds.push(start.elapsed().as_secs_f64());
        busy.push(cpu_seconds() - cpu);
    }
    for times in [&mut seconds, &mut busy] {
        times.remove(0);
        times.sort_by(f64::total_cmp);
    }
    let median = seconds[seconds.len() / 2];
    // Forward and back to the data; the first layer has no way back.
    let forward = |first: bool| -> f64 {
        let convs = graph.nodes.iter().filter_map(|node| match &node.op {
            Op::Conv(c) if first || c.cin >= 16 => {
                Some((2 * node.shape.iter().product::<usize>() * c.cin * c.kernel * c.kernel) as f64)
            }
            _ => None,
        });
        convs.sum()
    };
    let gflops = (forward(true) + forward(false)) * batch as f64 / median / 1e9;
    let peak = peak(isa) * threads as f64;
    println!("{arch} {variant}, batch {batch}, {threads} threads, {isa}");
    println!("{:.0} images/s (best {:.0})", batch as f64 / median, batch as f64 / seconds[0]);
    let per_busy = |seconds: f64| (batch * threads) as f64 / seconds;
    println!(
        "{:.0} images per second of CPU time, times threads (best {:.0})",
        per_busy(busy[busy.len() / 2]),
        per_busy(busy[0])
    );
    println!(
        "{gflops:.1} GFLOP/s of {peak:.1} (FMA peak of that many idle cores): {:.0} %",
        100.0 * gflops / peak
    );
    println!("{:.1} MB of buffers", step.bytes() as f64 / 1e6);
    Ok(())
}
