//! `repro gc`: what the cache holds and nothing needs.

use std::{process::ExitCode, time::Duration};

use engine::gc::GcOptions;
use indicatif::DecimalBytes;
use serde_json::json;

use crate::{args::Global, error::Failure, git, ui};

pub(super) fn gc(global: &Global, apply: bool, keep_days: u32, json: bool) -> Result<ExitCode, Failure> {
    let (pipeline, project) = super::project(global)?;
    let keep = Duration::from_secs(u64::from(keep_days) * 24 * 60 * 60);
    let locks = git::lock_files(&pipeline.root)?;
    let report = project.gc(&GcOptions { keep, delete: apply, locks })?;
    let gone = project.without_instance(pipeline)?;
    if json {
        let files: Vec<_> = report.files.iter().map(|file| file.to_string_lossy()).collect();
        ui::json(&json!({
            "deleted": apply, "files": files, "bytes": report.bytes, "kept_bytes": report.kept,
            "without_instance": gone.iter().map(|folder| folder.to_string_lossy()).collect::<Vec<_>>(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let kept = DecimalBytes(report.kept);
    ui::line(&match report.files.len() {
        0 => format!("nothing to delete; {kept} in use"),
        files => {
            let word = if apply { "deleted" } else { "would delete" };
            let files = ui::count(files, "file", "files");
            format!("{word} {files}, {}; {kept} stay", DecimalBytes(report.bytes))
        }
    });
    if !apply && !report.files.is_empty() {
        ui::note("help: `repro gc --apply` deletes them");
    }
    if let Some(first) = gone.first() {
        let results = ui::count(gone.len(), "thing stays", "things stay");
        ui::note(&format!(
            "{results} in `artifacts/`, such as `{}`, of no instance of this pipeline as it is now (without `-S`)\nhelp: delete \
             what you do not need; `--json` names all",
            ui::path(first)
        ));
    }
    Ok(ExitCode::SUCCESS)
}
