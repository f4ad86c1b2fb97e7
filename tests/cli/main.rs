//! The real binary against projects in temporary folders.

mod bench;
mod errors;
mod experiments;
mod export;
mod project;
mod read;
mod run;
mod schema;
mod stop;
