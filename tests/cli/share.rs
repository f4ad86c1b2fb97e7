//! What clones give each other with `push` and `pull`.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::project::TestProject;

/// Some seconds of training.
pub(crate) const TRAINING: &str = r#"
[params]
epochs = 30

[stage.data]
kind = "dataset"
source = "synthetic"
train = 64
test = 16

[stage.model]
kind = "model"
arch = "resnet8"

[stage.train]
kind = "train"
needs = { data = "data", model = "model" }
epochs = "${epochs}"
batch = 16

[stage.evaluate]
kind = "evaluate"
needs = { data = "data", train = "train" }
"#;

#[test]
fn a_training_goes_on_in_another_clone_to_the_same_bits() {
    let [one, two, undisturbed] = [(); 3].map(|()| TestProject::new(TRAINING));
    let run = one.start(&["run"]);
    let start = Instant::now();
    let saved = || {
        let attempts = fs::read_dir(one.path(".repro/scratch")).into_iter().flatten().flatten();
        attempts.into_iter().any(|attempt| attempt.path().join("resume-cpu.safetensors").exists())
    };
    while !saved() {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is saved");
        std::thread::sleep(Duration::from_millis(5));
    }
    run.signal("INT");
    assert_eq!(run.wait().code, Some(130));
    let folder = one.path("shared/by us");
    let folder = folder.to_str().unwrap();
    let pushed = one.ends(&["push", folder], 0);
    assert!(pushed.out.starts_with("pushed 2 results and 1 unfinished ("), "{}", pushed.out);
    assert!(pushed.out.ends_with("), 0 there already\n"), "{}", pushed.out);
    assert_eq!(pushed.err, "`evaluate`: it has nothing of today to copy\n");

    let pulled = two.ends(&["pull", folder], 0);
    assert!(pulled.out.starts_with("restored 2, 2 not taken in "), "{}", pulled.out);
    assert!(pulled.err.contains("\nbrought  train: what it can go on from\n"), "{}", pulled.err);
    let missing = format!("`train`: not in `{folder}`\n`evaluate`: of no use without what it needs\n");
    assert!(pulled.err.contains(&missing), "{}", pulled.err);
    let ran = two.ends(&["run", "--from", folder], 0);
    assert!(ran.out.starts_with("ran 2, 2 fresh in "), "{}", ran.out);
    assert!(two.read(".repro/logs/train.log").contains("going on "), "{}", two.read(".repro/logs/train.log"));
    undisturbed.ends(&["run"], 0);
    assert_eq!(two.read("pipeline.lock"), undisturbed.read("pipeline.lock"));

    // And the first clone has it without training.
    two.ends(&["push", folder, "train"], 0);
    let dry = one.ends(&["run", "--dry-run", "--from", folder], 0);
    assert!(
        dry.out.starts_with(&format!("restore  train: the cache or `{folder}` holds its result\n")),
        "{}",
        dry.out
    );
    let ran = one.ends(&["run", "--from", folder], 0);
    assert!(ran.out.starts_with("ran 1, restored 1, 2 fresh in "), "{}", ran.out);
    assert_eq!(one.read("pipeline.lock"), undisturbed.read("pipeline.lock"));
}

#[test]
fn a_clone_without_data_takes_a_training_and_exports_it() {
    let project = TestProject::new(TRAINING);
    project.ends(&["run", "-S", "epochs=1"], 0);
    let with = |args: &[&'static str], code| project.ends(&[args, &["-S", "epochs=1"]].concat(), code);
    with(&["push", "shared", "model", "train"], 0);
    // What git does not keep.
    for lost in [".repro", "artifacts/data/dataset.bin", "artifacts/train/checkpoint.safetensors"] {
        let lost = project.path(lost);
        if lost.is_dir() { fs::remove_dir_all(lost).unwrap() } else { fs::remove_file(lost).unwrap() }
    }
    assert!(
        with(&["pull", "shared", "train", "--allow-missing"], 0)
            .out
            .starts_with("restored 1, 1 as the lock file says, 1 fresh in ")
    );
    let refused = with(&["export", "train", "--onnx", "net.onnx"], 2);
    assert!(refused.err.contains("`train` is not up to date"), "{}", refused.err);
    with(&["export", "train", "--onnx", "net.onnx", "--allow-missing"], 0);
    assert!(project.path("net.onnx").exists());
    fs::remove_file(project.path("artifacts/train/checkpoint.safetensors")).unwrap();
    fs::remove_dir_all(project.path(".repro")).unwrap();
    let refused = with(&["export", "train", "--full", "net", "--allow-missing"], 2);
    assert!(refused.err.contains("not all files of `train` are here"), "{}", refused.err);
    // The curves need no weights.
    with(&["export", "train", "--tensorboard", "curves", "--allow-missing"], 0);
    assert_eq!(fs::read_dir(project.path("curves")).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_pushed_or_pulled_is_said_with_a_way_out() {
    let project =
        TestProject::new("[stage.a]\nkind = \"command\"\nrun = \"echo > $OUT/x\"\noutputs = [\"x\"]\n");
    let answer = project.ends(&["push", "shared", "a"], 2);
    assert_eq!(
        (answer.out.as_str(), answer.err.as_str()),
        ("pushed nothing (0 B), 0 there already\n", "`a`: it has nothing of today to copy\n")
    );
    fs::create_dir(project.path("empty")).unwrap();
    let hint = "help: `repro push empty` does, where there are results\n";
    for command in [&["pull", "empty"][..], &["run", "--from", "empty"]] {
        let answer = project.ends(command, 2);
        assert_eq!(answer.err, format!("error: nobody has pushed results to `empty`\n{hint}"));
    }
    let answer = project.ends(&["pull", "nowhere"], 2);
    assert!(answer.err.starts_with("error: cannot open `nowhere`: "), "{}", answer.err);
    project.ends(&["run"], 0);
    for place in ["s3://bucket/results", "host:results"] {
        for command in [&["push", place][..], &["pull", place], &["run", "--from", place]] {
            let answer = project.ends(command, 2);
            assert!(answer.err.contains("only folders are understood"), "{}", answer.err);
        }
    }
    assert!(!project.path("host:results").exists());
    project.ends(&["push", "./host:results"], 0);
    let answer = project.ends(&["push", "."], 2);
    assert!(
        answer.err.starts_with("error: `.` is a project and keeps its own results\nhelp: "),
        "{}",
        answer.err
    );
    project.write("file", "");
    let answer = project.ends(&["push", "file/below"], 2);
    assert!(answer.err.starts_with("error: cannot create `file/below/"), "{}", answer.err);
    project.ends(&["push", "shared"], 0);
    project.edit("pipeline.toml", "echo", "echo 2");
    assert_eq!(project.ends(&["pull", "shared"], 0).err.lines().next(), Some("`a`: not in `shared`"));
    project.ends(&["pull", "shared", "a"], 2);
    project.edit("pipeline.toml", "echo 2", "echo");
    assert_eq!(project.ends(&["pull", "shared"], 0).out.split(" (").next(), Some("nothing to do: 1 fresh"));
}

#[test]
fn a_record_that_was_lost_is_made_again_of_what_lies_there() {
    const ONE: &str = "[params]\nn = 1\n[stage.one]\nkind = \"command\"\nrun = \"echo x >> ran; echo ${n} > $OUT/x\"\noutputs = [\"x\"]\n";
    for (spoil, found_by_runs) in [("rm -r .repro/records", true), (EMPTY, true), (CUT, false)] {
        let [project, share] = [TestProject::new(ONE), TestProject::new("")];
        let share = share.path("share");
        let lost = || {
            let mut sh = std::process::Command::new("sh");
            assert!(sh.args(["-c", spoil]).current_dir(project.path(".")).status().unwrap().success());
        };
        project.ends(&["run"], 0);
        lost();
        let pushed = project.ends(&["push", share.to_str().unwrap()], 0).out;
        assert!(pushed.starts_with("pushed 1 result ("), "{spoil}: {pushed}");
        if found_by_runs {
            lost();
            assert!(project.ends(&["run"], 0).out.starts_with("nothing to do: 1 fresh"));
        }
        project.ends(&["run", "-S", "n=2"], 0);
        assert!(project.ends(&["run"], 0).out.starts_with("restored 1 in "), "{spoil}");
        assert_eq!(project.read("ran"), "x\nx\n");
    }
}

/// Cuts every record in half.
const CUT: &str = "for f in .repro/records/*/*.json; do head -c 100 $f > cut; mv -f cut $f; done";

/// Empties every record, as a crash of the machine may; what a run with nothing to do goes by does not tell.
const EMPTY: &str = "rm -rf .repro/idle; for f in .repro/records/*/*.json; do : > $f; done";
