//! The two ends of a stage's process: the job that the runner writes to its standard input (its
//! length in bytes on the first line, then TOML, which keeps every number exactly), the events that
//! it writes back, one JSON line each, and the body of the child. Knows nothing of scheduling.
//!
//! The runner keeps the child's standard input open: its end means "stop at a safe point". So a
//! stage also stops when the runner itself is gone.

use std::{
    collections::BTreeMap,
    io::{BufRead, Read, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{
    instance::Resources,
    kind::{Input, Job, Kinds, Params, Progress, Reporter, StageError},
    record::recordable,
};

/// What a child is to do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) kind: String,
    pub(crate) instance: String,
    pub(crate) axes: BTreeMap<String, Value>,
    pub(crate) recipe: Table,
    pub(crate) settings: Table,
    pub(crate) inputs: BTreeMap<String, Vec<Input>>,
    pub(crate) out: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) project: PathBuf,
    pub(crate) resources: Resources,
    pub(crate) offline: bool,
}

impl Order {
    /// What is written to the child's standard input.
    pub(crate) fn text(&self) -> Result<String, String> {
        let text = toml::to_string(self).map_err(|error| error.to_string())?;
        Ok(format!("{}\n{text}", text.len()))
    }

    fn read(mut from: impl BufRead) -> Result<Self, String> {
        let mut length = String::new();
        from.read_line(&mut length).map_err(|error| error.to_string())?;
        let length = length.trim().parse().map_err(|_| format!("`{}` is not a length", length.trim()))?;
        let mut text = String::new();
        from.take(length).read_to_string(&mut text).map_err(|error| error.to_string())?;
        toml::from_str(&text).map_err(|error| error.to_string())
    }
}

/// What a child reports.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Report {
    Said(String),
    Progress(Progress),
    Note(String, Value),
    Failed { message: String, hint: Option<String>, interrupted: bool, integrity: bool },
}

struct ToParent {
    stop: Arc<AtomicBool>,
}

impl ToParent {
    fn send(&self, report: &Report) {
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            let mut out = std::io::stdout().lock();
            // A parent that no longer listens has ended; the end of the input then stops the stage.
            let _ = out.write_all(&line).and_then(|()| out.flush());
        }
    }
}

impl Reporter for ToParent {
    fn say(&mut self, line: &str) {
        self.send(&Report::Said(line.to_owned()));
    }
    fn progress(&mut self, progress: &Progress) {
        self.send(&Report::Progress(progress.clone()));
    }
    fn note(&mut self, key: &str, value: Value) {
        self.send(&Report::Note(key.to_owned(), recordable(value)));
    }
    fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The body of the hidden child command: does the one job described on standard input and returns
/// the exit code.
pub fn serve(kinds: &Kinds) -> i32 {
    let mut reporter = ToParent { stop: Arc::default() };
    let order = match Order::read(std::io::stdin().lock()) {
        Ok(order) => order,
        Err(reason) => return fail(&reporter, StageError::new(format!("cannot read the job: {reason}"))),
    };
    let stop = Arc::clone(&reporter.stop);
    std::thread::spawn(move || {
        let mut rest = [0];
        while matches!(std::io::stdin().lock().read(&mut rest), Ok(1..)) {}
        stop.store(true, Ordering::Relaxed);
    });
    let Some(kind) = kinds.get(&order.kind) else {
        return fail(&reporter, StageError::new(format!("this program has no stage kind `{}`", order.kind)));
    };
    if let Err(error) = std::fs::create_dir_all(&order.scratch) {
        let path = order.scratch.display();
        return fail(&reporter, StageError::new(format!("cannot create `{path}`: {error}")));
    }
    let params = Params { recipe: order.recipe, settings: order.settings };
    let result = kind.run(&mut Job {
        instance: &order.instance,
        axes: &order.axes,
        params: &params,
        inputs: &order.inputs,
        out: &order.out,
        scratch: &order.scratch,
        project: &order.project,
        resources: order.resources,
        offline: order.offline,
        reporter: &mut reporter,
    });
    result.map_or_else(|error| fail(&reporter, error), |()| 0)
}

fn fail(reporter: &ToParent, error: StageError) -> i32 {
    let StageError { message, hint, interrupted, integrity } = error;
    reporter.send(&Report::Failed { message, hint, interrupted, integrity });
    if interrupted {
        130
    } else if integrity {
        3
    } else {
        1
    }
}
