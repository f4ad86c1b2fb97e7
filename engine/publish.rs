//! What stages show of their results in files of the project outside `artifacts/`: compared for `status`, written by
//! a run. Knows no page.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::EngineError,
    kind::{Kind, Params, Publication, StageError},
    place::{read_plain, write_whole},
};

/// What of a result's publication is not there.
///
/// # Errors
/// When the kind cannot say what should be there.
pub(crate) fn outdated(
    kind: &dyn Kind,
    params: &Params,
    result: &Path,
    root: &Path,
) -> Result<Publication, StageError> {
    let wanted = kind.publication(params, result, root)?;
    let differs = |(path, wanted): &(PathBuf, Option<Vec<u8>>)| match wanted {
        Some(_) => read_plain(&root.join(path)).ok() != *wanted,
        None => fs::symlink_metadata(root.join(path)).is_ok(),
    };
    Ok(wanted.into_iter().filter(differs).collect())
}

/// What [`publish`] did to a file of the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It shows the result.
    Wrote,
    /// It showed none any more, and went; where to, if it was of no result.
    Removed(Option<PathBuf>),
}

/// Makes it so, and tells which files it changed. `remove` takes them away, and knows of one that is of no result where
/// it put it. Those that say already what they should are left alone.
///
/// # Errors
/// When the kind cannot say what should be there; then nothing is changed. When the file system refuses; what changed
/// before that was told.
pub fn publish(
    kind: &dyn Kind,
    params: &Params,
    result: &Path,
    root: &Path,
    remove: &dyn Fn(&Path) -> Result<Option<PathBuf>, EngineError>,
    tell: &mut dyn FnMut(PathBuf, Change),
) -> Result<(), StageError> {
    for (path, bytes) in outdated(kind, params, result, root)? {
        let place = root.join(&path);
        let change = match bytes {
            Some(bytes) => write_whole(&place, &bytes).map(|()| Change::Wrote)?,
            None => Change::Removed(remove(&place)?),
        };
        tell(path, change);
    }
    Ok(())
}
