//! The scheduler: starts what is ready while resources last, restores what the cache holds, and stops
//! the ripple where bytes stay equal. Knows nothing of how a stage works or how events are shown.

mod finish;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
    time::Instant,
};

use crate::{
    child::Order,
    commit::Committer,
    digest::Digest,
    error::EngineError,
    instance::{InstanceId, Pipeline, Resources},
    kind::{Input, StageError},
    lockfile::Locked,
    machine::Machine,
    observer::{Event, Observer},
    plan::{Found, Standing},
    process::{Running, allow},
    program::Program,
    project::{Project, Seen},
    recipe::Recipe,
    resources::{Grant, Pool},
    run::{RunOptions, Summary},
    share::Brought,
    state::{Journal, State},
    task::{Held, Member, Message},
};

/// What to do about a file that a stage reads and cannot.
const READABLE: &str =
    "see that it is there and can be read, or correct the path, which is no pattern, in the pipeline file";

/// Messages that wait for the scheduler. While it restores something large, what talks more than that waits too, or the
/// memory would have to hold all it says.
const MOST: usize = 1 << 12;

/// What is to be done.
pub(crate) struct Plan<'a> {
    pub(crate) project: &'a Project,
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) options: &'a RunOptions,
    pub(crate) wanted: &'a BTreeSet<InstanceId>,
    pub(crate) forced: BTreeSet<InstanceId>,
    /// What was shown before, by instance.
    pub(crate) seen: &'a [Seen],
    /// What the lock file is believed of, by name.
    pub(crate) locked: BTreeMap<String, Locked>,
}

/// What was done.
pub(crate) struct Outcome {
    pub(crate) summary: Summary,
    /// The digests of today's results, where they are shown.
    pub(crate) trees: Vec<Option<Digest>>,
    pub(crate) state: State,
    /// Instances that came out otherwise than the same recipe once did here.
    pub(crate) unequal: BTreeSet<InstanceId>,
    /// An error when finished results could not be made lasting.
    pub(crate) journal: Result<Journal, EngineError>,
}

/// Does it. `trees` are the digests that are known before.
pub(crate) fn schedule(
    plan: Plan<'_>,
    trees: Vec<Option<Digest>>,
    state: State,
    journal: Journal,
    observer: &mut dyn Observer,
) -> Outcome {
    let (sender, receiver) = sync_channel(MOST);
    let machine = Arc::new(OnceLock::new());
    let store = Arc::clone(&plan.project.store);
    let committer = Committer::start(store, journal, Arc::clone(&machine), sender.clone());
    let pool = match plan.options.launcher {
        None => Pool::of_machine(plan.options.jobs),
        Some(_) => Pool::elsewhere(plan.options.jobs),
    };
    allow(pool.slots());
    let mut run = Run {
        observer,
        pool,
        program: Program::at(&plan.options.exe),
        state,
        blocked: BTreeMap::new(),
        dependents: vec![Vec::new(); plan.pipeline.instances.len()],
        ready: BTreeSet::new(),
        queued: BTreeMap::new(),
        again: BTreeMap::new(),
        running: BTreeMap::new(),
        processes: BTreeMap::new(),
        making: BTreeSet::new(),
        held: BTreeSet::new(),
        adopted: false,
        damaged: BTreeMap::new(),
        trees,
        machine,
        started: false,
        committer,
        sender,
        told: 0,
        ended: BTreeMap::new(),
        unequal: BTreeSet::new(),
        summary: Summary::default(),
        plan,
    };
    run.all(&receiver);
    // Who waits to say something, to nobody now, would wait for ever, and be waited for below.
    drop(receiver);
    let mut processes = std::mem::take(&mut run.processes);
    processes.values_mut().for_each(|process| process.running.kill());
    for (_, Process { listener, .. }) in processes {
        // What it reports no longer matters, but it must not go on writing.
        let _ = listener.join();
    }
    let Run { summary, trees, state, committer, ended, unequal, observer, .. } = run;
    let (journal, lasting) = committer.finish();
    if lasting.is_ok() {
        let mut ended: Vec<_> = ended.into_values().collect();
        ended.sort_unstable_by_key(|ended| ended.number);
        ended.into_iter().for_each(|ended| ended.tell(observer));
    }
    Outcome { summary, trees, state, unequal, journal: lasting.map(|()| journal) }
}

/// A process that runs one stage, or a group.
struct Process {
    running: Running,
    listener: JoinHandle<()>,
    share: Grant,
    /// How many of its stages have not ended.
    left: usize,
}

/// Files and folders, and what each is known by as far as it is there.
type Reads = Vec<(PathBuf, Option<Digest>)>;

/// An instance that runs.
struct Started {
    /// The first of those in its process.
    first: InstanceId,
    recipe: Recipe,
    /// What it reads, and what that was known by when it began.
    reads: Reads,
    /// Were the kind's own files then as they were when the recipe was made?
    sure: bool,
}

/// An instance that ran to its end.
struct Ended {
    id: InstanceId,
    /// How many had ended before it.
    number: usize,
    seconds: f64,
    /// What the runner has to say about its result.
    notes: Vec<String>,
}

impl Ended {
    /// Not before its result is lasting, for "done" is a promise; and before the notes, for what is said of a stage
    /// that runs is taken for its own words.
    fn tell(self, observer: &mut dyn Observer) {
        let Self { id, seconds, notes, .. } = self;
        observer.event(&Event::Finished { id, seconds });
        notes.into_iter().for_each(|line| observer.event(&Event::Said { id, line }));
    }
}

struct Run<'a> {
    plan: Plan<'a>,
    observer: &'a mut dyn Observer,
    pool: Pool,
    state: State,
    /// How many needs each is still waiting for.
    blocked: BTreeMap<InstanceId, usize>,
    dependents: Vec<Vec<InstanceId>>,
    /// All needs known, not yet judged.
    ready: BTreeSet<InstanceId>,
    /// Judged stale; start when resources allow.
    queued: BTreeMap<InstanceId, Recipe>,
    /// When what was about to start had to be judged again, because what it reads had changed.
    again: BTreeMap<InstanceId, Instant>,
    running: BTreeMap<InstanceId, Started>,
    /// By the first of its stages.
    processes: BTreeMap<InstanceId, Process>,
    /// Recipes that run, or whose results are not yet lasting.
    making: BTreeSet<Digest>,
    /// Those whose recipe another one is making: judged again when that is settled.
    held: BTreeSet<InstanceId>,
    /// Was something adopted since those that are queued were judged?
    adopted: bool,
    /// Those whose results the cache held damaged, and nobody has been told.
    damaged: BTreeMap<InstanceId, EngineError>,
    trees: Vec<Option<Digest>>,
    machine: Arc<OnceLock<Machine>>,
    /// Has a stage been started? Then somebody is finding out about the machine.
    started: bool,
    committer: Committer,
    /// What stages run in.
    program: Program,
    /// For the threads of the processes; the scheduler itself never sends, for it would wait for itself.
    sender: SyncSender<Message>,
    /// The stop level that the running processes know of.
    told: usize,
    /// What ran to its end and is not yet lasting, by its recipe.
    ended: BTreeMap<Digest, Ended>,
    /// Those that came out otherwise than the same recipe once did.
    unequal: BTreeSet<InstanceId>,
    summary: Summary,
}

impl Run<'_> {
    fn all(&mut self, receiver: &Receiver<Message>) {
        let wanted = self.plan.wanted;
        for &id in wanted {
            let needs = &self.plan.pipeline.instances[id].needs;
            let mut count = 0;
            for need in needs.iter().filter(|need| wanted.contains(&need.from)) {
                self.dependents[need.from].push(id);
                count += 1;
            }
            if count == 0 {
                self.ready.insert(id);
            } else {
                self.blocked.insert(id, count);
            }
        }
        // What a stage says frees nothing, nor does time: with many queued, to ask them all each time takes long.
        let mut freed = true;
        loop {
            self.pass_on_stop();
            freed |= !self.ready.is_empty();
            self.judge_what_is_ready();
            if self.may_start() && freed {
                self.start_what_fits();
            }
            if !self.ready.is_empty() && self.may_start() {
                continue; // what it reads changed since it was judged
            }
            if self.running.is_empty() && (self.held.is_empty() || !self.may_start()) {
                return;
            }
            let message = receiver.recv_timeout(Duration::from_millis(50));
            freed = matches!(message, Ok(Message::Done(..) | Message::Lasting(..)));
            match message {
                Ok(Message::Event(event)) => self.observer.event(&event),
                Ok(Message::Done(id, done)) => self.done(id, done),
                Ok(Message::Lasting(recipes)) => {
                    let ended: Vec<_> =
                        recipes.iter().filter_map(|recipe| self.ended.remove(recipe)).collect();
                    ended.into_iter().for_each(|ended| ended.tell(self.observer));
                    self.release(&recipes);
                }
                // Nothing that ends from now on can be made lasting: what can go on later is to save that.
                Ok(Message::Broken) if self.told == 0 => self.tell(1),
                Ok(Message::Broken) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn say(&mut self, id: InstanceId, line: String) {
        self.observer.event(&Event::Said { id, line });
    }

    fn may_start(&self) -> bool {
        !self.summary.interrupted && (self.plan.options.keep_going || self.summary.failed.is_empty())
    }

    fn pass_on_stop(&mut self) {
        let level = self.plan.options.stop.load(Ordering::Relaxed);
        if level > self.told {
            self.tell(level);
        }
    }

    /// Asks what runs to stop, or ends it.
    fn tell(&mut self, level: usize) {
        self.told = level;
        self.summary.interrupted = true;
        for Process { running, .. } in self.processes.values_mut() {
            if level == 1 { running.stop() } else { running.kill() }
        }
    }

    fn judge_what_is_ready(&mut self) {
        loop {
            while self.may_start()
                && let Some(id) = self.ready.pop_first()
            {
                self.judge(id);
                self.pass_on_stop();
            }
            if !std::mem::take(&mut self.adopted) {
                break;
            }
            // What was adopted may be what others were to make, or hold what was damaged in the cache.
            let Plan { project, forced, .. } = &self.plan;
            let store = &project.store;
            let back = |(id, recipe): (&InstanceId, &Recipe)| {
                (!forced.contains(id) && store.restorable(recipe.digest()).is_some()).then_some(*id)
            };
            let back: Vec<_> = self.queued.iter().filter_map(back).collect();
            for id in back {
                self.queued.remove(&id);
                self.ready.insert(id);
            }
        }
        for (id, damage) in std::mem::take(&mut self.damaged) {
            let how =
                if self.trees[id].is_some() { "another result gave it back" } else { "it is made again" };
            self.observer.event(&Event::Said { id, line: format!("{damage}; {how}") });
        }
    }

    fn judge(&mut self, id: InstanceId) {
        let (project, pipeline) = (self.plan.project, self.plan.pipeline);
        let needs = &pipeline.instances[id].needs;
        let inputs: Vec<_> = needs.iter().filter_map(|need| self.trees[need.from]).collect();
        let seen = &self.plan.seen[id];
        let locked = self.plan.locked.get(&pipeline.instances[id].name);
        // A stage may read what was published.
        let foreseen = seen.foreseen(&inputs).filter(|_| !self.started && !self.summary.published);
        let recipe = project.recipe(pipeline, id, &inputs, foreseen, locked, &mut self.state);
        let judged = project.judge_one(recipe, seen, locked, &self.state);
        let Some(recipe) = judged.recipe else {
            let message = match judged.standing {
                Standing::Stale(whys) => whys.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                _ => "its recipe cannot be made".to_owned(),
            };
            return self.fail(id, StageError::new(message).hint(READABLE));
        };
        match judged.standing {
            _ if self.plan.forced.contains(&id) => drop(self.queued.insert(id, recipe)),
            Standing::Fresh => {
                if let Some(entry) = judged.found {
                    self.adopt(id, &recipe, entry);
                }
                self.trees[id] = judged.tree;
                if self.settle(id) {
                    self.observer.event(&Event::Fresh { id });
                    self.summary.fresh.push(id);
                }
            }
            Standing::Restorable(_) => self.restore(id, recipe),
            Standing::Locked => self.take(id, judged.tree),
            Standing::Stale(_) | Standing::Waiting(_) => self.queue(id, recipe),
        }
        // Forced, or damaged in the cache: without what it reads it would make something else of the same recipe.
        if let Some(why) = judged.missing.filter(|_| self.queued.remove(&id).is_some()) {
            self.fail(id, StageError::new(why.to_string()).hint(READABLE));
        }
    }

    /// It is to run once resources allow, unless nothing is; from where somebody else had to leave it, if that is known.
    fn queue(&mut self, id: InstanceId, recipe: Recipe) {
        let Plan { project, pipeline, seen, .. } = self.plan;
        let counts = || project.goes_on(pipeline, id, recipe.digest(), seen, &self.state);
        match project.store.bring_attempt(recipe.digest(), counts) {
            Ok(Brought::Nothing) => {}
            Ok(Brought::Attempt) => self.observer.event(&Event::Brought { id }),
            Ok(Brought::Later(here)) => {
                let line = format!(
                    "what somebody pushed of it was written later; to go on from that, move `{}` away and run again",
                    here.display()
                );
                self.say(id, line);
            }
            Err(error) => {
                let line = format!("what it could go on from stays where it is: {error}");
                self.say(id, line);
            }
        }
        if !self.plan.options.restore_only {
            self.queued.insert(id, recipe);
        }
    }

    fn restore(&mut self, id: InstanceId, recipe: Recipe) {
        if let Found::Spoilt(_, why) = &self.plan.seen[id].found {
            self.say(id, format!("{why}; the result is restored"));
        }
        let store = &self.plan.project.store;
        let restored = store.restorable(recipe.digest()).map(|record| store.restore(&record));
        match restored {
            Some(Ok((draft, entry))) => {
                store.used(recipe.digest());
                store.forget_attempts(recipe.digest()); // what somebody else brought to its end
                let said = match self.show(id, draft, entry, None) {
                    Ok(said) => said,
                    Err(error) => return self.not_shown(id, error),
                };
                if self.settle(id) {
                    self.observer.event(&Event::Restored { id });
                    self.summary.restored.push(id);
                }
                said.into_iter().for_each(|line| self.say(id, line));
            }
            Some(Err(error @ (EngineError::Damaged { .. } | EngineError::Beside { .. })))
                if !self.plan.options.restore_only =>
            {
                self.damaged.insert(id, error);
                self.queue(id, recipe);
            }
            Some(Err(error)) => self.fail(id, error.into()),
            None => self.queue(id, recipe),
        }
    }

    /// What a result that was taken lacks here. All others are whole, and the index knows them.
    fn absent(&self, id: InstanceId) -> Vec<String> {
        let Plan { project, pipeline, seen, locked, .. } = &self.plan;
        let key = &seen[id].key;
        let taken =
            locked.get(&pipeline.instances[id].name).filter(|_| !self.state.results.contains_key(key));
        taken.map_or_else(Vec::new, |locked| locked.absent(&project.store.shown(key)))
    }

    /// The inputs of an instance, by role.
    fn inputs(&self, id: InstanceId) -> BTreeMap<String, Vec<Input>> {
        let Plan { project, pipeline, seen, .. } = &self.plan;
        let mut inputs = BTreeMap::<String, Vec<Input>>::new();
        for need in &pipeline.instances[id].needs {
            let from = &pipeline.instances[need.from];
            let dir = project.store.shown(&seen[need.from].key);
            let (axes, absent) = (from.axes.clone(), self.absent(need.from));
            let input = Input { instance: from.name.clone(), axes, dir, absent };
            inputs.entry(need.role.clone()).or_default().push(input);
        }
        inputs
    }

    /// An instance that is about to start, and what its process is to hold.
    fn member(
        &mut self,
        id: InstanceId,
        recipe: &Recipe,
        reads: &Reads,
        share: &Grant,
    ) -> Result<Held, EngineError> {
        let inputs = self.inputs(id);
        let anew = self.begins_anew(id, recipe.digest());
        let Plan { project, pipeline, options, .. } = &self.plan;
        let instance = &pipeline.instances[id];
        let draft = project.store.begin()?;
        let order = Order {
            kind: instance.kind.name().to_owned(),
            instance: instance.name.clone(),
            axes: instance.axes.clone(),
            params: instance.params.clone(),
            inputs,
            out: draft.path().to_owned(),
            scratch: project.store.scratch(recipe.digest()),
            project: project.root.clone(),
            // A command may hold none.
            resources: Resources { threads: share.resources.threads.max(1), ..share.resources },
            offline: options.offline,
            elsewhere: options.launcher.is_some(),
        };
        if !self.started {
            self.started = true;
            let (machine, root, versions) =
                (Arc::clone(&self.machine), project.root.clone(), options.versions.clone());
            // Asking git may take longer than a small stage.
            let look = move || drop(machine.set(Machine::look(&root, &versions)));
            if std::thread::Builder::new().spawn(look.clone()).is_err() {
                look();
            }
        }
        let reads = Project::built_on(reads);
        let log = project.log(pipeline, id);
        let member = Member { id, order, recipe: recipe.clone(), reads, anew, log, draft };
        member.hold(&project.store, instance.kind.command(&instance.params).is_some())
    }
}
