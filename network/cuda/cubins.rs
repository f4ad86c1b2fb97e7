//! Compiled kernels, kept by what they were compiled from: equal source, constants, card and compiler
//! give the file's name. A damaged file counts as none, and a folder that cannot be written costs only
//! time. Knows no compiler and no card.

use std::{
    collections::HashMap,
    fs, io,
    num::NonZero,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use blake3::{Hash, Hasher};

use super::device::Source;
use crate::Result;

/// The digest that a file begins with: of all that follows.
const DIGEST: usize = blake3::OUT_LEN;

/// Most compilers at once: each takes some hundred MiB.
const THREADS: usize = 16;

/// A folder of compiled kernels, or none, and kernels that were made before they are wanted.
#[derive(Debug)]
pub(super) struct Cubins {
    folder: Option<PathBuf>,
    ready: HashMap<Hash, Vec<u8>>,
}

impl Cubins {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, ready: HashMap::new() }
    }

    /// What was prepared or is kept under `key`, or else what `make` gives, which is then kept.
    pub(super) fn get(&mut self, key: Hash, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        match self.ready.remove(&key) {
            Some(cubin) => Ok(cubin),
            None => self.find(key, make),
        }
    }

    /// Has all of `wanted` at hand for one [`get`](Self::get) each; makes what is not kept on several threads.
    pub(super) fn prepare<T: Sync>(
        &mut self,
        wanted: &[(Hash, T)],
        make: impl Fn(&T) -> Result<Vec<u8>> + Sync,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut made = Vec::new();
            while let Some((key, of)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                made.push((*key, self.find(*key, || make(of))?));
            }
            Ok(made)
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS).min(wanted.len());
        let made: Vec<Result<Vec<_>>> = thread::scope(|scope| {
            // One that does not start leaves its share to the others.
            let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..threads).filter_map(start).collect();
            let own = work();
            let join =
                |other: thread::ScopedJoinHandle<'_, _>| other.join().unwrap_or_else(|e| resume_unwind(e));
            others.into_iter().map(join).chain([own]).collect()
        });
        for made in made {
            self.ready.extend(made?);
        }
        Ok(())
    }

    /// What is kept, or else what `make` gives.
    fn find(&self, key: Hash, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let file = self.folder.as_ref().map(|folder| folder.join(format!("{}.cubin", key.to_hex())));
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
