//! What each kernel reaches, in equivalent GFLOP/s (operations of the direct convolution over the
//! thread's CPU time, so that other work on the machine hardly matters) and as a share of the FMA peak
//! measured beside it: `cargo run --release -p repro-network --example kernels -- [avx512] [filter]`.
#![allow(clippy::print_stdout, unsafe_code)] // a benchmark speaks; its peak is a kernel

use std::{error::Error, hint::black_box};

use network::{
    cpu::{
        conv::{Conv, bordered, plain},
        gradient::FilterGradient,
        lanes::{Isa, Lanes},
        winograd::{Winograd, chunk},
    },
    rng::stream,
};

const ROUNDS: usize = 4_000_000;

network::lanes_dispatch!(unsafe fn chains(out: &mut [f32; 16]) = chains_on);

/// Twelve independent chains: enough to fill the units, few enough for sixteen registers' halves.
#[inline(always)]
unsafe fn chains_on<L: Lanes>(out: &mut [f32; 16]) {
    // SAFETY: `out` holds 16 floats; the CPU is the dispatcher's promise.
    unsafe {
        let (a, b) = (L::splat(black_box(0.5)), L::splat(black_box(0.25)));
        let mut sums = [b; 12];
        let live = if L::WIDE { 12 } else { 5 };
        for _ in 0..ROUNDS / live {
            for sum in &mut sums[..live] {
                *sum = sum.fma(a, b);
            }
        }
        let mut total = sums[0];
        for sum in &sums[1..] {
            total = total.add(*sum);
        }
        total.store(out.as_mut_ptr());
    }
}

/// Seconds of CPU time of this thread.
fn now() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a reference to a timespec is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// 10^9 floating-point operations per second.
fn peak(isa: Isa) -> f64 {
    let (start, mut out) = (now(), [0.0; 16]);
    // SAFETY: a reference is valid.
    unsafe { chains(isa, &mut out) };
    black_box(out);
    (ROUNDS * 32) as f64 / (now() - start) / 1e9
}

struct Bench {
    isa: Isa,
    filter: String,
}

impl Bench {
    /// Median and best of 15, each beside a measurement of the peak.
    fn run(&self, name: String, flop: f64, mut work: impl FnMut()) {
        if !name.contains(&self.filter) {
            return;
        }
        work(); // touches the pages
        let mut rates: Vec<(f64, f64)> = (0..15)
            .map(|_| {
                let peak = peak(self.isa);
                let (start, mut times) = (now(), 0);
                while times == 0 || now() - start < 0.01 {
                    work();
                    times += 1;
                }
                let rate = flop * f64::from(times) / (now() - start) / 1e9;
                (rate, rate / peak)
            })
            .collect();
        rates.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (rate, share) = rates[rates.len() / 2];
        let best = rates[rates.len() - 1].1;
        println!("{name:44} {rate:7.1} GFLOP/s {:5.0} % of peak, best {:5.0}", 100.0 * share, 100.0 * best);
    }
}

fn draw(n: usize) -> Vec<f32> {
    let mut s = stream(0, "kernels");
    (0..n).map(|_| s.normal() as f32).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut given = std::env::args().skip(1);
    let isa = Isa::choose(given.next().as_deref())?;
    let bench = Bench { isa, filter: given.next().unwrap_or_default() };
    println!("{isa}, peak {:.1} GFLOP/s", (0..9).map(|_| peak(isa)).fold(0.0, f64::max));
    for (shape, stride, size) in [
        ([16, 3, 3, 3], 1, 32),
        ([16, 16, 3, 3], 1, 32),
        ([32, 32, 3, 3], 1, 16),
        ([64, 64, 3, 3], 1, 8),
        ([32, 16, 3, 3], 2, 32),
        ([64, 32, 3, 3], 2, 16),
        ([32, 16, 1, 1], 2, 32),
        ([128, 128, 3, 3], 1, 32),
        ([256, 256, 3, 3], 1, 16),
        ([512, 512, 3, 3], 1, 8),
        ([256, 128, 3, 3], 2, 32),
        ([512, 512, 3, 3], 1, 4),
        ([512, 512, 3, 3], 1, 2),
    ] {
        let [filters, channels, kernel, _] = shape;
        let input = [size, size];
        let output = input.map(|n: usize| n.div_ceil(stride));
        let images = chunk(input);
        let per_output = 2 * channels * kernel * kernel;
        let flop = (images * filters * output[0] * output[1] * per_output) as f64;
        let weights = draw(filters * channels * kernel * kernel);
        let (x, g) = (draw(images * bordered(channels, input)), draw(images * bordered(filters, output)));
        let (x_len, g_len) = (bordered(channels, input), bordered(filters, output));
        let (mut y, mut dx) =
            (vec![0.0; images * plain(filters, output)], vec![0.0; images * plain(channels, input)]);
        let what =
            |name: &str| format!("{name} {channels}>{filters} {kernel}x{kernel}/{stride} {size}x{size}");
        let conv = Conv::new(shape, stride, input, &weights);
        bench.run(what("direct"), flop, || {
            for (x, y) in x.chunks(x_len).zip(y.chunks_mut(plain(filters, output))) {
                conv.forward(isa, x, y);
            }
        });
        if channels >= 16 {
            bench.run(what("direct-back"), flop, || {
                for (g, dx) in g.chunks(g_len).zip(dx.chunks_mut(plain(channels, input))) {
                    conv.backward(isa, g, dx, false);
                }
            });
        }
        if Winograd::serves(channels, filters, kernel, stride) {
            let mut winograd = Winograd::forward(filters, channels, input);
            // As if a transform cost as much as a convolution of the chunk.
            bench.run(what("set"), flop, || winograd.set(isa, &weights));
            let mut scratch = vec![0.0; winograd.scratch_len()];
            bench.run(what("winograd"), flop, || {
                winograd.run(isa, images, &x, &mut y, false, &mut scratch);
            });
        }
        let gradient = FilterGradient::new(shape, stride, input);
        let (mut sum, mut scratch) = (vec![0.0; gradient.sum_len()], vec![0.0; gradient.scratch_len()]);
        bench.run(what("gradient"), flop, || gradient.add(isa, images, &x, &g, &mut sum, &mut scratch));
        // Two positions of each filter, as if that cost as much as the whole convolution.
        let fan_in = channels * kernel * kernel;
        let positions: Vec<u32> =
            (0..2 * filters).map(|i| (i / 2 * fan_in + i * 7919 % fan_in) as u32).collect();
        let gradient = FilterGradient::of_positions(shape, stride, input, &positions);
        let (mut sum, mut scratch) = (vec![0.0; gradient.sum_len()], vec![0.0; gradient.scratch_len()]);
        bench.run(what("two-positions"), flop, || gradient.add(isa, images, &x, &g, &mut sum, &mut scratch));
    }
    Ok(())
}
