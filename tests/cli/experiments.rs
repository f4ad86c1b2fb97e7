//! `pipeline.toml` and the files in `experiments/`: what they promise together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use engine::{
    instance::{Instance, Pipeline},
    pipeline::{LoadOptions, load},
};
use network::mode::Mode;

use crate::project::TestProject;

pub(crate) fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = fs::read_dir(root.join("experiments")).expect("the folder of experiments");
    let mut files: Vec<_> = folder.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    files
}

/// With settings as after `-S`.
pub(crate) fn expanded(file: &Path, profile: Option<&str>, sets: &[&str]) -> Pipeline {
    let sets = sets.iter().map(|set| (*set).to_owned()).collect();
    let options = LoadOptions { file: file.into(), profile: profile.map(Into::into), sets };
    load(&options, &stages::kinds()).unwrap_or_else(|error| panic!("{:?}", error.diagnostics))
}

/// A parameter that is a word; nothing where there is none.
pub(crate) fn param(instance: &Instance, key: &str) -> String {
    instance.params.recipe.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
}

/// The model of a training.
fn model<'a>(pipeline: &'a Pipeline, instance: &Instance) -> &'a Instance {
    let model = instance.needs.iter().find(|need| need.role == "model").map(|need| need.from);
    &pipeline.instances[model.expect("a model")]
}

/// The network of a training.
fn arch(pipeline: &Pipeline, instance: &Instance) -> String {
    param(model(pipeline, instance), "arch")
}

#[test]
fn every_experiment_says_what_it_costs_and_has_its_profiles() {
    for file in files() {
        let source = fs::read_to_string(&file).expect("a readable file");
        let comment: String = source.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(comment.contains('?') && comment.contains("Cost: "), "{}", file.display());
        let stem = file.file_stem().expect("a name");
        for profile in [None, Some("jpeg"), Some("quick")] {
            let pipeline = expanded(&file, profile, &[]);
            assert_eq!(pipeline.root, Path::new(env!("CARGO_MANIFEST_DIR")));
            let namespace = Path::new("experiments").join(stem).join(profile.unwrap_or_default());
            assert_eq!(pipeline.namespace, namespace);
        }
    }
}

/// Which quick profile trains what: docs/results.md shows it.
fn trained_by(what: impl Fn(&Pipeline, &Instance) -> String) -> BTreeMap<String, BTreeSet<String>> {
    let mut by = BTreeMap::<_, BTreeSet<_>>::new();
    for file in files() {
        let pipeline = expanded(&file, Some("quick"), &[]);
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        for instance in pipeline.instances.iter().filter(|instance| instance.kind.name() == "train") {
            by.entry(what(&pipeline, instance)).or_default().insert(name.clone());
        }
    }
    by
}

fn rows(by: &BTreeMap<String, BTreeSet<String>>, wanted: &[String]) -> String {
    let row = |what: &String| {
        let files: Vec<_> = by[what].iter().map(|file| format!("`{file}`")).collect();
        format!("| `{what}` | {} |\n", files.join(", "))
    };
    wanted.iter().map(row).collect()
}

#[test]
fn the_quick_profiles_train_every_network_and_every_mode() {
    let depths = [14, 20, 32, 44, 56, 110, 218, 434, 866].map(|depth| format!("resnet{depth}"));
    let widths = [2, 4, 8, 16, 32].map(|width| format!("resnet14-{width}"));
    let vggs = [11, 13, 16, 19].map(|depth| format!("vgg{depth}"));
    let networks = [&depths[..], &widths, &vggs].concat();
    let modes: Vec<_> = Mode::NAMES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let by_network = trained_by(arch);
    let by_mode = trained_by(|_, instance| param(instance, "mode"));
    let told = "each network and mode is trained in the quick profile of a file in experiments/, and in docs/results.md";
    assert_eq!(by_network.keys().collect::<BTreeSet<_>>(), networks.iter().collect(), "{told}");
    assert_eq!(by_mode.keys().collect::<BTreeSet<_>>(), modes.iter().collect(), "{told}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/results.md");
    let page = fs::read_to_string(path).expect("a readable page");
    for table in [rows(&by_network, &networks), rows(&by_mode, &modes)] {
        assert!(page.contains(&table), "docs/results.md should say:\n{table}");
    }
}

#[test]
fn the_quick_profiles_draw_both_variants_and_every_initialisation() {
    let mut inits = BTreeSet::new();
    for file in files() {
        let pipeline = expanded(&file, Some("quick"), &[]);
        for model in pipeline.instances.iter().filter(|instance| instance.kind.name() == "model") {
            inits.insert(["init", "bn_init", "variant"].map(|key| param(model, key)));
        }
    }
    for init in ["he-normal", "he-uniform", "orthogonal", "binary"] {
        for bn_init in ["uniform", "fixed", "oneone", "positive-negative"] {
            assert!(inits.contains(&[init, bn_init, "paper"].map(String::from)), "{init} {bn_init}");
        }
    }
    assert!(inits.contains(&["he-normal", "fixed", "origin"].map(String::from)));
}

#[test]
fn the_settings_of_the_help_work_on_the_projects_own_pipeline() {
    let help = TestProject::new("").ends(&["run", "--help"], 0).out;
    let sets: Vec<_> = help.lines().filter_map(|line| line.trim().strip_prefix("repro run -S ")).collect();
    assert!(sets.len() >= 2, "{help}");
    for set in sets {
        let set = set.split("  ").next().expect("a setting").trim_matches('\'');
        expanded(&Path::new(env!("CARGO_MANIFEST_DIR")).join("pipeline.toml"), None, &[set]);
    }
}

/// A training is known by what it is, not by the file that lists it.
#[test]
fn trainings_that_several_files_want_have_one_recipe() {
    let mut recipes = BTreeMap::<_, BTreeSet<_>>::new();
    for file in files() {
        let pipeline = expanded(&file, Some("jpeg"), &[]);
        for instance in pipeline.instances.iter().filter(|instance| instance.kind.name() == "train") {
            let recipe = instance.params.recipe.to_string();
            assert!(!recipe.contains("seed"), "{}: the seed is the model's", instance.name);
            let usual = |key: &str, value: &str| {
                let axis =
                    instance.axes.get(key).map(|axis| axis.as_str().map_or(axis.to_string(), str::to_owned));
                axis.is_none_or(|axis| axis == value)
            };
            let of = model(&pipeline, instance);
            if param(of, "bn_init") == "uniform"
                && param(of, "variant") == "paper"
                && usual("shortcut_bn", "variant")
                && usual("weight_decay", "0.0001")
                && usual("mode", "bn")
            {
                recipes.entry(arch(&pipeline, instance)).or_default().insert(recipe);
            }
        }
    }
    assert!(recipes.len() >= 18, "{:?}", recipes.keys());
    assert!(recipes.values().all(|recipes| recipes.len() == 1), "{recipes:#?}");
}
