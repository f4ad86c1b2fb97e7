//! Files that a stage's process holds, each by a lock: its log, and the lock of its scratch folder. Knows nothing of what
//! they hold.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Instant,
};

use rustix::{fs::OFlags, process::Signal};

use crate::{
    error::{Context, EngineError},
    place::{link_below, plain, with_parent},
    process::{PATIENCE, end_leftovers},
};

/// How a file is opened that is no link, or else there is an error.
pub(crate) fn no_link() -> fs::OpenOptions {
    let mut options = File::options();
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Opens a file of the `cache` for a process to inherit, so that the lock that is taken on it lasts as long as anything of
/// the process does: also when the runner was killed and left it behind. Such a leftover is ended here; it would disturb
/// the stage's next try. What a link below the cache leads to is not its own to write to.
pub(crate) fn open_held(cache: &Path, path: &Path) -> Result<File, EngineError> {
    if let Some(link) = link_below(cache, path) {
        return Err(EngineError::user(
            format!("`{}` is a link, and would be written through", link.display()),
            "delete it, then run again",
        ));
    }
    let open = || no_link().read(true).append(true).create(true).open(path);
    let file = with_parent(path, open).context("open", path)?;
    // Whoever reads a pipe waits for ever.
    plain(path).context("open", path)?;
    let started = Instant::now();
    let mut asked = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error).context("lock", path),
            Err(TryLockError::WouldBlock) if started.elapsed() < 2 * PATIENCE => {
                if started.elapsed() > PATIENCE {
                    end_leftovers(path, Signal::KILL);
                } else if !std::mem::replace(&mut asked, true) {
                    end_leftovers(path, Signal::TERM);
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(EngineError::user(
                    format!("a process of an earlier run still holds `{}`", path.display()),
                    "end that process, then run again",
                ));
            }
        }
    }
}

/// Does any process hold the file? See [`open_held`], which takes nobody for a leftover who only asks.
pub(crate) fn is_held(path: &Path) -> bool {
    let file = plain(path).and_then(|_| File::open(path));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Opens the log at `path` as [`open_held`] does; empty, unless the stage goes on from what it has.
pub(crate) fn open_log(cache: &Path, path: &Path, goes_on: bool) -> Result<File, EngineError> {
    let log = open_held(cache, path)?;
    if !goes_on && log.metadata().context("read", path)?.len() > 0 {
        log.set_len(0).context("empty", path)?;
    }
    Ok(log)
}
