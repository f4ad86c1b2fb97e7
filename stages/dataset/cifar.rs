//! CIFAR-10 in its binary layout, and source `cifar-binary`: a folder that holds those six files.
//! Knows nothing of where else they may come from.
//!
//! A file is records of 3073 bytes: the class, then the image (`3 32 32`).

use std::{fs, path::PathBuf};

use engine::kind::{Job, StageError};
use network::{data::IMAGE_BYTES, trainer::Split};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Collected, Part, Place, subset::Subset};
use crate::output::failed;

/// The official files with their SHA-256: five of training images, then the test images.
pub(super) const BATCHES: [(&str, &str); 6] = [
    ("data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
    ("data_batch_2.bin", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
    ("data_batch_3.bin", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
    ("data_batch_4.bin", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
    ("data_batch_5.bin", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    ("test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
];
/// Bytes of one image with its class.
pub(super) const RECORD: usize = 1 + IMAGE_BYTES;
/// Bytes of each official file.
pub(super) const BATCH_BYTES: u64 = 10_000 * RECORD as u64;

/// The classes of CIFAR-10, sorted.
pub(crate) const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Parameters of a folder in the binary layout.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct BinaryParams {
    /// Of the folder with `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.
    #[serde(flatten)]
    pub(super) place: Place,
    #[serde(flatten)]
    subset: Subset,
}

/// What the source reads.
pub(super) fn files(params: &BinaryParams) -> Vec<PathBuf> {
    params.place.files(BATCHES.map(|(name, _)| name))
}

/// Reads the folder.
pub(super) fn collect(params: &BinaryParams, job: &mut Job<'_>) -> Result<Collected, StageError> {
    let folder = params.place.folder(job)?;
    let read = |(name, _): &(&str, &str)| {
        params.place.whole(name, job)?;
        let path = folder.join(name);
        fs::read(&path).map_err(|error| failed("read", &path, &error))
    };
    let batches = BATCHES.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    for ((name, _), bytes) in
        BATCHES.iter().zip(&batches).filter(|(_, bytes)| bytes.len() as u64 != BATCH_BYTES)
    {
        let images = bytes.len() / RECORD;
        job.reporter.warn(&format!("`{name}` has {images} images; in CIFAR-10 it has 10,000"));
    }
    images(&batches, &params.subset)
}

/// The images in the contents of the six files, which are in the order of [`BATCHES`].
pub(super) fn images(batches: &[Vec<u8>], subset: &Subset) -> Result<Collected, StageError> {
    for ((name, _), bytes) in BATCHES.iter().zip(batches) {
        check(bytes).map_err(|reason| {
            StageError::new(format!("`{name}` is damaged: {reason}"))
                .hint("fetch the CIFAR-10 binary files again; each should have 30,730,000 bytes")
                .integrity()
        })?;
    }
    let (train, test) = batches.split_at(batches.len() - 1);
    Ok(Collected {
        classes: CLASSES.map(str::to_owned).to_vec(),
        train: part(Split::Train, train, subset)?,
        test: part(Split::Test, test, subset)?,
    })
}

fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        return Err(format!("its {} bytes are not whole records of {RECORD}", bytes.len()));
    }
    let bad = bytes.chunks_exact(RECORD).position(|record| usize::from(record[0]) >= CLASSES.len());
    bad.map_or(Ok(()), |at| Err(format!("record {at} has class {}, of 0 to 9", bytes[at * RECORD])))
}

fn part(split: Split, batches: &[Vec<u8>], subset: &Subset) -> Result<Part, StageError> {
    let records: Vec<&[u8]> = batches.iter().flat_map(|bytes| bytes.chunks_exact(RECORD)).collect();
    let mut kept = Vec::with_capacity(records.len());
    for (label, class) in CLASSES.iter().enumerate() {
        let of_class = |at: &usize| usize::from(records[*at][0]) == label;
        let of_class: Vec<usize> = (0..records.len()).filter(of_class).collect();
        kept.extend(subset.keep(split, class, of_class.len())?.into_iter().map(|index| of_class[index]));
    }
    kept.sort_unstable();
    let mut part = Part { labels: Vec::new(), pixels: Vec::with_capacity(kept.len() * IMAGE_BYTES) };
    for at in kept {
        part.labels.push(u16::from(records[at][0]));
        part.pixels.extend_from_slice(&records[at][1..]);
    }
    Ok(part)
}
