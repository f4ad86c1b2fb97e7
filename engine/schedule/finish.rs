//! What follows when an instance's result is there, or is not: it is shown, published and made lasting,
//! and what waited for it is released. Knows nothing of what starts when.

use std::{collections::btree_map, path::PathBuf};

use super::{Ended, Plan, Run, Started};
use crate::{
    commit::Commit,
    digest::Digest,
    error::EngineError,
    instance::InstanceId,
    kind::StageError,
    look::look,
    observer::Event,
    plan::Found,
    publish::publish,
    recipe::{Recipe, changes},
    record::Record,
    state::Entry,
    store::{Content, Draft},
    task::Made,
};

impl Run<'_> {
    /// Shows a result; says so where something that is of no result had to make way.
    pub(super) fn show(
        &mut self,
        id: InstanceId,
        recipe: Digest,
        tree: Digest,
        draft: Draft,
        mut content: Content,
        record: Option<Record>,
    ) -> Result<Option<String>, EngineError> {
        let key = &self.plan.seen[id].key;
        let kept = self.plan.project.store.show(draft, key, &mut content, self.state.results.get(key))?;
        let entry = Entry { recipe, tree, files: content.files, folders: content.folders };
        self.trees[id] = Some(tree);
        self.state.results.insert(key.clone(), entry.clone());
        self.committer.commit(Commit { key: key.clone(), entry: Some(entry), record });
        Ok(kept.map(told))
    }

    /// Its result is known and shown: publish it and release what waited for it. No, where it cannot be published:
    /// then it has failed, and holds up what waits until a run succeeds with that.
    pub(super) fn settle(&mut self, id: InstanceId) -> bool {
        let instance = &self.plan.pipeline.instances[id];
        if instance.kind.publishes(&instance.params) {
            let result = self.plan.project.store.shown(&self.plan.seen[id].key);
            match publish(&*instance.kind, &instance.params, &result, &self.plan.project.root) {
                Ok(paths) => {
                    self.published |= !paths.is_empty();
                    paths.into_iter().for_each(|path| self.observer.event(&Event::Published { id, path }));
                }
                Err(error) => {
                    self.fail(id, error);
                    return false;
                }
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

    pub(super) fn done(
        &mut self,
        id: InstanceId,
        result: Result<Box<Made>, StageError>,
        seconds: f64,
    ) -> Result<(), EngineError> {
        let Some(Started { first, recipe, files }) = self.running.remove(&id) else { return Ok(()) };
        if let btree_map::Entry::Occupied(mut process) = self.processes.entry(first) {
            process.get_mut().left -= 1;
            if process.get().left == 0 {
                self.pool.give(process.remove().share);
            }
        }
        let made = match result {
            Ok(made) => *made,
            Err(error) => {
                self.made(&[recipe.digest()]);
                // It was told to stop; that it did is no failure.
                if self.told == 0 {
                    self.plan.project.store.note_failure(recipe.digest(), &error.message);
                    self.fail(id, error);
                } else {
                    self.summary.stopped.push(id);
                    self.observer.event(&Event::Stopped { id });
                }
                return Ok(());
            }
        };
        let Made { draft, content, record, differs, dropped } = made;
        if let Some((now, what)) = self.moved_meanwhile(id, &recipe, &files) {
            self.made(&[recipe.digest()]);
            return self.show_unrecorded(id, now, draft, content, &what);
        }
        let mut notes: Vec<_> =
            self.show(id, recipe.digest(), record.tree, draft, content, Some(record))?.into_iter().collect();
        if differs {
            notes.push("the same recipe once made other bytes: the stage is not reproducible".to_owned());
        }
        if !dropped.is_empty() {
            notes.push(format!("not among its `outputs`, and so dropped: {}", dropped.join(", ")));
        }
        if self.settle(id) {
            let number = self.summary.ran.len();
            self.ended.insert(recipe.digest(), Ended { id, number, seconds, notes });
            self.summary.ran.push(id);
        } else {
            notes.into_iter().for_each(|line| self.observer.event(&Event::Said { id, line }));
        }
        Ok(())
    }

    /// What the stage read, if it is no longer what its recipe says, or was something else in between: what
    /// `files` were known by when it began tells. With it the recipe that holds now.
    fn moved_meanwhile(
        &mut self,
        id: InstanceId,
        recipe: &Recipe,
        files: &[Option<Digest>],
    ) -> Option<(Digest, String)> {
        let Plan { project, pipeline, seen, .. } = &self.plan;
        let needs = &pipeline.instances[id].needs;
        for need in needs {
            let key = &seen[need.from].key;
            let Some(entry) = self.state.results.get(key) else { continue };
            let (found, _) = look(&project.store.shown(key), entry);
            if let Found::Missing(_, path) | Found::Altered(_, path) = found {
                return Some((recipe.digest(), format!("its input `{}`", path.display())));
            }
        }
        let inputs: Vec<_> = needs.iter().filter_map(|need| self.trees[need.from]).collect();
        match project.recipe(pipeline, id, &inputs, None, None, &mut self.state) {
            Ok((now, _)) if now == *recipe => {
                let instance = &pipeline.instances[id];
                let now = project.files_as_they_are(pipeline, id);
                let touched = now.iter().zip(files).position(|(now, then)| now != then)?;
                let path = instance.kind.files(&instance.params).into_iter().nth(touched)?;
                let what = format!("`{}` was written to, though it is the same now", path.display());
                Some((recipe.digest(), what))
            }
            Ok((now, _)) => {
                let change = changes(recipe.text(), now.text()).into_iter().next()?;
                Some((now.digest(), change.to_string()))
            }
            Err(why) => Some((recipe.digest(), why.to_string())),
        }
    }

    /// Shows a result of which nobody knows what it was made from, and keeps no record of it. Who asks for the recipe
    /// that holds `now` is told.
    fn show_unrecorded(
        &mut self,
        id: InstanceId,
        now: Digest,
        draft: Draft,
        mut content: Content,
        what: &str,
    ) -> Result<(), EngineError> {
        let key = &self.plan.seen[id].key;
        let kept = self.plan.project.store.show(draft, key, &mut content, self.state.results.get(key))?;
        self.state.results.remove(key);
        self.committer.commit(Commit { key: key.clone(), entry: None, record: None });
        let message =
            format!("what it reads changed while it ran ({what}); its result is shown, but does not count");
        kept.map(told).into_iter().for_each(|line| self.observer.event(&Event::Said { id, line }));
        self.plan.project.store.note_failure(now, &message);
        self.fail(id, StageError::new(message).hint("run again"));
        Ok(())
    }

    /// The recipes are no longer being made: those that waited for them are judged again.
    pub(super) fn made(&mut self, recipes: &[Digest]) {
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

/// Says what had to make way for a result, and where it is now.
fn told((path, kept): (PathBuf, PathBuf)) -> String {
    format!("`{}` is of no result; what was there is kept in `{}`", path.display(), kept.display())
}
