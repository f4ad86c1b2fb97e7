//! Brings files to their place: its folder is made where it is missing, and what is there is there whole. Knows
//! neither the cache nor what the files hold.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read as _, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::error::{Context, EngineError};

/// Does what needs the folder of `path`, which most often is there already.
pub(crate) fn with_parent<T>(path: &Path, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match (act(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(parent).map_err(|error| match obstacle(path) {
                Some((link, Some(to))) => io::Error::new(error.kind(), leads_nowhere(link, &to)),
                _ => error,
            })?;
            act()
        }
        (done, _) => done,
    }
}

/// Makes a file with at most this mode, and the folder that it is in, to be written and read through what this returns.
/// Whatever has its name already stays as it is, also a link that somebody laid there to lead elsewhere: that is an error.
pub(crate) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    with_parent(path, || File::options().read(true).write(true).create_new(true).mode(mode).open(path))
}

/// Copies the content of a file into an open one; a cheap clone where the system can.
pub(crate) fn copy_into(from: &Path, to: &mut File) -> io::Result<()> {
    plain(from)?;
    io::copy(&mut File::open(from)?, to).map(drop)
}

/// What is known of a file that can be opened: whoever opens a pipe waits for somebody who writes to it, for ever. A
/// folder passes, and is an error of its own where it is read.
///
/// # Errors
/// When the file system refuses, or something else is in its place, such as a pipe.
pub fn plain(path: &Path) -> io::Result<fs::Metadata> {
    let meta = fs::metadata(path)?;
    if meta.is_file() || meta.is_dir() {
        return Ok(meta);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is not a plain file"))
}

/// The link in place of `path`, or of a folder on its way from `top`, which may be one itself.
pub fn link_below<'a>(top: &Path, path: &'a Path) -> Option<&'a Path> {
    path.ancestors().take_while(|part| *part != top).find(|part| part.is_symlink())
}

/// Reads a file, unless it is none.
///
/// # Errors
/// When the file system refuses, or something else is in its place, such as a pipe.
pub fn read_plain(path: &Path) -> io::Result<Vec<u8>> {
    plain(path)?;
    fs::read(path)
}

/// Reads a file of at most so many bytes, unless it is none.
///
/// # Errors
/// As [`read_plain`], and when the file is larger.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    plain(path)?;
    let mut bytes = Vec::new();
    // Some files tell no length and have no end.
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let message = format!("it has more than {} MiB", most >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Writes a file, and the folder that it is in, as [`replace`] does.
pub(crate) fn write_whole(place: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let folder = folder_of(place);
    fs::create_dir_all(folder).context("create", folder)?;
    replace(place, bytes).context("write", place)
}

/// Writes a file so that it is there whole or not at all, also when the machine goes down. Where a link leads to
/// it, it is the file behind the link that is written; it keeps its mode. A link that leads nowhere makes way,
/// and a new file has what the process may give to new files.
///
/// # Errors
/// When the file system refuses; then what was there is as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let place = match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        place => place?,
    };
    let kept = fs::metadata(&place).ok().map(|there| there.permissions());
    let mode = kept.clone().unwrap_or(fs::Permissions::from_mode(0o666));
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(folder_of(&place))?;
    file.write_all(bytes)?;
    if let Some(kept) = kept {
        file.as_file().set_permissions(kept)?;
    }
    file.as_file().sync_data()?;
    file.persist(&place).map_err(|e| e.error)?;
    Ok(())
}

fn folder_of(place: &Path) -> &Path {
    place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Deletes what is at `path`, if there is something; also folders in which nobody may write.
pub(crate) fn clear(path: &Path) -> io::Result<()> {
    let remove = || match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    let gone = match remove() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let _ = open_up(path); // the next attempt tells
            remove()
        }
        gone => gone,
    };
    gone.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Lets the owner write in all folders from `path` on.
fn open_up(path: &Path) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(path) {
        let entry = entry?;
        if entry.file_type().is_dir() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Lets the owner read, write and search a folder.
pub(crate) fn open_folder(path: &Path) -> io::Result<()> {
    const ALL: u32 = 0o700;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & ALL == ALL {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode | ALL))
}

/// Says what stands where a folder above `place` must be, if something does; `purpose` is what the folder is for.
pub(crate) fn passable(place: &Path, purpose: &str) -> Result<(), EngineError> {
    let (message, hint) = match obstacle(place) {
        None => return Ok(()),
        Some((link, Some(to))) => {
            let hint = "mount or make what it leads to, or remove the link, then run again";
            (leads_nowhere(link, &to), hint)
        }
        Some((path, None)) => {
            let message = format!("`{}` is not a folder, and {purpose}", path.display());
            (message, "move it away, then run again")
        }
    };
    Err(EngineError::user(message, hint))
}

/// What is there above `place` and no folder; if it is a link that leads nowhere, also where it should lead.
fn obstacle(place: &Path) -> Option<(&Path, Option<PathBuf>)> {
    let mut above = place.ancestors().skip(1);
    let path = above.find(|path| fs::symlink_metadata(path).is_ok()).filter(|path| !path.is_dir())?;
    Some((path, fs::read_link(path).ok().filter(|_| !path.exists())))
}

fn leads_nowhere(link: &Path, to: &Path) -> String {
    format!("`{}` is a link to `{}`, which is not there", link.display(), to.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_in_which_nobody_may_write_can_be_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (top, inner) = (folder.path().join("top"), folder.path().join("top/inner"));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("x"), "").unwrap();
        for place in [&inner, &top] {
            fs::set_permissions(place, fs::Permissions::from_mode(0o555)).unwrap();
        }
        // To the superuser all folders are open, so that this part is looked at by itself.
        open_up(&top).unwrap();
        for place in [&inner, &top] {
            assert_eq!(fs::metadata(place).unwrap().permissions().mode() & 0o777, 0o755);
            fs::set_permissions(place, fs::Permissions::from_mode(0o555)).unwrap();
        }
        clear(&top).unwrap();
        assert!(!top.exists());
        clear(&top).unwrap();
    }

    #[test]
    fn a_file_is_replaced_behind_its_link_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("far/page.md"), folder.path().join("page.md"));
        fs::create_dir(folder.path().join("far")).unwrap();
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("far/page.md", &link).unwrap();
        let open = File::open(&file).unwrap();
        replace(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        // Who reads it meanwhile reads all of the one.
        assert_eq!(io::read_to_string(open).unwrap(), "old");
        replace(&folder.path().join("first.md"), b"1").unwrap();
        let left = walk(folder.path());
        assert_eq!(left, ["far", "far/page.md", "first.md", "page.md"]);
    }

    #[test]
    fn a_draft_that_cannot_take_its_place_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("page.md/full")).unwrap();
        assert!(replace(&folder.path().join("page.md"), b"new").is_err());
        assert_eq!(walk(folder.path()), ["page.md", "page.md/full"]);
    }

    /// All that is below a folder, sorted.
    fn walk(folder: &Path) -> Vec<String> {
        let entries = walkdir::WalkDir::new(folder).min_depth(1).sort_by_file_name().into_iter();
        let below =
            |entry: walkdir::DirEntry| entry.path().strip_prefix(folder).unwrap().display().to_string();
        entries.map(|entry| below(entry.unwrap())).collect()
    }
}
