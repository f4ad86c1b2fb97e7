//! `repro schema`: the JSON Schema of pipeline files, for editors.

use std::process::ExitCode;

use crate::{error::Failure, ui};

pub(super) fn schema() -> Result<ExitCode, Failure> {
    ui::json(&engine::pipeline::schema(&stages::kinds()));
    Ok(ExitCode::SUCCESS)
}
