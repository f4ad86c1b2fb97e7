//! A made-up job for the tests of the kinds.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use engine::{
    instance::Resources,
    kind::{Input, Job, Kind, Progress, Reporter, StageError},
};

/// Keeps what it is told, and asks for a stop when told to.
#[derive(Default)]
pub(crate) struct Listener {
    pub(crate) said: Vec<String>,
    pub(crate) progress: Vec<Progress>,
    pub(crate) notes: BTreeMap<String, toml::Value>,
    /// How many more times the stage may ask whether it should stop.
    pub(crate) patience: Option<Cell<usize>>,
}

impl Reporter for Listener {
    fn say(&mut self, line: &str) {
        self.said.push(line.to_owned());
    }
    fn progress(&mut self, progress: &Progress) {
        self.progress.push(progress.clone());
    }
    fn note(&mut self, key: &str, value: toml::Value) {
        self.notes.insert(key.to_owned(), value);
    }
    fn stop_requested(&self) -> bool {
        self.patience.as_ref().is_some_and(|left| left.replace(left.get().saturating_sub(1)) == 0)
    }
}

/// Has `work` do a job with `params` of `kind` (TOML) and an input folder per role.
pub(crate) fn with_job(
    listener: &mut Listener,
    kind: &dyn Kind,
    params: &str,
    inputs: &[(&str, PathBuf)],
    out: &Path,
    work: impl FnOnce(&mut Job<'_>) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let inputs = inputs.iter().map(|(role, dir)| {
        let (instance, dir) = (format!("the {role}"), dir.clone());
        let input = Input { instance, axes: BTreeMap::new(), dir, absent: Vec::new() };
        ((*role).to_owned(), vec![input])
    });
    with_inputs(listener, kind, params, &inputs.collect(), out, work)
}

/// The same with the inputs themselves; its scratch folder lies beside `out`.
pub(crate) fn with_inputs<T>(
    listener: &mut Listener,
    kind: &dyn Kind,
    params: &str,
    inputs: &BTreeMap<String, Vec<Input>>,
    out: &Path,
    work: impl FnOnce(&mut Job<'_>) -> T,
) -> T {
    let params = kind.resolve(&params.parse().unwrap()).unwrap();
    let scratch = out.with_extension("scratch");
    std::fs::create_dir_all(&scratch).unwrap();
    std::fs::create_dir_all(out).unwrap();
    let worked = work(&mut Job {
        instance: kind.name(),
        axes: &BTreeMap::new(),
        params: &params,
        inputs,
        out,
        scratch: &scratch,
        project: out,
        resources: Resources::default(),
        offline: true,
        reporter: listener,
    });
    let _ = std::fs::remove_dir(&scratch); // where nothing is left in it
    worked
}

/// Runs `kind`.
pub(crate) fn run_with(
    listener: &mut Listener,
    kind: &dyn Kind,
    params: &str,
    inputs: &[(&str, PathBuf)],
    out: &Path,
) -> Result<(), StageError> {
    with_job(listener, kind, params, inputs, out, |job| kind.run(job))
}

/// The same, unheard.
pub(crate) fn run(
    kind: &dyn Kind,
    params: &str,
    inputs: &[(&str, PathBuf)],
    out: &Path,
) -> Result<(), StageError> {
    run_with(&mut Listener::default(), kind, params, inputs, out)
}
