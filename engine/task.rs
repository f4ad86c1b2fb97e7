//! A process that does one stage's job, or those of a group: start it, listen to it, take the results
//! into the cache. Unaware of the pipeline's shape and of what else runs.

mod hear;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    io::{self, Read as _, Write},
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::SyncSender,
    },
    thread::JoinHandle,
    time::Instant,
};

use toml::Value;

use self::hear::{Heard, listen};
use crate::{
    child::{Order, Orders},
    digest::Digest,
    error::{Context, EngineError},
    held::{open_held, open_log},
    instance::{InstanceId, show, variable},
    kind::{self, HIDDEN, Input, StageError},
    launcher::{END, Launcher, SHELL_OPTIONS, end},
    leavings::{drop_others, left_in},
    machine::Machine,
    observer::Event,
    place::open_folder,
    process::{ProcessGroup, Running, end_left_with, last_lines, spawn},
    program::Program,
    recipe::Recipe,
    record::{Facts, Record, now, recordable},
    share::is_empty,
    state::Entry,
    store::{Draft, Store, lock_of},
};

/// The most bytes that one environment variable is given; Linux takes 128 KiB.
const LONGEST_VARIABLE: usize = 100_000;

/// What a task tells the scheduler.
pub(crate) enum Message {
    /// What a stage says while it runs.
    Event(Event),
    Done(InstanceId, Done),
    /// The results of these recipes are lasting.
    Lasting(Vec<Digest>),
    /// Results can no longer be made lasting.
    Broken,
}

/// How a stage came to its end.
pub(crate) struct Done {
    pub(crate) result: Result<Box<Made>, StageError>,
    pub(crate) seconds: f64,
    /// Had its process been told to stop before that ended?
    pub(crate) told: bool,
}

/// A result, in the cache and in a draft ready to be shown.
pub(crate) struct Made {
    pub(crate) draft: Draft,
    pub(crate) entry: Entry,
    pub(crate) record: Record,
    /// What it means that the same recipe once made other bytes, if it did.
    pub(crate) differs: Option<&'static str>,
    /// What it left beside its outputs.
    pub(crate) dropped: Vec<String>,
}

/// All that a process needs to know.
pub(crate) struct Task {
    /// One, or a group.
    pub(crate) members: Vec<Held>,
    pub(crate) command: Option<kind::Command>,
    pub(crate) gpus: Vec<String>,
    /// Are the GPUs that it was not given hidden from it, also if it was given none?
    pub(crate) hide: bool,
    pub(crate) program: Program,
    /// What starts it instead of this program.
    pub(crate) launcher: Option<Launcher>,
}

/// A stage that the process runs.
pub(crate) struct Member {
    pub(crate) id: InstanceId,
    pub(crate) order: Order,
    pub(crate) recipe: Recipe,
    /// Of all that it reads, as it was known when this began: the same again only if nobody touched it.
    pub(crate) reads: Digest,
    /// Is what an earlier attempt left of no use?
    pub(crate) anew: bool,
    pub(crate) log: PathBuf,
    pub(crate) draft: Draft,
}

/// The same, with the files that its process is to hold.
pub(crate) struct Held {
    pub(crate) member: Member,
    pub(crate) log: fs::File,
    /// Of its scratch folder.
    pub(crate) lock: fs::File,
}

impl Task {
    /// Starts the process and a thread that listens until it ends.
    pub(crate) fn start(
        self,
        store: Arc<Store>,
        sender: SyncSender<Message>,
    ) -> Result<(Running, JoinHandle<()>), EngineError> {
        let Held { member: first, log, .. } = &self.members[0];
        let errors = log.try_clone().context("open", &first.log)?;
        let before = errors.metadata().context("read", &first.log)?.len();
        let shell = self.command.is_some() && self.launcher.is_none();
        let program = if shell { Path::new("/bin/sh") } else { self.program.path()? };
        let mut process = match &self.launcher {
            None => Command::new(program),
            Some(launcher) => {
                let Order { instance, resources, .. } = &first.order;
                launcher.command(program, instance, *resources)
            }
        };
        let lists = self.prepare(&mut process, &store)?;
        // A command's own words must not be taken for those that say that it ended well.
        let unlike = store.temporary().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ends_with = (self.command.is_some() && self.launcher.is_some()).then(|| end(&unlike));
        match &ends_with {
            Some(_) => process.env(END, unlike),
            None => process.env_remove(END),
        };
        process.process_group(0).stdout(Stdio::piped()).stderr(errors);
        process.stdin(if shell { Stdio::null() } else { Stdio::piped() });
        let orders = if self.command.is_some() {
            String::new()
        } else {
            let job = self.members.iter().map(|held| held.member.order.clone()).collect();
            Orders { job }.text().map_err(io::Error::other).context("start", program)?
        };
        let started = (now(), Instant::now());
        let files: Vec<_> = self.members.iter().flat_map(|held| [&held.log, &held.lock]).collect();
        let child = spawn(&mut process, &files);
        let mut child = child.context("start", process.get_program().as_ref())?;
        let group = ProcessGroup::of(&child);
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            // A child that died before reading says more in its exit than an error here would.
            match stdin.as_fd().try_clone_to_owned() {
                // Who waits for a machine reads nothing, and a pipe does not hold all there may be to say.
                Ok(pipe) if self.launcher.is_some() => {
                    // Without one it hears nothing, and says so.
                    let write = move || drop(fs::File::from(pipe).write_all(orders.as_bytes()));
                    let _ = std::thread::Builder::new().spawn(write);
                }
                _ => drop(stdin.write_all(orders.as_bytes())),
            }
        }
        let told = Arc::<AtomicBool>::default();
        let launched = self.launcher.is_some();
        let running = Running { group: group.clone(), stdin, launched, told: Arc::clone(&told) };
        let place = PathBuf::from(process.get_program());
        let listener = std::thread::Builder::new().spawn(move || {
            let Self { members, command, gpus, launcher, .. } = self;
            let (launcher, together) = (launcher.map(|launcher| launcher.0), members.len());
            let (errors, by_shell) = ((members[0].member.log.clone(), before), command.is_some());
            let run = Ran { gpus, launcher, errors, together, by_shell, ends_with };
            let outputs = command.map_or_else(Vec::new, |command| command.outputs);
            let mut heard: Vec<_> =
                members.into_iter().map(|member| Some(Heard::new(member, started))).collect();
            let conclude = |heard: Heard, status: Result<Option<ExitStatus>, &io::Error>, told: bool| {
                let (id, seconds) = (heard.held.member.id, heard.started.1.elapsed().as_secs_f64());
                let result = match status {
                    Err(error) => Err(StageError::new(format!("cannot listen to its process: {error}"))),
                    Ok(status) => heard.conclude(&store, status, &outputs, &run, seconds),
                };
                // The scheduler only stops listening when the run has ended.
                let _ = sender.send(Message::Done(id, Done { result: result.map(Box::new), seconds, told }));
            };
            let asked = || told.load(Ordering::SeqCst);
            let early = |heard| conclude(heard, Ok(None), asked());
            let status = listen(&mut child, &group, &run, &mut heard, &sender, early);
            // To take its result in may take long: who is told meanwhile has ended.
            let asked = asked();
            for heard in heard.into_iter().flatten() {
                conclude(heard, status.as_ref().map(|status| Some(*status)), asked);
            }
            drop(lists);
        });
        let listener = listener.inspect_err(|_| running.group.kill()).context("listen to", &place)?;
        Ok((running, listener))
    }

    /// Its arguments and environment; for a command also the lists of its inputs, which go with what
    /// is returned.
    fn prepare(&self, process: &mut Command, store: &Store) -> Result<Vec<Draft>, EngineError> {
        let mut lists = Vec::new();
        // A command is never one of a group.
        let order = &self.members[0].member.order;
        process.current_dir(&order.project);
        if self.hide || !self.gpus.is_empty() {
            process.env("CUDA_VISIBLE_DEVICES", self.gpus.join(","));
            process.env(HIDDEN, if self.gpus.is_empty() { "1" } else { "" });
        } else if self.launcher.is_some() && order.resources.gpus > 0 {
            process.env_remove("CUDA_VISIBLE_DEVICES"); // who starts it says which
        }
        let Some(command) = &self.command else {
            process.arg("__stage").env("RAYON_NUM_THREADS", order.resources.threads.to_string());
            return Ok(lists);
        };
        // No other inputs and axes than its own: who starts the program may be a stage of another run.
        let of_a_stage = |name: &OsString| {
            let name = name.as_encoded_bytes();
            name.starts_with(b"IN_") || name.starts_with(b"AXIS_")
        };
        for name in env::vars_os().map(|(name, _)| name).filter(of_a_stage) {
            process.env_remove(name);
        }
        // A launcher need not pass signals on; the end of an input it does.
        process.arg(if self.launcher.is_some() { "__stage" } else { SHELL_OPTIONS });
        // What Python says is to be in the log when it is said.
        if env::var_os("PYTHONUNBUFFERED").is_none() {
            process.env("PYTHONUNBUFFERED", "1");
        }
        process.arg(&command.run).envs(&command.env);
        process.env("OUT", &order.out).env("SCRATCH", &order.scratch);
        process.env("THREADS", order.resources.threads.to_string());
        for (axis, value) in &order.axes {
            process.env(format!("AXIS_{}", variable(axis)), show(value));
        }
        fs::create_dir_all(&order.scratch).context("create", &order.scratch)?;
        for (role, inputs) in &order.inputs {
            let name = format!("IN_{}", variable(role));
            let folders = lines(inputs);
            // Of one input too: an axis may be swept in one profile and not in another.
            let mut text = folders.clone();
            text.push("\n");
            let known = inputs.iter().map(|Input { instance, axes, dir, .. }| {
                let axes: BTreeMap<_, _> =
                    axes.iter().map(|(axis, value)| (axis, recordable(value.clone()))).collect();
                serde_json::json!({ "instance": instance, "axes": axes, "folder": dir.to_string_lossy() })
            });
            let known = serde_json::Value::from_iter(known).to_string();
            for (ending, text) in [("LIST", text.as_encoded_bytes()), ("JSON", known.as_bytes())] {
                let list = store.make(0o666, |file| file.write_all(text))?;
                process.env(format!("{name}_{ending}"), list.path());
                lists.push(list);
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
}

/// How a process ran.
struct Ran {
    gpus: Vec<String>,
    launcher: Option<String>,
    /// The log that has its standard error, and how long it was before.
    errors: (PathBuf, u64),
    /// How many stages it ran.
    together: usize,
    /// Was it a shell? Then its exit code alone says how it ended, and it reports nothing.
    by_shell: bool,
    /// With which words at the end of a line, if only these say that it ended well.
    ends_with: Option<String>,
}

impl Heard {
    /// `status` is that of its process, if that has ended.
    fn conclude(
        self,
        store: &Store,
        status: Option<ExitStatus>,
        outputs: &[PathBuf],
        run: &Ran,
        seconds: f64,
    ) -> Result<Made, StageError> {
        let Self { held: Held { member, lock, .. }, notes, machine, failure, finished, .. } = self;
        let (started, _) = self.started;
        if status.is_none() {
            // Its process goes on for others only, and must not keep who tries the same from it.
            let _ = lock.unlock();
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        // A launcher may end well whatever the command did: then that has to say so, too.
        let well = run.by_shell && run.launcher.is_none() && status.is_some_and(|status| status.success());
        if !(finished || well) {
            let how =
                match (status.and_then(|status| status.code()), status.and_then(|status| status.signal())) {
                    (Some(0), _) => "ended before it said that it was done".to_owned(),
                    (Some(code), _) => format!("ended with exit code {code}"),
                    (None, Some(9)) => "was killed (signal 9), perhaps for want of memory".to_owned(),
                    (None, signal) => format!("was ended by signal {}", signal.unwrap_or(0)),
                };
            let said: String =
                last_lines(&run.errors.0, run.errors.1).iter().map(|line| format!("\n  {line}")).collect();
            let mut failure = StageError::new(format!("its process {how}{said}"));
            if run.errors.0 != member.log {
                failure =
                    failure.hint(format!("what its process said is in the log `{}`", run.errors.0.display()));
            }
            return Err(failure);
        }
        Ok(member.take(store, (notes, machine), outputs, run, (started, seconds))?)
    }
}

impl Member {
    /// Takes hold of what its process is to hold, before that starts: `by_shell`, or by this program.
    pub(crate) fn hold(self, store: &Store, by_shell: bool) -> Result<Held, EngineError> {
        let lock = self.hold_scratch(store, by_shell)?;
        let log = open_log(store.cache(), &self.log, !is_empty(&self.order.scratch))?;
        Ok(Held { member: self, log, lock })
    }

    /// Takes hold of its scratch folder, also against what is left of a stage with another name and the same recipe. The
    /// file that is held tells what the last attempt read. If anything of that was touched before that ended, what a command
    /// left in the folder may be made of something else, and is emptied. Other kinds look themselves at what they find there.
    fn hold_scratch(&self, store: &Store, by_shell: bool) -> Result<fs::File, EngineError> {
        let scratch = &self.order.scratch;
        let place = lock_of(scratch);
        let mut lock = open_held(store.cache(), &place)?;
        let (mut before, now) = (Vec::new(), self.reads.to_string());
        lock.read_to_end(&mut before).context("read", &place)?;
        if by_shell && !before.is_empty() {
            end_left_with("SCRATCH", scratch.as_os_str())?;
        }
        let anew = self.anew || scratch.is_symlink();
        if anew {
            store.vacate(scratch).context("empty", scratch)?;
        }
        // Where it had to be emptied in its place, the lock says something else by now.
        if anew || before != now.as_bytes() {
            lock.set_len(0).and_then(|()| lock.write_all(now.as_bytes())).context("write", &place)?;
        }
        Ok(lock)
    }

    fn take(
        self,
        store: &Store,
        (mut notes, machine): (BTreeMap<String, Value>, Machine),
        outputs: &[PathBuf],
        run: &Ran,
        (started, seconds): (u64, f64),
    ) -> Result<Made, EngineError> {
        let hint = "a stage's results are the plain files that it writes into its output folder (`$OUT` for a command)";
        if !fs::symlink_metadata(self.draft.path()).is_ok_and(|meta| meta.is_dir()) {
            let what = if self.draft.path().exists() { "something else" } else { "gone" };
            let hint = "leave that folder, and `.repro`, alone while it runs";
            return Err(EngineError::user(format!("its output folder is {what} now"), hint));
        }
        // Modes of folders are no part of a result, and who may not write in one cannot move it.
        open_folder(self.draft.path()).context("open", self.draft.path())?;
        let whole = || -> Result<(), EngineError> {
            let Some(output) = outputs.iter().find(|output| !self.draft.path().join(output).exists()) else {
                return Ok(());
            };
            let left = left_in(self.draft.path()).context("read", self.draft.path())?;
            let output = output.display().to_string();
            let message = format!("it ended well but did not make its output `{output}`; it left {left}");
            let hint = if output.contains('*') { "`outputs` are plain names, no patterns" } else { hint };
            Err(EngineError::user(message, hint))
        };
        whole()?;
        let mut dropped = Vec::new();
        if !outputs.is_empty() {
            let outputs = outputs.iter().cloned().collect();
            drop_others(self.draft.path(), "".as_ref(), &outputs, &mut dropped)
                .context("clear", self.draft.path())?;
            // Where names that differ in case are one, an output was found by a name that is not its own.
            whole()?;
        }
        let entry = store.keep(self.recipe.digest(), self.draft.path())?;
        let outputs = entry.outputs();
        if outputs.is_empty() {
            return Err(EngineError::user("it ended well but left no file in its output folder", hint));
        }
        let Ran { ref gpus, ref launcher, together, .. } = *run;
        if together > 1 {
            notes.insert("together".into(), Value::Integer(together as i64));
        }
        let run = Facts {
            instance: self.order.instance,
            started,
            seconds,
            machine,
            launcher: launcher.clone(),
            threads: self.order.resources.threads,
            gpus: gpus.clone(),
            settings: self
                .order
                .params
                .settings
                .into_iter()
                .map(|(key, value)| (key, recordable(value)))
                .collect(),
            notes,
        };
        let differs = store.record(self.recipe.digest()).and_then(|old| old.unlike(entry.tree, &run));
        let recipe = self.recipe.text().to_owned();
        let record = Record { recipe, tree: entry.tree, outputs, run };
        Ok(Made { draft: self.draft, entry, record, differs, dropped })
    }
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

#[cfg(test)]
mod tests;
