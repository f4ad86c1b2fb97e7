//! Results shown on another file system than the cache, where neither renames nor clones reach: a link or a mount
//! below `artifacts/`, or in the place of `.repro`. Knows nothing of what the files mean.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    digest::Stamp,
    error::{Context, EngineError},
    store::{Content, Folder},
};

/// Shows the result in `draft` in `place`: a copy is made beside it and comes to its place by a rename, so that it is
/// there whole or not at all. What lay there before goes. The content gets the stamps of the copies.
pub(crate) fn show(draft: &Path, place: &Path, content: &mut Content) -> Result<(), EngineError> {
    let (new, old) = (beside(place, "new"), beside(place, "old"));
    for leftover in [&new, &old] {
        clear(leftover).context("delete", leftover)?;
    }
    copy(draft, &new).context("write", &new)?;
    let stamp = |path: &str| -> Result<Stamp, EngineError> {
        let copy = new.join(path);
        Ok(Stamp::of(&fs::symlink_metadata(&copy).context("read", &copy)?))
    };
    for file in &mut content.files {
        file.stamp = stamp(&file.path)?;
    }
    for Folder(path, then) in &mut content.folders {
        *then = stamp(path)?;
    }
    match fs::rename(place, &old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        moved => moved.context("move aside", place)?,
    }
    fs::rename(&new, place).context("create", place)?;
    clear(&old).context("delete", &old)
}

/// A name that no result has: stages and axes have none with a dot in front.
fn beside(place: &Path, what: &str) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    // Long names are cut elsewhere to leave room for this much.
    place.with_file_name(format!(".{what}-{name}"))
}

fn clear(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    gone.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// A draft holds files and folders and nothing else.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_goes_and_the_stamps_are_those_of_the_copies() {
        let folder = tempfile::tempdir().unwrap();
        let (draft, place) = (folder.path().join("draft"), folder.path().join("shown/place"));
        fs::create_dir_all(draft.join("sub")).unwrap();
        fs::write(draft.join("sub/x"), "new").unwrap();
        fs::create_dir_all(place.join("old")).unwrap();
        let any = Stamp::of(&fs::metadata(&draft).unwrap());
        let digest = crate::digest::Digest::of("new");
        let file = crate::store::Shown { path: "sub/x".into(), digest, executable: false, stamp: any };
        let folders = vec![Folder("sub/".into(), any), Folder(String::new(), any)];
        let mut content = Content { files: vec![file], folders, ..Content::default() };
        for _ in 0..2 {
            show(&draft, &place, &mut content).unwrap();
            assert_eq!(fs::read_to_string(place.join("sub/x")).unwrap(), "new");
            assert!(!place.join("old").exists());
            let now = |path: &str| Stamp::of(&fs::metadata(place.join(path)).unwrap());
            assert_eq!(content.files[0].stamp, now("sub/x"));
            assert_eq!(content.folders[0].1, now("sub/"));
            assert_eq!(fs::read_dir(folder.path().join("shown")).unwrap().count(), 1, "no leftovers");
        }
    }
}
