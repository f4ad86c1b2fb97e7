//! Clocks, and how fast this machine multiplies and moves memory. Knows no network.

use std::{
    sync::{Barrier, LazyLock},
    time::Instant,
};

use cpu_time::{ProcessTime, ThreadTime};
use network::cpu::{lanes::Isa, peak};

/// Seconds since some moment.
pub(crate) type Clock = fn() -> f64;

/// The time on the wall.
pub(crate) fn wall() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_secs_f64()
}

/// CPU time of this thread: other work on the machine hardly counts.
pub(crate) fn thread_time() -> f64 {
    ThreadTime::now().as_duration().as_secs_f64()
}

/// CPU time of all threads of this process.
pub(crate) fn process_time() -> f64 {
    ProcessTime::now().as_duration().as_secs_f64()
}

/// The middle of `values`, of an even number the mean of both; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) =
        (values.get(values.len().saturating_sub(1) / 2), values.get(values.len() / 2))
    else {
        return 0.0;
    };
    0.5 * (low + high)
}

/// How fast `threads` threads multiply and add, or as many as can run at once: others would only wait for these.
pub(crate) struct Arithmetic {
    isa: Isa,
    threads: usize,
    clock: Clock,
    rounds: usize,
}

impl Arithmetic {
    /// Looks for the number of rounds that takes a few milliseconds.
    pub(crate) fn new(isa: Isa, threads: usize, clock: Clock) -> Self {
        const LONG_ENOUGH: f64 = 2e-3;
        let mut this = Self { isa, threads: at_once(threads), clock, rounds: 1000 };
        loop {
            let start = clock();
            peak::multiply_add(isa, this.rounds);
            if clock() - start > LONG_ENOUGH {
                return this;
            }
            this.rounds *= 2;
        }
    }

    /// 10^9 floating-point operations per second of all threads together, now.
    pub(crate) fn gflops(&self) -> f64 {
        let ready = Barrier::new(self.threads);
        let one = || {
            ready.wait();
            let start = (self.clock)();
            let done = peak::multiply_add(self.isa, self.rounds);
            done as f64 / ((self.clock)() - start) / 1e9
        };
        all(self.threads, one).into_iter().sum()
    }
}

/// 10^9 bytes per second that `threads` threads, or as many as can run at once, read and write together, in slices of `bytes` in all,
/// which should be more than the caches hold; the best of a few sweeps.
pub(crate) fn memory_gbytes(threads: usize, bytes: usize) -> f64 {
    const SWEEPS: usize = 4;
    let threads = at_once(threads);
    let length = bytes / threads / 2 / size_of::<f32>();
    let ready = Barrier::new(threads);
    let one = || {
        let (mut to, from) = (vec![1.0f32; length], vec![1.0f32; length]);
        let sweep = |_| {
            ready.wait();
            let start = wall();
            let moved = peak::sweep(&mut to, &from);
            (moved as f64, wall() - start)
        };
        (0..SWEEPS).map(sweep).collect::<Vec<_>>()
    };
    let threads = all(threads, one);
    // The slowest thread counts.
    let rate = |sweep: usize| {
        let moved: f64 = threads.iter().map(|sweeps| sweeps[sweep].0).sum();
        moved / threads.iter().map(|sweeps| sweeps[sweep].1).fold(0.0, f64::max) / 1e9
    };
    (0..SWEEPS).map(rate).fold(0.0, f64::max)
}

/// Of so many threads, those that can run at the same time.
fn at_once(threads: usize) -> usize {
    threads.min(std::thread::available_parallelism().map_or(threads, usize::from))
}

/// What `work` gives on each of `threads` threads.
fn all<T: Send>(threads: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(&work)).collect();
        let mut results = vec![work()];
        results.extend(others.into_iter().filter_map(|other| other.join().ok()));
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_threads_are_measured_than_run_at_once() {
        let cores = std::thread::available_parallelism().expect("a number").get();
        assert_eq!([1, cores, 100 * cores].map(at_once), [1, cores, cores]);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }
}
