//! The index `.repro/state`: one line per finished instance or file read, appended; the last line
//! about a thing counts. Read once, so that a run with nothing to do opens one file. Knows nothing of
//! what the lines mean for staleness.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    digest::{Digest, Memo, Stamp},
    error::{Context, EngineError},
    store::{Shown, write_whole},
};

/// What lies in `artifacts/` for one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The recipe that made it.
    pub(crate) recipe: Digest,
    /// Of all its files together.
    pub(crate) tree: Digest,
    pub(crate) files: Vec<Shown>,
}

#[derive(Serialize, Deserialize)]
enum Line<'a> {
    #[serde(rename = "result")]
    Result(std::borrow::Cow<'a, str>, Entry),
    #[serde(rename = "file")]
    File(PathBuf, Stamp, Digest),
    /// A lock file as it was written last, and the digest of what was to be written.
    #[serde(rename = "lock")]
    Lock(PathBuf, Stamp, Digest),
}

/// The index, in memory.
#[derive(Debug, Default)]
pub(crate) struct State {
    path: PathBuf,
    pub(crate) results: BTreeMap<String, Entry>,
    pub(crate) memo: Memo,
    pub(crate) locks: BTreeMap<PathBuf, (Stamp, Digest)>,
    lines: usize,
    /// Lines that could not be read.
    lost: usize,
    whole: bool,
    file: Option<fs::File>,
}

impl State {
    /// Reads the index; one that is missing is empty, and lines that a crash cut are passed over.
    pub(crate) fn load(cache: &Path) -> Result<Self, EngineError> {
        let path = cache.join("state");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.context("read", &path)?,
        };
        let whole = bytes.last().is_none_or(|&last| last == b'\n');
        let mut state = Self { path, whole, ..Self::default() };
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(Line::Result(key, entry)) => drop(state.results.insert(key.into_owned(), entry)),
                Ok(Line::File(path, stamp, digest)) => state.memo.remember(path, stamp, digest),
                Ok(Line::Lock(path, stamp, digest)) => drop(state.locks.insert(path, (stamp, digest))),
                Err(_) => state.lost += 1,
            }
            state.lines += 1;
        }
        // A crash may cut the last line; nothing cuts another.
        state.lost -= usize::from(!state.whole && state.lost > 0);
        Ok(state)
    }

    /// Did anything but a crash at its last line harm the index?
    pub(crate) fn damaged(&self) -> bool {
        self.lost > 0
    }

    /// Records what is now shown for `key`.
    pub(crate) fn finished(&mut self, key: &str, entry: Entry) -> Result<(), EngineError> {
        self.append(&Line::Result(key.into(), entry.clone()))?;
        self.results.insert(key.to_owned(), entry);
        Ok(())
    }

    /// Records a lock file just written.
    pub(crate) fn locked(&mut self, path: PathBuf, stamp: Stamp, said: Digest) -> Result<(), EngineError> {
        self.append(&Line::Lock(path.clone(), stamp, said))?;
        self.locks.insert(path, (stamp, said));
        Ok(())
    }

    /// Keeps the digests of files that were read, and rewrites the index when most of it is history.
    pub(crate) fn settle(&mut self) -> Result<(), EngineError> {
        for (path, stamp, digest) in std::mem::take(&mut self.memo.learned) {
            self.append(&Line::File(path, stamp, digest))?;
        }
        let live = self.results.len() + self.memo.entries().count() + self.locks.len();
        if !self.damaged() && self.lines < 2 * live + 1000 {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let results = self.results.iter().map(|(key, entry)| Line::Result(key.into(), entry.clone()));
        let files =
            self.memo.entries().map(|(path, (stamp, digest))| Line::File(path.clone(), *stamp, *digest));
        let locks = self.locks.iter().map(|(path, (stamp, said))| Line::Lock(path.clone(), *stamp, *said));
        for line in results.chain(files).chain(locks) {
            encode(&line, &mut bytes, &self.path)?;
        }
        self.file = None;
        (self.lines, self.lost) = (live, 0);
        write_whole(&self.path, &bytes)
    }

    fn append(&mut self, line: &Line<'_>) -> Result<(), EngineError> {
        let mut bytes = if self.whole { Vec::new() } else { vec![b'\n'] };
        encode(line, &mut bytes, &self.path)?;
        if self.file.is_none() {
            let file = fs::OpenOptions::new().create(true).append(true).open(&self.path);
            self.file = Some(file.context("open", &self.path)?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&bytes).context("write", &self.path)?;
        }
        self.whole = true;
        self.lines += 1;
        Ok(())
    }
}

fn encode(line: &Line<'_>, bytes: &mut Vec<u8>, path: &Path) -> Result<(), EngineError> {
    serde_json::to_writer(&mut *bytes, line).map_err(std::io::Error::other).context("encode", path)?;
    bytes.push(b'\n');
    Ok(())
}
