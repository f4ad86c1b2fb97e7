//! Tests of the runner, in one binary.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod gc;
mod idle;
mod lasting;
#[cfg(target_os = "linux")] // by `setsid`
mod launcher;
mod lock_file;
mod places;
mod random;
mod resources;
mod run;
mod share;
mod space;
