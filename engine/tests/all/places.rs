//! Odd places: other file systems, pipes, files where folders belong, long names.
#![allow(clippy::print_stderr)] // says what it skips

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command, time::Duration};

use engine::{gc::GcOptions, observer::Event, project::Project, run::RunOptions, share::Share};

use crate::space::{Space, read};

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn the_cache_or_the_artifacts_may_lie_on_another_file_system() {
    for link in [".repro", "artifacts"] {
        let mut space = Space::new();
        let memory = Path::new("/dev/shm");
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
        if !device(memory).is_ok_and(|other| other != device(space.folder.path()).unwrap()) {
            // `engine/show.rs` has tests that need none.
            eprintln!("SKIPPED: there is no second file system in `{}`", memory.display());
            return;
        }
        let other = tempfile::tempdir_in(memory).unwrap();
        std::os::unix::fs::symlink(other.path(), space.path(link)).unwrap();
        space.edit("d", "mkdir $OUT/sub; echo alone | tee $OUT/x > $OUT/sub/y; chmod 755 $OUT/x");
        space.ran(&["a", "b", "c", "d"], &[]);
        space.ran(&[], &[]);
        assert_eq!(space.nothing_to_do(), Some(4), "{link}");
        fs::write(space.path("artifacts/d/sub/y"), "other").unwrap();
        space.ran(&[], &["d"]);
        assert_eq!(read(&space.path("artifacts/d/sub/y")), "alone\n");
        fs::write(space.path("artifacts/a/notes"), "mine").unwrap();
        space.edit("a", "echo two > $OUT/x");
        space.ran(&["a", "b", "c"], &[]);
        assert_eq!(read(&space.path(".repro/replaced/a~1/notes")), "mine", "{link}");
        assert!(!space.path("artifacts/a/notes").exists(), "{link}");
        assert_eq!(read(&space.path("artifacts/c/z")), "t\n");
    }
}

#[test]
fn two_projects_cannot_have_one_cache_but_a_project_may_move() {
    let (one, two, share) = (Space::new(), Space::new(), tempfile::tempdir().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    std::os::unix::fs::symlink(one.path(".repro"), two.path(".repro")).unwrap();
    let project = Project::open(two.folder.path()).unwrap();
    let gc = GcOptions { keep: Duration::ZERO, delete: true, locks: Vec::new() };
    for refused in [
        project.run(&two.pipeline(), &RunOptions::default(), &mut Vec::new()).unwrap_err(),
        project.gc(&gc).unwrap_err(),
        project.verify(&two.pipeline()).unwrap_err(),
        project.push(&two.pipeline(), &[0], &Share::create(share.path()).unwrap()).unwrap_err(),
    ] {
        let told = refused.to_string();
        assert!(told.contains("is also the cache of the project in"), "{told}");
    }
    fs::remove_file(two.path(".repro")).unwrap();
    for part in [".repro", "artifacts"] {
        fs::rename(one.path(part), two.path(part)).unwrap();
    }
    two.ran(&[], &[]);
    // Whose it is, is noted once.
    let noted = || fs::metadata(two.path(".repro/project")).unwrap().ino();
    let before = noted();
    two.ran(&[], &[]);
    assert_eq!(noted(), before);
}

/// What was read is known without records, and the next run writes what keeps the cache out of git.
#[test]
fn what_somebody_deletes_of_the_cache_is_made_again() {
    let mut space = Space::new();
    space.give("d", "reads", vec!["note"]);
    fs::write(space.path("note"), "A").unwrap();
    space.ran(&["a", "b", "c", "d"], &[]);
    let lock = read(&space.path("pipeline.lock"));
    fs::remove_dir_all(space.path(".repro/records")).unwrap();
    fs::remove_file(space.path("pipeline.lock")).unwrap();
    space.ran(&[], &[]);
    assert!(lock.contains("note") && read(&space.path("pipeline.lock")) == lock);
    std::thread::sleep(Duration::from_millis(100)); // until the file is old enough to be known by its stamp
    space.ran(&[], &[]);
    assert_eq!(space.nothing_to_do(), Some(4));
    fs::remove_file(space.path(".repro/.gitignore")).unwrap();
    assert_eq!(space.nothing_to_do(), None);
    space.ran(&[], &[]);
    assert!(space.path(".repro/.gitignore").exists());
}

#[test]
fn a_link_in_the_place_of_a_result_is_followed() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let (place, far) = (space.path("artifacts/d"), space.path("far"));
    fs::rename(&place, &far).unwrap();
    std::os::unix::fs::symlink(&far, &place).unwrap();
    space.ran(&[], &[]);
    space.edit("d", "echo two > $OUT/x");
    space.ran(&["d"], &[]);
    assert!(fs::symlink_metadata(&place).unwrap().is_symlink());
    assert_eq!(read(&far.join("x")), "two\n");
    std::thread::sleep(std::time::Duration::from_millis(60));
    space.ran(&[], &[]);
    assert_eq!(space.nothing_to_do(), Some(4));
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_named_and_waited_for_by_nobody() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let shown = space.path("artifacts/a/x");
    fs::remove_file(&shown).unwrap();
    pipe(&shown);
    let project = Project::open(space.folder.path()).unwrap();
    let findings = project.verify(&space.pipeline()).unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].problem, "it is not a plain file");
    space.ran(&[], &["a"]);
    pipe(&space.path("notes"));
    space.give("d", "reads", vec!["notes"]);
    let (summary, events) = space.run();
    assert_eq!(summary.failed, [3]);
    let said =
        |event: &Event| matches!(event, Event::Failed { message, .. } if message.contains("plain file"));
    assert!(events.iter().any(said), "{events:?}");
}

#[test]
fn a_file_where_results_belong_is_named_and_kept() {
    let space = Space::new();
    fs::write(space.path("artifacts"), "mine").unwrap();
    let (summary, events) = space.run_with(&RunOptions { keep_going: true, ..RunOptions::default() });
    let told = "artifacts` is not a folder, and results are to be shown in it";
    let said = |event: &Event| matches!(event, Event::Failed { message, .. } if message.ends_with(told));
    assert!(events.iter().any(said), "{events:?}");
    assert_eq!((summary.failed, read(&space.path("artifacts"))), (vec![0, 3], "mine".into()));
    fs::remove_file(space.path("artifacts")).unwrap();
    // What was made is not lost.
    space.ran(&["b", "c"], &["a", "d"]);
}

#[test]
fn a_link_to_nowhere_where_results_belong_is_named() {
    let space = Space::of(vec![("a", "echo one > $OUT/x".to_owned(), vec![])]);
    std::os::unix::fs::symlink("/nope", space.path("artifacts")).unwrap();
    let (summary, events) = space.run();
    assert_eq!(summary.failed, [0]);
    let told = "artifacts` is a link to `/nope`, which is not there";
    let said = |event: &Event| matches!(event, Event::Failed { message, .. } if message.ends_with(told));
    assert!(events.iter().any(said), "{events:?}");
    fs::remove_file(space.path("artifacts")).unwrap();
    // What was made is not lost.
    space.ran(&[], &["a"]);
}

#[test]
fn what_people_made_is_kept_under_a_name_that_is_not_too_long() {
    let name: &'static str = Box::leak("x".repeat(240).into_boxed_str());
    let mut space = Space::of(vec![(name, "echo one > $OUT/x".to_owned(), vec![])]);
    space.ran(&[name], &[]);
    fs::write(space.path("artifacts").join(name).join("notes"), "mine").unwrap();
    space.edit(name, "echo two > $OUT/x");
    space.ran(&[name], &[]);
    let kept = fs::read_dir(space.path(".repro/replaced")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(read(&kept.join("notes")), "mine");
}
