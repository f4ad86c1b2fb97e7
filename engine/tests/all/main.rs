//! Tests of the runner, in one binary.
#![allow(missing_docs, clippy::unwrap_used)]

mod gc;
mod run;
mod space;
