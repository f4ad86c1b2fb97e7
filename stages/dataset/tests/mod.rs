//! What a dataset stage leaves behind, and how it fails.

mod archive;
mod download;
mod folder;
mod server;

use std::{cell::Cell, collections::BTreeMap, fs};

use engine::{instance::Resources, kind::Input};
use network::trainer::Split;

use super::*;
use crate::testing::{self, Listener};

/// A project, and folders for a job in it.
pub(super) struct Bench {
    pub(super) root: tempfile::TempDir,
    pub(super) listener: Listener,
    pub(super) offline: bool,
    /// What another stage made.
    pub(super) inputs: BTreeMap<String, Vec<Input>>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["out", "scratch"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        Self { root, listener: Listener::default(), offline: false, inputs: BTreeMap::new() }
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    pub(super) fn run(&mut self, params: &str) -> Result<(), StageError> {
        let params =
            Dataset.resolve(&params.parse().unwrap()).map_err(|e| StageError::new(format!("{e:?}")))?;
        Dataset.run(&mut Job {
            instance: "data",
            axes: &BTreeMap::new(),
            params: &params,
            inputs: &self.inputs,
            out: &self.path("out"),
            scratch: &self.path("scratch"),
            project: self.root.path(),
            resources: Resources::default(),
            offline: self.offline,
            reporter: &mut self.listener,
        })
    }

    /// Runs what must fail, and says how; every failure has a way out.
    pub(super) fn fail(&mut self, params: &str) -> String {
        let error = self.run(params).unwrap_err();
        assert!(error.hint.is_some(), "`{}` has no hint", error.message);
        assert!(!self.path("out/dataset.bin").exists(), "a failure left a result");
        error.message
    }

    pub(super) fn packed(&self) -> Packed {
        Packed::from_bytes(Arc::new(fs::read(self.path("out/dataset.bin")).unwrap())).unwrap()
    }

    pub(super) fn described(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path("out/dataset.json")).unwrap()).unwrap()
    }
}

pub(super) fn refused(params: &str) -> Vec<ParamError> {
    Dataset.resolve(&params.parse().unwrap()).unwrap_err()
}

#[test]
fn parameters_of_another_source_are_refused_and_the_sources_are_listed() {
    assert_eq!(refused("classes = 3")[0].key, "source");
    let hint = refused("source = 'imagenet'")[0].hint.clone().unwrap();
    assert!(SOURCES.iter().all(|source| hint.contains(source)), "{hint}");
    assert_eq!(refused("source = 'synthetic'\npath = 'x'")[0].key, "path");
    assert_eq!(refused("source = 'image-folder'\npath = 'x'\nclasses = 3")[0].key, "classes");
    let keys: Vec<_> = refused("source = 'synthetic'\nclasses = 11\ntrain = 0\ntest = 2000000")
        .into_iter()
        .map(|error| error.key)
        .collect();
    assert_eq!(keys, ["classes", "train", "test"]);
}

#[test]
fn every_source_is_listed_and_its_schema_allows_nothing_else() {
    let schema = Dataset.schema(&mut SchemaGenerator::default());
    let variants = schema.get("oneOf").unwrap().as_array().unwrap();
    let names: Vec<_> =
        variants.iter().map(|v| v["properties"]["source"]["const"].as_str().unwrap()).collect();
    assert_eq!(names, SOURCES);
    for variant in variants {
        let closed = [&variant["additionalProperties"], &variant["unevaluatedProperties"]];
        assert!(closed.contains(&&serde_json::Value::Bool(false)), "{variant}");
    }
}

/// Changes only with [`Dataset::version`].
const SYNTHETIC: &str = "0524352bf9ee47c5ed603d7ec8fc11778cf158326121aa4df79ce3afaa1bfda0";

#[test]
fn drawn_images_are_pinned_balanced_and_differ() {
    let mut bench = Bench::new();
    bench.run("source = 'synthetic'\ntrain = 2050\ntest = 30\nseed = 7").unwrap();
    let (set, description) = (bench.packed(), bench.described());
    assert_eq!(description["train_per_class"], serde_json::json!([205; 10].to_vec()));
    assert_eq!(description["classes"][9], "chequered-cross");
    assert_eq!((set.len(Split::Train), set.len(Split::Test)), (2050, 30));
    let images: std::collections::BTreeSet<_> = (0..2050).map(|i| set.image(Split::Train, i)).collect();
    assert_eq!(images.len(), 2050);
    assert_ne!(set.image(Split::Train, 0), set.image(Split::Test, 0));
    let (_, std) = set.statistics();
    assert!(std.iter().all(|std| (0.15..0.35).contains(std)), "{std:?}");
    assert_eq!(description["digest"], SYNTHETIC);
}

#[test]
fn a_source_that_reads_no_files_of_another_stage_refuses_them() {
    let mut bench = Bench::new();
    bench.inputs.insert(FILES.to_owned(), Vec::new());
    assert_eq!(bench.fail("source = 'synthetic'"), "images from this `source` need no `files`");
}

#[test]
fn a_drawing_stops_when_asked() {
    let mut bench = Bench::new();
    bench.listener.patience = Some(Cell::new(2));
    assert!(bench.run("source = 'synthetic'\ntrain = 4100\ntest = 10").unwrap_err().interrupted);
}

#[test]
fn a_damaged_dataset_is_named_by_who_reads_it() {
    let mut bench = Bench::new();
    bench.run("source = 'synthetic'\ntrain = 20\ntest = 20").unwrap();
    let path = bench.path("out/dataset.bin");
    let good = fs::read(&path).unwrap();
    testing::run(&crate::model::Model, "arch = 'resnet8'", &[], &bench.path("model")).unwrap();
    let train = |params: &str| {
        let inputs = [("data", bench.path("out")), ("model", bench.path("model"))];
        testing::run(&crate::train::Train, params, &inputs, &bench.path("train"))
    };
    let mut foreign_label = good.clone();
    foreign_label[good.len() - 40 * (3072 + 2)] = 10;
    for (damage, says) in [
        (good[..good.len() - 1].to_vec(), "bytes are not what its header announces"),
        (Vec::new(), "does not begin like one"),
        (foreign_label, "has label 10 of 10 classes"),
    ] {
        fs::write(&path, damage).unwrap();
        let error = train("epochs = 1\nmilestones = []").unwrap_err();
        assert!(error.message.contains("dataset.bin of `the data`"), "{}", error.message);
        assert!(error.message.contains(says), "{}", error.message);
        assert!(error.integrity && error.hint.unwrap().contains("repro verify"));
    }
}
