//! What the lock file keeps.

use std::fs;

use engine::run::RunOptions;

use crate::space::{Space, read};

#[test]
fn it_knows_which_files_may_be_executed() {
    let mut space = Space::new();
    space.edit("d", "echo run > $OUT/x; chmod 755 $OUT/x");
    space.ran(&["a", "b", "c", "d"], &[]);
    // As in a clone in which the results were committed.
    fs::remove_dir_all(space.path(".repro")).unwrap();
    space.ran(&[], &[]);
}

#[test]
fn a_run_of_one_profile_leaves_the_others_in_it() {
    let space = Space::of(vec![("a", "echo one > $OUT/x".to_owned(), vec![])]);
    let mut pipeline = space.pipeline();
    for profile in [None, Some("p"), Some("q")] {
        (pipeline.profile, pipeline.namespace) =
            (profile.map(str::to_owned), profile.unwrap_or_default().into());
        let (summary, events) = crate::common::run(&pipeline, &RunOptions::default());
        assert_eq!(summary.exit_code(), 0, "{events:?}");
    }
    let lock = read(&pipeline.lock_file());
    for section in ["default", "p", "q"] {
        assert!(lock.contains(&format!("[\"{section}\".\"a\"]")), "{lock}");
    }
}
