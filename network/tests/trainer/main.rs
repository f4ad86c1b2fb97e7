//! What every engine must do, and do alike: gradients, golden numbers from PyTorch, resuming.
#![allow(clippy::unwrap_used)] // support code of tests, too

mod follow;
mod golden;
mod gradients;
mod resume;
mod support;
