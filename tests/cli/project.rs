//! A project in a temporary folder and the binary in it. Knows no command's meaning.

use std::{
    ffi::OsStr,
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
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

    /// Replaces `from`, which must be there, in a file of the project.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "no `{from}` in:\n{text}");
        self.write(name, &text.replace(from, to));
    }

    /// Calls `repro` in the project.
    pub(crate) fn repro(&self, args: &[&str]) -> Answer {
        self.start(args).wait()
    }

    /// Calls `repro` in the project and checks that it ends with `code`.
    #[track_caller]
    pub(crate) fn ends(&self, args: &[&str], code: i32) -> Answer {
        let answer = self.repro(args);
        assert_eq!(answer.code, Some(code), "{args:?}\n{}{}", answer.out, answer.err);
        answer
    }

    /// Calls `repro` in the project and reads what it prints as JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str], code: i32) -> serde_json::Value {
        serde_json::from_str(&self.ends(args, code).out).expect("JSON")
    }

    /// Starts `repro` in the project.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_with(args, [])
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_with<'a>(
        &self,
        args: &[&str],
        variables: impl IntoIterator<Item = (&'a str, &'a OsStr)>,
    ) -> Running {
        // With signals as a terminal gives them, whatever the tests were started with.
        let program = env!("CARGO_BIN_EXE_repro");
        let mut command = Command::new(if cfg!(target_os = "linux") { "env" } else { program });
        if cfg!(target_os = "linux") {
            command.args(["--default-signal=HUP,INT,TERM", program]);
        }
        self.start_as(command.args(args).envs(variables))
    }

    /// Starts `command`, which is to become `repro`, in the project.
    pub(crate) fn start_as(&self, command: &mut Command) -> Running {
        let child = by_itself(command)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Running(Some(child.expect("the binary starts")))
    }

    /// Waits until a file of the project is there.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str) {
        let start = Instant::now();
        while !self.path(name).exists() {
            assert!(start.elapsed() < Duration::from_secs(30), "`{name}` does not appear");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// With nothing of its own from whoever runs the tests: not what `repro` or git are to use, nor a language.
pub(crate) fn by_itself(command: &mut Command) -> &mut Command {
    for name in ["REPRO_PROFILE", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    command.envs([("LC_ALL", "C"), ("REPRO_DEVICE", "cpu")]);
    command.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
}

/// The binary at work.
pub(crate) struct Running(Option<Child>);

impl Running {
    /// Sends it a signal, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.0.as_ref().expect("it runs").id().to_string();
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status();
        assert!(status.expect("there is a shell").success());
    }

    /// Has it ended?
    pub(crate) fn ended(&mut self) -> bool {
        self.0.as_mut().expect("it runs").try_wait().expect("it can be waited for").is_some()
    }

    /// Waits for its end, which comes by force after five minutes: a test had better fail than hang.
    pub(crate) fn wait(mut self) -> Answer {
        let child = self.0.take().expect("it runs");
        let id = child.id().to_string();
        let (ended, end) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if end.recv_timeout(Duration::from_secs(300)) == Err(RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &id]).status();
            }
        });
        let answer = Answer::from(child.wait_with_output().expect("it can be waited for"));
        drop(ended);
        answer
    }
}

/// A test that fails leaves nothing running.
impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
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
