//! What starts when: in the order of the pipeline, as far as resources last, and together where a kind
//! lets several share a process. Knows nothing of how a stage works.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Plan, Process, Reads, Run, Started, finish::QUIET};
use crate::{
    digest::Digest,
    error::EngineError,
    instance::{Instance, InstanceId, Resources},
    kind::{Group, StageError, TAKEN},
    look::look,
    observer::Event,
    process::Running,
    project::lacking,
    recipe::Recipe,
    resources::Grant,
    share::is_empty,
    task::{Held, Task},
};

/// Who is judged again so soon reads something that does not stay the same.
const OFTEN: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Starts what is queued and fits. What could share a process waits for its like, unless nothing else
    /// is going on that they could be waiting for.
    pub(super) fn start_what_fits(&mut self) {
        self.start_queued(true);
        if self.processes.is_empty() {
            self.start_queued(false);
        }
    }

    fn start_queued(&mut self, patient: bool) {
        let mut next = self.queued.keys().next().copied();
        while let Some(id) = next
            && self.may_start()
            && !self.pool.exhausted()
        {
            self.start_queued_one(id, patient);
            self.pass_on_stop(); // to start one may take long, where an earlier run left something behind
            next = self.queued.range(id + 1..).next().map(|(&id, _)| id);
        }
    }

    fn start_queued_one(&mut self, id: InstanceId, patient: bool) {
        if self.queued.get(&id).is_some_and(|recipe| self.making.contains(&recipe.digest())) {
            self.queued.remove(&id);
            self.held.insert(id);
            return;
        }
        let wanted = self.wanted(id);
        if wanted.gpus > self.pool.gpus() {
            self.queued.remove(&id);
            let (count, s) = (wanted.gpus, if wanted.gpus == 1 { "" } else { "s" });
            let message = format!("it wants {count} GPU{s}, and {} can be seen", self.pool.gpus());
            self.fail(id, StageError::new(message).hint("lower `gpus` in its `resources`"));
            return;
        }
        if !self.pool.fits(wanted) {
            return;
        }
        let group = self.group(id);
        let waits = |group: &Group| !self.is_full(id, group) && self.more_to_come(id, group);
        if patient && group.as_ref().is_some_and(waits) {
            return;
        }
        let mut members = group.map_or_else(|| vec![id], |group| self.members(id, &group, wanted));
        let mut reads = Vec::new();
        members.retain(|&member| match self.about_to_read(member) {
            Ok(Some(known)) => {
                reads.push(known);
                true
            }
            Ok(None) => {
                self.queued.remove(&member);
                self.ready.insert(member);
                false
            }
            Err(error) => {
                self.queued.remove(&member);
                self.fail(member, error);
                false
            }
        });
        let wanted = members.iter().map(|&id| Resources { threads: self.threads(id), ..self.wanted(id) });
        let wanted = wanted.reduce(|a, b| Resources {
            threads: a.threads.max(b.threads),
            gpus: a.gpus.max(b.gpus),
            memory: a.memory.saturating_add(b.memory),
        });
        let Some(share) = wanted.and_then(|wanted| self.pool.take(wanted)) else { return };
        let taken = members.iter().filter_map(|&id| Some((id, self.queued.remove(&id)?)));
        let mut taken: Vec<(InstanceId, Recipe, Reads)> =
            taken.zip(reads).map(|((id, recipe), reads)| (id, recipe, reads)).collect();
        let mut members = Vec::new();
        taken.retain(|(id, recipe, reads)| match self.member(*id, recipe, reads, &share) {
            Ok(member) => {
                members.push(member);
                true
            }
            Err(error) => {
                self.cannot_start(*id, recipe, error.into());
                false
            }
        });
        if members.is_empty() {
            return self.pool.give(share);
        }
        let (running, listener) = match self.start_process(members, &share) {
            Ok(started) => started,
            Err(error) => {
                // Its environment may be at fault, or what else fills the disk; others have another.
                let error = StageError::from(error);
                self.pool.give(share);
                taken.iter().for_each(|(id, recipe, _)| self.cannot_start(*id, recipe, error.clone()));
                return;
            }
        };
        let first = taken[0].0;
        self.processes.insert(first, Process { running, listener, share, left: taken.len() });
        for (member, recipe, reads) in taken {
            self.observer.event(&Event::Started { id: member });
            self.making.insert(recipe.digest());
            let sure = self.as_remembered(member, &reads);
            self.running.insert(member, Started { first, recipe, reads, sure });
        }
    }

    fn cannot_start(&mut self, id: InstanceId, recipe: &Recipe, error: StageError) {
        self.plan.project.store.note_failure(recipe.digest(), &error.message);
        self.fail(id, error);
    }

    /// Starts the process of these stages, which share it.
    fn start_process(
        &mut self,
        members: Vec<Held>,
        share: &Grant,
    ) -> Result<(Running, JoinHandle<()>), EngineError> {
        let Instance { kind, params, .. } = &self.plan.pipeline.instances[members[0].member.id];
        let command = kind.command(params);
        // A command may know better than the pipeline file what it uses.
        let some = if self.pool.is_elsewhere() { share.resources.gpus == 0 } else { self.pool.gpus() > 0 };
        let hide = some && command.is_none();
        let (gpus, launcher) = (share.gpus.clone(), self.plan.options.launcher.clone());
        let task = Task { members, command, gpus, hide, program: self.program.clone(), launcher };
        task.start(Arc::clone(&self.plan.project.store), self.sender.clone())
    }

    /// Is what an earlier attempt left for this one of no use? That may be hours of work, so it is said.
    pub(super) fn begins_anew(&mut self, id: InstanceId, recipe: Digest) -> bool {
        let Plan { project, pipeline, seen, forced, .. } = &self.plan;
        let forced = forced.contains(&id);
        let anew = forced || !project.goes_on(pipeline, id, recipe, seen, &self.state);
        if anew && !is_empty(&project.store.scratch(recipe)) {
            let why = if forced {
                "it is forced"
            } else {
                "what it reads may have been touched before that had ended"
            };
            let line =
                format!("it begins anew, though an earlier attempt left something to go on from: {why}");
            self.say(id, line);
        }
        anew
    }

    /// What an instance reads, and what that is known by. Inputs that somebody changed since this run looked at them
    /// are what was made again, or it must not start: its recipe would tell of others. Nothing where its files are no
    /// longer what its recipe says, which may have been made hours ago: then it is to be judged again.
    fn about_to_read(&mut self, id: InstanceId) -> Result<Option<Reads>, StageError> {
        let Plan { project, pipeline, seen, .. } = self.plan;
        if let Some(why) = lacking(pipeline, id, seen, |from| self.absent(from)) {
            return Err(StageError::new(why.to_string()).hint(TAKEN));
        }
        let needs = &pipeline.instances[id].needs;
        // What changes again after this was taken down is noticed when the stage has ended.
        let mut reads = project.reads(pipeline, id, seen, &self.state);
        let mut restored = false;
        for need in needs {
            restored |= self.input_as_made(id, need.from)?;
        }
        if restored {
            reads = project.reads(pipeline, id, seen, &self.state);
        }
        if reads.len() == needs.len() {
            return Ok(Some(reads));
        }
        let inputs: Vec<_> = needs.iter().filter_map(|need| self.trees[need.from]).collect();
        let now = project.recipe(pipeline, id, &inputs, None, None, &mut self.state);
        if now.is_ok_and(|(now, _)| self.queued.get(&id) == Some(&now)) {
            return Ok(Some(reads));
        }
        match self.again.insert(id, Instant::now()) {
            Some(last) if last.elapsed() < OFTEN => {
                let message = "what it reads is being changed all the time";
                Err(StageError::new(message).hint(QUIET))
            }
            _ => Ok(None),
        }
    }

    /// Restores the result of `id`, which `reader` is about to read, if it is no longer what was made; did it have to?
    fn input_as_made(&mut self, reader: InstanceId, id: InstanceId) -> Result<bool, StageError> {
        let (store, key) = (&self.plan.project.store, &self.plan.seen[id].key);
        let Some(entry) = self.state.results.get(key) else {
            return match self.no_longer_taken(id) {
                None => Ok(false),
                Some(place) => {
                    let message = format!("its input `{}` is no longer what was taken", place.display());
                    Err(StageError::new(message).hint("run again: it is judged anew"))
                }
            };
        };
        let found = look(&store.shown(key), entry).0;
        let Some(path) = found.spoilt() else { return Ok(false) };
        let problem = format!("`{}` is no longer what was made", path.display());
        let because = |error: EngineError| format!(": {error}");
        let unusable = |why: &str| {
            let message = format!("its input {problem}{why}");
            StageError::new(message)
                .hint("run again: it is restored or made anew; if that happens again, a stage writes into what it reads")
        };
        // What the reader's recipe names: elsewhere the same recipe may have come to other bytes by now, and its record
        // tells of those.
        let drawn = store.draw(entry.recipe, &entry.outputs());
        let (draft, entry) = drawn.map_err(|error| unusable(&because(error)))?;
        let said = self.show(id, draft, entry, None);
        // Who made it has done its part: it is the reader that cannot go on.
        let said = said.map_err(|error| unusable(&because(error)))?;
        // Who made it may have a line of its own that is still to come: the reader says it.
        let line = format!("its input {problem}; the result is restored");
        for line in std::iter::once(line).chain(said) {
            self.say(reader, line);
        }
        Ok(true)
    }

    /// Where the result of `id` lies, if it was taken on the lock file's word and is no longer what that says.
    pub(super) fn no_longer_taken(&self, id: InstanceId) -> Option<PathBuf> {
        let Plan { project, pipeline, seen, locked, .. } = &self.plan;
        let place = project.store.shown(&seen[id].key);
        let locked = locked.get(&pipeline.instances[id].name)?;
        (locked.partly(locked.recipe, &place) != self.trees[id]).then_some(place)
    }

    /// Is all that is no input what is remembered of it?
    fn as_remembered(&self, id: InstanceId, reads: &Reads) -> bool {
        let Instance { kind, params, needs, .. } = &self.plan.pipeline.instances[id];
        let files = kind.files(params);
        reads[needs.len()..].iter().zip(files).all(|((_, known_by), path)| {
            let remembered = self.state.memo.remembered(&path).map(|what| what.known_by());
            known_by.is_some() && *known_by == remembered
        })
    }

    /// What an instance is to occupy at least.
    fn wanted(&self, id: InstanceId) -> Resources {
        let Instance { kind, params, resources, .. } = &self.plan.pipeline.instances[id];
        let gpus = resources.gpus.max(kind.gpus(params).min(self.pool.gpus()));
        let least = self.pool.least(kind.command(params).is_some());
        Resources { gpus, threads: resources.threads.max(least), ..*resources }
    }

    /// The threads that an instance gets which starts now: where its resources do not say how many, its part of those that
    /// are free. Others of its kind that are yet to start and need not wait for it get the other parts, and one thread is
    /// left for other kinds where there are many.
    fn threads(&self, id: InstanceId) -> usize {
        let instances = &self.plan.pipeline.instances;
        let Instance { kind, params, resources, .. } = &instances[id];
        let (least, most) = (self.wanted(id), kind.threads(params));
        if resources.threads > 0 || least.gpus > 0 || most <= 1 || self.pool.is_elsewhere() {
            return least.threads;
        }
        let mut later = BTreeSet::from([id]);
        let mut last = vec![id];
        while let Some(from) = last.pop() {
            last.extend(self.dependents[from].iter().filter(|&&next| later.insert(next)));
        }
        let waiting = self.queued.keys().chain(self.blocked.keys()).chain(&self.ready);
        let (mut parts, mut others) = (1, false);
        for other in waiting.filter(|id| !later.contains(id)) {
            let like = instances[*other].kind.name() == kind.name();
            parts += usize::from(like);
            others |= !like;
        }
        self.pool.spare(parts, others).min(most)
    }

    fn group(&self, id: InstanceId) -> Option<Group> {
        let Instance { kind, params, .. } = &self.plan.pipeline.instances[id];
        if kind.command(params).is_some() {
            return None;
        }
        kind.group(params).filter(|group| group.most > 1)
    }

    /// Is it one of the group that `id` is of?
    fn goes_with(&self, other: InstanceId, id: InstanceId, group: &Group) -> bool {
        let instances = &self.plan.pipeline.instances;
        instances[other].kind.name() == instances[id].kind.name()
            && self.wanted(other).gpus == self.wanted(id).gpus
            && self.group(other).is_some_and(|other| other.key == group.key)
    }

    /// The queued instance `id` and those that go with it. Where several GPUs are free, each gets its part.
    fn members(&self, id: InstanceId, group: &Group, wanted: Resources) -> Vec<InstanceId> {
        let mut recipes = self.making.clone();
        let mut members = Vec::new();
        for (&other, recipe) in self.queued.range(id..) {
            // One that does not fit holds up none that does. Of two that are the same, one runs; the other is held until
            // then.
            let goes = self.goes_with(other, id, group) && self.pool.fits(self.wanted(other));
            if goes && recipes.insert(recipe.digest()) {
                members.push(other);
            }
        }
        let part = members.len().div_ceil(self.pool.parts(wanted));
        let room = self.pool.room(members.iter().map(|&member| self.wanted(member).memory));
        members.truncate(part.min(group.most).min(room));
        members
    }

    /// Are as many queued as may go together? Then more would have to wait anyhow.
    fn is_full(&self, id: InstanceId, group: &Group) -> bool {
        let queued = self.queued.keys().filter(|&&other| self.goes_with(other, id, group));
        queued.take(group.most).count() == group.most
    }

    /// Will another of its group be ready as soon as what runs or is queued has ended?
    fn more_to_come(&self, id: InstanceId, group: &Group) -> bool {
        let instances = &self.plan.pipeline.instances;
        self.blocked.keys().any(|&other| {
            let coming = |from: InstanceId| {
                self.trees[from].is_some()
                    || self.running.contains_key(&from)
                    || self.queued.contains_key(&from)
            };
            instances[other].needs.iter().all(|need| coming(need.from)) && self.goes_with(other, id, group)
        })
    }
}
