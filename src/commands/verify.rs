//! `repro verify`: reads every result and compares it with its digest.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    args::Global,
    error::{Failure, FailureKind},
    ui,
};

pub(super) fn verify(global: &Global, json: bool) -> Result<ExitCode, Failure> {
    let (pipeline, project) = super::project(global)?;
    let findings = project.verify(pipeline)?;
    if json {
        let findings = findings.iter().map(|finding| {
            json!({ "instance": finding.instance, "path": finding.path, "problem": finding.problem })
        });
        ui::json(&findings.collect());
    } else {
        for finding in &findings {
            ui::line(&format!("{}: `{}`: {}", finding.instance, ui::path(&finding.path), finding.problem));
        }
        ui::line(&match findings.len() {
            0 => "every result is what it was".to_owned(),
            count => {
                format!("{count} damaged; delete them, and `repro run` restores or makes anew what is needed")
            }
        });
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { FailureKind::Integrity.into() })
}
