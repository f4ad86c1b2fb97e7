//! `repro status`: what is fresh and what is not, and why.

use std::process::ExitCode;

use engine::{
    instance::{InstanceId, Pipeline},
    plan::Standing,
};
use serde_json::json;

use super::Asked;
use crate::{args::Global, error::Failure, ui};

pub(super) fn status(
    global: &Global,
    names: &[String],
    allow_missing: bool,
    [quiet, json]: [bool; 2],
) -> Result<ExitCode, Failure> {
    let asked = Asked::of(global, None)?;
    if names.is_empty()
        && !json
        && let Some(fresh) = asked.fresh()
    {
        if !quiet {
            ui::print(&format!("{fresh} fresh\n"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (pipeline, project, _) = asked.read()?;
    let ids = super::selected_or_all(pipeline, names)?;
    let standings = project.status(pipeline, allow_missing)?;
    let all: Vec<_> = ids.iter().map(|&id| (id, &standings[id])).collect();
    if quiet {
        let stale = all.iter().any(|(_, standing)| !standing.is_current());
        return Ok(ExitCode::from(u8::from(stale)));
    }
    if let Err(error) = project.check_lock_file(pipeline) {
        let hint = error.hint().unwrap_or_default();
        ui::note(&format!("warning: {error}; `repro run` refuses that\nhelp: {hint}"));
    }
    if json {
        ui::json(&all.iter().map(|(id, standing)| as_json(pipeline, *id, standing)).collect());
    } else {
        ui::print(&as_text(pipeline, &all, names.is_empty()));
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(pipeline: &Pipeline, id: InstanceId, standing: &Standing) -> serde_json::Value {
    let waits_for = if let Standing::Waiting(on) = standing { on.as_slice() } else { &[] };
    let waits_for: Vec<_> = waits_for.iter().map(|&id| &pipeline.instances[id].name).collect();
    json!({
        "name": pipeline.instances[id].name,
        "standing": super::word(standing),
        "reasons": super::each_reason(standing),
        "waits_for": waits_for,
    })
}

/// A line per instance and one for all; with `brief`, the fresh ones are only counted.
fn as_text(pipeline: &Pipeline, all: &[(InstanceId, &Standing)], brief: bool) -> String {
    let mut text = String::new();
    for (id, standing) in all {
        let word = super::word(standing);
        if *standing != &Standing::Fresh {
            let why = super::why(pipeline, standing);
            text.push_str(&format!("{word:<10} {}: {why}\n", pipeline.instances[*id].name));
        } else if !brief {
            text.push_str(&format!("{word:<10} {}\n", pipeline.instances[*id].name));
        }
    }
    let counts = super::counted(all.iter().map(|(_, standing)| *standing)).into_iter();
    let counts: Vec<_> = counts.map(|(count, word)| format!("{count} {word}")).collect();
    if counts.is_empty() { "no instances\n".to_owned() } else { text + &counts.join(", ") + "\n" }
}
