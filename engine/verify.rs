//! Is everything that is shown and cached what it was? Reads all of it, and mends what it can. Knows nothing of
//! recipes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rayon::prelude::*;

use crate::{
    digest::Digest,
    error::EngineError,
    instance::{Instance, InstanceId, Pipeline},
    lock::Lock,
    look::strays,
    plan::Found,
    project::{Project, key},
    state::State,
};

/// How long `verify` waits for a run beside it to say what it has replaced.
const CATCH_UP: Duration = Duration::from_secs(5);

/// One damaged or missing thing that [`Project::verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whose result it is.
    pub instance: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// Is it in order again?
    pub mended: bool,
}

impl Project {
    /// Reads every shown file and every cached object of the pipeline's results, whatever the file
    /// system says of them, and lists those that are not what they were. An object whose content is still
    /// shown is made again of that. Where something seems damaged while a run goes on beside it, this waits up to five
    /// seconds for the run to say what it has replaced.
    ///
    /// # Errors
    /// When the index cannot be read. What is wrong with a result is no error but a finding.
    pub fn verify(&self, pipeline: &Pipeline) -> Result<Vec<Finding>, EngineError> {
        self.only_here()?;
        let state = State::load(self.store.cache())?;
        let others = self.others(pipeline)?;
        let mut files = BTreeMap::<PathBuf, (InstanceId, Digest)>::new();
        // Each once, though several results may share it; and the files that have its content.
        let mut objects = BTreeMap::<Digest, Vec<(InstanceId, PathBuf)>>::new();
        let mut findings = Vec::new();
        for id in (0..pipeline.instances.len()).filter(|id| !others.contains(id)) {
            let key = key(pipeline, id);
            let Some(entry) = state.results.get(&key) else { continue };
            let place = self.store.shown(&key);
            for file in &entry.files {
                files.insert(place.join(&file.path), (id, file.digest));
                objects.entry(file.digest).or_default().push((id, place.join(&file.path)));
            }
            findings.extend(strays(&place, entry).into_iter().map(|path| {
                let problem =
                    if path.symlink_metadata().is_ok() { "is not part of the result" } else { "is missing" };
                (id, path, problem.to_owned(), false)
            }));
        }
        let problem = |path: &Path, expected: Digest| match Digest::of_file(path) {
            Ok(digest) if digest == expected => None,
            Ok(_) => Some("its content is not what was recorded".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        findings.par_extend(files.into_par_iter().filter_map(|(path, (id, digest))| {
            let problem = problem(&path, digest)?;
            Some((id, path, problem, false))
        }));
        findings.par_extend(objects.into_par_iter().filter_map(|(digest, places)| {
            let object = self.store.object(digest);
            let problem = problem(&object, digest)?;
            let mended = places.iter().any(|(_, place)| self.store.refill(digest, place).is_ok());
            Some((places.first()?.0, object, problem, mended))
        }));
        findings.sort();
        let started = Instant::now();
        while !findings.is_empty() {
            // What a run beside this one replaced meanwhile is not damaged. It shows a result some time before it says so.
            let beside = matches!(Lock::take(self.store.cache()), Err(EngineError::Locked { .. }));
            let now = State::load(self.store.cache())?;
            findings.retain(|(id, ..)| {
                let key = key(pipeline, *id);
                let what = |state: &State| state.results.get(&key).map(|entry| (entry.recipe, entry.tree));
                what(&now) == what(&state)
            });
            if !beside || started.elapsed() > CATCH_UP {
                break;
            }
        }
        let named = |(id, path, problem, mended): (InstanceId, PathBuf, String, bool)| {
            let instance: &Instance = &pipeline.instances[id];
            Finding { instance: instance.name.clone(), path, problem, mended }
        };
        Ok(findings.into_iter().map(named).collect())
    }

    /// In whose place lies the whole result of today's recipe, which the index does not know as that: git put it there,
    /// say. Each of its files has been read then.
    fn others(&self, pipeline: &Pipeline) -> Result<BTreeSet<InstanceId>, EngineError> {
        let (_, seen, judged) = self.judged(pipeline, false)?;
        let read =
            |id: &InstanceId| judged[*id].found.is_some() && !matches!(seen[*id].found, Found::Intact(_));
        Ok((0..judged.len()).filter(read).collect())
    }

    /// Of how many results nothing is known here, so that nothing of them can be verified.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn unknown(&self, pipeline: &Pipeline) -> Result<usize, EngineError> {
        let state = State::load(self.store.cache())?;
        let known = |id: &InstanceId| state.results.contains_key(&key(pipeline, *id));
        Ok((0..pipeline.instances.len()).filter(|id| !known(id)).count())
    }
}
