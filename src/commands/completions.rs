//! `repro completions`: completion scripts for shells.

use std::process::ExitCode;

use crate::{args, error::Failure, ui};

pub(super) fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "repro", &mut script);
    ui::raw(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}
