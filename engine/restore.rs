//! Gives back what the cache holds: a result's files, each checked against its digest, and objects that were lost. Knows
//! what lies beside the project only as another place to look.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind, Seek as _},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::{
    digest::Digest,
    error::{Context, EngineError},
    place::{copy_into, create_new, plain},
    recipe::Recipe,
    record::{Facts, Record, now},
    state::Entry,
    store::{Draft, Folder, Output, Store, stamp},
};

impl Store {
    /// A draft with a recorded result's files. What is not here comes from beside.
    pub(crate) fn restore(&self, record: &Record) -> Result<(Draft, Entry), EngineError> {
        let recipe = Digest::of(&record.recipe);
        let restored = self.draw(recipe, &record.outputs)?;
        if self.beside.is_some() && self.record(recipe).as_ref() != Some(record) {
            self.write_record(recipe, record)?;
        }
        Ok(restored)
    }

    /// A draft with these files, which a `recipe` made, each checked against its digest. An object that fails is deleted, so
    /// that it is made anew; so is one that cannot be read. What is not here comes from beside.
    pub(crate) fn draw(&self, recipe: Digest, outputs: &[Output]) -> Result<(Draft, Entry), EngineError> {
        self.bring(outputs)?;
        for _ in outputs {
            match self.copy_out(recipe, outputs) {
                Err(EngineError::Damaged { .. }) if self.beside.is_some() && self.bring(outputs).is_ok() => {}
                done => return done,
            }
        }
        self.copy_out(recipe, outputs)
    }

    fn copy_out(&self, recipe: Digest, outputs: &[Output]) -> Result<(Draft, Entry), EngineError> {
        let (draft, mut entry) = (self.begin()?, Entry::expected(recipe, outputs));
        for Folder(path, _) in &entry.folders {
            let folder = draft.path().join(path);
            fs::create_dir_all(&folder).context("create", &folder)?;
        }
        for file in &mut entry.files {
            let (copy, object) = (draft.path().join(&file.path), self.object(file.digest));
            let mode = if file.executable { 0o777 } else { 0o666 };
            if let Err(error) = create_new(&copy, mode).and_then(|mut copy| copy_into(&object, &mut copy)) {
                return Err(unusable(object, error));
            }
            file.stamp = stamp(&copy)?;
            if let Err(error) = check(&object, &copy, file.digest) {
                return Err(blame(object, file.digest, error));
            }
        }
        for Folder(path, then) in &mut entry.folders {
            *then = stamp(&draft.path().join(path))?;
        }
        Ok((draft, entry))
    }

    /// The first object of a record that is not what its name says, neither here nor beside, but for those that are put
    /// there again. Reads them all.
    pub(crate) fn damage(&self, record: &Record, put: &BTreeSet<Digest>) -> Option<EngineError> {
        let files =
            record.outputs.iter().filter(|output| !output.is_folder() && !put.contains(&output.digest));
        let checks = files.map(|output| {
            let whole = |store: &Self| {
                let object = store.object(output.digest);
                check(&object, &object, output.digest)
            };
            whole(self).or_else(|error| self.beside.as_ref().map_or(Err(error), |share| whole(&share.0)))
        });
        checks.filter_map(Result::err).next()
    }

    /// Takes a result that lies in `place`, and that this recipe made somewhere else, into the cache. Objects that are
    /// damaged there are made again.
    pub(crate) fn adopt(
        &self,
        recipe: &Recipe,
        instance: &str,
        place: &Path,
        entry: &Entry,
    ) -> Result<(), EngineError> {
        for file in &entry.files {
            let object = self.object(file.digest);
            if check(&object, &object, file.digest).is_err() {
                self.refill(file.digest, &place.join(&file.path))?;
            }
        }
        // The same recipe may have come to other bytes here: what is shown counts.
        if self.record(recipe.digest()).is_some_and(|record| record.tree == entry.tree) {
            return Ok(());
        }
        let beside = self.beside.as_ref().and_then(|share| share.record(recipe.digest()));
        if let Some(record) = beside.filter(|record| record.tree == entry.tree) {
            return self.write_record(recipe.digest(), &record);
        }
        let notes = [("made".to_owned(), "elsewhere".into())].into();
        let run = Facts { instance: instance.to_owned(), started: now(), notes, ..Facts::default() };
        // Objects that a crash takes from it are noticed when they are read.
        self.write_record(
            recipe.digest(),
            &Record { recipe: recipe.text().to_owned(), outputs: entry.outputs(), tree: entry.tree, run },
        )
    }

    /// Makes an object again of `place`, if that has its content.
    pub(crate) fn refill(&self, digest: Digest, place: &Path) -> Result<(), EngineError> {
        self.put(digest, |object| {
            copy_into(place, object)?;
            object.rewind()?;
            match Digest::of_open(object)? == digest {
                true => Ok(()),
                false => Err(io::Error::other("it has another content")),
            }
        })
    }
}

/// How a disk says that it has lost what it should give back.
const LOST: &[Errno] = &[
    Errno::IO,
    Errno::BADMSG,
    #[cfg(target_os = "linux")]
    Errno::UCLEAN,
];

/// What it means that `object` could not be copied. One that a disk does not give back is deleted, or every run
/// would end here; nothing else is a reason to.
fn unusable(object: PathBuf, error: io::Error) -> EngineError {
    let read = plain(&object).and_then(|_| io::copy(&mut fs::File::open(&object)?, &mut io::sink()));
    let lost = |error: &io::Error| {
        let code = Errno::from_io_error(error);
        error.kind() == ErrorKind::NotFound || code.is_some_and(|code| LOST.contains(&code))
    };
    match read {
        Err(error) if lost(&error) => {
            let _ = fs::remove_file(&object);
            EngineError::Damaged { path: object, message: format!("it cannot be read: {error}") }
        }
        _ => EngineError::Io { action: "restore from", path: object, source: error },
    }
}

/// What it means that a copy of `object` has another content: that of the object, which is deleted then, or what
/// happened to the copy.
fn blame(object: PathBuf, expected: Digest, copied: EngineError) -> EngineError {
    match check(&object, &object, expected) {
        Err(damaged @ EngineError::Damaged { .. }) => {
            let _ = fs::remove_file(&object);
            damaged
        }
        Err(error) => error,
        Ok(()) => {
            let source = io::Error::other(format!("the copy is not what was copied: {copied}"));
            EngineError::Io { action: "restore from", path: object, source }
        }
    }
}

/// Is what can be `read` the content of `object`?
pub(crate) fn check(object: &Path, read: &Path, expected: Digest) -> Result<(), EngineError> {
    let found = Digest::of_file(read).context("read", read)?;
    if found == expected {
        return Ok(());
    }
    let message = format!("its content has the digest {found}, not the one in its name");
    Err(EngineError::Damaged { path: object.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_deleted_for_what_is_wrong_with_it_and_for_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let object = folder.path().join("object");
        let digest = Digest::of("good");
        let interrupted = || io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        fs::write(&object, "good").unwrap();
        let copied = EngineError::Damaged { path: object.clone(), message: "the copy is short".into() };
        for error in [blame(object.clone(), digest, copied), unusable(object.clone(), interrupted())] {
            assert!(matches!(error, EngineError::Io { .. }), "{error}");
            assert!(object.exists(), "{error}");
        }
        fs::write(&object, "spoilt").unwrap();
        let copied = EngineError::Damaged { path: object.clone(), message: "the copy is not it".into() };
        assert!(matches!(blame(object.clone(), digest, copied), EngineError::Damaged { .. }));
        assert!(!object.exists());
        assert!(matches!(unusable(object, interrupted()), EngineError::Damaged { .. }), "it is gone");
    }
}
