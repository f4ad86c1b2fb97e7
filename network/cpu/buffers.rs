//! Buffers that hold one slice per image, and workers that each own a range of images. Knows
//! nothing of what is computed.
#![allow(unsafe_code)] // disjoint slices of one buffer go to several threads

use std::cell::UnsafeCell;

/// `count` slices of one size in one allocation.
pub struct Images<T> {
    cells: Box<[UnsafeCell<T>]>,
    size: usize,
}

// SAFETY: slices are handed out by the unsafe `image`, whose callers keep them apart.
unsafe impl<T: Send> Sync for Images<T> {}

impl<T: Default> Images<T> {
    /// Slices of `size` elements.
    pub fn new(count: usize, size: usize) -> Self {
        Self { cells: (0..count * size).map(|_| UnsafeCell::default()).collect(), size }
    }

    /// The slice of image `n`.
    ///
    /// # Safety
    /// Nobody else uses the slice of image `n` while this one lives.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn image(&self, n: usize) -> &mut [T] {
        let cells = &self.cells[n * self.size..][..self.size];
        // SAFETY: UnsafeCell has the layout of what it holds; the caller promises to be alone.
        unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), self.size) }
    }

    /// The slice of image `n`, of a buffer that nobody else holds.
    pub fn get(&mut self, n: usize) -> &mut [T] {
        // SAFETY: `&mut self`.
        unsafe { self.image(n) }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.cells)
    }
}

/// Runs `work` once for each image below `count`: each worker takes a contiguous range and has its
/// own scratch. Which worker takes an image changes nothing that `work` computes.
pub fn each_image<S: Send>(scratch: &mut [S], count: usize, work: impl Fn(usize, &mut S) + Sync) {
    let share = count.div_ceil(scratch.len());
    let run = |worker: usize, scratch: &mut S| {
        for n in worker * share..((worker + 1) * share).min(count) {
            work(n, scratch);
        }
    };
    let Some((own, others)) = scratch.split_first_mut() else { return };
    std::thread::scope(|scope| {
        let run = &run;
        for (i, scratch) in others.iter_mut().enumerate() {
            scope.spawn(move || run(i + 1, scratch));
        }
        run(0, own);
    });
}
