//! One stage in one process: start it, listen to it, take its result into the cache. Unaware of the
//! pipeline's shape and of what else runs.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::Write,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc::Sender},
    thread::JoinHandle,
    time::Instant,
};

use rustix::process::Pid;
use toml::Value;

use crate::{
    child::{Order, Report},
    digest::Digest,
    error::{Context, EngineError},
    instance::InstanceId,
    kind::{self, Input, Progress, StageError},
    process::{Running, follow, open_log},
    recipe::{Recipe, value_text},
    record::{Facts, Machine, Record, now, recordable},
    store::{Content, Draft, Store},
};

/// The most bytes that one environment variable is given; Linux takes 128 KiB.
const LONGEST_VARIABLE: usize = 100_000;

/// What a task tells the scheduler.
pub(crate) enum Message {
    Said(InstanceId, String),
    Progress(InstanceId, Progress),
    Done(InstanceId, Result<Box<Made>, StageError>, f64),
    /// The results of these recipes are lasting.
    Lasting(Vec<Digest>),
    /// Results can no longer be made lasting.
    Broken,
}

/// A result, in the cache and in a draft ready to be shown.
pub(crate) struct Made {
    pub(crate) draft: Draft,
    pub(crate) content: Content,
    pub(crate) record: Record,
    /// Did the same recipe once make other bytes?
    pub(crate) differs: bool,
}

/// All that a task needs to know.
pub(crate) struct Task {
    pub(crate) id: InstanceId,
    pub(crate) order: Order,
    pub(crate) command: Option<kind::Command>,
    pub(crate) recipe: Recipe,
    pub(crate) gpus: Vec<String>,
    pub(crate) exe: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) draft: Draft,
}

impl Task {
    /// Starts the process and a thread that listens until it ends.
    pub(crate) fn start(
        self,
        store: Arc<Store>,
        sender: Sender<Message>,
    ) -> Result<(Running, JoinHandle<()>), EngineError> {
        let log = open_log(&self.log)?;
        let errors = log.try_clone().context("open", &self.log)?;
        let mut process = match &self.command {
            Some(_) => Command::new("/bin/sh"),
            None => Command::new(&self.exe),
        };
        let lists = self.prepare(&mut process, &store)?;
        process.process_group(0).stdout(Stdio::piped()).stderr(errors);
        process.stdin(if self.command.is_some() { Stdio::null() } else { Stdio::piped() });
        let started = (now(), Instant::now());
        let mut child = process.spawn().context("start", process.get_program().as_ref())?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            let order = self.order.text().map_err(std::io::Error::other).context("start", &self.exe)?;
            // A child that died before reading says more in its exit than this error would.
            let _ = stdin.write_all(order.as_bytes());
        }
        let listener = std::thread::spawn(move || {
            let id = self.id;
            let mut heard = Heard::default();
            let status = heard.listen(&mut child, group, &self, log, &sender);
            let seconds = started.1.elapsed().as_secs_f64();
            let result = match status {
                Err(error) => Err(StageError::new(format!("cannot listen to its process: {error}"))),
                Ok(status) => self.conclude(&store, status, heard, started.0, seconds),
            };
            drop(lists);
            // The scheduler only stops listening when the run has ended.
            let _ = sender.send(Message::Done(id, result.map(Box::new), seconds));
        });
        Ok((Running { group, stdin }, listener))
    }

    /// Its arguments and environment; for a command also the lists of its inputs, which go with what
    /// is returned.
    fn prepare(&self, process: &mut Command, store: &Store) -> Result<Option<Draft>, EngineError> {
        process.current_dir(&self.order.project);
        if !self.gpus.is_empty() {
            process.env("CUDA_VISIBLE_DEVICES", self.gpus.join(","));
        }
        let Some(command) = &self.command else {
            process.arg("__stage").env("RAYON_NUM_THREADS", self.order.resources.threads.to_string());
            return Ok(None);
        };
        process.arg("-c").arg(&command.run).envs(&command.env);
        process.env("OUT", &self.order.out).env("SCRATCH", &self.order.scratch);
        process.env("THREADS", self.order.resources.threads.to_string());
        for (axis, value) in &self.order.axes {
            let text = value.as_str().map_or_else(|| value_text(value), str::to_owned);
            process.env(format!("AXIS_{}", variable(axis)), text);
        }
        fs::create_dir_all(&self.order.scratch).context("create", &self.order.scratch)?;
        let mut lists = None;
        for (role, inputs) in &self.order.inputs {
            let name = format!("IN_{}", variable(role));
            let folders = lines(inputs);
            if inputs.len() > 1 {
                let place = match &mut lists {
                    Some(place) => place,
                    none => none.insert(store.begin()?),
                };
                let list = place.path().join(variable(role));
                let mut text = folders.clone();
                text.push("\n");
                fs::write(&list, text.as_encoded_bytes()).context("write", &list)?;
                process.env(format!("{name}_LIST"), list);
            }
            if folders.len() <= LONGEST_VARIABLE {
                process.env(name, folders);
            } else {
                // Not left out: `cat $IN_X/file` would then read `/file`.
                process.env(&name, format!("too-many-inputs-see-{name}_LIST"));
            }
        }
        Ok(lists)
    }

    fn conclude(
        self,
        store: &Store,
        status: ExitStatus,
        heard: Heard,
        started: u64,
        seconds: f64,
    ) -> Result<Made, StageError> {
        if let Some(failure) = heard.failure {
            return Err(failure);
        }
        if !status.success() {
            let how = match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with exit code {code}"),
                (None, Some(9)) => "was killed (signal 9), perhaps for want of memory".to_owned(),
                (None, signal) => format!("was ended by signal {}", signal.unwrap_or(0)),
            };
            let log = fs::read(&self.log).unwrap_or_default();
            let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned();
            let tail: Vec<_> = tail.lines().rev().take(5).collect();
            let said: String = tail.iter().rev().map(|line| format!("\n  {line}")).collect();
            return Err(StageError::new(format!("its process {how}{said}"))
                .hint(format!("its whole log is `{}`", self.log.display())));
        }
        self.take(store, heard.notes, started, seconds).map_err(|error| {
            let mut failure = StageError::new(error.to_string());
            failure.hint = error.hint();
            failure.integrity = error.exit_code() == 3;
            failure
        })
    }

    fn take(
        self,
        store: &Store,
        notes: BTreeMap<String, Value>,
        started: u64,
        seconds: f64,
    ) -> Result<Made, EngineError> {
        let hint = "a stage's results are the plain files that it writes into its output folder (`$OUT` for a command)";
        for output in self.command.iter().flat_map(|command| &command.outputs) {
            if !self.draft.path().join(output).exists() {
                return Err(EngineError::Output {
                    message: format!("it ended well but did not make its output `{}`", output.display()),
                    hint: hint.into(),
                });
            }
        }
        let content = store.keep(&self.draft)?;
        if content.outputs.is_empty() {
            let message = "it ended well but left no file in its output folder".into();
            return Err(EngineError::Output { message, hint: hint.into() });
        }
        let tree = content.tree();
        let run = Facts {
            instance: self.order.instance,
            started,
            seconds,
            machine: Machine::default(),
            threads: self.order.resources.threads,
            gpus: self.gpus,
            settings: self.order.settings.into_iter().map(|(key, value)| (key, recordable(value))).collect(),
            notes,
        };
        let differs = store.record(self.recipe.digest()).is_some_and(|old| old.tree != tree);
        let recipe = self.recipe.text().to_owned();
        let record = Record { recipe, tree, outputs: content.outputs.clone(), run };
        Ok(Made { draft: self.draft, content, record, differs })
    }
}

/// A name as part of an environment variable.
fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The inputs' folders, one on each line.
fn lines(inputs: &[Input]) -> OsString {
    let mut lines = OsString::new();
    for (index, input) in inputs.iter().enumerate() {
        if index > 0 {
            lines.push("\n");
        }
        lines.push(&input.dir);
    }
    lines
}

/// What a process said that outlives its saying.
#[derive(Default)]
struct Heard {
    notes: BTreeMap<String, Value>,
    failure: Option<StageError>,
}

impl Heard {
    /// Listens to the child until it has ended, and says how it did.
    fn listen(
        &mut self,
        child: &mut Child,
        group: Option<Pid>,
        task: &Task,
        mut log: fs::File,
        to: &Sender<Message>,
    ) -> std::io::Result<ExitStatus> {
        if let Some(stdout) = child.stdout.take() {
            let id = task.id;
            let reports = task.command.is_none();
            follow(stdout, group, |line| {
                let report = if reports { serde_json::from_slice(line).ok() } else { None };
                let said = || Report::Said(String::from_utf8_lossy(line).trim_end().to_owned());
                match report.unwrap_or_else(said) {
                    Report::Said(line) => {
                        let _ = writeln!(log, "{line}");
                        let _ = to.send(Message::Said(id, line));
                    }
                    Report::Progress(progress) => drop(to.send(Message::Progress(id, progress))),
                    Report::Note(key, value) => drop(self.notes.insert(key, value)),
                    Report::Failed { message, hint, interrupted, integrity } => {
                        let _ = writeln!(log, "failed: {message}");
                        self.failure = Some(StageError { message, hint, interrupted, integrity });
                    }
                }
            })?;
        }
        child.wait()
    }
}
