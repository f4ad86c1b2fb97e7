//! One stage in one process: start it, listen to it, take its result into the cache. Unaware of the
//! pipeline's shape and of what else runs.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc::Sender},
    time::Instant,
};

use toml::Value;

use crate::{
    child::{Order, Report},
    error::{Context, EngineError},
    instance::InstanceId,
    kind::{self, Progress, StageError},
    recipe::{Recipe, value_text},
    record::{Facts, Machine, Record, now},
    store::{Draft, Store, tree},
};

/// What a task tells the scheduler.
pub(crate) enum Message {
    Said(InstanceId, String),
    Progress(InstanceId, Progress),
    Done(InstanceId, Result<Box<Made>, StageError>, f64),
}

/// A result, in the cache and in a draft ready to be shown.
pub(crate) struct Made {
    pub(crate) draft: Draft,
    pub(crate) record: Record,
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
    pub(crate) machine: Machine,
    pub(crate) draft: Draft,
}

/// A running process.
pub(crate) struct Running {
    pid: i32,
    /// Dropped to ask a stage to stop; a command gets a signal instead.
    stdin: Option<ChildStdin>,
}

impl Running {
    /// Asks it to stop at a safe point.
    pub(crate) fn stop(&mut self) {
        if self.stdin.take().is_none() {
            self.signal(rustix::process::Signal::TERM);
        }
    }

    /// Ends it, and what it started, at once.
    pub(crate) fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(group) = rustix::process::Pid::from_raw(self.pid) {
            // It may have ended by itself just now.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Task {
    /// Starts the process and a thread that listens until it ends.
    pub(crate) fn start(self, store: Arc<Store>, sender: Sender<Message>) -> Result<Running, EngineError> {
        for folder in [self.log.parent().unwrap_or(&self.log), &self.order.scratch] {
            fs::create_dir_all(folder).context("create", folder)?;
        }
        let log = fs::File::create(&self.log).context("create", &self.log)?;
        let errors = log.try_clone().context("open", &self.log)?;
        let mut process = self.process();
        process.process_group(0).stdout(Stdio::piped()).stderr(errors);
        process.stdin(if self.command.is_some() { Stdio::null() } else { Stdio::piped() });
        let started = (now(), Instant::now());
        let mut child = process.spawn().context("start", &self.exe)?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            let mut job =
                serde_json::to_vec(&self.order).map_err(std::io::Error::other).context("start", &self.exe)?;
            job.push(b'\n');
            // A child that died before reading says more in its exit than this error would.
            let _ = stdin.write_all(&job);
        }
        std::thread::spawn(move || {
            let id = self.id;
            let mut heard = Heard::default();
            if let Some(stdout) = child.stdout.take() {
                heard.listen(&self, BufReader::new(stdout), log, &sender);
            }
            let status = child.wait();
            let seconds = started.1.elapsed().as_secs_f64();
            let result = match status {
                Err(error) => Err(StageError::new(format!("cannot wait for its process: {error}"))),
                Ok(status) => self.conclude(&store, status, heard, started.0, seconds),
            };
            // The scheduler only stops listening when the run has ended.
            let _ = sender.send(Message::Done(id, result.map(Box::new), seconds));
        });
        Ok(Running { pid, stdin })
    }

    fn process(&self) -> Command {
        let mut process;
        if let Some(command) = &self.command {
            process = Command::new("sh");
            process.arg("-c").arg(&command.run).envs(&command.env);
            process.env("OUT", &self.order.out).env("SCRATCH", &self.order.scratch);
            for (role, inputs) in &self.order.inputs {
                let dirs: Vec<_> = inputs.iter().map(|input| input.dir.to_string_lossy()).collect();
                process.env(format!("IN_{}", variable(role)), dirs.join("\n"));
            }
            for (axis, value) in &self.order.axes {
                let text = value.as_str().map_or_else(|| value_text(value), str::to_owned);
                process.env(format!("AXIS_{}", variable(axis)), text);
            }
        } else {
            process = Command::new(&self.exe);
            process.arg("__stage").env("RAYON_NUM_THREADS", self.order.resources.threads.to_string());
        }
        if !self.gpus.is_empty() {
            process.env("CUDA_VISIBLE_DEVICES", self.gpus.join(","));
        }
        process.current_dir(&self.order.project);
        process
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
            let tail = fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<_> = tail.lines().rev().take(5).collect();
            let said: String = tail.iter().rev().map(|line| format!("\n  {line}")).collect();
            return Err(StageError::new(format!("its process {how}{said}")));
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
        let outputs = self.draft.outputs()?;
        if outputs.is_empty() {
            let message = "it ended well but left no file in its output folder".into();
            return Err(EngineError::Output { message, hint: hint.into() });
        }
        store.keep(&self.draft, &outputs)?;
        let run = Facts {
            instance: self.order.instance,
            started,
            seconds,
            machine: self.machine,
            threads: self.order.resources.threads,
            gpus: self.gpus,
            settings: self.order.settings.into_iter().collect(),
            notes,
        };
        let record = Record { recipe: self.recipe.text().to_owned(), tree: tree(&outputs), outputs, run };
        store.write_record(self.recipe.digest(), &record)?;
        // Only what an interrupted run needs lies there.
        let _ = fs::remove_dir_all(&self.order.scratch);
        Ok(Made { draft: self.draft, record })
    }
}

/// A name as part of an environment variable.
fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// What a process said that outlives its saying.
#[derive(Default)]
struct Heard {
    notes: BTreeMap<String, Value>,
    failure: Option<StageError>,
}

impl Heard {
    fn listen(&mut self, task: &Task, mut from: impl BufRead, mut log: fs::File, to: &Sender<Message>) {
        let mut bytes = Vec::new();
        while matches!(from.read_until(b'\n', &mut bytes), Ok(1..)) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            let report = if task.command.is_some() { None } else { serde_json::from_str(&line).ok() };
            match report.unwrap_or(Report::Said(line)) {
                Report::Said(line) => {
                    let _ = writeln!(log, "{line}");
                    let _ = to.send(Message::Said(task.id, line));
                }
                Report::Progress(progress) => drop(to.send(Message::Progress(task.id, progress))),
                Report::Note(key, value) => drop(self.notes.insert(key, value)),
                Report::Failed { message, hint, interrupted, integrity } => {
                    let _ = writeln!(log, "failed: {message}");
                    self.failure = Some(StageError { message, hint, interrupted, integrity });
                }
            }
        }
    }
}
