//! One file per command. Each is a thin line from the arguments to the runner to [`crate::ui`].

mod completions;
mod dag;
mod schema;

use std::process::ExitCode;

use engine::{
    instance::Pipeline,
    pipeline::{LoadOptions, load},
};

use crate::{
    args::{Args, Command, Global},
    error::{Failure, FailureKind},
};

/// Does what the command line says.
pub(crate) fn dispatch(args: &Args) -> Result<ExitCode, Failure> {
    if let Some(directory) = &args.global.directory {
        std::env::set_current_dir(directory).map_err(|e| {
            Failure::new(FailureKind::User, format!("cannot work in `{}`: {e}", directory.display()))
        })?;
    }
    let global = &args.global;
    match &args.command {
        Command::Dag { mermaid, dot, json } => dag::dag(global, *mermaid, *dot, *json),
        Command::Schema => schema::schema(),
        Command::Completions { shell } => completions::completions(*shell),
    }
}

/// Reads the pipeline that the options name.
fn pipeline(global: &Global) -> Result<Pipeline, Failure> {
    let options =
        LoadOptions { file: global.file.clone(), profile: global.profile.clone(), sets: global.sets.clone() };
    Ok(load(&options, &stages::kinds())?)
}
