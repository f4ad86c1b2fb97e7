//! Mistakes: each is shown at its place, with a way out and the right exit code.

use std::process::Command;

use crate::{project::TestProject, run::CHAINS};

#[test]
fn a_cycle_is_shown_as_a_loop_with_exit_code_2() {
    let project = TestProject::new(CHAINS);
    project.edit("pipeline.toml", "outputs = [\"number\"]", "outputs = [\"number\"]\nneeds.late = \"join\"");
    let answer = project.ends(&["run"], 2);
    let said = "the stages need each other: first -> join -> second -> first";
    assert!(answer.err.contains(said) && answer.err.contains("pipeline.toml:9:14"), "{}", answer.err);
    assert!(answer.err.contains("remove one of these needs"), "{}", answer.err);
    assert!(!project.path(".repro").exists());
}

#[test]
fn a_profile_with_the_name_of_a_stage_is_shown_with_exit_code_2() {
    let project = TestProject::new(&format!("{CHAINS}\n[profile.join.params]\nword = \"quick\"\n"));
    let answer = project.ends(&["run"], 2);
    assert!(answer.err.contains("the profile `join` has the name of a stage"), "{}", answer.err);
    assert!(answer.err.contains("rename one of them"), "{}", answer.err);
}

/// A limit on the size of files stands in for a full disk: the system refuses further bytes alike.
#[test]
fn a_disk_that_takes_no_more_is_named_and_what_was_finished_before_is_kept() {
    let project = TestProject::new(CHAINS);
    project.ends(&["run", "first"], 0);
    let program = env!("CARGO_BIN_EXE_repro");
    let small = format!("trap '' XFSZ; ulimit -f 1; exec {program} run --jobs 1");
    let answer = project.start_as(Command::new("sh").args(["-c", &small])).wait();
    assert_eq!(answer.code, Some(2), "{}{}", answer.out, answer.err);
    assert!(answer.err.contains("error: cannot write `"), "{}", answer.err);
    assert!(answer.err.contains("File too large"), "{}", answer.err);
    let answer = project.ends(&["run"], 0).out;
    assert!(answer.contains(" 3 fresh in ") || answer.contains("restored"), "{answer}");
    assert_eq!(project.read("artifacts/join/all"), "one 0\none 1\none 2\n");
    project.ends(&["verify"], 0);
}

#[test]
fn a_stage_that_finds_the_disk_full_fails_with_its_own_words() {
    let project = TestProject::new(CHAINS);
    project.edit("pipeline.toml", "cat $IN_NUMBER/number > $OUT/copy", "cat $IN_NUMBER/number > /dev/full");
    let answer = project.ends(&["run"], 1);
    assert!(answer.err.contains("No space left on device"), "{}", answer.err);
    assert_eq!(project.read("artifacts/first/seed=0/number"), "one 0\n");
}

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

#[test]
fn a_misspelt_stage_axis_or_value_is_suggested_with_exit_code_2() {
    let project = TestProject::new(CHAINS);
    for (name, said) in [
        ("secnd", "there is no stage `secnd`; did you mean `second`?"),
        ("second[sed=1]", "has no axis `sed`; did you mean `seed`?"),
        ("second[seed=7]", "has no value `7`"),
    ] {
        for command in ["run", "status", "explain", "metrics"] {
            let answer = project.ends(&[command, name], 2);
            assert!(answer.err.contains(said), "{}", answer.err);
        }
    }
    assert!(!project.path(".repro").exists());
}

#[test]
fn an_unknown_profile_is_named_with_exit_code_2() {
    let quick = "\n[profile.quick.params]\nword = \"quick\"\n";
    let project = TestProject::new(&format!("{CHAINS}{quick}"));
    let answer = project.ends(&["run", "--profile", "quik"], 2);
    assert!(answer.err.contains("`quik`") && answer.err.contains("`quick`"), "{}", answer.err);
    project.ends(&["run", "--profile", "quick"], 0);
    assert_eq!(project.read("artifacts/quick/first/seed=0/number"), "quick 0\n");
}

/// The system refuses new files in `/sys` even to its superuser.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_cannot_be_written_is_named_with_exit_code_2() {
    let project = TestProject::new(CHAINS);
    std::os::unix::fs::symlink("/sys", project.path(".repro")).unwrap();
    let answer = project.ends(&["run"], 2);
    assert!(
        answer.err.contains("error: cannot open `") && answer.err.contains(".repro/lock`"),
        "{}",
        answer.err
    );
    assert!(answer.err.contains("help: make `") && answer.err.contains("writable"), "{}", answer.err);
}
