//! Where a file's results lie, and which others would lie there too.

use std::{fs, path::PathBuf};

use super::kinds;
use crate::pipeline::{LoadOptions, load, namespace_of};

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
    fs::write(&file, "[stage.a]\nkind = 'source'\n").unwrap();
    let pipeline = load(&LoadOptions { file, profile: None, sets: vec![] }, &kinds()).unwrap();
    assert_eq!(pipeline.root, folder.path());
    assert_eq!(pipeline.namespace, PathBuf::from("experiments/depth"));
    let file = folder.path().join("train.toml");
    fs::write(&file, "[stage.a]\nkind = 'source'\n").unwrap();
    let options = LoadOptions { file, profile: None, sets: vec![] };
    assert!(load(&options, &kinds()).is_ok());
    for main in ["[stage.train]\nkind = 'source'\n", "[profile.train.params]\n"] {
        fs::write(folder.path().join("pipeline.toml"), main).unwrap();
        let Err(error) = load(&options, &kinds()) else { panic!("{main}") };
        assert_eq!(error.diagnostics[0].message, "`train` is also a stage or a profile of `pipeline.toml`");
    }
    // Two further files may meet as well.
    fs::create_dir(folder.path().join("experiments/depth")).unwrap();
    let file = folder.path().join("experiments/depth/quick.toml");
    fs::write(&file, "[stage.b]\nkind = 'source'\n").unwrap();
    let options = LoadOptions { file, profile: None, sets: vec![] };
    assert!(load(&options, &kinds()).is_ok());
    for other in ["[stage.quick]\nkind = 'source'\n", "[profile.quick.params]\n"] {
        fs::write(folder.path().join("experiments/depth.toml"), other).unwrap();
        let Err(error) = load(&options, &kinds()) else { panic!("{other}") };
        let expected = "`quick` is also a stage or a profile of `experiments/depth.toml`";
        assert_eq!(error.diagnostics[0].message, expected);
    }
    // Whichever of the two comes first.
    let main = folder.path().join("pipeline.toml");
    fs::write(folder.path().join("experiments/depth.toml"), "[stage.a]\nkind = 'source'\n").unwrap();
    for (text, profile, expected) in [
        (
            "[stage.train]\nkind = 'source'\n",
            None,
            Some("`train` is also where `train.toml` has its results"),
        ),
        ("[stage.a]\nkind = 'source'\n[profile.train.params]\n", None, None),
        (
            "[stage.a]\nkind = 'source'\n[profile.train.params]\n",
            Some("train"),
            Some("`train` is also where `train.toml` has its results"),
        ),
        (
            "[stage.experiments]\nkind = 'source'\n",
            None,
            Some("`experiments` is also where `experiments/depth.toml` has its results"),
        ),
        ("[stage.pipeline]\nkind = 'source'\n", None, None),
    ] {
        fs::write(&main, text).unwrap();
        let options = LoadOptions { file: main.clone(), profile: profile.map(str::to_owned), sets: vec![] };
        let said = load(&options, &kinds()).err().map(|error| error.diagnostics[0].message.clone());
        assert_eq!(said.as_deref(), expected, "{text}");
    }
}
