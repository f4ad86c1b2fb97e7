//! Mistakes: each is shown at its place, with a way out and the right exit code.

use crate::project::TestProject;

#[test]
fn an_unknown_key_is_shown_with_place_caret_suggestion_and_exit_code_2() {
    let project = TestProject::new("[stage.a]\nkind = \"command\"\nrum = \"true\"\noutputs = []\n");
    let answer = project.repro(&["dag"]);
    assert_eq!(answer.code, Some(2), "{}", answer.err);
    assert!(answer.err.contains("pipeline.toml:3:1"), "{}", answer.err);
    assert!(answer.err.contains("rum = \"true\""), "{}", answer.err);
    assert!(answer.err.contains("^^^"), "{}", answer.err);
    assert!(answer.err.contains("`run`"), "{}", answer.err);
}

#[test]
fn a_missing_pipeline_file_is_named_with_exit_code_2() {
    let project = TestProject::new("");
    let answer = project.repro(&["dag", "-f", "nowhere.toml"]);
    assert_eq!(answer.code, Some(2), "{}", answer.err);
    assert!(answer.err.contains("nowhere.toml"), "{}", answer.err);
}

#[test]
fn a_folder_that_is_not_there_is_named_with_exit_code_2() {
    let project = TestProject::new("");
    let answer = project.repro(&["-C", "nowhere", "dag"]);
    assert_eq!(answer.code, Some(2), "{}", answer.err);
    assert!(answer.err.contains("`nowhere`"), "{}", answer.err);
}
