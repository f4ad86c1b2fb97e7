//! What `--profile` lays over the file.

use std::path::PathBuf;

use toml::Value;

use super::{complaints, file, names, try_load};

#[test]
fn a_profile_lies_over_params_stages_and_axes() {
    let pipeline = try_load(&file(), Some("quick"), &[]).unwrap();
    let expected = ["images", "train[arch=r8,kernel=x,seed=0]", "train[arch=r8,kernel=x,seed=1]", "plot"];
    assert_eq!(names(&pipeline), expected);
    assert_eq!(pipeline.instances[1].params.recipe["epochs"], Value::Integer(2));
    assert_eq!(pipeline.instances[1].params.recipe["lr"], Value::Float(0.25));
    assert_eq!(pipeline.namespace, PathBuf::from("quick"));
}

#[test]
fn a_profile_turns_axes_into_values_and_back_and_may_change_the_kind() {
    let text = "[stage.a]\nkind = 'source'\nlr = 0.5\nmatrix.seed = [0, 1]\n\
                [stage.b]\nkind = 'train'\nneeds.data = 'a'\nepochs = 3\n\
                [profile.p.stage.a]\nseed = 4\nmatrix.arch = ['x']\n\
                [profile.p.stage.b]\nkind = 'source'\nlr = 2.5\n";
    let pipeline = try_load(text, Some("p"), &[]).unwrap();
    assert_eq!(names(&pipeline), ["a[arch=x]", "b"]);
    assert_eq!(pipeline.instances[0].params.recipe["seed"], Value::Integer(4));
    assert!(pipeline.instances[1].needs.is_empty());
    assert!(!pipeline.instances[1].params.recipe.contains_key("epochs"));
}

#[test]
fn a_profile_must_not_share_its_part_of_the_lock_file_with_the_file_itself() {
    let said = complaints("[stage.a]\nkind = 'source'\n[profile.default]\n", None, &[]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("a profile cannot be called `default`"), "{said:?}");
}

#[test]
fn a_profile_must_not_share_its_folder_of_artifacts_with_a_stage() {
    let text = "[stage.quick]\nkind = 'source'\n[profile.quick.stage.quick]\nlr = 2.5\n";
    for profile in [None, Some("quick")] {
        let said = complaints(text, profile, &[]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("the profile `quick` has the name of a stage"), "{said:?}");
        assert!(said[0].contains("rename one of them"), "{said:?}");
    }
    // A stage that only a profile has is shown below that profile's folder.
    let text = "[stage.a]\nkind = 'source'\n[profile.p.stage.p]\nkind = 'source'\n";
    assert_eq!(names(&try_load(text, Some("p"), &[]).unwrap()), ["a", "p"]);
}

#[test]
fn a_profile_changes_no_parameter_in_a_table_that_is_not_there() {
    let text = "[params]\ntrain.decay = 0.5\n[stage.a]\nkind = 'source'\nlr = '${train.decay}'\n";
    let said = complaints(&format!("{text}[profile.p]\nparams.train.dekay = 0.1\n"), Some("p"), &[]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("a parameter `train.dekay` that does not exist"), "{said:?}");
    assert!(said[0].contains("did you mean `train.decay`?"), "{said:?}");
    let quoted = complaints(&format!("{text}[profile.p.params]\n'train.dekay' = 0.1\n"), None, &[]);
    assert!(quoted[0].contains("a parameter `train.dekay` that does not exist"), "{quoted:?}");
    let deep = complaints(&format!("{text}[profile.p]\nparams.train.opt.lr = 0.1\n"), None, &[]);
    assert_eq!(deep.len(), 1, "{deep:?}");
    let brought = "[profile.p]\nparams.train.rate = 0.1\nstage.a.lr = '${train.rate}'\n";
    assert!(try_load(&format!("{text}{brought}"), Some("p"), &[]).is_ok());
}
