//! What a stage does: the interface between the runner and the stage kinds. Knows no kind's name.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::{error::EngineError, instance::Resources};

/// A kind of stage. Registered by the program; looked up by the word after `kind =`.
pub trait Kind: Send + Sync {
    /// The word after `kind =`.
    fn name(&self) -> &'static str;

    /// Raised by hand whenever equal recipes would now give different bytes; part of the recipe.
    fn version(&self) -> u32;

    /// The roles that `needs` may name.
    fn roles(&self) -> Roles;

    /// What a role must be filled with, where the stage reads a certain file of it.
    fn wants(&self, _role: &str) -> Option<Wanted> {
        None
    }

    /// JSON Schema of the kind's parameters.
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema;

    /// Checks the parameters and completes them with their defaults.
    ///
    /// # Errors
    /// With everything that is wrong with them.
    fn resolve(&self, given: &Table) -> Result<Params, Vec<ParamError>>;

    /// Files and folders outside the pipeline that the stage reads, relative to the project;
    /// their content is part of the recipe.
    fn files(&self, _params: &Params) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Does the stage see its axes, as a command does in its environment? Then they are part of the
    /// recipe. Otherwise they matter only as far as they are parameters.
    fn sees_axes(&self) -> bool {
        false
    }

    /// Does it, or do its results, name the stages that its inputs are of? Then these names are part of the recipe, for roles
    /// that take many.
    fn names_stages(&self) -> bool {
        false
    }

    /// The shell command that does the work, for kinds that are nothing else: the runner starts it
    /// directly instead of starting itself to call [`Kind::run`].
    fn command(&self, _params: &Params) -> Option<Command> {
        None
    }

    /// GPUs that the stage takes where the machine has them and its `resources` do not ask for more. A
    /// stage that was given none sees none, unless it is a command.
    fn gpus(&self, _params: &Params) -> usize {
        0
    }

    /// The most threads that it makes use of, to the same result on any number of them. Where its `resources` do not
    /// say how many it takes, it is given up to so many that nothing else could use.
    fn threads(&self, _params: &Params) -> usize {
        1
    }

    /// Does the work: reads `job`'s inputs, writes files into [`Job::out`].
    ///
    /// # Errors
    /// When it cannot, or was asked to stop: [`StageError::interrupted`]. Then nothing in [`Job::out`] counts.
    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError>;

    /// Which others it may share a process with: those of its kind whose key is the same.
    fn group(&self, _params: &Params) -> Option<Group> {
        None
    }

    /// Does the work of the jobs of a group, and gives one result for each, in their order. Each must come out as
    /// it would alone, and one that fails must not take others along.
    fn run_group(&self, jobs: &mut [Job<'_>]) -> Vec<Result<(), StageError>> {
        let one = |job: &mut Job<'_>| {
            let result = self.run(job);
            match &result {
                Ok(()) => job.reporter.finished(),
                Err(error) => job.reporter.failed(error),
            }
            result
        };
        jobs.iter_mut().map(one).collect()
    }

    /// What to write instead of a parameter `key` that other runners have and this kind has not.
    fn instead_of(&self, _key: &str) -> Option<&'static str> {
        None
    }

    /// The folder or file of the project that a [`Kind::publication`] with these parameters has for itself; nothing where
    /// there is none.
    fn publishes(&self, _params: &Params) -> Option<PathBuf> {
        None
    }

    /// What of the finished result stands in files of the project outside `artifacts/` (the blocks of README.md). A
    /// run writes it whenever the stage is fresh; nothing may be written here.
    ///
    /// # Errors
    /// When nobody can say what should stand there. Then the stage has failed, though its result is there, and what
    /// needs it waits until a run can publish it.
    fn publication(
        &self,
        _params: &Params,
        _result: &Path,
        _project: &Path,
    ) -> Result<Publication, StageError> {
        Ok(Publication::new())
    }
}

/// Files of a project, and the bytes that each should hold; none where it should not be there.
pub type Publication = Vec<(PathBuf, Option<Vec<u8>>)>;

/// The registered kinds, by name.
#[derive(Clone, Default)]
pub struct Kinds(BTreeMap<&'static str, Arc<dyn Kind>>);

impl Kinds {
    /// Registers `kind`; panics when its name is taken, which is a bug of the program.
    #[must_use]
    pub fn with(mut self, kind: impl Kind + 'static) -> Self {
        let name = kind.name();
        assert!(self.0.insert(name, Arc::new(kind)).is_none(), "kind `{name}` is registered twice");
        self
    }

    /// The kind called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Kind>> {
        self.0.get(name)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Kind>> {
        self.0.values()
    }
}

/// Which roles a kind takes.
#[derive(Clone, Copy, Debug)]
pub enum Roles {
    /// Exactly these.
    Named(&'static [RoleSpec]),
    /// Any name, any number of instances.
    Any,
}

/// One role of a kind.
#[derive(Clone, Copy, Debug)]
pub struct RoleSpec {
    /// Its name in `needs`.
    pub name: &'static str,
    /// Must it be given?
    pub required: bool,
    /// May several instances (of one or several stages) fill it?
    pub many: bool,
}

/// What a role wants.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The kinds that make it, the one to be named first; at least one.
    pub kinds: &'static [&'static str],
    /// The file that is read, by which a command may stand in for them.
    pub file: &'static str,
}

/// Complete, checked parameters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Those that decide the result, every default written out: they are in the recipe.
    pub recipe: Table,
    /// Those that say where and how fast it runs (device, ...): they are not.
    pub settings: Table,
}

/// Instances that may run in one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they have in common.
    pub key: String,
    /// No more than so many at once.
    pub most: usize,
}

/// A parameter that a kind refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamError {
    /// The parameter; empty when the error is about the whole table.
    pub key: String,
    /// A sentence without full stop.
    pub message: String,
    /// A way out.
    pub hint: Option<String>,
}

/// A shell command and what it leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Given to `sh -ec` in the project's root.
    pub run: String,
    /// Environment variables to add.
    pub env: BTreeMap<String, String>,
    /// Files or folders that it must leave in the output folder.
    pub outputs: Vec<PathBuf>,
}

/// Why a stage failed: a sentence, its causes below, and a way out.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct StageError {
    /// What went wrong and where.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// It stopped because it was asked to.
    pub interrupted: bool,
    /// It found damaged data: the run ends with exit code 3.
    pub integrity: bool,
}

/// One input of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The instance that made it.
    pub instance: String,
    /// Its axes.
    pub axes: BTreeMap<String, Value>,
    /// The folder of its outputs.
    pub dir: PathBuf,
    /// Those of its files (and empty folders, which end with `/`) that are not there, where it was taken as the lock file
    /// names it. Most often none.
    #[serde(default)]
    pub absent: Vec<String>,
}

/// What to do about a file that is missing in a result which was taken without it.
pub(crate) const TAKEN: &str = "`--allow-missing` took that result as it stands in this clone: run without it, or bring \
                                the file";

/// What a running stage is given, and its only door to the outside.
pub struct Job<'a> {
    /// The instance's name, for messages.
    pub instance: &'a str,
    /// Its axes.
    pub axes: &'a BTreeMap<String, Value>,
    /// Its parameters.
    pub params: &'a Params,
    /// Inputs by role, each sorted by instance name.
    pub inputs: &'a BTreeMap<String, Vec<Input>>,
    /// Empty folder for the outputs; becomes the result when `run` returns `Ok`.
    pub out: &'a Path,
    /// Private folder that survives an interrupted run of the same recipe and is deleted after a
    /// finished one.
    pub scratch: &'a Path,
    /// The project's root; only [`Kind::files`] may be read below it.
    pub project: &'a Path,
    /// What it may occupy.
    pub resources: Resources,
    /// No network access, please.
    pub offline: bool,
    /// Where progress goes.
    pub reporter: &'a mut dyn Reporter,
}

/// The environment variable that tells a stage's process that the runner hides all cards from it.
pub const HIDDEN: &str = "REPRO_CARDS_HIDDEN";

/// Receives what a running stage reports.
pub trait Reporter: Send {
    /// A line for the log.
    fn say(&mut self, line: &str);
    /// A line that is not to be missed: for the log, and for whoever looks on.
    fn warn(&mut self, line: &str) {
        self.say(line);
    }
    /// How far the work is: a machine-readable snapshot for the live line.
    fn progress(&mut self, progress: &Progress);
    /// A fact for the record of how the result came about (engine, speed, ...); never hashed.
    fn note(&mut self, key: &str, value: Value);
    /// Should the stage save its state and return [`StageError::interrupted`]?
    fn stop_requested(&self) -> bool;
    /// The outputs are complete: what becomes of the process no longer concerns this job. For groups, whose
    /// other jobs may still run.
    fn finished(&mut self) {}
    /// The job has failed, or stopped: the same.
    fn failed(&mut self, _error: &StageError) {}
}

/// A snapshot of progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// What a unit is: `epoch`, `MB`, ...
    pub unit: String,
    /// A few short readings, ready to print: `loss 1.234`, `test 56.7 %`, `812 images/s`.
    pub readings: Vec<String>,
}

impl Input {
    /// To be asked before a file that is not there is taken for one that the result never had, and before a folder is
    /// listed: without what only this clone lacks, the stage would make something else of the same recipe.
    ///
    /// # Errors
    /// When the file `path`, or one in the folder `path`, is [`Input::absent`].
    pub fn lacks_no(&self, path: &Path) -> Result<(), StageError> {
        // `./x` is `x`.
        let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        match self.absent.iter().find(|absent| Path::new(absent).starts_with(&path)) {
            None => Ok(()),
            Some(absent) => {
                let message =
                    format!("`{}` has no {absent} here, though it was locked with one", self.instance);
                Err(StageError::new(message).hint(TAKEN))
            }
        }
    }
}

impl Job<'_> {
    /// The parameters as the kind's own type.
    ///
    /// # Errors
    /// When they are not of that type, which [`Kind::resolve`] should have found.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, StageError> {
        let mut table = self.params.recipe.clone();
        table.extend(self.params.settings.clone());
        T::deserialize(Value::Table(table))
            .map_err(|e| StageError::new(format!("parameters of `{}`: {e}", self.instance)))
    }

    /// The single input of `role`.
    ///
    /// # Errors
    /// When the job has none.
    pub fn input(&self, role: &str) -> Result<&Input, StageError> {
        self.inputs
            .get(role)
            .and_then(|inputs| inputs.first())
            .ok_or_else(|| StageError::new(format!("`{}` has no input `{role}`", self.instance)))
    }
}

impl From<EngineError> for StageError {
    fn from(error: EngineError) -> Self {
        Self { hint: error.hint(), integrity: error.is_damage(), ..Self::new(error.to_string()) }
    }
}

impl StageError {
    /// A failure.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, interrupted: false, integrity: false }
    }

    /// The stage stopped because it was asked to.
    pub fn interrupted() -> Self {
        Self { interrupted: true, ..Self::new("interrupted") }
    }

    /// With a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As damaged data.
    #[must_use]
    pub fn integrity(mut self) -> Self {
        self.integrity = true;
        self
    }
}
