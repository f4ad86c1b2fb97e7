//! Sizes and launches of convolutions: on tensor cores (`tensor.cu`) where the device has any, or else by threads
//! (`conv.cu`). A block's tile depends on the network and the largest batch alone, never on the
//! number of instances: a training has the same bits alone and in a group.

use super::{
    device::{Address, Source},
    launches::{Args, COMMON, Launches, MAPS, MMA, NORMS, STORED, Size, TILES},
    maps::{Kind, Read, Write},
    statistics::Sums,
    stored, tensor,
};
use crate::{Result, trainer::Precision};

/// A convolution as a kernel sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv {
    /// Rows and columns of a filter.
    pub(super) filter: usize,
    pub(super) stride: usize,
    /// How many times as large what is written is as what is read.
    pub(super) dilate: usize,
    pub(super) kind: Kind,
    pub(super) channels: usize,
    pub(super) outputs: usize,
    /// Rows and columns of what is written.
    pub(super) size: [usize; 2],
    /// Images that maps have room for.
    pub(super) batch: usize,
    pub(super) precision: Precision,
    /// Has the device any?
    pub(super) tensor_cores: bool,
}

/// What one block computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) images: usize,
    /// Output channels.
    pub(super) outputs: usize,
    pub(super) threads: usize,
    /// Bytes of shared memory.
    pub(super) shared: usize,
    /// What the kernel wants to know besides.
    pub(super) constants: Vec<(&'static str, usize)>,
}

/// Floats of each channel that lines are made in; as in `tiles.cu`.
pub(super) const LINE_FLOATS: usize = 8;
/// Warps of a launch that fill a large card: some six for each of its 132 multiprocessors.
const FULL: usize = 800;

impl Conv {
    fn tile(&self) -> Tile {
        if self.tensor_cores { tensor::tile(self) } else { self.by_threads() }
    }

    /// Rows or columns of what is read behind `n` of what is written (`tiles.cu` has the same arithmetic).
    pub(super) fn behind(&self, n: usize) -> usize {
        if self.dilate == 2 { n / 2 + self.filter / 2 } else { (n - 1) * self.step() + self.filter }
    }

    fn step(&self) -> usize {
        if self.filter == 1 { 1 } else { self.stride }
    }

    /// The tile of `conv.cu`: one pixel's four neighbours times 4 or 8 outputs in each thread's registers.
    fn by_threads(&self) -> Tile {
        let [height, width] = self.size;
        let pixels = width.min(4);
        let row = width / pixels;
        let strips = if width >= 32 { 64 } else { 32 };
        let rows = (strips / row).clamp(1, height);
        let images = (strips / (row * rows)).max(1);
        let strips = images * rows * row;
        let warps = self.batch * height * width * self.outputs / (pixels * 8 * 32);
        let channels = if warps >= FULL { 8 } else { 4 };
        let outputs = if self.outputs.is_multiple_of(32) { 32 } else { 16 };
        let chunk = match self {
            Self { kind: Kind::Image, .. } => 4,
            Self { filter: 3, stride: 2, .. } => 8, // four times as many pixels
            _ => 16,
        };
        let last = if self.dilate == 2 {
            self.behind(width)
        } else {
            (width - pixels) * self.step() + self.behind(pixels).next_multiple_of(4)
        };
        let pitch = last.max(self.behind(width)).next_multiple_of(4);
        let plane = (images * self.behind(rows) * pitch).next_multiple_of(8) + 4;
        let inputs = chunk * (plane + self.filter * self.filter * outputs);
        let sums = 3 * outputs * (strips + 1);
        let threads = strips * outputs / channels;
        Tile {
            rows,
            images,
            outputs,
            threads,
            shared: 4 * (LINE_FLOATS * self.channels + inputs.max(sums)),
            constants: vec![("TX", pixels), ("TK", channels), ("CB", chunk)],
        }
    }

    /// Blocks of a whole batch.
    pub(super) fn blocks(&self, tile: &Tile) -> usize {
        self.batch.div_ceil(tile.images) * (self.size[0] / tile.rows) * (self.outputs / tile.outputs)
    }

    /// Tiles of pixels of `count` images.
    fn tiles(&self, tile: &Tile, count: usize) -> usize {
        count.div_ceil(tile.images) * (self.size[0] / tile.rows)
    }

    fn source(&self, tile: &Tile, write: &Write) -> Source {
        const KERNEL: &str = include_str!("convolve.cu");
        let (name, files, precision): (_, &[&str], _) = if self.tensor_cores {
            let files = &[COMMON, STORED, MAPS, NORMS, MMA, TILES, include_str!("tensor.cu"), KERNEL];
            ("tensor.cu", files, stored::name(self.precision))
        } else {
            let files = &[COMMON, STORED, MAPS, NORMS, TILES, include_str!("conv.cu"), KERNEL];
            ("conv.cu", files, stored::kept(self.precision))
        };
        let names = [("PRECISION", precision), ("KIND", self.kind.name()), ("TARGET", write.target.name())];
        let numbers = [
            ("FILTER", self.filter),
            ("STRIDE", self.stride),
            ("DILATE", self.dilate),
            ("HEIGHT", self.size[0]),
            ("WIDTH", self.size[1]),
            ("ROWS", tile.rows),
            ("IMAGES", tile.images),
            ("KB", tile.outputs),
        ];
        let numbers = numbers.into_iter().chain(tile.constants.iter().copied());
        let names = names.map(|(name, value)| (name, value.to_owned()));
        let defines = names.into_iter().chain(numbers.map(|(name, n)| (name, n.to_string()))).collect();
        Source { name, text: files.concat(), defines, kernels: vec!["conv"] }
    }

    /// Launches it on `count` images; `packed` are its filters (and their distance between instances).
    pub(super) fn launch(
        &self,
        to: &mut Launches<'_>,
        count: usize,
        (read, write): (Read, Write),
        packed: (Address, usize),
        sums: &Sums,
    ) -> Result<()> {
        let tile = self.tile();
        let size = Size {
            blocks: [self.tiles(&tile, count), self.outputs / tile.outputs],
            threads: tile.threads,
            shared: tile.shared,
        };
        let args = Args::default()
            .at(&read.parts)
            .at(&[read.kept, read.signs, packed.0])
            .unsigned(packed.1)
            .at(&[write.out, write.z[0], write.z[1], write.line, write.pass])
            .int(&[usize::from(write.add)]);
        let args = sums.args(args).int(&[count, self.batch, self.channels, self.outputs]);
        let (source, args) = (self.source(&tile, &write), args.done());
        // Measured on an H100: with the threefold products of f32, blocks that wait already cost more than they save.
        if self.precision == Precision::F32 {
            to.add(source, "conv", size, args)
        } else {
            to.add_early(source, "conv", size, args)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(size: usize, channels: usize, [stride, dilate]: [usize; 2], batch: usize) -> Conv {
        let (kind, size, precision) = (Kind::Rectified, [size, size], Precision::F32);
        Conv {
            filter: 3,
            stride,
            dilate,
            kind,
            channels,
            outputs: channels,
            size,
            batch,
            precision,
            tensor_cores: true,
        }
    }

    #[test]
    fn tiles_fit_a_block_on_every_card() {
        // Without tensor cores: 64 KiB of a card of capability 7.5. With them: a little less than 8.6 has.
        let cards = [
            (Precision::F32, false, 64),
            (Precision::F32, true, 96),
            (Precision::Tf32, true, 96),
            (Precision::Bf16, true, 96),
        ];
        for (precision, tensor_cores, most) in cards {
            for size in [2, 4, 8, 16, 32] {
                for ways in [[1, 1], [2, 1], [1, 2]] {
                    for (channels, batch) in [(16, 1), (32, 128), (48, 7), (64, 128), (512, 4096)] {
                        let conv = Conv { precision, tensor_cores, ..conv(size, channels, ways, batch) };
                        let tile = conv.tile();
                        assert!(tile.shared <= most * 1024, "{conv:?} {tile:?}");
                        assert!(tile.threads.is_multiple_of(32) && tile.threads <= 512, "{conv:?} {tile:?}");
                        assert!(size.is_multiple_of(tile.rows) && (tile.images == 1 || tile.rows == size));
                        assert!(
                            channels.is_multiple_of(tile.outputs)
                                && (ways[1] == 1 || tile.rows.is_multiple_of(2))
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_batch_of_a_real_training_fills_a_card() {
        for (size, channels) in [(32, 16), (16, 32), (8, 64)] {
            for ways in [[1, 1], [1, 2]] {
                let conv = Conv { precision: Precision::Bf16, ..conv(size, channels, ways, 128) };
                assert!(conv.blocks(&conv.tile()) >= 120, "{conv:?} {:?}", conv.tile());
            }
        }
    }
}
