//! Starts the processes of stages elsewhere, by a command line such as `srun -n 1` that runs what stands behind it. Knows
//! no stage, and none of the programs that do that.

use std::{
    env,
    ffi::OsStr,
    io::{self, Read as _, Stdin, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::{consts::SIGTERM, iterator::Signals};

use crate::{instance::Resources, process::ProcessGroup};

/// How long a command that is ended may take to end by itself.
const GRACE: Duration = Duration::from_secs(1);

/// The words before a stage's own, as a shell reads them. They can use what the stage asks for as variables.
#[derive(Clone, Debug)]
pub struct Launcher(pub String);

impl Launcher {
    /// A process that has `program` run for the stage `instance`; what is added to its arguments are the program's.
    pub(crate) fn command(&self, program: &Path, instance: &str, resources: Resources) -> Command {
        let mut shell = Command::new("/bin/sh");
        // In the shell's place, so that it gets the signals, and its exit code is heard.
        shell.arg("-c").arg(format!("exec {} \"$@\"", self.0)).arg("repro").arg(program);
        shell.env("REPRO_STAGE", instance).env("REPRO_THREADS", resources.threads.to_string());
        // Left out where nothing is asked for: to Slurm no memory means all of it.
        for name in ["REPRO_GPUS", "REPRO_MEMORY_MIB"] {
            shell.env_remove(name);
        }
        if resources.gpus > 0 {
            shell.env("REPRO_GPUS", resources.gpus.to_string());
        }
        if resources.memory > 0 {
            shell.env("REPRO_MEMORY_MIB", resources.memory.div_ceil(1 << 20).to_string());
        }
        shell
    }
}

/// How a shell is given the text of a command: the first line of it that fails ends it.
pub(crate) const SHELL_OPTIONS: &str = "-ec";

/// The variable with a word that no other process was given, for [`end`].
pub(crate) const END: &str = "REPRO_END";

/// The end of what a launched command says, if its exit code is zero: whether a launcher passes that on is not known.
pub(crate) fn end(unlike: &str) -> String {
    format!("[repro: the command ended well: {unlike}]")
}

/// What a launcher starts for a command: runs the command line `run`, and ends with its exit code. The end of the standard
/// input asks the command to stop, by SIGTERM: launchers pass that end on, and where they are sent a signal they kill.
/// Such a signal ends it within a second. What it started ends with it.
pub fn run_command(run: &OsStr) -> ExitCode {
    let failed = |what: &str, error: io::Error| {
        let _ = writeln!(io::stderr().lock(), "cannot {what}: {error}");
        ExitCode::FAILURE
    };
    if is_over(&io::stdin()) {
        return ExitCode::from(128 + SIGTERM as u8); // it is to stop before it began, having waited too long
    }
    let mut signals = match Signals::new([SIGTERM]) {
        Ok(signals) => signals,
        Err(error) => return failed("listen to signals", error),
    };
    let mut shell = Command::new("/bin/sh");
    shell.arg(SHELL_OPTIONS).arg(run).env_remove(END).stdin(Stdio::null()).process_group(0);
    let mut child = match shell.spawn() {
        Ok(child) => child,
        Err(error) => return failed("start `/bin/sh`", error),
    };
    let group = ProcessGroup::of(&child);
    let (asked, told) = (group.clone(), group.clone());
    std::thread::spawn(move || {
        while matches!(io::stdin().lock().read(&mut [0]), Ok(1..)) {}
        asked.ask();
    });
    std::thread::spawn(move || {
        for _ in signals.forever() {
            told.ask();
            std::thread::sleep(GRACE);
            told.kill();
        }
    });
    match group.wait_and_end(&mut child) {
        Ok(status) => {
            if status.success() {
                let _ = writeln!(io::stdout().lock(), "{}", end(&env::var(END).unwrap_or_default()));
            }
            // As a shell says it of a signal.
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => failed("wait for `/bin/sh`", error),
    }
}

/// Has it nothing more to say?
fn is_over(input: &Stdin) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(input, PollFlags::IN)];
    let readable = poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0);
    readable && matches!(input.lock().read(&mut [0]), Ok(0))
}
