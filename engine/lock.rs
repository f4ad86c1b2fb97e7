//! One run at a time per project. Knows nothing of what the run does.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    error::{Context, EngineError},
    place::{passable, read_plain},
};

/// A process that a run was starting when it was killed has a copy of the lock until it has become another program.
const PATIENCE: Duration = Duration::from_millis(300);

/// What keeps all of the cache out of git.
const IGNORED: &str = "# Made by `repro`.\n*\n";

/// Held while it lives; the system releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Said outright: a process being started right now may hold a copy of the descriptor.
        let _ = self.0.unlock();
    }
}

impl Lock {
    /// Takes the project's lock, or says that another run holds it.
    pub(crate) fn take(cache: &Path) -> Result<Self, EngineError> {
        Self::within(PATIENCE, cache)
    }

    fn within(patience: Duration, cache: &Path) -> Result<Self, EngineError> {
        let path = cache.join("lock");
        if let Err(error) = fs::create_dir_all(cache) {
            // What is in its place says more than that error.
            passable(&path, "the cache is to be in it")?;
            return Err(error).context("create", cache);
        }
        refuse_foreign(cache)?;
        let ignored = cache.join(".gitignore");
        if !ignored.exists() {
            // A courtesy; what cannot be written here is said about something that matters.
            let _ = fs::write(&ignored, IGNORED);
        }
        let file = File::options().create(true).append(true).open(&path).context("open", &path)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if started.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => return Err(EngineError::Locked { path }),
                Err(TryLockError::Error(error)) => return Err(error).context("lock", &path),
            }
        }
    }
}

/// Refuses a cache in which a link lies, as a clone may bring one: what it leads to would be emptied, replaced or deleted
/// as part of the cache. One in place of the cache itself may lead to another disk, but to no folder of something else.
pub(crate) fn refuse_foreign(cache: &Path) -> Result<(), EngineError> {
    let refused = |message: String, hint: &str| Err(EngineError::user(message, hint));
    let mut empty = true;
    for entry in
        cache.is_dir().then(|| fs::read_dir(cache).context("read", cache)).transpose()?.into_iter().flatten()
    {
        let entry = entry.context("read", cache)?;
        empty = false;
        if entry.file_type().context("read", cache)?.is_symlink() {
            let link = entry.path();
            let message =
                format!("`{}` is a link, and the cache would be written through it", link.display());
            return refused(message, "delete it; a link may stand in place of `.repro` itself");
        }
    }
    let ours = || {
        let marked = read_plain(&cache.join(".gitignore")).is_ok_and(|text| text == IGNORED.as_bytes());
        marked || cache.join("project").exists()
    };
    if !empty && cache.is_symlink() && !ours() {
        let message = format!("`{}` is a link to a folder that holds something else", cache.display());
        return refused(
            message,
            "let it lead to an empty folder; or remove it, and the next run makes a folder",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_ends_soon_is_waited_for_and_another_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lock::take(folder.path()).unwrap();
        assert!(matches!(Lock::take(folder.path()), Err(EngineError::Locked { .. })));
        let soon = std::thread::spawn(move || {
            std::thread::sleep(PATIENCE / 10);
            drop(held);
        });
        Lock::within(100 * PATIENCE, folder.path()).unwrap();
        soon.join().unwrap();
    }

    #[test]
    fn what_is_in_the_place_of_the_cache_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let [link, file] = ["link", "file"].map(|name| folder.path().join(name));
        std::os::unix::fs::symlink("/nope", &link).unwrap();
        fs::write(&file, "mine").unwrap();
        let told = |cache: &Path| {
            let error = Lock::take(cache).unwrap_err();
            (error.to_string(), error.hint().unwrap_or_default())
        };
        let (message, hint) = told(&link);
        assert_eq!(message, format!("`{}` is a link to `/nope`, which is not there", link.display()));
        assert!(hint.contains("remove the link"), "{hint}");
        let (message, hint) = told(&file);
        assert_eq!(message, format!("`{}` is not a folder, and the cache is to be in it", file.display()));
        assert!(hint.starts_with("move it away"), "{hint}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }
}
