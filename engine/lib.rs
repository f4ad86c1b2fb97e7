//! The runner: a pipeline of content-hashed stages, their recipes, their files.
//!
//! Knows nothing of machine learning, terminals or colours. Prints nothing. What the vocabulary
//! means, in the order data flows:
//!
//! - a *pipeline* ([`pipeline`]) is read from a TOML file and expanded into *instances*, one per
//!   combination of a stage's matrix;
//! - a *kind* ([`kind`]) is what a stage does; the program that uses this crate registers them;
//! - a *recipe* is the text that is an instance's identity; its digest decides staleness;
//! - a *record* is what a finished instance left behind;
//! - a *standing* says whether an instance is fresh, stale (and why), or waits for another.

#[cfg(not(unix))]
compile_error!("repro runs on Linux and macOS; on Windows, build and run it in WSL");

pub mod child;
mod commit;
pub mod digest;
pub mod error;
pub mod gc;
mod held;
pub mod idle;
pub mod instance;
mod judge;
pub mod kind;
pub mod launcher;
mod leavings;
mod lock;
mod lockfile;
mod look;
pub mod machine;
pub mod made;
mod memo;
pub mod observer;
pub mod past;
pub mod pipeline;
pub mod place;
pub mod plan;
mod process;
mod program;
pub mod project;
pub mod publish;
pub mod push;
pub mod recipe;
pub mod record;
mod resources;
mod restore;
pub mod run;
mod schedule;
pub mod share;
mod show;
mod state;
pub mod store;
mod task;
pub mod verify;
