//! Files as a commit has them, asked of git. Knows nothing of what they hold.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output},
};

use crate::error::{Failure, FailureKind};

/// The content of `path` in the commit `revision`; none where that commit has no such file.
pub(crate) fn show(revision: &str, path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    // Its own folder may be gone by now.
    let folder = path.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(path);
    let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
    let commit = format!("{revision}^{{commit}}");
    let known = git(folder, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])?;
    if !known.status.success() {
        let message = format!("`{revision}` is neither a file nor a commit that git knows here");
        let hint = "name a file that `--json` wrote, a commit, a branch or a tag".to_owned();
        return Err(Failure { hint: Some(hint), ..Failure::new(FailureKind::User, message) });
    }
    // Relative to the folder, wherever in the repository that is.
    let found = git(folder, &["show", "--end-of-options", &format!("{revision}:./{name}")])?;
    Ok(found.status.success().then_some(found.stdout))
}

/// The files `*.lock` below `folder` as all branches, remote ones, tags and the stash have them, each text once; none where
/// git knows no repository.
pub(crate) fn lock_files(folder: &Path) -> Vec<String> {
    let lines = |words: &[&str]| -> Vec<String> {
        let output = git(folder, words).ok().filter(|output| output.status.success());
        let text =
            output.map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.split(['\n', '\0']).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    let mut blobs = BTreeSet::new();
    for tip in BTreeSet::from_iter(lines(&["for-each-ref", "--format=%(objectname)"])) {
        // mode, type, id, and after a tab the name
        for line in lines(&["ls-tree", "-r", "-z", &tip]) {
            let (facts, name) = line.split_once('\t').unwrap_or_default();
            blobs.extend(facts.rsplit(' ').next().filter(|_| name.ends_with(".lock")).map(str::to_owned));
        }
    }
    let text = |blob: String| String::from_utf8(git(folder, &["cat-file", "blob", &blob]).ok()?.stdout).ok();
    blobs.into_iter().filter_map(text).collect()
}

fn git(folder: &Path, words: &[&str]) -> Result<Output, Failure> {
    Command::new("git").arg("-C").arg(folder).args(words).output().map_err(|e| {
        let hint = "install git, or compare with a file that `--json` wrote".to_owned();
        Failure { hint: Some(hint), ..Failure::new(FailureKind::User, format!("cannot start `git`: {e}")) }
    })
}
