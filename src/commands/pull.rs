//! `repro pull`: shows results that somebody else made.

use std::{process::ExitCode, time::Instant};

use engine::{
    project::Project,
    run::{RunOptions, wanted},
    share::Share,
};

use super::run::closing;
use crate::{
    args::{Global, Pull},
    error::Failure,
    ui,
    watch::{Screen, Watch},
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
    let wanted = wanted(pipeline, &options).len();
    let mut watch = Watch::new(&project, pipeline, Screen::new(false), false, wanted);
    let result = project.run(pipeline, &options, &mut watch);
    watch.end();
    let summary = result?;
    ui::line(&closing(&summary, started, " neither here nor there"));
    if !summary.skipped.is_empty() {
        ui::note("help: `repro run --from` the same folder runs those, and takes what their results lead to");
    }
    Ok(ExitCode::from(summary.exit_code()))
}
