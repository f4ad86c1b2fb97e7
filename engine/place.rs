//! Brings files to their place: its folder is made where it is missing, and what is there is there whole. Knows
//! neither the cache nor what the files hold.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::error::{Context, EngineError};

/// Does what needs the folder of `path`, which most often is there already.
pub(crate) fn with_parent<T>(path: &Path, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match (act(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(parent)?;
            act()
        }
        (done, _) => done,
    }
}

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
/// When the file system refuses; then the old file is as it was.
pub fn write_whole(place: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let folder = place.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).context("create", folder)?;
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .context("write in", folder)?;
    file.write_all(bytes).context("write", place)?;
    file.as_file().sync_data().context("sync", place)?;
    file.persist(place).map_err(|e| e.error).context("write", place)?;
    Ok(())
}

/// Says what stands where a folder above `place` must be, if something does.
pub(crate) fn passable(place: &Path) -> Result<(), EngineError> {
    let mut above = place.ancestors().skip(1);
    match above.find(|path| path.exists()).filter(|path| !path.is_dir()) {
        None => Ok(()),
        Some(path) => Err(EngineError::User {
            message: format!("`{}` is not a folder, and results are to be shown in it", path.display()),
            hint: "move it away, then run again".into(),
        }),
    }
}
