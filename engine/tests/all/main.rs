//! Tests of the runner, in one binary.
#![allow(missing_docs, clippy::unwrap_used)]

mod files;
mod gc;
mod idle;
mod places;
mod random;
mod run;
mod space;
