//! Memory that holds one slice per image, made once. Knows nothing of what is computed.
#![allow(unsafe_code)] // disjoint slices of one buffer go to several threads

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ptr::NonNull,
};

/// Slices begin at multiples of that many bytes: a cache line, and a vector of 16 floats.
const ALIGN: usize = 64;
/// Allocations of at least a large page begin with one.
const LARGE: usize = 2 << 20;
/// What every allocator gives without being asked: only so much alignment is zeroed without being touched.
const NATURAL: usize = 8;

/// Numbers that are zero where all bits are.
///
/// # Safety
/// Of no type with a bit pattern of zeros that is no value.
pub(crate) unsafe trait Zeroed: Copy {}

// SAFETY: a number.
unsafe impl Zeroed for f32 {}
// SAFETY: likewise.
unsafe impl Zeroed for u16 {}
// SAFETY: likewise.
unsafe impl Zeroed for u32 {}

#[cfg(test)]
thread_local! {
    /// Bytes of all slices that this thread has made: what a plan says of them is compared with it.
    pub(crate) static MADE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// `count` slices of one size in one allocation. Pages are taken when they are first written, so that what only says
/// how much it would hold takes none.
pub(crate) struct Images<T: Copy> {
    start: NonNull<T>,
    /// What was allocated: `start` lies in it, aligned.
    whole: NonNull<u8>,
    count: usize,
    size: usize,
}

// SAFETY: nothing but raw pointers is handed out without `&mut`; their users keep them apart.
unsafe impl<T: Copy + Send> Send for Images<T> {}
// SAFETY: as above.
unsafe impl<T: Copy + Send> Sync for Images<T> {}

impl<T: Zeroed> Images<T> {
    /// Slices of `size` elements, all of them zero.
    pub(crate) fn new(count: usize, size: usize) -> Self {
        let layout = Self::layout(count, size);
        let (mut start, mut whole) = (NonNull::dangling(), NonNull::dangling());
        if layout.size() > 0 {
            let room = Self::room(layout);
            // SAFETY: the room is not empty, and longer than the layout by its alignment.
            unsafe {
                whole = NonNull::new(alloc_zeroed(room)).unwrap_or_else(|| {
                    let bytes = layout.size() as f64 / 1e6;
                    panic!("no memory for a buffer of {bytes:.1} MB; a smaller batch takes less")
                });
                start = whole.add(whole.align_offset(layout.align())).cast::<T>();
                #[cfg(target_os = "linux")]
                if layout.size() >= LARGE {
                    // Fewer pages to look up; where the system declines, nothing is lost.
                    libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
                }
            }
        }
        #[cfg(test)]
        MADE.set(MADE.get() + layout.size());
        Self { start, whole, count, size }
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

    /// Room for `layout`, wherever it begins.
    fn room(layout: Layout) -> Layout {
        let room = layout.size().checked_add(layout.align());
        let room = room.and_then(|size| Layout::from_size_align(size, NATURAL).ok());
        room.unwrap_or(layout) // too large for any allocator
    }

    /// Where the slice of image `n` begins; it holds [`Images::size`] elements.
    #[inline]
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
            unsafe { dealloc(self.whole.as_ptr(), Self::room(layout)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_zero_and_aligned_wherever_the_memory_was_used_before() {
        for (count, size) in [(0, 5), (3, 0), (1, 1), (7, 16), (3, LARGE / 4)] {
            for _ in 0..3 {
                let mut images = Images::<f32>::new(count, size);
                let align = if count * size * 4 < LARGE { ALIGN } else { LARGE };
                assert!(count * size == 0 || images.ptr(0).addr().is_multiple_of(align), "{count} {size}");
                assert!(images.all().len() == count * size && images.all().iter().all(|x| x.to_bits() == 0));
                images.all().fill(f32::NAN);
            }
        }
    }

    #[test]
    #[should_panic(expected = "slices of 3 elements does not fit the address space")]
    fn a_buffer_whose_size_would_wrap_is_refused() {
        Images::<f32>::new(usize::MAX / 3 + 2, 3); // wraps to 5 elements
    }
}
