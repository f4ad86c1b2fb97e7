//! Files as a commit has them, asked of git. Knows nothing of what they hold.

use std::{collections::BTreeSet, path::Path, process::Output};

use engine::machine;

use crate::error::Failure;

/// The content of `path` in the commit `revision`; none where that commit has no such file.
pub(crate) fn show(revision: &str, path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    // Its own folder may be gone by now.
    let folder = path.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(path);
    let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
    let commit = format!("{revision}^{{commit}}");
    let known = git(folder, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])?;
    if !known.status.success() {
        // What it does not know it leaves with this code, and what it refuses to look at with another.
        if known.status.code() != Some(1) {
            let hint = "`metrics diff` and `params diff` also take a file that `--json` wrote";
            return Err(refused("rev-parse", &known).hint(hint));
        }
        let message = format!("`{revision}` is neither a file nor a commit that git knows here");
        return Err(
            Failure::user(message).hint("name a file that `--json` wrote, a commit, a branch or a tag")
        );
    }
    // Relative to the folder, wherever in the repository that is. What a partial clone lacks is not missing in the commit.
    let (id, name) = (String::from_utf8_lossy(&known.stdout).trim().to_owned(), format!("./{name}"));
    if succeeded("ls-tree", git(folder, &["ls-tree", &id, "--", &name])?)?.is_empty() {
        return Ok(None);
    }
    succeeded("show", git(folder, &["show", &format!("{id}:{name}")])?).map(Some)
}

/// The files `*.lock` below `folder` as all branches, remote ones, tags, the commit that is checked out and all that is
/// stashed have them, each text once; none outside of a repository.
pub(crate) fn lock_files(folder: &Path) -> Result<Vec<String>, Failure> {
    if !folder.ancestors().any(|folder| folder.join(".git").exists()) {
        return Ok(Vec::new());
    }
    let ask = |words: &[&str]| -> Result<Vec<u8>, Failure> {
        let unknown = |failure: Failure| {
            failure.hint("without git nobody knows what other branches lock: see that it works here")
        };
        git(folder, words).and_then(|output| succeeded(words[0], output)).map_err(unknown)
    };
    let lines = |words: &[&str]| -> Result<Vec<String>, Failure> {
        let text = ask(words)?;
        let lines = text.split(|byte| b"\n\0".contains(byte)).filter(|line| !line.is_empty());
        Ok(lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect())
    };
    // A tag may be of anything, and what is no tree locks nothing; an older git says `tag` of a tag of a tag.
    let format = "--format=%(if)%(*objecttype)%(then)%(*objecttype) %(*objectname)\
                  %(else)%(objecttype) %(objectname)%(end)";
    let references = lines(&["for-each-ref", format])?;
    let named = references.iter().filter_map(|line| line.split_once(' '));
    let trees = named.filter(|(kind, _)| *kind != "blob").map(|(_, id)| id.to_owned());
    let mut tips: BTreeSet<String> = trees.collect();
    tips.extend(lines(&["stash", "list", "--format=%H"])?);
    // There is none before the first commit.
    tips.extend(lines(&["rev-parse", "--verify", "--quiet", "HEAD"]).unwrap_or_default());
    let mut blobs = BTreeSet::new();
    for tip in tips {
        // One that cannot be read, as in a partial clone, may lock whatever there is.
        for line in lines(&["ls-tree", "-r", "-z", &tip])? {
            // mode, type, id, and after a tab the name
            let (facts, name) = line.split_once('\t').unwrap_or_default();
            blobs.extend(facts.rsplit(' ').next().filter(|_| name.ends_with(".lock")).map(str::to_owned));
        }
    }
    let text = |blob: String| Ok(String::from_utf8_lossy(&ask(&["cat-file", "blob", &blob])?).into_owned());
    blobs.into_iter().map(text).collect()
}

/// What git said, if it did what it was asked to.
fn succeeded(word: &str, output: Output) -> Result<Vec<u8>, Failure> {
    if output.status.success() { Ok(output.stdout) } else { Err(refused(word, &output)) }
}

/// What git says where it does not do what it was asked to.
fn refused(word: &str, output: &Output) -> Failure {
    let said = String::from_utf8_lossy(&output.stderr);
    Failure::user(format!("`git {word}` says: {}", said.trim()))
}

fn git(folder: &Path, words: &[&str]) -> Result<Output, Failure> {
    machine::git(folder).args(words).output().map_err(|e| {
        let hint = "install git; `metrics diff` and `params diff` also take a file that `--json` wrote";
        Failure::user(format!("cannot start `git`: {e}")).hint(hint)
    })
}
