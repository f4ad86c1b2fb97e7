//! Worker threads that live as long as their pool and share out numbered items. Knows nothing of
//! what is computed.
//!
//! Each worker begins with its own contiguous range and then helps the others; so what an item
//! computes must depend on the item alone, and then threads change no bit.
#![allow(unsafe_code)] // a borrowed closure goes to threads that outlive it, and returns in time

use std::{
    any::Any,
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long a thread looks for news before it sleeps: about the time of one item.
const PATIENCE: Duration = Duration::from_micros(50);

/// A call of `work` for one worker.
type Work = dyn Fn(usize) + Sync;

/// Threads that wait for work.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    ranges: Vec<Range>,
}

/// What is left of a worker's items. On a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Range {
    next: AtomicUsize,
    end: usize,
}

struct Shared {
    /// Rises with every call; `usize::MAX` ends the threads.
    call: AtomicUsize,
    /// Threads that have not finished the call.
    busy: AtomicUsize,
    work: UnsafeCell<Option<*const Work>>,
    /// What a thread panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    lock: Mutex<()>,
    news: Condvar,
}

// SAFETY: `work` is written only while no thread is busy, and read only by busy ones.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is to something `Sync`.
unsafe impl Send for Shared {}

impl Shared {
    /// Returns when `ready` does.
    fn wait(&self, ready: impl Fn() -> bool) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            for _ in 0..32 {
                if ready() {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        let mut guard = hold(&self.lock);
        while !ready() {
            guard = self.news.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes whoever sleeps; what they wait for has been stored.
    fn tell(&self) {
        drop(hold(&self.lock)); // nobody is between looking and sleeping now
        self.news.notify_all();
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `workers` (at least one), the calling thread among them.
    pub(crate) fn new(workers: usize) -> Self {
        let shared = Arc::new(Shared {
            call: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            panic: Mutex::new(None),
            lock: Mutex::new(()),
            news: Condvar::new(),
        });
        let serve = |worker: usize| {
            let shared = shared.clone();
            move || attend(&shared, worker)
        };
        // Where the system has no more of them, the others do their work.
        let start = |worker| std::thread::Builder::new().spawn(serve(worker)).ok();
        let threads: Vec<_> = (1..workers).map_while(start).collect();
        let ranges = (0..=threads.len()).map(|_| Range::default()).collect();
        Self { shared, threads, ranges }
    }

    /// Threads that work, the calling one included.
    pub(crate) fn workers(&self) -> usize {
        self.ranges.len()
    }

    /// Runs `work(item, own)` once for each item below `items`; every worker has one of `own` to
    /// itself.
    ///
    /// # Panics
    /// Where `work` does, or `own` are fewer than the workers.
    pub(crate) fn each<S: Send>(&mut self, own: &mut [S], items: usize, work: impl Fn(usize, &mut S) + Sync) {
        let workers = self.workers();
        assert!(own.len() >= workers, "every worker needs its own");
        for (i, range) in self.ranges.iter_mut().enumerate() {
            *range.next.get_mut() = i * items / workers;
            range.end = (i + 1) * items / workers;
        }
        let (ranges, own) = (&self.ranges, Apart(own.as_mut_ptr()));
        self.call(&|worker| {
            // SAFETY: every worker is one thread and has its own element.
            let own = unsafe { &mut *own.at(worker) };
            for range in (0..workers).map(|i| &ranges[(worker + i) % workers]) {
                loop {
                    let item = range.next.fetch_add(1, Ordering::Relaxed);
                    if item >= range.end {
                        break;
                    }
                    work(item, own);
                }
            }
        });
    }

    /// Runs `work` once on each of `items`.
    ///
    /// # Panics
    /// Where `work` does.
    pub(crate) fn each_of<T: Send>(&mut self, items: &mut [T], work: impl Fn(&mut T) + Sync) {
        let all = Apart(items.as_mut_ptr());
        let mut own = vec![(); self.workers()];
        self.each(&mut own, items.len(), |item, ()| {
            // SAFETY: every item is taken once.
            work(unsafe { &mut *all.at(item) });
        });
    }

    fn call(&self, work: &(dyn Fn(usize) + Sync)) {
        if self.threads.is_empty() {
            return work(0);
        }
        // SAFETY: no thread is busy, so none reads; only the lifetime changes, and `work` outlives
        // the wait below, after which no thread uses it.
        unsafe {
            *self.shared.work.get() =
                Some(std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const Work>(work))
        };
        self.shared.busy.store(self.threads.len(), Ordering::Relaxed);
        self.shared.call.fetch_add(1, Ordering::Release);
        self.shared.tell();
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        self.shared.wait(|| self.shared.busy.load(Ordering::Acquire) == 0);
        let theirs = hold(&self.shared.panic).take();
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

fn attend(shared: &Shared, worker: usize) {
    let mut seen = 0;
    loop {
        shared.wait(|| shared.call.load(Ordering::Acquire) != seen);
        seen = shared.call.load(Ordering::Acquire);
        if seen == usize::MAX {
            return;
        }
        // SAFETY: the caller stored the work before it raised `call`, and waits for this thread.
        let done = catch_unwind(AssertUnwindSafe(|| unsafe {
            if let Some(work) = *shared.work.get() {
                (*work)(worker);
            }
        }));
        if let Err(panic) = done {
            *hold(&shared.panic) = Some(panic);
        }
        if shared.busy.fetch_sub(1, Ordering::Release) == 1 {
            shared.tell();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.call.store(usize::MAX, Ordering::Release);
        self.shared.tell();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // its panics were passed on when they happened
        }
    }
}

/// A pointer to elements of which nobody takes the same.
struct Apart<S>(*mut S);

// SAFETY: see its users, `Pool::each` and `Pool::each_of`.
unsafe impl<S: Send> Sync for Apart<S> {}

impl<S> Apart<S> {
    /// # Safety
    /// `i` is an index of the slice.
    unsafe fn at(&self, i: usize) -> *mut S {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(i) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_runs_once_whatever_the_number_of_workers() {
        for workers in [0, 1, 2, 5] {
            let mut pool = Pool::new(workers);
            let mut own = vec![Vec::new(); pool.workers()];
            for items in [0, 1, 3, 17, 100] {
                own.iter_mut().for_each(Vec::clear);
                pool.each(&mut own, items, |item, own| own.push(item));
                let mut all = own.concat();
                all.sort_unstable();
                assert_eq!(all, (0..items).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_worker_that_waited_long_still_works_and_idle_ones_help() {
        let mut pool = Pool::new(2);
        let (mut own, others) = ([0, 0], AtomicUsize::new(0));
        std::thread::sleep(4 * PATIENCE);
        let start = Instant::now();
        pool.each(&mut own, 40, |item, own| {
            *own += 1;
            if item > 0 {
                others.fetch_add(1, Ordering::Relaxed);
            }
            while item == 0 && others.load(Ordering::Relaxed) < 39 {
                assert!(start.elapsed() < Duration::from_secs(60), "nobody helps");
                std::thread::yield_now();
            }
        });
        // On a busy machine the caller may come late, and find item 0 taken too.
        assert_eq!(own.iter().sum::<i32>(), 40);
    }

    #[test]
    fn a_panic_comes_back_and_the_pool_goes_on() {
        let mut pool = Pool::new(3);
        let mut own = [0, 0, 0];
        for bad in [0, 29] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.each(&mut own, 30, |item, _| assert_ne!(item, bad, "bad item"));
            }));
            assert!(caught.is_err());
        }
        pool.each(&mut own, 30, |_, own| *own += 1);
        assert_eq!(own.iter().sum::<i32>(), 30);
    }
}
