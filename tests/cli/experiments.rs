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

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = fs::read_dir(root.join("experiments")).expect("the folder of experiments");
    let mut files: Vec<_> = folder.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    files
}

fn expanded(file: &Path, profile: Option<&str>) -> Pipeline {
    let options = LoadOptions { file: file.into(), profile: profile.map(Into::into), sets: Vec::new() };
    load(&options, &stages::kinds()).unwrap_or_else(|error| panic!("{error}"))
}

fn text(values: &BTreeMap<String, toml::Value>, key: &str) -> String {
    values.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
}

/// The network of a training: an axis, or else what its model says.
fn arch(pipeline: &Pipeline, instance: &Instance) -> String {
    let model = instance.needs.iter().find(|need| need.role == "model").map(|need| need.from);
    let params = &pipeline.instances[model.expect("a model")].params.recipe;
    text(&params.clone().into_iter().collect(), "arch")
}

#[test]
fn every_experiment_says_what_it_costs_and_has_its_profiles() {
    for file in files() {
        let source = fs::read_to_string(&file).expect("a readable file");
        let comment: String = source.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(comment.contains('?') && comment.contains("Cost: "), "{}", file.display());
        let stem = file.file_stem().expect("a name");
        for profile in [None, Some("jpeg"), Some("quick")] {
            let pipeline = expanded(&file, profile);
            assert_eq!(pipeline.root, Path::new(env!("CARGO_MANIFEST_DIR")));
            assert_eq!(pipeline.namespace, Path::new(stem).join(profile.unwrap_or_default()));
        }
    }
}

#[test]
fn the_quick_profiles_train_every_mode_and_all_but_the_largest_networks() {
    let (mut modes, mut trained, mut drawn) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut inits = BTreeSet::new();
    for file in files() {
        let pipeline = expanded(&file, Some("quick"));
        for instance in &pipeline.instances {
            let recipe = instance.params.recipe.clone().into_iter().collect();
            match instance.kind.name() {
                "train" => {
                    modes.insert(text(&recipe, "mode"));
                    trained.insert(arch(&pipeline, instance));
                }
                "model" => {
                    drawn.insert(text(&recipe, "arch"));
                    inits.insert((text(&recipe, "init"), text(&recipe, "bn_init"), text(&recipe, "variant")));
                }
                _ => {}
            }
        }
    }
    assert_eq!(modes, Mode::NAMES.map(|(name, _)| name.to_owned()).into());
    let depths = [14, 20, 32, 44, 56, 110, 218].map(|depth| format!("resnet{depth}"));
    let others = ["resnet14-2", "resnet14-4", "vgg11", "vgg13", "vgg16", "vgg19"].map(String::from);
    assert_eq!(trained, depths.into_iter().chain(others).collect());
    // These are drawn only; the widest, resnet14-32, is only counted (network/arch.rs).
    let large: BTreeSet<_> = drawn.difference(&trained).cloned().collect();
    assert_eq!(large, ["resnet14-16", "resnet14-8", "resnet434", "resnet866"].map(String::from).into());
    for init in ["he-normal", "he-uniform", "orthogonal", "binary"] {
        for bn_init in ["uniform", "fixed", "oneone", "positive-negative"] {
            assert!(inits.contains(&(init.into(), bn_init.into(), "paper".into())), "{init} {bn_init}");
        }
    }
    assert!(inits.contains(&("he-normal".into(), "fixed".into(), "origin".into())));
}

/// A training is known by what it is, not by the file that lists it.
#[test]
fn trainings_that_several_files_want_have_one_recipe() {
    let mut recipes = BTreeMap::<_, BTreeSet<_>>::new();
    for file in files() {
        let pipeline = expanded(&file, Some("jpeg"));
        for instance in pipeline.instances.iter().filter(|instance| instance.kind.name() == "train") {
            let recipe = instance.params.recipe.to_string();
            assert!(!recipe.contains("seed"), "{}: the seed is the model's", instance.name);
            let usual = |key: &str, value: &str| {
                let axis =
                    instance.axes.get(key).map(|axis| axis.as_str().map_or(axis.to_string(), str::to_owned));
                axis.is_none_or(|axis| axis == value)
            };
            let paper = usual("bn_init", "uniform") && usual("variant", "paper");
            if paper
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
