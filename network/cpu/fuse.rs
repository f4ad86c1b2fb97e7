//! What happens to an image between two convolutions, in one sweep each: normalise, add, rectify
//! and lay out with a border; backward, the gradient of the same; and the channel sums. Knows one
//! image at a time.
//!
//! Channel sums are specified as four chains per channel, pixels modulo 4, added as
//! (0 + 1) + (2 + 3).
#![allow(unsafe_code)] // pointers into slices whose lengths are checked once per image

use super::lanes::{Isa, Lanes};

/// A per-channel line: `scale z + shift`.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    /// One per channel.
    pub scale: &'a [f32],
    /// One per channel.
    pub shift: &'a [f32],
}

/// A shortcut to add before rectification.
#[derive(Clone, Copy)]
pub enum Shortcut<'a> {
    /// None.
    None,
    /// The block's input, which the sum replaces.
    Identity,
    /// A projection and its BatchNorm.
    Projection(&'a [f32], Line<'a>),
}

/// Writes relu(line(z) + shortcut) into the inside of `bordered`; where `keep` is given, also into
/// its first slice (which holds the identity shortcut before), and into its second which are
/// above zero.
pub fn activate(
    isa: Isa,
    size: [usize; 2],
    z: (&[f32], Line<'_>),
    shortcut: Shortcut<'_>,
    keep: Option<(&mut [f32], &mut [u16])>,
    bordered: &mut [f32],
) {
    let blocks = z.0.len() / (size[0] * size[1] * 16);
    assert_eq!(bordered.len(), blocks * (size[0] + 2) * (size[1] + 2) * 16, "bordered image");
    assert!(z.1.scale.len() == blocks * 16 && z.1.shift.len() == blocks * 16, "channels");
    if let Shortcut::Projection(p, line) = shortcut {
        assert!(p.len() == z.0.len() && line.scale.len() == blocks * 16 && line.shift.len() == blocks * 16);
    }
    assert!(keep.is_some() || matches!(shortcut, Shortcut::None), "a sum is kept");
    let keep = keep.map(|(x, mask)| {
        assert!(x.len() == z.0.len() && mask.len() * 16 == x.len(), "kept sum");
        (x.as_mut_ptr(), mask.as_mut_ptr())
    });
    // SAFETY: all lengths were checked against the image.
    unsafe { activate_in(isa, size, z, shortcut, keep, bordered) }
}

crate::lanes_dispatch!(unsafe fn activate_in(
    size: [usize; 2],
    z: (&[f32], Line<'_>),
    shortcut: Shortcut<'_>,
    keep: Option<(*mut f32, *mut u16)>,
    bordered: &mut [f32],
) = activate_on);

#[inline(always)]
unsafe fn activate_on<L: Lanes>(
    [h, w]: [usize; 2],
    (z, line): (&[f32], Line<'_>),
    shortcut: Shortcut<'_>,
    keep: Option<(*mut f32, *mut u16)>,
    bordered: &mut [f32],
) {
    // SAFETY: the caller checked every length; pixel (y, x) of each block lies inside.
    unsafe {
        let zero = L::splat(0.0);
        for block in 0..z.len() / (h * w * 16) {
            let at = |p: &[f32]| L::load(p.as_ptr().add(block * 16));
            let (scale, shift) = (at(line.scale), at(line.shift));
            let side = match shortcut {
                Shortcut::Projection(p, line) => Some((p.as_ptr(), at(line.scale), at(line.shift))),
                _ => None,
            };
            for y in 0..h {
                let out = bordered.as_mut_ptr().add(((block * (h + 2) + y + 1) * (w + 2) + 1) * 16);
                for x in 0..w {
                    let pixel = (block * h + y) * w + x;
                    let mut v = L::load(z.as_ptr().add(pixel * 16)).fma(scale, shift);
                    if let Some((p, scale, shift)) = side {
                        v = v.add(L::load(p.add(pixel * 16)).fma(scale, shift));
                    }
                    if let Some((kept, mask)) = keep {
                        if let Shortcut::Identity = shortcut {
                            v = v.add(L::load(kept.add(pixel * 16)));
                        }
                        zero.max(v).store(kept.add(pixel * 16));
                        *mask.add(pixel) = v.positive();
                    }
                    zero.max(v).store(out.add(x * 16)); // in this order NaN survives
                }
            }
        }
    }
}

/// Writes `a g + (b z + c)` into the inside of `bordered`: the gradient behind a BatchNorm.
pub fn spread(isa: Isa, size: [usize; 2], g: &[f32], z: &[f32], abc: [&[f32]; 3], bordered: &mut [f32]) {
    let blocks = z.len() / (size[0] * size[1] * 16);
    assert_eq!(bordered.len(), blocks * (size[0] + 2) * (size[1] + 2) * 16, "bordered image");
    assert!(g.len() == z.len() && abc.iter().all(|x| x.len() == blocks * 16), "gradient");
    // SAFETY: all lengths were checked against the image.
    unsafe { spread_in(isa, size, g, z, abc, bordered) }
}

crate::lanes_dispatch!(unsafe fn spread_in(
    size: [usize; 2],
    g: &[f32],
    z: &[f32],
    abc: [&[f32]; 3],
    bordered: &mut [f32],
) = spread_on);

#[inline(always)]
unsafe fn spread_on<L: Lanes>(
    [h, w]: [usize; 2],
    g: &[f32],
    z: &[f32],
    abc: [&[f32]; 3],
    bordered: &mut [f32],
) {
    // SAFETY: the caller checked every length.
    unsafe {
        for block in 0..z.len() / (h * w * 16) {
            let [a, b, c] = abc.map(|p| L::load(p.as_ptr().add(block * 16)));
            for y in 0..h {
                let out = bordered.as_mut_ptr().add(((block * (h + 2) + y + 1) * (w + 2) + 1) * 16);
                for x in 0..w {
                    let at = ((block * h + y) * w + x) * 16;
                    let behind = L::load(z.as_ptr().add(at)).fma(b, c);
                    L::load(g.as_ptr().add(at)).fma(a, behind).store(out.add(x * 16));
                }
            }
        }
    }
}

/// Which elements of a gradient pass a rectifier.
#[derive(Clone, Copy)]
pub enum Pass<'a> {
    /// All.
    All,
    /// Those whose bit is set.
    Bits(&'a [u16]),
    /// Those where the line through `z` is above zero.
    Above(Line<'a>),
}

/// Sets `g` to zero where it does not pass, and writes the channel sums of g and g z. With
/// [`Pass::All`] and `g` = z, the sums of z and its squares.
pub fn reduce(isa: Isa, g: &mut [f32], z: &[f32], pass: Pass<'_>, sums: &mut [f32]) {
    assert_eq!(g.len(), z.len(), "gradient");
    // SAFETY: the lengths were checked here and in `checked`.
    unsafe { reduce_in(isa, g.as_mut_ptr(), z, checked(z, pass, sums), sums) }
}

/// The channel sums of z and its squares.
pub fn moments(isa: Isa, z: &[f32], sums: &mut [f32]) {
    // SAFETY: with a null gradient z is only read.
    unsafe { reduce_in(isa, std::ptr::null_mut(), z, checked(z, Pass::All, sums), sums) }
}

fn checked<'a>(z: &[f32], pass: Pass<'a>, sums: &[f32]) -> Pass<'a> {
    let channels = sums.len() / 2;
    assert!(channels > 0 && channels.is_multiple_of(16) && z.len().is_multiple_of(channels), "channel sums");
    match pass {
        Pass::Bits(bits) => assert_eq!(bits.len() * 16, z.len(), "bits"),
        Pass::Above(line) => assert!(line.scale.len() == channels && line.shift.len() == channels),
        Pass::All => {}
    }
    pass
}

crate::lanes_dispatch!(unsafe fn reduce_in(g: *mut f32, z: &[f32], pass: Pass<'_>, sums: &mut [f32]) = reduce_on);

#[inline(always)]
unsafe fn reduce_on<L: Lanes>(g: *mut f32, z: &[f32], pass: Pass<'_>, sums: &mut [f32]) {
    let channels = sums.len() / 2;
    let area = z.len() / channels;
    // SAFETY: the caller checked every length; a null `g` means that z stands for it.
    unsafe {
        for block in 0..channels / 16 {
            let mut first = [L::splat(0.0); 4];
            let mut second = [L::splat(0.0); 4];
            for i in 0..area {
                let pixel = block * area + i;
                let value = L::load(z.as_ptr().add(pixel * 16));
                let mut d = value;
                if !g.is_null() {
                    d = L::load(g.add(pixel * 16));
                    let mask = match pass {
                        Pass::All => !0,
                        Pass::Bits(bits) => *bits.as_ptr().add(pixel),
                        Pass::Above(line) => {
                            let at = |p: &[f32]| L::load(p.as_ptr().add(block * 16));
                            value.fma(at(line.scale), at(line.shift)).positive()
                        }
                    };
                    d = d.keep(mask);
                    d.store(g.add(pixel * 16));
                }
                first[i % 4] = first[i % 4].add(d);
                second[i % 4] = d.fma(value, second[i % 4]);
            }
            for (sum, to) in [(first, block * 16), (second, channels + block * 16)] {
                let total = sum[0].add(sum[1]).add(sum[2].add(sum[3]));
                total.store(sums.as_mut_ptr().add(to));
            }
        }
    }
}
