//! The program that stages run in, which must stay what it is while a run goes on. Knows no stage.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::error::EngineError;

/// A program's file, and what that was known by when the run began.
#[derive(Clone)]
pub(crate) struct Program {
    path: PathBuf,
    was: Option<Identity>,
}

/// Inode, size, and seconds and nanoseconds of the last change of the content. Not the time of any change: of a file that is
/// deleted while it runs that is another one.
type Identity = [i64; 4];

impl Program {
    pub(crate) fn at(path: &Path) -> Self {
        Self { was: identity(path), path: path.to_owned() }
    }

    /// Its path.
    ///
    /// # Errors
    /// When the file was replaced: what it made now would count as made by the one that was called.
    pub(crate) fn path(&self) -> Result<&Path, EngineError> {
        if identity(&self.path) == self.was {
            return Ok(&self.path);
        }
        Err(EngineError::user(
            format!("`{}` is no longer the program that began this run", self.path.display()),
            "run again; build a new one elsewhere while a run goes on",
        ))
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok()?;
    Some([meta.ino().cast_signed(), meta.size().cast_signed(), meta.mtime(), meta.mtime_nsec()])
}
