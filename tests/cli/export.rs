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
fn a_model_folder_has_a_card_with_what_the_training_reached_and_what_rebuilds_it() {
    let long = TRAINING.replace("epochs = 1", "epochs = 3").replace("test = 2", "test = 40");
    let project = TestProject::new(&long);
    project.ends(&["run", "train[mode=bn]"], 0);
    let export = ["export", "train[mode=bn]", "--hf", "hub/net", "--tensorboard", "runs/bn"];
    project.ends(&export, 0);
    let card = project.read("hub/net/README.md");
    let history = project.read("artifacts/train/mode=bn/history.jsonl");
    let rows: Vec<serde_json::Value> =
        history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [first, .., last] = rows.as_slice() else { panic!("one epoch alone: {history}") };
    assert_ne!(first["test_accuracy"], last["test_accuracy"]);
    assert!(card.contains("# resnet8-origin-bn-seed0\n"), "{card}");
    assert!(
        card.contains("\npipeline_tag: image-classification\nmetrics:\n"),
        "no dataset of the Hub's: {card}"
    );
    let reached = 100.0 * last["test_accuracy"].as_f64().expect("a number");
    assert!(card.contains(&format!("It recognises {reached:.2} % of the test images.")), "{card}");
    let config: serde_json::Value = serde_json::from_str(&project.read("hub/net/config.json")).unwrap();
    assert_eq!(config["id2label"].as_object().unwrap().len(), 2);
    let checkpoint = fs::read(project.path("artifacts/train/mode=bn/checkpoint.safetensors")).unwrap();
    assert_eq!(fs::read(project.path("hub/net/model.safetensors")).unwrap(), checkpoint);
    assert!(project.read("hub/net/rebuild.py").contains("def load"));
    let refused = project.ends(&export, 2).err;
    assert!(refused.contains("`hub/net` is there already"), "{refused}");
    let refused = project.ends(&["export", "train[mode=bn]", "--full", "net", "--onnx", "./net"], 2).err;
    assert!(refused.contains("two things cannot both be `./net`"), "{refused}");
    project.ends(&[&export[..], &["--force"]].concat(), 0);
}

#[test]
fn every_curve_of_a_training_is_in_the_event_file() {
    let project = TestProject::new(TRAINING);
    project.ends(&["run", "train[mode=none]"], 0);
    for folder in ["one", "two"] {
        project.ends(&["export", "train[mode=none]", "--tensorboard", folder], 0);
    }
    let [one, two] = ["one", "two"].map(|folder| {
        let files: Vec<_> = fs::read_dir(project.path(folder)).unwrap().map(Result::unwrap).collect();
        assert!(files.len() == 1 && files[0].file_name().to_string_lossy().contains("tfevents"));
        fs::read(files[0].path()).unwrap()
    });
    assert_eq!(one, two);
    let history = project.read("artifacts/train/mode=none/history.jsonl");
    let row: serde_json::Value = serde_json::from_str(history.trim()).unwrap();
    for (tag, key) in [
        ("loss/train", "train_loss"),
        ("loss/test", "test_loss"),
        ("accuracy/train", "train_accuracy"),
        ("accuracy/test", "test_accuracy"),
        ("learning_rate", "learning_rate"),
    ] {
        // Fields 1 (the tag) and 2 (the value) of the message, as protobuf writes them.
        let value = (row[key].as_f64().unwrap() as f32).to_le_bytes();
        let point = [&[0x0a, tag.len() as u8], tag.as_bytes(), &[0x15], &value].concat();
        assert!(one.windows(point.len()).any(|bytes| bytes == point), "{tag}: {row}");
    }
}

#[test]
fn all_of_an_export_is_written_or_nothing() {
    let project = TestProject::new(TRAINING);
    project.ends(&["run", "train[mode=bn]"], 0);
    fs::create_dir_all(project.path("sub")).unwrap();
    project.write("file", "");
    for (words, why) in [
        (["--full", "net", "--onnx", "sub/../net"], "two things cannot both be `sub/../net`"),
        (
            ["--full", "sub/model.safetensors", "--hf", "sub"],
            "two things cannot both be `sub/model.safetensors`",
        ),
        (["--full", "net", "--onnx", "nowhere/net"], "there is no folder `nowhere`"),
        (["--full", "net", "--hf", "file"], "`file` is no folder"),
    ] {
        let error = project.ends(&[&["export", "train[mode=bn]", "--force"], &words[..]].concat(), 2).err;
        assert!(error.contains(why), "{error}");
        assert!(!project.path("net").exists() && !project.path("sub/model.safetensors").exists(), "{why}");
    }
}

#[test]
fn only_one_training_can_be_exported() {
    let project = TestProject::new(TRAINING);
    for (name, why) in [
        ("train", "`train` means 2 instances: `train[mode=bn]`, `train[mode=none]`\nhelp: name one of them"),
        ("model", "`model` trains no network\nhelp: name an instance of kind `train`"),
    ] {
        let error = project.ends(&["export", name, "--full", "x"], 2).err;
        assert!(error.contains(why), "{error}");
    }
    assert!(project.ends(&["export", "train"], 2).err.contains("--full"));
    // What is to be typed is about the same pipeline.
    let settings = ["-S", "stage.train.epochs=2", "-S", "stage.train.milestones=[1, 2]"];
    let error = project.ends(&[&settings[..], &["export", "train[mode=bn]", "--full", "x"]].concat(), 2).err;
    let again = "repro -S stage.train.epochs=2 -S 'stage.train.milestones=[1, 2]' run 'train[mode=bn]'";
    assert!(error.contains(&format!("help: run `{again}` first")), "{error}");
}
