//! A project: the folder with `.repro/` and `artifacts/`, and what can be asked of it. Knows nothing
//! of syntax, terminals or kinds.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use rayon::prelude::*;

use crate::{
    digest::Digest,
    error::{Context, EngineError},
    held::is_held,
    instance::{Instance, InstanceId, Pipeline, pairs},
    judge::Judged,
    lockfile::{self, Locked},
    look::look,
    memo::{and_links, as_it_is, result_as_it_is},
    place::read_plain,
    plan::{Found, Standing, Why},
    publish::outdated,
    recipe::Recipe,
    record::{Facts, Record},
    share::{Share, is_empty},
    state::State,
    store::{Output, Store, UNTOUCHED, lock_of},
};

/// A folder in which pipelines run.
#[derive(Debug)]
pub struct Project {
    pub(crate) root: PathBuf,
    pub(crate) store: Arc<Store>,
}

/// Where an instance stands, and why: its recipe then and now.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Where it stands.
    pub standing: Standing,
    /// The recipe of the result that is shown, if there is one.
    pub then: Option<String>,
    /// How that result came about, where it is known.
    pub made: Option<Facts>,
    /// Today's recipe; none while an input is unknown because what makes it has to run first.
    pub now: Option<String>,
    /// What is known of today's recipe before that: see [`UNDECIDED`](crate::recipe::UNDECIDED).
    pub so_far: Option<String>,
    /// What makes the unknown inputs, and where that stands.
    pub undecided: Vec<(InstanceId, Standing)>,
}

/// What the lock file says of a result.
#[derive(Clone, Debug)]
pub struct LockedResult {
    /// The digest of its recipe.
    pub recipe: Digest,
    /// All files and empty folders, sorted by path.
    pub outputs: Vec<Output>,
}

/// What is shown for an instance.
pub(crate) struct Seen {
    /// Where: see [`key`].
    pub(crate) key: String,
    pub(crate) found: Found,
    /// The content that was looked for: what the index had.
    pub(crate) tree: Option<Digest>,
    /// Today's recipe, if its inputs are what is shown.
    foreseen: Option<Foreseen>,
}

impl Seen {
    /// Is it, as far as can be told before anything is judged, what today's recipe made?
    pub(crate) fn is_today(&self) -> bool {
        let today = |foreseen: &Foreseen| self.found == Found::Intact(foreseen.recipe.digest());
        self.foreseen.as_ref().is_none_or(today)
    }
}

/// A recipe, and the digests of the inputs with which it holds.
struct Foreseen {
    inputs: Vec<Digest>,
    recipe: Recipe,
}

impl Seen {
    /// Today's recipe, if it is known before anything is judged and is this one.
    pub(crate) fn foreseen_as(&self, recipe: Digest) -> Option<&Recipe> {
        self.foreseen.as_ref().map(|foreseen| &foreseen.recipe).filter(|today| today.digest() == recipe)
    }

    /// Today's recipe with these inputs, where it is known already. It holds as long as nothing has
    /// run: a stage may write a file that another one reads.
    pub(crate) fn foreseen(&self, inputs: &[Digest]) -> Option<&Recipe> {
        self.foreseen.as_ref().filter(|foreseen| foreseen.inputs == inputs).map(|foreseen| &foreseen.recipe)
    }
}

/// Something, and why its instance cannot be run, where the lock file was believed of what is missing; or why there is
/// nothing.
pub(crate) type Known<T> = Result<(T, Option<Why>), Why>;

impl Project {
    /// The project in folder `root`. Creates nothing.
    ///
    /// # Errors
    /// When there is no such folder, or it cannot be entered.
    pub fn open(root: &Path) -> Result<Self, EngineError> {
        Self::open_beside(root, None)
    }

    /// The same, where results that are not in its cache may be found in a folder `beside` it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_beside(root: &Path, beside: Option<Share>) -> Result<Self, EngineError> {
        let root = root.canonicalize().context("open", root)?;
        // Commands get lists of folders, one in a line.
        let odd = match root.to_str() {
            None => Some("is not UTF-8"),
            Some(path) => path.contains(['\n', '\r']).then_some("has more than one line"),
        };
        if let Some(odd) = odd {
            return Err(EngineError::user(
                format!("the path of `{}` {odd}, and cannot be written down", root.display()),
                "rename the folder",
            ));
        }
        Ok(Self { store: Arc::new(Store::new(&root, beside)), root })
    }

    /// Where every instance stands, by [`InstanceId`].
    ///
    /// # Errors
    /// When the index cannot be read. A damaged one can: what it said is found out again.
    pub fn status(&self, pipeline: &Pipeline, allow_missing: bool) -> Result<Vec<Standing>, EngineError> {
        let (state, seen, judged) = self.judged(pipeline, allow_missing)?;
        let stands = |(id, judged)| self.stands(pipeline, id, judged, &seen, &state);
        Ok(judged.iter().enumerate().map(stands).collect())
    }

    /// Where an instance stands for who asks: with what is at work on it, and how files of the project show it.
    fn stands(
        &self,
        pipeline: &Pipeline,
        id: InstanceId,
        judged: &Judged,
        seen: &[Seen],
        state: &State,
    ) -> Standing {
        let mut standing = judged.standing.clone();
        if let (Standing::Stale(whys), Some(recipe)) = (&mut standing, &judged.recipe) {
            let scratch = self.store.scratch(recipe.digest());
            if is_held(&lock_of(&scratch)) {
                whys.push(Why::Running);
            } else if !is_empty(&scratch) && self.goes_on(pipeline, id, recipe.digest(), seen, state) {
                whys.push(Why::Stopped);
            }
        }
        self.published(&pipeline.instances[id], &seen[id], standing)
    }

    /// Where an instance stands that may also stand in files of the project.
    pub(crate) fn published(&self, instance: &Instance, seen: &Seen, standing: Standing) -> Standing {
        let Instance { kind, params, .. } = instance;
        if !standing.is_current() || kind.publishes(params).is_none() {
            return standing;
        }
        match outdated(&**kind, params, &self.store.shown(&seen.key), &self.root) {
            Ok(outdated) => match outdated.into_iter().next() {
                None => standing,
                Some((path, Some(_))) => Standing::Restorable(Some(Why::NotPublished(path))),
                Some((path, None)) => Standing::Restorable(Some(Why::NotRemoved(path))),
            },
            Err(error) => Standing::Stale(vec![Why::Unpublishable(error.message)]),
        }
    }

    /// The recipe of what is there against today's. `allow_missing`: the lock file is believed, as by a run.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn explain(
        &self,
        pipeline: &Pipeline,
        id: InstanceId,
        allow_missing: bool,
    ) -> Result<Explanation, EngineError> {
        let (mut state, seen, judged) = self.judged(pipeline, allow_missing)?;
        let shown = self.shown(&judged[id], &seen[id], &state);
        let stands = |id| self.stands(pipeline, id, &judged[id], &seen, &state);
        let standing = stands(id);
        let (mut so_far, mut undecided) = (None, Vec::new());
        if let Standing::Waiting(on) = &standing {
            undecided = on.iter().map(|&from| (from, stands(from))).collect();
            let inputs = pipeline.instances[id].needs.iter().map(|need| judged[need.from].tree);
            let (files, _) = self.files(pipeline, id, None, &mut state).unwrap_or_default();
            so_far = Some(Recipe::so_far(pipeline, id, &files, inputs));
        }
        let now = judged[id].recipe.as_ref().map(|recipe| recipe.text().to_owned());
        let (then, made) = shown.map(|record| (record.recipe, record.run)).unzip();
        let made = made.filter(|facts| !facts.notes.contains_key("made")); // it lay here when it was found
        // Nothing else may be recorded of what git put in its place.
        let then = if judged[id].standing.is_current() { now.clone() } else { then };
        Ok(Explanation { standing, then, made, now, so_far, undecided })
    }

    /// What is recorded of every shown result, by [`InstanceId`]. `allow_missing`: as [`status`](Self::status).
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn records(
        &self,
        pipeline: &Pipeline,
        allow_missing: bool,
    ) -> Result<Vec<Option<Record>>, EngineError> {
        let (state, seen, judged) = self.judged(pipeline, allow_missing)?;
        Ok(judged.iter().zip(&seen).map(|(judged, seen)| self.shown(judged, seen, &state)).collect())
    }

    /// What is recorded of a shown result.
    fn shown(&self, judged: &Judged, seen: &Seen, state: &State) -> Option<Record> {
        // The index may know another recipe's result in a place where git put today's.
        if let (true, Some(recipe)) = (judged.standing.is_current(), &judged.recipe) {
            let record = self.store.record(recipe.digest());
            return record.filter(|record| judged.tree == Some(record.tree));
        }
        state.results.get(&seen.key).and_then(|entry| self.store.record(entry.recipe))
    }

    /// Would a run write the lock file?
    ///
    /// # Errors
    /// When there is one that cannot be read, which a run refuses; or when the index cannot be.
    pub fn check_lock_file(&self, pipeline: &Pipeline) -> Result<(), EngineError> {
        lockfile::check(pipeline, &State::load(self.store.cache())?)
    }

    /// What the lock file says of each instance's result.
    ///
    /// # Errors
    /// When there is a lock file that cannot be read.
    pub fn locked(&self, pipeline: &Pipeline) -> Result<Vec<Option<LockedResult>>, EngineError> {
        let mut lock = lockfile::read(&pipeline.lock_file())?;
        let lock = lock.remove(lockfile::section(pipeline.profile.as_deref())).unwrap_or_default();
        let locked = |instance: &Instance| {
            let locked = lock.get(&instance.name)?;
            Some(LockedResult { recipe: locked.recipe, outputs: locked.outputs.clone() })
        };
        Ok(pipeline.instances.iter().map(locked).collect())
    }

    /// The folder that shows an instance's result.
    pub fn result(&self, pipeline: &Pipeline, id: InstanceId) -> PathBuf {
        self.store.shown(&key(pipeline, id))
    }

    /// The folders that may have shown the result of an instance of this name, which the pipeline need not have any more:
    /// first as the file has the stage's axes, then as a sweep gave it some.
    pub fn results_of(&self, pipeline: &Pipeline, name: &str) -> [PathBuf; 2] {
        let (stage, axes) = name.split_once('[').unwrap_or((name, ""));
        let axes = axes.trim_end_matches(']');
        [false, true].map(|swept| self.store.shown(&key_of(pipeline, stage, axes, swept)))
    }

    /// The log of an instance's last run.
    pub fn log(&self, pipeline: &Pipeline, id: InstanceId) -> PathBuf {
        self.store.cache().join("logs").join(key(pipeline, id)).with_added_extension("log")
    }

    /// The recipe of an instance whose inputs are known, made now unless it is `foreseen`. There is none while a file
    /// that it reads cannot be read, unless nothing is in its place and it was `locked`: then the recipe comes with why it
    /// cannot be run.
    pub(crate) fn recipe(
        &self,
        pipeline: &Pipeline,
        id: InstanceId,
        inputs: &[Digest],
        foreseen: Option<&Recipe>,
        locked: Option<&Locked>,
        state: &mut State,
    ) -> Known<Recipe> {
        if let Some(recipe) = foreseen {
            return Ok((recipe.clone(), None));
        }
        let (files, missing) = self.files(pipeline, id, locked, state)?;
        Ok((Recipe::of(pipeline, id, &files, inputs), missing))
    }

    /// What an instance reads, its inputs and then its kind's own files, and what each is known by as far as it is there.
    pub(crate) fn reads(
        &self,
        pipeline: &Pipeline,
        id: InstanceId,
        seen: &[Seen],
        state: &State,
    ) -> Vec<(PathBuf, Option<Digest>)> {
        let instance = &pipeline.instances[id];
        let inputs = instance.needs.iter().map(|need| {
            let key = &seen[need.from].key;
            let path = self.store.shown(key);
            let known_by = result_as_it_is(&path, state.results.get(key)).ok();
            let known_by = known_by.map(|known_by| and_links(&self.root, &path, known_by));
            (path, known_by)
        });
        let files = instance.kind.files(&instance.params).into_iter().map(|path| {
            let path = self.root.join(path);
            let known_by = as_it_is(&path).ok().map(|known_by| and_links(&self.root, &path, known_by));
            (path, known_by)
        });
        inputs.chain(files).collect()
    }

    /// What an attempt is known to have been built on: what it [`reads`](Self::reads), in short.
    pub(crate) fn built_on(reads: &[(PathBuf, Option<Digest>)]) -> Digest {
        let known_by: Vec<_> = reads.iter().map(|(_, known_by)| known_by).collect();
        Digest::of(format!("{known_by:?}"))
    }

    /// Would the next run of an instance go on from what lies in its scratch folder? A command would not, if what it
    /// reads was touched before the attempt had ended, as far as anybody knows: see `task::Member::hold_scratch`.
    pub(crate) fn goes_on(
        &self,
        pipeline: &Pipeline,
        id: InstanceId,
        recipe: Digest,
        seen: &[Seen],
        state: &State,
    ) -> bool {
        let instance = &pipeline.instances[id];
        if instance.kind.command(&instance.params).is_none() {
            return true;
        }
        let then = read_plain(&lock_of(&self.store.scratch(recipe))).unwrap_or_default();
        let reads = || self.reads(pipeline, id, seen, state);
        [b"", UNTOUCHED].contains(&&*then) || then == Self::built_on(&reads()).to_string().as_bytes()
    }

    /// The kind's own files of an instance. Where nothing is in the place of one, it is what was `locked`, and missing.
    fn files(
        &self,
        pipeline: &Pipeline,
        id: InstanceId,
        locked: Option<&Locked>,
        state: &mut State,
    ) -> Known<Vec<(PathBuf, Digest)>> {
        let instance = &pipeline.instances[id];
        let (mut files, mut missing) = (Vec::new(), None);
        for path in instance.kind.files(&instance.params) {
            let digest = match state.memo.digest(&self.root, &path) {
                Ok(digest) => digest,
                Err(error) => {
                    let why = Why::FileMissing(path.clone(), error.to_string());
                    let locked = locked.filter(|_| !self.root.join(&path).exists());
                    let Some(digest) = locked.and_then(|locked| locked.file(&path)) else { return Err(why) };
                    missing = missing.or(Some(why));
                    digest
                }
            };
            files.push((path, digest));
        }
        Ok((files, missing))
    }

    /// What is shown for each instance; files are read only where their stamps changed.
    /// Files that stages read are looked at for the `wanted` instances, or for all.
    pub(crate) fn look_all(
        &self,
        pipeline: &Pipeline,
        wanted: Option<&BTreeSet<InstanceId>>,
        state: &mut State,
    ) -> Vec<Seen> {
        let known: &State = state;
        let looks = (0..pipeline.instances.len()).into_par_iter().with_min_len(64).map(|id| {
            let key = key(pipeline, id);
            let entry = known.results.get(&key);
            let (found, touched) = match entry {
                Some(entry) => look(&self.store.shown(&key), entry),
                None => (Found::Nothing, None),
            };
            (Seen { key, found, tree: entry.map(|entry| entry.tree), foreseen: None }, touched)
        });
        let mut seen = Vec::new();
        for (one, touched) in looks.collect::<Vec<_>>() {
            if let Some(entry) = touched {
                state.touched(&one.key, entry);
            }
            seen.push(one);
        }
        self.foresee(pipeline, wanted, &mut seen, state);
        seen
    }

    /// Makes the recipes that hold if nothing has to run, many at once, and looks at each file that
    /// stages read once instead of once for each of them.
    fn foresee(
        &self,
        pipeline: &Pipeline,
        wanted: Option<&BTreeSet<InstanceId>>,
        seen: &mut [Seen],
        state: &mut State,
    ) {
        let instances = &pipeline.instances;
        let paths = |id: usize| instances[id].kind.files(&instances[id].params);
        let now = (0..instances.len()).filter(|id| wanted.is_none_or(|wanted| wanted.contains(id)));
        let all: BTreeSet<_> = now.flat_map(paths).collect();
        // What cannot be read is found, and said, when its turn comes.
        let read = |path: PathBuf| Some((state.memo.digest(&self.root, &path).ok()?, path));
        let files: BTreeMap<_, _> = all.into_iter().filter_map(read).map(|(d, path)| (path, d)).collect();
        let shown: Vec<Option<Digest>> = seen
            .par_iter()
            .with_min_len(256)
            .map(|seen| match seen.found {
                Found::Intact(_) => state.results.get(&seen.key).map(|entry| entry.tree),
                _ => None,
            })
            .collect();
        seen.par_iter_mut().with_min_len(64).enumerate().for_each(|(id, seen)| {
            let inputs: Option<Vec<_>> = instances[id].needs.iter().map(|need| shown[need.from]).collect();
            let file = |path: PathBuf| files.get(&path).map(|&digest| (path, digest));
            let read: Option<Vec<_>> = paths(id).into_iter().map(file).collect();
            seen.foreseen = inputs.zip(read).map(|(inputs, files)| {
                let recipe = Recipe::of(pipeline, id, &files, &inputs);
                Foreseen { inputs, recipe }
            });
        });
    }
}

/// Why an instance must not run, if it is one that may read whatever its inputs hold: what any of them lacks as it was
/// taken, by `absent`. Its result would be recorded as that of the whole inputs.
pub(crate) fn lacking(
    pipeline: &Pipeline,
    id: InstanceId,
    seen: &[Seen],
    absent: impl Fn(InstanceId) -> Vec<String>,
) -> Option<Why> {
    let Instance { kind, params, needs, .. } = &pipeline.instances[id];
    kind.command(params)?;
    let of_input = |from: InstanceId| {
        let place = Path::new("artifacts").join(&seen[from].key);
        absent(from).into_iter().map(move |path| place.join(path))
    };
    let mut lacking: BTreeSet<_> = needs.iter().flat_map(|need| of_input(need.from)).collect();
    lacking.pop_first().map(|first| Why::InputLacks(first, lacking.len()))
}

/// The folder of an instance's result below `artifacts/`: `train/arch=resnet32,seed=0`. One result never lies in
/// another: those of a sweep of a stage that has no axes in the file lie beside what it has there,
/// `train,seed=0`.
pub(crate) fn key(pipeline: &Pipeline, id: InstanceId) -> String {
    let Instance { stage, axes, .. } = &pipeline.instances[id];
    key_of(pipeline, stage, &pairs(axes), pipeline.swept.contains(stage))
}

fn key_of(pipeline: &Pipeline, stage: &str, axes: &str, swept: bool) -> String {
    let mut key = pipeline.namespace.to_string_lossy().into_owned();
    if !key.is_empty() {
        key.push('/');
    }
    key.push_str(stage);
    if axes.is_empty() {
        return key;
    }
    let safe = |c: char| c.is_alphanumeric() || "=,._-+".contains(c);
    let escaped: String = axes.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    key.push(if swept { ',' } else { '/' });
    // A file name has 255 bytes at most, and what is made beside this one has a longer name.
    if escaped == axes && axes.len() + if swept { stage.len() } else { 0 } <= 200 {
        key.push_str(axes);
    } else {
        // Two values may look alike once made safe for a file name: the digest tells them apart.
        key.push_str(&shortened(&escaped, 60, axes));
    }
    key
}

/// The first bytes of `name`, `most` of them, and what tells `whole` from all that begins like it.
pub(crate) fn shortened(name: &str, most: usize, whole: &str) -> String {
    format!("{}~{}", &name[..name.floor_char_boundary(most)], &Digest::of(whole).to_string()[..12])
}
