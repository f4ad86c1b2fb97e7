//! Networks and curves in the formats of other programs: [`onnx`], [`tensorboard`],
//! [`hugging_face`]. Values in, bytes out; knows no files.
//!
//! `check.py` beside these files reads all of them back with the programs they are meant for.

pub mod hugging_face;
pub mod onnx;
mod protobuf;
pub mod tensorboard;

#[cfg(test)]
mod tests;
