//! What an engine does in a training step, told before it does it: its passes over the images, and the
//! memory that it holds. Knows no engine; [`crate::cost`] says what a step costs by definition.

use serde::Serialize;

/// A training step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// In the order in which they are run.
    pub passes: Vec<Pass>,
    /// All of the memory, by kind.
    pub buffers: Vec<Buffer>,
}

impl Plan {
    /// Of an engine that knows its memory and does not tell its passes.
    pub fn of_memory(bytes: usize) -> Self {
        Self { passes: Vec::new(), buffers: vec![Buffer { name: "all buffers", bytes, of_batch: false }] }
    }

    /// Bytes of all buffers, or of those alone that grow with the batch.
    pub fn buffer_bytes(&self, batch_alone: bool) -> usize {
        self.buffers.iter().filter(|b| b.of_batch || !batch_alone).map(|b| b.bytes).sum()
    }
}

/// Which way a pass goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the images to the logits.
    Forward,
    /// Forward once more, on the way back, for what was not kept.
    Again,
    /// From the logits' gradients to those of BatchNorm.
    Backward,
    /// To the gradients of filters.
    Filters,
}

/// One sweep over all images of a batch, which all of them finish before the next one begins. Costs are
/// per image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pass {
    /// Which way.
    pub direction: Direction,
    /// PyTorch's names of the convolutions, or of the output layer.
    pub modules: Vec<String>,
    /// How each of them is computed.
    pub algorithms: Vec<&'static str>,
    /// What is done while the pass reads.
    pub on_read: Vec<&'static str>,
    /// What is done while it writes.
    pub on_write: Vec<&'static str>,
    /// Bytes of maps that it reads.
    pub bytes_read: u64,
    /// Bytes of maps that it writes.
    pub bytes_written: u64,
    /// Floating-point operations, if all convolutions were direct.
    pub flop: u64,
}

/// Memory of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Buffer {
    /// What it holds.
    pub name: &'static str,
    /// Bytes.
    pub bytes: usize,
    /// Does it grow with the batch?
    pub of_batch: bool,
}
