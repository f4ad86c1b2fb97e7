//! Stages whose processes a launcher starts: here a script in the place of a cluster's.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use engine::{instance::Resources, launcher::Launcher, observer::Event, run::RunOptions};

use crate::space::{Space, read};

/// Where the launcher has this program run commands: a stand-in for what `run_command` does until it is to stop.
fn by(space: &Space, command: &str, jobs: usize) -> RunOptions {
    let exe = space.path("program");
    fs::write(
        &exe,
        "#!/bin/sh\n[ \"$1\" = __stage ] && /bin/sh -ec \"$2\" && echo \"[repro: the command ended well: $REPRO_END]\"\n",
    )
    .unwrap();
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).unwrap();
    RunOptions { jobs, exe, launcher: Some(Launcher(command.to_owned())), ..RunOptions::default() }
}

#[test]
fn a_launcher_that_loses_the_exit_code_makes_no_result_of_a_command_that_failed() {
    for (run, failed) in
        [("echo part > $OUT/x; exit 3", vec![0]), ("printf 'no end of line' | tee $OUT/x", vec![])]
    {
        let space = Space::of(vec![("a", run.into(), vec![])]);
        fs::write(space.path("launch.sh"), "\"$@\" | cat\n").unwrap();
        let (summary, events) =
            crate::common::run(&space.pipeline(), &by(&space, "sh \"$PWD\"/launch.sh", 1));
        assert_eq!(summary.failed, failed, "{events:?}");
    }
}

#[test]
fn a_launcher_that_passes_nothing_on_is_told_of_what_is_missing() {
    let space = Space::of(vec![("a", "echo 1 > $OUT/x".into(), vec![])]);
    fs::write(space.path("launch.sh"), "exec env -i PATH=\"$PATH\" OUT=\"$OUT\" \"$@\"\n").unwrap();
    let (summary, events) = crate::common::run(&space.pipeline(), &by(&space, "sh \"$PWD\"/launch.sh", 1));
    assert_eq!(summary.failed, [0], "{events:?}");
    let told = |event: &Event| matches!(event, Event::Failed { message, .. } if message.contains("does not pass the variable `REPRO_END` on"));
    assert!(events.iter().any(told), "{events:?}");
}

/// A launcher that notes what it was told, and what it was to run.
const NOTING: &str = "\
    echo \"$REPRO_STAGE ${REPRO_THREADS-none} ${REPRO_GPUS-none} ${REPRO_MEMORY_MIB-none} $1 $2\" >> launched\n\
    exec \"$@\"\n";

#[test]
fn a_launcher_is_told_what_a_stage_asks_for_and_this_machine_is_not_asked() {
    let space = Space::new();
    fs::write(space.path("launch.sh"), NOTING).unwrap();
    let mut pipeline = space.pipeline();
    // More than there is here.
    pipeline.instances[1].resources = Resources { threads: 100_000, gpus: 99, memory: (1 << 50) + 1 };
    let (summary, events) = crate::common::run(&pipeline, &by(&space, "sh \"$PWD\"/launch.sh", 1));
    assert_eq!(summary.ran, [0, 1, 2, 3], "{events:?}");
    let mut launched: Vec<_> = read(&space.path("launched")).lines().map(str::to_owned).collect();
    launched.sort();
    let program = format!("{} __stage", space.path("program").display());
    let memory = (1_u64 << 30) + 1;
    assert_eq!(
        launched,
        [
            format!("a 1 none none {program}"),
            format!("b 100000 99 {memory} {program}"),
            format!("c 1 none none {program}"),
            format!("d 1 none none {program}"),
        ]
    );
    assert_eq!(read(&space.path("artifacts/c/z")), "o\n");
    let records = fs::read_dir(space.path(".repro/records")).unwrap();
    let folders = records.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let runs: Vec<_> = folders
        .map(|file| serde_json::from_str::<serde_json::Value>(&read(&file.unwrap().path())).unwrap())
        .map(|record| record["run"].clone())
        .collect();
    assert_eq!(runs.len(), 4);
    for run in runs {
        assert_eq!(run["launcher"], "sh \"$PWD\"/launch.sh");
        // A command does not say where it ran, and it need not be here.
        assert_eq!((&run["machine"]["cpu"], &run["machine"]["instructions"]), (&().into(), &"".into()));
        assert!(run["machine"]["versions"].as_object().is_some_and(|versions| !versions.is_empty()));
    }
    // How it was started is in no recipe.
    space.ran(&[], &[]);
}

#[test]
fn at_most_so_many_are_launched_at_once() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let most = |jobs, seconds: f32| {
        let sleep = |name: &str| {
            format!("echo + >> running; sleep {seconds}; echo - >> running; echo {name} > $OUT/x")
        };
        let space = Space::of(names.map(|name| (name, sleep(name), vec![])).to_vec());
        let (summary, events) = space.run_with(&by(&space, "env", jobs));
        assert_eq!(summary.ran.len(), 8, "{events:?}");
        space.most_at_once()
    };
    assert_eq!(most(1, 0.05), 1);
    // However few threads this machine has.
    assert!(most(8, 1.0) > 4);
}

#[test]
fn a_launcher_that_fails_is_quoted() {
    let space = Space::new();
    let (summary, events) =
        space.run_with(&by(&space, "sh -c 'echo no such partition >&2; exit 3' queue", 1));
    assert_eq!(summary.failed, [0]);
    let told = events.iter().any(|event| {
        matches!(event, Event::Failed { message, .. }
            if message.contains("exit code 3") && message.contains("no such partition"))
    });
    assert!(told, "{events:?}");
}

#[test]
fn a_launcher_that_is_not_there_is_named() {
    let space = Space::new();
    let (summary, events) = space.run_with(&by(&space, "no-such-launcher -n 1", 1));
    assert_eq!(summary.failed, [0]);
    let told = |event: &Event| matches!(event, Event::Failed { message, .. } if message.contains("no-such-launcher"));
    assert!(events.iter().any(told), "{events:?}");
}

#[test]
fn a_program_that_is_replaced_meanwhile_starts_no_more_stages() {
    let replaces = "cp program new; echo >> new; mv new program; echo > $OUT/x";
    let stages = vec![("a", replaces.to_owned(), vec![]), ("b", "echo > $OUT/x".to_owned(), vec!["a"])];
    let space = Space::of(stages);
    let options = by(&space, "env", 1);
    let (summary, events) = space.run_with(&options);
    assert_eq!((summary.ran, summary.failed), (vec![0], vec![1]));
    let told = |event: &Event| matches!(event, Event::Failed { message, .. } if message.contains("no longer the program"));
    assert!(events.iter().any(told), "{events:?}");
    assert_eq!(space.run_with(&options).0.ran, [1]);
}

#[test]
fn a_launcher_can_end_what_it_started_before_it_is_killed() {
    // What it starts is out of reach: in a session of its own, with nothing of the runner's open.
    let launcher = "\
        setsid \"$@\" > there 2>&1 < /dev/null & job=$!\n\
        trap 'kill -9 $job; echo > ended; exit 1' TERM\n\
        wait\n";
    let space = Space::of(vec![("a", "echo > begun; sleep 60".to_owned(), vec![])]);
    fs::write(space.path("launch.sh"), launcher).unwrap();
    let options = by(&space, "sh launch.sh", 1);
    let (stop, begun) = (Arc::clone(&options.stop), space.path("begun"));
    let stopper = std::thread::spawn(move || {
        while !begun.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(2, Ordering::Relaxed);
    });
    let (summary, events) = space.run_with(&options);
    stopper.join().unwrap();
    assert!(summary.interrupted && summary.stopped == [0], "{events:?}");
    assert!(space.path("ended").exists(), "it was not asked");
}
