//! Whose is a project that lies above the folder in which somebody works? Says only whether it is taken.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use engine::pipeline::root_of;
use rustix::process::geteuid;

use crate::{args::FILE, error::Failure};

/// Refuses the project of the pipeline file `file` if it was found in a folder above and somebody else made it, as anybody
/// can in `/tmp`: its stages start programs. Who made a pipeline file that was asked for is believed about its project.
pub(crate) fn check(file: &Path) -> Result<(), Failure> {
    let root = root_of(file);
    let own = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if own.canonicalize().ok() == root.canonicalize().ok() {
        return Ok(());
    }
    let owner = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| meta.uid());
    let sudo = std::env::var("SUDO_UID").ok().and_then(|number| number.parse().ok());
    let strange = |path: &&Path| {
        owner(path).is_some_and(|it| owner(file) != Some(it) && !believes(geteuid().as_raw(), sudo, it))
    };
    let parts = [root.join(FILE), root.join(".repro")];
    let Some(strange) = [root.as_path(), &parts[0], &parts[1]].into_iter().find(strange) else {
        return Ok(());
    };
    let message = format!(
        "`{}` belongs to another user, and would be taken for the project, which lies above",
        strange.display()
    );
    Err(Failure::user(message).hint(format!(
        "if you trust them, work there: `-C {}`; if not, give your own project a `{FILE}` or a `.repro` below",
        root.display()
    )))
}

/// Does the user with this number believe the owner? As of git: themselves, root, and as root whoever became it by `sudo`.
fn believes(user: u32, sudo: Option<u32>, owner: u32) -> bool {
    owner == user || owner == 0 || (user == 0 && sudo == Some(owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_believes_others_but_root_whoever_became_it() {
        assert!(
            believes(7, None, 7) && believes(7, None, 0) && believes(0, None, 0) && believes(0, Some(7), 7)
        );
        assert!(!believes(7, None, 8) && !believes(0, None, 7) && !believes(0, Some(7), 8));
        // Anybody can set a variable.
        assert!(!believes(7, Some(8), 8));
    }
}
