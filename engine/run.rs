//! A run from its beginning to its end: what is wanted, the lock, the index, the lock file; and the
//! dry run. Knows nothing of processes and of how events are shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
};

use crate::{
    digest::Digest,
    error::EngineError,
    idle::{self, Question},
    instance::{InstanceId, Pipeline},
    judge::{Adopted, Judged},
    launcher::Launcher,
    lock::{Lock, refuse_foreign},
    lockfile::{self, Locked},
    observer::{Event, Observer},
    place::{read_plain, write_whole},
    plan::{Standing, Why},
    project::{Project, Seen, lacking},
    recipe::Recipe,
    schedule::{Outcome, Plan, schedule},
    state::State,
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
    /// Take the lock file's word for results of today's recipes of which files are missing, where those that are there
    /// are what it says.
    pub allow_missing: bool,
    /// Run nothing; show what can be restored.
    pub restore_only: bool,
    /// Ask the stages not to use the network.
    pub offline: bool,
    /// The program to start as `exe __stage`.
    pub exe: PathBuf,
    /// What starts the processes of stages elsewhere, of which `jobs` says how many at once.
    pub launcher: Option<Launcher>,
    /// Versions to note in the records: of the program and of what decides its results.
    pub versions: BTreeMap<String, String>,
    /// What the run is asked, where the next run may be asked the same: see [`crate::idle`].
    pub question: Option<Question>,
    /// 0: go on; 1: stop safely; 2: stop at once.
    pub stop: Arc<AtomicUsize>,
}

/// What a run did. The lists are in the pipeline's order, whichever instance was the first to end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Nothing to do for these.
    pub fresh: Vec<InstanceId>,
    /// Ran to their end.
    pub ran: Vec<InstanceId>,
    /// Came from the cache.
    pub restored: Vec<InstanceId>,
    /// Files are missing, and the lock file's word was taken.
    pub taken: Vec<InstanceId>,
    /// Failed.
    pub failed: Vec<InstanceId>,
    /// Were running when the run was asked to stop.
    pub stopped: Vec<InstanceId>,
    /// Wanted, but not reached: behind a failure, an interruption, or what was not to run.
    pub skipped: Vec<InstanceId>,
    /// Was the run asked to stop?
    pub interrupted: bool,
    /// Was a failure one of damaged data?
    pub damaged: bool,
    /// Did a file of the project change, for a result that it shows?
    pub published: bool,
}

impl Summary {
    /// The exit code of a program whose run this was.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self { interrupted: true, .. } => 130,
            Self { damaged: true, .. } => 3,
            Self { failed, .. } if !failed.is_empty() => 1,
            Self { stopped, .. } if !stopped.is_empty() => 130,
            _ => 0,
        }
    }
}

impl Project {
    /// Brings the targets up to date.
    ///
    /// # Errors
    /// When another run is under way, the cache is also that of another project, or [`RunOptions::only`] would read
    /// what is not up to date; when the index or the lock file cannot be read, or what is finished cannot be made
    /// lasting. A stage that fails is no error but a part of the summary.
    pub fn run(
        &self,
        pipeline: &Pipeline,
        options: &RunOptions,
        observer: &mut dyn Observer,
    ) -> Result<Summary, EngineError> {
        let (wanted, forced) = (wanted(pipeline, options), forced(pipeline, options));
        let _lock = Lock::take(self.store.cache())?;
        if !self.only_here()? {
            let root = self.root.as_os_str().as_encoded_bytes();
            write_whole(&self.store.cache().join("project"), root)?; // a project may move
        }
        self.store.sweep();
        let mut state = State::load(self.store.cache())?;
        let journal = state.journal(self.store.cache());
        lockfile::check(pipeline, &state)?;
        let seen = self.look_all(pipeline, (!options.only).then_some(&wanted), &mut state);
        let asked = options.question.as_ref().filter(|_| options.targets.is_empty());
        let asked = asked.and_then(|question| Some((question, idle::reads(pipeline, &state.memo)?)));
        let mut trees = vec![None; pipeline.instances.len()];
        let locked = lockfile::believed(pipeline, options.allow_missing, &self.store, &seen)?;
        if options.only {
            let judged = self.judge_all(pipeline, &seen, &locked, &mut state);
            trees = inputs_of_only(pipeline, &wanted, &judged)?;
            self.adopt_all(pipeline, &judged, &seen)?;
        }
        let plan = Plan { project: self, pipeline, options, wanted: &wanted, forced, seen: &seen, locked };
        let Outcome { mut summary, trees, mut state, unequal, journal } =
            schedule(plan, trees, state, journal, observer);
        let Summary { fresh, ran, restored, taken, failed, stopped, .. } = &mut summary;
        let lists = [fresh, ran, restored, taken, failed, stopped];
        let mut settled = BTreeSet::new();
        for list in lists {
            list.sort_unstable();
            settled.extend(list.iter().copied());
        }
        summary.skipped = wanted.difference(&settled).copied().collect();
        let mut current: Vec<_> = trees.iter().map(Option::is_some).collect();
        // The lock file keeps its word where that was taken.
        summary.failed.iter().chain(&summary.taken).for_each(|&id| current[id] = false);
        let journal = journal?;
        let locked = lockfile::write(pipeline, &self.store, &seen, &current, &mut state).map(|others| {
            for id in others.into_iter().filter(|id| !unequal.contains(id)) {
                let line = "the lock file had other bytes for the same recipe".to_owned();
                observer.event(&Event::Said { id, line });
            }
        });
        // The index is kept whatever comes of the lock file; the first error is the one to tell.
        locked.and(state.settle(journal))?;
        if let Some((question, reads)) = asked
            && summary.exit_code() == 0
            && summary.skipped.is_empty()
            && summary.taken.is_empty()
            && idle::reads(pipeline, &state.memo).as_ref() == Some(&reads)
        {
            self.remember_idle(question, pipeline, &seen, &state, &reads);
        }
        Ok(summary)
    }

    /// Refuses a cache that another project has too, by a link: its index says what is shown in one project. Is it noted that
    /// this is the one? Nor is it written to through links, also by who takes no lock.
    pub(crate) fn only_here(&self) -> Result<bool, EngineError> {
        let cache = self.store.cache();
        refuse_foreign(cache)?;
        let note = cache.join("project");
        let root = self.root.as_os_str().as_encoded_bytes();
        let noted = read_plain(&note).unwrap_or_default();
        if noted == root {
            return Ok(true);
        }
        let other = PathBuf::from(OsString::from_vec(noted));
        let same = |other: PathBuf| Some(other.canonicalize().ok()? == cache.canonicalize().ok()?);
        // Whoever moved a project may have left a link in its place.
        let is_this = other.canonicalize().is_ok_and(|other| other == self.root);
        if !other.as_os_str().is_empty() && !is_this && same(other.join(".repro")) == Some(true) {
            return Err(EngineError::user(
                format!("`{}` is also the cache of the project in `{}`", cache.display(), other.display()),
                "give each project a `.repro` of its own: remove the link here, and the next run makes one",
            ));
        }
        Ok(false)
    }

    /// What a run would do: what is wanted, and where it stands. It judges like a run, and reads what one would restore,
    /// so that it is right about that too.
    ///
    /// # Errors
    /// When the index or the lock file cannot be read; as [`run`](Self::run) where [`RunOptions::only`] would read what
    /// is not up to date.
    pub fn dry_run(
        &self,
        pipeline: &Pipeline,
        options: &RunOptions,
    ) -> Result<Vec<(InstanceId, Standing)>, EngineError> {
        let (wanted, forced) = (&wanted(pipeline, options), &forced(pipeline, options));
        let mut state = State::load(self.store.cache())?;
        lockfile::check(pipeline, &state)?;
        let seen = self.look_all(pipeline, None, &mut state);
        let locked = lockfile::believed(pipeline, options.allow_missing, &self.store, &seen)?;
        let mut adopted = Adopted::default();
        if options.only {
            let judged = self.judge_all(pipeline, &seen, &locked, &mut state);
            inputs_of_only(pipeline, wanted, &judged)?;
            for judged in &judged {
                adopted.note(judged);
            }
        }
        loop {
            let judged = self.judge_in_order(pipeline, &seen, &locked, &adopted, &mut state);
            let plan = self.predict(pipeline, &seen, &locked, &adopted, (wanted, forced), &judged);
            let mut more = false;
            for (id, standing) in &plan {
                if !forced.contains(id) && !matches!(standing, Standing::Waiting(_)) {
                    more |= adopted.note(&judged[*id]);
                }
            }
            if !more || !plan.iter().any(|(_, standing)| matches!(standing, Standing::Stale(_))) {
                return Ok(plan);
            }
        }
    }

    /// What a run would do about what is wanted, once it has adopted this.
    fn predict(
        &self,
        pipeline: &Pipeline,
        seen: &[Seen],
        locked: &BTreeMap<String, Locked>,
        adopted: &Adopted,
        (wanted, forced): (&BTreeSet<InstanceId>, &BTreeSet<InstanceId>),
        judged: &[Judged],
    ) -> Vec<(InstanceId, Standing)> {
        let mut plan = Vec::new();
        let mut unknown = vec![false; judged.len()];
        let mut taken = BTreeSet::new();
        let mut first = BTreeMap::new();
        for (id, Judged { standing, recipe, missing, .. }) in judged.iter().enumerate() {
            if !wanted.contains(&id) {
                continue;
            }
            let needs = pipeline.instances[id].needs.iter().map(|need| need.from);
            let waits: BTreeSet<_> = needs.filter(|&from| unknown[from]).collect();
            let mut standing = standing.clone();
            // What is not known yet is not known of what depends on it either.
            let recipe = recipe.as_ref().map(Recipe::digest).filter(|_| waits.is_empty());
            if forced.contains(&id) && (recipe.is_some() || !waits.is_empty()) {
                standing = Standing::Stale(vec![Why::Asked]);
            } else if !waits.is_empty() {
                standing = Standing::Waiting(waits.into_iter().collect());
            } else if matches!(standing, Standing::Restorable(_))
                && let Some(record) =
                    recipe.and_then(|recipe| self.store.restorable_with(recipe, &adopted.objects))
                && let Some(damage) = self.store.damage(&record, &adopted.objects)
            {
                standing = Standing::Stale(vec![Why::CacheDamaged(damage.to_string())]);
            }
            if let (Standing::Stale(_), Some(recipe)) = (&standing, recipe) {
                if let Some(why) = missing {
                    // Without what it reads it would make something else of the same recipe.
                    standing = Standing::Stale(vec![why.clone()]);
                } else {
                    // Of two that are the same, the second is restored once the first has run.
                    let twin = *first.entry(recipe).or_insert(id);
                    if twin != id && !forced.contains(&id) {
                        standing = Standing::Waiting(vec![twin]);
                    }
                }
            }
            let absent = |from: InstanceId| {
                let locked = locked.get(&pipeline.instances[from].name).filter(|_| taken.contains(&from));
                locked.map_or_else(Vec::new, |locked| locked.absent(&self.store.shown(&seen[from].key)))
            };
            if matches!(standing, Standing::Stale(_))
                && let Some(why) = lacking(pipeline, id, seen, absent)
            {
                standing = Standing::Stale(vec![why]);
            }
            if standing == Standing::Locked {
                taken.insert(id);
            }
            // At the end: that a page is to be written needs nothing of the cache.
            let standing = self.published(&pipeline.instances[id], &seen[id], standing);
            unknown[id] = matches!(standing, Standing::Stale(_) | Standing::Waiting(_));
            plan.push((id, standing));
        }
        plan
    }
}

/// The digests of what is shown and fresh; an error when one that is needed, and not wanted, is not.
fn inputs_of_only(
    pipeline: &Pipeline,
    wanted: &BTreeSet<InstanceId>,
    judged: &[Judged],
) -> Result<Vec<Option<Digest>>, EngineError> {
    let fresh = |judged: &Judged| judged.tree.filter(|_| judged.standing == Standing::Fresh);
    let trees: Vec<_> = judged.iter().map(fresh).collect();
    let needs = wanted.iter().flat_map(|&id| &pipeline.instances[id].needs).map(|need| need.from);
    match needs.into_iter().find(|from| !wanted.contains(from) && trees[*from].is_none()) {
        None => Ok(trees),
        Some(from) => Err(EngineError::user(
            format!("`{}` is needed but not up to date", pipeline.instances[from].name),
            "run without `--only`, or add it to what should run",
        )),
    }
}

/// What runs even if it is fresh.
fn forced(pipeline: &Pipeline, options: &RunOptions) -> BTreeSet<InstanceId> {
    match (options.force, options.targets.is_empty()) {
        (false, _) => BTreeSet::new(),
        (true, true) => wanted(pipeline, options),
        (true, false) => options.targets.iter().copied().collect(),
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
