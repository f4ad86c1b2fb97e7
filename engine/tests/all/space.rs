//! A toy project whose stages are shell commands.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{
    idle::Question,
    instance::{Instance, Need, Pipeline, Resources},
    kind::{Command, Job, Kind, ParamError, Params, Roles, StageError},
    observer::Event,
    pipeline::LoadOptions,
    project::Project,
    run::{RunOptions, Summary},
};
use tempfile::TempDir;

/// Kind `shell`: runs its parameter `run`; may read files of the project (`reads`) and publish its
/// output `x` as a file of the project (`publish`).
pub(crate) struct Shell;

impl Kind for Shell {
    fn name(&self) -> &'static str {
        "shell"
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
    fn sees_axes(&self) -> bool {
        true
    }
    fn files(&self, params: &Params) -> Vec<PathBuf> {
        let reads = params.recipe.get("reads").and_then(toml::Value::as_array);
        reads.into_iter().flatten().filter_map(toml::Value::as_str).map(PathBuf::from).collect()
    }
    fn publishes(&self, params: &Params) -> bool {
        params.recipe.contains_key("publish")
    }
    fn publish(&self, params: &Params, result: &Path, project: &Path) -> Result<Vec<PathBuf>, StageError> {
        let place = PathBuf::from(params.recipe["publish"].as_str().unwrap());
        let text = fs::read(result.join("x")).map_err(|e| StageError::new(e.to_string()))?;
        if fs::read(project.join(&place)).is_ok_and(|there| there == text) {
            return Ok(Vec::new());
        }
        fs::write(project.join(&place), text).map_err(|e| StageError::new(format!("cannot publish: {e}")))?;
        Ok(vec![place])
    }
    fn command(&self, params: &Params) -> Option<Command> {
        let run = params.recipe["run"].as_str().unwrap().to_owned();
        Some(Command { run, env: BTreeMap::new(), outputs: Vec::new() })
    }
    fn run(&self, _: &mut Job<'_>) -> Result<(), StageError> {
        Err(StageError::new("only its command runs"))
    }
}

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
            kind: Arc::new(Shell),
            params: Params {
                recipe: more(name).into_iter().chain([given(run)]).collect(),
                ..Params::default()
            },
            needs: needs.iter().map(|n| Need { role: (*n).to_owned(), from: position(n) }).collect(),
            resources: Resources::default(),
        };
        Pipeline {
            root: self.folder.path().to_owned(),
            file: "pipeline.toml".into(),
            profile: None,
            namespace: "".into(),
            instances: self.stages.iter().map(instance).collect(),
        }
    }

    /// What a run of everything is asked.
    pub(crate) fn question(&self) -> Question {
        let text = format!("{:?} {:?}", self.stages, self.more);
        let options = LoadOptions { file: self.path("pipeline.toml"), ..LoadOptions::default() };
        Question::new(&text, &options, &std::env::current_exe().unwrap()).unwrap()
    }

    /// The answer to that without reading the pipeline.
    pub(crate) fn nothing_to_do(&self) -> Option<usize> {
        Project::open(self.folder.path()).unwrap().nothing_to_do(&self.question()).unwrap()
    }

    pub(crate) fn run(&self) -> (Summary, Vec<Event>) {
        self.run_with(&RunOptions { jobs: 2, question: Some(self.question()), ..RunOptions::default() })
    }

    pub(crate) fn run_with(&self, options: &RunOptions) -> (Summary, Vec<Event>) {
        let mut events = Vec::new();
        let project = Project::open(self.folder.path()).unwrap();
        let summary = project.run(&self.pipeline(), options, &mut events).unwrap();
        (summary, events)
    }

    #[track_caller]
    pub(crate) fn ran(&self, ran: &[&str], restored: &[&str]) {
        let (mut summary, events) = self.run();
        summary.ran.sort_unstable();
        summary.restored.sort_unstable();
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
