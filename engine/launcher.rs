//! Starts the processes of stages elsewhere, by a command line such as `srun -n 1` that runs what stands behind it. Knows
//! no stage, and none of the programs that do that.

use std::{path::Path, process::Command};

use crate::instance::Resources;

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
