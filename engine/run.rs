//! The scheduler: starts what is ready while resources last, restores what the cache holds, and stops
//! the ripple where bytes stay equal. Knows nothing of how a stage works or how events are shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use crate::{
    child::Order,
    digest::Digest,
    error::EngineError,
    instance::{InstanceId, Pipeline},
    kind::{Input, StageError},
    lock::Lock,
    lockfile,
    observer::{Event, Observer},
    plan::{Found, Standing, Why},
    project::{Project, key},
    recipe::Recipe,
    record::{Machine, Record},
    resources::{Pool, Share},
    state::{Entry, State},
    store::Draft,
    task::{Made, Message, Running, Task},
};

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// What is wanted; empty means everything.
    pub targets: Vec<InstanceId>,
    /// At most so many at once; 0 means as many as there are threads.
    pub jobs: usize,
    /// After a failure, go on with what does not depend on it.
    pub keep_going: bool,
    /// Run the targets again even if they are fresh.
    pub force: bool,
    /// Run the targets and not what they need.
    pub only: bool,
    /// Run nothing; [`Summary::plan`] says what would happen.
    pub dry_run: bool,
    /// Ask the stages not to use the network.
    pub offline: bool,
    /// The program to start as `exe __stage`.
    pub exe: PathBuf,
    /// 0: go on; 1: stop safely; 2: stop at once.
    pub stop: Arc<AtomicUsize>,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Nothing to do for these.
    pub fresh: Vec<InstanceId>,
    /// Ran to their end.
    pub ran: Vec<InstanceId>,
    /// Came from the cache.
    pub restored: Vec<InstanceId>,
    /// Failed.
    pub failed: Vec<InstanceId>,
    /// Wanted, but not reached: behind a failure or an interruption.
    pub skipped: Vec<InstanceId>,
    /// Was the run asked to stop?
    pub interrupted: bool,
    /// Was a failure one of damaged data?
    pub damaged: bool,
    /// With `dry_run`: what is wanted, and where it stands.
    pub plan: Vec<(InstanceId, Standing)>,
}

impl Summary {
    /// The exit code of a program whose run this was.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self { interrupted: true, .. } => 130,
            Self { damaged: true, .. } => 3,
            Self { failed, .. } if !failed.is_empty() => 1,
            _ => 0,
        }
    }
}

impl Project {
    /// Brings the targets up to date.
    pub fn run(
        &self,
        pipeline: &Pipeline,
        options: &RunOptions,
        observer: &mut dyn Observer,
    ) -> Result<Summary, EngineError> {
        let wanted = wanted(pipeline, options);
        let forced: BTreeSet<_> = match (options.force, options.targets.is_empty()) {
            (false, _) => BTreeSet::new(),
            (true, true) => wanted.clone(),
            (true, false) => options.targets.iter().copied().collect(),
        };
        if options.dry_run {
            return self.dry_run(pipeline, &wanted, &forced);
        }
        let _lock = Lock::take(self.store.cache())?;
        self.store.sweep();
        let mut state = State::load(self.store.cache())?;
        let found = self.look_all(pipeline, &state)?;
        let mut trees = vec![None; pipeline.instances.len()];
        if options.only {
            for (id, judged) in self.judge_all(pipeline, &mut state)?.into_iter().enumerate() {
                if judged.standing == Standing::Fresh {
                    trees[id] = judged.tree;
                }
            }
            all_there(pipeline, &wanted, |id| trees[id].is_some())?;
        }
        let (sender, receiver) = channel();
        let mut run = Run {
            project: self,
            pipeline,
            options,
            observer,
            pool: Pool::of_machine(options.jobs),
            state,
            found,
            forced,
            blocked: BTreeMap::new(),
            dependents: vec![Vec::new(); pipeline.instances.len()],
            ready: BTreeSet::new(),
            queued: BTreeMap::new(),
            running: BTreeMap::new(),
            trees,
            machine: None,
            sender,
            told: 0,
            summary: Summary::default(),
        };
        let result = run.all(&wanted, &receiver);
        if result.is_err() {
            run.running.values_mut().for_each(|(running, ..)| running.kill());
        }
        let mut current: Vec<_> = run.trees.iter().map(Option::is_some).collect();
        run.summary.failed.iter().for_each(|&id| current[id] = false);
        let Run { mut state, mut summary, .. } = run;
        lockfile::write(pipeline, &current, &mut state)?;
        state.settle()?;
        result?;
        let settled: BTreeSet<_> = [&summary.fresh, &summary.ran, &summary.restored, &summary.failed]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        summary.skipped = wanted.difference(&settled).copied().collect();
        Ok(summary)
    }

    fn dry_run(
        &self,
        pipeline: &Pipeline,
        wanted: &BTreeSet<InstanceId>,
        forced: &BTreeSet<InstanceId>,
    ) -> Result<Summary, EngineError> {
        let mut plan: Vec<Standing> = self.status(pipeline)?;
        all_there(pipeline, wanted, |id| plan[id] == Standing::Fresh)?;
        let mut unknown = vec![false; plan.len()];
        for id in 0..plan.len() {
            let needs = pipeline.instances[id].needs.iter().map(|need| need.from);
            let mut waits: Vec<_> = needs.filter(|&from| unknown[from]).collect();
            waits.dedup();
            if forced.contains(&id) {
                plan[id] = Standing::Stale(vec![Why::Asked]);
            } else if !waits.is_empty() {
                plan[id] = Standing::Waiting(waits);
            }
            unknown[id] = matches!(plan[id], Standing::Stale(_) | Standing::Waiting(_));
        }
        let plan = plan.into_iter().enumerate().filter(|(id, _)| wanted.contains(id)).collect();
        Ok(Summary { plan, ..Summary::default() })
    }
}

/// An error when something wanted needs what is neither wanted nor up to date.
fn all_there(
    pipeline: &Pipeline,
    wanted: &BTreeSet<InstanceId>,
    fresh: impl Fn(InstanceId) -> bool,
) -> Result<(), EngineError> {
    let mut needs = wanted.iter().flat_map(|&id| &pipeline.instances[id].needs);
    match needs.find(|need| !wanted.contains(&need.from) && !fresh(need.from)) {
        None => Ok(()),
        Some(need) => Err(EngineError::User {
            message: format!("`{}` is needed but not up to date", pipeline.instances[need.from].name),
            hint: "run without `--only`, or add it to what should run".into(),
        }),
    }
}

/// The targets and, without `only`, all that they need.
pub fn wanted(pipeline: &Pipeline, options: &RunOptions) -> BTreeSet<InstanceId> {
    if options.targets.is_empty() {
        return (0..pipeline.instances.len()).collect();
    }
    let mut wanted: BTreeSet<_> = options.targets.iter().copied().collect();
    if !options.only {
        // Needs come before what needs them, so one walk from the end finds them all.
        for id in (0..pipeline.instances.len()).rev() {
            if wanted.contains(&id) {
                wanted.extend(pipeline.instances[id].needs.iter().map(|need| need.from));
            }
        }
    }
    wanted
}

struct Run<'a> {
    project: &'a Project,
    pipeline: &'a Pipeline,
    options: &'a RunOptions,
    observer: &'a mut dyn Observer,
    pool: Pool,
    state: State,
    found: Vec<Found>,
    forced: BTreeSet<InstanceId>,
    /// How many needs each is still waiting for.
    blocked: BTreeMap<InstanceId, usize>,
    dependents: Vec<Vec<InstanceId>>,
    /// All needs known, not yet judged.
    ready: BTreeSet<InstanceId>,
    /// Judged stale; start when resources allow.
    queued: BTreeMap<InstanceId, Recipe>,
    running: BTreeMap<InstanceId, (Running, Share, Recipe)>,
    trees: Vec<Option<Digest>>,
    machine: Option<Machine>,
    sender: Sender<Message>,
    /// The stop level that the running processes know of.
    told: usize,
    summary: Summary,
}

impl Run<'_> {
    fn all(
        &mut self,
        wanted: &BTreeSet<InstanceId>,
        receiver: &Receiver<Message>,
    ) -> Result<(), EngineError> {
        for &id in wanted {
            let needs = self.pipeline.instances[id].needs.iter().filter(|need| wanted.contains(&need.from));
            let needs: Vec<_> = needs.map(|need| need.from).collect();
            needs.iter().for_each(|&from| self.dependents[from].push(id));
            if needs.is_empty() {
                self.ready.insert(id);
            } else {
                self.blocked.insert(id, needs.len());
            }
        }
        loop {
            self.pass_on_stop();
            if self.may_start() {
                while let Some(id) = self.ready.pop_first() {
                    self.judge(id)?;
                }
                self.start_what_fits()?;
            }
            if self.running.is_empty() {
                return Ok(());
            }
            match receiver.recv_timeout(Duration::from_millis(50)) {
                Ok(Message::Said(id, line)) => self.observer.event(&Event::Said { id, line }),
                Ok(Message::Progress(id, progress)) => self.observer.event(&Event::Progress { id, progress }),
                Ok(Message::Done(id, result, seconds)) => self.done(id, result, seconds)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn may_start(&self) -> bool {
        !self.summary.interrupted && (self.options.keep_going || self.summary.failed.is_empty())
    }

    fn pass_on_stop(&mut self) {
        let level = self.options.stop.load(Ordering::Relaxed);
        if level > self.told {
            self.told = level;
            self.summary.interrupted = true;
            for (running, ..) in self.running.values_mut() {
                if level == 1 { running.stop() } else { running.kill() }
            }
        }
    }

    fn judge(&mut self, id: InstanceId) -> Result<(), EngineError> {
        let needs = &self.pipeline.instances[id].needs;
        let inputs: Vec<_> = needs.iter().filter_map(|need| self.trees[need.from]).collect();
        let judged = self.project.judge_one(self.pipeline, id, &inputs, &self.found[id], &mut self.state);
        let Some(recipe) = judged.recipe else {
            let message = match judged.standing {
                Standing::Stale(whys) => whys.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                _ => "its recipe cannot be made".to_owned(),
            };
            self.fail(
                id,
                StageError::new(message).hint("put the file there, or correct the path in the pipeline file"),
            );
            return Ok(());
        };
        match judged.standing {
            _ if self.forced.contains(&id) => drop(self.queued.insert(id, recipe)),
            Standing::Fresh => {
                self.trees[id] = judged.tree;
                self.observer.event(&Event::Fresh { id });
                self.summary.fresh.push(id);
                self.settle(id);
            }
            Standing::Restorable => self.restore(id, &recipe)?,
            Standing::Stale(_) | Standing::Waiting(_) => drop(self.queued.insert(id, recipe)),
        }
        Ok(())
    }

    fn restore(&mut self, id: InstanceId, recipe: &Recipe) -> Result<(), EngineError> {
        if let Found::Missing(_, path) | Found::Altered(_, path) = &self.found[id] {
            let line = format!("`{}` is missing or was altered; it is replaced", path.display());
            self.observer.event(&Event::Said { id, line });
        }
        let Some(record) = self.project.store.record(recipe.digest()) else { return Ok(()) };
        match self.project.store.restore(&record) {
            Ok(draft) => {
                self.show(id, recipe, &record, draft)?;
                self.observer.event(&Event::Restored { id });
                self.summary.restored.push(id);
                self.settle(id);
            }
            Err(error) if error.exit_code() == 3 => {
                let hint = error.hint().unwrap_or_default();
                self.fail(id, StageError::new(error.to_string()).hint(hint).integrity());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn show(
        &mut self,
        id: InstanceId,
        recipe: &Recipe,
        record: &Record,
        draft: Draft,
    ) -> Result<(), EngineError> {
        let key = key(self.pipeline, id);
        let files = self.project.store.show(draft, &key, &record.outputs)?;
        self.trees[id] = Some(record.tree);
        self.state.finished(&key, Entry { recipe: recipe.digest(), tree: record.tree, files })
    }

    /// Its result is known and shown: publish it and release what waited for it.
    fn settle(&mut self, id: InstanceId) {
        let instance = &self.pipeline.instances[id];
        if instance.kind.publishes(&instance.params) {
            let result = self.project.result(self.pipeline, id);
            match instance.kind.publish(&instance.params, &result, &self.project.root) {
                Ok(paths) => {
                    paths.into_iter().for_each(|path| self.observer.event(&Event::Published { id, path }));
                }
                Err(error) => self.fail(id, error),
            }
        }
        for dependent in self.dependents[id].clone() {
            if let Some(count) = self.blocked.get_mut(&dependent) {
                *count -= 1;
                if *count == 0 {
                    self.blocked.remove(&dependent);
                    self.ready.insert(dependent);
                }
            }
        }
    }

    fn start_what_fits(&mut self) -> Result<(), EngineError> {
        for id in self.queued.keys().copied().collect::<Vec<_>>() {
            if self.pool.exhausted() {
                break;
            }
            let wanted = self.pipeline.instances[id].resources;
            if wanted.gpus > self.pool.gpus() {
                self.queued.remove(&id);
                let message = format!("it wants {} GPUs, and {} can be seen", wanted.gpus, self.pool.gpus());
                self.fail(id, StageError::new(message).hint("lower `gpus` in its `resources`"));
                continue;
            }
            let Some(share) = self.pool.take(wanted) else { continue };
            if let Some(recipe) = self.queued.remove(&id) {
                let running = self
                    .task(id, &recipe, &share)?
                    .start(Arc::clone(&self.project.store), self.sender.clone())?;
                self.observer.event(&Event::Started { id });
                self.running.insert(id, (running, share, recipe));
            }
        }
        Ok(())
    }

    fn task(&mut self, id: InstanceId, recipe: &Recipe, share: &Share) -> Result<Task, EngineError> {
        let (project, instance) = (self.project, &self.pipeline.instances[id]);
        let mut inputs = BTreeMap::<String, Vec<Input>>::new();
        for need in &instance.needs {
            let from = &self.pipeline.instances[need.from];
            let dir = project.result(self.pipeline, need.from);
            let input = Input { instance: from.name.clone(), axes: from.axes.clone(), dir };
            inputs.entry(need.role.clone()).or_default().push(input);
        }
        let draft = project.store.begin()?;
        let order = Order {
            kind: instance.kind.name().to_owned(),
            instance: instance.name.clone(),
            axes: instance.axes.clone(),
            recipe: instance.params.recipe.clone(),
            settings: instance.params.settings.clone(),
            inputs,
            out: draft.path().to_owned(),
            scratch: project.store.scratch(recipe.digest()),
            project: project.root.clone(),
            resources: share.resources,
            offline: self.options.offline,
        };
        let machine = self.machine.get_or_insert_with(|| Machine::look(&project.root)).clone();
        let log = project.log(self.pipeline, id);
        let command = instance.kind.command(&instance.params);
        let (recipe, gpus, exe) = (recipe.clone(), share.gpus.clone(), self.options.exe.clone());
        Ok(Task { id, order, command, recipe, gpus, exe, log, machine, draft })
    }

    fn done(
        &mut self,
        id: InstanceId,
        result: Result<Box<Made>, StageError>,
        seconds: f64,
    ) -> Result<(), EngineError> {
        let Some((_, share, recipe)) = self.running.remove(&id) else { return Ok(()) };
        self.pool.give(share);
        match result {
            Ok(made) => {
                let Made { draft, record } = *made;
                self.show(id, &recipe, &record, draft)?;
                self.observer.event(&Event::Finished { id, seconds });
                self.summary.ran.push(id);
                self.settle(id);
            }
            // It was told to stop; that it did is no failure.
            Err(error) if error.interrupted || self.told > 0 => {}
            Err(error) => self.fail(id, error),
        }
        Ok(())
    }

    fn fail(&mut self, id: InstanceId, error: StageError) {
        self.summary.damaged |= error.integrity;
        self.summary.failed.push(id);
        self.observer.event(&Event::Failed { id, message: error.message, hint: error.hint });
    }
}
