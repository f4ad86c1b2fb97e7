//! Work that does nothing but take time: how fast this CPU multiplies and adds, reads and writes. Knows
//! no clock; whoever wants a speed divides by the time that a call took.
#![allow(unsafe_code)] // chains are lanes

use std::hint::black_box;

use super::lanes::{Isa, Lanes, lanes_dispatch};

/// Chains that run beside each other where there are many registers: enough to fill the units.
const CHAINS: usize = 12;
/// The same where there are few.
const NARROW_CHAINS: usize = 5;

/// Multiplies and adds in registers, nothing waiting for another, for `rounds` rounds. Returns how many
/// floating-point operations that were; a fused multiplication-addition is two.
pub fn multiply_add(isa: Isa, rounds: usize) -> u64 {
    let (mut out, mut done) = ([0.0; 16], 0);
    // SAFETY: references are valid.
    unsafe { chains_on(isa, rounds, &mut out, &mut done) };
    black_box(out);
    done
}

lanes_dispatch!(
    unsafe fn chains_on(rounds: usize, out: &mut [f32; 16], done: &mut u64) = chains
);

/// # Safety
/// The CPU is the dispatcher's promise.
#[inline(always)]
unsafe fn chains<L: Lanes>(rounds: usize, out: &mut [f32; 16], done: &mut u64) {
    // SAFETY: `out` holds 16 floats.
    unsafe {
        let (a, b) = (L::splat(black_box(0.5)), L::splat(black_box(0.25)));
        let mut sums = [b; CHAINS];
        let live = if L::WIDE { CHAINS } else { NARROW_CHAINS };
        for _ in 0..rounds {
            for sum in &mut sums[..live] {
                *sum = sum.fma(a, b);
            }
        }
        let mut total = sums[0];
        for sum in &sums[1..] {
            total = total.add(*sum);
        }
        total.store(out.as_mut_ptr());
        *done = (rounds * live * 32) as u64;
    }
}

/// Reads both slices and writes the first, which stays bounded. Returns the bytes moved.
///
/// # Panics
/// Where they differ in length.
pub fn sweep(to: &mut [f32], from: &[f32]) -> u64 {
    assert_eq!(to.len(), from.len(), "slices of one length");
    for (to, from) in to.iter_mut().zip(from) {
        *to = *to * 0.5 + *from;
    }
    black_box(&to);
    3 * std::mem::size_of_val(from) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_on_every_instruction_set() {
        for isa in Isa::all() {
            let once = multiply_add(isa, 10);
            assert!(once == 10 * 32 * CHAINS as u64 || once == 10 * 32 * NARROW_CHAINS as u64);
            assert_eq!(multiply_add(isa, 30), 3 * once);
        }
        let mut to = [2.0; 5];
        assert_eq!(sweep(&mut to, &[1.0; 5]), 60);
        assert_eq!(to, [2.0; 5]);
    }
}
