//! What a run with nothing to do is known by, so that the next one need not even read the pipeline.
//!
//! What an instance comes to depends on the text of the pipeline file with what is laid over it, on the
//! program that judges it, on the index, and on the stamps of what is shown and of what stages read. A run
//! that ends with everything fresh leaves the names of all these files and one digest of their stamps. While
//! the same is asked and the digest is the same, so is the answer. Anything else is judged in full; this
//! file never says what is stale. Knows nothing of stages and recipes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use crate::{
    digest::{Digest, Stamp},
    instance::Pipeline,
    memo::{Memo, Remembered, as_it_is},
    pipeline::LoadOptions,
    place::read_plain,
    project::{Project, Seen},
    state::State,
    store::Folder,
};

const HEAD: &str = "repro idle 2";

/// What a run is asked: everything but the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The same for one file and profile, so that one answer is kept for each.
    name: Digest,
    digest: Digest,
}

impl Question {
    /// To bring all stages of the pipeline file with text `source` up to date, as the program file `exe` would; none
    /// while nobody can tell that file from another.
    pub fn new(source: &str, options: &LoadOptions, exe: &Path) -> Option<Self> {
        let LoadOptions { file, profile, sets } = options;
        let program = Stamp::of(&fs::metadata(exe).ok()?);
        let file = std::path::absolute(file).ok()?;
        let name = Digest::of(format!("{file:?} {profile:?}"));
        let digest = Digest::of(format!("{name} {program:?} {sets:?} {}", Digest::of(source)));
        Some(Self { name, digest })
    }
}

/// What stages read, as it was when they were judged.
pub(crate) type Reads = BTreeMap<PathBuf, Remembered>;

/// What the stages read of the project's files; none while something of it changed too lately to be known by
/// its stamp.
pub(crate) fn reads(pipeline: &Pipeline, memo: &Memo) -> Option<Reads> {
    let files = pipeline.instances.iter().flat_map(|instance| instance.kind.files(&instance.params));
    let files: BTreeSet<_> = files.collect();
    files.into_iter().map(|path| memo.remembered(&path).map(|what| (path, what))).collect()
}

impl Project {
    /// The number of instances, if nothing is to be done for any of them. `None` means that they must be judged. It
    /// takes no lock: what another run does shows in the stamps.
    pub fn nothing_to_do(&self, question: &Question) -> Option<usize> {
        let text = String::from_utf8(read_plain(&self.idle(question)).ok()?).ok()?;
        let mut lines = text.splitn(6, '\n');
        let (head, asked, digest, count) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
        if head != HEAD || asked != question.digest.to_string() {
            return None;
        }
        let reads = lines.next()?.parse().ok()?;
        let names: Vec<_> = lines.next()?.split('\0').collect();
        let (read, shown) = names.split_at_checked(reads)?;
        let read = read.iter().map(|&name| Some((name, as_it_is(&self.root.join(name)).ok()?)));
        let read: Option<Vec<_>> = read.collect();
        let root = fs::File::open(&self.root).ok()?;
        let shown =
            shown.par_iter().with_min_len(512).map(|&name| Some((name, Stamp::at(&root, name).ok()?)));
        let shown: Option<Vec<_>> = shown.collect();
        let count = count.parse().ok()?;
        (digest_of(count, &read?, &shown?).to_string() == digest).then_some(count)
    }

    /// Keeps the answer to `question` after a run that left everything fresh. `reads` is what the instances
    /// were judged by. What a publishing stage writes is not known here, so there is no answer with one.
    pub(crate) fn remember_idle(
        &self,
        question: &Question,
        pipeline: &Pipeline,
        seen: &[Seen],
        state: &State,
        reads: &Reads,
    ) {
        let publishes = pipeline.instances.iter().any(|one| one.kind.publishes(&one.params).is_some());
        let names = if publishes { None } else { self.names(pipeline, seen, state) };
        let read = reads.iter().map(|(path, what)| Some((path.to_str()?, what.known_by())));
        let (Some(shown), Some(read)) = (names, read.collect::<Option<Vec<_>>>()) else { return };
        let shown: Vec<_> = shown.iter().map(|(name, stamp)| (name.as_str(), *stamp)).collect();
        let (asked, count) = (question.digest, pipeline.instances.len());
        let digest = digest_of(count, &read, &shown);
        let names: Vec<_> =
            read.iter().map(|(name, _)| *name).chain(shown.iter().map(|(name, _)| *name)).collect();
        let text = format!("{HEAD}\n{asked}\n{digest}\n{count}\n{}\n{}", read.len(), names.join("\0"));
        // Best effort: without it the next run judges in full.
        let _ = self.store.leave(&self.idle(question), text.as_bytes());
    }

    /// Everything that is shown, the index, what git is to ignore, the folder of the records, and the lock file, with their
    /// stamps.
    fn names(&self, pipeline: &Pipeline, seen: &[Seen], state: &State) -> Option<Vec<(String, Stamp)>> {
        let mut names = Vec::with_capacity(2 * seen.len() + 2);
        // The pipeline may have been found through a link, the project never is.
        let own = ["state", ".gitignore"].map(|name| (&self.root, self.store.cache().join(name)));
        for (root, place) in [(&pipeline.root, pipeline.lock_file())].into_iter().chain(own) {
            let name = place.strip_prefix(root).ok()?.to_str()?;
            let meta = fs::symlink_metadata(&place).ok()?;
            // A link does not tell what happens behind it.
            names.push((name.to_owned(), meta.is_file().then(|| Stamp::of(&meta))?));
        }
        let records = self.store.cache().join("records");
        names.push((
            records.strip_prefix(&self.root).ok()?.to_str()?.to_owned(),
            Stamp::of(&fs::metadata(&records).ok()?),
        ));
        for Seen { key, .. } in seen {
            let entry = state.results.get(key)?;
            let files = entry.files.iter().map(|file| (file.path.as_str(), file.stamp));
            let folders = entry.folders.iter().map(|Folder(path, stamp)| (path.as_str(), *stamp));
            for (path, stamp) in files.chain(folders) {
                // With a slash at its end a folder is asked for itself, also where a link leads to it.
                names.push((format!("artifacts/{key}/{path}"), stamp));
            }
        }
        Some(names)
    }

    fn idle(&self, question: &Question) -> PathBuf {
        self.store.cache().join("idle").join(question.name.to_string())
    }
}

/// Of the number of instances, and of names and what stands for the content of each: a digest where stages read it, a stamp
/// where it is shown.
fn digest_of(count: usize, read: &[(&str, Digest)], shown: &[(&str, Stamp)]) -> Digest {
    let read = Digest::of_tree(read.iter().map(|&(name, known_by)| (name, false, known_by)));
    let shown = Digest::of_listing(shown.iter().copied());
    Digest::of(format!("{count} {read} {shown}"))
}
