//! Tests of the runner, in one binary.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod gc;
mod idle;
#[cfg(target_os = "linux")] // by `setsid`
mod launcher;
mod places;
mod random;
mod run;
mod share;
mod space;
