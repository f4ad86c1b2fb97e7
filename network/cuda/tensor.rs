//! Tiles of convolutions on tensor cores (`tensor.cu`).

use super::conv::{Conv, Tile};
use crate::trainer::Precision;

/// Blocks that fill a large card nearly twice.
const FULL: usize = 240;
/// Bytes of shared memory that every card gives a block.
const SHARED: usize = 48 << 10;

/// The tile of `conv`: the largest with which a whole batch fills a card, or else the smallest. Large ones load fewer
/// pixels twice.
pub(super) fn tile(conv: &Conv) -> Tile {
    // Pixels and output channels: at most 64 sums in each thread's registers.
    let (first, others): (_, &[[usize; 2]]) = if conv.outputs.is_multiple_of(32) {
        ([64, 32], &[[256, 32], [128, 64], [128, 32], [64, 64]])
    } else {
        ([64, 16], &[[256, 16], [128, 16]])
    };
    let narrow = |outputs: usize| conv.dilate == 1 || outputs <= 32;
    others
        .iter()
        .filter(|[_, outputs]| conv.outputs.is_multiple_of(*outputs) && narrow(*outputs))
        .map(|shape| of(conv, *shape))
        .find(|tile| tile.shared <= SHARED && conv.blocks(tile) >= FULL)
        .unwrap_or_else(|| of(conv, first))
}

fn of(conv: &Conv, [pixels, outputs]: [usize; 2]) -> Tile {
    let [height, width] = conv.size;
    let rows = (pixels / width).clamp(1, height);
    let images = pixels / (width * rows);
    // A warp behind a stride has all four kinds of pixels.
    let fragments = if conv.dilate == 2 { 4 } else { (pixels / 64).min(2) };
    let warps = pixels / 16 / fragments;
    let all = conv.channels / if conv.precision == Precision::Bf16 { 2 } else { 1 };
    let wide = conv.filter == 3 && conv.stride == 2; // four times as many pixels
    let words = if wide || !all.is_multiple_of(16) { 8 } else { 16 };
    let tile = images * conv.behind(rows) * conv.behind(width) * (words + 4);
    let filters = words * conv.filter * conv.filter * outputs;
    let lanes = warps * 32 / (outputs / 4);
    Tile {
        rows,
        images,
        outputs,
        threads: warps * 32,
        shared: 4 * (tile + filters).max(pixels * (outputs + 4)).max(3 * outputs * (lanes + 1)),
        constants: vec![("WB", words), ("WARPS", warps)],
    }
}
