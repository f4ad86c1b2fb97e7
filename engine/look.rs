//! What lies in `artifacts/` against what was put there. Reads a file only where its stamp changed;
//! knows nothing of recipes or of what is wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    digest::{Digest, Stamp, executable},
    plan::{Found, Why},
    state::Entry,
    store::{Folder, Shown},
};

/// Looks at the result in `place` that `entry` describes. Where files were touched and are the same,
/// the entry with their new stamps comes along.
pub(crate) fn look(place: &Path, entry: &Entry) -> (Found, Option<Entry>) {
    let mut now = None;
    match compare(place, entry, &mut now) {
        Ok(()) => (Found::Intact(entry.recipe), now),
        Err(found) => (found, None),
    }
}

fn compare(place: &Path, entry: &Entry, now: &mut Option<Entry>) -> Result<(), Found> {
    let spoilt = |why| Found::Spoilt(entry.recipe, why);
    for (at, file) in entry.files.iter().enumerate() {
        let path = place.join(&file.path);
        let meta = metadata(&path).map_err(spoilt)?;
        let stamp = Stamp::of(&meta);
        if stamp == file.stamp {
            continue;
        }
        let young = stamp.too_young();
        if !is_same(&path, &meta, file) {
            return Err(spoilt(Why::OutputAltered(path)));
        }
        if !young {
            now.get_or_insert_with(|| entry.clone()).files[at].stamp = stamp;
        }
    }
    let mut own = None;
    for (at, Folder(folder, then)) in entry.folders.iter().enumerate() {
        let path = place.join(folder);
        let meta = metadata(&path).map_err(spoilt)?;
        let stamp = Stamp::of(&meta);
        if stamp == *then {
            continue;
        }
        if !meta.is_dir() {
            return Err(spoilt(Why::OutputAltered(path)));
        }
        let young = stamp.too_young();
        let own = own.get_or_insert_with(|| names(entry));
        if let Some(path) = surplus(&path, own.get(folder.as_str())).into_iter().next() {
            return Err(spoilt(Why::OutputSurplus(path)));
        }
        if !young {
            now.get_or_insert_with(|| entry.clone()).folders[at].1 = stamp;
        }
    }
    Ok(())
}

/// Is the file at `path`, of which `meta` was read, this one? It is read where size and mode are.
pub(crate) fn is_same(path: &Path, meta: &fs::Metadata, file: &Shown) -> bool {
    meta.is_file()
        && meta.len() == file.stamp.size
        && executable(meta) == file.executable
        && Digest::of_file(path).is_ok_and(|digest| digest == file.digest)
}

fn metadata(path: &Path) -> Result<fs::Metadata, Why> {
    fs::symlink_metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Why::OutputMissing(path.to_owned()),
        _ => Why::OutputAltered(path.to_owned()),
    })
}

/// What else is wrong with the result in `place` than the content of its files: folders without files of it that are
/// missing, and whatever is not of the result.
pub(crate) fn strays(place: &Path, entry: &Entry) -> Vec<PathBuf> {
    let (mut strays, own) = (Vec::new(), names(entry));
    for Folder(folder, _) in &entry.folders {
        let (path, own) = (place.join(folder), own.get(folder.as_str()));
        if path.is_dir() {
            strays.extend(surplus(&path, own));
        } else if own.is_none() {
            strays.push(path);
        }
    }
    strays
}

/// What macOS puts into each folder that it shows; of no result, and nobody's work.
pub(crate) const FINDERS: &str = ".DS_Store";

/// Folder -> names of the result's files and folders in it. A folder in which nothing is of it is left out.
fn names(entry: &Entry) -> BTreeMap<&str, BTreeSet<&str>> {
    let files = entry.files.iter().map(|file| file.path.as_str());
    let folders = entry.folders.iter().map(|Folder(path, _)| path.trim_end_matches('/'));
    let mut names = BTreeMap::<_, BTreeSet<_>>::new();
    for path in files.chain(folders).filter(|path| !path.is_empty()) {
        let (folder, name) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
        names.entry(folder).or_default().insert(name);
    }
    names
}

/// What is in a folder and not its `own`, sorted; the stage that reads the folder would see it.
fn surplus(path: &Path, own: Option<&BTreeSet<&str>>) -> Vec<PathBuf> {
    let there = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let not_own = there.filter(|name| {
        name != FINDERS && name.to_str().is_none_or(|name| own.is_none_or(|own| !own.contains(name)))
    });
    let mut surplus: Vec<_> = not_own.map(|name| path.join(name)).collect();
    surplus.sort();
    surplus
}
