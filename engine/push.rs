//! Gives results, and what unfinished stages can go on from, to a folder that clones share. Reads the project only.

use std::{fs, io};

use crate::{
    commit::sync,
    digest::Digest,
    error::{Context, EngineError},
    instance::{InstanceId, Pipeline},
    lockfile,
    look::look,
    plan::{Found, Standing},
    process::is_held,
    project::{Judged, Project, Seen},
    record::{Record, tree_of},
    share::{Attempt, Share, youngest},
    state::{Entry, State},
    store::{check, lock_of},
};

/// What became of an instance.
#[derive(Debug)]
pub enum Given {
    /// Its result was copied.
    Result,
    /// Its result, or what it can go on from, was there already.
    There,
    /// Another result of the same recipe was there, and stays.
    Other,
    /// What it can go on from was copied.
    Unfinished,
    /// What is there to go on from is younger, and stays.
    Newer,
    /// It runs just now.
    Running,
    /// It has nothing of today that somebody else could use.
    Nothing,
    /// It has, and it cannot be copied.
    Failed(EngineError),
}

/// What [`Project::push`] did.
#[derive(Debug, Default)]
pub struct Pushed {
    /// What became of each instance that was asked for.
    pub given: Vec<(InstanceId, Given)>,
    /// The size of what was copied.
    pub bytes: u64,
}

impl Project {
    /// Copies into `share` the results of instances that are up to date, as far as they are not there, and of those that
    /// are not up to date what they can go on from.
    ///
    /// # Errors
    /// When the index or the lock file cannot be read, the folder is among the project's results, or it cannot be written
    /// to. What cannot be copied from here is no error but stands in the answer.
    pub fn push(
        &self,
        pipeline: &Pipeline,
        wanted: &[InstanceId],
        share: &Share,
    ) -> Result<Pushed, EngineError> {
        let Share(to) = share;
        if to.cache().starts_with(self.store.artifacts()) {
            return Err(EngineError::User {
                message: format!("`{}` is among the results of this project", to.cache().display()),
                hint: "push to a folder of its own".into(),
            });
        }
        let (mut state, _) = State::load(self.store.cache())?;
        let seen = self.look_all(pipeline, None, &mut state);
        // Only to know the recipes of what was made of results that are not whole here.
        let locked = lockfile::of(pipeline)?;
        let judged = self.judge_all(pipeline, &seen, &locked, &mut state);
        let (mut pushed, mut records) = (Pushed::default(), Vec::new());
        for &id in wanted {
            let Judged { standing, recipe, .. } = &judged[id];
            let given = match recipe.as_ref().map(|recipe| recipe.digest()) {
                None => Given::Nothing,
                Some(recipe) => {
                    let made = matches!(standing, Standing::Fresh | Standing::Restorable(_));
                    let there =
                        share.record(recipe).filter(|there| to.missing(&there.outputs).next().is_none());
                    match (self.store.record(recipe).filter(|_| made), there) {
                        (Some(record), Some(there)) if record.tree != there.tree => Given::Other,
                        (_, Some(_)) => Given::There,
                        (Some(record), None) => match self.give(&record, &seen[id], share, &mut pushed.bytes)
                        {
                            Ok(()) => {
                                records.push((recipe, record));
                                Given::Result
                            }
                            Err(error) => Given::Failed(error),
                        },
                        (None, None) => self
                            .give_attempt(pipeline, id, recipe, &seen, share, &mut pushed.bytes)
                            .unwrap_or_else(Given::Failed),
                    }
                }
            };
            pushed.given.push((id, given));
        }
        // A record promises that its objects are there.
        sync(to).context("sync", to.cache())?;
        for (recipe, record) in &records {
            to.write_record(*recipe, record)?;
            let _ = fs::remove_file(share.attempt_place(*recipe)); // of no use any more
        }
        sync(to).context("sync", to.cache())?;
        Ok(pushed)
    }

    fn give(&self, record: &Record, seen: &Seen, share: &Share, bytes: &mut u64) -> Result<(), EngineError> {
        let Share(to) = share;
        for output in to.missing(&record.outputs) {
            let object = self.store.object(output.digest);
            // What the cache lost may still be shown.
            let shown = self.store.shown(&seen.key).join(&output.path);
            let copied = to.refill(output.digest, &object);
            let copied = copied.or_else(|error| to.refill(output.digest, &shown).map_err(|_| error));
            // Of an object that is damaged it would say only that it cannot be written there.
            copied.map_err(|error| check(&object, &object, output.digest).err().unwrap_or(error))?;
            *bytes += output.size;
        }
        Ok(())
    }

    fn give_attempt(
        &self,
        pipeline: &Pipeline,
        id: InstanceId,
        recipe: Digest,
        seen: &[Seen],
        share: &Share,
        bytes: &mut u64,
    ) -> Result<Given, EngineError> {
        let Share(to) = share;
        let from = self.store.scratch(recipe);
        let lock = lock_of(&from);
        let Some(saved) = youngest(&from) else { return Ok(Given::Nothing) };
        if is_held(&lock) {
            return Ok(Given::Running);
        }
        // What a command left may be made of what is no longer here; its next run would not go on from it either.
        let instance = &pipeline.instances[id];
        if instance.kind.command(&instance.params).is_some() {
            let now = Self::built_on(&self.reads(pipeline, id, seen)).to_string();
            let then = fs::read(&lock).unwrap_or_default();
            if !then.is_empty() && then != now.as_bytes() {
                return Ok(Given::Nothing);
            }
        }
        if share.attempt(recipe).is_some_and(|there| there.saved > saved) {
            return Ok(Given::Newer);
        }
        let content = to.keep(&from)?;
        let tree = tree_of(&content.outputs);
        let entry = Entry { recipe, tree, files: content.files, folders: content.folders };
        // Also a run that came and went meanwhile left its traces.
        if is_held(&lock) || !matches!(look(&from, &entry), (Found::Intact(_), None)) {
            return Ok(Given::Running);
        }
        let attempt = Attempt { recipe, saved, outputs: content.outputs };
        if share.attempt(recipe).as_ref() == Some(&attempt) {
            return Ok(Given::There);
        }
        *bytes += attempt.outputs.iter().map(|output| output.size).sum::<u64>();
        let place = share.attempt_place(recipe);
        let text = serde_json::to_vec_pretty(&attempt).map_err(io::Error::other).context("encode", &place)?;
        to.leave(&place, &text)?;
        Ok(Given::Unfinished)
    }
}
