//! Results written into a job's output folder.

use std::fs;

use engine::kind::{Job, StageError};

/// Writes `bytes` as the output file `name`.
pub(crate) fn write(job: &Job<'_>, name: &str, bytes: &[u8]) -> Result<(), StageError> {
    fs::write(job.out.join(name), bytes).map_err(|e| StageError::new(format!("cannot write {name}: {e}")))
}

/// Writes `value` as the JSON file `name`, for people to read too.
pub(crate) fn write_json(job: &Job<'_>, name: &str, value: &impl serde::Serialize) -> Result<(), StageError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| StageError::new(format!("{name}: {e}")))?;
    write(job, name, (text + "\n").as_bytes())
}
