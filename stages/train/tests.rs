use std::{cell::Cell, path::PathBuf};

use network::{
    data::{IMAGE_BYTES, Images, pack},
    init::thin,
};
use tempfile::TempDir;

use super::*;
use crate::{
    evaluate::Evaluate,
    model::Model,
    testing::{Listener, run, run_with, with_job},
};

const CLASSES: usize = 3;

/// A dataset of grey images in `data`, and a model for it in `model`.
fn project(classes: usize) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let images = |n: usize| {
        let labels: Vec<u16> = (0..n).map(|i| (i % CLASSES) as u16).collect();
        let pixels =
            (0..n).flat_map(|i| (0..IMAGE_BYTES).map(move |p| ((i % CLASSES) * 80 + (i * p) % 53) as u8));
        (labels, pixels.collect::<Vec<_>>())
    };
    let ((train, train_pixels), (test, test_pixels)) = (images(20), images(6));
    let names: Vec<_> = (0..CLASSES).map(|c| format!("class {c}")).collect();
    let train = Images { labels: &train, pixels: &train_pixels };
    let packed = pack(&names, train, Images { labels: &test, pixels: &test_pixels }).unwrap();
    fs::create_dir(root.path().join("data")).unwrap();
    fs::write(root.path().join("data/dataset.bin"), packed).unwrap();
    let model = format!("arch = 'resnet8'\nvariant = 'origin'\nclasses = {classes}\nseed = 3");
    run(&Model, &model, &[], &root.path().join("model")).unwrap();
    root
}

fn inputs(root: &TempDir) -> [(&'static str, PathBuf); 2] {
    ["data", "model"].map(|role| (role, root.path().join(role)))
}

const SHORT: &str = "device = 'cpu'\nepochs = 2\nbatch = 8\nlearning_rate = 0.05\nmilestones = [1]\n";

fn train(root: &TempDir, name: &str, params: &str) -> Listener {
    let mut listener = Listener::default();
    let params = format!("{SHORT}{params}");
    run_with(&mut listener, &Train, &params, &inputs(root), &root.path().join(name)).unwrap();
    listener
}

/// Evaluates training `a` with another checkpoint, into `metrics`.
fn evaluate_changed(root: &TempDir, change: impl FnOnce(&mut Checkpoint)) -> Result<(), StageError> {
    let path = root.path().join("a/checkpoint.safetensors");
    let mut checkpoint = Checkpoint::from_bytes(&fs::read(&path).unwrap()).unwrap();
    change(&mut checkpoint);
    fs::write(&path, checkpoint.to_bytes().unwrap()).unwrap();
    let inputs = [("data", root.path().join("data")), ("train", root.path().join("a"))];
    run(&Evaluate, "", &inputs, &root.path().join("metrics"))
}

/// All that a result holds.
fn bytes(root: &TempDir, name: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(root.path().join(name))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_training_leaves_a_checkpoint_a_history_and_notes() {
    let root = project(CLASSES);
    let listener = train(&root, "a", "mode = 'bn'");
    let files = bytes(&root, "a");
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["checkpoint.safetensors", "history.csv", "history.jsonl"]);
    let history = String::from_utf8(files[1].1.clone()).unwrap();
    let rates: Vec<_> = history.lines().skip(1).map(|line| line.split(',').nth(1).unwrap()).collect();
    assert_eq!(rates, ["0.05", "0.005"]);
    let checkpoint = Checkpoint::from_bytes(&files[0].1).unwrap();
    assert_eq!((checkpoint.mode, checkpoint.steps, checkpoint.model.seed), (Mode::Bn, 6, 3));
    for note in ["engine", "images_per_second", "peak_rss_bytes"] {
        assert!(listener.notes.contains_key(note), "{note}");
    }
    let (first, last) = (&listener.progress[0], listener.progress.last().unwrap());
    assert_eq!((first.done, first.total, first.readings[0].as_str()), (0, 40, "epoch 1/2"));
    assert_eq!(last.done, 40);
    train(&root, "b", "mode = 'bn'");
    assert_eq!(files, bytes(&root, "b"), "equal recipes, other bytes");
    train(&root, "c", "mode = 'bn'\norder_seed = 4");
    assert_ne!(files[0].1, bytes(&root, "c")[0].1, "the order has no effect");
    train(&root, "d", "mode = 'bn'\norder_seed = 3");
    assert_eq!(files, bytes(&root, "d"), "without one it is the model's seed");
}

#[test]
fn the_origins_random_mode_trains_few_of_its_weights() {
    let root = project(CLASSES);
    run(
        &Model,
        "arch = 'resnet8'\nvariant = 'origin'\nclasses = 3\nbn_init = 'fixed'",
        &[],
        &root.path().join("model"),
    )
    .unwrap();
    train(&root, "a", "mode = 'origin-random'");
    let checkpoint = Checkpoint::from_bytes(&bytes(&root, "a")[0].1).unwrap();
    let weights = checkpoint.weights().unwrap();
    let (mut all, mut zero, mut moved) = (0, 0, 0);
    for param in checkpoint.model.graph().params().iter().filter(|p| p.shape.len() == 4) {
        let (after, before) = (&weights[&param.name].data, thin(checkpoint.model.seed, param).data);
        all += after.len();
        zero += after.iter().filter(|w| **w == 0.0).count();
        moved += after.iter().zip(&before).filter(|(a, b)| a != b).count();
    }
    assert_eq!(checkpoint.trained(), all, "all of them may move");
    assert!(moved > 50 && moved < all / 10, "{moved} of {all} moved");
    assert!(zero > all * 9 / 10, "{zero} of {all} are zero");
    assert!(weights["layer1.0.shortcut.1.weight"].data.iter().all(|gamma| *gamma == 1.0));
}

#[test]
fn an_interrupted_training_ends_with_the_same_bytes() {
    let root = project(CLASSES);
    let (straight, cut) = (root.path().join("straight"), root.path().join("cut"));
    let params = format!("{SHORT}mode = 'random'\nk = 3");
    run(&Train, &params, &inputs(&root), &straight).unwrap();
    // Three steps and one test batch are an epoch. The first run is stopped between two steps and goes on to
    // where it may pause, behind the epoch's last step; so does the second, within the second epoch.
    let mut told = Vec::new();
    for patience in [2, 3] {
        let mut listener = Listener { patience: Some(Cell::new(patience)), ..Listener::default() };
        let error = run_with(&mut listener, &Train, &params, &inputs(&root), &cut).unwrap_err();
        assert!(error.interrupted, "{}", error.message);
        assert!(bytes(&root, "cut").is_empty());
        assert!(root.path().join("cut.scratch").join(saved_by("cpu")).exists());
        told.extend(listener.said.into_iter().filter(|line| line.starts_with("going on")));
    }
    let mut listener = Listener::default();
    run_with(&mut listener, &Train, &params, &inputs(&root), &cut).unwrap();
    told.extend(listener.said.into_iter().filter(|line| line.starts_with("going on")));
    assert_eq!(told, ["going on within epoch 1", "going on within epoch 2"]);
    assert_eq!(bytes(&root, "cut"), bytes(&root, "straight"));
}

#[test]
fn a_member_of_a_group_that_is_stopped_saves_nothing_within_an_epoch() {
    let root = project(CLASSES);
    let out = root.path().join("cut");
    run(&Train, SHORT, &inputs(&root), &root.path().join("straight")).unwrap();
    let member = |listener: &mut Listener| {
        with_job(listener, &Train, SHORT, &inputs(&root), &out, |job| {
            let work = Work::of(job)?;
            let trainer =
                compute::start(job, &work.spec, &work.data, Device::Cpu, network::trainer::EngineName::Cpu)?;
            work.train(job, trainer, false)
        })
    };
    // Three steps and one test batch are an epoch; before the first of either it might pause.
    for patience in 0..4 {
        let mut listener = Listener { patience: Some(Cell::new(patience)), ..Listener::default() };
        let error = member(&mut listener).unwrap_err();
        assert!(error.interrupted, "{patience}: {}", error.message);
        assert!(!root.path().join("cut.scratch").join(saved_by("cpu")).exists(), "{patience}");
    }
    let mut listener = Listener { patience: Some(Cell::new(7)), ..Listener::default() };
    assert!(member(&mut listener).unwrap_err().interrupted);
    assert!(!saved_within_epoch(&fs::read(root.path().join("cut.scratch").join(saved_by("cpu"))).unwrap()));
    let mut listener = Listener::default();
    member(&mut listener).unwrap();
    assert!(listener.said.contains(&"going on after epoch 1".to_owned()), "{:?}", listener.said);
    assert_eq!(bytes(&root, "cut"), bytes(&root, "straight"));
}

#[test]
fn trainings_of_one_network_mode_batch_and_precision_step_together() {
    let root = project(CLASSES);
    let key_of = |inputs: &[(&'static str, PathBuf)], params: &str| {
        let mut key = None;
        let job = |job: &mut Job<'_>| {
            key = Some(group::key(job)?);
            Ok(())
        };
        let out = root.path().join("out");
        with_job(&mut Listener::default(), &Train, params, inputs, &out, job).unwrap();
        key
    };
    let key = |params: &str| key_of(&inputs(&root), &format!("{SHORT}{params}"));
    let plain = key("");
    for alike in
        ["weight_decay = 0.5", "momentum = 0.0", "factor = 0.5", "order_seed = 7", "shortcut_bn = 'frozen'"]
    {
        assert_eq!(key(alike), plain, "{alike}");
    }
    for other in ["mode = 'all'", "mode = 'random'", "shortcut_bn = 'trained'", "precision = 'bf16'"] {
        assert_ne!(key(other), plain, "{other}");
    }
    assert_ne!(key("mode = 'random'"), key("mode = 'random'\nk = 3"));
    assert_ne!(key_of(&inputs(&root), &SHORT.replace("batch = 8", "batch = 4")), plain);
    let other = root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(root.path().join("data/dataset.bin"), other.join("dataset.bin")).unwrap();
    let [_, model] = inputs(&root);
    assert_ne!(key_of(&[("data", other), model], SHORT), plain, "other images");
    for model in ["arch = 'resnet8'\nvariant = 'paper'", "arch = 'resnet14'\nvariant = 'origin'"] {
        let [data, (role, dir)] = inputs(&root);
        let dir = dir.with_file_name(&model[8..14]).with_extension(&model[26..]);
        run(&Model, &format!("{model}\nclasses = {CLASSES}"), &[], &dir).unwrap();
        assert_ne!(key_of(&[data, (role, dir)], SHORT), plain, "{model}");
    }
    // The next step of one that goes on within an epoch is another than that of one that does not.
    let mut listener = Listener { patience: Some(Cell::new(2)), ..Listener::default() };
    let out = root.path().join("out");
    assert!(run_with(&mut listener, &Train, SHORT, &inputs(&root), &out).unwrap_err().interrupted);
    let [cpu, cuda] = ["cpu", "cuda"].map(|engine| out.with_extension("scratch").join(saved_by(engine)));
    fs::rename(cpu, &cuda).unwrap();
    assert_ne!(key(""), plain);
    fs::rename(&cuda, cuda.with_extension("00000000.aside")).unwrap();
    assert_ne!(key(""), plain, "put aside");
}

#[test]
fn what_another_engine_saved_is_named_and_stays() {
    let root = project(CLASSES);
    train(&root, "a", "");
    let other = root.path().join("c.scratch").join(saved_by("cuda"));
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(&other, "a hundred epochs").unwrap();
    let said = train(&root, "c", "").said;
    assert!(said.iter().any(|line| line.contains("what the engine `cuda` saved")), "{said:?}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "a hundred epochs");
    assert_eq!(bytes(&root, "c"), bytes(&root, "a"));
}

#[test]
fn a_learning_rate_that_never_falls_is_told() {
    let root = project(CLASSES);
    for (milestones, told) in [("[2]", true), ("[1, 3]", false), ("[]", false)] {
        let params = format!("device = 'cpu'\nepochs = 2\nbatch = 8\nmilestones = {milestones}");
        let mut listener = Listener::default();
        run_with(&mut listener, &Train, &params, &inputs(&root), &root.path().join(milestones)).unwrap();
        let said = listener.said.iter().any(|line| line.contains("the learning rate never falls"));
        assert_eq!(said, told, "{milestones}: {:?}", listener.said);
    }
}

#[test]
fn a_damaged_or_foreign_state_is_named_and_left_aside() {
    let root = project(CLASSES);
    train(&root, "a", "");
    let saved = |name: &str, params: &str, engine: &str| {
        train(&root, name, params);
        fs::read(root.path().join(name).with_extension("scratch").join(saved_by(engine))).unwrap()
    };
    let foreign = saved("b", "weight_decay = 0", "cpu");
    let slow = saved("d", "engine = 'reference'", "reference");
    let mut flipped = saved("e", "", "cpu");
    let middle = flipped.len() - 100;
    flipped[middle] ^= 0x40;
    for (bad, why) in [
        (b"nonsense".to_vec(), "resume state: "),
        (foreign, "it belongs to another training"),
        (slow, "it was saved by the engine `reference, "),
        (flipped, "it is damaged"),
    ] {
        fs::create_dir_all(root.path().join("c.scratch")).unwrap();
        fs::write(root.path().join("c.scratch").join(saved_by("cpu")), &bad).unwrap();
        let said = train(&root, "c", "").said;
        let told = said.iter().find(|line| line.contains(why)).unwrap_or_else(|| panic!("{said:?}"));
        let kept = told.split('`').rev().nth(1).unwrap();
        assert!(kept.ends_with(".aside") && fs::read(kept).unwrap() == bad, "{said:?}");
        assert!(said.contains(&"starting anew".to_owned()), "{said:?}");
        // Whoever saved it comes back: what fits is gone on from, whatever lies in its place.
        let fits = fs::read(root.path().join("c.scratch").join(saved_by("cpu"))).unwrap();
        fs::write(root.path().join("c.scratch/resume-cpu.00000000.aside"), fits).unwrap();
        fs::write(root.path().join("c.scratch").join(saved_by("cpu")), "nonsense").unwrap();
        let said = train(&root, "c", "").said;
        assert!(said.iter().any(|line| line.starts_with("going on ")), "{said:?}");
        assert_eq!(bytes(&root, "c"), bytes(&root, "a"));
        fs::remove_dir_all(root.path().join("c.scratch")).unwrap();
        assert_eq!(bytes(&root, "c"), bytes(&root, "a"));
    }
}

#[test]
fn what_is_no_file_in_place_of_a_state_is_left_aside() {
    let root = project(CLASSES);
    train(&root, "a", "");
    let place = root.path().join("c.scratch").join(saved_by("cpu"));
    let pipe =
        |place: &Path| assert!(std::process::Command::new("mkfifo").arg(place).status().unwrap().success());
    let folder = |place: &Path| fs::create_dir(place).unwrap();
    for make in [&pipe as &dyn Fn(&Path), &folder] {
        fs::create_dir_all(root.path().join("c.scratch")).unwrap();
        make(&place);
        let said = train(&root, "c", "").said;
        assert!(said.contains(&"starting anew".to_owned()), "{said:?}");
        assert_eq!(bytes(&root, "c"), bytes(&root, "a"));
        fs::remove_dir_all(root.path().join("c.scratch")).unwrap();
    }
}

#[test]
fn an_evaluation_says_what_the_history_ends_with() {
    let root = project(CLASSES);
    for params in ["mode = 'all'", "mode = 'random'\nk = 1", "mode = 'none'"] {
        train(&root, "a", params);
        let out = root.path().join("metrics");
        let inputs = [("data", root.path().join("data")), ("train", root.path().join("a"))];
        run(&Evaluate, "", &inputs, &out).unwrap();
        let json = |name: &str| -> serde_json::Value {
            serde_json::from_slice(&fs::read(out.join(name)).unwrap()).unwrap()
        };
        let (metrics, gamma) = (json("metrics.json"), json("gamma.json"));
        let history = String::from_utf8(bytes(&root, "a")[1].1.clone()).unwrap();
        let last: Vec<f64> =
            history.lines().last().unwrap().split(',').map(|cell| cell.parse().unwrap()).collect();
        assert!((metrics["loss"].as_f64().unwrap() - last[4]).abs() < 1e-6, "{params}: {metrics}, {last:?}");
        assert_eq!(metrics["top1"].as_f64().unwrap(), last[5], "{params}");
        assert_eq!((metrics["depth"].as_u64(), metrics["arch"].as_str()), (Some(8), Some("resnet8")));
        assert!(params.contains(metrics["mode"].as_str().unwrap()));
        assert_eq!(metrics["confusion"].as_array().unwrap().len(), CLASSES);
        assert_eq!(gamma["all"]["count"], 16 + 2 * (16 + 32 + 64) + 16 + 32 + 64);
        assert_eq!(gamma["layers"][3]["shortcut"], true);
        let zeroing = gamma["zeroing"].as_array().unwrap();
        assert_eq!(zeroing.len(), 3, "{params}");
        for (zeroing, share) in zeroing.iter().zip(["below_001", "below_005", "below_01"]) {
            assert_eq!(zeroing["zeroed"], gamma["all"][share], "{params}");
            let change = zeroing["top1"].as_f64().unwrap() - metrics["top1"].as_f64().unwrap();
            assert_eq!(zeroing["change"].as_f64().unwrap(), change, "{params}, {share}");
        }
        assert_ne!(zeroing[2]["loss"], metrics["loss"], "nothing was set to zero");
        let features = json("features.json");
        assert_eq!((&features["images"], &features["after_bn"]["count"]), (&6.into(), &128.into()));
        assert_eq!(features["layers"][2]["name"], "layer1.0.bn2");
        let file = fs::metadata(root.path().join("a/checkpoint.safetensors")).unwrap().len();
        assert_eq!(metrics["checkpoint_bytes"], file);
        let trained = metrics["trained"].as_u64().unwrap();
        let total = metrics["parameters"].as_u64().unwrap();
        match params {
            "mode = 'all'" => assert_eq!(trained, total),
            "mode = 'none'" => assert_eq!(trained, 0),
            _ => assert_eq!(trained, 16 + 2 * (16 + 32 + 64) + 16 + 32 + 64),
        }
    }
}

#[test]
fn channels_that_are_never_above_zero_are_dead() {
    let root = project(CLASSES);
    train(&root, "a", "mode = 'bn'");
    evaluate_changed(&root, |checkpoint| {
        for (name, value) in [("bn1.weight", 0.0), ("bn1.bias", -1.0)] {
            checkpoint.values.get_mut(name).unwrap().data.fill(value);
        }
    })
    .unwrap();
    let features = fs::read(root.path().join("metrics/features.json")).unwrap();
    let features: serde_json::Value = serde_json::from_slice(&features).unwrap();
    let (first, all) = (&features["layers"][0], &features["all"]);
    assert_eq!((first["name"].as_str(), first["dead_100"].as_f64()), (Some("bn1"), Some(1.0)), "{first}");
    assert!(all["dead_100"].as_f64().unwrap() >= 16.0 / all["count"].as_f64().unwrap(), "{all}");
}

#[test]
fn a_model_whose_seed_was_changed_is_refused() {
    let root = project(CLASSES);
    train(&root, "a", "");
    let error = evaluate_changed(&root, |checkpoint| checkpoint.model.seed += 1).unwrap_err();
    assert!(
        error.message.contains("initial weights of resnet8 with seed 4 have the digest"),
        "{}",
        error.message
    );
}

#[test]
fn a_model_whose_weights_are_not_those_it_tells_is_not_trained() {
    let root = project(CLASSES);
    let path = root.path().join("model/model.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"seed\": 3"));
    fs::write(&path, text.replace("\"seed\": 3", "\"seed\": 4")).unwrap();
    let mut listener = Listener::default();
    let out = root.path().join("a");
    let error = run_with(&mut listener, &Train, SHORT, &inputs(&root), &out).unwrap_err();
    let why = "initial weights of resnet8 with seed 4 have the digest";
    assert!(error.message.contains(why), "{}", error.message);
    assert!(listener.progress.is_empty(), "it began");
}

#[test]
fn a_card_is_refused_for_an_evaluation_before_anything_runs() {
    for key in ["device", "engine"] {
        let errors = Evaluate.resolve(&format!("{key} = \"cuda\"").parse().unwrap()).unwrap_err();
        assert!(errors[0].key == key && errors[0].message.ends_with("which a card does not"), "{errors:?}");
        assert!(Evaluate.resolve(&format!("{key} = \"cpu\"").parse().unwrap()).is_ok(), "{key}");
    }
}

#[test]
fn inputs_that_do_not_fit_are_named_with_a_way_out() {
    let root = project(10);
    let out = root.path().join("a");
    let error = run(&Train, "", &inputs(&root), &out).unwrap_err();
    assert_eq!(error.message, "the model has 10 outputs, the dataset 3 classes");
    assert_eq!(error.hint.as_deref(), Some("set `classes = 3` in the `model` stage"));
    let swapped = [("data", root.path().join("model")), ("model", root.path().join("model"))];
    let error = run(&Train, "", &swapped, &out).unwrap_err();
    assert!(error.message.starts_with("cannot read dataset.bin of `the data`"), "{}", error.message);
    fs::write(root.path().join("model/model.json"), "{}").unwrap();
    let error = run(&Train, "", &inputs(&root), &out).unwrap_err();
    assert!(
        error.message.starts_with("model.json of `the model` cannot be used: model description"),
        "{}",
        error.message
    );
    assert!(error.hint.unwrap().starts_with("`model` wants an instance of kind `model`"));
}

#[test]
fn k_is_in_the_recipe_only_where_it_counts_and_engines_never_are() {
    let of = |text: &str| Train.resolve(&text.parse().unwrap()).unwrap();
    assert_eq!(of("k = 5").recipe, of("k = 2\nengine = 'reference'\ndevice = 'cpu'").recipe);
    assert_eq!(of("mode = 'random'").recipe["k"], 2.into());
    assert_eq!(of("k = 100").recipe, of("").recipe);
    for mode in ["all", "bn+output+shortcut", "random", "none"] {
        let (with, without) =
            (format!("mode = '{mode}'\nshortcut_bn = 'trained'"), format!("mode = '{mode}'"));
        assert_eq!(of(&with).recipe, of(&without).recipe);
    }
    assert_eq!(of("shortcut_bn = 'frozen'").recipe["shortcut_bn"], "frozen".into());
    assert_eq!(of("shortcut_bn = 'variant'").recipe, of("").recipe);
    let defaults = "mode = 'bn'\nepochs = 160\nbatch = 128\nlearning_rate = 0.1\nmilestones = [80, 120]\nfactor = 0.1\n\
                    momentum = 0.9\nweight_decay = 1e-4\naugment = true\nprecision = 'f32'";
    assert_eq!(of("").recipe, defaults.parse().unwrap());
}

#[test]
fn a_training_is_done_as_its_parameters_say() {
    let text = "epochs = 7\nbatch = 32\nlearning_rate = 0.3\nmilestones = [2, 5]\nfactor = 0.25\n\
                momentum = 0.5\nweight_decay = 0.001\naugment = false";
    let (params, _) = resolve::<TrainParams>(&text.parse().unwrap(), &SETTINGS).unwrap();
    let expected = Protocol {
        epochs: 7,
        batch: 32,
        learning_rate: 0.3,
        milestones: vec![2, 5],
        factor: 0.25,
        momentum: 0.5,
        weight_decay: 0.001,
        augment: false,
    };
    assert_eq!(params.protocol(), expected);
}

#[test]
fn every_parameter_that_could_not_work_is_named() {
    let wrong = "mode = 'random'\nk = 0\nepochs = 0\nbatch = 0\nlearning_rate = -1\nmilestones = [2, 2]\nmomentum = 1.0";
    let errors = Train.resolve(&wrong.parse().unwrap()).unwrap_err();
    let keys: Vec<_> = errors.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["k", "epochs", "batch", "learning_rate", "milestones", "momentum"]);
    // Trainings compute in f32.
    let wrong = "learning_rate = 1e39\nfactor = 1e-50\nmomentum = 0.99999999999\nweight_decay = 1e300";
    let errors = Train.resolve(&wrong.parse().unwrap()).unwrap_err();
    let keys: Vec<_> = errors.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["learning_rate", "factor", "momentum", "weight_decay"]);
    let errors = Train.resolve(&"batch = 65537".parse().unwrap()).unwrap_err();
    assert_eq!(errors[0].message, "`batch` must be a number from 1 to 65536");
    assert!(Train.resolve(&"batch = 65536".parse().unwrap()).is_ok());
    let errors = Train.resolve(&"mode = 'bm'".parse().unwrap()).unwrap_err();
    assert!(errors[0].message.contains("unknown mode `bm`; known: all, bn, random"), "{}", errors[0].message);
}
