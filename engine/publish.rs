//! What stages show of their results in files of the project outside `artifacts/`: compared for `status`, written by
//! a run. Knows no page.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::EngineError,
    kind::{Kind, Params, Publication, StageError},
    place::write_whole,
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
    Ok(wanted.into_iter().filter(|(path, bytes)| fs::read(root.join(path)).ok() != *bytes).collect())
}

/// Makes it so, and says which files changed, and where those are that had to go: `remove` takes them away, and
/// knows of one that is of no result where it put it. Those that say already what they should are left alone.
///
/// # Errors
/// When the kind cannot say what should be there; then nothing is changed. When the file system refuses.
pub fn publish(
    kind: &dyn Kind,
    params: &Params,
    result: &Path,
    root: &Path,
    remove: &dyn Fn(&Path) -> Result<Option<PathBuf>, EngineError>,
) -> Result<Vec<(PathBuf, Option<PathBuf>)>, StageError> {
    let mut changed = Vec::new();
    for (path, bytes) in outdated(kind, params, result, root)? {
        let place = root.join(&path);
        let kept = match bytes {
            Some(bytes) => write_whole(&place, &bytes).map(|()| None)?,
            None => remove(&place)?,
        };
        changed.push((path, kept));
    }
    Ok(changed)
}
