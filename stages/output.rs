//! Results written into a job's output folder, files that are replaced whole, and what the file system says
//! when it refuses. Knows no kind.

use std::{
    fs::{self, File, Permissions},
    io::{self, ErrorKind, Write as _},
    path::Path,
};

use engine::kind::{Job, StageError};

/// Writes `bytes` as the output file `name`.
pub(crate) fn write(job: &Job<'_>, name: &str, bytes: &[u8]) -> Result<(), StageError> {
    let path = job.out.join(name);
    fs::write(&path, bytes).map_err(|error| failed("write", &path, &error))
}

/// Writes `value` as the JSON file `name`, for people to read too.
pub(crate) fn write_json(job: &Job<'_>, name: &str, value: &impl serde::Serialize) -> Result<(), StageError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| StageError::new(format!("{name}: {e}")))?;
    write(job, name, (text + "\n").as_bytes())
}

/// Writes a file whole or not at all, also when the machine goes down. Where a link leads to it, it is the file
/// behind the link that is written; it keeps its mode.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let place = match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        place => place?,
    };
    let mode = fs::metadata(&place).ok().map(|there| there.permissions());
    let draft = place.with_added_extension("repro-draft");
    let written = write_draft(&draft, bytes, mode).and_then(|()| fs::rename(&draft, &place));
    written.inspect_err(|_| {
        let _ = fs::remove_file(&draft); // it may not even be there
    })
}

fn write_draft(draft: &Path, bytes: &[u8], mode: Option<Permissions>) -> io::Result<()> {
    let _ = fs::remove_file(draft); // a killed program's
    let mut file = File::create_new(draft)?;
    file.write_all(bytes)?;
    if let Some(mode) = mode {
        file.set_permissions(mode)?;
    }
    file.sync_all()
}

/// A refusal of the file system, with a way out.
pub(crate) fn failed(action: &str, path: &Path, error: &io::Error) -> StageError {
    let path = path.display();
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room on the disk and run again; `repro gc` shows what the cache could give back; nothing \
             finished was lost"
                .to_owned()
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("give yourself the right to {action} `{path}`, then run again")
        }
        ErrorKind::NotFound => "check the path; relative ones begin at the project's folder".to_owned(),
        _ => "look at that file and its disk, then run again".to_owned(),
    };
    StageError::new(format!("cannot {action} `{path}`: {error}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_behind_its_link_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("far/page.md"), folder.path().join("page.md"));
        fs::create_dir(folder.path().join("far")).unwrap();
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        fs::write(folder.path().join("far/page.md.repro-draft"), "cut sho").unwrap();
        symlink("far/page.md", &link).unwrap();
        replace(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
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

    fn walk(folder: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                names.extend(walk(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
            }
            names.push(name);
        }
        names.sort();
        names
    }
}
