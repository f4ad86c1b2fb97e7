//! The CIFAR-10 archive: a gzipped tar of which only the six expected members are read, into memory.
//! Nothing is ever unpacked into files, and an archive with anything suspicious in it is refused as
//! a whole. Knows nothing of downloading.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use engine::kind::StageError;
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

use super::cifar::{BATCH_BYTES, BATCHES};
use crate::{output::failed, params::stays_inside};

const FOLDER: &str = "cifar-10-batches-bin";
/// More than the official archive expands to (184 MB): what goes beyond is a bomb.
const EXPANDED: u64 = 256 << 20;

/// The contents of the six members of the archive at `path`, in the order of [`BATCHES`]. With
/// `official` each must have its published SHA-256.
pub(super) fn read(path: &Path, official: bool) -> Result<Vec<Vec<u8>>, StageError> {
    let file = File::open(path).map_err(|error| failed("read", path, &error))?;
    members(file, official).map_err(|reason| {
        StageError::new(format!("refused the archive `{}`: {reason}", path.display()))
            .hint("this is not the CIFAR-10 binary archive: check the url, or the file, and the `sha256` given for it")
            .integrity()
    })
}

fn members(file: impl Read, official: bool) -> Result<Vec<Vec<u8>>, String> {
    let damaged = |error: io::Error| format!("it is damaged: {error}");
    let mut archive = Archive::new(Limited { inner: GzDecoder::new(file), left: EXPANDED });
    let mut found: [Option<Vec<u8>>; BATCHES.len()] = Default::default();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let kind = entry.header().entry_type();
        if !matches!(kind, EntryType::Regular | EntryType::Directory | EntryType::XGlobalHeader) {
            return Err(format!("`{}` in it is neither a file nor a folder", path.display()));
        }
        if !stays_inside(&path) {
            return Err(format!("`{}` in it leads outside", path.display()));
        }
        if entry.size() > BATCH_BYTES {
            return Err(format!("`{}` in it claims {} bytes", path.display(), entry.size()));
        }
        let wanted = BATCHES.iter().position(|(name, _)| path == Path::new(FOLDER).join(name));
        let (Some(index), EntryType::Regular) = (wanted, kind) else { continue };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(damaged)?;
        let (name, sha256) = BATCHES[index];
        if bytes.len() as u64 != entry.size() {
            return Err(format!("it is cut off in `{name}`"));
        }
        if official && hex(&Sha256::digest(&bytes)) != sha256 {
            return Err(format!("`{name}` in it is not the official file: its sha256 differs"));
        }
        if found[index].replace(bytes).is_some() {
            return Err(format!("`{name}` is in it twice"));
        }
    }
    // The checksum stands behind the end of the tar.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    let missing: Vec<_> =
        BATCHES.iter().zip(&found).filter(|(_, bytes)| bytes.is_none()).map(|((name, _), _)| *name).collect();
    if !missing.is_empty() {
        return Err(format!("it lacks {FOLDER}/{}", missing.join(", ")));
    }
    Ok(found.into_iter().flatten().collect())
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Ends in an error instead of expanding without end.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(format!("it expands to more than {} MiB", EXPANDED >> 20)))?;
        Ok(read)
    }
}
