//! The index `.repro/state`: what lies in `artifacts/`, and the digests of files that were read. One
//! line per finished instance or file, appended; the last line about a thing counts. Read once, so that
//! a run with nothing to do opens one file. Knows nothing of what the lines mean for staleness.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    digest::{Digest, Stamp},
    error::{Context, EngineError},
    memo::{Memo, Remembered},
    place::{read_plain, write_whole},
    store::{Folder, Output, Shown},
};

/// What lies in `artifacts/` for one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The recipe that made it.
    pub(crate) recipe: Digest,
    /// Of all its files together.
    pub(crate) tree: Digest,
    #[serde(rename = "f")]
    pub(crate) files: Vec<Shown>,
    /// Its folder, and those in it.
    #[serde(rename = "d")]
    pub(crate) folders: Vec<Folder>,
}

impl Entry {
    /// Of a result that may lie somewhere: sizes and digests without times, so that each file is read before it counts.
    pub(crate) fn expected(recipe: Digest, outputs: &[Output]) -> Self {
        let (mut files, mut folders) = (Vec::new(), BTreeSet::from([String::new()]));
        for output in outputs {
            folders.extend(output.folders().map(str::to_owned));
            if !output.is_folder() {
                let Output { path, digest, size, executable } = output.clone();
                files.push(Shown { path, digest, executable, stamp: Stamp { size, ..Stamp::NONE } });
            }
        }
        let folders = folders.into_iter().map(|path| Folder(path, Stamp::NONE)).collect();
        Self { recipe, tree: Output::tree(outputs), files, folders }
    }

    /// All files and empty folders, sorted by path.
    pub(crate) fn outputs(&self) -> Vec<Output> {
        let file = |file: &Shown| {
            let Shown { path, digest, executable, stamp } = file.clone();
            Output { path, digest, size: stamp.size, executable }
        };
        let mut outputs: Vec<_> =
            self.files.iter().map(file).chain(self.empty_folders().map(Output::empty_folder)).collect();
        outputs.sort_by(|a, b| a.path.cmp(&b.path));
        outputs
    }

    /// Its folders in which nothing is, other than its own.
    pub(crate) fn empty_folders(&self) -> impl Iterator<Item = &str> {
        let above = |path: &'_ str| path.rfind('/').map_or(0, |slash| slash + 1);
        let folders = || self.folders.iter().map(|Folder(path, _)| path.as_str());
        let files = self.files.iter().map(|file| &file.path[..above(&file.path)]);
        let full: BTreeSet<&str> =
            files.chain(folders().map(|path| &path[..above(path.trim_end_matches('/'))])).collect();
        folders().filter(move |path| !path.is_empty() && !full.contains(path))
    }
}

/// The parts of a lock file, each with the digest of what it was made from, where that is known.
pub(crate) type Sections = BTreeMap<String, Option<Digest>>;

/// One line of the index.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Line<'a> {
    /// What is shown under a key.
    Result(#[serde(borrow)] Cow<'a, str>, Cow<'a, Entry>),
    /// What is shown under a key is nobody's result.
    Gone(#[serde(borrow)] Cow<'a, str>),
    /// A file that was read.
    File(PathBuf, Stamp, Digest),
    /// A folder that was read: the digests of its listing and of its content.
    Folder(PathBuf, Digest, Digest),
    /// A lock file as it was written last.
    Lock(PathBuf, Stamp, Sections),
}

/// The index, in memory.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) results: BTreeMap<String, Entry>,
    pub(crate) memo: Memo,
    pub(crate) locks: BTreeMap<PathBuf, (Stamp, Sections)>,
    /// Keys whose files were touched, and found unchanged, since the index was read.
    touched: BTreeSet<String>,
    /// Has a lock file been written since?
    relocked: bool,
    lines: usize,
    damaged: bool,
    torn: bool,
}

impl State {
    /// Reads the index; one that is missing is empty, and lines that cannot be read are passed over: what they said is
    /// found out again.
    pub(crate) fn load(cache: &Path) -> Result<Self, EngineError> {
        let path = cache.join("state");
        let bytes = match read_plain(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.context("read", &path)?,
        };
        let whole = bytes.last().is_none_or(|&last| last == b'\n');
        let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
        let read: Vec<Option<Line<'_>>> = lines.par_iter().with_min_len(500).map(|line| read(line)).collect();
        // A crash may cut the last line; nothing cuts another.
        let lost = read.iter().take(read.len() - usize::from(!whole)).filter(|line| line.is_none()).count();
        let mut state = Self {
            memo: Memo::new(cache),
            lines: read.len(),
            damaged: lost > 0,
            torn: !whole,
            ..Self::default()
        };
        read.into_iter().flatten().for_each(|line| state.take(line));
        Ok(state)
    }

    /// Where more is written, as it was read from `cache`.
    pub(crate) fn journal(&self, cache: &Path) -> Journal {
        Journal { path: cache.join("state"), whole: !self.torn, file: None }
    }

    fn take(&mut self, line: Line<'_>) {
        match line {
            Line::Result(key, entry) => drop(self.results.insert(key.into_owned(), entry.into_owned())),
            Line::Gone(key) => drop(self.results.remove(&*key)),
            Line::File(path, stamp, digest) => self.memo.remember(path, Remembered::File(stamp, digest)),
            Line::Folder(path, listing, content) => {
                self.memo.remember(path, Remembered::Folder { listing, content });
            }
            Line::Lock(path, stamp, sections) => drop(self.locks.insert(path, (stamp, sections))),
        }
    }

    /// Remembers the new stamps of a result whose content is the same.
    pub(crate) fn touched(&mut self, key: &str, entry: Entry) {
        self.results.insert(key.to_owned(), entry);
        self.touched.insert(key.to_owned());
    }

    /// Remembers a lock file just written.
    pub(crate) fn locked(&mut self, path: PathBuf, stamp: Stamp, sections: Sections) {
        self.locks.insert(path, (stamp, sections));
        self.relocked = true;
    }

    /// Did anything but a crash at its last line harm the index?
    pub(crate) fn damaged(&self) -> bool {
        self.damaged
    }

    /// Appends the digests of files that were read, or writes the index anew when most of it is
    /// history or part of it was lost.
    pub(crate) fn settle(&mut self, mut journal: Journal) -> Result<(), EngineError> {
        self.memo.write_tables()?;
        let locks: Vec<_> = self
            .locks
            .iter()
            .map(|(path, (stamp, sections))| Line::Lock(path.clone(), *stamp, sections.clone()))
            .collect();
        let live = self.results.len() + self.memo.all().count() + self.locks.len();
        if !self.damaged && !self.torn && self.lines < 2 * live + 1000 {
            let touched = std::mem::take(&mut self.touched);
            let results = touched
                .iter()
                .filter_map(|key| Some(Line::Result(key.into(), Cow::Borrowed(self.results.get(key)?))));
            let files = self.memo.take_learned().into_iter().map(|(path, what)| remembered(path, what));
            let locks = locks.into_iter().filter(|_| self.relocked);
            return journal.append(&results.chain(files).chain(locks).collect::<Vec<_>>());
        }
        let mut bytes = Vec::new();
        let results = self.results.iter().map(|(key, entry)| Line::Result(key.into(), Cow::Borrowed(entry)));
        let files = self.memo.all().map(|(path, what)| remembered(path.clone(), what));
        for line in results.chain(files).chain(locks) {
            encode(&line, &mut bytes, &journal.path)?;
        }
        write_whole(&journal.path, &bytes)
    }
}

/// Reads a line of the index, unless it is not what was written.
fn read(line: &[u8]) -> Option<Line<'_>> {
    let (check, json) = line.split_at_checked(CHECK)?;
    let json = json.strip_prefix(b" ")?;
    if checksum(json).as_bytes() != check {
        return None;
    }
    let mut line = serde_json::from_slice(json).ok()?;
    if let Line::Result(_, Cow::Owned(entry)) = &mut line {
        // Most results are one file, and lists are read into room for four: ten thousand times too much.
        entry.files.shrink_to_fit();
        entry.folders.shrink_to_fit();
    }
    Some(line)
}

fn remembered<'a>(path: PathBuf, what: Remembered) -> Line<'a> {
    match what {
        Remembered::File(stamp, digest) => Line::File(path, stamp, digest),
        Remembered::Folder { listing, content } => Line::Folder(path, listing, content),
    }
}

/// The end of the index, to which lines are added.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// Does the last line end?
    whole: bool,
    file: Option<fs::File>,
}

impl Journal {
    /// Appends, in one write.
    pub(crate) fn append(&mut self, lines: &[Line<'_>]) -> Result<(), EngineError> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut bytes = if self.whole { Vec::new() } else { vec![b'\n'] };
        for line in lines {
            encode(line, &mut bytes, &self.path)?;
        }
        if self.file.is_none() {
            let file = fs::OpenOptions::new().create(true).append(true).open(&self.path);
            self.file = Some(file.context("open", &self.path)?);
        }
        if let Some(file) = &mut self.file {
            // A write that failed half way leaves a line without end.
            self.whole = false;
            file.write_all(&bytes).context("write", &self.path)?;
            self.whole = true;
        }
        Ok(())
    }
}

/// Digits of the digest that a line begins with: a digit that flips in it would be believed for ever.
const CHECK: usize = 16;

fn checksum(json: &[u8]) -> String {
    let mut digest = Digest::of(json).to_string();
    digest.truncate(CHECK);
    digest
}

fn encode(line: &Line<'_>, bytes: &mut Vec<u8>, path: &Path) -> Result<(), EngineError> {
    let json = serde_json::to_vec(line).map_err(std::io::Error::other).context("encode", path)?;
    bytes.extend_from_slice(checksum(&json).as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
    Ok(())
}
