//! What others laid into a project's folder, as a clone may bring it, harms nobody who works there.

use std::fs;

use crate::project::TestProject;

const ONE: &str = "[stage.one]\nkind = \"command\"\noutputs = [\"x\"]\nrun = \"echo 1 > $OUT/x\"\n";

#[test]
fn git_starts_no_program_that_a_bare_repository_in_the_folder_names() {
    let project = TestProject::new(ONE);
    for folder in ["objects", "refs"] {
        fs::create_dir(project.path(folder)).unwrap();
    }
    project.write("HEAD", "ref: refs/heads/main\n");
    let ran = project.path("ran");
    project.write(
        "config",
        &format!(
            "[core]\nrepositoryformatversion = 0\nbare = false\nworktree = .\nfsmonitor = \"touch '{}'; false\"\n",
            ran.display()
        ),
    );
    project.ends(&["run"], 0);
    project.ends(&["metrics", "diff", "HEAD"], 2);
    assert!(!ran.exists());
}
