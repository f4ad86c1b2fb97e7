//! A folder through which clones of a project, on one machine or on several, give each other results and what
//! unfinished stages can go on from. Results lie in it as in the cache of a project, so that this of another clone is
//! such a folder too. Files come to their place by one rename; later only the list of an unfinished stage is replaced, or
//! deleted once there is a result. So any program that copies folders can bring it elsewhere, and several clones can use it at once. Here is what is
//! in it and how it is taken; `push.rs` gives. Knows no network.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    digest::{Digest, Stamp},
    error::{Context, EngineError},
    held::is_held,
    place::clear,
    record::{Record, are_sound},
    restore::check,
    state::Entry,
    store::{Folder, Output, Store, is_temporary, lock_of},
};

/// What somebody else began to copy longer ago than this is not being copied any more; and clocks do not differ by more.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// No record, and no list of what a stage can go on from, is larger: each names a file in about 150 bytes.
const LARGEST: u64 = 64 << 20;

/// By one of these folders it is known: a program that copied it may have left out the other, if that was empty.
const PARTS: [&str; 2] = ["records", "unfinished"];

/// Such a folder.
#[derive(Debug)]
pub struct Share(pub(crate) Store);

/// The scratch folder of an unfinished stage: a list of objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) recipe: Digest,
    /// Sorted by path.
    pub(crate) outputs: Vec<Output>,
    /// When its files and folders were written, in nanoseconds since 1970: a stage may go by that. Paths of folders end
    /// with `/`; that of the scratch folder itself is empty.
    pub(crate) written: BTreeMap<String, i64>,
}

impl Attempt {
    /// What lies in the scratch folder that `entry` describes.
    pub(crate) fn of(entry: &Entry) -> Self {
        let files = entry.files.iter().map(|file| (&file.path, file.stamp));
        let folders = entry.folders.iter().map(|Folder(path, stamp)| (path, *stamp));
        let written = files.chain(folders).map(|(path, stamp)| (path.clone(), stamp.mtime_ns)).collect();
        Self { recipe: entry.recipe, outputs: entry.outputs(), written }
    }

    /// When it was last written to.
    pub(crate) fn last_written(&self) -> i64 {
        self.written.values().copied().max().unwrap_or(0)
    }
}

/// What was done about what a stage can go on from.
pub(crate) enum Brought {
    /// There is nothing, or what is here was not written earlier.
    Nothing,
    /// It is here now.
    Attempt,
    /// What is there was written later than what is here, in this folder.
    Later(PathBuf),
}

impl Share {
    /// The folder that somebody pushed to, or another clone of the project.
    ///
    /// # Errors
    /// When nothing can be there, or it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, EngineError> {
        refuse_remote(folder)?;
        let cache = folder.join(".repro");
        let place = if cache.is_dir() { cache } else { folder.to_owned() };
        let place = place.canonicalize().context("open", folder)?;
        for part in PARTS.map(|part| place.join(part)) {
            match fs::read_dir(&part) {
                Ok(_) => return Ok(Self(Store::at(place, PathBuf::new()))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).context("read", &part),
            }
        }
        let named = folder.display();
        Err(if is_project(folder) {
            EngineError::user(format!("the project in `{named}` has no results"), "run it there first")
        } else {
            EngineError::user(
                format!("nobody has pushed results to `{named}`"),
                format!("`repro push {named}` does, where there are results"),
            )
        })
    }

    /// The folder to push to, made where it is missing.
    ///
    /// # Errors
    /// When it cannot be made; when there is something else in it; when it is in the cache or among the results of a
    /// project, where runs take away what they do not know.
    pub fn create(folder: &Path) -> Result<Self, EngineError> {
        refuse_remote(folder)?;
        let refused = |what: &str| {
            EngineError::user(
                format!("`{}` {what}", folder.display()),
                "push to a folder of its own; or run `repro pull` there, with the path of this project",
            )
        };
        if is_project(folder) {
            return Err(refused("is a project and keeps its own results"));
        }
        let whole = std::path::absolute(folder).context("find", folder)?;
        let there = whole.ancestors().find(|path| path.exists()).unwrap_or(&whole);
        let there = there.canonicalize().context("open", there)?;
        let of_project = |path: &Path| {
            path.ends_with(".repro") || path.ends_with("artifacts") && path.parent().is_some_and(is_project)
        };
        if there.ancestors().any(of_project) {
            return Err(refused("is in the cache or among the results of a project"));
        }
        let parts = PARTS.map(|part| folder.join(part));
        let empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
        if folder.exists() && !empty() && !parts.iter().any(|part| part.is_dir()) {
            return Err(refused("holds something else"));
        }
        for part in parts {
            fs::create_dir_all(&part).context("create", &part)?;
        }
        let share = Self(Store::at(folder.canonicalize().context("open", folder)?, PathBuf::new()));
        share.sweep();
        Ok(share)
    }

    /// The record of a recipe, if it is one that can be used.
    pub(crate) fn record(&self, recipe: Digest) -> Option<Record> {
        is_list(&self.0.record_path(recipe)).then(|| self.0.record(recipe))?
    }

    /// What a stage with that recipe can go on from, if it is whole.
    pub(crate) fn attempt(&self, recipe: Digest) -> Option<Attempt> {
        let place = self.attempt_place(recipe);
        let text = is_list(&place).then(|| fs::read(&place))?.ok()?;
        let attempt: Attempt = serde_json::from_slice(&text).ok()?;
        // Of a clock that is wrong nothing would ever be later.
        let soon =
            SystemTime::now().checked_add(LONG)?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos();
        let whole = attempt.recipe == recipe
            && i128::from(attempt.last_written()) < soon.cast_signed()
            && are_sound(&attempt.outputs)
            && self.0.missing(&attempt.outputs).next().is_none();
        whole.then_some(attempt)
    }

    pub(crate) fn attempt_place(&self, recipe: Digest) -> PathBuf {
        self.0.cache().join(PARTS[1]).join(format!("{recipe}.json"))
    }

    /// Deletes what programs that were killed left in the making, and nothing that they did not make; best effort.
    fn sweep(&self) {
        let drafts = self.0.cache().join("drafts");
        let linked = fs::symlink_metadata(&drafts).is_ok_and(|meta| meta.is_symlink());
        let entries = fs::read_dir(&drafts).ok().filter(|_| !linked);
        for draft in entries.into_iter().flatten().flatten() {
            let modified = draft.metadata().and_then(|meta| meta.modified());
            let old = modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > LONG));
            if old && draft.file_name().to_str().is_some_and(is_temporary) {
                let _ = fs::remove_file(draft.path());
            }
        }
    }
}

impl Store {
    /// The files among these that the cache does not hold.
    pub(crate) fn missing<'a>(&'a self, outputs: &'a [Output]) -> impl Iterator<Item = &'a Output> {
        let files = outputs.iter().filter(|output| !output.is_folder());
        files.filter(|output| !self.holds(output.digest, output.size))
    }

    /// Takes into the cache what of these files lies beside it only.
    pub(crate) fn bring(&self, outputs: &[Output]) -> Result<(), EngineError> {
        let Some(Share(beside)) = self.beside.as_deref() else { return Ok(()) };
        for Output { digest, .. } in self.missing(outputs) {
            let object = beside.object(*digest);
            self.refill(*digest, &object).map_err(|error| match check(&object, &object, *digest) {
                Ok(()) => error, // it is this side that refused
                Err(EngineError::Damaged { path, message }) => {
                    EngineError::Beside { path, message, damaged: true }
                }
                Err(error) => {
                    let message = error.to_string();
                    EngineError::Beside { path: object, message, damaged: false }
                }
            })?;
        }
        Ok(())
    }

    /// Takes what an unfinished stage can go on from, unless something is here that it would go on from: `counts` says
    /// whether it would.
    pub(crate) fn bring_attempt(
        &self,
        recipe: Digest,
        counts: impl FnOnce() -> bool,
    ) -> Result<Brought, EngineError> {
        let Some(attempt) = self.beside.as_ref().and_then(|share| share.attempt(recipe)) else {
            return Ok(Brought::Nothing);
        };
        let here = self.scratch(recipe);
        let lock = lock_of(&here);
        if is_held(&lock) {
            return Ok(Brought::Nothing);
        }
        if !is_empty(&here) && counts() {
            let earlier = last_written(&here) < attempt.last_written();
            return Ok(if earlier { Brought::Later(here) } else { Brought::Nothing });
        }
        let (draft, entry) = self.draw(recipe, &attempt.outputs)?;
        let files = entry.files.iter().map(|file| &file.path);
        // Folders after what is in them.
        let folders = entry.folders.iter().map(|Folder(path, _)| path).rev();
        for path in files.chain(folders) {
            let Some(written) = attempt.written.get(path).and_then(|&then| u64::try_from(then).ok()) else {
                continue;
            };
            let (path, then) =
                (draft.path().join(path), SystemTime::UNIX_EPOCH + Duration::from_nanos(written));
            fs::File::open(&path).and_then(|file| file.set_modified(then)).context("write", &path)?;
        }
        // What was tried here before was built on what lay here then.
        self.vacate(&here).context("empty", &here)?;
        draft.bring(&here)?;
        clear(&lock).context("delete", &lock)?;
        Ok(Brought::Attempt)
    }
}

/// Is there nothing in the folder?
pub(crate) fn is_empty(folder: &Path) -> bool {
    !fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// When something in a folder, or it, was last written to, in nanoseconds since 1970.
fn last_written(folder: &Path) -> i64 {
    let entries = walkdir::WalkDir::new(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(Stamp::of(&entry.metadata().ok()?).mtime_ns)).max().unwrap_or(0)
}

/// Whoever reads a pipe waits for somebody who writes to it, and what is too large takes all the memory.
fn is_list(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST)
}

/// Refuses what is no path but the address of a place that other programs reach, such as `s3://bucket` or `host:folder`.
fn refuse_remote(folder: &Path) -> Result<(), EngineError> {
    let text = folder.to_string_lossy();
    let host = text.split_once(':').map_or("", |(host, _)| host);
    if host.is_empty() || host.contains('/') || folder.exists() {
        return Ok(());
    }
    Err(EngineError::user(
        format!("`{text}` is the address of another place, and only folders are understood"),
        format!(
            "push to a folder and copy that with `rsync`, `rclone` or `aws s3 sync`; a folder of that name is `./{text}`"
        ),
    ))
}

/// Is it the folder of a project?
fn is_project(folder: &Path) -> bool {
    [".repro", "pipeline.toml"].iter().any(|name| folder.join(name).exists())
}
