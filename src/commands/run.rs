//! `repro run`: brings stages up to date, or says what that would mean.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use engine::{
    idle::Question,
    instance::{InstanceId, Pipeline},
    pipeline::{self, load_text},
    plan::{Standing, Why},
    project::Project,
    run::{RunOptions, Summary, wanted},
};

use crate::{
    args::{Global, Run},
    error::{Failure, FailureKind},
    signals, ui,
    versions::versions,
    watch::{Screen, Watch},
};

pub(super) fn run(global: &Global, args: &Run) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let exe = this_program()?;
    let load = super::options(global);
    let source = pipeline::read(&load.file)?;
    let project = Project::open(&pipeline::root_of(&load.file))?;
    let question = asks_for_all(args).then(|| Question::new(&source, &load, &exe)).flatten();
    if let Some(question) = &question
        && let Some(fresh) = project.nothing_to_do(question)?
    {
        say(args, &nothing(fresh, started));
        return Ok(ExitCode::SUCCESS);
    }
    let pipeline = super::keep(load_text(source, &load, &stages::kinds())?);
    let options = RunOptions {
        targets: super::selected(pipeline, &args.instances)?,
        jobs: args.jobs.map_or(0, usize::from),
        keep_going: args.keep_going,
        force: args.force,
        only: args.only,
        dry_run: args.dry_run,
        offline: args.offline,
        exe,
        versions: versions(),
        question,
        ..RunOptions::default()
    };
    let screen = Screen::new(args.quiet);
    let voice = screen.clone();
    let told = move |level| voice.note(asked_to_stop(level));
    signals::count_into(Arc::clone(&options.stop), told)
        .map_err(|e| Failure::new(FailureKind::User, format!("cannot listen for Ctrl-C: {e}")))?;
    let mut watch = Watch::new(&project, pipeline, screen, args.quiet, wanted(pipeline, &options).len());
    let result = project.run(pipeline, &options, &mut watch);
    watch.end();
    let summary = result?;
    if args.dry_run {
        ui::print(&plan(pipeline, &summary.plan));
    } else {
        say(args, &closing(&summary, started));
    }
    Ok(crate::code(summary.exit_code()))
}

/// Is everything to be brought up to date, and nothing more?
fn asks_for_all(args: &Run) -> bool {
    args.instances.is_empty() && !args.force && !args.only && !args.dry_run
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
        _ => "stopping at once",
    }
}

/// The program that stages run in: this very one, even if its file is replaced meanwhile.
fn this_program() -> Result<PathBuf, Failure> {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() {
        return Ok(link);
    }
    std::env::current_exe()
        .map_err(|e| Failure::new(FailureKind::User, format!("cannot find this program's own file: {e}")))
}

/// What the run came to: `ran 8, restored 2, 4 fresh in 41.3 s`.
fn closing(summary: &Summary, started: Instant) -> String {
    let Summary { fresh, ran, restored, failed, skipped, interrupted, .. } = summary;
    let moved = [ran, restored, failed, skipped].iter().any(|list| !list.is_empty());
    if !moved && !interrupted {
        return nothing(fresh.len(), started);
    }
    let counts = [
        (ran, "ran ", ""),
        (restored, "restored ", ""),
        (failed, "failed ", ""),
        (skipped, "", " not reached"),
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

/// What a run would do, one line per instance that is not fresh.
fn plan(pipeline: &Pipeline, plan: &[(InstanceId, Standing)]) -> String {
    let mut text = String::new();
    let mut counts = [0; 5];
    for (id, standing) in plan {
        let (column, word, why) = match standing {
            Standing::Fresh => (4, "", String::new()),
            Standing::Stale(whys) if whys.iter().any(|why| matches!(why, Why::FileMissing(..))) => {
                (3, "fail", super::reasons(whys))
            }
            Standing::Stale(whys) => (0, "run", super::reasons(whys)),
            Standing::Restorable => (1, "restore", "the cache holds it".to_owned()),
            Standing::Waiting(on) => {
                (2, "maybe", format!("depends on what comes of {}", super::names(pipeline, on)))
            }
        };
        counts[column] += 1;
        if column != 4 {
            text.push_str(&format!("{word:<8} {}: {why}\n", pipeline.instances[*id].name));
        }
    }
    let [run, restore, maybe, fail, fresh] = counts;
    if run + restore + maybe + fail == 0 {
        return format!("nothing to do: {fresh} fresh\n");
    }
    let words = [
        (run, "will run"),
        (restore, "will be restored"),
        (maybe, "may run or be cut off"),
        (fail, "will fail"),
        (fresh, "fresh"),
    ];
    let parts: Vec<_> =
        words.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    text + &parts.join(", ") + "\n"
}
