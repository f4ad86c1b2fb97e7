//! Results written into a job's output folder, and what the file system says when it refuses. Knows no kind.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use engine::{
    error::FULL,
    kind::{Job, StageError},
};

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

/// A refusal of the file system, with a way out.
pub(crate) fn failed(action: &str, path: &Path, error: &io::Error) -> StageError {
    let path = path.display();
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FULL.to_owned(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!("give yourself the right to {action} `{path}`, then run again")
        }
        ErrorKind::NotFound => "check the path; relative ones begin at the project's folder".to_owned(),
        _ => "look at that file and its disk, then run again".to_owned(),
    };
    StageError::new(format!("cannot {action} `{path}`: {error}")).hint(hint)
}
