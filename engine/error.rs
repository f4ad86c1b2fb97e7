//! What can go wrong in the runner, as sentences with a place and a way out. Knows no exit
//! code, only whether data are damaged.

use std::{
    io,
    path::{Path, PathBuf},
};

/// What to do about a full disk.
pub const FULL: &str = "make room on the disk and run again; `repro gc` shows what the cache could give back; nothing \
                        finished was lost";

/// An error of the runner itself; a failing stage is an event and a line of the summary instead.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The file system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// What it was about.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another run holds the project.
    #[error("another `repro` is running in this project: it holds the lock `{}`", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Stored bytes are not what they were.
    #[error("`{}` is damaged: {message}", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// In what way.
        message: String,
    },
    /// What lies in the folder beside the project cannot be used.
    #[error("`{}` cannot be taken: {message}", path.display())]
    Beside {
        /// The file.
        path: PathBuf,
        /// Why not.
        message: String,
        /// Is it another than its name says?
        damaged: bool,
    },
    /// A request that cannot be fulfilled, or a stage that did not leave what it should.
    #[error("{message}")]
    User {
        /// A sentence.
        message: String,
        /// A way out.
        hint: String,
    },
}

impl EngineError {
    /// What the user can put right: a sentence and a way out.
    pub(crate) fn user(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::User { message: message.into(), hint: hint.into() }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, path, action } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(FULL.into()),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Some(permit(action, path))
                }
                io::ErrorKind::ArgumentListTooLong => {
                    Some("put long values into a file, and name that in `deps`".into())
                }
                _ => None,
            },
            Self::Locked { .. } => {
                Some("wait for the other run to end, or stop it; the lock ends with its process".into())
            }
            Self::Damaged { path, .. } => Some(format!(
                "delete `{}` and run again: what it held is then made anew; a disk that damages files \
                 should be checked",
                path.display()
            )),
            Self::Beside { damaged: true, path, .. } => Some(format!(
                "delete `{}`, and `repro push` it again from a clone that has it",
                path.display()
            )),
            Self::Beside { path, .. } => Some(permit("read", path)),
            Self::User { hint, .. } => Some(hint.clone()),
        }
    }

    /// Are stored data damaged? Everything else the user can put right.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Beside { damaged: true, .. })
    }
}

/// What must be allowed: to read a file, or to change it or the folder that it would be in.
fn permit(action: &str, path: &Path) -> String {
    let reads = ["read", "restore from"].contains(&action);
    // What comes to a place, or goes from it, is for the folder to let.
    let of_folder = ["create", "delete", "move aside", "remove", "write"].contains(&action);
    let place = if of_folder { path.parent().unwrap_or(path) } else { path };
    let there = place.ancestors().find(|path| path.exists()).filter(|_| !reads).unwrap_or(path);
    let how = if reads { "readable" } else { "writable" };
    format!("make `{}` {how} for you, then run again", there.display())
}

/// Says which path an [`io::Error`] was about.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, EngineError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, EngineError> {
        self.map_err(|source| EngineError::Io { action, path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_is_told_what_to_allow() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |action, path: &Path| {
            let error: io::Result<()> = Err(io::ErrorKind::PermissionDenied.into());
            error.context(action, path).unwrap_err().hint().unwrap()
        };
        let file = folder.path().join("below/file");
        assert_eq!(
            refused("read", &file),
            format!("make `{}` readable for you, then run again", file.display())
        );
        let hint = format!("make `{}` writable for you, then run again", folder.path().display());
        assert_eq!(refused("create", &file), hint);
        // Also where something is in its place.
        let there = folder.path().join("there");
        std::fs::create_dir(&there).unwrap();
        for action in ["create", "delete", "move aside", "remove", "write"] {
            assert_eq!(refused(action, &there), hint);
        }
    }
}
