//! Where instances stand, before anything runs or while it does: by what the index, the cache and the lock file say of
//! what lies in place. Starts nothing and knows no kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{
    digest::Digest,
    error::EngineError,
    instance::Pipeline,
    lockfile::{self, Locked},
    look::look,
    plan::{Found, Standing, Why},
    project::{Known, Project, Seen},
    recipe::{Recipe, changes},
    state::{Entry, State},
    store::Store,
};

/// An instance, judged.
pub(crate) struct Judged {
    pub(crate) standing: Standing,
    pub(crate) recipe: Option<Recipe>,
    /// The digest of its result, where that exists.
    pub(crate) tree: Option<Digest>,
    /// What the index does not know yet, or the cache no longer: the whole result lies in its place.
    pub(crate) found: Option<Entry>,
    /// Why it cannot be run, though its recipe is known: a file that it reads is not there, and was taken to be what was
    /// locked.
    pub(crate) missing: Option<Why>,
}

impl Judged {
    /// Nothing is known of its recipe.
    fn unknown(standing: Standing) -> Self {
        Self { standing, recipe: None, tree: None, found: None, missing: None }
    }
}

/// Results that somebody put in their places. A run takes them into the cache, and restores others from there.
#[derive(Default)]
pub(crate) struct Adopted {
    /// Their digests, by recipe.
    results: BTreeMap<Digest, Digest>,
    pub(crate) objects: BTreeSet<Digest>,
}

impl Adopted {
    /// Adds what was found in an instance's place. Was it new?
    pub(crate) fn note(&mut self, judged: &Judged) -> bool {
        let (Some(recipe), Some(found)) = (&judged.recipe, &judged.found) else { return false };
        self.objects.extend(found.files.iter().map(|file| file.digest));
        self.results.insert(recipe.digest(), found.tree).is_none()
    }

    /// The digest of the result that a recipe is restored to once all this is in the cache.
    fn gives(&self, recipe: Digest, store: &Store) -> Option<Digest> {
        let recorded = || Some(store.restorable_with(recipe, &self.objects)?.tree);
        self.results.get(&recipe).copied().or_else(recorded)
    }
}

impl Project {
    /// What the index says, what lies in place and how it is judged, for who asks and runs nothing. With `allow_missing`
    /// the lock file is believed as by a run with that option.
    pub(crate) fn judged(
        &self,
        pipeline: &Pipeline,
        allow_missing: bool,
    ) -> Result<(State, Vec<Seen>, Vec<Judged>), EngineError> {
        let mut state = State::load(self.store.cache())?;
        let seen = self.look_all(pipeline, None, &mut state);
        let locked = lockfile::believed(pipeline, allow_missing, &self.store, &seen)?;
        let judged = self.judge_all(pipeline, &seen, &locked, &mut state);
        Ok((state, seen, judged))
    }

    /// Judges everything in order, as if nothing were to run. `locked`: what the lock file is believed of, by name.
    pub(crate) fn judge_all(
        &self,
        pipeline: &Pipeline,
        seen: &[Seen],
        locked: &BTreeMap<String, Locked>,
        state: &mut State,
    ) -> Vec<Judged> {
        let mut adopted = Adopted::default();
        loop {
            let all = self.judge_in_order(pipeline, seen, locked, &adopted, state);
            for judged in &all {
                adopted.note(judged);
            }
            let missed = |judged: &Judged| {
                let recipe = judged.recipe.as_ref().filter(|_| matches!(judged.standing, Standing::Stale(_)));
                recipe.is_some_and(|recipe| adopted.gives(recipe.digest(), &self.store).is_some())
            };
            if !all.iter().any(missed) {
                return all;
            }
        }
    }

    /// The same, when this was adopted.
    pub(crate) fn judge_in_order(
        &self,
        pipeline: &Pipeline,
        seen: &[Seen],
        locked: &BTreeMap<String, Locked>,
        adopted: &Adopted,
        state: &mut State,
    ) -> Vec<Judged> {
        let mut all: Vec<Judged> = Vec::with_capacity(seen.len());
        for (id, seen) in seen.iter().enumerate() {
            let needs = &pipeline.instances[id].needs;
            let waits: BTreeSet<_> =
                needs.iter().map(|need| need.from).filter(|&from| all[from].tree.is_none()).collect();
            let mut judged = if waits.is_empty() {
                let inputs: Vec<_> = needs.iter().filter_map(|need| all[need.from].tree).collect();
                let foreseen = seen.foreseen(&inputs);
                let locked = locked.get(&pipeline.instances[id].name);
                let recipe = self.recipe(pipeline, id, &inputs, foreseen, locked, state);
                self.judge_one(recipe, seen, locked, state)
            } else {
                Judged::unknown(Standing::Waiting(waits.into_iter().collect()))
            };
            if let Some(found) = &judged.found {
                state.touched(&seen.key, found.clone());
            }
            if let (Standing::Stale(_), Some(recipe)) = (&judged.standing, &judged.recipe)
                && let Some(tree) = adopted.gives(recipe.digest(), &self.store)
            {
                judged = Judged { standing: Standing::Restorable(None), tree: Some(tree), ..judged };
            }
            all.push(judged);
        }
        all
    }

    /// Judges one instance whose inputs are known, and so its recipe.
    pub(crate) fn judge_one(
        &self,
        recipe: Known<Recipe>,
        seen: &Seen,
        locked: Option<&Locked>,
        state: &State,
    ) -> Judged {
        let cannot = |why| Judged::unknown(Standing::Stale(vec![why]));
        let (recipe, missing) = match recipe {
            Ok(recipe) => recipe,
            Err(why) => return cannot(why),
        };
        let digest = recipe.digest();
        if seen.found == Found::Intact(digest) {
            let entry = state.results.get(&seen.key);
            // A record that was lost is made again, or going back to this recipe would run it.
            let lost = entry.filter(|_| !self.store.has_record(digest));
            let (tree, found) = (entry.map(|entry| entry.tree), lost.cloned());
            return Judged { standing: Standing::Fresh, recipe: Some(recipe), tree, found, missing };
        }
        if let Some(found) = self.find(digest, seen, locked, state) {
            let (tree, found) = (Some(found.tree), Some(found));
            return Judged { standing: Standing::Fresh, recipe: Some(recipe), tree, found, missing };
        }
        let touched = match &seen.found {
            Found::Spoilt(then, why) if *then == digest => Some(why.clone()),
            _ => None,
        };
        let taken = || locked.and_then(|locked| locked.partly(digest, &self.store.shown(&seen.key)));
        let (standing, tree) = if let Some(record) = self.store.restorable(digest) {
            (Standing::Restorable(touched), Some(record.tree))
        } else if let Some(tree) = taken() {
            (Standing::Locked, Some(tree))
        } else if let Some(why) = missing {
            return cannot(why);
        } else {
            let changed = |then| {
                let then = self.store.record(then).map(|record| changes(&record.recipe, recipe.text()));
                Why::Changed(then.unwrap_or_default())
            };
            let mut why = touched.unwrap_or_else(|| seen.found.recipe().map_or(Why::NeverRan, changed));
            state.memo.name_files(&mut why);
            let failed = self.store.failure(digest).map(Why::Failed);
            (Standing::Stale([why].into_iter().chain(failed).collect()), None)
        };
        Judged { standing, recipe: Some(recipe), tree, found: None, missing }
    }

    /// The whole result of a recipe, if it lies in its place and the index knows something else, or nothing, of that: git
    /// or somebody else put it there. What it is say the cache and the lock file.
    fn find(&self, recipe: Digest, seen: &Seen, locked: Option<&Locked>, state: &State) -> Option<Entry> {
        let place = self.store.shown(&seen.key);
        if seen.found == Found::Nothing && fs::symlink_metadata(&place).is_err() {
            return None;
        }
        let recorded = self.store.record(recipe).map(|record| Entry::expected(recipe, &record.outputs));
        let locked = locked.and_then(|locked| Some(Entry::expected(recipe, &locked.whole(recipe)?)));
        let locked = locked.filter(|locked| recorded.as_ref().is_none_or(|entry| entry.tree != locked.tree));
        recorded.into_iter().chain(locked).find_map(|expected| {
            // What the index has was looked at already.
            match state.results.get(&seen.key).filter(|entry| entry.tree == expected.tree) {
                Some(there) => {
                    let intact = matches!(seen.found, Found::Intact(_));
                    let found_before = there.recipe == recipe
                        && (seen.found.recipe() != Some(recipe) || seen.tree != Some(there.tree));
                    (intact || found_before).then(|| Entry { recipe, ..there.clone() })
                }
                None if matches!(seen.found, Found::Intact(_)) => None,
                None => match look(&place, &expected) {
                    (Found::Intact(_), now) => Some(now.unwrap_or(expected)),
                    _ => None,
                },
            }
        })
    }

    /// Takes into the cache what was found in its place.
    pub(crate) fn adopt_all(
        &self,
        pipeline: &Pipeline,
        judged: &[Judged],
        seen: &[Seen],
    ) -> Result<(), EngineError> {
        for (id, judged) in judged.iter().enumerate() {
            if let (Some(recipe), Some(found)) = (&judged.recipe, &judged.found) {
                let name = &pipeline.instances[id].name;
                self.store.adopt(recipe, name, &self.store.shown(&seen[id].key), found)?;
            }
        }
        Ok(())
    }
}
