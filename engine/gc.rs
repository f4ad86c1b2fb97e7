//! What `.repro/` holds that nothing needs any more. Knows files and their ages, not stages.
//!
//! A record is kept when
//!
//! 1. its result is the one that `artifacts/` shows, in any pipeline file and profile, or
//! 2. a lock file in the project names its recipe, or one of [`GcOptions::locks`], or
//! 3. its result was made, restored or replaced by another within the last [`GcOptions::keep`].
//!
//! An object is kept when a kept record names it, or a result that is shown, or a lock file. Scratch folders of
//! interrupted stages (each as a whole, with its lock), notes on failures, logs of stages without a result, tables of
//! folders that no stage reads, and what runs with nothing to do are known by are kept as long as rule 3 says. What had to
//! make way for results, because people had made it, is theirs to delete.
//! Everything else in those folders goes. Losing a record never loses a result that is shown: it only means
//! that going back to that configuration runs again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    digest::Digest,
    error::{Context, EngineError},
    held::is_held,
    instance::Pipeline,
    lock::Lock,
    lockfile,
    place::clear,
    project::{Project, key},
    state::{Entry, State},
    store::{Store, digest_in},
};

/// How to collect garbage.
#[derive(Clone, Debug)]
pub struct GcOptions {
    /// How long what nothing shows or locks is kept after its last use.
    pub keep: Duration,
    /// Delete; otherwise only say what would be deleted.
    pub delete: bool,
    /// Texts of lock files that are not in the project's folders, such as those of other branches. One that is of
    /// something else or broken names nothing.
    pub locks: Vec<String>,
}

/// What is not needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// The files, and scratch folders as a whole, in the order in which they are deleted: records before
    /// their objects.
    pub files: Vec<PathBuf>,
    /// Their size together.
    pub bytes: u64,
    /// The size of what stays.
    pub kept: u64,
}

/// A file or folder below `.repro/`.
struct Found {
    path: PathBuf,
    folder: bool,
    /// Of a folder none.
    bytes: u64,
    young: bool,
}

impl Project {
    /// Lists, and with [`GcOptions::delete`] deletes, what nothing needs; see the module's rules.
    ///
    /// # Errors
    /// When the index is missing or damaged, because it says what is in use; when a run is under way
    /// and something is to be deleted; when the file system refuses.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport, EngineError> {
        let cache = self.store.cache();
        if !cache.is_dir() {
            return Ok(GcReport::default());
        }
        let _lock = if options.delete { Some(Lock::take(cache)?) } else { None };
        self.only_here()?;
        let state = State::load(cache)?;
        let records = files(&cache.join("records"), options.keep)?;
        if state.damaged() || (state.results.is_empty() && !records.is_empty()) {
            // What a run with nothing to do goes by, without reading the index.
            let _ = clear(&cache.join("idle"));
            return Err(EngineError::user(
                format!(
                    "the index `{}` is missing or damaged, so nobody knows what is in use",
                    cache.join("state").display()
                ),
                "`repro run` first, with each file, profile and `-S` whose results are to be kept: it writes the \
                 index anew and runs nothing twice",
            ));
        }
        let (used, mut objects) = self.used(&state, &options.locks)?;
        let mut report = GcReport::default();
        let mut sort = |file: Found, needed: bool| {
            if needed {
                report.kept += file.bytes;
            } else {
                report.bytes += file.bytes;
                report.files.push(file.path);
            }
        };
        for file in records {
            let recipe = digest_in(&file.path, ".json");
            let record = recipe.and_then(|recipe| self.store.record(recipe));
            let needed = record.is_some() && (file.young || recipe.is_some_and(|r| used.contains(&r)));
            if let (true, Some(record)) = (needed, record) {
                objects.extend(record.outputs.iter().map(|output| output.digest));
            }
            sort(file, needed);
        }
        for file in files(&cache.join("objects"), options.keep)? {
            let needed = digest_in(&file.path, "").is_some_and(|digest| objects.contains(&digest));
            sort(file, needed);
        }
        for file in wholes(&cache.join("replaced"), options.keep)? {
            sort(file, true);
        }
        for (name, found) in
            [("scratch", attempts as fn(&Path, Duration) -> _), ("failed", files), ("idle", files)]
        {
            for file in found(&cache.join(name), options.keep)? {
                let young = file.young;
                sort(file, young);
            }
        }
        // Nobody will ask again for what is no longer there.
        let there = state.memo.all().filter(|(path, _)| self.root.join(path).exists());
        let tables: BTreeSet<_> = there.map(|(path, _)| state.memo.table(path)).collect();
        for file in files(&cache.join("folders"), options.keep)? {
            let needed = file.young || tables.contains(&file.path);
            sort(file, needed);
        }
        let logs = cache.join("logs");
        for file in files(&logs, options.keep)? {
            let below = file.path.strip_prefix(&logs).ok().and_then(Path::to_str);
            let key = below.and_then(|below| below.strip_suffix(".log"));
            let needed = file.young || key.is_some_and(|key| state.results.contains_key(key));
            sort(file, needed);
        }
        if options.delete {
            delete(&self.store, &report.files)?;
        }
        Ok(report)
    }

    /// The folders of results that this pipeline's file and profile once had, and that none of its instances has now: a
    /// stage was renamed, say, or `-S` swept it. They count as shown for as long as they are there. Of one in whose folder
    /// others lie, its files.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn without_instance(&self, pipeline: &Pipeline) -> Result<Vec<PathBuf>, EngineError> {
        let now: BTreeSet<_> = (0..pipeline.instances.len()).map(|id| key(pipeline, id)).collect();
        let state = State::load(self.store.cache())?;
        let gone = state.results.iter().filter(|(key, _)| is_of(pipeline, key) && !now.contains(*key));
        let mut all = Vec::new();
        for (key, entry) in gone {
            let place = self.store.shown(key);
            let within = format!("{key}/");
            if now.range(within.clone()..).next().is_some_and(|next| next.starts_with(&within)) {
                // Today's results lie in its folder: the stage has axes now.
                all.extend(
                    entry.files.iter().map(|file| place.join(&file.path)).filter(|file| file.exists()),
                );
            } else if is_there(&place, entry) {
                all.push(place);
            }
        }
        Ok(all)
    }

    /// The recipes whose results are shown or locked, and these results' objects: a record may have been lost,
    /// or hold what the same recipe came to another time.
    fn used(
        &self,
        state: &State,
        locks: &[String],
    ) -> Result<(BTreeSet<Digest>, BTreeSet<Digest>), EngineError> {
        let (mut recipes, mut objects) = (BTreeSet::new(), BTreeSet::new());
        for (_, entry) in state.results.iter().filter(|(key, entry)| is_there(&self.store.shown(key), entry))
        {
            recipes.insert(entry.recipe);
            objects.extend(entry.files.iter().map(|file| file.digest));
        }
        // The index knows those of the pipelines that ran here since it was made, which may not be long ago.
        // A project may have moved since, and what is in its old place is none of its own.
        let own = |place: &&PathBuf| {
            let there = || place.parent()?.canonicalize().ok();
            place.starts_with(&self.root) || there().is_some_and(|folder| folder.starts_with(&self.root))
        };
        let indexed = state.locks.keys().filter(own).cloned();
        let known: BTreeSet<_> = indexed.chain(lockfile::all(&self.root)).collect();
        let known = known.into_iter().map(|place| lockfile::read(&place)).collect::<Result<Vec<_>, _>>()?;
        let others = locks.iter().filter_map(|text| lockfile::parse(text, "").ok());
        let locks: Vec<_> = known.into_iter().chain(others).collect();
        for locked in locks.iter().flat_map(BTreeMap::values).flat_map(BTreeMap::values) {
            recipes.insert(locked.recipe);
            objects.extend(locked.outputs.iter().map(|output| output.digest));
        }
        Ok((recipes, objects))
    }
}

/// Is anything of it in its place? A folder there may also be that of results further in, as of a stage that has axes now.
fn is_there(place: &Path, entry: &Entry) -> bool {
    let files = entry.files.iter().map(|file| &file.path);
    let all = files.chain(entry.folders.iter().map(|folder| &folder.0));
    all.filter(|path| !path.is_empty()).any(|path| place.join(path).exists())
}

/// Is it the key of a result of this pipeline's file and profile? Those of others may lie below its own folder, but not
/// under what begins like an axis.
fn is_of(pipeline: &Pipeline, key: &str) -> bool {
    let Ok(below) = Path::new(key).strip_prefix(&pipeline.namespace) else { return false };
    let mut parts = below.iter().skip(1).map(OsStr::to_string_lossy);
    // Of a long name only the beginning is left, and what tells it from others.
    let axis =
        |part: &str| part.split(',').next().is_some_and(|first| first.contains('=')) || part.contains('~');
    parts.next().is_none_or(|part| axis(&part)) && parts.next().is_none() && !below.as_os_str().is_empty()
}

/// The files below `folder`, sorted.
fn files(folder: &Path, keep: Duration) -> Result<Vec<Found>, EngineError> {
    Ok(below(folder, keep)?.into_iter().filter(|found| !found.folder).collect())
}

/// Scratch folders and their locks: a folder without its lock, or the other way round, would say nothing of what it was
/// built on. Neither is old while a stage holds the lock.
fn attempts(folder: &Path, keep: Duration) -> Result<Vec<Found>, EngineError> {
    let mut found = wholes(folder, keep)?;
    let scratch = |found: &Found| found.path.with_extension("");
    let in_use = found.iter().filter(|found| found.young || !found.folder && is_held(&found.path));
    let in_use: BTreeSet<_> = in_use.map(scratch).collect();
    found.iter_mut().for_each(|found| found.young = in_use.contains(&scratch(found)));
    Ok(found)
}

/// What lies in `folder`, each with all that is below it; young is each in which anything is.
fn wholes(folder: &Path, keep: Duration) -> Result<Vec<Found>, EngineError> {
    let mut wholes: Vec<Found> = Vec::new();
    for found in below(folder, keep)? {
        match wholes.last_mut() {
            Some(whole) if found.path.parent() != Some(folder) => {
                whole.bytes += found.bytes;
                whole.young |= found.young;
            }
            _ => wholes.push(found),
        }
    }
    Ok(wholes)
}

/// All that is below `folder`, sorted, each folder before what is in it. What a run removes meanwhile is left out.
fn below(folder: &Path, keep: Duration) -> Result<Vec<Found>, EngineError> {
    let oldest = SystemTime::now().checked_sub(keep).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(folder).min_depth(1).sort_by_file_name() {
        let read = entry.and_then(|entry| Ok((entry.metadata()?, entry))).map_err(std::io::Error::from);
        let (meta, entry) = match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            read => read.context("read", folder)?,
        };
        let young = meta.modified().is_ok_and(|modified| modified > oldest);
        let (folder, bytes) = if meta.is_dir() { (true, 0) } else { (false, meta.len()) };
        found.push(Found { path: entry.into_path(), folder, bytes, young });
    }
    Ok(found)
}

/// Deletes the files and folders, and the folders of the cache that this leaves empty.
fn delete(store: &Store, files: &[PathBuf]) -> Result<(), EngineError> {
    let cache = store.cache();
    let scratch = cache.join("scratch");
    for file in files {
        let attempt = file.parent() == Some(&scratch) && file.is_dir();
        let gone = if attempt { store.forget(file) } else { clear(file) };
        gone.context("delete", file)?;
        let folders = file.ancestors().skip(1).take_while(|folder| folder.parent() != Some(cache));
        for folder in folders {
            // Not empty yet: then neither are those above it.
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
    Ok(())
}
