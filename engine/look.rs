//! What lies in `artifacts/` against what was put there. Reads a file only where its stamp changed;
//! knows nothing of recipes or of what is wanted.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    digest::{Digest, Stamp, executable},
    plan::Found,
    state::Entry,
    store::Folder,
};

/// Why a result is not what was put there.
enum Fault {
    Missing(PathBuf),
    Altered(PathBuf),
}

/// Looks at the result in `place` that `entry` describes. Where files were touched and are the same,
/// the entry with their new stamps comes along.
pub(crate) fn look(place: &Path, entry: &Entry) -> (Found, Option<Entry>) {
    let mut now = None;
    match compare(place, entry, &mut now) {
        Ok(()) => (Found::Intact(entry.recipe), now),
        Err(Fault::Missing(path)) => (Found::Missing(entry.recipe, path), None),
        Err(Fault::Altered(path)) => (Found::Altered(entry.recipe, path), None),
    }
}

fn compare(place: &Path, entry: &Entry, now: &mut Option<Entry>) -> Result<(), Fault> {
    for (at, file) in entry.files.iter().enumerate() {
        let path = place.join(&file.path);
        let meta = metadata(&path)?;
        let stamp = Stamp::of(&meta);
        if stamp == file.stamp {
            continue;
        }
        let young = stamp.too_young();
        let same = meta.is_file()
            && stamp.size == file.stamp.size
            && executable(&meta) == file.executable
            && Digest::of_file(&path).is_ok_and(|digest| digest == file.digest);
        if !same {
            return Err(Fault::Altered(path));
        }
        if !young {
            now.get_or_insert_with(|| entry.clone()).files[at].stamp = stamp;
        }
    }
    for (at, Folder(folder, then)) in entry.folders.iter().enumerate() {
        let path = place.join(folder);
        let meta = metadata(&path)?;
        let stamp = Stamp::of(&meta);
        if stamp == *then {
            continue;
        }
        if !meta.is_dir() {
            return Err(Fault::Altered(path));
        }
        let young = stamp.too_young();
        if let Some(path) = surplus(&path, folder, entry).into_iter().next() {
            return Err(Fault::Altered(path));
        }
        if !young {
            now.get_or_insert_with(|| entry.clone()).folders[at].1 = stamp;
        }
    }
    Ok(())
}

fn metadata(path: &Path) -> Result<fs::Metadata, Fault> {
    fs::symlink_metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Fault::Missing(path.to_owned()),
        _ => Fault::Altered(path.to_owned()),
    })
}

/// What else is wrong with the result in `place` than the content of its files: folders without files of it that are
/// missing, and whatever is not of the result.
pub(crate) fn strays(place: &Path, entry: &Entry) -> Vec<PathBuf> {
    let mut strays = Vec::new();
    for Folder(folder, _) in &entry.folders {
        let path = place.join(folder);
        if path.is_dir() {
            strays.extend(surplus(&path, folder, entry));
        } else if !entry.files.iter().any(|file| file.path.starts_with(folder)) {
            strays.push(path);
        }
    }
    strays
}

/// What macOS puts into each folder that it shows; of no result, and nobody's work.
pub(crate) const FINDERS: &str = ".DS_Store";

/// What is in `folder` and not of the result, sorted; the stage that reads the folder would see it.
fn surplus(path: &Path, folder: &str, entry: &Entry) -> Vec<PathBuf> {
    let paths = entry.files.iter().map(|file| file.path.as_str());
    let paths = paths.chain(entry.folders.iter().map(|Folder(path, _)| path.as_str()));
    let own: BTreeSet<&str> = paths
        .filter_map(|path| path.strip_prefix(folder)?.split('/').next())
        .filter(|name| !name.is_empty())
        .collect();
    let there = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let not_own =
        there.filter(|name| name != FINDERS && name.to_str().is_none_or(|name| !own.contains(name)));
    let mut surplus: Vec<_> = not_own.map(|name| path.join(name)).collect();
    surplus.sort();
    surplus
}
