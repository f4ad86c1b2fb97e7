//! Results of another time, as a lock file of that time names them. Knows neither where the lock file
//! comes from nor what the results mean.

use std::collections::BTreeMap;

use crate::{digest::Digest, error::EngineError, lockfile, project::Project};

/// What an instance's result held once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The digest of the file that was asked for.
    pub digest: Digest,
    /// Its content, if the cache still has it.
    pub content: Option<Vec<u8>>,
}

impl Project {
    /// The `file` of each instance whose result had one, by the text of a lock file; `profile` says
    /// which part of it. `place` names the lock file in errors.
    ///
    /// # Errors
    /// When the text is not that of a lock file.
    pub fn past(
        &self,
        lock: &str,
        place: &str,
        profile: Option<&str>,
        file: &str,
    ) -> Result<BTreeMap<String, Past>, EngineError> {
        let section = lockfile::parse(lock, place)?.remove(lockfile::section(profile)).unwrap_or_default();
        let digests = section.into_iter().filter_map(|(name, locked)| Some((name, locked.output(file)?)));
        let past = |(name, digest)| (name, Past { digest, content: self.store.content(digest) });
        Ok(digests.map(past).collect())
    }
}
