//! `repro`: reproduces the experiments of "Training BatchNorm and Only BatchNorm". See README.md.
//!
//! This package turns words on a command line into calls of the runner and the runner's answers
//! into text. It does not know how staleness is decided.

mod args;
mod commands;
mod error;
mod events;
mod git;
mod measure;
mod owner;
mod report;
mod signals;
mod ui;
mod versions;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The runner starts this program again for each stage; no person calls it that way.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "__stage") {
        return words.next().map_or_else(
            || engine::child::serve(&stages::kinds()),
            |line| engine::launcher::run_command(&line),
        );
    }
    signals::hear_children();
    signals::outlive_limits();
    let mut args = args::parse();
    match commands::dispatch(&mut args) {
        Ok(code) => code,
        Err(failure) => {
            ui::failure(&failure);
            failure.kind.into()
        }
    }
}
