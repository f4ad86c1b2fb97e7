//! Files of the project that show a result: written where they say something else, removed where they are no
//! longer made. Knows no page.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use engine::{kind::StageError, place::replace};

use crate::{output::failed, plot::Entry};

/// Writes a file unless it already says so; does it say something new now?
pub(super) fn write_changed(path: &Path, bytes: &[u8]) -> Result<bool, StageError> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| failed("create", folder, &e))?;
    }
    replace(path, bytes).map_err(|e| failed("write", path, &e))?;
    Ok(true)
}

/// Removes the figures in `folder` that are not in the `list`, and says which. Folders in it are other stages'.
pub(super) fn remove_old(project: &Path, folder: &Path, list: &[Entry]) -> Result<Vec<PathBuf>, StageError> {
    let place = project.join(folder);
    let entries = match fs::read_dir(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let mut old = Vec::new();
    for entry in entries.map_err(|e| failed("read", &place, &e))? {
        let file = folder.join(entry.file_name());
        let made = list.iter().any(|made| file.file_stem().is_some_and(|name| name == made.name.as_str()));
        let figure = file.extension().is_some_and(|end| end == "svg");
        if figure && !made && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            fs::remove_file(entry.path()).map_err(|e| failed("remove", &entry.path(), &e))?;
            old.push(file);
        }
    }
    old.sort();
    Ok(old)
}
