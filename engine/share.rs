//! A folder through which clones of a project, on one machine or on several, give each other results and what
//! unfinished stages can go on from. Results lie in it as in the cache of a project, so that this of another clone is
//! such a folder too. Files come to their place by one rename and are never changed, but for one list for each unfinished
//! stage: any program that copies folders can bring it elsewhere, and several clones can use it at once. Here is what is
//! in it and how it is taken; `push.rs` gives. Knows no network.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    error::{Context, EngineError},
    place::{clear, with_parent},
    process::is_held,
    record::{Record, are_sound},
    store::{Output, Store, check, lock_of},
};

/// What somebody else began to copy longer ago than this is not being copied any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Such a folder.
#[derive(Debug)]
pub struct Share(pub(crate) Store);

/// The scratch folder of an unfinished stage: a list of objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) recipe: Digest,
    /// When its youngest file was written, in nanoseconds since 1970.
    pub(crate) saved: u64,
    /// Sorted by path.
    pub(crate) outputs: Vec<Output>,
}

/// What was done about what a stage can go on from.
pub(crate) enum Brought {
    /// There is nothing, or what is here is not older.
    Nothing,
    /// It is here now.
    Attempt,
    /// What is there is younger than what is here, in this folder.
    Newer(PathBuf),
}

impl Share {
    /// The folder that somebody pushed to, or another clone of the project.
    ///
    /// # Errors
    /// When nothing can be there, or it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, EngineError> {
        let cache = folder.join(".repro");
        let place = if cache.is_dir() { cache } else { folder.to_owned() };
        let place = place.canonicalize().context("open", folder)?;
        let records = place.join("records");
        match fs::read_dir(&records) {
            Ok(_) => Ok(Self(Store::at(place, PathBuf::new()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let named = folder.display();
                Err(if is_project(folder) {
                    EngineError::User {
                        message: format!("the project in `{named}` has no results"),
                        hint: "run it there first".into(),
                    }
                } else {
                    EngineError::User {
                        message: format!("nobody has pushed results to `{named}`"),
                        hint: format!("`repro push {named}` does, where there are results"),
                    }
                })
            }
            Err(error) => Err(error).context("read", &records),
        }
    }

    /// The folder to push to, made where it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or is a project or in the cache of one: runs there take away what they do not know.
    pub fn create(folder: &Path) -> Result<Self, EngineError> {
        let refused = |what: &str| EngineError::User {
            message: format!("`{}` {what}", folder.display()),
            hint: "push to a folder of its own; or run `repro pull` there, with the path of this project"
                .into(),
        };
        if is_project(folder) {
            return Err(refused("is a project and keeps its own results"));
        }
        fs::create_dir_all(folder).context("create", folder)?;
        let place = folder.canonicalize().context("open", folder)?;
        if place.iter().any(|name| name == ".repro") {
            return Err(refused("is in the cache of a project"));
        }
        for below in ["objects", "records"].map(|name| place.join(name)) {
            fs::create_dir_all(&below).context("create", &below)?;
        }
        let share = Self(Store::at(place, PathBuf::new()));
        share.sweep();
        Ok(share)
    }

    /// The record of a recipe, if it is one that can be used.
    pub(crate) fn record(&self, recipe: Digest) -> Option<Record> {
        is_file(&self.0.record_path(recipe)).then(|| self.0.record(recipe))?.filter(Record::is_sound)
    }

    /// What a stage with that recipe can go on from, if it is whole.
    pub(crate) fn attempt(&self, recipe: Digest) -> Option<Attempt> {
        let place = self.attempt_place(recipe);
        let text = is_file(&place).then(|| fs::read(&place))?.ok()?;
        let attempt: Attempt = serde_json::from_slice(&text).ok()?;
        let whole = attempt.recipe == recipe
            && are_sound(&attempt.outputs)
            && self.0.missing(&attempt.outputs).next().is_none();
        whole.then_some(attempt)
    }

    pub(crate) fn attempt_place(&self, recipe: Digest) -> PathBuf {
        self.0.cache().join("unfinished").join(format!("{recipe}.json"))
    }

    /// Deletes what programs that were killed left in the making; best effort.
    fn sweep(&self) {
        let drafts = fs::read_dir(self.0.cache().join("drafts")).into_iter().flatten().flatten();
        for draft in drafts {
            let modified = draft.metadata().and_then(|meta| meta.modified());
            if modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > ABANDONED)) {
                let _ = clear(&draft.path());
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

    /// Takes what an unfinished stage can go on from, unless something of it is here.
    pub(crate) fn bring_attempt(&self, recipe: Digest) -> Result<Brought, EngineError> {
        let here = self.scratch(recipe);
        let lock = lock_of(&here);
        let Some(attempt) = self.beside.as_ref().and_then(|share| share.attempt(recipe)) else {
            return Ok(Brought::Nothing);
        };
        if let Some(youngest) = youngest(&here) {
            return Ok(if youngest < attempt.saved { Brought::Newer(here) } else { Brought::Nothing });
        }
        if is_held(&lock) {
            return Ok(Brought::Nothing);
        }
        let (draft, content) = self.draw(&attempt.outputs)?;
        // Otherwise it would look younger here than where it comes from.
        let saved = SystemTime::UNIX_EPOCH + Duration::from_nanos(attempt.saved);
        for file in &content.files {
            let path = draft.path().join(&file.path);
            fs::File::open(&path).and_then(|file| file.set_modified(saved)).context("write", &path)?;
        }
        // What was tried here before was built on what lay here then.
        clear(&lock).and_then(|()| clear(&here)).context("empty", &here)?;
        with_parent(&here, || fs::rename(draft.path(), &here)).context("create", &here)?;
        Ok(Brought::Attempt)
    }
}

/// Whoever reads a pipe waits for somebody who writes to it.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}

/// Is it the folder of a project?
fn is_project(folder: &Path) -> bool {
    [".repro", "pipeline.toml"].iter().any(|name| folder.join(name).exists())
}

/// When the youngest file of a scratch folder was written, in nanoseconds since 1970; none where there is none.
pub(crate) fn youngest(scratch: &Path) -> Option<u64> {
    let files =
        walkdir::WalkDir::new(scratch).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let written = files.filter_map(|file| file.metadata().ok()?.modified().ok());
    written
        .filter_map(|then| then.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos().try_into().ok())
        .max()
}
