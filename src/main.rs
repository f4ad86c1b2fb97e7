//! `repro`: reproduces the experiments of "Training BatchNorm and Only BatchNorm". See README.md.
//!
//! This package turns words on a command line into calls of the runner and the runner's answers
//! into text. It knows neither how staleness is decided nor what a network is.

mod args;
mod commands;
mod error;
mod ui;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match commands::dispatch(&args) {
        Ok(code) => code,
        Err(failure) => {
            ui::failure(&failure);
            failure.kind.into()
        }
    }
}
