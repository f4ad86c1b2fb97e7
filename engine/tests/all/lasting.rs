//! What is said to be done survives a crash, and what a crash left half is made again.

use std::fs;

use engine::{digest::Digest, observer::Event, project::Project, run::RunOptions};

use crate::space::Space;

#[test]
fn nothing_is_done_nor_its_scratch_folder_deleted_before_its_result_is_recorded() {
    let harm = "touch $SCRATCH/part; echo 1 > $OUT/x; rm -rf .repro/records; touch .repro/records";
    let space = Space::of(vec![("a", harm.to_owned(), vec![])]);
    let project = Project::open(space.folder.path()).unwrap();
    let mut events: Vec<Event> = Vec::new();
    let error = project.run(&space.pipeline(), &RunOptions::default(), &mut events).unwrap_err();
    assert!(error.to_string().contains(".repro/records"), "{error}");
    assert!(!events.iter().any(|event| matches!(event, Event::Finished { .. })), "{events:?}");
    let attempts = fs::read_dir(space.path(".repro/scratch")).unwrap();
    assert!(attempts.into_iter().any(|attempt| attempt.unwrap().path().join("part").exists()));
}

#[test]
fn an_object_that_is_cut_is_made_again_with_its_result() {
    // The larger one is kept in another way.
    for size in [6, 1 << 20] {
        let space = Space::of(vec![("a", format!("head -c {size} /dev/zero > $OUT/x"), vec![])]);
        space.ran(&["a"], &[]);
        let digest = Digest::of(vec![0_u8; size]).to_string();
        let object = space.path(&format!(".repro/objects/{}/{}", &digest[..2], &digest[2..]));
        fs::remove_file(&object).unwrap();
        fs::write(&object, "").unwrap();
        let lose = || fs::remove_dir_all(space.path("artifacts/a")).unwrap();
        lose();
        space.ran(&["a"], &[]);
        lose();
        space.ran(&[], &["a"]);
    }
}
