//! A kind whose instances run together, and a project of them.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use engine::{
    instance::{Instance, Need, Pipeline, Resources},
    kind::{Group, Input, Job, Kind, ParamError, Params, Roles, StageError},
    observer::Event,
    project::Project,
    run::{RunOptions, Summary},
};
use tempfile::TempDir;

/// The most that run together.
pub(crate) const MOST: usize = 3;

/// Writes its word; goes with those of the same key.
pub(crate) struct Toy;

impl Kind for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }
    fn version(&self) -> u32 {
        1
    }
    fn roles(&self) -> Roles {
        Roles::Any
    }
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        generator.subschema_for::<BTreeMap<String, String>>()
    }
    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        Ok(Params { recipe: given.clone(), ..Params::default() })
    }
    fn group(&self, params: &Params, _: &BTreeMap<String, Vec<Input>>) -> Option<Group> {
        let key = params.settings["key"].as_str().unwrap();
        (!key.is_empty()).then(|| Group { key: key.to_owned(), most: MOST })
    }
    fn gpus(&self, params: &Params) -> usize {
        usize::from(params.recipe["word"].as_str().unwrap().starts_with("gpu"))
    }
    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let word = job.params.recipe["word"].as_str().unwrap();
        let gpus = std::env::var("CUDA_VISIBLE_DEVICES").unwrap();
        job.reporter.say(&format!("process {} writes {word} on [{gpus}]", std::process::id()));
        match word {
            "fail" => return Err(StageError::new("it was told to fail")),
            "crash" => std::process::abort(),
            "sleep" => std::thread::sleep(Duration::from_millis(300)),
            _ => {}
        }
        fs::write(job.out.join("x"), word).map_err(|error| StageError::new(error.to_string()))
    }
}

/// A stage of kind `toy`.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) stage: &'static str,
    pub(crate) key: &'static str,
    pub(crate) word: &'static str,
    pub(crate) needs: Option<usize>,
}

/// A project in a folder of its own.
pub(crate) struct Space {
    folder: TempDir,
    pub(crate) stages: Vec<Stage>,
}

/// What a run did.
pub(crate) struct Run {
    names: Vec<&'static str>,
    pub(crate) summary: Summary,
    pub(crate) events: Vec<Event>,
}

impl Space {
    /// Stages of these names, keys and words.
    pub(crate) fn new(stages: &[(&'static str, &'static str, &'static str)]) -> Self {
        let stage = |&(name, key, word)| Stage { name, stage: name, key, word, needs: None };
        Self { folder: TempDir::new().unwrap(), stages: stages.iter().map(stage).collect() }
    }

    pub(crate) fn run(&self) -> Run {
        let table = |key: &str, value: &str| toml::Table::from_iter([(key.to_owned(), value.into())]);
        let instance = |stage: &Stage| Instance {
            name: stage.name.to_owned(),
            stage: stage.stage.to_owned(),
            axes: if stage.stage == stage.name {
                BTreeMap::new()
            } else {
                BTreeMap::from([("name".into(), stage.name.into())])
            },
            kind: Arc::new(Toy),
            params: Params { recipe: table("word", stage.word), settings: table("key", stage.key) },
            needs: stage.needs.iter().map(|&from| Need { role: "x".into(), from }).collect(),
            resources: Resources::default(),
        };
        let pipeline = Pipeline {
            root: self.folder.path().to_owned(),
            file: "pipeline.toml".into(),
            profile: None,
            namespace: "".into(),
            instances: self.stages.iter().map(instance).collect(),
        };
        let exe = std::env::current_exe().unwrap();
        let options = RunOptions { jobs: 4, keep_going: true, exe, ..RunOptions::default() };
        let mut events = Vec::new();
        let project = Project::open(self.folder.path()).unwrap();
        let summary = project.run(&pipeline, &options, &mut events).unwrap();
        Run { names: self.stages.iter().map(|stage| stage.name).collect(), summary, events }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// What stage `name` wrote.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("artifacts/{name}/x"))).unwrap()
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!(".repro/logs/{name}.log"))).unwrap()
    }

    /// What the record of `name` notes under `key`.
    pub(crate) fn note(&self, name: &str, key: &str) -> Option<u64> {
        let files = walkdir::WalkDir::new(self.path(".repro")).into_iter().flatten();
        let texts = files.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        let mut values = texts.filter_map(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let record = values.find(|value| value["run"]["instance"] == name).expect("a record");
        record["run"]["notes"][key].as_u64()
    }
}

impl Run {
    /// The process in which stage `name` ran.
    pub(crate) fn process(&self, name: &str) -> String {
        self.said(name, 1)
    }

    /// The GPUs that it saw.
    pub(crate) fn gpus(&self, name: &str) -> String {
        self.said(name, 5)
    }

    fn said(&self, name: &str, word: usize) -> String {
        let said = self.events.iter().find_map(|event| match event {
            Event::Said { id, line } if self.names[*id] == name => line.split_whitespace().nth(word),
            _ => None,
        });
        said.unwrap_or_else(|| panic!("{name} said nothing: {:?}", self.events)).to_owned()
    }
}
