//! How maps and filters lie in a device's memory: the Rust side of `stored.cu`. Knows no device.

use crate::trainer::Precision;

/// Its name in the kernels.
pub(super) fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "F32",
        Precision::Tf32 => "TF32",
        Precision::Bf16 => "BF16",
    }
}

/// Its name in kernels that multiply on no tensor cores: those keep tf32, and compute with it, as f32.
pub(super) fn kept(precision: Precision) -> &'static str {
    name(if precision == Precision::Tf32 { Precision::F32 } else { precision })
}

/// Bytes of a stored number.
pub(super) fn width(precision: Precision) -> usize {
    if precision == Precision::Bf16 { 2 } else { 4 }
}

/// `values` as they are stored.
pub(super) fn bytes(precision: Precision, values: &[f32]) -> Vec<u8> {
    match precision {
        Precision::F32 | Precision::Tf32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Precision::Bf16 => values.iter().flat_map(|x| bf16(*x).to_le_bytes()).collect(),
    }
}

/// The nearest bf16; of two as near the even one.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return 0x7fff;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_the_nearest_and_not_a_number_stays_none() {
        let near = |x: f32| f32::from_bits(u32::from(bf16(x)) << 16);
        assert_eq!([1.0, -2.5, 0.0, f32::INFINITY].map(near), [1.0, -2.5, 0.0, f32::INFINITY]);
        let step = 1.0 / 128.0; // between neighbours of 1
        assert_eq!(near(1.0 + 0.4 * step), 1.0);
        assert_eq!(near(1.0 + 0.6 * step), 1.0 + step);
        assert_eq!(near(1.0 + 0.5 * step), 1.0, "the even one");
        assert_eq!(near(-1.0 - 1.5 * step), -1.0 - 2.0 * step, "the even one");
        assert_eq!(near(f32::MAX), f32::INFINITY);
        assert!(near(f32::NAN).is_nan() && near(f32::from_bits(0xffff_ffff)).is_nan());
        assert_eq!(bytes(Precision::Bf16, &[1.0]), [0x80, 0x3f]);
        assert_eq!(bytes(Precision::Tf32, &[1.0]), 1f32.to_le_bytes());
    }
}
