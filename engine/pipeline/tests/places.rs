//! Where a file's results lie, and which others would lie there too.

use std::{fs, path::PathBuf};

use super::kinds;
use crate::pipeline::{LoadOptions, load, namespace_of};

const A: &str = "[stage.a]\nkind = 'source'\n";

#[test]
fn every_file_and_profile_has_a_namespace_of_its_own() {
    let of = |file: &str, profile| namespace_of("/project".as_ref(), file.as_ref(), profile);
    assert_eq!(of("/project/pipeline.toml", None), PathBuf::new());
    assert_eq!(of("/project/pipeline.toml", Some("quick")), PathBuf::from("quick"));
    assert_eq!(
        of("/project/experiments/depth.toml", Some("quick")),
        PathBuf::from("experiments/depth/quick")
    );
    assert_eq!(of("/project/experiments/pipeline.toml", None), PathBuf::from("experiments/pipeline"));
}

#[test]
fn another_file_in_a_project_shares_its_root() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("experiments")).unwrap();
    fs::write(folder.path().join("pipeline.toml"), "").unwrap();
    let file = folder.path().join("experiments/depth.toml");
    fs::write(&file, A).unwrap();
    let pipeline = load(&LoadOptions { file, profile: None, sets: vec![] }, &kinds()).unwrap();
    assert_eq!(pipeline.root, folder.path());
    assert_eq!(pipeline.namespace, PathBuf::from("experiments/depth"));
}

#[test]
fn no_two_files_have_results_in_one_place_whichever_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let place = |file: &str| folder.path().join(file);
    fs::create_dir_all(place("experiments/depth")).unwrap();
    for file in ["pipeline.toml", "train.toml", "experiments/depth.toml", "experiments/depth/quick.toml"] {
        fs::write(place(file), A).unwrap();
    }
    let stage = |name: &str| format!("[stage.{name}]\nkind = 'source'\n");
    let profile = |name: &str| format!("{A}[profile.{name}.params]\n");
    let (main, depth) = ("pipeline.toml", "experiments/depth.toml");
    // What one file has, another that is loaded, with a profile, and what is said.
    for (changed, text, file, chosen, expected) in [
        (main, A.to_owned(), "train.toml", None, None),
        (
            main,
            stage("train"),
            "train.toml",
            None,
            Some("`train` is also a stage or a profile of `pipeline.toml`"),
        ),
        (
            main,
            profile("train"),
            "train.toml",
            None,
            Some("`train` is also a stage or a profile of `pipeline.toml`"),
        ),
        (main, stage("train"), main, None, Some("`train` is also where `train.toml` has its results")),
        (main, profile("train"), main, None, None),
        (
            main,
            profile("train"),
            main,
            Some("train"),
            Some("`train` is also where `train.toml` has its results"),
        ),
        (
            main,
            stage("experiments"),
            main,
            None,
            Some("`experiments` is also where `experiments/depth.toml` has its results"),
        ),
        (main, stage("pipeline"), main, None, None),
        (depth, A.to_owned(), "experiments/depth/quick.toml", None, None),
        (
            depth,
            stage("quick"),
            "experiments/depth/quick.toml",
            None,
            Some("`quick` is also a stage or a profile of `experiments/depth.toml`"),
        ),
        (
            depth,
            profile("quick"),
            "experiments/depth/quick.toml",
            None,
            Some("`quick` is also a stage or a profile of `experiments/depth.toml`"),
        ),
        (
            depth,
            stage("quick"),
            depth,
            None,
            Some("`quick` is also where `experiments/depth/quick.toml` has its results"),
        ),
    ] {
        fs::write(place(changed), &text).unwrap();
        let options = LoadOptions { file: place(file), profile: chosen.map(str::to_owned), sets: vec![] };
        let said = load(&options, &kinds()).err().map(|error| error.diagnostics[0].message.clone());
        assert_eq!(said.as_deref(), expected, "{file} beside {text}");
        fs::write(place(changed), A).unwrap();
    }
}
