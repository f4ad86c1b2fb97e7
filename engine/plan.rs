//! Where an instance may stand, and why: the words of the judge. Looks at nothing.

use std::{fmt, path::PathBuf};

use crate::{digest::Digest, instance::InstanceId, recipe::Change};

/// Where an instance stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The stored recipe equals today's and every output is there and intact.
    Fresh,
    /// What is shown is not today's result, but the cache holds that: nothing has to run. Which output was
    /// touched, or what does not show it, where that is so.
    Restorable(Option<Why>),
    /// Files of today's result are missing, and the lock file's word is taken for it; only where it was asked to be.
    Locked,
    /// It must run; this is why.
    Stale(Vec<Why>),
    /// Cannot be judged until these have run: what they produce is in its recipe.
    Waiting(Vec<InstanceId>),
}

impl Standing {
    /// Is what is shown today's result, as far as it is there?
    pub fn is_current(&self) -> bool {
        matches!(self, Self::Fresh | Self::Locked)
    }
}

/// Why an instance is stale: each a sentence of `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no result of any recipe.
    NeverRan,
    /// The recipe differs from that of the result that is there.
    Changed(Vec<Change>),
    /// A file or folder of the result is not there.
    OutputMissing(PathBuf),
    /// A file or folder of the result was altered.
    OutputAltered(PathBuf),
    /// The cache holds today's result, damaged: which object, and how.
    CacheDamaged(String),
    /// Something lies in the result that is not of it.
    OutputSurplus(PathBuf),
    /// A file that the stage reads cannot be read: it is never hashed, so there is no recipe.
    FileMissing(PathBuf, String),
    /// It may read whatever its inputs hold, and they were taken without this file, and without so many more.
    InputLacks(PathBuf, usize),
    /// It was asked for with `--force`.
    Asked,
    /// It was tried, and this is how that ended.
    Failed(String),
    /// A process is at it. Only said to who asks, not to a run.
    Running,
    /// It has something to go on from. Only said to who asks, not to a run.
    Stopped,
    /// A file of the project does not show it.
    NotPublished(PathBuf),
    /// A file of the project lies where its own are, and is not of it.
    NotRemoved(PathBuf),
    /// Files of the project cannot show it, and this is why.
    Unpublishable(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRan => f.write_str("never ran"),
            Self::Changed(changes) if changes.is_empty() => f.write_str("its recipe changed"),
            Self::Changed(changes) => {
                for (index, change) in changes.iter().enumerate() {
                    if index > 0 {
                        f.write_str("; ")?;
                    }
                    write!(f, "{change}")?;
                }
                Ok(())
            }
            Self::OutputMissing(path) => write!(f, "`{}` is missing", path.display()),
            Self::OutputAltered(path) => write!(f, "`{}` was altered", path.display()),
            Self::OutputSurplus(path) => write!(f, "`{}` is not part of the result", path.display()),
            Self::CacheDamaged(what) => f.write_str(what),
            Self::FileMissing(path, reason) => write!(f, "it reads `{}`: {reason}", path.display()),
            Self::InputLacks(path, 0) => write!(f, "its input lacks `{}`", path.display()),
            Self::InputLacks(path, more) => write!(f, "its input lacks `{}` and {more} more", path.display()),
            Self::Asked => f.write_str("asked for"),
            Self::Running => f.write_str("it is running"),
            Self::Stopped => f.write_str("it goes on from where it was stopped"),
            Self::Failed(how) => write!(f, "its last run failed: {how}"),
            Self::NotPublished(path) => write!(f, "`{}` does not show it", path.display()),
            Self::NotRemoved(path) => write!(f, "`{}` is not of it", path.display()),
            Self::Unpublishable(why) => f.write_str(why),
        }
    }
}

/// What was found where the result is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No result was ever shown.
    Nothing,
    /// Every file as it was put there, by this recipe.
    Intact(Digest),
    /// What this recipe made, but for what one of [`Why::OutputMissing`], [`Why::OutputAltered`] and
    /// [`Why::OutputSurplus`] says.
    Spoilt(Digest, Why),
}

impl Found {
    /// The recipe of the result that is shown.
    pub(crate) fn recipe(&self) -> Option<Digest> {
        match self {
            Self::Nothing => None,
            Self::Intact(recipe) | Self::Spoilt(recipe, _) => Some(*recipe),
        }
    }

    /// What of the result is not as it was put there.
    pub(crate) fn spoilt(&self) -> Option<&PathBuf> {
        match self {
            Self::Spoilt(
                _,
                Why::OutputMissing(path) | Why::OutputAltered(path) | Why::OutputSurplus(path),
            ) => Some(path),
            _ => None,
        }
    }
}
