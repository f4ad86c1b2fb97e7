//! What runs, what is restored, what stays: with shell commands as stages.

use std::{fs, sync::Arc};

use engine::{digest::Digest, observer::Event, project::Project, run::RunOptions};

use crate::space::{Space, read};

#[test]
fn a_second_run_runs_nothing() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    assert_eq!(read(&space.path("artifacts/c/z")), "o\n");
    let lock = read(&space.path("pipeline.lock"));
    space.ran(&[], &[]);
    assert_eq!(read(&space.path("pipeline.lock")), lock);
}

#[test]
fn a_changed_parameter_reruns_its_chain_and_changing_back_restores_it() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    space.edit("a", "echo two > $OUT/x");
    space.ran(&["a", "b", "c"], &[]);
    assert_eq!(read(&space.path("artifacts/c/z")), "t\n");
    space.edit("a", "echo one > $OUT/x");
    space.ran(&[], &["a", "b", "c"]);
    assert_eq!(read(&space.path("artifacts/c/z")), "o\n");
}

#[test]
fn the_lock_file_follows_other_bytes_of_the_same_recipe() {
    let mut space = Space::new();
    space.edit("d", "date +%N > $OUT/x");
    space.ran(&["a", "b", "c", "d"], &[]);
    for only in [false, true] {
        space.run_with(&RunOptions { targets: vec![3], force: true, only, ..RunOptions::default() });
        let digest = Digest::of(read(&space.path("artifacts/d/x"))).to_string();
        assert!(read(&space.path("pipeline.lock")).contains(&digest), "only: {only}");
    }
}

#[test]
fn equal_bytes_stop_the_ripple() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    space.edit("a", "echo other > $OUT/x");
    space.ran(&["a", "b"], &[]);
}

#[test]
fn a_touched_artifact_is_still_fresh_and_an_edited_one_is_restored_from_an_unharmed_cache() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let artifact = space.path("artifacts/b/y");
    fs::write(&artifact, "o\n").unwrap();
    space.ran(&[], &[]);
    fs::write(&artifact, "!\n").unwrap();
    space.ran(&[], &["b"]);
    assert_eq!(read(&artifact), "o\n");
    fs::remove_dir_all(space.path("artifacts")).unwrap();
    space.ran(&[], &["a", "b", "c", "d"]);
    fs::remove_dir_all(space.path(".repro")).unwrap();
    space.ran(&["a", "b", "c", "d"], &[]);
}

#[test]
fn a_failing_stage_leaves_the_earlier_result_whole_and_stops_what_follows() {
    let mut space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    space.edit("b", "echo half > $OUT/y; echo reason >&2; exit 7");
    let (summary, events) = space.run();
    assert_eq!((summary.failed, summary.ran, summary.skipped), (vec![1], vec![], vec![2]));
    assert_eq!(read(&space.path("artifacts/b/y")), "o\n");
    let said = events.iter().any(|event| {
        matches!(event, Event::Failed { id: 1, message, .. }
        if message.contains("exit code 7") && message.contains("reason"))
    });
    assert!(said, "{events:?}");
}

#[test]
fn a_stage_without_output_is_an_error() {
    let mut space = Space::new();
    space.edit("a", "true");
    let (summary, _) = space.run();
    assert_eq!((summary.exit_code(), summary.failed), (1, vec![0]));
}

#[test]
fn a_damaged_cache_object_is_found_by_verify_and_made_again_when_it_is_needed() {
    let space = Space::new();
    space.ran(&["a", "b", "c", "d"], &[]);
    let digest = engine::digest::Digest::of("alone\n").to_string();
    let object = space.path(&format!(".repro/objects/{}/{}", &digest[..2], &digest[2..]));
    fs::remove_file(&object).unwrap();
    fs::write(&object, "wrong\n").unwrap();
    let project = Project::open(space.folder.path()).unwrap();
    assert_eq!(project.verify(&space.pipeline()).unwrap()[0].path, object.canonicalize().unwrap());
    space.ran(&[], &[]);
    fs::remove_file(space.path("artifacts/d/x")).unwrap();
    let (summary, events) = space.run();
    assert_eq!((summary.exit_code(), summary.ran, summary.restored), (0, vec![3], vec![]));
    let named = events
        .iter()
        .any(|event| matches!(event, Event::Said { id: 3, line } if line.contains(&digest[2..])));
    assert!(named, "{events:?}");
    assert_eq!(read(&object), "alone\n");
    assert_eq!(project.verify(&space.pipeline()).unwrap(), []);
}

#[test]
fn a_stop_ends_the_running_command_and_exits_130() {
    let mut space = Space::new();
    space.edit("a", "sleep 60");
    let options = RunOptions { jobs: 2, ..RunOptions::default() };
    let stop = Arc::clone(&options.stop);
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        stop.store(1, std::sync::atomic::Ordering::Relaxed);
    });
    let (summary, events) = space.run_with(&options);
    assert_eq!((summary.exit_code(), summary.failed, summary.ran), (130, vec![], vec![3]));
    assert!(events.contains(&Event::Stopped { id: 0 }), "{events:?}");
}

#[test]
fn the_recipe_encoding_is_pinned() {
    let space = Space::new();
    let recipe = engine::recipe::Recipe::of(&space.pipeline(), 1, &[], &[engine::digest::Digest::of("")]);
    insta::assert_snapshot!(recipe.text(), @r#"
    repro recipe 1
    kind shell 1
    param run = "cut -c1 $IN_A/x > $OUT/y"
    input a blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262
    "#);
    assert_eq!(
        recipe.digest().to_string(),
        "22b2d5f3bea3937e5938b8f589b2347e54eb13330f5d956d42e566638c004482"
    );
}
