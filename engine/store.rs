//! The cache below `.repro/`, and `artifacts/`, which shows its content under human names. Knows
//! digests and paths, not stages. docs/runner.md describes the layout and what is guaranteed.
//!
//! Objects, records and results are made in `drafts/` and come to their place by one rename, so that
//! whatever is there is complete. A fresh result is shown by renaming its draft, and the object is the copy; one that
//! is restored is a copy of its objects. Copies are cheap clones where the file system can, and never hard links:
//! editing an artifact cannot reach the cache.

use std::{
    collections::BTreeSet,
    fs,
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use rustix::{
    io::Errno,
    process::{Pid, getpid, test_kill_process},
};
use serde::{Deserialize, Serialize};

use crate::{
    digest::{Digest, Stamp, executable},
    error::{Context, EngineError},
    held::no_link,
    place::{clear, copy_into, create_new, read_plain, with_parent},
    record::Record,
    share::Share,
    state::Entry,
};

/// Files up to this size are read once, hashed and kept from memory.
const SMALL: u64 = 1 << 20;

/// One file, or empty folder, of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Relative to the result's folder, with `/`; that of an empty folder ends with one.
    pub path: String,
    /// Of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// May it be executed?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl Output {
    /// The digest of all of a result together.
    pub(crate) fn tree(outputs: &[Self]) -> Digest {
        Digest::of_tree(outputs.iter().map(|output| (output.path.as_str(), output.executable, output.digest)))
    }

    /// An empty folder, whose path ends with `/`.
    pub(crate) fn empty_folder(path: &str) -> Self {
        Self { path: path.to_owned(), digest: Digest::of(""), size: 0, executable: false }
    }

    /// The folders that it lies in, or is, but for that of the whole result.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &str> {
        self.path.match_indices('/').map(|(end, _)| &self.path[..=end])
    }

    /// Is it an empty folder?
    pub(crate) fn is_folder(&self) -> bool {
        self.path.ends_with('/')
    }
}

/// A file of a result as it lies in `artifacts/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, Digest, bool, Stamp)", into = "(String, Digest, bool, Stamp)")]
pub(crate) struct Shown {
    /// Relative to the result's folder.
    pub(crate) path: String,
    /// What its content was when it was put there.
    pub(crate) digest: Digest,
    pub(crate) executable: bool,
    /// What the file system said then.
    pub(crate) stamp: Stamp,
}

impl From<(String, Digest, bool, Stamp)> for Shown {
    fn from((path, digest, executable, stamp): (String, Digest, bool, Stamp)) -> Self {
        Self { path, digest, executable, stamp }
    }
}

impl From<Shown> for (String, Digest, bool, Stamp) {
    fn from(Shown { path, digest, executable, stamp }: Shown) -> Self {
        (path, digest, executable, stamp)
    }
}

/// A folder of a result, relative to the result's own, which is the empty path; its stamp changes
/// when something comes or goes in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folder(pub(crate) String, pub(crate) Stamp);

/// The cache of one project.
#[derive(Debug)]
pub(crate) struct Store {
    cache: PathBuf,
    artifacts: PathBuf,
    /// What tells its names in `drafts/` from those of everybody else, on every machine. Nobody can foresee it, to lay
    /// something in their place in a folder that many write to.
    signature: String,
    drafts: AtomicU64,
    /// Where what is not here is looked for.
    pub(crate) beside: Option<Box<Share>>,
}

/// Is it the name of something in the making, see [`Store::temporary`]?
pub(crate) fn is_temporary(name: &str) -> bool {
    let parts: Vec<_> = name.split('-').collect();
    parts.len() == 3
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The digest that `ab/cdef...` spells.
pub(crate) fn digest_in(path: &Path, suffix: &str) -> Option<Digest> {
    let rest = path.file_name()?.to_str()?.strip_suffix(suffix)?;
    let first = path.parent()?.file_name()?.to_str()?;
    format!("{first}{rest}").parse().ok()
}

/// The lock of a scratch folder: see `task::Member::hold_scratch`.
pub(crate) fn lock_of(scratch: &Path) -> PathBuf {
    scratch.with_added_extension("lock")
}

/// What that holds once an attempt has ended of which nobody had touched what it read.
pub(crate) const UNTOUCHED: &[u8] = b"untouched";

/// A file or folder in the making; deletes itself unless it comes to its place.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Best effort: what stays behind is swept at the start of the next run.
        let _ = clear(&self.path);
    }
}

impl Draft {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to its place.
    pub(crate) fn bring(self, place: &Path) -> Result<(), EngineError> {
        with_parent(place, || fs::rename(&self.path, place)).context("create", place)
    }
}

impl Store {
    pub(crate) fn new(root: &Path, beside: Option<Share>) -> Self {
        Self { beside: beside.map(Box::new), ..Self::at(root.join(".repro"), root.join("artifacts")) }
    }

    pub(crate) fn at(cache: PathBuf, artifacts: PathBuf) -> Self {
        let chance = RandomState::new().hash_one(SystemTime::now());
        let signature = format!("{}-{chance:x}", std::process::id());
        Self { cache, artifacts, signature, drafts: AtomicU64::new(0), beside: None }
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    #[cfg(target_os = "linux")] // elsewhere nobody asks
    pub(crate) fn artifacts(&self) -> &Path {
        &self.artifacts
    }

    /// Where the result called `key` is shown.
    pub(crate) fn shown(&self, key: &str) -> PathBuf {
        self.artifacts.join(key)
    }

    pub(crate) fn scratch(&self, recipe: Digest) -> PathBuf {
        self.cache.join("scratch").join(recipe.to_string())
    }

    /// Deletes what a stage that is finished left on its way; best effort.
    pub(crate) fn forget_attempts(&self, recipe: Digest) {
        let scratch = self.scratch(recipe);
        let _ = match fs::remove_dir(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => self.forget(&scratch),
            _ => fs::remove_file(lock_of(&scratch)),
        };
        let _ = fs::remove_file(self.failed(recipe));
    }

    /// Deletes a scratch folder, and its lock once that is done.
    pub(crate) fn forget(&self, scratch: &Path) -> io::Result<()> {
        self.vacate(scratch)?;
        clear(&lock_of(scratch))
    }

    /// Deletes a scratch folder, so that nothing goes on from a part of it if this is cut short: all of it leaves its place
    /// at once. Where it cannot, its lock says that it was built on something else.
    pub(crate) fn vacate(&self, scratch: &Path) -> io::Result<()> {
        let away = self.temporary();
        match with_parent(&away, || fs::rename(scratch, &away)) {
            Ok(()) => {
                let _ = clear(&away); // what stays behind is swept at the start of the next run
                Ok(())
            }
            Err(_) if fs::symlink_metadata(scratch).is_err() => Ok(()),
            Err(_) => {
                let mut lock = no_link().write(true).create(true).truncate(true).open(lock_of(scratch))?;
                lock.write_all(b"nothing")?;
                clear(scratch)
            }
        }
    }

    fn failed(&self, recipe: Digest) -> PathBuf {
        self.cache.join("failed").join(recipe.to_string())
    }

    /// Notes why a recipe came to nothing, for who asks later; best effort.
    pub(crate) fn note_failure(&self, recipe: Digest, message: &str) {
        let line = message.lines().next().unwrap_or_default();
        let _ = self.leave(&self.failed(recipe), line.as_bytes());
    }

    /// Why a recipe came to nothing the last time.
    pub(crate) fn failure(&self, recipe: Digest) -> Option<String> {
        String::from_utf8(read_plain(&self.failed(recipe)).ok()?).ok()
    }

    pub(crate) fn object(&self, digest: Digest) -> PathBuf {
        let hex = digest.to_string();
        self.cache.join("objects").join(&hex[..2]).join(&hex[2..])
    }

    pub(crate) fn record_path(&self, recipe: Digest) -> PathBuf {
        let hex = recipe.to_string();
        self.cache.join("records").join(&hex[..2]).join(format!("{}.json", &hex[2..]))
    }

    /// Deletes what interrupted runs left in the making; what a program that still runs makes beside this one, such as
    /// `push`, stays.
    pub(crate) fn sweep(&self) {
        for draft in fs::read_dir(self.cache.join("drafts")).into_iter().flatten().flatten() {
            let name = draft.file_name();
            let pid =
                name.to_str().and_then(|name| name.split('-').next()?.parse().ok()).and_then(Pid::from_raw);
            // In a container a program may well have the number that one before it had.
            let others = pid.filter(|pid| *pid != getpid());
            if !others.is_some_and(|pid| matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM))) {
                let _ = clear(&draft.path());
            }
        }
    }

    /// A name in `drafts/` that nothing has.
    pub(crate) fn temporary(&self) -> PathBuf {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        self.cache.join("drafts").join(format!("{}-{number}", self.signature))
    }

    /// An empty folder for a result.
    pub(crate) fn begin(&self) -> Result<Draft, EngineError> {
        let path = self.temporary();
        with_parent(&path, || fs::create_dir(&path)).context("create", &path)?;
        Ok(Draft { path })
    }

    /// The record of a recipe, if it ever ran to its end here. One that is unreadable or damaged is none at all: the
    /// stage then runs again.
    pub(crate) fn record(&self, recipe: Digest) -> Option<Record> {
        let record: Record = serde_json::from_slice(&read_plain(&self.record_path(recipe)).ok()?).ok()?;
        (Digest::of(&record.recipe) == recipe && record.is_sound()).then_some(record)
    }

    /// Is there something in its place? A crash of the system may leave an empty file. [`Store::record`] reads it.
    pub(crate) fn has_record(&self, recipe: Digest) -> bool {
        fs::symlink_metadata(self.record_path(recipe)).is_ok_and(|meta| meta.is_file() && meta.len() > 0)
    }

    /// The recipes that ran to their end here, sorted.
    pub(crate) fn recipes(&self) -> Result<Vec<Digest>, EngineError> {
        let folder = self.cache.join("records");
        let mut recipes = Vec::new();
        for entry in walkdir::WalkDir::new(&folder) {
            match entry.map_err(io::Error::from) {
                Ok(entry) => recipes.extend(digest_in(entry.path(), ".json")),
                // Nothing ran yet, or somebody collects garbage.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("read", &folder),
            }
        }
        recipes.sort_unstable();
        Ok(recipes)
    }

    /// The content of an object, unless it is missing or damaged.
    pub(crate) fn content(&self, digest: Digest) -> Option<Vec<u8>> {
        read_plain(&self.object(digest)).ok().filter(|content| Digest::of(content) == digest)
    }

    /// The record of a recipe whose objects are all there, at their size, or beside.
    pub(crate) fn restorable(&self, recipe: Digest) -> Option<Record> {
        self.restorable_with(recipe, &BTreeSet::new())
    }

    /// The same, when these objects have been put there.
    pub(crate) fn restorable_with(&self, recipe: Digest, put: &BTreeSet<Digest>) -> Option<Record> {
        let beside = || self.beside.as_ref()?.record(recipe);
        let there = |output: &Output| {
            let holds = |store: &Self| store.holds(output.digest, output.size);
            output.is_folder()
                || put.contains(&output.digest)
                || holds(self)
                || self.beside.as_ref().is_some_and(|share| holds(&share.0))
        };
        let whole = |record: &Record| record.outputs.iter().all(there);
        self.record(recipe).filter(whole).or_else(|| beside().filter(whole))
    }

    pub(crate) fn holds(&self, digest: Digest, size: u64) -> bool {
        fs::symlink_metadata(self.object(digest)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Takes the files of a folder, such as a draft that a `recipe` made, into the cache and says what they are.
    pub(crate) fn keep(&self, recipe: Digest, folder: &Path) -> Result<Entry, EngineError> {
        let mut entry = Entry { recipe, tree: Digest::of(""), files: Vec::new(), folders: Vec::new() };
        self.keep_folder(folder, "", &mut entry)?;
        entry.tree = Output::tree(&entry.outputs());
        Ok(entry)
    }

    /// `below` is the folder's path in the draft: empty, or ending with `/`.
    fn keep_folder(&self, folder: &Path, below: &str, kept: &mut Entry) -> Result<(), EngineError> {
        // Before it is read: what changes it later then shows.
        let stamp = stamp(folder)?;
        for entry in fs::read_dir(folder).context("read", folder)? {
            let entry = entry.context("read", folder)?;
            let place = entry.path();
            let name = entry.file_name();
            let odd = |what: &str| {
                EngineError::user(
                    format!("the output `{below}{}` {what}", name.display()),
                    "links, sockets and odd names cannot be kept: write plain files",
                )
            };
            let Some(text) = name.to_str() else { return Err(odd("has a name that is not UTF-8")) };
            let kind = entry.file_type().context("read", &place)?;
            if kind.is_dir() {
                self.keep_folder(&place, &format!("{below}{text}/"), kept)?;
            } else if kind.is_file() {
                self.keep_file(&place, format!("{below}{text}"), kept)?;
            } else {
                return Err(odd("is not a plain file"));
            }
        }
        kept.folders.push(Folder(below.to_owned(), stamp));
        Ok(())
    }

    fn keep_file(&self, place: &Path, path: String, kept: &mut Entry) -> Result<(), EngineError> {
        let meta = fs::symlink_metadata(place).context("read", place)?;
        let stamp = Stamp::of(&meta);
        let unreadable = |error: io::Error| {
            EngineError::user(
                format!("the output `{path}` cannot be read: {error}"),
                "let the stage leave files that you may read",
            )
        };
        let (digest, put) = if stamp.size < SMALL {
            let bytes = fs::read(place).map_err(unreadable)?;
            let digest = Digest::of(&bytes);
            // Same digest, same size: there already. Another size means damage, and is replaced.
            let there = self.holds(digest, bytes.len() as u64);
            (digest, if there { Ok(()) } else { self.put(digest, |object| object.write_all(&bytes)) })
        } else {
            let digest = Digest::of_file(place).map_err(unreadable)?;
            let there = self.holds(digest, stamp.size);
            (digest, if there { Ok(()) } else { self.put_copy(digest, place, stamp) })
        };
        // It says more than that the copy of such a file failed.
        if !is_as(place, stamp) {
            return Err(EngineError::user(
                format!("the output `{path}` was still being written when the stage had ended"),
                "let the stage wait for the processes that it starts",
            ));
        }
        put?;
        kept.files.push(Shown { path, digest, executable: executable(&meta), stamp });
        Ok(())
    }

    /// Makes an object of the file at `place`, which had that digest as long as its stamp was this one: what is written to
    /// meanwhile would lie in the cache under a digest that it does not have.
    fn put_copy(&self, digest: Digest, place: &Path, stamp: Stamp) -> Result<(), EngineError> {
        self.put(digest, |object| {
            copy_into(place, object)?;
            match is_as(place, stamp) {
                true => Ok(()),
                false => Err(io::Error::other("what was copied has changed meanwhile")),
            }
        })
    }

    /// Makes an object beside the cache, which nobody may write to, and moves it in.
    pub(crate) fn put(
        &self,
        digest: Digest,
        write: impl FnOnce(&mut fs::File) -> io::Result<()>,
    ) -> Result<(), EngineError> {
        self.make(0o444, write)?.bring(&self.object(digest))
    }

    /// A file with this mode.
    pub(crate) fn make(
        &self,
        mode: u32,
        write: impl FnOnce(&mut fs::File) -> io::Result<()>,
    ) -> Result<Draft, EngineError> {
        let path = self.temporary();
        let mut file = create_new(&path, mode).context("write", &path)?;
        let draft = Draft { path };
        write(&mut file).context("write", draft.path())?;
        Ok(draft)
    }

    /// Writes a record: the moment from which a result exists. Its objects must have been synced, unless they can be had
    /// again.
    pub(crate) fn write_record(&self, recipe: Digest, record: &Record) -> Result<(), EngineError> {
        let place = self.record_path(recipe);
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::other).context("encode", &place)?;
        self.leave(&place, &text)
    }

    /// Writes a file below the cache by one rename. Nothing waits for the disk: a crash of the system may leave it cut.
    pub(crate) fn leave(&self, place: &Path, bytes: &[u8]) -> Result<(), EngineError> {
        self.make(0o666, |file| file.write_all(bytes))?.bring(place)
    }

    /// Notes that a record was of use just now, for the collection of garbage.
    pub(crate) fn used(&self, recipe: Digest) {
        // Best effort: it only decides how long the record is kept.
        let record = fs::File::open(self.record_path(recipe));
        let _ = record.and_then(|file| file.set_modified(SystemTime::now()));
    }
}

pub(crate) fn stamp(path: &Path) -> Result<Stamp, EngineError> {
    Ok(Stamp::of(&fs::symlink_metadata(path).context("read", path)?))
}

/// Is the file at `place` still the one that had this stamp?
fn is_as(place: &Path, stamp: Stamp) -> bool {
    fs::symlink_metadata(place).is_ok_and(|meta| Stamp::of(&meta) == stamp)
}

#[cfg(test)]
mod tests;
