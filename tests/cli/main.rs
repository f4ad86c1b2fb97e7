//! The real binary against projects in temporary folders.

mod bench;
mod browser;
#[cfg(target_os = "linux")] // whose files in memory the emulated driver loads
mod card;
mod clone;
mod command;
mod costs;
mod diff;
mod dry;
mod errors;
mod experiments;
mod export;
mod files;
mod gpus;
#[cfg(target_os = "linux")] // by `setsid`
mod launcher;
mod metrics;
mod past;
mod project;
mod read;
mod readme;
mod run;
mod safety;
mod schema;
mod share;
mod stop;
mod sweep;
