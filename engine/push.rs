//! Gives results, and what unfinished stages can go on from, to a folder that clones share. Changes nothing of the project
//! but its cache, which takes in results that lie in place.

use std::{collections::BTreeSet, fs, io};

use crate::{
    commit::sync,
    digest::Digest,
    error::{Context, EngineError},
    held::is_held,
    instance::{InstanceId, Pipeline},
    judge::Judged,
    look::look,
    plan::{Found, Standing},
    project::{Project, Seen},
    record::Record,
    restore::check,
    share::{Attempt, Share, is_empty},
    state::State,
    store::lock_of,
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
    /// What is there to go on from was written later, or as late and is something else, and stays.
    Later,
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
    /// When the index or the lock file cannot be read, or the folder cannot be written to. What cannot be copied from here is no error but stands in the answer.
    pub fn push(
        &self,
        pipeline: &Pipeline,
        wanted: &[InstanceId],
        share: &Share,
    ) -> Result<Pushed, EngineError> {
        let Share(to) = share;
        self.only_here()?;
        // The lock file is believed only to know the recipes of what was made of results that are not whole here.
        let (state, seen, mut judged) = self.judged(pipeline, true)?;
        for &id in wanted {
            let Judged { standing, recipe: Some(recipe), found, .. } = &mut judged[id] else { continue };
            // What lies in its place is whole, though its record cannot be read.
            if *standing == Standing::Fresh && self.store.record(recipe.digest()).is_none() {
                *found = found.take().or_else(|| state.results.get(&seen[id].key).cloned());
            }
        }
        self.adopt_all(pipeline, &judged, &seen)?;
        let (seen, state) = (&seen, &state);
        let mut push = Push { project: self, pipeline, seen, state, share, records: Vec::new(), bytes: 0 };
        let mut given = Vec::new();
        for &id in wanted {
            let Judged { standing, recipe, .. } = &judged[id];
            let made = matches!(standing, Standing::Fresh | Standing::Restorable(_));
            let one =
                recipe.as_ref().map_or(Ok(Given::Nothing), |recipe| push.give(id, recipe.digest(), made));
            given.push((id, one.unwrap_or_else(Given::Failed)));
        }
        // A record promises that its objects are there.
        sync(to).context("sync", to.cache())?;
        for (recipe, record) in &push.records {
            to.write_record(*recipe, record)?;
            let _ = fs::remove_file(share.attempt_place(*recipe)); // of no use any more
        }
        sync(to).context("sync", to.cache())?;
        Ok(Pushed { given, bytes: push.bytes })
    }
}

/// A push under way.
struct Push<'a> {
    project: &'a Project,
    pipeline: &'a Pipeline,
    seen: &'a [Seen],
    state: &'a State,
    share: &'a Share,
    /// Of the results that were copied: to be written once these are lasting.
    records: Vec<(Digest, Record)>,
    bytes: u64,
}

impl Push<'_> {
    /// Gives what an instance with that recipe has; `made`: is its result one of today?
    fn give(&mut self, id: InstanceId, recipe: Digest, made: bool) -> Result<Given, EngineError> {
        let record = self.project.store.record(recipe).filter(|_| made);
        let there = self.share.record(recipe);
        let there = there.filter(|there| self.share.0.missing(&there.outputs).next().is_none());
        match (record, there) {
            (Some(record), Some(there)) if record.tree != there.tree => Ok(Given::Other),
            (_, Some(_)) => Ok(Given::There),
            (Some(record), None) => {
                self.give_result(id, &record)?;
                self.records.push((recipe, record));
                Ok(Given::Result)
            }
            (None, None) => self.give_attempt(id, recipe),
        }
    }

    fn give_result(&mut self, id: InstanceId, record: &Record) -> Result<(), EngineError> {
        let (Share(to), store) = (self.share, &self.project.store);
        for output in to.missing(&record.outputs) {
            let object = store.object(output.digest);
            // What the cache lost may still be shown.
            let shown = store.shown(&self.seen[id].key).join(&output.path);
            let copied = to.refill(output.digest, &object);
            let copied = copied.or_else(|error| to.refill(output.digest, &shown).map_err(|_| error));
            // Of an object that is damaged it would say only that it cannot be written there.
            copied.map_err(|error| check(&object, &object, output.digest).err().unwrap_or(error))?;
            self.bytes += output.size;
        }
        Ok(())
    }

    fn give_attempt(&mut self, id: InstanceId, recipe: Digest) -> Result<Given, EngineError> {
        let Self { project, pipeline, seen, state, share, .. } = *self;
        let Share(to) = share;
        let from = project.store.scratch(recipe);
        let lock = lock_of(&from);
        if is_held(&lock) {
            return Ok(Given::Running);
        }
        if is_empty(&from) || !project.goes_on(pipeline, id, recipe, seen, state) {
            return Ok(Given::Nothing);
        }
        let entry = to.keep(recipe, &from).map_err(|error| match error {
            EngineError::User { message, .. } => EngineError::user(
                format!("in its scratch folder, {message}"),
                "let the stage keep plain files there",
            ),
            error => error,
        })?;
        let attempt = Attempt::of(&entry);
        // Also a run that came and went meanwhile left its traces.
        if is_held(&lock) || !matches!(look(&from, &entry), (Found::Intact(_), None)) {
            return Ok(Given::Running);
        }
        // At the end: meanwhile somebody else may have pushed it.
        let there = share.attempt(recipe);
        if there.as_ref() == Some(&attempt) {
            return Ok(Given::There);
        }
        if there.as_ref().is_some_and(|there| there.last_written() >= attempt.last_written()) {
            return Ok(Given::Later);
        }
        let known: BTreeSet<_> =
            there.iter().flat_map(|there| &there.outputs).map(|known| known.digest).collect();
        let new = attempt.outputs.iter().filter(|output| !known.contains(&output.digest));
        self.bytes += new.map(|output| output.size).sum::<u64>();
        let place = share.attempt_place(recipe);
        let text = serde_json::to_vec_pretty(&attempt).map_err(io::Error::other).context("encode", &place)?;
        to.leave(&place, &text)?;
        Ok(Given::Unfinished)
    }
}
