//! Images as bytes: the packed dataset, the order of an epoch, the cut of each example. Knows no
//! files: it is handed bytes.
//!
//! A packed dataset is the magic `repro32\n`, the length of the header (4 bytes), the header
//! (JSON), zeros up to a multiple of 64, the labels of train and test (2 bytes each), and the
//! images of train and test (uint8, `N 3 32 32`). Numbers are little endian.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    arch::{IMAGE_CHANNELS, IMAGE_SIZE},
    rng::stream,
    trainer::{Example, Split},
};

/// Bytes that live as long as the dataset does: a `Vec`, or a file mapped by the caller.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Bytes of one image.
pub const IMAGE_BYTES: usize = IMAGE_CHANNELS * IMAGE_SIZE * IMAGE_SIZE;
/// Zero pixels around an image before it is cropped.
pub const PADDING: usize = 4;
/// Mean of each channel that training subtracts: ImageNet's, as in the paper's code.
pub const MEAN: [f32; IMAGE_CHANNELS] = [0.485, 0.456, 0.406];
/// Deviation of each channel that training divides by: ImageNet's, as in the paper's code.
pub const DEVIATION: [f32; IMAGE_CHANNELS] = [0.229, 0.224, 0.225];

const MAGIC: &[u8; 8] = b"repro32\n";
const ALIGN: usize = 64;

/// What the network sees for each byte of each channel: (byte / 255 - mean) / deviation.
pub fn normalization() -> [[f32; 256]; IMAGE_CHANNELS] {
    std::array::from_fn(|c| std::array::from_fn(|byte| (byte as f32 / 255.0 - MEAN[c]) / DEVIATION[c]))
}

/// One split, to be packed.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// Class of each image.
    pub labels: &'a [u16],
    /// The images, `N 3 32 32`.
    pub pixels: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct Header {
    classes: Vec<String>,
    /// Per channel, of the training images scaled to 0..1; for information.
    mean: [f64; IMAGE_CHANNELS],
    std: [f64; IMAGE_CHANNELS],
    train: usize,
    test: usize,
}

/// A packed dataset: uint8 images `N 3 32 32` and labels of two splits.
pub struct Dataset {
    bytes: Bytes,
    header: Header,
    labels: usize,
    images: usize,
    /// Of all its bytes, once somebody asked.
    digest: OnceLock<blake3::Hash>,
}

/// The bytes of a packed dataset.
pub fn pack(classes: &[String], train: Images<'_>, test: Images<'_>) -> Result<Vec<u8>> {
    for (name, split) in [("train", train), ("test", test)] {
        if split.labels.len() * IMAGE_BYTES != split.pixels.len() {
            return Err(Error::Invalid(format!(
                "{} {name} labels do not go with {} bytes of images of {IMAGE_BYTES} bytes",
                split.labels.len(),
                split.pixels.len()
            )));
        }
    }
    let (mean, std) = statistics(train.pixels);
    let (train_n, test_n) = (train.labels.len(), test.labels.len());
    let header = Header { classes: classes.to_vec(), mean, std, train: train_n, test: test_n };
    let json = serde_json::to_vec(&header).map_err(|e| Error::Invalid(format!("dataset header: {e}")))?;
    let mut bytes =
        Vec::with_capacity(1024 + 2 * (train_n + test_n) + train.pixels.len() + test.pixels.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&json);
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    for labels in [train.labels, test.labels] {
        bytes.extend(labels.iter().flat_map(|l| l.to_le_bytes()));
    }
    bytes.extend_from_slice(train.pixels);
    bytes.extend_from_slice(test.pixels);
    let bytes = Arc::new(bytes);
    Dataset::from_bytes(Arc::clone(&bytes) as Bytes)?; // the one place where labels are checked
    Ok(Arc::unwrap_or_clone(bytes))
}

/// Mean and standard deviation per channel, exact: sums of integers.
fn statistics(pixels: &[u8]) -> ([f64; IMAGE_CHANNELS], [f64; IMAGE_CHANNELS]) {
    let (mut sums, mut squares) = ([0u64; IMAGE_CHANNELS], [0u64; IMAGE_CHANNELS]);
    for (i, plane) in pixels.chunks_exact(IMAGE_SIZE * IMAGE_SIZE).enumerate() {
        for &p in plane {
            sums[i % IMAGE_CHANNELS] += u64::from(p);
            squares[i % IMAGE_CHANNELS] += u64::from(p) * u64::from(p);
        }
    }
    let n = (pixels.len() / IMAGE_CHANNELS).max(1) as f64;
    let mean = sums.map(|s| s as f64 / n / 255.0);
    let std =
        std::array::from_fn(|c| libm::sqrt((squares[c] as f64 / n / 65025.0 - mean[c] * mean[c]).max(0.0)));
    (mean, std)
}

impl Dataset {
    /// Checks `bytes` and opens them; nothing is copied.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        let bad = |what: &str| Error::Malformed(format!("packed dataset: {what}; make the dataset again"));
        let all = (*bytes).as_ref();
        if !all.starts_with(MAGIC) {
            return Err(bad("it does not begin like one"));
        }
        let length = all.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let length = length.ok_or_else(|| bad("cut off in the header"))? as usize;
        let json = all.get(12..12 + length).ok_or_else(|| bad("cut off in the header"))?;
        let header: Header = serde_json::from_slice(json).map_err(|e| bad(&format!("header: {e}")))?;
        let labels = (12 + length).next_multiple_of(ALIGN);
        let count = header.train.checked_add(header.test);
        let size = count.and_then(|n| n.checked_mul(2 + IMAGE_BYTES)).and_then(|n| n.checked_add(labels));
        if size != Some(all.len()) {
            return Err(bad(&format!("{} bytes are not what its header announces", all.len())));
        }
        let images = labels + 2 * (header.train + header.test);
        let set = Self { bytes, header, labels, images, digest: OnceLock::new() };
        for split in [Split::Train, Split::Test] {
            if let Some(i) =
                (0..set.len(split)).find(|&i| usize::from(set.label(split, i)) >= set.classes().len())
            {
                let (label, known) = (set.label(split, i), set.classes().len());
                return Err(bad(&format!("{split:?} image {i} has label {label} of {known} classes")));
            }
        }
        Ok(set)
    }

    /// Number of images in `split`.
    pub fn len(&self, split: Split) -> usize {
        match split {
            Split::Train => self.header.train,
            Split::Test => self.header.test,
        }
    }

    /// Are the images `range` of `split` there?
    pub(crate) fn check(&self, split: Split, range: &Range<usize>) -> Result<()> {
        let (end, images) = (range.end, self.len(split));
        if end > images {
            return Err(Error::Invalid(format!("no image {} in {split:?}; there are {images}", end - 1)));
        }
        Ok(())
    }

    /// Of all its bytes. The trainings of a group share a dataset.
    pub(crate) fn digest(&self) -> blake3::Hash {
        *self.digest.get_or_init(|| blake3::hash((*self.bytes).as_ref()))
    }

    /// Class names; labels index them.
    pub fn classes(&self) -> &[String] {
        &self.header.classes
    }

    /// Mean and standard deviation per channel of the training images, scaled to 0..1. For
    /// information: training normalises with [`MEAN`] and [`DEVIATION`].
    pub fn statistics(&self) -> ([f64; IMAGE_CHANNELS], [f64; IMAGE_CHANNELS]) {
        (self.header.mean, self.header.std)
    }

    fn offset(&self, split: Split, index: usize) -> usize {
        assert!(index < self.len(split), "image {index} of {} in {split:?}", self.len(split));
        index + if split == Split::Test { self.header.train } else { 0 }
    }

    /// Class of image `index`, which must exist.
    pub fn label(&self, split: Split, index: usize) -> u16 {
        let at = self.labels + 2 * self.offset(split, index);
        let bytes = (*self.bytes).as_ref();
        u16::from_le_bytes([bytes[at], bytes[at + 1]])
    }

    /// Image `index`, `3 32 32`, which must exist.
    pub fn image(&self, split: Split, index: usize) -> &[u8] {
        let at = self.images + IMAGE_BYTES * self.offset(split, index);
        &(*self.bytes).as_ref()[at..at + IMAGE_BYTES]
    }
}

/// The order in which epoch `epoch` visits the `n` training images.
pub fn epoch_order(seed: u64, epoch: usize, n: usize) -> Vec<u32> {
    stream(seed, &format!("order {epoch}")).permutation(n)
}

/// How epoch `epoch` cuts training image `index`: flipped with probability 1/2, offsets uniform.
pub fn example(seed: u64, epoch: usize, index: u32) -> Example {
    let mut s = stream(seed, &format!("augment {epoch}"));
    s.seek(3 * u64::from(index));
    let span = 2 * PADDING as u64 + 1;
    let flip = s.below(2) == 1;
    let (dy, dx) = (s.below(span) as u8, s.below(span) as u8);
    Example { index, dy, dx, flip }
}

/// The byte at row `y`, column `x` of channel `c` of `image` cut as `example` says: the image is
/// mirrored, padded with zero bytes and cropped. This defines augmentation for every engine.
pub fn augmented_pixel(image: &[u8], example: &Example, c: usize, y: usize, x: usize) -> u8 {
    let row = (y + usize::from(example.dy)).wrapping_sub(PADDING);
    let column = (x + usize::from(example.dx)).wrapping_sub(PADDING);
    if row >= IMAGE_SIZE || column >= IMAGE_SIZE {
        return 0;
    }
    let column = if example.flip { IMAGE_SIZE - 1 - column } else { column };
    image[(c * IMAGE_SIZE + row) * IMAGE_SIZE + column]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed() -> Vec<u8> {
        let pixels: Vec<u8> = (0..3 * IMAGE_BYTES).map(|i| (i % 251) as u8).collect();
        let names = ["cat".to_string(), "dog".to_string()];
        let train = Images { labels: &[0, 1], pixels: &pixels[..2 * IMAGE_BYTES] };
        pack(&names, train, Images { labels: &[1], pixels: &pixels[2 * IMAGE_BYTES..] }).unwrap()
    }

    #[test]
    fn a_packed_dataset_opens_with_what_went_in() {
        let set = Dataset::from_bytes(Arc::new(packed())).unwrap();
        assert_eq!((set.len(Split::Train), set.len(Split::Test)), (2, 1));
        assert_eq!(set.classes(), ["cat", "dog"]);
        assert_eq!([set.label(Split::Train, 1), set.label(Split::Test, 0)], [1, 1]);
        assert_eq!(set.image(Split::Test, 0)[7], ((2 * IMAGE_BYTES + 7) % 251) as u8);
        let (mean, std) = set.statistics();
        assert!(mean.iter().chain(&std).all(|x| *x > 0.2 && *x < 0.6));
    }

    #[test]
    fn damaged_datasets_are_refused() {
        let good = packed();
        for cut in [0, 5, 11, 40, good.len() - 1] {
            assert!(Dataset::from_bytes(Arc::new(good[..cut].to_vec())).is_err(), "cut at {cut}");
        }
        let mut wrong = good.clone();
        wrong[0] ^= 1;
        assert!(Dataset::from_bytes(Arc::new(wrong)).is_err());
        let image = [0; IMAGE_BYTES];
        let none = Images { labels: &[], pixels: &[] };
        assert!(pack(&["cat".into()], Images { labels: &[1], pixels: &image }, none).is_err());
        assert!(pack(&["cat".into()], Images { labels: &[], pixels: &image }, none).is_err());
    }

    #[test]
    fn order_and_cuts_are_pinned_and_differ_by_seed_and_by_epoch() {
        assert_eq!(epoch_order(0, 0, 8), ORDER);
        let cuts = |seed, epoch| (0..100).map(|i| example(seed, epoch, i)).collect::<Vec<_>>();
        let first: Vec<_> = cuts(0, 0)[..4].iter().map(|e| (e.flip, e.dy, e.dx)).collect();
        assert_eq!(first, CUTS);
        for (seed, epoch) in [(1, 0), (0, 1)] {
            assert_ne!(epoch_order(seed, epoch, 100), epoch_order(0, 0, 100), "seed {seed}, epoch {epoch}");
            assert_ne!(cuts(seed, epoch), cuts(0, 0), "seed {seed}, epoch {epoch}");
        }
    }

    const ORDER: [u32; 8] = [3, 6, 0, 4, 5, 1, 2, 7];
    const CUTS: [(bool, u8, u8); 4] = [(false, 0, 3), (true, 4, 5), (false, 7, 0), (false, 3, 2)];

    #[test]
    fn cuts_cover_every_offset_evenly() {
        let cuts: Vec<_> = (0..9000).map(|i| example(5, 3, i)).collect();
        let flipped = cuts.iter().filter(|e| e.flip).count();
        assert!((4200..4800).contains(&flipped), "{flipped} of 9000 flipped");
        for offset in 0..9 {
            let n = cuts.iter().filter(|e| e.dy == offset).count();
            let m = cuts.iter().filter(|e| e.dx == offset).count();
            assert!((850..1150).contains(&n) && (850..1150).contains(&m), "{offset}: {n}, {m}");
        }
    }

    #[test]
    fn the_centre_cut_is_the_image_and_flips_mirror_before_the_crop() {
        let image: Vec<u8> = (0..IMAGE_BYTES).map(|i| (i % 256) as u8 | 1).collect();
        let centre = Example::whole(0);
        assert_eq!(augmented_pixel(&image, &centre, 1, 5, 9), image[1024 + 5 * 32 + 9]);
        let corner = Example { index: 0, dy: 0, dx: 8, flip: true };
        assert_eq!(augmented_pixel(&image, &corner, 0, 3, 0), 0);
        assert_eq!(augmented_pixel(&image, &corner, 0, 4, 0), image[31 - 4]);
        assert_eq!(augmented_pixel(&image, &corner, 0, 4, 28), 0);
    }
}
