//! The fused multiplication-addition of the portable path: one instruction where the target always
//! has it, otherwise arithmetic in f64 that vectorises and rounds once all the same. Knows no lanes.

/// `a * b + c`, rounded once, lane by lane.
#[inline(always)]
pub(super) fn mul_add(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
    // The library function behind `f32::mul_add` takes some fifty times an instruction's time.
    if cfg!(any(
        target_feature = "fma",
        target_arch = "aarch64",
        target_arch = "arm64ec",
        target_arch = "loongarch64",
        target_arch = "powerpc64",
        target_arch = "riscv64",
        target_arch = "s390x",
    )) {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    } else {
        sixteen_in_f64(&a, &b, &c)
    }
}

/// By itself: a hundred instructions, beside which a call is nothing, and kernels have hundreds of such places.
#[inline(never)]
fn sixteen_in_f64(a: &[f32; 16], b: &[f32; 16], c: &[f32; 16]) -> [f32; 16] {
    std::array::from_fn(|i| in_f64(a[i], b[i], c[i]))
}

/// The product is exact in f64; the sum is rounded to odd, which leaves the second rounding, to f32,
/// as if it were the only one: f64 has more than two bits to spare.
#[inline(always)]
fn in_f64(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    // What the sum lost, exactly (Knuth's TwoSum); NaN where it is not finite.
    let seen = sum - product;
    let lost = (product - (sum - seen)) + (c - seen);
    // An inexact sum that ends in an even bit moves to its odd neighbour on the side of the true value.
    let bits = sum.to_bits();
    let inexact = u64::from(lost < 0.0) | u64::from(lost > 0.0);
    let step = inexact & !bits & 1;
    let inwards = ((lost.to_bits() ^ bits) >> 63).wrapping_neg();
    f64::from_bits(bits.wrapping_add((step ^ inwards).wrapping_sub(inwards))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values whose sums and products round, cancel, overflow and underflow.
    fn value(stream: &mut crate::rng::Stream) -> f32 {
        let special =
            [0.0, -0.0, 1.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN, 1.0 + f32::EPSILON];
        let (sign, small) = (stream.below(2) as u32, stream.below(1 << 23) as u32);
        let bits = match stream.below(6) {
            0 => special[stream.below(8) as usize].to_bits(),
            1 => small,                                             // subnormal
            2 => (117 + stream.below(20) as u32) << 23,             // a power of two
            3 => (117 + stream.below(20) as u32) << 23 | small & 3, // a few bits: ties
            4 => (stream.below(255) as u32) << 23 | small,
            _ => (100 + stream.below(54) as u32) << 23 | small,
        };
        f32::from_bits(bits | sign << 31)
    }

    #[test]
    fn arithmetic_in_f64_rounds_once() {
        let mut stream = crate::rng::stream(1, "fused");
        for _ in 0..1_000_000 {
            let (a, b) = (value(&mut stream), value(&mut stream));
            // Often near the product, so that the sum cancels.
            let c = if stream.below(3) == 0 { -(a * b) * (1.0 + f32::EPSILON) } else { value(&mut stream) };
            let (ours, expected) = (in_f64(a, b, c), a.mul_add(b, c));
            let equal = ours.to_bits() == expected.to_bits() || ours.is_nan() && expected.is_nan();
            assert!(equal, "{a:e} * {b:e} + {c:e}: {ours:e} instead of {expected:e}");
        }
    }

    #[test]
    fn a_second_rounding_would_show() {
        // 2^-24 (1 - 2^-46) is just below half a unit of c; f64 forgets that it is below.
        let e = f32::EPSILON;
        let (a, b, c) = ((1.0 - e) * (e / 2.0), 1.0 + e, 1.0 + e);
        assert_eq!((f64::from(a) * f64::from(b) + f64::from(c)) as f32, 1.0 + 2.0 * e);
        assert_eq!(in_f64(a, b, c), 1.0 + e);
    }
}
