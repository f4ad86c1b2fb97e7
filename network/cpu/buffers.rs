//! Memory that holds one slice per image, made once. Knows nothing of what is computed.
#![allow(unsafe_code)] // disjoint slices of one buffer go to several threads

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ptr::NonNull,
};

/// Slices begin at multiples of that many bytes: a cache line, and a vector of 16 floats.
const ALIGN: usize = 64;
/// Allocations of at least a large page begin with one.
const LARGE: usize = 2 << 20;

/// `count` slices of one size in one allocation, whose pages are touched.
pub(crate) struct Images<T: Copy> {
    start: NonNull<T>,
    count: usize,
    size: usize,
}

// SAFETY: nothing but raw pointers is handed out without `&mut`; their users keep them apart.
unsafe impl<T: Copy + Send> Send for Images<T> {}
// SAFETY: as above.
unsafe impl<T: Copy + Send> Sync for Images<T> {}

impl<T: Copy + Default> Images<T> {
    /// Slices of `size` elements, all of them the default.
    pub(crate) fn new(count: usize, size: usize) -> Self {
        let layout = Self::layout(count, size);
        let start = if layout.size() == 0 {
            NonNull::dangling()
        } else {
            // SAFETY: the layout is not empty; what it holds is written before anybody reads it.
            unsafe {
                let start = NonNull::new(alloc(layout).cast::<T>());
                let start = start.unwrap_or_else(|| handle_alloc_error(layout));
                #[cfg(target_os = "linux")]
                if layout.size() >= LARGE {
                    // Fewer pages to look up; where the system declines, nothing is lost.
                    libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
                }
                for i in 0..count * size {
                    start.add(i).write(T::default());
                }
                start
            }
        };
        Self { start, count, size }
    }
}

impl<T: Copy> Images<T> {
    fn layout(count: usize, size: usize) -> Layout {
        let layout = || {
            let layout = Layout::array::<T>(count.checked_mul(size)?).ok()?;
            layout.align_to(if layout.size() < LARGE { ALIGN } else { LARGE }).ok()
        };
        layout().unwrap_or_else(|| {
            panic!("a buffer of {count} slices of {size} elements does not fit the address space")
        })
    }

    /// Where the slice of image `n` begins; it holds [`Images::size`] elements.
    pub(crate) fn ptr(&self, n: usize) -> *mut T {
        assert!(n < self.count, "image {n} of {}", self.count);
        // SAFETY: the slice lies inside the allocation.
        unsafe { self.start.as_ptr().add(n * self.size) }
    }

    /// How many slices.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Elements of a slice.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The slice of image `n`, of a buffer that nobody else holds.
    pub(crate) fn get(&mut self, n: usize) -> &mut [T] {
        // SAFETY: the slice is inside, initialised, and `&mut self` keeps others away.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(n), self.size) }
    }

    /// All slices, of a buffer that nobody else holds.
    pub(crate) fn all(&mut self) -> &mut [T] {
        // SAFETY: the whole allocation, initialised, and `&mut self` keeps others away.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.count * self.size) }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        Self::layout(self.count, self.size).size()
    }
}

impl<T: Copy> Drop for Images<T> {
    fn drop(&mut self) {
        let layout = Self::layout(self.count, self.size);
        if layout.size() > 0 {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "slices of 3 elements does not fit the address space")]
    fn a_buffer_whose_size_would_wrap_is_refused() {
        Images::<f32>::new(usize::MAX / 3 + 2, 3); // wraps to 5 elements
    }
}
