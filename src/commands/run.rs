//! `repro run`: brings stages up to date, or says what that would mean.

use std::{path::Path, process::ExitCode, sync::Arc, time::Instant};

use engine::{
    instance::{InstanceId, Pipeline},
    launcher::Launcher,
    plan::{Standing, Why},
    project::Project,
    run::{RunOptions, Summary, wanted},
};

use super::Asked;
use crate::{
    args::{Global, Run},
    error::Failure,
    signals, ui,
    versions::versions,
    watch::{Screen, Watch},
};

pub(super) fn run(global: &Global, args: &Run) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let asked = Asked::of(global, args.from.as_deref())?;
    if args.instances.is_empty()
        && !args.force
        && let Some(fresh) = asked.fresh()
    {
        if args.dry_run {
            ui::print(&nothing_to_run(fresh));
        } else {
            say(args, &nothing(fresh, started));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (pipeline, project, question) = asked.read()?;
    let options = RunOptions {
        targets: super::selected(pipeline, &args.instances)?,
        jobs: args.jobs.map_or(0, usize::from),
        keep_going: args.keep_going,
        force: args.force,
        only: args.only,
        allow_missing: args.allow_missing,
        offline: args.offline,
        exe: if args.launcher.is_some() { super::this_file()? } else { super::this_program()? },
        launcher: args.launcher.clone().map(Launcher),
        versions: versions(),
        question,
        ..RunOptions::default()
    };
    if args.dry_run {
        ui::print(&plan(pipeline, &project.dry_run(pipeline, &options)?, args.from.as_deref()));
        return Ok(ExitCode::SUCCESS);
    }
    let summary = watched(&project, pipeline, &options, args.quiet)?;
    say(args, &closing(&summary, started, " not reached"));
    Ok(ExitCode::from(summary.exit_code()))
}

/// Runs it where the user sees what happens, and can stop it.
pub(super) fn watched(
    project: &Project,
    pipeline: &'static Pipeline,
    options: &RunOptions,
    quiet: bool,
) -> Result<Summary, Failure> {
    let screen = Screen::new(quiet);
    stoppable(options, &screen)?;
    let mut watch = Watch::new(project, pipeline, screen, quiet, wanted(pipeline, options).len());
    let result = project.run(pipeline, options, &mut watch);
    watch.end();
    Ok(result?)
}

/// From now on Ctrl-C asks a run to stop.
fn stoppable(options: &RunOptions, screen: &Screen) -> Result<(), Failure> {
    let voice = screen.clone();
    let told = move |level| {
        voice.note(asked_to_stop(level));
        if level > 2 {
            std::process::exit(130); // something waits where nobody looks; a run can be killed at any time
        }
    };
    let listening = signals::count_into(Arc::clone(&options.stop), told);
    listening.map_err(|e| Failure::user(format!("cannot listen for Ctrl-C: {e}")))
}

fn say(args: &Run, text: &str) {
    if !args.quiet {
        ui::line(text);
    }
}

fn nothing(fresh: usize, started: Instant) -> String {
    format!("nothing to do: {fresh} fresh ({})", ui::seconds(started.elapsed().as_secs_f64()))
}

fn asked_to_stop(level: usize) -> &'static str {
    match level {
        1 => "stopping at the next safe point; Ctrl-C again stops at once",
        2 => "stopping at once; Ctrl-C again leaves everything as it is",
        _ => "left",
    }
}

/// What the run came to: `ran 8, restored 2, 4 fresh in 41.3 s`; `unreached` says what became of the others.
pub(super) fn closing(summary: &Summary, started: Instant, unreached: &str) -> String {
    let Summary { fresh, ran, restored, taken, failed, stopped, skipped, interrupted, .. } = summary;
    let moved = [ran, restored, taken, failed, stopped, skipped].iter().any(|list| !list.is_empty());
    if !moved && !interrupted && !summary.published {
        return nothing(fresh.len(), started);
    }
    let counts = [
        (ran, "ran ", ""),
        (restored, "restored ", ""),
        (taken, "", " as the lock file says"),
        (failed, "failed ", ""),
        (stopped, "stopped ", ""),
        (skipped, "", unreached),
        (fresh, "", " fresh"),
    ];
    let parts: Vec<String> = counts
        .iter()
        .filter(|(list, ..)| !list.is_empty())
        .map(|(list, before, after)| format!("{before}{}{after}", list.len()))
        .collect();
    let how = if *interrupted { "interrupted, everything finished is kept: " } else { "" };
    format!("{how}{} in {}", parts.join(", "), ui::seconds(started.elapsed().as_secs_f64()))
}

/// Can nothing be made where this is so?
fn fails(why: &Why) -> bool {
    matches!(why, Why::FileMissing(..) | Why::InputLacks(..) | Why::Unpublishable(_))
}

fn nothing_to_run(fresh: usize) -> String {
    format!("nothing to do: {fresh} fresh\n")
}

/// What a run would do, one line per instance that is not fresh.
fn plan(pipeline: &Pipeline, plan: &[(InstanceId, Standing)], from: Option<&Path>) -> String {
    const FRESH: usize = 5;
    let mut text = String::new();
    let mut counts = [0; 6];
    for (id, standing) in plan {
        let (column, word, why) = match standing {
            Standing::Fresh => (FRESH, "", String::new()),
            Standing::Stale(whys) => {
                let (column, word) = if whys.iter().any(fails) { (3, "fail") } else { (0, "run") };
                (column, word, super::why(pipeline, standing))
            }
            Standing::Restorable(touched) => (1, "restore", super::restorable(touched.as_ref(), from)),
            Standing::Locked => (4, "take", super::why(pipeline, standing)),
            Standing::Waiting(on) => {
                (2, "maybe", format!("depends on what comes of {}", super::names(pipeline, on)))
            }
        };
        counts[column] += 1;
        if column != FRESH {
            text.push_str(&format!("{word:<8} {}: {why}\n", pipeline.instances[*id].name));
        }
    }
    let [run, restore, maybe, fail, take, fresh] = counts;
    if run + restore + maybe + fail + take == 0 {
        return nothing_to_run(fresh);
    }
    let words = [
        (run, "will run"),
        (restore, "will be restored"),
        (maybe, "may run or be cut off"),
        (fail, "will fail"),
        (take, "as the lock file says"),
        (fresh, "fresh"),
    ];
    let parts: Vec<_> =
        words.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    text + &parts.join(", ") + "\n"
}
