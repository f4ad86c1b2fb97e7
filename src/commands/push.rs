//! `repro push`: copies results to where others can take them from.

use std::{path::Path, process::ExitCode};

use engine::share::{Pushed, Share};
use indicatif::DecimalBytes;

use crate::{
    args::Global,
    error::{Failure, FailureKind},
    ui,
};

pub(super) fn push(global: &Global, folder: &Path, instances: &[String]) -> Result<ExitCode, Failure> {
    let (pipeline, project) = super::project(global)?;
    let wanted = super::selected_or_all(pipeline, instances)?;
    let Pushed { results, there, unfinished, running, left, bytes } =
        project.push(pipeline, &wanted, &Share::create(folder)?)?;
    for (ids, what) in [(&running, "runs; push again once it has stopped"), (&left, "has no result of today")]
    {
        if !ids.is_empty() {
            ui::note(&format!("{}: {what}", super::names(pipeline, ids)));
        }
    }
    let copied = [(results.len(), "result", "results"), (unfinished.len(), "unfinished", "unfinished")];
    let copied = copied.into_iter().filter(|(count, ..)| *count > 0);
    let copied: Vec<_> = copied.map(|(count, one, many)| ui::count(count, one, many)).collect();
    let copied = if copied.is_empty() { "nothing".to_owned() } else { copied.join(" and ") };
    ui::line(&format!("pushed {copied} ({}), {} there already", DecimalBytes(bytes), there.len()));
    // Who names something wants it to be there.
    let all = running.is_empty() && left.is_empty();
    Ok(if all || instances.is_empty() { ExitCode::SUCCESS } else { FailureKind::User.into() })
}
