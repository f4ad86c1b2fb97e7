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
    run::{RunOptions, Summary},
    share::{Pushed, Share},
};
use tempfile::TempDir;

use crate::space::{Space, read};

/// Pushes all that a clone has.
fn push(from: &Space, to: &Path) -> Pushed {
    let (pipeline, share) = (from.pipeline(), Share::create(to).unwrap());
    let all: Vec<_> = (0..pipeline.instances.len()).collect();
    Project::open(from.folder.path()).unwrap().push(&pipeline, &all, &share).unwrap()
}

/// Brings a clone up to date with what lies in a folder.
fn with(share: &Path, clone: &Space, options: &RunOptions) -> (Summary, Vec<Event>) {
    let share = Some(Share::open(share).unwrap());
    let project = Project::open_beside(clone.folder.path(), share).unwrap();
    let mut events = Vec::new();
    let summary = project.run(&clone.pipeline(), options, &mut events).unwrap();
    (summary, events)
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
    let pushed = push(&one, share.path());
    assert_eq!(
        (pushed.results, pushed.there, pushed.bytes),
        (vec![0, 1, 2, 3], vec![], 4 + 2 + 6),
        "b and c have one content"
    );
    let again = push(&one, share.path());
    assert_eq!((again.results, again.there, again.bytes), (vec![], vec![0, 1, 2, 3], 0));
    let (summary, _) = pull(share.path(), &two);
    assert_eq!((summary.restored, summary.skipped), (vec![0, 1, 2, 3], vec![]));
    assert_eq!(read(&two.path("artifacts/c/z")), "o\n");
    // It is the clone's own now, with how it came about.
    fs::remove_dir_all(share.path()).unwrap();
    two.ran(&[], &[]);
    fs::remove_dir_all(two.path("artifacts")).unwrap();
    two.ran(&[], &["a", "b", "c", "d"]);
    let records =
        |space: &Space| Project::open(space.folder.path()).unwrap().records(&space.pipeline()).unwrap();
    assert_eq!(records(&one), records(&two));
}

#[test]
fn what_nobody_has_is_run_and_what_follows_from_it_is_taken() {
    let (one, mut two, share) = (Space::new(), Space::new(), TempDir::new().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    push(&one, share.path());
    two.edit("a", "echo other > $OUT/x"); // of which b keeps the same letter
    let dry = RunOptions { dry_run: true, ..RunOptions::default() };
    let (plan, _) = with(share.path(), &two, &dry);
    let standings: Vec<_> = plan.plan.iter().map(|(_, standing)| standing.clone()).collect();
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
    for folder in [one.path(""), one.path(".repro")] {
        let refused = Share::create(&folder).unwrap_err();
        assert!(matches!(refused, EngineError::User { .. }), "{refused}");
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
    assert!(said(&events)[0].contains("is damaged"), "{events:?}");
    assert_eq!(read(&damaged), "ALONE\n");
    assert_eq!(read(&two.path("artifacts/d/x")), "alone\n");
    // What is cut is seen to be, and made whole.
    fs::write(&damaged, "al").unwrap();
    assert_eq!(push(&one, share.path()).results, [3]);
    assert_eq!(read(&damaged), "alone\n");
}

#[test]
fn what_is_damaged_here_is_taken_from_others() {
    let (one, share) = (Space::new(), TempDir::new().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    push(&one, share.path());
    fs::remove_dir_all(one.path("artifacts")).unwrap();
    let damaged = object(&one.path(".repro"), "alone\n");
    fs::remove_file(&damaged).unwrap();
    fs::write(&damaged, "ALONE\n").unwrap();
    let (plan, _) = with(share.path(), &one, &RunOptions { dry_run: true, ..RunOptions::default() });
    assert!(plan.plan.iter().all(|(_, standing)| matches!(standing, Standing::Restorable(_))), "{plan:?}");
    assert_eq!(pull(share.path(), &one).0.restored, [0, 1, 2, 3]);
    assert_eq!((read(&damaged), read(&one.path("artifacts/d/x"))), ("alone\n".into(), "alone\n".into()));
}

#[test]
fn what_the_cache_lost_and_still_shows_can_be_given_to_others() {
    let (one, two, share) = (Space::new(), Space::new(), TempDir::new().unwrap());
    one.ran(&["a", "b", "c", "d"], &[]);
    fs::remove_dir_all(one.path(".repro/objects")).unwrap();
    assert_eq!(push(&one, share.path()).results, [0, 1, 2, 3]);
    assert_eq!(pull(share.path(), &two).0.restored, [0, 1, 2, 3]);
}

#[test]
fn a_record_that_leads_out_of_its_folder_or_is_not_of_its_files_counts_for_nothing() {
    let (one, share) = (Space::of(vec![("a", "echo one > $OUT/x".into(), vec![])]), TempDir::new().unwrap());
    one.ran(&["a"], &[]);
    push(&one, share.path());
    let (place, text) = files(&share.path().join("records")).pop().unwrap();
    let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let digest = |path: &str| {
        let digest = engine::digest::Digest::of("one\n");
        engine::digest::Digest::of_tree([(path, false, digest)]).to_string()
    };
    for (path, tree) in ["../../x", "/x", "a/../../x", "./x", "a//x", "", "/", ".."]
        .map(|path| (path, digest(path)))
        .into_iter()
        .chain([("x", digest("y"))])
    {
        let mut record = record.clone();
        record["outputs"][0]["path"] = path.into();
        record["tree"] = tree.into();
        fs::write(&place, record.to_string()).unwrap();
        let two = Space::of(one.stages.clone());
        let (summary, events) = pull(share.path(), &two);
        assert_eq!((summary.skipped, summary.failed), (vec![0], vec![]), "{path}: {events:?}");
    }
    // Nothing else was wrong with it.
    fs::write(&place, record.to_string()).unwrap();
    assert_eq!(pull(share.path(), &Space::of(one.stages.clone())).0.restored, [0]);
}

#[test]
fn a_stage_goes_on_elsewhere_from_where_it_was_left() {
    let half = "[ -e $SCRATCH/half ] || { mkdir -p $SCRATCH/deep; echo half > $SCRATCH/deep/half; touch $SCRATCH/half; exit 1; }; \
                cat $SCRATCH/deep/half > $OUT/x; echo whole >> $OUT/x";
    let space =
        || Space::of(vec![("a", half.to_owned(), vec![]), ("b", "cp $IN_A/x $OUT/y".into(), vec!["a"])]);
    let (one, two, share) = (space(), space(), TempDir::new().unwrap());
    assert_eq!(one.run().0.failed, [0]);
    let pushed = push(&one, share.path());
    assert_eq!((pushed.results, pushed.unfinished, pushed.left), (vec![], vec![0], vec![1]));
    let (summary, events) = pull(share.path(), &two);
    assert_eq!((summary.restored, summary.skipped), (vec![], vec![0, 1]));
    assert_eq!(events, [Event::Brought { id: 0 }]);
    // What is here already is not replaced.
    assert_eq!(pull(share.path(), &two).1, []);
    two.ran(&["a", "b"], &[]);
    assert_eq!(read(&two.path("artifacts/b/y")), "half\nwhole\n");
    // A result takes the place of what led to it.
    assert_eq!(files(&share.path().join("scratch")).len(), 2);
    assert_eq!(push(&two, share.path()).results, [0, 1]);
    assert_eq!(files(&share.path().join("scratch")), []);
    // A run takes it, too, and only plain files are copied.
    std::os::unix::fs::symlink(
        "half",
        one.path(".repro/scratch")
            .read_dir()
            .unwrap()
            .find_map(|entry| {
                let path = entry.unwrap().path();
                path.is_dir().then(|| path.join("link"))
            })
            .unwrap(),
    )
    .unwrap();
    let (other, all) = (TempDir::new().unwrap(), [0, 1]);
    let to = Share::create(other.path()).unwrap();
    let refused = Project::open(one.folder.path()).unwrap().push(&one.pipeline(), &all, &to).unwrap_err();
    assert!(refused.to_string().contains("link` is no plain file"), "{refused}");
    assert_eq!(files(&other.path().join("scratch")), []);
}
