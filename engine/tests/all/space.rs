//! A toy project whose stages are shell commands.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use engine::{
    idle::Question,
    instance::{Instance, Need, Pipeline, Resources},
    kind::Params,
    observer::Event,
    pipeline::LoadOptions,
    project::Project,
    run::{RunOptions, Summary},
};
use tempfile::TempDir;

use crate::common::{self, Toy};

/// A project in a folder of its own.
pub(crate) struct Space {
    pub(crate) folder: TempDir,
    pub(crate) stages: Vec<(&'static str, String, Vec<&'static str>)>,
    /// Further parameters of a stage.
    pub(crate) more: BTreeMap<&'static str, toml::Table>,
}

impl Space {
    /// a -> b -> c, and d alone. b only keeps the first letter of a.
    pub(crate) fn new() -> Self {
        let stage = |name, run: &str, needs| (name, run.to_owned(), needs);
        let stages = vec![
            stage("a", "echo one > $OUT/x", vec![]),
            stage("b", "cut -c1 $IN_A/x > $OUT/y", vec!["a"]),
            stage("c", "cat $IN_B/y > $OUT/z", vec!["b"]),
            stage("d", "echo alone > $OUT/x", vec![]),
        ];
        Self::of(stages)
    }

    pub(crate) fn of(stages: Vec<(&'static str, String, Vec<&'static str>)>) -> Self {
        Self { folder: TempDir::new().unwrap(), stages, more: BTreeMap::new() }
    }

    pub(crate) fn give(&mut self, name: &'static str, key: &str, value: impl Into<toml::Value>) {
        self.more.entry(name).or_default().insert(key.to_owned(), value.into());
    }

    pub(crate) fn edit(&mut self, name: &str, run: &str) {
        self.stages.iter_mut().find(|stage| stage.0 == name).unwrap().1 = run.to_owned();
    }

    /// Takes away what is known of results: the cache and the lock file.
    pub(crate) fn forget(&self) {
        let _ = fs::remove_dir_all(self.path(".repro"));
        let _ = fs::remove_file(self.pipeline().lock_file());
    }

    pub(crate) fn path(&self, below: &str) -> std::path::PathBuf {
        self.folder.path().join(below)
    }

    pub(crate) fn pipeline(&self) -> Pipeline {
        let position = |name: &str| self.stages.iter().position(|stage| stage.0 == name).unwrap();
        let more = |name: &str| self.more.get(name).cloned().unwrap_or_default();
        let given = |run: &String| ("run".to_owned(), run.clone().into());
        let instance = |(name, run, needs): &(&str, String, Vec<&str>)| Instance {
            name: (*name).to_owned(),
            stage: (*name).to_owned(),
            axes: BTreeMap::new(),
            kind: Arc::new(Toy("shell")),
            params: Params {
                recipe: more(name).into_iter().chain([given(run)]).collect(),
                ..Params::default()
            },
            needs: needs.iter().map(|n| Need { role: (*n).to_owned(), from: position(n) }).collect(),
            resources: Resources::default(),
        };
        common::pipeline(self.folder.path(), self.stages.iter().map(instance).collect())
    }

    /// What a run of everything is asked.
    pub(crate) fn question(&self) -> Question {
        let text = format!("{:?} {:?}", self.stages, self.more);
        let options = LoadOptions { file: self.path("pipeline.toml"), ..LoadOptions::default() };
        Question::new(&text, &options, &std::env::current_exe().unwrap()).unwrap()
    }

    /// The answer to that without reading the pipeline.
    pub(crate) fn nothing_to_do(&self) -> Option<usize> {
        Project::open(self.folder.path()).unwrap().nothing_to_do(&self.question())
    }

    pub(crate) fn run(&self) -> (Summary, Vec<Event>) {
        self.run_with(&RunOptions { jobs: 2, question: Some(self.question()), ..RunOptions::default() })
    }

    pub(crate) fn run_with(&self, options: &RunOptions) -> (Summary, Vec<Event>) {
        common::run(&self.pipeline(), options)
    }

    /// The most stages that ran at once, where each adds a line `+` to `running` when it begins, and `-` at its end.
    pub(crate) fn most_at_once(&self) -> usize {
        let steps = read(&self.path("running"));
        let now = steps.lines().scan(0, |now, step| {
            *now = if step == "+" { *now + 1 } else { *now - 1 };
            Some(*now)
        });
        now.max().unwrap()
    }

    #[track_caller]
    pub(crate) fn ran(&self, ran: &[&str], restored: &[&str]) {
        let (summary, events) = self.run();
        let names = |ids: &[usize]| ids.iter().map(|&id| self.stages[id].0).collect::<Vec<_>>();
        assert_eq!(
            (names(&summary.ran), names(&summary.restored)),
            (ran.to_vec(), restored.to_vec()),
            "{events:?}"
        );
        assert_eq!(summary.exit_code(), 0);
    }
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
