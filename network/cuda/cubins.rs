//! Compiled kernels, kept by what they were compiled from: equal source, constants, card and compiler
//! give the file's name. A damaged file counts as none, and a folder that cannot be written costs only
//! time. Knows no compiler and no card.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use blake3::{Hash, Hasher};

use super::device::Source;
use crate::Result;

/// The digest that a file begins with: of all that follows.
const DIGEST: usize = blake3::OUT_LEN;

/// A folder of compiled kernels, or none.
#[derive(Clone, Debug)]
pub(super) struct Cubins(Option<PathBuf>);

impl Cubins {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// What is kept under `key`, or else what `make` gives, which is then kept.
    pub(super) fn get(&self, key: Hash, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let file = self.0.as_ref().map(|folder| folder.join(format!("{}.cubin", key.to_hex())));
        if let Some(kept) = file.as_deref().and_then(read) {
            return Ok(kept);
        }
        let cubin = make()?;
        if let Some(file) = file {
            // Next time it is compiled again.
            let _ = write(&file, &cubin);
        }
        Ok(cubin)
    }
}

/// The name of what `source` becomes for `arch` with this compiler and these options.
pub(super) fn key(source: &Source, arch: &str, compiler: &str, options: &[&str]) -> Hash {
    let mut hasher = Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    ["repro cubin 1", arch, compiler, source.name, &source.text].into_iter().for_each(&mut add);
    options.iter().copied().for_each(&mut add);
    source.defines.iter().for_each(|(name, value)| add(&format!("{name}={value}")));
    hasher.finalize()
}

fn read(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(file).ok()?;
    if bytes.len() < DIGEST {
        return None;
    }
    let cubin = bytes.split_off(DIGEST);
    (blake3::hash(&cubin).as_bytes() == bytes.as_slice()).then_some(cubin)
}

/// Whole or not at all: several processes may compile the same at once.
fn write(file: &Path, cubin: &[u8]) -> io::Result<()> {
    static DRAFTS: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(file.parent().unwrap_or(Path::new("")))?;
    let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
    let draft = file.with_extension(format!("{}-{number}.draft", std::process::id()));
    let bytes = [blake3::hash(cubin).as_bytes(), cubin].concat();
    let written = fs::write(&draft, bytes).and_then(|()| fs::rename(&draft, file));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

#[cfg(test)]
mod tests;
