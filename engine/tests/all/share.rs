//! What clones give each other through a folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use engine::{
    error::EngineError,
    observer::Event,
    plan::Standing,
    project::Project,
    push::Given,
    run::{RunOptions, Summary},
    share::Share,
};
use tempfile::TempDir;

use crate::space::{Space, read};

/// Pushes all that a clone has; says what became of each stage, in a word, and how much was copied.
fn push(from: &Space, to: &Path) -> (Vec<String>, u64) {
    let (pipeline, share) = (from.pipeline(), Share::create(to).unwrap());
    let all: Vec<_> = (0..pipeline.instances.len()).collect();
    let pushed = Project::open(from.folder.path()).unwrap().push(&pipeline, &all, &share).unwrap();
    assert!(pushed.given.iter().map(|(id, _)| *id).eq(all));
    let word = |given: &Given| match given {
        Given::Failed(error) => error.to_string(),
        given => format!("{given:?}"),
    };
    (pushed.given.iter().map(|(_, given)| word(given)).collect(), pushed.bytes)
}

/// Brings a clone up to date with what lies in a folder.
fn beside(share: &Path, clone: &Space) -> Project {
    Project::open_beside(clone.folder.path(), Some(Share::open(share).unwrap())).unwrap()
}

fn with(share: &Path, clone: &Space, options: &RunOptions) -> (Summary, Vec<Event>) {
    let mut events = Vec::new();
    let summary = beside(share, clone).run(&clone.pipeline(), options, &mut events).unwrap();
    (summary, events)
}

/// Where all would stand for a run.
fn dry_run(share: &Path, clone: &Space) -> Vec<Standing> {
    let plan = beside(share, clone).dry_run(&clone.pipeline(), &RunOptions::default()).unwrap();
    plan.into_iter().map(|(_, standing)| standing).collect()
}

fn pull(share: &Path, clone: &Space) -> (Summary, Vec<Event>) {
    with(share, clone, &RunOptions { keep_going: true, restore_only: true, ..RunOptions::default() })
}

fn said(events: &[Event]) -> Vec<&str> {
    let mut said = Vec::new();
    for event in events {
        if let Event::Said { line, .. } = event {
            said.push(line.as_str());
        }
    }
    said
}

/// Each file below a folder, with its content, sorted.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().flatten();
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.map(|file| (file.path().to_owned(), fs::read(file.path()).unwrap())).collect()
}

fn object(folder: &Path, content: &str) -> PathBuf {
    files(&folder.join("objects")).into_iter().find(|(_, bytes)| bytes == content.as_bytes()).unwrap().0
}

#[test]
fn what_one_clone_made_another_shows_without_running() {
    let (one, two, share) = (Space::new(), Space::new(), TempDir::new().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    // b and c have one content.
    assert_eq!(push(&one, share.path()), (vec!["Result".to_owned(); 4], 4 + 2 + 6));
    assert_eq!(push(&one, share.path()), (vec!["There".to_owned(); 4], 0));
    let (summary, _) = pull(share.path(), &two);
    assert_eq!((summary.restored, summary.skipped), (vec![0, 1, 2, 3], vec![]));
    assert_eq!(read(&two.path("artifacts/c/z")), "o\n");
    // It is the clone's own now, with how it came about.
    fs::remove_dir_all(share.path()).unwrap();
    two.ran(&[], &[]);
    fs::remove_dir_all(two.path("artifacts")).unwrap();
    two.ran(&[], &["a", "b", "c", "d"]);
    let records = |space: &Space| {
        Project::open(space.folder.path()).unwrap().records(&space.pipeline(), false).unwrap()
    };
    assert_eq!(records(&one), records(&two));
}

#[test]
fn what_nobody_has_is_run_and_what_follows_from_it_is_taken() {
    let (one, mut two, share) = (Space::new(), Space::new(), TempDir::new().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    push(&one, share.path());
    two.edit("a", "echo other > $OUT/x"); // of which b keeps the same letter
    let standings = dry_run(share.path(), &two);
    assert!(matches!(standings[0], Standing::Stale(_)), "{standings:?}");
    assert!(matches!(standings[1], Standing::Waiting(_)), "{standings:?}");
    assert_eq!(standings[3], Standing::Restorable(None));
    let (summary, _) = pull(share.path(), &two);
    assert_eq!((summary.restored, summary.skipped, summary.failed), (vec![3], vec![0, 1, 2], vec![]));
    let (summary, _) = with(share.path(), &two, &RunOptions::default());
    assert_eq!((summary.ran, summary.restored, summary.fresh), (vec![0, 1], vec![2], vec![3]));
}

#[test]
fn another_clone_is_such_a_folder_to_pull_from_and_none_to_push_to() {
    let (one, two) = (Space::new(), Space::new());
    one.ran(&["a", "b", "c", "d"], &[]);
    let (clone, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::create_dir(other.path().join("drafts")).unwrap();
    fs::write(other.path().join("drafts/thesis"), "mine").unwrap();
    fs::write(clone.path().join("pipeline.toml"), "").unwrap();
    for folder in [
        one.path(""),
        one.path(".repro"),
        one.path(".repro/objects"),
        clone.path().to_owned(),
        one.path("artifacts"),
        one.path("artifacts/a/new"),
        other.path().to_owned(),
    ] {
        let before = files(&folder);
        let refused = Share::create(&folder).unwrap_err();
        assert!(matches!(refused, EngineError::User { .. }), "{refused}");
        assert_eq!(files(&folder), before);
        assert!(!one.path("artifacts/a/new").exists() && !one.path("artifacts/objects").exists());
    }
    let before = files(one.folder.path());
    assert_eq!(pull(one.folder.path(), &two).0.restored, [0, 1, 2, 3]);
    assert_eq!(files(one.folder.path()), before);
    let empty = TempDir::new().unwrap();
    let nothing = Share::open(empty.path()).unwrap_err().to_string();
    assert_eq!(nothing, format!("nobody has pushed results to `{}`", empty.path().display()));
    assert!(matches!(Share::open(&empty.path().join("none")), Err(EngineError::Io { .. })));
}

#[test]
fn a_damaged_object_of_others_is_told_of_and_left_to_them() {
    let (one, two, share) = (Space::new(), Space::new(), TempDir::new().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    push(&one, share.path());
    let damaged = object(share.path(), "alone\n");
    fs::remove_file(&damaged).unwrap();
    fs::write(&damaged, "ALONE\n").unwrap();
    let (summary, events) = pull(share.path(), &two);
    assert_eq!(
        (summary.restored.as_slice(), summary.failed.as_slice()),
        (&[0, 1, 2][..], &[3][..]),
        "{events:?}"
    );
    assert_eq!(summary.exit_code(), 3);
    let (summary, events) = with(share.path(), &two, &RunOptions::default());
    assert_eq!((summary.exit_code(), summary.ran), (0, vec![3]));
    assert!(said(&events)[0].contains("cannot be taken: its content has the digest"), "{events:?}");
    assert_eq!(read(&damaged), "ALONE\n");
    assert_eq!(read(&two.path("artifacts/d/x")), "alone\n");
    // What is cut is seen to be, and made whole.
    fs::write(&damaged, "al").unwrap();
    assert_eq!(push(&one, share.path()).0, ["There", "There", "There", "Result"]);
    assert_eq!(read(&damaged), "alone\n");
}

#[test]
fn what_is_damaged_here_is_taken_from_others() {
    let (mut one, share) = (Space::new(), TempDir::new().unwrap());
    one.edit("d", "echo alone > $OUT/x; echo and more > $OUT/y");
    one.ran(&["a", "b", "c", "d"], &[]);
    push(&one, share.path());
    fs::remove_dir_all(one.path("artifacts")).unwrap();
    let [damaged, too] = ["alone\n", "and more\n"].map(|content| object(&one.path(".repro"), content));
    for object in [&damaged, &too] {
        let content = read(object).to_uppercase();
        fs::remove_file(object).unwrap();
        fs::write(object, content).unwrap();
    }
    let standings = dry_run(share.path(), &one);
    assert!(standings.iter().all(|standing| matches!(standing, Standing::Restorable(_))), "{standings:?}");
    assert_eq!(pull(share.path(), &one).0.restored, [0, 1, 2, 3]);
    assert_eq!((read(&damaged), read(&one.path("artifacts/d/x"))), ("alone\n".into(), "alone\n".into()));
}

#[test]
fn what_the_cache_lost_and_still_shows_can_be_given_to_others() {
    let (one, two, share) = (Space::new(), Space::new(), TempDir::new().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    fs::remove_dir_all(one.path(".repro/objects")).unwrap();
    assert_eq!(push(&one, share.path()).0, ["Result"; 4]);
    assert_eq!(pull(share.path(), &two).0.restored, [0, 1, 2, 3]);
}

#[test]
fn what_cannot_be_given_to_others_keeps_nothing_else_from_them() {
    let (one, share) = (Space::new(), TempDir::new().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    fs::remove_dir_all(one.path("artifacts/a")).unwrap();
    let damaged = object(&one.path(".repro"), "one\n");
    fs::remove_file(&damaged).unwrap();
    fs::write(&damaged, "ONE\n").unwrap();
    let (given, _) = push(&one, share.path());
    assert!(
        given[0].starts_with(&format!("`{}` is damaged: ", damaged.canonicalize().unwrap().display())),
        "{given:?}"
    );
    assert_eq!(given[1..], ["Result", "Result", "Result"]);
}

/// The one record in a share, and where it lies.
fn record(share: &Path) -> (PathBuf, serde_json::Value) {
    let (place, text) = files(&share.join("records")).pop().unwrap();
    (place, serde_json::from_slice(&text).unwrap())
}

#[test]
fn a_record_that_is_not_of_files_in_one_folder_counts_for_nothing() {
    let (one, share) = (Space::of(vec![("a", "echo one > $OUT/x".into(), vec![])]), TempDir::new().unwrap());
    one.ran(&["a"], &[]);
    push(&one, share.path());
    let (place, honest) = record(share.path());
    let (digest, long) = (engine::digest::Digest::of("one\n"), "x".repeat(300));
    let deep = vec!["x".repeat(200); 25].join("/");
    let paths: [&[&str]; 16] = [
        &["../../x"],
        &["/x"],
        &["a/../../x"],
        &["./x"],
        &["a//x"],
        &[""],
        &["/"],
        &[".."],
        &["x\0"],
        &[&long],
        &[],
        &[&deep],
        &["x", "x"],
        &["x", "x/y"],
        &["x", "x/"],
        &["y", "x"],
    ];
    let forged = paths.map(|paths| {
        (paths, engine::digest::Digest::of_tree(paths.iter().map(|path| (*path, false, digest))))
    });
    let other: (&[&str], _) = (&["x"], engine::digest::Digest::of_tree([("y", false, digest)]));
    for (paths, tree) in forged.into_iter().chain([other]) {
        let mut record = honest.clone();
        let output = |path: &&str| serde_json::json!({ "path": path, "digest": digest, "size": 4 });
        record["outputs"] = paths.iter().map(output).collect();
        record["tree"] = serde_json::json!(tree);
        fs::write(&place, record.to_string()).unwrap();
        let two = Space::of(one.stages.clone());
        let (summary, events) = pull(share.path(), &two);
        assert_eq!((summary.skipped, summary.failed), (vec![0], vec![]), "{paths:?}: {events:?}");
        two.ran(&["a"], &[]);
    }
    // Nothing else was wrong with it.
    fs::write(&place, honest.to_string()).unwrap();
    assert_eq!(pull(share.path(), &Space::of(one.stages.clone())).0.restored, [0]);
}

#[test]
fn a_record_under_the_name_of_another_recipe_counts_for_nothing() {
    let (one, two, share) = (Space::new(), Space::new(), TempDir::new().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    push(&one, share.path());
    let records = files(&share.path().join("records"));
    let of = |name: &str| {
        let record = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
        records.iter().find(|(_, text)| record(text)["run"]["instance"] == name).unwrap()
    };
    fs::write(&of("a").0, &of("d").1).unwrap();
    let (summary, events) = pull(share.path(), &two);
    assert_eq!((summary.restored, summary.skipped), (vec![3], vec![0, 1, 2]), "{events:?}");
}

#[test]
fn of_two_results_of_one_recipe_the_first_stays() {
    let space = || Space::of(vec![("a", "od -An -N8 -tx1 /dev/urandom > $OUT/x".into(), vec![])]);
    let (one, two, share) = (space(), space(), TempDir::new().unwrap());
    for space in [&one, &two] {
        space.ran(&["a"], &[]);
    }
    assert_eq!(push(&one, share.path()).0, ["Result"]);
    let before = files(share.path());
    assert_eq!(push(&two, share.path()), (vec!["Other".to_owned()], 0));
    assert_eq!(files(share.path()), before);
}

/// Keeps two files, fails, and the next time makes its result of them.
const HALF: &str = "[ -e $SCRATCH/half ] || { mkdir -p $SCRATCH/deep; cat w > $SCRATCH/deep/half; touch $SCRATCH/half; exit 1; }; \
                    cat $SCRATCH/deep/half > $OUT/x; echo whole >> $OUT/x";

fn half() -> Space {
    let mut space =
        Space::of(vec![("a", HALF.to_owned(), vec![]), ("b", "cp $IN_A/x $OUT/y".into(), vec!["a"])]);
    space.give("a", "reads", vec!["w"]);
    fs::write(space.path("w"), "half\n").unwrap();
    space
}

#[test]
fn a_stage_goes_on_elsewhere_from_where_it_was_left() {
    let (one, two, share) = (half(), half(), TempDir::new().unwrap());
    leave_half(&one);
    assert_eq!(push(&one, share.path()), (vec!["Unfinished".into(), "Nothing".into()], 5));
    assert_eq!(push(&one, share.path()), (vec!["There".into(), "Nothing".into()], 0));
    let (summary, events) = pull(share.path(), &two);
    assert_eq!((summary.restored, summary.skipped), (vec![], vec![0, 1]));
    assert_eq!(events, [Event::Brought { id: 0 }]);
    // What is here already is not replaced, nor does it replace what it came from.
    assert_eq!(pull(share.path(), &two).1, []);
    // Some programs copy no empty folders.
    fs::remove_dir(share.path().join("records")).unwrap();
    assert_eq!(push(&two, share.path()).0, ["There", "Nothing"]);
    two.ran(&["a", "b"], &[]);
    assert_eq!(read(&two.path("artifacts/b/y")), "half\nwhole\n");
    // A result takes the place of what led to it, there and here.
    let unfinished = || files(&share.path().join("unfinished"));
    assert_eq!(unfinished().len(), 1);
    assert_eq!(push(&two, share.path()).0, ["Result", "Result"]);
    assert_eq!(unfinished(), []);
    assert_eq!(push(&one, share.path()).0, ["There", "Nothing"]);
    assert_eq!(unfinished(), []);
    assert!(!files(&one.path(".repro/scratch")).is_empty());
    assert_eq!(pull(share.path(), &one).0.restored, [0, 1]);
    assert_eq!(files(&one.path(".repro/scratch")), []);
}

/// Runs the first half of the stage.
fn leave_half(space: &Space) {
    assert_eq!(space.run().0.failed, [0]);
    // Processes of tests beside this one may have inherited the lock, for a moment.
    let lock = fs::File::open(scratch(space).with_extension("lock")).unwrap();
    lock.lock().unwrap();
}

/// The scratch folder of an interrupted stage.
fn scratch(space: &Space) -> PathBuf {
    let entries = space.path(".repro/scratch").read_dir().unwrap();
    entries.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap()
}

#[test]
fn an_attempt_that_would_write_elsewhere_or_is_of_another_stage_or_of_the_future_counts_for_nothing() {
    let (one, share) = (half(), TempDir::new().unwrap());
    leave_half(&one);
    push(&one, share.path());
    let (place, text) = files(&share.path().join("unfinished")).pop().unwrap();
    let forge = |change: fn(&mut serde_json::Value)| {
        let mut attempt: serde_json::Value = serde_json::from_slice(&text).unwrap();
        change(&mut attempt);
        fs::write(&place, attempt.to_string()).unwrap();
        let two = half();
        let (_, events) = pull(share.path(), &two);
        assert!(!two.path("x").exists());
        events
    };
    assert_eq!(forge(|attempt| attempt["outputs"][0]["path"] = "../../../x".into()), []);
    assert_eq!(forge(|attempt| attempt["recipe"] = engine::digest::Digest::of("").to_string().into()), []);
    // Nothing would ever be later.
    assert_eq!(forge(|attempt| attempt["written"]["half"] = 4_000_000_000_000_000_000_i64.into()), []);
    assert_eq!(forge(|_| {}), [Event::Brought { id: 0 }]);
}

#[test]
fn only_drafts_that_a_push_left_long_ago_are_swept_from_a_shared_folder() {
    let (one, share) = (Space::new(), TempDir::new().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    push(&one, share.path());
    let drafts = share.path().join("drafts");
    fs::create_dir_all(&drafts).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(31 * 24 * 60 * 60);
    for (name, is_old) in [("1-2-3", true), ("1-2-4", false), ("thesis", true)] {
        fs::write(drafts.join(name), "").unwrap();
        if is_old {
            fs::File::options().write(true).open(drafts.join(name)).unwrap().set_modified(old).unwrap();
        }
    }
    push(&one, share.path());
    let left = ["1-2-3", "1-2-4", "thesis"].map(|name| drafts.join(name).exists());
    assert_eq!(left, [false, true, true]);
}

#[test]
fn what_was_written_last_stays() {
    let (one, two, share) = (half(), half(), TempDir::new().unwrap());
    leave_half(&one);
    push(&one, share.path());
    pull(share.path(), &two);
    std::thread::sleep(std::time::Duration::from_millis(20)); // more than the grain of the file system's clock
    fs::write(scratch(&two).join("deep/half"), "more\n").unwrap();
    assert_eq!(push(&two, share.path()).0, ["Unfinished", "Nothing"]);
    let before = files(share.path());
    assert_eq!(push(&one, share.path()).0, ["Later", "Nothing"]);
    assert_eq!(files(share.path()), before);
    let (_, events) = pull(share.path(), &one);
    assert!(said(&events)[0].starts_with("what somebody pushed of it was written later"), "{events:?}");
    assert_eq!(read(&scratch(&one).join("deep/half")), "half\n");
    fs::remove_dir_all(scratch(&one)).unwrap();
    assert_eq!(pull(share.path(), &one).1, [Event::Brought { id: 0 }]);
    assert_eq!(read(&scratch(&one).join("deep/half")), "more\n");
    // To take something away is to write, too; and all times come along, which a stage may go by.
    let age = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::open(scratch(&one).join("half")).unwrap().set_modified(age).unwrap();
    fs::remove_dir_all(scratch(&one).join("deep")).unwrap();
    assert_eq!(push(&one, share.path()).0, ["Unfinished", "Nothing"]);
    assert_eq!(push(&two, share.path()).0, ["Later", "Nothing"]);
    let three = half();
    assert_eq!(pull(share.path(), &three).1, [Event::Brought { id: 0 }]);
    assert!(!scratch(&three).join("deep").exists());
    let written = fs::metadata(scratch(&three).join("half")).unwrap().modified().unwrap();
    assert_eq!(written, fs::metadata(scratch(&one).join("half")).unwrap().modified().unwrap());
    assert_eq!(push(&three, share.path()).0, ["There", "Nothing"]);
}

/// As where the runner was killed, and something that the stage reads has been touched since.
fn touched_meanwhile(space: &Space) {
    fs::write(scratch(space).with_extension("lock"), "something else").unwrap();
}

#[test]
fn what_the_next_run_would_not_go_on_from_makes_way_for_what_others_have() {
    let (one, share) = (half(), TempDir::new().unwrap());
    leave_half(&one);
    push(&one, share.path());
    touched_meanwhile(&one);
    let (summary, events) = with(share.path(), &one, &RunOptions::default());
    assert_eq!(summary.ran, [0, 1], "{events:?}");
    assert!(events.contains(&Event::Brought { id: 0 }), "{events:?}");
}

#[test]
fn what_a_stage_would_not_go_on_from_here_it_does_not_elsewhere() {
    let (one, share) = (half(), TempDir::new().unwrap());
    leave_half(&one);
    // The next run here would empty the folder: what lies there may be made of something else.
    touched_meanwhile(&one);
    assert_eq!(push(&one, share.path()).0, ["Nothing", "Nothing"]);
    // Nor from what is damaged, or not plain files, or still being written.
    let one = half();
    leave_half(&one);
    let held = fs::File::options().append(true).open(scratch(&one).with_extension("lock")).unwrap();
    held.lock().unwrap();
    assert_eq!(push(&one, share.path()).0, ["Running", "Nothing"]);
    held.unlock().unwrap();
    std::os::unix::fs::symlink("half", scratch(&one).join("link")).unwrap();
    let (given, _) = push(&one, share.path());
    assert!(given[0].contains("`link` is not a plain file"), "{given:?}");
    fs::remove_file(scratch(&one).join("link")).unwrap();
    assert_eq!(push(&one, share.path()).0, ["Unfinished", "Nothing"]);
    let damaged = object(share.path(), "half\n");
    fs::remove_file(&damaged).unwrap();
    fs::write(&damaged, "HALF\n").unwrap();
    let two = half();
    let (summary, events) = with(share.path(), &two, &RunOptions::default());
    assert_eq!(summary.failed, [0], "it starts anew");
    assert!(said(&events)[0].starts_with("what it could go on from stays where it is: "), "{events:?}");
    two.ran(&["a", "b"], &[]);
}

#[test]
fn what_is_too_large_to_be_a_record_is_not_read() {
    let [one, two] = [(); 2].map(|()| Space::of(vec![("a", "echo one > $OUT/x".to_owned(), vec![])]));
    let share = TempDir::new().unwrap();
    one.ran(&["a"], &[]);
    push(&one, share.path());
    let (record, _) = files(&share.path().join("records")).remove(0);
    // JSON may end in as many blanks as there is room for.
    let mut file = fs::File::options().append(true).open(record).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(b' '), 64 << 20), &mut file).unwrap();
    let (summary, _) = pull(share.path(), &two);
    assert_eq!((summary.restored, summary.skipped), (vec![], vec![0]));
}
