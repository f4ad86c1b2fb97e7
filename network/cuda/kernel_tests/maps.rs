//! What kernels read, written as plain loops: buffers of noise on the device, and the map that each kind makes of them.

use super::{Bench, as_stored};
use crate::{
    cuda::{
        device::{Address, Device},
        maps::{Kind, Read},
        stored,
    },
    trainer::Precision,
};

/// A map on the host.
#[derive(Clone, Debug)]
pub(super) struct Map {
    /// Images, rows, columns, channels.
    pub(super) shape: [usize; 4],
    pub(super) data: Vec<f32>,
}

impl Map {
    pub(super) fn new(shape: [usize; 4], value: impl FnMut([usize; 4]) -> f32) -> Self {
        Self { shape, data: places(shape).map(value).collect() }
    }

    pub(super) fn at(&self, [n, y, x, c]: [usize; 4]) -> f32 {
        let [_, h, w, channels] = self.shape;
        self.data[((n * h + y) * w + x) * channels + c]
    }
}

/// All places of a map, in its order.
pub(super) fn places(shape: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    let [_, h, w, c] = shape;
    (0..shape.iter().product()).map(move |i| [i / c / w / h, i / c / w % h, i / c % w, i % c])
}

/// A map of noise, and its copy on the device in room for `batch` images, of which the others are not numbers.
pub(super) fn noise<D: Device>(
    bench: &mut Bench<D>,
    precision: Precision,
    shape: [usize; 4],
    batch: usize,
) -> (Map, Address) {
    let data = bench.normal(shape.iter().product());
    let data: Vec<f32> = data.into_iter().map(|x| as_stored(precision, x)).collect();
    let bytes = stored::bytes(precision, &data);
    let all = bytes.len() / shape[0] * batch;
    let at = bench.give_in(&bytes, all);
    (Map { shape, data }, at)
}

/// What `line` makes of channel `c`'s value.
pub(super) fn on_line(line: &[f32], c: usize, value: f32) -> f32 {
    value.mul_add(line[c], line[line.len() / 2 + c])
}

/// Which of the four pixels behind (y, x) has the largest value on the line, the first of them; and that value.
pub(super) fn winner(z: &Map, line: &[f32], [n, y, x, c]: [usize; 4]) -> (usize, f32) {
    let value = |i: usize| on_line(line, c, z.at([n, 2 * y + i / 2, 2 * x + i % 2, c]));
    (1..4).fold((0, value(0)), |best, i| if value(i) > best.1 { (i, value(i)) } else { best })
}

/// What a kernel reads as `kind`, in room for `batch` images, and what that is. Of [`Kind::Rectified`] `full` has a
/// projection, and is kept.
pub(super) fn source<D: Device>(
    bench: &mut Bench<D>,
    precision: Precision,
    (kind, full): (Kind, bool),
    shape: [usize; 4],
    batch: usize,
) -> (Read, Map) {
    let [n, h, w, c] = shape;
    let none = Address::NONE;
    match kind {
        Kind::Image => image(bench, n),
        Kind::Rectified => {
            let ((z, at), (line, line_at)) = (noise(bench, precision, shape, batch), bench.line(c));
            if !full {
                let map = Map::new(shape, |i| on_line(&line, i[3], z.at(i)).max(0.0));
                return (Read::new(kind, [at, none, line_at, none]), map);
            }
            let ((side, side_at), (side_line, side_line_at)) =
                (noise(bench, precision, shape, batch), bench.line(c));
            let sum = |i: [usize; 4]| on_line(&line, i[3], z.at(i)) + on_line(&side_line, i[3], side.at(i));
            let map = Map::new(shape, |i| sum(i).max(0.0));
            let read = Read::new(kind, [at, side_at, line_at, side_line_at]);
            let all = batch * h * w * c;
            let (kept, signs) = (bench.room(all * stored::width(precision)), bench.room(all / 4));
            (Read { kept, signs, ..read }, map)
        }
        Kind::Pooled => {
            let ((z, at), (line, line_at)) =
                (noise(bench, precision, [n, 2 * h, 2 * w, c], batch), bench.line(c));
            let map = Map::new(shape, |i| winner(&z, &line, i).1.max(0.0));
            (Read::new(kind, [at, none, line_at, none]), map)
        }
        Kind::Gradient | Kind::Unpooled => {
            let pooled = kind == Kind::Unpooled;
            let small = if pooled { [n, h / 2, w / 2, c] } else { shape };
            let (g, at) = noise(bench, precision, small, batch);
            let (z, z_at) = noise(bench, precision, shape, batch);
            let (abc, (line, line_at)) = (bench.normal(3 * c), bench.line(c));
            let parts = [at, z_at, bench.floats(&abc), if pooled { line_at } else { none }];
            let map = Map::new(shape, |[n, y, x, k]| {
                let behind = z.at([n, y, x, k]).mul_add(abc[c + k], abc[2 * c + k]);
                let over = if pooled { [n, y / 2, x / 2, k] } else { [n, y, x, k] };
                let passes = !pooled || winner(&z, &line, over).0 == y % 2 * 2 + x % 2;
                (if passes { g.at(over) } else { 0.0 }).mul_add(abc[k], behind)
            });
            (Read::new(kind, parts), map)
        }
    }
}

/// Images of noise, cut at every corner and mirrored.
fn image<D: Device>(bench: &mut Bench<D>, count: usize) -> (Read, Map) {
    let stored = 3;
    let pixels: Vec<u8> = (0..stored * 3 * 1024).map(|_| bench.stream.below(256) as u8).collect();
    let table = bench.normal(3 * 256);
    let cut = |n: usize| [(n + 1) % stored, n * 5 % 9, n * 3 % 9, n % 2];
    let examples = (0..count).flat_map(|n| {
        let [index, dy, dx, flip] = cut(n);
        [(index as u32).to_le_bytes(), [dy as u8, dx as u8, flip as u8, 0]].concat()
    });
    let examples = bench.give(&examples.collect::<Vec<u8>>());
    let parts = [bench.give(&pixels), bench.floats(&table), examples, Address::NONE];
    let map = Map::new([count, 32, 32, 3], |[n, y, x, c]| {
        let [index, dy, dx, flip] = cut(n);
        let (row, column) = ((y + dy).wrapping_sub(4), (x + dx).wrapping_sub(4));
        let inside = row < 32 && column < 32;
        let column = if flip == 1 { 31_usize.wrapping_sub(column) } else { column };
        let byte = if inside { pixels[((index * 3 + c) * 32 + row) * 32 + column] } else { 0 };
        table[c * 256 + usize::from(byte)]
    });
    (Read::new(Kind::Image, parts), map)
}

/// Is `map` what a kernel kept, and are these its signs?
pub(super) fn check_kept<D: Device>(bench: &mut Bench<D>, precision: Precision, read: Read, map: &Map) {
    let kept = bench.read(precision, read.kept, map.data.len());
    for (i, (kept, value)) in kept.iter().zip(&map.data).enumerate() {
        assert!(*kept == as_stored(precision, *value), "kept {i}: {kept}, expected {value}");
    }
    check_signs(bench, read, map);
}

/// Are these the signs of `map`?
pub(super) fn check_signs<D: Device>(bench: &mut Bench<D>, read: Read, map: &Map) {
    let signs = bench.bytes(read.signs, map.data.len() / 4);
    for (i, value) in map.data.iter().enumerate() {
        assert_eq!(signs[i / 4] >> (i % 4) & 1 == 1, *value > 0.0, "sign {i} of {value}");
    }
}
