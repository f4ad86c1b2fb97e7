//! A named, contiguous `f32` tensor: what crosses the border between engines, checkpoints and
//! tests. Knows no arithmetic.

use std::collections::BTreeMap;

/// A contiguous row-major tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The elements; their number is the product of `shape`.
    pub data: Vec<f32>,
}

impl Tensor {
    /// Wraps `data`; panics when the sizes disagree, which is a bug of the caller.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "tensor data does not fill its shape");
        Self { shape, data }
    }

    /// A tensor full of `value`.
    pub fn full(shape: impl Into<Vec<usize>>, value: f32) -> Self {
        let shape = shape.into();
        let data = vec![value; shape.iter().product()];
        Self { shape, data }
    }
}

/// Tensors by name, sorted, so that whatever is written from them is always in one order.
pub type Tensors = BTreeMap<String, Tensor>;
