//! What a stage left in its output folder: named, and cut down to its outputs. Knows no stage.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::place::{clear, open_folder};

/// The names in a folder, the first few of them.
pub(crate) fn left_in(folder: &Path) -> io::Result<String> {
    const NAMED: usize = 5;
    let names = names(folder)?;
    let first = names.iter().take(NAMED).map(|name| format!("`{}`", name.display()));
    let first = first.collect::<Vec<_>>().join(", ");
    Ok(match names.len() {
        0 => "nothing".to_owned(),
        count if count > NAMED => format!("{first} and {} more", count - NAMED),
        _ => first,
    })
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Deletes what lies in `folder`, `below` the draft, and neither is in one of the outputs nor leads to one.
pub(crate) fn drop_others(
    folder: &Path,
    below: &Path,
    outputs: &BTreeSet<PathBuf>,
    dropped: &mut Vec<String>,
) -> io::Result<()> {
    for name in names(folder)? {
        let (place, path) = (folder.join(&name), below.join(&name));
        if path.ancestors().any(|above| outputs.contains(above)) {
            continue;
        }
        // Paths are sorted by their parts, so that what is below one follows it.
        if outputs.range(path.clone()..).next().is_some_and(|output| output.starts_with(&path)) {
            // A link is refused when the rest is kept; what lies behind it is not of the draft.
            if fs::symlink_metadata(&place)?.is_dir() {
                open_folder(&place)?;
                drop_others(&place, &path, outputs, dropped)?;
            }
            continue;
        }
        dropped.push(format!("`{}`", path.display()));
        clear(&place)?; // also a folder in which nobody may write
    }
    Ok(())
}
