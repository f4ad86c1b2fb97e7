//! A project: the folder with `.repro/` and `artifacts/`, and what can be asked of it. Knows nothing
//! of syntax, terminals or kinds.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use rayon::prelude::*;
use toml::Value;

use crate::{
    digest::Digest,
    error::{Context, EngineError},
    instance::{Instance, InstanceId, Pipeline},
    look::look,
    plan::{Found, Standing, Why, judge},
    recipe::{Recipe, value_text},
    record::Record,
    state::State,
    store::Store,
};

/// A folder in which pipelines run.
#[derive(Debug)]
pub struct Project {
    pub(crate) root: PathBuf,
    pub(crate) store: Arc<Store>,
}

/// A recipe then and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The recipe of the result that is shown, if there is one.
    pub then: Option<String>,
    /// Today's recipe; none while an input is unknown because what makes it has to run first.
    pub now: Option<String>,
}

/// One damaged or missing thing that [`Project::verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whose result it is.
    pub instance: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// What is shown for an instance.
pub(crate) struct Seen {
    /// Where: see [`key`].
    pub(crate) key: String,
    pub(crate) found: Found,
}

/// An instance, judged.
pub(crate) struct Judged {
    pub(crate) standing: Standing,
    pub(crate) recipe: Option<Recipe>,
    /// The digest of its result, where that exists.
    pub(crate) tree: Option<Digest>,
}

impl Project {
    /// The project in folder `root`. Creates nothing.
    pub fn open(root: &Path) -> Result<Self, EngineError> {
        let root = root.canonicalize().context("open", root)?;
        Ok(Self { store: Arc::new(Store::new(&root)), root })
    }

    /// Where every instance stands, by [`InstanceId`].
    pub fn status(&self, pipeline: &Pipeline) -> Result<Vec<Standing>, EngineError> {
        let (mut state, _) = State::load(self.store.cache())?;
        let seen = self.look_all(pipeline, &mut state);
        Ok(self.judge_all(pipeline, &seen, &mut state).into_iter().map(|judged| judged.standing).collect())
    }

    /// The recipe of what is there against today's.
    pub fn explain(&self, pipeline: &Pipeline, id: InstanceId) -> Result<Explanation, EngineError> {
        let (mut state, _) = State::load(self.store.cache())?;
        let then = state.results.get(&key(pipeline, id)).and_then(|entry| self.store.record(entry.recipe));
        let seen = self.look_all(pipeline, &mut state);
        let judged = self.judge_all(pipeline, &seen, &mut state).into_iter().nth(id).and_then(|j| j.recipe);
        Ok(Explanation {
            then: then.map(|record| record.recipe),
            now: judged.map(|recipe| recipe.text().to_owned()),
        })
    }

    /// What is recorded of every shown result, by [`InstanceId`].
    pub fn records(&self, pipeline: &Pipeline) -> Result<Vec<Option<Record>>, EngineError> {
        let (state, _) = State::load(self.store.cache())?;
        let shown =
            |id| state.results.get(&key(pipeline, id)).and_then(|entry| self.store.record(entry.recipe));
        Ok((0..pipeline.instances.len()).map(shown).collect())
    }

    /// The folder that shows an instance's result.
    pub fn result(&self, pipeline: &Pipeline, id: InstanceId) -> PathBuf {
        self.store.shown(&key(pipeline, id))
    }

    /// The log of an instance's last run.
    pub fn log(&self, pipeline: &Pipeline, id: InstanceId) -> PathBuf {
        self.store.cache().join("logs").join(key(pipeline, id)).with_added_extension("log")
    }

    /// Reads every shown file and every cached object of the pipeline's results, whatever the file
    /// system says of them, and lists those that are not what they were.
    pub fn verify(&self, pipeline: &Pipeline) -> Result<Vec<Finding>, EngineError> {
        let (state, _) = State::load(self.store.cache())?;
        // Each file once, though several results may share an object.
        let mut files = BTreeMap::<PathBuf, (InstanceId, Digest)>::new();
        let mut findings = Vec::new();
        for id in 0..pipeline.instances.len() {
            let key = key(pipeline, id);
            let Some(entry) = state.results.get(&key) else { continue };
            let place = self.store.shown(&key);
            for file in &entry.files {
                files.insert(place.join(&file.path), (id, file.digest));
                files.entry(self.store.object(file.digest)).or_insert((id, file.digest));
            }
            // Its files are read below; this finds what else there is to find.
            if let (Found::Missing(_, path) | Found::Altered(_, path), _) = look(&place, entry)
                && !files.contains_key(&path)
            {
                findings.push((id, path, "is missing, or is not part of the result".to_owned()));
            }
        }
        let check = |(path, (id, expected)): (PathBuf, (InstanceId, Digest))| {
            let problem = match Digest::of_file(&path) {
                Ok(digest) if digest == expected => return None,
                Ok(_) => "its content is not what was recorded".to_owned(),
                Err(error) => error.to_string(),
            };
            Some((id, path, problem))
        };
        findings.par_extend(files.into_par_iter().filter_map(check));
        findings.sort();
        let named = |(id, path, problem): (InstanceId, PathBuf, String)| {
            let instance: &Instance = &pipeline.instances[id];
            Finding { instance: instance.name.clone(), path, problem }
        };
        Ok(findings.into_iter().map(named).collect())
    }

    /// Judges everything in order, as if nothing were to run.
    pub(crate) fn judge_all(&self, pipeline: &Pipeline, seen: &[Seen], state: &mut State) -> Vec<Judged> {
        let mut all: Vec<Judged> = Vec::with_capacity(seen.len());
        for (id, seen) in seen.iter().enumerate() {
            let needs = &pipeline.instances[id].needs;
            let mut waits: Vec<_> =
                needs.iter().map(|need| need.from).filter(|&from| all[from].tree.is_none()).collect();
            waits.sort_unstable();
            waits.dedup();
            let judged = if waits.is_empty() {
                let inputs: Vec<_> = needs.iter().filter_map(|need| all[need.from].tree).collect();
                self.judge_one(pipeline, id, &inputs, seen, state)
            } else {
                Judged { standing: Standing::Waiting(waits), recipe: None, tree: None }
            };
            all.push(judged);
        }
        all
    }

    /// Judges one instance whose inputs are known.
    pub(crate) fn judge_one(
        &self,
        pipeline: &Pipeline,
        id: InstanceId,
        inputs: &[Digest],
        seen: &Seen,
        state: &mut State,
    ) -> Judged {
        let recipe = match self.recipe(pipeline, id, inputs, state) {
            Ok(recipe) => recipe,
            Err(why) => return Judged { standing: Standing::Stale(vec![why]), recipe: None, tree: None },
        };
        let mut cached = None;
        let standing = judge(
            &recipe,
            &seen.found,
            || {
                cached = self.store.restorable(recipe.digest()).map(|record| record.tree);
                cached.is_some()
            },
            |then| self.store.record(then).map(|record| record.recipe),
        );
        let tree = match standing {
            Standing::Fresh => state.results.get(&seen.key).map(|entry| entry.tree),
            Standing::Restorable => cached,
            Standing::Stale(_) | Standing::Waiting(_) => None,
        };
        Judged { standing, recipe: Some(recipe), tree }
    }

    /// The recipe of an instance whose inputs are known. There is none while a file that it reads
    /// cannot be read.
    pub(crate) fn recipe(
        &self,
        pipeline: &Pipeline,
        id: InstanceId,
        inputs: &[Digest],
        state: &mut State,
    ) -> Result<Recipe, Why> {
        let instance = &pipeline.instances[id];
        let mut files = Vec::new();
        for path in instance.kind.files(&instance.params) {
            match state.memo.digest(&self.root, &path) {
                Ok(digest) => files.push((path, digest)),
                Err(error) => return Err(Why::FileMissing(path, error.to_string())),
            }
        }
        Ok(Recipe::of(pipeline, id, &files, inputs))
    }

    /// What is shown for each instance; files are read only where their stamps changed.
    pub(crate) fn look_all(&self, pipeline: &Pipeline, state: &mut State) -> Vec<Seen> {
        let known: &State = state;
        let looks = (0..pipeline.instances.len()).into_par_iter().with_min_len(64).map(|id| {
            let key = key(pipeline, id);
            let (found, touched) = match known.results.get(&key) {
                Some(entry) => look(&self.store.shown(&key), entry),
                None => (Found::Nothing, None),
            };
            (Seen { key, found }, touched)
        });
        let mut seen = Vec::new();
        for (one, touched) in looks.collect::<Vec<_>>() {
            if let Some(entry) = touched {
                state.touched(&one.key, entry);
            }
            seen.push(one);
        }
        seen
    }
}

/// The folder of an instance's result below `artifacts/`: `train/arch=resnet32,seed=0`.
pub(crate) fn key(pipeline: &Pipeline, id: InstanceId) -> String {
    let Instance { stage, axes, .. } = &pipeline.instances[id];
    let mut key = pipeline.namespace.to_string_lossy().into_owned();
    if !key.is_empty() {
        key.push('/');
    }
    key.push_str(stage);
    if axes.is_empty() {
        return key;
    }
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => value_text(other),
    };
    let joined: Vec<_> = axes.iter().map(|(axis, value)| format!("{axis}={}", plain(value))).collect();
    let joined = joined.join(",");
    let safe = |c: char| c.is_alphanumeric() || "=,._-+".contains(c);
    let escaped: String = joined.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    key.push('/');
    if escaped == joined && joined.len() <= 200 {
        key.push_str(&joined);
    } else {
        // Two values may look alike once made safe for a file name: the digest tells them apart.
        let digest = Digest::of(&joined).to_string();
        key.extend(escaped.chars().take(60));
        key.push('~');
        key.push_str(&digest[..12]);
    }
    key
}
