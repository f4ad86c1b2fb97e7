//! What the test programs of the runner share: a kind, and a run of a pipeline in a folder. Knows no test.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use engine::{
    instance::{Instance, Pipeline},
    kind::{Command, Group, Job, Kind, ParamError, Params, Publication, Roles, StageError},
    observer::Event,
    project::Project,
    run::{RunOptions, Summary},
};

/// The most stages that run together.
pub(crate) const MOST: usize = 3;

/// A kind of this name. A stage runs the shell command `run`, or without one writes its `word`, which may
/// also tell it how to misbehave; such stages run with those of the same setting `key`. It may read files of the
/// project (`reads`) and publish its output `x` as a file of the project (`publish`).
pub(crate) struct Toy(pub(crate) &'static str);

impl Kind for Toy {
    fn name(&self) -> &'static str {
        self.0
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
    fn names_stages(&self) -> bool {
        self.0 == "names"
    }
    fn files(&self, params: &Params) -> Vec<PathBuf> {
        let reads = params.recipe.get("reads").and_then(toml::Value::as_array);
        reads.into_iter().flatten().filter_map(toml::Value::as_str).map(PathBuf::from).collect()
    }
    fn publishes(&self, params: &Params) -> Option<PathBuf> {
        params.recipe.get("publish")?.as_str().map(PathBuf::from)
    }
    fn publication(&self, params: &Params, result: &Path, _: &Path) -> Result<Publication, StageError> {
        let place = PathBuf::from(params.recipe["publish"].as_str().unwrap());
        let text = fs::read(result.join("x")).map_err(|e| StageError::new(e.to_string()))?;
        Ok(vec![(place, Some(text))])
    }
    fn command(&self, params: &Params) -> Option<Command> {
        let run = params.recipe.get("run")?.as_str().unwrap().to_owned();
        Some(Command { run, env: BTreeMap::new(), outputs: Vec::new() })
    }
    fn group(&self, params: &Params) -> Option<Group> {
        let key = params.settings.get("key")?.as_str()?;
        (!key.is_empty()).then(|| Group { key: key.to_owned(), most: MOST })
    }
    fn gpus(&self, params: &Params) -> usize {
        let word = params.recipe.get("word").and_then(toml::Value::as_str);
        usize::from(word.is_some_and(|word| word.starts_with("gpu")))
    }
    fn threads(&self, _: &Params) -> usize {
        if self.0 == "wide" { 1000 } else { 1 }
    }
    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let word = job.params.recipe["word"].as_str().unwrap();
        let gpus = std::env::var("CUDA_VISIBLE_DEVICES").unwrap();
        job.reporter.say(&format!("process {} writes {word} on [{gpus}]", std::process::id()));
        match word {
            "fail" => return Err(StageError::new("it was told to fail")),
            "crash" => std::process::abort(),
            "leave" => std::process::exit(0),
            "save" | "cannot save" => {
                wait(|| job.reporter.stop_requested());
                let full = || StageError::new("the disk is full");
                return Err(if word == "save" { StageError::interrupted() } else { full() });
            }
            "wait" => wait(|| job.project.join("artifacts/after/x").exists()),
            "wait for a failure" => wait(|| {
                fs::read_dir(job.project.join(".repro/failed")).is_ok_and(|mut notes| notes.next().is_some())
            }),
            "wait for b" => wait(|| {
                let log = fs::read_to_string(job.project.join(".repro/logs/b.log"));
                log.is_ok_and(|log| log.contains("writes"))
            }),
            "sleep" => std::thread::sleep(Duration::from_millis(300)),
            "hold" if !holds(&job.scratch.with_extension("lock")) => {
                return Err(StageError::new("it does not hold its scratch folder"));
            }
            _ => {}
        }
        fs::write(job.out.join("x"), word).map_err(|error| StageError::new(error.to_string()))
    }
}

/// Has this process the file open?
fn holds(file: &Path) -> bool {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    open.into_iter().any(|open| fs::read_link(open.path()).is_ok_and(|to| to == file))
}

fn wait(there: impl Fn() -> bool) {
    let since = Instant::now();
    while !there() {
        assert!(since.elapsed() < Duration::from_secs(20), "nobody makes it");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A pipeline without profile in the project `root`.
pub(crate) fn pipeline(root: &Path, instances: Vec<Instance>) -> Pipeline {
    let (file, namespace) = ("pipeline.toml".into(), PathBuf::new());
    Pipeline {
        root: root.to_owned(),
        file,
        profile: None,
        profiles: Default::default(),
        set: false,
        swept: Default::default(),
        namespace,
        instances,
    }
}

/// Runs it, and says what happened.
pub(crate) fn run(pipeline: &Pipeline, options: &RunOptions) -> (Summary, Vec<Event>) {
    let mut events = Vec::new();
    let project = Project::open(&pipeline.root).unwrap();
    let summary = project.run(pipeline, options, &mut events).unwrap();
    (summary, events)
}
