//! Puts results in the place where people look for them, and keeps what people made there. Knows nothing of what the
//! files mean.
//!
//! A result comes to its place by one rename, so that it is there whole or not at all. Where the cache lies on another
//! file system, beyond the reach of renames and clones (a link or a mount below `artifacts/`, or in the place of
//! `.repro`), a copy beside the place is renamed.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{
    digest::{Digest, Stamp},
    error::{Context, EngineError},
    lockfile::Locked,
    look::FINDERS,
    place::{clear, open_folder, passable, with_parent},
    project::shortened,
    state::Entry,
    store::{Draft, Folder, Shown, Store, stamp},
};

/// What the place of a result had before.
#[derive(Clone, Copy, Default)]
pub(crate) struct Old<'a> {
    /// The result that was shown here.
    pub(crate) shown: Option<&'a Entry>,
    /// What the lock file says of one that may have come with a clone.
    pub(crate) locked: Option<&'a Locked>,
}

impl Store {
    /// Moves a complete draft to where people look for it; what lay there before goes, unless part of it is
    /// neither of `old`, the results that were there, nor the same now: somebody made that. Then it is kept, and
    /// this says what it is and where. Its entry gets the stamps of what is shown.
    pub(crate) fn show(
        &self,
        draft: Draft,
        key: &str,
        entry: &mut Entry,
        old: Old<'_>,
    ) -> Result<Option<(PathBuf, PathBuf)>, EngineError> {
        if let Some(shown) = old.shown {
            self.used(shown.recipe); // until now
        }
        // A link in its place leads to where the result lies.
        let place = self.shown(key);
        let linked = fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_symlink());
        let place = if linked { fs::canonicalize(&place).unwrap_or(place) } else { place };
        let mut ready = draft.path().to_owned();
        let mut moved = with_parent(&place, || fs::rename(&ready, &place));
        if moved.as_ref().is_err_and(crosses) {
            ready = beside(&place, "new");
            copy_beside(draft.path(), &ready, entry)?;
            moved = fs::rename(&ready, &place);
        }
        let kept = match moved {
            Err(error) if in_the_way(error.kind()) => self.replace(&ready, &place, key, entry, old)?,
            moved => {
                moved.context("create", &place)?;
                None
            }
        };
        // Moving changes the stamp of the result's own folder and no other.
        for Folder(path, old) in &mut entry.folders {
            if path.is_empty() {
                *old = stamp(&place)?;
            }
        }
        Ok(kept)
    }

    /// Puts `ready` in the place of something. Whatever fails, and whenever this ends, what people made lies in its
    /// place or is kept.
    fn replace(
        &self,
        ready: &Path,
        place: &Path,
        key: &str,
        entry: &Entry,
        old: Old<'_>,
    ) -> Result<Option<(PathBuf, PathBuf)>, EngineError> {
        passable(place, "results are to be shown in it")?;
        let kept = self.foreign(place, old, entry).map(|path| (place.join(path), self.kept(key)));
        let mut away = kept.as_ref().map_or_else(|| self.temporary(), |(_, kept)| kept.clone());
        // Who may not write in a folder cannot move it into another; whether they could now, moving it tells.
        if place.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let _ = open_folder(place);
        }
        let mut moved = with_parent(&away, || fs::rename(place, &away));
        if moved.as_ref().is_err_and(crosses) {
            if let Some((_, kept)) = &kept {
                with_parent(kept, || copy(place, kept)).context("keep", place)?;
            }
            away = beside(place, "old");
            clear(&away).context("delete", &away)?;
            moved = fs::rename(place, &away);
        }
        moved.context("move aside", place)?;
        if let Err(error) = fs::rename(ready, place) {
            // Best effort: it is kept where it is, or nothing but an older result.
            let _ = fs::rename(&away, place);
            return Err(error).context("create", place);
        }
        // Best effort: the new result is in its place, and what stays behind is cleared by a later run.
        if kept.as_ref().is_none_or(|(_, kept)| *kept != away) {
            let _ = clear(&away);
        }
        Ok(kept)
    }

    /// A file in `folder` that is neither of the `old` results nor of the new one, nor in the cache anyhow, which takes in
    /// what only the lock file knows.
    fn foreign(&self, folder: &Path, old: Old<'_>, new: &Entry) -> Option<PathBuf> {
        let shown: BTreeMap<&str, &Shown> =
            old.shown.iter().flat_map(|shown| &shown.files).map(|file| (file.path.as_str(), file)).collect();
        let new: BTreeMap<&str, Digest> =
            new.files.iter().map(|file| (file.path.as_str(), file.digest)).collect();
        walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().find_map(|entry| {
            let entry = match entry {
                Ok(entry) if entry.file_type().is_dir() || entry.file_name() == FINDERS => return None,
                Ok(entry) => entry,
                // Nobody knows what lies in a folder that cannot be read.
                Err(error) => return Some(error.path()?.strip_prefix(folder).ok()?.to_owned()),
            };
            let path = entry.path().strip_prefix(folder).ok()?;
            let name = path.to_str().unwrap_or_default();
            let known = shown.get(name);
            if known.is_some_and(|known| entry.metadata().is_ok_and(|meta| Stamp::of(&meta) == known.stamp)) {
                return None;
            }
            let theirs = |now: Digest| {
                let of_a_result =
                    known.is_some_and(|known| known.digest == now) || new.get(name) == Some(&now);
                // It may be nowhere else: what is not committed came with the folder.
                let locked = || {
                    let locked = old.locked.and_then(|locked| locked.output(name));
                    locked == Some(now) && self.refill(now, entry.path()).is_ok()
                };
                of_a_result || self.object(now).exists() || locked()
            };
            let plain = entry.file_type().is_file();
            let same = plain && Digest::of_file(entry.path()).is_ok_and(theirs);
            (!same).then(|| path.to_owned())
        })
    }

    /// Takes a file of the project away. One that the cache does not hold too is kept, and this says where.
    pub(crate) fn put_away(&self, file: &Path, root: &Path) -> Result<Option<PathBuf>, EngineError> {
        let plain = fs::symlink_metadata(file).is_ok_and(|meta| meta.is_file());
        if plain && Digest::of_file(file).is_ok_and(|digest| self.object(digest).exists()) {
            return fs::remove_file(file).map(|()| None).context("remove", file);
        }
        let kept = self.kept(&file.strip_prefix(root).unwrap_or(file).to_string_lossy());
        let moved = with_parent(&kept, || fs::rename(file, &kept));
        if moved.as_ref().is_err_and(crosses) {
            with_parent(&kept, || fs::copy(file, &kept)).context("keep", file)?;
            fs::remove_file(file).context("remove", file)?;
        } else {
            moved.context("move aside", file)?;
        }
        Ok(Some(kept))
    }

    /// A place where nothing is, for what people made in a result's; nobody but them deletes it.
    fn kept(&self, key: &str) -> PathBuf {
        let mut name = key.replace('/', "~");
        if name.len() > 200 {
            name = shortened(&name, 150, key);
        }
        let places = (1..).map(|n| self.cache().join("replaced").join(format!("{name}~{n}")));
        // A link that leads nowhere has its place too.
        places.into_iter().find(|place| fs::symlink_metadata(place).is_err()).unwrap_or_default()
    }
}

fn in_the_way(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory)
}

fn crosses(error: &io::Error) -> bool {
    error.kind() == ErrorKind::CrossesDevices
}

/// Copies the result in `draft` to `new`. Its entry gets the stamps of the copies.
fn copy_beside(draft: &Path, new: &Path, entry: &mut Entry) -> Result<(), EngineError> {
    clear(new).context("delete", new)?;
    copy(draft, new).context("write", new)?;
    for file in &mut entry.files {
        file.stamp = stamp(&new.join(&file.path))?;
    }
    for Folder(path, then) in &mut entry.folders {
        *then = stamp(&new.join(path))?;
    }
    Ok(())
}

/// A name that no result has: stages and axes have none with a dot in front.
fn beside(place: &Path, what: &str) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    // Long names are cut elsewhere to leave room for this much.
    place.with_file_name(format!(".{what}-{name}"))
}

/// Copies files, folders and links; nothing else has content.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        fs::copy(from, to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_lie_beside_the_place_and_their_stamps_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (draft, new) = (folder.path().join("draft"), beside(&folder.path().join("shown/place"), "new"));
        fs::create_dir_all(draft.join("sub")).unwrap();
        fs::write(draft.join("sub/x"), "new").unwrap();
        symlink("sub/x", draft.join("link")).unwrap();
        fs::create_dir_all(new.join("left over")).unwrap();
        let any = Stamp::of(&fs::metadata(&draft).unwrap());
        let file = Shown { path: "sub/x".into(), digest: Digest::of("new"), executable: false, stamp: any };
        let folders = vec![Folder("sub/".into(), any), Folder(String::new(), any)];
        let mut entry = Entry { files: vec![file], folders, ..Entry::expected(Digest::of(""), &[]) };
        copy_beside(&draft, &new, &mut entry).unwrap();
        assert_eq!(fs::read_to_string(new.join("link")).unwrap(), "new");
        assert!(new.join("link").is_symlink() && !new.join("left over").exists());
        let now = |path: &str| Stamp::of(&fs::metadata(new.join(path)).unwrap());
        assert_eq!((entry.files[0].stamp, entry.folders[0].1), (now("sub/x"), now("sub/")));
    }

    #[test]
    fn what_people_made_stays_when_the_new_result_cannot_take_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), None);
        let place = store.shown("d");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("notes"), "mine").unwrap();
        let gone = folder.path().join("gone");
        let error = store
            .replace(&gone, &place, "d", &Entry::expected(Digest::of(""), &[]), Old::default())
            .unwrap_err();
        assert!(error.to_string().contains("artifacts/d"), "{error}");
        assert_eq!(fs::read_to_string(place.join("notes")).unwrap(), "mine");
    }

    #[test]
    fn what_is_put_away_takes_the_place_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), None);
        let (file, link) = (folder.path().join("mine"), folder.path().join("link"));
        fs::write(&file, "mine").unwrap();
        symlink("nowhere", &link).unwrap();
        let replaced = store.cache().join("replaced");
        fs::create_dir_all(&replaced).unwrap();
        symlink("nowhere", replaced.join("mine~1")).unwrap();
        for (what, place) in [(file, "mine~2"), (link, "link~1")] {
            let kept = store.put_away(&what, folder.path()).unwrap().unwrap();
            assert_eq!(kept, replaced.join(place));
            assert!(fs::symlink_metadata(&kept).is_ok(), "{place}");
        }
        assert!(fs::symlink_metadata(replaced.join("mine~1")).unwrap().is_symlink());
    }
}
