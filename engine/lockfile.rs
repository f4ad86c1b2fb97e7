//! `pipeline.lock`: every instance's recipe and result digests beside the pipeline file, so that
//! two clones can compare. One table for each instance, sorted, so that versions merge line by line.
//! Written once at the end of a run. Knows nothing of running.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer};

use crate::{
    digest::{Digest, Stamp},
    error::{Context, EngineError},
    instance::{Instance, InstanceId, Pipeline},
    look::{is_same, strays},
    place::{read_plain, write_whole},
    plan::Found,
    project::Seen,
    recipe::{file_in, write_quoted},
    state::{Entry, State},
    store::{Output, Store},
};

const HEAD: &str =
    "# Made by `repro run`; commit it. Recipe and result digests (BLAKE3) of every instance.\n";

/// Profile -> instance -> what it came to.
pub(crate) type LockFile = BTreeMap<String, BTreeMap<String, Locked>>;

/// What an instance came to.
#[derive(Deserialize)]
pub(crate) struct Locked {
    pub(crate) recipe: Digest,
    /// What it read besides its inputs: files and folders of the project.
    #[serde(default)]
    files: BTreeMap<String, Digest>,
    /// All files and empty folders, sorted by path.
    #[serde(deserialize_with = "by_path")]
    pub(crate) outputs: Vec<Output>,
    /// Is it believed of what is missing, too?
    #[serde(skip)]
    missing: bool,
}

/// Reads outputs whose paths are the keys of a table.
fn by_path<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Output>, D::Error> {
    #[derive(Deserialize)]
    struct Named {
        blake3: Digest,
        size: u64,
        #[serde(default)]
        executable: bool,
    }
    let named =
        |(path, Named { blake3: digest, size, executable })| Output { path, digest, size, executable };
    Ok(BTreeMap::deserialize(from)?.into_iter().map(named).collect())
}

impl Locked {
    /// Did the same recipe come to other files here?
    pub(crate) fn differs(&self, entry: &Entry) -> bool {
        self.recipe == entry.recipe && self.outputs != entry.outputs()
    }

    /// All files and empty folders, where this recipe made them.
    pub(crate) fn whole(&self, recipe: Digest) -> Option<Vec<Output>> {
        (self.recipe == recipe).then(|| self.outputs.clone())
    }

    /// The digest of the whole result, where it is believed of what is missing, this recipe made it, at least one of its
    /// files lies in `place`, and all that lies there is what was locked.
    pub(crate) fn partly(&self, recipe: Digest, place: &Path) -> Option<Digest> {
        let expected = Entry::expected(recipe, &self.whole(recipe).filter(|_| self.missing)?);
        if strays(place, &expected).into_iter().any(|path| fs::symlink_metadata(path).is_ok()) {
            return None;
        }
        let mut there = 0;
        // Git keeps no empty folders.
        for file in &expected.files {
            let path = place.join(&file.path);
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if !is_same(&path, &meta, file) {
                return None;
            }
            there += 1;
        }
        (there > 0).then_some(expected.tree)
    }

    /// What of it does not lie in `place`: files, and empty folders, whose paths end with `/`.
    pub(crate) fn absent(&self, place: &Path) -> Vec<String> {
        let paths = self.outputs.iter().map(|output| &output.path);
        paths.filter(|path| fs::symlink_metadata(place.join(path)).is_err()).cloned().collect()
    }

    /// The digest of a file or folder that it read and that may be missing.
    pub(crate) fn file(&self, path: &Path) -> Option<Digest> {
        self.files.get(path.to_str()?).copied().filter(|_| self.missing)
    }

    /// The digest of an output.
    pub(crate) fn output(&self, path: &str) -> Option<Digest> {
        let at = self.outputs.binary_search_by(|output| output.path.as_str().cmp(path)).ok()?;
        Some(self.outputs[at].digest)
    }
}

impl From<&Entry> for Locked {
    fn from(entry: &Entry) -> Self {
        Self { recipe: entry.recipe, files: BTreeMap::new(), outputs: entry.outputs(), missing: false }
    }
}

/// Reads a lock file; one that is missing is empty.
pub(crate) fn read(place: &Path) -> Result<LockFile, EngineError> {
    let bytes = match read_plain(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LockFile::new()),
        read => read.context("read", place)?,
    };
    let named = place.display().to_string();
    parse(str::from_utf8(&bytes).map_err(|error| unreadable(&named, &error.to_string()))?, &named)
}

/// What the lock file says of this profile, by instance. With `allow_missing` it is believed of what is missing, too;
/// without, it is of use, and read, only where something lies that may be of today and that the index does not know as that.
pub(crate) fn believed(
    pipeline: &Pipeline,
    allow_missing: bool,
    store: &Store,
    seen: &[Seen],
) -> Result<BTreeMap<String, Locked>, EngineError> {
    let unknown = |seen: &Seen| match seen.found {
        Found::Intact(_) => !seen.is_today(),
        Found::Nothing => fs::symlink_metadata(store.shown(&seen.key)).is_ok(),
        Found::Spoilt(..) => true,
    };
    if !allow_missing && !seen.iter().any(unknown) {
        return Ok(BTreeMap::new());
    }
    let mut lock = match read(&pipeline.lock_file()) {
        // Whoever does not ask for its word gets on without.
        Err(_) if !allow_missing => LockFile::new(),
        lock => lock?,
    };
    let mut lock = lock.remove(section(pipeline.profile.as_deref())).unwrap_or_default();
    lock.values_mut().for_each(|locked| locked.missing = allow_missing);
    Ok(lock)
}

/// Reads the text of the lock file called `place`.
pub(crate) fn parse(text: &str, place: &str) -> Result<LockFile, EngineError> {
    toml::from_str(text).map_err(|error| {
        let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let at = error.span().map_or_else(String::new, |span| format!("line {}: ", line(span.start)));
        unreadable(place, &format!("{at}{}", error.message()))
    })
}

fn unreadable(place: &str, why: &str) -> EngineError {
    EngineError::user(
        format!("the lock file `{place}` cannot be read: {why}"),
        "resolve the conflict in it, or delete it: the next run writes it anew",
    )
}

/// The part of a lock file that belongs to a profile.
pub(crate) fn section(profile: Option<&str>) -> &str {
    profile.unwrap_or("default")
}

/// An error if the lock file could not be written after the run, because it cannot be read.
pub(crate) fn check(pipeline: &Pipeline, state: &State) -> Result<(), EngineError> {
    let place = pipeline.lock_file();
    if stamp(&place)? == state.locks.get(&place).map(|(stamp, _)| *stamp) {
        return Ok(());
    }
    read(&place).map(drop)
}

/// Brings the profile's part of the lock file up to date: `current` says which of the shown results
/// are today's. Others keep their lines; those of instances that the file no longer has go. Answers with those of which
/// it said that the same recipe came to other files.
pub(crate) fn write(
    pipeline: &Pipeline,
    store: &Store,
    seen: &[Seen],
    current: &[bool],
    state: &mut State,
) -> Result<Vec<InstanceId>, EngineError> {
    let place = pipeline.lock_file();
    let section = section(pipeline.profile.as_deref());
    let entry = |id: usize| if current[id] { state.results.get(&seen[id].key) } else { None };
    // Counts what a lock file says of the same results: one that says less is written anew.
    let mut said = if pipeline.set { "2 set\n".to_owned() } else { "2\n".to_owned() };
    for (id, instance) in pipeline.instances.iter().enumerate() {
        said.push_str(&instance.name);
        let _ = match entry(id) {
            Some(entry) => writeln!(said, " {} {}", entry.recipe, entry.tree),
            None => writeln!(said),
        };
    }
    let said = Digest::of(&said);
    let now = stamp(&place)?;
    let known = state.locks.get(&place).filter(|(then, _)| Some(*then) == now).map(|(_, sections)| sections);
    if known.is_some_and(|sections| sections.get(section) == Some(&Some(said))) {
        return Ok(Vec::new());
    }
    let mut whole = read(&place)?;
    let mut old = whole.remove(section).unwrap_or_default();
    let mut new = BTreeMap::new();
    let mut others = Vec::new();
    for (id, instance) in pipeline.instances.iter().enumerate() {
        let old = old.remove(&instance.name);
        if old.as_ref().zip(entry(id)).is_some_and(|(old, entry)| old.differs(entry)) {
            others.push(id);
        }
        let mut locked = entry(id).map(Locked::from);
        if let Some(locked) = &mut locked {
            locked.files = files_of(instance, locked.recipe, (&seen[id], old.as_ref()), store);
        }
        new.extend(locked.or(old).map(|locked| (instance.name.clone(), locked)));
    }
    if pipeline.set {
        // The file has them, though this command line left them out.
        for (name, locked) in old {
            new.entry(name).or_insert(locked);
        }
    }
    if !new.is_empty() {
        whole.insert(section.to_owned(), new);
    }
    let mut sections: BTreeMap<_, _> = whole
        .keys()
        .map(|name| (name.clone(), known.and_then(|known| known.get(name).copied().flatten())))
        .collect();
    sections.insert(section.to_owned(), Some(said));
    let text = render(&whole);
    if now.is_none() && whole.is_empty() {
        return Ok(others);
    }
    if fs::read(&place).ok().as_deref() != Some(text.as_bytes()) {
        write_whole(&place, text.as_bytes())?;
    }
    if let Some(stamp) = stamp(&place)? {
        state.locked(place, stamp, sections);
    }
    Ok(others)
}

/// What an instance read besides its inputs: what its recipe says, today's or that of its record, and as it was locked
/// where that is lost.
fn files_of(
    instance: &Instance,
    recipe: Digest,
    (seen, old): (&Seen, Option<&Locked>),
    store: &Store,
) -> BTreeMap<String, Digest> {
    let paths = instance.kind.files(&instance.params);
    if paths.is_empty() {
        return BTreeMap::new();
    }
    let today = seen.foreseen_as(recipe).map(|today| today.text().to_owned());
    let Some(text) = today.or_else(|| store.record(recipe).map(|record| record.recipe)) else {
        return old.filter(|old| old.recipe == recipe).map(|old| old.files.clone()).unwrap_or_default();
    };
    let paths = paths.iter().filter_map(|path| path.to_str());
    paths.filter_map(|path| Some((path.to_owned(), file_in(&text, path)?))).collect()
}

/// The lock files of the project in `root`, as far as they can be found. Hidden folders and what stages made
/// hold none.
pub(crate) fn all(root: &Path) -> impl Iterator<Item = PathBuf> {
    let artifacts = root.join("artifacts");
    let looks = move |entry: &walkdir::DirEntry| {
        let hidden = entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
        !hidden && entry.path() != artifacts
    };
    let entries = walkdir::WalkDir::new(root).into_iter().filter_entry(looks);
    entries.filter_map(Result::ok).map(walkdir::DirEntry::into_path).filter(|path| is_one(path))
}

/// Is it a lock file, of whichever project?
pub(crate) fn is_one(path: &Path) -> bool {
    // Git may end its lines otherwise, and people write above the first.
    let begins = || {
        let mut start = Vec::new();
        fs::File::open(path)?.take(4096).read_to_end(&mut start)?;
        let head = HEAD.trim_end().as_bytes();
        Ok::<_, io::Error>(start.split(|&byte| byte == b'\n').any(|line| line.trim_ascii_end() == head))
    };
    // A pipe would be waited for.
    let is_file = || fs::metadata(path).is_ok_and(|meta| meta.is_file());
    path.extension().is_some_and(|extension| extension == "lock")
        && is_file()
        && begins().is_ok_and(|begins| begins)
}

fn stamp(place: &Path) -> Result<Option<Stamp>, EngineError> {
    match fs::metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        meta => Ok(Some(Stamp::of(&meta.context("read", place)?))),
    }
}

fn render(lock: &LockFile) -> String {
    let mut text = HEAD.to_owned();
    for (section, instances) in lock {
        for (name, locked) in instances {
            text.push_str("\n[");
            write_quoted(&mut text, section);
            text.push('.');
            write_quoted(&mut text, name);
            let _ = writeln!(text, "]\nrecipe = \"{}\"", locked.recipe);
            for (path, digest) in &locked.files {
                text.push_str("files.");
                write_quoted(&mut text, path);
                let _ = writeln!(text, " = \"{digest}\"");
            }
            for output in &locked.outputs {
                text.push_str("outputs.");
                write_quoted(&mut text, &output.path);
                let executable = if output.executable { ", executable = true" } else { "" };
                let _ = writeln!(
                    text,
                    " = {{ blake3 = \"{}\", size = {}{executable} }}",
                    output.digest, output.size
                );
            }
        }
    }
    text
}
