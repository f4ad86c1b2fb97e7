//! Sizes and launches of convolutions (`conv.cu`). A block's tile depends on the network and the largest batch alone,
//! never on the number of instances: a training has the same bits alone and in a group.

use super::{
    device::{Address, Device, Source},
    launches::{Args, COMMON, Launches, MAPS, Size},
    maps::{Kind, Read, Write},
};
use crate::Result;

/// A convolution as a kernel sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv {
    /// Rows and columns of a filter.
    pub(super) filter: usize,
    pub(super) stride: usize,
    /// Distance of the pixels that are read, with zeros between.
    pub(super) dilate: usize,
    pub(super) kind: Kind,
    pub(super) channels: usize,
    pub(super) outputs: usize,
    /// Rows and columns of what is written.
    pub(super) size: [usize; 2],
    /// Images that maps have room for.
    pub(super) batch: usize,
}

/// What one block computes, and a thread of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    rows: usize,
    images: usize,
    /// Pixels of a thread.
    pixels: usize,
    /// Output channels of a thread.
    channels: usize,
    /// Output channels of the block.
    outputs: usize,
    /// Channels read between two barriers.
    chunk: usize,
}

/// Warps of a launch that fill a large card: some six for each of its 132 multiprocessors.
const FULL: usize = 800;

impl Tile {
    fn new(conv: &Conv) -> Self {
        let [height, width] = conv.size;
        let pixels = width.min(4);
        let row = width / pixels;
        let strips = if width >= 32 { 64 } else { 32 }; // of a block
        let rows = (strips / row).clamp(1, height);
        let warps = conv.batch * height * width * conv.outputs / (pixels * 8 * 32);
        Self {
            rows,
            images: (strips / (row * rows)).max(1),
            pixels,
            channels: if warps >= FULL { 8 } else { 4 },
            outputs: if conv.outputs.is_multiple_of(32) { 32 } else { 16 },
            chunk: match conv {
                Conv { kind: Kind::Image, .. } => 4,
                Conv { filter: 3, stride: 2, .. } => 8, // four times as many pixels
                _ => 16,
            },
        }
    }

    fn strips(&self, width: usize) -> usize {
        self.images * self.rows * (width / self.pixels)
    }
}

impl Conv {
    /// Tiles of pixels of `count` images: so many sums there are of each channel.
    pub(super) fn tiles(&self, count: usize) -> usize {
        let tile = Tile::new(self);
        count.div_ceil(tile.images) * (self.size[0] / tile.rows)
    }

    fn source(&self, tile: &Tile, write: &Write) -> Source {
        let number = |n: usize| n.to_string();
        Source {
            name: "conv.cu",
            text: [COMMON, MAPS, include_str!("conv.cu")].concat(),
            defines: vec![
                ("FILTER", number(self.filter)),
                ("STRIDE", number(self.stride)),
                ("DILATE", number(self.dilate)),
                ("KIND", self.kind.name().into()),
                ("TARGET", write.target.name().into()),
                ("HEIGHT", number(self.size[0])),
                ("WIDTH", number(self.size[1])),
                ("ROWS", number(tile.rows)),
                ("IMAGES", number(tile.images)),
                ("TX", number(tile.pixels)),
                ("TK", number(tile.channels)),
                ("KB", number(tile.outputs)),
                ("CB", number(tile.chunk)),
            ],
            kernels: vec!["conv"],
        }
    }

    /// Bytes of a block: a tile and its filters, later the sums (`conv.cu` has the same arithmetic).
    fn shared(&self, tile: &Tile) -> usize {
        let [_, width] = self.size;
        let step = if self.filter == 1 { 1 } else { self.stride };
        let tile_size = |n: usize| (n - 1) * step + self.filter;
        let vector = tile_size(tile.pixels).next_multiple_of(4);
        let pitch = ((width - tile.pixels) * step + vector)
            .next_multiple_of(4)
            .max(tile_size(width).next_multiple_of(4));
        let plane = (tile.images * tile_size(tile.rows) * pitch).next_multiple_of(8) + 4;
        let inputs = tile.chunk * (plane + self.filter * self.filter * tile.outputs);
        let sums = 3 * tile.outputs * (tile.strips(width) + 1);
        4 * inputs.max(sums)
    }

    /// Launches it on `count` images; `packed` are its filters (and their distance between instances), `partial` gets
    /// the sums (likewise).
    pub(super) fn launch<D: Device>(
        &self,
        to: &mut Launches<'_, D>,
        count: usize,
        (read, write): (Read, Write),
        packed: (Address, usize),
        partial: (Address, usize),
    ) -> Result<()> {
        let tile = Tile::new(self);
        let size = Size {
            blocks: [self.tiles(count), self.outputs / tile.outputs],
            threads: tile.strips(self.size[1]) * tile.outputs / tile.channels,
            shared: self.shared(&tile),
        };
        let args = Args::default()
            .at(&read.parts)
            .at(&[read.kept, read.signs, packed.0])
            .unsigned(packed.1)
            .at(&[write.out, write.z[0], write.z[1], write.line, write.pass])
            .int(&[usize::from(write.add)])
            .at(&[partial.0])
            .unsigned(partial.1)
            .int(&[count, self.batch, self.channels, self.outputs]);
        to.add(self.source(&tile, &write), "conv", size, args.done())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(size: usize, channels: usize, stride: usize, dilate: usize, batch: usize) -> Conv {
        let (kind, size) = (Kind::Rectified, [size, size]);
        Conv { filter: 3, stride, dilate, kind, channels, outputs: channels, size, batch }
    }

    #[test]
    fn tiles_fit_a_block_on_every_card() {
        for size in [2, 4, 8, 16, 32] {
            for (stride, dilate) in [(1, 1), (2, 1), (1, 2)] {
                for (channels, batch) in [(16, 1), (32, 128), (48, 7), (512, 4096)] {
                    let conv = conv(size, channels, stride, dilate, batch);
                    let tile = Tile::new(&conv);
                    assert!(conv.shared(&tile) <= 48 * 1024, "{conv:?} {tile:?}");
                    let threads = tile.strips(size) * tile.outputs / tile.channels;
                    assert!(threads.is_multiple_of(32) && threads <= 256, "{conv:?} {tile:?}: {threads}");
                    assert!(size.is_multiple_of(tile.rows) && (tile.images == 1 || tile.rows == size));
                }
            }
        }
    }
}
