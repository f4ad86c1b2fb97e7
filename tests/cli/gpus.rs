//! GPUs are handed out as ids. No GPU is needed: the ids are what `CUDA_VISIBLE_DEVICES` says.

use std::{collections::BTreeSet, process::Command};

use crate::project::{Answer, TestProject};

/// Stages that fail if another one holds their GPU at the same time.
const STAGES: &str = r#"
[stage.one]
kind = "command"
run = """
for id in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do mkdir busy-$id || exit 9; done
sleep 0.05
for id in $(echo $CUDA_VISIBLE_DEVICES | tr , ' '); do rmdir busy-$id; done
echo $CUDA_VISIBLE_DEVICES > $OUT/ids
"""
outputs = ["ids"]
resources = { gpus = "${gpus}" }
matrix = { n = [1, 2, 3, 4, 5, 6] }

[params]
gpus = 1
"#;

fn run(project: &TestProject, devices: &str, args: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_repro"));
    command.args(args).env("CUDA_VISIBLE_DEVICES", devices);
    project.start_as(&mut command).wait()
}

fn ids(project: &TestProject) -> Vec<String> {
    let id = |n| project.read(&format!("artifacts/one/n={n}/ids")).trim().to_owned();
    (1..=6).map(id).collect()
}

#[test]
fn two_stages_never_share_a_gpu_and_only_those_that_can_be_seen_are_given() {
    let project = TestProject::new(STAGES);
    let answer = run(&project, "5, GPU-7f", &["run", "--jobs", "6"]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let given: BTreeSet<String> = ids(&project).into_iter().collect();
    assert!(!given.is_empty() && given.iter().all(|id| id == "5" || id == "GPU-7f"), "{given:?}");
    let two = run(&project, "5,GPU-7f", &["run", "--jobs", "6", "--force", "-S", "gpus=2"]);
    assert_eq!(two.code, Some(0), "{}", two.err);
    for given in ids(&project) {
        assert_eq!(given.split(',').collect::<BTreeSet<_>>(), BTreeSet::from(["5", "GPU-7f"]));
    }
}

#[test]
fn who_wants_more_gpus_than_can_be_seen_is_told_so() {
    let project = TestProject::new(STAGES);
    for (devices, seen) in [("0,1", "2 can be seen"), ("", "0 can be seen")] {
        let answer = run(&project, devices, &["run", "one[n=1]", "-S", "gpus=3"]);
        assert_eq!(answer.code, Some(1), "{}", answer.err);
        assert!(answer.err.contains("it wants 3 GPUs, and ") && answer.err.contains(seen), "{}", answer.err);
        assert!(answer.err.contains("help: lower `gpus` in its `resources`"), "{}", answer.err);
    }
}
