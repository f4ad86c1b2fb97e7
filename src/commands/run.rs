//! `repro run`: brings stages up to date, or says what that would mean.

use std::{process::ExitCode, sync::Arc, time::Instant};

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
    events::{Events, ended},
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
            say(args, &Summary { fresh: (0..fresh).collect(), ..Summary::default() }, started);
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
        let all = project.dry_run(pipeline, &options)?;
        ui::print(&plan(pipeline, &all, args));
        let failing: Vec<_> =
            all.iter().filter(|(_, standing)| will_fail(standing)).map(|(id, _)| *id).collect();
        tell_of_clones(&project, pipeline, args, &failing);
        return Ok(ExitCode::SUCCESS);
    }
    let summary = watched(&project, pipeline, &options, Told::of(args))?;
    tell_of_clones(&project, pipeline, args, &summary.failed);
    say(args, &summary, started);
    Ok(ExitCode::from(summary.exit_code()))
}

/// How what happens is told.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Told {
    /// As it happens, for people.
    Live,
    /// Failures alone.
    Failures,
    /// As JSON, and failures.
    Json,
}

impl Told {
    fn of(args: &Run) -> Self {
        match args {
            Run { json: true, .. } => Self::Json,
            Run { quiet: true, .. } => Self::Failures,
            _ => Self::Live,
        }
    }
}

/// Runs it where somebody is told what happens, and can stop it.
pub(super) fn watched(
    project: &Project,
    pipeline: &'static Pipeline,
    options: &RunOptions,
    told: Told,
) -> Result<Summary, Failure> {
    let quiet = told != Told::Live;
    let screen = Screen::new(quiet);
    stoppable(options, &screen)?;
    let mut watch = Watch::new(project, pipeline, screen, quiet, wanted(pipeline, options).len());
    let result = match told {
        Told::Json => project.run(pipeline, options, &mut Events { pipeline, watch: &mut watch }),
        Told::Live | Told::Failures => project.run(pipeline, options, &mut watch),
    };
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

fn say(args: &Run, summary: &Summary, started: Instant) {
    if args.json {
        ended(summary, started.elapsed().as_secs_f64());
    } else if !args.quiet {
        ui::line(&closing(summary, started, " not reached"));
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

fn will_fail(standing: &Standing) -> bool {
    matches!(standing, Standing::Stale(whys) if whys.iter().any(fails))
}

/// Tells which of those that `failed` for want of a file a clone has, or can get, without it.
fn tell_of_clones(project: &Project, pipeline: &Pipeline, args: &Run, failed: &[InstanceId]) {
    if failed.is_empty() || args.allow_missing || args.force || args.only {
        return;
    }
    // Where the lock file cannot be read there is nothing to tell; the run has said so.
    let Ok(now) = project.status(pipeline, false) else { return };
    let lacks = |id: InstanceId| match &now[id] {
        Standing::Stale(whys) => whys.iter().find_map(|why| match why {
            Why::FileMissing(path, _) => Some(path),
            _ => None,
        }),
        _ => None,
    };
    let mut lacking: Vec<_> = failed.iter().filter_map(|&id| Some((id, lacks(id)?))).collect();
    if lacking.is_empty() {
        return; // most failures are others
    }
    let Ok(believing) = project.status(pipeline, true) else { return };
    lacking.retain(|(id, _)| !will_fail(&believing[*id]));
    if let Some((_, path)) = lacking.first() {
        let ids: Vec<_> = lacking.iter().map(|(id, _)| *id).collect();
        ui::note(&format!(
            "help: in a clone without `{}`: `--allow-missing` takes what the lock file says of {}",
            path.display(),
            super::names(pipeline, &ids)
        ));
    }
}

fn nothing_to_run(fresh: usize) -> String {
    format!("nothing to do: {fresh} fresh\n")
}

/// What a run would do, one line per instance that is not fresh.
fn plan(pipeline: &Pipeline, plan: &[(InstanceId, Standing)], args: &Run) -> String {
    const FRESH: usize = 5;
    let mut text = String::new();
    let mut counts = [0; 7];
    let failing = plan.iter().position(|(_, standing)| will_fail(standing)).filter(|_| !args.keep_going);
    for (index, (id, standing)) in plan.iter().enumerate() {
        let (column, word, why) = match standing {
            Standing::Fresh => (FRESH, "", String::new()),
            Standing::Stale(_) => {
                let (column, word) = if will_fail(standing) { (3, "fail") } else { (0, "run") };
                (column, word, super::why(pipeline, standing))
            }
            Standing::Restorable(touched) => {
                (1, "restore", super::restorable(touched.as_ref(), args.from.as_deref()))
            }
            Standing::Locked => (4, "take", super::why(pipeline, standing)),
            Standing::Waiting(on) => {
                (2, "maybe", format!("depends on what comes of {}", super::names(pipeline, on)))
            }
        };
        // A run judges in order before it starts anything, and most of what fails it finds by that: what runs may come too
        // late wherever it stands, what is only put in its place where it stands behind.
        let early =
            |failing| matches!(standing, Standing::Restorable(_) | Standing::Locked) && index < failing;
        let cut_off =
            column != FRESH && !will_fail(standing) && failing.is_some_and(|failing| !early(failing));
        let (column, word) = if cut_off { (6, "maybe") } else { (column, word) };
        counts[column] += 1;
        if column != FRESH {
            text.push_str(&format!("{word:<8} {}: {why}\n", pipeline.instances[*id].name));
        }
    }
    let [run, restore, maybe, fail, take, fresh, unreached] = counts;
    if run + restore + maybe + fail + take == 0 {
        return nothing_to_run(fresh);
    }
    let words = [
        (run, "will run"),
        (restore, "will be restored"),
        (maybe, "may run or be cut off"),
        (fail, "will fail"),
        (unreached, "may not be reached without `-k`"),
        (take, "as the lock file says"),
        (fresh, "fresh"),
    ];
    let parts: Vec<_> =
        words.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    text + &parts.join(", ") + "\n"
}
