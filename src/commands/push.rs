//! `repro push`: copies results to where others can take them from.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use engine::{instance::InstanceId, push::Given, share::Share};
use indicatif::DecimalBytes;

use crate::{
    args::Global,
    error::{Failure, FailureKind, Message},
    ui,
};

pub(super) fn push(global: &Global, folder: &Path, instances: &[String]) -> Result<ExitCode, Failure> {
    let (pipeline, project) = super::project(global)?;
    let wanted = super::selected_or_all(pipeline, instances)?;
    let pushed = project.push(pipeline, &wanted, &Share::create(folder)?)?;
    let (mut results, mut unfinished, mut there) = (0, 0, 0);
    let mut notes = BTreeMap::<&str, Vec<InstanceId>>::new();
    let mut worst = None;
    for (id, given) in pushed.given {
        let note = match given {
            Given::Result => {
                results += 1;
                continue;
            }
            Given::Unfinished => {
                unfinished += 1;
                continue;
            }
            Given::There => {
                there += 1;
                continue;
            }
            Given::Failed(error) => {
                let message = Message::Text(format!("`{}`: {error}", pipeline.instances[id].name));
                let failure = Failure { message, ..error.into() };
                ui::failure(&failure);
                worst = worst.max(Some(failure.kind));
                continue;
            }
            Given::Other => "another result of the same recipe is there, and stays",
            Given::Later => "what is there to go on from was written later, and stays",
            Given::Running => "it runs; push again once it has stopped",
            Given::Nothing => "it has nothing of today to copy",
        };
        // Who names something wants it to be there.
        if !instances.is_empty() && matches!(given, Given::Running | Given::Nothing) {
            worst = worst.max(Some(FailureKind::User));
        }
        notes.entry(note).or_default().push(id);
    }
    for (note, ids) in notes {
        ui::note(&format!("{}: {note}", super::names(pipeline, &ids)));
    }
    let copied = [(results, "result", "results"), (unfinished, "unfinished", "unfinished")];
    let copied = copied.into_iter().filter(|(count, ..)| *count > 0);
    let copied: Vec<_> = copied.map(|(count, one, many)| ui::count(count, one, many)).collect();
    let copied = if copied.is_empty() { "nothing".to_owned() } else { copied.join(" and ") };
    ui::line(&format!("pushed {copied} ({}), {there} there already", DecimalBytes(pushed.bytes)));
    Ok(worst.map_or(ExitCode::SUCCESS, ExitCode::from))
}
