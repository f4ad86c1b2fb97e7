//! What follows when an instance's result is there, or is not: it is shown, published and made lasting,
//! and what waited for it is released. Knows nothing of what starts when.

use std::{
    collections::btree_map,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Ended, Plan, Run, Started};
use crate::{
    commit::Commit,
    digest::Digest,
    error::EngineError,
    held::is_held,
    instance::{Instance, InstanceId},
    kind::StageError,
    look::look,
    observer::Event,
    plan::Why,
    project::Project,
    publish::{Change, publish},
    recipe::{Recipe, changes},
    record::Record,
    share::is_empty,
    show::Old,
    state::Entry,
    store::{Draft, UNTOUCHED, lock_of},
    task::{Done, Made},
};

impl Run<'_> {
    /// Shows a result; says what had to make way. Where it cannot be shown the cache still keeps it, and whoever wanted
    /// it shown has failed.
    pub(super) fn show(
        &mut self,
        id: InstanceId,
        draft: Draft,
        entry: Entry,
        record: Option<Record>,
    ) -> Result<Vec<String>, EngineError> {
        let key = self.plan.seen[id].key.clone();
        let (entry, said) = match self.put(id, draft, entry) {
            Ok((entry, said)) => {
                self.trees[id] = Some(entry.tree);
                self.state.results.insert(key.clone(), entry.clone());
                (Some(entry), Ok(said))
            }
            Err(error) => (None, Err(error)),
        };
        if entry.is_some() || record.is_some() {
            self.committer.commit(Commit { key, entry, record });
        }
        said
    }

    /// The result of an instance could not be shown: what lies in its place is of no result.
    pub(super) fn not_shown(&mut self, id: InstanceId, error: EngineError) {
        self.state.results.remove(&self.plan.seen[id].key);
        self.fail(id, error.into());
    }

    /// Puts a result in its place. Results in that place are those of a stage whose axes the file no longer has.
    fn put(
        &mut self,
        id: InstanceId,
        draft: Draft,
        mut entry: Entry,
    ) -> Result<(Entry, Vec<String>), EngineError> {
        let (store, key) = (&self.plan.project.store, &self.plan.seen[id].key);
        let locked = self.plan.locked.get(&self.plan.pipeline.instances[id].name);
        let old = Old { shown: self.state.results.get(key), locked };
        let kept = store.show(draft, key, &mut entry, old)?;
        let mut said: Vec<_> = kept.map(told).into_iter().collect();
        let (first, last) = (format!("{key}/"), format!("{key}0")); // `0` follows `/`
        let inside: Vec<_> = self.state.results.range(first..last).map(|(key, _)| key.clone()).collect();
        for key in inside {
            if let Some(inner) = self.state.results.remove(&key) {
                store.used(inner.recipe);
                let place = store.shown(&key);
                said.push(format!("the result in `{}` made way; the cache keeps it", place.display()));
                self.committer.commit(Commit { key, entry: None, record: None });
            }
        }
        Ok((entry, said))
    }

    /// Notes a result that somebody else put in its place. The cache gets it too, as far as there is room.
    pub(super) fn adopt(&mut self, id: InstanceId, recipe: &Recipe, entry: Entry) {
        let Plan { project, pipeline, seen, .. } = self.plan;
        let key = seen[id].key.clone();
        if let Err(error) =
            project.store.adopt(recipe, &pipeline.instances[id].name, &project.store.shown(&key), &entry)
        {
            let line = format!("it is taken as it lies there, and the cache lacks it: {error}");
            self.say(id, line);
        }
        self.state.results.insert(key.clone(), entry.clone());
        self.committer.commit(Commit { key, entry: Some(entry), record: None });
        self.adopted = true;
    }

    /// Takes the lock file's word for a result of which files are missing.
    pub(super) fn take(&mut self, id: InstanceId, tree: Option<Digest>) {
        // What lies there is not what the index knows.
        let key = &self.plan.seen[id].key;
        if self.state.results.remove(key).is_some() {
            self.committer.commit(Commit { key: key.clone(), entry: None, record: None });
        }
        self.trees[id] = tree;
        if self.settle(id) {
            self.observer.event(&Event::Taken { id });
            self.summary.taken.push(id);
        }
    }

    /// Its result is known and shown: publish it and release what waited for it. No, where it cannot be published:
    /// then it has failed, and holds up what waits until a run succeeds with that.
    pub(super) fn settle(&mut self, id: InstanceId) -> bool {
        let instance = &self.plan.pipeline.instances[id];
        if instance.kind.publishes(&instance.params).is_some() {
            let result = self.plan.project.store.shown(&self.plan.seen[id].key);
            let Project { root, store } = self.plan.project;
            let remove = |path: &Path| store.put_away(path, root);
            let mut tell = |path: PathBuf, change: Change| {
                self.summary.published = true;
                let kept = if let Change::Removed(Some(kept)) = &change { Some(kept.clone()) } else { None };
                let line = kept.map(|kept| told((path.clone(), kept)));
                self.observer.event(&Event::Published { id, path, change });
                // While it runs, what is only said of it may not be shown.
                line.into_iter().for_each(|line| self.observer.event(&Event::Warned { id, line }));
            };
            let published = publish(&*instance.kind, &instance.params, &result, root, &remove, &mut tell);
            if let Err(error) = published {
                self.fail(id, error);
                return false;
            }
        }
        for dependent in std::mem::take(&mut self.dependents[id]) {
            if let Some(count) = self.blocked.get_mut(&dependent) {
                *count -= 1;
                if *count == 0 {
                    self.blocked.remove(&dependent);
                    self.ready.insert(dependent);
                }
            }
        }
        true
    }

    pub(super) fn done(&mut self, id: InstanceId, Done { result, seconds, told }: Done) {
        let Some(started) = self.running.remove(&id) else { return };
        let (first, recipe) = (started.first, &started.recipe);
        if let btree_map::Entry::Occupied(mut process) = self.processes.entry(first) {
            process.get_mut().left -= 1;
            if process.get().left == 0 {
                self.pool.give(process.remove().share);
            }
        }
        let instance = &self.plan.pipeline.instances[id];
        // A command that ends when it is told to, well or not, has stopped; others say whether they have. What had ended
        // before may have waited here while something large was restored.
        let stops = told && instance.kind.command(&instance.params).is_some();
        let made = match result {
            Ok(made) if !stops => *made,
            unfinished => {
                self.keep_attempt(id, &started);
                self.release(&[recipe.digest()]);
                match unfinished {
                    Err(error) if !(stops || error.interrupted || told && self.told > 1) => {
                        self.plan.project.store.note_failure(recipe.digest(), &error.message);
                        self.fail(id, error);
                    }
                    Ok(_) | Err(_) => {
                        self.summary.stopped.push(id);
                        self.observer.event(&Event::Stopped { id });
                    }
                }
                return;
            }
        };
        let Made { draft, entry, record, differs, dropped } = made;
        if let Some((now, what)) = self.moved_meanwhile(id, &started) {
            self.release(&[recipe.digest()]);
            self.show_unrecorded(id, now, draft, entry, &what);
            return;
        }
        let shown = self.show(id, draft, entry, Some(record));
        let mut notes = match shown {
            Ok(said) => said,
            Err(error) => return self.not_shown(id, error),
        };
        if let Some(why) = differs {
            self.unequal.insert(id);
            notes.push(format!("the same recipe once made other bytes: {why}"));
        }
        if !dropped.is_empty() {
            notes.push(format!("not among its `outputs`, and so dropped: {}", dropped.join(", ")));
        }
        if self.settle(id) {
            let number = self.summary.ran.len();
            self.ended.insert(recipe.digest(), Ended { id, number, seconds, notes });
            self.summary.ran.push(id);
        } else {
            notes.into_iter().for_each(|line| self.say(id, line));
        }
    }

    /// What it left to go on from is built on what its recipe says, if nobody touched that until it ended; then it no
    /// longer matters who does.
    fn keep_attempt(&mut self, id: InstanceId, started: &Started) {
        let Plan { project, pipeline, options, .. } = &self.plan;
        let Instance { kind, params, .. } = &pipeline.instances[id];
        let scratch = project.store.scratch(started.recipe.digest());
        let lock = lock_of(&scratch);
        // Who is left over, or may be on another machine, may still write into it. What another thread is just starting has
        // all that is open here for a moment, too.
        let is_over = || {
            let let_go = |_| {
                !is_held(&lock) || {
                    std::thread::sleep(Duration::from_millis(10));
                    false
                }
            };
            options.launcher.is_none() && (0..5).any(let_go)
        };
        if kind.command(params).is_some()
            && !is_empty(&scratch)
            && is_over()
            && self.moved_meanwhile(id, started).is_none()
        {
            // Best effort: where it cannot be noted, who touches it still matters.
            let _ = fs::write(lock, UNTOUCHED);
        }
    }

    /// What the stage read, if it is no longer what its recipe says, or was something else in between: what its `reads`
    /// were known by when it began tells. With it the recipe that holds now.
    fn moved_meanwhile(&mut self, id: InstanceId, started: &Started) -> Option<(Digest, String)> {
        let Started { recipe, reads, sure, .. } = started;
        let Plan { project, pipeline, seen, .. } = &self.plan;
        let now = project.reads(pipeline, id, seen, &self.state);
        let touched = now.into_iter().zip(reads).find(|(now, then)| now != *then).map(|((path, _), _)| path);
        if touched.is_none() && *sure {
            return None;
        }
        let needs = &pipeline.instances[id].needs;
        for need in needs {
            let key = &seen[need.from].key;
            let Some(entry) = self.state.results.get(key) else {
                let Some(place) = self.no_longer_taken(need.from) else { continue };
                return Some((recipe.digest(), format!("its input `{}`", place.display())));
            };
            let (found, _) = look(&project.store.shown(key), entry);
            if let Some(path) = found.spoilt() {
                return Some((recipe.digest(), format!("its input `{}`", path.display())));
            }
        }
        let inputs: Vec<_> = needs.iter().filter_map(|need| self.trees[need.from]).collect();
        match project.recipe(pipeline, id, &inputs, None, None, &mut self.state) {
            Ok((now, _)) if now == *recipe => {
                let path = touched?;
                let path = path.strip_prefix(&project.root).unwrap_or(&path);
                let what = format!(
                    "`{}` was written to, linked or given another mode, though it is the same now",
                    path.display()
                );
                Some((recipe.digest(), what))
            }
            Ok((now, _)) => {
                let mut why = Why::Changed(changes(recipe.text(), now.text()).into_iter().take(1).collect());
                self.state.memo.name_files(&mut why);
                Some((now.digest(), why.to_string()))
            }
            Err(why) => Some((recipe.digest(), why.to_string())),
        }
    }

    /// Shows a result of which nobody knows what it was made from, and keeps no record of it. Who asks for the recipe
    /// that holds `now` is told.
    fn show_unrecorded(&mut self, id: InstanceId, now: Digest, draft: Draft, entry: Entry, what: &str) {
        let key = self.plan.seen[id].key.clone();
        let said = match self.put(id, draft, entry) {
            Ok((_, said)) => said,
            Err(error) => return self.fail(id, error.into()),
        };
        self.state.results.remove(&key);
        self.committer.commit(Commit { key, entry: None, record: None });
        let message =
            format!("what it reads changed while it ran ({what}); its result is shown, but does not count");
        said.into_iter().for_each(|line| self.say(id, line));
        self.plan.project.store.note_failure(now, &message);
        self.fail(id, StageError::new(message).hint(QUIET));
    }

    /// The recipes are no longer being made: those that waited for them are judged again.
    pub(super) fn release(&mut self, recipes: &[Digest]) {
        for recipe in recipes {
            self.making.remove(recipe);
        }
        self.ready.append(&mut self.held);
    }

    pub(super) fn fail(&mut self, id: InstanceId, error: StageError) {
        self.summary.damaged |= error.integrity;
        self.summary.failed.push(id);
        self.observer.event(&Event::Failed { id, message: error.message, hint: error.hint });
    }
}

/// What to do where inputs change while they are read.
pub(super) const QUIET: &str = "run again once nothing changes it; a stage that writes into what it reads must not: let it write to \
                     its output folder, or read less";

/// Says what had to make way for a result, and where it is now.
fn told((path, kept): (PathBuf, PathBuf)) -> String {
    format!("`{}` is of no result; what was there is kept in `{}`", path.display(), kept.display())
}
