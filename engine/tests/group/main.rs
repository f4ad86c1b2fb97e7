//! Groups: stages that run together in one process. A program of its own and no ordinary test, because it
//! is also what the runner starts as `__stage`.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;
mod space;

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::symlink,
    panic::catch_unwind,
    process::{Command, ExitCode},
};

use engine::{kind::Kinds, observer::Event};

use crate::{
    common::{MOST, Toy},
    space::Space,
};

/// Tests and their names.
macro_rules! named {
    ($($test:ident),* $(,)?) => {
        [$((stringify!($test), $test as fn())),*]
    };
}

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some("__stage") {
        return engine::child::serve(&Kinds::default().with(Toy("toy")));
    }
    // A machine with two GPUs, as far as the runner can tell.
    const GPUS: (&str, &str) = ("CUDA_VISIBLE_DEVICES", "3,5");
    if env::var(GPUS.0).as_deref() != Ok(GPUS.1) {
        let status = Command::new(env::current_exe().unwrap()).env(GPUS.0, GPUS.1).status().unwrap();
        return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let tests = named![
        equal_keys_share_a_process,
        each_result_is_what_it_would_be_alone,
        one_that_fails_takes_no_other_along,
        one_that_cannot_start_takes_no_other_along,
        a_crash_fails_those_that_had_not_finished,
        who_leaves_without_a_word_has_failed,
        one_that_is_done_waits_for_no_other,
        one_that_has_failed_is_told_of_at_once,
        a_group_is_no_larger_than_its_kind_says,
        one_waits_for_its_like,
        a_full_group_waits_for_nobody,
        one_that_does_not_fit_parts_no_others,
        twins_run_once,
        the_twin_of_a_failure_waits_for_no_other,
        a_kind_takes_a_gpu_where_there_is_one,
        each_gpu_gets_its_part_of_a_group,
        what_is_launched_says_where_it_runs,
        who_cannot_stop_well_has_failed,
        one_that_waits_in_a_queue_holds_up_no_other,
        a_stage_holds_its_scratch_folder,
    ];
    let failed = tests.iter().filter(|(name, test)| {
        let passed = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        !passed
    });
    if failed.count() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Who waits there for what another makes would wait in vain.
fn one_thread() -> bool {
    std::thread::available_parallelism().unwrap().get() == 1
}

fn equal_keys_share_a_process() {
    let space = Space::new(&[("a", "key", "one"), ("b", "other", "two"), ("c", "key", "three")]);
    let run = space.succeeds();
    assert_eq!(run.process("a"), run.process("c"));
    assert_ne!(run.process("a"), run.process("b"));
    let together: Vec<_> = ["a", "b", "c"].map(|name| space.note(name, "together")).into();
    assert_eq!(together, [Some(2), None, Some(2)]);
}

fn each_result_is_what_it_would_be_alone() {
    let stages = [("a", "key", "one"), ("b", "key", "two")];
    let (together, alone) =
        (Space::new(&stages), Space::new(&stages.map(|(name, _, word)| (name, name, word))));
    let run = together.run();
    assert_eq!(run.process("a"), run.process("b"));
    let apart = alone.run();
    assert_ne!(apart.process("a"), apart.process("b"));
    for (name, _, word) in stages {
        assert_eq!(together.read(name), word);
        assert_eq!(together.read(name), alone.read(name));
        let (log, other) = (together.log(name), if name == "a" { "two" } else { "one" });
        assert!(log.contains(word) && !log.contains(other), "each has its own log: {log}");
    }
    let again = together.run();
    assert_eq!((again.summary.fresh.len(), again.summary.ran.len()), (2, 0));
}

fn one_that_fails_takes_no_other_along() {
    let space = Space::new(&[("a", "key", "one"), ("b", "key", "fail"), ("c", "key", "three")]);
    let run = space.run();
    assert_eq!((run.summary.ran, run.summary.failed), (vec![0, 2], vec![1]));
    assert_eq!((space.read("a"), space.read("c")), ("one".into(), "three".into()));
    let told = run.events.iter().any(
        |event| matches!(event, Event::Failed { id: 1, message, .. } if message == "it was told to fail"),
    );
    assert!(told, "{:?}", run.events);
}

fn one_that_cannot_start_takes_no_other_along() {
    let space = Space::new(&[("a", "key", "one"), ("b", "key", "two"), ("c", "key", "three")]);
    fs::create_dir_all(space.path(".repro/logs")).unwrap();
    symlink("elsewhere", space.path(".repro/logs/a.log")).unwrap();
    let run = space.run();
    assert_eq!((&run.summary.ran[..], &run.summary.failed[..]), (&[1, 2][..], &[0][..]), "{:?}", run.events);
    assert_eq!(run.process("b"), run.process("c"));
}

fn a_crash_fails_those_that_had_not_finished() {
    let space = Space::new(&[("a", "key", "one"), ("b", "key", "crash")]);
    let run = space.run();
    let code = run.summary.exit_code();
    assert_eq!((run.summary.ran, run.summary.failed, code), (vec![0], vec![1], 1), "{:?}", run.events);
    assert!(space.path("artifacts/a").exists());
}

fn one_that_is_done_waits_for_no_other() {
    if one_thread() {
        return;
    }
    let mut space = Space::new(&[("a", "key", "one"), ("b", "key", "wait"), ("after", "", "three")]);
    space.stages[2].needs = Some(0);
    let run = space.succeeds();
    assert_eq!(run.process("a"), run.process("b"));
    assert_ne!(run.process("after"), run.process("b"));
}

fn one_that_has_failed_is_told_of_at_once() {
    let run = Space::new(&[("a", "key", "fail"), ("b", "key", "wait for a failure")]).run();
    assert_eq!((run.summary.failed, run.summary.ran), (vec![0], vec![1]), "{:?}", run.events);
}

fn who_leaves_without_a_word_has_failed() {
    let run = Space::new(&[("a", "", "leave")]).run();
    assert_eq!((run.summary.failed, run.summary.ran), (vec![0], vec![]), "{:?}", run.events);
    let said =
        |event: &Event| matches!(event, Event::Failed { message, .. } if message.contains("before it said"));
    assert!(run.events.iter().any(said), "{:?}", run.events);
}

fn a_group_is_no_larger_than_its_kind_says() {
    let space = Space::new(&["a", "b", "c", "d"].map(|name| (name, "key", name)));
    let run = space.run();
    let processes: BTreeSet<_> = ["a", "b", "c", "d"].map(|name| run.process(name)).into();
    assert_eq!(processes.len(), 2, "groups of {}", MOST);
}

fn one_waits_for_its_like() {
    let mut space = Space::new(&[("slow", "", "sleep"), ("a", "key", "one"), ("b", "key", "two")]);
    space.stages[2].needs = Some(0);
    let run = space.succeeds();
    assert_eq!(run.process("a"), run.process("b"));
}

fn a_full_group_waits_for_nobody() {
    if one_thread() {
        return;
    }
    // The first ends only when the last is there, which needs one of a group that is full without `more`.
    let stages = [("first", "", "wait"), ("a", "key", "one"), ("b", "key", "two"), ("c", "key", "three")];
    let mut space = Space::new(&[&stages[..], &[("more", "key", "four"), ("after", "", "five")]].concat());
    space.stages[4].needs = Some(0);
    space.stages[5].needs = Some(1);
    let run = space.succeeds();
    assert_eq!(run.process("a"), run.process("c"));
}

fn one_that_does_not_fit_parts_no_others() {
    if one_thread() {
        return;
    }
    // `large` wants all of the memory, of which the first holds some until the last is there.
    let stages = [("first", "", "wait"), ("a", "key", "one"), ("large", "key", "two"), ("b", "key", "three")];
    let mut space = Space::new(&[&stages[..], &[("after", "", "four")]].concat());
    (space.stages[0].memory, space.stages[2].memory) = (1, u64::MAX);
    space.stages[4].needs = Some(3);
    let run = space.succeeds();
    assert_eq!(run.process("a"), run.process("b"));
    assert_ne!(run.process("a"), run.process("large"));
}

fn twins_run_once() {
    let space = Space::new(&[("a", "key", "one"), ("b", "key", "one")]);
    let run = space.run();
    assert_eq!((run.summary.ran, run.summary.restored), (vec![0], vec![1]));
    assert_eq!(fs::read_to_string(space.path("artifacts/b/x")).unwrap(), "one");
}

fn the_twin_of_a_failure_waits_for_no_other() {
    if one_thread() {
        return;
    }
    // The process of the first, whose scratch folder the twin has too, goes on until the twin has begun.
    let run = Space::new(&[("a", "key", "fail"), ("b", "key", "fail"), ("c", "key", "wait for b")]).run();
    assert_eq!((run.summary.failed, run.summary.ran), (vec![0, 1], vec![2]), "{:?}", run.events);
    let told =
        |event: &&Event| matches!(event, Event::Failed { message, .. } if message == "it was told to fail");
    assert_eq!(run.events.iter().filter(told).count(), 2, "{:?}", run.events);
}

fn a_kind_takes_a_gpu_where_there_is_one() {
    let run = Space::new(&[("a", "", "gpu-1"), ("b", "", "gpu-2"), ("c", "", "none")]).succeeds();
    assert_eq!(run.gpus("c"), "[]", "what was given none sees none");
    let seen: BTreeSet<_> = ["a", "b"].map(|name| run.gpus(name)).into();
    assert_eq!(seen, ["[3]", "[5]"].map(str::to_owned).into());
}

fn each_gpu_gets_its_part_of_a_group() {
    let stages = [("a", "gpu-1"), ("b", "gpu-2"), ("c", "gpu-3"), ("d", "gpu-4")];
    let run = Space::new(&stages.map(|(name, word)| (name, "key", word))).succeeds();
    let parts: BTreeSet<_> = ["a", "b", "c", "d"].map(|name| (run.process(name), run.gpus(name))).into();
    assert_eq!(parts.len(), 2, "two processes: {parts:?}");
    let gpus: BTreeSet<_> = parts.into_iter().map(|(_, gpus)| gpus).collect();
    assert_eq!(gpus.len(), 2, "each with a GPU of its own");
}

fn what_is_launched_says_where_it_runs() {
    let space = Space::new(&[("a", "k", "1"), ("b", "k", "2"), ("c", "", "gpu")]);
    let launcher = "sh -c 'if [ $REPRO_GPUS ]; then export CUDA_VISIBLE_DEVICES=7; fi; exec \"$@\"' queue";
    let run = space.run_by(Some(launcher));
    assert_eq!(run.summary.exit_code(), 0, "{:?}", run.events);
    assert_eq!(run.process("a"), run.process("b"));
    // Who starts them hands out the GPUs; without one asked for there is none to see.
    assert_eq!([run.gpus("a"), run.gpus("c")], ["[]", "[7]"]);
    for name in ["a", "b", "c"] {
        let facts = space.facts(name);
        assert_eq!(facts["launcher"], launcher);
        assert!(!facts["machine"]["instructions"].as_str().unwrap().is_empty(), "{facts}");
    }
}

fn who_cannot_stop_well_has_failed() {
    let space = Space::new(&[("a", "", "save"), ("b", "", "cannot save")]);
    if one_thread() {
        return;
    }
    let run = space.run_stopped("b");
    assert!(run.summary.interrupted);
    assert_eq!((&run.summary.stopped[..], &run.summary.failed[..]), (&[0][..], &[1][..]), "{:?}", run.events);
    let told = |event: &Event| matches!(event, Event::Failed { id: 1, message, .. } if message == "the disk is full");
    assert!(run.events.iter().any(told), "{:?}", run.events);
}

fn one_that_waits_in_a_queue_holds_up_no_other() {
    // More than a pipe holds.
    let much: &'static str = Box::leak("much ".repeat(50_000).into_boxed_str());
    let space = Space::new(&[("a", "", much), ("b", "", "1")]);
    let launcher = "sh -c '\
        if [ $REPRO_STAGE = b ]; then touch begun; fi; \
        for i in $(seq 200); do [ -e begun ] || sleep 0.1; done; exec \"$@\"' queue";
    let run = space.run_by(Some(launcher));
    assert_eq!(run.summary.exit_code(), 0, "{:?}", run.events);
    assert_eq!(space.read("a"), much);
    let waited = run.events.iter().filter_map(|event| match event {
        Event::Finished { seconds, .. } => Some(*seconds),
        _ => None,
    });
    assert!(waited.reduce(f64::max) < Some(15.0), "a waited for b in vain");
}

fn a_stage_holds_its_scratch_folder() {
    // Elsewhere no `/proc` tells.
    if cfg!(target_os = "linux") {
        Space::new(&[("a", "", "hold")]).succeeds();
    }
}
