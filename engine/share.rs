//! A folder through which clones of a project, on one machine or on several, give each other results and what
//! unfinished stages can go on from. It is laid out like the cache of a project, so that this of another clone is one too.
//! Nothing in it is ever changed but what is unfinished: any program that copies folders can bring it elsewhere, and two
//! may give to it at once. Knows no network.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    commit::sync,
    digest::Digest,
    error::{Context, EngineError},
    instance::{InstanceId, Pipeline},
    place::{clear, with_parent},
    plan::Standing,
    process::is_held,
    project::{Judged, Project},
    record::Record,
    state::State,
    store::{Draft, Output, Store, check, lock_of},
};

/// What somebody else began to copy longer ago than this is not being copied any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Such a folder.
#[derive(Debug)]
pub struct Share(pub(crate) Store);

/// What [`Project::push`] did, by instance in the pipeline's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Their results were copied.
    pub results: Vec<InstanceId>,
    /// Theirs were there already.
    pub there: Vec<InstanceId>,
    /// They have no result, and what they can go on from was copied.
    pub unfinished: Vec<InstanceId>,
    /// They run just now.
    pub running: Vec<InstanceId>,
    /// They have nothing that somebody else could use.
    pub left: Vec<InstanceId>,
    /// The size of what was copied.
    pub bytes: u64,
}

impl Share {
    /// The folder that somebody pushed to, or another clone of the project.
    ///
    /// # Errors
    /// When nothing can be there, or it cannot be entered.
    pub fn open(folder: &Path) -> Result<Self, EngineError> {
        let cache = folder.join(".repro");
        let place = if cache.is_dir() { cache } else { folder.to_owned() };
        let place = place.canonicalize().context("open", folder)?;
        if !place.join("records").is_dir() {
            return Err(EngineError::User {
                message: format!("nobody has pushed results to `{}`", folder.display()),
                hint: format!("`repro push {}` does, where there are results", folder.display()),
            });
        }
        Ok(Self::at(place))
    }

    /// The folder to push to, made where it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or is a project: its runs take away what they do not know.
    pub fn create(folder: &Path) -> Result<Self, EngineError> {
        if folder.join(".repro").is_dir() || folder.ends_with(".repro") {
            return Err(EngineError::User {
                message: format!("`{}` is a project and keeps its own results", folder.display()),
                hint: "push to a folder of its own; or run `repro pull` there, with the path of this project"
                    .into(),
            });
        }
        let records = folder.join("records");
        fs::create_dir_all(&records).context("create", &records)?;
        let share = Self::at(folder.canonicalize().context("open", folder)?);
        share.sweep();
        Ok(share)
    }

    fn at(place: PathBuf) -> Self {
        let artifacts = place.join("artifacts"); // nobody shows anything there
        Self(Store::at(place, artifacts))
    }

    /// The record of a recipe, if it is one that can be used.
    pub(crate) fn record(&self, recipe: Digest) -> Option<Record> {
        self.0.record(recipe).filter(Record::is_sound)
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
    /// Takes into the cache what of a result lies beside it only.
    pub(crate) fn bring(&self, record: &Record) -> Result<(), EngineError> {
        let Some(Share(beside)) = self.beside.as_deref() else { return Ok(()) };
        for Output { digest, .. } in missing(self, record) {
            let object = beside.object(*digest);
            // It is known to be damaged if it was read; what else went wrong says itself.
            self.refill(*digest, &object)
                .map_err(|error| check(&object, &object, *digest).err().unwrap_or(error))?;
        }
        let recipe = Digest::of(&record.recipe);
        if self.record(recipe).as_ref() == Some(record) { Ok(()) } else { self.write_record(recipe, record) }
    }

    /// Takes what an unfinished stage can go on from, unless something of it is here, or somebody works on it; did it?
    pub(crate) fn bring_attempt(&self, recipe: Digest) -> Result<bool, EngineError> {
        let Some(Share(beside)) = self.beside.as_deref() else { return Ok(false) };
        let (here, there) = (self.scratch(recipe), beside.scratch(recipe));
        let in_use = || [&here, &there].into_iter().any(|scratch| is_held(&lock_of(scratch)));
        if is_attempt(&here) || !is_attempt(&there) || in_use() {
            return Ok(false);
        }
        copy_attempt(&there, self, &here)?;
        Ok(true)
    }
}

impl Project {
    /// Copies into `share` the results of instances that are up to date, as far as they are not there, and of those that
    /// are not up to date what they can go on from. Reads the project only.
    ///
    /// # Errors
    /// When the index cannot be read, or a file system refuses. What was copied until then is whole.
    pub fn push(
        &self,
        pipeline: &Pipeline,
        wanted: &[InstanceId],
        share: &Share,
    ) -> Result<Pushed, EngineError> {
        let Share(to) = share;
        let (mut state, _) = State::load(self.store.cache())?;
        let seen = self.look_all(pipeline, None, &mut state);
        let judged = self.judge_all(pipeline, &seen, &BTreeMap::new(), &mut state);
        let (mut pushed, mut records, mut attempts) = (Pushed::default(), Vec::new(), Vec::new());
        for &id in wanted {
            let Judged { standing, recipe, .. } = &judged[id];
            let Some(recipe) = recipe.as_ref().map(|recipe| recipe.digest()) else {
                pushed.left.push(id);
                continue;
            };
            let made = matches!(standing, Standing::Fresh | Standing::Restorable(_));
            let Some(record) = self.store.record(recipe).filter(|_| made) else {
                attempts.push((id, recipe));
                continue;
            };
            let there = share.record(recipe);
            if there.is_some_and(|there| missing(to, &there).next().is_none()) {
                pushed.there.push(id);
                continue;
            }
            for output in missing(to, &record) {
                let object = self.store.object(output.digest);
                // What the cache lost may still be shown.
                let shown = self.store.shown(&seen[id].key).join(&output.path);
                let copied = to.refill(output.digest, &object);
                copied.or_else(|error| to.refill(output.digest, &shown).map_err(|_| error))?;
                pushed.bytes += output.size;
            }
            pushed.results.push(id);
            records.push((recipe, record));
        }
        // A record promises that its objects are there.
        let lasting = || sync(to).context("sync", to.cache());
        lasting()?;
        for (recipe, record) in &records {
            to.write_record(*recipe, record)?;
            to.forget_attempts(*recipe);
        }
        for (id, recipe) in attempts {
            let from = self.store.scratch(recipe);
            let list = if is_held(&lock_of(&from)) {
                &mut pushed.running
            } else if is_attempt(&from) {
                pushed.bytes += copy_attempt(&from, to, &to.scratch(recipe))?;
                &mut pushed.unfinished
            } else {
                &mut pushed.left
            };
            list.push(id);
        }
        pushed.left.sort_unstable();
        lasting()?;
        Ok(pushed)
    }
}

/// The files of a result that a cache does not hold.
fn missing<'a>(store: &'a Store, record: &'a Record) -> impl Iterator<Item = &'a Output> {
    let files = record.outputs.iter().filter(|output| !output.is_folder());
    files.filter(|output| !store.holds(output.digest, output.size))
}

/// Is there something in the scratch folder?
fn is_attempt(scratch: &Path) -> bool {
    fs::read_dir(scratch).is_ok_and(|mut entries| entries.next().is_some())
}

/// Copies a scratch folder to `place` in the cache `to`, where it is whole or not at all. Says how large it is.
fn copy_attempt(from: &Path, to: &Store, place: &Path) -> Result<u64, EngineError> {
    let draft: Draft = to.begin()?;
    let mut bytes = 0;
    for entry in walkdir::WalkDir::new(from).min_depth(1) {
        let entry = entry.map_err(io::Error::from).context("read", from)?;
        let Ok(below) = entry.path().strip_prefix(from) else { continue };
        let copy = draft.path().join(below);
        if entry.file_type().is_dir() {
            fs::create_dir(&copy).context("create", &copy)?;
        } else if entry.file_type().is_file() {
            bytes += fs::copy(entry.path(), &copy).context("copy", entry.path())?;
        } else {
            return Err(EngineError::User {
                message: format!(
                    "`{}` is no plain file and cannot be copied elsewhere",
                    entry.path().display()
                ),
                hint: "let the stage keep plain files in its scratch folder, or name other instances".into(),
            });
        }
    }
    clear(place).context("empty", place)?;
    with_parent(place, || fs::rename(draft.path(), place)).context("create", place)?;
    Ok(bytes)
}
