//! Sizes and launches of the filters' gradients: all weights (`tensor_filters.cu`, `filters.cu`), or a few of each filter
//! (`positions.cu`).

use super::{
    device::{Address, Source},
    launches::{Args, COMMON, Launches, MAPS, MMA, STORED, Size},
    maps::{Kind, Read},
    parameters::Filters,
    stored, update,
};
use crate::{Result, cpu::layout::Unit, trainer::Precision};

/// What these kernels share.
const TILES: &str = include_str!("filter_tiles.cu");

/// Warps of a launch that fill a large card: 16 for each of its 132 multiprocessors.
const FULL: usize = 16 * 132;
/// Bytes of shared memory that every card with tensor cores gives a block.
const LARGE: usize = 96 << 10;
/// Bytes of shared memory that every card gives a block.
const SMALL: usize = 48 << 10;

/// What one block computes.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// Rows and images of what was written.
    rows: usize,
    images: usize,
    /// Channels read, and written.
    channels: usize,
    outputs: usize,
    warps: usize,
}

impl Tile {
    /// Of all weights on tensor cores. Large blocks leave few sums to add, and many channels read each map less often.
    fn wide(unit: &Unit) -> Self {
        let [channels, outputs] = widest(unit, 32);
        let warps = if channels * outputs == 32 * 32 { 16 } else { 8 };
        let tile = |pixels| Self { warps, ..Self::of(unit, pixels, [channels, outputs]) };
        // By threads it is the same pixels that go with fewer channels.
        let fits = |tile: &Self| tile.bytes(unit, 8) <= LARGE && tile.narrow(unit).bytes(unit, 0) <= SMALL;
        largest(tile, fits).unwrap_or_else(|| tile(64))
    }

    /// The same pixels and 16 of each channels, for threads; of an image all channels that it has.
    fn narrow(self, unit: &Unit) -> Self {
        Self { channels: if unit.conv.cin < 16 { 4 } else { 16 }, outputs: 16, warps: 8, ..self }
    }

    /// Of a few weights: many channels, because each weight meets one.
    fn few(unit: &Unit) -> Self {
        let tile = |most| {
            largest(|pixels| Self::of(unit, pixels, widest(unit, most)), |tile| tile.bytes(unit, 0) <= SMALL)
        };
        tile(64).or_else(|| tile(32)).unwrap_or_else(|| Self::of(unit, 64, widest(unit, 16)))
    }

    fn of(unit: &Unit, pixels: usize, [channels, outputs]: [usize; 2]) -> Self {
        let [height, width] = unit.output;
        let rows = (pixels / width).clamp(1, height);
        Self { rows, images: (pixels / (width * rows)).max(1), channels, outputs, warps: 8 }
    }

    /// Tiles of `count` images.
    fn tiles(&self, unit: &Unit, count: usize) -> usize {
        count.div_ceil(self.images) * (unit.output[0] / self.rows)
    }

    /// Pixels read, and written.
    fn pixels(&self, unit: &Unit) -> [usize; 2] {
        let ([_, width], filter) = (unit.output, unit.conv.kernel);
        let step = if filter == 1 { 1 } else { unit.conv.stride };
        let read = ((self.rows - 1) * step + filter) * ((width - 1) * step + filter);
        [self.images * read, self.images * self.rows * width]
    }

    /// Bytes of both tiles, of floats and `padding` more from pixel to pixel.
    fn bytes(&self, unit: &Unit, padding: usize) -> usize {
        let [read, written] = self.pixels(unit);
        4 * (read * (self.channels + padding) + written * (self.outputs + padding))
    }

    /// Blocks for all pairs of channels.
    fn pairs(&self, unit: &Unit) -> usize {
        unit.conv.cin.div_ceil(self.channels) * (unit.conv.cout / self.outputs)
    }
}

/// The most channels, up to `most`, that divide what is read and written; all of an image.
fn widest(unit: &Unit, most: usize) -> [usize; 2] {
    let widest =
        |of: usize| [64, 32, 16].into_iter().find(|n| *n <= most && of.is_multiple_of(*n)).unwrap_or(4);
    [unit.conv.cin, unit.conv.cout].map(widest)
}

/// The largest tile that `fits`, of those that `tile` makes of pixels; smaller ones would read too many borders.
fn largest(tile: impl Fn(usize) -> Tile, fits: impl Fn(&Tile) -> bool) -> Option<Tile> {
    [256, 128, 64].map(tile).into_iter().find(fits)
}

/// Weights of each filter that a thread of `positions.cu` has, and blocks that share an output's.
fn held(each: usize) -> [usize; 2] {
    let held = each.div_ceil(2).clamp(1, 4);
    [held, each.div_ceil(2 * held)]
}

/// Parts into which a unit's pixels are cut.
pub(super) fn splits(unit: &Unit, own: &Filters, count: usize) -> usize {
    let (tile, blocks) = match own.each() {
        // Of these threads a card holds twice as many.
        Some(each) => {
            let tile = Tile::few(unit);
            (tile, (2 * FULL / tile.warps).div_ceil(unit.conv.cout / tile.outputs * held(each)[1]))
        }
        None => {
            let tile = Tile::wide(unit);
            (tile, (FULL / tile.warps).div_ceil(tile.pairs(unit)))
        }
    };
    blocks.min(tile.tiles(unit, count))
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
/// of what it wrote. All weights are left to tensor cores, if there are any and it is not the image that was read.
pub(super) fn launch(
    to: &mut Launches<'_>,
    precision: Precision,
    tensor_cores: bool,
    (unit, own): (&Unit, &Filters),
    [count, batch]: [usize; 2],
    [x, g]: [Read; 2],
    places: Places,
) -> Result<()> {
    let (conv, [height, width], splits) = (&unit.conv, unit.output, splits(unit, own, count));
    let kept = stored::kept(precision);
    let (block, stored) = match own.each() {
        Some(each) => (Block::few(unit, each), kept),
        None if tensor_cores && x.kind != Kind::Image => {
            (Block::on_tensor_cores(unit, precision), stored::name(precision))
        }
        None => (Block::by_threads(unit), kept),
    };
    let names = [("PRECISION", stored), ("KIND", x.kind.name()), ("BACK", g.kind.name())];
    let numbers = [
        ("FILTER", conv.kernel),
        ("STRIDE", conv.stride),
        ("HEIGHT", height),
        ("WIDTH", width),
        ("ROWS", block.tile.rows),
        ("IMAGES", block.tile.images),
        ("CB", block.tile.channels),
        ("KB", block.tile.outputs),
        block.constant,
    ];
    let names = names.map(|(name, value)| (name, value.to_owned()));
    let defines = names.into_iter().chain(numbers.map(|(name, n)| (name, n.to_string()))).collect();
    let text = block.files.concat();
    let source = Source { name: block.name, text, defines, kernels: vec![block.kernel] };
    let size = Size { blocks: [splits, block.groups], threads: 32 * block.tile.warps, shared: block.shared };
    let (partial, sizes) = (places.partial, [count, batch, conv.cin, conv.cout]);
    let args = Args::default().at(&x.parts).at(&g.parts);
    let args = if let Some(each) = own.each() { args.at(&[places.at]).int(&[each]) } else { args };
    let args = args.at(&[partial.0]).unsigned(partial.1).int(&sizes);
    to.add(source, block.kernel, size, args.done())?;
    update::total(to, precision, splits, own.trained(), partial, places.gradient)
}

/// The blocks of a kernel.
struct Block {
    name: &'static str,
    kernel: &'static str,
    files: &'static [&'static str],
    tile: Tile,
    constant: (&'static str, usize),
    /// Blocks for the same pixels.
    groups: usize,
    /// Bytes of two tiles, later of sums.
    shared: usize,
}

impl Block {
    fn on_tensor_cores(unit: &Unit, precision: Precision) -> Self {
        let (tile, taps) = (Tile::wide(unit), unit.conv.kernel * unit.conv.kernel);
        let half = precision == Precision::Bf16;
        let bytes = if half { tile.bytes(unit, 8) / 2 } else { tile.bytes(unit, 8) };
        // The sums of half of the warps; or of the whole block, as they are written.
        let sums = (tile.warps / 2 * 16 * 16 * taps).max(tile.outputs * (tile.channels * taps + 1));
        Self {
            name: "tensor_filters.cu",
            kernel: "filters",
            files: &[COMMON, STORED, MAPS, MMA, TILES, include_str!("tensor_filters.cu")],
            tile,
            constant: ("WARPS", tile.warps),
            groups: tile.pairs(unit),
            shared: bytes.max(4 * sums),
        }
    }

    fn by_threads(unit: &Unit) -> Self {
        let (tile, taps) = (Tile::wide(unit).narrow(unit), unit.conv.kernel * unit.conv.kernel);
        Self {
            name: "filters.cu",
            kernel: "filters",
            files: &[COMMON, STORED, MAPS, TILES, include_str!("filters.cu")],
            tile,
            constant: ("WARPS", tile.warps),
            groups: tile.pairs(unit),
            shared: tile.bytes(unit, 0).max(4 * 128 * (4 * taps + 1)),
        }
    }

    fn few(unit: &Unit, each: usize) -> Self {
        let (tile, [held, rounds]) = (Tile::few(unit), held(each));
        Self {
            name: "positions.cu",
            kernel: "positions",
            files: &[COMMON, STORED, MAPS, TILES, include_str!("positions.cu")],
            tile,
            constant: ("HELD", held),
            groups: unit.conv.cout / tile.outputs * rounds,
            shared: tile.bytes(unit, 0).max(4 * 32 * tile.warps * held),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::cuda::kernel_tests::filters::unit;

    #[test]
    fn tiles_fit_a_block_on_every_card() {
        for (width, stride, kernel) in
            [2, 4, 8, 16, 32].into_iter().flat_map(|w| [(w, 1, 3), (w, 2, 3), (w, 2, 1)])
        {
            for channels in [[3, 16], [16, 16], [16, 32], [48, 16], [32, 32], [32, 64], [512, 512]] {
                let (unit, _) = unit([kernel, stride, width], channels, None);
                let blocks = [
                    (Block::by_threads(&unit), SMALL),
                    (Block::few(&unit, 9), SMALL),
                    (Block::on_tensor_cores(&unit, Precision::F32), LARGE),
                    (Block::on_tensor_cores(&unit, Precision::Bf16), LARGE),
                ];
                for (block, most) in blocks {
                    let (tile, who) = (block.tile, format!("{} {unit:?} {:?}", block.name, block.tile));
                    assert!(block.shared <= most, "{who}: {}", block.shared);
                    assert!(
                        width.is_multiple_of(tile.rows) && (tile.images == 1 || tile.rows == width),
                        "{who}"
                    );
                    // A step of tensor cores is 16 pixels.
                    assert!(tile.pixels(&unit)[1].is_multiple_of(16), "{who}");
                }
            }
        }
    }

    #[test]
    fn a_batch_of_a_real_training_fills_a_card() {
        for (width, channels) in [(32, 16), (16, 32), (8, 64)] {
            let (unit, own) = unit([3, 1, width], [channels; 2], None);
            let (tile, splits) = (Tile::wide(&unit), splits(&unit, &own, 128));
            assert!(splits * tile.pairs(&unit) * tile.warps >= FULL * 15 / 16, "{splits} {tile:?}");
        }
    }
}
