//! A project in a temporary folder and the binary in it. Knows no command's meaning.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

/// A project; deleted at the end of the test.
pub(crate) struct TestProject {
    folder: TempDir,
}

/// What a call of the binary gave.
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl TestProject {
    /// With this text as its `pipeline.toml`.
    pub(crate) fn new(pipeline: &str) -> Self {
        let project = Self { folder: TempDir::new().expect("a temporary folder") };
        project.write("pipeline.toml", pipeline);
        project
    }

    /// A path in the project.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the project.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a writable temporary folder");
    }

    /// Reads a file of the project.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file of the project")
    }

    /// Calls `repro` in the project.
    pub(crate) fn repro(&self, args: &[&str]) -> Answer {
        let output = Command::new(env!("CARGO_BIN_EXE_repro"))
            .args(args)
            .current_dir(self.folder.path())
            .env_remove("REPRO_PROFILE")
            .output()
            .expect("the binary starts");
        Answer::from(output)
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
