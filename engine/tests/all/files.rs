//! The files around a stage: those that it reads, those that it leaves, those that it publishes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use engine::{
    observer::Event,
    plan::{Standing, Why},
    project::Project,
    run::RunOptions,
};

use crate::space::{Space, read};

fn published(events: &[Event]) -> Vec<PathBuf> {
    let path = |event: &Event| match event {
        Event::Published { path, .. } => Some(path.clone()),
        _ => None,
    };
    events.iter().filter_map(path).collect()
}

fn executable(path: &Path) -> bool {
    fs::metadata(path).unwrap().permissions().mode() & 0o100 != 0
}

#[test]
fn a_file_of_the_project_counts_by_content_for_those_that_read_it() {
    let mut space = Space::new();
    space.give("d", "reads", vec!["notes"]);
    fs::create_dir(space.path("notes")).unwrap();
    fs::write(space.path("notes/one"), "1").unwrap();
    space.ran(&["a", "b", "c", "d"], &[]);
    fs::write(space.path("notes/one"), "1").unwrap();
    space.ran(&[], &[]);
    fs::write(space.path("notes/one"), "2").unwrap();
    space.ran(&["d"], &[]);
    fs::write(space.path("notes/two"), "").unwrap();
    space.ran(&["d"], &[]);
    fs::remove_file(space.path("notes/two")).unwrap();
    space.ran(&[], &[]); // which made what still lies there
}

#[test]
fn an_input_that_was_another_while_the_stage_ran_is_noticed_though_it_is_the_same_again() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let x = space.path("artifacts/a/x").display().to_string();
    let meanwhile =
        format!("cp {x} $OUT/keep; printf other > {x}; cut -c1 $IN_A/x > $OUT/y; cat $OUT/keep > {x}");
    space.edit("b", &meanwhile);
    let (summary, events) = space.run();
    assert_eq!((summary.failed, summary.ran), (vec![1], vec![]));
    let told = |event: &Event| matches!(event, Event::Failed { message, .. } if message.contains("`artifacts/a` was written to"));
    assert!(events.iter().any(told), "{events:?}");
    space.edit("b", "cut -c2 $IN_A/x > $OUT/y");
    space.ran(&["b", "c"], &[]);
}

#[test]
fn a_stage_that_changes_its_input_is_refused_whatever_the_names() {
    for (made, harm) in [
        ("echo 1 > $OUT/m~", "echo 2 > $IN_A/m~"),
        ("mkdir $OUT/.git; echo 1 > $OUT/.git/m", "echo 2 > $IN_A/.git/m"),
        ("mkdir $OUT/none; touch $OUT/x", "rmdir $IN_A/none"),
        ("touch $OUT/x", "mkdir $IN_A/more"),
    ] {
        let b = format!("{harm}; ls -R $IN_A > $OUT/y");
        let space = Space::of(vec![("a", made.into(), vec![]), ("b", b, vec!["a"])]);
        assert_eq!(space.run().0.failed, [1], "{harm}");
    }
    // What Python leaves beside what it reads is of no result, and goes when the next run looks.
    let python = "mkdir $IN_A/__pycache__; touch $IN_A/__pycache__/x.pyc; cp $IN_A/x $OUT/y";
    let space = Space::of(vec![("a", "touch $OUT/x".into(), vec![]), ("b", python.into(), vec!["a"])]);
    space.ran(&["a", "b"], &[]);
    space.ran(&[], &["a"]);
    assert!(!space.path("artifacts/a/__pycache__").exists());
}

#[test]
fn a_file_that_another_stage_writes_between_judgement_and_start_is_looked_at_again() {
    let stages = [("a", "echo later > notes; echo 1 > $OUT/x"), ("d", "cp notes $OUT/x")];
    let mut space = Space::of(stages.map(|(name, run)| (name, run.to_owned(), vec![])).into());
    space.give("d", "reads", vec!["notes"]);
    fs::write(space.path("notes"), "first").unwrap();
    let options = RunOptions { jobs: 1, keep_going: true, ..RunOptions::default() };
    let (summary, events) = space.run_with(&options);
    assert_eq!((summary.ran, summary.failed), (vec![0, 1], vec![]), "{events:?}");
    assert_eq!(read(&space.path("artifacts/d/x")), "later\n");
    // Also where a third one that reads it has had it looked at meanwhile.
    let stages = [
        ("a", "sleep 0.2; echo later > notes; sleep 0.2; echo 1 > $OUT/x", vec![]),
        ("b", "cp notes $OUT/x", vec!["a"]),
        ("c", "cp notes $OUT/x", vec![]),
    ];
    let mut space = Space::of(stages.map(|(name, run, needs)| (name, run.to_owned(), needs)).into());
    space.give("b", "reads", vec!["notes"]);
    space.give("c", "reads", vec!["notes"]);
    fs::write(space.path("notes"), "first\n").unwrap();
    let (summary, events) = space.run_with(&options);
    assert_eq!((summary.ran.len(), summary.failed), (3, vec![]), "{events:?}");
    std::thread::sleep(std::time::Duration::from_millis(60));
    fs::write(space.path("notes"), "first\n").unwrap();
    let options = RunOptions { jobs: 1, targets: vec![2], ..RunOptions::default() };
    let (summary, events) = space.run_with(&options);
    assert_eq!(summary.ran, [2], "{events:?}");
    assert_eq!(read(&space.path("artifacts/c/x")), "first\n");
}

#[test]
fn a_link_that_led_elsewhere_for_a_while_is_noticed() {
    let run = "ln -sfn v2 current; cp current/x $OUT/x; ln -sfn v1 current";
    let mut space = Space::of(vec![("a", run.into(), vec![])]);
    for name in ["v1", "v2"] {
        fs::create_dir(space.path(name)).unwrap();
        fs::write(space.path(name).join("x"), name).unwrap();
    }
    std::os::unix::fs::symlink("v1", space.path("current")).unwrap();
    for reads in ["current", "current/x"] {
        space.give("a", "reads", vec![reads]);
        let (summary, events) = space.run();
        assert_eq!(summary.failed, [0], "{events:?}");
    }
}

#[test]
fn a_file_that_what_is_needed_writes_anew_is_looked_at_again_though_its_result_is_the_same() {
    let stages =
        [("a", "echo 1 > notes; echo 1 > $OUT/x", vec![]), ("d", "cat notes $IN_A/x > $OUT/x", vec!["a"])];
    let mut space = Space::of(stages.map(|(name, run, needs)| (name, run.to_owned(), needs)).into());
    space.give("d", "reads", vec!["notes"]);
    fs::write(space.path("notes"), "0\n").unwrap();
    space.ran(&["a", "d"], &[]);
    space.edit("a", "echo 2 > notes; echo 1 > $OUT/x");
    space.ran(&["a", "d"], &[]);
    assert_eq!(read(&space.path("artifacts/d/x")), "2\n1\n");
}

#[test]
fn the_files_of_a_folder_that_changed_are_named() {
    let mut space = Space::new();
    space.give("d", "reads", vec!["notes"]);
    fs::create_dir(space.path("notes")).unwrap();
    for name in ["one", "two", "three"] {
        fs::write(space.path("notes").join(name), "1").unwrap();
    }
    // However young they are when they are read, then and now.
    space.ran(&["a", "b", "c", "d"], &[]);
    fs::write(space.path("notes/two"), "2").unwrap();
    fs::rename(space.path("notes/three"), space.path("notes/3")).unwrap();
    let standings = Project::open(space.folder.path()).unwrap().status(&space.pipeline(), false).unwrap();
    let Standing::Stale(whys) = &standings[3] else { panic!("{standings:?}") };
    assert_eq!(whys[0].to_string(), "files in notes: `3` (new), `three` (gone), `two`");
    space.ran(&["d"], &[]);
    // One that the stage itself writes is named too.
    space.edit("d", "echo 3 >> notes/two; sleep 0.1; cp notes/two $OUT/x");
    let (summary, events) = space.run();
    assert_eq!(summary.failed, [3]);
    let told = |event: &Event| {
        let Event::Failed { message, hint, .. } = event else { return false };
        message.contains("files in notes: `two`")
            && hint.as_ref().is_some_and(|hint| hint.contains("must not"))
    };
    assert!(events.iter().any(told), "{events:?}");
}

/// Writes a file as if an hour ago: however fast the machine is, within a tick of the clock it would be as young in the end as
/// it is now.
fn write_old(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

#[test]
fn a_file_that_was_another_while_the_stage_ran_is_noticed_though_it_is_the_same_again() {
    let meanwhile = "printf B > note; cp note $OUT/x; printf A > note";
    let mut space = Space::of(vec![("d", meanwhile.to_owned(), vec![])]);
    space.give("d", "reads", vec!["note"]);
    write_old(&space.path("note"), "A");
    let (summary, events) = space.run();
    assert_eq!(summary.failed, [0]);
    let told = events.iter().any(|event| {
        matches!(event, Event::Failed { id: 0, message, .. } if message.contains("`note` was written to"))
    });
    assert!(told, "{events:?}");
    assert_eq!(read(&space.path("artifacts/d/x")), "B");
    space.edit("d", "cp note $OUT/x");
    space.ran(&["d"], &[]);
    assert_eq!(read(&space.path("artifacts/d/x")), "A");
}

#[test]
fn what_a_command_goes_on_from_goes_when_what_it_read_was_another_meanwhile() {
    let once = "if [ ! -e again ]; then touch again;";
    let then = "exit 1; fi; [ -e $SCRATCH/part ] || cp note $SCRATCH/part; cat $SCRATCH/part > $OUT/x";
    for (meanwhile, made) in [
        ("printf B > note; cp note $SCRATCH/part; printf A > note;", "A"),
        // Where nobody touched it, it goes on.
        ("printf part > $SCRATCH/part;", "part"),
    ] {
        let mut space = Space::of(vec![("d", format!("{once} {meanwhile} {then}"), vec![])]);
        space.give("d", "reads", vec!["note"]);
        write_old(&space.path("note"), "A");
        assert_eq!(space.run().0.failed, [0]);
        space.ran(&["d"], &[]);
        assert_eq!(read(&space.path("artifacts/d/x")), made);
        assert_eq!(fs::read_dir(space.path(".repro/scratch")).unwrap().count(), 0, "nor is its lock left");
    }
}

#[test]
fn what_a_command_goes_on_from_stays_when_its_files_are_touched_later_and_goes_when_it_is_forced() {
    let run = "[ -e $SCRATCH/part ] && cp $SCRATCH/part $OUT/x && exit; cp note $SCRATCH/part; exit 1";
    let mut space = Space::of(vec![("d", run.to_owned(), vec![])]);
    space.give("d", "reads", vec!["note"]);
    write_old(&space.path("note"), "A");
    assert_eq!(space.run().0.failed, [0]);
    write_old(&space.path("note"), "A");
    space.ran(&["d"], &[]);
    assert_eq!(read(&space.path("artifacts/d/x")), "A");
    let forced = RunOptions { force: true, ..RunOptions::default() };
    let told = |events: &[Event]| {
        let anew = |event: &Event| matches!(event, Event::Said { line, .. } if line.contains("begins anew"));
        events.iter().any(anew)
    };
    let (first, second) = (space.run_with(&forced), space.run_with(&forced));
    assert_eq!((first.0.failed, second.0.failed), (vec![0], vec![0]));
    assert_eq!([told(&first.1), told(&second.1)], [false, true]);
}

/// Who is killed meanwhile leaves no part of it to go on from.
#[test]
fn what_a_command_goes_on_from_goes_as_a_whole_when_it_is_forced() {
    let run =
        "[ -e again ] || { touch again; cd $SCRATCH; seq 2000 | xargs touch; exit 1; }; echo 1 > $OUT/x";
    let space = Space::of(vec![("d", run.to_owned(), vec![])]);
    assert_eq!(space.run().0.failed, [0]);
    let mut attempts = fs::read_dir(space.path(".repro/scratch")).unwrap().map(|entry| entry.unwrap().path());
    let scratch = attempts.find(|path| path.is_dir()).unwrap();
    let there = |n: usize| scratch.join(n.to_string()).exists();
    let forced = RunOptions { force: true, ..RunOptions::default() };
    let (summary, events) = std::thread::scope(|scope| {
        let run = scope.spawn(|| space.run_with(&forced));
        while there(1000) && !run.is_finished() {
            std::thread::yield_now();
        }
        let left = (1..=20).filter(|n| there(100 * n)).count();
        assert_eq!(left, 0, "a part of it");
        run.join().unwrap()
    });
    assert_eq!(summary.ran, [0], "{events:?}");
}

#[test]
fn a_command_may_shut_its_output_folder() {
    let space = Space::of(vec![("d", "echo 1 > $OUT/x; chmod -R a-w $OUT".to_owned(), vec![])]);
    space.ran(&["d"], &[]);
    // To the superuser it is never shut; who may write in it may move it.
    let mode = fs::metadata(space.path("artifacts/d")).unwrap().permissions().mode();
    assert_eq!(mode & 0o700, 0o700);
}

#[test]
fn a_file_that_cannot_be_read_is_named_before_and_by_the_run() {
    let mut space = Space::new();
    space.give("d", "reads", vec!["nowhere"]);
    let standing =
        Project::open(space.folder.path()).unwrap().status(&space.pipeline(), false).unwrap().remove(3);
    let Standing::Stale(whys) = &standing else { panic!("{standing:?}") };
    assert!(matches!(&whys[..], [Why::FileMissing(path, _)] if path == Path::new("nowhere")), "{whys:?}");
    let (summary, events) = space.run();
    assert_eq!((summary.exit_code(), summary.failed.as_slice()), (1, &[3][..]));
    let named = events.iter().any(|event| {
        matches!(event, Event::Failed { id: 3, message, hint: Some(_) } if message.contains("`nowhere`"))
    });
    assert!(named, "{events:?}");
}

#[test]
fn what_is_published_is_written_once_and_again_when_it_was_altered() {
    let mut space = Space::new();
    space.give("d", "publish", "page.md");
    let (_, events) = space.run();
    assert_eq!(published(&events), [Path::new("page.md")]);
    assert_eq!(read(&space.path("page.md")), "alone\n");
    assert_eq!(published(&space.run().1), Vec::<PathBuf>::new());
    fs::write(space.path("page.md"), "mine").unwrap();
    let (summary, events) = space.run();
    assert_eq!((summary.ran.len(), published(&events).len()), (0, 1));
    assert_eq!(read(&space.path("page.md")), "alone\n");
    fs::remove_file(space.path("page.md")).unwrap();
    fs::create_dir(space.path("page.md")).unwrap();
    let (summary, events) = space.run();
    assert_eq!((summary.exit_code(), summary.failed.contains(&3)), (1, true), "{events:?}");
}

#[test]
fn a_page_that_a_run_mends_is_read_as_it_is_then() {
    let stages = [("a", "echo one > $OUT/x", vec![]), ("b", "cat page.md $IN_A/x > $OUT/y", vec!["a"])];
    let mut space = Space::of(stages.map(|(name, run, needs)| (name, run.to_owned(), needs)).into());
    space.give("a", "publish", "page.md");
    space.give("b", "reads", vec!["page.md"]);
    space.ran(&["a", "b"], &[]);
    fs::write(space.path("page.md"), "mine").unwrap();
    space.ran(&[], &[]);
    assert_eq!(read(&space.path("page.md")), "one\n");
}

#[test]
fn a_restored_result_has_its_executable_bits_and_empty_folders() {
    let mut space = Space::new();
    space.edit("d", "echo x > $OUT/x; echo run > $OUT/run; chmod 755 $OUT/run; mkdir -p $OUT/empty/inner");
    space.ran(&["a", "b", "c", "d"], &[]);
    fs::remove_dir_all(space.path("artifacts")).unwrap();
    space.ran(&[], &["a", "b", "c", "d"]);
    let (run, plain) = (space.path("artifacts/d/run"), space.path("artifacts/d/x"));
    assert!(executable(&run) && !executable(&plain));
    assert!(space.path("artifacts/d/empty/inner").is_dir());
    fs::set_permissions(&run, fs::Permissions::from_mode(0o644)).unwrap();
    space.ran(&[], &["d"]);
    assert!(executable(&run));
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o755)).unwrap();
    space.ran(&[], &["d"]);
    assert!(!executable(&plain));
    fs::remove_dir(space.path("artifacts/d/empty/inner")).unwrap();
    space.ran(&[], &["d"]);
    assert!(space.path("artifacts/d/empty/inner").is_dir());
    fs::write(space.path("artifacts/d/empty/inner/stray"), "").unwrap();
    space.ran(&[], &["d"]);
    assert!(!space.path("artifacts/d/empty/inner/stray").exists());
}

#[cfg(target_os = "linux")] // elsewhere names are UTF-8
#[test]
fn names_that_are_not_utf8_are_told_apart() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let mut space = Space::new();
    space.give("d", "reads", vec!["notes"]);
    fs::create_dir(space.path("notes")).unwrap();
    let place = |name: &[u8]| space.folder.path().join("notes").join(OsStr::from_bytes(name));
    fs::write(place(b"a\xff"), "1").unwrap();
    space.ran(&["a", "b", "c", "d"], &[]);
    fs::rename(place(b"a\xff"), place(b"a\xfe")).unwrap();
    space.ran(&["d"], &[]);
}

#[test]
fn a_record_that_says_something_else_of_its_result_is_none() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let records = walkdir::WalkDir::new(space.path(".repro/records")).into_iter().flatten();
    for record in records.filter(|entry| entry.file_type().is_file()) {
        let text = read(record.path());
        let at = text.find("\"tree\"").unwrap() + 12;
        let other = if &text[at..=at] == "0" { "1" } else { "0" };
        fs::remove_file(record.path()).unwrap();
        fs::write(record.path(), format!("{}{other}{}", &text[..at], &text[at + 1..])).unwrap();
    }
    fs::remove_dir_all(space.path("artifacts")).unwrap();
    space.ran(&["a", "b", "c", "d"], &[]);
}
