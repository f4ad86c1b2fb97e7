//! What the collection of garbage keeps and what it takes.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use engine::{
    gc::{GcOptions, GcReport},
    project::Project,
};

use crate::space::Space;

fn options(delete: bool) -> GcOptions {
    GcOptions { keep: Duration::from_secs(30 * 24 * 60 * 60), delete, locks: Vec::new() }
}

fn gc(space: &Space, delete: bool) -> GcReport {
    let options = options(delete);
    Project::open(space.folder.path()).unwrap().gc(&options).unwrap()
}

/// Makes everything in the cache 31 days old, and takes away what has no other reason to stay.
fn age(space: &Space) {
    age_all(space);
    fs::remove_dir_all(space.path(".repro/idle")).unwrap();
}

fn age_all(space: &Space) {
    let then = SystemTime::now() - Duration::from_secs(31 * 24 * 60 * 60);
    for entry in walkdir::WalkDir::new(space.path(".repro")) {
        let file = fs::File::open(entry.unwrap().path()).unwrap();
        file.set_modified(then).unwrap();
    }
}

/// Of two pipelines in a project, one has run since the index was lost: it knows nothing of the other.
#[test]
fn what_a_lock_file_names_stays_although_the_index_does_not_know_the_file() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    fs::create_dir(space.path("experiments")).unwrap();
    fs::rename(space.path("pipeline.lock"), space.path("experiments/depth.lock")).unwrap();
    fs::remove_dir_all(space.path("artifacts")).unwrap();
    let recorded = fs::read(space.path(".repro/state")).unwrap();
    let kept = recorded
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| line[17..].starts_with(b"{\"result\":[\"d\"")); // behind the line's digest
    fs::write(space.path(".repro/state"), kept.flatten().copied().collect::<Vec<u8>>()).unwrap();
    age(&space);
    let records = || {
        gc(&space, true).files.iter().filter(|file| file.extension().is_some_and(|end| end == "json")).count()
    };
    assert_eq!(records(), 0);
    fs::remove_file(space.path("experiments/depth.lock")).unwrap();
    assert_eq!(records(), 4);
}

#[test]
fn a_scratch_folder_goes_as_a_whole_and_not_before_its_youngest_file_is_old() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let scratch = space.path(".repro/scratch/of-a-stage");
    fs::create_dir_all(scratch.join("part")).unwrap();
    fs::write(scratch.join("part/old"), "12").unwrap();
    age(&space);
    fs::write(scratch.join("young"), "3").unwrap();
    assert_eq!(gc(&space, false).files.len(), 0);
    fs::remove_file(scratch.join("young")).unwrap();
    age_all(&space);
    let report = gc(&space, true);
    assert_eq!((report.files, report.bytes), (vec![scratch.canonicalize().unwrap_or(scratch.clone())], 2));
    assert!(!scratch.exists());
}

#[test]
fn a_scratch_folder_and_its_lock_grow_old_together_and_not_while_that_is_held() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let [scratch, lock] = ["attempt", "attempt.lock"].map(|name| space.path(".repro/scratch").join(name));
    let root = space.folder.path().canonicalize().unwrap();
    let both = ["attempt", "attempt.lock"].map(|name| root.join(".repro/scratch").join(name));
    fs::create_dir_all(&scratch).unwrap();
    fs::write(&lock, "read").unwrap();
    age(&space);
    for young in [&scratch, &lock] {
        fs::File::open(young).unwrap().set_modified(SystemTime::now()).unwrap();
        assert_eq!(gc(&space, true).files.len(), 0);
        age_all(&space);
    }
    let held = fs::File::options().append(true).open(&lock).unwrap();
    held.lock().unwrap();
    assert_eq!(gc(&space, true).files.len(), 0);
    held.unlock().unwrap();
    assert_eq!(gc(&space, true).files, both);
    assert!(!scratch.exists() && !lock.exists());
}

#[test]
fn a_project_that_moved_asks_nothing_of_its_old_place() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let moved = tempfile::tempdir().unwrap();
    for name in [".repro", "artifacts", "pipeline.lock"] {
        fs::rename(space.path(name), moved.path().join(name)).unwrap();
    }
    fs::write(space.path("pipeline.lock"), "broken").unwrap();
    let report = Project::open(moved.path()).unwrap().gc(&options(true)).unwrap();
    assert_eq!(report.files, Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_is_shown_or_locked_or_young_stays_and_the_rest_goes() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    space.edit("a", "echo two > $OUT/x");
    space.ran(&["a", "b", "c"], &[]);
    fs::write(space.path("Cargo.lock"), "# Of another program.\n[[package]]\nname = \"x\"\n").unwrap();
    assert_eq!(gc(&space, false).files, Vec::<std::path::PathBuf>::new());
    age(&space);
    let dry = gc(&space, false);
    // The first records of a, b and c and their objects; `o` is the content of both b and c.
    assert_eq!(dry.files.len(), 5, "{dry:?}");
    assert!(dry.bytes > 0 && dry.kept > 0);
    assert_eq!(gc(&space, true), dry);
    assert_eq!(gc(&space, true).files.len(), 0);
    let project = Project::open(space.folder.path()).unwrap();
    assert_eq!(project.verify(&space.pipeline()).unwrap(), []);
    fs::remove_dir_all(space.path("artifacts")).unwrap();
    gc(&space, true);
    space.ran(&[], &["a", "b", "c", "d"]);
    space.edit("a", "echo one > $OUT/x");
    space.ran(&["a", "b", "c"], &[]);
}

#[test]
fn the_objects_of_what_is_shown_stay_although_its_record_is_lost() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    // Nor does a lock file name it.
    fs::remove_file(space.path("pipeline.lock")).unwrap();
    age(&space);
    assert_eq!(gc(&space, true).files.len(), 0);
    fs::remove_dir_all(space.path(".repro/records")).unwrap();
    assert_eq!(gc(&space, true).files.len(), 0);
}

#[test]
fn the_objects_that_a_lock_file_names_stay_although_the_record_is_lost() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    age(&space);
    for lost in ["artifacts", ".repro/records"] {
        fs::remove_dir_all(space.path(lost)).unwrap();
    }
    assert_eq!(gc(&space, true).files, Vec::<std::path::PathBuf>::new());
    fs::remove_file(space.path("pipeline.lock")).unwrap();
    assert_eq!(gc(&space, true).files.len(), 3, "b and c have one content");
}

#[test]
fn nobody_else_has_the_lock_while_something_is_deleted() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let failed = space.path(".repro/failed");
    fs::create_dir_all(&failed).unwrap();
    let note = |n: usize| failed.join(format!("{n:04}"));
    (0..2000).for_each(|n| fs::write(note(n), "").unwrap());
    age(&space);
    let lock = fs::File::open(space.path(".repro/lock")).unwrap();
    let report = std::thread::scope(|scope| {
        let collector = scope.spawn(|| gc(&space, true));
        while note(0).exists() && !collector.is_finished() {
            std::thread::yield_now();
        }
        let free = lock.try_lock_shared().is_ok();
        // They go in their order: as long as the last is there, it goes on.
        assert!(!(free && note(1999).exists()));
        collector.join().unwrap()
    });
    assert_eq!(report.files.len(), 2000);
}

#[test]
fn a_result_that_made_way_for_a_stage_in_its_place_is_of_use_until_then() {
    let stage = |name| vec![(name, "echo 1 > $OUT/x".to_owned(), vec![])];
    let mut space = Space::of(stage("a/b"));
    space.ran(&["a/b"], &[]);
    age(&space);
    space.stages = stage("a");
    space.edit("a", "echo 2 > $OUT/y");
    space.ran(&["a"], &[]);
    let taken = gc(&space, true).files;
    let kept = [".repro/records", ".repro/objects"].map(|of| space.path(of).canonicalize().unwrap());
    assert!(!taken.iter().any(|file| kept.iter().any(|of| file.starts_with(of))), "{taken:?}");
}

#[test]
fn a_result_is_of_use_until_another_takes_its_place() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    age(&space);
    space.edit("d", "echo two > $OUT/x");
    space.ran(&["d"], &[]);
    assert_eq!(gc(&space, true).files.len(), 0);
    age(&space);
    assert_eq!(gc(&space, true).files.len(), 2, "a record and an object");
}

#[test]
fn what_a_run_with_nothing_to_do_is_known_by_grows_old() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let file = fs::read_dir(space.path(".repro/idle")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(gc(&space, true).files.len(), 0);
    fs::File::open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(gc(&space, true).files, [file.canonicalize().unwrap_or(file)]);
    assert_eq!(space.nothing_to_do(), None);
}

#[test]
fn what_was_restored_lately_is_not_old() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    space.edit("d", "echo other > $OUT/x");
    space.ran(&["d"], &[]);
    age(&space);
    space.edit("d", "echo alone > $OUT/x");
    space.ran(&[], &["d"]);
    // Though it is no longer shown, nor locked.
    fs::remove_dir_all(space.path("artifacts")).unwrap();
    fs::remove_file(space.path("pipeline.lock")).unwrap();
    gc(&space, true);
    assert_eq!(space.run().0.restored, [3]);
    space.edit("d", "echo other > $OUT/x");
    space.ran(&[], &["d"]);
    assert_eq!(gc(&space, true).files.len(), 0);
}

#[test]
fn nothing_is_taken_while_the_index_does_not_say_what_is_in_use() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    age(&space);
    let project = Project::open(space.folder.path()).unwrap();
    let index = space.path(".repro/state");
    let text = fs::read_to_string(&index).unwrap();
    for broken in [text.replacen("result", "resalt", 1), String::new()] {
        fs::write(&index, broken).unwrap();
        let error = project.gc(&options(true)).unwrap_err();
        assert!(error.to_string().contains("is missing or damaged"), "{error}");
    }
    space.ran(&[], &[]);
    assert_eq!(gc(&space, true).files.len(), 0);
}

#[test]
fn what_is_known_of_a_folder_that_a_stage_reads_stays() {
    let mut space = Space::new();
    fs::create_dir(space.path("notes")).unwrap();
    fs::write(space.path("notes/one"), "1").unwrap();
    std::thread::sleep(Duration::from_millis(60));
    space.give("d", "reads", vec!["notes"]);
    space.ran(&["a", "b", "c", "d"], &[]);
    let tables = || fs::read_dir(space.path(".repro/folders")).unwrap().count();
    assert_eq!(tables(), 1);
    fs::write(space.path(".repro/folders/stray"), "").unwrap();
    age(&space);
    let stray = space.path(".repro/folders/stray").canonicalize().unwrap();
    assert_eq!(gc(&space, true).files, [stray]);
    assert_eq!(tables(), 1);
}
