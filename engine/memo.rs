//! The digests of the files and folders that stages read, remembered so that what did not change is
//! not read again. Knows nothing of how stages are judged.
//!
//! A file is known by its stamp. A folder may hold a hundred thousand of them: the index has one line
//! for it, with the digest of its listing (every name and stamp in it) and that of its content. Only
//! when the listing is another one is the folder's table in `.repro/folders/` opened, which knows
//! each of its files, and only those that it does not know are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use crate::{
    digest::{Digest, Stamp},
    error::{Context, EngineError},
    lockfile,
    look::FINDERS,
    place::{read_plain, write_whole},
    plan::Why,
    recipe::{Change, folder_in},
    state::Entry,
    store::Folder,
};

/// A folder's files by name.
type Known = BTreeMap<String, (Stamp, Digest)>;

/// Digests of what was read already.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    /// The folder of the tables.
    tables: PathBuf,
    /// By path.
    what: BTreeMap<PathBuf, Remembered>,
    /// What was learned since the memory was loaded.
    learned: BTreeSet<PathBuf>,
    /// Tables that are not written yet.
    unwritten: BTreeMap<PathBuf, Known>,
    /// What was known of their folders before.
    before: BTreeMap<PathBuf, Known>,
}

/// What is remembered of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remembered {
    File(Stamp, Digest),
    Folder { listing: Digest, content: Digest },
}

impl Remembered {
    /// What it is known by: see [`as_it_is`].
    pub(crate) fn known_by(&self) -> Digest {
        match self {
            Self::File(stamp, _) => of_stamp(*stamp),
            Self::Folder { listing, .. } => *listing,
        }
    }
}

/// What a file or folder is known by without reading it: its stamp, or the digest of its listing.
pub(crate) fn as_it_is(place: &Path) -> io::Result<Digest> {
    let meta = fs::metadata(place)?;
    Ok(if meta.is_dir() { of_listed(&list(place)?) } else { of_stamp(Stamp::of(&meta)) })
}

/// What is known by that, by the links on the way from `root` to it too, where there are any: who leads one elsewhere for
/// a while changes nothing behind it.
pub(crate) fn and_links(root: &Path, place: &Path, known_by: Digest) -> Digest {
    let link = |path: &Path| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_symlink);
    let links: Vec<_> = place
        .ancestors()
        .take_while(|path| *path != root)
        .filter_map(|path| Some(Stamp::of(&link(path)?)))
        .collect();
    if links.is_empty() {
        return known_by;
    }
    let itself = known_by.to_string();
    Digest::of_listing([(&*itself, Stamp::NONE)].into_iter().chain(links.into_iter().map(|link| ("", link))))
}

/// What a result is known by without reading it: as a folder is, but for its own files, which count whatever they are
/// called, and for folders, whose names count.
pub(crate) fn result_as_it_is(place: &Path, own: Option<&Entry>) -> io::Result<Digest> {
    let is_own = |path: &Path| {
        let Some((own, path)) = own.zip(path.to_str()) else { return false };
        own.files.iter().any(|file| file.path == path)
            || own.folders.iter().any(|Folder(folder, _)| folder.trim_end_matches('/') == path)
    };
    let (files, folders) = walk(place, is_own)?;
    let folders = folders.into_iter().map(|folder| spelt(&folder) + "/").collect::<BTreeSet<_>>();
    let files = files.iter().map(|file| (file.name.as_str(), file.stamp));
    Ok(Digest::of_listing(files.chain(folders.iter().map(|name| (name.as_str(), Stamp::NONE)))))
}

/// No listing has an empty name.
fn of_stamp(stamp: Stamp) -> Digest {
    Digest::of_listing([("", stamp)])
}

fn of_listed(files: &[Listed]) -> Digest {
    Digest::of_listing(files.iter().map(|file| (file.name.as_str(), file.stamp)))
}

/// A file found in a folder.
struct Listed {
    name: String,
    place: PathBuf,
    stamp: Stamp,
    /// Does it stand for itself? It is a link then that leads nowhere, or round in a circle.
    link: bool,
}

impl Listed {
    fn digest(&self) -> io::Result<Digest> {
        let digest = if self.link {
            fs::read_link(&self.place).map(|to| Digest::of(to.as_os_str().as_encoded_bytes()))
        } else {
            Digest::of_file(&self.place)
        };
        // Who asked knows the folder only.
        digest.map_err(|error| io::Error::new(error.kind(), format!("`{}` in it: {error}", self.name)))
    }
}

impl Memo {
    /// An empty memory whose tables lie below `cache`.
    pub(crate) fn new(cache: &Path) -> Self {
        Self { tables: cache.join("folders"), ..Self::default() }
    }

    pub(crate) fn remember(&mut self, path: PathBuf, what: Remembered) {
        self.what.insert(path, what);
    }

    /// What is remembered of a path.
    pub(crate) fn remembered(&self, path: &Path) -> Option<Remembered> {
        self.what.get(path).copied()
    }

    /// Everything remembered.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&PathBuf, Remembered)> {
        self.what.iter().map(|(path, what)| (path, *what))
    }

    /// What was learned since the last call.
    pub(crate) fn take_learned(&mut self) -> Vec<(PathBuf, Remembered)> {
        let learned = std::mem::take(&mut self.learned);
        learned.into_iter().filter_map(|path| self.remembered(&path).map(|what| (path, what))).collect()
    }

    /// Where the table of a folder lies.
    pub(crate) fn table(&self, path: &Path) -> PathBuf {
        self.tables.join(Digest::of(path.as_os_str().as_encoded_bytes()).to_string())
    }

    /// Writes the tables of the folders that were read.
    pub(crate) fn write_tables(&mut self) -> Result<(), EngineError> {
        for (path, known) in std::mem::take(&mut self.unwritten) {
            let table = self.table(&path);
            write_whole(&table, &encode(&known).context("encode", &table)?)?;
        }
        Ok(())
    }

    /// The digest of the file or folder at `root`/`path`. Of a folder, the files count, by name and
    /// content; what is [`foreign`] does not.
    pub(crate) fn digest(&mut self, root: &Path, path: &Path) -> io::Result<Digest> {
        let full = root.join(path);
        let meta = fs::metadata(&full)?;
        if meta.is_dir() {
            return self.folder(path, list(&full)?);
        }
        let stamp = Stamp::of(&meta);
        if let Some(&Remembered::File(then, digest)) = self.what.get(path)
            && then == stamp
        {
            return Ok(digest);
        }
        let young = stamp.too_young();
        let digest = Digest::of_file(&full)?;
        if !young {
            self.learn(path, Remembered::File(stamp, digest));
        }
        Ok(digest)
    }

    fn folder(&mut self, path: &Path, files: Vec<Listed>) -> io::Result<Digest> {
        let listing = of_listed(&files);
        if let Some(&Remembered::Folder { listing: then, content }) = self.what.get(path)
            && then == listing
        {
            return Ok(content);
        }
        let young: Vec<bool> = files.iter().map(|file| file.stamp.too_young()).collect();
        let before = self.known(path);
        let digest = |file: &Listed| match before.get(&file.name) {
            Some((then, digest)) if *then == file.stamp => Ok(*digest),
            _ => file.digest(),
        };
        let digests = each(&files, digest)?;
        let tree = files.iter().zip(&digests).map(|(file, digest)| (file.name.as_str(), false, *digest));
        let content = Digest::of_tree(tree);
        if !young.contains(&true) {
            self.learn(path, Remembered::Folder { listing, content });
        }
        // A file that may change again within the tick of its time is read again; its digest says later what it was.
        let known = files.into_iter().zip(digests).zip(young).map(|((file, digest), young)| {
            (file.name, (if young { Stamp::NONE } else { file.stamp }, digest))
        });
        let known: Known = known.collect();
        if path.to_str().is_some() {
            self.before.insert(path.to_owned(), before);
            self.unwritten.insert(path.to_owned(), known);
        }
        Ok(content)
    }

    /// The files of a folder that are not what they were when its content was `then`, where that is known, and which of
    /// them came or went.
    pub(crate) fn changed(&self, path: &Path, then: Digest) -> Option<Vec<String>> {
        let (old, new) = (self.before.get(path)?, self.unwritten.get(path)?);
        let tree = old.iter().map(|(name, (_, digest))| (name.as_str(), false, *digest));
        if Digest::of_tree(tree) != then {
            return None;
        }
        let digest = |known: &Known, name: &str| known.get(name).map(|(_, digest)| *digest);
        let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let changed = names.into_iter().filter_map(|name| match (digest(old, name), digest(new, name)) {
            (then, now) if then == now => None,
            (None, _) => Some(format!("`{name}` (new)")),
            (_, None) => Some(format!("`{name}` (gone)")),
            _ => Some(format!("`{name}`")),
        });
        Some(changed.collect())
    }

    /// Names the files of the folders that changed, where they are known.
    pub(crate) fn name_files(&self, why: &mut Why) {
        let Why::Changed(changes) = why else { return };
        for change in changes {
            if let Some((folder, then)) = folder_in(change)
                && let Some(files) = self.changed(Path::new(&folder), then).filter(|files| !files.is_empty())
            {
                *change = Change::Within(folder, files);
            }
        }
    }

    /// What is known of a folder's files. A table that cannot be read knows nothing.
    fn known(&mut self, path: &Path) -> Known {
        let unwritten = self.unwritten.remove(path);
        let read = || decode(&read_plain(&self.table(path)).ok()?);
        unwritten.or_else(read).unwrap_or_default()
    }

    /// Remembers what the index is to be told; a path that it cannot spell is looked at every time.
    fn learn(&mut self, path: &Path, what: Remembered) {
        if path.to_str().is_some() {
            self.remember(path.to_owned(), what);
            self.learned.insert(path.to_owned());
        }
    }
}

/// A table as it is written: a line with the digest of the rest, so that no digit that flips in it is believed.
fn encode(known: &Known) -> io::Result<Vec<u8>> {
    let text = serde_json::to_string(known).map_err(io::Error::other)?;
    Ok(format!("{}\n{text}", Digest::of(&text)).into_bytes())
}

fn decode(bytes: &[u8]) -> Option<Known> {
    let (digest, text) = str::from_utf8(bytes).ok()?.split_once('\n')?;
    if digest == Digest::of(text).to_string() { serde_json::from_str(text).ok() } else { None }
}

/// The files below a folder, sorted by name, without those that are [`foreign`].
fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    walk(folder, |_| false).map(|(files, _)| files)
}

/// The same, but with those that are foreign by name and `own`; and the folders below it. Paths are those below `folder`.
fn walk(folder: &Path, own: impl Fn(&Path) -> bool) -> io::Result<(Vec<Listed>, Vec<PathBuf>)> {
    let below = |place: &Path| place.strip_prefix(folder).map(Path::to_owned).map_err(io::Error::other);
    // A lock file that a run writes into what a stage of it reads would make that stale.
    let leaves = |entry: &walkdir::DirEntry| foreign(entry.file_name()) || lockfile::is_one(entry.path());
    let counts =
        |entry: &walkdir::DirEntry| !leaves(entry) || below(entry.path()).is_ok_and(|path| own(&path));
    let walk = walkdir::WalkDir::new(folder).follow_links(true).into_iter();
    let (mut places, mut folders) = (Vec::new(), Vec::new());
    for entry in walk.filter_entry(|entry| entry.depth() == 0 || counts(entry)) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => places.push((entry.into_path(), false)),
            Ok(entry) if entry.file_type().is_dir() && entry.depth() > 0 => {
                folders.push(below(entry.path())?)
            }
            Ok(_) => {}
            Err(error) => match error.path().filter(|path| path.is_symlink() && *path != folder) {
                // Whoever made it may be an editor: Emacs leaves such links while a file is being changed.
                Some(link) if !link.file_name().is_some_and(foreign) => places.push((link.to_owned(), true)),
                Some(_) => {}
                None => return Err(error.into()),
            },
        }
    }
    let mut files = each(&places, |(place, link)| {
        let below = below(place)?;
        let meta = if *link { fs::symlink_metadata(place) } else { fs::metadata(place) };
        let name = spelt(&below);
        Ok(Listed { name, place: place.clone(), stamp: Stamp::of(&meta?), link: *link })
    })?;
    files.sort_unstable_by(|a, b| (&a.name, &a.place).cmp(&(&b.name, &b.place)));
    Ok((files, folders))
}

/// A name as it is listed. Of those that are not UTF-8 no two are spelt alike, and none as one that is.
fn spelt(path: &Path) -> String {
    if let Some(name) = path.to_str() {
        return name.to_owned();
    }
    let bytes = path.as_os_str().as_encoded_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}\0{hex}", path.to_string_lossy())
}

/// Folders and files of programs, by their whole name.
const FOREIGN: [&str; 8] = [
    ".git",
    ".repro",
    FINDERS,
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
];

/// Is it what git, this program, Python or an editor puts beside the files of a folder? That is made of the rest, some
/// of it by the very stage that reads the folder, or comes and goes while somebody has a file open.
fn foreign(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    FOREIGN.contains(&&*name)
        || name.starts_with(".#") // Emacs, and so are `#name#` and `name~`
        || name.starts_with('#') && name.ends_with('#')
        || name.ends_with('~')
        || name.starts_with('.') && [".swp", ".swx", ".swo"].iter().any(|end| name.ends_with(end)) // Vim
}

/// Does the same for each: handing a few to other threads costs more than they do.
fn each<T: Sync, U: Send>(all: &[T], act: impl Fn(&T) -> io::Result<U> + Sync + Send) -> io::Result<Vec<U>> {
    match all.len() {
        0..64 => all.iter().map(act).collect(),
        _ => all.par_iter().with_min_len(16).map(act).collect(),
    }
}

#[cfg(test)]
mod tests;
