//! `repro pull`: shows results that somebody else made.

use std::{process::ExitCode, time::Instant};

use engine::{
    instance::InstanceId,
    project::Project,
    run::{RunOptions, Summary},
    share::Share,
};

use super::run::{Told, closing, watched};
use crate::{
    args::{Global, Pull, quoted},
    error::{Failure, FailureKind},
    ui,
};

pub(super) fn pull(global: &Global, args: &Pull) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let pipeline = super::pipeline(global)?;
    let project = Project::open_beside(&pipeline.root, Some(Share::open(&args.folder)?))?;
    let options = RunOptions {
        targets: super::selected(pipeline, &args.instances)?,
        keep_going: true,
        restore_only: true,
        allow_missing: args.allow_missing,
        ..RunOptions::default()
    };
    let summary = watched(&project, pipeline, &options, Told::Live)?;
    let Summary { skipped, failed, interrupted, .. } = &summary;
    if !skipped.is_empty() && !interrupted {
        let without =
            |from| [skipped, failed].iter().any(|sorted: &&Vec<_>| sorted.binary_search(from).is_ok());
        let behind = |id: &InstanceId| pipeline.instances[*id].needs.iter().any(|need| without(&need.from));
        let (behind, missing): (Vec<_>, Vec<_>) = skipped.iter().partition(|id| behind(id));
        let folder = args.folder.display();
        for (ids, why) in
            [(missing, format!("not in `{folder}`")), (behind, "of no use without what it needs".into())]
        {
            if !ids.is_empty() {
                ui::note(&format!("{}: {why}", super::names(pipeline, &ids)));
            }
        }
        let (again, folder) = (global.again(), quoted(&folder.to_string()));
        ui::note(&format!("help: `repro{again} run --from {folder}` runs what is missing"));
    }
    ui::line(&closing(&summary, started, " not taken"));
    let missed = options.targets.iter().any(|id| skipped.binary_search(id).is_ok());
    // Who names something wants it to be here.
    let missed = missed && summary.exit_code() == 0;
    Ok(if missed { FailureKind::User.into() } else { ExitCode::from(summary.exit_code()) })
}
