//! Tiles of convolutions on tensor cores (`tensor.cu`).

use super::{
    conv::{Conv, LINE_FLOATS, Tile},
    stored,
};
use crate::trainer::Precision;

/// Blocks that nearly fill a large card.
const FULL: usize = 120;
/// Bytes of shared memory that every card with such cores gives a block, and a little less.
const SHARED: usize = 96 << 10;

/// What a block and its warps have.
#[derive(Clone, Copy)]
struct Shape {
    pixels: usize,
    outputs: usize,
    /// Of 16 pixels, in each warp.
    fragments: usize,
    /// Of 8 outputs, in each warp.
    columns: usize,
}

const fn shape(pixels: usize, outputs: usize, fragments: usize, columns: usize) -> Shape {
    Shape { pixels, outputs, fragments, columns }
}

/// From the largest on, which load fewer pixels twice. For outputs by 32 or by 16; behind a stride a warp has all four
/// kinds of pixels.
const SHAPES: [&[Shape]; 4] = [
    &[
        shape(256, 32, 2, 2),
        shape(64, 64, 2, 2),
        shape(128, 32, 2, 2),
        shape(64, 32, 1, 2),
        shape(32, 32, 1, 2),
    ],
    &[shape(512, 16, 4, 2), shape(256, 16, 2, 2), shape(128, 16, 2, 2), shape(64, 16, 1, 2)],
    &[shape(256, 32, 4, 2), shape(128, 32, 4, 2), shape(64, 32, 4, 2)],
    &[shape(512, 16, 4, 2), shape(256, 16, 4, 2), shape(128, 16, 4, 2), shape(64, 16, 4, 2)],
];

/// The tile of `conv`: the largest with which a whole batch fills a card, or else the smallest.
pub(super) fn tile(conv: &Conv) -> Tile {
    let [by_32, by_16] = if conv.dilate == 1 { [SHAPES[0], SHAPES[1]] } else { [SHAPES[2], SHAPES[3]] };
    let shapes = if conv.outputs.is_multiple_of(32) { by_32 } else { by_16 };
    // In f32 a thread has two sums of each: large tiles were slower.
    let most = if conv.precision == Precision::F32 { 4096 } else { usize::MAX };
    let shapes = shapes.iter().filter(|shape| shape.pixels * shape.outputs <= most);
    let shapes = shapes.filter(|shape| conv.outputs.is_multiple_of(shape.outputs));
    let mut tiles = shapes.map(|shape| of(conv, shape));
    let mut last = tiles.next_back();
    if let Some(tile) = tiles.find(|tile| tile.shared <= SHARED && conv.blocks(tile) >= FULL) {
        last = Some(tile);
    }
    #[allow(clippy::expect_used)] // no list is empty
    last.expect("a shape")
}

fn of(conv: &Conv, shape: &Shape) -> Tile {
    let [height, width] = conv.size;
    let rows = (shape.pixels / width).clamp(1, height);
    let images = (shape.pixels / (width * rows)).max(1);
    let warps = shape.pixels / 16 / shape.fragments;
    let threads = 32 * warps * (shape.outputs / 8 / shape.columns);
    let each = 4 / stored::width(conv.precision);
    let pixels = images * conv.behind(rows) * conv.behind(width);
    // Words of a pixel in shared memory: all, or else as many as there is room for.
    let shared = |words: usize| {
        let filters = words * conv.filter * conv.filter * shape.outputs;
        let sums = 3 * warps * shape.outputs;
        4 * (LINE_FLOATS * conv.channels + pixels * (words + 4) + filters).max(sums)
    };
    let all = conv.channels.next_multiple_of(8 * each) / each; // an image has three
    let fits = |words: &usize| all.is_multiple_of(*words) && (*words == 8 || shared(*words) <= SHARED);
    let words = [64, 32, 16].into_iter().find(fits).unwrap_or(8);
    let constants = vec![
        ("WB", words),
        ("CHUNKS", all / words),
        ("FRAGMENTS", shape.fragments),
        ("COLUMNS", shape.columns),
    ];
    Tile { rows, images, outputs: shape.outputs, threads, shared: shared(words), constants }
}
