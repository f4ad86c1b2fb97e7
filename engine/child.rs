//! The two ends of a stage's process: the jobs that the runner writes to its standard input (their
//! length in bytes on the first line, then TOML, which keeps every number exactly), the events that
//! it writes back, one JSON line each with the number of the job, and the body of the child. There is one
//! job, or those of a group. Knows nothing of scheduling.
//!
//! The runner keeps the child's standard input open: its end means "stop at a safe point". So a
//! stage also stops when the runner itself is gone.

use std::{
    collections::BTreeMap,
    io::{BufRead, Read, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::{
    instance::Resources,
    kind::{Input, Job, Kind, Kinds, Params, Progress, Reporter, StageError},
    machine::Machine,
    record::recordable,
};

/// All that a child is to do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) job: Vec<Order>,
}

/// One job.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) kind: String,
    pub(crate) instance: String,
    pub(crate) axes: BTreeMap<String, Value>,
    pub(crate) params: Params,
    pub(crate) inputs: BTreeMap<String, Vec<Input>>,
    pub(crate) out: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) project: PathBuf,
    pub(crate) resources: Resources,
    pub(crate) offline: bool,
    /// Did a launcher start the process? Then the runner may be on another machine.
    pub(crate) elsewhere: bool,
}

impl Orders {
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
    Warned(String),
    Progress(Progress),
    Note(String, Value),
    Machine(Box<Machine>),
    Failed(StageError),
    /// The job came to its end.
    Finished,
}

struct ToParent {
    job: usize,
    stop: Arc<AtomicBool>,
}

impl ToParent {
    fn send(&self, report: &Report) {
        if let Ok(mut line) = serde_json::to_vec(&(self.job, report)) {
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
    fn warn(&mut self, line: &str) {
        self.send(&Report::Warned(line.to_owned()));
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
    fn finished(&mut self) {
        self.send(&Report::Finished);
    }
    fn failed(&mut self, error: &StageError) {
        self.send(&Report::Failed(error.clone()));
    }
}

/// The body of the hidden child command: does the jobs described on standard input and reports how each came
/// out. The exit code adds nothing to that.
pub fn serve(kinds: &Kinds) -> ExitCode {
    let stop = Arc::<AtomicBool>::default();
    let reporter = |job| ToParent { job, stop: Arc::clone(&stop) };
    let fail = |message| {
        reporter(0).failed(&StageError::new(message));
        ExitCode::FAILURE
    };
    let orders = match Orders::read(std::io::stdin().lock()) {
        Ok(orders) => orders.job,
        Err(reason) => return fail(format!("cannot read the job: {reason}")),
    };
    let told = Arc::clone(&stop);
    let listen = move || {
        let mut rest = [0];
        while matches!(std::io::stdin().lock().read(&mut rest), Ok(1..)) {}
        told.store(true, Ordering::Relaxed);
    };
    if let Err(error) = std::thread::Builder::new().spawn(listen) {
        return fail(format!("cannot start a thread: {error}"));
    }
    let mut reporters: Vec<_> = (0..orders.len()).map(reporter).collect();
    if orders.iter().any(|order| order.elsewhere) {
        // What the launcher said before that may end in no line.
        let _ = writeln!(std::io::stdout().lock());
    }
    for (_, reporter) in orders.iter().zip(&reporters).filter(|(order, _)| order.elsewhere) {
        reporter.send(&Report::Machine(Box::new(Machine::here())));
    }
    let results = match prepare(kinds, &orders) {
        Ok(kind) => work(&**kind, &orders, &mut reporters),
        Err(error) => orders.iter().map(|_| Err(error.clone())).collect(),
    };
    let mut code = ExitCode::SUCCESS;
    for (reporter, result) in reporters.iter_mut().zip(results) {
        match result {
            Ok(()) => reporter.finished(),
            Err(error) => {
                reporter.failed(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// The kind of all jobs, with their scratch folders in place.
fn prepare<'a>(kinds: &'a Kinds, orders: &[Order]) -> Result<&'a Arc<dyn Kind>, StageError> {
    let name = orders.first().map_or("", |order| &order.kind);
    let kind = kinds.get(name);
    let kind = kind.ok_or_else(|| StageError::new(format!("this program has no stage kind `{name}`")))?;
    for Order { scratch, .. } in orders {
        std::fs::create_dir_all(scratch)
            .map_err(|error| StageError::new(format!("cannot create `{}`: {error}", scratch.display())))?;
    }
    Ok(kind)
}

fn work(kind: &dyn Kind, orders: &[Order], reporters: &mut [ToParent]) -> Vec<Result<(), StageError>> {
    let jobs = orders.iter().zip(reporters).map(|(order, reporter)| Job {
        instance: &order.instance,
        axes: &order.axes,
        params: &order.params,
        inputs: &order.inputs,
        out: &order.out,
        scratch: &order.scratch,
        project: &order.project,
        resources: order.resources,
        offline: order.offline,
        reporter,
    });
    let mut jobs: Vec<_> = jobs.collect();
    match &mut jobs[..] {
        [job] => vec![kind.run(job)],
        jobs => kind.run_group(jobs),
    }
}
