//! One run at a time per project. Knows nothing of what the run does.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

use crate::error::{Context, EngineError};

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
        fs::create_dir_all(cache).context("create", cache)?;
        let path = cache.join("lock");
        let file = File::options().create(true).append(true).open(&path).context("open", &path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(EngineError::Locked { path }),
            Err(TryLockError::Error(error)) => Err(error).context("lock", &path),
        }
    }
}
