//! `repro export`: what it writes and what it refuses.

use std::fs;

use crate::project::TestProject;

const TRAINING: &str = r#"
[stage.data]
kind = "dataset"
source = "synthetic"
classes = 2
train = 8
test = 2

[stage.model]
kind = "model"
arch = "resnet8"
variant = "origin"
classes = 2

[stage.train]
kind = "train"
needs = { data = "data", model = "model" }
epochs = 1
batch = 8
matrix = { mode = ["bn", "none"] }
"#;

#[test]
fn a_trained_network_is_written_whole_and_never_over_another_file() {
    let project = TestProject::new(TRAINING);
    let export =
        |more: &[&'static str]| [&["export", "train[mode=bn]", "--full", "net.safetensors"], more].concat();
    let early = project.ends(&export(&[]), 2).err;
    assert!(
        early.contains("`train[mode=bn]` is not up to date\nhelp: run `repro run 'train[mode=bn]'` first"),
        "{early}"
    );
    project.ends(&["run"], 0);
    project.ends(&export(&["--onnx", "net.onnx"]), 0);
    let bytes = fs::read(project.path("net.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tracked = file.tensor("layer3.0.bn2.num_batches_tracked").unwrap();
    assert_eq!((tracked.data(), tracked.shape().len()), (1i64.to_le_bytes().as_slice(), 0));
    assert_eq!(file.tensor("linear.weight").unwrap().shape(), [2, 64]);
    assert!(project.path("net.onnx").exists());
    project.write("net.safetensors", "mine");
    let error = project.ends(&export(&[]), 2).err;
    assert_eq!(
        error,
        "error: `net.safetensors` is there already\nhelp: choose another name, or replace it with `--force`\n"
    );
    assert_eq!(project.read("net.safetensors"), "mine");
    project.ends(&export(&["--force"]), 0);
    assert_eq!(fs::read(project.path("net.safetensors")).unwrap(), bytes);
}

#[test]
fn only_one_training_can_be_exported() {
    let project = TestProject::new(TRAINING);
    for (name, why) in [
        ("train", "`train` means several instances"),
        ("model", "`model` trains no network\nhelp: name an instance of kind `train`"),
    ] {
        let error = project.ends(&["export", name, "--full", "x"], 2).err;
        assert!(error.contains(why), "{error}");
    }
    assert!(project.ends(&["export", "train"], 2).err.contains("--full"));
}
