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
            json!({
                "instance": finding.instance, "path": finding.path.to_string_lossy(),
                "problem": finding.problem, "mended": finding.mended,
            })
        });
        ui::json(&findings.collect());
    } else {
        for finding in &findings {
            let mended = if finding.mended { "; made again of what is shown" } else { "" };
            let path = ui::path(&finding.path);
            ui::line(&format!("{}: `{path}`: {}{mended}", finding.instance, finding.problem));
        }
        let left = findings.iter().filter(|finding| !finding.mended).count();
        let unknown = if findings.is_empty() { project.unknown(pipeline)? } else { 0 };
        ui::line(&match (findings.len(), left) {
            (0, _) if unknown > 0 && unknown == pipeline.instances.len() => {
                "nothing was read: none of these results was made or restored here (`--profile` names others)"
                    .to_owned()
            }
            (0, _) if unknown > 0 => {
                let all = pipeline.instances.len();
                format!(
                    "no damage; of {unknown} of {all} results nothing is known here, so they were not read"
                )
            }
            (0, _) => "every result is what it was".to_owned(),
            (_, 0) => "what was damaged is mended; a disk that damages files should be checked".to_owned(),
            _ => {
                format!(
                    "{left} damaged or missing; what a run that was killed had not noted yet, the next one settles; else \
                     delete what is there, and `repro run` restores or makes anew what is needed"
                )
            }
        });
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { FailureKind::Integrity.into() })
}
