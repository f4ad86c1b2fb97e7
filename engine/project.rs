//! A project: the folder with `.repro/` and `artifacts/`, and what can be asked of it. Knows nothing
//! of syntax, terminals or kinds.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rayon::prelude::*;
use toml::Value;

use crate::{
    digest::{Digest, Stamp},
    error::{Context, EngineError},
    instance::{Instance, InstanceId, Pipeline},
    plan::{Found, Standing, Why, judge},
    recipe::{Recipe, value_text},
    state::{Entry, State},
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
        let mut state = State::load(self.store.cache())?;
        Ok(self.judge_all(pipeline, &mut state)?.into_iter().map(|judged| judged.standing).collect())
    }

    /// The recipe of what is there against today's.
    pub fn explain(&self, pipeline: &Pipeline, id: InstanceId) -> Result<Explanation, EngineError> {
        let mut state = State::load(self.store.cache())?;
        let then = state.results.get(&key(pipeline, id)).and_then(|entry| self.store.record(entry.recipe));
        let judged = self.judge_all(pipeline, &mut state)?.into_iter().nth(id).and_then(|j| j.recipe);
        Ok(Explanation {
            then: then.map(|record| record.recipe),
            now: judged.map(|recipe| recipe.text().to_owned()),
        })
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
        let state = State::load(self.store.cache())?;
        let check = |instance: &str, path: PathBuf, expected: Digest| {
            let problem = match Digest::of_file(&path) {
                Ok(digest) if digest == expected => return None,
                Ok(_) => "its content is not what was recorded".to_owned(),
                Err(error) => error.to_string(),
            };
            Some(Finding { instance: instance.to_owned(), path, problem })
        };
        let mut findings = Vec::new();
        for (id, instance) in pipeline.instances.iter().enumerate() {
            let key = key(pipeline, id);
            let Some(entry) = state.results.get(&key) else { continue };
            for file in &entry.files {
                findings.extend(check(&instance.name, self.store.shown(&key).join(&file.path), file.digest));
                findings.extend(check(&instance.name, self.store.object(file.digest), file.digest));
            }
        }
        Ok(findings)
    }

    /// Judges everything in order, as if nothing were to run.
    pub(crate) fn judge_all(
        &self,
        pipeline: &Pipeline,
        state: &mut State,
    ) -> Result<Vec<Judged>, EngineError> {
        let found = self.look_all(pipeline, state)?;
        let mut all: Vec<Judged> = Vec::with_capacity(found.len());
        for (id, found) in found.iter().enumerate() {
            let needs = &pipeline.instances[id].needs;
            let mut waits: Vec<_> =
                needs.iter().map(|need| need.from).filter(|&from| all[from].tree.is_none()).collect();
            waits.sort_unstable();
            waits.dedup();
            let judged = if waits.is_empty() {
                let inputs: Vec<_> = needs.iter().filter_map(|need| all[need.from].tree).collect();
                self.judge_one(pipeline, id, &inputs, found, state)
            } else {
                Judged { standing: Standing::Waiting(waits), recipe: None, tree: None }
            };
            all.push(judged);
        }
        Ok(all)
    }

    /// Judges one instance whose inputs are known.
    pub(crate) fn judge_one(
        &self,
        pipeline: &Pipeline,
        id: InstanceId,
        inputs: &[Digest],
        found: &Found,
        state: &mut State,
    ) -> Judged {
        let instance = &pipeline.instances[id];
        let mut files = Vec::new();
        for path in instance.kind.files(&instance.params) {
            match state.memo.digest(&self.root, &path) {
                Ok(digest) => files.push((path, digest)),
                Err(error) => {
                    let why = Why::FileMissing(path, error.to_string());
                    return Judged { standing: Standing::Stale(vec![why]), recipe: None, tree: None };
                }
            }
        }
        let recipe = Recipe::of(pipeline, id, &files, inputs);
        let mut cached = None;
        let standing = judge(
            &recipe,
            found,
            || {
                cached = self.store.restorable(recipe.digest()).map(|record| record.tree);
                cached.is_some()
            },
            |then| self.store.record(then).map(|record| record.recipe),
        );
        let tree = match standing {
            Standing::Fresh => state.results.get(&key(pipeline, id)).map(|entry| entry.tree),
            Standing::Restorable => cached,
            Standing::Stale(_) | Standing::Waiting(_) => None,
        };
        Judged { standing, recipe: Some(recipe), tree }
    }

    /// What is shown for each instance; files are read only where their stamps changed.
    pub(crate) fn look_all(&self, pipeline: &Pipeline, state: &State) -> Result<Vec<Found>, EngineError> {
        (0..pipeline.instances.len())
            .into_par_iter()
            .map(|id| {
                let key = key(pipeline, id);
                state.results.get(&key).map_or(Ok(Found::Nothing), |entry| self.look(&key, entry))
            })
            .collect()
    }

    fn look(&self, key: &str, entry: &Entry) -> Result<Found, EngineError> {
        let place = self.store.shown(key);
        for file in &entry.files {
            let path = place.join(&file.path);
            match Stamp::of(&path) {
                Ok(stamp) if stamp == file.stamp => {}
                Ok(stamp) if stamp.size == file.stamp.size => {
                    if Digest::of_file(&path).context("read", &path)? != file.digest {
                        return Ok(Found::Altered(entry.recipe, path));
                    }
                }
                Ok(_) => return Ok(Found::Altered(entry.recipe, path)),
                Err(error) => {
                    return Ok(match error.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                            Found::Missing(entry.recipe, path)
                        }
                        _ => Found::Altered(entry.recipe, path),
                    });
                }
            }
        }
        Ok(Found::Intact(entry.recipe))
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
