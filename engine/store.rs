//! The cache below `.repro/`, and `artifacts/`, which shows its content under human names. Knows
//! digests and paths, not stages.
//!
//! - `objects/ab/cdef...`: a file's content under its BLAKE3 digest, read-only.
//! - `records/ab/cdef....json`: what the recipe of that digest produced.
//! - `drafts/`: results that are being made; a finished one is moved to `artifacts/`.
//! - `scratch/<recipe digest>/`: private state of interrupted stages.
//!
//! Objects are written beside their place, synced and renamed; a record is written after all of its
//! objects; a result appears in `artifacts/` by one rename. So whatever is there is complete, and a
//! cut at any moment costs only work. Results are shown by copy (cheap clones where the file system
//! can), never by hard link: editing an artifact cannot reach the cache.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use crate::{
    digest::{Digest, Stamp},
    error::{Context, EngineError},
    record::Record,
};

/// One file of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Relative to the result's folder, with `/`.
    pub path: String,
    /// Of its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// A file of a result as it lies in `artifacts/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Relative to the result's folder.
    pub path: String,
    /// What its content was when it was put there.
    pub digest: Digest,
    /// What the file system said then.
    pub stamp: Stamp,
}

/// The digest of a whole result.
pub(crate) fn tree(outputs: &[Output]) -> Digest {
    Digest::of_tree(outputs.iter().map(|output| (output.path.as_str(), output.digest)))
}

/// The cache of one project.
#[derive(Debug)]
pub(crate) struct Store {
    cache: PathBuf,
    artifacts: PathBuf,
    drafts: AtomicU64,
}

/// A folder for a result in the making; deletes itself unless it is shown.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Best effort: what stays behind is swept at the start of the next run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Draft {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The files in it, sorted by path.
    pub(crate) fn outputs(&self) -> Result<Vec<Output>, EngineError> {
        let mut outputs = Vec::new();
        for entry in walkdir::WalkDir::new(&self.path).sort_by_file_name() {
            let entry = entry.map_err(std::io::Error::from).context("read", &self.path)?;
            if entry.file_type().is_dir() {
                continue;
            }
            let below = entry.path().strip_prefix(&self.path).unwrap_or(entry.path());
            let (Some(path), true) = (below.to_str(), entry.file_type().is_file()) else {
                return Err(EngineError::Output {
                    message: format!(
                        "the output `{}` is not a plain file with a UTF-8 name",
                        below.display()
                    ),
                    hint: "links, sockets and odd names cannot be kept: write plain files".into(),
                });
            };
            let size = entry.metadata().map_err(std::io::Error::from).context("read", entry.path())?.len();
            let digest = Digest::of_file(entry.path()).context("read", entry.path())?;
            outputs.push(Output { path: path.to_owned(), digest, size });
        }
        outputs.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(outputs)
    }
}

impl Store {
    pub(crate) fn new(root: &Path) -> Self {
        Self { cache: root.join(".repro"), artifacts: root.join("artifacts"), drafts: AtomicU64::new(0) }
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Where the result called `key` is shown.
    pub(crate) fn shown(&self, key: &str) -> PathBuf {
        self.artifacts.join(key)
    }

    pub(crate) fn scratch(&self, recipe: Digest) -> PathBuf {
        self.cache.join("scratch").join(recipe.to_string())
    }

    pub(crate) fn object(&self, digest: Digest) -> PathBuf {
        let hex = digest.to_string();
        self.cache.join("objects").join(&hex[..2]).join(&hex[2..])
    }

    fn record_path(&self, recipe: Digest) -> PathBuf {
        let hex = recipe.to_string();
        self.cache.join("records").join(&hex[..2]).join(format!("{}.json", &hex[2..]))
    }

    /// Deletes what interrupted runs left in the making.
    pub(crate) fn sweep(&self) {
        let _ = fs::remove_dir_all(self.cache.join("drafts"));
    }

    pub(crate) fn begin(&self) -> Result<Draft, EngineError> {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let path = self.cache.join("drafts").join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(&path).context("create", &path)?;
        Ok(Draft { path })
    }

    /// The record of a recipe, if it ever ran to its end. An unreadable record is none at all: the
    /// stage then runs again.
    pub(crate) fn record(&self, recipe: Digest) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.record_path(recipe)).ok()?).ok()?;
        (Digest::of(&record.recipe) == recipe).then_some(record)
    }

    /// The record of a recipe whose objects are all there, at their size.
    pub(crate) fn restorable(&self, recipe: Digest) -> Option<Record> {
        let record = self.record(recipe)?;
        let there = |output: &Output| {
            fs::metadata(self.object(output.digest)).is_ok_and(|meta| meta.len() == output.size)
        };
        record.outputs.iter().all(there).then_some(record)
    }

    /// Takes the draft's files into the cache.
    pub(crate) fn keep(&self, draft: &Draft, outputs: &[Output]) -> Result<(), EngineError> {
        for output in outputs {
            let place = self.object(output.digest);
            // Same digest, same size: there already. Another size means damage, and is replaced.
            if fs::metadata(&place).is_ok_and(|meta| meta.len() == output.size) {
                continue;
            }
            let folder = place.parent().unwrap_or(&self.cache);
            fs::create_dir_all(folder).context("create", folder)?;
            let temporary = self.begin()?;
            let copy = temporary.path.join("object");
            fs::copy(draft.path.join(&output.path), &copy).context("write", &copy)?;
            let file = fs::File::open(&copy).context("open", &copy)?;
            file.sync_data().context("sync", &copy)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o444)).context("protect", &copy)?;
            fs::rename(&copy, &place).context("create", &place)?;
        }
        Ok(())
    }

    /// Writes a record: the moment from which a result exists.
    pub(crate) fn write_record(&self, recipe: Digest, record: &Record) -> Result<(), EngineError> {
        let place = self.record_path(recipe);
        let text =
            serde_json::to_vec_pretty(record).map_err(std::io::Error::other).context("encode", &place)?;
        // Not synced: a record lost or cut by a power failure only means running again.
        write_whole(&place, &text)
    }

    /// A draft with a recorded result's files, each checked against its digest.
    pub(crate) fn restore(&self, record: &Record) -> Result<Draft, EngineError> {
        let draft = self.begin()?;
        // Its last use, for the collection of garbage; best effort.
        let used = fs::File::open(self.record_path(Digest::of(&record.recipe)));
        let _ = used.and_then(|file| file.set_modified(SystemTime::now()));
        for output in &record.outputs {
            let (object, copy) = (self.object(output.digest), draft.path.join(&output.path));
            if let Some(folder) = copy.parent() {
                fs::create_dir_all(folder).context("create", folder)?;
            }
            fs::copy(&object, &copy).context("copy", &object)?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).context("write", &copy)?;
            self.check(&object, &copy, output.digest)?;
        }
        Ok(draft)
    }

    fn check(&self, object: &Path, read: &Path, expected: Digest) -> Result<(), EngineError> {
        let found = Digest::of_file(read).context("read", read)?;
        if found == expected {
            return Ok(());
        }
        let message = format!("its content has the digest {found}, not the one in its name");
        Err(EngineError::Damaged { path: object.to_owned(), message })
    }

    /// Moves a complete draft to where people look for it; what lay there before goes.
    pub(crate) fn show(
        &self,
        draft: Draft,
        key: &str,
        outputs: &[Output],
    ) -> Result<Vec<Shown>, EngineError> {
        let place = self.shown(key);
        let folder = place.parent().unwrap_or(&self.artifacts);
        fs::create_dir_all(folder).context("create", folder)?;
        let aside = self.begin()?;
        if fs::symlink_metadata(&place).is_ok() {
            fs::rename(&place, aside.path.join("old")).context("move aside", &place)?;
        }
        fs::rename(&draft.path, &place).context("create", &place)?;
        let shown = |output: &Output| {
            let path = place.join(&output.path);
            let stamp = Stamp::of(&path).context("read", &path)?;
            Ok(Shown { path: output.path.clone(), digest: output.digest, stamp })
        };
        outputs.iter().map(shown).collect()
    }
}

/// Writes a file so that it is there whole or not at all.
pub(crate) fn write_whole(place: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let folder = place.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).context("create", folder)?;
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .context("write in", folder)?;
    file.write_all(bytes).context("write", place)?;
    file.persist(place).map_err(|e| e.error).context("write", place)?;
    Ok(())
}
