//! Sizes and launches of the filters' gradients: all weights (`filters.cu`), or a few of each filter (`positions.cu`).

use super::{
    device::{Address, Device, Source},
    launches::{Args, COMMON, Launches, MAPS, MMA, STORED, Size},
    maps::{Kind, Read},
    parameters::Filters,
    stored, update,
};
use crate::{Result, cpu::layout::Unit, trainer::Precision};

/// Blocks that fill a large card twice.
const FULL: usize = 264;

/// Rows and images of a tile: 128 pixels, or 64 of small maps, whose borders are large.
fn tile([height, width]: [usize; 2]) -> [usize; 2] {
    let pixels = if width >= 16 { 128 } else { 64 };
    let rows = (pixels / width).clamp(1, height);
    [rows, (pixels / (width * rows)).max(1)]
}

/// Parts into which a unit's pixels are cut.
pub(super) fn splits(unit: &Unit, own: &Filters, count: usize) -> usize {
    if let Some(each) = own.each() {
        let pixels = count * unit.output.iter().product::<usize>();
        let across = unit.conv.cout / 16 * each.div_ceil(4);
        return FULL.div_ceil(across).min(pixels.div_ceil(16));
    }
    let [rows, images] = tile(unit.output);
    let tiles = count.div_ceil(images) * (unit.output[0] / rows);
    FULL.div_ceil(unit.conv.cin.div_ceil(16) * (unit.conv.cout / 16)).min(tiles)
}

/// Memory of a filter gradient.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    /// Trained positions, where only some are.
    pub(super) at: Address,
    /// The blocks' sums, and their distance between instances.
    pub(super) partial: (Address, usize),
    /// The gradient, likewise.
    pub(super) gradient: (Address, usize),
}

/// Launches the gradient of the filters of `unit` from `count` of `batch` images; `x` is what it read, `g` the gradient
/// of what it wrote.
pub(super) fn launch<D: Device>(
    to: &mut Launches<'_, D>,
    precision: Precision,
    (unit, own): (&Unit, &Filters),
    [count, batch]: [usize; 2],
    [x, g]: [Read; 2],
    places: Places,
) -> Result<()> {
    let (conv, [height, width], splits) = (&unit.conv, unit.output, splits(unit, own, count));
    let args = Args::default().at(&x.parts).at(&g.parts);
    let number = |n: usize| n.to_string();
    let mut defines = vec![
        ("PRECISION", stored::name(precision).into()),
        ("FILTER", number(conv.kernel)),
        ("STRIDE", number(conv.stride)),
        ("KIND", x.kind.name().into()),
        ("BACK", g.kind.name().into()),
        ("HEIGHT", number(height)),
        ("WIDTH", number(width)),
    ];
    let (partial, sizes) = (places.partial, [count, batch, conv.cin, conv.cout]);
    if let Some(each) = own.each() {
        let text = [COMMON, STORED, MAPS, include_str!("positions.cu")].concat();
        let source = Source { name: "positions.cu", text, defines, kernels: vec!["positions"] };
        let size =
            Size { blocks: [splits, conv.cout / 16 * each.div_ceil(4)], threads: 256, shared: 4 * 256 * 4 };
        let args = args.at(&[places.at]).int(&[each]);
        let args = args.at(&[partial.0]).unsigned(partial.1).int(&sizes);
        to.add(source, "positions", size, args.done())?;
    } else {
        let [rows, images] = tile(unit.output);
        defines.extend([("ROWS", number(rows)), ("IMAGES", number(images))]);
        let block = Block::new(unit, precision, x.kind);
        let text = [block.files, &[block.own]].concat().concat();
        let source = Source { name: block.name, text, defines, kernels: vec!["filters"] };
        let blocks = [splits, conv.cin.div_ceil(16) * (conv.cout / 16)];
        let size = Size { blocks, threads: block.threads, shared: block.shared };
        let args = args.at(&[partial.0]).unsigned(partial.1).int(&sizes);
        to.add(source, "filters", size, args.done())?;
    }
    update::total(to, precision, splits, own.trained(), partial, places.gradient)
}

/// What computes the gradient of all weights, of 16 channels and 16 outputs.
struct Block {
    name: &'static str,
    files: &'static [&'static str],
    own: &'static str,
    threads: usize,
    /// Bytes of two tiles, later of the sums of threads or warps.
    shared: usize,
}

impl Block {
    /// Tensor cores, where the precision is theirs and it is not the image that was read.
    fn new(unit: &Unit, precision: Precision, kind: Kind) -> Self {
        const TILES: &str = include_str!("filter_tiles.cu");
        let taps = unit.conv.kernel * unit.conv.kernel;
        // Words of a pixel, which lie so that threads do not meet.
        let pitch = match precision {
            Precision::Bf16 => 8 + 4,
            _ => 16 + 8,
        };
        if precision == Precision::F32 || kind == Kind::Image {
            return Self {
                name: "filters.cu",
                files: &[COMMON, STORED, MAPS, TILES],
                own: include_str!("filters.cu"),
                threads: 256,
                shared: 4 * (pixels(unit) * 16).max(64 * (4 * taps + 1)),
            };
        }
        Self {
            name: "tensor_filters.cu",
            files: &[COMMON, STORED, MAPS, MMA, TILES],
            own: include_str!("tensor_filters.cu"),
            threads: 128,
            shared: 4 * (pixels(unit) * pitch).max(4 * 16 * 16 * taps),
        }
    }
}

/// Pixels of a block's two tiles.
fn pixels(unit: &Unit) -> usize {
    let ([rows, images], [_, width], filter) = (tile(unit.output), unit.output, unit.conv.kernel);
    let step = if filter == 1 { 1 } else { unit.conv.stride };
    let read = ((rows - 1) * step + filter) * ((width - 1) * step + filter);
    images * (read + rows * width)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::cuda::kernel_tests::filters::unit;

    #[test]
    fn tiles_fit_a_block_on_every_card() {
        for width in [2, 4, 8, 16, 32] {
            let [rows, images] = tile([width, width]);
            assert!(width.is_multiple_of(rows) && (images == 1 || rows == width));
            for stride in [1, 2] {
                let (unit, _) = unit([3, stride, width], [16, 16], None);
                let bytes = |precision| Block::new(&unit, precision, Kind::Rectified).shared;
                assert!(bytes(Precision::F32).max(bytes(Precision::Bf16)) <= 48 << 10, "{width} {stride}");
                // Cards that know tf32 give a block at least 99 KiB.
                assert!(bytes(Precision::Tf32) <= 99 << 10, "{width} {stride}");
            }
        }
    }
}
