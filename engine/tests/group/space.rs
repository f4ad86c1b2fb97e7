//! A project of stages that run together.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use engine::{
    instance::{Instance, Need, Resources},
    kind::Params,
    launcher::Launcher,
    observer::Event,
    run::{RunOptions, Summary},
};
use tempfile::TempDir;

use crate::common::{self, Toy};

/// A stage of kind `toy`.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) key: &'static str,
    pub(crate) word: &'static str,
    pub(crate) needs: Option<usize>,
    pub(crate) memory: u64,
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
        let stage = |&(name, key, word)| Stage { name, key, word, needs: None, memory: 0 };
        Self { folder: TempDir::new().unwrap(), stages: stages.iter().map(stage).collect() }
    }

    pub(crate) fn run(&self) -> Run {
        self.run_by(None)
    }

    /// Runs it, and asks it to stop once stage `name` has said something.
    pub(crate) fn run_stopped(&self, name: &str) -> Run {
        let stop = Arc::<AtomicUsize>::default();
        let (log, there) = (self.path(&format!(".repro/logs/{name}.log")), Arc::clone(&stop));
        let stopper = std::thread::spawn(move || {
            while !fs::read_to_string(&log).is_ok_and(|log| log.contains("writes")) {
                std::thread::sleep(Duration::from_millis(5));
            }
            there.store(1, Ordering::Relaxed);
        });
        let run = self.run_with(RunOptions { stop, ..RunOptions::default() });
        stopper.join().unwrap();
        run
    }

    pub(crate) fn run_by(&self, launcher: Option<&str>) -> Run {
        let launcher = launcher.map(|command| Launcher(command.to_owned()));
        self.run_with(RunOptions { launcher, ..RunOptions::default() })
    }

    fn run_with(&self, options: RunOptions) -> Run {
        let table = |key: &str, value: &str| toml::Table::from_iter([(key.to_owned(), value.into())]);
        let instance = |stage: &Stage| Instance {
            name: stage.name.to_owned(),
            stage: stage.name.to_owned(),
            axes: BTreeMap::new(),
            kind: Arc::new(Toy("toy")),
            params: Params { recipe: table("word", stage.word), settings: table("key", stage.key) },
            needs: stage.needs.iter().map(|&from| Need { role: "x".into(), from }).collect(),
            resources: Resources { memory: stage.memory, ..Resources::default() },
        };
        let pipeline = common::pipeline(self.folder.path(), self.stages.iter().map(instance).collect());
        let exe = std::env::current_exe().unwrap();
        let options = RunOptions { jobs: 4, keep_going: true, exe, ..options };
        let (summary, events) = common::run(&pipeline, &options);
        Run { names: self.stages.iter().map(|stage| stage.name).collect(), summary, events }
    }

    /// Runs it; nothing may fail.
    pub(crate) fn succeeds(&self) -> Run {
        let run = self.run();
        assert_eq!(run.summary.exit_code(), 0, "{:?}", run.events);
        run
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
        self.facts(name)["notes"][key].as_u64()
    }

    /// What the record of `name` says of its run.
    pub(crate) fn facts(&self, name: &str) -> serde_json::Value {
        let files = walkdir::WalkDir::new(self.path(".repro")).into_iter().flatten();
        let texts = files.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        let mut values = texts.filter_map(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        values.find(|value| value["run"]["instance"] == name).expect("a record")["run"].clone()
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
