//! What is done with a card, on one that is emulated: its driver and compiler are loaded as any are, and run the kernels
//! on the processor (`network/cuda/emulation/`).

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::Path,
    sync::OnceLock,
};

use serde_json::Value;

use crate::project::{Answer, Running, TestProject};

#[path = "../../network/cuda/emulation/card.rs"]
mod emulated;

/// Two groups of two, which step together. A card runs four graphs in an epoch: two steps and two batches of test images.
const PIPELINE: &str = r#"
[stage.data]
kind = "dataset"
source = "synthetic"
train = 10
test = 10

[stage.model]
kind = "model"
arch = "resnet8"
variant = "origin"
matrix = { seed = [0, 1] }

[stage.train]
kind = "train"
needs = { data = "data", model = "model" }
matrix = { mode = ["bn", "random"], seed = [0, 1] }
epochs = 2
milestones = [1]
batch = 5
device = "cuda"
"#;

const TRAININGS: [&str; 4] = ["mode=bn,seed=0", "mode=bn,seed=1", "mode=random,seed=0", "mode=random,seed=1"];

/// With `settings` of the driver's, if there is a compiler to build it.
fn start(project: &TestProject, args: &[&str], settings: &[(&str, &str)]) -> Option<Running> {
    static CARD: OnceLock<Option<[(&str, OsString); 4]>> = OnceLock::new();
    let build = || emulated::environment(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("card"));
    let card = CARD.get_or_init(build).as_ref()?;
    let card = card.iter().map(|(name, value)| (*name, value.as_os_str()));
    let settings = settings.iter().map(|(name, value)| (*name, OsStr::new(value)));
    Some(project.start_with(args, card.chain(settings)))
}

#[track_caller]
fn ends(project: &TestProject, args: &[&str], settings: &[(&str, &str)], code: i32) -> Option<Answer> {
    let answer = start(project, args, settings)?.wait();
    assert_eq!(answer.code, Some(code), "{args:?}\n{}{}", answer.out, answer.err);
    Some(answer)
}

fn checkpoint(project: &TestProject, training: &str) -> Vec<u8> {
    fs::read(project.path(&format!("artifacts/train/{training}/checkpoint.safetensors")))
        .expect("a checkpoint")
}

#[track_caller]
fn same(project: &TestProject, expected: &[Vec<u8>; 4]) {
    for (training, expected) in TRAININGS.iter().zip(expected) {
        assert!(checkpoint(project, training) == *expected, "{training}");
    }
}

/// The checkpoints of all trainings, made in groups beside each other; other tests find the kernels compiled.
fn checkpoints() -> Option<&'static [Vec<u8>; 4]> {
    static ALL: OnceLock<Option<[Vec<u8>; 4]>> = OnceLock::new();
    let train = || {
        let project = TestProject::new(PIPELINE);
        ends(&project, &["run"], &[], 0)?;
        assert_eq!(makers(&project), [0; 4].map(|_| ("card 0".to_owned(), 4)));
        Some(TRAININGS.map(|training| checkpoint(&project, training)))
    };
    ALL.get_or_init(train).as_ref()
}

/// Which card made each checkpoint, and how many were made in the same process.
fn makers(project: &TestProject) -> [(String, u64); 4] {
    let records = walkdir::WalkDir::new(project.path(".repro/records")).into_iter().flatten();
    let files = records.filter(|entry| entry.file_type().is_file());
    let run = |file: walkdir::DirEntry| {
        let text = fs::read_to_string(file.path()).expect("a record");
        serde_json::from_str::<Value>(&text).expect("JSON")["run"].take()
    };
    let runs: Vec<Value> = files.map(run).collect();
    TRAININGS.map(|training| {
        let name = format!("train[{training}]");
        let run = runs.iter().find(|run| run["instance"] == name.as_str()).expect("its record");
        let engine = run["notes"]["engine"].as_str().expect("its engine");
        let card = engine.strip_prefix("cuda engine, emulated ").expect("a card");
        (card[.."card 0".len()].to_owned(), run["notes"]["together"].as_u64().unwrap_or(1))
    })
}

#[test]
fn a_training_alone_on_a_card_has_the_bits_that_it_has_in_a_group() {
    let Some(expected) = checkpoints() else { return };
    assert!(expected.iter().enumerate().all(|(i, own)| !expected[..i].contains(own)));
    for i in [1, 2] {
        let project = TestProject::new(PIPELINE);
        ends(&project, &["run", &format!("train[{}]", TRAININGS[i])], &[], 0);
        assert!(checkpoint(&project, TRAININGS[i]) == expected[i], "{}", TRAININGS[i]);
    }
}

#[test]
fn a_training_goes_on_after_its_card_was_lost() {
    let Some(expected) = checkpoints() else { return };
    let project = TestProject::new(PIPELINE);
    let args = ["run", "train[mode=bn,seed=0]"];
    let lost = ends(&project, &args, &[("EMULATED_LOST_AFTER", "7")], 1).unwrap();
    assert!(lost.err.contains("CUDA_ERROR_LAUNCH_FAILED"), "{}", lost.err);
    assert!(lost.err.contains("a training goes on from where it was saved last"), "{}", lost.err);
    // Its first epoch was saved.
    ends(&project, &args, &[("EMULATED_LOST_AFTER", "4")], 0);
    assert!(checkpoint(&project, TRAININGS[0]) == expected[0]);
}

#[test]
fn groups_go_on_after_their_card_was_lost() {
    let Some(expected) = checkpoints() else { return };
    let project = TestProject::new(PIPELINE);
    // Of sixteen graphs each group has run six at least, and so has saved its first epoch.
    ends(&project, &["run"], &[("EMULATED_LOST_AFTER", "14")], 1);
    // Four more of each, and one that packs the filters of each training that has its weights back.
    ends(&project, &["run"], &[("EMULATED_LOST_AFTER", "10")], 0);
    same(&project, expected);
}

#[test]
fn trainings_that_do_not_fit_a_card_together_go_one_after_the_other() {
    let Some(expected) = checkpoints() else { return };
    let project = TestProject::new(PIPELINE);
    let small = ends(&project, &["run"], &[("EMULATED_MEMORY", "270000000")], 1).unwrap();
    assert!(
        small.err.contains("resnet8 at batch 5 takes 2.1 MiB on the device, which has 1.5 MiB"),
        "{}",
        small.err
    );
    assert!(small.err.contains("; the largest batch that fits is 2"), "{}", small.err);
    ends(&project, &["run"], &[("EMULATED_MEMORY", "271500000")], 0);
    same(&project, expected);
}

#[test]
fn each_of_two_cards_has_its_share() {
    let Some(expected) = checkpoints() else { return };
    let project = TestProject::new(PIPELINE);
    let cards = [("EMULATED_CARDS", "2"), ("CUDA_VISIBLE_DEVICES", "0,1")];
    ends(&project, &["run"], &cards, 0);
    let makers = makers(&project);
    for card in ["card 0", "card 1"] {
        let shared = makers.iter().filter(|(own, together)| own == card && *together == 2);
        assert_eq!(shared.count(), 2, "{makers:?}");
    }
    same(&project, expected);
}

#[test]
fn a_group_that_is_stopped_goes_on_to_the_same_bits() {
    let Some(expected) = checkpoints() else { return };
    let project = TestProject::new(PIPELINE);
    let Some(running) = start(&project, &["run"], &[]) else { return };
    project.wait_for(".repro/logs/train/mode=random,seed=1.log");
    running.signal("INT");
    let stopped = running.wait();
    assert!(matches!(stopped.code, Some(0 | 130)), "{}", stopped.err); // it may have been at its end
    ends(&project, &["run"], &[], 0);
    same(&project, expected);
}

#[test]
fn a_card_without_tensor_cores_is_told_from_one_that_has_them() {
    let project = TestProject::new(&PIPELINE.replace("batch = 5", "batch = 5\nprecision = \"bf16\""));
    let args = ["run", "train[mode=bn,seed=0]"];
    let Some(refused) = ends(&project, &args, &[("EMULATED_CAPABILITY", "7.5")], 1) else { return };
    assert!(refused.err.contains("knows neither tf32 nor bf16"), "{}", refused.err);
    let unknown = ends(&project, &args, &[("EMULATED_CAPABILITY", "10.0")], 1).unwrap();
    assert!(unknown.err.contains("does not know the card's compute capability 10.0"), "{}", unknown.err);
}

#[test]
fn the_doctor_tells_of_the_cards() {
    let project = TestProject::new(PIPELINE);
    let cards = [("EMULATED_CARDS", "3"), ("CUDA_VISIBLE_DEVICES", "2,0,1"), ("EMULATED_SILENT", "1")];
    let Some(told) = ends(&project, &["doctor"], &cards, 0) else { return };
    for line in
        ["for CUDA 12.4", "emulated card 2, 1.00 TiB, capability 9.0", "emulated card 0,", "NVRTC 12.4"]
    {
        assert!(told.out.contains(line), "no `{line}` in\n{}", told.out);
    }
    assert!(!told.out.contains("emulated card 1"), "{}", told.out);
    let old = ends(&project, &["doctor"], &[("EMULATED_CUDA", "11080")], 0).unwrap();
    assert!(old.out.contains("the driver is for CUDA 11.8, and 12.0 is the oldest"), "{}", old.out);
}
